//! The schema, one file per change, and how it is brought up to date.
//!
//! [`up`] is safe when many nodes start at once on an empty database: one of them migrates, the others wait for it.
//! - **MySQL, MariaDB**: a lease row says who (see `lease.rs`). DDL commits by itself there, so a migrator that is killed
//!   leaves a migration half done: every statement MUST be repeatable (`IF NOT EXISTS`), and a file makes one change.
//! - **SQLite**: DDL is transactional, and `BEGIN IMMEDIATE` is the lease: all pending migrations are one transaction,
//!   which is one fsync, and a killed migrator leaves nothing behind.
//!
//! Where nothing is pending, one SELECT is all that happens.

mod lease;
mod m0001_users;
mod m0002_qna;
mod m0003_comment;
mod m0004_sign_in;
mod m0005_receipt;
mod m0006_image;
mod m0007_mail;
mod m0008_rate_limit;
mod m0009_audit;
mod m0010_comment_by_author;
mod m0011_import;
mod m0012_image_folder;
mod sql;
mod unfinished;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use sea_orm_migration::prelude::{MigrationTrait, MigratorTrait, SchemaManager};
use sea_orm_migration::sea_orm::{
    DatabaseConnection, DbBackend, DbErr, EntityTrait as _, QueryOrder as _, RuntimeErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _, sqlx,
};
use sea_orm_migration::{IntoSchemaManagerConnection, seaql_migrations};

use lease::Lease;
pub use unfinished::{is_below_mark, mark, marked, unmark};

/// All migrations, oldest first. A released one never changes.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_users::Migration),
            Box::new(m0002_qna::Migration),
            Box::new(m0003_comment::Migration),
            Box::new(m0004_sign_in::Migration),
            Box::new(m0005_receipt::Migration),
            Box::new(m0006_image::Migration),
            Box::new(m0007_mail::Migration),
            Box::new(m0008_rate_limit::Migration),
            Box::new(m0009_audit::Migration),
            Box::new(m0010_comment_by_author::Migration),
            Box::new(m0011_import::Migration),
            Box::new(m0012_image_folder::Migration),
        ]
    }
}

/// How long to wait for another node that migrates.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often to look whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why the schema is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database holds migrations that this program does not know.
    #[error("the database was migrated by a newer version of mundap (unknown here: {0}): start that version")]
    Newer(String),
    /// Another node kept migrating, or another program kept the database locked.
    #[error("the database has been locked by another migration for {} minutes: see what that one is doing", .0.as_secs() / 60)]
    StillLocked(Duration),
    /// This node was silent for too long, and another one may have taken over.
    #[error("lost the migration lease to another node; it migrates now: start again")]
    LostLease,
    /// A restore or a copy into it was begun; see [`mark()`].
    #[error("a {0} into the database is running or was interrupted: wait for it, or run it again")]
    Unfinished(String),
    /// Tables with names of this program's are there, and none of its migrations ever was.
    #[error(
        "the database holds another program's tables ({0}): name an empty database; of the first FastAPI program's, `mundap import-fastapi` brings the board into that one"
    )]
    Foreign(String),
    #[error("the database could not be migrated: {0}")]
    Database(#[from] DbErr),
}

/// Applies every pending migration and returns their names. Waits while another node does it.
///
/// # Errors
/// [`MigrationError`]. Migrations that were applied before the failure stay applied, save on SQLite, where it is all or
/// none.
pub async fn up(db: &DatabaseConnection) -> Result<Vec<String>, MigrationError> {
    migrate(db, Change::Up).await
}

/// Takes back the last `steps` migrations **with the data in their tables** and returns their names, newest first.
///
/// # Errors
/// As [`up`].
pub async fn down(db: &DatabaseConnection, steps: u32) -> Result<Vec<String>, MigrationError> {
    migrate(db, Change::Down { left: steps }).await
}

/// Whether these are the oldest of the migrations that this program knows, in order.
#[must_use]
pub fn knows(migrations: &[String]) -> bool {
    let mut names = names();
    migrations.iter().all(|name| names.next().as_ref() == Some(name))
}

/// Brings the schema of a database **without rows** to exactly these migrations, of which [`knows`] must hold; takes back
/// those that come later.
///
/// # Errors
/// As [`up`].
pub async fn exactly(db: &DatabaseConnection, migrations: &[String]) -> Result<(), MigrationError> {
    let later = applied(db).await?.iter().filter(|name| !migrations.contains(name)).count();
    down(db, u32::try_from(later).unwrap_or(u32::MAX)).await?;
    migrate(db, Change::UpTo { known: migrations.len() }).await.map(|_| ())
}

/// Every migration that this program knows, oldest first, and whether it is applied. Changes nothing.
///
/// # Errors
/// [`MigrationError::Newer`], [`MigrationError::Unfinished`], [`MigrationError::Foreign`], [`MigrationError::Database`].
pub async fn status(db: &DatabaseConnection) -> Result<Vec<(String, bool)>, MigrationError> {
    let applied: HashSet<String> = applied(db).await?.into_iter().collect();
    Ok(names().map(|name| (name.clone(), applied.contains(&name))).collect())
}

/// How many migrations this program knows.
#[must_use]
pub fn count() -> usize {
    names().count()
}

fn names() -> impl Iterator<Item = String> {
    Migrator::migrations().into_iter().map(|migration| migration.name().to_owned())
}

/// The names of the applied migrations, oldest first.
async fn applied<'c>(db: impl IntoSchemaManagerConnection<'c> + Copy) -> Result<Vec<String>, MigrationError> {
    let recorded = match table(db).await? {
        Some(recorded) => recorded,
        None => nothing_but_ours(db).await?,
    };
    if let Some(what) = recorded.iter().find_map(|name| unfinished::what(name)) {
        return Err(MigrationError::Unfinished(what.to_owned()));
    }
    let names: HashSet<String> = names().collect();
    let unknown: Vec<&str> = recorded.iter().filter(|name| !names.contains(*name)).map(String::as_str).collect();
    if unknown.is_empty() { Ok(recorded) } else { Err(MigrationError::Newer(unknown.join(", "))) }
}

/// Refuses tables of another program's where the table of applied migrations was missing: `IF NOT EXISTS` would take them for
/// this one's.
async fn nothing_but_ours<'c>(db: impl IntoSchemaManagerConnection<'c> + Copy) -> Result<Vec<String>, MigrationError> {
    let schema = SchemaManager::new(db);
    let mut there = Vec::new();
    for name in ["users", "qna", "comment"] {
        if schema.has_table(name).await? {
            there.push(name);
        }
    }
    // Another node may have begun a moment ago: that table is the first one it made.
    match table(db).await? {
        Some(recorded) => Ok(recorded),
        None if there.is_empty() => Ok(Vec::new()),
        None => Err(MigrationError::Foreign(there.join(", "))),
    }
}

/// What stands in the table of applied migrations, oldest first.
async fn recorded<'c>(db: impl IntoSchemaManagerConnection<'c>) -> Result<Vec<String>, DbErr> {
    Ok(table(db).await?.unwrap_or_default())
}

/// As [`recorded`]; none where that table is not there.
async fn table<'c>(db: impl IntoSchemaManagerConnection<'c>) -> Result<Option<Vec<String>>, DbErr> {
    let schema = SchemaManager::new(db);
    let query = || seaql_migrations::Entity::find().order_by_asc(seaql_migrations::Column::Version);
    let db = schema.get_connection();
    let rows = match query().all(db).await {
        Ok(rows) => rows,
        // The table is made with the first migration; asking for it only now spares every other start a query. Another
        // node may have made it a moment ago, so what matters is what it says now.
        Err(_) if schema.has_table("seaql_migrations").await? => query().all(db).await?,
        Err(_) => return Ok(None),
    };
    Ok(Some(rows.into_iter().map(|row| row.version).collect()))
}

/// What is to be done, one migration at a time.
#[derive(Clone, Copy)]
enum Change {
    Up,
    /// No further than the oldest `known`.
    UpTo {
        known: usize,
    },
    Down {
        left: u32,
    },
}

impl Change {
    /// The next migration to apply or to take back.
    fn next(self, applied: &[String]) -> Option<String> {
        match self {
            Self::Up => names().find(|name| !applied.contains(name)),
            Self::UpTo { known } => names().take(known).find(|name| !applied.contains(name)),
            Self::Down { left: 0 } => None,
            Self::Down { .. } => applied.last().cloned(),
        }
    }

    /// Does the next one.
    async fn step<'c>(
        &mut self,
        db: impl IntoSchemaManagerConnection<'c> + Copy,
    ) -> Result<Option<String>, MigrationError> {
        let Some(name) = self.next(&applied(db).await?) else { return Ok(None) };
        match self {
            Self::Up | Self::UpTo { .. } => Migrator::up(db, Some(1)).await?,
            Self::Down { left } => {
                Migrator::down(db, Some(1)).await?;
                *left -= 1;
            }
        }
        Ok(Some(name))
    }
}

/// What is to be done yet, and what was done. It outlives what fails on the way: whoever goes on does not begin again.
#[derive(Clone)]
struct Progress {
    change: Change,
    done: Vec<String>,
}

impl Progress {
    async fn all<'c>(&mut self, db: impl IntoSchemaManagerConnection<'c> + Copy) -> Result<(), MigrationError> {
        while let Some(name) = self.change.step(db).await? {
            self.done.push(name);
        }
        Ok(())
    }
}

async fn migrate(db: &DatabaseConnection, change: Change) -> Result<Vec<String>, MigrationError> {
    let start = Instant::now();
    let mut progress = Progress { change, done: Vec::new() };
    loop {
        if progress.change.next(&applied(db).await?).is_none() {
            return Ok(progress.done);
        }
        match try_migrate(db, &mut progress).await {
            Ok(true) => return Ok(progress.done),
            Ok(false) => {}
            Err(MigrationError::Database(error)) if is_contention(&error) => {}
            Err(error) => return Err(error),
        }
        if start.elapsed() > PATIENCE {
            return Err(MigrationError::StillLocked(PATIENCE));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `false` where another node holds the lease.
async fn try_migrate(db: &DatabaseConnection, progress: &mut Progress) -> Result<bool, MigrationError> {
    if db.get_database_backend() == DbBackend::Sqlite {
        let immediate = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let transaction = db.begin_with_options(immediate).await?;
        // All of it or none.
        let mut tried = progress.clone();
        tried.all(&transaction).await?;
        transaction.commit().await?;
        *progress = tried;
        return Ok(true);
    }
    let Some(lease) = Lease::take(db).await? else { return Ok(false) };
    lease.hold(progress.all(db)).await?;
    Ok(true)
}

/// Whether another node was in the way, and looking again will help.
fn is_contention(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        // All connections of our own pool are in use.
        return matches!(error, DbErr::ConnectionAcquire(_));
    };
    let sqlx::Error::Database(error) = &**error else { return false };
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        // 1020 changed since read, 1205 lock wait, 1213 deadlock.
        return matches!(error.number(), 1020 | 1205 | 1213);
    }
    // SQLite: the low byte of BUSY (5) and LOCKED (6); the rest of the code says which kind.
    error.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken back is what comes last by name: that must be what was applied last.
    #[test]
    fn the_order_of_names_is_the_order_of_changes() {
        let names: Vec<String> = names().collect();
        assert!(names.is_sorted_by(|earlier, later| earlier < later), "{names:?}");
    }

    #[test]
    fn the_next_step() {
        let all: Vec<String> = names().collect();
        assert_eq!(Change::Up.next(&[]).as_ref(), all.first());
        assert_eq!(Change::Up.next(&all[..2]).as_ref(), all.get(2));
        assert_eq!(Change::Up.next(&all), None);
        // One that was added below others that are applied already, as two branches do it.
        assert_eq!(Change::Up.next(&all[1..]).as_ref(), all.first());
        assert_eq!(Change::UpTo { known: 3 }.next(&all[..2]).as_ref(), all.get(2));
        assert_eq!(Change::UpTo { known: 2 }.next(&all[..2]), None);
        assert_eq!(Change::Down { left: 1 }.next(&all).as_ref(), all.last());
        assert_eq!(Change::Down { left: 0 }.next(&all), None);
        assert_eq!(Change::Down { left: 1 }.next(&[]), None);
    }
}
