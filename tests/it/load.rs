//! What is not a plugin is refused, with the reason.

use std::sync::Arc;

use pcoder_runtime::audit::Nowhere;
use pcoder_runtime::manifest::Capabilities;
use pcoder_runtime::process::Processes;
use pcoder_runtime::{Error, Runtime};
use pcoder_tests::{component, with_manifest};

const AGENT: &str = "description = \"x\"\nname = \"x\"\nversion = \"1.0.0\"\nkind = \"agent\"\ncontract = \"0.1.0\"\n";

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("a component")
}

fn refused(wasm: &[u8]) -> Error {
    let runtime = Runtime::new(Arc::new(Nowhere), Processes::new(false), None).expect("a runtime");
    match runtime.load(wasm, None, |_| Capabilities::default()) {
        Ok(_) => panic!("it was loaded"),
        Err(error) => error,
    }
}

#[track_caller]
fn assert_refused(wasm: &[u8], code: &str, reason: &str) {
    let error = refused(wasm);
    assert!(error.is(code) && error.message.contains(reason), "not {code} `{reason}`, but {error:?}");
}

#[test]
fn what_is_no_component() {
    assert_refused(b"", "invalid", "it is not WebAssembly");
    assert_refused(b"#!/bin/sh\necho hi\n", "invalid", "it is not WebAssembly");
    assert_refused(b"\0asm", "invalid", "not valid WebAssembly");
    assert_refused(&wat("(module)"), "invalid", "a core module");
    assert!(refused(&wat("(module)")).hint.as_ref().is_some_and(|hint| hint.contains("wasm-tools component new")));
}

#[test]
fn what_was_cut_or_added_to() {
    let whole = component("hostile");
    for length in [9, whole.len() / 4, whole.len() / 2, whole.len() - 1] {
        assert_refused(&whole[..length], "invalid", "not valid WebAssembly");
    }
    for garbage in [&b"\0"[..], b"garbage", &[0xff; 64]] {
        let longer = [&whole[..], garbage].concat();
        let error = refused(&longer);
        assert!(error.is("invalid"), "{error:?}");
    }
}

#[test]
fn a_body_that_does_not_validate() {
    let mut broken = component("hostile");
    let at = broken.len() / 2;
    broken[at..at + 64].fill(0xff);
    let error = refused(&broken);
    assert!(error.is("invalid"), "{error:?}");
}

#[test]
fn a_manifest_that_is_missing_or_there_twice() {
    assert_refused(&wat("(component)"), "invalid", "it has no manifest");
    let twice = with_manifest(with_manifest(wat("(component)"), AGENT), AGENT);
    assert_refused(&twice, "invalid", "more than one manifest");
    assert_refused(&with_manifest(component("hostile"), AGENT), "invalid", "more than one manifest");
    // One that is not at the top is somebody else's.
    let nested = wat("(component (component $inner))");
    assert_refused(&nested, "invalid", "it has no manifest");
}

#[test]
fn a_manifest_that_says_what_cannot_be_enforced() {
    let with = |manifest: &str| with_manifest(wat("(component)"), manifest);
    for (more, code, reason) in [
        ("colour = \"red\"", "invalid", "unknown field `colour`"),
        ("[[exec]]\nprogram = \"ls\"\nshell = true", "invalid", "unknown field `shell`"),
        ("[[exec]]\nprogram = \"ls\"", "invalid", "an argument grammar"),
        ("[[exec]]\nprogram = \"ls\"\nargs = [\"<path>\"]", "invalid", "unknown placeholder"),
        ("[[exec]]\nprogram = \"ls\"\nargs = [\"... x\"]", "invalid", "must come last"),
        ("[[exec]]\nprogram = \"as called\"\nargs = [\"...\"]", "invalid", "takes no argument grammar"),
        ("[[files]]\nroot = \"state\"\naccess = \"all\"", "invalid", "unknown variant `all`"),
        ("[[net]]\nurl = \"https://*/\"", "invalid", "`*`"),
        ("[[net]]\nurl = \"https://a@b.test/\"", "invalid", "no credentials"),
        ("[[net]]\nurl = \"file:///etc\"", "invalid", "the scheme must be"),
        ("[[net]]\nurl = \"https://b.test/\"\naddresses = [\"any\"]", "invalid", "unknown variant `any`"),
        ("[[secrets]]\nname = \"K\"\nto = [\"everywhere\"]", "invalid", "not a URL"),
        ("[limits]\nmemory-gib = 1", "invalid", "unknown field `memory-gib`"),
        ("target = true", "invalid", "invalid type"),
    ] {
        assert_refused(&with(&format!("{AGENT}{more}\n")), code, reason);
    }
    assert_refused(&with(&AGENT.replace("0.1.0", "0.9.0")), "unsupported", "contract 0.9.0, this pcoder serves 0.1.0");
    assert_refused(&with(&AGENT.replace("\"agent\"", "\"toaster\"")), "invalid", "unknown variant `toaster`");
    assert_refused(&with(&AGENT.replace("\"x\"", "\"../x\"")), "invalid", "a plugin's name");
    assert_refused(&with("not toml"), "invalid", "");
    assert_refused(&with_manifest(wat("(component)"), ""), "invalid", "missing field");
}

#[test]
fn imports_that_no_world_knows_or_that_are_not_served() {
    let with = |kind: &str, import: &str| {
        let component = wat(&format!("(component (import \"{import}\" (instance)))"));
        with_manifest(component, &AGENT.replace("\"agent\"", &format!("\"{kind}\"")))
    };
    for (kind, import) in [
        ("credentials", "pcoder:plugin/ssh@0.1.0"),
        ("agent", "pcoder:plugin/websocket@0.1.0"),
        ("provider", "pcoder:plugin/target@0.1.0"),
        ("provider", "pcoder:plugin/process@0.2.0"),
        ("provider", "wasi:filesystem/types@0.3.0"),
        ("provider", "wasi:sockets/tcp@0.1.0"),
        ("provider", "wasi:clocks/timezone@0.2.12"),
        ("provider", "wasi:http/incoming-handler@0.2.12"),
        ("provider", "wasi:keyvalue/store@0.2.12"),
        ("provider", "wasi:io/poll@0.3.0"),
        ("provider", "evil:corp/backdoor"),
        ("process-manager", "pcoder:plugin/process@0.1.0"),
        ("process-manager", "wasi:http/outgoing-handler@0.2.12"),
        ("credentials", "pcoder:plugin/files@0.1.0"),
        ("agent", "wasi:http/outgoing-handler@0.2.12"),
        ("agent", "wasi:http/types@0.2.12"),
        ("agent", "pcoder:plugin/secrets@0.1.0"),
    ] {
        assert_refused(&with(kind, import), "unsupported", &format!("it imports `{import}`"));
    }
    // A known interface with a function that it does not have.
    let unknown = "(component (import \"pcoder:plugin/secrets@0.1.0\" (instance (export \"dump\" (func)))))";
    let manifest = AGENT.replace("\"agent\"", "\"provider\"");
    assert_refused(&with_manifest(wat(unknown), &manifest), "invalid", "does not fit the world `provider-plugin`");
    // A bare function.
    let bare = "(component (import \"system\" (func)))";
    assert_refused(&with_manifest(wat(bare), &manifest), "unsupported", "it imports `system`");
}

#[test]
fn exports_that_are_missing_or_another_worlds() {
    assert_refused(&with_manifest(wat("(component)"), AGENT), "invalid", "does not fit the world `agent-plugin`");
    // A real provider that says that it is an agent.
    let provider = component("hostile");
    let runtime = Runtime::new(Arc::new(Nowhere), Processes::new(false), None).expect("a runtime");
    let mut inspection = pcoder_runtime::inspect::inspect(&provider).expect("a plugin");
    inspection.manifest.kind = pcoder_runtime::manifest::Kind::Agent;
    let Err(error) = runtime.load_inspected(inspection, &provider, None, |_| Capabilities::default()) else {
        panic!("it was loaded")
    };
    assert!(error.is("unsupported"), "{error:?}");
}
