//! Lanes: so many at once, a bounded queue, and a refusal for the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// How long a queue counts as one that has just begun.
const BEGUN: Duration = Duration::from_secs(1);

/// How many may wait, and how long each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) length: usize,
    pub(super) patience: Duration,
}

/// So many at once, and a bounded queue of more, first come, first served.
///
/// What comes after a moment in which nothing went on, be it the machine or the disk that halted, is done soon, and a queue
/// that has just begun may be as long as that takes. One that does not come to its end is overload, in which whoever is let
/// in only waits longer. It is how `CoDel` tells them apart (Nichols and Jacobson, "Controlling queue delay", ACM Queue 10:5;
/// for requests: Maurer, "Fail at scale", ACM Queue 13:8).
pub(crate) struct Lane {
    name: &'static str,
    room: Arc<Semaphore>,
    places: usize,
    /// How many are inside: in its places and in its queue, counted together. Whoever is called up from the queue and has
    /// not noticed yet would otherwise be counted in both.
    inside: AtomicUsize,
    standing: Queue,
    begun: Queue,
    /// Where whoever has a place here needs another one.
    within: Option<Arc<Lane>>,
    made: Instant,
    /// When its queue began, in milliseconds since it was made.
    began: AtomicU64,
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
    /// A lane with a queue that is as long when it has just begun.
    pub(super) fn new(name: &'static str, places: usize, queue: usize, patience: Duration) -> Arc<Self> {
        let queue = Queue { length: queue, patience };
        Arc::new(Self::with_queues(name, places, queue, queue))
    }

    pub(super) fn with_queues(name: &'static str, places: usize, standing: Queue, begun: Queue) -> Self {
        metrics::gauge!("mundap_http_lane_places", "lane" => name)
            .set(f64::from(u32::try_from(places).unwrap_or(u32::MAX)));
        let shed = |reason| metrics::counter!("mundap_http_shed_total", "lane" => name, "reason" => reason);
        Self {
            name,
            room: Arc::new(Semaphore::new(places)),
            places,
            inside: AtomicUsize::new(0),
            standing,
            begun,
            within: None,
            made: Instant::now(),
            began: AtomicU64::new(0),
            in_flight: metrics::gauge!("mundap_http_lane_in_flight", "lane" => name),
            queued: metrics::gauge!("mundap_http_lane_queued", "lane" => name),
            queue_full: shed("queue_full"),
            waited: shed("waited"),
        }
    }

    /// Whoever has a place here needs one of that lane too, so that no more of its places go to them than there are here.
    pub(super) fn within(mut self, lane: &Arc<Self>) -> Self {
        self.within = Some(lane.clone());
        self
    }

    pub(super) fn is_full(&self) -> bool {
        self.full().is_some()
    }

    /// The one of these lanes that has no room.
    fn full(&self) -> Option<&Self> {
        [Some(self), self.within.as_deref()].into_iter().flatten().find(|lane| lane.has_no_room())
    }

    fn has_no_room(&self) -> bool {
        !self.lets_in(self.inside.load(Ordering::Relaxed))
    }

    /// Whether there is room for one more beside so many.
    fn lets_in(&self, inside: usize) -> bool {
        let room = |queue: Queue| inside < self.places.saturating_add(queue.length);
        room(self.standing) || (room(self.begun) && self.has_just_begun())
    }

    fn has_just_begun(&self) -> bool {
        let began = Duration::from_millis(self.began.load(Ordering::Relaxed));
        self.made.elapsed().saturating_sub(began) < BEGUN
    }

    fn begin(&self) {
        let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.began.store(now, Ordering::Relaxed);
    }

    /// Whether to turn somebody away at once, who is counted then.
    pub(crate) fn turns_away(&self) -> bool {
        let full = self.full();
        if let Some(lane) = full {
            lane.queue_full.increment(1);
        }
        full.is_some()
    }

    /// A request of it is given up.
    pub(crate) fn count_timeout(&self) {
        metrics::counter!("mundap_http_timeouts_total", "lane" => self.name).increment(1);
    }

    /// A place, at once or soon.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Seat, Shed> {
        let place = self.place().await?;
        let within = match &self.within {
            Some(lane) => Some(lane.place().await?),
            None => None,
        };
        Ok(Seat { _place: place, _within: within })
    }

    async fn place(self: &Arc<Self>) -> Result<Place, Shed> {
        let Some(inside) = Inside::step(self) else {
            self.queue_full.increment(1);
            return Err(Shed::QueueFull);
        };
        let permit = match self.room.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait().await?,
        };
        self.in_flight.increment(1.0);
        Ok(Place { inside, _permit: permit })
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit, Shed> {
        let _waiting = Waiting::start(&self.queued);
        let start = Instant::now();
        let queue = if self.has_just_begun() { self.begun } else { self.standing };
        let turn = timeout(queue.patience, self.room.clone().acquire_owned()).await;
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
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |inside| lane.lets_in(inside).then_some(inside + 1));
        let before = stepped.ok()?;
        if before == lane.places {
            lane.begin();
        }
        Some(Self(lane.clone()))
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

/// A place in a lane, and one in the lane that it lies within.
pub(crate) struct Seat {
    _place: Place,
    _within: Option<Place>,
}

struct Place {
    inside: Inside,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
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
    fn whoever_comes_by_a_lane_within_another_takes_some_of_its_places_at_the_most() {
        in_paused_time(async {
            let all = Lane::new("test", 2, 0, PATIENCE);
            let queue = Queue { length: 1, patience: PATIENCE };
            let some = Arc::new(Lane::with_queues("some", 1, queue, queue).within(&all));
            let first = some.enter().await.unwrap();
            let mut second = pin!(some.enter());
            assert!(second.as_mut().now_or_never().is_none(), "it waits");
            assert_eq!(some.enter().now_or_never().unwrap().err(), Some(Shed::QueueFull));
            assert!(some.is_full() && !all.is_full(), "others find room");

            let other = all.enter().await.unwrap();
            assert!(all.is_full());
            drop(first);
            let second = second.await.unwrap();
            assert!(all.is_full(), "it has a place of both");
            drop(second);
            assert!(!some.is_full() && !all.is_full());

            // Where there is no room outside there is none within.
            let another = all.enter().await.unwrap();
            assert!(some.is_full());
            assert_eq!(some.enter().await.err(), Some(Shed::QueueFull));
            drop((other, another));
            assert!(some.enter().now_or_never().unwrap().is_ok(), "nothing of it is held");
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

    #[test]
    fn a_queue_that_has_just_begun_is_longer_than_one_that_stands() {
        in_paused_time(async {
            let standing = Queue { length: 1, patience: PATIENCE };
            let begun = Queue { length: 3, patience: 4 * PATIENCE };
            let lane = Arc::new(Lane::with_queues("test", 1, standing, begun));
            // As long as nobody waits, no time passes for the queue.
            tokio::time::sleep(2 * BEGUN).await;
            let first = lane.enter().await.unwrap();
            let mut queue: Vec<_> = (0..3).map(|_| Box::pin(lane.enter())).collect();
            for waiting in &mut queue {
                assert!(waiting.as_mut().now_or_never().is_none(), "it waits");
            }
            assert_eq!(lane.enter().now_or_never().unwrap().err(), Some(Shed::QueueFull));
            let start = Instant::now();
            assert_eq!(queue.remove(0).await.err(), Some(Shed::Waited));
            assert_eq!(start.elapsed(), begun.patience);
            drop(queue);

            // It stands when it has been there for a second, whoever is in it.
            let mut in_line = pin!(lane.enter());
            assert!(in_line.as_mut().now_or_never().is_none());
            tokio::time::sleep(BEGUN).await;
            assert!(lane.is_full());
            assert_eq!(lane.enter().now_or_never().unwrap().err(), Some(Shed::QueueFull));
            drop(first);
            let second = in_line.await.unwrap();
            let mut others: Vec<_> = (0..3).map(|_| Box::pin(lane.enter())).collect();
            for waiting in &mut others {
                assert!(waiting.as_mut().now_or_never().is_none(), "a new queue");
            }
            drop(second);
        });
    }
}
