//! What is stored though it follows from other rows.

use mundap_domain::{StoreError, UnitOfWork as _};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, Statement};

use super::{Doctor, DoctorError, Finding};
use crate::{Session, retried};

/// A column that counts the rows of another table which name its row.
struct Counter {
    table: &'static str,
    /// Its key, and what the other rows name it by.
    id: &'static str,
    column: &'static str,
    of: &'static str,
}

const COUNTERS: [Counter; 2] = [
    Counter { table: "qna", id: "qna_id", column: "comment_count", of: "comment" },
    Counter { table: "comment", id: "comment_id", column: "image_count", of: "image" },
];

impl Doctor<'_> {
    pub(super) async fn counts(&mut self) -> Result<(), DoctorError> {
        for counter in &COUNTERS {
            let Counter { table, id, column, of } = counter;
            let sql = format!(
                "SELECT t.{id}, t.{column} FROM {table} t WHERE t.{id} > ?
                 AND t.{column} <> (SELECT COUNT(*) FROM {of} o WHERE o.{id} = t.{id})"
            );
            let mut after = i64::MIN;
            loop {
                let suspects = self.suspects(&sql, after).await?;
                let Some((last, _)) = suspects.last() else { break };
                after = *last;
                for (row, _) in suspects {
                    if let Some(finding) = self.recount(counter, row).await? {
                        self.tell(&finding);
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts while nobody can add or take away.
    async fn recount(&self, counter: &Counter, row: i64) -> Result<Option<Finding>, StoreError> {
        let Counter { table, id, column, of } = counter;
        let repair = self.examination.repair;
        let outcome = retried(async || {
            let unit = self.store().unit().await?;
            // Whoever adds or takes away changes the count, and so waits here.
            let lock = if unit.locks_rows { " FOR UPDATE" } else { "" };
            let select = format!("SELECT {column} FROM {table} WHERE {id} = ?{lock}");
            let Some(stored) = unit.number("doctor.lock", &select, row).await? else { return Ok(None) };
            let there = unit.number("doctor.count", &format!("SELECT COUNT(*) FROM {of} WHERE {id} = ?"), row).await?;
            let there = there.unwrap_or_default();
            if stored == there {
                return Ok(None);
            }
            if repair {
                unit.set(&format!("UPDATE {table} SET {column} = ? WHERE {id} = ?"), [there, row]).await?;
                Box::new(unit).commit().await?;
            }
            Ok(Some((stored, there)))
        });
        Ok(outcome.await?.map(|(stored, there)| {
            let what = format!("its {column} is {stored}, and there are {there}");
            Finding { mended: repair, ..Finding::new(format!("{table} {row}"), what) }
        }))
    }

    /// An image counts against the quota of whoever wrote its comment. Told alone: which of the two was changed by mistake
    /// nobody can see from here, and both say who may delete what.
    pub(super) async fn owners(&mut self) -> Result<(), DoctorError> {
        let sql = "SELECT i.image_id, c.comment_id FROM image i JOIN comment c ON c.comment_id = i.comment_id
                   WHERE i.image_id > ? AND i.user_id <> c.user_id";
        let mut after = i64::MIN;
        loop {
            // Neither of the two ever changes, so one look is enough.
            let found = self.suspects(sql, after).await?;
            let Some((last, _)) = found.last() else { return Ok(()) };
            after = *last;
            for (image, comment) in found {
                let what = format!(
                    "it does not belong to who wrote comment {comment}: set the user_id of the one that is wrong"
                );
                self.tell(&Finding::new(format!("image {image}"), what));
            }
        }
    }
}

impl Session<DatabaseTransaction> {
    fn statement(&self, sql: &str, values: impl IntoIterator<Item = i64>) -> Statement {
        let values = values.into_iter().map(sea_orm::Value::from);
        Statement::from_sql_and_values(self.connection.get_database_backend(), sql, values)
    }

    /// The number that a query on one row gives; `None` where there is no such row.
    async fn number(&self, query: &'static str, sql: &str, row: i64) -> Result<Option<i64>, StoreError> {
        let statement = self.statement(sql, [row]);
        let number = async {
            let found = self.connection.query_one_raw(statement).await?;
            found.map(|found| found.try_get_by_index(0)).transpose()
        };
        self.run(query, number).await
    }

    async fn set(&self, sql: &str, values: [i64; 2]) -> Result<(), StoreError> {
        let statement = self.statement(sql, values);
        self.run("doctor.set_count", self.connection.execute_raw(statement)).await?;
        Ok(())
    }
}
