//! What a request brings, read and checked for shape. What the values must be is the domain's business.

mod fields;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::{Deref, RangeInclusive};
use std::rc::Rc;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, IF_MATCH};
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::{Ready, ready};
use mundap_domain::error::{Broken, Violations};
use mundap_domain::idempotency::IdempotencyKey;
use mundap_domain::page::{Order, PageRequest, PageSize};
use mundap_domain::version::{Expected, NoTag};
use mundap_domain::{Actor, Error};

pub use self::fields::{Fields, OpenFields};
use crate::admission;
use crate::app::Board;
use crate::edge::authenticate;
use crate::problem::Problem;

/// Who is asking; [`crate::edge`] found out before anything else of the request was read. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Caller(Rc<Known>);

#[derive(Debug)]
struct Known {
    at_first: Actor,
    /// As they were when a body that kept them waiting was there.
    by_then: OnceCell<Actor>,
}

impl Deref for Caller {
    type Target = Actor;

    fn deref(&self) -> &Actor {
        self.0.by_then.get().unwrap_or(&self.0.at_first)
    }
}

impl From<Actor> for Caller {
    fn from(actor: Actor) -> Self {
        Self(Rc::new(Known { at_first: actor, by_then: OnceCell::new() }))
    }
}

impl Caller {
    /// The caller of this request; anonymous where nobody signed in.
    #[must_use]
    pub fn of(req: &HttpRequest) -> Self {
        req.extensions().get::<Self>().cloned().unwrap_or_else(|| Actor::Anonymous.into())
    }

    /// Turns a stranger away before the body of this request is read.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub fn signed_in(req: &HttpRequest) -> Result<(), Error> {
        if matches!(*Self::of(req), Actor::Anonymous) { Err(Error::Unauthenticated) } else { Ok(()) }
    }

    /// Looks again who is asking: whoever was suspended, or signed out, while their body arrived must not be heard any more.
    async fn look_again(req: &HttpRequest, board: &Board) -> Result<(), Error> {
        let by_then = authenticate(req, board).await?;
        // A request has one body.
        let _ = Self::of(req).0.by_then.set(by_then);
        Ok(())
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self::of(req)))
    }
}

/// The id in the path.
#[derive(Clone, Copy, Debug)]
pub struct Id(pub i64);

impl FromRequest for Id {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let segment = req.match_info().iter().next().map_or("", |(_, value)| value);
        ready(parse_id(segment).map(Self).ok_or_else(|| Problem::invalid_path(segment)))
    }
}

/// A whole number; one beyond 64 bits is a well-formed id that nothing has.
#[must_use]
pub fn parse_id(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(id) => Some(id),
        Err(error) if matches!(error.kind(), std::num::IntErrorKind::PosOverflow) => Some(i64::MAX),
        Err(error) if matches!(error.kind(), std::num::IntErrorKind::NegOverflow) => Some(i64::MIN),
        Err(_) => None,
    }
}

/// As [`parse_id`], also with white space around it and a zero fraction, as pydantic reads numbers.
#[must_use]
pub fn parse_lax_id(text: &str) -> Option<i64> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_whole = !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0');
    is_whole.then(|| parse_id(whole)).flatten()
}

/// `If-Match` (RFC 9110, 13.1.1): the versions that its entity tags carry.
#[derive(Debug)]
pub struct IfMatch(pub Expected);

impl FromRequest for IfMatch {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut values = Vec::new();
        for value in req.headers().get_all(IF_MATCH) {
            match value.to_str() {
                Ok(text) => values.push(text),
                Err(_) => return ready(Err(Problem::if_match_is_no_text())),
            }
        }
        // Several lines of one header are one list (RFC 9110, 5.3).
        ready(Self::parse((!values.is_empty()).then(|| values.join(",")).as_deref()))
    }
}

impl IfMatch {
    /// Parses the header's value, where there is one.
    ///
    /// # Errors
    /// 400 where something in it is no entity tag, or nothing is.
    pub fn parse(value: Option<&str>) -> Result<Self, Problem> {
        Expected::of_tags(value).map(Self).map_err(|NoTag(tag)| Problem::not_an_entity_tag(&tag))
    }
}

/// `Idempotency-Key`, where the client sent one.
#[derive(Debug)]
pub struct OnceKey(pub Option<IdempotencyKey>);

impl FromRequest for OnceKey {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(req))
    }
}

impl OnceKey {
    /// # Errors
    /// 400 where it is no key.
    pub fn of(req: &HttpRequest) -> Result<Self, Problem> {
        let mut values = req.headers().get_all("idempotency-key");
        let key = match (values.next(), values.next()) {
            (None, _) => return Ok(Self(None)),
            (Some(value), None) => value.to_str().ok().and_then(IdempotencyKey::parse),
            (Some(_), Some(_)) => None,
        };
        key.map(|key| Self(Some(key))).ok_or_else(Problem::not_an_idempotency_key)
    }
}

/// The query string. Unknown and repeated parameters are refused: a misspelled filter must not list everything.
#[derive(Debug)]
pub struct Query {
    values: BTreeMap<String, String>,
    /// The names that were asked for: what there is here.
    known: Vec<&'static str>,
    violations: Violations,
}

impl Query {
    /// # Errors
    /// 400 where a parameter stands twice.
    pub fn of(req: &HttpRequest) -> Result<Self, Problem> {
        Self::parse(req.query_string())
    }

    /// As [`of`](Self::of), of a request with this query string.
    ///
    /// # Errors
    /// As there.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let values = pairs(text.as_bytes()).map_err(|name| Problem::repeated_parameter(&name))?;
        Ok(Self { values, known: Vec::new(), violations: Violations::default() })
    }

    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.values.remove(name)
    }

    /// # Errors
    /// 400 where it is there and no whole number.
    pub fn integer(&mut self, name: &'static str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        parse_id(&text).map(Some).ok_or_else(|| Problem::parameter_is_no_integer(name, text))
    }

    /// A whole number in `range`, `None` where it is absent.
    ///
    /// # Errors
    /// 400 where it is no whole number.
    pub fn integer_in(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Result<Option<i64>, Problem> {
        // One beyond 64 bits must not pass for the last one within them.
        let is_whole = self.values.get(name).is_none_or(|text| text.parse::<i64>().is_ok());
        let Some(number) = self.integer(name)? else { return Ok(None) };
        if is_whole && range.contains(&number) {
            return Ok(Some(number));
        }
        self.violations.add(name, Broken::OutOfRange { min: *range.start(), max: *range.end() });
        Ok(None)
    }

    /// A value that `parse` knows.
    pub fn value<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, Vec<Broken>>) -> Option<T> {
        let text = self.text(name)?;
        parse(&text).map_err(|rules| rules.into_iter().for_each(|rule| self.violations.add(name, rule))).ok()
    }

    /// `order`, or `default`.
    pub fn order(&mut self, default: Order) -> Order {
        let Some(text) = self.text("order") else { return default };
        Order::parse(&text).unwrap_or_else(|rule| {
            self.violations.add("order", rule);
            default
        })
    }

    /// A number of items, `None` where it is absent.
    ///
    /// # Errors
    /// 400 where it is no whole number.
    pub fn size(&mut self, name: &'static str) -> Result<Option<PageSize>, Problem> {
        let Some(n) = self.integer(name)? else { return Ok(None) };
        Ok(PageSize::parse(n).map_err(|rule| self.violations.add(name, rule)).ok())
    }

    /// A number of items that may be 0, which says the same as its absence.
    ///
    /// # Errors
    /// 400 where it is no whole number.
    pub fn size_or_none(&mut self, name: &'static str) -> Result<Option<PageSize>, Problem> {
        let Some(n) = self.integer(name)? else { return Ok(None) };
        Ok(PageSize::parse_or_none(n).map_err(|rule| self.violations.add(name, rule)).ok().flatten())
    }

    /// `limit` and `cursor`.
    ///
    /// # Errors
    /// 400 where the limit is no whole number.
    pub fn page(&mut self) -> Result<PageRequest, Problem> {
        let size = self.size("limit")?.unwrap_or(PageSize::DEFAULT);
        Ok(PageRequest { size, cursor: self.text("cursor") })
    }

    /// # Errors
    /// 400 where a parameter is left that nothing asked for; 422 with every value out of its range.
    pub fn finish(mut self) -> Result<(), Problem> {
        if let Some(name) = self.values.keys().next() {
            self.known.sort_unstable();
            return Err(Problem::unknown_parameter(name, &self.known));
        }
        if self.violations.is_empty() { Ok(()) } else { Err(self.violations.into()) }
    }
}

/// Whether the body is said to be plain JSON: `application/json`, or a `+json` type such as a merge patch.
#[must_use]
pub fn is_json(req: &HttpRequest) -> bool {
    let content_type = media_type(req);
    let json = content_type == "application/json"
        || (content_type.starts_with("application/") && content_type.ends_with("+json"));
    json && plain(req)
}

/// The pairs of a form (`application/x-www-form-urlencoded`), from anybody.
///
/// # Errors
/// 415 for another media type, 400 where a name stands twice (RFC 6749, 3.2), and what [`body`] says.
pub async fn form(req: &HttpRequest, payload: Payload) -> Result<BTreeMap<String, String>, Problem> {
    if media_type(req) != "application/x-www-form-urlencoded" || !plain(req) {
        return Err(Problem::unsupported_media_type("application/x-www-form-urlencoded"));
    }
    pairs(&body(req, payload).await?).map_err(|name| Problem::malformed_form(&name))
}

/// The pairs of a query string or of a form.
///
/// # Errors
/// The name that stands twice.
pub fn pairs(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(bytes) {
        if pairs.contains_key(&*name) {
            return Err(name.into_owned());
        }
        pairs.insert(name.into_owned(), value.into_owned());
    }
    Ok(pairs)
}

pub(crate) fn media_type(req: &HttpRequest) -> String {
    let value = req.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Compressed bodies are refused: the limit counts what arrives, and a bomb grows after it.
pub(crate) fn plain(req: &HttpRequest) -> bool {
    req.headers().get(CONTENT_ENCODING).is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The most bytes of a request's target.
pub const MAX_TARGET: usize = 8 * 1024;
/// The most bytes of a request's head. Four times as much is not even read: the server answers 431 by itself.
pub const MAX_HEAD: usize = 32 * 1024;

/// Looks at a request's head before anything is done with it.
///
/// # Errors
/// 414 and 431 where it is too large.
pub fn head(req: &HttpRequest) -> Result<(), Problem> {
    let target = req.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET {
        return Err(Problem::target_too_long(MAX_TARGET));
    }
    let headers: usize = req.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if target + headers > MAX_HEAD { Err(Problem::head_too_large(MAX_HEAD)) } else { Ok(()) }
}

/// How much of a body that is too large is read and thrown away, so that its sender sees the answer and not a broken
/// connection.
const DRAINED: usize = 16 * 1024 * 1024;

/// The whole body.
///
/// # Errors
/// 413 over the limit, 408 over the time limit, 400 where the connection breaks off. Where it took a while to arrive: 503 where no
/// place is left by then, 401 where the caller is signed in no more.
pub async fn body(req: &HttpRequest, payload: Payload) -> Result<Bytes, Problem> {
    let board = req.app_data::<web::Data<Board>>().ok_or_else(|| Error::internal("the board is not wired"))?;
    body_within(req, payload, board.limits.body).await
}

/// As [`body`], with a limit of its own.
///
/// # Errors
/// As [`body`].
pub async fn body_within(req: &HttpRequest, payload: Payload, limit: usize) -> Result<Bytes, Problem> {
    let board = req.app_data::<web::Data<Board>>().ok_or_else(|| Error::internal("the board is not wired"))?;
    let announced = req.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let read = async {
        let mut payload = payload;
        let mut bytes = BytesMut::new();
        let mut seen = 0;
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| Problem::broken_off(&error))?;
            seen += chunk.len();
            if seen > DRAINED {
                break;
            }
            if seen <= limit {
                bytes.extend_from_slice(&chunk);
            }
        }
        if seen > limit { Err(Problem::body_too_large(limit)) } else { Ok(bytes.freeze()) }
    };
    if announced.is_some_and(|length| length > DRAINED) {
        return Err(Problem::body_too_large(limit));
    }
    let arrival = tokio::time::timeout(board.limits.body_time, read);
    let arrived = admission::while_it_arrives(req, arrival).await?;
    let bytes = arrived.what.unwrap_or_else(|_| Err(Problem::body_timeout()))?;
    if arrived.late {
        Caller::look_again(req, board).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use mundap_domain::version::Version;

    use super::*;

    fn expected(value: Option<&str>) -> Result<Expected, &'static str> {
        IfMatch::parse(value).map(|tags| tags.0).map_err(|problem| problem.code())
    }

    fn versions(value: &str) -> Option<Vec<i32>> {
        match expected(Some(value)) {
            Ok(Expected::OneOf(versions)) => Some(versions.into_iter().map(Version::get).collect()),
            Ok(Expected::Any) | Err(_) => None,
        }
    }

    #[test]
    fn if_match_takes_versions_from_strong_tags() {
        assert_eq!(expected(None), Ok(Expected::Any));
        assert_eq!(expected(Some("*")), Ok(Expected::Any));
        assert_eq!(versions(r#""3-abc""#), Some(vec![3]));
        assert_eq!(versions(r#""3-abc", "5-def""#), Some(vec![3, 5]));
        assert_eq!(versions(r#""3-abc",, ,W/"4-x" , "5-def","#), Some(vec![3, 5]));
        assert_eq!(versions(r#""3-a,b", "a, 4-c""#), Some(vec![3]));
        assert_eq!(versions(r#"W/"3-abc""#), Some(vec![]));
        assert_eq!(versions(r#""from elsewhere""#), Some(vec![]));
        for bad in ["3-abc", "", ",", "*, *", r#""3-abc"#, r#""3-abc" "4-def""#, r#"w/"3-abc""#, r#"*, "3-abc""#] {
            assert_eq!(expected(Some(bad)), Err("invalid_header"), "{bad}");
        }
    }
}
