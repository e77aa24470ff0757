//! What a test works with: a database and things on it.

use std::sync::{Arc, Mutex};

use mundap_domain::account::PasswordHash;
use mundap_domain::comment::{Comment, CommentContent, NewComment};
use mundap_domain::env::{Clock as _, RETRIES, Timestamp};
use mundap_domain::page::{Order, Slice};
use mundap_domain::qna::{Content, NewQna, Qna, QnaId, Title};
use mundap_domain::testing::noon;
use mundap_domain::user::{DisplayName, Email, NewUser, Role, User, UserId};
use mundap_domain::{Repositories, Store as _, StoreError, UnitOfWork};
use mundap_infra::{DatabaseSettings, SeaStore, SystemClock, connect};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};

use crate::server::Server;

/// One migrated database.
#[derive(Clone)]
pub(crate) struct Board {
    pub(crate) store: SeaStore,
    pub(crate) server: Arc<Server>,
    /// What the test opened, to be closed at its end: a server has room for some 150 connections.
    opened: Arc<Mutex<Vec<SeaStore>>>,
}

impl Board {
    /// What a test starts with: on a server the database that tests share, to which others write meanwhile. On SQLite a
    /// file of its own: units that are held open on purpose would keep all others from writing.
    pub(crate) async fn new(server: &Arc<Server>) -> Self {
        let store = if server.is_sqlite() { server.migrated().await } else { server.shared().await.clone() };
        Self { store, server: server.clone(), opened: Arc::default() }
    }

    /// Opens a database.
    pub(crate) async fn connect(&self, settings: &DatabaseSettings) -> SeaStore {
        let store = connect(settings).await.unwrap();
        self.opened.lock().unwrap().push(store.clone());
        store
    }

    /// The board on another database: opened, and with the schema.
    pub(crate) async fn on(&self, settings: &DatabaseSettings) -> Self {
        let store = self.connect(settings).await;
        mundap_migration::up(store.writer()).await.unwrap();
        Self { store, ..self.clone() }
    }

    /// Closes what was opened.
    pub(crate) async fn close(&self) {
        let opened = std::mem::take(&mut *self.opened.lock().unwrap());
        for store in opened {
            store.close().await;
        }
    }

    /// A database of the test's own, with other settings.
    pub(crate) async fn own_with(&self, change: impl FnOnce(&mut DatabaseSettings)) -> Self {
        let mut settings = self.server.new_database().await;
        settings.max_connections = 8;
        change(&mut settings);
        self.on(&settings).await
    }

    /// A database of the test's own.
    pub(crate) async fn own(&self) -> Self {
        self.own_with(|_| ()).await
    }

    pub(crate) fn reader(&self) -> &dyn Repositories {
        self.store.reader()
    }

    /// An open unit.
    pub(crate) async fn begin(&self) -> Box<dyn UnitOfWork> {
        self.store.begin().await.unwrap()
    }

    /// Runs `work` in a unit and commits it; meets others the way the domain does, by trying again.
    pub(crate) async fn unit<T>(
        &self,
        work: impl AsyncFn(&dyn UnitOfWork) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut attempt = 0;
        loop {
            let outcome = async {
                let unit = self.store.begin().await?;
                let outcome = work(&*unit).await?;
                unit.commit().await?;
                Ok(outcome)
            };
            match outcome.await {
                Err(StoreError::Contention(_)) if attempt < RETRIES => {
                    attempt += 1;
                    SystemClock.pause_before(attempt).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Asserts that `work` in another unit does not get past the rows that an open unit holds.
    pub(crate) async fn assert_blocked<T>(&self, work: impl AsyncFn(&dyn UnitOfWork) -> Result<T, StoreError>) {
        // The open unit stays open until this one has given up, so neither can be early or late.
        let outcome = async { work(&*self.store.begin().await?).await };
        match outcome.await {
            Err(StoreError::Contention(_)) => {}
            Err(error) => panic!("blocked by a lock, but reported as {error:?}"),
            Ok(_) => panic!("another unit could change the row"),
        }
    }

    pub(crate) async fn user(&self) -> User {
        let user = new_user(&unique_email());
        self.unit(async |unit| unit.users().insert(&user).await).await.unwrap()
    }

    pub(crate) async fn qna(&self, author: &User) -> Qna {
        let qna = new_qna(author);
        self.unit(async |unit| unit.qnas().insert(&qna).await).await.unwrap()
    }

    /// A comment, counted, as the use case does it.
    pub(crate) async fn comment(&self, qna: QnaId, author: &User) -> Comment {
        let comment = new_comment(qna, author);
        self.unit(async |unit| {
            unit.qnas().count_comments(qna, 1).await?;
            unit.comments().insert(&comment).await
        })
        .await
        .unwrap()
    }

    /// Runs SQL that no repository would.
    pub(crate) async fn sql(&self, sql: &str) {
        self.writer().execute_unprepared(sql).await.unwrap();
    }

    pub(crate) fn writer(&self) -> &DatabaseConnection {
        self.store.writer()
    }
}

/// How many sessions of a MySQL or MariaDB database wait for a table that another one holds.
pub(crate) async fn waiting_for_a_table(db: &impl ConnectionTrait) -> i64 {
    let waiting = "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.processlist
                   WHERE db = DATABASE() AND state LIKE 'Waiting for table%'";
    loop {
        match db.query_one_raw(Statement::from_string(DbBackend::MySql, waiting)).await {
            Ok(row) => return row.unwrap().try_get_by_index(0).unwrap(),
            // MySQL cannot show the list while a statement in it holds bytes that are no text.
            Err(error) => assert!(error.to_string().contains("Cannot convert string"), "{error}"),
        }
    }
}

/// An address that no other test has.
pub(crate) fn unique_email() -> String {
    format!("u{:016x}@example.com", getrandom::u64().unwrap())
}

pub(crate) fn new_user(email: &str) -> NewUser {
    NewUser {
        email: Email::parse(email).unwrap(),
        display_name: DisplayName::parse("김문답").unwrap(),
        role: Role::Member,
        password: Some(hash("first")),
        created_at: noon(),
    }
}

pub(crate) fn hash(text: &str) -> PasswordHash {
    PasswordHash::new(text.to_owned())
}

pub(crate) fn new_qna(author: &User) -> NewQna {
    NewQna {
        author: author.author(),
        title: Title::parse("How do I start?").unwrap(),
        content: Content::parse("I have read the README.").unwrap(),
        created_at: noon(),
    }
}

pub(crate) fn new_comment(qna: QnaId, author: &User) -> NewComment {
    NewComment {
        qna,
        author: author.author(),
        content: CommentContent::parse("Read it again.").unwrap(),
        created_at: noon(),
    }
}

/// An id that no row has.
pub(crate) const NOBODY: UserId = UserId::new(1 << 52);

pub(crate) fn slice(order: Order, after: Option<i64>, limit: u64) -> Slice {
    Slice { after, order, limit, bytes: Slice::ANY_SIZE }
}

pub(crate) fn at(rfc3339: &str) -> Timestamp {
    Timestamp::new(rfc3339.parse().unwrap())
}

/// The corners of the calendar that a database might cut, round, or turn into something else.
pub(crate) fn times() -> Vec<Timestamp> {
    [
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:00.000001Z",
        "2026-01-02T03:04:05.6Z",
        "2026-12-31T23:59:59.999999Z",
        "2038-01-19T03:14:08Z",
        "2100-02-28T23:59:59.123456Z",
        "9999-12-31T23:59:59.999999Z",
    ]
    .map(at)
    .to_vec()
}

macro_rules! assert_outcome {
    ($outcome:expr, $pattern:pat) => {{
        let outcome = $outcome;
        assert!(matches!(outcome, $pattern), "{} expected, got {outcome:?}", stringify!($pattern));
    }};
}
pub(crate) use assert_outcome;
