//! Where the packages come from: registries, logins, proxies and certificates, out of npm's configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcoder_http::{ClientOptions, Proxies};
use reqwest::Url;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::{At, Error, Result};
use crate::npmrc::{Environment, NpmConfig, NpmPlaces};
use crate::secret::Secret;

/// The registry of this build. A distributor sets it; the repository names none.
const BUILT_IN: Option<&str> = option_env!("PCODER_NPM_REGISTRY");

/// How to reach the registries.
#[derive(Clone)]
pub struct NetworkConfig {
    registry: Option<Url>,
    scopes: BTreeMap<String, Url>,
    logins: Vec<Login>,
    proxies: Proxies,
    extra_roots: Vec<CertificateDer<'static>>,
}

/// An `Authorization` header, and where alone it may go.
#[derive(Clone)]
struct Login {
    /// `host[:port]/path/`, npm's "nerf dart" without the slashes in front.
    prefix: String,
    header: Secret,
}

impl fmt::Debug for NetworkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkConfig")
            .field("registry", &self.registry.as_ref().map(Url::as_str))
            .field("scopes", &self.scopes.iter().map(|(scope, url)| (scope, url.as_str())).collect::<Vec<_>>())
            .field("logins", &self.logins.iter().map(|login| &login.prefix).collect::<Vec<_>>())
            .field("proxies", &self.proxies)
            .field("extra_roots", &self.extra_roots.len())
            .finish()
    }
}

impl NetworkConfig {
    /// Reads npm's configuration. The strongest first: `registry` (an option on the command line), `npm_config_*` in the
    /// environment, the project's `.npmrc`, the user's, the global one, `HTTPS_PROXY` and its like (npm too lets its own
    /// files win over them), the build's own registry.
    ///
    /// That no registry is known at all is said when one is needed.
    ///
    /// # Errors
    /// A file cannot be read; a value is no address or no certificate; `strict-ssl` is off.
    pub fn from_npm(environment: &Environment, places: NpmPlaces<'_>, registry: Option<&str>) -> Result<Self> {
        let npm = NpmConfig::load(environment, places)?;
        if let Some((value, layer)) = npm.get_from("strict-ssl")
            && matches!(value, "false" | "0" | "null")
        {
            return Err(Error::Invalid {
                subject: "strict-ssl".to_owned(),
                detail: format!(
                    "{layer} turns certificate checks off, which pcoder does not do: tokens would go to anyone"
                ),
                hint: "name your organisation's certificate instead, `npm_config_cafile=FILE.pem`, and \
                       `npm_config_strict_ssl=true`"
                    .to_owned(),
            });
        }
        let mut logins = Vec::new();
        let mut address = |subject: &str, text: &str| -> Result<Url> {
            let (url, login) = registry_address(subject, text)?;
            logins.extend(login);
            Ok(url)
        };
        let chosen = match (registry, npm.get("registry"), BUILT_IN) {
            (Some(text), _, _) => Some(address("--registry", text)?),
            (None, Some(text), _) => Some(address("registry", text)?),
            (None, None, Some(text)) => Some(address("PCODER_NPM_REGISTRY", text)?),
            (None, None, None) => None,
        };
        let settings = npm.all();
        let mut scopes = BTreeMap::new();
        // A registry on the command line is for everything, as in `npm --registry` for unscoped packages; a scope's own
        // setting is more specific and stays.
        for (key, value) in &settings {
            if let Some(scope) = key.strip_suffix(":registry").filter(|scope| scope.starts_with('@'))
                && !value.is_empty()
            {
                scopes.insert(scope.to_owned(), address(key, value)?);
            }
        }
        logins.extend(configured_logins(&settings));
        logins.sort_by_key(|login| std::cmp::Reverse(login.prefix.len()));
        Ok(Self {
            registry: chosen,
            scopes,
            logins,
            proxies: proxies(&npm, environment)?,
            extra_roots: extra_roots(&npm, environment)?,
        })
    }

    /// A registry without login, proxy or certificate of its own.
    ///
    /// # Errors
    /// It is no address.
    pub fn plain(registry: &str) -> Result<Self> {
        let (registry, login) = registry_address("registry", registry)?;
        Ok(Self {
            registry: Some(registry),
            scopes: BTreeMap::new(),
            logins: login.into_iter().collect(),
            proxies: Proxies::default(),
            extra_roots: Vec::new(),
        })
    }

    /// The network beneath the registries, for whoever else goes out from here: its proxies and certificates, with the
    /// usual agent and patience. No login is in it.
    pub fn client_options(&self) -> ClientOptions {
        let (proxies, extra_roots) = (self.proxies.clone(), self.extra_roots.clone());
        ClientOptions { proxies, extra_roots, ..ClientOptions::default() }
    }

    /// The addresses of all registries that are configured, without logins.
    pub fn registries(&self) -> impl Iterator<Item = &Url> {
        self.registry.iter().chain(self.scopes.values())
    }

    /// The address below which a package's tarball lies.
    ///
    /// # Errors
    /// No registry is configured.
    pub(crate) fn registry_for(&self, package: &str) -> Result<&Url> {
        let scope = package.split_once('/').map(|(scope, _)| scope);
        scope.and_then(|scope| self.scopes.get(scope)).or(self.registry.as_ref()).ok_or_else(|| Error::Invalid {
            subject: "registry".to_owned(),
            detail: "no npm registry is configured, and this pcoder was built without one".to_owned(),
            hint: "set `npm_config_registry=https://…` in the environment, or write `registry=https://…` into ~/.npmrc"
                .to_owned(),
        })
    }

    /// The address of a file on a package's registry.
    pub(crate) fn url_for(&self, package: &str, path: &str) -> Result<Url> {
        let base = self.registry_for(package)?;
        base.join(path).map_err(|error| Error::internal(format!("`{path}` cannot be an address: {error}")))
    }

    /// The `Authorization` header for an address: the one with the longest prefix that the address lies under.
    pub(crate) fn login_for(&self, url: &Url) -> Option<&Secret> {
        let place = place(url)?;
        self.logins.iter().find(|login| place.starts_with(&login.prefix)).map(|login| &login.header)
    }
}

/// `host[:port]/path`. The port is there only when it is not the scheme's own, as in npm.
fn place(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}{}", url.path()),
        None => format!("{host}{}", url.path()),
    })
}

/// An address with `/` at its end and without its credentials, which become a login for that place.
fn registry_address(subject: &str, text: &str) -> Result<(Url, Option<Login>)> {
    let invalid = |detail: &str| Error::Invalid {
        subject: subject.to_owned(),
        // The text may hold a password: it is not repeated.
        detail: detail.to_owned(),
        hint: "write an address such as `https://HOST/PATH/`".to_owned(),
    };
    let mut url = Url::parse(text.trim()).map_err(|error| invalid(&format!("it is not an address ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(invalid("it is not an http or https address"));
    }
    url.set_query(None);
    url.set_fragment(None);
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    let login = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => {
            let header = basic(&unescape(user), &unescape(password.unwrap_or_default()));
            place(&url).map(|prefix| Login { prefix, header })
        }
    };
    if login.is_some() {
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| invalid("it has odd credentials"))?;
    }
    Ok((url, login))
}

fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) if byte == b'%' => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn basic(user: &str, password: &str) -> Secret {
    Secret::new(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// `//host/path/:_authToken` and its elders. What names no host is passed over, as npm refuses it: it would go everywhere.
fn configured_logins(settings: &BTreeMap<&str, &str>) -> Vec<Login> {
    let mut logins = Vec::new();
    for (key, value) in settings {
        let Some((place, name)) = key.strip_prefix("//").and_then(|rest| rest.rsplit_once(':')) else {
            continue;
        };
        if value.is_empty() || place.is_empty() {
            continue;
        }
        let header = match name {
            "_authToken" => Secret::new(format!("Bearer {value}")),
            "_auth" if !settings.contains_key(format!("//{place}:_authToken").as_str()) => {
                Secret::new(format!("Basic {value}"))
            }
            "username" => {
                let password = settings.get(format!("//{place}:_password").as_str());
                let password = password.and_then(|password| STANDARD.decode(password).ok());
                match password.and_then(|password| String::from_utf8(password).ok()) {
                    Some(password) => basic(value, &password),
                    None => continue,
                }
            }
            _ => continue,
        };
        // Host names are compared as the parser writes them: small letters, no default port, a path with `/` at the end.
        let Ok(url) = Url::parse(&format!("https://{place}")) else {
            continue;
        };
        let Some(mut prefix) = self::place(&url) else {
            continue;
        };
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        logins.push(Login { prefix, header });
    }
    logins
}

fn proxies(npm: &NpmConfig, environment: &Environment) -> Result<Proxies> {
    // npm uses `https-proxy`, else `proxy`, for every registry; "false" and "null" turn it off.
    let configured = npm.get_from("https-proxy").or_else(|| npm.get_from("proxy"));
    let (https, http) = match configured {
        Some(("false" | "null", _)) => (None, None),
        Some((text, layer)) => {
            let url = proxy_address(&format!("proxy of {layer}"), text)?;
            (Some(url.clone()), Some(url))
        }
        None => {
            let from = |name: &str| environment.text(name).map(|text| proxy_address(name, text)).transpose();
            let (https, http) = (from("HTTPS_PROXY")?, from("HTTP_PROXY")?);
            // It is often of a kind that is not known here (`socks5://`). That is in nobody's way who named another.
            let all = match from("ALL_PROXY") {
                Err(_) if https.is_some() || http.is_some() => None,
                all => all?,
            };
            (https.or_else(|| http.clone()).or_else(|| all.clone()), http.or(all))
        }
    };
    let except = npm.get("noproxy").or_else(|| environment.text("NO_PROXY")).map(str::to_owned);
    Ok(Proxies { https, http, except })
}

fn proxy_address(subject: &str, text: &str) -> Result<Url> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    Url::parse(&text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
        .ok_or_else(|| Error::Invalid {
            subject: subject.to_owned(),
            detail: "it is not an http or https proxy".to_owned(),
            hint: "write an address such as `http://HOST:PORT`".to_owned(),
        })
}

/// Certificates beside the system's own. `cafile` must be there; the variables are for many programs, and one that
/// points nowhere is passed over as Node does.
fn extra_roots(npm: &NpmConfig, environment: &Environment) -> Result<Vec<CertificateDer<'static>>> {
    let mut roots = Vec::new();
    for pem in npm.list("ca").iter().filter(|pem| !matches!(pem.as_str(), "" | "null")) {
        let pem = pem.replace("\\n", "\n");
        roots.extend(certificates(pem.as_bytes()).ok_or_else(|| bad_certificate("ca"))?);
    }
    if let Some(path) = npm.get("cafile").filter(|path| *path != "null") {
        let path = PathBuf::from(path);
        let pem = fs::read(&path).at("read", &path)?;
        roots.extend(certificates(&pem).ok_or_else(|| bad_certificate(&format!("cafile `{}`", path.display())))?);
    }
    for name in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"] {
        let file =
            environment.get(name).filter(|path| !path.is_empty()).and_then(|path| fs::read(Path::new(path)).ok());
        if let Some(found) = file.and_then(|pem| certificates(&pem)) {
            roots.extend(found);
        }
    }
    roots.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    roots.dedup();
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!found.is_empty()).then_some(found)
}

fn bad_certificate(subject: &str) -> Error {
    Error::Invalid {
        subject: subject.to_owned(),
        detail: "it holds no certificate in PEM form".to_owned(),
        hint: "name a file that begins with `-----BEGIN CERTIFICATE-----`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(npmrc: &str, environment: &[(&str, &str)], flag: Option<&str>) -> Result<NetworkConfig> {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(".npmrc"), npmrc).unwrap();
        let environment = environment.iter().copied().collect();
        let places = NpmPlaces { home: Some(home.path()), prefix: Some(home.path()), project: None };
        NetworkConfig::from_npm(&environment, places, flag)
    }

    fn login(config: &NetworkConfig, url: &str) -> Option<String> {
        config.login_for(&Url::parse(url).unwrap()).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn scopes_have_their_registry_and_the_flag_wins() {
        let npmrc = "registry=https://r.example/npm\n@s:registry=https://s.example:8443/x/\n";
        let url = |config: &NetworkConfig, package: &str| config.url_for(package, "p/-/p-1.tgz").unwrap().to_string();
        let found = config(npmrc, &[], None).unwrap();
        assert_eq!(url(&found, "p"), "https://r.example/npm/p/-/p-1.tgz");
        assert_eq!(url(&found, "@s/p"), "https://s.example:8443/x/p/-/p-1.tgz");
        assert_eq!(url(&found, "@t/p"), "https://r.example/npm/p/-/p-1.tgz");
        let found = config(npmrc, &[("npm_config_registry", "https://e.example")], Some("https://f.example")).unwrap();
        assert_eq!(url(&found, "p"), "https://f.example/p/-/p-1.tgz");
        let found = config(npmrc, &[("NPM_CONFIG_REGISTRY", "https://e.example")], None).unwrap();
        assert_eq!(url(&found, "p"), "https://e.example/p/-/p-1.tgz");
    }

    #[test]
    fn a_login_goes_where_it_belongs() {
        let found = config(
            "registry=https://R.example/npm/\n//r.example/npm/:_authToken=deep\n//r.example/:_authToken=wide\n\
             //b.example/:username=u\n//b.example/:_password=cHc=\n//c.example:81/:_auth=eDp5\n_authToken=nowhere\n",
            &[],
            None,
        )
        .unwrap();
        assert_eq!(login(&found, "https://r.example/npm/p").unwrap(), "Bearer deep");
        assert_eq!(login(&found, "https://r.example/other").unwrap(), "Bearer wide");
        assert_eq!(login(&found, "https://r.example/npmx").unwrap(), "Bearer wide");
        assert_eq!(login(&found, "https://b.example/p").unwrap(), "Basic dTpwdw==");
        assert_eq!(login(&found, "https://c.example:81/p").unwrap(), "Basic eDp5");
        for other in ["https://c.example/p", "https://r.example.evil/npm/p", "https://evil/r.example/npm/"] {
            assert_eq!(login(&found, other), None, "{other}");
        }
    }

    #[test]
    fn credentials_in_an_address_become_a_login_and_are_not_shown() {
        let found = config("registry=https://us%40er:s3cret@r.example/n\n", &[], None).unwrap();
        assert_eq!(found.url_for("p", "p").unwrap().as_str(), "https://r.example/n/p");
        assert_eq!(login(&found, "https://r.example/n/p").unwrap(), "Basic dXNAZXI6czNjcmV0");
        assert!(!format!("{found:?}").contains("s3cret"));
        let error = config("registry=ftp://u:s3cret@x\n", &[], None).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("s3cret"));
    }

    #[test]
    fn proxies_as_npm_takes_them() {
        let both = [("HTTPS_PROXY", "http://env:1"), ("no_proxy", "a.example")];
        let proxy = |npmrc: &str| config(npmrc, &both, None).unwrap().client_options().proxies;
        assert_eq!(proxy("").https.unwrap().as_str(), "http://env:1/");
        assert_eq!(proxy("").http, None);
        assert_eq!(proxy("").except.unwrap(), "a.example");
        assert_eq!(proxy("proxy=file:2").https.unwrap().as_str(), "http://file:2/");
        assert_eq!(proxy("proxy=file:2\nhttps-proxy=http://s:3").http.unwrap().as_str(), "http://s:3/");
        assert_eq!(proxy("proxy=false\nnoproxy=b").https, None);
        assert!(config("proxy=socks5://x", &[], None).is_err());
    }

    #[test]
    fn unsafe_or_missing_settings_say_what_to_write() {
        let error = config("strict-ssl=false", &[], None).unwrap_err();
        assert!(error.hint().unwrap().contains("cafile"));
        let error = config("cafile=/nonexistent/x.pem", &[], None).unwrap_err();
        assert_eq!(error.code(), "io");
        assert_eq!(config("ca=\"garbage\"", &[], None).unwrap_err().code(), "invalid");
        assert!(config("", &[("NODE_EXTRA_CA_CERTS", "/nonexistent")], None).is_ok());
        if BUILT_IN.is_none() {
            let error = config("", &[], None).unwrap().url_for("p", "p").unwrap_err();
            assert!(error.hint().unwrap().contains("npm_config_registry="));
        }
    }

    proptest! {
        #[test]
        fn escapes_never_panic(text in "[%a-f0-9é]*") {
            let out = unescape(&text);
            prop_assert!(text.contains('%') || out == text);
        }
    }
}
