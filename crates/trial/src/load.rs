//! Load: closed (so many clients, each with its next request when the last is answered) and open (so many requests a
//! second, whatever becomes of them). Of open load a request's time counts from when it was due, so that a server that
//! stalls cannot hide what waited meanwhile.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::{Call, Client};
use crate::tally::Tally;

/// What a load sends: its n-th request.
pub type Mix = Rc<dyn Fn(u64) -> Call>;

/// `clients` clients for `length`, each with its next request when the last is answered.
pub async fn closed(server: SocketAddr, clients: usize, length: Duration, mix: &Mix) -> Tally {
    let end = Instant::now() + length;
    let next = Rc::new(RefCell::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (mix, next) = (mix.clone(), next.clone());
        tasks.spawn_local(async move {
            let (mut client, mut tally) = (Client::new(server), Tally::default());
            while Instant::now() < end {
                let n = next.replace_with(|n| *n + 1);
                let started = Instant::now();
                let outcome = client.send(&mix(n)).await;
                tally.record(started.elapsed(), outcome.as_ref().map_err(|lost| *lost));
            }
            tally
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.add(&tally.unwrap_or_default());
    }
    all
}

/// How the generator of an open load is bounded.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Requests a second.
    pub rate: f64,
    pub length: Duration,
    /// The most connections at once; what is due beyond that is counted as unsent.
    pub connections: usize,
}

/// `rate` requests a second, whatever becomes of them, on as many connections as it takes.
pub async fn open(server: SocketAddr, load: Open, mix: &Mix) -> Tally {
    let all = Rc::new(RefCell::new(Tally::default()));
    let idle: Rc<RefCell<Vec<Client>>> = Rc::default();
    let mut tasks = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(1));
    // What a late tick missed is sent by the next one, and its time counts from when it was due.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let start = Instant::now();
    let mut sent: u64 = 0;
    while start.elapsed() < load.length {
        ticks.tick().await;
        while tasks.try_join_next().is_some() {}
        loop {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let due = start + Duration::from_secs_f64(sent as f64 / load.rate);
            if due > Instant::now() {
                break;
            }
            sent += 1;
            if tasks.len() >= load.connections {
                all.borrow_mut().unsent += 1;
                continue;
            }
            let call = mix(sent - 1);
            let mut client = idle.borrow_mut().pop().unwrap_or_else(|| Client::new(server));
            let (all, idle) = (all.clone(), idle.clone());
            tasks.spawn_local(async move {
                let outcome = client.send(&call).await;
                all.borrow_mut().record(due.elapsed(), outcome.as_ref().map_err(|lost| *lost));
                idle.borrow_mut().push(client);
            });
        }
    }
    while tasks.join_next().await.is_some() {}
    all.take()
}
