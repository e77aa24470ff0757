//! The schema's migrations.

use std::time::Duration;

use futures_util::future::{join, join_all};
use mundap_infra::{DatabaseSettings, SeaStore};
use mundap_migration::{MigrationError, down, exactly, status, up};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, Statement, TransactionTrait as _};

use crate::board::{Board, waiting_for_a_table};

crate::tests![
    up_down_up,
    up_applies_each_once_and_names_it,
    down_takes_back_the_last_ones,
    one_that_another_session_holds_up_counts_once,
    status_changes_nothing,
    many_that_start_at_once_make_the_schema_once,
    where_nothing_is_pending_nothing_is_written,
    a_lease_that_a_killed_migrator_left_is_taken_over,
    a_lease_in_force_is_waited_for,
    what_a_killed_migrator_left_half_done_is_completed,
    a_database_of_a_newer_version_is_refused,
    a_database_of_another_program_is_refused_and_left_as_it_is,
];

/// Every migration, oldest first, as the folder of the crate holds them.
fn names() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migration/src");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files
        .filter(|file| file.starts_with('m'))
        .filter_map(|file| file.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    names
}

async fn empty(board: &Board) -> (SeaStore, DatabaseSettings) {
    let settings = board.server.new_database().await;
    (board.connect(&settings).await, settings)
}

async fn sql(db: &DatabaseConnection, sql: &str) {
    db.execute_unprepared(sql).await.unwrap();
}

/// Every table and index as the database describes it.
async fn schema(store: &SeaStore) -> Vec<String> {
    let db = store.writer();
    let query = if is_sqlite(store) {
        "SELECT type, name, COALESCE(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2"
    } else {
        "SELECT table_name, column_name, CONCAT_WS(' ', column_type, collation_name, is_nullable, column_key, extra)
         FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name <> 'migration_lease'
         UNION ALL
         SELECT table_name, index_name, CONCAT_WS(' ', column_name, seq_in_index, non_unique)
         FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name <> 'migration_lease'
         UNION ALL
         SELECT table_name, constraint_name, CONCAT_WS(' ', referenced_table_name, delete_rule)
         FROM information_schema.referential_constraints WHERE constraint_schema = DATABASE()
         ORDER BY 1, 2, 3"
    };
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), query)).await.unwrap();
    rows.iter()
        .map(|row| {
            let text = |index| row.try_get_by_index::<String>(index).unwrap();
            format!("{} {} {}", text(0), text(1), text(2))
        })
        .collect()
}

fn is_sqlite(store: &SeaStore) -> bool {
    store.kind() == mundap_infra::DatabaseKind::Sqlite
}

async fn up_down_up(board: Board) {
    let (store, settings) = empty(&board).await;
    let db = store.writer();
    up(db).await.unwrap();
    let first = schema(&store).await;
    for name in ["users", "qna", "comment", "sign_in"] {
        assert!(first.iter().any(|line| line.contains(name)), "{name} in {first:#?}");
    }
    // Each takes back what it made, and no more: what is left then is the schema that those before it make from nothing.
    let all = names();
    let mut left = Vec::new();
    for _ in &all {
        down(db, 1).await.unwrap();
        left.push(schema(&store).await);
    }
    let bare = left.pop().unwrap();
    assert!(bare.iter().all(|line| line.contains("seaql_migrations")), "{bare:#?}");
    left.reverse();
    for (known, expected) in (1..).zip(&left) {
        exactly(db, &all[..known]).await.unwrap();
        assert_eq!(&schema(&store).await, expected, "with {}", all[known - 1]);
    }
    up(db).await.unwrap();
    assert_eq!(schema(&store).await, first);
    let board = board.on(&settings).await;
    let user = board.user().await;
    board.comment(board.qna(&user).await.id, &user).await;
}

async fn up_applies_each_once_and_names_it(board: Board) {
    let (store, _) = empty(&board).await;
    assert_eq!(up(store.writer()).await.unwrap(), names());
    assert!(up(store.writer()).await.unwrap().is_empty());
}

async fn down_takes_back_the_last_ones(board: Board) {
    let (store, _) = empty(&board).await;
    let db = store.writer();
    assert!(down(db, 3).await.unwrap().is_empty(), "nothing is there yet");
    up(db).await.unwrap();
    assert!(down(db, 0).await.unwrap().is_empty());
    let newest_first: Vec<String> = names().into_iter().rev().collect();
    assert_eq!(down(db, 2).await.unwrap(), newest_first[..2]);
    assert_eq!(down(db, 99).await.unwrap(), newest_first[2..]);
}

/// A step that waits longer for a table than the session may is tried again: by itself, not with those before it.
async fn one_that_another_session_holds_up_counts_once(board: Board) {
    let (store, settings) = empty(&board).await;
    if is_sqlite(&store) {
        return; // all or nothing
    }
    let db = store.writer();
    up(db).await.unwrap();
    let impatient = Database::connect(ConnectOptions::new(settings.url).max_connections(1).to_owned()).await.unwrap();
    sql(&impatient, "SET SESSION lock_wait_timeout = 1").await;
    let reads = db.begin().await.unwrap();
    reads.execute_unprepared("SELECT * FROM import_mark").await.unwrap();
    let is_done = std::cell::Cell::new(false);
    let (taken_back, ()) = join(
        async {
            let taken_back = down(&impatient, 2).await;
            is_done.set(true);
            taken_back
        },
        async {
            for waits in [true, false] {
                while !is_done.get() && (waiting_for_a_table(db).await > 0) != waits {}
            }
            // Galera ended it instead of waiting for it.
            let _ = reads.rollback().await;
        },
    )
    .await;
    let newest_first: Vec<String> = names().into_iter().rev().collect();
    assert_eq!(taken_back.unwrap(), newest_first[..2]);
    let applied = status(db).await.unwrap().iter().filter(|(_, applied)| *applied).count();
    assert_eq!(applied, names().len() - 2);
}

async fn status_changes_nothing(board: Board) {
    let (store, _) = empty(&board).await;
    let db = store.writer();
    let pending =
        |applied: usize| names().into_iter().enumerate().map(|(n, name)| (name, n < applied)).collect::<Vec<_>>();
    assert_eq!(status(db).await.unwrap(), pending(0));
    assert!(schema(&store).await.is_empty());
    up(db).await.unwrap();
    down(db, 1).await.unwrap();
    assert_eq!(status(db).await.unwrap(), pending(names().len() - 1));
    up(db).await.unwrap();
    assert_eq!(status(db).await.unwrap(), pending(names().len()));
}

async fn many_that_start_at_once_make_the_schema_once(board: Board) {
    let settings = board.server.new_database().await;
    // Each with connections of its own, as a process has.
    let started = join_all((0..20).map(async |_| {
        let store = board.connect(&settings).await;
        let applied = up(store.writer()).await.unwrap();
        assert!(status(store.writer()).await.unwrap().iter().all(|(_, applied)| *applied), "ready means migrated");
        store.close().await;
        applied
    }));
    let mut applied: Vec<String> = started.await.into_iter().flatten().collect();
    applied.sort_unstable();
    assert_eq!(applied, names(), "each by one of them");
}

async fn where_nothing_is_pending_nothing_is_written(board: Board) {
    let (store, settings) = empty(&board).await;
    up(store.writer()).await.unwrap();
    if is_sqlite(&store) {
        // As a database that cannot be written to would show.
        sql(store.writer(), "PRAGMA query_only = ON").await;
    } else {
        sql(store.writer(), "DROP TABLE migration_lease").await;
    }
    assert!(up(store.writer()).await.unwrap().is_empty());
    if !is_sqlite(&store) {
        let lease = "SELECT COUNT(*) FROM information_schema.tables
                     WHERE table_schema = DATABASE() AND table_name = 'migration_lease'";
        let lease = Statement::from_string(store.writer().get_database_backend(), lease);
        let row = store.writer().query_one_raw(lease).await.unwrap().unwrap();
        assert_eq!(row.try_get_by_index::<i64>(0).unwrap(), 0, "no lease was taken");
    }
    drop(settings);
}

const LEASE: &str = "CREATE TABLE migration_lease (
    lease_id TINYINT NOT NULL PRIMARY KEY, holder CHAR(32) NOT NULL, expires_at DATETIME(6) NOT NULL)";

async fn a_lease_that_a_killed_migrator_left_is_taken_over(board: Board) {
    let (store, settings) = empty(&board).await;
    if is_sqlite(&store) {
        // There the lease is the transaction: killed is rolled back.
        let killed = board.connect(&settings).await;
        let transaction = sea_orm::TransactionTrait::begin(killed.writer()).await.unwrap();
        transaction.execute_unprepared("CREATE TABLE users (half INTEGER)").await.unwrap();
        let (applied, ()) = join(up(store.writer()), async {
            // Up is turned away while the other one holds the file, and tries again.
            tokio::task::yield_now().await;
            drop(transaction);
            killed.close().await;
        })
        .await;
        assert_eq!(applied.unwrap(), names());
        return;
    }
    sql(store.writer(), LEASE).await;
    sql(store.writer(), "INSERT INTO migration_lease VALUES (1, 'killed', UTC_TIMESTAMP(6) - INTERVAL 1 SECOND)").await;
    assert_eq!(up(store.writer()).await.unwrap(), names());
}

async fn a_lease_in_force_is_waited_for(board: Board) {
    let (store, _) = empty(&board).await;
    if is_sqlite(&store) {
        return; // see above
    }
    let db = store.writer();
    sql(db, LEASE).await;
    sql(db, "INSERT INTO migration_lease VALUES (1, 'working', UTC_TIMESTAMP(6) + INTERVAL 1 HOUR)").await;
    let waits = tokio::time::timeout(Duration::from_millis(500), up(db)).await;
    assert!(waits.is_err(), "it went ahead: {waits:?}");
    assert!(status(db).await.unwrap().iter().all(|(_, applied)| !applied));
    let (applied, ()) = join(up(db), async {
        // Its holder is done.
        sql(db, "UPDATE migration_lease SET expires_at = '1970-01-01' WHERE holder = 'working'").await;
    })
    .await;
    assert_eq!(applied.unwrap(), names());
}

async fn what_a_killed_migrator_left_half_done_is_completed(board: Board) {
    let (store, _) = empty(&board).await;
    if is_sqlite(&store) {
        return; // all or nothing
    }
    let db = store.writer();
    up(db).await.unwrap();
    let whole = schema(&store).await;
    // The change was made, the note of it was not.
    for name in names() {
        sql(db, &format!("DELETE FROM seaql_migrations WHERE version = '{name}'")).await;
        assert_eq!(up(db).await.unwrap(), [name]);
        assert_eq!(schema(&store).await, whole);
    }
    // The column was made, the table was not.
    sql(db, "DROP TABLE image").await;
    sql(db, "DELETE FROM seaql_migrations WHERE version = 'm0006_image'").await;
    assert_eq!(up(db).await.unwrap(), ["m0006_image"]);
    assert_eq!(schema(&store).await, whole);
}

async fn a_database_of_a_newer_version_is_refused(board: Board) {
    let (store, _) = empty(&board).await;
    let db = store.writer();
    up(db).await.unwrap();
    sql(db, "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_from_the_future', 0)").await;
    for refused in [up(db).await.map(|_| ()), down(db, 1).await.map(|_| ()), status(db).await.map(|_| ())] {
        let Err(MigrationError::Newer(names)) = refused else { panic!("{refused:?}") };
        assert_eq!(names, "m9999_from_the_future");
    }
}

async fn a_database_of_another_program_is_refused_and_left_as_it_is(board: Board) {
    for table in ["users", "qna", "comment"] {
        let (store, _) = empty(&board).await;
        let db = store.writer();
        sql(db, &format!("CREATE TABLE {table} (email VARCHAR(99) PRIMARY KEY)")).await;
        let theirs = schema(&store).await;
        for refused in [
            up(db).await.map(|_| ()),
            down(db, 1).await.map(|_| ()),
            exactly(db, &names()[..1]).await,
            status(db).await.map(|_| ()),
        ] {
            let told = refused.unwrap_err().to_string();
            assert!(told.starts_with(&format!("the database holds another program's tables ({table}): ")), "{told}");
        }
        assert_eq!(schema(&store).await, theirs);
        assert!(db.execute_unprepared("SELECT * FROM migration_lease").await.is_err(), "nor is a lease taken there");
        // This program's own tables never stand there without that of the migrations.
        sql(db, &format!("DROP TABLE {table}")).await;
        up(db).await.unwrap();
        down(db, 99).await.unwrap();
        up(db).await.unwrap();
    }
}
