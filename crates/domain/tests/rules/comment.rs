//! Writing, reading, editing and deleting a comment, and the count that its question keeps.

use mockall::predicate::eq;
use mundap_domain::Actor;
use mundap_domain::comment::{
    Comment, CommentContent, CommentDraft, CommentEdit, CommentId, CommentRecord, NewComment,
};
use mundap_domain::qna::QnaId;
use mundap_domain::testing::{Board, Mocks, a_comment, an_author, board, noon};
use mundap_domain::version::{Expected, Version};

use crate::stage::{Stage, admin, banned, code, made_on, member, moderator};

const ID: CommentId = CommentId::new(5);
const QNA: QnaId = QnaId::new(7);

fn draft() -> CommentDraft {
    CommentDraft::parse(Some("I have.")).expect("a draft")
}

fn reworded() -> CommentEdit {
    CommentEdit::parse(Some("I have.")).expect("an edit")
}

/// Comment 5 of user 1 below QnA 7 in its second version, written a day ago.
fn stored() -> Comment {
    let then = mundap_domain::env::Timestamp::new(noon().as_utc() - chrono::TimeDelta::days(1));
    let record = (*a_comment(5, 7, 1)).clone();
    Comment::restore(CommentRecord { version: Version::new(2), created_at: then, updated_at: then, ..record })
}

fn holding() -> Mocks {
    let mut mocks = Mocks::default();
    mocks.comments.expect_find_locked().with(eq(ID)).returning(|_| Ok(Some(stored())));
    mocks.comments.expect_find().with(eq(ID)).returning(|_| Ok(Some(stored())));
    mocks
}

#[tokio::test]
async fn a_comment_is_counted_and_then_stored_under_its_author_at_the_time_of_the_clock() {
    let content = CommentContent::parse("I have.").unwrap();
    let new = NewComment { qna: QNA, author: an_author(3), content, created_at: noon() };
    let mut stage = Stage::default();
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_count_comments().with(eq(QNA), eq(1)).once().returning(move |_, _| {
        tape.note("count");
        Ok(true)
    });
    let tape = stage.tape.clone();
    stage.inside.comments.expect_insert().with(eq(new)).once().returning(move |_| {
        tape.note("insert");
        Ok(a_comment(5, 7, 3))
    });
    let tape = stage.tape.clone();
    let written = stage.services().comments.write(&member(3), QNA, &draft(), None).await.unwrap().into_inner();
    assert_eq!(written, a_comment(5, 7, 3), "as it was stored");
    assert_eq!(tape, ["begin", "count", "insert", "commit"]);
}

#[tokio::test]
async fn whoever_may_post_may_comment_on_anybodys_question() {
    for by in [member(9), moderator(9), admin(9)] {
        let mut mocks = Mocks::default();
        mocks.qnas.expect_count_comments().once().returning(|_, _| Ok(true));
        mocks.comments.expect_insert().once().returning(|_| Ok(a_comment(5, 7, 9)));
        let Board { services, store, .. } = board(mocks);
        assert_eq!(code(services.comments.write(&by, QNA, &draft(), None).await), "ok", "{by:?}");
        assert_eq!((store.begun(), store.commits()), (1, 1));
    }
}

#[tokio::test]
async fn nothing_is_written_below_a_question_that_is_not_there() {
    let mut stage = Stage::default();
    stage.inside.qnas.expect_count_comments().with(eq(QNA), eq(1)).once().returning(|_, _| Ok(false));
    let tape = stage.tape.clone();
    assert_eq!(code(stage.services().comments.write(&member(1), QNA, &draft(), None).await), "qna_not_found");
    assert_eq!(tape, ["begin", "rollback"]);
}

#[tokio::test]
async fn a_comment_is_read_as_it_is_stored() {
    let mut stage = Stage::default();
    stage.outside.comments.expect_find().with(eq(ID)).returning(|_| Ok(Some(stored())));
    stage.outside.comments.expect_find().with(eq(CommentId::new(6))).returning(|_| Ok(None));
    let services = stage.services();
    assert_eq!(services.comments.read(&Actor::Anonymous, ID).await.unwrap(), stored());
    assert_eq!(code(services.comments.read(&Actor::Anonymous, CommentId::new(6)).await), "comment_not_found");
}

#[tokio::test]
async fn an_edit_stores_the_changed_comment_in_its_next_version() {
    let changed = Comment::restore(CommentRecord {
        content: CommentContent::parse("I have.").unwrap(),
        updated_at: noon(),
        version: Version::new(3),
        ..(*stored()).clone()
    });
    let mut stage = Stage::default();
    let tape = stage.tape.clone();
    stage.inside.comments.expect_find_locked().with(eq(ID)).once().returning(move |_| {
        tape.note("find");
        Ok(Some(stored()))
    });
    let tape = stage.tape.clone();
    stage.inside.comments.expect_update().with(eq(changed.clone())).once().returning(move |_| {
        tape.note("update");
        Ok(())
    });
    let tape = stage.tape.clone();
    let edited = stage.services().comments.edit(&member(1), ID, &reworded(), &made_on(2)).await.unwrap();
    assert_eq!(edited, changed);
    assert_eq!(tape, ["begin", "find", "update", "commit"], "editing does not touch the count");
}

/// By whom, on which version, and how that ends.
fn attempts() -> [(&'static str, Actor, Expected, &'static str); 11] {
    [
        ("the author", member(1), Expected::Any, "ok"),
        ("the author, on the current version", member(1), made_on(2), "ok"),
        ("the author, on an old version", member(1), made_on(1), "version_mismatch"),
        ("the author, on no version", member(1), Expected::OneOf(vec![]), "version_mismatch"),
        ("a stranger", member(2), Expected::Any, "not_author"),
        ("a stranger, on an old version", member(2), made_on(1), "not_author"),
        // Comment 5 stands below QnA 7: nobody is its author for being called 5 or 7.
        ("user 5", member(5), Expected::Any, "not_author"),
        ("user 7", member(7), Expected::Any, "not_author"),
        ("a moderator", moderator(2), made_on(2), "ok"),
        ("an administrator", admin(2), made_on(2), "ok"),
        ("an administrator, on an old version", admin(2), made_on(1), "version_mismatch"),
    ]
}

#[tokio::test]
async fn who_may_edit_and_on_which_version() {
    for (who, by, expected, outcome) in attempts() {
        let mut mocks = holding();
        if outcome == "ok" {
            mocks.comments.expect_update().once().returning(|_| Ok(()));
        }
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(code(services.comments.edit(&by, ID, &reworded(), &expected).await), outcome, "{who}");
        assert_eq!(store.commits(), usize::from(outcome == "ok"), "{who}");
        assert_eq!(clock.pauses(), 0, "{who}: a refusal is not tried again");
    }
}

#[tokio::test]
async fn an_edit_that_names_nothing_is_refused_like_any_other_and_writes_nothing() {
    for (who, by, expected, outcome) in attempts() {
        let Board { services, store, .. } = board(holding());
        let edited = services.comments.edit(&by, ID, &CommentEdit::default(), &expected).await;
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
            mocks.qnas.expect_count_comments().with(eq(QNA), eq(-1)).once().returning(|_, _| Ok(true));
            mocks.comments.expect_delete().with(eq(ID), eq(Version::new(2))).once().returning(|_, _| Ok(()));
        }
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(code(services.comments.delete(&by, ID, &expected).await), outcome, "{who}");
        assert_eq!(store.commits(), usize::from(outcome == "ok"), "{who}");
        assert_eq!(clock.pauses(), 0, "{who}: a refusal is not tried again");
    }
}

/// QnA before comment, as writing one locks them: the other way round two of them can deadlock.
#[tokio::test]
async fn a_deletion_counts_down_before_it_deletes() {
    let mut stage = Stage::default();
    stage.inside.comments.expect_find().returning(|_| Ok(Some(stored())));
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_count_comments().with(eq(QNA), eq(-1)).once().returning(move |_, _| {
        tape.note("count");
        Ok(true)
    });
    let tape = stage.tape.clone();
    stage.inside.comments.expect_delete().once().returning(move |_, _| {
        tape.note("delete");
        Ok(())
    });
    let tape = stage.tape.clone();
    assert_eq!(code(stage.services().comments.delete(&member(1), ID, &Expected::Any).await), "ok");
    assert_eq!(tape, ["begin", "count", "delete", "commit"]);
}

#[tokio::test]
async fn a_comment_that_is_not_there_can_be_neither_edited_nor_deleted() {
    for edit in [reworded(), CommentEdit::default()] {
        let mut mocks = Mocks::default();
        mocks.comments.expect_find_locked().returning(|_| Ok(None));
        mocks.comments.expect_find().returning(|_| Ok(None));
        let Board { services, store, .. } = board(mocks);
        assert_eq!(code(services.comments.edit(&member(1), ID, &edit, &made_on(1)).await), "comment_not_found");
        assert_eq!(code(services.comments.delete(&member(1), ID, &made_on(1)).await), "comment_not_found");
        assert_eq!(store.commits(), 0);
    }
}

/// The entity itself keeps the rule: whoever holds a comment cannot change it past the table.
#[test]
fn the_entity_asks_the_table_itself() {
    let content = CommentContent::parse("I have.").unwrap();
    for (who, by, expected, outcome) in attempts() {
        let mut comment = stored();
        assert_eq!(code(comment.edit(&by, &expected, &content, noon())), outcome, "{who}");
        assert_eq!(comment == stored(), outcome != "ok", "{who}: a refused edit changes nothing");
    }
    for (by, outcome) in [(Actor::Anonymous, "unauthenticated"), (banned(1), "account_suspended")] {
        let mut comment = stored();
        assert_eq!(code(comment.edit(&by, &Expected::Any, &content, noon())), outcome);
        assert_eq!(comment, stored());
    }
}
