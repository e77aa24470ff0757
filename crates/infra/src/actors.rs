//! People, remembered for a moment: most requests come from somebody who sent one just before, and what a list shows was
//! written by a few.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// An author who was asked for is read anew after so long, where others are read anyway: else each would cost a statement of
/// its own each second.
const RENEWED: Duration = Duration::from_millis(500);

/// How many, a few MB at the most.
const MOST: usize = 8_192;

/// The accounts behind sign-ins, and authors, as they were within the last second. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Actors {
    known: Arc<Cache<(UserId, SignInId), Read<User>>>,
    authors: Arc<Cache<UserId, Arc<Seen>>>,
    /// Authors and when they were read, in this order.
    order: Arc<Mutex<VecDeque<(UserId, Instant)>>>,
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

    /// Whether it is younger than this.
    fn is_within(&self, span: Duration, age: Age, now: Instant) -> bool {
        self.age == age && now.saturating_duration_since(self.at) < span
    }

    /// Unless it is too old by now.
    fn still(&self, age: Age, now: Instant) -> Option<&T> {
        self.is_within(REMEMBERED, age, now).then_some(&self.what)
    }
}

/// An author, and whether somebody asked since that was read.
struct Seen {
    read: Read<Author>,
    is_asked_for: AtomicBool,
}

impl Actors {
    pub(crate) fn new() -> Self {
        Self {
            known: Arc::new(Cache::new(MOST)),
            authors: Arc::new(Cache::new(MOST)),
            order: Arc::default(),
            met: Arc::new(Last::never()),
            age: Arc::default(),
        }
    }

    /// To be asked before an account is read.
    pub(crate) fn age(&self) -> Age {
        Age(self.age.load(Ordering::Acquire))
    }

    pub(crate) fn get(&self, user: UserId, sign_in: SignInId) -> Option<User> {
        self.known.get(&(user, sign_in))?.still(self.age(), Instant::now()).cloned()
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
        let known = |id| {
            let seen = self.authors.get(&id)?;
            // Written once, not by each who looks.
            if !seen.is_asked_for.load(Ordering::Relaxed) {
                seen.is_asked_for.store(true, Ordering::Relaxed);
            }
            seen.read.still(age, now).cloned()
        };
        ids.map(known).collect()
    }

    /// So many of those who were asked for and will be too old soon, if they are not already: whoever reads authors anyway takes
    /// them along. Each is said once.
    pub(crate) fn due(&self, most: usize) -> Vec<UserId> {
        let (age, now, mut due) = (self.age(), Instant::now(), Vec::new());
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        while due.len() < most
            && let Some(&(id, at)) = order.front()
        {
            // Unless it was read again since.
            let seen = self.authors.get(&id).filter(|seen| seen.read.at == at);
            if seen.as_ref().is_some_and(|seen| seen.read.is_within(RENEWED, age, now)) {
                break;
            }
            order.pop_front();
            due.extend(seen.filter(|seen| seen.is_asked_for.load(Ordering::Relaxed)).map(|_| id));
        }
        due
    }

    /// Remembers what was read in that age.
    pub(crate) fn remember_author(&self, age: Age, author: &Author) {
        let read = Read::now(author, age);
        let at = read.at;
        self.authors.insert(author.id, Arc::new(Seen { read, is_asked_for: AtomicBool::new(false) }));
        self.met.mark();
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if order.len() == MOST {
            order.pop_front();
        }
        order.push_back((author.id, at));
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

    #[test]
    fn who_was_asked_for_is_due_for_reading_before_they_are_too_old() {
        in_paused_time(async {
            let actors = Actors::new();
            let remember = |ids: &[i64]| {
                for id in ids {
                    actors.remember_author(actors.age(), &a_user(*id, Role::Member).author());
                }
            };
            let ask = |ids: &[i64]| {
                let known = actors.authors(ids.iter().copied().map(UserId::new));
                assert!(known.iter().all(Option::is_some), "{known:?}");
            };
            let due = |most| actors.due(most).into_iter().map(UserId::get).collect::<Vec<_>>();
            remember(&[1, 2, 3, 4]);
            ask(&[1, 2, 3]);
            tokio::time::sleep(Duration::from_millis(499)).await;
            assert_eq!(due(9), [0; 0]);
            remember(&[3]);
            tokio::time::sleep(Duration::from_millis(1)).await;
            // The first, then the rest: 3 has been read anew, and nobody asked for 4.
            assert_eq!(due(1), [1]);
            assert_eq!(due(9), [2]);
            assert_eq!(due(9), [0; 0]);
            // Of an earlier age, and much too old.
            remember(&[2]);
            ask(&[2, 3]);
            actors.changed();
            assert_eq!(due(9), [3, 2]);
            remember(&[2]);
            ask(&[2]);
            tokio::time::sleep(Duration::from_mins(1)).await;
            assert_eq!(due(9), [2]);
        });
    }

    #[test]
    fn no_more_are_noted_than_remembered() {
        let actors = Actors::new();
        let author = a_user(7, Role::Member).author();
        for _ in 0..2 * MOST {
            actors.remember_author(actors.age(), &author);
        }
        assert_eq!(actors.order.lock().unwrap().len(), MOST);
    }
}
