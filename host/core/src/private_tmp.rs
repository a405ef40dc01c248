//! A `/tmp` of a run's own, so that nothing is left on the machine by programs that write there whatever `TMPDIR` is.
//! How it is made is in [`pcoder_runtime::process`]; here it is decided who gets one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pcoder_runtime::Error;
use pcoder_runtime::call::Starter;
use pcoder_runtime::error::code;

use crate::Pcoder;

/// Whether a run gets a `/tmp` of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrivateTmp {
    /// The machine's.
    #[default]
    No,
    /// Its own, where the system lets this user have one.
    WherePossible,
    /// Its own, or an error.
    Required,
}

/// How this program is started to make one: it ends at once after `--probe`, and otherwise becomes the command behind
/// `--`.
#[derive(Clone, Debug)]
pub struct PrivateTmpCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

const OPERATION: &str = "run";
const HINT: &str = "leave `--private-tmp` out. It takes Linux, root or user namespaces that may mount, and a machine \
                    that is this one";

impl Pcoder {
    /// Says how a `/tmp` of a run's own is made. Without it, there is none.
    pub fn private_tmp_with(&self, command: PrivateTmpCommand) {
        drop(self.private_tmp.set(command));
    }

    /// What starts a run's command. `sockets`: it gets a folder for sockets in there, because the one that this process
    /// keeps cannot be seen from a user namespace. `kept`: the folders in which what is made has to last.
    pub(crate) async fn starter(
        &self,
        wanted: PrivateTmp,
        sockets: bool,
        kept: &[&Path],
    ) -> Result<Option<Starter>, Error> {
        if wanted == PrivateTmp::No {
            return Ok(None);
        }
        match (self.try_private_tmp(kept).await, wanted) {
            (Ok(command), _) => {
                let sockets = sockets.then(|| OsString::from("--sockets"));
                let args = command.args.into_iter().chain(sockets).chain([OsString::from("--")]).collect();
                Ok(Some(Starter { program: command.program, args }))
            }
            (Err(error), PrivateTmp::WherePossible) => {
                tracing::debug!("{}", error.message);
                Ok(None)
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn try_private_tmp(&self, kept: &[&Path]) -> Result<PrivateTmpCommand, Error> {
        let unsupported = |why: &str| Error::new(code::UNSUPPORTED, OPERATION, why).hint(HINT);
        let Some(command) = self.private_tmp.get().filter(|_| cfg!(target_os = "linux")) else {
            return Err(unsupported("a `/tmp` of its own is not to be had here"));
        };
        let real = |path: &Path| path.canonicalize().ok();
        if let Some(folder) =
            kept.iter().find(|folder| real(folder).is_some() && real(folder) == real(Path::new("/tmp")))
        {
            let message = "what is made in this folder would be gone: it is `/tmp` itself";
            return Err(Error::new(code::INVALID, OPERATION, message)
                .subject(folder.display().to_string())
                .hint("choose a folder in it, `--project FOLDER`, or leave `--private-tmp` out"));
        }
        let mut probe = tokio::process::Command::new(&command.program);
        probe.args(&command.args).arg("--probe").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let probed = probe.output().await;
        let probed = probed.map_err(|error| Error::io(OPERATION, command.program.display().to_string(), &error))?;
        if probed.status.success() {
            return Ok(command.clone());
        }
        let said = String::from_utf8_lossy(&probed.stderr);
        Err(unsupported(&pcoder_runtime::text::for_people(said.trim(), 400)))
    }
}
