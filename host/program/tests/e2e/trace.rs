//! What `strace` wrote down, read: which files a program and all that it started wrote to, made, renamed or removed.
//!
//! One file a process (`-ff`), so that a line is a whole call. Descriptors come with their paths (`-y`), so that a path
//! below one can be told. Calls that are relative to the working folder need that as well: it is followed from process
//! to process.
//!
//! A file that was opened is told by the kernel's own name for it, behind every link. Whatever else is done by name is
//! told by that name, behind `/proc/PID/fd/N` if it begins so. A sandbox gives its processes mounts of their own; those
//! are followed too, so that a name there becomes the one outside, or is known to be memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::mounts::Mounts;

/// What is traced. `?` is for those that a processor's Linux does not have.
pub(crate) const CALLS: &str = "trace=\
    ?open,openat,?openat2,?creat,?mkdir,mkdirat,?mknod,mknodat,?rmdir,?unlink,unlinkat,?rename,\
    ?renameat,renameat2,?link,linkat,?symlink,symlinkat,truncate,?chmod,fchmodat,?fchmodat2,fchmod,\
    ?chown,?lchown,fchownat,fchown,?utime,?utimes,?futimesat,utimensat,setxattr,lsetxattr,fsetxattr,\
    removexattr,lremovexattr,fremovexattr,bind,chdir,fchdir,?fork,?vfork,clone,?clone3,unshare,setns,\
    ?io_uring_setup,mount,?umount2,?move_mount,?fsmount,?open_tree,chroot,pivot_root";

/// Reads and writes that go around system calls would not be seen. Programs are told that there is no such thing, and
/// do without.
pub(crate) const NO_RING: &str = "inject=io_uring_setup:error=ENOSYS";

/// Something that was written to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Written {
    pub(crate) path: PathBuf,
    pub(crate) call: String,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.path.display(), self.call)
    }
}

/// Everything that was written to by the processes whose traces are in `folder`, of which the first one started in
/// `cwd`.
pub(crate) fn read(folder: &Path, cwd: &Path) -> BTreeSet<Written> {
    let texts: Vec<(u32, String)> = std::fs::read_dir(folder)
        .expect("the traces")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let pid = path.extension().and_then(|it| it.to_str()?.parse().ok()).expect("a process");
            (pid, String::from_utf8_lossy(&std::fs::read(&path).expect("a trace")).into_owned())
        })
        .collect();
    let mut lines: Vec<(&str, u32, &str)> = Vec::new();
    for (pid, text) in &texts {
        for line in text.lines() {
            // Seconds since 1970 with six decimals: texts of one length, in the order of time.
            let (time, line) = line.split_once(' ').expect("a time");
            lines.push((time, *pid, line));
        }
    }
    lines.sort_by_key(|(time, _, _)| *time);
    let first = lines.first().expect("something happened").1;
    let begin = Process { leader: first, cwd: cwd.to_path_buf(), mounts: Mounts::default() };
    let mut processes = BTreeMap::from([(first, begin)]);
    let mut open = Open::new();
    let mut written = BTreeSet::new();
    for (_, pid, line) in lines {
        let Some(call) = Call::parse(line) else {
            // The last kind is a call that `strace` could not read: its process was killed before it was made.
            let is_none = ["---", "+++", "???("].iter().any(|it| line.starts_with(it));
            assert!(is_none, "not understood: {line}");
            continue;
        };
        let process = processes.get_mut(&pid).unwrap_or_else(|| panic!("nobody started {pid}: {line}"));
        for name in call.written(&process.cwd) {
            let name = behind(&open, process.leader, name);
            written.extend(process.mounts.outside(&name).map(|path| Written { path, call: line.to_owned() }));
        }
        process.follow(&call);
        let leader = process.leader;
        if let Some((number, path)) = call.opened() {
            open.entry(leader).or_default().insert(number, path);
        }
        if let Some(child) = started(line) {
            let thread = line.contains("CLONE_THREAD");
            let child_process = Process { leader: if thread { leader } else { child }, ..process.clone() };
            if !thread {
                let same = open.get(&leader).cloned().unwrap_or_default();
                open.insert(child, same);
            }
            processes.insert(child, child_process);
        }
    }
    written
}

/// What each process has open, by its number.
type Open = BTreeMap<u32, BTreeMap<u32, PathBuf>>;

/// What is behind a name that begins with a folder that a process has open, as `/proc/self/fd/3/name`.
fn behind(open: &Open, leader: u32, name: PathBuf) -> PathBuf {
    let parts: Vec<_> = name.iter().filter_map(|it| it.to_str()).collect();
    let ["/", "proc", pid, "fd", number, _, ..] = parts.as_slice() else { return name };
    let pid = if *pid == "self" { Some(leader) } else { pid.parse().ok() };
    let folder = pid.zip(number.parse().ok()).and_then(|(pid, number)| open.get(&pid)?.get(&number));
    let rest: PathBuf = name.iter().skip(5).collect();
    folder.map_or_else(|| Path::new("an unknown folder").join(&rest), |folder| folder.join(&rest))
}

/// What names mean to a process or one of its threads.
#[derive(Clone)]
struct Process {
    /// The first of its threads.
    leader: u32,
    cwd: PathBuf,
    mounts: Mounts,
}

impl Process {
    fn follow(&mut self, call: &Call<'_>) {
        if !call.succeeded() {
            return;
        }
        let at = |index| resolve(&self.cwd, &call.text(index).expect("a path"));
        match call.name {
            "chdir" => self.cwd = at(0),
            "fchdir" => self.cwd = call.descriptor(0).expect("a folder"),
            "mount" => self.mount(call),
            "umount2" => self.mounts.remove(&at(0)),
            "pivot_root" => self.mounts.pivot(&at(0), &at(1)),
            "chroot" => self.mounts.pivot(&at(0), &at(0)),
            _ => {}
        }
    }

    fn mount(&mut self, call: &Call<'_>) {
        const CHANGE_NOTHING: [&str; 5] = ["MS_REMOUNT", "MS_SLAVE", "MS_PRIVATE", "MS_SHARED", "MS_UNBINDABLE"];
        let at = |index| resolve(&self.cwd, &call.text(index).expect("a path"));
        let flags = call.argument(3);
        if CHANGE_NOTHING.iter().any(|flag| flags.contains(flag)) {
            return;
        }
        if flags.contains("MS_BIND") {
            self.mounts.bind(&at(0), at(1));
            return;
        }
        let kind = call.text(2).expect("a kind");
        let known = ["tmpfs", "proc", "devpts", "mqueue", "sysfs"].iter().any(|it| kind == Path::new(it));
        assert!(known, "a file system of another kind: {}", call.arguments.join(", "));
        self.mounts.memory(at(1));
    }
}

/// The process that a line says was started.
fn started(line: &str) -> Option<u32> {
    let call = Call::parse(line)?;
    if !matches!(call.name, "clone" | "clone3" | "fork" | "vfork") {
        return None;
    }
    // In a namespace of processes it has another number inside: `2 /* 77 in strace's PID NS */`.
    let outside = call.result.split_once("/* ").and_then(|(_, rest)| rest.split_once(" in strace's PID NS"));
    outside.map_or_else(|| call.result.split(' ').next(), |(number, _)| Some(number))?.parse().ok()
}

/// One line of a trace.
struct Call<'a> {
    name: &'a str,
    arguments: Vec<&'a str>,
    result: &'a str,
}

impl<'a> Call<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (name, rest) = line.split_once('(')?;
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        let (arguments, end) = split(rest);
        // One whose process ended meanwhile has no result. Whatever it was to do may have been done.
        let result = rest.get(end..).unwrap_or_default().trim_start_matches([')', ' ']).trim_start_matches("= ");
        Some(Self { name, arguments, result })
    }

    fn succeeded(&self) -> bool {
        !self.result.starts_with("-1 ")
    }

    /// Whether something was changed, or would have been by somebody with more rights. A folder that is there already
    /// and a file that is not there to be removed change nothing for anybody.
    fn meant_it(&self) -> bool {
        self.succeeded()
            || ["EACCES", "EPERM", "EROFS"].iter().any(|error| self.result.starts_with(&format!("-1 {error} ")))
    }

    fn argument(&self, index: usize) -> &'a str {
        self.arguments.get(index).copied().unwrap_or_default()
    }

    /// A quoted text.
    fn text(&self, index: usize) -> Option<PathBuf> {
        let inside = self.argument(index).strip_prefix('"')?.strip_suffix('"')?;
        Some(unescape(inside))
    }

    /// The path of a descriptor, as in `3</a/path>`.
    fn descriptor(&self, index: usize) -> Option<PathBuf> {
        path_of(self.argument(index))
    }

    /// What was opened, with the number that it got.
    fn opened(&self) -> Option<(u32, PathBuf)> {
        let opens = matches!(self.name, "open" | "openat" | "openat2");
        let number = self.result.split('<').next()?.parse().ok().filter(|_| opens)?;
        Some((number, path_of(self.result)?))
    }

    /// A path that is below a descriptor; without a path, the descriptor's own.
    fn below(&self, cwd: &Path, folder: usize, path: usize) -> PathBuf {
        let base = self.descriptor(folder).unwrap_or_else(|| cwd.to_path_buf());
        match self.text(path) {
            Some(path) => resolve(&base, &path),
            None => base,
        }
    }

    /// Everything that this call wrote to.
    fn written(&self, cwd: &Path) -> Vec<PathBuf> {
        if !self.meant_it() {
            return Vec::new();
        }
        let at = |index| {
            resolve(cwd, &self.text(index).unwrap_or_else(|| panic!("no path in {}", self.arguments.join(", "))))
        };
        let opened = |by_name: PathBuf| vec![path_of(self.result).unwrap_or(by_name)];
        match self.name {
            "open" if writes(self.argument(1)) => opened(at(0)),
            "openat" if writes(self.argument(2)) => opened(self.below(cwd, 0, 1)),
            "openat2" if writes(self.argument(2)) => opened(self.below(cwd, 0, 1)),
            "creat" => opened(at(0)),
            "mkdir" | "mknod" | "rmdir" | "unlink" | "truncate" | "chmod" | "chown" | "lchown" | "utime" | "utimes"
            | "setxattr" | "lsetxattr" | "removexattr" | "lremovexattr" => vec![at(0)],
            "mkdirat" | "mknodat" | "unlinkat" | "fchmodat" | "fchmodat2" | "fchownat" | "futimesat" | "utimensat" => {
                vec![self.below(cwd, 0, 1)]
            }
            "fchmod" | "fchown" | "fsetxattr" | "fremovexattr" => {
                vec![self.descriptor(0).unwrap_or_else(|| PathBuf::from("an unknown descriptor"))]
            }
            "rename" => vec![at(0), at(1)],
            "renameat" | "renameat2" => vec![self.below(cwd, 0, 1), self.below(cwd, 2, 3)],
            "link" | "symlink" => vec![at(1)],
            "linkat" => vec![self.below(cwd, 2, 3)],
            "symlinkat" => vec![self.below(cwd, 1, 2)],
            "bind" => socket(self.argument(1)).map(|path| resolve(cwd, &path)).into_iter().collect(),
            // What is done behind these is not seen by name.
            "io_uring_setup" | "move_mount" | "fsmount" | "open_tree" | "setns" if self.succeeded() => {
                vec![PathBuf::from(format!("unknown files behind {}", self.name))]
            }
            _ => Vec::new(),
        }
    }
}

fn writes(flags: &str) -> bool {
    ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"].iter().any(|flag| flags.contains(flag))
}

/// The path of a socket that is a file. One whose name begins with `@` is none.
fn socket(address: &str) -> Option<PathBuf> {
    let name = address.split_once("sun_path=\"")?.1;
    Some(unescape(name.get(..quoted_end(name))?))
}

/// The path in `3</a/path>`, when it is one and not a pipe or a socket.
fn path_of(descriptor: &str) -> Option<PathBuf> {
    let (_, inside) = descriptor.split_once('<')?;
    let inside = inside.rsplit_once('>')?.0;
    inside.starts_with('/').then(|| unescape(inside))
}

/// Without `.` and `..`, by name.
fn resolve(base: &Path, path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for component in base.join(path).components() {
        match component {
            Component::ParentDir => drop(whole.pop()),
            Component::CurDir => {}
            other => whole.push(other),
        }
    }
    whole
}

/// The arguments up to the closing bracket, and where that is.
fn split(rest: &str) -> (Vec<&str>, usize) {
    let bytes = rest.as_bytes();
    let (mut arguments, mut depth, mut begin, mut at) = (Vec::new(), 0_u32, 0, 0);
    let mut path = false;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            _ if path => path = byte != b'>',
            b'"' => at += 1 + quoted_end(rest.get(at + 1..).unwrap_or_default()),
            // A descriptor's path; elsewhere it is a comparison or a shift, which no argument here has.
            b'<' if !rest.get(at..).unwrap_or_default().starts_with("<unfinished")
                && !rest.get(at..).unwrap_or_default().starts_with("<<") =>
            {
                path = true
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' if depth == 0 => break,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                arguments.push(rest.get(begin..at).unwrap_or_default().trim());
                begin = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    arguments.push(rest.get(begin..at.min(rest.len())).unwrap_or_default().trim());
    (arguments, at)
}

/// Where a quoted text ends.
fn quoted_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at,
            _ => {}
        }
    }
    text.len()
}

/// C's escapes, as `\303\251`.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::new();
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(digit @ b'0'..=b'7') => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    if let Some(next @ b'0'..=b'7') = rest.peek().copied() {
                        value = value * 8 + u32::from(next - b'0');
                        rest.next();
                    }
                }
                bytes.push(u8::try_from(value).expect("a byte"));
            }
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b'v') => bytes.push(0x0b),
            Some(b'f') => bytes.push(0x0c),
            Some(other) => bytes.push(other),
            None => {}
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

fn write(folder: &Path, pid: u32, lines: &[(u32, &str)]) {
    let text: String = lines.iter().map(|(time, line)| format!("{time:010}.000000 {line}\n")).collect();
    std::fs::write(folder.join(format!("t.{pid}")), text).expect("a trace");
}

fn paths(folder: &Path, cwd: &str) -> Vec<String> {
    read(folder, Path::new(cwd)).iter().map(|it| it.path.display().to_string()).collect()
}

fn of_line(line: &str) -> Vec<PathBuf> {
    Call::parse(line).expect("a call").written(Path::new("/cwd"))
}

#[test]
fn what_a_line_says_was_written_is_told() {
    for (line, expected) in [
        (
            r#"openat(AT_FDCWD</a>, "b\303\251/c", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3</real/b\303\251/c>"#,
            "/real/bé/c",
        ),
        (r#"openat(5</a b>, "c", O_RDWR) = -1 EACCES (Permission denied)"#, "/a b/c"),
        (r#"open("c, d)", O_RDWR|O_CREAT, 0600) = 4</cwd/c, d)>"#, "/cwd/c, d)"),
        (r#"openat2(AT_FDCWD</a>, "x", {flags=O_RDWR, resolve=0}, 24) = 9</a/x>"#, "/a/x"),
        (r#"mkdir("x/../y\"z", 0777) = 0"#, "/cwd/y\"z"),
        (r#"unlinkat(3</a>, "b", AT_REMOVEDIR) = 0"#, "/a/b"),
        (r#"symlinkat("/target", 3</a>, "b") = 0"#, "/a/b"),
        (r#"linkat(AT_FDCWD</a>, "/proc/self/fd/3", AT_FDCWD</a>, "b", AT_SYMLINK_FOLLOW) = 0"#, "/a/b"),
        (r#"utimensat(3</a/b>, NULL, [UTIME_NOW, UTIME_NOW], 0) = 0"#, "/a/b"),
        (r#"fchmod(3</a/b>, 0644) = 0"#, "/a/b"),
        (r#"bind(3<socket:[1]>, {sa_family=AF_UNIX, sun_path="/tmp/s"}, 110) = 0"#, "/tmp/s"),
        (r#"io_uring_setup(8, {flags=0}) = 5"#, "unknown files behind io_uring_setup"),
        (r#"mkdir("/x", 0777 <unfinished ...>) = ?"#, "/x"),
    ] {
        assert_eq!(of_line(line), [Path::new(expected)], "{line}");
    }
    assert_eq!(of_line(r#"rename("a", "/b") = 0"#), [Path::new("/cwd/a"), Path::new("/b")]);
}

#[test]
fn what_changes_nothing_is_not_told() {
    for line in [
        r#"openat(AT_FDCWD</a>, "b", O_RDONLY|O_CLOEXEC) = 3</a/b>"#,
        r#"openat(AT_FDCWD</a>, "b", O_RDWR) = -1 ENOENT (No such file or directory)"#,
        r#"mkdir("/tmp", 0777) = -1 EEXIST (File exists)"#,
        r#"unlink("/x") = -1 ENOENT (No such file or directory)"#,
        r#"bind(3<socket:[1]>, {sa_family=AF_UNIX, sun_path=@"abstract"}, 12) = 0"#,
        r#"bind(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("127.0.0.1")}, 16) = 0"#,
        r#"io_uring_setup(8, {flags=0}) = -1 ENOSYS (Function not implemented)"#,
        r#"clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD, child_tidptr=0x7f) = 77"#,
    ] {
        assert_eq!(of_line(line), Vec::<PathBuf>::new(), "{line}");
    }
    assert_eq!(started("fork() = 2 /* 394 in strace's PID NS */"), Some(394));
    assert_eq!(started("clone3({flags=CLONE_VM, stack=0x7f} => {parent_tid=[5]}, 88) = 5"), Some(5));
}

/// The working folder goes from process to process.
#[test]
fn a_relative_path_is_told_by_the_working_folder_of_its_process() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), 10, &[(1, "chdir(\"one\") = 0"), (2, "vfork() = 11"), (4, "chdir(\"/two\") = 0")]);
    write(
        folder.path(),
        11,
        &[(3, "--- SIGCHLD {si_signo=SIGCHLD} ---"), (5, "mkdir(\"x\", 0777) = 0"), (6, "vfork() = 12")],
    );
    write(folder.path(), 12, &[(7, "mkdirat(AT_FDCWD</start/one>, \"y\", 0777) = 0"), (8, "+++ exited with 0 +++")]);
    assert_eq!(paths(folder.path(), "/start"), ["/start/one/x", "/start/one/y"]);
}

#[test]
fn a_name_by_way_of_another_processs_folder_is_told_by_that_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), 10, &[(1, "clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 11"), (3, "fork() = 12")]);
    write(folder.path(), 11, &[(2, "openat(AT_FDCWD</>, \"/a b\", O_RDONLY|O_PATH|O_DIRECTORY) = 7</a b>")]);
    let lines = [
        (4, "mkdir(\"/proc/10/fd/7/x\", 0700) = 0"),
        (5, "open(\"/c\", O_RDONLY) = 7</c>"),
        (6, "rmdir(\"/proc/self/fd/7/y\") = 0"),
        (7, "unlink(\"/proc/10/fd/8/z\") = 0"),
    ];
    write(folder.path(), 12, &lines);
    assert_eq!(paths(folder.path(), "/"), ["/a b/x", "/c/y", "an unknown folder/z"]);
}

/// As Codex' sandbox does it.
#[test]
fn in_a_sandbox_a_name_is_told_by_what_is_mounted_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = [
        r#"mount(NULL, "/", NULL, MS_REC|MS_SILENT|MS_SLAVE, NULL) = 0"#,
        r#"mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID|MS_NODEV, NULL) = 0"#,
        r#"chdir("/tmp") = 0"#,
        r#"mkdir("newroot", 0755) = 0"#,
        r#"mount("newroot", "newroot", NULL, MS_MGC_VAL|MS_BIND|MS_REC|MS_SILENT, NULL) = 0"#,
        r#"mkdir("oldroot", 0755) = 0"#,
        r#"pivot_root("/tmp", "oldroot") = 0"#,
        r#"chdir("/") = 0"#,
        r#"mount("/oldroot/", "/newroot/", NULL, MS_BIND|MS_REC|MS_SILENT, NULL) = 0"#,
        r#"mount("tmpfs", "/newroot/dev", "tmpfs", MS_NOSUID|MS_NODEV, "mode=0755") = 0"#,
        r#"open("/newroot/dev/null", O_WRONLY|O_CREAT, 0444) = 4</newroot/dev/null>"#,
        r#"mount("/oldroot/dev/null", "/newroot/dev/null", NULL, MS_BIND|MS_REC|MS_SILENT, NULL) = 0"#,
        r#"mkdir("/newroot/project/.git", 0755) = 0"#,
        r#"mount("tmpfs", "/newroot/project/.git", "tmpfs", MS_NOSUID|MS_NODEV, "mode=0555") = 0"#,
        r#"chdir("/newroot") = 0"#,
        r#"pivot_root(".", ".") = 0"#,
        r#"chdir("/") = 0"#,
        r#"openat(AT_FDCWD</project>, "a", O_WRONLY|O_CREAT, 0666) = 3</project/a>"#,
        r#"mkdir("/project/.git/x", 0755) = 0"#,
        r#"openat(AT_FDCWD</project>, "/dev/null", O_RDWR) = 3</dev/null>"#,
    ];
    let lines: Vec<(u32, &str)> = (0..).zip(lines).collect();
    write(folder.path(), 1, &lines);
    assert_eq!(paths(folder.path(), "/"), ["/dev/null", "/project/.git", "/project/a"]);
}
