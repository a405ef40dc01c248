//! Instances from their boot to their end.

use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::types::{Level, ServiceStatus};
use pcoder_sdk::{BootOptions, Error, Instance, Result, Setting, code};

use crate::boot::{Boot, From};
use crate::cloud;
use crate::copy::{go_on, settle};
use crate::disk;
use crate::facts::Facts;
use crate::halt;
use crate::image::Image;
use crate::machine::Architecture;
use crate::options::Plan;
use crate::ports;
use crate::qmp::Qmp;
use crate::record::{Phase, Record, Wish, is_alive};
use crate::store::{Store, is_id};
use crate::template;

/// How long to wait for those who talk with the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a guest may take to halt, and how often it is asked: it hears that once its power button is watched, which is
/// a moment after it is ready.
const HALT: Duration = Duration::from_secs(20);
/// The same where systemd halts, which waits for what does not end.
const OTHERS_HALT: Duration = Duration::from_secs(100);
const PRESS: Duration = Duration::from_secs(1);
/// How often whoever resumes one that somebody else halts leaves it to that one.
const OTHERS_FIRST: usize = 3;
/// How long QEMU may take to end that did not halt its guest.
const FORCE: Duration = Duration::from_secs(2);

/// What boots here.
pub(crate) fn architecture(facts: &Facts, operation: &str) -> Result<Architecture> {
    Architecture::of(facts.arch()).ok_or_else(|| {
        let message = format!("there is no machine for this processor's architecture `{}`", facts.arch());
        Error::unsupported(operation, message)
    })
}

pub(crate) fn boot(host: ProviderHost<'_>, options: BootOptions) -> Result<Instance> {
    let store = Store::new(host, "provider.boot");
    let facts = Facts::read(host, store.operation)?;
    let architecture = architecture(&facts, store.operation)?;
    let plan = Plan::of(host, &facts, architecture, options)?;
    let image = Image::read(host, store.operation, &plan.image)?;
    image.fits(store.operation, architecture)?;
    if image.is_set_up_by_cloud_init() {
        cloud::check(store.operation, &plan.environment)?;
    }
    let from = if plan.template { From::Template } else { From::Nothing };
    let keeps = plan.templates;
    let mut record = plan.record(store.new_id(), disk::new_name(host), &image, host.clock().now_ms())?;
    store.sweep();
    template::sweep(store, &facts, keeps);
    bring_up(&Boot { store, facts, architecture, image, from }, &mut record)
}

/// Makes a new instance and boots it. One that does not become ready leaves nothing.
pub(crate) fn bring_up(boot: &Boot<'_>, record: &mut Record) -> Result<Instance> {
    let store = boot.store;
    let booted = store.create(record).and_then(|()| boot.run(record, true));
    match booted {
        Ok(()) => Ok(record.instance(Phase::Ready)),
        Err(error) => Err(match store.remove(&record.id) {
            Ok(()) => error,
            Err(left) => {
                let message = format!("{}; and it could not be removed: {}", error.message, left.message);
                Error { message, ..error }.hint(format!("`pcoder instance terminate {} --provider qemu`", record.id))
            }
        }),
    }
}

pub(crate) fn get(host: ProviderHost<'_>, id: &str) -> Result<Instance> {
    let store = Store::new(host, "provider.get");
    let record = store.read(id)?;
    Ok(described(store, &record, store.service(id)?.as_ref(), host.clock().now_ms()))
}

/// An instance as it is now. One that runs is asked whether it stands still: nobody else would say so.
fn described(store: Store<'_>, record: &Record, service: Option<&ServiceStatus>, now_ms: u64) -> Instance {
    let phase = record.phase(service, now_ms);
    let mut instance = record.instance(phase);
    if phase == Phase::Ready
        && let Some(why) = halt::seen(store, &record.id)
    {
        "error".clone_into(&mut instance.status);
        instance.details.push(Setting::new("problem", why.message));
    }
    instance
}

/// Those that there are: folders, and machines that run without one.
pub(crate) fn list(host: ProviderHost<'_>) -> Result<Vec<Instance>> {
    let store = Store::new(host, "provider.list");
    let services = host.services().list().map_err(|error| error.during(store.operation))?;
    let mut ids = store.ids()?;
    ids.extend(services.iter().map(|it| it.name.clone()).filter(|it| is_id(it)));
    ids.sort();
    ids.dedup();
    let now = host.clock().now_ms();
    let described = ids.into_iter().map(|id| match store.read(&id) {
        Ok(record) => described(store, &record, services.iter().find(|it| it.name == id), now),
        Err(error) => Instance {
            id,
            status: "error".to_owned(),
            created_ms: None,
            home_dir: None,
            details: vec![Setting::new("problem", error.message)],
        },
    });
    Ok(described.collect())
}

pub(crate) fn stop(host: ProviderHost<'_>, id: &str) -> Result<()> {
    let store = Store::new(host, "provider.stop");
    let record = store.read(id)?;
    if record.wish == Wish::New {
        return Err(record.not_running(store.operation));
    }
    if is_alive(store.service(id)?.as_ref()) {
        // One that cannot be asked is made to.
        if record.paused {
            drop(go_on(store, id, PATIENCE));
        }
        if record.wish == Wish::Run {
            // One that cannot be talked with is ended as well, which is what was asked for.
            drop(shut_down(store, &record));
        }
        host.services().stop(id, FORCE).map_err(|error| error.during(store.operation))?;
    }
    // As it is now: somebody may have talked with it before.
    let mut record = store.read(id)?;
    record.wish = Wish::Halt;
    record.halting = false;
    record.unreachable();
    store.write(&record)
}

/// Has the guest halt, if it can and if it can be talked with.
fn shut_down(store: Store<'_>, record: &Record) -> Result<()> {
    let image = Image::read(store.host, store.operation, &record.image);
    let is_others = image.is_ok_and(|it| it.is_set_up_by_cloud_init());
    let longest = if is_others { OTHERS_HALT } else { HALT };
    if !press(store, &record.id, longest)? {
        let message = format!("{}: the guest has not halted in {} s, and is ended", record.id, longest.as_secs());
        store.host.log().log(Level::Warn, &message);
    }
    Ok(())
}

/// Presses the power button until the machine has halted, or for long enough. Whether it has.
fn press(store: Store<'_>, id: &str, longest: Duration) -> Result<bool> {
    let clock = store.host.clock();
    // Somebody else may be halting it.
    let mut qmp = Qmp::open(store.host, store.operation, id, PATIENCE.max(longest))?;
    // Should this be killed meanwhile, whoever resumes it waits for its end. As it is now that nobody else talks.
    // Without room for that it halts all the same.
    if let Ok(mut record) = store.read(id) {
        record.halting = true;
        drop(store.write(&record));
    }
    let started = clock.monotonic();
    while clock.monotonic().saturating_sub(started) < longest {
        qmp.run("system_powerdown")?;
        if qmp.ends_within(PRESS) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) fn resume(host: ProviderHost<'_>, id: &str) -> Result<Instance> {
    let store = Store::new(host, "provider.resume");
    let mut tries = 0;
    let (mut record, phase) = loop {
        let record = store.read(id)?;
        let phase = record.phase(store.service(id)?.as_ref(), host.clock().now_ms());
        if phase != Phase::Stopping {
            break (record, phase);
        }
        // Of those who wait for its end, the one that talks with it boots it, and the others see that.
        if shut_down(store, &record).is_err() && tries < OTHERS_FIRST {
            tries += 1;
            host.clock().sleep(PRESS);
            continue;
        }
        host.services().stop(id, FORCE).map_err(|error| error.during(store.operation))?;
    };
    match phase {
        Phase::Ready => {
            let record = if record.paused { go_on(store, id, PATIENCE)? } else { record };
            halt::go_on(store, id)?;
            return Ok(record.instance(Phase::Ready));
        }
        Phase::Booting => {
            return Err(Error::new(code::CONFLICT, store.operation, "the instance is being booted").subject(id));
        }
        Phase::Broken if record.wish == Wish::New => return Err(record.not_running(store.operation)),
        Phase::Broken | Phase::Stopped | Phase::Stopping => {}
    }
    let facts = Facts::read(host, store.operation)?;
    let architecture = architecture(&facts, store.operation)?;
    let image = Image::read(host, store.operation, &record.image)?;
    same_image(store, &record, &image)?;
    // What a boot that was killed left running.
    store.end(id, FORCE)?;
    settle(store, &mut record, None)?;
    record.wish = Wish::Halt;
    record.halting = false;
    record.seen_ms = host.clock().now_ms();
    record.unreachable();
    store.write(&record)?;
    Boot { store, facts, architecture, image, from: From::Nothing }.run(&mut record, false)?;
    Ok(record.instance(Phase::Ready))
}

/// Layers hold what differs from a disk: on another one they are rubbish.
pub(crate) fn same_image(store: Store<'_>, record: &Record, image: &Image) -> Result<()> {
    if record.image_sha256 == image.digest() {
        return Ok(());
    }
    let message = "the image is another one than the instance was made of";
    Err(Error::new(code::CONFLICT, store.operation, message)
        .subject(&record.image)
        .hint("bring the older image back, or boot a new instance"))
}

pub(crate) fn terminate(host: ProviderHost<'_>, id: &str) -> Result<()> {
    // What is no identity is not there.
    if !is_id(id) {
        return Ok(());
    }
    let store = Store::new(host, "provider.terminate");
    store.remove(id)?;
    // What a boot that was killed left running, for whoever boots nothing more.
    template::sweep(store, &Facts::default(), true);
    Ok(())
}

pub(crate) fn expose(host: ProviderHost<'_>, id: &str, port: u16) -> Result<String> {
    let store = Store::new(host, "provider.expose");
    let record = store.read(id)?;
    if port == 0 {
        return Err(Error::invalid(store.operation, "a port is a number from 1 to 65535"));
    }
    if record.phase(store.service(id)?.as_ref(), host.clock().now_ms()) != Phase::Ready {
        return Err(record.not_running(store.operation));
    }
    let mut qmp = Qmp::open(host, store.operation, id, PATIENCE)?;
    let forwarded = ports::forward(&mut qmp, store.operation, port)?;
    let mut record = store.read(id)?;
    if record.exposed.insert(port, forwarded) != Some(forwarded) {
        store.write(&record)?;
    }
    Ok(ports::url(forwarded))
}

#[cfg(test)]
mod tests;
