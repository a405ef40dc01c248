//! The operations, but for running commands. They block: they copy files and start processes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Outcome, Refusal};
use crate::expose::Service;
use crate::input::{Fields, Metadata, Problems, Query, metadata};
use crate::model::{Spec, Status, Ttl, TtlAction};
use crate::operation::Operation;
use crate::world::{IMAGES, IMAGES_CREATED, Wish, World};

/// A request, taken apart.
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) ids: Vec<String>,
    pub(crate) query: Query,
    pub(crate) body: Vec<u8>,
}

impl Call {
    pub(crate) fn id(&self) -> &str {
        self.ids.first().map_or("", String::as_str)
    }

    fn fields(&self, required: bool) -> Result<Fields, Refusal> {
        Fields::new(&self.body, required)
    }
}

/// Answers a call; `null` stands for an answer without a body.
pub(crate) fn answer(world: &Arc<World>, call: &Call) -> Outcome {
    match call.operation {
        Operation::ImageList => Ok(images()),
        Operation::ImageBoot => boot_image(world, call),
        Operation::SnapshotList | Operation::SnapshotPage => snapshots(world, call),
        Operation::SnapshotCreate => create_snapshot(world, call),
        Operation::SnapshotPull => pull(world, call),
        Operation::SnapshotGet => Ok(world.state().snapshot(call.id())?.show()),
        Operation::SnapshotDelete => {
            let removed = world.state().snapshots.remove(call.id());
            removed.map(|_| Value::Null).ok_or_else(|| Refusal::not_found("Snapshot"))
        }
        Operation::SnapshotMetadata => {
            let metadata = flat(call)?;
            let mut state = world.state();
            let snapshot = state.snapshot(call.id())?;
            snapshot.metadata = metadata;
            Ok(snapshot.show())
        }
        Operation::SnapshotTtl => snapshot_ttl(world, call),
        Operation::SnapshotBoot => {
            let wish = wish(call, true)?;
            let id = world.start(call.id(), wish)?;
            Ok(world.state().instance(&id)?.show())
        }
        Operation::SnapshotToken => token(world, call),
        Operation::InstanceStart => start(world, call),
        Operation::InstanceList | Operation::InstancePage => instances(world, call),
        Operation::InstanceGet => Ok(world.state().instance(call.id())?.read()),
        Operation::InstanceStop => world.stop(call.id()).map(|()| Value::Null),
        Operation::InstancePause => pause(world, call),
        Operation::InstanceResume => {
            world.resume(call.id())?;
            shown(world, call.id())
        }
        Operation::InstanceReboot => reboot(world, call),
        Operation::InstanceSnapshot => snapshot_instance(world, call),
        Operation::InstanceBranch => branch(world, call),
        Operation::InstanceMetadata => {
            let metadata = flat(call)?;
            let mut state = world.state();
            let instance = state.instance(call.id())?;
            instance.metadata = metadata;
            Ok(instance.show())
        }
        Operation::InstanceTtl => instance_ttl(world, call),
        Operation::InstanceWakeOn => wake_on(world, call),
        Operation::InstanceExpose => expose(world, call),
        Operation::InstanceHide => hide(world, call),
        Operation::InstanceSshKey => Ok(world.keys(call.id(), false)?.show()),
        Operation::InstanceSshRotate => Ok(world.keys(call.id(), true)?.show()),
        Operation::UserSshKeyGet => {
            let state = world.state();
            let (key, created) = state.user_key.as_ref().ok_or_else(|| Refusal::not_found("SSH key"))?;
            Ok(json!({ "public_key": key, "created": created }))
        }
        Operation::UserSshKeySet => set_user_key(world, call),
        // These are asynchronous, and answered elsewhere.
        Operation::InstanceExec | Operation::InstanceExecSse => Err(Refusal::not_found("Operation")),
    }
}

fn shown(world: &World, id: &str) -> Outcome {
    Ok(world.state().instance(id)?.show())
}

fn images() -> Value {
    let images = IMAGES.iter().map(|(id, name, disk)| {
        json!({ "id": id, "object": "image", "created": IMAGES_CREATED, "name": name, "description": null,
                "disk_size": disk << 20 })
    });
    json!({ "object": "list", "data": images.collect::<Vec<_>>() })
}

fn image(id: &str) -> Result<u64, Refusal> {
    let found = IMAGES.iter().find(|(candidate, ..)| *candidate == id);
    found.map(|(.., disk)| *disk).ok_or_else(|| Refusal::not_found("Image"))
}

fn wish(call: &Call, required: bool) -> Result<Wish, Refusal> {
    let fields = call.fields(required)?;
    let mut problems = Problems::default();
    let wish = Wish {
        vcpus: fields.whole("vcpus", 1, &mut problems),
        memory: fields.whole("memory", 1, &mut problems),
        disk_size: fields.whole("disk_size", 1, &mut problems),
        metadata: fields.metadata("metadata", &mut problems),
        ttl_seconds: fields.whole("ttl_seconds", 1, &mut problems),
        ttl_action: ttl_action(&fields, &mut problems),
    };
    problems.check()?;
    Ok(wish)
}

fn ttl_action(fields: &Fields, problems: &mut Problems) -> Option<TtlAction> {
    let word = fields.one_of("ttl_action", &["stop", "pause"], problems)?;
    Some(if word == "pause" { TtlAction::Pause } else { TtlAction::Stop })
}

fn flat(call: &Call) -> Result<Metadata, Refusal> {
    let mut problems = Problems::default();
    let metadata = call.fields(true)?.flat(&mut problems);
    problems.check()?;
    Ok(metadata)
}

fn boot_image(world: &World, call: &Call) -> Outcome {
    let disk = image(call.id())?;
    let wish = wish(call, true)?;
    let spec = wish.spec(Spec { vcpus: 1, memory: 128, disk_size: disk });
    let snapshot = world.bare_snapshot(spec, call.id());
    let from = snapshot.id.clone();
    world.keep_snapshot(snapshot);
    let id = world.start(&from, wish)?;
    shown(world, &id)
}

fn start(world: &World, call: &Call) -> Outcome {
    let mut problems = Problems::default();
    let snapshot = call.query.text("snapshot_id");
    if snapshot.is_none() {
        problems.add(&["query", "snapshot_id"], "missing", "Field required");
    }
    problems.check()?;
    // Sizes are the snapshot's here.
    let wish = Wish { vcpus: None, memory: None, disk_size: None, ..wish(call, false)? };
    let id = world.start(snapshot.unwrap_or_default(), wish)?;
    shown(world, &id)
}

fn has(metadata: &BTreeMap<String, String>, wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(key, value)| metadata.get(*key).is_some_and(|given| given == value))
}

fn instances(world: &World, call: &Call) -> Outcome {
    let wanted = call.query.metadata();
    let mut state = world.state();
    let mut found: Vec<_> = state.instances.values_mut().filter(|one| has(&one.metadata, &wanted)).collect();
    found.sort_by_key(|one| one.number);
    let found = found.into_iter().map(|one| one.read()).collect();
    listed(call, call.operation == Operation::InstancePage, "instances", found)
}

fn snapshots(world: &World, call: &Call) -> Outcome {
    let (wanted, digest) = (call.query.metadata(), call.query.text("digest"));
    let state = world.state();
    let mut found: Vec<_> = state
        .snapshots
        .values()
        .filter(|one| has(&one.metadata, &wanted) && (digest.is_none() || one.digest.as_deref() == digest))
        .collect();
    found.sort_by_key(|one| one.number);
    let found = found.into_iter().map(|one| one.show()).collect();
    listed(call, call.operation == Operation::SnapshotPage, "snapshots", found)
}

fn listed(call: &Call, paged: bool, name: &str, found: Vec<Value>) -> Outcome {
    if !paged {
        return Ok(json!({ "object": "list", "data": found }));
    }
    let mut problems = Problems::default();
    let page = call.query.whole("page", 1..=1 << 32, &mut problems).unwrap_or(1);
    let size = call.query.whole("limit", 1..=1000, &mut problems).unwrap_or(50);
    problems.check()?;
    let total = found.len() as u64;
    let pages = total.div_ceil(size);
    let skipped = usize::try_from((page - 1).saturating_mul(size)).unwrap_or(usize::MAX);
    let part: Vec<Value> = found.into_iter().skip(skipped).take(usize::try_from(size).unwrap_or(usize::MAX)).collect();
    Ok(json!({ name: part, "total": total, "page": page, "size": size, "total_pages": pages,
               "has_next": page < pages, "has_prev": page > 1 }))
}

fn create_snapshot(world: &World, call: &Call) -> Outcome {
    let fields = call.fields(true)?;
    let mut problems = Problems::default();
    let id = fields.text("image_id", &mut problems).unwrap_or_else(|| "morphvm-minimal".to_owned());
    let spec = Spec {
        vcpus: fields.whole("vcpus", 1, &mut problems).unwrap_or(1),
        memory: fields.whole("memory", 1, &mut problems).unwrap_or(128),
        disk_size: fields.whole("disk_size", 1, &mut problems).unwrap_or(700),
    };
    let digest = fields.text("digest", &mut problems);
    let metadata = fields.metadata("metadata", &mut problems).unwrap_or_default();
    let seconds = fields.whole("ttl_seconds", 1, &mut problems);
    problems.check()?;
    image(&id)?;
    if let Some(same) = world.state().snapshots.values().find(|one| digest.is_some() && one.digest == digest) {
        return Ok(same.show());
    }
    let mut snapshot = world.bare_snapshot(spec, &id);
    snapshot.digest = digest;
    snapshot.metadata = metadata;
    snapshot.ttl = Ttl::new(seconds, TtlAction::Stop, snapshot.created);
    let shown = snapshot.show();
    world.keep_snapshot(snapshot);
    Ok(shown)
}

fn snapshot_ttl(world: &World, call: &Call) -> Outcome {
    let (seconds, _) = ttl(call)?;
    let mut state = world.state();
    let snapshot = state.snapshot(call.id())?;
    snapshot.ttl = Ttl::new(seconds, TtlAction::Stop, world.clock.seconds());
    Ok(snapshot.show())
}

fn ttl(call: &Call) -> Result<(Option<u64>, Option<TtlAction>), Refusal> {
    let fields = call.fields(true)?;
    let mut problems = Problems::default();
    fields.require("ttl_seconds", &mut problems);
    let seconds = fields.whole("ttl_seconds", 1, &mut problems);
    let action = ttl_action(&fields, &mut problems);
    problems.check()?;
    Ok((seconds, action))
}

fn token(world: &World, call: &Call) -> Outcome {
    let mut problems = Problems::default();
    let expires = call.query.whole("expires_in", 60..=86400, &mut problems).unwrap_or(3600);
    problems.check()?;
    let mut state = world.state();
    state.snapshot(call.id())?;
    let token = crate::keys::word(32);
    state.tokens.insert(token.clone(), (call.id().to_owned(), world.clock.seconds() + expires));
    Ok(json!({ "token": token, "expires_in": expires }))
}

fn pull(world: &World, call: &Call) -> Outcome {
    let mut problems = Problems::default();
    let token = call.query.text("token");
    if token.is_none() {
        problems.add(&["query", "token"], "missing", "Field required");
    }
    let metadata = call.fields(false)?.flat(&mut problems);
    problems.check()?;
    let now = world.clock.seconds();
    let mut state = world.state();
    let known = token.and_then(|token| state.tokens.get(token)).filter(|(_, until)| *until > now);
    let (from, _) = known.cloned().ok_or_else(|| Refusal::new(StatusCode::FORBIDDEN, "Invalid snapshot token"))?;
    let source = state.snapshot(&from)?;
    let (spec, image, files) = (source.spec, source.image.clone(), source.files.clone());
    drop(state);
    let mut snapshot = world.bare_snapshot(spec, &image);
    snapshot.files = files;
    snapshot.digest = call.query.text("digest").map(str::to_owned);
    snapshot.metadata = metadata;
    let shown = snapshot.show();
    world.keep_snapshot(snapshot);
    Ok(shown)
}

fn pause(world: &World, call: &Call) -> Outcome {
    let mut problems = Problems::default();
    let visible = call.query.boolean("snapshot", &mut problems);
    problems.check()?;
    let fresh = world.state().instance(call.id())?.status == Status::Ready;
    if visible && fresh {
        world.snapshot(call.id(), None, Metadata::new(), Ttl::default())?;
    }
    world.pause(call.id())?;
    shown(world, call.id())
}

fn reboot(world: &World, call: &Call) -> Outcome {
    let wish = wish(call, false)?;
    let now = world.clock.seconds();
    let mut state = world.state();
    let instance = state.instance(call.id())?;
    if matches!(instance.status, Status::Saving | Status::Pending) {
        return Err(Refusal::state("Instance is not ready"));
    }
    instance.boots += 1;
    instance.machine.reboot()?;
    instance.spec = wish.spec(instance.spec);
    if wish.ttl_seconds.is_some() || wish.ttl_action.is_some() {
        let seconds = wish.ttl_seconds.or(instance.ttl.seconds);
        instance.ttl = Ttl::new(seconds, wish.ttl_action.unwrap_or(instance.ttl.action), now);
    }
    if let Some(metadata) = wish.metadata {
        instance.metadata = metadata;
    }
    instance.polls = world.options.boot_polls;
    instance.status = if instance.polls == 0 { Status::Ready } else { Status::Pending };
    Ok(instance.show())
}

fn snapshot_instance(world: &World, call: &Call) -> Outcome {
    let fields = call.fields(false)?;
    let mut problems = Problems::default();
    let metadata = fields.metadata("metadata", &mut problems).unwrap_or_default();
    let seconds = fields.whole("ttl_seconds", 1, &mut problems);
    problems.check()?;
    let ttl = Ttl::new(seconds, TtlAction::Stop, world.clock.seconds());
    let id = world.snapshot(call.id(), call.query.text("digest"), metadata, ttl)?;
    Ok(world.state().snapshot(&id)?.show())
}

fn branch(world: &World, call: &Call) -> Outcome {
    let fields = call.fields(false)?;
    let mut problems = Problems::default();
    let count = call.query.whole("count", 1..=100, &mut problems).unwrap_or(1);
    let of_snapshot = fields.metadata("snapshot_metadata", &mut problems).unwrap_or_default();
    let location = ["body", "instance_metadata"];
    let of_instances: Vec<Metadata> = match fields.raw("instance_metadata") {
        Some(Value::Array(items)) => items.iter().map(|item| metadata(item, &location, &mut problems)).collect(),
        Some(one) => {
            let one = metadata(one, &location, &mut problems);
            (0..count).map(|_| one.clone()).collect()
        }
        None => (0..count).map(|_| Metadata::new()).collect(),
    };
    if of_instances.len() as u64 != count {
        problems.add(&location, "value_error", "Value error, one for each instance");
    }
    problems.check()?;
    let from = world.snapshot(call.id(), call.query.text("digest"), of_snapshot, Ttl::default())?;
    let mut made = Vec::new();
    for metadata in of_instances {
        let id = world.start(&from, Wish { metadata: Some(metadata), ..Wish::default() })?;
        made.push(shown(world, &id)?);
    }
    let snapshot = world.state().snapshot(&from)?.show();
    Ok(json!({ "snapshot": snapshot, "instances": made }))
}

fn instance_ttl(world: &World, call: &Call) -> Outcome {
    let (seconds, action) = ttl(call)?;
    let mut state = world.state();
    let instance = state.instance(call.id())?;
    instance.ttl = Ttl::new(seconds, action.unwrap_or(instance.ttl.action), world.clock.seconds());
    Ok(instance.show())
}

fn wake_on(world: &World, call: &Call) -> Outcome {
    let fields = call.fields(true)?;
    let mut problems = Problems::default();
    let ssh = fields.boolean("wake_on_ssh", &mut problems);
    let http = fields.boolean("wake_on_http", &mut problems);
    problems.check()?;
    let mut state = world.state();
    let instance = state.instance(call.id())?;
    instance.wake_on_ssh = ssh.unwrap_or(instance.wake_on_ssh);
    instance.wake_on_http = http.unwrap_or(instance.wake_on_http);
    Ok(instance.show())
}

/// `^[a-z0-9]([a-z0-9-_]*[a-z0-9])?$`
fn is_service_name(name: &str) -> bool {
    let end = |letter: &u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.first().is_some_and(end)
        && bytes.last().is_some_and(end)
        && bytes.iter().all(|letter| end(letter) || matches!(letter, b'-' | b'_'))
}

fn expose(world: &Arc<World>, call: &Call) -> Outcome {
    let fields = call.fields(true)?;
    let mut problems = Problems::default();
    fields.require("name", &mut problems);
    fields.require("port", &mut problems);
    let name = fields.text("name", &mut problems);
    let at = ["body", "name"];
    match name.as_deref() {
        Some(name) if name.len() > 40 => {
            problems.add(&at, "string_too_long", "String should have at most 40 characters");
        }
        Some(name) if !is_service_name(name) => {
            let message = "String should match pattern '^[a-z0-9]([a-z0-9-_]*[a-z0-9])?$'";
            problems.add(&at, "string_pattern_mismatch", message);
        }
        _ => {}
    }
    let port = fields.whole("port", 1, &mut problems).map(u16::try_from);
    if let Some(Err(_)) = port {
        problems.add(&["body", "port"], "less_than_equal", "Input should be less than or equal to 65535");
    }
    let mode = fields.one_of("auth_mode", &["none", "api_key"], &mut problems);
    problems.check()?;
    world.state().instance(call.id())?;
    let (name, port) = (name.unwrap_or_default(), port.and_then(Result::ok).unwrap_or_default());
    let service = Service::start(Arc::clone(world), call.id(), name, port, mode.as_deref() == Some("api_key"))?;
    let mut state = world.state();
    let instance = state.instance(call.id())?;
    // The same name again is the same service, at another port.
    instance.services.retain(|other| other.name != service.name);
    instance.services.push(service);
    Ok(instance.show())
}

fn hide(world: &World, call: &Call) -> Outcome {
    let name = call.ids.get(1).map_or("", String::as_str);
    let mut state = world.state();
    let instance = state.instance(call.id())?;
    let before = instance.services.len();
    instance.services.retain(|service| service.name != name);
    if instance.services.len() == before {
        return Err(Refusal::not_found("HTTP service"));
    }
    Ok(instance.show())
}

fn set_user_key(world: &World, call: &Call) -> Outcome {
    let fields = call.fields(true)?;
    let mut problems = Problems::default();
    fields.require("public_key", &mut problems);
    let key = fields.text("public_key", &mut problems).unwrap_or_default();
    if !key.is_empty() && russh::keys::PublicKey::from_openssh(&key).is_err() {
        problems.add(&["body", "public_key"], "value_error", "Value error, not a public key");
    }
    problems.check()?;
    let created = world.clock.seconds();
    world.state().user_key = Some((key.clone(), created));
    Ok(json!({ "public_key": key, "created": created }))
}
