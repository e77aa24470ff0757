//! The operators' port, what the log says of each request, and a database that goes away and comes back.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::{Agent, http};
use url::Url;

use crate::board::{Board, PASSWORD, new_email};
use crate::database::{execute, while_held};
use crate::grpc::Caller;
use crate::program::eventually;
use crate::server::{Options, Server, Starting, agent, mundap};

crate::tests![
    requests_are_counted_by_template_method_and_status,
    the_access_log_says_what_was_asked_and_by_whom,
    a_database_that_is_away_costs_requests_and_not_the_process;
    once:
    it_is_alive_and_ready,
    it_is_alive_while_it_waits_for_its_database,
    each_port_has_its_own_paths,
    the_log_can_be_quieter,
    the_log_can_be_text,
];

fn asked(agent: &Agent, ops: &str, path: &str) -> (u16, String) {
    let mut answer = agent.get(format!("http://{ops}{path}")).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

impl Server {
    /// The status and body of a `GET` on the operators' port.
    pub(crate) fn operator(&self, path: &str) -> (u16, String) {
        asked(&self.agent, &self.ops, path)
    }

    pub(crate) fn readiness(&self) -> (u16, Value) {
        let (status, body) = self.operator("/readyz");
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The metrics' lines, each with its value.
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, text) = self.operator("/metrics");
        assert_eq!(status, 200);
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let pair = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        };
        lines.map(pair).collect()
    }
}

fn it_is_alive_and_ready(board: &Board) {
    let server = board.server();
    for (path, expected) in [
        ("/livez", json!({"status": "alive"})),
        ("/readyz", json!({"status": "ready", "database": "ok", "schema": "ok", "images": "ok", "draining": false})),
    ] {
        let mut answer = server.agent.get(format!("http://{}{path}", server.ops)).call().unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        let body: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        assert_eq!(body, expected, "{path}");
    }
}

fn it_is_alive_while_it_waits_for_its_database(board: &Board) {
    let url = board.database.fresh();
    let held = format!("{url}?mode=rwc");
    // What opens the file has nothing to change about it then; what migrates it waits.
    execute(&held, "PRAGMA journal_mode = WAL");
    let mut starting = None;
    while_held(&held, "BEGIN IMMEDIATE", || {
        let waiting = starting.insert(Starting::on(&url, &Options::default()));
        let line = waiting.log.wait_for_message("the board is not there yet");
        let (agent, ops) = (agent(), line["ops.addr"].as_str().unwrap());
        assert_eq!(asked(&agent, ops, "/livez"), (200, r#"{"status":"alive"}"#.to_owned()));
        assert_eq!(asked(&agent, ops, "/readyz"), (503, r#"{"status":"starting"}"#.to_owned()));
        let (status, metrics) = asked(&agent, ops, "/metrics");
        assert!(status == 200 && metrics.contains("\nmundap_ready 0\n"), "{metrics}");
        assert!(metrics.contains("\nprocess_start_time_seconds 1"), "{metrics}");
    });
    let server = starting.unwrap().ready();
    eventually("the board to be ready", || server.readiness().0 == 200);
    server.log.wait_for_message("made a new signing key");
    assert!((server.metrics()["mundap_ready"] - 1.0).abs() < 0.1);
}

fn each_port_has_its_own_paths(board: &Board) {
    let server = board.server();
    for (method, path, status) in [
        ("HEAD", "/livez", 200),
        ("HEAD", "/readyz", 200),
        ("POST", "/livez", 405),
        ("POST", "/readyz", 405),
        ("POST", "/metrics", 405),
        ("POST", "/log", 405),
        ("GET", "/livez/", 404),
    ] {
        let request = http::Request::builder().method(method).uri(format!("http://{}{path}", server.ops));
        let answer = server.agent.run(request.body(()).unwrap()).unwrap();
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        assert_eq!(answer.headers().contains_key("allow"), status == 405, "{method} {path}: {answer:?}");
    }
    for path in ["/livez", "/readyz", "/metrics", "/metrics/"] {
        for method in ["GET", "POST", "HEAD"] {
            assert_eq!(server.call(method, path).send().status, 404, "{method} {path}");
        }
        server.get(path).send().problem(404, "route_not_found");
    }
    for path in ["/api/v1/qna", "/load_all_qna", "/openapi.json", "/docs", "/.well-known/jwks.json", "/"] {
        assert_eq!(server.operator(path).0, 404, "{path}");
    }
}

fn requests_are_counted_by_template_method_and_status(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    let path = server.ask_at(&user, "How often?");
    for _ in 0..3 {
        server.get(&path).send().is(200);
    }
    server.call("HEAD", &path).send().is(200);
    server.get("/api/v1/qna/999999").send().is(404);
    server.get("/api/v1/qna?limit=0").send().is(422);
    server.delete(&path).send().is(401);
    server.get(&path).bearer("no-token").send().is(401);
    server.get("/load_qna/1").send().is(200);
    server.get("/no/such/path").send().is(404);
    server.get("/no/other/path").send().is(404);
    server.call("BREW", "/coffee").send();

    let expected = [
        ("/api/v1/users", "POST", 201, 1),
        ("/api/v1/auth/token", "POST", 200, 1),
        ("/api/v1/qna", "POST", 201, 1),
        ("/api/v1/qna", "GET", 422, 1),
        ("/api/v1/qna/{qna_id}", "GET", 200, 3),
        ("/api/v1/qna/{qna_id}", "HEAD", 200, 1),
        ("/api/v1/qna/{qna_id}", "GET", 404, 1),
        ("/api/v1/qna/{qna_id}", "GET", 401, 1),
        ("/api/v1/qna/{qna_id}", "DELETE", 401, 1),
        ("/load_qna/{qna_id}", "GET", 200, 1),
        // Of the document that the harness reads.
        ("/openapi.json", "GET", 200, 1),
        ("unmatched", "GET", 404, 2),
        ("unmatched", "other", 404, 1),
    ];
    let expected: BTreeMap<String, f64> = expected
        .into_iter()
        .map(|(route, method, status, count)| {
            (format!("{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}"), f64::from(count))
        })
        .collect();
    let family = |name: &str| -> BTreeMap<String, f64> {
        let metrics = server.metrics().into_iter();
        metrics.filter_map(|(line, value)| Some((line.strip_prefix(name)?.to_owned(), value))).collect()
    };
    // A request is counted when it is over, which its client may learn first.
    let mut found = BTreeMap::new();
    eventually("the last request to be counted", || {
        found = family("mundap_http_requests_total");
        found.values().sum::<f64>() >= expected.values().sum()
    });
    assert_eq!(found, expected);
    assert_eq!(family("mundap_http_request_duration_seconds_count"), expected);
    let metrics = server.metrics();
    assert_eq!(metrics["mundap_http_requests_in_flight"].to_bits(), 0f64.to_bits());
    let version = metrics.keys().filter(|name| name.starts_with("mundap_build_info{version=\"")).count();
    assert_eq!(version, 1, "{metrics:?}");
    let strange =
        metrics.keys().find(|name| ["999999", "such", "coffee", "BREW", "limit=0"].iter().any(|w| name.contains(w)));
    assert_eq!(strange, None, "what strangers choose is no label");
}

fn the_access_log_says_what_was_asked_and_by_whom(board: &Board) {
    let server = board.server();
    let user = board.ann();
    let reply =
        server.get("/api/v1/users/me?secret=word").by(user).header("x-request-id", "of-the-access-log").send().is(200);
    let mut line = server.access("of-the-access-log");
    let took = line["duration_ms"].as_f64().unwrap();
    assert!(took > 0.0 && took < 30_000.0, "{line}");
    assert!(line["timestamp"].is_string(), "{line}");
    for name in ["duration_ms", "timestamp", "message"] {
        line.as_object_mut().unwrap().remove(name).unwrap_or_else(|| panic!("no {name}"));
    }
    let expected = json!({
        "level": "INFO",
        "target": "mundap_api::edge",
        "http.method": "GET",
        "http.route": "/api/v1/users/me",
        "http.status": 200,
        "bytes": reply.body.len(),
        "whole": true,
        "request.id": "of-the-access-log",
        "actor.id": user.id,
    });
    assert_eq!(line, expected);

    let path = server.ask_at(user, "Who reads the log?");
    let cases = [
        (server.get(&path), "/api/v1/qna/{qna_id}", 200, None),
        (server.call("HEAD", &path), "/api/v1/qna/{qna_id}", 200, None),
        (server.get(&path).by(user).header("if-none-match", "*"), "/api/v1/qna/{qna_id}", 304, Some(user.id)),
        (server.delete(&path).by(board.bob()), "/api/v1/qna/{qna_id}", 403, Some(board.bob().id)),
        (server.get("/api/v1/qna/x"), "/api/v1/qna/{qna_id}", 400, None),
        (server.get(&path).bearer("not-a-token"), "/api/v1/qna/{qna_id}", 401, None),
        (server.delete(&path).by(user), "/api/v1/qna/{qna_id}", 204, Some(user.id)),
        (server.get("/nothing/here"), "unmatched", 404, None),
        (server.get("/load_qna/0"), "/load_qna/{qna_id}", 404, None),
    ];
    for (call, route, status, actor) in cases {
        let reply = call.send().is(status);
        let line = server.access(reply.request_id());
        let found = (&line["http.route"], &line["http.status"], &line["bytes"], &line["whole"]);
        assert_eq!(found, (&json!(route), &json!(status), &json!(reply.body.len()), &json!(true)), "{line}");
        assert_eq!(line["actor.id"].as_i64(), actor, "{line}");
    }
}

fn the_log_can_be_quieter(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_LOG", "mundap_api::serve=info,warn"));
    server.get("/api/v1/qna").send().is(200);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let lines = server.log.lines();
    assert!(lines.iter().any(|line| line.contains("mundap_api::serve")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("http.route")), "{lines:?}");
}

fn the_log_can_be_text(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = mundap(dir.path());
    command.args([
        "--http-addr",
        "127.0.0.1:0",
        "--ops-addr",
        "127.0.0.1:0",
        "--grpc-addr",
        "off",
        "--log-format",
        "text",
    ]);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.find(|line| line.contains("http.addr=")).unwrap();
    let address = first.split("http.addr=").nth(1).unwrap().split(' ').next().unwrap();
    let reply = ureq::get(format!("http://{address}/api/v1/qna?limit=3")).call().unwrap();
    let id = reply.headers()["x-request-id"].to_str().unwrap();
    let line = lines.find(|line| line.contains("http.route=")).unwrap();
    for part in ["INFO", "GET /api/v1/qna 200 in ", "http.status=200", "whole=true", id] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    // Colours are for terminals; and what strangers choose is not logged here either.
    assert!(!line.contains('\u{1b}') && !line.contains("limit"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A way to a database that can be cut or blocked.
struct Line {
    port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

struct State {
    mode: Mode,
    ends: Vec<TcpStream>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Open,
    /// Everything is taken, nothing is answered.
    Blocked,
    /// Whoever comes is turned away.
    Cut,
}

impl Line {
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new((Mutex::new(State { mode: Mode::Open, ends: Vec::new() }), Condvar::new()));
        std::thread::spawn({
            let state = state.clone();
            move || {
                for client in listener.incoming() {
                    let Ok(client) = client else { return };
                    let Ok(server) = TcpStream::connect(&server) else { continue };
                    let copy = |stream: &TcpStream| stream.try_clone().unwrap();
                    let mut held = state.0.lock().unwrap();
                    if held.mode == Mode::Cut {
                        continue;
                    }
                    held.ends.extend([copy(&client), copy(&server)]);
                    drop(held);
                    for (from, to) in [(copy(&client), copy(&server)), (server, client)] {
                        let state = state.clone();
                        std::thread::spawn(move || forward(from, to, &state));
                    }
                }
            }
        });
        Self { port, state }
    }

    fn set(&self, mode: Mode) {
        let mut held = self.state.0.lock().unwrap();
        held.mode = mode;
        if mode == Mode::Cut {
            for end in held.ends.drain(..) {
                // It may be over already.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
        self.state.1.notify_all();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.set(Mode::Cut);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, state: &(Mutex<State>, Condvar)) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        let held = state.0.lock().unwrap();
        drop(state.1.wait_while(held, |held| held.mode == Mode::Blocked).unwrap());
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // The other direction ends with this one.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn a_file_that_another_writes_to_costs_writes_alone(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_DATABASE_STATEMENT_TIMEOUT", "2s"));
    let user = server.new_user();
    let path = server.ask_at(&user, "May I?");
    let edit = || server.patch(&path).by(&user).json(json!({"title": "Now"})).may_fail().send();
    while_held(&server.database_url, "BEGIN IMMEDIATE", || {
        let started = Instant::now();
        let reply = edit();
        assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}: {reply}", started.elapsed());
        reply.problem(503, "busy");
        server.get(&path).by(&user).send().is(200);
        assert_eq!(server.readiness().0, 200);
    });
    assert_eq!(edit().is(200).json()["version"], 2);
}

/// Whoever is refused because of an outage that was told has a line of the access log alone: there may be thousands of them.
fn says_nothing_new(server: &Server) {
    let faces = ["/api/v1/qna", "/load_all_qna"].map(|path| {
        let reply = server.get(path).may_fail().send().is(503);
        reply.header("x-request-id").unwrap().to_owned()
    });
    let call = Caller::of(server).qna(1).unwrap_err();
    assert_eq!(call.code(), tonic::Code::Unavailable, "{call:?}");
    let call = call.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
    for id in faces.into_iter().chain([call]) {
        server
            .log
            .wait_for("the access log's", |line| line["request.id"] == id.as_str() && line["duration_ms"].is_number());
        let said = server.log.lines().into_iter().filter(|line| line.contains(&id)).collect::<Vec<_>>();
        assert_eq!(said.len(), 1, "{said:?}");
    }
}

fn a_database_that_is_away_costs_requests_and_not_the_process(board: &Board) {
    let mut url = Url::parse(&board.database.fresh()).unwrap();
    if url.scheme() == "sqlite" {
        // There is no line to cut, but somebody else may hold the file.
        return a_file_that_another_writes_to_costs_writes_alone(board);
    }
    let line = Line::to(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(3306)));
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(line.port)).unwrap();
    let mut options = Options::env("MUNDAP_DATABASE_ACQUIRE_TIMEOUT", "1s");
    options.env.push(("MUNDAP_DATABASE_STATEMENT_TIMEOUT", "2s".to_owned()));
    let server = Server::start(url.as_str(), &options);
    let user = server.new_user();
    let path = server.ask_at(&user, "Is anybody there?");

    for (mode, words) in [(Mode::Cut, ["unreachable", "unreachable"]), (Mode::Blocked, ["slow", "unreachable"])] {
        line.set(mode);
        let body = json!({"title": "Now?", "content": "Or later"});
        let calls =
            [server.get("/api/v1/qna"), server.get(&path).by(&user), server.post("/api/v1/qna").by(&user).json(body)];
        for call in calls {
            let started = Instant::now();
            let reply = call.may_fail().send().is(503);
            assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}: {reply}", started.elapsed());
            let after: u32 = reply.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&after), "{reply}");
            reply.problem(503, "database_unavailable");
        }
        let reply = server.get("/load_all_qna").may_fail().send();
        assert!(reply.header("retry-after").is_some(), "{reply}");
        reply.detail(503, "the database is unavailable, try again");
        let form = [("grant_type", "password"), ("username", &*user.email), ("password", PASSWORD)];
        let sign_in = server.post("/api/v1/auth/token").form(&form).may_fail().send();
        sign_in.problem(503, "database_unavailable");
        // Once enough has come to nothing, the log says why; the pool knows only that it took too long.
        server.log.wait_for("why", |line| {
            let reason = line["error"].as_str().filter(|_| line["target"] == "mundap_infra::breaker");
            reason.is_some_and(|reason| (reason == "it says nothing within 500ms") == (mode == Mode::Blocked))
        });
        says_nothing_new(&server);
        // What was looked at a moment ago is not looked at again.
        eventually("the node not to be ready", || server.readiness().0 == 503);
        let (status, body) = server.readiness();
        assert!(status == 503 && words.contains(&body["database"].as_str().unwrap()), "{body}");
        assert_eq!(body["status"], "not ready");
        assert_eq!(server.operator("/livez").0, 200);
        server.get("/openapi.json").send().is(200);

        line.set(Mode::Open);
        eventually("the database to be back", || server.readiness().0 == 200);
        for _ in 0..10 {
            server.get(&path).by(&user).send().is(200);
        }
        server.ask_at(&user, "Back again");
        let body = json!({"email": new_email(), "password": PASSWORD, "display_name": "New"});
        server.post("/api/v1/users").json(body).send().is(201);
        server.sign_in(&user.email, PASSWORD).is(200);
    }
    // What was answered 503 was not done.
    let titles = server.get("/api/v1/qna").send().is(200).json();
    let titles: Vec<&Value> = titles["items"].as_array().unwrap().iter().map(|qna| &qna["title"]).collect();
    assert_eq!(titles, ["Back again", "Back again", "Is anybody there?"]);
    // The first 503s are in the log with their cause and without the password, and each outage once.
    let lines = server.log.lines();
    assert!(lines.iter().any(|line| line.contains("\"error.code\":\"database_unavailable\"")), "{lines:?}");
    for told in
        ["the database does not answer", "what a connection to the database comes to", "the database answers again"]
    {
        assert_eq!(lines.iter().filter(|line| line.contains(told)).count(), 2, "{told}: {lines:?}");
    }
    if let Some(password) = url.password() {
        assert!(!lines.iter().any(|line| line.contains(&format!(":{password}@"))), "{lines:?}");
    }
}
