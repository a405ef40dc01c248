//! One login.

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::http::Http;
use crate::listener::Listening;
use crate::pasted::{self, Pasted};
use crate::pkce;
use crate::service::{Service, TokenFormat};
use crate::tokens::Tokens;

/// A login that was begun. It has no `Debug`: the verifier and the state are secret until it has ended. It is good for one
/// code; after a code that was mistyped, another can be tried.
pub struct Authorization {
    service: Service,
    url: Url,
    redirect_uri: String,
    verifier: SecretString,
    state: SecretString,
}

impl Authorization {
    /// Begins a login whose code the user pastes.
    ///
    /// # Errors
    /// `Config` for a service whose URLs are neither https nor of this machine, `Random`.
    pub fn begin(service: &Service) -> Result<Self> {
        Self::begin_at(service, service.redirect_uri.clone())
    }

    /// Begins a login whose code arrives on a port of 127.0.0.1, which is open as long as the result lives.
    ///
    /// # Errors
    /// As [`Authorization::begin`]; `Config` for a service without a loopback redirect; `Listen`.
    pub async fn begin_with_listener(service: &Service) -> Result<Listening> {
        Listening::begin(service).await
    }

    pub(crate) fn begin_at(service: &Service, redirect_uri: String) -> Result<Self> {
        service.check()?;
        let (verifier, state) = (pkce::random()?, pkce::random()?);
        let mut url = service.authorize_url.clone();
        url.query_pairs_mut()
            .extend_pairs(&service.authorize_params)
            .append_pair("response_type", "code")
            .append_pair("client_id", &service.client_id)
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", &service.scopes.join(" "))
            .append_pair("code_challenge", &pkce::challenge(&verifier))
            .append_pair("code_challenge_method", "S256")
            .append_pair("state", state.expose_secret());
        Ok(Self { service: service.clone(), url, redirect_uri, verifier, state })
    }

    /// What the user opens in a browser.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Exchanges what the user pasted: `code#state`, a code alone, or the whole URL that the browser was sent to. A code
    /// alone is not tied to this login by its state; the server ties it by PKCE.
    ///
    /// # Errors
    /// `Pasted`, `WrongState` and `Denied` before anything is sent; then `LoginExpired` for a code that is not valid, and
    /// what a request can meet: `RateLimited`, `Refused`, `Answer`, `Timeout`, `Network`.
    pub async fn finish(&self, pasted: &str, http: &Http, clock: &Clock) -> Result<Tokens> {
        let Pasted { code, state } = pasted::parse(pasted, &self.redirect_uri)?;
        if state.is_some_and(|state| !self.is_mine(state.expose_secret())) {
            return Err(Error::WrongState);
        }
        self.exchange(&code, http, clock).await
    }

    pub(crate) fn is_mine(&self, state: &str) -> bool {
        pkce::same(&self.state, state)
    }

    pub(crate) async fn exchange(&self, code: &SecretString, http: &Http, clock: &Clock) -> Result<Tokens> {
        let service = &self.service;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code.expose_secret()),
            ("redirect_uri", &self.redirect_uri),
            ("client_id", &service.client_id),
            ("code_verifier", self.verifier.expose_secret()),
        ];
        if service.token_format == TokenFormat::Json {
            fields.push(("state", self.state.expose_secret()));
        }
        let asked = clock.now_ms();
        let answer = http.post(&service.token_url, service.token_format, &fields).await?;
        Tokens::from_answer(service, &answer, asked, service.scopes.clone())
    }
}
