//! Signed-in devices. Tokens are held as SHA-256 alone.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DbErr;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &[MYSQL], &[SQLITE, SQLITE_BY_USER]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &["DROP TABLE IF EXISTS sign_in"], &["DROP TABLE IF EXISTS sign_in"]).await
    }
}

const MYSQL: &str = "
CREATE TABLE IF NOT EXISTS sign_in (
    sign_in_id BIGINT      NOT NULL AUTO_INCREMENT,
    user_id    BIGINT      NOT NULL,
    family     BINARY(32)  NOT NULL,
    `current`  BINARY(32)  NOT NULL,
    previous   BINARY(32)  NULL,
    forgiven   BOOLEAN     NOT NULL DEFAULT FALSE,
    rotated_at DATETIME(6) NOT NULL,
    created_at DATETIME(6) NOT NULL,
    expires_at DATETIME(6) NOT NULL,
    PRIMARY KEY (sign_in_id),
    UNIQUE KEY sign_in_family (family),
    KEY sign_in_by_user (user_id),
    CONSTRAINT sign_in_user FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS sign_in (
    sign_in_id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id    INTEGER NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    family     BLOB    NOT NULL UNIQUE,
    \"current\"  BLOB    NOT NULL,
    previous   BLOB    NULL,
    forgiven   INTEGER NOT NULL DEFAULT 0,
    rotated_at TEXT    NOT NULL,
    created_at TEXT    NOT NULL,
    expires_at TEXT    NOT NULL
) STRICT";

const SQLITE_BY_USER: &str = "CREATE INDEX IF NOT EXISTS sign_in_by_user ON sign_in (user_id)";
