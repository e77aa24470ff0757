//! What the tests share: people, short words for outcomes, and a store that writes down what happens on it.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mundap_domain::env::{Clock, Timestamp};
use mundap_domain::rate::Quotas;
use mundap_domain::testing::{Heard, Mocks, a_user, noon, suspended};
use mundap_domain::user::Role;
use mundap_domain::version::{Expected, Version};
use mundap_domain::{Actor, Error, Ports, Repositories, Services, Store, StoreError, UnitOfWork};

pub(crate) fn member(id: i64) -> Actor {
    a_user(id, Role::Member).into()
}

pub(crate) fn moderator(id: i64) -> Actor {
    a_user(id, Role::Moderator).into()
}

pub(crate) fn admin(id: i64) -> Actor {
    a_user(id, Role::Admin).into()
}

/// A suspended account. Suspending takes an administrator's rights too, so this one has had them.
pub(crate) fn banned(id: i64) -> Actor {
    suspended(&a_user(id, Role::Admin)).into()
}

/// The caller edits version `n`.
pub(crate) fn made_on(n: i32) -> Expected {
    Expected::OneOf(vec![Version::new(n)])
}

/// `ok`, or the code of what went wrong.
pub(crate) fn code<T>(outcome: Result<T, Error>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |_| "ok")
}

pub(crate) fn duplicate() -> StoreError {
    StoreError::Duplicate("a unique key".into())
}

pub(crate) fn contention() -> StoreError {
    StoreError::Contention("a deadlock".into())
}

pub(crate) fn unavailable() -> StoreError {
    StoreError::Unavailable("a broken pipe".into())
}

/// Writes down what happens, in order.
#[derive(Clone, Default)]
pub(crate) struct Tape(Arc<Mutex<Vec<String>>>);

impl Tape {
    pub(crate) fn note(&self, what: impl Into<String>) {
        let mut tape = self.0.lock().expect("a tape");
        assert!(tape.len() < 100, "this never ends: {tape:?}");
        tape.push(what.into());
    }

    pub(crate) fn read(&self) -> Vec<String> {
        self.0.lock().expect("a tape").clone()
    }
}

impl<const N: usize> PartialEq<[&str; N]> for Tape {
    fn eq(&self, other: &[&str; N]) -> bool {
        self.read() == other
    }
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

type Fault = Box<dyn FnMut() -> Option<StoreError> + Send>;

/// A store that tells its reader from its units, which `testing::board` does not, and whose begin and commit can fail.
/// Notes `begin`, `commit` and `rollback`, and the clock's `pause 1`, … on its tape; the mocks note the rest.
pub(crate) struct Stage {
    pub(crate) tape: Tape,
    /// What may be called while no unit is open: the reader, the hasher, the access tokens.
    pub(crate) outside: Mocks,
    /// The repositories of every unit.
    pub(crate) inside: Mocks,
    pub(crate) begin: Fault,
    pub(crate) commit: Fault,
    /// Rate limits are off unless a test is about them.
    pub(crate) quotas: Option<Quotas>,
    /// What was told of.
    pub(crate) events: Arc<Heard>,
    /// Another clock than the one that stands still.
    pub(crate) clock: Option<Arc<dyn Clock>>,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            tape: Tape::default(),
            outside: Mocks::default(),
            inside: Mocks::default(),
            begin: Box::new(|| None),
            commit: Box::new(|| None),
            quotas: None,
            events: Arc::default(),
            clock: None,
        }
    }
}

impl Stage {
    pub(crate) fn services(mut self) -> Services {
        let tape = self.tape;
        let others = self.outside.take_others();
        let store = StageStore {
            tape: tape.clone(),
            reader: Arc::new(self.outside),
            units: Arc::new(self.inside),
            begin: Mutex::new(self.begin),
            commit: Arc::new(Mutex::new(self.commit)),
        };
        Services::new(&Ports {
            store: Arc::new(store),
            events: self.events,
            clock: self.clock.unwrap_or_else(|| Arc::new(StageClock(tape))),
            quotas: self.quotas,
            ..others
        })
    }
}

/// Stands still at noon and notes the pauses that it is asked for.
struct StageClock(Tape);

#[async_trait]
impl Clock for StageClock {
    fn now(&self) -> Timestamp {
        noon()
    }

    async fn pause_before(&self, attempt: u32) {
        self.0.note(format!("pause {attempt}"));
    }
}

struct StageStore {
    tape: Tape,
    reader: Arc<Mocks>,
    units: Arc<Mocks>,
    begin: Mutex<Fault>,
    commit: Arc<Mutex<Fault>>,
}

#[async_trait]
impl Store for StageStore {
    fn reader(&self) -> &dyn Repositories {
        &self.reader
    }

    async fn begin(&self) -> Result<Box<dyn UnitOfWork>, StoreError> {
        self.tape.note("begin");
        if let Some(fault) = (self.begin.lock().expect("a fault"))() {
            return Err(fault);
        }
        let (tape, repositories, commit) = (self.tape.clone(), self.units.clone(), self.commit.clone());
        Ok(Box::new(StageUnit { tape, repositories, commit, open: true }))
    }
}

struct StageUnit {
    tape: Tape,
    repositories: Arc<Mocks>,
    commit: Arc<Mutex<Fault>>,
    open: bool,
}

impl Deref for StageUnit {
    type Target = Mocks;

    fn deref(&self) -> &Mocks {
        &self.repositories
    }
}

#[async_trait]
impl UnitOfWork for StageUnit {
    async fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        if let Some(fault) = (self.commit.lock().expect("a fault"))() {
            return Err(fault);
        }
        self.open = false;
        self.tape.note("commit");
        Ok(())
    }
}

impl Drop for StageUnit {
    fn drop(&mut self) {
        if self.open {
            self.tape.note("rollback");
        }
    }
}
