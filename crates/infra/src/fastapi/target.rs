//! Rows with ids of their own into this board, and what an import remembers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use mundap_domain::StoreError;
use mundap_domain::comment::CommentContent;
use mundap_domain::env::Timestamp;
use mundap_domain::image::NewImage;
use mundap_domain::qna::{Content, QnaId, Title};
use mundap_domain::user::{DisplayName, Email, NewUser, Role, UserId};
use sea_orm::sea_query::{CaseStatement, Expr, ExprTrait as _};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, DatabaseTransaction, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};

use crate::Session;
use crate::row::Moment;
use crate::tables::{Described, not_a_hash};
use crate::{comment, image, qna, user};

pub(crate) mod row {
    pub(crate) mod mark {
        use sea_orm::entity::prelude::*;

        #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
        #[sea_orm(table_name = "import_mark")]
        pub(crate) struct Model {
            #[sea_orm(primary_key, auto_increment = false)]
            pub source_table: String,
            pub last_id: i64,
        }

        #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
        pub(crate) enum Relation {}

        impl ActiveModelBehavior for ActiveModel {}
    }

    /// Ids of old rows that were left out, by their table; and, by [`Kept::gaps`](super::Kept::gaps), where gaps start and end.
    pub(crate) mod left {
        use sea_orm::entity::prelude::*;

        #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
        #[sea_orm(table_name = "import_left")]
        pub(crate) struct Model {
            #[sea_orm(primary_key, auto_increment = false)]
            pub source_table: String,
            #[sea_orm(primary_key, auto_increment = false)]
            pub source_id: i64,
        }

        #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
        pub(crate) enum Relation {}

        impl ActiveModelBehavior for ActiveModel {}
    }

    pub(crate) mod person {
        use sea_orm::entity::prelude::*;

        #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
        #[sea_orm(table_name = "import_user")]
        pub(crate) struct Model {
            #[sea_orm(primary_key, auto_increment = false)]
            pub email_hash: Vec<u8>,
            pub user_id: i64,
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
}

impl Described for row::mark::Entity {
    fn wrong(_: &row::mark::Model) -> Vec<String> {
        Vec::new()
    }
}

impl Described for row::left::Entity {
    fn wrong(_: &row::left::Model) -> Vec<String> {
        Vec::new()
    }
}

impl Described for row::person::Entity {
    fn wrong(row: &row::person::Model) -> Vec<String> {
        not_a_hash("email_hash", &row.email_hash).into_iter().collect()
    }
}

/// A table of both boards whose rows keep their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kept {
    Qna,
    Comment,
    Image,
}

impl Kept {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Qna => "qna",
            Self::Comment => "comment",
            Self::Image => "image",
        }
    }

    /// What the starts of its gaps are remembered by, and their ends.
    const fn gaps(self) -> [&'static str; 2] {
        match self {
            Self::Qna => ["qna gap", "qna gap end"],
            Self::Comment => ["comment gap", "comment gap end"],
            Self::Image => ["image gap", "image gap end"],
        }
    }
}

/// Ids below the mark that no old row had when it passed them, as far as some ids are concerned. A database gives an id when a
/// row is written, not when it is committed: a row may come after those with higher ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    starts: BTreeSet<i64>,
    /// The first ids behind.
    ends: BTreeSet<i64>,
}

impl Gaps {
    pub(super) fn hold(&self, id: i64) -> bool {
        self.starts.range(..=id).next_back() > self.ends.range(..=id).next_back()
    }

    /// Takes out one that they hold. Only what stands at it and behind it matters, wherever its gap starts and ends.
    fn fill(&mut self, id: i64) {
        if !self.starts.remove(&id) {
            self.ends.insert(id);
        }
        if !self.ends.remove(&(id + 1)) {
            self.starts.insert(id + 1);
        }
    }
}

/// Somebody of the old board.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) hash: [u8; 32],
    pub(super) email: Email,
    pub(super) display_name: DisplayName,
    pub(super) created_at: Timestamp,
}

/// Where a person's account comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This import or an earlier one brought them.
    Known,
    /// Somebody has an account with this address here.
    There,
    New,
}

#[derive(Debug)]
pub(super) struct FittedQna {
    pub(super) id: i64,
    pub(super) user: i64,
    pub(super) title: Title,
    pub(super) content: Content,
    pub(super) created_at: Timestamp,
}

#[derive(Debug)]
pub(super) struct FittedComment {
    pub(super) id: i64,
    pub(super) qna: i64,
    pub(super) user: i64,
    pub(super) content: CommentContent,
    pub(super) created_at: Timestamp,
}

impl Session<DatabaseTransaction> {
    /// The highest old id that was looked at; 0 before the first import.
    pub(super) async fn mark(&self, table: Kept) -> Result<i64, StoreError> {
        let mark = self.run("import.mark", row::mark::Entity::find_by_id(table.name()).one(&self.connection)).await?;
        Ok(mark.map_or(0, |mark| mark.last_id))
    }

    /// Moves the mark. [`StoreError::Stale`] where another import has moved it meanwhile.
    pub(super) async fn move_mark(&self, table: Kept, from: i64, to: i64) -> Result<(), StoreError> {
        use row::mark::{ActiveModel, Column, Entity};
        if from == 0 {
            let row = ActiveModel { source_table: Set(table.name().to_owned()), last_id: Set(to) };
            return match self
                .run("import.move_mark", Entity::insert(row).exec_without_returning(&self.connection))
                .await
            {
                Err(StoreError::Duplicate(_)) => Err(StoreError::Stale),
                other => other.map(|_| ()),
            };
        }
        let update = Entity::update_many()
            .col_expr(Column::LastId, Expr::value(to))
            .filter(Column::SourceTable.eq(table.name()))
            .filter(Column::LastId.eq(from));
        crate::row::one_or_stale(self.run("import.move_mark", update.exec(&self.connection)).await?.rows_affected)
    }

    /// Those of the old ids that an earlier import left out.
    pub(super) async fn left_before(&self, table: Kept, ids: &[i64]) -> Result<HashSet<i64>, StoreError> {
        use row::left::{Column, Entity};
        let select = Entity::find()
            .select_only()
            .column(Column::SourceId)
            .filter(Column::SourceTable.eq(table.name()))
            .filter(Column::SourceId.is_in(ids.iter().copied()));
        Ok(self
            .run("import.left_before", select.into_tuple::<i64>().all(&self.connection))
            .await?
            .into_iter()
            .collect())
    }

    pub(super) async fn remember_left(&self, table: Kept, ids: &[i64]) -> Result<(), StoreError> {
        self.remember(table.name(), ids.iter().copied()).await
    }

    pub(super) async fn forget_left(&self, table: Kept, ids: &[i64]) -> Result<(), StoreError> {
        self.forget(table.name(), ids.iter().copied()).await
    }

    /// The gaps that matter for these ids: whether they hold one, and what changes where one is filled.
    pub(super) async fn gaps(&self, table: Kept, ids: &[i64]) -> Result<Gaps, StoreError> {
        use row::left::{Column, Entity};
        let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Gaps::default()) };
        let [starts, ends] = table.gaps();
        let before = Entity::find()
            .select_only()
            .column(Column::SourceId)
            .filter(Column::SourceTable.eq(starts))
            .filter(Column::SourceId.lte(*first))
            .order_by_desc(Column::SourceId)
            .limit(1);
        let before = self.run("import.gaps", before.into_tuple::<i64>().one(&self.connection)).await?;
        let near = Entity::find()
            .filter(Column::SourceTable.is_in([starts, ends]))
            .filter(Column::SourceId.between(before.unwrap_or(*first), last.saturating_add(1)));
        let mut gaps = Gaps::default();
        for end in self.run("import.gaps", near.all(&self.connection)).await? {
            let ends = if end.source_table == starts { &mut gaps.starts } else { &mut gaps.ends };
            ends.insert(end.source_id);
        }
        Ok(gaps)
    }

    /// Those of these ids that no import has brought: the rows here that have them are somebody else's. A new row gets the id
    /// behind the highest here, which may be that of an old one that was left out, or is not there any more.
    pub(super) async fn not_brought(&self, table: Kept, ids: &[i64]) -> Result<HashSet<i64>, StoreError> {
        let mark = self.mark(table).await?;
        let mut others = self.left_before(table, ids).await?;
        others.extend(ids.iter().filter(|id| **id > mark));
        let passed: BTreeSet<i64> = ids.iter().copied().filter(|id| !others.contains(id)).collect();
        let passed: Vec<i64> = passed.into_iter().collect();
        // Those that lie together: of ids far from each other, all the gaps between would be read.
        for near in passed.chunk_by(|id, next| next - id < 1_000) {
            let gaps = self.gaps(table, near).await?;
            others.extend(near.iter().filter(|id| gaps.hold(**id)));
        }
        Ok(others)
    }

    pub(super) async fn remember_gaps(&self, table: Kept, gaps: &[Range<i64>]) -> Result<(), StoreError> {
        let [starts, ends] = table.gaps();
        self.remember(starts, gaps.iter().map(|gap| gap.start)).await?;
        self.remember(ends, gaps.iter().map(|gap| gap.end)).await
    }

    /// These, which gaps hold, are looked at now.
    pub(super) async fn fill_gaps(&self, table: Kept, ids: &[i64]) -> Result<(), StoreError> {
        let before = self.gaps(table, ids).await?;
        let mut after = before.clone();
        for id in ids {
            after.fill(*id);
        }
        let [starts, ends] = table.gaps();
        for (name, before, after) in [(starts, before.starts, after.starts), (ends, before.ends, after.ends)] {
            self.forget(name, before.difference(&after).copied()).await?;
            self.remember(name, after.difference(&before).copied()).await?;
        }
        Ok(())
    }

    async fn remember(&self, name: &str, ids: impl Iterator<Item = i64>) -> Result<(), StoreError> {
        let rows = ids.map(|id| row::left::ActiveModel { source_table: Set(name.to_owned()), source_id: Set(id) });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.run("import.remember", row::left::Entity::insert_many(rows).exec_without_returning(&self.connection))
            .await?;
        Ok(())
    }

    async fn forget(&self, name: &str, ids: impl Iterator<Item = i64>) -> Result<(), StoreError> {
        use row::left::{Column, Entity};
        let ids: Vec<i64> = ids.collect();
        if ids.is_empty() {
            return Ok(());
        }
        let delete = Entity::delete_many().filter(Column::SourceTable.eq(name)).filter(Column::SourceId.is_in(ids));
        self.run("import.forget", delete.exec(&self.connection)).await?;
        Ok(())
    }

    /// Those of `ids` that a row of this board has, and when that was made. Questions are locked: their comments are
    /// counted next.
    pub(super) async fn taken(&self, table: Kept, ids: &[i64]) -> Result<HashMap<i64, Timestamp>, StoreError> {
        let ids = ids.iter().copied();
        let found = match table {
            Kept::Qna => {
                use qna::row::{Column, Entity};
                let select = Entity::find().select_only().columns([Column::QnaId, Column::CreatedAt]);
                let mut select = select.filter(Column::QnaId.is_in(ids));
                if self.locks_rows {
                    select = select.lock_exclusive();
                }
                self.run("import.taken", select.into_tuple::<(i64, Moment)>().all(&self.connection)).await?
            }
            Kept::Comment => {
                use comment::row::{Column, Entity};
                let select = Entity::find().select_only().columns([Column::CommentId, Column::CreatedAt]);
                let select = select.filter(Column::CommentId.is_in(ids));
                self.run("import.taken", select.into_tuple::<(i64, Moment)>().all(&self.connection)).await?
            }
            Kept::Image => {
                use image::row::{Column, Entity};
                let select = Entity::find().select_only().columns([Column::ImageId, Column::CreatedAt]);
                let select = select.filter(Column::ImageId.is_in(ids));
                self.run("import.taken", select.into_tuple::<(i64, Moment)>().all(&self.connection)).await?
            }
        };
        Ok(found.into_iter().map(|(id, at)| (id, at.into())).collect())
    }

    /// The accounts of these people, made where there are none if `makes`; without that a new one has id 0.
    pub(super) async fn people(
        &self,
        wanted: &HashMap<[u8; 32], Person>,
        makes: bool,
    ) -> Result<HashMap<[u8; 32], (i64, Origin)>, StoreError> {
        let mut found = HashMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        let hashes = wanted.keys().map(|hash| hash.to_vec());
        let known = row::person::Entity::find().filter(row::person::Column::EmailHash.is_in(hashes));
        for person in self.run("import.people", known.all(&self.connection)).await? {
            if let Ok(hash) = <[u8; 32]>::try_from(person.email_hash) {
                found.insert(hash, (person.user_id, Origin::Known));
            }
        }
        let unknown: Vec<&Person> = wanted.values().filter(|person| !found.contains_key(&person.hash)).collect();
        let there = self.accounts(&unknown).await?;
        let new: Vec<&Person> =
            unknown.iter().copied().filter(|person| !there.contains_key(&person.email.key())).collect();
        let mut made = HashMap::new();
        if makes && !new.is_empty() {
            let rows = new.iter().map(|person| account(person));
            self.run("import.people", user::row::Entity::insert_many(rows).exec_without_returning(&self.connection))
                .await?;
            made = self.accounts(&new).await?;
        }
        for person in &unknown {
            let key = person.email.key();
            let account = match there.get(&key) {
                Some(id) => (*id, Origin::There),
                None => (made.get(&key).copied().unwrap_or_default(), Origin::New),
            };
            found.insert(person.hash, account);
        }
        if makes && !unknown.is_empty() {
            let rows = unknown.iter().map(|person| row::person::ActiveModel {
                email_hash: Set(person.hash.to_vec()),
                user_id: Set(found.get(&person.hash).map_or(0, |(id, _)| *id)),
            });
            self.run("import.people", row::person::Entity::insert_many(rows).exec_without_returning(&self.connection))
                .await?;
        }
        Ok(found)
    }

    /// The accounts with these people's addresses, by the addresses' keys.
    async fn accounts(&self, people: &[&Person]) -> Result<HashMap<String, i64>, StoreError> {
        use user::row::{Column, Entity};
        if people.is_empty() {
            return Ok(HashMap::new());
        }
        let select = Entity::find()
            .select_only()
            .column(Column::EmailKey)
            .column(Column::UserId)
            .filter(Column::EmailKey.is_in(people.iter().map(|person| person.email.key())));
        let found =
            self.run("import.accounts", select.into_tuple::<(Option<String>, i64)>().all(&self.connection)).await?;
        Ok(found.into_iter().filter_map(|(key, id)| Some((key?, id))).collect())
    }

    pub(super) async fn insert_qnas(&self, qnas: &[FittedQna]) -> Result<(), StoreError> {
        if qnas.is_empty() {
            return Ok(());
        }
        let rows = qnas.iter().map(|old| qna::row::ActiveModel {
            qna_id: Set(old.id),
            ..qna::active(UserId::new(old.user), &old.title, &old.content, old.created_at)
        });
        self.run("import.insert_qnas", qna::row::Entity::insert_many(rows).exec_without_returning(&self.connection))
            .await?;
        Ok(())
    }

    /// Counts them first, as whoever comments does.
    pub(super) async fn insert_comments(&self, comments: &[FittedComment]) -> Result<(), StoreError> {
        use qna::row::{Column, Entity};
        if comments.is_empty() {
            return Ok(());
        }
        let mut counts: HashMap<i64, i32> = HashMap::new();
        for comment in comments {
            *counts.entry(comment.qna).or_default() += 1;
        }
        let more = counts.iter().fold(CaseStatement::new(), |case, (id, more)| case.case(Column::QnaId.eq(*id), *more));
        let update = Entity::update_many()
            .col_expr(Column::CommentCount, Expr::col(Column::CommentCount).add(Expr::expr(more.finally(0))))
            .filter(Column::QnaId.is_in(counts.keys().copied()));
        self.run("import.insert_comments", update.exec(&self.connection)).await?;
        let rows = comments.iter().map(|old| comment::row::ActiveModel {
            comment_id: Set(old.id),
            ..comment::active(QnaId::new(old.qna), UserId::new(old.user), &old.content, old.created_at)
        });
        self.run(
            "import.insert_comments",
            comment::row::Entity::insert_many(rows).exec_without_returning(&self.connection),
        )
        .await?;
        Ok(())
    }

    /// Whose comment it is, how many images it has, and when it was written; `None` where it is not there.
    pub(super) async fn commented(&self, id: i64) -> Result<Option<(i64, i32, Timestamp)>, StoreError> {
        use comment::row::{Column, Entity};
        let columns = [Column::UserId, Column::ImageCount, Column::CreatedAt];
        let mut select = Entity::find().filter(Column::CommentId.eq(id)).select_only().columns(columns);
        if self.locks_rows {
            select = select.lock_exclusive();
        }
        let found =
            self.run("import.commented", select.into_tuple::<(i64, i32, Moment)>().one(&self.connection)).await?;
        Ok(found.map(|(user, images, at)| (user, images, at.into())))
    }

    pub(super) async fn insert_image(&self, id: i64, image: &NewImage) -> Result<(), StoreError> {
        use mundap_domain::CommentRepository as _;
        self.count_images(image.comment, 1).await?;
        let row = image::row::ActiveModel { image_id: Set(id), ..image::active(image) };
        self.run("import.insert_image", image::row::Entity::insert(row).exec_without_returning(&self.connection))
            .await?;
        Ok(())
    }
}

/// A member without a password: it is set by mail, or by the operator.
fn account(person: &Person) -> user::row::ActiveModel {
    user::active(&NewUser {
        email: person.email.clone(),
        display_name: person.display_name.clone(),
        role: Role::Member,
        password: None,
        created_at: person.created_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_one_by_one_in_any_order() {
        for order in [[4, 5, 6, 7], [7, 6, 5, 4], [5, 6, 4, 7], [4, 7, 6, 5]] {
            let mut gaps = Gaps { starts: [1, 4, 10].into(), ends: [2, 8, 12].into() };
            let mut held = vec![1, 4, 5, 6, 7, 10, 11];
            for id in order {
                assert_eq!((0..14).filter(|id| gaps.hold(*id)).collect::<Vec<_>>(), held, "{order:?}");
                gaps.fill(id);
                held.retain(|left| *left != id);
            }
            assert_eq!(gaps, Gaps { starts: [1, 10].into(), ends: [2, 12].into() }, "{order:?}");
        }
    }
}
