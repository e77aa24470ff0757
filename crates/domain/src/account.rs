//! The account's life: registering, signing in and out, the password, deleting it.

mod service;

use std::fmt;

use async_trait::async_trait;
use chrono::TimeDelta;

pub use service::AccountService;

use crate::env::Timestamp;
use crate::error::{Broken, Error, Violations};
use crate::sign_in::{RefreshToken, SignInId};
use crate::text::{length, nfc};
use crate::user::{DisplayName, Email, UserId};

/// How long an access token is good.
pub const ACCESS_LIFETIME: TimeDelta = TimeDelta::minutes(10);

/// A password: 8 to 256 characters of NFC, anything goes in them (NIST SP 800-63B, 5.1.1).
#[derive(Clone, PartialEq, Eq, garde::Validate)]
#[garde(transparent)]
pub struct Password(#[garde(custom(length::<{ Self::MIN }, { Self::MAX }>))] String);

impl Password {
    /// Characters.
    pub const MIN: usize = 8;
    /// Characters.
    pub const MAX: usize = 256;

    /// A password to be set.
    ///
    /// # Errors
    /// All the rules that `raw` breaks.
    pub fn parse(raw: &str) -> Result<Self, Vec<Broken>> {
        let password = Self::attempt(raw);
        match garde::Validate::validate(&password) {
            Ok(()) => Ok(password),
            Err(report) => Err(crate::text::broken(&report)),
        }
    }

    /// A password to be compared: whatever somebody typed.
    #[must_use]
    pub fn attempt(raw: &str) -> Self {
        Self(nfc(raw))
    }

    /// For the hasher alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A password's hash in PHC string format. Only a [`PasswordHasher`] can make sense of it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    #[must_use]
    pub const fn new(phc: String) -> Self {
        Self(phc)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Slow hashing on threads of its own.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// # Errors
    /// [`Error::Busy`] at once where the queue is full.
    async fn hash(&self, password: &Password) -> Result<PasswordHash, Error>;
    /// Whether the password is the one behind `hash`. Without a hash the answer is `false`, and MUST take as long.
    ///
    /// # Errors
    /// [`Error::Busy`] at once where the queue is full.
    async fn verify(&self, password: &Password, hash: Option<PasswordHash>) -> Result<bool, Error>;
}

/// What an access token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessClaims {
    pub user: UserId,
    pub sign_in: SignInId,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Signed access tokens (RFC 9068).
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait AccessTokens: Send + Sync {
    /// # Errors
    /// [`Error::Internal`] where signing fails.
    fn issue(&self, claims: &AccessClaims) -> Result<String, Error>;
    /// Whom the token speaks for. `None` MUST be the answer for a signature that is not ours, another algorithm, type,
    /// issuer or audience, and outside the token's time.
    fn verify(&self, token: &str, now: Timestamp) -> Option<(UserId, SignInId)>;
}

/// What signing in gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPair {
    pub access_token: String,
    /// How long the access token is good.
    pub expires_in: TimeDelta,
    pub refresh_token: RefreshToken,
}

/// A new account as somebody filled it in, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub email: Email,
    pub password: Password,
    pub display_name: DisplayName,
}

impl Registration {
    /// # Errors
    /// Every rule that a field breaks.
    pub fn parse(email: Option<&str>, password: Option<&str>, display_name: Option<&str>) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let email = violations.check("email", email, Email::parse);
        let password = violations.check("password", password, Password::parse);
        let display_name = violations.check("display_name", display_name, DisplayName::parse);
        violations.finish((|| Some(Self { email: email?, password: password?, display_name: display_name? }))())
    }
}

/// A change of password as somebody filled it in, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordChange {
    pub current: Password,
    pub new: Password,
}

impl PasswordChange {
    /// # Errors
    /// Every rule that a field breaks.
    pub fn parse(current: Option<&str>, new: Option<&str>) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let current = violations.check("current_password", current, |raw| Ok(Password::attempt(raw)));
        let new = violations.check("new_password", new, Password::parse);
        violations.finish((|| Some(Self { current: current?, new: new? }))())
    }
}
