//! The instance's tree, in one run of a script.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};
use crate::listing::{self, Seen};
use crate::path::TreePath;
use crate::remote::quoted;
use crate::report::{Reason, Side};
use crate::rules::Rules;
use crate::tree::{Entry, Kind, Sum, Tree};

/// The most bytes that a POSIX system allows for a path, and what describes a file beside its name.
const ENTRY_MOST: u64 = 4096 + 256;

/// The instance's folder.
#[derive(Debug, Default)]
pub(crate) struct Description {
    /// Whether the folder is there.
    pub(crate) present: bool,
    /// What the instance can unpack.
    pub(crate) packing: Packing,
    pub(crate) tree: Tree,
    /// What is to be remembered of it; nothing where the instance cannot tell quickly.
    pub(crate) seen: Option<Seen>,
}

/// How an archive is packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Packing {
    #[default]
    None,
    Gzip,
    /// Which takes half the time of gzip on both sides.
    Zstd,
}

impl Packing {
    fn named(word: Option<String>) -> Self {
        match word.as_deref() {
            Some("gzip") => Self::Gzip,
            Some("zstd") => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The program that unpacks it, with `-dc`.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The script that describes a folder. Where something was seen of it, only files are read that may have changed since.
pub(crate) fn script(root: &str, rules: &Rules, limit: u64, seen: Option<&Seen>) -> String {
    let (find, shell) = rules.for_the_instance();
    let set = |name: &str, value: &str| format!("{name}={}\n", quoted(value));
    let expected = seen.and_then(Seen::digest).map(|it| it.to_string()).unwrap_or_default();
    let since = seen.map(Seen::since).unwrap_or_default();
    set("root", root)
        + &set("limit", &limit.to_string())
        + &set("expected", &expected)
        + &set("since", &since)
        + &lister(&find)
        + &set("sums", include_str!("scripts/sums.sh"))
        + &set("batch", &include_str!("scripts/batch.sh").replace("@IGNORED@", &shell))
        + &include_str!("scripts/describe.sh").replace("@FIND@", &find)
}

/// The part of a script that lists a folder quickly.
pub(crate) fn lister(find: &str) -> String {
    include_str!("scripts/list.sh").replace("@FIND@", find)
}

/// What the script wrote, when it was told what was seen before. None where it said too little, and has to be told that
/// nothing was.
///
/// # Errors
/// `Tools`, `TooMany`, `Garbled`.
pub(crate) fn parse(output: &[u8], rules: &Rules, limit: u64, before: Option<&Seen>) -> Result<Option<Description>> {
    let mut text = Vec::new();
    let most = limit.saturating_mul(2 * ENTRY_MOST).saturating_add(1 << 20);
    if output.starts_with(&[0x1f, 0x8b]) {
        let read = MultiGzDecoder::new(output).take(most).read_to_end(&mut text);
        read.map_err(|error| Error::garbled(format!("its description cannot be unpacked: {error}")))?;
    } else {
        text.extend_from_slice(output);
    }
    if u64::try_from(text.len()).is_ok_and(|it| it >= most) {
        return Err(Error::garbled("its description is too long"));
    }
    let mut input = Input { rest: &text };
    let header = input.line()?;
    let mut words = header.split(|it| *it == b' ').map(|it| String::from_utf8_lossy(it).into_owned());
    if (words.next().as_deref(), words.next().as_deref()) != (Some("pcoder-sync"), Some("1")) {
        return Err(Error::garbled("its description has no beginning"));
    }
    let (kind, mut words) = (words.next().unwrap_or_default(), words);
    match kind.as_str() {
        "missing" => Err(Error::Tools { tools: words.collect() }),
        "many" => {
            let found = words.next().and_then(|it| it.parse().ok()).unwrap_or(limit);
            Err(Error::TooMany { side: Side::Instance, found, limit })
        }
        "absent" => Ok(Some(Description { packing: Packing::named(words.next()), ..Description::default() })),
        "folder" => {
            let packing = Packing::named(words.next());
            let tree = finished(input.tree()?, rules);
            Ok(Some(Description { present: true, packing, tree, seen: None }))
        }
        "same" => {
            let seen = before.ok_or_else(|| Error::garbled("it found the same as before, and there is no before"))?;
            let (tree, _) = seen.tree(&Tree::default())?;
            let (tree, packing) = (finished(tree, rules), Packing::named(words.next()));
            Ok(Some(Description { present: true, packing, tree, seen: Some(seen.clone()) }))
        }
        "listed" => {
            let packing = Packing::named(words.next());
            let at = words.next().and_then(|it| listing::time(it.as_bytes()));
            let at = at.ok_or_else(|| Error::garbled("its description has no time"))?;
            let (listing, rest) = listing::split(input.rest)?;
            input.rest = rest;
            let read = input.tree()?;
            let seen = Seen::new(listing.to_vec(), at, &listing::read(&read), before, limit)?;
            let tree = if before.is_some() {
                let (tree, unread) = seen.tree(&read)?;
                if unread {
                    return Ok(None);
                }
                tree
            } else {
                read
            };
            Ok(Some(Description { present: true, packing, tree: finished(tree, rules), seen: Some(seen) }))
        }
        _ => Err(Error::garbled("its description begins with something unknown")),
    }
}

fn finished(mut tree: Tree, rules: &Rules) -> Tree {
    tree.settle();
    ignore(&mut tree, rules);
    tree
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn until(&mut self, end: u8) -> Result<&'a [u8]> {
        let at =
            self.rest.iter().position(|it| *it == end).ok_or_else(|| Error::garbled("its description has no end"))?;
        let (part, rest) = self.rest.split_at(at);
        self.rest = &rest[1..];
        Ok(part)
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        self.until(b'\n')
    }

    fn tree(&mut self) -> Result<Tree> {
        let mut tree = Tree::default();
        loop {
            let line = self.line()?;
            match line.split_first() {
                Some((b'B', count)) => self.batch(number(count)?, &mut tree)?,
                Some((b'E', codes)) => {
                    // Find fails where a folder cannot be read, and then that folder is known. Else something vanished
                    // while it was listed, and what is missing may be somewhere else.
                    let failed = codes.split(|it| *it == b' ').any(|it| !matches!(it, b"" | b"0"));
                    tree.incomplete = failed && !tree.is_explained();
                    break;
                }
                _ => return Err(Error::garbled("its description has an unknown part")),
            }
        }
        if !self.rest.is_empty() {
            return Err(Error::garbled("its description goes on after its end"));
        }
        Ok(tree)
    }

    fn batch(&mut self, count: u64, tree: &mut Tree) -> Result<()> {
        let names = (0..count).map(|_| self.until(0)).collect::<Result<Vec<_>>>()?;
        let stats = (0..count).map(|_| self.line()).collect::<Result<Vec<_>>>()?;
        let mut targets = Vec::new();
        while let Some((b'l', rest)) = self.rest.split_first() {
            self.rest = rest;
            targets.push(self.until(0)?);
        }
        let types = self.line()?.strip_prefix(b"T").ok_or_else(|| Error::garbled("its description lacks types"))?;
        let short = || Error::garbled("its description is not complete");
        if types.len() != names.len() || types.iter().filter(|it| **it == b'l').count() != targets.len() {
            return Err(short());
        }
        let mut targets = targets.into_iter();
        for ((name, stat), letter) in names.into_iter().zip(stats).zip(types) {
            let kind = match letter {
                b'f' => Some(Found::File(self.line()?)),
                b'l' => Some(Found::Link(targets.next().ok_or_else(short)?)),
                b'd' | b'u' => Some(Found::Folder),
                _ => None,
            };
            if name == b"." {
                if *letter == b'u' {
                    return Err(Error::Failed {
                        doing: "list the folder",
                        code: 1,
                        message: "permission denied".to_owned(),
                    });
                }
                continue;
            }
            let path = name
                .strip_prefix(b"./")
                .and_then(TreePath::new)
                .ok_or_else(|| Error::garbled(format!("it names a file `{}`", name.escape_ascii())))?;
            let twice = tree.entries.contains_key(&path) || tree.unknown.contains_key(&path);
            if twice || tree.ignored.contains(&path) {
                return Err(Error::garbled(format!("it describes {path:?} twice")));
            }
            match letter {
                b'i' => {
                    tree.ignored.insert(path);
                }
                b'o' => {
                    tree.unknown.insert(path, Reason::Special);
                }
                b'u' => {
                    tree.unknown.insert(path, Reason::Unreadable("permission denied".to_owned()));
                }
                _ => match kind.map(|it| it.entry(stat)).transpose()? {
                    Some(Ok(entry)) => {
                        tree.entries.insert(path, entry);
                    }
                    Some(Err(reason)) => {
                        tree.unknown.insert(path, reason);
                    }
                    None => {
                        tree.unknown.insert(path, Reason::Changed);
                    }
                },
            }
        }
        Ok(())
    }
}

enum Found<'a> {
    File(&'a [u8]),
    Link(&'a [u8]),
    Folder,
}

impl Found<'_> {
    fn entry(&self, stat: &[u8]) -> Result<Result<Entry, Reason>> {
        let wrong = || Error::garbled(format!("it describes a file as `{}`", stat.escape_ascii()));
        if stat == b"-" {
            return Ok(Err(Reason::Changed));
        }
        let text = std::str::from_utf8(stat).map_err(|_| wrong())?;
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or_else(wrong);
        let mode = u32::from_str_radix(word()?, 16).map_err(|_| wrong())?;
        let size: u64 = word()?.parse().map_err(|_| wrong())?;
        let mtime: i64 = word()?.parse().map_err(|_| wrong())?;
        // The letter and the mode were found out one after the other.
        let (expected, kind) = match self {
            Self::File(b"-") => return Ok(Err(Reason::Unreadable("permission denied".to_owned()))),
            Self::File(sum) => (0o100_000, Kind::File { size, sum: Sum::parse(sum).ok_or_else(wrong)? }),
            Self::Link([]) => return Ok(Err(Reason::Changed)),
            Self::Link(target) => (0o120_000, Kind::Link { target: target.to_vec() }),
            Self::Folder => (0o040_000, Kind::Folder),
        };
        if mode & 0o170_000 != expected {
            return Ok(Err(Reason::Changed));
        }
        let mode = if matches!(kind, Kind::Link { .. }) { 0o777 } else { mode & 0o777 };
        Ok(Ok(Entry { kind, mode: u16::try_from(mode).map_err(|_| wrong())?, mtime }))
    }
}

fn number(text: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(text).ok().and_then(|it| it.trim().parse().ok());
    text.ok_or_else(|| Error::garbled("its description has no number where one is due"))
}

/// Takes out what is ignored.
pub(crate) fn ignore(tree: &mut Tree, rules: &Rules) {
    let known = tree.entries.iter().map(|(path, entry)| (path, entry.is_folder()));
    // Of what is not known it is not known whether it is a folder; it is left alone either way.
    let unknown = tree.unknown.keys().map(|path| (path, true));
    let mut found = std::mem::take(&mut tree.ignored);
    let mut paths: Vec<(&TreePath, bool)> = known.chain(unknown).collect();
    paths.sort();
    for (path, is_folder) in paths {
        if !path.ancestors().any(|it| found.contains(&it)) && rules.ignores(path, is_folder) {
            found.insert(path.clone());
        }
    }
    for path in &found {
        crate::tree::remove(&mut tree.entries, path);
        crate::tree::remove(&mut tree.unknown, path);
    }
    tree.ignored = found;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Description> {
        let parsed = parse(text.as_bytes(), &Rules::new(true, &[]).expect("no patterns"), 100, None)?;
        Ok(parsed.expect("with nothing seen before, it is all"))
    }

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_description_is_understood() {
        let text = format!(
            "pcoder-sync 1 folder gzip\nB 7\n.\0./a\nb\0./l\0./d\0./d/node_modules\0./p\0./gone\0\
             41ed 0 1\n81a4 0 -5\na1ff 1 1\n41c0 0 1\n41ed 0 1\n11a4 0 1\n-\nl/x\0Tdfldio-\n{SUM}\nE 0 0\n"
        );
        let it = parsed(&text).expect("a description");
        let path = |it: &str| TreePath::new(it.as_bytes()).expect("a path");
        assert!(it.present && it.packing == Packing::Gzip && !it.tree.incomplete);
        let empty = Kind::File { size: 0, sum: Sum::of(b"") };
        assert_eq!(it.tree.entries[&path("a\nb")], Entry { kind: empty, mode: 0o644, mtime: -5 });
        assert_eq!(it.tree.entries[&path("l")].kind, Kind::Link { target: b"/x".to_vec() });
        assert_eq!(it.tree.entries[&path("d")].mode, 0o700);
        assert_eq!(it.tree.ignored, [path("d/node_modules")].into());
        assert_eq!(it.tree.unknown, [(path("p"), Reason::Special), (path("gone"), Reason::Changed)].into());
    }

    #[test]
    fn a_description_that_is_not_whole_or_not_honest_is_refused() {
        let batch = |name: &str| format!("pcoder-sync 1 folder no\nB 1\n{name}\x0081a4 0 1\nTf\n{SUM}\n");
        assert!(parsed(&(batch("./a") + "E 0 0\n")).is_ok());
        for wrong in [
            String::new(),
            "bash: not found\n".to_owned(),
            "pcoder-sync 2 folder yes\nE 0 0\n".to_owned(),
            "pcoder-sync 1 same\n".to_owned(),
            "pcoder-sync 1 listed gzip now\nE 0\0E 0 0\n".to_owned(),
            "pcoder-sync 1 listed gzip 1.5\nE 0\0".to_owned(),
            batch("./a"),
            batch("./a") + "E 0 0\nmore",
            batch("a") + "E 0 0\n",
            batch("/etc/passwd") + "E 0 0\n",
            batch("./../a") + "E 0 0\n",
            batch("./a/./b") + "E 0 0\n",
            batch("./a") + &batch("./a").lines().skip(1).collect::<Vec<_>>().join("\n") + "\nE 0 0\n",
            format!("pcoder-sync 1 folder no\nB 1\n./a\x0081a4 0 1\nTff\n{SUM}\n{SUM}\nE 0 0\n"),
            "pcoder-sync 1 folder no\nB 1\n./a\x0081a4 0 1\nTf\nabc\nE 0 0\n".to_owned(),
            "pcoder-sync 1 folder no\nB 99999999999\n".to_owned(),
        ] {
            assert!(matches!(parsed(&wrong), Err(Error::Garbled { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_where_a_folder_was_said_to_be_is_not_known() {
        let text =
            format!("pcoder-sync 1 folder no\nB 2\n./d\0./d/a\x0081a4 0 1\n81a4 0 1\nTff\n{SUM}\n{SUM}\nE 1 0\n");
        let it = parsed(&text).expect("a description");
        assert!(it.tree.entries.is_empty() && it.tree.unknown.len() == 1 && it.tree.incomplete);
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_told() {
        assert!(matches!(parsed("pcoder-sync 1 missing find tar\n"), Err(Error::Tools { tools }) if tools.len() == 2));
        assert!(matches!(parsed("pcoder-sync 1 many 101\n"), Err(Error::TooMany { found: 101, limit: 100, .. })));
        assert!(!parsed("pcoder-sync 1 absent gzip\n").expect("a description").present);
    }
}
