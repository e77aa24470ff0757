//! Answers: one mechanism each for single resources, created ones and pages, so that a new entity gets entity tags,
//! conditional reads and links by construction.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, LINK, LOCATION, VARY};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use mundap_domain::Error;
use mundap_domain::env::Timestamp;
use mundap_domain::idempotency::Outcome;
use mundap_domain::page::Page;
use mundap_domain::version::{Version, elements};
use serde::{Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};
use xxhash_rust::xxh3::xxh3_64;

use crate::app::Board;
use crate::problem::Problem;

pub type Answer = Result<HttpResponse, Problem>;

/// An instant on the wire: RFC 3339, UTC, microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub Timestamp);

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples([serde_json::json!("2026-01-02T12:00:00.000000Z")])
            .build()
            .into()
    }
}

impl ToSchema for Time {}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339())
    }
}

/// A single resource: 200 with its `ETag`, or 304 where `If-None-Match` names it (RFC 9110, 13.1.2).
pub fn single(req: &HttpRequest, version: Version, view: &impl Serialize) -> Answer {
    tagged(req, HttpResponse::Ok(), version, view)
}

/// A resource that was made at `path`: 201 with `Location` and `ETag`; a repetition says so and answers the same.
pub fn created<T>(
    req: &HttpRequest,
    outcome: &Outcome<T>,
    path: &str,
    version: Version,
    view: &impl Serialize,
) -> Answer {
    tagged(req, created_at(req, outcome, path), version, view)
}

/// The head of [`created`], for what has an entity tag of its own.
pub(crate) fn created_at<T>(req: &HttpRequest, outcome: &Outcome<T>, path: &str) -> HttpResponseBuilder {
    let mut response = HttpResponse::Created();
    if outcome.is_replayed() {
        response.insert_header(("idempotent-replayed", "true"));
    }
    response.insert_header((LOCATION, format!("{}{path}", public_url(req))));
    response
}

fn tagged(req: &HttpRequest, mut response: HttpResponseBuilder, version: Version, view: &impl Serialize) -> Answer {
    let body = json(view)?;
    // The version is for If-Match; the hash makes the tag change with anything that is shown, such as a comment count
    // or the author's name.
    let etag = format!("\"{}-{:016x}\"", version.get(), xxh3_64(&body));
    response.insert_header((ETAG, etag.as_str())).insert_header((CACHE_CONTROL, "private, no-cache"));
    response.insert_header((VARY, "Authorization"));
    if req.method().is_safe() && named_by_if_none_match(req, &etag) {
        return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
    }
    Ok(response.content_type("application/json").body(body))
}

/// Weak comparison: a proxy that compressed the answer may have weakened its tag.
pub(crate) fn named_by_if_none_match(req: &HttpRequest, etag: &str) -> bool {
    let lines = req.headers().get_all(IF_NONE_MATCH).filter_map(|value| value.to_str().ok());
    lines.flat_map(elements).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[derive(Serialize)]
struct PageBody<'a, V> {
    items: Vec<V>,
    next: Option<&'a str>,
}

/// A page: `{"items": […], "next": CURSOR}` with a `Link` to the next one (RFC 8288).
pub fn page<'a, T, V: Serialize>(req: &HttpRequest, page: &'a Page<T>, view: impl Fn(&'a T) -> V) -> Answer {
    let items: Vec<V> = page.items.iter().map(view).collect();
    let bytes = 512 * (1 + items.len());
    let body = written(&PageBody { items, next: page.next.as_deref() }, bytes)?;
    let mut response = HttpResponse::Ok();
    response.insert_header((CACHE_CONTROL, "private, no-cache")).insert_header((VARY, "Authorization"));
    if let Some(next) = &page.next {
        response.insert_header((LINK, format!("<{}>; rel=\"next\"", next_url(req, next))));
    }
    Ok(response.content_type("application/json").body(body))
}

/// The same request with another cursor.
fn next_url(req: &HttpRequest, cursor: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(url::form_urlencoded::parse(req.query_string().as_bytes()).filter(|(name, _)| name != "cursor"));
    query.append_pair("cursor", cursor);
    format!("{}{}?{}", public_url(req), req.path(), query.finish())
}

fn public_url(req: &HttpRequest) -> &str {
    req.app_data::<web::Data<Board>>().map_or("", |board| &board.public_url)
}

/// # Errors
/// 500 where the value cannot be written as JSON, which would be a fault of ours.
pub fn json(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    written(value, 512)
}

/// As [`json`], of about so many bytes.
fn written(value: &impl Serialize, bytes: usize) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::with_capacity(bytes);
    sonic_rs::to_writer(&mut body, value).map_err(|error| Problem::from(Error::internal(error)))?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_written_as_json_wants_it() {
        let all: String = ('\0'..=char::MAX).collect();
        // At any distance from where a text begins and ends: many bytes are looked at in one step.
        let around = (0..130).map(|n| ["\u{7}\"\\é", &"가".repeat(n), &"x".repeat(n), "\n\t\u{1f}\u{7f}"].concat());
        for text in around.chain([all]) {
            let body = json(&(&text, Some(&text), [1_i64, i64::MAX, i64::MIN], 0.5_f64, true)).ok().unwrap();
            let read: (String, Option<String>, [i64; 3], f64, bool) = serde_json::from_slice(&body).unwrap();
            assert_eq!(read, (text.clone(), Some(text.clone()), [1, i64::MAX, i64::MIN], 0.5, true));
            assert_eq!(json(&text).ok().unwrap(), serde_json::to_vec(&text).unwrap());
        }
    }
}
