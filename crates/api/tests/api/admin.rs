//! What administrators do over HTTP and from the console, and the audit log of it.

use serde_json::{Value, json};

use crate::board::{Board, PASSWORD, User};
use crate::client::Reply;
use crate::server::{Server, run};

crate::tests![
    a_role_is_given_and_bites_at_once,
    a_suspension_ends_every_sign_in,
    a_reinstated_account_writes_again,
    a_change_made_on_a_stale_account_is_refused,
    nobody_changes_their_own_role_or_suspends_themselves,
    a_change_is_checked_field_by_field,
    the_list_is_filtered_and_walked,
    a_deleted_account_is_in_no_list,
    every_use_is_in_the_audit_log,
    the_console_is_in_the_audit_log_too,
];

fn path(user: &User) -> String {
    format!("/api/v1/admin/users/{}", user.id)
}

fn change(server: &Server, by: &User, user: &User, body: Value) -> Reply {
    server.patch(path(user)).by(by).json(body).send()
}

/// What the log says of an account, oldest first: who, what, and the roles.
fn audit(server: &Server, admin: &User, user: &User) -> Vec<(Option<i64>, String, Value, Value)> {
    let target = format!("/api/v1/admin/audit?user_id={}&limit=100", user.id);
    let page = server.get(target).by(admin).send().is(200).json();
    let mut entries: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            assert_eq!(entry["user_id"], user.id, "{entry}");
            let action = entry["action"].as_str().unwrap().to_owned();
            (entry["actor_id"].as_i64(), action, entry["role_before"].clone(), entry["role_after"].clone())
        })
        .collect();
    entries.reverse();
    entries
}

fn a_role_is_given_and_bites_at_once(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let qna = server.ask_at(board.ann(), "Who looks after this?");
    server.patch(&qna).by(&user).json(json!({"title": "Mine"})).send().problem(403, "not_author");
    let changed = change(server, board.admin(), &user, json!({"role": "moderator"})).is(200);
    assert_eq!((&changed.json()["role"], &changed.json()["version"]), (&json!("moderator"), &json!(2)));
    // The same token, the next request.
    server.patch(&qna).by(&user).json(json!({"title": "Looked after"})).send().is(200);
    server.get("/api/v1/admin/users").by(&user).send().problem(403, "not_admin");
    change(server, board.admin(), &user, json!({"role": "member"})).is(200);
    server.patch(&qna).by(&user).json(json!({"title": "Mine"})).send().problem(403, "not_author");
    // What is so already is no change.
    let same = change(server, board.admin(), &user, json!({"role": "member", "suspended": false})).is(200);
    assert_eq!(same.json()["version"], 3);
}

fn a_suspension_ends_every_sign_in(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let qna = server.ask_at(&user, "Asked before");
    let suspended = change(server, board.admin(), &user, json!({"suspended": true})).is(200).json();
    assert_eq!(suspended["suspended"], true);
    server.get("/api/v1/users/me").by(&user).send().problem(401, "invalid_token");
    assert_eq!(server.refresh(&user.refresh).is(400).json()["error"], "invalid_grant");
    // It may sign in again, to read and to leave.
    let tokens = server.sign_in(&user.email, PASSWORD).is(200).json();
    let token = tokens["access_token"].as_str().unwrap();
    server.patch(&qna).bearer(token).json(json!({"title": "After"})).send().problem(403, "account_suspended");
    server.get(&qna).bearer(token).send().is(200);
}

fn a_reinstated_account_writes_again(board: &Board) {
    let server = board.server();
    let user = server.new_suspended_user();
    server.post("/api/v1/qna").by(&user).json(json!({"title": "A", "content": ""})).send().is(403);
    change(server, board.admin(), &user, json!({"suspended": false})).is(200);
    server.post("/api/v1/qna").by(&user).json(json!({"title": "A", "content": ""})).send().is(201);
}

fn a_change_made_on_a_stale_account_is_refused(board: &Board) {
    let server = board.server();
    let (admin, user) = (board.admin(), server.new_user());
    let read = server.get(path(&user)).by(admin).send().is(200);
    let etag = read.etag();
    server.get(path(&user)).by(admin).header("if-none-match", &etag).send().is(304);
    let with = |tag: &str, role: &str| {
        server.patch(path(&user)).by(admin).header("if-match", tag).json(json!({"role": role})).send()
    };
    let newer = with(&etag, "moderator").is(200).etag();
    with(&etag, "admin").problem(412, "version_mismatch");
    with(&newer, "member").is(200);
}

fn nobody_changes_their_own_role_or_suspends_themselves(board: &Board) {
    let server = board.server();
    let admin = board.admin();
    for body in [json!({"role": "member"}), json!({"suspended": true}), json!({})] {
        change(server, admin, admin, body).problem(403, "own_account");
    }
    let other = server.new_user_with_role("admin");
    change(server, admin, &other, json!({"role": "member"})).is(200);
    server.get("/api/v1/admin/users").by(&other).send().problem(403, "not_admin");
}

fn a_change_is_checked_field_by_field(board: &Board) {
    let server = board.server();
    let (admin, user) = (board.admin(), board.ann());
    change(server, admin, user, json!({"role": "king", "suspended": "yes", "email": "new@example.com"})).violates(&[
        "/role not_one_of",
        "/suspended not_a_boolean",
        "/email unknown_field",
    ]);
    change(server, admin, user, json!({"role": null})).violates(&["/role not_a_string"]);
    for target in ["?role=king", "?suspended=perhaps", "?order=random", "?limit=0"] {
        server.get(format!("/api/v1/admin/users{target}")).by(admin).send().problem(422, "validation_failed");
    }
    for target in ["?rolle=admin", "?limit=a"] {
        server.get(format!("/api/v1/admin/users{target}")).by(admin).send().problem(400, "invalid_query");
    }
    server.get("/api/v1/admin/audit?user_id=a").by(admin).send().problem(400, "invalid_query");
    // What is asked for is written down, so it must be an id that an account can have.
    for nobody in ["0", "-9223372036854775808", "9007199254740992", "9223372036854775808"] {
        server
            .get(format!("/api/v1/admin/audit?user_id={nobody}"))
            .by(admin)
            .send()
            .violates(&["/user_id out_of_range"]);
    }
    server.get("/api/v1/admin/users/x").by(admin).send().problem(400, "invalid_path");
}

/// All ids of a list, by its cursors.
fn walk(server: &Server, admin: &User, query: &str) -> Vec<i64> {
    let mut ids = Vec::new();
    let mut next = format!("/api/v1/admin/users?limit=2{query}");
    loop {
        let page = server.get(&next).by(admin).send().is(200);
        let body = page.json();
        ids.extend(body["items"].as_array().unwrap().iter().map(|item| item["user_id"].as_i64().unwrap()));
        let Some(cursor) = body["next"].as_str() else { return ids };
        assert!(page.header("link").unwrap().contains(cursor), "{page}");
        next = format!("/api/v1/admin/users?limit=2{query}&cursor={cursor}");
    }
}

fn the_list_is_filtered_and_walked(board: &Board) {
    let server = board.own(&crate::server::Options::default());
    let admin = server.new_user_with_role("admin");
    let members: Vec<i64> = (0..3).map(|_| server.new_user().id).collect();
    let suspended = server.new_suspended_user().id;
    let moderator = server.new_user_with_role("moderator").id;
    let mut all = [vec![admin.id], members.clone(), vec![suspended, moderator]].concat();
    assert_eq!(walk(&server, &admin, "&order=oldest"), all);
    all.reverse();
    assert_eq!(walk(&server, &admin, ""), all);
    assert_eq!(walk(&server, &admin, "&role=moderator"), [moderator]);
    assert_eq!(walk(&server, &admin, "&suspended=true"), [suspended]);
    assert_eq!(walk(&server, &admin, "&suspended=false&role=member&order=oldest"), members);
    let first = server.get("/api/v1/admin/users?limit=1").by(&admin).send().is(200).json();
    let cursor = first["next"].as_str().unwrap();
    let other = format!("/api/v1/admin/users?limit=1&role=member&cursor={cursor}");
    server.get(other).by(&admin).send().problem(400, "invalid_cursor");
}

fn a_deleted_account_is_in_no_list(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    server.delete("/api/v1/users/me").by(&user).send().is(204);
    server.get(path(&user)).by(board.admin()).send().problem(404, "user_not_found");
    change(server, board.admin(), &user, json!({"role": "admin"})).problem(404, "user_not_found");
    assert!(!walk(server, board.admin(), "").contains(&user.id));
}

fn every_use_is_in_the_audit_log(board: &Board) {
    let server = board.server();
    let (admin, user) = (board.admin(), server.new_user());
    change(server, admin, &user, json!({"role": "moderator", "suspended": true})).is(200);
    change(server, admin, &user, json!({"suspended": false})).is(200);
    server.get(path(&user)).by(admin).send().is(200);
    // What was refused did not happen.
    change(server, board.moderator(), &user, json!({"role": "member"})).is(403);
    let by = Some(admin.id);
    let expected = vec![
        (by, "assigned_role".to_owned(), json!("member"), json!("moderator")),
        (by, "suspended".to_owned(), Value::Null, Value::Null),
        (by, "reinstated".to_owned(), Value::Null, Value::Null),
        (by, "read_user".to_owned(), Value::Null, Value::Null),
        // This look itself.
        (by, "read_audit".to_owned(), Value::Null, Value::Null),
    ];
    assert_eq!(audit(server, admin, &user), expected);
    server.get("/api/v1/admin/users").by(admin).send().is(200);
    let newest = server.get("/api/v1/admin/audit?limit=100").by(admin).send().is(200).json();
    let listed = |entry: &Value| entry["action"] == "listed_users" && entry["actor_id"] == admin.id;
    assert!(newest["items"].as_array().unwrap().iter().any(listed), "{newest}");
}

fn the_console_is_in_the_audit_log_too(board: &Board) {
    let server = board.server();
    let user = server.new_user_with_role("moderator");
    for arguments in [
        ["user", "role", &user.email, "member"].as_slice(),
        &["user", "suspend", &user.email],
        &["user", "reinstate", &user.email],
    ] {
        let ended = run(&mut server.command(arguments));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let password = ["user", "password", &user.email, "--password-file", "-"];
    let ended = crate::server::run_with_input(&mut server.command(&password), "battery staple correct\n");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let entries = audit(server, board.admin(), &user);
    let actions: Vec<&str> = entries.iter().map(|(_, action, ..)| action.as_str()).collect();
    assert_eq!(actions, ["added_user", "assigned_role", "suspended", "reinstated", "reset_password", "read_audit"]);
    assert!(entries[..5].iter().all(|(by, ..)| by.is_none()), "{entries:?}");
    assert_eq!((&entries[0].3, &entries[1].2), (&json!("moderator"), &json!("moderator")));
}
