//! Whether every row can be read as what it is.

use sea_orm::sea_query::{DynIden, IntoIden, ValueTuple};
use sea_orm::{DbErr, EntityTrait, FromQueryResult, IdenStatic as _, Identity, QueryResult, RuntimeErr, Value, sqlx};

use super::{Doctor, DoctorError, Finding, ROWS};
use crate::TABLES;
use crate::failure::store_error;
use crate::row::Moment;
use crate::tables::{Described, key, kind};
use crate::transfer::Kind;

/// A row as far as it could be read.
pub(super) struct Tried<E: EntityTrait> {
    key: Vec<Value>,
    /// The row, or what of it cannot be read.
    pub(super) model: Result<E::Model, String>,
}

impl<E: EntityTrait> FromQueryResult for Tried<E> {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        let value = |column: E::Column| {
            let name = column.as_str();
            Ok(match kind(column) {
                Kind::Integer => row.try_get::<i64>(prefix, name)?.into(),
                Kind::Text => row.try_get::<String>(prefix, name)?.into(),
                Kind::Bytes => row.try_get::<Vec<u8>>(prefix, name)?.into(),
                Kind::Time => row.try_get::<Moment>(prefix, name)?.into(),
            })
        };
        let key = key::<E>().map(value).collect::<Result<_, DbErr>>()?;
        let model = E::Model::from_query_result(row, prefix).map_err(|error| unreadable(&error));
        Ok(Self { key, model })
    }
}

impl<E: EntityTrait> Tried<E> {
    /// The first column of its key: the others may be somebody's words.
    fn id(&self) -> String {
        match self.key.first() {
            Some(Value::BigInt(Some(id))) => id.to_string(),
            Some(Value::String(Some(name))) => name.clone(),
            _ => "of a hash".to_owned(),
        }
    }
}

/// Which column it was, never what is in it: the driver's own text may hold that.
fn unreadable(error: &DbErr) -> String {
    if let DbErr::Query(RuntimeErr::SqlxError(error)) = error
        && let sqlx::Error::ColumnDecode { index, .. } = &**error
    {
        return format!("{}: not of its kind", index.trim_matches('"'));
    }
    "a column is not of its kind".to_owned()
}

impl Doctor<'_> {
    pub(super) async fn rows(&mut self) -> Result<(), DoctorError> {
        for table in TABLES {
            table.examine(self).await?;
        }
        Ok(())
    }

    /// Reads a table by its key. What one statement reads of a row is one moment of it, so one look is enough.
    pub(crate) async fn walk<E: Described>(&mut self) -> Result<(), DoctorError> {
        let mut last = None;
        while let Some(rows) = self.rows_behind::<E>(&mut last).await? {
            self.examined.rows += rows.len() as u64;
            for row in rows {
                let wrong = row.model.as_ref().map_or_else(|unreadable| vec![unreadable.clone()], E::wrong);
                for what in wrong {
                    let about = format!("{} {}", E::called(), row.id());
                    self.tell(&Finding::new(about, format!("{what}; correct it in the database")));
                }
            }
        }
        Ok(())
    }

    /// The rows behind the one with the key `last`, which becomes that of the last of them; none at the end.
    pub(super) async fn rows_behind<E: EntityTrait<Model: Sync>>(
        &mut self,
        last: &mut Option<Vec<Value>>,
    ) -> Result<Option<Vec<Tried<E>>>, DoctorError> {
        let key: Vec<DynIden> = key::<E>().map(IntoIden::into_iden).collect();
        let mut cursor = E::find().cursor_by(Identity::Many(key)).into_model::<Tried<E>>();
        if let Some(last) = last.take() {
            cursor.after(ValueTuple::Many(last));
        }
        let rows = cursor.first(ROWS).all(self.patient()).await.map_err(store_error)?;
        *last = rows.last().map(|row| row.key.clone());
        Ok(last.is_some().then_some(rows))
    }
}
