//! An agent that tries what WASI has beyond the worlds, as a component in JavaScript or Python could: it should find
//! nothing there.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]
#![allow(unsafe_code, reason = "forging handles is what it is for")]

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod more {
    wit_bindgen::generate!({
        path: "../../wit/pcoder-plugin@0.1.0",
        inline: "
            package test:more;
            world more {
                include wasi:cli/imports@0.2.12;
            }
        ",
        generate_all,
    });
}

use more::wasi::cli::{environment, exit, stderr, stdin, stdout, terminal_stderr, terminal_stdin, terminal_stdout};
use more::wasi::filesystem::{preopens, types::Descriptor, types::OpenFlags, types::PathFlags};
use more::wasi::random::{insecure, insecure_seed};
use more::wasi::sockets::network::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Network};
use more::wasi::sockets::tcp::TcpSocket;
use more::wasi::sockets::udp::UdpSocket;
use more::wasi::sockets::{instance_network, ip_name_lookup, tcp_create_socket, udp_create_socket};
use pcoder_sdk::host::AgentHost;
use pcoder_sdk::{Agent, AgentInfo, CommandSpec, Launch, Result};

/// The agent.
#[derive(Default)]
pub struct Hostile;

impl Agent for Hostile {
    fn info(&self) -> AgentInfo {
        AgentInfo {
            name: "hostile-wasi".to_owned(),
            title: "Hostile".to_owned(),
            description: "Does what no agent should".to_owned(),
            engines: Vec::new(),
            acp_engines: Vec::new(),
            environment: Vec::new(),
            account_environment: Vec::new(),
            api_key_variable: None,
            features: Vec::new(),
        }
    }

    /// The first argument is the attack, the others are its arguments. The answer is what it found.
    fn command(&self, _: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        let mut args = launch.args.iter().map(String::as_str);
        let attack = args.next().unwrap_or_default();
        let found = attempt(attack, &args.collect::<Vec<_>>());
        Ok(CommandSpec::argv("found", [found]))
    }
}

fn attempt(attack: &str, args: &[&str]) -> String {
    let argument = args.first().copied().unwrap_or_default();
    match attack {
        "environment" => format!(
            "{:?} {:?} {:?}",
            environment::get_environment(),
            environment::get_arguments(),
            environment::initial_cwd()
        ),
        "preopens" => format!("{}", preopens::get_directories().len()),
        "stdin" => format!("{:?}", stdin::get_stdin().blocking_read(1)),
        "terminals" => format!(
            "{} {} {}",
            terminal_stdin::get_terminal_stdin().is_some(),
            terminal_stdout::get_terminal_stdout().is_some(),
            terminal_stderr::get_terminal_stderr().is_some()
        ),
        "stdout" => print(&stdout::get_stdout(), args),
        "stderr" => print(&stderr::get_stderr(), args),
        "flood" => {
            let stdout = stdout::get_stdout();
            for _ in 0..argument.parse().unwrap_or(0) {
                let _ = stdout.blocking_write_and_flush(b"flood\n");
            }
            String::new()
        }
        "exit" => {
            exit::exit(if argument == "ok" { Ok(()) } else { Err(()) });
            "still here".to_owned()
        }
        "exit-with-code" => {
            exit::exit_with_code(argument.parse().unwrap_or(0));
            "still here".to_owned()
        }
        "tcp" => format!("{:?}", tcp_create_socket::create_tcp_socket(family(argument)).map(drop)),
        "udp" => format!("{:?}", udp_create_socket::create_udp_socket(family(argument)).map(drop)),
        "resolve" => {
            let network = instance_network::instance_network();
            format!("{:?}", ip_name_lookup::resolve_addresses(&network, argument).map(drop))
        }
        "random" => {
            let seed = insecure_seed::insecure_seed();
            let bytes = insecure::get_insecure_random_bytes(8).len();
            let number = insecure::get_insecure_random_u64();
            format!("{bytes} {}", seed != insecure_seed::insecure_seed() && number == 0)
        }
        "forged-descriptor" => descriptor(forged(argument), args),
        // A handle that there is, taken for another one.
        "mistaken-descriptor" => descriptor(instance_network::instance_network().take_handle(), args),
        "forged-tcp" => {
            // SAFETY: there is no such handle. That the host sees it is what is tested.
            let socket = unsafe { TcpSocket::from_handle(forged(argument)) };
            let network = instance_network::instance_network();
            match args.get(1).copied().unwrap_or_default() {
                "bind" => format!("{:?}", socket.start_bind(&network, LOOPBACK)),
                "connect" => format!("{:?}", socket.start_connect(&network, LOOPBACK)),
                _ => format!("{:?}", socket.start_listen()),
            }
        }
        "forged-udp" => {
            // SAFETY: as above.
            let socket = unsafe { UdpSocket::from_handle(forged(argument)) };
            let network = instance_network::instance_network();
            match args.get(1).copied().unwrap_or_default() {
                "bind" => format!("{:?}", socket.start_bind(&network, LOOPBACK)),
                _ => format!("{:?}", socket.stream(Some(LOOPBACK)).map(drop)),
            }
        }
        "forged-network" => {
            // SAFETY: as above.
            let network = unsafe { Network::from_handle(forged(argument)) };
            format!("{:?}", ip_name_lookup::resolve_addresses(&network, "localhost").map(drop))
        }
        other => format!("`{other}` is no attack"),
    }
}

const LOOPBACK: IpSocketAddress = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 9, address: (127, 0, 0, 1) });

fn forged(handle: &str) -> u32 {
    handle.parse().unwrap_or(1)
}

fn family(name: &str) -> IpAddressFamily {
    if name == "6" { IpAddressFamily::Ipv6 } else { IpAddressFamily::Ipv4 }
}

fn print(stream: &more::wasi::io::streams::OutputStream, pieces: &[&str]) -> String {
    pieces.iter().map(|piece| format!("{:?}", stream.blocking_write_and_flush(piece.as_bytes()))).collect()
}

fn descriptor(handle: u32, args: &[&str]) -> String {
    // SAFETY: there is no such descriptor. That the host sees it is what is tested.
    let descriptor = unsafe { Descriptor::from_handle(handle) };
    match args.get(1).copied().unwrap_or_default() {
        "open" => {
            let flags = more::wasi::filesystem::types::DescriptorFlags::READ;
            let opened = descriptor.open_at(PathFlags::empty(), "etc/passwd", OpenFlags::empty(), flags);
            format!("{:?}", opened.map(drop))
        }
        "read" => format!("{:?}", descriptor.read(16, 0)),
        "write" => format!("{:?}", descriptor.write(b"text", 0)),
        "unlink" => format!("{:?}", descriptor.unlink_file_at("file")),
        "list" => format!("{:?}", descriptor.read_directory().map(drop)),
        _ => format!("{:?}", descriptor.stat().map(drop)),
    }
}

pcoder_sdk::export!(agent: Hostile);
