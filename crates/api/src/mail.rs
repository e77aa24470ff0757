//! Mail, as the program around the use cases sees it: the server that the settings name, the language of a letter, and
//! the task that sends what is due.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::ACCEPT_LANGUAGE;
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::future::{join, join_all};
use mundap_domain::Error;
use mundap_domain::mail::{Delivery, Fate, Language};
use mundap_infra::{SmtpError, SmtpMailer};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use crate::app::Board;
use crate::headers::Headers as _;
use crate::problem::Problem;
use crate::settings::{Settings, SettingsError};
use crate::words;

/// The language that a letter caused by this request is written in.
#[derive(Clone, Copy, Debug)]
pub struct LetterLanguage(pub Language);

impl FromRequest for LetterLanguage {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(words::asked_for(req.headers().texts(ACCEPT_LANGUAGE.as_str()).flatten()))))
    }
}

/// The mail server that the settings name, for a board at `public_url`.
///
/// # Errors
/// What of the settings cannot be used.
pub fn mailer(settings: &Settings, public_url: &str) -> Result<Option<Arc<SmtpMailer>>, SettingsError> {
    let Some(url) = settings.smtp()? else { return Ok(None) };
    let from = settings.mail_from.as_deref().ok_or_else(|| SettingsError::Value {
        name: "MUNDAP_MAIL_FROM",
        reason: "must name the sender of mail, since MUNDAP_SMTP_URL names a mail server".to_owned(),
    })?;
    let mailer = SmtpMailer::new(&url, from, public_url).map_err(|error| {
        let name = match error {
            SmtpError::Url => "MUNDAP_SMTP_URL",
            SmtpError::From => "MUNDAP_MAIL_FROM",
        };
        SettingsError::Value { name, reason: error.to_string() }
    })?;
    Ok(Some(Arc::new(mailer)))
}

/// How many letters one node sends at a time: one that a mail server is slow to take keeps no other from going.
const LANES: u32 = 4;
/// How often each lane looks into the outbox; they take turns. Other nodes put letters in too, so nothing else would say
/// that there are some.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the letters that wait are counted.
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// Sends what is due until told to stop; a letter that is being sent then is sent to its end.
pub async fn deliver(board: web::Data<Board>, stop: watch::Receiver<bool>) {
    let trouble = Trouble::default();
    let mut told = stop.clone();
    let counting = async {
        tokio::select! {
            () = count(&board) => {}
            _ = told.wait_for(|stop| *stop) => {}
        }
    };
    join(counting, join_all((0..LANES).map(|n| lane(&board, LOOK_EVERY * n / LANES, &trouble, stop.clone())))).await;
}

async fn count(board: &Board) {
    let mut ticks = interval(COUNT_EVERY);
    loop {
        ticks.tick().await;
        if let Ok(waiting) = board.services.mail.waiting().await {
            metrics::gauge!("mundap_letters_waiting").set(u32::try_from(waiting).unwrap_or(u32::MAX));
        }
    }
}

async fn lane(board: &Board, turn: Duration, trouble: &Trouble, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval_at(Instant::now() + turn, LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.changed() => return,
        }
        while one(board, trouble).await && !*stop.borrow() {}
    }
}

/// Whether there was a letter, so that there may be another.
async fn one(board: &Board, trouble: &Trouble) -> bool {
    match board.services.mail.deliver().await {
        Ok(None) => {
            trouble.outbox();
            false
        }
        Ok(Some(delivery)) => {
            trouble.outbox();
            trouble.tell(&delivery);
            true
        }
        Err(error) => {
            trouble.no_outbox(&error);
            false
        }
    }
}

/// What failed last, so that an outage is two lines in the log and not some a second.
#[derive(Default)]
struct Trouble {
    server: AtomicBool,
    outbox: AtomicBool,
}

impl Trouble {
    /// Requests say it louder, and the next look tries again.
    fn no_outbox(&self, error: &Error) {
        if !self.outbox.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the outbox cannot be looked into, and letters wait: {error}");
        }
    }

    fn outbox(&self) {
        if self.outbox.swap(false, Ordering::Relaxed) {
            tracing::info!("the outbox can be looked into again");
        }
    }

    fn tell(&self, delivery: &Delivery) {
        let Delivery { letter, topic, attempts, fate } = delivery;
        let topic = topic.name();
        let outcome = match fate {
            Fate::Sent => {
                if self.server.swap(false, Ordering::Relaxed) {
                    tracing::info!("the mail server takes letters again");
                }
                tracing::info!(letter.id = %letter, letter.topic = topic, attempts, "letter {letter} ({topic}) was sent");
                "sent"
            }
            Fate::Dropped => {
                tracing::debug!(letter.id = %letter, letter.topic = topic, "letter {letter} ({topic}) is for nobody");
                "dropped"
            }
            Fate::Postponed { until, reason } => {
                if !self.server.swap(true, Ordering::Relaxed) {
                    tracing::warn!(reason, "letters cannot be sent and will be tried again: {reason}");
                }
                tracing::debug!(
                    letter.id = %letter, letter.topic = topic, attempts, %until, reason,
                    "letter {letter} ({topic}) waits until {until}: {reason}"
                );
                "postponed"
            }
            Fate::GivenUp { reason } => {
                tracing::warn!(
                    letter.id = %letter, letter.topic = topic, attempts, reason,
                    "letter {letter} ({topic}) is given up after {attempts} attempts: {reason}"
                );
                "given_up"
            }
        };
        metrics::counter!("mundap_letters_total", "topic" => topic, "outcome" => outcome).increment(1);
    }
}
