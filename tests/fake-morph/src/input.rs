//! Reading requests as FastAPI does, with its list of what is wrong.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::answer::Refusal;

pub(crate) type Metadata = BTreeMap<String, String>;

/// What is wrong with a request.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Value>);

impl Problems {
    pub(crate) fn add(&mut self, location: &[&str], kind: &str, message: impl Into<String>) {
        self.0.push(json!({ "loc": location, "msg": message.into(), "type": kind }));
    }

    /// 422 if there is anything.
    pub(crate) fn check(self) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, detail: Value::Array(self.0) })
    }
}

/// The query.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn new(text: &str) -> Self {
        Self(serde_urlencoded::from_str(text).unwrap_or_default())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn whole(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
        problems: &mut Problems,
    ) -> Option<u64> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let message = format!("Input should be a valid integer from {} to {}", range.start(), range.end());
            problems.add(&["query", name], "int_parsing", message);
        }
        number
    }

    pub(crate) fn boolean(&self, name: &str, problems: &mut Problems) -> bool {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "1" | "on" | "yes" | "t" | "y") => true,
            None | Some("false" | "0" | "off" | "no" | "f" | "n") => false,
            Some(_) => {
                let message = "Input should be a valid boolean, unable to interpret input";
                problems.add(&["query", name], "bool_parsing", message);
                false
            }
        }
    }

    /// The pairs of `metadata[KEY]=VALUE`.
    pub(crate) fn metadata(&self) -> Vec<(&str, &str)> {
        let key = |name: &'_ str| name.strip_prefix("metadata[")?.strip_suffix(']').map(str::len);
        let pairs = self.0.iter();
        pairs
            .filter_map(|(name, value)| {
                let length = key(name)?;
                Some((name.get("metadata[".len()..)?.get(..length)?, value.as_str()))
            })
            .collect()
    }
}

/// A body that is an object, or none.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// The body; none, or `null`, is an empty object where one is not required.
    pub(crate) fn new(body: &[u8], required: bool) -> Result<Self, Refusal> {
        let mut problems = Problems::default();
        if body.is_empty() {
            if required {
                problems.add(&["body"], "missing", "Field required");
            }
            problems.check()?;
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => return Ok(Self(fields)),
            Ok(Value::Null) if !required => return Ok(Self(Map::new())),
            Ok(_) => problems.add(&["body"], "model_attributes_type", "Input should be a valid dictionary"),
            Err(error) => {
                problems.add(
                    &["body", &error.column().to_string()],
                    "json_invalid",
                    format!("JSON decode error: {error}"),
                );
            }
        }
        problems.check()?;
        Ok(Self(Map::new()))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn given(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn raw(&self, name: &str) -> Option<&Value> {
        self.given(name)
    }

    pub(crate) fn require(&self, name: &str, problems: &mut Problems) {
        if !self.has(name) {
            problems.add(&["body", name], "missing", "Field required");
        }
    }

    pub(crate) fn text(&self, name: &str, problems: &mut Problems) -> Option<String> {
        let value = self.given(name)?;
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            problems.add(&["body", name], "string_type", "Input should be a valid string");
        }
        text
    }

    pub(crate) fn one_of(&self, name: &str, words: &[&str], problems: &mut Problems) -> Option<String> {
        let text = self.text(name, problems)?;
        if words.contains(&text.as_str()) {
            return Some(text);
        }
        problems.add(&["body", name], "enum", format!("Input should be '{}'", words.join("' or '")));
        None
    }

    pub(crate) fn whole(&self, name: &str, least: u64, problems: &mut Problems) -> Option<u64> {
        let value = self.given(name)?;
        let number = value.as_u64();
        match number {
            Some(number) if number >= least => return Some(number),
            None if !value.is_i64() => problems.add(&["body", name], "int_type", "Input should be a valid integer"),
            _ => {
                let message = format!("Input should be greater than or equal to {least}");
                problems.add(&["body", name], "greater_than_equal", message);
            }
        }
        None
    }

    pub(crate) fn boolean(&self, name: &str, problems: &mut Problems) -> Option<bool> {
        let value = self.given(name)?;
        let boolean = value.as_bool();
        if boolean.is_none() {
            problems.add(&["body", name], "bool_type", "Input should be a valid boolean");
        }
        boolean
    }

    pub(crate) fn texts(&self, name: &str, problems: &mut Problems) -> Vec<String> {
        let texts = self
            .given(name)
            .and_then(Value::as_array)
            .and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>());
        if texts.is_none() {
            problems.add(&["body", name], "list_type", "Input should be a valid list of strings");
        }
        texts.unwrap_or_default()
    }

    pub(crate) fn metadata(&self, name: &str, problems: &mut Problems) -> Option<Metadata> {
        self.given(name).map(|value| metadata(value, &["body", name], problems))
    }

    /// The whole body as metadata.
    pub(crate) fn flat(self, problems: &mut Problems) -> Metadata {
        metadata(&Value::Object(self.0), &["body"], problems)
    }
}

pub(crate) fn metadata(value: &Value, location: &[&str], problems: &mut Problems) -> Metadata {
    let pairs = value.as_object().and_then(|object| {
        object.iter().map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect::<Option<Metadata>>()
    });
    if pairs.is_none() {
        problems.add(location, "dict_type", "Input should be a valid dictionary of strings");
    }
    pairs.unwrap_or_default()
}
