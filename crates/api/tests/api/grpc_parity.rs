//! Both faces are one board: the same doings leave the same rows, and what one shows the other shows.

use mundap_grpc::v1;
use serde_json::{Value, json};
use tonic::Response;

use crate::board::{Board, PASSWORD};
use crate::client::Reply;
use crate::database::number;
use crate::grpc::Caller;
use crate::images::a_png;
use crate::server::{Options, Server};

crate::tests![the_same_doings_leave_the_same_rows, what_one_face_shows_the_other_shows];

const EMAIL: &str = "dora@example.com";

/// As REST writes it.
pub(crate) fn rfc3339(time: Option<prost_types::Timestamp>) -> Value {
    let time = time.expect("a time");
    let time = chrono::DateTime::from_timestamp(time.seconds, time.nanos.try_into().unwrap()).unwrap();
    json!(time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
}

fn author(author: Option<v1::Author>) -> Value {
    let author = author.expect("an author");
    let mut shown = json!({"user_id": author.user_id, "display_name": author.display_name});
    if let Some(email) = author.email {
        shown["email"] = email.into();
    }
    shown
}

fn qna(of: v1::Qna) -> Value {
    let mut shown = json!({
        "qna_id": of.qna_id, "title": of.title, "content": of.content, "author": author(of.author),
        "comment_count": of.comment_count, "created_at": rfc3339(of.create_time),
        "updated_at": rfc3339(of.update_time), "version": of.version,
    });
    if let Some(page) = of.comments {
        let next = Some(page.next_page_token).filter(|token| !token.is_empty());
        shown["comments"] = json!({"items": page.comments.into_iter().map(comment).collect::<Value>(), "next": next});
    }
    shown
}

fn comment(of: v1::Comment) -> Value {
    json!({
        "comment_id": of.comment_id, "qna_id": of.qna_id, "author": author(of.author), "content": of.content,
        "created_at": rfc3339(of.create_time), "updated_at": rfc3339(of.update_time), "version": of.version,
        "images": of.images.iter().map(image).collect::<Value>(),
    })
}

fn image(of: &v1::Image) -> Value {
    json!({
        "image_id": of.image_id, "comment_id": of.comment_id, "media_type": of.media_type, "bytes": of.size_bytes,
        "width": of.width, "height": of.height, "sha256": of.sha256, "url": of.url,
        "created_at": rfc3339(of.create_time),
    })
}

fn account(of: &v1::Account) -> Value {
    let role = of.role().as_str_name().trim_start_matches("ROLE_").to_lowercase();
    json!({
        "user_id": of.user_id, "email": of.email, "email_verified": of.email_verified,
        "display_name": of.display_name, "role": role, "suspended": of.suspended,
        "created_at": rfc3339(of.create_time), "updated_at": rfc3339(of.update_time), "version": of.version,
    })
}

fn entry(of: &v1::AuditEntry) -> Value {
    json!({
        "audit_id": of.audit_id, "actor_id": of.actor_id, "action": of.action, "user_id": of.user_id,
        "role_before": of.role_before, "role_after": of.role_after, "created_at": rfc3339(of.create_time),
    })
}

fn what_one_face_shows_the_other_shows(board: &Board) {
    let (server, admin) = (board.server(), board.admin());
    let user = server.new_user();
    let path = server.ask_at(&user, "Shown twice");
    let first = server.comment_at(&user, &path, "With a picture");
    let picture = server.image_at(&user, &first, &a_png());
    for n in 0..2 {
        server.comment_at(board.bob(), &path, &format!("Number {n}"));
    }
    server.patch(&path).by(&user).json(json!({"title": "Edited"})).send().is(200);
    let id = |path: &str| path.rsplit('/').next().unwrap().parse::<i64>().unwrap();
    let rest = |target: &str, by| server.get(target.to_owned()).by(by).send().is(200).json();
    for by in [&user, board.bob(), admin] {
        let caller = Caller::of(server).by(by);
        let request = v1::GetQnaRequest { qna_id: id(&path), comment_count: 2 };
        let shown = caller.run(caller.qnas().get_qna(request)).unwrap().into_inner();
        assert_eq!(qna(shown), rest(&format!("{path}?comments=2"), by));
        let request = v1::GetCommentRequest { comment_id: id(&first) };
        let shown = caller.run(caller.comments().get_comment(request)).unwrap().into_inner();
        assert_eq!(image(&shown.images[0])["image_id"], id(&picture));
        assert_eq!(comment(shown), rest(&first, by));
        let shown = caller.run(caller.accounts().get_account(v1::GetAccountRequest {})).unwrap().into_inner();
        assert_eq!(account(&shown), rest("/api/v1/users/me", by));
        let shown = caller.run(caller.users().get_user(v1::GetUserRequest { user_id: user.id })).unwrap().into_inner();
        let shown = json!({"user_id": shown.user_id, "display_name": shown.display_name});
        assert_eq!(shown, rest(&format!("/api/v1/users/{}", user.id), by));
    }
    let target = format!("/api/v1/admin/users/{}", user.id);
    server.patch(&*target).by(admin).json(json!({"role": "moderator"})).send().is(200);
    let caller = Caller::of(server).by(admin);
    let request = v1::GetUserAccountRequest { user_id: user.id };
    let shown = caller.run(caller.admin().get_user_account(request)).unwrap().into_inner();
    assert_eq!(account(&shown), rest(&target, admin));
    let request = v1::ListAuditEntriesRequest { user_id: Some(user.id), ..v1::ListAuditEntriesRequest::default() };
    let shown = caller.run(caller.admin().list_audit_entries(request)).unwrap().into_inner();
    let shown: Vec<Value> = shown.audit_entries.iter().map(entry).collect();
    let listed = rest(&format!("/api/v1/admin/audit?user_id={}", user.id), admin);
    // To look is written down too.
    let listed = listed["items"].as_array().unwrap();
    assert!(shown.len() > 2 && listed.ends_with(&shown), "{shown:?} {listed:?}");
}

/// Without what no two boards have alike.
fn settled(mut of: Value) -> Value {
    match &mut of {
        Value::Object(fields) => {
            for name in ["created_at", "updated_at"] {
                fields.remove(name);
            }
            for value in fields.values_mut() {
                *value = settled(value.take());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = settled(item.take())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    of
}

/// What is there then, by one reader for both.
fn rows(server: &Server, token: &str) -> (Value, Vec<i64>) {
    let get = |target: &str| server.get(target.to_owned()).bearer(token).send().is(200).json();
    let seen = json!([get("/api/v1/users/me"), get("/api/v1/qna?order=oldest"), get("/api/v1/qna/1?comments=20")]);
    let tables = ["users", "qna", "comment", "image", "sign_in", "receipt", "outbox", "audit"];
    let count = |table: &&str| number(&server.database_url, &format!("SELECT COUNT(*) AS n FROM {table}"));
    (settled(seen), tables.iter().map(count).collect())
}

fn by_rest(server: &Server, picture: &[u8]) -> String {
    let new = json!({"email": EMAIL, "password": PASSWORD, "display_name": "Dora"});
    server.post("/api/v1/users").json(new).header("idempotency-key", "of-dora").send().is(201);
    let token = server.sign_in(EMAIL, PASSWORD).is(200).json()["access_token"].as_str().unwrap().to_owned();
    let do_it = |method: &str, target: &str, body: Value, key: &str| -> Reply {
        let call = server.call(method, target.to_owned()).bearer(&token).json(body);
        if key.is_empty() { call.send() } else { call.header("idempotency-key", key).send() }
    };
    for _ in 0..2 {
        do_it("POST", "/api/v1/qna", json!({"title": "First", "content": "one"}), "a-question").is(201);
    }
    do_it("POST", "/api/v1/qna", json!({"title": "Second", "content": ""}), "").is(201);
    do_it("PATCH", "/api/v1/qna/1", json!({"title": "The first"}), "").is(200);
    for content in ["One", "Two", "Three"] {
        do_it("POST", "/api/v1/qna/1/comments", json!({"content": content}), content).is(201);
    }
    do_it("PATCH", "/api/v1/comments/1", json!({"content": "The first one"}), "").is(200);
    for key in ["a-picture", "another"] {
        let call = server.post("/api/v1/comments/1/images").bearer(&token).file(picture);
        call.header("idempotency-key", key).send().is(201);
    }
    server.delete("/api/v1/images/2").bearer(&token).send().is(204);
    server.delete("/api/v1/comments/2").bearer(&token).send().is(204);
    server.delete("/api/v1/qna/2").bearer(&token).send().is(204);
    do_it("PATCH", "/api/v1/users/me", json!({"display_name": "Dora Kim"}), "").is(200);
    token
}

fn by_grpc(server: &Server, picture: &[u8]) -> String {
    let anybody = Caller::of(server);
    let new = v1::Account { email: EMAIL.to_owned(), display_name: "Dora".to_owned(), ..v1::Account::default() };
    let (password, idempotency_key) = (PASSWORD.to_owned(), "of-dora".to_owned());
    let request = v1::CreateAccountRequest { account: Some(new), password, idempotency_key };
    anybody.run(anybody.accounts().create_account(request)).unwrap();
    let request = v1::SignInRequest { email: EMAIL.to_owned(), password: PASSWORD.to_owned() };
    let token = anybody.run(anybody.auth().sign_in(request)).unwrap().into_inner().access_token;
    let caller = Caller::of(server).bearer(&token);
    for _ in 0..2 {
        let qna = v1::Qna { title: "First".to_owned(), content: "one".to_owned(), ..v1::Qna::default() };
        let request = v1::CreateQnaRequest { qna: Some(qna), idempotency_key: "a-question".to_owned() };
        caller.run(caller.qnas().create_qna(request)).unwrap();
    }
    caller.ask("Second", "").unwrap();
    let first = v1::Qna { qna_id: 1, title: "The first".to_owned(), ..v1::Qna::default() };
    let request = v1::UpdateQnaRequest { qna: Some(first), update_mask: None };
    caller.run(caller.qnas().update_qna(request)).unwrap();
    for content in ["One", "Two", "Three"] {
        let comment = v1::Comment { content: content.to_owned(), ..v1::Comment::default() };
        let (comment, idempotency_key) = (Some(comment), content.to_owned());
        let request = v1::CreateCommentRequest { qna_id: 1, comment, idempotency_key };
        caller.run(caller.comments().create_comment(request)).unwrap();
    }
    let first = v1::Comment { comment_id: 1, content: "The first one".to_owned(), ..v1::Comment::default() };
    let request = v1::UpdateCommentRequest { comment: Some(first), update_mask: None };
    caller.run(caller.comments().update_comment(request)).unwrap();
    for key in ["a-picture", "another"] {
        caller.attach(1, picture, key).unwrap();
    }
    let etag = String::new();
    caller.run(caller.images().delete_image(v1::DeleteImageRequest { image_id: 2, etag: etag.clone() })).unwrap();
    let request = v1::DeleteCommentRequest { comment_id: 2, etag: etag.clone() };
    caller.run(caller.comments().delete_comment(request)).unwrap();
    caller.run(caller.qnas().delete_qna(v1::DeleteQnaRequest { qna_id: 2, etag })).unwrap();
    let renamed = v1::Account { display_name: "Dora Kim".to_owned(), ..v1::Account::default() };
    let request = v1::UpdateAccountRequest { account: Some(renamed), update_mask: None };
    caller.run(caller.accounts().update_account(request)).map(Response::into_inner).unwrap();
    token
}

fn the_same_doings_leave_the_same_rows(board: &Board) {
    if !board.database.counts_by_ones() {
        return; // What is done names ids.
    }
    let (one, other) = (board.own(&Options::default()), board.own(&Options::default()));
    let picture = a_png();
    let (by_rest, by_grpc) = (by_rest(&one, &picture), by_grpc(&other, &picture));
    assert_eq!(rows(&one, &by_rest), rows(&other, &by_grpc));
    let (_, counts) = rows(&one, &by_rest);
    // The seven keys that were used once left a receipt each.
    assert_eq!(counts[..6], [1, 1, 2, 1, 1, 7], "{counts:?}");
}
