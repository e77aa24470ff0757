//! Whether a board is sound, and what can be mended of it.
//!
//! | module | looks at |
//! | --- | --- |
//! | `database` | the schema, the database's own word on its file, its clock |
//! | `key` | the file of the signing key |
//! | `references` | rows that name others which are not there |
//! | `counts` | what is stored though it follows from other rows |
//! | `rows` | whether every row can be read as what it is |
//! | `images` | the blob of every image, the folder they are in, and the files that no image names |
//!
//! A suspicion is found by reading past everybody, and then looked at again: a count in a unit that holds its row, as
//! whoever changes it does; a blob once more, and whether its image is still there. So a board may serve meanwhile, and what
//! it is just doing is no finding.
//!
//! Mended is what follows from something else: counts, blobs that were set aside, files that nothing names. No row that
//! somebody wrote is changed or deleted; what is wrong with one is told, never with what it holds.

mod counts;
mod database;
mod images;
mod key;
mod references;
mod rows;

use std::fmt;
use std::path::Path;

use chrono::TimeDelta;
use mundap_domain::StoreError;
use mundap_domain::env::Timestamp;
use mundap_domain::error::Cause;
use mundap_domain::image::BlobError;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, QueryResult, Statement};

pub use references::{Reference, references};

use crate::failure::store_error;
use crate::home::HomeError;
use crate::{BlobFolder, DatabaseKind, SeaStore};

/// What a board consists of.
#[derive(Clone, Copy)]
pub struct Board<'a> {
    pub store: &'a SeaStore,
    pub blobs: &'a BlobFolder,
    /// The file of the signing key.
    pub signing_key: &'a Path,
}

/// How to look.
#[derive(Clone, Copy, Debug)]
pub struct Examination {
    /// Mends what can be mended.
    pub repair: bool,
    /// Leaves out what reads every byte: of the images, and of SQLite's indexes.
    pub quick: bool,
    /// By which it is judged how old a file is.
    pub now: Timestamp,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about, such as `qna 7`.
    pub about: String,
    /// What is wrong, and what to do about it where it was not mended. Holds nothing that a person wrote.
    pub what: String,
    pub mended: bool,
}

impl Finding {
    fn new(about: impl Into<String>, what: impl Into<String>) -> Self {
        Self { about: about.into(), what: what.into(), mended: false }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.about, self.what, if self.mended { " (mended)" } else { "" })
    }
}

/// What an examination came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// How many rows were read.
    pub rows: u64,
    /// How many blobs of images were looked at.
    pub blobs: u64,
    pub found: u64,
    pub mended: u64,
}

impl Examined {
    /// How many findings are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.found - self.mended
    }
}

/// Why it could not be looked to the end: one line.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    #[error("the database cannot be examined: {}", innermost(.0))]
    Database(StoreError),
    #[error("the folder of the images cannot be examined: {}", .0.0)]
    Images(#[from] BlobError),
    #[error("the schema cannot be examined: {0}")]
    Schema(Cause),
}

impl From<HomeError> for DoctorError {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::Database(error) => Self::Database(error),
            HomeError::Folder(error) => Self::Images(error),
        }
    }
}

impl From<StoreError> for DoctorError {
    fn from(error: StoreError) -> Self {
        Self::Database(error)
    }
}

/// The cause that says what to change.
fn innermost(error: &StoreError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A file that belongs to nothing is taken away by the board within hours: what is older than this was forgotten.
const FORGOTTEN: TimeDelta = TimeDelta::days(1);
/// How many rows are read at once: of the longest, some 16 MB.
const ROWS: u64 = 200;

/// Looks at everything, and tells `found` of each finding as it comes.
///
/// # Errors
/// Where the database or the images cannot be read; what was mended until then stays mended.
pub async fn examine(
    board: Board<'_>,
    examination: Examination,
    found: &mut (dyn FnMut(&Finding) + Send),
) -> Result<Examined, DoctorError> {
    let mut doctor = Doctor { board, examination, found, examined: Examined::default() };
    doctor.signing_key().await?;
    if doctor.schema().await? {
        doctor.database().await?;
        doctor.references().await?;
        doctor.counts().await?;
        doctor.owners().await?;
        doctor.rows().await?;
        let is_whole = doctor.images().await?;
        // What no row names may be another database's where the folder is.
        if doctor.folder(is_whole).await? {
            doctor.files().await?;
        }
    }
    Ok(doctor.examined)
}

pub(crate) struct Doctor<'a> {
    board: Board<'a>,
    examination: Examination,
    found: &'a mut (dyn FnMut(&Finding) + Send),
    examined: Examined,
}

impl Doctor<'_> {
    fn tell(&mut self, finding: &Finding) {
        self.examined.found += 1;
        self.examined.mended += u64::from(finding.mended);
        (self.found)(finding);
    }

    fn store(&self) -> &SeaStore {
        self.board.store
    }

    /// Connections that no time limit of a statement ends; on SQLite some that keep nobody from writing.
    fn patient(&self) -> &DatabaseConnection {
        let store = self.store();
        match store.kind {
            DatabaseKind::Sqlite => store.reader.connection.database(),
            DatabaseKind::MariaDb | DatabaseKind::MySql => &store.migrations,
        }
    }

    /// All rows that a query finds, which should be few.
    async fn ask(&self, sql: String, values: impl IntoIterator<Item = i64>) -> Result<Vec<QueryResult>, StoreError> {
        let connection = self.patient();
        let values = values.into_iter().map(sea_orm::Value::from);
        let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
        connection.query_all_raw(statement).await.map_err(store_error)
    }

    /// The rows that a query finds behind the id `after`, each with that id and another number.
    async fn suspects(&self, sql: &str, after: i64) -> Result<Vec<(i64, i64)>, StoreError> {
        let rows = self.ask(format!("{sql} ORDER BY 1 LIMIT {ROWS}"), [after]).await?;
        rows.iter().map(pair).collect::<Result<_, DbErr>>().map_err(store_error)
    }
}

fn pair(row: &QueryResult) -> Result<(i64, i64), DbErr> {
    Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))
}
