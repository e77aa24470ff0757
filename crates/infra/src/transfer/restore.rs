//! An archive into an empty database.

use std::path::Path;

use mundap_domain::image::Digest;
use tokio::sync::mpsc;

use super::format::{self, Head, Manifest, Piece};
use super::lock::Lock;
use super::rows::{Changes, clear, first_that_holds_rows, go_on_from, sum};
use super::table::tables;
use super::{Contents, Lost, Progress, RESTORE, TransferError};
use crate::{BlobFolder, DatabaseSettings, SeaStore};

/// Reads a whole archive and checks every checksum in it; writes nothing.
///
/// # Errors
/// Where it is no archive, a damaged one, or of a newer version.
pub async fn check(path: &Path, progress: &dyn Progress) -> Result<Contents, TransferError> {
    verify(path, progress).await.map(|(_, manifest)| contents(&manifest))
}

/// Fills an empty database, and the folder of images, with what an archive holds. The archive is checked first: one that is
/// damaged changes nothing. The database gets the schema that the archive is of, the rows, and then what that schema lacks
/// to be today's.
///
/// One that was interrupted is run again: what it left is cleared first.
///
/// # Errors
/// [`TransferError`].
pub async fn restore(
    path: &Path,
    store: &SeaStore,
    settings: &DatabaseSettings,
    blobs: &BlobFolder,
    progress: &dyn Progress,
) -> Result<Contents, TransferError> {
    let (head, manifest) = verify(path, progress).await?;
    let lock = Lock::take(store, settings).await?;
    let outcome = fill(path, store, blobs, (&head, &manifest), progress).await;
    lock.release().await;
    outcome.map(|()| contents(&manifest))
}

/// What [`restore`] does under the lock.
async fn fill(
    path: &Path,
    store: &SeaStore,
    blobs: &BlobFolder,
    (head, manifest): (&Head, &Manifest),
    progress: &dyn Progress,
) -> Result<(), TransferError> {
    let db = store.writer();
    match mundap_migration::marked(db).await?.as_deref() {
        Some(RESTORE) => {
            clear(store, &head.tables).await?;
            clear(store, &tables()).await?;
            mundap_migration::unmark(db).await?;
        }
        Some(other) => return Err(TransferError::Otherwise(other.to_owned())),
        None => {
            if let Some(table) = first_that_holds_rows(store, &tables()).await? {
                return Err(TransferError::NotEmpty(table));
            }
        }
    }
    mundap_migration::exactly(db, &head.migrations).await?;
    mundap_migration::mark(db, RESTORE).await?;
    load(path, store, blobs, head, manifest, progress).await?;
    mundap_migration::unmark(db).await?;
    mundap_migration::up(db).await?;
    // The images are where they were put just now, wherever they were before.
    Box::pin(store.settle_home(blobs)).await?;
    Ok(())
}

fn contents(manifest: &Manifest) -> Contents {
    Contents {
        tables: manifest.tables.iter().map(|listed| listed.sum.clone()).collect(),
        images: manifest.images.count,
        image_bytes: manifest.images.bytes,
        lost: manifest.lost.iter().filter_map(|name| Digest::parse(name)).map(was_lost).collect(),
    }
}

fn was_lost(image: Digest) -> Lost {
    Lost { image, why: "it was when the archive was made".to_owned() }
}

async fn verify(path: &Path, progress: &dyn Progress) -> Result<(Head, Manifest), TransferError> {
    let metadata = std::fs::metadata(path).map_err(|error| TransferError::Read(path.to_owned(), error))?;
    if !metadata.is_file() {
        // A pipe would be empty when it is read again, and the database marked by then.
        return Err(TransferError::ReadOnce(path.to_owned()));
    }
    let size = metadata.len();
    progress.begin("checking the archive", size);
    let (mut head, mut end) = (None, None);
    let mut pieces = Pieces::of(path);
    while let Some(piece) = pieces.next().await? {
        match piece {
            Piece::Head(found) => {
                if !mundap_migration::knows(&found.migrations) {
                    return Err(TransferError::Newer { path: path.to_owned(), made_by: found.program });
                }
                head = Some(found);
            }
            Piece::End(manifest) => end = Some(manifest),
            Piece::Image(..) | Piece::Rows(..) => {}
        }
    }
    progress.step(size);
    head.zip(end).ok_or_else(|| TransferError::Damaged(path.to_owned(), "it ends too early".to_owned()))
}

async fn load(
    path: &Path,
    store: &SeaStore,
    blobs: &BlobFolder,
    head: &Head,
    manifest: &Manifest,
    progress: &dyn Progress,
) -> Result<(), TransferError> {
    let other = || TransferError::Damaged(path.to_owned(), "it changed while it was read".to_owned());
    progress.begin("images", manifest.images.count);
    let mut pieces = Pieces::of(path);
    let (mut begun, mut ended) = (None, false);
    while let Some(piece) = pieces.next().await? {
        match piece {
            Piece::Head(found) if found.tables == head.tables => {}
            Piece::Image(digest, content) => {
                blobs.restore(digest, content).await?;
                progress.step(1);
            }
            Piece::Rows(at, rows) => {
                let (Some(table), Some(listed)) = (head.tables.get(at), manifest.tables.get(at)) else {
                    return Err(other());
                };
                if begun != Some(at) {
                    progress.begin(&table.name, listed.sum.rows);
                    begun = Some(at);
                }
                let count = rows.len() as u64;
                let mut changes = Changes::of(store, table);
                for row in rows {
                    changes.insert(row).await?;
                }
                changes.apply().await?;
                progress.step(count);
            }
            Piece::End(again) if again == *manifest => ended = true,
            Piece::Head(_) | Piece::End(_) => return Err(other()),
        }
    }
    if !ended {
        return Err(other());
    }
    for (table, listed) in head.tables.iter().zip(&manifest.tables) {
        if let Some(next) = listed.next_id {
            go_on_from(store, table, next).await?;
        }
        progress.begin(&format!("checking {}", table.name), listed.sum.rows);
        // What the database gives back, not what it was given.
        if sum(store.writer(), table, progress).await? != listed.sum {
            return Err(TransferError::Differ(vec![table.name.clone()]));
        }
    }
    Ok(())
}

/// The pieces of an archive, read and checked on a thread of their own.
struct Pieces {
    pieces: mpsc::Receiver<Result<Piece, TransferError>>,
}

impl Pieces {
    fn of(path: &Path) -> Self {
        let (found, pieces) = mpsc::channel(2);
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || {
            let outcome = format::read(&path, &mut |piece| found.blocking_send(Ok(piece)).is_ok());
            if let Err(error) = outcome {
                // Nobody listens any more where the command was interrupted.
                let _ = found.blocking_send(Err(error));
            }
        });
        Self { pieces }
    }

    async fn next(&mut self) -> Result<Option<Piece>, TransferError> {
        self.pieces.recv().await.transpose()
    }
}
