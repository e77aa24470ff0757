//! The ownership table as the use cases apply it: each is called by everybody it turns away.
//!
//! These boards expect no call at all, so that a refusal which comes after a look at the database fails.

use mundap_domain::account::{Password, PasswordChange, Registration};
use mundap_domain::admin::{UserChange, UserListing};
use mundap_domain::audit::AuditId;
use mundap_domain::comment::{CommentDraft, CommentEdit, CommentId};
use mundap_domain::mail::Language;
use mundap_domain::page::{Order, PageRequest, PageSize, Slice};
use mundap_domain::qna::{QnaDraft, QnaEdit, QnaId, QnaListing};
use mundap_domain::testing::{Board, Mocks, a_comment, a_qna, a_user, board};
use mundap_domain::user::{Email, Role, UserEdit, UserId};
use mundap_domain::version::Expected;
use mundap_domain::{Actor, Services};

use crate::stage::{admin, banned, code, member, moderator};

fn registration() -> Registration {
    Registration::parse(Some("new@example.com"), Some("password"), Some("new")).expect("a registration")
}

/// Everything that changes a post.
async fn write_posts(services: &Services, by: &Actor) -> [(&'static str, &'static str); 6] {
    let (qnas, comments) = (&services.qnas, &services.comments);
    let question = QnaDraft::parse(Some("title"), Some("text")).expect("a draft");
    let question_edit = QnaEdit::parse(Some("title"), None).expect("an edit");
    let comment = CommentDraft::parse(Some("text")).expect("a draft");
    let comment_edit = CommentEdit::parse(Some("text")).expect("an edit");
    let (qna, id) = (QnaId::new(7), CommentId::new(5));
    [
        ("ask", code(qnas.ask(by, &question, None).await)),
        ("edit a question", code(qnas.edit(by, qna, &question_edit, &Expected::Any).await)),
        ("delete a question", code(qnas.delete(by, qna, &Expected::Any).await)),
        ("comment", code(comments.write(by, qna, &comment, None).await)),
        ("edit a comment", code(comments.edit(by, id, &comment_edit, &Expected::Any).await)),
        ("delete a comment", code(comments.delete(by, id, &Expected::Any).await)),
    ]
}

async fn change_own_account(services: &Services, by: &Actor) -> [(&'static str, &'static str); 3] {
    let edit = UserEdit::parse(None, Some("name")).expect("an edit");
    let change = PasswordChange::parse(Some("old"), Some("new password")).expect("a change");
    [
        ("edit the own account", code(services.users.edit_me(by, &edit, &Expected::Any, Language::English).await)),
        ("change the own password", code(services.accounts.change_password(by, &change, Language::English).await)),
        (
            "ask for the letter that verifies the address",
            code(services.mail.ask_to_verify(by, Language::English).await),
        ),
    ]
}

async fn see_and_delete_own_account(services: &Services, by: &Actor) -> [(&'static str, &'static str); 2] {
    [
        ("see the own account", code(services.users.me(by).await)),
        ("delete the own account", code(services.accounts.delete(by, &Expected::Any).await)),
    ]
}

async fn administer(services: &Services, by: &Actor) -> [(&'static str, &'static str); 8] {
    let email = Email::parse("user7@example.com").expect("an address");
    let password = Password::parse("password").expect("a password");
    let (admin, id) = (&services.admin, UserId::new(7));
    let promotion = UserChange { role: Some(Role::Admin), suspended: None };
    let suspension = UserChange { role: None, suspended: Some(true) };
    let listing = UserListing { role: None, suspended: None, order: Order::Newest };
    let first = PageRequest::first(PageSize::DEFAULT);
    [
        ("add an account", code(services.accounts.add(by, &registration(), Role::Member).await)),
        ("reset a password", code(services.accounts.reset_password(by, &email, &password).await)),
        ("give a role by id", code(admin.change_user(by, id, &promotion, &Expected::Any).await)),
        ("give a role", code(admin.change_user_by_email(by, &email, &promotion).await)),
        ("suspend", code(admin.change_user(by, id, &suspension, &Expected::Any).await)),
        ("list accounts", code(admin.list_users(by, &listing, &first).await)),
        ("read an account", code(admin.user(by, id).await)),
        ("read the audit log", code(admin.audit(by, None, &first).await)),
    ]
}

fn all_answer<const N: usize>(who: &str, outcomes: [(&'static str, &'static str); N], with: &str) {
    for (what, outcome) in outcomes {
        assert_eq!(outcome, with, "{who}: {what}");
    }
}

#[tokio::test]
async fn whoever_may_change_no_post_is_turned_away_before_anything_is_read() {
    for (who, by, with) in [
        ("anonymous", Actor::Anonymous, "unauthenticated"),
        ("operator", Actor::Operator, "unauthenticated"),
        ("suspended", banned(1), "account_suspended"),
    ] {
        let Board { services, store, .. } = board(Mocks::default());
        all_answer(who, write_posts(&services, &by).await, with);
        assert_eq!(store.begun(), 0, "{who}");
    }
}

#[tokio::test]
async fn whoever_may_not_change_the_own_account_is_turned_away_before_anything_is_read() {
    for (who, by, with) in [
        ("anonymous", Actor::Anonymous, "unauthenticated"),
        ("operator", Actor::Operator, "unauthenticated"),
        ("suspended", banned(1), "account_suspended"),
    ] {
        let Board { services, store, .. } = board(Mocks::default());
        all_answer(who, change_own_account(&services, &by).await, with);
        assert_eq!(store.begun(), 0, "{who}");
    }
}

#[tokio::test]
async fn whoever_has_no_account_can_neither_see_nor_delete_one() {
    for (who, by) in [("anonymous", Actor::Anonymous), ("operator", Actor::Operator)] {
        let Board { services, store, .. } = board(Mocks::default());
        all_answer(who, see_and_delete_own_account(&services, &by).await, "unauthenticated");
        assert_eq!(store.begun(), 0, "{who}");
    }
}

#[tokio::test]
async fn a_suspended_account_can_still_see_and_delete_itself() {
    let mut mocks = Mocks::default();
    mocks.users.expect_find().returning(|_| Ok(Some(a_user(1, Role::Member))));
    mocks.users.expect_find_locked().returning(|_| Ok(Some(a_user(1, Role::Member))));
    mocks.users.expect_erase().returning(|_, _| Ok(()));
    mocks.sign_ins.expect_delete_all_of().returning(|_| Ok(()));
    mocks.receipts.expect_delete_all_of().returning(|_| Ok(()));
    mocks.outbox.expect_delete_all_of().returning(|_| Ok(()));
    mocks.mail_tokens.expect_delete_all_of().returning(|_| Ok(()));
    let Board { services, .. } = board(mocks);
    all_answer("suspended", see_and_delete_own_account(&services, &banned(1)).await, "ok");
}

#[tokio::test]
async fn only_an_administrator_or_the_operator_administers() {
    for (who, by, with) in [
        ("anonymous", Actor::Anonymous, "unauthenticated"),
        ("suspended", banned(1), "account_suspended"),
        ("member", member(1), "not_admin"),
        ("moderator", moderator(1), "not_admin"),
        // Not even the own account's role.
        ("user 7", member(7), "not_admin"),
    ] {
        let Board { services, store, .. } = board(Mocks::default());
        all_answer(who, administer(&services, &by).await, with);
        assert_eq!(store.begun(), 0, "{who}");
    }
    for (who, by) in [("admin", admin(1)), ("operator", Actor::Operator)] {
        let mut mocks = Mocks::default();
        mocks.passwords.expect_hash().returning(|_| Ok(mundap_domain::account::PasswordHash::new("hash".to_owned())));
        mocks.users.expect_insert().returning(|_| Ok(a_user(7, Role::Member)));
        mocks.users.expect_find_by_email().returning(|_| Ok(Some(a_user(7, Role::Member))));
        mocks
            .users
            .expect_find_locked()
            .returning(|id| Ok(Some(a_user(id.get(), if id == UserId::new(7) { Role::Member } else { Role::Admin }))));
        mocks.users.expect_update().returning(|_| Ok(()));
        mocks.users.expect_set_password_hash().returning(|_, _| Ok(()));
        mocks.users.expect_find().returning(|_| Ok(Some(a_user(7, Role::Member))));
        mocks.users.expect_list().returning(|_, _| Ok(Vec::new()));
        mocks.audit.expect_insert().times(8).returning(|_| Ok(AuditId::new(1)));
        mocks.audit.expect_list().returning(|_, _| Ok(Vec::new()));
        mocks.sign_ins.expect_delete_all_of().returning(|_| Ok(()));
        mocks.mail_tokens.expect_delete().returning(|_, _| Ok(()));
        let Board { services, store, .. } = board(mocks);
        all_answer(who, administer(&services, &by).await, "ok");
        assert_eq!(store.commits(), 8, "{who}");
    }
}

#[tokio::test]
async fn everybody_may_read() {
    for by in [Actor::Anonymous, Actor::Operator, banned(1), member(1), moderator(1), admin(1)] {
        let mut mocks = Mocks::default();
        mocks.qnas.expect_find().returning(|_| Ok(Some(a_qna(7, 2))));
        mocks.qnas.expect_list().returning(|_, _| Ok(vec![a_qna(7, 2)]));
        mocks.comments.expect_find().returning(|_| Ok(Some(a_comment(5, 7, 2))));
        mocks.comments.expect_list().returning(|_, _| Ok(vec![a_comment(5, 7, 2)]));
        mocks.users.expect_find().returning(|_| Ok(Some(a_user(2, Role::Member))));
        let Board { services, store, .. } = board(mocks);
        let (qna, first) = (QnaId::new(7), PageRequest::first(PageSize::DEFAULT));
        let listing = QnaListing { author: None, order: Order::Newest };
        let outcomes = [
            ("a question", code(services.qnas.read(&by, qna).await)),
            ("with comments", code(services.qnas.read_with_comments(&by, qna, PageSize::DEFAULT).await)),
            ("questions", code(services.qnas.list(&by, &listing, &first).await)),
            ("all of them", code(services.qnas.piece(&by, Slice::walk()).await)),
            ("a comment", code(services.comments.read(&by, CommentId::new(5)).await)),
            ("comments", code(services.comments.list(&by, qna, &first).await)),
            ("a profile", code(services.users.profile(&by, UserId::new(2)).await)),
        ];
        all_answer(&format!("{by:?}"), outcomes, "ok");
        assert_eq!(store.begun(), 0, "a read opens no unit");
    }
}
