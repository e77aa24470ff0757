//! What is told of what happened: each thing once, and only once it is committed.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mundap_domain::event::Event;
use mundap_domain::qna::{QnaDraft, QnaEdit};
use mundap_domain::rate::Policy;
use mundap_domain::testing::{Heard, Mocks, a_qna, a_user, board};
use mundap_domain::user::Role;
use mundap_domain::version::Expected;

use crate::stage::{Stage, code, contention, member, unavailable};

fn a_draft() -> QnaDraft {
    QnaDraft::parse(Some("Who counts?"), Some("")).expect("a draft")
}

#[tokio::test]
async fn a_question_is_told_of_once_however_often_it_was_tried() {
    let events = Arc::new(Heard::default());
    let mut stage = Stage { events: events.clone(), ..Stage::default() };
    stage.inside.qnas.expect_insert().returning(|new| Ok(new.clone().stored(a_qna(7, 1).id)));
    let mut tries = 0;
    stage.commit = Box::new(move || {
        tries += 1;
        (tries < 3).then(contention)
    });
    assert_eq!(code(stage.services().qnas.ask(&member(1), &a_draft(), None).await), "ok");
    assert_eq!(events.events(), [Event::Asked]);
}

#[tokio::test]
async fn what_is_not_committed_is_not_told_of() {
    let events = Arc::new(Heard::default());
    let mut stage = Stage { events: events.clone(), ..Stage::default() };
    stage.inside.qnas.expect_insert().returning(|new| Ok(new.clone().stored(a_qna(7, 1).id)));
    stage.inside.qnas.expect_find_locked().returning(|_| Ok(Some(a_qna(7, 1))));
    stage.inside.qnas.expect_update().returning(|_| Ok(()));
    stage.inside.qnas.expect_delete().returning(|_, _| Ok(()));
    stage.commit = Box::new(|| Some(unavailable()));
    let (services, id) = (stage.services(), a_qna(7, 1).id);
    let edit = QnaEdit::parse(Some("Nobody?"), None).expect("an edit");
    assert_eq!(code(services.qnas.ask(&member(1), &a_draft(), None).await), "database_unavailable");
    assert_eq!(code(services.qnas.edit(&member(1), id, &edit, &Expected::Any).await), "database_unavailable");
    assert_eq!(code(services.qnas.delete(&member(1), id, &Expected::Any).await), "database_unavailable");
    assert_eq!(events.events(), []);
}

#[tokio::test]
async fn what_changes_nothing_is_not_told_of() {
    let mut mocks = Mocks::default();
    mocks.qnas.expect_find_locked().returning(|_| Ok(Some(a_qna(7, 1))));
    mocks.qnas.expect_update().returning(|_| Ok(()));
    let board = board(mocks);
    let id = a_qna(7, 1).id;
    let nothing = QnaEdit::default();
    assert_eq!(code(board.services.qnas.edit(&member(1), id, &nothing, &Expected::Any).await), "ok");
    assert_eq!(board.events.events(), []);
    let edit = QnaEdit::parse(Some("Something"), None).expect("an edit");
    assert_eq!(code(board.services.qnas.edit(&member(2), id, &edit, &Expected::Any).await), "not_author");
    assert_eq!(board.events.events(), []);
    assert_eq!(code(board.services.qnas.edit(&member(1), id, &edit, &Expected::Any).await), "ok");
    assert_eq!(board.events.events(), [Event::QnaEdited]);
}

#[tokio::test]
async fn a_wrong_password_is_told_of_and_a_database_that_is_away_is_not() {
    let mut mocks = Mocks::default();
    mocks.users.expect_find_by_email().returning(|_| Ok(Some(a_user(1, Role::Member))));
    mocks.users.expect_password_hash().returning(|_| Ok(None));
    mocks.passwords.expect_verify().returning(|_, _| Ok(false));
    let board = board(mocks);
    let refused = board.services.accounts.sign_in("user1@example.com", "a wrong one").await;
    assert_eq!(code(refused), "invalid_credentials");
    assert_eq!(board.events.events(), [Event::SignInRefused]);

    let mut mocks = Mocks::default();
    mocks.users.expect_find_by_email().returning(|_| Err(unavailable()));
    let board = mundap_domain::testing::board(mocks);
    let failed = board.services.accounts.sign_in("user1@example.com", "a right one").await;
    assert_eq!(code(failed), "database_unavailable");
    assert_eq!(board.events.events(), []);
}

#[tokio::test]
async fn a_refresh_token_that_is_not_good_is_told_of_and_a_database_that_is_away_is_not() {
    let token = URL_SAFE_NO_PAD.encode([7; 64]);
    let mut mocks = Mocks::default();
    mocks.sign_ins.expect_find_locked().returning(|_| Ok(None));
    let known_by_nobody = board(mocks);
    assert_eq!(code(known_by_nobody.services.accounts.refresh(&token).await), "invalid_refresh_token");
    assert_eq!(known_by_nobody.events.events(), [Event::RenewalRefused]);
    assert_eq!(code(known_by_nobody.services.accounts.refresh("no token").await), "invalid_refresh_token");
    assert_eq!(known_by_nobody.events.events(), [Event::RenewalRefused; 2]);

    let mut mocks = Mocks::default();
    mocks.sign_ins.expect_find_locked().returning(|_| Err(unavailable()));
    let away = board(mocks);
    assert_eq!(code(away.services.accounts.refresh(&token).await), "database_unavailable");
    assert_eq!(away.events.events(), []);
}

#[test]
fn each_event_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = Event::all().map(Event::name).collect();
    // All limits are one event, told apart by their policies.
    assert_eq!(names.len(), Event::all().count() - Policy::ALL.len() + 1);
    for name in names {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
    }
}
