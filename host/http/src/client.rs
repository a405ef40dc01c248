//! A client, and what it is made of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, NoProxy, Proxy, Url};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::error::{Error, Result};

/// How the network is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The `User-Agent`.
    pub agent: String,
    /// How long a connection may take to be there.
    pub connect: Duration,
    /// What is between here and the server.
    pub proxies: Proxies,
    /// Certificates that are trusted beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Whether certificates are loaded. A client for nothing but plain `http` needs none, and the system may have none.
    pub certificates: bool,
}

/// Proxies. Their addresses may hold a password, so `Debug` says only whether there is one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `https`.
    pub https: Option<Url>,
    /// For `http`.
    pub http: Option<Url>,
    /// Hosts that are reached without one, as in `NO_PROXY`: names with all below them, addresses, networks, or `*`.
    pub except: Option<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            agent: concat!("pcoder/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect: Duration::from_secs(10),
            proxies: Proxies::default(),
            extra_roots: Vec::new(),
            certificates: true,
        }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("https", &self.https.is_some())
            .field("http", &self.http.is_some())
            .field("except", &self.except)
            .finish()
    }
}

impl ClientOptions {
    /// Makes a client that follows no redirect. It loads the system's certificates, some 10 ms; clones of the client
    /// share them and their connections.
    ///
    /// # Errors
    /// A certificate or a proxy that cannot be used.
    pub fn build(&self) -> Result<Client> {
        let mut builder = Client::builder()
            .tls_backend_preconfigured(self.tls_config()?)
            // The environment is passed in, so reqwest must not look there itself.
            .no_proxy()
            // A redirect may lead to another server, and what is sent may be for this one alone.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.connect)
            .user_agent(&self.agent);
        for proxy in self.proxies.rules()? {
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|error| Error::new("the HTTP client", crate::reason(error)))
    }

    /// What encrypts, for those who speak something else than HTTP over it.
    ///
    /// # Errors
    /// A certificate that cannot be used.
    pub fn tls_config(&self) -> Result<ClientConfig> {
        let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new("TLS", error.to_string()))?;
        if !self.certificates {
            return Ok(tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
        }
        let verifier = Verifier::new_with_extra_roots(self.extra_roots.iter().cloned(), provider)
            .map_err(|error| Error::new("the certificates", error.to_string()))?;
        Ok(tls.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
    }
}

impl Proxies {
    fn rules(&self) -> Result<Vec<Proxy>> {
        let https = rule("the https proxy", self.https.as_ref(), Proxy::https)?;
        let http = rule("the http proxy", self.http.as_ref(), Proxy::http)?;
        let except = self.except.as_deref().unwrap_or_default();
        // reqwest takes it for all names, and curl for all addresses too.
        if except.split(',').any(|it| it.trim() == "*") {
            return Ok(Vec::new());
        }
        let except = NoProxy::from_string(except);
        Ok(https.into_iter().chain(http).map(|proxy| proxy.no_proxy(except.clone())).collect())
    }
}

fn rule(subject: &'static str, url: Option<&Url>, make: fn(Url) -> reqwest::Result<Proxy>) -> Result<Option<Proxy>> {
    let Some(url) = url else { return Ok(None) };
    // What reqwest does not know as a proxy it would go around in silence.
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::new(subject, "it is not an http or https address"));
    }
    // The address may hold a password: what reqwest says of it is not shown.
    make(url.clone()).map(Some).map_err(|_| Error::new(subject, "it is not a proxy's address"))
}

#[cfg(test)]
mod tests;
