//! Units that share a commit.

use std::collections::HashSet;
use std::pin::pin;

use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, join_all};
use mundap_domain::idempotency::{Claimant, IdempotencyKey, Receipt};
use mundap_domain::page::Order;
use mundap_domain::qna::Qna;
use mundap_domain::testing::noon;
use mundap_domain::user::User;
use mundap_domain::{Store as _, StoreError, UnitOfWork};
use mundap_infra::DatabaseKind;

use crate::board::{Board, assert_outcome, new_qna, slice};

crate::tests![
    units_that_come_together_all_commit,
    units_that_share_a_commit_succeed_together,
    units_that_share_a_commit_fail_together,
    a_unit_that_is_given_up_in_its_commit_does_not_take_others_along,
    a_unit_whose_statement_failed_commits_nothing,
    an_exclusive_unit_shares_with_nobody,
];

async fn exist(board: &Board, qnas: [&Qna; 2]) -> [bool; 2] {
    let found = join_all(qnas.map(|qna| board.reader().qnas().find(qna.id))).await;
    found.into_iter().map(|found| found.unwrap().is_some()).collect::<Vec<_>>().try_into().unwrap()
}

async fn begin_shared(board: &Board) -> Box<dyn UnitOfWork> {
    board.store.begin_shared().await.unwrap()
}

/// Whoever comes now has to wait for a unit that is open. What is returned keeps it so.
async fn all_heads_but_one(board: &Board) -> Vec<Box<dyn UnitOfWork>> {
    match board.store.kind() {
        DatabaseKind::Sqlite => Vec::new(),
        DatabaseKind::MariaDb | DatabaseKind::MySql => vec![begin_shared(board).await],
    }
}

async fn insert(unit: &dyn UnitOfWork, author: &User) -> Qna {
    unit.qnas().insert(&new_qna(author)).await.unwrap()
}

/// Two units in one transaction: the first says that it commits, and the second is at work.
struct Two {
    first: LocalBoxFuture<'static, Result<(), StoreError>>,
    second: Box<dyn UnitOfWork>,
    of_first: Qna,
    of_second: Qna,
}

async fn two_in_one(board: &Board, user: &User) -> Two {
    let first = begin_shared(board).await;
    let mut second = pin!(begin_shared(board));
    assert!(second.as_mut().now_or_never().is_none(), "there is nothing to wait for");
    let of_first = insert(&*first, user).await;
    let mut first: LocalBoxFuture<'static, _> = Box::pin(first.commit());
    assert!(first.as_mut().now_or_never().is_none(), "nothing is committed yet");
    let second = second.await;
    let of_second = insert(&*second, user).await;
    Two { first, second, of_first, of_second }
}

async fn units_that_come_together_all_commit(board: Board) {
    let user = board.user().await;
    let ask = async || {
        let unit = begin_shared(&board).await;
        let qna = insert(&*unit, &user).await;
        unit.commit().await.unwrap();
        // Not before it is there for all.
        assert_eq!(board.reader().qnas().find(qna.id).await.unwrap().as_ref(), Some(&qna));
        qna.id
    };
    let ids: HashSet<_> = join_all((0..50).map(|_| ask())).await.into_iter().collect();
    assert_eq!(ids.len(), 50);
    let listed = board.reader().qnas().list(Some(user.id), &slice(Order::Oldest, None, 100)).await.unwrap();
    assert_eq!(listed.into_iter().map(|qna| qna.id).collect::<HashSet<_>>(), ids);
}

async fn units_that_share_a_commit_succeed_together(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    let _others = all_heads_but_one(&board).await;
    let Two { first, second, of_first, of_second } = two_in_one(&board, &user).await;
    assert_eq!(second.qnas().find(of_first.id).await.unwrap().as_ref(), Some(&of_first));
    assert_eq!(exist(&board, [&of_first, &of_second]).await, [false, false]);
    second.commit().await.unwrap();
    first.await.unwrap();
    assert_eq!(exist(&board, [&of_first, &of_second]).await, [true, true]);
}

async fn units_that_share_a_commit_fail_together(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    let others = all_heads_but_one(&board).await;
    let Two { first, second, of_first, of_second } = two_in_one(&board, &user).await;
    drop(second);
    // So that it is tried again.
    assert_outcome!(first.await, Err(StoreError::Contention(_)));
    assert_eq!(exist(&board, [&of_first, &of_second]).await, [false, false]);
    // And nobody is left waiting.
    drop(others);
    let unit = begin_shared(&board).await;
    insert(&*unit, &user).await;
    unit.commit().await.unwrap();
}

async fn a_unit_that_is_given_up_in_its_commit_does_not_take_others_along(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    let _others = all_heads_but_one(&board).await;
    let Two { first, second, of_first, of_second } = two_in_one(&board, &user).await;
    // It has said that it commits, and does not hear that it has.
    assert!(second.commit().now_or_never().is_none(), "nothing is committed yet");
    first.await.unwrap();
    assert_eq!(exist(&board, [&of_first, &of_second]).await, [true, true]);
}

async fn a_unit_whose_statement_failed_commits_nothing(board: Board) {
    let user = board.user().await;
    let unit = begin_shared(&board).await;
    let qna = insert(&*unit, &user).await;
    let receipt = Receipt {
        claimant: Claimant::account(user.id),
        key: IdempotencyKey::parse("twice").unwrap(),
        fingerprint: [1; 32],
        id: qna.id.get(),
        author: Some(user.author()),
        created_at: noon(),
    };
    unit.receipts().insert(&receipt).await.unwrap();
    assert_outcome!(unit.receipts().insert(&receipt).await, Err(StoreError::Duplicate(_)));
    assert_outcome!(unit.commit().await, Err(StoreError::Contention(_)));
    assert!(board.reader().qnas().find(qna.id).await.unwrap().is_none());
}

async fn an_exclusive_unit_shares_with_nobody(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    let unit = board.begin().await;
    let qna = insert(&*unit, &user).await;
    let mut shared = pin!(begin_shared(&board));
    let shared = match board.store.kind() {
        // There is one writer: whoever comes waits until it is free.
        DatabaseKind::Sqlite => {
            assert!(shared.as_mut().now_or_never().is_none(), "two may write");
            drop(unit);
            shared.await
        }
        DatabaseKind::MariaDb | DatabaseKind::MySql => shared.await,
    };
    assert!(shared.qnas().find(qna.id).await.unwrap().is_none());
    insert(&*shared, &user).await;
    shared.commit().await.unwrap();
}
