//! What a request brings: bodies, headers, query strings, forms.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use mundap_api::docs::schema::ENTITY_TAGS;
use mundap_api::input::{Fields, IfMatch, Query, pairs};
use mundap_api::routes::v1::qna::QnaPatchBody;
use mundap_domain::Actor;
use mundap_domain::idempotency::IdempotencyKey;
use mundap_domain::page::PageSize;
use mundap_domain::qna::Qna;
use mundap_domain::testing::{a_qna, a_user, noon};
use mundap_domain::user::Role;
use mundap_domain::version::{Expected, Version};
use regex::Regex;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The fields are what `serde_json` reads, and what it reads is refused only for a name that stands twice.
pub(crate) fn json(data: &[u8]) {
    let read: Result<Value, _> = serde_json::from_slice(data);
    match (Fields::parse(data), read) {
        (Ok(fields), Ok(read)) => {
            let Names(names) = serde_json::from_slice(data).expect("it was parsed");
            assert_eq!(read.as_object().map(Map::len), Some(names), "a name stands twice");
            assert_eq!(fields.raw(), read);
            takes_out(fields, &read);
        }
        (Ok(fields), Err(error)) => panic!("{error}, and yet {fields:?}"),
        (Err(error), Ok(Value::Object(_))) => assert!(error.to_string().contains("stands there twice"), "{error}"),
        (Err(_), _) => {}
    }
}

/// How many names an object holds, each as often as it stands there.
struct Names(usize);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = 0;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    names += 1;
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Count)
    }
}

/// What is taken out is what was there, and whatever is wrong or left over is told.
fn takes_out(mut fields: Fields, read: &Value) {
    let text = fields.text("title");
    assert_eq!(text.as_deref(), read["title"].as_str());
    let boolean = fields.boolean("suspended");
    assert_eq!(boolean, read["suspended"].as_bool());
    let number = fields.lax_integer("qna_id");
    if let Some(whole) = read["qna_id"].as_i64() {
        assert_eq!(number, Some(whole));
    }
    let known = ["title", "suspended", "qna_id"];
    let object = read.as_object().expect("an object");
    let all_good = object.keys().all(|name| known.contains(&name.as_str()))
        && text.is_some() == object.contains_key("title")
        && boolean.is_some() == object.contains_key("suspended")
        && number.is_some();
    assert_eq!(fields.finish(Ok(())).is_ok(), all_good, "{read}");
}

/// A merge patch changes what it names and nothing else, and twice is once.
pub(crate) fn merge_patch(data: &[u8]) {
    let Ok(Ok(edit)) = Fields::parse(data).map(QnaPatchBody::parse) else { return };
    let patch: Value = serde_json::from_slice(data).expect("it was parsed");
    assert_eq!(edit.title.is_some(), !patch["title"].is_null(), "{patch}");
    assert_eq!(edit.content.is_some(), !patch["content"].is_null(), "{patch}");
    let author = Actor::Account(a_user(1, Role::Member).into());
    let apply = |qna: &Qna| {
        let mut qna = qna.clone();
        qna.edit(&author, &Expected::Any, &edit, noon()).expect("the author may");
        qna
    };
    let before = a_qna(1, 1);
    let once = apply(&before);
    let twice = apply(&once);
    assert_eq!((&once.title, &once.content), (&twice.title, &twice.content));
    for (value, before, after) in [
        (&patch["title"], before.title.as_str(), once.title.as_str()),
        (&patch["content"], before.content.as_str(), once.content.as_str()),
    ] {
        match value.as_str() {
            None => assert_eq!(after, before, "{patch}"),
            Some(sent) => assert!(unicode_normalization::is_nfc(after) && is_same(sent, after), "{patch}"),
        }
    }
}

fn is_same(sent: &str, kept: &str) -> bool {
    use unicode_normalization::UnicodeNormalization as _;
    sent.nfc().eq(kept.chars())
}

/// `If-Match` is read exactly where the document says that it is well formed, and its versions survive.
pub(crate) fn if_match(data: &[u8]) {
    static DOCUMENTED: LazyLock<Regex> = LazyLock::new(|| Regex::new(ENTITY_TAGS).expect("a pattern"));
    // What a header can hold and still be text.
    let Some(value) = str::from_utf8(data).ok().filter(|text| text.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~')))
    else {
        return;
    };
    let value = value.trim();
    let parsed = IfMatch::parse(Some(value));
    assert_eq!(parsed.is_ok(), DOCUMENTED.is_match(value), "{value:?}");
    match parsed.map(|tags| tags.0) {
        Ok(Expected::Any) => assert_eq!(value, "*"),
        Ok(Expected::OneOf(versions)) => {
            let tags: Vec<String> = versions.iter().map(|version| format!("\"{}-0\"", version.get())).collect();
            if !tags.is_empty() {
                let again = IfMatch::parse(Some(&tags.join(", "))).expect("they are entity tags").0;
                assert_eq!(again, Expected::OneOf(versions.clone()));
            }
            // A version that is accepted stands in it.
            for version in versions.iter().map(|version: &Version| version.get()) {
                assert!(value.contains(&version.unsigned_abs().to_string()), "{version}: {value:?}");
            }
        }
        Err(problem) => assert_eq!(problem.code(), "invalid_header"),
    }
}

/// A query is refused, or each of its values was asked for and is in its range.
pub(crate) fn query(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(mut query) = Query::parse(text) else {
        assert!(pairs(data).is_err());
        return;
    };
    let sent = pairs(data).expect("a query holds pairs");
    let (Ok(page), Ok(author)) = (query.page(), query.integer_in("author", 1..=9)) else { return };
    if query.finish().is_err() {
        return;
    }
    assert!(sent.keys().all(|name| ["limit", "cursor", "author"].contains(&name.as_str())), "{sent:?}");
    assert_eq!(page.cursor.as_ref(), sent.get("cursor"));
    let limit = page.size.get();
    assert!((PageSize::MIN.into()..=PageSize::MAX.into()).contains(&limit), "{limit}");
    match sent.get("limit") {
        None => assert_eq!(page.size, PageSize::DEFAULT),
        Some(text) => assert_eq!(text.parse(), Ok(limit), "{text}"),
    }
    assert_eq!(author.map(Ok), sent.get("author").map(|text| text.parse()));
}

/// A form's pairs are those of a browser, written again they are read again, and no name stands twice.
pub(crate) fn form(data: &[u8]) {
    let all: Vec<(String, String)> = url::form_urlencoded::parse(data).into_owned().collect();
    let by_name: BTreeMap<String, String> = all.iter().cloned().collect();
    match pairs(data) {
        Ok(pairs) => {
            assert_eq!(by_name.len(), all.len());
            assert_eq!(pairs, by_name);
            let written = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
            assert_eq!(mundap_api::input::pairs(written.as_bytes()), Ok(pairs));
        }
        Err(name) => assert!(all.iter().filter(|(other, _)| *other == name).count() > 1, "{name:?}"),
    }
}

pub(crate) fn idempotency_key(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    // The header's way: whatever is no header value is no key either.
    let is_good =
        (1..=IdempotencyKey::MAX).contains(&text.chars().count()) && text.chars().all(|c| ('!'..='~').contains(&c));
    match IdempotencyKey::parse(text) {
        Some(key) => {
            assert!(is_good, "accepted: {text:?}");
            assert_eq!(key.as_str(), text);
        }
        None => assert!(!is_good, "refused: {text:?}"),
    }
}
