//! What a setting may be, where that is more than a number or a word: how each is read.

use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use chrono::TimeDelta;
use mundap_domain::rate::Quota;

/// An address to listen on, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    Off,
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" { Ok(Self::Off) } else { address(text).map(Self::At).map_err(|reason| reason + ", or off") }
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it must be an IP address and a port, such as 127.0.0.1:8000 or [::]:8000".to_owned())
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// So many in such a time, as in `60/1m`.
pub(super) fn quota(text: &str) -> Result<Quota, String> {
    let parse = || {
        let (permits, window) = text.split_once('/')?;
        let window = humantime::parse_duration(window.trim()).ok()?;
        Quota::new(permits.trim().parse().ok()?, TimeDelta::from_std(window).ok()?)
    };
    parse().ok_or_else(|| "a limit is such as 60/1m: 1 to 1000000 in whole seconds, a day at most".to_owned())
}

/// As `quota` reads it.
#[must_use]
pub fn show_quota(quota: Quota) -> String {
    let window = quota.window().to_std().unwrap_or_default();
    format!("{}/{}", quota.permits(), humantime::format_duration(window))
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share is a number from 0 to 1".to_owned())
}

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const MINUTE: Duration = Duration::from_mins(1);
pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const DAY: Duration = Duration::from_hours(24);

/// A time that is neither shorter nor longer: what is longer than anybody would wait is a slip of the pen, and more than
/// some clocks count.
pub(crate) fn within(least: Duration, most: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        if (least..=most).contains(&duration) {
            return Ok(duration);
        }
        let [least, most] = [least, most].map(humantime::format_duration);
        Err(format!("it must be a time from {least} to {most}"))
    }
}

/// What the server counts in seconds must not be cut in silence.
pub(super) fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration = within(Duration::ZERO, DAY)(text)?;
    if duration.subsec_nanos() == 0 { Ok(duration) } else { Err("it must be whole seconds".to_owned()) }
}

/// A browser's `Origin` is scheme, host and port; anything else would never match one.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let of = |url: url::Url| {
        let origin = url.origin().ascii_serialization();
        let is_all = matches!(url.scheme(), "http" | "https") && url.as_str().trim_end_matches('/') == origin;
        is_all.then_some(origin)
    };
    let origin = url::Url::parse(text.trim()).ok().and_then(of);
    origin.ok_or_else(|| "an origin is such as https://board.example.com".to_owned())
}

pub(super) fn public_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|error| format!("it must start with http:// or https:// ({error})"))?;
    if matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none() {
        Ok(url)
    } else {
        Err("it must start with http:// or https://, and have no query".to_owned())
    }
}

/// Why a `.env` file cannot be read, without anything that stands in it: a line may hold a password.
pub(super) fn env_file_fault(path: &Path, error: &dotenvy::Error) -> String {
    match error {
        dotenvy::Error::LineParse(..) => {
            let number = std::fs::read_to_string(path).ok().and_then(|text| bad_line(&text));
            let line = number.map_or_else(|| "a line".to_owned(), |number| format!("line {number}"));
            format!("{line} is not NAME=value; a value with a space, a quote, a $ or a \\ in it belongs in '…'")
        }
        dotenvy::Error::Io(error) => error.to_string(),
        // Its text may hold a value.
        _ => "it is no such file".to_owned(),
    }
}

/// The number of the line where what cannot be read begins.
fn bad_line(text: &str) -> Option<usize> {
    let mut lines = Lines { rest: text.trim_start_matches('\u{feff}').as_bytes(), begun: 0, goes_on: false };
    let part = dotenvy::from_read_iter(&mut lines).find_map(|line| match line {
        Err(dotenvy::Error::LineParse(part, _)) => Some(part),
        _ => None,
    })?;
    // A quote that has no end makes one value of all that comes behind it.
    Some((lines.begun + 1).saturating_sub(part.lines().count().max(1)))
}

/// Gives out no more than a line at a time, so that it is known how many were wanted.
struct Lines<'t> {
    rest: &'t [u8],
    begun: usize,
    /// Whether the line that was begun has not been given out whole.
    goes_on: bool,
}

impl Read for Lines<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end.min(into.len()));
        into[..line.len()].copy_from_slice(line);
        self.begun += usize::from(!line.is_empty() && !self.goes_on);
        (self.rest, self.goes_on) = (rest, line.len() < end);
        Ok(line.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_found_without_its_text() {
        for (text, expected) in [
            ("A=b\n", None),
            ("A=b c\n", Some(1)),
            ("\u{feff}# no\r\n\r\nA=b\r\nB=c d\r\nC=d\r\n", Some(4)),
            ("A='b\nc'\n B \nC=d", Some(3)),
            ("A=b\nB=\"c\nC=d\nD=e\n", Some(2)),
            // As good as the line above it, but for its end.
            ("A=b\nC=b\"\n", Some(2)),
            (&format!("A={}\nB=c d", "x".repeat(20_000)), Some(2)),
        ] {
            assert_eq!(bad_line(text), expected, "{text:.40}");
        }
    }

    #[test]
    fn a_time_has_a_range_that_its_error_says() {
        let time = within(MS, HOUR);
        assert_eq!((time("1ms"), time("1h")), (Ok(MS), Ok(HOUR)));
        for bad in ["0s", "999us", "61m", "8000years"] {
            assert_eq!(time(bad), Err("it must be a time from 1ms to 1h".to_owned()), "{bad}");
        }
        assert!(time("5").is_err());
    }

    #[test]
    fn a_quota_is_so_many_in_such_a_time() {
        for text in ["60/1m", "3/1h", "1000000/1day", "1/1s", "10/15m", "7/1m 1s"] {
            assert_eq!(show_quota(quota(text).unwrap()), text);
        }
        for bad in ["", "60", "60/", "/1m", "0/1m", "1000001/1m", "-1/1m", "60/0s", "60/1500ms", "60/25h", "x/1m"] {
            assert!(quota(bad).is_err(), "{bad}");
        }
    }
}
