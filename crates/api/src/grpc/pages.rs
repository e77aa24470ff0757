//! Whose pages may call, and what they may say and read: as [`crate::cors`] of REST.

use http::Method;
use http::header::{HeaderName, HeaderValue};
use tower_http::cors::CorsLayer;

use crate::cors::MAX_AGE;

/// What gRPC-Web's clients send, and what every call may.
const SENT: [&str; 10] = [
    "authorization",
    "content-type",
    "accept-language",
    "grpc-timeout",
    "x-grpc-web",
    "x-user-agent",
    "x-request-id",
    "traceparent",
    "tracestate",
    "grpc-accept-encoding",
];

/// What a page may read besides the body.
const EXPOSED: [&str; 8] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "x-request-id",
    "idempotent-replayed",
    "ratelimit",
    "ratelimit-policy",
    "traceparent",
];

/// Without origins nobody's pages may.
pub(super) fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect::<Vec<_>>();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        .allow_headers(SENT.map(HeaderName::from_static))
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(MAX_AGE)
}
