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
        let wish = self.demand.wish();
        // A transaction that starts by reading cannot always become a writing one on SQLite: it begins as one.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let watch = Watch::start("unit.begin", &self.limit);
        let begun = watch.settle(self.limit.run(self.connection.begin_with_options(options)).await);
        Ok((begun?, wish))
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

    pub(crate) async fn commit(&self, transaction: DatabaseTransaction) -> Result<(), StoreError> {
        commit(&self.within, transaction).await
    }
}

pub(crate) async fn commit(limit: &Limit, transaction: DatabaseTransaction) -> Result<(), StoreError> {
    let watch = Watch::start("unit.commit", limit);
    watch.settle(limit.run(transaction.commit()).await)
}
