//! More than the board can do at once: what waits, what is turned away, and what goes on meanwhile.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::board::{Board, PASSWORD, User, new_email};
use crate::client::Reply;
use crate::database::{insert_qnas, number, while_held};
use crate::program::eventually;
use crate::server::{Options, PATIENCE, Server};

crate::tests![
    what_is_too_much_waits_or_is_turned_away_at_once,
    nobody_waits_for_long,
    a_request_that_takes_too_long_is_given_up_and_leaves_nothing,
    whoever_sends_slowly_takes_no_place,
    readers_of_everything_have_places_of_their_own,
    reads_go_on_while_writes_stand_still;
    once:
    reads_go_on_while_sign_ins_take_all_their_places,
    uploads_have_places_of_their_own,
];

/// Far less than any time limit, far more than a refusal takes.
const AT_ONCE: Duration = Duration::from_secs(2);

/// How long they wait who come again sooner than they were told.
const EARLY: Duration = Duration::from_millis(250);

fn options(variables: &[(&'static str, &str)]) -> Options {
    Options { env: variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), dir: None }
}

/// Does something while nobody can write a question.
fn while_nobody_can_write(server: &Server, something: impl FnOnce()) {
    let sqlite = server.database_url.starts_with("sqlite");
    while_held(&server.database_url, if sqlite { "BEGIN IMMEDIATE" } else { "LOCK TABLES qna WRITE" }, something);
}

impl Server {
    fn lane(&self, lane: &str, what: &str) -> f64 {
        let name = format!("mundap_http_lane_{what}{{lane=\"{lane}\"}}");
        self.metrics().get(&name).copied().unwrap_or_default()
    }

    fn wait_for_lane(&self, lane: &str, what: &str, count: u32) {
        eventually(&format!("{count} {what} of {lane}"), || (self.lane(lane, what) - f64::from(count)).abs() < 0.5);
    }

    fn try_to_ask(&self, user: &User, title: &str) -> Reply {
        self.post("/api/v1/qna").by(user).json(json!({"title": title, "content": ""})).may_fail().send()
    }

    fn shed(&self, lane: &str, reason: &str) -> f64 {
        let name = format!("mundap_http_shed_total{{lane=\"{lane}\",reason=\"{reason}\"}}");
        self.metrics().get(&name).copied().unwrap_or_default()
    }
}

#[track_caller]
fn assert_busy_at_once(call: impl FnOnce() -> Reply) {
    let start = Instant::now();
    let reply = call();
    let took = start.elapsed();
    assert!(took < AT_ONCE, "{took:?}: {reply}");
    assert_eq!(reply.header("retry-after"), Some("1"), "{reply}");
    reply.problem(503, "busy");
}

/// A connection.
fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn send_on(connection: &mut TcpStream) {
    connection.write_all(b"GET /api/v1/qna/1 HTTP/1.1\r\nhost: board\r\n\r\n").unwrap();
}

/// How long a request on this connection waits for its refusal.
fn refused_on(connection: &mut TcpStream) -> Duration {
    let start = Instant::now();
    send_on(connection);
    read_refusal(connection);
    start.elapsed()
}

fn read_refusal(connection: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    connection.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
}

fn what_is_too_much_waits_or_is_turned_away_at_once(board: &Board) {
    let server = board.own(&options(&[
        ("MUNDAP_HTTP_REQUESTS", "1"),
        ("MUNDAP_HTTP_QUEUE", "1"),
        ("MUNDAP_HTTP_QUEUE_TIMEOUT", "30s"),
        ("MUNDAP_CORS_ORIGINS", "https://board.example.com"),
    ]));
    let user = server.new_user();
    let path = format!("/api/v1/users/{}", user.id);
    std::thread::scope(|scope| {
        let mut calls = Vec::new();
        while_nobody_can_write(&server, || {
            calls.push(scope.spawn(|| server.try_to_ask(&user, "One")));
            server.wait_for_lane("requests", "in_flight", 1);
            calls.push(scope.spawn(|| server.get(&path).may_fail().send()));
            server.wait_for_lane("requests", "queued", 1);

            assert_busy_at_once(|| server.get(&path).may_fail().send());
            // Nobody looks who is asking.
            assert_busy_at_once(|| server.get(&path).bearer("no token").may_fail().send());
            // A browser's page may read it.
            let reply = server.get(&path).header("origin", "https://board.example.com").may_fail().send().is(503);
            assert_eq!(reply.header("access-control-allow-origin"), Some("https://board.example.com"), "{reply}");
            // The first program's clients get their own shape.
            let reply = server.get("/load_qna/1").may_fail().send().is(503);
            assert!(reply.json()["detail"].is_string() && reply.header("retry-after").is_some(), "{reply}");
            // A body is not waited for, and who sends one sees the answer.
            let mut stream = connect(&server);
            let head = "POST /api/v1/qna HTTP/1.1\r\nhost: board\r\ncontent-type: application/json\r\n\
                        content-length: 300000\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 503");
            assert_busy_at_once(|| {
                let big = json!({"title": "Big", "content": "x".repeat(300_000)});
                server.post("/api/v1/qna").by(&user).json(big).may_fail().send()
            });
            assert!(server.shed("requests", "queue_full") > 5.5);

            // Who comes again on the same connection sooner than they were told waits for that.
            let mut again = connect(&server);
            refused_on(&mut again);
            let waited = refused_on(&mut again);
            assert!((EARLY..AT_ONCE).contains(&waited), "{waited:?}");

            // The operators' port is not in any queue.
            let start = Instant::now();
            for path in ["/livez", "/metrics", "/readyz"] {
                assert_eq!(server.operator(path).0, 200, "{path}");
            }
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        });
        let statuses: Vec<u16> = calls.into_iter().map(|call| call.join().unwrap().status).collect();
        assert_eq!(statuses, [201, 200]);
    });
    server.get(&path).send().is(200);
    server.wait_for_lane("requests", "in_flight", 0);
    server.wait_for_lane("requests", "queued", 0);
}

fn nobody_waits_for_long(board: &Board) {
    let server = board.own(&options(&[
        ("MUNDAP_HTTP_REQUESTS", "1"),
        ("MUNDAP_HTTP_QUEUE", "1"),
        ("MUNDAP_HTTP_QUEUE_TIMEOUT", "300ms"),
    ]));
    let user = server.new_user();
    std::thread::scope(|scope| {
        let mut call = None;
        while_nobody_can_write(&server, || {
            call = Some(scope.spawn(|| server.try_to_ask(&user, "One")));
            server.wait_for_lane("requests", "in_flight", 1);
            let start = Instant::now();
            let reply = server.get("/openapi.json").may_fail().send();
            let waited = start.elapsed();
            assert!((Duration::from_millis(300)..AT_ONCE).contains(&waited), "{waited:?}");
            reply.problem(503, "busy");
            assert!(server.shed("requests", "waited") > 0.5);
            let waits = server.metrics()["mundap_http_queue_duration_seconds_count{lane=\"requests\"}"];
            assert!(waits > 0.5, "{waits}");

            // Who waited in vain was told when to come again, too.
            let mut again = connect(&server);
            refused_on(&mut again);
            let mut other = connect(&server);
            send_on(&mut other);
            // On a machine that is too slow to see it wait, `again` has the place in the queue, and waits longer than that.
            let sent = Instant::now();
            while server.lane("requests", "queued") < 0.5 && sent.elapsed() < EARLY {}
            let waited = refused_on(&mut again);
            assert!(waited >= EARLY, "{waited:?}");
            read_refusal(&mut other);
        });
        call.unwrap().join().unwrap().is(201);
    });
}

fn a_request_that_takes_too_long_is_given_up_and_leaves_nothing(board: &Board) {
    let server = board.own(&options(&[
        ("MUNDAP_HTTP_REQUEST_TIMEOUT", "700ms"),
        // Fewer than are given up: one that is lost is missed.
        ("MUNDAP_DATABASE_MAX_CONNECTIONS", "2"),
        ("MUNDAP_CORS_ORIGINS", "https://board.example.com"),
    ]));
    let user = server.new_user();
    while_nobody_can_write(&server, || {
        for _ in 0..4 {
            let start = Instant::now();
            let reply = server.try_to_ask(&user, "Given up");
            let took = start.elapsed();
            assert!((Duration::from_millis(700)..Duration::from_secs(5)).contains(&took), "{took:?}");
            assert_eq!(reply.header("retry-after"), Some("1"), "{reply}");
            let problem = reply.problem(503, "too_slow");
            assert!(problem["detail"].as_str().unwrap().contains("Idempotency-Key"), "{problem}");
        }
        // Pages may read it as they may read any other answer.
        for (origin, may) in [("https://board.example.com", true), ("https://other.example.com", false)] {
            let body = json!({"title": "Given up", "content": ""});
            let slow = server.post("/api/v1/qna").by(&user).json(body).header("origin", origin).may_fail().send();
            // Without the database: what was given up may hold every connection for a while yet.
            let other = server.get("/openapi.json").header("origin", origin).send();
            assert_eq!((slow.status, other.status), (503, 200), "{slow} {}", other.status);
            for name in ["access-control-allow-origin", "access-control-expose-headers"] {
                let named = |reply: &Reply| {
                    reply
                        .header(name)
                        .map(|names| names.split(',').map(|one| one.trim().to_lowercase()).collect::<BTreeSet<_>>())
                };
                assert_eq!(named(&slow), named(&other).filter(|_| may || !name.ends_with("headers")), "{name}: {slow}");
            }
        }
    });
    let mut stayed = 0;
    eventually("the database to be good again", || {
        let reply = server.try_to_ask(&user, "Stays");
        stayed += i64::from(reply.status == 201);
        reply.status == 201
    });
    // Both connections are there.
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| server.try_to_ask(&user, "Stays").is(201))).collect();
        stayed += i64::try_from(calls.len()).unwrap();
    });
    let rows =
        |title: &str| number(&server.database_url, &format!("SELECT COUNT(*) AS n FROM qna WHERE title = '{title}'"));
    assert_eq!((rows("Given up"), rows("Stays")), (0, stayed));
    let timeouts = server.metrics()["mundap_http_timeouts_total{lane=\"writes\"}"];
    assert!(timeouts > 3.5, "{timeouts}");
    server.wait_for_lane("requests", "in_flight", 0);
}

fn whoever_sends_slowly_takes_no_place(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_HTTP_REQUESTS", "1"), ("MUNDAP_HTTP_QUEUE", "0")]));
    let user = server.new_user();
    let body = json!({"title": "Slowly", "content": "But surely"}).to_string();
    let (first, rest) = body.split_at(body.len() / 2);
    let mut slow: Vec<TcpStream> = (0..5)
        .map(|n| {
            let mut stream = connect(&server);
            let head = format!(
                "POST /api/v1/qna HTTP/1.1\r\nhost: board\r\nauthorization: Bearer {}\r\nx-request-id: slow-{n}\r\n\
                 connection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{first}",
                user.token,
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            // The one place is given back before the next one comes.
            eventually("it to be in flight", || {
                let in_flight = server.metrics()["mundap_http_requests_in_flight"];
                (in_flight - f64::from(n + 1)).abs() < 0.5
            });
            server.wait_for_lane("requests", "in_flight", 0);
            stream
        })
        .collect();
    server.get("/api/v1/qna").send().is(200);
    for stream in &mut slow {
        stream.write_all(rest.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    }
}

fn readers_of_everything_have_places_of_their_own(board: &Board) {
    let server = board.own(&options(&[
        ("MUNDAP_HTTP_STREAMS", "2"),
        ("MUNDAP_HTTP_REQUESTS", "1"),
        // Nobody here is to be given up for not reading.
        ("MUNDAP_HTTP_WRITE_TIMEOUT", "5m"),
    ]));
    let user = server.new_user();
    // More than both ends' buffers of a connection hold.
    insert_qnas(&server.database_url, user.id, 20_000, &"x".repeat(1_000));
    let mut readers: Vec<TcpStream> = Vec::new();
    for n in 1..=2 {
        let mut stream = connect(&server);
        stream.write_all(b"GET /load_all_qna HTTP/1.1\r\nhost: board\r\n\r\n").unwrap();
        let mut beginning = [0; 12];
        stream.read_exact(&mut beginning).unwrap();
        assert_eq!(&beginning, b"HTTP/1.1 200");
        readers.push(stream);
        server.wait_for_lane("streams", "in_flight", n);
    }
    let start = Instant::now();
    server.get("/load_all_qna").may_fail().send().is(503);
    assert_busy_at_once(|| server.get("/api/v1/users/me/export").by(&user).may_fail().send());
    assert!(start.elapsed() < AT_ONCE);
    server.get("/api/v1/qna").send().is(200);
    server.ask(&user, "Nobody else waits");
    readers.pop();
    server.wait_for_lane("streams", "in_flight", 1);
    server.get("/api/v1/users/me/export").by(&user).send().is(200);
    server.wait_for_lane("streams", "in_flight", 1);
}

fn reads_go_on_while_writes_stand_still(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_HTTP_REQUESTS", "32")]));
    let user = server.new_user();
    let path = server.ask_at(&user, "Still there?");
    let sqlite = server.database_url.starts_with("sqlite");
    std::thread::scope(|scope| {
        let mut calls = Vec::new();
        // Others may read it.
        while_held(&server.database_url, if sqlite { "BEGIN IMMEDIATE" } else { "LOCK TABLES qna READ" }, || {
            // More than there are places for anything, in a queue that takes them all in its first second.
            for n in 0..100 {
                let (server, user) = (&server, &user);
                calls.push(scope.spawn(move || server.try_to_ask(user, &format!("Later {n}")).status));
            }
            eventually("all places to be taken", || server.lane("writes", "in_flight") > 15.5);
            // More than there are connections that nobody waits on.
            let readers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..5 {
                            let start = Instant::now();
                            server.get(&path).send().is(200);
                            server.get("/api/v1/qna").by(&user).send().is(200);
                            server.get(format!("/api/v1/users/{}", user.id)).send().is(200);
                            server.get("/load_all_qna").send().is(200);
                            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
                        }
                    })
                })
                .collect();
            for reader in readers {
                reader.join().unwrap();
            }
        });
        let statuses: Vec<u16> = calls.into_iter().map(|call| call.join().unwrap()).collect();
        assert!(statuses.iter().all(|status| [201, 503].contains(status)), "{statuses:?}");
        assert!(statuses.contains(&201), "{statuses:?}");
    });
    server.wait_for_lane("writes", "in_flight", 0);
}

fn reads_go_on_while_sign_ins_take_all_their_places(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    server.ask(&user, "Still there?");
    let places = server.lane("passwords", "places");
    std::thread::scope(|scope| {
        let mut calls = Vec::new();
        while_nobody_can_write(&server, || {
            for _ in 0..50 {
                calls.push(scope.spawn(|| {
                    let body = json!({"email": new_email(), "password": PASSWORD, "display_name": "Many"});
                    server.post("/api/v1/users").json(body).may_fail().send().status
                }));
            }
            eventually("all places to be taken", || server.lane("passwords", "in_flight") > places - 0.5);
            let form = [("grant_type", "password"), ("username", &*user.email), ("password", PASSWORD)];
            assert_busy_at_once(|| server.post("/api/v1/auth/token").form(&form).may_fail().send());
            for _ in 0..20 {
                let start = Instant::now();
                server.get("/api/v1/qna").by(&user).send().is(200);
                assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            }
        });
        let statuses: Vec<u16> = calls.into_iter().map(|call| call.join().unwrap()).collect();
        assert!(statuses.contains(&201) && statuses.contains(&503), "{statuses:?}");
    });
}

fn uploads_have_places_of_their_own(board: &Board) {
    let server = board.own(&options(&[("MUNDAP_HTTP_REQUESTS", "1"), ("MUNDAP_HTTP_QUEUE", "0")]));
    let user = server.new_user();
    let comment = server.comment_at(&user, &server.ask_at(&user, "With a picture"), "Here it is");
    // All of it is announced and a part of it sent.
    let _uploads: Vec<TcpStream> = (1..=32)
        .map(|n| {
            let mut stream = connect(&server);
            let head = format!(
                "POST {comment}/images HTTP/1.1\r\nhost: board\r\nauthorization: Bearer {}\r\n\
                 content-type: multipart/form-data; boundary=b\r\ncontent-length: 1000000\r\n\r\n--b\r\n",
                user.token
            );
            stream.write_all(head.as_bytes()).unwrap();
            server.wait_for_lane("uploads", "in_flight", n);
            stream
        })
        .collect();
    server.post(format!("{comment}/images")).by(&user).file(b"a picture").may_fail().send().problem(503, "busy");
    server.get("/api/v1/qna").by(&user).send().is(200);
    server.sign_in(&user.email, PASSWORD).is(200);
}
