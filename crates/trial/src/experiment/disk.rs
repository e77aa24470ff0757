//! The disk full under load, and free again: writes are refused, reads go on, nothing acknowledged is lost.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::statvfs;
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::board::{Board, Folder, Plan, tokens};
use crate::client::{Call, Client};
use crate::database::{Database, Engine, MariaDb};
use crate::experiment::{Setting, fixed, outage::open_on};
use crate::load::{Mix, Open};
use crate::oracle::{Write, Writers, Writing, ask, write};
use crate::table::{Table, show};

/// Working again after there is room.
const RECOVERY: Duration = Duration::from_secs(3);
/// The same for MySQL, whose binary log looks for room again only once a minute; commits wait behind it until then.
const RECOVERY_OF_MYSQL: Duration = Duration::from_secs(63);

/// The largest disk that is filled: another one is not the database's alone.
const LARGEST: u64 = 4 << 30;

/// A small disk.
enum Disk {
    /// In memory.
    Own(TempDir),
    /// The server's.
    Given(PathBuf),
}

impl Disk {
    fn given(folder: &Path) -> Result<Self> {
        let size = statvfs(folder)?;
        if size.f_blocks.saturating_mul(size.f_frsize) > LARGEST {
            return Err(format!("{} is on a disk of more than 4 GiB, which is not filled", folder.display()).into());
        }
        Ok(Self::Given(folder.to_owned()))
    }

    fn new(megabytes: u32) -> Result<Self> {
        if !geteuid().is_root() {
            return Err("a small disk of its own can only be made by root".into());
        }
        let folder = tempfile::Builder::new().prefix("mundap-trial-").tempdir()?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=755"), "mundap-trial"])
            .arg(folder.path())
            .output()?;
        if !mount.status.success() {
            return Err(format!("mount: {}", String::from_utf8_lossy(&mount.stderr)).into());
        }
        Ok(Self::Own(folder))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(folder) => folder,
        }
    }

    fn filler(&self) -> PathBuf {
        self.path().join("mundap-trial-filler")
    }

    /// Fills it to the last byte.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.filler();
        let mut file = File::create(&path)?;
        write_all(&mut file);
        Ok(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        match self {
            // What has its files open keeps it until then; lazily, so that the folder can go at once.
            Self::Own(folder) => drop(Command::new("umount").arg("-l").arg(folder.path()).status()),
            // Where the experiment came to its end it is gone already.
            Self::Given(_) => drop(std::fs::remove_file(self.filler())),
        }
    }
}

/// On a board that has so many questions of 60 kB before. `InnoDB` sets pages of a table aside for taking back what could not be
/// done, but none of one that is smaller than an extent (1 MiB), and ends itself where it cannot: 200 are 12 MB.
///
/// # Errors
/// Where it cannot be carried out.
pub async fn run(setting: &Setting, length: Duration, earlier: u64) -> Result<Table> {
    let (disk, mut database, data) = places(setting).await?;
    let plan = Plan {
        binary: setting.binary.clone(),
        database: database.url.clone(),
        env: setting.settings.clone(),
        cores: None,
        data,
    };
    let mut board = Board::start(plan).await?;
    let pid = board.pid();
    let members = board.members(4).await?;
    let mut client = Client::new(board.http);
    for n in 0..earlier {
        client.expect(201, &ask(&big(n), &members[0].token)).await?;
    }
    let writing = Writing { tokens: tokens(&members), writers: 10, rate: 100.0, name: "disk".to_owned() };
    let before = Writers::start(&fixed(board.http), &writing);
    sleep(Duration::from_secs(2)).await;
    let (before, _) = before.end().await;

    let filler = disk.fill()?;
    let refused = use_up(&mut client, &members[0].token, earlier, &filler).await?;
    let reads = Open { rate: 100.0, length, connections: 1000 };
    let list: Mix = Rc::new(|_| Call::get("/api/v1/qna?limit=20"));
    let reading = spawn_local(open_on(board.http, reads, list));
    let writing = Writing { rate: 50.0, name: "full".to_owned(), ..writing };
    let writers = Writers::start(&fixed(board.http), &writing);
    sleep(length).await;
    let read = reading.await?;
    let during = writers.tally.borrow().clone();
    std::fs::remove_file(&filler)?;
    // Whoever made room starts a server again that has ended.
    let ended = database.has_ended()?;
    if ended {
        database.start().await?;
    }
    let freed = Instant::now();
    let is_mysql = database.name.starts_with("MySQL");
    let limit = if is_mysql { RECOVERY_OF_MYSQL } else { RECOVERY };
    while freed.elapsed() < limit && writers.tally.borrow().accepted.count() == during.accepted.count() {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(RECOVERY + Duration::from_secs(2)).await;
    let (ledger, tally) = writers.end().await;
    let recovered = tally.last_failure.map_or(Duration::ZERO, |last| last.saturating_duration_since(freed));
    let after = tally.accepted.count() - during.accepted.count();

    let mut table = Table::new(format!("disk-full: {length:?}, {}", database.name));
    table.limit(
        "writes refused",
        "some",
        during.refused.count().to_string(),
        refused.is_some() && during.refused.count() > 0,
    );
    // Whoever repeats a key whose first commit waits in MySQL for the disk is told so.
    let in_use = if is_mysql { during.in_use } else { 0 };
    table.note("of those that failed, 409 for a key in use", in_use.to_string());
    let failed = during.improper() - in_use + during.lost();
    table.none("writes that failed other than by 503 with Retry-After", failed, during.troubles());
    table.within("the slowest write", Duration::from_secs(5), during.slowest_failure);
    table.limit(
        "reads meanwhile",
        "all go on",
        format!("{} of {}, p99 {}", read.accepted.count(), read.sent(), show(read.accepted.p99())),
        read.accepted.count() == read.sent() && read.sent() > 0,
    );
    table.within("last write refused after there was room", limit, recovered);
    table.limit("writes done then", "some", after.to_string(), after > 0);
    table.limit(
        "the process",
        "the same",
        if board.runs()? { "the same" } else { "gone" },
        board.runs()? && board.pid() == pid,
    );
    // What is only in a transaction that nobody commits is read back as well, until the process ends.
    board.signal(Signal::TERM)?;
    board.end().await?;
    board.again()?;
    board.ready().await?;
    for (when, ledger) in [("before", before), ("while it was full, and after", ledger)] {
        let findings = ledger.check(board.http).await?;
        table.limit(
            format!("acknowledged writes of {when}, after a new start"),
            "each there, none twice",
            findings.in_words(),
            findings.are_none(),
        );
    }
    table.note("the database's server", if ended { "ended itself, and was started again" } else { "stayed" });
    table.note("the first refusal", refused.unwrap_or_else(|| "none".to_owned()));
    drop(board);
    database.end().await?;
    Ok(table)
}

/// The disk that is filled, the database on it, and the board's data folder.
async fn places(setting: &Setting) -> Result<(Disk, Database, Rc<Folder>)> {
    match &setting.engine {
        Engine::Sqlite => {
            let disk = Disk::new(64)?;
            let data = disk.path().join("board");
            std::fs::create_dir(&data)?;
            Ok((disk, setting.database().await?, Rc::new(Folder::Given(data))))
        }
        Engine::MariaDb => {
            let disk = Disk::new(400)?;
            let server = MariaDb::start(Some(disk.path())).await?;
            Ok((disk, Database::own(server).await?, Folder::new()?))
        }
        Engine::Server(_) => {
            let folder = setting.process.disk.as_deref();
            let folder =
                folder.ok_or("this fills the disk of the server that is named: say where with --server-disk")?;
            Ok((Disk::given(folder)?, setting.database().await?, Folder::new()?))
        }
    }
}

/// A question of 60 kB.
fn big(n: u64) -> Write {
    Write { content: "찬".repeat(20_000), ..write("fills", n) }
}

/// Uses up the room that the database has already, until a write is refused; says how it was.
async fn use_up(client: &mut Client, token: &str, from: u64, filler: &Path) -> Result<Option<String>> {
    for n in from..from + 20_000 {
        let answer = client.send(&ask(&big(n), token)).await;
        if !answer.as_ref().is_ok_and(|answer| answer.status == 201) {
            return Ok(Some(answer.map_or_else(|lost| lost.to_string(), |answer| answer.status.to_string())));
        }
        if n % 50 == 49 {
            // A file that shrank has left room.
            fill_again(filler)?;
        }
    }
    Ok(None)
}

/// Takes what room has become free since it was filled.
fn fill_again(filler: &Path) -> Result<()> {
    write_all(&mut File::options().append(true).open(filler)?);
    Ok(())
}

/// Until there is no room for a single byte.
fn write_all(file: &mut File) {
    for size in [1 << 20, 4096, 1] {
        let piece = vec![0; size];
        while file.write_all(&piece).is_ok() {}
    }
}
