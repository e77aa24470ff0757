//! Asking, reading, editing and deleting a question.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use mockall::predicate::eq;
use mundap_domain::Actor;
use mundap_domain::qna::{Content, NewQna, Qna, QnaDraft, QnaEdit, QnaId, QnaRecord, Title};
use mundap_domain::testing::{Board, Mocks, a_qna, an_author, board, noon};
use mundap_domain::version::{Expected, Version};

use crate::stage::{Stage, admin, banned, code, duplicate, made_on, member, moderator};

fn draft() -> QnaDraft {
    QnaDraft::parse(Some("How do I stop?"), Some("It runs.")).expect("a draft")
}

fn retitled() -> QnaEdit {
    QnaEdit::parse(Some("How do I stop?"), None).expect("an edit")
}

/// QnA 7 of user 1 in its fifth version, asked a day ago.
fn stored() -> Qna {
    let day = chrono::TimeDelta::days(1);
    let then = mundap_domain::env::Timestamp::new(noon().as_utc() - day);
    let record = (*a_qna(7, 1)).clone();
    Qna::restore(QnaRecord { version: Version::new(5), comment_count: 3, created_at: then, updated_at: then, ..record })
}

/// A board that holds [`stored`] and expects nothing but that it is looked for.
fn holding() -> Mocks {
    let mut mocks = Mocks::default();
    mocks.qnas.expect_find_locked().with(eq(QnaId::new(7))).once().returning(|_| Ok(Some(stored())));
    mocks
}

#[tokio::test]
async fn a_question_is_stored_under_its_asker_at_the_time_of_the_clock() {
    let new = NewQna {
        author: an_author(3),
        title: Title::parse("How do I stop?").unwrap(),
        content: Content::parse("It runs.").unwrap(),
        created_at: noon(),
    };
    let mut stage = Stage::default();
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_insert().with(eq(new)).once().returning(move |_| {
        tape.note("insert");
        Ok(a_qna(7, 3))
    });
    let tape = stage.tape.clone();
    let asked = stage.services().qnas.ask(&member(3), &draft(), None).await.unwrap().into_inner();
    assert_eq!(asked, a_qna(7, 3), "as it was stored");
    assert_eq!(tape, ["begin", "insert", "commit"]);
}

#[tokio::test]
async fn whoever_may_post_may_ask() {
    for by in [member(1), moderator(1), admin(1)] {
        let mut mocks = Mocks::default();
        mocks.qnas.expect_insert().once().returning(|_| Ok(a_qna(7, 1)));
        let Board { services, store, .. } = board(mocks);
        assert_eq!(code(services.qnas.ask(&by, &draft(), None).await), "ok", "{by:?}");
        assert_eq!((store.begun(), store.commits()), (1, 1));
    }
}

#[tokio::test]
async fn a_question_that_the_store_refuses_is_not_asked() {
    let mut mocks = Mocks::default();
    mocks.qnas.expect_insert().once().returning(|_| Err(duplicate()));
    let Board { services, store, .. } = board(mocks);
    assert_eq!(code(services.qnas.ask(&member(1), &draft(), None).await), "internal_error");
    assert_eq!(store.commits(), 0);
}

#[tokio::test]
async fn a_question_is_read_as_it_is_stored() {
    let mut stage = Stage::default();
    stage.outside.qnas.expect_find().with(eq(QnaId::new(7))).returning(|_| Ok(Some(stored())));
    stage.outside.qnas.expect_find().with(eq(QnaId::new(8))).returning(|_| Ok(None));
    let services = stage.services();
    assert_eq!(services.qnas.read(&Actor::Anonymous, QnaId::new(7)).await.unwrap(), stored());
    assert_eq!(code(services.qnas.read(&Actor::Anonymous, QnaId::new(8)).await), "qna_not_found");
}

#[tokio::test]
async fn an_edit_stores_the_changed_question_in_its_next_version() {
    let changed = Qna::restore(QnaRecord {
        title: Title::parse("How do I stop?").unwrap(),
        updated_at: noon(),
        version: Version::new(6),
        ..(*stored()).clone()
    });
    let mut stage = Stage::default();
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_find_locked().with(eq(QnaId::new(7))).once().returning(move |_| {
        tape.note("find");
        Ok(Some(stored()))
    });
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_update().with(eq(changed.clone())).once().returning(move |_| {
        tape.note("update");
        Ok(())
    });
    let tape = stage.tape.clone();
    let edited = stage.services().qnas.edit(&member(1), QnaId::new(7), &retitled(), &made_on(5)).await.unwrap();
    assert_eq!(edited, changed);
    assert_eq!(tape, ["begin", "find", "update", "commit"]);
}

#[tokio::test]
async fn an_edit_changes_what_it_names_and_leaves_the_rest() {
    let (old, new) = (stored(), draft());
    for (title, content) in [(true, false), (false, true), (true, true)] {
        let edit = QnaEdit { title: title.then(|| new.title.clone()), content: content.then(|| new.content.clone()) };
        let mut mocks = holding();
        mocks.qnas.expect_update().once().returning(|_| Ok(()));
        let services = board(mocks).services;
        let edited = services.qnas.edit(&member(1), QnaId::new(7), &edit, &Expected::Any).await.unwrap();
        assert_eq!(edited.title, if title { &new.title } else { &old.title }.clone());
        assert_eq!(edited.content, if content { &new.content } else { &old.content }.clone());
        assert_eq!((edited.created_at, edited.comment_count), (old.created_at, old.comment_count));
        assert_eq!(edited.author, old.author);
    }
}

/// By whom, on which version, and how that ends.
fn attempts() -> [(&'static str, Actor, Expected, &'static str); 13] {
    [
        ("the author", member(1), Expected::Any, "ok"),
        ("the author, on the current version", member(1), made_on(5), "ok"),
        ("the author, on an old version", member(1), made_on(4), "version_mismatch"),
        ("the author, on a version to come", member(1), made_on(6), "version_mismatch"),
        ("the author, on no version", member(1), Expected::OneOf(vec![]), "version_mismatch"),
        ("a stranger", member(2), Expected::Any, "not_author"),
        ("a stranger, on the current version", member(2), made_on(5), "not_author"),
        ("a stranger, on an old version", member(2), made_on(4), "not_author"),
        ("a moderator", moderator(2), made_on(5), "ok"),
        ("a moderator, on an old version", moderator(2), made_on(4), "version_mismatch"),
        ("an administrator", admin(2), made_on(5), "ok"),
        ("an administrator, on an old version", admin(2), made_on(4), "version_mismatch"),
        ("the author, who became a moderator", moderator(1), Expected::Any, "ok"),
    ]
}

#[tokio::test]
async fn who_may_edit_and_on_which_version() {
    for (who, by, expected, outcome) in attempts() {
        let mut mocks = holding();
        if outcome == "ok" {
            mocks.qnas.expect_update().once().returning(|_| Ok(()));
        }
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(code(services.qnas.edit(&by, QnaId::new(7), &retitled(), &expected).await), outcome, "{who}");
        assert_eq!(store.commits(), usize::from(outcome == "ok"), "{who}");
        assert_eq!(clock.pauses(), 0, "{who}: a refusal is not tried again");
    }
}

#[tokio::test]
async fn an_edit_that_names_nothing_is_refused_like_any_other_and_writes_nothing() {
    for (who, by, expected, outcome) in attempts() {
        let Board { services, store, .. } = board(holding());
        let edited = services.qnas.edit(&by, QnaId::new(7), &QnaEdit::default(), &expected).await;
        if let Ok(unchanged) = &edited {
            assert_eq!(*unchanged, stored(), "{who}");
        }
        assert_eq!(code(edited), outcome, "{who}");
        assert_eq!((store.begun(), store.commits()), (1, 0), "{who}");
    }
}

#[tokio::test]
async fn who_may_delete_and_on_which_version() {
    for (who, by, expected, outcome) in attempts() {
        let mut mocks = holding();
        if outcome == "ok" {
            mocks.qnas.expect_delete().with(eq(QnaId::new(7)), eq(Version::new(5))).once().returning(|_, _| Ok(()));
        }
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(code(services.qnas.delete(&by, QnaId::new(7), &expected).await), outcome, "{who}");
        assert_eq!(store.commits(), usize::from(outcome == "ok"), "{who}");
        assert_eq!(clock.pauses(), 0, "{who}: a refusal is not tried again");
    }
}

#[tokio::test]
async fn a_deletion_takes_place_in_one_unit() {
    let mut stage = Stage::default();
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_find_locked().once().returning(move |_| {
        tape.note("find");
        Ok(Some(stored()))
    });
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_delete().once().returning(move |_, _| {
        tape.note("delete");
        Ok(())
    });
    let tape = stage.tape.clone();
    assert_eq!(code(stage.services().qnas.delete(&member(1), QnaId::new(7), &Expected::Any).await), "ok");
    assert_eq!(tape, ["begin", "find", "delete", "commit"]);
}

/// The question with 1,200 comments, and in `edited_at` looks by then edited once more.
fn holding_many(edited_at: usize) -> Stage {
    let mut stage = Stage::default();
    let left = Arc::new(AtomicI32::new(1_200));
    let (tape, count, mut looks) = (stage.tape.clone(), left.clone(), 0);
    stage.inside.qnas.expect_find_locked().returning(move |_| {
        looks += 1;
        tape.note("find");
        let version = Version::new(if looks < edited_at { 5 } else { 6 });
        Ok(Some(Qna::restore(QnaRecord {
            comment_count: count.load(Ordering::SeqCst),
            version,
            ..(*stored()).clone()
        })))
    });
    let (tape, count) = (stage.tape.clone(), left.clone());
    stage.inside.comments.expect_delete_some_of().returning(move |_, most| {
        tape.note("some");
        Ok(most.min(count.load(Ordering::SeqCst).try_into().expect("a count")))
    });
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_count_comments().returning(move |_, by| {
        tape.note(format!("count {by}"));
        left.fetch_add(by, Ordering::SeqCst);
        Ok(true)
    });
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_delete().returning(move |_, _| {
        tape.note("delete");
        Ok(())
    });
    stage
}

#[tokio::test]
async fn many_comments_go_in_pieces_before_their_question() {
    let stage = holding_many(usize::MAX);
    let (tape, events) = (stage.tape.clone(), stage.events.clone());
    assert_eq!(code(stage.services().qnas.delete(&member(1), QnaId::new(7), &made_on(5)).await), "ok");
    let piece = ["begin", "find", "some", "count -500", "commit"];
    assert_eq!(tape.read(), [&piece[..], &piece, &["begin", "find", "delete", "commit"]].concat());
    assert_eq!(events.events(), [mundap_domain::event::Event::QnaDeleted]);
}

#[tokio::test]
async fn a_delete_that_is_refused_takes_no_comment_along() {
    for (by, expected, outcome) in [(member(2), made_on(5), "not_author"), (member(1), made_on(4), "version_mismatch")]
    {
        let stage = holding_many(usize::MAX);
        let tape = stage.tape.clone();
        assert_eq!(code(stage.services().qnas.delete(&by, QnaId::new(7), &expected).await), outcome);
        assert_eq!(tape, ["begin", "find", "rollback"]);
    }
    // Somebody edits it meanwhile: it stays, as it would have if they had come first.
    let stage = holding_many(2);
    let tape = stage.tape.clone();
    assert_eq!(code(stage.services().qnas.delete(&member(1), QnaId::new(7), &made_on(5)).await), "version_mismatch");
    assert_eq!(tape, ["begin", "find", "some", "count -500", "commit", "begin", "find", "rollback"]);
}

#[tokio::test]
async fn a_count_of_comments_that_are_not_there_keeps_no_question_alive() {
    let mut stage = Stage::default();
    let many = || Qna::restore(QnaRecord { comment_count: 1_200, ..(*stored()).clone() });
    stage.inside.qnas.expect_find_locked().returning(move |_| Ok(Some(many())));
    stage.inside.comments.expect_delete_some_of().returning(|_, _| Ok(0));
    stage.inside.qnas.expect_delete().once().returning(|_, _| Ok(()));
    assert_eq!(code(stage.services().qnas.delete(&member(1), QnaId::new(7), &Expected::Any).await), "ok");
}

#[tokio::test]
async fn a_question_that_is_not_there_can_be_neither_edited_nor_deleted() {
    for edit in [retitled(), QnaEdit::default()] {
        let mut mocks = Mocks::default();
        mocks.qnas.expect_find_locked().returning(|_| Ok(None));
        let Board { services, store, .. } = board(mocks);
        let (id, by) = (QnaId::new(7), member(1));
        assert_eq!(code(services.qnas.edit(&by, id, &edit, &made_on(1)).await), "qna_not_found");
        assert_eq!(code(services.qnas.delete(&by, id, &made_on(1)).await), "qna_not_found");
        assert_eq!(store.commits(), 0);
    }
}

/// The entity itself keeps the rule: whoever holds a QnA cannot change it past the table.
#[test]
fn the_entity_asks_the_table_itself() {
    let edit = retitled();
    for (who, by, expected, outcome) in attempts() {
        let mut qna = stored();
        assert_eq!(code(qna.edit(&by, &expected, &edit, noon())), outcome, "{who}");
        assert_eq!(qna == stored(), outcome != "ok", "{who}: a refused edit changes nothing");
    }
    for (by, outcome) in [(Actor::Anonymous, "unauthenticated"), (banned(1), "account_suspended")] {
        let mut qna = stored();
        assert_eq!(code(qna.edit(&by, &Expected::Any, &edit, noon())), outcome);
        assert_eq!(qna, stored());
    }
}
