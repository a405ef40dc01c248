//! From what was said on the command line to what is run: settings, the project's file and the profile fill the rest in.

use std::path::PathBuf;

use pcoder_runtime::Error;
use pcoder_runtime::error::code;

use crate::private_tmp::PrivateTmp;
use crate::settings::Origin;
use crate::{Pcoder, RunRequest};

/// What was said of a run. What was not is left to settings.
#[derive(Clone, Debug, Default)]
pub struct RunFlags {
    /// The tool.
    pub tool: Option<String>,
    /// The profile.
    pub profile: Option<String>,
    /// The provider.
    pub provider: Option<String>,
    /// The project's folder. Without it, the working folder.
    pub project: Option<PathBuf>,
    /// The engine's version. Without it, the default one.
    pub version: Option<String>,
    /// The tool's own arguments.
    pub args: Vec<String>,
    /// A `/tmp` of the run's own, or an error.
    pub private_tmp: bool,
}

impl Pcoder {
    /// What is to be run.
    ///
    /// # Errors
    /// Those of the settings and the profile; `denied` where a project's file chose a profile that runs elsewhere than
    /// its user said.
    pub fn run_request(&self, flags: RunFlags) -> Result<RunRequest, Error> {
        let project = self.project_folder(flags.project.as_deref())?;
        let settings = self.settings(Some(&project))?;
        let tool = settings.get("tool", flags.tool.as_deref())?.value.unwrap_or_default();
        let chosen = settings.profile(&tool, flags.profile.as_deref())?;
        let provider = settings.get("provider", flags.provider.as_deref())?;
        let said = matches!(provider.origin, Origin::Flag | Origin::Environment { .. });
        let mut provider = provider.value.unwrap_or_default();
        if let Some(name) = &chosen.value
            && let Some(of_profile) = self.profile(name)?.provider
            && !said
        {
            // A project is written by a stranger. It may choose among its user's profiles, and must not bring a run
            // onto another machine by that.
            if of_profile.as_str() != provider && matches!(chosen.origin, Origin::Project { .. }) {
                let message = format!("the project chose the profile `{name}`, which runs on `{of_profile}`");
                return Err(Error::new(code::DENIED, "run", message)
                    .subject(project.display().to_string())
                    .hint(format!("if you want that, say so: `pcoder run {tool} --profile {name}`")));
            }
            of_profile.as_str().clone_into(&mut provider);
        }
        Ok(RunRequest {
            tool,
            provider,
            project: Some(project),
            version: flags.version,
            args: flags.args,
            profile: chosen.value,
            env: Vec::new(),
            clear_env: false,
            private_tmp: if flags.private_tmp { PrivateTmp::Required } else { PrivateTmp::No },
        })
    }
}
