//! Spans on their way to the collector that the operator named, by OTLP over HTTP: never in a request's way.
//!
//! A request leaves its finished spans in a bounded queue, and one thread carries them away. Where the queue is full, or the
//! collector does not take a batch, the spans are lost and counted: traces are for looking at, not for keeping.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use metrics::counter;
use mundap_infra::SPANS;
use opentelemetry::trace::{Link, SpanKind, TraceId, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer, Registry};

/// Spans that may wait; about 4 MB.
const QUEUE: usize = 4096;

/// The most spans of one request to the collector.
const BATCH: usize = 512;

/// How long a span waits for others to go along with.
const GATHERING: Duration = Duration::from_secs(1);

/// How long the collector may take to accept a batch.
const DELIVERY: Duration = Duration::from_millis(1500);

/// How long a stop waits for the last spans to be delivered.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// One a process, as the subscriber is.
static COURIER: OnceLock<Arc<Courier>> = OnceLock::new();

/// Starts to carry spans to `endpoint` and gives the layer that collects them; of traces that begin here, it takes the
/// share `sample` (0 to 1).
///
/// # Errors
/// Where the environment's `OTEL_…` variables say what cannot be, or no thread can be started.
pub fn start(endpoint: &url::Url, sample: f64) -> Result<Box<dyn Layer<Registry> + Send + Sync>, String> {
    let fault = |error: ExporterBuildError| error.to_string();
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new())
        .with_endpoint(traces_url(endpoint))
        .with_protocol(Protocol::HttpBinary)
        // A retry would hold up the spans behind it.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(fault)?;
    // `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win.
    let resource = Resource::builder_empty()
        .with_service_name("mundap")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detectors(&[
            Box::new(opentelemetry_sdk::resource::TelemetryResourceDetector),
            Box::new(opentelemetry_sdk::resource::EnvResourceDetector::new()),
        ]);
    let resource = match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    };
    exporter.set_resource(&resource);
    let courier = Arc::new(Courier::default());
    let carrying = courier.clone();
    let thread = std::thread::Builder::new().name("otlp".to_owned());
    thread.spawn(move || carrying.carry(&exporter)).map_err(|error| error.to_string())?;
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(Requests(Sampler::TraceIdRatioBased(sample)))))
        .with_span_processor(Queue(courier.clone()))
        .build();
    let _ = COURIER.set(courier);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("mundap"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        // Spans of ours alone: what libraries say of themselves, and log lines, may hold anything.
        .with_filter(filter_fn(|about| about.is_span() && about.target() == SPANS));
    Ok(layer.boxed())
}

/// Where a collector takes spans, of its base URL (OTLP/HTTP: `/v1/traces` below it).
fn traces_url(endpoint: &url::Url) -> String {
    let base = endpoint.as_str().trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
}

/// Delivers what is there, within two seconds or not at all. It blocks.
pub fn finish() {
    if let Some(courier) = COURIER.get()
        && !courier.end(LAST_SPANS)
    {
        tracing::warn!("the last spans could not be delivered to the trace collector in time");
    }
}

/// Whether spans are carried anywhere.
#[must_use]
pub fn is_on() -> bool {
    COURIER.get().is_some()
}

/// Counts what became of spans.
pub fn count(outcome: &'static str, spans: usize) {
    counter!("mundap_trace_spans_total", "outcome" => outcome).increment(spans as u64);
}

/// Traces begin with requests: what the board does by itself is in none.
#[derive(Clone, Debug)]
struct Requests(Sampler);

impl ShouldSample for Requests {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.0.should_sample(parent, trace, name, kind, attributes, links);
        if *kind != SpanKind::Server {
            result.decision = SamplingDecision::Drop;
        }
        result
    }
}

/// What waits to be carried away, and the thread that does it.
#[derive(Debug, Default)]
struct Courier {
    load: Mutex<Load>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Load {
    spans: VecDeque<SpanData>,
    /// No more will come.
    ending: bool,
    /// All that came is delivered or lost.
    ended: bool,
}

impl Courier {
    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, span: SpanData) {
        let mut load = self.load();
        if load.spans.len() >= QUEUE || load.ended {
            drop(load);
            return count("dropped", 1);
        }
        load.spans.push_back(span);
        let full = load.spans.len() == BATCH;
        drop(load);
        if full {
            self.changed.notify_all();
        }
    }

    /// The next spans to go, and whether they are the last.
    fn gather(&self) -> (Vec<SpanData>, bool) {
        let load = self.load();
        let waits = |load: &mut Load| load.spans.len() < BATCH && !load.ending;
        let gathered = self.changed.wait_timeout_while(load, GATHERING, waits);
        let (mut load, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        let most = load.spans.len().min(BATCH);
        let batch = load.spans.drain(..most).collect();
        (batch, load.ending && load.spans.is_empty())
    }

    fn carry(&self, exporter: &impl SpanExporter) {
        let mut lost = 0;
        loop {
            let (batch, is_last) = self.gather();
            let spans = batch.len();
            if spans > 0 {
                // The client blocks, so that there is nothing to wait for.
                let delivered = exporter.export(batch).now_or_never();
                match delivered.unwrap_or_else(|| Err(OTelSdkError::InternalFailure("it did not block".to_owned()))) {
                    Ok(()) => {
                        count("delivered", spans);
                        if lost > 0 {
                            tracing::info!(spans = lost, "the trace collector takes spans again; {lost} were lost");
                            lost = 0;
                        }
                    }
                    Err(error) => {
                        count("lost", spans);
                        // Once, not with every batch.
                        if lost == 0 {
                            tracing::warn!(%error, "the trace collector does not take spans, and they are lost: {error}");
                        }
                        lost += spans;
                    }
                }
            }
            if is_last {
                break;
            }
        }
        self.load().ended = true;
        self.changed.notify_all();
    }

    /// Whether all was carried away in that time.
    fn end(&self, patience: Duration) -> bool {
        let mut load = self.load();
        load.ending = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(load, patience, |load| !load.ended);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Where finished spans are left.
#[derive(Debug)]
struct Queue(Arc<Courier>);

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.take(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        if self.0.end(timeout) { Ok(()) } else { Err(OTelSdkError::Timeout(timeout)) }
    }
}

/// Speaks HTTP with the collector, on the courier's thread, which it blocks.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(DELIVERY))
            .http_status_as_error(false)
            // To the collector that was named, and nowhere else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None);
        Self(config.build().into())
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(head, &body[..]))?;
        let (head, mut body) = answer.into_parts();
        // An answer says little; what is longer is none.
        let body = body.with_config().limit(64 * 1024).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_leads_to_the_place_for_traces() {
        for (given, url) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://tenant.example/otlp", "https://tenant.example/otlp/v1/traces"),
            ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
        ] {
            assert_eq!(traces_url(&given.parse().unwrap()), url);
        }
    }
}
