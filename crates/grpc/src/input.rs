//! What messages have in common, checked for shape. What the values must be is the domain's business.

use mundap_domain::error::{Broken, Violations};
use mundap_domain::idempotency::IdempotencyKey;
use mundap_domain::page::{Order, PageRequest, PageSize};
use mundap_domain::version::Expected;
use prost_types::FieldMask;

use crate::v1;

/// A page's size and token. 0 is the usual size, and more than the most is the most (AIP-158).
pub(crate) fn page(size: i32, token: String) -> Result<PageRequest, Violations> {
    let size = match size {
        0 => Ok(PageSize::DEFAULT),
        size => PageSize::parse(i64::from(size).min(PageSize::MAX.into())),
    };
    match size {
        Ok(size) => Ok(PageRequest { size, cursor: Some(token).filter(|token| !token.is_empty()) }),
        Err(rule) => Err(one("page_size", rule)),
    }
}

/// A number of items to bring along, of which 0 is none.
pub(crate) fn size_or_none(field: &str, size: i32) -> Result<Option<PageSize>, Violations> {
    PageSize::parse_or_none(size.into()).map_err(|rule| one(field, rule))
}

/// An order, or `default`.
pub(crate) fn order(order: i32, default: Order) -> Result<Order, Violations> {
    match v1::Order::try_from(order) {
        Ok(v1::Order::Unspecified) => Ok(default),
        Ok(v1::Order::Newest) => Ok(Order::Newest),
        Ok(v1::Order::Oldest) => Ok(Order::Oldest),
        Err(_) => Err(one("order", Broken::NotOneOf { allowed: &["ORDER_NEWEST", "ORDER_OLDEST"] })),
    }
}

/// An idempotency key, where there is one.
pub(crate) fn key(field: &str, text: &str) -> Result<Option<IdempotencyKey>, Violations> {
    if text.is_empty() {
        return Ok(None);
    }
    let rule = if text.len() > IdempotencyKey::MAX {
        Broken::TooLong { max: IdempotencyKey::MAX }
    } else {
        Broken::NotVisibleAscii
    };
    IdempotencyKey::parse(text).map(Some).ok_or_else(|| one(field, rule))
}

/// The versions that an etag names: any where there is none.
pub(crate) fn etag(field: &str, etag: &str) -> Result<Expected, Violations> {
    Expected::of_tags(Some(etag).filter(|etag| !etag.is_empty())).map_err(|_| one(field, Broken::NotAnEntityTag))
}

/// Which of the `known` fields an update is about (AIP-134): those of the mask, all with `*`, and without a mask those that
/// are `filled`.
pub(crate) fn mask<const N: usize>(
    mask: Option<&FieldMask>,
    known: &'static [&'static str; N],
    filled: [bool; N],
) -> Result<[bool; N], Violations> {
    let Some(mask) = mask else { return Ok(filled) };
    let mut named = [false; N];
    for path in &mask.paths {
        if path == "*" {
            named = [true; N];
        } else if let Some(index) = known.iter().position(|name| name == path) {
            named[index] = true;
        } else {
            return Err(one("update_mask", Broken::NotOneOf { allowed: known }));
        }
    }
    Ok(named)
}

fn one(field: &str, rule: Broken) -> Violations {
    let mut violations = Violations::default();
    violations.add(field, rule);
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    fn broken(violations: Violations) -> Vec<(String, &'static str)> {
        violations.iter().map(|violation| (violation.field.clone(), violation.rule.code())).collect()
    }

    #[test]
    fn a_page_has_20_items_where_nobody_says_and_100_at_most() {
        for (asked, given) in [(0, 20), (1, 1), (100, 100), (101, 100), (i32::MAX, 100)] {
            assert_eq!(page(asked, String::new()).unwrap().size.get(), given, "{asked}");
        }
        for bad in [-1, i32::MIN] {
            let expected = vec![("page_size".to_owned(), "out_of_range")];
            assert_eq!(page(bad, String::new()).map_err(broken), Err(expected), "{bad}");
        }
        assert_eq!(page(0, String::new()).unwrap().cursor, None);
        assert_eq!(page(0, "x".to_owned()).unwrap().cursor.as_deref(), Some("x"));
    }

    #[test]
    fn an_update_is_about_what_its_mask_names() {
        let paths = |paths: &[&str]| Some(FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
        for (given, expected) in [
            (None, [true, false]),
            (paths(&[]), [false, false]),
            (paths(&["b"]), [false, true]),
            (paths(&["b", "a", "a"]), [true, true]),
            (paths(&["*"]), [true, true]),
        ] {
            assert_eq!(mask(given.as_ref(), &["a", "b"], [true, false]), Ok(expected), "{given:?}");
        }
        for bad in ["c", "", "a.b", "A", "version"] {
            let outcome = mask(paths(&["a", bad]).as_ref(), &["a", "b"], [true, false]);
            assert_eq!(outcome.map_err(broken), Err(vec![("update_mask".to_owned(), "not_one_of")]), "{bad}");
        }
    }

    #[test]
    fn what_is_not_sent_is_no_key_and_any_version() {
        assert_eq!(key("k", ""), Ok(None));
        assert_eq!(key("k", "a-key").unwrap().unwrap().as_str(), "a-key");
        assert_eq!(key("k", "a key").map_err(broken), Err(vec![("k".to_owned(), "not_visible_ascii")]));
        assert_eq!(key("k", &"x".repeat(256)).map_err(broken), Err(vec![("k".to_owned(), "too_long")]));
        assert_eq!(etag("e", ""), Ok(Expected::Any));
        assert!(matches!(etag("e", "\"3-abc\""), Ok(Expected::OneOf(_))));
        assert_eq!(etag("e", "3").map_err(broken), Err(vec![("e".to_owned(), "not_an_entity_tag")]));
    }
}
