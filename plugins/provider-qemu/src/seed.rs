//! A seed: the small disk that tells a guest who it is. guest/README.md says what may be on it.

use std::io::{Cursor, Write as _};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use pcoder_sdk::{Error, Result, Setting, code};

use crate::cloud;

/// Bytes of the disk. The smallest that every reader of FAT takes for a floppy's.
const SIZE: usize = 1_440 * 1024;

/// What a guest is told.
pub(crate) struct Seed<'a> {
    /// The instance, by which the guest knows whether it is another machine than before.
    pub(crate) instance: &'a str,
    /// Its name in the network.
    pub(crate) host_name: &'a str,
    /// Who may log in: a line of OpenSSH's public key format.
    pub(crate) key: &'a str,
    /// What every session has in its environment.
    pub(crate) environment: &'a [Setting],
    /// After how many seconds without anybody it stops itself.
    pub(crate) idle_stop: Option<u64>,
    /// Whether it is cloud-init that reads it.
    pub(crate) cloud_init: bool,
}

impl Seed<'_> {
    /// The disk.
    pub(crate) fn disk(&self, operation: &str) -> Result<Vec<u8>> {
        let mut meta = format!("instance-id: {}\nlocal-hostname: {}\n", self.instance, self.host_name);
        if let Some(seconds) = self.idle_stop.filter(|_| !self.cloud_init) {
            meta += &format!("pcoder-idle-stop: {seconds}\n");
        }
        let environment: String = self.environment.iter().map(|it| format!("{}={}\n", it.name, it.value)).collect();
        let files = match self.cloud_init {
            true => {
                vec![("meta-data", meta), ("user-data", cloud::user_data(self.key, self.environment, self.idle_stop))]
            }
            false => vec![
                ("meta-data", meta),
                ("authorized_keys", format!("{}\n", self.key.trim())),
                ("environment", environment),
            ],
        };
        disk(&files).map_err(|error| {
            let message = format!("what the guest is to be told does not fit onto its disk: {error}");
            Error::new(code::LIMIT, operation, message)
        })
    }
}

fn disk(files: &[(&str, String)]) -> std::io::Result<Vec<u8>> {
    let mut disk = vec![0; SIZE];
    let options = FormatVolumeOptions::new().volume_label(*b"CIDATA     ").volume_id(0x0C1D_A7A0);
    fatfs::format_volume(Cursor::new(&mut disk), options)?;
    let system = FileSystem::new(Cursor::new(&mut disk), FsOptions::new())?;
    for (name, text) in files {
        let mut file = system.root_dir().create_file(name)?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
    }
    system.unmount()?;
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_seed_is_a_labelled_disk_with_its_files() {
        let environment = [Setting::new("http_proxy", "http://10.0.2.2:3128"), Setting::new("A", "b c")];
        let seed = Seed {
            instance: "vm-1",
            host_name: "box",
            key: "ssh-ed25519 AAAA\n",
            environment: &environment,
            idle_stop: Some(90),
            cloud_init: false,
        };
        let mut disk = seed.disk("o").unwrap();
        assert_eq!(disk, seed.disk("o").unwrap());
        let system = FileSystem::new(Cursor::new(&mut disk), FsOptions::new()).unwrap();
        assert_eq!(system.volume_label(), "CIDATA");
        let read = |name: &str| {
            let mut text = String::new();
            system.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(read("meta-data"), "instance-id: vm-1\nlocal-hostname: box\npcoder-idle-stop: 90\n");
        assert_eq!(read("authorized_keys"), "ssh-ed25519 AAAA\n");
        assert_eq!(read("environment"), "http_proxy=http://10.0.2.2:3128\nA=b c\n");
        let mut disk = Seed { cloud_init: true, ..seed }.disk("o").unwrap();
        let system = FileSystem::new(Cursor::new(&mut disk), FsOptions::new()).unwrap();
        let names: Vec<String> = system.root_dir().iter().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["meta-data", "user-data"]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let environment = [Setting::new("A", "x".repeat(SIZE))];
        let seed = Seed {
            instance: "i",
            host_name: "n",
            key: "k",
            environment: &environment,
            idle_stop: None,
            cloud_init: false,
        };
        assert_eq!(seed.disk("o").map_err(|error| error.code), Err(code::LIMIT.to_owned()));
    }
}
