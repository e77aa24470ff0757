//! Letters that wait, in the database.

use async_trait::async_trait;
use chrono::TimeDelta;
use mundap_domain::StoreError;
use mundap_domain::env::Timestamp;
use mundap_domain::mail::{Language, LetterId, NewLetter, OutboxRepository, QueuedLetter, Topic};
use mundap_domain::user::{Email, UserId};
use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Select,
};

use crate::Session;
use crate::row::{Moment, Reading};
use crate::tables::{Described, broken};
use crate::user::row as users;
use row::{ActiveModel, Column, Entity, Model};

pub(crate) mod row {
    use sea_orm::entity::prelude::*;

    use crate::row::Moment;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "outbox")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub letter_id: i64,
        pub topic: String,
        pub user_id: Option<i64>,
        pub email: String,
        pub email_key: String,
        pub language: String,
        pub attempts: i32,
        pub due_at: Moment,
        pub created_at: Moment,
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

/// How many letters one taker looks at: where it loses all of them to others, those have enough to do.
const GLANCE: u64 = 8;

fn read(row: &Model) -> Result<QueuedLetter, StoreError> {
    let reading = Reading { table: "outbox", id: row.letter_id };
    let corrupt = |column: &str| reading.corrupt(format!("{column}: not one of ours"));
    Ok(QueuedLetter {
        id: LetterId::new(row.letter_id),
        topic: Topic::parse(&row.topic).ok_or_else(|| corrupt("topic"))?,
        user: row.user_id.map(UserId::new),
        to: reading.check("email", Email::parse(&row.email))?,
        language: Language::parse(&row.language).ok_or_else(|| corrupt("language"))?,
        created_at: row.created_at.into(),
        attempts: u32::try_from(row.attempts).map_err(|_| corrupt("attempts"))?,
    })
}

impl Described for Entity {
    fn wrong(row: &Model) -> Vec<String> {
        broken(read(row))
    }
}

/// What is due, longest first. A topic or language of a newer version is left to the nodes that know it.
fn due(now: Timestamp) -> Select<Entity> {
    Entity::find()
        .filter(Column::DueAt.lte(Moment::from(now)))
        .filter(Column::Topic.is_in(Topic::ALL.map(Topic::name)))
        .filter(Column::Language.is_in(Language::ALL.map(Language::tag)))
        .order_by_asc(Column::DueAt)
        .order_by_asc(Column::LetterId)
}

/// How long a letter that cannot be read is looked at by nobody.
const ASIDE: TimeDelta = TimeDelta::days(1);

impl<C: ConnectionTrait + Send> Session<C> {
    /// Lets a letter that cannot be read wait, so that it is in no other's way and the log names it once a day.
    async fn put_aside(&self, id: i64, now: Timestamp, error: &StoreError) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::DueAt, Expr::value(Moment::from(now.plus(ASIDE))))
            .filter(Column::LetterId.eq(id))
            .filter(Column::DueAt.lte(Moment::from(now)));
        if self.run("outbox.put_aside", update.exec(&self.connection)).await?.rows_affected > 0 {
            tracing::warn!(letter.id = id, %error, "letter {id} cannot be read and waits for another day: {error}");
        }
        Ok(())
    }
}

#[async_trait]
impl<C: ConnectionTrait + Send> OutboxRepository for Session<C> {
    async fn insert(&self, letter: &NewLetter) -> Result<(), StoreError> {
        let created_at = Moment::from(letter.created_at);
        let row = ActiveModel {
            letter_id: NotSet,
            topic: Set(letter.topic.name().to_owned()),
            user_id: Set(letter.user.map(UserId::get)),
            email: Set(letter.to.as_str().to_owned()),
            email_key: Set(letter.to.key()),
            language: Set(letter.language.tag().to_owned()),
            attempts: Set(0),
            due_at: Set(created_at),
            created_at: Set(created_at),
        };
        self.run("outbox.insert", Entity::insert(row).exec_without_returning(&self.connection)).await?;
        Ok(())
    }

    async fn is_any_due(&self, now: Timestamp) -> Result<bool, StoreError> {
        let first = due(now).select_only().column(Column::LetterId).into_tuple::<i64>();
        Ok(self.run("outbox.is_any_due", first.one(&self.connection)).await?.is_some())
    }

    async fn take(&self, now: Timestamp, until: Timestamp) -> Result<Option<QueuedLetter>, StoreError> {
        // No lock: whoever changes the row first has it, and the others see that by the number of attempts.
        for row in self.run("outbox.take", due(now).limit(GLANCE).all(&self.connection)).await? {
            let mut letter = match read(&row) {
                Ok(letter) => letter,
                Err(error) => {
                    self.put_aside(row.letter_id, now, &error).await?;
                    continue;
                }
            };
            let taken = Entity::update_many()
                .col_expr(Column::Attempts, Expr::col(Column::Attempts).add(1))
                .col_expr(Column::DueAt, Expr::value(Moment::from(until)))
                .filter(Column::LetterId.eq(letter.id.get()))
                .filter(Column::Attempts.eq(letter.attempts))
                .filter(Column::DueAt.lte(Moment::from(now)));
            if self.run("outbox.take", taken.exec(&self.connection)).await?.rows_affected > 0 {
                letter.attempts += 1;
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    async fn postpone(&self, letter: &QueuedLetter, due: Timestamp) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::DueAt, Expr::value(Moment::from(due)))
            .filter(Column::LetterId.eq(letter.id.get()))
            .filter(Column::Attempts.eq(letter.attempts));
        self.run("outbox.postpone", update.exec(&self.connection)).await?;
        Ok(())
    }

    async fn delete(&self, id: LetterId) -> Result<(), StoreError> {
        self.run("outbox.delete", Entity::delete_by_id(id.get()).exec(&self.connection)).await?;
        Ok(())
    }

    async fn delete_all_of(&self, user: UserId) -> Result<(), StoreError> {
        let about = Entity::delete_many().filter(Column::UserId.eq(user.get()));
        self.run("outbox.delete_all_of", about.exec(&self.connection)).await?;
        let address = Query::select()
            .column(users::Column::EmailKey)
            .from(users::Entity)
            .and_where(users::Column::UserId.eq(user.get()))
            .take();
        let to = Entity::delete_many().filter(Column::EmailKey.in_subquery(address));
        self.run("outbox.delete_all_of", to.exec(&self.connection)).await?;
        Ok(())
    }

    async fn delete_tokens_to(&self, to: &Email) -> Result<(), StoreError> {
        let tokens = Topic::ALL.into_iter().filter(|topic| topic.carries_token()).map(Topic::name);
        let delete = Entity::delete_many().filter(Column::EmailKey.eq(to.key())).filter(Column::Topic.is_in(tokens));
        self.run("outbox.delete_tokens_to", delete.exec(&self.connection)).await?;
        Ok(())
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.run("outbox.count", Entity::find().count(&self.connection)).await
    }
}
