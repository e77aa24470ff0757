//! `UserRepository`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mundap_domain::admin::UserListing;
use mundap_domain::page::Order;
use mundap_domain::qna::QnaId;
use mundap_domain::sign_in::{LIFETIME, NewSignIn, SignInId, TokenHash};
use mundap_domain::testing::noon;
use mundap_domain::user::{Author, DisplayName, Email, NewUser, Role, User, UserRecord};
use mundap_domain::version::Version;
use mundap_domain::{Repositories, StoreError};
use sea_orm::{ConnectionTrait as _, Statement};

use crate::board::{Board, NOBODY, assert_outcome, at, hash, new_comment, new_user, slice, times, unique_email};

crate::tests![
    insert_returns_the_whole_entity,
    insert_reports_a_taken_email_as_duplicate,
    insert_reports_a_taken_email_in_another_spelling_as_duplicate,
    of_parallel_inserts_of_one_email_exactly_one_wins,
    find_of_an_unknown_id_is_none,
    find_by_email_does_not_mind_its_spelling,
    find_locked_keeps_the_row_from_changing_until_the_unit_ends,
    find_signed_in_needs_that_sign_in_of_that_account,
    find_signed_in_knows_of_every_change_that_this_process_has_committed,
    find_signed_in_knows_of_another_s_change_within_a_second,
    authors_are_shown_as_this_process_has_last_committed_them,
    lists_show_what_another_has_made_of_an_author_within_a_second,
    list_is_filtered_ordered_and_cut,
    list_holds_no_erased_account,
    update_stores_what_changed,
    update_is_stale_unless_the_stored_version_is_the_one_before,
    update_reports_a_taken_email_as_duplicate,
    password_hash_is_what_was_set_last,
    password_hash_is_kept_from_changing_until_the_unit_ends,
    set_password_hash_of_no_account_is_stale,
    erase_forgets_the_person_and_keeps_the_row,
    erase_is_stale_where_there_is_no_such_account,
    an_erased_account_is_not_found_and_cannot_be_changed,
    set_email_verified_counts_no_version,
    set_email_verified_of_an_unknown_or_erased_account_is_stale,
    an_erased_account_s_email_is_free_again,
    times_come_back_to_the_microsecond,
    a_row_that_breaks_a_rule_is_corrupt,
];

async fn stored(board: &Board, user: &User) -> Option<User> {
    board.reader().users().find(user.id).await.unwrap()
}

async fn insert(board: &Board, user: &NewUser) -> Result<User, StoreError> {
    board.unit(async |unit| unit.users().insert(user).await).await
}

async fn update(board: &Board, user: &User) -> Result<(), StoreError> {
    board.unit(async |unit| unit.users().update(user).await).await
}

async fn erase(board: &Board, user: &User) -> Result<(), StoreError> {
    board.unit(async |unit| unit.users().erase(user.id, at("2026-02-03T04:05:06.000007Z")).await).await
}

async fn sign_in(board: &Board, user: &User) -> SignInId {
    let secret = || TokenHash::restore(std::array::from_fn(|_| getrandom::u32().unwrap().to_ne_bytes()[0]));
    let new = NewSignIn {
        user: user.id,
        family: secret(),
        current: secret(),
        created_at: noon(),
        expires_at: noon().plus(LIFETIME),
    };
    board.unit(async |unit| unit.sign_ins().insert(&new).await).await.unwrap()
}

fn edited(user: &User, email: &str) -> User {
    User::restore(UserRecord {
        email: Email::parse(email).unwrap(),
        display_name: DisplayName::parse("각".repeat(50).as_str()).unwrap(),
        role: Role::Moderator,
        email_verified_at: Some(at("2026-02-03T04:05:06.000001Z")),
        suspended_at: Some(at("2026-02-03T04:05:06.1Z")),
        updated_at: at("2026-02-03T04:05:06.000007Z"),
        version: user.version.next(),
        ..(**user).clone()
    })
}

async fn insert_returns_the_whole_entity(board: Board) {
    for role in [Role::Member, Role::Moderator, Role::Admin] {
        let new = NewUser { role, ..new_user(&unique_email()) };
        let user = insert(&board, &new).await.unwrap();
        let NewUser { email, display_name, created_at, .. } = new;
        let expected = UserRecord {
            id: user.id,
            email,
            display_name,
            role,
            email_verified_at: None,
            suspended_at: None,
            created_at,
            updated_at: created_at,
            version: Version::FIRST,
        };
        assert_eq!(*user, expected);
        assert_eq!(stored(&board, &user).await, Some(user));
    }
}

async fn insert_reports_a_taken_email_as_duplicate(board: Board) {
    let new = new_user(&unique_email());
    insert(&board, &new).await.unwrap();
    assert_outcome!(insert(&board, &new).await, Err(StoreError::Duplicate(_)));
}

async fn insert_reports_a_taken_email_in_another_spelling_as_duplicate(board: Board) {
    let email = unique_email();
    let user = insert(&board, &new_user(&email)).await.unwrap();
    let shouted = new_user(&email.to_uppercase());
    assert_ne!(user.email, shouted.email, "the spelling is kept");
    assert_outcome!(insert(&board, &shouted).await, Err(StoreError::Duplicate(_)));
}

async fn of_parallel_inserts_of_one_email_exactly_one_wins(board: Board) {
    let new = new_user(&unique_email());
    let outcomes = join_all((0..20).map(|_| insert(&board, &new))).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for outcome in lost {
        assert_outcome!(outcome, Err(StoreError::Duplicate(_)));
    }
}

async fn find_of_an_unknown_id_is_none(board: Board) {
    let users = board.reader().users();
    assert_eq!(users.find(NOBODY).await.unwrap(), None);
    assert_eq!(users.find_locked(NOBODY).await.unwrap(), None);
    assert_eq!(users.find_by_email(&Email::parse(&unique_email()).unwrap()).await.unwrap(), None);
    assert_eq!(users.password_hash(NOBODY).await.unwrap(), None);
}

async fn find_by_email_does_not_mind_its_spelling(board: Board) {
    let email = format!("Hong.Gil-Dong+{}", unique_email());
    let user = insert(&board, &new_user(&email)).await.unwrap();
    assert_eq!(user.email.as_str(), email);
    for spelling in [email.clone(), email.to_lowercase(), email.to_uppercase()] {
        let found = board.reader().users().find_by_email(&Email::parse(&spelling).unwrap()).await.unwrap();
        assert_eq!(found.as_ref(), Some(&user), "{spelling}");
    }
    let other = Email::parse(&email.replace("Hong", "Höng").replace('ö', "o0")).unwrap();
    assert_eq!(board.reader().users().find_by_email(&other).await.unwrap(), None);
}

async fn find_locked_keeps_the_row_from_changing_until_the_unit_ends(board: Board) {
    let user = board.user().await;
    let unit = board.begin().await;
    assert_eq!(unit.users().find_locked(user.id).await.unwrap().as_ref(), Some(&user));
    board.assert_blocked(async |unit| unit.users().update(&edited(&user, &unique_email())).await).await;
    assert_eq!(board.reader().users().find_locked(user.id).await.unwrap().as_ref(), Some(&user));
    unit.commit().await.unwrap();
    update(&board, &edited(&user, &unique_email())).await.unwrap();
}

async fn find_signed_in_needs_that_sign_in_of_that_account(board: Board) {
    let (user, other) = (board.user().await, board.user().await);
    let (here, there, theirs) =
        (sign_in(&board, &user).await, sign_in(&board, &user).await, sign_in(&board, &other).await);
    let users = board.reader().users();
    assert_eq!(users.find_signed_in(user.id, here).await.unwrap().as_ref(), Some(&user));
    assert_eq!(users.find_signed_in(user.id, theirs).await.unwrap(), None, "another's");
    assert_eq!(users.find_signed_in(other.id, here).await.unwrap(), None, "another's");
    board.unit(async |unit| unit.sign_ins().delete(here).await).await.unwrap();
    assert_eq!(users.find_signed_in(user.id, here).await.unwrap(), None, "ended");
    assert_eq!(users.find_signed_in(user.id, there).await.unwrap().as_ref(), Some(&user));
    erase(&board, &user).await.unwrap();
    assert_eq!(users.find_signed_in(user.id, there).await.unwrap(), None, "deleted");
}

async fn find_signed_in_knows_of_every_change_that_this_process_has_committed(board: Board) {
    let user = board.user().await;
    let sign_in = sign_in(&board, &user).await;
    let users = board.reader().users();
    let found = async || users.find_signed_in(user.id, sign_in).await.unwrap();
    assert_eq!(found().await.as_ref(), Some(&user));
    // Not yet, not ever, and then at once.
    let changed = edited(&user, &unique_email());
    let unit = board.begin().await;
    unit.users().update(&changed).await.unwrap();
    assert_eq!(found().await.as_ref(), Some(&user));
    drop(unit);
    assert_eq!(found().await.as_ref(), Some(&user));
    update(&board, &changed).await.unwrap();
    assert_eq!(found().await.as_ref(), Some(&changed));
    let at = at("2026-02-04T04:05:06.000007Z");
    board.unit(async |unit| unit.users().set_email_verified(user.id, at).await).await.unwrap();
    assert_eq!(found().await.unwrap().email_verified_at, Some(at));
    board.unit(async |unit| unit.sign_ins().delete_all_of(user.id).await).await.unwrap();
    assert_eq!(found().await, None);
}

async fn find_signed_in_knows_of_another_s_change_within_a_second(board: Board) {
    let settings = board.server.new_database().await;
    let (here, there) = (board.on(&settings).await, board.on(&settings).await);
    let user = here.user().await;
    let sign_in = sign_in(&here, &user).await;
    let found = async || here.reader().users().find_signed_in(user.id, sign_in).await.unwrap();
    assert_eq!(found().await.as_ref(), Some(&user));
    let changed = edited(&user, &unique_email());
    update(&there, &changed).await.unwrap();
    let start = Instant::now();
    while found().await.as_ref() != Some(&changed) {
        // What is remembered lasts for one; the rest is for a machine that is busy.
        assert!(start.elapsed() < Duration::from_secs(5), "still the old one");
        tokio::task::yield_now().await;
    }
}

/// The authors of the newest questions: of the list, of the same ones found at the same time, and of the newest comments on one.
async fn shown(from: &dyn Repositories, on: QnaId, count: u64) -> [Vec<Author>; 3] {
    let slice = slice(Order::Newest, None, count);
    let listed = from.qnas().list(None, &slice).await.unwrap();
    let found = join_all(listed.iter().map(async |qna| from.qnas().find(qna.id).await.unwrap().unwrap())).await;
    let comments = from.comments().list(on, &slice).await.unwrap();
    [
        listed.iter().map(|qna| qna.author.clone()).collect(),
        found.iter().map(|qna| qna.author.clone()).collect(),
        comments.iter().map(|comment| comment.author.clone()).collect(),
    ]
}

async fn authors_are_shown_as_this_process_has_last_committed_them(board: Board) {
    let board = board.own().await;
    let (ann, bob) = (board.user().await, board.user().await);
    let on = board.qna(&ann).await.id;
    board.qna(&bob).await;
    for author in [&ann, &bob] {
        let comment = new_comment(on, author);
        board.unit(async |unit| unit.comments().insert(&comment).await).await.unwrap();
    }
    let last = async || shown(board.reader(), on, 1).await;
    let both = async || shown(board.reader(), on, 2).await;
    let each = |authors: &[Author]| [authors.to_vec(), authors.to_vec(), authors.to_vec()];
    let authors = |first: &User, second: &User| each(&[first.author(), second.author()]);
    // When nobody is remembered, when all are, and when one is.
    for _ in 0..2 {
        assert_eq!(last().await, each(&[bob.author()]));
    }
    assert_eq!(both().await, authors(&bob, &ann));
    // Not yet, not ever, and then at once; the unit itself knows.
    let renamed = edited(&ann, &unique_email());
    let unit = board.begin().await;
    assert_eq!(shown(&*unit, on, 2).await, authors(&bob, &ann));
    unit.users().update(&renamed).await.unwrap();
    assert_eq!(shown(&*unit, on, 2).await, authors(&bob, &renamed));
    assert_eq!(both().await, authors(&bob, &ann));
    drop(unit);
    assert_eq!(both().await, authors(&bob, &ann));
    update(&board, &renamed).await.unwrap();
    assert_eq!(both().await, authors(&bob, &renamed));
    erase(&board, &bob).await.unwrap();
    let gone = Author { id: bob.id, display_name: None, email: None };
    assert_eq!(both().await, each(&[gone, renamed.author()]));
    board.close().await;
}

async fn lists_show_what_another_has_made_of_an_author_within_a_second(board: Board) {
    let settings = board.server.new_database().await;
    let (here, there) = (board.on(&settings).await, board.on(&settings).await);
    let user = here.user().await;
    here.qna(&user).await;
    let renamed = edited(&user, &unique_email());
    let shown = async |author: &User| {
        let listed = here.reader().qnas().list(Some(author.id), &slice(Order::Newest, None, 1)).await.unwrap();
        listed[0].author.clone()
    };
    assert_eq!(shown(&user).await, user.author());
    update(&there, &renamed).await.unwrap();
    let start = Instant::now();
    while shown(&user).await != renamed.author() {
        assert!(start.elapsed() < Duration::from_secs(5), "still the old one");
        // Others who are met meanwhile must not make it last.
        let other = there.user().await;
        there.qna(&other).await;
        assert_eq!(shown(&other).await, other.author());
    }
}

async fn list_is_filtered_ordered_and_cut(board: Board) {
    let board = board.own().await;
    let mut all = Vec::new();
    for (role, is_suspended) in [
        (Role::Member, false),
        (Role::Admin, false),
        (Role::Member, true),
        (Role::Moderator, true),
        (Role::Member, false),
    ] {
        let user = insert(&board, &new_user(&unique_email())).await.unwrap();
        let suspended_at = is_suspended.then(noon);
        let user = User::restore(UserRecord { role, suspended_at, version: user.version.next(), ..(*user).clone() });
        update(&board, &user).await.unwrap();
        all.push(user);
    }
    let list = async |role, suspended, order, after: Option<usize>, limit| {
        let listing = UserListing { role, suspended, order };
        let slice = slice(order, after.map(|index: usize| all[index].id.get()), limit);
        let found = board.reader().users().list(&listing, &slice).await.unwrap();
        let index = |user: &User| all.iter().position(|other| other == user).unwrap();
        found.iter().map(index).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, Order::Oldest, None, 10).await, [0, 1, 2, 3, 4]);
    assert_eq!(list(None, None, Order::Newest, Some(3), 2).await, [2, 1]);
    assert_eq!(list(None, None, Order::Oldest, Some(1), 2).await, [2, 3]);
    assert_eq!(list(Some(Role::Member), None, Order::Oldest, None, 10).await, [0, 2, 4]);
    assert_eq!(list(None, Some(true), Order::Newest, None, 10).await, [3, 2]);
    assert_eq!(list(Some(Role::Member), Some(false), Order::Oldest, Some(0), 10).await, [4]);
    board.close().await;
}

async fn list_holds_no_erased_account(board: Board) {
    let board = board.own().await;
    let (gone, kept) = (board.user().await, board.user().await);
    erase(&board, &gone).await.unwrap();
    let listing = UserListing { role: None, suspended: None, order: Order::Oldest };
    let found = board.reader().users().list(&listing, &slice(Order::Oldest, None, 10)).await.unwrap();
    assert_eq!(found, [kept]);
    board.close().await;
}

async fn update_stores_what_changed(board: Board) {
    let user = board.user().await;
    let second = edited(&user, &unique_email());
    update(&board, &second).await.unwrap();
    assert_eq!(stored(&board, &user).await.as_ref(), Some(&second));
    assert_eq!(board.reader().users().find_by_email(&user.email).await.unwrap(), None, "the old address");
    assert_eq!(board.reader().users().find_by_email(&second.email).await.unwrap().as_ref(), Some(&second));
    let third = User::restore(UserRecord { suspended_at: None, version: second.version.next(), ..(*second).clone() });
    update(&board, &third).await.unwrap();
    assert_eq!(stored(&board, &user).await, Some(third));
}

async fn update_is_stale_unless_the_stored_version_is_the_one_before(board: Board) {
    let user = board.user().await;
    let second = edited(&user, &unique_email());
    let third = edited(&second, &unique_email());
    assert_outcome!(update(&board, &third).await, Err(StoreError::Stale));
    assert_outcome!(update(&board, &user).await, Err(StoreError::Stale));
    update(&board, &second).await.unwrap();
    assert_outcome!(update(&board, &second).await, Err(StoreError::Stale));
    assert_eq!(stored(&board, &user).await, Some(second));
}

async fn update_reports_a_taken_email_as_duplicate(board: Board) {
    let (user, other) = (board.user().await, board.user().await);
    for email in [other.email.as_str().to_owned(), other.email.as_str().to_uppercase()] {
        assert_outcome!(update(&board, &edited(&user, &email)).await, Err(StoreError::Duplicate(_)));
    }
    assert_eq!(stored(&board, &user).await.as_ref(), Some(&user));
    // The own address in another spelling is nobody else's.
    update(&board, &edited(&user, &user.email.as_str().to_uppercase())).await.unwrap();
}

async fn password_hash_is_what_was_set_last(board: Board) {
    let users = board.reader().users();
    let user = board.user().await;
    assert_eq!(users.password_hash(user.id).await.unwrap(), Some(hash("first")));
    board.unit(async |unit| unit.users().set_password_hash(user.id, &hash("second")).await).await.unwrap();
    assert_eq!(users.password_hash(user.id).await.unwrap(), Some(hash("second")));
    assert_eq!(stored(&board, &user).await, Some(user), "a password is no edit");
    let without = insert(&board, &NewUser { password: None, ..new_user(&unique_email()) }).await.unwrap();
    assert_eq!(users.password_hash(without.id).await.unwrap(), None);
}

async fn password_hash_is_kept_from_changing_until_the_unit_ends(board: Board) {
    let user = board.user().await;
    let unit = board.begin().await;
    assert_eq!(unit.users().password_hash(user.id).await.unwrap(), Some(hash("first")));
    board.assert_blocked(async |unit| unit.users().set_password_hash(user.id, &hash("other")).await).await;
    assert_eq!(board.reader().users().password_hash(user.id).await.unwrap(), Some(hash("first")));
    unit.commit().await.unwrap();
    board.unit(async |unit| unit.users().set_password_hash(user.id, &hash("other")).await).await.unwrap();
}

async fn set_password_hash_of_no_account_is_stale(board: Board) {
    let outcome = board.unit(async |unit| unit.users().set_password_hash(NOBODY, &hash("other")).await).await;
    assert_outcome!(outcome, Err(StoreError::Stale));
}

async fn erase_forgets_the_person_and_keeps_the_row(board: Board) {
    let user = board.user().await;
    board.qna(&user).await;
    erase(&board, &user).await.unwrap();
    let row = board
        .writer()
        .query_one_raw(Statement::from_string(
            board.writer().get_database_backend(),
            format!(
                "SELECT COUNT(*) AS kept, COUNT(email) + COUNT(email_key) + COUNT(display_name) + COUNT(password_hash)
                 AS known, COUNT(deleted_at) AS deleted FROM users WHERE user_id = {}",
                user.id
            ),
        ))
        .await
        .unwrap()
        .unwrap();
    let count = |column: &str| row.try_get::<i64>("", column).unwrap();
    assert_eq!((count("kept"), count("known"), count("deleted")), (1, 0, 1));
}

async fn erase_is_stale_where_there_is_no_such_account(board: Board) {
    let user = board.user().await;
    erase(&board, &user).await.unwrap();
    assert_outcome!(erase(&board, &user).await, Err(StoreError::Stale));
    let unknown = User::restore(UserRecord { id: NOBODY, ..(*user).clone() });
    assert_outcome!(erase(&board, &unknown).await, Err(StoreError::Stale));
}

async fn an_erased_account_is_not_found_and_cannot_be_changed(board: Board) {
    let user = board.user().await;
    erase(&board, &user).await.unwrap();
    let users = board.reader().users();
    assert_eq!(stored(&board, &user).await, None);
    assert_eq!(users.find_by_email(&user.email).await.unwrap(), None);
    assert_eq!(users.password_hash(user.id).await.unwrap(), None);
    assert_eq!(board.unit(async |unit| unit.users().find_locked(user.id).await).await.unwrap(), None);
    let newer = edited(&user, user.email.as_str());
    assert_outcome!(update(&board, &newer).await, Err(StoreError::Stale));
    // Even in the version that it has now.
    assert_outcome!(update(&board, &edited(&newer, user.email.as_str())).await, Err(StoreError::Stale));
    let outcome = board.unit(async |unit| unit.users().set_password_hash(user.id, &hash("other")).await).await;
    assert_outcome!(outcome, Err(StoreError::Stale));
}

async fn set_email_verified_counts_no_version(board: Board) {
    let user = board.user().await;
    let verified = at("2026-02-03T04:05:06.000007Z");
    board.unit(async |unit| unit.users().set_email_verified(user.id, verified).await).await.unwrap();
    let expected = UserRecord { email_verified_at: Some(verified), ..(*user).clone() };
    assert_eq!(*stored(&board, &user).await.unwrap(), expected);
}

async fn set_email_verified_of_an_unknown_or_erased_account_is_stale(board: Board) {
    let user = board.user().await;
    erase(&board, &user).await.unwrap();
    for id in [user.id, NOBODY] {
        let outcome = board.unit(async |unit| unit.users().set_email_verified(id, noon()).await).await;
        assert_outcome!(outcome, Err(StoreError::Stale));
    }
}

async fn an_erased_account_s_email_is_free_again(board: Board) {
    let user = board.user().await;
    erase(&board, &user).await.unwrap();
    let again = insert(&board, &new_user(user.email.as_str())).await.unwrap();
    assert_ne!(again.id, user.id);
    assert_eq!(board.reader().users().find_by_email(&user.email).await.unwrap(), Some(again));
    // Two erased accounts do not meet in the unique key.
    let other = board.user().await;
    erase(&board, &other).await.unwrap();
}

async fn times_come_back_to_the_microsecond(board: Board) {
    for time in times() {
        let user = insert(&board, &NewUser { created_at: time, ..new_user(&unique_email()) }).await.unwrap();
        let suspended = User::restore(UserRecord {
            suspended_at: Some(time),
            updated_at: time,
            version: user.version.next(),
            ..(*user).clone()
        });
        update(&board, &suspended).await.unwrap();
        assert_eq!(stored(&board, &user).await, Some(suspended));
    }
}

async fn a_row_that_breaks_a_rule_is_corrupt(board: Board) {
    let board = board.own().await;
    let user = board.user().await;
    for breaks in [
        "UPDATE users SET role = 'king'",
        "UPDATE users SET role = 'member', email = NULL",
        "UPDATE users SET email = 'rubbish'",
        "UPDATE users SET email = 'a@b.example', display_name = NULL",
        "UPDATE users SET display_name = ''",
    ] {
        board.sql(breaks).await;
        let Err(StoreError::Corrupt { table, id, .. }) = board.reader().users().find(user.id).await else {
            panic!("{breaks}")
        };
        assert_eq!((table, id), ("users", user.id.get()));
    }
}
