//! Errors of secrets: each source, and each way in which it has no value.

use super::Told;
use crate::canaries::Keyring;
use crate::component::{PLAIN, third_party};
use crate::plugins::WIDER;
use crate::support::World;

#[test]
fn errors_of_secrets() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    let folder = world.path("project");
    let here = folder.display().to_string();
    std::fs::create_dir(folder.join("folder")).expect("a folder");
    for (name, bytes) in
        [("empty", &b""[..]), ("nul", b"sk\0canary"), ("no-text", b"sk\xffcanary"), ("long", &[b'x'; 100_000])]
    {
        std::fs::write(folder.join(name), bytes).expect("a file");
    }
    let check = |told: &mut Told<'_>, reference: &str| {
        told.fails(&["secret", "check", reference]);
    };
    for reference in [
        "sk-ant-canary-0123456789",
        "vault:work",
        "env:",
        "env:NO NAME",
        "file:",
        "keyring:",
        "command:",
        "command:echo 'open",
        "env:NOT_SET",
        "file:HERE/nowhere",
        "file:HERE/folder",
        "file:/dev/null",
        "file:HERE/empty",
        "file:HERE/nul",
        "file:HERE/no-text",
        "file:HERE/long",
        "command:no-such-program-here",
        "command:false",
        "command:true",
        "command:cat HERE/nul",
        "command:head -c 100000 /dev/zero",
    ] {
        check(&mut told, &reference.replace("HERE", &here));
    }
    told.set("EMPTY", "");
    check(&mut told, "env:EMPTY");
    told.set("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere/bus");
    told.note("without a keyring").fails(&["secret", "check", "keyring:work"]);
    told.fails_with(&["secret", "set", "work"], "sk-canary").fails(&["secret", "remove", "work"]);
    told.note("nothing to keep").fails(&["secret", "set", "work"]);
    told.fails_with(&["secret", "set", "work"], &"x".repeat(70_000)).fails(&["secret", "set", "No Name"]);
    told.without = &["HOME", "USERPROFILE"];
    told.note("no home").fails(&["secret", "check", "file:~/key"]);
    told.are("secrets");
}

/// GNOME's keyring, which is there and has nothing of that name.
#[test]
fn errors_of_a_keyring() {
    let world = World::without_engines();
    let Some(keyring) = Keyring::start() else { return };
    let mut told = Told::new(&world);
    for (name, value) in keyring.environment() {
        told.set(name, value);
    }
    told.fails(&["secret", "check", "keyring:nobody"]).fails(&["secret", "remove", "nobody"]);
    told.are("keyring");
}

/// A plugin names a secret that its user said nothing of, or something wrong.
#[test]
fn errors_of_the_secrets_of_plugins() {
    let world = World::new();
    let mut told = Told::new(&world);
    third_party(&world.path("project"), "it.wasm", "1.0.0", &format!("{PLAIN}{WIDER}"));
    told.make(&["plugin", "add", "it.wasm", "--yes"]);
    let env = "THIRDPARTY_URL=value:http://127.0.0.1/v1";
    told.make(&["profile", "create", "asks", "--tool", "claude", "--provider", "thirdparty", "--env", env]);
    let run = ["run", "claude", "--profile", "asks", "--", "-p"];
    told.note("nobody said where it comes from").fails_with(&run, "@say never");
    told.make(&["config", "set", "secrets.THIRDPARTY_KEY", "env:NOT_SET"]);
    told.note("it comes from a variable that is not set").fails_with(&run, "@say never");
    told.are("secrets-of-plugins");
}
