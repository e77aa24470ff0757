//! A whole board in one file, and from one database to another.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mundap_domain::image::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::board::{Board, PASSWORD, User};
use crate::database::{Database, execute, id_step, insert_qnas, number};
use crate::image_folder::{blobs, only_blob};
use crate::images::a_png;
use crate::program::ends;
use crate::server::{Ended, Options, PATIENT, Server, mundap, run, send};

crate::tests![
    a_board_moves_to_every_database,
    a_backup_under_writes_is_one_moment,
    an_image_that_is_deleted_meanwhile_is_in_the_backup,
    a_lost_image_is_reported,
    a_damaged_archive_changes_nothing,
    what_is_not_empty_is_refused,
    a_restore_that_was_killed_is_run_again,
    a_copy_that_was_killed_goes_on,
    a_backup_that_was_killed_leaves_no_archive,
    a_large_board_is_carried;
    once:
    a_backup_goes_to_standard_output,
    what_is_no_archive_is_refused,
    an_archive_of_a_newer_version_is_refused,
    an_older_schema_is_restored_and_then_migrated,
    a_copy_into_itself_is_refused,
];

/// Tokens name the board by this, and stay good wherever it moves.
fn options() -> Options {
    Options::env("MUNDAP_PUBLIC_URL", "https://board.example.com")
}

/// A board with something of everything on it.
struct Filled {
    ann: User,
    admin: User,
    /// What a repeated request of Ann's must be answered.
    replayed: Value,
    /// A cursor of the list of questions.
    cursor: String,
    /// The ids of a question and of a comment that were deleted last.
    last: (i64, i64),
}

const KEY: (&str, &str) = ("Idempotency-Key", "carried-along");

fn once_more() -> Value {
    json!({"title": "Once", "content": "and no more"})
}

fn fill(server: &Server) -> Filled {
    let (ann, bob, gone) = (server.new_user(), server.new_user(), server.new_user());
    let admin = server.new_user_with_role("admin");
    server.new_suspended_user();
    let odd = [
        "😀 문답 \u{301}e\u{301} \"quoted\" 'and' \\n back`tick, %_; -- /* */",
        " spaces at both ends  ",
        "two\nlines\tand a tab\n",
        "\u{10ffff}\u{e000}\u{200b}\u{202e}\u{feff}",
        &"가".repeat(20_000),
        &"😀".repeat(20_000),
        "",
    ];
    for content in odd {
        let title: String = "T".chars().chain(content.chars().filter(|c| !c.is_control())).take(255).collect();
        server.post("/api/v1/qna").by(&ann).json(json!({"title": title, "content": content})).send().is(201);
    }
    let qna = server.ask_at(&bob, "With comments");
    for n in 0..3 {
        let comment = server.comment_at(&ann, &qna, &format!("Comment {n}\u{1f64f}"));
        for _ in 0..n {
            server.image_at(&ann, &comment, &a_png());
        }
    }
    let same = a_png();
    for who in [&ann, &bob] {
        let comment = server.comment_at(who, &qna, "The same picture");
        server.image_at(who, &comment, &same);
    }
    server.patch(&qna).by(&bob).json(json!({"title": "Edited"})).send().is(200);
    server.ask_at(&gone, "Of a deleted account");
    server.delete("/api/v1/users/me").by(&gone).json(json!({"password": PASSWORD})).send().is(204);
    let reply = server.post("/api/v1/qna").by(&ann).header(KEY.0, KEY.1).json(once_more()).send().is(201);
    let times = [
        "1900-01-01 00:00:00.000001",
        "1969-12-31 23:59:59.999999",
        "2038-01-19 03:14:08",
        "9999-12-31 23:59:59.999999",
    ];
    for (n, time) in times.iter().enumerate() {
        let sql = format!("UPDATE qna SET created_at = '{time}' WHERE qna_id = {}", n + 1);
        execute(&server.database_url, &sql);
    }
    let last_comment = server.comment_at(&ann, &qna, "Deleted");
    server.delete(&last_comment).by(&ann).send().is(204);
    let last_qna = server.ask_at(&ann, "Deleted");
    server.delete(&last_qna).by(&ann).send().is(204);
    let id = |path: &str| path.rsplit('/').next().unwrap().parse().unwrap();
    let first = server.get("/api/v1/qna?limit=3").by(&admin).send().is(200).json();
    Filled {
        replayed: reply.json(),
        cursor: first["next"].as_str().unwrap().to_owned(),
        last: (id(&last_qna), id(&last_comment)),
        ann,
        admin,
    }
}

/// Everything that the board says to an administrator, by where it says it; of images, the bytes' checksum.
fn dump(server: &Server, admin: &User) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let get = |path: &str| server.get(path).by(admin).send().is(200);
    found.insert("all".to_owned(), get("/load_all_qna").json());
    let list = |path: &str| {
        let (mut items, mut next) = (Vec::new(), String::new());
        loop {
            let page = get(&format!("{path}?limit=100{next}")).json();
            items.extend(page["items"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => break items,
            }
        }
    };
    for path in ["/api/v1/qna", "/api/v1/admin/users"] {
        found.insert(path.to_owned(), Value::Array(list(path)));
    }
    // Looking is audited too.
    let mut audit = list("/api/v1/admin/audit");
    audit.retain(|entry| !matches!(entry["action"].as_str(), Some("read_audit" | "listed_users")));
    found.insert("audit".to_owned(), Value::Array(audit));
    let mut export = get("/api/v1/users/me/export").json();
    export.as_object_mut().unwrap().remove("audit");
    found.insert("export".to_owned(), export);
    for qna in list("/api/v1/qna") {
        let path = format!("/api/v1/qna/{}", qna["qna_id"]);
        found.insert(path.clone(), get(&path).json());
        found.insert(format!("{path} tag"), get(&path).etag().into());
        let comments = list(&format!("{path}/comments"));
        for image in comments.iter().flat_map(|comment| comment["images"].as_array().unwrap()) {
            let url = image["url"].as_str().unwrap();
            found.insert(url.to_owned(), Digest::of(&get(url).body).to_string().into());
        }
        found.insert(format!("{path}/comments"), Value::Array(comments));
    }
    found
}

#[track_caller]
fn same(found: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>, what: &str) {
    for (path, value) in expected {
        let found = found.get(path).unwrap_or(&Value::Null);
        assert!(found == value, "{what}: {path}: {found:.500} is not {value:.500}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

/// Tokens, cursors, receipts and ids go on where they were.
fn goes_on(server: &Server, board: &Filled) {
    let ann = &board.ann;
    server.get("/api/v1/users/me").by(ann).send().is(200);
    let replay = server.post("/api/v1/qna").by(ann).header(KEY.0, KEY.1).json(once_more()).send().is(201);
    assert_eq!((replay.header("Idempotent-Replayed"), replay.json()), (Some("true"), board.replayed.clone()));
    server.get(format!("/api/v1/qna?limit=3&cursor={}", board.cursor)).send().is(200);
    server.refresh(&ann.refresh).is(200);
    server.sign_in(&ann.email, PASSWORD).is(200);
    let qna = server.ask(ann, "The next one")["qna_id"].as_i64().unwrap();
    let step = id_step(&server.database_url);
    let comes_next =
        |id: i64, last: i64| assert!(last < id && id <= last + step, "no id comes back: {id} after {last}");
    comes_next(qna, board.last.0);
    let comment = server.comment_at(ann, &format!("/api/v1/qna/{qna}"), "The next one");
    comes_next(comment.rsplit('/').next().unwrap().parse().unwrap(), board.last.1);
    let picture = server.image_at(ann, &comment, &a_png());
    server.get(picture).send().is(200);
}

/// The program in `dir` on a database.
fn on(dir: &Path, database_url: &str, arguments: &[&str]) -> Command {
    let mut command = mundap(dir);
    command.env("MUNDAP_DATABASE_URL", database_url).env("MUNDAP_DATA_DIR", dir.join("data")).envs(PATIENT);
    command.args(arguments);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Ended {
    #[track_caller]
    fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    #[track_caller]
    fn ill(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        let line = self.err.strip_prefix("mundap: ").unwrap_or_else(|| panic!("{self:?}")).trim_end();
        assert!(!line.contains('\n'), "{line}");
        line.to_owned()
    }
}

/// Makes a backup of a server's board; its path.
fn backed_up(server: &Server, name: &str) -> PathBuf {
    let path = server.dir.path().join(name);
    run(&mut server.command(&["backup", text(&path)])).well();
    path
}

/// A working folder with the signing key of another.
fn with_key_of(server: &Server) -> Arc<TempDir> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::copy(server.data_dir().join("signing-key.pem"), dir.path().join("data/signing-key.pem")).unwrap();
    Arc::new(dir)
}

fn a_board_moves_to_every_database(board: &Board) {
    let server = board.own(&options());
    let filled = fill(&server);
    let expected = dump(&server, &filled.admin);
    let archive = backed_up(&server, "board.mundap");
    let (source, dir) = (server.database_url.clone(), server.dir.clone());
    let listed = run(&mut server.command(&["restore", "--check", text(&archive)])).well();
    assert!(listed.contains("the archive is whole"), "{listed}");
    for database in Database::all() {
        let what = format!("{} -> {}", board.database.name, database.name);
        // A copy uses the same folder of images, a restore another one.
        let target = database.fresh();
        let copied = run(&mut on(dir.path(), &source, &["copy", "--from", &source, "--to", &target])).well();
        assert_eq!(copied.matches(": equal\n").count(), 12, "{copied}");
        let moved = Server::start(&target, &Options { dir: Some(dir.clone()), ..options() });
        same(&dump(&moved, &filled.admin), &expected, &what);
        goes_on(&moved, &filled);
        drop(moved);

        let (target, own) = (database.fresh(), with_key_of(&server));
        let restored = run(&mut on(own.path(), &target, &["restore", text(&archive)])).well();
        // The same rows, the same checksums.
        for line in listed.lines().filter(|line| line.contains("sha256")) {
            assert!(restored.contains(line) && copied.contains(line.rsplit(' ').next().unwrap()), "{what}: {line}");
        }
        let moved = Server::start(&target, &Options { dir: Some(own), ..options() });
        same(&dump(&moved, &filled.admin), &expected, &what);
        goes_on(&moved, &filled);
        drop(moved);
        database.clean_up();
    }
    // The source is as it was.
    same(&dump(&server, &filled.admin), &expected, "the source");
}

/// What must be true of any board, in SQL; each finds no row.
fn is_consistent(url: &str) {
    for sql in [
        "SELECT COUNT(*) AS n FROM qna q WHERE comment_count <> (SELECT COUNT(*) FROM comment c WHERE c.qna_id = q.qna_id)",
        "SELECT COUNT(*) AS n FROM comment c WHERE image_count <> (SELECT COUNT(*) FROM image i WHERE i.comment_id = c.comment_id)",
        "SELECT COUNT(*) AS n FROM comment c WHERE NOT EXISTS (SELECT 1 FROM qna q WHERE q.qna_id = c.qna_id)",
    ] {
        assert_eq!(number(url, sql), 0, "{sql}");
    }
}

fn a_backup_under_writes_is_one_moment(board: &Board) {
    let server = board.own(&options());
    let ann = server.new_user();
    insert_qnas(&server.database_url, ann.id, 3_000, &"x".repeat(3_000));
    let qna = server.ask_at(&ann, "Written to all the time");
    let stop = AtomicBool::new(false);
    let archives: Vec<(PathBuf, i64)> = std::thread::scope(|scope| {
        for n in 0..3 {
            let (server, qna, ann, stop) = (&server, &qna, &ann, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let comment = server.comment_at(ann, qna, "Another one");
                    server.image_at(ann, &comment, &a_png());
                    if n == 0 {
                        server.delete(comment).by(ann).send().is(204);
                    }
                }
            });
        }
        let archives = (0..3).map(|n| {
            // Acknowledged before it begins.
            let before = server.comment_at(&ann, &qna, "Before");
            (backed_up(&server, &format!("{n}.mundap")), before.rsplit('/').next().unwrap().parse().unwrap())
        });
        let archives = archives.collect();
        stop.store(true, Ordering::Relaxed);
        archives
    });
    for (archive, before) in archives {
        let (target, own) = (board.database.fresh(), with_key_of(&server));
        run(&mut on(own.path(), &target, &["restore", text(&archive)])).well();
        is_consistent(&target);
        let found = format!("SELECT COUNT(*) AS n FROM comment WHERE comment_id = {before}");
        assert_eq!(number(&target, &found), 1);
        assert_eq!(number(&target, "SELECT COUNT(*) AS n FROM qna"), 3_001);
        let images = number(&target, "SELECT COUNT(DISTINCT sha256) AS n FROM image");
        assert_eq!(images, i64::try_from(blobs(&own.path().join("data/images")).len()).unwrap());
    }
}

/// What a sweep has set aside, or would take since it is old, is kept for as long as a backup needs it.
fn an_image_that_is_deleted_meanwhile_is_in_the_backup(board: &Board) {
    let server = board.own(&options());
    let ann = server.new_user();
    let comment = server.comment_at(&ann, &server.ask_at(&ann, "About a picture"), "See below");
    server.image_at(&ann, &comment, &a_png());
    let blob = only_blob(&server.data_dir().join("images"));
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_hours(24);
    std::fs::File::options().write(true).open(&blob).unwrap().set_modified(long_ago).unwrap();
    backed_up(&server, "young.mundap");
    let age = blob.metadata().unwrap().modified().unwrap().elapsed().unwrap_or_default();
    assert!(age < Duration::from_mins(1), "the sweep leaves it alone: {age:?}");
    std::fs::rename(&blob, blob.with_extension("aside")).unwrap();
    let out = run(&mut server.command(&["backup", "aside.mundap"])).well();
    assert!(out.contains("images: 1,") && out.contains("lost: 0"), "{out}");
}

fn a_lost_image_is_reported(board: &Board) {
    let server = board.own(&options());
    let ann = server.new_user();
    let comment = server.comment_at(&ann, &server.ask_at(&ann, "About a picture"), "See below");
    server.image_at(&ann, &comment, &a_png());
    let blob = only_blob(&server.data_dir().join("images"));
    std::fs::remove_file(&blob).unwrap();
    let ended = run(&mut server.command(&["backup", "lost.mundap"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let name = blob.file_name().unwrap().to_str().unwrap();
    assert!(ended.err.contains(name) && ended.err.contains("--allow-lost"), "{ended:?}");
    run(&mut server.command(&["backup", "--force", "--allow-lost", "lost.mundap"])).well();
    let own = with_key_of(&server);
    let archive = server.dir.path().join("lost.mundap");
    let out = run(&mut on(own.path(), &board.database.fresh(), &["restore", text(&archive)])).well();
    assert!(out.contains("lost: 1"), "{out}");
}

/// Whether a database holds no table at all.
fn is_untouched(url: &str) -> bool {
    let sql = if url.starts_with("sqlite") {
        "SELECT COUNT(*) AS n FROM sqlite_master"
    } else {
        "SELECT COUNT(*) AS n FROM information_schema.tables WHERE table_schema = DATABASE()"
    };
    number(url, sql) == 0
}

fn a_damaged_archive_changes_nothing(board: &Board) {
    let server = board.own(&options());
    fill(&server);
    let bytes = std::fs::read(backed_up(&server, "whole.mundap")).unwrap();
    let (target, own) = (board.database.fresh(), with_key_of(&server));
    // A file is made when the database is opened.
    run(&mut on(own.path(), &target, &["migrate", "status"])).well();
    let damaged = own.path().join("damaged.mundap");
    let refuse = |bytes: &[u8], what: &str| {
        std::fs::write(&damaged, bytes).unwrap();
        let line = ends(&mut on(own.path(), &target, &["restore", text(&damaged)])).ill();
        assert!(line.contains("damaged.mundap") && line.len() < 300, "{what}: {line}");
        assert!(is_untouched(&target), "{what}");
        assert_eq!(blobs(&own.path().join("data/images")).len(), 0, "{what}");
    };
    let mut seed = 7_u32;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(seed >> 8).unwrap() % below
    };
    let tar = zstd::decode_all(bytes.as_slice()).unwrap();
    for _ in 0..20 {
        let at = random(bytes.len());
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << random(8);
        // Some bits mean nothing, or point at another copy of the same bytes (RFC 8878): then nothing is damaged.
        if !zstd::decode_all(damaged.as_slice()).is_ok_and(|read| read == tar) {
            refuse(&damaged, &format!("a bit of byte {at} of {}", bytes.len()));
        }
        refuse(&bytes[..at], &format!("cut at {at} of {}", bytes.len()));
    }
    refuse(&bytes[..bytes.len() - 1], "one byte less");
    refuse(&[bytes.as_slice(), b"more"].concat(), "more behind it");
    refuse(&[bytes.as_slice(), &bytes].concat(), "twice");
    std::fs::write(&damaged, &bytes).unwrap();
    run(&mut on(own.path(), &target, &["restore", text(&damaged)])).well();
}

fn what_is_not_empty_is_refused(board: &Board) {
    let server = board.own(&options());
    let ann = server.new_user();
    let archive = backed_up(&server, "board.mundap");
    let line = ends(&mut server.command(&["backup", text(&archive)])).ill();
    assert!(line.contains("is there already") && line.contains("--force"), "{line}");
    run(&mut server.command(&["backup", "--force", text(&archive)])).well();
    let mode = std::os::unix::fs::PermissionsExt::mode(&archive.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let line = ends(&mut server.command(&["restore", text(&archive)])).ill();
    assert!(line.contains("not empty (there are rows in users)"), "{line}");
    let other = board.database.fresh();
    run(&mut on(server.dir.path(), &other, &["copy", "--from", &server.database_url, "--to", &other])).well();
    let line =
        ends(&mut on(server.dir.path(), &other, &["copy", "--from", &server.database_url, "--to", &other])).ill();
    assert!(line.contains("not empty"), "{line}");
    server.get("/api/v1/users/me").by(&ann).send().is(200);
}

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
        let line = ends(&mut on(own.path(), target, arguments)).ill();
        assert!(line.contains("a restore into the database is running or was interrupted"), "{line}");
    }
    let line = ends(&mut on(own.path(), target, &["copy", "--from", &server.database_url, "--to", target])).ill();
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
    let line = ends(&mut on(server.dir.path(), &target, &["serve"])).ill();
    assert!(line.contains("a copy into the database is running or was interrupted"), "{line}");
    let out = run(&mut copy()).well();
    let brought: i64 = out.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap();
    // And the account with its sign-in, if they were not.
    assert!(brought <= MANY - there + 2 && brought > 0, "{brought} of {MANY} although {there} were there: {out}");
    let moved = Server::start(&target, &Options { dir: Some(server.dir.clone()), ..options() });
    assert_eq!(number(&target, "SELECT COUNT(*) AS n FROM qna"), MANY);
    moved.get("/api/v1/users/me").by(&ann).send().is(200);
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

fn a_backup_goes_to_standard_output(board: &Board) {
    let server = board.own(&options());
    fill(&server);
    let output = server.command(&["backup", "-"]).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("users: 5 rows"));
    let path = server.dir.path().join("piped.mundap");
    std::fs::write(&path, output.stdout).unwrap();
    let listed = run(&mut server.command(&["restore", "--check", text(&path)])).well();
    assert!(listed.contains("users: 5 rows"), "{listed}");
}

/// An archive of these members, under its own compression.
fn made_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(if name.ends_with("link") { tar::EntryType::Symlink } else { tar::EntryType::Regular });
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn head(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let table = json!({"name": "users", "columns": [{"name": "user_id", "kind": "integer"}], "key": ["user_id"], "counted": true});
    let mut head = json!({
        "format": 1, "program": "99.1.0", "made_at": "2026-01-02T12:00:00Z", "engine": "SQLite 3",
        "migrations": ["m0001_users"], "tables": [table],
    });
    change(&mut head);
    serde_json::to_vec(&head).unwrap()
}

fn refused(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("strange.mundap");
    std::fs::write(&path, bytes).unwrap();
    let line = ends(&mut on(dir.path(), "sqlite://board.db", &["restore", text(&path)])).ill();
    let left: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.contains("evil")), "{left:?}");
    line
}

fn what_is_no_archive_is_refused(_: &Board) {
    let good = head(|_| ());
    let bomb = vec![0; 100 << 20];
    let cases: &[(&str, Vec<u8>)] = &[
        ("is not an archive", Vec::new()),
        ("is not an archive", b"hello".to_vec()),
        ("is not an archive", made_of(&[])),
        ("is not an archive", made_of(&[("etc/passwd", b"x")])),
        ("is not an archive", made_of(&[("mundap.json", b"{}")])),
        (
            "is not an archive",
            made_of(&[("mundap.json", &head(|head| head["tables"][0]["name"] = "users`; DROP".into()))]),
        ),
        ("is not an archive", made_of(&[("mundap.json", &head(|head| head["tables"][0]["key"] = json!([])))])),
        (
            "is not an archive",
            made_of(&[("mundap.json", &head(|head| head["tables"][0]["name"] = "seaql_migrations".into()))]),
        ),
        ("no plain file", made_of(&[("mundap.json", &good), ("a link", b"")])),
        ("ends too early", made_of(&[("mundap.json", &good)])),
        ("not expected there", made_of(&[("mundap.json", &good), ("../evil", b"x")])),
        ("not expected there", made_of(&[("mundap.json", &good), ("/tmp/evil", b"x")])),
        (
            "\u{fffd}[2Jtwo\u{fffd}lines is not expected",
            made_of(&[("mundap.json", &good), ("\u{1b}[2Jtwo\nlines", b"x")]),
        ),
        ("not expected there", made_of(&[("mundap.json", &good), ("rows/qna/000001.jsonl", b"x")])),
        ("not expected there", made_of(&[("mundap.json", &good), ("rows/users/000002.jsonl", b"x")])),
        ("not an object", made_of(&[("mundap.json", &good), ("rows/users/000001.jsonl", b"x")])),
        (
            "not in order",
            made_of(&[("mundap.json", &good), ("rows/users/000001.jsonl", b"{\"user_id\":2}\n{\"user_id\":1}\n")]),
        ),
        ("not what its name says", made_of(&[("mundap.json", &good), ("images/../../evil", b"x")])),
        ("more than can be", made_of(&[("mundap.json", &good), ("images/bomb", &bomb)])),
        ("more than can be", made_of(&[("mundap.json", &good), ("rows/users/000001.jsonl", &bomb)])),
        ("more than can be", made_of(&[("mundap.json", &good), ("bomb", &bomb)])),
        ("manifest.json is not", made_of(&[("mundap.json", &good), ("manifest.json", b"{}")])),
    ];
    for (expected, bytes) in cases {
        let line = refused(bytes);
        assert!(line.contains(expected), "{expected}: {line}");
    }
}

fn an_archive_of_a_newer_version_is_refused(_: &Board) {
    let of_another_format = |program: &str| {
        made_of(&[("mundap.json", &head(|head| *head = json!({"format": 2, "program": program, "new": true})))])
    };
    let of_a_later_schema =
        made_of(&[("mundap.json", &head(|head| head["migrations"] = json!(["m0001_users", "m0999_later"])))]);
    for newer in [of_another_format("99.1.0"), of_a_later_schema] {
        let line = refused(&newer);
        assert!(line.contains("made by mundap 99.1.0, which is newer"), "{line}");
    }
    let line = refused(&of_another_format("99.1.0\n"));
    assert!(line.contains("made by mundap 99.1.0\u{fffd}, which is newer"), "{line}");
}

/// An archive says itself what its tables are: no version needs to know the schemas before its own.
fn an_older_schema_is_restored_and_then_migrated(board: &Board) {
    let columns = [
        ("user_id", "integer"),
        ("email", "text"),
        ("email_key", "text"),
        ("display_name", "text"),
        ("role", "text"),
        ("password_hash", "text"),
        ("created_at", "time"),
        ("updated_at", "time"),
        ("version", "integer"),
    ];
    let columns: Vec<Value> = columns.iter().map(|(name, kind)| json!({"name": name, "kind": kind})).collect();
    let head = head(|head| head["tables"][0]["columns"] = columns.into());
    let time = "2020-02-29 12:00:00.000001";
    let row = format!(
        "{{\"user_id\":7,\"email\":\"old@example.com\",\"email_key\":\"old@example.com\",\"display_name\":\"Old\",\
         \"role\":\"admin\",\"password_hash\":null,\"created_at\":\"{time}\",\"updated_at\":\"{time}\",\"version\":3}}\n"
    );
    let manifest = json!({
        "tables": [{"table": "users", "rows": 1, "sha256": Digest::of(row.as_bytes()).to_string(), "next_id": 12}],
        "images": {"count": 0, "bytes": 0, "names": Digest::of(b"").to_string()},
        "lost": [], "head": Digest::of(&head).to_string(),
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let archive =
        made_of(&[("mundap.json", &head), ("rows/users/000001.jsonl", row.as_bytes()), ("manifest.json", &manifest)]);
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let path = dir.path().join("old.mundap");
    std::fs::write(&path, archive).unwrap();
    let target = board.database.fresh();
    // Also where the empty database is further already.
    run(&mut on(dir.path(), &target, &["migrate", "up"])).well();
    run(&mut on(dir.path(), &target, &["restore", text(&path)])).well();
    let server = Server::start(&target, &Options { dir: Some(dir), ..options() });
    assert_eq!(server.get("/api/v1/users/7").send().is(200).json()["display_name"], "Old");
    assert_eq!(server.new_user().id, 12);
}

fn a_copy_into_itself_is_refused(board: &Board) {
    let server = board.own(&options());
    let url = &server.database_url;
    let copy = |from: &str, to: &str| ends(&mut server.command(&["copy", "--from", from, "--to", to]));
    assert!(copy(url, url).ill().contains("the target is the source"));
    assert!(copy("sqlite://nowhere.db", url).ill().contains("no such file"));
    assert_eq!(copy("postgres://x", url).code, Some(2));
    // Each is named by what gave it.
    let nobody = "mysql://qna:s3cret@127.0.0.1:1/nobody";
    for (from, to, name) in [(nobody, &**url, "--from"), (url, nobody, "--to")] {
        let line = copy(from, to).ill();
        assert!(line.contains(&format!("mysql://qna:***@127.0.0.1:1/nobody ({name}): ")), "{line}");
    }
    let file = server.dir.path().join("url");
    std::fs::write(&file, format!("{}\n", board.database.fresh())).unwrap();
    run(&mut server.command(&["copy", "--from", url, "--to-file", text(&file)])).well();
}

/// What a command took.
struct Took {
    seconds: f64,
    /// The most memory that it had, in MB.
    memory: u64,
}

/// Runs a command to its end and watches it.
#[expect(clippy::disallowed_methods, reason = "a test's thread has no worker to stop")]
fn measured(command: &mut Command) -> Took {
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    let status = loop {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        memory = peak.unwrap_or(memory);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{command:?}");
    Took { seconds: begin.elapsed().as_secs_f64(), memory: memory / 1024 }
}

/// The checksum of what a path serves, however much that is.
fn sum(server: &Server, by: &User, path: &str) -> String {
    let request = server.agent.get(format!("{}{path}", server.base())).config().timeout_global(None).build();
    let mut answer = request.header("Authorization", format!("Bearer {}", by.token)).call().unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    let (mut sha256, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    let mut body = answer.body_mut().as_reader();
    loop {
        match body.read(&mut buffer).unwrap() {
            0 => break,
            read => sha256.update(&buffer[..read]),
        }
    }
    Digest::new(sha256.finalize().into()).to_string()
}

/// `MUNDAP_TEST_ARCHIVE` says how many questions there are; three comments each, and an image on each hundredth of them.
/// Prints what it took.
fn a_large_board_is_carried(board: &Board) {
    let questions: u32 = std::env::var("MUNDAP_TEST_ARCHIVE").map_or(300, |n| n.parse().unwrap());
    let server = board.own(&options());
    let (ann, bob) = (server.new_user(), server.new_user());
    let url = server.database_url.clone();
    let meanwhile = server.ask_at(&bob, "Written to meanwhile");
    insert_qnas(&url, ann.id, questions, &"A question of some length. 조금 긴 질문입니다. ".repeat(5));
    for n in 0..3 {
        execute(&url, &format!(
            "INSERT INTO comment (qna_id, user_id, content, created_at, updated_at)
             SELECT qna_id, {}, 'Comment {n} of a hundred characters or so, as they are written on boards of this kind. 댓글', \
             created_at, updated_at FROM qna WHERE user_id = {} ORDER BY qna_id",
            ann.id, ann.id
        ));
    }
    execute(&url, &format!("UPDATE qna SET comment_count = 3 WHERE user_id = {}", ann.id));
    let mut comment = 0;
    let images = (0..questions / 100).map(|at| {
        let content: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(n ^ at) >> 5).to_le_bytes()[0]).collect();
        let name = Digest::of(&content).to_string();
        let folder = server.data_dir().join("images").join(&name[..2]).join(&name[2..4]);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(&name), content).unwrap();
        comment = number(
            &url,
            &format!(
                "SELECT comment_id AS n FROM comment WHERE comment_id > {comment} ORDER BY comment_id LIMIT 1 OFFSET 99"
            ),
        );
        execute(&url, &format!("UPDATE comment SET image_count = 1 WHERE comment_id = {comment}"));
        execute(
            &url,
            &format!(
                "INSERT INTO image (comment_id, user_id, media_type, bytes, width, height, sha256, created_at)
             VALUES ({comment}, {}, 'image/png', 50000, 7, 7, {}, '2026-01-02 12:00:00')",
                ann.id,
                if url.starts_with("sqlite") { format!("x'{name}'") } else { format!("UNHEX('{name}')") },
            ),
        );
    });
    let rows = u64::from(questions) * 4 + u64::try_from(images.count()).unwrap();
    let table = std::sync::Mutex::new(vec![
        "| what | s | rows/s | MB | peak memory, MB |".to_owned(),
        "| --- | --- | --- | --- | --- |".to_owned(),
    ]);
    #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
    let say = |what: String, took: &Took, bytes: Option<u64>| {
        let size = bytes.map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / 1e6));
        let line =
            format!("| {what} | {:.1} | {:.0} | {size} | {} |", took.seconds, rows as f64 / took.seconds, took.memory);
        table.lock().unwrap().push(line);
    };

    // Under writes: three that comment and attach.
    let stop = AtomicBool::new(false);
    let archive = server.dir.path().join("large.mundap");
    let (took, written) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut written = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let comment = server.comment_at(&bob, &meanwhile, "Meanwhile");
                        server.image_at(&bob, &comment, &a_png());
                        written += 2;
                    }
                    written
                })
            })
            .collect();
        let took = measured(&mut server.command(&["backup", text(&archive)]));
        stop.store(true, Ordering::Relaxed);
        (took, writers.into_iter().map(|writer| writer.join().unwrap()).sum::<u64>())
    });
    let here = &board.database.name;
    say(format!("backup of {here}, {written} writes meanwhile"), &took, Some(archive.metadata().unwrap().len()));
    let paths = ["/load_all_qna", "/api/v1/users/me/export"];
    let dump =
        |server: &Server| [sum(server, &ann, paths[0]), sum(server, &ann, paths[1]), sum(server, &bob, paths[1])];
    let expected = dump(&server);
    for database in Database::all() {
        let there = &database.name;
        let (target, own) = (database.fresh(), with_key_of(&server));
        let took = measured(&mut on(own.path(), &target, &["restore", text(&archive)]));
        say(format!("restore into {there}"), &took, None);
        is_consistent(&target);
        let restored = Server::start(&target, &Options { dir: Some(own), ..options() });
        // Whoever did not write meanwhile.
        assert_eq!(sum(&restored, &ann, paths[1]), expected[1]);
        drop(restored);

        let (there_url, back_url) = (database.fresh(), board.database.fresh());
        let took = measured(&mut server.command(&["copy", "--from", &url, "--to", &there_url]));
        say(format!("copy {here} -> {there}"), &took, None);
        let moved = Server::start(&there_url, &Options { dir: Some(server.dir.clone()), ..options() });
        assert_eq!(dump(&moved), expected);
        drop(moved);
        let took = measured(&mut server.command(&["copy", "--from", &there_url, "--to", &back_url]));
        say(format!("copy {there} -> {here}"), &took, None);
        let back = Server::start(&back_url, &Options { dir: Some(server.dir.clone()), ..options() });
        assert_eq!(dump(&back), expected);
        drop(back);
        database.clean_up();
    }
    println!("{rows} rows\n{}", table.into_inner().unwrap().join("\n"));
}
