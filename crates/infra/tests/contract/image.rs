//! `ImageRepository`, and what comments say of their images.

use futures_util::future::join_all;
use mundap_domain::comment::{Comment, CommentId};
use mundap_domain::image::{Digest, Image, ImageId, MediaType, NewImage};
use mundap_domain::page::Order;
use mundap_domain::testing::noon;
use mundap_domain::user::User;
use mundap_domain::{StoreError, UnitOfWork};

use crate::board::{Board, NOBODY, assert_outcome, slice, times};

crate::tests![
    insert_returns_the_whole_entity,
    insert_is_missing_reference_where_its_comment_is_not_there,
    insert_by_an_unknown_owner_is_missing_reference,
    insert_and_delete_leave_the_comment_s_count_alone,
    find_of_an_unknown_id_is_none,
    delete_says_whether_it_was_there,
    list_of_holds_that_owner_s_images_alone_in_the_slice_s_order,
    quota_used_counts_bytes_and_something_for_each_image,
    shown_are_those_that_an_image_shows,
    a_comment_comes_with_its_images,
    comments_without_images_are_read_without_a_look_at_them,
    count_images_keeps_the_row_from_changing_until_the_unit_ends,
    count_images_of_an_unknown_comment_is_false,
    an_update_of_the_comment_leaves_its_images_alone,
    images_go_with_their_comment_and_their_qna,
    parallel_images_on_one_comment_are_all_counted,
    a_row_that_breaks_a_rule_is_corrupt,
    times_come_back_to_the_microsecond,
];

pub(crate) fn new(comment: &Comment, content: &[u8]) -> NewImage {
    NewImage {
        comment: comment.id,
        owner: comment.author.id,
        media_type: MediaType::Webp,
        bytes: 10_485_760,
        width: 8192,
        height: 1,
        digest: Digest::of(content),
        created_at: noon(),
    }
}

/// Bytes that no other test has.
fn unique() -> [u8; 8] {
    getrandom::u64().unwrap().to_be_bytes()
}

async fn one_comment(board: &Board) -> (User, Comment) {
    let user = board.user().await;
    let comment = board.comment(board.qna(&user).await.id, &user).await;
    (user, comment)
}

/// Attaches it, counted, as the use case does.
pub(crate) async fn attach(board: &Board, new: &NewImage) -> Image {
    let attach = async |unit: &dyn UnitOfWork| {
        assert!(unit.comments().count_images(new.comment, 1).await?);
        unit.images().insert(new).await
    };
    board.unit(attach).await.unwrap()
}

async fn images(board: &Board, id: CommentId) -> Vec<Image> {
    board.reader().comments().find(id).await.unwrap().unwrap().images.clone()
}

async fn insert_returns_the_whole_entity(board: Board) {
    let (_, comment) = one_comment(&board).await;
    for media_type in MediaType::ALL {
        let new = NewImage { media_type, ..new(&comment, &unique()) };
        let image = board.unit(async |unit| unit.images().insert(&new).await).await.unwrap();
        assert_eq!(image, new.stored(image.id));
        assert_eq!(board.reader().images().find(image.id).await.unwrap(), Some(image));
    }
}

async fn insert_is_missing_reference_where_its_comment_is_not_there(board: Board) {
    let (_, comment) = one_comment(&board).await;
    let new = NewImage { comment: CommentId::new(1 << 52), ..new(&comment, b"") };
    let outcome = board.unit(async |unit| unit.images().insert(&new).await).await;
    assert_outcome!(outcome, Err(StoreError::MissingReference(_)));
}

async fn insert_by_an_unknown_owner_is_missing_reference(board: Board) {
    let (_, comment) = one_comment(&board).await;
    let new = NewImage { owner: NOBODY, ..new(&comment, b"") };
    let outcome = board.unit(async |unit| unit.images().insert(&new).await).await;
    assert_outcome!(outcome, Err(StoreError::MissingReference(_)));
}

async fn insert_and_delete_leave_the_comment_s_count_alone(board: Board) {
    let (_, comment) = one_comment(&board).await;
    let image = board.unit(async |unit| unit.images().insert(&new(&comment, &unique())).await).await.unwrap();
    // Not counted, so not looked for.
    assert_eq!(images(&board, comment.id).await, []);
    let counted = attach(&board, &new(&comment, &unique())).await;
    board.unit(async |unit| unit.images().delete(image.id).await).await.unwrap();
    assert_eq!(images(&board, comment.id).await, [counted]);
}

async fn find_of_an_unknown_id_is_none(board: Board) {
    assert_eq!(board.reader().images().find(ImageId::new(1 << 52)).await.unwrap(), None);
}

async fn delete_says_whether_it_was_there(board: Board) {
    let (_, comment) = one_comment(&board).await;
    let image = attach(&board, &new(&comment, &unique())).await;
    let other = attach(&board, &new(&comment, &unique())).await;
    let delete = async || board.unit(async |unit| unit.images().delete(image.id).await).await.unwrap();
    assert!(delete().await);
    assert!(!delete().await);
    assert_eq!(board.reader().images().find(image.id).await.unwrap(), None);
    assert_eq!(board.reader().images().find(other.id).await.unwrap(), Some(other));
}

async fn list_of_holds_that_owner_s_images_alone_in_the_slice_s_order(board: Board) {
    let ((owner, one), (_, others)) = (one_comment(&board).await, one_comment(&board).await);
    let mut expected = Vec::new();
    for _ in 0..4 {
        expected.push(attach(&board, &new(&one, &unique())).await);
        attach(&board, &new(&others, &unique())).await;
    }
    let list = async |order, after: Option<&Image>, limit| {
        let slice = slice(order, after.map(|image| image.id.get()), limit);
        board.reader().images().list_of(owner.id, &slice).await.unwrap()
    };
    assert_eq!(list(Order::Oldest, None, 10).await, expected);
    assert_eq!(list(Order::Oldest, Some(&expected[0]), 2).await, expected[1..3]);
    assert_eq!(list(Order::Newest, Some(&expected[1]), 10).await, expected[..1]);
    assert_eq!(board.reader().images().list_of(NOBODY, &slice(Order::Oldest, None, 10)).await.unwrap(), []);
}

async fn quota_used_counts_bytes_and_something_for_each_image(board: Board) {
    let (owner, comment) = one_comment(&board).await;
    let quota = async |board: &Board| board.reader().images().quota_used(owner.id).await.unwrap();
    assert_eq!(quota(&board).await, 0);
    // More together than 32 bits hold.
    let mut expected = 0;
    for bytes in [1, 2_147_483_647, 2_147_483_647] {
        let image = attach(&board, &NewImage { bytes, ..new(&comment, &unique()) }).await;
        expected += u64::from(image.bytes) + Image::OVERHEAD;
    }
    let (_, others) = one_comment(&board).await;
    attach(&board, &new(&others, &unique())).await;
    assert_eq!(quota(&board).await, expected);
    let inside = board.unit(async |unit| unit.images().quota_used(owner.id).await).await.unwrap();
    assert_eq!(inside, expected);
}

async fn shown_are_those_that_an_image_shows(board: Board) {
    let (_, comment) = one_comment(&board).await;
    let (once, twice, never) = (unique(), unique(), Digest::of(&unique()));
    for content in [once, twice, twice] {
        attach(&board, &new(&comment, &content)).await;
    }
    let (once, twice) = (Digest::of(&once), Digest::of(&twice));
    let mut shown = board.reader().images().shown(&[never, twice, once]).await.unwrap();
    shown.sort();
    let mut expected = vec![once, twice];
    expected.sort();
    assert_eq!(shown, expected);
    assert_eq!(board.reader().images().shown(&[never]).await.unwrap(), []);
    assert_eq!(board.reader().images().shown(&[]).await.unwrap(), []);
    // As many as a sweep asks for at once.
    let many: Vec<Digest> = (0..499_u32).map(|n| Digest::of(&n.to_be_bytes())).chain([once]).collect();
    assert!(board.reader().images().shown(&many).await.unwrap().contains(&once));
}

async fn a_comment_comes_with_its_images(board: Board) {
    let (user, first) = one_comment(&board).await;
    let second = board.comment(first.qna, &user).await;
    let third = board.comment(first.qna, &user).await;
    let mut expected = vec![Vec::new(); 3];
    // Interleaved, so that order and owner both have to be right.
    for _ in 0..3 {
        for (n, comment) in [(0, &first), (2, &third)] {
            expected[n].push(attach(&board, &new(comment, &unique())).await);
        }
    }
    let list = board.reader().comments().list(first.qna, &slice(Order::Oldest, None, 10)).await.unwrap();
    assert_eq!(list.iter().map(|comment| comment.images.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(list.iter().map(|comment| comment.id).collect::<Vec<_>>(), [first.id, second.id, third.id]);
    assert_eq!(images(&board, third.id).await, expected[2]);
    let locked = board.unit(async |unit| unit.comments().find_locked(first.id).await).await.unwrap().unwrap();
    assert_eq!(locked.images, expected[0]);
}

async fn comments_without_images_are_read_without_a_look_at_them(board: Board) {
    let board = board.own().await;
    let (_, comment) = one_comment(&board).await;
    // Whoever looked would fail.
    board.sql("DROP TABLE image").await;
    assert_eq!(images(&board, comment.id).await, []);
    let list = board.reader().comments().list(comment.qna, &slice(Order::Oldest, None, 10)).await.unwrap();
    assert_eq!(list, [comment]);
}

async fn count_images_keeps_the_row_from_changing_until_the_unit_ends(board: Board) {
    let (_, comment) = one_comment(&board).await;
    let unit = board.begin().await;
    assert!(unit.comments().count_images(comment.id, 1).await.unwrap());
    board.assert_blocked(async |unit| unit.comments().count_images(comment.id, 1).await).await;
    unit.commit().await.unwrap();
    assert!(board.unit(async |unit| unit.comments().count_images(comment.id, -1).await).await.unwrap());
}

async fn count_images_of_an_unknown_comment_is_false(board: Board) {
    let outcome = board.unit(async |unit| unit.comments().count_images(CommentId::new(1 << 52), 1).await).await;
    assert!(!outcome.unwrap());
}

async fn an_update_of_the_comment_leaves_its_images_alone(board: Board) {
    let (user, comment) = one_comment(&board).await;
    let image = attach(&board, &new(&comment, &unique())).await;
    // Read before the image came.
    let mut comment = comment;
    let edit = mundap_domain::comment::CommentContent::parse("Edited").unwrap();
    comment.edit(&user.into(), &mundap_domain::version::Expected::Any, &edit, noon()).unwrap();
    board.unit(async |unit| unit.comments().update(&comment).await).await.unwrap();
    assert_eq!(images(&board, comment.id).await, [image]);
}

async fn images_go_with_their_comment_and_their_qna(board: Board) {
    let (user, first) = one_comment(&board).await;
    let second = board.comment(first.qna, &user).await;
    let (gone, left) = (attach(&board, &new(&first, &unique())).await, attach(&board, &new(&second, &unique())).await);
    board.unit(async |unit| unit.comments().delete(first.id, first.version).await).await.unwrap();
    assert_eq!(board.reader().images().find(gone.id).await.unwrap(), None);
    assert_eq!(board.reader().images().find(left.id).await.unwrap(), Some(left.clone()));
    let qna = board.reader().qnas().find(first.qna).await.unwrap().unwrap();
    board.unit(async |unit| unit.qnas().delete(qna.id, qna.version).await).await.unwrap();
    assert_eq!(board.reader().images().find(left.id).await.unwrap(), None);
    assert_eq!(board.reader().images().quota_used(user.id).await.unwrap(), 0);
}

async fn parallel_images_on_one_comment_are_all_counted(board: Board) {
    let (user, comment) = one_comment(&board).await;
    let attached = join_all((0..10).map(async |_| {
        let new = new(&comment, &unique());
        // With the locks that the use case takes, in its order.
        let attach = async |unit: &dyn UnitOfWork| {
            unit.users().find_locked(user.id).await?;
            unit.comments().find_locked(comment.id).await?;
            unit.comments().count_images(comment.id, 1).await?;
            unit.images().insert(&new).await
        };
        board.unit(attach).await.unwrap()
    }));
    let mut attached: Vec<Image> = attached.await;
    attached.sort_by_key(|image| image.id);
    assert_eq!(images(&board, comment.id).await, attached);
    for image in &attached {
        let delete = async |unit: &dyn UnitOfWork| {
            unit.comments().count_images(comment.id, -1).await?;
            unit.images().delete(image.id).await
        };
        assert!(board.unit(delete).await.unwrap());
    }
    // Counted down to nothing: nobody looks for images any more.
    attach(&board, &new(&comment, &unique())).await;
    assert_eq!(images(&board, comment.id).await.len(), 1);
}

async fn a_row_that_breaks_a_rule_is_corrupt(board: Board) {
    let board = board.own().await;
    let (_, comment) = one_comment(&board).await;
    let image = attach(&board, &new(&comment, &unique())).await;
    for (broken, whole) in [
        ("media_type = 'image/svg+xml'", "media_type = 'image/webp'"),
        ("bytes = -1", "bytes = 1"),
        ("width = -1", "width = 1"),
    ] {
        board.sql(&format!("UPDATE image SET {broken}")).await;
        assert_outcome!(board.reader().images().find(image.id).await, Err(StoreError::Corrupt { table: "image", .. }));
        assert_outcome!(board.reader().comments().find(comment.id).await, Err(StoreError::Corrupt { .. }));
        board.sql(&format!("UPDATE image SET {whole}")).await;
    }
    assert!(board.reader().images().find(image.id).await.unwrap().is_some());
}

async fn times_come_back_to_the_microsecond(board: Board) {
    let (_, comment) = one_comment(&board).await;
    for created_at in times() {
        let image = attach(&board, &NewImage { created_at, ..new(&comment, &unique()) }).await;
        assert_eq!(board.reader().images().find(image.id).await.unwrap().unwrap().created_at, created_at);
    }
}
