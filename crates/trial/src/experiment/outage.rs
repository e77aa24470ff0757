//! The database stopped, or frozen, under load, and its return: requests fail soon and properly, the process stays, and
//! everything works again within moments.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet, spawn_local};
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::board::{Board, tokens};
use crate::client::{Call, Client};
use crate::database::Database;
use crate::experiment::{Setting, fixed};
use crate::load::{Mix, Open, open};
use crate::oracle::{Writers, Writing};
use crate::table::{Table, show};

/// What is done to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Its process is killed, and started again.
    Stopped,
    /// Its process is stopped by the system's scheduler (SIGSTOP): it takes connections and answers nothing.
    Frozen,
}

const REQUEST: Duration = Duration::from_secs(2);
const RECOVERY: Duration = Duration::from_secs(3);
/// Connections to the database; as many requests must work at once afterwards.
const POOL: usize = 10;

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, outage: Outage, length: Duration) -> Result<Table> {
    let mut database = setting.database().await?;
    let possible = if outage == Outage::Stopped { database.can_stop() } else { database.can_freeze() };
    if !possible {
        return Err("this needs --database mariadb, or a server whose process is named".into());
    }
    let mut plan = setting.plan(&database)?;
    plan.env.push(("MUNDAP_DATABASE_MAX_CONNECTIONS".to_owned(), POOL.to_string()));
    let mut board = Board::start(plan).await?;
    let pid = board.pid();
    let members = board.members(4).await?;
    let writing = Writing { tokens: tokens(&members), writers: 10, rate: 50.0, name: "outage".to_owned() };
    let writers = Writers::start(&fixed(board.http), &writing);
    let calm = Duration::from_secs(2);
    let after = Duration::from_secs(6);
    let reads = Open { rate: 100.0, length: calm + length + after, connections: 1000 };
    let mix: Mix = Rc::new(|_| Call::get("/api/v1/qna?limit=20"));
    let reading = spawn_local(open_on(board.http, reads, mix));
    sleep(calm).await;

    let probes = Probes::start(&board);
    let begin = Instant::now();
    match outage {
        Outage::Stopped => database.kill().await?,
        Outage::Frozen => database.signal(Signal::STOP)?,
    }
    sleep(length.saturating_sub(begin.elapsed())).await;
    let during = probes.end().await?;
    match outage {
        Outage::Stopped => database.start().await?,
        Outage::Frozen => database.signal(Signal::CONT)?,
    }
    let returned = Instant::now();
    let waited = board.ready().await?;
    let seen = reading.await?;
    let (ledger, written) = writers.end().await;
    let last = seen.last_failure.max(written.last_failure);
    let recovered = last.map_or(Duration::ZERO, |last| last.saturating_duration_since(returned));

    let word = if outage == Outage::Stopped { "stopped" } else { "frozen" };
    let mut table = Table::new(format!("database-{word}: {length:?} under load, {}", database.name));
    let mut all = seen;
    all.add(&written);
    let failed = all.sent() - all.accepted.count();
    // Otherwise there was no outage.
    table.limit("requests that failed", "some", failed.to_string(), failed > 0);
    table.within("the slowest of all", REQUEST, all.slowest_failure.max(all.accepted.longest()));
    table.none("failures but 503 with Retry-After", all.improper() + all.lost(), all.troubles());
    table.limit("/livez", "200", during.alive(), during.not_alive == 0 && during.asked > 0);
    table.limit("/readyz, after the first 2 s", "503", during.ready(), during.ready == 0 && during.late > 0);
    table.within("ready after the return", RECOVERY, waited);
    table.within("last failure after the return", RECOVERY, recovered);
    table.limit(
        "the process",
        "the same",
        if board.runs()? { "the same" } else { "gone" },
        board.runs()? && board.pid() == pid,
    );
    let whole = pool(&board, &database, &members[0].token).await?;
    table.limit(
        format!("of {POOL} connections to the database work at once"),
        POOL.to_string(),
        whole.to_string(),
        whole == POOL,
    );
    let findings = ledger.check(board.http).await?;
    table.limit("acknowledged writes", "each there, none twice", findings.in_words(), findings.are_none());
    table.note("failed fast: median of the refused", show(all.refused.at(0.5)));
    drop(board);
    database.end().await?;
    Ok(table)
}

/// As a task: `open` borrows its mix.
pub(crate) async fn open_on(server: std::net::SocketAddr, load: Open, mix: Mix) -> crate::tally::Tally {
    open(server, load, &mix).await
}

/// How many of the pool's connections can be in use at once: a lock holds up as many requests, for longer than one waits for
/// a connection, and those are answered that have one. Two thirds of them read, for which there are as many, and the
/// others write.
async fn pool(board: &Board, database: &Database, token: &str) -> Result<usize> {
    let lock = database.connection().await?;
    lock.execute_unprepared("LOCK TABLES qna WRITE").await?;
    let mut calls = JoinSet::new();
    for n in 0..POOL {
        let mut client = Client::new(board.http);
        let call = if n < POOL * 2 / 3 {
            Call::get("/api/v1/qna?limit=1")
        } else {
            Call::post("/api/v1/qna").bearer(token).json(&json!({"title": "Held up", "content": ""}))
        };
        calls.spawn_local(async move { client.send(&call).await });
    }
    sleep(Duration::from_millis(800)).await;
    lock.execute_unprepared("UNLOCK TABLES").await?;
    lock.close().await?;
    let mut worked = 0;
    while let Some(call) = calls.join_next().await {
        worked += usize::from(call?.is_ok_and(|answer| matches!(answer.status, 200 | 201)));
    }
    Ok(worked)
}

/// What the operators' port said meanwhile.
#[derive(Clone, Debug, Default)]
struct Probed {
    asked: u32,
    not_alive: u32,
    /// Asked when it must have been noticed long ago that it is not ready.
    late: u32,
    /// Said "ready" when it was noticed long ago that it is not.
    ready: u32,
}

impl Probed {
    fn alive(&self) -> String {
        format!("{} of {} were 200", self.asked - self.not_alive, self.asked)
    }

    fn ready(&self) -> String {
        format!("{} of {} were 200", self.ready, self.late)
    }
}

struct Probes {
    stop: Rc<Cell<bool>>,
    found: Rc<RefCell<Probed>>,
    task: JoinHandle<()>,
}

impl Probes {
    fn start(board: &Board) -> Self {
        let stop = Rc::<Cell<bool>>::default();
        let found = Rc::<RefCell<Probed>>::default();
        let (ops, told, kept) = (board.ops, stop.clone(), found.clone());
        let task = spawn_local(async move {
            let started = Instant::now();
            let mut client = Client::new(ops).patience(Duration::from_secs(5));
            loop {
                sleep(Duration::from_millis(200)).await;
                let alive = client.send(&Call::get("/livez")).await.is_ok_and(|answer| answer.status == 200);
                let ready = client.send(&Call::get("/readyz")).await.is_ok_and(|answer| answer.status == 200);
                if told.get() {
                    return;
                }
                let mut found = kept.borrow_mut();
                found.asked += 1;
                found.not_alive += u32::from(!alive);
                let is_late = started.elapsed() > Duration::from_secs(2);
                found.late += u32::from(is_late);
                found.ready += u32::from(ready && is_late);
            }
        });
        Self { stop, found, task }
    }

    async fn end(self) -> Result<Probed> {
        self.stop.set(true);
        self.task.await?;
        Ok(self.found.take())
    }
}
