//! What goes wrong, and how it is said.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use mundap_domain::Error;
use mundap_domain::error::Broken;
use serde_json::json;

use crate::board::Board;
use crate::server::Options;

crate::tests![
    every_path_answers_other_methods_with_405,
    hostile_bodies_are_refused_and_the_server_lives_on,
    only_plain_json_is_read,
    a_slow_body_is_given_up,
    a_request_id_is_kept_when_it_is_one,
    a_bad_token_is_refused_even_where_anybody_may_read,
    who_may_not_write_is_told_before_the_body_is_read,
    a_head_is_a_get_without_its_body;
    once: the_list_of_codes_is_whole,
];

fn every_path_answers_other_methods_with_405(board: &Board) {
    let server = board.server();
    let mut refused = 0;
    for path in server.document().paths() {
        let documented: BTreeSet<String> = server
            .document()
            .operations()
            .iter()
            .filter(|operation| operation.path == path)
            .map(|operation| operation.method.to_uppercase())
            .collect();
        let target: String =
            path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect::<Vec<_>>().join("/");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
            if documented.contains(method) {
                continue;
            }
            let reply = server.call(method, &*target).send();
            assert_eq!(reply.status, 405, "{reply}");
            let allowed: BTreeSet<String> =
                reply.header("allow").unwrap().split(", ").filter(|name| *name != "HEAD").map(str::to_owned).collect();
            assert_eq!(allowed, documented, "{reply}");
            refused += 1;
        }
    }
    assert!(refused > 80, "{refused}");
    for nothing in ["/nope", "/api/v1", "/api/v1/", "/api/v1/qna/1/nope", "/api/v2/qna", "/docs/nope", "/API/V1/QNA"] {
        server.get(nothing).send().problem(404, "route_not_found");
        server.delete(nothing).send().problem(404, "route_not_found");
    }
}

fn hostile_bodies_are_refused_and_the_server_lives_on(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let deep = format!("{{\"title\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let big = format!("{{\"title\": \"{}\"}}", "x".repeat(10 * 1024 * 1024));
    let bodies: [(&[u8], u16, &str); 14] = [
        (b"", 400, "malformed_json"),
        (b"{", 400, "malformed_json"),
        (b"[]", 400, "malformed_json"),
        (b"null", 400, "malformed_json"),
        (b"\"title\"", 400, "malformed_json"),
        (b"{\"title\": \"a\", \"title\": \"b\", \"content\": \"\"}", 400, "malformed_json"),
        (b"\xef\xbb\xbf{\"title\": \"a\", \"content\": \"\"}", 400, "malformed_json"),
        (b"{\"title\": \"\\ud800\", \"content\": \"\"}", 400, "malformed_json"),
        (b"{\"title\": \"\xff\", \"content\": \"\"}", 400, "malformed_json"),
        (b"{\"title\": \"a\", \"content\": \"\"} {}", 400, "malformed_json"),
        (b"{\"title\": 18446744073709551616, \"content\": 1e999}", 400, "malformed_json"),
        (b"{\"title\": \"a\\u0000b\", \"content\": \"\"}", 422, "validation_failed"),
        (deep.as_bytes(), 400, "malformed_json"),
        (big.as_bytes(), 413, "body_too_large"),
    ];
    for (body, status, code) in bodies {
        let reply = server.post("/api/v1/qna").by(&user).body("application/json", body).send();
        reply.problem(status, code);
    }
    let asked = server.get(format!("/api/v1/qna?author={}", user.id)).send().is(200).json();
    assert_eq!(asked["items"], json!([]), "nothing was written");
}

fn only_plain_json_is_read(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let body = json!({"title": "As what?", "content": ""}).to_string();
    let send = |content_type: &str| server.post("/api/v1/qna").by(ann).body(content_type, body.clone());
    for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "text/json", "json"] {
        send(bad).send().problem(415, "unsupported_media_type");
    }
    send("application/json").header("content-encoding", "gzip").send().problem(415, "unsupported_media_type");
    for good in ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.board+json"] {
        send(good).send().is(201);
    }
}

fn a_slow_body_is_given_up(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_HTTP_BODY_TIMEOUT", "300ms"));
    let user = server.new_user();
    let mut stream = TcpStream::connect(&server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST /api/v1/qna HTTP/1.1\r\nhost: board\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{\"title\": ",
        user.token
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    server.get("/api/v1/qna").send().is(200);
}

fn a_request_id_is_kept_when_it_is_one(board: &Board) {
    let ask = |id: &str| {
        let reply = board.server().get("/api/v1/qna").header("x-request-id", id).send();
        reply.request_id().to_owned()
    };
    for good in ["a", "8e03978e-40d5-43e8-bc93-6894a57f9324", "A_b.C-1", &"r".repeat(128)] {
        assert_eq!(ask(good), good);
    }
    for bad in ["", "two words", "semi;colon", "<b>", &"r".repeat(129)] {
        let given = ask(bad);
        assert!(given != bad && given.len() == 32, "{given}");
    }
}

fn a_bad_token_is_refused_even_where_anybody_may_read(board: &Board) {
    for bad in ["Bearer", "Bearer ", "Bearer x.y.z", "Basic YTpi", "Token abc", "Bearer a b"] {
        let reply = board.server().get("/api/v1/qna").header("authorization", bad).send();
        assert_eq!(
            reply.header("www-authenticate"),
            Some(r#"Bearer realm="mundap", error="invalid_token""#),
            "{reply}"
        );
        reply.problem(401, "invalid_token");
    }
    let reply = board.server().get("/api/v1/users/me").send();
    assert_eq!(reply.header("www-authenticate"), Some(r#"Bearer realm="mundap""#), "{reply}");
    reply.problem(401, "unauthenticated");
}

fn who_may_not_write_is_told_before_the_body_is_read(board: &Board) {
    let server = board.server();
    for (method, path) in [
        ("POST", "/api/v1/qna"),
        ("PATCH", "/api/v1/qna/1"),
        ("POST", "/api/v1/qna/1/comments"),
        ("PATCH", "/api/v1/comments/1"),
        ("PATCH", "/api/v1/users/me"),
        ("POST", "/api/v1/users/me/password"),
    ] {
        server.call(method, path).body("text/plain", "{").send().problem(401, "unauthenticated");
    }
}

fn a_head_is_a_get_without_its_body(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "Only the head");
    let (get, head) = (server.get(&path).send().is(200), server.call("HEAD", &*path).send().is(200));
    assert_eq!((head.etag(), head.body.len()), (get.etag(), 0));
    assert_eq!(head.header("content-length"), get.header("content-length"));
    server.call("HEAD", "/api/v1/qna/9007199254740990").send().is(404);
}

/// The codes in the first column of a table below `heading` in `docs/errors.md`, with the second column.
fn table(heading: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let mut codes = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let code = columns[1].split('`').nth(1).unwrap().to_owned();
        if heading == "Codes" {
            assert!(columns[1].starts_with(&format!("<a id=\"{code}\"></a>")), "{row}");
        }
        assert_eq!(codes.insert(code, columns[2].to_owned()), None, "{row} stands there twice");
    }
    codes
}

fn the_list_of_codes_is_whole(_: &Board) {
    let listed = table("Codes");
    let general: BTreeSet<&str> = Error::CODES.into_iter().chain(mundap_api::problem::CODES).collect();
    let (things, others): (BTreeSet<&str>, BTreeSet<&str>) =
        listed.keys().map(String::as_str).partition(|code| code.ends_with("_not_found") && *code != "route_not_found");
    assert_eq!(others, general);
    assert_eq!(things, BTreeSet::from(["comment_not_found", "qna_not_found", "user_not_found"]));
    // The status that the table gives is the one that the error becomes.
    let errors = [
        Error::Invalid(mundap_domain::error::Violations::default()),
        Error::Unauthenticated,
        Error::InvalidToken,
        Error::InvalidCredentials,
        Error::InvalidRefreshToken,
        Error::Suspended,
        Error::NotAuthor,
        Error::NotAdmin,
        Error::NotFound(mundap_domain::error::Kind::QNA),
        Error::NotFound(mundap_domain::error::Kind::COMMENT),
        Error::NotFound(mundap_domain::error::Kind::USER),
        Error::EmailTaken,
        Error::KeyReused,
        Error::KeyInUse,
        Error::VersionMismatch,
        Error::InvalidCursor,
        Error::Busy("busy".into()),
        Error::Unavailable("away".into()),
        Error::internal("a fault"),
    ];
    assert_eq!(errors.len(), Error::CODES.len() + things.len());
    for error in errors {
        let problem = mundap_api::problem::Problem::from(error);
        assert_eq!(listed[problem.code()], problem.status().as_u16().to_string(), "{problem}");
    }
    let rules: BTreeSet<String> = table("Rules that a field can break").into_keys().collect();
    assert_eq!(rules, Broken::CODES.into_iter().map(str::to_owned).collect());
}
