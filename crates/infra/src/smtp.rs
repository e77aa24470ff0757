//! Letters by SMTP.

use std::time::Duration;

use async_trait::async_trait;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use mundap_domain::mail::{LEASE, Letter, Mailer, SendError};
use url::Url;

use crate::letter;

/// How long the mail server may take over each of its answers.
const ANSWER: Duration = Duration::from_secs(10);

/// Why a mail server cannot be used as it is named.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// The URL itself may hold a password, so it is not repeated.
    #[error("must be such as smtp://USER:PASSWORD@HOST:587?tls=required or smtps://USER:PASSWORD@HOST")]
    Url,
    #[error("must be an address such as board@example.com or Mundap <board@example.com>")]
    From,
}

/// One mail server, asked anew for each letter: there are few, and a connection that was kept may be gone.
pub struct SmtpMailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    /// Without a slash at its end.
    public_url: String,
    exposed: bool,
}

impl SmtpMailer {
    /// `url` is `smtp://` (in the clear; with `?tls=required` or `?tls=opportunistic` by STARTTLS) or `smtps://` (TLS from
    /// the first byte). Certificates are checked against the Mozilla roots. Nothing is connected to yet.
    ///
    /// # Errors
    /// [`SmtpError`].
    pub fn new(url: &str, from: &str, public_url: &str) -> Result<Self, SmtpError> {
        let from: Mailbox = from.parse().map_err(|_| SmtpError::From)?;
        let parsed = Url::parse(url).map_err(|_| SmtpError::Url)?;
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err(SmtpError::Url);
        }
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).map_err(|_| SmtpError::Url)?;
        // What most servers check is that the name is one, and this is the one that the board is known by.
        let host = Url::parse(public_url).ok().and_then(|url| url.domain().map(str::to_owned));
        if let Some(host) = host {
            builder = builder.hello_name(ClientId::Domain(host));
        }
        let exposed = parsed.scheme() == "smtp"
            && parsed.password().is_some()
            && !parsed.query_pairs().any(|(name, _)| name == "tls")
            && !matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let transport = builder.timeout(Some(ANSWER)).build();
        Ok(Self { transport, from, public_url: public_url.to_owned(), exposed })
    }

    /// Whether the server's password goes over a network unencrypted.
    #[must_use]
    pub const fn exposes_password(&self) -> bool {
        self.exposed
    }

    /// Connects and signs in, and sends nothing.
    ///
    /// # Errors
    /// Why it would take no letter.
    pub async fn try_out(&self) -> Result<(), SendError> {
        match tokio::time::timeout(limit(), self.transport.test_connection()).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(postponed("the mail server answers, and not as one does".to_owned())),
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => Err(too_slow()),
        }
    }

    fn message(&self, letter: &Letter) -> Option<Message> {
        let text = letter::write(letter, &self.public_url);
        let to: Address = letter.to.as_str().parse().ok()?;
        // The same at each try, so that a server which got it twice may know it.
        let id = format!("<{}.{}@{}>", letter.id, letter.created_at.unix_micros(), self.from.email.domain());
        let header = |name, value: &str| HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned());
        let message = Message::builder()
            .from(self.from.clone())
            // The bare address: a name could be whatever somebody chose to be called.
            .to(Mailbox::new(None, to))
            .subject(text.subject)
            .date(letter.created_at.as_utc().into())
            .message_id(Some(id))
            // RFC 3834: no holiday notice should answer.
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("Content-Language", letter.language.tag()))
            .multipart(MultiPart::alternative_plain_html(text.plain, text.html));
        message.ok()
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, letter: &Letter) -> Result<(), SendError> {
        let Some(message) = self.message(letter) else {
            return Err(SendError { is_final: true, reason: "no letter can go to such an address".to_owned() });
        };
        match tokio::time::timeout(limit(), self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => Err(too_slow()),
        }
    }
}

/// A quarter of a letter's lease, as the port asks.
fn limit() -> Duration {
    LEASE.to_std().unwrap_or_default() / 4
}

fn too_slow() -> SendError {
    postponed("the mail server took too long".to_owned())
}

fn postponed(reason: String) -> SendError {
    SendError { is_final: false, reason }
}

/// The server's own words are left out: they may repeat the address.
fn failure(error: &lettre::transport::smtp::Error) -> SendError {
    if let Some(code) = error.status() {
        // No such mailbox (RFC 5321, 4.2.3). Any other refusal is about us, our letter or the hour: a password that was
        // typed wrong, a full disk. That can be mended, and the letter waits for it.
        let is_final = matches!(u16::from(code), 550 | 551 | 553);
        return SendError { is_final, reason: format!("the mail server answered {code}") };
    }
    if error.is_timeout() {
        return too_slow();
    }
    if error.is_client() {
        return postponed("the letter needs what the mail server cannot do".to_owned());
    }
    if error.is_response() {
        return postponed("the mail server's answer makes no sense".to_owned());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    postponed(format!("no connection to the mail server: {cause}"))
}
