//! The export of one's own data.

use mockall::predicate::eq;
use mundap_domain::Actor;
use mundap_domain::comment::CommentId;
use mundap_domain::image::{Digest, Image, ImageId, MediaType};
use mundap_domain::page::Slice;
use mundap_domain::testing::{Board, Mocks, a_comment, a_qna, a_user, board, noon};
use mundap_domain::user::{Role, UserId};

use crate::stage::{banned, code, member};

const ID: UserId = UserId::new(7);

#[tokio::test]
async fn whoever_has_no_account_has_nothing_to_export() {
    for by in [Actor::Anonymous, Actor::Operator] {
        let Board { services, .. } = board(Mocks::default());
        let export = &services.export;
        let outcomes = [
            code(export.account(&by).await),
            code(export.qnas(&by, Slice::walk()).await),
            code(export.comments(&by, Slice::walk()).await),
            code(export.image_after(&by, None).await),
            code(export.audit(&by, Slice::walk()).await),
        ];
        assert_eq!(outcomes, ["unauthenticated"; 5], "{by:?}");
    }
}

#[tokio::test]
async fn everything_is_the_caller_s_own_and_comes_in_pieces_oldest_first() {
    for by in [member(7), banned(7)] {
        let (first, later) = (Slice::walk(), Slice { after: Some(5), ..Slice::walk() });
        let mut mocks = Mocks::default();
        mocks.users.expect_find().with(eq(ID)).once().returning(|_| Ok(Some(a_user(7, Role::Member))));
        mocks.sign_ins.expect_list_of().with(eq(ID)).once().returning(|_| Ok(Vec::new()));
        let listed = mocks.qnas.expect_list();
        listed.with(eq(Some(ID)), eq(later)).once().returning(|_, _| Ok(vec![a_qna(6, 7)]));
        let listed = mocks.comments.expect_list_by();
        listed.with(eq(ID), eq(first)).once().returning(|_, _| Ok(vec![a_comment(8, 6, 7)]));
        mocks.audit.expect_list().with(eq(Some(ID)), eq(later)).once().returning(|_, _| Ok(Vec::new()));
        let Board { services, store, .. } = board(mocks);
        let export = &services.export;
        assert_eq!(export.account(&by).await.unwrap().0, a_user(7, Role::Member));
        let behind = |after| Slice { after: Some(after), limit: 2, ..first };
        assert_eq!(export.qnas(&by, later).await.unwrap(), Some((vec![a_qna(6, 7)], behind(6))));
        assert_eq!(export.comments(&by, first).await.unwrap(), Some((vec![a_comment(8, 6, 7)], behind(8))));
        assert_eq!(export.audit(&by, later).await.unwrap(), None);
        assert_eq!(store.begun(), 0, "a read opens no unit");
    }
}

#[tokio::test]
async fn images_come_one_by_one_with_their_bytes_where_those_are_there() {
    let image = Image {
        id: ImageId::new(9),
        comment: CommentId::new(8),
        owner: ID,
        media_type: MediaType::Png,
        bytes: 3,
        width: 1,
        height: 1,
        digest: Digest::of(b"png"),
        created_at: noon(),
    };
    for stored in [Some(b"png".to_vec()), None] {
        let mut mocks = Mocks::default();
        let (found, content) = (image.clone(), stored.clone());
        let slice = Slice { after: Some(5), limit: 1, ..Slice::walk() };
        mocks.images.expect_list_of().with(eq(ID), eq(slice)).once().returning(move |_, _| Ok(vec![found.clone()]));
        let read = mocks.blobs.expect_read();
        read.with(eq(image.digest), eq(0), eq(3)).once().returning(move |_, _, _| Ok(content.clone()));
        let after = Slice { after: Some(9), ..slice };
        mocks.images.expect_list_of().with(eq(ID), eq(after)).once().returning(|_, _| Ok(Vec::new()));
        let Board { services, .. } = board(mocks);
        let first = services.export.image_after(&member(7), Some(ImageId::new(5))).await.unwrap();
        assert_eq!(first, Some((image.clone(), stored)));
        assert_eq!(services.export.image_after(&member(7), Some(image.id)).await.unwrap(), None);
    }
}
