//! The first program's board brought over while something comes in between: another import, a failure. From a server into
//! a database on it, and into a SQLite file; what comes of a whole import is in the tests of the program.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use mundap_domain::Error;
use mundap_domain::comment::CommentId;
use mundap_domain::image::{BlobStore as _, Digest, ImageCleaner, ImageId, MediaType, Picture, Upload};
use mundap_domain::qna::QnaId;
use mundap_domain::user::{NewUser, Role};
use mundap_infra::{
    BlobFolder, Change, DatabaseSettings, FastApi, ImportError, ImportPlan, ImportReport, Reason, Zone, import,
};
use sea_orm::sqlx::{self, AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, raw_sql};
use sea_orm::{ConnectionTrait as _, Statement};
use tempfile::TempDir;

use crate::board::{Board, at, new_user};

crate::tests![
    of_two_imports_at_once_one_stops_and_no_row_is_lost,
    a_mark_that_another_import_moved_stops_this_one,
    an_interrupted_import_goes_on_where_it_stood,
    what_was_left_out_comes_later_and_only_once,
    what_stood_below_a_row_that_did_not_come_comes_below_no_other,
    what_is_below_a_row_that_is_left_out_is_not_foretold,
    a_row_that_is_left_out_keeps_its_id,
    what_is_written_here_meanwhile_stops_the_import_and_no_row_is_lost,
    what_got_an_id_there_and_came_after_others_comes_later_and_only_once,
    times_that_not_every_database_holds_are_the_nearest_that_each_does,
    the_old_board_is_read_as_it_was_when_it_was_opened,
    ids_that_no_client_could_name_are_left_out,
    a_table_by_comment_that_is_not_understood_is_told,
    an_account_that_is_here_takes_over_what_was_theirs,
    images_keep_their_ids_and_times_and_go_to_who_wrote_the_comment,
];

const TABLES: &str = "
CREATE TABLE users (email VARCHAR(255) NOT NULL PRIMARY KEY, name VARCHAR(100), created_at DATETIME DEFAULT now());
CREATE TABLE qna (qna_id INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY, email VARCHAR(255) NOT NULL, title VARCHAR(255),
    content VARCHAR(255), created_at DATETIME DEFAULT now());
CREATE TABLE comment (comment_id INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY, qna_id INTEGER NOT NULL,
    email VARCHAR(255) NOT NULL, content VARCHAR(255), created_at DATETIME DEFAULT now());
CREATE TABLE image (image_id INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY, comment_id INTEGER NOT NULL, data LONGBLOB);
INSERT INTO users (email) VALUES ('ann@example.com');
INSERT INTO qna (qna_id, email, title) VALUES (1, 'ann@example.com', 'First');
INSERT INTO comment (comment_id, qna_id, email, content) VALUES (1, 1, 'ann@example.com', 'Yes.');";

/// The first program's database, and what a board is imported into.
struct Import {
    old: String,
    new: Board,
    dir: TempDir,
}

impl Import {
    /// Into a database on the server, and into a file; none where the server is SQLite, which no first program has.
    async fn all(board: &Board) -> Vec<Self> {
        let mut all = Vec::new();
        if board.server.is_sqlite() {
            return all;
        }
        for file in [false, true] {
            let old = board.server.new_database().await.url;
            let dir = tempfile::tempdir().unwrap();
            let new = if file {
                let url = format!("sqlite://{}", dir.path().join("new.db").display());
                board.on(&DatabaseSettings::new(url)).await
            } else {
                board.own().await
            };
            let import = Self { old, new, dir };
            import.there(TABLES).await;
            all.push(import);
        }
        all
    }

    /// Runs SQL on the old board.
    async fn there(&self, sql: &str) {
        let mut connection = MySqlConnection::connect(&self.old).await.unwrap();
        connection.execute(raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
        connection.close().await.unwrap();
    }

    /// One more image on the old board's first comment.
    async fn add_image(&self) {
        let mut connection = MySqlConnection::connect(&self.old).await.unwrap();
        let insert = sqlx::query(
            "INSERT INTO image (image_id, comment_id, data) SELECT COALESCE(MAX(image_id), 0) + 1, 1, ? FROM image",
        );
        insert.bind(PICTURE).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn run(&self, cleaner: &dyn ImageCleaner) -> Result<ImportReport, ImportError> {
        self.run_from(&mut FastApi::open(&self.old).await?, cleaner, false).await
    }

    async fn run_from(
        &self,
        source: &mut FastApi,
        cleaner: &dyn ImageCleaner,
        dry_run: bool,
    ) -> Result<ImportReport, ImportError> {
        let blobs = BlobFolder::new(self.dir.path().join("images"));
        let images = Some(self.dir.path().to_owned());
        let plan = ImportPlan { zone: Zone::Asia__Seoul, images, dry_run, cleaner, blobs: &blobs };
        Box::pin(import(&self.new.store, source, &plan)).await
    }

    /// As a dry run foretells it.
    async fn foretold(&self) -> ImportReport {
        let looked = self.run_from(&mut FastApi::open(&self.old).await.unwrap(), &Cleaner, true).await.unwrap();
        let done = self.run(&Cleaner).await.unwrap();
        assert_eq!(looked, done);
        done
    }

    async fn number(&self, sql: &str) -> i64 {
        let db = self.new.writer();
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
        row.unwrap().try_get_by_index(0).unwrap()
    }

    async fn count(&self, from: &str) -> i64 {
        self.number(&format!("SELECT COUNT(*) FROM {from}")).await
    }

    /// Runs `sql` before each row that comes into `table` and that `when` says.
    async fn before_each(&self, table: &str, when: &str, sql: &str) {
        let when_it_is = if self.on_sqlite() {
            format!("WHEN {when} BEGIN {sql}; END")
        } else {
            format!("FOR EACH ROW BEGIN IF {when} THEN {sql}; END IF; END")
        };
        self.new.sql(&format!("CREATE TRIGGER in_between BEFORE INSERT ON {table} {when_it_is}")).await;
    }

    /// Ends the unit that comes so far.
    fn failure(&self) -> &'static str {
        if self.on_sqlite() { "SELECT RAISE(ABORT, 'in between')" } else { "SIGNAL SQLSTATE '45000'" }
    }

    fn on_sqlite(&self) -> bool {
        self.new.store.kind() == mundap_infra::DatabaseKind::Sqlite
    }

    async fn undisturbed(&self) {
        self.new.sql("DROP TRIGGER in_between").await;
    }
}

/// What the cleaner here takes for one.
const PICTURE: &[u8] = b"a picture";

/// Takes everything for a picture as it is.
struct Cleaner;

#[async_trait]
impl ImageCleaner for Cleaner {
    async fn clean(&self, upload: Upload) -> Result<Picture, Error> {
        let content = upload.as_bytes().to_vec().into();
        Ok(Picture { media_type: MediaType::Png, width: 3, height: 2, content })
    }
}

/// Does something else before the first picture.
struct Meanwhile<'a>(Mutex<Option<BoxFuture<'a, ()>>>);

impl<'a> Meanwhile<'a> {
    fn does(something: impl Future<Output = ()> + Send + 'a) -> Self {
        Self(Mutex::new(Some(Box::pin(something))))
    }
}

#[async_trait]
impl ImageCleaner for Meanwhile<'_> {
    async fn clean(&self, upload: Upload) -> Result<Picture, Error> {
        let something = self.0.lock().unwrap().take();
        if let Some(something) = something {
            something.await;
        }
        Cleaner.clean(upload).await
    }
}

/// Fails at the picture that comes after so many.
struct FailsAfter(AtomicUsize);

#[async_trait]
impl ImageCleaner for FailsAfter {
    async fn clean(&self, upload: Upload) -> Result<Picture, Error> {
        let goes_on = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if goes_on { Cleaner.clean(upload).await } else { Err(Error::Busy("full".into())) }
    }
}

/// The one is at its next image when the other begins, and brings more of them than the one knows of.
async fn of_two_imports_at_once_one_stops_and_no_row_is_lost(board: Board) {
    for import in Import::all(&board).await {
        // First where no import was before, then where one was.
        for (first, images) in [(true, 2), (false, 4)] {
            import.add_image().await;
            let other = Meanwhile::does(async {
                import.add_image().await;
                let report = import.run(&Cleaner).await.unwrap();
                assert_eq!(report.image.imported, 2);
            });
            let stopped = import.run(&other).await;
            assert!(matches!(stopped, Err(ImportError::NotAlone)), "{first}: {stopped:?}");
            // What the one knew is older than what the other did, and changes nothing of it.
            assert_eq!(import.number("SELECT last_id FROM import_mark WHERE source_table = 'image'").await, images);
            let again = import.run(&Cleaner).await.unwrap();
            assert_eq!((again.image.imported, again.image.there), (0, u64::try_from(images).unwrap()));
            assert_eq!((import.count("image").await, import.count("qna").await), (images, 1));
            assert_eq!(import.number("SELECT image_count FROM comment").await, images);
        }
    }
}

async fn a_mark_that_another_import_moved_stops_this_one(board: Board) {
    for import in Import::all(&board).await {
        import.run(&Cleaner).await.unwrap();
        import
            .there(
                "INSERT INTO qna (qna_id, email, title) VALUES (2, 'ann@example.com', 'Second'), (3, 'ann@example.com', 'Third');
                 INSERT INTO comment (comment_id, qna_id, email) VALUES (2, 2, 'ann@example.com'), (3, 3, 'ann@example.com');",
            )
            .await;
        for (table, here) in [("qna", 1), ("comment", 1)] {
            let moved = format!("UPDATE import_mark SET last_id = 2 WHERE source_table = '{table}'");
            import.before_each(table, "TRUE", &moved).await;
            let stopped = import.run(&Cleaner).await;
            assert!(matches!(stopped, Err(ImportError::NotAlone)), "{table}: {stopped:?}");
            assert_eq!(import.count(table).await, here, "the unit that met another left nothing");
            import.undisturbed().await;
        }
        let report = import.run(&Cleaner).await.unwrap();
        assert_eq!((report.qna.there, report.qna.imported, report.comment.imported), (3, 0, 2));
    }
}

async fn an_interrupted_import_goes_on_where_it_stood(board: Board) {
    let many = "
        INSERT INTO qna (qna_id, email, title) SELECT n + 1, 'ann@example.com', 'One of many' FROM
            (WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 899) SELECT n FROM s) s;
        INSERT INTO comment (comment_id, qna_id, email, content) SELECT n + 1, 1 + n % 3, 'ann@example.com', 'C' FROM
            (WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 899) SELECT n FROM s) s;";
    for import in Import::all(&board).await {
        import.there(many).await;
        for _ in 0..4 {
            import.add_image().await;
        }
        // Batches have 500 rows: the second one fails, as where the power does.
        for (table, id) in [("qna", "qna_id"), ("comment", "comment_id")] {
            import.before_each(table, &format!("NEW.{id} = 700"), import.failure()).await;
            let stopped = import.run(&Cleaner).await;
            assert!(matches!(stopped, Err(ImportError::Stopped(_))), "{table}: {stopped:?}");
            assert_eq!(import.count(table).await, 500, "{table}");
            import.undisturbed().await;
        }
        assert_eq!(import.count("qna").await, 900);
        assert_eq!(import.number("SELECT CAST(SUM(comment_count) AS SIGNED) FROM qna").await, 500);
        let stopped = import.run(&FailsAfter(AtomicUsize::new(3))).await;
        assert!(matches!(stopped, Err(ImportError::Stopped(Error::Busy(_)))), "{stopped:?}");
        assert_eq!(import.count("image").await, 3);

        let report = import.run(&Cleaner).await.unwrap();
        let image = import.new.reader().images().find(ImageId::new(4)).await.unwrap().unwrap();
        assert_eq!(report.qna.imported + report.comment.imported, 0);
        assert_eq!((report.qna.there, report.comment.there), (900, 900));
        assert_eq!((report.image.there, report.image.imported), (3, 1));
        assert_eq!(import.number("SELECT CAST(SUM(comment_count) AS SIGNED) FROM qna").await, 900);
        assert_eq!(import.number("SELECT image_count FROM comment WHERE comment_id = 1").await, 4);
        let commented = import.new.reader().comments().find(image.comment).await.unwrap().unwrap().created_at;
        assert_eq!(image.created_at, commented, "a table of images without times");
    }
}

async fn what_was_left_out_comes_later_and_only_once(board: Board) {
    let comment =
        |id: u8| format!("INSERT INTO comment (comment_id, qna_id, email) VALUES ({id}, 9, 'ann@example.com')");
    for import in Import::all(&board).await {
        import.there(&comment(5)).await;
        assert_eq!(import.foretold().await.comment.left_out[&Reason::NoQuestion], ["5"]);
        import.there("INSERT INTO qna (qna_id, email, title) VALUES (9, 'ann@example.com', 'Here')").await;
        assert_eq!(import.foretold().await.comment.imported, 1);
        // From then on it is this board's, as any other, and so is what would stand below it.
        import.new.sql("DELETE FROM comment WHERE comment_id = 5").await;
        import.there("INSERT INTO image VALUES (3, 5, 'bytes')").await;
        let report = import.foretold().await;
        assert_eq!((report.comment.imported, report.comment.deleted_here, import.count("comment").await), (0, 1, 1));
        assert_eq!(report.image.left_out[&Reason::NoComment], ["3"]);
        import.new.sql("DELETE FROM qna WHERE qna_id = 9").await;
        import.there(&comment(6)).await;
        assert_eq!(import.foretold().await.comment.left_out[&Reason::QuestionGoneHere], ["6"]);
    }
}

/// A new row here gets the id behind the highest one that came: of an old one that was left out, or was deleted there.
async fn what_stood_below_a_row_that_did_not_come_comes_below_no_other(board: Board) {
    let old = "
        ALTER TABLE qna MODIFY content MEDIUMTEXT;
        ALTER TABLE comment MODIFY content MEDIUMTEXT;
        INSERT INTO qna (qna_id, email, title, content) VALUES (2, 'ann@example.com', 'Long', REPEAT('a', 20001)),
            (4, 'ann@example.com', 'Long', REPEAT('a', 20001));
        INSERT INTO comment (comment_id, qna_id, email, content) VALUES (2, 2, 'ann@example.com', 'Below what is left out'),
            (3, 3, 'ann@example.com', 'Below what is in a gap'), (5, 5, 'ann@example.com', 'Below what was deleted'),
            (6, 1, 'ann@example.com', REPEAT('a', 20001));
        INSERT INTO image VALUES (1, 6, 'bytes'), (2, 4, 'bytes'), (3, 7, 'bytes')";
    for import in Import::all(&board).await {
        import.there(old).await;
        let is_left = |report: &ImportReport, comments: &[&str]| {
            assert_eq!(report.comment.left_out[&Reason::QuestionGoneHere], ["2"]);
            assert_eq!(report.comment.left_out[&Reason::NoQuestion], comments);
            assert_eq!(report.image.left_out[&Reason::NoComment], ["1", "2", "3"]);
        };
        is_left(&import.run(&Cleaner).await.unwrap(), &["3", "5"]);
        let user = import.new.user().await.id;
        let time = "'2026-01-02 03:04:05'";
        for id in 2..=5 {
            import
                .new
                .sql(&format!(
                    "INSERT INTO qna (qna_id, user_id, title, content, created_at, updated_at)
                     VALUES ({id}, {user}, 'New', '', {time}, {time})"
                ))
                .await;
        }
        for id in [4, 6, 7] {
            import
                .new
                .sql(&format!(
                    "INSERT INTO comment (comment_id, qna_id, user_id, content, created_at, updated_at)
                     VALUES ({id}, 1, {user}, 'New', {time}, {time})"
                ))
                .await;
        }
        let again = import.run(&Cleaner).await.unwrap();
        assert_eq!(import.count("comment WHERE qna_id > 1").await, 0, "{again:?}");
        assert_eq!(import.count("image").await, 0, "{again:?}");
        is_left(&again, &["3", "5"]);
        assert_eq!(import.foretold().await, again);
    }
}

/// Also where it is the last one, and no row that came has a higher id.
async fn a_row_that_is_left_out_keeps_its_id(board: Board) {
    let old = "
        ALTER TABLE qna MODIFY content MEDIUMTEXT;
        INSERT INTO qna (qna_id, email, title, content) VALUES (700, 'ann@example.com', 'Long', REPEAT('a', 20001))";
    for import in Import::all(&board).await {
        import.there(old).await;
        assert_eq!(import.foretold().await.qna.left_out.len(), 1);
        let user = import.new.user().await;
        assert!(import.new.qna(&user).await.id.get() > 700);
        import.there("UPDATE qna SET content = 'Short' WHERE qna_id = 700").await;
        assert_eq!(import.foretold().await.qna.imported, 1);
        assert_eq!(import.count("qna WHERE qna_id = 700 AND content = 'Short'").await, 1);
        assert!(import.new.qna(&user).await.id.get() > 701);
    }
}

async fn what_is_below_a_row_that_is_left_out_is_not_foretold(board: Board) {
    let old = "
        ALTER TABLE qna MODIFY qna_id BIGINT, MODIFY content MEDIUMTEXT;
        ALTER TABLE comment MODIFY qna_id BIGINT, MODIFY content MEDIUMTEXT;
        INSERT INTO qna (qna_id, email, title, content) VALUES (2, 'ann@example.com', 'Long', REPEAT('a', 20001)),
            (4503599627370496, 'ann@example.com', 'Far', '');
        INSERT INTO comment (comment_id, qna_id, email, content) VALUES (2, 2, 'ann@example.com', 'Below it'),
            (3, 4503599627370496, 'ann@example.com', 'Below it'), (4, 1, 'ann@example.com', REPEAT('a', 20001));
        INSERT INTO image VALUES (1, 3, 'bytes'), (2, 4, 'bytes')";
    for import in Import::all(&board).await {
        import.there(old).await;
        for imported in [1, 0] {
            let report = import.foretold().await;
            assert_eq!((report.comment.imported, report.image.imported), (imported, 0));
            assert_eq!(report.comment.left_out[&Reason::QuestionGoneHere], ["2", "3"]);
            assert_eq!(report.image.left_out[&Reason::NoComment], ["1", "2"]);
        }
    }
}

/// It was not there yet when the import looked: people are brought first, and bring it along.
async fn what_is_written_here_meanwhile_stops_the_import_and_no_row_is_lost(board: Board) {
    let many = "
        INSERT INTO qna (qna_id, email, title) SELECT n + 1, 'ann@example.com', 'One of many' FROM
            (WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 899) SELECT n FROM s) s;";
    for import in Import::all(&board).await {
        import.there(many).await;
        // Batches have 500 rows: the first one meets it, then the second.
        for (id, who, brought) in [(1, "bob@example.com", 0), (700, "cho@example.com", 500)] {
            import.there(&format!("INSERT INTO users (email) VALUES ('{who}')")).await;
            let asked = format!(
                "INSERT INTO qna (qna_id, user_id, title, content, created_at, updated_at)
                 VALUES ({id}, NEW.user_id, 'Meanwhile', '', '2026-01-02 03:04:05', '2026-01-02 03:04:05')"
            );
            let nobody_did = format!("NOT EXISTS (SELECT 1 FROM qna WHERE qna_id = {id})");
            import.before_each("import_user", &nobody_did, &asked).await;
            let stopped = import.run(&Cleaner).await.unwrap_err().to_string();
            import.undisturbed().await;
            let expected = format!("the import stopped: qna {id} of this board");
            assert!(stopped.starts_with(&expected), "{stopped}");
            assert_eq!(import.count("qna").await, brought + 1, "{stopped}");
            let mark = "SELECT COALESCE(MAX(last_id), 0) FROM import_mark WHERE source_table = 'qna'";
            assert_eq!(import.number(mark).await, brought);
            let refused = import.run(&Cleaner).await;
            assert!(matches!(refused, Err(ImportError::Taken { table: "qna", .. })), "{refused:?}");
            import.new.sql(&format!("DELETE FROM qna WHERE qna_id = {id}")).await;
        }
        let report = import.run(&Cleaner).await.unwrap();
        assert_eq!((report.qna.there, report.qna.imported, report.qna.deleted_here), (500, 400, 0));
        assert_eq!((report.comment.imported, import.count("qna").await), (1, 900));
    }
}

/// As where the old program had a transaction open while rows with higher ids were committed, and imported.
async fn what_got_an_id_there_and_came_after_others_comes_later_and_only_once(board: Board) {
    let question =
        |id: i64| format!("INSERT INTO qna (qna_id, email, title) VALUES ({id}, 'ann@example.com', 'Late');");
    let comment = |id: i64, of: i64| {
        format!("INSERT INTO comment (comment_id, qna_id, email) VALUES ({id}, {of}, 'ann@example.com');")
    };
    for import in Import::all(&board).await {
        import.there(&[question(3), question(9), comment(6, 3)].concat()).await;
        import.there("INSERT INTO image VALUES (5, 1, 'bytes')").await;
        assert!(import.foretold().await.is_whole());
        // Each in a gap below what came: at an end of it, in the middle, and one of a gap's own.
        import.there(&[question(2), question(4), question(6), comment(2, 2), comment(3, 99)].concat()).await;
        import.there("INSERT INTO image VALUES (2, 2, 'bytes'), (4, 1, 'bytes')").await;
        let report = import.foretold().await;
        assert_eq!((report.qna.imported, report.qna.there, report.qna.deleted_here), (3, 3, 0));
        assert_eq!((report.comment.imported, report.image.imported), (1, 2));
        assert_eq!(report.comment.left_out[&Reason::NoQuestion], ["3"]);

        // What came so is this board's, as any other; what is beside it may still come.
        import.new.sql("DELETE FROM qna WHERE qna_id IN (4, 6)").await;
        import.there(&[question(5), question(7), question(8), question(99)].concat()).await;
        let report = import.foretold().await;
        assert_eq!((report.qna.imported, report.qna.there, report.qna.deleted_here), (4, 4, 2));
        assert_eq!((report.comment.imported, report.comment.there), (1, 3));
        let again = import.foretold().await;
        assert_eq!((again.qna.imported, again.qna.there, again.qna.deleted_here), (0, 8, 2));
        assert_eq!((again.comment.there, again.image.there, again.is_whole()), (4, 3, true));
    }
}

async fn times_that_not_every_database_holds_are_the_nearest_that_each_does(board: Board) {
    let old = "
        SET sql_mode = '';
        INSERT INTO qna VALUES (4, 'ann@example.com', 'Before Christ in Korea', '', '0000-01-01 00:00:00');";
    for import in Import::all(&board).await {
        import.there(old).await;
        let report = import.foretold().await;
        let qna = import.new.reader().qnas().find(QnaId::new(4)).await.unwrap().unwrap();
        assert_eq!((qna.created_at, report.qna.changed.len()), (at("1000-01-01T00:00:00Z"), 1));
        assert_eq!(import.run(&Cleaner).await.unwrap().qna.there, 2);
        // One that an earlier version brought as it was is the same row, where the database holds it.
        if import.on_sqlite() {
            import.new.sql("UPDATE qna SET created_at = '-0001-12-31 15:00:00' WHERE qna_id = 4").await;
            assert_eq!(import.run(&Cleaner).await.unwrap().qna.there, 2);
        }
    }
}

async fn the_old_board_is_read_as_it_was_when_it_was_opened(board: Board) {
    for import in Import::all(&board).await {
        let mut source = FastApi::open(&import.old).await.unwrap();
        import.there("INSERT INTO qna (email, title) VALUES ('ann@example.com', 'A moment later')").await;
        let report = import.run_from(&mut source, &Cleaner, false).await.unwrap();
        assert_eq!((report.qna.read, import.count("qna").await), (1, 1));
        assert_eq!(import.run(&Cleaner).await.unwrap().qna.imported, 1);
    }
}

async fn ids_that_no_client_could_name_are_left_out(board: Board) {
    let odd = "
        ALTER TABLE qna MODIFY qna_id BIGINT;
        SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';
        INSERT INTO qna (qna_id, email) VALUES (-1, 'ann@example.com'), (0, 'ann@example.com'),
            (4503599627370495, 'ann@example.com'), (4503599627370496, 'ann@example.com'), (9007199254740992, 'ann@example.com');";
    for import in Import::all(&board).await {
        import.there(odd).await;
        for imported in [2, 0] {
            let report = import.foretold().await;
            assert_eq!(
                report.qna.left_out[&Reason::BadId],
                ["-1", "0", "4503599627370496", "9007199254740992"],
                "each time"
            );
            assert_eq!((report.qna.imported, import.count("qna").await), (imported, 2));
        }
    }
}

async fn a_table_by_comment_that_is_not_understood_is_told(board: Board) {
    for import in Import::all(&board).await {
        assert!(import.foretold().await.is_whole());
        import.there("CREATE TABLE likes (like_id INTEGER PRIMARY KEY, comment_id INTEGER)").await;
        let report = import.foretold().await;
        assert_eq!(report.unknown.iter().map(|(table, _)| table.as_str()).collect::<Vec<_>>(), ["likes"]);
        assert!(!report.is_whole());
    }
}

async fn an_account_that_is_here_takes_over_what_was_theirs(board: Board) {
    for import in Import::all(&board).await {
        import.there("INSERT INTO qna (qna_id, email, title) VALUES (7, 'ghost@example.com', 'From nowhere')").await;
        let new = NewUser { role: Role::Moderator, ..new_user("Ann@example.com") };
        let ann = import.new.unit(async |unit| unit.users().insert(&new).await).await.unwrap();
        let report = import.run(&Cleaner).await.unwrap();
        assert_eq!((report.users.imported, report.users.there), (0, 1));
        assert_eq!(report.users.changed, [(Change::AccountThere, vec!["ann@example.com".to_owned()])].into());
        assert_eq!(report.qna.changed[&Change::NoAccount], ["7"]);
        let author = async |id| import.new.reader().qnas().find(QnaId::new(id)).await.unwrap().unwrap().author.id;
        assert_eq!(author(1).await, ann.id);
        assert_eq!(import.new.reader().users().find(ann.id).await.unwrap(), Some(ann));
        // Nobody gets more than a member's rights by an import.
        let ghost = import.new.reader().users().find(author(7).await).await.unwrap().unwrap();
        assert_eq!((ghost.email.as_str(), ghost.role), ("ghost@example.com", Role::Member));
        assert_eq!(import.count("users").await, 2);
        // They are known from then on.
        let again = import.run(&Cleaner).await.unwrap();
        assert_eq!((again.users.there, again.users.changed.len()), (1, 0));
    }
}

async fn images_keep_their_ids_and_times_and_go_to_who_wrote_the_comment(board: Board) {
    let photos = "
        DROP TABLE image;
        CREATE TABLE photo (photo_id INTEGER PRIMARY KEY, comment_id INTEGER, data BLOB, path VARCHAR(99),
            created_at DATETIME);
        INSERT INTO users (email) VALUES ('bob@example.com');
        INSERT INTO comment (comment_id, qna_id, email, content, created_at)
            VALUES (5, 1, 'bob@example.com', 'No.', '2024-01-02 09:00:00');
        INSERT INTO photo VALUES (7, 5, 'bytes', NULL, '2024-02-03 09:00:00'), (9, 5, '', 'static/a.png', NULL),
            (10, 5, NULL, ' ', NULL), (12, 99, 'bytes', NULL, NULL);
        INSERT INTO photo (photo_id, comment_id, data) SELECT n, 1, 'bytes' FROM
            (WITH RECURSIVE s AS (SELECT 20 n UNION ALL SELECT n + 1 FROM s WHERE n < 30) SELECT n FROM s) s;";
    for import in Import::all(&board).await {
        import.there(photos).await;
        std::fs::write(import.dir.path().join("a.png"), PICTURE).unwrap();
        let report = import.run(&Cleaner).await.unwrap();
        let comments = import.new.reader().comments().find(CommentId::new(5)).await.unwrap().unwrap();
        let image = async |id| import.new.reader().images().find(ImageId::new(id)).await.unwrap().unwrap();
        let (own, of_its_comment) = (image(7).await, image(9).await);
        assert_eq!(own.created_at, at("2024-02-03T00:00:00Z"));
        assert_eq!(of_its_comment.created_at, at("2024-01-02T00:00:00Z"));
        assert_eq!((own.owner, of_its_comment.owner), (comments.author.id, comments.author.id));
        assert_eq!(of_its_comment.digest, Digest::of(PICTURE));
        assert_eq!(report.image.left_out[&Reason::NeitherBytesNorPath], ["10"]);
        assert_eq!(report.image.left_out[&Reason::NoComment], ["12"]);
        // A comment has ten images, as everywhere.
        assert_eq!((image(20).await.comment, image(29).await.comment), (CommentId::new(1), CommentId::new(1)));
        assert_eq!(report.image.left_out[&Reason::CommentFull], ["30"]);
        assert_eq!((report.image.read, report.image.imported), (15, 12));
        let blob = BlobFolder::new(import.dir.path().join("images")).read(own.digest, 0, 99).await.unwrap();
        assert_eq!(blob.as_deref(), Some(&b"bytes"[..]));
    }
}
