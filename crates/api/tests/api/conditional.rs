//! Entity tags: reads and writes that depend on what somebody saw before.

use std::sync::Barrier;

use serde_json::{Value, json};

use crate::board::{Board, User};
use crate::client::Reply;
use crate::database::number;
use crate::server::Server;

crate::tests![
    a_tag_changes_with_whatever_is_shown,
    a_profile_has_a_tag_too,
    a_tag_stays_while_nothing_changes,
    what_is_known_is_not_sent_again,
    a_list_has_no_tag,
    the_current_tag_lets_a_write_through,
    a_stale_tag_stops_a_write,
    a_tag_that_cannot_be_read_is_refused,
    a_comment_makes_no_edit_stale,
    permission_and_presence_come_before_the_tag,
    of_parallel_edits_one_wins,
    of_parallel_edits_of_a_comment_one_wins,
    parallel_edits_without_a_tag_all_count,
    of_parallel_deletions_one_wins,
    parallel_comments_are_all_counted,
    a_question_that_goes_takes_every_comment_along,
];

/// What `call` answers `count` times at once.
fn at_once<T: Send>(count: usize, call: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(count);
    std::thread::scope(|scope| {
        let (start, call) = (&start, &call);
        let calls: Vec<_> = (0..count)
            .map(|n| {
                scope.spawn(move || {
                    start.wait();
                    call(n)
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

fn with_status(answers: &[Reply], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

fn edit(server: &Server, by: &User, path: &str, tag: &str, title: &str) -> Reply {
    server.patch(path).by(by).header("if-match", tag).json(json!({"title": title})).send()
}

/// The number in `"3-…"`.
fn version(tag: &str) -> i64 {
    tag.trim_matches('"').split('-').next().unwrap().parse().unwrap()
}

fn a_profile_has_a_tag_too(board: &Board) {
    let server = board.server();
    let user = server.new_user();
    let path = format!("/api/v1/users/{}", user.id);
    let tag = server.get(&path).send().is(200).etag();
    server.get(&path).header("if-none-match", &tag).send().is(304);
    server.patch("/api/v1/users/me").by(&user).json(json!({"display_name": "Renamed"})).send().is(200);
    let renamed = server.get(&path).header("if-none-match", &tag).send().is(200);
    assert_ne!(renamed.etag(), tag);
}

fn a_tag_changes_with_whatever_is_shown(board: &Board) {
    let server = board.server();
    let author = server.new_user();
    let qna = server.ask_at(&author, "What changes a tag?");
    let tag = || server.get(&qna).send().is(200).etag();
    let mut seen = vec![tag()];
    let mut changes = |what: &str| {
        let now = tag();
        assert!(!seen.contains(&now), "the tag is the same after {what}");
        seen.push(now);
    };
    server.patch(&qna).by(&author).json(json!({"title": "What else?"})).send().is(200);
    changes("an edit of the title");
    server.patch(&qna).by(&author).json(json!({"content": ""})).send().is(200);
    changes("an edit of the content");
    let comment = server.comment_at(board.bob(), &qna, "This does.");
    changes("a comment");
    let of_comment = server.get(&comment).send().is(200).etag();
    server.comment_at(board.bob(), &qna, "And this.");
    changes("another comment");
    server.patch("/api/v1/users/me").by(&author).json(json!({"display_name": "Renamed"})).send().is(200);
    changes("a rename of the author");
    // Only the author and administrators are shown the e-mail: their tags alone change with it.
    let to_author = server.get(&qna).by(&author).send().is(200).etag();
    let to_others = tag();
    assert_ne!(to_author, to_others, "what is shown to the author is not what is shown to others");
    let email = crate::board::new_email();
    server.patch("/api/v1/users/me").by(&author).json(json!({"email": email})).send().is(200);
    assert_ne!(server.get(&qna).by(&author).send().is(200).etag(), to_author);
    assert_eq!(tag(), to_others);
    assert_eq!(server.get(&comment).send().is(200).etag(), of_comment);
    server.patch(&comment).by(board.bob()).json(json!({"content": "This too."})).send().is(200);
    assert_ne!(server.get(&comment).send().is(200).etag(), of_comment);
}

fn a_tag_stays_while_nothing_changes(board: &Board) {
    let server = board.server();
    let created =
        server.post("/api/v1/qna").by(board.ann()).json(json!({"title": "Same?", "content": ""})).send().is(201);
    let path = created.header("location").unwrap();
    for _ in 0..3 {
        assert_eq!(server.get(path).by(board.ann()).send().is(200).etag(), created.etag());
    }
    let empty = server.patch(path).by(board.ann()).json(json!({})).send().is(200);
    assert_eq!(empty.etag(), created.etag());
    server.patch(path).by(board.bob()).json(json!({"title": "Other"})).send().is(403);
    server.patch(path).by(board.ann()).json(json!({"title": ""})).send().is(422);
    edit(server, board.ann(), path, "\"0-x\"", "Other").is(412);
    assert_eq!(server.get(path).by(board.ann()).send().is(200).etag(), created.etag());
    // Everybody who is shown the same gets the same tag.
    let tags = [server.get(path).send().etag(), server.get(path).by(board.bob()).send().etag()];
    assert_eq!(tags[0], tags[1]);
}

fn what_is_known_is_not_sent_again(board: &Board) {
    let server = board.server();
    let qna = server.ask_at(board.ann(), "Is it known?");
    let comment = server.comment_at(board.bob(), &qna, "It is.");
    for path in [&qna, &comment] {
        let tag = server.get(path).send().is(200).etag();
        let read = |known: &str| server.get(path).header("if-none-match", known).send();
        let known = [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"7-something\", {tag}"),
            format!("\"a\" ,\t{tag},W/\"b\""),
            "*".to_owned(),
        ];
        for known in known {
            let reply = read(&known).is(304);
            assert_eq!(reply.etag(), tag, "RFC 9110, 15.4.5: a 304 has the tag that a 200 would have");
            assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
            assert_eq!(reply.header("vary"), Some("Authorization"));
        }
        let two = server.get(path).header("if-none-match", "\"a\"").header("if-none-match", &tag).send().is(304);
        assert_eq!(two.etag(), tag);
        server.call("HEAD", path).header("if-none-match", &tag).send().is(304);
        let bare = tag.trim_matches('"').to_owned();
        for unknown in ["", "\"\"", "\"1-0000000000000000\"", &bare, "nonsense", "\"x,*,y\""] {
            assert_eq!(read(unknown).is(200).etag(), tag, "{unknown}");
        }
        // What an author sees holds more than what a stranger has in store.
        assert_ne!(server.get(path).by(board.admin()).header("if-none-match", &tag).send().is(200).etag(), tag);
    }
    let tag = server.get(&qna).send().is(200).etag();
    server.comment_at(board.ann(), &qna, "News.");
    let news = server.get(&qna).header("if-none-match", &tag).send().is(200);
    assert_eq!((news.etag() == tag, &news.json()["comment_count"]), (false, &json!(2)));
    // It is a condition on reads: an edit that sends it is an edit all the same.
    let edited = server.patch(&qna).by(board.ann()).header("if-none-match", &news.etag()).json(json!({"title": "New"}));
    assert_eq!(edited.send().is(200).json()["title"], "New");
}

fn a_list_has_no_tag(board: &Board) {
    let server = board.server();
    let qna = server.ask_at(board.ann(), "What of lists?");
    for path in ["/api/v1/qna".to_owned(), format!("{qna}/comments")] {
        let reply = server.get(path).header("if-none-match", "*").send().is(200);
        assert_eq!(reply.header("etag"), None, "{reply}");
    }
}

fn the_current_tag_lets_a_write_through(board: &Board) {
    let server = board.server();
    let ann = board.ann();
    let qna = server.ask_at(ann, "First");
    let first = server.get(&qna).by(ann).send().is(200).etag();
    let second = edit(server, ann, &qna, &first, "Second").is(200).etag();
    assert_eq!((version(&first), version(&second)), (1, 2));
    // A tag of another caller's view carries the same version.
    let third = edit(server, ann, &qna, &server.get(&qna).send().is(200).etag(), "Third").is(200).etag();
    let fourth = edit(server, ann, &qna, "*", "Fourth").is(200).etag();
    let fifth = edit(server, ann, &qna, &format!("{first}, \"x\",{fourth}"), "Fifth").is(200).etag();
    let call = server.patch(&qna).by(ann).header("if-match", &third).header("if-match", &fifth);
    let sixth = call.json(json!({"title": "Sixth"})).send().is(200).etag();
    assert_eq!(version(&sixth), 6);
    server.delete(&qna).by(ann).header("if-match", &sixth).send().is(204);

    let qna = server.ask_at(ann, "Again");
    let comment = server.comment_at(ann, &qna, "First");
    let tag = server.get(&comment).by(ann).send().is(200).etag();
    let call = server.patch(&comment).by(ann).header("if-match", &tag).json(json!({"content": "Second"}));
    let tag = call.send().is(200).etag();
    server.delete(&comment).by(ann).header("if-match", &tag).send().is(204);
    server.delete(&qna).by(ann).header("if-match", "*").send().is(204);
}

fn a_stale_tag_stops_a_write(board: &Board) {
    let server = board.server();
    let ann = board.ann();
    let qna = server.ask_at(ann, "First");
    let comment = server.comment_at(ann, &qna, "First");
    for (path, patch) in [(&qna, json!({"title": "Second"})), (&comment, json!({"content": "Second"}))] {
        let stale = server.get(path).by(ann).send().is(200).etag();
        // Somebody else's edit is one too.
        server.patch(path).by(board.moderator()).json(patch).send().is(200);
        let before = server.get(path).by(ann).send().is(200);
        let current = before.etag();
        let useless = [
            stale.clone(),
            format!("W/{current}"),
            format!("{stale}, W/{current}, \"nonsense\""),
            "\"9-0\"".to_owned(),
            "\"\"".to_owned(),
            "\"-2-\"".to_owned(),
            "\"99999999999999999999-0\"".to_owned(),
        ];
        for tag in useless {
            for patch in [json!({"title": "Third"}), json!({"content": "Third"}), json!({})] {
                let wrong_field = patch.get("title").is_some() && path == &comment;
                if !wrong_field {
                    let call = server.patch(path).by(ann).header("if-match", &tag);
                    call.json(patch).send().problem(412, "version_mismatch");
                }
            }
            server.delete(path).by(ann).header("if-match", &tag).send().problem(412, "version_mismatch");
        }
        let after = server.get(path).by(ann).send().is(200);
        assert_eq!((after.json(), after.etag()), (before.json(), current));
    }
}

fn a_tag_that_cannot_be_read_is_refused(board: &Board) {
    let server = board.server();
    let ann = board.ann();
    let qna = server.ask_at(ann, "Unquoted?");
    let comment = server.comment_at(ann, &qna, "Unquoted.");
    for path in [qna.as_str(), comment.as_str(), "/api/v1/users/me"] {
        let before = server.get(path).by(ann).send().is(200);
        let tag = before.etag();
        let bare = tag.trim_matches('"');
        let bad = [
            bare.to_owned(),
            "1".to_owned(),
            format!("\"{bare}"),
            format!("{tag}, {bare}"),
            format!("*, {tag}"),
            String::new(),
        ];
        for bad in bad {
            let patch = if path == comment { json!({"content": "x"}) } else { json!({}) };
            server.patch(path).by(ann).header("if-match", &bad).json(patch).send().problem(400, "invalid_header");
            if path != "/api/v1/users/me" {
                server.delete(path).by(ann).header("if-match", &bad).send().problem(400, "invalid_header");
            }
        }
        assert_eq!(server.get(path).by(ann).send().is(200).etag(), tag);
    }
}

fn a_comment_makes_no_edit_stale(board: &Board) {
    let server = board.server();
    let ann = board.ann();
    let qna = server.ask_at(ann, "Busy?");
    let seen = server.get(&qna).by(ann).send().is(200).etag();
    let comment = server.comment_at(board.bob(), &qna, "Very.");
    let now = server.get(&qna).by(ann).send().is(200).etag();
    assert_ne!(seen, now);
    let edited = edit(server, ann, &qna, &seen, "Still busy?").is(200);
    assert_eq!((&edited.json()["version"], &edited.json()["comment_count"]), (&json!(2), &json!(1)));
    // Nor does an edit of the comment, nor its end, nor a rename.
    server.patch(&comment).by(board.bob()).json(json!({"content": "Not so much."})).send().is(200);
    server.delete(&comment).by(board.bob()).send().is(204);
    server.delete(&qna).by(ann).header("if-match", &edited.etag()).send().is(204);
}

fn permission_and_presence_come_before_the_tag(board: &Board) {
    let server = board.server();
    let qna = server.ask_at(board.ann(), "Whose?");
    let comment = server.comment_at(board.ann(), &qna, "Mine.");
    for path in [&qna, &comment] {
        for tag in [server.get(path).send().is(200).etag(), "\"0-x\"".to_owned()] {
            let patch = || server.patch(path).header("if-match", &tag).json(json!({}));
            let delete = || server.delete(path).header("if-match", &tag);
            patch().by(board.bob()).send().problem(403, "not_author");
            delete().by(board.bob()).send().problem(403, "not_author");
            patch().send().problem(401, "unauthenticated");
            delete().send().problem(401, "unauthenticated");
        }
    }
    for (path, code) in [("/api/v1/qna/9007199254740991", "qna_not_found"), ("/api/v1/comments/0", "comment_not_found")]
    {
        server.patch(path).by(board.ann()).header("if-match", "\"1-x\"").json(json!({})).send().problem(404, code);
        server.delete(path).by(board.ann()).header("if-match", "*").send().problem(404, code);
        server.get(path).header("if-none-match", "*").send().problem(404, code);
    }
}

fn of_parallel_edits_one_wins(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "Who is fastest?");
    for round in 1..=3 {
        let tag = server.get(&path).send().is(200).etag();
        let answers = at_once(20, |n| {
            let by = if n % 2 == 0 { board.ann() } else { board.moderator() };
            edit(server, by, &path, &tag, &format!("Round {round}, number {n}"))
        });
        assert_eq!((with_status(&answers, 200), with_status(&answers, 412)), (1, 19), "{answers:?}");
        let won = answers.iter().find(|answer| answer.status == 200).unwrap().json();
        let now = server.get(&path).send().is(200).json();
        assert_eq!((&now["title"], &now["version"]), (&won["title"], &json!(round + 1)));
    }
}

fn of_parallel_edits_of_a_comment_one_wins(board: &Board) {
    let server = board.server();
    let qna = server.ask_at(board.ann(), "Who is fastest below?");
    let path = server.comment_at(board.bob(), &qna, "I am.");
    let tag = server.get(&path).send().is(200).etag();
    let answers = at_once(20, |n| {
        let content = json!({"content": format!("Number {n}")});
        server.patch(&path).by(board.bob()).header("if-match", &tag).json(content).send()
    });
    assert_eq!((with_status(&answers, 200), with_status(&answers, 412)), (1, 19), "{answers:?}");
    let won = answers.iter().find(|answer| answer.status == 200).unwrap().json();
    let now = server.get(&path).send().is(200).json();
    assert_eq!((&now["content"], &now["version"]), (&won["content"], &json!(2)));
}

fn parallel_edits_without_a_tag_all_count(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "Who is last?");
    let answers = at_once(20, |n| {
        // Each changes one field: none may undo the other's.
        let name = if n % 2 == 0 { "title" } else { "content" };
        server.patch(&path).by(board.ann()).json(json!({ name: format!("Number {n}") })).send()
    });
    assert_eq!(with_status(&answers, 200), 20, "{answers:?}");
    let mut versions: Vec<i64> = answers.iter().map(|answer| answer.json()["version"].as_i64().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..=21).collect::<Vec<i64>>(), "each edit has a version of its own");
    let last = answers.iter().map(Reply::json).find(|qna| qna["version"] == 21).unwrap();
    let now = server.get(&path).by(board.ann()).send().is(200).json();
    assert_eq!(now, last);
    let number = |name: &str| now[name].as_str().unwrap().trim_start_matches("Number ").parse::<usize>().unwrap();
    assert_eq!((number("title") % 2, number("content") % 2), (0, 1));
}

fn of_parallel_deletions_one_wins(board: &Board) {
    let server = board.server();
    let qna = server.ask_at(board.ann(), "Who deletes it?");
    let comment = server.comment_at(board.ann(), &qna, "And this?");
    for (path, code) in [(&comment, "comment_not_found"), (&qna, "qna_not_found")] {
        let tag = server.get(path).send().is(200).etag();
        let answers = at_once(10, |_| server.delete(path).by(board.ann()).header("if-match", &tag).send());
        assert_eq!((with_status(&answers, 204), with_status(&answers, 404)), (1, 9), "{answers:?}");
        server.get(path).send().problem(404, code);
        if path == &comment {
            assert_eq!(server.get(&qna).send().is(200).json()["comment_count"], 0, "counted down once");
        }
    }
}

fn parallel_comments_are_all_counted(board: &Board) {
    let server = board.server();
    let path = server.ask_at(board.ann(), "All at once?");
    let tag = server.get(&path).by(board.ann()).send().is(200).etag();
    let answers = at_once(20, |n| {
        let by = [board.ann(), board.bob(), board.moderator(), board.admin()][n % 4];
        server.post(format!("{path}/comments")).by(by).json(json!({"content": format!("Number {n}")})).send()
    });
    assert_eq!(with_status(&answers, 201), 20, "{answers:?}");
    let qna = server.get(format!("{path}?comments=100")).send().is(200).json();
    assert_eq!((&qna["comment_count"], &qna["version"]), (&json!(20), &json!(1)));
    let mut written: Vec<Value> = answers.iter().map(|answer| answer.json()["comment_id"].clone()).collect();
    written.sort_by_key(Value::as_i64);
    let items = qna["comments"]["items"].as_array().unwrap();
    assert_eq!(items.iter().map(|item| item["comment_id"].clone()).collect::<Vec<_>>(), written);
    edit(server, board.ann(), &path, &tag, "None of them made this stale").is(200);
}

fn a_question_that_goes_takes_every_comment_along(board: &Board) {
    let server = board.server();
    for round in 0..3 {
        let path = server.ask_at(board.ann(), "Going, going …");
        let first = server.comment_at(board.bob(), &path, "Before");
        let answers = at_once(13, |n| match n {
            6 => server.delete(&path).by(board.ann()).send(),
            12 => server.delete(&first).by(board.bob()).send(),
            _ => {
                let body = json!({"content": format!("Round {round}, number {n}")});
                server.post(format!("{path}/comments")).by(board.bob()).json(body).send()
            }
        });
        for (n, answer) in answers.iter().enumerate() {
            match n {
                6 => assert_eq!(answer.status, 204, "{answer}"),
                12 => assert!([204, 404].contains(&answer.status), "{answer}"),
                _ if answer.status == 201 => {
                    let written = format!("/api/v1/comments/{}", answer.json()["comment_id"]);
                    server.get(written).send().problem(404, "comment_not_found");
                }
                _ => assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("qna_not_found")), "{answer}"),
            }
        }
        server.get(&path).send().problem(404, "qna_not_found");
        let id = path.rsplit('/').next().unwrap();
        let orphans = number(&server.database_url, &format!("SELECT COUNT(*) AS n FROM comment WHERE qna_id = {id}"));
        assert_eq!(orphans, 0);
    }
}
