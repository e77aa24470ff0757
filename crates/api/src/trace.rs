//! Traces: which one a request belongs to (W3C Trace Context), and the span that stands for it.

use actix_web::http::Version;
use mundap_infra::SPANS;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::field::Empty;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::headers::Headers;

pub const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The trace of one request.
pub struct Trace {
    /// The caller's, or the one that begins with the span.
    pub id: Option<String>,
    /// Of the request's span, where traces are collected.
    pub span_id: Option<String>,
    /// What the answer says of it, as its `traceparent`.
    pub parent: Option<String>,
    span: Span,
}

impl Trace {
    /// Takes up the caller's trace. Where traces are collected, a span begins: in the caller's trace, or in a new one.
    ///
    /// Nothing is in it that a stranger chose: no path, no query, no address.
    #[must_use]
    pub fn begin(
        headers: &impl Headers,
        version: Version,
        method: &'static str,
        route: Option<&str>,
        scheme: &str,
    ) -> Self {
        Self::of(headers, || request_span(version, method, route, scheme))
    }

    /// As [`begin`](Self::begin), of a call of the gRPC method `path`, such as `mundap.v1.QnaService/GetQna`.
    #[must_use]
    pub fn begin_call(headers: &impl Headers, path: Option<&str>) -> Self {
        Self::of(headers, || {
            let (service, method) = path.and_then(|path| path.split_once('/')).unzip();
            tracing::info_span!(
                target: SPANS,
                parent: None,
                "request",
                otel.name = path.unwrap_or("gRPC"),
                otel.kind = "server",
                otel.status_code = Empty,
                rpc.system = "grpc",
                rpc.service = service,
                rpc.method = method,
                rpc.grpc.status_code = Empty,
                error.r#type = Empty,
            )
        })
    }

    fn of(headers: &impl Headers, span: impl FnOnce() -> Span) -> Self {
        let caller = parent(headers);
        if !tracing::span_enabled!(target: SPANS, Level::INFO) {
            let id = caller.map(|(trace, ..)| trace.to_owned());
            return Self { id, span_id: None, parent: None, span: Span::none() };
        }
        let span = span();
        if let Some(context) = caller.and_then(|caller| remote(caller, headers)) {
            // Fails for a span that has begun, and this one has not.
            let _ = span.set_parent(Context::new().with_remote_span_context(context));
        }
        let context = span.context();
        let context = context.span().span_context().clone();
        let (id, span_id) = (context.trace_id().to_string(), context.span_id().to_string());
        let parent = format!("00-{id}-{span_id}-{:02x}", context.trace_flags().to_u8() & 1);
        Self { id: Some(id), span_id: Some(span_id), parent: Some(parent), span }
    }

    /// What happens within it is the span's child.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Takes down how it was answered. Only a fault of the board is one of the span (OpenTelemetry's conventions for HTTP
    /// servers).
    pub fn answered(&self, status: u16) {
        if self.span.is_disabled() {
            return;
        }
        self.span.record("http.response.status_code", i64::from(status));
        if status >= 500 {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", status.to_string());
        }
    }

    /// As [`answered`](Self::answered), of a call; a fault is what OpenTelemetry's conventions for gRPC servers count as one.
    pub fn ended(&self, code: tonic::Code) {
        use tonic::Code;
        if self.span.is_disabled() {
            return;
        }
        self.span.record("rpc.grpc.status_code", code as i64);
        let is_fault = match code {
            Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => true,
            Code::Ok
            | Code::Cancelled
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unauthenticated => false,
        };
        if is_fault {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", format!("{code:?}"));
        }
    }
}

fn request_span(version: Version, method: &'static str, route: Option<&str>, scheme: &str) -> Span {
    let method = if method == "other" { "_OTHER" } else { method };
    let verb = if method == "_OTHER" { "HTTP" } else { method };
    tracing::info_span!(
        target: SPANS,
        parent: None,
        "request",
        otel.name = route.map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}")),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        url.scheme = scheme,
        network.protocol.version = name(version),
        error.r#type = Empty,
    )
}

fn name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// The caller's span, as a parent.
fn remote((trace, span, flags): Parent<'_>, headers: &impl Headers) -> Option<SpanContext> {
    // Several headers are one list; a bad one is as if it were not there.
    let states: Vec<&str> = headers.texts(TRACESTATE).flatten().collect();
    let state = states.join(",").parse::<TraceState>().unwrap_or_default();
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1);
    Some(SpanContext::new(trace, span, flags, true, state))
}

/// Trace, span and flags.
type Parent<'a> = (&'a str, &'a str, &'a str);

/// What the caller's `traceparent` says, where it is a good one; what is not good is as if it were not there (W3C Trace
/// Context, 4.3).
fn parent(headers: &impl Headers) -> Option<Parent<'_>> {
    headers.only_text(TRACEPARENT).and_then(|text| parse(text.trim()))
}

/// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`
fn parse(text: &str) -> Option<Parent<'_>> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, length: usize| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let good = is_hex(version, 2) && version != "ff" && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2);
    // Only later versions may say more.
    let ends = version != "00" || parts.next().is_none();
    (good && ends).then_some((trace, parent, flags))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_good_one_is_honoured() {
        for good in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings",
        ] {
            assert_eq!(parse(good).map(|(trace, ..)| trace), Some(TRACE), "{good}");
        }
    }

    #[test]
    fn any_other_is_ignored() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902bg-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn of_two_none_is_believed() {
        let value = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let mut headers = HeaderMap::new();
        assert_eq!(parent(&headers), None);
        headers.append(HeaderName::from_static(TRACEPARENT), value.clone());
        assert_eq!(parent(&headers), Some((TRACE, "00f067aa0ba902b7", "01")));
        headers.append(HeaderName::from_static(TRACEPARENT), value);
        assert_eq!(parent(&headers), None);
    }
}
