//! Traces: what a collector that the operator named is sent, and that nobody waits for it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mundap_grpc::v1;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use serde_json::{Value, json};

use crate::board::{Board, PASSWORD};
use crate::client::Reply;
use crate::database::{execute, while_held};
use crate::grpc::Caller;
use crate::program::eventually;
use crate::server::{Options, PATIENCE, Server, mundap, run};

crate::tests![
    a_request_is_a_span_and_its_statements_are_its_children,
    a_refusal_is_no_fault_of_the_span,
    a_call_is_a_span_of_the_caller_s_trace;
    once:
    a_fault_is_one_of_the_span,
    the_callers_trace_goes_on,
    the_caller_decides_whether_a_trace_is_collected,
    the_share_is_of_traces_that_begin_here,
    nothing_personal_is_in_a_trace,
    a_collector_that_refuses_costs_nobody_anything,
    a_collector_that_hangs_costs_spans_alone,
    the_end_delivers_the_last_spans,
    without_a_collector_there_is_no_trace,
    a_bad_endpoint_is_a_setting_to_change,
];

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a collector does with a batch.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Takes,
    Refuses,
    /// Whoever asks waits for an answer.
    Hangs,
}

#[derive(Default)]
struct Taken {
    mode: Option<Mode>,
    spans: Vec<Span>,
    resource: Vec<KeyValue>,
    batches: usize,
}

/// A trace collector.
struct Collector {
    url: String,
    taken: Arc<(Mutex<Taken>, Condvar)>,
}

impl Collector {
    fn start(mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taken = Arc::new((Mutex::new(Taken { mode: Some(mode), ..Taken::default() }), Condvar::new()));
        std::thread::spawn({
            let taken = taken.clone();
            move || {
                for stream in listener.incoming() {
                    let taken = taken.clone();
                    std::thread::spawn(move || serve(stream.unwrap(), &taken));
                }
            }
        });
        Self { url, taken }
    }

    fn set(&self, mode: Mode) {
        self.taken.0.lock().unwrap().mode = Some(mode);
        self.taken.1.notify_all();
    }

    /// Waits until `wanted` is there.
    fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&Taken) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut taken = self.taken.0.lock().unwrap();
        loop {
            if let Some(found) = wanted(&taken) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let names: Vec<&str> = taken.spans.iter().map(|span| &*span.name).collect();
            assert!(!left.is_zero(), "waited in vain for {what} among {names:?}");
            taken = self.taken.1.wait_timeout(taken, left).unwrap().0;
        }
    }

    /// The span of the request that was answered so. Its children went before it, in this batch or an earlier one.
    fn span(&self, server: &Server, reply: &Reply) -> Span {
        self.find(server.access(reply.request_id())["span.id"].as_str().unwrap())
    }

    /// The span of a call that was refused, by what the refusal says of it.
    fn refused(&self, refusal: &tonic::Status) -> Span {
        let traceparent = refusal.metadata().get("traceparent").unwrap().to_str().unwrap();
        self.find(traceparent.split('-').nth(2).unwrap())
    }

    fn find(&self, id: &str) -> Span {
        self.wait(&format!("the span {id}"), |taken| taken.spans.iter().find(|span| hex(&span.span_id) == id).cloned())
    }

    fn children(&self, of: &Span) -> Vec<Span> {
        let taken = self.taken.0.lock().unwrap();
        taken.spans.iter().filter(|span| span.parent_span_id == of.span_id).cloned().collect()
    }

    fn spans(&self) -> Vec<Span> {
        self.taken.0.lock().unwrap().spans.clone()
    }
}

fn serve(mut stream: TcpStream, taken: &(Mutex<Taken>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let start = head.len();
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
            let line = head[start..].trim().to_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("content-type: application/x-protobuf\r\n"), "{head}");
        let mut now = taken.0.lock().unwrap();
        now.batches += 1;
        taken.1.notify_all();
        now = taken.1.wait_while(now, |now| now.mode == Some(Mode::Hangs)).unwrap();
        let answer: &[u8] = if now.mode == Some(Mode::Takes) {
            for one in ExportTraceServiceRequest::decode(&*body).unwrap().resource_spans {
                now.resource = one.resource.unwrap().attributes;
                now.spans.extend(one.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
        } else {
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
        };
        taken.1.notify_all();
        drop(now);
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn json_of(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::BoolValue(truth)) => json!(truth),
        other => json!(format!("{other:?}")),
    }
}

/// All that is said of it.
fn attributes(of: &[KeyValue]) -> Value {
    of.iter().map(|pair| (pair.key.clone(), json_of(pair.value.as_ref()))).collect::<serde_json::Map<_, _>>().into()
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == i32::from(StatusCode::Error))
}

fn traced(board: &Board, collector: &Collector) -> Server {
    board.own(&Options::env("MUNDAP_OTLP_ENDPOINT", &*collector.url))
}

fn a_request_is_a_span_and_its_statements_are_its_children(board: &Board) {
    let collector = Collector::start(Mode::Takes);
    let server = traced(board, &collector);
    let user = server.new_user();
    let path = server.ask_at(&user, "Who is looking?");
    let reply = server.get(&path).send().is(200);
    let span = collector.span(&server, &reply);
    assert_eq!(span.name, "GET /api/v1/qna/{qna_id}");
    assert_eq!(span.kind(), SpanKind::Server);
    assert!(span.parent_span_id.is_empty() && !is_error(&span) && span.events.is_empty(), "{span:?}");
    let expected = json!({
        "http.request.method": "GET", "http.route": "/api/v1/qna/{qna_id}", "http.response.status_code": 200,
        "url.scheme": "http", "network.protocol.version": "1.1",
    });
    assert_eq!(attributes(&span.attributes), expected);
    let line = server.access(reply.request_id());
    assert_eq!(line["trace.id"], hex(&span.trace_id), "{line}");
    let traceparent = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
    assert_eq!(reply.header("traceparent"), Some(&*traceparent));

    let children = collector.children(&span);
    let find = children.iter().find(|child| child.name == "qna.find").unwrap_or_else(|| panic!("{children:?}"));
    assert_eq!((find.kind(), hex(&find.trace_id)), (SpanKind::Client, hex(&span.trace_id)));
    assert!(find.start_time_unix_nano >= span.start_time_unix_nano, "{find:?} {span:?}");
    assert!(find.end_time_unix_nano <= span.end_time_unix_nano, "{find:?} {span:?}");
    let system = board.database.name.split(['_', '@']).next().unwrap();
    let expected = json!({"db.system.name": system, "db.operation.name": "find", "db.query.summary": "qna.find"});
    assert_eq!(attributes(&find.attributes), expected);

    // A unit, and a password that is hashed.
    let reply = server.sign_in(&user.email, PASSWORD).is(200);
    let span = collector.span(&server, &reply);
    let mut names: Vec<String> = collector.children(&span).into_iter().map(|child| child.name).collect();
    names.retain(|name| ["argon2", "unit.begin", "sign_in.insert", "unit.commit"].contains(&&**name));
    names.sort();
    names.dedup();
    assert_eq!(names, ["argon2", "sign_in.insert", "unit.begin", "unit.commit"]);
    // What is read while the answer is sent, too.
    let reply = server.get("/load_all_qna").send().is(200);
    let span = collector.span(&server, &reply);
    assert!(!collector.children(&span).is_empty());
    // What the board does by itself is in no trace.
    let spans = collector.spans();
    let roots = spans.iter().filter(|span| span.parent_span_id.is_empty());
    assert!(roots.clone().count() > 3 && roots.clone().all(|root| root.kind() == SpanKind::Server), "{spans:?}");
    let resource = attributes(&collector.taken.0.lock().unwrap().resource);
    assert_eq!(resource["service.name"], "mundap");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
}

fn a_call_is_a_span_of_the_caller_s_trace(board: &Board) {
    let collector = Collector::start(Mode::Takes);
    let server = traced(board, &collector);
    let caller = Caller::of(&server);
    let mut request = tonic::Request::new(v1::GetQnaRequest { qna_id: 1 << 52, comment_count: 0 });
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{CALLER}-01").parse().unwrap());
    let refused = caller.run(caller.qnas().get_qna(request)).unwrap_err();
    let span = collector.refused(&refused);
    let traceparent = format!("00-{TRACE}-{}-01", hex(&span.span_id));
    assert_eq!(refused.metadata().get("traceparent").unwrap(), &*traceparent);
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!((&*span.name, span.kind()), ("mundap.v1.QnaService/GetQna", SpanKind::Server));
    let said = attributes(&span.attributes);
    assert_eq!(said["rpc.system"], "grpc");
    assert_eq!(said["rpc.service"], "mundap.v1.QnaService");
    assert_eq!(said["rpc.method"], "GetQna");
    assert_eq!(said["rpc.grpc.status_code"], 5);
    // Whoever asks for what is not there is no fault of the board's.
    assert!(!is_error(&span), "{span:?}");
    assert_eq!(collector.children(&span).len(), 1, "the look for the question");
}

fn a_refusal_is_no_fault_of_the_span(board: &Board) {
    let collector = Collector::start(Mode::Takes);
    let server = traced(board, &collector);
    let user = server.new_user();
    let blank = json!({"title": "", "content": "…"});
    for (reply, name, status) in [
        (server.get("/api/v1/qna/999999").send(), "GET /api/v1/qna/{qna_id}", 404),
        (server.post("/api/v1/qna").by(&user).json(blank).send(), "POST /api/v1/qna", 422),
        (server.get("/no/such/page").send(), "GET", 404),
        (server.call("BREW", "/coffee").send(), "HTTP", 404),
    ] {
        let span = collector.span(&server, &reply.is(status));
        let about = attributes(&span.attributes);
        assert_eq!((&*span.name, &about["http.response.status_code"]), (name, &json!(status)));
        assert!(!is_error(&span) && about["error.type"].is_null(), "{span:?}");
        assert_eq!(about["http.route"].is_null(), !name.contains('/'), "{about}");
        assert_eq!(about["http.request.method"] == "_OTHER", name == "HTTP", "{about}");
    }
    // Nor of a call's.
    let large = Caller::of(&server).by(&user).ask("Too large", &"x".repeat(600_000)).unwrap_err();
    let span = collector.refused(&large);
    let about = attributes(&span.attributes);
    assert_eq!(about["rpc.grpc.status_code"], tonic::Code::ResourceExhausted as i32);
    assert!(!is_error(&span) && about["error.type"].is_null(), "{span:?}");
}

fn a_fault_is_one_of_the_span(board: &Board) {
    let collector = Collector::start(Mode::Takes);
    let mut options = Options::env("MUNDAP_OTLP_ENDPOINT", &*collector.url);
    options.env.push(("MUNDAP_DATABASE_STATEMENT_TIMEOUT", "1s".to_owned()));
    let server = board.own(&options);
    let user = server.new_user();
    let body = json!({"title": "Is anybody there?", "content": "…"});
    let mut reply = None;
    while_held(&server.database_url, "BEGIN IMMEDIATE", || {
        reply = Some(server.post("/api/v1/qna").by(&user).json(body).may_fail().send().is(503));
    });
    let reply = reply.unwrap();
    let span = collector.span(&server, &reply);
    let about = attributes(&span.attributes);
    assert!(is_error(&span), "{span:?}");
    assert_eq!((&about["http.response.status_code"], &about["error.type"]), (&json!(503), &json!("503")));
    let children = collector.children(&span);
    let begin = children.iter().find(|child| child.name == "unit.begin").unwrap_or_else(|| panic!("{children:?}"));
    assert!(is_error(begin), "{begin:?}");
    assert!(["contention", "unavailable"].contains(&attributes(&begin.attributes)["error.type"].as_str().unwrap()));
    // A fault inside: the table is gone.
    execute(&server.database_url, "ALTER TABLE comment RENAME TO elsewhere");
    let reply = server.get("/api/v1/qna/1/comments").may_fail().send();
    assert!(reply.status >= 500, "{reply}");
    let span = collector.span(&server, &reply);
    assert!(is_error(&span), "{span:?}");
    assert_eq!(attributes(&span.attributes)["error.type"], reply.status.to_string());
    // Of a call too, which names its code.
    let caller = Caller::of(&server);
    let request = v1::ListCommentsRequest { qna_id: 1, ..v1::ListCommentsRequest::default() };
    let fault = caller.run(caller.comments().list_comments(request)).unwrap_err();
    let span = collector.refused(&fault);
    assert!(is_error(&span), "{span:?}");
    assert_eq!(attributes(&span.attributes)["error.type"], format!("{:?}", fault.code()));
}

fn the_callers_trace_goes_on(board: &Board) {
    let collector = Collector::start(Mode::Takes);
    let server = traced(board, &collector);
    let reply = server
        .get("/api/v1/qna")
        .header("traceparent", &format!("00-{TRACE}-{CALLER}-01"))
        .header("tracestate", "vendor=opaque,other=1")
        .send()
        .is(200);
    let span = collector.span(&server, &reply);
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!(span.trace_state, "vendor=opaque,other=1");
    assert_eq!(server.access(reply.request_id())["trace.id"], TRACE);
    assert_eq!(reply.header("traceparent"), Some(&*format!("00-{TRACE}-{}-01", hex(&span.span_id))));
    assert!(collector.children(&span).iter().all(|child| hex(&child.trace_id) == TRACE));
    // One that is no good is as if it were not there.
    let reply = server.get("/api/v1/qna").header("traceparent", &format!("00-{TRACE}-{CALLER}-1")).send().is(200);
    let span = collector.span(&server, &reply);
    assert!(span.parent_span_id.is_empty() && hex(&span.trace_id) != TRACE, "{span:?}");
}

/// The traces in which somebody asked for the list.
fn collected(collector: &Collector) -> Vec<String> {
    let spans = collector.spans();
    let lists = spans.iter().filter(|span| span.name == "GET /api/v1/qna");
    let mut found: Vec<String> = lists.map(|span| hex(&span.trace_id)).collect();
    found.sort();
    found.dedup();
    found
}

fn the_caller_decides_whether_a_trace_is_collected(board: &Board) {
    let collector = Collector::start(Mode::Takes);
    let mut options = Options::env("MUNDAP_OTLP_ENDPOINT", &*collector.url);
    options.env.push(("MUNDAP_OTLP_SAMPLE", "0".to_owned()));
    let server = board.own(&options);
    let call = |flags: &str| {
        let trace = if flags == "01" { TRACE.to_owned() } else { TRACE.replace('4', "5") };
        server.get("/api/v1/qna").header("traceparent", &format!("00-{trace}-{CALLER}-{flags}")).send().is(200)
    };
    let unsampled = call("00");
    assert!(unsampled.header("traceparent").unwrap().ends_with("-00"), "{unsampled}");
    let line = server.access(unsampled.request_id());
    assert_eq!(line["trace.id"], TRACE.replace('4', "5"));
    // Of those that begin here, none is.
    server.get("/api/v1/qna").send().is(200);
    let sampled = call("01");
    collector.span(&server, &sampled);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    assert_eq!(collected(&collector), [TRACE]);
}

fn the_share_is_of_traces_that_begin_here(board: &Board) {
    let collector = Collector::start(Mode::Takes);
    let mut options = Options::env("MUNDAP_OTLP_ENDPOINT", &*collector.url);
    options.env.push(("MUNDAP_OTLP_SAMPLE", "0.5".to_owned()));
    let server = board.own(&options);
    let mut named: Vec<String> = Vec::new();
    for _ in 0..100 {
        let reply = server.get("/api/v1/qna").send().is(200);
        let parent = reply.header("traceparent").unwrap();
        if parent.ends_with("-01") {
            named.push(parent.split('-').nth(1).unwrap().to_owned());
        }
    }
    // Less often than once in a thousand million runs it is outside of this.
    assert!((20..=80).contains(&named.len()), "{}", named.len());
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    named.sort();
    assert_eq!(collected(&collector), named);
}

fn nothing_personal_is_in_a_trace(board: &Board) {
    let collector = Collector::start(Mode::Takes);
    let mut options = Options::env("MUNDAP_OTLP_ENDPOINT", &*collector.url);
    // What the log says is no part of a trace.
    options.env.push(("MUNDAP_LOG", "trace".to_owned()));
    let server = board.own(&options);
    let user = server.new_user();
    let path = server.ask_at(&user, "A title that is mine alone");
    server.get(format!("{path}?comments=20")).by(&user).header("user-agent", "my-own-browser").send().is(200);
    server.get("/api/v1/qna?author=4242424242424242").send().is(200);
    server.get("/somebody@example.com/secrets").send().is(404);
    server.sign_in(&user.email, "not the password").is(400);
    let last = server.get(&path).send().is(200);
    collector.span(&server, &last);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let taken = collector.taken.0.lock().unwrap();
    assert!(taken.spans.len() > 10, "{}", taken.spans.len());
    // Every field; the bytes themselves hold ids, in which anything may be found.
    let sent = format!("{:?} {:?}", taken.spans, taken.resource);
    let secrets = server.secrets.lock().unwrap();
    let own = [
        "@",
        "eyJ",
        "mine alone",
        "my-own-browser",
        "4242424242424242",
        "secrets",
        "127.0.0.1",
        "SELECT",
        "comments=20",
    ];
    for secret in secrets.iter().map(String::as_str).chain(own) {
        assert!(!sent.contains(secret), "{secret} was sent");
    }
}

/// How many spans came to this end.
fn spans(server: &Server, outcome: &str) -> f64 {
    server.metrics()[&format!("mundap_trace_spans_total{{outcome=\"{outcome}\"}}")]
}

fn a_collector_that_refuses_costs_nobody_anything(board: &Board) {
    let collector = Collector::start(Mode::Refuses);
    let server = traced(board, &collector);
    assert!(["delivered", "lost", "dropped"].iter().all(|outcome| spans(&server, outcome) < 0.5));
    let told = |message: &str| {
        let lines = server.log.lines();
        lines.iter().filter(|line| line.contains(message)).count()
    };
    for batches in 1..=3 {
        server.get("/api/v1/qna").send().is(200);
        collector.wait("another batch", |taken| (taken.batches >= batches).then_some(()));
    }
    eventually("the spans to be lost", || spans(&server, "lost") >= 3.0);
    assert_eq!(told("the trace collector does not take spans"), 1);
    collector.set(Mode::Takes);
    let reply = server.get("/api/v1/qna").send().is(200);
    collector.span(&server, &reply);
    server.log.wait_for("that spans are taken again", |line| line["spans"].is_number());
    assert!(spans(&server, "delivered") >= 1.0);
    assert_eq!(
        (told("the trace collector does not take spans"), told("the trace collector takes spans again")),
        (1, 1)
    );
    // Nobody there at all, at the end.
    drop(server);
    let server = board.own(&Options::env("MUNDAP_OTLP_ENDPOINT", "http://127.0.0.1:9"));
    server.get("/api/v1/qna").send().is(200);
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
    assert!(server.log.lines().iter().any(|line| line.contains("the trace collector does not take spans")));
}

fn a_collector_that_hangs_costs_spans_alone(board: &Board) {
    let collector = Collector::start(Mode::Hangs);
    let server = traced(board, &collector);
    // The queue is full long before the collector is given up.
    let mut slowest = Duration::ZERO;
    let deadline = Instant::now() + PATIENCE;
    while spans(&server, "dropped") < 1.0 {
        assert!(Instant::now() < deadline, "nothing is dropped");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mut answer = server.agent.get(format!("{}/api/v1/qna", server.base())).call().unwrap();
                        assert_eq!(answer.status().as_u16(), 200);
                        answer.body_mut().read_to_string().unwrap();
                    }
                });
            }
        });
        let started = Instant::now();
        server.get("/api/v1/qna").send().is(200);
        slowest = slowest.max(started.elapsed());
    }
    // It waits for a batch at a time, 1.5 seconds each: a request that waited for one would have taken that long.
    assert!(slowest < Duration::from_secs(1), "a request took {slowest:?}");
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(8), "the end took {took:?}");
    assert!(server.log.lines().iter().any(|line| line.contains("could not be delivered")), "{:?}", server.log.lines());
}

fn the_end_delivers_the_last_spans(board: &Board) {
    let collector = Collector::start(Mode::Takes);
    let server = traced(board, &collector);
    let replies: Vec<Reply> = (0..20).map(|_| server.get("/api/v1/qna").send().is(200)).collect();
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let delivered: Vec<String> = collector.spans().iter().map(|span| hex(&span.span_id)).collect();
    for reply in replies {
        let id = reply.header("traceparent").unwrap().split('-').nth(2).unwrap().to_owned();
        assert!(delivered.contains(&id), "{id} is not among {delivered:?}");
    }
}

fn without_a_collector_there_is_no_trace(board: &Board) {
    let server = board.own(&Options::default());
    let reply = server.get("/api/v1/qna").header("traceparent", &format!("00-{TRACE}-{CALLER}-01")).send().is(200);
    assert_eq!(reply.header("traceparent"), None);
    let line = server.access(reply.request_id());
    assert_eq!((&line["trace.id"], &line["span.id"]), (&json!(TRACE), &Value::Null));
    assert!(!server.metrics().keys().any(|name| name.starts_with("mundap_trace_spans_total")));
}

fn a_bad_endpoint_is_a_setting_to_change(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("MUNDAP_OTLP_ENDPOINT", "collector:4318"),
        ("MUNDAP_OTLP_ENDPOINT", "not a url"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://collector"),
        ("MUNDAP_OTLP_SAMPLE", "1.5"),
        ("MUNDAP_OTLP_SAMPLE", "NaN"),
    ] {
        for command in ["serve", "check"] {
            let ended = run(mundap(dir.path()).arg(command).env(name, value));
            assert_eq!(ended.code, Some(2), "{name}={value}: {ended:?}");
            let said = ended.err.contains(name)
                || ended.err.contains(&name["MUNDAP_".len()..].to_lowercase().replace('_', "-"));
            assert!(said, "{name}={value}: {ended:?}");
        }
    }
    let ended =
        run(mundap(dir.path()).arg("check").env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hush@collector:4318"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("MUNDAP_OTLP_ENDPOINT=http://collector:4318/\n"), "{ended:?}");
}
