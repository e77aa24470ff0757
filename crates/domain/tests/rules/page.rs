//! Pages and their cursors, by the use cases that hand them out.

use mockall::predicate::eq;
use mundap_domain::page::{CursorKey, Order, PageRequest, PageSize, Slice};
use mundap_domain::qna::{QnaId, QnaListing};
use mundap_domain::testing::{Board, Mocks, a_comment, a_qna, board};
use mundap_domain::user::UserId;
use mundap_domain::{Actor, Error};

use crate::stage::{Stage, code, member, unavailable};

fn size(n: i64) -> PageSize {
    PageSize::parse(n).expect("a size")
}

fn behind(n: i64, cursor: impl Into<String>) -> PageRequest {
    PageRequest { size: size(n), cursor: Some(cursor.into()) }
}

fn all(order: Order) -> QnaListing {
    QnaListing { author: None, order }
}

fn of(author: i64, order: Order) -> QnaListing {
    QnaListing { author: Some(UserId::new(author)), order }
}

/// The cursor behind QnA 8 in this list.
async fn a_cursor(listing: QnaListing) -> String {
    let mut mocks = Mocks::default();
    mocks.qnas.expect_list().returning(|_, _| Ok(vec![a_qna(8, 1), a_qna(7, 1)]));
    let page = board(mocks).services.qnas.list(&Actor::Anonymous, &listing, &PageRequest::first(size(1))).await;
    page.expect("a page").next.expect("a next page")
}

/// Lists on a board whose repositories expect no call.
async fn list(listing: QnaListing, cursor: &str) -> Result<(), Error> {
    let board = board(Mocks::default());
    board.services.qnas.list(&Actor::Anonymous, &listing, &behind(1, cursor)).await.map(drop)
}

#[tokio::test]
async fn a_list_asks_for_one_more_than_the_page_holds() {
    for (listing, n, limit) in [
        (all(Order::Newest), 1, 2),
        (all(Order::Oldest), 20, 21),
        (of(3, Order::Newest), 100, 101),
        (of(4, Order::Oldest), 2, 3),
    ] {
        let mut mocks = Mocks::default();
        let slice = Slice { after: None, order: listing.order, limit, bytes: Slice::ANY_SIZE };
        mocks.qnas.expect_list().with(eq(listing.author), eq(slice)).once().returning(|_, _| Ok(vec![]));
        let Board { services, store, .. } = board(mocks);
        let page = services.qnas.list(&member(1), &listing, &PageRequest::first(size(n))).await.unwrap();
        assert!(page.items.is_empty() && page.next.is_none());
        assert_eq!(store.begun(), 0, "a read opens no unit");
    }
}

#[tokio::test]
async fn a_cursor_leads_on_behind_the_last_item_of_its_page() {
    let mut mocks = Mocks::default();
    let first = Slice { after: None, order: Order::Newest, limit: 3, bytes: Slice::ANY_SIZE };
    let second = Slice { after: Some(8), order: Order::Newest, limit: 3, bytes: Slice::ANY_SIZE };
    let rows = |ids: &[i64]| ids.iter().map(|id| a_qna(*id, 1)).collect::<Vec<_>>();
    mocks.qnas.expect_list().with(eq(None), eq(first)).once().returning(move |_, _| Ok(rows(&[9, 8, 7])));
    mocks.qnas.expect_list().with(eq(None), eq(second)).once().returning(move |_, _| Ok(rows(&[7, 6])));
    let Board { services, .. } = board(mocks);

    let listing = all(Order::Newest);
    let page = services.qnas.list(&Actor::Anonymous, &listing, &PageRequest::first(size(2))).await.unwrap();
    assert_eq!(page.items, rows(&[9, 8]), "the extra item is kept back");
    let next = behind(2, page.next.unwrap());
    let page = services.qnas.list(&Actor::Anonymous, &listing, &next).await.unwrap();
    assert_eq!(page.items, rows(&[7, 6]));
    assert_eq!(page.next, None, "a page that is full and the last leads nowhere");
}

#[tokio::test]
async fn the_next_page_may_have_another_size() {
    let cursor = a_cursor(all(Order::Newest)).await;
    let mut mocks = Mocks::default();
    let slice = Slice { after: Some(8), order: Order::Newest, limit: 51, bytes: Slice::ANY_SIZE };
    mocks.qnas.expect_list().with(eq(None), eq(slice)).once().returning(|_, _| Ok(vec![]));
    let listed = board(mocks).services.qnas.list(&Actor::Anonymous, &all(Order::Newest), &behind(50, cursor)).await;
    assert_eq!(code(listed), "ok");
}

#[tokio::test]
async fn a_cursor_is_good_in_its_own_list_alone() {
    let lists =
        [all(Order::Newest), all(Order::Oldest), of(1, Order::Newest), of(1, Order::Oldest), of(11, Order::Newest)];
    for made_for in lists {
        let cursor = a_cursor(made_for).await;
        for used_in in lists.into_iter().filter(|list| *list != made_for) {
            assert_eq!(code(list(used_in, &cursor).await), "invalid_cursor", "{made_for:?} in {used_in:?}");
        }
    }
}

#[tokio::test]
async fn a_forged_cursor_is_refused_before_anything_is_read() {
    let good = a_cursor(all(Order::Newest)).await;
    let cut = &good[..good.len() - 1];
    let longer = format!("{good}A");
    let padded = format!("{good}=");
    let turned: String = good.chars().rev().collect();
    for bad in ["", "8", "한국어", "AAAAAAAAAAg", " ", "../..", cut, &longer, &padded, &turned] {
        assert_eq!(code(list(all(Order::Newest), bad).await), "invalid_cursor", "{bad:?}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_board_is_refused() {
    let (ours, theirs) = (CursorKey::new(&[7; 32]), CursorKey::new(&[8; 32]));
    let slice = ours.slice("qna", Order::Newest, &PageRequest::first(size(1))).unwrap();
    let cursor = |key: &CursorKey| key.page("qna", &slice, vec![8, 7], |n| *n).next.unwrap();
    assert_eq!(cursor(&ours), a_cursor(all(Order::Newest)).await, "the board holds our key");
    assert_eq!(code(list(all(Order::Newest), &cursor(&theirs)).await), "invalid_cursor");
}

#[tokio::test]
async fn comments_are_listed_oldest_first_and_their_cursor_leads_on() {
    let mut mocks = Mocks::default();
    let first = Slice { after: None, order: Order::Oldest, limit: 2, bytes: Slice::ANY_SIZE };
    let second = Slice { after: Some(1), order: Order::Oldest, limit: 2, bytes: Slice::ANY_SIZE };
    let qna = QnaId::new(7);
    mocks
        .comments
        .expect_list()
        .with(eq(qna), eq(first))
        .once()
        .returning(|_, _| Ok(vec![a_comment(1, 7, 1), a_comment(2, 7, 1)]));
    mocks.comments.expect_list().with(eq(qna), eq(second)).once().returning(|_, _| Ok(vec![a_comment(2, 7, 1)]));
    let Board { services, store, .. } = board(mocks);

    let page = services.comments.list(&Actor::Anonymous, qna, &PageRequest::first(size(1))).await.unwrap();
    assert_eq!(page.items, [a_comment(1, 7, 1)]);
    let page = services.comments.list(&Actor::Anonymous, qna, &behind(1, page.next.unwrap())).await.unwrap();
    assert_eq!((page.items, page.next), (vec![a_comment(2, 7, 1)], None));
    assert_eq!(store.begun(), 0, "a read opens no unit");
}

#[tokio::test]
async fn a_cursor_of_one_thread_is_refused_in_another() {
    let mut mocks = Mocks::default();
    mocks.comments.expect_list().once().returning(|_, _| Ok(vec![a_comment(1, 7, 1), a_comment(2, 7, 1)]));
    let Board { services, .. } = board(mocks);
    let page = services.comments.list(&Actor::Anonymous, QnaId::new(7), &PageRequest::first(size(1))).await.unwrap();
    let cursor = page.next.unwrap();
    let elsewhere = services.comments.list(&Actor::Anonymous, QnaId::new(8), &behind(1, cursor.clone())).await;
    assert_eq!(code(elsewhere), "invalid_cursor");
    let questions = services.qnas.list(&Actor::Anonymous, &all(Order::Oldest), &behind(1, cursor)).await;
    assert_eq!(code(questions), "invalid_cursor");
}

#[tokio::test]
async fn an_empty_thread_is_told_from_one_that_is_not_there() {
    for (there, outcome) in [(true, "ok"), (false, "qna_not_found")] {
        let mut mocks = Mocks::default();
        mocks.comments.expect_list().once().returning(|_, _| Ok(vec![]));
        mocks.qnas.expect_find().with(eq(QnaId::new(7))).once().returning(move |_| Ok(there.then(|| a_qna(7, 1))));
        let Board { services, store, .. } = board(mocks);
        let listed = services.comments.list(&Actor::Anonymous, QnaId::new(7), &PageRequest::first(size(1))).await;
        assert_eq!(code(listed), outcome);
        assert_eq!(store.begun(), 0, "a read opens no unit");
    }
}

#[tokio::test]
async fn a_question_comes_with_its_first_comments() {
    let mut stage = Stage::default();
    let qna = QnaId::new(7);
    let slice = Slice { after: None, order: Order::Oldest, limit: 3, bytes: Slice::ANY_SIZE };
    stage.outside.qnas.expect_find().with(eq(qna)).once().returning(|_| Ok(Some(a_qna(7, 1))));
    stage
        .outside
        .comments
        .expect_list()
        .with(eq(qna), eq(slice))
        .once()
        .returning(|_, _| Ok(vec![a_comment(1, 7, 1), a_comment(2, 7, 2), a_comment(3, 7, 3)]));
    let second = Slice { after: Some(2), ..slice };
    stage
        .outside
        .comments
        .expect_list()
        .with(eq(qna), eq(second))
        .once()
        .returning(|_, _| Ok(vec![a_comment(3, 7, 3)]));
    let services = stage.services();

    let (read, page) = services.qnas.read_with_comments(&Actor::Anonymous, qna, size(2)).await.unwrap();
    assert_eq!(read, a_qna(7, 1));
    assert_eq!(page.items, [a_comment(1, 7, 1), a_comment(2, 7, 2)]);
    let rest = services.comments.list(&Actor::Anonymous, qna, &behind(2, page.next.unwrap())).await.unwrap();
    assert_eq!(rest.items, [a_comment(3, 7, 3)], "its cursor is one of the comments' own list");
}

#[tokio::test]
async fn a_question_that_is_not_there_comes_without_comments() {
    for comments in [|| Ok(vec![]), || Err(unavailable())] {
        let mut mocks = Mocks::default();
        mocks.qnas.expect_find().once().returning(|_| Ok(None));
        mocks.comments.expect_list().returning(move |_, _| comments());
        let read = board(mocks).services.qnas.read_with_comments(&Actor::Anonymous, QnaId::new(7), size(2)).await;
        assert_eq!(code(read), "qna_not_found");
    }
}

#[tokio::test]
async fn a_question_without_comments_has_an_empty_page() {
    let mut mocks = Mocks::default();
    mocks.qnas.expect_find().once().returning(|_| Ok(Some(a_qna(7, 1))));
    mocks.comments.expect_list().once().returning(|_, _| Ok(vec![]));
    let (_, page) =
        board(mocks).services.qnas.read_with_comments(&Actor::Anonymous, QnaId::new(7), size(2)).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_none());
}

#[tokio::test]
async fn a_walk_goes_piece_by_piece_to_its_end() {
    let mut mocks = Mocks::default();
    let first = Slice::walk();
    let second = Slice { after: Some(43), limit: 4, ..first };
    let last = Slice { after: Some(44), limit: 2, ..first };
    for (piece, found) in [(first, vec![a_qna(42, 1), a_qna(43, 1)]), (second, vec![a_qna(44, 1)]), (last, vec![])] {
        mocks.qnas.expect_list().with(eq(None), eq(piece)).once().returning(move |_, _| Ok(found.clone()));
    }
    let Board { services, store, .. } = board(mocks);
    let read = services.qnas.piece(&Actor::Anonymous, first).await.unwrap();
    assert_eq!(read, Some((vec![a_qna(42, 1), a_qna(43, 1)], second)));
    assert_eq!(services.qnas.piece(&Actor::Anonymous, second).await.unwrap(), Some((vec![a_qna(44, 1)], last)));
    assert_eq!(services.qnas.piece(&Actor::Anonymous, last).await.unwrap(), None);
    assert_eq!(store.begun(), 0, "a read opens no unit");
}

#[test]
fn an_order_has_one_name() {
    for order in [Order::Newest, Order::Oldest] {
        assert_eq!(Order::parse(order.name()), Ok(order));
    }
    assert_eq!(Order::NAMES, ["newest", "oldest"]);
    for bad in ["", "Newest", "asc"] {
        assert_eq!(Order::parse(bad).unwrap_err().code(), "not_one_of", "{bad:?}");
    }
}

#[test]
fn a_page_holds_1_to_100_and_20_unless_told() {
    assert_eq!(PageSize::DEFAULT.get(), 20);
    for (n, good) in [(i64::MIN, false), (0, false), (1, true), (100, true), (101, false), (257, false)] {
        match PageSize::parse(n) {
            Ok(size) => assert!(good && i64::try_from(size.get()) == Ok(n), "{n}"),
            Err(rule) => assert!(!good && rule.code() == "out_of_range", "{n}"),
        }
    }
}
