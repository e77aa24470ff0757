//! A whole unit is tried again when it met another one, and only then.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use futures_util::future::BoxFuture;
use mundap_domain::account::{Password, PasswordChange, PasswordHash, Registration};
use mundap_domain::admin::{UserChange, UserListing};
use mundap_domain::audit::AuditId;
use mundap_domain::comment::{CommentDraft, CommentEdit, CommentId};
use mundap_domain::env::RETRIES;
use mundap_domain::event::Event;
use mundap_domain::image::{ImageId, Upload};
use mundap_domain::mail::{Language, MailTokenRecord, MockMailer, PasswordReset, Purpose};
use mundap_domain::page::{Order, PageRequest, PageSize};
use mundap_domain::qna::{Qna, QnaDraft, QnaEdit, QnaId, QnaRecord};
use mundap_domain::rate::{Charged, Policy, Quota, Quotas, Subject};
use mundap_domain::sign_in::{SignIn, SignInId, SignInRecord, TokenHash};
use mundap_domain::testing::{Board, Mocks, a_comment, a_picture, a_qna, a_user, an_image, board, noon};
use mundap_domain::user::{Email, Role, UserEdit, UserId};
use mundap_domain::version::{Expected, Version};
use mundap_domain::{
    AccountService, Actor, AdminService, CommentService, ExportService, Housekeeping, ImageService, MailService,
    QnaService, Services, StoreError, UserService,
};

use crate::stage::{Stage, Tape, code, contention, duplicate, made_on, member, unavailable};

const QNA: QnaId = QnaId::new(7);

fn draft() -> QnaDraft {
    QnaDraft::parse(Some("title"), Some("text")).expect("a draft")
}

fn edit() -> QnaEdit {
    QnaEdit::parse(Some("title"), None).expect("an edit")
}

const ID: UserId = UserId::new(1);
const COMMENT: CommentId = CommentId::new(5);
const ANY: Expected = Expected::Any;
const COUNT_A_USE: &str = "count a use";

fn email() -> Email {
    Email::parse("user1@example.com").expect("an address")
}

fn registration() -> Registration {
    Registration::parse(Some("a@b.example"), Some("password"), Some("name")).expect("one")
}

fn first_page() -> PageRequest {
    PageRequest::first(PageSize::DEFAULT)
}

fn mailed(hash: TokenHash, purpose: Purpose) -> MailTokenRecord {
    let expires_at = noon().plus(TimeDelta::minutes(1));
    MailTokenRecord { user: UserId::new(1), purpose, hash, email_key: "user1@example.com".to_owned(), expires_at }
}

/// A use case: its name, what is told of when it is done, and one call of it.
type UseCase<'a> = (&'static str, Option<Event>, BoxFuture<'a, &'static str>);

/// Every use case that opens one unit, called once, with what stands outside a unit answering as it should. A service that is
/// missing here does not compile.
fn use_cases(services: &Services) -> Vec<UseCase<'_>> {
    let Services { qnas, comments, images, users, accounts, mail, admin, export, rates, housekeeping } = services;
    let ExportService { .. } = export; // It only reads.
    let Housekeeping { .. } = housekeeping; // It has a unit for each piece: see below.
    let mut all = on_posts(qnas, comments, images);
    all.extend(on_accounts(users, accounts));
    all.extend(by_mail(mail));
    all.extend(of_administrators(admin, accounts));
    all.push((COUNT_A_USE, None, Box::pin(async { code(rates.admit(Policy::Attempts, &Subject::Account(ID)).await) })));
    all
}

fn on_posts<'a>(qnas: &'a QnaService, comments: &'a CommentService, images: &'a ImageService) -> Vec<UseCase<'a>> {
    let upload = || Upload::parse(b"an upload".to_vec()).expect("one");
    vec![
        ("ask", Some(Event::Asked), Box::pin(async { code(qnas.ask(&member(1), &draft(), None).await) })),
        (
            "edit a question",
            Some(Event::QnaEdited),
            Box::pin(async { code(qnas.edit(&member(1), QNA, &edit(), &ANY).await) }),
        ),
        (
            "delete a question",
            Some(Event::QnaDeleted),
            Box::pin(async { code(qnas.delete(&member(1), QNA, &ANY).await) }),
        ),
        (
            "comment",
            Some(Event::Commented),
            Box::pin(async {
                let draft = CommentDraft::parse(Some("text")).expect("one");
                code(comments.write(&member(1), QNA, &draft, None).await)
            }),
        ),
        (
            "edit a comment",
            Some(Event::CommentEdited),
            Box::pin(async {
                let edit = CommentEdit::parse(Some("text")).expect("one");
                code(comments.edit(&member(1), COMMENT, &edit, &ANY).await)
            }),
        ),
        (
            "delete a comment",
            Some(Event::CommentDeleted),
            Box::pin(async { code(comments.delete(&member(1), COMMENT, &ANY).await) }),
        ),
        (
            "attach an image",
            Some(Event::ImageAttached),
            Box::pin(async move { code(images.attach(&member(1), COMMENT, upload(), None).await) }),
        ),
        (
            "delete an image",
            Some(Event::ImageDeleted),
            Box::pin(async { code(images.delete(&member(1), ImageId::new(9), &ANY).await) }),
        ),
    ]
}

fn on_accounts<'a>(users: &'a UserService, accounts: &'a AccountService) -> Vec<UseCase<'a>> {
    let token = || URL_SAFE_NO_PAD.encode([[9; 32], [8; 32]].concat());
    vec![
        (
            "edit the own account",
            None,
            Box::pin(async {
                let edit = UserEdit::parse(None, Some("name")).expect("one");
                code(users.edit_me(&member(1), &edit, &ANY, Language::English).await)
            }),
        ),
        (
            "register",
            Some(Event::Registered),
            Box::pin(async { code(accounts.register(&registration(), None, Language::English).await) }),
        ),
        (
            "sign in",
            Some(Event::SignedIn),
            Box::pin(async { code(accounts.sign_in("user1@example.com", "password").await) }),
        ),
        ("refresh", Some(Event::Renewed), Box::pin(async move { code(accounts.refresh(&token()).await) })),
        ("revoke", None, Box::pin(async move { code(accounts.revoke(&token()).await) })),
        (
            "trust",
            Some(Event::Registered),
            Box::pin(async { code(accounts.trust(&Email::parse("unknown@example.com").expect("an address")).await) }),
        ),
        (
            "change the password",
            Some(Event::PasswordChanged),
            Box::pin(async {
                let change = PasswordChange::parse(Some("password"), Some("new password")).expect("one");
                code(accounts.change_password(&member(1), &change, Language::English).await)
            }),
        ),
        (
            "delete the account",
            Some(Event::AccountDeleted),
            Box::pin(async { code(accounts.delete(&member(1), &ANY).await) }),
        ),
    ]
}

fn by_mail(mail: &MailService) -> Vec<UseCase<'_>> {
    let letter = || URL_SAFE_NO_PAD.encode([7; 32]);
    vec![
        ("forget the password", None, Box::pin(async { code(mail.forgot(&email(), Language::English).await) })),
        (
            "ask to verify the address",
            None,
            Box::pin(async { code(mail.ask_to_verify(&member(1), Language::English).await) }),
        ),
        ("verify the address", None, Box::pin(async move { code(mail.verify(&letter()).await) })),
        (
            "reset the password",
            Some(Event::PasswordChanged),
            Box::pin(async move {
                let reset = PasswordReset::parse(Some(&letter()), Some("new password")).expect("one");
                code(mail.reset(&reset, Language::English).await)
            }),
        ),
        // Another node was faster: what is done with a letter that is taken has tests of its own.
        ("deliver a letter", None, Box::pin(async { code(mail.deliver().await) })),
    ]
}

fn of_administrators<'a>(admin: &'a AdminService, accounts: &'a AccountService) -> Vec<UseCase<'a>> {
    let change = UserChange { role: Some(Role::Admin), suspended: Some(true) };
    vec![
        (
            "change an account",
            None,
            Box::pin(async move { code(admin.change_user(&Actor::Operator, ID, &change, &ANY).await) }),
        ),
        (
            "change an account by its address",
            None,
            Box::pin(async move { code(admin.change_user_by_email(&Actor::Operator, &email(), &change).await) }),
        ),
        ("read an account", None, Box::pin(async { code(admin.user(&Actor::Operator, ID).await) })),
        (
            "list accounts",
            None,
            Box::pin(async {
                let listing = UserListing { role: None, suspended: None, order: Order::Newest };
                code(admin.list_users(&Actor::Operator, &listing, &first_page()).await)
            }),
        ),
        ("read the log", None, Box::pin(async { code(admin.audit(&Actor::Operator, Some(ID), &first_page()).await) })),
        (
            "add an account",
            Some(Event::Registered),
            Box::pin(async { code(accounts.add(&Actor::Operator, &registration(), Role::Admin).await) }),
        ),
        (
            "reset a password",
            Some(Event::PasswordChanged),
            Box::pin(async {
                let new = Password::parse("password").expect("one");
                code(accounts.reset_password(&Actor::Operator, &email(), &new).await)
            }),
        ),
    ]
}

/// Calls each use case on a stage of its own, and hands its name, its outcome and its event to `check`, with what was noted and
/// told of.
async fn each(set: impl Fn(&mut Stage), check: impl Fn(&'static str, &'static str, Option<Event>, &Tape, Vec<Event>)) {
    for n in 0..use_cases(&stage().services()).len() {
        let mut stage = stage();
        // Else what counts a use counts it in a unit of its own, before the one that a use case is about.
        if use_cases(&self::stage().services())[n].0 == COUNT_A_USE {
            stage.quotas = Some(Quotas::all(Quota::new(3, TimeDelta::minutes(1)).expect("a quota")));
        }
        set(&mut stage);
        let (tape, events) = (stage.tape.clone(), stage.events.clone());
        let services = stage.services();
        let (name, event, call) = use_cases(&services).swap_remove(n);
        check(name, call.await, event, &tape, events.events());
    }
}

fn stage() -> Stage {
    let mut stage = Stage::default();
    let hash = || PasswordHash::new("hash".to_owned());
    let known = |email: &Email| email.as_str().starts_with("user1@").then(|| a_user(1, Role::Member));

    let outside = &mut stage.outside;
    outside.users.expect_find_by_email().returning(move |email| Ok(known(email)));
    outside.users.expect_password_hash().returning(move |_| Ok(Some(hash())));
    outside.users.expect_find().returning(|_| Ok(Some(a_user(1, Role::Member))));
    outside.users.expect_list().returning(|_, _| Ok(Vec::new()));
    outside.comments.expect_find().returning(|_| Ok(Some(a_comment(5, 7, 1))));
    outside.images.expect_quota_used().returning(|_| Ok(0));
    outside.image_cleaner.expect_clean().returning(|_| Ok(a_picture()));
    outside.blobs.expect_put().returning(|_, _| Ok(()));
    outside.passwords.expect_hash().returning(move |_| Ok(hash()));
    outside.passwords.expect_verify().returning(|_: &Password, _| Ok(true));
    outside.mailer = Some(MockMailer::default());
    outside.mail_tokens.expect_find_locked().returning(|hash, purpose| Ok(Some(mailed(*hash, purpose))));
    outside.outbox.expect_is_any_due().returning(|_| Ok(true));
    outside.audit.expect_list().returning(|_, _| Ok(Vec::new()));
    outside.access_tokens.expect_verify().returning(|_, _| None);
    outside.access_tokens.expect_issue().returning(|_| Ok("access".to_owned()));

    let inside = &mut stage.inside;
    inside.qnas.expect_insert().returning(|_| Ok(a_qna(7, 1)));
    inside.qnas.expect_find_locked().returning(|_| Ok(Some(a_qna(7, 1))));
    inside.qnas.expect_update().returning(|_| Ok(()));
    inside.qnas.expect_delete().returning(|_, _| Ok(()));
    inside.qnas.expect_count_comments().returning(|_, _| Ok(true));
    inside.comments.expect_insert().returning(|_| Ok(a_comment(5, 7, 1)));
    inside.comments.expect_find().returning(|_| Ok(Some(a_comment(5, 7, 1))));
    inside.comments.expect_find_locked().returning(|_| Ok(Some(a_comment(5, 7, 1))));
    inside.comments.expect_update().returning(|_| Ok(()));
    inside.comments.expect_delete().returning(|_, _| Ok(()));
    inside.comments.expect_count_images().returning(|_, _| Ok(true));
    inside.images.expect_find().returning(|_| Ok(Some(an_image(9, 5, 1))));
    inside.images.expect_insert().returning(|_| Ok(an_image(9, 5, 1)));
    inside.images.expect_delete().returning(|_| Ok(true));
    inside.images.expect_quota_used().returning(|_| Ok(0));
    inside.audit.expect_insert().returning(|_| Ok(AuditId::new(1)));
    inside.users.expect_find_locked().returning(|_| Ok(Some(a_user(1, Role::Member))));
    inside.users.expect_insert().returning(|_| Ok(a_user(1, Role::Member)));
    inside.users.expect_update().returning(|_| Ok(()));
    inside.users.expect_password_hash().returning(move |_| Ok(Some(hash())));
    inside.users.expect_set_password_hash().returning(|_, _| Ok(()));
    inside.users.expect_erase().returning(|_, _| Ok(()));
    inside.sign_ins.expect_insert().returning(|_| Ok(SignInId::new(1)));
    inside.sign_ins.expect_update().returning(|_| Ok(()));
    inside.sign_ins.expect_delete().returning(|_| Ok(()));
    inside.sign_ins.expect_delete_all_of().returning(|_| Ok(()));
    inside.receipts.expect_delete_all_of().returning(|_| Ok(()));
    inside.users.expect_find().returning(|_| Ok(Some(a_user(1, Role::Member))));
    inside.users.expect_set_email_verified().returning(|_, _| Ok(()));
    inside.outbox.expect_insert().returning(|_| Ok(()));
    inside.outbox.expect_delete_all_of().returning(|_| Ok(()));
    inside.mail_tokens.expect_find_locked().returning(|hash, purpose| Ok(Some(mailed(*hash, purpose))));
    inside.mail_tokens.expect_delete().returning(|_, _| Ok(()));
    inside.mail_tokens.expect_delete_all_of().returning(|_| Ok(()));
    inside.outbox.expect_take().returning(|_, _| Ok(None));
    inside.rates.expect_charge().returning(|charge| Ok(Charged { admitted: true, end: charge.now }));
    inside.sign_ins.expect_find_locked().returning(|_| {
        Ok(Some(SignIn::restore(SignInRecord {
            id: SignInId::new(1),
            user: UserId::new(1),
            family: TokenHash::of(&[9; 32]),
            current: TokenHash::of(&[8; 32]),
            previous: None,
            forgiven: false,
            created_at: noon(),
            rotated_at: noon(),
            expires_at: noon().plus(TimeDelta::days(1)),
        })))
    });
    stage
}

#[tokio::test]
async fn every_use_case_is_done_in_one_unit_when_nobody_is_in_the_way() {
    each(
        |_| {},
        |name, outcome, event, tape, told| {
            assert_eq!(outcome, "ok", "{name}");
            assert_eq!(*tape, ["begin", "commit"], "{name}");
            assert_eq!(told, Vec::from_iter(event), "{name}");
        },
    )
    .await;
}

#[tokio::test]
async fn every_use_case_is_tried_again_three_times_and_then_given_up() {
    assert_eq!(RETRIES, 3);
    let tries = ["begin", "pause 1", "begin", "pause 2", "begin", "pause 3", "begin"];
    each(
        |stage| stage.begin = Box::new(|| Some(contention())),
        |name, outcome, _, tape, told| {
            assert_eq!((outcome, told), ("busy", vec![]), "{name}");
            assert_eq!(*tape, tries, "{name}");
        },
    )
    .await;
}

#[tokio::test]
async fn every_use_case_that_meets_another_one_when_it_commits_is_done_anew_and_told_of_once() {
    let meet = |stage: &mut Stage| {
        let mut faults = vec![contention()];
        stage.commit = Box::new(move || faults.pop());
    };
    each(meet, |name, outcome, event, tape, told| {
        assert_eq!((outcome, told), ("ok", Vec::from_iter(event)), "{name}");
        assert_eq!(*tape, ["begin", "rollback", "pause 1", "begin", "commit"], "{name}");
    })
    .await;
}

#[tokio::test]
async fn each_piece_of_a_sweep_is_tried_again_by_itself() {
    let mut stage = Stage::default();
    stage.inside.receipts.expect_delete_older().returning(|_, _| Ok(0));
    stage.inside.mail_tokens.expect_delete_expired().returning(|_, _| Ok(0));
    stage.inside.rates.expect_delete_empty().returning(|_, _| Ok(0));
    stage.outside.receipts.expect_erased_claimants().returning(|_, _| Ok(Vec::new()));
    let mut faults = vec![None, Some(contention()), None];
    stage.commit = Box::new(move || faults.pop().flatten());
    let tape = stage.tape.clone();
    assert_eq!(code(stage.services().housekeeping.sweep().await), "ok");
    assert_eq!(tape, ["begin", "commit", "begin", "rollback", "pause 1", "begin", "commit", "begin", "commit"]);
}

#[tokio::test]
async fn every_use_case_that_cannot_reach_the_database_says_so_at_once() {
    each(
        |stage| stage.begin = Box::new(|| Some(unavailable())),
        |name, outcome, _, tape, told| {
            assert_eq!((outcome, told), ("database_unavailable", vec![]), "{name}");
            assert_eq!(*tape, ["begin"], "{name}");
        },
    )
    .await;
}

/// Whether it took place is unknown: to do it again could do it twice, and nobody is told of it.
#[tokio::test]
async fn a_commit_whose_outcome_is_unknown_is_not_tried_again() {
    each(
        |stage| stage.commit = Box::new(|| Some(unavailable())),
        |name, outcome, _, tape, told| {
            assert_eq!((outcome, told), ("database_unavailable", vec![]), "{name}");
            assert_eq!(*tape, ["begin", "rollback"], "{name}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_write_that_meets_another_one_is_tried_again_and_may_succeed() {
    for met in [contention, || StoreError::Stale] {
        let mut mocks = Mocks::default();
        let mut calls = 0;
        mocks.qnas.expect_insert().times(3).returning(move |_| {
            calls += 1;
            if calls < 3 { Err(met()) } else { Ok(a_qna(7, 1)) }
        });
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(services.qnas.ask(&member(1), &draft(), None).await.unwrap().into_inner(), a_qna(7, 1));
        assert_eq!((store.begun(), store.commits(), clock.pauses()), (3, 1, 2));
    }
}

#[tokio::test]
async fn a_write_that_always_meets_another_one_is_busy_after_three_more_tries() {
    for met in [contention, || StoreError::Stale] {
        let mut mocks = Mocks::default();
        mocks.qnas.expect_insert().times(4).returning(move |_| Err(met()));
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(code(services.qnas.ask(&member(1), &draft(), None).await), "busy");
        assert_eq!((store.begun(), store.commits(), clock.pauses()), (4, 0, 3));
    }
}

#[tokio::test]
async fn what_trying_again_cannot_help_is_not_tried_again() {
    for (report, outcome) in [
        (unavailable as fn() -> StoreError, "database_unavailable"),
        (duplicate, "internal_error"),
        (|| StoreError::MissingReference("a foreign key".into()), "internal_error"),
        (|| StoreError::Backend("syntax".into()), "internal_error"),
        (|| StoreError::Corrupt { table: "qna", id: 7, reason: String::new() }, "internal_error"),
    ] {
        let mut mocks = Mocks::default();
        mocks.qnas.expect_insert().once().returning(move |_| Err(report()));
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(code(services.qnas.ask(&member(1), &draft(), None).await), outcome);
        assert_eq!((store.begun(), store.commits(), clock.pauses()), (1, 0, 0));
    }
}

/// QnA 7 of user 1, in version 1 when it is first read and in version 2 from then on; the first update is stale.
fn overtaken() -> (Stage, Tape) {
    let mut stage = Stage::default();
    let mut version = 0;
    stage.inside.qnas.expect_find_locked().returning(move |_| {
        version = 2.min(version + 1);
        Ok(Some(Qna::restore(QnaRecord { version: Version::new(version), ..(*a_qna(7, 1)).clone() })))
    });
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_update().returning(move |qna| {
        tape.note(format!("update to {}", qna.version.get()));
        if qna.version.get() == 3 { Ok(()) } else { Err(StoreError::Stale) }
    });
    let tape = stage.tape.clone();
    stage.inside.qnas.expect_delete().returning(move |_, version| {
        tape.note(format!("delete {}", version.get()));
        if version.get() == 2 { Ok(()) } else { Err(StoreError::Stale) }
    });
    let tape = stage.tape.clone();
    (stage, tape)
}

#[tokio::test]
async fn an_edit_that_was_overtaken_is_made_on_what_the_other_one_left() {
    let (stage, tape) = overtaken();
    let edited = stage.services().qnas.edit(&member(1), QNA, &edit(), &Expected::Any).await.unwrap();
    assert_eq!(edited.version, Version::new(3));
    assert_eq!(tape, ["begin", "update to 2", "rollback", "pause 1", "begin", "update to 3", "commit"]);
}

#[tokio::test]
async fn an_edit_that_was_overtaken_is_refused_when_it_names_the_version_before() {
    let (stage, tape) = overtaken();
    assert_eq!(code(stage.services().qnas.edit(&member(1), QNA, &edit(), &made_on(1)).await), "version_mismatch");
    assert_eq!(tape, ["begin", "update to 2", "rollback", "pause 1", "begin", "rollback"]);
}

#[tokio::test]
async fn a_deletion_that_was_overtaken_deletes_what_the_other_one_left() {
    let (stage, tape) = overtaken();
    assert_eq!(code(stage.services().qnas.delete(&member(1), QNA, &Expected::Any).await), "ok");
    assert_eq!(tape, ["begin", "delete 1", "rollback", "pause 1", "begin", "delete 2", "commit"]);
}

#[tokio::test]
async fn a_deletion_that_was_overtaken_is_refused_when_it_names_the_version_before() {
    let (stage, tape) = overtaken();
    assert_eq!(code(stage.services().qnas.delete(&member(1), QNA, &made_on(1)).await), "version_mismatch");
    assert_eq!(tape, ["begin", "delete 1", "rollback", "pause 1", "begin", "rollback"]);
}

/// The count that the first try took down is put back with its unit, so that it goes down once.
#[tokio::test]
async fn a_comment_that_another_one_deleted_first_is_not_found_and_not_counted_twice() {
    let mut stage = Stage::default();
    let mut there = vec![a_comment(5, 7, 1)];
    stage.inside.comments.expect_find().times(2).returning(move |_| Ok(there.pop()));
    stage.inside.qnas.expect_count_comments().once().returning(|_, _| Ok(true));
    stage.inside.comments.expect_delete().once().returning(|_, _| Err(StoreError::Stale));
    let tape = stage.tape.clone();
    let deleted = stage.services().comments.delete(&member(1), CommentId::new(5), &Expected::Any).await;
    assert_eq!(code(deleted), "comment_not_found");
    assert_eq!(tape, ["begin", "rollback", "pause 1", "begin", "rollback"]);
}

#[tokio::test]
async fn a_read_that_fails_is_not_tried_again() {
    let mut mocks = Mocks::default();
    mocks.qnas.expect_find().once().returning(|_| Err(contention()));
    let Board { services, clock, .. } = board(mocks);
    assert_eq!(code(services.qnas.read(&Actor::Anonymous, QNA).await), "busy");
    assert_eq!(clock.pauses(), 0);
}
