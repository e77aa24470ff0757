//! A table of the board is described once: by its row. What is carried to another database, what refers to what, and what
//! `mundap doctor` reads follow from that; contract tests hold the rows to the schema, which the migrations make.

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::error::Broken;
use mundap_domain::version::Version;
use sea_orm::sea_query::{TableName, TableRef};
use sea_orm::{
    ColumnTrait, ColumnType, EntityTrait, IdenStatic as _, Identity, Iterable as _, PrimaryKeyToColumn,
    PrimaryKeyTrait as _, RelationDef, RelationTrait as _,
};

use crate::doctor::{Doctor, DoctorError, Reference};
use crate::row::told;
use crate::transfer::{Column, Kind, Table};

/// The row of a table that is carried and examined.
pub(crate) trait Described: EntityTrait<Model: Sync> {
    /// What is wrong with a row, each beginning with its column, and nothing of what the row holds. That each column is of its
    /// kind is known by then.
    fn wrong(row: &Self::Model) -> Vec<String>;

    /// What a row is called, before the first column of its key.
    fn called() -> String {
        Self::default().table_name().to_owned()
    }
}

/// The rules that a text breaks.
pub(crate) fn rules<T>(column: &str, parsed: Result<T, Vec<Broken>>) -> Option<String> {
    Some(told(column, &parsed.err()?))
}

pub(crate) fn below_first(version: i32) -> Option<String> {
    (version < Version::FIRST.get()).then(|| "version: below 1".to_owned())
}

pub(crate) fn not_a_hash(column: &str, bytes: &[u8]) -> Option<String> {
    (bytes.len() != 32).then(|| format!("{column}: not 32 bytes"))
}

/// What a repository would refuse to read.
pub(crate) fn broken<T>(read: Result<T, StoreError>) -> Vec<String> {
    match read {
        Ok(_) => Vec::new(),
        Err(StoreError::Corrupt { reason, .. }) => vec![reason],
        Err(other) => vec![other.to_string()],
    }
}

/// A table, whatever its rows are.
#[async_trait]
pub(crate) trait Carried: Sync {
    fn table(&self) -> Table;

    /// The columns that name rows of other tables.
    fn references(&self) -> Vec<Reference>;

    /// Reads every row, and tells what is wrong with it.
    async fn examine(&self, doctor: &mut Doctor<'_>) -> Result<(), DoctorError>;
}

#[async_trait]
impl<E: Described> Carried for E {
    fn table(&self) -> Table {
        Table {
            name: self.table_name().to_owned(),
            columns: E::Column::iter()
                .map(|column| Column { name: column.as_str().to_owned(), kind: kind(column) })
                .collect(),
            key: key::<E>().map(|column| column.as_str().to_owned()).collect(),
            counted: E::PrimaryKey::auto_increment(),
        }
    }

    fn references(&self) -> Vec<Reference> {
        let of_another = E::Relation::iter().map(|relation| relation.def()).filter(|relation| !relation.is_owner);
        of_another.filter_map(reference::<E>).collect()
    }

    async fn examine(&self, doctor: &mut Doctor<'_>) -> Result<(), DoctorError> {
        doctor.walk::<E>().await
    }
}

/// The columns that the rows of a table are unique and ordered by.
pub(crate) fn key<E: EntityTrait>() -> impl Iterator<Item = E::Column> {
    E::PrimaryKey::iter().map(PrimaryKeyToColumn::into_column)
}

/// What a column holds.
pub(crate) fn kind(column: impl ColumnTrait) -> Kind {
    match column.def().get_column_type() {
        ColumnType::BigInteger | ColumnType::Integer | ColumnType::Boolean => Kind::Integer,
        ColumnType::VarBinary(_) => Kind::Bytes,
        ColumnType::DateTime => Kind::Time,
        _ => Kind::Text,
    }
}

fn reference<E: EntityTrait>(relation: RelationDef) -> Option<Reference> {
    let name = |column: Identity| match column {
        Identity::Unary(column) => Some(column.to_string()),
        _ => None,
    };
    let column = name(relation.from_col)?;
    let TableRef::Table(TableName(_, to), _) = relation.to_tbl else { return None };
    let id = key::<E>().next().filter(|first| kind(*first) == Kind::Integer);
    Some(Reference {
        table: E::default().table_name().to_owned(),
        id: id.map_or_else(|| column.clone(), |id| id.as_str().to_owned()),
        to: to.to_string(),
        key: name(relation.to_col)?,
        column,
    })
}
