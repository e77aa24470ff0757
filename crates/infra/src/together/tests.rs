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
        mem::replace(&mut *self.commit.lock().unwrap(), Ok(()))?;
        self.committed.lock().unwrap().push(open);
        Ok(())
    }
}

struct Stage {
    together: Together<i64, List>,
    list: List,
}

impl Stage {
    /// Where so much may be done.
    fn new(writes: usize, commits: usize) -> Self {
        let list = List {
            committed: Arc::default(),
            begun: Arc::default(),
            may_write: Arc::new(Semaphore::new(writes)),
            may_commit: Arc::new(Semaphore::new(commits)),
            commit: Arc::new(Mutex::new(Ok(()))),
        };
        Self { together: Together::new(list.clone(), PATIENCE), list }
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
        let stage = Stage::new(0, 10);
        let added = stage.add(1..=4).await;
        assert_eq!(stage.begun(), [vec![1]]);
        stage.list.may_write.add_permits(1);
        settled().await;
        assert_eq!(stage.begun(), [vec![1], vec![2, 3, 4]]);
        stage.list.may_write.add_permits(10);
        assert_eq!(values(added).await, [2, 4, 6, 8]);
        assert_eq!(stage.committed().len(), 2);
        // And the head is free again.
        assert_eq!(stage.together.add(6).await.unwrap(), 12);
    });
}

/// One has gone alone and two behind it, which took so long; another one waits.
async fn two_that_took(time: Duration) -> (Stage, Vec<JoinHandle<Answer<i64>>>) {
    let stage = Stage::new(0, 10);
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
        let stage = Stage::new(0, 10);
        let added = stage.add(200..336).await;
        stage.list.may_write.add_permits(10);
        assert_eq!(values(added).await.len(), 136);
        assert_eq!(stage.committed().iter().map(Vec::len).collect::<Vec<_>>(), [1, MOST, MOST, 7]);
    });
}

#[test]
fn who_is_held_up_in_line_goes_by_itself() {
    in_paused_time(async {
        let stage = Stage::new(0, 10);
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
        let stage = Stage::new(0, 10);
        let added = stage.add(1..=3).await;
        added[1].abort();
        settled().await;
        stage.list.may_write.add_permits(10);
        settled().await;
        assert_eq!(stage.committed(), [vec![1], vec![3]]);

        // Alone: what it waits for is given up with it.
        let stage = Stage::new(0, 10);
        let added = stage.add([1]).await;
        added[0].abort();
        settled().await;
        assert!(!stage.together.0.line().taken, "nobody is at the head");
        stage.list.may_write.add_permits(10);
        settled().await;
        assert!(stage.committed().is_empty());

        // With others: they meet it, and are tried again without it.
        let stage = Stage::new(0, 10);
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
        let stage = Stage::new(10, 0);
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
        let stage = Stage::new(10, 10);
        let alone = answers(stage.add([13]).await).await;
        assert!(matches!(alone[..], [Err(NotAdded::Thing(StoreError::MissingReference(_)))]), "{alone:?}");
        let alone = answers(stage.add([99]).await).await;
        assert!(matches!(alone[..], [Err(NotAdded::Receipt(StoreError::Duplicate(_)))]), "{alone:?}");

        for bad in [13, 99] {
            tokio::time::sleep(CALM).await;
            let stage = Stage::new(0, 10);
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
        let stage = Stage::new(0, 10);
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

/// As at a stop, where a thread ends as soon as none of its own connections is left.
#[test]
fn who_is_written_for_by_a_thread_that_ends_is_to_try_again() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    for (permits, is_undone) in [(0, true), (1, false)] {
        let (ending, staying) = (runtime(), runtime());
        let stage = Stage::new(0, 1);
        let first = ending.block_on(stage.add([1]));
        let added = staying.block_on(stage.add([2]));
        let begin = async {
            stage.list.may_write.add_permits(1);
            settled().await;
            // It comes as far as its commit, or not.
            stage.list.may_write.add_permits(permits);
            settled().await;
        };
        ending.block_on(begin);
        assert_eq!(stage.begun(), [[1], [2]]);
        drop((first, ending));
        let answers = staying.block_on(answers(added));
        assert!(
            if is_undone {
                matches!(answers[..], [Err(NotAdded::Thing(StoreError::Contention(_)))])
            } else {
                matches!(answers[..], [Err(NotAdded::Thing(StoreError::Unavailable(_)))])
            },
            "{answers:?}"
        );
        assert!(!stage.together.0.line().taken, "nobody is at the head");
    }
}
