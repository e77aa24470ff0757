use std::collections::BTreeSet;
use std::path::Path;

use actix_web::body::to_bytes;
use mundap_domain::error::{Broken, Kind};
use mundap_domain::testing::every_error;

use super::wording::explain;
use super::*;

/// The `Kind`s' codes, as the entities' files spell them.
fn kinds() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../domain/src");
    let mut codes = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(path).unwrap();
            let literals = source.lines().filter(|line| line.contains("::new(")).flat_map(|line| line.split('"'));
            codes.extend(literals.filter(|literal| literal.ends_with("_not_found")).map(str::to_owned));
        }
    }
    assert!(codes.len() >= 3, "{codes:?}");
    codes
}

/// Every problem there is, each with something to say that no text says by itself.
fn problems() -> Vec<Problem> {
    // What breaks rules says so in other words.
    let errors =
        every_error("the cause").into_iter().filter(|error| !matches!(error, Error::Invalid(_) | Error::NotFound(_)));
    let kinds: Vec<&'static str> = kinds().into_iter().map(|code| &*code.leak()).collect();
    let missing = kinds.into_iter().map(|code| Error::NotFound(Kind::new("thing", code)));
    let mut problems: Vec<Problem> = errors.chain(missing).map(Problem::from).collect();
    problems.extend([
        Problem::not_an_object(&serde_json::from_str::<u8>("{").unwrap_err()),
        Problem::empty_body(),
        Problem::broken_off(&PayloadError::EncodingCorrupted),
        Problem::malformed_form("<name>"),
        Problem::broken_form(&MultipartError::Incomplete),
        Problem::form_breaks_off(),
        Problem::malformed_message(),
        Problem::invalid_path("<segment>"),
        Problem::repeated_parameter("<name>"),
        Problem::unknown_parameter("<name>", &["<known>"]),
        Problem::parameter_is_no_integer("<name>", "<value>".to_owned()),
        Problem::not_an_entity_tag("<tag>"),
        Problem::if_match_is_no_text(),
        Problem::not_an_idempotency_key(),
        Problem::not_for_this_page(&CorsError::OriginNotAllowed),
        Problem::route_not_found(),
        Problem::method_not_allowed(&[Method::GET, Method::PATCH]),
        Problem::target_too_long(8192),
        Problem::head_too_large(32_768),
        Problem::body_too_large(524_288),
        Problem::body_timeout(),
        Problem::unsupported_media_type("<wanted>"),
        Problem::range_not_satisfiable(1000),
        Problem::turned_away(),
        Problem::too_slow(false, Duration::from_secs(5)),
        Problem::too_slow(true, Duration::from_secs(5)),
    ]);
    problems
}

fn rules() -> Vec<Broken> {
    vec![
        Broken::Required,
        Broken::UnknownField { nearest: None },
        Broken::UnknownField { nearest: Some("title") },
        Broken::NotAString,
        Broken::NotAnInteger,
        Broken::NotABoolean,
        Broken::TooShort { min: 8 },
        Broken::TooLong { max: 20_000 },
        Broken::OutOfRange { min: -3, max: 9_007_199_254_740_991 },
        Broken::Blank,
        Broken::ControlCharacter,
        Broken::NotAnEmail,
        Broken::NotVisibleAscii,
        Broken::NotAnEntityTag,
        Broken::NotOneOf { allowed: &["newest", "oldest"] },
    ]
}

#[test]
fn every_code_has_its_texts_and_every_text_its_code_in_every_language() {
    let problems = problems();
    let answered: BTreeSet<&str> =
        problems.iter().map(Problem::code).chain([Problem::from(Violations::default()).code()]).collect();
    let kinds = kinds();
    let codes = Error::CODES.into_iter().chain(CODES).chain(kinds.iter().map(String::as_str));
    assert_eq!(answered, codes.collect(), "a problem of each code");
    let rules = rules();
    let mut codes = rules.iter().map(Broken::code).collect::<Vec<_>>();
    codes.dedup();
    assert_eq!(codes, Broken::CODES, "each rule");

    let mut used = BTreeSet::from(["validation_failed".to_owned(), "validation_failed-field".to_owned()]);
    let explained: Vec<Phrase> = rules.iter().map(explain).collect();
    for problem in &problems {
        let Detail::Phrase(phrase) = &problem.0.detail else { panic!("{problem:?}") };
        let (code, name) = (problem.code(), phrase.name());
        let is_of_code = name == code || name.strip_prefix(code).is_some_and(|rest| rest.starts_with('-'));
        assert!(is_of_code, "{name} is no text of {code}");
    }
    let said = problems.iter().filter_map(|problem| match &problem.0.detail {
        Detail::Phrase(phrase) => Some(phrase),
        Detail::Violations(_) => None,
    });
    let of_calls = [Phrase::new("unauthenticated-call"), Phrase::new("invalid_credentials-sign_in")];
    for phrase in said.chain(&explained).chain(&of_calls) {
        phrase.must_say_everything();
        used.insert(phrase.name().to_owned());
    }
    for language in Language::ALL {
        let names = crate::words::inspection::names(language);
        let missing: Vec<_> = used.difference(&names).collect();
        let unused: Vec<_> = names.difference(&used).collect();
        assert!(missing.is_empty() && unused.is_empty(), "{language:?}: missing {missing:?}, unused {unused:?}");
    }
}

#[test]
fn every_broken_rule_is_named_with_its_field() {
    let mut violations = Violations::default();
    violations.add("title", Broken::TooShort { min: 1 });
    violations.add("a/b{c}", Broken::UnknownField { nearest: None });
    let problem = Problem::from(violations);
    assert_eq!(problem.detail(Language::English), "/title must not be empty; /a~1b{c} is not a known field.");
    assert_eq!(problem.detail(Language::Korean), "/title: 비워 둘 수 없습니다; /a~1b{c}: 알 수 없는 필드입니다.");
}

#[actix_web::test]
async fn what_is_prepared_says_the_same() {
    let problem = Problem::turned_away();
    let prepared = Prepared::new(&problem);
    for language in Language::ALL {
        let (made, ready) = (problem.response("an-id", language), prepared.response("an-id", language));
        assert_eq!(made.status(), ready.status());
        assert!(ready.headers().contains_key(RETRY_AFTER));
        assert_eq!(made.headers().len(), ready.headers().len());
        for (name, value) in made.headers() {
            assert_eq!(ready.headers().get(name), Some(value));
        }
        let body = async |answer: HttpResponse| to_bytes(answer.into_body()).await.map_err(|_| "no body").unwrap();
        let (made, ready) = (body(made).await, body(ready).await);
        assert!(String::from_utf8_lossy(&ready).contains("\"request_id\":\"an-id\""), "{ready:?}");
        assert_eq!(made, ready);
    }
}
