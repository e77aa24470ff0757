//! Registering, the own account, profiles.

use serde_json::{Value, json};

use crate::board::{Board, PASSWORD, User, new_email};
use crate::client::Reply;
use crate::server::{Options, Server};

crate::tests![
    registering_answers_with_the_account,
    an_email_is_one_account_in_every_spelling,
    of_many_who_register_one_email_at_once_one_has_it,
    everything_that_is_wrong_is_told_at_once,
    limits_of_an_account,
    what_the_board_decides_cannot_be_sent,
    a_profile_holds_a_name_and_nothing_private,
    a_new_name_shows_on_everything_written,
    a_new_email_moves_the_sign_in,
    an_empty_patch_writes_nothing,
    an_edit_of_a_stale_account_is_refused,
    a_patch_is_checked_as_a_registration_is,
    a_new_password_ends_every_sign_in,
    a_refused_change_of_password_changes_nothing,
    a_deleted_account_leaves_its_posts,
    a_deleted_account_is_gone,
    a_deleted_account_leaves_no_trace_in_any_table,
    a_stale_account_is_not_deleted,
    a_suspended_account_may_be_read_and_deleted;
    once:
    a_deleted_account_leaves_no_trace_in_the_database_s_file,
];

const ME: &str = "/api/v1/users/me";
const NEW_PASSWORD: &str = "battery staple correct";

fn edit_me(server: &Server, by: &User, body: Value) -> Reply {
    server.patch(ME).by(by).json(body).send()
}

fn change_password(server: &Server, by: &User, current: &str, new: &str) -> Reply {
    let body = json!({"current_password": current, "new_password": new});
    server.post("/api/v1/users/me/password").by(by).json(body).send()
}

fn refuses_to_sign_in(server: &Server, email: &str, password: &str) {
    assert_eq!(server.sign_in(email, password).is(400).json()["error"], "invalid_grant");
}

fn registering_answers_with_the_account(board: &Board) {
    let server = board.server();
    let body = json!({"email": "Mixed.Case@EXAMPLE.Com", "password": PASSWORD, "display_name": "문답이"});
    let reply = server.post("/api/v1/users").json(body).send().is(201);
    let account = reply.json();
    let id = account["user_id"].as_i64().unwrap();
    let expected = json!({
        "user_id": id,
        "email": "Mixed.Case@example.com",
        "display_name": "문답이",
        "email_verified": false,
        "role": "member",
        "suspended": false,
        "created_at": account["created_at"],
        "updated_at": account["created_at"],
        "version": 1,
    });
    assert_eq!(account, expected);
    let location = reply.header("location").unwrap();
    assert_eq!(location, format!("{}/api/v1/users/{id}", server.base()));
    assert!(reply.etag().starts_with("\"1-"), "{reply}");
    assert_eq!(server.get(location).send().is(200).json(), json!({"user_id": id, "display_name": "문답이"}));

    let tokens = server.sign_in("Mixed.Case@example.com", PASSWORD).is(200).json();
    let me = server.get("/api/v1/users/me").bearer(tokens["access_token"].as_str().unwrap()).send().is(200);
    assert_eq!(me.json(), account);
    assert_eq!(me.etag(), reply.etag());
}

fn an_email_is_one_account_in_every_spelling(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    for spelling in [user.email.clone(), user.email.to_uppercase(), user.email.replace("somebody", "SomeBody")] {
        let body = json!({"email": spelling, "password": PASSWORD, "display_name": "Another"});
        server.post("/api/v1/users").json(body).send().problem(409, "email_taken");
    }
    let tokens = server.sign_in(&user.email.to_uppercase(), PASSWORD).is(200).json();
    let me = server.get("/api/v1/users/me").bearer(tokens["access_token"].as_str().unwrap()).send().is(200).json();
    assert_eq!((&me["user_id"], &me["email"]), (&json!(user.id), &json!(user.email)));
}

fn of_many_who_register_one_email_at_once_one_has_it(board: &Board) {
    let server = board.server();
    for _ in 0..5 {
        let email = new_email();
        let spellings = [email.clone(), email.to_uppercase(), email.replace("somebody", "SomeBody")];
        let answers: Vec<Reply> = std::thread::scope(|scope| {
            let register = |spelling: String| {
                let body = json!({"email": spelling, "password": PASSWORD, "display_name": "One of them"});
                move || server.post("/api/v1/users").json(body).send()
            };
            let calls: Vec<_> = (0..6).map(|n| scope.spawn(register(spellings[n % 3].clone()))).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let (registered, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(registered.len(), 1, "{answers:?}");
        for answer in refused {
            assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("email_taken")), "{answer}");
        }
        for spelling in &spellings {
            let tokens = server.sign_in(spelling, PASSWORD).is(200).json();
            let me = server.get(ME).bearer(tokens["access_token"].as_str().unwrap()).send().is(200).json();
            assert_eq!(me["user_id"], registered[0].json()["user_id"]);
        }
    }
}

fn everything_that_is_wrong_is_told_at_once(board: &Board) {
    let register = |body| board.server().post("/api/v1/users").json(body).send();
    register(json!({})).violates(&["/email required", "/password required", "/display_name required"]);
    register(json!({"email": 5, "password": "short", "display_name": " \n", "a/b~c": 1})).violates(&[
        "/email not_a_string",
        "/password too_short",
        "/display_name blank",
        "/a~1b~0c unknown_field",
    ]);
    register(json!({"email": "nobody", "password": null, "display_name": "a\u{7}b"})).violates(&[
        "/email not_an_email",
        "/password not_a_string",
        "/display_name control_character",
    ]);
}

fn limits_of_an_account(board: &Board) {
    let server = board.server();
    let register = |email: &str, password: &str, name: &str| {
        server.post("/api/v1/users").json(json!({"email": email, "password": password, "display_name": name})).send()
    };
    // Counted in characters, not in bytes, and after composing: this name is 50 long and twice that when decomposed.
    let longest_name = "가".repeat(50);
    let account = register(&new_email(), &"암".repeat(256), &"\u{1100}\u{1161}".repeat(50)).is(201).json();
    assert_eq!(account["display_name"], longest_name);
    let email = new_email();
    register(&email, &"p".repeat(257), &"가".repeat(51)).violates(&["/password too_long", "/display_name too_long"]);
    register(&email, "1234567", "").violates(&["/password too_short", "/display_name too_short"]);
    for bad in ["a@b", "a b@example.com", "@example.com", "a@example..com", "a@[127.0.0.1]", "a@example.com\n"] {
        register(bad, PASSWORD, "Nobody").violates(&["/email not_an_email"]);
    }
    for short in ["", "a", "a@"] {
        register(short, PASSWORD, "Nobody").violates(&["/email not_an_email", "/email too_short"]);
    }
    // 254 characters in all, with a domain of labels that are not longer than DNS allows.
    let domain = format!("{}.{}.{}.example", "d".repeat(63), "d".repeat(63), "d".repeat(53));
    let local = "x".repeat(64);
    let longest = format!("{local}@{domain}");
    assert_eq!(longest.len(), 254);
    assert_eq!(register(&longest, PASSWORD, "Nobody").is(201).json()["email"], longest);
    register(&longest.replace(".example", "d.example"), PASSWORD, "Nobody").violates(&["/email too_long"]);
}

fn what_the_board_decides_cannot_be_sent(board: &Board) {
    let server = board.server();
    let fields = [
        ("user_id", json!(1)),
        ("role", json!("admin")),
        ("suspended", json!(false)),
        ("email_verified", json!(true)),
        ("created_at", json!("2026-01-02T12:00:00.000000Z")),
        ("updated_at", json!("2026-01-02T12:00:00.000000Z")),
        ("version", json!(1)),
        ("author", json!({"user_id": 1})),
    ];
    let user = server.new_user();
    let before = server.get(ME).by(&user).send().is(200).json();
    for (name, value) in fields {
        let expected = format!("/{name} unknown_field");
        let mut body = json!({"email": new_email(), "password": PASSWORD, "display_name": "Somebody"});
        body[name] = value.clone();
        server.post("/api/v1/users").json(body).send().violates(&[&expected]);
        let mut patch = json!({"display_name": "Another"});
        patch[name] = value;
        edit_me(server, &user, patch).violates(&[&expected]);
    }
    assert_eq!(server.get(ME).by(&user).send().is(200).json(), before);
}

fn a_profile_holds_a_name_and_nothing_private(board: &Board) {
    let server = board.server();
    let ann = board.ann();
    let path = format!("/api/v1/users/{}", ann.id);
    let expected = json!({"user_id": ann.id, "display_name": ann.name});
    assert_eq!(server.get(&path).send().is(200).json(), expected);
    for by in [ann, board.bob(), board.moderator(), board.admin()] {
        assert_eq!(server.get(&path).by(by).send().is(200).json(), expected);
    }
    for nobody in ["0", "-1", "9007199254740991", "99999999999999999999999"] {
        server.get(format!("/api/v1/users/{nobody}")).send().problem(404, "user_not_found");
    }
    server.get("/api/v1/users/someone").send().problem(400, "invalid_path");
}

fn a_new_name_shows_on_everything_written(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let qna = server.ask_at(&user, "Before the rename");
    let comment = server.comment_at(&user, &qna, "Before the rename");
    let before = server.get(ME).by(&user).send().is(200);
    let reply = edit_me(server, &user, json!({"display_name": "  \u{1112}\u{1161}\u{11ab} Kim "})).is(200);
    let mut expected = before.json();
    expected["display_name"] = json!("  한 Kim ");
    expected["version"] = json!(2);
    expected["updated_at"] = reply.json()["updated_at"].clone();
    assert_eq!(reply.json(), expected);
    assert!(expected["updated_at"].as_str() > before.json()["updated_at"].as_str());
    assert!(reply.etag().starts_with("\"2-"), "{reply}");
    let now = server.get(ME).by(&user).send().is(200);
    assert_eq!((now.json(), now.etag()), (expected, reply.etag()));
    let profile = format!("/api/v1/users/{}", user.id);
    assert_eq!(server.get(profile).send().is(200).json()["display_name"], "  한 Kim ");
    for path in [qna, comment] {
        assert_eq!(server.get(path).send().is(200).json()["author"]["display_name"], "  한 Kim ");
    }
}

fn a_new_email_moves_the_sign_in(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let email = new_email();
    let reply = edit_me(server, &user, json!({"email": email.replace("example.com", "EXAMPLE.com")})).is(200).json();
    assert_eq!((&reply["email"], &reply["version"]), (&json!(email), &json!(2)));
    // Whoever is signed in stays so; the next time takes the new address.
    assert_eq!(server.get(ME).by(&user).send().is(200).json(), reply);
    server.sign_in(&email, PASSWORD).is(200);
    refuses_to_sign_in(server, &user.email, PASSWORD);

    // The old one is free for others, the new one is not, in no spelling; a spelling of one's own is no clash.
    let body = json!({"email": user.email, "password": PASSWORD, "display_name": "The next one"});
    server.post("/api/v1/users").json(body).send().is(201);
    for taken in [user.email.clone(), user.email.to_uppercase(), board.ann().email.clone()] {
        edit_me(server, &user, json!({"email": taken, "display_name": "Not to be"})).problem(409, "email_taken");
    }
    assert_eq!(server.get(ME).by(&user).send().is(200).json(), reply, "a refused edit leaves nothing behind");
    let shouted = email.replace("somebody", "SOMEBODY");
    assert_eq!(edit_me(server, &user, json!({"email": shouted})).is(200).json()["email"], shouted);
    server.sign_in(&email, PASSWORD).is(200);
}

fn an_empty_patch_writes_nothing(board: &Board) {
    let server = board.server();
    let ann = board.ann();
    let before = server.get(ME).by(ann).send().is(200);
    let reply = edit_me(server, ann, json!({})).is(200);
    assert_eq!((reply.json(), reply.etag()), (before.json(), before.etag()));
    server.patch(ME).by(ann).header("if-match", "\"0-stale\"").json(json!({})).send().problem(412, "version_mismatch");
    let after = server.get(ME).by(ann).send().is(200);
    assert_eq!((after.json(), after.etag()), (before.json(), before.etag()));
}

fn an_edit_of_a_stale_account_is_refused(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let first = server.get(ME).by(&user).send().is(200).etag();
    server.get(ME).by(&user).header("if-none-match", &first).send().is(304);
    let edit = |tag: &str, name: &str| {
        server.patch(ME).by(&user).header("if-match", tag).json(json!({"display_name": name})).send()
    };
    let second = edit(&first, "Second").is(200).etag();
    assert_ne!(second, first);
    edit(&first, "Third").problem(412, "version_mismatch");
    let me = server.get(ME).by(&user).header("if-none-match", &first).send().is(200).json();
    assert_eq!((&me["display_name"], &me["version"]), (&json!("Second"), &json!(2)));
    edit(&second, "Third").is(200);
    assert_eq!(edit("*", "Fourth").is(200).json()["version"], 4);
}

fn a_patch_is_checked_as_a_registration_is(board: &Board) {
    let server = board.server();
    let ann = board.ann();
    let before = server.get(ME).by(ann).send().is(200).json();
    edit_me(server, ann, json!({"email": null, "display_name": null}))
        .violates(&["/email not_a_string", "/display_name not_a_string"]);
    edit_me(server, ann, json!({"email": "nobody", "display_name": "가".repeat(51)}))
        .violates(&["/email not_an_email", "/display_name too_long"]);
    edit_me(server, ann, json!({"display_name": " \t"})).violates(&["/display_name blank"]);
    edit_me(server, ann, json!({"password": PASSWORD})).violates(&["/password unknown_field"]);
    server.patch(ME).json(json!({"display_name": "Nobody"})).send().problem(401, "unauthenticated");
    server.get(ME).send().problem(401, "unauthenticated");
    assert_eq!(server.get(ME).by(ann).send().is(200).json(), before);
}

fn a_new_password_ends_every_sign_in(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let mut devices = vec![(user.token.clone(), user.refresh.clone())];
    for _ in 0..2 {
        let tokens = server.sign_in(&user.email, PASSWORD).is(200).json();
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        devices.push((text("access_token"), text("refresh_token")));
    }
    for (access, _) in &devices {
        server.get(ME).bearer(access).send().is(200);
    }
    change_password(server, &user, PASSWORD, NEW_PASSWORD).is(204);
    for (access, refresh) in &devices {
        server.get(ME).bearer(access).send().problem(401, "invalid_token");
        server.get("/api/v1/qna").bearer(access).send().problem(401, "invalid_token");
        assert_eq!(server.refresh(refresh).is(400).json()["error"], "invalid_grant");
    }
    refuses_to_sign_in(server, &user.email, PASSWORD);
    server.sign_in(&user.email, NEW_PASSWORD).is(200);
    server.get(ME).by(board.ann()).send().is(200);
}

fn a_refused_change_of_password_changes_nothing(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    change_password(server, &user, "correct horse batterz", NEW_PASSWORD).problem(403, "invalid_credentials");
    change_password(server, &user, PASSWORD, "1234567").violates(&["/new_password too_short"]);
    change_password(server, &user, PASSWORD, &"p".repeat(257)).violates(&["/new_password too_long"]);
    server.post("/api/v1/users/me/password").by(&user).json(json!({"password": PASSWORD})).send().violates(&[
        "/password unknown_field",
        "/current_password required",
        "/new_password required",
    ]);
    let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    server.post("/api/v1/users/me/password").json(body).send().problem(401, "unauthenticated");
    server.get(ME).by(&user).send().is(200);
    refuses_to_sign_in(server, &user.email, NEW_PASSWORD);
    server.sign_in(&user.email, PASSWORD).is(200);
}

fn a_deleted_account_leaves_its_posts(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let qna = server.ask_at(&user, "What stays of me?");
    let comment = server.comment_at(&user, &qna, "This stays.");
    let elsewhere = server.ask_at(board.ann(), "What stays of others?");
    server.comment_at(&user, &elsewhere, "This stays too.");
    let before = server.get(&qna).send().is(200);
    server.delete(ME).by(&user).send().is(204);

    let nobody = json!({"user_id": user.id, "display_name": "deleted user"});
    let mut expected = before.json();
    expected["author"] = nobody.clone();
    let after = server.get(&qna).send().is(200);
    assert_eq!(after.json(), expected);
    assert_ne!(after.etag(), before.etag());
    // An administrator sees no e-mail of theirs either: it is forgotten.
    for by in [board.bob(), board.moderator(), board.admin()] {
        assert_eq!(server.get(&qna).by(by).send().is(200).json()["author"], nobody);
    }
    let list = server.get(format!("/api/v1/qna?author={}", user.id)).by(board.admin()).send().is(200).json();
    assert_eq!(list["items"], json!([expected]));
    assert_eq!(server.get(&comment).send().is(200).json()["author"], nobody);
    for path in [qna, elsewhere] {
        let comments = server.get(format!("{path}/comments")).send().is(200).json();
        assert_eq!(comments["items"][0]["author"], nobody);
        let along = server.get(format!("{path}?comments=1")).send().is(200).json();
        assert_eq!(along["comments"]["items"], comments["items"]);
        assert_eq!(along["comment_count"], 1);
    }
}

fn a_deleted_account_is_gone(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let qna = server.ask_at(&user, "Who will look after this?");
    server.delete(ME).by(&user).send().is(204);
    server.get(ME).by(&user).send().problem(401, "invalid_token");
    server.get(&qna).by(&user).send().problem(401, "invalid_token");
    server.delete(ME).by(&user).send().problem(401, "invalid_token");
    assert_eq!(server.refresh(&user.refresh).is(400).json()["error"], "invalid_grant");
    refuses_to_sign_in(server, &user.email, PASSWORD);
    server.get(format!("/api/v1/users/{}", user.id)).send().problem(404, "user_not_found");
    server.delete(ME).send().problem(401, "unauthenticated");

    // Whoever takes the address up is somebody else.
    let body = json!({"email": user.email, "password": NEW_PASSWORD, "display_name": "The next one"});
    let next = server.post("/api/v1/users").json(body).send().is(201).json();
    assert_ne!(next["user_id"], user.id);
    refuses_to_sign_in(server, &user.email, PASSWORD);
    let tokens = server.sign_in(&user.email, NEW_PASSWORD).is(200).json();
    let token = tokens["access_token"].as_str().unwrap();
    server.patch(&qna).bearer(token).json(json!({"title": "Mine?"})).send().problem(403, "not_author");
    server.patch(&qna).by(board.moderator()).json(json!({"title": "Looked after"})).send().is(200);
}

fn a_deleted_account_leaves_no_trace_in_any_table(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let qna = server.ask_at(&user, "What is kept of me?");
    server.comment_at(&user, &qna, "A comment is.");
    // Whatever keeps something of a caller: receipts, sign-ins, the audit log, letters.
    let body = json!({"title": "Asked once", "content": ""});
    server.post("/api/v1/qna").by(&user).header("idempotency-key", "no-trace").json(body).send().is(201);
    let path = format!("/api/v1/admin/users/{}", user.id);
    server.patch(&path).by(board.admin()).json(json!({"role": "moderator"})).send().is(200);
    let (email, name) = (user.email.clone(), user.name.clone());
    let kept = || crate::database::columns_that_hold(&server.database_url, &[&email, &name]);
    assert!(kept().contains(&"users.email".to_owned()), "the search finds what is there: {:?}", kept());
    server.delete(ME).by(&user).send().is(204);
    assert_eq!(kept(), Vec::<String>::new());
}

fn a_deleted_account_leaves_no_trace_in_the_database_s_file(board: &Board) {
    let server = board.own(&Options::default());
    let Some(file) = server.database_url.strip_prefix("sqlite://").map(std::path::PathBuf::from) else { return };
    let holds = |text: &str| {
        let bytes = std::fs::read(&file).unwrap();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    let (user, other) = (server.new_user(), server.new_user());
    let moved = new_email();
    edit_me(&server, &user, json!({"email": moved})).is(200);
    server.delete(ME).by(&user).send().is(204);
    server.signal("TERM");
    assert_eq!(server.end().code(), Some(0));
    assert!(!file.with_file_name(format!("{}-wal", file.file_name().unwrap().display())).exists());
    assert!(holds(&other.email), "the search finds what is there");
    for text in [&user.email, &moved, &user.name] {
        assert!(!holds(text), "{text}");
    }
}

fn a_stale_account_is_not_deleted(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let old = server.get(ME).by(&user).send().is(200).etag();
    let new = edit_me(server, &user, json!({"display_name": "A newer name"})).is(200).etag();
    server.delete(ME).by(&user).header("if-match", &old).send().problem(412, "version_mismatch");
    server.get(ME).by(&user).send().is(200);
    server.delete(ME).by(&user).header("if-match", &new).send().is(204);
}

fn a_suspended_account_may_be_read_and_deleted(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let qna = server.ask_at(&user, "Asked while all was well");
    let user = server.suspended(&user);
    let me = server.get(ME).by(&user).send().is(200).json();
    assert_eq!((&me["suspended"], &me["email"]), (&json!(true), &json!(user.email)));
    edit_me(server, &user, json!({"display_name": "Another"})).problem(403, "account_suspended");
    edit_me(server, &user, json!({})).problem(403, "account_suspended");
    change_password(server, &user, PASSWORD, NEW_PASSWORD).problem(403, "account_suspended");
    assert_eq!(server.get(ME).by(&user).send().is(200).json(), me);
    server.sign_in(&user.email, PASSWORD).is(200);
    assert_eq!(server.get(&qna).by(&user).send().is(200).json()["author"]["email"], user.email);
    server.delete(ME).by(&user).send().is(204);
    server.get(ME).by(&user).send().problem(401, "invalid_token");
}
