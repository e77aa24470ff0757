//! Rows that name others which are not there: in a file that was written to without `foreign_keys`, or on a server with
//! `foreign_key_checks` off.

use super::{Doctor, DoctorError, Finding, ROWS, pair};
use crate::failure::store_error;

/// A column that names a row of another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub table: String,
    /// What a row of it is called by: the first column of its key where that is a number, or else this column itself.
    pub id: String,
    pub column: String,
    /// The table that is referred to.
    pub to: String,
    /// Its key.
    pub key: String,
}

/// Every reference that the schema knows; a contract test holds it to that.
#[must_use]
pub fn references() -> Vec<Reference> {
    crate::TABLES.iter().flat_map(|table| table.references()).collect()
}

impl Doctor<'_> {
    pub(super) async fn references(&mut self) -> Result<(), DoctorError> {
        for Reference { table, id, column, to, key } in references() {
            let dangling =
                format!("t.{column} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {to} o WHERE o.{key} = t.{column})");
            let select = format!("SELECT DISTINCT t.{id}, t.{column} FROM {table} t");
            let mut after = i64::MIN;
            loop {
                let suspects = self.suspects(&format!("{select} WHERE t.{id} > ? AND {dangling}"), after).await?;
                let Some((last, _)) = suspects.last() else { break };
                after = *last;
                // A statement sees one moment, so these were not there: but by now they may be gone together.
                let places = vec!["?"; suspects.len()].join(", ");
                let again = format!("{select} WHERE t.{id} IN ({places}) AND {dangling} ORDER BY 1 LIMIT {ROWS}");
                for row in self.ask(again, suspects.iter().map(|(id, _)| *id)).await? {
                    let (row, named) = pair(&row).map_err(store_error)?;
                    let what = format!(
                        "its {column} names {to} {named}, which is not there: bring that back from a backup, or delete this"
                    );
                    self.tell(&Finding::new(format!("{table} {row}"), what));
                }
            }
        }
        Ok(())
    }
}
