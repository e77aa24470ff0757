//! Small statements that come together, as one: a round trip costs a database and its driver more than a row does.
//!
//! Whoever comes while nobody else does is not kept waiting: a statement starts as soon as there is somebody to work for,
//! beside one for somebody else too, and takes along all who have come by then. Where it is for several, who comes waits until
//! it is back, and those whom it answered are let go first: they may come again. Nothing is remembered: every answer was read
//! by a statement that began after it was asked for.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::hash::Hash;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mundap_domain::StoreError;
use sea_orm::{ConnectionTrait as _, DbErr, QueryResult, Statement};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::limit::Limit;
use crate::readers::Readers;
use crate::timing::Demand;

/// Keys of one statement at the most.
pub(crate) const MOST: usize = 64;

/// Statements of one thread at a time, the second only beside one for a single key: where several ask, who comes goes with the
/// next. Nobody's answer has to wake another thread.
const LANES: usize = 2;

/// How often everybody else on the thread is let go first, before it is seen who waits for the next statement: answers are sent, and
/// what has arrived meanwhile is read, which takes some turns. Where nobody has anything to do each is over at once.
const COURTESY: usize = 4;

/// Queues: threads share one only where there are more of them.
const QUEUES: usize = 16;

pub(crate) type Working<V> = Pin<Box<dyn Future<Output = Result<Vec<Answer<V>>, StoreError>> + Send>>;
type Work<G, K, V> = Box<dyn Fn(G, Vec<K>) -> Working<V> + Send + Sync>;
pub(crate) type Answer<V> = Result<V, StoreError>;

/// Small work, each statement for many keys of one group. Cloning shares it.
pub(crate) struct Batch<K, V, G = ()>(Arc<Shared<G, K, V>>);

impl<K, V, G> Clone for Batch<K, V, G> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<G, K, V> {
    work: Work<G, K, V>,
    patience: Duration,
    queues: [Mutex<Queues<G, K, V>>; QUEUES],
}

/// Of the groups that are worked for.
type Queues<G, K, V> = HashMap<G, Queue<K, V>>;

struct Queue<K, V> {
    waiting: Vec<(K, oneshot::Sender<Answer<V>>)>,
    running: usize,
    /// Keys of the statements that are on their way.
    carried: usize,
}

impl<K, V> Default for Queue<K, V> {
    fn default() -> Self {
        Self { waiting: Vec::new(), running: 0, carried: 0 }
    }
}

impl<K: Send + 'static, V: Send + 'static> Batch<K, V> {
    /// As [`new`](Self::new), for statements of this pool, any keys by one.
    pub(crate) fn on<F>(pool: Pool, work: impl Fn(Pool, Vec<K>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<Answer<V>>, StoreError>> + Send + 'static,
    {
        Self::new(pool.limit.statement, move |(), keys| Box::pin(work(pool.clone(), keys)))
    }

    /// What comes of this.
    pub(crate) async fn get(&self, key: K) -> Answer<V> {
        self.get_in((), key).await
    }
}

impl<K: Send + 'static, V: Send + 'static, G: Clone + Eq + Hash + Send + 'static> Batch<K, V, G> {
    /// `work` is given what came together, and answers each in the same order, or all with one error; nobody waits for longer
    /// than `patience`.
    pub(crate) fn new(patience: Duration, work: impl Fn(G, Vec<K>) -> Working<V> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { work: Box::new(work), patience, queues: Default::default() }))
    }

    /// What comes of this, together with others of the same group.
    pub(crate) async fn get_in(&self, group: G, key: K) -> Answer<V> {
        let told = self.join(group, key);
        match timeout(self.0.patience, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Unavailable("the statement was given up".into())),
            Err(_) => Err(StoreError::Unavailable("the statement took too long".into())),
        }
    }

    /// Waits in this thread's queue, and sees to it that somebody works.
    fn join(&self, group: G, key: K) -> oneshot::Receiver<Answer<V>> {
        let (tell, told) = oneshot::channel();
        let home = home() % QUEUES;
        let mut queues = self.0.queues(home);
        let queue = queues.entry(group.clone()).or_default();
        queue.waiting.push((key, tell));
        let is_needed = queue.running == 0 || (queue.running < LANES && queue.carried == 1);
        if is_needed {
            queue.running += 1;
        }
        // A runtime that ends drops what it is given, which looks into the queue.
        drop(queues);
        if is_needed {
            tokio::spawn(Lane { shared: self.0.clone(), home, group, carried: 0, ended: false }.run());
        }
        told
    }
}

impl<G, K, V> Shared<G, K, V> {
    fn queues(&self, home: usize) -> MutexGuard<'_, Queues<G, K, V>> {
        self.queues[home].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One statement after the other, while there is somebody of its group to work for.
struct Lane<G: Eq + Hash, K, V> {
    shared: Arc<Shared<G, K, V>>,
    home: usize,
    group: G,
    /// Keys of its statement.
    carried: usize,
    ended: bool,
}

impl<G: Clone + Eq + Hash + Send + 'static, K: Send + 'static, V: Send + 'static> Lane<G, K, V> {
    async fn run(mut self) {
        while let Some(waiting) = self.next() {
            let (keys, tell): (Vec<K>, Vec<_>) = waiting.into_iter().unzip();
            // Whoever has gone wants no answer.
            match (self.shared.work)(self.group.clone(), keys).await {
                Ok(answers) => {
                    for (tell, answer) in tell.into_iter().zip(answers) {
                        let _ = tell.send(answer);
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for tell in tell {
                        let _ = tell.send(Err(share(&error)));
                    }
                }
            }
            for _ in 0..COURTESY {
                yield_now().await;
            }
        }
    }

    /// Who is to be worked for next; the lane's end where that is nobody.
    fn next(&mut self) -> Option<Vec<(K, oneshot::Sender<Answer<V>>)>> {
        let mut queues = self.shared.queues(self.home);
        let queue = queues.get_mut(&self.group)?;
        queue.carried -= mem::take(&mut self.carried);
        queue.waiting.retain(|(_, tell)| !tell.is_closed());
        if queue.waiting.is_empty() || queue.carried > 1 {
            // Or somebody else takes them along. While the queue is held: who comes after has to see it.
            self.ended = true;
            leave(&mut queues, &self.group, 0);
            return None;
        }
        let count = queue.waiting.len().min(MOST);
        let rest = queue.waiting.split_off(count);
        queue.carried += count;
        self.carried = count;
        Some(mem::replace(&mut queue.waiting, rest))
    }
}

/// Where a thread ends with its work undone.
impl<G: Eq + Hash, K, V> Drop for Lane<G, K, V> {
    fn drop(&mut self) {
        if !self.ended {
            leave(&mut self.shared.queues(self.home), &self.group, self.carried);
        }
    }
}

/// One lane less, and what it carried; with the last the group goes, and whoever still waits is told that nobody works.
fn leave<G: Eq + Hash, K, V>(queues: &mut Queues<G, K, V>, group: &G, carried: usize) {
    if let Some(queue) = queues.get_mut(group) {
        queue.carried -= carried;
        queue.running -= 1;
        if queue.running == 0 {
            queues.remove(group);
        }
    }
}

/// The same error for each who waited.
pub(crate) fn share(error: &Arc<StoreError>) -> StoreError {
    let cause = || Box::new(Of(error.clone()));
    match &**error {
        StoreError::Duplicate(_) => StoreError::Duplicate(cause()),
        StoreError::MissingReference(_) => StoreError::MissingReference(cause()),
        StoreError::Stale => StoreError::Stale,
        StoreError::Contention(_) => StoreError::Contention(cause()),
        StoreError::Unavailable(_) => StoreError::Unavailable(cause()),
        StoreError::Corrupt { table, id, reason } => StoreError::Corrupt { table, id: *id, reason: reason.clone() },
        StoreError::Backend(_) => StoreError::Backend(cause()),
    }
}

/// The cause of a shared error. It says what its own cause says, which is still there to be looked at.
#[derive(Debug)]
struct Of(Arc<StoreError>);

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => write!(f, "{cause}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Error for Of {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Where batches are worked on.
#[derive(Clone)]
pub(crate) struct Pool {
    pub(crate) connection: Readers,
    pub(crate) limit: Limit,
    pub(crate) demand: Demand,
}

impl Pool {
    /// Runs one statement under its time limit.
    pub(crate) async fn run<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, StoreError> {
        let _wish = self.demand.wish();
        self.limit.run(statement).await
    }

    /// The rows that a statement gives, each read in this way.
    pub(crate) async fn rows<T>(
        &self,
        statement: Statement,
        read: impl Fn(&QueryResult) -> Result<T, DbErr>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = async {
            let rows = self.connection.query_all_raw(statement).await?;
            rows.iter().map(read).collect()
        };
        self.run(rows).await
    }
}

/// A number for each thread that asks for something.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HOME: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

/// This thread's number.
pub(crate) fn home() -> usize {
    HOME.with(|home| *home)
}

#[cfg(test)]
pub(crate) mod tests {
    use futures_util::future::join_all;
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;

    use super::*;

    /// Doubles what it is given, when it may, and knows what came together.
    struct Doubling {
        batch: Batch<i64, i64>,
        together: Arc<Mutex<Vec<Vec<i64>>>>,
        may: Arc<Semaphore>,
    }

    impl Doubling {
        fn new() -> Self {
            let (together, may) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
            let (seen, turn) = (together.clone(), may.clone());
            let batch = Batch::new(Duration::from_secs(1), move |(), keys: Vec<i64>| {
                seen.lock().unwrap().push(keys.clone());
                let turn = turn.clone();
                Box::pin(async move {
                    turn.acquire().await.unwrap().forget();
                    assert!(!keys.contains(&13), "what a panic leaves behind");
                    if keys.contains(&99) {
                        return Err(StoreError::Contention("two met".into()));
                    }
                    Ok(keys.into_iter().map(|key| if key < 0 { Err(StoreError::Stale) } else { Ok(2 * key) }).collect())
                })
            });
            Self { batch, together, may }
        }

        /// Asks for one after the other, each when those before are as far as they come.
        async fn start_each(&self, keys: impl IntoIterator<Item = i64>) -> Vec<JoinHandle<Answer<i64>>> {
            let mut started = Vec::new();
            for key in keys {
                let batch = self.batch.clone();
                started.push(tokio::spawn(async move { batch.get(key).await }));
                settled().await;
            }
            started
        }

        fn together(&self) -> Vec<Vec<i64>> {
            self.together.lock().unwrap().clone()
        }
    }

    pub(crate) fn in_paused_time(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
    }

    /// When everybody is as far as they come.
    pub(crate) async fn settled() {
        for _ in 0..100 {
            yield_now().await;
        }
    }

    #[test]
    fn who_comes_together_goes_together_and_each_gets_its_own() {
        in_paused_time(async {
            let doubling = Doubling::new();
            doubling.may.add_permits(10);
            let answers = join_all((1..=10).map(|key| doubling.batch.get(key))).await;
            assert_eq!(
                answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(),
                [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
            );
            assert_eq!(doubling.together(), [(1..=10).collect::<Vec<_>>()]);
        });
    }

    #[test]
    fn a_statement_has_a_limit() {
        in_paused_time(async {
            let doubling = Doubling::new();
            doubling.may.add_permits(10);
            let keys = 100..100 + 2 * i64::try_from(MOST).unwrap();
            join_all(keys.map(|key| doubling.batch.get(key))).await;
            assert_eq!(doubling.together().iter().map(Vec::len).collect::<Vec<_>>(), [MOST, MOST]);
        });
    }

    #[test]
    fn nobody_waits_while_there_is_a_lane_and_then_all_go_with_the_next() {
        in_paused_time(async {
            let doubling = Doubling::new();
            let started = doubling.start_each(1..=5).await;
            assert_eq!(doubling.together(), [vec![1], vec![2]]);
            doubling.may.add_permits(1);
            settled().await;
            assert_eq!(doubling.together(), [vec![1], vec![2], vec![3, 4, 5]]);
            doubling.may.add_permits(10);
            for (started, key) in started.into_iter().zip(1..) {
                assert_eq!(started.await.unwrap().unwrap(), 2 * key);
            }
            // And the lanes are there again.
            assert_eq!(doubling.batch.get(7).await.unwrap(), 14);
        });
    }

    #[test]
    fn beside_a_statement_for_several_there_is_no_other() {
        in_paused_time(async {
            let doubling = Doubling::new();
            let first = doubling.start_each([1]).await;
            let batch = doubling.batch.clone();
            let more = tokio::spawn(async move { join_all((2..=3).map(|key| batch.get(key))).await });
            settled().await;
            let last = doubling.start_each(4..=5).await;
            assert_eq!(doubling.together(), [vec![1], vec![2, 3]]);
            doubling.may.add_permits(1);
            settled().await;
            // The first is back, and the several are not.
            assert!(first.iter().all(JoinHandle::is_finished));
            assert_eq!(doubling.together().len(), 2);
            doubling.may.add_permits(2);
            assert!(more.await.unwrap().into_iter().all(|answer| answer.is_ok()));
            assert!(join_all(last).await.into_iter().all(|answer| answer.unwrap().is_ok()));
            assert_eq!(doubling.together(), [vec![1], vec![2, 3], vec![4, 5]]);
        });
    }

    #[test]
    fn who_was_answered_and_comes_again_goes_with_those_who_wait() {
        in_paused_time(async {
            let doubling = Doubling::new();
            let start = |keys: [i64; 2]| {
                let batch = doubling.batch.clone();
                tokio::spawn(async move { [batch.get(keys[0]).await, batch.get(keys[1]).await].map(Result::unwrap) })
            };
            let mut started = Vec::from([[1, 21], [2, 22], [3, 23]].map(start));
            settled().await;
            started.extend([[4, 24], [5, 25]].map(start));
            settled().await;
            assert_eq!(doubling.together(), [vec![1, 2, 3]]);
            doubling.may.add_permits(1);
            settled().await;
            assert_eq!(doubling.together(), [vec![1, 2, 3], vec![4, 5, 21, 22, 23]]);
            doubling.may.add_permits(10);
            for (started, key) in started.into_iter().zip(1..) {
                assert_eq!(started.await.unwrap(), [2 * key, 2 * (key + 20)]);
            }
        });
    }

    #[test]
    fn each_group_has_its_own_lanes_and_none_is_kept() {
        in_paused_time(async {
            let together = Arc::new(Mutex::new(Vec::new()));
            let (seen, may) = (together.clone(), Arc::new(Semaphore::new(0)));
            let turn = may.clone();
            let batch: Batch<i64, (char, i64), char> =
                Batch::new(Duration::from_secs(1), move |group, keys: Vec<i64>| {
                    seen.lock().unwrap().push((group, keys.clone()));
                    let turn = turn.clone();
                    Box::pin(async move {
                        turn.acquire().await.unwrap().forget();
                        Ok(keys.into_iter().map(|key| Ok((group, key))).collect())
                    })
                });
            let started: Vec<_> = [('a', 1), ('a', 2), ('a', 3), ('b', 1), ('a', 4), ('b', 2)]
                .map(|(group, key)| {
                    let batch = batch.clone();
                    (group, key, tokio::spawn(async move { batch.get_in(group, key).await }))
                })
                .into_iter()
                .collect();
            settled().await;
            assert_eq!(*together.lock().unwrap(), [('a', vec![1, 2, 3, 4]), ('b', vec![1, 2])]);
            may.add_permits(10);
            for (group, key, started) in started {
                assert_eq!(started.await.unwrap().unwrap(), (group, key));
            }
            settled().await;
            assert!(batch.0.queues.iter().all(|queues| queues.lock().unwrap().is_empty()));
        });
    }

    #[test]
    fn an_error_is_one_s_own_or_everybody_s() {
        in_paused_time(async {
            let doubling = Doubling::new();
            doubling.may.add_permits(10);
            let answers = join_all([1, -1, 2].map(|key| doubling.batch.get(key))).await;
            assert!(matches!(answers[..], [Ok(2), Err(StoreError::Stale), Ok(4)]), "{answers:?}");
            let answers = join_all([1, 99].map(|key| doubling.batch.get(key))).await;
            for answer in answers {
                let Err(error @ StoreError::Contention(_)) = answer else { panic!("{answer:?}") };
                assert_eq!(error.source().unwrap().to_string(), "two met");
            }
        });
    }

    #[test]
    fn whoever_has_gone_is_not_worked_for() {
        in_paused_time(async {
            let doubling = Doubling::new();
            let mut started = doubling.start_each(1..=5).await;
            started[2].abort();
            started[4].abort();
            settled().await;
            doubling.may.add_permits(10);
            for (n, key) in [(0, 1), (1, 2), (3, 4)] {
                assert_eq!((&mut started[n]).await.unwrap().unwrap(), 2 * key);
            }
            assert_eq!(doubling.together(), [vec![1], vec![2], vec![4]]);
        });
    }

    #[test]
    fn nobody_waits_for_longer_than_the_limit() {
        in_paused_time(async {
            let doubling = Doubling::new();
            let start = tokio::time::Instant::now();
            let answers = join_all([1, 2].map(|key| doubling.batch.get(key))).await;
            assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::Unavailable(_)))), "{answers:?}");
            assert_eq!(start.elapsed(), Duration::from_secs(1));
        });
    }

    #[test]
    fn a_lane_that_dies_leaves_nobody_waiting() {
        in_paused_time(async {
            let doubling = Doubling::new();
            let started = doubling.start_each([13, 13, 1]).await;
            let start = tokio::time::Instant::now();
            doubling.may.add_permits(10);
            for started in started {
                assert!(matches!(started.await.unwrap(), Err(StoreError::Unavailable(_))));
            }
            assert_eq!(start.elapsed(), Duration::ZERO);
            assert_eq!(doubling.batch.get(4).await.unwrap(), 8);
        });
    }
}
