//! `Store` and `UnitOfWork`.

use std::collections::HashSet;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use mundap_domain::page::{Order, Slice};
use mundap_domain::qna::Qna;
use mundap_domain::testing::noon;
use mundap_domain::{Store as _, StoreError};
use mundap_infra::{DatabaseKind, DatabaseSettings, connect};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement, TransactionTrait as _};
use tokio::runtime::Runtime;
use url::Url;

use crate::board::{Board, NOBODY, assert_outcome, new_qna, new_user, slice, unique_email, waiting_for_a_table};
use crate::proxy::Proxy;

crate::tests![
    dropping_a_unit_rolls_it_back,
    a_unit_that_failed_rolls_back_as_well,
    a_unit_sees_its_own_writes_and_nobody_else_does,
    a_commit_is_seen_by_the_next_read,
    a_commit_outlives_the_store,
    begin_fails_within_the_acquire_time_limit,
    parallel_units_all_commit,
    a_server_s_connection_is_kept_by_the_thread_that_opened_it,
    reads_that_are_held_up_leave_a_connection_for_units,
    an_abandoned_statement_leaves_nothing_and_its_connection_is_good_again,
    an_abandoned_beginning_ends,
    two_units_that_wait_for_each_other_are_contention,
    the_reader_cannot_write,
    a_full_disk_is_unavailable_and_reads_go_on,
    a_transaction_that_sqlite_ended_by_itself_keeps_no_later_one_open,
    no_session_on_mysql_joins_by_hashing_whole_tables,
    sqlite_is_compiled_as_the_workspace_says,
    only_what_leaves_this_machine_is_encrypted_unless_it_is_said,
    it_says_what_it_is,
    closing_ends_every_use,
];

async fn exists(board: &Board, qna: &Qna) -> bool {
    board.reader().qnas().find(qna.id).await.unwrap().is_some()
}

async fn dropping_a_unit_rolls_it_back(board: Board) {
    let user = board.user().await;
    let qna = board.qna(&user).await;
    let unit = board.begin().await;
    let dropped = unit.qnas().insert(&new_qna(&user)).await.unwrap();
    unit.qnas().count_comments(qna.id, 1).await.unwrap();
    unit.qnas().delete(qna.id, qna.version).await.unwrap();
    drop(unit);
    assert!(!exists(&board, &dropped).await);
    assert_eq!(board.reader().qnas().find(qna.id).await.unwrap().as_ref(), Some(&qna));
    // And it holds no lock any more.
    board.unit(async |unit| unit.qnas().delete(qna.id, qna.version).await).await.unwrap();
}

async fn a_unit_that_failed_rolls_back_as_well(board: Board) {
    let user = board.user().await;
    let unit = board.begin().await;
    let qna = unit.qnas().insert(&new_qna(&user)).await.unwrap();
    let taken = unit.users().insert(&new_user(user.email.as_str())).await;
    assert_outcome!(taken, Err(StoreError::Duplicate(_)));
    drop(unit);
    assert!(!exists(&board, &qna).await);
}

async fn a_unit_sees_its_own_writes_and_nobody_else_does(board: Board) {
    let user = board.user().await;
    let unit = board.begin().await;
    let qna = unit.qnas().insert(&new_qna(&user)).await.unwrap();
    assert_eq!(unit.qnas().find(qna.id).await.unwrap().as_ref(), Some(&qna));
    assert!(!exists(&board, &qna).await);
    unit.commit().await.unwrap();
    assert!(exists(&board, &qna).await);
}

async fn a_commit_is_seen_by_the_next_read(board: Board) {
    let user = board.user().await;
    for _ in 0..20 {
        let qna = board.qna(&user).await;
        // Whichever of its connections the reader takes.
        assert!(join_all((0..5).map(|_| exists(&board, &qna))).await.iter().all(|seen| *seen));
    }
}

async fn a_commit_outlives_the_store(board: Board) {
    let settings = board.server.new_database().await;
    let mut board = board.on(&settings).await;
    let qna = board.qna(&board.user().await).await;
    board.store.close().await;
    board.store = board.connect(&settings).await;
    assert_eq!(board.reader().qnas().find(qna.id).await.unwrap(), Some(qna));
}

async fn begin_fails_within_the_acquire_time_limit(board: Board) {
    let limit = Duration::from_millis(700);
    let board = board
        .own_with(|settings| {
            settings.max_connections = 1;
            settings.acquire_timeout = limit;
        })
        .await;
    let unit = board.begin().await;
    let start = Instant::now();
    let outcome = board.store.begin().await.map(|_| ());
    let waited = start.elapsed();
    match board.store.kind() {
        DatabaseKind::Sqlite => assert_outcome!(outcome, Err(StoreError::Contention(_))),
        DatabaseKind::MariaDb | DatabaseKind::MySql => assert_outcome!(outcome, Err(StoreError::Unavailable(_))),
    }
    assert!(waited >= limit && waited < limit * 2, "{waited:?}");
    unit.commit().await.unwrap();
    board.begin().await;
}

async fn parallel_units_all_commit(board: Board) {
    let user = board.user().await;
    let qnas = join_all((0..50).map(|_| board.qna(&user))).await;
    let ids: HashSet<_> = qnas.iter().map(|qna| qna.id).collect();
    assert_eq!(ids.len(), 50);
    let listed = board.reader().qnas().list(Some(user.id), &slice(Order::Oldest, None, 100)).await.unwrap();
    assert_eq!(listed.len(), 50);
}

async fn reads_that_are_held_up_leave_a_connection_for_units(board: Board) {
    let board = board.own_with(|settings| settings.max_connections = 3).await;
    let user = board.user().await;
    board.qna(&user).await;
    // Nothing keeps others from reading on SQLite.
    let lock = match board.store.kind() {
        DatabaseKind::Sqlite => None,
        DatabaseKind::MariaDb | DatabaseKind::MySql => Some(board.writer().begin().await.unwrap()),
    };
    if let Some(lock) = &lock {
        lock.execute_unprepared("LOCK TABLES qna WRITE").await.unwrap();
    }
    // Each another page: the same one would be read once for all.
    let pages: Vec<_> = (10..15).map(|limit| slice(Order::Newest, None, limit)).collect();
    let reads = join_all(pages.iter().map(|page| board.reader().qnas().list(None, page)));
    let unit = async {
        if let Some(lock) = &lock {
            while waiting_for_a_table(lock).await < 2 {}
        }
        // Something that has nothing to do with the table.
        let unit = board.begin().await;
        unit.receipts().delete_older(noon(), 10).await.unwrap();
        unit.commit().await.unwrap();
        if let Some(lock) = &lock {
            lock.execute_unprepared("UNLOCK TABLES").await.unwrap();
        }
    };
    let (reads, ()) = join(reads, unit).await;
    assert!(reads.iter().all(|read| read.as_ref().is_ok_and(|qnas| qnas.len() == 1)), "{reads:?}");
}

/// A client that hangs up drops the future of its request, wherever that stands.
async fn an_abandoned_statement_leaves_nothing_and_its_connection_is_good_again(board: Board) {
    let board = board.own_with(|settings| settings.max_connections = 2).await;
    let user = board.user().await;
    // A walk's piece: a page would be read to its end, for others who may wait for it.
    let piece = Slice { bytes: 1 << 20, ..slice(Order::Oldest, None, 100) };
    for micros in (0..2_000).step_by(20) {
        let work = board.unit(async |unit| {
            let qna = unit.qnas().insert(&new_qna(&user)).await?;
            unit.qnas().count_comments(qna.id, 1).await?;
            unit.qnas().find(qna.id).await
        });
        let reading = board.reader().qnas().list(Some(user.id), &piece);
        let limit = Duration::from_micros(micros);
        // Whether it was done in time is no matter here.
        let _ = join(tokio::time::timeout(limit, work), tokio::time::timeout(limit, reading)).await;
    }
    let qnas = board.reader().qnas().list(Some(user.id), &slice(Order::Oldest, None, 1_000)).await.unwrap();
    assert!(qnas.iter().all(|qna| qna.comment_count == 1), "all of a unit or nothing of it");
    for _ in 0..4 {
        board.qna(&user).await;
    }
}

/// What comes of it within so many polls.
async fn within_polls<T>(most: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut polls) = (pin!(future), 0);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => {
            polls += 1;
            if polls < most { Poll::Pending } else { Poll::Ready(None) }
        }
    })
    .await
}

/// A connection on which a unit only began would keep what others read on it from then on.
async fn an_abandoned_beginning_ends(board: Board) {
    if board.server.is_sqlite() {
        return; // it locks no table that is read
    }
    let board = board.own_with(|settings| settings.max_connections = 2).await;
    let user = board.user().await;
    let piece = Slice { bytes: 1 << 20, ..slice(Order::Oldest, None, 100) };
    let other = board.writer().begin().await.unwrap();
    other.execute_unprepared("SET SESSION lock_wait_timeout = 1").await.unwrap();
    for polls in 1..12 {
        let _ = within_polls(polls, board.store.begin()).await;
        for _ in 0..4 {
            board.reader().qnas().list(Some(user.id), &piece).await.unwrap();
        }
        other.execute_unprepared("LOCK TABLES qna WRITE").await.expect("nobody holds what they read");
        other.execute_unprepared("UNLOCK TABLES").await.unwrap();
    }
}

async fn two_units_that_wait_for_each_other_are_contention(board: Board) {
    if board.server.is_sqlite() {
        return; // the second one does not begin
    }
    let user = board.user().await;
    let (here, there) = (board.qna(&user).await, board.qna(&user).await);
    let (one, other) = (board.begin().await, board.begin().await);
    one.qnas().count_comments(here.id, 1).await.unwrap();
    other.qnas().count_comments(there.id, 1).await.unwrap();
    // Whoever loses drops their unit, and the winner goes on.
    let cross = async |unit: Box<dyn mundap_domain::UnitOfWork>, qna: &Qna| {
        unit.qnas().count_comments(qna.id, 1).await?;
        unit.commit().await
    };
    let outcomes = join(cross(one, &there), cross(other, &here)).await;
    let ((Err(lost), Ok(())) | (Ok(()), Err(lost))) = outcomes else { panic!("one wins: {outcomes:?}") };
    assert!(matches!(lost, StoreError::Contention(_)), "{lost:?}");
}

async fn the_reader_cannot_write(board: Board) {
    if !board.server.is_sqlite() {
        return; // one user, one pool
    }
    let new = new_user(&unique_email());
    assert_outcome!(board.reader().users().insert(&new).await, Err(StoreError::Backend(_)));
}

async fn a_full_disk_is_unavailable_and_reads_go_on(board: Board) {
    if !board.server.is_sqlite() {
        return; // nothing here can fill a server's disk
    }
    let board = board.own().await;
    let user = board.user().await;
    let qna = board.qna(&user).await;
    // A file that may not grow, as on a full disk. The writer is one connection: the pragma holds for every unit.
    let pages = Statement::from_string(board.writer().get_database_backend(), "PRAGMA page_count");
    let pages: i64 = board.writer().query_one_raw(pages).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    board.sql(&format!("PRAGMA max_page_count = {pages}")).await;
    let mut big = new_qna(&user);
    big.content = mundap_domain::qna::Content::parse(&"각".repeat(20_000)).unwrap();
    let write = async || board.unit(async |unit| unit.qnas().insert(&big).await).await;
    assert_outcome!(write().await, Err(StoreError::Unavailable(_)));
    assert_eq!(board.reader().qnas().find(qna.id).await.unwrap(), Some(qna));
    board.sql("PRAGMA max_page_count = 1000000").await;
    write().await.unwrap();
}

/// Where a commit finds the disk full, SQLite ends the transaction by itself, and the driver does not notice.
async fn a_transaction_that_sqlite_ended_by_itself_keeps_no_later_one_open(board: Board) {
    if !board.server.is_sqlite() {
        return; // no other engine's driver counts transactions by itself
    }
    let board = board.own().await;
    let user = board.user().await;
    let ended = board.writer().begin().await.unwrap();
    ended.execute_unprepared("ROLLBACK").await.unwrap();
    drop(ended);
    drop(board.begin().await);
    let qna = board.qna(&user).await;
    // By another connection, which sees what is committed and nothing else.
    assert_eq!(board.reader().qnas().find(qna.id).await.unwrap(), Some(qna));
}

/// What arrives wakes the thread that opened it first, which would have to wake another one.
async fn a_server_s_connection_is_kept_by_the_thread_that_opened_it(board: Board) {
    if board.server.is_sqlite() {
        return; // its connections have no sockets
    }
    let settings = board.server.new_database().await;
    let board = board.on(&settings).await;
    // Migrations have connections of their own. One for requests goes back to the pool.
    let migrated = board.server.connections(&settings).await;
    let unit = board.begin().await;
    let open = board.server.connections(&settings).await;
    let ours: HashSet<i64> = open.difference(&migrated).copied().collect();
    assert_eq!(ours.len(), 1, "{migrated:?} {open:?}");
    drop(unit);
    let mut runtimes = Vec::new();
    for _ in 0..8 {
        let board = board.clone();
        let reads = move || {
            let runtime = Runtime::new().unwrap();
            runtime.block_on(async { board.reader().users().find(NOBODY).await.unwrap() });
            // What it opened is kept as long as it is.
            runtime
        };
        // A new thread each time.
        let reading = || std::thread::spawn(reads).join().unwrap();
        runtimes.push(tokio::task::spawn_blocking(reading).await.unwrap());
    }
    // It is of no use to any of them, and closed.
    while ours.is_subset(&board.server.connections(&settings).await) {
        tokio::task::yield_now().await;
    }
    for runtime in runtimes {
        runtime.shutdown_background();
    }
    board.close().await;
}

/// With few users MySQL would hash them and sort every question for one page; see `session` in `connect.rs`.
async fn no_session_on_mysql_joins_by_hashing_whole_tables(board: Board) {
    if board.store.kind() != DatabaseKind::MySql {
        return;
    }
    let settings = board.server.new_database().await;
    let board = board.on(&settings).await;
    let name = settings.url.rsplit('/').next().unwrap().split('?').next().unwrap();
    // One of each kind that requests use, while both are open.
    let unit = board.begin().await;
    board.reader().users().find(NOBODY).await.unwrap();
    let sql = format!(
        "SELECT COUNT(*) FROM performance_schema.variables_by_thread v \
         JOIN performance_schema.threads t ON t.thread_id = v.thread_id \
         WHERE t.processlist_db = '{name}' AND v.variable_name = 'optimizer_switch' \
         AND v.variable_value LIKE '%block_nested_loop=off%'"
    );
    let row = board.writer().query_one_raw(Statement::from_string(DbBackend::MySql, sql)).await.unwrap();
    let sessions: i64 = row.unwrap().try_get_by_index(0).unwrap();
    assert!(sessions >= 2, "{sessions}");
    drop(unit);
    board.close().await;
}

/// In `.cargo/config.toml`, which is read from the folder that cargo is called in: from elsewhere a list costs twice as much.
async fn sqlite_is_compiled_as_the_workspace_says(board: Board) {
    if !board.server.is_sqlite() {
        return; // others compile themselves
    }
    let pragma = Statement::from_string(DbBackend::Sqlite, "PRAGMA compile_options");
    let rows = board.writer().query_all_raw(pragma).await.unwrap();
    let options: HashSet<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    for option in ["ENABLE_QPSG", "DEFAULT_MEMSTATUS=0"] {
        assert!(options.contains(option), "{option} is missing: {options:?}");
    }
    assert!(!options.contains("ENABLE_MEMORY_MANAGEMENT"), "{options:?}");
}

async fn only_what_leaves_this_machine_is_encrypted_unless_it_is_said(board: Board) {
    if board.server.is_sqlite() {
        return; // a file has no line
    }
    let settings = board.server.new_database().await;
    let with = |change: &dyn Fn(&mut Url)| {
        let mut url = Url::parse(&settings.url).unwrap();
        change(&mut url);
        DatabaseSettings { url: url.into(), ..settings.clone() }
    };
    let is_encrypted = async |settings: DatabaseSettings| {
        let board = board.on(&settings).await;
        let sql = "SHOW SESSION STATUS LIKE 'Ssl_cipher'";
        let row = board.writer().query_one_raw(Statement::from_string(DbBackend::MySql, sql)).await.unwrap();
        let cipher: String = row.unwrap().try_get_by_index(1).unwrap();
        board.close().await;
        !cipher.is_empty()
    };
    let url = Url::parse(&settings.url).unwrap();
    let (host, port) = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(3306));
    let mode = |mode| with(&|url| _ = url.query_pairs_mut().append_pair("ssl-mode", mode));
    let can_be = connect(&mode("REQUIRED")).await.is_ok();
    assert_eq!(is_encrypted(mode("PREFERRED")).await, can_be);
    assert!(!is_encrypted(mode("DISABLED")).await);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    assert_eq!(is_encrypted(settings.clone()).await, can_be && !is_here);
    // Where it goes from there is not known here.
    let proxy = Proxy::to(format!("{host}:{port}")).await;
    let through = with(&|url| {
        url.set_ip_host(proxy.address.ip()).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
    });
    assert_eq!(is_encrypted(through).await, can_be);
}

async fn it_says_what_it_is(board: Board) {
    board.store.ping().await.unwrap();
    let description = board.store.describe().await.unwrap();
    let (engine, version) = description.split_once(' ').unwrap();
    assert_eq!(engine, board.store.kind().to_string());
    assert!(version.split('.').all(|number| number.parse::<u32>().is_ok()), "{description}");
    assert_eq!(board.store.kind() == DatabaseKind::Sqlite, board.server.is_sqlite());
}

async fn closing_ends_every_use(board: Board) {
    let board = board.own().await;
    board.user().await;
    board.store.close().await;
    board.store.close().await;
    assert_outcome!(board.store.begin().await.map(|_| ()), Err(StoreError::Unavailable(_)));
    assert_outcome!(board.store.ping().await, Err(StoreError::Unavailable(_)));
}
