//! Profiles, the own account, roles.

use mockall::predicate::eq;
use mundap_domain::Actor;
use mundap_domain::mail::Language;
use mundap_domain::testing::{Board, Mocks, a_user, board, noon};
use mundap_domain::user::{DisplayName, Email, Role, User, UserEdit, UserId, UserRecord};
use mundap_domain::version::{Expected, Version};

use crate::stage::{Stage, admin, banned, code, duplicate, made_on, member, moderator, unavailable};

const ID: UserId = UserId::new(7);

fn renamed() -> UserEdit {
    UserEdit::parse(None, Some("new name")).expect("an edit")
}

fn address(raw: &str) -> Email {
    Email::parse(raw).expect("an address")
}

/// User 7 in the fourth version, last changed a day ago.
fn stored() -> User {
    let then = mundap_domain::env::Timestamp::new(noon().as_utc() - chrono::TimeDelta::days(1));
    let record = (*a_user(7, Role::Member)).clone();
    User::restore(UserRecord { version: Version::new(4), created_at: then, updated_at: then, ..record })
}

fn changed(change: impl FnOnce(&mut UserRecord)) -> User {
    let mut record = UserRecord { version: Version::new(5), updated_at: noon(), ..(*stored()).clone() };
    change(&mut record);
    User::restore(record)
}

fn holding() -> Mocks {
    let mut mocks = Mocks::default();
    mocks.users.expect_find_locked().with(eq(ID)).returning(|_| Ok(Some(stored())));
    mocks
}

#[tokio::test]
async fn a_profile_is_the_account() {
    let mut stage = Stage::default();
    stage.outside.users.expect_find().with(eq(ID)).once().returning(|_| Ok(Some(stored())));
    assert_eq!(stage.services().users.profile(&Actor::Anonymous, ID).await.unwrap(), stored());
}

#[tokio::test]
async fn a_deleted_account_has_no_profile() {
    let mut mocks = Mocks::default();
    mocks.users.expect_find().once().returning(|_| Ok(None));
    assert_eq!(code(board(mocks).services.users.profile(&admin(1), ID).await), "user_not_found");
}

#[tokio::test]
async fn the_own_account_is_read_as_it_is_stored_now() {
    for by in [member(7), banned(7)] {
        let mut stage = Stage::default();
        stage.outside.users.expect_find().with(eq(ID)).once().returning(|_| Ok(Some(stored())));
        assert_eq!(stage.services().users.me(&by).await.unwrap(), stored(), "not as it was when the request came");
    }
}

#[tokio::test]
async fn the_token_of_an_account_that_is_gone_is_not_valid() {
    let mut mocks = Mocks::default();
    mocks.users.expect_find().returning(|_| Ok(None));
    mocks.users.expect_find_locked().returning(|_| Ok(None));
    let Board { services, store, .. } = board(mocks);
    assert_eq!(code(services.users.me(&member(7)).await), "invalid_token");
    assert_eq!(
        code(services.users.edit_me(&member(7), &renamed(), &Expected::Any, Language::English).await),
        "invalid_token"
    );
    assert_eq!(store.commits(), 0);
}

#[tokio::test]
async fn an_edit_changes_what_it_names_of_the_own_account_and_leaves_the_rest() {
    let (name, email) = (DisplayName::parse("new name").unwrap(), address("New@example.com"));
    for (edit, result) in [
        (renamed(), changed(|user| user.display_name = name.clone())),
        (UserEdit::parse(Some("New@EXAMPLE.com"), None).unwrap(), changed(|user| user.email = email.clone())),
        (
            UserEdit::parse(Some("New@example.com"), Some("new name")).unwrap(),
            changed(|user| (user.email, user.display_name) = (email.clone(), name.clone())),
        ),
    ] {
        let mut stage = Stage::default();
        stage.inside.users.expect_find_locked().with(eq(ID)).once().returning(|_| Ok(Some(stored())));
        let tape = stage.tape.clone();
        stage.inside.users.expect_update().with(eq(result.clone())).once().returning(move |_| {
            tape.note("update");
            Ok(())
        });
        // What another address brings with it: see `mail`.
        stage.inside.mail_tokens.expect_delete_all_of().returning(|_| Ok(()));
        stage.inside.outbox.expect_delete_tokens_to().returning(|_| Ok(()));
        let tape = stage.tape.clone();
        let edited = stage.services().users.edit_me(&member(7), &edit, &made_on(4), Language::English).await.unwrap();
        assert_eq!(edited, result);
        assert_eq!(tape, ["begin", "update", "commit"]);
    }
}

#[tokio::test]
async fn an_edit_names_the_version_it_was_made_on() {
    for edit in [renamed(), UserEdit::default()] {
        for expected in [made_on(3), made_on(5), Expected::OneOf(vec![])] {
            let Board { services, store, clock, .. } = board(holding());
            assert_eq!(
                code(services.users.edit_me(&member(7), &edit, &expected, Language::English).await),
                "version_mismatch"
            );
            assert_eq!((store.commits(), clock.pauses()), (0, 0));
        }
    }
}

#[tokio::test]
async fn an_edit_that_names_nothing_writes_nothing_and_counts_no_version() {
    for expected in [Expected::Any, made_on(4)] {
        let Board { services, store, .. } = board(holding());
        let unchanged =
            services.users.edit_me(&member(7), &UserEdit::default(), &expected, Language::English).await.unwrap();
        assert_eq!(unchanged, stored());
        assert_eq!((store.begun(), store.commits()), (1, 0));
    }
}

#[tokio::test]
async fn an_address_that_another_account_has_is_taken() {
    let mut mocks = holding();
    mocks.users.expect_update().once().returning(|_| Err(duplicate()));
    let Board { services, store, clock, .. } = board(mocks);
    let edit = UserEdit::parse(Some("user8@example.com"), None).unwrap();
    assert_eq!(code(services.users.edit_me(&member(7), &edit, &Expected::Any, Language::English).await), "email_taken");
    assert_eq!((store.commits(), clock.pauses()), (0, 0), "refused, and not tried again");
}

/// The entity itself keeps the rule: an administrator changes roles, not names.
#[test]
fn nobody_edits_the_account_of_another() {
    for (who, by, expected, outcome) in [
        ("itself", member(7), Expected::Any, "ok"),
        ("itself, on an old version", member(7), made_on(3), "version_mismatch"),
        ("a member", member(1), Expected::Any, "not_author"),
        ("a moderator", moderator(1), Expected::Any, "not_author"),
        ("an administrator", admin(1), Expected::Any, "not_author"),
        ("an administrator, on an old version", admin(1), made_on(3), "not_author"),
        ("itself, suspended", banned(7), Expected::Any, "account_suspended"),
        ("nobody", Actor::Anonymous, Expected::Any, "unauthenticated"),
        ("the operator", Actor::Operator, Expected::Any, "unauthenticated"),
    ] {
        let mut user = stored();
        assert_eq!(code(user.edit(&by, &expected, &renamed(), noon())), outcome, "{who}");
        assert_eq!(user == stored(), outcome != "ok", "{who}: a refused edit changes nothing");
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_said_to_be_away() {
    let mut mocks = Mocks::default();
    mocks.users.expect_find().returning(|_| Err(unavailable()));
    let Board { services, clock, .. } = board(mocks);
    assert_eq!(code(services.users.me(&member(7)).await), "database_unavailable");
    assert_eq!(code(services.users.profile(&member(7), ID).await), "database_unavailable");
    assert_eq!(clock.pauses(), 0);
}
