//! What a user pastes.

use secrecy::SecretString;
use url::Url;

use crate::error::{Error, Result};
use crate::http::safe_code;

/// A code is some hundred characters; a whole URL a little more.
const MAX_LENGTH: usize = 8 * 1024;

/// A code, and the state that came with it. Nothing of it was compared with anything yet.
pub(crate) struct Pasted {
    pub(crate) code: SecretString,
    pub(crate) state: Option<SecretString>,
}

/// Reads `code#state`, a code alone, or the whole URL that the browser was sent to.
///
/// # Errors
/// `Pasted` for anything else, `Denied` for a URL that says so.
pub(crate) fn parse(text: &str, redirect_uri: &str) -> Result<Pasted> {
    let wrong = |detail| Err(Error::Pasted { detail });
    let text = text.trim();
    if text.is_empty() {
        return wrong("it is empty");
    }
    if text.len() > MAX_LENGTH {
        return wrong("it is too long");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("it has spaces, line breaks or other characters that no code has");
    }
    if has_scheme(text) {
        return parse_url(text, redirect_uri);
    }
    let (code, state) = match text.split_once('#') {
        Some((code, state)) => (code, Some(state)),
        None => (text, None),
    };
    if code.is_empty() {
        return wrong("the part before `#` is missing");
    }
    if state.is_some_and(|state| state.is_empty() || state.contains('#')) {
        return wrong("the part after `#` is not whole");
    }
    Ok(Pasted { code: code.into(), state: state.map(Into::into) })
}

fn has_scheme(text: &str) -> bool {
    let starts = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    starts("https://") || starts("http://")
}

/// Only the redirect URI will do: the authorise URL, which lies nearer at hand, has a `state` and a `code=true` too.
fn parse_url(text: &str, redirect_uri: &str) -> Result<Pasted> {
    let wrong = |detail| Err(Error::Pasted { detail });
    let (Ok(url), Ok(expected)) = (Url::parse(text), Url::parse(redirect_uri)) else {
        return wrong("it is not a URL");
    };
    if url.origin() != expected.origin() || url.path() != expected.path() {
        return wrong("it is a URL, but not the one that the browser is sent to at the end");
    }
    parse_query(url.query().unwrap_or_default())
}

/// Reads the query of a redirect. An `error` without a state, or with a wrong one, is no denial: whoever calls this checks
/// the state first where anybody can send a request.
pub(crate) fn parse_query(query: &str) -> Result<Pasted> {
    let (code, state, error) = fields(query);
    if let Some(error) = error {
        return Err(Error::Denied { code: safe_code(&error) });
    }
    match code {
        Some(code) if !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Pasted { code: code.into(), state: state.map(Into::into) })
        }
        _ => Err(Error::Pasted { detail: "there is no code in it" }),
    }
}

/// The state in the query of a redirect.
pub(crate) fn state_of(query: &str) -> Option<String> {
    fields(query).1
}

type Fields = (Option<String>, Option<String>, Option<String>);

/// Code, state, error. A parameter that is there twice is as good as none (RFC 6749, 3.1).
fn fields(query: &str) -> Fields {
    let once = |wanted: &str| {
        let mut found = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == wanted);
        let first = found.next().map(|(_, value)| value.into_owned());
        if found.next().is_some() { None } else { first }
    };
    (once("code"), once("state"), once("error"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    const REDIRECT: &str = "https://a.example/oauth/code/callback";

    fn read(text: &str) -> Option<(String, Option<String>)> {
        let pasted = parse(text, REDIRECT).ok()?;
        Some((pasted.code.expose_secret().to_owned(), pasted.state.map(|it| it.expose_secret().to_owned())))
    }

    fn pair(code: &str, state: Option<&str>) -> Option<(String, Option<String>)> {
        Some((code.to_owned(), state.map(str::to_owned)))
    }

    #[test]
    fn the_three_forms() {
        assert_eq!(read(" abc#def\n"), pair("abc", Some("def")));
        assert_eq!(read("abc"), pair("abc", None));
        assert_eq!(read("https://a.example/oauth/code/callback?code=a%2Fb&state=def"), pair("a/b", Some("def")));
        assert_eq!(read("HTTPS://A.example:443/oauth/code/callback?state=d&code=a"), pair("a", Some("d")));
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        for text in [
            "",
            " \n ",
            "#",
            "abc#",
            "#def",
            "a#b#c",
            "two words",
            "a\nb",
            "ümlaut",
            "https://a.example/oauth/code/callback",
            "https://a.example/oauth/code/callback?code=&state=def",
            "https://a.example/oauth/code/callback?code=a&code=b&state=def",
            "https://a.example/oauth/authorize?code=true&state=def",
            "https://b.example/oauth/code/callback?code=a&state=def",
            "http://a.example/oauth/code/callback?code=a&state=def",
            "https://",
        ] {
            assert!(matches!(parse(text, REDIRECT), Err(Error::Pasted { .. })), "{text}");
        }
        assert!(read(&"x".repeat(MAX_LENGTH)).is_some());
        assert!(read(&"x".repeat(MAX_LENGTH + 1)).is_none());
    }

    #[test]
    fn a_denial_is_told_with_its_code_and_nothing_else() {
        let url = format!("{REDIRECT}?error=access_denied&error_description=secret&state=d");
        let Err(error) = parse(&url, REDIRECT) else { panic!("denied") };
        assert_eq!(error.to_string(), "the login was not granted (access_denied)");
        let Err(error) = parse(&format!("{REDIRECT}?error=%1b[31m&state=d"), REDIRECT) else { panic!("denied") };
        assert_eq!(error.to_string(), "the login was not granted");
    }

    proptest! {
        #[test]
        fn nothing_that_is_pasted_panics_or_gives_an_empty_or_unprintable_code(text in "\\PC*|[a#?&=%:/ \\n]{0,40}") {
            for text in [text.clone(), format!("{REDIRECT}?{text}"), format!("https://{text}")] {
                if let Some((code, state)) = read(&text) {
                    prop_assert!(!code.is_empty() && code.bytes().all(|it| it.is_ascii_graphic()));
                    if !text.trim().to_ascii_lowercase().starts_with("http") {
                        prop_assert!(!code.contains('#') && state.is_none_or(|it| !it.is_empty() && !it.contains('#')));
                    }
                }
            }
        }

        #[test]
        fn code_and_state_come_back_in_every_form(
            code in "[!-\"$-~]{1,64}", state in "[A-Za-z0-9_-]{1,64}", around in "[ \\t\\r\\n]{0,3}",
        ) {
            prop_assume!(!has_scheme(&code));
            prop_assert_eq!(read(&format!("{around}{code}#{state}{around}")), pair(&code, Some(&state)));
            prop_assert_eq!(read(&format!("{around}{code}{around}")), pair(&code, None));
            let mut url = Url::parse(REDIRECT).expect("a URL");
            url.query_pairs_mut().append_pair("code", &code).append_pair("state", &state);
            prop_assert_eq!(read(&format!("{around}{url}{around}")), pair(&code, Some(&state)));
        }
    }
}
