//! Errors of profiles, of keys, and of logins.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use super::{Told, largest};
use crate::support::{World, wait};

#[test]
fn errors_of_profiles() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    let create = |more: &[&'static str]| [&["profile", "create", "new", "--tool", "claude"][..], more].concat();
    told.make(&["profile", "create", "work", "--tool", "claude"]);
    told.fails(&["profile", "show", "nobody"]).fails(&["profile", "use", "nobody"]);
    told.fails(&["profile", "remove", "nobody"]).fails(&["profile", "show", "WORK"]);
    told.fails(&["profile", "create", "work", "--tool", "claude"]);
    told.fails(&["profile", "create", "No Name", "--tool", "claude"]);
    told.fails(&["profile", "create", "new", "--tool", "emacs"]);
    told.fails(&["profile", "create", "new", "--tool", "No Name"]);
    told.fails(&create(&["--auth", "oauth", "--key", "env:K"]));
    told.fails(&create(&["--endpoint", "https://llm.example.com"]));
    told.fails(&create(&["--auth", "api", "--key", "env:K", "--endpoint", "nowhere"]));
    told.fails(&create(&["--auth", "api", "--key", "env:K", "--endpoint", "http://llm.example.com"]));
    told.fails(&create(&["--auth", "api", "--key", "value:sk-canary"]));
    told.fails(&create(&["--key", "sk-ant-canary-0123456789"]));
    told.fails(&create(&["--env", "NO NAME=value:x"]));
    told.fails(&create(&["--env", "NAME=sk-ant-canary-0123456789"]));
    told.fails(&create(&["--provider", "No Name"]));
    told.fails(&["run", "codex", "--profile", "work"]).fails(&["run", "claude", "--profile", "wrok"]);
    told.make(&["profile", "create", "elsewhere", "--tool", "claude", "--provider", "moon"]);
    std::fs::write(world.path("project/pcoder.toml"), "profile = \"elsewhere\"\n").expect("the project's file");
    told.note("chosen by a project, it runs elsewhere").fails(&["run", "claude", "--no-install"]);
    std::fs::remove_file(world.path("project/pcoder.toml")).expect("the project's file");
    told.fails(&["run", "claude", "--profile", "elsewhere", "--no-install"]);
    for (what, text) in [
        ("no TOML", "version = 1\ntool = = 1\n"),
        ("a newer one", "version = 9\ntool = \"claude\"\n"),
        ("no tool", "version = 1\n"),
        ("a field that nobody knows", "version = 1\ntool = \"claude\"\ncolour = \"red\"\n"),
        ("a limit that is none", "version = 1\ntool = \"claude\"\n[limits]\nwall-seconds = \"an hour\"\n"),
        ("a key that is written out", "version = 1\ntool = \"claude\"\nauth = \"api\"\nkey = \"sk-ant-canary\"\n"),
        ("fields that exclude each other", "version = 1\ntool = \"claude\"\nauth = \"oauth\"\nkey = \"env:K\"\n"),
    ] {
        told.note(&format!("work.toml: {what}")).write("profiles/work.toml", text).fails(&["profile", "use", "work"]);
    }
    told.are("profiles");
}

#[test]
fn errors_of_keys() {
    let world = World::new();
    let mut told = Told::new(&world);
    told.fails(&["auth", "status", "emacs"]).fails(&["auth", "login", "emacs"]).fails(&["auth", "logout", "emacs"]);
    told.fails(&["auth", "login", "claude", "--api-key", "sk-ant-canary-0123456789"]);
    told.fails(&["auth", "login", "claude", "--api-key", "vault:work"]);
    told.fails(&["auth", "login", "claude", "--api-key", "value:sk-canary"]);
    told.fails(&["auth", "login", "claude", "--api-key", "env:NOT_SET"]);
    told.make(&["profile", "create", "key", "--tool", "claude", "--auth", "api", "--key", "env:NOT_SET"]);
    told.fails(&["run", "claude", "--profile", "key", "--", "-p"]);
    told.make(&["profile", "create", "some", "--tool", "claude", "--auth", "api"]);
    told.note("a profile that leaves the key to `auth`").fails(&["run", "claude", "--profile", "some", "--", "-p"]);
    told.make(&["profile", "create", "variable", "--tool", "claude", "--env", "NAME=file:nowhere/key"]);
    told.fails(&["run", "claude", "--profile", "variable", "--", "-p"]);
    for (what, text) in [
        ("a newer one", "version = 9\n"),
        ("a key that is written out", "version = 1\n[tool.claude]\nmode = \"api\"\nkey = \"value:sk-canary\"\n"),
        ("a key, and none is named", "version = 1\n[tool.claude]\nmode = \"api\"\n"),
        ("a login with a key", "version = 1\n[tool.claude]\nmode = \"oauth\"\nkey = \"env:KEY\"\n"),
        ("a way that nobody knows", "version = 1\n[tool.claude]\nmode = \"telepathy\"\n"),
    ] {
        told.note(&format!("auth.toml: {what}")).write("auth.toml", text).fails(&["auth", "logout", "claude"]);
    }
    told.are("keys");
}

/// A token server that gives one answer, again and again.
fn answering(status: &str, more: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/token", listener.local_addr().expect("an address"));
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = BufReader::new(stream.try_clone().expect("a stream"));
            let (mut line, mut length) = (String::new(), 0);
            while request.read_line(&mut line).is_ok_and(|count| count > 2) {
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
                line.clear();
            }
            drop(request.read_exact(&mut vec![0; length]));
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    url
}

impl Told<'_> {
    /// `auth login claude --paste`, with what is pasted made of the state in the address that it shows.
    fn paste_fails(&mut self, pasted: impl FnOnce(&str) -> String) {
        let mut command = self.command(&["auth", "login", "claude", "--paste"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("pcoder starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
        let url = loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).expect("a line"), 0, "it says an address");
            if line.starts_with("https://") {
                break line;
            }
        };
        let state = url.trim().split("state=").nth(1).and_then(|it| it.split('&').next()).expect("a state");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(pasted(state).as_bytes()).expect("it reads");
        drop(stdin);
        let (code, said) = wait("it has ended", move || {
            let mut said = String::new();
            lines.read_to_string(&mut said).expect("what it said");
            (child.wait().expect("a child").code().expect("an exit code"), said)
        });
        self.text += &format!("$ pcoder auth login claude --paste\nexit {code}\n-- stderr\n{}\n", said.trim_start());
    }
}

#[test]
fn errors_of_logins() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    told.fails(&["auth", "login", "codex", "--paste"]);
    told.set("PCODER_CLAUDE_TOKEN_URL", "nowhere").fails(&["auth", "login", "claude", "--paste"]);
    told.unset("PCODER_CLAUDE_TOKEN_URL");
    for (what, pasted) in [
        ("nothing is pasted", ""),
        ("no code is pasted", "hello there\n"),
        ("the code of another login", "the-code#another-state\n"),
    ] {
        told.note(what).paste_fails(|_| pasted.to_owned());
    }
    let right = |state: &str| format!("the-code#{state}\n");
    for (what, status, more, body) in [
        ("the code is not accepted", "400 Bad Request", "", "{\"error\":\"invalid_grant\"}"),
        ("the request is not", "403 Forbidden", "", "{\"error\":\"access_denied\"}"),
        ("too many requests", "429 Too Many Requests", "retry-after: 30\r\n", "{}"),
        ("the server is broken", "503 Service Unavailable", "", ""),
        ("an answer without a token", "200 OK", "", "{}"),
        ("an answer that is no JSON", "200 OK", "", "<html>"),
        ("a redirect", "302 Found", "location: http://127.0.0.1:9/\r\n", ""),
    ] {
        told.note(what).set("PCODER_CLAUDE_TOKEN_URL", answering(status, more, body)).paste_fails(right);
    }
    told.note("nobody is there").set("PCODER_CLAUDE_TOKEN_URL", "http://127.0.0.1:9/").paste_fails(right);
    // The user's proxy is asked, and nobody is by another way.
    let proxy = answering("403 Forbidden", "", "");
    told.set("HTTPS_PROXY", proxy.trim_end_matches("/token"));
    told.set("PCODER_CLAUDE_TOKEN_URL", "https://login.example.com/token");
    told.note("a proxy that lets nobody through").paste_fails(right);
    told.are("logins");
}

/// An engine that does not do what it should: a script stands in its place.
#[test]
fn errors_of_tools_that_do_not_log_in() {
    let world = World::new();
    let mut told = Told::new(&world);
    let store = world.path("store");
    let whole = std::env::var_os("PCODER_TEST_ENGINES").expect("the engines");
    let copy = |how: &str| {
        drop(std::fs::remove_dir_all(&store));
        std::process::Command::new("cp").arg(how).arg(&whole).arg(&store).status().is_ok_and(|it| it.success())
    };
    // By links, where they are on one disk.
    let copied = copy("-al") || copy("-a");
    assert!(copied, "a copy of the engines");
    told.set("PCODER_ENGINES", store.to_str().expect("a path"));
    let script = |text: &str| {
        let listed = crate::support::finish(world.pcoder(&["engine", "list", "--json"]), "").json();
        let version = listed["engines"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|it| it["name"] == "claude" && it["default"] == true);
        let version = version.expect("claude")["version"].as_str().expect("a version").to_owned();
        let folder = std::fs::read_dir(store.join("engines/claude")).expect("a folder");
        let folder = folder
            .map(|it| it.expect("an entry"))
            .find(|it| it.file_name().to_string_lossy().starts_with(&version))
            .expect("its folder");
        let program = largest(&folder.path());
        let size = program.metadata().expect("the engine").len();
        // Not written into: the file may be the real engine's under a second name.
        std::fs::remove_file(&program).expect("the engine");
        // As long as the engine, which is what a run looks at.
        std::fs::write(&program, format!("#!/bin/sh\n{text}\nexit 0\n")).expect("a script");
        std::fs::File::options().write(true).open(&program).and_then(|it| it.set_len(size)).expect("its size");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    };
    script("exit 3");
    told.note("it fails").fails(&["auth", "login", "claude"]).fails(&["auth", "status", "claude"]);
    script("case \"$*\" in *login*) exit 0 ;; *) echo '{\"loggedIn\": false}' ;; esac");
    told.note("it says that it is logged in, and is not").fails(&["auth", "login", "claude"]);
    script("echo what?");
    told.note("it answers nonsense").fails(&["auth", "status", "claude"]);
    script("exec sleep 600");
    told.note("it does not answer").fails(&["auth", "status", "claude"]);
    told.make(&["setup", "--auth", "claude=oauth"]);
    script("exit 3");
    told.note("its logout fails").fails(&["auth", "logout", "claude"]);
    told.are("tools");
}
