//! What goes wrong, as a caller sees it: the only conversion from [`mundap_domain::Error`] to a status, with the details of
//! `google.rpc`. `ErrorInfo.reason` is the stable code that REST sends too.

use std::collections::HashMap;
use std::time::Duration;

use mundap_domain::Error;
use mundap_domain::image::Refusal;
use mundap_domain::mail::Language;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::call::Said;

/// `ErrorInfo.domain`.
pub const DOMAIN: &str = "mundap";

/// When to come again after UNAVAILABLE, as REST's `Retry-After` says.
pub const RETRY: Duration = Duration::from_secs(1);

/// The status code of each error.
#[must_use]
pub const fn code(error: &Error) -> Code {
    match error {
        Error::Invalid(_) | Error::InvalidMailToken | Error::InvalidCursor => Code::InvalidArgument,
        Error::Unauthenticated | Error::InvalidToken | Error::InvalidRefreshToken => Code::Unauthenticated,
        // Not UNAUTHENTICATED: clients answer that by renewing their token and trying again.
        Error::InvalidCredentials | Error::Suspended | Error::NotAuthor | Error::NotAdmin | Error::OwnAccount => {
            Code::PermissionDenied
        }
        Error::NotFound(_) => Code::NotFound,
        Error::EmailTaken => Code::AlreadyExists,
        Error::KeyReused => Code::FailedPrecondition,
        Error::KeyInUse | Error::VersionMismatch => Code::Aborted,
        Error::Image(refusal) => match refusal {
            Refusal::NotAnImage | Refusal::Animated | Refusal::Broken | Refusal::TooLarge | Refusal::TooManyPixels => {
                Code::InvalidArgument
            }
            Refusal::CommentFull => Code::FailedPrecondition,
            Refusal::QuotaExceeded => Code::ResourceExhausted,
        },
        Error::RateLimited(_) => Code::ResourceExhausted,
        Error::Busy(_) | Error::Unavailable(_) | Error::StorageUnavailable(_) => Code::Unavailable,
        Error::Internal(_) => Code::Internal,
    }
}

/// When the same call may succeed, where time alone helps.
fn retry(error: &Error) -> Option<Duration> {
    match error {
        Error::RateLimited(allowance) => Some(allowance.more_in.to_std().unwrap_or_default()),
        Error::KeyInUse | Error::Busy(_) | Error::Unavailable(_) | Error::StorageUnavailable(_) => Some(RETRY),
        Error::Invalid(_)
        | Error::Unauthenticated
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
        | Error::VersionMismatch
        | Error::InvalidCursor
        | Error::Image(_)
        | Error::Internal(_) => None,
    }
}

/// The status of an error. Its message is for whoever writes the client; what is `said` is for people.
#[must_use]
pub fn of(error: &Error, said: Said, language: Language) -> Status {
    let mut details = ErrorDetails::new();
    let about = match error {
        Error::RateLimited(allowance) => HashMap::from([("limit".to_owned(), allowance.policy.name().to_owned())]),
        _ => HashMap::new(),
    };
    details.set_error_info(error.code(), DOMAIN, about);
    if let Some(delay) = retry(error) {
        details.set_retry_info(Some(delay));
    }
    if let Error::Invalid(violations) = error {
        let texts = said.fields.into_iter().map(Some).chain(std::iter::repeat(None));
        let field = |(violation, text): (&mundap_domain::error::Violation, Option<String>)| FieldViolation {
            field: violation.field.clone(),
            description: text.unwrap_or_default(),
            reason: violation.rule.code().to_owned(),
            localized_message: None,
        };
        details.set_bad_request(violations.iter().zip(texts).map(field).collect::<Vec<_>>());
    }
    details.set_localized_message(language.tag(), said.message);
    Status::with_error_details(code(error), error.to_string(), details)
}

/// A refusal of the host's own, such as of a call that there is no room for.
#[must_use]
pub fn refusal(
    code: Code,
    reason: &str,
    message: &str,
    said: String,
    language: Language,
    retry: Option<Duration>,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    if let Some(delay) = retry {
        details.set_retry_info(Some(delay));
    }
    details.set_localized_message(language.tag(), said);
    Status::with_error_details(code, message, details)
}
