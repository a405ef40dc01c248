//! Times, and the table that they end in.

use std::time::{Duration, Instant};

/// One comparison.
pub struct Row {
    /// What was done.
    pub what: String,
    /// pcoder's median.
    pub ours: String,
    /// What it is compared with.
    pub other: String,
    /// That one's median.
    pub theirs: String,
    /// Theirs divided by ours, or what the aim is about.
    pub result: String,
    /// What was aimed at.
    pub aim: &'static str,
}

/// The median of times.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Two things in turn, A B A B, so that a machine that slows down slows both: their medians.
pub fn in_turn<E>(
    rounds: usize,
    mut a: impl FnMut() -> Result<(), E>,
    mut b: impl FnMut() -> Result<(), E>,
) -> Result<(Duration, Duration), E> {
    let timed = |work: &mut dyn FnMut() -> Result<(), E>| {
        let started = Instant::now();
        work().map(|()| started.elapsed())
    };
    timed(&mut a)?;
    timed(&mut b)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(timed(&mut a)?);
        theirs.push(timed(&mut b)?);
    }
    Ok((median(ours), median(theirs)))
}

/// A row whose aim is a factor.
pub fn factor(what: &str, ours: Duration, other: &str, theirs: Duration, aim: &'static str) -> Row {
    Row {
        what: what.to_owned(),
        ours: show(ours),
        other: other.to_owned(),
        theirs: show(theirs),
        result: format!("{:.2} times faster", theirs.as_secs_f64() / ours.as_secs_f64()),
        aim,
    }
}

/// A time, as people say it.
pub fn show(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        it if it < 1e3 => format!("{it:.1} µs"),
        it if it < 1e6 => format!("{:.1} ms", it / 1e3),
        it => format!("{:.2} s", it / 1e6),
    }
}

/// The table in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from("| what | pcoder | beside | it took | result | aim |\n|---|---|---|---|---|---|\n");
    for row in rows {
        text += &format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            row.what, row.ours, row.other, row.theirs, row.result, row.aim
        );
    }
    text
}
