//! 200 wrong passwords a second beside reads: who reads must hardly notice.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;

use crate::Result;
use crate::client::Call;
use crate::experiment::{Setting, outage::open_on};
use crate::load::{Mix, Open, open};
use crate::table::{Table, show};

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, rate: f64, length: Duration) -> Result<Table> {
    let database = setting.database().await?;
    let board = setting.board(&database).await?;
    let members = board.members(4).await?;
    let emails: Vec<String> = members.into_iter().map(|member| member.email).collect();
    let reads = Open { rate: 200.0, length, connections: 1000 };
    let list: Mix = Rc::new(|_| Call::get("/api/v1/qna?limit=20"));
    // Nothing is fast before it has run for a while.
    open(board.http, Open { length: Duration::from_secs(1), ..reads }, &list).await;
    let before = open(board.http, reads, &list).await;
    let wrong: Mix = Rc::new(move |n| {
        // Half of them for accounts that do not exist.
        let email = if n % 2 == 0 {
            emails[usize::try_from(n / 2).unwrap_or(0) % emails.len()].clone()
        } else {
            format!("nobody-{n}@example.com")
        };
        let form = [("grant_type", "password"), ("username", &*email), ("password", "not the password")];
        Call::post("/api/v1/auth/token").form(&form)
    });
    let flood = spawn_local(open_on(
        board.http,
        Open { rate, length: length + Duration::from_secs(1), connections: 1000 },
        wrong,
    ));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let beside = open(board.http, reads, &list).await;
    let flood = flood.await?;

    let mut table =
        Table::new(format!("passwords: {rate:.0} wrong passwords a second beside reads, {}", database.name));
    let limit = before.accepted.p99() * 2;
    table.note("p99 of reads before", show(before.accepted.p99()));
    table.within("p99 of reads beside it", limit, beside.accepted.p99());
    table.none("reads that failed", beside.sent() - beside.accepted.count(), beside.troubles());
    let wrong = flood.other.get(&400).copied().unwrap_or(0) + flood.other.get(&401).copied().unwrap_or(0);
    table.limit("wrong passwords found wrong", "some", format!("{wrong} of {}", flood.sent()), wrong > 0);
    let strange = flood.improper() - wrong + flood.lost() + flood.accepted.count();
    table.none("answers but that, 429 and 503 with Retry-After", strange, flood.troubles());
    table.within("p99 of what was refused", Duration::from_secs(5), flood.refused.p99());
    drop(board);
    database.end().await?;
    Ok(table)
}
