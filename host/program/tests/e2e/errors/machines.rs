//! Errors of machines that are not this one.

use pcoder_fake_morph::{FakeMorph, Fault, FaultKind, Match, Options, Times};

use super::Told;
use crate::remote::{KEY, SNAPSHOT, runtime};
use crate::support::World;

fn service() -> FakeMorph {
    runtime().block_on(FakeMorph::start(Options { key: KEY.to_owned(), ..Options::default() })).expect("a fake")
}

/// Leads the world's pcoder to a service.
fn use_it(told: &mut Told<'_>, fake: &FakeMorph) {
    told.set("MORPH_API_KEY", KEY);
    told.make(&["config", "set", "plugins.provider-morph.endpoint", &fake.base_url()]);
    told.make(&["config", "set", "plugins.provider-morph.ssh", &format!("ssh://{}", fake.ssh_address())]);
    told.make(&["config", "set", "provider", "morph"]);
}

#[test]
fn errors_of_instances() {
    let world = World::without_engines();
    let fake = service();
    let mut told = Told::new(&world);
    told.fails(&["instance", "list", "--provider", "nowhere"]).fails(&["instance", "list", "--provider", "morph"]);
    use_it(&mut told, &fake);
    told.fails(&["instance", "boot"]).fails(&["instance", "boot", "--image", "no such", "--ttl", "5m"]);
    told.fails(&["instance", "boot", "--image", "snapshot_nothing"]);
    told.fails(&["instance", "boot", "--image", SNAPSHOT, "--option", "colour=red"]);
    told.fails(&["instance", "boot", "--image", SNAPSHOT, "--option", "vcpus=many"]);
    told.fails(&["instance", "get", "morphvm_nothing"]).fails(&["instance", "get", "../x"]);
    told.fails(&["instance", "exec", "morphvm_nothing", "--json", "--", "true"]);
    told.fails(&["instance", "ssh", "morphvm_nothing"]);
    told.fails(&["instance", "cp", "a", "b"]).fails(&["instance", "cp", "nothing", "morphvm_nothing:~/x"]);
    told.fails(&["instance", "stop", "local", "--provider", "local"]);
    told.fails(&["process", "list", "--on", "morphvm_nothing"]);
    told.fails(&["process", "list", "--on", "morphvm_nothing", "--manager", "none"]);
    told.set("MORPH_API_KEY", "another");
    told.fails(&["instance", "list"]);
    told.unset("MORPH_API_KEY");
    told.fails(&["instance", "list"]);
    told.set("MORPH_API_KEY", KEY);
    told.make(&["config", "set", "plugins.provider-morph.endpoint", "nowhere"]);
    told.fails(&["instance", "list"]);
    told.make(&["config", "unset", "plugins.provider-morph.endpoint"]);
    told.make(&["config", "set", "plugins.provider-morph.colour", "red"]);
    told.fails(&["instance", "list"]);
    told.are("instances");
    runtime().block_on(fake.stop()).expect("it ends");
}

#[test]
fn errors_of_runs_on_other_machines() {
    let world = World::new();
    let fake = service();
    let mut told = Told::new(&world);
    use_it(&mut told, &fake);
    told.fails(&["run", "claude", "--image", SNAPSHOT, "--", "-p"]);
    told.fails(&["run", "claude", "--private-tmp", "--", "-p"]);
    told.fails(&["run", "claude", "--engine-version", "1.2.3", "--", "-p"]);
    told.fails(&["run", "claude", "--instance", "morphvm_nothing", "--", "-p"]);
    told.fails(&["run", "claude", "--provider", "local", "--keep", "--", "-p"]);
    told.are("runs-on-other-machines");
    runtime().block_on(fake.stop()).expect("it ends");
}

#[test]
fn errors_of_credentials_on_other_machines() {
    let world = World::without_engines();
    let fake = service();
    let mut told = Told::new(&world);
    use_it(&mut told, &fake);
    let smoke = |credentials| ["smoke", "--image", SNAPSHOT, "--credentials", credentials];
    told.fails(&smoke("claude")).fails(&smoke("claude/nothing")).fails(&smoke("claude/oauth-token"));
    for (what, login) in [
        ("a login with a refresh token", r#""refreshToken":"r""#),
        ("one that has expired", r#""expiresAt":1"#),
        ("one whose end is no time", r#""expiresAt":"soon""#),
    ] {
        told.note(what);
        told.set("CLAUDE_CREDENTIALS_JSON", format!(r#"{{"claudeAiOauth":{{"accessToken":"a",{login}}}}}"#));
        told.fails(&smoke("claude/credentials-file"));
    }
    told.note("and the instance cannot be ended either");
    let on = Match { operation: Some("instance.stop".to_owned()), ..Match::default() };
    let gone = Fault { on, what: FaultKind::status(403), times: Times::Always };
    fake.faults().push(gone).expect("a fault");
    told.fails(&smoke("claude/nothing"));
    fake.faults().clear();
    told.note("no PM2 on the instance");
    told.fails(&["smoke", "--image", SNAPSHOT]);
    told.are("credentials-on-other-machines");
    runtime().block_on(fake.stop()).expect("it ends");
}
