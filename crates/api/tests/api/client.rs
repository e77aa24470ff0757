//! One request and its answer. Every answer is held to what is promised of all of them: its request id, the problem's
//! shape, and the status and body that the OpenAPI document names for the operation.

use serde_json::{Value, json};
use ureq::http::header::{HeaderMap, HeaderName, HeaderValue};
use ureq::http::{Method, Request};

use crate::board::User;
use crate::server::Server;

/// A request that is being put together.
#[must_use]
pub(crate) struct Call<'s> {
    server: &'s Server,
    method: Method,
    target: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Vec<u8>>,
    may_fail: bool,
    /// The path that the target's is another spelling of.
    means: Option<String>,
}

/// What the log must say of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) request_id: String,
    pub(crate) method: String,
    /// The path of the document, where it is one of its.
    pub(crate) template: Option<String>,
    pub(crate) status: u16,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The request, for messages.
    what: String,
}

/// Fields of bodies whose values have no place in a log.
const SECRET: [&str; 11] = [
    "email",
    "username",
    "password",
    "current_password",
    "new_password",
    "display_name",
    "title",
    "content",
    "access_token",
    "refresh_token",
    "token",
];

/// Headers that the document names wherever they are sent.
const DESCRIBED: [&str; 9] = [
    "ETag",
    "Location",
    "Link",
    "Retry-After",
    "WWW-Authenticate",
    "Idempotent-Replayed",
    "Content-Range",
    "Accept-Ranges",
    "Content-Disposition",
];

impl<'s> Call<'s> {
    pub(crate) fn new(server: &'s Server, method: Method, target: String) -> Self {
        Self { server, method, target, headers: Vec::new(), body: None, may_fail: false, means: None }
    }

    pub(crate) fn by(self, user: &User) -> Self {
        self.bearer(&user.token)
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.keep_secret(token);
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.raw_header(name, value.as_bytes())
    }

    pub(crate) fn raw_header(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.parse().unwrap(), HeaderValue::from_bytes(value).unwrap()));
        self
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is nearly always a json!(…)")]
    pub(crate) fn json(self, body: Value) -> Self {
        for (name, value) in body.as_object().into_iter().flatten() {
            if let (true, Some(text)) = (SECRET.contains(&name.as_str()), value.as_str()) {
                self.keep_secret(text);
            }
        }
        self.body("application/json", body.to_string())
    }

    pub(crate) fn form(self, pairs: &[(&str, &str)]) -> Self {
        for (_, value) in pairs.iter().filter(|(name, _)| SECRET.contains(name)) {
            self.keep_secret(value);
        }
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        self.body("application/x-www-form-urlencoded", body)
    }

    pub(crate) fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("content-type", content_type)
    }

    /// A form with these parts: each with its name, its file's name, its declared type and its bytes.
    pub(crate) fn parts(self, parts: &[(&str, &str, &str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (name, file, content_type, bytes) in parts {
            let head = format!(
                "--the-boundary\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\n\
                 Content-Type: {content_type}\r\n\r\n"
            );
            body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
        }
        body.extend(b"--the-boundary--\r\n");
        self.body("multipart/form-data; boundary=the-boundary", body)
    }

    /// A form with one file in it.
    pub(crate) fn file(self, bytes: &[u8]) -> Self {
        self.parts(&[("file", "picture.png", "image/png", bytes)])
    }

    /// For the few calls that are meant to be answered 5xx.
    pub(crate) fn may_fail(mut self) -> Self {
        self.may_fail = true;
        self
    }

    /// For a target that spells this path in another way.
    pub(crate) fn means(mut self, path: &str) -> Self {
        self.means = Some(path.to_owned());
        self
    }

    fn keep_secret(&self, text: &str) {
        // Short ones are found in any log by chance; of a long one its beginning is enough.
        if text.chars().count() >= 8 {
            self.server.secrets.lock().unwrap().insert(text.chars().take(60).collect());
        }
    }

    pub(crate) fn send(self) -> Reply {
        let what = format!("{} {}", self.method, self.target);
        let url = if self.target.starts_with('/') {
            format!("{}{}", self.server.base(), self.target)
        } else {
            self.target.clone()
        };
        let mut request = Request::builder().method(self.method.clone()).uri(url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let agent = &self.server.agent;
        let answer = match &self.body {
            Some(body) => agent.run(request.body(body.as_slice()).unwrap()),
            None if [Method::POST, Method::PUT, Method::PATCH].contains(&self.method) => {
                agent.run(request.body(&[][..]).unwrap())
            }
            None => agent.run(request.body(()).unwrap()),
        };
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(u64::MAX).read_to_vec();
        let body = body.unwrap_or_else(|error| panic!("{what}: {error}"));
        let reply = Reply { status: head.status.as_u16(), headers: head.headers, body, what };
        self.check(&reply);
        reply
    }

    fn check(&self, reply: &Reply) {
        let path = self.target.split('?').next().unwrap_or_default();
        let path = path.strip_prefix(&self.server.base()).unwrap_or(path);
        let path = self.means.as_deref().unwrap_or(path);
        if !self.may_fail && reply.status >= 500 {
            let id = reply.request_id();
            let why = |line: &Value| line["request.id"] == id && line["error.code"].is_string();
            panic!("{reply}\n{}", self.server.log.wait_for("the cause of this", why));
        }
        reply.request_id();
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{reply}");
        let is_head = self.method == Method::HEAD;
        if is_head || reply.status == 204 || reply.status == 304 {
            assert!(reply.body.is_empty(), "there must be no body: {reply}");
        }
        if let Some(body) = reply.body.starts_with(b"{").then(|| reply.json()) {
            for (name, value) in body.as_object().into_iter().flatten() {
                if let (true, Some(text)) = (SECRET.contains(&name.as_str()), value.as_str()) {
                    self.keep_secret(text);
                }
            }
        }
        if reply.status >= 400 && !is_head {
            self.check_refusal(reply, path);
        }
        if reply.header("content-type") != Some("application/problem+json") {
            assert_eq!(reply.header("content-language"), None, "{reply}");
            assert!(!reply.header("vary").unwrap_or_default().contains("Accept-Language"), "{reply}");
        }
        let document = self.server.document();
        self.server.answered.lock().unwrap().push(Answered {
            request_id: reply.request_id().to_owned(),
            method: self.method.to_string(),
            template: document.template(path).map(str::to_owned),
            status: reply.status,
        });
        let Some(operation) = document.operation(self.method.as_str(), path) else { return };
        let key = (operation.method.to_owned(), operation.path.to_owned(), reply.status);
        *self.server.seen.lock().unwrap().entry(key).or_default() += 1;
        let about = &operation.about["responses"][reply.status.to_string()];
        assert!(about.is_object(), "the document does not name this status: {reply}");
        for name in DESCRIBED.iter().filter(|name| reply.header(name).is_some()) {
            assert!(about["headers"][name].is_object(), "the document does not name {name}: {reply}");
        }
        if is_head || reply.body.is_empty() {
            return;
        }
        let content_type = reply.header("content-type").unwrap_or_default();
        let schema = &about["content"][content_type]["schema"];
        assert!(!schema.is_null(), "the document does not name the type {content_type}: {reply}");
        // What is in a picture is no matter of schemas.
        if content_type.starts_with("image/") {
            return;
        }
        if let Some(mismatch) = document.mismatch(schema, &reply.json()) {
            panic!("not what the document describes: {mismatch}: {reply}");
        }
    }

    /// What every refusal has in common.
    fn check_refusal(&self, reply: &Reply, path: &str) {
        let body = reply.json();
        if reply.header("content-type") == Some("application/problem+json") {
            assert_eq!(body["status"], reply.status, "{reply}");
            assert_eq!(body["request_id"], reply.request_id(), "{reply}");
            let code = body["code"].as_str().unwrap_or_default();
            assert_eq!(body["type"], format!("/docs/errors#{code}"), "{reply}");
            for name in ["title", "detail", "code"] {
                assert!(body[name].as_str().is_some_and(|text| !text.is_empty()), "no {name}: {reply}");
            }
            assert_ne!(body["detail"], code, "it has no text: {reply}");
            let spoken = reply.header("content-language").unwrap_or_default();
            let asks = self.headers.iter().any(|(name, _)| name == "accept-language");
            assert!(spoken == "en" || (spoken == "ko" && asks), "{reply}");
            assert!(reply.header("vary").unwrap_or_default().contains("Accept-Language"), "{reply}");
            assert_eq!(body["errors"].is_array(), reply.status == 422, "{reply}");
        } else if path.starts_with("/api/v1/auth/") {
            assert!(body["error"].is_string() && body["error_description"].is_string(), "{reply}");
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply}");
        } else {
            let template = self.server.document().template(path).unwrap_or_default();
            assert!(!template.is_empty() && !template.starts_with("/api/"), "not a problem: {reply}");
            assert_eq!(reply.header("content-type"), Some("application/json"), "{reply}");
            assert!(body["detail"].is_string() || reply.status == 422, "{reply}");
            assert_eq!(body["detail"].is_array(), reply.status == 422, "{reply}");
        }
        let has = |name: &str| reply.header(name).is_some();
        assert_eq!(has("www-authenticate"), reply.status == 401, "{reply}");
        assert_eq!(has("allow"), reply.status == 405, "{reply}");
        // The first program's face has no codes; of its 409s, only this one is no matter of time alone.
        let in_use = reply.status == 409
            && (body["code"] == "idempotency_key_in_use"
                || body["detail"].as_str().is_some_and(|detail| detail.ends_with("is still running")));
        assert_eq!(has("retry-after"), matches!(reply.status, 429 | 503) || in_use, "{reply}");
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn etag(&self) -> String {
        self.header("etag").unwrap_or_else(|| panic!("no ETag: {self}")).to_owned()
    }

    pub(crate) fn request_id(&self) -> &str {
        self.header("x-request-id").unwrap_or_else(|| panic!("no X-Request-Id: {self}"))
    }

    /// Holds it to a status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// Holds it to a problem; the problem's body.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        let body = self.json();
        assert_eq!(body["code"], code, "{self}");
        body
    }

    /// Holds it to a 422 that names exactly these fields and rules, such as `/title too_long`.
    #[track_caller]
    pub(crate) fn violates(self, expected: &[&str]) {
        let body = self.problem(422, "validation_failed");
        let errors = body["errors"].as_array().unwrap();
        let text = |error: &Value, name: &str| error[name].as_str().unwrap().to_owned();
        let mut found: Vec<String> =
            errors.iter().map(|error| format!("{} {}", text(error, "pointer"), text(error, "code"))).collect();
        found.sort();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected, "{body}");
        for error in errors {
            assert!(!text(error, "detail").is_empty(), "{body}");
        }
    }

    /// Holds it to `{"detail": …}`, the first program's refusal.
    #[track_caller]
    pub(crate) fn detail(self, status: u16, detail: &str) {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.json(), json!({"detail": detail}), "{self}");
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{} answered {} {body:.1500}\n{:?}", self.what, self.status, self.headers)
    }
}
