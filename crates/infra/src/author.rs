//! Who wrote what a list shows.
//!
//! To join an account to each row is a good part of what a page costs the database. So those who were read within the last
//! second are remembered, and while there are any a list is read without them.

use std::collections::HashMap;

use mundap_domain::StoreError;
use mundap_domain::user::{Author, UserId};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, QueryResult, Statement};
use serde::de::DeserializeOwned;

use crate::Session;
use crate::actors::Age;
use crate::row::{Naming, Reading, among};

/// A row that somebody wrote.
pub(crate) trait ByAuthor: Sized {
    /// Its own columns by their places, as they come in an array.
    type Packed: DeserializeOwned;

    fn unpack(packed: Self::Packed) -> Self;
    /// Of a row with its own columns alone.
    fn unnamed(row: &QueryResult) -> Result<Self, DbErr>;
    /// The bytes of its texts.
    fn size(&self) -> usize;
    fn reading(&self) -> Reading;
    fn author_id(&self) -> i64;
    /// What it has in the column that its list lies together by.
    fn lies_with(&self) -> Option<i64>;
    /// Name and e-mail, where they were joined.
    fn joined(&self) -> (Option<&str>, Option<&str>);
}

struct Shown {
    user_id: i64,
    display_name: Option<String>,
    email: Option<String>,
}

impl FromQueryResult for Shown {
    fn from_query_result(row: &QueryResult, _: &str) -> Result<Self, DbErr> {
        Ok(Self {
            user_id: row.try_get_by_index(0)?,
            display_name: row.try_get_by_index(1)?,
            email: row.try_get_by_index(2)?,
        })
    }
}

impl<C: ConnectionTrait + Send> Session<C> {
    /// How to read a list now, and the age of what is read.
    pub(crate) fn naming(&self) -> (Naming, Age) {
        let naming = if self.changes_actors() { Naming::Joined } else { self.actors.naming() };
        (naming, self.actors.age())
    }

    /// The authors of rows that were read in this way, one for each: one more statement where some are not remembered.
    pub(crate) async fn authors<R: ByAuthor>(
        &self,
        (naming, age): (Naming, Age),
        rows: &[R],
    ) -> Result<Vec<Author>, StoreError> {
        if naming == Naming::Joined {
            return self.joined(age, rows);
        }
        let known = self.actors.authors(rows.iter().map(|row| UserId::new(row.author_id())));
        let unknown = rows.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(row, _)| row.author_id());
        let unknown: Vec<i64> = unknown.collect();
        let read = if unknown.is_empty() { HashMap::new() } else { Box::pin(self.shown(age, unknown)).await? };
        let author = |(row, known): (&R, Option<Author>)| match known.or_else(|| read.get(&row.author_id()).cloned()) {
            Some(author) => Ok(author),
            None => row.reading().author(row.author_id(), None, None),
        };
        rows.iter().zip(known).map(author).collect()
    }

    fn joined<R: ByAuthor>(&self, age: Age, rows: &[R]) -> Result<Vec<Author>, StoreError> {
        let mut last = None;
        let author = |row: &R| {
            let (display_name, email) = row.joined();
            let author = row.reading().author(row.author_id(), display_name, email)?;
            // A unit may know what is not committed.
            if !self.changes_actors() && last != Some(author.id) {
                last = Some(author.id);
                self.actors.remember_author(age, &author);
            }
            Ok(author)
        };
        rows.iter().map(author).collect()
    }

    async fn shown(&self, age: Age, mut ids: Vec<i64>) -> Result<HashMap<i64, Author>, StoreError> {
        ids.sort_unstable();
        ids.dedup();
        let (places, values) = among(&ids);
        let sql = format!("SELECT user_id, display_name, email FROM users WHERE user_id IN ({places})");
        let statement = Statement::from_sql_and_values(self.connection.get_database_backend(), sql, values);
        let rows = self.run("user.authors", Shown::find_by_statement(statement).all(&self.connection)).await?;
        let author = |row: Shown| {
            let reading = Reading { table: "users", id: row.user_id };
            let author = reading.author(row.user_id, row.display_name.as_deref(), row.email.as_deref())?;
            self.actors.remember_author(age, &author);
            Ok((row.user_id, author))
        };
        rows.into_iter().map(author).collect()
    }
}
