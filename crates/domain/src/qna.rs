//! Questions: a QnA is a title and a text that somebody asked, with comments below it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::actor::{Act, Actor};
use crate::comment::{Comment, CommentService};
use crate::env::{Clock, Timestamp, retrying};
use crate::error::{Error, Kind, StoreError, Violations};
use crate::event::{Event, Events};
use crate::id::id;
use crate::idempotency::{Claim, Claimant, Creation, Desk, IdempotencyKey, NotAdded, Outcome, once};
use crate::page::{CursorKey, Order, Page, PageRequest, PageSize, Slice};
use crate::text::{length, not_blank, printable, text_value};
use crate::user::{Author, UserId};
use crate::version::{Expected, Version};
use crate::{Ports, Repositories, Store};

impl Kind {
    pub const QNA: Self = Self::new("QnA", "qna_not_found");
}

id!(
    /// Identifies a QnA; given by the database, below 2^53, never given twice, growing with time.
    QnaId
);

/// The question in one line: 1 to 255 characters, not blank.
#[derive(Clone, Debug, PartialEq, Eq, garde::Validate)]
#[garde(transparent)]
pub struct Title(#[garde(custom(length::<{ Self::MIN }, { Self::MAX }>), custom(printable), custom(not_blank))] String);

impl Title {
    /// Characters.
    pub const MIN: usize = 1;
    /// Characters.
    pub const MAX: usize = 255;
}

text_value!(Title);

/// The question in full: up to 20,000 characters, may be empty.
#[derive(Clone, Debug, PartialEq, Eq, garde::Validate)]
#[garde(transparent)]
pub struct Content(#[garde(custom(length::<0, { Self::MAX }>), custom(printable))] String);

impl Content {
    /// Characters.
    pub const MAX: usize = 20_000;
}

text_value!(Content);

/// A QnA's stored values. Reading goes through [`Qna`]; changing goes through its methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QnaRecord {
    pub id: QnaId,
    pub author: Author,
    pub title: Title,
    pub content: Content,
    /// How many comments it has; kept in the same unit of work as the comment.
    pub comment_count: i32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: Version,
}

/// A question on the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qna(QnaRecord);

impl std::ops::Deref for Qna {
    type Target = QnaRecord;

    fn deref(&self) -> &QnaRecord {
        &self.0
    }
}

impl Qna {
    /// What a repository read. Not for use cases: they change a QnA by the methods below.
    #[must_use]
    pub const fn restore(record: QnaRecord) -> Self {
        Self(record)
    }

    /// Changes title or content and counts a version.
    ///
    /// # Errors
    /// What the ownership table says; then [`Error::VersionMismatch`].
    pub fn edit(&mut self, by: &Actor, expected: &Expected, edit: &QnaEdit, now: Timestamp) -> Result<(), Error> {
        self.must_be_changeable(by, expected)?;
        if let Some(title) = &edit.title {
            self.0.title.clone_from(title);
        }
        if let Some(content) = &edit.content {
            self.0.content.clone_from(content);
        }
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

/// A QnA to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewQna {
    pub author: Author,
    pub title: Title,
    pub content: Content,
    pub created_at: Timestamp,
}

impl NewQna {
    /// What is stored of it under this id, in its first version.
    #[must_use]
    pub fn stored(self, id: QnaId) -> Qna {
        Qna::restore(QnaRecord {
            id,
            author: self.author,
            title: self.title,
            content: self.content,
            comment_count: 0,
            created_at: self.created_at,
            updated_at: self.created_at,
            version: Version::FIRST,
        })
    }
}

#[async_trait]
impl Creation for NewQna {
    type Entity = Qna;

    const OPERATION: &'static str = "ask";
    const EVENT: Event = Event::Asked;

    fn said(&self) -> Vec<&[u8]> {
        vec![self.title.as_str().as_bytes(), self.content.as_str().as_bytes()]
    }

    fn stamp(&self) -> (Timestamp, Option<&Author>) {
        (self.created_at, Some(&self.author))
    }

    fn stamped(self, created_at: Timestamp, author: Option<Author>) -> Self {
        Self { created_at, author: author.unwrap_or(self.author), ..self }
    }

    async fn store(&self, unit: &dyn Repositories) -> Result<Qna, Error> {
        Ok(unit.qnas().insert(self).await?)
    }

    async fn add(&self, store: &dyn Store, claim: Option<&Claim>) -> Result<Qna, NotAdded<Error>> {
        store.add_qna(self, claim).await.map_err(|error| match error {
            NotAdded::Thing(error) => NotAdded::Thing(error.into()),
            NotAdded::Receipt(error) => NotAdded::Receipt(error),
        })
    }

    fn id(entity: &Qna) -> i64 {
        entity.id.get()
    }

    fn stored_as(self, id: i64) -> Qna {
        self.stored(QnaId::new(id))
    }
}

/// A question as somebody wrote it, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QnaDraft {
    pub title: Title,
    pub content: Content,
}

impl QnaDraft {
    /// # Errors
    /// Every rule that a field breaks.
    pub fn parse(title: Option<&str>, content: Option<&str>) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let title = violations.check("title", title, Title::parse);
        let content = violations.check("content", content, Content::parse);
        violations.finish((|| Some(Self { title: title?, content: content? }))())
    }
}

/// A change of a QnA; an absent field stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QnaEdit {
    pub title: Option<Title>,
    pub content: Option<Content>,
}

impl QnaEdit {
    /// # Errors
    /// Every rule that a field breaks.
    pub fn parse(title: Option<&str>, content: Option<&str>) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let title = violations.check_if_present("title", title, Title::parse);
        let content = violations.check_if_present("content", content, Content::parse);
        violations.finish((|| Some(Self { title: title?, content: content? }))())
    }

    const fn is_empty(&self) -> bool {
        self.title.is_none() && self.content.is_none()
    }
}

/// Which QnAs a list holds, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QnaListing {
    pub author: Option<UserId>,
    pub order: Order,
}

impl QnaListing {
    /// All that a cursor of this list is bound to.
    fn name(&self) -> String {
        self.author.map_or_else(|| "qna".to_owned(), |id| format!("qna?author={id}"))
    }
}

/// Where QnAs are kept.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait QnaRepository: Send + Sync {
    /// The QnA, unless it is unknown or deleted.
    async fn find(&self, id: QnaId) -> Result<Option<Qna>, StoreError>;
    /// As [`find`](Self::find); in a unit, MUST keep the row from changing until the unit ends.
    async fn find_locked(&self, id: QnaId) -> Result<Option<Qna>, StoreError>;
    /// The QnAs of one account, or all. MUST be in the slice's order by id, hold nothing at or before `after`, and at most
    /// `limit` items. MUST end where its items come to `bytes`, with one item at least.
    async fn list(&self, author: Option<UserId>, slice: &Slice) -> Result<Vec<Qna>, StoreError>;
    /// Stores a new QnA in its first version and returns it whole. MUST be [`StoreError::MissingReference`] where its author
    /// is not there.
    async fn insert(&self, qna: &NewQna) -> Result<Qna, StoreError>;
    /// Stores a changed QnA. MUST be [`StoreError::Stale`] unless the stored version is the one before. MUST leave
    /// `comment_count` alone.
    async fn update(&self, qna: &Qna) -> Result<(), StoreError>;
    /// Removes it with all that belongs to it. MUST be [`StoreError::Stale`] unless it is there in this version.
    async fn delete(&self, id: QnaId, version: Version) -> Result<(), StoreError>;
    /// Adds `by` to its comment count and keeps the row from changing until the unit ends. `false` where there is no
    /// such QnA. MUST NOT read the count first.
    async fn count_comments(&self, id: QnaId, by: i32) -> Result<bool, StoreError>;
}

/// Use cases on questions.
pub struct QnaService {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    cursors: Arc<CursorKey>,
    events: Arc<dyn Events>,
    desk: Desk,
    comments: CommentService,
}

impl QnaService {
    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        Self {
            store: ports.store.clone(),
            clock: ports.clock.clone(),
            cursors: ports.cursors.clone(),
            events: ports.events.clone(),
            desk: Desk::new(ports),
            comments: CommentService::new(ports),
        }
    }

    /// Asks a question; with a key, once.
    ///
    /// # Errors
    /// What the ownership table says, [`Error::KeyReused`], [`Error::KeyInUse`].
    pub async fn ask(&self, by: &Actor, draft: &QnaDraft, key: Option<&IdempotencyKey>) -> Result<Outcome<Qna>, Error> {
        let author = by.account_that_may(Act::Post)?.author();
        let QnaDraft { title, content } = draft.clone();
        let claimant = Claimant::account(author.id);
        let new = NewQna { author, title, content, created_at: self.clock.now() };
        once(&self.desk, claimant, key, new).await
    }

    /// # Errors
    /// [`Error::NotFound`].
    pub async fn read(&self, by: &Actor, id: QnaId) -> Result<Qna, Error> {
        by.must(Act::Read)?;
        self.store.reader().qnas().find(id).await?.ok_or(Error::NotFound(Kind::QNA))
    }

    /// A QnA and its first comments, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn read_with_comments(
        &self,
        by: &Actor,
        id: QnaId,
        size: PageSize,
    ) -> Result<(Qna, Page<Comment>), Error> {
        // Side by side: where there is no question there are no comments either.
        let request = PageRequest::first(size);
        let (qna, comments) = futures_util::future::join(self.read(by, id), self.comments.page(id, &request)).await;
        Ok((qna?, comments?))
    }

    /// # Errors
    /// [`Error::InvalidCursor`].
    pub async fn list(&self, by: &Actor, listing: &QnaListing, request: &PageRequest) -> Result<Page<Qna>, Error> {
        by.must(Act::Read)?;
        let name = listing.name();
        let slice = self.cursors.slice(&name, listing.order, request)?;
        let items = self.store.reader().qnas().list(listing.author, &slice).await?;
        Ok(self.cursors.page(&name, &slice, items, |qna| qna.id.get()))
    }

    /// One piece of a walk through all QnAs, and the next one; none at the end. For a face that streams them all: between
    /// two pieces no connection is held, and a client that leaves ends it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn piece(&self, by: &Actor, piece: Slice) -> Result<Option<(Vec<Qna>, Slice)>, Error> {
        by.must(Act::Read)?;
        let qnas = self.store.reader().qnas().list(None, &piece).await?;
        Ok(piece.and_next(qnas, |qna| qna.id.get()))
    }

    /// Changes a QnA. An edit that names no field changes nothing and counts no version.
    ///
    /// # Errors
    /// [`Error::NotFound`], then what the ownership table says, then [`Error::VersionMismatch`].
    pub async fn edit(&self, by: &Actor, id: QnaId, edit: &QnaEdit, expected: &Expected) -> Result<Qna, Error> {
        by.must_be_able_to_write()?;
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let mut qna = unit.qnas().find_locked(id).await?.ok_or(Error::NotFound(Kind::QNA))?;
            if edit.is_empty() {
                qna.must_be_changeable(by, expected)?;
                return Ok(qna);
            }
            qna.edit(by, expected, edit, self.clock.now())?;
            unit.qnas().update(&qna).await?;
            unit.commit().await?;
            self.events.record(Event::QnaEdited);
            Ok(qna)
        })
        .await
    }

    /// Deletes a QnA with its comments and their images. Of more than [`AT_ONCE`](Self::AT_ONCE) comments some go before it,
    /// and stay gone where it does not come to its end: whoever deletes it again goes on from there.
    ///
    /// # Errors
    /// As [`edit`](Self::edit).
    pub async fn delete(&self, by: &Actor, id: QnaId, expected: &Expected) -> Result<(), Error> {
        by.must_be_able_to_write()?;
        while self.delete_piece(by, id, expected).await? {}
        self.events.record(Event::QnaDeleted);
        Ok(())
    }

    /// How many comments go with their QnA in one statement, or before it in one unit: of the longest and with all the images
    /// that they may have, few enough for a statement's time limit, and others can write between two units.
    pub const AT_ONCE: i32 = 500;

    /// Deletes a QnA or, where it has too many comments, some of those; says whether it is still there. Each piece is decided anew:
    /// the right to it, and the version, may be another by then.
    async fn delete_piece(&self, by: &Actor, id: QnaId, expected: &Expected) -> Result<bool, Error> {
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let qna = unit.qnas().find_locked(id).await?.ok_or(Error::NotFound(Kind::QNA))?;
            qna.must_be_changeable(by, expected)?;
            let mut gone = 0;
            if qna.comment_count > Self::AT_ONCE {
                gone = unit.comments().delete_some_of(id, Self::AT_ONCE.unsigned_abs().into()).await?;
            }
            // None, where the count was wrong: then they are not too many.
            if gone == 0 {
                unit.qnas().delete(id, qna.version).await?;
            } else {
                unit.qnas().count_comments(id, -i32::try_from(gone).unwrap_or(i32::MAX)).await?;
            }
            unit.commit().await?;
            Ok(gone > 0)
        })
        .await
    }
}
