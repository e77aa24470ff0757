//! The audit log in the database.

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::audit::{Action, AuditEntry, AuditId, AuditRepository, NewAuditEntry};
use mundap_domain::page::Slice;
use mundap_domain::user::{Role, UserId};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _,
};

use crate::Session;
use crate::row::{Reading, sliced};
use crate::tables::{Described, broken};
use row::{ActiveModel, Column, Entity, Model};

pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    use crate::row::Moment;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub audit_id: i64,
        pub actor_id: Option<i64>,
        pub action: String,
        pub role_before: Option<String>,
        pub role_after: Option<String>,
        pub target_id: Option<i64>,
        pub created_at: Moment,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

fn read(row: Model) -> Result<AuditEntry, StoreError> {
    let reading = Reading { table: "audit", id: row.audit_id };
    let role = |column: &str, name: Option<String>| reading.check(column, name.as_deref().map(Role::parse).transpose());
    let (before, after) = (role("role_before", row.role_before)?, role("role_after", row.role_after)?);
    Ok(AuditEntry {
        id: AuditId::new(row.audit_id),
        actor: row.actor_id.map(UserId::new),
        action: reading.check("action", Action::parse(&row.action, before, after))?,
        target: row.target_id.map(UserId::new),
        created_at: row.created_at.into(),
    })
}

impl Described for Entity {
    fn wrong(row: &Model) -> Vec<String> {
        broken(read(row.clone()))
    }
}

#[async_trait]
impl<C: ConnectionTrait + Send> AuditRepository for Session<C> {
    async fn insert(&self, entry: &NewAuditEntry) -> Result<AuditId, StoreError> {
        let (before, after) = entry.action.roles();
        let name = |role: Option<Role>| role.map(|role| role.name().to_owned());
        let row = ActiveModel {
            audit_id: NotSet,
            actor_id: Set(entry.actor.map(UserId::get)),
            action: Set(entry.action.name().to_owned()),
            role_before: Set(name(before)),
            role_after: Set(name(after)),
            target_id: Set(entry.target.map(UserId::get)),
            created_at: Set(entry.created_at.into()),
        };
        let inserted = self.run("audit.insert", Entity::insert(row).exec(&self.connection)).await?;
        Ok(AuditId::new(inserted.last_insert_id))
    }

    async fn list(&self, target: Option<UserId>, slice: &Slice) -> Result<Vec<AuditEntry>, StoreError> {
        let mut select = Entity::find();
        if let Some(target) = target {
            select = select.filter(Column::TargetId.eq(target.get()));
        }
        let rows = self.run("audit.list", sliced(select, Column::AuditId, slice).all(&self.connection)).await?;
        rows.into_iter().map(read).collect()
    }
}
