//! The HTTPS client that logins and downloads are made with, so that what must not be forgotten is in one place: rustls
//! with ring, the system's certificates and those that are named beside them, proxies, and no redirects.
//!
//! [`ClientOptions::build`] makes a [`reqwest::Client`] of what it is told. [`reason`] and [`retry_after`] read what
//! comes back the same way everywhere.
//!
//! Nothing here prints or reads the environment; proxies too are passed in. (The libraries below look up the system's
//! certificates.) A proxy's address may hold a password: it is in no [`Error`] and no `Debug`.
#![forbid(unsafe_code)]

mod answer;
mod client;
mod error;

pub use answer::{reason, retry_after};
pub use client::{ClientOptions, Proxies};
pub use error::{Error, Result};
pub use reqwest::Url;
pub use rustls::pki_types::CertificateDer;
