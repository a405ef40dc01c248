//! What a machine reaches, and who reaches it.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::Machines;

/// The sockets on which a process waits for connections: addresses and ports, as the system has them.
fn listening(pid: i32) -> Vec<(Ipv4Addr, u16)> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    let sockets: Vec<String> = links
        .filter_map(|it| {
            let target = std::fs::read_link(it.ok()?.path()).ok()?.to_string_lossy().into_owned();
            Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).expect("a table");
    // On no address of version 6 at all.
    let inode = |line: &str| line.split_whitespace().nth(9).map(str::to_owned);
    let listens = |line: &&str| line.split_whitespace().nth(3) == Some("0A");
    let is_its = |line: &str| inode(line).is_some_and(|it| sockets.contains(&it));
    assert!(!of("tcp6").lines().filter(listens).any(is_its));
    let all = of("tcp");
    let its = all.lines().filter(listens).filter(|line| is_its(line));
    its.map(|line| {
        let (address, port) =
            line.split_whitespace().nth(1).and_then(|it| it.split_once(':')).expect("an address and a port");
        let address = u32::from_str_radix(address, 16).expect("an address").swap_bytes();
        (Ipv4Addr::from(address), u16::from_str_radix(port, 16).expect("a port"))
    })
    .collect()
}

/// Another network, from which this host is at an address of its own: what a neighbour sees. It takes root.
struct Neighbour(String);

impl Neighbour {
    const HOST: &str = "198.51.100.1";

    fn new() -> Self {
        let name = format!("e2e{}", std::process::id());
        let pair = (format!("a{name}"), format!("b{name}"));
        let neighbour = Self(name);
        let it = &neighbour.0;
        for line in [
            format!("netns add {it}"),
            format!("link add {} type veth peer name {} netns {it}", pair.0, pair.1),
            format!("addr add {}/24 dev {}", Self::HOST, pair.0),
            format!("link set {} up", pair.0),
            format!("-n {it} addr add 198.51.100.2/24 dev {}", pair.1),
            format!("-n {it} link set {} up", pair.1),
        ] {
            let done = Command::new("ip").args(line.split(' ')).output().expect("iproute2");
            assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
        }
        neighbour
    }

    /// Whether somebody there gets a connection to a port of this host.
    fn reaches(&self, port: u16) -> bool {
        let script = format!("exec 3<>/dev/tcp/{}/{port}", Self::HOST);
        let done = Command::new("ip").args(["netns", "exec", &self.0, "timeout", "20", "bash", "-c", &script]).output();
        done.expect("iproute2 and bash").status.success()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.0]).output());
    }
}

/// Who waits on every address of this host: a machine must not get through to him.
struct Bait(TcpListener);

impl Bait {
    fn new() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("an address").port()
    }

    fn nobody_came(&self) {
        assert_eq!(self.0.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    }

    /// Prints each address of this host at which a machine reaches it, and what a name server says.
    fn script(&self) -> String {
        let port = self.port();
        format!(
            "for to in 10.0.2.2 10.0.2.3 10.0.2.1 127.0.0.1 {host}; do \
               timeout 8 bash -c \"exec 3<>/dev/tcp/$to/{port}\" 2>/dev/null && echo $to; \
             done; timeout 8 getent hosts example.com; true",
            host = Neighbour::HOST
        )
    }

    /// Prints how the proxy answers who wants to get to each address of this host.
    fn script_for_the_proxy(&self) -> String {
        let port = self.port();
        format!(
            "proxy=${{https_proxy#http://}}; at=${{proxy#*@}}; at=${{at%/}}; \
             key=$(printf %s \"${{proxy%%@*}}\" | base64 -w0); \
             for to in 127.0.0.1 localhost 10.0.2.2 {host} '[::1]' example.com; do \
               exec 3<>\"/dev/tcp/${{at%:*}}/${{at#*:}}\"; \
               printf 'CONNECT %s:{port} HTTP/1.1\\r\\nHost: x\\r\\nProxy-Authorization: Basic %s\\r\\n\\r\\n' $to $key >&3; \
               read -r _ code _ <&3; echo \"$to $code\"; \
             done",
            host = Neighbour::HOST
        )
    }
}

#[test]
fn a_machine_is_reached_from_this_host_alone_and_reaches_nothing_of_it() {
    let machines = Machines::new();
    let neighbour = Neighbour::new();
    for network in ["none", "restricted"] {
        let id = machines.run(&["instance", "boot", "--network", network]).printed().trim().to_owned();
        let bait = Bait::new();
        assert_eq!(machines.run(&["instance", "exec", &id, "--shell", &bait.script()]).printed(), "", "{network}");
        if network == "restricted" {
            let shell = ["instance", "exec", &id, "--", "bash", "-c", &bait.script_for_the_proxy()];
            let expected =
                ["127.0.0.1 403", "localhost 403", "10.0.2.2 403", "198.51.100.1 403", "[::1] 403", "example.com 403"];
            assert_eq!(machines.run(&shell).printed().lines().collect::<Vec<_>>(), expected);
        }
        bait.nobody_came();

        machines.run(&["instance", "ports", &id, "8000"]).printed();
        let pid = machines.qemus()[&id];
        let open = listening(pid.as_raw_nonzero().get());
        assert_eq!(open.len(), 2, "SSH, and the port that was exposed: {open:?}");
        assert!(open.iter().all(|(address, _)| address.is_loopback()), "{open:?}");
        assert!(neighbour.reaches(bait.port()), "who listens on every address is reached");
        for (_, port) in open {
            assert!(!neighbour.reaches(port), "{port}");
        }
    }
    machines.terminate_all();
}

/// The proxy that this host's user goes out by. It answers as if it were the place that is asked for.
struct UsersProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl UsersProxy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let notes = Arc::clone(&notes);
                std::thread::spawn(move || drop(Self::answer(stream, &notes)));
            }
        });
        Self { address, asked }
    }

    fn answer(mut stream: TcpStream, notes: &Mutex<Vec<String>>) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        while let Some(line) = lines.next() {
            let line = line?;
            // The rest of the head.
            while lines.next().transpose()?.is_some_and(|it| !it.is_empty()) {}
            let answer = match line.starts_with("CONNECT ") {
                true => "HTTP/1.1 200 OK\r\n\r\n",
                false => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfrom afar",
            };
            notes.lock().expect("a list").push(line);
            stream.write_all(answer.as_bytes())?;
        }
        Ok(())
    }
}

#[test]
fn a_machine_whose_network_is_restricted_reaches_what_is_allowed_and_that_by_its_users_own_proxy() {
    let mut machines = Machines::new();
    let proxy = UsersProxy::new();
    for name in ["http_proxy", "https_proxy"] {
        machines.world.set(name, format!("http://{}", proxy.address));
    }
    machines.world.set("PCODER_NETWORK_ALLOW", "allowed.example");
    let id = machines.run(&["instance", "boot", "--network", "restricted"]).printed().trim().to_owned();
    let curl = |more: &[&str]| machines.run(&[&["instance", "exec", &id, "--", "curl", "-sS"][..], more].concat());
    assert_eq!(curl(&["http://allowed.example/plain"]).printed(), "from afar");
    assert_eq!(curl(&["--proxytunnel", "http://allowed.example/tunnel"]).printed(), "from afar");
    let refused = curl(&["-o", "/dev/null", "-w", "%{http_code}", "http://other.example/"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(0), "403"), "{refused:#?}");
    assert!(refused.stderr.contains("it was kept from other.example"), "{refused:#?}");
    let expected =
        ["GET http://allowed.example/plain HTTP/1.1", "CONNECT allowed.example:80 HTTP/1.1", "GET /tunnel HTTP/1.1"];
    assert_eq!(*proxy.asked.lock().expect("a list"), expected);
    machines.terminate_all();
}

#[test]
fn an_agent_whose_network_is_restricted_has_its_model_on_this_host() {
    let machines = Machines::with_profiles();
    let project = machines.world.project("p");
    let args = ["run", "claude", "--mode", "linux-portable", "--network", "restricted", "--profile", "offline"];
    let script = "@sh timeout 8 bash -c 'exec 3<>/dev/tcp/10.0.2.2/22' 2>/dev/null || echo no > reached.txt\n@say done";
    let rest = ["--project", "p", "--", "--dangerously-skip-permissions", "-p", script];
    let outcome = machines.run(&[&args[..], &rest].concat());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "done\n"), "{outcome:#?}");
    assert_eq!(std::fs::read_to_string(project.join("reached.txt")).expect("a file"), "no\n");
    machines.terminate_all();
}
