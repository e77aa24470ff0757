//! What the access log and the metrics say of one call, when its last message is sent or its caller is gone.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use actix_web::web;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use metrics::{Counter, Histogram, counter, histogram};
use mundap_domain::mail::Language;
use mundap_grpc::server::Running;
use mundap_grpc::{Call, Method, status};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::app::{Board, InFlight};
use crate::edge::{REQUEST_ID, note_refusal, request_id};
use crate::problem::{Problem, to_log};
use crate::rate::{Budget, RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::trace::{TRACEPARENT, Trace};

const STATUS: &str = "grpc-status";

pub(super) struct Record {
    _in_flight: InFlight,
    running: Running,
    started: Instant,
    id: String,
    pub(super) trace: Trace,
    method: &'static Method,
    pub(super) call: Call,
    pub(super) budget: Budget,
    /// Why it was refused, where that is no business of the domain's.
    pub(super) refused: Option<&'static str>,
    /// `None` until it is said.
    code: Option<Code>,
    bytes: u64,
}

impl Record {
    pub(super) fn start(
        board: &web::Data<Board>,
        running: Running,
        req: &Request<Body>,
        method: &'static Method,
        call: Call,
    ) -> Self {
        Self {
            _in_flight: InFlight::on(board.clone()),
            running,
            started: Instant::now(),
            id: request_id(req.headers()),
            trace: Trace::begin_call(req.headers(), Some(&method.name)),
            method,
            call,
            budget: Budget::default(),
            refused: None,
            code: None,
            bytes: 0,
        }
    }

    /// Puts into the head what every answer says.
    pub(super) fn begin(&mut self, answer: &mut Response<Body>) {
        let headers = answer.headers_mut();
        self.code = code(headers);
        say(headers, &self.id, self.trace.parent.as_deref(), &self.budget);
    }

    /// The answer to messages that no use case came to see, with the details of any other refusal; `None` where one saw
    /// them. Whoever decodes them says why they were not read, in codes that would mean something else to a caller: a fault
    /// of the server's, or an offset behind the end.
    pub(super) fn refuse_unread(&mut self, answer: &Response<Body>, limit: usize) -> Option<Response<Body>> {
        if self.call.refusal().is_some() {
            return None;
        }
        let (code, problem) = match code(answer.headers())? {
            Code::Internal => (Code::InvalidArgument, Problem::malformed_message()),
            Code::OutOfRange => (Code::ResourceExhausted, Problem::body_too_large(limit)),
            Code::DeadlineExceeded => (Code::DeadlineExceeded, Problem::body_timeout()),
            _ => return None,
        };
        self.refused = Some(problem.code());
        Some(refusal(code, &problem, self.call.language, None).into_http())
    }

    /// Takes down what is sent.
    pub(super) fn sent(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len() as u64;
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.code = code(trailers);
        }
    }

    /// How it ends, whatever was to come.
    pub(super) fn end(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// Something of it moved: its connection is used.
    pub(super) fn moved(&self) {
        self.running.moved();
    }
}

/// The status of a problem that is no business of the domain's; its message is English, for whoever writes the client.
pub(super) fn refusal(code: Code, problem: &Problem, language: Language, retry: Option<Duration>) -> Status {
    let (english, said) = (problem.detail(Language::English), problem.detail(language));
    status::refusal(code, problem.code(), &english, said, language, retry)
}

/// Says in a head which request it answers, and where its caller stands.
pub(super) fn say(headers: &mut HeaderMap, id: &str, trace: Option<&str>, budget: &Budget) {
    let mut put = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put(REQUEST_ID, id);
    if let Some(trace) = trace {
        put(TRACEPARENT, trace);
    }
    if let Some((policies, left)) = budget.say() {
        put(RATE_LIMIT_POLICY, &policies);
        put(RATE_LIMIT, &left);
    }
}

/// What a head or a tail says of the outcome.
fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        // Nobody waited for its end.
        let code = self.code.unwrap_or(Code::Cancelled);
        if let Some(reason) = self.refused {
            note_refusal(reason, None, &self.id, &self.trace);
        } else if let Some(error) = self.call.refusal() {
            note_refusal(error.code(), error.source().and_then(to_log), &self.id, &self.trace);
        }
        self.trace.ended(code);
        let (method, code_name) = (&self.method.name, name(code));
        tracing::info!(
            rpc.method = method,
            rpc.code = code_name,
            duration_ms = duration.as_secs_f64() * 1000.0,
            bytes = self.bytes,
            request.id = self.id,
            trace.id = self.trace.id,
            span.id = self.trace.span_id,
            actor.id = self.call.by.account().map(|user| user.id.get()),
            "gRPC {method} {code_name} in {duration:.1?}"
        );
        let meter = METERS.get(method.as_str()).and_then(|codes| codes.get(code as usize));
        if let Some(meter) = meter {
            let meter = meter.get_or_init(|| Meter::of(method, code_name));
            meter.count.increment(1);
            meter.duration.record(duration);
        }
    }
}

const CODES: usize = 17;

/// Handles, by method and code: to find one anew for each call would cost more than to count it.
static METERS: LazyLock<BTreeMap<&'static str, [OnceLock<Meter>; CODES]>> =
    LazyLock::new(|| Method::all().map(|method| (&*method.name, Default::default())).collect());

struct Meter {
    count: Counter,
    duration: Histogram,
}

impl Meter {
    fn of(method: &str, code: &'static str) -> Self {
        let labels = [("method", method.to_owned()), ("code", code.to_owned())];
        Self {
            count: counter!("mundap_grpc_calls_total", &labels),
            duration: histogram!("mundap_grpc_call_duration_seconds", &labels),
        }
    }
}

/// The name in gRPC's list of status codes.
const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
