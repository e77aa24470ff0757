//! What came of requests with an idempotency key, for a day.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DbErr;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &[MYSQL], &[SQLITE, SQLITE_BY_AGE]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &["DROP TABLE IF EXISTS receipt"], &["DROP TABLE IF EXISTS receipt"]).await
    }
}

// `claimant` is an account or 0, so it refers to no row; deleting the account deletes its receipts by hand.
const MYSQL: &str = "
CREATE TABLE IF NOT EXISTS receipt (
    claimant     BIGINT       NOT NULL,
    idem_key     VARCHAR(255) NOT NULL,
    fingerprint  BINARY(32)   NOT NULL,
    created_id   BIGINT       NOT NULL,
    display_name VARCHAR(50)  NULL,
    email        VARCHAR(254) NULL,
    created_at   DATETIME(6)  NOT NULL,
    PRIMARY KEY (claimant, idem_key),
    KEY receipt_by_age (created_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS receipt (
    claimant     INTEGER NOT NULL,
    idem_key     TEXT    NOT NULL,
    fingerprint  BLOB    NOT NULL,
    created_id   INTEGER NOT NULL,
    display_name TEXT    NULL,
    email        TEXT    NULL,
    created_at   TEXT    NOT NULL,
    PRIMARY KEY (claimant, idem_key)
) STRICT, WITHOUT ROWID";

const SQLITE_BY_AGE: &str = "CREATE INDEX IF NOT EXISTS receipt_by_age ON receipt (created_at)";
