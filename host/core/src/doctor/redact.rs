//! The one place that everything passes which a report shows.
//!
//! A report is made to be pasted into an issue. What comes from files, engines and the environment may hold a login in an
//! address, and a program may print the key that it was given.

use pcoder_runtime::text::for_people;

use super::record::Check;
use crate::Surroundings;

/// Bytes of one text of a report.
const LIMIT: usize = 600;

/// A value that is shorter is too likely to be a part of something else.
const SHORTEST: usize = 6;

/// Words in the names of variables whose values are nobody else's business.
const SECRET_NAMES: [&str; 7] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL"];

/// What must not be shown, and what is shown in its place.
pub(super) struct Redactor {
    secrets: Vec<(String, String)>,
}

impl Redactor {
    /// Knows the values of this environment whose names sound like secrets, and the logins in its addresses.
    pub(super) fn new(surroundings: &Surroundings) -> Self {
        let mut secrets = Vec::new();
        for (name, value) in &surroundings.environment {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            let sounds = name.to_ascii_uppercase();
            if SECRET_NAMES.iter().any(|it| sounds.contains(it)) {
                secrets.push((value.to_owned(), format!("[{name}]")));
            }
            let logins = addresses(value).filter_map(|address| address.login);
            secrets.extend(logins.flat_map(|login| {
                let password = login.split_once(':').map(|(_, password)| password.to_owned());
                [Some(login.to_owned()), password].into_iter().flatten().map(|it| (it, format!("[login in {name}]")))
            }));
        }
        secrets.retain(|(value, _)| value.len() >= SHORTEST);
        // A value that holds another one goes first.
        secrets.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self { secrets }
    }

    /// A text as it may be shown: on one line, without secrets and escape sequences, and not long.
    pub(super) fn text(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for (secret, instead) in &self.secrets {
            shown = shown.replace(secret.as_str(), instead);
        }
        for_people(without_logins(&shown).replace(['\n', '\r', '\t'], " ").trim(), LIMIT)
    }

    pub(super) fn check(&self, check: &mut Check) {
        let optional = [&mut check.expected, &mut check.meaning, &mut check.remedy, &mut check.fixed];
        for text in optional.into_iter().flatten().chain([&mut check.id, &mut check.measured]) {
            *text = self.text(text);
        }
        if check.measured.is_empty() {
            check.measured = "it says nothing".to_owned();
        }
    }
}

/// An address in a text.
struct Address<'a> {
    /// Where what follows `://` begins.
    begin: usize,
    /// What stands before the last `@` of its first part.
    login: Option<&'a str>,
}

/// The addresses in a text, in their order.
fn addresses(text: &str) -> impl Iterator<Item = Address<'_>> {
    text.match_indices("://").filter_map(move |(at, mark)| {
        let begin = at + mark.len();
        let rest = text.get(begin..)?;
        let ends = |it: char| it.is_whitespace() || matches!(it, '"' | '\'' | '`' | '<' | '>' | ',');
        let whole = rest.get(..rest.find(ends).unwrap_or(rest.len()))?;
        let host = whole.get(..whole.find(['/', '?', '#']).unwrap_or(whole.len()))?;
        // A password with a slash in it cuts the host short; then what follows the colon is no port.
        let cut = host.split_once(':').is_some_and(|(_, port)| !port.bytes().all(|it| it.is_ascii_digit()));
        let part = if host.contains('@') || !cut { host } else { whole };
        Some(Address { begin, login: part.rfind('@').and_then(|end| part.get(..end)) })
    })
}

/// A text whose addresses have no logins.
pub(super) fn without_logins(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut from = 0;
    for Address { begin, login } in addresses(text) {
        if let Some(login) = login
            && let Some(before) = text.get(from..begin)
        {
            shown.push_str(before);
            from = begin + login.len() + 1;
        }
    }
    shown.push_str(text.get(from..).unwrap_or_default());
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(variables: &[(&str, &str)]) -> Redactor {
        let environment = variables.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        Redactor::new(&Surroundings { environment, ..Surroundings::default() })
    }

    #[test]
    fn an_address_is_shown_without_its_login() {
        for (text, expected) in [
            ("http://u:p@proxy:3128/x", "http://proxy:3128/x"),
            ("socks5://user@host", "socks5://host"),
            ("see https://a:b@c/d and https://e:f@g.", "see https://c/d and https://g."),
            ("http://u:p@ss@host/", "http://host/"),
            ("http://u:pa/ss@host/x", "http://host/x"),
            ("https://registry.example/@scope/name", "https://registry.example/@scope/name"),
            ("https://registry.example:8080/@scope/name", "https://registry.example:8080/@scope/name"),
            ("no address: a@b", "no address: a@b"),
            ("://", "://"),
        ] {
            assert_eq!(without_logins(text), expected);
        }
    }

    #[test]
    fn the_value_of_a_secret_variable_is_shown_as_its_name() {
        let redactor = redactor(&[("ANTHROPIC_API_KEY", "sk-ant-0123"), ("A_TOKEN", "abc"), ("HOME", "/home/u")]);
        assert_eq!(
            redactor.text("it printed sk-ant-0123 twice: sk-ant-0123"),
            "it printed [ANTHROPIC_API_KEY] twice: [ANTHROPIC_API_KEY]"
        );
        assert_eq!(redactor.text("abc in /home/u"), "abc in /home/u", "too short to be one, and none");
    }

    #[test]
    fn the_password_of_a_proxy_is_gone_wherever_it_is_repeated() {
        let redactor = redactor(&[("HTTPS_PROXY", "http://me:hunter2hunter2@proxy:1")]);
        let shown = redactor.text("cannot use me:hunter2hunter2 nor hunter2hunter2");
        assert_eq!(shown, "cannot use [login in HTTPS_PROXY] nor [login in HTTPS_PROXY]");
    }

    #[test]
    fn a_text_is_one_short_line() {
        let redactor = redactor(&[]);
        assert_eq!(redactor.text("two\nlines \u{1b}[2J\n"), "two lines \\u{1b}[2J");
        assert!(redactor.text(&"x".repeat(5000)).len() < LIMIT + 10);
    }
}
