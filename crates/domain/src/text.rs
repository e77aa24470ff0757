//! What any text on the board must be, as rules that garde attributes name.
//!
//! Input is normalised to Unicode NFC first, then counted in characters (`char`s, not bytes and not graphemes):
//! `한국어` counts 3 however it was typed.

#![expect(clippy::trivially_copy_pass_by_ref, reason = "garde calls a rule with a reference to its context")]

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use crate::error::Broken;

/// Unicode NFC (UAX #15).
#[must_use]
pub fn nfc(raw: &str) -> String {
    nfc_of(raw.to_owned())
}

/// As [`nfc`], of a text that is given away.
#[must_use]
pub fn nfc_of(raw: String) -> String {
    if is_plain(&raw) || is_nfc(&raw) { raw } else { raw.nfc().collect() }
}

/// Whether all of it is of the characters that most text is made of, and that stand for themselves in NFC whatever stands
/// beside them. To look each up in Unicode's tables takes ten times as long, and every text that is read back is looked at.
fn is_plain(text: &str) -> bool {
    is_plain_at_a_glance(text.as_bytes()) || {
        // One quotation mark or emoji has those near it looked at one by one, not all of the text.
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.floor_char_boundary(GLANCE));
            if !is_plain_at_a_glance(piece.as_bytes()) && !piece.chars().all(stands_for_itself) {
                return false;
            }
            rest = behind;
        }
        true
    }
}

/// How many bytes are looked at before the next decision: many at once, which a processor does in a few steps.
const GLANCE: usize = 64;

/// Whether the bytes alone show that all characters are plain, as they do of most. `false` says nothing.
fn is_plain_at_a_glance(text: &[u8]) -> bool {
    // By what a character begins with (RFC 3629): U+0000 to U+02FF, U+5000 to U+9FFF, U+AC00 to U+D77F. What it goes on with
    // begins none.
    let is_plain = |byte: u8, next: u8| {
        matches!(byte, 0..=0xcb | 0xe5..=0xe9 | 0xeb | 0xec)
            || (byte == 0xea && 0xb0 <= next)
            || (byte == 0xed && next <= 0x9d)
    };
    // The last byte of a text begins nothing but itself.
    let nexts = text.get(1..).unwrap_or_default();
    let glances = text.chunks(GLANCE).zip(nexts.chunks(GLANCE).chain([&[][..]]));
    text.last().is_none_or(|last| *last < 0xc0)
        && glances.fold(true, |plain, (bytes, nexts)| {
            plain && bytes.iter().zip(nexts).fold(true, |plain, (byte, next)| plain & is_plain(*byte, *next))
        })
}

/// Latin letters with their accents, punctuation, kana, Chinese characters, Hangul syllables and emoji. Conjoining Jamo are not
/// among them: a syllable is joined by one behind it.
const fn stands_for_itself(c: char) -> bool {
    matches!(c,
        '\0'..='\u{2ff}'
        | '\u{200d}'
        | '\u{2010}'..='\u{2027}'
        | '\u{2600}'..='\u{27bf}'
        | '\u{3000}'..='\u{3029}'
        | '\u{3041}'..='\u{3096}'
        | '\u{30a1}'..='\u{30fa}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{fe0f}'
        | '\u{ff01}'..='\u{ff60}'
        | '\u{1f300}'..='\u{1faff}')
}

/// garde rule: between `MIN` and `MAX` characters.
pub(crate) fn length<const MIN: usize, const MAX: usize>(text: &str, (): &()) -> garde::Result {
    match text.chars().count() {
        n if n < MIN => Err(encode(Broken::TooShort { min: MIN })),
        n if n > MAX => Err(encode(Broken::TooLong { max: MAX })),
        _ => Ok(()),
    }
}

/// garde rule: no control character save newline and tab (the contract, "Data").
pub(crate) fn printable(text: &str, (): &()) -> garde::Result {
    // As bytes: U+0080 to U+009F are 0xC2 and one of 0x80 to 0x9F; no other character has a byte below 0x80.
    let may_be_control = |byte: u8| (byte < 0x20 && byte != b'\n' && byte != b'\t') || byte == 0x7f || byte == 0xc2;
    let suspicious = |bytes: &[u8]| bytes.iter().fold(false, |suspicious, byte| suspicious | may_be_control(*byte));
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.as_bytes().chunks(GLANCE).any(suspicious) && text.chars().any(is_control) {
        return Err(encode(Broken::ControlCharacter));
    }
    Ok(())
}

/// Characters that show nothing, though they are no white space: Unicode's default-ignorable ones up to U+FFFF
/// (`DerivedCoreProperties.txt`), such as the zero-width space and the Hangul filler that stands for an empty name, and
/// the braille pattern without dots. As ranges, both ends included.
pub const INVISIBLE: [(char, char); 15] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
];

fn is_invisible(c: char) -> bool {
    c.is_whitespace() || INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// garde rule: something to see in it. Empty text is [`length`]'s business.
pub(crate) fn not_blank(text: &str, (): &()) -> garde::Result {
    if !text.is_empty() && text.chars().all(is_invisible) {
        return Err(encode(Broken::Blank));
    }
    Ok(())
}

/// garde rule: an address as HTML's `<input type=email>` understands it, with a dotted domain.
pub(crate) fn email(text: &str, (): &()) -> garde::Result {
    let dotted = text.rsplit_once('@').is_some_and(|(_, domain)| domain.contains('.') && !domain.starts_with('['));
    match garde::rules::email::parse_email(text) {
        Ok(()) if dotted => Ok(()),
        _ => Err(encode(Broken::NotAnEmail)),
    }
}

/// garde carries text only: the rule goes through it as `code number` and comes out of [`broken`] again.
fn encode(rule: Broken) -> garde::Error {
    garde::Error::new(match rule {
        Broken::TooShort { min: n } | Broken::TooLong { max: n } => format!("{} {n}", rule.code()),
        Broken::Required
        | Broken::UnknownField { .. }
        | Broken::NotAString
        | Broken::NotAnInteger
        | Broken::NotABoolean
        | Broken::OutOfRange { .. }
        | Broken::Blank
        | Broken::ControlCharacter
        | Broken::NotAnEmail
        | Broken::NotVisibleAscii
        | Broken::NotAnEntityTag
        | Broken::NotOneOf { .. } => rule.code().to_owned(),
    })
}

/// The rules that a garde report names.
pub(crate) fn broken(report: &garde::Report) -> Vec<Broken> {
    report.iter().filter_map(|(_, error)| decode(error.message())).collect()
}

fn decode(message: &str) -> Option<Broken> {
    let (code, limit) = message.split_once(' ').unwrap_or((message, "0"));
    let limit = limit.parse().ok()?;
    Some(match code {
        "too_short" => Broken::TooShort { min: limit },
        "too_long" => Broken::TooLong { max: limit },
        "blank" => Broken::Blank,
        "control_character" => Broken::ControlCharacter,
        "not_an_email" => Broken::NotAnEmail,
        _ => return None,
    })
}

/// Gives a one-field struct with garde attributes its only constructor, `parse`, and `as_str`.
///
/// No `Deserialize` and no public field: a value that exists has passed its rules.
macro_rules! text_value {
    ($name:ident) => {
        impl $name {
            /// Normalises to NFC, then checks every rule.
            ///
            /// # Errors
            /// All the rules that `raw` breaks.
            pub fn parse(raw: &str) -> Result<Self, Vec<$crate::error::Broken>> {
                Self::parse_own(raw.to_owned())
            }

            /// As [`parse`](Self::parse), of a text that is given away.
            ///
            /// # Errors
            /// As there.
            pub fn parse_own(raw: String) -> Result<Self, Vec<$crate::error::Broken>> {
                let value = Self($crate::text::nfc_of(raw));
                match garde::Validate::validate(&value) {
                    Ok(()) => Ok(value),
                    Err(report) => Err($crate::text::broken(&report)),
                }
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}
pub(crate) use text_value;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_survives_the_way_through_garde() {
        for rule in [
            Broken::TooShort { min: 1 },
            Broken::TooLong { max: 20_000 },
            Broken::Blank,
            Broken::ControlCharacter,
            Broken::NotAnEmail,
        ] {
            assert_eq!(decode(encode(rule).message()), Some(rule));
        }
    }

    #[test]
    fn what_is_plain_is_normal_and_stays_so_beside_anything_plain() {
        use unicode_normalization::char::canonical_combining_class;
        use unicode_normalization::{IsNormalized, is_nfc_quick};
        let plain: Vec<char> = (0..=0x0001_ffff).filter_map(char::from_u32).filter(|c| stands_for_itself(*c)).collect();
        assert!(plain.len() > 30_000);
        for c in &plain {
            assert_eq!(is_nfc_quick(std::iter::once(*c)), IsNormalized::Yes, "{c:?}");
            assert_eq!(canonical_combining_class(*c), 0, "{c:?}");
        }
        // Taken apart and put together again, each is what it was: none is joined by what stands beside it.
        let text: String = plain.iter().collect();
        assert_eq!(text.nfc().collect::<String>(), text);
        assert_eq!(nfc_of("e\u{301}".to_owned()), "\u{e9}");
        assert_eq!(nfc_of("\u{ac00}\u{11a8}".to_owned()), "\u{ac01}");
    }

    #[test]
    fn one_character_that_is_not_plain_is_found_wherever_it_stands() {
        for length in [1, GLANCE - 1, GLANCE, GLANCE + 1, 3 * GLANCE] {
            for around in ["a", "가", "’", "🦀"] {
                let plain = around.repeat(length);
                assert!(is_plain(&plain), "{around} × {length}");
                for (place, _) in plain.char_indices().chain([(plain.len(), ' ')]) {
                    let mut text = plain.clone();
                    text.insert(place, '\u{301}');
                    assert!(!is_plain(&text), "{around} × {length} at {place}");
                }
            }
        }
        assert!(is_plain(""));
    }

    #[test]
    fn what_is_plain_at_a_glance_is_plain_wherever_it_stands() {
        let mut seen = 0;
        // All that are written as up to three bytes, and some of those that are written as four.
        for c in (0..=0xffff).chain((0x1_0000..=u32::from(char::MAX)).step_by(0x101)).filter_map(char::from_u32) {
            for before in [0, GLANCE - 2, GLANCE - 1] {
                for behind in ["", "가"] {
                    let text = format!("{}{c}{behind}", "a".repeat(before));
                    let glance = is_plain_at_a_glance(text.as_bytes());
                    assert!(!glance || stands_for_itself(c), "{c:?} behind {before}");
                    seen += usize::from(glance);
                }
            }
        }
        // All of those that begin with those bytes.
        let plain = 0x300 + (0xa000 - 0x5000) + (0xd780 - 0xac00);
        assert_eq!(seen, 3 * 2 * plain);
        assert!(is_plain_at_a_glance(b""));
    }

    #[test]
    fn newline_and_tab_are_the_only_control_characters_allowed() {
        for c in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let allowed = !c.is_control() || matches!(c, '\n' | '\t');
            assert_eq!(printable(c.encode_utf8(&mut [0; 4]), &()).is_ok(), allowed, "{c:?}");
        }
        assert!(printable("\u{e9}\u{a0}\u{c2}\u{80}", &()).is_err() && printable("\u{e9}\u{a0}\u{c2}", &()).is_ok());
    }
}
