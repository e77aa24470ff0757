//! For unit tests of this crate and of whoever builds on it: mocked repositories behind a [`Store`], a clock that stands
//! still, and one fixture of everything.
//!
//! ```
//! use mundap_domain::testing::{Mocks, a_qna, a_user, board};
//! use mundap_domain::user::Role;
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let mut mocks = Mocks::default();
//! mocks.qnas.expect_find_locked().returning(|_| Ok(Some(a_qna(7, 1))));
//! let board = board(mocks);
//!
//! let stranger = a_user(2, Role::Member).into();
//! let refused = board.services.qnas.delete(&stranger, a_qna(7, 1).id, &mundap_domain::version::Expected::Any).await;
//! assert_eq!(refused.unwrap_err().code(), "not_author");
//! assert_eq!(board.store.commits(), 0);
//! # });
//! ```

#![expect(clippy::missing_panics_doc, reason = "fixtures are made of literals")]

use std::mem::take;
use std::ops::Deref;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{TimeDelta, TimeZone as _, Utc};

use crate::account::{MockAccessTokens, MockPasswordHasher};
use crate::audit::MockAuditRepository;
use crate::comment::{Comment, CommentContent, CommentId, CommentRecord, MockCommentRepository};
use crate::env::{Clock, Entropy, Timestamp};
use crate::error::{Kind, StoreError, Violations};
use crate::event::{Event, Events};
use crate::idempotency::{FingerprintKey, MockReceiptRepository};
use crate::image::{
    Digest, Image, ImageId, MediaType, MockBlobStore, MockImageCleaner, MockImageHome, MockImageRepository, Picture,
    Refusal,
};
use crate::mail::{Mailer, MockMailTokenRepository, MockMailer, MockOutboxRepository};
use crate::page::CursorKey;
use crate::qna::{Content, MockQnaRepository, Qna, QnaId, QnaRecord, Title};
use crate::rate::{Allowance, MockRateRepository, Policy, Quota};
use crate::sign_in::MockSignInRepository;
use crate::user::{Author, DisplayName, Email, MockUserRepository, Role, User, UserId, UserRecord};
use crate::version::Version;
use crate::{
    AuditRepository, CommentRepository, Error, ImageRepository, MailTokenRepository, OutboxRepository, Ports,
    QnaRepository, RateRepository, ReceiptRepository, Repositories, Services, SignInRepository, Store, UnitOfWork,
    UserRepository,
};

/// One mock a port. A call that no test expects fails that test.
#[derive(Default)]
pub struct Mocks {
    pub qnas: MockQnaRepository,
    pub comments: MockCommentRepository,
    pub images: MockImageRepository,
    pub users: MockUserRepository,
    pub sign_ins: MockSignInRepository,
    pub receipts: MockReceiptRepository,
    pub audit: MockAuditRepository,
    pub outbox: MockOutboxRepository,
    pub mail_tokens: MockMailTokenRepository,
    pub rates: MockRateRepository,
    pub passwords: MockPasswordHasher,
    pub access_tokens: MockAccessTokens,
    pub blobs: MockBlobStore,
    pub image_home: MockImageHome,
    pub image_cleaner: MockImageCleaner,
    /// `None`, as by default: the board sends no mail.
    pub mailer: Option<MockMailer>,
}

impl Mocks {
    /// Takes out of these what is no repository, as the ports of a board whose store is to be put in by whoever has one.
    pub fn take_others(&mut self) -> Ports {
        Ports {
            passwords: Arc::new(take(&mut self.passwords)),
            access_tokens: Arc::new(take(&mut self.access_tokens)),
            blobs: Arc::new(take(&mut self.blobs)),
            image_home: Arc::new(take(&mut self.image_home)),
            image_cleaner: Arc::new(take(&mut self.image_cleaner)),
            mailer: self.mailer.take().map(|mailer| Arc::new(mailer) as Arc<dyn Mailer>),
            ..ports(Arc::new(MockStore::default()))
        }
    }
}

/// What holds mocks, a reader or a unit, is what they are.
impl<U: Deref<Target = Mocks> + Send + Sync> Repositories for U {
    fn qnas(&self) -> &dyn QnaRepository {
        &self.qnas
    }
    fn comments(&self) -> &dyn CommentRepository {
        &self.comments
    }
    fn images(&self) -> &dyn ImageRepository {
        &self.images
    }
    fn users(&self) -> &dyn UserRepository {
        &self.users
    }
    fn sign_ins(&self) -> &dyn SignInRepository {
        &self.sign_ins
    }
    fn receipts(&self) -> &dyn ReceiptRepository {
        &self.receipts
    }
    fn outbox(&self) -> &dyn OutboxRepository {
        &self.outbox
    }
    fn mail_tokens(&self) -> &dyn MailTokenRepository {
        &self.mail_tokens
    }
    fn audit(&self) -> &dyn AuditRepository {
        &self.audit
    }
    fn rates(&self) -> &dyn RateRepository {
        &self.rates
    }
}

/// The repositories of [`Mocks`], both as reader and as every unit of work. Counts what is committed.
#[derive(Default)]
pub struct MockStore {
    mocks: Arc<Mocks>,
    begun: AtomicUsize,
    commits: Arc<AtomicUsize>,
}

impl MockStore {
    /// How many units were opened.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// How many units were committed.
    #[must_use]
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for MockStore {
    fn reader(&self) -> &dyn Repositories {
        &self.mocks
    }

    async fn begin(&self) -> Result<Box<dyn UnitOfWork>, StoreError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(MockUnit { mocks: self.mocks.clone(), commits: self.commits.clone() }))
    }
}

struct MockUnit {
    mocks: Arc<Mocks>,
    commits: Arc<AtomicUsize>,
}

impl Deref for MockUnit {
    type Target = Mocks;

    fn deref(&self) -> &Mocks {
        &self.mocks
    }
}

#[async_trait]
impl UnitOfWork for MockUnit {
    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Stands still at [`noon`]; pauses take no time and are counted.
#[derive(Default)]
pub struct FixedClock {
    pauses: AtomicU32,
}

impl FixedClock {
    #[must_use]
    pub fn pauses(&self) -> u32 {
        self.pauses.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        noon()
    }

    async fn pause_before(&self, _attempt: u32) {
        self.pauses.fetch_add(1, Ordering::SeqCst);
    }
}

/// Remembers what it was told.
#[derive(Default)]
pub struct Heard(Mutex<Vec<Event>>);

impl Heard {
    /// What happened, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Events for Heard {
    fn record(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

/// Secrets that count up: 32 bytes of 1, then of 2, …
#[derive(Default)]
pub struct CountingEntropy(AtomicU8);

impl Entropy for CountingEntropy {
    fn secret(&self) -> [u8; 32] {
        [self.0.fetch_add(1, Ordering::SeqCst) + 1; 32]
    }
}

/// The services over mocks, and what a test may ask afterwards.
pub struct Board {
    pub services: Services,
    pub store: Arc<MockStore>,
    pub clock: Arc<FixedClock>,
    pub events: Arc<Heard>,
}

/// Wires the services over `mocks`.
#[must_use]
pub fn board(mut mocks: Mocks) -> Board {
    let clock = Arc::new(FixedClock::default());
    let events = Arc::new(Heard::default());
    let others = mocks.take_others();
    let store = Arc::new(MockStore { mocks: Arc::new(mocks), ..MockStore::default() });
    let ports = Ports { store: store.clone(), events: events.clone(), clock: clock.clone(), ..others };
    Board { services: Services::new(&ports), store, clock, events }
}

/// What a board over this store stands on, for a test to put its own in the place of what it looks at. The mocks among it
/// expect nothing; it sends no mail and has no rate limits.
#[must_use]
pub fn ports(store: Arc<dyn Store>) -> Ports {
    Ports {
        store,
        events: Arc::new(Heard::default()),
        clock: Arc::new(FixedClock::default()),
        entropy: Arc::new(CountingEntropy::default()),
        passwords: Arc::new(MockPasswordHasher::default()),
        access_tokens: Arc::new(MockAccessTokens::default()),
        cursors: Arc::new(CursorKey::new(&[7; 32])),
        fingerprints: Arc::new(FingerprintKey::new(&[8; 32])),
        blobs: Arc::new(MockBlobStore::default()),
        image_home: Arc::new(MockImageHome::default()),
        image_cleaner: Arc::new(MockImageCleaner::default()),
        image_quota: QUOTA,
        mailer: None,
        quotas: None,
    }
}

/// The quota of images: 100,000 bytes.
pub const QUOTA: u64 = 100_000;

/// 2026-01-02 12:00:00 UTC.
#[must_use]
pub fn noon() -> Timestamp {
    Timestamp::new(Utc.with_ymd_and_hms(2026, 1, 2, 12, 0, 0).single().expect("a real instant"))
}

/// An account: `user7@example.com`, "user 7".
#[must_use]
pub fn a_user(id: i64, role: Role) -> User {
    User::restore(UserRecord {
        id: UserId::new(id),
        email: Email::parse(&format!("user{id}@example.com")).expect("an address"),
        display_name: DisplayName::parse(&format!("user {id}")).expect("a name"),
        role,
        email_verified_at: None,
        suspended_at: None,
        created_at: noon(),
        updated_at: noon(),
        version: Version::FIRST,
    })
}

/// The same account, suspended.
#[must_use]
pub fn suspended(user: &User) -> User {
    User::restore(UserRecord { suspended_at: Some(noon()), ..(**user).clone() })
}

/// How [`a_user`] is shown beside what they wrote.
#[must_use]
pub fn an_author(id: i64) -> Author {
    a_user(id, Role::Member).author()
}

/// A QnA in its first version, by [`a_user`] `author`.
#[must_use]
pub fn a_qna(id: i64, author: i64) -> Qna {
    Qna::restore(QnaRecord {
        id: QnaId::new(id),
        author: an_author(author),
        title: Title::parse("How do I start?").expect("a title"),
        content: Content::parse("I have read the README.").expect("a text"),
        comment_count: 0,
        created_at: noon(),
        updated_at: noon(),
        version: Version::FIRST,
    })
}

/// A comment in its first version below QnA `qna`, by [`a_user`] `author`.
#[must_use]
pub fn a_comment(id: i64, qna: i64, author: i64) -> Comment {
    Comment::restore(CommentRecord {
        id: CommentId::new(id),
        qna: QnaId::new(qna),
        author: an_author(author),
        content: CommentContent::parse("Read it again.").expect("a text"),
        created_at: noon(),
        updated_at: noon(),
        version: Version::FIRST,
        images: Vec::new(),
    })
}

/// What a cleaner may make of an upload: a PNG of 640 by 480 pixels.
#[must_use]
pub fn a_picture() -> Picture {
    Picture { media_type: MediaType::Png, width: 640, height: 480, content: Arc::new(b"a picture".to_vec()) }
}

/// A PNG of 640 by 480 pixels and 1000 bytes on comment `comment`, which [`a_user`] `owner` wrote.
#[must_use]
pub fn an_image(id: i64, comment: i64, owner: i64) -> Image {
    Image {
        id: ImageId::new(id),
        comment: CommentId::new(comment),
        owner: UserId::new(owner),
        media_type: MediaType::Png,
        bytes: 1000,
        width: 640,
        height: 480,
        digest: Digest::of(b"an image"),
        created_at: noon(),
    }
}

/// One error of each code, in the order of [`Error::CODES`], and of each [`Kind`]; where a cause is kept, this one.
#[must_use]
pub fn every_error(cause: &str) -> Vec<Error> {
    let quota = Quota::new(60, TimeDelta::minutes(1)).expect("a quota");
    let allowance = Allowance { policy: Policy::Writes, quota, left: 0, more_in: TimeDelta::seconds(37) };
    vec![
        Error::Invalid(Violations::default()),
        Error::Unauthenticated,
        Error::InvalidToken,
        Error::InvalidCredentials,
        Error::InvalidRefreshToken,
        Error::InvalidMailToken,
        Error::Suspended,
        Error::NotAuthor,
        Error::NotAdmin,
        Error::OwnAccount,
        Error::NotFound(Kind::QNA),
        Error::NotFound(Kind::COMMENT),
        Error::NotFound(Kind::IMAGE),
        Error::NotFound(Kind::USER),
        Error::EmailTaken,
        Error::KeyReused,
        Error::KeyInUse,
        Error::VersionMismatch,
        Error::InvalidCursor,
        Error::Image(Refusal::NotAnImage),
        Error::Image(Refusal::Animated),
        Error::Image(Refusal::Broken),
        Error::Image(Refusal::TooLarge),
        Error::Image(Refusal::TooManyPixels),
        Error::Image(Refusal::CommentFull),
        Error::Image(Refusal::QuotaExceeded),
        Error::RateLimited(allowance),
        Error::Busy(cause.into()),
        Error::Unavailable(cause.into()),
        Error::StorageUnavailable(cause.into()),
        Error::Internal(cause.into()),
    ]
}
