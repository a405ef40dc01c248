//! What virtual machines need. Who has none and wants none hears where they begin, and nothing is looked for.

use pcoder_vm::{Error, HostFacts};

use super::Job;
use super::record::Finding;
use crate::{Mode, Pcoder};

const CATEGORY: &str = "machines";
/// The provider that starts them.
const PROVIDER: &str = Mode::LinuxPortable.provider();
const BOOTSTRAP: &str = "`pcoder runtime bootstrap` sets one up";
const SLOW: &str = "virtual machines are emulated, and some ten times slower";

pub(super) fn jobs(_pcoder: &Pcoder) -> Vec<Job> {
    vec![
        Job::new(CATEGORY, "host.accel", |pcoder| async move {
            if !wanted(&pcoder) {
                return unwanted();
            }
            accelerator(&pcoder.host_as_tried().await)
        }),
        Job::new(CATEGORY, "vm.qemu", |pcoder| async move {
            if !wanted(&pcoder) {
                return unwanted();
            }
            let (facts, problem) = pcoder.look_at_host().await;
            qemu(facts, problem.as_ref())
        }),
        Job::look(CATEGORY, "vm.image", |pcoder| if wanted(pcoder) { image(pcoder) } else { unwanted() }),
    ]
}

/// Whether its user has anything to do with them: a setting that names them, or something that was brought.
fn wanted(pcoder: &Pcoder) -> bool {
    let provider = pcoder.settings(None).and_then(|it| it.get("provider", None)).ok().and_then(|it| it.value);
    provider.is_some_and(|it| it == PROVIDER)
        || pcoder.layout().images().exists()
        || pcoder.layout().machine().join("qemu").exists()
}

fn unwanted() -> Finding {
    Finding::ok(format!("no virtual machine is set up: {BOOTSTRAP}"))
}

fn accelerator(facts: &HostFacts) -> Finding {
    let expected = "kvm, hvf or whpx: hardware that runs guests";
    let said = facts.accelerators.iter().filter_map(|it| Some(format!("{}: {}", it.name, it.why.as_ref()?)));
    let said = said.collect::<Vec<_>>().join("; ");
    match facts.best() {
        Some(best) if best.name != "tcg" => Finding::ok(format!("{} may be tried", best.name))
            .meaning("whether guests run is found out by starting one"),
        // Nothing to be mended by typing: what it says of the hardware says what would.
        Some(_) if said.contains('`') => {
            let remedy = "what is said of it names the command; or leave it, and machines are emulated";
            Finding::warning(said, expected, SLOW, remedy)
        }
        Some(_) => Finding::ok(format!("tcg alone ({said})")).meaning(SLOW),
        None => Finding::fail(
            said,
            expected,
            "no virtual machine can be started",
            "install another QEMU, or set `PCODER_QEMU` to one; `pcoder runtime probe` says which is found",
        ),
    }
}

fn qemu(facts: &HostFacts, problem: Option<&Error>) -> Finding {
    match (&facts.qemu, problem) {
        (Some(qemu), _) => Finding::ok(format!("QEMU {} ({})", qemu.version, qemu.program)),
        (None, problem) => {
            let said = problem.map_or_else(|| "there is none".to_owned(), |it| format!("{}: {it}", it.subject()));
            let remedy = problem.map_or_else(|| BOOTSTRAP.to_owned(), Error::hint);
            let expected = format!("QEMU {} or newer", pcoder_vm::OLDEST);
            Finding::fail(said, expected, "no virtual machine can be started", remedy)
        }
    }
}

fn image(pcoder: &Pcoder) -> Finding {
    let expected = "an image that is whole";
    let images = match pcoder.images().list() {
        Ok(images) => images,
        Err(error) => {
            let (said, remedy) = (format!("{}: {error}", error.subject()), error.hint());
            return Finding::fail(said, expected, "no virtual machine can be started", remedy);
        }
    };
    let damaged: Vec<String> =
        images.iter().filter_map(|it| Some(format!("{}: {}", it.name, it.image.as_ref().err()?))).collect();
    if !damaged.is_empty() {
        return Finding::fail(
            damaged.join("; "),
            expected,
            "a machine of that image does not start, or has other files than it should",
            "`pcoder runtime bootstrap --force` brings it again, `pcoder runtime images remove NAME` removes it",
        );
    }
    if images.is_empty() {
        let meaning = "no virtual machine can be started";
        return Finding::warning("there is none", expected, meaning, "`pcoder runtime bootstrap` brings one");
    }
    let names: Vec<_> = images.iter().map(|it| it.name.as_str()).collect();
    Finding::ok(format!("{}, whole as far as names and lengths say", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pcoder_vm::{Accelerator, Arch};

    use super::*;
    use crate::Surroundings;
    use crate::doctor::{Check, Status};

    fn check(finding: Finding) -> Check {
        finding.into_check("t".into(), "t", Duration::ZERO)
    }

    fn facts(accelerators: Vec<(&'static str, Option<&str>)>) -> HostFacts {
        let rung = |(name, why): (&'static str, Option<&str>)| Accelerator {
            name,
            usable: why.is_none(),
            why: why.map(str::to_owned),
        };
        HostFacts {
            format: 1,
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            boot: None,
            cpus: None,
            memory_mib: None,
            qemu: None,
            accelerators: accelerators.into_iter().map(rung).collect(),
        }
    }

    #[test]
    fn hardware_is_well_emulation_too_where_nothing_can_be_done_and_nothing_is_a_failure() {
        let status = |rungs: Vec<(&'static str, Option<&str>)>| check(accelerator(&facts(rungs))).status;
        assert_eq!(status(vec![("kvm", None), ("tcg", None)]), Status::Ok);
        assert_eq!(status(vec![("kvm", Some("there is no /dev/kvm")), ("tcg", None)]), Status::Ok);
        assert_eq!(status(vec![("kvm", Some("be in the group `kvm`")), ("tcg", None)]), Status::Warning);
        // As where a machine was started with it and hung.
        let tried = accelerator(&facts(vec![("kvm", Some("it did not work: silent")), ("tcg", None)]));
        assert!(check(tried).measured.contains("kvm: it did not work: silent"));
        assert_eq!(status(vec![("tcg", Some("QEMU is not installed"))]), Status::Fail);
    }

    #[test]
    fn what_is_wrong_with_qemu_says_how_to_get_another() {
        let missing = Error::QemuMissing { arch: Arch::X86_64, os: "linux".to_owned() };
        let found = check(qemu(&facts(Vec::new()), Some(&missing)));
        assert_eq!(found.status, Status::Fail);
        assert!(found.remedy.is_some_and(|it| it.contains("apt-get")));
    }

    #[tokio::test]
    async fn who_wants_no_machine_hears_where_they_begin() {
        let folder = tempfile::tempdir().expect("a folder");
        let environment = vec![("PCODER_HOME".into(), folder.path().into())];
        let surroundings = Surroundings { environment, ..Surroundings::default() };
        let pcoder = Pcoder::new(surroundings, &[], false).expect("a pcoder");
        assert!(!wanted(&pcoder));
        std::fs::create_dir(folder.path().join("images")).expect("a folder");
        assert!(wanted(&pcoder));
        assert_eq!(check(image(&pcoder)).status, Status::Warning);
        std::fs::create_dir(folder.path().join("images/mine")).expect("a folder");
        let found = check(image(&pcoder));
        assert!(found.status == Status::Fail && found.measured.contains("mine"), "{}", found.measured);
        // Facts are written where plugins read them, once.
        let facts = pcoder.host_facts().await.expect("facts");
        let path = pcoder.layout().machine_facts(pcoder.surroundings()).join("facts.json");
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON");
        assert_eq!(read, serde_json::to_value(facts).expect("JSON"));
    }
}
