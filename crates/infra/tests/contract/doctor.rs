//! Looking whether a board is sound: each defect is made, found, mended where it can be, and gone.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::join_all;
use mundap_domain::comment::Comment;
use mundap_domain::env::Clock as _;
use mundap_domain::image::{BlobStore as _, Digest, MediaType, NewImage};
use mundap_domain::testing::{noon, ports};
use mundap_domain::user::User;
use mundap_domain::version::Expected;
use mundap_domain::{Actor, Services, StoreError, UnitOfWork};
use mundap_infra::doctor::{self, DoctorError, Examination, Examined, Finding, Reference, examine, references};
use mundap_infra::transfer::{LEFT, tables};
use mundap_infra::{BlobFolder, DatabaseKind, Home, SigningKeys, SystemClock};
use sea_orm::{ConnectionTrait as _, Statement, TransactionTrait as _};
use tempfile::TempDir;

use crate::board::{Board, assert_outcome};

crate::tests![
    every_reference_of_the_schema_is_looked_at,
    it_is_decided_what_becomes_of_everything_that_names_a_deleted_account,
    a_sound_board_has_no_finding,
    wrong_counts_are_told_and_mended,
    more_wrong_counts_than_are_read_at_once_are_all_told,
    a_count_is_looked_at_while_nobody_can_change_it,
    counts_are_mended_while_others_write,
    a_row_that_names_nobody_is_told_and_left,
    a_row_that_breaks_a_rule_is_told_without_what_it_holds,
    a_value_that_is_not_of_its_kind_is_told,
    an_image_of_another_s_is_told,
    a_wrong_blob_is_told,
    a_blob_that_was_set_aside_is_brought_back,
    an_image_that_is_deleted_meanwhile_is_no_finding,
    files_that_nothing_names_are_told_and_put_away,
    files_in_a_folder_that_is_not_the_board_s_are_left,
    what_is_no_folder_of_the_board_s_is_told_and_stops_nothing,
    a_young_file_that_nothing_names_is_no_finding,
    a_schema_that_is_not_this_one_is_told,
    a_signing_key_that_others_may_read_is_told_and_mended,
    a_missing_signing_key_is_told_where_somebody_is_signed_in,
    a_key_that_was_left_half_written_is_told_and_removed,
    a_damaged_file_is_told_and_not_mended,
];

/// A board with something of everything, its images and its key.
struct Ward {
    board: Board,
    folder: TempDir,
    author: User,
    comment: Comment,
    /// An image's id and blob.
    image: (i64, Digest),
}

const CONTENT: &[u8] = b"as if it were a picture";
const TIME: &str = "'2026-01-02 12:00:00.000001'";
const HASH: &str = "X'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f'";

impl Ward {
    async fn new(board: &Board) -> Self {
        Self::on(board.own().await).await
    }

    async fn on(board: Board) -> Self {
        let author = board.user().await;
        let comment = board.comment(board.qna(&author).await.id, &author).await;
        let folder = tempfile::tempdir().unwrap();
        SigningKeys::load_or_create(&folder.path().join("key")).unwrap();
        let mut ward = Self { board, folder, author, comment, image: (0, Digest::of(CONTENT)) };
        ward.image.0 = ward.attach(CONTENT).await;
        // As a node does when it starts.
        assert_eq!(ward.board.store.claim_home(&ward.blobs()).await.unwrap(), Home::Here);
        let user = ward.author.id;
        let key = "'b@example.com'";
        for sql in [
            format!(
                "INSERT INTO users (role, deleted_at, created_at, updated_at) VALUES ('member', {TIME}, {TIME}, {TIME})"
            ),
            format!(
                "INSERT INTO sign_in (user_id, family, `current`, rotated_at, created_at, expires_at)
                 VALUES ({user}, {HASH}, {HASH}, {TIME}, {TIME}, {TIME})"
            ),
            format!(
                "INSERT INTO receipt (claimant, idem_key, fingerprint, created_id, display_name, email, created_at)
                 VALUES ({user}, 'k', {HASH}, 1, 'Bob', {key}, {TIME}), ({user}, 'l', {HASH}, 1, NULL, NULL, {TIME})"
            ),
            format!(
                "INSERT INTO outbox (topic, user_id, email, email_key, language, due_at, created_at)
                 VALUES ('verify_email', {user}, {key}, {key}, 'en', {TIME}, {TIME})"
            ),
            format!(
                "INSERT INTO outbox (topic, email, email_key, language, due_at, created_at)
                 VALUES ('reset_password', {key}, {key}, 'ko', {TIME}, {TIME})"
            ),
            format!(
                "INSERT INTO mail_token (user_id, purpose, hash, email_key, expires_at)
                 VALUES ({user}, 'verify_email', {HASH}, {key}, {TIME})"
            ),
            format!("INSERT INTO audit (actor_id, action, created_at) VALUES ({user}, 'read_audit', {TIME})"),
            format!("INSERT INTO import_user (email_hash, user_id) VALUES ({HASH}, {user})"),
        ] {
            ward.board.sql(&sql).await;
        }
        ward
    }

    /// Puts a picture and attaches it, counted, as the use case does; its id.
    async fn attach(&self, content: &[u8]) -> i64 {
        let new = NewImage {
            comment: self.comment.id,
            owner: self.author.id,
            media_type: MediaType::Png,
            bytes: u32::try_from(content.len()).unwrap(),
            width: 1,
            height: 1,
            digest: Digest::of(content),
            created_at: noon(),
        };
        self.blobs().put(new.digest, Arc::new(content.to_vec())).await.unwrap();
        let attach = async |unit: &dyn UnitOfWork| {
            assert!(unit.comments().count_images(new.comment, 1).await?);
            unit.images().insert(&new).await
        };
        self.board.unit(attach).await.unwrap().id.get()
    }

    fn blobs(&self) -> BlobFolder {
        BlobFolder::new(self.images())
    }

    fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// The file of a blob.
    fn file(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.images().join(&name[..2]).join(&name[2..4]).join(name)
    }

    /// What is found, line by line.
    async fn found(&self, how: Examination) -> Vec<String> {
        self.examined(how).await.unwrap().1
    }

    async fn examined(&self, how: Examination) -> Result<(Examined, Vec<String>), DoctorError> {
        let (blobs, key) = (self.blobs(), self.key());
        let board = doctor::Board { store: &self.board.store, blobs: &blobs, signing_key: &key };
        let mut lines = Vec::new();
        let mut tell = |finding: &Finding| lines.push(finding.to_string());
        let examined = examine(board, how, &mut tell).await?;
        assert_eq!(examined.found, lines.len() as u64);
        assert_eq!(examined.mended, lines.iter().filter(|line| line.ends_with(" (mended)")).count() as u64);
        Ok((examined, lines))
    }

    /// Holds the board to this one finding, told and left alone without `repair`, mended with it, and then gone.
    #[track_caller]
    fn is_mended(&self, how: Examination, expected: &str) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            for _ in 0..2 {
                assert_eq!(self.found(how).await, [expected], "{place}");
            }
            let repair = Examination { repair: true, ..how };
            let lines = self.found(repair).await;
            assert!(matches!(&*lines, [line] if line.ends_with(" (mended)")), "{place}: {lines:?}");
            assert_eq!(self.found(how).await, [""; 0], "{place}");
        }
    }

    /// Runs SQL that the database's own rules would refuse.
    async fn sabotage(&self, sql: &str) {
        let db = self.board.writer();
        if self.board.store.kind() == DatabaseKind::Sqlite {
            // The one connection that writes; inside of a transaction the pragma does nothing.
            db.execute_unprepared("PRAGMA foreign_keys = OFF").await.unwrap();
            db.execute_unprepared(sql).await.unwrap();
            db.execute_unprepared("PRAGMA foreign_keys = ON").await.unwrap();
            return;
        }
        let one = db.begin().await.unwrap();
        one.execute_unprepared("SET SESSION foreign_key_checks = 0").await.unwrap();
        one.execute_unprepared(sql).await.unwrap();
        one.execute_unprepared("SET SESSION foreign_key_checks = 1").await.unwrap();
        one.commit().await.unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        let db = self.board.writer();
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
        row.unwrap().try_get_by_index(0).unwrap()
    }
}

fn look() -> Examination {
    Examination { repair: false, quick: false, now: SystemClock.now() }
}

/// So much later that what was made just now is old.
fn look_later() -> Examination {
    Examination { now: SystemClock.now().plus(TimeDelta::days(2)), ..look() }
}

fn repair() -> Examination {
    Examination { repair: true, ..look() }
}

async fn every_reference_of_the_schema_is_looked_at(board: Board) {
    let board = board.own().await;
    let sql = if board.store.kind() == DatabaseKind::Sqlite {
        "SELECT m.name, f.\"from\", f.\"table\", f.\"to\" FROM sqlite_master m, pragma_foreign_key_list(m.name) f
         WHERE m.type = 'table'"
    } else {
        "SELECT table_name, column_name, referenced_table_name, referenced_column_name
         FROM information_schema.key_column_usage
         WHERE table_schema = DATABASE() AND referenced_table_name IS NOT NULL"
    };
    let db = board.writer();
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    let schema: BTreeSet<[String; 4]> =
        rows.iter().map(|row| [0, 1, 2, 3].map(|at| row.try_get_by_index(at).unwrap())).collect();
    let looked_at = |Reference { table, column, to, key, .. }| [table, column, to, key];
    assert_eq!(references().into_iter().map(looked_at).collect::<BTreeSet<_>>(), schema);
}

/// What becomes of a row that names an account when that one is deleted. The row in `users` stays, so no `ON DELETE CASCADE`
/// does it: `AccountService::delete` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes with the account.
    Erased,
    /// It stays, under "deleted user" where it is shown.
    Kept,
}
use Fate::{Erased, Kept};

/// Where the export shows it.
#[derive(Clone, Copy, Debug)]
enum Export {
    /// In this field.
    In(&'static str),
    /// Nowhere, for this reason.
    Not(&'static str),
}
use Export::{In, Not};

/// Every column that names an account.
const OF_ACCOUNTS: &[(&str, &str, Fate, Export)] = &[
    ("users", "user_id", Kept, In("account")),
    ("qna", "user_id", Kept, In("qna")),
    ("comment", "user_id", Kept, In("comments")),
    ("image", "user_id", Kept, In("images")),
    ("sign_in", "user_id", Erased, In("sign_ins")),
    ("receipt", "claimant", Erased, Not("names what was made, which is there itself, for a day")),
    ("outbox", "user_id", Erased, Not("a letter to the account's own address, for as long as it waits")),
    ("mail_token", "user_id", Erased, Not("a hash of what a letter to that address says")),
    ("audit", "actor_id", Kept, Not("what an administrator did is told to those to whom it was done")),
    ("audit", "target_id", Kept, In("audit")),
    ("import_user", "user_id", Kept, Not("a hash of the old address, so that the next import does not make them anew")),
];

/// The tables without such a column.
const OF_NOBODY: &[&str] =
    &["import_mark", "import_left", "rate_limit", "image_folder", "seaql_migrations", "migration_lease"];

/// Fails where a migration adds a table, until somebody decides.
async fn it_is_decided_what_becomes_of_everything_that_names_a_deleted_account(board: Board) {
    let decided = |table: &str, column: &str| OF_ACCOUNTS.iter().any(|(of, at, ..)| (*of, *at) == (table, column));
    for Reference { table, column, .. } in references().into_iter().filter(|reference| reference.to == "users") {
        assert!(decided(&table, &column), "{table}.{column} names an account: say what becomes of it in OF_ACCOUNTS");
    }
    let carried: Vec<String> = tables().into_iter().map(|table| table.name).collect();
    for table in carried.iter().map(String::as_str).chain(LEFT.iter().map(|(table, _)| *table)) {
        let is_somebody_s = OF_ACCOUNTS.iter().any(|(of, ..)| *of == table);
        assert!(is_somebody_s != OF_NOBODY.contains(&table), "{table}: name it in OF_ACCOUNTS or in OF_NOBODY");
    }
    let export = include_str!("../../../api/src/routes/v1/export.rs");
    let (_, view) = export.split_once("pub struct ExportView").unwrap();
    let (view, _) = view.split_once("\n}\n").unwrap();
    for (table, _, _, shown) in OF_ACCOUNTS {
        match shown {
            In(field) => assert!(view.contains(&format!("\n    {field}: ")), "{table} is not in the export: {view}"),
            Not(reason) => assert!(!reason.is_empty(), "{table}"),
        }
    }

    let ward = Ward::new(&board).await;
    let user = ward.author.id;
    let audit = format!("INSERT INTO audit (target_id, action, created_at) VALUES ({user}, 'suspended', {TIME})");
    ward.board.sql(&audit).await;
    let count = async |table: &str, column: &str| {
        ward.number(&format!("SELECT COUNT(*) FROM {table} WHERE {column} = {user}")).await
    };
    let mut before = Vec::new();
    for (table, column, ..) in OF_ACCOUNTS {
        before.push(count(table, column).await);
    }
    let services = Services::new(&ports(Arc::new(ward.board.store.clone())));
    services.accounts.delete(&Actor::from(ward.author.clone()), &Expected::Any).await.unwrap();
    for ((table, column, fate, _), before) in OF_ACCOUNTS.iter().zip(before) {
        assert!(before > 0, "{table}.{column}: give the ward a row with it");
        let left = match fate {
            Erased => 0,
            Kept => before,
        };
        assert_eq!(count(table, column).await, left, "{table}.{column}: {fate:?}");
    }
}

async fn a_sound_board_has_no_finding(board: Board) {
    let ward = Ward::new(&board).await;
    // As some boards are: a question by who is gone, an empty text, the same picture twice.
    let gone = ward.board.user().await;
    let qna = ward.board.qna(&gone).await;
    ward.board.unit(async |unit| unit.users().erase(gone.id, noon()).await).await.unwrap();
    ward.board.sql(&format!("UPDATE qna SET content = '' WHERE qna_id = {}", qna.id)).await;
    ward.attach(CONTENT).await;
    for how in [look(), look_later(), repair(), Examination { quick: true, ..look() }] {
        let (examined, lines) = ward.examined(how).await.unwrap();
        assert_eq!(lines, [""; 0]);
        assert_eq!(examined, Examined { rows: 16, blobs: 2, found: 0, mended: 0 });
    }
}

async fn wrong_counts_are_told_and_mended(board: Board) {
    let ward = Ward::new(&board).await;
    let (qna, comment) = (ward.comment.qna, ward.comment.id);
    ward.board.sql(&format!("UPDATE qna SET comment_count = 7 WHERE qna_id = {qna}")).await;
    ward.is_mended(look(), &format!("qna {qna}: its comment_count is 7, and there are 1")).await;
    ward.board.sql(&format!("UPDATE comment SET image_count = 0 WHERE comment_id = {comment}")).await;
    ward.is_mended(look(), &format!("comment {comment}: its image_count is 0, and there are 1")).await;
    ward.board.sql(&format!("DELETE FROM comment WHERE comment_id = {comment}")).await;
    ward.is_mended(look(), &format!("qna {qna}: its comment_count is 1, and there are 0")).await;
    // What was mended is what is shown.
    let shown = ward.board.reader().qnas().find(qna).await.unwrap().unwrap();
    assert_eq!((shown.comment_count, shown.version.get()), (0, 1));
}

async fn more_wrong_counts_than_are_read_at_once_are_all_told(board: Board) {
    let ward = Ward::new(&board).await;
    let rows = vec![format!("({}, 't', '', 9, {TIME}, {TIME})", ward.author.id); 450].join(", ");
    let sql = format!("INSERT INTO qna (user_id, title, content, comment_count, created_at, updated_at) VALUES {rows}");
    ward.board.sql(&sql).await;
    assert_eq!(ward.found(look()).await.iter().collect::<BTreeSet<_>>().len(), 450);
    assert_eq!(ward.examined(repair()).await.unwrap().0.mended, 450);
    assert_eq!(ward.found(look()).await, [""; 0]);
}

async fn a_count_is_looked_at_while_nobody_can_change_it(board: Board) {
    let board = board.own_with(|settings| {
        settings.acquire_timeout = Duration::from_millis(600);
        settings.statement_timeout = Duration::from_secs(3);
    });
    let ward = Ward::on(board.await).await;
    let qna = ward.comment.qna;
    ward.board.sql(&format!("UPDATE qna SET comment_count = 7 WHERE qna_id = {qna}")).await;
    let unit = ward.board.begin().await;
    assert!(unit.qnas().count_comments(qna, 1).await.unwrap());
    // Not told either: what is stored may be another count in a moment.
    assert_outcome!(ward.examined(look()).await, Err(DoctorError::Database(StoreError::Contention(_))));
    drop(unit);
    assert_eq!(ward.found(look()).await.len(), 1);
}

async fn counts_are_mended_while_others_write(board: Board) {
    let ward = Ward::on(board.own_with(|settings| settings.max_connections = 12).await).await;
    let qna = ward.comment.qna;
    let done = AtomicBool::new(false);
    let write = async || {
        let mut kept = 0;
        while !done.load(Ordering::Relaxed) {
            ward.board.comment(qna, &ward.author).await;
            let comment = ward.board.comment(qna, &ward.author).await;
            let delete = async |unit: &dyn UnitOfWork| {
                unit.qnas().count_comments(qna, -1).await?;
                unit.comments().delete(comment.id, comment.version).await
            };
            ward.board.unit(delete).await.unwrap();
            kept += 1;
        }
        kept
    };
    let mend = async || {
        let mut mended = 0;
        for _ in 0..20 {
            let sql = format!("UPDATE qna SET comment_count = comment_count + 10000 WHERE qna_id = {qna}");
            ward.board.sql(&sql).await;
            for line in ward.found(repair()).await {
                assert!(line.starts_with(&format!("qna {qna}: its comment_count is 1")), "{line}");
                mended += 1;
            }
        }
        done.store(true, Ordering::Relaxed);
        mended
    };
    let (kept, mended) = tokio::join!(join_all([write(), write(), write()]), mend());
    assert_eq!(mended, 20);
    assert_eq!(ward.found(look()).await, [""; 0]);
    let count = ward.number(&format!("SELECT comment_count FROM qna WHERE qna_id = {qna}")).await;
    assert_eq!(count, 1 + kept.iter().sum::<i64>());
}

async fn a_row_that_names_nobody_is_told_and_left(board: Board) {
    let ward = Ward::new(&board).await;
    let nobody = 1_i64 << 52;
    for Reference { table, id, column, to, .. } in references() {
        let there = ward.number(&format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL")).await;
        ward.sabotage(&format!("UPDATE {table} SET {column} = {nobody} WHERE {column} IS NOT NULL")).await;
        let lines = ward.found(look()).await;
        let what = format!(
            "its {column} names {to} {nobody}, which is not there: bring that back from a backup, or delete this"
        );
        let row = ward.number(&format!("SELECT {id} FROM {table} WHERE {column} IS NOT NULL")).await;
        assert!(lines.contains(&format!("{table} {row}: {what}")), "{table}.{column}: {lines:#?}");
        // Mended is no more than counts.
        for line in ward.found(repair()).await.iter().filter(|line| line.contains(" names ")) {
            assert!(lines.contains(line), "{line}");
        }
        ward.sabotage(&format!("UPDATE {table} SET {column} = {there} WHERE {column} IS NOT NULL")).await;
        ward.found(repair()).await;
        assert_eq!(ward.found(look()).await, [""; 0], "{table}.{column}");
    }
}

async fn a_row_that_breaks_a_rule_is_told_without_what_it_holds(board: Board) {
    let ward = Ward::new(&board).await;
    let (user, qna, comment) = (ward.author.id, ward.comment.qna, ward.comment.id);
    let image = ward.image.0;
    let (alive, gone) = ("deleted_at IS NULL", "deleted_at IS NOT NULL");
    let deleted = ward.number(&format!("SELECT user_id FROM users WHERE {gone}")).await;
    let secret = "s3cret\u{7}";
    let letter = ward.number("SELECT letter_id FROM outbox WHERE user_id IS NOT NULL").await;
    let audit = ward.number("SELECT audit_id FROM audit").await;
    let cases = [
        ("users", "role", "king", alive, format!("users {user}: role: not_one_of")),
        ("users", "display_name", secret, alive, format!("users {user}: display_name: control_character")),
        ("users", "email", secret, alive, format!("users {user}: email: not_an_email")),
        ("users", "email_key", secret, alive, format!("users {user}: email_key: not that of the email")),
        ("users", "version", "0", alive, format!("users {user}: version: below 1")),
        ("users", "display_name", secret, gone, format!("users {deleted}: deleted, and not forgotten")),
        ("qna", "title", secret, "1 = 1", format!("qna {qna}: title: control_character")),
        ("qna", "content", secret, "1 = 1", format!("qna {qna}: content: control_character")),
        ("qna", "version", "-1", "1 = 1", format!("qna {qna}: version: below 1")),
        ("comment", "content", "", "1 = 1", format!("comment {comment}: content: too_short")),
        ("comment", "version", "0", "1 = 1", format!("comment {comment}: version: below 1")),
        ("image", "media_type", secret, "1 = 1", format!("image {image}: media_type: not a known one")),
        ("image", "width", "-1", "1 = 1", format!("image {image}: width: less than nothing")),
        ("outbox", "topic", secret, "user_id IS NOT NULL", format!("outbox {letter}: topic: not one of ours")),
        ("outbox", "email", secret, "user_id IS NOT NULL", format!("outbox {letter}: email: not_an_email")),
        ("audit", "action", secret, "1 = 1", format!("audit {audit}: action: not_one_of")),
        ("receipt", "email", secret, "idem_key = 'k'", format!("receipt of user {user}: email: not_an_email")),
        ("receipt", "display_name", "", "idem_key = 'k'", format!("receipt of user {user}: display_name: too_short")),
    ];
    for (table, column, value, condition, expected) in cases {
        ward.board.sql("DROP TABLE IF EXISTS kept").await;
        ward.board.sql(&format!("CREATE TABLE kept AS SELECT {column} AS v FROM {table} WHERE {condition}")).await;
        ward.board.sql(&format!("UPDATE {table} SET {column} = '{value}' WHERE {condition}")).await;
        let lines = ward.found(repair()).await;
        assert!(matches!(&*lines, [line] if line.starts_with(&expected)), "{expected}: {lines:?}");
        assert!(lines[0].ends_with("; correct it in the database") && !lines[0].contains("s3cret"), "{lines:?}");
        assert_eq!(ward.found(look()).await, lines);
        ward.board.sql(&format!("UPDATE {table} SET {column} = (SELECT v FROM kept) WHERE {condition}")).await;
        assert_eq!(ward.found(look()).await, [""; 0], "{expected}");
    }
}

/// The rest of what a file of SQLite can hold and the servers cannot.
async fn a_value_that_is_not_of_its_kind_is_told(board: Board) {
    let ward = Ward::new(&board).await;
    if ward.board.store.kind() != DatabaseKind::Sqlite {
        return;
    }
    let second = ward.board.qna(&ward.author).await;
    ward.board
        .sql(&format!("UPDATE qna SET created_at = 's3cret', title = '' WHERE qna_id = {}", ward.comment.qna))
        .await;
    ward.board.sql(&format!("UPDATE qna SET title = '' WHERE qna_id = {}", second.id)).await;
    ward.board.sql("UPDATE sign_in SET family = X'00'").await;
    ward.board.sql("UPDATE receipt SET fingerprint = X'00' WHERE idem_key = 'l'").await;
    ward.board.sql("UPDATE mail_token SET hash = X'00'").await;
    ward.board.sql("UPDATE image SET sha256 = X'00'").await;
    // More than are read at once, none of which can be read.
    let rows = (0..450).map(|n| format!("({}, 'm{n}', {HASH}, 1, 's3cret')", ward.author.id)).collect::<Vec<_>>();
    let insert = "INSERT INTO receipt (claimant, idem_key, fingerprint, created_id, created_at) VALUES";
    ward.board.sql(&format!("{insert} {}", rows.join(", "))).await;
    let sign_in = ward.number("SELECT sign_in_id FROM sign_in").await;
    let (user, todo) = (ward.author.id, "; correct it in the database");
    let expected = vec![
        format!("qna {}: created_at: not of its kind{todo}", ward.comment.qna),
        // What follows such a row is still read.
        format!("qna {}: title: too_short{todo}", second.id),
        format!("image {}: sha256: not 32 bytes{todo}", ward.image.0),
        format!("sign_in {sign_in}: family: not 32 bytes{todo}"),
        format!("receipt of user {user}: fingerprint: not 32 bytes{todo}"),
        format!("mail_token of user {user}: hash: not 32 bytes{todo}"),
    ];
    let (receipts, others): (Vec<_>, Vec<_>) =
        ward.found(look()).await.into_iter().partition(|line| line.contains("created_at") && line.contains("receipt"));
    assert_eq!(others, expected);
    assert_eq!(receipts, vec![format!("receipt of user {user}: created_at: not of its kind{todo}"); 450]);
}

async fn an_image_of_another_s_is_told(board: Board) {
    let ward = Ward::new(&board).await;
    let other = ward.board.user().await;
    ward.board.sql(&format!("UPDATE image SET user_id = {}", other.id)).await;
    let what = "set the user_id of the one that is wrong";
    let comment = ward.comment.id;
    let expected = format!("image {}: it does not belong to who wrote comment {comment}: {what}", ward.image.0);
    assert_eq!(ward.found(repair()).await, [expected]);
}

async fn a_wrong_blob_is_told(board: Board) {
    let ward = Ward::new(&board).await;
    let (image, digest) = ward.image;
    let file = ward.file(digest);
    let quick = Examination { quick: true, ..look() };
    let told = |what: &str| format!("image {image}: its blob {digest} {what}: bring the file back from a backup");
    let write = |content: &[u8]| std::fs::write(&file, content).unwrap();

    let mut other = CONTENT.to_vec();
    other[0] ^= 1;
    write(&other);
    assert_eq!(ward.found(quick).await, [""; 0]);
    assert_eq!(ward.found(repair()).await, [told("holds something else")]);

    for size in [0, CONTENT.len() - 1, CONTENT.len() + 1, 200_000] {
        write(&vec![7; size]);
        let expected = told(&format!("has {size} bytes in place of {}", CONTENT.len()));
        for how in [quick, look(), repair()] {
            assert_eq!(ward.found(how).await, [&*expected]);
        }
    }

    std::fs::remove_file(&file).unwrap();
    for how in [quick, look(), repair()] {
        assert_eq!(ward.found(how).await, [told("is missing")]);
    }

    std::fs::create_dir(&file).unwrap();
    assert_eq!(ward.found(look()).await, [format!("image {image}: its blob {digest} cannot be read (is a directory)")]);
    std::fs::remove_dir(&file).unwrap();

    write(CONTENT);
    assert_eq!(ward.found(look()).await, [""; 0]);
}

async fn a_blob_that_was_set_aside_is_brought_back(board: Board) {
    let ward = Ward::new(&board).await;
    let (image, digest) = ward.image;
    let later = SystemClock.now().plus(TimeDelta::days(1));
    assert!(ward.blobs().set_aside(digest, later).await.unwrap());
    // A sweep that is at it just now.
    assert_eq!(ward.found(look()).await, [""; 0]);
    let what = format!("its blob {digest} was set aside and is shown: a sweep brings it back, or --repair");
    ward.is_mended(look_later(), &format!("image {image}: {what}")).await;
    assert_eq!(std::fs::read(ward.file(digest)).unwrap(), CONTENT);
}

async fn an_image_that_is_deleted_meanwhile_is_no_finding(board: Board) {
    let ward = Ward::new(&board).await;
    std::fs::remove_file(ward.file(ward.image.1)).unwrap();
    let delete = async {
        // Behind the first look, and before the second, which comes a second later.
        tokio::time::sleep(Duration::from_millis(400)).await;
        ward.board.sql("UPDATE comment SET image_count = 0").await;
        ward.board.sql("DELETE FROM image").await;
    };
    let (lines, ()) = tokio::join!(ward.found(look()), delete);
    assert_eq!(lines, [""; 0]);
}

async fn files_in_a_folder_that_is_not_the_board_s_are_left(board: Board) {
    let ward = Ward::new(&board).await;
    let theirs = Digest::of(b"another board's");
    ward.blobs().put(theirs, Arc::new(b"another board's".to_vec())).await.unwrap();
    let elsewhere = BlobFolder::new(ward.folder.path().join("elsewhere"));
    ward.board.store.settle_home(&elsewhere).await.unwrap();
    for how in [look_later(), Examination { repair: true, ..look_later() }] {
        let lines = ward.found(how).await;
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.contains("is another folder than") && line.ends_with("(mended)") == how.repair, "{line}");
        assert!(ward.file(theirs).exists());
    }
}

async fn files_that_nothing_names_are_told_and_put_away(board: Board) {
    let ward = Ward::new(&board).await;
    let stray = Digest::of(b"nobody's");
    ward.blobs().put(stray, Arc::new(b"nobody's".to_vec())).await.unwrap();
    let relative = |path: &Path| path.strip_prefix(ward.folder.path()).unwrap().display().to_string();
    let file = ward.file(stray);
    let what = "no image shows it; the board removes it by and by, if it may write there";
    for _ in 0..2 {
        assert_eq!(ward.found(look_later()).await, [format!("{}: {what}", relative(&file))]);
    }
    let what = "no image shows it; it is set aside, and the board's next sweep removes it (mended)";
    let repair_later = Examination { repair: true, ..look_later() };
    assert_eq!(ward.found(repair_later).await, [format!("{}: {what}", relative(&file))]);
    assert_eq!(ward.found(look()).await, [""; 0]);
    // It is not gone for good, until a day later no sweep has come by.
    let aside = file.with_extension("aside");
    assert_eq!((file.exists(), std::fs::read(&aside).unwrap()), (false, b"nobody's".to_vec()));
    let what = "set aside and not removed: does the board sweep, and may it write there?";
    ward.is_mended(look_later(), &format!("{}: {what}", relative(&aside))).await;
    assert!(!aside.exists());

    let part = file.with_file_name(".0123456789abcdef.part");
    std::fs::write(&part, b"half").unwrap();
    let what = "left by a writer that was killed; the board removes it by and by";
    ward.is_mended(look_later(), &format!("{}: {what}", relative(&part))).await;
    assert!(!part.exists());

    let strange = file.with_file_name("holiday.jpg");
    std::fs::write(&strange, b"!").unwrap();
    let expected = format!("{}: not a file of this board: move it away", relative(&strange));
    for how in [look_later(), repair_later] {
        assert_eq!(ward.found(how).await, [&*expected]);
    }
    assert!(strange.exists());
}

/// Also what stands where folders of the board's do, and above them.
async fn what_is_no_folder_of_the_board_s_is_told_and_stops_nothing(board: Board) {
    let ward = Ward::new(&board).await;
    let blobs = ward.blobs();
    let root = blobs.root();
    let digest = Digest::of(b"nobody's");
    let [shelf, ..] = *digest.as_bytes();
    let shelf_at = format!("{shelf:02x}");
    let no_blob = ward.file(digest);
    for folder in ["zz", "lost+found", &format!("{shelf_at}/zz")] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::create_dir_all(&no_blob).unwrap();
    // A file where a folder of the first level would be.
    let above = format!("{:02x}", shelf.wrapping_add(1));
    let files = [".DS_Store", &*above, "zz/f", &format!("{shelf_at}/.DS_Store"), &format!("{shelf_at}/zz/f")];
    for file in files.into_iter().chain([".abc.part"]) {
        std::fs::write(root.join(file), b"!").unwrap();
    }
    // It is nobody's business to look into what is not the board's.
    let mut expected: Vec<String> =
        [".DS_Store", &above, &format!("{shelf_at}/.DS_Store"), &format!("{shelf_at}/zz/f")]
            .iter()
            .map(|file| format!("images/{file}: not a file of this board: move it away"))
            .collect();
    let no_blob = no_blob.strip_prefix(root).unwrap().display().to_string();
    for folder in ["zz", &no_blob] {
        expected.push(format!("images/{folder}: not a folder of this board: move it away"));
    }
    let part = "images/.abc.part: left by a writer that was killed; the board removes it by and by";
    expected.sort();
    for how in [look_later(), Examination { repair: true, ..look_later() }] {
        let mut found = ward.found(how).await;
        let parts: Vec<String> = found.extract_if(.., |line| line.starts_with(part)).collect();
        assert_eq!(parts, [if how.repair { format!("{part} (mended)") } else { part.to_owned() }]);
        found.sort();
        assert_eq!(found, expected);
    }
    std::fs::write(root.join(".abc.part"), b"half").unwrap();
    for first_byte in 0..=u8::MAX {
        let later = SystemClock.now().plus(TimeDelta::days(2));
        let listed = blobs.list(first_byte, later).await.unwrap();
        assert!(!listed.old.contains(&digest), "a folder is no blob");
    }
    assert!(!root.join(".abc.part").exists());
    assert_eq!(std::fs::read(ward.file(ward.image.1)).unwrap(), CONTENT);
}

async fn a_young_file_that_nothing_names_is_no_finding(board: Board) {
    let ward = Ward::new(&board).await;
    let stray = Digest::of(b"nobody's");
    ward.blobs().put(stray, Arc::new(b"nobody's".to_vec())).await.unwrap();
    std::fs::write(ward.file(stray).with_file_name(".0123456789abcdef.part"), b"half").unwrap();
    for how in [look(), repair()] {
        assert_eq!(ward.found(how).await, [""; 0]);
    }
    assert!(ward.file(stray).exists());
}

async fn a_schema_that_is_not_this_one_is_told(board: Board) {
    let ward = Ward::new(&board).await;
    let db = ward.board.writer();
    mundap_migration::mark(db, "restore").await.unwrap();
    let lines = ward.found(repair()).await;
    assert!(
        matches!(&*lines, [line] if line.starts_with("schema: a restore into the database is running")),
        "{lines:?}"
    );
    mundap_migration::unmark(db).await.unwrap();
    mundap_migration::down(db, 2).await.unwrap();
    let lines = ward.found(repair()).await;
    assert!(matches!(&*lines, [line] if line.starts_with("schema: 2 changes are pending: run")), "{lines:?}");
    mundap_migration::up(db).await.unwrap();
    assert_eq!(ward.found(look()).await, [""; 0]);
}

async fn a_signing_key_that_others_may_read_is_told_and_mended(board: Board) {
    let ward = Ward::new(&board).await;
    let set = |mode| std::fs::set_permissions(ward.key(), std::fs::Permissions::from_mode(mode)).unwrap();
    let shown = ward.key().display().to_string();
    for (mode, kept) in [(0o644, 0o640), (0o660, 0o640), (0o604, 0o600), (0o777, 0o740)] {
        set(mode);
        let what = format!("others may read or change {shown} (its mode is {mode:o}, and should be 600)");
        ward.is_mended(look(), &format!("signing key: {what}")).await;
        assert_eq!(std::fs::metadata(ward.key()).unwrap().permissions().mode() & 0o777, kept);
    }
    for mode in [0o600, 0o400, 0o640] {
        set(mode);
        assert_eq!(ward.found(look()).await, [""; 0], "{mode:o}");
    }
}

async fn a_missing_signing_key_is_told_where_somebody_is_signed_in(board: Board) {
    let ward = Ward::new(&board).await;
    std::fs::write(ward.key(), "no key").unwrap();
    let lines = ward.found(repair()).await;
    assert!(matches!(&*lines, [line] if line.contains("holds no Ed25519 private key")), "{lines:?}");
    std::fs::remove_file(ward.key()).unwrap();
    let lines = ward.found(repair()).await;
    assert!(matches!(&*lines, [line] if line.contains("is missing: bring it back")), "{lines:?}");
    assert!(!ward.key().exists());
    ward.board.sql("DELETE FROM sign_in").await;
    assert_eq!(ward.found(look()).await, [""; 0]);
}

async fn a_key_that_was_left_half_written_is_told_and_removed(board: Board) {
    let ward = Ward::new(&board).await;
    let draft = ward.folder.path().join(".signing-key-0123456789abcdef");
    std::fs::write(&draft, b"-----BEGIN").unwrap();
    // Somebody may be writing it.
    assert_eq!(ward.found(repair()).await, [""; 0]);
    let what = format!("{} was left by a process that was killed while it wrote a key", draft.display());
    ward.is_mended(look_later(), &format!("signing key: {what}")).await;
    assert_eq!((draft.exists(), ward.key().exists()), (false, true));
}

async fn a_damaged_file_is_told_and_not_mended(board: Board) {
    let ward = Ward::new(&board).await;
    if ward.board.store.kind() != DatabaseKind::Sqlite {
        return;
    }
    // An index that does not know of the last row: what is looked up by it is not found.
    let sql = "SELECT sql FROM sqlite_master WHERE name = 'qna_by_author'";
    let db = ward.board.writer();
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap().unwrap();
    let made: String = row.try_get_by_index(0).unwrap();
    let root = ward.number("SELECT rootpage FROM sqlite_master WHERE name = 'qna_by_author'").await;
    db.execute_unprepared("PRAGMA writable_schema = ON").await.unwrap();
    db.execute_unprepared("DELETE FROM sqlite_master WHERE name = 'qna_by_author'").await.unwrap();
    db.execute_unprepared("PRAGMA writable_schema = RESET").await.unwrap();
    ward.board.qna(&ward.author).await;
    db.execute_unprepared("UPDATE qna SET comment_count = 7").await.unwrap();
    db.execute_unprepared("PRAGMA writable_schema = ON").await.unwrap();
    let row = format!("'index', 'qna_by_author', 'qna', {root}, '{made}'");
    db.execute_unprepared(&format!("INSERT INTO sqlite_master VALUES ({row})")).await.unwrap();
    db.execute_unprepared("PRAGMA writable_schema = RESET").await.unwrap();

    let damage = "nothing is mended in a damaged file";
    let (examined, lines) = ward.examined(repair()).await.unwrap();
    assert!(lines.iter().any(|line| line.starts_with("database: ") && line.ends_with(damage)), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("its comment_count is 7")), "{lines:?}");
    assert_eq!(examined.mended, 0);
}
