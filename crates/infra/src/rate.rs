//! Shared rate limits in the database.

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::env::Timestamp;
use mundap_domain::rate::{Charge, Charged, Quota, RateKey, RateRepository, micros};
use sea_orm::sea_query::{CaseStatement, Expr, ExprTrait as _, SimpleExpr};
use sea_orm::{ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _};

use crate::Session;
use crate::row::{Pieces, Reading};
use row::{ActiveModel, Column, Entity};

mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "rate_limit")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub rate_key: Vec<u8>,
        pub empty_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

fn bytes(key: &RateKey) -> Vec<u8> {
    key.as_bytes().to_vec()
}

/// What fills a bucket by `uses`, whether or not it was empty.
fn filled(charge: &Charge, uses: u32) -> SimpleExpr {
    let now = charge.now.unix_micros();
    // CASE, not MAX or GREATEST: each is a function of one database alone.
    let from = CaseStatement::new().case(Column::EmptyAt.gt(now), Expr::col(Column::EmptyAt)).finally(now);
    Expr::expr(from).add(micros(charge.quota.time_of(uses)))
}

impl<C: ConnectionTrait + Send> Session<C> {
    async fn bucket(&self, key: &RateKey) -> Result<Option<Timestamp>, StoreError> {
        let Some(row) = self.run("rate.bucket", Entity::find_by_id(bytes(key)).one(&self.connection)).await? else {
            return Ok(None);
        };
        let corrupt = || Reading { table: "rate_limit", id: 0 }.corrupt("empty_at: no time".to_owned());
        Timestamp::from_unix_micros(row.empty_at).map(Some).ok_or_else(corrupt)
    }

    /// Adds `uses` to a bucket that is no fuller than `at_most`; whether there was one.
    async fn fill(&self, charge: &Charge, uses: u32, at_most: Timestamp) -> Result<bool, StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::EmptyAt, filled(charge, uses))
            .filter(Column::RateKey.eq(bytes(&charge.key)))
            .filter(Column::EmptyAt.lte(at_most.unix_micros()));
        Ok(self.run("rate.fill", update.exec(&self.connection)).await?.rows_affected > 0)
    }

    /// Makes a bucket whose end is like this one that is full.
    async fn make_full(&self, charge: &Charge, end: SimpleExpr) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::EmptyAt, Expr::value(charge.end_when_full().unix_micros()))
            .filter(Column::RateKey.eq(bytes(&charge.key)))
            .filter(end);
        self.run("rate.charge", update.exec(&self.connection)).await.map(drop)
    }
}

static EMPTY: Pieces = Pieces { table: "rate_limit", key: "rate_key", condition: "empty_at <= ?", order: "empty_at" };

#[async_trait]
impl<C: ConnectionTrait + Send> RateRepository for Session<C> {
    async fn charge(&self, charge: &Charge) -> Result<Charged, StoreError> {
        // The condition stands in the statement that changes the row: of two at once the second sees what the first left.
        if self.fill(charge, charge.owed + 1, charge.last_end_with_room()).await? {
            let end = self.bucket(&charge.key).await?.ok_or(StoreError::Stale)?;
            return Ok(Charged { admitted: true, end });
        }
        let Some(found) = self.bucket(&charge.key).await? else {
            let end = charge.now.plus(charge.quota.time_of(charge.owed + 1));
            let row = ActiveModel { rate_key: Set(bytes(&charge.key)), empty_at: Set(end.unix_micros()) };
            return match self.run("rate.charge", Entity::insert(row).exec_without_returning(&self.connection)).await {
                Ok(_) => Ok(Charged { admitted: true, end }),
                // Another node made it a moment ago: once more, from the start.
                Err(StoreError::Duplicate(cause)) => Err(StoreError::Contention(cause)),
                Err(error) => Err(error),
            };
        };
        if found > charge.last_end() {
            self.make_full(charge, Column::EmptyAt.gt(charge.last_end().unix_micros())).await?;
        } else if charge.owed > 0 {
            let end = charge.now.plus(charge.quota.time_of(charge.quota.permits() - charge.owed));
            if !self.fill(charge, charge.owed, end).await? {
                self.make_full(charge, Column::EmptyAt.lt(charge.end_when_full().unix_micros())).await?;
            }
        }
        let end = self.bucket(&charge.key).await?.ok_or(StoreError::Stale)?;
        Ok(Charged { admitted: false, end })
    }

    async fn give_back(&self, key: &RateKey, quota: Quota) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::EmptyAt, Expr::col(Column::EmptyAt).sub(micros(quota.time_of(1))))
            .filter(Column::RateKey.eq(bytes(key)));
        self.run("rate.give_back", update.exec(&self.connection)).await?;
        Ok(())
    }

    async fn delete_empty(&self, now: Timestamp, most: u64) -> Result<u64, StoreError> {
        let delete = EMPTY.delete(self.connection.get_database_backend(), now.unix_micros(), most);
        Ok(self.run("rate.delete_empty", self.connection.execute_raw(delete)).await?.rows_affected())
    }
}
