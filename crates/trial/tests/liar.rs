//! The harness, held to a board that lies: whatever it was built to find, it finds on a server that does it on purpose.

#![expect(clippy::unwrap_used, reason = "what a test stands on must be there")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mundap_trial::client::{Call, Client, Lost};
use mundap_trial::experiment::fixed;
use mundap_trial::load::{Mix, Open, closed, open};
use mundap_trial::oracle::{Findings, Writers, Writing};
use mundap_trial::tally::Tally;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// What is wrong with it.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    None,
    /// Forgets one write that it acknowledged.
    LosesOne,
    /// Keeps one write twice.
    DoublesOne,
    /// Keeps one write with another content.
    ChangesOne,
    /// Does the write, closes the connection without an answer, and knows nothing of keys.
    ForgetsKeys,
    /// As before, but knows its keys: this one is honest.
    DropsAnswers,
    /// Says 503 and not when to come again.
    NeverSaysWhen,
    Hangs,
    /// Takes whatever comes, and does one at a time.
    HasNoLimits,
}

#[derive(Default)]
struct Kept {
    rows: Vec<Value>,
    receipts: HashMap<String, i64>,
    asked: u64,
}

struct Liar {
    lie: Lie,
    kept: RefCell<Kept>,
    one_at_a_time: Mutex<()>,
}

impl Liar {
    async fn listen(lie: Lie) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let liar = Rc::new(Self { lie, kept: RefCell::default(), one_at_a_time: Mutex::new(()) });
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let liar = liar.clone();
                tokio::task::spawn_local(async move {
                    // Clients come and go.
                    let _ = liar.serve(stream).await;
                });
            }
        });
        address
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut line, mut key, mut length) = (String::new(), String::new(), 0);
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            loop {
                let mut header = String::new();
                stream.read_line(&mut header).await?;
                let Some((name, value)) = header.trim().split_once(": ") else { break };
                match name {
                    "idempotency-key" => value.clone_into(&mut key),
                    "content-length" => length = value.parse().unwrap(),
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            let Some((status, answer)) = self.answer(&line, &key, &body).await else { return Ok(()) };
            let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n\r\n", answer.len());
            stream.write_all(format!("{head}{answer}").as_bytes()).await?;
        }
    }

    async fn answer(&self, line: &str, key: &str, body: &[u8]) -> Option<(u16, String)> {
        match self.lie {
            Lie::NeverSaysWhen => return Some((503, String::new())),
            Lie::Hangs => std::future::pending().await,
            Lie::HasNoLimits => {
                let _turn = self.one_at_a_time.lock().await;
                sleep(Duration::from_millis(20)).await;
                return Some((200, String::new()));
            }
            _ => {}
        }
        if line.starts_with("GET /load_all_qna") {
            return Some((200, json!(self.kept.borrow().rows).to_string()));
        }
        if line.starts_with("GET") {
            return Some((200, json!({"items": self.kept.borrow().rows, "next": null}).to_string()));
        }
        let mut kept = self.kept.borrow_mut();
        kept.asked += 1;
        let special = kept.asked == 10;
        if let Some(id) = kept.receipts.get(key) {
            return Some((201, json!({"qna_id": id}).to_string()));
        }
        let mut row: Value = serde_json::from_slice(body).unwrap();
        let id = i64::try_from(kept.asked).unwrap();
        row["qna_id"] = json!(id);
        if special && self.lie == Lie::ChangesOne {
            row["content"] = json!("something else");
        }
        if !(special && self.lie == Lie::LosesOne) {
            kept.rows.push(row.clone());
        }
        if special && self.lie == Lie::DoublesOne {
            kept.rows.push(row);
        }
        if self.lie != Lie::ForgetsKeys {
            kept.receipts.insert(key.to_owned(), id);
        }
        let silent = special && matches!(self.lie, Lie::ForgetsKeys | Lie::DropsAnswers);
        (!silent).then(|| (201, json!({"qna_id": id}).to_string()))
    }
}

/// On one thread, as the program runs it.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// What the oracle finds after a few writes, and what the writers saw.
async fn findings(lie: Lie) -> (Findings, Tally) {
    let server = Liar::listen(lie).await;
    let writing = Writing { tokens: vec!["a".to_owned()], writers: 4, rate: 400.0, name: "lie".to_owned() };
    let writers = Writers::start(&fixed(server), &writing);
    while writers.tally.borrow().accepted.count() < 40 {
        sleep(Duration::from_millis(1)).await;
    }
    let (ledger, tally) = writers.end().await;
    (ledger.check(server).await.unwrap(), tally)
}

#[test]
fn an_honest_board_has_no_findings() {
    for lie in [Lie::None, Lie::DropsAnswers] {
        let (found, tally) = run(findings(lie));
        assert!(found.are_none() && found.acknowledged >= 40, "{found:?}");
        assert_eq!(tally.lost(), u64::from(lie == Lie::DropsAnswers));
        assert_eq!(tally.improper(), 0);
    }
}

#[test]
fn a_write_that_is_lost_doubled_or_changed_is_found() {
    let counts = |found: &Findings| [found.lost.len(), found.twice.len(), found.changed.len()];
    for (lie, expected) in [(Lie::LosesOne, [1, 0, 0]), (Lie::DoublesOne, [0, 1, 0]), (Lie::ChangesOne, [0, 0, 1])] {
        let (found, _) = run(findings(lie));
        assert_eq!(counts(&found), expected, "{found:?}");
    }
    // Sent again under its key after the answer was lost: it is there twice, and one of them is not what was acknowledged.
    let (found, _) = run(findings(Lie::ForgetsKeys));
    assert_eq!(counts(&found), [0, 1, 1], "{found:?}");
}

fn list() -> Mix {
    Rc::new(|_| Call::get("/api/v1/qna?limit=20"))
}

#[test]
fn a_refusal_that_does_not_say_when_to_come_again_is_improper() {
    let tally = run(async {
        let server = Liar::listen(Lie::NeverSaysWhen).await;
        closed(server, 2, Duration::from_millis(100), &list()).await
    });
    assert!(tally.improper() > 0 && tally.improper() == tally.sent(), "{tally:?}");
    assert!(tally.last_failure.is_some());
}

#[test]
fn an_answer_that_never_comes_is_late() {
    let outcome = run(async {
        let mut client = Client::new(Liar::listen(Lie::Hangs).await).patience(Duration::from_millis(50));
        client.send(&Call::get("/")).await.map(|answer| answer.status)
    });
    assert_eq!(outcome, Err(Lost::Late));
}

#[test]
fn nobody_who_listens_is_told_from_a_broken_connection() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = Client::new(listener.local_addr().unwrap());
        let accepted = tokio::task::spawn_local(async move {
            drop(listener.accept().await.unwrap());
            drop(listener);
        });
        assert_eq!(client.send(&Call::get("/")).await.unwrap_err(), Lost::Broken { reused: false });
        accepted.await.unwrap();
        assert_eq!(client.send(&Call::get("/")).await.unwrap_err(), Lost::Refused);
    });
}

/// With closed load, where a client that waits asks for nothing, each of these would have taken 20 ms.
#[test]
fn what_waits_for_a_board_without_limits_is_seen() {
    let tally = run(async {
        let server = Liar::listen(Lie::HasNoLimits).await;
        let load = Open { rate: 200.0, length: Duration::from_millis(500), connections: 1000 };
        open(server, load, &list()).await
    });
    assert_eq!((tally.refused.count(), tally.unsent), (0, 0));
    assert!(tally.accepted.p99() > Duration::from_secs(1), "{:?}", tally.accepted.p99());
}

#[test]
fn what_is_due_and_has_no_connection_is_counted() {
    let tally = run(async {
        let server = Liar::listen(Lie::HasNoLimits).await;
        let load = Open { rate: 200.0, length: Duration::from_millis(200), connections: 5 };
        open(server, load, &list()).await
    });
    assert!(tally.unsent > 0 && tally.sent() + tally.unsent >= 35, "{tally:?}");
}
