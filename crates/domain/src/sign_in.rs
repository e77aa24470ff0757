//! A sign-in: one device that an account is signed in on, with the refresh token that renews its access.
//!
//! Refresh tokens rotate (RFC 9700, 4.14.2): each use gives a new one. Using one that was used before means that two
//! parties hold it, and ends the sign-in for both; the exception is a client whose answer was lost on the way, which
//! may repeat its last token once within [`GRACE`].

use std::fmt;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use sha2::{Digest as _, Sha256};

use crate::env::{Entropy, Timestamp};
use crate::error::StoreError;
use crate::id::id;
use crate::user::UserId;

/// How long a refresh token lives unused.
pub const LIFETIME: TimeDelta = TimeDelta::days(30);
/// How long after a rotation the token before may be repeated, once.
pub const GRACE: TimeDelta = TimeDelta::seconds(60);

id!(
    /// Identifies a sign-in; access tokens name it, so that ending it ends them too.
    SignInId
);

/// SHA-256 of a secret: what is stored instead of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    #[must_use]
    pub fn of(secret: &[u8; HALF]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    #[must_use]
    pub const fn restore(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

const HALF: usize = 32;

/// What a client holds: two secrets of 256 bits, base64url. The first stays the same through all rotations and names
/// the sign-in, so that an old token of it is recognised; the second is new each time.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    family: [u8; HALF],
    secret: [u8; HALF],
}

impl RefreshToken {
    pub(crate) fn first(entropy: &dyn Entropy) -> Self {
        Self { family: entropy.secret(), secret: entropy.secret() }
    }

    pub(crate) fn successor(&self, entropy: &dyn Entropy) -> Self {
        Self { family: self.family, secret: entropy.secret() }
    }

    /// `None` for anything that was never a refresh token of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (family, secret) = bytes.split_first_chunk()?;
        Some(Self { family: *family, secret: secret.try_into().ok()? })
    }

    /// The token as the client gets it: 86 characters.
    #[must_use]
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode([self.family, self.secret].concat())
    }

    #[must_use]
    pub fn family_hash(&self) -> TokenHash {
        TokenHash::of(&self.family)
    }

    #[must_use]
    pub fn secret_hash(&self) -> TokenHash {
        TokenHash::of(&self.secret)
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

/// A sign-in's stored values. Reading goes through [`SignIn`]; changing goes through its methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInRecord {
    pub id: SignInId,
    pub user: UserId,
    pub family: TokenHash,
    /// The one token that is good now.
    pub current: TokenHash,
    /// The one before it, once there was one.
    pub previous: Option<TokenHash>,
    /// Whether `previous` was repeated already.
    pub forgiven: bool,
    pub created_at: Timestamp,
    pub rotated_at: Timestamp,
    pub expires_at: Timestamp,
}

/// One signed-in device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn(SignInRecord);

impl std::ops::Deref for SignIn {
    type Target = SignInRecord;

    fn deref(&self) -> &SignInRecord {
        &self.0
    }
}

/// Why a refresh token was turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedDown {
    /// It is too old; nothing more to do.
    Expired,
    /// It was used before: the sign-in MUST end.
    Reused,
}

impl SignIn {
    /// What a repository read.
    #[must_use]
    pub const fn restore(record: SignInRecord) -> Self {
        Self(record)
    }

    /// Takes `presented` in exchange for `next`.
    ///
    /// # Errors
    /// [`TurnedDown`], with nothing changed.
    pub fn rotate(&mut self, presented: TokenHash, next: TokenHash, now: Timestamp) -> Result<(), TurnedDown> {
        if now >= self.expires_at {
            return Err(TurnedDown::Expired);
        }
        if presented == self.current {
            self.0.previous = Some(presented);
            self.0.forgiven = false;
            self.0.rotated_at = now;
        } else if self.previous == Some(presented) && !self.forgiven && now < self.rotated_at.plus(GRACE) {
            // The answer that carried `current` was lost: it was never used, or it would be `previous` now.
            self.0.forgiven = true;
        } else {
            return Err(TurnedDown::Reused);
        }
        self.0.current = next;
        self.0.expires_at = now.plus(LIFETIME);
        Ok(())
    }
}

/// A sign-in to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSignIn {
    pub user: UserId,
    pub family: TokenHash,
    pub current: TokenHash,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Where sign-ins are kept.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait SignInRepository: Send + Sync {
    /// Stores a new sign-in and returns its id; on the way it may drop the user's expired ones. MUST be
    /// [`StoreError::MissingReference`] where the account is not there, and [`StoreError::Duplicate`] where the family is known.
    async fn insert(&self, sign_in: &NewSignIn) -> Result<SignInId, StoreError>;
    /// The sign-in of this family, unless it is unknown or ended; in a unit, MUST keep the row from changing until the unit
    /// ends.
    async fn find_locked(&self, family: &TokenHash) -> Result<Option<SignIn>, StoreError>;
    /// Every sign-in of an account, oldest first.
    async fn list_of(&self, user: UserId) -> Result<Vec<SignIn>, StoreError>;
    /// Stores a sign-in that was rotated. MUST be [`StoreError::Stale`] where it has ended.
    async fn update(&self, sign_in: &SignIn) -> Result<(), StoreError>;
    /// Ends a sign-in; no error where it ended before.
    async fn delete(&self, id: SignInId) -> Result<(), StoreError>;
    /// Ends every sign-in of an account.
    async fn delete_all_of(&self, user: UserId) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noon;

    fn hash(n: u8) -> TokenHash {
        TokenHash::of(&[n; HALF])
    }

    fn signed_in() -> SignIn {
        SignIn::restore(SignInRecord {
            id: SignInId::new(1),
            user: UserId::new(1),
            family: hash(0),
            current: hash(1),
            previous: None,
            forgiven: false,
            created_at: noon(),
            rotated_at: noon(),
            expires_at: noon().plus(LIFETIME),
        })
    }

    fn later(seconds: i64) -> Timestamp {
        noon().plus(TimeDelta::seconds(seconds))
    }

    #[test]
    fn each_token_is_good_once() {
        let mut sign_in = signed_in();
        sign_in.rotate(hash(1), hash(2), later(100)).unwrap();
        sign_in.rotate(hash(2), hash(3), later(200)).unwrap();
        assert_eq!(sign_in.rotate(hash(1), hash(4), later(201)), Err(TurnedDown::Reused));
        assert_eq!(sign_in.current, hash(3));
    }

    #[test]
    fn one_lost_answer_is_forgiven_within_a_minute() {
        let mut sign_in = signed_in();
        sign_in.rotate(hash(1), hash(2), later(0)).unwrap();
        sign_in.rotate(hash(1), hash(3), later(59)).unwrap();
        assert_eq!(sign_in.rotate(hash(2), hash(4), later(59)), Err(TurnedDown::Reused), "2 never arrived");
        assert_eq!(sign_in.rotate(hash(1), hash(4), later(59)), Err(TurnedDown::Reused), "once only");
        sign_in.rotate(hash(3), hash(4), later(59)).unwrap();
    }

    #[test]
    fn after_a_minute_nothing_is_forgiven() {
        let mut sign_in = signed_in();
        sign_in.rotate(hash(1), hash(2), later(0)).unwrap();
        assert_eq!(sign_in.rotate(hash(1), hash(3), later(60)), Err(TurnedDown::Reused));
    }

    #[test]
    fn a_token_lives_30_days_unused_and_each_use_renews_it() {
        let mut sign_in = signed_in();
        let end = noon().plus(LIFETIME);
        assert_eq!(sign_in.clone().rotate(hash(1), hash(2), end), Err(TurnedDown::Expired));
        sign_in.rotate(hash(1), hash(2), end.plus(TimeDelta::seconds(-1))).unwrap();
        sign_in.rotate(hash(2), hash(3), end).unwrap();
    }

    #[test]
    fn a_token_reads_back_and_rubbish_does_not() {
        let token = RefreshToken { family: [1; HALF], secret: [2; HALF] };
        assert_eq!(RefreshToken::parse(&token.expose()).as_ref(), Some(&token));
        assert_eq!(token.expose().len(), 86);
        for bad in ["", "abc", "!!!", &token.expose()[1..], &format!("{}AAAA", token.expose())] {
            assert_eq!(RefreshToken::parse(bad), None, "{bad:?}");
        }
    }
}
