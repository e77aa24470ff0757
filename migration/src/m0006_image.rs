//! Images, and how many of them a comment has: a page of comments without any asks no further.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DbErr;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // MySQL has no ADD COLUMN IF NOT EXISTS.
        if !manager.has_column("comment", "image_count").await? {
            execute(manager, &[COUNT], &[COUNT]).await?;
        }
        execute(
            manager,
            &[MYSQL],
            &[DROP_BY_QNA, SQLITE_BY_QNA, SQLITE, SQLITE_BY_COMMENT, SQLITE_BY_OWNER, SQLITE_BY_CONTENT],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &[DROP], &[DROP, DROP_BY_QNA]).await?;
        if manager.has_column("comment", "image_count").await? {
            execute(manager, &[DROP_COUNT], &[DROP_COUNT]).await?;
        }
        execute(manager, &[], &[crate::m0003_comment::SQLITE_BY_QNA]).await
    }
}

const COUNT: &str = "ALTER TABLE comment ADD COLUMN image_count INTEGER NOT NULL DEFAULT 0";
const DROP_COUNT: &str = "ALTER TABLE comment DROP COLUMN image_count";
const DROP: &str = "DROP TABLE IF EXISTS image";

// The owner's bytes lie in the index alone: the quota is a sum over it. `sha256` is not unique, a blob may be shown often.
const MYSQL: &str = "
CREATE TABLE IF NOT EXISTS image (
    image_id   BIGINT      NOT NULL AUTO_INCREMENT,
    comment_id BIGINT      NOT NULL,
    user_id    BIGINT      NOT NULL,
    media_type VARCHAR(20) NOT NULL,
    bytes      INT         NOT NULL,
    width      INT         NOT NULL,
    height     INT         NOT NULL,
    sha256     BINARY(32)  NOT NULL,
    created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (image_id),
    KEY image_by_comment (comment_id),
    KEY image_by_owner (user_id, bytes),
    KEY image_by_content (sha256),
    CONSTRAINT image_comment FOREIGN KEY (comment_id) REFERENCES comment (comment_id) ON DELETE CASCADE,
    CONSTRAINT image_owner FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE NO ACTION
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS image (
    image_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    comment_id INTEGER NOT NULL REFERENCES comment (comment_id) ON DELETE CASCADE,
    user_id    INTEGER NOT NULL REFERENCES users (user_id) ON DELETE NO ACTION,
    media_type TEXT    NOT NULL,
    bytes      INTEGER NOT NULL,
    width      INTEGER NOT NULL,
    height     INTEGER NOT NULL,
    sha256     BLOB    NOT NULL,
    created_at TEXT    NOT NULL
) STRICT";

const SQLITE_BY_COMMENT: &str = "CREATE INDEX IF NOT EXISTS image_by_comment ON image (comment_id)";
const SQLITE_BY_OWNER: &str = "CREATE INDEX IF NOT EXISTS image_by_owner ON image (user_id, bytes)";
const SQLITE_BY_CONTENT: &str = "CREATE INDEX IF NOT EXISTS image_by_content ON image (sha256)";

// The covering index of `m0003_comment.rs`, with the new column in it.
const DROP_BY_QNA: &str = "DROP INDEX IF EXISTS comment_by_qna";
const SQLITE_BY_QNA: &str = "
CREATE INDEX IF NOT EXISTS comment_by_qna
    ON comment (qna_id, comment_id, user_id, content, created_at, updated_at, version, image_count)";
