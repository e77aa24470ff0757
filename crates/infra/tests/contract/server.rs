//! The databases that the suite runs on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mundap_infra::{DatabaseSettings, SeaStore, connect};
use sea_orm::sqlx::{self, AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use url::Url;

/// Where databases come from: a MySQL or MariaDB server, or a folder for SQLite files.
pub(crate) struct Server {
    /// `sqlite`, `mariadb_10_11@127.0.0.1:3306`
    pub(crate) name: String,
    place: Place,
    /// The database that most tests share.
    shared: OnceCell<SeaStore>,
}

enum Place {
    Folder(TempDir),
    Server { url: Url, made: Mutex<Vec<String>> },
}

impl Server {
    /// SQLite, and what `MUNDAP_TEST_MYSQL_URLS` names.
    pub(crate) async fn all() -> Vec<Arc<Self>> {
        let folder = Place::Folder(tempfile::tempdir().expect("a temporary folder"));
        let mut servers = vec![Arc::new(Self { name: "sqlite".to_owned(), place: folder, shared: OnceCell::new() })];
        for url in std::env::var("MUNDAP_TEST_MYSQL_URLS").unwrap_or_default().split(',').map(str::trim) {
            if !url.is_empty() {
                servers.push(Arc::new(Self::at(url).await));
            }
        }
        servers
    }

    async fn at(url: &str) -> Self {
        let mut url = Url::parse(url).expect("MUNDAP_TEST_MYSQL_URLS holds URLs, separated by commas");
        url.set_path("");
        let place = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(3306));
        let mut connection = MySqlConnection::connect(url.as_str())
            .await
            .unwrap_or_else(|error| panic!("{place}, which MUNDAP_TEST_MYSQL_URLS names: {error}"));
        let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut connection).await.unwrap();
        let engine = if version.contains("MariaDB") { "mariadb" } else { "mysql" };
        let mut numbers = version.split(['.', '-']);
        let (major, minor) = (numbers.next().unwrap_or("?"), numbers.next().unwrap_or("?"));
        let name = format!("{engine}_{major}_{minor}@{place}");
        Self { name, place: Place::Server { url, made: Mutex::default() }, shared: OnceCell::new() }
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self.place, Place::Folder(_))
    }

    /// The settings of a database that is new and empty, with time for a machine on which much else is going on.
    pub(crate) async fn new_database(&self) -> DatabaseSettings {
        let name = format!("mundap_test_{:016x}", getrandom::u64().unwrap());
        let url = match &self.place {
            Place::Folder(folder) => format!("sqlite://{}", folder.path().join(name).display()),
            Place::Server { url, made } => {
                made.lock().unwrap().push(name.clone());
                self.execute(&format!("CREATE DATABASE {name}")).await;
                let mut url = url.clone();
                url.set_path(&name);
                url.to_string()
            }
        };
        DatabaseSettings {
            // On SQLite this is how long a unit that meets another one waits, which tests do on purpose.
            acquire_timeout: Duration::from_secs(if self.is_sqlite() { 1 } else { 4 }),
            // Locks are waited for half as long; MySQL looks for that once a second, so up to a second longer.
            statement_timeout: Duration::from_secs(5),
            ..DatabaseSettings::new(url)
        }
    }

    /// The database that tests share.
    pub(crate) async fn shared(&self) -> &SeaStore {
        self.shared.get_or_init(|| self.migrated()).await
    }

    /// A new database with the schema.
    pub(crate) async fn migrated(&self) -> SeaStore {
        let settings = self.new_database().await;
        let store = connect(&settings).await.unwrap();
        mundap_migration::up(store.writer()).await.unwrap();
        store
    }

    /// Drops every database that was made here.
    pub(crate) async fn clean_up(&self) {
        if let Some(store) = self.shared.get() {
            store.close().await;
        }
        if let Place::Server { made, .. } = &self.place {
            let made = std::mem::take(&mut *made.lock().unwrap());
            for name in made {
                self.execute(&format!("DROP DATABASE IF EXISTS {name}")).await;
            }
        }
    }

    /// The connections to a database, by their ids.
    pub(crate) async fn connections(&self, settings: &DatabaseSettings) -> HashSet<i64> {
        let Place::Server { url, .. } = &self.place else { return HashSet::new() };
        let name = Url::parse(&settings.url).unwrap().path().trim_start_matches('/').to_owned();
        let mut connection = MySqlConnection::connect(url.as_str()).await.unwrap();
        let open = sqlx::query_scalar("SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = ?");
        let open: Vec<i64> = open.bind(&name).fetch_all(&mut connection).await.unwrap();
        open.into_iter().collect()
    }

    /// Ends all connections to a database, and gives how many there were.
    pub(crate) async fn close_connections(&self, settings: &DatabaseSettings) -> usize {
        let Place::Server { url, .. } = &self.place else { return 0 };
        let mut connection = MySqlConnection::connect(url.as_str()).await.unwrap();
        let mut all = HashSet::new();
        loop {
            let open = self.connections(settings).await;
            if open.is_empty() {
                return all.len();
            }
            for id in open {
                all.insert(id);
                // It may have ended by itself meanwhile.
                let _ = connection.execute(AssertSqlSafe(format!("KILL {id}"))).await;
            }
        }
    }

    /// Runs a statement on the server, in no database.
    async fn execute(&self, sql: &str) {
        let Place::Server { url, .. } = &self.place else { return };
        let mut connection = MySqlConnection::connect(url.as_str()).await.unwrap();
        connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }
}
