//! The buckets in this node's memory.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;

use super::{Allowance, Policy, Quota, Subject};
use crate::error::Error;

/// A bucket as this node knows it.
#[derive(Clone, Copy)]
pub(super) struct Bucket {
    /// When it will be empty, in microseconds since 1970.
    pub(super) end: i64,
    /// Uses that are in `end` and not yet in the database.
    pub(super) owed: u32,
    /// When the last of them came, and when the database was last asked; as `end`.
    pub(super) used: i64,
    pub(super) asked: i64,
}

impl Bucket {
    const EMPTY: Self = Self { end: 0, owed: 0, used: 0, asked: 0 };

    /// Takes one that is fuller than full for full, else it would refuse until it is not: the clock was set back, or its uses
    /// were larger ones before the quota was changed.
    pub(super) fn bound(&mut self, quota: Quota, now: i64) {
        self.end = self.end.min(now + capacity(quota));
    }

    pub(super) fn has_room(&self, quota: Quota, now: i64) -> bool {
        self.end.max(now) + quota.interval() <= now + capacity(quota)
    }

    pub(super) fn add(&mut self, quota: Quota, now: i64) {
        self.end = self.end.max(now) + quota.interval();
    }

    fn allowance(&self, policy: Policy, quota: Quota, now: i64) -> Allowance {
        let full = (self.end - now).clamp(0, capacity(quota));
        let left = (capacity(quota) - full) / quota.interval();
        let next = self.end - now - (capacity(quota) - (left + 1) * quota.interval());
        let left = u32::try_from(left).unwrap_or(quota.permits);
        Allowance { policy, quota, left, more_in: TimeDelta::microseconds(next.max(0)) }
    }

    pub(super) fn outcome(&self, policy: Policy, quota: Quota, now: i64, admitted: bool) -> Result<Allowance, Error> {
        let allowance = self.allowance(policy, quota, now);
        if admitted { Ok(allowance) } else { Err(Error::RateLimited(Allowance { left: 0, ..allowance })) }
    }
}

fn capacity(quota: Quota) -> i64 {
    quota.interval() * i64::from(quota.permits)
}

/// The buckets in this node's memory: at most twice [`SHARDS`](Self::SHARDS) × [`GENERATION`](Self::GENERATION) of them.
///
/// A shard keeps two generations. A bucket that is used moves to the young one; when that is full, the old one is forgotten
/// and the young one grows old. So a flood of addresses pushes out those that were silent, never one that is in use.
pub(super) struct Buckets {
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

    pub(super) fn new() -> Self {
        Self { shards: (0..Self::SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Does something to one bucket, alone.
    pub(super) fn with<T>(&self, policy: Policy, subject: &Subject, change: impl FnOnce(&mut Bucket) -> T) -> T {
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::user::UserId;

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
