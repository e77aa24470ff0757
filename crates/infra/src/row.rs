//! Between rows and the domain's values: what every repository shares.

use std::cmp::Reverse;
use std::pin::pin;
use std::sync::LazyLock;

use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, NaiveDateTime, Utc};
use futures_util::TryStreamExt as _;
use mundap_domain::StoreError;
use mundap_domain::env::Timestamp;
use mundap_domain::error::Broken;
use mundap_domain::page::{Order, Slice};
use mundap_domain::user::{Author, DisplayName, Email, UserId};
use sea_orm::sqlx::Row as _;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, DbErr, DeriveValueType, EntityTrait, FromQueryResult,
    QueryFilter as _, QueryOrder as _, QueryResult, QuerySelect as _, Select, Statement, StreamTrait, Value,
};
use serde::de::{self, Deserialize, Deserializer};

use crate::author::ByAuthor;
use crate::windows::Window;

/// A [`Timestamp`] as it is stored: UTC without saying so.
///
/// Every time goes through here. Bound as `DateTime<Utc>` it would be a TIMESTAMP to the driver, and MariaDB turns one
/// outside 1970-2038 into NULL; and as text in SQLite a zone behind the fraction would sort wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, DeriveValueType)]
pub(crate) struct Moment(NaiveDateTime);

/// As the driver writes a [`Moment`] into SQLite: taken apart once.
static STORED: LazyLock<Vec<Item<'static>>> =
    LazyLock::new(|| StrftimeItems::new("%F %T%.f").parse_to_owned().unwrap_or_default());

impl Moment {
    /// As SQLite has it, from 1970 on: humantime takes a quarter of chrono's time to read it.
    fn stored(text: &str) -> Option<Self> {
        // It would pass over a zone behind a fraction, and move a leap second.
        let is_plain = |byte: u8| matches!(byte, b'0'..=b'9' | b'-' | b':' | b'.' | b' ');
        if !text.bytes().all(is_plain) || text.get(17..19) == Some("60") {
            return None;
        }
        humantime::parse_rfc3339_weak(text).ok().map(|read| Self(DateTime::<Utc>::from(read).naive_utc()))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: &str = Deserialize::deserialize(deserializer)?;
        if let Some(moment) = Self::stored(text) {
            return Ok(moment);
        }
        let mut parsed = Parsed::new();
        let read = parse(&mut parsed, text, STORED.iter()).and_then(|()| parsed.to_naive_datetime_with_offset(0));
        read.map(Self).map_err(de::Error::custom)
    }
}

impl From<Timestamp> for Moment {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp.as_utc().naive_utc())
    }
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Self {
        Self::new(moment.0.and_utc())
    }
}

/// A text of a row. To find that it is UTF-8 is what reading one costs, ten times as much by the standard library where it is not
/// ASCII.
pub(crate) fn text(row: &QueryResult, place: usize) -> Result<String, DbErr> {
    let bytes: Option<&[u8]> = match (row.try_as_mysql_row(), row.try_as_sqlite_row()) {
        (Some(row), _) => row.try_get(place).ok(),
        (_, Some(row)) => row.try_get(place).ok(),
        _ => None,
    };
    match bytes.map(simdutf8::basic::from_utf8) {
        Some(Ok(text)) => Ok(text.to_owned()),
        // It says what is wrong.
        _ => row.try_get_by_index(place),
    }
}

/// A time of a row.
pub(crate) fn moment(row: &QueryResult, place: usize) -> Result<Moment, DbErr> {
    let text: Option<&str> = row.try_as_sqlite_row().and_then(|row| row.try_get(place).ok());
    text.and_then(Moment::stored).map_or_else(|| row.try_get_by_index(place), Ok)
}

/// Rows that are deleted piece by piece: by one statement all of them would take too long.
pub(crate) struct Pieces {
    pub(crate) table: &'static str,
    /// The columns of its primary key.
    pub(crate) key: &'static str,
    /// Which rows; holds one `?`.
    pub(crate) condition: &'static str,
    /// Which of them first: as an index has them, so that no other row is looked at.
    pub(crate) order: &'static str,
}

impl Pieces {
    /// What deletes `most` of them at most.
    pub(crate) fn delete(&self, db: DbBackend, value: impl Into<Value>, most: u64) -> Statement {
        let Self { table, key, condition, order } = self;
        let some = format!("FROM {table} WHERE {condition} ORDER BY {order} LIMIT {most}");
        let sql = if db == DbBackend::Sqlite {
            // Its DELETE knows no LIMIT, and MySQL's knows no subquery with one.
            format!("DELETE FROM {table} WHERE ({key}) IN (SELECT {key} {some})")
        } else {
            format!("DELETE {some}")
        };
        Statement::from_sql_and_values(db, sql, [value.into()])
    }
}

/// The rules that a column breaks, never its value: this goes to the log.
pub(crate) fn told(column: &str, rules: &[Broken]) -> String {
    let codes: Vec<&str> = rules.iter().map(Broken::code).collect();
    format!("{column}: {}", codes.join(", "))
}

/// A row that is being read back into the domain, for the errors it may hold.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) table: &'static str,
    pub(crate) id: i64,
}

impl Reading {
    /// The column's value, unless it breaks the domain's rules.
    pub(crate) fn check<T>(self, column: &str, parsed: Result<T, Vec<Broken>>) -> Result<T, StoreError> {
        parsed.map_err(|rules| self.corrupt(told(column, &rules)))
    }

    pub(crate) fn corrupt(self, reason: String) -> StoreError {
        StoreError::Corrupt { table: self.table, id: self.id, reason }
    }

    /// Who wrote this row; of a deleted account only the id is left.
    pub(crate) fn author(self, id: i64, display_name: Option<&str>, email: Option<&str>) -> Result<Author, StoreError> {
        Ok(Author {
            id: UserId::new(id),
            display_name: self.check("display_name", display_name.map(DisplayName::parse).transpose())?,
            email: self.check("email", email.map(Email::parse).transpose())?,
        })
    }
}

/// The slice of a list that is ordered by `id`.
pub(crate) fn sliced<E: EntityTrait>(select: Select<E>, id: E::Column, slice: &Slice) -> Select<E> {
    let select = select.limit(slice.limit);
    let select = match slice.order {
        Order::Newest => select.order_by_desc(id),
        Order::Oldest => select.order_by_asc(id),
    };
    match (slice.after, slice.order) {
        (None, _) => select,
        (Some(after), Order::Newest) => select.filter(id.lt(after)),
        (Some(after), Order::Oldest) => select.filter(id.gt(after)),
    }
}

/// A list of rows that people wrote, and how it is read.
pub(crate) struct Written {
    pub(crate) table: &'static str,
    /// In the order in which they are read, by their place; who it was in the second, and the names of `t`.
    pub(crate) columns: &'static str,
    pub(crate) id: &'static str,
    /// The column by which its rows lie together, where that is not the id.
    pub(crate) clustered_by: Option<&'static str>,
}

impl Written {
    /// Spelled out, as all statements here: to build one from its parts each time would cost as much as to read several rows.
    ///
    /// LEFT, though the author is always there: with an inner join MySQL may start from the few users and sort a million rows,
    /// instead of walking along the key.
    fn select(&self, naming: Naming) -> String {
        let Self { table, columns, .. } = self;
        match naming {
            Naming::Joined => format!(
                "SELECT {columns}, u.display_name, u.email FROM {table} t LEFT JOIN users u ON u.user_id = t.user_id"
            ),
            Naming::Remembered => format!("SELECT {columns} FROM {table} t"),
        }
    }

    /// The statement of those with these ids.
    pub(crate) fn with_ids(&self, db: DbBackend, ids: &[i64], naming: Naming) -> Statement {
        let (places, values) = among(ids);
        Statement::from_sql_and_values(db, format!("{} WHERE t.{} IN ({places})", self.select(naming), self.id), values)
    }

    /// The rows of a slice of it, of those where `of` has this value, until they hold as many bytes as it wants at most.
    pub(crate) async fn rows<M, C>(
        &self,
        db: &C,
        of: Option<(&str, i64)>,
        slice: &Slice,
        naming: Naming,
    ) -> Result<Vec<M>, DbErr>
    where
        C: ConnectionTrait + StreamTrait + Send,
        M: ByAuthor + FromQueryResult + Send,
    {
        let backend = ConnectionTrait::get_database_backend(db);
        let statement = self.slice(backend, of, slice, naming);
        if slice.bytes == Slice::ANY_SIZE {
            let mut rows: Vec<M> = self.all(db, statement, naming).await?;
            // In that order they come, but an array promises none; to have SQLite sort it would be a tree of all their texts.
            match slice.order {
                Order::Newest => rows.sort_by_key(|row| Reverse(row.reading().id)),
                Order::Oldest => rows.sort_by_key(|row| row.reading().id),
            }
            return Ok(rows);
        }
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let mut stream = pin!(db.stream_raw(statement).await?);
        while (rows.is_empty() || bytes < slice.bytes)
            && let Some(row) = stream.try_next().await?
        {
            let row: M = naming.read(&row)?;
            bytes += row.size();
            rows.push(row);
        }
        Ok(rows)
    }

    /// The statement of the rows in these windows, each of those where `column` has the window's value.
    pub(crate) fn within(&self, db: DbBackend, column: Option<&str>, windows: &[Window], naming: Naming) -> Statement {
        const NOTHING: Window = Window { of: None, first: 0, last: -1 };
        let windows = padded(windows, &NOTHING);
        let range = match column {
            Some(column) => format!("(t.{column} = ? AND t.{} BETWEEN ? AND ?)", self.id),
            None => format!("t.{} BETWEEN ? AND ?", self.id),
        };
        let conditions = vec![range; windows.len()].join(" OR ");
        let values = windows.iter().flat_map(|window| {
            let of = column.map(|_| window.of.unwrap_or_default());
            of.into_iter().chain([window.first, window.last])
        });
        let values: Vec<Value> = values.map(Value::from).collect();
        Statement::from_sql_and_values(db, format!("{} WHERE {conditions}", self.select(naming)), values)
    }

    /// All rows of a statement, in any order.
    pub(crate) async fn all<M>(
        &self,
        db: &impl ConnectionTrait,
        statement: Statement,
        naming: Naming,
    ) -> Result<Vec<M>, DbErr>
    where
        M: ByAuthor + FromQueryResult,
    {
        if naming == Naming::Remembered && db.get_database_backend() == DbBackend::Sqlite {
            return self.packed(db, statement).await;
        }
        let rows = db.query_all_raw(statement).await?;
        rows.iter().map(|row| naming.read(row)).collect()
    }

    /// All rows of a statement as one, an array of arrays: SQLite's driver takes each row, and each of its values, from the
    /// thread that reads to the one that asked, which is most of what a page costs.
    async fn packed<M: ByAuthor>(&self, db: &impl ConnectionTrait, statement: Statement) -> Result<Vec<M>, DbErr> {
        let columns = self.columns.replace("t.", "");
        let sql = format!("SELECT json_group_array(json_array({columns})) FROM ({})", statement.sql);
        let row = db.query_one_raw(Statement { sql, ..statement }).await?;
        let Some(row) = row else { return Ok(Vec::new()) };
        let packed = text(&row, 0)?;
        let rows: Vec<M::Packed> = serde_json::from_str(&packed).map_err(|error| DbErr::Json(error.to_string()))?;
        Ok(rows.into_iter().map(M::unpack).collect())
    }

    /// The statement of a slice of it, of those where `of` has this value.
    fn slice(&self, db: DbBackend, of: Option<(&str, i64)>, slice: &Slice, naming: Naming) -> Statement {
        let id = self.id;
        let (behind, direction) = direction(slice.order);
        let conditions = match (of, slice.after) {
            (None, None) => String::new(),
            (None, Some(_)) => format!(" WHERE t.{id} {behind} ?"),
            (Some((column, _)), None) => format!(" WHERE t.{column} = ?"),
            (Some((column, _)), Some(_)) => format!(" WHERE t.{column} = ? AND t.{id} {behind} ?"),
        };
        let sql = format!("{}{conditions} ORDER BY t.{id} {direction} LIMIT ?", self.select(naming));
        let values = of.map(|(_, value)| value).into_iter().chain(slice.after).map(Value::from);
        let values: Vec<Value> = values.chain([slice.limit.into()]).collect();
        Statement::from_sql_and_values(db, sql, values)
    }
}

/// What is behind an id in this order, and how the order is called.
const fn direction(order: Order) -> (char, &'static str) {
    match order {
        Order::Newest => ('<', "DESC"),
        Order::Oldest => ('>', "ASC"),
    }
}

/// The places between the brackets of an `IN ()`, and what stands in them.
pub(crate) fn among(ids: &[i64]) -> (String, Vec<Value>) {
    let ids = padded(ids, &0);
    (vec!["?"; ids.len()].join(", "), ids.into_iter().copied().map(Value::from).collect())
}

/// What one statement looks for. Some more than there are, of what is `nothing`: a server prepares few lengths, not each.
pub(crate) fn padded<'a, T>(sought: &'a [T], nothing: &'a T) -> Vec<&'a T> {
    sought.iter().chain(std::iter::repeat(nothing)).take(sought.len().next_power_of_two()).collect()
}

/// How a list says who wrote what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Naming {
    /// With each row.
    Joined,
    /// By the id alone: those who wrote it are remembered.
    Remembered,
}

impl Naming {
    /// A row that was read in this way.
    pub(crate) fn read<M: ByAuthor + FromQueryResult>(self, row: &QueryResult) -> Result<M, DbErr> {
        match self {
            Self::Joined => M::from_query_result(row, ""),
            Self::Remembered => M::unnamed(row),
        }
    }
}

/// A write that names a version found one row, or the row has moved on.
pub(crate) fn one_or_stale(rows: u64) -> Result<(), StoreError> {
    if rows == 0 { Err(StoreError::Stale) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::value::{BorrowedStrDeserializer, Error};

    use super::*;

    fn read(text: &str) -> Result<Moment, Error> {
        Moment::deserialize(BorrowedStrDeserializer::new(text))
    }

    proptest! {
        /// From the year 1 to 9999, also before 1970.
        #[test]
        fn a_time_is_read_as_sqlite_has_it(seconds in -62_135_596_800_i64..253_402_300_800, micros in 0_u32..1_000_000) {
            let moment = Moment(DateTime::from_timestamp(seconds, micros * 1000).unwrap().naive_utc());
            // As the driver writes it.
            let stored = moment.0.format("%F %T%.f").to_string();
            prop_assert_eq!(read(&stored).unwrap(), moment);
        }
    }

    #[test]
    fn what_is_no_time_is_told_of() {
        for text in ["", "yesterday", "2026-13-01 00:00:00", "2026-02-29 00:00:00", "2026-01-01 24:00:00", "2026-01-01"]
        {
            assert!(read(text).is_err(), "{text}");
        }
        for behind in ["Z", "+00:00", "+09:00", ".5Z", ".5+00:00", ".5+09:00", ".5-09:00"] {
            let text = format!("2026-01-01 00:00:00{behind}");
            assert!(read(&text).is_err(), "{text}");
        }
        assert!(read("2026-01-01T00:00:00").is_err());
    }

    #[test]
    fn a_leap_second_stays_one() {
        let moment = read("2016-12-31 23:59:60.5").unwrap();
        assert_eq!(moment.0.format("%F %T%.f").to_string(), "2016-12-31 23:59:60.500");
    }
}
