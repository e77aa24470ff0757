//! `Store::add_qna`: questions with their receipts, also those that come together.

use std::time::Duration;

use futures_util::future::{join, join_all};
use mundap_domain::env::Clock as _;
use mundap_domain::idempotency::{Claim, Claimant, IdempotencyKey, NotAdded, Receipt};
use mundap_domain::page::Order;
use mundap_domain::qna::{NewQna, Qna, Title};
use mundap_domain::testing::noon;
use mundap_domain::user::{User, UserId};
use mundap_domain::{Store as _, StoreError};
use mundap_infra::SystemClock;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement, TransactionTrait as _};

use crate::board::{Board, new_qna, slice};

crate::tests![
    what_comes_together_is_stored_each_under_its_own_id,
    either_the_question_and_its_receipt_are_stored_or_neither,
    what_cannot_be_stored_keeps_nobody_else_from_it,
    one_key_stores_one_question,
    what_is_given_up_is_not_stored,
    connections_that_others_find_commit_by_themselves,
];

fn titled(author: &User, title: &str) -> NewQna {
    NewQna { title: Title::parse(title).unwrap(), ..new_qna(author) }
}

fn claim(author: &User, key: &str) -> Claim {
    Claim {
        claimant: Claimant::account(author.id),
        key: IdempotencyKey::parse(key).unwrap(),
        fingerprint: [7; 32],
        author: Some(author.author()),
        created_at: noon(),
    }
}

/// Meets others the way the domain does, by trying again.
async fn add(board: &Board, qna: &NewQna, claim: Option<&Claim>) -> Result<Qna, NotAdded<StoreError>> {
    let mut attempt = 0;
    loop {
        match board.store.add_qna(qna, claim).await {
            Err(NotAdded::Thing(StoreError::Contention(_))) if attempt < 10 => {
                attempt += 1;
                SystemClock.pause_before(attempt).await;
            }
            outcome => return outcome,
        }
    }
}

async fn receipt(board: &Board, claim: &Claim) -> Option<Receipt> {
    board.reader().receipts().find(claim.claimant, &claim.key).await.unwrap()
}

/// The questions of somebody, the oldest first.
async fn all_of(board: &Board, author: &User) -> Vec<Qna> {
    board.reader().qnas().list(Some(author.id), &slice(Order::Oldest, None, 100)).await.unwrap()
}

async fn what_comes_together_is_stored_each_under_its_own_id(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    // With a connection at hand: to open one takes longer than anybody stands in line.
    let first = add(&board, &titled(&user, "first"), None).await.unwrap();
    let stored = join_all((0..60).map(async |n: usize| {
        let qna = titled(&user, &format!("question {n}"));
        let claim = claim(&user, &format!("key-{n}"));
        let claim = (!n.is_multiple_of(3)).then_some(claim);
        let stored = add(&board, &qna, claim.as_ref()).await.unwrap();
        assert_eq!(stored, qna.stored(stored.id));
        // Not told before it is there for all.
        assert_eq!(board.reader().qnas().find(stored.id).await.unwrap().as_ref(), Some(&stored));
        if let Some(claim) = claim {
            assert_eq!(receipt(&board, &claim).await, Some(claim.receipt(stored.id.get())));
        }
        stored
    }));
    let mut stored = stored.await;
    stored.push(first);
    stored.sort_by_key(|qna| qna.id);
    assert_eq!(all_of(&board, &user).await, stored);
}

async fn either_the_question_and_its_receipt_are_stored_or_neither(board: Board) {
    // Beside others it may meet them.
    let board = board.own().await;
    let user = board.user().await;
    let claim = claim(&user, "used");
    let first = board.store.add_qna(&titled(&user, "first"), Some(&claim)).await.unwrap();
    let second = board.store.add_qna(&titled(&user, "second"), Some(&claim)).await;
    assert!(matches!(second, Err(NotAdded::Receipt(StoreError::Duplicate(_)))), "{second:?}");
    assert_eq!(receipt(&board, &claim).await, Some(claim.receipt(first.id.get())));
    assert_eq!(all_of(&board, &user).await, [first]);
}

async fn what_cannot_be_stored_keeps_nobody_else_from_it(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    let taken = claim(&user, "taken");
    board.store.add_qna(&titled(&user, "first"), Some(&taken)).await.unwrap();
    let mut nobody = titled(&user, "of nobody");
    nobody.author.id = UserId::new(9_007_199_254_740_990);
    let outcomes = join_all((0..30).map(async |n: usize| match n % 10 {
        3 => Some(matches!(
            add(&board, &titled(&user, "twice"), Some(&taken)).await,
            Err(NotAdded::Receipt(StoreError::Duplicate(_)))
        )),
        6 => Some(matches!(add(&board, &nobody, None).await, Err(NotAdded::Thing(StoreError::MissingReference(_))))),
        _ => {
            add(&board, &titled(&user, &format!("question {n}")), None).await.unwrap();
            None
        }
    }));
    assert_eq!(outcomes.await.into_iter().flatten().collect::<Vec<_>>(), [true; 6]);
    let mut titles: Vec<_> = all_of(&board, &user).await.into_iter().map(|qna| qna.title.as_str().to_owned()).collect();
    titles.sort_unstable();
    titles.dedup();
    assert_eq!((titles.len(), titles.contains(&"twice".to_owned())), (25, false));
}

async fn one_key_stores_one_question(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    let claim = claim(&user, "once");
    let qna = new_qna(&user);
    let outcomes = join_all((0..20).map(|_| add(&board, &qna, Some(&claim)))).await;
    let stored: Vec<_> = outcomes.iter().flatten().collect();
    assert_eq!(stored.len(), 1, "{outcomes:?}");
    assert_eq!(all_of(&board, &user).await.iter().collect::<Vec<_>>(), stored);
    assert_eq!(receipt(&board, &claim).await, Some(claim.receipt(stored[0].id.get())));
}

async fn what_is_given_up_is_not_stored(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    // Nobody writes for this author while their row is held, and on SQLite nobody at all.
    let held = board.begin().await;
    held.users().find_locked(user.id).await.unwrap();
    let given_up = join_all((0..5).map(|_| {
        let (board, qna) = (&board, titled(&user, "given up"));
        async move { tokio::time::timeout(Duration::from_millis(100), board.store.add_qna(&qna, None)).await }
    }));
    assert!(given_up.await.iter().all(Result::is_err), "they are held up");
    held.commit().await.unwrap();
    let stays = add(&board, &titled(&user, "stays"), None).await.unwrap();
    assert_eq!(all_of(&board, &user).await, [stays]);
}

async fn connections_that_others_find_commit_by_themselves(board: Board) {
    if board.server.is_sqlite() {
        return; // keeps none for what is stored together
    }
    let board = board.own().await;
    let user = board.user().await;
    add(&board, &new_qna(&user), None).await.unwrap();
    // Something is given up while the next one is stored, so that nothing is kept for a while.
    let held = board.begin().await;
    held.users().find_locked(user.id).await.unwrap();
    let trouble = async {
        let unit = board.begin().await;
        let held_up = tokio::time::timeout(Duration::from_millis(20), unit.users().find_locked(user.id)).await;
        assert!(held_up.is_err(), "the row is held");
        drop(unit);
        held.commit().await.unwrap();
    };
    let qna = new_qna(&user);
    let (added, ()) = join(board.store.add_qna(&qna, None), trouble).await;
    added.unwrap();
    let all: Vec<_> = join_all((0..8).map(|_| board.store.looking().begin())).await;
    for connection in all {
        let autocommit = Statement::from_string(DbBackend::MySql, "SELECT CAST(@@autocommit AS SIGNED)");
        let row = connection.unwrap().query_one_raw(autocommit).await.unwrap().unwrap();
        assert_eq!(row.try_get_by_index::<i64>(0).unwrap(), 1);
    }
}
