//! Doing something once.

use mundap_domain::Housekeeping;
use mundap_domain::comment::CommentDraft;
use mundap_domain::error::StoreError;
use mundap_domain::idempotency::{IdempotencyKey, Outcome, Receipt};
use mundap_domain::qna::{QnaDraft, QnaId};
use mundap_domain::testing::{a_comment, a_qna, a_user, board, noon};
use mundap_domain::user::{Role, UserId};
use mundap_domain::version::Version;
use std::sync::{Arc, Mutex};

use crate::stage::{Stage, Tape, code, contention, duplicate, member, unavailable};

fn key() -> IdempotencyKey {
    IdempotencyKey::parse("k-1").expect("a key")
}

fn draft(title: &str) -> QnaDraft {
    QnaDraft::parse(Some(title), Some("I have read the README.")).expect("a draft")
}

/// What a first request leaves behind.
async fn receipt_of_a_first_request() -> Receipt {
    let mut stage = Stage::default();
    let kept = Arc::new(Mutex::new(None));
    stage.outside.receipts.expect_find().returning(|_, _| Ok(None));
    stage.inside.qnas.expect_insert().returning(|new| Ok(new.clone().stored(QnaId::new(7))));
    let keep = kept.clone();
    stage.inside.receipts.expect_insert().returning(move |receipt| {
        *keep.lock().expect("a lock") = Some(receipt.clone());
        Ok(())
    });
    let asked = stage.services().qnas.ask(&member(1), &draft("How do I start?"), Some(&key())).await.expect("asked");
    assert!(matches!(asked, Outcome::Fresh(qna) if *qna == *a_qna(7, 1)));
    let receipt = kept.lock().expect("a lock").take();
    receipt.expect("a receipt")
}

#[tokio::test]
async fn the_receipt_is_stored_in_the_unit_that_creates() {
    let mut stage = Stage::default();
    let tape = stage.tape.clone();
    let note = |tape: &Tape, what: &'static str| {
        let tape = tape.clone();
        move || tape.note(what)
    };
    let (find, create, remember) = (note(&tape, "find"), note(&tape, "insert"), note(&tape, "remember"));
    stage.outside.receipts.expect_find().returning(move |_, _| {
        find();
        Ok(None)
    });
    stage.inside.qnas.expect_insert().returning(move |new| {
        create();
        Ok(new.clone().stored(QnaId::new(7)))
    });
    stage.inside.receipts.expect_insert().returning(move |receipt| {
        remember();
        assert_eq!((receipt.id, receipt.claimant.get(), receipt.created_at), (7, 1, noon()));
        Ok(())
    });
    stage.services().qnas.ask(&member(1), &draft("x"), Some(&key())).await.unwrap();
    assert_eq!(tape, ["find", "begin", "insert", "remember", "commit"]);
}

#[tokio::test]
async fn without_a_key_nothing_is_looked_for_or_remembered() {
    let mut stage = Stage::default();
    stage.inside.qnas.expect_insert().returning(|new| Ok(new.clone().stored(QnaId::new(7))));
    let asked = stage.services().qnas.ask(&member(1), &draft("x"), None).await.unwrap();
    assert!(!asked.is_replayed());
}

#[tokio::test]
async fn a_repetition_gets_the_first_answer_and_opens_no_unit() {
    let receipt = receipt_of_a_first_request().await;
    let mut mocks = mundap_domain::testing::Mocks::default();
    mocks.receipts.expect_find().returning(move |_, _| Ok(Some(receipt.clone())));
    let board = board(mocks);
    // The name has changed since; the answer is the one of then.
    let mut renamed = (*a_user(1, Role::Member)).clone();
    renamed.display_name = mundap_domain::user::DisplayName::parse("renamed").unwrap();
    let by = mundap_domain::user::User::restore(renamed).into();
    let asked = board.services.qnas.ask(&by, &draft("How do I start?"), Some(&key())).await.unwrap();
    assert_eq!(asked, Outcome::Replayed(a_qna(7, 1)));
    assert_eq!((board.store.begun(), asked.get().version), (0, Version::FIRST));
}

#[tokio::test]
async fn the_same_key_with_something_else_is_refused() {
    let receipt = receipt_of_a_first_request().await;
    let mut mocks = mundap_domain::testing::Mocks::default();
    mocks.receipts.expect_find().returning(move |_, _| Ok(Some(receipt.clone())));
    let board = board(mocks);
    let other = board.services.qnas.ask(&member(1), &draft("Something else"), Some(&key())).await;
    assert_eq!(code(other), "idempotency_key_reused");
    // The same words below a QnA are something else too.
    let comment = CommentDraft::parse(Some("How do I start?")).unwrap();
    let below = board.services.comments.write(&member(1), QnaId::new(7), &comment, Some(&key())).await;
    assert_eq!(code(below), "idempotency_key_reused");
    assert_eq!(board.store.begun(), 0);
}

#[tokio::test]
async fn the_same_letters_in_other_fields_are_something_else() {
    let receipt = receipt_of_a_first_request().await;
    let mut mocks = mundap_domain::testing::Mocks::default();
    mocks.receipts.expect_find().returning(move |_, _| Ok(Some(receipt.clone())));
    let services = board(mocks).services;
    for (title, content, outcome) in [
        ("How do I start?", "I have read the README.", "ok"),
        ("How do I start", "?I have read the README.", "idempotency_key_reused"),
        ("How do I start?I", " have read the README.", "idempotency_key_reused"),
        ("How do I start?I have read the README.", "", "idempotency_key_reused"),
    ] {
        let draft = QnaDraft::parse(Some(title), Some(content)).unwrap();
        assert_eq!(code(services.qnas.ask(&member(1), &draft, Some(&key())).await), outcome, "{title:?}");
    }
}

#[tokio::test]
async fn an_outcome_is_forgotten_after_a_day() {
    let mut receipt = receipt_of_a_first_request().await;
    receipt.created_at = noon().plus(-mundap_domain::idempotency::REMEMBERED);
    let mut stage = Stage::default();
    let old = receipt.clone();
    stage.outside.receipts.expect_find().returning(move |_, _| Ok(Some(receipt.clone())));
    stage.inside.receipts.expect_delete().withf(move |receipt| *receipt == old).times(1).returning(|_| Ok(()));
    stage.inside.qnas.expect_insert().returning(|new| Ok(new.clone().stored(QnaId::new(8))));
    stage.inside.receipts.expect_insert().times(1).returning(|_| Ok(()));
    let asked = stage.services().qnas.ask(&member(1), &draft("Something else"), Some(&key())).await.unwrap();
    assert!(!asked.is_replayed());
}

#[tokio::test]
async fn the_slower_of_two_gets_the_answer_of_the_faster() {
    let receipt = receipt_of_a_first_request().await;
    let mut stage = Stage::default();
    let tape = stage.tape.clone();
    let mut looks = 0;
    stage.outside.receipts.expect_find().returning(move |_, _| {
        looks += 1;
        Ok((looks > 1).then(|| receipt.clone()))
    });
    stage.inside.qnas.expect_insert().returning(|new| Ok(new.clone().stored(QnaId::new(8))));
    stage.inside.receipts.expect_insert().returning(|_| Err(duplicate()));
    let asked = stage.services().qnas.ask(&member(1), &draft("How do I start?"), Some(&key())).await.unwrap();
    assert_eq!(asked, Outcome::Replayed(a_qna(7, 1)));
    assert_eq!(tape, ["begin", "rollback", "pause 1"]);
}

#[tokio::test]
async fn while_the_first_still_runs_the_second_is_told_so() {
    let mut stage = Stage::default();
    stage.outside.receipts.expect_find().returning(|_, _| Ok(None));
    stage.inside.qnas.expect_insert().returning(|new| Ok(new.clone().stored(QnaId::new(8))));
    stage.inside.receipts.expect_insert().returning(|_| Err(contention()));
    let asked = stage.services().qnas.ask(&member(1), &draft("x"), Some(&key())).await;
    assert_eq!(code(asked), "idempotency_key_in_use");
}

#[tokio::test]
async fn what_fails_because_the_first_came_between_is_a_repetition() {
    // The first comment is there and its QnA was deleted since: the second cannot be counted, and need not be.
    let mut stage = Stage::default();
    let kept = Arc::new(Mutex::new(None::<Receipt>));
    let (found, keep) = (kept.clone(), kept.clone());
    stage.outside.receipts.expect_find().returning(move |_, _| Ok(found.lock().unwrap().clone()));
    stage.inside.qnas.expect_count_comments().returning(|_, _| Ok(true));
    stage.inside.comments.expect_insert().returning(|new| Ok(new.clone().stored(a_comment(5, 7, 1).id)));
    stage.inside.receipts.expect_insert().returning(move |receipt| {
        *keep.lock().unwrap() = Some(receipt.clone());
        Ok(())
    });
    let comment = CommentDraft::parse(Some("Read it again.")).unwrap();
    stage.services().comments.write(&member(1), QnaId::new(7), &comment, Some(&key())).await.unwrap();
    let receipt = kept.lock().unwrap().clone().expect("a receipt");

    let mut stage = Stage::default();
    let mut looks = 0;
    stage.outside.receipts.expect_find().returning(move |_, _| {
        looks += 1;
        Ok((looks > 1).then(|| receipt.clone()))
    });
    stage.inside.qnas.expect_count_comments().returning(|_, _| Ok(false));
    let again = stage.services().comments.write(&member(1), QnaId::new(7), &comment, Some(&key())).await.unwrap();
    assert_eq!(again, Outcome::Replayed(a_comment(5, 7, 1)));
}

/// The next try looks by itself, and where there is none the database is away.
#[tokio::test]
async fn what_fails_by_the_database_is_not_looked_for_again() {
    for (fault, outcome, expected) in [
        (unavailable as fn() -> StoreError, "database_unavailable", &["look", "begin"][..]),
        (
            contention,
            "busy",
            &["look", "begin", "pause 1", "look", "begin", "pause 2", "look", "begin", "pause 3", "look", "begin"],
        ),
    ] {
        let mut stage = Stage { begin: Box::new(move || Some(fault())), ..Stage::default() };
        let tape = stage.tape.clone();
        stage.outside.receipts.expect_find().returning(move |_, _| {
            tape.note("look");
            Ok(None)
        });
        let tape = stage.tape.clone();
        assert_eq!(code(stage.services().qnas.ask(&member(1), &draft("x"), Some(&key())).await), outcome);
        assert_eq!(tape.read(), expected);
    }
}

#[tokio::test]
async fn housekeeping_forgets_what_is_older_than_a_day() {
    let mut stage = Stage::default();
    let tape = stage.tape.clone();
    let mut left = 2 * Housekeeping::ROWS + 3;
    stage.inside.receipts.expect_delete_older().returning(move |before, most| {
        assert_eq!(before, noon().plus(-mundap_domain::idempotency::REMEMBERED));
        let gone = left.min(most);
        left -= gone;
        Ok::<_, StoreError>(gone)
    });
    stage.inside.mail_tokens.expect_delete_expired().returning(|now, _| {
        assert_eq!(now, noon());
        Ok::<_, StoreError>(4)
    });
    stage.inside.rates.expect_delete_empty().returning(|now, _| {
        assert_eq!(now, noon());
        Ok::<_, StoreError>(2)
    });
    stage.outside.receipts.expect_erased_claimants().returning(|_, _| Ok(Vec::new()));
    assert_eq!(stage.services().housekeeping.sweep().await.unwrap(), 2 * Housekeeping::ROWS + 9);
    // Whatever has piled up goes in pieces: three of the receipts, and one of each of the others.
    assert_eq!(tape.read(), [["begin", "commit"]; 5].concat());
}

#[tokio::test]
async fn housekeeping_forgets_the_receipts_that_a_deleted_account_has_all_the_same() {
    let mut stage = Stage::default();
    stage.inside.receipts.expect_delete_older().returning(|_, _| Ok(0));
    stage.inside.mail_tokens.expect_delete_expired().returning(|_, _| Ok(0));
    stage.inside.rates.expect_delete_empty().returning(|_, _| Ok(0));
    stage.outside.receipts.expect_erased_claimants().returning(|since, _| {
        assert_eq!(since, noon().plus(-mundap_domain::idempotency::REMEMBERED));
        Ok(vec![UserId::new(3), UserId::new(5)])
    });
    let tape = stage.tape.clone();
    stage.inside.receipts.expect_delete_all_of().returning(move |user| {
        tape.note(format!("forget {user}"));
        Ok(())
    });
    let tape = stage.tape.clone();
    stage.services().housekeeping.sweep().await.unwrap();
    assert_eq!(tape.read()[6..], ["begin", "forget 3", "forget 5", "commit"]);
}

#[test]
fn a_key_is_visible_ascii() {
    for (text, good) in [
        ("a", true),
        (&"k".repeat(255), true),
        (&"k".repeat(256), false),
        ("", false),
        ("a b", false),
        ("a\n", false),
        ("한국어", false),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", true),
    ] {
        assert_eq!(IdempotencyKey::parse(text).is_some(), good, "{text:?}");
    }
}
