//! WASI: streams, clocks and randomness for the worlds that name them, and the rest of it with nothing in it.
//!
//! A component in JavaScript or Python brings its language's runtime along, and that imports the whole of WASI, used or
//! not. It gets what Wasmtime makes of WASI for a program that was given nothing: no variables, no arguments, no
//! folder, no socket, no lookup. Nothing here asks the gate, because nothing here reaches anything.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWrite;
use wasmtime::component::Linker;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings as wasi;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

use crate::bindings::host::pcoder::plugin::log::Level;
use crate::call::CallState;
use crate::gate::Gate;
use crate::secrets::Broker;

/// What a call has of WASI: nothing, and two outputs that are its log.
pub(crate) fn nothing(gate: &Arc<Gate>, secrets: &Arc<Broker>) -> WasiCtx {
    let log = |level| LogOutput(Arc::new(Lines::new(Arc::clone(gate), Arc::clone(secrets), level)));
    WasiCtxBuilder::new()
        .stdout(log(Level::Info))
        .stderr(log(Level::Warn))
        // These are Wasmtime's defaults too. They are said here because everything rests on them.
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

/// Streams, clocks, randomness. None of them reaches anything of the host's.
pub(crate) fn add_shared(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    struct Table;
    impl wasmtime::component::HasData for Table {
        type Data<'a> = &'a mut wasmtime_wasi::ResourceTable;
    }
    fn table(state: &mut CallState) -> &mut wasmtime_wasi::ResourceTable {
        &mut state.table
    }
    wasi::io::error::add_to_linker::<_, Table>(linker, table)?;
    wasi::io::poll::add_to_linker::<_, Table>(linker, table)?;
    wasi::io::streams::add_to_linker::<_, Table>(linker, table)?;
    wasi::clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(linker, CallState::clocks)?;
    wasi::clocks::wall_clock::add_to_linker::<_, WasiClocks>(linker, CallState::clocks)?;
    wasi::random::random::add_to_linker::<_, WasiRandom>(linker, CallState::random)?;
    Ok(())
}

/// What `inspect::imports_of` lists beyond the worlds.
pub(crate) fn add_empty_handed(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    use wasi::{cli, filesystem, random, sockets};
    random::insecure::add_to_linker::<_, WasiRandom>(linker, CallState::random)?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(linker, CallState::random)?;
    cli::environment::add_to_linker::<_, WasiCli>(linker, CallState::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(linker, CallState::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(linker, CallState::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(linker, CallState::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(linker, CallState::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linker, CallState::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linker, CallState::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, CallState::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, CallState::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, CallState::cli)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linker, CallState::filesystem)?;
    filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, CallState::filesystem)?;
    let stable = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<_, WasiSockets>(linker, &stable, CallState::sockets)?;
    sockets::instance_network::add_to_linker::<_, WasiSockets>(linker, CallState::sockets)?;
    sockets::ip_name_lookup::add_to_linker::<_, WasiSockets>(linker, CallState::sockets)?;
    sockets::tcp_create_socket::add_to_linker::<_, WasiSockets>(linker, CallState::sockets)?;
    sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(linker, CallState::sockets)?;
    sockets::tcp::add_to_linker::<_, WasiSockets>(linker, CallState::sockets)?;
    sockets::udp::add_to_linker::<_, WasiSockets>(linker, CallState::sockets)?;
    Ok(())
}

/// Bytes of a line that is not whole yet. What is beyond them is not kept: the log cuts lines far earlier.
const LINE: usize = 64 << 10;

/// Makes lines of what comes in pieces, and logs them. What has no end yet when the call is over is a line too.
struct Lines {
    gate: Arc<Gate>,
    secrets: Arc<Broker>,
    level: Level,
    begun: Mutex<Vec<u8>>,
}

impl Lines {
    fn new(gate: Arc<Gate>, secrets: Arc<Broker>, level: Level) -> Self {
        Self { gate, secrets, level, begun: Mutex::default() }
    }

    fn push(&self, mut bytes: &[u8]) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            keep(&mut begun, &bytes[..end]);
            self.log(&std::mem::take(&mut *begun));
            bytes = &bytes[end + 1..];
        }
        keep(&mut begun, bytes);
    }

    fn log(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = String::from_utf8_lossy(line).into_owned();
        super::log::write(&self.gate, &self.secrets, self.level, text);
    }
}

fn keep(begun: &mut Vec<u8>, bytes: &[u8]) {
    let room = LINE.saturating_sub(begun.len());
    begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

impl Drop for Lines {
    fn drop(&mut self) {
        let rest = std::mem::take(self.begun.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !rest.is_empty() {
            self.log(&rest);
        }
    }
}

/// Standard output or standard error of a guest. Each handle that it takes writes to the same lines.
#[derive(Clone)]
struct LogOutput(Arc<Lines>);

impl IsTerminal for LogOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogOutput {
    // For WASI 0.3, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

/// What a guest may write at once.
const CHUNK: usize = 64 << 10;

impl OutputStream for LogOutput {
    fn write(&mut self, bytes: hyper::body::Bytes) -> StreamResult<()> {
        self.0.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogOutput {
    async fn ready(&mut self) {}
}
