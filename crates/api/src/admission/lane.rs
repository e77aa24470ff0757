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
    /// How many may wait.
    queue: usize,
    /// How long.
    patience: Duration,
    waiting: AtomicUsize,
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
            queue,
            patience,
            waiting: AtomicUsize::new(0),
            in_flight: metrics::gauge!("mundap_http_lane_in_flight", "lane" => name),
            queued: metrics::gauge!("mundap_http_lane_queued", "lane" => name),
            queue_full: shed("queue_full"),
            waited: shed("waited"),
        })
    }

    pub(super) fn is_full(&self) -> bool {
        self.room.available_permits() == 0 && self.waiting.load(Ordering::Relaxed) >= self.queue
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
    pub(crate) async fn enter(&self) -> Result<Seat, Shed> {
        let entered = match self.room.clone().try_acquire_owned() {
            Ok(permit) => Ok(permit),
            Err(_) => self.wait().await,
        };
        match entered {
            Ok(permit) => Ok(Seat::new(self.in_flight.clone(), permit)),
            Err(shed) => {
                match shed {
                    Shed::QueueFull => self.queue_full.increment(1),
                    Shed::Waited => self.waited.increment(1),
                }
                Err(shed)
            }
        }
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit, Shed> {
        let _waiting = Waiting::join(self)?;
        let start = Instant::now();
        let turn = timeout(self.patience, self.room.clone().acquire_owned()).await;
        metrics::histogram!("mundap_http_queue_duration_seconds", "lane" => self.name).record(start.elapsed());
        // The semaphore is never closed.
        turn.map_err(|_| Shed::Waited)?.map_err(|_| Shed::Waited)
    }
}

/// A place in a lane's queue.
struct Waiting<'a>(&'a Lane);

impl<'a> Waiting<'a> {
    fn join(lane: &'a Lane) -> Result<Self, Shed> {
        let joined = lane.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            (waiting < lane.queue).then_some(waiting + 1)
        });
        joined.map_err(|_| Shed::QueueFull)?;
        lane.queued.increment(1.0);
        Ok(Self(lane))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.queued.decrement(1.0);
    }
}

/// A place in a lane.
pub(crate) struct Seat {
    in_flight: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    fn new(in_flight: Gauge, permit: OwnedSemaphorePermit) -> Self {
        in_flight.increment(1.0);
        Self { in_flight, _permit: permit }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.in_flight.decrement(1.0);
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
            assert_eq!(lane.waiting.load(Ordering::Relaxed), 0);
            drop(held);
            assert!(lane.enter().now_or_never().unwrap().is_ok());
        });
    }
}
