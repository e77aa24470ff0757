//! What an import did, or would do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What had to be changed for a row to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    NoEmail,
    SameAddress,
    AccountThere,
    LongName,
    NoAccount,
    EmptyTitle,
    LongTitle,
    EmptyComment,
    ControlCharacters,
    NoTime,
    TimeOutOfRange,
    TimeTwice,
    TimeSkipped,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEmail => "no e-mail address: the account has one at imported.invalid, which no letter reaches",
            Self::SameAddress => "the same address in another spelling: one account",
            Self::AccountThere => "an account with this address was here: it took over what was theirs",
            Self::LongName => "the name was too long and was cut",
            Self::NoAccount => "the author is not among the users: an account was made",
            Self::EmptyTitle => "the title was empty: it is … now",
            Self::LongTitle => "the title was too long: the whole of it stands above the content",
            Self::EmptyComment => "the comment was empty: it is … now",
            Self::ControlCharacters => "control characters were replaced by \u{fffd}",
            Self::NoTime => "it has no time: it is 1970-01-01 now",
            Self::TimeOutOfRange => "its time was before the year 1000 or after 9999 (UTC): it is the nearest one now",
            Self::TimeTwice => "clocks showed its time twice: the first was taken",
            Self::TimeSkipped => "clocks left its time out: it was taken as if they had not been put forward yet",
        })
    }
}

/// Why a row was left out. It is tried again by the next import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    BadId,
    IdTaken,
    TooLong,
    BreaksARule,
    NoQuestion,
    QuestionGoneHere,
    NoComment,
    CommentFull,
    NoFolder,
    NoFile,
    NeitherBytesNorPath,
    /// The code of a [`Refusal`](mundap_domain::image::Refusal).
    Image(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadId => "an id must be between 1 and 2^52 - 1, so that ids after it are below 2^53",
            Self::IdTaken => "another row has its id here",
            Self::TooLong => "the text has more than 20000 characters",
            Self::BreaksARule => "it breaks a rule",
            Self::NoQuestion => "its question is not on the old board",
            Self::QuestionGoneHere => "its question is not here, or was deleted here",
            Self::NoComment => "its comment is not here",
            Self::CommentFull => "its comment has ten images already",
            Self::NoFolder => "it is a file: name the folder with --images",
            Self::NoFile => "its file is not in the folder that --images names",
            Self::NeitherBytesNorPath => "it has neither bytes nor a path",
            Self::Image(code) => return write!(f, "the image is refused: {code}"),
        })
    }
}

/// What became of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableReport {
    /// Rows of the old table.
    pub read: u64,
    pub imported: u64,
    /// Were here already; whatever became of them here, they were left alone.
    pub there: u64,
    /// An earlier import brought them, and they were deleted here.
    pub deleted_here: u64,
    /// Imported, but not quite as they were. The rows by id, people by their old e-mail.
    pub changed: BTreeMap<Change, Vec<String>>,
    pub left_out: BTreeMap<Reason, Vec<String>>,
}

impl TableReport {
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left_out.values().map(|ids| ids.len() as u64).sum()
    }

    pub(super) fn change(&mut self, id: &impl ToString, changes: &[Change]) {
        let changes: BTreeSet<_> = changes.iter().collect();
        for change in changes {
            self.changed.entry(*change).or_default().push(id.to_string());
        }
    }

    pub(super) fn leave(&mut self, id: &impl ToString, reason: Reason) {
        self.left_out.entry(reason).or_default().push(id.to_string());
    }

    pub(super) fn add(&mut self, other: Self) {
        self.read += other.read;
        self.imported += other.imported;
        self.there += other.there;
        self.deleted_here += other.deleted_here;
        for (change, ids) in other.changed {
            self.changed.entry(change).or_default().extend(ids);
        }
        for (reason, ids) in other.left_out {
            self.left_out.entry(reason).or_default().extend(ids);
        }
    }
}

/// What an import did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    pub users: TableReport,
    pub qna: TableReport,
    pub comment: TableReport,
    pub image: TableReport,
    /// Tables by comment that were not understood, and why.
    pub unknown: Vec<(String, &'static str)>,
}

impl ImportReport {
    /// By the tables' names here.
    #[must_use]
    pub fn tables(&self) -> [(&'static str, &TableReport); 4] {
        [("users", &self.users), ("qna", &self.qna), ("comment", &self.comment), ("image", &self.image)]
    }

    /// Whether everything of the old board is on this one, or was.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unknown.is_empty() && self.tables().iter().all(|(_, table)| table.left_out.is_empty())
    }
}
