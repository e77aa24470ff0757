//! Letters that wait to be sent, and the tokens that they carry (as SHA-256 alone).
//!
//! A letter is due from `due_at` on; taking it moves that into the future, which is the lease of whoever took it.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DbErr;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // MySQL knows no `ADD COLUMN IF NOT EXISTS`, and this must be repeatable.
        if !manager.has_column("users", "email_verified_at").await? {
            execute(manager, &[MYSQL_VERIFIED], &[SQLITE_VERIFIED]).await?;
        }
        execute(
            manager,
            &[MYSQL_OUTBOX, MYSQL_TOKEN],
            &[SQLITE_OUTBOX, SQLITE_DUE, SQLITE_BY_USER, SQLITE_BY_EMAIL, SQLITE_TOKEN],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        const TABLES: [&str; 2] = ["DROP TABLE IF EXISTS mail_token", "DROP TABLE IF EXISTS outbox"];
        execute(manager, &TABLES, &TABLES).await?;
        if manager.has_column("users", "email_verified_at").await? {
            const COLUMN: [&str; 1] = ["ALTER TABLE users DROP COLUMN email_verified_at"];
            execute(manager, &COLUMN, &COLUMN).await?;
        }
        Ok(())
    }
}

const MYSQL_VERIFIED: &str = "ALTER TABLE users ADD COLUMN email_verified_at DATETIME(6) NULL";

const MYSQL_OUTBOX: &str = "
CREATE TABLE IF NOT EXISTS outbox (
    letter_id  BIGINT       NOT NULL AUTO_INCREMENT,
    topic      VARCHAR(32)  NOT NULL,
    user_id    BIGINT       NULL,
    email      VARCHAR(254) NOT NULL,
    email_key  VARCHAR(254) NOT NULL,
    language   VARCHAR(8)   NOT NULL,
    attempts   INT          NOT NULL DEFAULT 0,
    due_at     DATETIME(6)  NOT NULL,
    created_at DATETIME(6)  NOT NULL,
    PRIMARY KEY (letter_id),
    KEY outbox_due (due_at),
    KEY outbox_by_user (user_id),
    KEY outbox_by_email (email_key),
    CONSTRAINT outbox_user FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

// One token an account and purpose: the key is what makes a new one replace the older.
const MYSQL_TOKEN: &str = "
CREATE TABLE IF NOT EXISTS mail_token (
    user_id    BIGINT       NOT NULL,
    purpose    VARCHAR(32)  NOT NULL,
    hash       BINARY(32)   NOT NULL,
    email_key  VARCHAR(254) NOT NULL,
    expires_at DATETIME(6)  NOT NULL,
    PRIMARY KEY (user_id, purpose),
    UNIQUE KEY mail_token_hash (hash),
    CONSTRAINT mail_token_user FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const SQLITE_VERIFIED: &str = "ALTER TABLE users ADD COLUMN email_verified_at TEXT NULL";

const SQLITE_OUTBOX: &str = "
CREATE TABLE IF NOT EXISTS outbox (
    letter_id  INTEGER PRIMARY KEY AUTOINCREMENT,
    topic      TEXT    NOT NULL,
    user_id    INTEGER NULL REFERENCES users (user_id) ON DELETE CASCADE,
    email      TEXT    NOT NULL,
    email_key  TEXT    NOT NULL,
    language   TEXT    NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    due_at     TEXT    NOT NULL,
    created_at TEXT    NOT NULL
) STRICT";

const SQLITE_DUE: &str = "CREATE INDEX IF NOT EXISTS outbox_due ON outbox (due_at)";
const SQLITE_BY_USER: &str = "CREATE INDEX IF NOT EXISTS outbox_by_user ON outbox (user_id)";
const SQLITE_BY_EMAIL: &str = "CREATE INDEX IF NOT EXISTS outbox_by_email ON outbox (email_key)";

const SQLITE_TOKEN: &str = "
CREATE TABLE IF NOT EXISTS mail_token (
    user_id    INTEGER NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    purpose    TEXT    NOT NULL,
    hash       BLOB    NOT NULL UNIQUE,
    email_key  TEXT    NOT NULL,
    expires_at TEXT    NOT NULL,
    PRIMARY KEY (user_id, purpose)
) STRICT, WITHOUT ROWID";
