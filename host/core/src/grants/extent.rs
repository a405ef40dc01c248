//! What of one set of capabilities lies within another.
//!
//! It is said of each line by itself, and in doubt a line goes beyond: somebody is asked once too often, and never once
//! too rarely.

use std::path::Path;

use pcoder_runtime::capability::net::UrlPattern;
use pcoder_runtime::manifest::{AS_CALLED, Capabilities, Exec, Files, Net, Secrets, Service};
use url::Url;

/// What `asked` has beyond `known`: the lines, or the parts of lines, that `known` does not hold.
pub fn beyond(asked: &Capabilities, known: &Capabilities) -> Capabilities {
    Capabilities {
        exec: asked.exec.iter().filter_map(|it| exec_beyond(it, &known.exec)).collect(),
        service: asked.service.iter().filter_map(|it| service_beyond(it, &known.service)).collect(),
        files: asked.files.iter().filter(|it| !files_within(it, &known.files)).cloned().collect(),
        net: asked.net.iter().filter_map(|it| net_beyond(it, &known.net)).collect(),
        secrets: asked.secrets.iter().filter_map(|it| secrets_beyond(it, &known.secrets)).collect(),
        target: if known.target.is_some() { None } else { asked.target.clone() },
    }
}

/// The lines of `asked`, or the parts of lines, that `granted` holds: what is left of a grant for a plugin that asks for
/// something else now. Programs stay as they were granted, with their paths and digests.
pub fn within(granted: &Capabilities, asked: &Capabilities) -> Capabilities {
    Capabilities {
        exec: granted
            .exec
            .iter()
            .filter_map(|it| {
                let asked: Vec<&Exec> = asked.exec.iter().filter(|ask| stands_for(&it.program, &ask.program)).collect();
                let args = it.args.iter().filter(|line| asked.iter().any(|ask| ask.args.contains(line)));
                let env = it.env.iter().filter(|name| asked.iter().any(|ask| ask.env.contains(name)));
                let kept = Exec { args: args.cloned().collect(), env: env.cloned().collect(), ..it.clone() };
                (!asked.is_empty() && (kept.program == AS_CALLED || !kept.args.is_empty())).then_some(kept)
            })
            .collect(),
        service: granted
            .service
            .iter()
            .filter_map(|it| {
                let stands_for = |ask: &&Service| stands_for(&it.program, &ask.program);
                let asked: Vec<&Service> = asked.service.iter().filter(stands_for).collect();
                let options = it.options.iter().filter(|line| asked.iter().any(|ask| ask.options.contains(line)));
                let messages = it.messages.iter().filter(|line| asked.iter().any(|ask| ask.messages.contains(line)));
                let (options, messages) = (options.cloned().collect(), messages.cloned().collect());
                (!asked.is_empty()).then(|| Service { options, messages, ..it.clone() })
            })
            .collect(),
        files: asked
            .files
            .iter()
            .filter_map(|it| {
                let access =
                    granted.files.iter().filter(|grant| grant.root == it.root).map(|grant| grant.access).max()?;
                Some(Files { access: it.access.min(access), ..it.clone() })
            })
            .collect(),
        net: asked
            .net
            .iter()
            .filter_map(|it| {
                let same: Vec<&Net> = granted.net.iter().filter(|grant| url_within(&it.url, &grant.url)).collect();
                let methods = it.methods.iter().filter(|method| same.iter().any(|grant| has_method(grant, method)));
                let addresses = it.addresses.iter().filter(|class| same.iter().any(|it| it.addresses.contains(class)));
                let (methods, addresses) = (methods.cloned().collect(), addresses.copied().collect());
                (!same.is_empty()).then(|| Net { methods, addresses, ..it.clone() })
            })
            .collect(),
        secrets: asked
            .secrets
            .iter()
            .filter_map(|it| {
                let to: Vec<String> =
                    it.to.iter().filter(|to| may_go(&it.name, to, &granted.secrets)).cloned().collect();
                (!to.is_empty()).then(|| Secrets { to, ..it.clone() })
            })
            .collect(),
        target: if asked.target.is_some() { granted.target.clone() } else { None },
    }
}

/// Whether a grant for `granted` is one for a program that a plugin calls `asked`: the same, or the path that the name
/// was resolved to.
fn stands_for(granted: &str, asked: &str) -> bool {
    let path = Path::new(granted);
    let named = |name: Option<&std::ffi::OsStr>| name.is_some_and(|it| it == asked);
    granted == asked
        || path.is_absolute()
            && !asked.contains(['/', '\\'])
            && (named(path.file_name()) || cfg!(windows) && named(path.file_stem()))
}

fn exec_beyond(asked: &Exec, known: &[Exec]) -> Option<Exec> {
    let same: Vec<&Exec> = known.iter().filter(|it| stands_for(&it.program, &asked.program)).collect();
    if same.is_empty() {
        return Some(asked.clone());
    }
    // A variable counts for every command line of the program, so a new one is a new program with all of its lines.
    if asked.env.iter().any(|name| !same.iter().any(|it| it.env.contains(name))) {
        return Some(asked.clone());
    }
    let new = asked.args.iter().filter(|line| !same.iter().any(|it| it.args.contains(line)));
    let new: Vec<String> = new.cloned().collect();
    (!new.is_empty()).then(|| Exec { args: new, ..asked.clone() })
}

fn service_beyond(asked: &Service, known: &[Service]) -> Option<Service> {
    let same: Vec<&Service> = known.iter().filter(|it| stands_for(&it.program, &asked.program)).collect();
    if same.is_empty() {
        return Some(asked.clone());
    }
    let new = |lines: &[String], of: fn(&Service) -> &Vec<String>| -> Vec<String> {
        lines.iter().filter(|line| !same.iter().any(|it| of(it).contains(line))).cloned().collect()
    };
    // Without what it always got, everything that it may be started with is something else.
    if same.iter().flat_map(|it| &it.always).any(|line| !asked.always.contains(line)) {
        return Some(asked.clone());
    }
    let options = new(&asked.options, |it| &it.options);
    let messages = new(&asked.messages, |it| &it.messages);
    (!options.is_empty() || !messages.is_empty()).then(|| Service { options, messages, ..asked.clone() })
}

/// Adds what was agreed to. What holds everything of an entry that was there takes its place.
pub(super) fn add_services(granted: &mut Vec<Service>, new: Vec<Service>) {
    let all = |of: &[String], within: &[String]| of.iter().all(|line| within.contains(line));
    let replaced = |old: &Service, new: &Service| {
        old.program == new.program && all(&old.options, &new.options) && all(&old.messages, &new.messages)
    };
    for mut new in new {
        if new.sha256.is_none() {
            new.sha256 = granted.iter().filter(|old| replaced(old, &new)).find_map(|old| old.sha256.clone());
        }
        granted.retain(|old| !replaced(old, &new));
        granted.push(new);
    }
}

fn files_within(asked: &Files, known: &[Files]) -> bool {
    known.iter().any(|it| it.root == asked.root && it.access >= asked.access)
}

fn has_method(net: &Net, method: &str) -> bool {
    net.methods.iter().any(|it| it.eq_ignore_ascii_case(method))
}

/// Whether everything under `inner` lies under `outer`: the same pattern, or a deeper path of a host without wildcard.
fn url_within(inner: &str, outer: &str) -> bool {
    inner == outer
        || !inner.contains('*')
            && UrlPattern::parse(outer).is_ok_and(|outer| Url::parse(inner).is_ok_and(|inner| outer.holds(&inner)))
}

fn net_beyond(asked: &Net, known: &[Net]) -> Option<Net> {
    let same: Vec<&Net> = known.iter().filter(|it| url_within(&asked.url, &it.url)).collect();
    if same.is_empty() || asked.addresses.iter().any(|class| !same.iter().any(|it| it.addresses.contains(class))) {
        return Some(asked.clone());
    }
    let methods: Vec<String> =
        asked.methods.iter().filter(|method| !same.iter().any(|it| has_method(it, method))).cloned().collect();
    (!methods.is_empty()).then(|| Net { methods, ..asked.clone() })
}

/// Whether a secret of that name may go there.
fn may_go(name: &str, to: &str, known: &[Secrets]) -> bool {
    let same = known.iter().filter(|it| it.name == name);
    same.flat_map(|it| &it.to).any(|known| known == to || url_within(to, known))
}

fn secrets_beyond(asked: &Secrets, known: &[Secrets]) -> Option<Secrets> {
    let to: Vec<String> = asked.to.iter().filter(|to| !may_go(&asked.name, to, known)).cloned().collect();
    (!to.is_empty()).then(|| Secrets { to, ..asked.clone() })
}

#[cfg(test)]
mod tests {
    use pcoder_runtime::manifest::{Access, AddressClass, Target};

    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&it| it.to_owned()).collect()
    }

    fn exec(program: &str, args: &[&str], env: &[&str]) -> Exec {
        Exec { program: program.into(), args: strings(args), sha256: None, env: strings(env), reason: String::new() }
    }

    fn net(url: &str, methods: &[&str], addresses: &[AddressClass]) -> Net {
        Net { url: url.into(), methods: strings(methods), addresses: addresses.to_vec(), reason: String::new() }
    }

    fn secret(name: &str, to: &[&str]) -> Secrets {
        Secrets { name: name.into(), to: strings(to), made: None, reason: String::new() }
    }

    fn files(root: &str, access: Access) -> Files {
        Files { root: root.into(), access, reason: String::new() }
    }

    fn service(program: &str, options: &[&str], messages: &[&str]) -> Service {
        let (options, messages) = (strings(options), strings(messages));
        let always = strings(&["-nodefaults"]);
        Service { program: program.into(), options, always, messages, sha256: None, reason: String::new() }
    }

    fn rich() -> Capabilities {
        Capabilities {
            exec: vec![exec("podman", &["ps", "logs <word>"], &["LANG"]), exec(AS_CALLED, &[], &[])],
            service: vec![service("qemu", &["-S", "-m <number>"], &[r#"{"execute":"stop"}"#])],
            files: vec![files("state", Access::ReadWrite), files("project", Access::Read)],
            net: vec![net("https://api.example.com/v1", &["GET", "POST"], &[])],
            secrets: vec![secret("KEY", &["https://api.example.com/", "target"])],
            target: Some(Target { reason: String::new() }),
        }
    }

    #[test]
    fn the_same_goes_beyond_in_nothing_and_everything_goes_beyond_nothing() {
        assert_eq!(beyond(&rich(), &rich()), Capabilities::default());
        assert_eq!(beyond(&rich(), &Capabilities::default()), rich());
        assert_eq!(within(&rich(), &rich()), rich());
        assert_eq!(within(&rich(), &Capabilities::default()), Capabilities::default());
    }

    #[test]
    fn only_the_new_part_of_a_line_goes_beyond() {
        let mut more = rich();
        more.exec[0].args.push("rm <word>".into());
        more.service[0].options.push("-snapshot".into());
        more.service[0].messages.push(r#"{"execute":"quit"}"#.into());
        more.files[1].access = Access::ReadWrite;
        more.net[0].methods.push("DELETE".into());
        more.secrets[0].to.push("https://other.example/".into());
        let widened = beyond(&more, &rich());
        assert_eq!(widened.exec, [exec("podman", &["rm <word>"], &["LANG"])]);
        assert_eq!(widened.service, [service("qemu", &["-snapshot"], &[r#"{"execute":"quit"}"#])]);
        assert_eq!(widened.files, [files("project", Access::ReadWrite)]);
        assert_eq!(widened.net, [net("https://api.example.com/v1", &["DELETE"], &[])]);
        assert_eq!(widened.secrets, [secret("KEY", &["https://other.example/"])]);
        assert_eq!(widened.target, None);
    }

    #[test]
    fn a_resolved_program_stands_for_its_name_and_for_no_other_path() {
        let granted = Capabilities { exec: vec![exec("/usr/bin/podman", &["ps"], &[])], ..Capabilities::default() };
        let asks = |program| Capabilities { exec: vec![exec(program, &["ps"], &[])], ..Capabilities::default() };
        assert_eq!(beyond(&asks("podman"), &granted), Capabilities::default());
        assert_eq!(beyond(&asks("/tmp/podman"), &granted), asks("/tmp/podman"));
        assert_eq!(within(&granted, &asks("podman")), granted);
        assert_eq!(within(&granted, &asks("docker")), Capabilities::default());
    }

    #[test]
    fn of_a_service_stays_what_is_still_asked_for() {
        fn granted(options: &[&str], messages: &[&str]) -> Capabilities {
            Capabilities { service: vec![service("/opt/qemu", options, messages)], ..Capabilities::default() }
        }
        let (stop, quit) = (r#"{"execute":"stop"}"#, r#"{"execute":"quit"}"#);
        let all = granted(&["-S", "-m <number>"], &[stop, quit]);
        let asks = Capabilities { service: vec![service("qemu", &["-S", "-x"], &[stop])], ..Capabilities::default() };
        assert_eq!(within(&all, &asks), granted(&["-S"], &[stop]));
        assert_eq!(beyond(&asks, &all).service, [service("qemu", &["-x"], &[])]);
        // A program without arguments is one as well.
        let bare = Capabilities { service: vec![service("qemu", &[], &[])], ..Capabilities::default() };
        assert_eq!(within(&all, &bare), granted(&[], &[]));
        assert_eq!(beyond(&bare, &Capabilities::default()), bare);
    }

    #[test]
    fn a_service_that_no_longer_always_gets_something_is_asked_about_with_all_that_it_may() {
        let mut less = rich();
        less.service[0].always.clear();
        assert_eq!(beyond(&less, &rich()).service, less.service);
        assert_eq!(within(&rich(), &less).service, rich().service, "what was granted stays as it is");
        assert_eq!(beyond(&rich(), &less).service, [], "more that it always gets is less that it can do");
        // What was agreed to takes the place of what it holds all of.
        let mut granted = rich().service;
        add_services(&mut granted, less.service.clone());
        assert_eq!(granted, less.service);
        let mut more = less.service.clone();
        more[0].options = strings(&["-snapshot"]);
        add_services(&mut granted, more.clone());
        assert_eq!(granted, [less.service, more].concat());
    }

    #[test]
    fn a_new_variable_is_asked_about_with_every_line_of_its_program() {
        let mut more = rich();
        more.exec[0].env.push("LD_PRELOAD".into());
        assert_eq!(beyond(&more, &rich()).exec, [more.exec[0].clone()]);
    }

    #[test]
    fn a_deeper_path_lies_within_and_a_wider_one_or_another_address_beyond() {
        let known =
            Capabilities { net: vec![net("https://*.example.com/v1", &["GET"], &[])], ..Capabilities::default() };
        let widened = |it: Net| beyond(&Capabilities { net: vec![it], ..Capabilities::default() }, &known).net;
        assert!(widened(net("https://api.example.com/v1/x", &["GET"], &[])).is_empty());
        for wider in [
            net("https://api.example.com/", &["GET"], &[]),
            net("https://*.com/v1", &["GET"], &[]),
            net("http://api.example.com/v1", &["GET"], &[]),
            net("https://api.example.com/v1", &["GET"], &[AddressClass::Loopback]),
        ] {
            assert_eq!(widened(wider.clone()), [wider]);
        }
    }

    #[test]
    fn what_is_asked_for_no_longer_is_not_kept() {
        let mut fewer = rich();
        fewer.exec[0].args.truncate(1);
        fewer.files[0].access = Access::Read;
        fewer.net[0].methods.truncate(1);
        fewer.secrets[0].to.truncate(1);
        fewer.target = None;
        assert_eq!(within(&rich(), &fewer), fewer);
    }
}
