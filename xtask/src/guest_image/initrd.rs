//! The initial file system: one program and the drivers that the root needs. Not compressed: unpacking 2 MB costs the
//! guest more than reading them costs the host.

use std::fs;
use std::path::Path;

use crate::Failure;
use crate::workspace::{at, entries};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

struct Entry {
    name: String,
    mode: u32,
    data: Vec<u8>,
}

/// Writes it: busybox of the guest's own tree, and modules in the order of their names.
pub(super) fn make(guest: &Path, tree: &Path, modules: &Path, initrd: &Path) -> Result<(), Failure> {
    let read = |path: &Path| fs::read(path).map_err(at(path));
    let folder = |name: &str| Entry { name: name.to_owned(), mode: FOLDER, data: Vec::new() };
    let mut all = vec![folder("bin"), folder("dev"), folder("modules"), folder("root")];
    let busybox = read(&tree.join("usr").join("bin").join("busybox"))?;
    all.push(Entry { name: "bin/busybox".to_owned(), mode: PROGRAM, data: busybox });
    let init = read(&guest.join("initrd").join("init"))?;
    all.push(Entry { name: "init".to_owned(), mode: PROGRAM, data: init });
    for module in entries(modules)? {
        let name = format!("modules/{}", module.file_name().unwrap_or_default().to_string_lossy());
        all.push(Entry { name, mode: FILE, data: read(&module)? });
    }
    fs::write(initrd, archive(&all)).map_err(at(initrd))
}

/// A cpio archive of the format that the kernel reads (`newc`), the same for the same entries. All is root's.
fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        append(&mut bytes, number + 1, entry);
    }
    append(&mut bytes, 0, &Entry { name: "TRAILER!!!".to_owned(), mode: 0, data: Vec::new() });
    bytes
}

fn append(bytes: &mut Vec<u8>, number: usize, entry: &Entry) {
    let links = if entry.mode == FOLDER { 2 } else { 1 };
    // Inode, mode, owner, group, links, time, size, the device's numbers twice, the name's length with its end, no sum.
    let (size, name) = (entry.data.len(), entry.name.len() + 1);
    let fields = [number, entry.mode as usize, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(entry.name.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(&entry.data);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn busybox_and_with_it_the_kernel_reads_the_archive() {
        if !crate::debian::on_path("busybox") {
            return;
        }
        let archive = archive(&[
            Entry { name: "bin".into(), mode: FOLDER, data: Vec::new() },
            Entry { name: "bin/program".into(), mode: PROGRAM, data: b"12345".to_vec() },
            Entry { name: "file".into(), mode: FILE, data: b"text\n".to_vec() },
        ]);
        let mut cpio = Command::new("busybox")
            .args(["cpio", "-tv"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("busybox");
        cpio.stdin.take().expect("a pipe").write_all(&archive).expect("it reads");
        let output = String::from_utf8(cpio.wait_with_output().expect("it ends").stdout).expect("text");
        // Mode, owner, size, time, name; some versions of busybox say how many links there are too.
        let short = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "1" && *word != "2").collect();
            words.join(" ")
        };
        let expected = [
            "drwxr-xr-x 0/0 0 1970-01-01 00:00:00 bin",
            "-rwxr-xr-x 0/0 5 1970-01-01 00:00:00 bin/program",
            "-rw-r--r-- 0/0 5 1970-01-01 00:00:00 file",
        ];
        assert_eq!(output.lines().map(short).collect::<Vec<_>>(), expected, "{output}");
    }
}
