//! What is counted and timed, and what the log says of what is slow.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::board::Board;
use crate::documents::{read, table};
use crate::grpc::Caller;
use crate::images::a_png;
use crate::program::eventually;
use crate::server::{Options, Server};

crate::tests![
    statements_are_timed_by_repository_and_method,
    a_slow_statement_is_named_in_the_log,
    what_happens_is_counted_once;
    once:
    every_metric_is_in_the_document_and_the_other_way_round,
    strangers_make_no_labels,
    the_log_is_changed_while_it_serves,
    a_change_of_the_log_takes_itself_back,
    a_trace_is_honoured_in_the_log,
    what_is_no_http_is_no_error,
];

fn statements_are_timed_by_repository_and_method(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    let path = server.ask_at(&user, "How long does it take?");
    let count = |query: &str, outcome: &str| {
        let (repository, method) = query.split_once('.').unwrap();
        let labels = format!("{{repository=\"{repository}\",method=\"{method}\",outcome=\"{outcome}\"}}");
        server.metrics().get(&format!("mundap_database_query_duration_seconds_count{labels}")).copied().unwrap_or(0.0)
    };
    let before = ["qna.find", "qna.insert", "unit.begin", "unit.commit"].map(|query| count(query, "ok"));
    for _ in 0..3 {
        server.get(&path).send().is(200);
    }
    server.ask_at(&user, "And again?");
    let after = ["qna.find", "qna.insert", "unit.begin", "unit.commit"].map(|query| count(query, "ok"));
    let more: Vec<f64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    assert!(more[0] >= 3.0 && more[1..] == [1.0, 1.0, 1.0], "{before:?} {after:?}");

    let taken = json!({"email": user.email, "password": "longenough", "display_name": "Second"});
    server.post("/api/v1/users").json(taken).send().is(409);
    assert!(count("user.insert", "duplicate") > 0.0);

    // Nobody asks any more: nobody has a connection, nobody waits for one, and the pools are no larger than they may be.
    eventually("every connection to be given back", || {
        let metrics = server.metrics();
        let sum = |start: &str| metrics.iter().filter(|(name, _)| name.starts_with(start)).map(|(_, n)| n).sum::<f64>();
        let busy: f64 = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("mundap_database_connections{") && name.contains("used"))
            .map(|(_, count)| count)
            .sum();
        let open = sum("mundap_database_connections{");
        let most = sum("mundap_database_connections_max");
        busy < 0.5 && open >= 1.0 && open <= most && sum("mundap_database_connections_waiting") < 0.5
    });
}

fn a_slow_statement_is_named_in_the_log(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_DATABASE_SLOW_QUERY", "0ms"));
    server.get("/api/v1/qna/1").send().is(404);
    let line = server.log.wait_for("the slow one's", |line| line["db.query"] == "qna.find");
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!(line["db.outcome"], "ok", "{line}");
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0, "{line}");
    assert!(!server.log.lines().join("\n").contains("SELECT"), "no statement is in the log");
    // By default half a statement's time: none of these takes as long.
    let server = board.own(&Options::default());
    server.get("/api/v1/qna/1").send().is(404);
    server.signal("TERM");
    server.end();
    assert!(!server.log.lines().join("\n").contains("db.query"));
}

/// How often each event was counted, where it was at all.
fn events(server: &Server) -> BTreeMap<String, u32> {
    let metrics = server.metrics().into_iter();
    let event = |(name, count): (String, f64)| {
        let event = name.strip_prefix("mundap_events_total{event=\"")?.strip_suffix("\"}")?.to_owned();
        // A count of few.
        Some((event, format!("{count:.0}").parse().unwrap()))
    };
    metrics.filter_map(event).filter(|(_, count)| *count > 0).collect()
}

fn what_happens_is_counted_once(board: &Board) {
    let server = board.own(&Options::default());
    assert_eq!(events(&server), BTreeMap::new());
    let user = server.new_user();
    let ask = |key: &str| {
        let body = json!({"title": "Who counts?", "content": "And how often?"});
        server.post("/api/v1/qna").by(&user).json(body).header("idempotency-key", key).send().is(201)
    };
    let path = ask("first").header("location").unwrap().replace(&server.base(), "");
    ask("first");
    server.patch(&path).by(&user).json(json!({"title": "Who else?"})).send().is(200);
    server.patch(&path).by(&user).json(json!({})).send().is(200);
    server.patch(&path).by(&server.new_user()).json(json!({"title": "Me?"})).send().is(403);
    let comments = format!("{path}/comments");
    let comment = server.post(&comments).by(&user).json(json!({"content": "I do."})).send().is(201);
    let comment = format!("/api/v1/comments/{}", comment.json()["comment_id"]);
    server.post(format!("{comment}/images")).by(&user).file(&a_png()).send().is(201);
    server.sign_in(&user.email, "not the password").is(400);
    server.delete(&path).by(&user).send().is(204);
    let expected = [
        ("registered", 2),
        ("signed_in", 2),
        ("sign_in_refused", 1),
        ("asked", 1),
        ("replayed", 1),
        ("qna_edited", 1),
        ("commented", 1),
        ("image_attached", 1),
        ("qna_deleted", 1),
    ];
    let expected: BTreeMap<String, u32> = expected.map(|(event, count)| (event.to_owned(), count)).into();
    assert_eq!(events(&server), expected);
    let metrics = server.metrics();
    let count = |name: &str| metrics.get(name).map(|count| format!("{count:.0}"));
    assert_eq!(count("mundap_refusals_total{code=\"not_author\"}").as_deref(), Some("1"));
    assert_eq!(count("mundap_images_total{outcome=\"cleaned\"}").as_deref(), Some("1"));
    assert_eq!(count("mundap_work_duration_seconds_count{pool=\"argon2\"}").as_deref(), Some("5"));
    assert_eq!(count("mundap_work_duration_seconds_count{pool=\"picture\"}").as_deref(), Some("1"));
    let idle = ["argon2", "picture"].map(|pool| count(&format!("mundap_work_busy{{pool=\"{pool}\"}}")));
    assert_eq!(idle.each_ref().map(Option::as_deref), [Some("0"), Some("0")]);
}

/// Each metric of a scrape with its type and its labels.
fn scraped(server: &Server) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let (_, text) = server.operator("/metrics");
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no HELP");
            found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let family = family.filter(|family| found.contains_key(*family)).unwrap_or(name);
            let labels = rest.split('}').next().unwrap().split("\",");
            let names = labels.map(|label| label.split('=').next().unwrap().to_owned()).filter(|name| name != "le");
            found.get_mut(family).unwrap_or_else(|| panic!("{line} has no TYPE")).1.extend(names);
        }
    }
    found
}

fn every_metric_is_in_the_document_and_the_other_way_round(board: &Board) {
    let text = read("docs/metrics.md");
    let code = |cell: &str| cell.trim_matches('`').to_owned();
    let row = |cells: Vec<String>| {
        let labels: BTreeSet<String> =
            cells[2].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        (code(&cells[0]), (cells[1].clone(), labels, cells[3].clone()))
    };
    let documented: BTreeMap<_, _> = table(&text, "metric").into_iter().map(row).collect();
    let server = board.own(&Options::default());
    let with_mail = |there: &str| there == "with mail";
    let missing = |found: &BTreeMap<String, _>, wanted: fn(&str) -> bool| -> Vec<String> {
        let wanted = documented.iter().filter(|(_, (_, _, there))| wanted(there));
        wanted.map(|(name, _)| name.clone()).filter(|name| !found.contains_key(name)).collect()
    };
    assert_eq!(missing(&scraped(&server), |there| there == "from the start"), Vec::<String>::new());

    let user = server.new_user();
    let path = server.ask_at(&user, "What is counted?");
    let comment = server.post(format!("{path}/comments")).by(&user).json(json!({"content": "All."})).send().is(201);
    let images = format!("/api/v1/comments/{}/images", comment.json()["comment_id"]);
    server.post(images).by(&user).file(&a_png()).send().is(201);
    server.get("/api/v1/qna/999999").send().is(404);
    Caller::of(&server).qna(999_999).unwrap_err();
    // A request is counted when it is over, which its client may learn first.
    eventually("all of it to be counted", || missing(&scraped(&server), |there| there == "in use").is_empty());
    for (name, (kind, labels)) in scraped(&server) {
        let (documented_kind, documented_labels, there) =
            documented.get(&name).unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        assert!(!with_mail(there), "{name}");
        assert_eq!((&kind, &labels), (documented_kind, documented_labels), "{name}");
    }

    let kept = table(&text, "event").into_iter().flat_map(|cells| cells[0].split(", ").map(code).collect::<Vec<_>>());
    let counted = server.metrics().into_keys();
    let counted =
        counted.filter_map(|name| Some(name.strip_prefix("mundap_events_total{event=\"")?.replace("\"}", "")));
    assert_eq!(kept.collect::<BTreeSet<_>>(), counted.collect::<BTreeSet<_>>());
}

fn strangers_make_no_labels(board: &Board) {
    let server = board.own(&Options::default());
    let walk = |n: usize| {
        server.get(format!("/no/such/{n}")).send().is(404);
        server.get(format!("/api/v1/qna/{}", 1_000_000 + n)).send().is(404);
        server.call(&format!("BREW{n}"), "/coffee").send();
        server.get("/api/v1/qna").header("x-request-id", &format!("id-{n}")).send().is(200);
    };
    let series = || server.metrics().len();
    walk(0);
    let sum = || -> f64 {
        server.metrics().iter().filter(|(name, _)| name.starts_with("mundap_http_requests_total")).map(|(_, n)| n).sum()
    };
    eventually("four to be counted", || sum() >= 4.0);
    let before = series();
    for n in 1..40 {
        walk(n);
    }
    eventually("all to be counted", || sum() >= 160.0);
    assert_eq!(series(), before);
}

/// The status and body of a `PUT` of a filter.
fn put_filter(server: &Server, content_type: &str, body: &str) -> (u16, Value) {
    let request = server.agent.put(format!("http://{}/log", server.ops)).header("content-type", content_type);
    let mut answer = request.send(body).unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap())
}

fn filter(server: &Server) -> Value {
    serde_json::from_str::<Value>(&server.operator("/log").1).unwrap()["filter"].take()
}

fn the_log_is_changed_while_it_serves(board: &Board) {
    let server = board.own(&Options::default());
    assert_eq!(filter(&server), "info");
    let answer = put_filter(&server, "text/plain", "warn\n");
    assert_eq!(answer, (200, json!({"filter": "warn"})));
    assert_eq!(filter(&server), "warn");
    server.log.wait_for("that the filter was changed", |line| line["log.filter"] == "warn");
    server.get("/api/v1/qna").header("x-request-id", "unheard").send().is(200);
    let answer = put_filter(&server, "application/json", r#"{"filter": "warn,mundap_api::edge=info"}"#);
    assert_eq!(answer, (200, json!({"filter": "warn,mundap_api::edge=info"})));
    let heard = server.get("/api/v1/qna").send().is(200);
    server.access(heard.request_id());
    assert!(!server.log.lines().join("\n").contains("unheard"));

    for (content_type, bad) in [
        ("text/plain", "mundap_api=loudest"),
        ("text/plain", "==="),
        ("text/plain", ""),
        ("text/plain", "inf"),
        ("text/plain", "warn,mundap_nfra=debug"),
        ("application/json", "warn"),
        ("application/json", r#"{"filter": "warn", "until": "noon"}"#),
        ("application/json", r#"{"filter": "warn", "for": "a while"}"#),
    ] {
        let (status, body) = put_filter(&server, content_type, bad);
        assert!(status == 400 && body["error"].as_str().is_some_and(|why| !why.is_empty()), "{bad}: {status} {body}");
        assert_eq!(filter(&server), "warn,mundap_api::edge=info", "{bad}");
    }
    assert_eq!(server.get("/log").send().status, 404, "it is the operators' alone");

    // Off and on again are told, though one filter or the other lets no line through.
    for filter in ["off", "info"] {
        assert_eq!(put_filter(&server, "text/plain", filter), (200, json!({"filter": filter})));
        server.log.wait_for("that the filter was changed", |line| line["log.filter"] == filter);
    }
}

fn a_change_of_the_log_takes_itself_back(board: &Board) {
    let server = board.own(&Options::default());
    let answer = put_filter(&server, "application/json", r#"{"filter": "debug", "for": "10ms"}"#);
    assert_eq!(answer, (200, json!({"filter": "debug", "for": "10ms"})));
    eventually("the filter to be what it was", || filter(&server) == "info");
    // To what lasts, and not to another that was to be taken back as well.
    for time in ["100ms", "150ms"] {
        put_filter(&server, "application/json", &format!(r#"{{"filter": "debug", "for": "{time}"}}"#));
    }
    eventually("the filter to be what it was", || filter(&server) == "info");
    // Not where another change came after it.
    put_filter(&server, "application/json", r#"{"filter": "debug", "for": "100ms"}"#);
    put_filter(&server, "text/plain", "warn");
    put_filter(&server, "application/json", r#"{"filter": "error", "for": "200ms"}"#);
    eventually("the last one to be taken back", || filter(&server) == "warn");
}

fn a_trace_is_honoured_in_the_log(board: &Board) {
    let server = board.server();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = format!("00-{trace}-00f067aa0ba902b7-01");
    let reply = server.get("/api/v1/qna").header("traceparent", &traced).send().is(200);
    assert_eq!(server.access(reply.request_id())["trace.id"], trace);
    let reply = server.get("/api/v1/qna").header("traceparent", &traced.to_uppercase()).send().is(200);
    assert_eq!(server.access(reply.request_id())["trace.id"], Value::Null);
    let reply = server.get("/api/v1/qna").send().is(200);
    assert_eq!(server.access(reply.request_id())["trace.id"], Value::Null);
}

fn what_is_no_http_is_no_error(board: &Board) {
    use std::io::{Read as _, Write as _};
    let server = board.own(&Options::default());
    for _ in 0..20 {
        let mut connection = std::net::TcpStream::connect(&server.http).unwrap();
        connection.write_all(b"\x16\x03\x01 hello\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // Whether there is an answer does not matter here.
        let _ = connection.read_to_end(&mut answer);
    }
    server.signal("TERM");
    server.end();
    let loud = server.log.lines().into_iter().find(|line| line.contains("\"ERROR\"") || line.contains("\"WARN\""));
    assert_eq!(loud, None);
}
