//! The administrator's policy: which plugins may run, and what they may reach at most.
//!
//! ```toml
//! version = 1
//! audit-required = true
//!
//! [[plugin]]
//! name = "provider-*"          # a name, or the beginning of names
//! sha256 = ["…"]               # optional: these bytes and no others
//! exec = [{ program = "as called" }]
//! net = [{ url = "https://*.corp.example/", methods = ["GET", "POST"] }]
//! ```
//!
//! A plugin that no block names may not be loaded. What several blocks say of one plugin adds up. A block that names no
//! capability allows none; `all = true` leaves it to the user's grants. Nothing here widens a grant.

use std::path::{Path, PathBuf};

use pcoder_runtime::Error;
use pcoder_runtime::capability::check_grant;
use pcoder_runtime::error::code;
use pcoder_runtime::manifest::{Capabilities, Exec, Files, Net, Secrets, Service, Target};
use pcoder_state::{Diagnostic, parse};
use serde::Deserialize;

use crate::Surroundings;
use crate::errors::from_state;
use crate::layout::absolute;

/// The format that is understood.
const VERSION: i64 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Text {
    version: i64,
    #[serde(default)]
    audit_required: bool,
    #[serde(default, rename = "plugin")]
    plugins: Vec<Block>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    name: String,
    #[serde(default)]
    sha256: Option<Vec<String>>,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    exec: Vec<Exec>,
    #[serde(default)]
    service: Vec<Service>,
    #[serde(default)]
    files: Vec<Files>,
    #[serde(default)]
    net: Vec<Net>,
    #[serde(default)]
    secrets: Vec<Secrets>,
    #[serde(default)]
    target: Option<Target>,
}

/// One policy file, read and found to be enforceable.
#[derive(Debug)]
pub struct Policy {
    path: PathBuf,
    text: Text,
}

/// Every policy that holds here. Each narrows what the others leave.
#[derive(Debug, Default)]
pub struct Policies(Vec<Policy>);

impl Block {
    fn names(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => self.name == name,
        }
    }

    fn holds(&self, name: &str, digest: &str) -> bool {
        let bytes = self.sha256.as_ref().is_none_or(|all| all.iter().any(|it| it.eq_ignore_ascii_case(digest)));
        self.names(name) && bytes
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.trim_end_matches('*').contains('*') || self.name.ends_with("**") {
            return Err("`name` is a plugin's name, or its beginning followed by one `*`".into());
        }
        let digest = |it: &String| it.len() == 64 && it.bytes().all(|byte| byte.is_ascii_hexdigit());
        if self.sha256.as_ref().is_some_and(|all| !all.iter().all(digest)) {
            return Err("a sha256 is 64 hexadecimal digits".into());
        }
        let capabilities = self.capabilities();
        if self.all && capabilities != Capabilities::default() {
            return Err("`all = true` and a list of capabilities exclude each other".into());
        }
        check_grant(&capabilities).map_err(|error| match &error.subject {
            Some(subject) => format!("{} ({subject})", error.message),
            None => error.message.clone(),
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            exec: self.exec.clone(),
            service: self.service.clone(),
            files: self.files.clone(),
            net: self.net.clone(),
            secrets: self.secrets.clone(),
            target: self.target.clone(),
        }
    }
}

impl Policy {
    /// Reads a policy. Whatever is in it that could not be enforced is an error: a rule that only looks like one is
    /// worse than none.
    ///
    /// # Errors
    /// `invalid` with line and column, `unsupported` for a newer format, `io`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        const OPERATION: &str = "policy";
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| Error::io(OPERATION, &shown, &error).hint(HINT))?;
        let text = pcoder_state::text(path, bytes).map_err(|error| from_state(OPERATION, &error).hint(HINT))?;
        let wrong = |it: Diagnostic| from_state(OPERATION, &pcoder_state::Error::Invalid(it)).hint(HINT);
        let read: Text = parse(path, &text).map_err(wrong)?;
        if read.version > VERSION {
            let newer = pcoder_state::Error::Newer { path: path.into(), found: read.version, known: VERSION };
            return Err(from_state(OPERATION, &newer));
        }
        if read.version < 1 {
            return Err(wrong(Diagnostic::at(path, &text, 0, "`version` is a whole number from 1")));
        }
        // The line of a block: the n-th of its headers.
        let headers: Vec<usize> = text.match_indices("[[plugin]]").map(|(at, _)| at).collect();
        for (index, block) in read.plugins.iter().enumerate() {
            let at = headers.get(index).copied().unwrap_or(0);
            block.check().map_err(|message| wrong(Diagnostic::at(path, &text, at, message)))?;
        }
        Ok(Self { path: path.to_path_buf(), text: read })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it allows a plugin that has been granted `granted`; nothing when it may not run at all.
    fn allows(&self, name: &str, digest: &str, granted: &Capabilities) -> Option<Capabilities> {
        let mut sum: Option<Capabilities> = None;
        for block in self.text.plugins.iter().filter(|block| block.holds(name, digest)) {
            let more = if block.all { granted.clone() } else { block.capabilities() };
            let sum = sum.get_or_insert_default();
            sum.exec.extend(more.exec);
            sum.service.extend(more.service);
            sum.files.extend(more.files);
            sum.net.extend(more.net);
            sum.secrets.extend(more.secrets);
            sum.target = sum.target.take().or(more.target);
        }
        sum
    }
}

const HINT: &str = "ask the administrator of this machine to correct it: until then no plugin runs";

impl Policies {
    /// The machine's policy, and one that the variable `PCODER_POLICY` names, which can only narrow further.
    ///
    /// # Errors
    /// As [`Policy::read`]. Then nothing may run: what the policy forbids is not known.
    pub fn load(surroundings: &Surroundings) -> Result<Self, Error> {
        let mut policies = Vec::new();
        let system = surroundings.system_policy.clone();
        if let Some(path) = system.filter(|path| path.symlink_metadata().is_ok()) {
            policies.push(Policy::read(&path)?);
        }
        if let Some(path) = surroundings.variable("PCODER_POLICY") {
            policies.push(Policy::read(&absolute(&surroundings.cwd, Path::new(path)))?);
        }
        Ok(Self(policies))
    }

    /// The policies.
    pub fn all(&self) -> &[Policy] {
        &self.0
    }

    /// Whether nothing may happen that is not on record.
    pub fn audit_required(&self) -> bool {
        self.0.iter().any(|policy| policy.text.audit_required)
    }

    /// What each policy allows a plugin.
    ///
    /// # Errors
    /// `denied` when one of them does not let it run.
    pub fn allow(&self, name: &str, digest: &str, granted: &Capabilities) -> Result<Vec<Capabilities>, Error> {
        let allow = |policy: &Policy| {
            policy.allows(name, digest, granted).ok_or_else(|| {
                Error::new(code::DENIED, "policy", format!("the policy does not let the plugin `{name}` run"))
                    .subject(policy.path.display().to_string())
                    .hint(format!("ask the administrator of this machine; the plugin's sha256 is {digest}"))
            })
        };
        self.0.iter().map(allow).collect()
    }
}

/// Where the administrator's policy is on this system. It is a fixed place, so that no variable of the user's moves it.
pub fn system_place() -> PathBuf {
    PathBuf::from(if cfg!(windows) {
        r"C:\ProgramData\pcoder\policy.toml"
    } else if cfg!(target_os = "macos") {
        "/Library/Application Support/pcoder/policy.toml"
    } else {
        "/etc/pcoder/policy.toml"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Policy, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("policy.toml");
        std::fs::write(&path, text).expect("a file");
        Policy::read(&path)
    }

    const ONE: &str = "version = 1\n[[plugin]]\nname = \"provider-*\"\nexec = [{ program = \"as called\" }]\n\
                       [[plugin]]\nname = \"provider-box\"\nnet = [{ url = \"https://a.example/\", methods = [\"GET\"] }]\n\
                       [[plugin]]\nname = \"agent-claude\"\n";

    #[test]
    fn a_plugin_that_no_block_names_may_not_run_and_an_empty_block_allows_nothing() {
        let policies = Policies(vec![read(ONE).expect("a policy")]);
        let none = Capabilities::default();
        assert!(policies.allow("agent-codex", "d", &none).is_err_and(|error| error.is(code::DENIED)));
        assert_eq!(policies.allow("agent-claude", "d", &none).expect("it may run"), std::slice::from_ref(&none));
        let of_box = policies.allow("provider-box", "d", &none).expect("it may run");
        assert_eq!((of_box[0].exec.len(), of_box[0].net.len()), (1, 1), "two blocks add up");
        let of_local = policies.allow("provider-local", "d", &none).expect("it may run");
        assert_eq!((of_local[0].exec.len(), of_local[0].net.len()), (1, 0));
    }

    #[test]
    fn bytes_can_be_named() {
        let digest = "a".repeat(64);
        let text = format!("version = 1\n[[plugin]]\nname = \"*\"\nall = true\nsha256 = [\"{digest}\"]\n");
        let policies = Policies(vec![read(&text).expect("a policy")]);
        let granted = Capabilities { target: Some(Target { reason: String::new() }), ..Capabilities::default() };
        assert_eq!(policies.allow("x", &digest, &granted).expect("it may run"), std::slice::from_ref(&granted));
        policies.allow("x", &"b".repeat(64), &granted).expect_err("other bytes");
    }

    #[test]
    fn what_cannot_be_enforced_is_no_policy() {
        for (text, expected) in [
            ("version = 1\nproviders = []\n", "line 2, column 1: unknown field `providers`"),
            ("audit-required = true\n", "line 1, column 1: missing field `version`"),
            ("version = 2\n", "newer pcoder"),
            ("version = 0\n", "`version` is a whole number from 1"),
            ("version = 1\n[[plugin]]\nname = \"a*b\"\n", "line 2, column 1: `name` is a plugin's name"),
            ("version = 1\n[[plugin]]\nname = \"a\"\nall = true\ntarget = {}\n", "exclude each other"),
            ("version = 1\n[[plugin]]\nname = \"a\"\nnet = [{ url = \"https://*/\" }]\n", "line 2, column 1: "),
            ("version = 1\n[[plugin]]\nname = \"a\"\nnet = [{ url = \"ftp://x/\" }]\n", "the scheme must be"),
            ("version = 1\n[[plugin]]\nname = \"a\"\nnet = [{ host = \"x\" }]\n", "unknown field `host`"),
            ("version = 1\n[[plugin]]\nname = \"a\"\nexec = [{ program = \"sh\" }]\n", "argument grammar"),
            ("version = 1\n[[plugin]]\nname = \"a\"\nsha256 = [\"12\"]\n", "64 hexadecimal digits"),
            ("version = 1\n[[plugin]]\nname = \"\"\n", "`name` is a plugin's name"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.message.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_not_no_policy() {
        let folder = tempfile::tempdir().expect("a folder");
        let system = folder.path().join("policy.toml");
        let with = |variable: Option<&str>| Surroundings {
            environment: variable.map(|path| ("PCODER_POLICY".into(), path.into())).into_iter().collect(),
            system_policy: Some(system.clone()),
            ..Surroundings::default()
        };
        assert!(Policies::load(&with(None)).expect("none").all().is_empty());
        Policies::load(&with(Some("/nowhere/policy.toml"))).expect_err("the one that was named is not there");
        std::fs::create_dir(&system).expect("a folder in its place");
        Policies::load(&with(None)).expect_err("it is there and cannot be read");
    }
}
