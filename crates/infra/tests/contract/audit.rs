//! `AuditRepository`.

use mundap_domain::audit::{Action, AuditEntry, AuditId, NewAuditEntry};
use mundap_domain::page::Order;
use mundap_domain::testing::noon;
use mundap_domain::user::{Role, UserId};

use crate::board::{Board, NOBODY, slice, times};

crate::tests![
    insert_is_listed_whole,
    list_is_in_the_slice_s_order_by_id,
    list_holds_nothing_at_or_before_after_and_at_most_limit_items,
    list_holds_the_entries_about_one_account_or_all,
    times_come_back_to_the_microsecond,
    an_entry_outlives_its_people,
];

async fn insert(board: &Board, entry: &NewAuditEntry) -> AuditId {
    board.unit(async |unit| unit.audit().insert(entry).await).await.unwrap()
}

fn about(target: Option<UserId>, action: Action) -> NewAuditEntry {
    NewAuditEntry { actor: None, action, target, created_at: noon() }
}

async fn list(board: &Board, target: Option<UserId>, order: Order, after: Option<i64>, limit: u64) -> Vec<AuditEntry> {
    board.reader().audit().list(target, &slice(order, after, limit)).await.unwrap()
}

async fn insert_is_listed_whole(board: Board) {
    let (actor, target) = (board.user().await.id, board.user().await.id);
    let actions = [
        Action::ReadUser,
        Action::ReadAudit,
        Action::AddedUser { role: Role::Admin },
        Action::AssignedRole { from: Role::Admin, to: Role::Moderator },
        Action::Suspended,
        Action::Reinstated,
        Action::ResetPassword,
    ];
    let mut expected = Vec::new();
    for (index, action) in actions.into_iter().enumerate() {
        let actor = (index % 2 == 0).then_some(actor);
        let entry = NewAuditEntry { actor, ..about(Some(target), action) };
        let id = insert(&board, &entry).await;
        expected.push(AuditEntry { id, actor, action, target: Some(target), created_at: noon() });
    }
    assert_eq!(list(&board, Some(target), Order::Oldest, None, 100).await, expected);
}

async fn five(board: &Board) -> (UserId, Vec<i64>) {
    let target = board.user().await.id;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(insert(board, &about(Some(target), Action::ReadUser)).await.get());
    }
    (target, ids)
}

fn ids(entries: &[AuditEntry]) -> Vec<i64> {
    entries.iter().map(|entry| entry.id.get()).collect()
}

async fn list_is_in_the_slice_s_order_by_id(board: Board) {
    let (target, mut expected) = five(&board).await;
    assert!(expected.is_sorted(), "ids grow with time");
    assert_eq!(ids(&list(&board, Some(target), Order::Oldest, None, 10).await), expected);
    expected.reverse();
    assert_eq!(ids(&list(&board, Some(target), Order::Newest, None, 10).await), expected);
}

async fn list_holds_nothing_at_or_before_after_and_at_most_limit_items(board: Board) {
    let (target, expected) = five(&board).await;
    let after = Some(expected[1]);
    assert_eq!(ids(&list(&board, Some(target), Order::Oldest, after, 10).await), expected[2..]);
    assert_eq!(ids(&list(&board, Some(target), Order::Oldest, after, 2).await), expected[2..4]);
    assert_eq!(ids(&list(&board, Some(target), Order::Newest, after, 10).await), expected[..1]);
    assert_eq!(ids(&list(&board, Some(target), Order::Oldest, Some(expected[4]), 10).await), Vec::<i64>::new());
}

async fn list_holds_the_entries_about_one_account_or_all(board: Board) {
    let board = board.own().await;
    let (one, ones) = five(&board).await;
    let (other, others) = five(&board).await;
    let nobody = insert(&board, &about(None, Action::ListedUsers)).await.get();
    assert_eq!(ids(&list(&board, Some(one), Order::Oldest, None, 100).await), ones);
    assert_eq!(ids(&list(&board, Some(other), Order::Oldest, None, 100).await), others);
    assert_eq!(ids(&list(&board, Some(NOBODY), Order::Oldest, None, 100).await), Vec::<i64>::new());
    assert_eq!(ids(&list(&board, None, Order::Oldest, None, 100).await), [ones, others, vec![nobody]].concat());
    board.close().await;
}

async fn times_come_back_to_the_microsecond(board: Board) {
    let target = board.user().await.id;
    for created_at in times() {
        insert(&board, &NewAuditEntry { created_at, ..about(Some(target), Action::ReadUser) }).await;
        let found = list(&board, Some(target), Order::Newest, None, 1).await;
        assert_eq!(found[0].created_at, created_at);
    }
}

async fn an_entry_outlives_its_people(board: Board) {
    let user = board.user().await;
    let entry = NewAuditEntry { actor: Some(user.id), ..about(Some(user.id), Action::Suspended) };
    let id = insert(&board, &entry).await;
    board.unit(async |unit| unit.users().erase(user.id, noon()).await).await.unwrap();
    let found = list(&board, Some(user.id), Order::Oldest, None, 10).await;
    assert_eq!((found[0].id, found[0].actor), (id, Some(user.id)));
}
