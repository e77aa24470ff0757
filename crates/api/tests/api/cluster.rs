//! Two nodes of the board, on one database or, where `MUNDAP_TEST_GALERA_PEERS` names them, each on another node of the
//! Galera cluster that the database's server belongs to.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::board::{Board, new_email};
use crate::client::Reply;
use crate::database::{number, while_held};
use crate::program::{ends, eventually};
use crate::server::{Options, Server, mundap};

crate::tests![
    what_one_node_acknowledged_the_next_request_finds_on_the_other,
    many_who_write_to_the_same_question_through_two_nodes_lose_nothing,
    of_parallel_edits_through_two_nodes_one_wins,
    a_key_is_one_key_on_both_nodes,
    a_walk_that_changes_nodes_meets_what_lives_throughout_once,
    a_migrator_that_is_killed_is_followed,
];

/// Where the second node finds the database at `url`.
fn peer_of(url: &str) -> String {
    let peers = std::env::var("MUNDAP_TEST_GALERA_PEERS").unwrap_or_default();
    let Some(peer) = peers.split(',').map(str::trim).find(|peer| !peer.is_empty()) else { return url.to_owned() };
    let first = std::env::var("MUNDAP_TEST_MYSQL_URLS").unwrap_or_default();
    let of_cluster = first.split(',').next().is_some_and(|first| url.starts_with(first.trim().trim_end_matches('/')));
    if !of_cluster {
        return url.to_owned();
    }
    let mut peer: url::Url = peer.parse().expect("MUNDAP_TEST_GALERA_PEERS holds URLs, separated by commas");
    peer.set_path(url.rsplit('/').next().unwrap());
    peer.to_string()
}

fn nodes(board: &Board) -> [Server; 2] {
    let url = board.database.fresh();
    let key = tempfile::tempdir().unwrap();
    let options = Options {
        env: vec![
            ("MUNDAP_SIGNING_KEY_FILE", key.path().join("key.pem").display().to_string()),
            ("MUNDAP_PUBLIC_URL", "https://board.example.com".to_owned()),
        ],
        dir: None,
    };
    let first = Server::start(&url, &options);
    let peer = peer_of(&url);
    // The database itself may come to the other node a moment later.
    if peer != url {
        eventually("the tables to be there too", || {
            std::panic::catch_unwind(|| number(&peer, "SELECT COUNT(*) AS n FROM users")).is_ok()
        });
    }
    [first, Server::start(&peer, &options)]
}

/// What `count` clients answer, each of whom does `call` `times` over, by turns on either node.
fn clients<T: Send>(
    nodes: &[Server; 2],
    (count, times): (usize, usize),
    call: impl Fn(&Server, usize) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let call = &call;
        let clients: Vec<_> = (0..count)
            .map(|n| scope.spawn(move || (0..times).map(|time| call(&nodes[(n + time) % 2], n)).collect::<Vec<T>>()))
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn how_many(answers: &[Reply], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

fn what_one_node_acknowledged_the_next_request_finds_on_the_other(board: &Board) {
    let nodes = nodes(board);
    let user = nodes[0].new_user();
    // The first write of either node is old news by then: so others write all the while, which keeps the nodes busy.
    let ended = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for node in &nodes {
            let (ended, user) = (&ended, &user);
            scope.spawn(move || {
                while ended.load(Ordering::Relaxed) == 0 {
                    let body = json!({"title": "Beside it ".repeat(25), "content": ""});
                    node.post("/api/v1/qna").by(user).json(body).may_fail().send();
                }
            });
        }
        let ended_whatever_happens = Ended(&ended);
        for turn in 0..50 {
            let (here, there) = (&nodes[turn % 2], &nodes[(turn + 1) % 2]);
            let path = here.ask_at(&user, "Is it there?");
            there.get(&path).by(&user).send().is(200);
            let edited = there.patch(&path).by(&user).json(json!({"title": "It is"})).send().is(200);
            assert_eq!(here.get(&path).by(&user).send().is(200).etag(), edited.etag());
            let comment = here.comment_at(&user, &path, "So is this");
            there.patch(&comment).by(&user).json(json!({"content": "And this"})).send().is(200);
            assert_eq!(here.get(&comment).send().is(200).json()["content"], "And this");
            there.delete(&path).by(&user).send().is(204);
            here.get(&path).send().is(404);
        }
        drop(ended_whatever_happens);
    });
    // Who registers on one signs in on the other; who is signed out there is signed out here.
    let email = new_email();
    let password = crate::board::PASSWORD;
    let account = json!({"email": email, "password": password, "display_name": "Either"});
    nodes[0].post("/api/v1/users").json(account).send().is(201);
    let tokens = nodes[1].sign_in(&email, password).is(200).json();
    let token = tokens["access_token"].as_str().unwrap();
    nodes[0].get("/api/v1/users/me").bearer(token).send().is(200);
    let refresh = tokens["refresh_token"].as_str().unwrap();
    nodes[0].post("/api/v1/auth/revoke").form(&[("token", refresh)]).send().is(200);
    nodes[1].get("/api/v1/users/me").bearer(token).send().problem(401, "invalid_token");
}

/// So that a failed assertion ends the writers too.
struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

/// Fifty clients, through both nodes, comment on one question and edit it. Some may be told to come back later, none
/// anything else, and what was acknowledged counts.
fn many_who_write_to_the_same_question_through_two_nodes_lose_nothing(board: &Board) {
    let nodes = nodes(board);
    let author = nodes[0].new_user();
    let path = nodes[0].ask_at(&author, "Whose turn is it?");
    let answers = clients(&nodes, (50, 4), |node, n| {
        if n % 2 == 0 {
            let body = json!({"content": format!("It is {n}'s")});
            node.post(format!("{path}/comments")).by(&author).json(body).may_fail().send()
        } else {
            node.patch(&path).by(&author).json(json!({"title": format!("It is {n}'s")})).may_fail().send()
        }
    });
    for answer in answers.iter().filter(|answer| !matches!(answer.status, 200 | 201)) {
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("busy")), "{answer}");
        assert!(answer.header("retry-after").is_some(), "{answer}");
    }
    let (edits, comments) = (how_many(&answers, 200), how_many(&answers, 201));
    println!("of 200 writes to one question {edits} edits and {comments} comments were let through");
    assert!(edits > 0 && comments > 0);
    for node in &nodes {
        let qna = node.get(&path).send().is(200).json();
        assert_eq!((&qna["version"], &qna["comment_count"]), (&json!(edits + 1), &json!(comments)));
        let count = number(&node.database_url, "SELECT COUNT(*) AS n FROM comment");
        assert_eq!(usize::try_from(count).unwrap(), comments);
    }
}

fn of_parallel_edits_through_two_nodes_one_wins(board: &Board) {
    let nodes = nodes(board);
    let author = nodes[0].new_user();
    for _ in 0..5 {
        let path = nodes[0].ask_at(&author, "Once");
        let tag = nodes[0].get(&path).by(&author).send().is(200).etag();
        let answers = clients(&nodes, (20, 1), |node, n| {
            let edit = node.patch(&path).by(&author).header("if-match", &tag);
            edit.json(json!({"title": format!("Edit {n}")})).may_fail().send()
        });
        assert_eq!(how_many(&answers, 200), 1);
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            let code = answer.json()["code"].clone();
            assert!(answer.status == 412 || (answer.status == 503 && code == "busy"), "{answer}");
        }
    }
}

fn a_key_is_one_key_on_both_nodes(board: &Board) {
    let nodes = nodes(board);
    let author = nodes[0].new_user();
    for round in 0..5 {
        let key = format!("the-same-{round}");
        let ask = |node: &Server| {
            let body = json!({"title": format!("Round {round}"), "content": ""});
            node.post("/api/v1/qna").by(&author).header("idempotency-key", &key).json(body).may_fail().send()
        };
        let answers = clients(&nodes, (20, 1), |node, _| ask(node));
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            let code = answer.json()["code"].clone();
            assert!(code == "idempotency_key_in_use" || code == "busy", "{answer}");
        }
        // Whoever asks again is answered as the first was, by either.
        let again: Vec<_> = nodes.iter().map(|node| ask(node).is(201).json()["qna_id"].clone()).collect();
        assert_eq!(again[0], again[1]);
        let made = answers.iter().filter(|answer| answer.status == 201);
        assert!(made.clone().count() > 0);
        assert!(made.into_iter().all(|answer| answer.json()["qna_id"] == again[0]));
        assert_eq!(number(&nodes[1].database_url, "SELECT COUNT(*) AS n FROM qna"), round + 1);
    }
}

/// Ids of two nodes interleave, and the lower one may become visible later: behind the cursor, then, where a walk that
/// began before it was acknowledged need not meet it.
fn a_walk_that_changes_nodes_meets_what_lives_throughout_once(board: &Board) {
    let nodes = nodes(board);
    let author = nodes[0].new_user();
    let all: Vec<i64> = (0..60).map(|n| nodes[n % 2].ask(&author, "Stays")["qna_id"].as_i64().unwrap()).collect();
    for order in ["newest", "oldest"] {
        let ended = AtomicUsize::new(0);
        let met = std::thread::scope(|scope| {
            for node in &nodes {
                let (ended, author) = (&ended, &author);
                scope.spawn(move || {
                    while ended.load(Ordering::Relaxed) == 0 {
                        let path = node.ask_at(author, "Comes");
                        node.delete(&path).by(author).send().is(204);
                        node.ask(author, "Comes and stays");
                    }
                });
            }
            let _ended = Ended(&ended);
            let (mut met, mut cursor) = (Vec::new(), String::new());
            for turn in 0..400 {
                let target = format!("/api/v1/qna?limit=5&order={order}{cursor}");
                let page = nodes[turn % 2].get(target).send().is(200).json();
                met.extend(page["items"].as_array().unwrap().iter().map(|item| item["qna_id"].as_i64().unwrap()));
                match page["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
                // Oldest first has no end while others write.
                if all.iter().all(|id| met.contains(id)) {
                    break;
                }
            }
            met
        });
        let mut once = met.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), met.len(), "{order}: an item was met twice: {met:?}");
        let missed: Vec<_> = all.iter().filter(|id| !met.contains(id)).collect();
        assert!(missed.is_empty(), "{order}: {missed:?} were missed");
    }
}

/// Killed in the middle of a change, with the lease in its hand; what it asked for last the server may do all the same.
fn a_migrator_that_is_killed_is_followed(board: &Board) {
    let url = board.database.fresh();
    if url.starts_with("sqlite:") {
        return; // There a change is one transaction, and its end is the migrator's.
    }
    let dir = tempfile::tempdir().unwrap();
    let migrate = |arguments: &[&str]| {
        let mut command = mundap(dir.path());
        command.env("MUNDAP_DATABASE_URL", &url).arg("migrate").args(arguments);
        command
    };
    assert_eq!(ends(&mut migrate(&["up"])).code, Some(0));
    let all = ends(&mut migrate(&["status"])).out;
    assert_eq!(ends(&mut migrate(&["down"])).code, Some(0));
    assert_ne!(ends(&mut migrate(&["status"])).out, all, "something is left to do");
    let held = "SELECT COUNT(*) AS n FROM migration_lease WHERE expires_at > UTC_TIMESTAMP(6)";
    // What the change needs, somebody else has: the migrator waits, and renews its lease.
    while_held(&url, "LOCK TABLES comment READ", || {
        let mut migrator = migrate(&["up"]).spawn().unwrap();
        eventually("the migrator to hold the lease, or to be done", || {
            number(&url, held) == 1 || migrator.try_wait().unwrap().is_some()
        });
        migrator.kill().unwrap();
        migrator.wait().unwrap();
    });
    let server = Server::start(&url, &Options::default());
    assert_eq!(ends(&mut migrate(&["status"])).out, all);
    assert_eq!(server.operator("/readyz").0, 200);
}
