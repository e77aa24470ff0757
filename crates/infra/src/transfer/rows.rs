//! Reading and writing rows of any table, in batches by key.

use std::collections::VecDeque;

use chrono::NaiveDateTime;
use mundap_domain::image::Digest;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, IsolationLevel, QueryResult, Statement,
    TransactionOptions, TransactionTrait as _,
};
use sha2::{Digest as _, Sha256};

use super::table::{Column, Kind, Row, Table, Value};
use super::{Progress, TableSum};
use crate::{DatabaseKind, SeaStore};

/// How many rows are read at once: of the longest ones, some 40 MB.
const READ: usize = 500;

/// Everything as it is in one moment, however long it is looked at.
///
/// SQLite: a transaction that reads; the write-ahead log is not shortened meanwhile. MySQL and MariaDB: REPEATABLE READ,
/// where the first read makes the snapshot; old versions of what changes meanwhile are kept.
pub(crate) async fn snapshot(store: &SeaStore) -> Result<DatabaseTransaction, DbErr> {
    let options = match store.kind() {
        DatabaseKind::Sqlite => TransactionOptions::default(),
        DatabaseKind::MariaDb | DatabaseKind::MySql => TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        },
    };
    let transaction = store.writer().begin_with_options(options).await?;
    // From here on, and not from whenever something is read first.
    count(&transaction, "seaql_migrations").await?;
    Ok(transaction)
}

/// The number that a query gives.
async fn number(db: &impl ConnectionTrait, sql: String) -> Result<Option<i64>, DbErr> {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    row.map_or(Ok(None), |row| row.try_get_by_index(0))
}

/// How many rows a table has.
pub(crate) async fn count(db: &impl ConnectionTrait, table: &str) -> Result<u64, DbErr> {
    let rows = number(db, format!("SELECT COUNT(*) FROM `{table}`")).await?;
    Ok(rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or_default())
}

/// Whether there is a table of this name.
async fn exists(db: &impl ConnectionTrait, kind: DatabaseKind, table: &str) -> Result<bool, DbErr> {
    let sql = match kind {
        DatabaseKind::Sqlite => format!("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '{table}'"),
        DatabaseKind::MariaDb | DatabaseKind::MySql => format!(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '{table}'"
        ),
    };
    Ok(number(db, sql).await? == Some(1))
}

/// A table that holds rows, if any of `tables` does.
pub(crate) async fn first_that_holds_rows(store: &SeaStore, tables: &[Table]) -> Result<Option<String>, DbErr> {
    let db = store.writer();
    for table in tables {
        if exists(db, store.kind(), &table.name).await?
            && number(db, format!("SELECT 1 FROM `{}` LIMIT 1", table.name)).await?.is_some()
        {
            return Ok(Some(table.name.clone()));
        }
    }
    Ok(None)
}

/// Removes every row of `tables`.
pub(crate) async fn clear(store: &SeaStore, tables: &[Table]) -> Result<(), DbErr> {
    for table in tables.iter().rev() {
        if exists(store.writer(), store.kind(), &table.name).await? {
            store.writer().execute_unprepared(&format!("DELETE FROM `{}`", table.name)).await?;
        }
    }
    Ok(())
}

/// The id that the next row gets.
pub(crate) async fn next_id(db: &impl ConnectionTrait, kind: DatabaseKind, table: &Table) -> Result<i64, DbErr> {
    let name = &table.name;
    let next = match kind {
        DatabaseKind::Sqlite => {
            number(db, format!("SELECT seq + 1 FROM sqlite_sequence WHERE name = '{name}'")).await?
        }
        DatabaseKind::MariaDb | DatabaseKind::MySql => {
            if kind == DatabaseKind::MySql {
                // MySQL answers from what it remembers of yesterday, unless it is told not to.
                db.execute_unprepared("SET SESSION information_schema_stats_expiry = 0").await?;
            }
            let sql = format!(
                "SELECT CAST(AUTO_INCREMENT AS SIGNED) FROM information_schema.tables
                 WHERE table_schema = DATABASE() AND table_name = '{name}'"
            );
            number(db, sql).await?
        }
    };
    Ok(next.unwrap_or(1))
}

/// Lets the ids go on from `next`; has no effect below an id that is there.
pub(crate) async fn go_on_from(store: &SeaStore, table: &Table, next: i64) -> Result<(), DbErr> {
    let (db, name) = (store.writer(), &table.name);
    match store.kind() {
        DatabaseKind::Sqlite => {
            let last = next - 1;
            let made = format!(
                "INSERT INTO sqlite_sequence (name, seq) SELECT '{name}', {last}
                 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = '{name}')"
            );
            db.execute_unprepared(&made).await?;
            db.execute_unprepared(&format!("UPDATE sqlite_sequence SET seq = MAX(seq, {last}) WHERE name = '{name}'"))
                .await?;
        }
        DatabaseKind::MariaDb | DatabaseKind::MySql => {
            db.execute_unprepared(&format!("ALTER TABLE `{name}` AUTO_INCREMENT = {next}")).await?;
        }
    }
    Ok(())
}

/// Up to `limit` rows behind the key `after`, in the key's order.
async fn batch(db: &impl ConnectionTrait, table: &Table, after: Option<&Row>, limit: usize) -> Result<Vec<Row>, DbErr> {
    let kinds = table.key_columns().filter_map(|at| table.columns.get(at)).map(|column| column.kind);
    let after: Vec<sea_orm::Value> =
        after.into_iter().flatten().zip(kinds).map(|(key, kind)| bound(key, kind)).collect();
    let (condition, values) = match (after.as_slice(), table.key.as_slice()) {
        ([last], [key]) => (format!("WHERE `{key}` > ?"), vec![last.clone()]),
        // Each database looks up in the key what it is asked for in this way; otherwise it walks along all rows of the same `a`
        // for each batch of them.
        ([first, second], [a, b]) if db.get_database_backend() == DbBackend::Sqlite => {
            (format!("WHERE (`{a}`, `{b}`) > (?, ?)"), vec![first.clone(), second.clone()])
        }
        ([first, second], [a, b]) => (
            format!("WHERE (`{a}` = ? AND `{b}` > ?) OR `{a}` > ?"),
            vec![first.clone(), second.clone(), first.clone()],
        ),
        _ => (String::new(), Vec::new()),
    };
    let sql = format!(
        "SELECT {} FROM `{}` {condition} ORDER BY {} LIMIT {limit}",
        list(table.columns.iter().map(|column| &column.name)),
        table.name,
        list(&table.key),
    );
    let rows = db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    rows.iter().map(|row| read(row, table)).collect()
}

/// A row. Where it cannot be read, the error names it and the column, and not what it holds.
fn read(row: &QueryResult, table: &Table) -> Result<Row, DbErr> {
    let column = |(at, column): (usize, &Column)| {
        get(row, at, column.kind).map_err(|_| unreadable(&table.name, &key(row, table), &column.name))
    };
    table.columns.iter().enumerate().map(column).collect()
}

/// The key of a row that may not be readable, as part of a sentence.
fn key(row: &QueryResult, table: &Table) -> String {
    let keys = table.key_columns().filter_map(|at| Some((at, table.columns.get(at)?.kind)));
    let spelled = keys.map(|(at, kind)| get(row, at, kind).map_or_else(|_| "?".to_owned(), |value| value.spelled()));
    spelled.collect::<Vec<_>>().join(" ")
}

/// Something in a row that is not of its column's kind.
pub(crate) fn unreadable(table: &str, key: &str, column: &str) -> DbErr {
    DbErr::Type(format!("{table} {key}: {column} cannot be read: correct it in the database"))
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn get(row: &QueryResult, at: usize, kind: Kind) -> Result<Value, DbErr> {
    let value = match kind {
        Kind::Integer => row.try_get_by_index::<Option<i64>>(at)?.map(Value::Integer),
        Kind::Text => row.try_get_by_index::<Option<String>>(at)?.map(Value::Text),
        Kind::Bytes => row.try_get_by_index::<Option<Vec<u8>>>(at)?.map(Value::Bytes),
        Kind::Time => row.try_get_by_index::<Option<NaiveDateTime>>(at)?.map(Value::Time),
    };
    Ok(value.unwrap_or(Value::Null))
}

/// A value as the driver takes it; NULL has a kind there.
fn bound(value: &Value, kind: Kind) -> sea_orm::Value {
    match (value, kind) {
        (Value::Null, Kind::Integer) => None::<i64>.into(),
        (Value::Null, Kind::Text) => None::<String>.into(),
        (Value::Null, Kind::Bytes) => None::<Vec<u8>>.into(),
        (Value::Null, Kind::Time) => None::<NaiveDateTime>.into(),
        (Value::Integer(number), _) => (*number).into(),
        (Value::Text(text), _) => text.as_str().into(),
        (Value::Bytes(bytes), _) => bytes.as_slice().into(),
        (Value::Time(time), _) => (*time).into(),
    }
}

/// The rows of a table one by one, in the key's order.
pub(crate) struct Rows<'a, C> {
    db: &'a C,
    table: &'a Table,
    read: VecDeque<Row>,
    last: Option<Row>,
    ended: bool,
}

impl<'a, C: ConnectionTrait> Rows<'a, C> {
    pub(crate) fn of(db: &'a C, table: &'a Table) -> Self {
        Self { db, table, read: VecDeque::new(), last: None, ended: false }
    }

    /// The next row, which stays the next one.
    pub(crate) async fn peek(&mut self) -> Result<Option<&Row>, DbErr> {
        if self.read.is_empty() && !self.ended {
            self.read = batch(self.db, self.table, self.last.as_ref(), READ).await?.into();
            self.ended = self.read.len() < READ;
            self.last = self.read.back().map(|row| self.table.key_of(row));
        }
        Ok(self.read.front())
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Row>, DbErr> {
        self.peek().await?;
        Ok(self.read.pop_front())
    }
}

/// How many rows a table has and what they are, as one checksum over their lines.
pub(crate) async fn sum(db: &impl ConnectionTrait, table: &Table, progress: &dyn Progress) -> Result<TableSum, DbErr> {
    let mut sum = Sum::default();
    let mut rows = Rows::of(db, table);
    let mut line = String::new();
    while let Some(row) = rows.next().await? {
        line.clear();
        table.write(&row, &mut line);
        sum.add(&line);
        progress.step(1);
    }
    Ok(sum.finish(table))
}

/// Counts rows and sums them up.
#[derive(Default)]
pub(crate) struct Sum {
    rows: u64,
    sha256: Sha256,
}

impl Sum {
    pub(crate) fn add(&mut self, line: &str) {
        self.rows += 1;
        self.sha256.update(line);
    }

    pub(crate) fn finish(self, table: &Table) -> TableSum {
        TableSum {
            table: table.name.clone(),
            rows: self.rows,
            sha256: Digest::new(self.sha256.finalize().into()).to_string(),
        }
    }
}

/// What is to be changed in a table, gathered until it is worth a transaction of its own.
pub(crate) struct Changes<'a> {
    store: &'a SeaStore,
    table: &'a Table,
    updates: Vec<Row>,
    inserts: Vec<Row>,
    bytes: usize,
}

impl<'a> Changes<'a> {
    /// Far below what the servers take in one statement: SQLite 32,766 values, MySQL 16 MB.
    const ROWS: usize = 1_000;
    const BYTES: usize = 1 << 20;

    pub(crate) fn of(store: &'a SeaStore, table: &'a Table) -> Self {
        Self { store, table, updates: Vec::new(), inserts: Vec::new(), bytes: 0 }
    }

    pub(crate) async fn insert(&mut self, row: Row) -> Result<(), DbErr> {
        self.bytes += row.iter().map(Value::size).sum::<usize>();
        self.inserts.push(row);
        self.apply_if_worth_it().await
    }

    pub(crate) async fn update(&mut self, row: Row) -> Result<(), DbErr> {
        self.bytes += row.iter().map(Value::size).sum::<usize>();
        self.updates.push(row);
        self.apply_if_worth_it().await
    }

    async fn apply_if_worth_it(&mut self) -> Result<(), DbErr> {
        if self.updates.len() + self.inserts.len() >= Self::ROWS || self.bytes >= Self::BYTES {
            self.apply().await?;
        }
        Ok(())
    }

    /// Commits what was gathered.
    pub(crate) async fn apply(&mut self) -> Result<(), DbErr> {
        let (updates, inserts) = (std::mem::take(&mut self.updates), std::mem::take(&mut self.inserts));
        self.bytes = 0;
        if updates.is_empty() && inserts.is_empty() {
            return Ok(());
        }
        let transaction = self.store.writer().begin().await?;
        // Updates first: an address that an account gave up may be that of a new one.
        for row in &updates {
            self.set(&transaction, row).await?;
        }
        if !inserts.is_empty() {
            self.add(&transaction, &inserts).await?;
        }
        transaction.commit().await
    }

    fn values<'r>(&'r self, row: &'r [Value]) -> impl Iterator<Item = sea_orm::Value> + 'r {
        self.table.columns.iter().zip(row).map(|(column, value)| bound(value, column.kind))
    }

    async fn add(&self, db: &impl ConnectionTrait, rows: &[Row]) -> Result<(), DbErr> {
        let places = format!("({})", vec!["?"; self.table.columns.len()].join(", "));
        let sql = format!(
            "INSERT INTO `{}` ({}) VALUES {}",
            self.table.name,
            list(self.table.columns.iter().map(|column| &column.name)),
            vec![places.as_str(); rows.len()].join(", "),
        );
        let values: Vec<sea_orm::Value> = rows.iter().flat_map(|row| self.values(row)).collect();
        db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await.map(|_| ())
    }

    async fn set(&self, db: &impl ConnectionTrait, row: &Row) -> Result<(), DbErr> {
        let columns = self.table.columns.iter().map(|column| format!("`{}` = ?", column.name));
        let sql = format!(
            "UPDATE `{}` SET {} WHERE {}",
            self.table.name,
            columns.collect::<Vec<_>>().join(", "),
            by_key(self.table),
        );
        let values = self.values(row).chain(key_values(self.table, row));
        db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await.map(|_| ())
    }
}

/// Removes the rows of these keys.
pub(crate) async fn remove(store: &SeaStore, table: &Table, rows: &[Row]) -> Result<(), DbErr> {
    each(store, table, rows, &format!("DELETE FROM `{}` WHERE {}", table.name, by_key(table))).await
}

/// Makes a column of the rows of these keys NULL.
pub(crate) async fn empty(store: &SeaStore, table: &Table, column: usize, rows: &[Row]) -> Result<(), DbErr> {
    let Some(column) = table.columns.get(column) else { return Ok(()) };
    each(store, table, rows, &format!("UPDATE `{}` SET `{}` = NULL WHERE {}", table.name, column.name, by_key(table)))
        .await
}

/// Runs a statement with the key of each of these rows.
async fn each(store: &SeaStore, table: &Table, rows: &[Row], sql: &str) -> Result<(), DbErr> {
    if rows.is_empty() {
        return Ok(());
    }
    let transaction = store.writer().begin().await?;
    for row in rows {
        let statement = Statement::from_sql_and_values(transaction.get_database_backend(), sql, key_values(table, row));
        transaction.execute_raw(statement).await?;
    }
    transaction.commit().await
}

fn by_key(table: &Table) -> String {
    table.key.iter().map(|key| format!("`{key}` = ?")).collect::<Vec<_>>().join(" AND ")
}

fn key_values<'a>(table: &'a Table, row: &'a [Value]) -> impl Iterator<Item = sea_orm::Value> + 'a {
    table.key_columns().filter_map(|at| Some(bound(row.get(at)?, table.columns.get(at)?.kind)))
}
