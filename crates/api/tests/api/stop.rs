//! The end of a server that is in use: nobody who was let in is cut off, and nobody can hold it up.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::board::{Board, PASSWORD, new_email};
use crate::database::{execute, insert_qnas, number, while_held};
use crate::program::eventually;
use crate::server::{Options, PATIENCE, Server, Starting};

crate::tests![
    a_reader_that_is_stuck_does_not_hold_it_up,
    a_download_is_whole_though_the_other_workers_have_nothing_left_to_do;
    once:
    it_accepts_connections_while_it_says_that_it_is_not_ready,
    no_request_is_cut_off,
    a_signal_ends_it_well,
    a_signal_ends_a_start_that_waits_for_another_s_migration,
    a_request_in_flight_finishes,
    idle_connections_do_not_delay_the_end,
    a_request_that_never_ends_is_given_up_in_time,
    a_second_signal_ends_it_at_once,
];

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address.parse::<SocketAddr>().unwrap(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, path: &str) -> std::io::Result<()> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: board\r\n\r\n").as_bytes())
}

fn it_accepts_connections_while_it_says_that_it_is_not_ready(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_SHUTDOWN_DELAY", "2s"));
    assert_eq!(server.operator("/readyz").0, 200);
    let start = Instant::now();
    server.signal("TERM");
    eventually("it to say that it is not ready", || server.operator("/readyz").0 == 503);
    let mut stream = connect(&server.http).unwrap();
    ask(&mut stream, "/api/v1/qna").unwrap();
    let mut answer = String::new();
    // To the end of the connection, which comes with the answer's.
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.to_lowercase().contains("\r\nconnection: close\r\n"),
        "{answer}"
    );
    assert_eq!(server.end().code(), Some(0));
    let took = start.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(12)).contains(&took), "it took {took:?}");

    let server = board.own(&Options::env("MUNDAP_SHUTDOWN_DELAY", "1h"));
    server.signal("TERM");
    stopping(&server);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
}

/// What became of a client that connects anew for each request, until it can no longer.
fn cut_off(server: &Server, answered: &AtomicUsize) -> Option<String> {
    loop {
        let mut stream = match connect(&server.http) {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
            Err(error) => return Some(format!("not refused: {error}")),
        };
        let mut answer = Vec::new();
        let whole = stream
            .write_all(b"GET /api/v1/qna HTTP/1.1\r\nhost: board\r\nconnection: close\r\n\r\n")
            .and_then(|()| stream.read_to_end(&mut answer));
        if let Err(error) = whole {
            return Some(format!("cut off: {error}"));
        }
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            return Some(format!("not answered: {}", String::from_utf8_lossy(&answer)));
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

fn no_request_is_cut_off(board: &Board) {
    for round in 0..5 {
        let server = board.own(&Options::default());
        let answered = AtomicUsize::new(0);
        let cut: Vec<String> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..20).map(|_| scope.spawn(|| cut_off(&server, &answered))).collect();
            eventually("the clients to be at it", || answered.load(Ordering::Relaxed) > 100);
            server.signal("TERM");
            assert_eq!(server.end().code(), Some(0));
            clients.into_iter().filter_map(|client| client.join().unwrap()).collect()
        });
        assert!(cut.is_empty(), "round {round}, of {} requests: {cut:?}", answered.load(Ordering::Relaxed));
    }
}

fn a_reader_that_is_stuck_does_not_hold_it_up(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_SHUTDOWN_TIMEOUT", "2s"));
    let user = server.new_user();
    // More than both ends' buffers of a connection hold.
    insert_qnas(&server.database_url, user.id, 20_000, &"x".repeat(1_000));
    let mut stream = connect(&server.http).unwrap();
    ask(&mut stream, "/load_all_qna").unwrap();
    let mut beginning = [0; 12];
    stream.read_exact(&mut beginning).unwrap();
    assert_eq!(&beginning, b"HTTP/1.1 200");
    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let took = start.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&took), "it took {took:?}");
}

/// Each worker's end takes along the database connections that it has opened, and the others use them too.
fn a_download_is_whole_though_the_other_workers_have_nothing_left_to_do(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_WORKERS", "4"));
    let user = server.new_user();
    insert_qnas(&server.database_url, user.id, 20_000, &"x".repeat(1_000));
    // Connections of every worker's.
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut stream = connect(&server.http).unwrap();
                ask(&mut stream, "/api/v1/qna").unwrap();
                stream.read_exact(&mut [0; 12]).unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(answered.into_inner(), 20);
    let mut stream = connect(&server.http).unwrap();
    ask(&mut stream, "/load_all_qna").unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    server.signal("TERM");
    eventually("the door to be shut", || {
        connect(&server.http).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"]\r\n0\r\n\r\n"), "it was cut off after {} bytes", rest.len());
    assert_eq!(server.end().code(), Some(0));
}

/// A connection on which a request's head and half its body are sent; the rest of the body.
fn half_a_request(server: &Server, email: &str) -> (TcpStream, String) {
    let body = json!({"email": email, "password": PASSWORD, "display_name": "Slow"}).to_string();
    let (first, rest) = body.split_at(body.len() / 2);
    let mut connection = TcpStream::connect(&server.http).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /api/v1/users HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        server.http,
        body.len()
    );
    connection.write_all(format!("{head}{first}").as_bytes()).unwrap();
    eventually("the request to be in flight", || {
        let metrics = server.operator("/metrics").1;
        metrics.lines().any(|line| line == "mundap_http_requests_in_flight 1")
    });
    (connection, rest.to_owned())
}

pub(crate) fn stopping(server: &Server) {
    server.log.wait_for_message("stopping");
}

fn a_signal_ends_it_well(board: &Board) {
    for name in ["TERM", "INT"] {
        let server = board.own(&Options::default());
        server.get("/api/v1/qna").send().is(200);
        let started = Instant::now();
        server.signal(name);
        assert_eq!(server.end().code(), Some(0), "{name}");
        assert!(started.elapsed() < Duration::from_secs(5), "{name} took {:?}", started.elapsed());
        let lines = server.log.lines();
        assert!(lines.last().unwrap().contains("\"stopped\""), "{lines:?}");
    }
}

fn a_signal_ends_a_start_that_waits_for_another_s_migration(board: &Board) {
    for name in ["TERM", "INT"] {
        let url = board.database.fresh();
        let held = format!("{url}?mode=rwc");
        // What opens the file has nothing to change about it then; what migrates it waits.
        execute(&held, "PRAGMA journal_mode = WAL");
        while_held(&held, "BEGIN IMMEDIATE", || {
            let starting = Starting::on(&url, &Options::default());
            let waits = "the board is not there yet";
            starting.log.wait_for_message(waits);
            let started = Instant::now();
            let (status, log) = starting.end_by(name);
            assert_eq!(status.code(), Some(0), "{name}: {:?}", log.lines());
            assert!(started.elapsed() < Duration::from_secs(5), "{name} took {:?}", started.elapsed());
            let lines = log.lines();
            assert_eq!(lines.iter().filter(|line| line.contains(waits)).count(), 1, "{lines:?}");
            assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:?}");
        });
    }
}

fn a_request_in_flight_finishes(board: &Board) {
    let server = board.own(&Options::default());
    let email = new_email();
    assert_eq!(server.operator("/readyz").0, 200);
    let (mut connection, rest) = half_a_request(&server, &email);
    server.signal("TERM");
    stopping(&server);
    let mut state = (0, String::new());
    eventually("it not to be ready", || {
        state = server.operator("/readyz");
        state.0 == 503
    });
    let body: Value = serde_json::from_str(&state.1).unwrap();
    assert_eq!(
        body,
        json!({"status": "not ready", "database": "ok", "schema": "ok", "images": "ok", "draining": true})
    );
    assert_eq!(server.operator("/livez").0, 200);
    eventually("the public port to be closed", || TcpStream::connect(&server.http).is_err());

    connection.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(answer.contains(&email) && answer.ends_with('}'), "{answer}");
    assert_eq!(server.end().code(), Some(0));
    let sql = format!("SELECT COUNT(*) AS n FROM users WHERE email = '{email}'");
    assert_eq!(number(&server.database_url, &sql), 1);
}

fn idle_connections_do_not_delay_the_end(board: &Board) {
    let server = board.own(&Options::default());
    // One that was used and is kept alive, and one that never said a word.
    let mut used = TcpStream::connect(&server.http).unwrap();
    used.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(used, "HEAD /api/v1/qna HTTP/1.1\r\nHost: {}\r\n\r\n", server.http).unwrap();
    let mut head = String::new();
    let mut reader = BufReader::new(used);
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.to_lowercase().contains("connection: close"), "{head}");
    let silent = TcpStream::connect(&server.http).unwrap();
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    // It takes about a second; kept alive, they would last for 15, and the time to finish is 20.
    assert!(started.elapsed() < Duration::from_secs(4), "it took {:?}", started.elapsed());
    drop((reader, silent));
}

fn a_request_that_never_ends_is_given_up_in_time(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_SHUTDOWN_TIMEOUT", "2s"));
    let (_connection, _) = half_a_request(&server, &new_email());
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    let took = started.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(6)).contains(&took), "it took {took:?}");
}

fn a_second_signal_ends_it_at_once(board: &Board) {
    for (first, second) in [("TERM", "TERM"), ("TERM", "INT")] {
        let server = board.own(&Options::default());
        let (_connection, _) = half_a_request(&server, &new_email());
        server.signal(first);
        stopping(&server);
        let started = Instant::now();
        server.signal(second);
        assert_eq!(server.end().code(), Some(0), "{first}, {second}");
        assert!(started.elapsed() < Duration::from_secs(3), "it took {:?}", started.elapsed());
        let lines = server.log.lines();
        assert!(lines.iter().any(|line| line.contains("stopped at once")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:?}");
    }
}
