//! Doing something once, however often it is asked for: a client that lost an answer repeats its request with the same
//! key and gets the answer it would have got (draft-ietf-httpapi-idempotency-key-header).
//!
//! The mechanism is `once`; a use case that creates something calls it with a `Creation` and is done. What is
//! remembered is a [`Receipt`]: it is stored in the same unit of work as the thing itself, so that there is either both
//! or neither. A receipt needs only what the request does not say again: the fingerprint proves that the rest is the
//! same.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::env::{Clock, Timestamp, retrying};
use crate::error::{Error, StoreError};
use crate::event::{Event, Events};
use crate::user::{Author, UserId};
use crate::{Ports, Repositories, Store, UnitOfWork};

/// How long an outcome is remembered.
pub const REMEMBERED: TimeDelta = TimeDelta::hours(24);

/// What a client calls one request and its repetitions: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Characters, each of which is one byte.
    pub const MAX: usize = 255;

    /// `None` for what is no key.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let good = (1..=Self::MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What came of a request that may be a repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was done now.
    Fresh(T),
    /// It was done before; this is what came of it then.
    Replayed(T),
}

impl<T> Outcome<T> {
    pub const fn get(&self) -> &T {
        match self {
            Self::Fresh(value) | Self::Replayed(value) => value,
        }
    }

    pub fn into_inner(self) -> T {
        match self {
            Self::Fresh(value) | Self::Replayed(value) => value,
        }
    }

    #[must_use]
    pub const fn is_replayed(&self) -> bool {
        matches!(self, Self::Replayed(_))
    }
}

/// Whose key it is. The same key of two callers is two keys; all that are not signed in are one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant(Option<UserId>);

impl Claimant {
    #[must_use]
    pub const fn account(id: UserId) -> Self {
        Self(Some(id))
    }

    #[must_use]
    pub const fn anonymous() -> Self {
        Self(None)
    }

    #[must_use]
    pub const fn account_id(self) -> Option<UserId> {
        self.0
    }

    /// 0 for those who are not signed in: no account has that id.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0.map_or(0, UserId::get)
    }
}

/// What is remembered of something that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub claimant: Claimant,
    pub key: IdempotencyKey,
    pub fingerprint: [u8; 32],
    /// The id of what was created.
    pub id: i64,
    /// As whom it was created; `None` where the thing is the account itself.
    pub author: Option<Author>,
    pub created_at: Timestamp,
}

/// All of a receipt but the id of what is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub claimant: Claimant,
    pub key: IdempotencyKey,
    pub fingerprint: [u8; 32],
    pub author: Option<Author>,
    pub created_at: Timestamp,
}

impl Claim {
    #[must_use]
    pub fn receipt(self, id: i64) -> Receipt {
        let Self { claimant, key, fingerprint, author, created_at } = self;
        Receipt { claimant, key, fingerprint, id, author, created_at }
    }
}

/// Why something was not created together with its receipt: neither is there.
#[derive(Debug)]
pub enum NotAdded<E> {
    /// By itself, or since the unit failed.
    Thing(E),
    /// By what its receipt met.
    Receipt(StoreError),
}

impl NotAdded<StoreError> {
    #[must_use]
    pub const fn cause(&self) -> &StoreError {
        let (Self::Thing(cause) | Self::Receipt(cause)) = self;
        cause
    }
}

impl<E: From<StoreError>> From<StoreError> for NotAdded<E> {
    fn from(error: StoreError) -> Self {
        Self::Thing(error.into())
    }
}

impl Receipt {
    fn is_good(&self, now: Timestamp) -> bool {
        now < self.created_at.plus(REMEMBERED)
    }
}

/// Where receipts are kept.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait ReceiptRepository: Send + Sync {
    /// The receipt of a claimant's key, if there is one, however old it is: the use case says whether it is still good.
    async fn find(&self, claimant: Claimant, key: &IdempotencyKey) -> Result<Option<Receipt>, StoreError>;
    /// MUST be [`StoreError::Duplicate`] where the claimant has used this key; MUST wait for a unit that is about to use
    /// it, and be [`StoreError::Contention`] where that takes too long.
    async fn insert(&self, receipt: &Receipt) -> Result<(), StoreError>;
    /// Forgets this one. No error where it is not there, and another one of its key MUST stay.
    async fn delete(&self, receipt: &Receipt) -> Result<(), StoreError>;
    /// Forgets all keys of an account.
    async fn delete_all_of(&self, user: UserId) -> Result<(), StoreError>;
    /// Accounts that were erased at `since` or later and have a receipt all the same, `most` of them at most.
    async fn erased_claimants(&self, since: Timestamp, most: u64) -> Result<Vec<UserId>, StoreError>;
    /// Forgets receipts that are older than `before`, `most` of them at most, and says how many.
    async fn delete_older(&self, before: Timestamp, most: u64) -> Result<u64, StoreError>;
}

/// Something about to be created.
#[async_trait]
pub(crate) trait Creation: Clone + Send + Sync {
    type Entity: Send;

    /// Names the use case; part of the fingerprint, so that one key does not serve two of them.
    const OPERATION: &'static str;
    /// That it was created.
    const EVENT: Event;

    /// All that the caller said, and nothing else.
    fn said(&self) -> Vec<&[u8]>;
    /// The id of what it is created below; 0 where it stands alone.
    fn below(&self) -> i64 {
        0
    }
    /// The time it is created at, and as whom.
    fn stamp(&self) -> (Timestamp, Option<&Author>);
    /// The same, stamped as it was then.
    fn stamped(self, created_at: Timestamp, author: Option<Author>) -> Self;
    /// Does it, in an open unit.
    async fn store(&self, unit: &dyn Repositories) -> Result<Self::Entity, Error>;
    /// Does it in a unit of its own, with its receipt.
    async fn add(&self, store: &dyn Store, claim: Option<&Claim>) -> Result<Self::Entity, NotAdded<Error>> {
        add(self, store, claim, None).await
    }
    fn id(entity: &Self::Entity) -> i64;
    /// What was stored under this id, in its first version.
    fn stored_as(self, id: i64) -> Self::Entity;
}

/// Fingerprints what was asked for. Keyed: a request may hold a password, and a bare hash of one could be guessed.
pub struct FingerprintKey(Hmac<Sha256>);

impl FingerprintKey {
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        // RFC 2104 pads a short key with zeros to the hash's block of 64 bytes.
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        Self(Hmac::new(&block.into()))
    }

    /// A keyed hash of these parts, for whoever else must know something again without keeping it. The first part says
    /// what for, and is no `Creation`'s `OPERATION`.
    pub(crate) fn seal(&self, parts: &[&[u8]]) -> [u8; 32] {
        let part =
            |mac: Hmac<Sha256>, part: &&[u8]| mac.chain_update((part.len() as u64).to_be_bytes()).chain_update(part);
        parts.iter().fold(self.0.clone(), part).finalize().into_bytes().into()
    }

    fn of<C: Creation>(&self, creation: &C) -> [u8; 32] {
        let mut mac = self.0.clone().chain_update(C::OPERATION).chain_update(creation.below().to_be_bytes());
        for part in creation.said() {
            // With its length before it, no part runs into the next.
            mac = mac.chain_update((part.len() as u64).to_be_bytes()).chain_update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// What [`once`] stands on.
#[derive(Clone)]
pub(crate) struct Desk {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    fingerprints: Arc<FingerprintKey>,
    events: Arc<dyn Events>,
}

impl Desk {
    pub(crate) fn new(ports: &Ports) -> Self {
        let Ports { store, clock, fingerprints, events, .. } = ports.clone();
        Self { store, clock, fingerprints, events }
    }

    /// Whether the claimant has used this key, so that [`once`] will answer from its receipt.
    pub(crate) async fn remembers(&self, claimant: Claimant, key: Option<&IdempotencyKey>) -> Result<bool, Error> {
        let Some(key) = key else { return Ok(false) };
        let receipt = self.store.reader().receipts().find(claimant, key).await?;
        Ok(receipt.is_some_and(|receipt| receipt.is_good(self.clock.now())))
    }
}

/// Creates something, or says what came of it when the same claimant asked for it with the same key before.
///
/// # Errors
/// [`Error::KeyReused`] where the key came with something else, [`Error::KeyInUse`] where the first request with it is
/// still running, and what [`Creation::store`] says.
pub(crate) async fn once<C: Creation>(
    desk: &Desk,
    claimant: Claimant,
    key: Option<&IdempotencyKey>,
    creation: C,
) -> Result<Outcome<C::Entity>, Error> {
    let outcome = create(desk, claimant, key, creation).await?;
    desk.events.record(if outcome.is_replayed() { Event::Replayed } else { C::EVENT });
    Ok(outcome)
}

async fn create<C: Creation>(
    desk: &Desk,
    claimant: Claimant,
    key: Option<&IdempotencyKey>,
    creation: C,
) -> Result<Outcome<C::Entity>, Error> {
    let (creation, store) = (&creation, &*desk.store);
    let Some(key) = key else {
        return retrying(&*desk.clock, || async move {
            match creation.add(store, None).await {
                Ok(entity) => Ok(Outcome::Fresh(entity)),
                Err(NotAdded::Thing(error)) => Err(error),
                Err(NotAdded::Receipt(error)) => Err(error.into()),
            }
        })
        .await;
    };
    let (now, author) = creation.stamp();
    let fingerprint = desk.fingerprints.of(creation);
    let claim = &Claim { claimant, key: key.clone(), fingerprint, author: author.cloned(), created_at: now };
    retrying(&*desk.clock, || async move {
        let found = store.reader().receipts().find(claimant, key).await?;
        let added = match found {
            None => creation.add(store, Some(claim)).await,
            Some(receipt) if receipt.is_good(now) => return replay(receipt, fingerprint, creation.clone()),
            stale => add(creation, store, Some(claim), stale.as_ref()).await,
        };
        match added {
            Ok(entity) => Ok(Outcome::Fresh(entity)),
            // Neither has to do with another request, and the next try looks by itself.
            Err(NotAdded::Thing(error @ (Error::Unavailable(_) | Error::Busy(_)))) => Err(error),
            Err(NotAdded::Thing(error)) => {
                // Perhaps it failed because the first request came between, as a second registration does.
                let receipt = store.reader().receipts().find(claimant, key).await?;
                match receipt.filter(|receipt| receipt.is_good(now)) {
                    Some(receipt) => replay(receipt, fingerprint, creation.clone()),
                    None => Err(error),
                }
            }
            // Somebody was faster: the next try finds what came of it.
            Err(NotAdded::Receipt(error @ StoreError::Duplicate(_))) => Err(Error::Busy(error.into())),
            Err(NotAdded::Receipt(StoreError::Contention(_))) => Err(Error::KeyInUse),
            Err(NotAdded::Receipt(error)) => Err(error.into()),
        }
    })
    .await
}

/// Creates something and stores its receipt, in the place of a stale one, in a unit of their own.
async fn add<C: Creation>(
    creation: &C,
    store: &dyn Store,
    claim: Option<&Claim>,
    stale: Option<&Receipt>,
) -> Result<C::Entity, NotAdded<Error>> {
    let unit = store.begin().await?;
    if let Some(stale) = stale {
        unit.receipts().delete(stale).await?;
    }
    let entity = creation.store(&*unit).await.map_err(NotAdded::Thing)?;
    commit(unit, claim, C::id(&entity)).await?;
    Ok(entity)
}

/// Stores the receipt of what a unit has created under this id, and commits both.
pub(crate) async fn commit<E: From<StoreError>>(
    unit: Box<dyn UnitOfWork>,
    claim: Option<&Claim>,
    id: i64,
) -> Result<(), NotAdded<E>> {
    if let Some(claim) = claim {
        unit.receipts().insert(&claim.clone().receipt(id)).await.map_err(NotAdded::Receipt)?;
    }
    Ok(unit.commit().await?)
}

fn replay<C: Creation>(receipt: Receipt, fingerprint: [u8; 32], creation: C) -> Result<Outcome<C::Entity>, Error> {
    if receipt.fingerprint != fingerprint {
        return Err(Error::KeyReused);
    }
    Ok(Outcome::Replayed(creation.stamped(receipt.created_at, receipt.author).stored_as(receipt.id)))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::noon;

    /// What is said by one of two use cases.
    #[derive(Clone)]
    struct Said<const OTHER: bool> {
        below: i64,
        parts: Vec<Vec<u8>>,
    }

    #[async_trait]
    impl<const OTHER: bool> Creation for Said<OTHER> {
        type Entity = i64;

        const OPERATION: &'static str = if OTHER { "other" } else { "one" };
        const EVENT: Event = Event::Asked;

        fn said(&self) -> Vec<&[u8]> {
            self.parts.iter().map(Vec::as_slice).collect()
        }

        fn below(&self) -> i64 {
            self.below
        }

        fn stamp(&self) -> (Timestamp, Option<&Author>) {
            (noon(), None)
        }

        fn stamped(self, _: Timestamp, _: Option<Author>) -> Self {
            self
        }

        async fn store(&self, _: &dyn Repositories) -> Result<i64, Error> {
            Ok(1)
        }

        fn id(entity: &i64) -> i64 {
            *entity
        }

        fn stored_as(self, id: i64) -> i64 {
            id
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The same bytes, parted elsewhere, said below another thing or by another use case, are another request.
        #[test]
        fn a_fingerprint_is_of_each_part_by_itself_of_what_it_is_below_and_of_its_use_case(
            bytes in vec(any::<u8>(), 0..40),
            one in any::<prop::sample::Index>(),
            other in any::<prop::sample::Index>(),
            below in any::<i64>(),
        ) {
            let key = FingerprintKey::new(&[8; 32]);
            let parted = |at: usize| vec![bytes[..at].to_vec(), bytes[at..].to_vec()];
            let (one, other) = (one.index(bytes.len() + 1), other.index(bytes.len() + 1));
            let of = |at: usize, below: i64| key.of(&Said::<false> { below, parts: parted(at) });
            prop_assert_eq!(of(one, below) == of(other, below), one == other);
            prop_assert_ne!(of(one, below), of(one, below.wrapping_add(1)));
            prop_assert_ne!(of(one, below), key.of(&Said::<true> { below, parts: parted(one) }));
            prop_assert_ne!(of(one, below), key.of(&Said::<false> { below, parts: vec![bytes.clone()] }));
        }
    }
}
