//! The end of a server that is in use: nobody who was let in is cut off, and nobody can hold it up.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::board::Board;
use crate::database::insert_qnas;
use crate::program::{eventually, stopping};
use crate::server::{Options, PATIENCE, Server};

crate::tests![
    a_reader_that_is_stuck_does_not_hold_it_up,
    a_download_is_whole_though_the_other_workers_have_nothing_left_to_do;
    once:
    it_accepts_connections_while_it_says_that_it_is_not_ready,
    no_request_is_cut_off,
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
