//! Images: folders with a kernel, an initial file system and a disk, described by `guest.json`.

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Error, Result, code};
use serde::Deserialize;

use crate::machine::Architecture;

/// The root of files that they are in.
const ROOT: &str = "images";
const FORMAT: u32 = 1;
/// That of images which something else sets up.
const CLOUD_FORMAT: u32 = 2;
const CLOUD_INIT: &str = "cloud-init";
const HINT: &str = "`pcoder runtime bootstrap` brings the image; `pcoder doctor` shows what is missing";

/// What is started. Fields that are not needed here are left out.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Image {
    format: u32,
    /// Debian's name of its processor.
    #[serde(default)]
    arch: String,
    kernel: Part,
    initrd: Part,
    root: Part,
    pub(crate) cmdline: String,
    #[serde(default)]
    pub(crate) cmdline_emulated: String,
    #[serde(default)]
    setup: Option<String>,
    #[serde(default)]
    root_format: DiskFormat,
    #[serde(default)]
    root_bytes: Option<u64>,
    /// The folder.
    #[serde(skip)]
    pub(crate) name: String,
}

/// How the disk is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DiskFormat {
    #[default]
    Raw,
    Qcow2,
}

#[derive(Clone, Debug, Deserialize)]
struct Part {
    file: String,
    size: u64,
    sha256: String,
}

impl Image {
    pub(crate) fn read(host: ProviderHost<'_>, operation: &str, name: &str) -> Result<Self> {
        if !is_file_name(name) {
            let message = "this cannot be the name of an image";
            return Err(Error::invalid(operation, message).subject(name.escape_debug().to_string()));
        }
        let text =
            host.files().read(ROOT, &format!("{name}/guest.json")).map_err(|error| match error.code.as_str() {
                code::NOT_FOUND => {
                    Error::new(code::NOT_FOUND, operation, "the image is not on this machine").subject(name).hint(HINT)
                }
                _ => error.during(operation),
            })?;
        let garbled = |why: String| Error::new(code::INTEGRITY, operation, why).subject(name).hint(HINT);
        let mut image: Self = serde_json::from_slice(&text)
            .map_err(|error| garbled(format!("the image's description cannot be read: {error}")))?;
        match (image.format, image.setup.as_deref()) {
            (FORMAT, _) => (image.setup, image.root_format, image.root_bytes) = (None, DiskFormat::Raw, None),
            (CLOUD_FORMAT, Some(CLOUD_INIT)) => {}
            (CLOUD_FORMAT, other) => {
                let other = other.unwrap_or_default().escape_debug();
                return Err(garbled(format!("the image is set up by `{other}`, and not by `{CLOUD_INIT}`")));
            }
            (format, _) => {
                return Err(garbled(format!("the image is of format {format}, and not {FORMAT} or {CLOUD_FORMAT}")));
            }
        }
        if [&image.kernel, &image.initrd, &image.root].iter().any(|it| !is_file_name(&it.file)) {
            return Err(garbled("the image's description names something else than a file beside it".to_owned()));
        }
        name.clone_into(&mut image.name);
        // What was cut off is told here, and not by a kernel that finds half a disk.
        for part in [&image.kernel, &image.initrd, &image.root] {
            let found = host.files().stat(ROOT, &image.path(part)).map_err(|error| match error.code.as_str() {
                code::NOT_FOUND => garbled(format!("the image's `{}` is missing", part.file)),
                _ => error.during(operation),
            })?;
            if found.size != part.size {
                return Err(garbled(format!("the image's `{}` is not whole", part.file)));
            }
        }
        Ok(image)
    }

    fn path(&self, part: &Part) -> String {
        format!("{}/{}", self.name, part.file)
    }

    pub(crate) fn kernel(&self) -> String {
        self.path(&self.kernel)
    }

    pub(crate) fn initrd(&self) -> String {
        self.path(&self.initrd)
    }

    pub(crate) fn root(&self) -> String {
        self.path(&self.root)
    }

    /// What the disk is, whatever the folder is called.
    pub(crate) fn digest(&self) -> &str {
        &self.root.sha256
    }

    /// Everything that a guest begins with.
    pub(crate) fn digests(&self) -> [&str; 3] {
        [&self.kernel.sha256, &self.initrd.sha256, &self.root.sha256]
    }

    /// # Errors
    /// `unsupported` where it is for another processor than machines have here.
    pub(crate) fn fits(&self, operation: &str, architecture: Architecture) -> Result<()> {
        if self.arch.is_empty() || self.arch == architecture.debian {
            return Ok(());
        }
        let message =
            format!("the image is for {}, and machines here are for {}", self.arch.escape_debug(), architecture.debian);
        Err(Error::unsupported(operation, message).subject(&self.name).hint("`pcoder runtime images` shows the others"))
    }

    pub(crate) fn root_format(&self) -> DiskFormat {
        self.root_format
    }

    /// Whether cloud-init makes it somebody's machine. Such a guest does not know that its memory was copied, and boots.
    pub(crate) fn is_set_up_by_cloud_init(&self) -> bool {
        self.setup.is_some()
    }

    /// The size of the disk in GiB, the last one begun.
    pub(crate) fn gib(&self) -> u64 {
        self.root_bytes.unwrap_or(self.root.size).div_ceil(1 << 30).max(1)
    }
}

/// Whether a text is the name of one file, of what a grant's `<images:path>` takes.
pub(crate) fn is_file_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !text.is_empty() && text.len() <= 100 && !text.starts_with(['.', '-']) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{image, world};

    #[test]
    fn an_image_is_read() {
        let host = world();
        let image = Image::read(host.provider(), "o", "debian-13-amd64").unwrap();
        assert_eq!(image.kernel(), "debian-13-amd64/vmlinux");
        assert_eq!((image.root().as_str(), image.gib()), ("debian-13-amd64/root.img", 1));
        let fits = |arch: &str| image.fits("o", Architecture::of(arch).unwrap()).map_err(|it| it.code);
        assert_eq!((fits("x86_64"), fits("aarch64")), (Ok(()), Err(code::UNSUPPORTED.to_owned())));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let host = world();
        let fails = |name: &str| Image::read(host.provider(), "o", name).map(|_| ()).map_err(|it| it.code);
        for name in ["", "..", "../x", "a/b", "-x", ".x", "a b", "ä"] {
            assert_eq!(fails(name), Err(code::INVALID.to_owned()), "{name}");
        }
        assert_eq!(fails("other"), Err(code::NOT_FOUND.to_owned()));
        let written = |from: &str, to: &str| {
            host.put_on_host("images", "odd/guest.json", image().replace(from, to).as_bytes());
            fails("odd")
        };
        for (from, to) in
            [("\"format\":1", "\"format\":2"), ("\"format\":1", "\"format\":3"), ("vmlinux", "../vmlinux"), ("{", "")]
        {
            assert_eq!(written(from, to), Err(code::INTEGRITY.to_owned()), "{to}");
        }
        // Its files are not there.
        assert_eq!(written("x", "x"), Err(code::INTEGRITY.to_owned()));
    }
}
