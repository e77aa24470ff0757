//! What becomes of an old row: nothing of it is lost where it can be kept, and every change is named.
//!
//! | old | here | named |
//! | --- | --- | --- |
//! | text with `\r\n`, `\r` | `\n` | no: browsers send it, and it shows the same |
//! | text that is not NFC | NFC | no: it is the same text |
//! | other control characters, NUL among them | `U+FFFD` | [`Change::ControlCharacters`] |
//! | a title that is NULL or shows nothing | `…` | [`Change::EmptyTitle`] |
//! | a title of more than 255 characters | its beginning and `…`; the whole of it above the content | [`Change::LongTitle`] |
//! | a content that is NULL | an empty one | no: the first program shows both as nothing |
//! | a comment that is NULL or shows nothing | `…` | [`Change::EmptyComment`] |
//! | a time that is NULL, zero or none | 1970-01-01T00:00:00Z | [`Change::NoTime`] |
//! | a time before the year 1000, or after 9999 (in UTC) | the nearest one that is not | [`Change::TimeOutOfRange`] |
//! | a local time that clocks showed twice | the first of the two | [`Change::TimeTwice`] |
//! | a local time that clocks left out | as if they had not been moved yet | [`Change::TimeSkipped`] |
//! | an e-mail that is none | `old-….@imported.invalid`, which no letter reaches (RFC 2606) | [`Change::NoEmail`] |
//! | a name that is missing | the part of the e-mail before the `@` | no |
//! | a name of more than 50 characters | its beginning | [`Change::LongName`] |

use chrono::LocalResult::{Ambiguous, None as Skipped, Single};
use chrono::{NaiveDateTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use mundap_domain::comment::CommentContent;
use mundap_domain::env::Timestamp;
use mundap_domain::image::Digest;
use mundap_domain::qna::{Content, Title};
use mundap_domain::text::nfc;
use mundap_domain::user::{DisplayName, Email};

use super::{Change, Reason};

/// Stands where the old program had nothing and this one wants something.
const NOTHING: &str = "…";

/// An old e-mail as an account of this board.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) email: Email,
    /// SHA-256 of what tells two old people apart: the address in lower case, whether or not it is one.
    pub(super) hash: [u8; 32],
}

pub(super) fn address(raw: &str, changes: &mut Vec<Change>) -> Result<Address, Reason> {
    // As the old database compares: spaces at the end do not count.
    let raw = raw.trim();
    if let Ok(email) = Email::parse(raw) {
        return Ok(Address { hash: *Digest::of(email.key().as_bytes()).as_bytes(), email });
    }
    changes.push(Change::NoEmail);
    let digest = Digest::of(nfc(raw).to_lowercase().as_bytes());
    let name = digest.to_string();
    let email = Email::parse(&format!("old-{}@imported.invalid", &name[..32]));
    Ok(Address { hash: *digest.as_bytes(), email: email.map_err(|_| Reason::BreaksARule)? })
}

pub(super) fn name(raw: Option<&str>, email: &str, changes: &mut Vec<Change>) -> Result<DisplayName, Reason> {
    let from_email = || email.trim().split('@').next().unwrap_or_default();
    let shown = |text: &str, changes: &mut Vec<Change>| {
        let text = printable(text.trim(), changes);
        if text.chars().count() > DisplayName::MAX {
            changes.push(Change::LongName);
        }
        DisplayName::parse(&beginning(&text, DisplayName::MAX)).ok()
    };
    let name = raw.and_then(|raw| shown(raw, changes)).or_else(|| shown(from_email(), changes));
    name.map_or_else(|| DisplayName::parse(NOTHING).map_err(|_| Reason::BreaksARule), Ok)
}

/// `raw` as MySQL writes a time; `is_utc` where the column knows the instant (TIMESTAMP) and not what a clock showed.
pub(super) fn time(raw: Option<&str>, is_utc: bool, zone: Tz, changes: &mut Vec<Change>) -> Timestamp {
    let parsed = raw.and_then(|raw| NaiveDateTime::parse_from_str(raw, "%Y-%m-%d %H:%M:%S%.f").ok());
    let Some(local) = parsed else {
        changes.push(Change::NoTime);
        return Timestamp::new(chrono::DateTime::UNIX_EPOCH);
    };
    if is_utc {
        return held(Timestamp::new(local.and_utc()), changes);
    }
    let instant = match zone.from_local_datetime(&local) {
        Single(instant) => instant.with_timezone(&Utc),
        Ambiguous(first, second) => {
            changes.push(Change::TimeTwice);
            first.min(second).with_timezone(&Utc)
        }
        Skipped => {
            changes.push(Change::TimeSkipped);
            // Clocks are put forward by an hour, or once by a day where the date line moved: two days before they showed
            // the time that they would still show.
            let before = TimeDelta::days(2);
            match zone.from_local_datetime(&(local - before)) {
                Single(instant) | Ambiguous(instant, _) => instant.with_timezone(&Utc) + before,
                Skipped => local.and_utc(),
            }
        }
    };
    held(Timestamp::new(instant), changes)
}

fn held(time: Timestamp, changes: &mut Vec<Change>) -> Timestamp {
    let nearest = nearest_held(time);
    if nearest != time {
        changes.push(Change::TimeOutOfRange);
    }
    nearest
}

/// The nearest time that RFC 3339 can say and every database promises to hold: MySQL does from the year 1000 on.
pub(super) fn nearest_held(time: Timestamp) -> Timestamp {
    let from_1970 = |delta| Timestamp::new(chrono::DateTime::UNIX_EPOCH).plus(delta);
    let first = from_1970(TimeDelta::seconds(-30_610_224_000));
    let last = from_1970(TimeDelta::microseconds(253_402_300_799_999_999));
    time.clamp(first, last)
}

pub(super) fn qna(
    title: Option<&str>,
    content: Option<&str>,
    changes: &mut Vec<Change>,
) -> Result<(Title, Content), Reason> {
    let title = printable(title.unwrap_or_default(), changes);
    let mut content = printable(content.unwrap_or_default(), changes);
    let fitted = if title.chars().count() > Title::MAX {
        changes.push(Change::LongTitle);
        content = format!("{title}\n\n{content}");
        format!("{}{NOTHING}", beginning(&title, Title::MAX - 1))
    } else {
        title
    };
    let title = Title::parse(&fitted).or_else(|_| {
        changes.push(Change::EmptyTitle);
        Title::parse(NOTHING)
    });
    let title = title.map_err(|_| Reason::BreaksARule)?;
    Ok((title, Content::parse(&content).map_err(|_| Reason::TooLong)?))
}

pub(super) fn comment(content: Option<&str>, changes: &mut Vec<Change>) -> Result<CommentContent, Reason> {
    let content = printable(content.unwrap_or_default(), changes);
    if content.chars().count() > CommentContent::MAX {
        return Err(Reason::TooLong);
    }
    let content = CommentContent::parse(&content).or_else(|_| {
        changes.push(Change::EmptyComment);
        CommentContent::parse(NOTHING)
    });
    content.map_err(|_| Reason::BreaksARule)
}

/// NFC without control characters; counted as the domain counts.
fn printable(text: &str, changes: &mut Vec<Change>) -> String {
    let text = nfc(text).replace("\r\n", "\n").replace('\r', "\n");
    let is_refused = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_refused) {
        return text;
    }
    changes.push(Change::ControlCharacters);
    text.replace(is_refused, "\u{fffd}")
}

fn beginning(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out, and what was changed for it.
    fn with_changes<T>(fit: impl FnOnce(&mut Vec<Change>) -> T) -> (T, Vec<Change>) {
        let mut changes = Vec::new();
        let value = fit(&mut changes);
        (value, changes)
    }

    #[test]
    fn questions() {
        let long = "가".repeat(256);
        let cut = format!("{}…", "가".repeat(254));
        let below = format!("{long}\n\nbody");
        let full = "나".repeat(Content::MAX);
        for (title, content, expected, changes) in [
            (Some("Title"), Some("body"), ("Title", "body"), vec![]),
            (Some("Title"), None, ("Title", ""), vec![]),
            (Some("e\u{301}"), Some("a\r\nb\rc"), ("é", "a\nb\nc"), vec![]),
            (Some("a\0b"), Some("\u{1b}[1m"), ("a\u{fffd}b", "\u{fffd}[1m"), vec![Change::ControlCharacters; 2]),
            (None, Some("body"), ("…", "body"), vec![Change::EmptyTitle]),
            (Some(""), Some("body"), ("…", "body"), vec![Change::EmptyTitle]),
            (Some(" \u{3164}\t"), Some("body"), ("…", "body"), vec![Change::EmptyTitle]),
            (Some(&long[3..]), Some("body"), (&long[3..], "body"), vec![]),
            (Some(&long), Some("body"), (cut.as_str(), below.as_str()), vec![Change::LongTitle]),
            (Some("Title"), Some(&full), ("Title", &full), vec![]),
        ] {
            let (fitted, changed) = with_changes(|changes| qna(title, content, changes));
            let (fitted_title, fitted_content) = fitted.unwrap();
            assert_eq!((fitted_title.as_str(), fitted_content.as_str()), expected);
            assert_eq!(changed, changes, "{title:?}");
        }
        let too_long = "a".repeat(Content::MAX + 1);
        assert_eq!(qna(Some("Title"), Some(&too_long), &mut Vec::new()), Err(Reason::TooLong));
        // Together with the title that has to stand above it.
        assert_eq!(qna(Some(&long), Some(&full), &mut Vec::new()), Err(Reason::TooLong));
    }

    #[test]
    fn comments() {
        for (content, expected, changes) in [
            (Some("Yes."), "Yes.", vec![]),
            (Some("a\u{7}"), "a\u{fffd}", vec![Change::ControlCharacters]),
            (None, "…", vec![Change::EmptyComment]),
            (Some(""), "…", vec![Change::EmptyComment]),
            (Some(" \n"), "…", vec![Change::EmptyComment]),
        ] {
            let (fitted, changed) = with_changes(|changes| comment(content, changes));
            assert_eq!((fitted.unwrap().as_str(), changed), (expected, changes), "{content:?}");
        }
        assert_eq!(comment(Some(&"a".repeat(20_001)), &mut Vec::new()), Err(Reason::TooLong));
    }

    #[test]
    fn addresses_that_differ_in_case_alone_are_one() {
        let (one, changes) = with_changes(|changes| address("Kim@Example.COM ", changes).unwrap());
        let other = address("kim@example.com", &mut Vec::new()).unwrap();
        assert_eq!((one.email.as_str(), changes), ("Kim@example.com", vec![]));
        assert_eq!(one.hash, other.hash);
    }

    #[test]
    fn what_is_no_address_gets_one_that_no_letter_reaches_the_same_each_time() {
        let mut seen = std::collections::HashSet::new();
        for raw in ["kim", "a b@c", "", "kim@localhost", "@example.com", &format!("{}@example.com", "a".repeat(300))] {
            let (address, changes) = with_changes(|changes| address(raw, changes).unwrap());
            assert!(address.email.as_str().ends_with("@imported.invalid"), "{raw}");
            assert_eq!(changes, [Change::NoEmail], "{raw}");
            assert_eq!(super::address(raw, &mut Vec::new()).unwrap().hash, address.hash);
            assert!(seen.insert(address.email.key()), "{raw} is somebody else");
        }
    }

    #[test]
    fn names() {
        let long = "나".repeat(60);
        for (raw, email, expected, changes) in [
            (Some("김문답"), "kim@example.com", "김문답", vec![]),
            (Some(" "), "kim@example.com", "kim", vec![]),
            (None, "kim@example.com", "kim", vec![]),
            (None, "kim", "kim", vec![]),
            (None, "", "…", vec![]),
            (Some("a\0"), "kim@example.com", "a\u{fffd}", vec![Change::ControlCharacters]),
            (Some(&long), "kim@example.com", &long[..150], vec![Change::LongName]),
        ] {
            let (fitted, changed) = with_changes(|changes| name(raw, email, changes));
            assert_eq!((fitted.unwrap().as_str(), changed), (expected, changes));
        }
    }

    #[test]
    fn times() {
        let (seoul, berlin, new_york) = (Tz::Asia__Seoul, Tz::Europe__Berlin, Tz::America__New_York);
        let (first, last) = ("1000-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z");
        let epoch = "1970-01-01T00:00:00.000000Z";
        for (raw, is_utc, zone, expected, changes) in [
            (Some("2024-05-06 07:08:09"), false, Tz::UTC, "2024-05-06T07:08:09.000000Z", vec![]),
            (Some("2024-05-06 07:08:09.123456"), false, seoul, "2024-05-05T22:08:09.123456Z", vec![]),
            (Some("2024-05-06 07:08:09"), true, seoul, "2024-05-06T07:08:09.000000Z", vec![]),
            // Summer time ends: 02:30 comes twice, the first time two hours before UTC.
            (Some("2024-10-27 02:30:00"), false, berlin, "2024-10-27T00:30:00.000000Z", vec![Change::TimeTwice]),
            // It begins: 02:30 is left out.
            (Some("2024-03-31 02:30:00"), false, berlin, "2024-03-31T01:30:00.000000Z", vec![Change::TimeSkipped]),
            (Some("9999-12-31 23:59:59.999999"), false, seoul, "9999-12-31T14:59:59.999999Z", vec![]),
            (Some("9999-12-31 23:59:59.999999"), false, new_york, last, vec![Change::TimeOutOfRange]),
            (Some("9999-12-31 23:59:59.999999"), false, Tz::UTC, last, vec![]),
            (Some("1000-01-01 00:00:00"), false, Tz::UTC, first, vec![]),
            (Some("0999-12-31 23:59:59.999999"), false, Tz::UTC, first, vec![Change::TimeOutOfRange]),
            (Some("0000-01-01 00:00:00"), false, seoul, first, vec![Change::TimeOutOfRange]),
            (Some("0000-00-00 00:00:00"), false, seoul, epoch, vec![Change::NoTime]),
            (None, false, seoul, epoch, vec![Change::NoTime]),
        ] {
            let (fitted, changed) = with_changes(|changes| time(raw, is_utc, zone, changes));
            assert_eq!((fitted.to_rfc3339().as_str(), changed), (expected, changes), "{raw:?}");
        }
    }
}
