//! Running a migration's statements.

use sea_orm_migration::SchemaManager;
use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbBackend, DbErr};

/// Runs the statements of the backend at hand, in order.
///
/// They are written out for each backend rather than built: what matters here (column types with microseconds,
/// collations, clustering) is exactly what a builder hides.
pub(crate) async fn execute(manager: &SchemaManager<'_>, mysql: &[&str], sqlite: &[&str]) -> Result<(), DbErr> {
    let statements = match manager.get_database_backend() {
        DbBackend::MySql => mysql,
        DbBackend::Sqlite => sqlite,
        other => return Err(DbErr::BackendNotSupported { db: other.as_str(), ctx: "Mundap's schema" }),
    };
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}
