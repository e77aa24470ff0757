//! Limits of size and time on what a stranger can send, and on who does not read.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::board::Board;
use crate::database::insert_qnas;
use crate::server::{Options, PATIENCE, Server};

crate::tests![
    a_head_that_is_too_large_is_refused,
    hostile_json_is_refused_at_once,
    silent_connections_are_closed_and_nobody_else_waits,
    a_head_that_trickles_in_is_given_up,
    a_body_that_trickles_in_is_given_up,
    an_idle_connection_is_closed,
    whoever_does_not_read_holds_nothing_for_long;
    once: an_address_holds_so_many_connections,
];

/// A connection on which nothing is waited for longer than anything may take.
fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether the other end closed the connection, within the read time limit.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

/// Sends these bytes, or as many as the server takes, and reads until it closes the connection.
fn sent(server: &Server, bytes: &[u8]) -> String {
    let mut stream = connect(server);
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It may be refused before it is all there.
            let _ = writer.write_all(bytes);
        });
        let mut answer = Vec::new();
        // What came before the connection broke is the answer.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    })
}

fn head(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: board\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

fn a_head_that_is_too_large_is_refused(board: &Board) {
    let server = board.server();
    let target = |length: usize| format!("/api/v1/qna?{}", "x".repeat(length - 12));
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    // Ours, which say what is wrong.
    let answer = sent(server, &head(&target(8 * 1024 + 1), ""));
    assert!(status(&answer) == "414" && answer.contains("\"target_too_long\""), "{answer:.2000}");
    let answer = sent(server, &head("/load_all_qna", &format!("x-filler: {}\r\n", "x".repeat(40 * 1024))));
    assert!(status(&answer) == "431" && answer.contains("\"head_too_large\""), "{answer:.2000}");
    assert!(answer.to_lowercase().contains("x-request-id"), "{answer:.2000}");
    // The server's own, before a request is there at all.
    let lines = (0..200).fold(String::new(), |lines, n| lines + &format!("x-{n}: y\r\n"));
    assert_eq!(status(&sent(server, &head("/", &lines))), "431");
    for size in [200 * 1024, 1024 * 1024] {
        let answer = sent(server, &head("/", &format!("x-filler: {}\r\n", "x".repeat(size))));
        assert!(["431", ""].contains(&&*status(&answer)), "{answer:.500}");
        let answer = sent(server, &head(&target(size), ""));
        assert!(["400", "414", "431", ""].contains(&&*status(&answer)), "{answer:.500}");
    }
    assert_eq!(status(&sent(server, &head(&target(100 * 1024), ""))), "400");
    // What is not too large is read.
    assert_eq!(status(&sent(server, &head(&target(8 * 1024), ""))), "400", "an unknown parameter");
    let fits = format!("x-filler: {}\r\n", "x".repeat(30 * 1024));
    assert_eq!(status(&sent(server, &head("/api/v1/qna", &fits))), "200");
}

fn hostile_json_is_refused_at_once(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let nested = |open: &str, close: &str| format!("{{\"title\": {}{}}}", open.repeat(100_000), close.repeat(100_000));
    let bodies = [
        nested("[", "]"),
        nested("{\"a\":", "}"),
        "[".repeat(100_000),
        format!("{{\"title\": \"a\", \"content\": {}}}", "9".repeat(400_000)),
        "{\"title\": 18446744073709551616, \"content\": \"\"}".to_owned(),
        "{\"title\": \"\\ud800\", \"content\": \"\\udc00\\ud800\"}".to_owned(),
        "{\"title\": \"a\\u0000b\", \"content\": \"\"}".to_owned(),
        format!("{{{}\"title\": \"a\"}}", "\"title\": \"a\",".repeat(30_000)),
        format!("{{{}\"x\": 1}}", (0..30_000).fold(String::new(), |all, n| all + &format!("\"{n}\": 1,"))),
        "\u{feff}{}".to_owned(),
        format!("{{\"title\": \"{}\"}}", "x".repeat(10 * 1024 * 1024)),
    ];
    for body in bodies {
        for by_the_first_program in [false, true] {
            let path = if by_the_first_program { "/upload" } else { "/api/v1/qna" };
            let call = server.post(path).by(&user).body("application/json", body.clone());
            let start = Instant::now();
            let reply = call.send();
            let took = start.elapsed();
            assert!((400..500).contains(&reply.status), "{reply}");
            // Built for tests and on a busy machine; built for use it is a tenth.
            assert!(took < Duration::from_secs(2), "{took:?}: {body:.60}");
        }
    }
}

/// How many connections a test of many makes; more with `just slow-connections`.
fn many() -> usize {
    std::env::var("MUNDAP_TEST_CONNECTIONS").map_or(200, |n| n.parse().unwrap())
}

/// Threads that hold them.
const HOLDERS: usize = 8;

/// The time below which 99 of 100 of these reads stay.
fn p99(server: &Server, reads: usize) -> Duration {
    let mut times: Vec<Duration> = (0..reads)
        .map(|_| {
            let start = Instant::now();
            server.agent.get(format!("{}/api/v1/qna", server.base())).call().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[reads * 99 / 100]
}

fn silent_connections_are_closed_and_nobody_else_waits(board: &Board) {
    let server = board.own(&Options::default());
    let before = p99(&server, 500);
    let open = |n: usize| {
        let mut stream = connect(&server);
        // Some say nothing, some stop in the middle of a head.
        if n.is_multiple_of(2) {
            stream.write_all(b"GET /api/v1/qna HTTP/1.1\r\nhost:").unwrap();
        }
        (Instant::now(), stream)
    };
    // Each of these threads opens its share and then looks how long they live.
    let hold = || {
        let silent: Vec<_> = (0..many() / HOLDERS).map(open).collect();
        let lived = silent.into_iter().map(|(opened, mut stream)| {
            assert!(is_closed(&mut stream));
            opened.elapsed()
        });
        lived.max().unwrap()
    };
    let (during, lived) = std::thread::scope(|scope| {
        let holders: Vec<_> = (0..HOLDERS).map(|_| scope.spawn(hold)).collect();
        let during = p99(&server, 500);
        let lived: Vec<Duration> = holders.into_iter().map(|holder| holder.join().unwrap()).collect();
        (during, lived.into_iter().max().unwrap())
    });
    assert!(lived < Duration::from_secs(20), "{lived:?}");
    if std::env::var("MUNDAP_TEST_CONNECTIONS").is_ok() {
        println!("p99 {before:?} before, {during:?} beside {} silent ones, which lived {lived:?} at most", many());
        assert!(during < before * 2 + Duration::from_millis(2), "{before:?} {during:?}");
    }
}

fn a_head_that_trickles_in_is_given_up(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_HTTP_HEAD_TIMEOUT", "1s"));
    let mut stream = connect(&server);
    let start = Instant::now();
    stream.write_all(b"GET /api/v1/qna HTTP/1.1\r\nhost: board\r\nx-filler: ").unwrap();
    // One byte each time that nothing came for a while.
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    while !is_closed(&mut stream) {
        assert!(start.elapsed() < PATIENCE, "it goes on");
        if stream.write_all(b"x").is_err() {
            break;
        }
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

fn a_body_that_trickles_in_is_given_up(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_HTTP_BODY_TIMEOUT", "1s"));
    let mut stream = connect(&server);
    let start = Instant::now();
    let head = "POST /api/v1/users HTTP/1.1\r\nhost: board\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                assert!(start.elapsed() < PATIENCE, "it goes on");
                if stream.write_all(b" ").is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_timeout"), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

fn an_idle_connection_is_closed(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_HTTP_KEEP_ALIVE", "1s"));
    let mut stream = connect(&server);
    let start = Instant::now();
    for _ in 0..2 {
        stream.write_all(b"GET /api/v1/qna/1 HTTP/1.1\r\nhost: board\r\n\r\n").unwrap();
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 404 "));
    }
    assert!(is_closed(&mut stream));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

fn whoever_does_not_read_holds_nothing_for_long(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_HTTP_WRITE_TIMEOUT", "1s"));
    let user = server.new_user();
    // More than both ends' buffers of a connection hold.
    insert_qnas(&server.database_url, user.id, 20_000, &"x".repeat(1_000));
    let before = server.memory();
    let mut readers: Vec<TcpStream> = (0..10)
        .map(|n| {
            let mut stream = connect(&server);
            let request = format!("GET /load_all_qna HTTP/1.1\r\nhost: board\r\nx-request-id: unread-{n}\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    // Others go on: nothing of the database is held.
    for _ in 0..20 {
        server.get("/api/v1/qna?limit=1").send().is(200);
        server.patch("/api/v1/users/me").by(&user).json(json!({"display_name": "Still here"})).send().is(200);
    }
    for n in 0..10 {
        let line = server.access(&format!("unread-{n}"));
        assert_eq!((&line["http.status"], &line["whole"]), (&json!(200), &Value::from(false)), "{line}");
        let took = line["duration_ms"].as_f64().unwrap();
        assert!(took < 20_000.0, "{line}");
    }
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "{grown}");
    for reader in &mut readers {
        assert!(is_closed(reader));
    }
}

/// An address of this machine that is not its loopback.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: it is the route that says which address is ours.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

fn an_address_holds_so_many_connections(board: &Board) {
    let Some(address) = own_address() else {
        println!("this machine has no address but its loopback, which may have as many connections as it wants");
        return;
    };
    let mut options = Options::env("MUNDAP_HTTP_CONNECTIONS_PER_ADDRESS", "3");
    options.env.push(("MUNDAP_HTTP_ADDR", "0.0.0.0:0".to_owned()));
    let server = board.own(&options);
    let port = server.http.parse::<SocketAddr>().unwrap().port();
    let try_one = || {
        let mut stream = TcpStream::connect((address, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A connection that is turned away may break while it is written to.
        let _ = stream.write_all(b"GET /api/v1/qna HTTP/1.1\r\nhost: board\r\n\r\n");
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).unwrap_or(0);
        (buffer[..read].starts_with(b"HTTP/1.1 200 "), stream)
    };
    let mut held: Vec<(bool, TcpStream)> = (0..3).map(|_| try_one()).collect();
    assert!(held.iter().all(|(is_served, _)| *is_served));
    assert!(!try_one().0, "a fourth");
    // This machine itself is not counted.
    for _ in 0..5 {
        server.get("/api/v1/qna").send().is(200);
    }
    held.pop();
    let deadline = Instant::now() + PATIENCE;
    while !try_one().0 {
        assert!(Instant::now() < deadline, "a place that was given up stays taken");
    }
}
