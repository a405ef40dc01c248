//! Sandboxes from the first to the last: boot, list, stop, resume, copy, end.

use std::collections::BTreeSet;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{BootOptions, Error, Instance, Level, Result, Setting, code};
use serde_json::json;

use crate::config::{Machine, home, idle, setting};
use crate::limits::time_ms;
use crate::rest::{Api, Data, is_id};
use crate::session::{self, Bootup};
use crate::tokens::Tokens;

/// What sandboxes of ours are marked with.
const TAG: &str = "pcoder";
/// What the tag begins with that says how long a sandbox may be idle, in seconds.
const IDLE_TAG: &str = "pcoder-idle-";
/// How many sandboxes one page has; the most that the service gives.
const PAGE: u64 = 50;
/// More pages than anybody has.
const PAGES: u64 = 1000;
/// The longest title, in characters.
const TITLE: usize = 255;
/// The life of sandboxes.
pub(crate) struct Lifecycle<'a> {
    host: ProviderHost<'a>,
}

impl<'a> Lifecycle<'a> {
    pub(crate) fn new(host: ProviderHost<'a>) -> Self {
        Self { host }
    }

    fn api(&self, operation: &'static str) -> Api<'a> {
        Api::new(self.host, operation)
    }

    /// Forks the image, starts the fork and waits until it is ready. What fails after the fork ends it.
    pub(crate) fn boot(&self, options: &BootOptions) -> Result<Instance> {
        const OPERATION: &str = "provider.boot";
        let mut machine = Machine::of_settings(self.host, OPERATION)?;
        for option in &options.options {
            machine.set(OPERATION, &option.name, &option.value)?;
        }
        match options.ttl_action.as_deref() {
            None | Some("stop") => {}
            Some("terminate") => {
                return Err(Error::unsupported(
                    OPERATION,
                    "at the end of its time a sandbox hibernates, and is not ended",
                )
                .subject("ttl-action")
                .hint("take `stop`, and terminate it yourself"));
            }
            Some(other) => return Err(Error::invalid(OPERATION, "this is `stop` or `terminate`").subject(other)),
        }
        if let Some(seconds) = options.ttl_seconds {
            machine.idle = Some(idle(OPERATION, "ttl-seconds", Some(seconds))?);
        }
        home(self.host, OPERATION)?;
        let image = options.image.clone().or_else(|| setting(self.host, "template"));
        let image = image.ok_or_else(|| Error::invalid(OPERATION, "the setting `template` is empty"))?;
        let title = options.name.as_deref().map(|name| name.chars().take(TITLE).collect::<String>());
        self.copy(OPERATION, &image, title.as_deref(), &machine)
    }

    /// Copies a sandbox as it is.
    pub(crate) fn fork(&self, id: &str) -> Result<Instance> {
        const OPERATION: &str = "provider.fork";
        let mut machine = Machine::of_settings(self.host, OPERATION)?;
        let source = self.find(OPERATION, id)?;
        machine.idle = idle_of(&source).or(machine.idle);
        let title = source.optional("title").map(|title| title.chars().take(TITLE).collect::<String>());
        self.copy(OPERATION, id, title.as_deref(), &machine)
    }

    fn copy(&self, operation: &'static str, image: &str, title: Option<&str>, machine: &Machine) -> Result<Instance> {
        if !is_id(image) {
            return Err(Error::invalid(operation, "an image is the id of a template or of a sandbox").subject(image));
        }
        // Says which one it is if the answer is lost.
        let mark = format!("pcoder-boot-{:016x}", self.host.random().bits());
        let (privacy, private_preview) = machine.privacy.fields();
        let mut tags = vec![TAG.to_owned(), mark.clone()];
        tags.extend(machine.idle.map(|seconds| format!("{IDLE_TAG}{seconds}")));
        let mut body = json!({"privacy": privacy, "private_preview": private_preview, "tags": tags, "path": "/"});
        if let Some(title) = title {
            body["title"] = title.into();
        }
        // Not tried again: doing it twice would make two.
        let forked = self.api(operation).once("POST", &format!("/sandbox/{image}/fork"), Some(&body));
        let forked = forked.and_then(|data| {
            let id = data.text("id")?.to_owned();
            if is_id(&id) && id != image { Ok(id) } else { Err(data.wrong("id", "is not that of a new sandbox")) }
        });
        let id = match forked {
            Ok(id) => id,
            Err(error) => {
                if matches!(error.code.as_str(), code::NETWORK | code::TIMEOUT | code::SERVER | code::UNAVAILABLE) {
                    self.sweep(operation, &mark);
                }
                return Err(error);
            }
        };
        self.host.log().log(Level::Info, &format!("{id}: forked from {image}"));
        session::open(self.host, operation, &id, &machine.start())
            .and_then(|(_, bootup)| self.ready(operation, &id, bootup))
            .map_err(|error| self.abandon(operation, &id, error))
    }

    /// Ends what a boot has left, and keeps the error that it is for.
    fn abandon(&self, operation: &'static str, id: &str, error: Error) -> Error {
        let left = match self.end(operation, id) {
            Ok(()) => return error,
            Err(left) => left,
        };
        self.host.log().log(Level::Warn, &format!("{id}: {}", left.line()));
        let message = format!("{}; the sandbox {id} could not be ended", error.message);
        Error { message, ..error }
    }

    /// Ends the sandboxes with this tag: a fork was made, perhaps, and its answer was lost.
    fn sweep(&self, operation: &'static str, mark: &str) {
        let found = self.pages(operation, mark, "");
        let ended = found.and_then(|found| {
            found.iter().try_for_each(|sandbox| sandbox.text("id").and_then(|id| self.end(operation, id)))
        });
        if let Err(error) = ended {
            self.host.log().log(Level::Warn, &format!("a sandbox with the tag {mark} may be left: {}", error.line()));
        }
    }

    fn ready(&self, operation: &'static str, id: &str, bootup: Bootup) -> Result<Instance> {
        let details = vec![Setting::new("bootup", bootup.name())];
        // Its record has more, and a sandbox that runs without one is as good.
        let created = self.find(operation, id).ok().and_then(|record| created(&record));
        self.instance(operation, id, "ready", created, details)
    }

    fn instance(
        &self,
        operation: &str,
        id: &str,
        status: &str,
        created_ms: Option<u64>,
        details: Vec<Setting>,
    ) -> Result<Instance> {
        Ok(Instance {
            id: id.to_owned(),
            status: status.to_owned(),
            created_ms,
            home_dir: Some(home(self.host, operation)?),
            details,
        })
    }

    /// A sandbox's record.
    fn find(&self, operation: &'static str, id: &str) -> Result<Data> {
        if !is_id(id) {
            return Err(Error::new(code::NOT_FOUND, operation, "there is no such sandbox").subject(id));
        }
        let data = self.api(operation).again("GET", &format!("/sandbox/{id}"), None)?;
        data.about(id)?;
        Ok(data)
    }

    pub(crate) fn get(&self, id: &str) -> Result<Instance> {
        const OPERATION: &str = "provider.get";
        let record = self.find(OPERATION, id)?;
        let running = self.running(OPERATION)?;
        self.shown(OPERATION, &record, &running)
    }

    /// Lists what carries our tag.
    pub(crate) fn list(&self) -> Result<Vec<Instance>> {
        const OPERATION: &str = "provider.list";
        let records = self.pages(OPERATION, TAG, "&order_by=inserted_at&direction=desc")?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let running = self.running(OPERATION)?;
        records.iter().map(|record| self.shown(OPERATION, record, &running)).collect()
    }

    fn shown(&self, operation: &str, record: &Data, running: &BTreeSet<String>) -> Result<Instance> {
        let id = record.text("id")?;
        let status = if running.contains(id) { "ready" } else { "stopped" };
        let mut details = Vec::new();
        details.extend(record.optional("title").map(|title| Setting::new("title", title)));
        let privacy = record.optional_number("privacy");
        let privacy = privacy.and_then(|it| ["public", "unlisted", "private"].get(usize::try_from(it).ok()?).copied());
        details.extend(privacy.map(|privacy| Setting::new("privacy", privacy)));
        self.instance(operation, id, status, created(record), details)
    }

    /// All sandboxes with a tag, page by page.
    fn pages(&self, operation: &'static str, tag: &str, order: &str) -> Result<Vec<Data>> {
        let mut found = Vec::new();
        let mut page = 1;
        loop {
            let path = format!("/sandbox?tags={tag}{order}&page={page}&page_size={PAGE}");
            let data = self.api(operation).again("GET", &path, None)?;
            for record in data.list("sandboxes")? {
                // Who asks for a tag may get more than that.
                if record.texts("tags").contains(&tag) {
                    found.push(record);
                }
            }
            match data.optional_number("pagination.next_page") {
                None if data.number("pagination.current_page")? != page => {
                    return Err(data.wrong("pagination.current_page", "is another page"));
                }
                None => return Ok(found),
                Some(next) if next > page && next <= PAGES => page = next,
                Some(_) => return Err(data.wrong("pagination.next_page", "leads nowhere")),
            }
        }
    }

    /// The sandboxes that run, of the whole workspace. The service looks about every thirty seconds.
    fn running(&self, operation: &'static str) -> Result<BTreeSet<String>> {
        let data = self.api(operation).again("GET", "/vm/running", None)?;
        Ok(data.list("vms")?.iter().filter_map(|vm| vm.optional("id").map(str::to_owned)).collect())
    }

    /// Hibernates a sandbox. One that does not run is no error.
    pub(crate) fn stop(&self, id: &str) -> Result<()> {
        const OPERATION: &str = "provider.stop";
        if !is_id(id) {
            return Err(Error::new(code::NOT_FOUND, OPERATION, "there is no such sandbox").subject(id));
        }
        match self.api(OPERATION).again("POST", &format!("/vm/{id}/hibernate"), Some(&json!({}))) {
            Ok(_) => Ok(()),
            // It does not run, or it does not exist.
            Err(error) if error.code == code::NOT_FOUND => self.find(OPERATION, id).map(drop),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn resume(&self, id: &str) -> Result<Instance> {
        const OPERATION: &str = "provider.resume";
        let mut machine = Machine::of_settings(self.host, OPERATION)?;
        let record = self.find(OPERATION, id)?;
        machine.idle = idle_of(&record).or(machine.idle);
        let (_, bootup) = session::open(self.host, OPERATION, id, &machine.start())?;
        let details = vec![Setting::new("bootup", bootup.name())];
        self.instance(OPERATION, id, "ready", created(&record), details)
    }

    /// Ends a sandbox for good. One that is not there is no error.
    pub(crate) fn terminate(&self, id: &str) -> Result<()> {
        if is_id(id) { self.end("provider.terminate", id) } else { Ok(()) }
    }

    fn end(&self, operation: &'static str, id: &str) -> Result<()> {
        match self.api(operation).again("DELETE", &format!("/vm/{id}"), None) {
            Err(error) if error.code != code::NOT_FOUND => Err(error),
            _ => {
                Tokens::new(self.host, operation, id).forget();
                Ok(())
            }
        }
    }

    /// The address of a port, with a token where the sandbox is private.
    pub(crate) fn expose(&self, id: &str, port: u16) -> Result<String> {
        const OPERATION: &str = "provider.expose";
        if port == 0 {
            return Err(Error::invalid(OPERATION, "a port is a number from 1 to 65535").subject(id));
        }
        let record = self.find(OPERATION, id)?;
        let domain =
            setting(self.host, "preview").ok_or_else(|| Error::invalid(OPERATION, "the setting `preview` is empty"))?;
        let url = format!("https://{id}-{port}.{domain}");
        if record.number("privacy")? != 2 {
            return Ok(url);
        }
        let token = Tokens::new(self.host, OPERATION, id).get()?;
        Ok(format!("{url}/?preview_token={token}"))
    }
}

fn created(record: &Data) -> Option<u64> {
    record.optional("created_at").and_then(time_ms).and_then(|ms| u64::try_from(ms).ok())
}

/// How long a sandbox was said to be idle at most when it was made.
fn idle_of(record: &Data) -> Option<u64> {
    record.texts("tags").iter().find_map(|tag| tag.strip_prefix(IDLE_TAG)?.parse().ok())
}
