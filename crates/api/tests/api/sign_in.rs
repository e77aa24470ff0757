//! Access tokens and refresh tokens.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::board::{Board, PASSWORD, User, new_email};
use crate::client::Reply;
use crate::server::Server;

crate::tests![
    tokens_are_given_for_a_password,
    other_parameters_of_oauth2_are_ignored,
    an_unknown_account_looks_like_a_wrong_password,
    a_form_that_cannot_be_read_is_refused_in_oauth2s_shape,
    refresh_tokens_rotate_and_a_used_one_ends_the_sign_in,
    one_lost_answer_is_forgiven,
    a_refresh_token_used_at_once_is_good_twice_at_most,
    revoking_ends_one_sign_in,
    a_bad_authorization_header_is_refused_even_where_anybody_may_read,
    access_tokens_are_checked,
    public_keys_are_served,
];

/// The two tokens in an answer.
fn pair(reply: &Reply) -> (String, String) {
    let body = reply.json();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

fn tokens_are_given_for_a_password(board: &Board) {
    let server = board.server();
    let reply = server.sign_in(&board.ann().email, PASSWORD).is(200);
    let body = reply.json();
    let (access, refresh) = pair(&reply);
    let expected = json!({"access_token": access, "token_type": "bearer", "expires_in": 600, "refresh_token": refresh});
    assert_eq!(body, expected);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(server.get("/api/v1/users/me").bearer(&access).send().is(200).json()["user_id"], board.ann().id);
    // RFC 9110, 11.1: the scheme's case does not matter.
    let call = server.get("/api/v1/users/me").header("authorization", &format!("bEARER {access}"));
    call.send().is(200);
}

fn other_parameters_of_oauth2_are_ignored(board: &Board) {
    let form = [
        ("grant_type", "password"),
        ("username", &board.ann().email),
        ("password", PASSWORD),
        ("scope", ""),
        ("client_id", "string"),
        ("client_secret", "********"),
    ];
    let basic = format!("Basic {}", STANDARD.encode("string:secret"));
    board.server().post("/api/v1/auth/token").header("authorization", &basic).form(&form).send().is(200);
}

fn an_unknown_account_looks_like_a_wrong_password(board: &Board) {
    let server = board.server();
    let plain = |reply: Reply| {
        let headers: BTreeMap<String, String> = reply
            .headers
            .iter()
            .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        (reply.status, headers, reply.text())
    };
    let wrong = server.sign_in(&board.ann().email, "not my password").is(400);
    assert_eq!(wrong.json()["error"], "invalid_grant");
    let wrong = plain(wrong);
    for unknown in [new_email(), "not an e-mail".to_owned(), "a\u{0}b@example.com".to_owned(), "가".repeat(10_000)] {
        assert_eq!(plain(server.sign_in(&unknown, PASSWORD)), wrong, "{unknown:.50}");
    }
}

fn a_form_that_cannot_be_read_is_refused_in_oauth2s_shape(board: &Board) {
    let server = board.server();
    let forms: [(&[(&str, &str)], &str); 7] = [
        (&[], "invalid_request"),
        (&[("grant_type", "password"), ("username", "ann@example.com")], "invalid_request"),
        (&[("grant_type", "password"), ("username", ""), ("password", "")], "invalid_request"),
        (&[("grant_type", "refresh_token")], "invalid_request"),
        (&[("grant_type", "refresh_token"), ("refresh_token", "rubbish")], "invalid_grant"),
        (&[("grant_type", "client_credentials")], "unsupported_grant_type"),
        (&[("grant_type", "password"), ("grant_type", "password")], "invalid_request"),
    ];
    for (form, error) in forms {
        let reply = server.post("/api/v1/auth/token").form(form).send().is(400);
        assert_eq!(reply.json()["error"], error, "{form:?}: {reply}");
    }
    for path in ["/api/v1/auth/token", "/api/v1/auth/revoke"] {
        let reply = server.post(path).json(json!({"grant_type": "password"})).send().is(415);
        assert_eq!(reply.json()["error"], "invalid_request", "{reply}");
        let form = server.post(path).body("application/x-www-form-urlencoded", "a=b");
        form.header("content-encoding", "gzip").send().is(415);
        let large = "a".repeat(600 * 1024);
        server.post(path).body("application/x-www-form-urlencoded", large).send().is(413);
    }
    let reply = server.post("/api/v1/auth/revoke").form(&[("token_type_hint", "access_token")]).send().is(400);
    assert_eq!(reply.json()["error"], "invalid_request");
}

/// Asserts that the sign-in with these tokens is over.
fn is_over(server: &Server, access: &str, refresh: &str) {
    server.get("/api/v1/qna").bearer(access).send().problem(401, "invalid_token");
    assert_eq!(server.refresh(refresh).is(400).json()["error"], "invalid_grant");
}

fn refresh_tokens_rotate_and_a_used_one_ends_the_sign_in(board: &Board) {
    let server = board.server();
    let email = &board.ann().email;
    let (access_1, refresh_1) = pair(&server.sign_in(email, PASSWORD).is(200));
    let (access_2, refresh_2) = pair(&server.refresh(&refresh_1).is(200));
    let (access_3, refresh_3) = pair(&server.refresh(&refresh_2).is(200));
    assert!(refresh_1 != refresh_2 && refresh_2 != refresh_3, "a refresh token must not be given twice");
    for access in [&access_1, &access_2, &access_3] {
        server.get("/api/v1/users/me").bearer(access).send().is(200);
    }
    // Two parties hold what comes back now: it ends for both, at once.
    assert_eq!(server.refresh(&refresh_1).is(400).json()["error"], "invalid_grant");
    for access in [&access_1, &access_2, &access_3] {
        is_over(server, access, &refresh_3);
    }
    // Other sign-ins of the account go on.
    server.get("/api/v1/users/me").by(board.ann()).send().is(200);
}

fn one_lost_answer_is_forgiven(board: &Board) {
    let server = board.server();
    let (_, first) = pair(&server.sign_in(&board.ann().email, PASSWORD).is(200));
    let (_, lost) = pair(&server.refresh(&first).is(200));
    let (access, second) = pair(&server.refresh(&first).is(200));
    server.get("/api/v1/users/me").bearer(&access).send().is(200);
    let (access, third) = pair(&server.refresh(&second).is(200));
    // What was lost must not be found again.
    server.refresh(&lost).is(400);
    is_over(server, &access, &third);

    let (_, first) = pair(&server.sign_in(&board.ann().email, PASSWORD).is(200));
    server.refresh(&first).is(200);
    let (access, second) = pair(&server.refresh(&first).is(200));
    server.refresh(&first).is(400);
    is_over(server, &access, &second);
}

fn a_refresh_token_used_at_once_is_good_twice_at_most(board: &Board) {
    let server = board.server();
    let (access, refresh) = pair(&server.sign_in(&board.ann().email, PASSWORD).is(200));
    let answers: Vec<Reply> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..10).map(|_| scope.spawn(|| server.refresh(&refresh))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    // Whichever comes first rotates it, the next one counts as a repetition, the third as a theft.
    let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(good.len(), 2, "{answers:?}");
    for answer in refused {
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_grant")), "{answer}");
    }
    for answer in good {
        let (access, refresh) = pair(answer);
        is_over(server, &access, &refresh);
    }
    is_over(server, &access, &refresh);
}

fn revoking_ends_one_sign_in(board: &Board) {
    let server = board.server();
    let revoke = |token: &str| server.post("/api/v1/auth/revoke").form(&[("token", token)]).send().is(200);
    for by_refresh in [true, false] {
        let (access, refresh) = pair(&server.sign_in(&board.ann().email, PASSWORD).is(200));
        revoke(if by_refresh { &refresh } else { &access });
        is_over(server, &access, &refresh);
        // Once more is no error (RFC 7009, 2.2).
        revoke(&refresh);
        revoke(&access);
    }
    for rubbish in ["never was a token", "", "a.b.c", &"x".repeat(10_000)] {
        revoke(rubbish);
    }
    // A hint may be wrong, and may be one that we do not know (RFC 7009, 2.1).
    for hint in ["access_token", "refresh_token", "something else"] {
        let (access, refresh) = pair(&server.sign_in(&board.ann().email, PASSWORD).is(200));
        let form = [("token", refresh.as_str()), ("token_type_hint", hint)];
        let reply = server.post("/api/v1/auth/revoke").form(&form).send().is(200);
        assert_eq!((reply.header("cache-control"), reply.body.len()), (Some("no-store"), 0), "{reply}");
        is_over(server, &access, &refresh);
    }
    server.get("/api/v1/users/me").by(board.ann()).send().is(200);
}

fn a_bad_authorization_header_is_refused_even_where_anybody_may_read(board: &Board) {
    let server = board.server();
    let challenge = r#"Bearer realm="mundap", error="invalid_token""#;
    let headers = ["Bearer", "Bearer ", "Bearer nonsense", "Basic YTpi", "Digest a", "Bearer a b", "Bearer a.b.c", ""];
    for header in headers {
        for path in ["/api/v1/qna", "/api/v1/users/me", "/api/v1/qna/1", "/api/v1/users/1"] {
            let reply = server.get(path).header("authorization", header).send();
            assert_eq!(reply.header("www-authenticate"), Some(challenge), "{reply}");
            reply.problem(401, "invalid_token");
        }
        let reply = server.get("/load_all_qna").header("authorization", header).send();
        assert_eq!(reply.header("www-authenticate"), Some(challenge), "{reply}");
        reply.detail(401, "Could not validate credentials");
    }
    // Bytes that are no text, which the client above would not send.
    let mut raw = TcpStream::connect(&server.http).unwrap();
    let request = b"GET /api/v1/qna HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: \xff\xfe\r\n\r\n";
    raw.write_all(request).unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("invalid_token"), "{answer}");

    let reply = server.post("/api/v1/qna").json(json!({})).send();
    assert_eq!(reply.header("www-authenticate"), Some(r#"Bearer realm="mundap""#), "{reply}");
    reply.problem(401, "unauthenticated");
    // What needs no token looks at none.
    for path in ["/openapi.json", "/.well-known/jwks.json", "/docs"] {
        server.get(path).header("authorization", "Bearer nonsense").send().is(200);
    }
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn encoded(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

fn access_tokens_are_checked(board: &Board) {
    let server = board.server();
    let User { id, token, .. } = board.ann();
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("a token has three parts") };
    let (head, said) = (decoded(header), decoded(claims));
    assert_eq!((&head["alg"], &head["typ"]), (&json!("EdDSA"), &json!("at+jwt")));
    assert_eq!((&said["sub"], &said["iss"]), (&json!(id.to_string()), &json!(server.base())));
    assert_eq!(said["aud"], "mundap");
    assert!(said["jti"].as_str().is_some_and(|id| id.len() >= 16), "{said}");
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 600);

    let is_refused = |token: &str| {
        server.get("/api/v1/users/me").bearer(token).send().problem(401, "invalid_token");
    };
    let with = |value: &Value, name: &str, new: Value| {
        let mut value = value.clone();
        value[name] = new;
        encoded(&value)
    };
    for alg in ["none", "None", "HS256", "ES256", "EdDSA"] {
        is_refused(&format!("{}.{claims}.", with(&head, "alg", json!(alg))));
        is_refused(&format!("{}.{claims}.AAAA", with(&head, "alg", json!(alg))));
    }
    is_refused(&format!("{}.{claims}.{signature}", with(&head, "alg", json!("none"))));
    is_refused(&format!("{}.{claims}.{signature}", with(&head, "typ", json!("JWT"))));
    is_refused(&format!("{header}.{}.{signature}", with(&said, "sub", json!(board.bob().id.to_string()))));
    for exp in [json!(9_999_999_999_i64), json!(1), said["iat"].clone(), json!("never"), Value::Null] {
        is_refused(&format!("{header}.{}.{signature}", with(&said, "exp", exp)));
    }
    is_refused(&format!("{header}.{}.{signature}", with(&said, "aud", json!("elsewhere"))));
    is_refused(&format!("{header}.{}.{signature}", with(&said, "iss", json!("https://elsewhere.example"))));
    // The last character of a signature of 64 bytes carries bits that mean nothing: they must not mean yes.
    for index in 0..signature.len() {
        let mut bent = signature.as_bytes().to_vec();
        bent[index] = if bent[index] == b'A' { b'B' } else { b'A' };
        is_refused(&format!("{header}.{claims}.{}", str::from_utf8(&bent).unwrap()));
    }
    is_refused(&format!("{header}.{claims}.{}", board.bob().token.split('.').nth(2).unwrap()));
    // Of two, which is meant cannot be told: whoever stands before the board may have looked at the other.
    for (one, other) in [(token, &board.bob().token), (token, token)] {
        server.get("/api/v1/users/me").bearer(one).bearer(other).send().problem(401, "invalid_token");
        server.get("/load_all_qna").bearer(one).bearer(other).send().is(401);
    }
    is_refused(&format!("{header}.{claims}"));
    is_refused(&format!("{token}.{signature}"));
    is_refused(&board.ann().refresh);
    // Another board's token, as good as ours but for its key and issuer.
    let other = board.trusted().new_user();
    is_refused(&other.token);
}

fn public_keys_are_served(board: &Board) {
    let server = board.server();
    let keys = server.get("/.well-known/jwks.json").send().is(200).json();
    let keys = keys["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    let key = &keys[0];
    assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA")));
    assert_eq!(URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap().len(), 32);
    assert!(key["d"].is_null(), "the private key is no part of it");
    let header = decoded(board.ann().token.split('.').next().unwrap());
    assert_eq!(header["kid"], key["kid"]);
    assert!(key["kid"].is_string(), "{key}");
}
