//! What runs in the sandbox for one command.
//!
//! A shell of the agent pitcher is a terminal: it mixes standard output and standard error, and changes line ends. Streams
//! of the agent Pint are text. So a command without a terminal gets files for both, in a folder of its own that only its
//! user reads:
//!
//! | File | What it is |
//! |---|---|
//! | `run` | runs `script` and guards it |
//! | `script` | the user's command |
//! | `user` | a script that is too long to be an argument |
//! | `input` | standard input, a file or, for a stream, a named pipe |
//! | `in.N` | what is to go into that pipe next |
//! | `out`, `err` | standard output and error |
//! | `started` | it was begun, so it is not begun again |
//! | `rc` | how it ended |
//! | `lease` | renewed while somebody waits for the command; `stop` and `abort` end it |
//! | `parts` | pieces of an output that is too large for one message |
//! | `pid`, `*.pid` | whom the guard ends |
//!
//! With pitcher all of it needs nothing but a POSIX shell with `mkdir`, `rm`, `mv`, `cat`, `sleep` and `kill`. Following the
//! files needs `tail`, `dd` and `base64`; without them the output comes when the command has ended. Pint has no files of
//! bytes, so with it those are needed, and `head`, `wc`, `mktemp` and `timeout`.

use pcoder_sdk::{Argv, Command, CommandSpec, Error, Result, shell};

/// How often the guard looks, in seconds.
const LOOK: u32 = 2;
/// The longest script that goes as an argument; Linux takes 128 KiB an argument.
const LONGEST_ARGUMENT: usize = 100 << 10;

/// The code of a `run` that is not the first one.
pub(super) const BEGUN: i32 = 125;
/// The lease that ends the command, for who waits for its end.
pub(super) const STOP: &str = "stop";
/// The lease that ends the command and removes its folder.
pub(super) const ABORT: &str = "abort";

/// What a command reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stdin {
    None,
    File,
    Pipe,
}

/// The user's command as files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) script: String,
    /// The content of `user`.
    pub(super) user: Option<String>,
}

/// The scripts of one command, in its folder. The folder's name needs no quoting.
pub(super) struct Scripts<'a> {
    pub(super) dir: &'a str,
    pub(super) home: &'a str,
    /// After how long without a renewed lease the command ends, in seconds.
    pub(super) lease: u32,
}

impl Scripts<'_> {
    /// Makes the folder, and what is in it from the beginning.
    pub(super) fn prepare(&self, stdin: Stdin) -> String {
        let dir = self.dir;
        let pipe = if stdin == Stdin::Pipe { " && mkfifo input" } else { "" };
        format!("umask 077 && mkdir {dir} && cd {dir} && : >out && : >err{pipe}")
    }

    /// Ends the helpers of a folder in which no command runs, and removes it.
    ///
    /// A helper that nobody heard of may be starting just now. It writes its pid before it opens anything else, and the
    /// folder moves away first: what was opened before has its pid there, and what comes later finds nothing to open.
    pub(super) fn sweep(dir: &str) -> String {
        format!(
            "mv {dir} {dir}.gone 2>/dev/null; for f in {dir}.gone/*.pid; do kill -HUP -$(cat $f); done 2>/dev/null; \
             rm -rf {dir}.gone"
        )
    }

    /// Prints what one of the files has from a byte on, and what is added to it: base64 in lines, and behind each piece a
    /// line with a dot, the piece's number and how many characters it had.
    pub(super) fn follow(&self, name: &str, from: u64) -> String {
        let dir = self.dir;
        let start = from.saturating_add(1);
        format!(
            "echo $$ >{dir}/{name}.pid || exit; n=0; tail -c +{start} -f {dir}/{name} 2>/dev/null | \
             while c=$(dd bs=65536 count=1 2>/dev/null | base64) && [ -n \"$c\" ]; do \
             n=$((n+1)); printf '%s\\n.%s.%s\\n' \"$c\" $n ${{#c}}; done"
        )
    }

    /// Feeds the pipe: for each line `N` that is typed, the file `in.N`; at `end`, the end. Each piece that went is
    /// acknowledged. One that is asked for twice goes once.
    pub(super) fn feed(&self) -> String {
        let dir = self.dir;
        format!(
            "echo $$ >{dir}/feed.pid || exit; stty -echo; e=0; {{ \
             while IFS= read -r n && [ \"$n\" != end ]; do \
             if [ \"$n\" = $e ]; then cat {dir}/in.$n || break; rm {dir}/in.$n; e=$((e+1)); fi; \
             printf '+%s\\n' \"$n\" >&2; done; }} >{dir}/input"
        )
    }

    /// The user's command, with its streams. A terminal has them already.
    pub(super) fn script(&self, spec: &CommandSpec, streams: Option<Stdin>) -> Result<Script> {
        let Self { dir, home, .. } = self;
        let mut spec = spec.clone();
        let mut user = None;
        if let Command::Shell(text) = &spec.command
            && text.len() > LONGEST_ARGUMENT
        {
            if text.contains('\0') {
                return Err(Error::invalid("provider.exec", "a command cannot hold a NUL character"));
            }
            user = Some(text.clone());
            spec.command = Command::Argv(Argv { program: "sh".to_owned(), args: vec![format!("{dir}/user")] });
        }
        let line = shell::line(&spec)?;
        let streams = match streams {
            None => String::new(),
            Some(stdin) => {
                let input = if stdin == Stdin::None { "/dev/null".to_owned() } else { format!("{dir}/input") };
                format!(" <{input} >{dir}/out 2>{dir}/err")
            }
        };
        let home = shell::quote(home);
        let script = format!(
            "trap : INT QUIT TERM\n(\nexport HOME={home}\ncd \"$HOME\" || exit\n{line}\n){streams}\nr=$?\n\
             echo $r >{dir}/rc.new && mv {dir}/rc.new {dir}/rc\nexit $r\n"
        );
        Ok(Script { script, user })
    }

    /// Runs `script` once, with a guard beside it that ends it when nobody waits for it any more. It is a session of its
    /// own where the sandbox has a `setsid` that waits, so that nothing in it asks the terminal questions. A command with
    /// a terminal prints `mark` there in the end, behind which nothing more comes.
    pub(super) fn run(&self, mark: Option<&str>) -> String {
        let dir = self.dir;
        let looks = self.lease / LOOK;
        let own = format!("echo $$ >{dir}/pid; sh {dir}/script");
        let body = match mark {
            None => format!(
                "if setsid -w true </dev/null >/dev/null 2>&1; \
                 then setsid -w sh -c 'echo $$ >{dir}/pid; exec sh {dir}/script'; else {own}; \
                 fi </dev/null >/dev/null 2>&1"
            ),
            Some(_) => own,
        };
        let end = mark.map(|mark| format!("printf '{}'\n", escaped(mark))).unwrap_or_default();
        // `$$` is the pid of `run` in the guard too, which is then in the group that it ends, and ends it last. A folder that
        // goes moves away first, as in `sweep`.
        format!(
            "mkdir {dir}/started || exit {BEGUN}\n\
             trap : INT QUIT TERM\n\
             (\n\
             trap '' HUP INT QUIT TERM\n\
             last= left={looks}\n\
             while sleep {LOOK}; do\n\
             [ -d {dir} ] || exit\n\
             now=$(cat {dir}/lease 2>/dev/null)\n\
             case $now in stop|abort) break;; esac\n\
             if [ \"$now\" = \"$last\" ]; then left=$((left-1)); else last=$now left={looks}; fi\n\
             [ $left -gt 0 ] || break\n\
             done\n\
             mkdir {dir}/killed\n\
             p=$(cat {dir}/pid)\n\
             kill -TERM -$p || kill -TERM $p\n\
             sleep {LOOK}\n\
             [ $p = $$ ] || kill -KILL -$p\n\
             d={dir}\n\
             [ \"$now\" = stop ] || {{ mv $d $d.gone && d=$d.gone; }}\n\
             for f in $d/*.pid; do kill -HUP -$(cat $f); done\n\
             [ \"$now\" = stop ] || rm -rf $d\n\
             [ $p != $$ ] || kill -KILL -$p\n\
             ) </dev/null >/dev/null 2>&1 &\n\
             g=$!\n\
             {body}\n\
             r=$?\n\
             r=$(cat {dir}/rc 2>/dev/null || echo $r)\n\
             [ -d {dir}/killed ] || [ -d {dir}.gone ] || {{ kill -KILL $g; wait $g; }} 2>/dev/null\n\
             {end}\
             exit $r\n"
        )
    }
}

/// For `printf`, in octal.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:03o}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::process::CommandExt as _;
    use std::path::Path;
    use std::process::{Command as Process, Output, Stdio};

    use pcoder_quoting_tests::{Command as Arriving, Shell, Transport, assert_commands_arrive};

    use super::*;

    const SHELLS: [&str; 2] = ["dash", "bash"];

    struct Folder(tempfile::TempDir, String);

    impl Folder {
        fn new() -> Self {
            let top = tempfile::tempdir().unwrap();
            let dir = top.path().join("box").to_str().unwrap().to_owned();
            Self(top, dir)
        }

        fn scripts(&self) -> Scripts<'_> {
            Scripts { dir: &self.1, home: self.0.path().to_str().unwrap(), lease: 4 }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            Path::new(&self.1).join(name)
        }

        fn read(&self, name: &str) -> Vec<u8> {
            fs::read(self.path(name)).unwrap()
        }

        fn run(&self, shell: &str, spec: &CommandSpec, stdin: Stdin, input: &[u8]) -> Output {
            assert!(sh(shell, &self.scripts().prepare(Stdin::None)).status.success());
            let script = self.scripts().script(spec, Some(stdin)).unwrap();
            fs::write(self.path("script"), script.script).unwrap();
            if let Some(user) = script.user {
                fs::write(self.path("user"), user).unwrap();
            }
            fs::write(self.path("input"), input).unwrap();
            fs::write(self.path("run"), self.scripts().run(None)).unwrap();
            Process::new(shell).arg(self.path("run")).stdin(Stdio::null()).output().unwrap()
        }
    }

    fn sh(shell: &str, script: &str) -> Output {
        Process::new(shell).args(["-c", script]).stdin(Stdio::null()).output().unwrap()
    }

    #[test]
    fn a_command_has_its_streams_in_files_and_its_code() {
        for shell in SHELLS {
            let folder = Folder::new();
            let spec = CommandSpec::shell("cat; echo err >&2; exit 7").with_env("A", "it's");
            let output = folder.run(shell, &spec, Stdin::File, b"a\0\xff\n");
            assert_eq!((output.status.code(), output.stdout, output.stderr), (Some(7), vec![], vec![]), "{shell}");
            assert_eq!((folder.read("out"), folder.read("err")), (b"a\0\xff\n".to_vec(), b"err\n".to_vec()));
            assert_eq!(folder.read("rc"), b"7\n");
        }
    }

    #[test]
    fn a_command_that_a_signal_ends_has_the_code_of_a_shell() {
        for shell in SHELLS {
            let folder = Folder::new();
            let output = folder.run(shell, &CommandSpec::shell("kill -9 $$"), Stdin::None, b"");
            assert_eq!(output.status.code(), Some(137), "{shell}");
        }
    }

    #[test]
    fn a_long_script_is_a_file() {
        let folder = Folder::new();
        let long = format!("printf %s '{}' | wc -c", "x".repeat(300 << 10));
        let output = folder.run("dash", &CommandSpec::shell(long), Stdin::None, b"");
        assert_eq!((output.status.code(), folder.read("out")), (Some(0), b"307200\n".to_vec()));
        let nul = CommandSpec::shell(format!("{}\0", "x".repeat(200 << 10)));
        assert_eq!(folder.scripts().script(&nul, None).unwrap_err().code, "invalid");
    }

    #[test]
    fn it_runs_once() {
        let folder = Folder::new();
        folder.run("dash", &CommandSpec::shell("echo once"), Stdin::None, b"");
        let again = Process::new("dash").arg(folder.path("run")).output().unwrap();
        assert_eq!((again.status.code(), folder.read("out")), (Some(125), b"once\n".to_vec()));
    }

    #[test]
    fn a_stopped_lease_ends_the_command_and_what_it_started() {
        for shell in SHELLS {
            let folder = Folder::new();
            sh(shell, &folder.scripts().prepare(Stdin::None));
            let spec = CommandSpec::shell("sleep 600 & sleep 600; echo survived");
            fs::write(folder.path("script"), folder.scripts().script(&spec, Some(Stdin::None)).unwrap().script)
                .unwrap();
            fs::write(folder.path("run"), folder.scripts().run(None)).unwrap();
            fs::write(folder.path("lease"), STOP).unwrap();
            let output = Process::new(shell).arg(folder.path("run")).stdin(Stdio::null()).output().unwrap();
            assert_eq!(output.status.code(), Some(143), "{shell}");
            assert_eq!(folder.read("out"), b"");
        }
    }

    #[test]
    fn a_lease_that_nobody_renews_ends_the_command_and_removes_the_folder() {
        let folder = Folder::new();
        let spec = CommandSpec::shell("sleep 600");
        let output = folder.run("dash", &spec, Stdin::None, b"");
        assert_eq!(output.status.code(), Some(143));
        // The guard is the last to write there, and outlives the command.
        while folder.path("").exists() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_helper_that_comes_too_late_ends_by_itself() {
        for shell in SHELLS {
            let folder = Folder::new();
            sh(shell, &folder.scripts().prepare(Stdin::Pipe));
            assert!(sh(shell, &Scripts::sweep(&folder.1)).status.success());
            assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 0);
            // They would run for ever where there is something to open.
            for helper in [folder.scripts().follow("out", 0), folder.scripts().feed()] {
                assert!(!sh(shell, &helper).status.success(), "{shell}: {helper}");
            }
            assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_sweep_ends_the_helpers_that_there_are() {
        let folder = Folder::new();
        sh("dash", &folder.scripts().prepare(Stdin::None));
        let mut follower = Process::new("dash")
            .args(["-c", &folder.scripts().follow("out", 0)])
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        while fs::read(folder.path("out.pid")).unwrap_or_default().is_empty() {
            std::thread::yield_now();
        }
        sh("dash", &Scripts::sweep(&folder.1));
        follower.wait().unwrap();
    }

    #[test]
    fn a_follower_prints_what_is_added_in_numbered_pieces() {
        for shell in SHELLS {
            let folder = Folder::new();
            sh(shell, &folder.scripts().prepare(Stdin::None));
            fs::write(folder.path("out"), b"skipped").unwrap();
            let mut follower = Process::new(shell)
                .args(["-c", &folder.scripts().follow("out", 7)])
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap();
            let mut output = std::io::BufReader::new(follower.stdout.take().unwrap());
            let mut line = |file: &mut fs::File, content: &[u8]| {
                use std::io::BufRead as _;
                file.write_all(content).unwrap();
                let mut text = String::new();
                output.read_line(&mut text).unwrap();
                output.read_line(&mut text).unwrap();
                text
            };
            let mut file = fs::OpenOptions::new().append(true).open(folder.path("out")).unwrap();
            assert_eq!(line(&mut file, b"one"), "b25l\n.1.4\n", "{shell}");
            assert_eq!(line(&mut file, b"\0\xff"), "AP8=\n.2.4\n", "{shell}");
            let pid = String::from_utf8(folder.read("out.pid")).unwrap();
            assert_eq!(pid.trim(), follower.id().to_string());
            sh(shell, &format!("kill -TERM -{}", pid.trim()));
            follower.wait().unwrap();
        }
    }

    #[test]
    fn a_feeder_takes_files_into_the_pipe_in_turn() {
        let folder = Folder::new();
        sh("dash", &folder.scripts().prepare(Stdin::Pipe));
        fs::write(folder.path("in.0"), b"a\0").unwrap();
        fs::write(folder.path("in.1"), b"\xff").unwrap();
        let mut feeder = Process::new("dash")
            .args(["-c", &folder.scripts().feed()])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        feeder.stdin.take().unwrap().write_all(b"0\n0\n1\nend\n").unwrap();
        assert_eq!(fs::read(folder.path("input")).unwrap(), b"a\0\xff");
        let said = String::from_utf8(feeder.wait_with_output().unwrap().stderr).unwrap();
        assert!(said.ends_with("+0\n+0\n+1\n"), "{said}");
        assert!(!folder.path("in.0").exists());
    }
    /// What `run` runs, for a command whose output is a file.
    struct InFiles;

    impl Transport for InFiles {
        fn run(&self, shell: &Shell, commands: &[Arriving]) -> Vec<u8> {
            let printed = commands.iter().map(|Arriving { spec, home, folder }| {
                let file = folder.join("script");
                let scripts = Scripts { dir: folder.to_str().unwrap(), home, lease: 4 };
                fs::write(&file, scripts.script(spec, Some(Stdin::None)).unwrap().script).unwrap();
                assert_eq!(String::from_utf8_lossy(&shell.run("/", &[file.to_str().unwrap()])), "");
                fs::read(folder.join("out")).unwrap()
            });
            printed.flatten().collect()
        }
    }

    #[test]
    fn any_command_arrives_byte_for_byte() {
        assert_commands_arrive(&InFiles);
    }
}
