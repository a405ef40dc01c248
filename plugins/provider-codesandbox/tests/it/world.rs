//! A stand-in for the service, and what tests do with it over and over.

use std::time::Duration;

use pcoder_fake_codesandbox::{Agent, FakeCodeSandbox, Fault, Options};
use pcoder_sdk::http::Request;
use pcoder_sdk::testing::FakeStdio;
use pcoder_sdk::{BootOptions, CommandSpec, Error, ExitStatus, Output, Provider as _, Result};
use provider_codesandbox::CodeSandbox;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::host::RealHost;

/// Makes a test of each agent out of a function of one: what sandboxes do is the same, whichever they have.
macro_rules! with_both_agents {
    ($($name:ident)+) => {
        mod pitcher {
            $(#[test] fn $name() { super::$name(pcoder_fake_codesandbox::Agent::Pitcher) })+
        }
        mod pint {
            $(#[test] fn $name() { super::$name(pcoder_fake_codesandbox::Agent::PintAlone) })+
        }
    };
}
pub(crate) use with_both_agents;

/// The service, running.
pub(crate) struct World {
    pub(crate) fake: FakeCodeSandbox,
    // The service runs on it.
    pub(crate) runtime: Runtime,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    /// One whose sandboxes have this agent.
    pub(crate) fn of(agent: Agent) -> Self {
        Self::with(Options { agent, ..Options::default() })
    }

    pub(crate) fn with(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let fake = runtime.block_on(FakeCodeSandbox::start(options)).unwrap();
        Self { fake, runtime }
    }

    pub(crate) fn host(&self) -> RealHost {
        RealHost::new(&self.fake.base_url(), "csb_v1_fake")
    }

    /// A sandbox that runs.
    pub(crate) fn boot(&self) -> String {
        let host = self.host();
        CodeSandbox.boot(host.provider(), options()).unwrap().id
    }

    pub(crate) fn fault(&self, text: &str) {
        self.fake.faults().push(text.parse::<Fault>().unwrap());
    }

    /// Sends a request of a test's own.
    pub(crate) fn request(&self, method: &str, path: &str, body: &Value) {
        let request = Request::new(method, format!("{}{path}", self.fake.base_url()))
            .header("authorization", "Bearer csb_v1_fake")
            .body("application/json", body.to_string());
        let response = self.host().provider().http().send(&request).unwrap();
        assert!(response.status < 300, "{}", String::from_utf8_lossy(&response.body));
    }

    /// Shuts a sandbox down, so that its next boot is a fresh one.
    pub(crate) fn shutdown(&self, id: &str) {
        self.request("POST", &format!("/vm/{id}/shutdown"), &Value::Object(serde_json::Map::new()));
    }

    /// The operations that were asked for since the beginning, in order.
    pub(crate) fn operations(&self) -> Vec<String> {
        self.fake.requests().into_iter().map(|request| request.operation).collect()
    }

    /// How often an agent was asked for a method.
    pub(crate) fn asked(&self, method: &str) -> usize {
        self.fake.messages().iter().filter(|message| message.method == method).count()
    }

    /// Runs a command with this input, all of which is there.
    pub(crate) fn exec(&self, id: &str, spec: CommandSpec, input: &[u8]) -> Result<Output> {
        exec_on(&self.host(), id, spec, FakeStdio::new(input))
    }

    /// What a command prints.
    pub(crate) fn printed(&self, id: &str, script: &str) -> String {
        let output = self.exec(id, CommandSpec::shell(script), b"").unwrap();
        assert_eq!(output.status, ExitStatus::Exited(0), "{}", String::from_utf8_lossy(&output.stderr));
        output.text()
    }

    /// Waits until the stand-in is like that.
    pub(crate) fn wait_until(&self, so: impl Fn(&FakeCodeSandbox) -> bool) {
        assert!(self.runtime.block_on(self.fake.wait_until(Duration::from_secs(60), so)));
    }
}

pub(crate) fn exec_on(host: &RealHost, id: &str, spec: CommandSpec, stdio: FakeStdio) -> Result<Output> {
    let status = CodeSandbox.exec(host.provider(), id, spec, stdio.handle())?;
    Ok(Output { status, stdout: stdio.written(), stderr: stdio.written_to_error() })
}

pub(crate) fn options() -> BootOptions {
    BootOptions { image: None, name: None, ttl_seconds: None, ttl_action: None, project: None, options: Vec::new() }
}

/// The code of what must fail.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T>) -> String {
    failure(result).code
}

pub(crate) fn failure<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.unwrap_err()
}
