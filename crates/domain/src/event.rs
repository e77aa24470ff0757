//! What happened on the board, for whoever counts it: each face's requests alike.

use crate::rate::Policy;

/// Declares the events once, so that none is missing where all are counted or named.
macro_rules! events {
    ($($(#[$doc:meta])* $event:ident = $name:literal,)+) => {
        /// Something that happened. It names nobody and holds nothing that was written.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $event,)+
            /// Somebody asked for more than this limit allows.
            RateLimited(Policy),
        }

        impl Event {
            /// Every event there is, once.
            pub fn all() -> impl Iterator<Item = Self> {
                [$(Self::$event),+].into_iter().chain(Policy::ALL.map(Self::RateLimited))
            }

            /// Never changes: dashboards and alerts name it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$event => $name,)+
                    Self::RateLimited(_) => "rate_limited",
                }
            }
        }
    };
}

events! {
    Asked = "asked",
    QnaEdited = "qna_edited",
    QnaDeleted = "qna_deleted",
    Commented = "commented",
    CommentEdited = "comment_edited",
    CommentDeleted = "comment_deleted",
    ImageAttached = "image_attached",
    ImageDeleted = "image_deleted",
    /// By whomever: a stranger, an operator, a trusted proxy.
    Registered = "registered",
    SignedIn = "signed_in",
    /// The e-mail or the password was wrong.
    SignInRefused = "sign_in_refused",
    /// A sign-in got a new pair of tokens.
    Renewed = "renewed",
    /// A refresh token was used again, was too old or unknown.
    RenewalRefused = "renewal_refused",
    PasswordChanged = "password_changed",
    /// By its owner.
    AccountDeleted = "account_deleted",
    /// A request came again with its key, and was answered as the first time.
    Replayed = "replayed",
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
