//! `mundap import-fastapi`: from each MySQL or MariaDB server that is named, into each database there is. Without a server
//! there is nothing to import from, and the tests that need one have nothing to do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::board::Board;
use crate::database::{Database, execute, number};
use crate::images::a_png;
use crate::program::{ends, in_dir};
use crate::server::{Ended, Options, Server, mundap};

crate::tests![
    an_old_board_comes_over_and_goes_on,
    what_was_brought_is_this_board_s,
    rows_of_others_with_the_same_ids_are_refused_before_anything_is_written,
    a_board_without_comments_and_names_in_another_character_set_comes_too,
    many_rows_come_in_batches;
    once:
    the_first_program_s_own_database_is_left_as_it_is,
    what_the_old_board_says_means_nothing_to_a_terminal,
    what_is_no_first_program_s_database_is_one_line,
];

/// The first program's tables, as its ORM makes them; the collation tells apart what ours does not.
const TABLES: &str = "
CREATE TABLE users (email VARCHAR(255) NOT NULL, name VARCHAR(100), created_at DATETIME DEFAULT now(), PRIMARY KEY (email))
    COLLATE utf8mb4_bin;
CREATE TABLE qna (qna_id INTEGER NOT NULL AUTO_INCREMENT, email VARCHAR(255) NOT NULL, title VARCHAR(255),
    content VARCHAR(255), created_at DATETIME DEFAULT now(), PRIMARY KEY (qna_id),
    FOREIGN KEY(email) REFERENCES users (email)) COLLATE utf8mb4_bin;
CREATE INDEX ix_qna_qna_id ON qna (qna_id);
CREATE TABLE comment (comment_id INTEGER NOT NULL AUTO_INCREMENT, qna_id INTEGER NOT NULL, email VARCHAR(255) NOT NULL,
    content VARCHAR(255), created_at DATETIME DEFAULT now(), PRIMARY KEY (comment_id),
    FOREIGN KEY(qna_id) REFERENCES qna (qna_id), FOREIGN KEY(email) REFERENCES users (email)) COLLATE utf8mb4_bin;
CREATE TABLE image (image_id INTEGER NOT NULL AUTO_INCREMENT, comment_id INTEGER NOT NULL, url VARCHAR(255),
    PRIMARY KEY (image_id), FOREIGN KEY(comment_id) REFERENCES comment (comment_id)) COLLATE utf8mb4_bin;";

/// What years without validation leave behind.
const ROWS: &str = r"
SET sql_mode = '', foreign_key_checks = 0;
INSERT INTO users VALUES
    ('ann@example.com', 'Ann', '2024-01-02 03:04:05'),
    ('bob@example.com', NULL, '2024-01-02 03:04:05'),
    ('Bob@Example.com', 'Robert', '2024-01-02 03:04:06'),
    ('kim', '김', NULL),
    ('a b@c', '', '0000-00-00 00:00:00');
INSERT INTO qna VALUES
    (1, 'ann@example.com', 'First', 'body', '2024-05-06 07:08:09'),
    (2, 'Bob@Example.com', '제목', NULL, '2024-05-06 07:08:10'),
    (3, 'kim', '', 'x', '2024-05-06 07:08:11'),
    (5, 'a b@c', 'tab\tnul\0', 'line\r\nend', NULL),
    (8, 'ghost@example.com', 'From nowhere', '', '0000-00-00 00:00:00');
INSERT INTO comment VALUES
    (1, 1, 'bob@example.com', 'Yes.', '2024-05-06 08:00:00'),
    (2, 1, 'kim', '', '2024-05-06 08:00:01'),
    (3, 99, 'ann@example.com', 'Where is it?', '2024-05-06 08:00:02'),
    (7, 2, 'ann@example.com', '답', '2024-05-06 08:00:03');
INSERT INTO image VALUES (1, 1, '/static/a.png'), (2, 1, 'missing.png'), (3, 7, '../secret.png');";

/// An old database, dropped at the end.
pub(crate) struct Old {
    database: Database,
    url: String,
}

impl Old {
    fn on(database: Database, sql: &[&str]) -> Self {
        let url = database.fresh();
        for sql in sql {
            execute(&url, sql);
        }
        Self { database, url }
    }

    fn all(sql: &[&str]) -> Vec<Self> {
        Database::servers().into_iter().map(|database| Self::on(database, sql)).collect()
    }

    fn execute(&self, sql: &str) {
        execute(&self.url, sql);
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// One on each server, with nobody on it.
pub(crate) fn an_old_board() -> Vec<Old> {
    Old::all(&[TABLES])
}

impl Drop for Old {
    fn drop(&mut self) {
        self.database.clean_up();
    }
}

/// A board to import into, with the old program's files beside it.
struct New {
    url: String,
    dir: Arc<TempDir>,
}

impl New {
    fn on(board: &Board) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("files/static")).unwrap();
        std::fs::write(dir.path().join("files/static/a.png"), a_png()).unwrap();
        std::fs::write(dir.path().join("secret.png"), a_png()).unwrap();
        Self { url: board.database.fresh(), dir: Arc::new(dir) }
    }

    fn import(&self, old: &Old, arguments: &[&str]) -> Ended {
        let mut command = mundap(self.dir.path());
        command.envs(crate::server::PATIENT).env("MUNDAP_DATABASE_URL", &self.url);
        command.args(["--data-dir", "data", "import-fastapi", &old.url, "--timezone", "Asia/Seoul"]).args(arguments);
        let ended = ends(&mut command);
        assert!(!ended.err.contains("qna:qna@"), "{ended:?}");
        ended
    }

    fn with_files(&self, old: &Old, arguments: &[&str]) -> Ended {
        self.import(old, &[&["--images", "files"], arguments].concat())
    }

    fn server(&self) -> Server {
        let env = vec![("MUNDAP_IDENTITY", "trusted-email".to_owned())];
        Server::start(&self.url, &Options { env, dir: Some(self.dir.clone()) })
    }

    fn count(&self, from: &str) -> i64 {
        number(&self.url, &format!("SELECT COUNT(*) AS n FROM {from}"))
    }
}

/// The report's figures by table: read, imported, there already, deleted here, changed, left out.
fn figures(ended: &Ended) -> BTreeMap<String, [u64; 6]> {
    let tables = ["users ", "qna ", "comment ", "image "];
    let lines = ended.out.lines().filter(|line| tables.iter().any(|table| line.starts_with(table)));
    let row = |line: &str| {
        let mut cells = line.split_whitespace();
        let table = cells.next().unwrap().to_owned();
        let figures: Vec<u64> = cells.map(|cell| cell.parse().unwrap()).collect();
        (table, figures.try_into().unwrap_or_else(|_| panic!("{line}")))
    };
    let figures: BTreeMap<_, _> = lines.map(row).collect();
    assert_eq!(figures.len(), 4, "{ended:?}");
    figures
}

#[track_caller]
fn assert_figures(ended: &Ended, expected: [(&str, [u64; 6]); 4]) {
    let expected = expected.map(|(table, figures)| (table.to_owned(), figures));
    assert_eq!(figures(ended), BTreeMap::from(expected), "{ended:#?}");
}

fn row(id: i64, email: &str, title: &str, content: &str, created_at: &str) -> Value {
    json!({"qna_id": id, "email": email, "title": title, "content": content, "created_at": created_at})
}

const EPOCH: &str = "1970-01-01T00:00:00.000000Z";

fn all(server: &Server) -> Vec<Value> {
    server.get("/load_all_qna").send().is(200).json().as_array().unwrap().clone()
}

fn an_old_board_comes_over_and_goes_on(board: &Board) {
    for old in Old::all(&[TABLES, ROWS]) {
        let new = New::on(board);
        let looked = new.with_files(&old, &["--dry-run"]);
        for table in ["users", "qna", "comment", "image", "import_user", "import_mark", "import_left", "image_folder"] {
            assert_eq!(new.count(table), 0, "a dry run writes nothing into {table}");
        }
        let done = new.with_files(&old, &[]);
        assert_eq!((looked.code, done.code), (Some(1), Some(1)), "{done:?}");
        assert_figures(
            &done,
            [
                // The two Bobs are one; kim and a b@c have no address; one of those has no time, the other a zero.
                ("users", [5, 4, 1, 0, 3, 0]),
                // 3 an empty title, 5 a NUL and no time, 8 no account and no time
                ("qna", [5, 5, 0, 0, 3, 0]),
                ("comment", [4, 3, 0, 0, 1, 1]),
                ("image", [3, 1, 0, 0, 0, 2]),
            ],
        );
        let without_word = |ended: &Ended| ended.out.replace("to import", " imported");
        assert_eq!(without_word(&looked), done.out, "a dry run foretells it");
        assert!(done.out.contains("left out, comment: its question is not on the old board: 3\n"), "{}", done.out);
        let files = "left out, image: its file is not in the folder that --images names: 2, 3\n";
        assert!(done.out.contains(files), "{}", done.out);
        assert!(done.err.starts_with("mundap: left out: 3 rows and 0 tables"), "{}", done.err);

        let server = new.server();
        let rows = all(&server);
        let address = |n: usize| rows[n]["email"].as_str().unwrap().to_owned();
        assert!(address(2).ends_with("@imported.invalid") && address(3).ends_with("@imported.invalid"), "{rows:#?}");
        assert_ne!(address(2), address(3));
        assert_eq!(
            rows,
            [
                row(1, "ann@example.com", "First", "body", "2024-05-05T22:08:09.000000Z"),
                // The spelling that sorts first.
                row(2, "Bob@example.com", "제목", "", "2024-05-05T22:08:10.000000Z"),
                row(3, &address(2), "…", "x", "2024-05-05T22:08:11.000000Z"),
                row(5, &address(3), "tab\tnul\u{fffd}", "line\nend", EPOCH),
                row(8, "ghost@example.com", "From nowhere", "", EPOCH),
            ]
        );
        assert_eq!(server.get("/load_qna/2").send().is(200).json(), rows[1]);
        let qna = server.get("/api/v1/qna/1?comments=20").send().is(200).json();
        assert_eq!((&qna["comment_count"], &qna["version"]), (&json!(2), &json!(1)));
        let comments = &qna["comments"]["items"];
        assert_eq!(comments[0]["created_at"], "2024-05-05T23:00:00.000000Z");
        assert_eq!((&comments[0]["content"], &comments[1]["content"]), (&json!("Yes."), &json!("…")));
        assert_eq!(comments[0]["images"][0]["image_id"], 1);
        assert_eq!(comments[1]["author"]["display_name"], "김");
        assert!(server.get("/api/v1/images/1").send().is(200).body.starts_with(b"\x89PNG"));

        // Who wrote there goes on here, and ids go on after the highest.
        let edit = json!({"qna_id": 1, "email": "ann@example.com", "title": "Edited", "content": "here"});
        server.put("/update_qna").json(edit).send().is(200);
        let stranger = json!({"qna_id": 1, "email": "bob@example.com", "title": "Edited"});
        server.put("/update_qna").json(stranger).send().is(400);
        let asked = json!({"email": "bob@example.com", "title": "New", "content": "here"});
        let asked = server.post("/upload").json(asked).send().is(200).json();
        assert!(asked["qna_id"].as_i64().unwrap() > 8, "{asked}");
        assert_eq!(asked["email"], "Bob@example.com");
    }
}

fn what_was_brought_is_this_board_s(board: &Board) {
    for old in Old::all(&[TABLES, ROWS]) {
        let new = New::on(board);
        let first = new.with_files(&old, &[]);
        assert_eq!(figures(&first)["qna"][1], 5, "{first:?}");
        let server = new.server();
        let edit = json!({"qna_id": 1, "email": "ann@example.com", "title": "Edited", "content": "here"});
        server.put("/update_qna").json(edit).send().is(200);
        let delete = json!({"qna_id": 2, "email": "bob@example.com", "title": "x"});
        server.delete("/delete_qna").json(delete).send().is(200);
        let before = all(&server);
        // While it serves.
        let again = new.with_files(&old, &[]);
        let nothing_new = [
            ("users", [5, 0, 5, 0, 0, 0]),
            ("qna", [5, 0, 4, 1, 0, 0]),
            ("comment", [4, 0, 2, 1, 0, 1]),
            ("image", [3, 0, 1, 0, 0, 2]),
        ];
        assert_figures(&again, nothing_new);
        assert!(again.out.contains("nothing was new\n"), "{again:?}");
        assert_eq!(all(&server), before);

        // What comes there meanwhile, an old row that was left out, and what was deleted stays deleted.
        old.execute(
            "INSERT INTO users VALUES ('new@example.com', 'New', '2025-01-01 00:00:00');
             INSERT INTO qna VALUES (20, 'new@example.com', 'Later', 'x', '2025-01-01 09:00:00');
             INSERT INTO comment VALUES (20, 20, 'ann@example.com', 'So it is.', '2025-01-01 09:00:00'),
                                        (21, 2, 'ann@example.com', 'To a deleted one.', '2025-01-01 09:00:00');",
        );
        std::fs::write(new.dir.path().join("files/missing.png"), a_png()).unwrap();
        let later = new.with_files(&old, &[]);
        let expected = [
            ("users", [6, 1, 5, 0, 0, 0]),
            ("qna", [6, 1, 4, 1, 0, 0]),
            ("comment", [6, 1, 2, 1, 0, 2]),
            ("image", [3, 1, 1, 0, 0, 1]),
        ];
        assert_figures(&later, expected);
        assert_eq!(all(&server).last().unwrap()["created_at"], "2025-01-01T00:00:00.000000Z");
        let images = server.get("/api/v1/comments/1").send().is(200).json()["images"].as_array().unwrap().len();
        assert_eq!(images, 2);
        assert_eq!(server.get("/api/v1/qna/20").send().is(200).json()["comment_count"], 1);

        // Somebody who left is not made anew, and what they still write there comes in under their deleted account.
        execute(
            &new.url,
            "UPDATE users SET email = NULL, email_key = NULL, display_name = NULL, deleted_at = '2026-01-01 00:00:00'
             WHERE email_key = 'ann@example.com'",
        );
        let people = new.count("users");
        old.execute("INSERT INTO qna VALUES (30, 'ann@example.com', 'After all', 'x', '2025-01-02 09:00:00')");
        new.with_files(&old, &[]);
        assert_eq!(new.count("users"), people);
        assert_eq!(server.get("/load_qna/30").send().is(200).json()["email"], "");
    }
}

fn rows_of_others_with_the_same_ids_are_refused_before_anything_is_written(board: &Board) {
    for old in Old::all(&[TABLES, ROWS]) {
        let new = New::on(board);
        let server = new.server();
        let asked = json!({"email": "eve@example.com", "title": "Too early", "content": ""});
        assert_eq!(server.post("/upload").json(asked).send().is(200).json()["qna_id"], 1);
        let people = new.count("users");
        for arguments in [&["--dry-run"][..], &[]] {
            let ended = new.with_files(&old, arguments);
            assert_eq!(ended.code, Some(1));
            assert!(ended.err.starts_with("mundap: nothing was imported: qna 1 of this board"), "{ended:?}");
            assert_eq!((new.count("qna"), new.count("users"), new.count("comment")), (1, people, 0));
        }

        // Nor is a row of another time taken for the one that was brought.
        let new = New::on(board);
        new.with_files(&old, &[]);
        old.execute("UPDATE qna SET created_at = '2020-01-01 00:00:00' WHERE qna_id = 3");
        let ended = new.with_files(&old, &[]);
        assert!(ended.err.starts_with("mundap: nothing was imported: qna 3 of this board"), "{ended:?}");
    }
}

fn a_board_without_comments_and_names_in_another_character_set_comes_too(board: &Board) {
    let tables = "
        CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, username VARCHAR(50), email VARCHAR(255) UNIQUE,
                            hashed_password VARCHAR(255)) CHARACTER SET latin1;
        CREATE TABLE qna (qna_id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(255), title VARCHAR(255),
                          content TEXT, created_at TIMESTAMP NULL) CHARACTER SET utf8mb3;
        INSERT INTO users (username, email) VALUES ('José', 'jose@example.com');
        SET time_zone = '+09:00';
        INSERT INTO qna VALUES (4, 'jose@example.com', '질문', '가나다', '2024-05-06 07:08:09');";
    for old in Old::all(&[tables]) {
        let new = New::on(board);
        let ended = new.import(&old, &[]);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
        let server = new.server();
        // A TIMESTAMP is an instant: --timezone does not concern it.
        let expected = row(4, "jose@example.com", "질문", "가나다", "2024-05-05T22:08:09.000000Z");
        assert_eq!(all(&server), [expected]);
        assert_eq!(server.get("/api/v1/qna/4").send().is(200).json()["author"]["display_name"], "José");
    }
}

fn many_rows_come_in_batches(board: &Board) {
    let rows = "
        SET cte_max_recursion_depth = 10000;
        INSERT INTO users SELECT CONCAT('u', n, '@example.com'), NULL, '2024-01-01 00:00:00' FROM
            (WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 700) SELECT n FROM s) s;
        INSERT INTO qna SELECT n, CONCAT('u', 1 + n % 700, '@example.com'), CONCAT('Q', n), NULL, '2024-01-01 00:00:00' FROM
            (WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 1300) SELECT n FROM s) s;
        INSERT INTO comment SELECT n, 1 + n % 900, CONCAT('u', 1 + n % 700, '@example.com'), 'C', '2024-01-01 00:00:00' FROM
            (WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 2600) SELECT n FROM s) s;";
    for old in Old::all(&[TABLES]) {
        // MariaDB knows the variable by another name, and needs none.
        let rows = if old.database.name.starts_with("mariadb") {
            rows.replace("cte_max_recursion_depth", "max_recursive_iterations")
        } else {
            rows.to_owned()
        };
        old.execute(&rows);
        let new = New::on(board);
        let ended = new.import(&old, &[]);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
        let expected = [
            ("users", [700, 700, 0, 0, 0, 0]),
            ("qna", [1300, 1300, 0, 0, 0, 0]),
            ("comment", [2600, 2600, 0, 0, 0, 0]),
            ("image", [0; 6]),
        ];
        assert_figures(&ended, expected);
        let wrong = "qna q WHERE q.comment_count <> (SELECT COUNT(*) FROM comment c WHERE c.qna_id = q.qna_id)";
        assert_eq!(new.count(wrong), 0);
        assert_eq!(
            new.count(
                "qna q JOIN users u ON u.user_id = q.user_id WHERE q.title = 'Q1' AND u.email = 'u2@example.com'"
            ),
            1
        );
    }
}

/// Named as the board's by mistake: no command writes there.
fn the_first_program_s_own_database_is_left_as_it_is(_: &Board) {
    for old in Old::all(&[TABLES]) {
        let dir = tempfile::tempdir().unwrap();
        let run =
            |url: &str, arguments: &[&str]| ends(in_dir(dir.path()).env("MUNDAP_DATABASE_URL", url).args(arguments));
        for arguments in [&["serve"][..], &["migrate", "up"], &["migrate", "status"], &["check"]] {
            let ended = run(&old.url, arguments);
            let told = "holds another program's tables (users, qna, comment): name an empty database";
            assert!(ended.code == Some(1) && ended.err.contains(told), "{arguments:?}: {ended:?}");
        }
        let elsewhere = old.url.replace("127.0.0.1", "localhost");
        for url in [&old.url, &elsewhere] {
            let line = run(url, &["import-fastapi", &old.url]).refused(2);
            assert!(line.starts_with("MUNDAP_DATABASE_URL: this is the first program's database"), "{line}");
        }
        let tables = "SELECT COUNT(*) AS n FROM information_schema.tables WHERE table_schema = DATABASE()";
        assert_eq!(number(&old.url, tables), 4);
    }
}

fn what_the_old_board_says_means_nothing_to_a_terminal(board: &Board) {
    let rows = "INSERT INTO users (email) VALUES ('red\u{1b}[31m\nleft out, qna: none: 1')";
    let table = "CREATE TABLE `like\ns` (like_id INTEGER PRIMARY KEY, comment_id INTEGER)";
    for old in Old::all(&[TABLES, rows, table]) {
        let ended = New::on(board).import(&old, &[]);
        let told = "imported.invalid, which no letter reaches: red\u{fffd}[31m\u{fffd}left out, qna: none: 1\n";
        assert!(ended.out.contains(told), "{ended:?}");
        assert!(ended.out.contains("left out, table like\u{fffd}s: "), "{ended:?}");
    }
}

fn what_is_no_first_program_s_database_is_one_line(board: &Board) {
    let dir = tempfile::tempdir().unwrap();
    let import = |url: &str, more: &[&str]| {
        let mut command = mundap(Path::new(dir.path()));
        ends(command.args(["--data-dir", "data", "import-fastapi", url]).args(more))
    };
    let line = import("mysql://qna:s3cret@127.0.0.1:1/old", &[]).refused(1);
    assert!(line.starts_with("cannot read the first program's database: "), "{line}");
    assert!(!line.contains("s3cret"), "{line}");
    // Wrong usage.
    for url in ["sqlite://old.db", "mysql://qna:s3cret@127.0.0.1:1", "mysql://qna:s3cret@[bad/old", "s3cret", ""] {
        let line = import(url, &[]).refused(2);
        let expected = "the first program's database: the URL must be mysql://USER:PASSWORD@HOST:PORT/NAME: ";
        assert!(line.starts_with(expected), "{line}");
        assert!(!line.contains("s3cret") && !line.contains("sqlite://"), "{line}");
    }
    let line = import("mysql://127.0.0.1/old", &["--images", "nowhere"]).refused(2);
    assert_eq!(line, "--images: nowhere is no folder");
    let ended = import("mysql://127.0.0.1/old", &["--timezone", "Moon/Crater"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(!dir.path().join("data").exists(), "nor is anything made before");
    // This program's own database is none either.
    for database in Database::servers() {
        let old = Old::on(database, &["CREATE TABLE qna (qna_id BIGINT PRIMARY KEY, user_id BIGINT)"]);
        let ended = import(&old.url, &[]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.starts_with("mundap: that database is not the first program's"), "{ended:?}");
    }
    assert!(board.database.name.starts_with("sqlite"));
}
