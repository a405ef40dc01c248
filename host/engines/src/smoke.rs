//! Does it run here? A fresh engine is asked for its version before it is put in place.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::lock_file::Locked;
use crate::npmrc::Environment;

const LIMIT: Duration = Duration::from_secs(10);
/// A process that another thread is just starting may still have the program open for writing.
const BUSY_TRIES: u32 = 20;

/// Runs it, and returns the first line of its answer. `home` is an empty folder for what it writes.
pub(crate) async fn smoke(
    locked: Locked<'_>,
    program: &Path,
    home: &Path,
    environment: &Environment,
    cancel: &CancellationToken,
) -> Result<Option<String>> {
    let Some(smoke) = &locked.entry.smoke else {
        return Ok(None);
    };
    let fail = |detail: String, hint: &str| Error::Smoke { subject: locked.subject(), detail, hint: hint.to_owned() };
    let mut tries = 0;
    let output = loop {
        let mut command = Command::new(program);
        command.args(&smoke.args).env_clear().current_dir(home).stdin(Stdio::null()).kill_on_drop(true);
        for name in ["HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "CODEX_HOME"]
        {
            command.env(name, home);
        }
        // Windows programs do not start without these, and NixOS ones find their libraries by the third.
        for name in ["SystemRoot", "windir", "LD_LIBRARY_PATH"] {
            if let Some(value) = environment.get(name) {
                command.env(name, value);
            }
        }
        let output = tokio::select! {
            output = tokio::time::timeout(LIMIT, command.output()) => output,
            () = cancel.cancelled() => return Err(Error::Cancelled { subject: locked.subject() }),
        };
        match output {
            Err(_) => {
                let detail = format!("it did not answer `{}` within {} s", smoke.args.join(" "), LIMIT.as_secs());
                return Err(fail(detail, "try again when the machine is less busy"));
            }
            Ok(Ok(output)) => break output,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(10 * u64::from(tries))).await;
            }
            Ok(Err(error)) => {
                return Err(fail(format!("it cannot be started ({error})"), start_hint(&error)));
            }
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && text.contains(&smoke.expect) {
        return Ok(text.lines().next().map(|line| line.trim().chars().take(200).collect()));
    }
    let said: String = text.chars().chain(String::from_utf8_lossy(&output.stderr).chars()).take(400).collect();
    let detail = match output.status.success() {
        true => format!("it says `{}`, not `{}`", said.trim(), smoke.expect),
        false => format!("it ended with {}: {}", output.status, said.trim()),
    };
    Err(fail(detail, exit_hint(&output.status)))
}

fn start_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        // An absent loader is reported as an absent program.
        std::io::ErrorKind::NotFound => {
            "its C library is not on this machine: on Alpine pcoder takes the musl build by itself; NixOS needs nix-ld"
        }
        std::io::ErrorKind::PermissionDenied => {
            "programs may not be started from this folder (noexec mount, or a policy): move the store to another one"
        }
        // ENOEXEC on Unix, ERROR_BAD_EXE_FORMAT on Windows.
        _ if matches!(error.raw_os_error(), Some(8 | 193)) => "it was built for another processor or system",
        _ => "`pcoder doctor` says more",
    }
}

#[cfg(unix)]
fn exit_hint(status: &std::process::ExitStatus) -> &'static str {
    use std::os::unix::process::ExitStatusExt as _;
    match status.signal() {
        Some(9) if cfg!(target_os = "macos") => {
            "macOS killed it: its signature is invalid or revoked, or it is in quarantine; install another version"
        }
        Some(9) => "the system killed it: is there enough memory?",
        Some(4) => "this processor lacks instructions that it was built with",
        _ => "`pcoder doctor` says more",
    }
}

#[cfg(not(unix))]
fn exit_hint(status: &std::process::ExitStatus) -> &'static str {
    // STATUS_DLL_NOT_FOUND
    match status.code().map(i32::cast_unsigned) {
        Some(0xC000_0135) => "a system library is missing: install the Visual C++ runtime",
        _ => "`pcoder doctor` says more",
    }
}
