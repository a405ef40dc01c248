//! Claude Code's `.credentials.json`.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::tokens::Tokens;

/// The key of the login. Others in the file belong to other parts of Claude Code.
const LOGIN: &str = "claudeAiOauth";
const ACCESS: &str = "accessToken";
const REFRESH: &str = "refreshToken";
const EXPIRES: &str = "expiresAt";
const SCOPES: &str = "scopes";
const SUBSCRIPTION: &str = "subscriptionType";

/// Claude Code's is a few kilobytes.
const MAX_SIZE: u64 = 1024 * 1024;
/// More than a login ever adds to the file.
const ROOM: usize = 64 * 1024;

/// A `.credentials.json`: `{"claudeAiOauth": {"accessToken", "refreshToken", "expiresAt", "scopes", "subscriptionType"}}`,
/// with `expiresAt` a number of milliseconds since 1970. Whatever else is in the file stays as it is. A file that cannot be
/// understood is never rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialsFile {
    path: PathBuf,
}

/// All of a file.
pub(crate) struct Loaded {
    pub(crate) root: Map<String, Value>,
    pub(crate) tokens: Option<Tokens>,
}

/// All of a file with a login.
pub(crate) struct Found {
    pub(crate) root: Map<String, Value>,
    pub(crate) tokens: Tokens,
}

impl CredentialsFile {
    /// The file at `path`, which need not be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the login; `None` when there is no file or no login in it.
    ///
    /// # Errors
    /// `Io`, `Credentials`.
    pub fn read(&self) -> Result<Option<Tokens>> {
        Ok(self.load()?.tokens)
    }

    /// Writes a login over the one in the file, whole or not at all, readable by its owner only. What this crate does not
    /// know stays, in the file and in the login. A symbolic link stays one.
    ///
    /// Hold the lock that [`ensure_fresh`](crate::ensure_fresh) is given while this is called.
    ///
    /// # Errors
    /// `Io` and `Credentials` when the old file cannot be read, `State` when the new one cannot be written.
    pub fn write(&self, tokens: &Tokens) -> Result<()> {
        let root = self.load()?.root;
        Ok(pcoder_state::write_atomic(&self.target(), &merge(root, tokens))?)
    }

    /// Finds out whether the folder can be written and the disk has room, before a refresh token is spent.
    pub(crate) fn prove_writable(&self) -> Result<()> {
        let target = self.target();
        let folder = target.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let prove = || {
            let mut probe = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
            probe.write_all(&vec![b' '; ROOM])?;
            probe.as_file().sync_all()
        };
        prove().map_err(|source| Error::io("write beside", &target, source))
    }

    /// Writes what a refresh of `used` has given. Nothing is awaited or asked in between: `used` is void, and if this
    /// process ends before the write, the login is lost.
    ///
    /// A login that replaced `used` meanwhile, or a logout, is newer and stays. Tells whether it wrote.
    pub(crate) fn replace(&self, used: &Found, new: &Tokens) -> Result<bool> {
        let root = match self.load() {
            Ok(Loaded { root, tokens: Some(current) }) if current.has_refresh_of(&used.tokens) => root,
            Ok(_) => return Ok(false),
            // Another program may be in the middle of writing it.
            Err(_) => used.root.clone(),
        };
        let (target, content) = (self.target(), merge(root, new));
        let Err(source) = pcoder_state::write_atomic(&target, &content) else { return Ok(true) };
        // A file that is mounted by itself cannot be renamed over. The old content is void, so there is nothing to lose.
        match write_in_place(&target, &content) {
            Ok(()) => Ok(true),
            Err(_) => Err(Error::NotSaved { path: target, source }),
        }
    }

    pub(crate) fn load(&self) -> Result<Loaded> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Loaded { root: Map::new(), tokens: None }),
            Err(error) => return Err(Error::io("open", &self.path, error)),
        };
        let mut content = Vec::new();
        file.take(MAX_SIZE + 1).read_to_end(&mut content).map_err(|error| Error::io("read", &self.path, error))?;
        Self::parse(&content).map_err(|detail| Error::Credentials { path: self.path.clone(), detail })
    }

    fn parse(content: &[u8]) -> Result<Loaded, String> {
        if content.len() as u64 > MAX_SIZE {
            return Err("it is larger than 1 MiB".to_owned());
        }
        // What the parser says is not shown: it quotes what it read.
        let root: Map<String, Value> = serde_json::from_slice(content)
            .map_err(|error| format!("no JSON object (line {}, column {})", error.line(), error.column()))?;
        let tokens = match root.get(LOGIN) {
            None | Some(Value::Null) => None,
            Some(Value::Object(login)) => Some(tokens_of(login)?),
            Some(_) => return Err(format!("`{LOGIN}` is not an object")),
        };
        Ok(Loaded { root, tokens })
    }

    /// The file itself where the path is a link to it.
    fn target(&self) -> PathBuf {
        std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone())
    }
}

fn tokens_of(login: &Map<String, Value>) -> Result<Tokens, String> {
    let text = |name: &str| match login.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone()).filter(|value| !value.is_empty())),
        Some(_) => Err(format!("`{LOGIN}.{name}` is not a text")),
    };
    let access = text(ACCESS)?.ok_or_else(|| format!("`{LOGIN}.{ACCESS}` is missing"))?;
    let expires_at_ms = match login.get(EXPIRES) {
        None | Some(Value::Null) => None,
        Some(value) => Some(
            value
                .as_i64()
                // The cast saturates.
                .or_else(|| value.as_f64().map(|it| it as i64))
                .ok_or_else(|| format!("`{LOGIN}.{EXPIRES}` is not a number of milliseconds"))?,
        ),
    };
    let scopes = match login.get(SCOPES) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(scopes)) => scopes.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(_) => return Err(format!("`{LOGIN}.{SCOPES}` is not a list")),
    };
    Ok(Tokens {
        access: access.into(),
        refresh: text(REFRESH)?.map(SecretString::from),
        expires_at_ms,
        scopes,
        subscription_type: text(SUBSCRIPTION)?,
    })
}

fn merge(mut root: Map<String, Value>, tokens: &Tokens) -> Vec<u8> {
    let mut login = match root.remove(LOGIN) {
        Some(Value::Object(login)) => login,
        _ => Map::new(),
    };
    // A key whose value is gone goes too: an old refresh token beside a new login would be another login's.
    let mut set = |name: &str, value: Option<Value>| match value {
        Some(value) => drop(login.insert(name.to_owned(), value)),
        None => drop(login.remove(name)),
    };
    set(ACCESS, Some(tokens.access.expose_secret().into()));
    set(REFRESH, tokens.refresh.as_ref().map(|it| it.expose_secret().into()));
    set(EXPIRES, tokens.expires_at_ms.map(Value::from));
    set(SCOPES, Some(tokens.scopes.clone().into()));
    set(SUBSCRIPTION, tokens.subscription_type.clone().map(Value::from));
    root.insert(LOGIN.to_owned(), Value::Object(login));
    Value::Object(root).to_string().into_bytes()
}

fn write_in_place(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().write(true).truncate(true).open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"claudeAiOauth":{"accessToken":"a","refreshToken":"r","expiresAt":1700000000000,
        "scopes":["user:inference","user:profile"],"subscriptionType":"max","rateLimitTier":"t"},
        "mcpOAuth":{"x":[1,2.5]}}"#;

    fn file(content: &str) -> (tempfile::TempDir, CredentialsFile) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = CredentialsFile::new(folder.path().join(".credentials.json"));
        std::fs::write(file.path(), content).expect("written");
        (folder, file)
    }

    fn json(file: &CredentialsFile) -> Value {
        serde_json::from_slice(&std::fs::read(file.path()).expect("a file")).expect("JSON")
    }

    #[test]
    fn what_claude_code_wrote_is_read() {
        let (_folder, file) = file(WHOLE);
        let tokens = file.read().expect("read").expect("a login");
        assert_eq!(tokens.access.expose_secret(), "a");
        assert_eq!(tokens.refresh.map(|it| it.expose_secret().to_owned()).as_deref(), Some("r"));
        assert_eq!(tokens.expires_at_ms, Some(1_700_000_000_000));
        assert_eq!(tokens.scopes, ["user:inference", "user:profile"]);
        assert_eq!(tokens.subscription_type.as_deref(), Some("max"));
    }

    #[test]
    fn what_is_written_is_the_exact_shape_and_what_is_not_known_stays() {
        let (_folder, file) = file(WHOLE);
        let old = file.read().expect("read").expect("a login");
        let new =
            Tokens { access: "b".into(), refresh: Some("s".into()), expires_at_ms: Some(1_800_000_000_001), ..old };
        file.write(&new).expect("written");
        let expected = serde_json::json!({
            "claudeAiOauth": {
                "accessToken": "b", "refreshToken": "s", "expiresAt": 1_800_000_000_001_i64,
                "scopes": ["user:inference", "user:profile"], "subscriptionType": "max", "rateLimitTier": "t",
            },
            "mcpOAuth": {"x": [1, 2.5]},
        });
        assert_eq!(json(&file), expected);
    }

    #[test]
    fn a_login_without_a_refresh_token_does_not_keep_the_old_ones() {
        let (_folder, file) = file(WHOLE);
        let old = file.read().expect("read").expect("a login");
        file.write(&Tokens { refresh: None, subscription_type: None, expires_at_ms: None, ..old }).expect("written");
        let login = &json(&file)[LOGIN];
        assert_eq!((login.get(REFRESH), login.get(EXPIRES), login.get(SUBSCRIPTION)), (None, None, None));
        assert_eq!(login["rateLimitTier"], "t");
    }

    #[test]
    fn no_file_and_no_login_are_none() {
        let (_folder, file) = file("{}");
        assert!(file.read().expect("read").is_none());
        std::fs::write(file.path(), r#"{"claudeAiOauth":null,"x":1}"#).expect("written");
        assert!(file.read().expect("read").is_none());
        std::fs::remove_file(file.path()).expect("removed");
        assert!(file.read().expect("read").is_none());
    }

    #[test]
    fn what_cannot_be_understood_is_told_without_its_content_and_not_rewritten() {
        let login = r#"{"claudeAiOauth":{"accessToken":"hunter2","expiresAt":"2026-01-01T00:00:00Z"}}"#;
        for content in [
            "",
            "hunter2",
            "\"hunter2\"",
            "[]",
            r#"{"claudeAiOauth":"hunter2"}"#,
            r#"{"claudeAiOauth":{}}"#,
            r#"{"claudeAiOauth":{"accessToken":"hunter2","scopes":"hunter2"}}"#,
            login,
        ] {
            let (_folder, file) = file(content);
            let error = file.read().expect_err("wrong");
            assert!(matches!(error, Error::Credentials { .. }) && error.path() == Some(file.path()), "{content}");
            assert!(!format!("{error} {error:?} {}", error.hint()).contains("hunter2"), "{error:?}");
            let tokens = Tokens {
                access: "a".into(),
                refresh: None,
                expires_at_ms: None,
                scopes: Vec::new(),
                subscription_type: None,
            };
            file.write(&tokens).expect_err("not rewritten");
            assert_eq!(std::fs::read_to_string(file.path()).expect("a file"), content);
        }
    }

    #[test]
    fn a_refresh_does_not_overwrite_a_newer_login_or_undo_a_logout() {
        let (_folder, file) = file(WHOLE);
        let Loaded { root, tokens: Some(tokens) } = file.load().expect("read") else { panic!("a login") };
        let new = Tokens { access: "new".into(), refresh: Some("next".into()), ..tokens.clone() };
        let used = Found { root, tokens };
        let another = WHOLE.replace(r#""r""#, r#""another""#);
        for content in [another.as_str(), r#"{"x":1}"#] {
            std::fs::write(file.path(), content).expect("written");
            assert!(!file.replace(&used, &new).expect("looked at"));
            assert_eq!(std::fs::read_to_string(file.path()).expect("a file"), content);
        }
        std::fs::write(file.path(), r#"{"claudeAiOauth":{"acc"#).expect("half written by another");
        assert!(file.replace(&used, &new).expect("saved"));
        assert_eq!(json(&file)[LOGIN][REFRESH], "next");
        assert_eq!(json(&file)["mcpOAuth"]["x"][0], 1, "the rest is what it was before");
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_can_read_it_and_a_link_stays_a_link() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, real) = file(WHOLE);
        std::fs::set_permissions(real.path(), std::fs::Permissions::from_mode(0o644)).expect("set");
        let link = CredentialsFile::new(folder.path().join("link"));
        std::os::unix::fs::symlink(real.path(), link.path()).expect("a link");
        let tokens = link.read().expect("read").expect("a login");
        link.write(&Tokens { access: "b".into(), ..tokens }).expect("written");
        assert!(link.path().is_symlink());
        assert_eq!(json(&real)[LOGIN][ACCESS], "b");
        assert_eq!(real.path().metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_can_only_be_written_in_place_keeps_the_new_login() {
        let (_folder, file) = file(WHOLE);
        write_in_place(file.path(), b"{}").expect("written");
        assert_eq!(json(&file), serde_json::json!({}));
        write_in_place(Path::new("/nonexistent/x"), b"{}").expect_err("not made");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_found_out_and_the_probe_leaves_nothing() {
        let (folder, file) = file(WHOLE);
        file.prove_writable().expect("it can");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
        let error = CredentialsFile::new("/nonexistent/x").prove_writable().expect_err("it cannot");
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
    }
}
