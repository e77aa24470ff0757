//! What is carried: every table with its columns, and one way to write a row down that is the same on every database.

use std::fmt::Write as _;

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use Kind::{Bytes, Integer, Text, Time};

/// What a column holds, whatever a database calls its type. Truth values are the integers 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Integer,
    Text,
    Bytes,
    /// UTC, to the microsecond.
    Time,
}

/// A column of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

/// A table that is carried. An archive holds these descriptions, so that it is read without knowing the schema of its day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// The columns that the rows are unique and ordered by; one or two, none of them ever NULL.
    pub key: Vec<String>,
    /// Whether the key is given by the database, counting up: then where it stands is carried too, or the id of a row that
    /// was deleted last would come back.
    pub counted: bool,
}

/// Tables that are not carried, each with the reason. A contract test finds a table that is in neither list.
pub const LEFT: [(&str, &str); 4] = [
    ("rate_limit", "counts of the last minutes: losing them loses nothing else"),
    ("image_folder", "where this very database's images are"),
    ("seaql_migrations", "the target is migrated by itself"),
    ("migration_lease", "who is migrating this very database"),
];

/// The columns, of those that may be NULL, whose values go over from one row to another and are unique: an address that one
/// account gives up may be taken by another.
const PASSED_ON: [(&str, &str); 1] = [("users", "email_key")];

/// Every table that is carried, those that others refer to first.
#[must_use]
pub fn tables() -> Vec<Table> {
    crate::TABLES.iter().map(|table| table.table()).collect()
}

/// What a column of a row holds. Two of one column are ordered as the databases order them: text by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
    Time(NaiveDateTime),
}

impl Value {
    /// As part of a sentence.
    pub(crate) fn spelled(&self) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::Bytes(bytes) => hex(bytes),
            Self::Time(time) => time.format(TIME).to_string(),
        }
    }

    /// Roughly how much memory it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        16 + match self {
            Self::Null | Self::Integer(_) | Self::Time(_) => 0,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// The values of a row, in the order of its table's columns.
pub type Row = Vec<Value>;

const TIME: &str = "%Y-%m-%d %H:%M:%S%.6f";

impl Table {
    /// Appends a row as it stands in an archive: a line of JSON with the columns in their order, bytes in hexadecimal, times
    /// with six digits. A row has one spelling only, so equal checksums are equal rows.
    pub fn write(&self, row: &[Value], line: &mut String) {
        line.push('{');
        for (index, (column, value)) in self.columns.iter().zip(row).enumerate() {
            if index > 0 {
                line.push(',');
            }
            // Writing to a string cannot fail.
            let _ = write!(line, "\"{}\":", column.name);
            let _ = match value {
                Value::Null => write!(line, "null"),
                Value::Integer(number) => write!(line, "{number}"),
                Value::Text(text) => write!(line, "{}", serde_json::Value::from(text.as_str())),
                Value::Bytes(bytes) => write!(line, "\"{}\"", hex(bytes)),
                Value::Time(time) => write!(line, "\"{}\"", time.format(TIME)),
            };
        }
        line.push_str("}\n");
    }

    /// Reads what [`write`](Self::write) wrote. The error says what is wrong, without any of the row's content.
    ///
    /// # Errors
    /// Where it is not a row of this table.
    pub fn read(&self, line: &str) -> Result<Row, String> {
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(line).map_err(|_| "not an object".to_owned())?;
        if fields.len() != self.columns.len() {
            return Err(format!("{} columns, not {}", fields.len(), self.columns.len()));
        }
        let read = |column: &Column| {
            let value = fields.get(&column.name).and_then(|field| value(column.kind, field));
            value.ok_or_else(|| format!("no {:?} in {}", column.kind, column.name))
        };
        self.columns.iter().map(read).collect()
    }

    /// The values of the key.
    #[must_use]
    pub fn key_of(&self, row: &[Value]) -> Row {
        self.key_columns().filter_map(|index| row.get(index).cloned()).collect()
    }

    /// Where the column stands whose values are unique and go over from row to row.
    pub(crate) fn passed_on(&self) -> Option<usize> {
        let (_, name) = PASSED_ON.iter().find(|(table, _)| *table == self.name)?;
        self.columns.iter().position(|column| column.name == *name)
    }

    /// Where the key's columns stand.
    pub(crate) fn key_columns(&self) -> impl Iterator<Item = usize> {
        self.key.iter().filter_map(|key| self.columns.iter().position(|column| column.name == *key))
    }

    /// Whether a description that came with an archive can be used: its names go into SQL.
    pub(crate) fn is_sane(&self) -> bool {
        let columns = self.columns.iter().map(|column| &column.name);
        let names = columns.clone().chain([&self.name]).chain(&self.key);
        let is_name = |name: &String| {
            let mut bytes = name.bytes();
            bytes.next().is_some_and(|first| first.is_ascii_lowercase())
                && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
                && name.len() <= 64
        };
        let own = LEFT.iter().any(|(name, _)| *name == self.name) || self.name.starts_with("sqlite_");
        names.clone().all(is_name)
            && !own
            && matches!(self.key.len(), 1 | 2)
            && self.columns.len() <= 64
            && self.key.iter().all(|key| columns.clone().filter(|name| *name == key).count() == 1)
    }
}

fn value(kind: Kind, field: &serde_json::Value) -> Option<Value> {
    if field.is_null() {
        return Some(Value::Null);
    }
    match kind {
        Integer => field.as_i64().map(Value::Integer),
        Text => field.as_str().map(|text| Value::Text(text.to_owned())),
        Bytes => field.as_str().and_then(unhex).map(Value::Bytes),
        Time => field.as_str().and_then(|text| NaiveDateTime::parse_from_str(text, TIME).ok()).map(Value::Time),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every_kind() -> Table {
        let columns = [("a", Integer), ("b", Text), ("c", Bytes), ("d", Time)];
        let columns = columns.map(|(name, kind)| Column { name: name.to_owned(), kind }).to_vec();
        Table { name: "t".to_owned(), columns, key: vec!["a".to_owned()], counted: true }
    }

    fn rows() -> impl Strategy<Value = Row> {
        // From the year 1000 to 9999, which is what MySQL keeps.
        let times = (-30_610_224_000_i64..253_402_300_800, 0_u32..1_000_000).prop_map(|(seconds, micros)| {
            Value::Time(chrono::DateTime::from_timestamp(seconds, micros * 1000).unwrap().naive_utc())
        });
        let or_null = |values: BoxedStrategy<Value>| prop_oneof![1 => Just(Value::Null), 5 => values];
        (
            any::<i64>().prop_map(Value::Integer),
            or_null(any::<String>().prop_map(Value::Text).boxed()),
            or_null(any::<Vec<u8>>().prop_map(Value::Bytes).boxed()),
            or_null(times.boxed()),
        )
            .prop_map(|(a, b, c, d)| vec![a, b, c, d])
    }

    proptest! {
        #[test]
        fn a_row_reads_back_and_has_one_spelling(row in rows(), other in rows()) {
            let table = every_kind();
            let (mut line, mut another) = (String::new(), String::new());
            table.write(&row, &mut line);
            table.write(&other, &mut another);
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(&table.read(line.trim_end()).unwrap(), &row);
            prop_assert_eq!(line == another, row == other);
        }

        #[test]
        fn nothing_makes_reading_panic(line in any::<String>()) {
            let _ = every_kind().read(&line);
        }
    }

    #[test]
    fn a_row_is_written_like_this() {
        let time = NaiveDateTime::parse_from_str("1969-12-31 23:59:59.000001", TIME).unwrap();
        let row =
            [Value::Integer(-7), Value::Text("\"문답\"\n😀".to_owned()), Value::Bytes(vec![0, 255]), Value::Time(time)];
        let mut line = String::new();
        every_kind().write(&row, &mut line);
        let expected = r#"{"a":-7,"b":"\"문답\"\n😀","c":"00ff","d":"1969-12-31 23:59:59.000001"}"#;
        assert_eq!(line, format!("{expected}\n"));
    }

    #[test]
    fn what_is_no_row_is_refused_without_its_content() {
        for line in [
            "",
            "[]",
            r#"{"a":1}"#,
            r#"{"a":1,"b":"secret","c":"0","d":null}"#,
            r#"{"a":1,"b":"secret","c":"0g","d":null}"#,
            r#"{"a":1.5,"b":"secret","c":null,"d":null}"#,
            r#"{"a":1,"b":"secret","c":null,"d":"yesterday"}"#,
            r#"{"a":1,"b":"secret","c":null,"e":null}"#,
        ] {
            let reason = every_kind().read(line).unwrap_err();
            assert!(!reason.contains("secret"), "{reason}");
        }
    }

    #[test]
    fn names_that_are_no_plain_names_are_not_sane() {
        assert!(tables().iter().all(Table::is_sane));
        for name in ["", "t`; DROP TABLE users", "T", "1t", "sqlite_master", "seaql_migrations", "rate_limit", "tä"] {
            let mut table = every_kind();
            table.name = name.to_owned();
            assert!(!table.is_sane(), "{name}");
        }
        for (column, key) in [("a` ", vec!["a` "]), ("a", vec!["b", "z"]), ("a", vec![]), ("b", vec!["b"])] {
            let mut table = every_kind();
            table.columns[0].name = column.to_owned();
            table.key = key.into_iter().map(str::to_owned).collect();
            assert!(!table.is_sane(), "{table:?}");
        }
    }
}
