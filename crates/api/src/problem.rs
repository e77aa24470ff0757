//! What goes wrong, as a client sees it: RFC 9457 `application/problem+json`, and the only conversion from
//! [`mundap_domain::Error`].
//!
//! A handler returns `Err(Problem)`; [`crate::edge`] adds the request's id and sends it. `code` never changes; the cause
//! is for the log alone.

use std::fmt;

use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, ResponseError};
use mundap_domain::Error;
use mundap_domain::error::{Broken, Cause, Violations};
use serde::Serialize;
use utoipa::ToSchema;

/// Codes that the HTTP face adds to the domain's, in the order of `docs/errors.md`.
pub const CODES: [&str; 10] = [
    "malformed_json",
    "malformed_form",
    "invalid_path",
    "invalid_query",
    "invalid_header",
    "route_not_found",
    "method_not_allowed",
    "body_too_large",
    "body_timeout",
    "unsupported_media_type",
];

/// One refusal. Boxed: it is in every handler's result, and rare.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    header: Option<(HeaderName, HeaderValue)>,
    cause: Option<Cause>,
}

/// One field that breaks a rule.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON Pointer (RFC 6901) to the field.
    #[schema(example = "/title")]
    pub pointer: String,
    /// Stable name of the rule.
    #[schema(example = "too_long")]
    pub code: &'static str,
    #[schema(example = "must have at most 255 characters")]
    pub detail: String,
}

/// The body of a refusal (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Where the code is explained.
    #[schema(example = "/docs/errors#validation_failed")]
    pub r#type: String,
    #[schema(example = "Unprocessable Entity")]
    pub title: &'a str,
    #[schema(example = 422)]
    pub status: u16,
    /// What happened and what to do, for a person.
    pub detail: &'a str,
    /// What happened, for a program. Never changes.
    #[schema(example = "validation_failed")]
    pub code: &'a str,
    /// The same as the `X-Request-Id` header: what to quote when asking for help.
    pub request_id: &'a str,
    /// Every field that breaks a rule; only with status 422.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<&'a [FieldError]>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(Parts { status, code, detail, errors: Vec::new(), header: None, cause: None }))
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    fn because(mut self, cause: Cause) -> Self {
        self.0.cause = Some(cause);
        self
    }

    #[must_use]
    pub fn malformed_json(reason: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_json", format!("The body is not a JSON object: {reason}."))
    }

    #[must_use]
    pub fn malformed_form(reason: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_form", format!("The form cannot be read: {reason}."))
    }

    #[must_use]
    pub fn invalid_path(segment: &str) -> Self {
        let detail = format!("\"{segment}\" in the path is not an id: ids are whole numbers.");
        Self::new(StatusCode::BAD_REQUEST, "invalid_path", detail)
    }

    #[must_use]
    pub fn invalid_query(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_query", reason)
    }

    #[must_use]
    pub fn invalid_header(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_header", reason)
    }

    #[must_use]
    pub fn route_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "route_not_found", "There is nothing at this path; /docs lists what there is.")
    }

    /// `allowed` goes into the `Allow` header (RFC 9110, 15.5.6).
    #[must_use]
    pub fn method_not_allowed(allowed: &[Method]) -> Self {
        let names = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let detail = format!("This path answers {names}.");
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
        problem.0.header = HeaderValue::from_str(&names).ok().map(|value| (ALLOW, value));
        problem
    }

    #[must_use]
    pub fn body_too_large(limit: usize) -> Self {
        let detail = format!("The body has more than {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }

    #[must_use]
    pub fn body_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "The body took too long to arrive.")
    }

    #[must_use]
    pub fn unsupported_media_type(wanted: &str) -> Self {
        let detail = format!("Send the body as {wanted}, without a content encoding.");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    #[must_use]
    pub fn header(&self) -> Option<&(HeaderName, HeaderValue)> {
        self.0.header.as_ref()
    }

    /// The cause and its causes in one line, for the log.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        self.0.cause.as_ref().map(|cause| chain(&**cause))
    }

    /// The answer, with the request's id in it.
    #[must_use]
    pub fn response(&self, request_id: &str) -> HttpResponse {
        let body = ProblemBody {
            r#type: format!("/docs/errors#{}", self.0.code),
            title: self.0.status.canonical_reason().unwrap_or("Error"),
            status: self.0.status.as_u16(),
            detail: &self.0.detail,
            code: self.0.code,
            request_id,
            errors: (self.0.status == StatusCode::UNPROCESSABLE_ENTITY).then_some(&*self.0.errors),
        };
        let mut response = HttpResponse::build(self.0.status);
        if let Some((name, value)) = &self.0.header {
            response.insert_header((name.clone(), value.clone()));
        }
        response
            .insert_header((CONTENT_TYPE, "application/problem+json"))
            .body(serde_json::to_string(&body).unwrap_or_default())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.status.as_u16(), self.0.code)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse {
        self.response("")
    }
}

/// RFC 6750, 3: what to bring, and what was wrong with what was brought.
pub const CHALLENGE: &str = r#"Bearer realm="mundap""#;
pub const INVALID_TOKEN_CHALLENGE: &str = r#"Bearer realm="mundap", error="invalid_token""#;

/// Seconds until a client may try again after 503.
pub const RETRY_SECONDS: &str = "1";

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = error.code();
        let problem = |status, detail: &str| Self::new(status, code, detail);
        match error {
            Error::Invalid(violations) => violations.into(),
            Error::Unauthenticated => {
                problem(StatusCode::UNAUTHORIZED, "Sign in first: POST /api/v1/auth/token, then send the access token.")
                    .with(WWW_AUTHENTICATE, CHALLENGE)
            }
            Error::InvalidToken => problem(
                StatusCode::UNAUTHORIZED,
                "The access token is not valid, or no longer; get a new one with the refresh token or sign in again.",
            )
            .with(WWW_AUTHENTICATE, INVALID_TOKEN_CHALLENGE),
            Error::InvalidCredentials => problem(StatusCode::FORBIDDEN, "The current password is not this one."),
            Error::InvalidRefreshToken => {
                problem(StatusCode::UNAUTHORIZED, "The refresh token is not valid, or no longer; sign in again.")
                    .with(WWW_AUTHENTICATE, CHALLENGE)
            }
            Error::Suspended => {
                problem(StatusCode::FORBIDDEN, "This account is suspended: it may read, and delete itself.")
            }
            Error::NotAuthor => problem(StatusCode::FORBIDDEN, "Only its author or a moderator may change this."),
            Error::NotAdmin => problem(StatusCode::FORBIDDEN, "Only an administrator may do this."),
            Error::OwnAccount => problem(
                StatusCode::FORBIDDEN,
                "Administrators do not change their own role or suspend themselves; another one may.",
            ),
            Error::NotFound(kind) => {
                Self::new(StatusCode::NOT_FOUND, code, format!("There is no such {kind}, or it was deleted."))
            }
            Error::EmailTaken => {
                problem(StatusCode::CONFLICT, "Another account has this e-mail; sign in or use another one.")
            }
            Error::KeyReused => problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                "This Idempotency-Key came with something else before: use a new key for a new request.",
            ),
            Error::KeyInUse => problem(
                StatusCode::CONFLICT,
                "The first request with this Idempotency-Key is still running; ask again.",
            ),
            Error::VersionMismatch => problem(
                StatusCode::PRECONDITION_FAILED,
                "It was changed since you read it: read it again, then send your change with the new ETag.",
            ),
            Error::InvalidCursor => problem(
                StatusCode::BAD_REQUEST,
                "The cursor does not belong to this list and order: start again without one.",
            ),
            Error::Busy(cause) => problem(StatusCode::SERVICE_UNAVAILABLE, "Too much is going on at once; try again.")
                .with(RETRY_AFTER, RETRY_SECONDS)
                .because(cause),
            Error::Unavailable(cause) => {
                problem(StatusCode::SERVICE_UNAVAILABLE, "The database cannot be reached right now; try again.")
                    .with(RETRY_AFTER, RETRY_SECONDS)
                    .because(cause)
            }
            Error::Internal(cause) => problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong here; the request id helps us find it.",
            )
            .because(cause),
        }
    }
}

impl From<Violations> for Problem {
    fn from(violations: Violations) -> Self {
        let errors: Vec<FieldError> = violations
            .iter()
            .map(|violation| FieldError {
                pointer: pointer(&violation.field),
                code: violation.rule.code(),
                detail: explain(&violation.rule),
            })
            .collect();
        let detail = errors.iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect::<Vec<_>>();
        let mut problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", format!("{}.", detail.join("; ")));
        problem.0.errors = errors;
        problem
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// RFC 6901, 3: `~` and `/` are escaped.
fn pointer(field: &str) -> String {
    format!("/{}", field.replace('~', "~0").replace('/', "~1"))
}

fn explain(rule: &Broken) -> String {
    match rule {
        Broken::Required => "is required".to_owned(),
        Broken::UnknownField => "is not a known field".to_owned(),
        Broken::NotAString => "must be a string".to_owned(),
        Broken::NotAnInteger => "must be a whole number".to_owned(),
        Broken::NotABoolean => "must be true or false".to_owned(),
        Broken::TooShort { min: 1 } => "must not be empty".to_owned(),
        Broken::TooShort { min } => format!("must have at least {min} characters"),
        Broken::TooLong { max } => format!("must have at most {max} characters"),
        Broken::OutOfRange { min, max } => format!("must be between {min} and {max}"),
        Broken::Blank => "must hold more than white space".to_owned(),
        Broken::ControlCharacter => "must not hold control characters other than newline and tab".to_owned(),
        Broken::NotAnEmail => "must be an e-mail address".to_owned(),
        Broken::NotOneOf { allowed } => format!("must be one of {}", allowed.join(", ")),
    }
}
