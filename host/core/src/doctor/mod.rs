//! `doctor`: what is there, what is missing, and the command that mends it.
//!
//! It uses no network and mends nothing by itself. Asking plugins and engines leaves what every call leaves: a line in
//! the audit, the folder of the code cache. What `--fix` does is in `fix.rs`, and is only ever about pcoder's own files.
//!
//! Each group of checks is one file. A group first lists its checks, then all of them run side by side, each on a thread
//! and with a deadline of its own: a pipe in the place of a file, a disk that is gone or an engine that hangs costs one
//! check and not the report. Nothing is shown that has not passed `redact.rs`.

mod accounts;
mod engines;
mod fix;
mod folders;
mod host;
mod plugins;
mod probe;
mod programs;
mod proxies;
mod record;
mod redact;
mod runtime;
mod state_files;
mod sys;
mod vm;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use probe::Probe;
pub(crate) use sys::ThisMachine;

pub use record::{Check, Report, Status};

use self::record::Finding;
use self::redact::Redactor;
use crate::Pcoder;

/// A check that takes longer has something wrong with it.
const DEADLINE: Duration = Duration::from_secs(15);

/// A thread that does not come back after its deadline is left alone after this.
const GRACE: Duration = Duration::from_secs(1);

/// Checks that run at once: fewer than the calls that the runtime has room for, and enough for one that hangs.
const AT_ONCE: usize = 8;

type Work = Box<dyn FnOnce(Arc<Pcoder>) -> Pin<Box<dyn Future<Output = Finding>>> + Send>;

/// A check that is still to be made.
struct Job {
    id: String,
    category: &'static str,
    work: Work,
}

impl Job {
    /// A check that waits for something.
    fn new<F>(
        category: &'static str,
        id: impl Into<String>,
        work: impl FnOnce(Arc<Pcoder>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Finding> + 'static,
    {
        Self { id: id.into(), category, work: Box::new(move |pcoder| Box::pin(work(pcoder))) }
    }

    /// A check that only looks.
    fn look(
        category: &'static str,
        id: impl Into<String>,
        work: impl FnOnce(&Pcoder) -> Finding + Send + 'static,
    ) -> Self {
        Self::new(category, id, move |pcoder| async move { work(&pcoder) })
    }
}

/// The checks of one group.
struct Group {
    category: &'static str,
    /// The check that fails when they cannot be listed.
    id: &'static str,
    jobs: fn(&Pcoder) -> Vec<Job>,
}

/// In the order in which they are shown.
const GROUPS: [Group; 16] = [
    Group { category: "runtime", id: "runtime.any", jobs: runtime::jobs },
    Group { category: "folders", id: "folder.any", jobs: folders::jobs },
    Group { category: "audit", id: "audit.any", jobs: folders::audit_jobs },
    Group { category: "state", id: "state.any", jobs: state_files::jobs },
    Group { category: "policy", id: "policy.any", jobs: state_files::policy_jobs },
    Group { category: "plugins", id: "plugin.any", jobs: plugins::jobs },
    Group { category: "providers", id: "provider.any", jobs: plugins::provider_jobs },
    Group { category: "engines", id: "engine.any", jobs: engines::jobs },
    Group { category: "auth", id: "auth.any", jobs: accounts::auth_jobs },
    Group { category: "profiles", id: "profile.any", jobs: accounts::profile_jobs },
    Group { category: "secrets", id: "secret.any", jobs: accounts::secret_jobs },
    Group { category: "disk", id: "disk.any", jobs: host::disk_jobs },
    Group { category: "clock", id: "clock.any", jobs: host::clock_jobs },
    Group { category: "terminal", id: "terminal.any", jobs: host::terminal_jobs },
    Group { category: "machines", id: "vm.any", jobs: vm::jobs },
    Group { category: "proxies", id: "proxy.any", jobs: proxies::jobs },
];

impl Pcoder {
    /// Looks at everything that a run needs. With `fix`, what is safe to mend is mended and looked at again.
    pub async fn doctor(&self, fix: bool) -> Report {
        let redactor = Redactor::new(self.surroundings());
        let made = if fix { self.make_folders().await } else { Vec::new() };
        let mut checks = self.all_checks().await;
        for (id, done) in made {
            if let Some(check) = checks.iter_mut().find(|check| check.id == id) {
                check.fixed = Some(done);
            }
        }
        if fix {
            self.fix(&mut checks).await;
        }
        for check in &mut checks {
            redactor.check(check);
        }
        let status = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
        Report { version: env!("CARGO_PKG_VERSION"), status, checks }
    }

    async fn all_checks(&self) -> Vec<Check> {
        // One that has loaded and read nothing yet: a repeated look must see what is there by then.
        let pcoder = match self.fresh() {
            Ok(pcoder) => Arc::new(pcoder),
            Err(error) => {
                let (expected, meaning) = ("a place for pcoder's files", "nothing can be installed or kept");
                let finding = Finding::error(&error, expected, meaning, "set `PCODER_HOME` to a folder of yours");
                return vec![finding.into_check("folder.data".into(), "folders", Duration::ZERO)];
            }
        };
        let (jobs, mut checks) = listed(&pcoder, &GROUPS, DEADLINE).await;
        checks.extend(run(&pcoder, jobs, DEADLINE).await);
        let place = |check: &Check| GROUPS.iter().position(|group| group.category == check.category);
        checks.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.id.cmp(&b.id)));
        accounts::together(&mut checks);
        checks
    }
}

/// The checks that there are, and a failure for every group that cannot say.
async fn listed(pcoder: &Arc<Pcoder>, groups: &'static [Group], deadline: Duration) -> (Vec<Job>, Vec<Check>) {
    let listing = groups.iter().map(|group| {
        let pcoder = Arc::clone(pcoder);
        (group, Instant::now(), tokio::task::spawn_blocking(move || (group.jobs)(&pcoder)))
    });
    let (mut jobs, mut failed) = (Vec::new(), Vec::new());
    for (group, started, listing) in listing.collect::<Vec<_>>() {
        let left = deadline.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, listing).await {
            Ok(Ok(listed)) => jobs.extend(listed),
            Ok(Err(_)) => failed.push(crashed().into_check(group.id.into(), group.category, started.elapsed())),
            Err(_) => failed.push(late(deadline).into_check(group.id.into(), group.category, started.elapsed())),
        }
    }
    (jobs, failed)
}

/// Makes the checks, some at once. The order of the answers is that in which they came.
async fn run(pcoder: &Arc<Pcoder>, jobs: Vec<Job>, deadline: Duration) -> Vec<Check> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for job in jobs {
        let (pcoder, room) = (Arc::clone(pcoder), Arc::clone(&room));
        running.spawn(async move {
            let _place = room.acquire_owned().await;
            one(pcoder, job, deadline).await
        });
    }
    let mut checks = Vec::new();
    while let Some(check) = running.join_next().await {
        checks.extend(check.ok());
    }
    checks
}

async fn one(pcoder: Arc<Pcoder>, job: Job, deadline: Duration) -> Check {
    let started = Instant::now();
    let handle = tokio::runtime::Handle::current();
    let work = job.work;
    // On a thread of its own: what blocks keeps nobody else. The inner deadline ends what waits, and with it what was
    // started; the outer one is for what cannot be ended.
    let thread = tokio::task::spawn_blocking(move || {
        handle.block_on(async { tokio::time::timeout(deadline, work(pcoder)).await })
    });
    let finding = match tokio::time::timeout(deadline + GRACE, thread).await {
        Ok(Ok(Ok(finding))) => finding,
        Ok(Ok(Err(_))) | Err(_) => late(deadline),
        Ok(Err(_)) => crashed(),
    };
    finding.into_check(job.id, job.category, started.elapsed())
}

fn late(deadline: Duration) -> Finding {
    Finding::fail(
        format!("it did not end within {} s", deadline.as_secs_f32()),
        "an answer at once",
        "a disk, a pipe or a program that it looks at does not answer, and a run would wait for it too",
        "free or end what it waits for, then run `pcoder doctor` again",
    )
}

fn crashed() -> Finding {
    Finding::fail(
        "the check itself crashed",
        "an answer",
        "this is a defect of pcoder; what it looks at may be well",
        "report it, with what `pcoder -vv doctor` prints",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Surroundings;

    const SHORT: Duration = Duration::from_millis(200);

    fn pcoder(folder: &std::path::Path) -> Arc<Pcoder> {
        let environment = vec![("PCODER_HOME".into(), folder.into())];
        let surroundings = Surroundings { environment, ..Surroundings::default() };
        Arc::new(Pcoder::new(surroundings, &[], false).expect("a pcoder"))
    }

    #[tokio::test]
    async fn one_check_that_never_ends_and_one_that_blocks_are_failures_and_the_others_answer() {
        let folder = tempfile::tempdir().expect("a folder");
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let jobs = vec![
            Job::new("t", "t.waits", |_| std::future::pending()),
            Job::look("t", "t.blocks", move |_| {
                let _ = blocked.recv();
                Finding::ok("released")
            }),
            Job::look("t", "t.crashes", |_| panic!("on purpose")),
            Job::look("t", "t.answers", |_| Finding::ok("here")),
        ];
        let mut checks = run(&pcoder(folder.path()), jobs, SHORT).await;
        drop(release);
        checks.sort_by(|a, b| a.id.cmp(&b.id));
        let shown: Vec<_> = checks.iter().map(|it| (it.id.as_str(), it.status, it.measured.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("t.answers", Status::Ok, "here"),
                ("t.blocks", Status::Fail, "it did not end within 0.2 s"),
                ("t.crashes", Status::Fail, "the check itself crashed"),
                ("t.waits", Status::Fail, "it did not end within 0.2 s"),
            ]
        );
        assert!(
            checks.iter().filter(|it| it.status != Status::Ok).all(|it| it.meaning.is_some() && it.remedy.is_some())
        );
    }

    #[tokio::test]
    async fn a_group_that_cannot_be_listed_is_one_failure() {
        const GROUPS: [Group; 2] = [
            Group {
                category: "good",
                id: "good.any",
                jobs: |_| vec![Job::look("good", "good.one", |_| Finding::ok(""))],
            },
            Group { category: "bad", id: "bad.any", jobs: |_| panic!("on purpose") },
        ];
        let folder = tempfile::tempdir().expect("a folder");
        let (jobs, failed) = listed(&pcoder(folder.path()), &GROUPS, SHORT).await;
        assert_eq!((jobs.len(), jobs[0].id.as_str()), (1, "good.one"));
        assert_eq!((failed.len(), failed[0].id.as_str(), failed[0].status), (1, "bad.any", Status::Fail));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_order_is_by_group_and_name_and_every_finding_says_what_it_means_and_what_mends_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let report = pcoder(folder.path()).doctor(false).await;
        let places: Vec<_> = report
            .checks
            .iter()
            .map(|check| (GROUPS.iter().position(|it| it.category == check.category), check.id.clone()))
            .collect();
        assert!(places.is_sorted() && places.iter().all(|(place, _)| place.is_some()), "{places:?}");
        for check in report.checks.iter().filter(|check| check.status != Status::Ok) {
            assert!(check.expected.is_some() && check.meaning.is_some() && check.remedy.is_some(), "{check:?}");
        }
    }
}
