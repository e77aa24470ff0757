//! Units that lose at their commit: a node of a Galera cluster refuses one there, where another node has committed
//! something else meanwhile. No server does that on demand, so a line to one does it.

use std::sync::Arc;

use mundap_domain::comment::CommentDraft;
use mundap_domain::env::RETRIES;
use mundap_domain::event::Event;
use mundap_domain::idempotency::{IdempotencyKey, Outcome};
use mundap_domain::qna::{QnaDraft, QnaEdit};
use mundap_domain::testing::{FixedClock, Heard, ports};
use mundap_domain::version::Expected;
use mundap_domain::{Actor, Error, Ports, Services};
use mundap_infra::DatabaseSettings;
use sea_orm::{ConnectionTrait as _, Statement};
use url::Url;

use crate::board::{Board, assert_outcome};
use crate::proxy::Proxy;

crate::tests![
    a_unit_that_loses_at_its_commit_is_done_again_as_a_whole,
    a_unit_that_loses_time_and_again_is_busy_and_leaves_nothing,
    a_commit_of_which_nobody_knows_is_not_done_again,
];

/// What Galera says of a transaction that lost: it was rolled back.
const LOST: [u16; 2] = [1213, 1020];

/// The use cases over a database whose commits are refused on demand.
struct Cluster {
    board: Board,
    proxy: Proxy,
    services: Services,
    clock: Arc<FixedClock>,
    events: Arc<Heard>,
    author: Actor,
}

impl Cluster {
    /// None on SQLite, which has no line and is no cluster.
    async fn of(board: &Board) -> Option<Self> {
        if board.server.is_sqlite() {
            return None;
        }
        let settings = board.server.new_database().await;
        let mut url = Url::parse(&settings.url).unwrap();
        let proxy = Proxy::to(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(3306))).await;
        url.set_ip_host(proxy.address.ip()).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
        // What it is to answer itself it must be able to read.
        url.query_pairs_mut().append_pair("ssl-mode", "DISABLED");
        let board = board.on(&DatabaseSettings { url: url.to_string(), ..settings }).await;
        let (clock, events) = (Arc::new(FixedClock::default()), Arc::new(Heard::default()));
        let services = Services::new(&Ports {
            events: events.clone(),
            clock: clock.clone(),
            ..ports(Arc::new(board.store.clone()))
        });
        let author = Actor::Account(Box::new(board.user().await));
        Some(Self { board, proxy, services, clock, events, author })
    }

    async fn count(&self, table: &str) -> i64 {
        let db = self.board.writer();
        let sql = format!("SELECT COUNT(*) FROM {table}");
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
        row.unwrap().try_get_by_index(0).unwrap()
    }
}

fn key(name: &str) -> IdempotencyKey {
    IdempotencyKey::parse(name).unwrap()
}

async fn a_unit_that_loses_at_its_commit_is_done_again_as_a_whole(board: Board) {
    let Some(cluster) = Cluster::of(&board).await else { return };
    let (by, qnas) = (&cluster.author, &cluster.services.qnas);
    let draft = QnaDraft::parse(Some("Who was first?"), Some("")).unwrap();
    cluster.proxy.refuse_commits(&LOST);
    let asked = qnas.ask(by, &draft, Some(&key("ask"))).await.unwrap();
    assert!(matches!(asked, Outcome::Fresh(_)), "the tries that lost left no receipt");
    let qna = asked.into_inner();
    let replayed = qnas.ask(by, &draft, Some(&key("ask"))).await.unwrap();
    assert!(matches!(&replayed, Outcome::Replayed(again) if *again == qna), "{replayed:?}");
    assert_eq!((cluster.count("qna").await, cluster.count("receipt").await), (1, 1));

    // What is counted is counted once, and an edit is one version more.
    cluster.proxy.refuse_commits(&LOST);
    let draft = CommentDraft::parse(Some("Nobody knows.")).unwrap();
    cluster.services.comments.write(by, qna.id, &draft, None).await.unwrap();
    cluster.proxy.refuse_commits(&LOST);
    let edit = QnaEdit::parse(Some("Who was it?"), None).unwrap();
    let expected = Expected::OneOf(vec![qna.version]);
    let edited = qnas.edit(by, qna.id, &edit, &expected).await.unwrap();
    assert_eq!((edited.comment_count, edited.version.get()), (1, qna.version.get() + 1));
    assert_eq!(qnas.read(by, qna.id).await.unwrap(), edited);

    assert_eq!(cluster.proxy.to_be_refused(), 0);
    assert_eq!(cluster.clock.pauses(), 6, "each that lost was paused for, and none else");
    assert_eq!(cluster.events.events(), [Event::Asked, Event::Replayed, Event::Commented, Event::QnaEdited]);
}

async fn a_unit_that_loses_time_and_again_is_busy_and_leaves_nothing(board: Board) {
    let Some(cluster) = Cluster::of(&board).await else { return };
    let (by, qnas) = (&cluster.author, &cluster.services.qnas);
    let draft = QnaDraft::parse(Some("Who is first?"), Some("")).unwrap();
    let tries = usize::try_from(RETRIES).unwrap() + 1;
    cluster.proxy.refuse_commits(&vec![1213; tries]);
    assert_outcome!(qnas.ask(by, &draft, Some(&key("ask"))).await, Err(Error::Busy(_)));
    assert_eq!((cluster.proxy.to_be_refused(), cluster.clock.pauses()), (0, RETRIES));
    assert_eq!((cluster.count("qna").await, cluster.count("receipt").await), (0, 0));
    assert_eq!(cluster.events.events(), []);
    // And with the same key it is done, once there is room.
    assert_outcome!(qnas.ask(by, &draft, Some(&key("ask"))).await, Ok(Outcome::Fresh(_)));
}

/// It may have taken place: only who asked knows a key by which it would be found.
async fn a_commit_of_which_nobody_knows_is_not_done_again(board: Board) {
    let Some(cluster) = Cluster::of(&board).await else { return };
    let (by, qnas) = (&cluster.author, &cluster.services.qnas);
    let draft = QnaDraft::parse(Some("Was it?"), Some("")).unwrap();
    for error in [1047, 1180] {
        cluster.proxy.refuse_commits(&[error]);
        assert_outcome!(qnas.ask(by, &draft, None).await, Err(Error::Unavailable(_)));
        assert_eq!((cluster.proxy.to_be_refused(), cluster.clock.pauses()), (0, 0), "{error}");
    }
    assert_eq!(cluster.events.events(), []);
    assert_outcome!(qnas.ask(by, &draft, None).await, Ok(Outcome::Fresh(_)));
}
