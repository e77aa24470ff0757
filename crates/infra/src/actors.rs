//! People, remembered for a moment: most requests come from somebody who sent one just before, and what a list shows was
//! written by a few.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mundap_domain::sign_in::SignInId;
use mundap_domain::user::{Author, User, UserId};
use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::last::Last;
use crate::row::Naming;

/// How long. What another process changes of an account (its role, its suspension, its sign-ins, its name) is seen here after
/// so long at the latest; what this one changes, at once.
const REMEMBERED: Duration = Duration::from_secs(1);

/// How many, a few MB at the most.
const MOST: usize = 8_192;

/// The accounts behind sign-ins, and authors, as they were within the last second. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Actors {
    known: Arc<Cache<(UserId, SignInId), Read<User>>>,
    authors: Arc<Cache<UserId, Read<Author>>>,
    /// When an author was remembered.
    met: Arc<Last>,
    /// Counts the changes that this process made to any account: there are few, beside the requests that are asked.
    age: Arc<AtomicU64>,
}

/// What is read in one age does not hold in the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age(u64);

/// What was read, in which age and when.
#[derive(Clone)]
struct Read<T> {
    what: T,
    age: Age,
    at: Instant,
}

impl<T: Clone> Read<T> {
    fn now(what: &T, age: Age) -> Self {
        Self { what: what.clone(), age, at: Instant::now() }
    }

    /// Unless it is too old by now.
    fn still(self, age: Age, now: Instant) -> Option<T> {
        (self.age == age && now.saturating_duration_since(self.at) < REMEMBERED).then_some(self.what)
    }
}

impl Actors {
    pub(crate) fn new() -> Self {
        Self {
            known: Arc::new(Cache::new(MOST)),
            authors: Arc::new(Cache::new(MOST)),
            met: Arc::new(Last::never()),
            age: Arc::default(),
        }
    }

    /// To be asked before an account is read.
    pub(crate) fn age(&self) -> Age {
        Age(self.age.load(Ordering::Acquire))
    }

    pub(crate) fn get(&self, user: UserId, sign_in: SignInId) -> Option<User> {
        self.known.get(&(user, sign_in))?.still(self.age(), Instant::now())
    }

    /// Remembers what was read in that age.
    pub(crate) fn remember(&self, age: Age, sign_in: SignInId, user: &User) {
        self.known.insert((user.id, sign_in), Read::now(user, age));
    }

    /// How to read several rows now: without their authors while any may be remembered.
    pub(crate) fn naming(&self) -> Naming {
        let remembered = self.met.ago().is_some_and(|ago| ago < REMEMBERED);
        if remembered { Naming::Remembered } else { Naming::Joined }
    }

    /// Those of them who are remembered.
    pub(crate) fn authors(&self, ids: impl Iterator<Item = UserId>) -> Vec<Option<Author>> {
        let (age, now) = (self.age(), Instant::now());
        ids.map(|id| self.authors.get(&id)?.still(age, now)).collect()
    }

    /// Remembers what was read in that age.
    pub(crate) fn remember_author(&self, age: Age, author: &Author) {
        self.authors.insert(author.id, Read::now(author, age));
        self.met.mark();
    }

    /// An account was changed, or a sign-in ended: nothing that was read before counts any more.
    pub(crate) fn changed(&self) {
        self.age.fetch_add(1, Ordering::Release);
    }

    /// Says [`changed`](Self::changed) when it is dropped: behind a commit, whatever came of it.
    pub(crate) fn behind(&self) -> Behind<'_> {
        Behind(self)
    }
}

pub(crate) struct Behind<'a>(&'a Actors);

impl Drop for Behind<'_> {
    fn drop(&mut self) {
        self.0.changed();
    }
}

#[cfg(test)]
mod tests {
    use mundap_domain::testing::a_user;
    use mundap_domain::user::Role;

    use super::*;
    use crate::batch::tests::in_paused_time;

    #[test]
    fn what_was_read_before_a_change_does_not_count_behind_it() {
        let (actors, user, sign_in) = (Actors::new(), a_user(7, Role::Member), SignInId::new(9));
        assert_eq!(actors.get(user.id, sign_in), None);
        let age = actors.age();
        actors.remember(age, sign_in, &user);
        assert_eq!(actors.get(user.id, sign_in), Some(user.clone()));
        assert_eq!(actors.get(user.id, SignInId::new(8)), None);
        assert_eq!(actors.get(UserId::new(8), sign_in), None);
        drop(actors.behind());
        assert_eq!(actors.get(user.id, sign_in), None);
        // Read before the change, and come back after it.
        actors.remember(age, sign_in, &user);
        assert_eq!(actors.get(user.id, sign_in), None);
        actors.remember(actors.age(), sign_in, &user);
        assert_eq!(actors.get(user.id, sign_in), Some(user));
    }

    #[test]
    fn nobody_is_remembered_for_longer_than_a_second() {
        in_paused_time(async {
            let (actors, user, sign_in) = (Actors::new(), a_user(7, Role::Member), SignInId::new(9));
            let author = user.author();
            actors.remember(actors.age(), sign_in, &user);
            actors.remember_author(actors.age(), &author);
            let known = || (actors.get(user.id, sign_in), actors.authors([user.id].into_iter()));
            tokio::time::sleep(Duration::from_millis(999)).await;
            assert_eq!(known(), (Some(user.clone()), vec![Some(author.clone())]));
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(known(), (None, vec![None]));
            // It counts from when it was read, and others are none the worse.
            actors.remember_author(actors.age(), &author);
            assert_eq!(known(), (None, vec![Some(author.clone())]));
        });
    }
}
