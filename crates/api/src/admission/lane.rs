//! Lanes: so many at once, a bounded queue, and a refusal for the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// So many at once, and a bounded queue of more, first come, first served.
pub(crate) struct Lane {
    name: &'static str,
    room: Arc<Semaphore>,
    /// How many may be inside: in its places and in its queue, counted together. Whoever is called up from the queue and has
    /// not noticed yet would otherwise be counted in both.
    most: usize,
    inside: AtomicUsize,
    /// How long one may wait.
    patience: Duration,
    in_flight: Gauge,
    queued: Gauge,
    queue_full: Counter,
    waited: Counter,
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shed {
    QueueFull,
    Waited,
}

impl Lane {
    pub(super) fn new(name: &'static str, room: usize, queue: usize, patience: Duration) -> Arc<Self> {
        metrics::gauge!("mundap_http_lane_places", "lane" => name)
            .set(f64::from(u32::try_from(room).unwrap_or(u32::MAX)));
        let shed = |reason| metrics::counter!("mundap_http_shed_total", "lane" => name, "reason" => reason);
        Arc::new(Self {
            name,
            room: Arc::new(Semaphore::new(room)),
            most: room.saturating_add(queue),
            inside: AtomicUsize::new(0),
            patience,
            in_flight: metrics::gauge!("mundap_http_lane_in_flight", "lane" => name),
            queued: metrics::gauge!("mundap_http_lane_queued", "lane" => name),
            queue_full: shed("queue_full"),
            waited: shed("waited"),
        })
    }

    pub(super) fn is_full(&self) -> bool {
        self.inside.load(Ordering::Relaxed) >= self.most
    }

    /// Whether to turn somebody away at once, who is counted then.
    pub(crate) fn turns_away(&self) -> bool {
        let full = self.is_full();
        if full {
            self.queue_full.increment(1);
        }
        full
    }

    /// A request of it is given up.
    pub(crate) fn count_timeout(&self) {
        metrics::counter!("mundap_http_timeouts_total", "lane" => self.name).increment(1);
    }

    /// A place, at once or soon.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Seat, Shed> {
        let Some(inside) = Inside::step(self) else {
            self.queue_full.increment(1);
            return Err(Shed::QueueFull);
        };
        let permit = match self.room.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait().await?,
        };
        self.in_flight.increment(1.0);
        Ok(Seat { inside, _permit: permit })
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit, Shed> {
        let _waiting = Waiting::start(&self.queued);
        let start = Instant::now();
        let turn = timeout(self.patience, self.room.clone().acquire_owned()).await;
        metrics::histogram!("mundap_http_queue_duration_seconds", "lane" => self.name).record(start.elapsed());
        // The semaphore is never closed.
        let permit = turn.ok().and_then(Result::ok);
        permit.ok_or_else(|| {
            self.waited.increment(1);
            Shed::Waited
        })
    }
}

/// One of those inside a lane.
struct Inside(Arc<Lane>);

impl Inside {
    /// Unless it is full.
    fn step(lane: &Arc<Lane>) -> Option<Self> {
        let stepped = lane
            .inside
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |inside| (inside < lane.most).then_some(inside + 1));
        stepped.is_ok().then(|| Self(lane.clone()))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One that waits, for the gauge.
struct Waiting<'a>(&'a Gauge);

impl<'a> Waiting<'a> {
    fn start(queued: &'a Gauge) -> Self {
        queued.increment(1.0);
        Self(queued)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A place in a lane.
pub(crate) struct Seat {
    inside: Inside,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.inside.0.in_flight.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::super::tests::{PATIENCE, in_paused_time};
    use super::*;

    #[test]
    fn a_full_lane_is_waited_for_and_a_full_queue_is_not() {
        in_paused_time(async {
            let lane = Lane::new("test", 2, 1, PATIENCE);
            let first = lane.enter().await.unwrap();
            let _second = lane.enter().await.unwrap();
            let mut third = pin!(lane.enter());
            assert!(third.as_mut().now_or_never().is_none(), "it waits");
            assert_eq!(lane.enter().now_or_never().unwrap().err(), Some(Shed::QueueFull));
            drop(first);
            let third = third.await.unwrap();
            // The queue is empty again, and nobody gives way this time.
            let start = Instant::now();
            assert_eq!(lane.enter().await.err(), Some(Shed::Waited));
            assert_eq!(start.elapsed(), PATIENCE);
            drop(third);
            assert!(lane.enter().now_or_never().unwrap().is_ok());
        });
    }

    #[test]
    fn whoever_stops_waiting_leaves_the_queue() {
        in_paused_time(async {
            let lane = Lane::new("test", 1, 1, PATIENCE);
            let held = lane.enter().await.unwrap();
            for _ in 0..3 {
                assert!(timeout(PATIENCE / 2, lane.enter()).await.is_err());
            }
            assert_eq!(lane.inside.load(Ordering::Relaxed), 1);
            drop(held);
            assert!(lane.enter().now_or_never().unwrap().is_ok());
        });
    }

    #[test]
    fn whoever_is_called_up_is_counted_once() {
        in_paused_time(async {
            let lane = Lane::new("test", 1, 1, PATIENCE);
            let first = lane.enter().await.unwrap();
            let mut second = pin!(lane.enter());
            assert!(second.as_mut().now_or_never().is_none(), "it waits");
            assert!(lane.is_full());
            // The place is its own now, which it does not know before it is polled.
            drop(first);
            assert!(!lane.is_full());
            let mut third = pin!(lane.enter());
            assert!(third.as_mut().now_or_never().is_none(), "there is room to wait");
            drop(second.await.unwrap());
            assert!(third.now_or_never().unwrap().is_ok());
        });
    }
}
