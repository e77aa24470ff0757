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

mod buckets;
mod service;

use std::net::{IpAddr, Ipv6Addr};

use async_trait::async_trait;
use chrono::TimeDelta;

pub use service::RateLimits;

use crate::env::Timestamp;
use crate::error::StoreError;
use crate::user::{Email, UserId};

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
    /// Uses in a window.
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
        micros(self.window) / i64::from(self.permits)
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
    /// How far the clocks of two nodes may be apart, as `mundap doctor` has it. A node that is behind must not let out again what
    /// one that is ahead has just filled in.
    pub const SKEW: TimeDelta = TimeDelta::seconds(2);

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

    /// The latest end that a bucket has which was filled by this quota and by clocks that agree.
    #[must_use]
    pub fn last_end(&self) -> Timestamp {
        self.end_when_full().plus(Self::SKEW)
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
    /// is owed, up to the brim. MUST make a bucket that ends after [`Charge::last_end`] one that is full. Of charges at once
    /// MUST NOT admit more than fit; MUST be [`StoreError::Contention`] where they would.
    async fn charge(&self, charge: &Charge) -> Result<Charged, StoreError>;
    /// Takes one use out of a bucket; no error where there is none.
    async fn give_back(&self, key: &RateKey, quota: Quota) -> Result<(), StoreError>;
    /// Forgets buckets that are empty at `now`, `most` of them at most, and says how many.
    async fn delete_empty(&self, now: Timestamp, most: u64) -> Result<u64, StoreError>;
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

/// A span in microseconds, in which buckets are counted; the longest where it has too many.
#[must_use]
pub fn micros(span: TimeDelta) -> i64 {
    span.num_microseconds().unwrap_or(i64::MAX)
}
