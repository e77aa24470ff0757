//! What is done about letters and with mailed tokens.

use std::sync::Arc;

use chrono::TimeDelta;

use super::letter::{LEASE, Language, Letter, LetterId, Mailer, Message, NewLetter, QueuedLetter, SendError, Topic};
use super::postbox::{Postbox, about};
use super::token::{MailToken, MailTokenRecord, PasswordReset, Purpose, TOKEN_LIFETIME};
use crate::account::PasswordHasher;
use crate::actor::{Act, Actor};
use crate::env::{Clock, Entropy, RETRIES, Timestamp, retrying};
use crate::error::{Error, StoreError};
use crate::event::{Event, Events};
use crate::rate::{RateLimits, Subject};
use crate::user::{Email, User, UserId};
use crate::{Ports, Repositories, Store};

/// How long a letter is tried before it is given up.
pub const PERSISTENCE: TimeDelta = TimeDelta::days(3);
/// The longest wait before the second try; it doubles with each further one.
pub const FIRST_WAIT: TimeDelta = TimeDelta::seconds(2);
/// The longest wait between two tries.
pub const LONGEST_WAIT: TimeDelta = TimeDelta::hours(1);
/// How often it is tried again to forget a letter that was sent.
pub const FORGETTING: u32 = 20;

/// What became of a letter that was due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub letter: LetterId,
    pub topic: Topic,
    /// How often it was tried, this time included.
    pub attempts: u32,
    pub fate: Fate,
}

/// See [`Delivery`]. A reason is fit for the log: it names nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The mail server has it.
    Sent,
    /// Nobody is to get it: the address is no account's, or what it is about is over.
    Dropped,
    /// It will be tried again.
    Postponed { until: Timestamp, reason: String },
    /// It will not be tried again.
    GivenUp { reason: String },
}

/// Use cases on letters and mailed tokens.
pub struct MailService {
    rates: Arc<RateLimits>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    passwords: Arc<dyn PasswordHasher>,
    mailer: Option<Arc<dyn Mailer>>,
    events: Arc<dyn Events>,
    postbox: Postbox,
}

impl MailService {
    #[must_use]
    pub fn new(ports: &Ports, rates: Arc<RateLimits>) -> Self {
        Self {
            rates,
            store: ports.store.clone(),
            clock: ports.clock.clone(),
            entropy: ports.entropy.clone(),
            passwords: ports.passwords.clone(),
            mailer: ports.mailer.clone(),
            events: ports.events.clone(),
            postbox: Postbox::new(ports),
        }
    }

    /// Has a letter written to whoever has an account with this address, with a token for a new password. Anybody may
    /// ask; that there is no such account shows in nothing, neither in the answer nor in how long it takes. Nor does it show
    /// that too many letters were asked for to this address: then there is no further one for a while.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Busy`].
    pub async fn forgot(&self, email: &Email, language: Language) -> Result<(), Error> {
        match self.allow_letter(&Subject::email(email)).await {
            Err(Error::RateLimited(_)) => return Ok(()),
            other => other?,
        }
        let created_at = self.clock.now();
        let letter = NewLetter { topic: Topic::ResetPassword, user: None, to: email.clone(), language, created_at };
        self.enqueue(&letter).await
    }

    /// Has the letter that verifies the own address written again. Nothing happens where it is verified already.
    ///
    /// # Errors
    /// What the ownership table says, [`Error::RateLimited`].
    pub async fn ask_to_verify(&self, by: &Actor, language: Language) -> Result<(), Error> {
        let user = by.account_that_may(Act::ChangeOwnAccount)?;
        if user.email_verified_at.is_some() {
            return Ok(());
        }
        self.allow_letter(&Subject::email(&user.email)).await?;
        let letter = about(user, user.email.clone(), Topic::VerifyEmail, language, self.clock.now());
        self.enqueue(&letter).await
    }

    async fn allow_letter(&self, subject: &Subject) -> Result<(), Error> {
        self.postbox.allow(&self.rates, subject).await
    }

    async fn enqueue(&self, letter: &NewLetter) -> Result<(), Error> {
        if !self.postbox.open {
            return Ok(());
        }
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            unit.outbox().insert(letter).await?;
            Ok(unit.commit().await?)
        })
        .await
    }

    /// Verifies the address of the account that this token was sent to. Whoever holds it may.
    ///
    /// # Errors
    /// [`Error::InvalidMailToken`].
    pub async fn verify(&self, token: &str) -> Result<(), Error> {
        let token = &MailToken::parse(token).ok_or(Error::InvalidMailToken)?;
        let holder = self.holder(token, Purpose::VerifyEmail).await?;
        retrying(&*self.clock, || async move {
            let now = self.clock.now();
            let unit = self.store.begin().await?;
            let user = redeem(&*unit, holder, token, Purpose::VerifyEmail, now).await?;
            unit.users().set_email_verified(user.id, now).await?;
            Ok(unit.commit().await?)
        })
        .await
    }

    /// Gives the account that this token was sent to another password, and ends every sign-in of it. Whoever holds the
    /// token may, and has shown that the address is theirs.
    ///
    /// # Errors
    /// [`Error::InvalidMailToken`], [`Error::Busy`].
    pub async fn reset(&self, reset: &PasswordReset, language: Language) -> Result<(), Error> {
        let token = reset.token.as_ref().ok_or(Error::InvalidMailToken)?;
        // Before the hash, which is slow: a stranger's guess costs one look-up.
        let holder = self.holder(token, Purpose::ResetPassword).await?;
        let hash = &self.passwords.hash(&reset.new).await?;
        retrying(&*self.clock, || async move {
            let now = self.clock.now();
            let unit = self.store.begin().await?;
            let user = redeem(&*unit, holder, token, Purpose::ResetPassword, now).await?;
            unit.users().set_password_hash(user.id, hash).await?;
            if user.email_verified_at.is_none() {
                unit.users().set_email_verified(user.id, now).await?;
            }
            unit.sign_ins().delete_all_of(user.id).await?;
            self.postbox.password_changed(&*unit, user.id, language, now).await?;
            unit.commit().await?;
            self.events.record(Event::PasswordChanged);
            Ok(())
        })
        .await
    }

    /// Whose token it is, without looking whether it is still good.
    async fn holder(&self, token: &MailToken, purpose: Purpose) -> Result<UserId, Error> {
        let found = self.store.reader().mail_tokens().find_locked(&token.hash(), purpose).await?;
        Ok(found.ok_or(Error::InvalidMailToken)?.user)
    }

    /// Whether this board sends mail at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.postbox.open
    }

    /// How many letters wait.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn waiting(&self) -> Result<u64, Error> {
        Ok(self.store.reader().outbox().count().await?)
    }

    /// Sends one letter that is due, and says what became of it; `None` where none is. Any number of callers, on any
    /// number of nodes, may do so at once.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Busy`]. The letter comes back when its lease ends.
    pub async fn deliver(&self) -> Result<Option<Delivery>, Error> {
        let Some(mailer) = &self.mailer else { return Ok(None) };
        // Most of the time nothing is due, and then no unit is opened.
        if !self.store.reader().outbox().is_any_due(self.clock.now()).await? {
            return Ok(None);
        }
        let Some(queued) = self.take().await? else { return Ok(None) };
        let fate = match self.compose(&queued).await? {
            None => Fate::Dropped,
            Some(letter) => match mailer.send(&letter).await {
                Ok(()) => {
                    self.forget(queued.id).await?;
                    Fate::Sent
                }
                Err(error) => self.failed(&queued, error).await?,
            },
        };
        Ok(Some(Delivery { letter: queued.id, topic: queued.topic, attempts: queued.attempts, fate }))
    }

    async fn take(&self) -> Result<Option<QueuedLetter>, Error> {
        retrying(&*self.clock, || async move {
            let now = self.clock.now();
            let unit = self.store.begin().await?;
            let taken = unit.outbox().take(now, now.plus(LEASE)).await?;
            unit.commit().await?;
            Ok(taken)
        })
        .await
    }

    /// The letter with its token; `None`, and it is forgotten, where nobody is to get it.
    async fn compose(&self, queued: &QueuedLetter) -> Result<Option<Letter>, Error> {
        retrying(&*self.clock, || async move {
            let now = self.clock.now();
            let unit = self.store.begin().await?;
            let user = reader_of(&*unit, queued).await?;
            let message = match (&user, queued.topic) {
                (None, _) => None,
                (Some(user), Topic::VerifyEmail) if user.email_verified_at.is_some() => None,
                (Some(user), Topic::VerifyEmail) => {
                    Some(Message::VerifyEmail(self.hand_out(&*unit, user, Purpose::VerifyEmail, now).await?))
                }
                (Some(user), Topic::ResetPassword) => {
                    Some(Message::ResetPassword(self.hand_out(&*unit, user, Purpose::ResetPassword, now).await?))
                }
                (Some(_), Topic::EmailChanged) => Some(Message::EmailChanged),
                (Some(_), Topic::PasswordChanged) => Some(Message::PasswordChanged),
            };
            if message.is_none() {
                unit.outbox().delete(queued.id).await?;
            }
            unit.commit().await?;
            let is_theirs = |user: &User| user.email_verified_at.is_some() && user.email.key() == queued.to.key();
            Ok(message.map(|message| Letter {
                id: queued.id,
                to: queued.to.clone(),
                language: queued.language,
                name: user.filter(is_theirs).map(|user| user.display_name.clone()),
                message,
                created_at: queued.created_at,
            }))
        })
        .await
    }

    /// Makes a token and keeps its hash; the one before it is void.
    async fn hand_out(
        &self,
        unit: &dyn Repositories,
        user: &User,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<MailToken, StoreError> {
        let token = MailToken::new(&*self.entropy);
        let record = MailTokenRecord {
            user: user.id,
            purpose,
            hash: token.hash(),
            email_key: user.email.key(),
            expires_at: now.plus(TOKEN_LIFETIME),
        };
        unit.mail_tokens().put(&record).await?;
        Ok(token)
    }

    async fn failed(&self, queued: &QueuedLetter, error: SendError) -> Result<Fate, Error> {
        let now = self.clock.now();
        if error.is_final || now >= queued.created_at.plus(PERSISTENCE) {
            self.forget(queued.id).await?;
            return Ok(Fate::GivenUp { reason: error.reason });
        }
        let until = now.plus(wait_after(queued.attempts, &*self.entropy));
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            unit.outbox().postpone(queued, until).await?;
            Ok(unit.commit().await?)
        })
        .await?;
        Ok(Fate::Postponed { until, reason: error.reason })
    }

    /// A letter that was sent and stays would be sent again, so this is tried for longer than anything else. That whether a
    /// commit took place is not known does not matter here: what is gone can be forgotten once more.
    async fn forget(&self, id: LetterId) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let outcome = async {
                let unit = self.store.begin().await?;
                unit.outbox().delete(id).await?;
                unit.commit().await
            };
            match outcome.await {
                Err(StoreError::Contention(_) | StoreError::Unavailable(_)) if tries < FORGETTING => {
                    tries += 1;
                    self.clock.pause_before(tries.min(RETRIES)).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// Takes a token in, once: of two that bring it at the same time, the second waits for the first and finds it gone. The
/// account is locked before its token, as everywhere.
async fn redeem(
    unit: &dyn Repositories,
    holder: UserId,
    token: &MailToken,
    purpose: Purpose,
    now: Timestamp,
) -> Result<User, Error> {
    let user = unit.users().find_locked(holder).await?.ok_or(Error::InvalidMailToken)?;
    let found = unit.mail_tokens().find_locked(&token.hash(), purpose).await?;
    if !found.is_some_and(|record| record.is_good(&user, now)) {
        return Err(Error::InvalidMailToken);
    }
    unit.mail_tokens().delete(user.id, purpose).await?;
    Ok(user)
}

/// Whose letter it is, locked; `None` where nobody is to get it.
async fn reader_of(unit: &dyn Repositories, queued: &QueuedLetter) -> Result<Option<User>, StoreError> {
    let id = match queued.user {
        Some(id) => Some(id),
        None => unit.users().find_by_email(&queued.to).await?.map(|user| user.id),
    };
    let Some(id) = id else { return Ok(None) };
    let user = unit.users().find_locked(id).await?;
    Ok(user.filter(|user| match queued.topic {
        // A token goes to the address that the account has, or nowhere.
        Topic::VerifyEmail | Topic::ResetPassword => user.email.key() == queued.to.key(),
        Topic::EmailChanged | Topic::PasswordChanged => true,
    }))
}

/// 2 s after the first try, doubled with each further one up to an hour, and of that a random part between half and
/// all, so that letters which failed together do not come back together.
fn wait_after(attempts: u32, entropy: &dyn Entropy) -> TimeDelta {
    let longest = LONGEST_WAIT.num_milliseconds();
    let doubled = FIRST_WAIT.num_milliseconds() << attempts.saturating_sub(1).min(16);
    let half = doubled.min(longest) / 2;
    let [a, b, ..] = entropy.secret();
    TimeDelta::milliseconds(half + half * i64::from(u16::from_be_bytes([a, b])) / i64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dice(u8);

    impl Entropy for Dice {
        fn secret(&self) -> [u8; 32] {
            [self.0; 32]
        }
    }

    #[test]
    fn waits_double_up_to_an_hour_and_differ_by_half() {
        let waits = |dice: u8| -> Vec<i64> {
            [1, 2, 3, 11, 12, 13, 1000, u32::MAX].map(|n| wait_after(n, &Dice(dice)).num_milliseconds()).to_vec()
        };
        assert_eq!(waits(0), [1_000, 2_000, 4_000, 1_024_000, 1_800_000, 1_800_000, 1_800_000, 1_800_000]);
        assert_eq!(waits(255), [2_000, 4_000, 8_000, 2_048_000, 3_600_000, 3_600_000, 3_600_000, 3_600_000]);
    }
}
