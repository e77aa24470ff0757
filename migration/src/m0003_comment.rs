//! Comments, stored in the order in which a question shows them.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DbErr;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &[MYSQL], &[SQLITE, SQLITE_BY_QNA]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &["DROP TABLE IF EXISTS comment"], &["DROP TABLE IF EXISTS comment"]).await
    }
}

// InnoDB stores rows in the order of the primary key: with the question first, a question's comments lie side by side
// and are read in one go. The id alone stays unique, and the auto-increment needs a key that starts with it.
const MYSQL: &str = "
CREATE TABLE IF NOT EXISTS comment (
    qna_id     BIGINT      NOT NULL,
    comment_id BIGINT      NOT NULL AUTO_INCREMENT,
    user_id    BIGINT      NOT NULL,
    content    MEDIUMTEXT  NOT NULL,
    created_at DATETIME(6) NOT NULL,
    updated_at DATETIME(6) NOT NULL,
    version    INT         NOT NULL DEFAULT 1,
    PRIMARY KEY (qna_id, comment_id),
    UNIQUE KEY comment_id (comment_id),
    KEY comment_by_author (user_id),
    CONSTRAINT comment_qna FOREIGN KEY (qna_id) REFERENCES qna (qna_id) ON DELETE CASCADE,
    CONSTRAINT comment_author FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE NO ACTION
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS comment (
    comment_id INTEGER PRIMARY KEY AUTOINCREMENT,
    qna_id     INTEGER NOT NULL REFERENCES qna (qna_id) ON DELETE CASCADE,
    user_id    INTEGER NOT NULL REFERENCES users (user_id) ON DELETE NO ACTION,
    content    TEXT    NOT NULL,
    created_at TEXT    NOT NULL,
    updated_at TEXT    NOT NULL,
    version    INTEGER NOT NULL DEFAULT 1
) STRICT";

// SQLite clusters by the row id alone; an index that holds every column gives the same neighbourhood for some space.
pub(crate) const SQLITE_BY_QNA: &str = "
CREATE INDEX IF NOT EXISTS comment_by_qna
    ON comment (qna_id, comment_id, user_id, content, created_at, updated_at, version)";
