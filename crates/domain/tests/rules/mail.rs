//! Letters: what causes one, whom it goes to, and what becomes of it.

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use mockall::predicate::eq;
use mundap_domain::account::{PasswordHash, Registration};
use mundap_domain::mail::{
    Delivery, FORGETTING, Fate, LEASE, Language, Letter, LetterId, MailToken, MailTokenRecord, Message, MockMailer,
    NewLetter, PERSISTENCE, PasswordReset, Purpose, QueuedLetter, SendError, Topic,
};
use mundap_domain::rate::{Charged, Quota, Quotas};
use mundap_domain::sign_in::TokenHash;
use mundap_domain::testing::{Board, Mocks, a_user, board, noon};
use mundap_domain::user::{Email, Role, User, UserEdit, UserId, UserRecord};
use mundap_domain::version::Expected;
use mundap_domain::{Actor, Services};

use crate::stage::{Stage, code, member, unavailable};

const USER: UserId = UserId::new(7);
const LETTER: LetterId = LetterId::new(70);

fn address(raw: &str) -> Email {
    Email::parse(raw).expect("an address")
}

fn user() -> User {
    a_user(7, Role::Member)
}

fn verified() -> User {
    User::restore(UserRecord { email_verified_at: Some(noon()), ..(*user()).clone() })
}

fn queued(topic: Topic, attempts: u32) -> QueuedLetter {
    let user = (topic != Topic::ResetPassword).then_some(USER);
    let (to, language) = (address("user7@example.com"), Language::Korean);
    QueuedLetter { id: LETTER, topic, user, to, language, created_at: noon(), attempts }
}

/// The letter that a use case puts in.
fn put(topic: Topic, to: &str) -> NewLetter {
    NewLetter { topic, user: Some(USER), to: address(to), language: Language::Korean, created_at: noon() }
}

fn refuses(is_final: bool) -> SendError {
    SendError { is_final, reason: "the mail server answered".to_owned() }
}

/// A mailer that answers like this, and the letters that it was given.
fn mailer(answer: Result<(), SendError>) -> (MockMailer, Arc<Mutex<Vec<Letter>>>) {
    let mut mailer = MockMailer::default();
    let letters = Arc::new(Mutex::new(Vec::new()));
    let given = letters.clone();
    mailer.expect_send().returning(move |letter| {
        given.lock().expect("letters").push(letter.clone());
        answer.clone()
    });
    (mailer, letters)
}

/// A stage on which this letter is due, for this account.
fn due(letter: QueuedLetter, reader: Option<User>) -> Stage {
    let mut stage = Stage::default();
    stage.outside.outbox.expect_is_any_due().with(eq(noon())).returning(|_| Ok(true));
    let tape = stage.tape.clone();
    stage.inside.outbox.expect_take().with(eq(noon()), eq(noon().plus(LEASE))).returning(move |_, _| {
        tape.note("take");
        Ok(Some(letter.clone()))
    });
    let found = reader.clone();
    stage.inside.users.expect_find_by_email().returning(move |_| Ok(found.clone()));
    stage.inside.users.expect_find_locked().with(eq(USER)).returning(move |_| Ok(reader.clone()));
    let tape = stage.tape.clone();
    stage.inside.mail_tokens.expect_put().returning(move |token| {
        tape.note(format!("put {}", token.purpose.name()));
        Ok(())
    });
    let tape = stage.tape.clone();
    stage.inside.outbox.expect_delete().with(eq(LETTER)).returning(move |_| {
        tape.note("delete");
        Ok(())
    });
    stage
}

async fn deliver(services: &Services) -> Delivery {
    services.mail.deliver().await.expect("a delivery").expect("a letter")
}

mod causes {
    use super::*;

    fn expect_letters(mocks: &mut Mocks, letters: Vec<NewLetter>) {
        mocks.mailer = Some(MockMailer::default());
        for letter in letters {
            mocks.outbox.expect_insert().with(eq(letter)).once().returning(|_| Ok(()));
        }
    }

    #[tokio::test]
    async fn registering() {
        let registration = Registration::parse(Some("user7@example.com"), Some("a password"), Some("user 7")).unwrap();
        let mut mocks = Mocks::default();
        mocks.passwords.expect_hash().returning(|_| Ok(PasswordHash::new("hash".to_owned())));
        mocks.users.expect_insert().returning(|_| Ok(user()));
        mocks.audit.expect_insert().returning(|_| Ok(mundap_domain::audit::AuditId::new(1)));
        expect_letters(&mut mocks, vec![put(Topic::VerifyEmail, "user7@example.com")]);
        let services = board(mocks).services;
        assert_eq!(code(services.accounts.register(&registration, None, Language::Korean).await), "ok");
        // An address that an operator names is not asked: the expectation above is met once.
        assert_eq!(code(services.accounts.add(&Actor::Operator, &registration, Role::Member).await), "ok");
    }

    /// Where a letter was allowed, its bucket would be charged, which nothing here expects.
    #[tokio::test]
    async fn another_spelling_of_the_address_uses_none() {
        let edit = UserEdit::parse(Some("USER7@example.com"), None).unwrap();
        let one = Quota::new(1, TimeDelta::minutes(1)).expect("a quota");
        let mut stage = Stage { quotas: Some(Quotas::all(one)), ..Stage::default() };
        stage.outside.mailer = Some(MockMailer::default());
        stage.inside.users.expect_find_locked().returning(|_| Ok(Some(verified())));
        stage.inside.users.expect_update().once().returning(|_| Ok(()));
        let tape = stage.tape.clone();
        let edited = stage.services().users.edit_me(&member(7), &edit, &Expected::Any, Language::Korean).await.unwrap();
        assert_eq!(edited.email, address("USER7@example.com"));
        assert_eq!(tape, ["begin", "commit"]);
    }

    #[tokio::test]
    async fn another_address_is_told_at_the_old_and_asked_at_the_new() {
        let edit = UserEdit::parse(Some("new@example.com"), None).unwrap();
        let mut mocks = Mocks::default();
        mocks.users.expect_find_locked().returning(|_| Ok(Some(verified())));
        mocks.users.expect_update().withf(|user| user.email_verified_at.is_none()).once().returning(|_| Ok(()));
        mocks.mail_tokens.expect_delete_all_of().with(eq(USER)).once().returning(|_| Ok(()));
        let gave_up = address("user7@example.com");
        mocks.outbox.expect_delete_tokens_to().with(eq(gave_up)).once().returning(|_| Ok(()));
        let old = put(Topic::EmailChanged, "user7@example.com");
        expect_letters(&mut mocks, vec![old, put(Topic::VerifyEmail, "new@example.com")]);
        let services = board(mocks).services;
        let edited = services.users.edit_me(&member(7), &edit, &Expected::Any, Language::Korean).await;
        assert_eq!(edited.unwrap().email_verified_at, None);
    }

    #[tokio::test]
    async fn another_spelling_or_name_is_no_other_address() {
        for edit in [
            UserEdit::parse(Some("USER7@example.com"), None),
            UserEdit::parse(Some("user7@example.com"), Some("another")),
            UserEdit::parse(None, Some("another")),
        ] {
            let mut mocks = Mocks::default();
            mocks.users.expect_find_locked().returning(|_| Ok(Some(verified())));
            mocks.users.expect_update().withf(|user| user.email_verified_at.is_some()).once().returning(|_| Ok(()));
            expect_letters(&mut mocks, vec![]);
            let services = board(mocks).services;
            let edited = services.users.edit_me(&member(7), &edit.unwrap(), &Expected::Any, Language::Korean).await;
            assert_eq!(code(edited), "ok");
        }
    }

    /// Whether there is such an account is not even looked up.
    #[tokio::test]
    async fn a_forgotten_password_whoever_has_the_address() {
        let mut mocks = Mocks::default();
        let to = "whoever@example.com";
        let letter = NewLetter { user: None, ..put(Topic::ResetPassword, to) };
        expect_letters(&mut mocks, vec![letter]);
        let Board { services, store, .. } = board(mocks);
        assert_eq!(code(services.mail.forgot(&address(to), Language::Korean).await), "ok");
        assert_eq!((store.begun(), store.commits()), (1, 1));
    }

    #[tokio::test]
    async fn an_address_that_is_verified_is_not_asked_again() {
        let Board { services, store, .. } = board(Mocks { mailer: Some(MockMailer::default()), ..Mocks::default() });
        assert_eq!(code(services.mail.ask_to_verify(&verified().into(), Language::Korean).await), "ok");
        assert_eq!(store.begun(), 0);
    }

    /// Two letters in an hour to one address, or by one account; that the third is not written is told to its owner alone.
    #[tokio::test]
    async fn nobody_s_mailbox_is_flooded() {
        let quota = Quota::new(2, TimeDelta::hours(1)).unwrap();
        for (admitted, forgotten, others) in [(true, "ok", "ok"), (false, "ok", "rate_limited")] {
            let mut stage = Stage { quotas: Some(Quotas::all(quota)), ..Stage::default() };
            stage.outside.mailer = Some(MockMailer::default());
            let end = noon().plus(TimeDelta::hours(1));
            stage.inside.rates.expect_charge().times(3).returning(move |_| Ok(Charged { admitted, end }));
            stage.inside.users.expect_find_locked().returning(|_| Ok(Some(user())));
            stage.inside.users.expect_update().returning(|_| Ok(()));
            stage.inside.mail_tokens.expect_delete_all_of().returning(|_| Ok(()));
            stage.inside.outbox.expect_delete_tokens_to().returning(|_| Ok(()));
            // One for each of the first two, and two where the address changes.
            stage.inside.outbox.expect_insert().times(if admitted { 4 } else { 0 }).returning(|_| Ok(()));
            let services = stage.services();
            let (by, edit) = (member(7), UserEdit::parse(Some("new@example.com"), None).unwrap());
            let whoever = address("whoever@example.com");
            assert_eq!(code(services.mail.forgot(&whoever, Language::Korean).await), forgotten);
            assert_eq!(code(services.mail.ask_to_verify(&by, Language::Korean).await), others);
            assert_eq!(code(services.users.edit_me(&by, &edit, &Expected::Any, Language::Korean).await), others);
            // What writes no letter is not counted.
            let renamed = UserEdit::parse(None, Some("another")).unwrap();
            assert_eq!(code(services.users.edit_me(&by, &renamed, &Expected::Any, Language::Korean).await), "ok");
        }
    }

    #[tokio::test]
    async fn a_board_without_a_mail_server_writes_nothing() {
        let Board { services, store, .. } = board(Mocks::default());
        assert!(!services.mail.is_on());
        assert_eq!(code(services.mail.forgot(&address("user7@example.com"), Language::Korean).await), "ok");
        assert_eq!(code(services.mail.ask_to_verify(&member(7), Language::Korean).await), "ok");
        assert_eq!(services.mail.deliver().await.unwrap(), None);
        assert_eq!(store.begun(), 0);
    }
}

mod tokens {
    use super::*;

    fn token() -> MailToken {
        MailToken::parse(&"A".repeat(43)).expect("a token")
    }

    fn record(purpose: Purpose) -> MailTokenRecord {
        let expires_at = noon().plus(TimeDelta::microseconds(1));
        MailTokenRecord {
            user: USER,
            purpose,
            hash: token().hash(),
            email_key: "user7@example.com".to_owned(),
            expires_at,
        }
    }

    fn reset(token: &str) -> PasswordReset {
        PasswordReset::parse(Some(token), Some("a new password")).expect("a reset")
    }

    #[tokio::test]
    async fn rubbish_is_refused_before_anything_is_read() {
        let Board { services, store, .. } = board(Mocks::default());
        for rubbish in ["", "A", &"A".repeat(42), &"!".repeat(43)] {
            assert_eq!(code(services.mail.verify(rubbish).await), "invalid_mail_token");
            assert_eq!(code(services.mail.reset(&reset(rubbish), Language::English).await), "invalid_mail_token");
        }
        assert_eq!(store.begun(), 0);
    }

    /// Hashing is slow: a guess must not cost it, nor a unit.
    #[tokio::test]
    async fn an_unknown_one_is_refused_before_the_password_is_hashed() {
        let mut mocks = Mocks::default();
        mocks.mail_tokens.expect_find_locked().returning(|_: &TokenHash, _| Ok(None));
        let Board { services, store, .. } = board(mocks);
        assert_eq!(code(services.mail.verify(&token().expose()).await), "invalid_mail_token");
        assert_eq!(code(services.mail.reset(&reset(&token().expose()), Language::English).await), "invalid_mail_token");
        assert_eq!(store.begun(), 0);
    }

    #[tokio::test]
    async fn one_that_is_old_or_went_elsewhere_or_is_gone_by_then_changes_nothing() {
        let elsewhere = "user8@example.com".to_owned();
        for inside in [
            Some(MailTokenRecord { expires_at: noon(), ..record(Purpose::VerifyEmail) }),
            Some(MailTokenRecord { email_key: elsewhere, ..record(Purpose::VerifyEmail) }),
            Some(MailTokenRecord { user: UserId::new(8), ..record(Purpose::VerifyEmail) }),
            None,
        ] {
            let mut stage = Stage::default();
            let tape = stage.tape.clone();
            stage.outside.mail_tokens.expect_find_locked().returning(|_, purpose| Ok(Some(record(purpose))));
            stage.outside.passwords.expect_hash().returning(|_| Ok(PasswordHash::new("hash".to_owned())));
            stage.inside.users.expect_find_locked().with(eq(USER)).returning(|_| Ok(Some(user())));
            stage.inside.mail_tokens.expect_find_locked().returning(move |_, _| Ok(inside.clone()));
            let services = stage.services();
            assert_eq!(code(services.mail.verify(&token().expose()).await), "invalid_mail_token");
            let refused = services.mail.reset(&reset(&token().expose()), Language::English).await;
            assert_eq!(code(refused), "invalid_mail_token");
            assert_eq!(tape, ["begin", "rollback", "begin", "rollback"]);
        }
    }

    /// The account first, then the token, as everywhere: or two that meet would wait for each other.
    #[tokio::test]
    async fn a_good_one_is_used_up_in_the_unit_that_it_is_good_for() {
        let mut stage = Stage::default();
        stage.outside.mailer = Some(MockMailer::default());
        stage.outside.mail_tokens.expect_find_locked().returning(|_, purpose| Ok(Some(record(purpose))));
        let tape = stage.tape.clone();
        stage.outside.passwords.expect_hash().returning(move |password| {
            tape.note("hash");
            Ok(PasswordHash::new(password.expose().to_owned()))
        });
        let tape = stage.tape.clone();
        stage.inside.users.expect_find_locked().with(eq(USER)).returning(move |_| {
            tape.note("lock account");
            Ok(Some(user()))
        });
        let tape = stage.tape.clone();
        stage.inside.mail_tokens.expect_find_locked().with(eq(token().hash()), eq(Purpose::ResetPassword)).returning(
            move |_, purpose| {
                tape.note("lock token");
                Ok(Some(record(purpose)))
            },
        );
        let tape = stage.tape.clone();
        stage.inside.mail_tokens.expect_delete().with(eq(USER), eq(Purpose::ResetPassword)).returning(move |_, _| {
            tape.note("use up");
            Ok(())
        });
        let tape = stage.tape.clone();
        let set = stage.inside.users.expect_set_password_hash();
        set.with(eq(USER), eq(PasswordHash::new("a new password".to_owned()))).once().returning(move |_, _| {
            tape.note("set");
            Ok(())
        });
        let tape = stage.tape.clone();
        stage.inside.users.expect_set_email_verified().with(eq(USER), eq(noon())).once().returning(move |_, _| {
            tape.note("verified");
            Ok(())
        });
        let tape = stage.tape.clone();
        stage.inside.sign_ins.expect_delete_all_of().with(eq(USER)).once().returning(move |_| {
            tape.note("end sign-ins");
            Ok(())
        });
        stage.inside.users.expect_find().returning(|_| Ok(Some(user())));
        let tape = stage.tape.clone();
        let notice = put(Topic::PasswordChanged, "user7@example.com");
        stage.inside.outbox.expect_insert().with(eq(notice)).once().returning(move |_| {
            tape.note("letter");
            Ok(())
        });
        let tape = stage.tape.clone();
        let services = stage.services();
        assert_eq!(code(services.mail.reset(&reset(&token().expose()), Language::Korean).await), "ok");
        let expected = [
            "hash",
            "begin",
            "lock account",
            "lock token",
            "use up",
            "set",
            "verified",
            "end sign-ins",
            // Once more, as any change of password does.
            "use up",
            "letter",
            "commit",
        ];
        assert_eq!(tape, expected.each_ref().map(|note| *note));
    }
}

mod delivery {
    use super::*;

    #[tokio::test]
    async fn nothing_that_is_due_opens_no_unit() {
        let mut stage = Stage::default();
        stage.outside.mailer = Some(MockMailer::default());
        stage.outside.outbox.expect_is_any_due().returning(|_| Ok(false));
        let tape = stage.tape.clone();
        assert_eq!(stage.services().mail.deliver().await.unwrap(), None);
        assert_eq!(tape, []);
    }

    #[tokio::test]
    async fn what_others_were_faster_to_take_is_left_to_them() {
        let mut stage = Stage::default();
        stage.outside.mailer = Some(MockMailer::default());
        stage.outside.outbox.expect_is_any_due().returning(|_| Ok(true));
        stage.inside.outbox.expect_take().returning(|_, _| Ok(None));
        let tape = stage.tape.clone();
        assert_eq!(stage.services().mail.deliver().await.unwrap(), None);
        assert_eq!(tape, ["begin", "commit"]);
    }

    /// No unit is open while the mail server thinks, and the letter is forgotten only when it has it.
    #[tokio::test]
    async fn a_letter_is_taken_then_written_then_sent_then_forgotten() {
        for (topic, token) in [(Topic::VerifyEmail, "put verify_email"), (Topic::ResetPassword, "put reset_password")] {
            let mut stage = due(queued(topic, 1), Some(user()));
            let (mut mailer, tape) = (MockMailer::default(), stage.tape.clone());
            mailer.expect_send().once().returning(move |_| {
                tape.note("send");
                Ok(())
            });
            stage.outside.mailer = Some(mailer);
            let tape = stage.tape.clone();
            let delivery = deliver(&stage.services()).await;
            assert_eq!(delivery, Delivery { letter: LETTER, topic, attempts: 1, fate: Fate::Sent });
            let order = ["begin", "take", "commit", "begin", token, "commit", "send", "begin", "delete", "commit"];
            assert_eq!(tape, order);
        }
    }

    /// Whatever is in the way: a letter that stayed would be sent twice.
    #[tokio::test]
    async fn a_letter_that_was_sent_is_forgotten_however_often_that_fails() {
        for (failures, outcome) in [(FORGETTING, "ok"), (FORGETTING + 1, "database_unavailable")] {
            let mut stage = due(queued(Topic::PasswordChanged, 1), Some(verified()));
            let (mailer, letters) = mailer(Ok(()));
            stage.outside.mailer = Some(mailer);
            // Taken, composed, and then the database is away for so many commits.
            let mut commits = 0;
            stage.commit = Box::new(move || {
                commits += 1;
                (commits > 2 && commits <= 2 + failures).then(unavailable)
            });
            assert_eq!(code(stage.services().mail.deliver().await), outcome);
            assert_eq!(letters.lock().unwrap().len(), 1);
        }
    }

    #[tokio::test]
    async fn the_token_in_the_letter_is_the_one_whose_hash_is_kept() {
        let mut stage = due(queued(Topic::VerifyEmail, 1), Some(user()));
        let kept = Arc::new(Mutex::new(None));
        let keep = kept.clone();
        stage.inside.mail_tokens.checkpoint();
        stage.inside.mail_tokens.expect_put().once().returning(move |record| {
            *keep.lock().expect("a record") = Some(record.clone());
            Ok(())
        });
        let (mailer, letters) = mailer(Ok(()));
        stage.outside.mailer = Some(mailer);
        deliver(&stage.services()).await;
        let letter = letters.lock().unwrap().pop().unwrap();
        let Message::VerifyEmail(token) = &letter.message else { panic!("{letter:?}") };
        let expected = MailTokenRecord {
            user: USER,
            purpose: Purpose::VerifyEmail,
            hash: token.hash(),
            email_key: "user7@example.com".to_owned(),
            expires_at: noon().plus(TimeDelta::minutes(30)),
        };
        assert_eq!(kept.lock().unwrap().take(), Some(expected));
        assert_eq!((letter.language, letter.created_at, letter.id), (Language::Korean, noon(), LETTER));
    }

    #[tokio::test]
    async fn only_who_has_proved_the_address_is_called_by_name() {
        let moved = |user: User| User::restore(UserRecord { email: address("new@example.com"), ..(*user).clone() });
        for (topic, reader, named) in [
            (Topic::PasswordChanged, user(), false),
            (Topic::PasswordChanged, verified(), true),
            (Topic::ResetPassword, verified(), true),
            (Topic::ResetPassword, user(), false),
            // What the new address has proved says nothing of the old one.
            (Topic::EmailChanged, moved(verified()), false),
            (Topic::PasswordChanged, moved(verified()), false),
        ] {
            let mut stage = due(queued(topic, 1), Some(reader));
            let (mailer, letters) = mailer(Ok(()));
            stage.outside.mailer = Some(mailer);
            deliver(&stage.services()).await;
            let letter = letters.lock().unwrap().pop().unwrap();
            assert_eq!(letter.name.is_some(), named, "{topic:?}");
            assert_eq!(letter.to, address("user7@example.com"));
        }
    }

    #[tokio::test]
    async fn what_is_for_nobody_is_dropped_unsent() {
        let moved = User::restore(UserRecord { email: address("new@example.com"), ..(*user()).clone() });
        for (topic, reader) in [
            (Topic::ResetPassword, None),
            (Topic::VerifyEmail, None),
            (Topic::PasswordChanged, None),
            (Topic::EmailChanged, None),
            (Topic::VerifyEmail, Some(verified())),
            (Topic::VerifyEmail, Some(moved.clone())),
            // It moved between the look-up by its address and the lock.
            (Topic::ResetPassword, Some(moved)),
        ] {
            let mut stage = due(queued(topic, 1), reader);
            stage.outside.mailer = Some(MockMailer::default());
            let tape = stage.tape.clone();
            assert_eq!(deliver(&stage.services()).await.fate, Fate::Dropped, "{topic:?}");
            assert_eq!(tape, ["begin", "take", "commit", "begin", "delete", "commit"]);
        }
    }

    #[tokio::test]
    async fn what_is_not_taken_waits_and_longer_each_time() {
        for (attempts, shortest, longest) in [(1, 1, 2), (2, 2, 4), (5, 16, 32), (99, 1800, 3600)] {
            let letter = queued(Topic::PasswordChanged, attempts);
            let mut stage = due(letter.clone(), Some(user()));
            stage.outside.mailer = Some(mailer(Err(refuses(false))).0);
            let tape = stage.tape.clone();
            let postponed = stage.inside.outbox.expect_postpone();
            postponed.withf(move |given, _| *given == letter).once().returning(move |_, due| {
                let seconds = (due.as_utc() - noon().as_utc()).num_milliseconds();
                assert!((shortest * 1000..=longest * 1000).contains(&seconds), "{attempts}: {seconds} ms");
                tape.note("postpone");
                Ok(())
            });
            let tape = stage.tape.clone();
            let fate = deliver(&stage.services()).await.fate;
            assert!(matches!(&fate, Fate::Postponed { reason, .. } if *reason == refuses(false).reason), "{fate:?}");
            assert_eq!(tape, ["begin", "take", "commit", "begin", "commit", "begin", "postpone", "commit"]);
        }
    }

    #[tokio::test]
    async fn what_is_refused_for_good_or_too_old_is_given_up() {
        let old = QueuedLetter { created_at: noon().plus(-PERSISTENCE), ..queued(Topic::EmailChanged, 100) };
        for (letter, is_final) in [(queued(Topic::EmailChanged, 1), true), (old, false)] {
            let mut stage = due(letter, Some(user()));
            stage.outside.mailer = Some(mailer(Err(refuses(is_final))).0);
            let tape = stage.tape.clone();
            let fate = deliver(&stage.services()).await.fate;
            assert_eq!(fate, Fate::GivenUp { reason: refuses(is_final).reason });
            assert_eq!(tape, ["begin", "take", "commit", "begin", "commit", "begin", "delete", "commit"]);
        }
        let young = QueuedLetter {
            created_at: noon().plus(-PERSISTENCE + TimeDelta::microseconds(1)),
            ..queued(Topic::EmailChanged, 100)
        };
        let mut stage = due(young, Some(user()));
        stage.inside.outbox.expect_postpone().returning(|_, _| Ok(()));
        stage.outside.mailer = Some(mailer(Err(refuses(false))).0);
        assert!(matches!(deliver(&stage.services()).await.fate, Fate::Postponed { .. }));
    }
}
