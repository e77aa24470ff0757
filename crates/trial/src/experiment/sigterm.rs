//! SIGTERM under load: readiness goes off, what is in flight finishes, and no request is cut.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::board::{Board, Member, tokens};
use crate::client::{Client, Lost};
use crate::experiment::Setting;
use crate::oracle::{ask, walk, write};
use crate::table::Table;
use crate::tally::listed;

const END: Duration = Duration::from_secs(25);
/// Of each kind: clients that keep their connection, and clients that make one for each request.
const CLIENTS: usize = 20;

/// What clients saw of one stop.
#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    refused_after: u64,
    /// Titles whose request got no answer, and why.
    unanswered: Vec<(String, Lost)>,
    strange: Vec<u16>,
}

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, times: u32) -> Result<Table> {
    let database = setting.database().await?;
    let mut board = setting.board(&database).await?;
    let members = board.members(4).await?;
    fill(&board, &members, 300).await?;
    let mut seen = Seen::default();
    let (mut slowest, mut codes, mut ready_after, mut whole, mut asked) = (Duration::ZERO, Vec::new(), 0, 0, 0);
    for n in 0..times {
        if n > 0 {
            board.again()?;
            board.ready().await?;
        }
        let stop = Rc::<Cell<bool>>::default();
        let all = Rc::<RefCell<Seen>>::default();
        let mut clients = JoinSet::new();
        for client in 0..2 * CLIENTS {
            let token = tokens(&members)[client % members.len()].clone();
            let name = format!("stop-{n}-{client}");
            clients.spawn_local(talk(board.http, token, name, client < CLIENTS, stop.clone(), all.clone()));
        }
        let download = spawn_local(slow_download(board.http));
        sleep(Duration::from_millis(500)).await;
        board.signal(Signal::TERM)?;
        let told = Instant::now();
        while board.runs()? && told.elapsed() < END + Duration::from_secs(5) {
            if told.elapsed() > Duration::from_millis(100) {
                let ready = board.readiness().await;
                asked += u32::from(ready.is_ok());
                ready_after += u32::from(ready.is_ok_and(|answer| answer.status == 200));
            }
            sleep(Duration::from_millis(10)).await;
        }
        slowest = slowest.max(told.elapsed());
        codes.push(board.end().await?.code());
        stop.set(true);
        while clients.join_next().await.is_some() {}
        whole += u32::from(download.await?);
        let mut all = all.borrow_mut();
        seen.answered += all.answered;
        seen.refused_after += all.refused_after;
        seen.unanswered.append(&mut all.unanswered);
        seen.strange.append(&mut all.strange);
    }
    board.again()?;
    board.ready().await?;
    let there: HashSet<String> = walk(board.http).await?.into_iter().map(|row| row.title).collect();
    let cut = seen.unanswered.iter().filter(|(title, lost)| *lost == Lost::Cut || there.contains(title)).count();
    let count = |wanted: Lost| seen.unanswered.iter().filter(|(_, lost)| *lost == wanted).count();

    let mut table =
        Table::new(format!("sigterm: {times} × SIGTERM under load of {} clients, {}", 2 * CLIENTS, database.name));
    table.limit("exit code", "0", format!("{codes:?}"), codes.iter().all(|code| *code == Some(0)));
    table.within("gone after, the slowest", END, slowest);
    table.limit("ready after 100 ms", "never", format!("{ready_after} of {asked} answers"), ready_after == 0);
    table.none("requests cut: carried out or begun to be answered, and no whole answer", cut as u64, cut.to_string());
    let fresh = count(Lost::Broken { reused: false });
    table.none(
        "connections taken, and closed without an answer to their first request",
        fresh as u64,
        fresh.to_string(),
    );
    table.limit(
        "a slow download of everything, begun before",
        format!("{times} whole"),
        whole.to_string(),
        whole == times,
    );
    let strange: Vec<String> = seen.strange.iter().map(u16::to_string).collect();
    table.none("answers but 201 and 503 with Retry-After", seen.strange.len() as u64, listed(&strange));
    let raced = count(Lost::Broken { reused: true });
    table.note("kept connections closed as a request came, nothing done (safe to send again)", raced.to_string());
    table.note("requests answered, and refused with 503", format!("{}, {}", seen.answered, seen.refused_after));
    drop(board);
    database.end().await?;
    Ok(table)
}

/// Posts one question after the other until nobody listens any more.
async fn talk(
    server: std::net::SocketAddr,
    token: String,
    name: String,
    keep: bool,
    stop: Rc<Cell<bool>>,
    seen: Rc<RefCell<Seen>>,
) {
    let mut client = Client::new(server);
    for n in 0.. {
        if stop.get() {
            return;
        }
        let write = write(&name, n);
        if !keep {
            client.hang_up();
        }
        let outcome = client.send(&ask(&write, &token)).await;
        {
            let mut all = seen.borrow_mut();
            match outcome {
                Ok(answer) if answer.status == 201 => all.answered += 1,
                Ok(answer) if answer.status == 503 && answer.says_when() => all.refused_after += 1,
                Ok(answer) => all.strange.push(answer.status),
                Err(Lost::Refused) => return,
                Err(lost) => all.unanswered.push((write.title, lost)),
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Questions of 20,000 characters each.
async fn fill(board: &Board, members: &[Member], count: u64) -> Result<()> {
    let mut client = Client::new(board.http);
    for n in 0..count {
        let mut write = write("fill", n);
        write.content = "긴".repeat(20_000);
        client.expect(201, &ask(&write, &members[0].token)).await?;
    }
    Ok(())
}

/// Reads everything in some seconds; whether it came whole.
async fn slow_download(server: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(server).await else { return false };
    let head = format!("GET /load_all_qna HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n");
    if stream.write_all(head.as_bytes()).await.is_err() {
        return false;
    }
    let (mut all, mut piece) = (Vec::new(), vec![0; 256 * 1024]);
    loop {
        match stream.read(&mut piece).await {
            // The last chunk of a chunked body.
            Ok(0) => return all.ends_with(b"0\r\n\r\n"),
            Ok(read) => all.extend_from_slice(&piece[..read]),
            Err(_) => return false,
        }
        sleep(Duration::from_millis(20)).await;
    }
}
