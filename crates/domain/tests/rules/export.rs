//! The export of one's own data.

use mockall::predicate::eq;
use mundap_domain::Actor;
use mundap_domain::page::{Order, Slice};
use mundap_domain::qna::QnaId;
use mundap_domain::testing::{Board, Mocks, a_comment, a_qna, a_user, board};
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
            code(export.qnas_after(&by, None).await),
            code(export.comments_after(&by, None).await),
            code(export.audit_after(&by, None).await),
        ];
        assert_eq!(outcomes, ["unauthenticated"; 4], "{by:?}");
    }
}

#[tokio::test]
async fn everything_is_the_caller_s_own_and_comes_in_batches_oldest_first() {
    for by in [member(7), banned(7)] {
        let slice = |after| Slice { after, order: Order::Oldest, limit: 200 };
        let mut mocks = Mocks::default();
        mocks.users.expect_find().with(eq(ID)).once().returning(|_| Ok(Some(a_user(7, Role::Member))));
        mocks.sign_ins.expect_list_of().with(eq(ID)).once().returning(|_| Ok(Vec::new()));
        let listed = mocks.qnas.expect_list();
        listed.with(eq(Some(ID)), eq(slice(Some(5)))).once().returning(|_, _| Ok(vec![a_qna(6, 7)]));
        let listed = mocks.comments.expect_list_by();
        listed.with(eq(ID), eq(slice(None))).once().returning(|_, _| Ok(vec![a_comment(8, 6, 7)]));
        mocks.audit.expect_list().with(eq(Some(ID)), eq(slice(Some(9)))).once().returning(|_, _| Ok(Vec::new()));
        let Board { services, store, .. } = board(mocks);
        let export = &services.export;
        assert_eq!(export.account(&by).await.unwrap().0, a_user(7, Role::Member));
        assert_eq!(export.qnas_after(&by, Some(QnaId::new(5))).await.unwrap(), [a_qna(6, 7)]);
        assert_eq!(export.comments_after(&by, None).await.unwrap(), [a_comment(8, 6, 7)]);
        assert_eq!(export.audit_after(&by, Some(9)).await.unwrap(), []);
        assert_eq!(store.begun(), 0, "a read opens no unit");
    }
}
