//! Steps over SSH.

use pcoder_sdk::bindings::host::wasi::clocks::monotonic_clock::subscribe_duration;
use pcoder_sdk::host::{ProviderHost, Stdio};
use pcoder_sdk::{CommandSpec, Endpoint, Error, ExitStatus, Result, WriteOptions};

/// The first five arguments are the endpoint.
pub(crate) fn step(host: ProviderHost<'_>, verb: &str, args: &[String]) -> Result<String> {
    if verb == "ssh.public-key" {
        let name = args.first().map_or("", String::as_str);
        let credential = if name.is_empty() { String::new() } else { host.secrets().get(name)? };
        return host.ssh().public_key(&credential);
    }
    let arg = |index: usize| args.get(index + 5).map_or("", String::as_str);
    let endpoint = endpoint(args)?;
    let forward = || host.ssh().forward(&endpoint, arg(0).parse().unwrap_or(0));
    match verb {
        "ssh.read" => host.ssh().read_file(&endpoint, arg(0)).map(|it| String::from_utf8_lossy(&it).into_owned()),
        "ssh.capture" => {
            let spec = CommandSpec::shell(arg(0));
            let output = host.ssh().capture(&endpoint, &spec, arg(1).as_bytes())?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(format!("{:?} {} {}", output.status, text(&output.stdout), text(&output.stderr)))
        }
        "ssh.write" => {
            let options = WriteOptions {
                create_parents: arg(2) == "parents",
                mode: u32::from_str_radix(arg(3), 8).ok(),
                owner: None,
            };
            host.ssh().write_file(&endpoint, arg(0), arg(1).as_bytes(), options).map(|()| String::new())
        }
        "ssh.forward" => forward().map(|it| it.to_string()),
        // Says where it listens in a file, and waits for ever.
        "ssh.forward.hold" => {
            let port = forward()?;
            host.files().write_atomic("box", "port", port.to_string().as_bytes(), WriteOptions::plain())?;
            subscribe_duration(u64::MAX).block();
            Ok(String::new())
        }
        // Opens so many ports and keeps them.
        _ => {
            for _ in 0..arg(1).parse().unwrap_or(0) {
                forward()?;
            }
            Ok(String::new())
        }
    }
}

/// Runs a command. The credential may be `secret:NAME`.
pub(crate) fn exec(
    host: ProviderHost<'_>,
    args: &[String],
    spec: &CommandSpec,
    stdio: Stdio<'_>,
) -> Result<ExitStatus> {
    let mut endpoint = endpoint(args)?;
    if let Some(name) = endpoint.credential.strip_prefix("secret:") {
        endpoint.credential = host.secrets().get(name)?;
    }
    host.ssh().exec(&endpoint, spec, stdio)
}

fn endpoint(args: &[String]) -> Result<Endpoint> {
    let [host, port, user, credential, host_key, ..] = args else {
        return Err(Error::invalid("hostile.ssh", "no endpoint"));
    };
    Ok(Endpoint {
        host: host.clone(),
        port: port.parse().unwrap_or(0),
        user: user.clone(),
        credential: credential.clone(),
        host_key: host_key.clone(),
    })
}
