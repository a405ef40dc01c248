//! Instances from their boot to their end.

use std::time::Duration;

use pcoder_sdk::host::{ProviderHost, Stdio};
use pcoder_sdk::retry::Policy;
use pcoder_sdk::{BootOptions, CommandSpec, Error, ExitStatus, Instance, Output, Provider, ProviderInfo, Result, code};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Api, checked_id, encoded};
use crate::exec::Exec;
use crate::instance::{Described, HOME, Phase};

/// The mark of instances that were booted here: metadata that the service keeps.
const MARK: &str = "pcoder";

/// How long an instance may take to be ready.
const READY: Duration = Duration::from_secs(300);
/// How long to wait before looking again: first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LAST_LOOK: Duration = Duration::from_secs(2);

/// How much of a file one request carries. The service documents no bound, and an answer comes whole.
const FILE_CHUNK: usize = 2 << 20;

/// Morph Cloud.
#[derive(Default)]
pub struct Morph;

impl Provider for Morph {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            name: "morph".to_owned(),
            description: "Instances of Morph Cloud".to_owned(),
            features: ["stdin", "streaming", "terminal", "fork", "pause", "ports", "ttl"].map(str::to_owned).to_vec(),
            home_dir: Some(HOME.to_owned()),
        }
    }

    fn boot(&self, host: ProviderHost<'_>, options: BootOptions) -> Result<Instance> {
        let api = Api::new(host, "provider.boot");
        let token = format!("{:016x}", host.random().bits());
        let plan = Plan::of(host, options, &token)?;
        // The service refuses before it does anything, so trying again is harmless; after a failure that may have been
        // one of its own, or of the network's, the instance is looked for.
        let booted = Policy::default().run(host.clock(), host.random(), |_| match plan.send(api) {
            Err(error) if error.code != code::RATE_LIMITED && error.is_transient() => {
                Ok(find_booted(host, &token).ok_or(error))
            }
            Err(error) if error.code == code::RATE_LIMITED => Err(error),
            result => Ok(result),
        })??;
        checked_id(api.operation, &booted.id)?;
        ready_or_gone(api, booted)
    }

    fn get(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        Ok(described(Api::new(host, "provider.get"), id)?.instance())
    }

    fn list(&self, host: ProviderHost<'_>) -> Result<Vec<Instance>> {
        Ok(all(Api::new(host, "provider.list"), MARK, "1")?.iter().map(Described::instance).collect())
    }

    fn stop(&self, host: ProviderHost<'_>, id: &str) -> Result<()> {
        let api = Api::new(host, "provider.stop");
        let path = format!("/instance/{}/pause", checked_id(api.operation, id)?);
        // One that is paused already stays as it is, so trying again is harmless.
        let paused: Described = again(api, || api.json("POST", &path, None, id))?;
        same(api, id, &paused)
    }

    fn resume(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        let api = Api::new(host, "provider.resume");
        let path = format!("/instance/{}/resume", checked_id(api.operation, id)?);
        let resumed: Described = again(api, || api.json("POST", &path, None, id))?;
        same(api, id, &resumed)?;
        ready(api, resumed)
    }

    fn terminate(&self, host: ProviderHost<'_>, id: &str) -> Result<()> {
        let api = Api::new(host, "provider.terminate");
        match checked_id(api.operation, id) {
            Ok(id) => delete(api, id),
            // It is not there.
            Err(_) => Ok(()),
        }
    }

    fn fork(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        #[derive(Deserialize)]
        struct Branched {
            instances: Vec<Described>,
        }
        let api = Api::new(host, "provider.fork");
        let token = format!("{:016x}", host.random().bits());
        let path = format!("/instance/{}/branch?count=1", checked_id(api.operation, id)?);
        let body = json!({ "instance_metadata": { MARK: "1", "pcoder-boot": token, "forked-from": id } });
        let branched: Result<Branched> = api.json("POST", &path, Some(&body), id);
        let copy = match branched {
            Ok(branched) => {
                branched.instances.into_iter().next().ok_or_else(|| api.garbled(id, "no instance in it"))?
            }
            Err(error) if error.is_transient() && error.code != code::RATE_LIMITED => {
                find_booted(host, &token).ok_or(error)?
            }
            Err(error) => return Err(error),
        };
        checked_id(api.operation, &copy.id)?;
        if copy.id == id {
            return Err(api.garbled(id, "the copy is the instance itself"));
        }
        ready_or_gone(api, copy)
    }

    fn expose(&self, host: ProviderHost<'_>, id: &str, port: u16) -> Result<String> {
        let api = Api::new(host, "provider.expose");
        let id = checked_id(api.operation, id)?;
        let name = format!("port-{port}");
        let body = json!({ "name": name, "port": port, "auth_mode": "none" });
        let path = format!("/instance/{id}/http");
        // To say it again may change the address.
        let of_port = |it: &Described| it.services().iter().find(|it| it.port == port).map(|it| it.url.clone());
        if let Some(url) = of_port(&described(api, id)?) {
            return Ok(url);
        }
        let exposed = again(api, || match api.json::<Described>("POST", &path, Some(&body), id) {
            // Somebody exposed it before.
            Err(error) if error.code == code::CONFLICT => described(api, id),
            result => result,
        })?;
        same(api, id, &exposed)?;
        of_port(&exposed).ok_or_else(|| api.garbled(id, "it does not have the port's address"))
    }

    fn exec(&self, host: ProviderHost<'_>, id: &str, spec: CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        Exec::new(host, id)?.run(&spec, stdio)
    }

    fn capture(&self, host: ProviderHost<'_>, id: &str, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        Exec::new(host, id)?.capture(spec, input)
    }

    fn file_chunk(&self) -> usize {
        FILE_CHUNK
    }
}

/// What is booted.
struct Plan {
    path: String,
    body: Value,
    snapshot: String,
}

impl Plan {
    fn of(host: ProviderHost<'_>, options: BootOptions, token: &str) -> Result<Self> {
        const OPERATION: &str = "provider.boot";
        let snapshot = options.image.or_else(|| host.settings().get("snapshot")).ok_or_else(|| {
            Error::invalid(OPERATION, "no snapshot is named, and this plugin has no default")
                .hint("`--image snapshot_…`, or `pcoder config set plugins.provider-morph.snapshot snapshot_…` for all")
        })?;
        checked_id(OPERATION, &snapshot).map_err(|_| {
            Error::invalid(OPERATION, "this cannot be the name of a snapshot")
                .subject(snapshot.escape_debug().to_string())
        })?;
        let mut body = Map::new();
        let mut metadata = Map::new();
        let mut sized = false;
        for option in &options.options {
            let number = || {
                option.value.parse::<u64>().ok().filter(|it| *it > 0).ok_or_else(|| {
                    Error::invalid(OPERATION, "this option is a number above zero").subject(&option.name)
                })
            };
            let field = match option.name.as_str() {
                "vcpus" => "vcpus",
                "memory-mib" => "memory",
                "disk-mib" => "disk_size",
                name => match name.strip_prefix("metadata.") {
                    Some(key) if !key.is_empty() && key != MARK => {
                        metadata.insert(key.to_owned(), option.value.clone().into());
                        continue;
                    }
                    _ => {
                        return Err(Error::invalid(OPERATION, "instances have no such option")
                            .subject(&option.name)
                            .hint("the options are vcpus, memory-mib, disk-mib and metadata.NAME"));
                    }
                },
            };
            sized = true;
            body.insert(field.to_owned(), number()?.into());
        }
        if let Some(name) = options.name {
            metadata.insert("name".to_owned(), name.into());
        }
        metadata.insert(MARK.to_owned(), "1".into());
        metadata.insert("pcoder-boot".to_owned(), token.into());
        body.insert("metadata".to_owned(), metadata.into());
        if let Some(seconds) = options.ttl_seconds {
            // The service's `stop` deletes, and its `pause` is what can be resumed.
            let action = match options.ttl_action.as_deref() {
                None | Some("stop") => "pause",
                Some("terminate") => "stop",
                Some(other) => {
                    return Err(
                        Error::invalid(OPERATION, "the end of its time is `stop` or `terminate`").subject(other)
                    );
                }
            };
            body.insert("ttl_seconds".to_owned(), seconds.into());
            body.insert("ttl_action".to_owned(), action.into());
        } else if let Some(action) = options.ttl_action {
            return Err(Error::invalid(OPERATION, "what its end does is said, and not when that is").subject(action));
        }
        // Only this one takes a size.
        let path = match sized {
            true => format!("/snapshot/{snapshot}/boot"),
            false => format!("/instance?snapshot_id={}", encoded(&snapshot)),
        };
        Ok(Self { path, body: body.into(), snapshot })
    }

    fn send(&self, api: Api<'_>) -> Result<Described> {
        api.json("POST", &self.path, Some(&self.body), &self.snapshot).map_err(|error| match error.code.as_str() {
            code::NOT_FOUND => {
                error.hint("`morphcloud snapshot list` of the service's own client shows the snapshots that there are")
            }
            _ => error,
        })
    }
}

/// Tries again what is harmless to do twice.
fn again<T>(api: Api<'_>, operation: impl Fn() -> Result<T>) -> Result<T> {
    Policy::default().run(api.host.clock(), api.host.random(), |_| operation())
}

fn described(api: Api<'_>, id: &str) -> Result<Described> {
    let path = format!("/instance/{}", checked_id(api.operation, id)?);
    let found: Described = again(api, || api.json("GET", &path, None, id))?;
    same(api, id, &found)?;
    Ok(found)
}

/// An answer is about what was asked.
fn same(api: Api<'_>, id: &str, described: &Described) -> Result<()> {
    if described.id == id {
        return Ok(());
    }
    Err(api.garbled(id, "it is about another instance"))
}

/// The instances with this metadata. The service filters, and a service that does not is not believed.
fn all(api: Api<'_>, key: &str, value: &str) -> Result<Vec<Described>> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<Described>,
    }
    let path = format!("/instance?{}={}", encoded(&format!("metadata[{key}]")), encoded(value));
    let list: List = again(api, || api.json("GET", &path, None, "instances"))?;
    let ours = |it: &Described| it.metadata.as_ref().and_then(|it| it.get(key)).is_some_and(|it| it == value);
    Ok(list.data.into_iter().filter(ours).collect())
}

/// The instance of a boot whose answer was lost.
fn find_booted(host: ProviderHost<'_>, token: &str) -> Option<Described> {
    all(Api::new(host, "provider.list"), "pcoder-boot", token).ok()?.into_iter().next()
}

fn delete(api: Api<'_>, id: &str) -> Result<()> {
    let path = format!("/instance/{id}");
    again(api, || match api.send("DELETE", &path, None, id) {
        Err(error) if error.code != code::NOT_FOUND => Err(error),
        _ => Ok(()),
    })
}

/// Waits for a new instance. One that does not become ready is ended: nobody knows of it.
fn ready_or_gone(api: Api<'_>, instance: Described) -> Result<Instance> {
    let id = instance.id.clone();
    ready(api, instance).map_err(|error| match delete(api, &id) {
        Ok(()) => error,
        Err(left) => {
            let message = format!("{}; and it could not be ended: {}", error.message, left.message);
            Error { message, ..error }.hint(format!("`pcoder instance terminate {id} --provider morph`"))
        }
    })
}

/// Waits until an instance is ready.
fn ready(api: Api<'_>, mut instance: Described) -> Result<Instance> {
    let id = instance.id.clone();
    let started = api.host.clock().monotonic();
    let mut wait = FIRST_LOOK;
    let failed = |code: &str, message: String| Err(Error::new(code, api.operation, message).subject(&id));
    loop {
        match instance.phase() {
            Phase::Ready => return Ok(instance.instance()),
            Phase::Failed => return failed(code::SERVER, "the instance failed while it was started".to_owned()),
            Phase::Unknown => {
                let status: String = instance.status.escape_debug().take(40).collect();
                return failed(code::SERVER, format!("the service reports the status `{status}`, which is not known"));
            }
            Phase::Stopped | Phase::Stopping => {
                // Right after a resume the service may still tell of before.
                if api.operation != "provider.resume" {
                    return failed(code::CONFLICT, "the instance was paused while it was started".to_owned());
                }
            }
            Phase::Booting => {}
        }
        let waited = api.host.clock().monotonic().saturating_sub(started);
        if waited >= READY {
            return failed(code::TIMEOUT, format!("the instance was not ready within {} s", READY.as_secs()));
        }
        api.host.clock().sleep(wait);
        wait = (wait * 2).min(LAST_LOOK);
        instance = described(api, &id)?;
    }
}
