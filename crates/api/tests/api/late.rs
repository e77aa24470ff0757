//! Whoever is suspended, or signed out, while a request of theirs goes on has no part in the rest of it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use futures_util::StreamExt as _;
use mundap_domain::account::{AccessClaims, AccessTokens as _};
use mundap_domain::env::Clock as _;
use mundap_domain::sign_in::SignInId;
use mundap_domain::user::UserId;
use mundap_grpc::v1;
use mundap_grpc::v1::upload_image_request::Part;
use mundap_infra::{Ed25519Tokens, SigningKeys, SystemClock};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tonic::codec::Streaming;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::board::{Board, PASSWORD, User};
use crate::client::Reply;
use crate::database::insert_qnas;
use crate::grpc::{Caller, reason, stream_of, upload};
use crate::images::a_png;
use crate::program::eventually;
use crate::server::{Options, PATIENCE, Server};

crate::tests![
    a_body_that_comes_after_its_sender_has_gone_changes_nothing,
    a_message_that_comes_after_its_sender_has_gone_changes_nothing,
    an_upload_that_ends_after_its_sender_has_gone_is_not_kept,
    a_role_is_as_it_is_when_the_body_is_there,
    a_stream_ends_with_its_readers_sign_in;
    once: an_array_of_all_rows_ends_with_its_readers_sign_in, what_has_begun_goes_on_when_its_token_runs_out,
];

fn leave(server: &Server, user: &User) -> Reply {
    server.delete("/api/v1/users/me").by(user).send().is(204)
}

/// Waits until so many requests are being answered, here and over gRPC.
fn wait_for(server: &Server, in_flight: f64) {
    eventually("it to be in flight", || (server.metrics()["mundap_http_requests_in_flight"] - in_flight).abs() < 0.5);
}

/// A request whose body has begun to come, and what is left of it.
fn half_sent(server: &Server, by: &User, line: &str, content_type: &str, body: &[u8]) -> (TcpStream, Vec<u8>) {
    // Whoever has just been seen is known at once.
    server.get("/api/v1/users/me").by(by).send().is(200);
    let mut stream = TcpStream::connect(&server.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: board\r\nauthorization: Bearer {}\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n",
        by.token,
        body.len()
    );
    let (first, rest) = body.split_at(body.len() / 2);
    stream.write_all(&[head.as_bytes(), first].concat()).unwrap();
    wait_for(server, 1.0);
    (stream, rest.to_vec())
}

fn sent((mut stream, rest): (TcpStream, Vec<u8>)) -> String {
    stream.write_all(&rest).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn a_body_that_comes_after_its_sender_has_gone_changes_nothing(board: &Board) {
    let server = board.own(&Options::default());
    let form = [
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n\r\n".as_slice(),
        &a_png(),
        b"\r\n--b--\r\n",
    ];
    let form = form.concat();
    let question = json!({"title": "After all", "content": ""}).to_string();
    for what in ["ask", "upload", "rename", "attach"] {
        let user = server.new_user();
        let qna = server.ask_at(&user, "Before");
        let comment = server.comment_at(&user, &qna, "Before");
        let seed = json!({"email": user.email, "title": "After all", "content": ""}).to_string();
        let attach = format!("POST {comment}/images");
        let json = "application/json";
        let pending = match what {
            "ask" => half_sent(&server, &user, "POST /api/v1/qna", json, question.as_bytes()),
            "upload" => half_sent(&server, &user, "POST /upload", json, seed.as_bytes()),
            "rename" => half_sent(&server, &user, "PATCH /api/v1/users/me", json, br#"{"display_name": "After all"}"#),
            _ => half_sent(&server, &user, &attach, "multipart/form-data; boundary=b", &form),
        };
        leave(&server, &user);
        let answer = sent(pending);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{what}: {answer}");
    }
    let titles = server.get("/api/v1/qna").send().is(200).text();
    assert!(!titles.contains("After all"), "{titles}");
}

fn a_role_is_as_it_is_when_the_body_is_there(board: &Board) {
    let server = board.own(&Options::default());
    let (first, second) = (server.new_user_with_role("admin"), server.new_user_with_role("admin"));
    let friend = server.new_user();
    let path = |user: &User| format!("/api/v1/admin/users/{}", user.id);
    let promotion = br#"{"role": "admin"}"#;
    let line = format!("PATCH {}", path(&friend));
    let pending = half_sent(&server, &first, &line, "application/json", promotion);
    server.patch(path(&first)).by(&second).json(json!({"role": "member"})).send().is(200);
    let answer = sent(pending);
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("not_admin"), "{answer}");
    // And one that was signed out by a new password is nobody any more.
    let pending = half_sent(&server, &second, &line, "application/json", promotion);
    let change = json!({"current_password": PASSWORD, "new_password": "another good one"});
    server.post("/api/v1/users/me/password").by(&second).json(change).send().is(204);
    let answer = sent(pending);
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("invalid_token"), "{answer}");
}

fn a_message_that_comes_after_its_sender_has_gone_changes_nothing(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    let caller = Caller::of(&server).by(&user);
    let (go, told) = oneshot::channel::<()>();
    let line = caller.line();
    let pending = caller.spawn(async move {
        let message = futures_util::stream::once(async move {
            let _ = told.await;
            let qna = v1::Qna { title: "After all".to_owned(), ..v1::Qna::default() };
            v1::CreateQnaRequest { qna: Some(qna), idempotency_key: String::new() }
        });
        let mut client = tonic::client::Grpc::new(line);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<v1::CreateQnaRequest, v1::Qna> = ProstCodec::default();
        let path = "/mundap.v1.QnaService/CreateQna".parse().unwrap();
        client.client_streaming(Request::new(message), path, codec).await
    });
    wait_for(&server, 1.0);
    leave(&server, &user);
    go.send(()).unwrap();
    let refused = caller.run(pending).unwrap().unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::Unauthenticated, "invalid_token"));
}

fn an_upload_that_ends_after_its_sender_has_gone_is_not_kept(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    let qna = server.ask_at(&user, "With a picture");
    let comment = server.comment_at(&user, &qna, "Here");
    let comment_id = comment.rsplit('/').next().unwrap().parse().unwrap();
    let caller = Caller::of(&server).by(&user);
    let (go, told) = oneshot::channel::<()>();
    let head = v1::UploadImageHead { comment_id, idempotency_key: String::new() };
    let rest = futures_util::stream::once(async move {
        let _ = told.await;
        upload(Some(Part::Data(a_png().into())))
    });
    let parts = stream_of([upload(Some(Part::Head(head)))]).chain(rest);
    let mut images = caller.images();
    let pending = caller.spawn(async move { images.upload_image(parts).await });
    wait_for(&server, 1.0);
    let account = format!("/api/v1/admin/users/{}", user.id);
    server.patch(account).by(&server.new_user_with_role("admin")).json(json!({"suspended": true})).send().is(200);
    go.send(()).unwrap();
    let refused = caller.run(pending).unwrap().unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::Unauthenticated, "invalid_token"));
    assert_eq!(server.get(&comment).send().is(200).json()["images"], json!([]));
}

fn a_stream_ends_with_its_readers_sign_in(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    // More than a stream's window holds.
    insert_qnas(&server.database_url, user.id, 5_000, &"x".repeat(1_000));
    let caller = Caller::of(&server).by(&user);
    let begun = caller.run(caller.qnas().stream_qnas(v1::StreamQnasRequest {}));
    let mut stream: Streaming<v1::Qna> = begun.unwrap().into_inner();
    leave(&server, &user);
    let end = caller.run(async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                other => break other,
            }
        }
    });
    let refused = end.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::Unauthenticated, "invalid_token"));
}

fn an_array_of_all_rows_ends_with_its_readers_sign_in(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    // More than both ends' buffers of a connection hold.
    insert_qnas(&server.database_url, user.id, 20_000, &"x".repeat(1_000));
    for path in ["/api/v1/users/me/export", "/load_all_qna"] {
        let reader = if path == "/load_all_qna" { server.new_user() } else { user.clone() };
        let mut stream = TcpStream::connect(&server.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: board\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
            reader.token
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = vec![0; 100_001];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        leave(&server, &reader);
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.ends_with(b"0\r\n\r\n"), "{path}: {} bytes to its end", answer.len());
    }
}

/// A token of the user's sign-in that is good for two seconds.
fn short_token(server: &Server, user: &User) -> String {
    let claims = URL_SAFE_NO_PAD.decode(user.token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let keys = SigningKeys::load_or_create(&server.data_dir().join("signing-key.pem")).unwrap();
    let now = SystemClock.now();
    let claims = AccessClaims {
        user: UserId::new(user.id),
        sign_in: SignInId::new(claims["sid"].as_str().unwrap().parse().unwrap()),
        issued_at: now,
        expires_at: now.plus(TimeDelta::seconds(2)),
    };
    Ed25519Tokens::new(&keys, &server.base()).issue(&claims).unwrap()
}

fn what_has_begun_goes_on_when_its_token_runs_out(board: &Board) {
    let server = board.own(&Options::default());
    let user = server.new_user();
    insert_qnas(&server.database_url, user.id, 20_000, &"x".repeat(1_000));
    let run_out = |token: &str| {
        eventually("the token to run out", || server.get("/api/v1/users/me").bearer(token).send().status == 401);
    };
    for path in ["/api/v1/users/me/export", "/load_all_qna"] {
        let token = short_token(&server, &user);
        let mut stream = TcpStream::connect(&server.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: board\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = vec![0; 100_001];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        run_out(&token);
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.ends_with(b"0\r\n\r\n"), "{path}: {} bytes and no end", answer.len());
    }
    let body = br#"{"title": "In time", "content": ""}"#;
    let user = User { token: short_token(&server, &user), ..user };
    let pending = half_sent(&server, &user, "POST /api/v1/qna", "application/json", body);
    run_out(&user.token);
    let answer = sent(pending);
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let user = User { token: short_token(&server, &user), ..user };
    let caller = Caller::of(&server).by(&user);
    let mut stream = caller.run(caller.qnas().stream_qnas(v1::StreamQnasRequest {})).unwrap().into_inner();
    run_out(&user.token);
    let count = caller.run(async {
        let mut count = 0;
        while stream.message().await?.is_some() {
            count += 1;
        }
        Ok::<_, Status>(count)
    });
    assert_eq!(count.unwrap(), 20_001);
}
