//! Letters: what the board writes to people by e-mail, and the single-use tokens that some of them carry.
//!
//! No request sends a letter. The use case that causes one puts it into the outbox in its own unit of work, so that
//! there is a letter exactly where its cause was committed; [`MailService::deliver`] takes it from there afterwards, on
//! whichever node comes to it first. A letter is sent at least once: it leaves the outbox when the mail server has taken
//! it, and a node that dies in between leaves it to the others.
//!
//! Tokens are made when their letter is sent, not when it is asked for. So the outbox holds no secret, a token's time
//! does not run out while a mail server is away, and whether an address belongs to anybody is looked up where nobody
//! can measure it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;

use crate::account::{Password, PasswordHasher};
use crate::actor::{Act, Actor};
use crate::env::{Clock, Entropy, RETRIES, Timestamp, retrying};
use crate::error::{Error, StoreError, Violations};
use crate::event::{Event, Events};
use crate::id::id;
use crate::rate::{Policy, RateLimits, Subject};
use crate::sign_in::TokenHash;
use crate::user::{DisplayName, Email, User, UserId};
use crate::{Ports, Repositories, Store};

/// How long a mailed token is good.
pub const TOKEN_LIFETIME: TimeDelta = TimeDelta::minutes(30);
/// How long a letter that was taken to be sent is kept from others. A [`Mailer`] is done in a quarter of that.
pub const LEASE: TimeDelta = TimeDelta::minutes(2);
/// How long a letter is tried before it is given up.
pub const PERSISTENCE: TimeDelta = TimeDelta::days(3);
/// The longest wait before the second try; it doubles with each further one.
pub const FIRST_WAIT: TimeDelta = TimeDelta::seconds(2);
/// The longest wait between two tries.
pub const LONGEST_WAIT: TimeDelta = TimeDelta::hours(1);

/// How often it is tried again to forget a letter that was sent.
pub const FORGETTING: u32 = 20;

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

    /// `None` for what is the name of none.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
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
    /// [`Email::key`] of the address that it was sent to. It is void once the account has another.
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
    /// node which dies gives it back by time alone. `None` where none is due, or others were faster.
    async fn take(&self, now: Timestamp, until: Timestamp) -> Result<Option<QueuedLetter>, StoreError>;
    /// Lets a letter that was taken wait until `due`. MUST have no effect where it was taken again since.
    async fn postpone(&self, letter: &QueuedLetter, due: Timestamp) -> Result<(), StoreError>;
    /// Forgets a letter; no error where it is gone.
    async fn delete(&self, id: LetterId) -> Result<(), StoreError>;
    /// Forgets every letter about an account, and every one to the address that it has now.
    async fn delete_all_of(&self, user: UserId) -> Result<(), StoreError>;
    /// How many letters wait.
    async fn count(&self) -> Result<u64, StoreError>;
}

/// Where mailed tokens are kept.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait MailTokenRepository: Send + Sync {
    /// Stores a token. MUST replace the one that the account had for this purpose.
    async fn put(&self, token: &MailTokenRecord) -> Result<(), StoreError>;
    /// The token with this hash and purpose; in a unit, MUST keep it from changing until the unit ends.
    async fn find_locked(&self, hash: &TokenHash, purpose: Purpose) -> Result<Option<MailTokenRecord>, StoreError>;
    /// Forgets the account's token for this purpose; no error where there is none.
    async fn delete(&self, user: UserId, purpose: Purpose) -> Result<(), StoreError>;
    async fn delete_all_of(&self, user: UserId) -> Result<(), StoreError>;
    /// Forgets what is good no longer, and says how many rows that were.
    async fn delete_expired(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// Puts letters into the outbox, where the board sends mail; else does nothing.
#[derive(Clone, Copy)]
pub(crate) struct Postbox {
    open: bool,
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

    /// What a changed e-mail brings with it: tokens that went to the old address are void, the old address is told, and
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

fn about(user: &User, to: Email, topic: Topic, language: Language, created_at: Timestamp) -> NewLetter {
    NewLetter { topic, user: Some(user.id), to, language, created_at }
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
    use crate::testing::{a_user, noon};
    use crate::user::Role;

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
