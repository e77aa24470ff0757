//! What becomes of a request whose database is gone, hangs, or takes too long.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all, try_join_all};
use mundap_domain::idempotency::{Claimant, IdempotencyKey, NotAdded, Receipt};
use mundap_domain::testing::noon;
use mundap_domain::user::User;
use mundap_domain::{Store as _, StoreError, UnitOfWork};
use mundap_infra::{ConnectError, DatabaseSettings, connect};
use sea_orm::sqlx::{Connection as _, Executor as _, MySqlConnection};
use url::Url;

use crate::board::{Board, assert_outcome, new_qna, new_user, unique_email};
use crate::proxy::{Line, Proxy};

crate::tests![
    a_database_that_is_gone_is_unavailable_at_once_and_good_again_when_it_is_back,
    a_database_that_hangs_is_unavailable_within_the_time_limit_and_good_again_when_it_goes_on,
    a_unit_whose_connection_breaks_is_unavailable_and_leaves_nothing,
    a_commit_whose_answer_is_lost_is_unavailable_and_known_by_its_key,
    a_statement_that_takes_too_long_is_unavailable,
    a_database_that_is_away_is_known_to_be_and_found_again_soon,
    what_has_begun_is_not_refused_and_looking_tells_the_truth,
    statements_that_the_database_ends_itself_are_no_outage,
    what_the_database_refuses_is_no_outage,
    a_full_pool_is_contention_while_the_database_answers,
    a_restart_costs_no_request,
    connections_that_the_server_closes_cost_no_request,
    connections_that_lead_nowhere_are_replaced,
    closing_waits_for_a_database_that_hangs_no_longer_than_for_a_statement,
    connecting_to_nothing_fails_fast_and_says_where,
    connecting_to_silence_fails_within_the_connect_time_limit,
    a_wrong_password_is_said_so_and_not_shown,
    a_missing_database_is_said_so,
    a_file_that_is_no_database_is_said_so,
];

/// Enough for a new connection on a busy machine.
const CONNECTIONS: u32 = 8;
const READERS: u32 = CONNECTIONS * 2 / 3;
/// One more is kept for new questions.
const UNITS: u32 = CONNECTIONS - READERS - 1;
const ACQUIRE: Duration = Duration::from_secs(1);
const STATEMENT: Duration = Duration::from_millis(1_500);

/// Far more than the work takes, far less than any limit of the operating system.
const SLACK: Duration = Duration::from_millis(800);

/// A board whose server is reached through a line that the test holds.
async fn behind_a_line(board: &Board) -> Option<(Board, Proxy)> {
    behind_a_line_of(CONNECTIONS, board).await
}

/// With so many connections.
async fn behind_a_line_of(max_connections: u32, board: &Board) -> Option<(Board, Proxy)> {
    if board.server.is_sqlite() {
        return None; // no line
    }
    let settings = board.server.new_database().await;
    let mut url = Url::parse(&settings.url).unwrap();
    let proxy = Proxy::to(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(3306))).await;
    url.set_ip_host(proxy.address.ip()).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    let settings = DatabaseSettings {
        max_connections,
        acquire_timeout: ACQUIRE,
        statement_timeout: STATEMENT,
        ..DatabaseSettings::new(url)
    };
    Some((board.on(&settings).await, proxy))
}

/// Ten requests at once, each a read and a write: every one fails, as unavailable, within `limit`.
async fn assert_unavailable(board: &Board, author: &User, limit: Duration) {
    let requests = (0..10).map(async |_| {
        let start = Instant::now();
        assert_outcome!(board.reader().users().find(author.id).await, Err(StoreError::Unavailable(_)));
        let read = start.elapsed();
        assert!(read < limit, "a read took {read:?}");
        let write = async { board.store.begin().await?.qnas().insert(&new_qna(author)).await };
        assert_outcome!(write.await, Err(StoreError::Unavailable(_)));
        let write = start.elapsed().saturating_sub(read);
        assert!(write < limit, "a write took {write:?}");
        let start = Instant::now();
        let added = board.store.add_qna(&new_qna(author), None).await;
        assert!(matches!(added, Err(NotAdded::Thing(StoreError::Unavailable(_)))), "{added:?}");
        let added = start.elapsed();
        assert!(added < limit, "to add took {added:?}");
    });
    join_all(requests).await;
}

/// All the connections that the pool may have are there and work, soon.
async fn assert_good(board: &Board, author: &User) {
    let start = Instant::now();
    let all_at_once = async || {
        // Held together, so that not one of them may be missing.
        let units = try_join_all((0..UNITS).map(|_| board.store.begin())).await?;
        let reads = (0..4 * READERS).map(async |_| board.reader().users().find_by_email(&author.email).await);
        let (added, read) = join(add(board, author), try_join_all(reads)).await;
        read?;
        for unit in units {
            fill(unit, author).await?;
        }
        added
    };
    loop {
        match all_at_once().await {
            Ok(()) => return,
            // They wait for some that are not given up yet.
            Err(StoreError::Unavailable(_) | StoreError::Contention(_))
                if start.elapsed() < Duration::from_secs(10) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Stores a question by itself.
async fn add(board: &Board, author: &User) -> Result<(), StoreError> {
    match board.store.add_qna(&new_qna(author), None).await {
        Ok(_) => Ok(()),
        Err(NotAdded::Thing(error) | NotAdded::Receipt(error)) => Err(error),
    }
}

/// Stores one by a unit.
async fn fill(unit: Box<dyn UnitOfWork>, author: &User) -> Result<(), StoreError> {
    unit.qnas().insert(&new_qna(author)).await?;
    unit.commit().await
}

/// Connections are given back behind the scenes, and nothing tells when. One that the line fails in that very moment is
/// the driver's: it waits for an answer until the operating system gives up.
async fn all_given_back() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

async fn a_database_that_is_gone_is_unavailable_at_once_and_good_again_when_it_is_back(board: Board) {
    let Some((board, mut proxy)) = behind_a_line(&board).await else { return };
    let author = board.user().await;
    assert_good(&board, &author).await;
    proxy.set(Line::Cut).await;
    assert_unavailable(&board, &author, ACQUIRE + SLACK).await;
    proxy.set(Line::Open).await;
    assert_good(&board, &author).await;
}

async fn a_database_that_hangs_is_unavailable_within_the_time_limit_and_good_again_when_it_goes_on(board: Board) {
    let Some((board, mut proxy)) = behind_a_line(&board).await else { return };
    let author = board.user().await;
    assert_good(&board, &author).await;
    proxy.set(Line::Frozen).await;
    assert_unavailable(&board, &author, STATEMENT + SLACK).await;
    // The connections that hung are gone from the pool by now, so only the pool's patience counts.
    assert_unavailable(&board, &author, ACQUIRE + SLACK).await;
    proxy.set(Line::Open).await;
    assert_good(&board, &author).await;
}

async fn a_unit_whose_connection_breaks_is_unavailable_and_leaves_nothing(board: Board) {
    let Some((board, mut proxy)) = behind_a_line(&board).await else { return };
    let author = board.user().await;
    let unit = board.begin().await;
    let qna = unit.qnas().insert(&new_qna(&author)).await.unwrap();
    proxy.set(Line::Cut).await;
    assert_outcome!(unit.commit().await, Err(StoreError::Unavailable(_)));
    proxy.set(Line::Open).await;
    assert_eq!(board.reader().qnas().find(qna.id).await.unwrap(), None);
}

/// Not contention, which is tried again by itself: it took place, and would take place twice.
async fn a_commit_whose_answer_is_lost_is_unavailable_and_known_by_its_key(board: Board) {
    let Some((board, mut proxy)) = behind_a_line(&board).await else { return };
    let author = board.user().await;
    let (claimant, key) = (Claimant::account(author.id), IdempotencyKey::parse("once").unwrap());
    let unit = board.begin().await;
    let qna = unit.qnas().insert(&new_qna(&author)).await.unwrap();
    let (author, created_at) = (Some(author.author()), noon());
    let receipt = Receipt { claimant, key, fingerprint: [7; 32], id: qna.id.get(), author, created_at };
    unit.receipts().insert(&receipt).await.unwrap();
    proxy.set(Line::Mute).await;
    assert_outcome!(unit.commit().await, Err(StoreError::Unavailable(_)));
    proxy.set(Line::Open).await;
    assert_eq!(board.reader().qnas().find(qna.id).await.unwrap(), Some(qna));
    assert_eq!(board.reader().receipts().find(claimant, &receipt.key).await.unwrap(), Some(receipt));
}

async fn a_statement_that_takes_too_long_is_unavailable(board: Board) {
    if board.server.is_sqlite() {
        return; // no reader waits for a writer
    }
    let settings = DatabaseSettings { statement_timeout: STATEMENT, ..board.server.new_database().await };
    let board = board.on(&settings).await;
    let author = board.user().await;
    let mut other = MySqlConnection::connect(&settings.url).await.unwrap();
    // As an ALTER TABLE does: nobody reads or writes until it is done.
    other.execute("LOCK TABLES users WRITE").await.unwrap();
    let start = Instant::now();
    assert_outcome!(board.reader().users().find(author.id).await, Err(StoreError::Unavailable(_)));
    let took = start.elapsed();
    assert!(took < settings.statement_timeout + SLACK, "{took:?}");
    other.execute("UNLOCK TABLES").await.unwrap();
    assert_good(&board, &author).await;
}

/// So little that nothing can have been waited for.
const AT_ONCE: Duration = Duration::from_millis(200);

/// What the quality of the board asks for.
const BACK_WITHIN: Duration = Duration::from_secs(3);

async fn a_database_that_is_away_is_known_to_be_and_found_again_soon(board: Board) {
    let Some((board, mut proxy)) = behind_a_line(&board).await else { return };
    let author = board.user().await;
    for line in [Line::Cut, Line::Frozen] {
        assert_good(&board, &author).await;
        all_given_back().await;
        proxy.set(line).await;
        // Each waited for something.
        assert_unavailable(&board, &author, STATEMENT + SLACK).await;
        // These do not.
        for _ in 0..20 {
            let start = Instant::now();
            assert_outcome!(board.reader().users().find(author.id).await, Err(StoreError::Unavailable(_)));
            assert_outcome!(board.store.begin().await.map(|_| ()), Err(StoreError::Unavailable(_)));
            assert!(start.elapsed() < AT_ONCE, "{line:?}: {:?}", start.elapsed());
        }
        proxy.set(Line::Open).await;
        let back = Instant::now();
        while board.reader().users().find(author.id).await.is_err() {
            assert!(back.elapsed() < BACK_WITHIN, "{line:?}");
        }
    }
    assert_good(&board, &author).await;
}

async fn what_has_begun_is_not_refused_and_looking_tells_the_truth(board: Board) {
    // It is taken then: whoever reads waits for it in vain.
    let Some((board, mut proxy)) = behind_a_line_of(1, &board).await else { return };
    let author = board.user().await;
    let unit = board.begin().await;
    proxy.shut().await;
    let reads = (0..10).map(async |_| board.reader().users().find(author.id).await);
    assert!(join_all(reads).await.iter().all(Result::is_err));
    let start = Instant::now();
    assert_outcome!(board.reader().users().find(author.id).await, Err(StoreError::Unavailable(_)));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    unit.qnas().insert(&new_qna(&author)).await.unwrap();
    unit.commit().await.unwrap();
    all_given_back().await;
    proxy.set(Line::Cut).await;
    assert_unavailable(&board, &author, STATEMENT + SLACK).await;
    assert_outcome!(board.store.ping().await, Err(StoreError::Unavailable(_)));
    proxy.set(Line::Open).await;
    let back = Instant::now();
    while board.store.ping().await.is_err() {
        assert!(back.elapsed() < BACK_WITHIN);
    }
    // An answer is an answer, whoever got it.
    board.reader().users().find(author.id).await.unwrap();
}

async fn statements_that_the_database_ends_itself_are_no_outage(board: Board) {
    if board.server.is_sqlite() {
        return; // no breaker
    }
    let settings = DatabaseSettings {
        statement_timeout: Duration::from_secs(2),
        max_connections: 10,
        ..board.server.new_database().await
    };
    let board = board.on(&settings).await;
    let author = board.user().await;
    let held = board.begin().await;
    held.users().find_locked(author.id).await.unwrap();
    // More than a few failures in a row, and each of them an answer.
    for _ in 0..2 {
        let waits = (0..8).map(async |_| {
            let unit = board.store.begin().await?;
            unit.users().find_locked(author.id).await.map(|_| ())
        });
        for outcome in join_all(waits).await {
            assert_outcome!(outcome, Err(StoreError::Contention(_)));
        }
    }
    let start = Instant::now();
    board.reader().users().find(author.id).await.unwrap();
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
}

/// As where somebody tries to register with an address that is taken, again and again.
async fn what_the_database_refuses_is_no_outage(board: Board) {
    let board = board.own().await;
    let new = new_user(&unique_email());
    let user = board.unit(async |unit| unit.users().insert(&new).await).await.unwrap();
    for _ in 0..10 {
        assert_outcome!(board.unit(async |unit| unit.users().insert(&new).await).await, Err(StoreError::Duplicate(_)));
    }
    assert_eq!(board.reader().users().find(user.id).await.unwrap(), Some(user));
}

async fn a_full_pool_is_contention_while_the_database_answers(board: Board) {
    if board.server.is_sqlite() {
        return; // always contention, see `store`
    }
    let settings = DatabaseSettings { max_connections: 1, ..board.server.new_database().await };
    let board = board.on(&settings).await;
    let author = board.user().await;
    let unit = board.begin().await;
    let (waited, answered) = join(board.reader().users().find(author.id), unit.users().find(author.id)).await;
    answered.unwrap();
    assert_outcome!(waited, Err(StoreError::Contention(_)));
    // So it looks from outside: nobody is away.
    let (ping, answered) = join(board.store.ping(), unit.users().find(author.id)).await;
    answered.unwrap();
    ping.unwrap();
    // Where nobody is answered, nobody knows better.
    assert_outcome!(board.reader().users().find(author.id).await, Err(StoreError::Unavailable(_)));
}

/// Of the idle connections that a restart of the server breaks, the first one that is met makes the others be tested; whoever met it
/// goes on with another.
async fn a_restart_costs_no_request(board: Board) {
    for what in [Work::Read, Work::Add, Work::Unit] {
        let Some((board, mut proxy)) = behind_a_line(&board).await else { return };
        let author = board.user().await;
        assert_good(&board, &author).await;
        all_given_back().await;
        proxy.set(Line::Cut).await;
        proxy.set(Line::Open).await;
        what.succeeds(&board, &author).await;
    }
}

/// As an administrator does, or a server that has waited for too long.
async fn connections_that_the_server_closes_cost_no_request(board: Board) {
    for what in [Work::Read, Work::Add, Work::Unit] {
        if board.server.is_sqlite() {
            return; // no server
        }
        let settings = DatabaseSettings { max_connections: CONNECTIONS, ..board.server.new_database().await };
        let board = board.on(&settings).await;
        let author = board.user().await;
        assert_good(&board, &author).await;
        all_given_back().await;
        let closed = board.server.close_connections(&settings).await;
        assert!(closed > UNITS as usize + 1, "of readers too: {closed}");
        what.succeeds(&board, &author).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Read,
    Add,
    Unit,
}

impl Work {
    /// As often as there are connections, so that each is met.
    async fn succeeds(self, board: &Board, author: &User) {
        for n in 0..CONNECTIONS {
            let done = match self {
                Self::Read => board.reader().users().find(author.id).await.map(|_| ()),
                Self::Add => add(board, author).await,
                Self::Unit => match board.store.begin().await {
                    Ok(unit) => fill(unit, author).await,
                    Err(error) => Err(error),
                },
            };
            done.unwrap_or_else(|error| panic!("{self:?} {n}: {error:?}"));
        }
    }
}

async fn connections_that_lead_nowhere_are_replaced(board: Board) {
    let Some((board, mut proxy)) = behind_a_line(&board).await else { return };
    let author = board.user().await;
    assert_good(&board, &author).await;
    all_given_back().await;
    proxy.strand().await;
    // Had they gone back to the pool, or been waited for, nobody would ever get one again.
    assert_good(&board, &author).await;
}

async fn closing_waits_for_a_database_that_hangs_no_longer_than_for_a_statement(board: Board) {
    let Some((board, mut proxy)) = behind_a_line(&board).await else { return };
    assert_good(&board, &board.user().await).await;
    proxy.set(Line::Frozen).await;
    let start = Instant::now();
    board.store.close().await;
    let took = start.elapsed();
    assert!(took < STATEMENT + SLACK, "{took:?}");
}

async fn refusal(settings: &DatabaseSettings) -> (ConnectError, Duration) {
    let start = Instant::now();
    let Err(StoreError::Unavailable(cause)) = connect(settings).await.map(|_| ()) else { panic!("connected") };
    let error = cause.downcast::<ConnectError>().expect("says why");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    (*error, start.elapsed())
}

async fn connecting_to_nothing_fails_fast_and_says_where(board: Board) {
    let Some((_, mut proxy)) = behind_a_line(&board).await else { return };
    proxy.set(Line::Cut).await;
    let settings = DatabaseSettings::new(format!("mysql://qna:s3cret@{}/qna", proxy.address));
    let (error, took) = refusal(&settings).await;
    assert!(matches!(error, ConnectError::Unreachable(..)), "{error}");
    assert!(error.to_string().contains(&proxy.address.to_string()), "{error}");
    assert!(took < SLACK, "{took:?}");
}

async fn connecting_to_silence_fails_within_the_connect_time_limit(board: Board) {
    let Some((_, mut proxy)) = behind_a_line(&board).await else { return };
    proxy.set(Line::Frozen).await;
    let mut settings = DatabaseSettings::new(format!("mysql://qna:s3cret@{}/qna", proxy.address));
    settings.connect_timeout = Duration::from_millis(300);
    let (error, took) = refusal(&settings).await;
    assert!(matches!(error, ConnectError::Unreachable(..)), "{error}");
    assert!(took < settings.connect_timeout + SLACK, "{took:?}");
}

/// The URL of a database on the server, as somebody might get it wrong.
async fn mistaken(board: &Board, mistake: impl FnOnce(&mut Url)) -> Option<DatabaseSettings> {
    if board.server.is_sqlite() {
        return None; // no user, no password
    }
    let mut url = Url::parse(&board.server.new_database().await.url).unwrap();
    mistake(&mut url);
    Some(DatabaseSettings::new(url))
}

async fn a_wrong_password_is_said_so_and_not_shown(board: Board) {
    let Some(settings) = mistaken(&board, |url| url.set_password(Some("s3cret")).unwrap()).await else { return };
    let (error, _) = refusal(&settings).await;
    assert!(matches!(error, ConnectError::Refused(..)), "{error}");
}

async fn a_missing_database_is_said_so(board: Board) {
    let Some(settings) = mistaken(&board, |url| url.set_path("mundap_test_is_not_there")).await else { return };
    let (error, _) = refusal(&settings).await;
    assert!(matches!(error, ConnectError::NoDatabase(..)), "{error}");
}

async fn a_file_that_is_no_database_is_said_so(board: Board) {
    if !board.server.is_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "not a database, but long enough to look like one ".repeat(100)).unwrap();
    for (path, below) in [(&file, false), (&folder.path().to_owned(), false), (&file.join("a.db"), true)] {
        let (error, took) = refusal(&DatabaseSettings::new(format!("sqlite://{}", path.display()))).await;
        assert_eq!(matches!(error, ConnectError::Folder(..)), below, "{error}");
        assert!(error.to_string().contains("notes.txt") || !below, "{error}");
        assert!(took < SLACK, "{took:?}");
    }
}
