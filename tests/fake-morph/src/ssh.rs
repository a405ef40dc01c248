//! The SSH gateway.
//!
//! A user is `INSTANCE:KEY` with the API key and any public key or password; the `access_token` of an instance's
//! `/ssh/key`, with the same; or an instance's id with that key or password, or with the user's registered key. RSA keys
//! are refused whoever they are of, since this workspace builds its SSH without RSA.
//!
//! Input that a command does not take is held in memory: the channel's window does not hold back its sender.

use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pcoder_fake_machine::{Io, Machine, Running};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};
use tokio_util::task::TaskTracker;

use crate::exec::{Begun, run, shell_line};
use crate::world::{Access, World};

/// OpenSSH's own, as its server starts it.
const SFTP: [&str; 3] =
    ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server"];
/// How long a terminal may go on showing after its shell has ended: a job in the background may keep it for ever.
const LAST_WORDS: Duration = Duration::from_millis(300);

pub(crate) async fn serve(world: Arc<World>, listener: TcpListener, key: PrivateKey, tasks: TaskTracker) {
    let config = Arc::new(Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: None,
        ..Config::default()
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let guest = Guest { world: Arc::clone(&world), instance: None };
        let (config, ending) = (Arc::clone(&config), world.ending.clone());
        tasks.spawn(async move {
            let connection = async {
                stream.set_nodelay(true)?;
                run_stream(config, stream, guest).await?.await
            };
            // A client that goes is no failure of this side.
            let _ = ending.run_until_cancelled(connection).await;
        });
    }
}

enum Proof<'a> {
    Key(&'a PublicKey),
    Password(&'a str),
}

impl World {
    /// Whose instance a user may log into.
    fn user(&self, user: &str, proof: &Proof<'_>) -> Option<String> {
        if let Some((id, key)) = user.split_once(':') {
            return (key == self.options.key).then(|| id.to_owned());
        }
        let state = self.state();
        let is = |text: &str, key: &PublicKey| PublicKey::from_openssh(text).is_ok_and(|own| same(&own, key));
        let found = state.instances.values().find(|instance| {
            let keys = instance.keys.as_ref();
            keys.is_some_and(|keys| keys.token == user)
                || instance.id == user
                    && match proof {
                        Proof::Key(key) => {
                            keys.is_some_and(|keys| is(&keys.public, key))
                                || state.user_key.as_ref().is_some_and(|(text, _)| is(text, key))
                        }
                        Proof::Password(password) => keys.is_some_and(|keys| keys.password == *password),
                    }
        });
        found.map(|instance| instance.id.clone())
    }
}

fn same(one: &PublicKey, other: &PublicKey) -> bool {
    let data = |key: &PublicKey| -> KeyData { key.key_data().clone() };
    data(one) == data(other)
}

struct Guest {
    world: Arc<World>,
    instance: Option<String>,
}

impl Guest {
    async fn login(&mut self, user: &str, proof: Proof<'_>) -> Auth {
        let Some(id) = self.world.user(user, &proof) else { return Auth::reject() };
        if ready(&self.world, &id).await.is_none() {
            return Auth::reject();
        }
        self.instance = Some(id);
        Auth::Accept
    }
}

async fn ready(world: &Arc<World>, id: &str) -> Option<Machine> {
    let (world, id) = (Arc::clone(world), id.to_owned());
    let ready = tokio::task::spawn_blocking(move || world.ready_for(&id, Access::Ssh)).await;
    Some(ready.ok()?.ok()?.0)
}

impl Handler for Guest {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(self.login(user, Proof::Password(password)).await)
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(self.login(user, Proof::Key(key.public_key)).await)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(id) = self.instance.clone() else { return Ok(()) };
        reply.accept().await;
        let desk = Desk { world: Arc::clone(&self.world), id, handle: session.handle(), terminal: None, term: None };
        tokio::spawn(desk.attend(channel));
        Ok(())
    }

    /// The instance's loopback is this machine's.
    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let here = matches!(host, "localhost" | "127.0.0.1" | "::1" | "0.0.0.0");
        let (Some(id), Ok(port), true) = (&self.instance, u16::try_from(port), here) else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        if ready(&self.world, id).await.is_none() {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(mut stream) => {
                reply.accept().await;
                tokio::spawn(async move {
                    // Either side may go at any time.
                    let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut stream).await;
                });
            }
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }
}

/// What serves one session channel.
struct Desk {
    world: Arc<World>,
    id: String,
    handle: Handle,
    terminal: Option<Io>,
    term: Option<String>,
}

enum Wanted {
    Line(Vec<u8>),
    Shell,
    Sftp,
}

fn length(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

impl Desk {
    async fn attend(mut self, mut channel: Channel<Msg>) {
        let id = channel.id();
        loop {
            let wanted = match channel.wait().await {
                Some(ChannelMsg::RequestPty { term, col_width, row_height, .. }) => {
                    self.terminal = Some(Io::Terminal { columns: length(col_width), rows: length(row_height) });
                    self.term = Some(term);
                    let _ = self.handle.channel_success(id).await;
                    continue;
                }
                Some(ChannelMsg::Exec { command, .. }) => Wanted::Line(command),
                Some(ChannelMsg::RequestShell { .. }) => Wanted::Shell,
                Some(ChannelMsg::RequestSubsystem { name, .. }) if name == "sftp" => Wanted::Sftp,
                Some(ChannelMsg::RequestSubsystem { .. } | ChannelMsg::SetEnv { .. }) => {
                    let _ = self.handle.channel_failure(id).await;
                    continue;
                }
                Some(ChannelMsg::Close) | None => return,
                Some(_) => continue,
            };
            let Some(begun) = self.begin(wanted).await else {
                let _ = self.handle.channel_failure(id).await;
                continue;
            };
            let _ = self.handle.channel_success(id).await;
            let (reads, writes) = channel.split();
            match begun {
                Begun::Running(running) => self.run(*running, reads, writes).await,
                Begun::Ended { code, stderr } => {
                    let _ = writes.extended_data_bytes(1, stderr.into_bytes()).await;
                    let _ = writes.exit_status(u32::try_from(code).unwrap_or(255)).await;
                    let _ = writes.eof().await;
                    let _ = writes.close().await;
                }
            }
            return;
        }
    }

    async fn begin(&self, wanted: Wanted) -> Option<Begun> {
        let machine = ready(&self.world, &self.id).await?;
        self.world.gateway_runs.fetch_add(1, Ordering::Relaxed);
        let mut options = self.world.options.clone();
        options.environment.extend(self.term.iter().map(|term| ("TERM".to_owned(), term.clone())));
        let io = self.terminal.unwrap_or(Io::Pipes);
        let begun = tokio::task::spawn_blocking(move || match wanted {
            Wanted::Line(line) => shell_line(&machine, &options, &line, io).ok(),
            Wanted::Shell => run(&machine, &options, "bash".into(), vec!["--login".into()], io).ok(),
            Wanted::Sftp => {
                let server = SFTP.iter().find(|path| std::path::Path::new(path).exists())?;
                run(&machine, &options, server.into(), Vec::new(), Io::Pipes).ok()
            }
        });
        begun.await.ok()?
    }

    async fn run(&self, mut running: Running, mut reads: ChannelReadHalf, writes: ChannelWriteHalf<Msg>) {
        let (sender, input) = mpsc::unbounded_channel();
        let mut sender = Some(sender);
        if let Some(stdin) = running.stdin.take() {
            tokio::spawn(feed(stdin, input));
        }
        let terminal = running.terminal().cloned();
        let out = show(running.stdout.take(), writes.make_writer());
        let err = show(running.stderr.take(), writes.make_writer_ext(Some(1)));
        let mut shown = std::pin::pin!(async { tokio::join!(out, err) });
        let (mut ended, mut drained) = (None, false);
        while ended.is_none() || !drained {
            if terminal.is_some() && ended.is_some() {
                let _ = timeout(LAST_WORDS, &mut shown).await;
                break;
            }
            tokio::select! {
                status = running.wait(), if ended.is_none() => ended = Some(status),
                _ = &mut shown, if !drained => drained = true,
                message = reads.wait() => match message {
                    Some(ChannelMsg::Data { data }) => {
                        if let Some(sender) = &sender {
                            let _ = sender.send(data);
                        }
                    }
                    Some(ChannelMsg::Eof) => sender = None,
                    Some(ChannelMsg::WindowChange { col_width, row_height, .. }) => {
                        if let Some(terminal) = &terminal {
                            let _ = terminal.resize(length(col_width), length(row_height));
                        }
                    }
                    Some(ChannelMsg::Signal { signal }) => running.signal(signal_number(&signal)),
                    Some(ChannelMsg::Close) | None => {
                        running.hang_up();
                        return;
                    }
                    Some(_) => {}
                },
            }
        }
        if let Some(Ok(status)) = ended {
            self.tell(status, &writes).await;
        }
        let _ = writes.eof().await;
        let _ = writes.close().await;
    }

    async fn tell(&self, status: ExitStatus, writes: &ChannelWriteHalf<Msg>) {
        if let Some(signal) = status.signal() {
            let dumped = status.core_dumped();
            let empty = String::new;
            let _ = self.handle.exit_signal_request(writes.id(), signal_of(signal), dumped, empty(), empty()).await;
        } else {
            let code = status.code().and_then(|code| u32::try_from(code).ok()).unwrap_or(255);
            let _ = writes.exit_status(code).await;
        }
    }
}

async fn feed<T: AsRef<[u8]>>(mut stdin: impl AsyncWrite + Unpin, mut input: mpsc::UnboundedReceiver<T>) {
    while let Some(bytes) = input.recv().await {
        // A command that does not read any more is not to be waited for.
        if stdin.write_all(bytes.as_ref()).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

async fn show(output: Option<impl AsyncRead + Unpin>, mut channel: impl AsyncWrite + Unpin) {
    if let Some(mut output) = output {
        // A client that has gone is noticed where messages are read.
        let _ = tokio::io::copy(&mut output, &mut channel).await;
    }
}

/// The signals that RFC 4254 names, by their numbers on Linux.
const SIGNALS: [(i32, Sig); 12] = [
    (1, Sig::HUP),
    (2, Sig::INT),
    (3, Sig::QUIT),
    (4, Sig::ILL),
    (6, Sig::ABRT),
    (8, Sig::FPE),
    (9, Sig::KILL),
    (10, Sig::USR1),
    (11, Sig::SEGV),
    (13, Sig::PIPE),
    (14, Sig::ALRM),
    (15, Sig::TERM),
];

fn signal_of(number: i32) -> Sig {
    let known = SIGNALS.iter().find(|(candidate, _)| *candidate == number);
    known.map_or_else(|| Sig::Custom(format!("{number}@linux")), |(_, signal)| signal.clone())
}

fn signal_number(signal: &Sig) -> i32 {
    let name = format!("{signal:?}");
    SIGNALS.iter().find(|(_, candidate)| format!("{candidate:?}") == name).map_or(0, |(number, _)| *number)
}
