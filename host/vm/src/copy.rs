//! Copies that share what they can with the original and change with it in nothing.
//!
//! No hard links: whoever builds the next image into the same folder would write into the one that was imported.

use std::fs::{self, File};
use std::path::Path;

use pcoder_engines::{Phase, Progress, SparseWriter};
use tokio_util::sync::CancellationToken;

use crate::error::{At as _, Error, Result};
use crate::files::{Meter, Piece, hash, read_pieces};

/// Copies a file to a new one, which is what `size` and `sha256` say and flushed, or gone.
pub(crate) fn copy_checked(
    from: &Path,
    to: &Path,
    (size, sha256): (u64, &str),
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let wrong = |detail: String| Error::Wrong { file: name.clone(), detail };
    let length = fs::metadata(from).at("read", from)?.len();
    if length != size {
        return Err(wrong(format!("it has {length} bytes, not {size}")));
    }
    let file = File::create(to).at("create", to)?;
    let meter = Meter::new(&name, size, progress, cancel);
    progress.phase(Phase::Copying);
    let copied = if shared(from, &file) {
        hash(to, meter).and_then(|digest| file.sync_all().at("flush", to).map(|()| digest))
    } else {
        copy(from, to, file, meter)
    };
    let outcome = match copied {
        Ok(digest) if digest == sha256 => return Ok(()),
        Ok(digest) => wrong(format!("its sha256 is {digest}, not {sha256}")),
        Err(error) => error,
    };
    let _ = fs::remove_file(to);
    Err(outcome)
}

/// The new file gets the old one's blocks, until one of them is written to, where the file system can do that.
#[cfg(target_os = "linux")]
fn shared(from: &Path, to: &File) -> bool {
    File::open(from).is_ok_and(|from| rustix::fs::ioctl_ficlone(to, &from).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn shared(_: &Path, _: &File) -> bool {
    false
}

fn copy(from: &Path, to: &Path, file: File, mut meter: Meter<'_>) -> Result<String> {
    let mut writer = SparseWriter::new(file, 0);
    read_pieces(from, |piece| match piece {
        Piece::Bytes(bytes) => {
            meter.bytes(bytes)?;
            writer.write(bytes).at("write", to)
        }
        Piece::Hole(count) => {
            meter.zeroes(count)?;
            writer.skip(count).at("write", to)
        }
    })?;
    writer.finish().at("flush", to)?;
    Ok(meter.digest())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::files::{hexadecimal, taken};

    #[test]
    fn a_copy_has_the_holes_of_its_original_and_is_compared() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        let mut file = File::create(&from).unwrap();
        file.write_all(b"begin").unwrap();
        file.seek(SeekFrom::Start(9 << 20)).unwrap();
        file.write_all(b"end").unwrap();
        let bytes = fs::read(&from).unwrap();
        let digest = hexadecimal(&Sha256::digest(&bytes));
        let cancel = CancellationToken::new();
        let copy = |sha256: &str, size: u64| copy_checked(&from, &to, (size, sha256), &pcoder_engines::Silent, &cancel);
        copy(&digest, bytes.len() as u64).unwrap();
        assert!(fs::read(&to).unwrap() == bytes);
        if cfg!(target_os = "linux") {
            assert!(taken(&to.metadata().unwrap()) < 1 << 20);
        }
        let error = copy(&"0".repeat(64), bytes.len() as u64).unwrap_err();
        assert!(matches!(error, Error::Wrong { .. }) && !to.exists(), "{error}");
        assert!(copy(&digest, 5).unwrap_err().to_string().contains("it has 9437187 bytes, not 5"));
        // Writing to the one is not writing to the other.
        copy(&digest, bytes.len() as u64).unwrap();
        file.write_all(b"more").unwrap();
        assert!(fs::read(&to).unwrap() == bytes);
    }
}
