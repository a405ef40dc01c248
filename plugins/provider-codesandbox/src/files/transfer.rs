//! Contents that are larger than a message: the agent reads and writes whole files only, so they go in parts.

use pcoder_sdk::{Error, Result, code, placeholder, shell, text};

use crate::pitcher::{Agent, FRAME};

/// Reads a file from a byte on to its end, which is at `size`. `folder` is where its parts are meanwhile; its name needs no
/// quoting.
pub(crate) fn download(
    agent: &mut Agent<'_>,
    folder: &str,
    path: &str,
    from: u64,
    size: u64,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    if size <= FRAME as u64 {
        let content = agent.read_file(path)?;
        return take(usize::try_from(from).ok().and_then(|from| content.get(from..)).unwrap_or_default());
    }
    with_folder(agent, folder, |agent| {
        let (start, length) = (from.saturating_add(1), size.saturating_sub(from));
        let file = shell::quote(path);
        let split =
            format!("[ -r {file} ] && tail -c +{start} {file} | head -c {length} | split -a 4 -b {FRAME} - {folder}/");
        done(agent, path, &split)?;
        let mut names = agent.names(folder)?;
        names.sort_unstable();
        let mut taken = 0;
        for name in names {
            let part = format!("{folder}/{name}");
            let content = agent.read_file(&part)?;
            agent.remove(&part, false)?;
            taken += content.len() as u64;
            take(&content)?;
        }
        if taken == length {
            return Ok(());
        }
        Err(Error::new(code::CONFLICT, agent.operation, "the file changed while it was read").subject(path))
    })
}

/// Writes a file in place.
pub(crate) fn upload(agent: &mut Agent<'_>, folder: &str, path: &str, content: &[u8]) -> Result<()> {
    let parts = placeholder::pieces(content, FRAME);
    let [part] = parts.as_slice() else {
        return with_folder(agent, folder, |agent| {
            for (number, part) in parts.iter().enumerate() {
                agent.write_file(&format!("{folder}/{number:06}"), part)?;
            }
            done(agent, path, &format!("cat {folder}/* >{}", shell::quote(path)))
        });
    };
    agent.write_file(path, part)
}

/// Runs a helper's command that is about a file.
pub(super) fn done(agent: &mut Agent<'_>, path: &str, command: &str) -> Result<()> {
    match agent.helper(command)? {
        (0, _) => Ok(()),
        (code, said) => {
            let said = text::tail(said.as_bytes(), 1, 200);
            let message = if said.is_empty() { format!("it ended with exit code {code}") } else { said };
            Err(Error::new(code::IO, agent.operation, message).subject(path))
        }
    }
}

/// Does something with a folder that only its user reads, and removes it. What an attempt before has left there goes.
fn with_folder(agent: &mut Agent<'_>, folder: &str, work: impl FnOnce(&mut Agent<'_>) -> Result<()>) -> Result<()> {
    done(agent, folder, &format!("umask 077 && rm -rf {folder} && mkdir {folder}"))?;
    let result = work(agent);
    let removed = agent.remove(folder, true);
    result.and(removed)
}
