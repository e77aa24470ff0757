//! What an import of the first program's board remembers, so that the next one brings what is new alone.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DbErr;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &[MYSQL_MARK, MYSQL_LEFT, MYSQL_USER], &[SQLITE_MARK, SQLITE_LEFT, SQLITE_USER]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const TABLES: [&str; 3] = [
            "DROP TABLE IF EXISTS import_user",
            "DROP TABLE IF EXISTS import_left",
            "DROP TABLE IF EXISTS import_mark",
        ];
        execute(manager, &TABLES, &TABLES).await
    }
}

// `last_id` is the highest id of the old table that was looked at; `import_left` holds those up to it that could not be
// brought over. A row that is in neither and not on the board was deleted here, and stays deleted.
const MYSQL_MARK: &str = "
CREATE TABLE IF NOT EXISTS import_mark (
    source_table VARCHAR(16) NOT NULL,
    last_id      BIGINT      NOT NULL,
    PRIMARY KEY (source_table)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const MYSQL_LEFT: &str = "
CREATE TABLE IF NOT EXISTS import_left (
    source_table VARCHAR(16) NOT NULL,
    source_id    BIGINT      NOT NULL,
    PRIMARY KEY (source_table, source_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

// Who an old e-mail is here, also after its owner took another one or deleted the account: as SHA-256, since the address
// of a deleted account is forgotten.
const MYSQL_USER: &str = "
CREATE TABLE IF NOT EXISTS import_user (
    email_hash BINARY(32) NOT NULL,
    user_id    BIGINT     NOT NULL,
    PRIMARY KEY (email_hash),
    KEY import_user_by_user (user_id),
    CONSTRAINT import_user_user FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const SQLITE_MARK: &str = "
CREATE TABLE IF NOT EXISTS import_mark (
    source_table TEXT    NOT NULL,
    last_id      INTEGER NOT NULL,
    PRIMARY KEY (source_table)
) STRICT, WITHOUT ROWID";

const SQLITE_LEFT: &str = "
CREATE TABLE IF NOT EXISTS import_left (
    source_table TEXT    NOT NULL,
    source_id    INTEGER NOT NULL,
    PRIMARY KEY (source_table, source_id)
) STRICT, WITHOUT ROWID";

const SQLITE_USER: &str = "
CREATE TABLE IF NOT EXISTS import_user (
    email_hash BLOB    NOT NULL,
    user_id    INTEGER NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    PRIMARY KEY (email_hash)
) STRICT, WITHOUT ROWID";
