//! Registering, signing in and out, refreshing, the password, deleting the account.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use mockall::predicate::{always, eq};
use mundap_domain::account::{
    ACCESS_LIFETIME, AccessClaims, Password, PasswordChange, PasswordHash, Registration, TokenPair,
};
use mundap_domain::audit::{Action, AuditId, NewAuditEntry};
use mundap_domain::env::Timestamp;
use mundap_domain::mail::{Language, Purpose};
use mundap_domain::sign_in::{GRACE, LIFETIME, NewSignIn, RefreshToken, SignIn, SignInId, SignInRecord, TokenHash};
use mundap_domain::testing::{Board, Mocks, a_user, board, noon, suspended};
use mundap_domain::user::{DisplayName, Email, NewUser, Role, UserId};
use mundap_domain::version::Expected;
use mundap_domain::{Actor, Error};

use crate::stage::{Stage, admin, code, duplicate, made_on, member};

const USER: UserId = UserId::new(7);
const SIGN_IN: SignInId = SignInId::new(70);

fn address(raw: &str) -> Email {
    Email::parse(raw).expect("an address")
}

fn hash(of: &str) -> PasswordHash {
    PasswordHash::new(format!("hash of {of}"))
}

/// The token whose halves are these bytes, over and over: the entropy of the tests counts up from 1.
fn token(family: u8, secret: u8) -> RefreshToken {
    RefreshToken::parse(&URL_SAFE_NO_PAD.encode([[family; 32], [secret; 32]].concat())).expect("a token")
}

fn of(byte: u8) -> TokenHash {
    TokenHash::of(&[byte; 32])
}

/// What the audit log says of something done to account 7 at noon.
fn written(by: &Actor, action: Action) -> NewAuditEntry {
    NewAuditEntry { actor: by.account().map(|user| user.id), action, target: Some(USER), created_at: noon() }
}

/// What an access token that is issued at noon says.
fn claims() -> AccessClaims {
    let expires_at = noon().plus(TimeDelta::minutes(10));
    AccessClaims { user: USER, sign_in: SIGN_IN, issued_at: noon(), expires_at }
}

mod registering {
    use super::*;

    fn registration() -> Registration {
        Registration::parse(Some("New@Example.com"), Some("a password"), Some("new")).expect("a registration")
    }

    fn new(role: Role) -> NewUser {
        NewUser {
            email: address("New@example.com"),
            display_name: DisplayName::parse("new").expect("a name"),
            role,
            password: Some(hash("a password")),
            created_at: noon(),
        }
    }

    /// Hashing takes long, and while a unit is open others wait for it.
    #[tokio::test]
    async fn the_password_is_hashed_before_a_unit_is_opened_and_stored_hashed() {
        let mut stage = Stage::default();
        let tape = stage.tape.clone();
        stage.outside.passwords.expect_hash().once().returning(move |password| {
            tape.note("hash");
            Ok(hash(password.expose()))
        });
        let tape = stage.tape.clone();
        stage.inside.users.expect_insert().with(eq(new(Role::Member))).once().returning(move |_| {
            tape.note("insert");
            Ok(a_user(7, Role::Member))
        });
        let tape = stage.tape.clone();
        let registered =
            stage.services().accounts.register(&registration(), None, Language::English).await.unwrap().into_inner();
        assert_eq!(registered, a_user(7, Role::Member), "as it was stored");
        assert_eq!(tape, ["hash", "begin", "insert", "commit"]);
    }

    #[tokio::test]
    async fn an_administrator_adds_an_account_of_any_role() {
        for by in [admin(1), Actor::Operator] {
            for role in [Role::Member, Role::Moderator, Role::Admin] {
                let mut mocks = Mocks::default();
                mocks.passwords.expect_hash().once().returning(|password| Ok(hash(password.expose())));
                mocks.users.expect_insert().with(eq(new(role))).once().returning(move |_| Ok(a_user(7, role)));
                let entry = written(&by, Action::AddedUser { role });
                mocks.audit.expect_insert().with(eq(entry)).once().returning(|_| Ok(AuditId::new(1)));
                let Board { services, store, .. } = board(mocks);
                assert_eq!(services.accounts.add(&by, &registration(), role).await.unwrap(), a_user(7, role));
                assert_eq!(store.commits(), 1);
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_another_account_has_is_taken() {
        let mut mocks = Mocks::default();
        mocks.passwords.expect_hash().returning(|_| Ok(hash("a password")));
        mocks.users.expect_insert().returning(|_| Err(duplicate()));
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(code(services.accounts.register(&registration(), None, Language::English).await), "email_taken");
        assert_eq!(code(services.accounts.add(&Actor::Operator, &registration(), Role::Admin).await), "email_taken");
        assert_eq!((store.begun(), store.commits(), clock.pauses()), (2, 0, 0), "refused, and not tried again");
    }

    #[tokio::test]
    async fn a_full_hasher_is_not_asked_again() {
        let mut mocks = Mocks::default();
        mocks.passwords.expect_hash().once().returning(|_| Err(Error::Busy("a full queue".into())));
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(code(services.accounts.register(&registration(), None, Language::English).await), "busy");
        assert_eq!((store.begun(), clock.pauses()), (0, 0));
    }
}

mod signing_in {
    use super::*;

    const EMAIL: &str = "user7@example.com";

    /// User 7 has signed in, and the entropy has given 1 for the family and 2 for the secret.
    fn new_sign_in() -> NewSignIn {
        let expires_at = noon().plus(TimeDelta::days(30));
        NewSignIn { user: USER, family: of(1), current: of(2), created_at: noon(), expires_at }
    }

    #[tokio::test]
    async fn the_right_password_gives_a_pair_of_tokens() {
        let mut stage = Stage::default();
        let known = eq(address(EMAIL));
        stage.outside.users.expect_find_by_email().with(known).once().returning(|_| Ok(Some(a_user(7, Role::Member))));
        stage.outside.users.expect_password_hash().with(eq(USER)).once().returning(|_| Ok(Some(hash("it"))));
        let tape = stage.tape.clone();
        let (attempt, stored) = (eq(Password::attempt("it")), eq(Some(hash("it"))));
        stage.outside.passwords.expect_verify().with(attempt, stored).once().returning(move |_, _| {
            tape.note("verify");
            Ok(true)
        });
        stage.inside.users.expect_password_hash().with(eq(USER)).once().returning(|_| Ok(Some(hash("it"))));
        let tape = stage.tape.clone();
        stage.inside.sign_ins.expect_insert().with(eq(new_sign_in())).once().returning(move |_| {
            tape.note("insert");
            Ok(SIGN_IN)
        });
        let tape = stage.tape.clone();
        stage.outside.access_tokens.expect_issue().with(eq(claims())).once().returning(move |_| {
            tape.note("issue");
            Ok("access".to_owned())
        });
        let tape = stage.tape.clone();

        let pair = stage.services().accounts.sign_in("user7@EXAMPLE.com", "it").await.unwrap();
        let expires_in = TimeDelta::minutes(10);
        assert_eq!(pair, TokenPair { access_token: "access".to_owned(), expires_in, refresh_token: token(1, 2) });
        assert_eq!(
            tape,
            ["verify", "begin", "insert", "commit", "issue"],
            "no unit is open while passwords are compared"
        );
    }

    /// Whatever is wrong, the answer is the same and takes as long: one comparison.
    #[tokio::test]
    async fn whatever_is_wrong_takes_one_comparison_and_gets_one_answer() {
        for (what, email, known, stored) in [
            ("an unknown address", EMAIL, false, None),
            ("a wrong password", EMAIL, true, Some(hash("another"))),
            ("an account without a password", EMAIL, true, None),
            ("no address at all", "nobody", false, None),
            ("an empty address", "", false, None),
        ] {
            let mut mocks = Mocks::default();
            if Email::parse(email).is_ok() {
                let user = known.then(|| a_user(7, Role::Member));
                mocks.users.expect_find_by_email().once().returning(move |_| Ok(user.clone()));
            }
            if known {
                let stored = stored.clone();
                mocks.users.expect_password_hash().with(eq(USER)).once().returning(move |_| Ok(stored.clone()));
            }
            let (attempt, against) = (eq(Password::attempt("guess")), eq(stored));
            mocks.passwords.expect_verify().with(attempt, against).once().returning(|_, _| Ok(false));
            let Board { services, store, .. } = board(mocks);
            assert_eq!(code(services.accounts.sign_in(email, "guess").await), "invalid_credentials", "{what}");
            assert_eq!(store.begun(), 0, "{what}");
        }
    }

    /// Nobody is signed in for what a hasher says about no hash at all.
    #[tokio::test]
    async fn an_unknown_address_is_refused_whatever_the_hasher_says() {
        for email in [EMAIL, "nobody"] {
            let mut mocks = Mocks::default();
            mocks.users.expect_find_by_email().returning(|_| Ok(None));
            mocks.passwords.expect_verify().with(always(), eq(None)).once().returning(|_, _| Ok(true));
            let Board { services, store, .. } = board(mocks);
            assert_eq!(code(services.accounts.sign_in(email, "guess").await), "invalid_credentials");
            assert_eq!(store.begun(), 0);
        }
    }

    #[tokio::test]
    async fn a_password_is_compared_as_it_is_normalised_and_however_long_it_is() {
        let long = "x".repeat(1_000);
        for (typed, compared) in [("\u{1112}\u{1161}\u{11ab}", "\u{d55c}"), ("", ""), (long.as_str(), long.as_str())] {
            let mut mocks = Mocks::default();
            mocks.users.expect_find_by_email().returning(|_| Ok(None));
            let attempt = eq(Password::attempt(compared));
            mocks.passwords.expect_verify().with(attempt, always()).once().returning(|_, _| Ok(false));
            let refused = board(mocks).services.accounts.sign_in(EMAIL, typed).await;
            assert_eq!(code(refused), "invalid_credentials");
        }
    }

    /// Changing a password ends every sign-in: one with the old password that comes a moment later must not stay.
    #[tokio::test]
    async fn a_password_that_changed_while_it_was_compared_is_refused() {
        for now in [Some(hash("another")), None] {
            let mut stage = Stage::default();
            stage.outside.users.expect_find_by_email().returning(|_| Ok(Some(a_user(7, Role::Member))));
            stage.outside.users.expect_password_hash().returning(|_| Ok(Some(hash("it"))));
            stage.outside.passwords.expect_verify().once().returning(|_, _| Ok(true));
            stage.inside.users.expect_password_hash().with(eq(USER)).once().returning(move |_| Ok(now.clone()));
            let tape = stage.tape.clone();
            assert_eq!(code(stage.services().accounts.sign_in(EMAIL, "it").await), "invalid_credentials");
            assert_eq!(tape, ["begin", "rollback"]);
        }
    }

    /// It may read, and read or delete itself.
    #[tokio::test]
    async fn a_suspended_account_can_sign_in() {
        let mut mocks = Mocks::default();
        let user = suspended(&a_user(7, Role::Member));
        mocks.users.expect_find_by_email().returning(move |_| Ok(Some(user.clone())));
        mocks.users.expect_password_hash().returning(|_| Ok(Some(hash("it"))));
        mocks.passwords.expect_verify().returning(|_, _| Ok(true));
        mocks.sign_ins.expect_insert().once().returning(|_| Ok(SIGN_IN));
        mocks.access_tokens.expect_issue().once().returning(|_| Ok("access".to_owned()));
        assert_eq!(code(board(mocks).services.accounts.sign_in(EMAIL, "it").await), "ok");
    }

    #[tokio::test]
    async fn a_full_hasher_is_not_asked_again() {
        let mut mocks = Mocks::default();
        mocks.users.expect_find_by_email().returning(|_| Ok(None));
        mocks.passwords.expect_verify().once().returning(|_, _| Err(Error::Busy("a full queue".into())));
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(code(services.accounts.sign_in(EMAIL, "it").await), "busy");
        assert_eq!((store.begun(), clock.pauses()), (0, 0));
    }

    #[test]
    fn tokens_live_as_long_as_they_say() {
        assert_eq!(ACCESS_LIFETIME, TimeDelta::minutes(10));
        assert_eq!(LIFETIME, TimeDelta::days(30));
        assert_eq!(GRACE, TimeDelta::seconds(60));
    }
}

mod refreshing {
    use super::*;

    /// The sign-in of family 9 whose good token is 8 and whose token before was 7, rotated half an hour ago.
    fn stored() -> SignInRecord {
        SignInRecord {
            id: SIGN_IN,
            user: USER,
            family: of(9),
            current: of(8),
            previous: Some(of(7)),
            forgiven: false,
            created_at: noon().plus(TimeDelta::days(-1)),
            rotated_at: noon().plus(TimeDelta::minutes(-30)),
            expires_at: noon().plus(TimeDelta::days(1)),
        }
    }

    fn holding(record: SignInRecord) -> Mocks {
        let mut mocks = Mocks::default();
        let found = move |_: &TokenHash| Ok(Some(SignIn::restore(record.clone())));
        mocks.sign_ins.expect_find_locked().with(eq(of(9))).once().returning(found);
        mocks
    }

    #[tokio::test]
    async fn the_good_token_is_exchanged_for_a_new_pair() {
        let mut stage = Stage { inside: holding(stored()), ..Stage::default() };
        let rotated = SignIn::restore(SignInRecord {
            current: of(1),
            previous: Some(of(8)),
            rotated_at: noon(),
            expires_at: noon().plus(TimeDelta::days(30)),
            ..stored()
        });
        let tape = stage.tape.clone();
        stage.inside.sign_ins.expect_update().with(eq(rotated)).once().returning(move |_| {
            tape.note("update");
            Ok(())
        });
        let tape = stage.tape.clone();
        stage.outside.access_tokens.expect_issue().with(eq(claims())).once().returning(move |_| {
            tape.note("issue");
            Ok("access".to_owned())
        });
        let tape = stage.tape.clone();
        let pair = stage.services().accounts.refresh(&token(9, 8).expose()).await.unwrap();
        let expires_in = TimeDelta::minutes(10);
        let refresh_token = token(9, 1);
        assert_eq!(pair, TokenPair { access_token: "access".to_owned(), expires_in, refresh_token }, "same family");
        assert_eq!(tape, ["begin", "update", "commit", "issue"]);
    }

    /// The client whose answer was lost repeats its last token.
    #[tokio::test]
    async fn the_token_before_is_taken_once_within_a_minute() {
        let just_now = noon().plus(TimeDelta::seconds(-59));
        let mut mocks = holding(SignInRecord { rotated_at: just_now, ..stored() });
        let forgiven = SignIn::restore(SignInRecord {
            current: of(1),
            forgiven: true,
            rotated_at: just_now,
            expires_at: noon().plus(TimeDelta::days(30)),
            ..stored()
        });
        mocks.sign_ins.expect_update().with(eq(forgiven)).once().returning(|_| Ok(()));
        mocks.access_tokens.expect_issue().once().returning(|_| Ok("access".to_owned()));
        let Board { services, store, .. } = board(mocks);
        let pair = services.accounts.refresh(&token(9, 7).expose()).await.unwrap();
        assert_eq!(pair.refresh_token, token(9, 1));
        assert_eq!(store.commits(), 1);
    }

    /// Ending the sign-in is what a reused token must bring about, so it is committed although the caller is refused.
    #[tokio::test]
    async fn a_token_that_is_turned_down_ends_its_sign_in() {
        let just_now = noon().plus(TimeDelta::seconds(-59));
        for (what, secret, record) in [
            ("the token before, after a minute", 7, SignInRecord { rotated_at: noon().plus(-GRACE), ..stored() }),
            ("the token before, twice", 7, SignInRecord { rotated_at: just_now, forgiven: true, ..stored() }),
            ("a token from long ago", 6, SignInRecord { rotated_at: just_now, ..stored() }),
            ("a guessed token of the first sign-in", 6, SignInRecord { previous: None, ..stored() }),
            ("an expired token", 8, SignInRecord { expires_at: noon(), ..stored() }),
        ] {
            let mut mocks = holding(record);
            mocks.sign_ins.expect_delete().with(eq(SIGN_IN)).once().returning(|_| Ok(()));
            let Board { services, store, clock, .. } = board(mocks);
            let refused = services.accounts.refresh(&token(9, secret).expose()).await;
            assert_eq!(code(refused), "invalid_refresh_token", "{what}");
            assert_eq!((store.begun(), store.commits(), clock.pauses()), (1, 1, 0), "{what}");
        }
    }

    #[tokio::test]
    async fn a_token_of_no_sign_in_is_refused() {
        let mut mocks = Mocks::default();
        mocks.sign_ins.expect_find_locked().with(eq(of(9))).once().returning(|_| Ok(None));
        let Board { services, store, .. } = board(mocks);
        assert_eq!(code(services.accounts.refresh(&token(9, 8).expose()).await), "invalid_refresh_token");
        assert_eq!(store.commits(), 0);
    }

    #[tokio::test]
    async fn rubbish_is_refused_before_a_unit_is_opened() {
        let good = token(9, 8).expose();
        let Board { services, store, .. } = board(Mocks::default());
        for rubbish in ["", "x", "한국어", &good[1..], &format!("{good}A"), &format!("{good}=="), "a.b.c"] {
            assert_eq!(code(services.accounts.refresh(rubbish).await), "invalid_refresh_token", "{rubbish:?}");
        }
        assert_eq!(store.begun(), 0);
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_signed_is_a_fault_of_ours() {
        let mut mocks = holding(stored());
        mocks.sign_ins.expect_update().returning(|_| Ok(()));
        mocks.access_tokens.expect_issue().returning(|_| Err(Error::internal("no key")));
        assert_eq!(code(board(mocks).services.accounts.refresh(&token(9, 8).expose()).await), "internal_error");
    }

    mod revoking {
        use super::*;

        #[tokio::test]
        async fn a_refresh_token_ends_its_sign_in_however_old_it_is() {
            for secret in [8, 7, 6] {
                let mut mocks = holding(stored());
                mocks.access_tokens.expect_verify().returning(|_, _| None);
                mocks.sign_ins.expect_delete().with(eq(SIGN_IN)).once().returning(|_| Ok(()));
                let Board { services, store, .. } = board(mocks);
                assert_eq!(code(services.accounts.revoke(&token(9, secret).expose()).await), "ok");
                assert_eq!((store.begun(), store.commits()), (1, 1));
            }
        }

        #[tokio::test]
        async fn an_access_token_ends_its_sign_in() {
            let mut mocks = Mocks::default();
            let at_noon = eq(noon());
            mocks
                .access_tokens
                .expect_verify()
                .withf(move |token, now| token == "access" && mockall::Predicate::eval(&at_noon, now))
                .once()
                .returning(|_, _| Some((USER, SIGN_IN)));
            mocks.sign_ins.expect_delete().with(eq(SIGN_IN)).once().returning(|_| Ok(()));
            let Board { services, store, .. } = board(mocks);
            assert_eq!(code(services.accounts.revoke("access").await), "ok");
            assert_eq!((store.begun(), store.commits()), (1, 1));
        }

        #[tokio::test]
        async fn a_refresh_token_of_no_sign_in_ends_nothing_and_is_no_error() {
            let mut mocks = Mocks::default();
            mocks.access_tokens.expect_verify().returning(|_, _| None);
            mocks.sign_ins.expect_find_locked().with(eq(of(9))).once().returning(|_| Ok(None));
            assert_eq!(code(board(mocks).services.accounts.revoke(&token(9, 8).expose()).await), "ok");
        }

        #[tokio::test]
        async fn rubbish_ends_nothing_and_opens_no_unit() {
            let mut mocks = Mocks::default();
            mocks.access_tokens.expect_verify().returning(|_, _| None);
            let Board { services, store, .. } = board(mocks);
            for rubbish in ["", "x", "한국어", "a.b.c"] {
                assert_eq!(code(services.accounts.revoke(rubbish).await), "ok", "{rubbish:?}");
            }
            assert_eq!(store.begun(), 0);
        }
    }
}

mod authenticating {
    use super::*;

    #[tokio::test]
    async fn an_access_token_speaks_for_the_account_as_it_stands_now() {
        for user in [a_user(7, Role::Admin), suspended(&a_user(7, Role::Member))] {
            let mut stage = Stage::default();
            stage
                .outside
                .access_tokens
                .expect_verify()
                .withf(|token, now| token == "access" && *now == noon())
                .once()
                .returning(|_, _| Some((USER, SIGN_IN)));
            let found = user.clone();
            let signed_in = stage.outside.users.expect_find_signed_in();
            signed_in.with(eq(USER), eq(SIGN_IN)).once().returning(move |_, _| Ok(Some(found.clone())));
            let tape = stage.tape.clone();
            let actor = stage.services().accounts.authenticate("access").await.unwrap();
            assert_eq!(actor.account(), Some(&user));
            assert_eq!(tape, [], "a read opens no unit");
        }
    }

    #[tokio::test]
    async fn the_token_of_what_goes_on_has_to_be_good_when_it_came_and_its_sign_in_now() {
        let then = noon().plus(TimeDelta::minutes(-20));
        for (found, said) in [(Some(a_user(7, Role::Member)), "ok"), (None, "invalid_token")] {
            let mut mocks = Mocks::default();
            let of_then =
                |token: &str, at: &Timestamp| token == "access" && *at == noon().plus(TimeDelta::minutes(-20));
            mocks.access_tokens.expect_verify().withf(of_then).once().returning(|_, _| Some((USER, SIGN_IN)));
            mocks.users.expect_find_signed_in().once().returning(move |_, _| Ok(found.clone()));
            assert_eq!(code(board(mocks).services.accounts.authenticate_since("access", then).await), said);
        }
    }

    #[tokio::test]
    async fn a_token_that_is_not_ours_is_refused_before_anything_is_read() {
        let mut mocks = Mocks::default();
        mocks.access_tokens.expect_verify().once().returning(|_, _| None);
        assert_eq!(code(board(mocks).services.accounts.authenticate("forged").await), "invalid_token");
    }

    #[tokio::test]
    async fn a_token_whose_sign_in_has_ended_is_refused() {
        let mut mocks = Mocks::default();
        mocks.access_tokens.expect_verify().once().returning(|_, _| Some((USER, SIGN_IN)));
        mocks.users.expect_find_signed_in().once().returning(|_, _| Ok(None));
        assert_eq!(code(board(mocks).services.accounts.authenticate("access").await), "invalid_token");
    }
}

mod trusting {
    use super::*;

    fn new(email: &str, display_name: &str) -> NewUser {
        NewUser {
            email: address(email),
            display_name: DisplayName::parse(display_name).expect("a name"),
            role: Role::Member,
            password: None,
            created_at: noon(),
        }
    }

    #[tokio::test]
    async fn an_address_is_recognised_without_becoming_a_member() {
        for user in [Some(a_user(7, Role::Moderator)), None] {
            let mut stage = Stage::default();
            let (email, found) = (address("user7@example.com"), user.clone());
            let by_email = stage.outside.users.expect_find_by_email();
            by_email.with(eq(email.clone())).once().returning(move |_| Ok(found.clone()));
            let tape = stage.tape.clone();
            let recognised = stage.services().accounts.recognise(&email).await.unwrap();
            assert_eq!(recognised.as_ref().and_then(Actor::account), user.as_ref());
            assert_eq!(recognised.is_some(), user.is_some(), "nobody is not somebody anonymous");
            assert_eq!(tape, []);
        }
    }

    #[tokio::test]
    async fn a_known_address_is_its_account() {
        let mut mocks = Mocks::default();
        let email = address("user7@example.com");
        mocks
            .users
            .expect_find_by_email()
            .with(eq(email.clone()))
            .once()
            .returning(|_| Ok(Some(a_user(7, Role::Moderator))));
        let Board { services, store, .. } = board(mocks);
        let actor = services.accounts.trust(&email).await.unwrap();
        assert_eq!(actor.account(), Some(&a_user(7, Role::Moderator)));
        assert_eq!(store.begun(), 0);
    }

    #[tokio::test]
    async fn an_unknown_address_becomes_a_member_without_a_password() {
        let long = "u".repeat(64);
        for (email, name) in [("user7@example.com", "user7"), (&format!("{long}@example.com"), &long[..50])] {
            let mut stage = Stage::default();
            stage.outside.users.expect_find_by_email().once().returning(|_| Ok(None));
            let stored = eq(new(email, name));
            stage.inside.users.expect_insert().with(stored).once().returning(|_| Ok(a_user(7, Role::Member)));
            let tape = stage.tape.clone();
            let actor = stage.services().accounts.trust(&address(email)).await.unwrap();
            assert_eq!(actor.account(), Some(&a_user(7, Role::Member)));
            assert_eq!(tape, ["begin", "commit"]);
        }
    }

    /// Two first requests at once: one makes the member, the other finds it.
    #[tokio::test]
    async fn whoever_comes_second_gets_the_member_that_the_first_made() {
        for (found, outcome) in [(Some(a_user(7, Role::Member)), "ok"), (None, "email_taken")] {
            let mut stage = Stage::default();
            let mut calls = 0;
            let found_later = found.clone();
            stage.outside.users.expect_find_by_email().times(2).returning(move |_| {
                calls += 1;
                Ok(if calls == 1 { None } else { found_later.clone() })
            });
            stage.inside.users.expect_insert().once().returning(|_| Err(duplicate()));
            let tape = stage.tape.clone();
            let trusted = stage.services().accounts.trust(&address("user7@example.com")).await;
            assert_eq!(trusted.as_ref().ok().and_then(Actor::account), found.as_ref());
            assert_eq!(code(trusted), outcome);
            assert_eq!(tape, ["begin", "rollback"]);
        }
    }
}

mod changing_the_password {
    use super::*;

    fn change() -> PasswordChange {
        PasswordChange::parse(Some("old"), Some("new password")).expect("a change")
    }

    /// A stage that expects the new password to be hashed, stored, and every sign-in to end.
    fn expecting(mut stage: Stage) -> Stage {
        let tape = stage.tape.clone();
        let new = eq(Password::attempt("new password"));
        stage.outside.passwords.expect_hash().with(new).once().returning(move |password| {
            tape.note("hash");
            Ok(hash(password.expose()))
        });
        // May be read again inside, to see that it is still the one that was compared.
        stage.inside.users.expect_password_hash().with(eq(USER)).returning(|_| Ok(Some(hash("old"))));
        let tape = stage.tape.clone();
        let stored = stage.inside.users.expect_set_password_hash();
        stored.with(eq(USER), eq(hash("new password"))).once().returning(move |_, _| {
            tape.note("set");
            Ok(())
        });
        let tape = stage.tape.clone();
        stage.inside.sign_ins.expect_delete_all_of().with(eq(USER)).once().returning(move |_| {
            tape.note("end sign-ins");
            Ok(())
        });
        let void = stage.inside.mail_tokens.expect_delete();
        void.with(eq(USER), eq(Purpose::ResetPassword)).once().returning(|_, _| Ok(()));
        stage
    }

    #[tokio::test]
    async fn a_change_ends_every_sign_in_in_the_same_unit() {
        let mut stage = expecting(Stage::default());
        stage.outside.users.expect_password_hash().with(eq(USER)).once().returning(|_| Ok(Some(hash("old"))));
        let tape = stage.tape.clone();
        let (attempt, stored) = (eq(Password::attempt("old")), eq(Some(hash("old"))));
        stage.outside.passwords.expect_verify().with(attempt, stored).once().returning(move |_, _| {
            tape.note("verify");
            Ok(true)
        });
        let tape = stage.tape.clone();
        assert_eq!(
            code(stage.services().accounts.change_password(&member(7), &change(), Language::English).await),
            "ok"
        );
        assert_eq!(tape, ["verify", "hash", "begin", "set", "end sign-ins", "commit"]);
    }

    /// Of two changes made with the same old password the second one is refused, or it would undo the first.
    #[tokio::test]
    async fn a_password_that_changed_while_it_was_compared_is_not_changed_again() {
        for now in [Some(hash("another")), None] {
            let mut stage = Stage::default();
            stage.outside.users.expect_password_hash().returning(|_| Ok(Some(hash("old"))));
            stage.outside.passwords.expect_verify().returning(|_, _| Ok(true));
            stage.outside.passwords.expect_hash().returning(|password| Ok(hash(password.expose())));
            stage.inside.users.expect_password_hash().with(eq(USER)).returning(move |_| Ok(now.clone()));
            let tape = stage.tape.clone();
            let refused = stage.services().accounts.change_password(&member(7), &change(), Language::English).await;
            assert_eq!(code(refused), "invalid_credentials");
            assert_eq!(tape, ["begin", "rollback"]);
        }
    }

    #[tokio::test]
    async fn the_wrong_current_password_changes_nothing() {
        for stored in [Some(hash("another")), None] {
            let mut mocks = Mocks::default();
            let found = stored.clone();
            mocks.users.expect_password_hash().with(eq(USER)).once().returning(move |_| Ok(found.clone()));
            mocks.passwords.expect_verify().with(always(), eq(stored)).once().returning(|_, _| Ok(false));
            let Board { services, store, .. } = board(mocks);
            let refused = services.accounts.change_password(&member(7), &change(), Language::English).await;
            assert_eq!(code(refused), "invalid_credentials");
            assert_eq!(store.begun(), 0, "and the new one is not even hashed");
        }
    }

    #[tokio::test]
    async fn an_administrator_gives_another_password_to_the_account_with_this_address() {
        for by in [admin(1), Actor::Operator] {
            let mut stage = expecting(Stage::default());
            let email = address("user7@example.com");
            let (tape, entry) = (stage.tape.clone(), written(&by, Action::ResetPassword));
            stage.inside.audit.expect_insert().with(eq(entry)).once().returning(move |_| {
                tape.note("audit");
                Ok(AuditId::new(1))
            });
            let found = stage.outside.users.expect_find_by_email();
            found.with(eq(email.clone())).once().returning(|_| Ok(Some(a_user(7, Role::Member))));
            let tape = stage.tape.clone();
            let new = Password::parse("new password").unwrap();
            assert_eq!(code(stage.services().accounts.reset_password(&by, &email, &new).await), "ok");
            assert_eq!(tape, ["hash", "begin", "audit", "set", "end sign-ins", "commit"]);
        }
    }

    #[tokio::test]
    async fn no_password_is_given_to_an_account_that_is_not_there() {
        let mut mocks = Mocks::default();
        mocks.users.expect_find_by_email().once().returning(|_| Ok(None));
        let Board { services, store, .. } = board(mocks);
        let new = Password::parse("new password").unwrap();
        let refused = services.accounts.reset_password(&admin(1), &address("user7@example.com"), &new).await;
        assert_eq!(code(refused), "user_not_found");
        assert_eq!(store.begun(), 0);
    }
}

mod deleting {
    use super::*;

    #[tokio::test]
    async fn a_deleted_account_is_forgotten_and_signed_out_everywhere() {
        for expected in [Expected::Any, made_on(1)] {
            let mut stage = Stage::default();
            stage.inside.users.expect_find_locked().with(eq(USER)).returning(|_| Ok(Some(a_user(7, Role::Member))));
            let tape = stage.tape.clone();
            stage.inside.users.expect_erase().with(eq(USER), eq(noon())).once().returning(move |_, _| {
                tape.note("erase");
                Ok(())
            });
            let tape = stage.tape.clone();
            stage.inside.sign_ins.expect_delete_all_of().with(eq(USER)).once().returning(move |_| {
                tape.note("end sign-ins");
                Ok(())
            });
            let tape = stage.tape.clone();
            stage.inside.receipts.expect_delete_all_of().with(eq(USER)).once().returning(move |_| {
                tape.note("forget receipts");
                Ok(())
            });
            let tape = stage.tape.clone();
            stage.inside.outbox.expect_delete_all_of().with(eq(USER)).once().returning(move |_| {
                tape.note("forget letters");
                Ok(())
            });
            let tape = stage.tape.clone();
            stage.inside.mail_tokens.expect_delete_all_of().with(eq(USER)).once().returning(move |_| {
                tape.note("void tokens");
                Ok(())
            });
            let tape = stage.tape.clone();
            assert_eq!(code(stage.services().accounts.delete(&member(7), &expected).await), "ok");
            assert_eq!(
                tape,
                ["begin", "forget letters", "erase", "end sign-ins", "forget receipts", "void tokens", "commit"]
            );
        }
    }

    #[tokio::test]
    async fn an_account_that_was_deleted_a_moment_ago_is_not_deleted_again() {
        let mut mocks = Mocks::default();
        mocks.users.expect_find_locked().once().returning(|_| Ok(None));
        let Board { services, store, clock, .. } = board(mocks);
        assert_eq!(code(services.accounts.delete(&member(7), &Expected::Any).await), "invalid_token");
        assert_eq!((store.begun(), store.commits(), clock.pauses()), (1, 0, 0), "refused, and not tried again");
    }

    #[tokio::test]
    async fn an_account_that_has_moved_on_is_not_deleted() {
        let mut mocks = Mocks::default();
        mocks.users.expect_find_locked().returning(|_| Ok(Some(a_user(7, Role::Member))));
        let Board { services, store, .. } = board(mocks);
        assert_eq!(code(services.accounts.delete(&member(7), &made_on(2)).await), "version_mismatch");
        assert_eq!(store.commits(), 0);
    }
}
