//! How long a statement may take, and what becomes of its connection when it takes longer.
//!
//! The server's own limits (set in `connect.rs`) end a slow statement cleanly, but a server that is frozen or cut off
//! does not even do that. So the caller stops waiting too, and the connection, which still waits for an answer, is
//! tested before it may go back to the pool. Testing each connection at each return would cost a third of the
//! throughput, hence [`Trouble`]: the test is on only while there is reason to doubt.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mundap_domain::StoreError;
use sea_orm::{ConnAcquireErr, DbErr};
use tokio::time::timeout;

use crate::failure::store_error;

/// What every statement of one store runs under.
#[derive(Clone)]
pub(crate) struct Limit {
    pub(crate) statement: Duration,
    pub(crate) trouble: Trouble,
    /// What it means that no connection came free in time.
    pub(crate) no_connection: fn(DbErr) -> StoreError,
}

impl Limit {
    /// Runs one statement, waiting for a connection included.
    pub(crate) async fn run<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, StoreError> {
        // Dropping `statement` gives its connection back. Declared before `doubt`, it is dropped after it, so that
        // whatever ends this future early, the pool hears of the trouble first.
        let mut statement = pin!(statement);
        let mut doubt = Doubt { trouble: &self.trouble, settled: false };
        let Ok(outcome) = timeout(self.statement, statement.as_mut()).await else {
            let late = io::Error::new(io::ErrorKind::TimedOut, "the statement took too long");
            return Err(StoreError::Unavailable(late.into()));
        };
        let outcome = outcome.map_err(|error| match error {
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => (self.no_connection)(error),
            error => store_error(error),
        });
        doubt.settled = !matches!(outcome, Err(StoreError::Unavailable(_)));
        outcome
    }
}

/// Marks trouble unless a statement came to a clean end.
struct Doubt<'a> {
    trouble: &'a Trouble,
    settled: bool,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.trouble.mark();
        }
    }
}

/// When a connection was last seen to fail, to hang, or to be left in the middle of a statement.
#[derive(Clone)]
pub(crate) struct Trouble {
    start: Instant,
    /// Nanoseconds from `start`, plus one; 0 for never. As fine as connections tell how long they lay idle: one that was
    /// given back just before the trouble must not count as younger than it.
    last: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Trouble {
    /// How long connections are tested after trouble.
    const LASTS: Duration = Duration::from_secs(10);

    pub(crate) fn none() -> Self {
        Self { start: Instant::now(), last: Arc::default(), over: Arc::default() }
    }

    fn mark(&self) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
        self.last.fetch_max(now + 1, Ordering::Relaxed);
    }

    /// The store is closed: nothing needs to be mended any more.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// How long ago it was.
    fn ago(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.start.elapsed().saturating_sub(Duration::from_nanos(last)))
    }

    /// Whether a connection that is given back must be tested.
    pub(crate) fn is_recent(&self) -> bool {
        self.ago().is_some_and(|ago| ago < Self::LASTS)
    }

    /// Whether there was trouble while a connection lay idle for this long.
    pub(crate) fn was_within(&self, idle: Duration) -> bool {
        self.ago().is_some_and(|ago| ago <= idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Limit {
        Limit { statement: Duration::from_secs(1), trouble: Trouble::none(), no_connection: store_error }
    }

    fn in_paused_time(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
    }

    #[test]
    fn a_statement_that_never_answers_is_unavailable_and_trouble() {
        in_paused_time(async {
            let limit = limit();
            let outcome = limit.run(std::future::pending::<Result<(), DbErr>>()).await;
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))));
            assert!(limit.trouble.is_recent());
        });
    }

    #[test]
    fn a_statement_that_is_abandoned_is_trouble_before_its_connection_goes_back() {
        struct Connection(Trouble);
        impl Drop for Connection {
            fn drop(&mut self) {
                assert!(self.0.is_recent());
            }
        }
        in_paused_time(async {
            let limit = limit();
            let connection = Connection(limit.trouble.clone());
            let statement = async move {
                let _connection = connection;
                std::future::pending::<Result<(), DbErr>>().await
            };
            let abandoned = timeout(Duration::from_millis(1), limit.run(statement)).await;
            assert!(abandoned.is_err());
        });
    }

    #[test]
    fn a_statement_that_fails_cleanly_is_no_trouble() {
        in_paused_time(async {
            let limit = limit();
            limit.run(async { Ok(()) }).await.unwrap();
            limit.run(async { Err::<(), _>(DbErr::RecordNotInserted) }).await.unwrap_err();
            assert!(!limit.trouble.is_recent());
            assert!(!limit.trouble.was_within(Duration::MAX));
        });
    }

    #[test]
    fn trouble_concerns_connections_that_were_idle_then() {
        let trouble = Trouble::none();
        trouble.mark();
        assert!(trouble.was_within(Duration::from_secs(1)));
        std::iter::repeat_with(|| trouble.was_within(Duration::ZERO)).find(|within| !within).unwrap();
    }
}
