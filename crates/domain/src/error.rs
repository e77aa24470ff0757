//! Every way a use case can fail.
//!
//! Three types and two conversions: a driver's error becomes a [`StoreError`] in `mundap-infra`, a [`StoreError`]
//! becomes an [`Error`] here or in the use case that can name it, and each face turns an [`Error`] into its own shape
//! in one exhaustive `match`. The cause travels along as `source()`: it is logged once at the edge and never shown.

use std::fmt;

use crate::image::Refusal;
use crate::rate::Allowance;

/// The opaque cause of a failure, for the log alone.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What a use case answers when it refuses or fails. [`code`](Self::code) is part of the public contract.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input breaks rules; all of them are listed.
    #[error("the input breaks rules: {0}")]
    Invalid(Violations),
    /// Nobody is signed in and the use case needs somebody.
    #[error("this needs a signed-in account")]
    Unauthenticated,
    /// The access token is malformed, expired, signed by somebody else, or its account or password changed.
    #[error("the access token is not valid")]
    InvalidToken,
    /// Unknown e-mail or wrong password; deliberately one error for both.
    #[error("e-mail and password do not match an account")]
    InvalidCredentials,
    /// The refresh token is unknown, expired, or was used before.
    #[error("the refresh token is not valid")]
    InvalidRefreshToken,
    /// The mailed token is unknown, expired, used, replaced by a newer one, or went to an address that the account no
    /// longer has.
    #[error("the mailed token is not valid")]
    InvalidMailToken,
    /// The account is suspended and may only read, or read and delete itself.
    #[error("the account is suspended")]
    Suspended,
    /// The thing belongs to somebody else, and the caller is no moderator.
    #[error("only its author may change this")]
    NotAuthor,
    /// Administrators only.
    #[error("only an administrator may do this")]
    NotAdmin,
    /// Administrators do not change their own role or suspend themselves.
    #[error("only another administrator may do this to an administrator")]
    OwnAccount,
    /// There is no such thing, or there no longer is.
    #[error("{0} not found")]
    NotFound(Kind),
    /// Another account has this e-mail, in this or another spelling.
    #[error("another account has this e-mail")]
    EmailTaken,
    /// The idempotency key came with something else before.
    #[error("the idempotency key was used for something else")]
    KeyReused,
    /// The first request with this idempotency key is still running.
    #[error("the first request with this idempotency key is still running")]
    KeyInUse,
    /// The caller named a version that is no longer the current one.
    #[error("the version named is no longer the current one")]
    VersionMismatch,
    /// The cursor was not made by this board for this list.
    #[error("the cursor was not made for this list")]
    InvalidCursor,
    /// An image is refused.
    #[error("{0}")]
    Image(Refusal),
    /// The caller did this too often; the allowance says which limit it was, and when there is room again.
    #[error("too many requests: the limit is \"{}\"", .0.policy.name())]
    RateLimited(Allowance),
    /// Others are changing the same rows, or a bounded lane is full; the same call may succeed in a moment.
    #[error("too much is going on at once")]
    Busy(#[source] Cause),
    /// The database cannot be reached.
    #[error("the database is unavailable")]
    Unavailable(#[source] Cause),
    /// The store of images cannot be reached, or is full.
    #[error("the image store is unavailable")]
    StorageUnavailable(#[source] Cause),
    /// A fault of ours.
    #[error("internal error")]
    Internal(#[source] Cause),
}

impl Error {
    /// Every code a client can meet, in the order of `docs/errors.md`, save those of [`Kind`]s, which stand with their
    /// entities.
    pub const CODES: [&'static str; 27] = [
        "validation_failed",
        "unauthenticated",
        "invalid_token",
        "invalid_credentials",
        "invalid_refresh_token",
        "invalid_mail_token",
        "account_suspended",
        "not_author",
        "not_admin",
        "own_account",
        "email_taken",
        "idempotency_key_reused",
        "idempotency_key_in_use",
        "version_mismatch",
        "invalid_cursor",
        "not_an_image",
        "image_animated",
        "image_broken",
        "image_too_large",
        "image_too_many_pixels",
        "too_many_images",
        "image_quota_exceeded",
        "rate_limited",
        "busy",
        "database_unavailable",
        "storage_unavailable",
        "internal_error",
    ];

    /// The stable machine-readable name of this error. Never changes once released.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "validation_failed",
            Self::Unauthenticated => "unauthenticated",
            Self::InvalidToken => "invalid_token",
            Self::InvalidCredentials => "invalid_credentials",
            Self::InvalidRefreshToken => "invalid_refresh_token",
            Self::InvalidMailToken => "invalid_mail_token",
            Self::Suspended => "account_suspended",
            Self::NotAuthor => "not_author",
            Self::NotAdmin => "not_admin",
            Self::OwnAccount => "own_account",
            Self::NotFound(kind) => kind.code,
            Self::EmailTaken => "email_taken",
            Self::KeyReused => "idempotency_key_reused",
            Self::KeyInUse => "idempotency_key_in_use",
            Self::VersionMismatch => "version_mismatch",
            Self::InvalidCursor => "invalid_cursor",
            Self::Image(refusal) => refusal.code(),
            Self::RateLimited(_) => "rate_limited",
            Self::Busy(_) => "busy",
            Self::Unavailable(_) => "database_unavailable",
            Self::StorageUnavailable(_) => "storage_unavailable",
            Self::Internal(_) => "internal_error",
        }
    }

    /// A fault of ours, with its cause for the log.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::Internal(cause.into())
    }
}

/// What was looked for and not found. An entity's file declares its own, as `impl Kind { pub const QNA: … }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    name: &'static str,
    code: &'static str,
}

impl Kind {
    /// `name` goes into messages; `code` is the error's, such as `qna_not_found`, and never changes once released.
    #[must_use]
    pub const fn new(name: &'static str, code: &'static str) -> Self {
        Self { name, code }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a port reports. `mundap-infra` makes these from driver errors; contract tests hold it to that.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique key already holds this value.
    #[error("a unique key already holds this value")]
    Duplicate(#[source] Cause),
    /// A foreign key names a row that is not there.
    #[error("a row refers to one that is not there")]
    MissingReference(#[source] Cause),
    /// The row is not there in the version that the write names.
    #[error("the row is no longer there in this version")]
    Stale,
    /// Deadlock, lock time limit or a busy database: nothing was written, the whole unit may be tried again.
    #[error("the unit of work met another one")]
    Contention(#[source] Cause),
    /// No connection, or it broke. Whether a commit under way took place is unknown.
    #[error("no connection to the database")]
    Unavailable(#[source] Cause),
    /// A stored row breaks the domain's rules.
    #[error("row {id} of {table} breaks a rule: {reason}")]
    Corrupt { table: &'static str, id: i64, reason: String },
    /// Anything else.
    #[error("the database refused")]
    Backend(#[source] Cause),
}

/// Why a [`StoreError::Unavailable`] is nothing new: it was found before that the database does not answer, and logged then.
#[derive(Debug, thiserror::Error)]
#[error("the database has not answered lately")]
pub struct KnownAway;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Image(refusal)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            // A stale write inside a unit means that another one came between: trying the whole unit again settles it.
            StoreError::Contention(_) | StoreError::Stale => Self::Busy(error.into()),
            StoreError::Unavailable(_) => Self::Unavailable(error.into()),
            // Where a use case expects one of the first two it names them before this conversion.
            StoreError::Duplicate(_)
            | StoreError::MissingReference(_)
            | StoreError::Corrupt { .. }
            | StoreError::Backend(_) => Self::Internal(error.into()),
        }
    }
}

/// One rule that one field of the input breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's name on the wire, such as `title`.
    pub field: String,
    pub rule: Broken,
}

/// The rule that is broken, with the limit that a message needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Required,
    UnknownField {
        /// The field that it may be meant to be.
        nearest: Option<&'static str>,
    },
    NotAString,
    NotAnInteger,
    NotABoolean,
    TooShort {
        min: usize,
    },
    TooLong {
        max: usize,
    },
    OutOfRange {
        min: i64,
        max: i64,
    },
    Blank,
    ControlCharacter,
    NotAnEmail,
    /// Only visible ASCII characters may be in it.
    NotVisibleAscii,
    NotAnEntityTag,
    NotOneOf {
        allowed: &'static [&'static str],
    },
}

impl Broken {
    /// Every violation code, in the order of `docs/errors.md`.
    pub const CODES: [&'static str; 14] = [
        "required",
        "unknown_field",
        "not_a_string",
        "not_an_integer",
        "not_a_boolean",
        "too_short",
        "too_long",
        "out_of_range",
        "blank",
        "control_character",
        "not_an_email",
        "not_visible_ascii",
        "not_an_entity_tag",
        "not_one_of",
    ];

    /// The stable machine-readable name of the rule.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::UnknownField { .. } => "unknown_field",
            Self::NotAString => "not_a_string",
            Self::NotAnInteger => "not_an_integer",
            Self::NotABoolean => "not_a_boolean",
            Self::TooShort { .. } => "too_short",
            Self::TooLong { .. } => "too_long",
            Self::OutOfRange { .. } => "out_of_range",
            Self::Blank => "blank",
            Self::ControlCharacter => "control_character",
            Self::NotAnEmail => "not_an_email",
            Self::NotVisibleAscii => "not_visible_ascii",
            Self::NotAnEntityTag => "not_an_entity_tag",
            Self::NotOneOf { .. } => "not_one_of",
        }
    }
}

/// All rules that one input breaks: a draft collects them so that a client learns of every bad field at once.
///
/// ```
/// use mundap_domain::error::Violations;
/// use mundap_domain::qna::Title;
///
/// let mut violations = Violations::default();
/// let title = violations.check("title", Some(""), Title::parse);
/// assert!(title.is_none());
/// assert_eq!(violations.iter().next().unwrap().rule.code(), "too_short");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    pub fn add(&mut self, field: impl Into<String>, rule: Broken) {
        self.0.push(Violation { field: field.into(), rule });
    }

    /// Parses one required field and keeps what it breaks; `None` is an absent field.
    pub fn check<T>(
        &mut self,
        field: &str,
        raw: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, Vec<Broken>>,
    ) -> Option<T> {
        let Some(raw) = raw else {
            self.add(field, Broken::Required);
            return None;
        };
        parse(raw).map_err(|rules| rules.into_iter().for_each(|rule| self.add(field, rule))).ok()
    }

    /// Parses one field that may be absent: the outer `Option` is `None` only when a rule is broken.
    pub fn check_if_present<T>(
        &mut self,
        field: &str,
        raw: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, Vec<Broken>>,
    ) -> Option<Option<T>> {
        match raw {
            None => Some(None),
            Some(raw) => self.check(field, Some(raw), parse).map(Some),
        }
    }

    /// The finished draft, or everything that was wrong with it.
    pub fn finish<T>(self, draft: Option<T>) -> Result<T, Self> {
        match draft {
            Some(draft) if self.0.is_empty() => Ok(draft),
            _ => Err(self),
        }
    }

    /// The same, of fields that are below another one on the wire: `title` below `qna` is `qna.title`.
    #[must_use]
    pub fn below(self, parent: &str) -> Self {
        let field = |violation: Violation| Violation { field: format!("{parent}.{}", violation.field), ..violation };
        Self(self.0.into_iter().map(field).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.0.iter()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what `others` say about fields that have no violation here yet.
    pub fn merge(&mut self, others: Self) {
        let known: Vec<String> = self.0.iter().map(|violation| violation.field.clone()).collect();
        self.0.extend(others.0.into_iter().filter(|violation| !known.contains(&violation.field)));
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{} {}", violation.field, violation.rule.code())?;
        }
        Ok(())
    }
}

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}
