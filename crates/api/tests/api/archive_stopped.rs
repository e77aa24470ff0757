//! Backups, restores and copies that are stopped in the middle.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::archive::{backed_up, on, options, text, with_key_of};
use crate::board::{Board, User};
use crate::database::{execute, insert_qnas, number};
use crate::program::ends;
use crate::server::{Options, PATIENCE, Server, run, send};

crate::tests![
    a_restore_that_was_killed_is_run_again,
    a_copy_that_was_killed_goes_on,
    a_backup_that_was_killed_leaves_no_archive,
    a_board_writes_nothing_into_what_is_unfinished,
];

/// How a command is ended before it is done, and what it says of that.
const SIGNALS: [(&str, Option<i32>, &str); 2] = [("INT", Some(1), "mundap: interrupted\n"), ("KILL", None, "")];

/// Starts a command on the target and sends it the signal when so many questions are there.
#[expect(clippy::disallowed_methods, reason = "a test's thread has no worker to stop")]
fn stopped(command: &mut Command, url: &str, enough: i64, (signal, code, said): (&str, Option<i32>, &str)) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let schema = if url.starts_with("sqlite") {
        "SELECT COUNT(*) AS n FROM sqlite_master WHERE name = 'qna'"
    } else {
        "SELECT COUNT(*) AS n FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'qna'"
    };
    let path = url.trim_start_matches("sqlite://");
    let is_there = || !url.starts_with("sqlite") || Path::new(path).exists();
    while !is_there() || number(url, schema) == 0 || number(url, "SELECT COUNT(*) AS n FROM qna") < enough {
        assert!(child.try_wait().unwrap().is_none(), "it is too fast to be stopped");
        std::thread::sleep(Duration::from_millis(2));
    }
    send(&child, signal);
    let ended = child.wait_with_output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    // Before it, how far it was.
    assert!(ended.status.code() == code && err.ends_with(said), "{signal}: {:?} {err}", ended.status);
}

const MANY: i64 = 40_000;

fn many(server: &Server) -> User {
    let ann = server.new_user();
    insert_qnas(&server.database_url, ann.id, u32::try_from(MANY).unwrap(), &"문답".repeat(50));
    ann
}

fn a_restore_that_was_killed_is_run_again(board: &Board) {
    let server = board.own(&options());
    let ann = many(&server);
    let archive = backed_up(&server, "board.mundap");
    for signal in SIGNALS {
        let (target, own) = (board.database.fresh(), with_key_of(&server));
        stopped_and_run_again(&server, &ann, &archive, (&target, own), signal);
    }
}

fn stopped_and_run_again(
    server: &Server,
    ann: &User,
    archive: &Path,
    (target, own): (&str, Arc<TempDir>),
    signal: (&str, Option<i32>, &str),
) {
    let restore = || on(own.path(), target, &["restore", text(archive)]);
    stopped(&mut restore(), target, 1_000, signal);
    assert!(number(target, "SELECT COUNT(*) AS n FROM qna") < MANY);
    for arguments in [&["serve"][..], &["migrate", "up"], &["check"], &["backup", "x"]] {
        let line = ends(&mut on(own.path(), target, arguments)).refused(1);
        assert!(line.contains("a restore into the database is running or was interrupted"), "{line}");
    }
    let line = ends(&mut on(own.path(), target, &["copy", "--from", &server.database_url, "--to", target])).refused(1);
    assert!(line.contains("something else (restore) was begun"), "{line}");
    run(&mut restore()).well();
    let moved = Server::start(target, &Options { dir: Some(own), ..options() });
    assert_eq!(number(target, "SELECT COUNT(*) AS n FROM qna"), MANY);
    moved.get("/api/v1/users/me").by(ann).send().is(200);
}

fn a_copy_that_was_killed_goes_on(board: &Board) {
    let server = board.own(&options());
    let ann = many(&server);
    let target = board.database.fresh();
    let copy = || on(server.dir.path(), &target, &["copy", "--from", &server.database_url, "--to", &target]);
    for (enough, signal) in [1_000, 2_000].into_iter().zip(SIGNALS) {
        let there = if enough == 1_000 { 0 } else { number(&target, "SELECT COUNT(*) AS n FROM qna") };
        stopped(&mut copy(), &target, there + enough, signal);
    }
    let there = number(&target, "SELECT COUNT(*) AS n FROM qna");
    let line = ends(&mut on(server.dir.path(), &target, &["serve"])).refused(1);
    assert!(line.contains("a copy into the database is running or was interrupted"), "{line}");
    let out = run(&mut copy()).well();
    let brought: i64 = out.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap();
    // And the account with its sign-in, if they were not.
    assert!(brought <= MANY - there + 2 && brought > 0, "{brought} of {MANY} although {there} were there: {out}");
    let moved = Server::start(&target, &Options { dir: Some(server.dir.clone()), ..options() });
    assert_eq!(number(&target, "SELECT COUNT(*) AS n FROM qna"), MANY);
    moved.get("/api/v1/users/me").by(&ann).send().is(200);
}

/// Until the restore or copy is finished; what is there is still read.
#[expect(clippy::disallowed_methods, reason = "a test's thread has no worker to stop")]
fn a_board_writes_nothing_into_what_is_unfinished(board: &Board) {
    let server = board.own(&options());
    let ann = server.new_user();
    let path = server.ask_at(&ann, "Before");
    let comment = server.comment_at(&ann, &path, "Before");
    let until = |schema: &str| {
        let deadline = Instant::now() + PATIENCE;
        while server.readiness().1["schema"] != schema {
            assert!(Instant::now() < deadline, "it does not see that it is {schema}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let add = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('unfinished: restore', 0)";
    execute(&server.database_url, add);
    until("unfinished");
    // A question goes another way than the others.
    let question = json!({"title": "Meanwhile", "content": ""});
    for request in [
        server.post("/api/v1/qna").json(question.clone()),
        server.patch(&path).json(question),
        server.post(format!("{path}/comments")).json(json!({"content": "Meanwhile"})),
        server.delete(&comment),
    ] {
        let reply = request.by(&ann).may_fail().send().is(503);
        assert_eq!(reply.json()["code"], "database_unavailable");
        assert!(reply.header("Retry-After").is_some());
    }
    server.get(&path).send().is(200);
    execute(&server.database_url, "DELETE FROM seaql_migrations WHERE version = 'unfinished: restore'");
    until("ok");
    server.ask_at(&ann, "Afterwards");
    assert_eq!(number(&server.database_url, "SELECT COUNT(*) AS n FROM qna"), 2);
    server.get(&comment).send().is(200);
}

#[expect(clippy::disallowed_methods, reason = "a test's thread has no worker to stop")]
fn a_backup_that_was_killed_leaves_no_archive(board: &Board) {
    let server = board.own(&options());
    many(&server);
    let (path, partial) = (server.dir.path().join("b.mundap"), server.dir.path().join("b.mundap.partial"));
    for signal in ["KILL", "TERM", "INT"] {
        let _ = std::fs::remove_file(&partial);
        let mut child = server.command(&["backup", text(&path)]).spawn().unwrap();
        while !partial.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        send(&child, signal);
        let status = child.wait().unwrap();
        if status.success() {
            // It was faster.
            std::fs::remove_file(&path).unwrap();
            continue;
        }
        assert!(!path.exists(), "{signal}");
        assert_eq!(partial.exists(), signal == "KILL", "{signal}");
    }
    // What a killed one left is in nobody's way.
    std::fs::write(&partial, vec![7; 1 << 24]).unwrap();
    run(&mut server.command(&["backup", text(&path)])).well();
    run(&mut server.command(&["restore", "--check", text(&path)])).well();
    assert!(!partial.exists());
}
