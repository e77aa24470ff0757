//! What happens around every request: its id, who is asking and how often, the panic that must not cost a connection,
//! problems made whole, the metrics, and the one access-log line.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_cors::CorsError;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{
    ACCEPT_LANGUAGE, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, ORIGIN, RANGE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::http::{ConnectionType, Method, Version};
use actix_web::middleware::Next;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::FutureExt as _;
use metrics::{Counter, Histogram, counter, histogram};
use mundap_domain::env::Timestamp;
use mundap_domain::{Actor, Error};
use tracing::Instrument as _;

use crate::app::{Board, InFlight};
use crate::cors::Origins;
use crate::headers::Headers;
use crate::input::{Caller, head};
use crate::problem::Problem;
use crate::rate::{self, Budget};
use crate::routes::seed;
use crate::target::spell_plainly;
use crate::trace::{TRACEPARENT, Trace};
use crate::words::{self, Language};

pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The middleware around everything.
///
/// # Errors
/// A finished answer where the request is gone: after a panic, or where its time was up.
pub async fn edge(
    mut req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    spell_plainly(&mut req);
    let record = Record::start(&req);
    // Kept unread: only a refusal is said in a language.
    let asked: Vec<HeaderValue> = req.headers().get_all(ACCEPT_LANGUAGE).cloned().collect();
    // A HEAD is answered as the GET it stands for (RFC 9110, 9.3.2); the connection leaves the body out.
    if *req.method() == Method::HEAD {
        req.head_mut().method = Method::GET;
        // Of a GET alone (RFC 9110, 14.2).
        req.headers_mut().remove(RANGE);
    }
    let origin = req.headers().get(ORIGIN).cloned().zip(req.app_data::<Origins>().cloned());
    let board = req.app_data::<web::Data<Board>>().cloned();
    // Asked when the answer is there.
    let draining = || board.as_ref().is_some_and(|board| board.is_draining());
    if let Some(board) = &board {
        board.admission.keep_waiting(&req).await;
    }
    let turned_away =
        board.as_ref().and_then(|board| board.admission.turn_away(&req, &record.id, || asked_for(&asked)));
    if let Some(answer) = turned_away {
        METERS.with(|meters| meters.busy.increment(1));
        return Ok(ServiceResponse::new(req.into_parts().0, record.finish(answer, draining())));
    }
    req.extensions_mut().insert(record.budget.clone());
    req.extensions_mut().insert(record.actor.clone());
    // Nothing that a handler holds across a panic outlives its request, save what locks or transactions protect.
    let work = next.call(req).instrument(record.trace.span().clone());
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(response)) => {
            let (req, response) = response.into_parts();
            let answer = match response.error() {
                Some(error) => {
                    let mut answer = render(error, &record, &asked);
                    keep(response.headers(), &mut answer);
                    answer
                }
                None => response.map_into_boxed_body(),
            };
            Ok(ServiceResponse::new(req, record.finish(answer, draining())))
        }
        Ok(Err(error)) => {
            let mut answer = render(&error, &record, &asked);
            let_read(origin, &mut answer);
            Err(finished(record, answer, draining()))
        }
        Err(panic) => {
            let problem = Problem::from(Error::internal(format!("a panic: {}", message(&*panic))));
            let mut answer = render(&problem.into(), &record, &asked);
            let_read(origin, &mut answer);
            Err(finished(record, answer, draining()))
        }
    }
}

/// The middleware within CORS, so that a browser may read why it was turned away: for its head, for who is asking, for how
/// often.
///
/// # Errors
/// What the routes say; whom it turns away itself gets an answer.
pub async fn door(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if let Err(problem) = head(req.request()) {
        return Ok(req.error_response(problem));
    }
    if let Some(board) = req.app_data::<web::Data<Board>>().cloned() {
        let caller = authenticate(req.request(), &board).await.map(Caller::from);
        match rate::enter(req.request(), &board, caller).await {
            Ok(caller) => {
                if let Some(actor) = req.extensions().get::<KnownActor>() {
                    actor.0.set(caller.account().map(|user| user.id.get()));
                }
                req.extensions_mut().insert(caller);
            }
            Err(error) => {
                let error: actix_web::Error = if seed::is_path(req.path()) {
                    seed::Refusal::from(error).into()
                } else {
                    Problem::from(error).into()
                };
                return Ok(req.error_response(error));
            }
        }
    }
    Ok(next.call(req).await?.map_into_boxed_body())
}

/// The account that a request turned out to come from, for the access log.
#[derive(Clone, Default)]
struct KnownActor(Rc<Cell<Option<i64>>>);

fn finished(record: Record, answer: HttpResponse, draining: bool) -> actix_web::Error {
    InternalError::from_response("answered", record.finish(answer, draining)).into()
}

/// The answer that an error makes, and the log line that it deserves.
fn render(error: &actix_web::Error, record: &Record, asked: &[HeaderValue]) -> HttpResponse {
    if let Some(problem) = error.as_error::<Problem>() {
        refused(problem.code(), problem.cause(), record);
        return problem.response(&record.id, asked_for(asked));
    }
    if let Some(refusal) = error.as_error::<CorsError>() {
        return render(&Problem::not_for_this_page(refusal).into(), record, asked);
    }
    if let Some(refusal) = error.as_error::<seed::Refusal>() {
        refused(refusal.code(), refusal.cause(), record);
    }
    error.error_response()
}

fn asked_for(lines: &[HeaderValue]) -> Language {
    words::asked_for(lines.iter().filter_map(|line| line.to_str().ok()))
}

/// What CORS would have added, had it seen the answer.
fn let_read(origin: Option<(HeaderValue, Origins)>, answer: &mut HttpResponse) {
    if let Some((origin, origins)) = origin {
        origins.let_read(&origin, answer);
    }
}

/// What CORS added to the answer that another takes the place of, without which a browser hides the refusal from its page.
fn keep(before: &HeaderMap, answer: &mut HttpResponse) {
    let kept = before.iter().filter(|(name, _)| *name == VARY || name.as_str().starts_with("access-control-"));
    if before.contains_key(VARY) {
        answer.headers_mut().remove(VARY);
    }
    for (name, value) in kept {
        answer.headers_mut().append(name.clone(), value.clone());
    }
}

fn refused(code: &'static str, cause: Option<String>, record: &Record) {
    note_refusal(code, cause, &record.id, &record.trace);
}

/// Counts a refusal, and logs its cause where it is a fault.
pub(crate) fn note_refusal(code: &'static str, cause: Option<String>, request_id: &str, trace: &Trace) {
    counter!("mundap_refusals_total", "code" => code).increment(1);
    if let Some(cause) = cause {
        tracing::error!(
            request.id = request_id,
            trace.id = trace.id,
            span.id = trace.span_id,
            error.code = code,
            "{code}: {cause}"
        );
    }
}

pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// When a request first showed its token. Whoever is looked at again, because the request goes on, may have one by then whose
/// time is up.
#[derive(Clone, Copy)]
struct Came(Timestamp);

impl Came {
    fn of(req: &HttpRequest, board: &Board) -> Timestamp {
        let known = req.extensions().get::<Self>().copied();
        let Self(then) = known.unwrap_or_else(|| {
            let came = Self(board.now());
            req.extensions_mut().insert(came);
            came
        });
        then
    }
}

/// Who is asking. Anonymous without an `Authorization` header; a bad one is refused even where anybody may read, since
/// the caller believes to be somebody.
pub(crate) async fn authenticate(req: &HttpRequest, board: &Board) -> Result<Actor, Error> {
    let path = req.path();
    // Signing in needs no token, and OAuth2 clients may send their own credentials in this header there.
    let asks = seed::is_path(path) || (path.starts_with("/api/v1/") && !path.starts_with("/api/v1/auth/"));
    if !asks || !req.headers().contains_key(AUTHORIZATION) {
        return Ok(Actor::Anonymous);
    }
    let token = req.headers().only_text("authorization").and_then(bearer).ok_or(Error::InvalidToken)?;
    board.services.accounts.authenticate_since(token, Came::of(req, board)).await
}

/// RFC 6750, 2.1; the scheme's case does not matter (RFC 9110, 11.1).
pub(crate) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The caller's own id where it is one to keep in a log; else a new one.
pub(crate) fn request_id(headers: &impl Headers) -> String {
    let sane = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let given = headers.texts(REQUEST_ID).next().flatten().filter(sane);
    given.map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned)
}

/// What the access log and the metrics say of one request, when its last byte is sent or its client is gone.
struct Record {
    _in_flight: Option<InFlight>,
    started: Instant,
    id: String,
    trace: Trace,
    method: Method,
    /// The route's template, such as `/api/v1/qna/{qna_id}`; never the path, which strangers choose.
    route: String,
    /// Whether it came by HTTP/1.0.
    is_old: bool,
    status: u16,
    actor: KnownActor,
    budget: Budget,
    bytes: u64,
    whole: bool,
}

impl Record {
    fn start(req: &ServiceRequest) -> Self {
        let route = req.match_pattern();
        let board = req.app_data::<web::Data<Board>>();
        let scheme = board.and_then(|board| board.public_url.split_once(':')).map_or("http", |(scheme, _)| scheme);
        Self {
            trace: Trace::begin(req.headers(), req.version(), known(req.method()), route.as_deref(), scheme),
            _in_flight: req.app_data::<web::Data<Board>>().cloned().map(InFlight::on),
            started: Instant::now(),
            id: request_id(req.headers()),
            method: req.method().clone(),
            route: route.unwrap_or_else(|| "unmatched".to_owned()),
            is_old: req.version() < Version::HTTP_11,
            status: 0,
            actor: KnownActor::default(),
            budget: Budget::default(),
            bytes: 0,
            whole: false,
        }
    }

    fn finish(mut self, mut answer: HttpResponse, draining: bool) -> HttpResponse {
        self.status = answer.status().as_u16();
        let headers = answer.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(HeaderName::from_static(REQUEST_ID), id);
        }
        if let Some(parent) = self.trace.parent.as_deref().and_then(|parent| HeaderValue::from_str(parent).ok()) {
            headers.insert(HeaderName::from_static(TRACEPARENT), parent);
        }
        self.trace.answered(self.status);
        self.budget.show(headers);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        // A client of HTTP/1.0 knows no chunks (RFC 9112, 6.1): a body of unknown length ends with its connection.
        let ends_it = self.is_old && matches!(answer.body().size(), BodySize::Stream);
        answer.head_mut().no_chunking(ends_it);
        if draining || ends_it {
            // The header alone would be left out.
            answer.head_mut().set_connection_type(ConnectionType::Close);
        }
        answer.map_body(|_, body| {
            // An empty body is never polled.
            self.whole = matches!(body.size(), BodySize::None | BodySize::Sized(0));
            BoxBody::new(Recorded { body, record: self })
        })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let method = known(&self.method);
        let route = &self.route;
        // The body of a HEAD's answer is made, and not sent.
        let bytes = if self.method == Method::HEAD { 0 } else { self.bytes };
        tracing::info!(
            http.method = method,
            http.route = route,
            http.status = self.status,
            duration_ms = duration.as_secs_f64() * 1000.0,
            bytes,
            whole = self.whole,
            request.id = self.id,
            trace.id = self.trace.id,
            span.id = self.trace.span_id,
            actor.id = self.actor.0.get(),
            "{method} {route} {} in {duration:.1?}",
            self.status
        );
        // A worker that ends takes its meters along.
        let _ = METERS.try_with(|meters| meters.count(route, method, self.status, duration));
    }
}

/// The methods that are told apart.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Strangers choose the method; a label must not grow without bound.
fn known(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

thread_local! {
    static METERS: Meters = Meters::default();
}

/// The handles of one worker's metrics: to find one anew for each request would cost more than to count it.
struct Meters {
    by_route: RefCell<HashMap<String, Vec<Answers>>>,
    /// Who was turned away before anything was done for them.
    busy: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Self { by_route: RefCell::default(), busy: counter!("mundap_refusals_total", "code" => "busy") }
    }
}

/// One method and status of a route.
struct Answers {
    method: &'static str,
    status: u16,
    count: Counter,
    duration: Histogram,
}

impl Meters {
    fn count(&self, route: &str, method: &'static str, status: u16, duration: Duration) {
        let mut by_route = self.by_route.borrow_mut();
        if !by_route.contains_key(route) {
            by_route.insert(route.to_owned(), Vec::new());
        }
        let Some(all) = by_route.get_mut(route) else { return };
        let known = all.iter().position(|answers| answers.method == method && answers.status == status);
        let index = known.unwrap_or_else(|| {
            all.push(Answers::of(route, method, status));
            all.len() - 1
        });
        all[index].count.increment(1);
        all[index].duration.record(duration);
    }
}

impl Answers {
    fn of(route: &str, method: &'static str, status: u16) -> Self {
        let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
        Self {
            method,
            status,
            count: counter!("mundap_http_requests_total", &labels),
            duration: histogram!("mundap_http_request_duration_seconds", &labels),
        }
    }
}

/// A body that counts what is sent.
struct Recorded {
    body: BoxBody,
    record: Record,
}

impl MessageBody for Recorded {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        // What is read while it is sent belongs to the request.
        let body = Pin::new(&mut this.body);
        let polled = this.record.trace.span().in_scope(|| body.poll_next(cx));
        match &polled {
            Poll::Ready(Some(Ok(bytes))) => {
                this.record.bytes += bytes.len() as u64;
                this.record.whole = this.body.size() == BodySize::Sized(this.record.bytes);
            }
            Poll::Ready(None) => this.record.whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::http::StatusCode;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service, try_call_service};
    use actix_web::{App, web};
    use serde_json::Value;

    use super::*;

    #[expect(clippy::panic, reason = "it is what the test is about")]
    async fn panics() -> HttpResponse {
        panic!("the cellar is on fire")
    }

    #[actix_web::test]
    async fn a_panic_becomes_a_problem_and_the_next_request_is_answered() {
        let app = App::new()
            .route("/panics", web::to(panics))
            .route("/works", web::to(|| async { HttpResponse::NoContent().finish() }))
            .wrap(from_fn(edge));
        let service = init_service(app).await;

        for given in [Some("the-callers-own-id"), None] {
            let mut request = TestRequest::with_uri("/panics").insert_header((ACCEPT_LANGUAGE, "ko"));
            if let Some(id) = given {
                request = request.insert_header((REQUEST_ID, id));
            }
            let error = try_call_service(&service, request.to_request()).await.expect_err("a finished answer");
            let answer = error.error_response();
            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let headers = answer.headers();
            assert_eq!(headers.get("content-language").unwrap(), "ko");
            assert_eq!(headers.get("content-type").unwrap(), "application/problem+json");
            assert_eq!(headers.get(X_CONTENT_TYPE_OPTIONS).unwrap(), "nosniff");
            let id = headers.get(REQUEST_ID).unwrap().to_str().unwrap().to_owned();
            assert!(!id.is_empty() && given.is_none_or(|given| id == given), "{id}");
            let body = to_bytes(answer.into_body()).await.map_err(|error| error.to_string()).unwrap();
            let problem: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(problem["code"], "internal_error");
            assert_eq!(problem["status"], 500);
            assert_eq!(problem["type"], "/docs/errors#internal_error");
            assert_eq!(problem["request_id"], id);
            assert!(!problem.to_string().contains("cellar"), "{problem}");
        }

        let answer = call_service(&service, TestRequest::with_uri("/works").to_request()).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert!(answer.headers().contains_key(REQUEST_ID));
    }
}
