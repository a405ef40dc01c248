//! Errors of secrets: each source, and each way in which it has no value.

use super::Told;
use crate::support::World;

#[test]
fn errors_of_secrets() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    let folder = world.path("project");
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
        "file:nowhere",
        "file:folder",
        "file:/dev/null",
        "file:empty",
        "file:nul",
        "file:no-text",
        "file:long",
        "command:no-such-program-here",
        "command:false",
        "command:true",
        "command:cat nul",
        "command:head -c 100000 /dev/zero",
    ] {
        check(&mut told, reference);
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
