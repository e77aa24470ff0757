//! What goes wrong, as FastAPI and pydantic say it.

use std::fmt;
use std::sync::LazyLock;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use mundap_domain::Error;
use mundap_domain::error::{Broken, Cause, Violation, Violations};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::problem::{CHALLENGE, INVALID_TOKEN_CHALLENGE, Problem, RETRY_SECONDS};
use crate::rate;
use crate::words::Language;

/// `{"detail": …}`
#[derive(Serialize, ToSchema)]
pub struct Detail {
    pub(super) detail: String,
}

/// pydantic's list of what is wrong.
#[derive(Serialize, ToSchema)]
#[schema(as = HTTPValidationError)]
pub struct ValidationErrors {
    detail: Vec<ValidationError>,
}

/// One thing that is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ValidationError {
    pub(super) r#type: &'static str,
    /// Names and numbers, such as `["body", "title"]`.
    pub(super) loc: Vec<Value>,
    pub(super) msg: String,
    pub(super) input: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ctx: Option<Value>,
}

/// A refusal in FastAPI's shape.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    detail: Value,
    header: Option<Box<(HeaderName, HeaderValue)>>,
    cause: Option<Cause>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Value>) -> Self {
        Self { status, code, detail: detail.into(), header: None, cause: None }
    }

    pub(super) fn not_writer() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "not_author", "you are not writer")
    }

    pub(super) fn of(errors: &[ValidationError]) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", json!(errors))
    }

    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// What the log says of it.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        self.cause.as_ref().and_then(|cause| crate::problem::to_log(&**cause))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.code)
    }
}

impl std::error::Error for Refusal {}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if let Some((name, value)) = self.header.as_deref() {
            response.insert_header((name.clone(), value.clone()));
        }
        response.json(json!({"detail": self.detail}))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = error.code();
        let refusal = |status, detail: &str| Self::new(status, code, detail);
        let with = |name, value| Some(Box::new((name, value)));
        let later = |detail: &str, cause| Self {
            header: with(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS)),
            cause: Some(cause),
            ..refusal(StatusCode::SERVICE_UNAVAILABLE, detail)
        };
        match error {
            Error::Invalid(violations) => invalid(&violations, &Value::Null),
            Error::Unauthenticated => Self {
                header: with(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE)),
                ..refusal(StatusCode::UNAUTHORIZED, "Not authenticated")
            },
            Error::InvalidToken | Error::InvalidCredentials | Error::InvalidRefreshToken | Error::InvalidMailToken => {
                Self {
                    header: with(WWW_AUTHENTICATE, HeaderValue::from_static(INVALID_TOKEN_CHALLENGE)),
                    ..refusal(StatusCode::UNAUTHORIZED, "Could not validate credentials")
                }
            }
            Error::Suspended => refusal(StatusCode::FORBIDDEN, "account is suspended"),
            Error::NotAdmin => refusal(StatusCode::FORBIDDEN, "not an administrator"),
            Error::OwnAccount => refusal(StatusCode::FORBIDDEN, "not the own account"),
            Error::NotAuthor => Self::not_writer(),
            Error::NotFound(kind) => refusal(StatusCode::NOT_FOUND, &format!("{kind} not found")),
            Error::EmailTaken => refusal(StatusCode::CONFLICT, "email is taken"),
            // 422 is always a list here.
            Error::KeyReused => Self {
                code,
                ..Self::of(&[ValidationError {
                    r#type: "value_error",
                    loc: vec!["header".into(), "idempotency-key".into()],
                    msg: "Value error, it was used for something else".to_owned(),
                    input: Value::Null,
                    ctx: None,
                }])
            },
            Error::KeyInUse => Self {
                header: with(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS)),
                ..refusal(StatusCode::CONFLICT, "the first request with this idempotency key is still running")
            },
            Error::VersionMismatch => refusal(StatusCode::PRECONDITION_FAILED, "it was changed meanwhile"),
            Error::InvalidCursor => refusal(StatusCode::BAD_REQUEST, "invalid cursor"),
            // No endpoint of this face takes images.
            Error::Image(refused) => refusal(StatusCode::UNPROCESSABLE_ENTITY, &refused.to_string()),
            Error::StorageUnavailable(cause) => later("the image store is unavailable, try again", cause),
            Error::RateLimited(allowance) => Self {
                header: with(RETRY_AFTER, rate::retry_after(&allowance).into()),
                ..refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests, try again later")
            },
            Error::Busy(cause) => later("too busy, try again", cause),
            Error::Unavailable(cause) => later("the database is unavailable, try again", cause),
            Error::Internal(cause) => {
                Self { cause: Some(cause), ..refusal(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error") }
            }
        }
    }
}

/// The answer to whom there is no time for.
#[must_use]
pub fn busy() -> HttpResponse {
    static BUSY: LazyLock<Refusal> = LazyLock::new(|| Problem::turned_away().into());
    BUSY.error_response()
}

/// In English whatever the request asks for: this face's clients compare texts.
pub(super) fn from_problem(problem: &Problem) -> Refusal {
    let refusal = Refusal::new(problem.status(), problem.code(), problem.detail(Language::English));
    Refusal { header: problem.header().cloned().map(Box::new), cause: problem.cause().map(Cause::from), ..refusal }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        from_problem(&problem)
    }
}

/// The domain's violations as pydantic words them.
pub(super) fn invalid(violations: &Violations, sent: &Value) -> Refusal {
    let errors: Vec<ValidationError> = violations.iter().map(|violation| validation_error(violation, sent)).collect();
    Refusal::of(&errors)
}

fn validation_error(violation: &Violation, sent: &Value) -> ValidationError {
    let input = sent.get(&violation.field).cloned().unwrap_or(Value::Null);
    let (r#type, msg, ctx) = match violation.rule {
        Broken::Required => ("missing", "Field required".to_owned(), None),
        Broken::UnknownField { .. } => ("extra_forbidden", "Extra inputs are not permitted".to_owned(), None),
        Broken::NotAString => ("string_type", "Input should be a valid string".to_owned(), None),
        Broken::NotAnInteger if input.is_string() => {
            ("int_parsing", "Input should be a valid integer, unable to parse string as an integer".to_owned(), None)
        }
        Broken::NotAnInteger if input.as_f64().is_some_and(|number| number.fract() != 0.0) => {
            ("int_from_float", "Input should be a valid integer, got a number with a fractional part".to_owned(), None)
        }
        Broken::NotAnInteger if input.is_number() => {
            ("int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size".to_owned(), None)
        }
        Broken::NotABoolean => ("bool_type", "Input should be a valid boolean".to_owned(), None),
        Broken::NotAnInteger => ("int_type", "Input should be a valid integer".to_owned(), None),
        Broken::TooShort { min } => (
            "string_too_short",
            format!("String should have at least {min} character{}", if min == 1 { "" } else { "s" }),
            Some(json!({"min_length": min})),
        ),
        Broken::TooLong { max } => (
            "string_too_long",
            format!("String should have at most {max} characters"),
            Some(json!({"max_length": max})),
        ),
        Broken::OutOfRange { min, max } => {
            ("value_error", format!("Input should be between {min} and {max}"), Some(json!({"ge": min, "le": max})))
        }
        Broken::Blank => value_error("the text holds nothing but white space"),
        Broken::ControlCharacter => value_error("control characters other than newline and tab are not allowed"),
        Broken::NotAnEmail => {
            let (r#type, _, _) = value_error("");
            let reason = "An email address must have an @-sign and a domain name with a period.";
            (r#type, format!("value is not a valid email address: {reason}"), Some(json!({"reason": reason})))
        }
        Broken::NotVisibleAscii => value_error("only visible ASCII characters are allowed"),
        Broken::NotAnEntityTag => value_error("this is no entity tag"),
        Broken::NotOneOf { allowed } => ("enum", format!("Input should be {}", allowed.join(" or ")), None),
    };
    // pydantic shows the whole object where a field is missing from it.
    let input = if violation.rule == Broken::Required { sent.clone() } else { input };
    ValidationError { r#type, loc: vec!["body".into(), violation.field.clone().into()], msg, input, ctx }
}

fn value_error(reason: &str) -> (&'static str, String, Option<Value>) {
    ("value_error", format!("Value error, {reason}"), Some(json!({"error": reason})))
}
