//! What holds for any input at all.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mundap_domain::Actor;
use mundap_domain::account::Password;
use mundap_domain::comment::CommentContent;
use mundap_domain::error::Broken;
use mundap_domain::mail::MailToken;
use mundap_domain::page::{CursorKey, Order, PageRequest, PageSize, Slice};
use mundap_domain::qna::{Content, QnaEdit, QnaListing, Title};
use mundap_domain::sign_in::RefreshToken;
use mundap_domain::testing::{Mocks, a_qna, a_user, board, noon};
use mundap_domain::text::INVISIBLE;
use mundap_domain::user::{DisplayName, Email, Role};
use mundap_domain::version::Expected;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization as _;

fn some() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Any text, rich in what the rules are about: jamo that compose, blanks, control characters, lengths near a limit.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<char>().prop_map(String::from),
        4 => "[a-z가-힣]",
        2 => Just("\u{1112}\u{1161}\u{11ab}".to_owned()),
        2 => "[ \u{a0}\u{3000}\n\t]",
        1 => "[\u{0}-\u{1f}\u{7f}-\u{9f}]",
    ];
    let typed = vec(piece, 0..60).prop_map(|pieces| pieces.concat());
    let blank = "[ \n\t\u{3000}\u{200b}\u{3164}\u{feff}]{0,60}";
    let long = ("[a가]|\u{1112}\u{1161}\u{11ab}", prop_oneof![45..55_usize, 250..260_usize])
        .prop_map(|(piece, times)| piece.repeat(times));
    prop_oneof![4 => typed, 1 => blank, 1 => long]
}

/// The rules of a text, said in another way than the domain says them.
fn breaks(raw: &str, min: usize, max: usize, may_be_blank: bool) -> Vec<Broken> {
    let text: Vec<char> = raw.nfc().collect();
    let mut broken = Vec::new();
    if text.len() < min {
        broken.push(Broken::TooShort { min });
    }
    if text.len() > max {
        broken.push(Broken::TooLong { max });
    }
    if text.iter().any(|c| matches!(c, '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}')) {
        broken.push(Broken::ControlCharacter);
    }
    let unseen = |c: char| c.is_whitespace() || INVISIBLE.iter().any(|(first, last)| *first <= c && c <= *last);
    if !may_be_blank && !text.is_empty() && text.iter().all(|c| unseen(*c)) {
        broken.push(Broken::Blank);
    }
    broken
}

/// Holds one parser to the rules, and to giving its own result back.
fn holds(
    raw: &str,
    parse: impl Fn(&str) -> Result<String, Vec<Broken>>,
    mut rules: Vec<Broken>,
) -> Result<(), TestCaseError> {
    match parse(raw) {
        Ok(kept) => {
            prop_assert_eq!(rules, []);
            prop_assert_eq!(&kept, &raw.nfc().collect::<String>());
            prop_assert_eq!(parse(&kept), Ok(kept.clone()), "parsing twice is parsing once");
        }
        Err(mut broken) => {
            broken.sort_by_key(Broken::code);
            rules.sort_by_key(Broken::code);
            prop_assert_eq!(broken, rules);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(some())]

    #[test]
    fn a_text_is_accepted_exactly_when_it_follows_the_rules(raw in text()) {
        holds(&raw, |raw| Title::parse(raw).map(|text| text.as_str().to_owned()), breaks(&raw, 1, 255, false))?;
        holds(&raw, |raw| Content::parse(raw).map(|text| text.as_str().to_owned()), breaks(&raw, 0, 20_000, true))?;
        let comment = |raw: &str| CommentContent::parse(raw).map(|text| text.as_str().to_owned());
        holds(&raw, comment, breaks(&raw, 1, 20_000, false))?;
        holds(&raw, |raw| DisplayName::parse(raw).map(|text| text.as_str().to_owned()), breaks(&raw, 1, 50, false))?;
    }

    #[test]
    fn a_password_is_accepted_exactly_when_its_length_is_right(raw in text()) {
        let length = raw.nfc().count();
        let parsed = Password::parse(&raw);
        prop_assert_eq!(parsed.is_ok(), (8..=256).contains(&length));
        let composed: String = raw.nfc().collect();
        let decomposed: String = raw.nfd().collect();
        prop_assert_eq!(Password::attempt(&composed), Password::attempt(&decomposed));
    }

    #[test]
    fn an_address_that_is_accepted_is_kept_and_has_one_key(
        raw in "[A-Za-z0-9.+_-]{1,12}@[A-Za-z0-9-]{1,8}(\\.[A-Za-z0-9]{1,5}){0,3}",
    ) {
        let Ok(email) = Email::parse(&raw) else { return Ok(()) };
        prop_assert_eq!(Email::parse(email.as_str()), Ok(email.clone()), "parsing twice is parsing once");
        for spelling in [raw.to_ascii_uppercase(), raw.to_ascii_lowercase()] {
            prop_assert_eq!(Email::parse(&spelling).map(|email| email.key()), Ok(email.key()));
        }
        prop_assert_eq!(email.key(), raw.to_ascii_lowercase());
        prop_assert_eq!(email.local_part(), raw.split('@').next().unwrap_or_default());
    }

    #[test]
    fn no_text_at_all_makes_the_parsers_panic(raw in any::<String>(), around in any::<String>()) {
        for raw in [raw.clone(), format!("{raw}@{around}"), format!("a@{raw}.{around}")] {
            if let Ok(email) = Email::parse(&raw) {
                prop_assert!(email.as_str().is_ascii(), "{:?}", email.as_str());
                prop_assert!(email.as_str().contains('@'));
            }
            if let Some(token) = RefreshToken::parse(&raw) {
                prop_assert_eq!(token.expose(), &*raw);
            }
            if let Some(token) = MailToken::parse(&raw) {
                prop_assert_eq!(token.expose(), raw);
            }
        }
    }

    #[test]
    fn sixty_four_bytes_are_a_refresh_token_and_nothing_else_is(
        bytes in vec(any::<u8>(), 60..70),
        junk in "[A-Za-z0-9_-]{86}",
    ) {
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        let token = RefreshToken::parse(&text);
        prop_assert_eq!(token.is_some(), bytes.len() == 64);
        prop_assert!(token.is_none_or(|token| token.expose() == text));
        // A token has one spelling: bits that base64 leaves over are no room for another.
        if let Some(token) = RefreshToken::parse(&junk) {
            prop_assert_eq!(token.expose(), junk);
        }
    }

    #[test]
    fn thirty_two_bytes_are_a_mailed_token_and_nothing_else_is(
        bytes in vec(any::<u8>(), 28..37),
        junk in "[A-Za-z0-9_-]{43}",
    ) {
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        let token = MailToken::parse(&text);
        prop_assert_eq!(token.is_some(), bytes.len() == 32);
        prop_assert!(token.is_none_or(|token| token.expose() == text));
        if let Some(token) = MailToken::parse(&junk) {
            prop_assert_eq!(token.expose(), junk);
        }
    }

    #[test]
    fn no_cursor_but_our_own_is_opened(
        bytes in vec(any::<u8>(), 0..40),
        raw in any::<String>(),
        id in any::<i64>(),
        flip in 0..192_usize,
    ) {
        let key = CursorKey::new(&[7; 32]);
        let size = PageSize::DEFAULT;
        let open = |cursor: &str| {
            let request = PageRequest { size, cursor: Some(cursor.to_owned()) };
            key.slice("qna", Order::Newest, &request).map(|slice| slice.after).map_err(|error| error.code())
        };
        prop_assert_eq!(open(&URL_SAFE_NO_PAD.encode(bytes)), Err("invalid_cursor"));
        prop_assert_eq!(open(&raw), Err("invalid_cursor"));

        let slice = Slice { after: None, order: Order::Newest, limit: 2, bytes: Slice::ANY_SIZE };
        let own = key.page("qna", &slice, vec![id, 0], |id| *id).next.expect("a next page");
        prop_assert_eq!(open(&own), Ok(Some(id)));
        let mut altered = URL_SAFE_NO_PAD.decode(&own).expect("base64");
        altered[flip / 8] ^= 1 << (flip % 8);
        prop_assert_eq!(open(&URL_SAFE_NO_PAD.encode(altered)), Err("invalid_cursor"));
    }

    /// Of a row of patches the last word on each field stands, what no patch names stays, and a patch that comes twice
    /// changes nothing the second time.
    #[test]
    fn a_merge_patch_changes_what_it_names_and_nothing_else(
        patches in vec((option::of(text()), option::of(text())), 0..6),
    ) {
        let author = Actor::Account(Box::new(a_user(1, Role::Member)));
        let mut qna = a_qna(7, 1);
        let (mut title, mut content) = (qna.title.as_str().to_owned(), qna.content.as_str().to_owned());
        let (mut version, untouched) = (qna.version, qna.clone());
        for (new_title, new_content) in &patches {
            let breaks_none = |raw: &Option<String>, min, max, may_be_blank| {
                raw.as_deref().is_none_or(|raw| breaks(raw, min, max, may_be_blank).is_empty())
            };
            let good = breaks_none(new_title, 1, 255, false) && breaks_none(new_content, 0, 20_000, true);
            let edit = QnaEdit::parse(new_title.as_deref(), new_content.as_deref());
            prop_assert_eq!(edit.is_ok(), good, "one bad field spoils the patch, and nothing else does");
            let Ok(edit) = edit else { continue };
            if let Some(raw) = new_title {
                title = raw.nfc().collect();
            }
            if let Some(raw) = new_content {
                content = raw.nfc().collect();
            }
            for _ in 0..2 {
                version = version.next();
                qna.edit(&author, &Expected::Any, &edit, noon()).expect("the author may");
                prop_assert_eq!((qna.title.as_str(), qna.content.as_str()), (&*title, &*content));
                prop_assert_eq!(qna.version, version);
            }
        }
        prop_assert_eq!((qna.id, &qna.author, qna.created_at), (untouched.id, &untouched.author, untouched.created_at));
        prop_assert_eq!(qna.comment_count, untouched.comment_count);
    }

    /// Whatever is asked and deleted between two pages, in either order: what lives throughout is met once, in order.
    #[test]
    fn a_walk_meets_everything_that_lives_throughout_exactly_once(
        start in btree_set(1..60_i64, 0..40),
        changes in vec((any::<prop::sample::Index>(), 1..5_i64, any::<bool>()), 0..40),
        sizes in vec(1..8_i64, 1..5),
        newest in any::<bool>(),
    ) {
        let order = if newest { Order::Newest } else { Order::Oldest };
        let stored = std::sync::Arc::new(std::sync::Mutex::new(start.clone()));
        let mut mocks = Mocks::default();
        let table = stored.clone();
        mocks.qnas.expect_list().returning(move |_, slice| {
            let table = table.lock().expect("a table");
            let mut ids: Vec<i64> = table.iter().copied().collect();
            if slice.order == Order::Newest {
                ids.reverse();
            }
            let behind = |id: &i64| slice.after.is_none_or(|after| match slice.order {
                Order::Newest => *id < after,
                Order::Oldest => *id > after,
            });
            let limit = usize::try_from(slice.limit).expect("a small number");
            Ok(ids.into_iter().filter(behind).take(limit).map(|id| a_qna(id, 1)).collect())
        });
        let services = board(mocks).services;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");

        let (mut met, mut deleted) = (Vec::new(), Vec::new());
        let (mut changes, mut sizes) = (changes.into_iter(), sizes.into_iter().cycle());
        let mut cursor = None;
        loop {
            let size = PageSize::parse(sizes.next().expect("a cycle")).expect("a size");
            let request = PageRequest { size, cursor };
            let listing = QnaListing { author: None, order };
            let page = runtime.block_on(services.qnas.list(&Actor::Anonymous, &listing, &request)).expect("a page");
            prop_assert!(page.items.len() as u64 <= size.get());
            met.extend(page.items.iter().map(|qna| qna.id.get()));
            prop_assert!(met.len() <= 500, "the walk never ends: {:?}", met);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
            // Ids grow: what is asked meanwhile comes behind everything there is.
            if let Some((which, more, delete)) = changes.next() {
                let mut table = stored.lock().expect("a table");
                if delete && !table.is_empty() {
                    let id = *which.get(&table.iter().copied().collect::<Vec<_>>());
                    table.remove(&id);
                    deleted.push(id);
                } else if !delete {
                    let last = table.last().copied().unwrap_or_default().max(60);
                    table.extend((1..=more).map(|n| last + n));
                }
            }
        }

        let mut times: BTreeMap<i64, usize> = BTreeMap::new();
        for id in &met {
            *times.entry(*id).or_default() += 1;
        }
        prop_assert!(times.values().all(|n| *n == 1), "nothing twice: {:?}", met);
        for id in start.iter().filter(|id| !deleted.contains(id)) {
            prop_assert!(times.contains_key(id), "{} was missed: {:?}", id, met);
        }
        let in_order = met.is_sorted_by(|a, b| if newest { a > b } else { a < b });
        prop_assert!(in_order, "{:?}", met);
    }
}
