//! Each way to fail has one stable code, keeps its cause and shows none of it.

use std::collections::BTreeSet;
use std::error::Error as _;

use mundap_domain::error::{Broken, Kind, Violations};
use mundap_domain::testing::every_error;
use mundap_domain::{Error, StoreError};

use crate::stage::{contention, duplicate, unavailable};

/// What must not be shown.
const CAUSE: &str = "password of the database";

/// Spelled out here once more: a code that is released never changes.
#[test]
fn every_error_has_its_code() {
    let codes: Vec<&str> = every_error(CAUSE).iter().map(Error::code).collect();
    assert_eq!(
        codes,
        [
            "validation_failed",
            "unauthenticated",
            "invalid_token",
            "invalid_credentials",
            "invalid_refresh_token",
            "invalid_mail_token",
            "account_suspended",
            "not_author",
            "not_admin",
            "own_account",
            "qna_not_found",
            "comment_not_found",
            "image_not_found",
            "user_not_found",
            "email_taken",
            "idempotency_key_reused",
            "idempotency_key_in_use",
            "version_mismatch",
            "invalid_cursor",
            "not_an_image",
            "image_animated",
            "image_broken",
            "image_too_large",
            "image_too_many_pixels",
            "too_many_images",
            "image_quota_exceeded",
            "rate_limited",
            "busy",
            "database_unavailable",
            "storage_unavailable",
            "internal_error",
        ]
    );
    let general: Vec<&str> = codes.iter().copied().filter(|code| !code.ends_with("_not_found")).collect();
    assert_eq!(general, Error::CODES);
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len(), "no code twice");
}

#[test]
fn every_broken_rule_has_its_code() {
    let codes = [
        Broken::Required,
        Broken::UnknownField { nearest: None },
        Broken::NotAString,
        Broken::NotAnInteger,
        Broken::NotABoolean,
        Broken::TooShort { min: 1 },
        Broken::TooLong { max: 1 },
        Broken::OutOfRange { min: 1, max: 2 },
        Broken::Blank,
        Broken::ControlCharacter,
        Broken::NotAnEmail,
        Broken::NotVisibleAscii,
        Broken::NotAnEntityTag,
        Broken::NotOneOf { allowed: &["a"] },
    ]
    .map(|rule| rule.code());
    assert_eq!(
        codes,
        [
            "required",
            "unknown_field",
            "not_a_string",
            "not_an_integer",
            "not_a_boolean",
            "too_short",
            "too_long",
            "out_of_range",
            "blank",
            "control_character",
            "not_an_email",
            "not_visible_ascii",
            "not_an_entity_tag",
            "not_one_of",
        ]
    );
    assert_eq!(codes, Broken::CODES);
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len(), "no code twice");
}

#[test]
fn a_cause_is_kept_for_the_log_and_not_shown() {
    for error in every_error(CAUSE) {
        assert!(!error.to_string().contains(CAUSE), "{error}");
        match &error {
            Error::Busy(_) | Error::Unavailable(_) | Error::StorageUnavailable(_) | Error::Internal(_) => {
                assert_eq!(error.source().unwrap().to_string(), CAUSE, "{error}");
            }
            other => assert!(other.source().is_none(), "{other}"),
        }
    }
    assert_eq!(Error::internal("a broken invariant").source().unwrap().to_string(), "a broken invariant");
}

#[test]
fn an_error_says_what_is_missing() {
    let said = [Kind::QNA, Kind::COMMENT, Kind::USER, Kind::IMAGE].map(|kind| Error::NotFound(kind).to_string());
    assert_eq!(said, ["QnA not found", "comment not found", "user not found", "image not found"]);
}

#[test]
fn what_a_store_reports_becomes_what_a_client_can_act_on() {
    let corrupt = StoreError::Corrupt { table: "qna", id: 7, reason: "a blank title".to_owned() };
    let said = corrupt.to_string();
    assert_eq!(said, "row 7 of qna breaks a rule: a blank title");
    for (reported, code) in [
        (contention(), "busy"),
        (StoreError::Stale, "busy"),
        (unavailable(), "database_unavailable"),
        (duplicate(), "internal_error"),
        (StoreError::MissingReference("a foreign key".into()), "internal_error"),
        (corrupt, "internal_error"),
        (StoreError::Backend("syntax".into()), "internal_error"),
    ] {
        let reported_as = reported.to_string();
        let error = Error::from(reported);
        assert_eq!(error.code(), code, "{reported_as}");
        assert_eq!(error.source().unwrap().to_string(), reported_as, "the report is the cause");
    }
}

#[test]
fn violations_become_an_error_with_all_of_them() {
    let mut violations = Violations::default();
    violations.add("title", Broken::Blank);
    let error = Error::from(violations.clone());
    assert_eq!(error.code(), "validation_failed");
    assert!(matches!(error, Error::Invalid(kept) if kept == violations));
}
