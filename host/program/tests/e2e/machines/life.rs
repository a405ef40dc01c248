//! Machines that are killed, and pcoders that are.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use super::Machines;
use crate::support::{start, until};

impl Machines {
    fn fork(&self, id: &str) -> String {
        self.run(&["instance", "fork", id]).printed().trim().to_owned()
    }

    /// Whether commands run on it.
    fn answers(&self, id: &str) -> bool {
        self.run(&["instance", "exec", id, "--", "echo", "ok"]).stdout == "ok\n"
    }

    /// Waits until the list and the system say the same: who is killed in the middle of something has left the rest of
    /// it to others, who take a moment.
    fn the_list_is_true(&self) {
        until("the list is true", || {
            let (statuses, qemus) = (self.statuses(), self.qemus());
            let all_are_known = qemus.keys().all(|id| statuses.contains_key(id) || id.starts_with("tp-"));
            let is_true = |(id, status): (&String, &String)| match status.as_str() {
                "ready" => qemus.contains_key(id),
                "stopped" => !qemus.contains_key(id),
                "booting" | "stopping" | "error" => true,
                other => panic!("{id} is `{other}`"),
            };
            (all_are_known && statuses.iter().all(is_true)).then_some(())
        });
    }

    /// Brings one to run, whatever was being done with it: a boot of which nobody has heard for a while counts as given up.
    fn bring_up(&self, id: &str) {
        until("it runs again", || (self.run(&["instance", "resume", id]).code == Some(0)).then_some(()));
        assert!(self.answers(id));
    }
}

#[test]
fn a_machine_that_nobody_uses_stops_when_it_was_told_to() {
    let machines = Machines::new();
    // Long enough for a busy computer to use it at all, right after it has booted.
    let boot = || {
        let args = ["instance", "boot", "--option", "idle-stop=15s"];
        machines.run(&args).printed().trim().to_owned()
    };
    // What runs there keeps it, though nobody waits for that here.
    let used = boot();
    let stays = "nohup sleep 1000 >/dev/null 2>&1 & echo kept > marker";
    machines.run(&["instance", "exec", &used, "--shell", stays]).printed();
    let idle = boot();
    machines.run(&["instance", "exec", &idle, "--shell", "echo mine > marker"]).printed();
    until("it stops", || (machines.statuses()[&idle] == "stopped").then_some(()));
    assert!(machines.qemus().into_keys().eq([used.as_str()]));
    assert_eq!(machines.run(&["instance", "exec", &used, "--", "cat", "marker"]).printed(), "kept\n");
    machines.run(&["instance", "resume", &idle]).printed();
    assert_eq!(machines.run(&["instance", "exec", &idle, "--", "cat", "marker"]).printed(), "mine\n");
    machines.terminate_all();
}

/// What is mounted here until this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// A disk in memory; nothing where that may not be mounted. Again, to change its size.
    fn with(folder: PathBuf, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(&folder);
        mount.output().is_ok_and(|it| it.status.success()).then(|| Self(folder))
    }

    fn becomes(&self, size: &str) {
        std::mem::forget(Self::with(self.0.clone(), &format!("remount,size={size}")).expect("it is mounted"));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

#[test]
fn a_machine_for_which_this_computer_has_no_room_says_so_and_goes_on_when_it_has() {
    let machines = Machines::new();
    let folder = machines.world.path("pcoder/plugins/provider-qemu");
    std::fs::create_dir_all(&folder).expect("a folder");
    let Some(disk) = Mounted::with(folder, "size=1m,mode=0700") else {
        eprintln!("notice: not tested, because nothing can be mounted here");
        return;
    };
    let refused = machines.run(&["instance", "boot"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("No space left on device"), "{}", refused.shown());
    assert!(machines.statuses().is_empty() && machines.qemus().is_empty());
    disk.becomes("16m");
    let id = machines.boot();
    let writes = machines.run(&["instance", "exec", &id, "--shell", "head -c 40000000 /dev/urandom >large; sync"]);
    assert!(writes.code == Some(1) && writes.stderr.contains("disk is full"), "{}", writes.shown());
    assert_eq!(machines.statuses()[&id], "error");
    let described = machines.run(&["instance", "get", &id]);
    assert!(described.stdout.contains("disk is full"), "{}", described.shown());
    let resumed = machines.run(&["instance", "resume", &id]);
    assert!(resumed.code == Some(1) && resumed.stderr.contains("disk is full"), "{}", resumed.shown());
    disk.becomes("200m");
    machines.run(&["instance", "resume", &id]).printed();
    // The guest has seen no error.
    let size = || machines.run(&["instance", "exec", &id, "--shell", "wc -c <large"]).stdout;
    until("it has gone on", || (size() == "40000000\n").then_some(()));
    assert_eq!(machines.statuses()[&id], "ready");
    machines.terminate_all();
}

#[test]
fn a_machine_that_lets_in_nobody_is_given_up_with_its_last_words_and_can_be_started_anew() {
    let machines = Machines::new();
    let id = machines.boot();
    // Those that serve the sessions too; a moment later, so that this one ends.
    let stops = "sudo setsid sh -c 'sleep 2; kill -STOP $(pidof dropbear); echo the last words >/dev/ttyS0' \
                 >/dev/null 2>&1 </dev/null &";
    machines.run(&["instance", "exec", &id, "--shell", stops]).printed();
    // One that is let in may lose its connection before it is told how the command ended.
    let silent = || {
        let outcome = machines.run(&["instance", "exec", &id, "--", "true"]);
        outcome.stderr.contains("nobody can log in").then_some(outcome)
    };
    let outcome = until("nobody is let in", silent);
    assert!(outcome.code == Some(4) && outcome.stderr.contains("the last words"), "{}", outcome.shown());
    machines.run(&["instance", "stop", &id]).printed();
    machines.run(&["instance", "resume", &id]).printed();
    assert!(machines.answers(&id));
    machines.terminate_all();
}

/// As after a night in which this computer slept: the guest's clock stood still, and its hardware's did not.
#[test]
fn a_machine_whose_clock_stood_still_learns_what_time_it_is() {
    let machines = Machines::new();
    let id = machines.boot();
    let behind = || {
        let there: u64 =
            machines.run(&["instance", "exec", &id, "--", "date", "+%s"]).printed().trim().parse().expect("s");
        let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        here.saturating_sub(there)
    };
    machines.run(&["instance", "exec", &id, "--shell", "sudo date -s @$(($(date +%s) - 3600)) >/dev/null"]).printed();
    until("its clock is right", || (behind() <= 3).then_some(()));
    machines.terminate_all();
}

#[test]
fn whatever_is_killed_the_list_tells_the_truth_and_nothing_is_left() {
    let machines = Machines::new();
    let (first, second) = (machines.boot(), machines.boot());
    machines.run(&["instance", "exec", &first, "--shell", "echo mine > marker"]).printed();
    let forks = [machines.fork(&first), machines.fork(&second)];
    assert_eq!(machines.statuses().into_values().collect::<Vec<_>>(), ["ready"; 4]);
    let marker = machines.run(&["instance", "exec", &forks[0], "--", "cat", "marker"]);
    assert_eq!(marker.printed(), "mine\n");

    let pid = machines.qemus()[&second];
    kill_process(pid, Signal::KILL).expect("it runs");
    until("the list says that it stands still", || (machines.statuses()[&second] == "stopped").then_some(()));
    assert!(machines.answers(&first) && machines.answers(&forks[1]));
    machines.run(&["instance", "resume", &second]).printed();
    assert!(machines.answers(&second));
    machines.run(&["instance", "terminate", &forks[0], &forks[1], &second]).printed();
    assert!(machines.qemus().into_keys().eq([first.as_str()]));

    let seed = fastrand::u64(..);
    eprintln!("the moments are those of {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for what in ["boot", "fork", "boot", "stop", "fork", "resume", "boot", "fork", "boot", "terminate"] {
        let (args, longest): (&[&str], u64) = match what {
            "boot" => (&["instance", "boot"], 8_000),
            "fork" => (&["instance", "fork", &first], 8_000),
            "terminate" => (&["instance", "terminate", "--all"], 1_000),
            "resume" => (&["instance", "resume", &first], 8_000),
            _ => (&["instance", "stop", &first], 3_000),
        };
        match what {
            "fork" | "stop" => machines.bring_up(&first),
            "resume" => drop(machines.run(&["instance", "stop", &first]).printed()),
            _ => {}
        }
        let running = start(machines.world.pcoder(args), "");
        // Not to wait for anything: any moment is as good.
        std::thread::sleep(Duration::from_millis(random.u64(..longest)));
        running.kill();
        machines.the_list_is_true();
    }
    machines.terminate_all();
}
