//! Blobs as files in a folder, named by their content.
//!
//! `5c/1f/5c1f…` are two levels of folders by the first two bytes: 65,536 of them, so that ten million files are some 150 in
//! each. A file is written under another name (`.…part`), synced and renamed, so a blob is whole or not there. What is set
//! aside is renamed to `….aside`.
//!
//! Several nodes may share the folder, if its file system renames atomically.

use std::fs::{self, DirBuilder, DirEntry, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use mundap_domain::env::{Clock as _, Timestamp};
use mundap_domain::image::{BlobError, BlobStore, Digest, Shelf};

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

const ASIDE: &str = "aside";
const PART: &str = "part";

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

/// A folder's entries; none where it is not there.
fn entries(folder: &Path) -> io::Result<Vec<DirEntry>> {
    if_there(fs::read_dir(folder))?.map_or_else(|| Ok(Vec::new()), Iterator::collect)
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
            let folder = blobs.folder(digest);
            make(&folder)?;
            let (part, mut file) = Part::create(&folder)?;
            file.write_all(&content)?;
            file.sync_all()?;
            fs::rename(&part.0, &path)?;
            sync(&folder)
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
            for folder in entries(&blobs.root.join(format!("{first_byte:02x}")))? {
                for file in entries(&folder.path())? {
                    let path = file.path();
                    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
                    let kind = path.extension().and_then(|kind| kind.to_str());
                    // Another node may have taken it away since the folder was read.
                    let Some(metadata) = if_there(file.metadata())? else { continue };
                    let is_old = metadata.modified()? < before;
                    match (Digest::parse(name), kind) {
                        (Some(digest), None) => {
                            found.seen += 1;
                            found.old.extend(is_old.then_some(digest));
                        }
                        (Some(digest), Some(ASIDE)) => found.aside.push(digest),
                        // Left by a writer that was killed.
                        (None, Some(PART)) if is_old => drop(if_there(fs::remove_file(&path))?),
                        _ => {}
                    }
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
