//! What goes wrong, as a client sees it: RFC 9457 `application/problem+json`, and the only conversion from
//! [`mundap_domain::Error`].
//!
//! A handler returns `Err(Problem)`; [`crate::edge`] adds the request's id and the language that it asks for, and sends it.
//! `code` never changes; what it says to a person is in [`crate::words`]; the cause is for the log alone.

use std::fmt;
use std::time::Duration;

use actix_multipart::MultipartError;
use actix_web::error::PayloadError;
use actix_web::http::header::{
    ALLOW, CONTENT_LANGUAGE, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, ResponseError};
use mundap_domain::Error;
use mundap_domain::error::{Broken, Cause, Violation, Violations};
use mundap_domain::idempotency::IdempotencyKey;
use mundap_domain::image::{Image, Refusal, Upload};
use mundap_grpc::Said;
use serde::Serialize;
use utoipa::ToSchema;

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

    #[must_use]
    pub fn unknown_parameter(name: &str) -> Self {
        Self::invalid_query(Phrase::new("invalid_query-unknown").with("name", name.to_owned()))
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

    /// The cause and its causes in one line, for the log.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        self.0.cause.as_ref().map(|cause| chain(&**cause))
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
            let errors = field_errors(&violations, language);
            Said { message: summary(&errors, language), fields: errors.into_iter().map(|error| error.detail).collect() }
        }
    }
}

/// What is to be said of an error.
fn detail(error: &Error) -> Detail {
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

fn field_errors(violations: &Violations, language: Language) -> Vec<FieldError> {
    let error = |violation: &Violation| FieldError {
        pointer: pointer(&violation.field),
        code: violation.rule.code(),
        detail: explain(&violation.rule).say(language),
    };
    violations.iter().map(error).collect()
}

/// All of them in one sentence.
fn summary(errors: &[FieldError], language: Language) -> String {
    let field = |error: &FieldError| {
        let phrase = Phrase::new("validation_failed-field").with("pointer", error.pointer.clone());
        phrase.with("rule", error.detail.clone()).say(language)
    };
    let fields = errors.iter().map(field).collect::<Vec<_>>().join("; ");
    Phrase::new("validation_failed").with("fields", fields).say(language)
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

/// The rule's text, named after its code.
fn explain(rule: &Broken) -> Phrase {
    let phrase = Phrase::new(format!("rule-{}", rule.code()));
    match rule {
        Broken::Required
        | Broken::UnknownField
        | Broken::NotAString
        | Broken::NotAnInteger
        | Broken::NotABoolean
        | Broken::Blank
        | Broken::ControlCharacter
        | Broken::NotAnEmail
        | Broken::NotVisibleAscii
        | Broken::NotAnEntityTag => phrase,
        Broken::TooShort { min } => phrase.with("min", *min),
        Broken::TooLong { max } => phrase.with("max", *max),
        Broken::OutOfRange { min, max } => phrase.with("min", *min).with("max", *max),
        Broken::NotOneOf { allowed } => phrase.with("allowed", allowed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use actix_web::body::to_bytes;
    use chrono::TimeDelta;
    use mundap_domain::error::Kind;
    use mundap_domain::rate::{Allowance, Policy, Quota};

    use super::*;

    /// The `Kind`s' codes, as the entities' files spell them.
    fn kinds() -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../domain/src");
        let mut codes = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(path).unwrap();
                let literals = source.lines().filter(|line| line.contains("::new(")).flat_map(|line| line.split('"'));
                codes.extend(literals.filter(|literal| literal.ends_with("_not_found")).map(str::to_owned));
            }
        }
        assert!(codes.len() >= 3, "{codes:?}");
        codes
    }

    /// Every problem there is, each with something to say that no text says by itself.
    fn problems() -> Vec<Problem> {
        let cause = || Cause::from("the cause");
        let errors = [
            Error::Unauthenticated,
            Error::InvalidToken,
            Error::InvalidCredentials,
            Error::InvalidRefreshToken,
            Error::InvalidMailToken,
            Error::Suspended,
            Error::NotAuthor,
            Error::NotAdmin,
            Error::OwnAccount,
            Error::EmailTaken,
            Error::KeyReused,
            Error::KeyInUse,
            Error::VersionMismatch,
            Error::InvalidCursor,
            Error::RateLimited(Allowance {
                policy: Policy::Writes,
                quota: Quota::new(60, TimeDelta::minutes(1)).unwrap(),
                left: 0,
                more_in: TimeDelta::seconds(37),
            }),
            Error::Busy(cause()),
            Error::Unavailable(cause()),
            Error::Image(Refusal::NotAnImage),
            Error::Image(Refusal::Animated),
            Error::Image(Refusal::Broken),
            Error::Image(Refusal::TooLarge),
            Error::Image(Refusal::TooManyPixels),
            Error::Image(Refusal::CommentFull),
            Error::Image(Refusal::QuotaExceeded),
            Error::StorageUnavailable(cause()),
            Error::Internal(cause()),
        ];
        let kinds: Vec<&'static str> = kinds().into_iter().map(|code| &*code.leak()).collect();
        let missing = kinds.into_iter().map(|code| Error::NotFound(Kind::new("thing", code)));
        let mut problems: Vec<Problem> = errors.into_iter().chain(missing).map(Problem::from).collect();
        problems.extend([
            Problem::not_an_object(&serde_json::from_str::<u8>("{").unwrap_err()),
            Problem::empty_body(),
            Problem::broken_off(&PayloadError::EncodingCorrupted),
            Problem::malformed_form("<name>"),
            Problem::broken_form(&MultipartError::Incomplete),
            Problem::form_breaks_off(),
            Problem::malformed_message(),
            Problem::invalid_path("<segment>"),
            Problem::repeated_parameter("<name>"),
            Problem::unknown_parameter("<name>"),
            Problem::parameter_is_no_integer("<name>", "<value>".to_owned()),
            Problem::not_an_entity_tag("<tag>"),
            Problem::if_match_is_no_text(),
            Problem::not_an_idempotency_key(),
            Problem::route_not_found(),
            Problem::method_not_allowed(&[Method::GET, Method::PATCH]),
            Problem::target_too_long(8192),
            Problem::head_too_large(32_768),
            Problem::body_too_large(524_288),
            Problem::body_timeout(),
            Problem::unsupported_media_type("<wanted>"),
            Problem::range_not_satisfiable(1000),
            Problem::turned_away(),
            Problem::too_slow(false, Duration::from_secs(5)),
            Problem::too_slow(true, Duration::from_secs(5)),
        ]);
        problems
    }

    fn rules() -> Vec<Broken> {
        vec![
            Broken::Required,
            Broken::UnknownField,
            Broken::NotAString,
            Broken::NotAnInteger,
            Broken::NotABoolean,
            Broken::TooShort { min: 8 },
            Broken::TooLong { max: 20_000 },
            Broken::OutOfRange { min: -3, max: 9_007_199_254_740_991 },
            Broken::Blank,
            Broken::ControlCharacter,
            Broken::NotAnEmail,
            Broken::NotVisibleAscii,
            Broken::NotAnEntityTag,
            Broken::NotOneOf { allowed: &["newest", "oldest"] },
        ]
    }

    #[test]
    fn every_code_has_its_texts_and_every_text_its_code_in_every_language() {
        let problems = problems();
        let answered: BTreeSet<&str> =
            problems.iter().map(Problem::code).chain([Problem::from(Violations::default()).code()]).collect();
        let kinds = kinds();
        let codes = Error::CODES.into_iter().chain(CODES).chain(kinds.iter().map(String::as_str));
        assert_eq!(answered, codes.collect(), "a problem of each code");
        let rules = rules();
        assert_eq!(rules.iter().map(Broken::code).collect::<Vec<_>>(), Broken::CODES, "each rule");

        let mut used = BTreeSet::from(["validation_failed".to_owned(), "validation_failed-field".to_owned()]);
        let explained: Vec<Phrase> = rules.iter().map(explain).collect();
        for problem in &problems {
            let Detail::Phrase(phrase) = &problem.0.detail else { panic!("{problem:?}") };
            let (code, name) = (problem.code(), phrase.name());
            let is_of_code = name == code || name.strip_prefix(code).is_some_and(|rest| rest.starts_with('-'));
            assert!(is_of_code, "{name} is no text of {code}");
        }
        let said = problems.iter().filter_map(|problem| match &problem.0.detail {
            Detail::Phrase(phrase) => Some(phrase),
            Detail::Violations(_) => None,
        });
        let of_a_call = Phrase::new("unauthenticated-call");
        for phrase in said.chain(&explained).chain([&of_a_call]) {
            phrase.must_say_everything();
            used.insert(phrase.name().to_owned());
        }
        for language in Language::ALL {
            let names = crate::words::inspection::names(language);
            let missing: Vec<_> = used.difference(&names).collect();
            let unused: Vec<_> = names.difference(&used).collect();
            assert!(missing.is_empty() && unused.is_empty(), "{language:?}: missing {missing:?}, unused {unused:?}");
        }
    }

    #[test]
    fn every_broken_rule_is_named_with_its_field() {
        let mut violations = Violations::default();
        violations.add("title", Broken::TooShort { min: 1 });
        violations.add("a/b{c}", Broken::UnknownField);
        let problem = Problem::from(violations);
        assert_eq!(problem.detail(Language::English), "/title must not be empty; /a~1b{c} is not a known field.");
        assert_eq!(problem.detail(Language::Korean), "/title: 비워 둘 수 없습니다; /a~1b{c}: 알 수 없는 필드입니다.");
    }

    #[actix_web::test]
    async fn what_is_prepared_says_the_same() {
        let problem = Problem::turned_away();
        let prepared = Prepared::new(&problem);
        for language in Language::ALL {
            let (made, ready) = (problem.response("an-id", language), prepared.response("an-id", language));
            assert_eq!(made.status(), ready.status());
            assert!(ready.headers().contains_key(RETRY_AFTER));
            assert_eq!(made.headers().len(), ready.headers().len());
            for (name, value) in made.headers() {
                assert_eq!(ready.headers().get(name), Some(value));
            }
            let body = async |answer: HttpResponse| to_bytes(answer.into_body()).await.map_err(|_| "no body").unwrap();
            let (made, ready) = (body(made).await, body(ready).await);
            assert!(String::from_utf8_lossy(&ready).contains("\"request_id\":\"an-id\""), "{ready:?}");
            assert_eq!(made, ready);
        }
    }
}
