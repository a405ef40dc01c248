//! SSH to where it may not go, with logins that are not the plugin's, and what outlives nobody.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use pcoder_runtime::Error;
use pcoder_runtime::call::CallContext;
use pcoder_runtime::contract::{Command, CommandSpec, ExitStatus, Setting};
use pcoder_runtime::host::stdio::{Input, Output, Stdio};
use pcoder_tests::{Grant, House, SEPARATOR, argv};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::{assert_nowhere, code};
use crate::double::secrets;
use crate::logs;
use crate::ssh_double::Double;
use crate::sshd::{Server, key};
use crate::streams::{nothing, piped, read_line, read_to_end};

fn context() -> CallContext {
    CallContext::default()
}

/// Granted: this URL, and these kinds of address.
fn granted(url: &str, addresses: &str) -> House {
    House::provider(&format!("[[net]]\nurl = \"{url}\"\naddresses = [{addresses}]\n"), Grant::All)
}

fn home(server: &Server) -> House {
    granted(&server.url(), "\"loopback\"")
}

/// Runs a command there with this login.
async fn exec(
    house: &House,
    context: CallContext,
    endpoint: &[String; 5],
    spec: &CommandSpec,
    stdio: Stdio,
) -> Result<ExitStatus, Error> {
    let id = format!("ssh{SEPARATOR}{}", endpoint.join(SEPARATOR));
    house.plugin.provider().expect("a provider").exec(context, &id, spec, stdio).await
}

/// One step there.
async fn step(house: &House, verb: &str, endpoint: &[String; 5], args: &[&str]) -> String {
    let step: Vec<&str> =
        std::iter::once(verb).chain(endpoint.iter().map(String::as_str)).chain(args.iter().copied()).collect();
    house.step(context(), &step).await
}

fn shell(script: &str) -> CommandSpec {
    CommandSpec { command: Command::Shell(script.to_owned()), ..argv("sh", &[]) }
}

/// Streams with these bytes to read, and what is written to each of the outputs.
fn streams(input: &str) -> (Stdio, PipeReader, PipeReader) {
    let ((reader, mut writer), (stdout, out), (stderr, err)) =
        (pipe().expect("a pipe"), pipe().expect("a pipe"), pipe().expect("a pipe"));
    let input = input.to_owned();
    std::thread::spawn(move || writer.write_all(input.as_bytes()));
    (Stdio::new(Input::Pipe(reader), Output::Pipe(out), Output::Pipe(err)), stdout, stderr)
}

/// Output in a pipe, and an input that stays open for as long as somebody holds its other end.
fn open_streams() -> (Stdio, PipeReader, PipeWriter) {
    let ((reader, writer), (stdout, out)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    (Stdio::new(Input::Pipe(reader), Output::Pipe(out), Output::Null), stdout, writer)
}

#[tokio::test]
async fn what_was_granted_is_reached_and_nothing_beside_it() {
    let (server, other) = (Server::start(), Server::start());
    let house = home(&server);
    let login = key("user");
    let there = server.endpoint(&login);
    let (stdio, reader) = piped();
    let status = exec(&house, context(), &there, &argv("echo", &["hi"]), stdio).await.expect("it runs");
    assert_eq!((status, read_to_end(reader).await.as_str()), (ExitStatus::Exited(0), "hi\n"));
    let elsewhere = |host: &str, port: u16| {
        let mut endpoint = server.endpoint(&login);
        (endpoint[0], endpoint[1]) = (host.to_owned(), port.to_string());
        endpoint
    };
    for endpoint in [
        other.endpoint(&login),
        elsewhere("localhost", server.port()),
        elsewhere("127.0.0.2", server.port()),
        elsewhere("::1", server.port()),
        elsewhere("127.0.0.1", 22),
        elsewhere("user@127.0.0.1", server.port()),
        elsewhere("127.0.0.1:22/", server.port()),
        elsewhere("", server.port()),
    ] {
        for (verb, args) in [
            ("ssh.read", &["/etc/passwd"][..]),
            ("ssh.write", &["/tmp/x", "x"]),
            ("ssh.capture", &["id"]),
            ("ssh.forward", &["22"]),
        ] {
            let answer = step(&house, verb, &endpoint, args).await;
            assert!(["denied", "invalid"].contains(&code(&answer)), "{endpoint:?}: {answer}");
        }
        let error = exec(&house, context(), &endpoint, &argv("true", &[]), nothing()).await.expect_err("refused");
        assert!(error.is("denied") || error.is("invalid"), "{error:?}");
    }
    // Another spelling of a granted address is the same address.
    assert_eq!(code(&step(&house, "ssh.read", &elsewhere("0x7f.1", server.port()), &["/etc/passwd"]).await), "ok");
    assert_eq!((server.connections(), other.connections()), (2, 0));
}

/// A grant for every port of an address is one for no other address, and for nothing but SSH.
#[tokio::test]
async fn every_port_is_every_port_of_that_address() {
    let (server, other) = (Server::start(), Server::start());
    let house = granted("ssh://127.0.0.1:*/", "\"loopback\"");
    for server in [&server, &other] {
        assert_eq!(code(&step(&house, "ssh.read", &server.endpoint(&key("user")), &["/etc/passwd"]).await), "ok");
    }
    let mut endpoint = server.endpoint(&key("user"));
    for host in ["127.0.0.2", "localhost", "::1"] {
        endpoint[0] = host.to_owned();
        assert_eq!(code(&step(&house, "ssh.read", &endpoint, &["/etc/passwd"]).await), "denied", "{host}");
    }
    let url = format!("http://127.0.0.1:{}/", server.port());
    assert_eq!(code(&house.step(context(), &["http", "GET", &url]).await), "denied");
}

/// What a command writes is kept up to the call's limit, and its input arrives whole.
#[tokio::test]
async fn a_captured_command_is_fed_and_bounded() {
    let server = Server::start();
    let house = home(&server);
    let there = server.endpoint(&key("user"));
    let answer = step(&house, "ssh.capture", &there, &["cat; echo err >&2; exit 3", "in"]).await;
    assert_eq!(answer, "ok ExitStatus::Exited(3) in err\n");
    let answer = step(&house, "ssh.capture", &there, &["yes"]).await;
    assert_eq!(code(&answer), "limit", "{answer}");
}

/// Dropbear takes 9,000 bytes. What a shell script's text may have, Linux says: 128 KiB.
#[tokio::test]
async fn a_command_line_that_is_longer_than_a_server_takes_arrives() {
    let server = Server::start();
    let house = home(&server);
    let there = server.endpoint(&key("user"));
    let script = format!("cat; echo {} | wc -c; exit 3", "x".repeat(100_000));
    let answer = step(&house, "ssh.capture", &there, &[&script, "in"]).await;
    assert_eq!(answer, "ok ExitStatus::Exited(3) in100001\n ");
}

#[tokio::test]
async fn the_public_half_of_a_key_is_for_who_may_log_in_with_it() {
    let request = "[[secrets]]\nname = \"LOGIN\"\nto = [\"ssh://127.0.0.1:*/\"]\n\
                   [[secrets]]\nname = \"OTHER\"\nto = [\"https://127.0.0.1/\"]\n\
                   [[secrets]]\nname = \"PASSWORD\"\nto = [\"ssh://127.0.0.1:*/\"]\n";
    let house = House::provider(request, Grant::All);
    let known = || CallContext {
        secrets: secrets(&[("LOGIN", &key("user")), ("OTHER", &key("user")), ("PASSWORD", "correct horse")]),
        ..context()
    };
    let ask = async |name: &str| house.step(known(), &["ssh.public-key", name]).await;
    let public = key("user.pub");
    let public: Vec<&str> = public.split(' ').take(2).collect();
    assert_eq!(ask("LOGIN").await, format!("ok {}", public.join(" ")));
    assert_eq!(code(&ask("OTHER").await), "denied");
    assert_eq!(code(&ask("").await), "invalid");
    let answer = ask("PASSWORD").await;
    assert!(code(&answer) == "unauthenticated" && !answer.contains("horse"), "{answer}");
}

#[tokio::test]
async fn special_addresses_need_a_grant_of_their_own_in_every_spelling() {
    let server = Server::start();
    let login = key("user");
    for host in
        ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "169.254.169.254"]
    {
        let mut endpoint = server.endpoint(&login);
        host.clone_into(&mut endpoint[0]);
        let spelled = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let house = granted(&format!("ssh://{spelled}:{}", server.port()), "");
        let answer = step(&house, "ssh.read", &endpoint, &["/etc/passwd"]).await;
        assert_eq!(code(&answer), "denied", "{host}: {answer}");
        let connections = house.effects().into_iter().filter(|(_, verb, _)| *verb == "connect").count();
        assert_eq!(connections, 0, "{host}");
    }
    let house = granted(&server.url(), "\"private\"");
    assert_eq!(code(&step(&house, "ssh.read", &server.endpoint(&login), &["/etc/passwd"]).await), "denied");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn only_the_machine_with_the_named_key_is_spoken_to() {
    let server = Server::start();
    let house = home(&server);
    // Of the same kind, and of a kind that the server has none of.
    for other in ["other.pub", "ecdsa.pub"] {
        let mut endpoint = server.endpoint(&key("user"));
        endpoint[4] = key(other);
        let answer = step(&house, "ssh.read", &endpoint, &["/etc/passwd"]).await;
        assert!(answer.starts_with("denied the host key is not the one"), "{other}: {answer}");
        assert!(answer.contains("`ssh-keyscan` shows"), "{answer}");
    }
    for nonsense in ["", "ssh-ed25519", "ssh-ed25519 AAAA", "*"] {
        let mut endpoint = server.endpoint(&key("user"));
        nonsense.clone_into(&mut endpoint[4]);
        assert_eq!(code(&step(&house, "ssh.read", &endpoint, &["/etc/passwd"]).await), "invalid", "{nonsense}");
    }
    // The comment is not a part of the key.
    let mut endpoint = server.endpoint(&key("user"));
    endpoint[4] = endpoint[4].replace(" test", " another comment");
    assert_eq!(code(&step(&house, "ssh.read", &endpoint, &["/etc/passwd"]).await), "ok");
}

#[tokio::test]
async fn a_login_that_is_refused_is_an_answer() {
    let server = Server::start();
    let house = home(&server);
    for credential in [key("other"), "a password".to_owned(), "-----BEGIN nonsense".to_owned()] {
        let answer = step(&house, "ssh.read", &server.endpoint(&credential), &["/etc/passwd"]).await;
        assert_eq!(code(&answer), "unauthenticated", "{answer}");
        assert!(!answer.contains(&credential), "{answer}");
    }
    house.goes_on().await;
}

#[tokio::test]
async fn a_login_goes_only_where_its_grant_says_and_does_not_come_back() {
    logs::capture();
    let server = Server::start();
    let value = key("user");
    let grants = |to: &str| {
        let url = server.url();
        format!("[[net]]\nurl = \"{url}\"\naddresses = [\"loopback\"]\n[[secrets]]\nname = \"KEY\"\nto = [\"{to}\"]\n")
    };
    let context = || CallContext { secrets: secrets(&[("KEY", &value)]), ..CallContext::default() };
    let folder = tempfile::tempdir().expect("a folder");
    let leak = folder.path().join("leak");
    std::fs::write(&leak, format!("it is {value}!")).expect("a file");
    let endpoint = server.endpoint("{0}");
    let path = leak.display().to_string();
    let mut read: Vec<&str> = vec!["ssh.read"];
    read.extend(endpoint.iter().map(String::as_str));
    read.push(&path);
    let get: &[&str] = &["secrets.get", "KEY"];
    let http = server.url().replace("ssh://", "http://");
    for elsewhere in ["ssh://127.0.0.1:1", "ssh://box.example.test", "target", "exec", &http] {
        let house = House::provider(&grants(elsewhere), Grant::All);
        let answers = house.script(context(), &[get, &read]).await.expect("the call");
        assert_eq!(code(&answers[1]), "denied", "{elsewhere}: {answers:?}");
        assert_nowhere(&value, &house, &answers);
    }
    assert_eq!(server.connections(), 0);
    let house = House::provider(&grants(&server.url()), Grant::All);
    let answers = house.script(context(), &[get, &read]).await.expect("the call");
    assert_eq!(answers[1], format!("ok it is {}!", answers[0].trim_start_matches("ok ")));
    assert_nowhere(&value, &house, &answers);
    // A login is no variable: what runs there could say it to whoever asks.
    let house = House::provider(&grants(&server.url()), Grant::All);
    let broker = secrets(&[("KEY", &value), ("OTHER", "x")]);
    let spec = argv("env", &[]);
    let context = CallContext { secrets: broker, ..CallContext::default() };
    let id = format!("ssh-env{SEPARATOR}{}", server.endpoint("secret:KEY").join(SEPARATOR));
    let (stdio, reader) = piped();
    let provider = house.plugin.provider().expect("a provider");
    let error = provider.exec(context, &id, &spec, stdio).await.expect_err("no grant leads there");
    assert!(error.is("denied"), "{error:?}");
    assert_eq!(read_to_end(reader).await, "");
    assert_nowhere(&value, &house, &[format!("{error:?}")]);
}

#[tokio::test]
async fn a_password_is_a_login_too_and_a_server_that_misbehaves_is_an_error() {
    logs::capture();
    let value = "s3cret-password-over-ssh-0202";
    let server = Double::start(value).await;
    let url = format!("ssh://127.0.0.1:{}", server.port);
    let request = format!(
        "[[net]]\nurl = \"{url}\"\naddresses = [\"loopback\"]\n[[secrets]]\nname = \"KEY\"\nto = [\"{url}\"]\n"
    );
    let house = House::provider(&request, Grant::All);
    let context = |value: &str| CallContext { secrets: secrets(&[("KEY", value)]), ..CallContext::default() };
    let endpoint =
        ["127.0.0.1".to_owned(), server.port.to_string(), "user".to_owned(), "secret:KEY".to_owned(), key("other.pub")];
    let run = async |value: &str, command: &str| {
        exec(&house, context(value), &endpoint, &argv(command, &[]), nothing()).await
    };
    assert!(run("another-password", "USR2").await.expect_err("a wrong password").is("unauthenticated"));
    assert_eq!(server.logins(), 0);
    assert_eq!(run(value, "USR2").await.expect("it ends"), ExitStatus::Signaled(12));
    for (command, code) in [("refuse", "unsupported"), ("vanish", "unavailable"), ("NONSENSE", "unavailable")] {
        let error = run(value, command).await.expect_err(command);
        assert!(error.is(code), "{command}: {error:?}");
        assert_nowhere(value, &house, &[format!("{error:?}")]);
    }
    // What it says of a line that is too long for one command is kept no longer than anything else.
    let long = exec(&house, context(value), &endpoint, &argv("true", &[&"x".repeat(9000)]), nothing()).await;
    assert!(long.expect_err("an answer without end").is("limit"));
    let mut read: Vec<&str> = vec!["ssh.read"];
    read.extend(endpoint.iter().map(String::as_str));
    read[4] = "{0}";
    read.push("/etc/passwd");
    let answers = house.script(context(value), &[&["secrets.get", "KEY"], &read]).await.expect("the call");
    assert!(answers[1].starts_with("unsupported the other side has no SFTP"), "{answers:?}");
    assert_nowhere(value, &house, &answers);
}

#[tokio::test]
async fn the_users_own_secrets_reach_the_users_own_command_and_no_other() {
    let value = "s3cret-of-the-user-over-ssh-0201";
    let server = Server::start();
    let house = home(&server);
    let endpoint = server.endpoint(&key("user"));
    for as_called in [true, false] {
        let broker = secrets(&[]);
        let placeholder = broker.issue_for_command("TOKEN", SecretString::from(value)).expect("a placeholder");
        let mut spec = shell("printf %s \"$TOKEN\"");
        spec.env = vec![Setting { name: "TOKEN".into(), value: placeholder }];
        let mut context = CallContext { secrets: broker, ..CallContext::default() };
        if as_called {
            context.called.command = Some(spec.clone());
        }
        let (stdio, reader) = piped();
        let result = exec(&house, context, &endpoint, &spec, stdio).await;
        let written = read_to_end(reader).await;
        if as_called {
            assert_eq!((result.expect("it runs"), written.as_str()), (ExitStatus::Exited(0), value));
        } else {
            assert!(result.expect_err("another command").is("denied"));
            assert_eq!(written, "");
        }
        assert!(!house.audit_text().contains(value));
    }
}

#[tokio::test]
async fn a_command_gets_its_words_its_surroundings_and_its_streams() {
    let server = Server::start();
    let house = home(&server);
    let endpoint = server.endpoint(&key("user"));
    let words = ["", "a b", "it's", "$(id)", "`id`", "\"", "\\", "a\nb", "*", "~", "é", "; exit 3"];
    let expected: String = words.iter().map(|word| format!("[{word}]")).collect();
    let (stdio, stdout, _) = streams("");
    let spec = argv("printf", &[&["[%s]"][..], &words[..]].concat());
    assert_eq!(exec(&house, context(), &endpoint, &spec, stdio).await.expect("it runs"), ExitStatus::Exited(0));
    assert_eq!(read_to_end(stdout).await, expected);

    let mut spec = shell("pwd; echo \"$VALUE\"; echo \"$PATH\"; cat; echo oops >&2; exit 7");
    spec.cwd = Some("/usr".to_owned());
    spec.env = vec![Setting { name: "VALUE".into(), value: "it's \"here\"".into() }];
    spec.path_entries = vec!["/first place".to_owned()];
    // More than a channel takes at once, so that it flows.
    let input = "x".repeat(5 << 20);
    let (stdio, stdout, stderr) = streams(&input);
    let run = exec(&house, context(), &endpoint, &spec, stdio);
    let (status, written, errors) = tokio::join!(run, read_to_end(stdout), read_to_end(stderr));
    assert_eq!(status.expect("it runs"), ExitStatus::Exited(7));
    assert!(written.starts_with("/usr\nit's \"here\"\n/first place:/"), "{}", &written[..80]);
    assert!(written.ends_with(&format!("\n{input}")));
    assert_eq!(errors, "oops\n");

    let status = exec(&house, context(), &endpoint, &shell("kill -KILL $$"), nothing()).await;
    assert_eq!(status.expect("it runs"), ExitStatus::Signaled(9));
    // What goes through the caller's own streams is not the plugin's to pay for.
    let small = format!("[[net]]\nurl = \"{}\"\naddresses = [\"loopback\"]\n[limits]\noutput-mib = 1\n", server.url());
    let house = House::provider(&small, Grant::All);
    let (stdio, stdout, _) = streams("");
    let spec = argv("head", &["-c", "4000000", "/dev/zero"]);
    let run = exec(&house, context(), &endpoint, &spec, stdio);
    let (status, written) = tokio::join!(run, read_to_end(stdout));
    assert_eq!((status.expect("it runs"), written.len()), (ExitStatus::Exited(0), 4_000_000));
}

#[tokio::test]
async fn files_are_written_read_and_bounded() {
    let server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let net = format!("[[net]]\nurl = \"{}\"\naddresses = [\"loopback\"]\n[limits]\noutput-mib = 1\n", server.url());
    let house = House::provider(&net, Grant::All);
    let endpoint = server.endpoint(&key("user"));
    let path = |name: &str| folder.path().join(name).display().to_string();
    let deep = path("a/b c/file");
    let answer = step(&house, "ssh.write", &endpoint, &[&deep, "text"]).await;
    assert_eq!(code(&answer), "not-found", "{answer}");
    assert_eq!(step(&house, "ssh.write", &endpoint, &[&deep, "text", "parents", "600"]).await, "ok ");
    assert_eq!(step(&house, "ssh.read", &endpoint, &[&deep]).await, "ok text");
    let mode = || std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&deep).expect("a file").permissions());
    assert_eq!(mode() & 0o777, 0o600);
    // In place: shorter, and with the new mode.
    assert_eq!(step(&house, "ssh.write", &endpoint, &[&deep, "t", "", "640"]).await, "ok ");
    assert_eq!((step(&house, "ssh.read", &endpoint, &[&deep]).await.as_str(), mode() & 0o777), ("ok t", 0o640));
    assert_eq!(code(&step(&house, "ssh.read", &endpoint, &[&path("nothing")]).await), "not-found");
    assert_ne!(code(&step(&house, "ssh.read", &endpoint, &[&path("a")]).await), "ok");
    // A file without an end, and one that is too large.
    assert_eq!(code(&step(&house, "ssh.read", &endpoint, &["/dev/zero"]).await), "limit");
    let large = "x".repeat(2 << 20);
    assert_eq!(code(&step(&house, "ssh.write", &endpoint, &[&path("large"), &large]).await), "limit");
    assert!(!folder.path().join("large").exists());
    house.goes_on().await;
}

#[tokio::test]
async fn a_call_has_one_connection_to_an_endpoint_and_connections_are_handles() {
    let server = Server::start();
    let endpoint = server.endpoint(&key("user"));
    let net = format!("[[net]]\nurl = \"{}\"\naddresses = [\"loopback\"]\n[limits]\nhandles = 8\n", server.url());
    let house = House::provider(&net, Grant::All);
    let mut read: Vec<&str> = vec!["ssh.read"];
    read.extend(endpoint.iter().map(String::as_str));
    read.push("/etc/passwd");
    let answers = house.script(context(), &[&read, &read, &read]).await.expect("the call");
    assert!(answers.iter().all(|it| code(it) == "ok"), "{answers:?}");
    assert_eq!(server.connections(), 1);
    let answer = step(&house, "ssh.forward.many", &endpoint, &["22", "20"]).await;
    assert!(answer.starts_with("limit ") && answer.contains("more handles than its limit of 8"), "{answer}");
    house.goes_on().await;
}

/// Makes a call and ends it once `until` is there; with a deadline, it ends by itself.
/// A free port of this machine, where nobody listens a moment later.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port()
}

/// What a command's user lets it reach on this host is reached by that command and by nothing that the plugin makes up.
#[tokio::test]
async fn the_users_own_command_reaches_this_host_where_its_user_says() {
    let server = Server::start();
    let house = home(&server);
    let there = server.endpoint(&key("user"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let back = pcoder_runtime::call::Back { port: free_port(), to: listener.local_addr().expect("a port").port() };
    let answers = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut asked = [0; 2];
            stream.read_exact(&mut asked).expect("a question");
            stream.write_all(b"yes\n").expect("an answer");
            assert_eq!(&asked, b"q\n");
        }
    });
    let ask = |port: u16| argv("bash", &["-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo q >&3 && cat <&3")]);
    let run = async |spec: &CommandSpec, called: CommandSpec| {
        let mut context = context();
        (context.called.command, context.called.back) = (Some(called), vec![back]);
        let (stdio, reader) = piped();
        let status = exec(&house, context, &there, spec, stdio).await.expect("it runs");
        (status, read_to_end(reader).await)
    };
    for _ in 0..2 {
        let spec = ask(back.port);
        assert_eq!(run(&spec, spec.clone()).await, (ExitStatus::Exited(0), "yes\n".to_owned()));
    }
    answers.join().expect("no panic");
    // The port is gone with the command, and it is not there for another one.
    let spec = ask(back.port);
    assert_eq!(run(&spec, argv("true", &[])).await.0, ExitStatus::Exited(1));
    // A port that somebody has there is not taken away.
    let taken = TcpListener::bind(("127.0.0.1", back.port)).expect("it is free again");
    let mut called = context();
    (called.called.command, called.called.back) = (Some(spec.clone()), vec![back]);
    let (lent, again) = nothing().lend();
    let error = exec(&house, called, &there, &spec, lent).await.expect_err("taken");
    assert!(error.is("conflict") && error.subject == Some(format!("127.0.0.1:{}", back.port)), "{error:?}");
    // The caller has the streams again, to try another port with.
    assert!(again.back().is_some());
    drop(taken);
}

async fn ended<T>(
    call: impl AsyncFnOnce(CallContext) -> Result<T, Error>,
    deadline: bool,
    until: impl Future<Output = ()>,
) {
    let cancel = CancellationToken::new();
    let context = CallContext {
        cancel: Some(cancel.clone()),
        deadline: deadline.then(|| Some(std::time::Duration::from_secs(2))),
        ..CallContext::default()
    };
    let stop = async {
        until.await;
        if !deadline {
            cancel.cancel();
        }
    };
    let (result, ()) = tokio::join!(call(context), stop);
    let Err(error) = result else { panic!("it ended by itself") };
    assert!(error.is(if deadline { "timeout" } else { "cancelled" }), "{error:?}");
}

async fn was_closed(server: &Arc<Server>) -> bool {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || server.was_closed()).await.expect("a thread")
}

#[tokio::test]
async fn a_command_does_not_keep_its_connection_when_the_call_ends() {
    for deadline in [false, true] {
        let server = Arc::new(Server::start());
        let house = home(&server);
        let endpoint = server.endpoint(&key("user"));
        // Its input stays open, and it goes on for as long as that: nothing stays behind when the test is over.
        let (stdio, reader, input) = open_streams();
        let spec = shell("echo here; exec cat");
        let call = async |context: CallContext| exec(&house, context, &endpoint, &spec, stdio).await;
        let runs = async {
            let (line, reader) = read_line(reader).await;
            assert_eq!(line, "here");
            drop(reader);
        };
        ended(call, deadline, runs).await;
        assert!(was_closed(&server).await, "the connection stayed open");
        drop(input);
        house.goes_on().await;
    }
}

#[tokio::test]
async fn a_server_that_stalls_in_the_middle_of_the_greeting_is_left() {
    // russh waits for it in a task of its own, which hears of nothing but the stream's end.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (greeted, greeting) = tokio::sync::oneshot::channel();
    let gone = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a time-out");
        stream.write_all(b"SSH-2.0-stalls\r\n").expect("a greeting");
        // More than its own greeting: it has begun to agree on keys.
        stream.read_exact(&mut [0; 200]).expect("its greeting");
        greeted.send(()).expect("the test listens");
        std::io::copy(&mut stream, &mut std::io::sink()).is_ok()
    });
    let house = granted(&format!("ssh://127.0.0.1:{port}"), "\"loopback\"");
    let endpoint = ["127.0.0.1".to_owned(), port.to_string(), "user".to_owned(), key("user"), key("host.pub")];
    let spec = argv("true", &[]);
    let call = async |context: CallContext| exec(&house, context, &endpoint, &spec, nothing()).await;
    ended(call, false, async { greeting.await.expect("it greets") }).await;
    let gone = tokio::task::spawn_blocking(move || gone.join().expect("a thread")).await.expect("a thread");
    assert!(gone, "the connection stayed open");
}

#[tokio::test]
async fn a_port_is_forwarded_for_as_long_as_its_call() {
    let server = Arc::new(Server::start());
    let folder = tempfile::tempdir().expect("a folder");
    let files = "[[files]]\nroot = \"box\"\naccess = \"read-write\"\n";
    let net = format!("[[net]]\nurl = \"{}\"\naddresses = [\"loopback\"]\n{files}", server.url());
    let house = House::provider(&net, Grant::All);
    // What listens there: it says what it hears.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = listener.local_addr().expect("an address").port().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().expect("a handle"), &mut stream));
        }
    });
    let endpoint = server.endpoint(&key("user"));
    let mut hold: Vec<&str> = vec!["ssh.forward.hold"];
    hold.extend(endpoint.iter().map(String::as_str));
    hold.push(&there);
    let call = async |mut context: CallContext| {
        context.roots.insert("box".into(), folder.path().to_path_buf());
        house.script(context, &[&hold]).await
    };
    let open = std::sync::Mutex::new(None);
    let used = async {
        let port: u16 = loop {
            if let Ok(text) = std::fs::read_to_string(folder.path().join("port")) {
                break text.parse().expect("a port");
            }
            tokio::task::yield_now().await;
        };
        let talk = move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            stream.write_all(b"hello").expect("it takes it");
            let mut back = [0; 5];
            stream.read_exact(&mut back).expect("it answers");
            assert_eq!(&back, b"hello");
            (stream, port)
        };
        *open.lock().expect("the stream") = Some(tokio::task::spawn_blocking(talk).await.expect("a thread"));
    };
    ended(call, false, used).await;
    assert!(was_closed(&server).await, "the connection stayed open");
    let (mut stream, port) = open.lock().expect("the stream").take().expect("it was used");
    let rest = tokio::task::spawn_blocking(move || stream.read(&mut [0; 16])).await.expect("a thread");
    assert!(matches!(rest, Ok(0) | Err(_)), "what went through the port stayed open");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port stayed open");
}
