//! A database into which something is being carried.
//!
//! The mark is a row among the applied migrations, under a name that no migration has: every version of the program looks
//! there before it does anything, and none takes up what is half there.

use sea_orm_migration::sea_orm::{ActiveValue::Set, DatabaseConnection, DbErr, EntityTrait as _};
use sea_orm_migration::seaql_migrations::{ActiveModel, Entity};

use crate::recorded;

const MARK: &str = "unfinished: ";

/// What a recorded name marks as unfinished.
pub(crate) fn what(name: &str) -> Option<&str> {
    name.strip_prefix(MARK)
}

/// Marks a migrated database: until it is unmarked, [`up`](crate::up), [`down`](crate::down) and [`status`](crate::status)
/// fail with [`MigrationError::Unfinished`](crate::MigrationError::Unfinished).
///
/// # Errors
/// The database's; also where it is marked already.
pub async fn mark(db: &DatabaseConnection, what: &str) -> Result<(), DbErr> {
    let row = ActiveModel { version: Set(format!("{MARK}{what}")), applied_at: Set(0) };
    Entity::insert(row).exec_without_returning(db).await.map(|_| ())
}

/// What the database is marked with.
///
/// # Errors
/// The database's.
pub async fn marked(db: &DatabaseConnection) -> Result<Option<String>, DbErr> {
    Ok(recorded(db).await?.iter().find_map(|name| what(name)).map(str::to_owned))
}

/// Takes the mark away.
///
/// # Errors
/// The database's.
pub async fn unmark(db: &DatabaseConnection) -> Result<(), DbErr> {
    if let Some(what) = marked(db).await? {
        Entity::delete_by_id(format!("{MARK}{what}")).exec(db).await?;
    }
    Ok(())
}

/// Whether a marked database has exactly these migrations.
///
/// # Errors
/// The database's.
pub async fn is_below_mark(db: &DatabaseConnection, migrations: &[String]) -> Result<bool, DbErr> {
    let recorded = recorded(db).await?;
    Ok(recorded.iter().filter(|name| what(name).is_none()).eq(migrations))
}
