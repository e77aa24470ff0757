//! `SignInRepository`.

use chrono::TimeDelta;
use mundap_domain::StoreError;
use mundap_domain::sign_in::{LIFETIME, NewSignIn, SignIn, SignInId, SignInRecord, TokenHash};
use mundap_domain::testing::noon;
use mundap_domain::user::{User, UserId};

use crate::board::{Board, NOBODY, assert_outcome, at, times};

crate::tests![
    list_of_holds_an_account_s_sign_ins_oldest_first,
    insert_is_found_by_its_family,
    insert_for_an_unknown_account_is_missing_reference,
    insert_of_a_known_family_is_duplicate,
    insert_drops_the_user_s_expired_ones_alone,
    find_locked_of_an_unknown_family_is_none,
    find_locked_keeps_the_row_from_changing_until_the_unit_ends,
    update_stores_what_changed,
    update_of_an_ended_one_is_stale,
    delete_ends_one_and_is_no_error_where_it_ended_before,
    delete_all_of_ends_every_one_of_that_account_alone,
    times_come_back_to_the_microsecond,
    a_row_that_breaks_a_rule_is_corrupt,
];

fn random() -> TokenHash {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    TokenHash::restore(bytes)
}

fn new(user: UserId) -> NewSignIn {
    NewSignIn { user, family: random(), current: random(), created_at: noon(), expires_at: noon().plus(LIFETIME) }
}

async fn insert(board: &Board, new: &NewSignIn) -> Result<SignInId, StoreError> {
    board.unit(async |unit| unit.sign_ins().insert(new).await).await
}

async fn stored(board: &Board, family: TokenHash) -> Option<SignIn> {
    board.reader().sign_ins().find_locked(&family).await.unwrap()
}

/// A signed-in device of `user`.
async fn one(board: &Board, user: &User) -> SignIn {
    let new = new(user.id);
    insert(board, &new).await.unwrap();
    stored(board, new.family).await.unwrap()
}

async fn list_of_holds_an_account_s_sign_ins_oldest_first(board: Board) {
    let (user, other) = (board.user().await, board.user().await);
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.push(one(&board, &user).await);
        one(&board, &other).await;
    }
    assert_eq!(board.reader().sign_ins().list_of(user.id).await.unwrap(), expected);
    assert_eq!(board.reader().sign_ins().list_of(NOBODY).await.unwrap(), []);
}

async fn insert_is_found_by_its_family(board: Board) {
    let new = new(board.user().await.id);
    let id = insert(&board, &new).await.unwrap();
    let expected = SignInRecord {
        id,
        user: new.user,
        family: new.family,
        current: new.current,
        previous: None,
        forgiven: false,
        created_at: new.created_at,
        rotated_at: new.created_at,
        expires_at: new.expires_at,
    };
    assert_eq!(*stored(&board, new.family).await.unwrap(), expected);
}

async fn insert_for_an_unknown_account_is_missing_reference(board: Board) {
    assert_outcome!(insert(&board, &new(NOBODY)).await, Err(StoreError::MissingReference(_)));
}

async fn insert_of_a_known_family_is_duplicate(board: Board) {
    let new = new(board.user().await.id);
    insert(&board, &new).await.unwrap();
    assert_outcome!(insert(&board, &new).await, Err(StoreError::Duplicate(_)));
}

async fn insert_drops_the_user_s_expired_ones_alone(board: Board) {
    let (user, other) = (board.user().await, board.user().await);
    let short = |user: UserId, expires_at| NewSignIn { expires_at, ..new(user) };
    let later = |micros| noon().plus(TimeDelta::microseconds(micros));
    let (ended, good, theirs) = (short(user.id, later(9)), short(user.id, later(11)), short(other.id, later(9)));
    for new in [&ended, &good, &theirs] {
        insert(&board, new).await.unwrap();
    }
    insert(&board, &NewSignIn { created_at: later(10), ..new(user.id) }).await.unwrap();
    assert_eq!(stored(&board, ended.family).await, None);
    assert!(stored(&board, good.family).await.is_some());
    assert!(stored(&board, theirs.family).await.is_some());
}

async fn find_locked_of_an_unknown_family_is_none(board: Board) {
    assert_eq!(stored(&board, random()).await, None);
    let family = random();
    assert_eq!(board.unit(async |unit| unit.sign_ins().find_locked(&family).await).await.unwrap(), None);
}

async fn find_locked_keeps_the_row_from_changing_until_the_unit_ends(board: Board) {
    let sign_in = one(&board, &board.user().await).await;
    let unit = board.begin().await;
    assert_eq!(unit.sign_ins().find_locked(&sign_in.family).await.unwrap().as_ref(), Some(&sign_in));
    board.assert_blocked(async |unit| unit.sign_ins().find_locked(&sign_in.family).await).await;
    board.assert_blocked(async |unit| unit.sign_ins().delete(sign_in.id).await).await;
    assert_eq!(stored(&board, sign_in.family).await.as_ref(), Some(&sign_in), "the reader waits for nobody");
    unit.commit().await.unwrap();
    board.unit(async |unit| unit.sign_ins().delete(sign_in.id).await).await.unwrap();
}

async fn update_stores_what_changed(board: Board) {
    let sign_in = one(&board, &board.user().await).await;
    for (previous, forgiven) in [(Some(random()), false), (Some(random()), true), (None, false)] {
        let newer = SignIn::restore(SignInRecord {
            current: random(),
            previous,
            forgiven,
            rotated_at: at("2026-02-03T04:05:06.000007Z"),
            expires_at: at("2026-03-03T04:05:06.7Z"),
            ..(*sign_in).clone()
        });
        board.unit(async |unit| unit.sign_ins().update(&newer).await).await.unwrap();
        assert_eq!(stored(&board, sign_in.family).await, Some(newer));
    }
}

async fn update_of_an_ended_one_is_stale(board: Board) {
    let sign_in = one(&board, &board.user().await).await;
    board.unit(async |unit| unit.sign_ins().delete(sign_in.id).await).await.unwrap();
    let outcome = board.unit(async |unit| unit.sign_ins().update(&sign_in).await).await;
    assert_outcome!(outcome, Err(StoreError::Stale));
}

async fn delete_ends_one_and_is_no_error_where_it_ended_before(board: Board) {
    let user = board.user().await;
    let (ended, kept) = (one(&board, &user).await, one(&board, &user).await);
    for _ in 0..2 {
        board.unit(async |unit| unit.sign_ins().delete(ended.id).await).await.unwrap();
        assert_eq!(stored(&board, ended.family).await, None);
    }
    assert_eq!(stored(&board, kept.family).await, Some(kept));
}

async fn delete_all_of_ends_every_one_of_that_account_alone(board: Board) {
    let (user, other) = (board.user().await, board.user().await);
    let (one, two, theirs) = (one(&board, &user).await, one(&board, &user).await, one(&board, &other).await);
    board.unit(async |unit| unit.sign_ins().delete_all_of(user.id).await).await.unwrap();
    for ended in [one, two] {
        assert_eq!(stored(&board, ended.family).await, None);
    }
    assert_eq!(stored(&board, theirs.family).await, Some(theirs));
    board.unit(async |unit| unit.sign_ins().delete_all_of(user.id).await).await.unwrap();
}

async fn times_come_back_to_the_microsecond(board: Board) {
    let user = board.user().await;
    for time in times() {
        let new = NewSignIn { created_at: time, expires_at: time, ..new(user.id) };
        insert(&board, &new).await.unwrap();
        let stored = stored(&board, new.family).await.unwrap();
        assert_eq!((stored.rotated_at, stored.expires_at), (time, time));
    }
}

async fn a_row_that_breaks_a_rule_is_corrupt(board: Board) {
    if !board.server.is_sqlite() {
        return; // BINARY(32) holds nothing else
    }
    let board = board.own().await;
    let sign_in = one(&board, &board.user().await).await;
    board.sql("UPDATE sign_in SET previous = x'00'").await;
    let Err(StoreError::Corrupt { table, id, .. }) = board.reader().sign_ins().find_locked(&sign_in.family).await
    else {
        panic!("a hash of one byte")
    };
    assert_eq!((table, id), ("sign_in", sign_in.id.get()));
}
