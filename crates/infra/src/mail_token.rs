//! Mailed tokens in the database.

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::env::Timestamp;
use mundap_domain::mail::{MailTokenRecord, MailTokenRepository, Purpose};
use mundap_domain::sign_in::TokenHash;
use mundap_domain::user::UserId;
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QuerySelect as _,
};

use crate::Session;
use crate::row::{Moment, Pieces, Reading};
use crate::tables::{Described, not_a_hash};
use row::{ActiveModel, Column, Entity, Model};

pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    use crate::row::Moment;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "mail_token")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub user_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub purpose: String,
        pub hash: Vec<u8>,
        pub email_key: String,
        pub expires_at: Moment,
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

fn read(row: Model, purpose: Purpose) -> Result<MailTokenRecord, StoreError> {
    let reading = Reading { table: "mail_token", id: row.user_id };
    let hash = row.hash.try_into().map_err(|_| reading.corrupt("hash: not 32 bytes".to_owned()))?;
    Ok(MailTokenRecord {
        user: UserId::new(row.user_id),
        purpose,
        hash: TokenHash::restore(hash),
        email_key: row.email_key,
        expires_at: row.expires_at.into(),
    })
}

/// No index has them by their ends: the first that are met.
static EXPIRED: Pieces =
    Pieces { table: "mail_token", key: "user_id, purpose", condition: "expires_at <= ?", order: "user_id, purpose" };

impl Described for Entity {
    fn wrong(row: &Model) -> Vec<String> {
        not_a_hash("hash", &row.hash).into_iter().collect()
    }

    fn called() -> String {
        "mail_token of user".to_owned()
    }
}

#[async_trait]
impl<C: ConnectionTrait + Send> MailTokenRepository for Session<C> {
    async fn put(&self, token: &MailTokenRecord) -> Result<(), StoreError> {
        // Two statements that both engines know, rather than two spellings of one.
        MailTokenRepository::delete(self, token.user, token.purpose).await?;
        let row = ActiveModel {
            user_id: Set(token.user.get()),
            purpose: Set(token.purpose.name().to_owned()),
            hash: Set(token.hash.as_bytes().to_vec()),
            email_key: Set(token.email_key.clone()),
            expires_at: Set(token.expires_at.into()),
        };
        self.run("mail_token.put", Entity::insert(row).exec_without_returning(&self.connection)).await?;
        Ok(())
    }

    async fn find_locked(&self, hash: &TokenHash, purpose: Purpose) -> Result<Option<MailTokenRecord>, StoreError> {
        let mut select =
            Entity::find().filter(Column::Hash.eq(hash.as_bytes().to_vec())).filter(Column::Purpose.eq(purpose.name()));
        if self.locks_rows {
            select = select.lock_exclusive();
        }
        self.run("mail_token.find_locked", select.one(&self.connection))
            .await?
            .map(|row| read(row, purpose))
            .transpose()
    }

    async fn delete(&self, user: UserId, purpose: Purpose) -> Result<(), StoreError> {
        let delete = Entity::delete_by_id((user.get(), purpose.name().to_owned()));
        self.run("mail_token.delete", delete.exec(&self.connection)).await?;
        Ok(())
    }

    async fn delete_all_of(&self, user: UserId) -> Result<(), StoreError> {
        let delete = Entity::delete_many().filter(Column::UserId.eq(user.get()));
        self.run("mail_token.delete_all_of", delete.exec(&self.connection)).await?;
        Ok(())
    }

    async fn delete_expired(&self, now: Timestamp, most: u64) -> Result<u64, StoreError> {
        let delete = EXPIRED.delete(self.connection.get_database_backend(), Moment::from(now), most);
        Ok(self.run("mail_token.delete_expired", self.connection.execute_raw(delete)).await?.rows_affected())
    }
}
