//! Failing at once while the database is away, instead of after every time limit again.
//!
//! Statements that come to nothing one after another open the breaker. From then on requests are refused without
//! waiting, and somebody looks after the database on a connection of its own until it answers: no request has to be the
//! one that finds out.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mundap_domain::StoreError;
use mundap_domain::error::KnownAway;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use crate::last::Last;

/// Tries the database once, outside the pool: why it does not answer. A pool knows only that it took too long.
pub(crate) type Look = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// A store's breaker. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Breaker(Arc<State>);

struct State {
    /// Failures without a sign of life between them.
    failures: AtomicU32,
    is_open: AtomicBool,
    /// Whether somebody is looking: there is never more than one.
    is_watched: AtomicBool,
    is_over: AtomicBool,
    /// When the database last answered.
    alive: Last,
    look: Look,
    runtime: Handle,
}

impl Breaker {
    /// So many that a single slow statement, or one connection that broke, is none of them.
    const FAILURES: u32 = 5;
    /// How long one look may take, and how long it is to the next one: the database is found soon after its return.
    const LOOK_LASTS: Duration = Duration::from_millis(500);
    const LOOK_EVERY: Duration = Duration::from_millis(250);

    /// A closed one, whose looks run on the runtime that this is called on.
    ///
    /// # Panics
    /// Outside a runtime.
    pub(crate) fn new(look: Look) -> Self {
        let breaker = Self(Arc::new(State {
            failures: AtomicU32::new(0),
            is_open: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            alive: Last::never(),
            look,
            runtime: Handle::current(),
        }));
        breaker.show();
        breaker
    }

    /// As it is now, in the metrics.
    fn show(&self) {
        let is_open = self.0.is_open.load(Ordering::SeqCst);
        metrics::gauge!("mundap_database_breaker_state").set(if is_open { 1.0 } else { 0.0 });
    }

    /// # Errors
    /// [`StoreError::Unavailable`] while it is open.
    pub(crate) async fn admit(&self) -> Result<(), StoreError> {
        if !self.0.is_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Whoever tries again and again must not keep the look from happening.
        tokio::task::yield_now().await;
        Err(StoreError::Unavailable(KnownAway.into()))
    }

    /// The database answered, be it that it refused.
    pub(crate) fn alive(&self) {
        let state = &*self.0;
        state.alive.mark();
        if state.failures.load(Ordering::Relaxed) != 0 {
            state.failures.store(0, Ordering::Relaxed);
        }
        if state.is_open.load(Ordering::Relaxed) && state.is_open.swap(false, Ordering::SeqCst) {
            self.show();
            tracing::info!("the database answers again");
        }
    }

    /// Nothing came of a statement, as if the database were not there.
    pub(crate) fn away(&self) {
        let failures = self.0.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < Self::FAILURES || self.0.is_open.swap(true, Ordering::SeqCst) {
            return;
        }
        self.show();
        tracing::error!(failures, "the database does not answer: until it does, requests are refused at once");
        if !self.0.is_watched.swap(true, Ordering::SeqCst) {
            self.0.runtime.spawn(self.clone().watch());
        }
    }

    /// Whether the database has answered anybody since then.
    pub(crate) fn was_alive_since(&self, then: Instant) -> bool {
        self.0.alive.is_since(then)
    }

    /// The store is closed: nobody needs to look any more.
    pub(crate) fn end(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    async fn watch(self) {
        let state = &*self.0;
        let needs_it = || state.is_open.load(Ordering::SeqCst) && !state.is_over.load(Ordering::Relaxed);
        loop {
            let mut is_told = false;
            // A statement that was under way may close it first.
            while needs_it() {
                let looked = timeout(Self::LOOK_LASTS, (state.look)()).await;
                let reason = match looked {
                    Ok(Ok(())) => {
                        self.alive();
                        continue;
                    }
                    Ok(Err(reason)) => reason,
                    Err(_) => format!("it says nothing within {:?}", Self::LOOK_LASTS),
                };
                if !is_told {
                    is_told = true;
                    tracing::error!(error = reason, "what a connection to the database comes to: {reason}");
                }
                sleep(Self::LOOK_EVERY).await;
            }
            // Whoever closed it may have shown that before whoever opened it did.
            self.show();
            state.is_watched.store(false, Ordering::SeqCst);
            // It may have opened again just before that, and whoever opened it relied on this.
            if !needs_it() || state.is_watched.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::in_paused_time;

    #[derive(Clone, Copy, PartialEq)]
    enum Answer {
        Comes,
        Fails,
        NeverComes,
    }

    /// A breaker and the database that it looks after; how often it looked.
    fn of(first: Answer) -> (Breaker, Arc<std::sync::Mutex<Answer>>, Arc<AtomicU32>) {
        let (answer, looks) = (Arc::new(std::sync::Mutex::new(first)), Arc::new(AtomicU32::new(0)));
        let look: Look = Box::new({
            let (answer, looks) = (answer.clone(), looks.clone());
            move || {
                looks.fetch_add(1, Ordering::Relaxed);
                let answer = *answer.lock().unwrap();
                Box::pin(async move {
                    match answer {
                        Answer::Comes => Ok(()),
                        Answer::Fails => Err("nobody listens".to_owned()),
                        Answer::NeverComes => std::future::pending().await,
                    }
                })
            }
        });
        (Breaker::new(look), answer, looks)
    }

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.away();
        }
    }

    #[test]
    fn a_few_failures_do_not_open_it_and_any_answer_starts_the_count_again() {
        in_paused_time(async {
            let (breaker, _, looks) = of(Answer::Fails);
            for _ in 0..10 {
                fail(&breaker, Breaker::FAILURES - 1);
                assert!(breaker.admit().await.is_ok());
                breaker.alive();
            }
            assert_eq!(looks.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn it_refuses_while_the_database_is_away_and_closes_soon_after_its_return() {
        for away in [Answer::Fails, Answer::NeverComes] {
            in_paused_time(async move {
                let (breaker, answer, looks) = of(away);
                fail(&breaker, Breaker::FAILURES);
                let start = Instant::now();
                while start.elapsed() < Duration::from_secs(20) {
                    assert!(matches!(breaker.admit().await, Err(StoreError::Unavailable(_))));
                    sleep(Duration::from_millis(10)).await;
                }
                let looked = looks.load(Ordering::Relaxed);
                assert!((25..=82).contains(&looked), "{looked}");
                *answer.lock().unwrap() = Answer::Comes;
                let back = Instant::now();
                while breaker.admit().await.is_err() {
                    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
                    sleep(Duration::from_millis(10)).await;
                }
                // Nobody looks any more.
                let looked = looks.load(Ordering::Relaxed);
                sleep(Duration::from_secs(5)).await;
                assert_eq!(looks.load(Ordering::Relaxed), looked);
                // And it works a second time.
                *answer.lock().unwrap() = Answer::Fails;
                fail(&breaker, Breaker::FAILURES);
                assert!(breaker.admit().await.is_err());
                *answer.lock().unwrap() = Answer::Comes;
                sleep(Duration::from_secs(1)).await;
                assert!(breaker.admit().await.is_ok());
            });
        }
    }

    #[test]
    fn where_the_database_is_there_after_all_it_closes_at_once() {
        in_paused_time(async {
            let (breaker, _, looks) = of(Answer::Comes);
            fail(&breaker, Breaker::FAILURES);
            // One turn for the look.
            let _ = breaker.admit().await;
            assert!(breaker.admit().await.is_ok());
            assert_eq!(looks.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn a_statement_that_was_under_way_closes_it_and_a_closed_store_is_not_looked_after() {
        in_paused_time(async {
            let (breaker, _, looks) = of(Answer::Fails);
            fail(&breaker, Breaker::FAILURES);
            assert!(breaker.admit().await.is_err());
            breaker.alive();
            assert!(breaker.admit().await.is_ok());
            fail(&breaker, Breaker::FAILURES);
            breaker.end();
            sleep(Duration::from_secs(1)).await;
            let looked = looks.load(Ordering::Relaxed);
            sleep(Duration::from_secs(5)).await;
            assert_eq!(looks.load(Ordering::Relaxed), looked);
        });
    }

    #[test]
    fn it_knows_whether_the_database_answered_since() {
        in_paused_time(async {
            let (breaker, _, _) = of(Answer::Comes);
            let before = Instant::now();
            assert!(!breaker.was_alive_since(before));
            sleep(Duration::from_millis(5)).await;
            breaker.alive();
            assert!(breaker.was_alive_since(before));
            sleep(Duration::from_millis(5)).await;
            assert!(!breaker.was_alive_since(Instant::now()));
        });
    }
}
