//! `run` on another machine.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pcoder_core::instances::plain_boot;
use pcoder_core::run_remote::{Note, Pulled, Pushed, RemoteOptions, Skipped, Stage, UnfinishedRun};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::contract::provider::BootOptions;
use pcoder_core::runtime::host::stdio::Stdio;
use pcoder_core::runtime::text::for_people;
use pcoder_core::{Feed, Pcoder, RunRequest};

use super::instance::{machine_options, refused};
use super::run::{KEPT, print_captured};
use crate::args::Away;
use crate::output::{note, size};
use crate::progress::{Bar, Spinner};
use crate::{exit, signals};

pub(super) async fn run(pcoder: &Pcoder, request: RunRequest, away: Away, as_json: bool) -> Result<ExitCode, Error> {
    let project = request.project.as_deref().and_then(|it| it.file_name()).unwrap_or_default().to_string_lossy();
    let options = RemoteOptions {
        boot: BootOptions {
            image: away.image,
            options: machine_options(away.network, away.options),
            name: Some(format!("{} {}", request.tool, for_people(&project, 60))),
            ..plain_boot()
        },
        instance: away.instance,
        keep: away.keep,
        sync: !away.no_sync,
        sync_back: !away.no_sync_back,
        ignore: away.ignore,
    };
    let told = Arc::new(Told { provider: request.provider.clone(), quiet: as_json, shown: Mutex::default() });
    let watcher = Arc::clone(&told);
    let run = pcoder.remote_run(request, options, Arc::new(move |note| watcher.hear(&note))).await?;
    let control = run.control();
    if as_json {
        let started = Instant::now();
        let input = if std::io::stdin().is_terminal() { Feed::Nothing } else { Feed::Inherit };
        let kept = tokio::select! {
            kept = run.capture(input, run.output_limit().unwrap_or(KEPT), &control) => kept?,
            never = signals::once_and_again(|| control.cancel()) => match never {},
        };
        return print_captured(&kept, started);
    }
    let stdio = Stdio::inherit();
    // The terminal is the tool's while it runs, and Ctrl-C with it: a signal is for the run as a whole.
    let status = tokio::select! {
        status = run.run(stdio, &control) => status?,
        never = signals::once_and_again(|| control.cancel()) => match never {},
    };
    Ok(ExitCode::from(exit::of_tool(&status)))
}

/// Shows what is being done, on standard error.
struct Told {
    provider: String,
    quiet: bool,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    spinner: Option<Spinner>,
    bar: Option<Bar>,
}

impl Told {
    fn hear(&self, told: &Note<'_>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let progress = match told {
            Note::Syncing(it) if it.stage == Stage::Packing => Some(("packing the project", it.done, it.total)),
            Note::Syncing(it) => Some(("unpacking its changes", it.done, it.total)),
            Note::Engines(it) => Some(("writing the machines' engines", it.done, it.total)),
            _ => None,
        };
        if let Some((word, done, total)) = progress {
            use pcoder_core::engine_store::Progress as _;
            shown.bar.get_or_insert_with(|| Bar::new(word, self.quiet)).bytes(done, total);
            return;
        }
        if let Some(bar) = shown.bar.take() {
            bar.finish();
        }
        shown.spinner = None;
        match told {
            Note::Booting => shown.spinner = Some(Spinner::start(&format!("Booting on {}", self.provider), self.quiet)),
            // Conflicts and what was left out matter also to those who read nothing else.
            Note::CutOff(run) => cut_off(run),
            Note::Pushed(pushed) => self.pushed(pushed),
            Note::Pulled(pulled) => self.pulled(pulled),
            Note::Refused(it) => refused(it),
            Note::NoWayBack(ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                note(&format!(
                    "warning: the profile names 127.0.0.1:{}, which on an instance of {} is that instance and not this host",
                    ports.join(" and 127.0.0.1:"),
                    self.provider
                ));
            }
            Note::Left(id) => self.say(&format!(
                "{} is still running: `pcoder instance terminate {} --provider {}` ends it",
                for_people(id, 128),
                for_people(id, 128),
                self.provider
            )),
            _ => {}
        }
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            note(line);
        }
    }

    fn pushed(&self, pushed: &Pushed) {
        if pushed.files > 0 || pushed.deleted > 0 {
            let (files, sent) = (pushed.files, size(pushed.sent));
            self.say(&format!("{files} files went there ({sent}), and {} were deleted there", pushed.deleted));
        }
        for conflict in &pushed.conflicts {
            note(&format!("warning: changed on both sides, and left as it is on both: {}", shown(&conflict.path)));
        }
        skipped(&pushed.skipped);
    }

    fn pulled(&self, pulled: &Pulled) {
        let (changed, created, deleted) = (pulled.changed.len(), pulled.created.len(), pulled.deleted.len());
        if changed + created + deleted > 0 {
            self.say(&format!("{changed} files changed, {created} are new, {deleted} were deleted"));
        }
        for conflict in &pulled.conflicts {
            match &conflict.kept_as {
                Some(kept) => note(&format!(
                    "warning: changed on both sides: {} stays, and the instance's is {}",
                    shown(&conflict.path),
                    shown(kept)
                )),
                None => note(&format!(
                    "warning: changed on one side and deleted on the other: {} stays",
                    shown(&conflict.path)
                )),
            }
        }
        skipped(&pulled.skipped);
    }
}

fn cut_off(UnfinishedRun { tool, provider, instance, .. }: &UnfinishedRun) {
    let tool = for_people(tool, 80);
    note(&match instance.as_deref().map(|it| for_people(it, 128)) {
        Some(id) => format!(
            "warning: a run of {tool} on this project was cut off, and what it did is on {id}: \
             `pcoder run {tool} --provider {provider} --instance {id}` goes on there and brings it back, and \
             `pcoder instance terminate {id} --provider {provider}` throws it away"
        ),
        None => format!(
            "warning: a run of {tool} on this project was cut off while its machine booted: \
             `pcoder instance list --provider {provider}` shows whether that was left"
        ),
    });
}

/// How many of the files that were left out are named.
const NAMED: usize = 10;

fn skipped(skipped: &[Skipped]) {
    for it in skipped.iter().take(NAMED) {
        note(&format!("warning: left out {}: {} ({})", it.side, shown(&it.path), it.reason));
    }
    if skipped.len() > NAMED {
        note(&format!("warning: and {} more were left out", skipped.len() - NAMED));
    }
}

fn shown(path: &std::path::Path) -> String {
    for_people(&path.to_string_lossy(), 400)
}
