//! Follows the chain line by line, and decides what a line that does not fit is.
//!
//! Only a whole record says where the chain is. What stands between two of them is judged when the second one comes:
//! its number says how many records belong there. A record that jumps ahead is believed until one comes that fits
//! before the jump; so one inserted line is one problem, and not one for each line behind it.

use crate::files::HeadFound;
use crate::line::{self, Hex, Link, Place, Raw};
use crate::verify::Kind;

/// More is counted and not kept.
const MOST: usize = 10_000;
/// How many records behind a jump may still turn out to be the wrong ones.
const REACH: usize = 1_024;

/// Where something is: the file's place in the order, and the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) file: usize,
    pub(crate) line: u64,
}

/// Something that does not fit.
pub(crate) struct Finding {
    pub(crate) at: At,
    pub(crate) seq: Option<u64>,
    pub(crate) kind: Kind,
}

/// A line that is no whole record.
struct Junk {
    at: At,
    seq: Option<u64>,
    kind: Kind,
    /// It may be what a crash left of the record that comes next.
    fragment: bool,
}

struct Gap {
    at: At,
    from: u64,
    to: u64,
}

/// A record that jumped ahead of `before`, and those that followed it.
struct Jump {
    before: (Place, At),
    gaps: usize,
    since: Vec<(Place, At)>,
    /// One that follows `before` as well. The next record says which of the two branches is the chain.
    rival: Option<(Place, At)>,
}

#[derive(Default)]
pub(crate) struct Judge {
    pub(crate) records: u64,
    pub(crate) first: Option<Link>,
    chain: Option<(Place, At)>,
    jump: Option<Jump>,
    pending: Vec<Junk>,
    gaps: Vec<Gap>,
    /// Whole records out of the chain.
    orphans: Vec<(Place, At)>,
    findings: Vec<Finding>,
    pub(crate) more: u64,
    pub(crate) torn: Vec<At>,
    last_at: At,
    /// What `audit.head` says, and the hash that the record with its number has.
    head: Option<Place>,
    at_head: Option<Hex>,
    /// A head that was noted elsewhere, and whether it was met.
    expected: Option<Hex>,
    met: bool,
}

impl Judge {
    pub(crate) fn new(head: Option<Place>, expected: Option<Hex>) -> Self {
        Self { head, expected, ..Self::default() }
    }

    pub(crate) fn line(&mut self, file: usize, raw: &Raw<'_>) {
        let at = At { file, line: raw.number };
        self.last_at = at;
        match line::parse(raw.bytes) {
            Some(link) => self.record(&link, at),
            None => self.junk(raw, at),
        }
    }

    pub(crate) fn head(&self) -> Option<Place> {
        self.chain.map(|(place, _)| place)
    }

    fn junk(&mut self, raw: &Raw<'_>, at: At) {
        let kind = match line::newer_version(raw.bytes) {
            Some(found) => Kind::NewerVersion { found },
            None if line::is_json(raw.bytes) => Kind::Changed,
            None => Kind::NotJson,
        };
        let fragment = kind == Kind::NotJson
            && match self.chain {
                Some((chain, _)) => line::is_fragment(raw.bytes, chain),
                // What was before the oldest file is not known.
                None => line::begins_a_file(raw.bytes),
            };
        let junk = Junk { at, seq: line::claimed_seq(raw.bytes), kind, fragment };
        if self.pending.len() < MOST {
            self.pending.push(junk);
        } else {
            self.find(at, junk.seq, junk.kind);
        }
    }

    fn record(&mut self, link: &Link, at: At) {
        self.records += 1;
        let place = link.place;
        self.met |= self.expected == Some(place.hash);
        if self.head.is_some_and(|head| head.seq == place.seq) {
            self.at_head = Some(place.hash);
        }
        self.choose(Some(link));
        let Some((chain, chain_at)) = self.chain else {
            self.met |= self.expected == Some(link.prev);
            if place.seq == 1 && link.prev != Hex::ZERO {
                self.find(at, Some(1), Kind::ChainBroken);
            }
            self.settle(0, link.after_torn, None);
            self.first = Some(*link);
            self.chain = Some((place, at));
            return;
        };
        if link.follows(chain) {
            self.settle(0, link.after_torn, Some(chain));
            self.advance(place, at);
        } else if let Some(jump) = self.jump.as_mut().filter(|jump| link.follows(jump.before.0)) {
            let before = jump.before.0;
            jump.rival = Some((place, at));
            self.settle(0, link.after_torn, Some(before));
        } else if place.seq <= chain.seq {
            self.settle(0, false, Some(chain));
            self.orphan(place, at);
        } else if place.seq == chain.seq + 1 {
            self.settle(0, false, Some(chain));
            // Where it follows one that was taken for inserted, the other one was.
            let twin = self.orphans.iter().rposition(|(orphan, _)| link.follows(*orphan));
            match twin {
                Some(twin) => {
                    self.orphans.remove(twin);
                    self.orphans.push((chain, chain_at));
                }
                None => self.find(at, Some(place.seq), Kind::ChainBroken),
            }
            self.chain = Some((place, at));
        } else {
            let gaps = self.gaps.len();
            let accounted = self.settle(place.seq - chain.seq - 1, link.after_torn, Some(chain));
            let from = chain.seq + accounted + 1;
            if from < place.seq {
                self.gaps.push(Gap { at, from, to: place.seq - 1 });
            }
            self.jump = Some(Jump { before: (chain, chain_at), gaps, since: vec![(place, at)], rival: None });
            self.chain = Some((place, at));
        }
    }

    /// Decides between the records since a jump and the one that follows what was before it.
    fn choose(&mut self, next: Option<&Link>) {
        let Some((chain, _)) = self.chain else { return };
        let Some(rival) = self.jump.as_mut().and_then(|jump| jump.rival.take()) else { return };
        let follows = |place: Place| next.is_some_and(|next| next.follows(place));
        let jump = self.jump.take_if(|jump| !follows(chain) && (follows(rival.0) || jump.since.len() == 1));
        match jump {
            Some(jump) => {
                self.gaps.truncate(jump.gaps);
                self.orphans.extend(jump.since);
                self.chain = Some(rival);
            }
            None => self.orphan(rival.0, rival.1),
        }
    }

    fn advance(&mut self, place: Place, at: At) {
        self.chain = Some((place, at));
        if let Some(jump) = &mut self.jump {
            jump.since.push((place, at));
        }
        self.jump.take_if(|jump| jump.since.len() > REACH);
    }

    fn orphan(&mut self, place: Place, at: At) {
        if self.orphans.len() < MOST { self.orphans.push((place, at)) } else { self.more += 1 }
    }

    /// Judges what stood before a record, where `gap` records are missing. Gives back for how many of them it stands.
    fn settle(&mut self, gap: u64, after_torn: bool, before: Option<Place>) -> u64 {
        let pending = std::mem::take(&mut self.pending);
        // Where numbers are missing, the record was whole once: the next one knew of it.
        if gap == 0 && after_torn && pending.iter().all(|it| it.fragment) {
            self.torn.extend(pending.iter().map(|it| it.at));
            return 0;
        }
        let mut accounted = 0;
        for junk in pending {
            match before {
                Some(before) if accounted < gap => {
                    accounted += 1;
                    self.find(junk.at, Some(before.seq + accounted), junk.kind);
                }
                _ if junk.kind == Kind::Changed && before.is_some() => self.find(junk.at, junk.seq, Kind::Inserted),
                _ => self.find(junk.at, junk.seq, junk.kind),
            }
        }
        accounted
    }

    fn find(&mut self, at: At, seq: Option<u64>, kind: Kind) {
        if self.findings.len() < MOST {
            self.findings.push(Finding { at, seq, kind });
        } else {
            self.more += 1;
        }
    }

    /// The end of the last file. `head_at` is where `audit.head` stands in the order of files.
    pub(crate) fn finish(&mut self, found: &HeadFound, head_at: usize) -> Vec<Finding> {
        self.choose(None);
        let last = self.chain.map_or(Place::START, |(place, _)| place);
        let cut = self.head.map_or(0, |head| head.seq.saturating_sub(last.seq));
        let unfinished = cut == 0;
        let accounted = self.settle(cut, unfinished, Some(last));
        if accounted < cut {
            let (from, to) = (last.seq + accounted + 1, last.seq + cut);
            self.find(self.last_at, Some(from), Kind::Cut { from, to });
        }
        let head_at = At { file: head_at, line: 1 };
        match found {
            HeadFound::Missing if self.records > 0 => self.find(head_at, None, Kind::HeadMissing),
            HeadFound::Missing => {}
            HeadFound::Unreadable => self.find(head_at, None, Kind::HeadUnreadable),
            HeadFound::Place(head) => {
                if self.at_head.is_some_and(|hash| hash != head.hash) {
                    self.find(head_at, Some(head.seq), Kind::HeadDiffers);
                }
            }
        }
        if self.expected.is_some() && !self.met {
            self.find(self.last_at, None, Kind::ExpectedHeadMissing);
        }
        self.match_orphans();
        for gap in std::mem::take(&mut self.gaps) {
            self.find(gap.at, Some(gap.from), Kind::Missing { from: gap.from, to: gap.to });
        }
        let mut findings = std::mem::take(&mut self.findings);
        findings.sort_by_key(|it| it.at);
        findings
    }

    /// A record that is missing at one place and stands at another was moved; one that is not missing was inserted.
    fn match_orphans(&mut self) {
        for (place, at) in std::mem::take(&mut self.orphans) {
            let seq = place.seq;
            let gap = self.gaps.iter().position(|gap| (gap.from..=gap.to).contains(&seq));
            let Some(gap) = gap.map(|it| self.gaps.swap_remove(it)) else {
                self.find(at, Some(seq), Kind::Inserted);
                continue;
            };
            self.find(at, Some(seq), Kind::Reordered);
            if gap.from < seq {
                self.gaps.push(Gap { to: seq - 1, ..gap });
            }
            if seq < gap.to {
                self.gaps.push(Gap { from: seq + 1, ..gap });
            }
        }
    }
}
