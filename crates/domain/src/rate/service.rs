//! What is asked before anything is done.

use std::sync::Arc;

use chrono::TimeDelta;

use super::buckets::Buckets;
use super::{Allowance, Attempt, Charge, Charged, NETWORKS_OF_A_SITE, Policy, Quota, Quotas, RateKey, Subject, micros};
use crate::env::{Clock, retrying};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::idempotency::FingerprintKey;
use crate::user::Email;
use crate::{Ports, Repositories, Store};

/// How long a node believes that a shared bucket is full without asking again: others may have given back.
const BELIEVED: TimeDelta = TimeDelta::seconds(1);

/// Use cases on rate limits: every face asks before it does.
pub struct RateLimits {
    /// `None` where they are off.
    quotas: Option<Quotas>,
    buckets: Buckets,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    keys: Arc<FingerprintKey>,
    events: Arc<dyn Events>,
}

/// What this node can say of a use by itself.
enum Known {
    Settled(Result<Allowance, Error>),
    /// The database has to be asked, and told of so many earlier uses.
    Ask {
        owed: u32,
    },
}

impl RateLimits {
    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        let Ports { quotas, store, clock, fingerprints: keys, events, .. } = ports.clone();
        Self { quotas, buckets: Buckets::new(), store, clock, keys, events }
    }

    /// Counts one use. `None` where limits are off.
    ///
    /// Opens and commits a unit of its own where it has to ask the database, so a caller MUST NOT have one open.
    ///
    /// # Errors
    /// [`Error::RateLimited`]; of a shared policy [`Error::Unavailable`] and [`Error::Busy`] too.
    pub async fn admit(&self, policy: Policy, subject: &Subject) -> Result<Option<Allowance>, Error> {
        let outcome = self.weigh(policy, subject).await;
        if matches!(outcome, Err(Error::RateLimited(_))) {
            self.events.record(Event::RateLimited(policy));
        }
        outcome
    }

    async fn weigh(&self, policy: Policy, subject: &Subject) -> Result<Option<Allowance>, Error> {
        let Some(quotas) = &self.quotas else { return Ok(None) };
        let quota = quotas.of(policy);
        let now = self.clock.now().unix_micros();
        // The site before its network, and taken back where that is refused, which is one host's doing.
        let counted = match subject.site() {
            Some(site) => {
                let quota = quota.times(NETWORKS_OF_A_SITE);
                self.count(policy, &site, quota, now)?;
                Some(Undo::of(move || self.take_out(policy, &site, quota)))
            }
            None => None,
        };
        let allowance = if policy.is_shared() {
            self.charge(policy, subject, quota).await?
        } else {
            self.count(policy, subject, quota, now)?
        };
        if let Some(counted) = counted {
            counted.settle();
        }
        Ok(Some(allowance))
    }

    /// Counts one try at the password of an account, before it is known whether the password is right; else a hundred at
    /// once would all be let through. One that was right is given back by [`give_back`](Self::give_back).
    pub(crate) async fn attempt(&self, email: &Email) -> Result<Option<Attempt>, Error> {
        let subject = Subject::email(email);
        let Some(allowance) = self.admit(Policy::Attempts, &subject).await? else { return Ok(None) };
        let key = self.key(Policy::Attempts, &subject);
        Ok(Some(Attempt { subject, key, quota: allowance.quota }))
    }

    /// Takes back what [`attempt`](Self::attempt) counted, in an open unit.
    pub(crate) async fn give_back(&self, unit: &dyn Repositories, attempt: Option<&Attempt>) -> Result<(), Error> {
        let Some(Attempt { subject, key, quota }) = attempt else { return Ok(()) };
        unit.rates().give_back(key, *quota).await?;
        self.take_out(Policy::Attempts, subject, *quota);
        Ok(())
    }

    /// Takes one use out of a bucket in this node's memory.
    fn take_out(&self, policy: Policy, subject: &Subject, quota: Quota) {
        self.buckets.with(policy, subject, |bucket| bucket.end -= quota.interval());
    }

    fn key(&self, policy: Policy, subject: &Subject) -> RateKey {
        RateKey(self.keys.seal(&[b"rate", policy.name().as_bytes(), &subject.said()]))
    }

    /// Counts in this node's memory alone.
    fn count(&self, policy: Policy, subject: &Subject, quota: Quota, now: i64) -> Result<Allowance, Error> {
        self.buckets.with(policy, subject, |bucket| {
            bucket.bound(quota, now);
            let admitted = bucket.has_room(quota, now);
            if admitted {
                bucket.add(quota, now);
            }
            bucket.outcome(policy, quota, now, admitted)
        })
    }

    /// Counts here, and in the database when a block is full.
    async fn charge(&self, policy: Policy, subject: &Subject, quota: Quota) -> Result<Allowance, Error> {
        let now = self.clock.now();
        let owed = match self.known(policy, subject, quota, now.unix_micros()) {
            Known::Settled(outcome) => return outcome,
            Known::Ask { owed } => owed,
        };
        // Also of a caller that hangs up meanwhile: whoever does must not get rid of the debt.
        let debt = Undo::of(|| {
            self.buckets.with(policy, subject, |bucket| {
                bucket.owed = bucket.owed.saturating_add(owed).min(quota.permits - 1);
            });
        });
        let charge = Charge { key: self.key(policy, subject), quota, owed, now };
        let first = self.pay(charge).await?;
        debt.settle();
        // Whoever was faster may have looked at the clock a moment after this use did, and filled the bucket from there on.
        let later = Charge { owed: 0, now: self.clock.now(), ..charge };
        let is_in_time = !first.admitted && first.end <= later.last_end_with_room();
        let (Charged { admitted, end }, now) =
            if is_in_time { (self.pay(later).await?, later.now.unix_micros()) } else { (first, now.unix_micros()) };
        self.buckets.with(policy, subject, |bucket| {
            // What came meanwhile is in memory alone.
            bucket.end = end.unix_micros() + quota.interval() * i64::from(bucket.owed);
            bucket.bound(quota, now);
            bucket.asked = now;
            bucket.outcome(policy, quota, now, admitted)
        })
    }

    async fn pay(&self, charge: Charge) -> Result<Charged, Error> {
        let charged = retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let charged = unit.rates().charge(&charge).await?;
            unit.commit().await?;
            Ok(charged)
        });
        charged.await.map_err(|error| match error {
            // Whatever ails the table: the use is refused for a moment, and not as a fault of the request.
            Error::Internal(cause) => Error::Unavailable(cause),
            other => other,
        })
    }

    fn known(&self, policy: Policy, subject: &Subject, quota: Quota, now: i64) -> Known {
        self.buckets.with(policy, subject, |bucket| {
            bucket.bound(quota, now);
            // Not where the clock was set back since.
            let believed = (bucket.asked..bucket.asked + micros(BELIEVED)).contains(&now);
            if now >= bucket.used + micros(quota.window) {
                bucket.owed = 0;
            }
            let has_room = bucket.has_room(quota, now);
            if !has_room && believed {
                return Known::Settled(bucket.outcome(policy, quota, now, false));
            }
            if has_room && bucket.owed + 1 < policy.block(quota) {
                bucket.add(quota, now);
                bucket.owed += 1;
                bucket.used = now;
                return Known::Settled(bucket.outcome(policy, quota, now, true));
            }
            // From here on this caller pays them.
            Known::Ask { owed: std::mem::take(&mut bucket.owed) }
        })
    }
}

/// What is done when it is dropped, unless it is settled before.
struct Undo<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Undo<F> {
    fn of(undo: F) -> Self {
        Self(Some(undo))
    }

    fn settle(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Undo<F> {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}
