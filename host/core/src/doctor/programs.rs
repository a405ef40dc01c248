//! Programs that are asked for one line.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pcoder_runtime::text::for_people;
use tokio::io::AsyncReadExt as _;

/// What is read of an answer. What follows is thrown away, so that whoever writes it can end.
const ANSWER: u64 = 64 << 10;

/// What is shown of it, in bytes.
const SHOWN: usize = 200;

/// Starts a program without input, and gives the first line that it prints; or says what it did instead.
pub(super) async fn first_line(
    program: &Path,
    args: &[&str],
    environment: &[(OsString, OsString)],
    deadline: Duration,
) -> Result<String, String> {
    let text = output(program, args, environment, deadline).await?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.map(|line| for_people(line, SHOWN)).ok_or_else(|| format!("`{}` printed nothing", args.join(" ")))
}

/// Starts a program without input, and gives what it prints, as far as that is read; or says what it did instead.
pub(super) async fn output(
    program: &Path,
    args: &[&str],
    environment: &[(OsString, OsString)],
    deadline: Duration,
) -> Result<String, String> {
    let asked = args.join(" ");
    let mut command = tokio::process::Command::new(program);
    command.args(args).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let work = async {
        let mut child = command.spawn().map_err(|error| format!("it does not start: {error}"))?;
        let mut says = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = stdout.take(ANSWER);
            let failed = |error: std::io::Error| format!("its answer cannot be read: {error}");
            stdout.read_to_end(&mut says).await.map_err(failed)?;
            tokio::io::copy(&mut stdout.into_inner(), &mut tokio::io::sink()).await.map_err(failed)?;
        }
        let status = child.wait().await.map_err(|error| format!("it cannot be waited for: {error}"))?;
        if !status.success() {
            return Err(format!("`{asked}` ended with {status}"));
        }
        Ok(String::from_utf8_lossy(&says).into_owned())
    };
    let late = |_| Err(format!("`{asked}` did not answer within {} s", deadline.as_secs_f32()));
    tokio::time::timeout(deadline, work).await.unwrap_or_else(late)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    async fn sh(script: &str, deadline: Duration) -> Result<String, String> {
        first_line(Path::new("/bin/sh"), &["-c", script], &[], deadline).await
    }

    #[tokio::test]
    async fn the_first_line_is_the_answer_and_everything_else_is_said() {
        let long = Duration::from_secs(30);
        assert_eq!(sh("echo; echo ' one '; echo two", long).await, Ok("one".into()));
        assert_eq!(sh("printf '\\033[2Jx'", long).await, Ok("\\u{1b}[2Jx".into()));
        assert!(sh("true", long).await.is_err_and(|it| it.contains("printed nothing")));
        assert!(sh("exit 3", long).await.is_err_and(|it| it.contains("exit status: 3")));
        let absent = first_line(Path::new("/nowhere/x"), &["--version"], &[], long).await;
        assert!(absent.is_err_and(|it| it.contains("does not start")));
        // More than any pipe holds: it must not wait for its reader.
        assert_eq!(sh("echo one; head -c 3000000 /dev/zero", long).await, Ok("one".into()));
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended() {
        let answer = sh("exec sleep 600", Duration::from_millis(100)).await;
        assert!(answer.is_err_and(|it| it.contains("did not answer within 0.1 s")));
    }
}
