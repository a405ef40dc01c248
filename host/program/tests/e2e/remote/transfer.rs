//! What a project costs in requests on its way to an instance. Over a network each is a wait.

use std::path::Path;

use pcoder_core::instances::plain_boot;
use pcoder_core::run_remote::OverShell;
use pcoder_core::sync::Sync;
use pcoder_core::{Feed, Pcoder};
use pcoder_fake_codesandbox::FakeCodeSandbox;
use pcoder_fake_morph::{FakeMorph, Options};
use tokio_util::sync::CancellationToken;

use super::conformance::pcoder;
use super::{KEY, SNAPSHOT, runtime};

const FILES: u64 = 5_000;
const BYTES: u64 = 50_000_000;
/// What a sync may need beside its content: it looks, and it says what goes where.
const AROUND: u64 = 5;

/// A project whose files do not get smaller when they are packed.
fn project(folder: &Path) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        // Xorshift; any bytes do that no packer knows.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    for file in 0..FILES {
        let parent = folder.join(format!("folder {}", file % 50));
        std::fs::create_dir_all(&parent).expect("a folder");
        let content: Vec<u8> = (0..BYTES / FILES / 8).flat_map(|_| random()).collect();
        std::fs::write(parent.join(format!("file {file}")), content).expect("a file");
    }
}

/// How many requests `needed` ones may become.
fn allowed(needed: u64) -> u64 {
    (needed * 12).div_ceil(10) + AROUND
}

/// A push of a whole project, and one of nothing, with how many requests each was.
async fn pushes(pcoder: &Pcoder, name: &str, image: Option<&str>, folder: &Path, count: &dyn Fn() -> u64) -> [u64; 2] {
    let provider = pcoder.provider(name, CancellationToken::new()).await.expect("a provider");
    let mut boot = plain_boot();
    boot.image = image.map(str::to_owned);
    let instance = provider.boot(&boot).await.expect("an instance");
    let local = folder.join("project");
    project(&local);
    let there = format!("{}/there", provider.home(&instance).await.expect("a home"));
    let push = async || {
        let before = count();
        let remote = OverShell::new(&provider, &instance.id);
        let sync = Sync::new(&local, &there, folder.join("state"));
        let pushed = sync.push(&remote).await.expect("a push");
        (count() - before, pushed)
    };
    let (first, pushed) = push().await;
    assert_eq!(pushed.files, FILES, "{pushed:?}");
    assert!(pushed.sent >= BYTES, "{pushed:?}");
    let (second, pushed) = push().await;
    assert_eq!(pushed.files, 0, "{pushed:?}");
    let files = format!("find {there} -type f | wc -l");
    let listed = provider.shell(&instance.id, &files, Feed::Nothing, 4096).await.expect("a list");
    let listed = String::from_utf8(listed.stdout.bytes).expect("text");
    assert_eq!(listed.trim(), FILES.to_string());
    provider.terminate(&instance.id).await.expect("an end");
    eprintln!("{name}: {first} requests, and {second} without a change");
    [first, second]
}

fn on_morph(with_gateway: bool) -> [u64; 2] {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let pcoder = pcoder(folder.path(), &[("MORPH_API_KEY", KEY)]);
    runtime().block_on(async {
        let fake = FakeMorph::start(Options { key: KEY.to_owned(), ..Options::default() }).await.expect("a fake");
        // Where nobody listens.
        let gateway = if with_gateway { fake.ssh_address().to_string() } else { "127.0.0.1:1".to_owned() };
        pcoder.set("plugins.provider-morph.endpoint", Some(&fake.base_url())).expect("a setting");
        pcoder.set("plugins.provider-morph.ssh", Some(&format!("ssh://{gateway}"))).expect("a setting");
        let count = || (fake.requests().len() + fake.gateway_runs()) as u64;
        let counts = pushes(&pcoder, "morph", Some(SNAPSHOT), folder.path(), &count).await;
        fake.stop().await.expect("it ends");
        counts
    })
}

#[test]
fn a_project_is_one_stream_over_morphs_gateway() {
    let [first, second] = on_morph(true);
    assert!(first <= allowed(1), "{first} requests");
    assert!(second <= 2, "{second} requests without a change");
}

#[test]
fn a_project_goes_in_full_requests_where_morph_has_no_gateway() {
    let [first, second] = on_morph(false);
    // The largest argument of a command, as base64 carries it.
    assert!(first <= allowed(BYTES.div_ceil(95 << 10)), "{first} requests");
    assert!(second <= 2, "{second} requests without a change");
}

/// The most content that the provider puts into one message to a sandbox's agent.
const MESSAGE: u64 = 4 << 20;

#[test]
fn a_project_goes_in_full_messages_to_codesandbox() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let options = pcoder_fake_codesandbox::Options::default();
    let pcoder = pcoder(folder.path(), &[("CSB_API_KEY", &options.key)]);
    runtime().block_on(async {
        let fake = FakeCodeSandbox::start(options).await.expect("a fake");
        let agent = format!("ws://{}", fake.agents_address());
        pcoder.set("plugins.provider-codesandbox.endpoint", Some(&fake.base_url())).expect("a setting");
        pcoder.set("plugins.provider-codesandbox.agent", Some(&agent)).expect("a setting");
        // Of a command's messages to the agent, those with its content; and its commands, each on a connection. What
        // the provider writes beside that (scripts, leases) is small.
        let written = || fake.messages().into_iter().filter(|it| it.method == "fs/writeFile" && it.size > 4096);
        let connections = || fake.messages().iter().filter(|it| it.method == "client/join").count();
        let count = || (written().count() + connections()) as u64;
        let [first, second] = pushes(&pcoder, "codesandbox", None, folder.path(), &count).await;
        assert!(first <= allowed(BYTES.div_ceil(MESSAGE)), "{first} requests");
        assert!(second <= 2, "{second} requests without a change");
        let carried: usize = written().map(|it| it.size).sum();
        assert!(carried as u64 >= BYTES, "{carried} bytes went elsewhere");
        fake.stop().await;
    });
}
