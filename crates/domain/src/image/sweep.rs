//! Blobs that no image shows, taken away.

use chrono::TimeDelta;

use super::{BlobStore, ImageRepository, Shelf};
use crate::env::Timestamp;
use crate::error::Error;

/// How long a blob may stand without a row: far longer than an upload takes from its blob to its commit.
const GRACE: TimeDelta = TimeDelta::hours(1);

/// How many digests are looked up at once.
const LOOKED_UP: usize = 500;

/// Takes away the blobs of one shelf that no image shows, and says how many blobs were looked at and how many were taken
/// away.
///
/// An upload may put the very blob that is being taken away and commit its row at any moment between; nothing of that row is
/// lost. The blob is first set aside, and only then are the rows asked again. An upload whose row is there by then gets
/// it back. One that commits later looks for its blob after its commit, finds that it is not there and puts it again
/// ([`ImageService::attach`]). What an interrupted sweep left aside is brought to the same end by the next one.
///
/// [`ImageService::attach`]: super::ImageService::attach
pub(crate) async fn sweep(
    blobs: &dyn BlobStore,
    images: &dyn ImageRepository,
    shelf: u8,
    now: Timestamp,
) -> Result<(usize, u64), Error> {
    let before = now.plus(-GRACE);
    let Shelf { old, mut aside, seen } = blobs.list(shelf, before).await?;
    for digests in old.chunks(LOOKED_UP) {
        let shown = images.shown(digests).await?;
        for digest in digests.iter().filter(|digest| !shown.contains(digest)) {
            if blobs.set_aside(*digest, before).await? {
                aside.push(*digest);
            }
        }
    }
    let mut gone = 0;
    for digests in aside.chunks(LOOKED_UP) {
        let shown = images.shown(digests).await?;
        for digest in digests {
            if shown.contains(digest) {
                blobs.bring_back(*digest).await?;
            } else {
                blobs.discard(*digest).await?;
                gone += 1;
            }
        }
    }
    Ok((seen, gone))
}
