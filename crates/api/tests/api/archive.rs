//! A whole board in one file, and from one database to another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mundap_domain::image::Digest;
use mundap_infra::transfer::tables;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::board::{Board, PASSWORD, User};
use crate::database::{Database, execute, id_step, insert_qnas, number};
use crate::image_folder::{blobs, only_blob};
use crate::images::a_png;
use crate::program::ends;
use crate::server::{Options, PATIENT, Server, mundap, run};

crate::tests![
    a_board_moves_to_every_database,
    a_backup_under_writes_is_one_moment,
    an_image_that_is_deleted_meanwhile_is_in_the_backup,
    a_lost_image_is_reported,
    a_damaged_image_is_reported_and_stops_nothing,
    a_damaged_archive_changes_nothing,
    what_is_not_empty_is_refused;
    once:
    a_backup_goes_to_standard_output,
    what_is_no_regular_file_is_not_restored,
    what_is_no_regular_file_is_not_replaced,
    a_backup_of_nothing_makes_nothing,
    a_copy_into_itself_is_refused,
];

/// Tokens name the board by this, and stay good wherever it moves.
pub(crate) fn options() -> Options {
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
    /// As [`id_step`] says of where it was filled.
    step: i64,
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
        step: id_step(&server.database_url),
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
    // The next id comes along from where it was filled.
    let step = id_step(&server.database_url).max(board.step);
    let comes_next =
        |id: i64, last: i64| assert!(last < id && id <= last + step, "no id comes back: {id} after {last}");
    comes_next(qna, board.last.0);
    let comment = server.comment_at(ann, &format!("/api/v1/qna/{qna}"), "The next one");
    comes_next(comment.rsplit('/').next().unwrap().parse().unwrap(), board.last.1);
    let picture = server.image_at(ann, &comment, &a_png());
    server.get(picture).send().is(200);
}

/// The program in `dir` on a database.
pub(crate) fn on(dir: &Path, database_url: &str, arguments: &[&str]) -> Command {
    let mut command = mundap(dir);
    command.env("MUNDAP_DATABASE_URL", database_url).env("MUNDAP_DATA_DIR", dir.join("data")).envs(PATIENT);
    // One that is to be refused may have listened by then, and not where another does.
    command.envs([
        ("MUNDAP_HTTP_ADDR", "127.0.0.1:0"),
        ("MUNDAP_OPS_ADDR", "127.0.0.1:0"),
        ("MUNDAP_GRPC_ADDR", "off"),
    ]);
    command.args(arguments);
    command
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a backup of a server's board; its path.
pub(crate) fn backed_up(server: &Server, name: &str) -> PathBuf {
    let path = server.dir.path().join(name);
    run(&mut server.command(&["backup", text(&path)])).well();
    path
}

/// A working folder with the signing key of another.
pub(crate) fn with_key_of(server: &Server) -> Arc<TempDir> {
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
        assert_eq!(copied.matches(": equal\n").count(), tables().len(), "{copied}");
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
pub(crate) fn is_consistent(url: &str) {
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

/// What nobody could restore is in no archive: other bytes, none, too many, and what is no file.
fn a_damaged_image_is_reported_and_stops_nothing(board: &Board) {
    let server = board.own(&options());
    let ann = server.new_user();
    let comment = server.comment_at(&ann, &server.ask_at(&ann, "About pictures"), "See below");
    for _ in 0..5 {
        server.image_at(&ann, &comment, &a_png());
    }
    let files = blobs(&server.data_dir().join("images"));
    let mut bytes = std::fs::read(&files[0]).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    std::fs::write(&files[1], b"").unwrap();
    std::fs::File::options().write(true).open(&files[2]).unwrap().set_len(1 << 40).unwrap();
    std::fs::remove_file(&files[3]).unwrap();
    std::fs::create_dir(&files[3]).unwrap();
    let ended = run(&mut server.command(&["backup", "damaged.mundap"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.out.contains("images: 1,") && ended.out.contains("lost: 4"), "{ended:?}");
    let whys = ["holds something else", "has 0 bytes", "has 1099511627776 bytes", "is a directory"];
    for (file, why) in files.iter().zip(whys) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let told = ended.err.lines().any(|line| line.contains(name) && line.contains(why));
        assert!(told, "{name} {why}: {ended:?}");
    }
    let listed = run(&mut server.command(&["restore", "--check", "damaged.mundap"])).well();
    assert!(listed.contains("images: 1,") && listed.contains("lost: 4"), "{listed}");
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
        let line = ends(&mut on(own.path(), &target, &["restore", text(&damaged)])).refused(1);
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
    let line = ends(&mut server.command(&["backup", text(&archive)])).refused(1);
    assert!(line.contains("is there already") && line.contains("--force"), "{line}");
    run(&mut server.command(&["backup", "--force", text(&archive)])).well();
    let mode = std::os::unix::fs::PermissionsExt::mode(&archive.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let line = ends(&mut server.command(&["restore", text(&archive)])).refused(1);
    assert!(line.contains("not empty (there are rows in users)"), "{line}");
    let other = board.database.fresh();
    run(&mut on(server.dir.path(), &other, &["copy", "--from", &server.database_url, "--to", &other])).well();
    // What is a whole copy is compared; what is none is left alone.
    let again =
        run(&mut on(server.dir.path(), &other, &["copy", "--from", &server.database_url, "--to", &other])).well();
    assert!(again.matches(": equal\n").count() == 12 && again.contains("\n0 rows were brought"), "{again}");
    server.new_user();
    let line =
        ends(&mut on(server.dir.path(), &other, &["copy", "--from", &server.database_url, "--to", &other])).refused(1);
    assert!(line.contains("not empty"), "{line}");
    server.get("/api/v1/users/me").by(&ann).send().is(200);
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

/// It is read twice, and a pipe gives it once.
fn what_is_no_regular_file_is_not_restored(board: &Board) {
    let server = board.own(&options());
    let bytes = std::fs::read(backed_up(&server, "board.mundap")).unwrap();
    let (target, own) = (board.database.fresh(), with_key_of(&server));
    run(&mut on(own.path(), &target, &["migrate", "status"])).well();
    for arguments in [&["restore", "/dev/stdin"][..], &["restore", "--check", "/dev/stdin"]] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let bytes = bytes.clone();
        // It is closed by whoever does not read to the end.
        let writing = std::thread::spawn(move || drop(std::io::Write::write_all(&mut writer, &bytes)));
        let line = {
            let mut command = on(own.path(), &target, arguments);
            ends(command.stdin(reader)).refused(1)
        };
        writing.join().unwrap();
        assert!(line.contains("/dev/stdin is no regular file: store it in one"), "{line}");
        assert!(is_untouched(&target), "{arguments:?}");
    }
}

fn what_is_no_regular_file_is_not_replaced(board: &Board) {
    let server = board.own(&options());
    server.new_user();
    let dir = server.dir.path();
    let archive = backed_up(&server, "board.mundap");
    let (socket, folder, latest) = (dir.join("socket"), dir.join("folder"), dir.join("latest"));
    std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&archive, &latest).unwrap();
    for path in [&socket, &folder, &latest] {
        let kind = path.symlink_metadata().unwrap().file_type();
        let line = ends(&mut server.command(&["backup", "--force", text(path)])).refused(1);
        assert!(line.contains(&format!("{} is no regular file", path.display())), "{line}");
        assert_eq!(path.symlink_metadata().unwrap().file_type(), kind);
    }
    // Whoever left the file of a backup that was killed, others do not read the new one.
    let (path, partial) = (dir.join("own.mundap"), dir.join("own.mundap.partial"));
    std::fs::write(&partial, b"half").unwrap();
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&partial, mode(0o666)).unwrap();
    run(&mut server.command(&["backup", text(&path)])).well();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777, 0o600);
    assert!(!partial.exists());
    // One that was killed between its last two steps left both names: the whole archive is not written over.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::hard_link(&path, &partial).unwrap();
    let moved = dir.join("moved.mundap");
    std::fs::rename(&path, &moved).unwrap();
    run(&mut server.command(&["backup", text(&path)])).well();
    assert_eq!(std::fs::read(&moved).unwrap(), bytes);
}

fn a_backup_of_nothing_makes_nothing(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let line = ends(mundap(dir.path()).args(["--data-dir", "wrong", "backup", "board.mundap"])).refused(1);
    assert!(line.contains("there is no such file"), "{line}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // What may not be looked at is not said to be missing.
    std::fs::write(dir.path().join("file"), b"").unwrap();
    for command in [&["backup", "board.mundap"][..], &["doctor"]] {
        let mut command_at = mundap(dir.path());
        let line = ends(command_at.env("MUNDAP_DATABASE_URL", "sqlite://file/mundap.db").args(command)).refused(1);
        assert!(!line.contains("no such file") && line.to_lowercase().contains("not a directory"), "{line}");
    }
}

fn a_copy_into_itself_is_refused(board: &Board) {
    let server = board.own(&options());
    let url = &server.database_url;
    let copy = |from: &str, to: &str| ends(&mut server.command(&["copy", "--from", from, "--to", to]));
    assert!(copy(url, url).refused(1).contains("the target is the source"));
    assert!(copy("sqlite://nowhere.db", url).refused(1).contains("no such file"));
    assert_eq!(copy("postgres://x", url).code, Some(2));
    // Each is named by what gave it.
    let nobody = "mysql://qna:s3cret@127.0.0.1:1/nobody";
    for (from, to, name) in [(nobody, &**url, "--from"), (url, nobody, "--to")] {
        let line = copy(from, to).refused(1);
        assert!(line.contains(&format!("mysql://127.0.0.1:1/nobody ({name}): ")) && !line.contains("s3cret"), "{line}");
    }
    let file = server.dir.path().join("url");
    std::fs::write(&file, format!("{}\n", board.database.fresh())).unwrap();
    run(&mut server.command(&["copy", "--from", url, "--to-file", text(&file)])).well();
}
