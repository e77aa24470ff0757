//! Letters, the outbox where they wait, and the mail server.

use async_trait::async_trait;
use chrono::TimeDelta;

use super::token::{MailToken, Purpose};
use crate::env::Timestamp;
use crate::error::StoreError;
use crate::id::id;
use crate::user::{DisplayName, Email, UserId};

/// How long a letter that was taken to be sent is kept from others. A [`Mailer`] is done in a quarter of that.
pub const LEASE: TimeDelta = TimeDelta::minutes(2);

/// A language that the board speaks: a letter's is that of the request which caused it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    English,
    Korean,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::English, Self::Korean];

    /// BCP 47: `en` or `ko`.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Korean => "ko",
        }
    }

    /// `None` for any other tag than [`tag`](Self::tag) gives.
    #[must_use]
    pub fn parse(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.tag() == tag)
    }
}

/// What a letter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Carries a token that proves who reads it.
    VerifyEmail,
    /// Carries a token that sets another password.
    ResetPassword,
    /// To the address that the account had before.
    EmailChanged,
    PasswordChanged,
}

impl Topic {
    pub const ALL: [Self; 4] = [Self::VerifyEmail, Self::ResetPassword, Self::EmailChanged, Self::PasswordChanged];

    /// As it is stored, logged and counted.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VerifyEmail => Purpose::VerifyEmail.name(),
            Self::ResetPassword => Purpose::ResetPassword.name(),
            Self::EmailChanged => "email_changed",
            Self::PasswordChanged => "password_changed",
        }
    }

    /// Whether a letter about it is of use to whoever reads it, and to nobody else.
    #[must_use]
    pub const fn carries_token(self) -> bool {
        match self {
            Self::VerifyEmail | Self::ResetPassword => true,
            Self::EmailChanged | Self::PasswordChanged => false,
        }
    }

    /// `None` for what is the name of none.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }
}

id!(
    /// Identifies a letter in the outbox.
    LetterId
);

/// A letter to be put into the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLetter {
    pub topic: Topic,
    /// Whose account it is about; `None` where only an address was named, which may be nobody's.
    pub user: Option<UserId>,
    pub to: Email,
    pub language: Language,
    pub created_at: Timestamp,
}

/// A letter that was taken out of the outbox to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedLetter {
    pub id: LetterId,
    pub topic: Topic,
    pub user: Option<UserId>,
    pub to: Email,
    pub language: Language,
    pub created_at: Timestamp,
    /// How often it was taken, this time included.
    pub attempts: u32,
}

/// A letter as a [`Mailer`] gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub id: LetterId,
    pub to: Email,
    pub language: Language,
    /// The reader's name, where they have proved that the address is theirs. To any other address goes no word of a
    /// stranger's choosing: whoever registers with it could write what they like.
    pub name: Option<DisplayName>,
    pub message: Message,
    /// When its cause was committed.
    pub created_at: Timestamp,
}

/// What a letter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    VerifyEmail(MailToken),
    ResetPassword(MailToken),
    EmailChanged,
    PasswordChanged,
}

/// Why a mail server did not take a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    /// Whether it never will: there is no such mailbox.
    pub is_final: bool,
    /// For the log. MUST hold neither the address nor the server's own words, which may repeat it.
    pub reason: String,
}

/// The mail server.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Hands a letter over. MUST come to an end within a quarter of [`LEASE`].
    async fn send(&self, letter: &Letter) -> Result<(), SendError>;
}

/// Where letters wait to be sent.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait OutboxRepository: Send + Sync {
    /// Puts a letter in, due at once.
    async fn insert(&self, letter: &NewLetter) -> Result<(), StoreError>;
    /// Whether any letter is due.
    async fn is_any_due(&self, now: Timestamp) -> Result<bool, StoreError>;
    /// Takes a letter that is due and counts the attempt. MUST keep it from every other taker until `until`, so that a
    /// node which dies gives it back by time alone. `None` where none is due, or others were faster. A letter that cannot be read MUST
    /// keep no other from being taken, and is not lost.
    async fn take(&self, now: Timestamp, until: Timestamp) -> Result<Option<QueuedLetter>, StoreError>;
    /// Lets a letter that was taken wait until `due`. MUST have no effect where it was taken again since.
    async fn postpone(&self, letter: &QueuedLetter, due: Timestamp) -> Result<(), StoreError>;
    /// Forgets a letter; no error where it is gone.
    async fn delete(&self, id: LetterId) -> Result<(), StoreError>;
    /// Forgets every letter about an account, and every one to the address that it has now.
    async fn delete_all_of(&self, user: UserId) -> Result<(), StoreError>;
    /// Forgets every letter to an address that carries a token: whoever has given the address up is to get none there.
    async fn delete_tokens_to(&self, to: &Email) -> Result<(), StoreError>;
    /// How many letters wait.
    async fn count(&self) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for topic in Topic::ALL {
            assert_eq!(Topic::parse(topic.name()), Some(topic));
        }
        for language in [Language::English, Language::Korean] {
            assert_eq!(Language::parse(language.tag()), Some(language));
        }
        assert_eq!((Topic::parse("other"), Language::parse("fr")), (None, None));
    }
}
