//! The suite that every provider has to pass, for those that are built in.

use std::ffi::OsString;
use std::path::Path;

use pcoder_core::{Bundled, Pcoder, Surroundings};
use pcoder_fake_codesandbox::{Agent, FakeCodeSandbox};
use pcoder_fake_morph::{ExecReading, FakeMorph, Options, SseFormat};
use pcoder_testkit::{Report, Subject, conformance};

use super::{KEY, SNAPSHOT, runtime};

/// The plugins of the program, as its build made them.
const BUNDLED: &[Bundled] = include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

pub(crate) fn pcoder(folder: &Path, more: &[(&str, &str)]) -> Pcoder {
    let mut environment: Vec<(OsString, OsString)> = vec![
        ("PCODER_HOME".into(), folder.join("pcoder").into()),
        ("HOME".into(), folder.join("home").into()),
        ("PATH".into(), std::env::var_os("PATH").unwrap_or_default()),
    ];
    environment.extend(more.iter().map(|&(name, value)| (name.into(), value.into())));
    std::fs::create_dir_all(folder.join("home")).expect("a folder");
    let surroundings = Surroundings { environment, cwd: folder.to_path_buf(), ..Surroundings::default() };
    Pcoder::new(surroundings, BUNDLED, false).expect("a pcoder")
}

pub(crate) fn passed(report: &Report) {
    assert!(report.passed(), "\n{report}");
    eprintln!("{report}");
}

#[test]
fn this_machine_is_a_provider() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let pcoder = pcoder(folder.path(), &[]);
    passed(&runtime().block_on(conformance(&Subject::new(&pcoder, "local"))));
}

fn morph(options: Options) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let pcoder = pcoder(folder.path(), &[("MORPH_API_KEY", KEY)]);
    let report = runtime().block_on(async {
        let fake = FakeMorph::start(Options { key: KEY.to_owned(), ..options }).await.expect("a fake");
        let ssh = format!("ssh://{}", fake.ssh_address());
        pcoder.set("plugins.provider-morph.endpoint", Some(&fake.base_url())).expect("a setting");
        pcoder.set("plugins.provider-morph.ssh", Some(&ssh)).expect("a setting");
        let report = conformance(&Subject::new(&pcoder, "morph").image(SNAPSHOT)).await;
        fake.stop().await.expect("it ends");
        report
    });
    passed(&report);
}

#[test]
fn morph_is_a_provider() {
    morph(Options::default());
}

#[test]
fn morph_is_a_provider_whatever_its_exec_and_its_events_mean() {
    morph(Options { exec: ExecReading::Strict, sse: SseFormat::Named, boot_polls: 3, ..Options::default() });
}

#[test]
fn codesandbox_is_a_provider() {
    codesandbox(Agent::Pitcher);
}

#[test]
fn codesandbox_is_a_provider_where_it_has_its_newer_agent_alone() {
    codesandbox(Agent::PintAlone);
}

fn codesandbox(agent: Agent) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let options = pcoder_fake_codesandbox::Options { agent, ..pcoder_fake_codesandbox::Options::default() };
    let pcoder = pcoder(folder.path(), &[("CSB_API_KEY", &options.key)]);
    let report = runtime().block_on(async {
        let fake = FakeCodeSandbox::start(options).await.expect("a fake");
        let agent = format!("ws://{}", fake.agents_address());
        pcoder.set("plugins.provider-codesandbox.endpoint", Some(&fake.base_url())).expect("a setting");
        pcoder.set("plugins.provider-codesandbox.agent", Some(&agent)).expect("a setting");
        let pint = format!("http://{}", fake.agents_address());
        pcoder.set("plugins.provider-codesandbox.pint", Some(&pint)).expect("a setting");
        let report = conformance(&Subject::new(&pcoder, "codesandbox")).await;
        fake.stop().await;
        report
    });
    passed(&report);
}
