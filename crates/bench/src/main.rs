//! `mundap-bench`: the board beside a server written by hand.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use mundap_bench::contender::{Floor, all};
use mundap_bench::fill::fill;
use mundap_bench::measure::{Plan, turns};
use mundap_bench::report;
use mundap_bench::scenario::{Scenario, Subjects, deep_cursors};
use mundap_trial::Result;
use mundap_trial::board::Board;
use mundap_trial::client::Client;
use mundap_trial::database::{Engine, Process};
use mundap_trial::experiment::{Setting, setting};
use mundap_trial::table::show;

/// Measures the board beside a server written by hand, on the same rows in the same run, and prints ratios.
#[derive(Debug, Parser)]
#[command(name = "mundap-bench", about, max_term_width = 110)]
struct Cli {
    /// The program, built for use
    #[arg(long, value_name = "PATH", default_value = "target/release/mundap")]
    binary: PathBuf,
    /// The server written by hand
    #[arg(long, value_name = "PATH", default_value = "target/release/mundap-floor")]
    floor: PathBuf,
    /// `sqlite`, `mariadb` (a server of the run's own), or `mysql://USER:PASSWORD@HOST:PORT` (a database of its own there)
    #[arg(long, value_name = "DATABASE", default_value = "sqlite")]
    database: Engine,
    /// How many questions there are
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    questions: u64,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Of each contender's turn
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Each with its next request when the last is answered
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Only these, with commas between them
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// A setting of the board that differs, such as `MUNDAP_WORKERS=1`
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Everything that was measured, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

async fn run(cli: Cli) -> Result<()> {
    let built = |path: &PathBuf| {
        path.canonicalize()
            .map_err(|error| format!("{}: {error}; build it with: cargo build --release --workspace", path.display()))
    };
    let (binary, floor) = (built(&cli.binary)?, built(&cli.floor)?);
    // As users run it: a line in the log for each request.
    let mut settings = vec![("MUNDAP_LOG".to_owned(), "info".to_owned())];
    settings.extend(cli.settings);
    let setting = Setting { binary, engine: cli.database, process: Process::default(), settings };
    let database = setting.database().await?;
    let board = setting.board(&database).await?;
    let url = database.url.clone();
    let file = || format!("sqlite://{}", board.plan().data.path().join("data/mundap.db").display());
    let url = url.unwrap_or_else(file);
    fill(&url, cli.questions).await?;
    // Once more, on rows that are there: how soon it answers.
    let plan = board.plan().clone();
    drop(board);
    let mut board = Board::spawn(plan)?;
    let ready = board.ready().await?;

    let members = board.members(1).await?;
    let cursors = deep_cursors(&mut Client::new(board.http), cli.questions).await?;
    let token = members[0].token.clone();
    let subjects = Rc::new(Subjects { questions: cli.questions, token, cursors, run: std::process::id() });
    let floor = Floor::start(&floor, &url).await?;
    let contenders = all(&board, &floor, cli.clients);
    let scenarios = if cli.only.is_empty() { Scenario::ALL.to_vec() } else { cli.only };
    let plan = Plan { rounds: cli.rounds, length: cli.length, clients: cli.clients };
    let turns = turns(plan, &scenarios, &contenders, &subjects).await?;

    let title = format!(
        "{} questions on {}, {} clients, medians of {} rounds of {:?}; ready {} after its start",
        cli.questions,
        database.name,
        plan.clients,
        plan.rounds,
        plan.length,
        show(ready)
    );
    writeln!(std::io::stdout().lock(), "{}", report::table(&turns, &title))?;
    if let Some(path) = cli.json {
        let all = report::json(&turns, &title, plan, cli.questions);
        fs::write(&path, serde_json::to_vec_pretty(&all)?).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    drop((board, floor));
    database.end().await?;
    Ok(())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done =
        runtime.map_err(Into::into).and_then(|runtime| tokio::task::LocalSet::new().block_on(&runtime, run(cli)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nowhere to say that it cannot be said.
            let _ = writeln!(std::io::stderr().lock(), "mundap-bench: {error}");
            ExitCode::from(2)
        }
    }
}
