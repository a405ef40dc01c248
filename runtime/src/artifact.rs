//! Compiled code: made once, checked before each use, never overwritten in place.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::{Error, code};

/// Compiled code from someone who is trusted as this program is: embedded at build time, or read back from a cache that
/// only its owner can write, with a digest that was just checked.
#[derive(Clone, Copy)]
pub struct TrustedCode<'a>(&'a [u8]);

impl<'a> TrustedCode<'a> {
    /// Says that `bytes` came out of [`compile_here`] in a process of this very program, over a pipe that nobody else has.
    pub const fn compiled_by_child(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Says that `bytes` came out of [`precompile`] and nobody else could have changed them. Loading anything else runs
    /// whatever it holds, outside of any sandbox. This is for the build of the program that embeds plugins.
    pub const fn embedded(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

/// Compiles a component for any processor of `target` (a target triple), to be embedded.
///
/// # Errors
/// `invalid` for what is not a component.
pub fn precompile(wasm: &[u8], target: &str) -> Result<Vec<u8>, Error> {
    crate::engine::compiler(target)?
        .precompile_component(wasm)
        .map_err(|error| Error::new(code::INVALID, "plugin.compile", format!("{error:#}")))
}

/// Compiles a component for the processor of this machine. It takes time and memory that its author chooses, so it is for
/// a process of its own, with limits.
///
/// # Errors
/// `invalid` for what is not a component.
pub fn compile_here(wasm: &[u8]) -> Result<Vec<u8>, Error> {
    compile(&crate::engine::compiler_here()?, wasm)
}

/// Loads compiled code.
#[allow(unsafe_code)]
pub(crate) fn load(engine: &Engine, trusted: TrustedCode<'_>) -> Result<Component, Error> {
    // SAFETY: `deserialize` runs machine code that it cannot check. The only ways to make a `TrustedCode` are
    // `embedded`, which is for bytes that are a part of this program; `compiled_by_child`, for what this very program
    // has just compiled in another process and sent over a pipe; and `Cache::find` below, which hands out bytes
    // whose digest it has just compared with the one written beside them, in a folder that only this user can write.
    // The bytes are copied into memory that no file is behind, so nothing can change them afterwards. Wasmtime itself
    // compares version, target and settings, and refuses code of another build.
    unsafe { Component::deserialize(engine, trusted.0) }
        .map_err(|error| Error::new(code::INTEGRITY, "plugin.load", format!("compiled code does not fit: {error:#}")))
}

/// Compiled code of plugins that are not embedded.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// What a cache knows of a component. There is no error here: whatever is wrong with an entry, it is a miss, and the
/// component is compiled again.
enum Lookup {
    Hit(Vec<u8>),
    Miss,
}

const DIGEST: usize = 32;

impl Cache {
    /// A cache in a folder of its own, which is made for its owner alone.
    ///
    /// # Errors
    /// `io`; `denied` when someone else can write there.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let failed = |error: &std::io::Error| Error::io("plugin.cache", folder.display().to_string(), error);
        fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
            let metadata = fs::metadata(folder).map_err(|error| failed(&error))?;
            if metadata.uid() != rustix::process::geteuid().as_raw() {
                return Err(Error::new(code::DENIED, "plugin.cache", "the code cache belongs to someone else")
                    .subject(folder.display().to_string())
                    .hint("remove that folder, or set another place for pcoder's cache"));
            }
            if metadata.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(|error| failed(&error))?;
            }
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Whether there is a whole entry of `wasm`.
    pub(crate) fn holds(&self, engine: &Engine, wasm: &[u8]) -> bool {
        matches!(find(&self.folder.join(key(engine, wasm))), Lookup::Hit(_))
    }

    /// Keeps code that was compiled elsewhere.
    pub(crate) fn add(&self, engine: &Engine, wasm: &[u8], code: TrustedCode<'_>) -> Result<(), Error> {
        let path = self.folder.join(key(engine, wasm));
        keep(&path, code.0).map_err(|error| Error::io("plugin.cache", path.display().to_string(), &error))
    }

    /// The component of `wasm`, from the cache, or compiled now and kept.
    pub(crate) fn component(&self, engine: &Engine, wasm: &[u8]) -> Result<Component, Error> {
        let path = self.folder.join(key(engine, wasm));
        if let Lookup::Hit(code) = find(&path)
            && let Ok(component) = load(engine, TrustedCode(&code))
        {
            return Ok(component);
        }
        let code = compile(engine, wasm)?;
        // A cache that cannot be written slows the next start down and is no reason to fail this one.
        drop(keep(&path, &code));
        load(engine, TrustedCode(&code))
    }
}

/// Compiles for this processor.
pub(crate) fn compile(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>, Error> {
    engine
        .precompile_component(wasm)
        .map_err(|error| Error::new(code::INVALID, "plugin.compile", format!("it cannot be compiled: {error:#}")))
}

pub(crate) fn compile_and_load(engine: &Engine, wasm: &[u8]) -> Result<Component, Error> {
    load(engine, TrustedCode(&compile(engine, wasm)?))
}

/// Component digest, Wasmtime's version, processor features and settings: the last three are in the engine's hash.
fn key(engine: &Engine, wasm: &[u8]) -> String {
    struct Into<'a>(&'a mut Sha256);
    impl std::hash::Hasher for Into<'_> {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut hash = Sha256::new();
    hash.update(wasm);
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut Into(&mut hash));
    format!("{}.cwasm", hex(&hash.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An entry is the sha256 of the code, then the code.
fn find(path: &Path) -> Lookup {
    let Ok(mut bytes) = fs::read(path) else {
        return Lookup::Miss;
    };
    if bytes.len() <= DIGEST {
        return Lookup::Miss;
    }
    let code = bytes.split_off(DIGEST);
    if Sha256::digest(&code).as_slice() == bytes { Lookup::Hit(code) } else { Lookup::Miss }
}

/// Writes beside and renames, so that a reader sees a whole entry or none.
fn keep(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component() -> Vec<u8> {
        wat::parse_str("(component)").expect("a component")
    }

    #[test]
    fn an_entry_that_was_changed_is_a_miss_and_is_made_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(&folder.path().join("code")).expect("a cache");
        let engine = crate::engine::engine(4).expect("an engine");
        cache.component(&engine, &component()).expect("compiled");
        let path = cache.folder.join(key(&engine, &component()));
        let whole = fs::read(&path).expect("the entry");
        for broken in [&b""[..], &whole[..whole.len() - 1], &[&whole[..40], &[whole[40] ^ 1], &whole[41..]].concat()] {
            fs::write(&path, broken).expect("write");
            assert!(matches!(find(&path), Lookup::Miss));
            cache.component(&engine, &component()).expect("compiled again");
            assert_eq!(fs::read(&path).expect("the entry"), whole);
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        Cache::open(folder.path()).expect("a cache");
        assert_eq!(fs::metadata(folder.path()).expect("metadata").permissions().mode() & 0o777, 0o700);
    }
}
