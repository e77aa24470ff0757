//! `CommentRepository`.

use futures_util::future::join_all;
use mundap_domain::StoreError;
use mundap_domain::comment::{Comment, CommentContent, CommentId, CommentRecord, NewComment};
use mundap_domain::page::{Order, Slice};
use mundap_domain::qna::QnaId;
use mundap_domain::testing::noon;
use mundap_domain::user::Author;
use mundap_domain::version::Version;

use crate::board::{Board, NOBODY, assert_outcome, at, new_comment, slice, times};

crate::tests![
    insert_returns_the_whole_entity,
    insert_is_missing_reference_where_its_qna_is_not_there,
    insert_by_an_unknown_author_is_missing_reference,
    find_of_an_unknown_id_is_none,
    find_locked_keeps_the_row_from_changing_until_the_unit_ends,
    list_is_in_the_slice_s_order_by_id,
    list_holds_nothing_at_or_before_after,
    list_holds_at_most_limit_items,
    list_and_list_by_end_where_their_items_come_to_bytes_with_one_item_at_least,
    list_holds_that_qna_s_comments_alone,
    list_of_many_at_once_holds_each_its_own,
    list_of_many_at_once_holds_what_was_written_and_deleted_meanwhile,
    list_by_holds_that_author_s_comments_alone_in_the_slice_s_order,
    update_stores_what_changed,
    update_is_stale_unless_the_stored_version_is_the_one_before,
    delete_removes_it_alone,
    delete_is_stale_unless_it_is_there_in_this_version,
    delete_some_of_removes_no_more_than_it_may_and_leaves_the_count_alone,
    parallel_comments_on_many_qnas_all_arrive,
    text_of_any_script_and_length_comes_back,
    times_come_back_to_the_microsecond,
    ids_are_never_given_twice,
    a_deleted_author_is_an_id_alone,
    a_row_that_breaks_a_rule_is_corrupt,
];

/// As of a question: the same however it is read.
async fn stored(board: &Board, id: CommentId) -> Comment {
    let found = board.reader().comments().find(id).await.unwrap().unwrap();
    for order in [Order::Oldest, Order::Newest] {
        let next = if order == Order::Oldest { id.get() - 1 } else { id.get() + 1 };
        let listed = board.reader().comments().list(found.qna, &slice(order, Some(next), 1)).await.unwrap();
        assert_eq!(listed.as_slice(), std::slice::from_ref(&found));
    }
    found
}

fn edited(comment: &Comment, content: &str) -> Comment {
    Comment::restore(CommentRecord {
        content: CommentContent::parse(content).unwrap(),
        updated_at: at("2026-02-03T04:05:06.000007Z"),
        version: comment.version.next(),
        ..(**comment).clone()
    })
}

/// One comment on a QnA of its own.
async fn one(board: &Board) -> Comment {
    let user = board.user().await;
    board.comment(board.qna(&user).await.id, &user).await
}

/// Five comments on a QnA of their own.
async fn five(board: &Board) -> (QnaId, Vec<CommentId>) {
    let user = board.user().await;
    let qna = board.qna(&user).await.id;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(board.comment(qna, &user).await.id);
    }
    (qna, ids)
}

async fn list(board: &Board, qna: QnaId, order: Order, after: Option<CommentId>, limit: u64) -> Vec<CommentId> {
    let slice = slice(order, after.map(CommentId::get), limit);
    let comments = board.reader().comments().list(qna, &slice).await.unwrap();
    comments.iter().map(|comment| comment.id).collect()
}

async fn insert_returns_the_whole_entity(board: Board) {
    let user = board.user().await;
    let new = new_comment(board.qna(&user).await.id, &user);
    let comment = board.unit(async |unit| unit.comments().insert(&new).await).await.unwrap();
    let NewComment { qna, author, content, created_at } = new;
    let expected = CommentRecord {
        id: comment.id,
        qna,
        author,
        content,
        created_at,
        updated_at: created_at,
        version: Version::FIRST,
        images: Vec::new(),
    };
    assert_eq!(*comment, expected);
    assert_eq!(stored(&board, comment.id).await, comment);
}

async fn insert_is_missing_reference_where_its_qna_is_not_there(board: Board) {
    let new = new_comment(QnaId::new(1 << 52), &board.user().await);
    let outcome = board.unit(async |unit| unit.comments().insert(&new).await).await;
    assert_outcome!(outcome, Err(StoreError::MissingReference(_)));
}

async fn insert_by_an_unknown_author_is_missing_reference(board: Board) {
    let user = board.user().await;
    let mut new = new_comment(board.qna(&user).await.id, &user);
    new.author.id = NOBODY;
    let outcome = board.unit(async |unit| unit.comments().insert(&new).await).await;
    assert_outcome!(outcome, Err(StoreError::MissingReference(_)));
}

async fn find_of_an_unknown_id_is_none(board: Board) {
    let id = CommentId::new(1 << 52);
    assert_eq!(board.reader().comments().find(id).await.unwrap(), None);
    assert_eq!(board.unit(async |unit| unit.comments().find_locked(id).await).await.unwrap(), None);
}

async fn find_locked_keeps_the_row_from_changing_until_the_unit_ends(board: Board) {
    let comment = one(&board).await;
    let unit = board.begin().await;
    assert_eq!(unit.comments().find_locked(comment.id).await.unwrap().as_ref(), Some(&comment));
    board.assert_blocked(async |unit| unit.comments().update(&edited(&comment, "in between")).await).await;
    assert_eq!(board.reader().comments().find_locked(comment.id).await.unwrap().as_ref(), Some(&comment));
    unit.commit().await.unwrap();
    board.unit(async |unit| unit.comments().update(&edited(&comment, "afterwards")).await).await.unwrap();
}

async fn list_is_in_the_slice_s_order_by_id(board: Board) {
    let (qna, ids) = five(&board).await;
    assert!(ids.is_sorted(), "ids grow with time");
    assert_eq!(list(&board, qna, Order::Oldest, None, 10).await, ids);
    let reversed: Vec<CommentId> = ids.iter().rev().copied().collect();
    assert_eq!(list(&board, qna, Order::Newest, None, 10).await, reversed);
    let whole = board.reader().comments().list(qna, &slice(Order::Oldest, None, 1)).await.unwrap();
    assert_eq!(whole, [stored(&board, ids[0]).await], "a list holds whole entities");
}

async fn list_holds_nothing_at_or_before_after(board: Board) {
    let (qna, ids) = five(&board).await;
    assert_eq!(list(&board, qna, Order::Oldest, Some(ids[1]), 10).await, ids[2..]);
    assert_eq!(list(&board, qna, Order::Newest, Some(ids[1]), 10).await, ids[..1]);
    assert_eq!(list(&board, qna, Order::Oldest, Some(ids[4]), 10).await, []);
}

async fn list_holds_at_most_limit_items(board: Board) {
    let (qna, ids) = five(&board).await;
    assert_eq!(list(&board, qna, Order::Oldest, None, 2).await, ids[..2]);
    assert_eq!(list(&board, qna, Order::Oldest, Some(ids[1]), 2).await, ids[2..4]);
    assert_eq!(list(&board, qna, Order::Oldest, None, 5).await, ids);
}

async fn list_and_list_by_end_where_their_items_come_to_bytes_with_one_item_at_least(board: Board) {
    let user = board.user().await;
    let qna = board.qna(&user).await.id;
    let content = CommentContent::parse("말".repeat(1_000).as_str()).unwrap();
    for _ in 0..4 {
        let new = NewComment { content: content.clone(), ..new_comment(qna, &user) };
        board.unit(async |unit| unit.comments().insert(&new).await).await.unwrap();
    }
    for (bytes, count) in [(0, 1), (1, 1), (3_000, 1), (3_001, 2), (6_001, 3), (Slice::ANY_SIZE, 4)] {
        for order in [Order::Oldest, Order::Newest] {
            let slice = Slice { bytes, ..slice(order, None, 4) };
            let listed = board.reader().comments().list(qna, &slice).await.unwrap();
            assert_eq!(listed.len(), count, "{bytes} bytes");
            assert_eq!(board.reader().comments().list_by(user.id, &slice).await.unwrap(), listed, "{bytes} bytes");
        }
    }
}

async fn list_of_many_at_once_holds_each_its_own(board: Board) {
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(five(&board).await);
    }
    all.push((board.qna(&board.user().await).await.id, Vec::new()));
    all.push((QnaId::new(-1), Vec::new()));
    let asked: Vec<(usize, usize)> = (0..60).map(|n| (n % all.len(), (n / 5) % 8)).collect();
    let lists =
        join_all(asked.iter().map(|(n, limit)| list(&board, all[*n].0, Order::Oldest, None, *limit as u64))).await;
    for ((n, limit), found) in asked.into_iter().zip(lists) {
        assert_eq!(found, all[n].1.iter().copied().take(limit).collect::<Vec<_>>(), "{limit} of {n}");
    }
}

async fn list_of_many_at_once_holds_what_was_written_and_deleted_meanwhile(board: Board) {
    let user = board.user().await;
    let mut qnas: Vec<(QnaId, Vec<CommentId>)> = Vec::new();
    for _ in 0..4 {
        qnas.push((board.qna(&user).await.id, Vec::new()));
    }
    // How many are written on each question, and which of those that are there are deleted; nothing in the last
    // step.
    let steps =
        [([0, 3, 12, 30], 0..0), ([0, 1, 0, 0], 0..0), ([2, 0, 0, 9], 1..3), ([0, 4, 3, 0], 2..9), ([0; 4], 0..0)];
    for (written, deleted) in steps {
        for ((qna, ids), count) in qnas.iter_mut().zip(written) {
            for _ in 0..count {
                ids.push(board.comment(*qna, &user).await.id);
            }
            let gone: Vec<CommentId> = ids.iter().copied().skip(deleted.start).take(deleted.len()).collect();
            for id in gone {
                board.unit(async |unit| unit.comments().delete(id, Version::FIRST).await).await.unwrap();
                ids.retain(|kept| *kept != id);
            }
        }
        for _ in 0..3 {
            let mut asked = Vec::new();
            for (qna, ids) in &qnas {
                for after in [None].into_iter().chain(ids.iter().copied().map(Some)) {
                    for (order, limit) in [(Order::Oldest, 4), (Order::Oldest, 21), (Order::Newest, 4)] {
                        let behind = ids.iter().copied().filter(|id| {
                            after.is_none_or(|after| if order == Order::Oldest { *id > after } else { *id < after })
                        });
                        let mut expected: Vec<CommentId> = behind.collect();
                        if order == Order::Newest {
                            expected.reverse();
                        }
                        expected.truncate(limit);
                        asked.push((*qna, order, after, limit as u64, expected));
                    }
                }
            }
            let lists = asked.iter().map(|(qna, order, after, limit, _)| list(&board, *qna, *order, *after, *limit));
            for ((qna, order, after, limit, expected), listed) in asked.iter().zip(join_all(lists).await) {
                assert_eq!(listed, *expected, "{limit} of {qna} behind {after:?}, {order:?}");
            }
        }
    }
}

async fn list_holds_that_qna_s_comments_alone(board: Board) {
    let ((one, ones), (other, others)) = (five(&board).await, five(&board).await);
    assert_eq!(list(&board, one, Order::Oldest, None, 100).await, ones);
    assert_eq!(list(&board, other, Order::Oldest, None, 100).await, others);
    assert_eq!(list(&board, QnaId::new(1 << 52), Order::Oldest, None, 100).await, []);
}

async fn list_by_holds_that_author_s_comments_alone_in_the_slice_s_order(board: Board) {
    let (author, other) = (board.user().await, board.user().await);
    // In an order that is not the one of their questions.
    let qnas = [board.qna(&other).await.id, board.qna(&author).await.id];
    let mut expected = Vec::new();
    for qna in [qnas[1], qnas[0], qnas[1], qnas[0]] {
        expected.push(board.comment(qna, &author).await);
        board.comment(qna, &other).await;
    }
    let list = async |order, after: Option<CommentId>, limit| {
        let slice = slice(order, after.map(CommentId::get), limit);
        board.reader().comments().list_by(author.id, &slice).await.unwrap()
    };
    assert_eq!(list(Order::Oldest, None, 10).await, expected);
    assert_eq!(list(Order::Oldest, Some(expected[0].id), 2).await, expected[1..3]);
    assert_eq!(list(Order::Newest, Some(expected[1].id), 10).await, expected[..1]);
}

async fn update_stores_what_changed(board: Board) {
    let comment = one(&board).await;
    let newer = edited(&comment, "edited");
    board.unit(async |unit| unit.comments().update(&newer).await).await.unwrap();
    assert_eq!(stored(&board, comment.id).await, newer);
}

async fn update_is_stale_unless_the_stored_version_is_the_one_before(board: Board) {
    let comment = one(&board).await;
    let second = edited(&comment, "second");
    let third = edited(&second, "third");
    let update = async |comment: &Comment| board.unit(async |unit| unit.comments().update(comment).await).await;
    assert_outcome!(update(&third).await, Err(StoreError::Stale));
    assert_outcome!(update(&comment).await, Err(StoreError::Stale));
    update(&second).await.unwrap();
    assert_outcome!(update(&second).await, Err(StoreError::Stale));
    assert_eq!(stored(&board, comment.id).await, second);
}

async fn delete_removes_it_alone(board: Board) {
    let (qna, ids) = five(&board).await;
    board.unit(async |unit| unit.comments().delete(ids[2], Version::FIRST).await).await.unwrap();
    assert_eq!(list(&board, qna, Order::Oldest, None, 10).await, [ids[0], ids[1], ids[3], ids[4]]);
    assert!(board.reader().qnas().find(qna).await.unwrap().is_some());
}

async fn delete_is_stale_unless_it_is_there_in_this_version(board: Board) {
    let comment = one(&board).await;
    let delete = async |version| board.unit(async |unit| unit.comments().delete(comment.id, version).await).await;
    assert_outcome!(delete(comment.version.next()).await, Err(StoreError::Stale));
    assert_eq!(stored(&board, comment.id).await, comment);
    delete(comment.version).await.unwrap();
    assert_outcome!(delete(comment.version).await, Err(StoreError::Stale));
}

async fn parallel_comments_on_many_qnas_all_arrive(board: Board) {
    let user = board.user().await;
    let mut qnas = Vec::new();
    for _ in 0..5 {
        qnas.push(board.qna(&user).await.id);
    }
    let written = join_all((0..50).map(|n| board.comment(qnas[n % 5], &user))).await;
    for qna in qnas {
        let mut expected: Vec<_> =
            written.iter().filter(|comment| comment.qna == qna).map(|comment| comment.id).collect();
        expected.sort_unstable();
        assert_eq!(list(&board, qna, Order::Oldest, None, 100).await, expected);
        assert_eq!(board.reader().qnas().find(qna).await.unwrap().unwrap().comment_count, 10);
    }
}

async fn text_of_any_script_and_length_comes_back(board: Board) {
    let user = board.user().await;
    let qna = board.qna(&user).await.id;
    for content in ["😀".repeat(CommentContent::MAX), "힣".repeat(CommentContent::MAX), "x ".to_owned()] {
        let new = NewComment { content: CommentContent::parse(&content).unwrap(), ..new_comment(qna, &user) };
        let comment = board.unit(async |unit| unit.comments().insert(&new).await).await.unwrap();
        assert_eq!(stored(&board, comment.id).await, comment);
        assert_eq!(stored(&board, comment.id).await.content.as_str(), content);
    }
}

async fn times_come_back_to_the_microsecond(board: Board) {
    let user = board.user().await;
    let qna = board.qna(&user).await.id;
    for time in times() {
        let new = NewComment { created_at: time, ..new_comment(qna, &user) };
        let comment = board.unit(async |unit| unit.comments().insert(&new).await).await.unwrap();
        assert_eq!(stored(&board, comment.id).await.created_at, time);
        assert_eq!(stored(&board, comment.id).await.updated_at, time);
    }
}

async fn ids_are_never_given_twice(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    let (qna, other) = (board.qna(&user).await.id, board.qna(&user).await.id);
    let comment = board.comment(qna, &user).await;
    board.unit(async |unit| unit.comments().delete(comment.id, comment.version).await).await.unwrap();
    assert!(board.comment(other, &user).await.id > comment.id);
}

async fn a_deleted_author_is_an_id_alone(board: Board) {
    let user = board.user().await;
    let comment = board.comment(board.qna(&user).await.id, &user).await;
    board.unit(async |unit| unit.users().erase(user.id, noon()).await).await.unwrap();
    let deleted = Author { id: user.id, display_name: None, email: None };
    assert_eq!(stored(&board, comment.id).await.author, deleted);
}

async fn a_row_that_breaks_a_rule_is_corrupt(board: Board) {
    let board = board.own().await;
    let comment = one(&board).await;
    board.sql("UPDATE comment SET content = ''").await;
    let Err(StoreError::Corrupt { table, id, .. }) = board.reader().comments().find(comment.id).await else {
        panic!("an empty comment")
    };
    assert_eq!((table, id), ("comment", comment.id.get()));
    let listed = board.reader().comments().list(comment.qna, &slice(Order::Oldest, None, 9)).await;
    assert_outcome!(listed, Err(StoreError::Corrupt { .. }));
}

async fn delete_some_of_removes_no_more_than_it_may_and_leaves_the_count_alone(board: Board) {
    let author = board.user().await;
    let (qna, other) = (board.qna(&author).await.id, board.qna(&author).await.id);
    let kept = board.comment(other, &author).await;
    let mut images = Vec::new();
    for _ in 0..5 {
        let comment = board.comment(qna, &author).await;
        images.push(crate::image::attach(&board, &crate::image::new(&comment, b"some")).await);
    }
    let count = async || board.reader().qnas().find(qna).await.unwrap().unwrap().comment_count;
    let before = count().await;
    for expected in [2, 2, 1, 0] {
        let gone = board.unit(async |unit| unit.comments().delete_some_of(qna, 2).await).await.unwrap();
        assert_eq!(gone, expected);
    }
    assert_eq!(count().await, before);
    for image in images {
        assert_eq!(board.reader().images().find(image.id).await.unwrap(), None);
    }
    assert_eq!(stored(&board, kept.id).await, kept);
}
