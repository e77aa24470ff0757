//! Carrying a board from one database to another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use mundap_domain::image::{BlobStore as _, Digest, NewImage};
use mundap_infra::transfer::{Destination, Kind, LEFT, Progress, TransferError, backup, copy, restore, tables};
use mundap_infra::{BlobFolder, DatabaseKind, connect};
use sea_orm::{ConnectionTrait as _, Database, Statement};

use crate::board::Board;
use crate::image::{attach, new};

crate::tests![
    every_table_is_carried_whole_or_left_on_purpose,
    tables_that_others_refer_to_come_first,
    a_copy_sees_that_the_source_was_written_to_and_brings_the_rest,
    addresses_that_changed_hands_between_two_runs_are_copied,
    a_copy_that_is_finished_is_compared_again,
    an_unfinished_copy_of_another_source_is_told,
    a_row_that_cannot_be_read_is_named_without_what_it_holds,
    one_at_a_time_into_a_database,
    rows_with_a_key_of_two_columns_are_all_carried,
    a_restore_mends_images_that_are_damaged_where_it_puts_them,
];

/// The columns of every table: the database's own type, and whether it is part of the primary key.
async fn schema(board: &Board) -> BTreeMap<String, BTreeMap<String, String>> {
    let sql = if board.store.kind() == DatabaseKind::Sqlite {
        "SELECT m.name, c.name, LOWER(c.type) FROM sqlite_master m, pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'"
    } else {
        "SELECT table_name, column_name, LOWER(CAST(data_type AS CHAR)) FROM information_schema.columns
         WHERE table_schema = DATABASE()"
    };
    let db = board.writer();
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    let mut found = BTreeMap::new();
    for row in rows {
        let text = |at| row.try_get_by_index::<String>(at).unwrap();
        found.entry(text(0)).or_insert_with(BTreeMap::new).insert(text(1), text(2));
    }
    found
}

/// Fails where a migration adds something that is not carried.
async fn every_table_is_carried_whole_or_left_on_purpose(board: Board) {
    let board = board.own().await;
    let sqlite = board.store.kind() == DatabaseKind::Sqlite;
    let mut schema = schema(&board).await;
    for table in tables() {
        let columns = schema.remove(&table.name).unwrap_or_else(|| panic!("there is no table {}", table.name));
        let names: BTreeSet<&String> = table.columns.iter().map(|column| &column.name).collect();
        assert_eq!(names.len(), table.columns.len(), "{}", table.name);
        assert_eq!(names, columns.keys().collect(), "{}", table.name);
        for column in &table.columns {
            let types: &[&str] = match (column.kind, sqlite) {
                (Kind::Integer, true) => &["integer"],
                (Kind::Integer, false) => &["bigint", "int", "tinyint"],
                (Kind::Bytes, true) => &["blob"],
                (Kind::Bytes, false) => &["binary"],
                (Kind::Time, false) => &["datetime"],
                (Kind::Text | Kind::Time, true) => &["text"],
                (Kind::Text, false) => &["varchar", "mediumtext"],
            };
            let found = &columns[&column.name];
            assert!(types.contains(&found.as_str()), "{}.{}: {found}", table.name, column.name);
        }
    }
    for (left, _) in LEFT {
        schema.remove(left);
    }
    assert!(schema.is_empty(), "neither carried nor left on purpose: {schema:?}");
}

async fn tables_that_others_refer_to_come_first(board: Board) {
    let board = board.own().await;
    let sql = if board.store.kind() == DatabaseKind::Sqlite {
        "SELECT m.name, f.\"table\" FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'"
    } else {
        "SELECT table_name, referenced_table_name FROM information_schema.referential_constraints
         WHERE constraint_schema = DATABASE()"
    };
    let db = board.writer();
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    assert!(rows.len() >= 7, "{}", rows.len());
    let order: Vec<String> = tables().into_iter().map(|table| table.name).collect();
    let place = |name: String| order.iter().position(|other| *other == name).unwrap();
    for row in rows {
        let (table, other): (String, String) = (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap());
        assert!(place(other.clone()) < place(table.clone()), "{table} refers to {other}");
    }
}

/// Does something, on a thread of its own, when a copy comes to a point of it.
struct Meanwhile<F> {
    at: &'static str,
    something: Mutex<Option<F>>,
}

impl<F: FnOnce() + Send> Meanwhile<F> {
    fn at(at: &'static str, something: F) -> Self {
        Self { at, something: Mutex::new(Some(something)) }
    }
}

impl<F: FnOnce() + Send> Progress for Meanwhile<F> {
    fn begin(&self, what: &str, _total: u64) {
        if what == self.at
            && let Some(something) = self.something.lock().unwrap().take()
        {
            std::thread::scope(|scope| scope.spawn(something).join().unwrap());
        }
    }

    fn step(&self, _steps: u64) {}
}

fn idle() -> impl Progress {
    Meanwhile::at("never", || ())
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn a_copy_sees_that_the_source_was_written_to_and_brings_the_rest(board: Board) {
    let from = board.server.new_database().await;
    let to = board.server.new_database().await;
    let source = board.on(&from).await;
    let target = board.connect(&to).await;
    let (ann, bob) = (source.user().await, source.user().await);
    let mut qnas = Vec::new();
    for _ in 0..3 {
        let qna = source.qna(&ann).await;
        source.comment(qna.id, &bob).await;
        qnas.push(qna.id);
    }
    let time = "'2026-01-02 12:00:00.000001'";
    let written = [
        format!("UPDATE qna SET title = 'edited meanwhile' WHERE qna_id = {}", qnas[0]),
        format!("DELETE FROM comment WHERE qna_id = {}", qnas[1]),
        format!("DELETE FROM qna WHERE qna_id = {}", qnas[1]),
        format!(
            "INSERT INTO comment (qna_id, user_id, content, created_at, updated_at)
             VALUES ({}, {}, 'written meanwhile', {time}, {time})",
            qnas[0], ann.id
        ),
        // The address of one account goes over to another, with a smaller and with a greater id.
        format!("UPDATE users SET email = NULL, email_key = NULL WHERE user_id = {}", ann.id),
        format!("UPDATE users SET email = '{0}', email_key = '{0}' WHERE user_id = {1}", ann.email.as_str(), bob.id),
    ];
    let url = from.url.clone();
    let meanwhile = Meanwhile::at("audit", move || {
        block_on(async {
            let db = Database::connect(url).await.unwrap();
            for statement in written {
                db.execute_unprepared(&statement).await.unwrap();
            }
            db.close().await.unwrap();
        });
    });
    let mut seen = Vec::new();
    let outcome = copy((&source.store, &from), (&target, &to), &meanwhile, |there, here| {
        seen.push((there.table.clone(), there == here));
    })
    .await;
    let Err(TransferError::Differ(different)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(different, ["users", "qna", "comment"]);
    assert_eq!(seen.len(), tables().len());
    assert!(mundap_migration::up(target.writer()).await.is_err(), "the target is not to be served");

    let copied = copy((&source.store, &from), (&target, &to), &idle(), |_, _| ()).await.unwrap();
    assert!(copied.tables.iter().all(|(there, here)| there == here));
    // Edited, deleted, inserted, two accounts; the deleted question took its comment along.
    assert!((5..=6).contains(&copied.changed), "{}", copied.changed);
    mundap_migration::up(target.writer()).await.unwrap();
}

/// Does these statements, on a thread of its own, when a copy comes to the last table.
fn written(url: &str, statements: Vec<String>) -> impl Progress {
    let url = url.to_owned();
    Meanwhile::at("audit", move || {
        block_on(async {
            let db = Database::connect(url).await.unwrap();
            for statement in statements {
                db.execute_unprepared(&statement).await.unwrap();
            }
            db.close().await.unwrap();
        });
    })
}

/// Whoever gives one up comes behind whoever takes it, two exchange theirs, and a new account takes one of an old one.
async fn addresses_that_changed_hands_between_two_runs_are_copied(board: Board) {
    let (from, to) = (board.server.new_database().await, board.server.new_database().await);
    let (source, target) = (board.on(&from).await, board.connect(&to).await);
    let mut users = Vec::new();
    for _ in 0..6 {
        users.push(source.user().await);
    }
    let gives_up =
        |at: usize| format!("UPDATE users SET email = NULL, email_key = NULL WHERE user_id = {}", users[at].id);
    let takes = |at: usize, whose: usize| {
        let (id, address) = (users[at].id, users[whose].email.as_str());
        format!("UPDATE users SET email = '{address}', email_key = '{address}' WHERE user_id = {id}")
    };
    let time = "'2026-01-02 12:00:00.000001'";
    let new = format!(
        "INSERT INTO users (email, email_key, display_name, role, created_at, updated_at)
         VALUES ('{0}', '{0}', 'new', 'member', {time}, {time})",
        users[4].email.as_str()
    );
    let statements = vec![
        gives_up(1),
        takes(0, 1),
        gives_up(2),
        gives_up(3),
        takes(2, 3),
        takes(3, 2),
        gives_up(4),
        takes(4, 0),
        new,
    ];
    let outcome = copy((&source.store, &from), (&target, &to), &written(&from.url, statements), |_, _| ()).await;
    assert!(matches!(outcome, Err(TransferError::Differ(_))), "{outcome:?}");
    let copied = copy((&source.store, &from), (&target, &to), &idle(), |_, _| ()).await.unwrap();
    assert!(copied.tables.iter().all(|(there, here)| there == here));
    assert_eq!(copied.changed, 6);
}

/// Who copies the bulk first, and meets nobody who writes, runs the same command again all the same.
async fn a_copy_that_is_finished_is_compared_again(board: Board) {
    let (from, to) = (board.server.new_database().await, board.server.new_database().await);
    let (source, target) = (board.on(&from).await, board.connect(&to).await);
    let ann = source.user().await;
    source.qna(&ann).await;
    for changed in [2, 0] {
        let copied = copy((&source.store, &from), (&target, &to), &idle(), |_, _| ()).await.unwrap();
        assert_eq!((copied.changed, copied.tables.len()), (changed, tables().len()));
        assert!(mundap_migration::up(target.writer()).await.unwrap().is_empty());
    }
    // What is no copy of it, or of what it was, is left alone.
    source.qna(&ann).await;
    let outcome = copy((&source.store, &from), (&target, &to), &idle(), |_, _| ()).await;
    assert!(matches!(outcome, Err(TransferError::NotEmpty(_))), "{outcome:?}");
    target.writer().execute_unprepared("UPDATE qna SET title = 'its own'").await.unwrap();
    let outcome = copy((&source.store, &from), (&target, &to), &idle(), |_, _| ()).await;
    assert!(matches!(outcome, Err(TransferError::NotEmpty(_))), "{outcome:?}");
}

async fn an_unfinished_copy_of_another_source_is_told(board: Board) {
    let (from, to, other) =
        (board.server.new_database().await, board.server.new_database().await, board.server.new_database().await);
    let (source, target, others) = (board.on(&from).await, board.connect(&to).await, board.on(&other).await);
    let (ann, eve) = (source.user().await, source.user().await);
    source.comment(source.qna(&ann).await.id, &eve).await;
    let statements = vec!["UPDATE qna SET title = 'edited meanwhile'".to_owned()];
    let outcome = copy((&source.store, &from), (&target, &to), &written(&from.url, statements), |_, _| ()).await;
    assert!(matches!(outcome, Err(TransferError::Differ(_))), "{outcome:?}");
    // There, the comment of this id is somebody else's, and who wrote it here is nobody.
    let bob = others.user().await;
    let qna = others.qna(&bob).await;
    others.comment(qna.id, &bob).await;
    let outcome = copy((&others.store, &other), (&target, &to), &idle(), |_, _| ()).await;
    let Err(error) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(error, TransferError::OtherSource), "{error}");
    copy((&source.store, &from), (&target, &to), &idle(), |_, _| ()).await.unwrap();
}

async fn a_row_that_cannot_be_read_is_named_without_what_it_holds(board: Board) {
    if board.store.kind() != DatabaseKind::Sqlite {
        // The servers hold nothing in a column that is not of its kind.
        return;
    }
    let (from, to) = (board.server.new_database().await, board.server.new_database().await);
    let (source, target) = (board.on(&from).await, board.connect(&to).await);
    let ann = source.user().await;
    source.qna(&ann).await;
    let qna = source.qna(&ann).await;
    let update = format!("UPDATE qna SET created_at = 's3cret' WHERE qna_id = {}", qna.id);
    source.writer().execute_unprepared(&update).await.unwrap();
    let error = copy((&source.store, &from), (&target, &to), &idle(), |_, _| ()).await.unwrap_err().to_string();
    let named = format!("qna {}: created_at cannot be read: correct it in the database", qna.id);
    assert!(error.contains(&named) && !error.contains("s3cret"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

async fn one_at_a_time_into_a_database(board: Board) {
    let from = board.server.new_database().await;
    let to = board.server.new_database().await;
    let source = board.on(&from).await;
    let target = board.connect(&to).await;
    let (other_from, other_to) = (from.clone(), to.clone());
    let (tell, told) = std::sync::mpsc::channel();
    let meanwhile = Meanwhile::at("qna", move || {
        block_on(async {
            let (source, target) = (connect(&other_from).await.unwrap(), connect(&other_to).await.unwrap());
            let outcome = copy((&source, &other_from), (&target, &other_to), &idle(), |_, _| ()).await;
            tell.send(outcome).unwrap();
            source.close().await;
            target.close().await;
        });
    });
    copy((&source.store, &from), (&target, &to), &meanwhile, |_, _| ()).await.unwrap();
    let other = told.recv().unwrap();
    assert!(matches!(other, Err(TransferError::Running)), "{other:?}");
}

/// More of one first column than are read at once, and others before and behind.
async fn rows_with_a_key_of_two_columns_are_all_carried(board: Board) {
    let (from, to) = (board.server.new_database().await, board.server.new_database().await);
    let (source, target) = (board.on(&from).await, board.connect(&to).await);
    for (name, count) in [("comment", 3), ("image gap", 1_234), ("image gap end", 500), ("qna", 1)] {
        let rows = (0..count).map(|id| format!("('{name}', {id})")).collect::<Vec<_>>().join(", ");
        source.sql(&format!("INSERT INTO import_left (source_table, source_id) VALUES {rows}")).await;
    }
    let copied = copy((&source.store, &from), (&target, &to), &idle(), |_, _| ()).await.unwrap();
    let (there, here) = copied.tables.iter().find(|(there, _)| there.table == "import_left").unwrap();
    assert_eq!((there.rows, copied.changed), (1_738, 1_738));
    assert_eq!(there, here);
}

/// What is there under an image's name need not be the image: a disk may have failed, and the archive is what is left of it.
async fn a_restore_mends_images_that_are_damaged_where_it_puts_them(board: Board) {
    let (from, to) = (board.server.new_database().await, board.server.new_database().await);
    let (source, target) = (board.on(&from).await, board.connect(&to).await);
    let dir = tempfile::tempdir().unwrap();
    let blobs = BlobFolder::new(dir.path().join("images"));
    let author = source.user().await;
    let comment = source.comment(source.qna(&author).await.id, &author).await;
    let pictures = [&b"one picture"[..], b"another picture", b"a whole picture"];
    let digests = pictures.map(Digest::of);
    for (content, digest) in pictures.iter().zip(digests) {
        blobs.put(digest, Arc::new(content.to_vec())).await.unwrap();
        attach(&source, &NewImage { digest, ..new(&comment, b"") }).await;
    }
    let archive = dir.path().join("board.mundap");
    let destination = Destination::File { path: archive.clone(), overwrite: false };
    backup(&source.store, &blobs, &destination, &idle()).await.unwrap();
    for (digest, damage) in digests.iter().zip([&b""[..], b"another_picture"]) {
        let name = digest.to_string();
        std::fs::write(blobs.root().join(&name[..2]).join(&name[2..4]).join(&name), damage).unwrap();
    }
    restore(&archive, &target, &to, &blobs, &idle()).await.unwrap();
    for (content, digest) in pictures.iter().zip(digests) {
        assert_eq!(blobs.read(digest, 0, 100).await.unwrap().as_deref(), Some(*content));
    }
}
