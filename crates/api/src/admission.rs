//! How many requests are worked on at once, and for how long.
//!
//! A request takes one place in one lane, waits a moment where all are taken, and is turned away where that does not
//! help: at once, before anybody is authenticated and before its body is read. What is admitted has a time limit. See
//! `docs/adr/0014-overload-and-outages.md` for the figures.

mod lane;
mod streaming;

use std::cell::{Cell, RefCell};
use std::num::NonZero;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::ORIGIN;
use actix_web::middleware::Next;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use futures_util::FutureExt as _;
use futures_util::future::OptionFuture;
use mundap_grpc::Load;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use self::lane::Queue;
pub(crate) use self::lane::{Lane, Seat, Shed};
use self::streaming::{Streaming, Turns};
use crate::app::Board;
use crate::connection::Told;
use crate::problem::{Prepared, Problem};
use crate::routes::seed;
use crate::settings::Settings;
use crate::words::Language;

/// Requests in flight a core, all workers together.
const REQUESTS_PER_CORE: usize = 64;

/// How many may wait for each place in a queue that has just begun: 2,048 with two cores, who are worked off in 0.2 s at 10,000 a
/// second.
const WAITING_AT_FIRST: usize = 16;

/// What hashes passwords, at once: as many as the hashing threads and their queue hold, about a second of work a thread.
const PASSWORDS: usize = 32;

/// How long they are kept waiting who come again sooner than they were told: as long as others wait for their turn. None
/// notices who does as it was told.
const EARLY: Duration = Duration::from_millis(250);

/// How many of them at once: each holds a connection meanwhile, some 25 KB, which most of them would keep open anyway. As many as ask
/// five times as often as the board can answer; with 1,024 it did two thirds of what it does with these.
const EARLY_AT_ONCE: usize = 4096;

/// Uploads at once: each holds up to 5 MiB while it arrives and is looked at.
const UPLOADS: usize = 32;

/// The lanes of one process.
pub struct Admission {
    requests: Arc<Lane>,
    /// Those of the requests that write: while nobody can, be it a lock that is held or a disk that stands still, at least
    /// half of the places are there for who reads.
    writes: Arc<Lane>,
    passwords: Arc<Lane>,
    uploads: Arc<Lane>,
    streams: Arc<Lane>,
    turns: Turns,
    /// How long a request may take, the arrival of its body and the sending of a stream not counted.
    time: Duration,
    /// Places for those who come again too early.
    early: Semaphore,
}

impl Admission {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let count = |given: u32| usize::try_from(given).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        let requests = settings.http_requests.map_or(cores.saturating_mul(REQUESTS_PER_CORE), count);
        let wait = settings.http_queue_timeout;
        let queue = |length, patience| Queue { length, patience };
        let (standing, begun) = match settings.http_queue.map(count) {
            // Who says how many may wait means it.
            Some(given) => (queue(given, wait), queue(given, wait)),
            // Twice as many: with 256 clients on two cores nobody is turned away. And so many that there is somebody to work for
            // while too many are turned away: with half of it the board did a quarter less under five times its peak.
            None => (
                queue(requests.saturating_mul(2), wait),
                queue(requests.saturating_mul(WAITING_AT_FIRST), wait.saturating_mul(2)),
            ),
        };
        let writes = Lane::with_queues("writes", (requests / 2).max(1), standing, begun);
        let requests = Arc::new(Lane::with_queues("requests", requests, standing, begun));
        Self {
            writes: Arc::new(writes.within(&requests)),
            requests,
            // The hashing threads have a queue of their own: a second one would only make it longer.
            passwords: Lane::new("passwords", PASSWORDS + (cores / 2).max(1), 0, wait),
            uploads: Lane::new("uploads", UPLOADS, UPLOADS, wait),
            streams: Lane::new("streams", count(settings.http_streams), 0, wait),
            // The other half of the cores is there for everybody else.
            turns: Turns::new((cores / 2).max(1)),
            time: settings.http_request_timeout,
            early: Semaphore::new(EARLY_AT_ONCE),
        }
    }

    /// Where there is no room, whoever was told to come again later and did not wait is kept waiting here, before they are
    /// looked at again: a refusal takes its time too, and who asks again at once would take all of it from those who are let
    /// in.
    pub async fn keep_waiting(&self, req: &ServiceRequest) {
        let is_early = req.conn_data::<Told>().is_some_and(Told::is_early);
        if is_early
            && self.lane(req).0.is_full()
            && let Ok(_place) = self.early.try_acquire()
        {
            sleep(EARLY).await;
        }
    }

    /// The answer to a request for which there is neither room nor a place to wait, made before anything else is done for
    /// it: under overload most of the time there is goes into such answers. A page's request goes the long way, which
    /// tells its browser that it may read what it gets.
    #[must_use]
    pub fn turn_away(
        &self,
        req: &ServiceRequest,
        request_id: &str,
        language: impl FnOnce() -> Language,
    ) -> Option<HttpResponse> {
        static BUSY: LazyLock<Prepared> = LazyLock::new(|| Prepared::new(&Problem::turned_away()));
        let (lane, _) = self.lane(req);
        if req.headers().contains_key(ORIGIN) || !lane.turns_away() {
            return None;
        }
        tell(req);
        Some(if seed::is_path(req.path()) { seed::busy() } else { BUSY.response(request_id, language()) })
    }

    /// The lane of a gRPC call that is of this nature: both faces share what there is.
    pub(crate) fn lane_of(&self, load: Load, writes: bool) -> &Arc<Lane> {
        match load {
            Load::Light if writes => &self.writes,
            Load::Light => &self.requests,
            Load::Hashes => &self.passwords,
            Load::Uploads => &self.uploads,
            Load::Streams => &self.streams,
        }
    }

    /// How long a request may take.
    pub(crate) fn time(&self) -> Duration {
        self.time
    }

    /// Disjoint lanes: what is slow, large or long by nature never takes a place from what is not.
    fn lane(&self, req: &ServiceRequest) -> (&Arc<Lane>, Body) {
        let path = req.path();
        match *req.method() {
            Method::GET if matches!(path, "/load_all_qna" | "/api/v1/users/me/export") => (&self.streams, Body::Gives),
            Method::POST if HASHES.contains(&path) => (&self.passwords, Body::Gives),
            // Memory is what this lane is about, and the body is it.
            Method::POST if path.starts_with("/api/v1/comments/") && path.ends_with("/images") => {
                (&self.uploads, Body::Holds)
            }
            ref method if method.is_safe() => (&self.requests, Body::Gives),
            _ => (&self.writes, Body::Gives),
        }
    }
}

const HASHES: [&str; 4] = ["/api/v1/users", "/api/v1/users/me/password", "/api/v1/auth/token", "/api/v1/auth/reset"];

/// Whether a request whose body is still on its way keeps its place meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// Whoever sends slowly, or not at all, holds up nobody.
    Gives,
    Holds,
}

/// What an admitted request holds: its place and its time. Cloning shares it.
#[derive(Clone)]
struct Ticket(Rc<Admitted>);

struct Admitted {
    lane: Arc<Lane>,
    body: Body,
    seat: RefCell<Option<Seat>>,
    deadline: Cell<Instant>,
    /// Since when its time stands still.
    aside: Cell<Option<Instant>>,
}

impl Ticket {
    fn new(lane: Arc<Lane>, body: Body, seat: Seat, deadline: Instant) -> Self {
        let (seat, deadline, aside) = (RefCell::new(Some(seat)), Cell::new(deadline), Cell::new(None));
        Self(Rc::new(Admitted { lane, body, seat, deadline, aside }))
    }

    /// Gives the place back, or on to what the answer still needs it for.
    fn leave(&self) -> Option<Seat> {
        self.0.seat.borrow_mut().take()
    }

    /// When to look again whether the time is up.
    fn deadline(&self) -> Instant {
        let stood_still = self.0.aside.get().map_or(Duration::ZERO, |since| since.elapsed());
        self.0.deadline.get() + stood_still
    }

    fn is_late(&self) -> bool {
        self.0.aside.get().is_none() && Instant::now() >= self.0.deadline.get()
    }

    async fn step_aside<T>(&self, arrival: impl Future<Output = T>) -> Result<Arrived<T>, Shed> {
        let mut arrival = pin!(arrival);
        // Most bodies come along with their heads.
        if let Some(what) = arrival.as_mut().now_or_never() {
            return Ok(Arrived { what, late: false });
        }
        let since = Instant::now();
        self.0.aside.set(Some(since));
        if self.0.body == Body::Gives {
            drop(self.leave());
        }
        let what = arrival.await;
        self.0.aside.set(None);
        self.0.deadline.set(self.0.deadline.get() + since.elapsed());
        if self.0.body == Body::Gives {
            let seat = self.0.lane.enter().await?;
            self.0.seat.replace(Some(seat));
        }
        Ok(Arrived { what, late: true })
    }
}

/// Gives the place back whatever ends the request.
struct Leaving(Ticket);

impl Drop for Leaving {
    fn drop(&mut self) {
        drop(self.0.leave());
    }
}

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived<T> {
    pub what: T,
    /// Whether it was waited for.
    pub late: bool,
}

/// Waits for what a client still has to send: meanwhile its request counts for nothing and its time stands still, for
/// `arrival` has a time limit of its own.
///
/// # Errors
/// 503 `busy` where by then no place is left.
pub async fn while_it_arrives<T>(req: &HttpRequest, arrival: impl Future<Output = T>) -> Result<Arrived<T>, Problem> {
    let ticket = req.extensions().get::<Ticket>().cloned();
    match ticket {
        Some(ticket) => ticket.step_aside(arrival).await.map_err(|_| Problem::turned_away()),
        None => Ok(Arrived { what: arrival.await, late: true }),
    }
}

/// Whoever is behind this connection is told to come again later.
fn tell(req: &ServiceRequest) {
    if let Some(told) = req.conn_data::<Told>() {
        told.now();
    }
}

/// The middleware before all that costs anything.
///
/// # Errors
/// What the routes say; 503 `too_slow` where the time is up, and then the request is gone.
pub async fn admit(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(board) = req.app_data::<web::Data<Board>>().cloned() else {
        return Ok(next.call(req).await?.map_into_boxed_body());
    };
    let face = Face { of_seed: seed::is_path(req.path()), writes: !req.method().is_safe() };
    let deadline = Instant::now() + board.admission.time;
    let (lane, body) = board.admission.lane(&req);
    let Ok(seat) = lane.enter().await else {
        tell(&req);
        return Ok(req.error_response(face.error(Problem::turned_away())));
    };
    let ticket = Ticket::new(lane.clone(), body, seat, deadline);
    req.extensions_mut().insert(ticket.clone());
    let leaving = Leaving(ticket.clone());
    // What a stream begins with is its first piece.
    let turns = Arc::ptr_eq(lane, &board.admission.streams).then(|| board.admission.turns.clone());
    let mut answer = pin!(async {
        let _turn = OptionFuture::from(turns.map(Turns::mine)).await;
        next.call(req).await
    });
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut answer => break answer?,
            () = sleep_until(ticket.deadline()) => {
                if ticket.is_late() {
                    lane.count_timeout();
                    return Err(face.error(Problem::too_slow(face.writes, board.admission.time)));
                }
            }
        }
    };
    let seat = leaving.0.leave();
    Ok(answer.map_body(|_, body| match body.size() {
        // Another batch of rows is read whenever the one before is sent. What has a length needs no more than a part of it.
        BodySize::Stream => BoxBody::new(Streaming::new(body.boxed(), seat, board.admission.turns.clone())),
        BodySize::None | BodySize::Sized(_) => body.boxed(),
    }))
}

/// In whose words a refusal is said.
#[derive(Clone, Copy)]
struct Face {
    of_seed: bool,
    writes: bool,
}

impl Face {
    fn error(self, problem: Problem) -> actix_web::Error {
        if self.of_seed { seed::Refusal::from(problem).into() } else { problem.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const PATIENCE: Duration = Duration::from_millis(250);

    pub(super) fn in_paused_time(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
    }

    #[test]
    fn a_body_on_its_way_takes_neither_place_nor_time() {
        in_paused_time(async {
            let lane = Lane::new("test", 1, 0, PATIENCE);
            let seat = lane.enter().await.unwrap();
            let ticket = Ticket::new(lane.clone(), Body::Gives, seat, Instant::now() + Duration::from_secs(5));
            let arrival = async {
                assert!(lane.enter().now_or_never().unwrap().is_ok(), "its place is free");
                assert!(!ticket.is_late());
                sleep(Duration::from_secs(1)).await;
                // The first moment is polled with the place in hand.
                tokio::task::yield_now().await;
                assert!(lane.enter().now_or_never().unwrap().is_ok(), "its place is free");
                sleep(Duration::from_secs(8)).await;
                assert!(!ticket.is_late());
            };
            let arrival = async {
                tokio::task::yield_now().await;
                arrival.await;
            };
            ticket.step_aside(arrival).await.unwrap();
            assert!(lane.enter().now_or_never().unwrap().is_err(), "it has its place again");
            assert!(!ticket.is_late());
            assert_eq!(ticket.deadline() - Instant::now(), Duration::from_secs(5));
            sleep(Duration::from_secs(5)).await;
            assert!(ticket.is_late());
        });
    }

    #[test]
    fn a_body_whose_place_is_taken_meanwhile_is_turned_away() {
        in_paused_time(async {
            let lane = Lane::new("test", 1, 0, PATIENCE);
            let seat = lane.enter().await.unwrap();
            let ticket = Ticket::new(lane.clone(), Body::Gives, seat, Instant::now() + Duration::from_secs(5));
            let taken = Cell::new(None);
            let arrival = async {
                tokio::task::yield_now().await;
                taken.set(lane.enter().await.ok());
            };
            assert_eq!(ticket.step_aside(arrival).await, Err(Shed::QueueFull));
            drop(taken);
            let seat = lane.enter().await.unwrap();
            let holding = Ticket::new(lane.clone(), Body::Holds, seat, Instant::now());
            let arrival = async {
                tokio::task::yield_now().await;
                assert!(lane.enter().now_or_never().unwrap().is_err(), "it keeps its place");
            };
            holding.step_aside(arrival).await.unwrap();
        });
    }
}
