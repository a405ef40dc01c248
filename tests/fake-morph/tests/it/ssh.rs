//! The SSH gateway, by the library's client; by OpenSSH's where it is installed.

use std::process::Command;
use std::sync::Arc;

use pcoder_fake_morph::FakeMorph;
use russh::client::{AuthResult, Config, Handle, Handler, Msg, connect};
use russh::keys::ssh_key::PublicKey;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg};
use russh::{Channel, ChannelMsg, Sig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::client::{KEY, LONG, call, fake, get, output, post, start};

/// Takes the gateway's host key and no other.
struct Known(String);

impl Handler for Known {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let russh::keys::PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        Ok(PublicKey::from_openssh(&self.0).unwrap().key_data() == key.key_data())
    }
}

async fn reach(fake: &FakeMorph) -> Handle<Known> {
    let known = Known(fake.ssh_host_key().to_owned());
    connect(Arc::new(Config::default()), fake.ssh_address(), known).await.expect("the gateway answers")
}

async fn with_password(fake: &FakeMorph, user: &str, password: &str) -> Option<Handle<Known>> {
    let mut session = reach(fake).await;
    let result = session.authenticate_password(user, password).await.unwrap();
    matches!(result, AuthResult::Success).then_some(session)
}

async fn with_key(fake: &FakeMorph, user: &str, key: PrivateKey) -> Option<Handle<Known>> {
    let mut session = reach(fake).await;
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let result = session.authenticate_publickey(user, key).await.unwrap();
    matches!(result, AuthResult::Success).then_some(session)
}

fn any_key() -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

async fn login(fake: &FakeMorph, id: &str) -> Handle<Known> {
    with_key(fake, &format!("{id}:{KEY}"), any_key()).await.expect("a login")
}

#[derive(Debug, Default, PartialEq)]
struct Done {
    out: String,
    err: String,
    status: Option<u32>,
    signal: Option<String>,
}

async fn finish(channel: &mut Channel<Msg>) -> Done {
    let mut done = Done::default();
    while let Some(message) = timeout(LONG, channel.wait()).await.expect("in time") {
        match message {
            ChannelMsg::Data { data } => done.out.push_str(&String::from_utf8_lossy(&data)),
            ChannelMsg::ExtendedData { data, ext: 1 } => done.err.push_str(&String::from_utf8_lossy(&data)),
            ChannelMsg::ExitStatus { exit_status } => done.status = Some(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => done.signal = Some(format!("{signal_name:?}")),
            _ => {}
        }
    }
    done
}

async fn exec(session: &Handle<Known>, line: &str) -> Channel<Msg> {
    let channel = session.channel_open_session().await.unwrap();
    channel.exec(true, line).await.unwrap();
    channel
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_key_the_token_or_a_registered_key_is_let_in() {
    let fake = fake().await;
    let id = start(&fake).await;
    let keys = get(&fake, &format!("/instance/{id}/ssh/key")).await;
    let field = |name: &str| keys[name].as_str().unwrap().to_owned();
    let own = PrivateKey::from_openssh(field("private_key")).unwrap();
    let registered = any_key();
    let public = serde_json::json!({ "public_key": registered.public_key().to_openssh().unwrap() }).to_string();
    assert_eq!(call(&fake, "PUT", "/user/ssh-key", &public).await.status, 200);

    assert!(with_password(&fake, &format!("{id}:{KEY}"), "anything").await.is_some());
    assert!(with_key(&fake, &format!("{id}:{KEY}"), any_key()).await.is_some());
    assert!(with_key(&fake, &field("access_token"), any_key()).await.is_some());
    assert!(with_password(&fake, &id, &field("password")).await.is_some());
    assert!(with_key(&fake, &id, own).await.is_some());
    assert!(with_key(&fake, &id, registered).await.is_some());

    assert!(with_key(&fake, &format!("{id}:wrong"), any_key()).await.is_none());
    assert!(with_key(&fake, &format!("morphvm_nope:{KEY}"), any_key()).await.is_none());
    assert!(with_key(&fake, &id, any_key()).await.is_none());
    assert!(with_password(&fake, &id, "wrong").await.is_none());
    post(&fake, &format!("/instance/{id}/ssh/key"), "").await;
    assert!(with_key(&fake, &field("access_token"), any_key()).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_ready_instance_is_entered_and_a_paused_one_wakes_if_it_is_to() {
    let fake = fake().await;
    let id = start(&fake).await;
    post(&fake, &format!("/instance/{id}/pause"), "").await;
    assert!(with_key(&fake, &format!("{id}:{KEY}"), any_key()).await.is_none());
    post(&fake, &format!("/instance/{id}/wake-on"), r#"{"wake_on_ssh":true}"#).await;
    let session = login(&fake, &id).await;
    assert_eq!(get(&fake, &format!("/instance/{id}")).await["status"], "ready");
    call(&fake, "DELETE", &format!("/instance/{id}"), "").await;
    assert!(with_key(&fake, &format!("{id}:{KEY}"), any_key()).await.is_none());
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, "true").await.unwrap();
    assert!(matches!(timeout(LONG, channel.wait()).await.unwrap(), Some(ChannelMsg::Failure)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_two_outputs_a_status_and_a_signal() {
    let fake = fake().await;
    let id = start(&fake).await;
    let session = login(&fake, &id).await;
    let done = finish(&mut exec(&session, "echo $HOME $PWD; echo err >&2; exit 7").await).await;
    let expected = Done { out: "/root /root\n".into(), err: "err\n".into(), status: Some(7), signal: None };
    assert_eq!(done, expected);
    let done = finish(&mut exec(&session, "kill -TERM $$").await).await;
    assert_eq!((done.status, done.signal.as_deref()), (None, Some("TERM")));
    // More than a window in either direction, at once.
    let mut channel = exec(&session, "cat | tee copy").await;
    let bytes = "0123456789abcdef".repeat(300_000);
    let (reads, writes) = channel.split();
    let sent = bytes.clone();
    tokio::spawn(async move {
        writes.data(sent.as_bytes()).await.unwrap();
        writes.eof().await.unwrap();
    });
    let mut reads = reads;
    let mut received = Vec::new();
    while let Some(message) = timeout(LONG, reads.wait()).await.unwrap() {
        if let ChannelMsg::Data { data } = message {
            received.extend_from_slice(&data);
        }
    }
    assert!(received == bytes.as_bytes(), "{} of {}", received.len(), bytes.len());
    assert_eq!(output(&fake, &id, "wc -c <copy").await, format!("{}\n", bytes.len()));
    channel = exec(&session, "trap 'echo caught; exit 3' INT; echo on; while :; do sleep 0.01; done").await;
    assert!(matches!(timeout(LONG, channel.wait()).await.unwrap(), Some(ChannelMsg::Success)));
    assert!(matches!(timeout(LONG, channel.wait()).await.unwrap(), Some(ChannelMsg::Data { .. })));
    channel.signal(Sig::INT).await.unwrap();
    let done = finish(&mut channel).await;
    assert_eq!((done.out.as_str(), done.status), ("caught\n", Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_follows_the_window() {
    let fake = fake().await;
    let id = start(&fake).await;
    let session = login(&fake, &id).await;
    let mut channel = session.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm-256color", 90, 30, 0, 0, &[]).await.unwrap();
    let line = "trap 'stty size; exit 4' WINCH; echo $TERM; stty size; while :; do sleep 0.01; done";
    channel.exec(true, line).await.unwrap();
    let mut out = String::new();
    while !out.contains("30 90\r\n") {
        if let Some(ChannelMsg::Data { data }) = timeout(LONG, channel.wait()).await.unwrap() {
            out.push_str(&String::from_utf8_lossy(&data));
        }
    }
    assert!(out.starts_with("xterm-256color\r\n"), "{out}");
    channel.window_change(100, 40, 0, 0).await.unwrap();
    let done = finish(&mut channel).await;
    assert_eq!((done.out.as_str(), done.status), ("40 100\r\n", Some(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_on_a_terminal_is_interactive_and_hangs_up_with_its_client() {
    let fake = fake().await;
    let id = start(&fake).await;
    let session = login(&fake, &id).await;
    let mut channel = session.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.request_shell(true).await.unwrap();
    channel.data(&b"echo $((6 * 7)); exit 5\n"[..]).await.unwrap();
    let done = finish(&mut channel).await;
    assert!(done.out.contains("42") && done.status == Some(5), "{done:?}");

    let channel = session.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.exec(true, "trap 'echo gone >hung; exit' HUP; echo on >there; while :; do sleep 0.01; done").await.unwrap();
    output(&fake, &id, "until [ -s there ]; do sleep 0.01; done").await;
    channel.close().await.unwrap();
    assert_eq!(output(&fake, &id, "until [ -s hung ]; do sleep 0.01; done; cat hung").await, "gone\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_the_instance_are_forwarded() {
    let fake = fake().await;
    let id = start(&fake).await;
    let session = login(&fake, &id).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut reads, mut writes) = stream.split();
        tokio::io::copy(&mut reads, &mut writes).await.unwrap();
    });
    let channel = session.channel_open_direct_tcpip("localhost", port.into(), "127.0.0.1", 1).await.unwrap();
    let mut stream = channel.into_stream();
    stream.write_all(b"there and back").await.unwrap();
    let mut back = [0; 14];
    timeout(LONG, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"there and back");
    assert!(session.channel_open_direct_tcpip("example.com", 80, "127.0.0.1", 1).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn open_ssh_logs_in() {
    let fake = fake().await;
    let id = start(&fake).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (key, known, address) = (path("key"), path("known"), fake.ssh_address());
    any_key().write_openssh_file(&key, russh::keys::ssh_key::LineEnding::LF).unwrap();
    std::fs::write(&known, format!("[127.0.0.1]:{} {}\n", address.port(), fake.ssh_host_key())).unwrap();
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-i", &key, "-l", &format!("{id}:{KEY}"), "-p", &address.port().to_string()]);
    command.args([
        "-o",
        &format!("UserKnownHostsFile={known}"),
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "BatchMode=yes",
    ]);
    command.args(["127.0.0.1", "echo over; exit 6"]);
    let output = match tokio::task::spawn_blocking(move || command.output()).await.unwrap() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "no OpenSSH: {error}");
            eprintln!("skipped: no OpenSSH: {error}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((&*output.stdout, output.status.code()), (&b"over\n"[..], Some(6)), "{said}");
}
