//! The audit log: what administrators did, to whom, and when. An entry is written in the same unit of work as the deed
//! and never changes. It names people by their ids alone, so that a deleted account leaves no trace of the person here.

use async_trait::async_trait;

use crate::env::Timestamp;
use crate::error::{Broken, StoreError};
use crate::id::id;
use crate::page::Slice;
use crate::user::{Role, UserId};

id!(
    /// Identifies an entry; given by the database, below 2^53, growing with time.
    AuditId
);

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    ListedUsers,
    ReadUser,
    ReadAudit,
    AddedUser { role: Role },
    AssignedRole { from: Role, to: Role },
    Suspended,
    Reinstated,
    ResetPassword,
}

impl Action {
    pub const NAMES: [&'static str; 8] = [
        "listed_users",
        "read_user",
        "read_audit",
        "added_user",
        "assigned_role",
        "suspended",
        "reinstated",
        "reset_password",
    ];

    /// Its name where it is stored and shown; never changes once released.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ListedUsers => "listed_users",
            Self::ReadUser => "read_user",
            Self::ReadAudit => "read_audit",
            Self::AddedUser { .. } => "added_user",
            Self::AssignedRole { .. } => "assigned_role",
            Self::Suspended => "suspended",
            Self::Reinstated => "reinstated",
            Self::ResetPassword => "reset_password",
        }
    }

    /// The role before it and the role after it, where it is about one.
    #[must_use]
    pub const fn roles(self) -> (Option<Role>, Option<Role>) {
        match self {
            Self::AddedUser { role } => (None, Some(role)),
            Self::AssignedRole { from, to } => (Some(from), Some(to)),
            Self::ListedUsers
            | Self::ReadUser
            | Self::ReadAudit
            | Self::Suspended
            | Self::Reinstated
            | Self::ResetPassword => (None, None),
        }
    }

    /// What [`name`](Self::name) and [`roles`](Self::roles) say.
    ///
    /// # Errors
    /// [`Broken::NotOneOf`] for any other name, [`Broken::Required`] where a role is missing.
    pub fn parse(name: &str, from: Option<Role>, to: Option<Role>) -> Result<Self, Vec<Broken>> {
        let there = |role: Option<Role>| role.ok_or_else(|| vec![Broken::Required]);
        Ok(match name {
            "listed_users" => Self::ListedUsers,
            "read_user" => Self::ReadUser,
            "read_audit" => Self::ReadAudit,
            "added_user" => Self::AddedUser { role: there(to)? },
            "assigned_role" => Self::AssignedRole { from: there(from)?, to: there(to)? },
            "suspended" => Self::Suspended,
            "reinstated" => Self::Reinstated,
            "reset_password" => Self::ResetPassword,
            _ => return Err(vec![Broken::NotOneOf { allowed: &Self::NAMES }]),
        })
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub id: AuditId,
    /// Who did it; `None` is somebody at the machine's console.
    pub actor: Option<UserId>,
    pub action: Action,
    /// Whom it was done to, where it was one account.
    pub target: Option<UserId>,
    pub created_at: Timestamp,
}

/// A line to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAuditEntry {
    pub actor: Option<UserId>,
    pub action: Action,
    pub target: Option<UserId>,
    pub created_at: Timestamp,
}

/// Where the log is kept.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait AuditRepository: Send + Sync {
    /// Writes a line and returns its id. MUST keep it whatever becomes of the accounts that it names.
    async fn insert(&self, entry: &NewAuditEntry) -> Result<AuditId, StoreError>;
    /// The entries about one account, or all. MUST be in the slice's order by id, hold nothing at or before `after`, and
    /// at most `limit` items.
    async fn list(&self, target: Option<UserId>, slice: &Slice) -> Result<Vec<AuditEntry>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_reads_back() {
        let actions = [
            Action::ListedUsers,
            Action::ReadUser,
            Action::ReadAudit,
            Action::AddedUser { role: Role::Admin },
            Action::AssignedRole { from: Role::Admin, to: Role::Member },
            Action::Suspended,
            Action::Reinstated,
            Action::ResetPassword,
        ];
        assert_eq!(actions.map(Action::name), Action::NAMES);
        for action in actions {
            let (from, to) = action.roles();
            assert_eq!(Action::parse(action.name(), from, to), Ok(action));
        }
        assert!(Action::parse("assigned_role", None, Some(Role::Member)).is_err());
        assert!(Action::parse("promoted", None, None).is_err());
    }
}
