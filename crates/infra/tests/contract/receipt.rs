//! `ReceiptRepository`.

use chrono::TimeDelta;
use futures_util::future::join_all;
use mundap_domain::StoreError;
use mundap_domain::idempotency::{Claimant, IdempotencyKey, Receipt};
use mundap_domain::testing::noon;
use mundap_domain::user::UserId;

use crate::board::{Board, assert_outcome, times};

crate::tests![
    insert_is_found_by_claimant_and_key,
    an_anonymous_claimant_s_receipt_names_no_author,
    insert_of_a_used_key_is_duplicate,
    insert_waits_for_a_unit_that_is_about_to_use_the_key,
    keys_differ_in_case_and_by_claimant,
    keys_that_are_looked_for_together_are_told_apart,
    delete_forgets_one_receipt_and_is_no_error_where_there_is_none,
    delete_spares_another_receipt_of_the_same_key,
    delete_all_of_forgets_every_key_of_that_account_alone,
    erased_claimants_are_those_that_were_erased_and_have_a_receipt,
    erased_claimants_are_found_however_far_their_ids_are_apart,
    delete_older_spares_what_is_not_older,
    delete_older_forgets_no_more_than_it_may,
    times_come_back_to_the_microsecond,
];

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).unwrap()
}

/// A receipt of a new account's, with a key of its own.
async fn new(board: &Board) -> Receipt {
    let author = board.user().await.author();
    let claimant = Claimant::account(author.id);
    let key = key(&format!("key-{}", author.id));
    Receipt { claimant, key, fingerprint: [7; 32], id: 5, author: Some(author), created_at: noon() }
}

async fn insert(board: &Board, receipt: &Receipt) -> Result<(), StoreError> {
    board.unit(async |unit| unit.receipts().insert(receipt).await).await
}

async fn stored(board: &Board, receipt: &Receipt) -> Option<Receipt> {
    board.reader().receipts().find(receipt.claimant, &receipt.key).await.unwrap()
}

async fn insert_is_found_by_claimant_and_key(board: Board) {
    let receipt = new(&board).await;
    assert_eq!(stored(&board, &receipt).await, None);
    insert(&board, &receipt).await.unwrap();
    assert_eq!(stored(&board, &receipt).await, Some(receipt));
}

async fn an_anonymous_claimant_s_receipt_names_no_author(board: Board) {
    let receipt = Receipt { claimant: Claimant::anonymous(), author: None, ..new(&board).await };
    insert(&board, &receipt).await.unwrap();
    assert_eq!(stored(&board, &receipt).await, Some(receipt));
}

async fn insert_of_a_used_key_is_duplicate(board: Board) {
    let receipt = new(&board).await;
    insert(&board, &receipt).await.unwrap();
    let other = Receipt { id: 6, fingerprint: [8; 32], ..receipt.clone() };
    assert_outcome!(insert(&board, &other).await, Err(StoreError::Duplicate(_)));
    assert_eq!(stored(&board, &receipt).await, Some(receipt));
}

async fn insert_waits_for_a_unit_that_is_about_to_use_the_key(board: Board) {
    let receipt = new(&board).await;
    let unit = board.begin().await;
    unit.receipts().insert(&receipt).await.unwrap();
    board.assert_blocked(async |other| other.receipts().insert(&receipt).await).await;
    drop(unit);
    insert(&board, &receipt).await.unwrap();
}

async fn keys_differ_in_case_and_by_claimant(board: Board) {
    let one = new(&board).await;
    let upper = Receipt { key: key(&one.key.as_str().to_uppercase()), id: 6, ..one.clone() };
    let another = new(&board).await;
    let another = Receipt { key: one.key.clone(), id: 7, ..another };
    for receipt in [&one, &upper, &another] {
        insert(&board, receipt).await.unwrap();
    }
    for receipt in [one, upper, another] {
        assert_eq!(stored(&board, &receipt).await, Some(receipt));
    }
}

async fn keys_that_are_looked_for_together_are_told_apart(board: Board) {
    let mut receipts = Vec::new();
    for id in 1..=4 {
        let own = Receipt { id, ..new(&board).await };
        let same = Receipt { key: key("the-same"), id: 10 + id, ..own.clone() };
        receipts.extend([own, same]);
    }
    for receipt in &receipts {
        insert(&board, receipt).await.unwrap();
    }
    let unknown = Receipt { key: key("unknown"), ..receipts[0].clone() };
    // Several times each: whoever comes first is looked for alone.
    let sought = || receipts.iter().chain([&unknown]);
    let found = join_all((0..4).flat_map(|_| sought()).map(|receipt| stored(&board, receipt))).await;
    for (found, sought) in found.iter().zip((0..4).flat_map(|_| sought())) {
        assert_eq!(found.as_ref(), Some(sought).filter(|sought| *sought != &unknown));
    }
}

async fn delete_forgets_one_receipt_and_is_no_error_where_there_is_none(board: Board) {
    let receipt = new(&board).await;
    let kept = Receipt { key: key("kept"), ..receipt.clone() };
    insert(&board, &receipt).await.unwrap();
    insert(&board, &kept).await.unwrap();
    for _ in 0..2 {
        board.unit(async |unit| unit.receipts().delete(&receipt).await).await.unwrap();
        assert_eq!(stored(&board, &receipt).await, None);
    }
    assert_eq!(stored(&board, &kept).await, Some(kept));
}

async fn delete_spares_another_receipt_of_the_same_key(board: Board) {
    let receipt = new(&board).await;
    insert(&board, &receipt).await.unwrap();
    // Who looked for it before somebody else renewed it.
    let stale = Receipt { created_at: noon().plus(-TimeDelta::hours(25)), ..receipt.clone() };
    board.unit(async |unit| unit.receipts().delete(&stale).await).await.unwrap();
    assert_eq!(stored(&board, &receipt).await, Some(receipt));
}

async fn delete_all_of_forgets_every_key_of_that_account_alone(board: Board) {
    let one = new(&board).await;
    let two = Receipt { key: key("two"), ..one.clone() };
    let others = new(&board).await;
    for receipt in [&one, &two, &others] {
        insert(&board, receipt).await.unwrap();
    }
    let user = one.author.as_ref().unwrap().id;
    board.unit(async |unit| unit.receipts().delete_all_of(user).await).await.unwrap();
    assert_eq!((stored(&board, &one).await, stored(&board, &two).await), (None, None));
    assert_eq!(stored(&board, &others).await, Some(others));
}

async fn erased_claimants_are_those_that_were_erased_and_have_a_receipt(board: Board) {
    let board = board.own().await;
    let erase = async |receipt: &Receipt, at| {
        let id = receipt.author.as_ref().unwrap().id;
        board.unit(async |unit| unit.users().erase(id, at).await).await.unwrap();
        id
    };
    let (kept, none, long_ago) = (new(&board).await, new(&board).await, new(&board).await);
    let (one, two) = (new(&board).await, new(&board).await);
    erase(&none, noon()).await;
    erase(&long_ago, noon().plus(TimeDelta::microseconds(-1))).await;
    let erased = [erase(&one, noon()).await, erase(&two, noon()).await];
    // Behind it, as by a unit that began before; of one account two.
    for receipt in [&kept, &long_ago, &one, &Receipt { key: key("two"), ..one.clone() }, &two] {
        insert(&board, receipt).await.unwrap();
    }
    let claimants = async |most| board.reader().receipts().erased_claimants(noon(), most).await.unwrap();
    assert_eq!(claimants(10).await, erased);
    assert_eq!(claimants(1).await, erased[..1]);
    board.unit(async |unit| unit.receipts().delete_all_of(erased[0]).await).await.unwrap();
    assert_eq!(claimants(10).await, erased[1..]);
    board.close().await;
}

async fn erased_claimants_are_found_however_far_their_ids_are_apart(board: Board) {
    let board = board.own().await;
    let ids = [1_i64, 2, 100_000, 100_001, 100_002, 350_000, 1 << 40, (1 << 52) - 1];
    let time = "'2026-01-02 12:00:00.000001'";
    for id in ids {
        board
            .sql(&format!(
                "INSERT INTO users (user_id, role, deleted_at, created_at, updated_at)
                 VALUES ({id}, 'member', {time}, {time}, {time})"
            ))
            .await;
        let hash = "X'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f'";
        board
            .sql(&format!(
                "INSERT INTO receipt (claimant, idem_key, fingerprint, created_id, created_at)
                 VALUES ({id}, 'k', {hash}, 1, {time})"
            ))
            .await;
    }
    let claimants = async |most| {
        let found = board.reader().receipts().erased_claimants(noon(), most).await.unwrap();
        found.into_iter().map(UserId::get).collect::<Vec<_>>()
    };
    assert_eq!(claimants(100).await, ids);
    assert_eq!(claimants(5).await, ids[..5]);
    assert_eq!(claimants(0).await, [0_i64; 0]);
    board.close().await;
}

async fn delete_older_spares_what_is_not_older(board: Board) {
    let board = board.own().await;
    let kept = new(&board).await;
    let old = Receipt { created_at: noon().plus(TimeDelta::microseconds(-1)), ..new(&board).await };
    insert(&board, &kept).await.unwrap();
    insert(&board, &old).await.unwrap();
    let forgotten = board.unit(async |unit| unit.receipts().delete_older(noon(), 10).await).await.unwrap();
    assert_eq!((forgotten, stored(&board, &old).await), (1, None));
    assert_eq!(stored(&board, &kept).await, Some(kept));
    board.close().await;
}

async fn delete_older_forgets_no_more_than_it_may(board: Board) {
    let board = board.own().await;
    let old = Receipt { created_at: noon().plus(TimeDelta::seconds(-1)), ..new(&board).await };
    for n in 0..5 {
        // Of one instant and of one account.
        insert(&board, &Receipt { key: key(&format!("old-{n}")), ..old.clone() }).await.unwrap();
    }
    let mut forgotten = Vec::new();
    for _ in 0..4 {
        forgotten.push(board.unit(async |unit| unit.receipts().delete_older(noon(), 2).await).await.unwrap());
    }
    assert_eq!(forgotten, [2, 2, 1, 0]);
    board.close().await;
}

async fn times_come_back_to_the_microsecond(board: Board) {
    for created_at in times() {
        let receipt = Receipt { created_at, ..new(&board).await };
        insert(&board, &receipt).await.unwrap();
        assert_eq!(stored(&board, &receipt).await, Some(receipt));
    }
}
