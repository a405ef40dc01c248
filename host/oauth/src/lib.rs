//! OAuth 2.0 with PKCE (RFC 6749, 7636, 8252) for the logins of agents.
//!
//! - [`Service`] describes an authorisation server; [`claude::service`] is Claude's.
//! - [`Authorization`] is one login: a URL for the browser, then the code that comes back, pasted by the user
//!   ([`Authorization::finish`]) or received on a loopback port ([`Listening::wait`]), exchanged for [`Tokens`].
//! - [`refresh`] asks for new tokens, and [`CredentialsFile`] is where Claude Code keeps them.
//! - [`ensure_fresh`] does all of it for a file that several processes use: ten minutes early, one refresher at a time. A
//!   refresh token that rotates is good for one use, and whoever uses it a second time logs everyone out.
//!
//! Tokens, codes, verifiers and states are in no error and no `Debug`. Of what a server answers to a refused request, only
//! its OAuth `error` code is shown. The clock is passed in, and nothing here reads the environment.
//!
//! Why not the crate `oauth2`: its token request is always a form, and Claude's token endpoint takes JSON. Its errors carry
//! the server's whole answer. Only its PKCE and state types would be left, a hash and 32 random bytes, and for them it
//! brings `chrono` and second versions of `rand` and `sha2`. So `sha2`, `base64` and `getrandom` are used directly.
#![forbid(unsafe_code)]

mod authorization;
pub mod claude;
mod clock;
mod credentials;
mod error;
#[cfg(test)]
mod error_tests;
mod fresh;
mod http;
mod listener;
mod pasted;
mod pkce;
mod service;
mod tokens;

pub use authorization::Authorization;
pub use clock::Clock;
pub use credentials::CredentialsFile;
pub use error::{Error, Result};
pub use fresh::{Freshness, REFRESH_EARLY, ensure_fresh};
pub use http::{Http, HttpOptions};
pub use listener::Listening;
pub use pcoder_http::{ClientOptions, Proxies};
pub use service::{Loopback, Service, TokenFormat};
pub use tokens::{Tokens, refresh};
pub use url::Url;
