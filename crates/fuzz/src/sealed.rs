//! What only the board makes: cursors, tokens, the key file. Nothing else may pass for one.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use mundap_domain::account::{AccessClaims, AccessTokens as _};
use mundap_domain::mail::MailToken;
use mundap_domain::page::{CursorKey, Order, PageRequest, PageSize, Slice};
use mundap_domain::sign_in::{RefreshToken, SignInId};
use mundap_domain::testing::noon;
use mundap_domain::user::UserId;
use mundap_infra::{Ed25519Tokens, SigningKeys};
use tempfile::TempDir;

/// `text` with some of its bytes changed, cut out, doubled or put in, as `edits` says: a fuzzer that must not guess a
/// seal from nothing begins at a good one.
fn altered(text: &str, edits: &[u8]) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(edit[1]) * 2 % (bytes.len() + 1);
        match edit[0] % 4 {
            0 if at < bytes.len() => bytes[at] = edit[2],
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.insert(at, edit[2]),
            3 => bytes.truncate(at),
            _ => {}
        }
    }
    String::from_utf8(bytes).ok()
}

/// Both readings of the input: as it is, and as a change of what is good.
fn readings<'a>(data: &'a [u8], good: &'a str) -> impl Iterator<Item = String> + 'a {
    let raw = str::from_utf8(data).ok().map(str::to_owned);
    raw.into_iter().chain(altered(good, data)).filter(move |reading| reading != good)
}

pub(crate) fn cursor(data: &[u8]) {
    let key = CursorKey::new(&[7; 32]);
    let open = |list: &str, order: Order, cursor: &str| {
        let request = PageRequest { size: PageSize::DEFAULT, cursor: Some(cursor.to_owned()) };
        key.slice(list, order, &request).ok().and_then(|slice| slice.after)
    };
    let seal = |id: i64| {
        let slice = Slice { after: None, order: Order::Newest, limit: 2, bytes: Slice::ANY_SIZE };
        key.page("qna", &slice, vec![id, 0], |id| *id).next.expect("a next page")
    };
    let id = data.iter().take(8).fold(0_i64, |id, byte| id << 8 | i64::from(*byte));
    let own = seal(id);
    assert_eq!(open("qna", Order::Newest, &own), Some(id));
    assert_eq!(open("qna", Order::Oldest, &own), None);
    assert_eq!(open("qna?author=1", Order::Newest, &own), None);
    for cursor in readings(data, &own).chain([URL_SAFE_NO_PAD.encode(data)]) {
        // A fuzzer that sees what is compared learns seals, so that one it comes with may be good; but it is ours then,
        // byte for byte.
        if let Some(id) = open("qna", Order::Newest, &cursor) {
            assert_eq!(cursor, seal(id));
        }
    }
}

/// Access tokens, refresh tokens and those of letters.
pub(crate) fn tokens(data: &[u8]) {
    static ISSUED: LazyLock<(Ed25519Tokens, String, TempDir)> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = SigningKeys::load_or_create(&dir.path().join("key")).expect("a key");
        let tokens = Ed25519Tokens::new(&keys, "https://board.example");
        let expires_at = noon().plus(TimeDelta::minutes(10));
        let claims = AccessClaims { user: UserId::new(7), sign_in: SignInId::new(9), issued_at: noon(), expires_at };
        let token = tokens.issue(&claims).expect("a token");
        (tokens, token, dir)
    });
    let (tokens, issued, _) = &*ISSUED;
    assert_eq!(tokens.verify(issued, noon()), Some((UserId::new(7), SignInId::new(9))));
    for forged in readings(data, issued) {
        assert_eq!(tokens.verify(&forged, noon()), None, "{forged:?}");
    }

    let refresh = URL_SAFE_NO_PAD.encode([5; 64]);
    for text in readings(data, &refresh).chain([URL_SAFE_NO_PAD.encode(data)]) {
        match RefreshToken::parse(&text) {
            // One spelling each: what is compared by its hash must not have two.
            Some(token) => assert_eq!(token.expose(), text),
            None => assert_ne!(URL_SAFE_NO_PAD.decode(&text).map_or(0, |bytes| bytes.len()), 64, "{text:?}"),
        }
    }
    let mailed = URL_SAFE_NO_PAD.encode([6; 32]);
    for text in readings(data, &mailed).chain([URL_SAFE_NO_PAD.encode(data)]) {
        match MailToken::parse(&text) {
            Some(token) => assert_eq!(token.expose(), text),
            None => assert_ne!(URL_SAFE_NO_PAD.decode(&text).map_or(0, |bytes| bytes.len()), 32, "{text:?}"),
        }
    }
}

/// A key file that is read has keys that sign and verify, and is read again as the same.
pub(crate) fn key_file(data: &[u8]) {
    static FILE: LazyLock<(PathBuf, String, TempDir)> = LazyLock::new(|| {
        let dir = tempfile::tempdir_in(Path::new("/dev/shm")).or_else(|_| tempfile::tempdir()).expect("a folder");
        let path = dir.path().join("keys");
        let keys = SigningKeys::load_or_create(&path).expect("a key");
        keys.rotate(noon(), Some(TimeDelta::minutes(2))).expect("a rotation");
        let good = std::fs::read_to_string(&path).expect("a key file");
        (path, good, dir)
    });
    let (path, good, _) = &*FILE;
    let mut contents: Vec<Vec<u8>> = vec![data.to_vec()];
    contents.extend(altered(good, data).map(String::into_bytes));
    for content in contents {
        std::fs::write(path, &content).expect("a file");
        let Ok(keys) = SigningKeys::load_or_create(path) else { continue };
        let states = keys.states(noon());
        assert!(!states.is_empty());
        assert_eq!(states.iter().filter(|key| key.signs).count(), 1, "{states:?}");
        assert_eq!(SigningKeys::load_or_create(path).expect("as before").states(noon()), states);
        assert_eq!(keys.reload().ok(), Some(false));
        assert!(keys.jwks(noon())["keys"].as_array().is_some_and(|keys| keys.len() <= states.len()));
        let tokens = Ed25519Tokens::new(&keys, "https://board.example");
        let expires_at = noon().plus(TimeDelta::minutes(10));
        let claims = AccessClaims { user: UserId::new(7), sign_in: SignInId::new(9), issued_at: noon(), expires_at };
        let token = tokens.issue(&claims).expect("a token");
        assert_eq!(tokens.verify(&token, noon()), Some((UserId::new(7), SignInId::new(9))));
    }
}
