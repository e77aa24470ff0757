//! Connections: accepted, served as HTTP/2 (and HTTP/1.1 for gRPC-Web), closed where nobody calls, ended gracefully.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

/// Limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most calls at once.
    pub streams: u32,
    /// Bytes of a call's metadata.
    pub head: u32,
    /// How long until its first call.
    pub first_call: Duration,
    /// How long it may lie idle between two calls.
    pub idle: Duration,
    /// How long calls may run on it without a message that moves: nobody reads their answers.
    pub unread: Duration,
    /// How often it is asked whether its other end is still there, and how long the answer may take.
    pub ping: Duration,
    pub pong: Duration,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Serves,
    /// Nobody new is let in; connections are told to go elsewhere, and end with their last call.
    Ends,
}

/// How much a sender may have on its way: of one call, and of all calls of a connection.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// How much of an answer waits to be sent.
const SEND_BUFFER: usize = 16 << 10;

/// How long a connection that was told to end may take to do so without a call.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where the system has no file left, to try again at once would be busy work.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// Whether a connection is used.
#[derive(Clone, Default)]
pub struct Activity(Arc<Calls>);

#[derive(Default)]
struct Calls {
    running: AtomicUsize,
    /// Those that wait for something to happen.
    waiting: AtomicUsize,
    /// When the last one began, moved or ended; none before the first.
    last: Mutex<Option<Instant>>,
}

/// A call that is running.
pub struct Running {
    activity: Activity,
    waits: bool,
}

impl Activity {
    #[must_use]
    pub fn begin(&self) -> Running {
        self.run(false)
    }

    /// Of a call that waits for something to happen, and may have nothing to say for long. Its connection is not idle, and nobody
    /// leaves it unread: whether its other end is there, the connection is asked itself.
    #[must_use]
    pub fn wait(&self) -> Running {
        self.run(true)
    }

    fn run(&self, waits: bool) -> Running {
        self.count(waits).fetch_add(1, Ordering::Relaxed);
        self.moved();
        Running { activity: self.clone(), waits }
    }

    fn count(&self, waits: bool) -> &AtomicUsize {
        if waits { &self.0.waiting } else { &self.0.running }
    }

    fn moved(&self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// When nobody will have read anything for too long, as far as can be told now; `None` while no call is running.
    fn unread(&self, limits: &Limits) -> Option<Instant> {
        let last = *self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        (self.0.running.load(Ordering::Relaxed) > 0).then_some(last? + limits.unread)
    }

    /// Whether a call waits for something to happen.
    fn waits(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// When it will have been idle for too long, as far as can be told now; `None` while a call is running.
    fn deadline(&self, opened: Instant, limits: &Limits) -> Option<Instant> {
        if self.0.running.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let last = *self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        Some(last.map_or(opened + limits.first_call, |last| last + limits.idle))
    }
}

impl Running {
    /// A message of it moved.
    pub fn moved(&self) {
        self.activity.moved();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.moved();
        self.activity.count(self.waits).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves until the phase is [`Phase::Ends`] and every connection has ended. `connected` looks at each connection, and gives
/// what serves it; a connection that it gives nothing for is closed.
pub async fn serve<C, S>(listener: TcpListener, limits: Limits, connected: C, mut phase: watch::Receiver<Phase>)
where
    C: Fn(&TcpStream, Activity) -> Option<S>,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let builder = builder(&limits);
    // Each connection holds one end.
    let (open, closed) = watch::channel(());
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase == Phase::Ends) => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if is_of_listener(&error) {
                    tracing::warn!(%error, "no connection can be accepted: {error}");
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
                continue;
            }
        };
        let activity = Activity::default();
        let Some(service) = connected(&stream, activity.clone()) else { continue };
        // Small messages are all there is; to wait for more of them would cost 40 ms.
        let _ = stream.set_nodelay(true);
        let (builder, phase, closed) = (builder.clone(), phase.clone(), closed.clone());
        tokio::spawn(async move {
            converse(stream, &builder, service, limits, activity, phase).await;
            drop(closed);
        });
    }
    drop(listener);
    drop(closed);
    open.closed().await;
}

/// Whether it is the listener that fails, and not the one connection that was to be accepted.
fn is_of_listener(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.pong);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.first_call);
    builder
}

async fn converse<S>(
    stream: TcpStream,
    builder: &Builder<TokioExecutor>,
    service: S,
    limits: Limits,
    activity: Activity,
    mut phase: watch::Receiver<Phase>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let opened = Instant::now();
    let service = tower::service_fn(move |request| answer(service.clone(), request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    // When to look again, and whether it was told to end.
    let (mut look, mut ending) = (opened + limits.first_call, false);
    loop {
        tokio::select! {
            outcome = &mut connection => {
                if let Err(error) = outcome {
                    tracing::debug!(error, "a connection of the gRPC port broke: {error}");
                }
                return;
            }
            _ = phase.wait_for(|phase| *phase == Phase::Ends), if !ending => {
                connection.as_mut().graceful_shutdown();
                (look, ending) = (Instant::now() + FAREWELL, true);
            }
            () = sleep_until(look) => {
                let now = Instant::now();
                if activity.unread(&limits).is_some_and(|deadline| deadline <= now) {
                    return;
                }
                match activity.deadline(opened, &limits) {
                    None => look = now + limits.first_call,
                    Some(_) if ending => return,
                    Some(_) if activity.waits() => look = now + limits.first_call,
                    Some(deadline) if now < deadline => look = deadline,
                    Some(_) => {
                        connection.as_mut().graceful_shutdown();
                        (look, ending) = (now + FAREWELL, true);
                    }
                }
            }
        }
    }
}

/// Answers. Where an answer of HTTP/1.1 does not wait for all of its request, the connection ends with it, and the answer says
/// so: hyper closes it without a word, and the caller's next request would be lost on it (RFC 9112, 9.6).
async fn answer<S>(service: S, request: Request<Incoming>) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    if request.version() > Version::HTTP_11 {
        return service.oneshot(request.map(Body::new)).await;
    }
    let was_read = Arc::new(AtomicBool::new(request.body().is_end_stream()));
    let request = request.map(|body| Body::new(Noticed { body, was_read: was_read.clone() }));
    let mut response = service.oneshot(request).await?;
    if !was_read.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// A request's body that tells when all of it was read.
struct Noticed {
    body: Incoming,
    was_read: Arc<AtomicBool>,
}

impl hyper::body::Body for Noticed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.was_read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
