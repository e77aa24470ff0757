//! The buckets of the rate limits that all nodes share. Empty ones are swept; losing the table loses nothing but counts.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DbErr;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &[MYSQL], &[SQLITE, SQLITE_BY_END]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &["DROP TABLE IF EXISTS rate_limit"], &["DROP TABLE IF EXISTS rate_limit"]).await
    }
}

// `empty_at` is microseconds since 1970: every database adds whole numbers alike, and no two add to times alike.
const MYSQL: &str = "
CREATE TABLE IF NOT EXISTS rate_limit (
    rate_key BINARY(32) NOT NULL,
    empty_at BIGINT     NOT NULL,
    PRIMARY KEY (rate_key),
    KEY rate_limit_by_end (empty_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS rate_limit (
    rate_key BLOB    NOT NULL,
    empty_at INTEGER NOT NULL,
    PRIMARY KEY (rate_key)
) STRICT, WITHOUT ROWID";

const SQLITE_BY_END: &str = "CREATE INDEX IF NOT EXISTS rate_limit_by_end ON rate_limit (empty_at)";
