//! What people read comes in the language that they ask for; what programs read is the same for all.

use serde_json::{Value, json};

use crate::board::Board;
use crate::client::Reply;
use crate::server::Options;

crate::tests![
    a_refusal_is_in_the_language_asked_for,
    field_errors_are_in_the_language_asked_for,
    the_language_follows_weights_and_places,
    a_bad_wish_is_no_error,
    what_is_not_refused_has_no_language,
    the_first_programs_endpoints_speak_english,
    signing_in_speaks_plain_ascii,
    caches_and_browsers_are_told_what_an_answer_depends_on,
];

fn is_korean(text: &str) -> bool {
    text.chars().any(|c| ('가'..='힣').contains(&c))
}

fn is_in(reply: &Reply, tag: &str) -> bool {
    reply.header("content-language") == Some(tag)
        && is_korean(reply.json()["detail"].as_str().unwrap()) == (tag == "ko")
}

/// The same but for the texts and the request.
fn unspoken(mut body: Value) -> Value {
    body.as_object_mut().unwrap().retain(|name, _| name != "detail" && name != "request_id");
    for error in body["errors"].as_array_mut().into_iter().flatten() {
        error.as_object_mut().unwrap().remove("detail");
    }
    body
}

fn a_refusal_is_in_the_language_asked_for(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let none = "/api/v1/qna/9007199254740991";
    let qna = server.ask_at(board.bob(), "In whose language?");
    for (method, target, korean, english) in [
        ("GET", none, "해당 QnA가 없거나 이미 삭제되었습니다.", "There is no such QnA, or it was deleted."),
        (
            "DELETE",
            &*qna,
            "작성자 본인이나 중재자만 변경할 수 있습니다.",
            "Only its author or a moderator may change this.",
        ),
        (
            "GET",
            "/api/v1/qna/%EC%9D%BC%EA%B3%B1",
            "경로에 ID 대신 \"일곱\" 값이 있습니다. ID는 정수입니다.",
            "\"일곱\" in the path is not an id: ids are whole numbers.",
        ),
        (
            "GET",
            "/api/v1/qna?limits=7",
            "알 수 없는 쿼리 매개변수입니다: limits. 사용할 수 있는 매개변수: author, cursor, limit, order.",
            "There is no parameter limits here, only author, cursor, limit, order.",
        ),
        (
            "PUT",
            "/api/v1/qna",
            "이 경로에서 사용할 수 있는 메서드: GET, HEAD, POST.",
            "This path answers GET, HEAD, POST.",
        ),
        (
            "GET",
            "/nope",
            "이 경로에는 아무것도 없습니다. 사용할 수 있는 경로는 /docs에 나와 있습니다.",
            "There is nothing at this path; /docs lists what there is.",
        ),
    ] {
        let ask = |language: &str| server.call(method, target).by(ann).header("accept-language", language).send();
        let (in_korean, in_english, by_default) = (ask("ko"), ask("en"), server.call(method, target).by(ann).send());
        assert_eq!(in_korean.json()["detail"], korean, "{in_korean}");
        assert_eq!(in_english.json()["detail"], english, "{in_english}");
        assert_eq!(by_default.json()["detail"], english, "{by_default}");
        assert_eq!(in_korean.header("content-language"), Some("ko"), "{in_korean}");
        assert_eq!(in_english.header("content-language"), Some("en"), "{in_english}");
        assert_eq!(unspoken(in_korean.json()), unspoken(in_english.json()));
    }
    // Before any handler, too.
    let reply = server.get("/api/v1/qna").bearer("not-a-token").header("accept-language", "ko").send();
    assert!(is_in(&reply, "ko"), "{reply}");
    reply.problem(401, "invalid_token");
}

fn field_errors_are_in_the_language_asked_for(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let body = json!({"title": "제".repeat(256), "content": 7, "작성자": "ann"});
    let ask = |language: &str| {
        server.post("/api/v1/qna").by(ann).header("accept-language", language).json(body.clone()).send()
    };
    let texts = |reply: &Reply| -> Vec<(String, String)> {
        let text = |error: &Value, name: &str| error[name].as_str().unwrap().to_owned();
        let errors = reply.json()["errors"].as_array().unwrap().clone();
        let mut texts: Vec<_> = errors.iter().map(|error| (text(error, "pointer"), text(error, "detail"))).collect();
        texts.sort();
        texts
    };
    let own = |texts: [(&str, &str); 3]| texts.map(|(field, text)| (field.to_owned(), text.to_owned()));
    let (korean, english) = (ask("ko-KR"), ask("en"));
    assert_eq!(
        texts(&korean),
        own([
            ("/content", "문자열이어야 합니다"),
            ("/title", "255자 이하여야 합니다"),
            ("/작성자", "알 수 없는 필드입니다"),
        ])
    );
    assert_eq!(
        texts(&english),
        own([
            ("/content", "must be a string"),
            ("/title", "must have at most 255 characters"),
            ("/작성자", "is not a known field"),
        ])
    );
    for (field, text) in texts(&korean) {
        assert!(korean.json()["detail"].as_str().unwrap().contains(&format!("{field}: {text}")), "{korean}");
    }
    assert_eq!(unspoken(korean.json()), unspoken(english.json()));
    korean.violates(&["/title too_long", "/content not_a_string", "/작성자 unknown_field"]);
}

fn the_language_follows_weights_and_places(board: &Board) {
    let ask = |line: &str| board.server().get("/nope").header("accept-language", line).send();
    for (line, tag) in [
        ("ko", "ko"),
        ("ko-KR", "ko"),
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("en-US,en;q=0.9,ko;q=0.8", "en"),
        ("en;q=0.8, ko;q=0.9", "ko"),
        ("fr, ko;q=0.1", "ko"),
        ("*", "en"),
        ("en;q=0, *", "ko"),
        ("ko;q=0, *;q=0.1", "en"),
        ("fr, ja;q=0.5", "en"),
    ] {
        let reply = ask(line);
        assert!(is_in(&reply, tag), "{line}: {reply}");
    }
    let twice = board.server().get("/nope").header("accept-language", "en;q=0.5").header("accept-language", "ko");
    let reply = twice.send();
    assert!(is_in(&reply, "ko"), "{reply}");
}

fn a_bad_wish_is_no_error(board: &Board) {
    let server = board.server();
    let long = ["xx-yy;q=0.5,".repeat(850), "k".repeat(10_240), ",".repeat(10_240), "ko;q=".repeat(2_048)];
    let lines = ["", ";;;", "ko;q=7", "ko;q=NaN", "한국어", "ko_KR", "{ $name }"].map(str::to_owned);
    for line in lines.iter().chain(&long) {
        let reply = server.get("/nope").raw_header("accept-language", line.as_bytes()).send();
        assert!(is_in(&reply, "en"), "{line:.40}: {reply}");
        reply.problem(404, "route_not_found");
        server.get("/api/v1/qna?limit=1").raw_header("accept-language", line.as_bytes()).send().is(200);
    }
    let reply = server.get("/nope").raw_header("accept-language", b"\xff\xfeko").send();
    assert!(is_in(&reply, "en"), "{reply}");
}

fn what_is_not_refused_has_no_language(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let path = server.ask_at(ann, "No language of ours");
    let ask = |language: &str| server.get(&path).header("accept-language", language);
    let (korean, english) = (ask("ko").send().is(200), ask("en").send().is(200));
    assert_eq!((korean.etag(), &korean.body), (english.etag(), &english.body));
    let unchanged = ask("ko").header("if-none-match", &korean.etag()).send().is(304);
    for reply in [&korean, &unchanged] {
        assert_eq!(reply.header("content-language"), None, "{reply}");
        assert_eq!(reply.header("vary"), Some("Authorization"), "{reply}");
    }
}

fn the_first_programs_endpoints_speak_english(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let in_korean = |method: &str, path: &str| server.call(method, path).by(ann).header("accept-language", "ko");
    in_korean("GET", "/load_qna/9007199254740991").send().detail(404, "QnA not found");
    let stranger = json!({"email": board.bob().email, "title": "Not mine", "content": ""});
    in_korean("POST", "/upload").json(stranger).send().detail(400, "you are not writer");
    let large = in_korean("POST", "/upload").body("application/json", " ".repeat(600 * 1024)).send();
    large.detail(413, "The body has more than 524288 bytes.");
    let invalid = in_korean("POST", "/upload").json(json!({"email": ann.email, "title": "", "content": ""})).send();
    assert_eq!(invalid.status, 422, "{invalid}");
    assert!(invalid.text().is_ascii(), "{invalid}");
    assert_eq!(invalid.header("content-language"), None, "{invalid}");
    in_korean("GET", "/load_qna/seven").send().is(422);
}

/// RFC 6749, 5.2.
fn signing_in_speaks_plain_ascii(board: &Board) {
    let server = board.server();
    let post = || server.post("/api/v1/auth/token").header("accept-language", "ko");
    let wrong: &[(&str, &str)] =
        &[("grant_type", "password"), ("username", "no-one@example.com"), ("password", "a long password")];
    let replies = [
        post().form(wrong).send(),
        post().form(&[("grant_type", "암호")]).send(),
        post().form(&[("\"이름\\", "a"), ("\"이름\\", "b")]).send(),
        post().body("text/plain", "grant_type=password").send(),
    ];
    for reply in &replies {
        assert!((400..=415).contains(&reply.status), "{reply}");
        let description = reply.json()["error_description"].as_str().unwrap().to_owned();
        assert!(description.len() > 10, "{reply}");
        let is_allowed = |c: char| matches!(c, '\x20'..='\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e');
        assert!(description.chars().all(is_allowed), "{reply}");
    }
    assert_eq!(replies[2].json()["error_description"], "The form cannot be read: ???? stands there twice.");
}

fn caches_and_browsers_are_told_what_an_answer_depends_on(board: &Board) {
    let origin = "https://board.example.com";
    let server = board.own(&Options::env("MUNDAP_CORS_ORIGINS", origin));
    let ask = |path: &str| server.get(path).header("origin", origin).header("accept-language", "ko").send();
    for (path, status) in [("/api/v1/qna/1", 404), ("/nope", 404), ("/api/v1/qna/seven", 400), ("/load_qna/1", 404)] {
        let reply = ask(path).is(status);
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin), "{reply}");
        let vary = reply.header("vary").unwrap().to_lowercase();
        let parts: Vec<&str> = vary.split(',').map(str::trim).collect();
        assert!(parts.contains(&"origin"), "{reply}");
        assert_eq!(parts.contains(&"accept-language"), path != "/load_qna/1", "{reply}");
        assert_eq!(reply.headers.get_all("vary").iter().count(), 1, "{reply}");
    }
    let vary = ask("/api/v1/qna").is(200).header("vary").unwrap().to_lowercase();
    assert!(vary.contains("authorization") && vary.contains("origin") && !vary.contains("language"), "{vary}");
}
