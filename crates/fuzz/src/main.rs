//! Fuzzes the parsers that meet strangers' bytes, with libFuzzer. `.ci/fuzz` builds it with coverage and runs each target
//! for a while; `MUNDAP_FUZZ_TARGET` names the one to run.
//!
//! A target does not just look for panics: it holds what a parser accepts, and what it refuses, to the rules, said in
//! another way than the parser says them.

#![no_main]

mod input;
mod sealed;
mod values;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 11] = [
    ("json", input::json),
    ("merge_patch", input::merge_patch),
    ("if_match", input::if_match),
    ("query", input::query),
    ("form", input::form),
    ("idempotency_key", input::idempotency_key),
    ("texts", values::texts),
    ("email", values::email),
    ("cursor", sealed::cursor),
    ("tokens", sealed::tokens),
    ("key_file", sealed::key_file),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("MUNDAP_FUZZ_TARGET").unwrap_or_default();
    let names = TARGETS.map(|(name, _)| name);
    let found = TARGETS.into_iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("MUNDAP_FUZZ_TARGET={name} is none of {}", names.join(", "))).1
});

fuzz_target!(|data: &[u8]| TARGET(data));
