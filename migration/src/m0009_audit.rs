//! What administrators did.
//!
//! No foreign keys: an account's row outlives it, and the log must not be in the way of anything.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DbErr;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &[MYSQL], &[SQLITE, SQLITE_BY_TARGET]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &["DROP TABLE IF EXISTS audit"], &["DROP TABLE IF EXISTS audit"]).await
    }
}

const MYSQL: &str = "
CREATE TABLE IF NOT EXISTS audit (
    audit_id    BIGINT      NOT NULL AUTO_INCREMENT,
    actor_id    BIGINT      NULL,
    action      VARCHAR(32) NOT NULL,
    role_before VARCHAR(16) NULL,
    role_after  VARCHAR(16) NULL,
    target_id   BIGINT      NULL,
    created_at  DATETIME(6) NOT NULL,
    PRIMARY KEY (audit_id),
    KEY audit_by_target (target_id, audit_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS audit (
    audit_id    INTEGER PRIMARY KEY AUTOINCREMENT,
    actor_id    INTEGER NULL,
    action      TEXT    NOT NULL,
    role_before TEXT    NULL,
    role_after  TEXT    NULL,
    target_id   INTEGER NULL,
    created_at  TEXT    NOT NULL
) STRICT";

const SQLITE_BY_TARGET: &str = "CREATE INDEX IF NOT EXISTS audit_by_target ON audit (target_id, audit_id)";
