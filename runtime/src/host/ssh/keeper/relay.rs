//! The keeper's own process: calls on one side, the machine on the other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
use crate::error::{Error, code};
use crate::host::dial::{CONNECT, Stream};
use crate::host::ssh::connect::{self, LOGIN};

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
    handle: client::Handle<Known>,
    /// It is not there any more.
    ended: CancellationToken,
    /// When somebody used it last.
    used: Instant,
    _cut: DropGuard,
}

impl Upstream {
    /// Whether the machine is there.
    async fn answers(&self) -> bool {
        let is_fresh = self.used.elapsed() < FRESH;
        !self.ended.is_cancelled()
            && (is_fresh || tokio::time::timeout(ANSWER, self.handle.send_ping()).await.is_ok_and(|it| it.is_ok()))
    }
}

/// The machine, by its host key.
struct Known {
    key: PublicKey,
    _ended: DropGuard,
}

impl client::Handler for Known {
    type Error = russh::Error;

    async fn check_server_key(&mut self, theirs: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(theirs.certificate().is_none() && theirs.public_key().key_data() == self.key.key_data())
    }

    connect::refuse_what_the_server_opens!(client::Msg, client::ChannelOpenHandle, client::Session);

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<client::Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }
}

/// What a keeper has.
pub(super) struct Keeper {
    machine: Machine,
    proof: Proof,
    config: Arc<server::Config>,
    unused: Mutex<Vec<Upstream>>,
    /// The calls that are there.
    calls: Mutex<Vec<Weak<Channels>>>,
}

impl Keeper {
    /// With its first connection.
    pub(super) async fn new(machine: Machine) -> Result<Self, Error> {
        let proof = Proof::of(&machine);
        let config = Arc::new(server::Config {
            keys: vec![proof.keeper.clone()],
            methods: MethodSet::from(&[MethodKind::Password][..]),
            window_size: connect::WINDOW,
            channel_buffer_size: TYPED,
            // A call whose output nobody reads for a while, or that was suspended, is there all the same.
            inactivity_timeout: None,
            ..server::Config::default()
        });
        let keeper = Self { machine, proof, config, unused: Mutex::new(Vec::new()), calls: Mutex::new(Vec::new()) };
        let first = keeper.log_in().await?;
        keeper.unused().push(first);
        Ok(keeper)
    }

    fn unused(&self) -> std::sync::MutexGuard<'_, Vec<Upstream>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn log_in(&self) -> Result<Upstream, Error> {
        let lost = |message: String| Error::new(code::UNAVAILABLE, OPERATION, message);
        let key = PublicKey::from_openssh(self.machine.host_key.trim())
            .map_err(|_| Error::new(code::INVALID, OPERATION, "the host key cannot be read"))?;
        let ended = CancellationToken::new();
        let known = Known { key: key.clone(), _ended: ended.clone().drop_guard() };
        let login = async {
            let stream = tokio::time::timeout(CONNECT, TcpStream::connect((connect::HERE, self.machine.port)))
                .await
                .map_err(|_| lost("no answer in time".to_owned()))?
                .map_err(|error| Error::io(OPERATION, "connection", &error))?;
            let _ = stream.set_nodelay(true);
            let cut = CancellationToken::new();
            let stream = connect::Cuttable::new(stream, &cut);
            let cut = cut.drop_guard();
            let mut handle =
                client::connect_stream(connect::config(vec![key.algorithm()], connect::HERE), stream, known)
                    .await
                    .map_err(|error| super::super::failed(OPERATION, &error))?;
            connect::log_in(&mut handle, &self.machine.user, self.machine.private_key.clone()).await?;
            Ok(Upstream { handle, ended, used: Instant::now(), _cut: cut })
        };
        tokio::time::timeout(LOGIN, login).await.map_err(|_| lost("no login in time".to_owned()))?
    }

    /// Serves calls, until the machine is gone or nobody has come for a while.
    pub(super) async fn serve(self: Arc<Self>, listener: Listener) -> Result<(), Error> {
        let mut calls = JoinSet::new();
        loop {
            let idle = calls.is_empty();
            let last = self.unused().last().map(|it| it.ended.clone());
            if idle && last.is_none() {
                return Ok(());
            }
            tokio::select! {
                stream = listener.accept() => match stream {
                    Ok(stream) => { calls.spawn(Arc::clone(&self).call(Box::new(stream))); }
                    // Out of files, say: the next one may do better.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(_) = calls.join_next() => {}
                () = gone(last) => self.unused().retain(|it| !it.ended.is_cancelled()),
                () = tokio::time::sleep(UNUSED), if idle => return Ok(()),
            }
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
            let mut session = session.await.ok()?;
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
        upstream.used = Instant::now();
        let mut unused = self.unused();
        // What a call has left open ends with its connection, which is cut here by being dropped.
        if is_clean && !upstream.ended.is_cancelled() && unused.len() < MOST_UNUSED {
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
        self.carry(channel, reply, session, |it| async move { it.handle.channel_open_session().await });
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
            it.handle.channel_open_direct_tcpip(host, port, from, from_port).await
        });
        Ok(())
    }
}

/// Carries a channel in both directions until one side has closed it.
async fn carry(theirs: Channel<Msg>, machines: Channel<client::Msg>, handle: &server::Handle, carried: &mut Carried) {
    let id = theirs.id();
    let (mut from_call, to_call) = theirs.split();
    let (mut from_machine, to_machine) = machines.split();
    tokio::select! {
        biased;
        is_closed = there_to_here(&mut from_machine, &to_call, handle, id) => {
            // Noted before the call hears of it: it may be gone in the next moment.
            carried.is_closed = is_closed;
            let _ = handle.close(id).await;
        }
        () = here_to_there(&mut from_call, &to_machine) => {
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
async fn here_to_there(from: &mut ChannelReadHalf, to: &ChannelWriteHalf<client::Msg>) {
    while let Some(message) = from.wait().await {
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
