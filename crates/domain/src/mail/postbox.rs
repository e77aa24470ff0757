//! What use cases put into the outbox.

use super::letter::{Language, NewLetter, Topic};
use super::token::Purpose;
use crate::env::Timestamp;
use crate::error::{Error, StoreError};
use crate::rate::{Policy, RateLimits, Subject};
use crate::user::{Email, User, UserId};
use crate::{Ports, Repositories};

/// Puts letters into the outbox, where the board sends mail; else does nothing.
#[derive(Clone, Copy)]
pub(crate) struct Postbox {
    pub(super) open: bool,
}

impl Postbox {
    pub(crate) fn new(ports: &Ports) -> Self {
        Self { open: ports.mailer.is_some() }
    }

    /// Counts a letter that somebody asks for.
    ///
    /// # Errors
    /// [`Error::RateLimited`].
    pub(crate) async fn allow(self, rates: &RateLimits, subject: &Subject) -> Result<(), Error> {
        if self.open {
            rates.admit(Policy::Letters, subject).await?;
        }
        Ok(())
    }

    async fn put(self, unit: &dyn Repositories, letter: NewLetter) -> Result<(), StoreError> {
        if self.open { unit.outbox().insert(&letter).await } else { Ok(()) }
    }

    /// Asks the account's address to prove itself.
    pub(crate) async fn verify_email(
        self,
        unit: &dyn Repositories,
        user: &User,
        language: Language,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.put(unit, about(user, user.email.clone(), Topic::VerifyEmail, language, now)).await
    }

    /// What a changed e-mail brings with it: tokens that went to the old address, or wait to, are void, the old address is told, and
    /// the new one is asked to prove itself.
    pub(crate) async fn email_changed(
        self,
        unit: &dyn Repositories,
        old: &Email,
        user: &User,
        language: Language,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        unit.mail_tokens().delete_all_of(user.id).await?;
        // Nothing else would find them by then, should the account be deleted.
        unit.outbox().delete_tokens_to(old).await?;
        self.put(unit, about(user, old.clone(), Topic::EmailChanged, language, now)).await?;
        self.verify_email(unit, user, language, now).await
    }

    /// What a changed password brings with it: a letter that was to reset the old one is void, and the account's
    /// address is told.
    pub(crate) async fn password_changed(
        self,
        unit: &dyn Repositories,
        id: UserId,
        language: Language,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        unit.mail_tokens().delete(id, Purpose::ResetPassword).await?;
        if !self.open {
            return Ok(());
        }
        match unit.users().find(id).await? {
            Some(user) => self.put(unit, about(&user, user.email.clone(), Topic::PasswordChanged, language, now)).await,
            None => Ok(()),
        }
    }
}

pub(super) fn about(user: &User, to: Email, topic: Topic, language: Language, created_at: Timestamp) -> NewLetter {
    NewLetter { topic, user: Some(user.id), to, language, created_at }
}
