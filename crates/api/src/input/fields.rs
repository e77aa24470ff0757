//! The fields of a JSON body, taken out one by one; what is left over in the end nobody asked for.

use std::collections::BTreeMap;
use std::fmt;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, ready};
use mundap_domain::error::{Broken, Violations};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::{Caller, body, is_json, parse_lax_id};
use crate::problem::Problem;

/// The fields of a JSON object, from a caller who is signed in: a stranger's body is not even read.
#[derive(Debug)]
pub struct Fields {
    values: BTreeMap<String, Value>,
    /// The names that were asked for: what there is here.
    known: Vec<&'static str>,
    violations: Violations,
}

/// As [`Fields`], from anybody.
#[derive(Debug)]
pub struct OpenFields(pub Fields);

impl FromRequest for Fields {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if let Err(error) = Caller::signed_in(req) {
            return ready(Err(error.into())).boxed_local();
        }
        json(req.clone(), payload.take()).boxed_local()
    }
}

impl FromRequest for OpenFields {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        json(req.clone(), payload.take()).map(|fields| fields.map(Self)).boxed_local()
    }
}

impl Fields {
    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.values.remove(name)
    }

    /// Takes out a string. A field of another type is noted, and `None` as if it were absent.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.violations.add(name, Broken::NotAString);
                None
            }
        }
    }

    /// Takes out a string that may be null, which says the same as its absence.
    pub fn nullable_text(&mut self, name: &'static str) -> Option<String> {
        if self.values.get(name).is_some_and(Value::is_null) {
            self.values.remove(name);
        }
        self.text(name)
    }

    /// Takes out true or false.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(value) => Some(value),
            Value::Null | Value::String(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.violations.add(name, Broken::NotABoolean);
                None
            }
        }
    }

    /// Takes out a whole number, also one written as text, with a zero fraction or as a truth value, as pydantic does. One beyond
    /// 64 bits is one that nothing has.
    pub fn lax_integer(&mut self, name: &'static str) -> Option<i64> {
        let Some(value) = self.take(name) else {
            self.violations.add(name, Broken::Required);
            return None;
        };
        let number = match &value {
            Value::Number(number) if number.is_u64() => Some(number.as_i64().unwrap_or(i64::MAX)),
            Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
            Value::String(text) => parse_lax_id(text),
            Value::Bool(value) => Some(i64::from(*value)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        if number.is_none() {
            self.violations.add(name, Broken::NotAnInteger);
        }
        number
    }

    /// The draft made of these fields, or everything that is wrong: wrong types, unknown fields, broken rules.
    ///
    /// # Errors
    /// All violations at once.
    pub fn finish<T>(self, draft: Result<T, Violations>) -> Result<T, Violations> {
        let mut violations = self.violations;
        for name in self.values.into_keys() {
            let nearest = nearest(&name, &self.known);
            violations.add(name, Broken::UnknownField { nearest });
        }
        match draft {
            Ok(draft) if violations.is_empty() => Ok(draft),
            Ok(_) => Err(violations),
            Err(broken) => {
                // A field of the wrong type also looks absent to the draft: the first word on a field stands.
                violations.merge(broken);
                Err(violations)
            }
        }
    }

    /// Parses the bytes of a JSON object.
    ///
    /// # Errors
    /// Why they are none; a name that stands twice counts as broken too (RFC 8259, 4, leaves its meaning open).
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let Object(values) = serde_json::from_slice(bytes)?;
        Ok(Self { values, known: Vec::new(), violations: Violations::default() })
    }

    /// The fields as they were sent.
    #[must_use]
    pub fn raw(&self) -> Value {
        Value::Object(self.values.clone().into_iter().collect())
    }
}

/// How alike two names must be to be taken for one with a typing error, between 0 and 1.
const ALIKE: f64 = 0.6;

/// A longer name is none with a typing error, and to compare it would take the longer.
const LONGEST: usize = 64;

/// What an unknown name may be meant to be.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase();
    let alike = |known: &&'static str| (strsim::normalized_damerau_levenshtein(&name, known), *known);
    let (alike, nearest) = known.iter().map(alike).max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (alike >= ALIKE).then_some(nearest)
}

#[expect(clippy::cast_possible_truncation, reason = "the bounds are checked, 2^53 is exact in both types")]
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// Many more than any body here has.
const MAX_FIELDS: usize = 100;

struct Object(BTreeMap<String, Value>);

impl<'de> serde::Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut values = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    // Each is reported if it is unknown: the answer must not grow with the body.
                    if values.len() == MAX_FIELDS {
                        return Err(serde::de::Error::custom(format_args!("it has more than {MAX_FIELDS} names")));
                    }
                    if values.contains_key(&name) {
                        return Err(serde::de::Error::custom(format_args!("the name \"{name}\" stands there twice")));
                    }
                    values.insert(name, value);
                }
                Ok(Object(values))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

async fn json(req: HttpRequest, payload: Payload) -> Result<Fields, Problem> {
    if !is_json(&req) {
        return Err(Problem::unsupported_media_type("application/json"));
    }
    let bytes = body(&req, payload).await?;
    if bytes.is_empty() {
        return Err(Problem::empty_body());
    }
    Fields::parse(&bytes).map_err(|error| Problem::not_an_object(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_tell_everything_that_is_wrong_at_once() {
        let mut fields = Fields::parse(br#"{"title": 5, "role": "admin"}"#).unwrap();
        let draft =
            mundap_domain::qna::QnaDraft::parse(fields.text("title").as_deref(), fields.text("content").as_deref());
        let violations = fields.finish(draft).unwrap_err();
        assert_eq!(violations.to_string(), "title not_a_string, role unknown_field, content required");
    }

    #[test]
    fn a_typing_error_names_what_may_be_meant() {
        let known = ["title", "content", "display_name", "current_password", "password"];
        for (name, expected) in [
            ("titel", Some("title")),
            ("Title", Some("title")),
            ("contents", Some("content")),
            ("displayName", Some("display_name")),
            ("passwort", Some("password")),
            ("author", None),
            ("role", None),
            ("", None),
            ("문답", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
        assert_eq!(nearest(&"title".repeat(1000), &known), None);
        assert_eq!(nearest("title", &[]), None);
    }

    #[test]
    fn a_name_that_stands_twice_is_refused() {
        let error = Fields::parse(br#"{"title": "a", "title": "b"}"#).unwrap_err();
        assert!(error.to_string().starts_with("the name \"title\" stands there twice"), "{error}");
    }

    #[test]
    fn hostile_json_is_refused() {
        let deep = format!("{{\"title\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for bad in [deep.as_bytes(), b"\xef\xbb\xbf{}", b"[]", b"\"\\ud800\"", b"{\"a\": \"\\ud800\"}", b"{", b"\xff"] {
            assert!(Fields::parse(bad).is_err());
        }
    }

    #[test]
    fn lax_integers_are_those_of_pydantic() {
        let read = |json: &str| Fields::parse(format!("{{\"id\": {json}}}").as_bytes()).unwrap().lax_integer("id");
        for (json, expected) in [
            ("7", Some(7)),
            ("\"7\"", Some(7)),
            ("7.0", Some(7)),
            ("7.5", None),
            ("\"x\"", None),
            ("null", None),
            ("true", Some(1)),
            ("false", Some(0)),
            ("\" 7.00 \"", Some(7)),
            ("\"7.5\"", None),
            ("\"7.\"", None),
            ("\".0\"", None),
            ("9223372036854775808", Some(i64::MAX)),
            ("1e300", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(read(json), expected, "{json}");
        }
    }
}
