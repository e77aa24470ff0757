//! What administrators do: look at accounts, change roles, suspend and reinstate. Every use is written to the audit log.

use std::sync::Arc;

use crate::actor::{Act, Actor};
use crate::audit::{Action, AuditEntry, NewAuditEntry};
use crate::env::{Clock, Timestamp, retrying};
use crate::error::{Error, Kind, Violations};
use crate::page::{CursorKey, Order, Page, PageRequest};
use crate::user::{Email, Role, User, UserId};
use crate::version::Expected;
use crate::{Ports, Repositories, Store, UnitOfWork};

/// Which accounts a list holds, and in which order. Deleted ones are in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserListing {
    pub role: Option<Role>,
    pub suspended: Option<bool>,
    pub order: Order,
}

impl UserListing {
    /// All that a cursor of this list is bound to.
    fn name(self) -> String {
        let role = self.role.map_or("any", Role::name);
        let suspended = self.suspended.map_or("any", |suspended| if suspended { "yes" } else { "no" });
        format!("admin/users?role={role}&suspended={suspended}")
    }
}

/// What an administrator changes of an account; an absent field stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    pub role: Option<Role>,
    pub suspended: Option<bool>,
}

impl UserChange {
    /// # Errors
    /// Every rule that a field breaks.
    pub fn parse(role: Option<&str>, suspended: Option<bool>) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let role = violations.check_if_present("role", role, Role::parse);
        violations.finish(role.map(|role| Self { role, suspended }))
    }
}

/// Use cases of administrators, and of the operator at the console.
pub struct AdminService {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    cursors: Arc<CursorKey>,
}

impl AdminService {
    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        Self { store: ports.store.clone(), clock: ports.clock.clone(), cursors: ports.cursors.clone() }
    }

    /// The accounts there are.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`], and what the ownership table says.
    pub async fn list_users(
        &self,
        by: &Actor,
        listing: &UserListing,
        request: &PageRequest,
    ) -> Result<Page<User>, Error> {
        by.must(Act::Administer)?;
        let name = listing.name();
        let slice = self.cursors.slice(&name, listing.order, request)?;
        self.note(by, Action::ListedUsers, None).await?;
        let items = self.store.reader().users().list(listing, &slice).await?;
        Ok(self.cursors.page(&name, &slice, items, |user| user.id.get()))
    }

    /// One account.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown or deleted one, and what the ownership table says.
    pub async fn user(&self, by: &Actor, id: UserId) -> Result<User, Error> {
        by.must(Act::Administer)?;
        let user = self.store.reader().users().find(id).await?.ok_or(Error::NotFound(Kind::USER))?;
        self.note(by, Action::ReadUser, Some(id)).await?;
        Ok(user)
    }

    /// Changes an account's role, suspends or reinstates it. A suspension ends every sign-in.
    ///
    /// # Errors
    /// [`Error::NotFound`], then what the ownership table says, then [`Error::VersionMismatch`].
    pub async fn change_user(
        &self,
        by: &Actor,
        id: UserId,
        change: &UserChange,
        expected: &Expected,
    ) -> Result<User, Error> {
        by.must(Act::Administer)?;
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let (by, mut user) = both_locked(&*unit, by, id).await?;
            let (by, now) = (&by, self.clock.now());
            let actions = user.administer(by, expected, change, now)?;
            if actions.is_empty() {
                return Ok(user);
            }
            unit.users().update(&user).await?;
            for action in actions {
                if action == Action::Suspended {
                    unit.sign_ins().delete_all_of(id).await?;
                }
                note(&*unit, by, action, Some(id), now).await?;
            }
            unit.commit().await?;
            Ok(user)
        })
        .await
    }

    /// As [`change_user`](Self::change_user), for the account with this e-mail.
    ///
    /// # Errors
    /// As [`change_user`](Self::change_user).
    pub async fn change_user_by_email(&self, by: &Actor, email: &Email, change: &UserChange) -> Result<User, Error> {
        by.must(Act::Administer)?;
        let found = self.store.reader().users().find_by_email(email).await?;
        self.change_user(by, found.ok_or(Error::NotFound(Kind::USER))?.id, change, &Expected::Any).await
    }

    /// What was done by administrators: to one account, or at all. Newest first.
    ///
    /// # Errors
    /// [`Error::InvalidCursor`], and what the ownership table says.
    pub async fn audit(
        &self,
        by: &Actor,
        target: Option<UserId>,
        request: &PageRequest,
    ) -> Result<Page<AuditEntry>, Error> {
        by.must(Act::Administer)?;
        let name = target.map_or_else(|| "admin/audit".to_owned(), |id| format!("admin/audit?user={id}"));
        let slice = self.cursors.slice(&name, Order::Newest, request)?;
        self.note(by, Action::ReadAudit, target).await?;
        let items = self.store.reader().audit().list(target, &slice).await?;
        Ok(self.cursors.page(&name, &slice, items, |entry| entry.id.get()))
    }

    /// Writes down a use that changes nothing else.
    async fn note(&self, by: &Actor, action: Action, target: Option<UserId>) -> Result<(), Error> {
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            note(&*unit, by, action, target, self.clock.now()).await?;
            Ok(unit.commit().await?)
        })
        .await
    }
}

/// Who changes an account, as they are now, and the account: both locked, in the order of their ids. Of two administrators who
/// take each other's role away one is first, and the other is none any more.
async fn both_locked(unit: &dyn UnitOfWork, by: &Actor, id: UserId) -> Result<(Actor, User), Error> {
    let own = by.account().map(|account| account.id);
    let mut ids: Vec<UserId> = own.into_iter().chain([id]).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut found = Vec::new();
    for id in ids {
        found.extend(unit.users().find_locked(id).await?);
    }
    let user = found.iter().find(|user| user.id == id).cloned().ok_or(Error::NotFound(Kind::USER))?;
    let by = match own {
        Some(own) => found.into_iter().find(|user| user.id == own).ok_or(Error::InvalidToken)?.into(),
        None => by.clone(),
    };
    Ok((by, user))
}

/// Writes to the audit log, in an open unit.
pub(crate) async fn note<R: Repositories + ?Sized>(
    unit: &R,
    by: &Actor,
    action: Action,
    target: Option<UserId>,
    now: Timestamp,
) -> Result<(), Error> {
    let actor = by.account().map(|user| user.id);
    unit.audit().insert(&NewAuditEntry { actor, action, target, created_at: now }).await?;
    Ok(())
}
