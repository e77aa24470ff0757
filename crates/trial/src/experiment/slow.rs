//! Thousands of connections that say nothing, stop in the middle, or do not read what they asked for.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::client::{Call, Client};
use crate::experiment::Setting;
use crate::load::{Mix, Open, open};
use crate::oracle::{ask, write};
use crate::table::{Table, show};
use crate::tally::{Tally, Times};

const CLOSED: Duration = Duration::from_secs(20);

/// What a connection does.
#[derive(Clone, Copy)]
enum Kind {
    Silent,
    HalfAHead,
    HalfABody,
    /// Asks for everything and reads nothing of it.
    Unread,
}

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, connections: usize, readers: usize) -> Result<Table> {
    let database = setting.database().await?;
    let board = setting.board(&database).await?;
    let members = board.members(1).await?;
    let mut client = Client::new(board.http);
    // More than the system keeps for a reader that does not read.
    for n in 0..300 {
        let mut write = write("slow", n);
        write.content = "긴".repeat(20_000);
        client.expect(201, &ask(&write, &members[0].token)).await?;
    }
    let load = Open { rate: 100.0, length: Duration::from_secs(10), connections: 1000 };
    read(board.http, Open { length: Duration::from_secs(1), ..load }).await?;
    let before = read(board.http, load).await?;
    let (memory, files) = (board.memory()?, board.descriptors()?);

    let lives = Rc::<RefCell<(Times, u64)>>::default();
    let mut held = JoinSet::new();
    let opened = Instant::now();
    for n in 0..connections + readers {
        let kind = match n {
            n if n >= connections => Kind::Unread,
            n if n % 10 == 0 => Kind::HalfABody,
            n if n % 2 == 0 => Kind::Silent,
            _ => Kind::HalfAHead,
        };
        held.spawn_local(hold(board.http, kind, lives.clone()));
        if n % 100 == 99 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let took = opened.elapsed();
    sleep(Duration::from_millis(500)).await;
    let most = board.descriptors()?.saturating_sub(files);
    let beside = read(board.http, load).await?;
    let grown = board.memory()?.saturating_sub(memory);
    while held.join_next().await.is_some() {}
    let (closed, refused) = lives.take();

    let mut table =
        Table::new(format!("slow: {connections} silent connections and {readers} that do not read, {}", database.name));
    let all = (connections + readers) as u64;
    table.limit(
        "connections that were open at once",
        format!("≥ {}", all / 10 * 9),
        format!("{most}, made in {}", show(took)),
        most >= all / 10 * 9,
    );
    table.note("p99 of a healthy client before", show(before.accepted.p99()));
    table.within("p99 of a healthy client beside them", before.accepted.p99() * 2, beside.accepted.p99());
    table.none("reads that failed", beside.sent() - beside.accepted.count(), beside.troubles());
    table.none("connections that could not be made", refused, refused.to_string());
    table.within("closed after, the slowest", CLOSED, closed.longest());
    table.limit("closed", all.to_string(), closed.count().to_string(), closed.count() == all);
    table.note("memory meanwhile", format!("+ {} MB", grown >> 20));
    sleep(Duration::from_millis(500)).await;
    let left = board.descriptors()?.saturating_sub(files);
    table.limit("descriptors left", "≤ 50", left.to_string(), left <= 50);
    drop(board);
    database.end().await?;
    Ok(table)
}

/// A healthy client, on a thread of its own: it must not wait for the thread that holds thousands of connections here.
async fn read(server: SocketAddr, load: Open) -> Result<Tally> {
    let reading = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mix: Mix = Rc::new(|_| Call::get("/load_qna/1"));
        std::io::Result::Ok(LocalSet::new().block_on(&runtime, open(server, load, &mix)))
    });
    Ok(reading.await??)
}

/// Holds one connection until the other end closes it, and enters for how long that took.
async fn hold(server: SocketAddr, kind: Kind, lives: Rc<RefCell<(Times, u64)>>) {
    let Ok(mut stream) = TcpStream::connect(server).await else {
        lives.borrow_mut().1 += 1;
        return;
    };
    let started = Instant::now();
    let bytes: &[u8] = match kind {
        Kind::Silent => b"",
        Kind::HalfAHead => b"GET /api/v1/qna HTTP/1.1\r\nhost: board\r\nx-half",
        Kind::HalfABody => b"POST /api/v1/users HTTP/1.1\r\nhost: board\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        Kind::Unread => b"GET /load_all_qna HTTP/1.1\r\nhost: board\r\n\r\n",
    };
    let mut ended = stream.write_all(bytes).await.is_err();
    if matches!(kind, Kind::Unread) {
        // Whether it was closed is seen by writing: reading is what it does not do. The board does not read either, so it
        // takes a connection that is gone to say no.
        while !ended && started.elapsed() < CLOSED * 2 {
            sleep(Duration::from_millis(250)).await;
            ended = stream.write_all(b" ").await.is_err();
        }
    } else {
        let mut answer = [0; 1024];
        while !ended && started.elapsed() < CLOSED * 2 {
            let read = tokio::time::timeout(CLOSED * 2, stream.read(&mut answer)).await;
            ended = !matches!(read, Ok(Ok(1..)));
            if read.is_err() {
                return;
            }
        }
    }
    if ended {
        lives.borrow_mut().0.record(started.elapsed());
    }
}
