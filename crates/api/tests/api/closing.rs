//! What can be said only when everything else is over: of all answers, and of the whole log.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::board::Board;

crate::tests![every_operation_was_called_and_did_something, no_secret_is_in_the_log];

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
}

fn no_secret_is_in_the_log(board: &Board) {
    for server in board.servers() {
        let lines = server.log.lines();
        let secrets = server.secrets.lock().unwrap();
        assert!(secrets.len() > 5, "{}", secrets.len());
        let mut requests = 0;
        for line in &lines {
            for secret in secrets.iter() {
                assert!(!line.contains(secret.as_str()), "{secret} is in {line}");
            }
            assert!(!line.contains('@') && !line.contains("eyJ"), "{line}");
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            if line["http.status"].is_number() {
                requests += 1;
                for name in ["http.method", "http.route", "request.id", "duration_ms", "bytes"] {
                    assert!(!line[name].is_null(), "{line}");
                }
            }
        }
        let answered: usize = server.seen.lock().unwrap().values().sum();
        assert!(requests >= answered, "{requests} lines on {answered} requests");
    }
}
