//! What is done with accounts.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    ACCESS_LIFETIME, AccessClaims, AccessTokens, Password, PasswordChange, PasswordHash, PasswordHasher, Registration,
    TokenPair,
};
use crate::actor::{Act, Actor};
use crate::admin::note;
use crate::audit::Action;
use crate::env::{Clock, Entropy, Timestamp, retrying};
use crate::error::{Error, Kind, StoreError};
use crate::event::{Event, Events};
use crate::idempotency::{Claimant, Creation, Desk, IdempotencyKey, Outcome, once};
use crate::mail::{Language, Postbox};
use crate::rate::{Attempt, RateLimits};
use crate::sign_in::{LIFETIME, NewSignIn, RefreshToken, SignInId, TurnedDown};
use crate::user::{Author, DisplayName, Email, NewUser, Role, User, UserId, email_taken};
use crate::version::Expected;
use crate::{Ports, Repositories, Store};

/// Use cases on accounts.
pub struct AccountService {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    passwords: Arc<dyn PasswordHasher>,
    access_tokens: Arc<dyn AccessTokens>,
    rates: Arc<RateLimits>,
    events: Arc<dyn Events>,
    desk: Desk,
    postbox: Postbox,
}

/// Whether a password that is about to be replaced was compared, and with which hash.
#[derive(Clone, Copy)]
enum Compared<'a> {
    With(&'a Option<PasswordHash>, Option<&'a Attempt>),
    /// An administrator replaces it.
    NotAtAll,
}

/// An account that is being registered, with the password that was sent.
#[derive(Clone)]
struct NewAccount {
    user: NewUser,
    password: Password,
    /// Where the letter that verifies the address goes, and its language; an address that an operator names gets none.
    welcome: Option<(Postbox, Language)>,
}

#[async_trait]
impl Creation for NewAccount {
    type Entity = User;

    const OPERATION: &'static str = "register";
    const EVENT: Event = Event::Registered;

    fn said(&self) -> Vec<&[u8]> {
        let NewUser { email, display_name, .. } = &self.user;
        // Not the hash, which is salted anew each time.
        vec![email.as_str().as_bytes(), display_name.as_str().as_bytes(), self.password.expose().as_bytes()]
    }

    fn stamp(&self) -> (Timestamp, Option<&Author>) {
        (self.user.created_at, None)
    }

    fn stamped(self, created_at: Timestamp, _: Option<Author>) -> Self {
        Self { user: NewUser { created_at, ..self.user }, ..self }
    }

    async fn store(&self, unit: &dyn Repositories) -> Result<User, Error> {
        let user = unit.users().insert(&self.user).await.map_err(email_taken)?;
        if let Some((postbox, language)) = self.welcome {
            postbox.verify_email(unit, &user, language, self.user.created_at).await?;
        }
        Ok(user)
    }

    fn id(entity: &User) -> i64 {
        entity.id.get()
    }

    fn stored_as(self, id: i64) -> User {
        self.user.stored(UserId::new(id))
    }
}

impl AccountService {
    #[must_use]
    pub fn new(ports: &Ports, rates: Arc<RateLimits>) -> Self {
        Self {
            store: ports.store.clone(),
            clock: ports.clock.clone(),
            rates,
            entropy: ports.entropy.clone(),
            passwords: ports.passwords.clone(),
            access_tokens: ports.access_tokens.clone(),
            events: ports.events.clone(),
            desk: Desk::new(ports),
            postbox: Postbox::new(ports),
        }
    }

    /// Registers an account; with a key, once. Anybody may. The address is asked to prove itself by a letter in `language`.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], [`Error::Busy`], [`Error::KeyReused`], [`Error::KeyInUse`].
    pub async fn register(
        &self,
        registration: &Registration,
        key: Option<&IdempotencyKey>,
        language: Language,
    ) -> Result<Outcome<User>, Error> {
        let welcome = Some((self.postbox, language));
        let account = NewAccount { welcome, ..self.new_account(registration, Role::Member).await? };
        once(&self.desk, Claimant::anonymous(), key, account).await
    }

    /// Makes an account with a role: how the first administrator comes to be.
    ///
    /// # Errors
    /// [`Error::EmailTaken`], [`Error::Busy`], and what the ownership table says.
    pub async fn add(&self, by: &Actor, registration: &Registration, role: Role) -> Result<User, Error> {
        by.must(Act::Administer)?;
        let NewAccount { user: new, .. } = self.new_account(registration, role).await?;
        let new = &new;
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let user = unit.users().insert(new).await.map_err(email_taken)?;
            note(&*unit, by, Action::AddedUser { role }, Some(user.id), new.created_at).await?;
            unit.commit().await?;
            self.events.record(Event::Registered);
            Ok(user)
        })
        .await
    }

    async fn new_account(&self, registration: &Registration, role: Role) -> Result<NewAccount, Error> {
        let Registration { email, password, display_name } = registration.clone();
        let hash = self.passwords.hash(&password).await?;
        let user = NewUser { email, display_name, role, password: Some(hash), created_at: self.clock.now() };
        Ok(NewAccount { user, password, welcome: None })
    }

    async fn insert(&self, new: &NewUser) -> Result<User, Error> {
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let user = unit.users().insert(new).await.map_err(email_taken)?;
            unit.commit().await?;
            self.events.record(Event::Registered);
            Ok(user)
        })
        .await
    }

    /// Signs in with e-mail and password (RFC 6749, 4.3).
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`], taking as long for an unknown account as for a wrong password;
    /// [`Error::RateLimited`] after too many wrong ones; [`Error::Busy`].
    pub async fn sign_in(&self, email: &str, password: &str) -> Result<TokenPair, Error> {
        let outcome = self.try_to_sign_in(email, password).await;
        match &outcome {
            Ok(_) => self.events.record(Event::SignedIn),
            Err(Error::InvalidCredentials) => self.events.record(Event::SignInRefused),
            // No password was compared, or its outcome was not stored.
            Err(_) => {}
        }
        outcome
    }

    async fn try_to_sign_in(&self, email: &str, password: &str) -> Result<TokenPair, Error> {
        let users = self.store.reader().users();
        let (user, attempt) = match Email::parse(email) {
            Ok(email) => {
                let attempt = self.rates.attempt(&email).await?;
                (users.find_by_email(&email).await?, attempt)
            }
            // No account can have it: there is nothing to guess.
            Err(_) => (None, None),
        };
        let hash = match &user {
            Some(user) => users.password_hash(user.id).await?,
            None => None,
        };
        let matches = self.passwords.verify(&Password::attempt(password), hash.clone()).await?;
        let user = user.filter(|_| matches).ok_or(Error::InvalidCredentials)?;
        let (user, hash, attempt) = (&user, &hash, attempt.as_ref());
        retrying(&*self.clock, || async move {
            let now = self.clock.now();
            let token = RefreshToken::first(&*self.entropy);
            let unit = self.store.begin().await?;
            // The password may have changed while it was compared; that change has ended every sign-in there was.
            if unit.users().password_hash(user.id).await? != *hash {
                return Err(Error::InvalidCredentials);
            }
            let new = NewSignIn {
                user: user.id,
                family: token.family_hash(),
                current: token.secret_hash(),
                created_at: now,
                expires_at: now.plus(LIFETIME),
            };
            let id = unit.sign_ins().insert(&new).await?;
            self.rates.give_back(&*unit, attempt).await?;
            unit.commit().await?;
            self.pair(user.id, id, token, now)
        })
        .await
    }

    /// Exchanges a refresh token for a new pair (RFC 6749, 6). One that was used before ends its sign-in.
    ///
    /// # Errors
    /// [`Error::InvalidRefreshToken`].
    pub async fn refresh(&self, refresh_token: &str) -> Result<TokenPair, Error> {
        let outcome = self.renew(refresh_token).await;
        match &outcome {
            Ok(_) => self.events.record(Event::Renewed),
            Err(Error::InvalidRefreshToken) => self.events.record(Event::RenewalRefused),
            Err(_) => {}
        }
        outcome
    }

    async fn renew(&self, refresh_token: &str) -> Result<TokenPair, Error> {
        let presented = RefreshToken::parse(refresh_token).ok_or(Error::InvalidRefreshToken)?;
        let presented = &presented;
        retrying(&*self.clock, || async move {
            let now = self.clock.now();
            let next = presented.successor(&*self.entropy);
            let unit = self.store.begin().await?;
            let found = unit.sign_ins().find_locked(&presented.family_hash()).await?;
            let mut sign_in = found.ok_or(Error::InvalidRefreshToken)?;
            match sign_in.rotate(presented.secret_hash(), next.secret_hash(), now) {
                Ok(()) => unit.sign_ins().update(&sign_in).await?,
                Err(TurnedDown::Expired | TurnedDown::Reused) => unit.sign_ins().delete(sign_in.id).await?,
            }
            let good = sign_in.current == next.secret_hash();
            unit.commit().await?;
            if !good {
                return Err(Error::InvalidRefreshToken);
            }
            self.pair(sign_in.user, sign_in.id, next, now)
        })
        .await
    }

    /// Signs out: ends the sign-in that an access or refresh token belongs to (RFC 7009). An unknown token is no error.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Busy`].
    pub async fn revoke(&self, token: &str) -> Result<(), Error> {
        let refresh = RefreshToken::parse(token);
        let access = self.access_tokens.verify(token, self.clock.now());
        if refresh.is_none() && access.is_none() {
            return Ok(());
        }
        let refresh = &refresh;
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let mut id = access.map(|(_, sign_in)| sign_in);
            if let Some(token) = refresh {
                id = unit.sign_ins().find_locked(&token.family_hash()).await?.map(|sign_in| sign_in.id);
            }
            if let Some(id) = id {
                unit.sign_ins().delete(id).await?;
            }
            Ok(unit.commit().await?)
        })
        .await
    }

    /// Who an access token speaks for, as the account stands now.
    ///
    /// # Errors
    /// [`Error::InvalidToken`].
    pub async fn authenticate(&self, access_token: &str) -> Result<Actor, Error> {
        self.authenticate_since(access_token, self.clock.now()).await
    }

    /// As [`authenticate`](Self::authenticate), with a request that came `then` and goes on: the time of its token may be up
    /// since, for nobody can bring another one to it. A sign-in that has ended ends it all the same.
    ///
    /// # Errors
    /// [`Error::InvalidToken`].
    pub async fn authenticate_since(&self, access_token: &str, then: Timestamp) -> Result<Actor, Error> {
        let claims = self.access_tokens.verify(access_token, then);
        let (user, sign_in) = claims.ok_or(Error::InvalidToken)?;
        let user = self.store.reader().users().find_signed_in(user, sign_in).await?;
        Ok(user.ok_or(Error::InvalidToken)?.into())
    }

    /// The member with this e-mail, if there is one. For the deployments that [`trust`](Self::trust) is for.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn recognise(&self, email: &Email) -> Result<Option<Actor>, Error> {
        Ok(self.store.reader().users().find_by_email(email).await?.map(Actor::from))
    }

    /// The member with this e-mail; an unknown one becomes a member without a password. Only for a deployment where a
    /// proxy or a closed network proves who is calling (the contract, `trusted-email`).
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Busy`].
    pub async fn trust(&self, email: &Email) -> Result<Actor, Error> {
        if let Some(actor) = self.recognise(email).await? {
            return Ok(actor);
        }
        let name: String = email.local_part().chars().take(DisplayName::MAX).collect();
        let new = NewUser {
            email: email.clone(),
            display_name: DisplayName::parse(&name).map_err(|_| Error::internal("no name in an e-mail"))?,
            role: Role::Member,
            password: None,
            created_at: self.clock.now(),
        };
        match self.insert(&new).await {
            // Somebody else was faster: then there is a member now.
            Err(Error::EmailTaken) => self.recognise(email).await?.ok_or(Error::EmailTaken),
            other => Ok(other?.into()),
        }
    }

    /// Changes the own password and ends every sign-in, this one too; a letter in `language` tells of it.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`] where the current password is wrong, [`Error::RateLimited`] after too many wrong ones,
    /// and what the ownership table says.
    pub async fn change_password(&self, by: &Actor, change: &PasswordChange, language: Language) -> Result<(), Error> {
        let account = by.account_that_may(Act::ChangeOwnAccount)?;
        let id = account.id;
        let attempt = self.rates.attempt(&account.email).await?;
        let hash = self.store.reader().users().password_hash(id).await?;
        if !self.passwords.verify(&change.current, hash.clone()).await? {
            return Err(Error::InvalidCredentials);
        }
        self.set_password(by, id, &change.new, Compared::With(&hash, attempt.as_ref()), language).await
    }

    /// Gives an account another password and ends every sign-in of it: for an administrator whose member forgot it. A
    /// letter in English tells the member.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what the ownership table says.
    pub async fn reset_password(&self, by: &Actor, email: &Email, new: &Password) -> Result<(), Error> {
        by.must(Act::Administer)?;
        let user = self.store.reader().users().find_by_email(email).await?;
        let id = user.ok_or(Error::NotFound(Kind::USER))?.id;
        self.set_password(by, id, new, Compared::NotAtAll, Language::English).await
    }

    async fn set_password(
        &self,
        by: &Actor,
        id: UserId,
        new: &Password,
        compared: Compared<'_>,
        language: Language,
    ) -> Result<(), Error> {
        let hash = &self.passwords.hash(new).await?;
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            match compared {
                // It may have changed while it was compared.
                Compared::With(hash, _) if unit.users().password_hash(id).await? != *hash => {
                    return Err(Error::InvalidCredentials);
                }
                Compared::With(_, attempt) => self.rates.give_back(&*unit, attempt).await?,
                Compared::NotAtAll => note(&*unit, by, Action::ResetPassword, Some(id), self.clock.now()).await?,
            }
            match unit.users().set_password_hash(id, hash).await {
                // Deleted a moment ago.
                Err(StoreError::Stale) => return Err(Error::NotFound(Kind::USER)),
                other => other?,
            }
            unit.sign_ins().delete_all_of(id).await?;
            self.postbox.password_changed(&*unit, id, language, self.clock.now()).await?;
            unit.commit().await?;
            self.events.record(Event::PasswordChanged);
            Ok(())
        })
        .await
    }

    /// Deletes the own account: what it wrote stays under "deleted user", the person is forgotten.
    ///
    /// # Errors
    /// What the ownership table says, [`Error::VersionMismatch`].
    pub async fn delete(&self, by: &Actor, expected: &Expected) -> Result<(), Error> {
        let id = by.account_that_may(Act::DeleteOwnAccount)?.id;
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            // None: deleted from another device a moment ago.
            let user = unit.users().find_locked(id).await?.ok_or(Error::InvalidToken)?;
            expected.check(user.version)?;
            // Before the address is forgotten: letters that name nobody else are found by it.
            unit.outbox().delete_all_of(id).await?;
            unit.users().erase(id, self.clock.now()).await?;
            unit.sign_ins().delete_all_of(id).await?;
            unit.receipts().delete_all_of(id).await?;
            unit.mail_tokens().delete_all_of(id).await?;
            unit.commit().await?;
            self.events.record(Event::AccountDeleted);
            Ok(())
        })
        .await
    }

    fn pair(
        &self,
        user: UserId,
        sign_in: SignInId,
        refresh_token: RefreshToken,
        now: Timestamp,
    ) -> Result<TokenPair, Error> {
        let expires_at = now.plus(ACCESS_LIFETIME);
        let access_token = self.access_tokens.issue(&AccessClaims { user, sign_in, issued_at: now, expires_at })?;
        Ok(TokenPair { access_token, expires_in: ACCESS_LIFETIME, refresh_token })
    }
}
