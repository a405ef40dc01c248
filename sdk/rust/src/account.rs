//! Which account and which model service an agent is launched with.

use crate::error::{Error, Result};
use crate::types::{Launch, setting};

const OPERATION: &str = "agent.launch";

/// What a launch says about the account and the model service, checked. What is missing is as the agent's own settings
/// say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account<'a> {
    /// The folder that the agent keeps its login and its settings in.
    pub config_dir: Option<&'a str>,
    /// Whether requests are made with a key from the environment (`true`) or with the login (`false`). An endpoint is
    /// for a key.
    pub api: Option<bool>,
    /// The base URL of the model service.
    pub endpoint: Option<&'a str>,
    /// The model.
    pub model: Option<&'a str>,
}

impl Account<'_> {
    /// Whether requests are made with a key from the environment.
    pub fn uses_api_key(&self) -> bool {
        self.api == Some(true)
    }
}

impl Launch {
    /// The options `config-dir`, `auth`, `endpoint` and `model`.
    ///
    /// # Errors
    /// `invalid` for a value that is empty or has control characters, for another `auth` than `oauth` and `api`, for an
    /// `endpoint` that is no address for HTTP or holds a password, and for one beside `oauth`.
    pub fn account(&self) -> Result<Account<'_>> {
        let option = |name: &'static str| match setting(&self.options, name) {
            Some(value) if value.is_empty() || value.chars().any(char::is_control) => {
                Err(invalid(name, "it is empty or has characters that cannot be shown"))
            }
            value => Ok(value),
        };
        let endpoint = option("endpoint")?;
        if let Some(endpoint) = endpoint {
            check_endpoint(endpoint)?;
        }
        let api = match (option("auth")?, endpoint) {
            (Some("oauth"), Some(_)) => {
                return Err(invalid("endpoint", "the login's token would be sent there")
                    .hint("use an endpoint with an API key, or a login without an endpoint"));
            }
            (Some("oauth"), None) => Some(false),
            (Some("api"), _) | (None, Some(_)) => Some(true),
            (None, None) => None,
            (Some(_), _) => return Err(invalid("auth", "it is `oauth` or `api`")),
        };
        Ok(Account { config_dir: option("config-dir")?, api, endpoint, model: option("model")? })
    }
}

/// It stands in command lines and in what people are shown, so it holds no secret.
fn check_endpoint(endpoint: &str) -> Result<()> {
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let authority = rest.map(|rest| rest.split(['/', '?', '#', '\\']).next().unwrap_or_default());
    match authority {
        None | Some("") => Err(invalid("endpoint", "it is a URL that begins with `https://` or `http://`")),
        Some(authority) if authority.contains('@') => {
            Err(invalid("endpoint", "it holds a name or a password").hint("give the key on its own"))
        }
        Some(_) => Ok(()),
    }
}

fn invalid(option: &str, message: &str) -> Error {
    Error::invalid(OPERATION, message).subject(option)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use crate::types::Setting;

    fn launch(options: &[(&str, &str)]) -> Launch {
        let mut launch = testing::launch(&["claw"], &[]);
        launch.options = options.iter().map(|(name, value)| Setting::new(*name, *value)).collect();
        launch
    }

    fn refused(options: &[(&str, &str)]) -> (String, Option<String>, String) {
        let error = launch(options).account().unwrap_err();
        (error.code, error.subject, error.message)
    }

    #[test]
    fn a_launch_that_says_nothing_leaves_everything_to_the_agent() {
        let launch = launch(&[("sandboxed", "true")]);
        let account = launch.account().unwrap();
        assert_eq!(account, Account::default());
        assert!(!account.uses_api_key());
    }

    #[test]
    fn a_launch_names_the_folder_the_key_the_service_and_the_model() {
        let options =
            [("config-dir", "/a b/c"), ("auth", "api"), ("endpoint", "https://x.example/v1"), ("model", "a-1")];
        let launch = launch(&options);
        let expected = Account {
            config_dir: Some("/a b/c"),
            api: Some(true),
            endpoint: Some("https://x.example/v1"),
            model: Some("a-1"),
        };
        assert_eq!(launch.account(), Ok(expected));
    }

    #[test]
    fn an_endpoint_is_for_a_key() {
        assert!(launch(&[("endpoint", "http://127.0.0.1:1")]).account().unwrap().uses_api_key());
        assert_eq!(launch(&[("auth", "oauth")]).account().unwrap().api, Some(false));
        let (code, subject, message) = refused(&[("auth", "oauth"), ("endpoint", "https://x.example")]);
        assert_eq!((code.as_str(), subject.as_deref()), ("invalid", Some("endpoint")));
        assert_eq!(message, "the login's token would be sent there");
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for option in ["config-dir", "auth", "endpoint", "model"] {
            for value in ["", "a\nb", "a\u{7f}"] {
                let (code, subject, _) = refused(&[(option, value)]);
                assert_eq!((code.as_str(), subject.as_deref()), ("invalid", Some(option)), "{value:?}");
            }
        }
        assert_eq!(refused(&[("auth", "key")]).1.as_deref(), Some("auth"));
        for endpoint in ["x.example", "ftp://x.example", "https://", "https:///v1", "https://u:secret@x.example/v1"] {
            let (_, subject, message) = refused(&[("endpoint", endpoint)]);
            assert_eq!(subject.as_deref(), Some("endpoint"), "{endpoint}");
            assert!(!message.contains("secret"));
        }
        assert!(launch(&[("endpoint", "https://x.example/a@b")]).account().is_ok());
    }
}
