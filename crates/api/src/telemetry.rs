//! Logs and metrics. Logs go to standard error, so that what a command prints stays clean.

use std::io::IsTerminal as _;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::settings::{LogFormat, Settings};

/// Seconds; from a point read on an embedded database to the request's time limit.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What libraries say of themselves at `info` is of use to nobody who runs the board; a filter that names them wins.
const QUIET: &str = "actix_server=warn,sea_orm_migration=warn";

/// Starts logging for the process.
///
/// # Errors
/// Where the filter is not one.
pub fn start_logging(settings: &Settings) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(format!("{QUIET},{}", settings.log))?;
    let on_terminal = std::io::stderr().is_terminal();
    let format = settings.log_format.unwrap_or(if on_terminal { LogFormat::Text } else { LogFormat::Json });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(on_terminal).init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
    }
    Ok(())
}

/// Starts counting for the process; the handle renders what was counted.
///
/// # Errors
/// Where another recorder is there already.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("duration_seconds".to_owned()), &DURATION_BUCKETS)?
        .install_recorder()?;
    metrics::describe_counter!("mundap_http_requests_total", "Requests answered, by route template, method and status");
    metrics::describe_histogram!(
        "mundap_http_request_duration_seconds",
        metrics::Unit::Seconds,
        "Time from a request's head to the last byte of its answer"
    );
    metrics::describe_gauge!("mundap_http_requests_in_flight", "Requests that are being answered");
    metrics::describe_counter!("mundap_letters_total", "Attempts to send a letter, by topic and outcome");
    metrics::describe_gauge!("mundap_letters_waiting", "Letters in the outbox");
    metrics::describe_gauge!("mundap_build_info", "1, with the version as a label");
    metrics::gauge!("mundap_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}
