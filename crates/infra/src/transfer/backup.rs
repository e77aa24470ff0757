//! A board into an archive, while it serves.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mundap_domain::env::Clock as _;
use mundap_domain::image::Digest;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Statement};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::format::{self, FORMAT, Head, Images, Listed, Manifest, Member, PART, Writer};
use super::lock::try_lock;
use super::rows::{Rows, Sum, count, next_id, snapshot, unreadable};
use super::table::{Table, tables};
use super::{Contents, Lost, Progress, TransferError};
use crate::blob::Whole;
use crate::{BlobFolder, SeaStore, SystemClock, image};

/// Where an archive goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A file for its owner alone. Written under another name, synced and renamed: it is whole or not there.
    File {
        path: PathBuf,
        /// Also where a regular file is there.
        overwrite: bool,
    },
    Stdout,
}

/// How often images that wait are kept from the sweep, which takes what was not put for an hour.
const KEEP_EVERY: Duration = Duration::from_mins(20);
/// How many images are looked up at once.
const LOOKED_UP: u64 = 1_000;

/// Writes the board as it is in one moment: every write that was acknowledged before this was called is in it, and none that
/// began later than the snapshot is there by half. The board may serve and be written to meanwhile.
///
/// # Errors
/// [`TransferError`]; then there is no file. An image whose bytes are lost is no error: see [`Contents::lost`].
pub async fn backup(
    store: &SeaStore,
    blobs: &BlobFolder,
    destination: &Destination,
    progress: &dyn Progress,
) -> Result<Contents, TransferError> {
    let migrations = migrations(store, "database").await?;
    let now = SystemClock.now();
    let engine = store.describe().await.map_err(|error| TransferError::Database(error.into()))?;
    let head = Head {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: now.to_string(),
        engine,
        migrations,
        tables: tables(),
    };
    let (file, out) = open(destination)?;
    let made_at = u64::try_from(now.as_utc().timestamp()).unwrap_or_default();
    let mut archive =
        Pipe::open(out, made_at, file.as_ref().map_or(Path::new("standard output"), |file| &file.partial));
    let contents = write(store, blobs, &head, &mut archive, progress).await;
    // What stopped the writer says more than that it stopped.
    let written = archive.finish().await;
    let contents = match (contents, written) {
        (_, Err(error)) => return Err(error),
        (contents, Ok(())) => contents?,
    };
    if let Some(file) = file {
        file.keep()?;
    }
    Ok(contents)
}

/// The migrations of a database that must have all that this program knows.
pub(crate) async fn migrations(store: &SeaStore, which: &'static str) -> Result<Vec<String>, TransferError> {
    let all = mundap_migration::status(store.writer()).await?;
    match all.iter().filter(|(_, applied)| !applied).count() {
        0 => Ok(all.into_iter().map(|(name, _)| name).collect()),
        pending => Err(TransferError::Schema(which, pending)),
    }
}

async fn write(
    store: &SeaStore,
    blobs: &BlobFolder,
    head: &Head,
    archive: &mut Pipe,
    progress: &dyn Progress,
) -> Result<Contents, TransferError> {
    let begins = format::head_member(head).map_err(|error| archive.failed(error))?;
    let head_sum = Digest::of(&begins.1).to_string();
    archive.add(begins).await?;

    // Before the snapshot: whatever image it names was either kept here or put since.
    keep(store.writer(), blobs, Vec::new()).await?;
    let board = snapshot(store).await?;
    let (images, lost) = write_images(&board, blobs, archive, progress).await?;

    let mut listed = Vec::new();
    for table in &head.tables {
        let mut sum = Sum::default();
        progress.begin(&table.name, count(&board, &table.name).await?);
        let (mut rows, mut lines, mut part) = (Rows::of(&board, table), String::new(), 0);
        while let Some(row) = rows.next().await? {
            let begin = lines.len();
            table.write(&row, &mut lines);
            sum.add(&lines[begin..]);
            progress.step(1);
            if lines.len() >= PART {
                part += 1;
                archive.add(format::rows_member(table, part, std::mem::take(&mut lines))).await?;
            }
        }
        if !lines.is_empty() {
            archive.add(format::rows_member(table, part + 1, lines)).await?;
        }
        listed.push(Listed { sum: sum.finish(table), next_id: counted(&board, store, table).await? });
    }
    board.rollback().await?;

    let images = images.finish();
    let contents = Contents {
        tables: listed.iter().map(|listed| listed.sum.clone()).collect(),
        images: images.count,
        image_bytes: images.bytes,
        lost: lost.clone(),
    };
    let lost = lost.iter().map(|lost| lost.image.to_string()).collect();
    let manifest = Manifest { tables: listed, images, lost, head: head_sum };
    let end = format::manifest_member(&manifest).map_err(|error| archive.failed(error))?;
    archive.add(end).await?;
    Ok(contents)
}

async fn counted(board: &DatabaseTransaction, store: &SeaStore, table: &Table) -> Result<Option<i64>, DbErr> {
    if table.counted { next_id(board, store.kind(), table).await.map(Some) } else { Ok(None) }
}

async fn write_images(
    board: &DatabaseTransaction,
    blobs: &BlobFolder,
    archive: &mut Pipe,
    progress: &dyn Progress,
) -> Result<(Images, Vec<Lost>), TransferError> {
    let (mut images, mut missing, mut kept) = (Images::default(), Vec::new(), Instant::now());
    progress.begin("images", count(board, "image").await?);
    let mut after = Vec::new();
    loop {
        let named = digests(board, &after).await?;
        let Some(last) = named.last() else { break };
        if kept.elapsed() >= KEEP_EVERY {
            keep(board, blobs, after).await?;
            kept = Instant::now();
        }
        after = last.as_bytes().to_vec();
        for digest in named {
            if write_image(digest, blobs, archive, &mut images).await?.is_some() {
                missing.push(digest);
            }
            progress.step(1);
        }
    }
    // An upload that a sweep met puts its blob again a moment after its row is there.
    if !missing.is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut lost = Vec::new();
    for digest in missing {
        lost.extend(write_image(digest, blobs, archive, &mut images).await?);
    }
    Ok((images, lost))
}

/// Writes an image, where its bytes are there and are what its name says: others nobody would restore.
async fn write_image(
    digest: Digest,
    blobs: &BlobFolder,
    archive: &mut Pipe,
    images: &mut Images,
) -> Result<Option<Lost>, TransferError> {
    match blobs.whole(digest).await? {
        Whole::Bytes(content) => {
            images.add(digest, &content);
            archive.add(format::image_member(digest, content)).await?;
            Ok(None)
        }
        Whole::Lost(why) => Ok(Some(Lost { image: digest, why })),
    }
}

/// Keeps the images behind `after` from the sweep for another hour.
async fn keep(db: &impl ConnectionTrait, blobs: &BlobFolder, mut after: Vec<u8>) -> Result<(), TransferError> {
    loop {
        let named = digests(db, &after).await?;
        let Some(last) = named.last() else { return Ok(()) };
        after = last.as_bytes().to_vec();
        blobs.keep(named, SystemClock.now()).await?;
    }
}

/// The images that rows name, in order, those behind `after`.
async fn digests(db: &impl ConnectionTrait, after: &[u8]) -> Result<Vec<Digest>, DbErr> {
    let sql = format!(
        "SELECT sha256, MIN(image_id) FROM image WHERE sha256 > ? GROUP BY sha256 ORDER BY sha256 LIMIT {LOOKED_UP}"
    );
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, [after.into()]);
    let rows = db.query_all_raw(statement).await?;
    rows.iter()
        .map(|row| {
            let digest = row.try_get_by_index(0).ok().and_then(image::digest);
            let id: i64 = row.try_get_by_index(1)?;
            digest.ok_or_else(|| unreadable("image", &id.to_string(), "sha256"))
        })
        .collect()
}

/// A thread that compresses and writes what it is sent.
struct Pipe {
    /// For what it says when it fails.
    path: PathBuf,
    members: Option<mpsc::Sender<Member>>,
    writing: JoinHandle<io::Result<()>>,
}

impl Pipe {
    fn open(out: Box<dyn Write + Send>, made_at: u64, path: &Path) -> Self {
        // Two on their way: while one is written, the next is read.
        let (members, mut sent) = mpsc::channel(2);
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = Writer::new(BufWriter::with_capacity(1 << 20, out), made_at)?;
            while let Some(member) = sent.blocking_recv() {
                writer.add(&member)?;
            }
            writer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.flush()
        });
        Self { path: path.to_owned(), members: Some(members), writing }
    }

    fn failed(&self, error: io::Error) -> TransferError {
        TransferError::Write(self.path.clone(), error)
    }

    async fn add(&self, member: Member) -> Result<(), TransferError> {
        let sent = match &self.members {
            Some(members) => members.send(member).await.is_ok(),
            None => false,
        };
        if sent { Ok(()) } else { Err(self.failed(io::ErrorKind::BrokenPipe.into())) }
    }

    async fn finish(mut self) -> Result<(), TransferError> {
        self.members = None;
        let outcome = (&mut self.writing).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        outcome.map_err(|error| self.failed(error))
    }
}

/// A file under another name, removed unless it is kept.
struct NewFile {
    partial: PathBuf,
    path: PathBuf,
    overwrite: bool,
    file: File,
}

fn open(destination: &Destination) -> Result<(Option<NewFile>, Box<dyn Write + Send>), TransferError> {
    let Destination::File { path, overwrite } = destination else { return Ok((None, Box::new(io::stdout()))) };
    if is_there(path)? && !overwrite {
        return Err(TransferError::Exists(path.clone()));
    }
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |error| TransferError::Write(partial.clone(), error);
    let reserved = |file: File| {
        let is_ours = try_lock(&file).and_then(|is_locked| Ok(is_locked && is_at(&file, &partial)?)).map_err(failed)?;
        if is_ours { Ok(file) } else { Err(TransferError::BeingWritten(path.clone())) }
    };
    // Kept, and its lock, until the new one is there.
    let _left = if is_there(&partial)? {
        // Of a backup that was killed. It is not written into: somebody may have it open, and an archive holds password hashes;
        // and it may be a whole archive by its other name.
        let left = reserved(OpenOptions::new().write(true).open(&partial).map_err(failed)?)?;
        fs::remove_file(&partial).map_err(failed)?;
        Some(left)
    } else {
        None
    };
    let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(TransferError::BeingWritten(path.clone()));
        }
        file => reserved(file.map_err(failed)?)?,
    };
    // Whatever the umask took from it or a default ACL added.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    let out = file.try_clone().map_err(failed)?;
    Ok((Some(NewFile { partial, path: path.clone(), overwrite: *overwrite, file }), Box::new(out)))
}

/// Whether a file is there. What is there and no regular file is not to be replaced: a device, a pipe, a link.
fn is_there(path: &Path) -> Result<bool, TransferError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(TransferError::NotReplaced(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(TransferError::Write(path.to_owned(), error)),
    }
}

/// Whether this is the file that a path names: another backup may have renamed it between its opening and its locking.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let one = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(other) => Ok((one.dev(), one.ino()) == (other.dev(), other.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl NewFile {
    fn keep(self) -> Result<(), TransferError> {
        let failed = |error| TransferError::Write(self.path.clone(), error);
        self.file.sync_all().map_err(failed)?;
        // Somebody may have made a file meanwhile. Unlike a rename, a link never replaces; not every file system has them.
        let is_linked = !self.overwrite && fs::hard_link(&self.partial, &self.path).is_ok();
        if is_linked {
            fs::remove_file(&self.partial).map_err(failed)?;
        } else if is_there(&self.path)? && !self.overwrite {
            return Err(TransferError::Exists(self.path.clone()));
        } else {
            fs::rename(&self.partial, &self.path).map_err(failed)?;
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Where it was renamed, another backup may be writing its own there by now.
        if is_at(&self.file, &self.partial).unwrap_or_default() {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_made_meanwhile_is_replaced_only_where_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("board.mundap");
        let write = |overwrite| {
            let (file, mut out) = open(&Destination::File { path: path.clone(), overwrite }).unwrap();
            out.write_all(b"an archive").unwrap();
            fs::write(&path, b"made meanwhile").unwrap();
            file.unwrap().keep()
        };
        let outcome = write(false);
        assert!(matches!(outcome, Err(TransferError::Exists(_))), "{outcome:?}");
        assert_eq!(fs::read(&path).unwrap(), b"made meanwhile");
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"there before").unwrap();
        write(true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"an archive");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_at_a_time_writes_an_archive() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::File { path: folder.path().join("board.mundap"), overwrite: true };
        let (first, _out) = open(&destination).unwrap();
        assert!(matches!(open(&destination), Err(TransferError::BeingWritten(_))));
        first.unwrap().keep().unwrap();
        open(&destination).unwrap();
    }

    /// Such a file may have been anybody's to open, or be somebody else's.
    #[test]
    fn whoever_has_opened_what_was_left_does_not_read_the_next_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("board.mundap");
        let partial = folder.path().join("board.mundap.partial");
        fs::write(&partial, b"half").unwrap();
        let mut opened = File::open(&partial).unwrap();
        let (file, mut out) = open(&Destination::File { path: path.clone(), overwrite: false }).unwrap();
        out.write_all(b"an archive").unwrap();
        file.unwrap().keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"an archive");
        let mut seen = String::new();
        io::Read::read_to_string(&mut opened, &mut seen).unwrap();
        assert_eq!(seen, "half");
    }
}
