//! What became of many requests: how many, how fast, and which of them are against the rules.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::client::{Answer, Lost};

/// Durations in microseconds, to three digits, from a microsecond to a minute.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are well-formed"))
    }
}

impl Times {
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time below which `quantile` (0 to 1) of them stay; zero where there are none.
    #[must_use]
    pub fn at(&self, quantile: f64) -> Duration {
        Duration::from_micros(if self.0.is_empty() { 0 } else { self.0.value_at_quantile(quantile) })
    }

    #[must_use]
    pub fn p99(&self) -> Duration {
        self.at(0.99)
    }

    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }
}

/// What became of many requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// 2xx and 3xx.
    pub accepted: Times,
    /// 429, and 503 that say when to come again.
    pub refused: Times,
    /// 503 and 429 that do not say when to come again.
    pub bare: u64,
    /// All other answers by their status.
    pub other: BTreeMap<u16, u64>,
    /// Of these, 409 that say when to come again: the first request with that key is still at work.
    pub in_use: u64,
    /// No answer.
    pub lost: BTreeMap<Lost, u64>,
    /// How long the slowest took that was not accepted.
    pub slowest_failure: Duration,
    /// When the last one ended that was not accepted.
    pub last_failure: Option<Instant>,
    /// When requests began to fail, and how many did within a second.
    pub bursts: Vec<(Instant, u64)>,
    /// Requests that were due and were not sent, since the generator had no connection left.
    pub unsent: u64,
}

impl Tally {
    /// `took` is from when the request was due.
    pub fn record(&mut self, took: Duration, outcome: Result<&Answer, Lost>) {
        match outcome {
            Ok(answer) if answer.status < 400 => return self.accepted.record(took),
            Ok(answer) if matches!(answer.status, 429 | 503) => {
                self.refused.record(took);
                self.bare += u64::from(!answer.says_when());
            }
            Ok(answer) => {
                *self.other.entry(answer.status).or_default() += 1;
                self.in_use += u64::from(answer.status == 409 && answer.says_when());
            }
            Err(lost) => *self.lost.entry(lost).or_default() += 1,
        }
        self.slowest_failure = self.slowest_failure.max(took);
        let now = Instant::now();
        self.last_failure = Some(now);
        match self.bursts.last_mut() {
            Some((began, failed)) if now.duration_since(*began) < Duration::from_secs(1) => *failed += 1,
            _ => self.bursts.push((now, 1)),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.accepted.add(&other.accepted);
        self.refused.add(&other.refused);
        self.bare += other.bare;
        self.unsent += other.unsent;
        self.in_use += other.in_use;
        for (status, count) in &other.other {
            *self.other.entry(*status).or_default() += count;
        }
        for (lost, count) in &other.lost {
            *self.lost.entry(*lost).or_default() += count;
        }
        self.slowest_failure = self.slowest_failure.max(other.slowest_failure);
        self.last_failure = self.last_failure.max(other.last_failure);
        self.bursts.extend_from_slice(&other.bursts);
    }

    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// Answers that no board in any trouble may give: anything but success, 429, and 503 with `Retry-After`.
    #[must_use]
    pub fn improper(&self) -> u64 {
        self.bare + self.other.values().sum::<u64>()
    }

    /// All that was sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.accepted.count() + self.refused.count() + self.other.values().sum::<u64>() + self.lost()
    }

    /// When requests failed, counted from `start`, in words.
    #[must_use]
    pub fn failures_since(&self, start: Instant) -> String {
        let at = |began: &Instant| began.saturating_duration_since(start).as_secs_f64();
        listed(
            &self
                .bursts
                .iter()
                .map(|(began, failed)| format!("{failed} from {:.1} s on", at(began)))
                .collect::<Vec<_>>(),
        )
    }

    /// The improper answers, in words.
    #[must_use]
    pub fn improprieties(&self) -> String {
        let bare = (self.bare > 0).then(|| format!("{} × refused without Retry-After", self.bare));
        let other = self.other.iter().map(|(status, count)| format!("{count} × {status}"));
        listed(&bare.into_iter().chain(other).collect::<Vec<_>>())
    }

    /// What got no answer, in words.
    #[must_use]
    pub fn losses(&self) -> String {
        listed(&self.lost.iter().map(|(lost, count)| format!("{count} × {lost}")).collect::<Vec<_>>())
    }

    /// Both.
    #[must_use]
    pub fn troubles(&self) -> String {
        match (self.improper(), self.lost()) {
            (_, 0) => self.improprieties(),
            (0, _) => self.losses(),
            _ => format!("{}, {}", self.improprieties(), self.losses()),
        }
    }
}

/// What there is of something, in words.
pub(crate) fn listed(parts: &[String]) -> String {
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;
    use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};

    use super::*;

    fn answer(status: u16, after: Option<&'static str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(after));
        }
        Answer { status, headers, body: Bytes::new() }
    }

    #[test]
    fn a_refusal_must_say_when_to_come_again() {
        let mut tally = Tally::default();
        tally.record(Duration::from_millis(1), Ok(&answer(503, Some("1"))));
        tally.record(Duration::from_millis(1), Ok(&answer(429, Some("1"))));
        assert_eq!((tally.refused.count(), tally.improper()), (2, 0));
        for bad in [None, Some("soon")] {
            tally.record(Duration::from_millis(1), Ok(&answer(503, bad)));
        }
        tally.record(Duration::from_millis(1), Ok(&answer(500, Some("1"))));
        assert_eq!((tally.improper(), tally.sent()), (3, 5));
        assert_eq!(tally.troubles(), "2 × refused without Retry-After, 1 × 500");
    }

    #[test]
    fn a_key_in_use_is_improper_and_known_as_such() {
        let mut tally = Tally::default();
        for (status, when) in [(409, Some("1")), (409, None), (412, Some("1"))] {
            tally.record(Duration::from_millis(1), Ok(&answer(status, when)));
        }
        assert_eq!((tally.improper(), tally.in_use), (3, 1));
        let mut sum = Tally::default();
        sum.add(&tally);
        assert_eq!(sum.in_use, 1);
    }

    #[test]
    fn times_are_those_of_what_was_accepted() {
        let mut tally = Tally::default();
        for millis in 1..=100 {
            tally.record(Duration::from_millis(millis), Ok(&answer(200, None)));
        }
        tally.record(Duration::from_secs(9), Err(Lost::Late));
        let p99 = tally.accepted.p99().as_millis();
        assert!((98..=100).contains(&p99), "{p99}");
        assert_eq!((tally.slowest_failure, tally.lost()), (Duration::from_secs(9), 1));
        let mut both = Tally::default();
        both.add(&tally);
        both.add(&tally);
        assert_eq!((both.accepted.count(), both.lost(), both.sent()), (200, 2, 202));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_one_second_are_one_burst() {
        let (start, mut tally) = (Instant::now(), Tally::default());
        assert_eq!(tally.failures_since(start), "none");
        for after in [1500, 400, 400, 400, 5000] {
            tokio::time::sleep(Duration::from_millis(after)).await;
            tally.record(Duration::from_millis(1), Ok(&answer(503, Some("1"))));
            tally.record(Duration::from_millis(1), Ok(&answer(200, None)));
        }
        assert_eq!(tally.failures_since(start), "3 from 1.5 s on, 1 from 2.7 s on, 1 from 7.7 s on");
    }
}
