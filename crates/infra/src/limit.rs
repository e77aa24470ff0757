//! How long a statement may take, and what becomes of its connection when it takes longer.
//!
//! The server's own limits (set in `connect.rs`) end a slow statement cleanly, but a server that is frozen or cut off
//! does not even do that. So the caller stops waiting too, and the connection, which still waits for an answer, is
//! tested before it may go back to the pool. Testing each connection at each return would cost a third of the
//! throughput, hence [`Trouble`]: the test is on only while there is reason to doubt.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mundap_domain::StoreError;
use sea_orm::{ConnAcquireErr, DbErr};
use tokio::time::{Instant, timeout};

use crate::DatabaseKind;
use crate::breaker::Breaker;
use crate::failure::{is_away, store_error};
use crate::last::Last;

/// What every statement of one store runs under.
#[derive(Clone)]
pub(crate) struct Limit {
    /// Whose statements they are.
    pub(crate) kind: DatabaseKind,
    pub(crate) statement: Duration,
    /// How long one may take before the log names it.
    pub(crate) slow: Duration,
    pub(crate) trouble: Trouble,
    /// `None` for a file: it is there, and all that can keep a connection is others' work.
    pub(crate) breaker: Option<Breaker>,
    /// Whether an open breaker keeps statements from starting.
    pub(crate) is_gated: bool,
}

impl Limit {
    /// As this one, for statements that are tried whatever the breaker says. What comes of them it hears all the same.
    pub(crate) fn past_the_breaker(&self) -> Self {
        Self { is_gated: false, ..self.clone() }
    }

    /// The store is closed: nothing needs to be mended or looked after any more.
    pub(crate) fn end(&self) {
        self.trouble.end();
        if let Some(breaker) = &self.breaker {
            breaker.end();
        }
    }

    /// Runs one statement, waiting for a connection included.
    pub(crate) fn run<T>(
        &self,
        statement: impl Future<Output = Result<T, DbErr>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        self.try_to(statement, |_| true)
    }

    /// As [`run`](Self::run), where not everything that may come of it is the database's answer.
    pub(crate) async fn try_to<T>(
        &self,
        statement: impl Future<Output = Result<T, DbErr>>,
        is_answer: fn(&T) -> bool,
    ) -> Result<T, StoreError> {
        // Dropping `statement` gives its connection back. Declared before `doubt`, it is dropped after it, so that
        // whatever ends this future early, the pool hears of the trouble first.
        let mut statement = pin!(statement);
        self.admit().await?;
        let start = Instant::now();
        let mut doubt = Doubt { trouble: &self.trouble, settled: false };
        let Ok(outcome) = timeout(self.statement, statement.as_mut()).await else {
            self.breaker.as_ref().inspect(|breaker| breaker.away());
            let late = io::Error::new(io::ErrorKind::TimedOut, "the statement took too long");
            return Err(StoreError::Unavailable(late.into()));
        };
        let outcome = match outcome {
            Ok(value) => {
                self.breaker.as_ref().filter(|_| is_answer(&value)).inspect(|breaker| breaker.alive());
                Ok(value)
            }
            Err(error) => Err(self.failed(error, start)),
        };
        doubt.settled = !matches!(outcome, Err(StoreError::Unavailable(_)));
        outcome
    }

    /// Refuses while the breaker is open.
    async fn admit(&self) -> Result<(), StoreError> {
        match &self.breaker {
            Some(breaker) if self.is_gated => breaker.admit().await,
            _ => Ok(()),
        }
    }

    /// Waits for a turn behind other statements, which are those that find out what the database does.
    pub(crate) async fn wait<T>(&self, turn: impl Future<Output = Result<T, DbErr>>) -> Result<T, StoreError> {
        self.admit().await?;
        let start = Instant::now();
        turn.await.map_err(|error| {
            if self.was_alive_since(start) { StoreError::Contention(error.into()) } else { store_error(error) }
        })
    }

    /// Whether it is there for sure. A file is.
    fn was_alive_since(&self, start: Instant) -> bool {
        self.breaker.as_ref().is_none_or(|breaker| breaker.was_alive_since(start))
    }

    /// What an error means for a statement that started then.
    fn failed(&self, error: DbErr, start: Instant) -> StoreError {
        // The driver does not say which it was: all connections taken, or none to be had. Where somebody else was
        // answered meanwhile, it was the former.
        if matches!(error, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) && self.was_alive_since(start) {
            return StoreError::Contention(error.into());
        }
        match &self.breaker {
            None => store_error(error),
            Some(breaker) => {
                if is_away(&error) {
                    breaker.away();
                } else {
                    breaker.alive();
                }
                store_error(error)
            }
        }
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
    last: Arc<Last>,
    over: Arc<AtomicBool>,
}

impl Trouble {
    /// How long connections are tested after trouble.
    const LASTS: Duration = Duration::from_secs(10);

    /// After so long without use a connection is in doubt: no server is ended and started in less. Where there is less to do
    /// than this, a round trip more is no matter.
    pub(crate) const DOUBT: Duration = Duration::from_secs(1);

    pub(crate) fn none() -> Self {
        Self { last: Arc::new(Last::never()), over: Arc::default() }
    }

    pub(crate) fn mark(&self) {
        self.last.mark();
    }

    /// The store is closed: nothing needs to be mended any more.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether a connection that is given back must be tested.
    pub(crate) fn is_recent(&self) -> bool {
        self.last.ago().is_some_and(|ago| ago < Self::LASTS)
    }

    /// Whether a connection that lay idle for this long must be tested before it is used.
    pub(crate) fn doubts(&self, idle: Duration) -> bool {
        idle >= Self::DOUBT || self.was_within(idle)
    }

    /// Whether there was trouble while a connection lay idle for this long.
    fn was_within(&self, idle: Duration) -> bool {
        self.last.ago().is_some_and(|ago| ago <= idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::in_paused_time;

    fn limit() -> Limit {
        Limit {
            kind: DatabaseKind::MySql,
            statement: Duration::from_secs(1),
            slow: Duration::from_secs(1),
            trouble: Trouble::none(),
            breaker: Some(Breaker::new(Box::new(|| Box::pin(std::future::ready(Err(String::new())))))),
            is_gated: true,
        }
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
    fn what_is_refused_is_answered_and_opens_no_breaker() {
        in_paused_time(async {
            let limit = limit();
            for _ in 0..20 {
                limit.run(async { Err::<(), _>(DbErr::RecordNotInserted) }).await.unwrap_err();
            }
            limit.run(async { Ok(()) }).await.unwrap();
        });
    }

    #[test]
    fn statements_that_hang_open_the_breaker() {
        in_paused_time(async {
            let limit = limit();
            for _ in 0..20 {
                limit.run(std::future::pending::<Result<(), DbErr>>()).await.unwrap_err();
            }
            let start = Instant::now();
            limit.run(async { Ok(()) }).await.unwrap_err();
            assert_eq!(start.elapsed(), Duration::ZERO);
        });
    }

    #[test]
    fn whoever_waits_in_vain_says_nothing_of_the_database() {
        in_paused_time(async {
            let limit = limit();
            let in_vain = || async { Err::<(), _>(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) };
            for _ in 0..20 {
                let outcome = limit.wait(in_vain()).await;
                assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "nobody knows better: {outcome:?}");
            }
            assert!(!limit.trouble.is_recent());
            limit.run(async { Ok(()) }).await.expect("the breaker is closed");
            let answered_meanwhile = async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                limit.run(async { Ok(()) }).await.unwrap();
                in_vain().await
            };
            let outcome = limit.wait(answered_meanwhile).await;
            assert!(matches!(outcome, Err(StoreError::Contention(_))), "{outcome:?}");
            let of_a_file = Limit { breaker: None, ..limit.clone() };
            assert!(matches!(of_a_file.wait(in_vain()).await, Err(StoreError::Contention(_))));
            for _ in 0..20 {
                limit.breaker.as_ref().unwrap().away();
            }
            let start = Instant::now();
            limit.wait(std::future::pending::<Result<(), _>>()).await.unwrap_err();
            assert_eq!(start.elapsed(), Duration::ZERO, "nobody waits while it is away");
        });
    }

    #[test]
    fn what_goes_past_the_open_breaker_closes_it_by_an_answer() {
        in_paused_time(async {
            let limit = limit();
            for _ in 0..20 {
                limit.breaker.as_ref().unwrap().away();
            }
            limit.run(async { Ok(()) }).await.unwrap_err();
            limit.past_the_breaker().run(async { Ok(()) }).await.unwrap();
            limit.run(async { Ok(()) }).await.unwrap();
        });
    }

    #[test]
    fn what_is_no_answer_of_the_database_closes_no_breaker() {
        in_paused_time(async {
            let limit = limit();
            for _ in 0..20 {
                limit.breaker.as_ref().unwrap().away();
            }
            let past = limit.past_the_breaker();
            past.try_to(async { Ok(None::<()>) }, Option::is_some).await.unwrap();
            limit.run(async { Ok(()) }).await.unwrap_err();
            past.try_to(async { Ok(Some(())) }, Option::is_some).await.unwrap();
            limit.run(async { Ok(()) }).await.unwrap();
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
