//! `mundap backup`, `mundap restore` and `mundap copy`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use mundap_infra::transfer::{self, Contents, Destination, Lost, Progress};
use mundap_infra::{BlobFolder, DatabaseSettings};

use super::{DATABASE_URL, Fault, data_dir, exists, open, print};
use crate::serve::Stop;
use crate::settings::{Settings, SettingsError, database_at};

#[derive(Args, Debug)]
pub struct Backup {
    /// Where the archive goes; - is standard output
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// Succeed although the bytes of images are lost (the archive is written either way)
    #[arg(long)]
    allow_lost: bool,
}

#[derive(Args, Debug)]
pub struct Restore {
    /// An archive that `mundap backup` made
    file: PathBuf,
    /// Only check that the archive is whole, and say what it holds
    #[arg(long)]
    check: bool,
}

#[derive(Args, Debug)]
pub struct Copy {
    /// The database to read: `sqlite://PATH` or `mysql://USER:PASSWORD@HOST:PORT/NAME`
    #[arg(long, value_name = "URL", required_unless_present = "from_file", conflicts_with = "from_file")]
    from: Option<String>,
    /// A file that holds that URL, where it has a password: arguments are seen by every process on the machine
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// The database to fill; it must be empty
    #[arg(long, value_name = "URL", required_unless_present = "to_file", conflicts_with = "to_file")]
    to: Option<String>,
    /// A file that holds that URL
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
}

pub(super) async fn backup(settings: &Settings, arguments: &Backup) -> Result<(), Fault> {
    let database = patient(settings.database()?);
    // Neither a folder nor a file is made: an empty board is none to keep.
    exists(DATABASE_URL, &database)?;
    let to_stdout = arguments.file == Path::new("-");
    let destination = if to_stdout {
        Destination::Stdout
    } else {
        Destination::File { path: arguments.file.clone(), overwrite: arguments.force }
    };
    let store = open(DATABASE_URL, &database).await?;
    let blobs = BlobFolder::new(settings.images_dir());
    let progress = Shown::new();
    let contents = unless_interrupted(transfer::backup(&store, &blobs, &destination, &progress)).await?;
    progress.end();
    store.close().await;
    let say = |line: &str| if to_stdout { tell(line) } else { print(line) };
    list(&contents, say)?;
    for Lost { image, why } in &contents.lost {
        tell(&format!("the bytes of image {image} are lost: {why}"))?;
    }
    if contents.lost.is_empty() || arguments.allow_lost {
        return Ok(());
    }
    Err(Fault::Lost(contents.lost.len()))
}

pub(super) async fn restore(settings: &Settings, arguments: &Restore) -> Result<(), Fault> {
    let progress = Shown::new();
    if arguments.check {
        let contents = unless_interrupted(transfer::check(&arguments.file, &progress)).await?;
        progress.end();
        list(&contents, print)?;
        return print("the archive is whole");
    }
    data_dir(settings)?;
    let database = patient(settings.database()?);
    let store = open(DATABASE_URL, &database).await?;
    let blobs = BlobFolder::new(settings.images_dir());
    let restoring = transfer::restore(&arguments.file, &store, &database, &blobs, &progress);
    let contents = unless_interrupted(restoring).await?;
    progress.end();
    store.close().await;
    list(&contents, print)?;
    print(&format!("restored into {}", database.target()))
}

pub(super) async fn copy(arguments: &Copy) -> Result<(), Fault> {
    let from = database("--from", arguments.from.as_deref(), arguments.from_file.as_deref())?;
    let to = database("--to", arguments.to.as_deref(), arguments.to_file.as_deref())?;
    exists("--from", &from)?;
    let source = open("--from", &from).await?;
    let target = open("--to", &to).await?;
    let progress = Shown::new();
    let mut lines = Vec::new();
    let copying = transfer::copy((&source, &from), (&target, &to), &progress, |there, here| {
        let equal = if there == here { "equal" } else { "DIFFERENT" };
        let (rows, sum, name) = (there.rows, &there.sha256, &there.table);
        lines.push(format!("{name}: source {rows} rows {sum}, target {} rows {}: {equal}", here.rows, here.sha256));
    });
    let copied = unless_interrupted(copying).await;
    progress.end();
    for line in &lines {
        print(line)?;
    }
    let copied = copied?;
    source.close().await;
    target.close().await;
    print(&format!("{} rows were brought to {}; image files stay in their folder", copied.changed, to.target()))
}

/// Nobody waits for an answer here: a database that is busy is waited for.
pub(super) fn patient(database: DatabaseSettings) -> DatabaseSettings {
    let patience = Duration::from_secs(30);
    DatabaseSettings { acquire_timeout: patience, statement_timeout: patience, ..database }
}

fn database(name: &'static str, url: Option<&str>, file: Option<&Path>) -> Result<DatabaseSettings, Fault> {
    let url = match (url, file) {
        (Some(url), _) => url.to_owned(),
        (None, Some(path)) => match std::fs::read_to_string(path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => {
                let reason = format!("cannot read {}: {error}", path.display());
                return Err(SettingsError::Value { name, reason }.into());
            }
        },
        (None, None) => String::new(),
    };
    Ok(patient(database_at(name, url)?))
}

/// Ends early on SIGINT and SIGTERM; what was begun then tidies up behind itself.
pub(super) async fn unless_interrupted<T, E: Into<Fault>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    let mut stop = Stop::listen().map_err(|error| Fault::Other(error.into()))?;
    tokio::select! {
        outcome = work => outcome.map_err(Into::into),
        () = stop.requested() => Err(Fault::Interrupted),
    }
}

/// What an archive holds, a line a table.
fn list(contents: &Contents, say: impl Fn(&str) -> Result<(), Fault>) -> Result<(), Fault> {
    for sum in &contents.tables {
        say(&format!("{}: {} rows, sha256 {}", sum.table, sum.rows, sum.sha256))?;
    }
    say(&format!("images: {}, {} bytes; lost: {}", contents.images, contents.image_bytes, contents.lost.len()))
}

/// A line on standard error.
fn tell(line: &str) -> Result<(), Fault> {
    writeln!(std::io::stderr(), "{line}").map_err(|error| Fault::Other(error.into()))
}

/// How far it is: a bar on a terminal, elsewhere a line now and then, for a journal.
struct Shown {
    bar: Option<ProgressBar>,
    now: Mutex<Now>,
}

struct Now {
    what: String,
    done: u64,
    total: u64,
    said: Instant,
}

impl Shown {
    const SAY_EVERY: Duration = Duration::from_secs(10);

    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:24} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let now = Now { what: String::new(), done: 0, total: 0, said: Instant::now() };
        Self { bar, now: Mutex::new(now) }
    }

    /// Takes the bar away.
    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.end();
    }
}

impl Progress for Shown {
    fn begin(&self, what: &str, total: u64) {
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_length(total);
            bar.set_message(what.to_owned());
        } else {
            let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
            (now.what, now.done, now.total) = (what.to_owned(), 0, total);
        }
    }

    fn step(&self, steps: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(steps);
            return;
        }
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.done += steps;
        if now.said.elapsed() >= Self::SAY_EVERY {
            now.said = Instant::now();
            // It is in nobody's way where it cannot be said.
            let _ = tell(&format!("{}: {} of {}", now.what, now.done, now.total));
        }
    }
}
