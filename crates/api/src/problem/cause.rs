//! What the log says of why something went wrong.

use std::error::Error;
use std::iter::successors;

use mundap_domain::error::KnownAway;

/// The error and its causes in one line; nothing where they are an outage that has been logged, which may be that of thousands
/// of requests.
#[must_use]
pub fn to_log(error: &(dyn Error + 'static)) -> Option<String> {
    let causes = successors(Some(error), |&error| error.source());
    if causes.clone().any(<dyn Error>::is::<KnownAway>) {
        return None;
    }
    let mut line = String::new();
    for cause in causes.map(ToString::to_string) {
        // Each once: some say their cause themselves.
        if !line.ends_with(&cause) {
            line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
        }
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use mundap_domain::StoreError;

    use super::*;

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("{words}")]
        struct Link {
            words: &'static str,
            source: Option<Box<Link>>,
        }
        let link = |words, source| Box::new(Link { words, source });
        let full =
            link("no connection: pool timed out", Some(link("pool timed out", Some(link("nobody listens", None)))));
        assert_eq!(to_log(&*full).as_deref(), Some("no connection: pool timed out: nobody listens"));
    }

    #[test]
    fn an_outage_that_was_logged_is_not_logged_again() {
        assert_eq!(to_log(&StoreError::Unavailable(KnownAway.into())), None);
    }
}
