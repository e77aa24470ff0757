//! What goes wrong, and how it is said.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use mundap_domain::Error;
use mundap_domain::error::Broken;
use mundap_domain::image::Upload;
use mundap_domain::testing::every_error;
use serde_json::json;

use crate::board::Board;
use crate::images::a_png;
use crate::server::{Options, PATIENCE, Server};

crate::tests![
    every_path_answers_other_methods_with_405,
    hostile_bodies_are_refused_and_the_server_lives_on,
    every_body_is_read_with_the_same_care,
    requests_that_are_not_http_are_refused,
    only_plain_json_is_read,
    a_slow_body_is_given_up,
    a_request_id_is_kept_when_it_is_one,
    a_bad_token_is_refused_even_where_anybody_may_read,
    who_may_not_write_is_told_before_the_body_is_read,
    a_head_is_a_get_without_its_body,
    every_get_has_a_head,
    a_stream_to_an_old_client_ends_with_its_connection,
    a_page_that_is_not_let_in_is_told_so,
    the_list_of_codes_says_what_is_answered;
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
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
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

/// What is not JSON is told so, whoever reads it, and changes nothing.
fn every_body_is_read_with_the_same_care(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let qna = server.ask_at(&user, "As it was");
    let comment = server.comment_at(&user, &qna, "As it was");
    let whole = |path: &str| server.get(path).by(&user).send().is(200).json();
    let before = [whole(&qna), whole(&comment), whole("/api/v1/users/me")];
    let bodies: [&[u8]; 7] = [
        b"",
        b"{\"content\": \"changed\"",
        b"[{\"content\": \"changed\"}]",
        b"{\"content\": \"changed\", \"content\": \"changed\"}",
        b"\xef\xbb\xbf{\"content\": \"changed\"}",
        b"{\"content\": \"changed\\udfff\"}",
        b"{\"content\": \"changed\xc0\xaf\"}",
    ];
    let mut tried = 0;
    for operation in server.document().operations() {
        if server.document().request_schema(operation).is_none() || !operation.path.starts_with("/api/") {
            continue;
        }
        tried += 1;
        let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        let target = operation
            .path
            .replace("{qna_id}", &id(&qna))
            .replace("{comment_id}", &id(&comment))
            .replace("{user_id}", &user.id.to_string());
        let by = if operation.path.starts_with("/api/v1/admin/") { board.admin() } else { &user };
        let call = || server.call(&operation.method.to_uppercase(), &*target).by(by);
        for body in bodies {
            call().body("application/json", body).send().problem(400, "malformed_json");
        }
        call().body("text/plain", "{}").send().problem(415, "unsupported_media_type");
        let packed = call().body("application/json", "{}").header("content-encoding", "br");
        packed.send().problem(415, "unsupported_media_type");
    }
    assert!(tried >= 7, "{tried}");
    assert_eq!([whole(&qna), whole(&comment), whole("/api/v1/users/me")], before);
}

/// Sends these bytes and nothing more; all that comes back until the server closes the connection.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&server.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn requests_that_are_not_http_are_refused(board: &Board) {
    let server = board.server();
    for bad in [
        "\r\n\r\nwhatever\r\n\r\n",
        "GET /api/v1/qna HTTP/7.0\r\nhost: board\r\n\r\n",
        "GET /api/v1/qna HTTP/1.1\r\nhost: board\r\nno colon\r\n\r\n",
        "POST /api/v1/users HTTP/1.1\r\nhost: board\r\ncontent-length: -1\r\n\r\n",
        "POST /api/v1/users HTTP/1.1\r\nhost: board\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\n{}",
        "POST /api/v1/users HTTP/1.1\r\nhost: board\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{}",
    ] {
        let answer = raw(server, bad.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"), "{bad:.100} {answer:.300}");
    }
    // Headers without an end: the connection is given up, with or without an answer that gets through.
    let mut stream = TcpStream::connect(&server.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let endless = format!("GET /api/v1/qna HTTP/1.1\r\nhost: board\r\nx-filler: {}", "x".repeat(1024 * 1024));
    let mut answer = Vec::new();
    let read = stream.write_all(endless.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
    let closed = |error: std::io::Error| [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind());
    assert!(read.map_or_else(closed, |_| answer.starts_with(b"HTTP/1.1 4")), "{}", String::from_utf8_lossy(&answer));
    server.get("/api/v1/qna").send().is(200);
}

fn a_slow_body_is_given_up(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_HTTP_BODY_TIMEOUT", "300ms"));
    let user = server.new_user();
    let bearer = format!("authorization: Bearer {}\r\n", user.token);
    for (path, media_type, says) in [
        ("/api/v1/qna", "application/json", r#""code":"body_timeout""#),
        ("/upload", "application/json", r#"{"detail":"The body took too long to arrive."}"#),
        ("/api/v1/auth/token", "application/x-www-form-urlencoded", r#""error":"invalid_request""#),
    ] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: board\r\nconnection: close\r\n{bearer}content-type: {media_type}\r\n\
             content-length: 100\r\n\r\n{{\"title\": "
        );
        let answer = raw(&server, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains(says), "{answer}");
        assert!(answer.to_lowercase().contains("\r\nx-request-id: "), "{answer}");
    }
    server.get("/api/v1/qna").send().is(200);
    assert_eq!(server.get("/api/v1/qna").send().is(200).json()["items"], json!([]));
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
    // A part is of a GET alone (RFC 9110, 14.2).
    let comment = server.comment_at(board.ann(), &path, "With a picture");
    let image = server.image_at(board.ann(), &comment, &a_png());
    let head = server.call("HEAD", image).header("range", "bytes=0-9").send().is(200);
    assert_eq!(head.header("content-range"), None, "{head}");
}

/// HTTP/1.0 knows no chunks (RFC 9112, 6.1).
fn a_stream_to_an_old_client_ends_with_its_connection(board: &Board) {
    let server = board.own(&Options::default());
    let title = "To an old client";
    server.ask(&server.new_user(), title);
    let answer = raw(&server, b"GET /load_all_qna HTTP/1.0\r\nhost: board\r\nconnection: keep-alive\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(!head.contains("transfer-encoding") && !head.contains("keep-alive"), "{head}");
    let rows: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(rows[0]["title"], title);
    let answer = raw(&server, b"GET /api/v1/qna HTTP/1.0\r\nhost: board\r\n\r\n");
    assert!(answer.to_lowercase().contains("\r\ncontent-length: "), "{answer}");
}

fn a_page_that_is_not_let_in_is_told_so(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_CORS_ORIGINS", "https://board.example.com"));
    let ask = |origin: &str, method: &str, header: &str| {
        let call = server.call("OPTIONS", "/api/v1/qna/1").header("origin", origin);
        call.header("access-control-request-method", method).header("access-control-request-headers", header).send()
    };
    ask("https://board.example.com", "PATCH", "if-match, range, if-range").is(200);
    for (origin, method, header) in [
        ("https://elsewhere.example.com", "PATCH", "if-match"),
        ("https://board.example.com", "BREW", "if-match"),
        ("https://board.example.com", "PATCH", "x-strange"),
    ] {
        ask(origin, method, header).problem(400, "invalid_header");
    }
}

fn every_get_has_a_head(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let qna = server.ask_at(ann, "Every head");
    let comment = server.comment_at(ann, &qna, "And its body");
    let image = server.image_at(ann, &comment, &a_png());
    let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let mut tried = 0;
    for operation in server.document().operations().into_iter().filter(|operation| operation.method == "get") {
        let target = operation
            .path
            .replace("{qna_id}", &id(&qna))
            .replace("{comment_id}", &id(&comment))
            .replace("{image_id}", &id(&image))
            .replace("{user_id}", &ann.id.to_string());
        let by = if operation.path.starts_with("/api/v1/admin/") { board.admin() } else { ann };
        let head = server.call("HEAD", &*target).by(by).send();
        let get = server.get(&*target).by(by).send().is(200);
        assert_eq!(head.status, get.status, "{head}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{head}");
        tried += 1;
    }
    assert!(tried >= 9, "{tried}");
}

/// Provokes every code that a request can provoke: its status is the one that the table gives.
fn the_list_of_codes_says_what_is_answered(board: &Board) {
    let (server, ann, bob) = (board.server(), board.ann(), board.bob());
    let qna = server.ask_at(bob, "For everything that can go wrong");
    let none = "9007199254740991";
    let title = || json!({"title": "A title", "content": ""});
    let by_ann = |method: &str, path: &str| server.call(method, path).by(ann);
    let post = || by_ann("POST", "/api/v1/qna");
    let key = format!("problems-{}", ann.id);
    post().header("idempotency-key", &key).json(json!({"title": "First", "content": ""})).send().is(201);
    let stale = by_ann("PATCH", &server.ask_at(ann, "Stale")).header("if-match", "\"7-stale\"");
    let comment = server.comment_at(ann, &qna, "Look");
    let image = server.image_at(ann, &comment, &a_png());
    let attach = || by_ann("POST", &format!("{comment}/images"));
    let password = json!({"current_password": "not this one", "new_password": "another password"});
    let taken = json!({"email": ann.email, "password": "a long password", "display_name": "Taken"});
    let replies = [
        post().json(json!({})).send(),
        server.post("/api/v1/qna").json(title()).send(),
        server.get("/api/v1/qna").bearer("not-a-token").send(),
        by_ann("POST", "/api/v1/users/me/password").json(password).send(),
        server.post("/api/v1/auth/verify").json(json!({"token": "of no letter"})).send(),
        server.post("/api/v1/qna").by(board.suspended()).json(title()).send(),
        by_ann("DELETE", &qna).send(),
        server.post("/api/v1/users").json(taken).send(),
        post().header("idempotency-key", &key).json(title()).send(),
        stale.json(title()).send(),
        server.get("/api/v1/qna?cursor=forged").send(),
        server.get(format!("/api/v1/qna/{none}")).send(),
        server.get(format!("/api/v1/comments/{none}")).send(),
        server.get(format!("/api/v1/users/{none}")).send(),
        post().body("application/json", "{").send(),
        server.get("/api/v1/qna/seven").send(),
        server.get("/api/v1/qna?limits=7").send(),
        by_ann("DELETE", &qna).header("if-match", "no quotes").send(),
        server.get("/api/v1/questions").send(),
        by_ann("PUT", &qna).send(),
        post().body("application/json", " ".repeat(600 * 1024)).send(),
        post().body("text/plain", "{}").send(),
        server.get(format!("/api/v1/qna?{}", "x".repeat(9_000))).send(),
        server.get("/api/v1/qna").header("x-filler", &"x".repeat(40_000)).send(),
        by_ann("GET", "/api/v1/admin/users").send(),
        server.get(format!("/api/v1/images/{none}")).send(),
        attach().body("multipart/form-data", "--b--").send(),
        attach().file(b"a cat").send(),
        attach().file(&a_png()[..50]).send(),
        attach().file(&vec![0; Upload::MAX_BYTES + 1]).send(),
        server.get(image).header("range", "bytes=999999-").send(),
        server.patch(format!("/api/v1/admin/users/{}", board.admin().id)).by(board.admin()).json(json!({})).send(),
    ];
    let listed = table("Codes");
    let mut answered = BTreeSet::new();
    for reply in &replies {
        let code = reply.json()["code"].as_str().unwrap().to_owned();
        assert_eq!(listed.get(&code), Some(&reply.status.to_string()), "{reply}");
        assert!(answered.insert(code), "provoked twice: {reply}");
    }
    let rest: BTreeSet<&str> = listed.keys().map(String::as_str).filter(|code| !answered.contains(*code)).collect();
    let expected = [
        // Other tests hold these: a slow body, a key in use, a rate limit, a database that is away, a time limit, a panic.
        "body_timeout",
        "too_slow",
        // Over gRPC alone.
        "malformed_message",
        "idempotency_key_in_use",
        "rate_limited",
        "busy",
        "database_unavailable",
        "internal_error",
        "image_animated",
        "image_too_many_pixels",
        "too_many_images",
        "image_quota_exceeded",
        "storage_unavailable",
        // OAuth2's shape stands in for this one.
        "invalid_refresh_token",
    ];
    assert_eq!(rest, BTreeSet::from(expected));
}

/// The codes in the first column of a table below `heading` in `docs/errors.md`, with the second column.
fn table(heading: &str) -> BTreeMap<String, String> {
    column(heading, 2)
}

/// As [`table`], with another column.
fn column(heading: &str, number: usize) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let mut codes = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let code = columns[1].split('`').nth(1).unwrap().to_owned();
        if heading == "Codes" {
            assert!(columns[1].starts_with(&format!("<a id=\"{code}\"></a>")), "{row}");
        }
        assert_eq!(codes.insert(code, columns[number].to_owned()), None, "{row} stands there twice");
    }
    codes
}

fn the_list_of_codes_is_whole(_: &Board) {
    let listed = table("Codes");
    let general: BTreeSet<&str> = Error::CODES.into_iter().chain(mundap_api::problem::CODES).collect();
    let (things, others): (BTreeSet<&str>, BTreeSet<&str>) =
        listed.keys().map(String::as_str).partition(|code| code.ends_with("_not_found") && *code != "route_not_found");
    assert_eq!(others, general);
    assert_eq!(things, BTreeSet::from(["comment_not_found", "image_not_found", "qna_not_found", "user_not_found"]));
    // The status that the table gives is the one that the error becomes.
    let errors = every_error("a fault");
    assert_eq!(errors.len(), Error::CODES.len() + things.len());
    let over_grpc = column("Codes", 3);
    for error in errors {
        let name = format!("{:?}", mundap_grpc::status::code(&error)).to_lowercase();
        assert_eq!(over_grpc[error.code()].to_lowercase().replace('_', ""), name, "{error}");
        let problem = mundap_api::problem::Problem::from(error);
        assert_eq!(listed[problem.code()], problem.status().as_u16().to_string(), "{problem}");
    }
    let rules: BTreeSet<String> = table("Rules that a field can break").into_keys().collect();
    assert_eq!(rules, Broken::CODES.into_iter().map(str::to_owned).collect());
}
