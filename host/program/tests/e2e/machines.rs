//! Virtual machines: real ones, which QEMU emulates, with the guest image that `cargo xtask test` builds.

use std::path::{Path, PathBuf};

use pcoder_core::{Launcher, Pcoder};
use pcoder_testkit::{Subject, conformance};

use crate::remote::conformance::{passed, pcoder};
use crate::remote::runtime;

/// Puts the image where a pcoder in this folder has its images. Linked, because it has gigabytes.
fn with_image(home: &Path) {
    let from = PathBuf::from(std::env::var_os("PCODER_TEST_GUEST").unwrap_or_else(|| {
        panic!(
            "`PCODER_TEST_GUEST` does not say where the guest image is: run `cargo xtask test`, which builds it first"
        )
    }));
    let to = home.join("images").join("debian-13-amd64");
    std::fs::create_dir_all(&to).expect("a folder");
    for file in ["vmlinux", "initrd", "root.img", "guest.json"] {
        std::fs::hard_link(from.join(file), to.join(file)).expect("a link");
    }
}

/// A pcoder that keeps programs running as the command line does.
fn keeping(pcoder: &Pcoder) {
    let words = |all: &[&str]| all.iter().map(Into::into).collect();
    pcoder.keep_services_with(Launcher {
        program: env!("CARGO_BIN_EXE_pcoder").into(),
        supervise: words(&["__service"]),
        become_program: words(&["__service-program", "--"]),
    });
}

#[test]
fn qemu_is_a_provider() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let pcoder = pcoder(folder.path(), &[]);
    keeping(&pcoder);
    with_image(&folder.path().join("pcoder"));
    passed(&runtime().block_on(conformance(&Subject::new(&pcoder, "qemu"))));
}
