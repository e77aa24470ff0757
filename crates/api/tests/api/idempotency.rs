//! `Idempotency-Key`: what is asked twice is done once.

use std::thread;

use serde_json::json;

use crate::board::{Board, PASSWORD, new_email};
use crate::client::Reply;
use crate::images::a_png;

crate::tests![
    a_repetition_is_answered_as_the_first_was,
    fifty_at_once_are_one,
    the_same_key_with_another_body_is_refused,
    the_key_of_a_picture_is_none_of_what_is_no_picture,
    a_key_is_the_caller_s_own,
    a_comment_is_written_once,
    registering_is_repeated_without_a_conflict,
    the_answer_stays_after_the_thing_has_changed_or_gone,
    the_first_program_s_upload_knows_keys_too,
    what_is_no_key_is_refused,
    a_refused_request_does_not_use_up_its_key,
];

/// What must be the same in a repetition.
fn same(reply: &Reply) -> (u16, Vec<u8>, Option<String>, String) {
    (reply.status, reply.body.clone(), reply.header("location").map(str::to_owned), reply.etag())
}

fn key() -> String {
    format!("key of {}", new_email()).replace(' ', "-")
}

fn a_repetition_is_answered_as_the_first_was(board: &Board) {
    let (server, ann, key) = (board.server(), board.ann(), key());
    let body = json!({"title": "Once", "content": "한국어"});
    let ask = || server.post("/api/v1/qna").by(ann).header("idempotency-key", &key).json(body.clone()).send().is(201);
    let (first, second) = (ask(), ask());
    assert_eq!(same(&first), same(&second));
    assert_eq!((first.header("idempotent-replayed"), second.header("idempotent-replayed")), (None, Some("true")));
}

fn fifty_at_once_are_one(board: &Board) {
    let (server, key) = (board.server(), key());
    let user = server.new_user();
    let ask = || {
        let body = json!({"title": "One of fifty", "content": ""});
        server.post("/api/v1/qna").by(&user).header("idempotency-key", &key).json(body).send()
    };
    let replies: Vec<Reply> = thread::scope(|scope| {
        let asking: Vec<_> = (0..50).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let done: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 201).collect();
    assert!(done.iter().all(|reply| same(reply) == same(done[0])));
    assert_eq!(done.iter().filter(|reply| reply.header("idempotent-replayed").is_none()).count(), 1);
    // Whoever came while the first was running may be told to ask again; nothing else.
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        assert_eq!(reply.json()["code"], "idempotency_key_in_use", "{reply}");
    }
    let list = server.get(format!("/api/v1/qna?author={}", user.id)).send().is(200).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

fn the_same_key_with_another_body_is_refused(board: &Board) {
    let (server, ann, key) = (board.server(), board.ann(), key());
    let ask = |title: &str| {
        let body = json!({"title": title, "content": ""});
        server.post("/api/v1/qna").by(ann).header("idempotency-key", &key).json(body).send()
    };
    ask("The first").is(201);
    ask("The second").problem(422, "idempotency_key_reused");
    // NFC and the order of fields make no other body.
    assert_eq!(ask("The first").is(201).header("idempotent-replayed"), Some("true"));
}

fn the_key_of_a_picture_is_none_of_what_is_no_picture(board: &Board) {
    let (server, ann, key) = (board.server(), board.ann(), key());
    let qna = server.ask_at(ann, "With a picture");
    let images = format!("{}/images", server.comment_at(ann, &qna, "Here"));
    let attach = |file: &[u8]| server.post(&*images).by(ann).header("idempotency-key", &key).file(file).send();
    let png = a_png();
    attach(&png).is(201);
    for other in [b"no picture".as_slice(), &png[..png.len() / 2]] {
        attach(other).problem(422, "idempotency_key_reused");
    }
    assert_eq!(attach(&png).is(201).header("idempotent-replayed"), Some("true"));
}

fn a_key_is_the_caller_s_own(board: &Board) {
    let (server, key) = (board.server(), key());
    let ask = |by| {
        let body = json!({"title": "Same words", "content": "same key"});
        server.post("/api/v1/qna").by(by).header("idempotency-key", &key).json(body).send().is(201).json()
    };
    assert_ne!(ask(board.ann())["qna_id"], ask(board.bob())["qna_id"]);
}

fn a_comment_is_written_once(board: &Board) {
    let (server, ann, bob, key) = (board.server(), board.ann(), board.bob(), key());
    let (here, there) = (server.ask_at(ann, "Here"), server.ask_at(ann, "There"));
    let write = |path: &str| {
        let body = json!({"content": "the same words"});
        server.post(format!("{path}/comments")).by(bob).header("idempotency-key", &key).json(body).send()
    };
    let first = write(&here).is(201);
    assert_eq!(same(&write(&here)), same(&first));
    assert_eq!(server.get(&here).send().json()["comment_count"], 1);
    write(&there).problem(422, "idempotency_key_reused");
    assert_eq!(server.get(&there).send().json()["comment_count"], 0);
}

fn registering_is_repeated_without_a_conflict(board: &Board) {
    let (server, key, email) = (board.server(), key(), new_email());
    let register = |password: &str| {
        let body = json!({"email": email, "password": password, "display_name": "Once"});
        server.post("/api/v1/users").header("idempotency-key", &key).json(body).send()
    };
    let first = register(PASSWORD).is(201);
    assert_eq!(same(&register(PASSWORD)), same(&first));
    register("another password").problem(422, "idempotency_key_reused");
    server.sign_in(&email, PASSWORD).is(200);
}

fn the_answer_stays_after_the_thing_has_changed_or_gone(board: &Board) {
    let (server, ann, bob) = (board.server(), board.ann(), board.bob());
    let (ask_key, write_key) = (key(), key());
    let ask = || {
        let body = json!({"title": "It was so", "content": ""});
        server.post("/api/v1/qna").by(ann).header("idempotency-key", &ask_key).json(body).send().is(201)
    };
    let asked = ask();
    let path = format!("/api/v1/qna/{}", asked.json()["qna_id"]);
    let write = || {
        let body = json!({"content": "so it was"});
        server.post(format!("{path}/comments")).by(bob).header("idempotency-key", &write_key).json(body).send().is(201)
    };
    let written = write();
    server.patch(&path).by(ann).json(json!({"title": "It is not so any more"})).send().is(200);
    assert_eq!(same(&ask()), same(&asked));
    server.delete(&path).by(ann).send().is(204);
    assert_eq!(same(&ask()), same(&asked));
    assert_eq!(same(&write()), same(&written));
    server.get(&path).send().problem(404, "qna_not_found");
}

fn the_first_program_s_upload_knows_keys_too(board: &Board) {
    let (server, ann, key) = (board.server(), board.ann(), key());
    let upload = |title: &str| {
        let body = json!({"email": ann.email, "title": title, "content": ""});
        server.post("/upload").by(ann).header("idempotency-key", &key).json(body).send()
    };
    let (first, second) = (upload("Uploaded once").is(200), upload("Uploaded once").is(200));
    assert_eq!(first.body, second.body);
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    let refused = upload("Uploaded anew").is(422).json();
    assert_eq!(refused["detail"][0]["loc"], json!(["header", "idempotency-key"]), "{refused}");
}

fn what_is_no_key_is_refused(board: &Board) {
    for bad in ["", "two words", &"k".repeat(256)] {
        let body = json!({"title": "No key", "content": ""});
        let asked = board.server().post("/api/v1/qna").by(board.ann()).header("idempotency-key", bad).json(body).send();
        asked.problem(400, "invalid_header");
    }
}

fn a_refused_request_does_not_use_up_its_key(board: &Board) {
    let (server, ann, key) = (board.server(), board.ann(), key());
    let ask = |title: &str| {
        let body = json!({"title": title, "content": ""});
        server.post("/api/v1/qna").by(ann).header("idempotency-key", &key).json(body).send()
    };
    ask("").violates(&["/title too_short"]);
    assert_eq!(ask("Now it is there").is(201).header("idempotent-replayed"), None);
}
