//! Transactions: where they begin, and under which limits they run and end.

use mundap_domain::StoreError;
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait as _,
};

use crate::limit::Limit;
use crate::timing::{Demand, Watch, Wish};

/// The pool that transactions are opened on. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Units {
    pub(crate) connection: DatabaseConnection,
    pub(crate) demand: Demand,
    limit: Limit,
    /// Of what is within one: what has begun may come to its end.
    pub(crate) within: Limit,
}

impl Units {
    pub(crate) fn new(connection: DatabaseConnection, demand: Demand, limit: Limit) -> Self {
        let within = limit.past_the_breaker();
        Self { connection, demand, limit, within }
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    /// A transaction, and what it wants of the pool, to be kept until it has ended.
    pub(crate) async fn begin(&self) -> Result<(DatabaseTransaction, Wish), StoreError> {
        self.beginning(self.open()).await
    }

    /// Opens one in this way.
    pub(crate) async fn beginning<T>(
        &self,
        open: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<(T, Wish), StoreError> {
        let wish = self.demand.wish();
        let watch = Watch::start("unit.begin", &self.limit);
        Ok((watch.settle(self.limit.run(open).await)?, wish))
    }

    /// A transaction of the pool's.
    pub(crate) async fn open(&self) -> Result<DatabaseTransaction, DbErr> {
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
