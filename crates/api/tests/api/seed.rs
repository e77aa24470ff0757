//! The five endpoints of the first program: what its clients sent and read, field by field.

use serde_json::{Value, json};

use crate::board::{Board, User, new_email};
use crate::client::Reply;
use crate::database::insert_qnas;
use crate::document::is_time;
use crate::server::{Options, Server};

crate::tests![
    a_question_goes_through_all_five,
    content_that_is_null_or_absent_stays,
    rows_that_are_missing_or_not_ones_own,
    the_email_must_be_the_tokens,
    emails_are_shown_to_their_owner_and_to_admins,
    writes_without_a_token_are_refused_before_anything_else,
    who_is_suspended_only_reads,
    fields_that_are_missing,
    fields_of_another_type,
    fields_that_are_not_known,
    lengths_are_those_of_characters,
    emails_that_are_none,
    ids_in_the_body_are_read_as_pydantic_reads_them,
    ids_in_the_path,
    bodies_that_are_no_object,
    bodies_that_are_too_large,
    everything_that_is_wrong_with_an_update_is_told_at_once,
    other_methods_are_refused_as_fastapi_refuses_them,
    an_empty_board_is_an_empty_array,
    all_rows_come_in_order,
    trusted_a_question_goes_through_all_five,
    trusted_only_an_upload_makes_a_member,
    trusted_emails_are_shown_to_all,
    trusted_foreign_rows_stay_foreign,
    trusted_suspension_holds,
    trusted_other_paths_still_need_a_token,
    trusted_the_start_warns,
];

fn upload(server: &Server, by: &User, body: Value) -> Reply {
    server.post("/upload").by(by).json(body).send()
}

/// Uploads a question; its row.
fn row(server: &Server, by: &User, title: &str) -> Value {
    upload(server, by, json!({"email": by.email, "title": title, "content": "a content"})).is(200).json()
}

fn load(server: &Server, by: &User, id: &Value) -> Value {
    server.get(format!("/load_qna/{id}")).by(by).send().is(200).json()
}

/// The row `id` among all rows.
fn among_all(all: &Reply, id: &Value) -> Value {
    let rows = all.json();
    let rows = rows.as_array().unwrap();
    rows.iter().find(|row| row["qna_id"] == *id).unwrap_or_else(|| panic!("no row {id} among {}", rows.len())).clone()
}

/// Holds it to a 422 with exactly these errors.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "it is always a json!(…)")]
fn invalid(reply: Reply, errors: Value) {
    assert_eq!(reply.status, 422, "{reply}");
    assert_eq!(reply.json(), json!({"detail": errors}), "{reply}");
}

/// Holds it to a 422 whose errors are of these types at these places of the body.
#[track_caller]
fn invalid_at(reply: &Reply, expected: &[(&str, &str)]) {
    assert_eq!(reply.status, 422, "{reply}");
    let body = reply.json();
    let errors = body["detail"].as_array().unwrap();
    let mut found: Vec<(Value, Value)> =
        errors.iter().map(|error| (error["type"].clone(), error["loc"].clone())).collect();
    found.sort_by_key(|(kind, place)| format!("{place}{kind}"));
    let mut expected: Vec<(Value, Value)> =
        expected.iter().map(|(kind, field)| (json!(kind), json!(["body", field]))).collect();
    expected.sort_by_key(|(kind, place)| format!("{place}{kind}"));
    assert_eq!(found, expected, "{reply}");
    for error in errors {
        assert!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "{reply}");
        assert!(error.get("input").is_some(), "{reply}");
    }
}

fn a_question_goes_through_all_five(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let body = json!({"email": ann.email, "title": "첫 질문", "content": "내용\n둘째 줄"});
    let reply = upload(server, ann, body).is(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let row = reply.json();
    let (id, created_at) = (&row["qna_id"], &row["created_at"]);
    assert!(id.as_i64().is_some_and(|id| id > 0) && created_at.as_str().is_some_and(is_time), "{row}");
    let expected = |title: &str, content: &str| json!({"qna_id": id, "email": ann.email, "title": title, "content": content, "created_at": created_at});
    assert_eq!(row, expected("첫 질문", "내용\n둘째 줄"));
    assert_eq!(load(server, ann, id), row);
    let all = server.get("/load_all_qna").by(ann).send().is(200);
    assert_eq!(all.header("content-type"), Some("application/json"));
    assert_eq!(among_all(&all, id), row);

    let change = json!({"qna_id": id, "email": ann.email, "title": "고친 질문", "content": ""});
    let changed = server.put("/update_qna").by(ann).json(change).send().is(200).json();
    assert_eq!(changed, expected("고친 질문", ""));
    assert_eq!(load(server, ann, id), changed);
    // Both faces show the same question.
    let qna = server.get(format!("/api/v1/qna/{id}")).send().is(200).json();
    assert_eq!((&qna["title"], &qna["content"], &qna["version"]), (&json!("고친 질문"), &json!(""), &json!(2)));

    let named = json!({"qna_id": id, "email": ann.email, "title": "whatever"});
    server.delete("/delete_qna").by(ann).json(named.clone()).send().detail(200, "delete_success");
    server.get(format!("/load_qna/{id}")).by(ann).send().detail(404, "QnA not found");
    server.get(format!("/api/v1/qna/{id}")).send().problem(404, "qna_not_found");
    server.delete("/delete_qna").by(ann).json(named).send().detail(400, "you are not writer");
}

fn content_that_is_null_or_absent_stays(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let id = row(server, ann, "A question with a content")["qna_id"].clone();
    for (title, more) in [("A first title", json!({})), ("A second title", json!({"content": null}))] {
        let mut change = json!({"qna_id": id, "email": ann.email, "title": title});
        change.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let changed = server.put("/update_qna").by(ann).json(change).send().is(200).json();
        assert_eq!((&changed["title"], &changed["content"]), (&json!(title), &json!("a content")));
        assert_eq!(load(server, ann, &id), changed);
    }
}

fn rows_that_are_missing_or_not_ones_own(board: &Board) {
    let (server, ann, bob) = (board.server(), board.ann(), board.bob());
    let theirs = row(server, bob, "Somebody else's question");
    for id in [json!(9_007_199_254_740_991_i64), json!(0), json!(-1), theirs["qna_id"].clone()] {
        let body = json!({"qna_id": id, "email": ann.email, "title": "Mine now", "content": "taken"});
        server.put("/update_qna").by(ann).json(body.clone()).send().detail(400, "you are not writer");
        server.delete("/delete_qna").by(ann).json(body).send().detail(400, "you are not writer");
    }
    assert_eq!(load(server, bob, &theirs["qna_id"]), theirs);
    for id in ["0", "-1", "9007199254740991", "18446744073709551616"] {
        server.get(format!("/load_qna/{id}")).send().detail(404, "QnA not found");
    }
}

fn the_email_must_be_the_tokens(board: &Board) {
    let (server, ann, bob) = (board.server(), board.ann(), board.bob());
    let mine = row(server, ann, "A question of my own");
    for email in [bob.email.clone(), new_email()] {
        let body = json!({"email": email, "title": "Under another name", "content": "forged"});
        upload(server, ann, body).detail(400, "you are not writer");
        let body = json!({"qna_id": mine["qna_id"], "email": email, "title": "Under another name"});
        server.put("/update_qna").by(ann).json(body.clone()).send().detail(400, "you are not writer");
        server.delete("/delete_qna").by(ann).json(body).send().detail(400, "you are not writer");
    }
    assert_eq!(load(server, ann, &mine["qna_id"]), mine);
    assert!(!server.get("/load_all_qna").send().is(200).text().contains("Under another name"));
    // The same e-mail in another spelling is the same account; the row shows it as it was registered.
    let body = json!({"email": ann.email.to_uppercase(), "title": "In capitals", "content": "shouted"});
    assert_eq!(upload(server, ann, body).is(200).json()["email"], ann.email);
}

fn emails_are_shown_to_their_owner_and_to_admins(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let full = row(server, ann, "Who asked this?");
    let id = &full["qna_id"];
    let mut veiled = full.clone();
    veiled["email"] = json!("");
    for (by, expected) in [
        (None, &veiled),
        (Some(board.bob()), &veiled),
        (Some(board.moderator()), &veiled),
        (Some(board.suspended()), &veiled),
        (Some(board.admin()), &full),
        (Some(ann), &full),
    ] {
        let get = |path: String| match by {
            Some(user) => server.get(path).by(user).send().is(200),
            None => server.get(path).send().is(200),
        };
        assert_eq!(get(format!("/load_qna/{id}")).json(), *expected);
        assert_eq!(among_all(&get("/load_all_qna".to_owned()), id), *expected);
    }
}

fn writes_without_a_token_are_refused_before_anything_else(board: &Board) {
    let server = board.server();
    for (method, path) in [("POST", "/upload"), ("PUT", "/update_qna"), ("DELETE", "/delete_qna")] {
        for body in [r#"{"email": "a@example.com", "title": "t", "content": "", "qna_id": 1}"#, "{}", "{", "\u{feff}"] {
            let call = |token: Option<&str>| {
                let call = server.call(method, path).body("application/json", body);
                token.map_or(call, |_| server.call(method, path).body("application/json", body).bearer("not-a-token"))
            };
            let reply = call(None).send();
            assert_eq!(reply.header("www-authenticate"), Some(r#"Bearer realm="mundap""#), "{reply}");
            reply.detail(401, "Not authenticated");
            let reply = call(Some("bad")).send();
            assert!(reply.header("www-authenticate").unwrap().contains("invalid_token"), "{reply}");
            reply.detail(401, "Could not validate credentials");
        }
    }
    // A bad token is refused where anybody may read, too.
    for path in ["/load_all_qna", "/load_qna/1"] {
        server.get(path).bearer("not-a-token").send().detail(401, "Could not validate credentials");
        let basic = server.get(path).header("authorization", "Basic YTpi").send();
        basic.detail(401, "Could not validate credentials");
    }
}

fn who_is_suspended_only_reads(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let mine = row(server, &user, "Before the suspension");
    let user = server.suspended(&user);
    let body = json!({"email": user.email, "title": "After it", "content": ""});
    upload(server, &user, body).detail(403, "account is suspended");
    let body = json!({"qna_id": mine["qna_id"], "email": user.email, "title": "After it"});
    server.put("/update_qna").by(&user).json(body.clone()).send().detail(403, "account is suspended");
    server.delete("/delete_qna").by(&user).json(body).send().detail(403, "account is suspended");
    assert_eq!(load(server, &user, &mine["qna_id"]), mine);
}

fn fields_that_are_missing(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let missing = |field: &str, sent: &Value| json!({"type": "missing", "loc": ["body", field], "msg": "Field required", "input": sent});
    let sent = json!({});
    invalid(
        upload(server, ann, sent.clone()),
        json!([missing("email", &sent), missing("title", &sent), missing("content", &sent)]),
    );
    let sent = json!({"email": ann.email, "content": "there"});
    invalid(upload(server, ann, sent.clone()), json!([missing("title", &sent)]));
    for (method, path) in [("PUT", "/update_qna"), ("DELETE", "/delete_qna")] {
        let sent = json!({});
        invalid(
            server.call(method, path).by(ann).json(sent.clone()).send(),
            json!([missing("qna_id", &sent), missing("email", &sent), missing("title", &sent)]),
        );
    }
}

fn fields_of_another_type(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let string = |field: &str, input: Value| json!({"type": "string_type", "loc": ["body", field], "msg": "Input should be a valid string", "input": input});
    for bad in [json!(null), json!(5), json!(true), json!(["a"]), json!({"a": 1})] {
        let reply = upload(server, ann, json!({"email": bad, "title": bad, "content": bad}));
        let errors =
            json!([string("email", bad.clone()), string("title", bad.clone()), string("content", bad.clone())]);
        invalid(reply, errors);
    }
    let body = json!({"qna_id": 1, "email": ann.email, "title": null, "content": 7});
    let reply = server.put("/update_qna").by(ann).json(body).send();
    invalid(reply, json!([string("title", json!(null)), string("content", json!(7))]));
}

fn fields_that_are_not_known(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let extra = json!([{
        "type": "extra_forbidden",
        "loc": ["body", "contents"],
        "msg": "Extra inputs are not permitted",
        "input": [1],
    }]);
    let body = json!({"email": ann.email, "title": "Unknown field", "content": "", "contents": [1]});
    invalid(upload(server, ann, body), extra.clone());
    assert!(!server.get("/load_all_qna").send().is(200).text().contains("Unknown field"));
    let body = json!({"qna_id": 1, "email": ann.email, "title": "t", "contents": [1]});
    invalid(server.put("/update_qna").by(ann).json(body.clone()).send(), extra.clone());
    invalid(server.delete("/delete_qna").by(ann).json(body).send(), extra);
}

fn lengths_are_those_of_characters(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let upload = |title: &str, content: &str| {
        upload(server, ann, json!({"email": ann.email, "title": title, "content": content}))
    };
    let longest = "가".repeat(255);
    assert_eq!(upload(&longest, "").is(200).json()["title"], longest);
    let longer = "가".repeat(256);
    let too_long = json!([{
        "type": "string_too_long",
        "loc": ["body", "title"],
        "msg": "String should have at most 255 characters",
        "input": longer,
        "ctx": {"max_length": 255},
    }]);
    invalid(upload(&longer, ""), too_long.clone());
    let body = json!({"qna_id": 1, "email": ann.email, "title": longer});
    invalid(server.put("/update_qna").by(ann).json(body).send(), too_long);

    let longest = "글".repeat(20_000);
    assert_eq!(upload("A long one", &longest).is(200).json()["content"], longest);
    invalid_at(&upload("A longer one", &"글".repeat(20_001)), &[("string_too_long", "content")]);

    // Nothing is not blank: both are said of an empty title, the shorter word first.
    let reply = upload("", "");
    let too_short = json!({
        "type": "string_too_short",
        "loc": ["body", "title"],
        "msg": "String should have at least 1 character",
        "input": "",
        "ctx": {"min_length": 1},
    });
    assert_eq!(reply.status, 422, "{reply}");
    assert_eq!(reply.json()["detail"][0], too_short, "{reply}");
    invalid_at(&upload(" \n\t", ""), &[("value_error", "title")]);
    invalid_at(&upload("a\u{0}b", "a\u{1b}b"), &[("value_error", "title"), ("value_error", "content")]);
}

fn emails_that_are_none(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let reason = "An email address must have an @-sign and a domain name with a period.";
    for bad in ["nobody", "a@b", "a b@example.com", "a@example..com"] {
        let reply = upload(server, ann, json!({"email": bad, "title": "t", "content": ""}));
        invalid(
            reply,
            json!([{
                "type": "value_error",
                "loc": ["body", "email"],
                "msg": format!("value is not a valid email address: {reason}"),
                "input": bad,
                "ctx": {"reason": reason},
            }]),
        );
    }
}

fn ids_in_the_body_are_read_as_pydantic_reads_them(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let id = row(server, ann, "Its id in three spellings")["qna_id"].as_i64().unwrap();
    for (index, spelling) in [id.to_string(), format!("\"{id}\""), format!("{id}.0")].iter().enumerate() {
        let email = &ann.email;
        let body = format!(r#"{{"qna_id": {spelling}, "email": "{email}", "title": "Spelling {index}"}}"#);
        let reply = server.put("/update_qna").by(ann).body("application/json", body).send();
        let row = reply.is(200).json();
        assert_eq!((&row["qna_id"], &row["title"]), (&json!(id), &json!(format!("Spelling {index}"))));
    }
    let update = |id: Value| {
        server.put("/update_qna").by(ann).json(json!({"qna_id": id, "email": ann.email, "title": "t"})).send()
    };
    for bad in ["seven", "", "7.5", "0x7"] {
        invalid(
            update(json!(bad)),
            json!([{
                "type": "int_parsing",
                "loc": ["body", "qna_id"],
                "msg": "Input should be a valid integer, unable to parse string as an integer",
                "input": bad,
            }]),
        );
    }
    for bad in [json!(null), json!([7]), json!({"id": 7})] {
        invalid(
            update(bad.clone()),
            json!([{
                "type": "int_type",
                "loc": ["body", "qna_id"],
                "msg": "Input should be a valid integer",
                "input": bad,
            }]),
        );
    }
    for (bad, r#type, msg) in [
        (json!(7.5), "int_from_float", "Input should be a valid integer, got a number with a fractional part"),
        (json!(1e300), "int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size"),
    ] {
        let error = json!({"type": r#type, "loc": ["body", "qna_id"], "msg": msg, "input": bad.clone()});
        invalid(update(bad), json!([error]));
    }
    // Ids that nothing has.
    for id in [json!(u64::MAX), json!("9223372036854775808"), json!(-1), json!("0.0"), json!(false)] {
        update(id).detail(400, "you are not writer");
    }
}

fn ids_in_the_path(board: &Board) {
    let server = board.server();
    for bad in ["seven", "7x", "--7", "7.5", "%EA%B0%80"] {
        let input = if bad.starts_with('%') { "가" } else { bad };
        invalid(
            server.get(format!("/load_qna/{bad}")).send(),
            json!([{
                "type": "int_parsing",
                "loc": ["path", "qna_id"],
                "msg": "Input should be a valid integer, unable to parse string as an integer",
                "input": input,
            }]),
        );
    }
}

fn bodies_that_are_no_object(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let no_object = |input: Value| {
        json!([{
            "type": "model_attributes_type",
            "loc": ["body"],
            "msg": "Input should be a valid dictionary or object to extract fields from",
            "input": input,
        }])
    };
    for (method, path) in [("POST", "/upload"), ("PUT", "/update_qna"), ("DELETE", "/delete_qna")] {
        let send = |content_type: &str, body: &str| {
            server.call(method, path).by(ann).body(content_type, body.to_owned()).send()
        };
        let missing = json!([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": null}]);
        invalid(send("application/json", ""), missing.clone());
        invalid(server.call(method, path).by(ann).send(), missing);
        for bad in ["[]", "5", "\"text\"", "null", "[{\"email\": 1}]"] {
            invalid(send("application/json", bad), no_object(serde_json::from_str(bad).unwrap()));
        }
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/xml"] {
            invalid(send(content_type, r#"{"email": 1}"#), no_object(json!(r#"{"email": 1}"#)));
        }
        for bad in ["{", "{\"email\": }", "{'email': 1}", "{\"title\": \"a\", \"title\": \"b\"}", "{} {}", "\u{feff}{}"]
        {
            let reply = send("application/json", bad);
            assert_eq!(reply.status, 422, "{bad}: {reply}");
            let error = &reply.json()["detail"][0];
            assert_eq!(
                (&error["type"], &error["msg"]),
                (&json!("json_invalid"), &json!("JSON decode error")),
                "{reply}"
            );
            assert_eq!((&error["loc"][0], &error["input"]), (&json!("body"), &json!({})), "{reply}");
            assert!(error["loc"][1].is_number() && error["ctx"]["error"].is_string(), "{reply}");
        }
        // JSON by another name, and by its name in capitals with a parameter.
        for content_type in ["application/vnd.api+json", "Application/JSON; charset=utf-8"] {
            let reply = send(content_type, r#"{"email": "nobody", "title": "t", "content": "", "qna_id": 1}"#).is(422);
            let errors = reply.json();
            let mut places = errors["detail"].as_array().unwrap().iter().map(|error| &error["loc"]);
            assert!(places.any(|place| *place == json!(["body", "email"])), "{reply}");
        }
    }
}

fn bodies_that_are_too_large(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let body = json!({"email": ann.email, "title": "t", "content": "x".repeat(600 * 1024)});
    let reply = upload(server, ann, body).is(413);
    assert!(reply.json()["detail"].is_string(), "{reply}");
}

fn everything_that_is_wrong_with_an_update_is_told_at_once(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let body = json!({"qna_id": "x", "email": "nobody", "content": "a\u{0}b", "more": 1});
    for (method, path) in [("PUT", "/update_qna"), ("DELETE", "/delete_qna")] {
        let reply = server.call(method, path).by(ann).json(body.clone()).send();
        invalid_at(
            &reply,
            &[
                ("int_parsing", "qna_id"),
                ("value_error", "email"),
                ("missing", "title"),
                ("value_error", "content"),
                ("extra_forbidden", "more"),
            ],
        );
    }
}

fn other_methods_are_refused_as_fastapi_refuses_them(board: &Board) {
    for server in [board.server(), board.trusted()] {
        for (path, allowed) in [
            ("/upload", "POST"),
            ("/load_all_qna", "GET, HEAD"),
            ("/load_qna/1", "GET, HEAD"),
            ("/update_qna", "PUT"),
            ("/delete_qna", "DELETE"),
        ] {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                if !allowed.split(", ").any(|name| name == method) {
                    let reply = server.call(method, path).send();
                    assert_eq!(reply.header("allow"), Some(allowed), "{reply}");
                    reply.detail(405, "Method Not Allowed");
                }
            }
        }
    }
}

fn an_empty_board_is_an_empty_array(board: &Board) {
    let server = board.own(&Options::default());
    let all = server.get("/load_all_qna").send().is(200);
    assert_eq!((all.text().as_str(), all.header("content-type")), ("[]", Some("application/json")));
}

fn all_rows_come_in_order(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    insert_qnas(&server.database_url, user.id, 1_200, "a content");
    let all = server.get("/load_all_qna").by(&user).send().is(200).json();
    let rows = all.as_array().unwrap();
    assert_eq!(rows.len(), 1_200);
    let ids: Vec<i64> = rows.iter().map(|row| row["qna_id"].as_i64().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    for row in [&rows[0], &rows[599], &rows[1_199]] {
        assert_eq!(load(&server, &user, &row["qna_id"]), *row);
    }
    let whole = json!({
        "qna_id": ids[0],
        "email": user.email,
        "title": "a title",
        "content": "a content",
        "created_at": "2026-01-02T12:00:00.000001Z",
    });
    assert_eq!(rows[0], whole);
}

/// Uploads a question in `trusted-email` mode; its row.
fn trusted_row(server: &Server, email: &str, title: &str) -> Value {
    let body = json!({"email": email, "title": title, "content": "a content"});
    server.post("/upload").json(body).send().is(200).json()
}

fn trusted_a_question_goes_through_all_five(board: &Board) {
    let server = board.trusted();
    let email = new_email();
    let row = trusted_row(server, &email, "A question on trust");
    let id = &row["qna_id"];
    let expected = |title: &str, content: &str| {
        json!({
            "qna_id": id,
            "email": email,
            "title": title,
            "content": content,
            "created_at": row["created_at"],
        })
    };
    assert_eq!(row, expected("A question on trust", "a content"));
    let body = json!({"qna_id": id, "email": email, "title": "A change on trust"});
    let changed = server.put("/update_qna").json(body.clone()).send().is(200).json();
    assert_eq!(changed, expected("A change on trust", "a content"));
    assert_eq!(server.get(format!("/load_qna/{id}")).send().is(200).json(), changed);
    assert_eq!(among_all(&server.get("/load_all_qna").send().is(200), id), changed);
    server.delete("/delete_qna").json(body.clone()).send().detail(200, "delete_success");
    server.get(format!("/load_qna/{id}")).send().detail(404, "QnA not found");
    server.delete("/delete_qna").json(body).send().detail(400, "you are not writer");
}

fn trusted_only_an_upload_makes_a_member(board: &Board) {
    let server = board.trusted();
    let owner = new_email();
    let row = trusted_row(server, &owner, "A question of the owner's");
    let stranger = new_email();
    let key = stranger.split('@').next().unwrap();
    let count = || {
        let sql = format!("SELECT COUNT(*) AS n FROM users WHERE email LIKE '{key}@%'");
        crate::database::number(&server.database_url, &sql)
    };
    let body = json!({"qna_id": row["qna_id"], "email": stranger, "title": "By nobody yet"});
    server.put("/update_qna").json(body.clone()).send().detail(400, "you are not writer");
    server.delete("/delete_qna").json(body).send().detail(400, "you are not writer");
    assert_eq!(count(), 0);

    let first = trusted_row(server, &stranger, "By a member now");
    let second = trusted_row(server, &stranger.to_uppercase(), "By the same member");
    assert_eq!(count(), 1);
    let author =
        |row: &Value| server.get(format!("/api/v1/qna/{}", row["qna_id"])).send().is(200).json()["author"].clone();
    let member = author(&first);
    assert_eq!(author(&second), member);
    assert_eq!(member["display_name"], key);
    // There is no password to sign in with.
    assert_eq!(server.sign_in(&stranger, crate::board::PASSWORD).is(400).json()["error"], "invalid_grant");
}

fn trusted_emails_are_shown_to_all(board: &Board) {
    let server = board.trusted();
    let email = new_email();
    let row = trusted_row(server, &email, "Who asked this?");
    let id = &row["qna_id"];
    let other = server.new_user();
    for call in [server.get(format!("/load_qna/{id}")), server.get(format!("/load_qna/{id}")).by(&other)] {
        assert_eq!(call.send().is(200).json(), row);
    }
    assert_eq!(among_all(&server.get("/load_all_qna").send().is(200), id)["email"], email);
    // On these endpoints alone.
    let qna = server.get(format!("/api/v1/qna/{id}")).send().is(200).json();
    assert_eq!(qna["author"].get("email"), None, "{qna}");
}

fn trusted_foreign_rows_stay_foreign(board: &Board) {
    let server = board.trusted();
    let (owner, other) = (new_email(), new_email());
    let row = trusted_row(server, &owner, "The owner's");
    trusted_row(server, &other, "The other's");
    let body = json!({"qna_id": row["qna_id"], "email": other, "title": "Taken"});
    server.put("/update_qna").json(body.clone()).send().detail(400, "you are not writer");
    server.delete("/delete_qna").json(body).send().detail(400, "you are not writer");
    assert_eq!(server.get(format!("/load_qna/{}", row["qna_id"])).send().is(200).json(), row);
    // What is wrong is told as in the other mode.
    let sent = json!({"email": owner});
    let error =
        |field: &str| json!({"type": "missing", "loc": ["body", field], "msg": "Field required", "input": sent});
    let reply = server.post("/upload").json(sent.clone()).send();
    invalid(reply, json!([error("title"), error("content")]));
}

fn trusted_suspension_holds(board: &Board) {
    let server = board.trusted();
    let user = server.new_user();
    let row = trusted_row(server, &user.email, "Before the suspension");
    server.suspend(&user.email);
    let body = json!({"email": user.email, "title": "After it", "content": ""});
    server.post("/upload").json(body).send().detail(403, "account is suspended");
    let body = json!({"qna_id": row["qna_id"], "email": user.email, "title": "After it"});
    server.put("/update_qna").json(body.clone()).send().detail(403, "account is suspended");
    server.delete("/delete_qna").json(body).send().detail(403, "account is suspended");
    assert_eq!(server.get(format!("/load_qna/{}", row["qna_id"])).send().is(200).json(), row);
}

fn trusted_other_paths_still_need_a_token(board: &Board) {
    let server = board.trusted();
    let body = json!({"email": new_email(), "title": "No token", "content": "none"});
    server.post("/api/v1/qna").json(body).send().problem(401, "unauthenticated");
    server.get("/api/v1/users/me").send().problem(401, "unauthenticated");
    let row = trusted_row(server, &new_email(), "To be left alone");
    let path = format!("/api/v1/qna/{}", row["qna_id"]);
    server.patch(&path).json(json!({"title": "changed"})).send().problem(401, "unauthenticated");
    server.delete(&path).send().problem(401, "unauthenticated");
    server.get(&path).send().is(200);
}

fn trusted_the_start_warns(board: &Board) {
    let is_warning =
        |line: &Value| line["level"] == "WARN" && line.to_string().contains("MUNDAP_IDENTITY=trusted-email");
    board.trusted().log.wait_for("a warning about trusted e-mails", is_warning);
    let lines = board.server().log.lines();
    assert!(!lines.iter().filter_map(|line| serde_json::from_str(line).ok()).any(|line| is_warning(&line)));
}
