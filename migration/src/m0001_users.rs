//! Accounts.
//!
//! A deleted account keeps its row, since what it wrote refers to it, but nothing of the person: `email`, `email_key`,
//! `display_name` and `password_hash` become NULL and `deleted_at` is set.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::DbErr;

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &[MYSQL], &[SQLITE]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute(manager, &["DROP TABLE IF EXISTS users"], &["DROP TABLE IF EXISTS users"]).await
    }
}

// `email_key` is the address folded by the domain: the two servers' default collations fold differently and SQLite's
// not at all, so the column compares bytes.
const MYSQL: &str = "
CREATE TABLE IF NOT EXISTS users (
    user_id       BIGINT       NOT NULL AUTO_INCREMENT,
    email         VARCHAR(254) NULL,
    email_key     VARCHAR(254) NULL,
    display_name  VARCHAR(50)  NULL,
    role          VARCHAR(16)  NOT NULL,
    password_hash VARCHAR(255) NULL,
    suspended_at  DATETIME(6)  NULL,
    deleted_at    DATETIME(6)  NULL,
    created_at    DATETIME(6)  NOT NULL,
    updated_at    DATETIME(6)  NOT NULL,
    version       INT          NOT NULL DEFAULT 1,
    PRIMARY KEY (user_id),
    UNIQUE KEY users_email_key (email_key)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

// Times are text such as `2026-01-02 12:00:00.000001`: without a zone behind the fraction it sorts as the instants do.
const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS users (
    user_id       INTEGER PRIMARY KEY AUTOINCREMENT,
    email         TEXT    NULL,
    email_key     TEXT    NULL UNIQUE,
    display_name  TEXT    NULL,
    role          TEXT    NOT NULL,
    password_hash TEXT    NULL,
    suspended_at  TEXT    NULL,
    deleted_at    TEXT    NULL,
    created_at    TEXT    NOT NULL,
    updated_at    TEXT    NOT NULL,
    version       INTEGER NOT NULL DEFAULT 1
) STRICT";
