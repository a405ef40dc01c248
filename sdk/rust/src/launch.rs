//! Launching an engine: the parts of a command line that every agent has.

use crate::error::{Error, Result, code};
use crate::types::{CommandSpec, Engine, Launch, is_true};

/// The variables by which users name their proxies, for [`environment`](crate::AgentInfo::environment).
pub const PROXY_VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];

impl Launch {
    /// The installed engine of that name.
    ///
    /// # Errors
    /// `not-found` when the host did not give it: the agent's info does not ask for it, or it is not installed.
    pub fn engine(&self, name: &str) -> Result<&Engine> {
        self.engines.iter().find(|engine| engine.name == name).ok_or_else(|| {
            Error::new(code::NOT_FOUND, "agent.launch", format!("the engine {name} is not installed"))
                .subject(name)
                .hint(format!("`pcoder engine install {name}`"))
        })
    }

    /// Refuses a command line in which `word` is the subcommand with which `engine` replaces itself: pcoder keeps
    /// engines at verified versions. The option `allow-tool-update` lets it through. Which word that is, the engine's own
    /// grammar says; [`crate::words`] helps to read it.
    ///
    /// # Errors
    /// `unsupported`, with the command that installs another version.
    pub fn refuse_self_update(&self, engine: &str, word: Option<&str>) -> Result<()> {
        let Some(word) = word else { return Ok(()) };
        if is_true(&self.options, "allow-tool-update") {
            return Ok(());
        }
        let message =
            format!("`{engine} {word}` would replace the engine, and pcoder keeps engines at verified versions");
        let hint = format!(
            "`pcoder engine install {engine} --version VERSION` installs another version; \
             `PCODER_ALLOW_TOOL_UPDATE=1` allows it anyway"
        );
        Err(Error::unsupported("agent.command", message).subject(engine).hint(hint))
    }
}

impl CommandSpec {
    /// Puts the command into a launch: in its folder, with its variables behind those that are there, and with the
    /// folders of `engines` on its `PATH`, first one first.
    #[must_use]
    pub fn in_launch<'a>(mut self, launch: &Launch, engines: impl IntoIterator<Item = &'a Engine>) -> Self {
        self.cwd = Some(launch.cwd.clone());
        self.env.extend_from_slice(&launch.env);
        self.path_entries.extend(engines.into_iter().flat_map(|engine| engine.path_entries.iter().cloned()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use crate::types::Setting;

    #[test]
    fn an_engine_that_is_missing_is_named() {
        let launch = testing::launch(&["claw"], &[]);
        assert_eq!(launch.engine("claw").map(|engine| engine.name.as_str()), Ok("claw"));
        let error = launch.engine("node").unwrap_err();
        assert_eq!((error.code.as_str(), error.subject.as_deref()), ("not-found", Some("node")));
        assert_eq!(error.hint.as_deref(), Some("`pcoder engine install node`"));
    }

    #[test]
    fn self_updates_are_refused_unless_they_are_allowed() {
        let mut launch = testing::launch(&["claw"], &["update"]);
        let error = launch.refuse_self_update("claw", Some("update")).unwrap_err();
        assert_eq!((error.code.as_str(), error.subject.as_deref()), ("unsupported", Some("claw")));
        assert!(error.hint.is_some_and(|hint| hint.contains("pcoder engine install claw")));
        assert_eq!(launch.refuse_self_update("claw", None), Ok(()));
        launch.options.push(Setting::new("allow-tool-update", "true"));
        assert_eq!(launch.refuse_self_update("claw", Some("update")), Ok(()));
    }

    #[test]
    fn a_launch_adds_its_folder_its_variables_and_its_path() {
        let mut launch = testing::launch(&["claw", "node"], &[]);
        launch.env = vec![Setting::new("K", "of the user")];
        let [claw, node] = launch.engines.as_slice() else { panic!("two engines") };
        let spec = CommandSpec::argv("x", ["y"]).with_env("K", "of the agent").with_path_entry("/first");
        let spec = spec.in_launch(&launch, [node, claw]).with_env("L", "last");
        let expected = CommandSpec::argv("x", ["y"])
            .in_dir(launch.cwd.as_str())
            .with_env("K", "of the agent")
            .with_env("K", "of the user")
            .with_env("L", "last")
            .with_path_entry("/first")
            .with_path_entry(node.path_entries[0].as_str())
            .with_path_entry(claw.path_entries[0].as_str());
        assert_eq!(spec, expected);
    }
}
