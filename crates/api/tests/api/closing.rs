//! What can be said only when everything else is over: of all answers, and of the whole log.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::board::Board;
use crate::database::number;
use crate::program::ends;
use crate::server::Server;

crate::tests![
    every_operation_was_called_and_did_something,
    every_request_has_one_line_in_the_log,
    no_secret_is_in_the_log,
    counters_equal_rows_and_nothing_is_orphaned,
    the_doctor_finds_nothing,
];

/// After everything that any test did, at once or not.
fn counters_equal_rows_and_nothing_is_orphaned(board: &Board) {
    let none_of = [
        "qna q WHERE q.comment_count <> (SELECT COUNT(*) FROM comment c WHERE c.qna_id = q.qna_id)",
        "comment c WHERE c.image_count <> (SELECT COUNT(*) FROM image i WHERE i.comment_id = c.comment_id)",
        "image i WHERE NOT EXISTS (SELECT 1 FROM comment c WHERE c.comment_id = i.comment_id AND c.user_id = i.user_id)",
        "comment c WHERE NOT EXISTS (SELECT 1 FROM qna q WHERE q.qna_id = c.qna_id)",
        "qna q WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.user_id = q.user_id)",
        "comment c WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.user_id = c.user_id)",
        "sign_in s WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.user_id = s.user_id AND u.deleted_at IS NULL)",
    ];
    for server in board.servers() {
        let count = |from: &str| number(&server.database_url, &format!("SELECT COUNT(*) AS n FROM {from}"));
        assert!(count("qna") > 0 && count("users") > 0);
        for rows in none_of {
            assert_eq!(count(rows), 0, "{rows}");
        }
    }
}

/// Beside the queries above, which know nothing of it.
fn the_doctor_finds_nothing(board: &Board) {
    for server in board.servers() {
        let ended = ends(&mut server.command(&["doctor"]));
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    }
}

fn every_operation_was_called_and_did_something(board: &Board) {
    let mut done = BTreeSet::new();
    for server in board.servers() {
        let seen = server.seen.lock().unwrap();
        done.extend(
            seen.keys().filter(|(_, _, status)| *status < 300).map(|(method, path, _)| (method.clone(), path.clone())),
        );
    }
    let document = board.server().document();
    let missing: Vec<_> = document
        .operations()
        .into_iter()
        .filter(|operation| !done.contains(&(operation.method.to_owned(), operation.path.to_owned())))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Each of the first program's endpoints in its other mode too.
    let trusted = board.trusted().seen.lock().unwrap();
    for operation in document.operations().iter().filter(|operation| operation.about["tags"][0] == "First program") {
        let key = (operation.method.to_owned(), operation.path.to_owned(), 200);
        assert!(trusted.contains_key(&key), "{operation:?}");
    }
}

/// The access log's lines on each request id.
fn access_lines(server: &Server) -> BTreeMap<String, Vec<Value>> {
    let mut lines: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in server.log.lines() {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if line["http.status"].is_number() {
            lines.entry(line["request.id"].as_str().unwrap().to_owned()).or_default().push(line);
        }
    }
    lines
}

fn every_request_has_one_line_in_the_log(board: &Board) {
    for server in board.servers() {
        let answered = server.answered.lock().unwrap();
        assert!(answered.len() > 50, "{}", answered.len());
        let lines = access_lines(server);
        for request in answered.iter().filter(|request| !lines.contains_key(&request.request_id)) {
            server.access(&request.request_id);
        }
        let lines = access_lines(server);
        // Tests that bring an id of their own may bring it more than once.
        let mut alike: BTreeMap<&str, usize> = BTreeMap::new();
        for request in answered.iter() {
            *alike.entry(&request.request_id).or_default() += 1;
        }
        for request in answered.iter() {
            let method = match request.method.as_str() {
                "TRACE" | "BREW" => "other",
                known => known,
            };
            let lines = &lines[&request.request_id];
            assert_eq!(lines.len(), alike[&*request.request_id], "{request:?}: {lines:?}");
            let fits = |line: &&Value| {
                line["http.method"] == method
                    && line["http.status"] == request.status
                    && request.template.as_ref().is_none_or(|template| line["http.route"] == **template)
            };
            let line = lines.iter().find(fits).unwrap_or_else(|| panic!("{request:?}: {lines:?}"));
            assert_eq!(line["level"], "INFO", "{line}");
            assert!(line["http.route"].as_str().is_some_and(|route| !route.is_empty()), "{line}");
            assert!(line["duration_ms"].is_number() && line["bytes"].is_number(), "{line}");
            assert_eq!(line["whole"], true, "{line}");
        }
    }
}

fn no_secret_is_in_the_log(board: &Board) {
    for server in board.servers() {
        let secrets = server.secrets.lock().unwrap();
        assert!(secrets.len() > 5, "{}", secrets.len());
        let lines = server.log.lines();
        let log = lines.join("\n");
        // No e-mail at all, and no token, beside everything that was sent or received.
        for secret in secrets.iter().map(String::as_str).chain(["@", "eyJ"]) {
            // As a line of JSON spells it.
            let quoted = Value::from(secret).to_string();
            let spelled = &quoted[1..quoted.len() - 1];
            let found = || lines.iter().find(|line| line.contains(spelled));
            assert!(!log.contains(spelled), "{secret} is in {:?}", found());
        }
    }
}
