//! Errors of plugins, grants and policies.

use super::Told;
use crate::component::{PLAIN, refusable, third_party};
use crate::support::World;
use crate::terminal::Terminal;

#[test]
fn errors_of_plugins() {
    let world = World::without_engines();
    let folder = world.path("project");
    refusable(&folder);
    third_party(&folder, "unknown.wasm", "1.0.0", "[[telepathy]]\nto = \"all\"\n");
    std::fs::write(folder.join("a file"), "").expect("a file");
    let mut told = Told::new(&world);
    told.fails(&["plugin", "inspect", "nobody"]).fails(&["plugin", "inspect", "./nowhere.wasm"]);
    told.fails(&["plugin", "inspect", "."]).fails(&["plugin", "inspect", "unknown.wasm"]);
    told.fails(&["plugin", "add", "impostor.wasm"]).fails(&["plugin", "add", "misnamed.wasm"]);
    told.fails(&["plugin", "add", "good.wasm", "--sha256", "00"]);
    told.fails(&["plugin", "add", "good.wasm", "--only", "telepathy"]);
    told.fails(&["plugin", "add", "rooted.wasm", "--yes"]);
    told.fails(&["plugin", "add", "rooted.wasm", "--yes", "--root", "data=a file"]);
    told.fails(&["plugin", "add", "rooted.wasm", "--yes", "--root", "data=nowhere"]);
    told.fails(&["plugin", "add", "http://example.com/x.wasm"]);
    told.fails(&["plugin", "grant", "nobody"]).fails(&["plugin", "grant", "provider-local", "telepathy"]);
    told.fails(&["plugin", "revoke", "nobody"]).fails(&["plugin", "revoke", "provider-local", "telepathy"]);
    told.fails(&["plugin", "remove", "nobody"]).fails(&["plugin", "remove", "provider-local"]);
    told.fails(&["run", "emacs"]).fails(&["run", "claude", "--provider", "moon", "--no-install"]);
    told.are("plugins");
}

#[test]
fn errors_of_plugins_that_were_changed() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    third_party(&world.path("project"), "it.wasm", "1.0.0", PLAIN);
    told.make(&["plugin", "add", "it.wasm", "--yes"]);
    told.make(&["plugin", "revoke", "provider-thirdparty", "exec"]);
    told.note("nobody is there to agree").fails(&["plugin", "grant", "provider-thirdparty", "exec"]);
    let folder = world.path("pcoder/components");
    let component = folder.read_dir().expect("a folder").next().expect("a component").expect("an entry").path();
    let bytes = std::fs::read(&component).expect("the component");
    std::fs::write(&component, [&bytes[..], b"more"].concat()).expect("other bytes");
    let run = ["run", "claude", "--provider", "thirdparty", "--no-install"];
    let export = ["bundle", "export", "bundle", "--no-engines"];
    told.note("the component has other bytes").fails(&run).fails(&export);
    std::fs::remove_file(&component).expect("the component");
    told.note("the component is gone").fails(&run).fails(&export);
    let lock = std::fs::read_to_string(world.path("pcoder/plugins.lock")).expect("the lock");
    for (what, text) in [
        ("the lock is of a newer pcoder", lock.replace("version = 1\n", "version = 7\n")),
        ("the lock has a field that is not known", format!("colour = \"red\"\n{lock}")),
        ("the lock was cut", lock.trim_end()[..lock.trim_end().len() - 1].to_owned()),
    ] {
        told.note(what).write("plugins.lock", text).fails(&["plugin", "list"]);
    }
    told.are("plugins-changed");
}

/// While one is asked, another changes what the question was about.
#[test]
fn errors_of_plugins_that_another_changes_meanwhile() {
    let world = World::without_engines();
    let folder = world.path("project");
    third_party(&folder, "one.wasm", "1.0.0", PLAIN);
    third_party(&folder, "two.wasm", "2.0.0", PLAIN);
    third_party(&folder, "three.wasm", "3.0.0", PLAIN);
    let mut told = Told::new(&world);
    told.make(&["plugin", "add", "one.wasm", "--yes"]);
    let mut asked = Terminal::start(&world, &["plugin", "add", "two.wasm"]);
    asked.wait_for_text("[y/N]");
    told.make(&["plugin", "add", "three.wasm", "--yes"]);
    asked.press("y");
    told.note("pcoder plugin add two.wasm, agreed to after another version had been added").screen(&mut asked);

    let mut asked = Terminal::start(&world, &["plugin", "add", "two.wasm"]);
    asked.wait_for_text("[y/N]");
    asked.press("n");
    told.note("pcoder plugin add two.wasm, not agreed to").screen(&mut asked);

    told.make(&["plugin", "revoke", "provider-thirdparty"]);
    let mut asked = Terminal::start(&world, &["plugin", "grant", "provider-thirdparty"]);
    asked.wait_for_text("[y/N]");
    told.make(&["plugin", "add", "two.wasm", "--yes"]);
    asked.press("y");
    told.note("pcoder plugin grant provider-thirdparty, agreed to after it was replaced").screen(&mut asked);
    told.are("plugins-meanwhile");
}

impl Told<'_> {
    /// The error at the end of what a terminal shows.
    fn screen(&mut self, terminal: &mut Terminal) {
        terminal.wait_for_text("hint:");
        let code = terminal.finish();
        let text = terminal.text();
        let error = text.find("error: ").map_or("", |at| &text[at..]);
        self.text += &format!("exit {code}\n{}\n\n", error.trim_end());
    }
}

#[test]
fn errors_of_a_policy() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    let policy = world.path("policy.toml");
    told.set("PCODER_POLICY", policy.to_str().expect("a path"));
    let run = ["run", "claude", "--no-install"];
    told.note("there is none where one is named").fails(&run);
    let agents = "[[plugin]]\nname = \"agent-*\"\n";
    for (what, text) in [
        ("an unknown field", "version = 1\nallow-everything = true\n".to_owned()),
        ("a class that is not known", format!("version = 1\n{agents}telepathy = true\n")),
        ("no version", agents.to_owned()),
        ("a version that is none", format!("version = 0\n{agents}")),
        ("a newer one", format!("version = 2\n{agents}")),
        ("no TOML", "version = = 1\n".to_owned()),
        ("a star in the middle", "version = 1\n\n[[plugin]]\nname = \"a*b\"\n".to_owned()),
        ("a digest that is none", format!("version = 1\n{agents}sha256 = [\"abc\"]\n")),
        (
            "everything and a part",
            format!("version = 1\n{agents}all = true\nsecrets = [{{ name = \"K\", to = [] }}]\n"),
        ),
        ("an address that is none", format!("version = 1\n{agents}net = [{{ url = \"gopher://x\" }}]\n")),
        ("no list of plugins: nothing may run", "version = 1\n".to_owned()),
        ("other bytes", format!("version = 1\n{agents}sha256 = [\"{}\"]\n", "0".repeat(64))),
    ] {
        std::fs::write(&policy, text).expect("a policy");
        told.note(what).fails(&run);
    }
    std::fs::write(&policy, b"version = 1\n\xff").expect("a policy");
    told.note("no text").fails(&run);
    told.are("policy");
}

/// What a plugin may do is denied at the time that it does it, with the policy or the grant to blame.
#[test]
fn errors_of_what_is_denied() {
    let world = World::new();
    let mut told = Told::new(&world);
    let run = ["run", "claude", "--", "-p"];
    told.make(&["plugin", "revoke", "provider-local", "exec"]);
    told.note("revoked").fails_with(&run, "@say never");
    told.make(&["plugin", "grant", "provider-local", "exec", "--yes"]);
    let policy = world.path("policy.toml");
    told.set("PCODER_POLICY", policy.to_str().expect("a path"));
    let text = "version = 1\n[[plugin]]\nname = \"agent-*\"\n[[plugin]]\nname = \"provider-local\"\n\
                files = [{ root = \"called\", access = \"read\" }]\n";
    std::fs::write(&policy, text).expect("a policy");
    told.note("narrowed by the policy").fails_with(&run, "@say never");
    let text = "version = 1\naudit-required = true\n[[plugin]]\nname = \"*\"\nall = true\n";
    std::fs::write(&policy, text).expect("a policy");
    drop(std::fs::remove_file(world.path("pcoder/audit.jsonl")));
    drop(std::fs::remove_file(world.path("pcoder/audit.head")));
    std::fs::create_dir(world.path("pcoder/audit.jsonl")).expect("a folder in its place");
    told.note("the policy wants a record, and none can be written").fails_with(&run, "@say never");
    told.are("denied");
}
