//! Files, by commands: the agent's own operations on them are for text, and have no modes.

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcoder_sdk::exec_files::ExecFiles;
use pcoder_sdk::{CommandSpec, Error, Output, Result, code, shell, text};

use super::Agent;
use crate::agent::{Content, Kind};

/// How much content one command carries. How large a message of the agent may be is not documented.
pub(crate) const PIECE: usize = 1 << 20;

impl<'a> Agent<'a> {
    /// Whole files, byte for byte.
    pub(crate) fn files<T>(
        &mut self,
        work: impl FnOnce(&ExecFiles<&dyn Fn(&CommandSpec, &[u8]) -> Result<Output>>) -> Result<T>,
    ) -> Result<T> {
        let operation = self.operation;
        let agent = RefCell::new(self);
        let exec = |spec: &CommandSpec, input: &[u8]| agent.borrow_mut().capture(spec, input);
        let exec: &dyn Fn(&CommandSpec, &[u8]) -> Result<Output> = &exec;
        work(&ExecFiles::new(exec).with_chunk(PIECE)).map_err(|error| error.during(operation))
    }

    /// What there is at a path; nothing where nothing is. And whether it is a link.
    pub(crate) fn stat(&mut self, path: &str) -> Result<Option<(Kind, bool)>> {
        let word = shell::quote(path);
        let script = format!(
            "l=file; [ ! -L {word} ] || l=link; if [ -d {word} ]; then echo folder $l; \
             elif [ -f {word} ] && [ -r {word} ]; then echo $(wc -c <{word}) $l; \
             elif [ -e {word} ]; then echo 0 $l; else echo nothing $l; fi"
        );
        let said = self.done(path, &script, None)?;
        let (kind, linked) = said.trim_end().split_once(' ').unwrap_or_default();
        let kind = match kind {
            "nothing" => return Ok(None),
            "folder" => Kind::Folder,
            size => Kind::File(size.parse().map_err(|_| self.wrong("execs", "output"))?),
        };
        Ok(Some((kind, linked == "link")))
    }

    pub(crate) fn read_file(&mut self, path: &str) -> Result<Vec<u8>> {
        self.files(|files| files.read(path))
    }

    /// Writes a file in place.
    pub(crate) fn write_file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.write_files(&[(path.to_owned(), Content::Bytes(content))])
    }

    /// Writes several of them.
    pub(crate) fn write_files(&mut self, files: &[(String, Content<'_>)]) -> Result<()> {
        for (path, content) in files {
            self.done(path, &format!("cat >{}", shell::quote(path)), Some(*content))?;
        }
        Ok(())
    }

    /// Writes a few harmless characters into a file.
    pub(crate) fn put(&mut self, path: &str, content: &str) -> Result<()> {
        let script = format!("printf %s {} >{}", shell::quote(content), shell::quote(path));
        self.done(path, &script, None).map(drop)
    }

    /// Makes a folder; whether it was not there before.
    pub(crate) fn claim(&mut self, path: &str) -> Result<bool> {
        let word = shell::quote(path);
        let script = format!("if mkdir {word} 2>/dev/null; then echo made; else [ -d {word} ] && echo there; fi");
        Ok(self.done(path, &script, None)?.trim_end() == "made")
    }

    /// Removes a folder with all that it holds; one that is not there is no error.
    pub(crate) fn remove_folder(&mut self, path: &str) -> Result<()> {
        self.done(path, &format!("rm -rf {}", shell::quote(path)), None).map(drop)
    }

    /// Reads a file from a byte on to its end, which is at `size`.
    pub(crate) fn download(
        &mut self,
        path: &str,
        from: u64,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let word = shell::quote(path);
        let mut at = from;
        while at < size {
            let length = (size - at).min(PIECE as u64);
            let script = format!("tail -c +{} {word} | head -c {length} | base64", at + 1);
            let encoded = self.done(path, &script, None)?;
            let encoded: String = encoded.chars().filter(|it| !it.is_ascii_whitespace()).collect();
            let piece = STANDARD.decode(encoded).map_err(|_| self.wrong("execs", "output"))?;
            if piece.len() as u64 != length {
                return Err(
                    Error::new(code::CONFLICT, self.operation, "the file changed while it was read").subject(path)
                );
            }
            at += length;
            take(&piece)?;
        }
        Ok(())
    }

    /// Runs a command that is about a file; what it prints.
    pub(crate) fn done(&mut self, path: &str, script: &str, input: Option<Content<'_>>) -> Result<String> {
        let output = self.run(script, input)?;
        if output.status.code() == 0 {
            return Ok(output.text());
        }
        let said = text::tail(&output.stderr, 1, 200);
        let message = if said.is_empty() { output.status.describe() } else { said };
        Err(Error::new(code::IO, self.operation, message).subject(path))
    }
}
