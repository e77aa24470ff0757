//! Blobs as files in a folder, named by their content.
//!
//! `5c/1f/5c1f…` are two levels of folders by the first two bytes: 65,536 of them, so that ten million files are some 150 in
//! each. A file is written under another name (`.…part`), synced and renamed, so a blob is whole or not there. What is set
//! aside is renamed to `….aside`.
//!
//! Several nodes may share the folder, if its file system renames atomically. That they do is seen by the folder's id, which
//! stands in it in the file `folder-id`; see `home`.

use std::fmt;
use std::fs::{self, DirBuilder, DirEntry, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use chrono::DateTime;
use mundap_domain::env::{Clock as _, Timestamp};
use mundap_domain::image::{BlobError, BlobStore, Digest, Picture, Shelf};
use sha2::{Digest as _, Sha256};

use crate::SystemClock;

/// A folder of blobs.
#[derive(Clone)]
pub struct BlobFolder {
    root: PathBuf,
}

impl BlobFolder {
    /// The folder is made with the first blob.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn folder(&self, digest: Digest) -> PathBuf {
        let [first, second, ..] = *digest.as_bytes();
        self.root.join(format!("{first:02x}/{second:02x}"))
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder(digest).join(digest.to_string())
    }

    fn aside(&self, digest: Digest) -> PathBuf {
        self.folder(digest).join(format!("{digest}.{ASIDE}"))
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What tells this folder from every other; `None` where it has no id.
    pub(crate) async fn id(&self) -> Result<Option<FolderId>, BlobError> {
        self.run(|blobs| {
            if_there(fs::read_to_string(blobs.root.join(ID)))?.map(|text| FolderId::parse(&text)).transpose()
        })
        .await
    }

    /// As [`id`](Self::id); a folder without one gets one. Of several nodes that come to it at once, one gives it.
    pub(crate) async fn make_id(&self) -> Result<FolderId, BlobError> {
        self.run(|blobs| {
            let mut id = [0; 16];
            getrandom::fill(&mut id).map_err(io::Error::other)?;
            blobs.write_id(FolderId(id))
        })
        .await
    }

    /// An id that is there stays.
    fn write_id(&self, id: FolderId) -> io::Result<FolderId> {
        let path = self.root.join(ID);
        make(&self.root)?;
        let (part, mut file) = Part::create(&self.root)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces.
        match fs::hard_link(&part.0, &path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => sync(&self.root)?,
        }
        FolderId::parse(&fs::read_to_string(path)?)
    }

    /// All bytes of a blob, also of one that a sweep has set aside and not yet removed. They are what its digest says.
    pub(crate) async fn whole(&self, digest: Digest) -> Result<Whole, BlobError> {
        self.run(move |blobs| {
            let mut why = None;
            // Brought back between the first two looks, it is there again at the third.
            for path in [blobs.path(digest), blobs.aside(digest), blobs.path(digest)] {
                match whole(&path, digest) {
                    Ok(content) => return Ok(Whole::Bytes(content)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => why = Some(error.to_string()),
                }
            }
            Ok(Whole::Lost(why.unwrap_or_else(|| "there is no file".to_owned())))
        })
        .await
    }

    /// Lets blobs count as put at `now`, where they are there and it may.
    pub(crate) async fn keep(&self, digests: Vec<Digest>, now: Timestamp) -> Result<(), BlobError> {
        self.run(move |blobs| {
            for digest in digests {
                // What cannot be kept may be read all the same; if a sweep takes it before that, it is found to be lost.
                let _ = touch(&blobs.path(digest), now);
            }
            Ok(())
        })
        .await
    }

    /// Stores a blob as [`put`](BlobStore::put) does, also in the place of what stands under its name and is something else.
    pub(crate) async fn restore(&self, digest: Digest, content: Vec<u8>) -> Result<(), BlobError> {
        self.run(move |blobs| {
            let path = blobs.path(digest);
            if whole(&path, digest).is_ok() { touch(&path, SystemClock.now()) } else { blobs.write(digest, &content) }
        })
        .await
    }

    /// Writes a blob's file, whatever is there.
    fn write(&self, digest: Digest, content: &[u8]) -> io::Result<()> {
        let folder = self.folder(digest);
        make(&folder)?;
        let (part, mut file) = Part::create(&folder)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part.0, self.path(digest))?;
        sync(&folder)
    }

    /// What is there of a blob; its bytes are read where `content` is asked for.
    pub(crate) async fn look_at(&self, digest: Digest, content: bool) -> Result<Found, BlobError> {
        self.run(move |blobs| {
            // Brought back between the first two looks, it is there again at the third.
            for look in 0..3 {
                let found = if look == 1 { aside(&blobs.aside(digest)) } else { blob(&blobs.path(digest), content) };
                match found {
                    Ok(found) => return Ok(found),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Ok(Found::Unreadable(error.kind())),
                }
            }
            Ok(Found::Nothing)
        })
        .await
    }

    /// Whether a blob is there and was last put before `before`.
    pub(crate) async fn is_older(&self, digest: Digest, before: Timestamp) -> Result<bool, BlobError> {
        self.run(move |blobs| {
            let Some(metadata) = if_there(fs::metadata(blobs.path(digest)))? else { return Ok(false) };
            Ok(metadata.modified()? < SystemTime::from(before.as_utc()))
        })
        .await
    }

    /// Up to `most` of its blobs, also of those that a sweep has set aside. Their names are as good as random, so the first
    /// that are met stand for all.
    pub(crate) async fn some(&self, most: usize) -> Result<Vec<Digest>, BlobError> {
        self.run(move |blobs| {
            let mut found = Vec::new();
            for first_byte in 0..=u8::MAX {
                let files = blobs.files(first_byte)?;
                found.extend(files.iter().filter_map(|file| blobs.kind(&file.path()).digest()));
                if found.len() >= most {
                    break;
                }
            }
            found.truncate(most);
            Ok(found)
        })
        .await
    }

    /// What is in the folders of one of the shelves.
    fn files(&self, first_byte: u8) -> io::Result<Vec<DirEntry>> {
        let mut files = Vec::new();
        for folder in entries(&self.root.join(format!("{first_byte:02x}")))? {
            files.extend(entries(&folder.path())?);
        }
        Ok(files)
    }

    /// Every file of one of the shelves, and what stands there in place of a folder of files.
    pub(crate) async fn survey(&self, first_byte: u8) -> Result<Vec<Stored>, BlobError> {
        self.run(move |blobs| {
            let mut found = Vec::new();
            for entry in entries(&blobs.root.join(format!("{first_byte:02x}")))? {
                let path = entry.path();
                if path.is_dir() {
                    for file in entries(&path)? {
                        found.extend(blobs.stored(&file.path())?);
                    }
                } else {
                    found.extend(blobs.stored(&path)?);
                }
            }
            Ok(found)
        })
        .await
    }

    /// What stands beside the shelves.
    pub(crate) async fn survey_top(&self) -> Result<Vec<Stored>, BlobError> {
        self.run(|blobs| {
            let mut found = Vec::new();
            for entry in entries(&blobs.root)? {
                let (path, name) = (entry.path(), entry.file_name());
                let is_shelf = |name: &str| (0..=u8::MAX).any(|first_byte| format!("{first_byte:02x}") == name);
                let ours = name.to_str().is_some_and(|name| match name {
                    ID | LOST_AND_FOUND => true,
                    name => path.is_dir() && is_shelf(name),
                });
                if !ours {
                    found.extend(blobs.stored(&path)?);
                }
            }
            Ok(found)
        })
        .await
    }

    /// What stands at a path, if it still does.
    fn stored(&self, path: &Path) -> io::Result<Option<Stored>> {
        let Some(metadata) = if_there(fs::symlink_metadata(path))? else { return Ok(None) };
        let kind = if metadata.is_dir() { Kind::Folder } else { self.kind(path) };
        let since = match kind {
            Kind::Aside(_) => changed(&metadata),
            Kind::Whole(_) | Kind::Part | Kind::Folder | Kind::Strange => Timestamp::new(metadata.modified()?.into()),
        };
        let name = path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        Ok(Some(Stored { name, kind, since }))
    }

    /// What a file is, if it is no folder.
    fn kind(&self, path: &Path) -> Kind {
        let stem = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        match (Digest::parse(stem), path.extension().and_then(|kind| kind.to_str())) {
            (Some(digest), None) if path == self.path(digest) => Kind::Whole(digest),
            (Some(digest), Some(ASIDE)) if path == self.aside(digest) => Kind::Aside(digest),
            // Hidden, as a writer of ours names it: others may call theirs so too.
            (None, Some(PART)) if stem.starts_with('.') => Kind::Part,
            _ => Kind::Strange,
        }
    }

    /// Removes a file that [`survey`](Self::survey) found; no error where it is gone.
    pub(crate) async fn remove(&self, stored: &Stored) -> Result<(), BlobError> {
        let path = self.root.join(&stored.name);
        self.run(move |_| if_there(fs::remove_file(path)).map(|_| ())).await
    }

    /// Runs `work` where it may wait for the disk.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BlobError> {
        let folder = self.clone();
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(outcome) => outcome.map_err(|error| BlobError(error.into())),
            Err(error) => Err(BlobError(error.into())),
        }
    }
}

/// Tells a folder from every other: made at random, and once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FolderId(pub(crate) [u8; 16]);

impl FolderId {
    fn parse(text: &str) -> io::Result<Self> {
        let text = text.trim();
        let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(id) if is_id => Ok(Self(id.to_be_bytes())),
            Ok(_) | Err(_) => Err(io::Error::new(ErrorKind::InvalidData, format!("{ID} holds no id of a folder"))),
        }
    }
}

impl fmt::Display for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What is there of a blob.
pub(crate) enum Found {
    Nothing,
    /// Nothing but what a sweep took away, and when.
    Aside {
        since: Timestamp,
    },
    Unreadable(ErrorKind),
    Blob {
        bytes: u64,
        /// The digest of what it holds, where that was asked for.
        content: Option<Digest>,
    },
}

/// What became of all bytes of a blob.
pub(crate) enum Whole {
    Bytes(Vec<u8>),
    /// Why nobody has them any more.
    Lost(String),
}

/// A file in the folder.
pub(crate) struct Stored {
    /// Its path in the folder.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// When it became what it is: a blob when it was last put.
    pub(crate) since: Timestamp,
}

/// What a file in the folder is.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Whole(Digest),
    Aside(Digest),
    /// Of a writer that has not finished.
    Part,
    /// A folder where none of ours is.
    Folder,
    /// None of ours.
    Strange,
}

impl Kind {
    /// The blob that it is.
    pub(crate) fn digest(self) -> Option<Digest> {
        match self {
            Self::Whole(digest) | Self::Aside(digest) => Some(digest),
            Self::Part | Self::Folder | Self::Strange => None,
        }
    }
}

/// When a file was last renamed or changed otherwise.
fn changed(metadata: &Metadata) -> Timestamp {
    Timestamp::new(DateTime::from_timestamp(metadata.ctime(), 0).unwrap_or_default())
}

/// A file's bytes, where they are the digest's.
fn whole(path: &Path, digest: Digest) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::other("is a directory"));
    }
    let mut content = Vec::new();
    // One byte more than the largest tells of a file that has more.
    File::open(path)?.take(Picture::MAX_BYTES as u64 + 1).read_to_end(&mut content)?;
    match content.len() {
        0 => Err(io::Error::other("its file has 0 bytes")),
        read if read > Picture::MAX_BYTES => Err(io::Error::other(format!("its file has {} bytes", metadata.len()))),
        _ if Digest::of(&content) == digest => Ok(content),
        _ => Err(io::Error::other("its file holds something else")),
    }
}

/// Lets a file count as written at `now`. Its owner need not be allowed to write into it.
fn touch(path: &Path, now: Timestamp) -> io::Result<()> {
    if fs::metadata(path)?.is_file() { File::open(path)?.set_modified(now.as_utc().into()) } else { Ok(()) }
}

fn aside(path: &Path) -> io::Result<Found> {
    Ok(Found::Aside { since: changed(&fs::metadata(path)?) })
}

fn blob(path: &Path, content: bool) -> io::Result<Found> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let content = if content { Some(sum(&mut file)?) } else { None };
    Ok(Found::Blob { bytes, content })
}

fn sum(file: &mut File) -> io::Result<Digest> {
    let (mut sum, mut bytes) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut bytes) {
            Ok(0) => return Ok(Digest::new(sum.finalize().into())),
            Ok(read) => sum.update(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The file with the folder's id. Not hidden: it must go along where the files of a folder are copied.
const ID: &str = "folder-id";
const ASIDE: &str = "aside";
const PART: &str = "part";
/// Stands at the top of some file systems, which may be mounted there.
const LOST_AND_FOUND: &str = "lost+found";

/// Makes the folder and those above it, each to survive a power loss.
fn make(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), sync),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(folder.parent().ok_or(error)?)?;
            make(folder)
        }
        Err(error) => Err(error),
    }
}

/// Makes what was created, renamed or removed in a folder survive a power loss.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What it answers, or `None` where the file is not there.
fn if_there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A folder's entries; none where it is not there, or is no folder.
fn entries(folder: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(folder).and_then(Iterator::collect) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        // There are thousands of them.
        outcome => outcome.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()))),
    }
}

/// A file under a name that nobody else has, removed unless it is renamed.
struct Part(PathBuf);

impl Part {
    fn create(folder: &Path) -> io::Result<(Self, File)> {
        let random = getrandom::u64().map_err(io::Error::other)?;
        let path = folder.join(format!(".{random:016x}.{PART}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((Self(path), file))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already where it was renamed; where it cannot be removed, the sweep does it.
        let _ = fs::remove_file(&self.0);
    }
}

#[async_trait]
impl BlobStore for BlobFolder {
    async fn put(&self, digest: Digest, content: Arc<Vec<u8>>) -> Result<(), BlobError> {
        self.run(move |blobs| {
            let path = blobs.path(digest);
            if let Some(there) = if_there(OpenOptions::new().write(true).open(&path))? {
                return there.set_modified(SystemClock.now().as_utc().into());
            }
            blobs.write(digest, &content)
        })
        .await
    }

    async fn read(&self, digest: Digest, offset: u64, length: usize) -> Result<Option<Vec<u8>>, BlobError> {
        self.run(move |blobs| {
            let Some(file) = if_there(File::open(blobs.path(digest)))? else { return Ok(None) };
            let mut bytes = vec![0; length];
            let mut filled = 0;
            while filled < length {
                match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.truncate(filled);
            Ok(Some(bytes))
        })
        .await
    }

    async fn list(&self, first_byte: u8, before: Timestamp) -> Result<Shelf, BlobError> {
        self.run(move |blobs| {
            let before = SystemTime::from(before.as_utc());
            let mut found = Shelf::default();
            let mut files = blobs.files(first_byte)?;
            if first_byte == 0 {
                // Whoever writes the folder's id may be killed as well.
                files.extend(entries(&blobs.root)?);
            }
            for file in files {
                let path = file.path();
                // Another node may have taken it away since the folder was read.
                let Some(metadata) = if_there(file.metadata())? else { continue };
                let is_old = metadata.modified()? < before;
                match if metadata.is_dir() { Kind::Folder } else { blobs.kind(&path) } {
                    Kind::Whole(digest) => {
                        found.seen += 1;
                        found.old.extend(is_old.then_some(digest));
                    }
                    Kind::Aside(digest) => found.aside.push(digest),
                    // Left by a writer that was killed.
                    Kind::Part if is_old => drop(if_there(fs::remove_file(&path))?),
                    Kind::Part | Kind::Folder | Kind::Strange => {}
                }
            }
            Ok(found)
        })
        .await
    }

    async fn set_aside(&self, digest: Digest, before: Timestamp) -> Result<bool, BlobError> {
        self.run(move |blobs| {
            let (path, aside) = (blobs.path(digest), blobs.aside(digest));
            if if_there(fs::rename(&path, &aside))?.is_none() {
                return Ok(false);
            }
            // Asked of the file that was taken: before, somebody could still have put it between the question and the
            // renaming.
            let Some(metadata) = if_there(fs::metadata(&aside))? else { return Ok(false) };
            if metadata.modified()? < SystemTime::from(before.as_utc()) {
                return Ok(true);
            }
            if_there(fs::rename(&aside, &path))?;
            Ok(false)
        })
        .await
    }

    async fn bring_back(&self, digest: Digest) -> Result<(), BlobError> {
        self.run(move |blobs| {
            if if_there(fs::rename(blobs.aside(digest), blobs.path(digest)))?.is_some() {
                sync(&blobs.folder(digest))?;
            }
            Ok(())
        })
        .await
    }

    async fn discard(&self, digest: Digest) -> Result<(), BlobError> {
        self.run(move |blobs| if_there(fs::remove_file(blobs.aside(digest))).map(|_| ())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_renamed_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (part, file) = Part::create(folder.path()).unwrap();
        assert_eq!(entries(folder.path()).unwrap().len(), 1);
        drop((part, file));
        assert_eq!(entries(folder.path()).unwrap().len(), 0);
    }
}
