//! Whose pages may read what the board answers.

use std::time::Duration;

use actix_cors::Cors;
use actix_web::HttpResponse;
use actix_web::http::header::{self, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue, VARY};

/// How long a browser may remember what it was told.
pub const MAX_AGE: Duration = Duration::from_mins(10);

/// What a page may read besides the body.
const EXPOSED: [&str; 9] = [
    "ETag",
    "Location",
    "Link",
    "Retry-After",
    "X-Request-Id",
    "Idempotent-Replayed",
    "RateLimit",
    "RateLimit-Policy",
    "traceparent",
];

/// The origins that the operator named.
#[derive(Clone, Debug)]
pub struct Origins(Vec<String>);

impl Origins {
    #[must_use]
    pub fn new(origins: Vec<String>) -> Self {
        Self(origins)
    }

    /// Whether nobody's pages may.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middleware that tells browsers.
    pub fn middleware(&self) -> Cors {
        let cors = self.0.iter().fold(Cors::default(), |cors, origin| cors.allowed_origin(origin));
        cors.allowed_methods(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
            .allowed_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH])
            .allowed_headers([header::RANGE, header::IF_RANGE])
            .allowed_headers(["idempotency-key", "x-request-id", "traceparent", "tracestate"])
            .expose_headers(EXPOSED)
            .max_age(usize::try_from(MAX_AGE.as_secs()).ok())
    }

    /// Tells the browser of a page at `origin` of an answer that the middleware does not see: one whose request is gone.
    pub fn let_read(&self, origin: &HeaderValue, answer: &mut HttpResponse) {
        if !self.0.iter().any(|named| named.as_bytes() == origin.as_bytes()) {
            return;
        }
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if let Ok(exposed) = HeaderValue::from_str(&EXPOSED.join(", ")) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}
