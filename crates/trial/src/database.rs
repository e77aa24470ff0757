//! What the board stands on: its own SQLite file, a MariaDB that the trial starts for itself, or a server that is named.
//!
//! A server that is named is never stopped or frozen unless its process is named too.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use rustix::process::{Signal, geteuid};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database as Orm, DatabaseConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::Result;
use crate::board::{PATIENCE, free_port, signal_to};

/// Which database a trial is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    /// A server of the trial's own, from the system's package.
    MariaDb,
    /// A server that runs; its user may create databases.
    Server(Url),
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            "mariadb" => Ok(Self::MariaDb),
            _ => match Url::parse(text) {
                Ok(url) if url.scheme() == "mysql" => Ok(Self::Server(url)),
                _ => Err("a database is sqlite, mariadb or mysql://USER:PASSWORD@HOST:PORT".to_owned()),
            },
        }
    }
}

/// How a server that is named is stopped, frozen and started, and where its disk is.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// A file with its process id.
    pub pid_file: Option<PathBuf>,
    /// A shell command that starts it.
    pub start: Option<String>,
    /// A folder on its disk, which may be filled.
    pub disk: Option<PathBuf>,
}

/// A database of its own for one experiment, dropped in the end.
pub struct Database {
    /// What the board is given; `None` for the SQLite file in its data folder.
    pub url: Option<String>,
    /// Such as `MariaDB 11.8`.
    pub name: String,
    server: Server,
}

enum Server {
    None,
    Own(MariaDb),
    Named { url: Url, process: Process, database: String },
}

impl Database {
    /// # Errors
    /// Where the server cannot be started or does not answer.
    pub async fn prepare(engine: &Engine, process: &Process) -> Result<Self> {
        match engine {
            Engine::Sqlite => Ok(Self { url: None, name: "SQLite".to_owned(), server: Server::None }),
            Engine::MariaDb => Self::own(MariaDb::start(None).await?).await,
            Engine::Server(url) => {
                let database = format!("mundap_trial_{}", std::process::id());
                let connection = connect(url).await?;
                connection.execute_unprepared(&format!("DROP DATABASE IF EXISTS {database}")).await?;
                connection.execute_unprepared(&format!("CREATE DATABASE {database} CHARACTER SET utf8mb4")).await?;
                let name = version(&connection).await?;
                connection.close().await?;
                let mut own = url.clone();
                own.set_path(&database);
                let server = Server::Named { url: url.clone(), process: process.clone(), database };
                Ok(Self { url: Some(own.into()), name, server })
            }
        }
    }

    /// On a MariaDB that was started.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn own(server: MariaDb) -> Result<Self> {
        let connection = connect(&server.url()?).await?;
        connection.execute_unprepared("CREATE DATABASE mundap CHARACTER SET utf8mb4").await?;
        let name = version(&connection).await?;
        connection.close().await?;
        let mut url = server.url()?;
        url.set_path("mundap");
        Ok(Self { url: Some(url.into()), name, server: Server::Own(server) })
    }

    /// Whether its server can be stopped and started.
    #[must_use]
    pub fn can_stop(&self) -> bool {
        match &self.server {
            Server::None => false,
            Server::Own(_) => true,
            Server::Named { process, .. } => process.pid_file.is_some() && process.start.is_some(),
        }
    }

    /// Whether its server can be frozen.
    #[must_use]
    pub fn can_freeze(&self) -> bool {
        match &self.server {
            Server::None => false,
            Server::Own(_) => true,
            Server::Named { process, .. } => process.pid_file.is_some(),
        }
    }

    fn pid(&self) -> Result<u32> {
        match &self.server {
            Server::None => Err("SQLite is no process".into()),
            Server::Own(server) => Ok(server.child.id()),
            Server::Named { process, .. } => {
                let file = process.pid_file.as_ref().ok_or("the server's process is not named")?;
                Ok(std::fs::read_to_string(file)?.trim().parse()?)
            }
        }
    }

    /// Sends its server a signal.
    ///
    /// # Errors
    /// Where it has no process, or none that is known.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_to(self.pid()?, signal)
    }

    /// Kills its server, and waits until it is gone.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub async fn kill(&mut self) -> Result<()> {
        let pid = self.pid()?;
        signal_to(pid, Signal::KILL)?;
        if let Server::Own(server) = &mut self.server {
            server.child.wait()?;
            return Ok(());
        }
        let started = Instant::now();
        while Path::new(&format!("/proc/{pid}/stat")).exists() && !is_zombie(pid) {
            if started.elapsed() > PATIENCE {
                return Err("the server is not gone".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Whether a server of the trial's own has ended by itself; one that is named is not looked at.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        match &mut self.server {
            Server::None | Server::Named { .. } => Ok(false),
            Server::Own(server) => Ok(server.child.try_wait()?.is_some()),
        }
    }

    /// Starts its server again and waits until it answers.
    ///
    /// # Errors
    /// Where it cannot be started, or does not answer within a minute.
    pub async fn start(&mut self) -> Result<()> {
        match &mut self.server {
            Server::None => Ok(()),
            Server::Own(server) => {
                server.child = server.spawn()?;
                server.answers().await
            }
            Server::Named { url, process, .. } => {
                let start = process.start.as_ref().ok_or("how to start the server is not known")?;
                // Elsewhere: the load goes on meanwhile.
                let mut shell = Command::new("sh");
                shell.args(["-c", start]).stdout(Stdio::null()).stdin(Stdio::null());
                let quiet = tokio::task::spawn_blocking(move || shell.status()).await??;
                if !quiet.success() {
                    return Err(format!("{start}: {quiet}").into());
                }
                answers(url).await
            }
        }
    }

    /// A connection of the trial's own to the board's database.
    ///
    /// # Errors
    /// Where there is no server, or it does not answer.
    pub async fn connection(&self) -> Result<DatabaseConnection> {
        connect(&self.url.as_deref().ok_or("SQLite has no server")?.parse()?).await
    }

    /// Takes it away.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub async fn end(self) -> Result<()> {
        if let Server::Named { url, database, .. } = &self.server {
            let connection = connect(url).await?;
            connection.execute_unprepared(&format!("DROP DATABASE {database}")).await?;
            connection.close().await?;
        }
        Ok(())
    }
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

async fn connect(url: &Url) -> Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(url.as_str());
    // One, so that a lock and its release are on the same connection.
    options.max_connections(1).connect_timeout(Duration::from_secs(10)).sqlx_logging(false);
    Ok(Orm::connect(options).await?)
}

async fn version(connection: &DatabaseConnection) -> Result<String> {
    let row = connection
        .query_one_raw(sea_orm::Statement::from_string(connection.get_database_backend(), "SELECT VERSION()"));
    let text: String = row.await?.ok_or("no version")?.try_get_by_index(0)?;
    let number: Vec<&str> = text.split(['.', '-']).take(2).collect();
    let name = if text.contains("MariaDB") { "MariaDB" } else { "MySQL" };
    Ok(format!("{name} {}", number.join(".")))
}

async fn answers(url: &Url) -> Result<()> {
    let started = Instant::now();
    loop {
        let port = url.port().unwrap_or(3306);
        // Cheaper than a client that is refused.
        let listens = TcpStream::connect((url.host_str().unwrap_or("127.0.0.1"), port)).is_ok();
        if listens && let Ok(connection) = connect(url).await {
            connection.close().await?;
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("no database answers on port {port}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A MariaDB of the trial's own: Debian's `mariadb-server`, on a free port of this machine.
pub struct MariaDb {
    child: Child,
    folder: TempDir,
    data: PathBuf,
    port: u16,
    user: &'static str,
}

impl MariaDb {
    /// Makes and starts one; `data` is its data folder where that must be a certain one.
    ///
    /// # Errors
    /// Where the package is not installed, or the server does not answer.
    pub async fn start(data: Option<&Path>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mundap-trial-").tempdir()?;
        // mariadbd does not run as root; it must be able to enter.
        let user = if geteuid().is_root() { "mysql" } else { "" };
        Command::new("chmod").arg("755").arg(folder.path()).status()?;
        let data = data.map_or_else(|| folder.path().join("data"), |given| given.join("mariadb"));
        std::fs::create_dir(&data)?;
        if !user.is_empty() {
            Command::new("chown").arg(user).arg(&data).arg(folder.path()).status()?;
        }
        let mut install = Command::new("mariadb-install-db");
        install.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
        install.arg("--auth-root-authentication-method=socket").arg("--skip-test-db").args(SMALL);
        if !user.is_empty() {
            install.arg(format!("--user={user}"));
        }
        let output = install.stdin(Stdio::null()).output().map_err(|error| format!("mariadb-install-db: {error}"))?;
        if !output.status.success() {
            return Err(format!("mariadb-install-db: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        // The first start makes the user that comes over TCP, without a password that anybody could need.
        let port = free_port()?;
        let init = folder.path().join("init.sql");
        std::fs::write(
            &init,
            "CREATE USER IF NOT EXISTS trial@'127.0.0.1' IDENTIFIED BY 'trial'; \nGRANT ALL ON *.* TO trial@'127.0.0.1';\n",
        )?;
        let child = Self::command(&folder, &data, port, user)?.spawn()?;
        let server = Self { child, folder, data, port, user };
        server.answers().await?;
        Ok(server)
    }

    fn command(folder: &TempDir, data: &Path, port: u16, user: &str) -> Result<Command> {
        let log = File::options().create(true).append(true).open(folder.path().join("mariadb.log"))?;
        let mut command = Command::new("mariadbd");
        command.arg("--no-defaults").arg(format!("--datadir={}", data.display())).arg(format!("--port={port}"));
        command.args(["--bind-address=127.0.0.1", "--character-set-server=utf8mb4"]).args(SMALL);
        command.arg(format!("--socket={}", folder.path().join("sock").display()));
        command.arg(format!("--init-file={}", folder.path().join("init.sql").display()));
        if !user.is_empty() {
            command.arg(format!("--user={user}"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn spawn(&self) -> Result<Child> {
        Ok(Self::command(&self.folder, &self.data, self.port, self.user)?.spawn()?)
    }

    /// Of the server, without a database.
    ///
    /// # Errors
    /// None that can be met: its port is a number.
    pub fn url(&self) -> Result<Url> {
        Ok(format!("mysql://trial:trial@127.0.0.1:{}", self.port).parse()?)
    }

    async fn answers(&self) -> Result<()> {
        let waited = answers(&self.url()?).await;
        waited.map_err(|error| {
            let log = std::fs::read_to_string(self.folder.path().join("mariadb.log")).unwrap_or_default();
            format!("{error}:\n{log}").into()
        })
    }
}

/// A redo log of 32 MB instead of 96: it has to fit on a small disk too.
const SMALL: [&str; 1] = ["--innodb-log-file-size=32M"];

impl Drop for MariaDb {
    fn drop(&mut self) {
        // Frozen or not; nothing of it is kept.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
