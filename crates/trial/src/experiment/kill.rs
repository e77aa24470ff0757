//! `kill -9` under load: what was acknowledged is there, once, and the board is ready again at once.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Result;
use crate::board::tokens;
use crate::experiment::{Setting, fixed};
use crate::oracle::{Writers, Writing};
use crate::table::Table;

/// Ready again, from the start of the new process.
const READY: Duration = Duration::from_secs(2);

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, times: u32, rate: f64, between: Duration) -> Result<Table> {
    let database = setting.database().await?;
    let mut board = setting.board(&database).await?;
    let members = board.members(4).await?;
    let writing = Writing { tokens: tokens(&members), writers: 20, rate, name: "kill".to_owned() };
    let started = Instant::now();
    let writers = Writers::start(&fixed(board.http), &writing);
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        sleep(between).await;
        board.kill()?;
        board.again()?;
        longest = longest.max(board.ready().await?);
    }
    sleep(between).await;
    let (ledger, tally) = writers.end().await;
    let elapsed = started.elapsed();
    let findings = ledger.check(board.http).await?;

    let mut table = Table::new(format!("kill: {times} × kill -9 under {rate:.0} writes/s, {}", database.name));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let reached = findings.acknowledged as f64 / elapsed.as_secs_f64();
    // With fewer the trial would not be the one that was asked for.
    table.limit(
        "writes acknowledged a second, kills included",
        format!("≥ {:.0}", rate / 2.0),
        format!("{reached:.0}"),
        reached >= rate / 2.0,
    );
    table.limit(
        "acknowledged writes, read back in two ways",
        "each there, none twice",
        findings.in_words(),
        findings.are_none(),
    );
    table.within("ready again, the slowest", READY, longest);
    table.none("answers but 201, 429 and 503 with Retry-After", tally.improper(), tally.improprieties());
    table.note("sent again after no answer", tally.losses());
    drop(board);
    database.end().await?;
    Ok(table)
}
