//! What goes wrong, as a client sees it: RFC 9457 `application/problem+json`, and the only conversion from
//! [`mundap_domain::Error`].
//!
//! A handler returns `Err(Problem)`; [`crate::edge`] adds the request's id and the language that it asks for, and sends it.
//! `code` never changes; what it says to a person is in [`crate::words`]; the cause is for the log alone.

mod cause;
#[cfg(test)]
mod tests;
mod wording;

use std::fmt;
use std::time::Duration;

use actix_cors::CorsError;
use actix_multipart::MultipartError;
use actix_web::error::PayloadError;
use actix_web::http::header::{
    ALLOW, CONTENT_LANGUAGE, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, ResponseError};
use mundap_domain::Error;
use mundap_domain::error::{Cause, Violations};
use mundap_domain::idempotency::IdempotencyKey;
use mundap_domain::image::Refusal;
use serde::Serialize;
use utoipa::ToSchema;

pub use self::cause::to_log;
use self::wording::{detail, field_errors, summary};
pub use self::wording::{say, say_of_signing_in};
use crate::rate;
use crate::words::{Language, Phrase};

/// Codes that the faces add to the domain's, in the order of `docs/errors.md`.
pub const CODES: [&str; 15] = [
    "malformed_json",
    "malformed_form",
    "malformed_message",
    "invalid_path",
    "invalid_query",
    "invalid_header",
    "route_not_found",
    "method_not_allowed",
    "target_too_long",
    "head_too_large",
    "body_too_large",
    "body_timeout",
    "unsupported_media_type",
    "range_not_satisfiable",
    "too_slow",
];

/// One refusal. Boxed: it is in every handler's result, and rare.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: Detail,
    header: Option<(HeaderName, HeaderValue)>,
    cause: Option<Cause>,
}

/// What is to be said, in the language that the request turns out to ask for.
#[derive(Debug)]
enum Detail {
    Phrase(Phrase),
    Violations(Violations),
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
    /// What happened and what to do, for a person: in Korean or English, by `Accept-Language`.
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
    /// A problem that is explained by the text of its code's own name.
    fn new(status: StatusCode, code: &'static str) -> Self {
        Self::saying(status, code, Phrase::new(code))
    }

    fn saying(status: StatusCode, code: &'static str, phrase: Phrase) -> Self {
        Self(Box::new(Parts { status, code, detail: Detail::Phrase(phrase), header: None, cause: None }))
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    fn retry_after(mut self, seconds: i64) -> Self {
        self.0.header = Some((RETRY_AFTER, seconds.into()));
        self
    }

    fn because(mut self, cause: Cause) -> Self {
        self.0.cause = Some(cause);
        self
    }

    fn malformed_json(phrase: Phrase) -> Self {
        Self::saying(StatusCode::BAD_REQUEST, "malformed_json", phrase)
    }

    /// `reason` is the parser's, and English.
    #[must_use]
    pub fn not_an_object(reason: &serde_json::Error) -> Self {
        Self::malformed_json(Phrase::new("malformed_json").with("reason", reason.to_string()))
    }

    #[must_use]
    pub fn empty_body() -> Self {
        Self::malformed_json(Phrase::new("malformed_json-empty"))
    }

    /// `reason` is the connection's, and English.
    #[must_use]
    pub fn broken_off(reason: &PayloadError) -> Self {
        Self::malformed_json(Phrase::new("malformed_json-broken_off").with("reason", reason.to_string()))
    }

    /// A form in which `name` stands twice.
    #[must_use]
    pub fn malformed_form(name: &str) -> Self {
        let phrase = Phrase::new("malformed_form").with("name", name.to_owned());
        Self::saying(StatusCode::BAD_REQUEST, "malformed_form", phrase)
    }

    /// What came over gRPC is no message of the method's.
    #[must_use]
    pub fn malformed_message() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_message")
    }

    #[must_use]
    pub fn invalid_path(segment: &str) -> Self {
        let phrase = Phrase::new("invalid_path").with("segment", segment.to_owned());
        Self::saying(StatusCode::BAD_REQUEST, "invalid_path", phrase)
    }

    fn invalid_query(phrase: Phrase) -> Self {
        Self::saying(StatusCode::BAD_REQUEST, "invalid_query", phrase)
    }

    #[must_use]
    pub fn repeated_parameter(name: &str) -> Self {
        Self::invalid_query(Phrase::new("invalid_query-repeated").with("name", name.to_owned()))
    }

    /// A parameter that is none of the `known` ones.
    #[must_use]
    pub fn unknown_parameter(name: &str, known: &[&'static str]) -> Self {
        let phrase = Phrase::new("invalid_query-unknown");
        Self::invalid_query(phrase.with("name", name.to_owned()).with("known", known.join(", ")))
    }

    #[must_use]
    pub fn parameter_is_no_integer(name: &str, value: String) -> Self {
        let phrase = Phrase::new("invalid_query-not_an_integer");
        Self::invalid_query(phrase.with("name", name.to_owned()).with("value", value))
    }

    fn invalid_header(phrase: Phrase) -> Self {
        Self::saying(StatusCode::BAD_REQUEST, "invalid_header", phrase)
    }

    /// An `If-Match` with something in it that is no entity tag.
    #[must_use]
    pub fn not_an_entity_tag(tag: &str) -> Self {
        Self::invalid_header(Phrase::new("invalid_header-if_match").with("tag", tag.to_owned()))
    }

    #[must_use]
    pub fn if_match_is_no_text() -> Self {
        Self::invalid_header(Phrase::new("invalid_header-if_match_bytes"))
    }

    #[must_use]
    pub fn not_an_idempotency_key() -> Self {
        let phrase = Phrase::new("invalid_header-idempotency_key");
        Self::invalid_header(phrase.with("max", IdempotencyKey::MAX))
    }

    /// A page of an origin, or with a method or header, that `MUNDAP_CORS_ORIGINS` does not stand for.
    #[must_use]
    pub fn not_for_this_page(reason: &CorsError) -> Self {
        Self::invalid_header(Phrase::new("invalid_header-cors").with("reason", reason.to_string()))
    }

    #[must_use]
    pub fn route_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "route_not_found")
    }

    /// `allowed` goes into the `Allow` header (RFC 9110, 15.5.6).
    #[must_use]
    pub fn method_not_allowed(allowed: &[Method]) -> Self {
        let names = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let header = HeaderValue::from_str(&names).ok().map(|value| (ALLOW, value));
        let phrase = Phrase::new("method_not_allowed").with("methods", names);
        let mut problem = Self::saying(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", phrase);
        problem.0.header = header;
        problem
    }

    /// `limit` is in bytes.
    #[must_use]
    pub fn target_too_long(limit: usize) -> Self {
        let phrase = Phrase::new("target_too_long").with("limit", limit);
        Self::saying(StatusCode::URI_TOO_LONG, "target_too_long", phrase)
    }

    /// `limit` is in bytes.
    #[must_use]
    pub fn head_too_large(limit: usize) -> Self {
        let phrase = Phrase::new("head_too_large").with("limit", limit);
        Self::saying(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", phrase)
    }

    /// `limit` is in bytes.
    #[must_use]
    pub fn body_too_large(limit: usize) -> Self {
        let phrase = Phrase::new("body_too_large").with("limit", limit);
        Self::saying(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", phrase)
    }

    #[must_use]
    pub fn body_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout")
    }

    /// `wanted` is the media type that the route reads.
    #[must_use]
    pub fn unsupported_media_type(wanted: &'static str) -> Self {
        let phrase = Phrase::new("unsupported_media_type").with("wanted", wanted);
        Self::saying(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", phrase)
    }

    /// `reason` is the parser's, and English.
    #[must_use]
    pub fn broken_form(reason: &MultipartError) -> Self {
        Self::malformed_parts(Phrase::new("malformed_form-parts").with("reason", reason.to_string()))
    }

    /// A form of parts without its last boundary.
    #[must_use]
    pub fn form_breaks_off() -> Self {
        Self::malformed_parts(Phrase::new("malformed_form-breaks_off"))
    }

    fn malformed_parts(phrase: Phrase) -> Self {
        Self::saying(StatusCode::BAD_REQUEST, "malformed_form", phrase)
    }

    /// `length` goes into the `Content-Range` header (RFC 9110, 15.5.17).
    #[must_use]
    pub fn range_not_satisfiable(length: u64) -> Self {
        let phrase = Phrase::new("range_not_satisfiable").with("length", length);
        let mut problem = Self::saying(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", phrase);
        let value = HeaderValue::from_str(&format!("bytes */{length}"));
        problem.0.header = value.ok().map(|value| (CONTENT_RANGE, value));
        problem
    }

    /// No place is left. Without a cause: under overload, a line in the log for each would be overload too.
    #[must_use]
    pub fn turned_away() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy").with(RETRY_AFTER, RETRY_SECONDS)
    }

    /// The request's time is up. What it `writes` may have been written, or not.
    #[must_use]
    pub fn too_slow(writes: bool, limit: Duration) -> Self {
        let phrase = Phrase::new(if writes { "too_slow-write" } else { "too_slow" });
        Self::saying(StatusCode::SERVICE_UNAVAILABLE, "too_slow", phrase)
            .with(RETRY_AFTER, RETRY_SECONDS)
            .because(format!("it took longer than {limit:?}").into())
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// What happened and what to do, in this language.
    #[must_use]
    pub fn detail(&self, language: Language) -> String {
        self.texts(language).0
    }

    fn texts(&self, language: Language) -> (String, Vec<FieldError>) {
        match &self.0.detail {
            Detail::Phrase(phrase) => (phrase.say(language), Vec::new()),
            Detail::Violations(violations) => {
                let errors = field_errors(violations, language);
                (summary(&errors, language), errors)
            }
        }
    }

    #[must_use]
    pub fn header(&self) -> Option<&(HeaderName, HeaderValue)> {
        self.0.header.as_ref()
    }

    /// What the log says of it.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        self.0.cause.as_ref().and_then(|cause| to_log(&**cause))
    }

    /// The answer, with the request's id in it.
    #[must_use]
    pub fn response(&self, request_id: &str, language: Language) -> HttpResponse {
        answer(self.0.status, self.0.header.as_ref(), language, self.body(request_id, language))
    }

    /// Only `detail`s are translated: `title` is the status's English name.
    fn body(&self, request_id: &str, language: Language) -> String {
        let (detail, errors) = self.texts(language);
        let body = ProblemBody {
            r#type: format!("/docs/errors#{}", self.0.code),
            title: self.0.status.canonical_reason().unwrap_or("Error"),
            status: self.0.status.as_u16(),
            detail: &detail,
            code: self.0.code,
            request_id,
            errors: (self.0.status == StatusCode::UNPROCESSABLE_ENTITY).then_some(&*errors),
        };
        serde_json::to_string(&body).unwrap_or_default()
    }
}

fn answer(
    status: StatusCode,
    header: Option<&(HeaderName, HeaderValue)>,
    language: Language,
    body: String,
) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    if let Some((name, value)) = header {
        response.insert_header((name.clone(), value.clone()));
    }
    let fixed = HeaderValue::from_static;
    response
        .insert_header((CONTENT_TYPE, fixed("application/problem+json")))
        .insert_header((CONTENT_LANGUAGE, fixed(language.tag())))
        .insert_header((VARY, fixed("Accept-Language")))
        .body(body)
}

/// A problem that is the same for everybody but for the request's id, put into words once: what turns away those that there
/// is no time for must not take time.
pub struct Prepared {
    status: StatusCode,
    header: Option<(HeaderName, HeaderValue)>,
    /// What stands before the id and behind it, by language.
    bodies: [(String, String); Language::ALL.len()],
}

impl Prepared {
    #[must_use]
    pub fn new(problem: &Problem) -> Self {
        // No text has it, so that it is found where the id stands.
        const ID: &str = "\u{1}";
        let bodies = Language::ALL.map(|language| {
            let body = problem.body(ID, language);
            // JSON escapes it.
            let (before, after) = body.split_once("\\u0001").unwrap_or((&body, ""));
            (before.to_owned(), after.to_owned())
        });
        Self { status: problem.0.status, header: problem.0.header.clone(), bodies }
    }

    /// As [`Problem::response`].
    #[must_use]
    pub fn response(&self, request_id: &str, language: Language) -> HttpResponse {
        let place = Language::ALL.iter().position(|known| *known == language).unwrap_or_default();
        let (before, after) = &self.bodies[place];
        let body = [before, request_id, after].concat();
        answer(self.status, self.header.as_ref(), language, body)
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
        self.response("", Language::default())
    }
}

/// RFC 6750, 3: what to bring, and what was wrong with what was brought.
pub const CHALLENGE: &str = r#"Bearer realm="mundap""#;
pub const INVALID_TOKEN_CHALLENGE: &str = r#"Bearer realm="mundap", error="invalid_token""#;

/// Seconds until a client may try again what only has to wait: after 503, and while the first request with a key runs.
pub const RETRY_SECONDS: &str = "1";

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (code, detail) = (error.code(), detail(&error));
        let problem = |status| Self(Box::new(Parts { status, code, detail, header: None, cause: None }));
        match error {
            Error::Invalid(_) | Error::KeyReused | Error::InvalidMailToken => problem(StatusCode::UNPROCESSABLE_ENTITY),
            Error::Unauthenticated | Error::InvalidRefreshToken => {
                problem(StatusCode::UNAUTHORIZED).with(WWW_AUTHENTICATE, CHALLENGE)
            }
            Error::InvalidToken => problem(StatusCode::UNAUTHORIZED).with(WWW_AUTHENTICATE, INVALID_TOKEN_CHALLENGE),
            Error::InvalidCredentials | Error::Suspended | Error::NotAuthor | Error::NotAdmin | Error::OwnAccount => {
                problem(StatusCode::FORBIDDEN)
            }
            Error::NotFound(_) => problem(StatusCode::NOT_FOUND),
            Error::EmailTaken => problem(StatusCode::CONFLICT),
            Error::KeyInUse => problem(StatusCode::CONFLICT).with(RETRY_AFTER, RETRY_SECONDS),
            Error::VersionMismatch => problem(StatusCode::PRECONDITION_FAILED),
            Error::InvalidCursor => problem(StatusCode::BAD_REQUEST),
            Error::Busy(cause) | Error::Unavailable(cause) | Error::StorageUnavailable(cause) => {
                problem(StatusCode::SERVICE_UNAVAILABLE).with(RETRY_AFTER, RETRY_SECONDS).because(cause)
            }
            Error::Image(refusal) => problem(match refusal {
                Refusal::NotAnImage | Refusal::Animated => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Refusal::Broken | Refusal::TooManyPixels => StatusCode::UNPROCESSABLE_ENTITY,
                Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                Refusal::CommentFull | Refusal::QuotaExceeded => StatusCode::CONFLICT,
            }),
            Error::RateLimited(allowance) => {
                problem(StatusCode::TOO_MANY_REQUESTS).retry_after(rate::retry_after(&allowance))
            }
            Error::Internal(cause) => problem(StatusCode::INTERNAL_SERVER_ERROR).because(cause),
        }
    }
}

impl From<Violations> for Problem {
    fn from(violations: Violations) -> Self {
        Error::Invalid(violations).into()
    }
}
