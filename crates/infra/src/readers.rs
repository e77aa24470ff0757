//! Connections to read with, some of which are kept at hand.
//!
//! The driver's pool tests each connection that is given back, which is a round trip for every statement: as much as a short
//! one takes by itself. So a connection whose statement came to a good end is not given back but kept, for the next statement
//! of the thread that opened it. Whatever failed or was given up goes back to the pool and is tested there; what lay idle for
//! long, or was idle while there was trouble, is tested before it is used. Not all of the pool's
//! connections are for reading: units of work and streams find some that nobody keeps.

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sea_query::Values;
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, AssertSqlSafe, Connection as _, Database, Executor, IntoArguments, MySql, Pool, Sqlite};
use sea_orm::{
    ConnAcquireErr, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, QueryStream,
    RuntimeErr, SqlxMySqlConnector, SqlxSqliteConnector, Statement, StreamTrait,
};
use sea_query_sqlx::SqlxValues;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::batch::home;
use crate::limit::Trouble;

/// Where connections are kept: threads share a place only where there are more of them.
const PLACES: usize = 16;

/// After so long without use a connection is in doubt, and one that is not needed is closed.
const IDLE: Duration = Duration::from_secs(30);

/// How long it may take to say good-bye to a server that may have gone.
const GOODBYE: Duration = Duration::from_secs(1);

/// And after so long anyway: the pool knows how old one may become.
const AWAY: Duration = Duration::from_mins(10);

/// A pool to read with. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Readers {
    /// The same pool as SeaORM has it.
    database: DatabaseConnection,
    kept: Engine,
}

#[derive(Clone)]
enum Engine {
    MySql(Arc<Kept<MySql>>),
    Sqlite(Arc<Kept<Sqlite>>),
}

impl Readers {
    /// Reads with so many of the pool's connections, and keeps them unless they are all it has; whoever waits for one for longer
    /// than `patience` gets none. `trouble` says when they are in doubt.
    pub(crate) fn mysql(pool: Pool<MySql>, most: u32, patience: Duration, trouble: Trouble) -> Self {
        let database = SqlxMySqlConnector::from_sqlx_mysql_pool(pool.clone());
        Self { database, kept: Engine::MySql(Kept::new(pool, most, patience, trouble)) }
    }

    /// As [`mysql`](Self::mysql).
    pub(crate) fn sqlite(pool: Pool<Sqlite>, most: u32, patience: Duration, trouble: Trouble) -> Self {
        let database = SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.clone());
        Self { database, kept: Engine::Sqlite(Kept::new(pool, most, patience, trouble)) }
    }

    /// Of the two traits that say it, so that nobody has to choose.
    pub(crate) fn get_database_backend(&self) -> DbBackend {
        ConnectionTrait::get_database_backend(&self.database)
    }

    /// The pool itself, for what SeaORM wants one for. Nothing that it gives is kept.
    pub(crate) fn database(&self) -> &DatabaseConnection {
        &self.database
    }

    /// How many connections are kept and not in use.
    pub(crate) fn idle(&self) -> usize {
        match &self.kept {
            Engine::MySql(kept) => kept.idle(),
            Engine::Sqlite(kept) => kept.idle(),
        }
    }

    /// Closes the pool, once all its connections are back.
    pub(crate) async fn close(&self) {
        match &self.kept {
            Engine::MySql(kept) => kept.close().await,
            Engine::Sqlite(kept) => kept.close().await,
        }
    }
}

#[async_trait]
impl ConnectionTrait for Readers {
    fn get_database_backend(&self) -> DbBackend {
        self.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.database.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.database.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match &self.kept {
            Engine::MySql(kept) => kept.one(statement).await,
            Engine::Sqlite(kept) => kept.one(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.kept {
            Engine::MySql(kept) => kept.all(statement).await,
            Engine::Sqlite(kept) => kept.all(statement).await,
        }
    }
}

/// Of a stream nobody knows how far it will be read: its connection goes back to the pool.
impl StreamTrait for Readers {
    type Stream<'a> = QueryStream;

    fn get_database_backend(&self) -> DbBackend {
        self.get_database_backend()
    }

    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<QueryStream, DbErr>> + 'a + Send>> {
        self.database.stream_raw(statement)
    }
}

/// A connection that is tested. Unless that ends well it is closed: the pool would test it again, without a time limit, and
/// be one short meanwhile.
struct Doubtful<DB: Database>(Option<Out<DB>>);

impl<DB: Database> Doubtful<DB> {
    /// The connection, if it answers.
    async fn tested(mut self) -> Option<Out<DB>> {
        self.0.as_mut()?.connection.ping().await.ok()?;
        self.0.take()
    }
}

impl<DB: Database> Drop for Doubtful<DB> {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            discard(connection);
        }
    }
}

/// Closes a connection whose server may have gone; the pool may open another at once.
fn discard<DB: Database>(connection: Out<DB>) {
    let connection = connection.connection.detach();
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(timeout(GOODBYE, connection.close()));
    }
}

struct Kept<DB: Database> {
    pool: Pool<DB>,
    /// How many more may be in use, first come, first served, and how long one waits for that.
    turns: Arc<Semaphore>,
    patience: Duration,
    /// How many more may be kept.
    room: Arc<Semaphore>,
    places: [Mutex<Vec<Idle<DB>>>; PLACES],
    trouble: Trouble,
}

/// A connection that waits for its next statement.
struct Idle<DB: Database> {
    connection: Out<DB>,
    since: Instant,
}

/// A connection that is not in the pool. Dropping it gives it back.
struct Out<DB: Database> {
    connection: PoolConnection<DB>,
    /// Where it was opened, so that its thread hears first of what arrives for it.
    place: usize,
    since: Instant,
    /// That it may be kept.
    _room: OwnedSemaphorePermit,
}

/// A connection for one statement. Dropping it gives it back to the pool.
struct Taken<DB: Database> {
    connection: Source<DB>,
    _turn: OwnedSemaphorePermit,
}

enum Source<DB: Database> {
    Kept(Out<DB>),
    Plain(PoolConnection<DB>),
}

impl<DB: Database> Deref for Taken<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match &self.connection {
            Source::Kept(out) => &out.connection,
            Source::Plain(connection) => connection,
        }
    }
}

impl<DB: Database> DerefMut for Taken<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match &mut self.connection {
            Source::Kept(out) => &mut out.connection,
            Source::Plain(connection) => connection,
        }
    }
}

impl<DB: Database> Kept<DB> {
    fn new(pool: Pool<DB>, most: u32, patience: Duration, trouble: Trouble) -> Arc<Self> {
        let keep = if most < pool.options().get_max_connections() { most } else { 0 };
        let [turns, room] = [most, keep].map(|count| Arc::new(Semaphore::new(count as usize)));
        let places = std::array::from_fn(|_| Mutex::new(Vec::new()));
        Arc::new(Self { pool, turns, patience, room, places, trouble })
    }

    fn place(&self, place: usize) -> MutexGuard<'_, Vec<Idle<DB>>> {
        self.places[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last one that was put there, and whether it is in doubt.
    fn find(&self, place: usize) -> Option<(Out<DB>, bool)> {
        // A statement of its own: the place is free again.
        let idle = self.place(place).pop();
        let Idle { connection, since } = idle?;
        let idle = since.elapsed();
        Some((connection, idle >= IDLE || self.trouble.was_within(idle)))
    }

    /// One of another place.
    fn find_elsewhere(&self, place: usize) -> Option<(Out<DB>, bool)> {
        (1..PLACES).find_map(|step| self.find((place + step) % PLACES))
    }

    async fn take(&self) -> Result<Taken<DB>, DbErr> {
        // One limit for all of it: for the turn, for a test, and for a new connection.
        let taken = timeout(self.patience, async {
            // The semaphore is never closed.
            let turn = self.turns.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolTimedOut)?;
            Ok(Taken { connection: self.connection().await?, _turn: turn })
        });
        taken.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(acquire_error)
    }

    async fn connection(&self) -> Result<Source<DB>, sqlx::Error> {
        let place = home() % PLACES;
        let mut found = self.find(place);
        let mut room = None;
        if found.is_none() {
            room = self.room.clone().try_acquire_owned().ok();
            if room.is_none() {
                found = self.find_elsewhere(place);
            }
        }
        let kept = match found {
            Some((connection, true)) => Doubtful(Some(connection)).tested().await,
            Some((connection, false)) => Some(connection),
            None => None,
        };
        if let Some(connection) = kept {
            return Ok(Source::Kept(connection));
        }
        let connection = self.pool.acquire().await?;
        Ok(match room.or_else(|| self.room.clone().try_acquire_owned().ok()) {
            Some(room) => Source::Kept(Out { connection, place, since: Instant::now(), _room: room }),
            None => Source::Plain(connection),
        })
    }

    /// Keeps a connection whose statement came to a good end.
    fn keep(&self, taken: Taken<DB>) {
        // Its turn is over when it is there for the next.
        let Taken { connection: Source::Kept(connection), _turn } = taken else { return };
        if self.trouble.is_recent() || connection.since.elapsed() >= AWAY {
            return;
        }
        let (place, since) = (connection.place, Instant::now());
        let mut idle = self.place(place);
        // One at a time: those that are needed least are the first.
        let oldest = idle.first().is_some_and(|oldest| oldest.since.elapsed() >= IDLE).then(|| idle.remove(0));
        idle.push(Idle { connection, since });
        drop(idle);
        if let Some(Idle { connection, .. }) = oldest {
            discard(connection);
        }
        if self.pool.is_closed() {
            self.give_back();
        }
    }

    fn give_back(&self) {
        for place in 0..PLACES {
            let idle = std::mem::take(&mut *self.place(place));
            drop(idle);
        }
    }

    fn idle(&self) -> usize {
        (0..PLACES).map(|place| self.place(place).len()).sum()
    }

    async fn close(&self) {
        // It is closed from here on, and nothing is kept any more.
        let closing = self.pool.close();
        self.give_back();
        closing.await;
    }
}

impl<DB: Database> Kept<DB>
where
    SqlxValues: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    QueryResult: From<DB::Row>,
{
    async fn one(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut taken = self.take().await?;
        let row = query::<DB>(statement).fetch_optional(&mut *taken).await.map_err(query_error)?;
        self.keep(taken);
        Ok(row.map(QueryResult::from))
    }

    async fn all(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut taken = self.take().await?;
        let rows = query::<DB>(statement).fetch_all(&mut *taken).await.map_err(query_error)?;
        self.keep(taken);
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }
}

fn query<DB: Database>(statement: Statement) -> sqlx::query::Query<'static, DB, SqlxValues>
where
    SqlxValues: IntoArguments<DB>,
{
    let values = statement.values.unwrap_or_else(|| Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql), SqlxValues(values))
}

/// As SeaORM puts it.
fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}

/// As SeaORM puts it.
fn acquire_error(error: sqlx::Error) -> DbErr {
    match error {
        sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
        sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
        error => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    /// A pool of so many on an empty database, of which so many read.
    fn readers(all: u32, most: u32, trouble: Trouble) -> (Readers, Arc<Kept<Sqlite>>) {
        let options = SqliteConnectOptions::new().in_memory(true);
        let readers = Readers::sqlite(
            SqlitePoolOptions::new().max_connections(all).connect_lazy_with(options),
            most,
            PATIENCE,
            trouble,
        );
        let Engine::Sqlite(kept) = readers.kept.clone() else { panic!() };
        (readers, kept)
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    async fn ask(readers: &Readers, sql: &str) -> Result<i32, DbErr> {
        let statement = Statement::from_string(readers.get_database_backend(), sql);
        readers.query_one_raw(statement).await?.unwrap().try_get_by_index(0)
    }

    #[test]
    fn what_has_read_is_kept_and_read_with_again() {
        run(async {
            let (readers, kept) = readers(3, 2, Trouble::none());
            for n in 1..=3 {
                assert_eq!(ask(&readers, &format!("SELECT {n}")).await.unwrap(), n);
                assert_eq!((readers.idle(), kept.pool.size()), (1, 1));
            }
            // Two at once need two, and there are no more.
            let (first, second) = (kept.take().await.unwrap(), kept.take().await.unwrap());
            assert_eq!((readers.idle(), kept.pool.size()), (0, 2));
            kept.keep(first);
            kept.keep(second);
            assert_eq!((readers.idle(), kept.pool.size()), (2, 2));
        });
    }

    #[test]
    fn what_failed_or_was_given_up_goes_back_to_the_pool() {
        run(async {
            let (readers, kept) = readers(3, 2, Trouble::none());
            ask(&readers, "SELECT 1").await.unwrap();
            assert!(matches!(ask(&readers, "SELECT 1 FROM nowhere").await, Err(DbErr::Query(_))));
            assert_eq!(readers.idle(), 0);
            ask(&readers, "SELECT 1").await.unwrap();
            assert_eq!(readers.idle(), 1);
            assert!(ask(&readers, "SELECT 1").now_or_never().is_none(), "it takes no time");
            assert_eq!(readers.idle(), 0);
            // Nothing of it is lost.
            readers.close().await;
            assert_eq!(kept.room.available_permits(), 2);
            assert_eq!(kept.turns.available_permits(), 2);
        });
    }

    #[test]
    fn nothing_is_kept_while_there_is_trouble_nor_what_was_idle_then() {
        run(async {
            let trouble = Trouble::none();
            let (readers, kept) = readers(3, 2, trouble.clone());
            ask(&readers, "SELECT 1").await.unwrap();
            assert_eq!(readers.idle(), 1);
            trouble.mark();
            // It answers when it is tested.
            ask(&readers, "SELECT 1").await.unwrap();
            assert_eq!((readers.idle(), kept.pool.size()), (0, 1));
        });
    }

    #[test]
    fn nothing_is_kept_of_a_pool_that_has_no_more() {
        run(async {
            let (readers, _) = readers(1, 1, Trouble::none());
            ask(&readers, "SELECT 1").await.unwrap();
            assert_eq!(readers.idle(), 0);
            // For others need it too.
            readers.database().ping().await.unwrap();
        });
    }

    #[test]
    fn who_reads_waits_for_a_turn_but_not_for_long_and_leaves_the_rest_to_others() {
        run(async {
            let (readers, kept) = readers(2, 1, Trouble::none());
            let taken = kept.take().await.unwrap();
            let late = ask(&readers, "SELECT 1").await;
            assert!(matches!(late, Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))), "{late:?}");
            readers.database().ping().await.unwrap();
            let mut next = Box::pin(ask(&readers, "SELECT 2"));
            assert!(next.as_mut().now_or_never().is_none());
            kept.keep(taken);
            assert_eq!(next.await.unwrap(), 2);
        });
    }

    #[test]
    fn a_closed_pool_takes_back_what_is_kept() {
        run(async {
            let (readers, kept) = readers(3, 2, Trouble::none());
            let (first, second) = (kept.take().await.unwrap(), kept.take().await.unwrap());
            kept.keep(first);
            let mut closing = Box::pin(readers.close());
            assert!(closing.as_mut().now_or_never().is_none(), "one is in use");
            kept.keep(second);
            assert_eq!(readers.idle(), 0);
            closing.await;
            let late = ask(&readers, "SELECT 1").await;
            assert!(matches!(late, Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))), "{late:?}");
        });
    }
}
