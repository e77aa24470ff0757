//! Every operation of the document × every kind of caller × whose it is. An operation that is not in the table fails.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::board::{Board, PASSWORD, User};
use crate::client::Reply;
use crate::images::a_png;

crate::tests![every_operation_for_every_caller, the_table_holds_every_operation_and_no_other];

/// The columns of the table.
pub(crate) const CALLERS: [&str; 7] =
    ["anonymous", "stranger", "author", "moderator", "admin", "suspended", "fallen author"];

/// A row: the operation, and the status for each of [`CALLERS`]. What it is about is the author's: the author's own, and
/// the fallen (that is: suspended) author's own, and another's to everybody else.
pub(crate) type Row = (&'static str, &'static str, [u16; 7]);

pub(crate) const TABLE: &[Row] = &[
    //                                                anon strg auth  mod  adm  susp fall
    ("get", "/api/v1/qna", [200, 200, 200, 200, 200, 200, 200]),
    ("post", "/api/v1/qna", [401, 201, 201, 201, 201, 403, 403]),
    ("get", "/api/v1/qna/{qna_id}", [200, 200, 200, 200, 200, 200, 200]),
    ("patch", "/api/v1/qna/{qna_id}", [401, 403, 200, 200, 200, 403, 403]),
    ("delete", "/api/v1/qna/{qna_id}", [401, 403, 204, 204, 204, 403, 403]),
    ("get", "/api/v1/qna/{qna_id}/comments", [200, 200, 200, 200, 200, 200, 200]),
    ("post", "/api/v1/qna/{qna_id}/comments", [401, 201, 201, 201, 201, 403, 403]),
    ("get", "/api/v1/comments/{comment_id}", [200, 200, 200, 200, 200, 200, 200]),
    ("patch", "/api/v1/comments/{comment_id}", [401, 403, 200, 200, 200, 403, 403]),
    ("delete", "/api/v1/comments/{comment_id}", [401, 403, 204, 204, 204, 403, 403]),
    ("post", "/api/v1/comments/{comment_id}/images", [401, 403, 201, 403, 403, 403, 403]),
    ("get", "/api/v1/images/{image_id}", [200, 200, 200, 200, 200, 200, 200]),
    ("delete", "/api/v1/images/{image_id}", [401, 403, 204, 204, 204, 403, 403]),
    ("post", "/api/v1/users", [201, 201, 201, 201, 201, 201, 201]),
    ("get", "/api/v1/users/me", [401, 200, 200, 200, 200, 200, 200]),
    ("patch", "/api/v1/users/me", [401, 200, 200, 200, 200, 403, 403]),
    ("delete", "/api/v1/users/me", [401, 204, 204, 204, 204, 204, 204]),
    ("post", "/api/v1/users/me/password", [401, 204, 204, 204, 204, 403, 403]),
    ("post", "/api/v1/users/me/verification", [401, 202, 202, 202, 202, 403, 403]),
    ("get", "/api/v1/users/{user_id}", [200, 200, 200, 200, 200, 200, 200]),
    ("get", "/api/v1/users/me/export", [401, 200, 200, 200, 200, 200, 200]),
    ("get", "/api/v1/admin/users", [401, 403, 403, 403, 200, 403, 403]),
    ("get", "/api/v1/admin/users/{user_id}", [401, 403, 403, 403, 200, 403, 403]),
    ("patch", "/api/v1/admin/users/{user_id}", [401, 403, 403, 403, 200, 403, 403]),
    ("get", "/api/v1/admin/audit", [401, 403, 403, 403, 200, 403, 403]),
    ("post", "/api/v1/auth/token", [200, 200, 200, 200, 200, 200, 200]),
    ("post", "/api/v1/auth/revoke", [200, 200, 200, 200, 200, 200, 200]),
    ("post", "/api/v1/auth/forgot", [202, 202, 202, 202, 202, 202, 202]),
    // Without a letter there is no token, and nothing that anybody may.
    ("post", "/api/v1/auth/reset", [422, 422, 422, 422, 422, 422, 422]),
    ("post", "/api/v1/auth/verify", [422, 422, 422, 422, 422, 422, 422]),
    ("get", "/.well-known/jwks.json", [200, 200, 200, 200, 200, 200, 200]),
    // The first program says 400 where something is not the caller's.
    ("post", "/upload", [401, 200, 200, 200, 200, 403, 403]),
    ("get", "/load_all_qna", [200, 200, 200, 200, 200, 200, 200]),
    ("get", "/load_qna/{qna_id}", [200, 200, 200, 200, 200, 200, 200]),
    ("put", "/update_qna", [401, 400, 200, 200, 200, 403, 403]),
    ("delete", "/delete_qna", [401, 400, 200, 200, 200, 403, 403]),
];

/// The operations on a thing, where it is gone.
pub(crate) const GONE: &[Row] = &[
    //                                                anon strg auth  mod  adm  susp fall
    ("get", "/api/v1/qna/{qna_id}", [404, 404, 404, 404, 404, 404, 404]),
    ("patch", "/api/v1/qna/{qna_id}", [401, 404, 404, 404, 404, 403, 403]),
    ("delete", "/api/v1/qna/{qna_id}", [401, 404, 404, 404, 404, 403, 403]),
    ("get", "/api/v1/qna/{qna_id}/comments", [404, 404, 404, 404, 404, 404, 404]),
    ("post", "/api/v1/qna/{qna_id}/comments", [401, 404, 404, 404, 404, 403, 403]),
    ("get", "/api/v1/comments/{comment_id}", [404, 404, 404, 404, 404, 404, 404]),
    ("patch", "/api/v1/comments/{comment_id}", [401, 404, 404, 404, 404, 403, 403]),
    ("delete", "/api/v1/comments/{comment_id}", [401, 404, 404, 404, 404, 403, 403]),
    ("post", "/api/v1/comments/{comment_id}/images", [401, 404, 404, 404, 404, 403, 403]),
    ("get", "/api/v1/images/{image_id}", [404, 404, 404, 404, 404, 404, 404]),
    ("delete", "/api/v1/images/{image_id}", [401, 404, 404, 404, 404, 403, 403]),
    ("get", "/api/v1/users/{user_id}", [404, 404, 404, 404, 404, 404, 404]),
    ("get", "/api/v1/admin/users/{user_id}", [401, 403, 403, 403, 404, 403, 403]),
    ("patch", "/api/v1/admin/users/{user_id}", [401, 403, 403, 403, 404, 403, 403]),
    ("get", "/load_qna/{qna_id}", [404, 404, 404, 404, 404, 404, 404]),
    ("put", "/update_qna", [401, 400, 400, 400, 400, 403, 403]),
    ("delete", "/delete_qna", [401, 400, 400, 400, 400, 403, 403]),
];

/// What the requests of one cell are about.
pub(crate) struct Things {
    pub(crate) qna: Value,
    pub(crate) comment: String,
    pub(crate) image: String,
    pub(crate) user: i64,
}

pub(crate) fn caller(board: &Board, name: &str, author: &User, fallen: &User) -> Option<User> {
    match name {
        "anonymous" => None,
        "author" => Some(author.clone()),
        "fallen author" => Some(fallen.clone()),
        "stranger" => Some(board.bob().clone()),
        "moderator" => Some(board.moderator().clone()),
        "admin" => Some(board.admin().clone()),
        "suspended" => Some(board.suspended().clone()),
        other => panic!("{other} is no caller"),
    }
}

pub(crate) fn things(board: &Board, author: &User) -> Things {
    let server = board.server();
    let path = server.ask_at(author, "About the matrix");
    let comment = server.comment_at(author, &path, "It has rows and columns");
    let image = server.image_at(author, &comment, &a_png());
    let qna = path.rsplit('/').next().unwrap().parse::<i64>().unwrap();
    let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    Things { qna: json!(qna), comment: id(&comment), image: id(&image), user: author.id }
}

fn call(board: &Board, method: &str, path: &str, by: Option<&User>, things: &Things) -> Reply {
    let server = board.server();
    let target = path
        .replace("{qna_id}", &things.qna.to_string())
        .replace("{comment_id}", &things.comment)
        .replace("{image_id}", &things.image)
        .replace("{user_id}", &things.user.to_string());
    let call = server.call(&method.to_uppercase(), target);
    let call = match by {
        Some(user) if !path.starts_with("/api/v1/auth/") => call.by(user),
        _ => call,
    };
    let email = by.map_or("nobody@example.com", |user| user.email.as_str());
    match (method, path) {
        ("post", "/api/v1/qna") => call.json(json!({"title": "A row", "content": "of the matrix"})),
        ("patch", "/api/v1/qna/{qna_id}") => call.json(json!({"title": "Another row"})),
        ("post", "/api/v1/qna/{qna_id}/comments") => call.json(json!({"content": "A column"})),
        ("patch", "/api/v1/comments/{comment_id}") => call.json(json!({"content": "Another column"})),
        ("post", "/api/v1/comments/{comment_id}/images") => call.file(&a_png()),
        ("post", "/api/v1/users") => {
            let email = crate::board::new_email();
            call.json(json!({"email": email, "password": PASSWORD, "display_name": "One more"}))
        }
        ("patch", "/api/v1/users/me" | "/api/v1/admin/users/{user_id}") => call.json(json!({})),
        ("post", "/api/v1/users/me/password") => {
            call.json(json!({"current_password": PASSWORD, "new_password": PASSWORD}))
        }
        ("post", "/api/v1/auth/token") => {
            let email = by.map_or_else(|| board.ann().email.clone(), |user| user.email.clone());
            call.form(&[("grant_type", "password"), ("username", &email), ("password", PASSWORD)])
        }
        ("post", "/api/v1/auth/forgot") => call.json(json!({"email": email})),
        ("post", "/api/v1/auth/reset") => call.json(json!({"token": "of nobody", "new_password": PASSWORD})),
        ("post", "/api/v1/auth/verify") => call.json(json!({"token": "of nobody"})),
        ("post", "/api/v1/auth/revoke") => call.form(&[("token", "of nobody")]),
        ("post", "/upload") => call.json(json!({"email": email, "title": "Uploaded", "content": ""})),
        ("put", "/update_qna") | ("delete", "/delete_qna") => {
            call.json(json!({"qna_id": things.qna, "email": email, "title": "Changed"}))
        }
        ("get" | "delete", _) | ("post", "/api/v1/users/me/verification") => call,
        (method, path) => panic!("the matrix does not know how to call {method} {path}"),
    }
    .send()
}

/// Operations that leave the caller without a sign-in: each gets a caller of its own.
fn ends_its_caller(method: &str, path: &str) -> bool {
    matches!((method, path), ("delete", "/api/v1/users/me") | ("post", "/api/v1/users/me/password"))
}

pub(crate) fn one_of_a_kind(board: &Board, name: &str) -> Option<User> {
    let server = board.server();
    match name {
        "anonymous" => None,
        "moderator" | "admin" => Some(server.new_user_with_role(name)),
        "suspended" | "fallen author" => Some(server.new_suspended_user()),
        _ => Some(server.new_user()),
    }
}

fn every_operation_for_every_caller(board: &Board) {
    let server = board.server();
    let author = board.ann();
    let fallen = server.new_user();
    let by_the_fallen: Vec<Things> = TABLE.iter().map(|_| things(board, &fallen)).collect();
    let gone = things(board, author);
    server.delete(format!("/api/v1/qna/{}", gone.qna)).by(author).send().is(204);
    // An account that is gone is not found, as one that nobody ever had: such an id spares an account.
    let gone = Things { user: (1 << 53) - 1, ..gone };
    let fallen = server.suspended(&fallen);

    let mut wrong = Vec::new();
    for ((method, path, expected), of_the_fallen) in TABLE.iter().zip(by_the_fallen) {
        let mut of_the_fallen = Some(of_the_fallen);
        for (name, expected) in CALLERS.into_iter().zip(expected) {
            let by = if ends_its_caller(method, path) {
                one_of_a_kind(board, name)
            } else {
                caller(board, name, author, &fallen)
            };
            let things = match of_the_fallen.take_if(|_| name == "fallen author") {
                Some(things) => things,
                None => things(board, author),
            };
            let reply = call(board, method, path, by.as_ref(), &things);
            if reply.status != *expected {
                wrong.push(format!("{method} {path} by {name}: {} instead of {expected}", reply.status));
            }
            // Who was refused has changed nothing.
            let qna = server.get(format!("/api/v1/qna/{}", things.qna)).send();
            let comment = server.get(format!("/api/v1/comments/{}", things.comment)).send();
            let has_one_image = || comment.json()["images"].as_array().unwrap().len() == 1;
            let is_untouched = |seen: &Reply| seen.status == 200 && seen.json()["version"] == 1;
            let has_one_comment = || qna.json()["comment_count"] == 1;
            if reply.status >= 400
                && !(is_untouched(&qna) && is_untouched(&comment) && has_one_comment() && has_one_image())
            {
                wrong.push(format!("{method} {path} by {name}: refused, and yet {qna} {comment}"));
            }
        }
    }
    for (method, path, expected) in GONE {
        for (name, expected) in CALLERS.into_iter().zip(expected) {
            let by = caller(board, name, author, &fallen);
            let reply = call(board, method, path, by.as_ref(), &gone);
            if reply.status != *expected {
                wrong.push(format!("{method} {path} by {name}, gone: {} instead of {expected}", reply.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn the_table_holds_every_operation_and_no_other(board: &Board) {
    let document = board.server().document();
    let documented: BTreeSet<(&str, &str)> =
        document.operations().iter().map(|operation| (operation.method, operation.path)).collect();
    let tabled: BTreeSet<(&str, &str)> = TABLE.iter().map(|(method, path, _)| (*method, *path)).collect();
    assert_eq!(documented, tabled);
    assert_eq!(tabled.len(), TABLE.len(), "no operation stands there twice");
    let with_id = |path: &str| path.contains('{') || matches!(path, "/update_qna" | "/delete_qna");
    let gone: BTreeSet<(&str, &str)> = GONE.iter().map(|(method, path, _)| (*method, *path)).collect();
    assert_eq!(gone.len(), GONE.len(), "no operation stands there twice");
    let of_one: BTreeSet<(&str, &str)> = documented.into_iter().filter(|(_, path)| with_id(path)).collect();
    assert_eq!(gone, of_one);
}
