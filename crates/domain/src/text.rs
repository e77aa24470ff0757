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
    if is_nfc(raw) { raw.to_owned() } else { raw.nfc().collect() }
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
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
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
        _ => rule.code().to_owned(),
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
                let value = Self($crate::text::nfc(raw));
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
    fn newline_and_tab_are_the_only_control_characters_allowed() {
        for c in (0..=0x9f_u32).filter_map(char::from_u32).filter(|c| c.is_control()) {
            assert_eq!(printable(&format!("a{c}b"), &()).is_ok(), matches!(c, '\n' | '\t'), "{c:?}");
        }
    }
}
