//! A long time at 60 % of the peak: nothing grows, nothing fails.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::board::{Board, Cores, tokens};
use crate::client::Client;
use crate::experiment::{Setting, outage::open_on, overload};
use crate::load::{Mix, Open};
use crate::table::{Table, show};

/// How much may be added from the first third's end to the end of the run, by the line that fits best.
const MEMORY: f64 = 32.0 * 1024.0 * 1024.0;
const DESCRIPTORS: f64 = 10.0;

/// The peak is what the board did in the slowest of so many times so long. A machine may do half as much again in one minute as
/// in the next, where others use it too, and six tenths of its best are all that it can do at its worst.
const STEP: Duration = Duration::from_secs(5);
const STEPS: u32 = 24;

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, length: Duration, rate: Option<f64>) -> Result<Table> {
    let database = setting.database().await?;
    let board = setting.board(&database).await?;
    let members = board.members(8).await?;
    let shared = Rc::new(RefCell::new(tokens(&members)));
    let peak = if let Some(rate) = rate {
        rate / 0.6
    } else {
        let mix = overload::mix(&board, tokens(&members), "peak").await?;
        let (_, clients) = overload::peak(board.http, STEP, &mix).await;
        overload::least(board.http, clients, STEP, STEPS, &mix).await
    };
    let load = Open { rate: 0.6 * peak, length, connections: 4000 };
    let mix = renewed(&board, &shared).await?;
    let running = spawn_local(open_on(board.http, load, mix));
    let started = Instant::now();
    let (mut memory, mut files) = (Vec::new(), Vec::new());
    let (mut cores, mut idle) = (Cores::now()?, Vec::new());
    let mut renew = Instant::now() + Duration::from_mins(6);
    while started.elapsed() < length {
        sleep((length / 200).max(Duration::from_millis(200))).await;
        let at = started.elapsed();
        let now = Cores::now()?;
        idle.push(now.idle_since(cores));
        cores = now;
        if at > length / 3 {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let (bytes, open) = (board.memory()? as f64, board.descriptors()? as f64 - board.clients().await?);
            memory.push((at.as_secs_f64(), bytes));
            files.push((at.as_secs_f64(), open));
        }
        if Instant::now() > renew {
            renew += Duration::from_mins(6);
            let mut client = Client::new(board.http);
            for (n, member) in members.iter().enumerate() {
                let token = member.clone().sign_in(&mut client).await?.token;
                shared.borrow_mut()[n] = token;
            }
        }
    }
    let tally = running.await?;
    let rest = length.as_secs_f64() * 2.0 / 3.0;

    let mut table = Table::new(format!("soak: {length:?} at {:.0} requests/s, {}", load.rate, database.name));
    let grown = slope(&memory) * rest;
    table.limit(
        "memory added in the last two thirds, by the best line",
        "≤ 32 MB",
        format!("{:.1} MB", grown / 1_048_576.0),
        grown <= MEMORY,
    );
    let more = slope(&files) * rest;
    table.limit(
        "descriptors added, likewise, those of clients not counted",
        "≤ 10",
        format!("{more:.1}"),
        more <= DESCRIPTORS,
    );
    table.none(
        "5xx, 429, anything but accepted",
        tally.sent() - tally.accepted.count(),
        format!("{} refused, {}", tally.refused.count(), tally.troubles()),
    );
    table.note("when those were", tally.failures_since(started));
    table.none("due and not sent, since 4000 connections were waiting", tally.unsent, tally.unsent.to_string());
    table.note("requests", tally.sent().to_string());
    table.note(
        "p50, p99, slowest",
        format!("{}, {}, {}", show(tally.accepted.at(0.5)), show(tally.accepted.p99()), show(tally.accepted.longest())),
    );
    let end = memory.last().map_or(0.0, |(_, bytes)| *bytes) / 1_048_576.0;
    table.note("memory in the end", format!("{end:.0} MB"));
    idle.sort_by(f64::total_cmp);
    let (least, median) =
        (idle.first().copied().unwrap_or_default(), idle.get(idle.len() / 2).copied().unwrap_or_default());
    table.note(
        format!("the machine's processors idle, median and least in {:.0?}", length / 200),
        format!("{:.0} %, {:.0} %", median * 100.0, least * 100.0),
    );
    drop(board);
    database.end().await?;
    Ok(table)
}

/// The mix of the overload, with tokens that are renewed meanwhile.
async fn renewed(board: &Board, tokens: &Rc<RefCell<Vec<String>>>) -> Result<Mix> {
    let now = tokens.borrow().clone();
    let first = overload::mix(board, now, "soak").await?;
    let tokens = tokens.clone();
    Ok(Rc::new(move |n| {
        let call = first(n);
        if !call.headers.contains_key(hyper::header::AUTHORIZATION) {
            return call;
        }
        let tokens = tokens.borrow();
        let token = &tokens[usize::try_from(n).unwrap_or(0) % tokens.len()];
        call.bearer(token)
    }))
}

/// What is added a unit of time, by the line that fits these points best.
#[must_use]
pub fn slope(points: &[(f64, f64)]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let count = points.len().max(1) as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let (over, under) = points
        .iter()
        .fold((0.0, 0.0), |(over, under), point| (over + (point.0 - x) * (point.1 - y), under + (point.0 - x).powi(2)));
    if under == 0.0 { 0.0 } else { over / under }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_from_noise() {
        let points = |growth: f64| -> Vec<(f64, f64)> {
            (0..200).map(f64::from).map(|n| (n, 100.0 + growth * n + (n * 7.0) % 5.0)).collect()
        };
        assert!(slope(&points(0.0)).abs() < 0.01);
        assert!((slope(&points(0.5)) - 0.5).abs() < 0.01);
        assert!(slope(&[]).abs() < 1e-9 && slope(&[(1.0, 1.0)]).abs() < 1e-9);
    }
}
