//! Access tokens: JWTs (RFC 7519) of the `at+jwt` profile (RFC 9068), signed with Ed25519 (RFC 8037).
//!
//! Written out rather than left to a JWT library: what such a library adds (other algorithms, keys chosen by the header,
//! optional claims) is where JWTs go wrong, and the one that is common here reads the system's clock instead of the
//! port's `now` and keeps its cryptography in a global. A token of ours has one possible header a key, so the header is
//! compared, not interpreted: no `alg: none`, no confusion of algorithms, no `kid` to follow.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signature;
use mundap_domain::Error;
use mundap_domain::account::{AccessClaims, AccessTokens};
use mundap_domain::env::Timestamp;
use mundap_domain::sign_in::SignInId;
use mundap_domain::user::UserId;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::key::SigningKey;
use crate::keyring::{Keyring, RingKey, SigningKeys};

/// Whom the tokens are for: this board, and no other service that trusts the same issuer.
const AUDIENCE: &str = "mundap";

/// How far ahead another node's clock may be, in seconds. Only for the start: an end is an end.
const SKEW: i64 = 5;

/// More than any token of ours has; spares the decoding of a megabyte.
const MAX_LENGTH: usize = 2_048;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    sid: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
}

/// How many tokens are remembered whose signature was found to be good: checking one costs more than all else that is
/// done for a small request. A few MB at the most.
const REMEMBERED: usize = 8_192;

/// Signs and checks access tokens.
pub struct Ed25519Tokens {
    keys: SigningKeys,
    issuer: String,
    opened: Cache<Box<str>, Arc<Opened>>,
}

/// What a token of ours says, and on whose word that rests.
struct Opened {
    user: UserId,
    sign_in: SignInId,
    /// Seconds since 1970, both.
    starts: i64,
    ends: i64,
    /// The keys as they were, and which of them signed: it may have been taken away since.
    ring: Arc<Keyring>,
    key: usize,
}

impl Opened {
    fn is_good(&self, now: Timestamp) -> bool {
        let seconds = now.unix_seconds();
        let in_time = self.starts <= seconds.saturating_add(SKEW) && seconds < self.ends;
        in_time && self.ring.keys[self.key].verifies(now)
    }
}

impl Ed25519Tokens {
    /// Tokens signed with one of `keys` in the name of `issuer`, the board's public URL.
    #[must_use]
    pub fn new(keys: &SigningKeys, issuer: &str) -> Self {
        Self { keys: keys.clone(), issuer: issuer.to_owned(), opened: Cache::new(REMEMBERED) }
    }

    fn sign(key: &RingKey, claims: &Claims) -> Result<String, Error> {
        let claims = serde_json::to_vec(claims).map_err(Error::internal)?;
        let message = format!("{}.{}", key.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(key.pair.sign(message.as_bytes()).to_bytes());
        Ok(format!("{message}.{signature}"))
    }

    /// What a token says that is ours and carries the signature of one of these keys.
    fn open(&self, token: &str, ring: Arc<Keyring>) -> Option<Opened> {
        if token.len() > MAX_LENGTH {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let key = ring.keys.iter().position(|key| key.header == header)?;
        let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        ring.keys[key].public.verify_strict(message.as_bytes(), &signature).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let ours = claims.iss == self.issuer && claims.aud == AUDIENCE;
        ours.then_some(())?;
        Some(Opened {
            user: UserId::new(claims.sub.parse().ok()?),
            sign_in: SignInId::new(claims.sid.parse().ok()?),
            starts: claims.nbf,
            ends: claims.exp,
            ring,
            key,
        })
    }
}

/// The one header that tokens of a key have, encoded.
pub(crate) fn header(key: &SigningKey) -> String {
    URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, key.id()))
}

impl AccessTokens for Ed25519Tokens {
    fn issue(&self, claims: &AccessClaims) -> Result<String, Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(Error::internal)?;
        let issued_at = claims.issued_at.unix_seconds();
        Self::sign(
            self.keys.ring().signer(claims.issued_at),
            &Claims {
                iss: self.issuer.clone(),
                aud: AUDIENCE.to_owned(),
                sub: claims.user.to_string(),
                sid: claims.sign_in.get().to_string(),
                iat: issued_at,
                nbf: issued_at,
                exp: claims.expires_at.unix_seconds(),
                jti: URL_SAFE_NO_PAD.encode(id),
            },
        )
    }

    fn verify(&self, token: &str, now: Timestamp) -> Option<(UserId, SignInId)> {
        let ring = self.keys.ring();
        if let Some(opened) = self.opened.get(token).filter(|opened| Arc::ptr_eq(&opened.ring, &ring)) {
            return opened.is_good(now).then_some((opened.user, opened.sign_in));
        }
        let opened = Some(self.open(token, ring)?).filter(|opened| opened.is_good(now))?;
        let whom = (opened.user, opened.sign_in);
        self.opened.insert(token.into(), Arc::new(opened));
        Some(whom)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use mundap_domain::testing::noon;
    use serde_json::{Value, json};

    use super::*;
    use crate::key::tests::the_rfc_s_key;

    const ISSUER: &str = "https://board.example";

    fn tokens() -> Ed25519Tokens {
        Ed25519Tokens::new(&SigningKeys::of(the_rfc_s_key()), ISSUER)
    }

    fn later(seconds: i64) -> Timestamp {
        noon().plus(TimeDelta::seconds(seconds))
    }

    fn claims() -> AccessClaims {
        AccessClaims { user: UserId::new(7), sign_in: SignInId::new(9), issued_at: noon(), expires_at: later(600) }
    }

    fn part(token: &str, n: usize) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(n).unwrap()).unwrap()).unwrap()
    }

    /// A token with our signature over whatever header and claims.
    fn forge(header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = the_rfc_s_key().sign(message.as_bytes()).to_bytes();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The same claims with some of them changed, signed by us with the right header.
    fn with_claims(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> String {
        let mut changed = part(&tokens().issue(&claims()).unwrap(), 1);
        change(changed.as_object_mut().unwrap());
        let message = format!("{}.{}", header(&the_rfc_s_key()), URL_SAFE_NO_PAD.encode(changed.to_string()));
        let signature = the_rfc_s_key().sign(message.as_bytes()).to_bytes();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn refused(token: &str) -> bool {
        tokens().verify(token, noon()).is_none()
    }

    #[test]
    fn a_token_speaks_for_whom_it_was_issued() {
        let token = tokens().issue(&claims()).unwrap();
        assert_eq!(tokens().verify(&token, noon()), Some((UserId::new(7), SignInId::new(9))));
        assert!(!refused(&with_claims(|_| {})), "the tests below change only what they say");
    }

    #[test]
    fn a_token_says_what_the_profile_asks_for() {
        let token = tokens().issue(&claims()).unwrap();
        let kid = the_rfc_s_key().id();
        assert_eq!(part(&token, 0), json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": kid }));
        let mut said = part(&token, 1);
        let id = said.as_object_mut().unwrap().remove("jti").unwrap();
        assert_eq!(id.as_str().unwrap().len(), 22);
        let (start, end) = (noon().unix_seconds(), later(600).unix_seconds());
        assert_eq!(
            said,
            json!({ "iss": ISSUER, "aud": "mundap", "sub": "7", "sid": "9", "iat": start, "nbf": start, "exp": end })
        );
        assert_ne!(part(&tokens().issue(&claims()).unwrap(), 1)["jti"], id);
    }

    #[test]
    fn none_for_a_token_outside_its_time() {
        let token = tokens().issue(&claims()).unwrap();
        for (seconds, good) in [(-6, false), (-5, true), (0, true), (599, true), (600, false), (601, false)] {
            assert_eq!(tokens().verify(&token, later(seconds)).is_some(), good, "{seconds} s after it was issued");
        }
    }

    #[test]
    fn none_for_another_key() {
        let other = SigningKey::generate().unwrap();
        let theirs = Ed25519Tokens::new(&SigningKeys::of(other.clone()), ISSUER).issue(&claims()).unwrap();
        assert!(refused(&theirs));
        // Their signature under our header.
        let (_, rest) = theirs.split_once('.').unwrap();
        let message = format!("{}.{}", header(&the_rfc_s_key()), rest.split_once('.').unwrap().0);
        let signature = URL_SAFE_NO_PAD.encode(other.sign(message.as_bytes()).to_bytes());
        assert!(refused(&format!("{message}.{signature}")));
    }

    #[test]
    fn a_new_key_signs_and_the_old_one_verifies_until_its_tokens_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let keys = SigningKeys::load_or_create(&folder.path().join("key.pem")).unwrap();
        let tokens = Ed25519Tokens::new(&keys, ISSUER);
        let issue = |seconds: i64| {
            let (issued_at, expires_at) = (later(seconds), later(seconds + 600));
            tokens.issue(&AccessClaims { issued_at, expires_at, ..claims() }).unwrap()
        };
        let old = issue(0);
        keys.rotate(noon(), Some(TimeDelta::seconds(30))).unwrap();
        let (last_of_the_old, new) = (issue(29), issue(30));
        assert_eq!(part(&last_of_the_old, 0), part(&old, 0));
        assert_ne!(part(&new, 0), part(&old, 0));
        for (token, issued) in [(&old, 0), (&last_of_the_old, 29), (&new, 30)] {
            for (seconds, good) in [(issued, true), (issued + 599, true), (issued + 600, false)] {
                assert_eq!(tokens.verify(token, later(seconds)).is_some(), good, "issued {issued}, asked {seconds}");
            }
        }
        // Whoever has got hold of the old key cannot go on with it.
        let long = AccessClaims { expires_at: later(1_000_000), ..claims() };
        let forged =
            Ed25519Tokens::new(&SigningKeys::of(keys.ring().keys[1].pair.clone()), ISSUER).issue(&long).unwrap();
        assert!(tokens.verify(&forged, later(689)).is_some() && tokens.verify(&forged, later(690)).is_none());
        keys.rotate(noon(), None).unwrap();
        assert!(tokens.verify(&new, later(30)).is_none(), "with every other key, its tokens are gone at once");
    }

    #[test]
    fn none_for_another_algorithm_or_type() {
        let good = tokens().issue(&claims()).unwrap();
        let kid = the_rfc_s_key().id();
        for header in [
            json!({ "alg": "none", "typ": "at+jwt", "kid": kid }),
            json!({ "alg": "None", "typ": "at+jwt", "kid": kid }),
            json!({ "alg": "HS256", "typ": "at+jwt", "kid": kid }),
            json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }),
            json!({ "alg": "EdDSA", "typ": "JWT", "kid": kid }),
            json!({ "alg": "EdDSA", "kid": kid }),
            json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "another" }),
            json!({}),
        ] {
            assert!(refused(&forge(&header, &part(&good, 1))), "{header}");
        }
        // The classic pair: no signature at all, and an HMAC whose secret is the public key.
        let unsigned = forge(&json!({ "alg": "none", "typ": "at+jwt" }), &part(&good, 1));
        assert!(refused(&format!("{}.", unsigned.rsplit_once('.').unwrap().0)));
        let message = forge(&json!({ "alg": "HS256", "typ": "at+jwt" }), &part(&good, 1));
        let message = message.rsplit_once('.').unwrap().0;
        let public = the_rfc_s_key().public();
        let mac = Hmac::<sha2::Sha256>::new_from_slice(public.as_bytes()).unwrap().chain_update(message).finalize();
        assert!(refused(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.into_bytes()))));
    }

    #[test]
    fn none_for_another_issuer_or_audience() {
        assert!(refused(
            &Ed25519Tokens::new(&SigningKeys::of(the_rfc_s_key()), "https://other.example").issue(&claims()).unwrap()
        ));
        for (claim, value) in [
            ("iss", json!("https://board.example/")),
            ("iss", json!([ISSUER])),
            ("aud", json!("another")),
            ("aud", json!(["mundap"])),
            ("sub", json!("seven")),
            ("sub", json!(7)),
            ("sid", json!("")),
            ("exp", json!("2026")),
            ("exp", json!(1.0e300)),
        ] {
            let token = with_claims(|claims| drop(claims.insert(claim.to_owned(), value.clone())));
            assert!(refused(&token), "{claim} {value}");
        }
    }

    #[test]
    fn none_where_a_claim_is_missing() {
        for claim in ["iss", "aud", "sub", "sid", "iat", "nbf", "exp", "jti"] {
            assert!(refused(&with_claims(|claims| drop(claims.remove(claim)))), "{claim}");
        }
    }

    #[test]
    fn none_for_a_token_with_any_byte_changed() {
        let good = tokens().issue(&claims()).unwrap();
        for position in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            assert!(refused(&String::from_utf8(bytes).unwrap()), "byte {position}");
        }
    }

    #[test]
    fn none_for_what_is_no_token() {
        let good = tokens().issue(&claims()).unwrap();
        let three_parts = good.rsplit_once('.').unwrap().0;
        let long = format!("{good}{}", "A".repeat(1_000_000));
        for rubbish in
            ["", ".", "..", "...", "한국어", three_parts, &good[1..], &format!("{good}."), &format!("{good}=="), &long]
        {
            assert!(refused(rubbish), "{}", &rubbish[..rubbish.len().min(40)]);
        }
    }
}
