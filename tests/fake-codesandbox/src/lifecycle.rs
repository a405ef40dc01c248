//! What happens to sandboxes: they start, hibernate, are shut down and deleted.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cloud::{ApiError, Cloud, PITCHER_VERSION, WORKSPACE, blocking, word};
use crate::options::Agent as Kind;
use crate::pitcher::setup;
use crate::sandbox::{Access, Phase, Sandbox, StartOptions};

/// A place among those that run at once, until the sandbox itself counts.
struct Booting<'a>(&'a Cloud);

impl Drop for Booting<'_> {
    fn drop(&mut self) {
        self.0.booting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Cloud {
    fn reserve(&self) -> Result<Booting<'_>, ApiError> {
        let booting = self.booting.fetch_add(1, Ordering::SeqCst);
        let place = Booting(self);
        let full = self.running() + booting >= self.options.concurrent_vms;
        if full { Err(ApiError::new(429, "Concurrent VM limit reached")) } else { Ok(place) }
    }

    /// Starts a sandbox, or says how to reach one that runs.
    pub(crate) async fn start(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        options: &StartOptions,
    ) -> Result<Value, ApiError> {
        options.check()?;
        let _moving = sandbox.moving.lock().await;
        // It may have been deleted meanwhile.
        self.sandbox(&sandbox.id)?;
        let before = sandbox.facts().phase;
        let _booting;
        if before != Phase::Running {
            _booting = self.reserve()?;
            tokio::time::sleep(self.options.boot_time).await;
            if before == Phase::Hibernated {
                let machine = sandbox.machine.clone();
                blocking(move || machine.resume()).await?;
            }
        }
        let token = format!("pt_{}", word(32));
        {
            let mut facts = sandbox.facts();
            let now = Timestamp::now();
            if before != Phase::Running {
                facts.phase = Phase::Running;
                facts.started_at = now;
                facts.updated = now;
            }
            facts.active = Instant::now();
            facts.active_at = now;
            if let Some(tier) = &options.tier {
                facts.tier.clone_from(tier);
            }
            if let Some(seconds) = options.hibernation_timeout_seconds {
                facts.hibernation_timeout = seconds;
            }
            if let Some(wakeup) = &options.automatic_wakeup_config {
                facts.wake_on_http = wakeup.http.unwrap_or(true);
            }
            let environment = self.options.environment.clone();
            facts.tokens.insert(token.clone(), Access { environment, ..Access::global() });
        }
        match before {
            Phase::Forked => setup::finished(self, sandbox),
            Phase::Off => setup::run(self, sandbox).await,
            Phase::Hibernated | Phase::Running => {}
        }
        let bootup = match before {
            Phase::Forked => "FORK",
            Phase::Off => "CLEAN",
            Phase::Hibernated => "RESUME",
            Phase::Running => "RUNNING",
        };
        Ok(self.started(sandbox, bootup, &token))
    }

    /// The answer to a start.
    fn started(&self, sandbox: &Sandbox, bootup: &str, token: &str) -> Value {
        let pint = self.options.agent.has_pint();
        let mut answer = json!({
            "id": sandbox.id,
            "bootup_type": bootup,
            "cluster": "fake-cluster-1",
            "pitcher_url": self.pitcher_url(sandbox),
            "pitcher_token": token,
            "pitcher_version": PITCHER_VERSION,
            "latest_pitcher_version": PITCHER_VERSION,
            "pitcher_manager_version": PITCHER_VERSION,
            "reconnect_token": format!("rt_{}", word(16)),
            "workspace_path": WORKSPACE,
            "user_workspace_path": WORKSPACE,
            "use_pint": pint,
        });
        if pint {
            answer["pint_url"] = format!("http://{}/pint/{}", self.agents, sandbox.id).into();
            answer["pint_token"] = token.into();
            answer["vm_agent_type"] = "pint".into();
        }
        if self.options.agent == Kind::PintAlone
            && let Some(fields) = answer.as_object_mut()
        {
            fields.retain(|name, _| !matches!(name.as_str(), "pitcher_url" | "pitcher_token"));
        }
        answer
    }

    pub(crate) fn pitcher_url(&self, sandbox: &Sandbox) -> String {
        format!("ws://{}/{}", self.agents, sandbox.id)
    }

    /// A session of its own for a user, with a new token.
    pub(crate) fn session(&self, sandbox: &Sandbox, name: &str, write: bool) -> Result<(String, Access), ApiError> {
        let home = format!("/project/home/{name}");
        let workspace = format!("{home}/workspace");
        if let Some(path) = sandbox.machine.path(&workspace) {
            fs::create_dir_all(path)?;
        }
        let environment = self.options.environment.clone();
        let access = Access { username: name.to_owned(), workspace, home, write, environment };
        let token = format!("pt_{}", word(32));
        sandbox.facts().tokens.insert(token.clone(), access.clone());
        Ok((token, access))
    }

    /// Hibernates a sandbox that runs; with `idle`, only if it was not used for that long.
    pub(crate) async fn hibernate(&self, sandbox: &Arc<Sandbox>, idle: Option<Duration>) -> Result<(), ApiError> {
        let _moving = sandbox.moving.lock().await;
        {
            let facts = sandbox.facts();
            if facts.phase != Phase::Running {
                return Err(ApiError::not_found());
            }
            if idle.is_some_and(|idle| facts.active.elapsed() < idle) {
                return Ok(());
            }
        }
        tokio::time::sleep(self.options.stop_time).await;
        {
            let mut facts = sandbox.facts();
            facts.phase = Phase::Hibernated;
            facts.updated = Timestamp::now();
            facts.tokens.clear();
        }
        sandbox.agent.hibernating();
        let machine = sandbox.machine.clone();
        blocking(move || machine.pause()).await?;
        Ok(())
    }

    /// Shuts a sandbox down that runs. What is in the workspace and the home stays; `/tmp` and processes do not.
    pub(crate) async fn shutdown(&self, sandbox: &Arc<Sandbox>) -> Result<(), ApiError> {
        let _moving = sandbox.moving.lock().await;
        if !sandbox.running() {
            return Err(ApiError::not_found());
        }
        tokio::time::sleep(self.options.stop_time).await;
        {
            let mut facts = sandbox.facts();
            facts.phase = Phase::Off;
            facts.updated = Timestamp::now();
            facts.tokens.clear();
        }
        sandbox.agent.gone("Pitcher shutdown");
        let machine = sandbox.machine.clone();
        blocking(move || {
            machine.reboot()?;
            let Some(temporary) = machine.path("/tmp") else { return Ok(()) };
            for entry in fs::read_dir(temporary)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())
                } else {
                    fs::remove_file(entry.path())
                }?;
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Deletes a sandbox, whatever it does.
    pub(crate) async fn delete(&self, sandbox: &Arc<Sandbox>) {
        let _moving = sandbox.moving.lock().await;
        self.map().remove(&sandbox.id);
        sandbox.facts().tokens.clear();
        sandbox.agent.gone("Deleted");
        let machine = sandbox.machine.clone();
        // It cannot fail, only be cancelled with the runtime.
        let _ = tokio::task::spawn_blocking(move || machine.end()).await;
    }

    /// Hibernates what is not used, until the fake stops.
    pub(crate) async fn watch_idle(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.stop.cancelled() => return,
            }
            for sandbox in self.sandboxes() {
                let (idle, timeout) = {
                    let facts = sandbox.facts();
                    let timeout = Duration::from_secs(facts.hibernation_timeout);
                    (facts.phase == Phase::Running && facts.active.elapsed() >= timeout, timeout)
                };
                if idle {
                    // The instance may have been deleted or stopped in between, which is as well.
                    let _ = self.hibernate(&sandbox, Some(timeout)).await;
                }
            }
        }
    }
}
