//! The plugins, each asked the one question that it answers without doing anything; and what providers isolate.

use pcoder_runtime::Error;
use pcoder_runtime::manifest::Kind;

use super::Job;
use super::record::Finding;
use crate::Pcoder;
use crate::run::HOST_PATHS;

const CATEGORY: &str = "plugins";

/// What is said of what a policy keeps from running that cannot be read.
pub(super) const NO_POLICY: &str = "not looked at as long as a policy cannot be read";

pub(super) fn jobs(pcoder: &Pcoder) -> Vec<Job> {
    let mut jobs = Vec::new();
    for kind in Kind::ALL {
        for name in pcoder.names(kind) {
            let id = format!("plugin.{}{name}", kind.prefix());
            jobs.push(Job::new(CATEGORY, id, move |pcoder| async move { plugin(&pcoder, kind, &name).await }));
        }
    }
    if jobs.is_empty() {
        jobs.push(Job::look(CATEGORY, "plugin.any", |_| {
            Finding::fail(
                "this program was built without its plugins",
                "plugins that are built in",
                "there is no tool and no place to run one",
                "build it with `cargo xtask build`",
            )
        }));
    }
    jobs
}

pub(super) fn provider_jobs(pcoder: &Pcoder) -> Vec<Job> {
    let job = |name: String| {
        let id = format!("provider.{name}");
        Job::new("providers", id, |pcoder| async move { provider(&pcoder, &name).await })
    };
    pcoder.names(Kind::Provider).into_iter().map(job).collect()
}

async fn plugin(pcoder: &Pcoder, kind: Kind, name: &str) -> Finding {
    // Its bytes are looked at in any case. A policy that cannot be read is a finding of its own, and not one of every
    // plugin that does not run because of it.
    let bytes = pcoder.known_plugin(&format!("{}{name}", kind.prefix()));
    if bytes.is_ok() && pcoder.policies().is_err() {
        return Finding::ok(NO_POLICY);
    }
    let asked = match bytes {
        Ok(_) => ask(pcoder, kind, name).await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(says) => Finding::ok(says),
        Err(error) => {
            let what = match kind {
                Kind::Agent => format!("`pcoder run {name}` does not work"),
                Kind::Provider => format!("nothing can run on `{name}`"),
                _ => format!("what needs the plugin `{}{name}` does not work", kind.prefix()),
            };
            let full = format!("{}{name}", kind.prefix());
            Finding::error(&error, "a plugin that answers", what, format!("`pcoder plugin inspect {full}` says more"))
        }
    }
}

async fn ask(pcoder: &Pcoder, kind: Kind, name: &str) -> Result<String, Error> {
    let plugin = pcoder.plugin(kind, name).await?;
    let context = pcoder.context(&plugin);
    Ok(match kind {
        Kind::Provider => plugin.provider()?.info(context).await?.description,
        Kind::ProcessManager => plugin.process_manager()?.info(context).await?.description,
        Kind::Agent => plugin.agent()?.info(context).await?.description,
        _ => {
            let profiles = plugin.credentials()?.profiles(context).await?;
            format!("{} profiles", profiles.len())
        }
    })
}

async fn provider(pcoder: &Pcoder, name: &str) -> Finding {
    if pcoder.policies().is_err() {
        return Finding::ok(NO_POLICY);
    }
    let info = async {
        let plugin = pcoder.plugin(Kind::Provider, name).await?;
        let context = pcoder.context(&plugin);
        plugin.provider()?.info(context).await
    };
    match info.await {
        Ok(info) if info.features.iter().any(|it| it == HOST_PATHS) => Finding::ok("it answers; no isolation")
            .meaning("commands run as you, on this machine and its files: a tool can reach all that you can"),
        Ok(_) => Finding::ok("it answers; commands run elsewhere")
            .meaning("a tool reaches what its instance reaches; what keeps that in is the provider's to say"),
        Err(error) => Finding::error(
            &error,
            "a provider that answers",
            format!("nothing can run on `{name}`"),
            format!("`pcoder plugin inspect provider-{name}` says more"),
        ),
    }
}
