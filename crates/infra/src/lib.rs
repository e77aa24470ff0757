//! What Mundap's domain stands on: its ports, implemented.
//!
//! | module | implements |
//! | --- | --- |
//! | `qna`, `comment`, `image`, `user`, `sign_in`, `receipt`, `audit`, `outbox`, `mail_token`, `rate` | one repository each, on SQLite, MariaDB and MySQL alike |
//! | `connect` | [`connect()`]: pools, sessions, time limits |
//! | `failure` | what a driver's error means: the only place that makes a [`StoreError`] of one |
//! | `actors` | who is asking, and who wrote what is shown, remembered for a moment |
//! | `author` | who wrote what a list shows |
//! | `batch` | small reads that come together, as one statement |
//! | `pages` | pages of lists, read once for all who ask at the same time |
//! | `windows` | pages whose ends can be guessed, several by one statement |
//! | `together` | small writes that come together, by one transaction |
//! | `units` | transactions: where they begin, and their limits |
//! | `kept` | connections that are kept at hand |
//! | `readers` | those to read with |
//! | `turns` | how many of a pool may be used at once, by whom |
//! | `writers` | those that small writes go by |
//! | `breaker` | failing at once while the database is away |
//! | `limit` | what becomes of a statement that does not come back, and of its connection |
//! | `tally` | [`Tally`] |
//! | `last` | when something last happened |
//! | `timing` | how long statements take, and how many want a connection |
//! | `tables` | a table, described by its row: what backups, copies and the doctor know of it |
//! | `row` | what rows share: time, authors, values that break the domain's rules |
//! | `password` | [`Argon2Pool`] |
//! | `pool` | threads that work off a bounded queue |
//! | `picture` | [`PicturePool`] |
//! | `blob` | [`BlobFolder`] |
//! | `home` | [`Home`]: whether a database's images are in this node's folder |
//! | `token` | [`Ed25519Tokens`] |
//! | `key`, `keyring` | [`SigningKeys`] |
//! | `smtp`, `letter` | [`SmtpMailer`], and what its letters say |
//! | `fastapi` | [`import()`]: the first program's board brought over |
//! | `env` | [`SystemClock`], [`OsEntropy`] |
//! | [`doctor`] | whether a board is sound, and what can be mended of it |
//! | [`transfer`] | a whole board into an archive, out of it, and from one database to another |
//!
//! A repository is implemented once, on `Session`, which is either the pool (each call its own statement) or one open
//! transaction.

mod actors;
mod audit;
mod author;
mod batch;
mod blob;
mod breaker;
mod comment;
mod connect;
pub mod doctor;
mod env;
mod failure;
mod fastapi;
mod home;
mod image;
mod kept;
mod key;
mod keyring;
mod last;
mod letter;
mod limit;
mod mail_token;
mod outbox;
mod pages;
mod password;
mod picture;
mod pool;
mod probe;
mod qna;
mod rate;
mod readers;
mod receipt;
mod row;
mod sign_in;
mod smtp;
mod tables;
mod tally;
mod timing;
mod together;
mod token;
pub mod transfer;
mod turns;
mod units;
mod user;
mod windows;
mod writers;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mundap_domain::env::retrying_while;
use mundap_domain::idempotency::{Claim, NotAdded};
use mundap_domain::qna::{NewQna, Qna};
use mundap_domain::{
    AuditRepository, CommentRepository, ImageRepository, MailTokenRepository, OutboxRepository, QnaRepository,
    RateRepository, ReceiptRepository, Repositories, SignInRepository, Store, StoreError, UnitOfWork, UserRepository,
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, Statement, StreamTrait};

pub use blob::BlobFolder;
pub use connect::{ConnectError, DatabaseSettings, connect};
pub use env::{OsEntropy, SystemClock};
pub use fastapi::{Change, FastApi, ImportError, ImportPlan, ImportReport, Reason, TableReport, Zone, import};
pub use home::{Home, HomeError, Household};
pub use keyring::{KeyError, KeyState, Rotation, SigningKeys};
pub use password::Argon2Pool;
pub use picture::PicturePool;
pub use smtp::{SmtpError, SmtpMailer};
pub use tally::Tally;
pub use timing::SPANS;
pub use token::Ed25519Tokens;

use actors::Actors;
use batch::Pool;
use limit::Limit;
use pages::Pages;
use qna::{Asked, Asking};
use readers::Readers;
use timing::{Demand, Watch};
use together::Together;
use units::{Share, Units, committed};
use writers::Writers;

/// Every table that is carried from one database to another and examined, those that others refer to first. A table that is
/// left is named in [`transfer::LEFT`], with the reason.
const TABLES: &[&dyn tables::Carried] = &[
    &user::row::Entity,
    &qna::row::Entity,
    &comment::row::Entity,
    &image::row::Entity,
    &sign_in::row::Entity,
    &receipt::row::Entity,
    &outbox::row::Entity,
    &mail_token::row::Entity,
    &audit::row::Entity,
    &fastapi::target::row::mark::Entity,
    &fastapi::target::row::left::Entity,
    &fastapi::target::row::person::Entity,
];

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
    origin: Origin,
    actors: Actors,
}

/// Where a session's connections come from.
enum Origin {
    /// Each statement wants one of the pool.
    Pool { demand: Demand, batches: Batches },
    /// The unit holds one to its end.
    Unit {
        _share: Share,
        /// Whether it changes an account, or ends a sign-in.
        changes_actors: AtomicBool,
    },
}

/// What is read for all who ask for it at the same time.
struct Batches {
    questions: qna::Questions,
    question_pages: Pages<qna::WithAuthor>,
    comment_pages: Pages<comment::WithAuthor>,
    receipts: receipt::Receipts,
}

impl Batches {
    fn new(pool: &Pool, actors: &Actors) -> Self {
        Self {
            questions: qna::questions(pool.clone(), actors.clone()),
            question_pages: Pages::new(&qna::LIST, pool.clone()),
            comment_pages: Pages::new(&comment::LIST, pool.clone()),
            receipts: receipt::receipts(pool.clone()),
        }
    }
}

impl<C: ConnectionTrait + Send> Session<C> {
    /// Runs one statement under the time limit. `query` is the repository and its method, such as `qna.find`: what
    /// metrics, traces and the log call it.
    fn run<T>(
        &self,
        query: &'static str,
        statement: impl Future<Output = Result<T, DbErr>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        // Not another future around this one: a statement's is large, and each would hold it once more.
        self.run_under(&self.limit, query, statement)
    }

    /// Runs one statement under another limit than the session's.
    async fn run_under<T>(
        &self,
        limit: &Limit,
        query: &'static str,
        statement: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, StoreError> {
        let _wish = match &self.origin {
            Origin::Pool { demand, .. } => Some(demand.wish()),
            Origin::Unit { .. } => None,
        };
        let watch = Watch::start(query, limit);
        watch.settle(limit.run(statement).await)
    }

    /// Waits for what others read along, under no limit but its own.
    async fn timed<T>(
        &self,
        query: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let watch = Watch::start(query, &self.limit);
        watch.settle(answer.await)
    }

    /// Whether this is a unit that has changed an account.
    fn changes_actors(&self) -> bool {
        matches!(&self.origin, Origin::Unit { changes_actors, .. } if changes_actors.load(Ordering::Relaxed))
    }

    /// To be said behind every statement that changes an account or ends a sign-in, whatever came of it.
    fn actors_change(&self) {
        match &self.origin {
            Origin::Pool { .. } => self.actors.changed(),
            // Not before it is committed: until then what is read is what was.
            Origin::Unit { changes_actors, .. } => changes_actors.store(true, Ordering::Relaxed),
        }
    }
}

impl<C: ConnectionTrait + StreamTrait + Send> Repositories for Session<C> {
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
        let changes_actors = self.changes_actors();
        // What the unit wanted of the pool is given back behind its commit.
        let Self { connection, limit, origin: _origin, actors, .. } = *self;
        let _changes = changes_actors.then(|| actors.behind());
        committed(&limit, connection.commit()).await
    }
}

/// The board's database. Cloning it is cheap and shares the connections.
#[derive(Clone)]
pub struct SeaStore {
    kind: DatabaseKind,
    reader: std::sync::Arc<Session<Readers>>,
    /// How many want a connection to read: on SQLite others than those that write.
    reading: Demand,
    units: Units,
    writers: Writers,
    questions: Together<Asked, Asking>,
    migrations: DatabaseConnection,
    limit: Limit,
}

impl SeaStore {
    fn new(
        kind: DatabaseKind,
        reader: Readers,
        units: Units,
        migrations: DatabaseConnection,
        limit: Limit,
        patience: Duration,
        server: Option<writers::Server>,
    ) -> Self {
        let reading = if kind == DatabaseKind::Sqlite { Demand::default() } else { units.demand.clone() };
        let pool = Pool { connection: reader.clone(), limit: limit.clone(), demand: reading.clone() };
        let actors = Actors::new();
        let origin = Origin::Pool { demand: reading.clone(), batches: Batches::new(&pool, &actors) };
        let reader = Session { connection: reader, limit: limit.clone(), locks_rows: false, origin, actors };
        let writers = Writers::new(units.clone(), server);
        let questions = Together::new(Asking { kind, writers: writers.clone() }, patience);
        Self { kind, reader: reader.into(), reading, units, writers, questions, migrations, limit }
    }

    /// For migrations alone: connections that may write and that no statement time limit ends.
    #[must_use]
    pub fn writer(&self) -> &DatabaseConnection {
        &self.migrations
    }

    /// For a look at the schema: a connection of the readers.
    #[must_use]
    pub fn looking(&self) -> &DatabaseConnection {
        self.reader.connection.database()
    }

    /// Refuses every unit of work from now on, or no more: what is written into a database that something is being carried
    /// into is removed by whoever carries, or keeps it from its end. Reading goes on.
    pub fn refuse_units(&self, refuse: bool) {
        if !self.units.shut(refuse) {
            return;
        }
        if refuse {
            tracing::error!("a restore or a copy into the database is not finished: until it is, nothing is written");
        } else {
            tracing::info!("the restore or copy into the database is finished: writes are taken again");
        }
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
            .ask(
                "store.describe",
                match self.kind {
                    DatabaseKind::Sqlite => "SELECT sqlite_version()",
                    DatabaseKind::MariaDb | DatabaseKind::MySql => "SELECT VERSION()",
                },
            )
            .await?;
        // `10.11.14-MariaDB-0+deb12u2`: the rest is the packager's.
        Ok(format!("{} {}", self.kind, version.split('-').next().unwrap_or_default()))
    }

    /// Whether the database answers: somebody, where all connections are taken.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] within the statement's time limit.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match self.ask::<i32>("store.ping", "SELECT 1").await {
            Ok(_) | Err(StoreError::Contention(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the database is a node of a Galera cluster.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn is_galera(&self) -> Result<bool, StoreError> {
        match self.kind {
            DatabaseKind::Sqlite => Ok(false),
            DatabaseKind::MariaDb | DatabaseKind::MySql => {
                self.is_on("store.wsrep_on", "SHOW GLOBAL VARIABLES LIKE 'wsrep_on'").await
            }
        }
    }

    /// Whether a node of a Galera cluster takes part in it: one that is cut off or catching up does not, and refuses all
    /// but this question.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn is_wsrep_ready(&self) -> Result<bool, StoreError> {
        self.is_on("store.wsrep_ready", "SHOW GLOBAL STATUS LIKE 'wsrep_ready'").await
    }

    /// Whether a variable of the server is `ON`; where there is none, it is not.
    async fn is_on(&self, query: &'static str, sql: &str) -> Result<bool, StoreError> {
        let connection = &self.reader.connection;
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let answer = async {
            let Some(row) = connection.query_one_raw(statement).await? else { return Ok(false) };
            Ok(row.try_get_by_index::<String>(1)?.eq_ignore_ascii_case("on"))
        };
        self.reader.run(query, answer).await
    }

    /// Closes every connection, once those in use are given back; a database that hangs is waited for no longer than
    /// for one statement, and what is open then ends with the process.
    pub async fn close(&self) {
        self.limit.end();
        let closing = async {
            // The readers first: on SQLite the last one to go tidies up, and that needs a writer.
            let closing = self.reader.connection.close();
            self.writers.give_back();
            closing.await;
            for connection in [&self.units.connection, &self.migrations] {
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
    async fn ask<T: sea_orm::TryGetable>(&self, query: &'static str, sql: &str) -> Result<T, StoreError> {
        let connection = &self.reader.connection;
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let answer = async {
            let row = connection.query_one_raw(statement).await?;
            row.ok_or_else(|| DbErr::RecordNotFound(sql.to_owned()))?.try_get_by_index(0)
        };
        // Whoever asks wants to know, not to be told what was.
        self.reader.run_under(&self.limit.past_the_breaker(), query, answer).await
    }
}

#[async_trait]
impl Store for SeaStore {
    fn reader(&self) -> &dyn Repositories {
        &*self.reader
    }

    async fn begin(&self) -> Result<Box<dyn UnitOfWork>, StoreError> {
        Ok(Box::new(self.unit().await?))
    }

    async fn add_qna(&self, qna: &NewQna, claim: Option<&Claim>) -> Result<Qna, NotAdded<StoreError>> {
        let watch = Watch::start("qna.add", &self.limit);
        let answer = self.questions.add((qna.clone(), claim.cloned())).await;
        watch.end(answer.as_ref().err().map(NotAdded::cause));
        answer
    }
}

impl SeaStore {
    async fn unit(&self) -> Result<Session<DatabaseTransaction>, StoreError> {
        let (connection, share) = self.units.begin().await?;
        let origin = Origin::Unit { _share: share, changes_actors: AtomicBool::new(false) };
        Ok(Session {
            connection,
            limit: self.units.within.clone(),
            locks_rows: self.kind != DatabaseKind::Sqlite,
            origin,
            actors: self.reader.actors.clone(),
        })
    }
}

/// Runs a whole unit again while it meets others.
async fn retried<T, F>(unit: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    retrying_while(&SystemClock, |error| matches!(error, StoreError::Contention(_)), unit).await
}
