//! The program itself, as a child process with a data folder and ports of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::client::{Answer, Call, Client, Lost};

/// How a board is started.
#[derive(Clone, Debug)]
pub struct Plan {
    pub binary: PathBuf,
    /// The database's URL; `None` is the SQLite file in the data folder.
    pub database: Option<String>,
    /// Settings that differ from those of every trial.
    pub env: Vec<(String, String)>,
    /// The cores that it may use, as `taskset -c` takes them; `None`: all.
    pub cores: Option<String>,
    /// The data folder; it may be shared by several nodes.
    pub data: Rc<Folder>,
}

/// A folder that is taken away in the end, unless it was given.
#[derive(Debug)]
pub enum Folder {
    Own(TempDir),
    Given(PathBuf),
}

impl Folder {
    /// # Errors
    /// Where no temporary folder can be made.
    pub fn new() -> Result<Rc<Self>> {
        Ok(Rc::new(Self::Own(tempfile::Builder::new().prefix("mundap-trial-").tempdir()?)))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(path) => path,
        }
    }
}

/// A board that runs, or ran and can be started again on the same ports and data.
pub struct Board {
    plan: Plan,
    child: Child,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub ops: SocketAddr,
    log: PathBuf,
}

/// How long anything may take that has no limit of its own.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A port of this machine that nobody has. Below those that the system gives to clients: one of them might take it, or
/// even be connected with itself, while nobody listens.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000)?;
    for _ in 0..10_000 {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("there is no free port".into())
}

impl Board {
    /// Starts it, without waiting for it to be ready.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(plan: Plan) -> Result<Self> {
        let port = || free_port().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let (http, grpc, ops) = (port()?, port()?, port()?);
        let log = plan.data.path().join(format!("log-{}.jsonl", http.port()));
        let child = start(&plan, [http, grpc, ops], &log)?;
        Ok(Self { plan, child, http, grpc, ops, log })
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// Where it does not become ready within a minute.
    pub async fn start(plan: Plan) -> Result<Self> {
        let mut board = Self::spawn(plan)?;
        board.ready().await?;
        Ok(board)
    }

    /// Starts it again, after it has ended.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn again(&mut self) -> Result<()> {
        self.child = start(&self.plan, [self.http, self.grpc, self.ops], &self.log)?;
        Ok(())
    }

    /// Waits until it is ready, and says for how long.
    ///
    /// # Errors
    /// Where it ends, or is not ready within a minute.
    pub async fn ready(&mut self) -> Result<Duration> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if self.readiness().await.is_ok_and(|answer| answer.status == 200) {
                return Ok(started.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the board ended with {status}:\n{}", self.log_end()).into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err(format!("the board is not ready after {PATIENCE:?}:\n{}", self.log_end()).into())
    }

    /// # Errors
    /// Where there is no answer.
    pub async fn readiness(&self) -> std::result::Result<Answer, Lost> {
        self.operator("/readyz").await
    }

    /// What the operators' port says, on a connection of its own.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn operator(&self, path: &str) -> std::result::Result<Answer, Lost> {
        Client::new(self.ops).patience(Duration::from_secs(5)).send(&Call::get(path)).await
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// # Errors
    /// Where it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_to(self.child.id(), signal)
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// Where it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it takes more than a minute.
    pub async fn end(&mut self) -> Result<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err(format!("the board does not end in {PATIENCE:?}:\n{}", self.log_end()).into())
    }

    /// Bytes of memory that it holds.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn memory(&self) -> Result<u64> {
        memory_of(self.pid(), "status", "VmRSS:")
    }

    /// Waits until it has nothing to do, and says for how long.
    ///
    /// # Errors
    /// Where it is gone, or does not come to rest within a minute.
    pub async fn rests(&self) -> Result<Duration> {
        const MOMENT: Duration = Duration::from_millis(500);
        let started = Instant::now();
        let mut before = processor_time(self.pid())?;
        while started.elapsed() < PATIENCE {
            sleep(MOMENT).await;
            let now = processor_time(self.pid())?;
            if now.saturating_sub(before) <= MOMENT / 20 {
                return Ok(started.elapsed());
            }
            before = now;
        }
        Err(format!("the board does not come to rest in {PATIENCE:?}").into())
    }

    /// Open files and connections.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn descriptors(&self) -> Result<u64> {
        Ok(u64::try_from(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())?)
    }

    /// The connections of clients among them, as it counts them itself.
    ///
    /// # Errors
    /// Where it does not say.
    pub async fn clients(&self) -> Result<f64> {
        let answer = self.operator("/metrics").await?;
        let text = std::str::from_utf8(&answer.body)?;
        let count = text.lines().find_map(|line| line.strip_prefix("mundap_http_connections "));
        Ok(count.ok_or("no mundap_http_connections")?.parse()?)
    }

    /// What it logged at `info` about its start, and all warnings.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Registers so many members and signs them in.
    ///
    /// # Errors
    /// Where one of them is refused.
    pub async fn members(&self, count: usize) -> Result<Vec<Member>> {
        let mut client = Client::new(self.http);
        let mut members = Vec::new();
        for n in 0..count {
            let member = Member::new(n, std::process::id());
            let body = json!({"email": member.email, "password": PASSWORD, "display_name": format!("Member {n}")});
            client.expect(201, &Call::post("/api/v1/users").json(&body)).await?;
            members.push(member.sign_in(&mut client).await?);
        }
        Ok(members)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that a file of `/proc/PID` says in a line that begins like this.
///
/// # Errors
/// Where the process is gone.
pub fn memory_of(pid: u32, file: &str, line: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let value = text.lines().find_map(|text| text.strip_prefix(line)).ok_or_else(|| format!("no {line}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// `USER_HZ`: on every architecture that the board is built for, proc(5) counts in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// The processor time that a process has used.
///
/// # Errors
/// Where it is gone.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before it may hold anything, a bracket too.
    let (_, rest) = stat.rsplit_once(')').ok_or("no stat")?;
    let field =
        |n: usize| rest.split_whitespace().nth(n).ok_or("a short stat")?.parse::<u32>().map_err(|_| "no number");
    Ok(TICK * (field(11)? + field(12)?))
}

/// What the machine's processors have done since it started, in ticks (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    idle: u64,
    all: u64,
}

impl Cores {
    /// # Errors
    /// Where the system does not say.
    pub fn now() -> Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat")?)
    }

    fn parse(stat: &str) -> Result<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).ok_or("no processors")?;
        // The time of guests is a part of the others.
        let ticks =
            line.split_whitespace().take(8).map(str::parse::<u64>).collect::<std::result::Result<Vec<_>, _>>()?;
        let &[_, _, _, idle, waiting, ..] = &ticks[..] else { return Err("a short stat".into()) };
        Ok(Self { idle: idle + waiting, all: ticks.iter().sum() })
    }

    /// The part of the time in which they had nothing to do, from 0 to 1.
    #[must_use]
    pub fn idle_since(self, before: Self) -> f64 {
        let since =
            |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).map_or(f64::from(u32::MAX), f64::from);
        since(self.idle, before.idle) / since(self.all, before.all).max(1.0)
    }
}

/// # Errors
/// Where there is no such process.
pub fn signal_to(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("0 is no process")?;
    Ok(kill_process(pid, signal)?)
}

fn start(plan: &Plan, ports: [SocketAddr; 3], log: &Path) -> Result<Child> {
    let mut command = match &plan.cores {
        None => Command::new(&plan.binary),
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cores]).arg(&plan.binary);
            command
        }
    };
    let log = File::options().create(true).append(true).open(log)?;
    command.env_clear().current_dir(plan.data.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    for (flag, port) in ["--http-addr", "--grpc-addr", "--ops-addr"].into_iter().zip(ports) {
        command.arg(flag).arg(port.to_string());
    }
    command.args(["--data-dir", "data"]);
    // A line a request would be a file of gigabytes.
    command.env("MUNDAP_LOG", "warn,mundap_api::serve=info").env("MUNDAP_LOG_FORMAT", "json");
    command.env("MUNDAP_RATE_LIMIT", "off");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    if let Some(database) = &plan.database {
        command.env("MUNDAP_DATABASE_URL", database);
    }
    command.envs(plan.env.iter().map(|(name, value)| (name, value)));
    command.spawn().map_err(|error| format!("{}: {error}", plan.binary.display()).into())
}

/// Of every member.
pub const PASSWORD: &str = "correct horse battery";

/// An account and its newest access token (10 minutes).
#[derive(Clone, Debug)]
pub struct Member {
    pub email: String,
    pub token: String,
}

impl Member {
    fn new(n: usize, run: u32) -> Self {
        Self { email: format!("member-{run}-{n}@example.com"), token: String::new() }
    }

    /// # Errors
    /// Where it is refused.
    pub async fn sign_in(self, client: &mut Client) -> Result<Self> {
        let form = [("grant_type", "password"), ("username", &*self.email), ("password", PASSWORD)];
        let answer = client.expect(200, &Call::post("/api/v1/auth/token").form(&form)).await?.json();
        let token = answer["access_token"].as_str().ok_or("no access_token")?.to_owned();
        Ok(Self { token, ..self })
    }
}

/// Their tokens.
#[must_use]
pub fn tokens(members: &[Member]) -> Vec<String> {
    members.iter().map(|member| member.token.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_wait_for_a_disk_have_nothing_to_do() {
        let cores = |stat| Cores::parse(stat).unwrap();
        let before = cores("cpu  100 0 50 700 50 0 0 100 20 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
        assert_eq!(before, Cores { idle: 750, all: 1000 });
        let busy = cores("cpu  190 0 60 700 50 0 0 100 110 0\n");
        assert!(busy.idle_since(before).abs() < 1e-9);
        let half = cores("cpu  190 0 60 780 70 0 0 100 110 0\n");
        assert!((half.idle_since(before) - 0.5).abs() < 1e-9);
        assert!(half.idle_since(half).abs() < 1e-9);
        assert!(Cores::parse("cpu  1 2 3\n").is_err() && Cores::parse("intr 1\n").is_err());
    }
}
