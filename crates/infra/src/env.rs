//! The real clock and the real randomness.

use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use mundap_domain::env::{Clock, Entropy, Timestamp};

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one Clock that asks the machine")]
    fn now(&self) -> Timestamp {
        Timestamp::new(Utc::now())
    }

    /// 5, 10, 20 ms … give or take half, so that two units that met do not meet again.
    async fn pause_before(&self, attempt: u32) {
        let step = 5_000 << attempt.clamp(1, 8).saturating_sub(1);
        let jitter = getrandom::u32().unwrap_or_default() % step;
        tokio::time::sleep(Duration::from_micros(u64::from(step / 2 + jitter))).await;
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// # Panics
    /// Where the operating system has no randomness to give: there is nothing safe to do then.
    fn secret(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ() {
        assert_ne!(OsEntropy.secret(), OsEntropy.secret());
    }

    #[test]
    fn a_pause_is_a_few_milliseconds() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            for (attempt, range) in [(1, 2..=9), (2, 5..=17), (3, 10..=32), (u32::MAX, 0..=2_000)] {
                let start = tokio::time::Instant::now();
                SystemClock.pause_before(attempt).await;
                let millis = start.elapsed().as_millis();
                assert!(range.contains(&millis), "attempt {attempt}: {millis} ms");
            }
        });
    }
}
