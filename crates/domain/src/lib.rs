//! The board's rules: what a QnA, a comment and an account are, and who may do what to them.
//!
//! This page is the map. Each module is one concept, read top to bottom: its value objects, its entity with the
//! rules, its port (a trait that `mundap-infra` implements), its use cases; those of a large one are in a file of their own,
//! `service.rs`.
//!
//! | module | holds |
//! | --- | --- |
//! | [`actor`] | who is asking, and **the ownership table**: [`actor::Actor::must`] |
//! | [`qna`] | questions: [`Qna`], [`QnaService`] |
//! | [`comment`] | answers and discussion below a QnA |
//! | [`image`] | images on comments, and the blobs that hold their bytes |
//! | [`user`] | people: e-mail, display name, role, profile |
//! | [`admin`] | what administrators do to accounts |
//! | [`audit`] | the log of what they did |
//! | [`account`] | registering, signing in, tokens, the own account |
//! | [`sign_in`] | a signed-in device and its rotating refresh token |
//! | [`export`] | everything that is kept of a person, for that person |
//! | [`mail`] | letters, the outbox they wait in, and the single-use tokens that they carry |
//! | [`idempotency`] | doing something once, however often it is asked for |
//! | [`rate`] | rate limits: policies, quotas, buckets that all nodes share |
//! | [`housekeeping`] | what has to be done now and then |
//! | [`page`] | keyset pages and sealed cursors |
//! | [`text`] | what any text must be: NFC, counted in characters, no control characters |
//! | [`version`] | optimistic concurrency: an edit names the version it was made on |
//! | [`error`] | every way a use case can fail, each with a stable code |
//! | [`event`] | what happened, for whoever counts it |
//! | [`env`](mod@env) | time and randomness, injected |
//! | `id` | what every id is, as a macro |
//! | `testing` | feature `testing`: mocked repositories and fixtures |
//!
//! Nothing here does I/O or knows a wire format. A use case is a method of a service; it takes the [`Actor`] first (which
//! do not, and why, stands there) and reads: begin, load, decide, store, commit.

pub mod account;
pub mod actor;
pub mod admin;
pub mod audit;
pub mod comment;
pub mod env;
pub mod error;
pub mod event;
pub mod export;
pub mod housekeeping;
mod id;
pub mod idempotency;
pub mod image;
pub mod mail;
pub mod page;
pub mod qna;
pub mod rate;
pub mod sign_in;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod user;
pub mod version;

use std::sync::Arc;

use async_trait::async_trait;

use idempotency::{Claim, NotAdded};
use qna::{NewQna, Qna};

pub use account::AccountService;
pub use actor::Actor;
pub use admin::AdminService;
pub use audit::AuditRepository;
pub use comment::{CommentRepository, CommentService};
pub use error::{Error, StoreError};
pub use export::ExportService;
pub use housekeeping::Housekeeping;
pub use idempotency::ReceiptRepository;
pub use image::{ImageRepository, ImageService};
pub use mail::{MailService, MailTokenRepository, OutboxRepository};
pub use qna::{QnaRepository, QnaService};
pub use rate::{RateLimits, RateRepository};
pub use sign_in::SignInRepository;
pub use user::{UserRepository, UserService};

/// One accessor a repository. What stands behind them is either the pool (each call its own statement, see
/// [`Store::reader`]) or one open transaction (see [`Store::begin`]).
pub trait Repositories: Send + Sync {
    fn qnas(&self) -> &dyn QnaRepository;
    fn comments(&self) -> &dyn CommentRepository;
    fn images(&self) -> &dyn ImageRepository;
    fn users(&self) -> &dyn UserRepository;
    fn sign_ins(&self) -> &dyn SignInRepository;
    fn receipts(&self) -> &dyn ReceiptRepository;
    fn outbox(&self) -> &dyn OutboxRepository;
    fn mail_tokens(&self) -> &dyn MailTokenRepository;
    fn audit(&self) -> &dyn AuditRepository;
    fn rates(&self) -> &dyn RateRepository;
}

/// An open transaction.
///
/// While one is open a use case MUST use its repositories only, never [`Store::reader`], and MUST do nothing but
/// database work.
#[async_trait]
pub trait UnitOfWork: Repositories {
    /// Makes every write of this unit durable. Dropping the unit instead MUST roll it back.
    async fn commit(self: Box<Self>) -> Result<(), StoreError>;
}

/// The one transaction port: where repositories come from.
#[async_trait]
pub trait Store: Send + Sync {
    /// Autocommit access, for reads.
    fn reader(&self) -> &dyn Repositories;
    /// Opens a unit of work. Fails with [`StoreError::Contention`] or [`StoreError::Unavailable`] within the pool's
    /// acquire time limit.
    async fn begin(&self) -> Result<Box<dyn UnitOfWork>, StoreError>;
    /// Stores a new question and, where there is a claim, its receipt: both or neither, as a unit of its own would. Since it
    /// only adds rows, what comes at the same time MAY be stored together; whoever could be stored alone MUST then hear nothing
    /// but [`StoreError::Contention`] or [`StoreError::Unavailable`], as a unit that met another one. Dropping it before it ends MUST
    /// leave nothing, save where it is being committed.
    async fn add_qna(&self, qna: &NewQna, claim: Option<&Claim>) -> Result<Qna, NotAdded<StoreError>> {
        let unit = self.begin().await?;
        let stored = unit.qnas().insert(qna).await?;
        idempotency::commit(unit, claim, stored.id.get()).await?;
        Ok(stored)
    }
}

/// What the services stand on; the composition root fills it once.
#[derive(Clone)]
pub struct Ports {
    pub store: Arc<dyn Store>,
    pub events: Arc<dyn event::Events>,
    pub clock: Arc<dyn env::Clock>,
    pub entropy: Arc<dyn env::Entropy>,
    pub passwords: Arc<dyn account::PasswordHasher>,
    pub access_tokens: Arc<dyn account::AccessTokens>,
    pub cursors: Arc<page::CursorKey>,
    pub fingerprints: Arc<idempotency::FingerprintKey>,
    pub blobs: Arc<dyn image::BlobStore>,
    pub image_home: Arc<dyn image::ImageHome>,
    pub image_cleaner: Arc<dyn image::ImageCleaner>,
    /// How many bytes the images of one member may have together, see [`ImageRepository::quota_used`].
    pub image_quota: u64,
    /// `None`: this board sends no mail.
    pub mailer: Option<Arc<dyn mail::Mailer>>,
    /// `None` turns rate limits off.
    pub quotas: Option<rate::Quotas>,
}

/// Every use case there is. A face (REST, gRPC, the command line) holds one of these and nothing below it.
pub struct Services {
    pub qnas: QnaService,
    pub comments: CommentService,
    pub images: ImageService,
    pub users: UserService,
    pub accounts: AccountService,
    pub mail: MailService,
    pub admin: AdminService,
    pub export: ExportService,
    pub rates: Arc<RateLimits>,
    pub housekeeping: Housekeeping,
}

impl Services {
    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        let rates = Arc::new(RateLimits::new(ports));
        Self {
            qnas: QnaService::new(ports),
            comments: CommentService::new(ports),
            images: ImageService::new(ports),
            users: UserService::new(ports, rates.clone()),
            mail: MailService::new(ports, rates.clone()),
            accounts: AccountService::new(ports, rates.clone()),
            admin: AdminService::new(ports),
            export: ExportService::new(ports),
            rates,
            housekeeping: Housekeeping::new(ports),
        }
    }
}
