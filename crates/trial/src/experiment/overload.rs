//! Five times what the board can do: it does nearly as much as before, soon, and says no to the rest at once.

use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::board::{Board, tokens};
use crate::client::{Call, Client};
use crate::experiment::{Setting, outage::open_on};
use crate::load::{Mix, Open, closed};
use crate::oracle::{ask, write};
use crate::table::{Table, show};
use crate::tally::Tally;

const ACCEPTED: Duration = Duration::from_secs(1);
/// "At once": what is refused has waited in the queue (250 ms) at the most.
const REFUSED: Duration = Duration::from_millis(500);
/// How much memory may grow from the first seconds of the overload to its end.
const GROWTH: u64 = 32 << 20;

/// How the experiment is cut short.
#[derive(Clone, Copy, Debug)]
pub struct Overload {
    pub length: Duration,
    /// Of each step of the search for the peak.
    pub step: Duration,
    /// Whether what is done of it is held to the peak: not in a short pass on a busy machine.
    pub ratio: bool,
    /// So many clients that ask again at once when they are refused, instead of five times the rate.
    pub clients: Option<usize>,
}

/// What people do: of 20 requests, 16 list, 3 read a question with its comments, 1 asks.
///
/// # Errors
/// Where a question to read cannot be asked.
pub async fn mix(board: &Board, tokens: Vec<String>, name: &str) -> Result<Mix> {
    let mut client = Client::new(board.http);
    let mut ids = Vec::new();
    for n in 0..50 {
        let answer = client.expect(201, &ask(&write(&format!("{name}-first"), n), &tokens[0])).await?;
        ids.push(answer.json()["qna_id"].as_i64().ok_or("no qna_id")?);
    }
    let name = name.to_owned();
    Ok(Rc::new(move |n| {
        let token = &tokens[usize::try_from(n).unwrap_or(0) % tokens.len()];
        match n % 20 {
            0 => ask(&write(&name, n), token),
            1 | 7 | 13 => {
                Call::get(format!("/api/v1/qna/{}?comments=20", ids[usize::try_from(n).unwrap_or(0) % ids.len()]))
            }
            _ => Call::get("/api/v1/qna?limit=20"),
        }
    }))
}

/// What the board answers so many clients in a second.
async fn rate(server: SocketAddr, clients: usize, step: Duration, mix: &Mix) -> f64 {
    let started = Instant::now();
    let tally = closed(server, clients, step, mix).await;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let answered = tally.accepted.count() as f64;
    answered / started.elapsed().as_secs_f64()
}

/// The same in the slowest of so many steps.
pub async fn least(server: SocketAddr, clients: usize, step: Duration, steps: u32, mix: &Mix) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..steps {
        least = least.min(rate(server, clients, step, mix).await);
    }
    least
}

/// The same on average over two steps.
async fn steady(server: SocketAddr, clients: usize, step: Duration, mix: &Mix) -> f64 {
    f64::midpoint(rate(server, clients, step, mix).await, rate(server, clients, step, mix).await)
}

/// The most that the board answers in a second, and with how many clients.
pub async fn peak(server: SocketAddr, step: Duration, mix: &Mix) -> (f64, usize) {
    let mut best = (0.0, 0);
    for clients in [2, 4, 8, 16, 32, 64] {
        let rate = rate(server, clients, step, mix).await;
        if rate > best.0 {
            best = (rate, clients);
        }
    }
    best
}

async fn flood(server: SocketAddr, load: Open, clients: Option<usize>, mix: Mix) -> Tally {
    match clients {
        None => open_on(server, load, mix).await,
        Some(clients) => closed(server, clients, load.length, &mix).await,
    }
}

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, overload: Overload) -> Result<Table> {
    let database = setting.database().await?;
    let mut plan = setting.plan(&database)?;
    // The generator would otherwise take from the board what it measures.
    let pinned = pin("1");
    if pinned {
        plan.cores = Some("0".to_owned());
    }
    let board = Board::start(plan).await?;
    let members = board.members(8).await?;
    let mix = mix(&board, tokens(&members), "overload").await?;
    // With a core of its own the generator never sleeps: to wake it up, which the system does in the name of whoever sends
    // it something, would be a part of what an answer costs the board.
    let awake = pinned.then(|| {
        spawn_local(async {
            loop {
                yield_now().await;
            }
        })
    });
    let http = board.http;
    let (_, clients) = peak(http, overload.step, &mix).await;
    let before = steady(http, clients, overload.step, &mix).await;
    let load = Open { rate: 5.0 * before, length: overload.length, connections: 4000 };
    let flood = spawn_local(flood(http, load, overload.clients, mix.clone()));
    sleep(overload.length / 4).await;
    let early = board.memory()?;
    let mut most = early;
    let mut ops = Duration::ZERO;
    let end = Instant::now() + overload.length / 4 * 3;
    while Instant::now() < end {
        sleep(Duration::from_millis(250)).await;
        most = most.max(board.memory()?);
        let started = Instant::now();
        if board.operator("/livez").await.is_ok_and(|answer| answer.status == 200) {
            ops = ops.max(started.elapsed());
        } else {
            ops = Duration::from_secs(5);
        }
    }
    let tally = flood.await?;
    // The machine and the database do not do as much in each minute: what the flood is held to is what there was around it.
    let after = steady(http, clients, overload.step, &mix).await;
    let peak = f64::midpoint(before, after);
    awake.inspect(JoinHandle::abort);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let (goodput, offered) = (
        tally.accepted.count() as f64 / overload.length.as_secs_f64(),
        tally.sent() as f64 / overload.length.as_secs_f64(),
    );

    let who = overload.clients.map_or_else(
        || "five times the peak".to_owned(),
        |clients| format!("{clients} clients that ask again at once"),
    );
    let mut table = Table::new(format!("overload: {who} for {:?}, {}", overload.length, database.name));
    table.note(
        "peak, before and after, and clients that reach it",
        format!("{peak:.0}/s, {before:.0} and {after:.0}, with {clients}"),
    );
    table.note("cores", if pinned { "board on core 0, generator on core 1" } else { "shared" });
    if overload.ratio {
        if overload.clients.is_none() {
            // Below that the generator was the bottleneck, and it is no overload.
            table.limit("offered", "≥ 4 × the peak before", format!("{offered:.0}/s"), offered >= 4.0 * before);
        } else {
            table.note("offered", format!("{offered:.0}/s"));
        }
        let share = goodput / peak * 100.0;
        table.limit("goodput", "≥ 80 % of the peak", format!("{goodput:.0}/s, {share:.0} %"), share >= 80.0);
    } else {
        table.note("offered", format!("{offered:.0}/s"));
        table.note("goodput", format!("{goodput:.0}/s"));
    }
    table.within("p99 of what was accepted", ACCEPTED, tally.accepted.p99());
    table.limit("refused", "some", tally.refused.count().to_string(), tally.refused.count() > 0);
    table.within("p99 of what was refused", REFUSED, tally.refused.p99());
    table.none(
        "anything but accepted, 429, and 503 with Retry-After",
        tally.improper() + tally.lost(),
        tally.troubles(),
    );
    let grown = most.saturating_sub(early);
    table.limit(
        "memory, from a quarter of it on",
        "+ 32 MB at most",
        format!("{} MB, + {} MB", early >> 20, grown >> 20),
        grown <= GROWTH,
    );
    table.within("/livez, the slowest", Duration::from_secs(1), ops);
    table.note(
        "median of what was accepted, of what was refused",
        format!("{}, {}", show(tally.accepted.at(0.5)), show(tally.refused.at(0.5))),
    );
    if overload.clients.is_none() {
        table.note("due and not sent, since 4000 connections were waiting", tally.unsent.to_string());
    }
    drop(board);
    database.end().await?;
    Ok(table)
}

/// Keeps this process on one core; `false` where that is not possible.
fn pin(core: &str) -> bool {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let pid = std::process::id().to_string();
    let taskset = || Command::new("taskset").args(["-p", "-c", core, &pid]).output();
    cores > 1 && taskset().is_ok_and(|output| output.status.success())
}
