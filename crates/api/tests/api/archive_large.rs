//! A large board in one file, and from one database to another: what it takes, and that all of it is there.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mundap_domain::image::Digest;
use sha2::{Digest as _, Sha256};

use crate::archive::{is_consistent, on, options, text, with_key_of};
use crate::board::{Board, User};
use crate::database::{Database, execute, insert_qnas, number};
use crate::images::a_png;
use crate::server::{Options, Server};

crate::tests![a_large_board_is_carried,];

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
