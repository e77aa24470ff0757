//! Rate limits: how often somebody may do something, in all faces and, where it guards writing and signing in, on all
//! nodes together.
//!
//! A caller's uses fill a bucket that empties evenly (the generic cell rate algorithm): a [`Quota`] of 60 in a minute lets
//! 60 through at once and then one a second. All there is to know of a bucket is one instant, when it is empty again, so
//! that charging it is one arithmetic statement on any database.
//!
//! Most buckets live in this node's memory. Those of [`Policy::is_shared`] live in the database, behind
//! [`RateRepository`]; a node pays for uses there in blocks of a tenth of the quota, ten at most. On one node a limit bites
//! at its figure, or up to a block before it after a pause; `n` nodes together let through at most `n` unfinished blocks more.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};

use crate::env::{Clock, Timestamp, retrying};
use crate::error::{Error, StoreError};
use crate::event::{Event, Events};
use crate::idempotency::FingerprintKey;
use crate::user::{Email, UserId};
use crate::{Ports, Repositories, Store};

/// What is limited. The name is what clients read in `RateLimit-Policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Requests of an address, not signed in.
    Anonymous,
    /// Signing in, registering, asking for a mailed token, by an address.
    SignIn,
    /// Wrong passwords for one e-mail, whether or not an account has it.
    Attempts,
    /// Renewing and revoking tokens by an address: apart from [`SignIn`](Self::SignIn), so that wrong passwords do not keep
    /// anybody from staying signed in.
    Renewals,
    /// Reading by an account.
    Reads,
    /// Writing by an account.
    Writes,
    /// Having letters written to an e-mail, and by an account to whomever: nobody's mailbox is flooded through the board.
    Letters,
}

impl Policy {
    pub const ALL: [Self; 7] =
        [Self::Anonymous, Self::SignIn, Self::Attempts, Self::Renewals, Self::Reads, Self::Writes, Self::Letters];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::SignIn => "sign-in",
            Self::Attempts => "attempts",
            Self::Renewals => "renewals",
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Letters => "letters",
        }
    }

    /// Whether all nodes count together.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        match self {
            Self::SignIn | Self::Attempts | Self::Writes | Self::Letters => true,
            Self::Anonymous | Self::Renewals | Self::Reads => false,
        }
    }

    /// How many uses a node pays for at once.
    fn block(self, quota: Quota) -> u32 {
        match self {
            // Each is given back where the password was right, so each must have been paid.
            Self::Attempts => 1,
            Self::Anonymous | Self::SignIn | Self::Renewals | Self::Reads | Self::Writes | Self::Letters => {
                (quota.permits / 10).clamp(1, 10)
            }
        }
    }
}

/// So many uses in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    permits: u32,
    window: TimeDelta,
}

impl Quota {
    pub const MAX_PERMITS: u32 = 1_000_000;
    /// One day.
    pub const MAX_WINDOW: TimeDelta = TimeDelta::days(1);

    /// `None` outside of 1 to [`MAX_PERMITS`](Self::MAX_PERMITS) uses in a whole number of seconds from 1 to
    /// [`MAX_WINDOW`](Self::MAX_WINDOW).
    #[must_use]
    pub fn new(permits: u32, window: TimeDelta) -> Option<Self> {
        let good = (1..=Self::MAX_PERMITS).contains(&permits)
            && window >= TimeDelta::seconds(1)
            && window <= Self::MAX_WINDOW
            && window == TimeDelta::seconds(window.num_seconds());
        good.then_some(Self { permits, window })
    }

    #[must_use]
    pub const fn permits(self) -> u32 {
        self.permits
    }

    #[must_use]
    pub const fn window(self) -> TimeDelta {
        self.window
    }

    /// How long `uses` take to drain.
    #[must_use]
    pub fn time_of(self, uses: u32) -> TimeDelta {
        TimeDelta::microseconds(self.interval() * i64::from(uses))
    }

    /// Microseconds from one use to the next, evenly spread; at least one, for there are a million in a second.
    fn interval(self) -> i64 {
        self.window.num_microseconds().unwrap_or(i64::MAX) / i64::from(self.permits)
    }

    /// As many buckets in one.
    fn times(self, n: u32) -> Self {
        Self { permits: self.permits.saturating_mul(n).min(Self::MAX_PERMITS), ..self }
    }
}

/// The quota of each policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    pub anonymous: Quota,
    pub sign_in: Quota,
    pub attempts: Quota,
    pub renewals: Quota,
    pub reads: Quota,
    pub writes: Quota,
    pub letters: Quota,
}

impl Quotas {
    /// The same quota for every policy.
    #[must_use]
    pub const fn all(quota: Quota) -> Self {
        Self {
            anonymous: quota,
            sign_in: quota,
            attempts: quota,
            renewals: quota,
            reads: quota,
            writes: quota,
            letters: quota,
        }
    }

    #[must_use]
    pub const fn of(&self, policy: Policy) -> Quota {
        match policy {
            Policy::Anonymous => self.anonymous,
            Policy::SignIn => self.sign_in,
            Policy::Attempts => self.attempts,
            Policy::Renewals => self.renewals,
            Policy::Reads => self.reads,
            Policy::Writes => self.writes,
            Policy::Letters => self.letters,
        }
    }
}

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Account(UserId),
    /// An address as [`Subject::address`] cuts it.
    Address(IpAddr),
    /// A whole site: the /48 of many IPv6 networks.
    Site(Ipv6Addr),
    /// An e-mail, in the spelling that is unique ([`Email::key`]).
    Email(String),
}

/// How many networks' worth of uses a whole IPv6 site has: somebody with a /48 has 65,536 networks to call from.
const NETWORKS_OF_A_SITE: u32 = 16;

impl Subject {
    /// A client's address: one of IPv4 whole, also where IPv6 wraps it, and of IPv6 the /64, which is what one customer has.
    #[must_use]
    pub fn address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => cut(address, 64).into(),
            whole @ IpAddr::V4(_) => whole,
        })
    }

    #[must_use]
    pub fn email(email: &Email) -> Self {
        Self::Email(email.key())
    }

    fn site(&self) -> Option<Self> {
        match self {
            Self::Address(IpAddr::V6(address)) => Some(Self::Site(cut(*address, 48))),
            Self::Address(IpAddr::V4(_)) | Self::Account(_) | Self::Site(_) | Self::Email(_) => None,
        }
    }

    fn said(&self) -> Vec<u8> {
        match self {
            Self::Account(id) => id.get().to_be_bytes().to_vec(),
            Self::Address(IpAddr::V4(address)) => address.octets().to_vec(),
            Self::Address(IpAddr::V6(address)) | Self::Site(address) => address.octets().to_vec(),
            Self::Email(key) => key.as_bytes().to_vec(),
        }
    }
}

fn cut(address: Ipv6Addr, prefix: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - prefix)))
}

/// What a bucket is called in the database: a keyed hash of policy and subject, so that the table names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateKey([u8; 32]);

impl RateKey {
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// One use, and those before it that a node let through without paying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    pub key: RateKey,
    pub quota: Quota,
    /// Fewer than the quota's permits.
    pub owed: u32,
    pub now: Timestamp,
}

impl Charge {
    /// The bucket's end up to which everything fits.
    #[must_use]
    pub fn last_end_with_room(&self) -> Timestamp {
        self.now.plus(self.quota.time_of(self.quota.permits) - self.quota.time_of(self.owed + 1))
    }

    /// The end of a bucket that is full now.
    #[must_use]
    pub fn end_when_full(&self) -> Timestamp {
        self.now.plus(self.quota.time_of(self.quota.permits))
    }
}

/// What came of a [`Charge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    pub admitted: bool,
    /// When the bucket will be empty.
    pub end: Timestamp,
}

/// Where the buckets are that all nodes share.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait RateRepository: Send + Sync {
    /// Adds the use and what is owed, where there is room for all of it. Without room MUST admit nothing, and MUST add what
    /// is owed, up to the brim. Of charges at once MUST NOT admit more than fit; MUST be [`StoreError::Contention`] where
    /// they would.
    async fn charge(&self, charge: &Charge) -> Result<Charged, StoreError>;
    /// Takes one use out of a bucket; no error where there is none.
    async fn give_back(&self, key: &RateKey, quota: Quota) -> Result<(), StoreError>;
    /// Forgets every bucket that is empty at `now`, and says how many there were.
    async fn delete_empty(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// What a caller has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub policy: Policy,
    pub quota: Quota,
    pub left: u32,
    /// How long until there is one more.
    pub more_in: TimeDelta,
}

/// A use that was counted before it was known whether it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    subject: Subject,
    key: RateKey,
    quota: Quota,
}

/// How long a node believes that a shared bucket is full without asking again: others may have given back.
const BELIEVED: TimeDelta = TimeDelta::seconds(1);

/// A bucket as this node knows it.
#[derive(Clone, Copy)]
struct Bucket {
    /// When it will be empty, in microseconds since 1970.
    end: i64,
    /// Uses that are in `end` and not yet in the database.
    owed: u32,
    /// When the last of them came, and when the database was last asked; as `end`.
    used: i64,
    asked: i64,
}

impl Bucket {
    const EMPTY: Self = Self { end: 0, owed: 0, used: 0, asked: 0 };

    fn has_room(&self, quota: Quota, now: i64) -> bool {
        self.end.max(now) + quota.interval() <= now + capacity(quota)
    }

    fn add(&mut self, quota: Quota, now: i64) {
        self.end = self.end.max(now) + quota.interval();
    }

    fn allowance(&self, policy: Policy, quota: Quota, now: i64) -> Allowance {
        let full = (self.end - now).clamp(0, capacity(quota));
        let left = (capacity(quota) - full) / quota.interval();
        let next = self.end - now - (capacity(quota) - (left + 1) * quota.interval());
        let left = u32::try_from(left).unwrap_or(quota.permits);
        Allowance { policy, quota, left, more_in: TimeDelta::microseconds(next.max(0)) }
    }

    fn outcome(&self, policy: Policy, quota: Quota, now: i64, admitted: bool) -> Result<Allowance, Error> {
        let allowance = self.allowance(policy, quota, now);
        if admitted { Ok(allowance) } else { Err(Error::RateLimited(Allowance { left: 0, ..allowance })) }
    }
}

fn capacity(quota: Quota) -> i64 {
    quota.interval() * i64::from(quota.permits)
}

fn micros(instant: Timestamp) -> i64 {
    instant.as_utc().timestamp_micros()
}

/// The buckets in this node's memory: at most twice [`SHARDS`](Self::SHARDS) × [`GENERATION`](Self::GENERATION) of them.
///
/// A shard keeps two generations. A bucket that is used moves to the young one; when that is full, the old one is forgotten
/// and the young one grows old. So a flood of addresses pushes out those that were silent, never one that is in use.
struct Buckets {
    shards: Vec<Mutex<Generations>>,
    hasher: RandomState,
}

type Shelf = HashMap<(Policy, Subject), Bucket>;

#[derive(Default)]
struct Generations {
    young: Shelf,
    old: Shelf,
}

impl Buckets {
    const SHARDS: usize = 16;
    /// About a hundred bytes each: some 13 MB in all.
    const GENERATION: usize = 4096;

    fn new() -> Self {
        Self { shards: (0..Self::SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Does something to one bucket, alone.
    fn with<T>(&self, policy: Policy, subject: &Subject, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let key = (policy, subject.clone());
        let hash = usize::try_from(self.hasher.hash_one(&key) % Self::SHARDS as u64).unwrap_or(0);
        let mut shard = lock(&self.shards[hash]);
        let Generations { young, old } = &mut *shard;
        if young.len() >= Self::GENERATION && !young.contains_key(&key) {
            *old = std::mem::take(young);
        }
        let known = old.remove(&key);
        change(young.entry(key).or_insert_with(|| known.unwrap_or(Bucket::EMPTY)))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(lock).map(|shard| shard.young.len() + shard.old.len()).sum()
    }
}

fn lock(shard: &Mutex<Generations>) -> MutexGuard<'_, Generations> {
    // A bucket is whole between any two statements.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

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
        let now = micros(self.clock.now());
        if let Some(site) = subject.site() {
            self.count(policy, &site, quota.times(NETWORKS_OF_A_SITE), now)?;
        }
        let allowance = if policy.is_shared() {
            self.charge(policy, subject, quota).await?
        } else {
            self.count(policy, subject, quota, now)?
        };
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
        self.buckets.with(Policy::Attempts, subject, |bucket| bucket.end -= quota.interval());
        Ok(())
    }

    fn key(&self, policy: Policy, subject: &Subject) -> RateKey {
        RateKey(self.keys.seal(&[b"rate", policy.name().as_bytes(), &subject.said()]))
    }

    /// Counts in this node's memory alone.
    fn count(&self, policy: Policy, subject: &Subject, quota: Quota, now: i64) -> Result<Allowance, Error> {
        self.buckets.with(policy, subject, |bucket| {
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
        let owed = match self.known(policy, subject, quota, micros(now)) {
            Known::Settled(outcome) => return outcome,
            Known::Ask { owed } => owed,
        };
        let charge = Charge { key: self.key(policy, subject), quota, owed, now };
        let charged = retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let charged = unit.rates().charge(&charge).await?;
            unit.commit().await?;
            Ok(charged)
        })
        .await
        .map_err(|error| match error {
            // Whatever ails the table: the use is refused for a moment, and not as a fault of the request.
            Error::Internal(cause) => Error::Unavailable(cause),
            other => other,
        });
        self.buckets.with(policy, subject, |bucket| match charged {
            Ok(Charged { admitted, end }) => {
                // What came meanwhile is in memory alone.
                bucket.end = micros(end) + quota.interval() * i64::from(bucket.owed);
                bucket.asked = micros(now);
                bucket.outcome(policy, quota, micros(now), admitted)
            }
            Err(error) => {
                bucket.owed = bucket.owed.saturating_add(owed).min(policy.block(quota) - 1);
                Err(error)
            }
        })
    }

    fn known(&self, policy: Policy, subject: &Subject, quota: Quota, now: i64) -> Known {
        self.buckets.with(policy, subject, |bucket| {
            let believed = now < bucket.asked + micros_of(BELIEVED);
            if now >= bucket.used + micros_of(quota.window) {
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

fn micros_of(delta: TimeDelta) -> i64 {
    delta.num_microseconds().unwrap_or(i64::MAX)
}

/// The instant so many microseconds after 1970, for repositories.
#[must_use]
pub fn from_micros(micros: i64) -> Option<Timestamp> {
    DateTime::from_timestamp_micros(micros).map(Timestamp::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_addresses_has_its_bound_and_pushes_out_nobody_in_use() {
        let buckets = Buckets::new();
        let busy = Subject::Account(UserId::new(1));
        for n in 0..1_000_000_u32 {
            buckets.with(Policy::Anonymous, &Subject::address(IpAddr::from(n.to_be_bytes())), |bucket| bucket.owed = n);
            if n % 1000 == 0 {
                buckets.with(Policy::Anonymous, &busy, |bucket| bucket.end += 1);
            }
        }
        assert!(buckets.len() <= 2 * Buckets::SHARDS * Buckets::GENERATION, "{}", buckets.len());
        assert_eq!(buckets.with(Policy::Anonymous, &busy, |bucket| bucket.end), 1000);
    }
}
