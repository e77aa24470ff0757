//! Many nodes start at once on an empty database: one of them makes the schema, and all become ready.

use std::collections::BTreeMap;

use hyper::header::AUTHORIZATION;
use tokio::time::Instant;

use crate::Result;
use crate::board::Board;
use crate::client::{Call, Client};
use crate::experiment::Setting;
use crate::table::{Table, show};

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, count: usize) -> Result<Table> {
    let database = setting.database().await?;
    // All nodes of one board have one data folder: here it is empty too.
    let mut plan = setting.plan(&database)?;
    // Tokens name the board that they are for, which is one address in front of all nodes.
    plan.env.push(("MUNDAP_PUBLIC_URL".to_owned(), "http://board.example.com".to_owned()));
    let mut nodes = Vec::new();
    let started = Instant::now();
    for _ in 0..count {
        nodes.push(Board::spawn(plan.clone())?);
    }
    let mut failed = Vec::new();
    for node in &mut nodes {
        match node.ready().await {
            Ok(_) => {}
            Err(error) => failed.push(error.to_string()),
        }
    }
    let all = started.elapsed();
    let mut applied: BTreeMap<String, u32> = BTreeMap::new();
    for line in nodes.iter().flat_map(Board::log) {
        for name in line["migrations"].as_str().into_iter().flat_map(|names| names.split(',')) {
            *applied.entry(name.trim().to_owned()).or_default() += 1;
        }
    }
    let twice = applied.values().filter(|times| **times != 1).count();

    let mut table = Table::new(format!("nodes: {count} start at once on an empty database, {}", database.name));
    table.limit(
        "ready",
        format!("{count} nodes"),
        format!("{}{}", count - failed.len(), failed.first().map_or("", String::as_str)),
        failed.is_empty(),
    );
    table.limit(
        "migrations, each applied once",
        "some, none twice",
        format!("{}, {twice} twice", applied.len()),
        !applied.is_empty() && twice == 0,
    );
    if failed.is_empty() {
        // One schema and one signing key: what one node gives out, the others take.
        let member = nodes[0].members(1).await?.remove(0);
        let mut takes = 0;
        for node in &nodes {
            let call = Call::get("/api/v1/users/me").header(AUTHORIZATION, &format!("Bearer {}", member.token));
            takes += usize::from(Client::new(node.http).send(&call).await.is_ok_and(|answer| answer.status == 200));
        }
        table.limit("nodes that take the token of one", count.to_string(), takes.to_string(), takes == count);
    }
    table.note("all ready after", show(all));
    drop(nodes);
    database.end().await?;
    Ok(table)
}
