//! A stranger's component becomes machine code in a process of its own, with limits: how much time and memory a compiler
//! takes is for whoever wrote its input to choose.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use pcoder_runtime::artifact::{TrustedCode, compile_here};
use pcoder_runtime::error::code;
use pcoder_runtime::{Error, Runtime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const OPERATION: &str = "plugin.compile";

/// How this program is started to compile: it reads a component from its input and writes code to its output.
#[derive(Clone, Debug)]
pub struct CompileCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Whoever compiles for longer than this is ended. A component of 20 MB takes some 20 s.
const WALL: Duration = Duration::from_secs(300);
/// Processor time, over all of the compiler's threads.
#[cfg(unix)]
const CPU_SECONDS: u64 = 600;
/// Address space: a component of 20 MB takes some 1.5 GiB.
#[cfg(unix)]
const ADDRESS_SPACE: u64 = 6 << 30;
/// Code is some three times as large as the component.
const LARGEST_CODE: u64 = 1 << 30;

/// Has a component compiled in a limited process, unless its code is in the runtime's cache, and keeps the code there.
/// What was compiled is given back, because there may be no cache.
pub(crate) async fn compile(
    runtime: &Runtime,
    command: &CompileCommand,
    wasm: &[u8],
) -> Result<Option<Vec<u8>>, Error> {
    if runtime.is_compiled(wasm) {
        return Ok(None);
    }
    let failed = |error: std::io::Error| Error::io(OPERATION, command.program.display().to_string(), &error);
    let mut child = tokio::process::Command::new(&command.program);
    // Nothing of the user's environment is the compiler's business.
    child.args(&command.args).env_clear().current_dir(root()).kill_on_drop(true);
    #[cfg(windows)]
    child.envs(std::iter::empty::<(&str, &str)>());
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(Error::new(code::INTERNAL, OPERATION, "the compiler has no pipes"));
    };
    let work = async {
        let feed = async {
            // One that fails ends early and says why.
            drop(stdin.write_all(wasm).await);
            drop(stdin);
        };
        let (mut code, mut words) = (Vec::new(), Vec::new());
        let (mut stdout, mut stderr) = (stdout.take(LARGEST_CODE + 1), stderr.take(4096));
        let (_, code_read, words_read) =
            tokio::join!(feed, stdout.read_to_end(&mut code), stderr.read_to_end(&mut words));
        code_read.and(words_read).map_err(failed)?;
        let status = child.wait().await.map_err(failed)?;
        Ok::<_, Error>((status, code, words))
    };
    let (status, compiled, words) = tokio::time::timeout(WALL, work).await.map_err(|_| {
        Error::new(code::LIMIT, OPERATION, format!("it was not compiled within {} s", WALL.as_secs())).hint(TOO_MUCH)
    })??;
    if !status.success() {
        let words = pcoder_runtime::text::for_people(String::from_utf8_lossy(&words).trim(), 400);
        return Err(if words.is_empty() || status.code().is_none() {
            Error::new(code::LIMIT, OPERATION, format!("compiling it takes more than it may ({status})")).hint(TOO_MUCH)
        } else {
            Error::new(code::INVALID, OPERATION, words).hint("ask the plugin's author for one that is whole")
        });
    }
    if compiled.len() as u64 > LARGEST_CODE {
        return Err(Error::new(code::LIMIT, OPERATION, "its code is larger than 1 GiB").hint(TOO_MUCH));
    }
    runtime.keep_compiled(wasm, TrustedCode::compiled_by_child(&compiled))?;
    Ok(Some(compiled))
}

const TOO_MUCH: &str = "the component is too large or made to keep a compiler busy: ask its author for a smaller one";

/// A folder that is there and that nobody's work is in.
fn root() -> PathBuf {
    PathBuf::from(if cfg!(windows) { "C:\\" } else { "/" })
}

/// The other side: limits itself, reads a component from `input`, and writes its code to `output`.
///
/// # Errors
/// `invalid` for what cannot be compiled, `io`.
pub fn compile_child(mut input: impl std::io::Read, mut output: impl std::io::Write) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::io(OPERATION, "the pipe", &error);
    limit_self()?;
    let mut wasm = Vec::new();
    (&mut input).take(pcoder_runtime::inspect::LARGEST as u64 + 1).read_to_end(&mut wasm).map_err(failed)?;
    let code = compile_here(&wasm)?;
    output.write_all(&code).and_then(|()| output.flush()).map_err(failed)
}

#[cfg(unix)]
fn limit_self() -> Result<(), Error> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limits = [
        (Resource::Cpu, CPU_SECONDS),
        // Not on macOS, which does not keep to it and refuses small values.
        #[cfg(not(target_os = "macos"))]
        (Resource::As, ADDRESS_SPACE),
        // It writes to a pipe and to nothing else.
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Nofile, 64),
    ];
    for (resource, most) in limits {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|error| {
            Error::new(code::INTERNAL, OPERATION, format!("the compiler cannot be limited: {error}"))
        })?;
    }
    Ok(())
}

/// Windows limits by job objects, which need code that is not safe: there the deadline alone holds.
#[cfg(not(unix))]
fn limit_self() -> Result<(), Error> {
    Ok(())
}
