//! An Ed25519 key pair, and what names it. [`crate::keyring`] keeps pairs in a file.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// An Ed25519 key pair (RFC 8032).
#[derive(Clone)]
pub(crate) struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    pub(crate) fn generate() -> io::Result<Self> {
        Ok(Self::from_seed(&random()?))
    }

    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// `None` for what is no Ed25519 private key in PKCS#8.
    pub(crate) fn from_pem(pem: &str) -> Option<Self> {
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem).ok().map(Self)
    }

    pub(crate) fn to_pem(&self) -> io::Result<String> {
        // Version 1 of PKCS#8, without the public key: OpenSSL refuses version 2.
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        Ok(pair.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?.to_string())
    }

    pub(crate) fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key's name: the thumbprint of its public half (RFC 7638).
    pub(crate) fn id(&self) -> String {
        // Members in the order of their names, without a space: the RFC's canonical form.
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.x());
        URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
    }

    /// The public half as a JWK (RFC 7517, RFC 8037).
    pub(crate) fn jwk(&self) -> serde_json::Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": self.x(), "kid": self.id(), "alg": "EdDSA", "use": "sig" })
    }

    fn x(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.public().as_bytes())
    }

    pub(crate) fn public(&self) -> VerifyingKey {
        self.0.verifying_key()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// RFC 8037, appendix A.1.
    pub(crate) fn the_rfc_s_key() -> SigningKey {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        SigningKey::from_seed(&seed.try_into().unwrap())
    }

    #[test]
    fn the_public_key_and_its_thumbprint_are_the_rfc_s() {
        assert_eq!(
            the_rfc_s_key().jwk(),
            json!({
                "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            })
        );
    }

    #[test]
    fn openssl_s_format_is_read_and_written() {
        // RFC 8410, 10.3: version 1, as `openssl genpkey -algorithm ed25519` writes it.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        assert_eq!(SigningKey::from_pem(pem).unwrap().to_pem().unwrap(), pem);
    }

    #[test]
    fn a_key_never_shows_itself() {
        assert_eq!(format!("{:?}", the_rfc_s_key()), "SigningKey(kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k)");
    }
}
