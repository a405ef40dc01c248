//! Capability `target`: the one instance that the call is about.

use super::{Class, Effect};
use crate::manifest::Capabilities;

/// Something done to the call's instance.
#[derive(Clone, Debug)]
pub struct OnTarget {
    verb: &'static str,
    subject: String,
}

impl OnTarget {
    /// `subject` is the path or the program, without arguments.
    pub fn new(verb: &'static str, subject: impl Into<String>) -> Self {
        Self { verb, subject: subject.into() }
    }
}

impl Effect for OnTarget {
    const CLASS: Class = Class::Target;

    fn verb(&self) -> &'static str {
        self.verb
    }

    fn describe(&self) -> String {
        self.subject.clone()
    }

    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String> {
        capabilities.target.is_some().then(|| "target".to_owned())
    }
}
