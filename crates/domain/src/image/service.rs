//! What is done with images.

use std::sync::Arc;

use async_trait::async_trait;

use super::{BlobStore, Digest, Image, ImageCleaner, ImageId, NewImage, Refusal, Upload};
use crate::actor::{Act, Actor};
use crate::comment::{Comment, CommentId};
use crate::env::{Clock, Timestamp, retrying};
use crate::error::{Error, Kind};
use crate::event::{Event, Events};
use crate::idempotency::{Claimant, Creation, Desk, IdempotencyKey, Outcome, once};
use crate::user::Author;
use crate::version::{Expected, Version};
use crate::{Ports, Repositories, Store};

/// Use cases on images.
pub struct ImageService {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    blobs: Arc<dyn BlobStore>,
    cleaner: Arc<dyn ImageCleaner>,
    quota: u64,
    events: Arc<dyn Events>,
    desk: Desk,
}

impl ImageService {
    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        Self {
            store: ports.store.clone(),
            clock: ports.clock.clone(),
            blobs: ports.blobs.clone(),
            cleaner: ports.image_cleaner.clone(),
            quota: ports.image_quota,
            events: ports.events.clone(),
            desk: Desk::new(ports),
        }
    }

    /// Attaches an image to a comment of the caller's own; with a key, once.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such comment, what the ownership table says, [`Error::Image`],
    /// [`Error::StorageUnavailable`], [`Error::KeyReused`], [`Error::KeyInUse`].
    pub async fn attach(
        &self,
        by: &Actor,
        comment: CommentId,
        upload: Upload,
        key: Option<&IdempotencyKey>,
    ) -> Result<Outcome<Image>, Error> {
        let author = by.account_that_may(Act::Post)?.author();
        let claimant = Claimant::account(author.id);
        // Asked before the work as well as in the unit: who may not attach shall cost no decoding and leave no blob. A
        // repetition is past these questions; it is answered as the first was.
        let is_repetition = self.desk.remembers(claimant, key).await?;
        if !is_repetition {
            let reader = self.store.reader();
            let found = reader.comments().find(comment).await?;
            may_attach(reader, by, found.as_ref(), self.quota, 0).await?;
        }
        let uploaded = Digest::of(upload.as_bytes());
        let picture = match self.cleaner.clean(upload).await {
            // The first one was a picture.
            Err(Error::Image(_)) if is_repetition => return Err(Error::KeyReused),
            cleaned => cleaned?,
        };
        let digest = Digest::of(&picture.content);
        self.blobs.put(digest, picture.content.clone()).await?;
        let new = NewImage {
            comment,
            owner: author.id,
            media_type: picture.media_type,
            bytes: u32::try_from(picture.content.len()).map_err(Error::internal)?,
            width: picture.width,
            height: picture.height,
            digest,
            created_at: self.clock.now(),
        };
        let attaching = Attaching { by: by.clone(), author, new, uploaded, quota: self.quota };
        let outcome = once(&self.desk, claimant, key, attaching).await?;
        if !outcome.is_replayed() {
            // A sweep that found no row a moment ago may have taken the blob away since; see `sweep`.
            self.blobs.put(digest, picture.content).await?;
        }
        Ok(outcome)
    }

    /// # Errors
    /// [`Error::NotFound`].
    pub async fn read(&self, by: &Actor, id: ImageId) -> Result<Image, Error> {
        by.must(Act::Read)?;
        self.store.reader().images().find(id).await?.ok_or(Error::NotFound(Kind::IMAGE))
    }

    /// Up to `length` of the image's bytes from `offset` on; fewer at its end, never none before it.
    ///
    /// # Errors
    /// [`Error::StorageUnavailable`]; [`Error::Internal`] where the blob is lost.
    pub async fn content(&self, image: &Image, offset: u64, length: usize) -> Result<Vec<u8>, Error> {
        let part = self.blobs.read(image.digest, offset, length).await?;
        let part = part.filter(|part| !part.is_empty() || offset >= u64::from(image.bytes));
        part.ok_or_else(|| Error::internal(format!("the bytes of image {} ({}) are lost", image.id, image.digest)))
    }

    /// Deletes an image. Its bytes go with the next sweep that finds no other image of them.
    ///
    /// # Errors
    /// [`Error::NotFound`], then what the ownership table says, then [`Error::VersionMismatch`]: an image is in its first
    /// version for as long as it is there.
    pub async fn delete(&self, by: &Actor, id: ImageId, expected: &Expected) -> Result<(), Error> {
        by.must_be_able_to_write()?;
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let image = unit.images().find(id).await?.ok_or(Error::NotFound(Kind::IMAGE))?;
            by.must(Act::Change { author: image.owner })?;
            expected.check(Version::FIRST)?;
            // The count first, as `attach`: it locks the comment.
            unit.comments().count_images(image.comment, -1).await?;
            if !unit.images().delete(id).await? {
                // Somebody was faster, and has counted it.
                return Err(Error::NotFound(Kind::IMAGE));
            }
            unit.commit().await?;
            self.events.record(Event::ImageDeleted);
            Ok(())
        })
        .await
    }
}

/// Whether there is such a comment, the caller may attach to it, and there is room for an image of `bytes`.
async fn may_attach(
    repositories: &dyn Repositories,
    by: &Actor,
    comment: Option<&Comment>,
    quota: u64,
    bytes: u32,
) -> Result<(), Error> {
    let comment = comment.ok_or(Error::NotFound(Kind::COMMENT))?;
    by.must(Act::Attach { author: comment.author.id })?;
    if comment.images.len() >= Image::MAX_PER_COMMENT {
        return Err(Refusal::CommentFull.into());
    }
    let used = repositories.images().quota_used(comment.author.id).await?;
    if used + u64::from(bytes) + Image::OVERHEAD > quota {
        return Err(Refusal::QuotaExceeded.into());
    }
    Ok(())
}

#[derive(Clone)]
struct Attaching {
    by: Actor,
    author: Author,
    new: NewImage,
    uploaded: Digest,
    quota: u64,
}

#[async_trait]
impl Creation for Attaching {
    type Entity = Image;

    const OPERATION: &'static str = "image";
    const EVENT: Event = Event::ImageAttached;

    fn said(&self) -> Vec<&[u8]> {
        vec![self.uploaded.as_bytes()]
    }

    fn below(&self) -> i64 {
        self.new.comment.get()
    }

    fn stamp(&self) -> (Timestamp, Option<&Author>) {
        (self.new.created_at, Some(&self.author))
    }

    fn stamped(self, created_at: Timestamp, author: Option<Author>) -> Self {
        Self { new: NewImage { created_at, ..self.new }, author: author.unwrap_or(self.author), ..self }
    }

    async fn store(&self, unit: &dyn Repositories) -> Result<Image, Error> {
        // The member first: two uploads of theirs at once, to whichever comments, must not both fit into the same rest of
        // the quota.
        unit.users().find_locked(self.new.owner).await?.ok_or(Error::InvalidToken)?;
        let comment = unit.comments().find_locked(self.new.comment).await?;
        may_attach(unit, &self.by, comment.as_ref(), self.quota, self.new.bytes).await?;
        unit.comments().count_images(self.new.comment, 1).await?;
        Ok(unit.images().insert(&self.new).await?)
    }

    fn id(entity: &Image) -> i64 {
        entity.id.get()
    }

    fn stored_as(self, id: i64) -> Image {
        self.new.stored(ImageId::new(id))
    }
}
