//! Errors of runs, and of the engines that they need.

use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;

use super::{Told, largest};
use crate::support::{World, finish};

#[test]
fn errors_of_runs() {
    let world = World::new();
    let mut told = Told::new(&world);
    std::fs::write(world.path("project/a file"), "").expect("a file");
    told.fails(&["run", "claude", "--project", "nowhere"]).fails(&["run", "claude", "--project", "a file"]);
    told.fails(&["run", "claude", "--project", "a file/below"]);
    told.set("PCODER_QEMU", "/nowhere/qemu");
    told.fails(&["run", "claude", "--mode", "linux-portable"]).fails(&["run", "claude", "--mode", "linux-wsl"]);
    told.set("PCODER_QEMU", qemu(&world)).note("a QEMU and no image").fails(&[
        "run",
        "claude",
        "--mode",
        "linux-portable",
    ]);
    told.fails(&["run", "claude", "--mode", "linux-portable", "--image", "none"]);
    told.fails(&["run", "claude", "--engine-version", "0.0.1", "--no-install"]);
    told.fails(&["run", "claude", "--", "update"]).fails(&["run", "codex", "--", "update"]);
    let project = world.path("project").join(std::ffi::OsString::from_vec(b"caf\xe9".to_vec()));
    std::fs::create_dir(&project).expect("a folder");
    let mut command = told.command(&["run", "claude", "--project"]);
    command.arg(&project).args(["--", "-p"]);
    told.fails_as("run claude --project [a name that is not Unicode] -- -p", command, "");
    told.make(&["profile", "create", "short", "--tool", "claude", "--wall-seconds", "1"]);
    told.fails_with(&["run", "claude", "--profile", "short", "--", "-p"], "@sleep 600\n@say too late");
    told.without = &["HOME", "USERPROFILE"];
    told.note("no home").fails(&["run", "claude", "--", "-p"]);
    told.without = &[];
    told.fails(&["demo", "emacs"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let command = told.command(&["demo", "--serve", "--port", &port]);
    told.fails_as("demo --serve --port [one that another program has]", command, "");
    told.are("runs");
}

/// Says that it is a QEMU, and is none.
fn qemu(world: &World) -> String {
    let path = world.path("qemu");
    std::fs::write(
        &path,
        "#!/bin/sh\ncase $* in *accel*) echo tcg ;; *) echo 'QEMU emulator version 10.0.2' ;; esac\n",
    )
    .expect("a program");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
    path.to_str().expect("Unicode").to_owned()
}

#[test]
fn errors_of_a_tmp_of_its_own() {
    let world = World::new();
    if !crate::private_tmp::possible(&world) {
        return;
    }
    let mut told = Told::new(&world);
    // Whoever is root in a namespace may forbid himself another one.
    let script = "echo 0 > /proc/sys/user/max_mnt_namespaces && exec \"$0\" run claude --private-tmp -- -p";
    let without = world.command("unshare", &["-Ur", "sh", "-c", script, env!("CARGO_BIN_EXE_pcoder")]);
    told.fails_as("run claude --private-tmp -- -p", without, "");
    told.fails(&["run", "claude", "--private-tmp", "--project", "/tmp", "--", "-p"]);
    told.are("private-tmp");
}

#[test]
fn errors_of_engines() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    std::fs::write(world.path("project/garbage.tgz"), "garbage").expect("a file");
    std::fs::create_dir(world.path("project/empty")).expect("a folder");
    told.fails(&["run", "claude", "--no-install"]).fails(&["run", "claude"]).fails(&["demo"]);
    told.fails(&["engine", "install", "emacs"]).fails(&["engine", "install", "claude", "--offline"]);
    told.fails(&["engine", "install", "claude", "--from", "garbage.tgz"]);
    told.fails(&["engine", "install", "claude", "--from", "nowhere.tgz"]);
    told.fails(&["engine", "install", "claude", "--registry", "gopher://x"]);
    told.fails(&["engine", "verify", "emacs"]).fails(&["engine", "verify", "claude"]);
    told.fails(&["engine", "remove", "emacs"]);
    told.fails(&["engine", "export", "--to", "out"]).fails(&["engine", "export", "claude", "--to", "out"]);
    told.fails(&["engine", "export", "emacs", "--to", "out"]);
    told.fails(&["engine", "import", "nowhere"]).fails(&["engine", "import", "empty"]);
    told.fails(&["engine", "import", "garbage.tgz"]);
    told.are("engines");
}

#[test]
fn errors_of_engines_that_were_exported() {
    let world = World::new();
    let mut told = Told::new(&world);
    told.make(&["engine", "export", "codex-acp", "--to", "out"]);
    let folder = world.path("project/out");
    let own = world.path("store");
    told.set("PCODER_ENGINES", own.to_str().expect("a path"));
    let file = largest(&folder);
    let whole = std::fs::read(&file).expect("an exported engine");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("cut");
    told.note("a file was cut").fails(&["engine", "import", "out"]);
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&file, changed).expect("changed");
    told.note("a byte was changed").fails(&["engine", "import", "out"]);
    std::fs::remove_file(&file).expect("the file");
    told.note("a file is missing").fails(&["engine", "import", "out"]);
    std::fs::write(&file, &whole).expect("the file");
    finish(told.command(&["engine", "import", "out"]), "").printed();
    told.are("engines-exported");
}
