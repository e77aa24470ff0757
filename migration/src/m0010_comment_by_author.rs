//! A person's comments in the order in which they were written, for the export of one's own data.

use sea_orm_migration::prelude::{DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};
use sea_orm_migration::sea_orm::{DbBackend, DbErr};

use crate::sql::execute;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // MySQL has no IF NOT EXISTS for a key. One statement: the foreign key always has a key to stand on.
        if is_mysql(manager) && manager.has_index("comment", "comment_by_author_id").await? {
            return Ok(());
        }
        let mysql =
            "ALTER TABLE comment ADD KEY comment_by_author_id (user_id, comment_id), DROP KEY comment_by_author";
        let sqlite = "CREATE INDEX IF NOT EXISTS comment_by_author_id ON comment (user_id, comment_id)";
        execute(manager, &[mysql], &[sqlite]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if is_mysql(manager) && manager.has_index("comment", "comment_by_author").await? {
            return Ok(());
        }
        let mysql = "ALTER TABLE comment ADD KEY comment_by_author (user_id), DROP KEY comment_by_author_id";
        execute(manager, &[mysql], &["DROP INDEX IF EXISTS comment_by_author_id"]).await
    }
}

fn is_mysql(manager: &SchemaManager<'_>) -> bool {
    manager.get_database_backend() == DbBackend::MySql
}
