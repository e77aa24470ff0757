//! Small units that come together, committed as one: a commit costs the database a wait for its disk, and two round trips.
//!
//! A unit that comes while nobody else is at work begins at once, and commits alone. Those that come meanwhile wait in a line,
//! and whoever is done hands its open transaction to the first of them instead of committing it; the last one commits for
//! all. Each unit has the transaction for itself while it works. Where one of them is dropped, or its transaction fails, the
//! others are told that they met somebody, as after a deadlock, and for a while nobody shares: a unit that is tried again does
//! not meet the next one.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mundap_domain::StoreError;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::batch::{home, share};
use crate::last::Last;

/// Units of one commit at the most: what one of them waits for the others is bounded by it.
const MOST: usize = 16;

/// How long nobody shares after a shared transaction has failed.
const CALM: Duration = Duration::from_millis(100);

/// Lines of units, and what is open at the heads of each. Cloning shares them. `T` is an open transaction.
pub(crate) struct Together<T>(Arc<Shared<T>>);

impl<T> Clone for Together<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<T> {
    lines: Vec<Mutex<Line<T>>>,
    patience: Duration,
    failed: Last,
}

struct Line<T> {
    waiting: VecDeque<oneshot::Sender<Turn<T>>>,
    /// How many more may be at its head.
    free: usize,
}

/// What a unit is given when its turn has come.
pub(crate) enum Turn<T> {
    /// To begin a transaction; without the head of a line, one of its own.
    Begin(Option<Head<T>>),
    /// To go on in this one.
    Join(Open<T>),
}

/// A transaction in which units have worked that wait for its commit.
pub(crate) struct Open<T> {
    // Dropped in this order: a transaction is rolled back before anybody hears of it and tries again.
    pub(crate) transaction: T,
    pub(crate) member: Member<T>,
}

/// What a unit holds besides its transaction: those who wait for the commit, and the head of the line.
pub(crate) struct Member<T> {
    voters: Voters<T>,
    head: Head<T>,
}

/// What becomes of a unit that is done.
pub(crate) enum Done<T> {
    /// Nobody else has to do with it: it commits as any other.
    Alone(T, Head<T>),
    /// It commits for all, without waiting for anybody: whoever is given up here would take the others along.
    Last(Open<T>, Outcome),
    /// Somebody else will.
    Handed(Outcome),
}

/// What comes of a commit that others share.
pub(crate) struct Outcome(oneshot::Receiver<Result<(), StoreError>>);

impl Outcome {
    pub(crate) async fn wait(self) -> Result<(), StoreError> {
        self.0.await.unwrap_or_else(|_| Err(met()))
    }
}

fn met() -> StoreError {
    StoreError::Contention("a unit that shared this one's commit was given up".into())
}

impl<T> Together<T> {
    /// With so many lines, at the head of each of which so many transactions may be open; the units of one thread wait in the
    /// same line. Where those before it are held up, by a lock or a database that hangs, a unit waits for no longer than
    /// `patience` and begins a transaction of its own.
    pub(crate) fn new(lines: usize, heads: usize, patience: Duration) -> Self {
        let line = || Mutex::new(Line { waiting: VecDeque::new(), free: heads });
        let lines = std::iter::repeat_with(line).take(lines.max(1)).collect();
        Self(Arc::new(Shared { lines, patience, failed: Last::never() }))
    }

    /// Waits for a turn, but not for long.
    pub(crate) async fn turn(&self) -> Turn<T> {
        let place = home() % self.0.lines.len();
        let told = {
            let mut line = self.0.line(place);
            if line.free > 0 {
                line.free -= 1;
                return Turn::Begin(Some(Head { shared: self.0.clone(), place }));
            }
            let (tell, told) = oneshot::channel();
            line.waiting.push_back(tell);
            told
        };
        match timeout(self.0.patience, told).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => Turn::Begin(None),
        }
    }
}

impl<T> Shared<T> {
    fn line(&self, place: usize) -> MutexGuard<'_, Line<T>> {
        self.lines[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_calm(&self) -> bool {
        self.failed.ago().is_some_and(|ago| ago < CALM)
    }

    /// Gives this to the first who still waits, or back.
    fn give(&self, place: usize, mut turn: Turn<T>) -> Option<Turn<T>> {
        loop {
            // A statement of its own: the line is free while somebody is told.
            let next = self.line(place).next();
            match next {
                Some(next) => turn = next.send(turn).err()?,
                None => return Some(turn),
            }
        }
    }
}

impl<T> Line<T> {
    fn next(&mut self) -> Option<oneshot::Sender<Turn<T>>> {
        std::iter::from_fn(|| self.waiting.pop_front()).find(|next| !next.is_closed())
    }

    /// While the line is held: who comes after has to see that there is room at its head.
    fn next_or_free(&mut self) -> Option<oneshot::Sender<Turn<T>>> {
        let next = self.next();
        self.free += usize::from(next.is_none());
        next
    }
}

/// A place at the head of a line; the next one's when it is dropped.
pub(crate) struct Head<T> {
    shared: Arc<Shared<T>>,
    place: usize,
}

impl<T> Drop for Head<T> {
    fn drop(&mut self) {
        // A statement of its own, which lets go of the line: what nobody takes is dropped below, and comes back to here.
        let next = self.shared.line(self.place).next_or_free();
        if let Some(next) = next {
            let _ = next.send(Turn::Begin(Some(Self { shared: self.shared.clone(), place: self.place })));
        }
    }
}

/// Those who are done and wait for a commit.
struct Voters<T> {
    tell: Vec<oneshot::Sender<Result<(), StoreError>>>,
    shared: Arc<Shared<T>>,
}

impl<T> Voters<T> {
    fn settle(mut self, outcome: Result<(), StoreError>) {
        let tell = mem::take(&mut self.tell);
        match outcome {
            Ok(()) => {
                for tell in tell {
                    // Whoever has gone wants no answer.
                    let _ = tell.send(Ok(()));
                }
            }
            Err(error) => {
                self.shared.failed.mark();
                let error = Arc::new(error);
                for tell in tell {
                    let _ = tell.send(Err(share(&error)));
                }
            }
        }
    }
}

/// Where their transaction came to nothing.
impl<T> Drop for Voters<T> {
    fn drop(&mut self) {
        if !self.tell.is_empty() {
            self.shared.failed.mark();
        }
        for tell in self.tell.drain(..) {
            let _ = tell.send(Err(met()));
        }
    }
}

impl<T> Head<T> {
    /// Whoever begins a transaction here.
    pub(crate) fn first(self) -> Member<T> {
        Member { voters: Voters { tell: Vec::new(), shared: self.shared.clone() }, head: self }
    }
}

impl<T> Member<T> {
    /// This unit is done with the transaction.
    pub(crate) fn done(self, transaction: T) -> Done<T> {
        let Self { mut voters, head } = self;
        let (shared, place) = (head.shared.clone(), head.place);
        let may_share = voters.tell.len() + 1 < MOST && !shared.is_calm();
        let has_next = || !shared.line(place).waiting.is_empty();
        if voters.tell.is_empty() && !(may_share && has_next()) {
            return Done::Alone(transaction, head);
        }
        let (tell, told) = oneshot::channel();
        voters.tell.push(tell);
        let open = Open { transaction, member: Self { voters, head } };
        if !may_share {
            return Done::Last(open, Outcome(told));
        }
        match shared.give(place, Turn::Join(open)) {
            Some(Turn::Join(open)) => Done::Last(open, Outcome(told)),
            Some(Turn::Begin(_)) | None => Done::Handed(Outcome(told)),
        }
    }

    /// Says what came of the commit to all who wait for it; the next in the line begins meanwhile.
    pub(crate) fn settle(self, outcome: Result<(), StoreError>) {
        let Self { voters, head } = self;
        drop(head);
        voters.settle(outcome);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::Semaphore;
    use tokio::task::{JoinHandle, yield_now};
    use tokio::time::{advance, sleep};

    use super::*;

    /// What happens, in order.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl Log {
        fn write(&self, line: impl Into<String>) {
            self.0.lock().unwrap().push(line.into());
        }

        fn take(&self) -> Vec<String> {
            mem::take(&mut self.0.lock().unwrap())
        }
    }

    /// A transaction that is rolled back unless it is committed.
    struct Fake(Option<Log>);

    impl Fake {
        fn begin(log: &Log) -> Self {
            log.write("begin");
            Self(Some(log.clone()))
        }

        fn commit(mut self) {
            self.0.take().unwrap().write("commit");
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            if let Some(log) = &self.0 {
                log.write("roll back");
            }
        }
    }

    const PATIENCE: Duration = Duration::from_secs(1);

    struct Test {
        together: Together<Fake>,
        log: Log,
        /// Each unit takes one when it works.
        may: Arc<Semaphore>,
        commit: Arc<dyn Fn() -> Result<(), StoreError> + Send + Sync>,
    }

    impl Test {
        fn new() -> Self {
            Self::where_commits(|| Ok(()))
        }

        fn where_commits(commit: impl Fn() -> Result<(), StoreError> + Send + Sync + 'static) -> Self {
            let together = Together::new(1, 1, PATIENCE);
            Self { together, log: Log::default(), may: Arc::new(Semaphore::new(0)), commit: Arc::new(commit) }
        }

        /// A whole unit, as a store runs it.
        fn unit(&self, name: &'static str) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
            let (together, log, may, commit) =
                (self.together.clone(), self.log.clone(), self.may.clone(), self.commit.clone());
            async move {
                let (transaction, member) = match together.turn().await {
                    Turn::Begin(None) => {
                        log.write(format!("{name} on its own"));
                        return Ok(());
                    }
                    Turn::Begin(Some(head)) => (Fake::begin(&log), head.first()),
                    Turn::Join(Open { transaction, member }) => (transaction, member),
                };
                may.acquire().await.unwrap().forget();
                log.write(name);
                match member.done(transaction) {
                    Done::Alone(transaction, _head) => {
                        transaction.commit();
                        commit()
                    }
                    Done::Handed(outcome) => outcome.wait().await,
                    Done::Last(Open { transaction, member }, outcome) => {
                        tokio::spawn(async move {
                            transaction.commit();
                            member.settle(commit());
                        });
                        outcome.wait().await
                    }
                }
            }
        }

        /// Starts one after the other, each when those before are as far as they come.
        async fn start_each<const N: usize>(
            &self,
            names: [&'static str; N],
        ) -> [JoinHandle<Result<(), StoreError>>; N] {
            let mut started = Vec::new();
            for name in names {
                started.push(tokio::spawn(self.unit(name)));
                settled().await;
            }
            started.try_into().unwrap()
        }

        async fn let_work(&self, count: usize) -> Vec<String> {
            self.may.add_permits(count);
            settled().await;
            self.log.take()
        }
    }

    async fn settled() {
        for _ in 0..100 {
            yield_now().await;
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
    }

    #[track_caller]
    fn met_others(outcome: &Result<(), StoreError>) {
        assert!(matches!(outcome, Err(StoreError::Contention(_))), "{outcome:?}");
    }

    #[test]
    fn who_comes_alone_begins_and_commits_alone() {
        run(async {
            let test = Test::new();
            test.may.add_permits(2);
            for name in ["a", "b"] {
                // Nothing is waited for.
                test.unit(name).now_or_never().unwrap().unwrap();
                assert_eq!(test.log.take(), ["begin", name, "commit"]);
            }
        });
    }

    #[test]
    fn who_comes_meanwhile_shares_the_commit_one_after_the_other() {
        run(async {
            let test = Test::new();
            let [a, b, c] = test.start_each(["a", "b", "c"]).await;
            assert_eq!(test.log.take(), ["begin"]);
            assert_eq!(test.let_work(2).await, ["a", "b"]);
            assert!(!a.is_finished() && !b.is_finished(), "nothing is committed yet");
            assert_eq!(test.let_work(1).await, ["c", "commit"]);
            for unit in [a, b, c] {
                unit.await.unwrap().unwrap();
            }
            // And the line is free again.
            test.may.add_permits(1);
            test.unit("d").now_or_never().unwrap().unwrap();
        });
    }

    #[test]
    fn no_more_share_than_so_many() {
        run(async {
            let test = Test::new();
            let started: Vec<_> = (0..2 * MOST).map(|_| tokio::spawn(test.unit("u"))).collect();
            settled().await;
            let log = test.let_work(2 * MOST).await;
            for unit in started {
                unit.await.unwrap().unwrap();
            }
            let commits: Vec<usize> =
                log.iter().enumerate().filter(|(_, line)| *line == "commit").map(|(place, _)| place).collect();
            assert_eq!(commits, [MOST + 1, 2 * MOST + 3], "{log:?}");
        });
    }

    #[test]
    fn who_is_given_up_takes_the_others_along_and_then_nobody_shares_for_a_while() {
        run(async {
            let test = Test::new();
            let [a, b, c, d] = test.start_each(["a", "b", "c", "d"]).await;
            assert_eq!(test.let_work(1).await, ["begin", "a"]);
            b.abort();
            met_others(&a.await.unwrap());
            settled().await;
            // The next begins anew.
            assert_eq!(test.log.take(), ["roll back", "begin"]);
            assert_eq!(test.let_work(2).await, ["c", "commit", "begin", "d", "commit"]);
            for unit in [c, d] {
                unit.await.unwrap().unwrap();
            }
            sleep(CALM).await;
            let again = test.start_each(["e", "f"]).await;
            assert_eq!(test.let_work(2).await, ["begin", "e", "f", "commit"]);
            for unit in again {
                unit.await.unwrap().unwrap();
            }
        });
    }

    #[test]
    fn who_is_given_up_while_others_commit_for_it_does_not_take_them_along() {
        run(async {
            let test = Test::new();
            let [a, b, c] = test.start_each(["a", "b", "c"]).await;
            assert_eq!(test.let_work(1).await, ["begin", "a"]);
            a.abort();
            assert_eq!(test.let_work(2).await, ["b", "c", "commit"]);
            for unit in [b, c] {
                unit.await.unwrap().unwrap();
            }
        });
    }

    #[test]
    fn who_goes_while_it_waits_is_passed_over() {
        run(async {
            let test = Test::new();
            let [a, b, c] = test.start_each(["a", "b", "c"]).await;
            b.abort();
            settled().await;
            assert_eq!(test.let_work(2).await, ["begin", "a", "c", "commit"]);
            for unit in [a, c] {
                unit.await.unwrap().unwrap();
            }
            // Alone, for nobody is left who waits.
            let [a, b] = test.start_each(["a", "b"]).await;
            b.abort();
            settled().await;
            assert_eq!(test.let_work(1).await, ["begin", "a", "commit"]);
            a.await.unwrap().unwrap();
        });
    }

    #[test]
    fn who_goes_with_the_transaction_in_hand_leaves_nobody_waiting() {
        run(async {
            let test = Test::new();
            let Turn::Begin(Some(head)) = test.together.turn().await else { panic!() };
            let mut next = Box::pin(test.together.turn());
            assert!(next.as_mut().now_or_never().is_none());
            let [c] = test.start_each(["c"]).await;
            let Done::Handed(outcome) = head.first().done(Fake::begin(&test.log)) else { panic!() };
            // It is there, and is never looked at.
            drop(next);
            met_others(&outcome.wait().await);
            assert_eq!(test.let_work(1).await, ["begin", "roll back", "begin", "c", "commit"]);
            c.await.unwrap().unwrap();
            // The same with the leave to begin.
            let Turn::Begin(Some(head)) = test.together.turn().await else { panic!() };
            let mut next = Box::pin(test.together.turn());
            assert!(next.as_mut().now_or_never().is_none());
            let [d] = test.start_each(["d"]).await;
            drop(head);
            drop(next);
            assert_eq!(test.let_work(1).await, ["begin", "d", "commit"]);
            d.await.unwrap().unwrap();
        });
    }

    #[test]
    fn all_hear_what_became_of_the_commit() {
        run(async {
            let test = Test::where_commits(|| Err(StoreError::Unavailable("the disk is full".into())));
            let started = test.start_each(["a", "b", "c"]).await;
            assert_eq!(test.let_work(3).await, ["begin", "a", "b", "c", "commit"]);
            for unit in started {
                let outcome = unit.await.unwrap();
                assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
            }
            // Which counts as a failure too.
            let [d, e] = test.start_each(["d", "e"]).await;
            assert_eq!(test.let_work(2).await, ["begin", "d", "commit", "begin", "e", "commit"]);
            for unit in [d, e] {
                unit.await.unwrap().unwrap_err();
            }
        });
    }

    #[test]
    fn nobody_waits_for_long_behind_one_who_is_held_up() {
        run(async {
            let test = Test::new();
            let [a, b] = test.start_each(["a", "b"]).await;
            advance(PATIENCE).await;
            settled().await;
            assert_eq!(test.log.take(), ["begin", "b on its own"]);
            b.await.unwrap().unwrap();
            assert_eq!(test.let_work(1).await, ["a", "commit"]);
            a.await.unwrap().unwrap();
        });
    }
}
