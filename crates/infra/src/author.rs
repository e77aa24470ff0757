//! Who wrote what a list shows.
//!
//! To join an account to each row is a good part of what a page costs the database. So those who were read within the last
//! second are remembered, and while there are any a list is read without them. Whoever reads one who is not reads others along
//! that will not be for much longer.

use std::collections::HashMap;

use mundap_domain::StoreError;
use mundap_domain::user::{Author, UserId};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, QueryResult, Statement};
use serde::de::DeserializeOwned;

use crate::Session;
use crate::actors::Age;
use crate::batch::MOST;
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

    async fn shown(&self, age: Age, unknown: Vec<i64>) -> Result<HashMap<i64, Author>, StoreError> {
        let due = self.actors.due(MOST.saturating_sub(unknown.len()));
        let mut ids: Vec<i64> = unknown.iter().copied().chain(due.into_iter().map(UserId::get)).collect();
        ids.sort_unstable();
        ids.dedup();
        let (places, values) = among(&ids);
        let sql = format!("SELECT user_id, display_name, email FROM users WHERE user_id IN ({places})");
        let statement = Statement::from_sql_and_values(self.connection.get_database_backend(), sql, values);
        let rows = self.run("user.authors", Shown::find_by_statement(statement).all(&self.connection)).await?;
        let mut authors = HashMap::with_capacity(rows.len());
        for row in rows {
            let reading = Reading { table: "users", id: row.user_id };
            match reading.author(row.user_id, row.display_name.as_deref(), row.email.as_deref()) {
                Ok(author) => {
                    self.actors.remember_author(age, &author);
                    authors.insert(row.user_id, author);
                }
                Err(error) if unknown.contains(&row.user_id) => return Err(error),
                // Nobody here asked for it.
                Err(_) => {}
            }
        }
        Ok(authors)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mundap_domain::Store as _;
    use mundap_domain::page::{Order, Slice};
    use mundap_domain::qna::NewQna;
    use mundap_domain::testing::{a_qna, noon};
    use mundap_domain::user::{DisplayName, Email, NewUser, Role, User};
    use sea_orm::ConnectionTrait as _;

    use crate::{DatabaseSettings, SeaStore, connect};

    /// The names on the newest questions.
    async fn names(store: &SeaStore, limit: u64) -> Vec<String> {
        let slice = Slice { order: Order::Newest, after: None, limit, bytes: Slice::ANY_SIZE };
        let qnas = store.reader().qnas().list(None, &slice).await.unwrap();
        qnas.iter().map(|qna| qna.author.display_name.as_ref().unwrap().as_str().to_owned()).collect()
    }

    #[test]
    fn whoever_reads_an_author_reads_others_along_that_are_shown_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let url = DatabaseSettings::url_of_file(&folder.path().join("mundap.db"));
            let store = connect(&DatabaseSettings::new(url)).await.unwrap();
            mundap_migration::up(store.writer()).await.unwrap();
            let unit = store.begin().await.unwrap();
            let join = async |name: &str| {
                let new = NewUser {
                    email: Email::parse(&format!("{name}@example.com")).unwrap(),
                    display_name: DisplayName::parse(name).unwrap(),
                    role: Role::Member,
                    password: None,
                    created_at: noon(),
                };
                unit.users().insert(&new).await.unwrap()
            };
            let (ann, bob) = (join("ann").await, join("bob").await);
            let (cid, dan) = (join("cid").await, join("dan").await);
            unit.commit().await.unwrap();
            let ask = async |author: &User| {
                let like = a_qna(1, 1);
                let (title, content) = (like.title.clone(), like.content.clone());
                let new = NewQna { author: author.author(), title, content, created_at: noon() };
                let unit = store.begin().await.unwrap();
                unit.qnas().insert(&new).await.unwrap();
                unit.commit().await.unwrap();
            };
            for author in [&ann, &bob, &cid] {
                ask(author).await;
            }
            // Nobody is remembered; then all are, and asked for.
            for _ in 0..2 {
                assert_eq!(names(&store, 3).await, ["cid", "bob", "ann"]);
            }
            tokio::time::pause();
            tokio::time::advance(Duration::from_millis(600)).await;
            tokio::time::resume();
            // As another process does it: this one is not told.
            for (name, user) in [("new", &bob), ("", &ann)] {
                let sql = format!("UPDATE users SET display_name = '{name}' WHERE user_id = {}", user.id.get());
                store.writer().execute_unprepared(&sql).await.unwrap();
            }
            assert_eq!(names(&store, 3).await, ["cid", "bob", "ann"], "as within the last second");
            ask(&dan).await;
            // What is wrong with another's row is no trouble here.
            assert_eq!(names(&store, 1).await, ["dan"]);
            assert_eq!(names(&store, 4).await, ["dan", "cid", "new", "ann"]);
            store.close().await;
        });
    }
}
