//! `QnaRepository`.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{join, join_all};
use mundap_domain::StoreError;
use mundap_domain::page::{Order, Slice};
use mundap_domain::qna::{Content, NewQna, Qna, QnaId, QnaRecord, Title};
use mundap_domain::testing::noon;
use mundap_domain::user::{Author, UserId};
use mundap_domain::version::Version;

use crate::board::{Board, NOBODY, assert_outcome, at, new_qna, slice, times};

crate::tests![
    insert_returns_the_whole_entity,
    insert_by_an_unknown_author_is_missing_reference,
    find_of_an_unknown_id_is_none,
    find_of_many_at_once_finds_each_its_own,
    find_locked_keeps_the_row_from_changing_until_the_unit_ends,
    find_locked_leaves_the_author_free,
    find_locked_by_the_reader_waits_for_nobody,
    find_locked_sees_what_was_committed_last,
    list_is_in_the_slice_s_order_by_id,
    list_holds_nothing_at_or_before_after,
    list_holds_at_most_limit_items,
    list_ends_where_its_items_come_to_bytes_with_one_item_at_least,
    list_by_author_holds_that_author_s_alone,
    list_holds_what_was_committed_before_it_was_asked_for_also_where_many_ask,
    list_of_pages_behind_many_rows_at_once_holds_each_its_own,
    a_walk_meets_each_item_that_lives_throughout_exactly_once,
    update_stores_what_changed,
    update_is_stale_unless_the_stored_version_is_the_one_before,
    update_leaves_comment_count_alone,
    of_parallel_updates_of_one_version_exactly_one_wins,
    delete_removes_it_with_all_that_belongs_to_it,
    delete_is_stale_unless_it_is_there_in_this_version,
    count_comments_adds_and_is_false_for_an_unknown_id,
    count_comments_loses_no_update_in_parallel_units,
    count_comments_keeps_the_row_from_changing_until_the_unit_ends,
    text_of_any_script_and_length_comes_back,
    times_come_back_to_the_microsecond,
    ids_are_never_given_twice,
    a_deleted_author_is_an_id_alone,
    a_row_that_breaks_a_rule_is_corrupt,
];

/// What is stored, and is the same however it is read: by itself, and in a list with its author or while that is remembered.
async fn stored(board: &Board, id: QnaId) -> Qna {
    let found = board.reader().qnas().find(id).await.unwrap().unwrap();
    for order in [Order::Oldest, Order::Newest] {
        let next = if order == Order::Oldest { id.get() - 1 } else { id.get() + 1 };
        let listed = board.reader().qnas().list(None, &slice(order, Some(next), 1)).await.unwrap();
        assert_eq!(listed.as_slice(), std::slice::from_ref(&found));
    }
    found
}

/// The same QnA, edited.
fn edited(qna: &Qna, title: &str) -> Qna {
    Qna::restore(QnaRecord {
        title: Title::parse(title).unwrap(),
        content: Content::parse("edited").unwrap(),
        updated_at: at("2026-02-03T04:05:06.000007Z"),
        version: qna.version.next(),
        ..(**qna).clone()
    })
}

async fn insert_returns_the_whole_entity(board: Board) {
    let user = board.user().await;
    let new = new_qna(&user);
    let qna = board.unit(async |unit| unit.qnas().insert(&new).await).await.unwrap();
    let NewQna { author, title, content, created_at } = new;
    let expected = QnaRecord {
        id: qna.id,
        author,
        title,
        content,
        comment_count: 0,
        created_at,
        updated_at: created_at,
        version: Version::FIRST,
    };
    assert_eq!(*qna, expected);
    assert_eq!(stored(&board, qna.id).await, qna);
}

async fn insert_by_an_unknown_author_is_missing_reference(board: Board) {
    let mut new = new_qna(&board.user().await);
    new.author.id = NOBODY;
    let outcome = board.unit(async |unit| unit.qnas().insert(&new).await).await;
    assert_outcome!(outcome, Err(StoreError::MissingReference(_)));
}

async fn find_of_many_at_once_finds_each_its_own(board: Board) {
    let user = board.user().await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(board.qna(&user).await.id);
    }
    // Some twice, and some that are not there.
    let nobody = (1..).map(|n| QnaId::new(-n));
    let asked: Vec<QnaId> = ids
        .iter()
        .cycle()
        .zip(nobody)
        .take(100)
        .zip(0..)
        .map(|((id, no), n)| if n % 7 == 3 { no } else { *id })
        .collect();
    let qnas = board.reader().qnas();
    let found = join_all(asked.iter().map(|id| qnas.find(*id))).await;
    for (id, found) in asked.iter().zip(found) {
        assert_eq!(found.unwrap().map(|qna| qna.id), ids.contains(id).then_some(*id));
    }
}

async fn find_of_an_unknown_id_is_none(board: Board) {
    for id in [0, -1, 1 << 52, i64::MAX, i64::MIN] {
        let id = QnaId::new(id);
        assert_eq!(board.reader().qnas().find(id).await.unwrap(), None);
        assert_eq!(board.unit(async |unit| unit.qnas().find_locked(id).await).await.unwrap(), None);
    }
}

async fn find_locked_keeps_the_row_from_changing_until_the_unit_ends(board: Board) {
    let qna = board.qna(&board.user().await).await;
    let unit = board.begin().await;
    assert_eq!(unit.qnas().find_locked(qna.id).await.unwrap().as_ref(), Some(&qna));
    board.assert_blocked(async |unit| unit.qnas().update(&edited(&qna, "in between")).await).await;
    board.assert_blocked(async |unit| unit.qnas().find_locked(qna.id).await).await;
    unit.commit().await.unwrap();
    board.unit(async |unit| unit.qnas().update(&edited(&qna, "afterwards")).await).await.unwrap();
}

async fn find_locked_leaves_the_author_free(board: Board) {
    if board.server.is_sqlite() {
        return; // one writer at a time
    }
    let user = board.user().await;
    let qna = board.qna(&user).await;
    let unit = board.begin().await;
    unit.qnas().find_locked(qna.id).await.unwrap().unwrap();
    board.unit(async |unit| unit.users().find_locked(user.id).await).await.unwrap().unwrap();
    board.qna(&user).await;
}

async fn find_locked_by_the_reader_waits_for_nobody(board: Board) {
    let qna = board.qna(&board.user().await).await;
    let unit = board.begin().await;
    unit.qnas().find_locked(qna.id).await.unwrap().unwrap();
    assert_eq!(board.reader().qnas().find_locked(qna.id).await.unwrap(), Some(qna));
}

async fn find_locked_sees_what_was_committed_last(board: Board) {
    if board.server.is_sqlite() {
        return; // nobody else commits while a unit is open
    }
    let qna = board.qna(&board.user().await).await;
    let unit = board.begin().await;
    // A snapshot, if there were one, would be of now.
    assert_eq!(unit.qnas().find(qna.id).await.unwrap().as_ref(), Some(&qna));
    let newer = edited(&qna, "newer");
    board.unit(async |unit| unit.qnas().update(&newer).await).await.unwrap();
    assert_eq!(unit.qnas().find_locked(qna.id).await.unwrap(), Some(newer));
}

/// Five QnAs of an author of their own.
async fn five(board: &Board) -> (UserId, Vec<QnaId>) {
    let user = board.user().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(board.qna(&user).await.id);
    }
    (user.id, ids)
}

async fn list(board: &Board, author: UserId, order: Order, after: Option<QnaId>, limit: u64) -> Vec<QnaId> {
    let slice = slice(order, after.map(QnaId::get), limit);
    let qnas = board.reader().qnas().list(Some(author), &slice).await.unwrap();
    qnas.iter().map(|qna| qna.id).collect()
}

async fn list_is_in_the_slice_s_order_by_id(board: Board) {
    let (author, ids) = five(&board).await;
    assert!(ids.is_sorted(), "ids grow with time");
    assert_eq!(list(&board, author, Order::Oldest, None, 10).await, ids);
    let reversed: Vec<QnaId> = ids.iter().rev().copied().collect();
    assert_eq!(list(&board, author, Order::Newest, None, 10).await, reversed);
    let whole = board.reader().qnas().list(Some(author), &slice(Order::Oldest, None, 1)).await.unwrap();
    assert_eq!(whole, [stored(&board, ids[0]).await], "a list holds whole entities");
}

async fn list_holds_nothing_at_or_before_after(board: Board) {
    let (author, ids) = five(&board).await;
    assert_eq!(list(&board, author, Order::Oldest, Some(ids[1]), 10).await, ids[2..]);
    assert_eq!(list(&board, author, Order::Newest, Some(ids[1]), 10).await, ids[..1]);
    assert_eq!(list(&board, author, Order::Oldest, Some(ids[4]), 10).await, []);
    assert_eq!(list(&board, author, Order::Newest, Some(ids[0]), 10).await, []);
}

async fn list_holds_at_most_limit_items(board: Board) {
    let (author, ids) = five(&board).await;
    assert_eq!(list(&board, author, Order::Oldest, None, 2).await, ids[..2]);
    assert_eq!(list(&board, author, Order::Oldest, Some(ids[1]), 2).await, ids[2..4]);
    assert_eq!(list(&board, author, Order::Newest, None, 1).await, ids[4..]);
    assert_eq!(list(&board, author, Order::Oldest, None, 5).await, ids);
}

async fn list_ends_where_its_items_come_to_bytes_with_one_item_at_least(board: Board) {
    let user = board.user().await;
    let title = Title::parse("Title").unwrap();
    let content = Content::parse("말".repeat(1_000).as_str()).unwrap();
    for _ in 0..4 {
        let new = NewQna { title: title.clone(), content: content.clone(), ..new_qna(&user) };
        board.unit(async |unit| unit.qnas().insert(&new).await).await.unwrap();
    }
    let size = "Title".len() + 3_000;
    for (bytes, count) in [(0, 1), (1, 1), (size, 1), (size + 1, 2), (2 * size + 1, 3), (Slice::ANY_SIZE, 4)] {
        let slice = Slice { bytes, ..slice(Order::Oldest, None, 4) };
        let listed = board.reader().qnas().list(Some(user.id), &slice).await.unwrap();
        assert_eq!(listed.len(), count, "{bytes} bytes");
        // Of the same connection more is asked: what was left unread of the rows before is in nobody's way.
        let (first, then) = board
            .unit(async |unit| {
                let first = unit.qnas().list(Some(user.id), &slice).await?;
                Ok((first, unit.qnas().find(listed[0].id).await?))
            })
            .await
            .unwrap();
        assert_eq!((first, then.as_ref()), (listed.clone(), listed.first()));
    }
}

async fn list_holds_what_was_committed_before_it_was_asked_for_also_where_many_ask(board: Board) {
    let user = board.user().await;
    let done = AtomicBool::new(false);
    let read = || list(&board, user.id, Order::Newest, None, 3);
    let others = join_all((0..8).map(async |_| {
        let mut lists = 0;
        while !done.load(Ordering::Relaxed) {
            read().await;
            lists += 1;
        }
        lists
    }));
    let writer = async {
        let mut newest = Vec::new();
        for _ in 0..30 {
            newest.insert(0, board.qna(&user).await.id);
            newest.truncate(3);
            assert_eq!(join_all([read(), read()]).await, [newest.clone(), newest.clone()]);
        }
        done.store(true, Ordering::Relaxed);
    };
    let (lists, ()) = join(others, writer).await;
    assert!(lists.iter().all(|lists| *lists > 0), "{lists:?}");
}

async fn list_of_pages_behind_many_rows_at_once_holds_each_its_own(board: Board) {
    let board = board.own_with(|_| {}).await;
    let (user, reader) = (board.user().await, board.reader());
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(board.qna(&user).await.id.get());
    }
    let (first, last) = (ids[0], ids[59]);
    let page = async |order, after, limit| {
        let listed = reader.qnas().list(None, &slice(order, Some(after), limit)).await.unwrap();
        assert!(listed.iter().all(|qna| qna.author.display_name.is_some()), "with its author");
        listed.into_iter().map(|qna| qna.id.get()).collect::<Vec<_>>()
    };
    let expected = |ids: &[i64], order, after: i64, limit: usize| -> Vec<i64> {
        match order {
            Order::Newest => ids.iter().rev().copied().filter(|id| *id < after).take(limit).collect(),
            Order::Oldest => ids.iter().copied().filter(|id| *id > after).take(limit).collect(),
        }
    };
    // While none is missing, and with more and longer gaps from one time to the next.
    for gone in [0..0, 5..6, 20..45, 8..15, 0..4, 56..60] {
        for id in gone {
            let id = QnaId::new(first + (last - first) * id / 59);
            if let Some(qna) = reader.qnas().find(id).await.unwrap() {
                board.unit(async |unit| unit.qnas().delete(id, qna.version).await).await.unwrap();
                ids.retain(|kept| *kept != id.get());
            }
        }
        let pages = (first - 2..last + 3).flat_map(|after| {
            [(Order::Newest, 4), (Order::Oldest, 4), (Order::Newest, 21), (Order::Oldest, 1), (Order::Newest, 101)]
                .map(|(order, limit)| (order, after, limit))
        });
        let pages: Vec<_> = pages.chain([(Order::Newest, last, 4), (Order::Newest, last, 4)]).collect();
        // Authors come along at first, and are remembered then.
        for _ in 0..2 {
            let listed = join_all(pages.iter().map(|(order, after, limit)| page(*order, *after, *limit)));
            for ((order, after, limit), listed) in pages.iter().zip(listed.await) {
                let expected = expected(&ids, *order, *after, usize::try_from(*limit).unwrap());
                assert_eq!(listed, expected, "{limit} behind {after}, {order:?}");
            }
        }
    }
}

async fn list_by_author_holds_that_author_s_alone(board: Board) {
    let ((one, ones), (other, others)) = (five(&board).await, five(&board).await);
    assert_eq!(list(&board, one, Order::Oldest, None, 100).await, ones);
    assert_eq!(list(&board, other, Order::Oldest, None, 100).await, others);
    assert_eq!(list(&board, NOBODY, Order::Oldest, None, 100).await, []);
}

async fn a_walk_meets_each_item_that_lives_throughout_exactly_once(board: Board) {
    let (_, ids) = five(&board).await;
    for order in [Order::Oldest, Order::Newest] {
        let (mut met, mut after) = (Vec::new(), None);
        loop {
            // Others write to the same list meanwhile.
            let page = board.reader().qnas().list(None, &slice(order, after, 3)).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id.get());
            met.extend(page.iter().map(|qna| qna.id));
            if order == Order::Newest && met.last() < ids.first() {
                break;
            }
        }
        let sorted = met.is_sorted_by(|a, b| if order == Order::Oldest { a < b } else { a > b });
        assert!(sorted, "in order, and none twice");
        assert!(ids.iter().all(|id| met.contains(id)));
    }
}

async fn update_stores_what_changed(board: Board) {
    let qna = board.qna(&board.user().await).await;
    let newer = edited(&qna, "edited");
    board.unit(async |unit| unit.qnas().update(&newer).await).await.unwrap();
    assert_eq!(stored(&board, qna.id).await, newer);
}

async fn update_is_stale_unless_the_stored_version_is_the_one_before(board: Board) {
    let qna = board.qna(&board.user().await).await;
    let second = edited(&qna, "second");
    let third = edited(&second, "third");
    let update = async |qna: &Qna| board.unit(async |unit| unit.qnas().update(qna).await).await;
    assert_outcome!(update(&third).await, Err(StoreError::Stale));
    assert_outcome!(update(&qna).await, Err(StoreError::Stale));
    update(&second).await.unwrap();
    assert_outcome!(update(&second).await, Err(StoreError::Stale));
    update(&third).await.unwrap();
    assert_eq!(stored(&board, qna.id).await, third);
    let unknown = Qna::restore(QnaRecord { id: QnaId::new(1 << 52), ..(*third).clone() });
    assert_outcome!(update(&unknown).await, Err(StoreError::Stale));
}

async fn update_leaves_comment_count_alone(board: Board) {
    let user = board.user().await;
    let qna = board.qna(&user).await;
    board.comment(qna.id, &user).await;
    // Read before the comment came, and so with a count of 0.
    board.unit(async |unit| unit.qnas().update(&edited(&qna, "edited")).await).await.unwrap();
    assert_eq!(stored(&board, qna.id).await.comment_count, 1);
}

async fn of_parallel_updates_of_one_version_exactly_one_wins(board: Board) {
    let qna = board.qna(&board.user().await).await;
    let outcomes = join_all((0..20).map(|n| {
        let (board, newer) = (board.clone(), edited(&qna, &format!("number {n}")));
        async move { (board.unit(async |unit| unit.qnas().update(&newer).await).await, newer) }
    }));
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.await.into_iter().partition(|(outcome, _)| outcome.is_ok());
    assert_eq!(won.len(), 1);
    for (outcome, _) in lost {
        assert_outcome!(outcome, Err(StoreError::Stale));
    }
    assert_eq!(stored(&board, qna.id).await, won[0].1);
}

async fn delete_removes_it_with_all_that_belongs_to_it(board: Board) {
    let user = board.user().await;
    let (qna, other) = (board.qna(&user).await, board.qna(&user).await);
    let (comment, kept) = (board.comment(qna.id, &user).await, board.comment(other.id, &user).await);
    board.unit(async |unit| unit.qnas().delete(qna.id, qna.version).await).await.unwrap();
    assert_eq!(board.reader().qnas().find(qna.id).await.unwrap(), None);
    assert_eq!(board.reader().comments().find(comment.id).await.unwrap(), None);
    assert_eq!(board.reader().comments().find(kept.id).await.unwrap(), Some(kept));
}

async fn delete_is_stale_unless_it_is_there_in_this_version(board: Board) {
    let qna = board.qna(&board.user().await).await;
    let delete = async |id, version| board.unit(async |unit| unit.qnas().delete(id, version).await).await;
    assert_outcome!(delete(qna.id, qna.version.next()).await, Err(StoreError::Stale));
    assert_outcome!(delete(qna.id, qna.version.previous()).await, Err(StoreError::Stale));
    assert_eq!(stored(&board, qna.id).await, qna);
    delete(qna.id, qna.version).await.unwrap();
    assert_outcome!(delete(qna.id, qna.version).await, Err(StoreError::Stale));
}

async fn count_comments_adds_and_is_false_for_an_unknown_id(board: Board) {
    let qna = board.qna(&board.user().await).await;
    for (by, count) in [(1, 1), (2, 3), (-1, 2)] {
        assert!(board.unit(async |unit| unit.qnas().count_comments(qna.id, by).await).await.unwrap());
        let expected = Qna::restore(QnaRecord { comment_count: count, ..(*qna).clone() });
        assert_eq!(stored(&board, qna.id).await, expected, "a count is no edit: neither time nor version");
    }
    assert!(!board.unit(async |unit| unit.qnas().count_comments(QnaId::new(1 << 52), 1).await).await.unwrap());
}

async fn count_comments_loses_no_update_in_parallel_units(board: Board) {
    let user = board.user().await;
    let qna = board.qna(&user).await;
    join_all((0..20).map(|_| board.comment(qna.id, &user))).await;
    let comments = board.reader().comments().list(qna.id, &slice(Order::Oldest, None, 100)).await.unwrap();
    assert_eq!(comments.len(), 20);
    assert_eq!(stored(&board, qna.id).await.comment_count, 20);
}

async fn count_comments_keeps_the_row_from_changing_until_the_unit_ends(board: Board) {
    let qna = board.qna(&board.user().await).await;
    let unit = board.begin().await;
    assert!(unit.qnas().count_comments(qna.id, 1).await.unwrap());
    board.assert_blocked(async |unit| unit.qnas().delete(qna.id, qna.version).await).await;
    assert_eq!(stored(&board, qna.id).await.comment_count, 0, "not committed yet");
    unit.commit().await.unwrap();
    assert_eq!(stored(&board, qna.id).await.comment_count, 1);
}

async fn text_of_any_script_and_length_comes_back(board: Board) {
    let user = board.user().await;
    for (title, content) in [
        ("각".repeat(Title::MAX), "힣".repeat(Content::MAX)),
        ("😀".repeat(Title::MAX), "👩‍👩‍👧‍👦🏳️‍🌈\u{10FFFF}".to_owned()),
        ("a".to_owned(), "😀".repeat(Content::MAX)),
        ("trailing space ".to_owned(), String::new()),
        (" leading, 'quotes' \"and\" \\ % _ ; -- ".to_owned(), "line\n\ttab\n\n  ".to_owned()),
        ("مرحبا שלום ไทย".to_owned(), "e\u{301}\u{323} is put in NFC".to_owned()),
    ] {
        let new = NewQna {
            title: Title::parse(&title).unwrap(),
            content: Content::parse(&content).unwrap(),
            ..new_qna(&user)
        };
        let qna = board.unit(async |unit| unit.qnas().insert(&new).await).await.unwrap();
        assert_eq!(stored(&board, qna.id).await, qna);
    }
}

async fn times_come_back_to_the_microsecond(board: Board) {
    let user = board.user().await;
    for time in times() {
        let new = NewQna { created_at: time, ..new_qna(&user) };
        let qna = board.unit(async |unit| unit.qnas().insert(&new).await).await.unwrap();
        let newer = Qna::restore(QnaRecord { updated_at: time, ..(*edited(&qna, "edited")).clone() });
        board.unit(async |unit| unit.qnas().update(&newer).await).await.unwrap();
        let stored = stored(&board, qna.id).await;
        assert_eq!((stored.created_at, stored.updated_at), (time, time));
    }
}

async fn ids_are_never_given_twice(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    let (first, second) = (board.qna(&user).await, board.qna(&user).await);
    board.unit(async |unit| unit.qnas().delete(second.id, second.version).await).await.unwrap();
    board.unit(async |unit| unit.qnas().delete(first.id, first.version).await).await.unwrap();
    assert!(board.qna(&user).await.id > second.id);
}

async fn a_deleted_author_is_an_id_alone(board: Board) {
    let user = board.user().await;
    let qna = board.qna(&user).await;
    board.unit(async |unit| unit.users().erase(user.id, noon()).await).await.unwrap();
    let deleted = Author { id: user.id, display_name: None, email: None };
    assert_eq!(stored(&board, qna.id).await.author, deleted);
    let listed = board.reader().qnas().list(Some(user.id), &slice(Order::Newest, None, 1)).await.unwrap();
    assert_eq!(listed[0].author, deleted);
}

async fn a_row_that_breaks_a_rule_is_corrupt(board: Board) {
    let board = board.own().await;
    let (user, other) = (board.user().await, board.user().await);
    let qna = board.qna(&user).await;
    for (breaks, mends) in [
        ("UPDATE qna SET title = ''", "UPDATE qna SET title = 'title'"),
        ("UPDATE qna SET title = '   '", "UPDATE qna SET title = 'title'"),
        ("UPDATE users SET email = 'rubbish'", "UPDATE users SET email = NULL WHERE user_id = 1"),
        ("UPDATE users SET display_name = ''", "UPDATE users SET display_name = NULL"),
    ] {
        board.sql(breaks).await;
        // What was read of authors before another account's change is forgotten.
        board.unit(async |unit| unit.users().set_email_verified(other.id, noon()).await).await.unwrap();
        let Err(StoreError::Corrupt { table, id, reason }) = board.reader().qnas().find(qna.id).await else {
            panic!("{breaks}")
        };
        assert_eq!((table, id), ("qna", qna.id.get()));
        assert!(!reason.contains("rubbish"), "the value is nobody's business: {reason}");
        let listed = board.reader().qnas().list(None, &slice(Order::Newest, None, 9)).await;
        assert_outcome!(listed, Err(StoreError::Corrupt { .. }));
        board.sql(mends).await;
        board.reader().qnas().find(qna.id).await.unwrap().unwrap();
    }
}
