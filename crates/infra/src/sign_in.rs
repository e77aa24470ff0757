//! Sign-ins in the database.

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::sign_in::{NewSignIn, SignIn, SignInId, SignInRecord, SignInRepository, TokenHash};
use mundap_domain::user::UserId;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use crate::Session;
use crate::row::{Moment, Reading, one_or_stale};
use crate::tables::{Described, broken};
use row::{ActiveModel, Column, Entity, Model};

pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    use crate::row::Moment;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "sign_in")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub sign_in_id: i64,
        pub user_id: i64,
        pub family: Vec<u8>,
        pub current: Vec<u8>,
        pub previous: Option<Vec<u8>>,
        pub forgiven: bool,
        pub rotated_at: Moment,
        pub created_at: Moment,
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

    impl Related<crate::user::row::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::User.def()
        }
    }

    impl ActiveModelBehavior for ActiveModel {}
}

fn read(row: Model) -> Result<SignIn, StoreError> {
    let reading = Reading { table: "sign_in", id: row.sign_in_id };
    let hash = |column: &str, bytes: Vec<u8>| match bytes.try_into() {
        Ok(bytes) => Ok(TokenHash::restore(bytes)),
        Err(_) => Err(reading.corrupt(format!("{column}: not 32 bytes"))),
    };
    Ok(SignIn::restore(SignInRecord {
        id: SignInId::new(row.sign_in_id),
        user: UserId::new(row.user_id),
        family: hash("family", row.family)?,
        current: hash("current", row.current)?,
        previous: row.previous.map(|bytes| hash("previous", bytes)).transpose()?,
        forgiven: row.forgiven,
        created_at: row.created_at.into(),
        rotated_at: row.rotated_at.into(),
        expires_at: row.expires_at.into(),
    }))
}

impl Described for Entity {
    fn wrong(row: &Model) -> Vec<String> {
        broken(read(row.clone()))
    }
}

fn bytes(hash: &TokenHash) -> Vec<u8> {
    hash.as_bytes().to_vec()
}

#[async_trait]
impl<C: ConnectionTrait + Send> SignInRepository for Session<C> {
    async fn insert(&self, sign_in: &NewSignIn) -> Result<SignInId, StoreError> {
        let now = Moment::from(sign_in.created_at);
        // Whoever signs in sweeps up behind themselves: no job is needed for it.
        let expired =
            Entity::delete_many().filter(Column::UserId.eq(sign_in.user.get())).filter(Column::ExpiresAt.lte(now));
        self.run("sign_in.insert", expired.exec(&self.connection)).await?;
        let row = ActiveModel {
            sign_in_id: NotSet,
            user_id: Set(sign_in.user.get()),
            family: Set(bytes(&sign_in.family)),
            current: Set(bytes(&sign_in.current)),
            previous: Set(None),
            forgiven: Set(false),
            rotated_at: Set(now),
            created_at: Set(now),
            expires_at: Set(sign_in.expires_at.into()),
        };
        let inserted = self.run("sign_in.insert", Entity::insert(row).exec(&self.connection)).await?;
        Ok(SignInId::new(inserted.last_insert_id))
    }

    async fn find_locked(&self, family: &TokenHash) -> Result<Option<SignIn>, StoreError> {
        let mut select = Entity::find().filter(Column::Family.eq(bytes(family)));
        if self.locks_rows {
            select = select.lock_exclusive();
        }
        self.run("sign_in.find_locked", select.one(&self.connection)).await?.map(read).transpose()
    }

    async fn list_of(&self, user: UserId) -> Result<Vec<SignIn>, StoreError> {
        let select = Entity::find().filter(Column::UserId.eq(user.get())).order_by_asc(Column::SignInId);
        self.run("sign_in.list_of", select.all(&self.connection)).await?.into_iter().map(read).collect()
    }

    async fn update(&self, sign_in: &SignIn) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::Current, Expr::value(bytes(&sign_in.current)))
            .col_expr(Column::Previous, Expr::value(sign_in.previous.as_ref().map(bytes)))
            .col_expr(Column::Forgiven, Expr::value(sign_in.forgiven))
            .col_expr(Column::RotatedAt, Expr::value(Moment::from(sign_in.rotated_at)))
            .col_expr(Column::ExpiresAt, Expr::value(Moment::from(sign_in.expires_at)))
            .filter(Column::SignInId.eq(sign_in.id.get()));
        one_or_stale(self.run("sign_in.update", update.exec(&self.connection)).await?.rows_affected)
    }

    async fn delete(&self, id: SignInId) -> Result<(), StoreError> {
        let outcome = self.run("sign_in.delete", Entity::delete_by_id(id.get()).exec(&self.connection)).await;
        self.actors_change();
        outcome?;
        Ok(())
    }

    async fn delete_all_of(&self, user: UserId) -> Result<(), StoreError> {
        let delete = Entity::delete_many().filter(Column::UserId.eq(user.get()));
        let outcome = self.run("sign_in.delete_all_of", delete.exec(&self.connection)).await;
        self.actors_change();
        outcome?;
        Ok(())
    }
}
