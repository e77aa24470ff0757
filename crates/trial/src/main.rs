//! `mundap-trial`: one experiment, one table; it fails where a limit is broken.

use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use mundap_trial::Result;
use mundap_trial::database::{Engine, MariaDb, Process};
use mundap_trial::experiment::outage::Outage;
use mundap_trial::experiment::overload::Overload;
use mundap_trial::experiment::{
    Setting, disk, edits, keys, kill, nodes, outage, overload, passwords, setting, sigterm, slow, soak, streams,
};
use mundap_trial::table::{Table, show};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Loads the board, takes away what it stands on, and looks whether it keeps what it promised.
#[derive(Debug, Parser)]
#[command(name = "mundap-trial", about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    experiment: Experiment,
    #[command(flatten)]
    on: On,
}

#[derive(Args, Clone, Debug)]
struct On {
    /// The program, built for use
    #[arg(long, global = true, value_name = "PATH", default_value = "target/release/mundap")]
    binary: PathBuf,
    /// `sqlite`, `mariadb` (a server of the trial's own), or `mysql://USER:PASSWORD@HOST:PORT` (a database of its own there)
    #[arg(long, global = true, value_name = "DATABASE", default_value = "sqlite")]
    database: Engine,
    /// A file with the process id of the server that is named, so that it may be frozen and stopped
    #[arg(long, global = true, value_name = "FILE")]
    server_pid_file: Option<PathBuf>,
    /// A setting of the board that differs, such as `MUNDAP_WORKERS=1`
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// A shell command that starts the server that is named, once it is stopped
    #[arg(long, global = true, value_name = "COMMAND")]
    server_start: Option<String>,
    /// A folder on the disk of the server that is named, which is filled: a small one that nothing else is on
    #[arg(long, global = true, value_name = "FOLDER")]
    server_disk: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
enum Experiment {
    /// kill -9 under writes, again and again
    Kill {
        #[arg(long, default_value_t = 10)]
        times: u32,
        /// Writes a second
        #[arg(long, default_value_t = 200.0)]
        rate: f64,
        /// Between one kill and the next
        #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
        between: Duration,
    },
    /// The database's server killed under load, and started again
    DatabaseStopped {
        #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
        length: Duration,
    },
    /// The database's server frozen under load (SIGSTOP), and let go on
    DatabaseFrozen {
        #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
        length: Duration,
    },
    /// The disk full, and free again; needs root, for a small disk in memory, or a folder on the server's (`--server-disk`)
    DiskFull {
        #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
        length: Duration,
        /// Questions of 60 kB that the board has before; with one it is new, and MariaDB's server ends
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=2_000))]
        earlier: u64,
    },
    /// SIGTERM under load
    Sigterm {
        #[arg(long, default_value_t = 10)]
        times: u32,
    },
    /// Five times as many requests as the board can answer
    Overload {
        #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
        length: Duration,
        /// Of each step of the search for the peak
        #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
        step: Duration,
        /// Do not hold what is done to the peak: for a machine that does other things too
        #[arg(long)]
        no_ratio: bool,
        /// So many clients that ask again at once when they are refused, instead of five times the rate
        #[arg(long)]
        clients: Option<usize>,
    },
    /// Wrong passwords beside reads
    Passwords {
        /// A second
        #[arg(long, default_value_t = 200.0)]
        rate: f64,
        #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
        length: Duration,
    },
    /// Connections that are silent or do not read
    Slow {
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Those that ask for everything and do not read it
        #[arg(long, default_value_t = 200)]
        readers: usize,
    },
    /// Streams of gRPC that nobody reads
    Streams {
        #[arg(long, default_value_t = 1_000, value_parser = at_least_one)]
        streams: usize,
        #[arg(long, default_value_t = 100, value_parser = at_least_one)]
        per_connection: usize,
    },
    /// Nodes that start at once on an empty database
    Nodes {
        #[arg(long, default_value_t = 20)]
        count: usize,
    },
    /// Clients that edit one question at once
    Edits {
        #[arg(long, default_value_t = 50)]
        clients: usize,
        #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
        length: Duration,
    },
    /// The same Idempotency-Key many times at once
    Keys {
        #[arg(long, default_value_t = 50)]
        parallel: usize,
        #[arg(long, default_value_t = 20)]
        rounds: u64,
    },
    /// A long time at 60 % of the peak
    Soak {
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// Requests a second; measured if not given
        #[arg(long)]
        rate: Option<f64>,
    },
    /// A short pass over those that any machine can hold, as CI does; on SQLite and a MariaDB of its own, or on the
    /// database that is named
    Quick,
}

/// An experiment to be carried out. Boxed: all of them in one future are more than the compiler lays out.
type Doing<'a> = Pin<Box<dyn Future<Output = Result<Table>> + 'a>>;

impl Experiment {
    async fn run(self, setting: &Setting) -> Result<bool> {
        let doing: Doing<'_> = match self {
            Self::Kill { times, rate, between } => Box::pin(kill::run(setting, times, rate, between)),
            Self::DatabaseStopped { length } => Box::pin(outage::run(setting, Outage::Stopped, length)),
            Self::DatabaseFrozen { length } => Box::pin(outage::run(setting, Outage::Frozen, length)),
            Self::DiskFull { length, earlier } => Box::pin(disk::run(setting, length, earlier)),
            Self::Sigterm { times } => Box::pin(sigterm::run(setting, times)),
            Self::Overload { length, step, no_ratio, clients } => {
                Box::pin(overload::run(setting, Overload { length, step, ratio: !no_ratio, clients }))
            }
            Self::Passwords { rate, length } => Box::pin(passwords::run(setting, rate, length)),
            Self::Slow { connections, readers } => Box::pin(slow::run(setting, connections, readers)),
            Self::Streams { streams, per_connection } => Box::pin(streams::run(setting, streams, per_connection)),
            Self::Nodes { count } => Box::pin(nodes::run(setting, count)),
            Self::Edits { clients, length } => Box::pin(edits::run(setting, clients, length)),
            Self::Keys { parallel, rounds } => Box::pin(keys::run(setting, parallel, rounds)),
            Self::Soak { minutes, rate } => Box::pin(soak::run(setting, Duration::from_mins(minutes), rate)),
            Self::Quick => return quick(setting).await,
        };
        let table = doing.await?;
        table.print()?;
        Ok(table.holds())
    }
}

/// What shows in a minute and a half whether the experiments still run and hold: those whose limits a busy machine
/// cannot break. On the database that is named; where that is SQLite, on a MariaDB of the trial's own as well.
async fn quick(setting: &Setting) -> Result<bool> {
    let started = Instant::now();
    if setting.engine != Engine::Sqlite {
        return Ok(many(short(setting)).await? & many(outages(setting)).await?);
    }
    let holds = many(short(setting)).await?;
    // One for all that leave it as it is; those that take it away get their own.
    let shared = MariaDb::start(None).await?;
    let on_shared = Setting { engine: Engine::Server(shared.url()?), ..setting.clone() };
    let holds = many(short(&on_shared)).await? & holds;
    drop(shared);
    let own = Setting { engine: Engine::MariaDb, ..setting.clone() };
    let holds = many(outages(&own)).await? & holds;
    writeln!(std::io::stdout().lock(), "took {}", show(started.elapsed()))?;
    Ok(holds)
}

/// Loss, duplication, and starts and stops.
fn short(setting: &Setting) -> Vec<Doing<'_>> {
    vec![
        // So few writes that any machine can do half of them, which is what the trial asks for.
        Box::pin(kill::run(setting, 3, 100.0, Duration::from_secs(1))),
        Box::pin(sigterm::run(setting, 3)),
        Box::pin(nodes::run(setting, 20)),
        Box::pin(keys::run(setting, 50, 3)),
        Box::pin(edits::run(setting, 20, Duration::from_secs(3))),
    ]
}

fn outages(setting: &Setting) -> Vec<Doing<'_>> {
    let length = Duration::from_secs(4);
    vec![
        Box::pin(outage::run(setting, Outage::Stopped, length)),
        Box::pin(outage::run(setting, Outage::Frozen, length)),
    ]
}

/// One after the other, whatever the others found.
async fn many(all: Vec<Doing<'_>>) -> Result<bool> {
    let mut holds = true;
    for doing in all {
        let table = doing.await?;
        table.print()?;
        holds &= table.holds();
    }
    Ok(holds)
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a whole number from 1 on".to_owned())
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // There is nowhere to say that it cannot be said.
            let _ = writeln!(std::io::stderr().lock(), "mundap-trial: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<bool> {
    // Thousands of connections are open files, here and in the program, which inherits the limit.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    let binary = cli.on.binary.canonicalize().map_err(|error| {
        format!("{}: {error}; build it with: cargo build --release --workspace", cli.on.binary.display())
    })?;
    let process = Process { pid_file: cli.on.server_pid_file, start: cli.on.server_start, disk: cli.on.server_disk };
    let setting = Setting { binary, engine: cli.on.database, process, settings: cli.on.settings };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, cli.experiment.run(&setting))
}
