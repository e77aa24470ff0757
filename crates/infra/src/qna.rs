//! Questions in the database.

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::page::Slice;
use mundap_domain::qna::{Content, NewQna, Qna, QnaId, QnaRecord, QnaRepository, Title};
use mundap_domain::user::UserId;
use mundap_domain::version::Version;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, JoinType, QueryFilter as _, QuerySelect as _,
    RelationTrait as _, Select, SelectModel, Selector,
};

use crate::Session;
use crate::row::{Moment, Reading, one_or_stale, sliced};
use row::{ActiveModel, Column, Entity};

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
        Author,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// A question with what is shown of its author.
#[derive(sea_orm::DerivePartialModel)]
#[sea_orm(entity = "Entity")]
struct WithAuthor {
    qna_id: i64,
    user_id: i64,
    title: String,
    content: String,
    comment_count: i32,
    created_at: Moment,
    updated_at: Moment,
    version: i32,
    #[sea_orm(from_expr = "Expr::col((crate::user::row::Entity, crate::user::row::Column::DisplayName))")]
    display_name: Option<String>,
    #[sea_orm(from_expr = "Expr::col((crate::user::row::Entity, crate::user::row::Column::Email))")]
    email: Option<String>,
}

impl WithAuthor {
    fn read(self) -> Result<Qna, StoreError> {
        let row = Reading { table: "qna", id: self.qna_id };
        Ok(Qna::restore(QnaRecord {
            id: QnaId::new(self.qna_id),
            author: row.author(self.user_id, self.display_name.as_deref(), self.email.as_deref())?,
            title: row.check("title", Title::parse(&self.title))?,
            content: row.check("content", Content::parse(&self.content))?,
            comment_count: self.comment_count,
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
            version: Version::new(self.version),
        }))
    }
}

/// LEFT, though the author is always there: with an inner join MySQL may start from the few users and sort a million
/// questions, instead of walking along the key.
fn with_author(select: Select<Entity>) -> Selector<SelectModel<WithAuthor>> {
    select.join(JoinType::LeftJoin, row::Relation::Author.def()).into_partial_model()
}

#[async_trait]
impl<C: ConnectionTrait + Send> QnaRepository for Session<C> {
    async fn find(&self, id: QnaId) -> Result<Option<Qna>, StoreError> {
        let row = self.run(with_author(Entity::find_by_id(id.get())).one(&self.connection)).await?;
        row.map(WithAuthor::read).transpose()
    }

    async fn find_locked(&self, id: QnaId) -> Result<Option<Qna>, StoreError> {
        if self.locks_rows {
            // On its own: FOR UPDATE on the join would lock the author's row too, and with it all that they write.
            let lock = Entity::find_by_id(id.get()).select_only().column(Column::QnaId).lock_exclusive();
            if self.run(lock.into_tuple::<i64>().one(&self.connection)).await?.is_none() {
                return Ok(None);
            }
        }
        QnaRepository::find(self, id).await
    }

    async fn list(&self, author: Option<UserId>, slice: &Slice) -> Result<Vec<Qna>, StoreError> {
        let mut select = Entity::find();
        if let Some(author) = author {
            select = select.filter(Column::UserId.eq(author.get()));
        }
        let select = with_author(sliced(select, Column::QnaId, slice));
        self.run(select.all(&self.connection)).await?.into_iter().map(WithAuthor::read).collect()
    }

    async fn insert(&self, qna: &NewQna) -> Result<Qna, StoreError> {
        let created_at = qna.created_at;
        let row = ActiveModel {
            qna_id: NotSet,
            user_id: Set(qna.author.id.get()),
            title: Set(qna.title.as_str().to_owned()),
            content: Set(qna.content.as_str().to_owned()),
            comment_count: Set(0),
            created_at: Set(created_at.into()),
            updated_at: Set(created_at.into()),
            version: Set(Version::FIRST.get()),
        };
        let inserted = self.run(Entity::insert(row).exec(&self.connection)).await?;
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
        one_or_stale(self.run(update.exec(&self.connection)).await?.rows_affected)
    }

    async fn delete(&self, id: QnaId, version: Version) -> Result<(), StoreError> {
        let delete = Entity::delete_many().filter(Column::QnaId.eq(id.get())).filter(Column::Version.eq(version.get()));
        one_or_stale(self.run(delete.exec(&self.connection)).await?.rows_affected)
    }

    async fn count_comments(&self, id: QnaId, by: i32) -> Result<bool, StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::CommentCount, Expr::col(Column::CommentCount).add(by))
            .filter(Column::QnaId.eq(id.get()));
        Ok(self.run(update.exec(&self.connection)).await?.rows_affected == 1)
    }
}
