//! What happens around every call.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::web;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use mundap_domain::env::Timestamp;
use mundap_domain::mail::Language;
use mundap_domain::rate::Subject;
use mundap_domain::{Actor, Error};
use mundap_grpc::server::Activity;
use mundap_grpc::{Call, Look, Method, Purpose, status};
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::{Service, ServiceExt as _};
use tracing::Instrument as _;

use super::answer::{Stream, watched};
use super::record::{Record, refusal, say};
use crate::admission::{Lane, Seat};
use crate::app::Board;
use crate::connection;
use crate::edge::{bearer, message, request_id};
use crate::headers::Headers as _;
use crate::problem::{self, Problem};
use crate::rate::{self, Budget, Demand};
use crate::words;

/// What a message takes on the wire beside itself: its flag and its length.
const FRAME: usize = 5;

/// What serves one connection.
#[derive(Clone)]
pub(super) struct Edge {
    board: web::Data<Board>,
    routes: Routes,
    peer: IpAddr,
    activity: Activity,
    /// The connection's place, given back with the last call.
    _seat: Arc<connection::Seat>,
    /// How long a stream may lie unread.
    unread: Duration,
}

impl Edge {
    pub(super) fn new(
        board: web::Data<Board>,
        routes: Routes,
        peer: IpAddr,
        activity: Activity,
        seat: Arc<connection::Seat>,
        unread: Duration,
    ) -> Self {
        Self { board, routes, peer, activity, _seat: seat, unread }
    }

    async fn answer(self, req: Request<Body>) -> Response<Body> {
        let Some(method) = Method::at(req.uri().path()) else { return self.foreign(req).await };
        let language = words::asked_for(req.headers().texts("accept-language").flatten());
        let voice = if method.purpose == Purpose::SignsIn { problem::say_of_signing_in } else { problem::say };
        let call = Call::new(Actor::Anonymous, language, voice);
        let deadline = client_deadline(req.headers());
        let mut record = Record::start(&self.board, self.activity.begin(), &req, method, call.clone());
        let (budget, patience, limit) = (record.budget.clone(), self.unread, self.board.limits.body);
        let work = self.work(req, method, &call, deadline, &budget).instrument(record.trace.span().clone());
        // Nothing that a method holds across a panic outlives its call, save what locks or transactions protect.
        let (mut response, seat) = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(Worked { response, seat, call })) => {
                record.call = call;
                (record.refuse_unread(&response, limit).unwrap_or(response), seat)
            }
            Ok(Err(Refused::Said(status))) => (status.into_http(), None),
            Ok(Err(Refused::Here { status, reason })) => {
                record.refused = reason;
                (status.into_http(), None)
            }
            Err(panic) => {
                let error = Error::internal(format!("a panic: {}", message(&*panic)));
                (call.refuse(error).into_http(), None)
            }
        };
        record.begin(&mut response);
        let stream = method.gives_stream.then_some(Stream { seat, deadline, patience });
        watched(response, record, stream)
    }

    /// Health, reflection, and what is not there. They take no place: whoever asks for health asks whether there is one.
    async fn foreign(self, req: Request<Body>) -> Response<Body> {
        let (id, budget) = (request_id(req.headers()), Budget::default());
        let is_health = req.uri().path().starts_with("/grpc.health.v1.Health/");
        // Who watches health waits for what may never happen.
        let running = if is_health { self.activity.wait() } else { self.activity.begin() };
        let counted = if is_health {
            Ok(())
        } else {
            let address = self.address(req.headers());
            rate::count(&self.board, &budget, &address, Demand::Read, Ok(&Actor::Anonymous)).await
        };
        let mut response = match counted {
            Ok(()) => self.routes.oneshot(req).await.unwrap_or_else(|never| match never {}),
            Err(error) => {
                let language = words::asked_for(req.headers().texts("accept-language").flatten());
                Call::new(Actor::Anonymous, language, problem::say).refuse(error).into_http()
            }
        };
        say(response.headers_mut(), &id, None, &budget);
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                running.moved();
                frame
            }))
        })
    }

    fn address(&self, headers: &HeaderMap) -> Subject {
        rate::address_of(&self.board, self.peer, headers)
    }

    async fn work(
        self,
        req: Request<Body>,
        method: &'static Method,
        call: &Call,
        client: Option<Instant>,
        budget: &Budget,
    ) -> Result<Worked, Refused> {
        let lane = self.board.admission.lane_of(method.load, method.purpose != Purpose::Reads);
        if lane.turns_away() {
            return Err(Refused::busy(call.language));
        }
        let (began, came) = (Instant::now(), self.board.now());
        let time = self.board.admission.time();
        let too_late = |server: bool| Refused::late(lane, server, method, call.language, time);
        let refuse = |error| Refused::Said(call.refuse(error));
        // Whoever calls may have less time than there is.
        let within = |limit: Instant| client.map_or((limit, true), |client| (limit.min(client), limit <= client));

        let (limit, by_server) = within(began + time);
        let (mut head, body) = req.into_parts();
        let admitted = timeout_at(limit, self.admit(&head.headers, came, method, call, lane, budget)).await;
        let (mut seat, mut actor) = admitted.map_err(|_| too_late(by_server))??;
        let mut left = time.saturating_sub(began.elapsed());

        let body = if method.takes_stream {
            // It keeps its place while it arrives, which takes time of its own.
            left += self.board.limits.body_time;
            body
        } else {
            let mut arrival = Box::pin(self.arrival(body, call.language));
            if let Some(body) = arrival.as_mut().now_or_never() {
                body?
            } else {
                // Whoever sends slowly, or not at all, holds up nobody.
                drop(seat.take());
                let (limit, by_server) = within(Instant::now() + self.board.limits.body_time);
                let arrived = timeout_at(limit, arrival).await;
                let unsent = |_| if by_server { Refused::unsent(call.language) } else { too_late(false) };
                let body = arrived.map_err(unsent)??;
                seat = Some(lane.enter().await.map_err(|_| Refused::busy(call.language))?);
                if method.authenticates {
                    // Whoever was suspended, or signed out, meanwhile must not be heard any more.
                    actor = self.authenticate(&head.headers, came).await.map_err(refuse)?;
                }
                body
            }
        };

        let mut call = call.clone().made_by(actor);
        if method.takes_stream || method.gives_stream {
            call = call.lasting(self.look(&head.headers, came));
        }
        head.extensions.insert(call.clone());
        let (limit, by_server) = within(Instant::now() + left);
        let answer = timeout_at(limit, self.routes.clone().oneshot(Request::from_parts(head, body))).await;
        let response = answer.map_err(|_| too_late(by_server))?.unwrap_or_else(|never| match never {});
        Ok(Worked { response, seat, call })
    }

    /// A place, and who is asking, before anything else of the call is read.
    async fn admit(
        &self,
        headers: &HeaderMap,
        came: Timestamp,
        method: &Method,
        call: &Call,
        lane: &Arc<Lane>,
        budget: &Budget,
    ) -> Result<(Option<Seat>, Actor), Refused> {
        let seat = lane.enter().await.map_err(|_| Refused::busy(call.language))?;
        let refuse = |error| Refused::Said(call.refuse(error));
        let caller = if method.authenticates { self.authenticate(headers, came).await } else { Ok(Actor::Anonymous) };
        let demand = match method.purpose {
            Purpose::Reads => Demand::Read,
            Purpose::Writes => Demand::Write,
            Purpose::GuardsAccounts => Demand::GuardsAccounts,
            Purpose::SignsIn => Demand::Tokens { has_password: true },
            Purpose::Renews => Demand::Tokens { has_password: false },
        };
        let address = self.address(headers);
        rate::count(&self.board, budget, &address, demand, caller.as_ref()).await.map_err(refuse)?;
        let actor = caller.map_err(refuse)?;
        // As REST, which does not read a stranger's body.
        if matches!(actor, Actor::Anonymous) && method.purpose == Purpose::Writes {
            return Err(refuse(Error::Unauthenticated));
        }
        Ok((Some(seat), actor))
    }

    /// Who is asking, by the token in `authorization`, which was good when the call came. A bad one is refused even where
    /// anybody may read.
    async fn authenticate(&self, headers: &HeaderMap, came: Timestamp) -> Result<Actor, Error> {
        if !headers.contains_key("authorization") {
            return Ok(Actor::Anonymous);
        }
        let token = headers.only_text("authorization").and_then(bearer).ok_or(Error::InvalidToken)?;
        self.board.services.accounts.authenticate_since(token, came).await
    }

    /// Looks again who is asking.
    fn look(&self, headers: &HeaderMap, came: Timestamp) -> Look {
        let (edge, headers) = (self.clone(), Arc::new(headers.clone()));
        Arc::new(move || {
            let (edge, headers) = (edge.clone(), headers.clone());
            Box::pin(async move { edge.authenticate(&headers, came).await })
        })
    }

    /// The only message, when all of it is there.
    async fn arrival(&self, body: Body, language: Language) -> Result<Body, Refused> {
        let most = self.board.limits.body + FRAME;
        match Limited::new(body, most).collect().await {
            Ok(whole) => Ok(Body::new(Full::new(whole.to_bytes()))),
            Err(error) if error.is::<LengthLimitError>() => {
                let problem = Problem::body_too_large(self.board.limits.body);
                Err(Refused::here(Code::ResourceExhausted, &problem, language, None))
            }
            // The caller is gone.
            Err(_) => Err(Refused::Said(Status::cancelled("the message broke off"))),
        }
    }
}

impl Service<Request<Body>> for Edge {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Request<Body>) -> Self::Future {
        Box::pin(self.clone().answer(req).map(Ok))
    }
}

/// What came of a call that was let in.
struct Worked {
    response: Response<Body>,
    seat: Option<Seat>,
    call: Call,
}

/// A call that got no further.
enum Refused {
    /// Its [`Call`] knows why.
    Said(Status),
    /// For a reason that is no business of the domain's; it has none where the caller's own time was up.
    Here { status: Status, reason: Option<&'static str> },
}

impl Refused {
    fn here(code: Code, problem: &Problem, language: Language, retry: Option<Duration>) -> Self {
        Self::Here { status: refusal(code, problem, language, retry), reason: Some(problem.code()) }
    }

    fn busy(language: Language) -> Self {
        Self::here(Code::Unavailable, &Problem::turned_away(), language, Some(status::RETRY))
    }

    fn unsent(language: Language) -> Self {
        Self::here(Code::DeadlineExceeded, &Problem::body_timeout(), language, None)
    }

    /// The time is up: the server's, or what the caller gave it.
    fn late(lane: &Lane, by_server: bool, method: &Method, language: Language, time: Duration) -> Self {
        if !by_server {
            let status = Status::deadline_exceeded("the time is up that the caller gave this call");
            return Self::Here { status, reason: None };
        }
        lane.count_timeout();
        Self::here(Code::DeadlineExceeded, &Problem::too_slow(method.purpose != Purpose::Reads, time), language, None)
    }
}

/// When the caller gives up, by its `grpc-timeout`: at most eight digits and a unit. A bad one is as if it were not there.
fn client_deadline(headers: &HeaderMap) -> Option<Instant> {
    Instant::now().checked_add(grpc_timeout(headers.only_text("grpc-timeout")?)?)
}

fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("3S", Duration::from_secs(3)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(grpc_timeout(text), Some(expected), "{text}");
        }
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "999999999S", " 1S", "1é"] {
            assert_eq!(grpc_timeout(bad), None, "{bad}");
        }
    }
}
