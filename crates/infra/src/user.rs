//! Accounts in the database. A deleted one keeps its row, and no method here finds or changes it any more.

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::account::PasswordHash;
use mundap_domain::admin::UserListing;
use mundap_domain::env::Timestamp;
use mundap_domain::page::Slice;
use mundap_domain::sign_in::SignInId;
use mundap_domain::user::{DisplayName, Email, NewUser, Role, User, UserId, UserRecord, UserRepository};
use mundap_domain::version::Version;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, JoinType, QueryFilter as _, QuerySelect as _,
    RelationTrait as _, Select,
};

use crate::row::{Moment, Reading, one_or_stale, sliced};
use crate::tables::{Described, below_first, broken};
use crate::{Origin, Session};
use row::{ActiveModel, Column, Entity, Model};

pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    use crate::row::Moment;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub user_id: i64,
        pub email: Option<String>,
        pub email_key: Option<String>,
        pub display_name: Option<String>,
        pub role: String,
        pub password_hash: Option<String>,
        pub email_verified_at: Option<Moment>,
        pub suspended_at: Option<Moment>,
        pub deleted_at: Option<Moment>,
        pub created_at: Moment,
        pub updated_at: Moment,
        pub version: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {
        #[sea_orm(has_many = "crate::sign_in::row::Entity")]
        SignIn,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

fn read(row: Model) -> Result<User, StoreError> {
    let reading = Reading { table: "users", id: row.user_id };
    let there = |column: &str, value: Option<String>| {
        value.ok_or_else(|| reading.corrupt(format!("{column}: missing, though the account is not deleted")))
    };
    Ok(User::restore(UserRecord {
        id: UserId::new(row.user_id),
        email: reading.check("email", Email::parse(&there("email", row.email)?))?,
        display_name: reading.check("display_name", DisplayName::parse(&there("display_name", row.display_name)?))?,
        role: reading.check("role", Role::parse(&row.role))?,
        email_verified_at: row.email_verified_at.map(Into::into),
        suspended_at: row.suspended_at.map(Into::into),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
        version: Version::new(row.version),
    }))
}

impl Described for Entity {
    fn wrong(row: &Model) -> Vec<String> {
        if row.deleted_at.is_some() {
            let kept = [&row.email, &row.email_key, &row.display_name, &row.password_hash];
            let forgotten = kept.into_iter().all(Option::is_none);
            return if forgotten { Vec::new() } else { vec!["deleted, and not forgotten".to_owned()] };
        }
        match read(row.clone()) {
            Err(error) => broken::<()>(Err(error)),
            Ok(user) => {
                let is_its_key = row.email_key.as_ref() == Some(&user.email.key());
                let key = (!is_its_key).then(|| "email_key: not that of the email".to_owned());
                key.into_iter().chain(below_first(row.version)).collect()
            }
        }
    }
}

/// The account, unless it is deleted.
fn alive(id: UserId) -> Select<Entity> {
    Entity::find_by_id(id.get()).filter(Column::DeletedAt.is_null())
}

impl<C: ConnectionTrait + Send> Session<C> {
    async fn one_user(&self, query: &'static str, select: Select<Entity>) -> Result<Option<User>, StoreError> {
        self.run(query, select.one(&self.connection)).await?.map(read).transpose()
    }

    fn locked(&self, select: Select<Entity>) -> Select<Entity> {
        if self.locks_rows { select.lock_exclusive() } else { select }
    }
}

/// The row that stores a new one; its id is the database's to give.
pub(crate) fn active(user: &NewUser) -> ActiveModel {
    let created_at = user.created_at;
    ActiveModel {
        user_id: NotSet,
        email: Set(Some(user.email.as_str().to_owned())),
        email_key: Set(Some(user.email.key())),
        display_name: Set(Some(user.display_name.as_str().to_owned())),
        role: Set(user.role.name().to_owned()),
        password_hash: Set(user.password.as_ref().map(|hash| hash.as_str().to_owned())),
        email_verified_at: Set(None),
        suspended_at: Set(None),
        deleted_at: Set(None),
        created_at: Set(created_at.into()),
        updated_at: Set(created_at.into()),
        version: Set(Version::FIRST.get()),
    }
}

#[async_trait]
impl<C: ConnectionTrait + Send> UserRepository for Session<C> {
    async fn find(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.one_user("user.find", alive(id)).await
    }

    async fn find_locked(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.one_user("user.find_locked", self.locked(alive(id))).await
    }

    async fn find_by_email(&self, email: &Email) -> Result<Option<User>, StoreError> {
        self.one_user(
            "user.find_by_email",
            Entity::find().filter(Column::EmailKey.eq(email.key())).filter(Column::DeletedAt.is_null()),
        )
        .await
    }

    async fn find_signed_in(&self, id: UserId, sign_in: SignInId) -> Result<Option<User>, StoreError> {
        // A unit decides on what is there.
        let actors = match self.origin {
            Origin::Pool { .. } => Some(&self.actors),
            Origin::Unit { .. } => None,
        };
        if let Some(user) = actors.and_then(|actors| actors.get(id, sign_in)) {
            return Ok(Some(user));
        }
        let age = self.actors.age();
        let select = alive(id)
            .join(JoinType::InnerJoin, row::Relation::SignIn.def())
            .filter(crate::sign_in::row::Column::SignInId.eq(sign_in.get()));
        // Its state is large, and would be a part of every request's; few come here.
        let user = Box::pin(self.one_user("user.find_signed_in", select)).await?;
        if let (Some(actors), Some(user)) = (actors, &user) {
            actors.remember(age, sign_in, user);
        }
        Ok(user)
    }

    async fn list(&self, listing: &UserListing, slice: &Slice) -> Result<Vec<User>, StoreError> {
        let mut select = Entity::find().filter(Column::DeletedAt.is_null());
        if let Some(role) = listing.role {
            select = select.filter(Column::Role.eq(role.name()));
        }
        if let Some(suspended) = listing.suspended {
            let at = Column::SuspendedAt;
            select = select.filter(if suspended { at.is_not_null() } else { at.is_null() });
        }
        let rows = self.run("user.list", sliced(select, Column::UserId, slice).all(&self.connection)).await?;
        rows.into_iter().map(read).collect()
    }

    async fn insert(&self, user: &NewUser) -> Result<User, StoreError> {
        let inserted = self.run("user.insert", Entity::insert(active(user)).exec(&self.connection)).await?;
        Ok(user.clone().stored(UserId::new(inserted.last_insert_id)))
    }

    async fn update(&self, user: &User) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::Email, Expr::value(user.email.as_str()))
            .col_expr(Column::EmailKey, Expr::value(user.email.key()))
            .col_expr(Column::DisplayName, Expr::value(user.display_name.as_str()))
            .col_expr(Column::Role, Expr::value(user.role.name()))
            .col_expr(Column::EmailVerifiedAt, Expr::value(user.email_verified_at.map(Moment::from)))
            .col_expr(Column::SuspendedAt, Expr::value(user.suspended_at.map(Moment::from)))
            .col_expr(Column::UpdatedAt, Expr::value(Moment::from(user.updated_at)))
            .col_expr(Column::Version, Expr::value(user.version.get()))
            .filter(Column::UserId.eq(user.id.get()))
            .filter(Column::Version.eq(user.version.previous().get()))
            .filter(Column::DeletedAt.is_null());
        let outcome = self.run("user.update", update.exec(&self.connection)).await;
        self.actors_change();
        one_or_stale(outcome?.rows_affected)
    }

    async fn password_hash(&self, id: UserId) -> Result<Option<PasswordHash>, StoreError> {
        let select = self.locked(alive(id)).select_only().column(Column::PasswordHash);
        let hash = self.run("user.password_hash", select.into_tuple::<Option<String>>().one(&self.connection)).await?;
        Ok(hash.flatten().map(PasswordHash::new))
    }

    async fn set_password_hash(&self, id: UserId, hash: &PasswordHash) -> Result<(), StoreError> {
        // No version: it counts what is shown of an account, and its owner's `If-Match` should not fail for a password.
        let update = Entity::update_many()
            .col_expr(Column::PasswordHash, Expr::value(hash.as_str()))
            .filter(Column::UserId.eq(id.get()))
            .filter(Column::DeletedAt.is_null());
        one_or_stale(self.run("user.set_password_hash", update.exec(&self.connection)).await?.rows_affected)
    }

    async fn set_email_verified(&self, id: UserId, at: Timestamp) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::EmailVerifiedAt, Expr::value(Moment::from(at)))
            .filter(Column::UserId.eq(id.get()))
            .filter(Column::DeletedAt.is_null());
        let outcome = self.run("user.set_email_verified", update.exec(&self.connection)).await;
        self.actors_change();
        one_or_stale(outcome?.rows_affected)
    }

    async fn erase(&self, id: UserId, now: Timestamp) -> Result<(), StoreError> {
        let nothing = || Expr::value(None::<String>);
        let update = Entity::update_many()
            .col_expr(Column::Email, nothing())
            .col_expr(Column::EmailKey, nothing())
            .col_expr(Column::DisplayName, nothing())
            .col_expr(Column::PasswordHash, nothing())
            .col_expr(Column::EmailVerifiedAt, Expr::value(None::<Moment>))
            .col_expr(Column::DeletedAt, Expr::value(Moment::from(now)))
            .col_expr(Column::UpdatedAt, Expr::value(Moment::from(now)))
            .col_expr(Column::Version, Expr::col(Column::Version).add(1))
            .filter(Column::UserId.eq(id.get()))
            .filter(Column::DeletedAt.is_null());
        let outcome = self.run("user.erase", update.exec(&self.connection)).await;
        self.actors_change();
        one_or_stale(outcome?.rows_affected)
    }
}
