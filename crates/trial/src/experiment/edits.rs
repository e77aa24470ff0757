//! Many clients edit one question, each on the version that it has just read: no edit is lost and none is done twice.

use std::time::Duration;

use hyper::Method;
use hyper::header::IF_MATCH;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Result;
use crate::board::tokens;
use crate::client::{Call, Client};
use crate::experiment::Setting;
use crate::oracle::{ask, write};
use crate::table::{Table, show};
use crate::tally::Tally;

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, clients: usize, length: Duration) -> Result<Table> {
    let database = setting.database().await?;
    let board = setting.board(&database).await?;
    let token = tokens(&board.members(1).await?).remove(0);
    let mut client = Client::new(board.http);
    let asked = client.expect(201, &ask(&write("edits", 0), &token)).await?;
    let path = format!("/api/v1/qna/{}", asked.json()["qna_id"]);
    let end = Instant::now() + length;
    let mut tasks = JoinSet::new();
    for n in 0..clients {
        let (path, token, server) = (path.clone(), token.clone(), board.http);
        tasks.spawn_local(async move {
            let (mut client, mut tally) = (Client::new(server), Tally::default());
            for m in 0.. {
                if Instant::now() >= end {
                    break;
                }
                let Ok(read) = client.send(&Call::get(&path)).await else { continue };
                let Some(tag) = read.header("etag") else { continue };
                let edit = json!({"title": format!("edit {m} of client {n}")});
                let call = Call::new(Method::PATCH, &path).bearer(&token).header(IF_MATCH, tag).json(&edit);
                let started = Instant::now();
                let outcome = client.send(&call).await;
                tally.record(started.elapsed(), outcome.as_ref().map_err(|lost| *lost));
            }
            tally
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.add(&tally?);
    }
    let version = client.expect(200, &Call::get(&path)).await?.json()["version"].as_u64().unwrap_or(0);

    let mut table =
        Table::new(format!("edits: {clients} clients edit one QnA with If-Match for {length:?}, {}", database.name));
    let won = all.accepted.count();
    let losers = all.other.get(&412).copied().unwrap_or(0);
    table.limit(
        "version in the end",
        format!("{}: edits that won + 1", won + 1),
        version.to_string(),
        won > 0 && version == won + 1,
    );
    table.limit("edits that lost: 412", "some", losers.to_string(), losers > 0);
    let others = all.improper() + all.lost() - losers;
    table.none("any other answer but 503 with Retry-After, or none", others, format!("{others}: {}", all.troubles()));
    table.note("refused: 503 with Retry-After", all.refused.count().to_string());
    table.note("p99 of an edit that won", show(all.accepted.p99()));
    drop(board);
    database.end().await?;
    Ok(table)
}
