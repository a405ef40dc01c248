//! The keeper's own process: calls on one side, the machine on the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use pcoder_service::passing;
use pcoder_service::socket::{self, Listener};
use russh::keys::PublicKey;
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session};
use russh::{Channel, ChannelOpenFailure, MethodKind, MethodSet};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::carry::{Carried, Channels, carry, carry_session};
use super::outputs::Outputs;
use super::upstream::Upstream;
use super::{Machine, Proof, USER};
use crate::capability::net::ssh_url;
use crate::error::{Error, code};
use crate::host::dial::CONNECT;
use crate::host::ssh::connect::{self, LOGIN, Login};

const OPERATION: &str = "ssh.keep";

/// How long connections are kept that nobody uses.
const UNUSED: Duration = Duration::from_secs(300);
/// What a call may say that the machine does not take, in pieces: somebody types, or pastes, and the program there
/// reads nothing. More would keep the call from hearing what the program says.
const TYPED: usize = 1024;
/// How many of them.
const MOST_UNUSED: usize = 4;
/// How long a call that has closed its channels is waited for, and how often it is looked at.
const GIVING_BACK: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long what carries channels may take to end once its call has.
const GOODBYE: Duration = Duration::from_secs(1);

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
        Ok(Upstream::new(connection, cut))
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
                    Ok(stream) => { calls.spawn(Arc::clone(&self).call(stream)); }
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
        self.unused().iter().filter_map(Upstream::shell_waits).min()
    }

    async fn end_old_shells(&self) {
        let old: Vec<_> = self.unused().iter().filter_map(Upstream::take_old_shell).collect();
        for shell in old {
            shell.end().await;
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
    async fn call(self: Arc<Self>, stream: socket::Stream) {
        // Who says nothing is not waited for without end; who only looks goes.
        let Ok(Ok(outputs)) = tokio::time::timeout(LOGIN, passing::take(&stream)).await else { return };
        let channels = Arc::new(Channels::default());
        let upstream = Arc::new(OnceLock::new());
        self.count(&channels);
        let cut = CancellationToken::new();
        let call = Call {
            keeper: Arc::clone(&self),
            upstream: Arc::clone(&upstream),
            channels: Arc::clone(&channels),
            carried: JoinSet::new(),
            outputs: Arc::new(Mutex::new(outputs.into())),
        };
        let session = server::run_stream(Arc::clone(&self.config), connect::Cuttable::new(stream, &cut), call);
        let login = async {
            let mut session = tokio::time::timeout(LOGIN, session).await.ok()?.ok()?;
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

/// A call at the keeper.
struct Call {
    keeper: Arc<Keeper>,
    /// Its connection to the machine, once it has logged in.
    upstream: Arc<OnceLock<Arc<Upstream>>>,
    channels: Arc<Channels>,
    carried: JoinSet<()>,
    /// What it has handed over, for the first session that asks for it.
    outputs: Arc<Mutex<Outputs>>,
}

impl Call {
    /// Carries one more channel, beside everything else.
    fn carry<F>(&mut self, work: impl FnOnce(Arc<Upstream>, Carried) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Nobody opens a channel before the login.
        let Some(upstream) = self.upstream.get() else { return };
        // Those that have ended.
        while self.carried.try_join_next().is_some() {}
        self.carried.spawn(work(Arc::clone(upstream), Carried::new(&self.channels)));
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
        let (handle, keeper, given) = (session.handle(), Arc::clone(&self.keeper), Arc::clone(&self.outputs));
        self.carry(|upstream, mut carried| async move {
            reply.accept().await;
            carry_session(channel, &upstream, &handle, &mut carried, &keeper.ended, &given).await;
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
        let (host, from, handle) = (host.to_owned(), from.to_owned(), session.handle());
        self.carry(|upstream, mut carried| async move {
            let opened = upstream.connection.handle.channel_open_direct_tcpip(host, port, from, from_port).await;
            drop(upstream);
            match opened {
                Ok(machines) => {
                    reply.accept().await;
                    carry(channel, machines, &handle, &mut carried).await;
                }
                Err(russh::Error::ChannelOpenFailure(reason)) => {
                    carried.closed();
                    reply.reject(reason).await;
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }
}
