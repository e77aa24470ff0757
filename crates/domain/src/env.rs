//! What is not deterministic, behind traits, so that a test decides it.

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, SubsecRound as _, TimeDelta, Utc};

/// An instant in UTC, cut to microseconds: what every database here can hold, so that a value read back equals the one
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// Cuts, never rounds: MariaDB cuts and MySQL rounds, and a time must not lie in the future.
    #[must_use]
    pub fn new(instant: DateTime<Utc>) -> Self {
        Self(instant.trunc_subsecs(6))
    }

    #[must_use]
    pub const fn as_utc(self) -> DateTime<Utc> {
        self.0
    }

    /// Whole seconds since 1970, as JWT wants them (RFC 7519, `NumericDate`).
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.0.timestamp()
    }

    /// Whole microseconds since 1970.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0.timestamp_micros()
    }

    /// The instant so many microseconds after 1970; `None` beyond the calendar.
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> Option<Self> {
        DateTime::from_timestamp_micros(micros).map(Self::new)
    }

    /// This instant moved by `delta`; saturates at the ends of the calendar.
    #[must_use]
    pub fn plus(self, delta: TimeDelta) -> Self {
        let end = if delta < TimeDelta::zero() { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
        Self::new(self.0.checked_add_signed(delta).unwrap_or(end))
    }

    /// RFC 3339 with six digits and `Z`, as the contract says.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        self.0.to_rfc3339_opts(SecondsFormat::Micros, true)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// Time. A use case asks once and uses that one instant throughout.
#[async_trait]
pub trait Clock: Send + Sync {
    /// What this node's clock says now. It MAY stand still between two calls, or go back where somebody sets it.
    fn now(&self) -> Timestamp;
    /// Waits before try `attempt` (1, 2, …) of a unit of work that met another one: a few milliseconds, growing,
    /// with jitter.
    async fn pause_before(&self, attempt: u32);
}

/// Randomness fit for secrets.
pub trait Entropy: Send + Sync {
    /// 32 bytes that nobody can guess.
    fn secret(&self) -> [u8; 32];
}

/// How often a whole unit of work is tried again after [`Error::Busy`](crate::Error::Busy).
pub const RETRIES: u32 = 3;

/// Runs `unit` (a whole begin…commit) again while it meets others, at most [`RETRIES`] times.
///
/// Only for units whose outcome is known when they fail: a deadlock, a lock time limit, a stale write. A broken
/// connection is not tried again, since its commit may have taken place.
pub(crate) async fn retrying<T, F>(clock: &dyn Clock, unit: impl FnMut() -> F) -> Result<T, crate::Error>
where
    F: Future<Output = Result<T, crate::Error>> + Send,
{
    retrying_while(clock, |error| matches!(error, crate::Error::Busy(_)), unit).await
}

/// As `retrying`, for units whose failures are not yet the domain's: `met_others` tells which of them are.
///
/// # Errors
/// What the last try came to.
pub async fn retrying_while<T, E, F>(
    clock: &dyn Clock,
    met_others: impl Fn(&E) -> bool,
    mut unit: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut attempt = 0;
    loop {
        match unit().await {
            Err(error) if attempt < RETRIES && met_others(&error) => {
                attempt += 1;
                clock.pause_before(attempt).await;
            }
            outcome => return outcome,
        }
    }
}
