//! What is to be booted, of what the user says, the plugin's settings and the host.

use std::collections::BTreeMap;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{BootOptions, Error, Result, shell};

use crate::engines;
use crate::facts::Facts;
use crate::image::Image;
use crate::machine::{Accelerator, Architecture};
use crate::record::{FORMAT, Network, Record, Wish};

const OPERATION: &str = "provider.boot";
const OPTIONS: &str = "the options are memory-mib, cpus, disk-gib, network=none|restricted|full, \
                       accelerator=auto|kvm|hvf|whpx|tcg, template=auto|off, idle-stop=off|TIME, env.NAME and engines";

/// What a machine has unless somebody says otherwise: at most this, and at most half of what the host has.
const MEMORY_MIB: u64 = 2048;
const CPUS: u32 = 4;

const LEAST_MEMORY_MIB: u64 = 256;
const MOST_MEMORY_MIB: u64 = 1 << 20;
const MOST_DISK_GIB: u64 = 4096;

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) image: String,
    name: Option<String>,
    memory_mib: u64,
    cpus: u32,
    disk_gib: Option<u64>,
    network: Network,
    wanted: Option<Accelerator>,
    /// Whether it may begin with a template's memory.
    pub(crate) template: bool,
    /// Whether there may be templates at all: what a setting says holds for all machines.
    pub(crate) templates: bool,
    pub(crate) environment: BTreeMap<String, String>,
    idle_stop: Option<u64>,
    engines: Option<String>,
}

impl Plan {
    pub(crate) fn of(
        host: ProviderHost<'_>,
        facts: &Facts,
        architecture: Architecture,
        options: BootOptions,
    ) -> Result<Self> {
        if let Some(action) = options.ttl_action.or_else(|| options.ttl_seconds.map(|it| it.to_string())) {
            let message = "a machine of this provider has no end of its time";
            return Err(Error::unsupported(OPERATION, message)
                .subject(action)
                .hint("`--option idle-stop=30m` stops it when nobody has used it for so long"));
        }
        let setting = |name: &str| host.settings().get(name).filter(|it| !it.is_empty());
        let memory = facts.memory_mib.map_or(MEMORY_MIB, |it| (it / 2).clamp(LEAST_MEMORY_MIB, MEMORY_MIB));
        let mut plan = Self {
            image: options
                .image
                .or_else(|| setting("image"))
                .unwrap_or_else(|| format!("debian-13-{}", architecture.debian)),
            name: options.name,
            memory_mib: memory,
            cpus: facts.cpus.unwrap_or(1).clamp(1, CPUS),
            disk_gib: None,
            network: Network::Full,
            wanted: None,
            template: true,
            templates: true,
            environment: BTreeMap::new(),
            idle_stop: None,
            engines: None,
        };
        for name in ["memory-mib", "cpus", "disk-gib", "network", "accelerator", "template", "idle-stop"] {
            if let Some(value) = setting(name) {
                plan.set(name, &value, architecture)?;
            }
        }
        plan.templates = plan.template;
        for option in &options.options {
            plan.set(&option.name, &option.value, architecture)?;
        }
        plan.template &= plan.templates;
        if let Some(most) = facts.memory_mib.filter(|it| plan.memory_mib > *it) {
            let message = format!("a machine cannot have more memory than this computer, which has {most} MiB");
            return Err(Error::invalid(OPERATION, message).subject("memory-mib"));
        }
        Ok(plan)
    }

    fn set(&mut self, name: &str, value: &str, architecture: Architecture) -> Result<()> {
        let number = |least: u64, most: u64| {
            value.parse::<u64>().ok().filter(|it| (least..=most).contains(it)).ok_or_else(|| {
                let message = format!("this option is a number from {least} to {most}");
                Error::invalid(OPERATION, message).subject(name)
            })
        };
        match name {
            "memory-mib" => self.memory_mib = number(LEAST_MEMORY_MIB, MOST_MEMORY_MIB)?,
            "cpus" => self.cpus = u32::try_from(number(1, architecture.most_cpus.into())?).unwrap_or(1),
            "disk-gib" => self.disk_gib = Some(number(1, MOST_DISK_GIB)?),
            "network" => {
                self.network = match value {
                    "none" => Network::None,
                    "restricted" => Network::Restricted,
                    "full" => Network::Full,
                    _ => {
                        let message = "a network is `none`, `restricted` or `full`";
                        return Err(Error::invalid(OPERATION, message).subject("network"));
                    }
                }
            }
            "template" => {
                self.template = match value {
                    "auto" => true,
                    "off" => false,
                    _ => return Err(Error::invalid(OPERATION, "a template is `auto` or `off`").subject("template")),
                }
            }
            "idle-stop" if value == "off" => self.idle_stop = None,
            "idle-stop" => {
                self.idle_stop = Some(seconds(value).ok_or_else(|| {
                    let message = "this is `off`, or a time from 1s to 720h as `90s`, `30m` or `2h`";
                    Error::invalid(OPERATION, message).subject("idle-stop")
                })?);
            }
            "accelerator" if value == "auto" => self.wanted = None,
            "accelerator" => {
                self.wanted = Some(Accelerator::of(value).ok_or_else(|| {
                    let message = "an accelerator is `auto`, `kvm`, `hvf`, `whpx` or `tcg`";
                    Error::invalid(OPERATION, message).subject("accelerator")
                })?);
            }
            engines::OPTION => self.engines = Some(engines::checked(value, OPERATION)?),
            name => match name.strip_prefix("env.") {
                Some(variable) => {
                    if !shell::is_name(variable) || value.contains(|it: char| it.is_control()) {
                        let message = "this cannot be a line `NAME=value` of the machine's environment";
                        return Err(Error::invalid(OPERATION, message).subject(name.escape_debug().to_string()));
                    }
                    self.environment.insert(variable.to_owned(), value.to_owned());
                }
                None => {
                    return Err(Error::invalid(OPERATION, "machines have no such option").subject(name).hint(OPTIONS));
                }
            },
        }
        Ok(())
    }

    /// The instance that it becomes.
    pub(crate) fn record(self, id: String, layer: String, image: &Image, now_ms: u64) -> Result<Record> {
        let least = image.gib();
        let disk_gib = self.disk_gib.unwrap_or(least);
        if disk_gib < least {
            let message = format!("the image's disk has {least} GiB, and a machine's cannot be smaller");
            return Err(Error::invalid(OPERATION, message).subject("disk-gib"));
        }
        Ok(Record {
            format: FORMAT,
            id,
            name: self.name,
            created_ms: now_ms,
            seen_ms: now_ms,
            wish: Wish::New,
            image: image.name.clone(),
            image_sha256: image.digest().to_owned(),
            layers: vec![layer],
            next: None,
            paused: false,
            halting: false,
            disk_gib,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            network: self.network,
            environment: self.environment,
            idle_stop: self.idle_stop,
            engines: self.engines,
            wanted: self.wanted.map(|it| it.name().to_owned()),
            accelerator: None,
            tried: Vec::new(),
            restored: false,
            host_key: None,
            ssh_port: None,
            exposed: BTreeMap::new(),
        })
    }
}

/// How long nobody may use a machine at most.
const LONGEST_IDLE: u64 = 720 * 3600;

fn seconds(text: &str) -> Option<u64> {
    let unit = match text.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        _ => return None,
    };
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    number.checked_mul(unit).filter(|it| (1..=LONGEST_IDLE).contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{boot_options, world};
    use pcoder_sdk::{Setting, code};

    fn plan(host: &pcoder_sdk::testing::FakeHost, options: &[(&str, &str)]) -> Result<Plan> {
        let facts = Facts::read(host.provider(), OPERATION).unwrap();
        let mut wanted = boot_options();
        wanted.options = options.iter().map(|(name, value)| Setting::new(*name, *value)).collect();
        Plan::of(host.provider(), &facts, Architecture::of("x86_64").unwrap(), wanted)
    }

    #[test]
    fn what_nobody_says_is_what_the_host_has() {
        let host = world();
        let plan_of = plan(&host, &[]).unwrap();
        assert_eq!((plan_of.memory_mib, plan_of.cpus, plan_of.image.as_str()), (2048, 2, "debian-13-amd64"));
        host.put_on_host("host", "facts.json", br#"{"memory-mib":1000,"cpus":64}"#);
        let small = plan(&host, &[]).unwrap();
        assert_eq!((small.memory_mib, small.cpus), (500, 4));
        host.set("memory-mib", "900");
        host.set("image", "other");
        host.set("network", "none");
        let set = plan(&host, &[("cpus", "1"), ("env.A", "b c")]).unwrap();
        assert_eq!((set.memory_mib, set.cpus, set.image.as_str(), set.network), (900, 1, "other", Network::None));
        assert_eq!(plan(&host, &[("network", "restricted")]).unwrap().network, Network::Restricted);
        assert_eq!(set.environment.get("A").map(String::as_str), Some("b c"));
        assert_eq!(plan(&host, &[("memory-mib", "300")]).unwrap().memory_mib, 300);
        for (text, seconds) in [("off", None), ("90s", Some(90)), ("30m", Some(1800)), ("2h", Some(7200))] {
            assert_eq!(plan(&host, &[("idle-stop", text)]).unwrap().idle_stop, seconds, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let host = world();
        for (name, value, expected) in [
            ("memory-mib", "0", code::INVALID),
            ("memory-mib", "1G", code::INVALID),
            ("memory-mib", "16001", code::INVALID),
            ("cpus", "65", code::INVALID),
            ("disk-gib", "-1", code::INVALID),
            ("network", "bridge", code::INVALID),
            ("accelerator", "xen", code::INVALID),
            ("template", "always", code::INVALID),
            ("idle-stop", "30", code::INVALID),
            ("idle-stop", "0s", code::INVALID),
            ("idle-stop", "-1m", code::INVALID),
            ("idle-stop", "ö", code::INVALID),
            ("idle-stop", "99999999999999999999h", code::INVALID),
            ("idle-stop", "721h", code::INVALID),
            ("env.A=B", "x", code::INVALID),
            ("env.A", "x\ny", code::INVALID),
            ("env.", "x", code::INVALID),
            ("engines", "../x", code::INVALID),
            ("engines", "", code::INVALID),
            ("colour", "red", code::INVALID),
        ] {
            assert_eq!(
                plan(&host, &[(name, value)]).map(|_| ()).map_err(|it| it.code),
                Err(expected.to_owned()),
                "{name}={value}"
            );
        }
        let mut options = boot_options();
        options.ttl_seconds = Some(5);
        let architecture = Architecture::of("x86_64").unwrap();
        let refused = Plan::of(host.provider(), &Facts::default(), architecture, options);
        assert_eq!(refused.map(|_| ()).map_err(|it| it.code), Err(code::UNSUPPORTED.to_owned()));
    }

    #[test]
    fn a_disk_is_no_smaller_than_the_images() {
        let host = world();
        let image = Image::read(host.provider(), OPERATION, "debian-13-amd64").unwrap();
        let record = |gib: &str| plan(&host, &[("disk-gib", gib)]).unwrap().record("i".into(), "l".into(), &image, 7);
        assert_eq!((record("20").unwrap().disk_gib, image.gib()), (20, 1));
        let text = crate::peer::image().replace("\"size\":5", "\"size\":3000000000");
        let big: Image = serde_json::from_str(&text).unwrap();
        assert_eq!(big.gib(), 3);
        let smaller = plan(&host, &[("disk-gib", "2")]).unwrap().record("i".into(), "l".into(), &big, 7);
        assert_eq!(smaller.map(|_| ()).map_err(|it| it.code), Err(code::INVALID.to_owned()));
    }
}
