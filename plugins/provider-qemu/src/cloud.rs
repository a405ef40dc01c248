//! What an image that pcoder did not make is told of itself: `user-data` for cloud-init, which reads it from the seed
//! (<https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html>).
//!
//! It makes the user, lets in the host's key, and starts a program that speaks with the host as pcoder's own guest does. A
//! new `instance-id` is a new machine to cloud-init too, which then makes another SSH host key and does all of this again.

use std::collections::BTreeMap;

use pcoder_sdk::{Error, Result, Setting};
use serde_json::{Value, json};

use crate::exec::{HOME, USER};

/// A machine takes as many sessions as the host has for it; the server's own limit is ten.
const SSHD: &str = "MaxSessions 256\nMaxStartups 64\nUseDNS no\n";

/// Whether such a machine can have this environment: PAM reads `/etc/environment`, where `#` begins a comment and quotes
/// around a value are none of it (<https://manpages.debian.org/trixie/libpam-modules/pam_env.8.en.html>).
///
/// # Errors
/// `invalid` for a variable that would have another value there.
pub(crate) fn check(operation: &str, environment: &BTreeMap<String, String>) -> Result<()> {
    match environment.iter().find(|(_, value)| value.contains(['#', '"', '\'', '\\'])) {
        None => Ok(()),
        Some((name, _)) => {
            let message = "a machine of this image cannot have `#`, quotes or a backslash in a variable of `env.NAME`";
            Err(Error::invalid(operation, message).subject(name).hint("set it in the command that is run there"))
        }
    }
}

/// The file, in JSON, which is YAML too: nothing that is in it can be read as anything else.
pub(crate) fn user_data(key: &str, environment: &[Setting], idle_stop: Option<u64>) -> String {
    let file = |path: &str, permissions: &str, content: &str| json!({ "path": path, "permissions": permissions, "content": content });
    let mut files = vec![
        file("/usr/local/lib/pcoder/guest", "0755", include_str!("../cloud/guest")),
        file("/etc/systemd/system/pcoder-guest.service", "0644", include_str!("../cloud/pcoder-guest.service")),
        file("/etc/ssh/sshd_config.d/00-pcoder.conf", "0644", SSHD),
        file("/etc/sudoers.d/90-pcoder", "0440", "Defaults env_file=/etc/environment\n"),
    ];
    if !environment.is_empty() {
        let lines: String = environment.iter().map(|it| format!("{}={}\n", it.name, it.value)).collect();
        let mut added = file("/etc/environment", "0644", &lines);
        added["append"] = Value::Bool(true);
        files.push(added);
    }
    if let Some(seconds) = idle_stop {
        files.push(file("/etc/pcoder/idle-stop", "0644", &format!("{seconds}\n")));
    }
    // Started when cloud-init has ended, which waits for what it starts itself.
    let start = [
        vec!["systemctl", "daemon-reload"],
        vec!["systemctl", "enable", "pcoder-guest.service"],
        vec!["systemctl", "start", "--no-block", "pcoder-guest.service"],
    ];
    let user = json!({
        "name": USER,
        "homedir": HOME,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL:ALL) NOPASSWD:ALL",
        "lock_passwd": true,
        "ssh_authorized_keys": [key.trim()],
    });
    let all = json!({
        "users": [user],
        "disable_root": true,
        "ssh_pwauth": false,
        "ssh_deletekeys": true,
        "ssh_genkeytypes": ["ed25519"],
        "package_update": false,
        "package_upgrade": false,
        "write_files": files,
        "runcmd": start,
    });
    format!("#cloud-config\n{all}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cloud_init_reads_is_one_document_whatever_is_in_it() {
        let environment = [Setting::new("http_proxy", "http://10.0.2.2:3128"), Setting::new("A", "b: [c] - {d")];
        let is_fine = |value: &str| check("o", &BTreeMap::from([("A".to_owned(), value.to_owned())])).is_ok();
        assert!(is_fine("b: [c] - {d") && !is_fine("a#b") && !is_fine("\"a\"") && !is_fine("a\\b"));
        let text = user_data("ssh-ed25519 AAAA\n", &environment, Some(90));
        let document = text.strip_prefix("#cloud-config\n").unwrap();
        let all: Value = serde_json::from_str(document).unwrap();
        assert_eq!(all["users"][0]["ssh_authorized_keys"], json!(["ssh-ed25519 AAAA"]));
        let files = all["write_files"].as_array().unwrap();
        let content = |path: &str| {
            let file = files.iter().find(|it| it["path"] == path).unwrap();
            (file["content"].as_str().unwrap(), file["append"].as_bool())
        };
        assert_eq!(content("/etc/environment"), ("http_proxy=http://10.0.2.2:3128\nA=b: [c] - {d\n", Some(true)));
        assert_eq!(content("/etc/pcoder/idle-stop"), ("90\n", None));
        assert!(content("/usr/local/lib/pcoder/guest").0.starts_with("#!/bin/sh\n"));
        assert!(!user_data("k", &[], None).contains("/etc/environment\",\"permissions"));
    }
}
