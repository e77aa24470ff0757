//! Images on comments: uploaded once, cleaned, never changed.
//!
//! What a stranger sends is not what is kept: [`ImageCleaner`] decodes it and writes a new picture of its pixels, without
//! metadata and without whatever hung behind it. The new picture is a blob, stored once by its content's [`Digest`]; an
//! [`Image`] is a row that says on which comment the blob stands. A blob is written before the unit that stores its row
//! begins, and one that no row names is taken away by [`Housekeeping`](crate::Housekeeping).

mod service;
mod sweep;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

pub use service::ImageService;
pub(crate) use sweep::sweep;

use crate::comment::CommentId;
use crate::env::Timestamp;
use crate::error::{Cause, Error, Kind, StoreError};
use crate::id::id;
use crate::page::Slice;
use crate::user::UserId;

impl Kind {
    pub const IMAGE: Self = Self::new("image", "image_not_found");
}

id!(
    /// Identifies an image; given by the database, below 2^53, never given twice, growing with time.
    ImageId
);

/// SHA-256 of a blob's bytes: its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits, as [`Display`](fmt::Display) writes them; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What kind of picture it is: told by its content, never by a name or a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    Png,
    Jpeg,
    Webp,
    Gif,
}

impl MediaType {
    pub const ALL: [Self; 4] = [Self::Png, Self::Jpeg, Self::Webp, Self::Gif];
    /// Their [`name`](Self::name)s.
    pub const NAMES: [&str; 4] = ["image/png", "image/jpeg", "image/webp", "image/gif"];

    /// The registered media type, such as `image/png`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
        }
    }

    /// What a file of this kind ends in, without a dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
            Self::Gif => "gif",
        }
    }

    /// The kind with this [`name`](Self::name).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Why an upload is refused. [`code`](Self::code) is part of the public contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither a PNG nor a JPEG, a WebP or a GIF, whatever it is called.
    NotAnImage,
    /// An animated PNG or WebP.
    Animated,
    /// It begins as an image and cannot be decoded to its end.
    Broken,
    /// More than [`Upload::MAX_BYTES`], as sent or when written anew.
    TooLarge,
    /// More than [`Upload::MAX_SIDE`] or [`Upload::MAX_PIXELS`], an animation of more than [`Upload::MAX_FRAME_PIXELS`],
    /// or more than [`Upload::MAX_DECODED`] when decoded.
    TooManyPixels,
    /// The comment has [`Image::MAX_PER_COMMENT`] images.
    CommentFull,
    /// The member's images fill their quota.
    QuotaExceeded,
}

impl Refusal {
    /// The stable machine-readable name of this refusal. Never changes once released.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotAnImage => "not_an_image",
            Self::Animated => "image_animated",
            Self::Broken => "image_broken",
            Self::TooLarge => "image_too_large",
            Self::TooManyPixels => "image_too_many_pixels",
            Self::CommentFull => "too_many_images",
            Self::QuotaExceeded => "image_quota_exceeded",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnImage => "it is no PNG, JPEG, WebP or GIF",
            Self::Animated => "it is an animated PNG or WebP",
            Self::Broken => "the image cannot be decoded",
            Self::TooLarge => "the image has too many bytes",
            Self::TooManyPixels => "the image has too many pixels",
            Self::CommentFull => "the comment has as many images as it may have",
            Self::QuotaExceeded => "the member's images fill their quota",
        })
    }
}

/// An image on a comment. It is never changed, so its fields can be public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub id: ImageId,
    pub comment: CommentId,
    /// The comment's author, whose quota it counts against.
    pub owner: UserId,
    pub media_type: MediaType,
    /// The blob's size in bytes.
    pub bytes: u32,
    pub width: u32,
    pub height: u32,
    /// The blob that shows it; other images may show the same one.
    pub digest: Digest,
    pub created_at: Timestamp,
}

impl Image {
    /// Images.
    pub const MAX_PER_COMMENT: usize = 10;
    /// Bytes that an image counts in a quota beside its own: about what its row and the last block of its file take. Without
    /// it a quota would hold a hundred thousand tiny ones.
    pub const OVERHEAD: u64 = 4096;
}

/// An image to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImage {
    pub comment: CommentId,
    pub owner: UserId,
    pub media_type: MediaType,
    pub bytes: u32,
    pub width: u32,
    pub height: u32,
    pub digest: Digest,
    pub created_at: Timestamp,
}

impl NewImage {
    /// What is stored of it under this id.
    #[must_use]
    pub fn stored(self, id: ImageId) -> Image {
        let Self { comment, owner, media_type, bytes, width, height, digest, created_at } = self;
        Image { id, comment, owner, media_type, bytes, width, height, digest, created_at }
    }
}

/// The bytes that somebody sent, not looked at yet.
#[derive(Clone)]
pub struct Upload(Vec<u8>);

impl Upload {
    /// Bytes as they are sent: 5 MiB.
    pub const MAX_BYTES: usize = 5 * 1024 * 1024;
    /// Pixels a side.
    pub const MAX_SIDE: u32 = 8192;
    /// Pixels of one picture: its width times its height.
    pub const MAX_PIXELS: u64 = 25_000_000;
    /// Pixels of an animation: its width times its height times its frames.
    pub const MAX_FRAME_PIXELS: u64 = 100_000_000;
    /// Bytes of all pixels: [`MAX_PIXELS`](Self::MAX_PIXELS) of four bytes each. It only matters for PNGs of 16 bits a
    /// channel, which may have half as many.
    pub const MAX_DECODED: u64 = Self::MAX_PIXELS * 4;

    /// # Errors
    /// [`Refusal::TooLarge`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        if bytes.len() > Self::MAX_BYTES { Err(Refusal::TooLarge.into()) } else { Ok(Self(bytes)) }
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({} bytes)", self.0.len())
    }
}

/// A picture that this board wrote: nothing in it but pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pub media_type: MediaType,
    pub width: u32,
    pub height: u32,
    pub content: Arc<Vec<u8>>,
}

impl Picture {
    /// The most bytes that a picture may have once it is written anew: an image may grow by that, as a WebP of few colours
    /// does, but not without bound.
    pub const MAX_BYTES: usize = 2 * Upload::MAX_BYTES;
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { media_type, width, height, content } = self;
        write!(f, "Picture({} of {width}x{height}, {} bytes)", media_type.name(), content.len())
    }
}

/// Makes a [`Picture`] of an [`Upload`].
///
/// - MUST tell the kind by content, and refuse [`Refusal::NotAnImage`] and [`Refusal::Animated`].
/// - MUST hold it to the limits of [`Upload`] by what its header says, before anything is decoded.
/// - MUST apply the orientation that the metadata asks for, and keep no metadata and nothing behind the image's end.
/// - MUST make the same picture of the same upload.
/// - A GIF's frames, their times and their repetitions stay.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait ImageCleaner: Send + Sync {
    /// # Errors
    /// [`Error::Image`]; [`Error::Busy`] at once where too many wait already.
    async fn clean(&self, upload: Upload) -> Result<Picture, Error>;
}

/// What a [`BlobStore`] reports.
#[derive(Debug, thiserror::Error)]
#[error("the image store is unavailable")]
pub struct BlobError(#[source] pub Cause);

impl From<BlobError> for Error {
    fn from(error: BlobError) -> Self {
        Self::StorageUnavailable(error.into())
    }
}

/// Where the bytes of images are kept, by their content. All nodes of a board share one.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// Stores a blob. When it returns, the blob MUST be whole and MUST survive a power loss. MUST leave a blob that is there
    /// as it is, save that it counts as put just now.
    async fn put(&self, digest: Digest, content: Arc<Vec<u8>>) -> Result<(), BlobError>;
    /// Up to `length` bytes from `offset` on, fewer at its end. `None` where there is no such blob.
    async fn read(&self, digest: Digest, offset: u64, length: usize) -> Result<Option<Vec<u8>>, BlobError>;
    /// The blobs of one of the [`SHELVES`] that were last put before `before`, and those that
    /// [`set_aside`](Self::set_aside) took off it and that stayed aside.
    async fn list(&self, first_byte: u8, before: Timestamp) -> Result<Shelf, BlobError>;
    /// Takes a blob away so that it can be brought back: [`read`](Self::read) no longer finds it and [`put`](Self::put)
    /// stores it anew. MUST leave one that was put at `before` or later, and say `false`; also where it is not there.
    async fn set_aside(&self, digest: Digest, before: Timestamp) -> Result<bool, BlobError>;
    /// Puts back what was set aside; no error where it is not there.
    async fn bring_back(&self, digest: Digest) -> Result<(), BlobError>;
    /// Removes what was set aside for good; no error where it is not there.
    async fn discard(&self, digest: Digest) -> Result<(), BlobError>;
}

/// Whether the images of this board's database are in its [`BlobStore`]: a node may have been started on another database or
/// with another folder, and then no row names what is there.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait ImageHome: Send + Sync {
    /// MUST be `false` where nobody has said so yet, and while a board is being carried into the database, whose rows come
    /// after the images that they name.
    async fn is_here(&self) -> Result<bool, Error>;
}

/// How many parts a [`BlobStore`] is listed in: by the first byte of the digests.
pub const SHELVES: usize = 256;

/// A part of a [`BlobStore`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shelf {
    pub old: Vec<Digest>,
    /// Left by a sweep that was interrupted.
    pub aside: Vec<Digest>,
    /// How many blobs were looked at.
    pub seen: usize,
}

/// Where images are kept.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait ImageRepository: Send + Sync {
    /// The image, unless it is unknown or deleted.
    async fn find(&self, id: ImageId) -> Result<Option<Image>, StoreError>;
    /// Stores a new image and returns it whole. MUST be [`StoreError::MissingReference`] where its comment or its owner is
    /// not there. MUST leave the comment's count of images alone.
    async fn insert(&self, image: &NewImage) -> Result<Image, StoreError>;
    /// Removes it, and says whether it was there. MUST leave the comment's count of images alone.
    async fn delete(&self, id: ImageId) -> Result<bool, StoreError>;
    /// The images of an account. MUST be in the slice's order by id, hold nothing at or before `after`, and at most `limit`
    /// items.
    async fn list_of(&self, owner: UserId, slice: &Slice) -> Result<Vec<Image>, StoreError>;
    /// What the images of an account count in its quota: their bytes, and [`Image::OVERHEAD`] each.
    async fn quota_used(&self, owner: UserId) -> Result<u64, StoreError>;
    /// Those of `digests` that an image shows, in any order.
    async fn shown(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError>;
}
