//! The key that signs access tokens, in a file that every node shares.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Why there is no signing key: one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the signing key {path} cannot be read: {source}", path = .0.display(), source = .1)]
    Unreadable(PathBuf, #[source] io::Error),
    #[error("the signing key {path} cannot be made: {source}", path = .0.display(), source = .1)]
    Unwritable(PathBuf, #[source] io::Error),
    #[error(
        "{path} holds no Ed25519 private key in PKCS#8 PEM; `openssl genpkey -algorithm ed25519` makes one, and without the file mundap does",
        path = .0.display()
    )]
    NotAKey(PathBuf),
}

/// An Ed25519 key pair (RFC 8032).
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key in the file; a missing file is made, with a new key, readable by its owner alone (0600). Of several
    /// processes that start at once one makes it and the others read that one.
    ///
    /// # Errors
    /// [`KeyError`], for a file that is there and is no key too: whoever put it there must decide what to do with it.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let unwritable = |error| KeyError::Unwritable(path.to_owned(), error);
        match Self::load(path) {
            Err(KeyError::Unreadable(_, error)) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
        Self::generate().map_err(unwritable)?.store(path).map_err(unwritable)?;
        // Not the one that was just made: another process may have been faster.
        Self::load(path)
    }

    fn load(path: &Path) -> Result<Self, KeyError> {
        let pem = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => KeyError::NotAKey(path.to_owned()),
            _ => KeyError::Unreadable(path.to_owned(), error),
        })?;
        let mode = std::fs::metadata(path).map_err(|error| KeyError::Unreadable(path.to_owned(), error))?;
        if mode.permissions().mode() & 0o007 != 0 {
            tracing::warn!(
                path = %path.display(),
                "Anybody on this machine may read the signing key {0}: chmod o= {0}",
                path.display()
            );
        }
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(&pem).map_err(|_| KeyError::NotAKey(path.to_owned()))?;
        Ok(Self(key))
    }

    fn generate() -> io::Result<Self> {
        Ok(Self::from_seed(&random()?))
    }

    fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Stores the key unless a file is there: written in full under another name first, since a reader must never see
    /// half of it, then linked, which unlike a rename never replaces.
    fn store(&self, path: &Path) -> io::Result<()> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder)?;
        let name: u64 = u64::from_ne_bytes(random()?);
        let draft = folder.join(format!(".signing-key-{name:016x}"));
        let linked = self.write(&draft).and_then(|()| match std::fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome,
        });
        std::fs::remove_file(&draft).or_else(|error| if linked.is_ok() { Err(error) } else { Ok(()) })?;
        linked?;
        // The name, too, must survive a power loss: tokens signed with a key that is gone sign everybody out.
        File::open(folder)?.sync_all()
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        // Version 1 of PKCS#8, without the public key: OpenSSL refuses version 2.
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let pem = pair.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        // Whatever the umask took from it or a default ACL added.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    }

    /// A secret for another use, such as sealing cursors: the same on every node that has this key, and of no help in
    /// finding it or the secret of another label.
    #[must_use]
    pub fn derive(&self, label: &str) -> [u8; 32] {
        // HMAC as a key derivation function in counter mode with one block (NIST SP 800-108).
        let mut block = [0; 64];
        block[..32].copy_from_slice(self.0.as_bytes());
        Hmac::<Sha256>::new(&block.into()).chain_update(b"mundap\0").chain_update(label).finalize().into_bytes().into()
    }

    /// The key's name: the thumbprint of its public half (RFC 7638).
    #[must_use]
    pub fn id(&self) -> String {
        // Members in the order of their names, without a space: the RFC's canonical form.
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.x());
        URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
    }

    /// The public half as a JWK set (RFC 7517, RFC 8037).
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "x": self.x(), "kid": self.id(), "alg": "EdDSA", "use": "sig",
        }] })
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

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Barrier;

    use super::*;

    /// RFC 8037, appendix A.1.
    pub(crate) fn the_rfc_s_key() -> SigningKey {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        SigningKey::from_seed(&seed.try_into().unwrap())
    }

    #[test]
    fn the_public_key_and_its_thumbprint_are_the_rfc_s() {
        let jwks = the_rfc_s_key().jwks();
        assert_eq!(
            jwks,
            json!({ "keys": [{
                "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            }] })
        );
    }

    #[test]
    fn a_key_is_made_once_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/signing-key.pem");
        let made = SigningKey::load_or_create(&path).unwrap();
        assert_eq!(SigningKey::load_or_create(&path).unwrap().id(), made.id());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        assert_ne!(SigningKey::load_or_create(&folder.path().join("other.pem")).unwrap().id(), made.id());
    }

    #[test]
    fn many_that_start_at_once_have_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing-key.pem");
        let start = Barrier::new(20);
        let ids: std::collections::HashSet<String> = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        SigningKey::load_or_create(&path).unwrap().id()
                    })
                })
                .collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert_eq!(ids.len(), 1);
    }

    #[test]
    fn openssl_s_format_is_read_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing-key.pem");
        // RFC 8410, 10.3: version 1, as `openssl genpkey -algorithm ed25519` writes it.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        std::fs::write(&path, pem).unwrap();
        let key = SigningKey::load_or_create(&path).unwrap();
        let copy = folder.path().join("copy.pem");
        key.write(&copy).unwrap();
        assert_eq!(std::fs::read_to_string(copy).unwrap(), pem);
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing-key.pem");
        for rubbish in
            [&b""[..], b"swordfish", b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            std::fs::write(&path, rubbish).unwrap();
            let refused = SigningKey::load_or_create(&path).unwrap_err();
            assert!(matches!(refused, KeyError::NotAKey(_)), "{refused}");
            assert_eq!(std::fs::read(&path).unwrap(), rubbish);
        }
        let refused = SigningKey::load_or_create(folder.path()).unwrap_err();
        assert!(matches!(refused, KeyError::Unreadable(..)), "{refused}");
        let refused = SigningKey::load_or_create(Path::new("/dev/null/key.pem")).unwrap_err();
        assert!(matches!(refused, KeyError::Unreadable(..) | KeyError::Unwritable(..)), "{refused}");
    }

    #[test]
    fn derived_secrets_differ_by_label_and_key() {
        let (one, other) = (the_rfc_s_key(), SigningKey::generate().unwrap());
        assert_eq!(one.derive("cursor"), one.derive("cursor"));
        assert_ne!(one.derive("cursor"), one.derive("mail"));
        assert_ne!(one.derive("cursor"), other.derive("cursor"));
        assert_ne!(&one.derive(""), one.0.as_bytes());
    }

    #[test]
    fn a_key_never_shows_itself() {
        assert_eq!(format!("{:?}", the_rfc_s_key()), "SigningKey(kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k)");
    }
}
