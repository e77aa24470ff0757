//! What is said to people, in the language that they ask for: the catalogues in `words/`, one Fluent file a language,
//! compiled in and parsed once.
//!
//! Only what a person reads comes from here. Codes, field names, the log and the command line are the same for everybody.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::LazyLock;

use actix_web::http::header::{AcceptLanguage, Preference, Quality};
use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentError, FluentResource, FluentValue};
pub use mundap_domain::mail::Language;

/// The language that the lines of `Accept-Language` rank highest (RFC 9110, 12.5.4): by weight, then by place.
/// English where they name neither, rank both alike through `*`, or cannot be read: a wish is no reason to refuse.
pub fn asked_for<'v>(lines: impl IntoIterator<Item = &'v str>) -> Language {
    /// More than anybody speaks; the rest of a longer list is not read.
    const MOST: usize = 100;
    let mut ranges = AcceptLanguage(Vec::new());
    for line in lines {
        let read = line.split(',').filter_map(|range| range.trim().parse().ok());
        ranges.0.extend(read.take(MOST.saturating_sub(ranges.0.len())));
    }
    let wish = |language: &Language| {
        let best = |fits: &dyn Fn(&Preference<_>) -> bool| {
            let fitting = ranges.0.iter().enumerate().filter(|(_, range)| fits(&range.item));
            fitting.map(|(place, range)| (range.quality, Reverse(place))).max()
        };
        // `ko-KR` is answered in `ko` (RFC 4647, 3.4); `*` stands for what no other range names.
        let tag = language.tag();
        best(&|item| item.item().is_some_and(|range| range.primary_language().eq_ignore_ascii_case(tag)))
            .or_else(|| best(&Preference::is_any))
            .filter(|(weight, _)| *weight > Quality::ZERO)
    };
    Language::ALL.into_iter().rev().max_by_key(wish).unwrap_or_default()
}

const fn source(language: Language) -> &'static str {
    match language {
        Language::English => include_str!("../words/en.ftl"),
        Language::Korean => include_str!("../words/ko.ftl"),
    }
}

fn catalogue(language: Language) -> &'static Catalogue {
    static ENGLISH: LazyLock<Catalogue> = LazyLock::new(|| read(Language::English));
    static KOREAN: LazyLock<Catalogue> = LazyLock::new(|| read(Language::Korean));
    match language {
        Language::English => &ENGLISH,
        Language::Korean => &KOREAN,
    }
}

type Catalogue = FluentBundle<FluentResource>;

fn read(language: Language) -> Catalogue {
    let mut bundle = FluentBundle::new_concurrent(language.tag().parse().into_iter().collect());
    // Clients show these as plain text, where the marks around what is filled in would be seen.
    bundle.set_use_isolating(false);
    // A test holds the files to be free of faults.
    bundle.add_resource_overriding(
        FluentResource::try_new(source(language).to_owned()).unwrap_or_else(|(readable, _)| readable),
    );
    bundle
}

/// Something to say, in no language yet: the text's name in the catalogues and what is filled in.
#[derive(Debug)]
pub struct Phrase {
    name: Cow<'static, str>,
    filled_in: FluentArgs<'static>,
}

impl Phrase {
    /// The text of this name, which MUST be in every catalogue.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), filled_in: FluentArgs::new() }
    }

    /// Fills in `{ $gap }`. A number may also choose between forms, such as singular and plural.
    #[must_use]
    pub fn with(mut self, gap: &'static str, value: impl Into<FluentValue<'static>>) -> Self {
        self.filled_in.set(gap, value);
        self
    }

    /// The text in this language; its bare name where a catalogue lacks it.
    #[must_use]
    pub fn say(&self, language: Language) -> String {
        self.try_say(language).0
    }

    fn try_say(&self, language: Language) -> (String, Vec<FluentError>) {
        let catalogue = catalogue(language);
        let mut faults = Vec::new();
        let text = catalogue.get_message(&self.name).and_then(|message| message.value());
        let text = text.map(|text| catalogue.format_pattern(text, Some(&self.filled_in), &mut faults).into_owned());
        (text.unwrap_or_else(|| self.name.clone().into_owned()), faults)
    }
}

/// For the tests of who uses the catalogues.
#[cfg(test)]
pub(crate) mod inspection {
    use std::collections::BTreeSet;

    use super::{FluentValue, Language, Phrase, source};

    /// The names of all texts in this language.
    pub(crate) fn names(language: Language) -> BTreeSet<String> {
        let name = |line: &str| {
            let (name, _) = line.split_once(" =")?;
            name.starts_with(|c: char| c.is_ascii_lowercase()).then(|| name.to_owned())
        };
        let names: BTreeSet<String> = source(language).lines().filter_map(name).collect();
        assert!(names.len() > 40, "{names:?}");
        names
    }

    impl Phrase {
        pub(crate) fn name(&self) -> &str {
            &self.name
        }

        /// Holds it to having no gap that nothing is filled into, and nothing filled in that is left out.
        pub(crate) fn must_say_everything(&self) {
            let mut texts = BTreeSet::new();
            for language in Language::ALL {
                let (text, faults) = self.try_say(language);
                assert!(faults.is_empty(), "{self:?} in {language:?}: {faults:?}");
                assert!(!text.contains(['\u{2068}', '\u{2069}']), "{text:?} has marks in it");
                for (gap, value) in self.filled_in.iter() {
                    let value = match value {
                        FluentValue::String(text) => text.clone().into_owned(),
                        FluentValue::Number(number) => number.as_string().into_owned(),
                        other => panic!("{gap} is {other:?}"),
                    };
                    assert!(text.contains(&value), "{self:?} in {language:?} leaves {gap} out: {text}");
                }
                assert!(texts.insert(text), "{self:?} is the same in two languages");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn asked_for(lines: &[&[u8]]) -> &'static str {
        let lines: Vec<HeaderValue> = lines.iter().map(|line| HeaderValue::from_bytes(line).unwrap()).collect();
        super::asked_for(lines.iter().filter_map(|line| line.to_str().ok())).tag()
    }

    #[test]
    fn the_language_is_the_one_that_is_wished_for_most() {
        for (line, tag) in [
            ("ko", "ko"),
            ("ko-KR", "ko"),
            ("KO-kr", "ko"),
            ("ko-Kore-KR-x-private", "ko"),
            ("en", "en"),
            ("en-GB", "en"),
            ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
            ("en-US,en;q=0.9,ko;q=0.8", "en"),
            ("en;q=0.8, ko;q=0.9", "ko"),
            ("ko;q=0.8 , en ; q=0.9", "en"),
            ("ko, en", "ko"),
            ("en, ko", "en"),
            ("fr, ko;q=0.1", "ko"),
            ("fr-CH, fr;q=0.9, de;q=0.7, *;q=0.5", "en"),
            ("*", "en"),
            ("ko, *", "ko"),
            ("*, ko;q=0.5", "en"),
            ("*, en;q=0.5", "ko"),
            ("en;q=0, *", "ko"),
            ("ko;q=0, *", "en"),
            ("ko;q=0", "en"),
            ("en;q=0, ko;q=0", "en"),
            ("ko;q=0, ko-KR;q=0.2, en;q=0.1", "ko"),
            ("ko;q=0.001", "ko"),
            ("kok", "en"),
            ("fr, ja", "en"),
        ] {
            assert_eq!(asked_for(&[line.as_bytes()]), tag, "{line}");
        }
        assert_eq!(asked_for(&[]), "en");
        assert_eq!(asked_for(&[b"fr", b"ko;q=0.5"]), "ko", "lines add up");
        assert_eq!(asked_for(&[b"en;q=0.5", b"ko"]), "ko");
    }

    #[test]
    fn what_cannot_be_read_is_english() {
        for line in [
            &b""[..],
            b",,,",
            b";q=1",
            b"ko;q=7",
            b"ko;q=-1",
            b"ko;q=abc",
            b"ko;q=0.5555555555",
            b"ko_KR",
            b"\xed\x95\x9c",
            b"\xff\xfe",
            "ko\u{a0}".as_bytes(),
            b"koko-koko-koko-koko-koko-koko-koko-koko-kokokokoko",
        ] {
            assert_eq!(asked_for(&[line]), "en", "{}", String::from_utf8_lossy(line));
        }
        let long = "fr,".repeat(100_000);
        assert_eq!(asked_for(&[long.as_bytes(), b"ko"]), "en", "who asks for a hundred languages is not read further");
        assert_eq!(asked_for(&[b"ko", long.as_bytes()]), "ko");
    }

    #[test]
    fn the_catalogues_have_no_faults() {
        for language in Language::ALL {
            let resource = FluentResource::try_new(source(language).to_owned()).expect("a file without a fault");
            let mut bundle: Catalogue = FluentBundle::new_concurrent(vec![language.tag().parse().unwrap()]);
            assert!(bundle.add_resource(resource).is_ok(), "{language:?} says one thing twice");
        }
    }

    #[test]
    fn a_text_that_is_nowhere_is_its_name() {
        assert_eq!(Phrase::new("not_a_text").say(Language::Korean), "not_a_text");
    }
}
