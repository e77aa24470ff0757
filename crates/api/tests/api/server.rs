//! The program itself, as a child process: started with a clean environment, read through its log, killed when dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;
use ureq::http::Method;

use crate::client::{Answered, Call};
use crate::document::Document;

/// How long anything that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Limits for a machine that is busy with tests: what takes long there is no outage.
pub(crate) const PATIENT: [(&str, &str); 2] =
    [("MUNDAP_DATABASE_ACQUIRE_TIMEOUT", "10s"), ("MUNDAP_DATABASE_STATEMENT_TIMEOUT", "20s")];

/// The program with a clean environment, in the folder `dir`.
pub(crate) fn mundap(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mundap"));
    command.env_clear().current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a command that ended by itself left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Holds it to success; what it printed.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        self.out
    }

    /// Holds it to a code and one line; that line.
    #[track_caller]
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        let line = self.err.strip_prefix("mundap: ").and_then(|line| line.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("not the program's own message: {self:?}"));
        assert!(!line.is_empty() && !line.contains('\n'), "more or less than one line: {self:?}");
        line.to_owned()
    }

    /// Holds it to success, whatever it told meanwhile; what it printed.
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

/// Sends a signal, such as `TERM`.
pub(crate) fn send(child: &Child, signal: &str) {
    let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
    assert!(kill.success(), "no signal could be sent");
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    run_with_input(command, "")
}

/// Runs a command to its end, with `input` on its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Ended {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What a process writes to its standard error, as it comes.
#[derive(Default)]
pub(crate) struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    news: Condvar,
}

impl Log {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().0.clone()
    }

    /// The first line that `wanted` takes, as soon as there is one.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap();
        let mut seen = 0;
        loop {
            let found = lines.0[seen..].iter().filter_map(|line| serde_json::from_str(line).ok()).find(&wanted);
            if let Some(found) = found {
                return found;
            }
            seen = lines.0.len();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!lines.1 && !left.is_zero(), "no line of the log is {what}:\n{}", lines.0.join("\n"));
            lines = self.news.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The line whose message begins like this.
    pub(crate) fn wait_for_message(&self, beginning: &str) -> Value {
        self.wait_for(beginning, |line| line["message"].as_str().is_some_and(|text| text.starts_with(beginning)))
    }

    /// Waits until the process has closed its standard error, which it does by ending.
    fn wait_for_end(&self) {
        let lines = self.lines.lock().unwrap();
        let (lines, waited) = self.news.wait_timeout_while(lines, PATIENCE, |lines| !lines.1).unwrap();
        assert!(!waited.timed_out(), "the program does not end:\n{}", lines.0.join("\n"));
    }
}

/// A server that is being started.
pub(crate) struct Starting {
    child: Child,
    pub(crate) log: Arc<Log>,
    database_url: String,
    dir: Arc<TempDir>,
}

/// A server that serves.
pub(crate) struct Server {
    child: Mutex<Child>,
    pub(crate) log: Arc<Log>,
    pub(crate) database_url: String,
    /// The working folder; the data folder is `data` in it.
    pub(crate) dir: Arc<TempDir>,
    /// Such as `127.0.0.1:43210`.
    pub(crate) http: String,
    pub(crate) ops: String,
    pub(crate) grpc: String,
    pub(crate) agent: Agent,
    /// How often which operation answered which status.
    pub(crate) seen: Mutex<BTreeMap<(String, String, u16), usize>>,
    /// Every request that was answered.
    pub(crate) answered: Mutex<Vec<Answered>>,
    /// Everything that was sent or received and has no place in a log.
    pub(crate) secrets: Mutex<BTreeSet<String>>,
    document: OnceLock<Document>,
}

/// How a server differs from the one that most tests share.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) env: Vec<(&'static str, String)>,
    /// The working folder, to share one.
    pub(crate) dir: Option<Arc<TempDir>>,
}

impl Options {
    pub(crate) fn env(name: &'static str, value: impl Into<String>) -> Self {
        Self { env: vec![(name, value.into())], dir: None }
    }
}

impl Starting {
    pub(crate) fn on(database_url: &str, options: &Options) -> Self {
        let dir = options.dir.clone().unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
        let mut command = mundap(dir.path());
        command
            .args(["--ops-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"])
            .env("MUNDAP_HTTP_ADDR", "127.0.0.1:0");
        command.args(["--data-dir", "data"]).env("MUNDAP_LOG_FORMAT", "json").env("MUNDAP_DATABASE_URL", database_url);
        // Off for all but the tests that are about them.
        command
            .env("MUNDAP_RATE_LIMIT", "off")
            .envs(PATIENT)
            .envs(options.env.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn({
            let log = log.clone();
            move || {
                for line in BufReader::new(stderr).lines() {
                    log.lines.lock().unwrap().0.push(line.unwrap());
                    log.news.notify_all();
                }
                log.lines.lock().unwrap().1 = true;
                log.news.notify_all();
            }
        });
        Self { child, log, database_url: database_url.to_owned(), dir }
    }

    /// Sends a signal, such as `TERM`, and waits for its end before it serves.
    pub(crate) fn end_by(mut self, signal: &str) -> (ExitStatus, Arc<Log>) {
        send(&self.child, signal);
        self.log.wait_for_end();
        (self.child.wait().unwrap(), self.log)
    }

    pub(crate) fn ready(self) -> Server {
        let line = self.log.wait_for("the one that says where it serves", |line| line["http.addr"].is_string());
        let address = |name: &str| line[name].as_str().unwrap().to_owned();
        Server {
            http: address("http.addr"),
            ops: address("ops.addr"),
            // None where it is turned off.
            grpc: line["grpc.addr"].as_str().unwrap_or_default().to_owned(),
            child: Mutex::new(self.child),
            log: self.log,
            database_url: self.database_url,
            dir: self.dir,
            agent: agent(),
            seen: Mutex::default(),
            answered: Mutex::default(),
            secrets: Mutex::default(),
            document: OnceLock::new(),
        }
    }
}

pub(crate) fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .allow_non_standard_methods(true)
        .timeout_global(Some(PATIENCE))
        // Well below the server's own limit: a connection that both ends give up at once loses a request.
        .max_idle_age(Duration::from_secs(5));
    config.build().new_agent()
}

impl Server {
    pub(crate) fn start(database_url: &str, options: &Options) -> Self {
        Starting::on(database_url, options).ready()
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.http)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A command of the program on this server's database and data folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = mundap(self.dir.path());
        command.env("MUNDAP_DATABASE_URL", &self.database_url).env("MUNDAP_DATA_DIR", self.data_dir());
        command.envs(PATIENT).args(arguments);
        command
    }

    /// The document that it serves.
    pub(crate) fn document(&self) -> &Document {
        self.document.get_or_init(|| {
            let mut answer = self.agent.get(format!("{}/openapi.json", self.base())).call().unwrap();
            let mut text = String::new();
            answer.body_mut().as_reader().read_to_string(&mut text).unwrap();
            Document::parse(&text)
        })
    }

    pub(crate) fn call(&self, method: &str, target: impl Into<String>) -> Call<'_> {
        Call::new(self, method.parse::<Method>().unwrap(), target.into())
    }

    pub(crate) fn get(&self, target: impl Into<String>) -> Call<'_> {
        self.call("GET", target)
    }

    pub(crate) fn post(&self, target: impl Into<String>) -> Call<'_> {
        self.call("POST", target)
    }

    pub(crate) fn put(&self, target: impl Into<String>) -> Call<'_> {
        self.call("PUT", target)
    }

    pub(crate) fn patch(&self, target: impl Into<String>) -> Call<'_> {
        self.call("PATCH", target)
    }

    pub(crate) fn delete(&self, target: impl Into<String>) -> Call<'_> {
        self.call("DELETE", target)
    }

    /// The access log's line on the request with this id.
    pub(crate) fn access(&self, request_id: &str) -> Value {
        self.log.wait_for("the access log's on this request", |line| {
            line["request.id"] == request_id && line["http.status"].is_number()
        })
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        send(&self.child.lock().unwrap(), name);
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> usize {
        let id = self.child.lock().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Waits for its end.
    pub(crate) fn end(&self) -> ExitStatus {
        self.log.wait_for_end();
        self.child.lock().unwrap().wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}
