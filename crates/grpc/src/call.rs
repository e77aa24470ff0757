//! What a method knows of its call besides the message.

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use mundap_domain::idempotency::Outcome;
use mundap_domain::mail::Language;
use mundap_domain::{Actor, Error};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use crate::status;

/// What is said of an error to a person: of the whole, and of each field that breaks a rule, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub message: String,
    pub fields: Vec<String>,
}

/// Says an error in a language.
pub type Voice = fn(&Error, Language) -> Said;

/// Looks again who is calling.
pub type Look = Arc<dyn Fn() -> BoxFuture<'static, Result<Actor, Error>> + Send + Sync>;

/// One call: who makes it, and how a refusal of it is said. Its host puts one into the extensions of each request.
#[derive(Clone)]
pub struct Call {
    pub by: Arc<Actor>,
    pub language: Language,
    voice: Voice,
    refusal: Arc<OnceLock<Error>>,
    look: Option<Look>,
}

impl Call {
    /// A call of somebody.
    #[must_use]
    pub fn new(by: Actor, language: Language, voice: Voice) -> Self {
        Self { by: Arc::new(by), language, voice, refusal: Arc::default(), look: None }
    }

    /// The same call, now that it is known whose it is.
    #[must_use]
    pub fn made_by(mut self, actor: Actor) -> Self {
        self.by = Arc::new(actor);
        self
    }

    /// The same call, one that may go on for long: its caller is looked at again with each part of it.
    #[must_use]
    pub fn lasting(mut self, look: Look) -> Self {
        self.look = Some(look);
        self
    }

    /// The same call by now. Whoever was suspended, or signed out, while it went on has no part in the rest of it.
    ///
    /// # Errors
    /// Where the caller is signed in no more.
    pub(crate) async fn by_now(self) -> Result<Self, Error> {
        let Some(look) = &self.look else { return Ok(self) };
        let actor = look().await?;
        Ok(self.made_by(actor))
    }

    /// Why it was refused, if it was; to be asked when its answer ends.
    #[must_use]
    pub fn refusal(&self) -> Option<&Error> {
        self.refusal.get()
    }

    /// Refuses it.
    #[must_use]
    pub fn refuse(&self, error: Error) -> Status {
        let status = status::of(&error, (self.voice)(&error, self.language), self.language);
        // The first one is the one that is answered.
        let _ = self.refusal.set(error);
        status
    }

    /// The call and the message of a request.
    pub(crate) fn open<T>(request: Request<T>) -> (Self, T) {
        let (_, mut extensions, message) = request.into_parts();
        let call =
            extensions.remove::<Self>().unwrap_or_else(|| Self::new(Actor::Anonymous, Language::default(), plain));
        (call, message)
    }

    /// Its answer.
    pub(crate) fn answer<T>(&self, outcome: Result<T, Error>) -> Result<Response<T>, Status> {
        outcome.map(Response::new).map_err(|error| self.refuse(error))
    }
}

/// The answer that creates something: a repetition says so in its metadata.
pub(crate) fn created<T, M>(
    call: &Call,
    outcome: Result<Outcome<T>, Error>,
    view: impl FnOnce(&T) -> M,
) -> Result<Response<M>, Status> {
    let outcome = outcome.map_err(|error| call.refuse(error))?;
    let mut response = Response::new(view(outcome.get()));
    if outcome.is_replayed() {
        response.metadata_mut().insert("idempotent-replayed", MetadataValue::from_static("true"));
    }
    Ok(response)
}

/// For whoever serves the routes without a host.
fn plain(error: &Error, _: Language) -> Said {
    let fields = match error {
        Error::Invalid(violations) => violations.iter().map(|violation| violation.rule.code().to_owned()).collect(),
        _ => Vec::new(),
    };
    Said { message: error.to_string(), fields }
}
