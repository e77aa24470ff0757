//! What a text, an address, a name and a password may be, and what a draft says of a wrong one.

use chrono::{DateTime, TimeDelta, Utc};
use mundap_domain::account::{Password, PasswordChange, PasswordHash, Registration};
use mundap_domain::comment::{CommentContent, CommentDraft, CommentEdit, CommentId};
use mundap_domain::env::Timestamp;
use mundap_domain::error::{Broken, Violations};
use mundap_domain::qna::{Content, QnaDraft, QnaEdit, QnaId, Title};
use mundap_domain::sign_in::{RefreshToken, SignInId, TokenHash};
use mundap_domain::testing::{a_user, noon};
use mundap_domain::user::{DisplayName, Email, Role, UserEdit, UserId};
use mundap_domain::version::{Expected, Version};

use crate::stage::{code, made_on};

/// One syllable and one character, however it is typed.
const COMPOSED: &str = "\u{d55c}";
const DECOMPOSED: &str = "\u{1112}\u{1161}\u{11ab}";

type Parse = fn(&str) -> Result<String, Vec<Broken>>;

/// Every text that people write, by its parser.
const TEXTS: [(&str, Parse); 4] = [
    ("Title", |raw| Title::parse(raw).map(|text| text.as_str().to_owned())),
    ("Content", |raw| Content::parse(raw).map(|text| text.as_str().to_owned())),
    ("CommentContent", |raw| CommentContent::parse(raw).map(|text| text.as_str().to_owned())),
    ("DisplayName", |raw| DisplayName::parse(raw).map(|text| text.as_str().to_owned())),
];

fn parser(name: &str) -> Parse {
    TEXTS.iter().find(|(text, _)| *text == name).expect("a text").1
}

/// `field code`, in the order in which they were found.
fn said(violations: &Violations) -> Vec<String> {
    violations.iter().map(|violation| format!("{} {}", violation.field, violation.rule.code())).collect()
}

#[test]
fn a_text_is_counted_in_characters_up_to_its_limit() {
    for (name, max) in [("Title", 255), ("Content", 20_000), ("CommentContent", 20_000), ("DisplayName", 50)] {
        let parse = parser(name);
        for character in ["a", COMPOSED, DECOMPOSED, "\u{1f600}"] {
            let longest = parse(&character.repeat(max)).unwrap();
            assert_eq!(longest.chars().count(), max, "{name} of {character:?}");
            let too_long = parse(&character.repeat(max + 1)).unwrap_err();
            assert_eq!(too_long, [Broken::TooLong { max }], "{name} of {character:?}");
        }
    }
}

#[test]
fn the_limits_are_those_of_the_contract() {
    assert_eq!((Title::MIN, Title::MAX), (1, 255));
    assert_eq!(Content::MAX, 20_000);
    assert_eq!((CommentContent::MIN, CommentContent::MAX), (1, 20_000));
    assert_eq!((DisplayName::MIN, DisplayName::MAX), (1, 50));
    assert_eq!((Password::MIN, Password::MAX), (8, 256));
    assert_eq!((Email::MIN, Email::MAX), (3, 254));
}

#[test]
fn only_the_content_of_a_question_may_be_empty() {
    for (name, parse) in TEXTS {
        match name {
            "Content" => assert_eq!(parse("").unwrap(), ""),
            _ => assert_eq!(parse("").unwrap_err(), [Broken::TooShort { min: 1 }], "{name}"),
        }
    }
}

#[test]
fn only_the_content_of_a_question_may_be_blank() {
    // The last ones are no white space, and nobody sees them either.
    for blank in [
        " ",
        "\n\t",
        "\u{3000}",
        "\u{a0}\u{a0}",
        "\u{2028}",
        "\u{3164}",
        " \u{200b}\u{feff}",
        "\u{2800}",
        "\u{ad}\u{fe0f}",
    ] {
        for (name, parse) in TEXTS {
            match name {
                "Content" => assert_eq!(parse(blank).unwrap(), blank),
                _ => assert_eq!(parse(blank).unwrap_err(), [Broken::Blank], "{name} {blank:?}"),
            }
        }
    }
}

#[test]
fn every_control_character_but_newline_and_tab_is_refused() {
    let controls: Vec<char> = ('\0'..='\u{9f}').filter(|c| !matches!(c, ' '..='~' | '\n' | '\t')).collect();
    assert_eq!(controls.len(), 63, "C0, DEL and C1");
    for (name, parse) in TEXTS {
        for control in &controls {
            for raw in [format!("a{control}b"), format!("{control}ab"), format!("ab{control}")] {
                assert_eq!(parse(&raw).unwrap_err(), [Broken::ControlCharacter], "{name} {raw:?}");
            }
        }
    }
}

#[test]
fn what_a_text_may_hold_it_keeps() {
    for kept in ["a\nb\tc", " a ", "~!@#$%^&*()_+", "<b>&amp;</b>", "a\u{200d}b", "\u{e000}", "\u{10fffd}"] {
        for (name, parse) in TEXTS {
            assert_eq!(parse(kept).as_deref(), Ok(kept), "{name}");
        }
    }
}

#[test]
fn a_decomposed_text_is_composed_and_then_counted() {
    let decomposed = "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}\u{110b}\u{1165}";
    for (name, parse) in TEXTS {
        let composed = parse(decomposed).unwrap();
        assert_eq!(composed, "한국어", "{name}");
        assert_eq!(composed.chars().count(), 3, "{name}");
    }
    assert_eq!(Title::parse(decomposed), Title::parse("한국어"));
}

#[test]
fn a_text_says_every_rule_that_it_breaks() {
    let mut all = Title::parse(&" \0".repeat(128)).unwrap_err();
    all.sort_by_key(Broken::code);
    assert_eq!(all, [Broken::ControlCharacter, Broken::TooLong { max: 255 }]);

    let mut all = Title::parse(&" ".repeat(256)).unwrap_err();
    all.sort_by_key(Broken::code);
    assert_eq!(all, [Broken::Blank, Broken::TooLong { max: 255 }]);
}

#[test]
fn an_address_is_kept_as_typed_save_that_its_domain_is_lower_case() {
    for (raw, kept) in [
        ("user@example.com", "user@example.com"),
        ("User.Name+tag@EXAMPLE.Com", "User.Name+tag@example.com"),
        ("o'brien_1-2~3@sub.domain.example.co.kr", "o'brien_1-2~3@sub.domain.example.co.kr"),
        ("a@b.c", "a@b.c"),
        ("1@1.1", "1@1.1"),
        // The Kelvin sign is a K once it is normalised.
        ("a@\u{212a}.example", "a@k.example"),
    ] {
        assert_eq!(Email::parse(raw).unwrap().as_str(), kept, "{raw}");
    }
}

#[test]
fn what_is_no_address_is_refused() {
    for bad in [
        "plain text",
        "example.com",
        "@example.com",
        "user@",
        "user@localhost",
        "user@.example",
        "user@example.",
        "user@exa..mple",
        "user@-example.com",
        "user@example-.com",
        "user@[127.0.0.1]",
        "user@[::1]",
        "a@b@example.com",
        "user name@example.com",
        "\"user\"@example.com",
        " user@example.com",
        "user@example.com ",
        "user@example.com\n",
        "us\0er@example.com",
        "user@exam\tple.com",
        "한국어@example.com",
        "user@한국.kr",
        "user@exa_mple.com",
        "<user@example.com>",
    ] {
        assert_eq!(Email::parse(bad).unwrap_err(), [Broken::NotAnEmail], "{bad:?}");
    }
    for short in ["", "@", "a@"] {
        assert_eq!(Email::parse(short).unwrap_err(), [Broken::TooShort { min: 3 }, Broken::NotAnEmail], "{short:?}");
    }
}

#[test]
fn an_address_holds_254_characters_and_its_local_part_64() {
    let domain = |length: usize| format!("{}.{}.{}.kr", "a".repeat(63), "b".repeat(63), "c".repeat(length - 131));
    let address = |local: usize, total: usize| format!("{}@{}", "u".repeat(local), domain(total - local - 1));
    assert_eq!(Email::parse(&address(64, 254)).unwrap().as_str().len(), 254);
    assert_eq!(Email::parse(&address(64, 255)).unwrap_err(), [Broken::TooLong { max: 254 }]);
    assert_eq!(Email::parse(&address(65, 254)).unwrap_err(), [Broken::NotAnEmail]);
}

#[test]
fn spellings_that_differ_in_case_have_one_key() {
    let keys = ["user@example.com", "USER@example.com", "uSeR@EXAMPLE.COM"].map(|raw| Email::parse(raw).unwrap().key());
    assert_eq!(keys, ["user@example.com"; 3]);
    assert_ne!(Email::parse("user2@example.com").unwrap().key(), keys[0]);
    assert_ne!(Email::parse("User@example.com").unwrap().as_str(), "user@example.com", "the local part is kept");
}

#[test]
fn the_local_part_is_what_stands_before_the_at() {
    assert_eq!(Email::parse("User+tag@example.com").unwrap().local_part(), "User+tag");
}

#[test]
fn a_password_holds_8_to_256_characters_of_any_kind() {
    for character in ["a", COMPOSED, DECOMPOSED, "\0", " ", "\u{1f600}"] {
        let repeated = |n: usize| Password::parse(&character.repeat(n)).map(|password| password.expose().to_owned());
        assert_eq!(repeated(8).unwrap().chars().count(), 8, "{character:?}");
        assert_eq!(repeated(256).unwrap().chars().count(), 256, "{character:?}");
        assert_eq!(repeated(7).unwrap_err(), [Broken::TooShort { min: 8 }], "{character:?}");
        assert_eq!(repeated(257).unwrap_err(), [Broken::TooLong { max: 256 }], "{character:?}");
    }
}

#[test]
fn a_password_is_the_same_however_it_was_typed() {
    let (composed, decomposed) = (COMPOSED.repeat(8), DECOMPOSED.repeat(8));
    assert_eq!(Password::parse(&composed), Password::parse(&decomposed));
    assert_eq!(Password::attempt(&composed), Password::attempt(&decomposed));
    assert_eq!(Password::attempt(&decomposed).expose(), composed);
    assert_ne!(Password::attempt("correct horse"), Password::attempt("Correct horse"));
}

#[test]
fn a_password_to_be_compared_may_be_anything() {
    let long = "x".repeat(300);
    for raw in ["", "short", long.as_str()] {
        assert_eq!(Password::attempt(raw).expose(), raw);
    }
}

#[test]
fn a_hash_is_handed_back_as_it_was_stored() {
    assert_eq!(PasswordHash::new("$argon2id$v=19$…".to_owned()).as_str(), "$argon2id$v=19$…");
    let stored = *TokenHash::of(&[81; 32]).as_bytes();
    assert_eq!(TokenHash::restore(stored), TokenHash::of(&[81; 32]));
    assert_ne!(stored, [81; 32], "a secret is not stored");
}

#[test]
fn an_id_reads_as_its_number() {
    let ids = [QnaId::new(7).to_string(), CommentId::new(8).to_string(), UserId::new(-9).to_string()];
    assert_eq!(ids, ["7", "8", "-9"]);
    assert_eq!((QnaId::new(7).get(), CommentId::new(8).get(), UserId::new(9).get()), (7, 8, 9));
    assert_eq!(SignInId::new(7).get(), 7);
}

#[test]
fn debug_shows_nothing_that_a_log_must_not_hold() {
    let email = Email::parse("secret@example.com").unwrap();
    let password = Password::parse("secret password").unwrap();
    let token = RefreshToken::parse(&"Q".repeat(86)).unwrap();
    assert_eq!(format!("{email:?}"), "Email(…)");
    assert_eq!(format!("{password:?}"), "Password(…)");
    assert_eq!(format!("{:?}", PasswordHash::new("$argon2id$secret".to_owned())), "PasswordHash(…)");
    assert_eq!(format!("{token:?}"), "RefreshToken(…)");
    assert_eq!(format!("{:?}", TokenHash::of(&[81; 32])), "TokenHash(…)");
}

#[test]
fn debug_of_what_holds_a_secret_shows_none_of_it() {
    let registration = Registration::parse(Some("secret@example.com"), Some("secret password"), Some("name")).unwrap();
    let change = PasswordChange::parse(Some("secret old"), Some("secret new")).unwrap();
    let shown = format!("{registration:?} {change:?} {:?}", a_user(7, Role::Member));
    for secret in ["secret", "example.com"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("user 7"), "the rest is shown: {shown}");
}

#[test]
fn a_draft_says_everything_that_is_wrong_at_once() {
    let long = "x".repeat(20_001);
    assert_eq!(said(&QnaDraft::parse(None, None).unwrap_err()), ["title required", "content required"]);
    assert_eq!(said(&QnaDraft::parse(Some(""), Some(&long)).unwrap_err()), ["title too_short", "content too_long"]);
    assert_eq!(said(&QnaDraft::parse(Some("good"), Some("\0")).unwrap_err()), ["content control_character"]);
    assert_eq!(said(&QnaDraft::parse(Some(" "), Some("good")).unwrap_err()), ["title blank"]);

    assert_eq!(said(&QnaEdit::parse(Some(""), Some(&long)).unwrap_err()), ["title too_short", "content too_long"]);
    assert_eq!(said(&QnaEdit::parse(None, Some("\0")).unwrap_err()), ["content control_character"]);
    assert_eq!(said(&QnaEdit::parse(Some("\n"), None).unwrap_err()), ["title blank"]);

    assert_eq!(said(&CommentDraft::parse(None).unwrap_err()), ["content required"]);
    assert_eq!(said(&CommentDraft::parse(Some("")).unwrap_err()), ["content too_short"]);
    assert_eq!(said(&CommentEdit::parse(Some(&long)).unwrap_err()), ["content too_long"]);

    assert_eq!(
        said(&Registration::parse(None, None, None).unwrap_err()),
        ["email required", "password required", "display_name required"]
    );
    assert_eq!(
        said(&Registration::parse(Some("nobody"), Some("short"), Some(" ")).unwrap_err()),
        ["email not_an_email", "password too_short", "display_name blank"]
    );
    assert_eq!(
        said(&PasswordChange::parse(None, Some("short")).unwrap_err()),
        ["current_password required", "new_password too_short"]
    );
    assert_eq!(
        said(&UserEdit::parse(Some("nobody"), Some("")).unwrap_err()),
        ["email not_an_email", "display_name too_short"]
    );
}

#[test]
fn a_good_draft_holds_what_was_written() {
    let draft = QnaDraft::parse(Some("a title"), Some("a text")).unwrap();
    assert_eq!((draft.title.as_str(), draft.content.as_str()), ("a title", "a text"));
    assert_eq!(CommentDraft::parse(Some("a text")).unwrap().content.as_str(), "a text");
    let registration = Registration::parse(Some("a@b.example"), Some("password"), Some("a name")).unwrap();
    assert_eq!(registration.email.as_str(), "a@b.example");
    assert_eq!(registration.password.expose(), "password");
    assert_eq!(registration.display_name.as_str(), "a name");
}

#[test]
fn an_edit_keeps_apart_what_is_absent_and_what_is_there() {
    assert_eq!(QnaEdit::parse(None, None).unwrap(), QnaEdit::default());
    let edit = QnaEdit::parse(Some("a title"), None).unwrap();
    assert_eq!((edit.title, edit.content), (Some(Title::parse("a title").unwrap()), None));
    let edit = QnaEdit::parse(None, Some("")).unwrap();
    assert_eq!((edit.title, edit.content), (None, Some(Content::parse("").unwrap())));

    assert_eq!(CommentEdit::parse(None).unwrap(), CommentEdit::default());
    let edit = CommentEdit::parse(Some("a text")).unwrap();
    assert_eq!(edit.content, Some(CommentContent::parse("a text").unwrap()));

    assert_eq!(UserEdit::parse(None, None).unwrap(), UserEdit::default());
    let edit = UserEdit::parse(Some("a@b.example"), None).unwrap();
    assert_eq!((edit.email, edit.display_name), (Some(Email::parse("a@b.example").unwrap()), None));
    let edit = UserEdit::parse(None, Some("a name")).unwrap();
    assert_eq!((edit.email, edit.display_name), (None, Some(DisplayName::parse("a name").unwrap())));
}

/// A member whose password is older than today's rules must be able to change it.
#[test]
fn the_current_password_of_a_change_need_not_follow_the_rules() {
    let change = PasswordChange::parse(Some("old"), Some("long enough")).unwrap();
    assert_eq!((change.current.expose(), change.new.expose()), ("old", "long enough"));
}

#[test]
fn merged_violations_speak_of_each_field_once() {
    let mut first = Violations::default();
    first.add("title", Broken::NotAString);
    let mut second = Violations::default();
    second.add("title", Broken::Required);
    second.add("content", Broken::Blank);
    second.add("content", Broken::ControlCharacter);
    first.merge(second);
    assert_eq!(said(&first), ["title not_a_string", "content blank", "content control_character"]);
    assert_eq!(first.len(), 3);

    let mut none = Violations::default();
    assert!(none.is_empty());
    none.merge(first.clone());
    assert!(!none.is_empty());
    assert_eq!(none, first);
}

#[test]
fn a_draft_is_finished_only_when_nothing_is_wrong() {
    assert_eq!(Violations::default().finish(Some(1)), Ok(1));
    let mut violations = Violations::default();
    violations.add("title", Broken::Blank);
    assert_eq!(violations.clone().finish(Some(1)), Err(violations.clone()));
    assert_eq!(violations.clone().finish(None::<i32>), Err(violations.clone()));
    assert_eq!(violations.to_string(), "title blank");
    violations.add("content", Broken::Required);
    assert_eq!(violations.to_string(), "title blank, content required");
}

#[test]
fn a_role_has_one_name() {
    for role in [Role::Member, Role::Moderator, Role::Admin] {
        assert_eq!(Role::parse(role.name()), Ok(role));
    }
    assert_eq!(Role::NAMES, [Role::Member, Role::Moderator, Role::Admin].map(Role::name));
    for bad in ["", "Admin", "root", "member "] {
        let allowed: &[&str] = &["member", "moderator", "admin"];
        assert_eq!(Role::parse(bad).unwrap_err(), [Broken::NotOneOf { allowed: &Role::NAMES }], "{bad:?}");
        assert_eq!(Role::NAMES, allowed);
    }
}

#[test]
fn an_edit_is_checked_against_the_versions_that_it_names() {
    let second = Version::FIRST.next();
    assert_eq!((Version::FIRST.get(), second.get(), second.previous()), (1, 2, Version::FIRST));
    for (expected, good) in [
        (Expected::Any, true),
        (made_on(2), true),
        (Expected::OneOf(vec![Version::new(7), second]), true),
        (made_on(1), false),
        (made_on(3), false),
        (Expected::OneOf(vec![]), false),
    ] {
        let outcome = expected.check(second);
        assert_eq!(code(outcome), if good { "ok" } else { "version_mismatch" }, "{expected:?}");
    }
}

#[test]
fn an_instant_is_cut_to_microseconds_and_never_rounded_up() {
    let nanoseconds: DateTime<Utc> = "2026-01-02T03:04:05.123456999Z".parse().unwrap();
    let cut = Timestamp::new(nanoseconds);
    assert_eq!(cut.to_rfc3339(), "2026-01-02T03:04:05.123456Z");
    assert_eq!(cut.to_string(), cut.to_rfc3339());
    assert_eq!(Timestamp::new(cut.as_utc()), cut);
    assert_eq!(noon().to_rfc3339(), "2026-01-02T12:00:00.000000Z");
    let before_1970: DateTime<Utc> = "1969-12-31T23:59:58.000000999Z".parse().unwrap();
    assert_eq!(Timestamp::new(before_1970).to_rfc3339(), "1969-12-31T23:59:58.000000Z");
}

#[test]
fn an_instant_can_be_moved() {
    assert_eq!(noon().plus(TimeDelta::minutes(10)).to_rfc3339(), "2026-01-02T12:10:00.000000Z");
    assert_eq!(noon().plus(TimeDelta::days(-2)).to_rfc3339(), "2025-12-31T12:00:00.000000Z");
    assert!(noon().plus(TimeDelta::MAX) > noon());
    assert_eq!(noon().unix_seconds(), 1_767_355_200);
    let late: DateTime<Utc> = "2026-01-02T12:00:00.999999Z".parse().unwrap();
    assert_eq!(Timestamp::new(late).unix_seconds(), noon().unix_seconds(), "whole seconds");
}
