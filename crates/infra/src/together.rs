//! Small writes that come together, by one transaction: a commit costs a database a wait for its disk, and each statement a
//! round trip.
//!
//! What comes while nothing is written goes at once. What comes meanwhile waits in a line, and all of it goes with the next
//! transaction; where the disk is slow, those who were just answered are waited for a moment. Nothing is committed for somebody who
//! has gone: it is rolled back, and the others are told that they met somebody, as after a deadlock. So they are where one of them
//! cannot be written; for a while each goes alone then, so that what is tried again does not meet the same one again.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, join_all, select};
use mundap_domain::StoreError;
use mundap_domain::idempotency::NotAdded;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, Span};

use crate::batch::{home, share};
use crate::last::Last;

/// How many go together at the most: what one of them waits for the others is bounded by it.
const MOST: usize = 16;

/// How long each goes alone after a common transaction has failed.
const CALM: Duration = Duration::from_millis(100);

/// How long a transaction has to take for those who were answered by it to be waited for: in less, another one is over before they
/// could have come again.
const WORTHWHILE: Duration = Duration::from_millis(1);

/// How long they are waited for at the most; half of what it took, where that is less.
const GATHERING: Duration = Duration::from_millis(5);

/// After how many transactions somebody is waited for again, once it was in vain.
const SHY: usize = 4;

pub(crate) type Answer<R> = Result<R, NotAdded<StoreError>>;

/// How it is written.
#[async_trait]
pub(crate) trait Writer<T>: Send + Sync + 'static {
    /// A transaction in which something was written. Dropping it rolls it back.
    type Open: Send;
    type Written: Send + 'static;

    /// Writes all of it, and gives what came of each in the same order.
    async fn write(&self, all: Vec<T>) -> Result<(Self::Open, Vec<Self::Written>), NotAdded<StoreError>>;
    async fn commit(&self, open: Self::Open) -> Result<(), StoreError>;
}

/// How it waits: in so many lines, at the head of each of which so many transactions may be open. Where those before it are held
/// up, by a lock or a database that hangs, it waits for no longer than `patience` and goes by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    pub(crate) count: usize,
    pub(crate) heads: usize,
    pub(crate) patience: Duration,
}

/// What is to be written, in lines. Cloning shares them.
pub(crate) struct Together<T, W: Writer<T>>(Arc<Shared<T, W>>);

impl<T, W: Writer<T>> Clone for Together<T, W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<T, W: Writer<T>> {
    writer: W,
    lines: Vec<Mutex<Line<T, W::Written>>>,
    patience: Duration,
    failed: Last,
}

struct Line<T, R> {
    waiting: VecDeque<Waiting<T, R>>,
    /// How many more transactions may be at its head.
    free: usize,
    /// The number of the next one who comes.
    next: u64,
    /// How many are waited for, and whom to tell when they are there.
    gathering: Option<(usize, oneshot::Sender<()>)>,
    /// For how many transactions nobody is waited for.
    shy: usize,
}

struct Waiting<T, R> {
    number: u64,
    item: T,
    tell: oneshot::Sender<Answer<R>>,
    /// Of whoever waits, for the statements that are made for it.
    span: Span,
}

impl<T: Send + Sync + 'static, W: Writer<T>> Together<T, W> {
    pub(crate) fn new(writer: W, lines: Lines) -> Self {
        let line =
            || Mutex::new(Line { waiting: VecDeque::new(), free: lines.heads, next: 0, gathering: None, shy: 0 });
        let all = std::iter::repeat_with(line).take(lines.count.max(1)).collect();
        Self(Arc::new(Shared { writer, lines: all, patience: lines.patience, failed: Last::never() }))
    }

    /// Writes this, with whatever has come by then. What comes by one thread waits in the same line.
    pub(crate) async fn add(&self, item: T) -> Answer<W::Written> {
        let place = home() % self.0.lines.len();
        let (number, told) = self.join(place, item);
        let mut told = pin!(told);
        let mut answer = timeout(self.0.patience, told.as_mut()).await.ok();
        if answer.is_none() {
            // A statement of its own: the line is free while it is written.
            let taken_back = self.0.line(place).take_back(number);
            if let Some(item) = taken_back {
                return self.0.alone(item).await;
            }
            answer = Some(told.await);
        }
        let given_up = || StoreError::Unavailable("what was written together was given up".into());
        answer.and_then(Result::ok).unwrap_or_else(|| Err(given_up().into()))
    }

    /// Waits in line, and sees to it that somebody writes.
    fn join(&self, place: usize, item: T) -> (u64, oneshot::Receiver<Answer<W::Written>>) {
        let (tell, told) = oneshot::channel();
        let mut line = self.0.line(place);
        let number = line.next;
        line.next += 1;
        line.waiting.push_back(Waiting { number, item, tell, span: Span::current() });
        let waiting = line.waiting.len();
        if let Some((_, gathered)) = line.gathering.take_if(|(count, _)| *count <= waiting) {
            // Whoever waits for them may have gone.
            let _ = gathered.send(());
        }
        if line.free > 0 {
            line.free -= 1;
            tokio::spawn(Head { shared: self.0.clone(), place, ended: false }.run());
        }
        (number, told)
    }
}

impl<T, R> Line<T, R> {
    fn take_back(&mut self, number: u64) -> Option<T> {
        let place = self.waiting.iter().position(|waiting| waiting.number == number)?;
        Some(self.waiting.remove(place)?.item)
    }
}

impl<T: Send + Sync, W: Writer<T>> Shared<T, W> {
    fn line(&self, place: usize) -> MutexGuard<'_, Line<T, W::Written>> {
        self.lines[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many may go together now.
    fn most(&self) -> usize {
        if self.failed.ago().is_some_and(|ago| ago < CALM) { 1 } else { MOST }
    }

    async fn alone(&self, item: T) -> Answer<W::Written> {
        let (open, mut written) = self.writer.write(vec![item]).await?;
        self.writer.commit(open).await?;
        written.pop().ok_or_else(|| StoreError::Backend("nothing was written".into()).into())
    }

    /// Writes what has come, and tells each what came of it.
    async fn write(&self, all: Vec<Waiting<T, W::Written>>) {
        let (items, mut tell): (Vec<T>, Vec<_>) = all.into_iter().map(|waiting| (waiting.item, waiting.tell)).unzip();
        let written = {
            let gone = pin!(join_all(tell.iter_mut().map(oneshot::Sender::closed)));
            match select(self.writer.write(items), gone).await {
                Either::Left((written, _)) => written,
                // Dropped as any unit whose request is given up.
                Either::Right(_) => return,
            }
        };
        let outcome = match written {
            Ok((open, written)) if tell.iter().all(|tell| !tell.is_closed()) => {
                self.writer.commit(open).await.map(|()| written).map_err(NotAdded::from)
            }
            // What was written for somebody who has gone is rolled back, before anybody hears of it and tries again.
            Ok((open, _)) => {
                drop(open);
                Err(StoreError::Contention("somebody that this was written with was given up".into()).into())
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(written) => {
                for (tell, written) in tell.into_iter().zip(written) {
                    // Whoever has gone by now wants no answer.
                    let _ = tell.send(Ok(written));
                }
            }
            Err(error) if tell.len() == 1 => {
                let _ = tell.remove(0).send(Err(error));
            }
            Err(error) => {
                self.failed.mark();
                let error = Arc::new(for_all(error));
                for tell in tell {
                    let _ = tell.send(Err(share(&error).into()));
                }
            }
        }
    }
}

/// What all hear of an error that is the fault of one of them, or of none.
fn for_all(error: NotAdded<StoreError>) -> StoreError {
    let (NotAdded::Thing(error) | NotAdded::Receipt(error)) = error;
    match error {
        away @ StoreError::Unavailable(_) => away,
        error => StoreError::Contention(error.into()),
    }
}

/// One transaction after the other, while there is something to write.
struct Head<T: Send + Sync, W: Writer<T>> {
    shared: Arc<Shared<T, W>>,
    place: usize,
    ended: bool,
}

impl<T: Send + Sync, W: Writer<T>> Head<T, W> {
    async fn run(mut self) {
        while let Some(all) = self.next() {
            let span = all.first().map_or_else(Span::none, |first| first.span.clone());
            let (count, start) = (all.len(), Instant::now());
            self.shared.write(all).instrument(span).await;
            let took = start.elapsed();
            if count > 1 && took >= WORTHWHILE {
                self.gather(count, took / 2).await;
            }
        }
    }

    /// Waits a moment for as many as were answered just now, beside those who wait already: otherwise who comes again finds the next
    /// transaction gone, and each is half as full as it could be.
    async fn gather(&self, answered: usize, patience: Duration) {
        let most = self.shared.most();
        let told = {
            let mut line = self.shared.line(self.place);
            let count = (line.waiting.len() + answered).min(most);
            if line.waiting.len() >= count || line.shy > 0 {
                line.shy = line.shy.saturating_sub(1);
                return;
            }
            let (tell, told) = oneshot::channel();
            line.gathering = Some((count, tell));
            told
        };
        if timeout(patience.min(GATHERING), told).await.is_err() {
            let mut line = self.shared.line(self.place);
            line.gathering = None;
            line.shy = SHY;
        }
    }

    /// What is to be written next; the head's end where that is nothing.
    fn next(&mut self) -> Option<Vec<Waiting<T, W::Written>>> {
        let most = self.shared.most();
        let mut line = self.shared.line(self.place);
        line.waiting.retain(|waiting| !waiting.tell.is_closed());
        if line.waiting.is_empty() {
            // While the line is held: who comes after has to see it.
            line.free += 1;
            self.ended = true;
            return None;
        }
        let count = line.waiting.len().min(most);
        Some(line.waiting.drain(..count).collect())
    }
}

/// Where a thread ends with its work undone: who still waits goes by itself.
impl<T: Send + Sync, W: Writer<T>> Drop for Head<T, W> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.line(self.place).free += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::batch::tests::{in_paused_time, settled};

    const PATIENCE: Duration = Duration::from_millis(50);

    /// Writes numbers into a list, each step when it may. It refuses 13, and the receipt of 99.
    #[derive(Clone)]
    struct List {
        committed: Arc<Mutex<Vec<Vec<i64>>>>,
        /// What has begun to be written, in order.
        begun: Arc<Mutex<Vec<Vec<i64>>>>,
        may_write: Arc<Semaphore>,
        may_commit: Arc<Semaphore>,
        commit: Arc<Mutex<Result<(), StoreError>>>,
    }

    #[async_trait]
    impl Writer<i64> for List {
        type Open = Vec<i64>;
        type Written = i64;

        async fn write(&self, all: Vec<i64>) -> Result<(Vec<i64>, Vec<i64>), NotAdded<StoreError>> {
            self.begun.lock().unwrap().push(all.clone());
            self.may_write.acquire().await.unwrap().forget();
            if all.contains(&13) {
                return Err(StoreError::MissingReference("13".into()).into());
            }
            if all.contains(&99) {
                return Err(NotAdded::Receipt(StoreError::Duplicate("99".into())));
            }
            let written = all.iter().map(|item| item * 2).collect();
            Ok((all, written))
        }

        async fn commit(&self, open: Vec<i64>) -> Result<(), StoreError> {
            self.may_commit.acquire().await.unwrap().forget();
            std::mem::replace(&mut *self.commit.lock().unwrap(), Ok(()))?;
            self.committed.lock().unwrap().push(open);
            Ok(())
        }
    }

    struct Stage {
        together: Together<i64, List>,
        list: List,
    }

    impl Stage {
        /// One line with so many heads, which may do so much.
        fn new(heads: usize, writes: usize, commits: usize) -> Self {
            let list = List {
                committed: Arc::default(),
                begun: Arc::default(),
                may_write: Arc::new(Semaphore::new(writes)),
                may_commit: Arc::new(Semaphore::new(commits)),
                commit: Arc::new(Mutex::new(Ok(()))),
            };
            Self { together: Together::new(list.clone(), Lines { count: 1, heads, patience: PATIENCE }), list }
        }

        /// Adds one after the other, each when those before are as far as they come.
        async fn add(&self, items: impl IntoIterator<Item = i64>) -> Vec<JoinHandle<Answer<i64>>> {
            let mut added = Vec::new();
            for item in items {
                let together = self.together.clone();
                added.push(tokio::spawn(async move { together.add(item).await }));
                settled().await;
            }
            added
        }

        fn begun(&self) -> Vec<Vec<i64>> {
            self.list.begun.lock().unwrap().clone()
        }

        fn committed(&self) -> Vec<Vec<i64>> {
            self.list.committed.lock().unwrap().clone()
        }
    }

    async fn answers(added: Vec<JoinHandle<Answer<i64>>>) -> Vec<Answer<i64>> {
        join_all(added).await.into_iter().map(Result::unwrap).collect()
    }

    async fn values(added: Vec<JoinHandle<Answer<i64>>>) -> Vec<i64> {
        answers(added).await.into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn what_comes_alone_goes_at_once_and_what_comes_meanwhile_goes_together() {
        in_paused_time(async {
            let stage = Stage::new(2, 0, 10);
            let added = stage.add(1..=5).await;
            assert_eq!(stage.begun(), [vec![1], vec![2]], "each at a head of its own");
            stage.list.may_write.add_permits(1);
            settled().await;
            assert_eq!(stage.begun(), [vec![1], vec![2], vec![3, 4, 5]]);
            stage.list.may_write.add_permits(10);
            assert_eq!(values(added).await, [2, 4, 6, 8, 10]);
            assert_eq!(stage.committed().len(), 3);
            // And the heads are there again.
            assert_eq!(stage.together.add(6).await.unwrap(), 12);
        });
    }

    /// One has gone alone and two behind it, which took so long; another one waits.
    async fn two_that_took(time: Duration) -> (Stage, Vec<JoinHandle<Answer<i64>>>) {
        let stage = Stage::new(1, 0, 10);
        let mut added = stage.add(1..=3).await;
        stage.list.may_write.add_permits(1);
        settled().await;
        assert_eq!(stage.begun(), [vec![1], vec![2, 3]]);
        tokio::time::advance(time).await;
        added.extend(stage.add([4]).await);
        stage.list.may_write.add_permits(1);
        settled().await;
        assert_eq!(stage.committed().len(), 2);
        (stage, added)
    }

    #[test]
    fn who_was_answered_together_is_waited_for_where_the_disk_is_slow() {
        in_paused_time(async {
            let (stage, mut added) = two_that_took(WORTHWHILE).await;
            added.extend(stage.add([5]).await);
            assert_eq!(stage.begun().len(), 2, "one more was answered");
            added.extend(stage.add([6]).await);
            assert_eq!(stage.begun()[2..], [vec![4, 5, 6]]);
            stage.list.may_write.add_permits(1);
            assert_eq!(values(added).await, [2, 4, 6, 8, 10, 12]);
        });
    }

    #[test]
    fn nobody_is_waited_for_where_the_disk_is_quick() {
        in_paused_time(async {
            let (stage, added) = two_that_took(WORTHWHILE / 2).await;
            assert_eq!(stage.begun()[2..], [vec![4]]);
            stage.list.may_write.add_permits(1);
            assert_eq!(values(added).await, [2, 4, 6, 8]);
        });
    }

    #[test]
    fn who_does_not_come_again_is_waited_for_once() {
        in_paused_time(async {
            let (stage, mut added) = two_that_took(WORTHWHILE).await;
            assert_eq!(stage.begun().len(), 2);
            tokio::time::sleep(GATHERING).await;
            settled().await;
            assert_eq!(stage.begun()[2..], [vec![4]]);
            // The next two are not.
            added.extend(stage.add([5, 6]).await);
            stage.list.may_write.add_permits(1);
            settled().await;
            assert_eq!(stage.begun()[3..], [vec![5, 6]]);
            tokio::time::advance(WORTHWHILE).await;
            added.extend(stage.add([7]).await);
            stage.list.may_write.add_permits(1);
            settled().await;
            assert_eq!(stage.begun()[4..], [vec![7]]);
            stage.list.may_write.add_permits(1);
            assert_eq!(values(added).await, [2, 4, 6, 8, 10, 12, 14]);
        });
    }

    #[test]
    fn a_transaction_has_a_limit() {
        in_paused_time(async {
            let stage = Stage::new(1, 0, 10);
            let added = stage.add(20..60).await;
            stage.list.may_write.add_permits(10);
            assert_eq!(values(added).await.len(), 40);
            assert_eq!(stage.committed().iter().map(Vec::len).collect::<Vec<_>>(), [1, MOST, MOST, 7]);
        });
    }

    #[test]
    fn who_is_held_up_in_line_goes_by_itself() {
        in_paused_time(async {
            let stage = Stage::new(1, 0, 10);
            let added = stage.add(1..=3).await;
            tokio::time::sleep(PATIENCE).await;
            settled().await;
            assert_eq!(stage.begun(), [vec![1], vec![2], vec![3]]);
            stage.list.may_write.add_permits(10);
            assert_eq!(values(added).await, [2, 4, 6]);
        });
    }

    #[test]
    fn nothing_is_committed_for_who_has_gone() {
        in_paused_time(async {
            // In line, before anything is written for it.
            let stage = Stage::new(1, 0, 10);
            let added = stage.add(1..=3).await;
            added[1].abort();
            settled().await;
            stage.list.may_write.add_permits(10);
            settled().await;
            assert_eq!(stage.committed(), [vec![1], vec![3]]);

            // Alone: what it waits for is given up with it.
            let stage = Stage::new(1, 0, 10);
            let added = stage.add([1]).await;
            added[0].abort();
            settled().await;
            assert_eq!(stage.together.0.line(0).free, 1, "nobody is at the head");
            stage.list.may_write.add_permits(10);
            settled().await;
            assert!(stage.committed().is_empty());

            // With others: they meet it, and are tried again without it.
            let stage = Stage::new(1, 0, 10);
            let mut added = stage.add(1..=4).await;
            stage.list.may_write.add_permits(1);
            settled().await;
            assert_eq!(stage.begun(), [vec![1], vec![2, 3, 4]]);
            added.remove(2).abort();
            settled().await;
            stage.list.may_write.add_permits(1);
            let answers = answers(added).await;
            assert!(
                matches!(
                    answers[..],
                    [
                        Ok(2),
                        Err(NotAdded::Thing(StoreError::Contention(_))),
                        Err(NotAdded::Thing(StoreError::Contention(_)))
                    ]
                ),
                "{answers:?}"
            );
            assert_eq!(stage.committed(), [[1]]);
        });
    }

    #[test]
    fn who_goes_while_it_is_committed_takes_nobody_along() {
        in_paused_time(async {
            let stage = Stage::new(1, 10, 0);
            let mut added = stage.add(1..=3).await;
            stage.list.may_commit.add_permits(1);
            settled().await;
            assert_eq!(stage.begun(), [vec![1], vec![2, 3]]);
            added.remove(1).abort();
            settled().await;
            stage.list.may_commit.add_permits(1);
            assert_eq!(values(added).await, [2, 6]);
            assert_eq!(stage.committed(), [vec![1], vec![2, 3]]);
        });
    }

    #[test]
    fn an_error_is_one_s_own_where_it_is_alone_and_a_meeting_for_others() {
        in_paused_time(async {
            let stage = Stage::new(1, 10, 10);
            let alone = answers(stage.add([13]).await).await;
            assert!(matches!(alone[..], [Err(NotAdded::Thing(StoreError::MissingReference(_)))]), "{alone:?}");
            let alone = answers(stage.add([99]).await).await;
            assert!(matches!(alone[..], [Err(NotAdded::Receipt(StoreError::Duplicate(_)))]), "{alone:?}");

            for bad in [13, 99] {
                tokio::time::sleep(CALM).await;
                let stage = Stage::new(1, 0, 10);
                let added = stage.add([1, 2, bad, 3]).await;
                stage.list.may_write.add_permits(2);
                let met = answers(added).await;
                let all_met =
                    met[1..].iter().all(|answer| matches!(answer, Err(NotAdded::Thing(StoreError::Contention(_)))));
                assert!(all_met && matches!(met[0], Ok(2)), "{met:?}");
                // Each goes alone then, and so the innocent do not meet it once more.
                let added = stage.add([2, bad, 3]).await;
                stage.list.may_write.add_permits(10);
                let tried_again = answers(added).await;
                assert!(matches!(tried_again[..], [Ok(4), Err(_), Ok(6)]), "{tried_again:?}");
                // And together again after a while.
                tokio::time::sleep(CALM).await;
                let before = stage.begun().len();
                stage.list.may_write.forget_permits(100);
                let added = stage.add(1..=3).await;
                stage.list.may_write.add_permits(10);
                assert_eq!(values(added).await, [2, 4, 6]);
                assert_eq!(stage.begun()[before..], [vec![1], vec![2, 3]]);
            }
        });
    }

    #[test]
    fn a_commit_that_fails_fails_for_all() {
        in_paused_time(async {
            let stage = Stage::new(1, 0, 10);
            let added = stage.add([1, 2, 3]).await;
            stage.list.may_write.add_permits(1);
            settled().await;
            *stage.list.commit.lock().unwrap() = Err(StoreError::Unavailable("gone".into()));
            stage.list.may_write.add_permits(1);
            let answers = answers(added).await;
            let is_away = |answer: &Answer<i64>| matches!(answer, Err(NotAdded::Thing(StoreError::Unavailable(_))));
            assert!(answers[1..].iter().all(is_away), "{answers:?}");
            assert_eq!(stage.committed(), [[1]]);
        });
    }
}
