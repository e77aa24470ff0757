//! Questions.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DbErr;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &[MYSQL], &[SQLITE, SQLITE_BY_AUTHOR]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &["DROP TABLE IF EXISTS qna"], &["DROP TABLE IF EXISTS qna"]).await
    }
}

// MEDIUMTEXT: 20,000 characters of four bytes each do not fit into TEXT's 65,535 bytes.
// NO ACTION, not RESTRICT: SQLite reports RESTRICT as code 1811, which nobody recognises as a foreign key.
const MYSQL: &str = "
CREATE TABLE IF NOT EXISTS qna (
    qna_id        BIGINT       NOT NULL AUTO_INCREMENT,
    user_id       BIGINT       NOT NULL,
    title         VARCHAR(255) NOT NULL,
    content       MEDIUMTEXT   NOT NULL,
    comment_count INT          NOT NULL DEFAULT 0,
    created_at    DATETIME(6)  NOT NULL,
    updated_at    DATETIME(6)  NOT NULL,
    version       INT          NOT NULL DEFAULT 1,
    PRIMARY KEY (qna_id),
    KEY qna_by_author (user_id, qna_id),
    CONSTRAINT qna_author FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE NO ACTION
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS qna (
    qna_id        INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id       INTEGER NOT NULL REFERENCES users (user_id) ON DELETE NO ACTION,
    title         TEXT    NOT NULL,
    content       TEXT    NOT NULL,
    comment_count INTEGER NOT NULL DEFAULT 0,
    created_at    TEXT    NOT NULL,
    updated_at    TEXT    NOT NULL,
    version       INTEGER NOT NULL DEFAULT 1
) STRICT";

const SQLITE_BY_AUTHOR: &str = "CREATE INDEX IF NOT EXISTS qna_by_author ON qna (user_id, qna_id)";
