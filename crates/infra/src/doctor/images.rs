//! The blob of every image, and the files that no image names.

use std::io;
use std::time::Duration;

use chrono::TimeDelta;
use mundap_domain::ImageRepository as _;
use mundap_domain::env::Timestamp;
use mundap_domain::image::{BlobError, BlobStore as _, Digest, Image};

use super::{Doctor, DoctorError, FORGOTTEN, Finding};
use crate::blob::{Found, Kind, Stored};
use crate::image::read;
use crate::image::row::Entity;

/// An upload whose blob a sweep has taken away puts it again right behind its commit.
const SETTLES: Duration = Duration::from_secs(1);
/// A sweep brings back what it has set aside by mistake before it goes on.
const SWEEP: TimeDelta = TimeDelta::minutes(1);
/// How many digests are looked up at once.
const LOOKED_UP: usize = 500;

/// What is wrong with a blob.
enum Wrong {
    Missing,
    Aside,
    Unreadable(io::ErrorKind),
    Size(u64),
    Content,
}

impl Doctor<'_> {
    /// The blobs that the images' rows name. Says whether every blob is there.
    pub(super) async fn images(&mut self) -> Result<bool, DoctorError> {
        let (mut last, mut is_whole) = (None, true);
        while let Some(rows) = self.rows_behind::<Entity>(&mut last).await? {
            let mut suspects = Vec::new();
            // A row that cannot be read was told with the other rows.
            for image in rows.into_iter().filter_map(|row| read(row.model.ok()?).ok()) {
                self.examined.blobs += 1;
                if self.wrong(&image).await?.is_some() {
                    suspects.push(image);
                }
            }
            if !suspects.is_empty() {
                tokio::time::sleep(SETTLES).await;
            }
            for image in suspects {
                if let Some(finding) = self.blob_of(&image).await? {
                    is_whole &= finding.mended;
                    self.tell(&finding);
                }
            }
        }
        Ok(is_whole)
    }

    /// What is wrong with the blob of an image that was suspected before.
    async fn blob_of(&self, image: &Image) -> Result<Option<Finding>, DoctorError> {
        let Some(wrong) = self.wrong(image).await? else { return Ok(None) };
        // Behind the look: it may have been deleted, and then its blob went.
        if self.store().reader.find(image.id).await?.is_none() {
            return Ok(None);
        }
        let (digest, bytes) = (image.digest, image.bytes);
        let mut mended = false;
        if self.examination.repair && matches!(wrong, Wrong::Aside) {
            self.board.blobs.bring_back(digest).await?;
            mended = self.wrong(image).await?.is_none();
        }
        let restore = "bring the file back from a backup";
        let what = match wrong {
            Wrong::Missing => format!("its blob {digest} is missing: {restore}"),
            Wrong::Aside => {
                format!("its blob {digest} was set aside and is shown: a sweep brings it back, or --repair")
            }
            Wrong::Unreadable(kind) => format!("its blob {digest} cannot be read ({kind})"),
            Wrong::Size(size) => format!("its blob {digest} has {size} bytes in place of {bytes}: {restore}"),
            Wrong::Content => format!("its blob {digest} holds something else: {restore}"),
        };
        Ok(Some(Finding { mended, ..Finding::new(format!("image {}", image.id), what) }))
    }

    async fn wrong(&self, image: &Image) -> Result<Option<Wrong>, BlobError> {
        let found = self.board.blobs.look_at(image.digest, !self.examination.quick).await?;
        Ok(match found {
            Found::Nothing => Some(Wrong::Missing),
            Found::Aside { since } if since < self.examination.now.plus(-SWEEP) => Some(Wrong::Aside),
            Found::Unreadable(kind) => Some(Wrong::Unreadable(kind)),
            Found::Blob { bytes, .. } if bytes != u64::from(image.bytes) => Some(Wrong::Size(bytes)),
            Found::Blob { content: Some(content), .. } if content != image.digest => Some(Wrong::Content),
            Found::Aside { .. } | Found::Blob { .. } => None,
        })
    }

    /// Whether the folder is the one that all nodes share; says so where it was already. It is taken for that where every
    /// image's blob is in it; that there is no image proves nothing of a folder that holds some.
    pub(super) async fn folder(&mut self, is_whole: bool) -> Result<bool, DoctorError> {
        let (store, blobs) = (self.store(), self.board.blobs);
        // Where nobody has said which folder it is, the next node that starts does.
        let Some(what) = store.home(blobs).await?.fault(blobs.root()) else { return Ok(true) };
        let is_proven = is_whole && (self.examined.blobs > 0 || blobs.some(1).await?.is_empty());
        let mended = self.examination.repair && is_proven;
        if mended {
            store.settle_home(blobs).await?;
        }
        self.tell(&Finding { mended, ..Finding::new("images", what) });
        Ok(false)
    }

    /// Files in the folder of images that nothing names.
    pub(super) async fn files(&mut self) -> Result<(), DoctorError> {
        let before = self.examination.now.plus(-FORGOTTEN);
        let top = self.board.blobs.survey_top().await?;
        self.old_files(top, before).await?;
        for first_byte in 0..=u8::MAX {
            let stored = self.board.blobs.survey(first_byte).await?;
            self.old_files(stored, before).await?;
        }
        Ok(())
    }

    /// Those of these files that are from before `before` and that nothing names.
    async fn old_files(&mut self, mut old: Vec<Stored>, before: Timestamp) -> Result<(), DoctorError> {
        old.retain(|stored| stored.since < before);
        for old in old.chunks(LOOKED_UP) {
            let digests: Vec<Digest> = old.iter().filter_map(|stored| stored.kind.digest()).collect();
            let shown = self.store().reader.shown(&digests).await?;
            let is_named = |stored: &&Stored| stored.kind.digest().is_some_and(|digest| shown.contains(&digest));
            for stored in old.iter().filter(|stored| !is_named(stored)) {
                if let Some(finding) = self.unnamed(stored, before).await? {
                    self.tell(&finding);
                }
            }
        }
        Ok(())
    }

    async fn unnamed(&self, stored: &Stored, before: Timestamp) -> Result<Option<Finding>, DoctorError> {
        let (blobs, repair) = (self.board.blobs, self.examination.repair);
        let about = format!("images/{}", stored.name);
        let what = match stored.kind {
            Kind::Whole(digest) if repair => {
                if !blobs.set_aside(digest, before).await? {
                    return Ok(None);
                }
                // As the board's own sweep: an upload may have named it meanwhile.
                if self.is_shown(digest).await? {
                    blobs.bring_back(digest).await?;
                    return Ok(None);
                }
                "no image shows it; it is set aside, and the board's next sweep removes it"
            }
            Kind::Whole(digest) => {
                // Whoever is about to show it has put it a moment ago.
                if !blobs.is_older(digest, before).await? {
                    return Ok(None);
                }
                "no image shows it; the board removes it by and by, if it may write there"
            }
            Kind::Aside(digest) if self.is_shown(digest).await? => return Ok(None),
            Kind::Aside(digest) => {
                if repair {
                    blobs.discard(digest).await?;
                }
                "set aside and not removed: does the board sweep, and may it write there?"
            }
            Kind::Part => {
                if repair {
                    blobs.remove(stored).await?;
                }
                "left by a writer that was killed; the board removes it by and by"
            }
            Kind::Folder => return Ok(Some(Finding::new(about, "not a folder of this board: move it away"))),
            Kind::Strange => return Ok(Some(Finding::new(about, "not a file of this board: move it away"))),
        };
        Ok(Some(Finding { mended: repair, ..Finding::new(about, what) }))
    }

    async fn is_shown(&self, digest: Digest) -> Result<bool, DoctorError> {
        Ok(!self.store().reader.shown(&[digest]).await?.is_empty())
    }
}
