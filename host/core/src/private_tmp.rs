//! A `/tmp` of a run's own, so that nothing is left on the machine by programs that write there whatever `TMPDIR` is.
//! How it is made is in [`pcoder_runtime::process`]; here it is decided who gets one.

use std::path::Path;
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

const OPERATION: &str = "run";
const HINT: &str = "leave `--private-tmp` out. It takes Linux, and root or user namespaces that may mount";

impl Pcoder {
    /// Says what makes a `/tmp` of a run's own: a program that ends at once after `--probe`, and otherwise becomes the
    /// command behind `--`. Without it, there is none.
    pub fn private_tmp_with(&self, starter: Starter) {
        drop(self.private_tmp.set(starter));
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
            (Ok(mut starter), _) => {
                starter.args.extend(sockets.then(|| "--sockets".into()));
                starter.args.push("--".into());
                Ok(Some(starter))
            }
            (Err(error), PrivateTmp::WherePossible) => {
                tracing::debug!("{}", error.message);
                Ok(None)
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn try_private_tmp(&self, kept: &[&Path]) -> Result<Starter, Error> {
        let unsupported = |why: &str| Error::new(code::UNSUPPORTED, OPERATION, why).hint(HINT);
        let Some(starter) = self.private_tmp.get().filter(|_| cfg!(target_os = "linux")) else {
            return Err(unsupported("a `/tmp` of its own is not to be had here"));
        };
        let real = Path::new("/tmp").canonicalize().ok();
        if let Some(folder) = kept.iter().find(|folder| real.is_some() && folder.canonicalize().ok() == real) {
            let message = "what is made in this folder would be gone: it is `/tmp` itself";
            return Err(Error::new(code::INVALID, OPERATION, message)
                .subject(folder.display().to_string())
                .hint("choose a folder in it, `--project FOLDER`, or leave `--private-tmp` out"));
        }
        let mut probe = tokio::process::Command::new(&starter.program);
        probe.args(&starter.args).arg("--probe").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let probed = probe.output().await;
        let probed = probed.map_err(|error| Error::io(OPERATION, starter.program.display().to_string(), &error))?;
        if probed.status.success() {
            return Ok(starter.clone());
        }
        let said = String::from_utf8_lossy(&probed.stderr);
        Err(unsupported(&pcoder_runtime::text::for_people(said.trim(), 400)))
    }
}
