//! Who is asking, and what they may do. This is the only place that decides it, for every face.

use crate::error::Error;
use crate::user::{Author, Role, User, UserId};

/// Who is asking. Every use case takes one first, save these:
/// - what makes an actor or is done to become one: `register`, `sign_in`, `refresh`, `authenticate` and
///   `authenticate_since`, `recognise`, `trust`;
/// - where a token that the caller holds, or a mailbox, is all the permission there is: `revoke`, `forgot`, `verify`, `reset`;
/// - an image's `content`, of an image that was read by an actor;
/// - what the board does by itself: `deliver` and `waiting`, housekeeping, rate limits.
#[derive(Clone, Debug)]
pub enum Actor {
    /// Nobody is signed in.
    Anonymous,
    /// A signed-in account, as stored a moment ago.
    Account(Box<User>),
    /// Somebody at the machine's console: the `mundap user` commands. No request ever becomes this.
    Operator,
}

/// What somebody wants to do, as far as permission goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read QnAs, comments, images and public profiles.
    Read,
    /// Write a new QnA or comment.
    Post,
    /// Edit or delete a QnA or comment that `author` wrote.
    Change { author: UserId },
    /// Attach an image to a comment that `author` wrote.
    Attach { author: UserId },
    /// See the own account.
    ReadOwnAccount,
    /// Change the own account or password.
    ChangeOwnAccount,
    /// Delete the own account.
    DeleteOwnAccount,
    /// Look at accounts and at what administrators did.
    Administer,
    /// Change the role of `account`, suspend or reinstate it.
    Govern { account: UserId },
}

/// The rows of the ownership table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Anonymous,
    Suspended,
    Member,
    Moderator,
    Admin,
    Operator,
}

impl Actor {
    /// The ownership table (the contract, "Data"; `docs/architecture.md` shows the same one).
    ///
    /// | who | may |
    /// | --- | --- |
    /// | anonymous | read QnAs, comments, images |
    /// | member | also post, attach images to own comments, edit and delete what is their own, and manage the own account |
    /// | moderator | also edit and delete anyone's |
    /// | admin | also change roles and suspend accounts |
    /// | operator | the command line: read, change roles and suspend accounts |
    /// | suspended | what anonymous may, and read or delete the own account |
    ///
    /// An administrator's own role is changed by another administrator, so that the board never loses its last one by
    /// accident.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::Suspended`], [`Error::NotAuthor`], [`Error::NotAdmin`] or
    /// [`Error::OwnAccount`].
    #[expect(clippy::match_same_arms, reason = "an arm is a row of the table")]
    pub fn must(&self, act: Act) -> Result<(), Error> {
        use Standing::{Admin, Anonymous, Member, Moderator, Operator, Suspended};
        match (self.standing(), act) {
            (Anonymous | Suspended | Member | Moderator | Admin | Operator, Act::Read) => Ok(()),

            (Suspended | Member | Moderator | Admin, Act::ReadOwnAccount | Act::DeleteOwnAccount) => Ok(()),
            (Suspended, _) => Err(Error::Suspended),

            (Member | Moderator | Admin, Act::Post | Act::ChangeOwnAccount) => Ok(()),
            (Moderator | Admin, Act::Change { .. }) => Ok(()),
            (Member, Act::Change { author }) if self.is(author) => Ok(()),
            (Member | Moderator | Admin, Act::Attach { author }) if self.is(author) => Ok(()),
            (Member | Moderator | Admin, Act::Attach { .. }) => Err(Error::NotAuthor),
            (Member, Act::Change { .. }) => Err(Error::NotAuthor),

            (Admin | Operator, Act::Administer) => Ok(()),
            (Admin, Act::Govern { account }) if self.is(account) => Err(Error::OwnAccount),
            (Admin | Operator, Act::Govern { .. }) => Ok(()),
            (Member | Moderator, Act::Administer | Act::Govern { .. }) => Err(Error::NotAdmin),

            // No account: nothing to post under and nothing of their own.
            (Anonymous | Operator, _) => Err(Error::Unauthenticated),
        }
    }

    /// Turns away whoever may change nothing at all, before a unit of work is opened for them.
    pub(crate) fn must_be_able_to_write(&self) -> Result<(), Error> {
        self.must(Act::Post)
    }

    /// Whether this e-mail may be shown to the caller: an author's is shown to that author and to admins alone.
    #[must_use]
    pub fn may_see_email_of(&self, author: &Author) -> bool {
        self.is(author.id) || self.standing() == Standing::Admin
    }

    /// Whether the caller is this account.
    #[must_use]
    pub fn is(&self, id: UserId) -> bool {
        self.account().is_some_and(|user| user.id == id)
    }

    #[must_use]
    pub fn account(&self) -> Option<&User> {
        match self {
            Self::Anonymous | Self::Operator => None,
            Self::Account(user) => Some(user),
        }
    }

    /// The caller's account, after asking the table.
    pub(crate) fn account_that_may(&self, act: Act) -> Result<&User, Error> {
        self.must(act)?;
        self.account().ok_or(Error::Unauthenticated)
    }

    fn standing(&self) -> Standing {
        match self {
            Self::Anonymous => Standing::Anonymous,
            Self::Operator => Standing::Operator,
            Self::Account(user) if user.suspended_at.is_some() => Standing::Suspended,
            Self::Account(user) => match user.role {
                Role::Member => Standing::Member,
                Role::Moderator => Standing::Moderator,
                Role::Admin => Standing::Admin,
            },
        }
    }
}

impl From<User> for Actor {
    fn from(user: User) -> Self {
        Self::Account(Box::new(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{a_user, suspended};

    /// Every standing × every act, written out: the table above must say exactly this.
    #[test]
    fn the_ownership_table() {
        const NO: &str = "account_suspended";
        let stranger = UserId::new(99);
        let own = UserId::new(1);
        let acts = [
            Act::Read,
            Act::Post,
            Act::Change { author: own },
            Act::Change { author: stranger },
            Act::Attach { author: own },
            Act::Attach { author: stranger },
            Act::ReadOwnAccount,
            Act::ChangeOwnAccount,
            Act::DeleteOwnAccount,
            Act::Administer,
            Act::Govern { account: own },
            Act::Govern { account: stranger },
        ];
        // Reading, then everything else; whoever is suspended may also read and delete the own account.
        let reads = |no| ["", no, no, no, no, no, no, no, no, no, no, no];
        let suspended_may = ["", NO, NO, NO, NO, NO, "", NO, "", NO, NO, NO];
        let member_may =
            ["", "", "", "not_author", "", "not_author", "", "", "", "not_admin", "not_admin", "not_admin"];
        let moderator_may = ["", "", "", "", "", "not_author", "", "", "", "not_admin", "not_admin", "not_admin"];
        let table: [(Actor, [&str; 12]); 8] = [
            (Actor::Anonymous, reads("unauthenticated")),
            (suspended(&a_user(1, Role::Member)).into(), suspended_may),
            (suspended(&a_user(1, Role::Moderator)).into(), suspended_may),
            (suspended(&a_user(1, Role::Admin)).into(), suspended_may),
            (a_user(1, Role::Member).into(), member_may),
            (a_user(1, Role::Moderator).into(), moderator_may),
            (Actor::Operator, [&reads("unauthenticated")[..9], &["", "", ""]].concat().try_into().unwrap()),
            (a_user(1, Role::Admin).into(), ["", "", "", "", "", "not_author", "", "", "", "", "own_account", ""]),
        ];
        for (actor, row) in &table {
            for (act, expected) in acts.iter().zip(row) {
                let code = actor.must(*act).map_or_else(|error| error.code(), |()| "");
                assert_eq!(code, *expected, "{:?} {act:?}", actor.standing());
            }
        }
    }

    #[test]
    fn an_email_is_shown_to_its_owner_and_to_admins_alone() {
        let author = a_user(1, Role::Member).author();
        let sees = |actor: &Actor| actor.may_see_email_of(&author);
        assert!(sees(&a_user(1, Role::Member).into()));
        assert!(sees(&a_user(2, Role::Admin).into()));
        assert!(!sees(&a_user(2, Role::Member).into()));
        assert!(!sees(&a_user(2, Role::Moderator).into()));
        assert!(!sees(&suspended(&a_user(2, Role::Admin)).into()));
        assert!(!sees(&Actor::Anonymous));
    }
}
