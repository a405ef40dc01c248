//! The program as what keeps programs running beyond the calls of plugins.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use pcoder_service::{Exit, Launcher, Services, Spec, State};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::support::World;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_program_keeps_another_one_running_and_ends_it() {
    let world = World::without_engines();
    let program = std::path::PathBuf::from(env!("CARGO_BIN_EXE_pcoder"));
    let launcher = Launcher {
        program,
        supervise: vec!["__service".into()],
        become_program: vec!["__service-program".into(), "--".into()],
    };
    let sockets =
        tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().expect("a folder");
    let services = Services::new(world.path("services"), sockets.path(), launcher);
    let script = "echo \"$- $#: $1 $2\"; exec cat";
    let spec = Spec {
        program: "/bin/sh".into(),
        // What looks like an option of pcoder's is the program's.
        args: ["-v", "-c", script, "sh", "--help", "-v"].map(Into::into).to_vec(),
        cwd: "/".into(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let status = services.start("vm-1", "a test", spec, |command| command.spawn()).await.expect("it starts");
        assert_eq!(status.state, State::Running);
        let mut talk = services.talk("vm-1", LONG).await.expect("a talk");
        talk.input.write_all(b"hello\n").await.expect("it listens");
        talk.input.flush().await.expect("it listens");
        let mut lines = BufReader::new(talk.output).lines();
        assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("v 2: --help -v"));
        assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("hello"));
        assert_eq!(services.stop("vm-1", LONG).await.expect("it ends"), Some(Exit::Signaled(15)));
        assert_eq!(lines.next_line().await.expect("the end"), None);
    });
    services.remove("vm-1").expect("removed");
    assert_eq!(std::fs::read_dir(sockets.path()).expect("a folder").count(), 0);
}
