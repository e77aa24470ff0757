//! Access tokens: JWTs (RFC 7519) of the `at+jwt` profile (RFC 9068), signed with Ed25519 (RFC 8037).
//!
//! Written out rather than left to a JWT library: what such a library adds (other algorithms, keys chosen by the header,
//! optional claims) is where JWTs go wrong, and the one that is common here reads the system's clock instead of the
//! port's `now` and keeps its cryptography in a global. A token of ours has one possible header, so the header is
//! compared, not interpreted: no `alg: none`, no confusion of algorithms, no `kid` to follow.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use mundap_domain::Error;
use mundap_domain::account::{AccessClaims, AccessTokens};
use mundap_domain::env::Timestamp;
use mundap_domain::sign_in::SignInId;
use mundap_domain::user::UserId;
use serde::{Deserialize, Serialize};

use crate::SigningKey;

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

/// Signs and checks access tokens.
pub struct Ed25519Tokens {
    key: SigningKey,
    public: VerifyingKey,
    issuer: String,
    /// The one header, encoded.
    header: String,
}

impl Ed25519Tokens {
    /// Tokens signed with `key` in the name of `issuer`, the board's public URL.
    #[must_use]
    pub fn new(key: &SigningKey, issuer: &str) -> Self {
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, key.id());
        Self {
            public: key.public(),
            key: key.clone(),
            issuer: issuer.to_owned(),
            header: URL_SAFE_NO_PAD.encode(header),
        }
    }

    /// The public key that others check tokens with, as a JWK set.
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        self.key.jwks()
    }

    fn sign(&self, claims: &Claims) -> Result<String, Error> {
        let claims = serde_json::to_vec(claims).map_err(Error::internal)?;
        let message = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()).to_bytes());
        Ok(format!("{message}.{signature}"))
    }

    /// The claims of a token that carries our signature.
    fn open(&self, token: &str) -> Option<Claims> {
        if token.len() > MAX_LENGTH {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        if header != self.header {
            return None;
        }
        let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        self.public.verify_strict(message.as_bytes(), &signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}

impl AccessTokens for Ed25519Tokens {
    fn issue(&self, claims: &AccessClaims) -> Result<String, Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(Error::internal)?;
        let issued_at = claims.issued_at.unix_seconds();
        self.sign(&Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: claims.user.to_string(),
            sid: claims.sign_in.get().to_string(),
            iat: issued_at,
            nbf: issued_at,
            exp: claims.expires_at.unix_seconds(),
            jti: URL_SAFE_NO_PAD.encode(id),
        })
    }

    fn verify(&self, token: &str, now: Timestamp) -> Option<(UserId, SignInId)> {
        let claims = self.open(token)?;
        let now = now.unix_seconds();
        let ours = claims.iss == self.issuer && claims.aud == AUDIENCE;
        let in_time = claims.nbf <= now.saturating_add(SKEW) && now < claims.exp;
        if !ours || !in_time {
            return None;
        }
        Some((UserId::new(claims.sub.parse().ok()?), SignInId::new(claims.sid.parse().ok()?)))
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
        Ed25519Tokens::new(&the_rfc_s_key(), ISSUER)
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
        let message = format!("{}.{}", tokens().header, URL_SAFE_NO_PAD.encode(changed.to_string()));
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
        let folder = tempfile::tempdir().unwrap();
        let other = SigningKey::load_or_create(&folder.path().join("key.pem")).unwrap();
        assert!(refused(&Ed25519Tokens::new(&other, ISSUER).issue(&claims()).unwrap()));
        // Its signature under our header.
        let theirs = Ed25519Tokens { header: tokens().header, ..Ed25519Tokens::new(&other, ISSUER) };
        assert!(refused(&theirs.issue(&claims()).unwrap()));
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
        let public = tokens().public;
        let mac = Hmac::<sha2::Sha256>::new_from_slice(public.as_bytes()).unwrap().chain_update(message).finalize();
        assert!(refused(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.into_bytes()))));
    }

    #[test]
    fn none_for_another_issuer_or_audience() {
        assert!(refused(&Ed25519Tokens::new(&the_rfc_s_key(), "https://other.example").issue(&claims()).unwrap()));
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
