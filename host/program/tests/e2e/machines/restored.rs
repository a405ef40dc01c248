//! Machines that begin with a memory that was saved, and what each has of its own all the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Machines;
use crate::support::start;

/// What no two machines may have in common.
#[derive(Debug)]
struct Own {
    id: String,
    host_key: String,
    machine_id: String,
    host_name: String,
    random: String,
}

impl Machines {
    /// Boots two at the same time.
    fn boot_two(&self) -> [String; 2] {
        let boots = [(); 2].map(|()| start(self.world.pcoder(&["instance", "boot"]), ""));
        boots.map(|it| it.finish().printed().trim().to_owned())
    }

    fn own(&self, id: &str) -> Own {
        let state = self.world.path("pcoder/plugins/provider-qemu/instances").join(id).join("instance.json");
        let record: Value = serde_json::from_slice(&std::fs::read(state).expect("a file")).expect("JSON");
        let asks = "cat /etc/machine-id; uname -n; od -An -v -tx1 -w16 -N16 /dev/urandom";
        let outcome = self.run(&["instance", "exec", id, "--shell", asks]);
        let lines: Vec<String> = outcome.printed().lines().map(|it| it.trim().to_owned()).collect();
        let [machine_id, host_name, random] = lines.try_into().expect("three lines");
        assert!(machine_id.len() == 32 && random.len() == 47, "{}", outcome.shown());
        let host_key = record["host-key"].as_str().expect("a key").to_owned();
        Own { id: id.to_owned(), host_key, machine_id, host_name, random }
    }

    /// How it began.
    fn start_of(&self, id: &str) -> String {
        let described = self.run(&["instance", "get", id, "--json"]);
        described.printed();
        described.json()["instance"]["details"]["start"].as_str().expect("a text").to_owned()
    }
}

#[test]
fn machines_that_begin_with_one_memory_have_nothing_of_each_other() {
    let machines = Machines::new();
    // Both find nothing: neither an image that was looked at nor a template.
    let first = machines.boot_two();
    // The next one of their kind makes the template, and begins with it.
    let third = machines.boot();
    let last = machines.boot_two();
    assert_eq!([&third, &last[0], &last[1]].map(|it| machines.start_of(it)), ["restored"; 3]);
    let all: Vec<Own> = first.iter().chain([&third]).chain(&last).map(|id| machines.own(id)).collect();
    let own: [fn(&Own) -> &String; 4] = [|it| &it.id, |it| &it.host_key, |it| &it.machine_id, |it| &it.random];
    for of in own {
        let different: BTreeSet<&String> = all.iter().map(of).collect();
        assert_eq!(different.len(), all.len(), "{all:#?}");
    }
    assert!(all.iter().all(|it| it.host_name == it.id), "{all:#?}");
    machines.terminate_all();
}
