//! Single-use tokens that letters carry.

use std::fmt;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;

use crate::account::Password;
use crate::env::{Entropy, Timestamp};
use crate::error::{StoreError, Violations};
use crate::sign_in::TokenHash;
use crate::user::{User, UserId};

/// How long a mailed token is good.
pub const TOKEN_LIFETIME: TimeDelta = TimeDelta::minutes(30);

/// What a mailed token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    VerifyEmail,
    ResetPassword,
}

impl Purpose {
    /// As it is stored.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ResetPassword => "reset_password",
        }
    }
}

/// A secret of 256 bits that only a letter tells: whoever brings it back reads that address.
#[derive(Clone, PartialEq, Eq)]
pub struct MailToken([u8; 32]);

impl MailToken {
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        Self(entropy.secret())
    }

    /// `None` for anything that was never a token of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }

    /// The token as the letter tells it: 43 characters, base64url.
    #[must_use]
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl fmt::Debug for MailToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailToken(…)")
    }
}

/// A mailed token as it is stored: an account has at most one for each purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailTokenRecord {
    pub user: UserId,
    pub purpose: Purpose,
    pub hash: TokenHash,
    /// [`Email::key`](crate::user::Email::key) of the address that it was sent to. It is void once the account has another.
    pub email_key: String,
    pub expires_at: Timestamp,
}

impl MailTokenRecord {
    /// Whether it speaks for this account at this time.
    #[must_use]
    pub fn is_good(&self, user: &User, now: Timestamp) -> bool {
        self.user == user.id && self.email_key == user.email.key() && now < self.expires_at
    }
}

/// Where mailed tokens are kept.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait MailTokenRepository: Send + Sync {
    /// Stores a token. MUST replace the one that the account had for this purpose, and MUST be
    /// [`StoreError::MissingReference`] where the account is not there.
    async fn put(&self, token: &MailTokenRecord) -> Result<(), StoreError>;
    /// The token with this hash and purpose; in a unit, MUST keep it from changing until the unit ends.
    async fn find_locked(&self, hash: &TokenHash, purpose: Purpose) -> Result<Option<MailTokenRecord>, StoreError>;
    /// Forgets the account's token for this purpose; no error where there is none.
    async fn delete(&self, user: UserId, purpose: Purpose) -> Result<(), StoreError>;
    /// Forgets every token of an account; no error where there is none.
    async fn delete_all_of(&self, user: UserId) -> Result<(), StoreError>;
    /// Forgets what is good no longer, `most` of it at most, and says how many rows that were.
    async fn delete_expired(&self, now: Timestamp, most: u64) -> Result<u64, StoreError>;
}

/// A new password by a mailed token, as somebody filled it in, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordReset {
    /// `None`: what was sent was never a token of ours.
    pub token: Option<MailToken>,
    pub new: Password,
}

impl PasswordReset {
    /// # Errors
    /// Every rule that a field breaks. A token that is none is no broken rule: it is as good as one that has expired.
    pub fn parse(token: Option<&str>, new: Option<&str>) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let token = violations.check("token", token, |raw| Ok(MailToken::parse(raw)));
        let new = violations.check("new_password", new, Password::parse);
        violations.finish((|| Some(Self { token: token?, new: new? }))())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{a_user, noon};
    use crate::user::Role;

    #[test]
    fn a_token_reads_back_and_rubbish_does_not() {
        let token = MailToken([7; 32]);
        assert_eq!(token.expose().len(), 43);
        assert_eq!(MailToken::parse(&token.expose()).as_ref(), Some(&token));
        for bad in ["", "abc", "!!!", &token.expose()[1..], &format!("{}A", token.expose()), " ", "한국어"] {
            assert_eq!(MailToken::parse(bad), None, "{bad:?}");
        }
        assert_eq!(format!("{token:?}"), "MailToken(…)");
    }

    #[test]
    fn a_token_is_good_for_its_account_at_its_address_for_half_an_hour() {
        let user = a_user(7, Role::Member);
        let record = MailTokenRecord {
            user: user.id,
            purpose: Purpose::VerifyEmail,
            hash: MailToken([7; 32]).hash(),
            email_key: user.email.key(),
            expires_at: noon().plus(TOKEN_LIFETIME),
        };
        let last = noon().plus(TOKEN_LIFETIME).plus(TimeDelta::microseconds(-1));
        assert!(record.is_good(&user, noon()) && record.is_good(&user, last));
        assert!(!record.is_good(&user, record.expires_at));
        assert!(!record.is_good(&a_user(8, Role::Member), noon()));
        let elsewhere = MailTokenRecord { email_key: "user8@example.com".to_owned(), ..record };
        assert!(!elsewhere.is_good(&user, noon()));
    }
}
