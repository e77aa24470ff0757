//! Which folder the images of this database are in, by the id that stands in that folder: nodes that do not share one are
//! found out.

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
        execute(manager, &["DROP TABLE IF EXISTS image_folder"], &["DROP TABLE IF EXISTS image_folder"]).await
    }
}

// One row at most, under the key 1: of two nodes that come first at once, one is first.
const MYSQL: &str = "
CREATE TABLE IF NOT EXISTS image_folder (
    only_row  TINYINT    NOT NULL,
    folder_id BINARY(16) NOT NULL,
    PRIMARY KEY (only_row)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin";

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS image_folder (
    only_row  INTEGER NOT NULL,
    folder_id BLOB    NOT NULL,
    PRIMARY KEY (only_row)
) STRICT, WITHOUT ROWID";
