//! A folder on this host and its copy: what a caller says, and the order in which things are done.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::Sync as Shared;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cap_std::fs::Dir;

use crate::describe::{self, Description};
use crate::error::{At as _, Error, Result};
use crate::fetch::{self, Staging, Wanted};
use crate::listing::{self, Read, Seen};
use crate::local::{self, Scan};
use crate::pack::{self, Outcome, Packed, Sent};
use crate::path::{RESERVED, TreePath, os_name};
use crate::plan::{self, Direction, Plan, Step};
use crate::remote::{Ran, Remote, RemoteError};
use crate::report::{Conflict, Progress, Pulled, Pushed, Reason, Side, Skipped, Stage};
use crate::rules::{IGNORE_FILE, Rules};
use crate::state::{self, Memory};
use crate::tree::{Entry, Kind, Tree};
use crate::unpack::Unpack;

/// What a sync may have at most, where nobody says otherwise: files, links and folders on one side.
pub const MAX_FILES: u64 = 200_000;
/// How often a push looks again when the instance's files change while they are compared.
const ATTEMPTS: u32 = 3;
/// The exit code with which the script says that.
const CHANGED: i32 = 75;

type Notice = Arc<dyn Fn(Progress) + Send + Shared>;

/// A folder on this host, and its copy on an instance.
///
/// Files, links and empty folders are synced, with their permissions; files also with their time, to the second. What
/// counts as changed is the content, never the time, so the two clocks need not agree.
///
/// Nothing is lost: each side is only written where it has not changed since the last sync. One sync at a time can
/// write to an instance's folder.
#[derive(Clone)]
pub struct Sync {
    local: PathBuf,
    remote: String,
    state: PathBuf,
    label: String,
    patterns: Vec<String>,
    defaults: bool,
    max_files: u64,
    notice: Notice,
}

impl std::fmt::Debug for Sync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sync").field("local", &self.local).field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// What a sync starts from.
struct Start {
    root: Arc<Dir>,
    scan: Scan,
    loaded: Option<Memory>,
    /// Held for as long as something is written, also when nobody waits for it any more.
    lock: Arc<pcoder_state::Lock>,
    /// What the instance was asked meanwhile.
    asked: Option<Asked>,
}

/// A script that ran on the instance, and what came of it.
struct Asked {
    script: String,
    ran: std::result::Result<Ran, RemoteError>,
}

impl Sync {
    /// A folder that exists, the absolute path of its copy on the instance, and the file that remembers what both had.
    /// That file belongs to this pair alone, and is not in the folder. It may be lost: see [`Pushed::without_base`].
    pub fn new(local: impl Into<PathBuf>, remote: impl Into<String>, state: impl Into<PathBuf>) -> Self {
        Self {
            local: local.into(),
            remote: remote.into(),
            state: state.into(),
            label: "instance".to_owned(),
            patterns: Vec::new(),
            defaults: true,
            max_files: MAX_FILES,
            notice: Arc::new(|_| {}),
        }
    }

    /// What stands in the names of files that a conflict keeps aside: `NAME.from-LABEL`. By default `instance`. What
    /// should not be in a file's name is replaced.
    #[must_use]
    pub fn label(mut self, label: &str) -> Self {
        let proper = |it: char| if it.is_ascii_alphanumeric() || "._-".contains(it) { it } else { '-' };
        self.label = label.chars().take(64).map(proper).collect();
        self
    }

    /// Patterns of what is ignored, as in `.gitignore`, beside [`crate::DEFAULTS`]. Those in a file `.pcoderignore`
    /// count for more.
    #[must_use]
    pub fn ignore(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.patterns.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Whether [`crate::DEFAULTS`] are ignored. By default they are.
    #[must_use]
    pub fn ignore_defaults(mut self, yes: bool) -> Self {
        self.defaults = yes;
        self
    }

    /// How many files, links and folders one side may have; by default [`MAX_FILES`]. What is ignored does not count,
    /// except for the topmost name.
    #[must_use]
    pub fn max_files(mut self, limit: u64) -> Self {
        self.max_files = limit;
        self
    }

    /// Calls this while files are packed and unpacked, from another thread.
    #[must_use]
    pub fn on_progress(mut self, notice: impl Fn(Progress) + Send + Shared + 'static) -> Self {
        self.notice = Arc::new(notice);
        self
    }

    /// Makes the instance what this host is, where the instance has not changed since the last sync. The instance's
    /// folder is made when it is missing.
    ///
    /// One run of a script when there is nothing to do, else one more; should files change on the instance in between,
    /// a few more, and one more where other files are ignored than the last time. The archive of what is sent is made
    /// in memory.
    ///
    /// # Errors
    /// Any [`Error`]. What was done until then is whole, and the next push goes on from there.
    pub async fn push(&self, remote: &dyn Remote) -> Result<Pushed> {
        let Start { root, mut scan, loaded, lock, mut asked } = self.start(remote).await?;
        let mut pushed = Pushed::default();
        for attempt in 0..=ATTEMPTS {
            let description = Arc::new(self.describe(remote, &mut scan, asked.take()).await?);
            pushed.without_base |= self.distrust(&mut scan, loaded.is_none(), &description);
            let plan = plan::plan(&scan.memory.base, &scan.tree, &description.tree, Direction::Push);
            // A push that was interrupted at its very end left nothing to do but that.
            let left_over = TreePath::new(RESERVED).is_some_and(|it| description.tree.ignored.contains(&it));
            if plan.steps.is_empty() && description.present && !left_over {
                self.settle(&mut scan, &plan);
                pushed.skipped = skipped(&scan.tree, &description.tree);
                pushed.conflicts = conflicts(&plan);
                break;
            }
            if attempt == ATTEMPTS {
                return Err(Error::Changing);
            }
            let plan = Arc::new(plan);
            let lister = self.lister(remote, &scan, &description);
            let packed = self.pack(&root, &plan, &description, lister).await?;
            pushed.sent = pushed.sent.saturating_add(packed.bytes.len() as u64);
            let ran = remote.run(&packed.script, packed.bytes).await.map_err(Error::Unreachable)?;
            if ran.code == CHANGED {
                tracing::debug!(attempt, "the instance's files changed; looking again");
                // At everything: what was seen was not so.
                scan.memory.instance = None;
                continue;
            }
            let ran = succeeded(ran, "write files")?;
            pushed.skipped = skipped(&scan.tree, &description.tree);
            pushed.conflicts = conflicts(&plan);
            self.settle(&mut scan, &plan);
            let outcome = Outcome::parse(&ran.stdout)?;
            let sent = Packed { bytes: Vec::new(), script: String::new(), ..packed };
            // What it was known by before is good for what it is not known by now.
            if let Some(seen) = seen_after(&sent, &outcome, scan.memory.instance.as_ref(), self.max_files) {
                scan.memory.instance = Some(seen);
            }
            record_push(sent, &outcome, &ran, &mut scan.memory, &mut pushed);
            break;
        }
        self.save(scan, loaded.as_ref()).await?;
        drop(lock);
        Ok(pushed)
    }

    /// Makes this host what the instance is, where this host has not changed since the last sync. What both changed
    /// stays as it is here, and the instance's version is put beside it.
    ///
    /// One run of a script when there is nothing to do, else one more for as much as the instance can send at once, and
    /// one more where other files are ignored than the last time.
    ///
    /// # Errors
    /// Any [`Error`]. What was done until then is whole, and the next pull goes on from there.
    pub async fn pull(&self, remote: &dyn Remote) -> Result<Pulled> {
        let Start { root, mut scan, loaded, lock, asked } = self.start(remote).await?;
        let description = self.describe(remote, &mut scan, asked).await?;
        let mut pulled =
            Pulled { without_base: self.distrust(&mut scan, loaded.is_none(), &description), ..Pulled::default() };
        let plan = plan::plan(&scan.memory.base, &scan.tree, &description.tree, Direction::Pull);
        pulled.skipped = skipped(&scan.tree, &description.tree);
        self.settle(&mut scan, &plan);
        if plan.steps.is_empty() && plan.conflicts.is_empty() {
            pulled.conflicts = conflicts(&plan);
            self.save(scan, loaded.as_ref()).await?;
            return Ok(pulled);
        }
        let wanted = Arc::new(wanted(&plan, &scan.tree, &description.tree));
        let staging = self.staging(&root).await?;
        let fetched = self.fetch(remote, &staging, &wanted, &mut pulled).await;
        let missing = match fetched {
            Ok(missing) => missing,
            Err(error) => {
                self.remove_staging(&root).await?;
                return Err(error);
            }
        };
        let (label, root_, staging_) = (self.label.clone(), Arc::clone(&root), Arc::clone(&staging));
        let held = Arc::clone(&lock);
        let (scan, pulled) = blocking(move || {
            let (mut scan, mut pulled) = (scan, pulled);
            let fetched = wanted.iter().enumerate().map(|(index, it)| (it.path.clone(), index)).collect();
            let mut unpack = Unpack {
                root: &root_,
                staging: &staging_,
                plan: &plan,
                host: &scan.tree,
                instance: &description.tree,
                memory: &mut scan.memory,
                fetched: &fetched,
                missing: &missing,
                label: &label,
                report: &mut pulled,
                aside: BTreeMap::new(),
                cleared: BTreeSet::new(),
            };
            unpack.all();
            flush(&root_);
            drop(held);
            Ok((scan, pulled))
        })
        .await?;
        drop(staging);
        self.remove_staging(&root).await?;
        self.save(scan, loaded.as_ref()).await?;
        drop(lock);
        Ok(pulled)
    }

    /// Looks at both sides at once, where both were looked at before: each may take its time. What is ignored is known
    /// for sure when the host's folder was walked. The instance is asked with what the lists say that there were last
    /// time.
    async fn start(&self, remote: &dyn Remote) -> Result<Start> {
        let it = self.clone();
        let (lock, loaded, root, script) = blocking(move || {
            let lock = Arc::new(state::lock(&it.state)?);
            let loaded = Memory::load(&it.state)?;
            let root = Arc::new(local::open_root(&it.local)?);
            let script = loaded.as_ref().and_then(|memory| it.question(&root, memory));
            Ok((lock, loaded, root, script))
        })
        .await?;
        let asked = async {
            let script = script?;
            let ran = remote.run(&script, Vec::new()).await;
            Some(Asked { script, ran })
        };
        let (it, memory, held) = (self.clone(), loaded.clone().unwrap_or_default(), Arc::clone(&lock));
        let folder = Arc::clone(&root);
        let scanned = blocking(move || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let now = i64::try_from(now).unwrap_or(i64::MAX);
            let rules = Rules::new(it.defaults, &it.patterns)?;
            let scan = local::scan(&folder, &it.local, rules, memory, it.max_files, now);
            drop(held);
            scan
        });
        // To the end of both: what runs there is not left alone because of what is wrong here.
        let (asked, scan) = tokio::join!(asked, scanned);
        Ok(Start { root, scan: scan?, loaded, lock, asked })
    }

    /// What the instance is most likely asked. What is wrong with a list is said by whoever walks the folder.
    fn question(&self, root: &Dir, memory: &Memory) -> Option<String> {
        let seen = memory.instance.as_ref()?;
        let mut rules = Rules::new(self.defaults, &self.patterns).ok()?;
        // Those that are files, or links, and the one that ignores itself.
        let seen_here = memory.files.keys().chain(memory.base.keys());
        let lists = seen_here.filter(|it| it.name() == IGNORE_FILE.as_bytes()).map(TreePath::parent);
        for folder in lists.chain([None]).collect::<BTreeSet<_>>() {
            local::patterns(root, &self.local, folder.as_ref(), &mut rules).ok()?;
        }
        Some(describe::script(&self.remote, &rules, self.max_files, Some(seen)))
    }

    /// What the instance has; `asked` is what it said to the same question already. It is remembered, so that next time
    /// only files are read that may have changed.
    async fn describe(&self, remote: &dyn Remote, scan: &mut Scan, mut asked: Option<Asked>) -> Result<Description> {
        let limit = remote.output_limit();
        let mut before = scan.memory.instance.take();
        loop {
            let script = describe::script(&self.remote, &scan.rules, self.max_files, before.as_ref());
            let ran = match asked.take().filter(|it| it.script == script) {
                Some(asked) => asked.ran,
                None => remote.run(&script, Vec::new()).await,
            };
            let ran = ran.map_err(Error::Unreachable)?;
            if ran.stdout.len() as u64 >= limit {
                return Err(Error::OutputLimit { limit });
            }
            let ran = succeeded(ran, "list the folder")?;
            match describe::parse(&ran.stdout, &scan.rules, self.max_files, before.as_ref())? {
                Some(mut description) => {
                    scan.memory.instance = description.seen.take();
                    if cfg!(windows) {
                        leave_out_for_windows(&mut description.tree);
                    }
                    return Ok(description);
                }
                None if before.take().is_some() => {
                    tracing::debug!("files changed that look older than what was seen; all are read");
                }
                None => return Err(Error::garbled("its description does not say what is in its files")),
            }
        }
    }

    /// What makes the script of a push list the folder when all is done; nothing where that might be more than it can
    /// say.
    fn lister(&self, remote: &dyn Remote, scan: &Scan, description: &Description) -> Option<String> {
        let most = listing::at_most(&scan.tree).saturating_add(listing::at_most(&description.tree));
        (most < remote.output_limit() / 2).then(|| describe::lister(&scan.rules.for_the_instance().0))
    }

    /// Forgets the base where it cannot be of these two folders: an instance that was made anew has nothing, and that
    /// does not mean that everything was deleted. Says whether there is none.
    fn distrust(&self, scan: &mut Scan, none: bool, description: &Description) -> bool {
        let instance = &description.tree;
        let empty = |it: &Tree| it.entries.is_empty() && it.unknown.is_empty();
        if !scan.memory.base.is_empty() && (!description.present || empty(instance) || empty(&scan.tree)) {
            tracing::info!(folder = %self.local.display(), "one side is empty: the record of the last sync is not used");
            scan.memory.base.clear();
            return true;
        }
        none
    }

    fn settle(&self, scan: &mut Scan, plan: &Plan) {
        for (path, entry) in &plan.agreed {
            match entry {
                Some(entry) => scan.memory.base.insert(path.clone(), entry.clone()),
                None => scan.memory.base.remove(path),
            };
        }
    }

    async fn pack(
        &self,
        root: &Arc<Dir>,
        plan: &Arc<Plan>,
        description: &Arc<Description>,
        lister: Option<String>,
    ) -> Result<Packed> {
        let (root, plan, description) = (Arc::clone(root), Arc::clone(plan), Arc::clone(description));
        let (notice, to) = (Arc::clone(&self.notice), self.remote.clone());
        blocking(move || {
            let size = |step: &Step| if let Step::Write(entry) = step { entry.size() } else { 0 };
            let total = plan.steps.values().map(size).sum();
            let tick = move |done| notice(Progress { stage: Stage::Packing, done, total });
            pack::pack(&root, &plan, &description, &to, lister.as_deref(), &tick)
        })
        .await
    }

    async fn fetch(
        &self,
        remote: &dyn Remote,
        staging: &Arc<Dir>,
        wanted: &Arc<Vec<Wanted>>,
        pulled: &mut Pulled,
    ) -> Result<Vec<Option<Reason>>> {
        let mut missing: Vec<Option<Reason>> = vec![Some(Reason::Changed); wanted.len()];
        let mut before = 0;
        for run in fetch::runs(wanted, remote.output_limit()) {
            let (script, input) = run.script(&self.remote, wanted);
            let ran = succeeded(remote.run(&script, input).await.map_err(Error::Unreachable)?, "read files")?;
            pulled.received = pulled.received.saturating_add(ran.stdout.len() as u64);
            let (dir, files, shown) = (Arc::clone(staging), Arc::clone(wanted), self.local.clone());
            let notice = Arc::clone(&self.notice);
            (missing, before) = blocking(move || {
                let total = files.iter().map(|it| it.size).sum();
                let tick = move |done| notice(Progress { stage: Stage::Unpacking, done, total });
                let mut staging = Staging::new(&dir, &shown, &files, &tick);
                (staging.missing, staging.done) = (missing, before);
                staging.take(&run, &ran.stdout)?;
                Ok((staging.missing, staging.done))
            })
            .await?;
        }
        Ok(missing)
    }

    /// Makes the staging folder anew.
    async fn staging(&self, root: &Arc<Dir>) -> Result<Arc<Dir>> {
        self.remove_staging(root).await?;
        let (root, shown) = (Arc::clone(root), self.local.join(os_name(RESERVED)));
        blocking(move || {
            root.create_dir(os_name(RESERVED)).at("make", &shown)?;
            let folder = cap_fs_ext::DirExt::open_dir_nofollow(&*root, os_name(RESERVED)).at("open", &shown)?;
            Ok(Arc::new(folder))
        })
        .await
    }

    async fn remove_staging(&self, root: &Arc<Dir>) -> Result<()> {
        let (root, shown) = (Arc::clone(root), self.local.join(os_name(RESERVED)));
        blocking(move || {
            let name = os_name(RESERVED);
            let removed = match root.symlink_metadata(&name) {
                Ok(metadata) if metadata.is_dir() => root.remove_dir_all(&name),
                Ok(_) => root.remove_file(&name),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            removed.at("remove", &shown)
        })
        .await
    }

    async fn save(&self, scan: Scan, loaded: Option<&Memory>) -> Result<()> {
        let same = loaded.is_some_and(|it| {
            // With the same files a later time of the scan says nothing new, unless a file was read for want of it.
            it.base == scan.memory.base
                && it.files == scan.memory.files
                && it.instance == scan.memory.instance
                && !scan.read_again
        });
        if same {
            return Ok(());
        }
        let state = self.state.clone();
        blocking(move || scan.memory.save(&state)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Broken { message: error.to_string() })?
}

fn succeeded(ran: Ran, doing: &'static str) -> Result<Ran> {
    if ran.code == 0 { Ok(ran) } else { Err(Error::Failed { doing, code: ran.code, message: last_line(&ran.stderr) }) }
}

/// What programs say last of a failure that they, or others, have told of before.
const AFTERWARDS: [&str; 3] =
    ["Exiting with failure status due to previous errors", "Error is not recoverable: exiting now", "Broken pipe"];

/// The last line with a reason that a script wrote, without what a terminal would obey.
fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = || text.lines().rev().map(str::trim).filter(|it| !it.is_empty());
    let is_reason = |line: &&str| !AFTERWARDS.iter().any(|it| line.ends_with(it));
    let line = lines().find(is_reason).or_else(|| lines().next()).unwrap_or("it gave no reason");
    line.chars().map(|it| if it.is_control() { ' ' } else { it }).take(300).collect()
}

fn skipped(host: &Tree, instance: &Tree) -> Vec<Skipped> {
    let list = |tree: &Tree, side| {
        let one =
            |(path, reason): (&TreePath, &Reason)| Skipped { path: path.to_path_buf(), side, reason: reason.clone() };
        tree.unknown.iter().map(one).collect::<Vec<_>>()
    };
    [list(host, Side::Host), list(instance, Side::Instance)].concat()
}

fn conflicts(plan: &Plan) -> Vec<Conflict> {
    let one = |path: &TreePath| Conflict { path: path.to_path_buf(), kept_as: None };
    plan.conflicts.keys().chain(&plan.kept).map(one).collect()
}

/// The files whose content is needed.
fn wanted(plan: &Plan, host: &Tree, instance: &Tree) -> Vec<Wanted> {
    let written = plan.steps.iter().filter(|(_, step)| matches!(step, Step::Write(_))).map(|(path, _)| path);
    let mut wanted = Vec::new();
    for path in written.chain(plan.conflicts.keys()) {
        if let Some(Entry { kind: kind @ Kind::File { size, sum }, .. }) = instance.entries.get(path)
            && host.entries.get(path).is_none_or(|it| it.kind != *kind)
        {
            wanted.push(Wanted { path: path.clone(), size: *size, sum: *sum });
        }
    }
    wanted
}

/// What is known of the instance's files after a push. A file that came has the time that it came with for as long as
/// nobody writes to it.
fn seen_after(packed: &Packed, outcome: &Outcome, before: Option<&Seen>, limit: u64) -> Option<Seen> {
    let (at, listing) = outcome.listed.as_ref()?;
    let written = |(path, Sent { entry, moved }): (&TreePath, &Sent)| match entry.kind {
        Kind::File { size, sum } if *moved && !outcome.not_moved.contains(path) => {
            Some((path.clone(), Read { size, sum, written: Some(entry.mtime) }))
        }
        _ => None,
    };
    let read = packed.sent.iter().filter_map(written).collect();
    let seen = Seen::new(listing.clone(), *at, &read, before, limit);
    seen.inspect_err(|error| tracing::debug!(%error, "what is there after a push is not known")).ok()
}

fn record_push(packed: Packed, outcome: &Outcome, ran: &Ran, memory: &mut Memory, pushed: &mut Pushed) {
    let why = || Reason::Refused(last_line(&ran.stderr));
    let mut skip = |path: &TreePath, side, reason| {
        pushed.skipped.push(Skipped { path: path.to_path_buf(), side, reason });
    };
    for (path, reason) in packed.skipped {
        skip(&path, Side::Host, reason);
    }
    for (path, Sent { entry, moved }) in packed.sent {
        if (moved && outcome.not_moved.contains(&path)) || outcome.no_mode.contains(&path) {
            skip(&path, Side::Instance, why());
            continue;
        }
        if !entry.is_folder() {
            pushed.files += 1;
            pushed.bytes = pushed.bytes.saturating_add(entry.size());
        }
        memory.base.insert(path, entry);
    }
    for path in packed.deleted {
        if outcome.not_deleted.contains(&path) {
            // A folder may have got something that nobody described; then it stays.
            if !memory.base.get(&path).is_some_and(Entry::is_folder) {
                skip(&path, Side::Instance, why());
            }
            continue;
        }
        pushed.deleted += 1;
        memory.base.remove(&path);
    }
}

/// What Windows cannot have stays on the instance.
fn leave_out_for_windows(tree: &mut Tree) {
    let mut refused: Vec<(TreePath, Reason)> = Vec::new();
    for (path, entry) in &tree.entries {
        if let Some(why) = crate::path::refused_by_windows(path.name()) {
            refused.push((path.clone(), Reason::Name(why)));
        } else if matches!(entry.kind, Kind::Link { .. }) {
            refused.push((path.clone(), Reason::Link));
        }
    }
    for (path, reason) in refused {
        tree.forget(&path, reason);
    }
}

/// Has the disk have what was written before it is remembered as synced: after a power failure the next push would else
/// send files that are empty.
#[cfg(target_os = "linux")]
fn flush(root: &Dir) {
    if let Err(error) = rustix::fs::syncfs(root) {
        tracing::debug!(%error, "the file system cannot be flushed");
    }
}

#[cfg(not(target_os = "linux"))]
fn flush(_: &Dir) {}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
