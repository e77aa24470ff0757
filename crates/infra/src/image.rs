//! Images in the database: which blob stands on which comment.

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::comment::CommentId;
use mundap_domain::image::{Digest, Image, ImageId, ImageRepository, MediaType, NewImage};
use mundap_domain::page::Slice;
use mundap_domain::user::UserId;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use crate::Session;
use crate::row::{Reading, sliced};
use crate::tables::{Described, broken};
use row::{ActiveModel, Column, Entity, Model};

pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    use crate::row::Moment;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "image")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub image_id: i64,
        pub comment_id: i64,
        pub user_id: i64,
        pub media_type: String,
        pub bytes: i32,
        pub width: i32,
        pub height: i32,
        pub sha256: Vec<u8>,
        pub created_at: Moment,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {
        #[sea_orm(
            belongs_to = "crate::comment::row::Entity",
            from = "Column::CommentId",
            to = "crate::comment::row::Column::CommentId"
        )]
        Comment,
        #[sea_orm(
            belongs_to = "crate::user::row::Entity",
            from = "Column::UserId",
            to = "crate::user::row::Column::UserId"
        )]
        User,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) fn read(row: Model) -> Result<Image, StoreError> {
    let reading = Reading { table: "image", id: row.image_id };
    let size =
        |column: &str, n: i32| u32::try_from(n).map_err(|_| reading.corrupt(format!("{column}: less than nothing")));
    Ok(Image {
        id: ImageId::new(row.image_id),
        comment: CommentId::new(row.comment_id),
        owner: UserId::new(row.user_id),
        media_type: MediaType::parse(&row.media_type)
            .ok_or_else(|| reading.corrupt("media_type: not a known one".to_owned()))?,
        bytes: size("bytes", row.bytes)?,
        width: size("width", row.width)?,
        height: size("height", row.height)?,
        digest: digest(row.sha256).ok_or_else(|| reading.corrupt("sha256: not 32 bytes".to_owned()))?,
        created_at: row.created_at.into(),
    })
}

impl Described for Entity {
    fn wrong(row: &Model) -> Vec<String> {
        broken(read(row.clone()))
    }
}

pub(crate) fn digest(bytes: Vec<u8>) -> Option<Digest> {
    bytes.try_into().ok().map(Digest::new)
}

/// A number that the domain keeps far below the column's end.
fn column(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The row that stores it; its id is the database's to give.
pub(crate) fn active(image: &NewImage) -> ActiveModel {
    ActiveModel {
        image_id: NotSet,
        comment_id: Set(image.comment.get()),
        user_id: Set(image.owner.get()),
        media_type: Set(image.media_type.name().to_owned()),
        bytes: Set(column(image.bytes)),
        width: Set(column(image.width)),
        height: Set(column(image.height)),
        sha256: Set(image.digest.as_bytes().to_vec()),
        created_at: Set(image.created_at.into()),
    }
}

impl<C: ConnectionTrait + Send> Session<C> {
    /// The images on these comments, each comment's oldest first.
    pub(crate) async fn images_on(&self, comments: Vec<i64>) -> Result<Vec<Image>, StoreError> {
        let select = Entity::find().filter(Column::CommentId.is_in(comments)).order_by_asc(Column::ImageId);
        self.run("image.images_on", select.all(&self.connection)).await?.into_iter().map(read).collect()
    }
}

#[async_trait]
impl<C: ConnectionTrait + Send> ImageRepository for Session<C> {
    async fn find(&self, id: ImageId) -> Result<Option<Image>, StoreError> {
        self.run("image.find", Entity::find_by_id(id.get()).one(&self.connection)).await?.map(read).transpose()
    }

    async fn insert(&self, image: &NewImage) -> Result<Image, StoreError> {
        let inserted = self.run("image.insert", Entity::insert(active(image)).exec(&self.connection)).await?;
        Ok(image.clone().stored(ImageId::new(inserted.last_insert_id)))
    }

    async fn delete(&self, id: ImageId) -> Result<bool, StoreError> {
        Ok(self.run("image.delete", Entity::delete_by_id(id.get()).exec(&self.connection)).await?.rows_affected == 1)
    }

    async fn list_of(&self, owner: UserId, slice: &Slice) -> Result<Vec<Image>, StoreError> {
        let select = sliced(Entity::find().filter(Column::UserId.eq(owner.get())), Column::ImageId, slice);
        self.run("image.list_of", select.all(&self.connection)).await?.into_iter().map(read).collect()
    }

    async fn quota_used(&self, owner: UserId) -> Result<u64, StoreError> {
        // Cast: on MySQL a sum is a DECIMAL.
        let sum = Expr::col(Column::Bytes).sum().cast_as("SIGNED");
        let select = Entity::find()
            .select_only()
            .expr(Expr::col(Column::ImageId).count())
            .expr(sum)
            .filter(Column::UserId.eq(owner.get()));
        let used =
            self.run("image.quota_used", select.into_tuple::<(i64, Option<i64>)>().one(&self.connection)).await?;
        let (count, bytes) = used.unwrap_or_default();
        let whole = |n: i64| u64::try_from(n).unwrap_or_default();
        Ok(whole(bytes.unwrap_or_default()) + whole(count) * Image::OVERHEAD)
    }

    async fn shown(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let wanted = digests.iter().map(|digest| digest.as_bytes().to_vec());
        let select =
            Entity::find().select_only().column(Column::Sha256).distinct().filter(Column::Sha256.is_in(wanted));
        let found = self.run("image.shown", select.into_tuple::<Vec<u8>>().all(&self.connection)).await?;
        Ok(found.into_iter().filter_map(digest).collect())
    }
}
