//! One shell line for the service, and what comes back of it.
//!
//! The service takes a list of words and, as far as can be seen from its clients and their tests, joins them with single
//! spaces and gives the whole to the login shell. A single element means the same under that reading and under the other
//! one, so every command is one element: a line that is quoted here.
//!
//! Its answers are text, in which bytes that are no UTF-8 do not survive. So the line encodes both outputs as base64 while
//! they are written, piece by piece, each piece ended by `;`, and says the exit code last: `=CODE;`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcoder_sdk::{CommandSpec, Result, shell};

/// The longest line. sshd gives it to a shell as one argument, and Linux takes at most 131,071 bytes
/// (`MAX_ARG_STRLEN` less its end), measured.
pub(crate) const LONGEST: usize = 131_000;

/// What is read at once of an output, in bytes: no more than a pipe holds.
const PIECE: usize = 65_536;

/// Where a command's input comes from.
pub(crate) enum Feed<'a> {
    /// The line itself.
    Inline(&'a [u8]),
    /// A file on the instance, which is removed before the command starts.
    File(&'a str),
}

/// The line that runs a command and encodes what it writes.
pub(crate) fn line(spec: &CommandSpec, feed: &Feed<'_>) -> Result<String> {
    Ok(wrapped(&fed(&shell::line(spec)?, feed)))
}

/// A command line with its input, as one command of a script.
fn fed(line: &str, feed: &Feed<'_>) -> String {
    match feed {
        Feed::Inline([]) => format!("( {line} ) </dev/null"),
        Feed::Inline(input) => format!("{} | ( {line} )", shell::print(input)),
        Feed::File(path) => {
            let path = shell::quote_path(path);
            format!("{{ exec 5<{path} && rm -f {path} && ( {line} ) <&5 5<&-; }}")
        }
    }
}

/// The line that runs a script which is a file on the instance, and removes it first.
pub(crate) fn of_file(path: &str) -> String {
    let path = shell::quote_path(path);
    format!("exec 9<{path} && rm -f {path} && exec sh /dev/fd/9")
}

/// Encodes what a command writes. Descriptor 6 takes its exit code around the encoders, which have to end before it is
/// said; 3 and 4 are the line's own outputs, 7 leads to the second encoder.
fn wrapped(command: &str) -> String {
    format!(
        r#"exec 3>&1 4>&2; e() {{ while c=$(dd bs={PIECE} count=1 2>/dev/null | base64 | tr -d '\n'); [ -n "$c" ]; do printf '%s;\n' "$c"; done; }}; r=$(exec 6>&1; {{ {{ {{ {command}; }} 3>&- 4>&- 6>&- 7>&-; echo $? >&6; }} 2>&7 7>&- | e >&3 6>&- 7>&-; }} 7>&1 | e >&4 6>&-); printf '=%s;\n' "$r""#
    )
}

/// Takes encoded output apart as it arrives, in pieces of any size.
#[derive(Default)]
pub(crate) struct Decoder {
    open: String,
    /// The exit code, once it was said.
    pub(crate) code: Option<i32>,
}

impl Decoder {
    /// The bytes that are whole by now. Nothing when it is not what the line writes.
    pub(crate) fn decode(&mut self, text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for part in text.split_inclusive(';') {
            self.open.extend(part.chars().filter(|it| !it.is_ascii_whitespace()));
            let Some(piece) = self.open.strip_suffix(';') else { continue };
            match piece.strip_prefix('=') {
                Some(code) => self.code = Some(code.parse().ok()?),
                None => STANDARD.decode_vec(piece, &mut bytes).ok()?,
            }
            self.open.clear();
        }
        Some(bytes)
    }

    /// Whether something began and did not end.
    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use pcoder_quoting_tests::{Command as Arriving, Shell, Transport, assert_commands_arrive};

    use super::*;

    fn run(shell: &str, line: &str) -> Output {
        Command::new(shell).args(["-c", line]).env("HOME", "/tmp").output().unwrap()
    }

    /// Standard output, standard error and exit code of a command that went through the line and a real shell.
    fn through(shell: &str, spec: &CommandSpec, feed: &Feed<'_>) -> (Vec<u8>, Vec<u8>, i32) {
        let output = run(shell, &line(spec, feed).unwrap());
        let (mut out, mut err) = (Decoder::default(), Decoder::default());
        let stdout = out.decode(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
        let stderr = err.decode(std::str::from_utf8(&output.stderr).unwrap()).unwrap();
        assert!(!out.is_open() && !err.is_open() && err.code.is_none());
        (stdout, stderr, out.code.unwrap())
    }

    const SHELLS: [&str; 2] = ["bash", "dash"];

    #[test]
    fn both_outputs_and_the_code_come_back_whole() {
        let script = r"printf 'a\0\377b\r\n'; printf 'e\0\376' >&2; exit 7";
        for shell in SHELLS {
            let (out, err, code) = through(shell, &CommandSpec::shell(script), &Feed::Inline(b""));
            assert_eq!((out.as_slice(), err.as_slice(), code), (&b"a\0\xffb\r\n"[..], &b"e\0\xfe"[..], 7), "{shell}");
            let (out, err, code) = through(shell, &CommandSpec::argv("true", [""; 0]), &Feed::Inline(b""));
            assert_eq!((out, err, code), (Vec::new(), Vec::new(), 0));
            // As a shell reports it.
            let killed = through(shell, &CommandSpec::shell("kill -9 $$"), &Feed::Inline(b"")).2;
            assert_eq!(killed, 137, "{shell}");
            let absent = through(shell, &CommandSpec::argv("no-such-program", [""; 0]), &Feed::Inline(b""));
            assert_eq!(absent.2, 127);
            assert!(!absent.1.is_empty());
        }
    }

    #[test]
    fn a_command_has_no_descriptors_of_the_line() {
        let script = "for fd in 3 4 5 6 7 8 9; do if ( : >&$fd ) 2>/dev/null; then echo \"$fd\"; fi; done; echo none";
        for shell in SHELLS {
            for input in [&b""[..], b"x"] {
                let out = through(shell, &CommandSpec::shell(script), &Feed::Inline(input)).0;
                assert_eq!(String::from_utf8_lossy(&out), "none\n", "{shell}");
            }
        }
    }

    #[test]
    fn input_comes_from_the_line_or_from_a_file_that_is_gone_then() {
        let input: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let folder = tempfile::tempdir().unwrap();
        for shell in SHELLS {
            let (out, _, code) = through(shell, &CommandSpec::argv("cat", [""; 0]), &Feed::Inline(&input));
            assert_eq!((out.as_slice(), code), (input.as_slice(), 0));
            let file = folder.path().join("it's input");
            std::fs::write(&file, &input).unwrap();
            let feed = Feed::File(file.to_str().unwrap());
            let spec = CommandSpec::shell("cat; exit 3").in_dir("/tmp");
            let (out, _, code) = through(shell, &spec, &feed);
            assert_eq!((out.as_slice(), code, file.exists()), (input.as_slice(), 3, false));
            let script = folder.path().join("a script");
            std::fs::write(&script, "echo \"$0\" >/dev/null; cat; exit 4").unwrap();
            let output = run(shell, &format!("printf x | {{ {}; }}", of_file(script.to_str().unwrap())));
            assert_eq!((output.stdout.as_slice(), output.status.code(), script.exists()), (&b"x"[..], Some(4), false));
        }
    }

    #[test]
    fn ten_mebibytes_on_both_outputs_come_back() {
        let script = "head -c 10485760 /dev/zero; head -c 10485760 /dev/zero | tr '\\0' x >&2";
        let (out, err, code) = through("bash", &CommandSpec::shell(script), &Feed::Inline(b""));
        assert_eq!((out.len(), err.len(), code), (10 << 20, 10 << 20, 0));
        assert!(out.iter().all(|&byte| byte == 0) && err.iter().all(|&byte| byte == b'x'));
    }

    #[test]
    fn a_line_is_one_line_of_this_form() {
        insta::assert_snapshot!(
            line(&CommandSpec::argv("echo", ["it's"]).in_dir("~/a b"), &Feed::Inline(b"in")).unwrap()
        );
    }

    #[test]
    fn what_is_no_output_of_the_line_is_refused() {
        for wrong in ["$%;", "=x;", "AA;"] {
            assert_eq!(Decoder::default().decode(wrong), None, "{wrong}");
        }
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode("YQ"), Some(Vec::new()));
        assert!(decoder.is_open());
        assert_eq!(decoder.decode("==\n;=0"), Some(b"a".to_vec()));
        assert_eq!((decoder.code, decoder.is_open()), (None, true));
        assert_eq!((decoder.decode(";\n"), decoder.code, decoder.is_open()), (Some(Vec::new()), Some(0), false));
    }

    /// One line of many commands: encoding what they print costs more than they do.
    struct Line;

    impl Transport for Line {
        fn run(&self, shell: &Shell, commands: &[Arriving]) -> Vec<u8> {
            let each = commands.iter().map(|Arriving { spec, home, .. }| {
                let line = shell::line(spec).unwrap();
                format!("HOME={}; {}", shell::quote(home), fed(&line, &Feed::Inline(b"")))
            });
            // Too long for an argument.
            let file = commands[0].folder.join("line");
            std::fs::write(&file, wrapped(&each.collect::<Vec<_>>().join("; "))).unwrap();
            let printed = shell.run("/", &["-c", &of_file(file.to_str().unwrap())]);
            let mut decoder = Decoder::default();
            let printed = decoder.decode(std::str::from_utf8(&printed).unwrap());
            assert_eq!((decoder.code, decoder.is_open()), (Some(0), false));
            printed.unwrap()
        }
    }

    #[test]
    fn any_command_arrives_byte_for_byte() {
        assert_commands_arrive(&Line);
    }
}
