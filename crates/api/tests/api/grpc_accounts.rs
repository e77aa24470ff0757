//! Accounts, signing in and administration over gRPC.

use mundap_grpc::v1;
use mundap_grpc::v1::export_account_response::Piece;
use prost_types::FieldMask;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::board::{Board, PASSWORD, new_email};
use crate::grpc::{Caller, reason};
use crate::images::a_png;

crate::tests![
    somebody_registers_signs_in_and_leaves,
    a_refresh_token_is_good_once,
    an_administrator_changes_roles_and_all_is_in_the_log,
    everything_that_is_kept_is_sent,
];

fn register(
    caller: &Caller,
    email: &str,
    name: &str,
    password: &str,
    key: &str,
) -> Result<Response<v1::Account>, Status> {
    let account = v1::Account { email: email.to_owned(), display_name: name.to_owned(), ..v1::Account::default() };
    let (password, idempotency_key) = (password.to_owned(), key.to_owned());
    let request = v1::CreateAccountRequest { account: Some(account), password, idempotency_key };
    caller.run(caller.accounts().create_account(request))
}

fn sign_in(caller: &Caller, email: &str, password: &str) -> Result<v1::Tokens, Status> {
    let request = v1::SignInRequest { email: email.to_owned(), password: password.to_owned() };
    caller.run(caller.auth().sign_in(request)).map(Response::into_inner)
}

fn refresh(caller: &Caller, token: &str) -> Result<v1::Tokens, Status> {
    let request = v1::RefreshTokenRequest { refresh_token: token.to_owned() };
    caller.run(caller.auth().refresh_token(request)).map(Response::into_inner)
}

fn account(caller: &Caller) -> Result<v1::Account, Status> {
    caller.run(caller.accounts().get_account(v1::GetAccountRequest {})).map(Response::into_inner)
}

fn somebody_registers_signs_in_and_leaves(board: &Board) {
    let server = board.server();
    let (anybody, email, key) = (Caller::of(server), new_email(), new_email());
    let bad = register(&anybody, "nobody", "", "short", "").unwrap_err();
    let details = bad.get_error_details();
    let fields = details.bad_request().unwrap().field_violations.iter().map(|field| &*field.field);
    assert_eq!(fields.collect::<Vec<_>>(), ["account.email", "password", "account.display_name"]);
    let made = register(&anybody, &email, "Cho", PASSWORD, &key).unwrap().into_inner();
    assert_eq!(register(&anybody, &email, "Cho", PASSWORD, &key).unwrap().into_inner(), made);
    let taken = register(&anybody, &email.to_uppercase(), "Cho", PASSWORD, "").unwrap_err();
    assert_eq!((taken.code(), &*reason(&taken)), (Code::AlreadyExists, "email_taken"));
    assert_eq!((made.role(), made.suspended, made.email_verified), (v1::Role::Member, false, false));

    let wrong = sign_in(&anybody, &email, "not the password").unwrap_err();
    assert_eq!((wrong.code(), &*reason(&wrong)), (Code::PermissionDenied, "invalid_credentials"));
    let tokens = sign_in(&anybody, &email, PASSWORD).unwrap();
    assert!(tokens.expires_in.unwrap().seconds > 60);
    let caller = Caller::of(server).bearer(&tokens.access_token);
    assert_eq!(account(&caller).unwrap(), made);
    // REST takes the same token.
    let rest = server.get("/api/v1/users/me").bearer(&tokens.access_token).send().is(200).json();
    assert_eq!((rest["user_id"].as_i64(), rest["email"].as_str()), (Some(made.user_id), Some(&*email)));

    let update = |account: v1::Account, paths: &[&str]| {
        let update_mask = Some(FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
        let request = v1::UpdateAccountRequest { account: Some(account), update_mask };
        caller.run(caller.accounts().update_account(request)).map(Response::into_inner)
    };
    let named =
        update(v1::Account { display_name: "Cho Young".to_owned(), ..made.clone() }, &["display_name"]).unwrap();
    assert_eq!((&*named.display_name, &*named.email, named.version), ("Cho Young", &*email, 2));
    assert_eq!(reason(&update(made.clone(), &["display_name"]).unwrap_err()), "version_mismatch");
    assert_eq!(reason(&update(named.clone(), &["role"]).unwrap_err()), "validation_failed");
    let profile = anybody.run(anybody.users().get_user(v1::GetUserRequest { user_id: made.user_id })).unwrap();
    assert_eq!(profile.into_inner().display_name, "Cho Young");

    let change = |current: &str, new: &str| {
        let (current_password, new_password) = (current.to_owned(), new.to_owned());
        caller.run(caller.accounts().change_password(v1::ChangePasswordRequest { current_password, new_password }))
    };
    assert_eq!(reason(&change("not the password", "another horse").unwrap_err()), "invalid_credentials");
    change(PASSWORD, "another horse").unwrap();
    let ended = account(&caller).unwrap_err();
    assert_eq!((ended.code(), &*reason(&ended)), (Code::Unauthenticated, "invalid_token"));
    let tokens = sign_in(&anybody, &email, "another horse").unwrap();
    let caller = Caller::of(server).bearer(&tokens.access_token);
    caller.run(caller.accounts().delete_account(v1::DeleteAccountRequest { etag: named.etag })).unwrap();
    assert_eq!(reason(&sign_in(&anybody, &email, "another horse").unwrap_err()), "invalid_credentials");
}

fn a_refresh_token_is_good_once(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let anybody = Caller::of(server);
    let first = sign_in(&anybody, &user.email, PASSWORD).unwrap();
    // A token that is not good any more is no hindrance: none of this looks at it.
    let old = Caller::of(server).bearer("of last year");
    let second = refresh(&old, &first.refresh_token).unwrap();
    let third = refresh(&anybody, &second.refresh_token).unwrap();
    // Two steps back: not a lost answer.
    let again = refresh(&anybody, &first.refresh_token).unwrap_err();
    assert_eq!((again.code(), &*reason(&again)), (Code::Unauthenticated, "invalid_refresh_token"));
    assert_eq!(reason(&refresh(&anybody, &third.refresh_token).unwrap_err()), "invalid_refresh_token");
    let tokens = sign_in(&anybody, &user.email, PASSWORD).unwrap();
    let caller = Caller::of(server).bearer(&tokens.access_token);
    account(&caller).unwrap();
    let revoke = v1::RevokeTokenRequest { token: tokens.refresh_token };
    anybody.run(anybody.auth().revoke_token(revoke)).unwrap();
    assert_eq!(reason(&account(&caller).unwrap_err()), "invalid_token");
}

fn an_administrator_changes_roles_and_all_is_in_the_log(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let admin = Caller::of(server).by(board.admin());
    let get = || {
        let request = v1::GetUserAccountRequest { user_id: user.id };
        admin.run(admin.admin().get_user_account(request)).map(Response::into_inner)
    };
    let before = get().unwrap();
    assert_eq!((before.role(), &*before.email), (v1::Role::Member, &*user.email));
    let update = |account: v1::Account, paths: Option<&[&str]>| {
        let update_mask = paths.map(|paths| FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
        let request = v1::UpdateUserAccountRequest { account: Some(account), update_mask };
        admin.run(admin.admin().update_user_account(request)).map(Response::into_inner)
    };
    let role = v1::Role::Moderator.into();
    let promoted = update(v1::Account { role, suspended: true, ..before.clone() }, Some(&["role"])).unwrap();
    assert_eq!((promoted.role(), promoted.suspended, promoted.version), (v1::Role::Moderator, false, 2));
    assert_eq!(reason(&update(before.clone(), Some(&["role"])).unwrap_err()), "version_mismatch");
    let suspended = v1::Account { user_id: user.id, suspended: true, ..v1::Account::default() };
    let suspended = update(suspended, None).unwrap();
    assert_eq!((suspended.role(), suspended.suspended), (v1::Role::Moderator, true));
    assert_eq!(reason(&account(&Caller::of(server).by(&user)).unwrap_err()), "invalid_token");
    for (bad, paths) in [(0, &["role"][..]), (9, &["role"]), (1, &["email"])] {
        let refused = update(v1::Account { role: bad, ..suspended.clone() }, Some(paths)).unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "validation_failed"), "{paths:?}");
    }
    let own = v1::Account { user_id: board.admin().id, role, ..v1::Account::default() };
    assert_eq!(reason(&update(own, None).unwrap_err()), "own_account");

    let list = v1::ListAccountsRequest {
        page_size: 100,
        role,
        suspended: Some(true),
        order: v1::Order::Newest.into(),
        ..v1::ListAccountsRequest::default()
    };
    let listed = admin.run(admin.admin().list_accounts(list)).unwrap().into_inner();
    assert!(listed.accounts.iter().any(|account| account.user_id == user.id));
    assert!(listed.accounts.iter().all(|account| account.suspended && account.role() == v1::Role::Moderator));
    let entries = v1::ListAuditEntriesRequest { user_id: Some(user.id), ..v1::ListAuditEntriesRequest::default() };
    let entries = admin.run(admin.admin().list_audit_entries(entries)).unwrap().into_inner().audit_entries;
    let target = format!("/api/v1/admin/audit?user_id={}", user.id);
    let rest = server.get(target).by(board.admin()).send().is(200).json();
    // The last reading of the log is in the log.
    let rest = rest["items"].as_array().unwrap().iter().skip(1);
    let actions: Vec<_> = entries.iter().map(|entry| (entry.audit_id, &*entry.action)).collect();
    let of_rest: Vec<_> =
        rest.map(|entry| (entry["audit_id"].as_i64().unwrap(), entry["action"].as_str().unwrap())).collect();
    let start = of_rest.iter().position(|entry| *entry == actions[0]).unwrap();
    assert_eq!(of_rest[start..], actions[..]);
    let role = entries.iter().find(|entry| entry.role_after.is_some()).unwrap();
    assert_eq!((role.role_before.as_deref(), role.role_after.as_deref()), (Some("member"), Some("moderator")));
    assert_eq!((role.actor_id, role.user_id), (Some(board.admin().id), Some(user.id)));
}

fn everything_that_is_kept_is_sent(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let path = server.ask_at(&user, "Mine");
    let comment = server.comment_at(&user, &path, "Mine too");
    let image = server.image_at(&user, &comment, &a_png());
    let bytes = server.get(image).send().is(200).body;
    let role = serde_json::json!({"role": "moderator"});
    server.patch(format!("/api/v1/admin/users/{}", user.id)).by(board.admin()).json(role).send().is(200);
    let caller = Caller::of(server).by(&user);
    let pieces = caller.run(async {
        let mut stream = caller.accounts().export_account(v1::ExportAccountRequest {}).await.unwrap().into_inner();
        let mut pieces = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            pieces.push(message.piece.unwrap());
        }
        pieces
    });
    let mut pieces = pieces.into_iter();
    assert!(matches!(pieces.next(), Some(Piece::Account(account)) if account.user_id == user.id));
    assert!(matches!(pieces.next(), Some(Piece::SignIn(_))));
    assert!(matches!(pieces.next(), Some(Piece::Qna(qna)) if qna.title == "Mine"));
    assert!(matches!(pieces.next(), Some(Piece::Comment(comment)) if comment.content == "Mine too"));
    assert!(matches!(pieces.next(), Some(Piece::Image(_))));
    assert!(matches!(pieces.next(), Some(Piece::ImageData(data)) if data == bytes));
    assert!(matches!(pieces.next(), Some(Piece::AuditEntry(entry)) if entry.action == "assigned_role"));
    assert_eq!(pieces.next(), None);
    // As REST, which has it in one document.
    let mut request = Request::new(v1::ExportAccountRequest {});
    request.metadata_mut().insert("x-request-id", "an-export".parse().unwrap());
    let stranger = Caller::of(server);
    let refused = stranger.run(stranger.accounts().export_account(request)).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
