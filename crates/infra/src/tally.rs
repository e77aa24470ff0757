//! Counts what happens on the board.

use metrics::{Counter, counter};
use mundap_domain::event::{Event, Events};

/// One counter an event, there from the start: a rate over a counter that appears with its first event misses that one.
pub struct Tally(Vec<(Event, Counter)>);

impl Tally {
    /// Counts for the recorder that is installed; without one, for nobody.
    #[must_use]
    pub fn start() -> Self {
        let counter = |event: Event| match event {
            Event::RateLimited(policy) => counter!("mundap_rate_limited_total", "policy" => policy.name()),
            Event::Asked
            | Event::QnaEdited
            | Event::QnaDeleted
            | Event::Commented
            | Event::CommentEdited
            | Event::CommentDeleted
            | Event::ImageAttached
            | Event::ImageDeleted
            | Event::Registered
            | Event::SignedIn
            | Event::SignInRefused
            | Event::Renewed
            | Event::RenewalRefused
            | Event::PasswordChanged
            | Event::AccountDeleted
            | Event::Replayed => counter!("mundap_events_total", "event" => event.name()),
        };
        let counters: Vec<_> = Event::all().map(|event| (event, counter(event))).collect();
        for (_, counter) in &counters {
            counter.increment(0);
        }
        Self(counters)
    }
}

impl Events for Tally {
    fn record(&self, event: Event) {
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == event) {
            counter.increment(1);
        }
    }
}
