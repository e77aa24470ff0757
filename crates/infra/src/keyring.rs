//! The keys that sign access tokens, in a file that every node shares, and how one key takes over from another.
//!
//! The file holds PKCS#8 PEM, the newest key first. A key that is to take over says from when it signs in the line above
//! it; until then the one behind it signs, so that every node has read the file before the first such token is there. A
//! key that was taken over from verifies until its last token has expired. The last block is the root of the board's
//! other secrets, such as the one that seals cursors: those outlive every key.
//!
//! ```text
//! Signs-From: 2026-11-24T10:30:30.000000Z
//! -----BEGIN PRIVATE KEY-----      the new key
//! -----BEGIN PRIVATE KEY-----      the key that it takes over from
//! -----BEGIN MUNDAP SECRET-----    the root of other secrets
//! ```
//!
//! A file with one key and nothing else, as mundap and OpenSSL make it, is complete: the root is derived from the key.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use ed25519_dalek::VerifyingKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use mundap_domain::account::ACCESS_LIFETIME;
use mundap_domain::env::Timestamp;
use serde_json::json;
use sha2::Sha256;

use crate::key::{SigningKey, random};
use crate::token::header;

/// How far the nodes' clocks may be apart: a node whose clock is late still signs with the key before.
const SKEW: TimeDelta = TimeDelta::minutes(1);
/// How long a key that verifies no longer stays in the file: long enough to see what happened.
const KEPT: TimeDelta = TimeDelta::hours(1);

const KEY: &str = "PRIVATE KEY";
const ROOT: &str = "MUNDAP SECRET";
const SIGNS_FROM: &str = "Signs-From:";
/// What the file is called beside its place, until it is whole.
pub(crate) const DRAFT: &str = ".signing-key-";

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

/// One key of the ring.
#[derive(Clone, Debug)]
pub(crate) struct RingKey {
    pub(crate) pair: SigningKey,
    pub(crate) public: VerifyingKey,
    /// The header of its tokens.
    pub(crate) header: String,
    /// `None`: since ever.
    signs_from: Option<Timestamp>,
    /// When the last token that it signed has expired; `None` for the newest key.
    verifies_until: Option<Timestamp>,
}

impl RingKey {
    pub(crate) fn verifies(&self, now: Timestamp) -> bool {
        self.verifies_until.is_none_or(|end| now < end)
    }

    fn signs(&self, now: Timestamp) -> bool {
        self.signs_from.is_none_or(|start| start <= now)
    }
}

/// Every key there is, the newest first; never empty.
#[derive(Clone, Debug)]
pub(crate) struct Keyring {
    pub(crate) keys: Vec<RingKey>,
    root: Option<[u8; 32]>,
}

impl Keyring {
    fn of(pair: SigningKey) -> Self {
        let mut ring = Self { keys: Vec::new(), root: None };
        ring.add(pair, None);
        ring
    }

    /// `None` where a block is not what its label says, or there is no key.
    fn parse(text: &str) -> Option<Self> {
        let mut ring = Self { keys: Vec::new(), root: None };
        let mut signs_from = None;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let line = line.trim();
            if let Some(time) = line.strip_prefix(SIGNS_FROM) {
                let time = DateTime::parse_from_rfc3339(time.trim()).ok()?;
                signs_from = Some(Timestamp::new(time.with_timezone(&Utc)));
            }
            let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
                continue;
            };
            let end = format!("-----END {label}-----");
            let body: Vec<&str> = lines.by_ref().map(str::trim).take_while(|line| *line != end).collect();
            match label {
                KEY => {
                    let pem = format!("{line}\n{}\n{end}\n", body.join("\n"));
                    ring.add(SigningKey::from_pem(&pem)?, signs_from.take());
                }
                ROOT => ring.root = Some(STANDARD.decode(body.concat()).ok()?.try_into().ok()?),
                _ => return None,
            }
        }
        (!ring.keys.is_empty()).then_some(ring)
    }

    /// Adds a key that is older than all others.
    fn add(&mut self, pair: SigningKey, signs_from: Option<Timestamp>) {
        let successor = self.keys.last().and_then(|newer| newer.signs_from);
        let verifies_until = successor.map(|start| start.plus(ACCESS_LIFETIME).plus(SKEW));
        self.keys.push(RingKey { public: pair.public(), header: header(&pair), pair, signs_from, verifies_until });
    }

    /// Each key, and from when it signs.
    fn ids(&self) -> Vec<(String, Option<Timestamp>)> {
        self.keys.iter().map(|key| (key.pair.id(), key.signs_from)).collect()
    }

    fn to_pem(&self) -> io::Result<String> {
        let mut text = String::new();
        for key in &self.keys {
            if let Some(start) = key.signs_from {
                writeln!(text, "{SIGNS_FROM} {start}").map_err(io::Error::other)?;
            }
            text.push_str(&key.pair.to_pem()?);
        }
        if let Some(root) = &self.root {
            write!(text, "-----BEGIN {ROOT}-----\n{}\n-----END {ROOT}-----\n", STANDARD.encode(root))
                .map_err(io::Error::other)?;
        }
        Ok(text)
    }

    /// The same ring with a new key that takes over at `start`, and without the keys that are long over; with `drop_old`
    /// without any other key.
    fn rotated(&self, pair: SigningKey, now: Timestamp, start: Timestamp, drop_old: bool) -> Self {
        let mut ring = Self { keys: Vec::new(), root: Some(self.root()) };
        ring.add(pair, (!drop_old).then_some(start));
        let kept = |key: &&RingKey| key.verifies_until.is_none_or(|end| now < end.plus(KEPT));
        for old in self.keys.iter().filter(|_| !drop_old).filter(kept) {
            ring.add(old.pair.clone(), old.signs_from);
        }
        ring
    }

    /// The key that signs now.
    pub(crate) fn signer(&self, now: Timestamp) -> &RingKey {
        let last = self.keys.len() - 1;
        self.keys.iter().find(|key| key.signs(now)).unwrap_or(&self.keys[last])
    }

    fn root(&self) -> [u8; 32] {
        let oldest = &self.keys[self.keys.len() - 1].pair;
        self.root.unwrap_or_else(|| hmac(oldest.seed(), "mundap root"))
    }
}

fn hmac(key: &[u8; 32], label: &str) -> [u8; 32] {
    // HMAC as a key derivation function in counter mode with one block (NIST SP 800-108).
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    Hmac::<Sha256>::new(&block.into()).chain_update(b"mundap\0").chain_update(label).finalize().into_bytes().into()
}

/// What a rotation did, for whoever asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The new key's id.
    pub new: String,
    /// From when it signs.
    pub signs_from: Timestamp,
    /// Until when tokens of the key before are good; `None` where that key is gone already.
    pub old_verifies_until: Option<Timestamp>,
}

/// A key as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    pub id: String,
    pub signs: bool,
    pub signs_from: Option<Timestamp>,
    pub verifies_until: Option<Timestamp>,
}

/// The keys in a file, as they were last read from it. Cloning shares them.
#[derive(Clone, Debug)]
pub struct SigningKeys {
    path: Arc<Path>,
    ring: Arc<RwLock<Arc<Keyring>>>,
}

impl SigningKeys {
    /// The keys in the file; a missing file is made, with a new key, readable by its owner alone (0600). Of several
    /// processes that start at once one makes it and the others read that one.
    ///
    /// # Errors
    /// [`KeyError`], for a file that is there and is no key too: whoever put it there must decide what to do with it.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let unwritable = |error| KeyError::Unwritable(path.to_owned(), error);
        let ring = match load(path) {
            Err(KeyError::Unreadable(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                let made = SigningKey::generate().and_then(|key| Keyring::of(key).to_pem()).map_err(unwritable)?;
                store(path, &made, Existing::Stays).map_err(unwritable)?;
                // Not the one that was just made: another process may have been faster.
                load(path)?
            }
            outcome => outcome?,
        };
        Ok(Self::new(path, ring))
    }

    /// The keys in a file that is there.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        load(path).map(|ring| Self::new(path, ring))
    }

    fn new(path: &Path, ring: Keyring) -> Self {
        Self { path: path.into(), ring: Arc::new(RwLock::new(Arc::new(ring))) }
    }

    /// Reads the file again, and says whether it holds other keys now. Where it cannot be read the keys stay as they
    /// were.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn reload(&self) -> Result<bool, KeyError> {
        let new = load(&self.path)?;
        let changed = new.ids() != self.ring().ids();
        if changed {
            *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        }
        Ok(changed)
    }

    /// Makes a new key that takes over `after` from now, when every node has read the file again. Tokens of the key
    /// before are good to their end. With `None` the new key takes over at once and every other key is gone with its
    /// tokens: for a key that somebody else has got hold of.
    ///
    /// # Errors
    /// [`KeyError`], with the file as it was.
    pub fn rotate(&self, now: Timestamp, after: Option<TimeDelta>) -> Result<Rotation, KeyError> {
        let unwritable = |error| KeyError::Unwritable(self.path.to_path_buf(), error);
        // What is in the file now: another process may have rotated it.
        self.reload()?;
        let pair = SigningKey::generate().map_err(unwritable)?;
        let (new, start) = (pair.id(), now.plus(after.unwrap_or_default()));
        let ring = self.ring().rotated(pair, now, start, after.is_none());
        let old_verifies_until = ring.keys.get(1).and_then(|old| old.verifies_until);
        let text = ring.to_pem().map_err(unwritable)?;
        // A year of five digits, for one, can be written and not read.
        if Keyring::parse(&text).is_none_or(|read| read.ids() != ring.ids()) {
            return Err(unwritable(io::Error::other("it could not be read back; let the new key take over earlier")));
        }
        store(&self.path, &text, Existing::IsReplaced).map_err(unwritable)?;
        self.reload()?;
        Ok(Rotation { new, signs_from: start, old_verifies_until })
    }

    /// Every key in the file, the newest first.
    #[must_use]
    pub fn states(&self, now: Timestamp) -> Vec<KeyState> {
        let ring = self.ring();
        let signer = ring.signer(now).pair.id();
        let state = |key: &RingKey| KeyState {
            id: key.pair.id(),
            signs: key.pair.id() == signer,
            signs_from: key.signs_from,
            verifies_until: key.verifies_until,
        };
        ring.keys.iter().map(state).collect()
    }

    /// The public halves of the keys that verify now, as a JWK set (RFC 7517).
    #[must_use]
    pub fn jwks(&self, now: Timestamp) -> serde_json::Value {
        let ring = self.ring();
        let keys: Vec<_> = ring.keys.iter().filter(|key| key.verifies(now)).map(|key| key.pair.jwk()).collect();
        json!({ "keys": keys })
    }

    /// A secret for another use, such as sealing cursors: the same on every node that has this file, the same after a
    /// rotation, and of no help in finding a key or the secret of another label.
    #[must_use]
    pub fn derive(&self, label: &str) -> [u8; 32] {
        hmac(&self.ring().root(), label)
    }

    pub(crate) fn ring(&self) -> Arc<Keyring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cfg(test)]
    pub(crate) fn of(pair: SigningKey) -> Self {
        let ring = Arc::new(RwLock::new(Arc::new(Keyring::of(pair))));
        Self { path: Path::new("nowhere").into(), ring }
    }
}

fn load(path: &Path) -> Result<Keyring, KeyError> {
    let (ring, mode) = read(path)?;
    if mode & 0o007 != 0 {
        tracing::warn!(
            path = %path.display(),
            "Anybody on this machine may read the signing key {0}: chmod o= {0}",
            path.display()
        );
    }
    Ok(ring)
}

/// The keys in a file, and its mode.
pub(crate) fn read(path: &Path) -> Result<(Keyring, u32), KeyError> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => KeyError::NotAKey(path.to_owned()),
        _ => KeyError::Unreadable(path.to_owned(), error),
    })?;
    let metadata = std::fs::metadata(path).map_err(|error| KeyError::Unreadable(path.to_owned(), error))?;
    let ring = Keyring::parse(&text).ok_or_else(|| KeyError::NotAKey(path.to_owned()))?;
    Ok((ring, metadata.permissions().mode()))
}

/// What becomes of a file that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Stays,
    IsReplaced,
}

/// Stores the file: written in full under another name first, since a reader must never see half of it, then renamed, or
/// linked, which unlike a rename never replaces.
fn store(path: &Path, text: &str, existing: Existing) -> io::Result<()> {
    // What a link names, and not the link itself, is replaced.
    let path = &if existing == Existing::IsReplaced { path.canonicalize()? } else { path.to_owned() };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder)?;
    let name: u64 = u64::from_ne_bytes(random()?);
    let draft = folder.join(format!("{DRAFT}{name:016x}"));
    let replaced = if existing == Existing::IsReplaced { Some(path.metadata()?) } else { None };
    let stored = write(&draft, text, replaced.as_ref()).and_then(|()| match existing {
        Existing::IsReplaced => std::fs::rename(&draft, path),
        Existing::Stays => match std::fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome,
        },
    });
    match std::fs::remove_file(&draft) {
        Err(error) if stored.is_ok() && error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => stored?,
    }
    // The name, too, must survive a power loss: tokens signed with a key that is gone sign everybody out.
    File::open(folder)?.sync_all()
}

/// Writes it for its owner alone; where it takes the place of another file, for that one's owner and for the group that may
/// read that one. It fails where those could not read it any more.
fn write(path: &Path, text: &str, replaced: Option<&Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let made = file.metadata()?;
    let group = replaced.map_or(0, |replaced| replaced.mode() & 0o040);
    if let Some(replaced) = replaced {
        let is_another_group_s = group != 0 && replaced.gid() != made.gid();
        if replaced.uid() != made.uid() || is_another_group_s {
            fchown(&file, Some(replaced.uid()), Some(replaced.gid()))?;
        }
    }
    // Whatever the umask took from it or a default ACL added.
    file.set_permissions(Permissions::from_mode(0o600 | group))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
