//! The same `Idempotency-Key` many times at once: one row, one answer.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use crate::Result;
use crate::board::tokens;
use crate::client::{Call, Client};
use crate::experiment::Setting;
use crate::oracle::{ask, walk, write};
use crate::table::Table;
use crate::tally::listed;

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, parallel: usize, rounds: u64) -> Result<Table> {
    let database = setting.database().await?;
    let board = setting.board(&database).await?;
    let token = tokens(&board.members(1).await?).remove(0);
    let (mut answers, mut running, mut refused, mut strange, mut different) = (0, 0, 0, Vec::new(), 0);
    for round in 0..rounds {
        let mut tasks = JoinSet::new();
        for _ in 0..parallel {
            let call = ask(&write("keys", round), &token).once(&format!("round-{round}"));
            let mut client = Client::new(board.http);
            tasks.spawn_local(async move {
                // All connected before any of them asks.
                let connected = client.send(&Call::get("/load_qna/1")).await;
                tokio::task::yield_now().await;
                connected?;
                client.send(&call).await
            });
        }
        let mut bodies = BTreeSet::new();
        while let Some(answer) = tasks.join_next().await {
            match answer? {
                Ok(answer) if answer.status == 201 => {
                    answers += 1;
                    bodies.insert(answer.body.to_vec());
                }
                Ok(answer) if answer.status == 409 => running += 1,
                // As many as have to wait for a connection, on a machine that does other things too.
                Ok(answer) if answer.status == 503 && answer.says_when() => refused += 1,
                Ok(answer) => strange.push(answer.status.to_string()),
                Err(lost) => strange.push(lost.to_string()),
            }
        }
        different += usize::from(bodies.len() != 1);
    }
    let rows = walk(board.http).await?.len();

    let mut table = Table::new(format!(
        "keys: the same Idempotency-Key {parallel} times at once, {rounds} rounds, {}",
        database.name
    ));
    table.limit("rows", rounds.to_string(), rows.to_string(), rows as u64 == rounds);
    table.none("rounds with no answer, or with two different ones", different as u64, different.to_string());
    table.none("answers but 201, 409 (still running) and 503 with Retry-After", strange.len() as u64, listed(&strange));
    table.note("201, 409, and 503", format!("{answers}, {running}, {refused}"));
    drop(board);
    database.end().await?;
    Ok(table)
}
