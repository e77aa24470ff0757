//! Transactions: where they begin, and under which limits they run and end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mundap_domain::StoreError;
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait as _,
};

use crate::failure::is_of_ended;
use crate::limit::Limit;
use crate::timing::{Demand, Watch, Wish};
use crate::turns::{Turn, Turns};

/// The pool that transactions are opened on. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Units {
    pub(crate) connection: DatabaseConnection,
    pub(crate) demand: Demand,
    /// Of those that have no connection for good.
    pub(crate) turns: Turns,
    limit: Limit,
    /// Of what is within one: what has begun may come to its end.
    pub(crate) within: Limit,
    /// Whether none may begin: something is being carried into the database, or was and is not whole.
    is_shut: Arc<AtomicBool>,
}

/// What a transaction has of its pool, to be kept until it has ended.
pub(crate) struct Share {
    _wish: Wish,
    /// None where its connection has one for good.
    _turn: Option<Turn>,
}

impl Units {
    pub(crate) fn new(connection: DatabaseConnection, turns: Turns, limit: Limit) -> Self {
        let within = limit.past_the_breaker();
        Self { connection, demand: Demand::default(), turns, limit, within, is_shut: Arc::default() }
    }

    /// Says from now on whether a transaction may begin. Whether that is another word than before.
    pub(crate) fn shut(&self, is_shut: bool) -> bool {
        self.is_shut.swap(is_shut, Ordering::Relaxed) != is_shut
    }

    fn admit(&self) -> Result<(), StoreError> {
        if self.is_shut.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("a restore or a copy into the database is not finished".into()));
        }
        Ok(())
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    /// A transaction in its turn, and what it has of the pool.
    pub(crate) async fn begin(&self) -> Result<(DatabaseTransaction, Share), StoreError> {
        self.admit()?;
        let wish = self.demand.wish();
        let watch = Watch::start("unit.begin", &self.limit);
        watch.settle(self.in_turn(wish).await)
    }

    /// As [`begin`](Self::begin), unless something is held already.
    pub(crate) async fn beginning<T: From<DatabaseTransaction>>(
        &self,
        held: impl Future<Output = Result<Option<T>, DbErr>>,
    ) -> Result<(T, Share), StoreError> {
        self.admit()?;
        let wish = self.demand.wish();
        let watch = Watch::start("unit.begin", &self.limit);
        let begun = match self.limit.try_to(held, Option::is_some).await {
            Ok(Some(held)) => Ok((held, Share { _wish: wish, _turn: None })),
            Ok(None) => self.in_turn(wish).await.map(|(open, share)| (open.into(), share)),
            Err(error) => Err(error),
        };
        watch.settle(begun)
    }

    async fn in_turn(&self, wish: Wish) -> Result<(DatabaseTransaction, Share), StoreError> {
        let turn = self.limit.wait(self.turns.mine()).await?;
        let open = match self.limit.run(self.open()).await {
            // What lay idle in the pool may have ended meanwhile, and nothing has begun.
            Err(error) if is_of_ended(&error) => Box::pin(self.limit.run(self.open())).await?,
            open => open?,
        };
        Ok((open, Share { _wish: wish, _turn: Some(turn) }))
    }

    /// A transaction of the pool's.
    async fn open(&self) -> Result<DatabaseTransaction, DbErr> {
        // A transaction that starts by reading cannot always become a writing one on SQLite: it begins as one.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.connection.begin_with_options(options).await
    }

    /// Runs one statement of a transaction.
    pub(crate) async fn run<T>(
        &self,
        query: &'static str,
        statement: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, StoreError> {
        let watch = Watch::start(query, &self.within);
        watch.settle(self.within.run(statement).await)
    }

    pub(crate) async fn commit(&self, commit: impl Future<Output = Result<(), DbErr>>) -> Result<(), StoreError> {
        committed(&self.within, commit).await
    }
}

/// Commits in this way.
pub(crate) async fn committed(
    limit: &Limit,
    commit: impl Future<Output = Result<(), DbErr>>,
) -> Result<(), StoreError> {
    let watch = Watch::start("unit.commit", limit);
    watch.settle(limit.run(commit).await)
}
