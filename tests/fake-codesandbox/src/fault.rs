//! Faults on demand: what goes wrong, at which operation, and how often.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One fault. It applies to the operations that [`Fault::on`] names, after `skip` of them, `times` times.
///
/// As text (`--fault`, [`FromStr`]): `OPERATION=KIND[:VALUE][,KEY=VALUE]…`, for instance `vm.start=429,retry_after=1`,
/// `fs/readFile=error:102,errno=13`, `shell/create=drop-after,skip=1,times=2`, `vm.start=missing:pitcher_url`. As JSON:
/// `{"on": "vm.start", "kind": "status", "status": 429, "retry_after": 1}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The operation: one of the REST API by the name that [`crate::Recorded::operation`] has (`vm.start`), a method of
    /// the agent (`fs/readFile`), or `connect` for the WebSocket's handshake. A `*` at the end stands for anything.
    pub on: String,
    /// What happens.
    #[serde(flatten)]
    pub what: What,
    /// How many operations go well before it.
    #[serde(default)]
    pub skip: u32,
    /// How often it happens.
    #[serde(default = "once")]
    pub times: u32,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum What {
    /// An answer of the REST API, of Pint, or to the WebSocket's handshake, with this status, and nothing done. At
    /// a method of the agent, which has no statuses, the connection is cut.
    Status {
        /// The status, for instance 503.
        status: u16,
        /// The header `Retry-After`, in seconds. None is sent without.
        #[serde(default)]
        retry_after: Option<u64>,
        /// Which budget the headers `x-csb-*` show as used up: `requests` (default for 429), `sandboxes`, `vms`.
        #[serde(default)]
        limit: Option<Limit>,
        /// What `errors` holds; a text that fits the status without.
        #[serde(default)]
        errors: Option<Vec<Value>>,
        /// The body is a page of a proxy's instead of the envelope.
        #[serde(default)]
        html: bool,
    },
    /// An error reply of the agent, and nothing done.
    Error {
        /// The code, for instance 102.
        code: i64,
        /// `data.errno`; null without.
        #[serde(default)]
        errno: Option<i64>,
        /// The message; one that fits the code without.
        #[serde(default)]
        message: Option<String>,
    },
    /// It takes this much longer, and then goes well.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// It is never answered, and nothing done. The connection stays.
    Silent,
    /// The connection is cut, and nothing done.
    DropBefore,
    /// It is done, and the connection is cut instead of an answer.
    DropAfter,
    /// The WebSocket is closed with this code, and nothing done.
    Close {
        /// The code, for instance 1011.
        code: u16,
    },
    /// A stream of events breaks off behind this many of them.
    Cut {
        /// How many.
        events: usize,
    },
    /// It is done, and the answer ends in its middle: JSON or msgpack that cannot be read.
    Truncated,
    /// It is done, and the answer is about another sandbox: its id, its addresses.
    OtherSandbox,
    /// `bootup_type` is this, whatever was done.
    BootupType {
        /// The word.
        value: String,
    },
    /// A field is not in the answer's data.
    Missing {
        /// Its name; dots lead into objects.
        field: String,
    },
    /// A field of the answer's data is null.
    Null {
        /// Its name; dots lead into objects.
        field: String,
    },
    /// On `shell/create`: the command ends before its creation is answered.
    ExitBeforeReply,
    /// On `shell/create`: the last output comes after `shell/exit`.
    OutAfterExit,
    /// The reply waits until the next request is answered, at most half a second.
    LateReply,
}

/// A budget of the REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Requests an hour.
    Requests,
    /// New sandboxes an hour.
    Sandboxes,
    /// Sandboxes that run at once.
    Vms,
}

const fn once() -> u32 {
    1
}

impl Fault {
    /// A fault that happens once, at the next such operation.
    #[must_use]
    pub fn new(on: impl Into<String>, what: What) -> Self {
        Self { on: on.into(), what, skip: 0, times: 1 }
    }

    /// An answer with this status.
    #[must_use]
    pub fn status(on: impl Into<String>, status: u16) -> Self {
        Self::new(on, What::Status { status, retry_after: None, limit: None, errors: None, html: false })
    }

    /// An error reply of the agent.
    #[must_use]
    pub fn error(on: impl Into<String>, code: i64, errno: Option<i64>) -> Self {
        Self::new(on, What::Error { code, errno, message: None })
    }

    /// The same, this often.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// The same, after this many that go well.
    #[must_use]
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    pub(crate) fn matches(&self, operation: &str) -> bool {
        match self.on.strip_suffix('*') {
            Some(start) => operation.starts_with(start),
            None => self.on == operation,
        }
    }
}

/// A text is no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no fault: {reason}")]
pub struct FaultError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let failed = |reason: &dyn ToString| FaultError { text: text.to_owned(), reason: reason.to_string() };
        let (on, rest) = text.split_once('=').ok_or_else(|| failed(&"it has no `=`"))?;
        let mut words = rest.split(',');
        let kind = words.next().unwrap_or_default();
        let (kind, value) = kind.split_once(':').map_or((kind, None), |(kind, value)| (kind, Some(value)));
        let mut fields = serde_json::Map::new();
        fields.insert("on".to_owned(), on.into());
        if kind.parse::<u16>().is_ok() {
            fields.insert("kind".to_owned(), "status".into());
            fields.insert("status".to_owned(), scalar(kind));
        } else {
            fields.insert("kind".to_owned(), kind.into());
        }
        if let Some(value) = value {
            let field = match kind {
                "error" | "close" => "code",
                "status" => "status",
                "slow" => "ms",
                "cut" => "events",
                "bootup-type" => "value",
                _ => "field",
            };
            fields.insert(field.to_owned(), scalar(value));
        }
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| failed(&format!("`{word}` has no `=`")))?;
            fields.insert(key.replace('-', "_"), scalar(value));
        }
        serde_json::from_value(Value::Object(fields)).map_err(|error| failed(&error))
    }
}

/// A number or a truth where the text is one, else the text.
fn scalar(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => text.into(),
    }
}

/// The faults that wait to happen. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// Adds one, after those that wait.
    pub fn push(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Forgets all that wait.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Those that wait.
    #[must_use]
    pub fn pending(&self) -> Vec<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happens at this operation, if anything: the oldest fault that fits and has nothing left to skip.
    pub(crate) fn take(&self, operation: &str) -> Option<What> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for (index, fault) in faults.iter_mut().enumerate() {
            if !fault.matches(operation) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                found = Some((index, fault.what.clone()));
                break;
            }
        }
        let (index, what) = found?;
        if faults[index].times == 0 {
            faults.remove(index);
        }
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_the_same_as_the_fields() {
        let fault: Fault = "vm.start=429,retry-after=2,limit=vms,times=3".parse().unwrap();
        let what =
            What::Status { status: 429, retry_after: Some(2), limit: Some(Limit::Vms), errors: None, html: false };
        assert_eq!(fault, Fault::new("vm.start", what).times(3));
        let fault: Fault = "fs/*=error:102,errno=13,skip=1".parse().unwrap();
        assert_eq!(fault, Fault::error("fs/*", 102, Some(13)).skip(1));
        let fault: Fault = "vm.start=null:pitcher_url".parse().unwrap();
        assert_eq!(fault, Fault::new("vm.start", What::Null { field: "pitcher_url".to_owned() }));
    }

    #[test]
    fn what_is_no_fault_says_why() {
        assert!("vm.start".parse::<Fault>().unwrap_err().to_string().contains("no `=`"));
        assert!("vm.start=explode".parse::<Fault>().unwrap_err().to_string().contains("unknown variant"));
    }

    #[test]
    fn a_fault_waits_for_its_turn_and_ends_after_its_times() {
        let faults = Faults::default();
        faults.push("fs/*=drop-after,skip=1,times=2".parse().unwrap());
        let taken: Vec<_> = (0..4).map(|_| faults.take("fs/stat").is_some()).collect();
        assert_eq!(taken, [false, true, true, false]);
        assert_eq!(faults.take("vm.start"), None);
        assert_eq!(faults.pending(), []);
    }
}
