//! How a connection is opened: dialled, compared with the host key that it must have, logged in.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pcoder_service::passing::Outputs;
use russh::client::{self, ChannelOpenHandle, Handle, Handler, Msg, Session};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, decode_secret_key};
use russh::{AlgorithmKind, Channel, Preferred};
use russh_sftp::client::SftpSession;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OnceCell;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use url::Url;

use super::back::Ways;
use super::failed;
use super::keeper::{self, Machine, SshKeepers};
use crate::bindings::host::pcoder::plugin::ssh::Endpoint;
use crate::call::HostKeys;
use crate::capability::secrets::Place;
use crate::error::{Error, code};
use crate::gate::Gate;
use crate::host::dial::{self, CONNECT, Stream, dial};
use crate::host::stdio::Passed;
use crate::process::Processes;
use crate::secrets::Broker;

const OPERATION: &str = "ssh.connect";

/// The kinds of key that are accepted of a machine that is seen for the first time, the best one first.
const KINDS: [Algorithm; 4] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// Where machines of this host are.
pub(super) const HERE: &str = "127.0.0.1";

/// How long the other side may take to agree on keys, and then to let somebody in.
pub(super) const LOGIN: Duration = Duration::from_secs(30);
/// A connection that was quiet for so long is asked whether it is still there, and given up after as many questions.
const QUIET: Duration = Duration::from_secs(15);
const QUESTIONS: usize = 4;
/// What the other side may send on a channel before somebody takes it.
pub(super) const WINDOW: u32 = 1 << 20;
pub(super) const PACKETS: usize = 32;

/// A connection as a call holds it. It is cut when this is dropped, whoever else uses it.
pub(crate) struct Connected {
    endpoint: Endpoint,
    /// Its other end is a keeper.
    is_kept: bool,
    connection: Arc<Connection>,
    _cut: DropGuard,
}

impl Connected {
    pub(super) fn leads_to(&self, endpoint: &Endpoint) -> bool {
        self.endpoint == *endpoint
    }

    /// Whether its other end is a keeper.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The connection, unless it was lost.
    pub(super) fn usable(&self) -> Option<Arc<Connection>> {
        (!self.connection.handle.is_closed()).then(|| self.connection())
    }

    pub(super) fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }
}

/// An open connection, logged in.
pub(super) struct Connection {
    pub(super) handle: Handle<Expected>,
    /// Opened with the first file.
    pub(super) files: OnceCell<SftpSession>,
    /// What the other side may open.
    pub(super) ways: Ways,
    /// Which outputs the other side has.
    passed: Mutex<Passed>,
    /// Cancelled when it is not there any more.
    pub(super) ended: CancellationToken,
}

impl Connection {
    /// The outputs that the other side has, and writes to when a session asks for that: the first one.
    pub(super) fn take_passed(&self) -> Passed {
        std::mem::take(&mut *self.passed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whose connection it may be.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    /// Who knows the keys of machines that were seen before.
    pub(super) known: Option<&'a dyn HostKeys>,
    /// Those who keep connections, where one of theirs will do.
    pub(super) keepers: Option<&'a SshKeepers>,
    /// Those who are ended with calls; keepers are not among them.
    pub(super) processes: &'a Processes,
    /// Outputs that a keeper may write to itself.
    pub(super) outputs: &'a Outputs,
}

/// Opens a connection.
pub(super) async fn connect(
    gate: &Arc<Gate>,
    secrets: &Broker,
    from: From<'_>,
    endpoint: &Endpoint,
    url: &Url,
) -> Result<Connected, Error> {
    let From { known, keepers, processes, outputs } = from;
    let key = expected(known, endpoint, url)?;
    // Decided before anything is dialled: without the secret there is nothing to say.
    let place = Place::Request(url.clone());
    let user = secrets.fill(&endpoint.user, &place, false, gate)?.into_owned();
    let credential = secrets.fill(&endpoint.credential, &place, false, gate)?.into_owned();
    if let (Some(keepers), Some(machine)) = (keepers, machine_here(endpoint, key.as_ref(), &user, &credential)) {
        let permit = dial::permit(gate, url, IpAddr::V4(Ipv4Addr::LOCALHOST))?;
        if let Some(connected) = kept(keepers, (processes, outputs), &machine, endpoint, url).await {
            return permit.finish(0, Ok(connected));
        }
        drop(permit.finish::<()>(0, Err(Error::new(code::UNAVAILABLE, OPERATION, "nobody keeps a connection"))));
    }
    let stream = dial(gate, None, url, CONNECT).await?;
    let login = Login { host: &endpoint.host, port: endpoint.port, url, user: &user, credential, is_own_socket: false };
    let (connection, cut) = open(stream, key, known, login).await?;
    Ok(Connected { endpoint: endpoint.clone(), is_kept: false, connection: Arc::new(connection), _cut: cut })
}

/// The machine that this leads to, where it is on this host and a private key opens it.
fn machine_here(endpoint: &Endpoint, key: Option<&PublicKey>, user: &str, credential: &str) -> Option<Machine> {
    let here = endpoint.host == HERE && credential.contains("-----BEGIN ");
    let mut host_key = key.filter(|_| here)?.clone();
    host_key.set_comment("");
    Some(Machine {
        port: endpoint.port,
        user: user.to_owned(),
        host_key: host_key.to_openssh().ok()?,
        private_key: credential.to_owned(),
    })
}

/// A connection that a keeper has.
async fn kept(
    keepers: &SshKeepers,
    (processes, outputs): (&Processes, &Outputs),
    machine: &Machine,
    endpoint: &Endpoint,
    url: &Url,
) -> Option<Connected> {
    let (stream, proof) = keepers.reach(processes, machine, outputs).await?;
    let login = Login {
        host: &endpoint.host,
        port: endpoint.port,
        url,
        user: keeper::USER,
        credential: proof.password.clone(),
        is_own_socket: true,
    };
    let (mut connection, cut) = open(stream, Some(proof.host_key()), None, login).await.ok()?;
    connection.passed = Mutex::new(Passed::of(outputs));
    Some(Connected { endpoint: endpoint.clone(), is_kept: true, connection: Arc::new(connection), _cut: cut })
}

/// What both ends of a socket agree on that this host's other users cannot reach: nothing need be encrypted there, and
/// what a command says is much. On Windows anybody may be between them.
pub(super) fn within_this_host() -> Preferred {
    let all = Preferred::default();
    if cfg!(windows) {
        return all;
    }
    let first = std::iter::once(russh::cipher::NONE);
    let mac = std::iter::once(russh::mac::NONE);
    Preferred {
        cipher: first.chain(all.cipher.iter().copied()).collect(),
        mac: mac.chain(all.mac.iter().copied()).collect(),
        ..all
    }
}

/// What every client agrees on with the other side, whose key is of one of these kinds. What never leaves this host need not
/// be safe from computers that nobody has yet, and the processor of a machine here may be emulated.
fn config(kinds: Vec<Algorithm>, host: &str, is_own_socket: bool) -> Arc<client::Config> {
    let mut kex = Preferred::DEFAULT.kex.into_owned();
    if host == HERE {
        kex.sort_by_key(|it| *it != russh::kex::CURVE25519);
    }
    let own = if is_own_socket { within_this_host() } else { Preferred::default() };
    Arc::new(client::Config {
        preferred: Preferred { key: Cow::Owned(kinds), kex: Cow::Owned(kex), ..own },
        keepalive_interval: Some(QUIET),
        keepalive_max: QUESTIONS,
        window_size: WINDOW,
        channel_buffer_size: PACKETS,
        ..client::Config::default()
    })
}

/// Who logs in, and where.
pub(super) struct Login<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// The same for people.
    pub(super) url: &'a Url,
    pub(super) user: &'a str,
    pub(super) credential: String,
    /// The stream is a socket that this user alone reaches.
    pub(super) is_own_socket: bool,
}

/// Agrees on keys with the other side of a stream, and logs in. The connection is cut when the guard is dropped.
pub(super) async fn open(
    stream: impl Stream,
    key: Option<PublicKey>,
    known: Option<&dyn HostKeys>,
    login: Login<'_>,
) -> Result<(Connection, DropGuard), Error> {
    let Login { host, port, url, user, credential, is_own_socket } = login;
    let token = CancellationToken::new();
    let stream = Cuttable::new(stream, &token);
    let (cut, guard) = (token.clone(), token.drop_guard());
    // The other side may have several keys. The one that is known proves who it is.
    let kinds = match &key {
        Some(key) => vec![key.algorithm()],
        None => KINDS.to_vec(),
    };
    let first_seen = Arc::new(OnceLock::new());
    let (ways, ended) = (Ways::default(), CancellationToken::new());
    let handler = Expected {
        key,
        first_seen: Arc::clone(&first_seen),
        ways: ways.clone(),
        cut,
        _ended: ended.clone().drop_guard(),
    };
    let login = async {
        let mut handle =
            client::connect_stream(config(kinds, host, is_own_socket), stream, handler).await.map_err(|error| {
                match error {
                    russh::Error::UnknownKey | russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. } => {
                        not_that_one(url)
                    }
                    error => failed(OPERATION, &error).subject(url.as_str()),
                }
            })?;
        // Kept before anything is said that only the right machine may hear.
        if let (Some(known), Some(seen)) = (known, first_seen.get()) {
            known.learn(host, port, seen)?;
        }
        log_in(&mut handle, user, credential).await.map_err(|error| error.subject(url.as_str()))?;
        Ok::<_, Error>(handle)
    };
    let handle = tokio::time::timeout(LOGIN, login)
        .await
        .map_err(|_| Error::new(code::TIMEOUT, OPERATION, "no login in time").subject(url.as_str()))??;
    Ok((Connection { handle, files: OnceCell::new(), ways, passed: Mutex::default(), ended }, guard))
}

/// The key that the other side must have: the plugin's word, or what was kept of the first time. Nothing when it is seen
/// for the first time.
fn expected(known: Option<&dyn HostKeys>, endpoint: &Endpoint, url: &Url) -> Result<Option<PublicKey>, Error> {
    let invalid = |message: &str| Error::new(code::INVALID, OPERATION, message).subject(url.as_str());
    let line = match (endpoint.host_key.trim(), known) {
        ("", Some(known)) => match known.known(&endpoint.host, endpoint.port)? {
            Some(line) => line,
            None => return Ok(None),
        },
        ("", None) => {
            let message = "the plugin does not know the host key, and this program keeps none";
            return Err(invalid(message));
        }
        (line, _) => line.to_owned(),
    };
    let key = PublicKey::from_openssh(line.trim())
        .map_err(|_| invalid("the host key is not one line of OpenSSH's public key format"))?;
    if !matches!(key.algorithm(), Algorithm::Ed25519 | Algorithm::Ecdsa { .. }) {
        return Err(Error::new(code::UNSUPPORTED, OPERATION, "the host key must be of the kind ed25519 or ecdsa")
            .subject(url.as_str())
            .hint("`ssh-keyscan -t ed25519 HOST` shows whether the other side has one"));
    }
    Ok(Some(key))
}

fn not_that_one(url: &Url) -> Error {
    Error::new(code::DENIED, OPERATION, "the host key is not the one that this machine must have")
        .subject(url.as_str())
        .hint("it may be another machine, or one that was made anew; `ssh-keyscan` shows the key that it has")
}

async fn log_in(handle: &mut Handle<Expected>, user: &str, credential: String) -> Result<(), Error> {
    let answer = if credential.is_empty() {
        // The user name is the login. The protocol wants a key all the same, and any will do.
        let key = super::key::random_key(OPERATION)?;
        handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::new(key), None)).await
    } else if credential.contains("-----BEGIN ") {
        let key = decode_secret_key(&credential, None).map_err(|_| {
            Error::new(code::UNAUTHENTICATED, OPERATION, "the private key cannot be read")
                .hint("it must be an ed25519 or ecdsa key in OpenSSH's format, without a passphrase")
        })?;
        handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::new(key), None)).await
    } else {
        handle.authenticate_password(user, credential).await
    };
    match answer {
        Ok(answer) if answer.success() => Ok(()),
        Ok(_) => Err(Error::new(code::UNAUTHENTICATED, OPERATION, "the other side refused the login")
            .hint("check the user name, and the key or the password that the plugin names")),
        Err(error) => Err(failed(OPERATION, &error)),
    }
}

/// The host key that the other side must have, or the first one that it is seen with.
pub(super) struct Expected {
    key: Option<PublicKey>,
    first_seen: Arc<OnceLock<String>>,
    ways: Ways,
    cut: CancellationToken,
    _ended: DropGuard,
}

impl Handler for Expected {
    type Error = russh::Error;

    async fn check_server_key(&mut self, theirs: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        if theirs.certificate().is_some() {
            return Ok(false);
        }
        match &self.key {
            // A comment belongs to the line, not to the key.
            Some(key) => Ok(theirs.public_key().key_data() == key.key_data()),
            None => match PublicKey::from(theirs.public_key().key_data().clone()).to_openssh() {
                Ok(line) => Ok(self.first_seen.set(line).is_ok()),
                Err(_) => Ok(false),
            },
        }
    }

    // russh takes what a server wants to open here, unless it is told. But for ports that lead back, nothing is.

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ways.carry(channel, port, reply, self.cut.clone()).await;
        Ok(())
    }
}

/// A stream that can be ended from outside: russh reads it in a task of its own, which must not outlive the call.
pub(super) struct Cuttable<S> {
    stream: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Cuttable<S> {
    /// Which ends with this token.
    pub(super) fn new(stream: S, token: &CancellationToken) -> Self {
        Self { stream, cut: Box::pin(token.clone().cancelled_owned()) }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
