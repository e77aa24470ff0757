//! The export of one's own data.

use mockall::predicate::eq;
use mundap_domain::audit::{Action, AuditEntry, AuditId};
use mundap_domain::comment::CommentId;
use mundap_domain::export::{Piece, Place};
use mundap_domain::image::{Digest, Image, ImageId, MediaType};
use mundap_domain::page::Slice;
use mundap_domain::testing::{Board, Mocks, a_comment, a_qna, a_user, board, noon};
use mundap_domain::user::{Role, UserId};
use mundap_domain::{Actor, ExportService};

use crate::stage::{banned, code, member};

const ID: UserId = UserId::new(7);

#[tokio::test]
async fn whoever_has_no_account_has_nothing_to_export() {
    for by in [Actor::Anonymous, Actor::Operator] {
        let Board { services, .. } = board(Mocks::default());
        let export = &services.export;
        let place = Place::first(Slice::walk());
        assert_eq!(code(export.account(&by).await), "unauthenticated", "{by:?}");
        assert_eq!(code(export.piece(&by, place).await), "unauthenticated", "{by:?}");
    }
}

/// Every piece of the walk.
async fn pieces(export: &ExportService, by: &Actor) -> Vec<Piece> {
    let mut place = Some(Place::first(Slice::walk()));
    let mut pieces = Vec::new();
    while let Some(here) = place {
        let piece;
        (piece, place) = export.piece(by, here).await.expect("a piece");
        pieces.push(piece);
    }
    pieces
}

/// An image of member 7.
fn png() -> Image {
    Image {
        id: ImageId::new(9),
        comment: CommentId::new(8),
        owner: ID,
        media_type: MediaType::Png,
        bytes: 3,
        width: 1,
        height: 1,
        digest: Digest::of(b"png"),
        created_at: noon(),
    }
}

#[tokio::test]
async fn everything_is_the_caller_s_own_and_comes_in_pieces_oldest_first() {
    for (by, stored) in [(member(7), Some(b"png".to_vec())), (banned(7), None)] {
        let first = Slice::walk();
        let behind = |after| Slice { after: Some(after), limit: 2, ..first };
        let entry = AuditEntry {
            id: AuditId::new(4),
            actor: None,
            action: Action::Suspended,
            target: Some(ID),
            created_at: noon(),
        };
        let mut mocks = Mocks::default();
        mocks.users.expect_find().with(eq(ID)).once().returning(|_| Ok(Some(a_user(7, Role::Member))));
        mocks.sign_ins.expect_list_of().with(eq(ID)).once().returning(|_| Ok(Vec::new()));
        mocks.qnas.expect_list().with(eq(Some(ID)), eq(first)).once().returning(|_, _| Ok(vec![a_qna(6, 7)]));
        mocks.qnas.expect_list().with(eq(Some(ID)), eq(behind(6))).once().returning(|_, _| Ok(Vec::new()));
        mocks.comments.expect_list_by().with(eq(ID), eq(first)).once().returning(|_, _| Ok(vec![a_comment(8, 6, 7)]));
        mocks.comments.expect_list_by().with(eq(ID), eq(behind(8))).once().returning(|_, _| Ok(Vec::new()));
        let one = Slice { limit: 1, ..first };
        mocks.images.expect_list_of().with(eq(ID), eq(one)).once().returning(|_, _| Ok(vec![png()]));
        let after = Slice { after: Some(9), ..one };
        mocks.images.expect_list_of().with(eq(ID), eq(after)).once().returning(|_, _| Ok(Vec::new()));
        let (read, content) = (mocks.blobs.expect_read(), stored.clone());
        read.with(eq(png().digest), eq(0), eq(3)).once().returning(move |_, _, _| Ok(content.clone()));
        let told = entry.clone();
        mocks.audit.expect_list().with(eq(Some(ID)), eq(first)).once().returning(move |_, _| Ok(vec![told.clone()]));
        mocks.audit.expect_list().with(eq(Some(ID)), eq(behind(4))).once().returning(|_, _| Ok(Vec::new()));
        let Board { services, store, .. } = board(mocks);
        assert_eq!(services.export.account(&by).await.unwrap().0, a_user(7, Role::Member));
        let expected = [
            Piece::Qnas(vec![a_qna(6, 7)]),
            Piece::Qnas(Vec::new()),
            Piece::Comments(vec![a_comment(8, 6, 7)]),
            Piece::Comments(Vec::new()),
            Piece::Images(vec![(png(), stored)]),
            Piece::Images(Vec::new()),
            Piece::Audit(vec![entry]),
            Piece::Audit(Vec::new()),
        ];
        assert_eq!(pieces(&services.export, &by).await, expected);
        assert_eq!(store.begun(), 0, "a read opens no unit");
    }
}

#[tokio::test]
async fn each_list_is_there_where_nothing_is() {
    let mut mocks = Mocks::default();
    // In pieces of the same size, also behind the first list.
    let small = |slice: &Slice| *slice == Slice { limit: slice.limit, ..Slice::stream() };
    mocks.qnas.expect_list().withf(move |_, slice| small(slice)).once().returning(|_, _| Ok(Vec::new()));
    mocks.comments.expect_list_by().withf(move |_, slice| small(slice)).once().returning(|_, _| Ok(Vec::new()));
    mocks.images.expect_list_of().withf(move |_, slice| small(slice)).once().returning(|_, _| Ok(Vec::new()));
    mocks.audit.expect_list().withf(move |_, slice| small(slice)).once().returning(|_, _| Ok(Vec::new()));
    let Board { services, .. } = board(mocks);
    let mut place = Some(Place::first(Slice::stream()));
    let mut lists = 0;
    while let Some(here) = place {
        assert!(here.starts_a_list());
        place = services.export.piece(&member(7), here).await.unwrap().1;
        lists += 1;
    }
    assert_eq!(lists, 4);
}
