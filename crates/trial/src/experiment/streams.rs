//! Streams of gRPC that are begun and not read.

use std::time::Duration;

use mundap_grpc::v1::qna_service_client::QnaServiceClient;
use mundap_grpc::v1::{Qna, StreamQnasRequest};
use tokio::time::{Instant, sleep};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::Result;
use crate::board::{Board, PATIENCE};
use crate::client::{Call, Client};
use crate::experiment::Setting;
use crate::load::{Mix, Open, closed, open};
use crate::oracle::{ask, write};
use crate::table::{Table, show};

/// What the streams may cost together.
const MEMORY: u64 = 64 << 20;

/// What the board streams: far more than a stream's window, so that every stream comes to a halt.
const QUESTIONS: u64 = 500;
const CHARACTERS: usize = 4_000;

/// How much of a stream may be on its way before it is read: what a client may send without saying otherwise (RFC 9113,
/// section 6.9.2), and what most clients of gRPC begin with.
const STREAM_WINDOW: u32 = 65_535;

/// The same for all streams of a connection together: as much as all of them may have, or those that begin later would wait
/// for their first message.
fn connection_window(streams: usize) -> u32 {
    // RFC 9113, section 6.9.1.
    const MOST: u32 = 0x7fff_ffff;
    u32::try_from(streams).unwrap_or(MOST).saturating_add(1).saturating_mul(STREAM_WINDOW).min(MOST)
}

/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, streams: usize, per_connection: usize) -> Result<Table> {
    let database = setting.database().await?;
    let mut plan = setting.plan(&database)?;
    // Settings of the caller's come later, and count.
    let own = [
        ("MUNDAP_HTTP_STREAMS", streams.to_string()),
        ("MUNDAP_GRPC_CALLS_PER_CONNECTION", per_connection.to_string()),
        // Otherwise those that are opened first are given up before the end.
        ("MUNDAP_HTTP_WRITE_TIMEOUT", "5m".to_owned()),
    ];
    plan.env.splice(0..0, own.map(|(name, value)| (name.to_owned(), value)));
    let board = Board::start(plan).await?;
    let members = board.members(1).await?;
    let mut client = Client::new(board.http);
    for n in 0..QUESTIONS {
        let mut write = write("streams", n);
        write.content = "x".repeat(CHARACTERS);
        client.expect(201, &ask(&write, &members[0].token)).await?;
    }
    let mix: Mix = std::rc::Rc::new(|_| Call::get("/load_qna/1"));
    let load = Open { rate: 100.0, length: Duration::from_secs(10), connections: 1000 };
    // What is there once, whoever reads: the threads of both faces, and every connection of the pool.
    drop(begin(&board, 1, 1).await?);
    in_flight(&board, 0).await?;
    closed(board.http, 64, Duration::from_secs(2), &mix).await;
    let before = open(board.http, load, &mix).await;
    let memory = board.memory()?;

    let began = Instant::now();
    let unread = begin(&board, streams, per_connection).await;
    let took = began.elapsed();
    // What each may send is on its way: nothing moves any more.
    let halted = board.rests().await?;
    let beside = open(board.http, load, &mix).await;
    let grown = board.memory()?.saturating_sub(memory);
    let held = count(&board).await?;

    let title =
        format!("streams: {streams} of gRPC that nobody reads, {per_connection} a connection, {}", database.name);
    let mut table = Table::new(title);
    let refused = unread.as_ref().err().map(ToString::to_string);
    table.none("streams that could not begin", u64::from(refused.is_some()), refused.unwrap_or_default());
    let expected = u64::try_from(streams)?;
    table.limit(
        "open at the end",
        expected.to_string(),
        format!("{held}, begun in {}, at a halt after {}", show(took), show(halted)),
        held == expected,
    );
    table.limit("memory for them", format!("≤ {} MiB", MEMORY >> 20), format!("{} MiB", grown >> 20), grown <= MEMORY);
    table.note("p99 of a reader over REST before", show(before.accepted.p99()));
    table.within("p99 of a reader over REST beside them", before.accepted.p99() * 2, beside.accepted.p99());
    table.none("reads that failed", beside.sent() - beside.accepted.count(), beside.troubles());
    let left = Instant::now();
    drop(unread);
    in_flight(&board, 0).await?;
    table.note("places given back after they are left", show(left.elapsed()));
    drop(board);
    database.end().await?;
    Ok(table)
}

/// Begins so many streams, and waits for the first message of each.
async fn begin(board: &Board, streams: usize, per_connection: usize) -> Result<Vec<Streaming<Qna>>> {
    let mut unread = Vec::with_capacity(streams);
    while unread.len() < streams {
        let endpoint = Endpoint::from_shared(format!("http://{}", board.grpc))?;
        let channel: Channel = endpoint
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(connection_window(per_connection))
            .connect()
            .await?;
        for _ in 0..per_connection.min(streams - unread.len()) {
            let mut client = QnaServiceClient::new(channel.clone());
            let begun = tokio::time::timeout(PATIENCE, client.stream_qnas(StreamQnasRequest {}));
            let begun =
                begun.await.map_err(|_| format!("stream {} did not begin within {PATIENCE:?}", unread.len()))?;
            unread.push(begun?.into_inner());
        }
    }
    for (n, stream) in unread.iter_mut().enumerate() {
        let first = tokio::time::timeout(PATIENCE, stream.message()).await;
        first
            .map_err(|_| format!("no first message of stream {n} within {PATIENCE:?}"))??
            .ok_or("a stream that is empty")?;
    }
    Ok(unread)
}

/// How many streams the board says it is sending.
async fn count(board: &Board) -> Result<u64> {
    const NAME: &str = "mundap_http_lane_in_flight{lane=\"streams\"} ";
    let metrics = board.operator("/metrics").await.map_err(|lost| format!("no metrics: {lost}"))?;
    let text = String::from_utf8(metrics.body.to_vec())?;
    let value = text.lines().find_map(|line| line.strip_prefix(NAME)).ok_or("no metric of the streams in flight")?;
    Ok(value.parse()?)
}

/// Waits until it is sending so many.
async fn in_flight(board: &Board, streams: u64) -> Result<()> {
    let started = Instant::now();
    while count(board).await? != streams {
        if started.elapsed() > PATIENCE {
            return Err(format!("there are not {streams} streams after {PATIENCE:?}").into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
