//! Carrying a whole board: into an archive and out of it, and from one database to another.
//!
//! | module | holds |
//! | --- | --- |
//! | `table` | what is carried: tables, columns, and the one spelling of a row |
//! | `rows` | reading and writing rows of any table on any database |
//! | `format` | the archive: how it is written, and how it is read and checked |
//! | `backup`, `restore` | a board into an archive, an archive into an empty database |
//! | `copy` | one database into another |
//! | `lock` | one at a time into a database |
//!
//! A database into which something is being carried is marked (see [`mundap_migration::mark`]): no board serves it, and
//! whoever was interrupted is told to run the same command again.

mod backup;
mod copy;
mod format;
mod lock;
mod restore;
pub(crate) mod rows;
mod table;

use std::io;
use std::path::PathBuf;

use mundap_domain::error::Cause;
use mundap_domain::image::{BlobError, Digest};
use mundap_migration::MigrationError;
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};

pub use backup::{Destination, backup};
pub use copy::{Copied, copy};
pub use restore::{check, restore};
pub use table::{Column, Kind, LEFT, Row, Table, Value, tables};

use crate::HomeError;

/// Where somebody is told how far it is.
pub trait Progress: Send + Sync {
    /// Something begins that has `total` steps.
    fn begin(&self, what: &str, total: u64);
    /// So many steps more are done.
    fn step(&self, steps: u64);
}

/// The rows of a table: how many, and the SHA-256 of their lines in the order of their key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSum {
    pub table: String,
    pub rows: u64,
    pub sha256: String,
}

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub tables: Vec<TableSum>,
    pub images: u64,
    /// Of the images together.
    pub image_bytes: u64,
    /// Images that a row names and that were not there, or not what they had been.
    pub lost: Vec<Lost>,
}

/// An image whose bytes are in no archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub image: Digest,
    /// As part of a sentence.
    pub why: String,
}

/// Why something could not be carried: one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("{} is there already: name another file, or overwrite it with --force", .0.display())]
    Exists(PathBuf),
    #[error("{} is no regular file: name another one (- is standard output)", .0.display())]
    NotReplaced(PathBuf),
    #[error("{} is no regular file: store it in one, since an archive is read twice", .0.display())]
    ReadOnce(PathBuf),
    #[error("another backup is writing {}", .0.display())]
    BeingWritten(PathBuf),
    #[error("cannot write {}: {}", .0.display(), .1)]
    Write(PathBuf, io::Error),
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, io::Error),
    #[error("{} is not an archive of mundap: {}", .0.display(), .1)]
    Foreign(PathBuf, &'static str),
    #[error("{} is damaged: {}", .0.display(), quoted(.1))]
    Damaged(PathBuf, String),
    #[error("{} was made by mundap {}, which is newer than this one: restore it with that version", path.display(), quoted(made_by))]
    Newer { path: PathBuf, made_by: String },
    #[error("the database is not empty (there are rows in {0}): name an empty one")]
    NotEmpty(String),
    #[error(
        "the schema of the {0} is not of this version of mundap ({1} changes pending): run `mundap migrate up` on it"
    )]
    Schema(&'static str, usize),
    #[error("something else ({0}) was begun on the target and not finished: run that again, or name an empty database")]
    Otherwise(String),
    #[error(
        "the unfinished copy in the target is of another source: run that one's copy again, or name an empty database"
    )]
    OtherSource,
    #[error("the target is the source")]
    Same,
    #[error("another restore or copy into this database is running")]
    Running,
    #[error("the databases differ in {}: the source was written to meanwhile; stop its board and run this again", .0.join(", "))]
    Differ(Vec<String>),
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// Names it and its column, without what it holds.
    #[error("a row cannot be carried: {0}")]
    Row(String),
    #[error("the database failed: {0}")]
    Database(Cause),
    #[error("the folder of the images failed: {}", cause(.0))]
    Images(#[from] BlobError),
}

impl From<DbErr> for TransferError {
    fn from(error: DbErr) -> Self {
        match error {
            DbErr::Type(what) => Self::Row(what),
            other => Self::Database(other.into()),
        }
    }
}

impl From<HomeError> for TransferError {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::Database(error) => Self::Database(error.into()),
            HomeError::Folder(error) => Self::Images(error),
        }
    }
}

/// What an archive holds, as part of a sentence: one line, not a long one, that means nothing to a terminal. Of a damaged
/// archive it may be anything.
fn quoted(text: &str) -> String {
    const MOST: usize = 160;
    text.chars().take(MOST).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What lies below the domain's sentence.
fn cause(error: &BlobError) -> String {
    error.0.to_string()
}

/// The marks of what was begun.
const RESTORE: &str = "restore";
const COPY: &str = "copy";
