//! Opening a database the way this board needs it.

use std::fmt;
use std::fs::OpenOptions;
use std::future::ready;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mundap_domain::StoreError;
use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, MySqlPool};
use sea_orm::{SqlxMySqlConnector, SqlxSqliteConnector};
use tokio::time::{Instant, sleep, timeout};
use tracing::log::LevelFilter;
use url::Url;

use crate::breaker::{Breaker, Look};
use crate::failure::is_contention;
use crate::kept::{Kept, opened};
use crate::limit::{Limit, Trouble};
use crate::probe::{Probed, probe};
use crate::readers::Readers;
use crate::turns::Turns;
use crate::units::Units;
use crate::writers::Server;
use crate::{DatabaseKind, SeaStore};

/// Connections of a server that are kept for new questions, at the most.
const WRITERS: u32 = 16;

/// How long a new question waits for those before it, while there are other connections.
const PATIENCE: Duration = Duration::from_millis(50);

/// Pages that a connection reading from a file keeps in memory, in SQLite's own form: 1 MiB, which has the inner pages of 100,000 questions
/// and what is asked for again and again. Twice as much gained nothing that could be measured.
const READER_CACHE: &str = "-1024";

/// Which database, and how long to wait for it.
#[derive(Clone)]
pub struct DatabaseSettings {
    /// `sqlite://PATH` or `mysql://USER:PASSWORD@HOST:PORT/NAME`, with the driver's parameters (`?ssl-mode=VERIFY_CA…`).
    /// Holds a secret: show [`target`](Self::target) instead.
    pub url: String,
    /// The most connections that are held; on SQLite the most readers, beside the one writer.
    pub max_connections: u32,
    /// How long a request waits for a connection before it is turned away.
    pub acquire_timeout: Duration,
    /// How long one statement may take, waiting for its connection included. A lock is waited for half as long (in whole
    /// seconds and one at least on MySQL, which looks once a second), so that it is reported as what it is.
    pub statement_timeout: Duration,
    /// How long a statement may take before the log names it; half of `statement_timeout` where it is not given.
    pub slow_query: Option<Duration>,
    /// How long the first connection may take. Later ones have [`acquire_timeout`](Self::acquire_timeout).
    pub connect_timeout: Duration,
    /// Whether a node of a Galera cluster first catches up with what any other node has acknowledged before it answers a
    /// statement or begins a transaction. Without it a member whose requests go to two nodes may not find there what was
    /// written here. No other database has nodes that could be behind.
    pub causal_reads: bool,
}

impl DatabaseSettings {
    /// The database at `url` with safe limits. A frozen server costs a request at most `acquire_timeout` and
    /// `statement_timeout` together: two seconds.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        let url = url.into();
        let cores = std::thread::available_parallelism().map_or(2, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        let max_connections = if url.starts_with("sqlite:") {
            // Each is a thread of its own that computes; more than the cores only queue there.
            cores.saturating_add(2).clamp(4, 32)
        } else {
            // They wait, for the disk and for each other's locks, more than they compute.
            cores.saturating_mul(8).clamp(16, 64)
        };
        Self {
            url,
            max_connections,
            acquire_timeout: Duration::from_millis(500),
            statement_timeout: Duration::from_millis(1_500),
            slow_query: None,
            connect_timeout: Duration::from_secs(5),
            causal_reads: true,
        }
    }

    /// The URL of the SQLite database in this file, whatever its name: the driver decodes it, and reads parameters behind a `?`.
    #[must_use]
    pub fn url_of_file(path: &Path) -> String {
        let name = path.display().to_string().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        format!("sqlite://{name}")
    }

    /// The file that the database is in; `None` for a server, and where the URL is none that can be opened.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        let options: SqliteConnectOptions = self.url.starts_with("sqlite:").then(|| self.url.parse().ok())??;
        Some(options.get_filename().to_owned())
    }

    /// The database's whereabouts, without user and password. Where a part of the URL may be a password that is not
    /// percent-encoded, nothing but the scheme.
    #[must_use]
    pub fn target(&self) -> String {
        let (scheme, rest) = self.url.split_once(':').unwrap_or(("", ""));
        match scheme {
            "sqlite" => format!("sqlite:{}", rest.split(['?', '#']).next().unwrap_or_default()),
            "mysql" | "mariadb" => self.server().unwrap_or_else(|| "mysql://…".to_owned()),
            _ => "…".to_owned(),
        }
    }

    /// Whether both URLs name one database on one server. Where they spell it in other ways it may be one all the same.
    #[must_use]
    pub fn is_same_database(&self, other: &Self) -> bool {
        let place = |settings: &Self| {
            let options = server_options(settings).ok()?;
            let host = options.get_host().to_lowercase();
            // Numbers and a name for this machine.
            let host = if matches!(&*host, "127.0.0.1" | "::1" | "[::1]") { "localhost".to_owned() } else { host };
            Some((host, options.get_port(), options.get_database()?.to_owned()))
        };
        let is_server = |settings: &Self| !settings.url.starts_with("sqlite:");
        is_server(self) && is_server(other) && place(self).is_some_and(|here| place(other) == Some(here))
    }

    /// Host, port and database, where no piece of a password can have become one of them: it would have brought its `@` along.
    fn server(&self) -> Option<String> {
        let url = server_url(self).ok()?;
        let (host, name) = (url.host_str()?, url.path().strip_prefix('/')?);
        let in_doubt =
            url.username().is_empty() || name.is_empty() || url.query().is_some_and(|query| query.contains('@'));
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        (!in_doubt).then(|| format!("mysql://{host}{port}/{name}"))
    }

    /// How long a statement may take before the log names it.
    #[must_use]
    pub fn slow_query(&self) -> Duration {
        self.slow_query.unwrap_or(self.statement_timeout / 2)
    }

    /// Half the statement's time, so that a lock that does not come free is told from a server that does not answer.
    fn lock_timeout(&self) -> Duration {
        self.statement_timeout / 2
    }
}

impl fmt::Debug for DatabaseSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseSettings")
            .field("target", &self.target())
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("slow_query", &self.slow_query())
            .field("connect_timeout", &self.connect_timeout)
            .field("causal_reads", &self.causal_reads)
            .finish_non_exhaustive()
    }
}

/// Why no connection came about: one line that says what to change and never holds the password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the database URL must be sqlite://PATH or mysql://USER:PASSWORD@HOST:PORT/NAME: {0}")]
    Url(String),
    #[error("the folder {0} of the database cannot be made: {1}")]
    Folder(String, std::io::Error),
    #[error("{0} cannot be opened: {1}")]
    File(String, String),
    #[error("{0} does not answer: {1}")]
    Unreachable(String, String),
    #[error("{0} turned the user away: {1}")]
    Refused(String, String),
    #[error("{0}: there is no such database on that server: create it, or look at its name: {1}")]
    NoDatabase(String, String),
}

impl From<ConnectError> for StoreError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Url(_) => Self::Backend(error.into()),
            ConnectError::Folder(..)
            | ConnectError::File(..)
            | ConnectError::Unreachable(..)
            | ConnectError::Refused(..)
            | ConnectError::NoDatabase(..) => Self::Unavailable(error.into()),
        }
    }
}

/// Opens the database and tries it once. Does not migrate it.
///
/// # Errors
/// [`StoreError::Unavailable`] and, for a URL that is none, [`StoreError::Backend`]; the cause of either is a
/// [`ConnectError`].
pub async fn connect(settings: &DatabaseSettings) -> Result<SeaStore, StoreError> {
    match settings.url.split_once(':').map_or("", |(scheme, _)| scheme) {
        "sqlite" => Ok(sqlite(settings).await?),
        "mysql" | "mariadb" => Ok(mysql(settings).await?),
        // The URL itself may be a password in the wrong variable.
        _ => Err(ConnectError::Url("it starts with neither sqlite: nor mysql:".to_owned()).into()),
    }
}

async fn sqlite(settings: &DatabaseSettings) -> Result<SeaStore, ConnectError> {
    let base: SqliteConnectOptions = settings.url.parse().map_err(url_error)?;
    let path = base.get_filename().to_owned();
    if path.as_os_str().is_empty() || settings.url.contains(":memory:") || settings.url.contains("mode=memory") {
        return Err(ConnectError::Url("a database in memory would be another one for each connection".to_owned()));
    }
    make_folder_of(&path)?;
    make_file(&path);
    // The driver sets the busy time limit while it opens the file, so before the pragmas, WAL among them.
    let base = quiet(base.busy_timeout(settings.lock_timeout()).foreign_keys(true));
    let writing = base
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL would lose the last commits with the power.
        .synchronous(SqliteSynchronous::Full)
        // What is deleted is overwritten: else the e-mail of an account that is gone stays in the file's free pages.
        .pragma("secure_delete", "ON");
    // Held for good: connections to a file do not go stale, and opening one costs.
    let pool =
        || SqlitePoolOptions::new().acquire_timeout(settings.acquire_timeout).idle_timeout(None).max_lifetime(None);
    // Where SQLite has ended a transaction by itself (a full disk, a failed write), the driver believes that it is still in
    // it: each later transaction would be a part of that one, and be committed with it, which is never.
    let writers = pool()
        .max_connections(1)
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(ready(Ok(!connection.is_in_transaction()))));
    let writer = open_sqlite(settings, writers, writing).await?;
    let reader = pool()
        // One more, for whoever looks at the schema.
        .max_connections(settings.max_connections.saturating_add(1))
        .test_before_acquire(false)
        .connect_lazy_with(base.read_only(true).pragma("cache_size", READER_CACHE));
    let limit = Limit {
        kind: DatabaseKind::Sqlite,
        statement: settings.statement_timeout,
        slow: settings.slow_query(),
        trouble: Trouble::none(),
        breaker: None,
        is_gated: false,
    };
    let reader =
        Readers::sqlite(reader, settings.max_connections.max(1), settings.acquire_timeout, limit.trouble.clone());
    let writer = SqlxSqliteConnector::from_sqlx_sqlite_pool(writer);
    // All wait for the one writer anyway.
    let patience = settings.acquire_timeout;
    let units = Units::new(writer.clone(), Turns::new(1, settings.acquire_timeout), limit.clone());
    Ok(SeaStore::new(DatabaseKind::Sqlite, reader, units, writer, limit, patience, None))
}

/// Opens the writer. Switching a new file to WAL needs it alone, which the busy time limit does not wait for: where
/// several processes start at once, all but one have to try again.
async fn open_sqlite(
    settings: &DatabaseSettings,
    pool: SqlitePoolOptions,
    options: SqliteConnectOptions,
) -> Result<sqlx::SqlitePool, ConnectError> {
    let deadline = Instant::now() + settings.connect_timeout;
    loop {
        let error = match pool.clone().connect_with(options.clone()).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        if !is_contention(&error) || Instant::now() >= deadline {
            return Err(ConnectError::File(settings.target(), error.to_string()));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

fn make_folder_of(file: &Path) -> Result<(), ConnectError> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            std::fs::create_dir_all(folder).map_err(|error| ConnectError::Folder(folder.display().to_string(), error))
        }
        _ => Ok(()),
    }
}

/// Makes the file for its owner alone, before the driver does it for all whom the umask lets. What SQLite puts beside it takes
/// its mode. Where it cannot be made the driver says why.
fn make_file(path: &Path) {
    let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
}

async fn mysql(settings: &DatabaseSettings) -> Result<SeaStore, ConnectError> {
    let options = server_options(settings)?
        // `sql_mode` is ours: see `session`.
        .pipes_as_concat(false)
        .no_engine_substitution(false);
    let Probed { kind, may_cluster, options } = probe(settings, options).await?;
    let session = session(settings, kind, may_cluster);
    let limit = Limit {
        kind,
        statement: settings.statement_timeout,
        slow: settings.slow_query(),
        trouble: Trouble::none(),
        breaker: Some(Breaker::new(look(&options))),
        is_gated: true,
    };
    let requests = pool_of_requests(settings, session, &limit, options.clone());
    // Migrations run on connections of their own: no time limit ends a long ALTER TABLE, and no request waits for one.
    // Three, since the lease is renewed meanwhile and a restore or copy holds a lock; none is opened before it is asked for.
    let migrations = MySqlPoolOptions::new()
        .max_connections(3)
        .acquire_timeout(settings.connect_timeout)
        .idle_timeout(Duration::from_secs(10))
        .after_connect(|connection, _| Box::pin(execute(connection, "SET SESSION sql_mode = 'TRADITIONAL'".to_owned())))
        .connect_lazy_with(options);
    // The rest is for units of work, of which those that only add rows keep some: one for each core unless it is set otherwise.
    // Nobody takes what is for the others: whoever waits for a lock keeps nobody from reading.
    let readers = (settings.max_connections.saturating_mul(2) / 3).max(1);
    let units = settings.max_connections.saturating_sub(readers).max(1);
    let writers = (settings.max_connections / 8).min(WRITERS);
    let server = Server {
        kept: Kept::new(requests.clone(), writers, limit.trouble.clone()),
        // A cluster changes it with its size, at any time. MariaDB tells each id.
        tells_id_step: kind == DatabaseKind::MySql && !may_cluster,
    };
    let readers = Readers::mysql(requests.clone(), readers, settings.acquire_timeout, limit.trouble.clone());
    let requests = SqlxMySqlConnector::from_sqlx_mysql_pool(requests);
    let units = Units::new(requests, Turns::new(units, settings.acquire_timeout), limit.clone());
    let migrations = SqlxMySqlConnector::from_sqlx_mysql_pool(migrations);
    let patience = PATIENCE.min(settings.acquire_timeout);
    Ok(SeaStore::new(kind, readers, units, migrations, limit, patience, Some(server)))
}

/// Where a server is, and which database there; the driver logs no statement.
pub(crate) fn server_options(settings: &DatabaseSettings) -> Result<MySqlConnectOptions, ConnectError> {
    let url = server_url(settings)?;
    let options = MySqlConnectOptions::from_url(&url).map_err(url_error)?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err(ConnectError::Url("it names no database".to_owned()));
    }
    Ok(quiet(options))
}

/// The URL of a server, of which no piece of a password has become another part. The server would be asked for that by name,
/// and say the name in its answer.
fn server_url(settings: &DatabaseSettings) -> Result<Url, ConnectError> {
    // Only the scheme is ours to translate.
    let url = Url::parse(&settings.url.replacen("mariadb:", "mysql:", 1));
    let url = url.map_err(|error| ConnectError::Url(error.to_string()))?;
    if url.cannot_be_a_base() {
        return Err(ConnectError::Url("it does not start with mysql://".to_owned()));
    }
    let name = url.path().strip_prefix('/').unwrap_or_default();
    if name.contains(['@', '/', ':']) || url.fragment().is_some() || url.username().to_ascii_lowercase().contains("%3a")
    {
        let reason = "in the user and the password write / as %2F, ? as %3F, # as %23 and @ as %40, and between the two : as it is";
        return Err(ConnectError::Url(reason.to_owned()));
    }
    Ok(url)
}

/// Without the driver's own lines, which print the statement. What is slow is named by its repository and method: see
/// `timing`.
fn quiet<O: sqlx::ConnectOptions>(options: O) -> O {
    options.log_statements(LevelFilter::Off).log_slow_statements(LevelFilter::Off, Duration::MAX)
}

/// A connection outside the pool, whose own may all be waiting for an answer that never comes.
fn look(options: &MySqlConnectOptions) -> Look {
    let options = options.clone();
    Box::new(move || {
        let options = options.clone();
        Box::pin(async move {
            let answers = async {
                let mut connection = options.connect().await?;
                sqlx::query("SELECT 1").execute(&mut connection).await?;
                connection.close().await
            };
            answers.await.map_err(|error: sqlx::Error| error.to_string())
        })
    })
}

fn pool_of_requests(
    settings: &DatabaseSettings,
    session: String,
    limit: &Limit,
    options: MySqlConnectOptions,
) -> MySqlPool {
    let before = limit.trouble.clone();
    let spare = Spare {
        options: options.clone(),
        session: session.clone(),
        patience: settings.acquire_timeout,
        trouble: limit.trouble.clone(),
    };
    MySqlPoolOptions::new()
        .max_connections(settings.max_connections.max(1))
        .acquire_timeout(settings.acquire_timeout)
        .after_connect(move |connection, _| {
            opened();
            Box::pin(execute(connection, session.clone()))
        })
        // A ping each time would cost a third of the throughput. Unless something broke meanwhile, a connection that
        // was used a moment ago is still there.
        .test_before_acquire(false)
        .before_acquire(move |connection, state| {
            let in_doubt = before.doubts(state.idle_for);
            Box::pin(async move {
                if in_doubt {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        // The driver pings what is given back, however long that takes: on a line that is cut, a quarter of an hour. (Of
        // what is being given back in the moment when the line goes, that remains.) Of a transaction that was abandoned before
        // its beginning was answered the driver knows nothing: whoever reads on the connection would do so within it.
        .after_release(move |connection, _| {
            let spare = spare.clone();
            Box::pin(async move {
                if spare.trouble.is_recent() {
                    match timeout(spare.patience, execute(connection, "ROLLBACK".to_owned())).await {
                        Ok(answer) => answer?,
                        Err(_) => *connection = spare.connect().await?,
                    }
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// What takes the place of a connection that has gone silent.
///
/// To turn it away would not do: the driver closes a connection over TLS by waiting for its last word, and until that
/// comes, or the operating system gives up, the pool is one connection short. Overwriting it drops its socket at once.
#[derive(Clone)]
struct Spare {
    options: MySqlConnectOptions,
    session: String,
    patience: Duration,
    trouble: Trouble,
}

impl Spare {
    /// How long to try; a database that is away for longer costs what is said above.
    const TRIES_LAST: Duration = Duration::from_mins(1);
    const TRY_EVERY: Duration = Duration::from_millis(250);

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let deadline = Instant::now() + Self::TRIES_LAST;
        loop {
            let connection = async {
                let mut connection = self.options.connect().await?;
                execute(&mut connection, self.session.clone()).await?;
                Ok(connection)
            };
            let error = match timeout(self.patience, connection).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => sqlx::Error::PoolTimedOut,
            };
            if Instant::now() >= deadline || self.trouble.is_over() {
                return Err(error);
            }
            sleep(Self::TRY_EVERY).await;
        }
    }
}

/// What a session of a request is set to.
///
/// READ COMMITTED: units lock what they decide on and name versions, so they need no snapshot, and one would make
/// "lock, then read" read what was there before the lock. It also takes no gap locks, the usual cause of deadlocks.
fn session(settings: &DatabaseSettings, kind: DatabaseKind, may_cluster: bool) -> String {
    let statement = settings.statement_timeout;
    let lock = settings.lock_timeout().as_secs().max(1);
    let (isolation, limit) = match kind {
        // Milliseconds, and for SELECT alone.
        // Without hash joins (which this switch is about since 8.0.20): every join here is a look-up by primary key, and
        // while there are few users MySQL would rather hash them and then sort a million questions for one page.
        DatabaseKind::MySql => (
            "transaction_isolation",
            format!("max_execution_time = {}, optimizer_switch = 'block_nested_loop=off'", statement.as_millis()),
        ),
        DatabaseKind::MariaDb => ("tx_isolation", format!("max_statement_time = {}", statement.as_secs_f64())),
        DatabaseKind::Sqlite => return String::new(),
    };
    // Before SELECT and BEGIN (1), UPDATE and DELETE (2), INSERT (4): each may look for what another node wrote. In a unit
    // BEGIN waits, and nothing after it.
    let causal = if may_cluster && settings.causal_reads { ", wsrep_sync_wait = 7" } else { "" };
    format!(
        "SET SESSION sql_mode = 'TRADITIONAL', innodb_lock_wait_timeout = {lock}, {isolation} = 'READ-COMMITTED', {limit}{causal}"
    )
}

async fn execute(connection: &mut MySqlConnection, sql: String) -> Result<(), sqlx::Error> {
    connection.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

/// The driver's text names the part of the URL that is wrong, not its value.
fn url_error(error: sqlx::Error) -> ConnectError {
    ConnectError::Url(match error {
        sqlx::Error::Configuration(cause) => cause.to_string(),
        _ => "it cannot be understood".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_database_is_known_in_other_words() {
        let here = DatabaseSettings::new("mysql://qna:one@127.0.0.1/old");
        for (url, expected) in [
            ("mysql://qna:other@localhost:3306/old?ssl-mode=DISABLED", true),
            ("mariadb://LOCALHOST/old", true),
            ("mysql://[::1]/old", true),
            ("mysql://127.0.0.1:3307/old", false),
            ("mysql://127.0.0.1/new", false),
            ("mysql://127.0.0.1", false),
            ("mysql://10.0.0.1/old", false),
            ("sqlite://127.0.0.1/old", false),
            ("s3cret", false),
        ] {
            assert_eq!(here.is_same_database(&DatabaseSettings::new(url)), expected, "{url}");
        }
        let file = DatabaseSettings::new("sqlite://127.0.0.1/old");
        assert!(!file.is_same_database(&file), "not of a server");
    }

    #[test]
    fn a_target_never_holds_the_password() {
        for (url, expected) in [
            ("sqlite:///var/lib/mundap.db", "sqlite:///var/lib/mundap.db"),
            ("mysql://qna:s3cret@db:3306/qna?ssl-mode=REQUIRED", "mysql://db:3306/qna"),
            ("mariadb://qna:s3c@ret@db/qna", "mysql://db/qna"),
            ("mysql://s3cret", "mysql://…"),
            ("mysql://qna@db/qna", "mysql://db/qna"),
            ("mysql://qna%3As3cret@db/qna", "mysql://…"),
            ("mysql://qna:/s3cret@db/qna", "mysql://…"),
            ("mysql://qna:12/s3cret@db/qna", "mysql://…"),
            ("mysql://qna:12#s3cret@db/qna", "mysql://…"),
            ("mysql://qna:12?s3cret@db/qna", "mysql://…"),
            ("mysql://qna:a@s3cret/b@db/qna", "mysql://…"),
            ("mysql://qna:a@s3cret?b@db/qna", "mysql://…"),
            ("mysql:qna:s3cret@db/qna", "mysql://…"),
            ("mysql://db/qna?user=a&password=s3cret", "mysql://…"),
            ("mysql://qna:s3cret/b", "mysql://…"),
            ("postgres://qna:s3cret@db/qna", "…"),
            ("s3cret", "…"),
        ] {
            let settings = DatabaseSettings::new(url);
            assert_eq!(settings.target(), expected);
            assert!(!format!("{settings:?}").contains("s3c"), "{settings:?}");
        }
    }

    #[test]
    fn a_file_of_any_name_comes_back_from_its_url() {
        for path in ["/var/lib/mundap.db", "./a%20c/mundap.db", "50%/what?mode=ro/a#b.db", "문답/mundap.db"] {
            let settings = DatabaseSettings::new(DatabaseSettings::url_of_file(Path::new(path)));
            assert_eq!(settings.file().as_deref(), Some(Path::new(path)));
        }
        assert_eq!(DatabaseSettings::new("sqlite:a%20b.db?mode=ro").file(), Some(PathBuf::from("a b.db")));
        assert_eq!(DatabaseSettings::new("mysql://qna@db/qna").file(), None);
    }

    #[tokio::test]
    async fn an_unusable_url_says_so_without_repeating_itself() {
        for url in
            ["s3cret", "", "postgres://u:s3cret@h/n", "mysql://u:s3cret@h:x/n", "mysql://u:s3cret@h", "sqlite::memory:"]
        {
            let Err(StoreError::Backend(cause)) = connect(&DatabaseSettings::new(url)).await.map(|_| ()) else {
                panic!("{url} is no URL of ours")
            };
            assert!(cause.downcast_ref::<ConnectError>().is_some() && !cause.to_string().contains("s3cret"), "{cause}");
        }
    }
}
