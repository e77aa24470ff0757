//! The example files, held to the board's own settings: what `.ci/examples` does not know, which asks the programs that
//! the files are for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::board::Board;
use crate::documents::read;
use crate::program::ends;
use crate::server::mundap;

crate::tests![
;
    once:
    time_limits_around_the_board_fit_its_own,
    settings_that_examples_name_exist,
    proxies_ask_who_is_ready_and_repeat_nothing_by_themselves,
];

/// The settings that a board has which nobody set anything for.
fn defaults() -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let checked = ends(mundap(dir.path()).arg("check"));
    let settings = checked.out.lines().filter_map(|line| line.split_once('='));
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn time(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The values of a directive: what follows its name on lines of its own.
fn values(file: &str, directive: &str) -> Vec<Duration> {
    let text = read(file);
    let values = text.lines().filter_map(|line| line.trim().strip_prefix(directive)).map(|rest| {
        let value = rest.trim_start_matches(['=', ':', ' ']).trim_end_matches(';').trim();
        time(value)
    });
    let values: Vec<Duration> = values.collect();
    assert!(!values.is_empty(), "{file} has no {directive}");
    values
}

fn time_limits_around_the_board_fit_its_own(_: &Board) {
    let defaults = defaults();
    let own = |name: &str| time(&defaults[&format!("MUNDAP_{name}")]);
    // A body may take its time, then the request has its own.
    let longest = own("HTTP_BODY_TIMEOUT") + own("HTTP_QUEUE_TIMEOUT") + own("HTTP_REQUEST_TIMEOUT");
    let stop = own("SHUTDOWN_DELAY") + own("SHUTDOWN_TIMEOUT");
    let (nginx, haproxy) = ("docker/nginx/mundap.conf", "docker/haproxy/public.cfg");
    for (file, directive, at_least) in [
        (nginx, "proxy_read_timeout", longest),
        (nginx, "proxy_send_timeout", own("HTTP_BODY_TIMEOUT")),
        (nginx, "client_body_timeout", own("HTTP_BODY_TIMEOUT")),
        (nginx, "client_header_timeout", own("HTTP_HEAD_TIMEOUT")),
        (haproxy, "timeout server", longest),
        (haproxy, "timeout client", own("HTTP_BODY_TIMEOUT")),
        (haproxy, "timeout http-request", own("HTTP_HEAD_TIMEOUT")),
        ("docker/systemd/mundap.service", "TimeoutStopSec", stop + Duration::from_secs(5)),
        ("docker/compose.yaml", "stop_grace_period", stop + Duration::from_secs(5)),
        ("docker/compose.cluster.yaml", "stop_grace_period", stop + Duration::from_secs(5)),
    ] {
        for value in values(file, directive) {
            assert!(value >= at_least, "{file}: {directive} is {value:?}, and should be {at_least:?} at least");
        }
    }
    // Of two that close an idle connection at once, one would have sent a request.
    for value in values(nginx, "keepalive_timeout") {
        assert!(value < own("HTTP_KEEP_ALIVE"), "{nginx}: keepalive_timeout is {value:?}");
    }
}

/// Every `MUNDAP_…` in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
    words.filter(|word| word.strip_prefix("MUNDAP_").is_some_and(|rest| !rest.is_empty())).map(str::to_owned).collect()
}

fn settings_that_examples_name_exist(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let known = names(&ends(mundap(dir.path()).args(["serve", "--help"])).out);
    assert!(known.len() > 30, "{known:?}");
    // HAProxy's files have variables of their own.
    let of_haproxy: BTreeSet<String> =
        ["public", "galera"].iter().flat_map(|file| names(&read(&format!("docker/haproxy/{file}.cfg")))).collect();
    for file in ["compose.yaml", "compose.cluster.yaml", "Dockerfile", "systemd/mundap.service", "nginx/mundap.conf"] {
        let named = names(&read(&format!("docker/{file}")));
        let unknown: Vec<&String> = named.difference(&known).filter(|name| !of_haproxy.contains(*name)).collect();
        assert!(unknown.is_empty(), "docker/{file}: {unknown:?}");
    }
}

/// Whether a request that was sent may be sent again, only the client knows.
fn proxies_ask_who_is_ready_and_repeat_nothing_by_themselves(_: &Board) {
    let (nginx, haproxy) = (read("docker/nginx/mundap.conf"), read("docker/haproxy/public.cfg"));
    let directive = |text: &str, name: &str| {
        let found: Vec<String> =
            text.lines().filter_map(|line| line.trim().strip_prefix(name)).map(str::to_owned).collect();
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found[0].trim_end_matches(';').trim().to_owned()
    };
    assert_eq!(directive(&nginx, "proxy_next_upstream "), "error timeout");
    assert_eq!(directive(&haproxy, "retry-on "), "conn-failure");
    assert_eq!(directive(&haproxy, "http-check send "), "meth GET uri /readyz");
}
