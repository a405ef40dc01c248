//! The whole way: boot, credentials, PM2, the real Claude, cleanup.

use pcoder_fake_codesandbox::FakeCodeSandbox;
use pcoder_fake_morph::Options;
use pcoder_model_server::environment::{self, OFFLINE_KEY};
use serde_json::Value;

use super::{Morph, pm2, programs, runtime};
use crate::support::{World, finish};

/// A token that looks like one.
pub(crate) const TOKEN: &str = "sk-ant-oat01-canary-9b2c";

/// A profile that leads the agent to the model server of the test, with a key of its own.
pub(crate) fn profile(world: &World) {
    let endpoint = world.server().anthropic_url();
    let mut args =
        vec!["profile", "create", "offline", "--tool", "claude", "--key", "env:OFFLINE_KEY", "--endpoint", &endpoint];
    let variables = environment::claude(&endpoint, OFFLINE_KEY, std::path::Path::new("/root/.claude"));
    let more: Vec<String> = variables
        .iter()
        .filter(|it| !["ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "CLAUDE_CONFIG_DIR", "HOME"].contains(&it.name))
        .map(|it| format!("{}=value:{}", it.name, it.value))
        .collect();
    for pair in &more {
        args.extend(["--env", pair]);
    }
    finish(world.pcoder(&args), "").printed();
}

fn smoke(world: &World, args: &[&str], key: (&str, &str)) -> Value {
    let mut all = vec!["smoke", "--credentials", "claude/oauth-token", "--profile", "offline", "--json"];
    all.extend(args);
    let mut command = world.pcoder(&all);
    command.env(key.0, key.1).env("CLAUDE_ACCESS_TOKEN", TOKEN).env("OFFLINE_KEY", OFFLINE_KEY);
    let outcome = finish(command, "");
    assert!(!outcome.stdout.contains(TOKEN) && !outcome.stderr.contains(TOKEN), "{outcome:#?}");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    outcome.json()
}

fn all_is_well(report: &Value) {
    let steps = report["steps"].as_array().expect("steps");
    let names: Vec<_> = steps.iter().map(|it| it["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["boot", "exec", "tools", "credentials", "files", "session", "cleanup"]);
    assert!(steps.iter().all(|it| it["outcome"] == "ok"), "{report:#}");
    let detail = |name: &str| steps.iter().find(|it| it["name"] == name).expect("a step")["detail"].to_string();
    assert!(detail("credentials").contains("mode 600, ****"), "{report:#}");
    assert!(detail("session").contains("pineapple"), "{report:#}");
}

#[test]
fn an_agent_works_on_morph_from_boot_to_cleanup() {
    let Some(pm2) = pm2() else { return };
    let world = World::new();
    let (shared, environment) = programs(&world, Some(&pm2));
    let morph = Morph::new(world, Options { shared, environment, ..Options::default() });
    profile(&morph.world);
    let report = smoke(&morph.world, &["--provider", "morph"], ("MORPH_API_KEY", super::KEY));
    all_is_well(&report);
    assert_eq!(morph.json(&["instance", "list", "--json"])["instances"].as_array().map(Vec::len), Some(0));
}

#[test]
fn an_agent_works_on_codesandbox_from_boot_to_cleanup() {
    let Some(pm2) = pm2() else { return };
    let world = World::new();
    let (shared, environment) = programs(&world, Some(&pm2));
    let options =
        pcoder_fake_codesandbox::Options { shared, environment, ..pcoder_fake_codesandbox::Options::default() };
    let key = options.key.clone();
    let fake = runtime().block_on(FakeCodeSandbox::start(options)).expect("a fake");
    for (name, value) in [
        ("plugins.provider-codesandbox.endpoint", fake.base_url()),
        ("plugins.provider-codesandbox.agent", format!("ws://{}", fake.agents_address())),
    ] {
        finish(world.pcoder(&["config", "set", name, &value]), "").printed();
    }
    profile(&world);
    let report = smoke(&world, &["--provider", "codesandbox"], ("CSB_API_KEY", &key));
    all_is_well(&report);
    assert!(fake.sandboxes().is_empty(), "{:?}", fake.sandboxes());
    runtime().block_on(fake.stop());
}
