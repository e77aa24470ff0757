//! Comments: answers and discussion below a QnA, oldest first.

use std::sync::Arc;

use async_trait::async_trait;

use crate::actor::{Act, Actor};
use crate::env::{Clock, Timestamp, retrying};
use crate::error::{Error, Kind, StoreError, Violations};
use crate::event::{Event, Events};
use crate::id::id;
use crate::idempotency::{Claimant, Creation, Desk, IdempotencyKey, Outcome, once};
use crate::image::Image;
use crate::page::{CursorKey, Order, Page, PageRequest, Slice};
use crate::qna::QnaId;
use crate::text::{length, not_blank, printable, text_value};
use crate::user::{Author, UserId};
use crate::version::{Expected, Version};
use crate::{Ports, Repositories, Store};

impl Kind {
    pub const COMMENT: Self = Self::new("comment", "comment_not_found");
}

id!(
    /// Identifies a comment; given by the database, below 2^53, never given twice, growing with time.
    CommentId
);

/// A comment's text: 1 to 20,000 characters, not blank.
#[derive(Clone, Debug, PartialEq, Eq, garde::Validate)]
#[garde(transparent)]
pub struct CommentContent(
    #[garde(custom(length::<{ Self::MIN }, { Self::MAX }>), custom(printable), custom(not_blank))] String,
);

impl CommentContent {
    /// Characters.
    pub const MIN: usize = 1;
    /// Characters.
    pub const MAX: usize = 20_000;
}

text_value!(CommentContent);

/// A comment's stored values. Reading goes through [`Comment`]; changing goes through its methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommentRecord {
    pub id: CommentId,
    pub qna: QnaId,
    pub author: Author,
    pub content: CommentContent,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: Version,
    /// Oldest first.
    pub images: Vec<Image>,
}

/// An answer or a remark below a QnA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment(CommentRecord);

impl std::ops::Deref for Comment {
    type Target = CommentRecord;

    fn deref(&self) -> &CommentRecord {
        &self.0
    }
}

impl Comment {
    /// What a repository read. Not for use cases: they change a comment by the methods below.
    #[must_use]
    pub const fn restore(record: CommentRecord) -> Self {
        Self(record)
    }

    /// Changes the text and counts a version.
    ///
    /// # Errors
    /// What the ownership table says; then [`Error::VersionMismatch`].
    pub fn edit(
        &mut self,
        by: &Actor,
        expected: &Expected,
        content: &CommentContent,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.must_be_changeable(by, expected)?;
        self.0.content.clone_from(content);
        self.0.updated_at = now;
        self.0.version = self.version.next();
        Ok(())
    }

    /// Permission first, so that a stranger learns nothing of the version.
    fn must_be_changeable(&self, by: &Actor, expected: &Expected) -> Result<(), Error> {
        by.must(Act::Change { author: self.author.id })?;
        expected.check(self.version)
    }
}

/// A comment to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewComment {
    pub qna: QnaId,
    pub author: Author,
    pub content: CommentContent,
    pub created_at: Timestamp,
}

impl NewComment {
    /// What is stored of it under this id, in its first version.
    #[must_use]
    pub fn stored(self, id: CommentId) -> Comment {
        Comment::restore(CommentRecord {
            id,
            qna: self.qna,
            author: self.author,
            content: self.content,
            created_at: self.created_at,
            updated_at: self.created_at,
            version: Version::FIRST,
            images: Vec::new(),
        })
    }
}

#[async_trait]
impl Creation for NewComment {
    type Entity = Comment;

    const OPERATION: &'static str = "comment";
    const EVENT: Event = Event::Commented;

    fn said(&self) -> Vec<&[u8]> {
        vec![self.content.as_str().as_bytes()]
    }

    fn below(&self) -> i64 {
        self.qna.get()
    }

    fn stamp(&self) -> (Timestamp, Option<&Author>) {
        (self.created_at, Some(&self.author))
    }

    fn stamped(self, created_at: Timestamp, author: Option<Author>) -> Self {
        Self { created_at, author: author.unwrap_or(self.author), ..self }
    }

    async fn store(&self, unit: &dyn Repositories) -> Result<Comment, Error> {
        // The count first: it locks the QnA exclusively. The insert alone would share the lock, and two commenters who
        // then both wanted to count would deadlock.
        if !unit.qnas().count_comments(self.qna, 1).await? {
            return Err(Error::NotFound(Kind::QNA));
        }
        Ok(unit.comments().insert(self).await?)
    }

    fn id(entity: &Comment) -> i64 {
        entity.id.get()
    }

    fn stored_as(self, id: i64) -> Comment {
        self.stored(CommentId::new(id))
    }
}

/// A comment as somebody wrote it, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommentDraft {
    pub content: CommentContent,
}

impl CommentDraft {
    /// # Errors
    /// Every rule that the text breaks.
    pub fn parse(content: Option<&str>) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let content = violations.check("content", content, CommentContent::parse);
        violations.finish(content.map(|content| Self { content }))
    }
}

/// A change of a comment; an absent field stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommentEdit {
    pub content: Option<CommentContent>,
}

impl CommentEdit {
    /// # Errors
    /// Every rule that the text breaks.
    pub fn parse(content: Option<&str>) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let content = violations.check_if_present("content", content, CommentContent::parse);
        violations.finish(content.map(|content| Self { content }))
    }
}

/// Where comments are kept.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait CommentRepository: Send + Sync {
    /// The comment with its images, unless it is unknown or deleted.
    async fn find(&self, id: CommentId) -> Result<Option<Comment>, StoreError>;
    /// As [`find`](Self::find); in a unit, MUST keep the row from changing until the unit ends.
    async fn find_locked(&self, id: CommentId) -> Result<Option<Comment>, StoreError>;
    /// The comments of one QnA, each with its images. MUST be in the slice's order by id, hold nothing at or before `after`,
    /// and at most `limit` items. MUST end where its items come to `bytes`, with one item at least.
    async fn list(&self, qna: QnaId, slice: &Slice) -> Result<Vec<Comment>, StoreError>;
    /// The comments that one account wrote, each with its images. MUST be in the slice's order by id, hold nothing at or
    /// before `after`, and at most `limit` items. MUST end where its items come to `bytes`, with one item at least.
    async fn list_by(&self, author: UserId, slice: &Slice) -> Result<Vec<Comment>, StoreError>;
    /// Stores a new comment in its first version and returns it whole. MUST be [`StoreError::MissingReference`] where
    /// its QnA or its author is not there.
    async fn insert(&self, comment: &NewComment) -> Result<Comment, StoreError>;
    /// Stores a changed comment. MUST be [`StoreError::Stale`] unless the stored version is the one before. MUST leave
    /// its images alone.
    async fn update(&self, comment: &Comment) -> Result<(), StoreError>;
    /// Removes it with its images. MUST be [`StoreError::Stale`] unless it is there in this version.
    async fn delete(&self, id: CommentId, version: Version) -> Result<(), StoreError>;
    /// Removes comments of a QnA with their images, `most` of them at most, and says how many. MUST leave the QnA's count of
    /// comments alone.
    async fn delete_some_of(&self, qna: QnaId, most: u64) -> Result<u64, StoreError>;
    /// Adds `by` to its count of images, by which a comment without any is read without a look at the images, and keeps the
    /// row from changing until the unit ends. `false` where there is no such comment. MUST NOT read the count first.
    async fn count_images(&self, id: CommentId, by: i32) -> Result<bool, StoreError>;
}

/// Use cases on comments.
pub struct CommentService {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    cursors: Arc<CursorKey>,
    events: Arc<dyn Events>,
    desk: Desk,
}

impl CommentService {
    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        Self {
            store: ports.store.clone(),
            clock: ports.clock.clone(),
            cursors: ports.cursors.clone(),
            events: ports.events.clone(),
            desk: Desk::new(ports),
        }
    }

    /// Comments on a QnA; with a key, once.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such QnA, what the ownership table says, [`Error::KeyReused`],
    /// [`Error::KeyInUse`].
    pub async fn write(
        &self,
        by: &Actor,
        qna: QnaId,
        draft: &CommentDraft,
        key: Option<&IdempotencyKey>,
    ) -> Result<Outcome<Comment>, Error> {
        let author = by.account_that_may(Act::Post)?.author();
        let claimant = Claimant::account(author.id);
        let new = NewComment { qna, author, content: draft.content.clone(), created_at: self.clock.now() };
        once(&self.desk, claimant, key, new).await
    }

    /// # Errors
    /// [`Error::NotFound`].
    pub async fn read(&self, by: &Actor, id: CommentId) -> Result<Comment, Error> {
        by.must(Act::Read)?;
        self.store.reader().comments().find(id).await?.ok_or(Error::NotFound(Kind::COMMENT))
    }

    /// The comments of a QnA, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such QnA, [`Error::InvalidCursor`].
    pub async fn list(&self, by: &Actor, qna: QnaId, request: &PageRequest) -> Result<Page<Comment>, Error> {
        by.must(Act::Read)?;
        let page = self.page(qna, request).await?;
        // Only an empty list leaves open whether the QnA is there.
        if page.items.is_empty() && self.store.reader().qnas().find(qna).await?.is_none() {
            return Err(Error::NotFound(Kind::QNA));
        }
        Ok(page)
    }

    pub(crate) async fn page(&self, qna: QnaId, request: &PageRequest) -> Result<Page<Comment>, Error> {
        let name = format!("qna/{qna}/comments");
        let slice = self.cursors.slice(&name, Order::Oldest, request)?;
        let items = self.store.reader().comments().list(qna, &slice).await?;
        Ok(self.cursors.page(&name, &slice, items, |comment| comment.id.get()))
    }

    /// Changes a comment. An edit that names no field changes nothing and counts no version.
    ///
    /// # Errors
    /// [`Error::NotFound`], then what the ownership table says, then [`Error::VersionMismatch`].
    pub async fn edit(
        &self,
        by: &Actor,
        id: CommentId,
        edit: &CommentEdit,
        expected: &Expected,
    ) -> Result<Comment, Error> {
        by.must_be_able_to_write()?;
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let mut comment = unit.comments().find_locked(id).await?.ok_or(Error::NotFound(Kind::COMMENT))?;
            let Some(content) = &edit.content else {
                comment.must_be_changeable(by, expected)?;
                return Ok(comment);
            };
            comment.edit(by, expected, content, self.clock.now())?;
            unit.comments().update(&comment).await?;
            unit.commit().await?;
            self.events.record(Event::CommentEdited);
            Ok(comment)
        })
        .await
    }

    /// Deletes a comment with its images.
    ///
    /// # Errors
    /// As [`edit`](Self::edit).
    pub async fn delete(&self, by: &Actor, id: CommentId, expected: &Expected) -> Result<(), Error> {
        by.must_be_able_to_write()?;
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let comment = unit.comments().find(id).await?.ok_or(Error::NotFound(Kind::COMMENT))?;
            comment.must_be_changeable(by, expected)?;
            // QnA before comment, as `write` and deleting a QnA lock them.
            unit.qnas().count_comments(comment.qna, -1).await?;
            unit.comments().delete(id, comment.version).await?;
            unit.commit().await?;
            self.events.record(Event::CommentDeleted);
            Ok(())
        })
        .await
    }
}
