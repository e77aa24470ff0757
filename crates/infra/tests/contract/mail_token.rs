//! `MailTokenRepository`.

use chrono::TimeDelta;
use mundap_domain::StoreError;
use mundap_domain::mail::{MailTokenRecord, Purpose};
use mundap_domain::sign_in::TokenHash;
use mundap_domain::testing::noon;
use mundap_domain::user::User;

use crate::board::{Board, NOBODY, assert_outcome, times};

crate::tests![
    put_is_found_by_its_hash_and_purpose,
    put_replaces_the_one_that_the_account_had_for_this_purpose,
    put_for_an_unknown_account_is_missing_reference,
    find_locked_keeps_the_row_from_changing_until_the_unit_ends,
    delete_forgets_one_purpose_and_is_no_error_where_there_is_none,
    delete_all_of_forgets_those_of_that_account_alone,
    delete_expired_spares_what_is_good,
    delete_expired_forgets_no_more_than_it_may,
    times_come_back_to_the_microsecond,
];

fn random() -> TokenHash {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    TokenHash::restore(bytes)
}

fn new(user: &User, purpose: Purpose) -> MailTokenRecord {
    let expires_at = noon().plus(TimeDelta::minutes(30));
    MailTokenRecord { user: user.id, purpose, hash: random(), email_key: user.email.key(), expires_at }
}

async fn put(board: &Board, token: &MailTokenRecord) -> Result<(), StoreError> {
    board.unit(async |unit| unit.mail_tokens().put(token).await).await
}

async fn stored(board: &Board, token: &MailTokenRecord) -> Option<MailTokenRecord> {
    board.reader().mail_tokens().find_locked(&token.hash, token.purpose).await.unwrap()
}

async fn put_is_found_by_its_hash_and_purpose(board: Board) {
    let user = board.user().await;
    for (purpose, other) in
        [(Purpose::VerifyEmail, Purpose::ResetPassword), (Purpose::ResetPassword, Purpose::VerifyEmail)]
    {
        let token = new(&user, purpose);
        assert_eq!(stored(&board, &token).await, None);
        put(&board, &token).await.unwrap();
        assert_eq!(stored(&board, &token).await.as_ref(), Some(&token));
        assert_eq!(stored(&board, &MailTokenRecord { purpose: other, ..token }).await, None);
    }
}

async fn put_replaces_the_one_that_the_account_had_for_this_purpose(board: Board) {
    let (user, other) = (board.user().await, board.user().await);
    let kept = [new(&user, Purpose::VerifyEmail), new(&other, Purpose::ResetPassword)];
    let older = new(&user, Purpose::ResetPassword);
    for token in kept.iter().chain([&older]) {
        put(&board, token).await.unwrap();
    }
    let newer = new(&user, Purpose::ResetPassword);
    put(&board, &newer).await.unwrap();
    assert_eq!(stored(&board, &older).await, None);
    for token in kept.iter().chain([&newer]) {
        assert_eq!(stored(&board, token).await.as_ref(), Some(token));
    }
}

async fn put_for_an_unknown_account_is_missing_reference(board: Board) {
    let token = MailTokenRecord { user: NOBODY, ..new(&board.user().await, Purpose::VerifyEmail) };
    assert_outcome!(put(&board, &token).await, Err(StoreError::MissingReference(_)));
}

async fn find_locked_keeps_the_row_from_changing_until_the_unit_ends(board: Board) {
    let token = new(&board.user().await, Purpose::ResetPassword);
    put(&board, &token).await.unwrap();
    let unit = board.begin().await;
    assert_eq!(unit.mail_tokens().find_locked(&token.hash, token.purpose).await.unwrap().as_ref(), Some(&token));
    board.assert_blocked(async |unit| unit.mail_tokens().find_locked(&token.hash, token.purpose).await).await;
    board.assert_blocked(async |unit| unit.mail_tokens().delete(token.user, token.purpose).await).await;
    assert_eq!(stored(&board, &token).await.as_ref(), Some(&token), "the reader waits for nobody");
    unit.commit().await.unwrap();
}

async fn delete_forgets_one_purpose_and_is_no_error_where_there_is_none(board: Board) {
    let user = board.user().await;
    let (gone, kept) = (new(&user, Purpose::ResetPassword), new(&user, Purpose::VerifyEmail));
    put(&board, &gone).await.unwrap();
    put(&board, &kept).await.unwrap();
    for _ in 0..2 {
        board.unit(async |unit| unit.mail_tokens().delete(user.id, Purpose::ResetPassword).await).await.unwrap();
        assert_eq!((stored(&board, &gone).await, stored(&board, &kept).await.as_ref()), (None, Some(&kept)));
    }
}

async fn delete_all_of_forgets_those_of_that_account_alone(board: Board) {
    let (user, other) = (board.user().await, board.user().await);
    let gone = [new(&user, Purpose::ResetPassword), new(&user, Purpose::VerifyEmail)];
    let kept = new(&other, Purpose::VerifyEmail);
    for token in gone.iter().chain([&kept]) {
        put(&board, token).await.unwrap();
    }
    board.unit(async |unit| unit.mail_tokens().delete_all_of(user.id).await).await.unwrap();
    for token in &gone {
        assert_eq!(stored(&board, token).await, None);
    }
    assert_eq!(stored(&board, &kept).await, Some(kept));
}

async fn delete_expired_spares_what_is_good(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    let until = |purpose, micros| {
        let expires_at = noon().plus(TimeDelta::microseconds(micros));
        MailTokenRecord { expires_at, ..new(&user, purpose) }
    };
    let (gone, kept) = (until(Purpose::VerifyEmail, 0), until(Purpose::ResetPassword, 1));
    put(&board, &gone).await.unwrap();
    put(&board, &kept).await.unwrap();
    assert_eq!(board.unit(async |unit| unit.mail_tokens().delete_expired(noon(), 10).await).await.unwrap(), 1);
    assert_eq!((stored(&board, &gone).await, stored(&board, &kept).await.as_ref()), (None, Some(&kept)));
}

async fn delete_expired_forgets_no_more_than_it_may(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    for purpose in [Purpose::VerifyEmail, Purpose::ResetPassword] {
        put(&board, &MailTokenRecord { expires_at: noon(), ..new(&user, purpose) }).await.unwrap();
    }
    for expected in [1, 1, 0] {
        let forgotten = board.unit(async |unit| unit.mail_tokens().delete_expired(noon(), 1).await).await.unwrap();
        assert_eq!(forgotten, expected);
    }
    board.close().await;
}

async fn times_come_back_to_the_microsecond(board: Board) {
    let user = board.user().await;
    for time in times() {
        let token = MailTokenRecord { expires_at: time, ..new(&user, Purpose::VerifyEmail) };
        put(&board, &token).await.unwrap();
        assert_eq!(stored(&board, &token).await, Some(token));
    }
}
