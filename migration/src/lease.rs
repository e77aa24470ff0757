//! Who may migrate, where several nodes start at once on one MySQL or MariaDB.
//!
//! A row, not `GET_LOCK`: on a Galera cluster a named lock holds on one member alone, a row on all of them. The row is
//! taken and renewed by one UPDATE each, and the database's clock judges its age, so neither two nodes nor two nodes'
//! clocks can both win. A holder that is killed stops renewing and is followed by another within [`Lease::TERM`].

use std::time::{Duration, Instant};

use sea_orm_migration::prelude::SchemaManager;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};

use crate::{MigrationError, is_contention};

pub(crate) struct Lease<'a> {
    db: &'a DatabaseConnection,
    holder: String,
}

impl<'a> Lease<'a> {
    /// How long a holder may be silent.
    const TERM: Duration = Duration::from_secs(15);
    /// How often it speaks.
    const RENEWAL: Duration = Duration::from_secs(4);

    /// The lease, unless another node holds it.
    pub(crate) async fn take(db: &'a DatabaseConnection) -> Result<Option<Self>, DbErr> {
        // Looked for first: on Galera a CREATE TABLE ends the statements of others on that table, the holder's among them,
        // even where it is there already.
        if !SchemaManager::new(db).has_table("migration_lease").await? {
            db.execute_unprepared(
                "CREATE TABLE IF NOT EXISTS migration_lease (
                    lease_id   TINYINT     NOT NULL PRIMARY KEY,
                    holder     CHAR(32)    NOT NULL,
                    expires_at DATETIME(6) NOT NULL
                ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin",
            )
            .await?;
        }
        db.execute_unprepared("INSERT IGNORE INTO migration_lease VALUES (1, '', '1970-01-01')").await?;
        let holder = format!("{:016x}{:016x}", random()?, random()?);
        let lease = Self { db, holder };
        Ok(lease.extend("expires_at < UTC_TIMESTAMP(6)", None).await?.then_some(lease))
    }

    /// Does `work` while renewing the lease, then lets go of it.
    pub(crate) async fn hold<T>(
        self,
        work: impl Future<Output = Result<T, MigrationError>>,
    ) -> Result<T, MigrationError> {
        let outcome = tokio::select! {
            outcome = work => outcome,
            error = self.renew() => Err(error),
        };
        let released = self
            .execute(
                "UPDATE migration_lease SET expires_at = '1970-01-01' WHERE lease_id = 1 AND holder = ?",
                [&self.holder],
            )
            .await;
        if let Err(error) = released {
            tracing::warn!(%error, "The migration lease could not be given back; it runs out by itself");
        }
        outcome
    }

    /// Comes back only when the lease is lost, or may be before it could be renewed.
    async fn renew(&self) -> MigrationError {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(Self::RENEWAL).await;
            // From when it is asked for: the term may begin later, and is over no sooner.
            let (asked, left) = (Instant::now(), Self::TERM.saturating_sub(renewed.elapsed()));
            match tokio::time::timeout(left, self.extend("holder = ?", Some(&self.holder))).await {
                Ok(Ok(true)) => renewed = asked,
                // Or nobody says, on a line that is cut: by then it may be another's.
                Ok(Ok(false)) | Err(_) => return MigrationError::LostLease,
                // Who else wanted the row was in the way; it is this one's until the next time.
                Ok(Err(error)) if is_contention(&error) && renewed.elapsed() + Self::RENEWAL < Self::TERM => {}
                Ok(Err(error)) => return MigrationError::Database(error),
            }
        }
    }

    /// The driver counts the rows that a WHERE found, so "one" means that it held.
    async fn extend(&self, condition: &str, value: Option<&str>) -> Result<bool, DbErr> {
        let sql = format!(
            "UPDATE migration_lease SET holder = ?, expires_at = UTC_TIMESTAMP(6) + INTERVAL {} SECOND
             WHERE lease_id = 1 AND {condition}",
            Self::TERM.as_secs()
        );
        let values = std::iter::once(self.holder.as_str()).chain(value);
        Ok(self.execute(&sql, values).await? == 1)
    }

    async fn execute(&self, sql: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Result<u64, DbErr> {
        let values = values.into_iter().map(|value| value.into().into());
        let statement = Statement::from_sql_and_values(self.db.get_database_backend(), sql, values);
        Ok(self.db.execute_raw(statement).await?.rows_affected())
    }
}

fn random() -> Result<u64, DbErr> {
    getrandom::u64().map_err(|error| DbErr::Custom(format!("no random bytes: {error}")))
}
