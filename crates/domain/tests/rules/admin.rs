//! What administrators do, and that each use is written down.

use mockall::predicate::eq;
use mundap_domain::admin::{UserChange, UserListing};
use mundap_domain::audit::{Action, AuditEntry, AuditId, NewAuditEntry};
use mundap_domain::page::{Order, PageRequest, PageSize, Slice};
use mundap_domain::testing::{Board, Mocks, a_user, board, noon, suspended};
use mundap_domain::user::{Email, Role, User, UserId, UserRecord};
use mundap_domain::version::{Expected, Version};
use mundap_domain::{Actor, StoreError};

use crate::stage::{Stage, admin, banned, code, made_on, member, moderator};

const ID: UserId = UserId::new(7);

fn first() -> PageRequest {
    PageRequest::first(PageSize::DEFAULT)
}

fn stored() -> User {
    a_user(7, Role::Member)
}

/// The stored account after a change that counted a version.
fn changed(change: impl FnOnce(&mut UserRecord)) -> User {
    let mut record = (*stored()).clone();
    record.version = Version::new(2);
    record.updated_at = noon();
    change(&mut record);
    User::restore(record)
}

fn entry(by: &Actor, action: Action, target: Option<UserId>) -> NewAuditEntry {
    NewAuditEntry { actor: by.account().map(|user| user.id), action, target, created_at: noon() }
}

/// An administrator's row and that of the account in question.
fn rows(own: User, other: User) -> impl Fn(UserId) -> Result<Option<User>, StoreError> {
    move |id| Ok([&own, &other].into_iter().find(|user| user.id == id).cloned())
}

const PROMOTION: UserChange = UserChange { role: Some(Role::Moderator), suspended: None };
const SUSPENSION: UserChange = UserChange { role: None, suspended: Some(true) };

#[tokio::test]
async fn a_role_is_given_and_written_down_in_one_unit() {
    for by in [admin(1), Actor::Operator] {
        let result = changed(|user| user.role = Role::Moderator);
        let mut stage = Stage::default();
        if let Some(own) = by.account().cloned() {
            let expected = stage.inside.users.expect_find_locked().with(eq(own.id)).once();
            expected.returning(move |_| Ok(Some(own.clone())));
        }
        stage.inside.users.expect_find_locked().with(eq(ID)).once().returning(|_| Ok(Some(stored())));
        stage.inside.users.expect_update().with(eq(result.clone())).once().returning(|_| Ok(()));
        let action = Action::AssignedRole { from: Role::Member, to: Role::Moderator };
        let written = stage.inside.audit.expect_insert();
        written.with(eq(entry(&by, action, Some(ID)))).once().returning(|_| Ok(AuditId::new(1)));
        let tape = stage.tape.clone();
        let given = stage.services().admin.change_user(&by, ID, &PROMOTION, &made_on(1)).await.unwrap();
        assert_eq!(given, result);
        assert_eq!(tape, ["begin", "commit"]);
    }
}

#[tokio::test]
async fn a_suspension_ends_every_sign_in_and_is_written_down() {
    let mut stage = Stage::default();
    let result = changed(|user| user.suspended_at = Some(noon()));
    stage.inside.users.expect_find_locked().returning(rows(a_user(1, Role::Admin), stored()));
    stage.inside.users.expect_update().with(eq(result.clone())).once().returning(|_| Ok(()));
    stage.inside.sign_ins.expect_delete_all_of().with(eq(ID)).once().returning(|_| Ok(()));
    let written = stage.inside.audit.expect_insert();
    written.with(eq(entry(&admin(1), Action::Suspended, Some(ID)))).once().returning(|_| Ok(AuditId::new(1)));
    let tape = stage.tape.clone();
    let given = stage.services().admin.change_user(&admin(1), ID, &SUSPENSION, &Expected::Any).await.unwrap();
    assert_eq!(given, result);
    assert_eq!(tape, ["begin", "commit"]);
}

#[tokio::test]
async fn a_reinstated_account_is_signed_in_nowhere_new_and_it_is_written_down() {
    let mut stage = Stage::default();
    stage.inside.users.expect_find_locked().returning(rows(a_user(1, Role::Admin), suspended(&stored())));
    stage.inside.users.expect_update().with(eq(changed(|_| {}))).once().returning(|_| Ok(()));
    let written = stage.inside.audit.expect_insert();
    written.with(eq(entry(&admin(1), Action::Reinstated, Some(ID)))).once().returning(|_| Ok(AuditId::new(1)));
    let change = UserChange { role: None, suspended: Some(false) };
    assert_eq!(code(stage.services().admin.change_user(&admin(1), ID, &change, &Expected::Any).await), "ok");
}

#[tokio::test]
async fn a_change_to_what_is_so_already_changes_nothing() {
    for change in [
        UserChange::default(),
        UserChange { role: Some(Role::Member), suspended: None },
        UserChange { role: None, suspended: Some(false) },
        UserChange { role: Some(Role::Member), suspended: Some(false) },
    ] {
        let mut mocks = Mocks::default();
        mocks.users.expect_find_locked().returning(rows(a_user(1, Role::Admin), stored()));
        let Board { services, store, .. } = board(mocks);
        let given = services.admin.change_user(&admin(1), ID, &change, &Expected::Any).await.unwrap();
        assert_eq!(given, stored());
        assert_eq!(store.commits(), 0);
    }
}

#[tokio::test]
async fn a_change_made_on_another_version_is_refused() {
    let mut mocks = Mocks::default();
    mocks.users.expect_find_locked().returning(rows(a_user(1, Role::Admin), stored()));
    let Board { services, store, .. } = board(mocks);
    assert_eq!(code(services.admin.change_user(&admin(1), ID, &PROMOTION, &made_on(2)).await), "version_mismatch");
    assert_eq!(store.commits(), 0);
}

#[tokio::test]
async fn an_administrator_is_judged_by_what_they_are_when_the_account_is_locked() {
    for (own, outcome) in [
        (Some(a_user(1, Role::Member)), "not_admin"),
        (Some(suspended(&a_user(1, Role::Admin))), "account_suspended"),
        (None, "invalid_token"),
    ] {
        let mut mocks = Mocks::default();
        mocks.users.expect_find_locked().returning(move |id| Ok(if id == ID { Some(stored()) } else { own.clone() }));
        let Board { services, store, .. } = board(mocks);
        assert_eq!(code(services.admin.change_user(&admin(1), ID, &PROMOTION, &Expected::Any).await), outcome);
        assert_eq!(store.commits(), 0);
    }
}

#[tokio::test]
async fn accounts_are_locked_in_the_order_of_their_ids() {
    for (own, other) in [(1, 7), (7, 1)] {
        let mut stage = Stage::default();
        let tape = stage.tape.clone();
        stage.inside.users.expect_find_locked().returning(move |id| {
            tape.note(if id == UserId::new(1) { "lock 1" } else { "lock 7" });
            let role = if id == UserId::new(own) { Role::Admin } else { Role::Member };
            Ok(Some(a_user(id.get(), role)))
        });
        stage.inside.users.expect_update().returning(|_| Ok(()));
        stage.inside.audit.expect_insert().returning(|_| Ok(AuditId::new(1)));
        let tape = stage.tape.clone();
        let services = stage.services();
        services.admin.change_user(&admin(own), UserId::new(other), &PROMOTION, &Expected::Any).await.unwrap();
        assert_eq!(tape, ["begin", "lock 1", "lock 7", "commit"]);
    }
}

#[tokio::test]
async fn an_account_that_is_not_there_is_not_changed() {
    let mut mocks = Mocks::default();
    mocks.users.expect_find_locked().returning(|_| Ok(None));
    mocks.users.expect_find_by_email().returning(|_| Ok(None));
    mocks.users.expect_find().returning(|_| Ok(None));
    let Board { services, store, .. } = board(mocks);
    let email = Email::parse("user7@example.com").unwrap();
    assert_eq!(code(services.admin.change_user(&admin(1), ID, &PROMOTION, &Expected::Any).await), "user_not_found");
    assert_eq!(code(services.admin.change_user_by_email(&admin(1), &email, &PROMOTION).await), "user_not_found");
    assert_eq!(code(services.admin.user(&admin(1), ID).await), "user_not_found");
    assert_eq!(store.commits(), 0);
}

#[tokio::test]
async fn the_account_with_this_address_is_changed() {
    let email = Email::parse("user7@example.com").unwrap();
    let mut stage = Stage::default();
    stage.outside.users.expect_find_by_email().with(eq(email.clone())).once().returning(|_| Ok(Some(stored())));
    stage.inside.users.expect_find_locked().with(eq(ID)).once().returning(|_| Ok(Some(stored())));
    stage.inside.users.expect_update().once().returning(|_| Ok(()));
    stage.inside.audit.expect_insert().once().returning(|_| Ok(AuditId::new(1)));
    let given = stage.services().admin.change_user_by_email(&Actor::Operator, &email, &PROMOTION).await.unwrap();
    assert_eq!(given.role, Role::Moderator);
}

/// The entity itself keeps the rule.
#[test]
fn only_another_administrator_or_the_operator_changes_an_account() {
    for (by, outcome) in [
        (admin(1), "ok"),
        (Actor::Operator, "ok"),
        (admin(7), "own_account"),
        (moderator(1), "not_admin"),
        (member(7), "not_admin"),
        (banned(1), "account_suspended"),
        (Actor::Anonymous, "unauthenticated"),
    ] {
        for change in [PROMOTION, SUSPENSION] {
            let mut user = stored();
            assert_eq!(code(user.administer(&by, &Expected::Any, &change, noon())), outcome, "{by:?}");
            assert_eq!(user == stored(), outcome != "ok", "{by:?}: a refused change changes nothing");
        }
    }
}

#[tokio::test]
async fn every_look_is_written_down_before_anything_is_shown() {
    let slice = Slice { after: None, order: Order::Newest, limit: 21, bytes: Slice::ANY_SIZE };
    let listing = UserListing { role: Some(Role::Member), suspended: Some(false), order: Order::Newest };
    let found = AuditEntry {
        id: AuditId::new(3),
        actor: None,
        action: Action::Suspended,
        target: Some(ID),
        created_at: noon(),
    };
    for (what, action, target) in [
        ("list", Action::ListedUsers, None),
        ("read", Action::ReadUser, Some(ID)),
        ("audit", Action::ReadAudit, Some(ID)),
        ("whole audit", Action::ReadAudit, None),
    ] {
        let mut stage = Stage::default();
        let tape = stage.tape.clone();
        stage.inside.audit.expect_insert().with(eq(entry(&admin(1), action, target))).once().returning(move |_| {
            tape.note("audit");
            Ok(AuditId::new(4))
        });
        stage.outside.users.expect_list().with(eq(listing), eq(slice)).returning(|_, _| Ok(vec![stored()]));
        stage.outside.users.expect_find().with(eq(ID)).returning(|_| Ok(Some(stored())));
        let (entries, tape) = (vec![found.clone()], stage.tape.clone());
        let logged = stage.outside.audit.expect_list();
        logged.with(eq(target), eq(slice)).returning(move |_, _| Ok(entries.clone()));
        let services = stage.services();
        match what {
            "list" => {
                let page = services.admin.list_users(&admin(1), &listing, &first()).await.unwrap();
                assert_eq!(page.items, [stored()]);
            }
            "read" => assert_eq!(services.admin.user(&admin(1), ID).await.unwrap(), stored()),
            _ => {
                let page = services.admin.audit(&admin(1), target, &first()).await.unwrap();
                assert_eq!(page.items, std::slice::from_ref(&found));
            }
        }
        assert_eq!(tape, ["begin", "audit", "commit"], "{what}");
    }
}

#[tokio::test]
async fn a_cursor_of_one_list_of_accounts_is_none_entry_of() {
    let listing = |role, suspended| UserListing { role, suspended, order: Order::Newest };
    let lists = [
        listing(None, None),
        listing(Some(Role::Member), None),
        listing(Some(Role::Admin), None),
        listing(None, Some(true)),
        listing(None, Some(false)),
    ];
    let mut mocks = Mocks::default();
    mocks.audit.expect_insert().returning(|_| Ok(AuditId::new(1)));
    mocks.users.expect_list().returning(|_, _| Ok((1..=21).map(|id| a_user(id, Role::Member)).collect()));
    let Board { services, .. } = board(mocks);
    for of in &lists {
        let next = services.admin.list_users(&admin(1), of, &first()).await.unwrap().next;
        for on in &lists {
            let request = PageRequest { cursor: next.clone(), ..first() };
            let outcome = code(services.admin.list_users(&admin(1), on, &request).await);
            assert_eq!(outcome, if of == on { "ok" } else { "invalid_cursor" }, "{of:?} {on:?}");
        }
    }
}

#[tokio::test]
async fn a_cursor_of_one_account_s_log_is_none_of_another_s() {
    let logs = [None, Some(ID), Some(UserId::new(8))];
    let entry_of = |id| AuditEntry {
        id: AuditId::new(id),
        actor: None,
        action: Action::ReadUser,
        target: Some(ID),
        created_at: noon(),
    };
    let mut mocks = Mocks::default();
    mocks.audit.expect_insert().returning(|_| Ok(AuditId::new(1)));
    mocks.audit.expect_list().returning(move |_, _| Ok((1..=21).map(entry_of).collect()));
    let Board { services, .. } = board(mocks);
    for of in logs {
        let next = services.admin.audit(&admin(1), of, &first()).await.unwrap().next;
        for on in logs {
            let request = PageRequest { cursor: next.clone(), ..first() };
            let outcome = code(services.admin.audit(&admin(1), on, &request).await);
            assert_eq!(outcome, if of == on { "ok" } else { "invalid_cursor" }, "{of:?} {on:?}");
        }
    }
}
