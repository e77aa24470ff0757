//! The first program's database, read and never written: one connection, one consistent snapshot.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sea_orm::sqlx::mysql::{MySqlConnection, MySqlRow};
use sea_orm::sqlx::{self, AssertSqlSafe, Executor as _, Row as _};

use super::ImportError;
use crate::DatabaseSettings;
use crate::probe::connect_once;

/// The first program's board.
pub struct FastApi {
    connection: MySqlConnection,
    pub(super) schema: Schema,
    clock: String,
}

/// What is there of the tables that the first program has, found by their columns.
#[derive(Debug)]
pub(super) struct Schema {
    users: Option<Users>,
    qna: Board,
    comment: Option<Board>,
    pub(super) image: Option<Images>,
    /// Tables by comment that are not understood, and why.
    pub(super) unknown: Vec<(String, &'static str)>,
}

#[derive(Debug)]
struct Users {
    table: String,
    name: Option<String>,
    created_at: Option<When>,
}

/// `qna`, or `comment`.
#[derive(Debug)]
struct Board {
    table: String,
    title: Option<String>,
    content: Option<String>,
    created_at: Option<When>,
}

#[derive(Debug)]
pub(super) struct Images {
    pub(super) table: String,
    id: String,
    bytes: Option<String>,
    path: Option<String>,
    created_at: Option<When>,
}

#[derive(Clone, Copy, Debug)]
struct When {
    /// TIMESTAMP: the database knows the instant.
    is_utc: bool,
}

/// A row of `users`.
#[derive(Debug)]
pub(super) struct OldUser {
    pub(super) email: String,
    pub(super) name: Option<String>,
    pub(super) created_at: OldTime,
}

/// A time as MySQL writes it.
#[derive(Clone, Debug, Default)]
pub(super) struct OldTime {
    pub(super) text: Option<String>,
    pub(super) is_utc: bool,
}

/// A row of `qna`, or of `comment`.
#[derive(Debug)]
pub(super) struct OldPost {
    pub(super) id: i64,
    pub(super) email: String,
    pub(super) title: Option<String>,
    pub(super) content: Option<String>,
    pub(super) created_at: OldTime,
    /// Of a comment: its question.
    pub(super) qna: i64,
    /// Whether the old board still has that question.
    pub(super) has_qna: bool,
}

impl OldPost {
    pub(super) fn size(&self) -> usize {
        [&self.title, &self.content].into_iter().flatten().map(String::len).sum::<usize>() + 200
    }
}

/// A row of the table of images.
#[derive(Debug)]
pub(super) struct OldImage {
    pub(super) id: i64,
    pub(super) comment: i64,
    /// Whether the old board still has that comment.
    pub(super) has_comment: bool,
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) path: Option<String>,
    pub(super) created_at: OldTime,
}

/// Columns that hold a person's name, the likeliest first.
const NAMES: [&str; 6] = ["name", "display_name", "username", "user_name", "nickname", "full_name"];
/// Columns that hold where an image is, the likeliest first.
const PATHS: [&str; 13] = [
    "path",
    "file_path",
    "filepath",
    "image_path",
    "url",
    "image_url",
    "file_url",
    "filename",
    "file_name",
    "file",
    "image",
    "src",
    "location",
];
const BYTES: [&str; 5] = ["tinyblob", "blob", "mediumblob", "longblob", "varbinary"];
const TEXTS: [&str; 6] = ["char", "varchar", "tinytext", "text", "mediumtext", "longtext"];
const INTEGERS: [&str; 5] = ["tinyint", "smallint", "mediumint", "int", "bigint"];

/// A table's columns with their types and whether they are its primary key.
type Columns = HashMap<String, (String, bool)>;

impl FastApi {
    /// Opens the database that `url` names, for reading alone, as it is now.
    ///
    /// # Errors
    /// [`ImportError::Connect`], [`ImportError::NotTheFirstProgram`].
    pub async fn open(url: &str) -> Result<Self, ImportError> {
        let settings = DatabaseSettings::new(url);
        let mut connection = connect_once(&settings).await?;
        // An old server may end a reader that writes elsewhere between two rows.
        for sql in [
            "SET SESSION net_write_timeout = 3600, time_zone = '+00:00', sql_mode = ''",
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ] {
            connection.execute(sql).await?;
        }
        let clock = sqlx::query_scalar("SELECT CONCAT(@@global.time_zone, ' (', @@system_time_zone, ')')");
        let clock = clock.fetch_one(&mut connection).await?;
        let schema = Schema::read(&mut connection).await?;
        Ok(Self { connection, schema, clock })
    }

    /// The time zone that the server says it is in, such as `SYSTEM (KST)`: what its `NOW()` showed, unless somebody has
    /// set it anew since.
    #[must_use]
    pub fn clock(&self) -> &str {
        &self.clock
    }

    pub(super) fn users(&mut self) -> Rows<'_, OldUser> {
        let Some(Users { table, name, created_at }) = &self.schema.users else { return Rows::none() };
        let is_utc = created_at.is_some_and(|when| when.is_utc);
        let sql = format!(
            "SELECT {email}, {name}, {created_at} FROM {table} ORDER BY email",
            email = text("email"),
            name = name.as_deref().map_or_else(null, text),
            created_at = time(created_at.as_ref()),
            table = quoted(table),
        );
        Rows::of(&mut self.connection, sql, move |row| {
            Ok(OldUser {
                email: row.try_get::<Option<String>, _>(0)?.unwrap_or_default(),
                name: row.try_get(1)?,
                created_at: OldTime { text: row.try_get(2)?, is_utc },
            })
        })
    }

    pub(super) fn qnas(&mut self) -> Rows<'_, OldPost> {
        let sql = self.schema.qna.select("qna_id", "0, 1");
        let is_utc = self.schema.qna.is_utc();
        Rows::of(&mut self.connection, sql, move |row| post(row, is_utc))
    }

    pub(super) fn comments(&mut self) -> Rows<'_, OldPost> {
        let Some(comment) = &self.schema.comment else { return Rows::none() };
        let qna = format!(
            "CAST(t.qna_id AS SIGNED), EXISTS(SELECT 1 FROM {} q WHERE q.qna_id = t.qna_id)",
            quoted(&self.schema.qna.table)
        );
        let (sql, is_utc) = (comment.select("comment_id", &qna), comment.is_utc());
        Rows::of(&mut self.connection, sql, move |row| post(row, is_utc))
    }

    pub(super) fn images(&mut self) -> Rows<'_, OldImage> {
        let Some(Images { table, id, bytes, path, created_at }) = &self.schema.image else { return Rows::none() };
        let is_utc = created_at.is_some_and(|when| when.is_utc);
        let sql = format!(
            "SELECT CAST({id} AS SIGNED), CAST(comment_id AS SIGNED), {bytes}, {path}, {created_at}, {has_comment} FROM {table} ORDER BY {id}",
            id = quoted(id),
            bytes = bytes.as_deref().map_or_else(null, quoted),
            path = path.as_deref().map_or_else(null, text),
            created_at = time(created_at.as_ref()),
            has_comment = self.schema.comment.as_ref().map_or_else(
                || "0".to_owned(),
                |comment| format!(
                    "EXISTS(SELECT 1 FROM {} c WHERE c.comment_id = {}.comment_id)",
                    quoted(&comment.table),
                    quoted(table)
                )
            ),
            table = quoted(table),
        );
        Rows::of(&mut self.connection, sql, move |row| {
            Ok(OldImage {
                id: row.try_get(0)?,
                comment: row.try_get::<Option<i64>, _>(1)?.unwrap_or_default(),
                bytes: row.try_get(2)?,
                path: row.try_get(3)?,
                created_at: OldTime { text: row.try_get(4)?, is_utc },
                has_comment: row.try_get::<i64, _>(5)? != 0,
            })
        })
    }
}

fn post(row: &MySqlRow, is_utc: bool) -> Result<OldPost, sqlx::Error> {
    Ok(OldPost {
        id: row.try_get(0)?,
        email: row.try_get::<Option<String>, _>(1)?.unwrap_or_default(),
        title: row.try_get(2)?,
        content: row.try_get(3)?,
        created_at: OldTime { text: row.try_get(4)?, is_utc },
        qna: row.try_get::<Option<i64>, _>(5)?.unwrap_or_default(),
        has_qna: row.try_get::<i64, _>(6)? != 0,
    })
}

/// Rows as they come, not all at once.
pub(super) struct Rows<'a, T> {
    stream: Option<BoxStream<'a, Result<T, sqlx::Error>>>,
}

impl<'a, T: Send + 'a> Rows<'a, T> {
    fn none() -> Self {
        Self { stream: None }
    }

    fn of(
        connection: &'a mut MySqlConnection,
        sql: String,
        read: impl Fn(&MySqlRow) -> Result<T, sqlx::Error> + Send + 'a,
    ) -> Self {
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch(connection);
        Self { stream: Some(Box::pin(rows.and_then(move |row| std::future::ready(read(&row))))) }
    }

    pub(super) async fn next(&mut self) -> Result<Option<T>, ImportError> {
        match &mut self.stream {
            Some(stream) => Ok(stream.try_next().await?),
            None => Ok(None),
        }
    }

    /// The next rows: at most [`BATCH`](Self::BATCH), and about a megabyte; none at the end.
    pub(super) async fn batch(&mut self, size: impl Fn(&T) -> usize) -> Result<Vec<T>, ImportError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < Self::BATCH && bytes < Self::BYTES {
            let Some(row) = self.next().await? else { break };
            bytes += size(&row);
            rows.push(row);
        }
        Ok(rows)
    }

    const BATCH: usize = 500;
    const BYTES: usize = 1 << 20;
}

impl Board {
    fn of(table: String, columns: &Columns) -> Self {
        let text = |name: &str| columns.get(name).map(|_| name.to_owned());
        Self { title: text("title"), content: text("content"), created_at: When::of(columns), table }
    }

    fn is_utc(&self) -> bool {
        self.created_at.is_some_and(|when| when.is_utc)
    }

    fn select(&self, id: &str, qna: &str) -> String {
        let column = |name: &Option<String>| name.as_deref().map_or_else(null, text);
        format!(
            "SELECT CAST(t.{id} AS SIGNED), {email}, {title}, {content}, {created_at}, {qna} FROM {table} t ORDER BY t.{id}",
            email = text("email"),
            title = column(&self.title),
            content = column(&self.content),
            created_at = time(self.created_at.as_ref()),
            table = quoted(&self.table),
        )
    }
}

impl When {
    fn of(columns: &Columns) -> Option<Self> {
        columns.get("created_at").map(|(kind, _)| Self { is_utc: kind == "timestamp" })
    }
}

impl Schema {
    async fn read(connection: &mut MySqlConnection) -> Result<Self, ImportError> {
        // Cast: MySQL gives some of these as bytes.
        let sql = "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR), LOWER(CAST(data_type AS CHAR)),
                          CAST(column_key AS CHAR) = 'PRI'
                   FROM information_schema.columns WHERE table_schema = DATABASE()";
        let mut tables: HashMap<String, Columns> = HashMap::new();
        for row in sqlx::query(sql).fetch_all(connection).await? {
            let column: String = row.try_get(1)?;
            let about = (row.try_get(2)?, row.try_get::<i64, _>(3)? != 0);
            tables.entry(row.try_get(0)?).or_default().insert(column.to_lowercase(), about);
        }
        Self::of(tables)
    }

    fn of(mut tables: HashMap<String, Columns>) -> Result<Self, ImportError> {
        let mut take = |names: &[&str], wanted: &[&str]| {
            let has_all = |columns: &Columns| wanted.iter().all(|column| columns.contains_key(*column));
            let name = names.iter().find(|name| tables.get(**name).is_some_and(has_all))?;
            tables.remove_entry(*name)
        };
        let Some((qna, columns)) = take(&["qna"], &["qna_id", "email", "title"]) else {
            return Err(ImportError::NotTheFirstProgram);
        };
        let qna = Board::of(qna, &columns);
        let comment = take(&["comment", "comments"], &["comment_id", "qna_id", "email"]);
        let users = take(&["users", "user"], &["email"]).map(|(table, columns)| Users {
            name: NAMES.into_iter().find(|name| columns.contains_key(*name)).map(str::to_owned),
            created_at: When::of(&columns),
            table,
        });
        let (mut image, mut unknown) = (None, Vec::new());
        let mut rest: Vec<_> = tables.into_iter().filter(|(_, columns)| columns.contains_key("comment_id")).collect();
        rest.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (table, columns) in rest {
            match Images::of(&table, &columns) {
                Ok(found) if image.is_none() => image = Some(found),
                Ok(_) => unknown.push((table, "another table of images was taken")),
                Err(why) => unknown.push((table, why)),
            }
        }
        Ok(Self { users, qna, comment: comment.map(|(table, columns)| Board::of(table, &columns)), image, unknown })
    }
}

impl Images {
    fn of(table: &str, columns: &Columns) -> Result<Self, &'static str> {
        let of_kind = |kinds: &[&str], name: &str| columns.get(name).is_some_and(|(kind, _)| kinds.contains(&&**kind));
        let mut keys = columns.iter().filter(|(_, (_, is_key))| *is_key);
        let id = match (keys.next(), keys.next()) {
            (Some((name, (kind, _))), None) if INTEGERS.contains(&&**kind) => name.clone(),
            _ => return Err("it has no number as its key"),
        };
        let mut bytes: Vec<&String> = columns.keys().filter(|name| of_kind(&BYTES, name)).collect();
        bytes.sort();
        let path = PATHS.into_iter().find(|name| of_kind(&TEXTS, name)).map(str::to_owned);
        if bytes.is_empty() && path.is_none() {
            return Err("it has neither a column of bytes nor one that says where a file is");
        }
        let bytes = bytes.first().map(|name| (*name).clone());
        Ok(Self { table: table.to_owned(), id, bytes, path, created_at: When::of(columns) })
    }
}

fn null() -> String {
    "NULL".to_owned()
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Whatever the column's character set is.
fn text(column: &str) -> String {
    format!("CONVERT({} USING utf8mb4)", quoted(column))
}

/// As text, since the driver knows no day 0 of month 0.
fn time(column: Option<&When>) -> String {
    column.map_or_else(null, |_| "CONVERT(CAST(created_at AS CHAR) USING utf8mb4)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(list: &[(&str, &str)]) -> Columns {
        let column = |(name, kind): &(&str, &str)| {
            let key = kind.strip_suffix(" key");
            ((*name).to_owned(), (key.unwrap_or(kind).to_owned(), key.is_some()))
        };
        list.iter().map(column).collect()
    }

    fn schema(tables: &[(&str, &[(&str, &str)])]) -> Result<Schema, ImportError> {
        Schema::of(tables.iter().map(|(name, list)| ((*name).to_owned(), columns(list))).collect())
    }

    const QNA: (&str, &[(&str, &str)]) = ("qna", &[("qna_id", "int key"), ("email", "varchar"), ("title", "varchar")]);

    #[test]
    fn a_database_without_the_first_program_s_questions_is_refused() {
        let ours: (&str, &[(&str, &str)]) = ("qna", &[("qna_id", "bigint key"), ("user_id", "bigint")]);
        for tables in [vec![], vec![ours]] {
            assert!(matches!(schema(&tables), Err(ImportError::NotTheFirstProgram)));
        }
    }

    #[test]
    fn a_table_of_images_is_found_by_its_columns() {
        let found = schema(&[QNA, ("photo", &[("id", "int key"), ("comment_id", "int"), ("url", "varchar")])]).unwrap();
        let image = found.image.unwrap();
        assert_eq!((&*image.table, &*image.id, image.path.as_deref()), ("photo", "id", Some("url")));
        let found =
            schema(&[QNA, ("photo", &[("id", "int key"), ("comment_id", "int"), ("data", "longblob")])]).unwrap();
        assert_eq!(found.image.unwrap().bytes.as_deref(), Some("data"));
        for list in [
            &[("comment_id", "int key"), ("photo_id", "int key"), ("url", "varchar")][..],
            &[("id", "char key"), ("comment_id", "int"), ("url", "varchar")],
            &[("id", "int key"), ("comment_id", "int"), ("likes", "int")],
        ] {
            let found = schema(&[QNA, ("photo", list)]).unwrap();
            assert!(found.image.is_none() && found.unknown.len() == 1, "{list:?}");
        }
    }
}
