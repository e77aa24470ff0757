//! Short transactions that only add rows, on connections that are kept at hand (see [`Kept`]) where there is a server.
//!
//! On such a connection nothing is committed by itself, so its first statement begins the transaction: one that adds a row takes
//! two round trips, where one of the pool takes four (`BEGIN`, the statement, `COMMIT`, and the pool's test). It never goes
//! back to the pool, where others would find it like that.

use std::sync::Arc;

use mundap_domain::StoreError;
use scopeguard::ScopeGuard;
use sea_orm::sqlx::{self, Executor as _, MySql, MySqlConnection};
use sea_orm::{
    ConnectionTrait as _, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement,
};

use crate::kept::{Kept, Unfinished, acquire_error, query, query_error};
use crate::turns::Turn;
use crate::units::{Share, Units};

/// Where they begin. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Writers {
    units: Units,
    server: Option<Arc<Server>>,
}

/// What they have of a server.
pub(crate) struct Server {
    pub(crate) kept: Kept<MySql, Prepared>,
    /// Whether the ids that one statement gives its rows lie as far apart as the session says.
    pub(crate) tells_id_step: bool,
}

/// What is known of a connection on which nothing is committed by itself.
pub(crate) struct Prepared {
    /// How far the ids lie apart that one statement gives its rows, where that is known.
    id_step: Option<i64>,
    /// As long as it is kept it is not the pool's.
    _turn: Turn,
}

impl Server {
    async fn prepare(&self, connection: &mut MySqlConnection, turn: Turn) -> Result<Prepared, sqlx::Error> {
        connection.execute("SET autocommit = 0").await?;
        let id_step = if self.tells_id_step {
            let step = sqlx::query_scalar("SELECT CAST(@@auto_increment_increment AS SIGNED)");
            Some(step.fetch_one(connection).await?)
        } else {
            None
        };
        Ok(Prepared { id_step, _turn: turn })
    }
}

impl Writers {
    pub(crate) fn new(units: Units, server: Option<Server>) -> Self {
        Self { units, server: server.map(Arc::new) }
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.units.backend()
    }

    /// Begins one, on a connection of the pool where none may be kept.
    pub(crate) async fn begin(&self) -> Result<Transaction, StoreError> {
        let (open, share) = self.units.beginning(async { Ok(self.hold().await?.map(Open::Kept)) }).await?;
        Ok(Transaction { open, _share: share })
    }

    /// A connection that is kept. None while there is trouble: the pool's are tested, and it may need those that are here.
    async fn hold(&self) -> Result<Option<Held>, DbErr> {
        let Some(server) = &self.server else { return Ok(None) };
        let kept = &server.kept;
        if kept.is_in_doubt() {
            kept.discard_idle();
            return Ok(None);
        }
        let Some(mut out) = kept.take().await.map_err(acquire_error)? else { return Ok(None) };
        if out.note.is_none() {
            // Whoever has to wait for one waits with the others.
            let Some(turn) = self.units.turns.free() else { return Ok(None) };
            out.connection.close_on_drop();
            // Seldom, and too large to be a part of each.
            out.note = Some(Box::pin(server.prepare(&mut out.connection, turn)).await.map_err(query_error)?);
        }
        Ok(Some(Held { out: out.unfinished(), server: server.clone() }))
    }

    /// Runs one statement of a transaction.
    pub(crate) async fn run<T>(
        &self,
        query: &'static str,
        statement: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, StoreError> {
        self.units.run(query, statement).await
    }

    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let Transaction { open, _share } = transaction;
        match open {
            Open::Pool(transaction) => self.units.commit(transaction.commit()).await,
            Open::Kept(held) => self.units.commit(held.end("COMMIT")).await,
        }
    }

    /// Rolls it back and keeps its connection, which is closed where a transaction is dropped.
    pub(crate) async fn roll_back(&self, transaction: Transaction) {
        if let Open::Kept(held) = transaction.open {
            // Where that fails it is dropped.
            let _ = self.units.within.run(held.end("ROLLBACK")).await;
        }
    }

    /// How many connections are kept and not in use.
    pub(crate) fn idle(&self) -> usize {
        self.server.as_ref().map_or(0, |server| server.kept.idle())
    }

    /// Gives the pool back those that are not in use, which closes them.
    pub(crate) fn give_back(&self) {
        if let Some(server) = &self.server {
            server.kept.give_back();
        }
    }
}

/// A transaction. Dropping it rolls it back.
pub(crate) struct Transaction {
    open: Open,
    _share: Share,
}

enum Open {
    Pool(DatabaseTransaction),
    Kept(Held),
}

impl From<DatabaseTransaction> for Open {
    fn from(transaction: DatabaseTransaction) -> Self {
        Self::Pool(transaction)
    }
}

impl Transaction {
    /// Whether its connection was at hand, and not tested before it began.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self.open, Open::Kept(_))
    }

    /// How far the ids lie apart that one statement gives its rows, where that is known.
    pub(crate) fn id_step(&self) -> Option<i64> {
        match &self.open {
            Open::Pool(_) => None,
            Open::Kept(held) => held.out.note.as_ref()?.id_step,
        }
    }

    pub(crate) async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        match &mut self.open {
            Open::Pool(transaction) => transaction.execute_raw(statement).await,
            Open::Kept(held) => {
                let executed = query::<MySql>(statement).execute(&mut *held.out.connection).await;
                executed.map(ExecResult::from).map_err(|error| DbErr::Exec(RuntimeErr::SqlxError(error.into())))
            }
        }
    }

    pub(crate) async fn all(&mut self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &mut self.open {
            Open::Pool(transaction) => transaction.query_all_raw(statement).await,
            Open::Kept(held) => {
                let rows = query::<MySql>(statement).fetch_all(&mut *held.out.connection).await;
                Ok(rows.map_err(query_error)?.into_iter().map(QueryResult::from).collect())
            }
        }
    }
}

/// A connection with a transaction that has not ended.
struct Held {
    out: Unfinished<MySql, Prepared>,
    server: Arc<Server>,
}

impl Held {
    /// Ends the transaction by this statement, and keeps the connection.
    async fn end(mut self, sql: &'static str) -> Result<(), DbErr> {
        self.out.connection.execute(sql).await.map_err(query_error)?;
        self.server.kept.keep(ScopeGuard::into_inner(self.out));
        Ok(())
    }
}
