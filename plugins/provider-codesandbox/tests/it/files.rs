use pcoder_fake_codesandbox::{Agent, Options};
use pcoder_sdk::{Provider as _, WriteOptions};
use provider_codesandbox::CodeSandbox;

use crate::host::RealHost;
use crate::world::{World, code, failure, with_both_agents};

with_both_agents! {
    a_file_comes_back_byte_for_byte
    a_file_may_be_larger_than_a_message
    writing_in_place_keeps_the_file_and_atomic_writing_replaces_it
    what_is_there_and_what_is_not_is_told_apart
    the_home_is_where_the_user_says
    a_connection_that_breaks_off_is_made_anew
}

fn read(host: &RealHost, id: &str, path: &str) -> pcoder_sdk::Result<Vec<u8>> {
    CodeSandbox.read_file(host.provider(), id, path)
}

fn write(host: &RealHost, id: &str, path: &str, content: &[u8], options: WriteOptions) -> pcoder_sdk::Result<()> {
    CodeSandbox.write_file(host.provider(), id, path, content, options)
}

fn write_atomic(
    host: &RealHost,
    id: &str,
    path: &str,
    content: &[u8],
    options: WriteOptions,
) -> pcoder_sdk::Result<()> {
    CodeSandbox.write_file_atomic(host.provider(), id, path, content, options)
}

fn a_file_comes_back_byte_for_byte(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let host = world.host();
    let content: Vec<u8> = (0..=255).collect();
    for (path, mode) in
        [("~/x y/it's", Some(0o600)), ("~/-n", Some(0o444)), ("~/\"$(x)\"\n", None), ("~/é", Some(0o755))]
    {
        for atomic in [false, true] {
            let options = WriteOptions { create_parents: true, mode, owner: None };
            let written = if atomic { write_atomic } else { write };
            written(&host, &id, path, &content, options).unwrap();
            assert_eq!(read(&host, &id, path).unwrap(), content, "{path}");
            if let Some(mode) = mode {
                let word = pcoder_sdk::shell::quote_path(path);
                assert_eq!(world.printed(&id, &format!("stat -c %a -- {word}")), format!("{mode:o}\n"));
                CodeSandbox.delete_file(host.provider(), &id, path).unwrap();
            }
        }
    }
    write(&host, &id, "/tmp/empty", b"", WriteOptions::plain()).unwrap();
    assert_eq!(read(&host, &id, "/tmp/empty").unwrap(), b"");
    assert_eq!(world.printed(&id, "ls -A ~/'x y'; ls -A ~ | grep -c pcoder || true"), "0\n", "nothing is left over");
}

fn a_file_may_be_larger_than_a_message(agent: Agent) {
    let world = World::with(Options { agent, max_frame: (4 << 20) + 4096, ..Options::default() });
    let id = world.boot();
    let host = world.host();
    let content: Vec<u8> = (0..10_485_761_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    write(&host, &id, "~/a b", &content, WriteOptions::plain()).unwrap();
    assert!(read(&host, &id, "~/a b").unwrap() == content);
    write_atomic(&host, &id, "~/a b", &content[1..], WriteOptions::plain().with_mode(0o640)).unwrap();
    assert!(read(&host, &id, "~/a b").unwrap() == content[1..]);
    assert_eq!(world.printed(&id, "stat -c '%a %s' ~/'a b'; ls -A /tmp | wc -l"), "640 10485760\n1\n");
}

fn writing_in_place_keeps_the_file_and_atomic_writing_replaces_it(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let host = world.host();
    world.printed(&id, "echo old >~/real; ln -s real ~/link; chmod 640 ~/real");
    write(&host, &id, "~/link", b"new", WriteOptions::plain()).unwrap();
    assert_eq!(world.printed(&id, "cat ~/real; stat -c %a ~/real; readlink ~/link"), "new640\nreal\n");
    write_atomic(&host, &id, "~/link", b"other", WriteOptions::plain()).unwrap();
    assert_eq!(world.printed(&id, "cat ~/real ~/link; test -L ~/link || echo file"), "newotherfile\n");
}

fn what_is_there_and_what_is_not_is_told_apart(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let host = world.host();
    let exists = |path: &str| CodeSandbox.file_exists(host.provider(), &id, path).unwrap();
    CodeSandbox.create_directory(host.provider(), &id, "~/d/e/f", Some(0o700)).unwrap();
    CodeSandbox.create_directory(host.provider(), &id, "~/d/e/f", None).unwrap();
    assert_eq!(world.printed(&id, "stat -c %a ~/d/e/f"), "700\n");
    assert!(exists("~/d/e") && exists("/") && !exists("~/d/x") && !exists("~/d/x/y"));
    write(&host, &id, "~/d/file", b"x", WriteOptions::plain()).unwrap();
    assert!(exists("~/d/file") && !exists("~/d/file/below"));
    for (result, expected) in [
        (read(&host, &id, "~/none").map(drop), "not-found"),
        (read(&host, &id, "~/d").map(drop), "invalid"),
        (read(&host, &id, "~/d/file/below").map(drop), "not-found"),
        (write(&host, &id, "~/d", b"", WriteOptions::plain()), "invalid"),
        (write_atomic(&host, &id, "~/d", b"", WriteOptions::plain()), "invalid"),
        (write(&host, &id, "~/none/x", b"", WriteOptions::plain()), "not-found"),
        (CodeSandbox.delete_file(host.provider(), &id, "~/d"), "invalid"),
        (CodeSandbox.delete_directory(host.provider(), &id, "~"), "invalid"),
        (CodeSandbox.delete_directory(host.provider(), &id, "/"), "invalid"),
        (read(&host, &id, "relative").map(drop), "invalid"),
        (read(&host, &id, "~root/x").map(drop), "invalid"),
        (read(&host, &id, "/a\0").map(drop), "invalid"),
    ] {
        assert_eq!(code(result), expected);
    }
    let error = failure(read(&host, &id, "~/none"));
    assert_eq!(error.subject.as_deref(), Some("/project/workspace/none"));
    assert_eq!(error.operation, "provider.read-file");
    world.printed(&id, "ln -s nowhere ~/d/dangling; ln -s e ~/d/linked");
    for path in ["~/d/file", "~/d/file", "~/d/dangling", "~/d/linked"] {
        CodeSandbox.delete_file(host.provider(), &id, path).unwrap();
    }
    assert_eq!(world.printed(&id, "ls -A ~/d"), "e\n");
    for _ in 0..2 {
        CodeSandbox.delete_directory(host.provider(), &id, "~/d").unwrap();
    }
    assert!(!exists("~/d"));
}

fn the_home_is_where_the_user_says(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let host = world.host().set("home", "/root");
    write(&host, &id, "~/x", b"x", WriteOptions::plain()).unwrap();
    assert_eq!(world.printed(&id, "cat /root/x"), "x");
    assert_eq!(CodeSandbox.get(host.provider(), &id).unwrap().home_dir.as_deref(), Some("/root"));
}

#[test]
fn errors_of_the_agent_have_their_codes() {
    let world = World::new();
    let id = world.boot();
    let host = world.host();
    write(&host, &id, "~/x", b"x", WriteOptions::plain()).unwrap();
    for (fault, expected) in [
        ("fs/readFile=error:102,errno=13", "denied"),
        ("fs/readFile=error:102", "io"),
        ("fs/readFile=error:101", "invalid"),
        ("fs/readFile=error:0", "server"),
        ("fs/readFile=missing:content", "server"),
        ("fs/readFile=truncated", "server"),
        ("fs/stat=null:type", "server"),
        ("fs/stat=error:2", "denied"),
    ] {
        world.fault(fault);
        assert_eq!(code(read(&host, &id, "~/x")), expected, "{fault}");
        world.fake.faults().clear();
    }
    world.fault("fs/rename=error:102,errno=30");
    assert_eq!(code(write_atomic(&host, &id, "~/x", b"y", WriteOptions::plain())), "denied");
    assert_eq!(world.printed(&id, "cat ~/x; ls -A ~"), "xx\n", "the old file is whole and nothing is beside it");
}

fn a_connection_that_breaks_off_is_made_anew(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let host = world.host();
    let methods: &[&str] = match agent {
        Agent::Pitcher => &["client/join", "fs/mkdir", "shell/create", "fs/writeFile", "fs/stat", "fs/rename"],
        _ => &["pint.execs.post", "pint.execs.io.post", "pint.execs.io.get", "pint.execs.delete"],
    };
    for method in methods {
        for what in ["drop-before", "drop-after", if agent == Agent::Pitcher { "close:1001" } else { "cut:0" }] {
            world.fault(&format!("{method}={what}"));
            let options = WriteOptions::plain().with_parents().with_mode(0o600);
            write_atomic(&host, &id, "~/d/x", what.as_bytes(), options)
                .unwrap_or_else(|error| panic!("{method} {what}: {error:?}"));
            assert_eq!(read(&host, &id, "~/d/x").unwrap(), what.as_bytes(), "{method}");
            world.fake.faults().clear();
        }
    }
    assert_eq!(world.printed(&id, "ls -A ~/d"), "x\n", "nothing is beside it");
    let reads = if agent == Agent::Pitcher { "fs/readFile" } else { "pint.execs.post" };
    world.fault(&format!("{reads}=drop-before,times=9"));
    assert_eq!(code(read(&host, &id, "~/d/x")), "unavailable");
}
