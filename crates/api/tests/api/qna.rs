//! Questions.

use serde_json::{Value, json};

use crate::board::Board;

crate::tests![
    a_question_lives,
    a_patch_changes_what_it_names,
    nothing_but_title_and_content_can_be_sent,
    korean_is_composed,
    a_title_has_255_characters,
    content_has_20_000_characters,
    text_comes_back_as_it_was_sent,
    control_characters_are_refused,
    strangers_change_nothing,
    moderators_change_anything,
    an_email_is_shown_to_its_owner_and_to_admins_alone,
    what_is_not_there_is_not_found,
    comments_come_along,
];

fn a_question_lives(board: &Board) {
    let server = board.server();
    let ann = board.ann();
    let body = json!({"title": "How do I start?", "content": "I have read the README."});
    let created = server.post("/api/v1/qna").by(ann).json(body).send().is(201);
    let qna = created.json();
    let id = qna["qna_id"].as_i64().unwrap();
    let mut expected = json!({
        "qna_id": id,
        "title": "How do I start?",
        "content": "I have read the README.",
        "author": {"user_id": ann.id, "display_name": ann.name, "email": ann.email},
        "comment_count": 0,
        "created_at": qna["created_at"],
        "updated_at": qna["created_at"],
        "version": 1,
    });
    assert_eq!(qna, expected);
    let location = created.header("location").unwrap();
    assert_eq!(location, format!("{}/api/v1/qna/{id}", server.base()));
    assert!(created.etag().starts_with("\"1-"), "{created}");
    assert_eq!(created.header("cache-control"), Some("private, no-cache"));
    assert_eq!(created.header("vary"), Some("Authorization"), "caches must not mix callers");

    let read = server.get(location).by(ann).send().is(200);
    assert_eq!((read.json(), read.etag()), (qna, created.etag()));
    expected["author"] = json!({"user_id": ann.id, "display_name": ann.name});
    assert_eq!(server.get(location).send().is(200).json(), expected);

    let head = server.call("HEAD", location).send().is(200);
    let length = server.get(location).send().body.len();
    assert_eq!(head.header("content-length"), Some(length.to_string().as_str()));

    let gone = server.delete(location).by(ann).send().is(204);
    assert!(gone.body.is_empty(), "{gone}");
    server.get(location).send().problem(404, "qna_not_found");
    server.delete(location).by(ann).send().problem(404, "qna_not_found");
    server.patch(location).by(ann).json(json!({"title": "Again"})).send().problem(404, "qna_not_found");
}

fn a_patch_changes_what_it_names(board: &Board) {
    let server = board.server();
    let ann = board.ann();
    let path = server.ask_at(ann, "As it was");
    let mut expected = server.get(&path).by(ann).send().is(200);
    for (version, patch) in [
        (1, json!({})),
        (2, json!({"title": "As it is"})),
        (3, json!({"content": ""})),
        (4, json!({"title": "Both", "content": "at once"})),
        // Also where nothing is different: somebody has said that it shall be so.
        (5, json!({"title": "Both"})),
        (5, json!({})),
    ] {
        let call = server.patch(&path).by(ann);
        // RFC 7396's own media type says the same as plain JSON.
        let call = if version % 2 == 0 {
            call.body("application/merge-patch+json", patch.to_string())
        } else {
            call.json(patch.clone())
        };
        let reply = call.send().is(200);
        let qna = reply.json();
        let mut next = expected.json();
        for (name, value) in patch.as_object().unwrap() {
            next[name] = value.clone();
        }
        next["version"] = json!(version);
        next["updated_at"] = qna["updated_at"].clone();
        assert_eq!(qna, next);
        let (before, after) = (expected.json()["updated_at"].clone(), qna["updated_at"].clone());
        assert_eq!(before.as_str() < after.as_str(), patch != json!({}), "{patch}");
        assert_eq!(expected.etag() != reply.etag(), patch != json!({}), "{patch}");
        assert!(reply.etag().starts_with(&format!("\"{version}-")), "{reply}");
        let read = server.get(&path).by(ann).send().is(200);
        assert_eq!((read.json(), read.etag()), (qna, reply.etag()));
        expected = read;
    }
    let edit = |body| server.patch(&path).by(ann).json(body).send();
    edit(json!({"title": null, "content": null})).violates(&["/title not_a_string", "/content not_a_string"]);
    edit(json!({"title": "", "content": "x".repeat(20_001)})).violates(&["/title too_short", "/content too_long"]);
    assert_eq!(server.get(&path).by(ann).send().is(200).json(), expected.json());
}

fn nothing_but_title_and_content_can_be_sent(board: &Board) {
    let server = board.server();
    let ann = server.new_user();
    let path = server.ask_at(&ann, "Mine");
    let before = server.get(&path).send().is(200).json();
    for name in ["qna_id", "author", "user_id", "comment_count", "created_at", "updated_at", "version", "Title", ""] {
        let mut body = json!({"title": "Mine too", "content": "x"});
        body[name] = json!(7);
        let violation = format!("/{name} unknown_field");
        server.post("/api/v1/qna").by(&ann).json(body.clone()).send().violates(&[&violation]);
        server.patch(&path).by(&ann).json(body).send().violates(&[&violation]);
    }
    let reply = server.post("/api/v1/qna").by(&ann).json(json!({"titel": "x"})).send();
    let said = reply.json();
    reply.violates(&["/titel unknown_field", "/title required", "/content required"]);
    assert!(
        said["detail"].as_str().unwrap().starts_with("/titel is not a known field (did you mean title?); "),
        "{said}"
    );
    assert_eq!(server.get(&path).send().is(200).json(), before);
    let mine = server.get(format!("/api/v1/qna?author={}", ann.id)).send().is(200).json();
    assert_eq!(mine["items"], json!([before]), "a refused question must leave nothing behind");
}

fn korean_is_composed(board: &Board) {
    let server = board.server();
    let decomposed = "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}\u{110b}\u{1165}";
    let body = json!({"title": decomposed, "content": format!("{decomposed}\n{decomposed}")});
    let qna = server.post("/api/v1/qna").by(board.ann()).json(body).send().is(201).json();
    let read = server.get(format!("/api/v1/qna/{}", qna["qna_id"])).send().is(200).json();
    for seen in [&qna, &read] {
        assert_eq!((&seen["title"], &seen["content"]), (&json!("한국어"), &json!("한국어\n한국어")));
        assert_eq!(seen["title"].as_str().unwrap().chars().count(), 3);
    }
    // 255 syllables stay 255, though 765 characters were sent.
    let syllable = "\u{1112}\u{1161}\u{11ab}";
    let ask = |n: usize| {
        let body = json!({"title": syllable.repeat(n), "content": ""});
        server.post("/api/v1/qna").by(board.ann()).json(body).send()
    };
    assert_eq!(ask(255).is(201).json()["title"], "한".repeat(255));
    ask(256).violates(&["/title too_long"]);
}

fn a_title_has_255_characters(board: &Board) {
    let server = board.server();
    let ask =
        |title: &str| server.post("/api/v1/qna").by(board.ann()).json(json!({"title": title, "content": "x"})).send();
    for character in ["a", "문", "😀"] {
        assert_eq!(ask(&character.repeat(255)).is(201).json()["title"], character.repeat(255));
        ask(&character.repeat(256)).violates(&["/title too_long"]);
    }
    ask("").violates(&["/title too_short"]);
    ask(" \t\n\u{3000}\u{a0}").violates(&["/title blank"]);
    assert_eq!(ask(" x ").is(201).json()["title"], " x ", "text is kept as it was sent");
}

fn content_has_20_000_characters(board: &Board) {
    let server = board.server();
    let ask = |content: &str| {
        server.post("/api/v1/qna").by(board.ann()).json(json!({"title": "Long", "content": content})).send()
    };
    for character in ["a", "답", "😀"] {
        let longest = character.repeat(20_000);
        let qna = ask(&longest).is(201).json();
        assert_eq!(qna["content"], longest.as_str());
        let read = server.get(format!("/api/v1/qna/{}", qna["qna_id"])).send().is(200).json();
        assert_eq!(read["content"], longest.as_str());
        ask(&character.repeat(20_001)).violates(&["/content too_long"]);
    }
    assert_eq!(ask("").is(201).json()["content"], "");
}

fn text_comes_back_as_it_was_sent(board: &Board) {
    let server = board.server();
    for text in [
        "<script>alert('문답')</script>",
        "a\nb\tc",
        "Robert'); DROP TABLE qna;-- \\ \" % _ ` ${x} {{x}}",
        "👩‍👩‍👧‍👦 🇰🇷 e\u{301}\u{302}".trim_end_matches('\u{302}'),
        "\u{202e}right to left\u{202c} \u{feff}x\u{200b}",
        "\u{10ffff}\u{e000}\u{fffd}",
        "Ångström İıſß ÆŒ",
        "  both ends  ",
    ] {
        let sent = json!({"title": text, "content": text});
        let qna = server.post("/api/v1/qna").by(board.ann()).json(sent).send().is(201).json();
        let read = server.get(format!("/api/v1/qna/{}", qna["qna_id"])).send().is(200).json();
        // Composed where it was not; these are but for one letter.
        let composed = text.replace("e\u{301}", "é").replace("A\u{30a}", "Å").replace('\u{212b}', "Å");
        for seen in [&qna, &read] {
            assert_eq!((&seen["title"], &seen["content"]), (&json!(composed), &json!(composed)));
        }
    }
}

fn control_characters_are_refused(board: &Board) {
    let server = board.server();
    let ann = server.new_user();
    for character in ["\u{0}", "\u{1}", "\r", "\u{b}", "\u{1b}", "\u{7f}", "\u{85}", "\u{9f}"] {
        let text = format!("a{character}b");
        let body = json!({"title": text, "content": text});
        let reply = server.post("/api/v1/qna").by(&ann).json(body).send();
        reply.violates(&["/title control_character", "/content control_character"]);
    }
    let mine = server.get(format!("/api/v1/qna?author={}", ann.id)).send().is(200).json();
    assert_eq!(mine["items"], json!([]));
}

fn strangers_change_nothing(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "Hands off");
    let before = server.get(&path).send().is(200);
    let edit = json!({"title": "Mine now"});
    server.patch(&path).by(board.bob()).json(edit.clone()).send().problem(403, "not_author");
    server.patch(&path).by(board.bob()).json(json!({})).send().problem(403, "not_author");
    server.delete(&path).by(board.bob()).send().problem(403, "not_author");
    server.patch(&path).by(board.suspended()).json(edit.clone()).send().problem(403, "account_suspended");
    server.delete(&path).by(board.suspended()).send().problem(403, "account_suspended");
    server.patch(&path).json(edit).send().problem(401, "unauthenticated");
    server.delete(&path).send().problem(401, "unauthenticated");
    // A stranger does not even learn whether a version is the current one.
    let stale = server.delete(&path).by(board.bob()).header("if-match", "\"7-x\"").send();
    stale.problem(403, "not_author");
    let after = server.get(&path).send().is(200);
    assert_eq!((after.json(), after.etag()), (before.json(), before.etag()));
}

fn moderators_change_anything(board: &Board) {
    let server = board.server();
    for moderator in [board.moderator(), board.admin()] {
        let path = server.ask_at(board.ann(), "Off topic");
        let edit = json!({"title": "On topic"});
        let qna = server.patch(&path).by(moderator).json(edit).send().is(200).json();
        assert_eq!(qna["title"], "On topic");
        assert_eq!(qna["author"]["user_id"], board.ann().id, "an editor is no author");
        server.delete(&path).by(moderator).send().is(204);
        server.get(&path).send().problem(404, "qna_not_found");
    }
}

fn an_email_is_shown_to_its_owner_and_to_admins_alone(board: &Board) {
    let server = board.server();
    let ann = server.new_user();
    let path = server.ask_at(&ann, "Who am I?");
    let comment = server.comment_at(&ann, &path, "Ann.");
    let viewers = [
        (None, false),
        (Some(&ann), true),
        (Some(board.bob()), false),
        (Some(board.moderator()), false),
        (Some(board.admin()), true),
        (Some(board.suspended()), false),
    ];
    for (viewer, sees) in viewers {
        let get = |target: &str| {
            let call = server.get(target);
            let call = match viewer {
                Some(viewer) => call.by(viewer),
                None => call,
            };
            call.send().is(200).json()
        };
        let with_comments = get(&format!("{path}?comments=1"));
        let authors = [
            get(&path)["author"].clone(),
            with_comments["author"].clone(),
            with_comments["comments"]["items"][0]["author"].clone(),
            get(&format!("/api/v1/qna?author={}", ann.id))["items"][0]["author"].clone(),
            get(&comment)["author"].clone(),
            get(&format!("{path}/comments"))["items"][0]["author"].clone(),
        ];
        let mut expected = json!({"user_id": ann.id, "display_name": ann.name});
        if sees {
            expected["email"] = json!(ann.email);
        }
        for (place, author) in authors.iter().enumerate() {
            assert_eq!(*author, expected, "place {place}, {:?}", viewer.map(|viewer| &viewer.name));
        }
    }
}

fn what_is_not_there_is_not_found(board: &Board) {
    let server = board.server();
    for id in ["0", "-1", "9007199254740991", "9223372036854775807", "9223372036854775808", "18446744073709551616"] {
        server.get(format!("/api/v1/qna/{id}")).send().problem(404, "qna_not_found");
        server.get(format!("/api/v1/qna/{id}?comments=5")).send().problem(404, "qna_not_found");
        server.get(format!("/api/v1/qna/{id}/comments")).send().problem(404, "qna_not_found");
        server.get(format!("/api/v1/comments/{id}")).send().problem(404, "comment_not_found");
        server.delete(format!("/api/v1/qna/{id}")).by(board.ann()).send().problem(404, "qna_not_found");
        let comment = server.post(format!("/api/v1/qna/{id}/comments")).by(board.ann());
        comment.json(json!({"content": "Hello?"})).send().problem(404, "qna_not_found");
    }
    for id in ["one", "1.0", "0x1", "1e3", "%20", "%00", "1;2", "%ED%95%9C"] {
        server.get(format!("/api/v1/qna/{id}")).send().problem(400, "invalid_path");
        server.delete(format!("/api/v1/comments/{id}")).by(board.ann()).send().problem(400, "invalid_path");
    }
}

fn comments_come_along(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "Any comments?");
    let contents: Vec<String> = (0..23).map(|n| format!("Comment number {n}")).collect();
    for content in &contents {
        server.comment_at(board.bob(), &path, content);
    }
    let of = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["content"].as_str().unwrap().to_owned()).collect()
    };
    let plain = server.get(&path).send().is(200).json();
    assert!(plain.get("comments").is_none(), "{plain}");
    assert_eq!(server.get(format!("{path}?comments=0")).send().is(200).json(), plain);

    let twenty = server.get(format!("{path}?comments=20")).send().is(200);
    let mut without = twenty.json();
    assert_eq!(of(&without["comments"]), contents[..20]);
    let next = without["comments"]["next"].as_str().unwrap().to_owned();
    without.as_object_mut().unwrap().remove("comments");
    assert_eq!(without, plain);
    let rest = server.get(format!("{path}/comments?cursor={next}")).send().is(200).json();
    assert_eq!((of(&rest), &rest["next"]), (contents[20..].to_vec(), &Value::Null));

    let all = server.get(format!("{path}?comments=100")).send().is(200).json();
    assert_eq!((of(&all["comments"]), &all["comments"]["next"]), (contents, &Value::Null));
    for size in ["101", "-1", "18446744073709551616"] {
        server.get(format!("{path}?comments={size}")).send().violates(&["/comments out_of_range"]);
    }
    for size in ["", "x", "1.5", "0x10"] {
        server.get(format!("{path}?comments={size}")).send().problem(400, "invalid_query");
    }
    server.get(format!("{path}?comments=1&comments=2")).send().problem(400, "invalid_query");
    server.get(format!("{path}?comment=1")).send().problem(400, "invalid_query");

    // The tag is that of what is served, and changes with the comments that came along.
    let tagged = server.get(format!("{path}?comments=1")).send().is(200);
    server.get(format!("{path}?comments=1")).header("if-none-match", &tagged.etag()).send().is(304);
    let first = format!("/api/v1/comments/{}", tagged.json()["comments"]["items"][0]["comment_id"]);
    server.patch(&first).by(board.bob()).json(json!({"content": "Edited"})).send().is(200);
    server.get(format!("{path}?comments=1")).header("if-none-match", &tagged.etag()).send().is(200);
}
