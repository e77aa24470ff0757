//! The first program's five endpoints, field by field.

use serde_json::{Value, json};

use crate::board::{Board, new_email};
use crate::client::Reply;
use crate::server::Options;

crate::tests![
    a_row_has_the_first_program_s_fields,
    an_update_without_content_keeps_it,
    what_is_not_the_caller_s_is_not_the_writer_s,
    an_email_is_shown_to_its_owner_and_to_admins,
    wrong_input_is_told_as_fastapi_does,
    integers_are_as_lax_as_pydantic,
    nobody_writes_without_a_token,
    a_method_that_is_not_there,
    in_trusted_email_mode_the_body_says_who_it_is,
    all_rows_are_streamed_in_order,
];

fn is_row(row: &Value) {
    let names: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["content", "created_at", "email", "qna_id", "title"]);
    assert!(crate::document::is_time(row["created_at"].as_str().unwrap()), "{row}");
}

/// The one error of a 422, without its `ctx`.
#[track_caller]
fn error(reply: &Reply) -> (String, Value, String, Value) {
    assert_eq!(reply.status, 422, "{reply}");
    let body = reply.json();
    let errors = body["detail"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{body}");
    let text = |name: &str| errors[0][name].as_str().unwrap().to_owned();
    (text("type"), errors[0]["loc"].clone(), text("msg"), errors[0]["input"].clone())
}

fn a_row_has_the_first_program_s_fields(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let body = json!({"email": ann.email, "title": "제목", "content": "내용"});
    let row = server.post("/upload").by(ann).json(body).send().is(200).json();
    is_row(&row);
    let id = row["qna_id"].as_i64().unwrap();
    assert_eq!((&row["email"], &row["title"], &row["content"]), (&json!(ann.email), &json!("제목"), &json!("내용")));
    assert_eq!(server.get(format!("/load_qna/{id}")).by(ann).send().is(200).json(), row);

    let change = json!({"qna_id": id, "email": ann.email.to_uppercase(), "title": "새 제목", "content": "새 내용"});
    let changed = server.put("/update_qna").by(ann).json(change.clone()).send().is(200).json();
    is_row(&changed);
    assert_eq!((&changed["title"], &changed["content"]), (&json!("새 제목"), &json!("새 내용")));
    assert_eq!((&changed["qna_id"], &changed["created_at"]), (&row["qna_id"], &row["created_at"]));
    assert_eq!(server.get(format!("/load_qna/{id}")).by(ann).send().is(200).json(), changed);

    server.delete("/delete_qna").by(ann).json(change.clone()).send().detail(200, "delete_success");
    server.get(format!("/load_qna/{id}")).send().detail(404, "QnA not found");
    server.delete("/delete_qna").by(ann).json(change).send().detail(400, "you are not writer");
    for far in ["0", "-1", "9007199254740993", "99999999999999999999"] {
        server.get(format!("/load_qna/{far}")).send().detail(404, "QnA not found");
    }
}

fn an_update_without_content_keeps_it(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let id = server.ask(ann, "It keeps its content")["qna_id"].clone();
    let kept = "What is to be said about: It keeps its content";
    for body in [
        json!({"qna_id": id, "email": ann.email, "title": "absent"}),
        json!({"qna_id": id, "email": ann.email, "title": "null", "content": null}),
    ] {
        let row = server.put("/update_qna").by(ann).json(body.clone()).send().is(200).json();
        assert_eq!((&row["title"], &row["content"]), (&body["title"], &json!(kept)));
    }
    let emptied = json!({"qna_id": id, "email": ann.email, "title": "empty", "content": ""});
    assert_eq!(server.put("/update_qna").by(ann).json(emptied).send().is(200).json()["content"], "");
}

fn what_is_not_the_caller_s_is_not_the_writer_s(board: &Board) {
    let (server, ann, bob) = (board.server(), board.ann(), board.bob());
    let id = server.ask(ann, "It is Ann's")["qna_id"].clone();
    let row = server.get(format!("/load_qna/{id}")).send().json();
    for email in [&bob.email, &ann.email] {
        let body = json!({"qna_id": id, "email": email, "title": "It is Bob's"});
        server.put("/update_qna").by(bob).json(body.clone()).send().detail(400, "you are not writer");
        server.delete("/delete_qna").by(bob).json(body).send().detail(400, "you are not writer");
    }
    let missing = json!({"qna_id": 9_007_199_254_740_990_i64, "email": bob.email, "title": "It is nobody's"});
    server.put("/update_qna").by(bob).json(missing).send().detail(400, "you are not writer");
    let forged = json!({"email": ann.email, "title": "Ann never said this", "content": ""});
    server.post("/upload").by(bob).json(forged).send().detail(400, "you are not writer");
    assert_eq!(server.get(format!("/load_qna/{id}")).send().json(), row);
}

fn an_email_is_shown_to_its_owner_and_to_admins(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let path = format!("/load_qna/{}", server.ask(ann, "Whose is this?")["qna_id"]);
    assert_eq!(server.get(&path).send().json()["email"], "");
    for (by, shown) in [(ann, true), (board.admin(), true), (board.bob(), false), (board.moderator(), false)] {
        let email = server.get(&path).by(by).send().is(200).json()["email"].clone();
        assert_eq!(email, if shown { ann.email.as_str() } else { "" });
    }
}

fn wrong_input_is_told_as_fastapi_does(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let upload = |body: Value| server.post("/upload").by(ann).json(body).send();
    let good = |name: &str, value: Value| {
        let mut body = json!({"email": ann.email, "title": "t", "content": "c"});
        body[name] = value;
        body
    };
    let lacking = json!({"email": ann.email, "content": "c"});
    let told = error(&upload(lacking.clone()));
    assert_eq!(told, ("missing".into(), json!(["body", "title"]), "Field required".into(), lacking));
    for (body, kind, field, msg) in [
        (good("title", json!(5)), "string_type", "title", "Input should be a valid string"),
        (good("content", Value::Null), "string_type", "content", "Input should be a valid string"),
        (good("title", json!("")), "string_too_short", "title", "String should have at least 1 character"),
        (
            good("title", json!("가".repeat(256))),
            "string_too_long",
            "title",
            "String should have at most 255 characters",
        ),
        (good("role", json!("admin")), "extra_forbidden", "role", "Extra inputs are not permitted"),
    ] {
        let input = body[field].clone();
        assert_eq!(error(&upload(body)), (kind.into(), json!(["body", field]), msg.into(), input));
    }
    let (kind, loc, msg, _) = error(&upload(good("email", json!("nobody"))));
    assert_eq!((kind.as_str(), loc), ("value_error", json!(["body", "email"])));
    assert!(msg.starts_with("value is not a valid email address: "), "{msg}");
    upload(good("title", json!("가".repeat(255)))).is(200);

    let two = upload(json!({"title": 5})).json();
    let fields: Vec<&Value> = two["detail"].as_array().unwrap().iter().map(|error| &error["loc"][1]).collect();
    assert_eq!(fields, ["title", "email", "content"]);

    let (kind, loc, msg, input) = error(&server.get("/load_qna/abc").send());
    assert_eq!((kind.as_str(), loc, input), ("int_parsing", json!(["path", "qna_id"]), json!("abc")));
    assert_eq!(msg, "Input should be a valid integer, unable to parse string as an integer");

    let raw = |content_type: &str, body: &str| server.post("/upload").by(ann).body(content_type, body).send();
    let (kind, loc, msg, _) = error(&raw("application/json", "{\"email\": "));
    assert_eq!((kind.as_str(), &loc[0], msg.as_str()), ("json_invalid", &json!("body"), "JSON decode error"));
    assert_eq!(error(&raw("application/json", "")).0, "missing");
    assert_eq!(error(&raw("application/json", "[1]")).0, "model_attributes_type");
    assert_eq!(error(&raw("text/plain", "{}")).0, "model_attributes_type");
}

fn integers_are_as_lax_as_pydantic(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let id = server.ask(ann, "Numbers")["qna_id"].as_i64().unwrap();
    let update = |id: Value| {
        server.put("/update_qna").by(ann).json(json!({"qna_id": id, "email": ann.email, "title": "Number"})).send()
    };
    #[expect(clippy::cast_precision_loss, reason = "ids of a test are small")]
    let float = id as f64;
    for good in [json!(id), json!(id.to_string()), json!(float)] {
        update(good).is(200);
    }
    assert_eq!(error(&update(json!("seven"))).0, "int_parsing");
    assert_eq!(error(&update(json!(7.5))).0, "int_type");
    assert_eq!(error(&update(Value::Null)).0, "int_type");
}

fn nobody_writes_without_a_token(board: &Board) {
    let server = board.server();
    for (method, path) in [("POST", "/upload"), ("PUT", "/update_qna"), ("DELETE", "/delete_qna")] {
        // Before the body is looked at.
        server.call(method, path).body("application/json", "{").send().detail(401, "Not authenticated");
        server.call(method, path).bearer("bad").send().detail(401, "Could not validate credentials");
    }
    server.get("/load_all_qna").bearer("bad").send().detail(401, "Could not validate credentials");
}

fn a_method_that_is_not_there(board: &Board) {
    for (method, path, allow) in [
        ("GET", "/upload", "POST"),
        ("POST", "/load_all_qna", "GET, HEAD"),
        ("DELETE", "/load_qna/1", "GET, HEAD"),
        ("POST", "/update_qna", "PUT"),
        ("GET", "/delete_qna", "DELETE"),
    ] {
        let reply = board.server().call(method, path).send();
        assert_eq!(reply.header("allow"), Some(allow), "{reply}");
        reply.detail(405, "Method Not Allowed");
    }
}

fn in_trusted_email_mode_the_body_says_who_it_is(board: &Board) {
    let server = board.trusted();
    let (ann, bob) = (new_email(), new_email());
    // Whoever only tries to change something is not made a member.
    let change = json!({"qna_id": 1, "email": bob, "title": "Nothing of mine"});
    server.put("/update_qna").json(change.clone()).send().detail(400, "you are not writer");
    server.delete("/delete_qna").json(change).send().detail(400, "you are not writer");

    let upload = |email: &str| {
        server.post("/upload").json(json!({"email": email, "title": "Trusted", "content": "c"})).send().is(200).json()
    };
    let (first, second) = (upload(&ann), upload(&ann.to_uppercase()));
    assert_eq!((&first["email"], &second["email"]), (&json!(ann), &json!(ann)), "one member, shown to everybody");
    let path = format!("/load_qna/{}", first["qna_id"]);
    assert_eq!(server.get(&path).send().is(200).json(), first);
    let theirs = json!({"qna_id": first["qna_id"], "email": bob, "title": "Mine"});
    server.put("/update_qna").json(theirs).send().detail(400, "you are not writer");
    let mine = json!({"qna_id": first["qna_id"], "email": ann, "title": "Still mine"});
    assert_eq!(server.put("/update_qna").json(mine.clone()).send().is(200).json()["title"], "Still mine");
    server.delete("/delete_qna").json(mine).send().detail(200, "delete_success");

    let body = json!({"title": "No token", "content": ""});
    server.post("/api/v1/qna").json(body).send().problem(401, "unauthenticated");
    server.sign_in(&ann, "any password").is(400);
    server.log.wait_for("the warning", |line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|text| text.contains("trusted-email"))
    });
}

fn all_rows_are_streamed_in_order(board: &Board) {
    let server = board.own(&Options::default());
    assert_eq!(server.get("/load_all_qna").send().is(200).text(), "[]");
    let ann = server.new_user();
    server.ask(&ann, "The first");
    assert_eq!(server.get("/load_all_qna").send().is(200).json().as_array().unwrap().len(), 1);
    // More than two batches, and the last one full.
    let values = |from: usize, to: usize| {
        let row =
            |n| format!("({}, 'row {n}', '', '2026-01-02 12:00:00.000001', '2026-01-02 12:00:00.000001')", ann.id);
        (from..to).map(row).collect::<Vec<_>>().join(", ")
    };
    let insert = "INSERT INTO qna (user_id, title, content, created_at, updated_at) VALUES";
    crate::database::execute(&server.database_url, &format!("{insert} {}", values(1, 1_000)));
    for more in [0, 200] {
        if more > 0 {
            crate::database::execute(&server.database_url, &format!("{insert} {}", values(1_000, 1_000 + more)));
        }
        let rows = server.get("/load_all_qna").send().is(200).json();
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), 1_000 + more);
        rows.iter().for_each(is_row);
        assert!(rows.is_sorted_by_key(|row| row["qna_id"].as_i64().unwrap()));
        assert!(rows[1..].iter().enumerate().all(|(n, row)| row["title"] == format!("row {}", n + 1)));
    }
}
