//! The API's operations, and which request is which.

use axum::http::Method;

macro_rules! operations {
    ($($variant:ident $name:literal $method:ident $pattern:literal),* $(,)?) => {
        /// An operation of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Operation { $($variant),* }

        impl Operation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name, by which faults choose it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Its method and path below `/api`, with `*` for ids.
            #[must_use]
            pub fn route(self) -> (&'static str, &'static str) {
                match self { $(Self::$variant => (stringify!($method), $pattern)),* }
            }
        }
    };
}

operations! {
    ImageList "image.list" GET "image",
    ImageBoot "image.boot" POST "image/*/boot",
    SnapshotList "snapshot.list" GET "snapshot",
    SnapshotPage "snapshot.page" GET "snapshot/list",
    SnapshotCreate "snapshot.create" POST "snapshot",
    SnapshotPull "snapshot.pull" POST "snapshot/pull",
    SnapshotGet "snapshot.get" GET "snapshot/*",
    SnapshotDelete "snapshot.delete" DELETE "snapshot/*",
    SnapshotMetadata "snapshot.metadata" POST "snapshot/*/metadata",
    SnapshotTtl "snapshot.ttl" POST "snapshot/*/ttl",
    SnapshotBoot "snapshot.boot" POST "snapshot/*/boot",
    SnapshotToken "snapshot.token" POST "snapshot/*/token",
    InstanceStart "instance.start" POST "instance",
    InstanceList "instance.list" GET "instance",
    InstancePage "instance.page" GET "instance/list",
    InstanceGet "instance.get" GET "instance/*",
    InstanceStop "instance.stop" DELETE "instance/*",
    InstancePause "instance.pause" POST "instance/*/pause",
    InstanceResume "instance.resume" POST "instance/*/resume",
    InstanceReboot "instance.reboot" POST "instance/*/reboot",
    InstanceSnapshot "instance.snapshot" POST "instance/*/snapshot",
    InstanceBranch "instance.branch" POST "instance/*/branch",
    InstanceExec "instance.exec" POST "instance/*/exec",
    InstanceExecSse "instance.exec-sse" POST "instance/*/exec/sse",
    InstanceMetadata "instance.metadata" POST "instance/*/metadata",
    InstanceTtl "instance.ttl" POST "instance/*/ttl",
    InstanceWakeOn "instance.wake-on" POST "instance/*/wake-on",
    InstanceExpose "instance.expose" POST "instance/*/http",
    InstanceHide "instance.hide" DELETE "instance/*/http/*",
    InstanceSshKey "instance.ssh-key" GET "instance/*/ssh/key",
    InstanceSshRotate "instance.ssh-rotate" POST "instance/*/ssh/key",
    UserSshKeyGet "user.ssh-key.get" GET "user/ssh-key",
    UserSshKeySet "user.ssh-key.set" PUT "user/ssh-key",
}

/// What a request asks for.
pub(crate) enum Route {
    /// An operation, with the ids of its path.
    Found(Operation, Vec<String>),
    /// The path is one of others' methods.
    OtherMethod,
    Unknown,
}

/// `path` is the one below `/api/`. `instances` and `snapshots` are other names of `instance` and `snapshot`.
pub(crate) fn route(method: &Method, path: &str) -> Route {
    let mut parts: Vec<&str> = path.split('/').collect();
    match parts.first_mut() {
        Some(first) if *first == "instances" => *first = "instance",
        Some(first) if *first == "snapshots" => *first = "snapshot",
        _ => {}
    }
    let mut other = false;
    // Words come before ids in the list, so that `snapshot/list` is no snapshot's name.
    for operation in Operation::ALL.iter().copied() {
        let (wanted, pattern) = operation.route();
        let Some(ids) = matched(pattern, &parts) else { continue };
        if wanted == method.as_str() {
            return Route::Found(operation, ids);
        }
        other = true;
    }
    if other { Route::OtherMethod } else { Route::Unknown }
}

fn matched(pattern: &str, parts: &[&str]) -> Option<Vec<String>> {
    let mut ids = Vec::new();
    let pattern: Vec<&str> = pattern.split('/').collect();
    if pattern.len() != parts.len() {
        return None;
    }
    for (wanted, part) in pattern.iter().zip(parts) {
        if *wanted == "*" && !part.is_empty() {
            ids.push((*part).to_owned());
        } else if wanted != part {
            return None;
        }
    }
    Some(ids)
}
