//! People: their names, their roles, their public profile.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::actor::{Act, Actor};
use crate::admin::{UserChange, UserListing};
use crate::audit::Action;
use crate::env::{Clock, Timestamp, retrying};
use crate::error::{Broken, Error, Kind, StoreError, Violations};
use crate::id::id;
use crate::mail::{Language, Postbox};
use crate::page::Slice;
use crate::rate::{RateLimits, Subject};
use crate::text::{email, length, not_blank, printable, text_value};
use crate::version::{Expected, Version};
use crate::{Ports, Store};

impl Kind {
    pub const USER: Self = Self::new("user", "user_not_found");
}

id!(
    /// Identifies an account; given by the database, below 2^53, never given twice.
    UserId
);

/// An e-mail address of at most 254 characters (RFC 5321, 4.5.3.1.3, less the angle brackets), its domain in lower
/// case. Two spellings that differ in case alone are one account: see [`Email::key`].
#[derive(Clone, PartialEq, Eq, Hash, garde::Validate)]
#[garde(transparent)]
pub struct Email(#[garde(custom(length::<{ Self::MIN }, { Self::MAX }>), custom(email))] String);

/// How many addresses a thread knows to be good: 300 KB of them at the most.
const MOST_KNOWN: usize = 1_024;

thread_local! {
    /// Addresses that were found good. A page shows the same few people again and again, and the rule costs more than all
    /// else that is read of them.
    static KNOWN: RefCell<HashSet<Box<str>>> = RefCell::default();
}

impl Email {
    /// Characters.
    pub const MIN: usize = 3;
    /// Characters.
    pub const MAX: usize = 254;

    /// Checks the address and lower-cases its domain.
    ///
    /// # Errors
    /// All the rules that `raw` breaks.
    pub fn parse(raw: &str) -> Result<Self, Vec<Broken>> {
        let text = crate::text::nfc(raw);
        let folded = match text.rsplit_once('@') {
            Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
            None => text,
        };
        if KNOWN.with_borrow(|known| known.contains(folded.as_str())) {
            return Ok(Self(folded));
        }
        let address = Self(folded);
        match garde::Validate::validate(&address) {
            Ok(()) => {
                KNOWN.with_borrow_mut(|known| {
                    if known.len() >= MOST_KNOWN {
                        known.clear();
                    }
                    known.insert(address.0.as_str().into());
                });
                Ok(address)
            }
            Err(report) => Err(crate::text::broken(&report)),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is unique: the whole address in lower case.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }

    /// The part before the `@`.
    #[must_use]
    pub fn local_part(&self) -> &str {
        self.0.split('@').next().unwrap_or_default()
    }
}

impl fmt::Debug for Email {
    /// Addresses are personal: no log line may hold one by accident.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// What others see of a person: 1 to 50 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, garde::Validate)]
#[garde(transparent)]
pub struct DisplayName(
    #[garde(custom(length::<{ Self::MIN }, { Self::MAX }>), custom(printable), custom(not_blank))] String,
);

impl DisplayName {
    /// Characters.
    pub const MIN: usize = 1;
    /// Characters.
    pub const MAX: usize = 50;
}

text_value!(DisplayName);

/// What an account may do beyond its own: see [`Actor::must`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Member,
    Moderator,
    Admin,
}

impl Role {
    pub const NAMES: [&'static str; 3] = ["member", "moderator", "admin"];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Moderator => "moderator",
            Self::Admin => "admin",
        }
    }

    /// # Errors
    /// [`Broken::NotOneOf`] for any other word.
    pub fn parse(name: &str) -> Result<Self, Vec<Broken>> {
        match name {
            "member" => Ok(Self::Member),
            "moderator" => Ok(Self::Moderator),
            "admin" => Ok(Self::Admin),
            _ => Err(vec![Broken::NotOneOf { allowed: &Self::NAMES }]),
        }
    }
}

/// Who wrote something, as it is shown beside it. Of a deleted account only the id is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    pub id: UserId,
    pub display_name: Option<DisplayName>,
    pub email: Option<Email>,
}

/// An account's stored values. Reading goes through [`User`]; changing goes through its methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    pub id: UserId,
    pub email: Email,
    pub display_name: DisplayName,
    pub role: Role,
    /// When whoever reads that address proved that the account is theirs.
    pub email_verified_at: Option<Timestamp>,
    pub suspended_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: Version,
}

/// An account that exists; a deleted one is no `User` any more, only an [`Author`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(UserRecord);

impl std::ops::Deref for User {
    type Target = UserRecord;

    fn deref(&self) -> &UserRecord {
        &self.0
    }
}

impl User {
    /// What a repository read. Not for use cases: they change a user by the methods below.
    #[must_use]
    pub const fn restore(record: UserRecord) -> Self {
        Self(record)
    }

    /// How the account is shown beside what it wrote.
    #[must_use]
    pub fn author(&self) -> Author {
        Author { id: self.id, display_name: Some(self.display_name.clone()), email: Some(self.email.clone()) }
    }

    /// Changes the own e-mail or display name.
    ///
    /// # Errors
    /// What the ownership table says; [`Error::VersionMismatch`].
    pub fn edit(&mut self, by: &Actor, expected: &Expected, edit: &UserEdit, now: Timestamp) -> Result<(), Error> {
        by.must(Act::ChangeOwnAccount)?;
        if !by.is(self.id) {
            return Err(Error::NotAuthor);
        }
        expected.check(self.version)?;
        if let Some(email) = &edit.email {
            // Another spelling is the same address.
            if email.key() != self.email.key() {
                self.0.email_verified_at = None;
            }
            self.0.email.clone_from(email);
        }
        if let Some(name) = &edit.display_name {
            self.0.display_name.clone_from(name);
        }
        self.touch(now);
        Ok(())
    }

    /// Changes the role, suspends or reinstates, and says what was done; a change to what is already so is none.
    ///
    /// # Errors
    /// What the ownership table says; then [`Error::VersionMismatch`].
    pub fn administer(
        &mut self,
        by: &Actor,
        expected: &Expected,
        change: &UserChange,
        now: Timestamp,
    ) -> Result<Vec<Action>, Error> {
        by.must(Act::Govern { account: self.id })?;
        expected.check(self.version)?;
        let mut done = Vec::new();
        if let Some(to) = change.role.filter(|role| *role != self.role) {
            done.push(Action::AssignedRole { from: self.role, to });
            self.0.role = to;
        }
        if let Some(suspended) = change.suspended.filter(|suspended| *suspended != self.suspended_at.is_some()) {
            done.push(if suspended { Action::Suspended } else { Action::Reinstated });
            self.0.suspended_at = suspended.then_some(now);
        }
        if !done.is_empty() {
            self.touch(now);
        }
        Ok(done)
    }

    fn touch(&mut self, now: Timestamp) {
        self.0.updated_at = now;
        self.0.version = self.version.next();
    }
}

/// An account to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    pub email: Email,
    pub display_name: DisplayName,
    pub role: Role,
    /// `None`: nobody can sign in to it with a password.
    pub password: Option<crate::account::PasswordHash>,
    pub created_at: Timestamp,
}

impl NewUser {
    /// What is stored of it under this id, in its first version.
    #[must_use]
    pub fn stored(self, id: UserId) -> User {
        User::restore(UserRecord {
            id,
            email: self.email,
            display_name: self.display_name,
            role: self.role,
            email_verified_at: None,
            suspended_at: None,
            created_at: self.created_at,
            updated_at: self.created_at,
            version: Version::FIRST,
        })
    }
}

/// A change of the own account; an absent field stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserEdit {
    pub email: Option<Email>,
    pub display_name: Option<DisplayName>,
}

impl UserEdit {
    /// # Errors
    /// Every rule that a field breaks.
    pub fn parse(email: Option<&str>, display_name: Option<&str>) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let email = violations.check_if_present("email", email, Email::parse);
        let display_name = violations.check_if_present("display_name", display_name, DisplayName::parse);
        violations.finish((|| Some(Self { email: email?, display_name: display_name? }))())
    }

    const fn is_empty(&self) -> bool {
        self.email.is_none() && self.display_name.is_none()
    }
}

/// Where accounts are kept.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait UserRepository: Send + Sync {
    /// The account, unless it is unknown or deleted.
    async fn find(&self, id: UserId) -> Result<Option<User>, StoreError>;
    /// As [`find`](Self::find); in a unit, MUST keep the row from changing until the unit ends.
    async fn find_locked(&self, id: UserId) -> Result<Option<User>, StoreError>;
    /// The account with this address, however it is spelled (see [`Email::key`]).
    async fn find_by_email(&self, email: &Email) -> Result<Option<User>, StoreError>;
    /// The account, if the sign-in that its token names is still there. MUST know of every change that this process has
    /// committed; of another's, within a second.
    async fn find_signed_in(&self, id: UserId, sign_in: crate::sign_in::SignInId) -> Result<Option<User>, StoreError>;
    /// MUST be in the slice's order by id, hold nothing at or before `after`, at most `limit` items, and no deleted account.
    async fn list(&self, listing: &UserListing, slice: &Slice) -> Result<Vec<User>, StoreError>;
    /// Stores a new account and returns it whole. MUST report a taken e-mail as [`StoreError::Duplicate`].
    async fn insert(&self, user: &NewUser) -> Result<User, StoreError>;
    /// Stores a changed account. MUST be [`StoreError::Stale`] unless the stored version is the one before, and
    /// [`StoreError::Duplicate`] where the e-mail is taken.
    async fn update(&self, user: &User) -> Result<(), StoreError>;
    /// The password's hash, if the account has one; in a unit, MUST keep it from changing until the unit ends.
    async fn password_hash(&self, id: UserId) -> Result<Option<crate::account::PasswordHash>, StoreError>;
    /// Notes that the address is verified, which is no edit and counts no version. MUST be [`StoreError::Stale`] where the
    /// account is unknown or deleted.
    async fn set_email_verified(&self, id: UserId, at: Timestamp) -> Result<(), StoreError>;
    /// MUST be [`StoreError::Stale`] where the account is unknown or deleted.
    async fn set_password_hash(&self, id: UserId, hash: &crate::account::PasswordHash) -> Result<(), StoreError>;
    /// Forgets the person: e-mail, name and password. MUST keep the row, since what they wrote refers to it, and MUST be
    /// [`StoreError::Stale`] where the account is unknown or deleted already.
    async fn erase(&self, id: UserId, now: Timestamp) -> Result<(), StoreError>;
}

/// Use cases on people.
pub struct UserService {
    rates: Arc<RateLimits>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    postbox: Postbox,
}

impl UserService {
    #[must_use]
    pub fn new(ports: &Ports, rates: Arc<RateLimits>) -> Self {
        Self { rates, store: ports.store.clone(), clock: ports.clock.clone(), postbox: Postbox::new(ports) }
    }

    /// The public profile of an account.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown or deleted one.
    pub async fn profile(&self, by: &Actor, id: UserId) -> Result<User, Error> {
        by.must(Act::Read)?;
        self.store.reader().users().find(id).await?.ok_or(Error::NotFound(Kind::USER))
    }

    /// The own account, as it is stored now.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub async fn me(&self, by: &Actor) -> Result<User, Error> {
        let id = by.account_that_may(Act::ReadOwnAccount)?.id;
        self.store.reader().users().find(id).await?.ok_or(Error::InvalidToken)
    }

    /// Changes the own e-mail or display name. Another address is not verified; it and the old one get a letter.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], [`Error::VersionMismatch`], [`Error::RateLimited`] after too many other addresses, and what
    /// the ownership table says.
    pub async fn edit_me(
        &self,
        by: &Actor,
        edit: &UserEdit,
        expected: &Expected,
        language: Language,
    ) -> Result<User, Error> {
        let account = by.account_that_may(Act::ChangeOwnAccount)?;
        let id = account.id;
        if edit.email.as_ref().is_some_and(|email| email.key() != account.email.key()) {
            self.postbox.allow(&self.rates, &Subject::Account(id)).await?;
        }
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let mut user = unit.users().find_locked(id).await?.ok_or(Error::InvalidToken)?;
            if edit.is_empty() {
                expected.check(user.version)?;
                return Ok(user);
            }
            let (now, old) = (self.clock.now(), user.email.clone());
            user.edit(by, expected, edit, now)?;
            unit.users().update(&user).await.map_err(email_taken)?;
            if user.email.key() != old.key() {
                self.postbox.email_changed(&*unit, &old, &user, language, now).await?;
            }
            unit.commit().await?;
            Ok(user)
        })
        .await
    }
}

/// The only unique value of an account is its e-mail.
pub(crate) fn email_taken(error: StoreError) -> Error {
    match error {
        StoreError::Duplicate(_) => Error::EmailTaken,
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_so_many_addresses_and_no_more() {
        let known = || KNOWN.with_borrow(HashSet::len);
        for n in 0..3 * MOST_KNOWN {
            let address = format!("user{n}@example.com");
            assert_eq!(Email::parse(&address).unwrap().as_str(), address);
            assert!((1..=MOST_KNOWN).contains(&known()), "{}", known());
        }
        let before = known();
        assert!(Email::parse("nobody").is_err());
        assert_eq!(known(), before, "what is not good is not kept");
    }
}
