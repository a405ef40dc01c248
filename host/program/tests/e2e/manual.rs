//! Help, completions, manual pages: every command has them.

use std::collections::BTreeSet;

use crate::support::{World, finish};

/// Every command that people type, as its words. What clap lists is found by asking for help.
fn commands(world: &World, path: &[&str], found: &mut Vec<Vec<String>>) {
    let help = finish(world.pcoder(&[path, &["--help"]].concat()), "");
    let text = help.printed().to_owned();
    found.push(path.iter().map(|&it| it.to_owned()).collect());
    let mut inside = false;
    for line in text.lines() {
        let heading = !line.starts_with(' ') && line.ends_with(':');
        if heading {
            let groups = ["Commands:", "Work:", "Machines:", "Set up:", "Trust:", "Help:"];
            inside = groups.contains(&line);
            continue;
        }
        let name = line.strip_prefix("  ").filter(|it| !it.starts_with(' ')).and_then(|it| it.split(' ').next());
        if let Some(name) = name.filter(|it| inside && !it.is_empty() && *it != "help") {
            commands(world, &[path, &[name]].concat(), found);
        }
    }
}

#[test]
fn the_help_of_every_command() {
    let world = World::without_engines();
    let mut found = Vec::new();
    commands(&world, &[], &mut found);
    assert!(found.len() > 40, "{found:?}");
    let mut all = String::new();
    for path in &found {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let help = finish(world.pcoder(&[&words[..], &["--help"]].concat()), "");
        let title = if path.is_empty() { "pcoder".to_owned() } else { format!("pcoder {}", path.join(" ")) };
        all += &format!("### {title}\n\n{}\n", help.printed());
    }
    insta::assert_snapshot!("help", all);
}

#[test]
fn completions_know_every_command_in_every_shell() {
    let world = World::without_engines();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = finish(world.pcoder(&["completions", shell]), "");
        for word in ["plugin", "audit", "completions", "--otlp-endpoint", "revoke"] {
            let plain = script.printed().contains(word) || script.printed().contains(word.trim_start_matches('-'));
            assert!(plain, "{shell}: {word}");
        }
    }
    let bash = finish(world.pcoder(&["completions", "bash"]), "").printed().to_owned();
    let file = world.path("project").join("completions");
    std::fs::write(&file, &bash).expect("a file");
    let check = std::process::Command::new("bash").arg("-n").arg(&file).output().expect("bash");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    assert_eq!(finish(world.pcoder(&["completions", "tcsh"]), "").code, Some(2));
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let world = World::without_engines();
    let folder = world.path("man");
    let mut command = world.pcoder(&["man", "--to"]);
    command.arg(&folder);
    finish(command, "").printed();
    let pages: BTreeSet<String> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let mut found = Vec::new();
    commands(&world, &[], &mut found);
    let expected: BTreeSet<String> =
        found.iter().map(|path| [&["pcoder".to_owned()][..], &path[..]].concat().join("-") + ".1").collect();
    assert_eq!(pages, expected);
    let first = std::fs::read_to_string(folder.join("pcoder.1")).expect("a page");
    assert!(first.contains(".TH pcoder 1"), "{first}");
    assert!(finish(world.pcoder(&["man"]), "").printed().contains(".TH pcoder 1"));
}
