//! What happened on the board, for whoever counts it: each face's requests alike.

use crate::rate::Policy;

/// Something that happened. It names nobody and holds nothing that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Asked,
    QnaEdited,
    QnaDeleted,
    Commented,
    CommentEdited,
    CommentDeleted,
    ImageAttached,
    ImageDeleted,
    /// By whomever: a stranger, an operator, a trusted proxy.
    Registered,
    SignedIn,
    /// The e-mail or the password was wrong.
    SignInRefused,
    /// A sign-in got a new pair of tokens.
    Renewed,
    /// A refresh token was used again, was too old or unknown.
    RenewalRefused,
    PasswordChanged,
    /// By its owner.
    AccountDeleted,
    /// A request came again with its key, and was answered as the first time.
    Replayed,
    /// Somebody asked for more than this limit allows.
    RateLimited(Policy),
}

impl Event {
    /// Every event there is, once.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Asked,
            Self::QnaEdited,
            Self::QnaDeleted,
            Self::Commented,
            Self::CommentEdited,
            Self::CommentDeleted,
            Self::ImageAttached,
            Self::ImageDeleted,
            Self::Registered,
            Self::SignedIn,
            Self::SignInRefused,
            Self::Renewed,
            Self::RenewalRefused,
            Self::PasswordChanged,
            Self::AccountDeleted,
            Self::Replayed,
        ]
        .into_iter()
        .chain(Policy::ALL.map(Self::RateLimited))
    }

    /// Never changes: dashboards and alerts name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::QnaEdited => "qna_edited",
            Self::QnaDeleted => "qna_deleted",
            Self::Commented => "commented",
            Self::CommentEdited => "comment_edited",
            Self::CommentDeleted => "comment_deleted",
            Self::ImageAttached => "image_attached",
            Self::ImageDeleted => "image_deleted",
            Self::Registered => "registered",
            Self::SignedIn => "signed_in",
            Self::SignInRefused => "sign_in_refused",
            Self::Renewed => "renewed",
            Self::RenewalRefused => "renewal_refused",
            Self::PasswordChanged => "password_changed",
            Self::AccountDeleted => "account_deleted",
            Self::Replayed => "replayed",
            Self::RateLimited(_) => "rate_limited",
        }
    }
}

/// Who is told of what happened. A use case tells once a thing is committed, and of each thing once.
pub trait Events: Send + Sync {
    /// MUST be quick, and MUST NOT fail.
    fn record(&self, event: Event);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unheard;

impl Events for Unheard {
    fn record(&self, _: Event) {}
}
