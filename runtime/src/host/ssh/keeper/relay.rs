//! The keeper's own process: calls on one side, the machine on the other.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use pcoder_service::socket::Listener;
use russh::keys::PublicKey;
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, MethodKind, MethodSet,
    client,
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Machine, Proof, USER};
use crate::capability::net::ssh_url;
use crate::error::{Error, code};
use crate::host::dial::{CONNECT, Stream};
use crate::host::ssh::connect::{self, Connection, LOGIN, Login};

const OPERATION: &str = "ssh.keep";

/// How long connections are kept that nobody uses.
const UNUSED: Duration = Duration::from_secs(300);
/// What a call may say that the machine does not take, in pieces: somebody types, or pastes, and the program there reads
/// nothing. More would keep the call from hearing what the program says.
const TYPED: usize = 1024;
/// One that was used so lately is there; another one is asked, and has so long to answer.
const FRESH: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(2);
/// How many of them.
const MOST_UNUSED: usize = 4;
/// How long a call that has closed its channels is waited for, and how often it is looked at.
const GIVING_BACK: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long what carries channels may take to end once its call has.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection to the machine, logged in.
struct Upstream {
    connection: Connection,
    /// What the next call's command is started by.
    shell: Mutex<Option<Shell>>,
    /// A shell there says something by itself: then none waits.
    is_noisy: AtomicBool,
    /// When somebody used it last.
    used: Instant,
    _cut: DropGuard,
}

impl Upstream {
    /// Whether the machine is there.
    async fn answers(&self) -> bool {
        let is_fresh = self.used.elapsed() < FRESH;
        let answer = async { tokio::time::timeout(ANSWER, self.connection.handle.send_ping()).await };
        !self.is_gone() && (is_fresh || answer.await.is_ok_and(|it| it.is_ok()))
    }

    fn is_gone(&self) -> bool {
        self.connection.ended.is_cancelled()
    }

    fn shell(&self) -> std::sync::MutexGuard<'_, Option<Shell>> {
        self.shell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a shell for the next call. It is not waited for. Whether the machine could be asked.
    async fn prepare(&self, ended: u64) -> bool {
        self.end_shell().await;
        if self.is_noisy.load(Ordering::SeqCst) {
            return true;
        }
        let started = async {
            let channel = self.connection.handle.channel_open_session().await?;
            channel.exec(false, WAITING).await?;
            Ok::<_, russh::Error>(Shell { channel, since: Instant::now(), ended })
        };
        match tokio::time::timeout(ANSWER, started).await {
            Ok(Ok(shell)) => {
                *self.shell() = Some(shell);
                true
            }
            _ => false,
        }
    }

    /// The shell that nobody used in time.
    fn take_old_shell(&self) -> Option<Shell> {
        self.shell().take_if(|it| it.is_old())
    }

    async fn end_shell(&self) {
        let shell = self.shell().take();
        if let Some(Shell { channel, .. }) = shell {
            let _ = channel.close().await;
        }
    }

    /// Has the shell that waits run what a session asks for first, where it can: that is one line. A session that has no
    /// use for it ends it, as it may change what a shell is started with.
    async fn run(&self, asked: &ChannelMsg, ended: u64) -> Option<Channel<client::Msg>> {
        let shell = self.shell().take();
        let mut shell = shell?;
        let command = match asked {
            ChannelMsg::Exec { command, .. } if !command.iter().any(|it| matches!(it, b'\n' | b'\r' | 0)) => command,
            _ => {
                let _ = shell.channel.close().await;
                return None;
            }
        };
        // It says nothing before it has read a line, unless it has ended, or what a shell there begins with does. How much
        // it may be told is the server's word.
        let is_quiet = loop {
            tokio::select! {
                biased;
                said = shell.channel.wait() => match said {
                    Some(ChannelMsg::WindowAdjusted { .. }) => {}
                    _ => break false,
                },
                () = std::future::ready(()) => break true,
            }
        };
        if !is_quiet {
            self.is_noisy.store(true, Ordering::SeqCst);
        }
        let line = [command.as_slice(), b"\n"].concat();
        if is_quiet && !shell.is_old() && shell.ended == ended && shell.channel.data_bytes(line).await.is_ok() {
            return Some(shell.channel);
        }
        let _ = shell.channel.close().await;
        None
    }
}

/// A shell on the machine that waits for the line that it is to run: where software emulates the processor, to start one
/// takes longer than most commands.
///
/// It was started after the last command of this keeper had ended, and is used within [`WAITS`]: what it has of the
/// user's environment, groups and start files is what a shell gets that is started when the command is asked for, unless
/// somebody changes those within this time and by another way. The command is the only thing that it reads, byte by byte;
/// what follows is the command's input.
struct Shell {
    channel: Channel<client::Msg>,
    since: Instant,
    /// How many sessions had ended when it was started.
    ended: u64,
}

impl Shell {
    fn is_old(&self) -> bool {
        self.since.elapsed() >= WAITS
    }
}

/// What such a shell runs. A user may have another one than POSIX knows.
const WAITING: &str = "exec sh -c 'IFS= read -r line && eval \"$line\"'";
const WAITS: Duration = Duration::from_secs(10);

/// What a keeper has.
pub(super) struct Keeper {
    machine: Machine,
    proof: Proof,
    config: Arc<server::Config>,
    unused: Mutex<Vec<Upstream>>,
    /// The calls that are there.
    calls: Mutex<Vec<Weak<Channels>>>,
    /// How many sessions have ended.
    ended: AtomicU64,
}

impl Keeper {
    /// With its first connection.
    pub(super) async fn new(machine: Machine) -> Result<Self, Error> {
        let proof = Proof::of(&machine);
        let config = Arc::new(server::Config {
            keys: vec![proof.keeper.clone()],
            methods: MethodSet::from(&[MethodKind::Password][..]),
            preferred: connect::within_this_host(),
            window_size: connect::WINDOW,
            channel_buffer_size: TYPED,
            // A call whose output nobody reads for a while, or that was suspended, is there all the same.
            inactivity_timeout: None,
            ..server::Config::default()
        });
        let keeper = Self {
            machine,
            proof,
            config,
            unused: Mutex::new(Vec::new()),
            calls: Mutex::new(Vec::new()),
            ended: AtomicU64::new(0),
        };
        let first = keeper.log_in().await?;
        first.prepare(0).await;
        keeper.unused().push(first);
        Ok(keeper)
    }

    fn unused(&self) -> std::sync::MutexGuard<'_, Vec<Upstream>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn log_in(&self) -> Result<Upstream, Error> {
        let Machine { port, user, host_key, private_key } = &self.machine;
        let url = ssh_url(connect::HERE, *port)?;
        let key = PublicKey::from_openssh(host_key.trim())
            .map_err(|_| Error::new(code::INVALID, OPERATION, "the host key cannot be read"))?;
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect((connect::HERE, *port)))
            .await
            .map_err(|_| Error::new(code::UNAVAILABLE, OPERATION, "no answer in time"))?
            .map_err(|error| Error::io(OPERATION, "connection", &error))?;
        let _ = stream.set_nodelay(true);
        let login = Login {
            host: connect::HERE,
            port: *port,
            url: &url,
            user,
            credential: private_key.clone(),
            is_own_socket: false,
        };
        let (connection, cut) = connect::open(stream, Some(key), None, login).await?;
        Ok(Upstream {
            connection,
            shell: Mutex::default(),
            is_noisy: AtomicBool::new(false),
            used: Instant::now(),
            _cut: cut,
        })
    }

    /// Serves calls, until the machine is gone or nobody has come for a while.
    pub(super) async fn serve(self: Arc<Self>, listener: Listener) -> Result<(), Error> {
        let mut calls = JoinSet::new();
        loop {
            let idle = calls.is_empty();
            let last = self.unused().last().map(|it| it.connection.ended.clone());
            if idle && last.is_none() {
                return Ok(());
            }
            let shells_end = self.shells_end();
            tokio::select! {
                stream = listener.accept() => match stream {
                    Ok(stream) => { calls.spawn(Arc::clone(&self).call(Box::new(stream))); }
                    // Out of files, say: the next one may do better.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(_) = calls.join_next() => {}
                () = gone(last) => self.unused().retain(|it| !it.is_gone()),
                // No shell waits for longer than it may.
                () = tokio::time::sleep(shells_end.unwrap_or_default()), if shells_end.is_some() => {
                    self.end_old_shells().await;
                }
                () = tokio::time::sleep(UNUSED), if idle => return Ok(()),
            }
        }
    }

    /// How long it takes until a shell has waited too long.
    fn shells_end(&self) -> Option<Duration> {
        let left = |it: &Upstream| it.shell().as_ref().map(|shell| WAITS.saturating_sub(shell.since.elapsed()));
        self.unused().iter().filter_map(left).min()
    }

    async fn end_old_shells(&self) {
        let old: Vec<Shell> = self.unused().iter().filter_map(Upstream::take_old_shell).collect();
        for Shell { channel, .. } in old {
            let _ = channel.close().await;
        }
    }

    /// A connection that nobody uses; also one that is about to be given back, which is sooner than a login.
    async fn free(&self) -> Option<Upstream> {
        let until = Instant::now() + GIVING_BACK;
        loop {
            let unused = self.unused().pop();
            match unused {
                Some(upstream) if upstream.answers().await => return Some(upstream),
                Some(_) => continue,
                None => {}
            }
            let is_ending = self.calls().iter().filter_map(Weak::upgrade).any(|it| it.is_done());
            if !is_ending || Instant::now() > until {
                return None;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Channels>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, for as long as its channels are there.
    fn count(&self, channels: &Arc<Channels>) {
        let mut calls = self.calls();
        calls.retain(|it| it.strong_count() > 0);
        calls.push(Arc::downgrade(channels));
    }

    /// One call, from its login to its end.
    async fn call(self: Arc<Self>, stream: Box<dyn Stream>) {
        let channels = Arc::new(Channels::default());
        let upstream = Arc::new(OnceLock::new());
        self.count(&channels);
        let cut = CancellationToken::new();
        let call = Call {
            keeper: Arc::clone(&self),
            upstream: Arc::clone(&upstream),
            channels: Arc::clone(&channels),
            carried: JoinSet::new(),
        };
        let session = server::run_stream(Arc::clone(&self.config), connect::Cuttable::new(stream, &cut), call);
        let login = async {
            // One who says nothing is not waited for without end.
            let mut session = tokio::time::timeout(LOGIN, session).await.ok()?.ok()?;
            // Who only looks has no connection, and goes.
            tokio::select! {
                _ = &mut session => return None,
                () = tokio::time::sleep(LOGIN) => {}
            }
            upstream.get().is_some().then_some(session)
        };
        if let Some(session) = login.await {
            // It takes what carries its channels along.
            let _ = session.await;
        }
        cut.cancel();
        let is_clean = tokio::time::timeout(GOODBYE, channels.all_ended()).await.is_ok_and(|is_clean| is_clean);
        let Some(mut upstream) = Arc::into_inner(upstream).and_then(OnceLock::into_inner).and_then(Arc::into_inner)
        else {
            return;
        };
        // What a call has left open ends with its connection, which is cut here by being dropped.
        if !is_clean || upstream.is_gone() {
            return;
        }
        if !upstream.prepare(self.ended.load(Ordering::SeqCst)).await {
            return;
        }
        upstream.used = Instant::now();
        let mut unused = self.unused();
        if unused.len() < MOST_UNUSED {
            unused.push(upstream);
        }
    }
}

async fn gone(connection: Option<CancellationToken>) {
    match connection {
        Some(ended) => ended.cancelled().await,
        None => std::future::pending().await,
    }
}

/// What a call has opened on its connection.
#[derive(Default)]
struct Channels {
    open: AtomicUsize,
    /// There has been one.
    used: AtomicBool,
    /// One was left before the machine had closed it.
    left: AtomicBool,
    ended: Notify,
}

impl Channels {
    /// Whether it looks as if the call were about to end.
    fn is_done(&self) -> bool {
        self.used.load(Ordering::SeqCst) && self.open.load(Ordering::SeqCst) == 0
    }

    /// Waits until nobody carries one any more. Whether the machine had closed each.
    async fn all_ended(&self) -> bool {
        while self.open.load(Ordering::SeqCst) > 0 {
            self.ended.notified().await;
        }
        !self.left.load(Ordering::SeqCst)
    }
}

/// A channel that somebody carries, for as long as this is there.
struct Carried {
    channels: Arc<Channels>,
    is_closed: bool,
}

impl Carried {
    fn new(channels: &Arc<Channels>) -> Self {
        channels.open.fetch_add(1, Ordering::SeqCst);
        channels.used.store(true, Ordering::SeqCst);
        Self { channels: Arc::clone(channels), is_closed: false }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if !self.is_closed {
            self.channels.left.store(true, Ordering::SeqCst);
        }
        self.channels.open.fetch_sub(1, Ordering::SeqCst);
        self.channels.ended.notify_one();
    }
}

/// A call at the keeper.
struct Call {
    keeper: Arc<Keeper>,
    /// Its connection to the machine, once it has logged in.
    upstream: Arc<OnceLock<Arc<Upstream>>>,
    channels: Arc<Channels>,
    carried: JoinSet<()>,
}

impl Call {
    /// Opens a channel to the machine, and carries what goes over it.
    fn carry<F>(
        &mut self,
        theirs: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &Session,
        open: impl FnOnce(Arc<Upstream>) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Channel<client::Msg>, russh::Error>> + Send + 'static,
    {
        // Nobody opens a channel before the login.
        let Some(upstream) = self.upstream.get().cloned() else { return };
        let handle = session.handle();
        let carried = Carried::new(&self.channels);
        // Those that have ended.
        while self.carried.try_join_next().is_some() {}
        self.carried.spawn(async move {
            let mut carried = carried;
            match open(upstream).await {
                Ok(machines) => {
                    reply.accept().await;
                    carry(theirs, machines, &handle, &mut carried).await;
                }
                Err(error) => {
                    carried.is_closed = matches!(error, russh::Error::ChannelOpenFailure(_));
                    reply
                        .reject(match error {
                            russh::Error::ChannelOpenFailure(reason) => reason,
                            _ => ChannelOpenFailure::ConnectFailed,
                        })
                        .await;
                }
            }
        });
    }
}

impl server::Handler for Call {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        // Digests are compared: how long that takes says nothing of what they are of.
        let is_same = Sha256::digest(password) == Sha256::digest(&self.keeper.proof.password);
        if user != USER || !is_same {
            return Ok(Auth::reject());
        }
        // When there is no connection to the machine, the call's own way there says why.
        let upstream = match self.keeper.free().await {
            Some(upstream) => upstream,
            None => match self.keeper.log_in().await {
                Ok(upstream) => upstream,
                Err(_) => return Ok(Auth::reject()),
            },
        };
        Ok(if self.upstream.set(Arc::new(upstream)).is_ok() { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(upstream) = self.upstream.get().cloned() else { return Ok(()) };
        let (handle, mut carried) = (session.handle(), Carried::new(&self.channels));
        let keeper = Arc::clone(&self.keeper);
        self.carried.spawn(async move {
            reply.accept().await;
            carry_session(channel, &upstream, &handle, &mut carried, &keeper.ended).await;
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let (host, from) = (host.to_owned(), from.to_owned());
        self.carry(channel, reply, session, move |it| async move {
            it.connection.handle.channel_open_direct_tcpip(host, port, from, from_port).await
        });
        Ok(())
    }
}

/// Carries a session. What is asked for first says which channel to the machine it is.
async fn carry_session(
    theirs: Channel<Msg>,
    upstream: &Upstream,
    handle: &server::Handle,
    carried: &mut Carried,
    ended: &AtomicU64,
) {
    let id = theirs.id();
    let (mut from_call, to_call) = theirs.split();
    let first = match from_call.wait().await {
        Some(first) if !matches!(first, ChannelMsg::Close) => first,
        // Nothing was asked for.
        _ => {
            carried.is_closed = true;
            return;
        }
    };
    let opened = match upstream.run(&first, ended.load(Ordering::SeqCst)).await {
        Some(channel) => {
            // Whoever hears that it runs may go on with its input.
            let _ = handle.channel_success(id).await;
            Ok((channel, None))
        }
        None => upstream.connection.handle.channel_open_session().await.map(|channel| (channel, Some(first))),
    };
    match opened {
        Ok((machines, first)) => {
            let machines = machines.split();
            carry_on((from_call, to_call, id), first, machines, handle, carried, Some(ended)).await;
        }
        // A connection on which the machine opens no more is not used again.
        Err(_) => {
            let _ = handle.channel_failure(id).await;
            let _ = handle.close(id).await;
        }
    }
}

/// Carries a channel in both directions until one side has closed it.
async fn carry(theirs: Channel<Msg>, machines: Channel<client::Msg>, handle: &server::Handle, carried: &mut Carried) {
    let id = theirs.id();
    let (from_call, to_call) = theirs.split();
    carry_on((from_call, to_call, id), None, machines.split(), handle, carried, None).await;
}

/// The same, with what the call has said before.
async fn carry_on(
    (mut from_call, to_call, id): (ChannelReadHalf, ChannelWriteHalf<Msg>, ChannelId),
    first: Option<ChannelMsg>,
    (mut from_machine, to_machine): (ChannelReadHalf, ChannelWriteHalf<client::Msg>),
    handle: &server::Handle,
    carried: &mut Carried,
    ended: Option<&AtomicU64>,
) {
    let note = || ended.map(|it| it.fetch_add(1, Ordering::SeqCst));
    tokio::select! {
        biased;
        is_closed = there_to_here(&mut from_machine, &to_call, handle, id) => {
            // Noted before the call hears of it: it may be gone in the next moment.
            carried.is_closed = is_closed;
            note();
            let _ = handle.close(id).await;
        }
        () = here_to_there(first, &mut from_call, &to_machine) => {
            note();
            // The call wants no more of it. What the machine says to that, nobody hears: its connection is not used again.
            let _ = to_machine.close().await;
        }
    }
}

/// What the machine says. Whether it has closed the channel in the end.
async fn there_to_here(
    from: &mut ChannelReadHalf,
    to: &ChannelWriteHalf<Msg>,
    handle: &server::Handle,
    id: ChannelId,
) -> bool {
    while let Some(message) = from.wait().await {
        let is_told = match message {
            ChannelMsg::Data { data } => to.data_bytes(data).await.is_ok(),
            ChannelMsg::ExtendedData { data, ext } => to.extended_data_bytes(ext, data).await.is_ok(),
            ChannelMsg::Eof => to.eof().await.is_ok(),
            ChannelMsg::Success => handle.channel_success(id).await.is_ok(),
            ChannelMsg::Failure => handle.channel_failure(id).await.is_ok(),
            ChannelMsg::ExitStatus { exit_status } => to.exit_status(exit_status).await.is_ok(),
            ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, lang_tag } => {
                handle.exit_signal_request(id, signal_name, core_dumped, error_message, lang_tag).await.is_ok()
            }
            ChannelMsg::Close => return true,
            _ => true,
        };
        if !is_told {
            return false;
        }
    }
    false
}

/// What the call says, until it closes the channel or is gone.
async fn here_to_there(mut first: Option<ChannelMsg>, from: &mut ChannelReadHalf, to: &ChannelWriteHalf<client::Msg>) {
    loop {
        let message = match first.take() {
            Some(message) => message,
            None => match from.wait().await {
                Some(message) => message,
                None => return,
            },
        };
        let told = match message {
            ChannelMsg::Data { data } => to.data_bytes(data).await,
            ChannelMsg::Eof => to.eof().await,
            ChannelMsg::RequestPty {
                want_reply,
                term,
                col_width,
                row_height,
                pix_width,
                pix_height,
                terminal_modes,
            } => to.request_pty(want_reply, &term, col_width, row_height, pix_width, pix_height, &terminal_modes).await,
            ChannelMsg::Exec { want_reply, command } => to.exec(want_reply, command).await,
            ChannelMsg::RequestShell { want_reply } => to.request_shell(want_reply).await,
            ChannelMsg::RequestSubsystem { want_reply, name } => to.request_subsystem(want_reply, name).await,
            ChannelMsg::SetEnv { want_reply, variable_name, variable_value } => {
                to.set_env(want_reply, variable_name, variable_value).await
            }
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                to.window_change(col_width, row_height, pix_width, pix_height).await
            }
            ChannelMsg::Signal { signal } => to.signal(signal).await,
            ChannelMsg::Close => return,
            _ => Ok(()),
        };
        if told.is_err() {
            // The machine is gone. What it said before that is still to be heard.
            return std::future::pending().await;
        }
    }
}
