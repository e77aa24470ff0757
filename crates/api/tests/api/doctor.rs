//! `mundap doctor`: what it prints, what it mends, how it ends, and that it may be run while the board serves.

use std::path::PathBuf;
use std::time::Duration;

use crate::board::Board;
use crate::database::{execute, insert_qnas};
use crate::documents::{read, table};
use crate::image_folder::only_blob;
use crate::images::a_png;
use crate::program::ends;
use crate::server::{Ended, Options, Server, mundap};

crate::tests![
    a_sound_board_is_said_to_be_sound,
    a_wrong_count_is_told_and_mended,
    what_cannot_be_mended_is_left_and_told,
    a_board_that_is_written_to_is_sound,
    a_schema_that_is_not_there_is_told,
    a_large_board_is_looked_through,
    its_document_says_what_it_does;
    once:
    what_is_not_there_is_not_made,
    wrong_use_ends_with_2,
];

const FILE: &str = "mundap doctor";

impl Server {
    fn doctor(&self, flags: &[&str]) -> Ended {
        ends(&mut self.command(&[&["doctor"], flags].concat()))
    }

    /// What it prints, where the board is sound at its end.
    #[track_caller]
    fn is_sound(&self, flags: &[&str]) -> Vec<String> {
        let ended = self.doctor(flags);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
        let mut lines: Vec<String> = ended.out.lines().map(str::to_owned).collect();
        assert_eq!(lines.pop().as_deref(), Some("the board is sound"), "{lines:?}");
        lines
    }

    /// What it prints, where so many findings are left.
    #[track_caller]
    fn is_ill(&self, flags: &[&str], left: &str) -> Vec<String> {
        let ended = self.doctor(flags);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let line = format!("mundap: {left} left, as told above");
        assert!(ended.err.starts_with(&line) && ended.err.lines().count() == 1, "{ended:?}");
        assert_eq!(ended.err.contains("--repair"), !flags.contains(&"--repair"), "{ended:?}");
        ended.out.lines().map(str::to_owned).collect()
    }
}

/// A board with a question, a comment and an image on it; the question's path, and the image's file.
fn filled(board: &Board) -> (Server, String, PathBuf) {
    let server = board.own(&Options::default());
    let ann = server.new_user();
    let qna = server.ask_at(&ann, "Is it well?");
    let comment = server.comment_at(&ann, &qna, "It seems so");
    server.image_at(&ann, &comment, &a_png());
    let file = only_blob(&server.data_dir().join("images"));
    (server, qna, file)
}

fn id(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

fn a_sound_board_is_said_to_be_sound(board: &Board) {
    let (server, ..) = filled(board);
    for flags in [&[][..], &["--quick"], &["--repair"], &["--quick", "--repair"]] {
        let lines = server.is_sound(flags);
        let [line] = &*lines else { panic!("{lines:?}") };
        // An account, a question, a comment, an image, a sign-in.
        assert_eq!(line, "rows: 5, images: 1; findings: 0, mended: 0", "{flags:?}");
    }
}

fn a_wrong_count_is_told_and_mended(board: &Board) {
    let (server, qna, _) = filled(board);
    execute(&server.database_url, "UPDATE qna SET comment_count = 9");
    let finding = format!("qna {}: its comment_count is 9, and there are 1", id(&qna));
    let lines = server.is_ill(&[], "1 finding is");
    assert_eq!(lines, [finding.clone(), "rows: 5, images: 1; findings: 1, mended: 0".to_owned()]);
    assert_eq!(server.get(&qna).send().is(200).json()["comment_count"], 9);
    let lines = server.is_sound(&["--repair"]);
    assert_eq!(lines, [format!("{finding} (mended)"), "rows: 5, images: 1; findings: 1, mended: 1".to_owned()]);
    assert_eq!(server.get(&qna).send().is(200).json()["comment_count"], 1);
    server.is_sound(&[]);
}

fn what_cannot_be_mended_is_left_and_told(board: &Board) {
    let (server, qna, file) = filled(board);
    let url = &server.database_url;
    execute(url, "UPDATE qna SET title = ' ', content = 's3cret words', comment_count = 9");
    let png = std::fs::read(&file).unwrap();
    std::fs::write(&file, &png[1..]).unwrap();
    let stray = file.with_file_name("holiday.jpg");
    std::fs::write(&stray, b"!").unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_hours(24);
    std::fs::File::options().write(true).open(&stray).unwrap().set_modified(long_ago).unwrap();
    let lines = server.is_ill(&[], "4 findings are");
    assert_eq!(lines.len(), 5, "{lines:#?}");
    let told = |part: &str| assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
    told(&format!("qna {}: title: blank; correct it in the database", id(&qna)));
    told(&format!("has {} bytes in place of {}: bring the file back from a backup", png.len() - 1, png.len()));
    told("holiday.jpg: not a file of this board: move it away");
    assert!(!lines.concat().contains("s3cret") && !lines.concat().contains('@'), "{lines:#?}");
    let lines = server.is_ill(&["--repair"], "3 findings are");
    assert_eq!(lines.last().map(String::as_str), Some("rows: 5, images: 1; findings: 4, mended: 1"));
    assert_eq!((std::fs::read(&file).unwrap(), stray.exists()), (png[1..].to_vec(), true));

    std::fs::write(&file, &png).unwrap();
    std::fs::remove_file(&stray).unwrap();
    execute(url, "UPDATE qna SET title = 'Is it well?'");
    server.is_sound(&[]);
}

/// Comments and images come and go while it looks, and while it mends.
fn a_board_that_is_written_to_is_sound(board: &Board) {
    let (server, qna, _) = filled(board);
    let (done, writers) = (std::sync::atomic::AtomicBool::new(false), 3);
    let users: Vec<_> = (0..writers).map(|_| server.new_user()).collect();
    std::thread::scope(|scope| {
        for user in &users {
            let (server, qna, done) = (&server, &qna, &done);
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let kept = server.comment_at(user, qna, "To stay");
                    let gone = server.comment_at(user, qna, "To go");
                    server.image_at(user, &kept, &a_png());
                    let image = server.image_at(user, &kept, &a_png());
                    server.image_at(user, &gone, &a_png());
                    server.delete(&image).by(user).send().is(204);
                    server.delete(&gone).by(user).send().is(204);
                }
            });
        }
        let looks = std::thread::Builder::new().spawn_scoped(scope, || {
            for flags in [&[][..], &["--repair"], &["--quick"], &["--repair"], &[]] {
                let ended = server.doctor(flags);
                if ended.code != Some(0) {
                    return Some(ended);
                }
            }
            None
        });
        let ill = looks.unwrap().join();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(ill, Ok(None)), "{ill:?}");
    });
    server.is_sound(&[]);
}

fn a_schema_that_is_not_there_is_told(board: &Board) {
    let (url, dir) = (board.database.fresh(), tempfile::tempdir().unwrap());
    let on = |arguments: &[&str]| ends(mundap(dir.path()).env("MUNDAP_DATABASE_URL", &url).args(arguments));
    // A file is made when it is opened.
    assert_eq!(on(&["migrate", "status"]).code, Some(0));
    let ended = on(&["doctor", "--repair"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told = "changes are pending: run `mundap migrate up`";
    assert!(ended.out.starts_with("schema: ") && ended.out.contains(told), "{ended:?}");
    assert_eq!(on(&["migrate", "up"]).code, Some(0));
    let ended = on(&["doctor"]);
    assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{ended:?}");
}

/// Row by row, and with memory that does not grow with them.
fn a_large_board_is_looked_through(board: &Board) {
    let (server, ..) = filled(board);
    insert_qnas(&server.database_url, 1, 30_000, &"long ".repeat(600));
    let mut command = server.command(&["doctor"]);
    let child = command.spawn().unwrap();
    let peak = peak_of(child.id());
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.starts_with("rows: 30005, images: 1; findings: 0"), "{out}");
    // The rows have 90 MB.
    let peak = peak.join().unwrap();
    assert!(peak < 80 << 20, "{peak} bytes");
}

/// The most memory that a process holds until its end, in bytes.
fn peak_of(process: u32) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) {
            let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { break };
            peak = line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024;
            std::thread::yield_now();
        }
        peak
    })
}

/// Each command in the document ends well on a sound board, and each flag is one.
fn its_document_says_what_it_does(board: &Board) {
    let (server, ..) = filled(board);
    let text = read("docs/doctor.md");
    let mut commands: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with(FILE)).collect();
    commands.sort_unstable();
    commands.dedup();
    assert!(commands.len() >= 3, "{commands:?}");
    for command in commands {
        let flags: Vec<&str> = command.strip_prefix(FILE).unwrap().split_whitespace().collect();
        server.is_sound(&flags);
    }
    let help = ends(&mut server.command(&["doctor", "--help"])).out;
    for row in table(&text, "flag") {
        assert!(help.contains(row[0].trim_matches('`')), "{row:?}: {help}");
    }
    let codes: Vec<String> = table(&text, "ends with").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(codes, ["0", "1", "2"]);
}

fn what_is_not_there_is_not_made(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let ended = ends(mundap(dir.path()).arg("doctor"));
    assert_eq!((ended.code, &*ended.out), (Some(1), ""), "{ended:?}");
    assert!(ended.err.contains("there is no such file"), "{ended:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // What is there and no database.
    std::fs::write(dir.path().join("board.db"), "a text".repeat(1_000)).unwrap();
    let ended = ends(mundap(dir.path()).env("MUNDAP_DATABASE_URL", "sqlite://board.db").arg("doctor"));
    assert_eq!((ended.code, ended.err.lines().count()), (Some(1), 1), "{ended:?}");
}

fn wrong_use_ends_with_2(_: &Board) {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["doctor", "--mend"][..], &["doctor", "everything"]] {
        assert_eq!(ends(mundap(dir.path()).args(arguments)).code, Some(2), "{arguments:?}");
    }
    let ended = ends(mundap(dir.path()).env("MUNDAP_DATABASE_URL", "postgres://u:s3cret@h/n").arg("doctor"));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(!ended.err.contains("s3cret"), "{ended:?}");
}
