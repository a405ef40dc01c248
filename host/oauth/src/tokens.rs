//! What a login is, once it is granted.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::http::Http;
use crate::pkce::same;
use crate::service::{Service, server_of};

/// A login. Its `Debug` shows no token.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Goes with every request as `Authorization: Bearer`.
    pub access: SecretString,
    /// Is exchanged for the next tokens. Where it rotates, it is good for one use.
    pub refresh: Option<SecretString>,
    /// Milliseconds since 1970; `None` when nobody said.
    pub expires_at_ms: Option<i64>,
    /// What was granted.
    pub scopes: Vec<String>,
    /// `max`, `pro`, …: only what a credentials file says. No token endpoint tells it.
    pub subscription_type: Option<String>,
}

impl Tokens {
    /// Whether it expires within `span` from now, or has expired. One that says nothing about it does not.
    pub fn expires_within(&self, span: Duration, now_ms: i64) -> bool {
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.expires_at_ms.is_some_and(|at| at <= now_ms.saturating_add(span))
    }

    pub(crate) fn has_refresh_of(&self, other: &Self) -> bool {
        match (&self.refresh, &other.refresh) {
            (Some(a), Some(b)) => same(a, b.expose_secret()),
            _ => false,
        }
    }

    /// Reads the answer of a token endpoint (RFC 6749, 5.1). `asked_ms` is when it was asked: the time of the answer would
    /// be too late by the time it travelled.
    pub(crate) fn from_answer(
        service: &Service,
        answer: &Map<String, Value>,
        asked_ms: i64,
        scopes: Vec<String>,
    ) -> Result<Self> {
        let wrong = |detail| Error::Answer { server: server_of(&service.token_url), detail };
        let text = |name: &str| answer.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
        let access = text("access_token").ok_or_else(|| wrong("there is no access token in it"))?;
        if !access.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("its access token has characters that no header can have"));
        }
        if text("token_type").is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(wrong("its token is of another type than bearer"));
        }
        let expires_at_ms = match answer.get("expires_in") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let seconds = value
                    .as_f64()
                    .or_else(|| value.as_str()?.parse().ok())
                    .filter(|it| it.is_finite())
                    .ok_or_else(|| wrong("its `expires_in` is not a number of seconds"))?;
                // The cast saturates.
                Some(asked_ms.saturating_add((seconds * 1000.0) as i64))
            }
        };
        let scopes = text("scope").map_or(scopes, |granted| granted.split_whitespace().map(str::to_owned).collect());
        Ok(Self {
            access: access.into(),
            refresh: text("refresh_token").map(Into::into),
            expires_at_ms,
            scopes,
            subscription_type: None,
        })
    }
}

/// Exchanges the refresh token for new tokens. The old refresh token is kept when the answer has none. It asks for the
/// scopes that were granted, because more than that would be refused.
///
/// The refresh token may be void afterwards, also after an error of the network: see [`ensure_fresh`](crate::ensure_fresh),
/// which makes sure that one process does this and that the answer is saved.
///
/// # Errors
/// `NoRefreshToken`, `LoginExpired`, and what a request can meet: `RateLimited`, `Refused`, `Answer`, `Timeout`, `Network`.
pub async fn refresh(service: &Service, tokens: &Tokens, http: &Http, clock: &Clock) -> Result<Tokens> {
    let old = tokens.refresh.as_ref().ok_or(Error::NoRefreshToken)?;
    let scopes = if tokens.scopes.is_empty() { &service.scopes } else { &tokens.scopes };
    let scope = scopes.join(" ");
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", old.expose_secret()),
        ("client_id", &service.client_id),
        ("scope", &scope),
    ];
    let asked = clock.now_ms();
    let answer = http.post(&service.token_url, service.token_format, &fields).await?;
    let new = Tokens::from_answer(service, &answer, asked, scopes.clone())?;
    Ok(Tokens {
        refresh: new.refresh.or_else(|| Some(old.clone())),
        subscription_type: tokens.subscription_type.clone(),
        ..new
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claude;

    fn read(text: &str) -> Result<Tokens> {
        let service = claude::service(claude::Mode::Subscription).expect("a service");
        Tokens::from_answer(&service, &serde_json::from_str(text).expect("JSON"), 1_000, vec!["asked".to_owned()])
    }

    #[test]
    fn an_answer_gives_what_it_says_and_the_rest_is_what_was_asked() {
        let tokens = read(r#"{"access_token":"a","token_type":"Bearer","expires_in":60,"scope":"x  y"}"#).expect("it");
        assert_eq!((tokens.expires_at_ms, tokens.scopes.len(), tokens.refresh.is_none()), (Some(61_000), 2, true));
        let tokens = read(r#"{"access_token":"a","expires_in":"1.5","refresh_token":""}"#).expect("it");
        assert_eq!((tokens.expires_at_ms, tokens.refresh.is_none()), (Some(2_500), true));
        assert_eq!(tokens.scopes, ["asked"]);
        assert_eq!(read(r#"{"access_token":"a"}"#).expect("it").expires_at_ms, None);
        assert_eq!(read(r#"{"access_token":"a","expires_in":1e300}"#).expect("it").expires_at_ms, Some(i64::MAX));
    }

    #[test]
    fn an_answer_without_a_usable_token_is_refused() {
        for text in [
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":7}"#,
            r#"{"access_token":"a\nb"}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"a","expires_in":"soon"}"#,
        ] {
            assert!(matches!(read(text), Err(Error::Answer { .. })), "{text}");
        }
    }

    #[test]
    fn ten_minutes_are_counted_to_the_millisecond() {
        let mut tokens = read(r#"{"access_token":"a","expires_in":600}"#).expect("it");
        let ten = Duration::from_secs(600);
        assert!(tokens.expires_within(ten, 1_000) && !tokens.expires_within(ten, 999));
        tokens.expires_at_ms = Some(i64::MIN);
        assert!(tokens.expires_within(ten, i64::MAX));
        tokens.expires_at_ms = None;
        assert!(!tokens.expires_within(Duration::MAX, i64::MAX));
    }

    #[test]
    fn debug_shows_no_token() {
        let tokens = read(r#"{"access_token":"hunter2","refresh_token":"hunter3"}"#).expect("it");
        assert!(!format!("{tokens:?}").contains("hunter"));
    }
}
