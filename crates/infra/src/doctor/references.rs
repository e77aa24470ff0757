//! Rows that name others which are not there: in a file that was written to without `foreign_keys`, or on a server with
//! `foreign_key_checks` off.

use super::{Doctor, DoctorError, Finding, ROWS, pair};
use crate::failure::store_error;

/// A column that names a row of another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    pub table: &'static str,
    /// What a row of it is called by.
    pub id: &'static str,
    pub column: &'static str,
    /// The table that is referred to, by the column of the same name as its key.
    pub to: &'static str,
    pub key: &'static str,
}

const fn reference(
    table: &'static str,
    id: &'static str,
    column: &'static str,
    to: &'static str,
    key: &'static str,
) -> Reference {
    Reference { table, id, column, to, key }
}

/// Every reference that the schema knows; a contract test holds it to that.
pub const REFERENCES: &[Reference] = &[
    reference("qna", "qna_id", "user_id", "users", "user_id"),
    reference("comment", "comment_id", "qna_id", "qna", "qna_id"),
    reference("comment", "comment_id", "user_id", "users", "user_id"),
    reference("image", "image_id", "comment_id", "comment", "comment_id"),
    reference("image", "image_id", "user_id", "users", "user_id"),
    reference("sign_in", "sign_in_id", "user_id", "users", "user_id"),
    reference("outbox", "letter_id", "user_id", "users", "user_id"),
    reference("mail_token", "user_id", "user_id", "users", "user_id"),
    reference("import_user", "user_id", "user_id", "users", "user_id"),
];

impl Doctor<'_> {
    pub(super) async fn references(&mut self) -> Result<(), DoctorError> {
        for &Reference { table, id, column, to, key } in REFERENCES {
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
