//! The provider `box`: commands run on boxes of box.example.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

use std::io::{Read as _, Write as _};

use pcoder_sdk::host::{ProviderHost, Stdio};
use pcoder_sdk::http::{Request, Response, check};
use pcoder_sdk::retry::Policy;
use pcoder_sdk::{
    BootOptions, CommandSpec, Error, ExitStatus, Instance, Output, Provider, ProviderInfo, Result, code, name, shell,
};

pcoder_sdk::export!(provider: Boxes);

const API: &str = "https://api.box.example/v1/boxes";

/// Boxes of box.example.
#[derive(Default)]
pub struct Boxes;

impl Provider for Boxes {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            name: "box".to_owned(),
            description: "Boxes of box.example".to_owned(),
            // Input and output go as a whole, so neither `stdin` nor `streaming`.
            features: Vec::new(),
            home_dir: Some("/home/box".to_owned()),
        }
    }

    fn boot(&self, host: ProviderHost<'_>, options: BootOptions) -> Result<Instance> {
        if let Some(option) = options.options.first() {
            return Err(Error::invalid("provider.boot", "boxes have no such option").subject(&option.name));
        }
        let image = options.image.unwrap_or_else(|| "default".to_owned());
        // Not tried again: doing it twice would start two boxes.
        let response = send(host, "provider.boot", "POST", API, image.as_bytes())?;
        Ok(instance(String::from_utf8_lossy(&response.body).trim()))
    }

    fn get(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        let url = address("provider.get", id)?;
        let policy = Policy::default();
        policy.run(host.clock(), host.random(), |_| send(host, "provider.get", "GET", &url, b""))?;
        Ok(instance(id))
    }

    fn list(&self, host: ProviderHost<'_>) -> Result<Vec<Instance>> {
        let response = send(host, "provider.list", "GET", API, b"")?;
        Ok(String::from_utf8_lossy(&response.body).lines().map(instance).collect())
    }

    fn terminate(&self, host: ProviderHost<'_>, id: &str) -> Result<()> {
        let url = address("provider.terminate", id)?;
        match send(host, "provider.terminate", "DELETE", &url, b"") {
            Err(error) if error.code != code::NOT_FOUND => Err(error),
            _ => Ok(()),
        }
    }

    fn exec(&self, host: ProviderHost<'_>, id: &str, spec: CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        let failed = |error: std::io::Error| Error::new(code::IO, "provider.exec", error.to_string());
        let mut input = Vec::new();
        stdio.stdin()?.read_to_end(&mut input).map_err(failed)?;
        let output = self.capture(host, id, &spec, &input)?;
        stdio.stdout()?.write_all(&output.stdout).map_err(failed)?;
        Ok(output.status)
    }

    /// The SDK makes the file operations out of this: `read_file`, `write_file` and their siblings.
    fn capture(&self, host: ProviderHost<'_>, id: &str, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        let url = format!("{}/exec", address("provider.exec", id)?);
        // `shell::line` refuses a NUL, so the first one ends the command line.
        let mut body = shell::line(spec)?.into_bytes();
        body.push(0);
        body.extend_from_slice(input);
        let response = send(host, "provider.exec", "POST", &url, &body)?;
        let status: Option<i32> = response.header("x-exit-code").and_then(|text| text.parse().ok());
        match status {
            Some(status) => Ok(Output::new(status, response.body, "")),
            None => Err(Error::new(code::SERVER, "provider.exec", "the answer has no exit code").subject(id)),
        }
    }
}

fn send(host: ProviderHost<'_>, operation: &str, method: &str, url: &str, body: &[u8]) -> Result<Response> {
    // A placeholder: the host puts the value in its place, in this header, for the addresses in plugin.toml.
    let key = host.secrets().get("BOX_API_KEY")?;
    let request = Request::new(method, url)
        .header("authorization", format!("Bearer {key}"))
        .body("application/octet-stream", body);
    let response = host.http().send(&request)?;
    check(response, operation, url, host.clock().now_ms())
}

/// Only a name that is safe goes into an address.
fn address(operation: &str, id: &str) -> Result<String> {
    if name::sanitize(id) == id {
        return Ok(format!("{API}/{id}"));
    }
    Err(Error::new(code::NOT_FOUND, operation, "there is no such box").subject(id))
}

fn instance(id: &str) -> Instance {
    Instance { id: id.to_owned(), status: "ready".to_owned(), created_ms: None, home_dir: None, details: Vec::new() }
}

#[cfg(test)]
mod tests {
    use pcoder_sdk::testing::{FakeHost, FakeStdio};

    use super::*;

    fn answer(status: u16, body: &str) -> Result<Response> {
        let headers = vec![("x-exit-code".to_owned(), "7".to_owned())];
        Ok(Response { status, headers, body: body.as_bytes().to_vec() })
    }

    fn host() -> FakeHost {
        let host = FakeHost::new();
        host.secret("BOX_API_KEY", "placeholder");
        host
    }

    #[test]
    fn a_command_goes_to_its_box_with_its_input() {
        let host = host();
        host.respond(answer(200, "hi\n"));
        let stdio = FakeStdio::new("input");
        let spec = CommandSpec::argv("echo", ["it's"]);
        let status = Boxes.exec(host.provider(), "box-1", spec, stdio.handle()).unwrap();
        assert_eq!((status, stdio.written()), (ExitStatus::Exited(7), b"hi\n".to_vec()));
        let call = &host.calls()[1];
        assert_eq!(call.subject, "POST https://api.box.example/v1/boxes/box-1/exec");
        assert_eq!(call.content.as_deref(), Some(&b"exec echo 'it'\\''s'\0input"[..]));
    }

    #[test]
    fn ending_a_box_that_is_gone_is_no_error() {
        let host = host();
        host.respond(answer(404, ""));
        assert_eq!(Boxes.terminate(host.provider(), "box-1"), Ok(()));
    }

    #[test]
    fn asking_is_tried_again_and_starting_is_not() {
        let host = host();
        host.respond(answer(503, ""));
        host.respond(answer(200, ""));
        assert!(Boxes.get(host.provider(), "box-1").is_ok());
        host.respond(answer(503, ""));
        let options = BootOptions {
            image: None,
            name: None,
            ttl_seconds: None,
            ttl_action: None,
            project: None,
            options: Vec::new(),
        };
        assert_eq!(Boxes.boot(host.provider(), options).unwrap_err().code, "unavailable");
    }

    #[test]
    fn no_name_leads_to_another_address() {
        let host = host();
        assert_eq!(Boxes.get(host.provider(), "../admin").unwrap_err().code, "not-found");
        assert!(host.calls().is_empty());
    }
}
