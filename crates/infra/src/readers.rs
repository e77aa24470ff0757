//! Connections to read with, most of which are kept at hand: see [`Kept`].

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{Database, Executor, IntoArguments, MySql, Pool, Sqlite};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, QueryStream, SqlxMySqlConnector,
    SqlxSqliteConnector, Statement, StreamTrait,
};
use sea_query_sqlx::SqlxValues;

use crate::failure::has_ended;
use crate::kept::{Kept, Out, acquire_error, query, query_error};
use crate::limit::Trouble;
use crate::turns::{Turn, Turns};

/// A pool to read with. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Readers {
    /// The same pool as SeaORM has it.
    database: DatabaseConnection,
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    MySql(Arc<Reading<MySql>>),
    Sqlite(Arc<Reading<Sqlite>>),
}

impl Readers {
    /// Reads with so many of the pool's connections, and keeps them unless they are all it has; whoever waits for one for longer
    /// than `patience` gets none. `trouble` says when they are in doubt.
    pub(crate) fn mysql(pool: Pool<MySql>, most: u32, patience: Duration, trouble: Trouble) -> Self {
        let database = SqlxMySqlConnector::from_sqlx_mysql_pool(pool.clone());
        Self { database, engine: Engine::MySql(Reading::new(pool, most, patience, trouble)) }
    }

    /// As [`mysql`](Self::mysql).
    pub(crate) fn sqlite(pool: Pool<Sqlite>, most: u32, patience: Duration, trouble: Trouble) -> Self {
        let database = SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.clone());
        Self { database, engine: Engine::Sqlite(Reading::new(pool, most, patience, trouble)) }
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
        match &self.engine {
            Engine::MySql(reading) => reading.kept.idle(),
            Engine::Sqlite(reading) => reading.kept.idle(),
        }
    }

    /// Closes the pool: from now on nothing is kept, and it comes to its end once all its connections are back.
    pub(crate) fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        match &self.engine {
            Engine::MySql(reading) => Box::pin(reading.close()),
            Engine::Sqlite(reading) => Box::pin(reading.close()),
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
        match &self.engine {
            Engine::MySql(reading) => reading.one(statement).await,
            Engine::Sqlite(reading) => reading.one(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.engine {
            Engine::MySql(reading) => reading.all(statement).await,
            Engine::Sqlite(reading) => reading.all(statement).await,
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
        Box::pin(async move {
            let _wanted = match &self.engine {
                Engine::MySql(reading) => reading.kept.wanted(),
                Engine::Sqlite(reading) => reading.kept.wanted(),
            };
            self.database.stream_raw(statement).await
        })
    }
}

/// Who reads, and with what.
struct Reading<DB: Database> {
    kept: Kept<DB>,
    turns: Turns,
}

/// A connection for one statement. Dropping it gives it back to the pool.
struct Taken<DB: Database> {
    connection: Source<DB>,
    _turn: Turn,
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

impl<DB: Database> Reading<DB> {
    fn new(pool: Pool<DB>, most: u32, patience: Duration, trouble: Trouble) -> Arc<Self> {
        let keep = if most < pool.options().get_max_connections() { most } else { 0 };
        Arc::new(Self { kept: Kept::new(pool, keep, trouble), turns: Turns::new(most, patience) })
    }

    async fn take(&self) -> Result<Taken<DB>, DbErr> {
        if let Some(turn) = self.turns.free()
            && let Some(kept) = self.kept.at_hand()
        {
            return Ok(Taken { connection: Source::Kept(kept), _turn: turn });
        }
        // Its state is large, and would be a part of every statement's.
        Box::pin(self.wait()).await
    }

    async fn wait(&self) -> Result<Taken<DB>, DbErr> {
        // A test, or a new connection, is a part of what is waited for.
        let taken = self.turns.then(|turn| async move {
            let connection = match self.kept.take().await.map_err(acquire_error)? {
                Some(kept) => Source::Kept(kept),
                None => Source::Plain(self.kept.pool().acquire().await.map_err(acquire_error)?),
            };
            Ok(Taken { connection, _turn: turn })
        });
        taken.await
    }

    /// Another connection, for a kept one that ended, most likely while nobody used it: its server was started anew, or a proxy
    /// leads to another one. To read twice does no harm.
    async fn instead_of(&self, ended: Taken<DB>, error: DbErr) -> Result<Taken<DB>, DbErr> {
        if matches!(ended.connection, Source::Plain(_)) || !has_ended(&error) {
            return Err(error);
        }
        self.kept.distrust();
        drop(ended);
        Box::pin(self.wait()).await
    }

    /// Keeps a connection whose statement came to a good end.
    fn keep(&self, taken: Taken<DB>) {
        // Its turn is over when it is there for the next.
        let Taken { connection: Source::Kept(connection), _turn } = taken else { return };
        self.kept.keep(connection);
    }

    fn close(&self) -> impl Future<Output = ()> + '_ {
        // It is closed from here on.
        let closing = self.kept.pool().close();
        self.kept.give_back();
        closing
    }
}

impl<DB: Database> Reading<DB>
where
    SqlxValues: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    QueryResult: From<DB::Row>,
{
    async fn one(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut taken = self.take().await?;
        let row = match query::<DB>(statement.clone()).fetch_optional(&mut *taken).await {
            Ok(row) => row,
            Err(error) => {
                taken = self.instead_of(taken, query_error(error)).await?;
                query::<DB>(statement).fetch_optional(&mut *taken).await.map_err(query_error)?
            }
        };
        self.keep(taken);
        Ok(row.map(QueryResult::from))
    }

    async fn all(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut taken = self.take().await?;
        let rows = match query::<DB>(statement.clone()).fetch_all(&mut *taken).await {
            Ok(rows) => rows,
            Err(error) => {
                taken = self.instead_of(taken, query_error(error)).await?;
                query::<DB>(statement).fetch_all(&mut *taken).await.map_err(query_error)?
            }
        };
        self.keep(taken);
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;
    use sea_orm::ConnAcquireErr;
    use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    /// A pool of so many on an empty database, of which so many read.
    fn readers(all: u32, most: u32, trouble: Trouble) -> (Readers, Arc<Reading<Sqlite>>) {
        let options = SqliteConnectOptions::new().in_memory(true);
        let readers = Readers::sqlite(
            SqlitePoolOptions::new().max_connections(all).connect_lazy_with(options),
            most,
            PATIENCE,
            trouble,
        );
        let Engine::Sqlite(reading) = readers.engine.clone() else { panic!() };
        (readers, reading)
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
            let (readers, reading) = readers(3, 2, Trouble::none());
            for n in 1..=3 {
                assert_eq!(ask(&readers, &format!("SELECT {n}")).await.unwrap(), n);
                assert_eq!((readers.idle(), reading.kept.pool().size()), (1, 1));
            }
            // Two at once need two, and there are no more.
            let (first, second) = (reading.take().await.unwrap(), reading.take().await.unwrap());
            assert_eq!((readers.idle(), reading.kept.pool().size()), (0, 2));
            reading.keep(first);
            reading.keep(second);
            assert_eq!((readers.idle(), reading.kept.pool().size()), (2, 2));
        });
    }

    #[test]
    fn a_stream_finds_a_connection_where_all_that_are_left_are_kept() {
        run(async {
            let (readers, reading) = readers(3, 2, Trouble::none());
            let (first, second) = (reading.take().await.unwrap(), reading.take().await.unwrap());
            reading.keep(first);
            reading.keep(second);
            let stream = || {
                // Less than the pool's own patience.
                let stream = readers.stream_raw(Statement::from_string(DbBackend::Sqlite, "SELECT 1"));
                timeout(Duration::from_secs(5), stream)
            };
            // The third is there, and nobody has to give way.
            drop(stream().await.expect("the third").unwrap());
            assert_eq!(readers.idle(), 2);
            let _others = reading.kept.pool().acquire().await.unwrap();
            drop(stream().await.expect("one that did nothing").unwrap());
            assert_eq!((readers.idle(), reading.kept.room()), (1, 1));
            // Where none does nothing, the first that has done its work.
            let (first, second) = (reading.take().await.unwrap(), reading.take().await.unwrap());
            let mut third = pin!(stream());
            assert!(third.as_mut().now_or_never().is_none(), "it waits");
            reading.keep(first);
            assert_eq!(readers.idle(), 0);
            drop(third.await.expect("one that is given back").unwrap());
            reading.keep(second);
            assert_eq!(readers.idle(), 1, "nobody wants it");
        });
    }

    #[test]
    fn what_failed_or_was_given_up_goes_back_to_the_pool() {
        run(async {
            let (readers, reading) = readers(3, 2, Trouble::none());
            ask(&readers, "SELECT 1").await.unwrap();
            assert!(matches!(ask(&readers, "SELECT 1 FROM nowhere").await, Err(DbErr::Query(_))));
            assert_eq!(readers.idle(), 0);
            ask(&readers, "SELECT 1").await.unwrap();
            assert_eq!(readers.idle(), 1);
            let long = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT max(i) FROM n";
            assert!(ask(&readers, long).now_or_never().is_none(), "it takes no time");
            assert_eq!(readers.idle(), 0);
            // Nothing of it is lost.
            readers.close().await;
            assert_eq!(reading.kept.room(), 2);
            assert_eq!(reading.turns.count(), 2);
        });
    }

    #[test]
    fn nothing_is_kept_while_there_is_trouble_nor_what_was_idle_then() {
        run(async {
            let trouble = Trouble::none();
            let (readers, reading) = readers(3, 2, trouble.clone());
            ask(&readers, "SELECT 1").await.unwrap();
            assert_eq!(readers.idle(), 1);
            let at_hand = reading.kept.at_hand().expect("nothing speaks against it");
            reading.kept.keep(at_hand);
            trouble.mark();
            assert!(reading.kept.at_hand().is_none(), "it has to be tested");
            // It answers when it is.
            ask(&readers, "SELECT 1").await.unwrap();
            assert_eq!((readers.idle(), reading.kept.pool().size()), (0, 1));
        });
    }

    #[test]
    fn what_lay_idle_for_a_moment_is_not_taken_untested() {
        run(async {
            let (readers, reading) = readers(3, 2, Trouble::none());
            ask(&readers, "SELECT 1").await.unwrap();
            tokio::time::pause();
            tokio::time::advance(Trouble::DOUBT / 2).await;
            let at_hand = reading.kept.at_hand().expect("it was used just now");
            reading.kept.keep(at_hand);
            tokio::time::advance(Trouble::DOUBT).await;
            assert!(reading.kept.at_hand().is_none(), "its server may have been started anew");
            // It answers when it is tested, and is kept.
            tokio::time::resume();
            ask(&readers, "SELECT 1").await.unwrap();
            assert_eq!((readers.idle(), reading.kept.pool().size()), (1, 1));
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
            let (readers, reading) = readers(2, 1, Trouble::none());
            let taken = reading.take().await.unwrap();
            let late = ask(&readers, "SELECT 1").await;
            assert!(matches!(late, Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))), "{late:?}");
            readers.database().ping().await.unwrap();
            let mut next = Box::pin(ask(&readers, "SELECT 2"));
            assert!(next.as_mut().now_or_never().is_none());
            reading.keep(taken);
            assert_eq!(next.await.unwrap(), 2);
        });
    }

    #[test]
    fn a_closed_pool_takes_back_what_is_kept() {
        run(async {
            let (readers, reading) = readers(3, 2, Trouble::none());
            let (first, second) = (reading.take().await.unwrap(), reading.take().await.unwrap());
            reading.keep(first);
            let mut closing = Box::pin(readers.close());
            assert!(closing.as_mut().now_or_never().is_none(), "one is in use");
            reading.keep(second);
            assert_eq!(readers.idle(), 0);
            closing.await;
            let late = ask(&readers, "SELECT 1").await;
            assert!(matches!(late, Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))), "{late:?}");
        });
    }
}
