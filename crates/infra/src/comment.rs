//! Comments in the database.

use std::collections::HashMap;

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::comment::{Comment, CommentContent, CommentId, CommentRecord, CommentRepository, NewComment};
use mundap_domain::env::Timestamp;
use mundap_domain::image::Image;
use mundap_domain::page::Slice;
use mundap_domain::qna::QnaId;
use mundap_domain::user::{Author, UserId};
use mundap_domain::version::Version;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, FromQueryResult, QueryFilter as _, QueryResult,
    QuerySelect as _, StreamTrait,
};

use crate::Session;
use crate::actors::Age;
use crate::author::ByAuthor;
use crate::row::{Moment, Naming, Pieces, Reading, Written, moment, one_or_stale, text};
use crate::tables::{Described, below_first, rules};
use row::{ActiveModel, Column, Entity, Model};

pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    use crate::row::Moment;

    /// The id alone is unique, and so the key here; on MySQL the table's primary key is (`qna_id`, `comment_id`).
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "comment")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub comment_id: i64,
        pub qna_id: i64,
        pub user_id: i64,
        pub content: String,
        pub created_at: Moment,
        pub updated_at: Moment,
        pub version: i32,
        pub image_count: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {
        #[sea_orm(
            belongs_to = "crate::qna::row::Entity",
            from = "Column::QnaId",
            to = "crate::qna::row::Column::QnaId"
        )]
        Qna,
        #[sea_orm(
            belongs_to = "crate::user::row::Entity",
            from = "Column::UserId",
            to = "crate::user::row::Column::UserId"
        )]
        User,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// A comment with what is shown of its author.
#[derive(Clone)]
pub(crate) struct WithAuthor {
    comment_id: i64,
    qna_id: i64,
    user_id: i64,
    content: String,
    created_at: Moment,
    updated_at: Moment,
    version: i32,
    image_count: i32,
    display_name: Option<String>,
    email: Option<String>,
}

/// By their places, as in `qna.rs`.
impl FromQueryResult for WithAuthor {
    fn from_query_result(row: &QueryResult, _: &str) -> Result<Self, DbErr> {
        let (display_name, email) = (row.try_get_by_index(8)?, row.try_get_by_index(9)?);
        Ok(Self { display_name, email, ..Self::unnamed(row)? })
    }
}

impl ByAuthor for WithAuthor {
    type Packed = (i64, i64, i64, String, Moment, Moment, i32, i32);

    fn unpack(packed: Self::Packed) -> Self {
        let (comment_id, qna_id, user_id, content, created_at, updated_at, version, image_count) = packed;
        let (display_name, email) = (None, None);
        Self { comment_id, qna_id, user_id, content, created_at, updated_at, version, image_count, display_name, email }
    }

    fn unnamed(row: &QueryResult) -> Result<Self, DbErr> {
        Ok(Self {
            comment_id: row.try_get_by_index(0)?,
            qna_id: row.try_get_by_index(1)?,
            user_id: row.try_get_by_index(2)?,
            content: text(row, 3)?,
            created_at: moment(row, 4)?,
            updated_at: moment(row, 5)?,
            version: row.try_get_by_index(6)?,
            image_count: row.try_get_by_index(7)?,
            display_name: None,
            email: None,
        })
    }

    fn size(&self) -> usize {
        self.content.len()
    }

    fn reading(&self) -> Reading {
        Reading { table: "comment", id: self.comment_id }
    }

    fn author_id(&self) -> i64 {
        self.user_id
    }

    fn lies_with(&self) -> Option<i64> {
        Some(self.qna_id)
    }

    fn joined(&self) -> (Option<&str>, Option<&str>) {
        (self.display_name.as_deref(), self.email.as_deref())
    }
}

impl WithAuthor {
    fn read(self, author: Author, images: Vec<Image>) -> Result<Comment, StoreError> {
        let row = self.reading();
        Ok(Comment::restore(CommentRecord {
            id: CommentId::new(self.comment_id),
            qna: QnaId::new(self.qna_id),
            author,
            content: row.check("content", CommentContent::parse_own(self.content))?,
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
            version: Version::new(self.version),
            images,
        }))
    }
}

impl Described for Entity {
    fn wrong(row: &Model) -> Vec<String> {
        let content = rules("content", CommentContent::parse(&row.content));
        content.into_iter().chain(below_first(row.version)).collect()
    }
}

pub(crate) static LIST: Written = Written {
    table: "comment",
    columns: "t.comment_id, t.qna_id, t.user_id, t.content, t.created_at, t.updated_at, t.version, t.image_count",
    id: "comment_id",
    clustered_by: Some("qna_id"),
};

impl<C: ConnectionTrait + StreamTrait + Send> Session<C> {
    async fn comments(
        &self,
        query: &'static str,
        of: (&'static str, i64),
        slice: &Slice,
    ) -> Result<Vec<Comment>, StoreError> {
        let naming = self.naming();
        let rows = self.rows(query, &LIST, |batches| &batches.comment_pages, Some(of), slice, naming.0).await?;
        self.whole(naming, rows).await
    }

    /// The comments of these rows, with their authors and images: one more statement, and none where there are no images.
    async fn whole(&self, naming: (Naming, Age), rows: Vec<WithAuthor>) -> Result<Vec<Comment>, StoreError> {
        let authors = self.authors(naming, &rows).await?;
        let ids: Vec<i64> = rows.iter().filter(|row| row.image_count > 0).map(|row| row.comment_id).collect();
        let mut images: HashMap<i64, Vec<Image>> = HashMap::new();
        if !ids.is_empty() {
            for image in self.images_on(ids).await? {
                images.entry(image.comment.get()).or_default().push(image);
            }
        }
        let read = |(row, author): (WithAuthor, Author)| {
            let images = images.remove(&row.comment_id).unwrap_or_default();
            row.read(author, images)
        };
        rows.into_iter().zip(authors).map(read).collect()
    }
}

static OF_QNA: Pieces = Pieces { table: "comment", key: "comment_id", condition: "qna_id = ?", order: "comment_id" };

/// The row that stores a new one; its id is the database's to give.
pub(crate) fn active(qna: QnaId, author: UserId, content: &CommentContent, created_at: Timestamp) -> ActiveModel {
    ActiveModel {
        comment_id: NotSet,
        qna_id: Set(qna.get()),
        user_id: Set(author.get()),
        content: Set(content.as_str().to_owned()),
        created_at: Set(created_at.into()),
        updated_at: Set(created_at.into()),
        version: Set(Version::FIRST.get()),
        image_count: Set(0),
    }
}

#[async_trait]
impl<C: ConnectionTrait + StreamTrait + Send> CommentRepository for Session<C> {
    async fn find(&self, id: CommentId) -> Result<Option<Comment>, StoreError> {
        let age = self.actors.age();
        let found = LIST.with_ids(ConnectionTrait::get_database_backend(&self.connection), &[id.get()], Naming::Joined);
        let row = self.run("comment.find", WithAuthor::find_by_statement(found).one(&self.connection)).await?;
        Ok(self.whole((Naming::Joined, age), row.into_iter().collect()).await?.pop())
    }

    async fn find_locked(&self, id: CommentId) -> Result<Option<Comment>, StoreError> {
        if self.locks_rows {
            let lock = Entity::find_by_id(id.get()).select_only().column(Column::CommentId).lock_exclusive();
            if self.run("comment.find_locked", lock.into_tuple::<i64>().one(&self.connection)).await?.is_none() {
                return Ok(None);
            }
        }
        CommentRepository::find(self, id).await
    }

    async fn list(&self, qna: QnaId, slice: &Slice) -> Result<Vec<Comment>, StoreError> {
        self.comments("comment.list", ("qna_id", qna.get()), slice).await
    }

    async fn list_by(&self, author: UserId, slice: &Slice) -> Result<Vec<Comment>, StoreError> {
        self.comments("comment.list_by", ("user_id", author.get()), slice).await
    }

    async fn insert(&self, comment: &NewComment) -> Result<Comment, StoreError> {
        let row = active(comment.qna, comment.author.id, &comment.content, comment.created_at);
        let inserted = self.run("comment.insert", Entity::insert(row).exec(&self.connection)).await?;
        Ok(comment.clone().stored(CommentId::new(inserted.last_insert_id)))
    }

    async fn update(&self, comment: &Comment) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::Content, Expr::value(comment.content.as_str()))
            .col_expr(Column::UpdatedAt, Expr::value(Moment::from(comment.updated_at)))
            .col_expr(Column::Version, Expr::value(comment.version.get()))
            .filter(Column::CommentId.eq(comment.id.get()))
            .filter(Column::Version.eq(comment.version.previous().get()));
        one_or_stale(self.run("comment.update", update.exec(&self.connection)).await?.rows_affected)
    }

    async fn delete(&self, id: CommentId, version: Version) -> Result<(), StoreError> {
        let delete =
            Entity::delete_many().filter(Column::CommentId.eq(id.get())).filter(Column::Version.eq(version.get()));
        one_or_stale(self.run("comment.delete", delete.exec(&self.connection)).await?.rows_affected)
    }

    async fn delete_some_of(&self, qna: QnaId, most: u64) -> Result<u64, StoreError> {
        let delete = OF_QNA.delete(ConnectionTrait::get_database_backend(&self.connection), qna.get(), most);
        Ok(self.run("comment.delete_some_of", self.connection.execute_raw(delete)).await?.rows_affected())
    }

    async fn count_images(&self, id: CommentId, by: i32) -> Result<bool, StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::ImageCount, Expr::col(Column::ImageCount).add(by))
            .filter(Column::CommentId.eq(id.get()));
        Ok(self.run("comment.count_images", update.exec(&self.connection)).await?.rows_affected == 1)
    }
}
