//! When something last happened, where many threads tell and look and none waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) struct Last {
    start: Instant,
    /// Nanoseconds from `start`, plus one; 0 for never. As fine as the clock: what happened just before something else must
    /// not count as after it.
    at: AtomicU64,
}

impl Last {
    pub(crate) fn never() -> Self {
        Self { start: Instant::now(), at: AtomicU64::new(0) }
    }

    /// It happens now.
    pub(crate) fn mark(&self) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
        self.at.fetch_max(now + 1, Ordering::Relaxed);
    }

    /// How long ago it was.
    pub(crate) fn ago(&self) -> Option<Duration> {
        let at = self.at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.start.elapsed().saturating_sub(Duration::from_nanos(at)))
    }

    /// Whether it has happened since then.
    pub(crate) fn is_since(&self, then: Instant) -> bool {
        let then = u64::try_from(then.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        self.at.load(Ordering::Relaxed) > then
    }
}
