//! Logs, metrics and traces. Logs go to standard error, so that what a command prints stays clean.

use std::io::{BufWriter, IsTerminal as _};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use mundap_domain::env::Clock as _;
use mundap_infra::{SPANS, SystemClock};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::command::Command;
use crate::otlp;
use crate::settings::{Cli, LogFormat, Settings, SettingsError};

/// Seconds; from a point read on an embedded database to the request's time limit.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What libraries say of themselves at `info` is of use to nobody who runs the board, and `actix_http` calls it an error when a
/// stranger sends what is no HTTP; a filter that names them wins.
const QUIET: &str = "actix_server=warn,actix_http=off,sea_orm_migration=warn";

/// What is logged; it can be changed while the process runs.
pub struct Log {
    handle: reload::Handle<EnvFilter, Registry>,
    filters: Mutex<Filters>,
}

/// As they were given, without [`QUIET`].
struct Filters {
    current: String,
    /// What a change that is taken back goes back to.
    lasting: String,
    changes: u64,
}

/// One a process, as the subscriber is.
static LOG: OnceLock<Log> = OnceLock::new();

impl Log {
    /// `None` before [`start_logging`].
    #[must_use]
    pub fn get() -> Option<&'static Self> {
        LOG.get()
    }

    /// The filter in force.
    #[must_use]
    pub fn filter(&self) -> String {
        self.filters().current.clone()
    }

    /// Changes the filter, for good or until it is taken back, and says which change that was.
    ///
    /// # Errors
    /// Why it is no filter.
    pub fn set(&self, filter: &str, lasts: bool) -> Result<u64, String> {
        let mut filters = self.filters();
        self.change(&mut filters, filter)?;
        if lasts {
            filter.clone_into(&mut filters.lasting);
        }
        Ok(filters.changes)
    }

    /// Goes back to the last filter that was to last, unless another change came after this one.
    ///
    /// # Errors
    /// Why that is no filter.
    pub fn take_back(&self, change: u64) -> Result<(), String> {
        let mut filters = self.filters();
        if filters.changes != change {
            return Ok(());
        }
        let lasting = filters.lasting.clone();
        self.change(&mut filters, &lasting)
    }

    fn filters(&self) -> MutexGuard<'_, Filters> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, filters: &mut Filters, filter: &str) -> Result<(), String> {
        // An empty one is one too, of errors alone: hardly what somebody means who sends an empty body.
        if filter.trim().is_empty() {
            return Err("the filter is empty; `off` logs nothing".to_owned());
        }
        let new = parse(filter)?;
        let say = || {
            tracing::warn!(
                log.filter = filter,
                "the log's filter is {filter} from now on, after {current}",
                current = filters.current
            );
        };
        // Under the old one, and where that hides it under the new one: either may be the quieter.
        let is_seen = tracing::enabled!(tracing::Level::WARN);
        say();
        self.handle.reload(new).map_err(|error| error.to_string())?;
        if !is_seen {
            say();
        }
        filter.clone_into(&mut filters.current);
        filters.changes += 1;
        Ok(())
    }
}

/// What lines of this program are about, each with `::…` behind it.
const TARGETS: [&str; 5] = ["mundap_api", "mundap_domain", "mundap_grpc", "mundap_infra", "mundap_migration"];

fn parse(filter: &str) -> Result<EnvFilter, String> {
    filter.split(',').try_for_each(can_be_meant)?;
    EnvFilter::builder().parse(format!("{QUIET},{filter}")).map_err(|error| error.to_string())
}

/// Refuses what is a directive, and hardly the one that somebody meant: `inf` would be a target, of which nothing is ever
/// logged, and so nothing at all.
fn can_be_meant(directive: &str) -> Result<(), String> {
    let directive = directive.trim();
    let target = directive.split(['[', '=']).next().unwrap_or_default();
    if target.len() < directive.len() && target.starts_with("mundap") && !is_ours(target) {
        return Err(format!("{target:?} is no target of this program: they begin with {}", TARGETS.join(", ")));
    }
    // A filter of spans or fields may have commas of its own, and is more than a typing error comes to.
    let is_more = directive.is_empty() || directive.contains(['=', '[', ']', '{', '}', '"']);
    if is_more || directive.parse::<LevelFilter>().is_ok() {
        return Ok(());
    }
    Err(format!(
        "{directive:?} is no level (off, error, warn, info, debug, trace), and a target has one behind it, such as \
         mundap_infra=debug"
    ))
}

/// Whether something of this program's is logged under it: a filter takes all targets that begin with its own.
fn is_ours(target: &str) -> bool {
    TARGETS
        .iter()
        .any(|ours| ours.starts_with(target) || target.strip_prefix(ours).is_some_and(|rest| rest.starts_with("::")))
}

/// A part of the subscriber.
type Part = Box<dyn Layer<Registry> + Send + Sync>;

/// What collects traces: where the board serves, and a collector is named.
///
/// # Errors
/// A setting that cannot be used.
pub fn traces(cli: &Cli) -> Result<Option<Part>, SettingsError> {
    let Some(endpoint) = cli.settings.otlp()?.filter(|_| matches!(cli.command, None | Some(Command::Serve))) else {
        return Ok(None);
    };
    let fault = |reason| SettingsError::Value { name: "MUNDAP_OTLP_ENDPOINT", reason };
    otlp::start(&endpoint, cli.settings.otlp_sample).map(Some).map_err(fault)
}

/// How many lines may wait to be written. Whoever has one more to say waits too: what is read slowly is not lost.
const WAITING_LINES: usize = 4096;

/// Starts logging for the process, and what collects its `traces`. Lines are written on a thread of their own, as many at
/// once as have come together, and the last of them when what is returned is dropped.
///
/// # Errors
/// Where the filter is not one.
#[must_use = "dropped, it ends the log"]
pub fn start_logging(settings: &Settings, traces: Option<Part>) -> Result<WorkerGuard, String> {
    let (filter, handle) = reload::Layer::new(parse(&settings.log)?);
    let on_terminal = std::io::stderr().is_terminal();
    let format = settings.log_format.unwrap_or(if on_terminal { LogFormat::Text } else { LogFormat::Json });
    let (writer, written) = NonBlockingBuilder::default()
        .lossy(false)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(BufWriter::with_capacity(1 << 16, std::io::stderr()));
    let layer = fmt::layer().with_writer(writer);
    // Spans are for traces; in a text line they would stand before what it says.
    let filter = filter.and(filter_fn(|about| about.target() != SPANS));
    let layer = match format {
        LogFormat::Text => layer.with_ansi(on_terminal).with_filter(filter).boxed(),
        LogFormat::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter(filter).boxed()
        }
    };
    let parts: Vec<Part> = std::iter::once(layer).chain(traces).collect();
    tracing_subscriber::registry().with(parts).init();
    let filters = Filters { current: settings.log.clone(), lasting: settings.log.clone(), changes: 0 };
    let log = Log { handle, filters: Mutex::new(filters) };
    // A second subscriber would have panicked above.
    let _ = LOG.set(log);
    Ok(written)
}

/// Starts counting for the process; the handle renders what was counted.
///
/// # Errors
/// Where another recorder is there already.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("duration_seconds".to_owned()), &DURATION_BUCKETS)?
        .install_recorder()?;
    describe();
    // A rate over a counter that appears with its first event misses that one.
    counter!("mundap_http_connections_refused_total").increment(0);
    if otlp::is_on() {
        for outcome in ["delivered", "lost", "dropped"] {
            otlp::count(outcome, 0);
        }
    }
    PROCESS.describe();
    // The system's own answer takes its place where it gives one: systemd's `ProcSubset=pid` hides when the machine was started.
    if let Ok(now) = u32::try_from(SystemClock.now().unix_seconds()) {
        gauge!("process_start_time_seconds").set(now);
    }
    gauge!(
        "mundap_build_info",
        "version" => env!("CARGO_PKG_VERSION"),
        // Whoever builds a release names it.
        "commit" => option_env!("SOURCE_COMMIT").unwrap_or("unknown"),
        "rustc" => env!("BUILT_WITH"),
    )
    .set(1.0);
    Ok(handle)
}

/// What each metric is; `docs/metrics.md` says it at length, and a test holds the two to each other.
fn describe() {
    let seconds = |name, help| describe_histogram!(name, Unit::Seconds, help);
    describe_counter!("mundap_http_requests_total", "Requests answered, by route template, method and status");
    seconds("mundap_http_request_duration_seconds", "Time from a request's head to the last byte of its answer");
    describe_gauge!("mundap_http_requests_in_flight", "Requests and calls that are being answered");
    describe_counter!("mundap_grpc_calls_total", "gRPC calls answered, by method and status code");
    seconds("mundap_grpc_call_duration_seconds", "Time from a gRPC call's head to the last message of its answer");
    describe_gauge!("mundap_http_connections", "Connections of clients");
    describe_counter!("mundap_http_connections_refused_total", "Connections refused since their address had too many");
    describe_gauge!("mundap_http_lane_places", "Requests that may be worked on at once, by lane");
    describe_gauge!("mundap_http_lane_in_flight", "Requests that are worked on, by lane");
    describe_gauge!("mundap_http_lane_queued", "Requests that wait for their turn, by lane");
    describe_counter!("mundap_http_shed_total", "Requests turned away with 503 busy, by lane and reason");
    describe_counter!("mundap_http_timeouts_total", "Requests given up with 503 too_slow, by lane");
    seconds("mundap_http_queue_duration_seconds", "How long those that had to wait for their turn waited, by lane");
    describe_counter!("mundap_refusals_total", "Requests refused, by the code of the refusal");
    describe_counter!("mundap_events_total", "What happened on the board");
    describe_counter!("mundap_rate_limited_total", "Uses refused by a rate limit, by its policy");
    seconds(
        "mundap_database_query_duration_seconds",
        "Time of a statement, waiting for its connection included, by repository, method and outcome",
    );
    describe_gauge!("mundap_database_connections", "Connections to the database, by pool and state");
    describe_gauge!("mundap_database_connections_max", "The most connections that a pool may hold");
    describe_gauge!("mundap_database_connections_waiting", "Statements and units that wait for a connection");
    describe_gauge!(
        "mundap_database_breaker_state",
        "1 while the database does not answer and requests are refused at once, else 0"
    );
    describe_gauge!("mundap_work_threads", "Threads of a pool that hashes passwords or makes pictures");
    describe_gauge!("mundap_work_busy", "Threads of a pool that work");
    describe_gauge!("mundap_work_waiting", "Jobs that wait for a thread of a pool");
    describe_counter!("mundap_work_refused_total", "Jobs turned away since a pool's queue was full");
    seconds("mundap_work_wait_duration_seconds", "Time that a job waited for a thread of a pool");
    seconds("mundap_work_duration_seconds", "Time that a job took on a thread of a pool");
    describe_counter!("mundap_images_total", "Uploads that were looked at, by what became of them");
    describe_counter!("mundap_image_bytes_total", "Bytes of uploads, and of the pictures made of them");
    describe_counter!("mundap_letters_total", "Attempts to send a letter, by topic and outcome");
    describe_gauge!("mundap_letters_waiting", "Letters in the outbox");
    describe_counter!("mundap_trace_spans_total", "Spans for the trace collector, by what became of them");
    describe_gauge!("mundap_ready", "1 where requests should come here, else 0; as /readyz says it");
    describe_gauge!("mundap_image_folder_shared", "1 where the folder of images is the database's, else 0");
    describe_gauge!("mundap_build_info", "1, with version, commit and compiler as labels");
}

/// What the operating system says of the process.
static PROCESS: LazyLock<Collector> = LazyLock::new(Collector::default);

/// Sets the figures of the process to what they are now.
pub fn report_process() {
    PROCESS.collect();
}

/// How often samples are sorted into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// Sorts samples into their buckets now and then: until somebody does, each takes memory, and it may be that nobody scrapes.
pub async fn keep(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_does_not_make_the_log_silent() {
        for filter in [
            "inf",
            "warning",
            "info,mundap_nfra=debug",
            "mundap_api::serv,info",
            "mundapi=trace",
            "info, debgu",
            "mundap_nfra[store]=debug",
        ] {
            assert!(parse(filter).is_err(), "{filter}");
        }
        for filter in [
            "info",
            "OFF",
            "Trace",
            "3",
            "",
            "info,mundap=debug",
            "mundap_api::serve=info,warn",
            "mundap_in=debug, info",
            "sqlx=trace,hyper_util::client=off,warn",
            "mundap_api[{http.route=\"/api/v1/qna\"}]=trace",
        ] {
            assert!(parse(filter).is_ok(), "{filter}: {:?}", parse(filter).err());
        }
        let reason = parse("info,warning").unwrap_err();
        assert!(reason.starts_with("\"warning\" is no level (off, error, warn, "), "{reason}");
    }
}
