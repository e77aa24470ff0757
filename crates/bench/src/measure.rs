//! Rounds in which the contenders take turns.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use mundap_grpc::v1::GetQnaRequest;
use mundap_grpc::v1::qna_service_client::QnaServiceClient;
use mundap_trial::Result;
use mundap_trial::board::processor_time;
use mundap_trial::load::{Mix, closed};
use mundap_trial::tally::Times;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

use crate::contender::{Contender, Face, proportional_memory};
use crate::scenario::{Scenario, Subjects};

/// How it is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Plan {
    pub rounds: usize,
    /// Of one turn.
    pub length: Duration,
    /// Each with its next request when the last is answered.
    pub clients: usize,
}

/// One contender's turn.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Turn {
    /// Requests a second.
    pub rate: f64,
    /// Seconds of processor time of the contender's own process, for 1,000 requests.
    pub processor: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
    /// Mebibytes of the contender's own process at its end (proportional set size).
    pub memory: f64,
}

/// Every turn, by scenario and contender.
pub type Turns = BTreeMap<&'static str, BTreeMap<&'static str, Vec<Turn>>>;

/// Lets each contender have its turn at each scenario in each round. Who begins changes from round to round.
///
/// # Errors
/// Where anything is answered other than with success: what is refused is no work done.
pub async fn turns(
    plan: Plan,
    scenarios: &[Scenario],
    contenders: &[Contender],
    subjects: &Rc<Subjects>,
) -> Result<Turns> {
    let mut turns = Turns::new();
    // Across all turns: a number, and with it an Idempotency-Key, comes once.
    let from = Rc::new(Cell::new(0));
    for &scenario in scenarios {
        // What comes first pays for caches that are cold.
        for &contender in contenders.iter().filter(|contender| scenario.has(contender.face)) {
            turn(Plan { length: plan.length / 2, ..plan }, scenario, contender, subjects, &from).await?;
        }
        for round in 0..plan.rounds {
            for n in 0..contenders.len() {
                let contender = contenders[(n + round) % contenders.len()];
                if scenario.has(contender.face) {
                    let turn = turn(plan, scenario, contender, subjects, &from).await?;
                    turns.entry(scenario.name()).or_default().entry(contender.name).or_default().push(turn);
                }
            }
        }
    }
    Ok(turns)
}

async fn turn(
    plan: Plan,
    scenario: Scenario,
    contender: Contender,
    subjects: &Rc<Subjects>,
    from: &Rc<Cell<u64>>,
) -> Result<Turn> {
    let before = processor_time(contender.pid)?;
    let started = Instant::now();
    let times = match contender.face {
        Face::Grpc { connections } => calls(plan, contender, connections, subjects).await?,
        Face::Rest | Face::Floor => {
            let requests = subjects.requests(scenario, contender.face);
            let (first, last) = (from.get(), from.clone());
            let counted: Mix = Rc::new(move |n| {
                last.set(last.get().max(first + n + 1));
                requests(first + n)
            });
            let tally = closed(contender.address, plan.clients, plan.length, &counted).await;
            if tally.sent() != tally.accepted.count() {
                return Err(format!("{} at {}: {}", contender.name, scenario.name(), tally.troubles()).into());
            }
            tally.accepted
        }
    };
    let took = started.elapsed();
    let used = processor_time(contender.pid)?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let (count, memory) = (times.count() as f64, proportional_memory(contender.pid)? as f64);
    Ok(Turn {
        rate: count / took.as_secs_f64(),
        processor: used.as_secs_f64() / count * 1e3,
        p50: times.at(0.5).as_secs_f64() * 1e3,
        p99: times.p99().as_secs_f64() * 1e3,
        memory: memory / f64::from(1 << 20),
    })
}

/// `GetQna` by `plan.clients` callers, on so many connections.
async fn calls(plan: Plan, contender: Contender, connections: usize, subjects: &Rc<Subjects>) -> Result<Times> {
    let bearer: MetadataValue<Ascii> = format!("Bearer {}", subjects.token).parse()?;
    let mut channels = Vec::<Channel>::new();
    for _ in 0..connections {
        channels
            .push(Endpoint::from_shared(format!("http://{}", contender.address))?.tcp_nodelay(true).connect().await?);
    }
    let end = Instant::now() + plan.length;
    let next = Rc::new(Cell::new(0));
    let mut callers = JoinSet::new();
    for n in 0..plan.clients {
        let mut client = QnaServiceClient::new(channels[n % connections].clone());
        let (bearer, next, subjects) = (bearer.clone(), next.clone(), subjects.clone());
        callers.spawn_local(async move {
            let mut times = Times::default();
            while Instant::now() < end {
                let n = next.replace(next.get() + 1);
                let started = Instant::now();
                let qna_id = i64::try_from(subjects.id(n)).unwrap_or(1);
                let mut request = Request::new(GetQnaRequest { qna_id, comment_count: 0 });
                request.metadata_mut().insert("authorization", bearer.clone());
                client.get_qna(request).await?;
                times.record(started.elapsed());
            }
            std::result::Result::<Times, tonic::Status>::Ok(times)
        });
    }
    let mut all = Times::default();
    while let Some(times) = callers.join_next().await {
        all.add(&times??);
    }
    Ok(all)
}

/// The middle one of a contender's turns at something.
#[must_use]
pub fn median(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
