//! Comments.

use serde_json::json;

use crate::board::Board;

crate::tests![
    a_comment_lives,
    a_comment_has_20_000_characters,
    a_patch_of_a_comment_is_checked,
    strangers_change_no_comment,
    moderators_change_any_comment,
    comments_are_counted,
    comments_written_at_once_are_all_counted,
    a_question_takes_its_comments_along,
    anybody_may_comment_on_anything_that_is_there,
];

fn a_comment_lives(board: &Board) {
    let server = board.server();
    let (ann, bob) = (board.ann(), board.bob());
    let qna = server.ask(ann, "What do you say?");
    let path = format!("/api/v1/qna/{}/comments", qna["qna_id"]);
    let decomposed = "\u{1112}\u{1161}\u{11ab}";
    let created = server.post(&path).by(bob).json(json!({"content": decomposed})).send().is(201);
    let comment = created.json();
    let id = comment["comment_id"].as_i64().unwrap();
    let mut expected = json!({
        "comment_id": id,
        "qna_id": qna["qna_id"],
        "author": {"user_id": bob.id, "display_name": bob.name, "email": bob.email},
        "content": "한",
        "created_at": comment["created_at"],
        "updated_at": comment["created_at"],
        "version": 1,
        "images": [],
    });
    assert_eq!(comment, expected);
    let location = created.header("location").unwrap();
    assert_eq!(location, format!("{}/api/v1/comments/{id}", server.base()));
    assert!(created.etag().starts_with("\"1-"), "{created}");
    let read = server.get(location).by(bob).send().is(200);
    assert_eq!((read.json(), read.etag()), (comment, created.etag()));

    let untouched = server.patch(location).by(bob).json(json!({})).send().is(200);
    assert_eq!((untouched.json(), untouched.etag()), (expected.clone(), created.etag()));
    let edited = server.patch(location).by(bob).json(json!({"content": "글"})).send().is(200);
    expected["content"] = json!("글");
    expected["version"] = json!(2);
    expected["updated_at"] = edited.json()["updated_at"].clone();
    assert_eq!(edited.json(), expected);
    assert!(expected["updated_at"].as_str() > expected["created_at"].as_str(), "{expected}");
    assert_ne!(edited.etag(), created.etag());
    expected["author"] = json!({"user_id": bob.id, "display_name": bob.name});
    assert_eq!(server.get(location).send().is(200).json(), expected);
    assert_eq!(server.get(&path).send().is(200).json(), json!({"items": [expected], "next": null}));

    server.delete(location).by(bob).send().is(204);
    server.get(location).send().problem(404, "comment_not_found");
    server.delete(location).by(bob).send().problem(404, "comment_not_found");
    server.patch(location).by(bob).json(json!({"content": "x"})).send().problem(404, "comment_not_found");
    assert_eq!(server.get(&path).send().is(200).json(), json!({"items": [], "next": null}));
}

fn a_comment_has_20_000_characters(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "Long answers?");
    let write = |content: &str| {
        server.post(format!("{path}/comments")).by(board.ann()).json(json!({"content": content})).send()
    };
    assert_eq!(write(&"😀".repeat(20_000)).is(201).json()["content"], "😀".repeat(20_000));
    write(&"😀".repeat(20_001)).violates(&["/content too_long"]);
    write("").violates(&["/content too_short"]);
    write(" \n ").violates(&["/content blank"]);
    write("a\u{0}b").violates(&["/content control_character"]);
    let sneaky = json!({"content": "x", "author": 1, "qna_id": 1});
    let reply = server.post(format!("{path}/comments")).by(board.ann()).json(sneaky).send();
    reply.violates(&["/author unknown_field", "/qna_id unknown_field"]);
    assert_eq!(server.get(&path).send().is(200).json()["comment_count"], 1);
}

fn a_patch_of_a_comment_is_checked(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "Any second thoughts?");
    let comment = server.comment_at(board.bob(), &path, "First thoughts");
    let call = || server.patch(&comment).by(board.bob());
    for (body, expected) in [
        (json!({"content": null}), "/content not_a_string"),
        (json!({"content": 5}), "/content not_a_string"),
        (json!({"content": ""}), "/content too_short"),
        (json!({"content": "\u{3000}\n"}), "/content blank"),
        (json!({"content": "x".repeat(20_001)}), "/content too_long"),
        (json!({"content": "a\rb"}), "/content control_character"),
        (json!({"content": "x", "title": "x"}), "/title unknown_field"),
        (json!({"qna_id": 1}), "/qna_id unknown_field"),
        (json!({"version": 9}), "/version unknown_field"),
    ] {
        call().json(body).send().violates(&[expected]);
    }
    call().body("text/plain", r#"{"content": "x"}"#).send().problem(415, "unsupported_media_type");
    call().body("application/json", "").send().problem(400, "malformed_json");
    let before = server.get(&comment).send().is(200).json();
    assert_eq!((&before["content"], &before["version"]), (&json!("First thoughts"), &json!(1)));

    for (version, content_type) in [(2, "application/merge-patch+json"), (3, "application/json; charset=utf-8")] {
        let content = format!("Thought number {version}");
        let reply = call().body(content_type, json!({"content": content}).to_string()).send().is(200).json();
        assert_eq!((&reply["content"], &reply["version"]), (&json!(content), &json!(version)));
        assert_eq!(reply["created_at"], before["created_at"]);
    }
}

fn strangers_change_no_comment(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "Whose words are these?");
    let comment = server.comment_at(board.bob(), &path, "Mine.");
    let before = server.get(&comment).send().is(200);
    // Not even whoever asked the question.
    let edit = json!({"content": "Ours."});
    server.patch(&comment).by(board.ann()).json(edit.clone()).send().problem(403, "not_author");
    server.delete(&comment).by(board.ann()).send().problem(403, "not_author");
    server.patch(&comment).by(board.suspended()).json(edit.clone()).send().problem(403, "account_suspended");
    server.delete(&comment).by(board.suspended()).send().problem(403, "account_suspended");
    server.patch(&comment).json(edit).send().problem(401, "unauthenticated");
    server.delete(&comment).send().problem(401, "unauthenticated");
    let after = server.get(&comment).send().is(200);
    assert_eq!((after.json(), after.etag()), (before.json(), before.etag()));
    assert_eq!(server.get(&path).send().is(200).json()["comment_count"], 1);
}

fn moderators_change_any_comment(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "Is this allowed?");
    for moderator in [board.moderator(), board.admin()] {
        let comment = server.comment_at(board.bob(), &path, "Rude words");
        let edited = server.patch(&comment).by(moderator).json(json!({"content": "…"})).send().is(200).json();
        assert_eq!((&edited["content"], &edited["author"]["user_id"]), (&json!("…"), &json!(board.bob().id)));
        server.delete(&comment).by(moderator).send().is(204);
        server.get(&comment).send().problem(404, "comment_not_found");
    }
}

fn comments_are_counted(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "How many?");
    let before = server.get(&path).send().is(200).json();
    let count = || server.get(&path).send().is(200).json()["comment_count"].as_i64().unwrap();
    assert_eq!(count(), 0);
    let first = server.comment_at(board.bob(), &path, "One");
    let second = server.comment_at(board.ann(), &path, "Two");
    assert_eq!(count(), 2);
    server.patch(&first).by(board.bob()).json(json!({"content": "Still one"})).send().is(200);
    assert_eq!(count(), 2);
    server.delete(&second).by(board.ann()).send().is(204);
    server.delete(&second).by(board.ann()).send().problem(404, "comment_not_found");
    assert_eq!(count(), 1);
    let mut expected = before;
    expected["comment_count"] = json!(1);
    assert_eq!(server.get(&path).send().is(200).json(), expected, "a comment is no edit of its question");
    let listed = server.get(format!("/api/v1/qna?author={}&limit=100", board.ann().id)).send().is(200).json();
    let mine = listed["items"].as_array().unwrap().iter().find(|item| item["qna_id"] == expected["qna_id"]);
    assert_eq!(mine.map_or(&json!(1), |item| &item["comment_count"]), &json!(1));
}

fn comments_written_at_once_are_all_counted(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "All at once?");
    std::thread::scope(|scope| {
        for n in 0..20 {
            let by = if n % 2 == 0 { board.ann() } else { board.bob() };
            let path = &path;
            scope.spawn(move || {
                let comment = server.comment_at(by, path, &format!("Comment number {n}"));
                if n % 4 == 0 {
                    server.delete(comment).by(by).send().is(204);
                }
            });
        }
    });
    let qna = server.get(format!("{path}?comments=100")).send().is(200).json();
    assert_eq!((&qna["comment_count"], &qna["version"]), (&json!(15), &json!(1)));
    assert_eq!(qna["comments"]["items"].as_array().unwrap().len(), 15);
}

fn a_question_takes_its_comments_along(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "For how long?");
    let comments = [server.comment_at(board.ann(), &path, "Not long"), server.comment_at(board.bob(), &path, "Ages")];
    let other = server.ask_at(board.ann(), "And this one?");
    let kept = server.comment_at(board.bob(), &other, "Stays");
    server.delete(&path).by(board.ann()).send().is(204);
    for comment in comments {
        server.get(comment).send().problem(404, "comment_not_found");
    }
    server.get(format!("{path}/comments")).send().problem(404, "qna_not_found");
    let late = server.post(format!("{path}/comments")).by(board.bob()).json(json!({"content": "Too late"})).send();
    late.problem(404, "qna_not_found");
    server.get(kept).send().is(200);
}

fn anybody_may_comment_on_anything_that_is_there(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "May I?");
    for by in [board.ann(), board.bob(), board.moderator(), board.admin()] {
        server.comment_at(by, &path, "You may.");
    }
    let write = |call: crate::client::Call<'_>| call.json(json!({"content": "May I too?"})).send();
    write(server.post(format!("{path}/comments")).by(board.suspended())).problem(403, "account_suspended");
    write(server.post(format!("{path}/comments"))).problem(401, "unauthenticated");
    let items = server.get(format!("{path}/comments")).send().is(200).json();
    let ids: Vec<_> = items["items"].as_array().unwrap().iter().map(|item| item["comment_id"].as_i64()).collect();
    assert_eq!(ids.len(), 4);
    assert!(ids.is_sorted(), "oldest first");
}
