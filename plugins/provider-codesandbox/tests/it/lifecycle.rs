use std::time::Duration;

use pcoder_fake_codesandbox::{Agent, Options, SetupStep};
use pcoder_sdk::{Provider as _, Setting};
use provider_codesandbox::CodeSandbox;
use serde_json::{Value, json};

use crate::world::{World, code, failure, options, with_both_agents};

with_both_agents! {
    a_sandbox_boots_stops_resumes_and_ends
    a_fresh_boot_is_ready_when_its_set_up_is_over
    a_set_up_that_fails_names_its_step
    a_copy_has_the_files_and_a_life_of_its_own
    a_port_has_an_address_and_a_token_where_it_is_private
}

fn a_sandbox_boots_stops_resumes_and_ends(agent: Agent) {
    let world = World::of(agent);
    let host = world.host();
    let mut wanted = options();
    wanted.name = Some("fix the tests".to_owned());
    wanted.ttl_seconds = Some(600);
    wanted.ttl_action = Some("stop".to_owned());
    wanted.options = vec![Setting::new("tier", "nano")];
    let booted = CodeSandbox.boot(host.provider(), wanted).unwrap();
    assert_eq!(booted.status, "ready");
    assert_eq!(booted.home_dir.as_deref(), Some("/project/workspace"));
    assert!(booted.created_ms.is_some());
    let requests = world.fake.requests();
    let body = requests[0].body.clone().unwrap();
    assert_eq!((requests[0].path.as_str(), body["title"].as_str()), ("/sandbox/69vrxg/fork", Some("fix the tests")));
    assert_eq!((body["privacy"].as_u64(), body["private_preview"].as_bool()), (Some(2), Some(true)));
    assert_eq!(body["tags"][0], "pcoder");
    assert_eq!(requests[1].body, Some(json!({"tier": "Nano", "hibernation_timeout_seconds": 600})));

    let id = &booted.id;
    assert_eq!(CodeSandbox.get(host.provider(), id).unwrap().status, "ready");
    CodeSandbox.stop(host.provider(), id).unwrap();
    // It is stopped already.
    CodeSandbox.stop(host.provider(), id).unwrap();
    assert_eq!(CodeSandbox.get(host.provider(), id).unwrap().status, "stopped");
    let resumed = CodeSandbox.resume(host.provider(), id).unwrap();
    assert_eq!((resumed.status.as_str(), &resumed.details), ("ready", &vec![Setting::new("bootup", "resume")]));
    let start = world.fake.requests().into_iter().rfind(|request| request.operation == "vm.start").unwrap();
    assert_eq!(start.body, Some(json!({"hibernation_timeout_seconds": 600})), "as it was booted");

    CodeSandbox.terminate(host.provider(), id).unwrap();
    // It is gone already.
    CodeSandbox.terminate(host.provider(), id).unwrap();
    assert_eq!(code(CodeSandbox.get(host.provider(), id)), "not-found");
    assert_eq!(code(CodeSandbox.stop(host.provider(), id)), "not-found");
    assert_eq!(code(CodeSandbox.resume(host.provider(), id)), "not-found");
    assert_eq!(code(CodeSandbox.fork(host.provider(), id)), "not-found");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_asked() {
    let world = World::new();
    let host = world.host();
    let mut unknown = options();
    unknown.options = vec![Setting::new("color", "red")];
    let mut terminated = options();
    (terminated.ttl_seconds, terminated.ttl_action) = (Some(60), Some("terminate".to_owned()));
    let mut long = options();
    long.ttl_seconds = Some(86_401);
    let mut image = options();
    image.image = Some("../admin".to_owned());
    for (options, expected) in
        [(unknown, "invalid"), (terminated, "unsupported"), (long, "invalid"), (image, "invalid")]
    {
        assert_eq!(code(CodeSandbox.boot(host.provider(), options)), expected);
    }
    assert_eq!(code(CodeSandbox.get(host.provider(), "../x")), "not-found");
    assert_eq!(code(CodeSandbox.read_file(host.provider(), "a/b", "/x")), "not-found");
    assert_eq!(CodeSandbox.terminate(host.provider(), "a/b"), Ok(()));
    assert_eq!(world.fake.requests(), []);
}

fn a_fresh_boot_is_ready_when_its_set_up_is_over(agent: Agent) {
    for late_setup in [false, true] {
        let step = |name: &str, command: &str| SetupStep { name: name.to_owned(), command: command.to_owned() };
        let setup = vec![step("first", "echo 1 >>steps"), step("second", "sleep 1; echo 2 >>steps")];
        let world = World::with(Options { agent, setup, late_setup, ..Options::default() });
        let id = world.boot();
        // The stand-in tells late, too, that the fork's set-up is over.
        world.printed(&id, "sleep 0.5");
        world.shutdown(&id);
        let host = world.host();
        let resumed = CodeSandbox.resume(host.provider(), &id).unwrap();
        assert_eq!(resumed.details, [Setting::new("bootup", "clean")]);
        assert_eq!(world.printed(&id, "cat steps || ls -lA / ~ /root"), "1\n2\n", "{late_setup}");
    }
}

fn a_set_up_that_fails_names_its_step(agent: Agent) {
    let setup = vec![
        SetupStep { name: "good".to_owned(), command: "true".to_owned() },
        SetupStep { name: "install".to_owned(), command: "exit 3".to_owned() },
    ];
    let world = World::with(Options { agent, setup, ..Options::default() });
    let id = world.boot();
    world.shutdown(&id);
    let host = world.host();
    let error = failure(CodeSandbox.resume(host.provider(), &id));
    assert_eq!((error.code.as_str(), error.subject.as_deref()), ("process", Some(id.as_str())));
    assert!(error.message.contains("`install`"), "{}", error.message);
}

#[test]
fn a_boot_that_fails_leaves_nothing() {
    for (fault, expected) in [
        ("vm.start=500,times=9", "server"),
        ("vm.start=503,times=9", "unavailable"),
        ("vm.start=402", "denied"),
        ("vm.start=429,limit=requests", "rate-limited"),
        ("vm.start=missing:pitcher_url", "server"),
        ("vm.start=null:pitcher_token", "server"),
        ("vm.start=null:bootup_type", "server"),
        ("vm.start=bootup-type:DANCE", "server"),
        ("vm.start=other-sandbox", "server"),
        ("vm.start=truncated,times=9", "server"),
        ("connect=503,times=9", "unavailable"),
        ("connect=403,times=9", "unauthenticated"),
        ("client/join=error:2", "denied"),
        ("client/join=truncated,times=9", "server"),
        ("setup/get=error:0", "server"),
        ("setup/get=missing:state", "server"),
        ("setup/get=close:1011", "unavailable"),
    ] {
        let world = World::new();
        // The one that another sandbox's answers are about.
        let other = world.boot();
        world.fault(fault);
        let host = world.host();
        let error = CodeSandbox.boot(host.provider(), options()).expect_err(fault);
        assert_eq!(error.code, expected, "{fault}: {error:?}");
        assert_eq!(error.operation, "provider.boot", "{fault}");
        assert_eq!(world.fake.sandboxes(), [(other, true)], "{fault}");
    }
}

#[test]
fn a_fork_whose_answer_is_lost_is_ended() {
    for fault in ["sandbox.fork=drop-after", "sandbox.fork=truncated", "sandbox.fork=missing:id"] {
        let world = World::new();
        world.fault(fault);
        let host = world.host();
        assert!(matches!(code(CodeSandbox.boot(host.provider(), options())).as_str(), "network" | "server"), "{fault}");
        assert_eq!(world.fake.sandboxes(), [], "{fault}");
        assert_eq!(world.operations().iter().filter(|it| *it == "sandbox.fork").count(), 1, "{fault}");
    }
}

#[test]
fn a_sandbox_that_cannot_be_ended_is_named() {
    let world = World::new();
    world.fault("vm.start=402");
    world.fault("vm.delete=403");
    let host = world.host();
    let error = failure(CodeSandbox.boot(host.provider(), options()));
    let left = world.fake.sandboxes();
    assert!(error.message.contains(&left[0].0), "{}", error.message);
}

#[test]
fn only_ours_are_listed_and_all_pages_of_them() {
    let world = World::new();
    let host = world.host();
    assert_eq!(CodeSandbox.list(host.provider()), Ok(Vec::new()));
    let id = world.boot();
    for _ in 0..51 {
        world.request("POST", "/sandbox/69vrxg/fork", &json!({"tags": ["pcoder"], "title": "t"}));
    }
    world.request("POST", "/sandbox/69vrxg/fork", &json!({"tags": ["sdk"]}));
    let listed = CodeSandbox.list(host.provider()).unwrap();
    assert_eq!(listed.len(), 52);
    let ready: Vec<_> = listed.iter().filter(|it| it.status == "ready").map(|it| it.id.clone()).collect();
    assert_eq!(ready, [id]);
    assert!(listed.iter().any(|it| it.details.contains(&Setting::new("title", "t"))));
}

fn a_copy_has_the_files_and_a_life_of_its_own(agent: Agent) {
    let world = World::of(agent);
    let host = world.host();
    let id = world.boot();
    world.printed(&id, "echo one >~/x");
    let copy = CodeSandbox.fork(host.provider(), &id).unwrap();
    assert_eq!(copy.status, "ready");
    world.printed(&id, "echo two >~/x");
    assert_eq!(world.printed(&copy.id, "cat ~/x"), "one\n");
    CodeSandbox.terminate(host.provider(), &copy.id).unwrap();
    assert_eq!(world.printed(&id, "cat ~/x"), "two\n");
}

fn a_port_has_an_address_and_a_token_where_it_is_private(agent: Agent) {
    let world = World::of(agent);
    let host = world.host();
    let id = world.boot();
    let url = CodeSandbox.expose(host.provider(), &id, 8080).unwrap();
    let start = format!("https://{id}-8080.csb.app/?preview_token=");
    assert!(url.strip_prefix(&start).is_some_and(|token| !token.is_empty()), "{url}");
    let made = world.fake.requests().into_iter().rfind(|request| request.operation == "tokens.create").unwrap();
    assert!(made.body.unwrap()["expires_at"].is_string());
    // The address stays the same until somebody revokes the token.
    assert_eq!(CodeSandbox.expose(host.provider(), &id, 8080).unwrap(), url);
    world.request("DELETE", &format!("/sandbox/{id}/tokens"), &json!({}));
    let again = CodeSandbox.expose(host.provider(), &id, 8080).unwrap();
    assert_ne!(again, url);
    let mut public = options();
    public.options = vec![Setting::new("privacy", "unlisted")];
    let public = CodeSandbox.boot(host.provider(), public).unwrap();
    let url = CodeSandbox.expose(host.provider(), &public.id, 80).unwrap();
    assert_eq!(url, format!("https://{}-80.csb.app", public.id));
    assert_eq!(code(CodeSandbox.expose(host.provider(), &id, 0)), "invalid");
    for fault in ["tokens.create=missing:token", "tokens.create=null:token.token", "sandbox.get=missing:privacy"] {
        world.fault(fault);
        let host = world.host();
        assert_eq!(code(CodeSandbox.expose(host.provider(), &id, 80)), "server", "{fault}");
    }
    assert_eq!(host.files_kept(), 1);
    CodeSandbox.terminate(host.provider(), &id).unwrap();
    assert_eq!(host.files_kept(), 0);
}

#[test]
fn every_failure_of_the_service_has_its_code() {
    let world = World::new();
    let host = world.host();
    let id = world.boot();
    for (status, expected) in [
        (400, "invalid"),
        (401, "unauthenticated"),
        (402, "denied"),
        (403, "denied"),
        (404, "not-found"),
        (409, "conflict"),
        (422, "invalid"),
        (429, "rate-limited"),
        (500, "server"),
        (502, "unavailable"),
        (503, "unavailable"),
    ] {
        for html in ["", ",html=true"] {
            world.fault(&format!("sandbox.get={status},times=9{html}"));
            let error = failure(CodeSandbox.get(host.provider(), &id));
            assert_eq!((error.code.as_str(), error.operation.as_str()), (expected, "provider.get"), "{status}");
            assert!(error.message.contains(&status.to_string()), "{}", error.message);
            let hinted = [401, 402, 403, 429].contains(&status);
            assert_eq!(error.hint.is_some(), hinted, "{status}: {error:?}");
            world.fake.faults().clear();
        }
    }
    for fault in ["drop-before", "drop-after"] {
        world.fault(&format!("sandbox.get={fault},times=9"));
        assert_eq!(code(CodeSandbox.get(host.provider(), &id)), "network", "{fault}");
        world.fake.faults().clear();
    }
    world.fault("sandbox.get=silent,times=9");
    let hasty = world.host().patience(Duration::from_millis(300));
    assert_eq!(code(CodeSandbox.get(hasty.provider(), &id)), "timeout");
    world.fake.faults().clear();
    for (fault, field) in [
        ("sandbox.get=missing:id", "`id`"),
        ("sandbox.get=null:id", "`id`"),
        ("vm.running=missing:vms", "`vms`"),
        ("vm.running=null:vms", "`vms`"),
    ] {
        world.fault(fault);
        let error = failure(CodeSandbox.get(host.provider(), &id));
        assert_eq!(error.code, "server");
        assert!(error.message.contains(field), "{}", error.message);
    }
    let other = world.boot();
    world.fault("sandbox.get=other-sandbox");
    let error = failure(CodeSandbox.get(host.provider(), &id));
    assert!(error.message.contains("another sandbox"), "{} {other}", error.message);
    for fault in ["sandbox.list=missing:sandboxes", "sandbox.list=null:pagination"] {
        world.fault(fault);
        assert_eq!(code(CodeSandbox.list(host.provider())), "server", "{fault}");
    }
}

#[test]
fn what_may_be_done_twice_is_tried_again() {
    let world = World::new();
    let host = world.host();
    let id = world.boot();
    for fault in ["503", "502,times=2", "drop-before", "drop-after", "truncated", "429,retry_after=1"] {
        for operation in ["sandbox.get", "vm.running"] {
            world.fault(&format!("{operation}={fault}"));
            assert_eq!(CodeSandbox.get(host.provider(), &id).unwrap().status, "ready", "{operation} {fault}");
        }
        world.fault(&format!("vm.hibernate={fault}"));
        CodeSandbox.stop(host.provider(), &id).unwrap();
        world.fault(&format!("vm.start={fault}"));
        assert_eq!(CodeSandbox.resume(host.provider(), &id).unwrap().status, "ready", "{fault}");
    }
    world.fault("connect=503,times=2");
    assert_eq!(world.printed(&id, "echo ok"), "ok\n");
    world.fault("vm.delete=drop-after");
    CodeSandbox.terminate(host.provider(), &id).unwrap();
    assert_eq!(world.fake.sandboxes(), []);
}

#[test]
fn a_budget_that_is_used_up_says_how_long() {
    let world = World::with(Options { sandboxes_hourly: 1, ..Options::default() });
    let host = world.host();
    world.boot();
    let error = failure(CodeSandbox.boot(host.provider(), options()));
    assert_eq!(error.code, "rate-limited");
    let wait = error.retry_after_ms.unwrap();
    assert!((1..=3_600_000).contains(&wait), "{wait}");
    assert!(error.hint.unwrap().contains("new sandboxes"));
    let full = World::with(Options { concurrent_vms: 1, ..Options::default() });
    full.boot();
    let host = full.host();
    let error = failure(CodeSandbox.boot(host.provider(), options()));
    assert_eq!((error.code.as_str(), error.retry_after_ms), ("rate-limited", None));
    assert!(error.hint.unwrap().contains("stop one"));
    assert_eq!(full.fake.sandboxes().len(), 1);
}

#[test]
fn a_wrong_key_says_where_it_is_set() {
    let world = World::new();
    let host = crate::host::RealHost::new(&world.fake.base_url(), "csb_v1_other");
    let error = failure(CodeSandbox.list(host.provider()));
    assert_eq!(error.code, "unauthenticated");
    assert!(error.hint.unwrap().contains("secrets.CSB_API_KEY"));
}

#[test]
fn pitcher_is_taken_where_both_are_there_and_pint_where_it_is_not() {
    let world = World::of(Agent::Pint);
    let id = world.boot();
    assert_eq!(world.printed(&id, "echo up"), "up\n");
    let of_pint = |world: &World| world.operations().iter().filter(|it| it.starts_with("pint.")).count();
    assert_eq!(of_pint(&world), 0);
    // It says that it has both, and nobody is there.
    world.fault("connect=503,times=9");
    assert_eq!(world.printed(&id, "echo up"), "up\n");
    assert_ne!(of_pint(&world), 0);
    // What the user does not allow is told, and no way around it is taken.
    let host = world.host().allow("wss://elsewhere.example/");
    assert_eq!(code(CodeSandbox.read_file(host.provider(), &id, "~/x")), "denied");
}

#[test]
fn a_boot_that_fails_over_pint_leaves_nothing() {
    for (fault, expected) in [
        ("vm.start=missing:pint_url", "server"),
        ("vm.start=null:pint_token", "server"),
        ("pint.setup-tasks.get=500,times=9", "server"),
        ("pint.setup-tasks.get=503,times=9", "unavailable"),
        ("pint.setup-tasks.get=401", "unauthenticated"),
        ("pint.setup-tasks.get=missing:setupTasks", "server"),
        ("pint.setup-tasks.get=truncated,times=9", "server"),
        ("pint.setup-tasks.get=drop-before,times=9", "unavailable"),
    ] {
        let world = World::of(Agent::PintAlone);
        world.fault(fault);
        let host = world.host();
        let error = CodeSandbox.boot(host.provider(), options()).expect_err(fault);
        assert_eq!((error.code.as_str(), error.operation.as_str()), (expected, "provider.boot"), "{fault}: {error:?}");
        assert_eq!(world.fake.sandboxes(), [], "{fault}");
    }
}

#[test]
fn the_tags_of_a_boot_are_few_and_ours() {
    let world = World::new();
    world.boot();
    let body: Value = world.fake.requests()[0].body.clone().unwrap();
    let tags: Vec<_> = body["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect();
    assert_eq!(tags.len(), 2);
    assert!(tags.iter().all(|tag| tag.starts_with("pcoder")));
}
