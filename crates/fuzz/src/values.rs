//! Value objects: what is accepted is NFC, as long as it may be, and parses to itself.

use mundap_domain::account::Password;
use mundap_domain::comment::CommentContent;
use mundap_domain::qna::{Content, Title};
use mundap_domain::text::INVISIBLE;
use mundap_domain::user::{DisplayName, Email};
use unicode_normalization::UnicodeNormalization as _;

/// Holds a parser of text to the rules.
fn hold<E>(raw: &str, (min, max): (usize, usize), may_be_blank: bool, parse: impl Fn(&str) -> Result<String, E>) {
    let nfc: String = raw.nfc().collect();
    let is_control = |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}');
    let is_seen = |c: char| !c.is_whitespace() && !INVISIBLE.iter().any(|(first, last)| *first <= c && c <= *last);
    let good = (min..=max).contains(&nfc.chars().count())
        && !nfc.contains(is_control)
        && (may_be_blank || nfc.is_empty() || nfc.chars().any(is_seen));
    match parse(raw) {
        Ok(kept) => {
            assert!(good, "accepted: {raw:?}");
            assert_eq!(kept, nfc);
            assert_eq!(parse(&kept).ok().as_ref(), Some(&kept), "parsing twice is parsing once");
        }
        Err(_) => assert!(!good, "refused: {raw:?}"),
    }
}

pub(crate) fn texts(data: &[u8]) {
    let Ok(raw) = str::from_utf8(data) else { return };
    // A fuzzer's inputs are short; the long ones it finds as repetitions.
    for raw in [raw.to_owned(), raw.repeat(40)] {
        let limits = (Title::MIN, Title::MAX);
        hold(&raw, limits, false, |raw| Title::parse(raw).map(|text| text.as_str().to_owned()));
        let limits = (0, Content::MAX);
        hold(&raw, limits, true, |raw| Content::parse(raw).map(|text| text.as_str().to_owned()));
        let limits = (CommentContent::MIN, CommentContent::MAX);
        hold(&raw, limits, false, |raw| CommentContent::parse(raw).map(|text| text.as_str().to_owned()));
        let limits = (DisplayName::MIN, DisplayName::MAX);
        hold(&raw, limits, false, |raw| DisplayName::parse(raw).map(|text| text.as_str().to_owned()));

        let length = raw.nfc().count();
        match Password::parse(&raw) {
            Ok(password) => {
                assert!((Password::MIN..=Password::MAX).contains(&length), "accepted: {raw:?}");
                assert_eq!(password, Password::attempt(&raw.nfd().collect::<String>()), "one password, one spelling");
            }
            Err(_) => assert!(!(Password::MIN..=Password::MAX).contains(&length), "refused: {raw:?}"),
        }
    }
}

pub(crate) fn email(data: &[u8]) {
    let Ok(raw) = str::from_utf8(data) else { return };
    let Ok(email) = Email::parse(raw) else { return };
    let kept = email.as_str();
    assert!((Email::MIN..=Email::MAX).contains(&kept.len()), "{kept:?}");
    assert!(kept.bytes().all(|byte| byte.is_ascii_graphic()), "{kept:?}");
    assert_eq!(kept.matches('@').count(), 1, "{kept:?}");
    let domain = kept.split('@').nth(1).unwrap_or_default();
    assert_eq!(domain, domain.to_lowercase(), "{kept:?}");
    assert_eq!(Email::parse(kept).as_ref(), Ok(&email), "parsing twice is parsing once");
    // The key is an address too, of the same account, and so is any other spelling.
    for spelling in [email.key(), kept.to_ascii_uppercase(), kept.to_ascii_lowercase()] {
        assert_eq!(Email::parse(&spelling).map(|other| other.key()), Ok(email.key()), "{spelling:?}");
    }
}
