//! The databases that the suite runs on.

use std::sync::Mutex;

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database as Connection, DatabaseConnection, Statement};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use url::Url;

/// Where databases come from: a MySQL or MariaDB server, or a folder for SQLite files.
pub(crate) struct Database {
    /// `sqlite`, `mariadb_10_11@127.0.0.1:3306`
    pub(crate) name: String,
    place: Place,
}

enum Place {
    Folder(TempDir),
    Server { url: Url, made: Mutex<Vec<String>> },
}

impl Database {
    /// SQLite, and what `MUNDAP_TEST_MYSQL_URLS` names.
    pub(crate) fn all() -> Vec<Self> {
        let folder = Place::Folder(tempfile::tempdir().expect("a temporary folder"));
        let mut all = vec![Self { name: "sqlite".to_owned(), place: folder }];
        all.extend(Self::servers());
        all
    }

    /// What `MUNDAP_TEST_MYSQL_URLS` names.
    pub(crate) fn servers() -> Vec<Self> {
        let urls = std::env::var("MUNDAP_TEST_MYSQL_URLS").unwrap_or_default();
        urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(Self::at).collect()
    }

    fn at(url: &str) -> Self {
        let mut url = Url::parse(url).expect("MUNDAP_TEST_MYSQL_URLS holds URLs, separated by commas");
        url.set_path("");
        let place = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(3306));
        let version = runtime().block_on(async {
            let connection = Connection::connect(url.as_str()).await;
            let connection =
                connection.unwrap_or_else(|error| panic!("{place}, which MUNDAP_TEST_MYSQL_URLS names: {error}"));
            one::<String>(&connection, "SELECT VERSION() AS n").await
        });
        let engine = if version.contains("MariaDB") { "mariadb" } else { "mysql" };
        let mut numbers = version.split(['.', '-']);
        let (major, minor) = (numbers.next().unwrap_or("?"), numbers.next().unwrap_or("?"));
        let name = format!("{engine}_{major}_{minor}@{place}");
        Self { name, place: Place::Server { url, made: Mutex::default() } }
    }

    /// The URL of a database that is new and empty.
    pub(crate) fn fresh(&self) -> String {
        let name = format!("mundap_test_{}", uuid::Uuid::new_v4().simple());
        match &self.place {
            Place::Folder(folder) => format!("sqlite://{}", folder.path().join(name).display()),
            Place::Server { url, made } => {
                made.lock().unwrap().push(name.clone());
                execute(url.as_str(), &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
                let mut url = url.clone();
                url.set_path(&name);
                url.to_string()
            }
        }
    }

    /// Whether each new id is the last one and one.
    pub(crate) fn counts_by_ones(&self) -> bool {
        match &self.place {
            Place::Folder(_) => true,
            Place::Server { url, .. } => id_step(url.as_str()) == 1,
        }
    }

    /// Drops every database that was made here.
    pub(crate) fn clean_up(&self) {
        if let Place::Server { url, made } = &self.place {
            for name in std::mem::take(&mut *made.lock().unwrap()) {
                execute(url.as_str(), &format!("DROP DATABASE IF EXISTS {name}"));
            }
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs one statement.
pub(crate) fn execute(url: &str, sql: &str) {
    runtime().block_on(async {
        let connection = Connection::connect(url).await.unwrap();
        connection.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql:.200}: {error}"));
        connection.close().await.unwrap();
    });
}

/// Does something while a connection that ran this statement is open.
pub(crate) fn while_held(url: &str, sql: &str, something: impl FnOnce()) {
    let runtime = runtime();
    let mut options = ConnectOptions::new(url);
    options.max_connections(1);
    let connection = runtime.block_on(Connection::connect(options)).unwrap();
    runtime.block_on(connection.execute_unprepared(sql)).unwrap();
    something();
    runtime.block_on(connection.close()).unwrap();
}

/// How far a new id is from the last one at the most: Galera's nodes count in steps.
pub(crate) fn id_step(url: &str) -> i64 {
    if url.starts_with("sqlite") { 1 } else { number(url, "SELECT CAST(@@auto_increment_increment AS SIGNED) AS n") }
}

/// The one number that a query finds, under the name `n`.
pub(crate) fn number(url: &str, sql: &str) -> i64 {
    runtime().block_on(async {
        let connection = Connection::connect(url).await.unwrap();
        let found = one(&connection, sql).await;
        connection.close().await.unwrap();
        found
    })
}

async fn one<T: sea_orm::TryGetable>(connection: &DatabaseConnection, sql: &str) -> T {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    let row = connection.query_one_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    row.expect("one row").try_get("", "n").unwrap()
}

/// Gives `user` `count` questions with this content, at most 100,000, faster than the board could take them.
pub(crate) fn insert_qnas(url: &str, user: i64, count: u32, content: &str) {
    let digits = "SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
                  UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9";
    let time = "'2026-01-02 12:00:00.000001'";
    execute(
        url,
        &format!(
            "INSERT INTO qna (user_id, title, content, created_at, updated_at) \
             SELECT {user}, 'a title', '{content}', {time}, {time} FROM ({digits}) a, ({digits}) b, ({digits}) c, \
             ({digits}) d, ({digits}) e LIMIT {count}"
        ),
    );
}

/// The columns, such as `users.email`, of all tables in which a row holds one of these texts, in any spelling.
pub(crate) fn columns_that_hold(url: &str, texts: &[&str]) -> Vec<String> {
    let (columns, text) = if url.starts_with("sqlite") {
        let columns = "SELECT m.name AS t, c.name AS c FROM sqlite_master m, pragma_table_info(m.name) c \
                       WHERE m.type = 'table' ORDER BY 1, 2";
        (columns, "TEXT")
    } else {
        let columns = "SELECT table_name AS t, column_name AS c FROM information_schema.columns \
                       WHERE table_schema = DATABASE() ORDER BY 1, 2";
        (columns, "CHAR CHARACTER SET utf8mb4")
    };
    runtime().block_on(async {
        let connection = Connection::connect(url).await.unwrap();
        let backend = connection.get_database_backend();
        let rows = connection.query_all_raw(Statement::from_string(backend, columns)).await.unwrap();
        let mut found = Vec::new();
        for row in rows {
            let (table, column): (String, String) = (row.try_get("", "t").unwrap(), row.try_get("", "c").unwrap());
            let holds =
                |needle: &&str| format!("LOWER(CAST({table}.{column} AS {text})) LIKE '%{}%'", needle.to_lowercase());
            let any = texts.iter().map(holds).collect::<Vec<_>>().join(" OR ");
            // A column of bytes that are no text holds none.
            let sql = format!("SELECT COUNT(*) AS n FROM {table} WHERE {any}");
            if one::<i64>(&connection, &sql).await > 0 {
                found.push(format!("{table}.{column}"));
            }
        }
        connection.close().await.unwrap();
        found
    })
}
