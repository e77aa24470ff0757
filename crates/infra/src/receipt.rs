//! Receipts of idempotent requests in the database.

use std::collections::HashMap;

use async_trait::async_trait;
use mundap_domain::StoreError;
use mundap_domain::env::Timestamp;
use mundap_domain::idempotency::{Claimant, IdempotencyKey, Receipt, ReceiptRepository};
use mundap_domain::user::{Author, DisplayName, Email, UserId};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, DbErr, EntityTrait as _, FromQueryResult as _, QueryFilter as _,
    Statement, Value,
};

use crate::batch::{Answer, Batch, Pool};
use crate::failure::store_error;
use crate::row::{Moment, Pieces, Reading, padded};
use crate::tables::{Described, not_a_hash, rules};
use crate::{Origin, Session};
use row::{Column, Entity, Model};

pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    use crate::row::Moment;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "receipt")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub claimant: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub idem_key: String,
        pub fingerprint: Vec<u8>,
        pub created_id: i64,
        pub display_name: Option<String>,
        pub email: Option<String>,
        pub created_at: Moment,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Claimants and their keys, those that are looked for together by one statement.
pub(crate) type Receipts = Batch<(i64, String), Option<Model>>;

/// What looks for them in this pool.
pub(crate) fn receipts(pool: Pool) -> Receipts {
    Batch::on(pool, many)
}

async fn many(pool: Pool, keys: Vec<(i64, String)>) -> Result<Vec<Answer<Option<Model>>>, StoreError> {
    let nothing = (0, String::new());
    let sought = padded(&keys, &nothing);
    let sql = format!(
        "SELECT claimant, idem_key, fingerprint, created_id, display_name, email, created_at FROM receipt WHERE {}",
        vec!["(claimant = ? AND idem_key = ?)"; sought.len()].join(" OR ")
    );
    let values = sought.into_iter().flat_map(|(claimant, key)| [Value::from(*claimant), Value::from(key.as_str())]);
    let statement = Statement::from_sql_and_values(pool.connection.get_database_backend(), sql, values);
    let rows = pool.rows(statement, |row| Model::from_query_result(row, "")).await?;
    let found: HashMap<(i64, &str), &Model> =
        rows.iter().map(|row| ((row.claimant, row.idem_key.as_str()), row)).collect();
    Ok(keys.iter().map(|(claimant, key)| Ok(found.get(&(*claimant, key.as_str())).copied().cloned())).collect())
}

/// The statement that stores these.
pub(crate) fn insertion(db: DbBackend, receipts: &[Receipt]) -> Statement {
    let sql = format!(
        "INSERT INTO receipt (claimant, idem_key, fingerprint, created_id, display_name, email, created_at) VALUES {}",
        vec!["(?, ?, ?, ?, ?, ?, ?)"; receipts.len()].join(", ")
    );
    let values = receipts.iter().flat_map(|receipt| {
        let author = receipt.author.as_ref();
        [
            receipt.claimant.get().into(),
            receipt.key.as_str().into(),
            receipt.fingerprint.as_slice().into(),
            receipt.id.into(),
            author.and_then(|author| Some(author.display_name.as_ref()?.as_str())).into(),
            author.and_then(|author| Some(author.email.as_ref()?.as_str())).into(),
            Moment::from(receipt.created_at).into(),
        ]
    });
    Statement::from_sql_and_values(db, sql, values.collect::<Vec<Value>>())
}

static OLD: Pieces =
    Pieces { table: "receipt", key: "claimant, idem_key", condition: "created_at < ?", order: "created_at" };

fn read(row: Model, claimant: Claimant, key: &IdempotencyKey) -> Result<Receipt, StoreError> {
    let reading = Reading { table: "receipt", id: row.created_id };
    let fingerprint = row.fingerprint.try_into();
    let author: Option<Author> = match claimant.account_id() {
        Some(id) => Some(reading.author(id.get(), row.display_name.as_deref(), row.email.as_deref())?),
        None => None,
    };
    Ok(Receipt {
        claimant,
        key: key.clone(),
        fingerprint: fingerprint.map_err(|_| reading.corrupt("fingerprint: not 32 bytes".to_owned()))?,
        id: row.created_id,
        author,
        created_at: row.created_at.into(),
    })
}

impl Described for Entity {
    fn wrong(row: &Model) -> Vec<String> {
        let author = [
            rules("display_name", row.display_name.as_deref().map(DisplayName::parse).transpose()),
            rules("email", row.email.as_deref().map(Email::parse).transpose()),
        ];
        author.into_iter().flatten().chain(not_a_hash("fingerprint", &row.fingerprint)).collect()
    }

    fn called() -> String {
        "receipt of user".to_owned()
    }
}

/// How many accounts are looked at by one statement: no index has them by when they were erased, and a million at once take
/// longer than a statement may.
const ACCOUNTS: i64 = 100_000;

impl<C: ConnectionTrait + Send> Session<C> {
    async fn first_account_behind(&self, id: i64) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT MIN(user_id) FROM users WHERE user_id > ?".to_owned();
        Ok(self.numbers("receipt.erased_claimants", sql, [id.into()]).await?.into_iter().next().flatten())
    }

    /// The first column of what a query finds.
    async fn numbers(
        &self,
        query: &'static str,
        sql: String,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Option<i64>>, StoreError> {
        let select = Statement::from_sql_and_values(self.connection.get_database_backend(), sql, values);
        let rows = self.run(query, self.connection.query_all_raw(select)).await?;
        let numbers: Result<_, DbErr> = rows.iter().map(|row| row.try_get_by_index(0)).collect();
        numbers.map_err(store_error)
    }
}

#[async_trait]
impl<C: ConnectionTrait + Send> ReceiptRepository for Session<C> {
    async fn find(&self, claimant: Claimant, key: &IdempotencyKey) -> Result<Option<Receipt>, StoreError> {
        let id = (claimant.get(), key.as_str().to_owned());
        let row = match &self.origin {
            Origin::Pool { batches, .. } => self.timed("receipt.find", batches.receipts.get(id)).await?,
            Origin::Unit { .. } => self.run("receipt.find", Entity::find_by_id(id).one(&self.connection)).await?,
        };
        row.map(|row| read(row, claimant, key)).transpose()
    }

    async fn insert(&self, receipt: &Receipt) -> Result<(), StoreError> {
        let insert = insertion(self.connection.get_database_backend(), std::slice::from_ref(receipt));
        self.run("receipt.insert", self.connection.execute_raw(insert)).await?;
        Ok(())
    }

    async fn delete(&self, receipt: &Receipt) -> Result<(), StoreError> {
        let delete = Entity::delete_by_id((receipt.claimant.get(), receipt.key.as_str().to_owned()))
            .filter(Column::CreatedAt.eq(Moment::from(receipt.created_at)));
        self.run("receipt.delete", delete.exec(&self.connection)).await?;
        Ok(())
    }

    async fn delete_all_of(&self, user: UserId) -> Result<(), StoreError> {
        let delete = Entity::delete_many().filter(Column::Claimant.eq(user.get()));
        self.run("receipt.delete_all_of", delete.exec(&self.connection)).await?;
        Ok(())
    }

    async fn erased_claimants(&self, since: Timestamp, most: u64) -> Result<Vec<UserId>, StoreError> {
        let (mut found, mut after) = (Vec::new(), 0);
        while (found.len() as u64) < most
            && let Some(first) = self.first_account_behind(after).await?
        {
            after = first.saturating_add(ACCOUNTS - 1);
            // From the accounts to their receipts, which begin with the claimant: few were erased. Of an EXISTS the servers would
            // make a join with all receipts, for each piece.
            let sql = format!(
                "SELECT user_id FROM users WHERE user_id BETWEEN ? AND ? AND deleted_at >= ? \
                 AND (SELECT MIN(claimant) FROM receipt WHERE claimant = users.user_id) IS NOT NULL \
                 ORDER BY user_id LIMIT {}",
                most - found.len() as u64
            );
            let values = [first.into(), after.into(), Moment::from(since).into()];
            let ids = self.numbers("receipt.erased_claimants", sql, values).await?;
            found.extend(ids.into_iter().flatten().map(UserId::new));
        }
        Ok(found)
    }

    async fn delete_older(&self, before: Timestamp, most: u64) -> Result<u64, StoreError> {
        let delete = OLD.delete(self.connection.get_database_backend(), Moment::from(before), most);
        Ok(self.run("receipt.delete_older", self.connection.execute_raw(delete)).await?.rows_affected())
    }
}
