//! How long statements take, by repository and method, and how many want a connection.
//!
//! The driver's pool says how many connections it has and how many of them are idle, but not how many wait for one; so
//! those that want one are counted here, and whoever wants one and has none waits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics::{Histogram, gauge, histogram};
use mundap_domain::StoreError;
use sea_orm::DatabaseConnection;
use tracing::Span;
use tracing::field::Empty;

use crate::limit::Limit;
use crate::{DatabaseKind, SeaStore};

/// The target of every span that is one of a trace: those of libraries, and log lines, are not.
pub const SPANS: &str = "mundap::spans";

/// Times one statement. It counts when it is dropped, so that what nobody waits for any more is counted too.
pub(crate) struct Watch {
    query: &'static str,
    slow: Duration,
    started: Instant,
    outcome: &'static str,
    /// A child of the request's, where traces are collected. It is not entered: what runs within a statement is the driver.
    span: Span,
}

impl Watch {
    /// `query` is the repository and its method, such as `qna.find`; one that takes longer than the limit's
    /// `slow` is named in the log.
    pub(crate) fn start(query: &'static str, limit: &Limit) -> Self {
        let span = tracing::info_span!(
            target: SPANS,
            "statement",
            otel.name = query,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = system(limit.kind),
            db.operation.name = query.split_once('.').map_or(query, |(_, method)| method),
            db.query.summary = query,
            error.r#type = Empty,
        );
        Self { query, slow: limit.slow, started: Instant::now(), outcome: "abandoned", span }
    }

    /// Takes down how it ended.
    pub(crate) fn settle<T>(self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        self.end(answer.as_ref().err());
        answer
    }

    /// As [`settle`](Self::settle): with this error, or well.
    pub(crate) fn end(mut self, error: Option<&StoreError>) {
        self.outcome = outcome(error);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Self { query, slow, started, outcome, .. } = *self;
        if outcome != "ok" && !self.span.is_disabled() {
            self.span.record("error.type", outcome);
            // The others are answers, which a use case reckons with.
            if !matches!(outcome, "duplicate" | "missing_reference" | "stale") {
                self.span.record("otel.status_code", "ERROR");
            }
        }
        let took = started.elapsed();
        // A thread that ends takes its meters along.
        let _ = METERS.try_with(|meters| {
            let mut meters = meters.borrow_mut();
            meters.entry((query, outcome)).or_insert_with(|| meter(query, outcome)).record(took);
        });
        if took > slow {
            let duration_ms = took.as_secs_f64() * 1000.0;
            tracing::warn!(db.query = query, db.outcome = outcome, duration_ms, "{query} took {took:.1?} ({outcome})");
        }
    }
}

thread_local! {
    /// By query and outcome: to find a meter anew for each statement would cost more than to count it.
    static METERS: RefCell<HashMap<(&'static str, &'static str), Histogram>> = RefCell::default();
}

fn meter(query: &'static str, outcome: &'static str) -> Histogram {
    let (repository, method) = query.split_once('.').unwrap_or((query, ""));
    histogram!(
        "mundap_database_query_duration_seconds",
        "repository" => repository, "method" => method, "outcome" => outcome
    )
}

/// As OpenTelemetry's conventions call it.
fn system(kind: DatabaseKind) -> &'static str {
    match kind {
        DatabaseKind::Sqlite => "sqlite",
        DatabaseKind::MariaDb => "mariadb",
        DatabaseKind::MySql => "mysql",
    }
}

fn outcome(error: Option<&StoreError>) -> &'static str {
    match error {
        None => "ok",
        Some(StoreError::Duplicate(_)) => "duplicate",
        Some(StoreError::MissingReference(_)) => "missing_reference",
        Some(StoreError::Stale) => "stale",
        Some(StoreError::Contention(_)) => "contention",
        Some(StoreError::Unavailable(_)) => "unavailable",
        Some(StoreError::Corrupt { .. }) => "corrupt",
        Some(StoreError::Backend(_)) => "backend",
    }
}

/// How many want a connection of one pool: who has one, and who waits. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Demand(Arc<AtomicUsize>);

impl Demand {
    /// From now until it is dropped, one more.
    pub(crate) fn wish(&self) -> Wish {
        self.0.fetch_add(1, Ordering::Relaxed);
        Wish(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that wants a connection.
pub(crate) struct Wish(Demand);

impl Drop for Wish {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SeaStore {
    /// Sets the gauges of the pools to what they are now.
    pub fn report_pools(&self) {
        let (reading, writing) = (&self.reading, &self.units.demand);
        let kept = self.reader.connection.idle();
        match self.kind {
            DatabaseKind::Sqlite => {
                report("read", self.figures(self.looking(), kept), reading);
                report("write", self.figures(&self.units.connection, 0), writing);
            }
            DatabaseKind::MariaDb | DatabaseKind::MySql => {
                report("all", self.figures(&self.units.connection, kept + self.writers.idle()), writing);
            }
        }
    }

    /// How many connections there are, how many of them are idle, and how many there may be. `kept` are idle outside the pool.
    fn figures(&self, pool: &DatabaseConnection, kept: usize) -> [usize; 3] {
        let (size, idle, most) = match self.kind {
            DatabaseKind::Sqlite => {
                let pool = pool.get_sqlite_connection_pool();
                (pool.size(), pool.num_idle(), pool.options().get_max_connections())
            }
            DatabaseKind::MariaDb | DatabaseKind::MySql => {
                let pool = pool.get_mysql_connection_pool();
                (pool.size(), pool.num_idle(), pool.options().get_max_connections())
            }
        };
        [size as usize, idle + kept, most as usize]
    }
}

fn report(pool: &'static str, [size, idle, most]: [usize; 3], demand: &Demand) {
    // The two figures of the driver are not of one moment.
    let used = size.saturating_sub(idle);
    for (state, count) in [("used", used), ("idle", idle)] {
        gauge!("mundap_database_connections", "pool" => pool, "state" => state).set(figure(count));
    }
    gauge!("mundap_database_connections_max", "pool" => pool).set(figure(most));
    gauge!("mundap_database_connections_waiting", "pool" => pool).set(figure(demand.count().saturating_sub(used)));
}

/// As gauges take it.
pub(crate) fn figure(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_counted_until_it_is_dropped() {
        let demand = Demand::default();
        let (first, second) = (demand.wish(), demand.clone().wish());
        assert_eq!(demand.count(), 2);
        drop(first);
        assert_eq!(demand.count(), 1);
        drop(second);
        assert_eq!(demand.count(), 0);
    }
}
