//! Paths on an instance.

use std::collections::VecDeque;
use std::io;
use std::path::{Component, Path, PathBuf};

use pcoder_fake_machine::Machine;

/// How many symbolic links a path may lead through, as on Linux.
const MAX_LINKS: usize = 40;
const ELOOP: i32 = 40;

/// A place of the instance's.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Where it is on this machine.
    pub(crate) path: PathBuf,
    /// Whether it is in one of the instance's own folders. The rest is this machine's system, only to be read.
    pub(crate) own: bool,
}

/// Where `path` is: `base` is put before it unless it is absolute, and symbolic links lead to where they lead on the
/// instance. The last part is not followed unless `follow`; it need not exist.
pub(crate) fn resolve(machine: &Machine, base: &str, path: &str, follow: bool) -> io::Result<Place> {
    let mut left: VecDeque<String> = parts(&Path::new(base).join(path)).collect();
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&part);
        let here = place(machine, &next);
        let linked = if follow || !left.is_empty() { std::fs::read_link(&here.path).ok() } else { None };
        match linked {
            None => done = next,
            Some(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::from_raw_os_error(ELOOP));
                }
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(part);
                }
            }
        }
    }
    Ok(place(machine, &done))
}

fn place(machine: &Machine, on_instance: &Path) -> Place {
    match on_instance.to_str().and_then(|path| machine.path(path)) {
        Some(path) => Place { path, own: true },
        None => Place { path: on_instance.to_owned(), own: false },
    }
}

fn parts(path: &Path) -> impl Iterator<Item = String> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        Component::ParentDir => Some("..".to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
