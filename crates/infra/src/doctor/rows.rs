//! Whether every row can be read as what it is.

use mundap_domain::StoreError;
use mundap_domain::comment::CommentContent;
use mundap_domain::error::Broken;
use mundap_domain::qna::{Content, Title};
use mundap_domain::user::{DisplayName, Email};
use mundap_domain::version::Version;
use sea_orm::{
    ColumnTrait as _, DbErr, EntityTrait, FromQueryResult, IdenStatic as _, Iterable as _, QueryFilter as _,
    QueryOrder as _, QueryResult, QuerySelect as _, RuntimeErr, sqlx,
};

use super::{Doctor, DoctorError, Finding, ROWS};
use crate::failure::store_error;
use crate::{audit, comment, mail_token, outbox, qna, receipt, sign_in, user};

/// A row as far as it could be read.
pub(super) struct Tried<E: EntityTrait> {
    /// The first column of its key.
    pub(super) id: i64,
    /// The second one, where there are two.
    second: Option<String>,
    /// The row, or what of it cannot be read.
    pub(super) model: Result<E::Model, String>,
}

impl<E: EntityTrait> FromQueryResult for Tried<E> {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        let mut key = E::PrimaryKey::iter().map(|column| column.as_str());
        let id = row.try_get(prefix, key.next().unwrap_or_default())?;
        let second = key.next().map(|column| row.try_get(prefix, column)).transpose()?;
        let model = E::Model::from_query_result(row, prefix).map_err(|error| unreadable(&error));
        Ok(Self { id, second, model })
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

const TODO: &str = "correct it in the database";

impl Doctor<'_> {
    pub(super) async fn rows(&mut self) -> Result<(), DoctorError> {
        self.walk::<user::row::Entity>("users", user::row::Column::UserId, check_user).await?;
        self.walk::<qna::row::Entity>("qna", qna::row::Column::QnaId, check_qna).await?;
        self.walk::<comment::row::Entity>("comment", comment::row::Column::CommentId, check_comment).await?;
        let check = |row: &sign_in::row::Model| broken(sign_in::read(row.clone()));
        self.walk::<sign_in::row::Entity>("sign_in", sign_in::row::Column::SignInId, check).await?;
        let check = |row: &outbox::row::Model| broken(outbox::read(row));
        self.walk::<outbox::row::Entity>("outbox", outbox::row::Column::LetterId, check).await?;
        let check = |row: &audit::row::Model| broken(audit::read(row.clone()));
        self.walk::<audit::row::Entity>("audit", audit::row::Column::AuditId, check).await?;
        let key = (receipt::row::Column::Claimant, receipt::row::Column::IdemKey);
        self.walk_pairs::<receipt::row::Entity>("receipt of user", key, check_receipt).await?;
        let key = (mail_token::row::Column::UserId, mail_token::row::Column::Purpose);
        self.walk_pairs::<mail_token::row::Entity>("mail_token of user", key, check_mail_token).await?;
        Ok(())
    }

    /// Reads a table by its id. What one statement reads of a row is one moment of it, so one look is enough.
    async fn walk<E: EntityTrait>(
        &mut self,
        table: &str,
        id: E::Column,
        check: impl Fn(&E::Model) -> Vec<String>,
    ) -> Result<(), StoreError> {
        let mut after = i64::MIN;
        loop {
            let select = E::find().filter(id.gt(after)).order_by_asc(id).limit(ROWS).into_model::<Tried<E>>();
            let rows = select.all(self.patient()).await.map_err(store_error)?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.id;
            self.judge(table, rows, &check);
        }
    }

    fn judge<E: EntityTrait>(&mut self, table: &str, rows: Vec<Tried<E>>, check: impl Fn(&E::Model) -> Vec<String>) {
        self.examined.rows += rows.len() as u64;
        for row in rows {
            let wrong = row.model.as_ref().map_or_else(|unreadable| vec![unreadable.clone()], &check);
            for what in wrong {
                self.tell(&Finding::new(format!("{table} {}", row.id), format!("{what}; {TODO}")));
            }
        }
    }

    /// As [`walk`](Self::walk), along a key of two columns.
    async fn walk_pairs<E: EntityTrait<Model: Sync>>(
        &mut self,
        table: &str,
        columns: (E::Column, E::Column),
        check: impl Fn(&E::Model) -> Vec<String>,
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let mut cursor = E::find().cursor_by(columns).into_model::<Tried<E>>();
            if let Some(after) = after {
                cursor.after(after);
            }
            let rows = cursor.first(ROWS).all(self.patient()).await.map_err(store_error)?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some((last.id, last.second.clone().unwrap_or_default()));
            self.judge(table, rows, &check);
        }
    }
}

fn check_receipt(row: &receipt::row::Model) -> Vec<String> {
    let author = [
        rules("display_name", row.display_name.as_deref().map(DisplayName::parse).transpose()),
        rules("email", row.email.as_deref().map(Email::parse).transpose()),
    ];
    author.into_iter().flatten().chain(not_a_hash("fingerprint", &row.fingerprint)).collect()
}

fn check_mail_token(row: &mail_token::row::Model) -> Vec<String> {
    not_a_hash("hash", &row.hash).into_iter().collect()
}

fn not_a_hash(column: &str, bytes: &[u8]) -> Option<String> {
    (bytes.len() != 32).then(|| format!("{column}: not 32 bytes"))
}

fn check_user(row: &user::row::Model) -> Vec<String> {
    if row.deleted_at.is_some() {
        let kept = [&row.email, &row.email_key, &row.display_name, &row.password_hash];
        let forgotten = kept.into_iter().all(Option::is_none);
        return if forgotten { Vec::new() } else { vec!["deleted, and not forgotten".to_owned()] };
    }
    let (key, version) = (row.email_key.clone(), row.version);
    match user::read(row.clone()) {
        Err(error) => broken::<()>(Err(error)),
        Ok(user) => {
            let key = (key != Some(user.email.key())).then(|| "email_key: not that of the email".to_owned());
            key.into_iter().chain(below_first(version)).collect()
        }
    }
}

fn check_qna(row: &qna::row::Model) -> Vec<String> {
    let title = rules("title", Title::parse(&row.title));
    let content = rules("content", Content::parse(&row.content));
    title.into_iter().chain(content).chain(below_first(row.version)).collect()
}

fn check_comment(row: &comment::row::Model) -> Vec<String> {
    let content = rules("content", CommentContent::parse(&row.content));
    content.into_iter().chain(below_first(row.version)).collect()
}

fn below_first(version: i32) -> Option<String> {
    (version < Version::FIRST.get()).then(|| "version: below 1".to_owned())
}

/// The rules that a text breaks.
fn rules<T>(column: &str, parsed: Result<T, Vec<Broken>>) -> Option<String> {
    let codes: Vec<&str> = parsed.err()?.iter().map(Broken::code).collect();
    Some(format!("{column}: {}", codes.join(", ")))
}

/// What a repository would refuse to read.
pub(super) fn broken<T>(read: Result<T, StoreError>) -> Vec<String> {
    match read {
        Ok(_) => Vec::new(),
        Err(StoreError::Corrupt { reason, .. }) => vec![reason],
        Err(other) => vec![other.to_string()],
    }
}
