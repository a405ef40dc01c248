//! The official SDK and CLI (PyPI `morphcloud`).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use pcoder_fake_morph::{FakeMorph, Options};
use serde_json::Value;

use crate::client::{KEY, SNAPSHOT, fake_with};

const VERSION: &str = "0.1.116";
/// Longer than the whole script takes on a busy machine; only a failure waits for it.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(180);

/// A virtual environment with the client, made once; none where there is no Python, which `CI` does not forgive.
fn environment() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("morphcloud-{VERSION}"));
        match make(&folder) {
            Ok(()) => Some(folder),
            Err(why) => {
                assert!(std::env::var_os("CI").is_none(), "the official client is not there: {why}");
                eprintln!("skipped: the official client is not there: {why}");
                None
            }
        }
    })
    .as_deref()
}

fn make(folder: &Path) -> Result<(), String> {
    let complete = folder.join("complete");
    if complete.exists() {
        return Ok(());
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", &format!("morphcloud=={VERSION}")]))?;
    std::fs::write(complete, "").map_err(|error| error.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.status.success().then_some(()).ok_or_else(said)
}

/// A command of the environment, which knows this fake and nothing of the user.
struct Client {
    folder: tempfile::TempDir,
    environment: &'static Path,
    fake: FakeMorph,
}

impl Client {
    async fn new() -> Option<Self> {
        let environment = tokio::task::spawn_blocking(environment).await.unwrap()?;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), "").unwrap();
        Some(Self { folder, environment, fake: fake_with(Options::default()).await })
    }

    async fn run(&self, program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/shim");
        let mut command = tokio::process::Command::new(self.environment.join("bin").join(program));
        command.args(args).current_dir(self.folder.path()).kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MORPH_") {
                command.env_remove(name);
            }
        }
        command
            .env("PYTHONPATH", shim)
            .env("MORPH_CONFIG_PATH", self.folder.path().join("config.toml"))
            .env("MORPH_API_KEY", KEY)
            .env("MORPH_BASE_URL", self.fake.base_url())
            .env("MORPH_SSH_HOSTNAME", self.fake.ssh_address().ip().to_string())
            .env("MORPH_SSH_PORT", self.fake.ssh_address().port().to_string())
            .env("MORPH_SSH_TOTAL_TIMEOUT_SECS", "30")
            .env("NO_COLOR", "1");
        tokio::time::timeout(LIMIT, command.output()).await.expect("the client ends").expect("the client runs")
    }

    /// A command of the CLI that is to work: what it said.
    async fn cli(&self, args: &[&str]) -> String {
        let (code, text) = self.cli_code(args).await;
        assert_eq!(code, Some(0), "{args:?}: {text}");
        text
    }

    async fn cli_code(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.run("morphcloud", ["instance"].iter().chain(args)).await;
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_does_all_it_can() {
    let Some(client) = Client::new().await else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sdk.py");
    let output = client.run("python", [script]).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "passed\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(client.fake.requests().iter().all(|seen| seen.operation.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_cli_does_all_it_can() {
    let Some(client) = Client::new().await else { return };
    client.cli(&["start", SNAPSHOT, "--metadata", "owner=cli"]).await;
    let listed = client.cli(&["list", "--json"]).await;
    let first = serde_json::Deserializer::from_str(&listed).into_iter::<Value>().next().unwrap().unwrap();
    let id = first["id"].as_str().unwrap();
    assert_eq!(first["metadata"]["owner"], "cli");
    assert!(client.cli(&["exec", id, "echo a b && echo c"]).await.contains("a b\nc\n"));
    assert_eq!(client.cli_code(&["exec", id, "exit 7"]).await.0, Some(7));
    std::fs::write(client.folder.path().join("up"), "data\n").unwrap();
    client.cli(&["copy", "up", &format!("{id}:/root/up")]).await;
    client.cli(&["copy", &format!("{id}:/root/up"), "down"]).await;
    assert_eq!(std::fs::read_to_string(client.folder.path().join("down")).unwrap(), "data\n");
    let (code, text) = client.cli_code(&["ssh", id, "cat up; exit 9"]).await;
    assert!(code == Some(9) && text.contains("data"), "{code:?} {text}");
    client.cli(&["branch", id, "--count", "2"]).await;
    client.cli(&["pause", id]).await;
    assert!(client.cli(&["get", id]).await.contains("paused"));
    client.cli(&["resume", id]).await;
    client.cli(&["stop", id]).await;
    assert_eq!(client.cli_code(&["get", id]).await.0, Some(1));
}
