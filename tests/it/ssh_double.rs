//! An SSH server for what OpenSSH's does not do: it knows a password without an account, and it misbehaves on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::keys::decode_secret_key;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, run_stream};
use russh::{Channel, ChannelId, Sig};
use tokio::net::TcpListener;

use crate::sshd::key;

/// The server. It ends with the test's runtime.
pub struct Double {
    pub port: u16,
    logins: Arc<AtomicUsize>,
}

impl Double {
    /// Lets `user` in with this password, with the private key `other` as its host key.
    pub async fn start(password: &str) -> Self {
        let host_key = decode_secret_key(&key("other"), None).expect("a key");
        let config =
            Arc::new(Config { keys: vec![host_key], auth_rejection_time: Default::default(), ..Config::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let logins = Arc::new(AtomicUsize::new(0));
        let (password, count) = (password.to_owned(), Arc::clone(&logins));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let guest = Guest { password: password.clone(), logins: Arc::clone(&count) };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = run_stream(config, stream, guest).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { port, logins }
    }

    /// Logins so far.
    pub fn logins(&self) -> usize {
        self.logins.load(Ordering::Relaxed)
    }
}

struct Guest {
    password: String,
    logins: Arc<AtomicUsize>,
}

impl Handler for Guest {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        if user == "user" && password == self.password {
            self.logins.fetch_add(1, Ordering::Relaxed);
            return Ok(Auth::Accept);
        }
        Ok(Auth::reject())
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    /// The command says how it misbehaves.
    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match String::from_utf8_lossy(line).trim_start_matches("exec ") {
            "refuse" => session.channel_failure(channel)?,
            "vanish" => {
                session.channel_success(channel)?;
                session.close(channel)?;
            }
            // What keeps a long command line and says where: it never ends saying so.
            keeping if keeping.starts_with("umask") => {
                session.channel_success(channel)?;
                let client = session.handle();
                tokio::spawn(async move { while client.data(channel, vec![b'/'; 32 << 10]).await.is_ok() {} });
            }
            signal => {
                session.channel_success(channel)?;
                session.exit_signal_request(channel, Sig::Custom(signal.to_owned()), false, &self.password, "")?;
                session.close(channel)?;
            }
        }
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }
}
