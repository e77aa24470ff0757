//! `OutboxRepository`.
//!
//! What is due is taken by whoever comes first, so these tests have a database of their own.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use futures_util::future::join_all;
use mundap_domain::StoreError;
use mundap_domain::env::Timestamp;
use mundap_domain::mail::{LEASE, Language, LetterId, NewLetter, QueuedLetter, Topic};
use mundap_domain::testing::noon;
use mundap_domain::user::{Email, UserId};

use crate::board::{Board, NOBODY, assert_outcome, times, unique_email};

crate::tests![
    insert_is_due_at_once_and_taken_whole,
    insert_for_an_unknown_account_is_missing_reference,
    a_unit_that_is_rolled_back_leaves_no_letter,
    take_keeps_it_from_every_other_taker_until_then,
    take_gives_each_letter_to_one_of_many,
    take_goes_by_what_is_due_longest,
    take_leaves_what_a_newer_version_put_in,
    postpone_lets_it_wait,
    postpone_has_no_effect_where_it_was_taken_again,
    delete_forgets_one_and_is_no_error_where_it_is_gone,
    delete_all_of_forgets_what_is_about_an_account_or_to_its_address,
    delete_tokens_to_forgets_what_only_its_reader_could_use,
    times_come_back_to_the_microsecond,
    take_puts_a_row_that_breaks_a_rule_aside,
];

fn later(seconds: i64) -> Timestamp {
    noon().plus(TimeDelta::seconds(seconds))
}

fn to_nobody() -> NewLetter {
    NewLetter {
        topic: Topic::ResetPassword,
        user: None,
        to: Email::parse(&unique_email()).unwrap(),
        language: Language::Korean,
        created_at: noon(),
    }
}

async fn insert(board: &Board, letter: &NewLetter) -> Result<(), StoreError> {
    board.unit(async |unit| unit.outbox().insert(letter).await).await
}

async fn take(board: &Board, now: Timestamp) -> Option<QueuedLetter> {
    board.unit(async |unit| unit.outbox().take(now, now.plus(LEASE)).await).await.unwrap()
}

async fn due(board: &Board, now: Timestamp) -> bool {
    board.reader().outbox().is_any_due(now).await.unwrap()
}

async fn insert_is_due_at_once_and_taken_whole(board: Board) {
    let board = board.own().await;
    assert_eq!((due(&board, later(9)).await, take(&board, later(9)).await), (false, None));
    let user = board.user().await;
    for topic in Topic::ALL {
        for (user, language) in [(Some(user.id), Language::English), (None, Language::Korean)] {
            let to = Email::parse(&format!("Hong.Gil-Dong+{}", unique_email())).unwrap();
            let letter = NewLetter { topic, user, to, language, created_at: later(1) };
            insert(&board, &letter).await.unwrap();
            assert_eq!(board.reader().outbox().count().await.unwrap(), 1);
            assert!(!due(&board, noon()).await && due(&board, later(1)).await);
            assert_eq!(take(&board, noon()).await, None);
            let taken = take(&board, later(1)).await.unwrap();
            let NewLetter { topic, user, to, language, created_at } = letter;
            let expected = QueuedLetter { id: taken.id, topic, user, to, language, created_at, attempts: 1 };
            assert_eq!(taken, expected);
            board.unit(async |unit| unit.outbox().delete(taken.id).await).await.unwrap();
        }
    }
}

async fn insert_for_an_unknown_account_is_missing_reference(board: Board) {
    let letter = NewLetter { user: Some(NOBODY), ..to_nobody() };
    assert_outcome!(insert(&board, &letter).await, Err(StoreError::MissingReference(_)));
}

async fn a_unit_that_is_rolled_back_leaves_no_letter(board: Board) {
    let board = board.own().await;
    let unit = board.begin().await;
    unit.outbox().insert(&to_nobody()).await.unwrap();
    drop(unit);
    assert_eq!(board.unit(async |unit| unit.outbox().count().await).await.unwrap(), 0);
}

async fn take_keeps_it_from_every_other_taker_until_then(board: Board) {
    let board = board.own().await;
    insert(&board, &to_nobody()).await.unwrap();
    let first = take(&board, noon()).await.unwrap();
    let end = noon().plus(LEASE);
    let before = end.plus(TimeDelta::microseconds(-1));
    assert_eq!((due(&board, before).await, take(&board, before).await), (false, None));
    assert!(due(&board, end).await);
    let again = take(&board, end).await.unwrap();
    assert_eq!(again, QueuedLetter { attempts: 2, ..first });
}

async fn take_gives_each_letter_to_one_of_many(board: Board) {
    let board = board.own().await;
    for _ in 0..20 {
        insert(&board, &to_nobody()).await.unwrap();
    }
    // More takers than letters; where one loses to the others it comes again, as a lane does.
    let takers = join_all((0..30).map(async |_| {
        for _ in 0..20 {
            if let Some(letter) = take(&board, noon()).await {
                return Some(letter.id.get());
            }
            if !due(&board, noon()).await {
                return None;
            }
        }
        None
    }));
    let taken: Vec<i64> = takers.await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 20);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 20, "none twice: {taken:?}");
}

async fn take_goes_by_what_is_due_longest(board: Board) {
    let board = board.own().await;
    let letters = [later(2), later(1), later(3)].map(|created_at| NewLetter { created_at, ..to_nobody() });
    for letter in &letters {
        insert(&board, letter).await.unwrap();
    }
    for index in [1, 0, 2] {
        assert_eq!(take(&board, later(9)).await.unwrap().to, letters[index].to);
    }
}

async fn take_leaves_what_a_newer_version_put_in(board: Board) {
    let board = board.own().await;
    insert(&board, &to_nobody()).await.unwrap();
    for newer in ["topic = 'from_the_future'", "topic = 'reset_password', language = 'de'"] {
        board.sql(&format!("UPDATE outbox SET {newer}")).await;
        assert_eq!((due(&board, noon()).await, take(&board, noon()).await), (false, None), "{newer}");
    }
    let letter = to_nobody();
    insert(&board, &letter).await.unwrap();
    assert_eq!(take(&board, noon()).await.unwrap().to, letter.to);
    assert_eq!(board.reader().outbox().count().await.unwrap(), 2);
}

async fn postpone_lets_it_wait(board: Board) {
    let board = board.own().await;
    insert(&board, &to_nobody()).await.unwrap();
    let letter = take(&board, noon()).await.unwrap();
    board.unit(async |unit| unit.outbox().postpone(&letter, later(5)).await).await.unwrap();
    assert_eq!(take(&board, later(4)).await, None);
    assert_eq!(take(&board, later(5)).await, Some(QueuedLetter { attempts: 2, ..letter }));
}

async fn postpone_has_no_effect_where_it_was_taken_again(board: Board) {
    let board = board.own().await;
    insert(&board, &to_nobody()).await.unwrap();
    let slow = take(&board, noon()).await.unwrap();
    let end = noon().plus(LEASE);
    take(&board, end).await.unwrap();
    board.unit(async |unit| unit.outbox().postpone(&slow, noon()).await).await.unwrap();
    assert!(!due(&board, end).await, "the second one's lease still holds");
    board.unit(async |unit| unit.outbox().delete(slow.id).await).await.unwrap();
    board.unit(async |unit| unit.outbox().postpone(&slow, noon()).await).await.unwrap();
    assert_eq!(board.reader().outbox().count().await.unwrap(), 0);
}

async fn delete_forgets_one_and_is_no_error_where_it_is_gone(board: Board) {
    let board = board.own().await;
    for _ in 0..2 {
        insert(&board, &to_nobody()).await.unwrap();
    }
    let letter = take(&board, noon()).await.unwrap();
    for id in [letter.id, letter.id, LetterId::new(1 << 52)] {
        board.unit(async |unit| unit.outbox().delete(id).await).await.unwrap();
        assert_eq!(board.reader().outbox().count().await.unwrap(), 1);
    }
}

async fn delete_all_of_forgets_what_is_about_an_account_or_to_its_address(board: Board) {
    let board = board.own().await;
    let (user, other) = (board.user().await, board.user().await);
    let to = |to: &str, user: Option<UserId>| NewLetter { to: Email::parse(to).unwrap(), user, ..to_nobody() };
    for letter in [
        to("before@example.com", Some(user.id)),
        to(user.email.as_str(), Some(user.id)),
        to(&user.email.as_str().to_uppercase(), None),
    ] {
        insert(&board, &letter).await.unwrap();
    }
    let spared = [to(other.email.as_str(), None), to("elsewhere@example.com", Some(other.id))];
    for letter in &spared {
        insert(&board, letter).await.unwrap();
    }
    for _ in 0..2 {
        board.unit(async |unit| unit.outbox().delete_all_of(user.id).await).await.unwrap();
        assert_eq!(board.reader().outbox().count().await.unwrap(), 2);
    }
    for letter in spared {
        assert_eq!(take(&board, noon()).await.unwrap().to, letter.to);
    }
}

async fn delete_tokens_to_forgets_what_only_its_reader_could_use(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    let to = |to: &str, topic: Topic, user: Option<UserId>| NewLetter {
        to: Email::parse(to).unwrap(),
        topic,
        user,
        ..to_nobody()
    };
    for letter in [
        to("before@example.com", Topic::VerifyEmail, Some(user.id)),
        to("Before@EXAMPLE.com", Topic::ResetPassword, None),
    ] {
        insert(&board, &letter).await.unwrap();
    }
    let spared = [
        to("before@example.com", Topic::EmailChanged, Some(user.id)),
        to("before@example.com", Topic::PasswordChanged, Some(user.id)),
        to("elsewhere@example.com", Topic::ResetPassword, None),
    ];
    for letter in &spared {
        insert(&board, letter).await.unwrap();
    }
    let before = Email::parse("before@example.com").unwrap();
    for _ in 0..2 {
        board.unit(async |unit| unit.outbox().delete_tokens_to(&before).await).await.unwrap();
        assert_eq!(board.reader().outbox().count().await.unwrap(), 3);
    }
    for letter in spared {
        let taken = take(&board, noon()).await.unwrap();
        assert_eq!((taken.to, taken.topic), (letter.to, letter.topic));
    }
}

async fn times_come_back_to_the_microsecond(board: Board) {
    let board = board.own().await;
    for time in times() {
        insert(&board, &NewLetter { created_at: time, ..to_nobody() }).await.unwrap();
        // Until then, which may be the end of the calendar.
        let taken = board.unit(async |unit| unit.outbox().take(time, time).await).await;
        let letter = taken.unwrap().unwrap();
        assert_eq!(letter.created_at, time);
        assert_eq!(take(&board, noon()).await.is_some(), time <= noon());
        board.unit(async |unit| unit.outbox().delete(letter.id).await).await.unwrap();
    }
}

async fn take_puts_a_row_that_breaks_a_rule_aside(board: Board) {
    let board = board.own().await;
    // More than one taker looks at, and before all others.
    for _ in 0..20 {
        insert(&board, &to_nobody()).await.unwrap();
    }
    board.sql("UPDATE outbox SET email = 'rubbish' WHERE letter_id % 2 = 0").await;
    board.sql("UPDATE outbox SET attempts = -1 WHERE letter_id % 2 = 1").await;
    let letter = NewLetter { created_at: later(1), ..to_nobody() };
    insert(&board, &letter).await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.extend(take(&board, later(1)).await);
    }
    assert_eq!(taken.iter().map(|taken| &taken.to).collect::<Vec<_>>(), [&letter.to]);
    // Nobody is kept busy by them, and nothing of them is lost.
    assert!(!due(&board, later(1)).await);
    assert_eq!(board.reader().outbox().count().await.unwrap(), 21);
}
