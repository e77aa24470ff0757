//! Letters: what the board writes to people by e-mail, and the single-use tokens that some of them carry.
//!
//! | part | knows |
//! | --- | --- |
//! | `letter` | letters, the outbox where they wait, and the mail server |
//! | `token` | the tokens that they carry |
//! | `postbox` | what use cases put into the outbox |
//! | `service` | what is done about letters and with tokens |
//!
//! No request sends a letter. The use case that causes one puts it into the outbox in its own unit of work, so that
//! there is a letter exactly where its cause was committed; [`MailService::deliver`] takes it from there afterwards, on
//! whichever node comes to it first. A letter is sent at least once: it leaves the outbox when the mail server has taken
//! it, and a node that dies in between leaves it to the others.
//!
//! Tokens are made when their letter is sent, not when it is asked for. So the outbox holds no secret, a token's time
//! does not run out while a mail server is away, and whether an address belongs to anybody is looked up where nobody
//! can measure it.

mod letter;
mod postbox;
mod service;
mod token;

pub use letter::{
    LEASE, Language, Letter, LetterId, Mailer, Message, NewLetter, OutboxRepository, QueuedLetter, SendError, Topic,
};
#[cfg(any(test, feature = "testing"))]
pub use letter::{MockMailer, MockOutboxRepository};
pub(crate) use postbox::Postbox;
pub use service::{Delivery, FIRST_WAIT, FORGETTING, Fate, LONGEST_WAIT, MailService, PERSISTENCE};
#[cfg(any(test, feature = "testing"))]
pub use token::MockMailTokenRepository;
pub use token::{MailToken, MailTokenRecord, MailTokenRepository, PasswordReset, Purpose, TOKEN_LIFETIME};
