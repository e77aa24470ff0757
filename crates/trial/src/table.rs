//! What an experiment found: one Markdown table, and whether every limit was kept.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use crate::Result;

/// One thing that was measured.
#[derive(Clone, Debug)]
struct Line {
    what: String,
    limit: String,
    measured: String,
    /// `None`: there is no limit to it.
    kept: Option<bool>,
}

/// The table of one experiment.
#[derive(Clone, Debug)]
pub struct Table {
    title: String,
    lines: Vec<Line>,
}

impl Table {
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), lines: Vec::new() }
    }

    /// Something that has to do with a limit, and whether it is kept.
    pub fn limit(
        &mut self,
        what: impl Into<String>,
        limit: impl Into<String>,
        measured: impl Into<String>,
        kept: bool,
    ) {
        self.push(what.into(), limit.into(), measured.into(), Some(kept));
    }

    /// At most so long.
    pub fn within(&mut self, what: impl Into<String>, limit: Duration, measured: Duration) {
        self.limit(what, format!("≤ {}", show(limit)), show(measured), measured <= limit);
    }

    /// None of these may be there.
    pub fn none(&mut self, what: impl Into<String>, count: u64, in_words: impl Into<String>) {
        self.limit(what, "none", in_words, count == 0);
    }

    /// Something that explains the rest.
    pub fn note(&mut self, what: impl Into<String>, measured: impl Into<String>) {
        self.push(what.into(), String::new(), measured.into(), None);
    }

    fn push(&mut self, what: String, limit: String, measured: String, kept: Option<bool>) {
        self.lines.push(Line { what, limit, measured, kept });
    }

    /// Whether every limit was kept, and there was one.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.lines.iter().any(|line| line.kept.is_some()) && self.lines.iter().all(|line| line.kept != Some(false))
    }

    /// Prints it to the standard output.
    ///
    /// # Errors
    /// Where that is closed.
    pub fn print(&self) -> Result<()> {
        writeln!(std::io::stdout().lock(), "{self}")?;
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n\n| measured | limit | found | |\n| --- | --- | --- | --- |", self.title)?;
        for Line { what, limit, measured, kept } in &self.lines {
            let kept = kept.map_or("", |kept| if kept { "ok" } else { "**broken**" });
            writeln!(f, "| {what} | {limit} | {measured} | {kept} |")?;
        }
        Ok(())
    }
}

/// Such as `1.24 s` or `3.1 ms`.
#[must_use]
pub fn show(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        10.0.. => format!("{seconds:.1} s"),
        1.0.. => format!("{seconds:.2} s"),
        0.1.. => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{:.1} ms", seconds * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_limit_breaks_the_table() {
        let mut table = Table::new("a trial");
        assert!(!table.holds(), "nothing was measured");
        table.note("clients", "40");
        assert!(!table.holds(), "nothing was held to a limit");
        table.within("ready again", Duration::from_secs(2), Duration::from_millis(312));
        table.none("lost answers", 0, "none");
        assert!(table.holds());
        assert!(table.to_string().contains("| ready again | ≤ 2.00 s | 312 ms | ok |"), "{table}");
        table.none("5xx", 1, "1 × 500");
        assert!(!table.holds());
        assert!(table.to_string().contains("| 5xx | none | 1 × 500 | **broken** |"), "{table}");
    }
}
