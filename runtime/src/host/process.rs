//! `process`: programs on the host. Capability `exec`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::Resource;

use super::stdio::Stdio;
use crate::bindings::host::pcoder::plugin::process::Host;
use crate::bindings::host::pcoder::plugin::types::{
    Command as WitCommand, CommandSpec, Error as WitError, ExitStatus, Output,
};
use crate::call::CallState;
use crate::capability::exec::{self, Command};
use crate::capability::files::FileAccess;
use crate::capability::secrets::Place;
use crate::error::{Error, code};
use crate::gate::Permit;
use crate::manifest::Access;
use crate::process::{Plan, capture, run};

impl Host for CallState {
    async fn run(&mut self, spec: CommandSpec, stdio: Resource<Stdio>) -> Result<ExitStatus, WitError> {
        let (permit, plan) = self.plan(&spec)?;
        let own = self.context.called.command.as_ref() == Some(&spec);
        let secrets = Arc::clone(&self.context.secrets);
        let streams = self
            .table
            .get_mut(&stdio)
            .map_err(|error| Error::new(code::INTERNAL, "process.run", error.to_string()))
            .and_then(|stdio| {
                if own {
                    stdio.change_input(|input| Ok(secrets.fill_own(input)?.into_owned()))?;
                }
                stdio.take()
            });
        let streams = match streams {
            Ok(streams) => streams,
            Err(error) => return permit.finish(0, Err(error)).map_err(WitError::from),
        };
        Ok(run(permit, plan, streams, Arc::clone(&self.tree)).await?)
    }

    async fn capture(&mut self, spec: CommandSpec, input: Vec<u8>) -> Result<Output, WitError> {
        let (permit, plan) = self.plan(&spec)?;
        let captured = capture(permit, plan, input, Arc::clone(&self.tree)).await?;
        let secrets = &self.context.secrets;
        Ok(Output {
            status: captured.status,
            stdout: secrets.redact(captured.stdout),
            stderr: secrets.redact(captured.stderr),
        })
    }
}

impl CallState {
    /// Decides whether this command may run, and works out everything that it gets.
    fn plan(&self, spec: &CommandSpec) -> Result<(Permit<Command>, Plan), Error> {
        let as_called = self.context.called.command.as_ref() == Some(spec);
        let (program, args) = match &spec.command {
            WitCommand::Argv(argv) => (argv.program.clone(), argv.args.clone()),
            WitCommand::Shell(script) => ("sh".to_owned(), vec!["-c".to_owned(), script.clone()]),
        };
        let command = if as_called {
            Command::AsCalled { program: program.clone() }
        } else {
            Command::Named { program: program.clone(), args: args.clone(), env: surroundings(spec) }
        };
        let permit = self.gate.authorize(command)?;
        let granted = self.gate.narrowest(|it| permit.effect().granted_program(it)).filter(|_| !as_called);
        let plan = self.resolve(spec, granted.as_deref().unwrap_or(&program), args, as_called).and_then(|plan| {
            if !as_called {
                self.check_granted_program(&plan.program, self.gate.each(|it| permit.effect().pinned(it)))?;
            }
            Ok(plan)
        });
        match plan {
            Ok(plan) => Ok((permit, plan)),
            Err(error) => Err(permit.finish::<()>(0, Err(error)).err().unwrap_or_else(never)),
        }
    }

    /// A granted program must be what was granted: with the bytes that the grant pins, and in a folder that the same
    /// plugin cannot write, or the grant would be one for every program.
    pub(super) fn check_granted_program(
        &self,
        program: &Path,
        mut pins: impl Iterator<Item = String>,
    ) -> Result<(), Error> {
        let real =
            program.canonicalize().map_err(|error| Error::io("process.run", program.display().to_string(), &error))?;
        for (root, folder) in &self.context.roots {
            let writes = FileAccess::new("write", Access::ReadWrite, root, "")?;
            let inside = folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
            if inside && self.gate.would_allow(&writes) {
                let plugin = &self.gate.identity().plugin;
                return Err(Error::new(
                    code::DENIED,
                    "process.run",
                    format!("plugin `{plugin}` may write the folder that this program is in (its root `{root}`)"),
                )
                .subject(program.display().to_string())
                .hint("grant it a program outside of the folders that it writes"));
            }
        }
        pins.try_for_each(|sha256| exec::check_digest(program, &sha256))
    }

    fn resolve(&self, spec: &CommandSpec, program: &str, args: Vec<String>, as_called: bool) -> Result<Plan, Error> {
        let mut env: Vec<(OsString, OsString)> =
            if as_called { self.context.called.environment.clone() } else { system_variables() };
        for setting in &spec.env {
            if setting.name.is_empty() || setting.name.contains(['=', '\0']) || setting.value.contains('\0') {
                return Err(Error::new(code::INVALID, "process.run", "not an environment variable")
                    .subject(crate::text::for_people(&setting.name, 128)));
            }
            let value = self.context.secrets.fill(&setting.value, &Place::Exec, as_called, &self.gate)?;
            set(&mut env, &setting.name, OsString::from(value.into_owned()));
        }
        if as_called || !spec.path_entries.is_empty() {
            let rest = get(&env, "PATH").or(self.context.path.as_deref()).unwrap_or_default().to_owned();
            let entries = spec.path_entries.iter().map(PathBuf::from).chain(std::env::split_paths(&rest));
            let path = std::env::join_paths(entries).map_err(|error| {
                Error::new(code::INVALID, "process.run", format!("a folder cannot be on the PATH: {error}"))
            })?;
            set(&mut env, "PATH", path);
        }
        let search = if as_called { get(&env, "PATH") } else { self.context.path.as_deref() };
        let program = exec::resolve(program, search)?;
        let args = args.into_iter().map(OsString::from);
        let (program, args) = match self.context.called.starter.as_ref().filter(|_| as_called) {
            Some(starter) => {
                (starter.program.clone(), starter.args.iter().cloned().chain([program.into()]).chain(args).collect())
            }
            None => (program, args.collect()),
        };
        Ok(Plan { program, args, cwd: self.cwd(spec)?, env })
    }

    fn cwd(&self, spec: &CommandSpec) -> Result<Option<PathBuf>, Error> {
        let Some(cwd) = &spec.cwd else {
            return Ok(self.context.called.home.clone());
        };
        if cwd == "~" || cwd.starts_with("~/") {
            let home =
                self.context.called.home.as_ref().ok_or_else(|| {
                    Error::new(code::INVALID, "process.run", "the home folder is not known").subject(cwd)
                })?;
            return Ok(Some(home.join(cwd.trim_start_matches('~').trim_start_matches('/'))));
        }
        let path = PathBuf::from(cwd);
        if path.is_absolute() {
            return Ok(Some(path));
        }
        Err(Error::new(code::INVALID, "process.run", "a working folder is absolute or begins with `~/`").subject(cwd))
    }
}

/// What a plugin sets for a granted program: the names of its variables. Folders on its `PATH` and a working folder
/// count as the variables that they are.
fn surroundings(spec: &CommandSpec) -> Vec<String> {
    let path = (!spec.path_entries.is_empty()).then(|| "PATH".to_owned());
    let cwd = spec.cwd.is_some().then(|| "PWD".to_owned());
    spec.env.iter().map(|it| it.name.clone()).chain(path).chain(cwd).collect()
}

fn never() -> Error {
    Error::new(code::INTERNAL, "process.run", "an error was lost")
}

/// What a program needs to start at all, where that is anything.
pub(super) fn system_variables() -> Vec<(OsString, OsString)> {
    if cfg!(windows) { vec![("SystemRoot".into(), "C:\\Windows".into())] } else { Vec::new() }
}

fn same_name(a: &OsStr, b: &str) -> bool {
    if cfg!(windows) { a.to_str().is_some_and(|a| a.eq_ignore_ascii_case(b)) } else { a == b }
}

fn get<'a>(env: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    env.iter().find(|(it, _)| same_name(it, name)).map(|(_, value)| value.as_os_str())
}

fn set(env: &mut Vec<(OsString, OsString)>, name: &str, value: OsString) {
    env.retain(|(it, _)| !same_name(it, name));
    env.push((OsString::from(name), value));
}
