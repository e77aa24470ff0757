//! Questions in the database.

use std::collections::HashMap;

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::env::Timestamp;
use mundap_domain::idempotency::{Claim, NotAdded, Receipt};
use mundap_domain::page::Slice;
use mundap_domain::qna::{Content, NewQna, Qna, QnaId, QnaRecord, QnaRepository, Title};
use mundap_domain::user::{Author, UserId};
use mundap_domain::version::Version;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, DbBackend, DbErr, EntityTrait as _, FromQueryResult, QueryFilter as _,
    QueryResult, QuerySelect as _, Statement, StreamTrait, Value,
};

use crate::actors::{Actors, Age};
use crate::author::ByAuthor;
use crate::batch::{Answer, Batch, Pool};
use crate::failure::{is_of_ended, store_error};
use crate::row::{Moment, Naming, Reading, Written, moment, one_or_stale, text};
use crate::tables::{Described, below_first, rules};
use crate::together::Writer;
use crate::writers::{Transaction, Writers};
use crate::{DatabaseKind, Origin, Session, receipt};
use row::{ActiveModel, Column, Entity, Model};

pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    use crate::row::Moment;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "qna")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub qna_id: i64,
        pub user_id: i64,
        pub title: String,
        pub content: String,
        pub comment_count: i32,
        pub created_at: Moment,
        pub updated_at: Moment,
        pub version: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {
        #[sea_orm(
            belongs_to = "crate::user::row::Entity",
            from = "Column::UserId",
            to = "crate::user::row::Column::UserId"
        )]
        User,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// A question with what is shown of its author.
#[derive(Clone)]
pub(crate) struct WithAuthor {
    qna_id: i64,
    user_id: i64,
    title: String,
    content: String,
    comment_count: i32,
    created_at: Moment,
    updated_at: Moment,
    version: i32,
    display_name: Option<String>,
    email: Option<String>,
}

/// By their places, as `LIST` names them: to look for each by its name costs more than to read it.
impl FromQueryResult for WithAuthor {
    fn from_query_result(row: &QueryResult, _: &str) -> Result<Self, DbErr> {
        let (display_name, email) = (row.try_get_by_index(8)?, row.try_get_by_index(9)?);
        Ok(Self { display_name, email, ..Self::unnamed(row)? })
    }
}

impl ByAuthor for WithAuthor {
    type Packed = (i64, i64, String, String, i32, Moment, Moment, i32);

    fn unpack(packed: Self::Packed) -> Self {
        let (qna_id, user_id, title, content, comment_count, created_at, updated_at, version) = packed;
        let (display_name, email) = (None, None);
        Self { qna_id, user_id, title, content, comment_count, created_at, updated_at, version, display_name, email }
    }

    fn unnamed(row: &QueryResult) -> Result<Self, DbErr> {
        Ok(Self {
            qna_id: row.try_get_by_index(0)?,
            user_id: row.try_get_by_index(1)?,
            title: text(row, 2)?,
            content: text(row, 3)?,
            comment_count: row.try_get_by_index(4)?,
            created_at: moment(row, 5)?,
            updated_at: moment(row, 6)?,
            version: row.try_get_by_index(7)?,
            display_name: None,
            email: None,
        })
    }

    fn size(&self) -> usize {
        self.title.len() + self.content.len()
    }

    fn reading(&self) -> Reading {
        Reading { table: "qna", id: self.qna_id }
    }

    fn author_id(&self) -> i64 {
        self.user_id
    }

    fn lies_with(&self) -> Option<i64> {
        None
    }

    fn joined(&self) -> (Option<&str>, Option<&str>) {
        (self.display_name.as_deref(), self.email.as_deref())
    }
}

impl WithAuthor {
    fn read_by(self, author: Author) -> Result<Qna, StoreError> {
        let row = self.reading();
        Ok(Qna::restore(QnaRecord {
            id: QnaId::new(self.qna_id),
            author,
            title: row.check("title", Title::parse_own(self.title))?,
            content: row.check("content", Content::parse_own(self.content))?,
            comment_count: self.comment_count,
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
            version: Version::new(self.version),
        }))
    }
}

impl Described for Entity {
    fn wrong(row: &Model) -> Vec<String> {
        let title = rules("title", Title::parse(&row.title));
        let content = rules("content", Content::parse(&row.content));
        title.into_iter().chain(content).chain(below_first(row.version)).collect()
    }
}

pub(crate) static LIST: Written = Written {
    table: "qna",
    columns: "t.qna_id, t.user_id, t.title, t.content, t.comment_count, t.created_at, t.updated_at, t.version",
    id: "qna_id",
    clustered_by: None,
};

/// Questions by their ids, those that are asked for together by one statement; each with how it was read.
pub(crate) type Questions = Batch<i64, Option<Found>>;

type Found = (WithAuthor, (Naming, Age));

/// What reads them from this pool.
pub(crate) fn questions(pool: Pool, actors: Actors) -> Questions {
    Batch::on(pool, move |pool, ids| many(pool, actors.clone(), ids))
}

/// Reads the questions with these ids: one that is asked for alone with its author, who need not be remembered.
async fn many(pool: Pool, actors: Actors, ids: Vec<i64>) -> Result<Vec<Answer<Option<Found>>>, StoreError> {
    let naming = if ids.len() == 1 { Naming::Joined } else { actors.naming() };
    let age = actors.age();
    let statement = LIST.with_ids(pool.connection.get_database_backend(), &ids, naming);
    let rows: Vec<WithAuthor> = pool.rows(statement, |row| naming.read(row)).await?;
    let mut found: HashMap<i64, WithAuthor> = rows.into_iter().map(|row| (row.qna_id, row)).collect();
    // Each is given away at the last place that it is asked for at.
    let last: HashMap<i64, usize> = ids.iter().copied().zip(0..).collect();
    let answer = |(place, id): (usize, i64)| {
        let row = if last.get(&id) == Some(&place) { found.remove(&id) } else { found.get(&id).cloned() };
        Ok(row.map(|row| (row, (naming, age))))
    };
    Ok(ids.into_iter().enumerate().map(answer).collect())
}

/// The row that stores a new one; its id is the database's to give.
pub(crate) fn active(author: UserId, title: &Title, content: &Content, created_at: Timestamp) -> ActiveModel {
    ActiveModel {
        qna_id: NotSet,
        user_id: Set(author.get()),
        title: Set(title.as_str().to_owned()),
        content: Set(content.as_str().to_owned()),
        comment_count: Set(0),
        created_at: Set(created_at.into()),
        updated_at: Set(created_at.into()),
        version: Set(Version::FIRST.get()),
    }
}

/// A new question, and the claim to its receipt.
pub(crate) type Asked = (NewQna, Option<Claim>);

/// Stores new questions with their receipts, several by one transaction.
pub(crate) struct Asking {
    pub(crate) kind: DatabaseKind,
    pub(crate) writers: Writers,
}

#[async_trait]
impl Writer<Asked> for Asking {
    type Open = Transaction;
    type Written = Qna;

    async fn write(&self, all: Vec<Asked>) -> Result<(Transaction, Vec<Qna>), NotAdded<StoreError>> {
        let (mut transaction, ids) = self.begin(&all).await?;
        let stored = match ids {
            Ok(ids) => self.store(&mut transaction, all, ids).await,
            Err(error) => Err(error.into()),
        };
        match stored {
            Ok(stored) => Ok((transaction, stored)),
            Err(error) => {
                if !matches!(error.cause(), StoreError::Unavailable(_)) {
                    self.writers.roll_back(transaction).await;
                }
                Err(error)
            }
        }
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        self.writers.commit(transaction).await
    }
}

impl Asking {
    /// A transaction, and the ids that the questions have in it.
    async fn begin(&self, all: &[Asked]) -> Result<(Transaction, Result<Vec<i64>, StoreError>), StoreError> {
        // Its state is large.
        let (transaction, ids) = Box::pin(self.begin_once(all)).await?;
        if transaction.is_kept() && ids.as_ref().is_err_and(is_of_ended) {
            // Its connection ended, most likely while nobody used it, and nothing is committed: once more, by another.
            drop(transaction);
            return Box::pin(self.begin_once(all)).await;
        }
        Ok((transaction, ids))
    }

    async fn begin_once(&self, all: &[Asked]) -> Result<(Transaction, Result<Vec<i64>, StoreError>), StoreError> {
        let mut transaction = self.writers.begin().await?;
        let ids = self.insert(&mut transaction, all).await;
        Ok((transaction, ids))
    }

    /// The questions, once they have these ids, and their receipts.
    async fn store(
        &self,
        transaction: &mut Transaction,
        all: Vec<Asked>,
        ids: Vec<i64>,
    ) -> Result<Vec<Qna>, NotAdded<StoreError>> {
        let stored = all
            .into_iter()
            .zip(ids)
            .map(|((new, claim), id)| (new.stored(QnaId::new(id)), claim.map(|claim| claim.receipt(id))));
        let (stored, receipts): (Vec<Qna>, Vec<Option<Receipt>>) = stored.unzip();
        let receipts: Vec<Receipt> = receipts.into_iter().flatten().collect();
        if !receipts.is_empty() {
            let insert = receipt::insertion(self.writers.backend(), &receipts);
            self.writers.run("receipt.insert", transaction.execute(insert)).await.map_err(NotAdded::Receipt)?;
        }
        Ok(stored)
    }

    /// The ids that the questions are stored under.
    async fn insert(&self, transaction: &mut Transaction, all: &[Asked]) -> Result<Vec<i64>, StoreError> {
        let ids = match (self.kind, transaction.id_step()) {
            (DatabaseKind::MySql, Some(step)) => {
                // The first is told. The others follow it by the session's step: InnoDB reserves those of a statement whose rows
                // are counted beforehand at once, in each of its modes.
                let first = self.insert_telling_first(transaction, all).await?;
                (0..).take(all.len()).map(|n: i64| first + n * step).collect()
            }
            (DatabaseKind::MySql, None) => {
                let mut ids = Vec::with_capacity(all.len());
                for one in all {
                    ids.push(self.insert_telling_first(transaction, std::slice::from_ref(one)).await?);
                }
                ids
            }
            (DatabaseKind::Sqlite | DatabaseKind::MariaDb, _) => self.insert_telling_all(transaction, all).await?,
        };
        if ids.len() == all.len() { Ok(ids) } else { Err(StoreError::Backend("not one id for each question".into())) }
    }

    async fn insert_telling_first(&self, transaction: &mut Transaction, all: &[Asked]) -> Result<i64, StoreError> {
        let insert = transaction.execute(insertion(self.writers.backend(), all));
        let stored = self.writers.run("qna.insert", insert).await?;
        i64::try_from(stored.last_insert_id()).map_err(|error| StoreError::Backend(error.into()))
    }

    /// They grow with the rows, in whatever order they are told.
    async fn insert_telling_all(&self, transaction: &mut Transaction, all: &[Asked]) -> Result<Vec<i64>, StoreError> {
        let mut insert = insertion(self.writers.backend(), all);
        insert.sql.push_str(" RETURNING qna_id");
        let rows = self.writers.run("qna.insert", transaction.all(insert)).await?;
        let ids: Result<Vec<i64>, DbErr> = rows.iter().map(|row| row.try_get_by_index(0)).collect();
        let mut ids = ids.map_err(store_error)?;
        ids.sort_unstable();
        Ok(ids)
    }
}

/// The statement that stores these in their first version.
fn insertion(db: DbBackend, all: &[Asked]) -> Statement {
    let sql = format!(
        "INSERT INTO qna (user_id, title, content, comment_count, created_at, updated_at, version) VALUES {}",
        vec!["(?, ?, ?, 0, ?, ?, ?)"; all.len()].join(", ")
    );
    let values = all.iter().flat_map(|(new, _)| {
        let created_at = Moment::from(new.created_at);
        [
            new.author.id.get().into(),
            new.title.as_str().into(),
            new.content.as_str().into(),
            created_at.into(),
            created_at.into(),
            Version::FIRST.get().into(),
        ]
    });
    Statement::from_sql_and_values(db, sql, values.collect::<Vec<Value>>())
}

#[async_trait]
impl<C: ConnectionTrait + StreamTrait + Send> QnaRepository for Session<C> {
    async fn find(&self, id: QnaId) -> Result<Option<Qna>, StoreError> {
        let found = match &self.origin {
            Origin::Pool { batches, .. } => self.timed("qna.find", batches.questions.get(id.get())).await?,
            Origin::Unit { .. } => {
                let naming = (Naming::Joined, self.actors.age());
                let backend = ConnectionTrait::get_database_backend(&self.connection);
                let found = WithAuthor::find_by_statement(LIST.with_ids(backend, &[id.get()], Naming::Joined));
                Box::pin(self.run("qna.find", found.one(&self.connection))).await?.map(|row| (row, naming))
            }
        };
        let Some((row, naming)) = found else { return Ok(None) };
        let author = self.authors(naming, std::slice::from_ref(&row)).await?.pop();
        author.map(|author| row.read_by(author)).transpose()
    }

    async fn find_locked(&self, id: QnaId) -> Result<Option<Qna>, StoreError> {
        if self.locks_rows {
            // On its own: FOR UPDATE on the join would lock the author's row too, and with it all that they write.
            let lock = Entity::find_by_id(id.get()).select_only().column(Column::QnaId).lock_exclusive();
            if self.run("qna.find_locked", lock.into_tuple::<i64>().one(&self.connection)).await?.is_none() {
                return Ok(None);
            }
        }
        QnaRepository::find(self, id).await
    }

    async fn list(&self, author: Option<UserId>, slice: &Slice) -> Result<Vec<Qna>, StoreError> {
        let naming = self.naming();
        let of = author.map(|author| ("user_id", author.get()));
        let rows = self.rows("qna.list", &LIST, |batches| &batches.question_pages, of, slice, naming.0).await?;
        let authors = self.authors(naming, &rows).await?;
        rows.into_iter().zip(authors).map(|(row, author)| row.read_by(author)).collect()
    }

    async fn insert(&self, qna: &NewQna) -> Result<Qna, StoreError> {
        let row = active(qna.author.id, &qna.title, &qna.content, qna.created_at);
        let inserted = self.run("qna.insert", Entity::insert(row).exec(&self.connection)).await?;
        Ok(qna.clone().stored(QnaId::new(inserted.last_insert_id)))
    }

    async fn update(&self, qna: &Qna) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::Title, Expr::value(qna.title.as_str()))
            .col_expr(Column::Content, Expr::value(qna.content.as_str()))
            .col_expr(Column::UpdatedAt, Expr::value(Moment::from(qna.updated_at)))
            .col_expr(Column::Version, Expr::value(qna.version.get()))
            .filter(Column::QnaId.eq(qna.id.get()))
            .filter(Column::Version.eq(qna.version.previous().get()));
        one_or_stale(self.run("qna.update", update.exec(&self.connection)).await?.rows_affected)
    }

    async fn delete(&self, id: QnaId, version: Version) -> Result<(), StoreError> {
        let delete = Entity::delete_many().filter(Column::QnaId.eq(id.get())).filter(Column::Version.eq(version.get()));
        one_or_stale(self.run("qna.delete", delete.exec(&self.connection)).await?.rows_affected)
    }

    async fn count_comments(&self, id: QnaId, by: i32) -> Result<bool, StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::CommentCount, Expr::col(Column::CommentCount).add(by))
            .filter(Column::QnaId.eq(id.get()));
        Ok(self.run("qna.count_comments", update.exec(&self.connection)).await?.rows_affected == 1)
    }
}
