//! How a fake behaves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Which agent runs in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Agent {
    /// The one that official clients speak with today: msgpack over a WebSocket.
    #[default]
    Pitcher,
    /// Both, as a start's answer says: that one, and the newer one, which speaks REST and server-sent events.
    Pint,
    /// The newer one alone: a start's answer says nothing of the other, and nobody is there.
    PintAlone,
}

impl Agent {
    /// Whether the newer one is there.
    pub(crate) fn has_pint(self) -> bool {
        self != Self::Pitcher
    }
}

/// A step of the set-up that runs when a sandbox boots afresh (`CLEAN`).
#[derive(Debug, Clone)]
pub struct SetupStep {
    /// What people see.
    pub name: String,
    /// The line for bash, run in the workspace. A code other than 0 stops the set-up.
    pub command: String,
}

/// A task of the workspace (`task/list`).
#[derive(Debug, Clone)]
pub struct Task {
    /// What people see.
    pub name: String,
    /// The line for bash, run in the workspace.
    pub command: String,
    /// The port that it is expected to open.
    pub port: Option<u16>,
}

/// How a [`crate::FakeCodeSandbox`] behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The port of the REST API on 127.0.0.1; 0, the default, takes a free one. The agents always listen on a free one.
    pub port: u16,
    /// The key that the REST API asks for. `csb_v1_fake` by default.
    pub key: String,
    /// The scopes of the key; all four by default.
    pub scopes: Vec<String>,
    /// Where the instances' folders are made. `None`, the default: a temporary folder that is removed at the end.
    pub root: Option<PathBuf>,
    /// The ids that can be forked without having been created. `pcz35m`, `7ngcrf` and `69vrxg` by default.
    pub templates: Vec<String>,
    /// The files in the workspace of each template, by path below it.
    pub template_files: BTreeMap<String, Vec<u8>>,
    /// Folders of this machine that instances see too, read-only, and where: programs that their image has. None by
    /// default.
    pub shared: Vec<(PathBuf, String)>,
    /// Variables of commands, beside those of a login or instead of them. None by default.
    pub environment: Vec<(String, String)>,
    /// The agent of every sandbox.
    pub agent: Agent,
    /// Notifications and replies come in the orders that hurt, in turn: a command ends before its creation is answered,
    /// output comes after the end, replies come in another order than requests.
    pub shuffle_notifications: bool,
    /// Requests an hour. 10000 by default.
    pub requests_hourly: u64,
    /// New sandboxes an hour. 1000 by default.
    pub sandboxes_hourly: u64,
    /// Sandboxes that run at once. 100 by default.
    pub concurrent_vms: usize,
    /// How long a start takes that is not `RUNNING`. Nothing by default.
    pub boot_time: Duration,
    /// How long a shutdown and a hibernation take. Nothing by default.
    pub stop_time: Duration,
    /// How long after its creation the first output or the end of a shell is told, unless the client has named the
    /// shell before. 20 ms by default: the service has to enter a container. The official SDK loses what comes at once.
    pub exec_delay: Duration,
    /// What runs at a `CLEAN` boot. One step that succeeds by default.
    pub setup: Vec<SetupStep>,
    /// `setup/get` has no steps right after a boot, and `setup/progress` brings them a moment later.
    pub late_setup: bool,
    /// The tasks of every workspace. None by default.
    pub tasks: Vec<Task>,
    /// A WebSocket message with more bytes closes the connection with 1009. 64 MiB by default.
    pub max_frame: usize,
    /// What port's addresses end in: `https://ID-PORT.SUFFIX`. `csb.app` by default.
    pub host_suffix: String,
}

impl Default for Options {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            port: 0,
            key: "csb_v1_fake".to_owned(),
            scopes: words(&["sandbox_create", "sandbox_edit_code", "sandbox_read", "vm_manage"]),
            root: None,
            templates: words(&["pcz35m", "7ngcrf", "69vrxg"]),
            template_files: BTreeMap::new(),
            shared: Vec::new(),
            environment: Vec::new(),
            agent: Agent::Pitcher,
            shuffle_notifications: false,
            requests_hourly: 10_000,
            sandboxes_hourly: 1_000,
            concurrent_vms: 100,
            boot_time: Duration::ZERO,
            stop_time: Duration::ZERO,
            exec_delay: Duration::from_millis(20),
            setup: vec![SetupStep { name: "Setup".to_owned(), command: "true".to_owned() }],
            late_setup: false,
            tasks: Vec::new(),
            max_frame: 64 << 20,
            host_suffix: "csb.app".to_owned(),
        }
    }
}
