//! How it went.

use std::fmt;

/// How one case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it has to.
    Passed,
    /// It was left out: the provider does not say that it can do this.
    LeftOut(String),
    /// It did not, and this is what happened.
    Failed(String),
}

/// How every case went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The cases in the order in which they ran.
    pub cases: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// Whether nothing failed.
    pub fn passed(&self) -> bool {
        !self.cases.is_empty() && !self.cases.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
    }

    /// The names of the cases that were left out.
    pub fn left_out(&self) -> Vec<&'static str> {
        self.cases.iter().filter(|(_, it)| matches!(it, Outcome::LeftOut(_))).map(|(name, _)| *name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.cases {
            match outcome {
                Outcome::Passed => writeln!(f, "    ok  {name}")?,
                Outcome::LeftOut(why) => writeln!(f, "     -  {name}: {why}")?,
                Outcome::Failed(why) => writeln!(f, "failed  {name}: {why}")?,
            }
        }
        Ok(())
    }
}
