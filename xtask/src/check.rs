//! `cargo xtask test` and `cargo xtask lint`.

use std::process::Command;

use crate::Failure;
use crate::build::{SELECTION, build, cargo_with, plain_cargo, run};
use crate::vendor_wit;
use crate::workspace::root;

/// Everything that a change must pass, the real engines included.
pub(crate) fn test() -> Result<(), Failure> {
    crate::debian::openssh()?;
    crate::debian::keyring()?;
    crate::debian::strace()?;
    if cfg!(target_os = "linux") && crate::debian::on_path("apt-get") {
        crate::debian::exfat()?;
        crate::debian::instances()?;
    }
    let program = build()?;
    // Nobody should need two more languages to see that pcoder works. The project's own checks leave nothing out.
    let left_out = crate::templates::missing_tools().filter(|_| std::env::var_os("CI").is_none());
    if left_out.is_none() {
        crate::templates::build()?;
    }
    println!("installing the engines that the end-to-end tests run (nothing, when they are there)");
    for (name, version) in [
        ("claude", None),
        ("codex", None),
        ("node", None),
        ("claude-agent-acp", None),
        ("codex-acp", None),
        ("claude", Some("0.3.156")),
        ("codex", Some("0.128.0")),
    ] {
        let mut install = Command::new(&program);
        install.args(["engine", "install", name]);
        if let Some(version) = version {
            install.args(["--version", version]);
        }
        run(&mut install)?;
    }
    let list = Command::new(&program)
        .args(["engine", "list", "--json"])
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).map_err(|error| error.to_string())?;
    let folder = list["folder"].as_str().ok_or("`pcoder engine list` names no folder")?;
    // The tests run those engines, with everything else in folders of their own.
    let guest = crate::build::target().join("guest-image");
    let guest_text = guest.to_str().ok_or("the target folder's path is not Unicode")?;
    let cloud = crate::build::target().join("cloud-image");
    let cloud_text = cloud.to_str().ok_or("the target folder's path is not Unicode")?;
    let environment =
        [("PCODER_TEST_ENGINES", folder), ("PCODER_TEST_GUEST", guest_text), ("PCODER_TEST_CLOUD_IMAGE", cloud_text)];
    let no_machines = crate::guest_image::missing_for_tests();
    if no_machines.is_none() {
        println!("building the guest image that the tests start (nothing, when it is there)");
        crate::guest_image::for_tests(&guest)?;
        crate::guest_image::cloud_image_for_tests(&cloud)?;
    }
    let mut args = vec!["test", "--"];
    let mut skipped = Vec::new();
    if let Some(reason) = left_out {
        args.extend(["--skip", "templates::"]);
        skipped.push(format!("the plugins in JavaScript and Python ({reason})"));
    }
    if let Some(reason) = no_machines {
        args.extend(["--skip", "machines::"]);
        skipped.push(format!("virtual machines ({reason})"));
    }
    cargo_with(&args, &environment)?;
    for what in skipped {
        println!("left out: {what}");
    }
    Ok(())
}

/// Formatting, lints, documentation, contracts, dependencies.
pub(crate) fn lint() -> Result<(), Failure> {
    let cargo = plain_cargo;
    run(cargo().current_dir(root()).args(["fmt", "--all", "--check"]))?;
    run(cargo().current_dir(root()).arg("clippy").args(SELECTION).args(["--all-targets", "--", "-D", "warnings"]))?;
    run(cargo()
        .current_dir(root())
        .arg("doc")
        .args(SELECTION)
        .args(["--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"))?;
    vendor_wit::run(vendor_wit::Mode::Check)?;
    crate::dependencies::check()
}
