//! An HTTP client that has no opinion: one connection, one request at a time, no hidden second try. Whatever becomes of a
//! request is told.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::Result;

/// A request, to send as often as wanted.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    #[must_use]
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// # Panics
    /// Where `value` is none that a header may have.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).expect("a header's value"));
        self
    }

    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION, &format!("Bearer {token}"))
    }

    /// # Panics
    /// As [`header`](Self::header).
    #[must_use]
    pub fn once(self, key: &str) -> Self {
        self.header(HeaderName::from_static("idempotency-key"), key)
    }

    #[must_use]
    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        self.header(CONTENT_TYPE, "application/json")
    }

    #[must_use]
    pub fn form(mut self, pairs: &[(&str, &str)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        self.body = body.into();
        self.header(CONTENT_TYPE, "application/x-www-form-urlencoded")
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// `null` where the body is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether it says when to come again, in whole seconds.
    #[must_use]
    pub fn says_when(&self) -> bool {
        let value = self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.parse::<u32>().is_ok())
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// Nobody listens: the request was never sent.
    Refused,
    /// The connection ended before the answer began. `reused`: it had served a request before, so that it may have been
    /// closed as idle just when this one was sent.
    Broken { reused: bool },
    /// The answer began and did not end.
    Cut,
    /// Nothing within the client's patience.
    Late,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Broken { reused: false } => "broken",
            Self::Broken { reused: true } => "broken after an earlier answer",
            Self::Cut => "cut",
            Self::Late => "late",
        })
    }
}

impl std::error::Error for Lost {}

/// One client with one connection, made when it is needed.
pub struct Client {
    server: SocketAddr,
    patience: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// When an answer came last.
    used: Instant,
}

impl Client {
    /// How long a connection may have been idle to be used once more. The board closes it after 15 s, and a request that is on
    /// its way by then gets no answer (RFC 9112, 9.5).
    const IDLE: Duration = Duration::from_secs(10);

    /// How long a client waits that was not told otherwise: far above any limit of the board.
    pub const PATIENCE: Duration = Duration::from_secs(15);

    #[must_use]
    pub fn new(server: SocketAddr) -> Self {
        Self { server, patience: Self::PATIENCE, connection: None, used: Instant::now() }
    }

    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Gives the connection up: the next request makes a new one.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Sends it once.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn send(&mut self, call: &Call) -> std::result::Result<Answer, Lost> {
        let sent = timeout(self.patience, self.attempt(call)).await;
        let outcome = sent.unwrap_or(Err(Lost::Late));
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    async fn attempt(&mut self, call: &Call) -> std::result::Result<Answer, Lost> {
        let kept = self.connection.take().filter(|kept| !kept.is_closed() && self.used.elapsed() < Self::IDLE);
        let reused = kept.is_some();
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.parse().map_err(|_| Lost::Refused)?;
        *request.headers_mut() = call.headers.clone();
        if let Ok(host) = HeaderValue::from_str(&self.server.to_string()) {
            request.headers_mut().insert(HOST, host);
        }
        let broken = |_| Lost::Broken { reused };
        connection.ready().await.map_err(broken)?;
        let answer = connection.send_request(request).await.map_err(broken)?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|_| Lost::Cut)?.to_bytes();
        let closes = head.headers.get(hyper::header::CONNECTION).is_some_and(|value| value == "close");
        self.connection = (!closes).then_some(connection);
        self.used = Instant::now();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    async fn connect(&self) -> std::result::Result<SendRequest<Full<Bytes>>, Lost> {
        let stream = TcpStream::connect(self.server).await.map_err(|_| Lost::Refused)?;
        // It costs latency alone where it fails.
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(stream);
        let (sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(|_| Lost::Broken { reused: false })?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }

    /// Sends it once and takes nothing but this status.
    ///
    /// # Errors
    /// Where another answer came, or none.
    pub async fn expect(&mut self, status: u16, call: &Call) -> Result<Answer> {
        let what = format!("{} {}", call.method, call.path);
        let answer = self.send(call).await.map_err(|lost| format!("{what}: {lost}"))?;
        if answer.status == status {
            return Ok(answer);
        }
        let body = String::from_utf8_lossy(&answer.body);
        Err(format!("{what}: {} instead of {status}: {body:.300}", answer.status).into())
    }
}
