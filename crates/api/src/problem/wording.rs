//! What is said of an error, and of each field that breaks a rule.

use mundap_domain::Error;
use mundap_domain::error::{Broken, Violation, Violations};
use mundap_domain::image::{Image, Refusal, Upload};
use mundap_grpc::Said;

use super::{Detail, FieldError};
use crate::rate;
use crate::words::{Language, Phrase};

/// What the gRPC face says of an error in this language: of the whole, and of each field.
#[must_use]
pub fn say(error: &Error, language: Language) -> Said {
    match detail(error) {
        // Signing in is a method here, not a path.
        Detail::Phrase(_) if matches!(error, Error::Unauthenticated) => {
            Said { message: Phrase::new("unauthenticated-call").say(language), fields: Vec::new() }
        }
        Detail::Phrase(phrase) => Said { message: phrase.say(language), fields: Vec::new() },
        Detail::Violations(violations) => {
            // A field goes by its name here, as `field` says it beside this.
            let named = |violation: &Violation| (violation.field.clone(), explain(&violation.rule).say(language));
            let said: Vec<_> = violations.iter().map(named).collect();
            let message = whole(said.iter().map(|(field, rule)| (&**field, &**rule)), language);
            Said { message, fields: said.into_iter().map(|(_, rule)| rule).collect() }
        }
    }
}

/// As [`say`], where a password is one to sign in with and not the one that is to be changed.
#[must_use]
pub fn say_of_signing_in(error: &Error, language: Language) -> Said {
    match error {
        Error::InvalidCredentials => {
            Said { message: Phrase::new("invalid_credentials-sign_in").say(language), fields: Vec::new() }
        }
        error => say(error, language),
    }
}

/// What is to be said of an error.
pub(super) fn detail(error: &Error) -> Detail {
    let code = error.code();
    Detail::Phrase(match error {
        Error::Invalid(violations) => return Detail::Violations(violations.clone()),
        Error::Image(refusal) => refused_image(*refusal),
        Error::RateLimited(allowance) => {
            let seconds = rate::retry_after(allowance);
            Phrase::new(code).with("limit", allowance.policy.name()).with("seconds", seconds)
        }
        Error::Unauthenticated
        | Error::InvalidToken
        | Error::InvalidCredentials
        | Error::InvalidRefreshToken
        | Error::InvalidMailToken
        | Error::Suspended
        | Error::NotAuthor
        | Error::NotAdmin
        | Error::OwnAccount
        | Error::NotFound(_)
        | Error::EmailTaken
        | Error::KeyReused
        | Error::KeyInUse
        | Error::VersionMismatch
        | Error::InvalidCursor
        | Error::Busy(_)
        | Error::Unavailable(_)
        | Error::StorageUnavailable(_)
        | Error::Internal(_) => Phrase::new(code),
    })
}

fn refused_image(refusal: Refusal) -> Phrase {
    let phrase = Phrase::new(refusal.code());
    match refusal {
        Refusal::NotAnImage | Refusal::Animated | Refusal::Broken | Refusal::QuotaExceeded => phrase,
        Refusal::TooLarge => phrase.with("mebibytes", Upload::MAX_BYTES >> 20),
        Refusal::TooManyPixels => {
            let phrase = phrase.with("side", Upload::MAX_SIDE).with("mega", Upload::MAX_PIXELS / 1_000_000);
            phrase.with("frames", Upload::MAX_FRAME_PIXELS / 1_000_000)
        }
        Refusal::CommentFull => phrase.with("max", Image::MAX_PER_COMMENT),
    }
}

pub(super) fn field_errors(violations: &Violations, language: Language) -> Vec<FieldError> {
    let error = |violation: &Violation| FieldError {
        pointer: pointer(&violation.field),
        code: violation.rule.code(),
        detail: explain(&violation.rule).say(language),
    };
    violations.iter().map(error).collect()
}

/// All of them in one sentence.
pub(super) fn summary(errors: &[FieldError], language: Language) -> String {
    whole(errors.iter().map(|error| (&*error.pointer, &*error.detail)), language)
}

/// Each field, by its pointer or its name, with the rule that it breaks.
fn whole<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>, language: Language) -> String {
    let field = |(field, rule): (&str, &str)| {
        let phrase = Phrase::new("validation_failed-field").with("pointer", field.to_owned());
        phrase.with("rule", rule.to_owned()).say(language)
    };
    let fields = fields.map(field).collect::<Vec<_>>().join("; ");
    Phrase::new("validation_failed").with("fields", fields).say(language)
}

/// RFC 6901, 3: `~` and `/` are escaped.
fn pointer(field: &str) -> String {
    format!("/{}", field.replace('~', "~0").replace('/', "~1"))
}

/// The rule's text, named after its code.
pub(super) fn explain(rule: &Broken) -> Phrase {
    let phrase = Phrase::new(format!("rule-{}", rule.code()));
    match rule {
        Broken::Required
        | Broken::UnknownField { nearest: None }
        | Broken::NotAString
        | Broken::NotAnInteger
        | Broken::NotABoolean
        | Broken::Blank
        | Broken::ControlCharacter
        | Broken::NotAnEmail
        | Broken::NotVisibleAscii
        | Broken::NotAnEntityTag => phrase,
        Broken::UnknownField { nearest: Some(nearest) } => {
            Phrase::new(format!("rule-{}-nearest", rule.code())).with("nearest", *nearest)
        }
        Broken::TooShort { min } => phrase.with("min", *min),
        Broken::TooLong { max } => phrase.with("max", *max),
        // As texts: Fluent's numbers are exact to 2^53 alone.
        Broken::OutOfRange { min, max } => phrase.with("min", min.to_string()).with("max", max.to_string()),
        Broken::NotOneOf { allowed } => phrase.with("allowed", allowed.join(", ")),
    }
}
