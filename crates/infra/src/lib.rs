//! What Mundap's domain stands on: its ports, implemented.
//!
//! | module | implements |
//! | --- | --- |
//! | `qna`, `comment`, `image`, `user`, `sign_in`, `receipt`, `audit`, `outbox`, `mail_token`, `rate` | one repository each, on SQLite, MariaDB and MySQL alike |
//! | `connect` | [`connect()`]: pools, sessions, time limits |
//! | `failure` | what a driver's error means: the only place that makes a [`StoreError`] of one |
//! | `limit` | what becomes of a statement that does not come back, and of its connection |
//! | `row` | what rows share: time, authors, values that break the domain's rules |
//! | `password` | [`Argon2Pool`] |
//! | `pool` | threads that work off a bounded queue |
//! | `picture` | [`PicturePool`] |
//! | `blob` | [`BlobFolder`] |
//! | `token` | [`Ed25519Tokens`] |
//! | `key`, `keyring` | [`SigningKeys`] |
//! | `smtp`, `letter` | [`SmtpMailer`], and what its letters say |
//! | `env` | [`SystemClock`], [`OsEntropy`] |
//!
//! A repository is implemented once, on `Session`, which is either the pool (each call its own statement) or one open
//! transaction.

mod audit;
mod blob;
mod comment;
mod connect;
mod env;
mod failure;
mod image;
mod key;
mod keyring;
mod letter;
mod limit;
mod mail_token;
mod outbox;
mod password;
mod picture;
mod pool;
mod qna;
mod rate;
mod receipt;
mod row;
mod sign_in;
mod smtp;
mod token;
mod user;

use std::fmt;

use async_trait::async_trait;
use mundap_domain::{
    AuditRepository, CommentRepository, ImageRepository, MailTokenRepository, OutboxRepository, QnaRepository,
    RateRepository, ReceiptRepository, Repositories, SignInRepository, Store, StoreError, UnitOfWork, UserRepository,
};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait as _,
};

pub use blob::BlobFolder;
pub use connect::{ConnectError, DatabaseSettings, connect};
pub use env::{OsEntropy, SystemClock};
pub use keyring::{KeyError, KeyState, Rotation, SigningKeys};
pub use password::Argon2Pool;
pub use picture::PicturePool;
pub use smtp::{SmtpError, SmtpMailer};
pub use token::Ed25519Tokens;

use limit::Limit;

/// Which database engine a store stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    Sqlite,
    MariaDb,
    MySql,
}

impl fmt::Display for DatabaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::MariaDb => "MariaDB",
            Self::MySql => "MySQL",
        })
    }
}

/// Where the repositories' statements go: the pool, or one open transaction.
struct Session<C> {
    connection: C,
    limit: Limit,
    /// Whether a row that a use case decides on must be locked: in a unit, and not on SQLite, where a unit is the only
    /// writer anyway.
    locks_rows: bool,
}

impl<C: ConnectionTrait + Send> Session<C> {
    /// Runs one statement under the time limit.
    async fn run<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, StoreError> {
        self.limit.run(statement).await
    }
}

impl<C: ConnectionTrait + Send> Repositories for Session<C> {
    fn qnas(&self) -> &dyn QnaRepository {
        self
    }
    fn comments(&self) -> &dyn CommentRepository {
        self
    }
    fn images(&self) -> &dyn ImageRepository {
        self
    }
    fn users(&self) -> &dyn UserRepository {
        self
    }
    fn sign_ins(&self) -> &dyn SignInRepository {
        self
    }
    fn receipts(&self) -> &dyn ReceiptRepository {
        self
    }
    fn outbox(&self) -> &dyn OutboxRepository {
        self
    }
    fn mail_tokens(&self) -> &dyn MailTokenRepository {
        self
    }
    fn audit(&self) -> &dyn AuditRepository {
        self
    }
    fn rates(&self) -> &dyn RateRepository {
        self
    }
}

#[async_trait]
impl UnitOfWork for Session<DatabaseTransaction> {
    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        let Self { connection, limit, .. } = *self;
        limit.run(connection.commit()).await
    }
}

/// The board's database. Cloning it is cheap and shares the connections.
#[derive(Clone)]
pub struct SeaStore {
    kind: DatabaseKind,
    reader: std::sync::Arc<Session<DatabaseConnection>>,
    /// Where units of work begin.
    units: DatabaseConnection,
    migrations: DatabaseConnection,
    limit: Limit,
}

impl SeaStore {
    fn new(
        kind: DatabaseKind,
        reader: DatabaseConnection,
        units: DatabaseConnection,
        migrations: DatabaseConnection,
        limit: Limit,
    ) -> Self {
        let reader = Session { connection: reader, limit: limit.clone(), locks_rows: false };
        Self { kind, reader: reader.into(), units, migrations, limit }
    }

    /// For migrations alone: connections that may write and that no statement time limit ends.
    #[must_use]
    pub fn writer(&self) -> &DatabaseConnection {
        &self.migrations
    }

    /// Which engine it is.
    #[must_use]
    pub fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// Engine and version, such as `MariaDB 10.11.14`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn describe(&self) -> Result<String, StoreError> {
        let version: String = self
            .ask(match self.kind {
                DatabaseKind::Sqlite => "SELECT sqlite_version()",
                DatabaseKind::MariaDb | DatabaseKind::MySql => "SELECT VERSION()",
            })
            .await?;
        // `10.11.14-MariaDB-0+deb12u2`: the rest is the packager's.
        Ok(format!("{} {}", self.kind, version.split('-').next().unwrap_or_default()))
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] within the statement's time limit.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.ask::<i32>("SELECT 1").await.map(|_| ())
    }

    /// Closes every connection, once those in use are given back; a database that hangs is waited for no longer than
    /// for one statement, and what is open then ends with the process.
    pub async fn close(&self) {
        self.limit.trouble.end();
        let closing = async {
            // The readers first: on SQLite the last one to go tidies up, and that needs a writer.
            for connection in [&self.reader.connection, &self.units, &self.migrations] {
                if let Err(error) = connection.close_by_ref().await {
                    tracing::warn!(%error, "A database connection could not be closed cleanly");
                }
            }
        };
        if tokio::time::timeout(self.limit.statement, closing).await.is_err() {
            tracing::warn!("The database connections did not close in time");
        }
    }

    /// The one value that a query gives.
    async fn ask<T: sea_orm::TryGetable>(&self, sql: &str) -> Result<T, StoreError> {
        let connection = &self.reader.connection;
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let answer = async {
            let row = connection.query_one_raw(statement).await?;
            row.ok_or_else(|| DbErr::RecordNotFound(sql.to_owned()))?.try_get_by_index(0)
        };
        self.reader.run(answer).await
    }
}

#[async_trait]
impl Store for SeaStore {
    fn reader(&self) -> &dyn Repositories {
        &*self.reader
    }

    async fn begin(&self) -> Result<Box<dyn UnitOfWork>, StoreError> {
        // A transaction that starts by reading cannot always become a writing one on SQLite: it begins as one.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let connection = self.limit.run(self.units.begin_with_options(options)).await?;
        let locks_rows = self.kind != DatabaseKind::Sqlite;
        Ok(Box::new(Session { connection, limit: self.limit.clone(), locks_rows }))
    }
}
