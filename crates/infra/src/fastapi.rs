//! The first FastAPI program's board, brought over: people, questions, comments and images, with their ids and times.
//!
//! | part | knows |
//! | --- | --- |
//! | `fit` | what becomes of an old row |
//! | `pictures` | images, and where their files are |
//! | `report` | what is told of an import |
//! | `source` | the old database, which is read and never written |
//! | `target` | rows with ids of their own in this one, and what an import remembers |
//!
//! Everything is read twice: first to find whatever speaks against it, before anything is written, then to write, some
//! hundred rows a unit of work. Each unit moves a mark, so an import that was interrupted goes on where it stood, and a
//! later one brings what came since. What was brought is this board's from then on: it is neither changed nor brought
//! back after it was deleted here.

mod fit;
mod pictures;
mod report;
mod source;
pub(crate) mod target;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use mundap_domain::comment::CommentContent;
use mundap_domain::env::{Timestamp, retrying_while};
use mundap_domain::image::{BlobStore, ImageCleaner};
use mundap_domain::qna::{Content, Title};
use mundap_domain::{Error, StoreError, UnitOfWork as _};
use sea_orm::sqlx;

pub use chrono_tz::Tz as Zone;
pub use report::{Change, ImportReport, Reason, TableReport};
pub use source::FastApi;

use crate::failure::store_error;
use crate::transfer::rows::{go_on_from, next_id};
use crate::transfer::tables;
use crate::{ConnectError, SeaStore, SystemClock};
use fit::Address;
use source::{OldPost, OldTime, OldUser};
use target::{FittedComment, FittedQna, Kept, Origin, Person};

/// How to import.
pub struct ImportPlan<'a> {
    /// Where the old program's clock was, for times that do not say it.
    pub zone: Zone,
    /// Where the old program's files are, for images that are named by a path.
    pub images: Option<PathBuf>,
    /// Only looks: the report tells what an import would do.
    pub dry_run: bool,
    pub cleaner: &'a dyn ImageCleaner,
    pub blobs: &'a dyn BlobStore,
}

/// Why nothing, or nothing more, was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("cannot read the first program's database: {0}")]
    Connect(#[from] ConnectError),
    #[error("cannot read the first program's database: {0}")]
    Source(#[from] sqlx::Error),
    #[error("that database is not the first program's: it has no table qna with the columns qna_id, email and title")]
    NotTheFirstProgram,
    #[error(
        "nothing was imported: {table} {ids} of this board are other rows than the first program's of the same ids; import before anybody writes here, and each time with the same --timezone",
        ids = Ids(.ids)
    )]
    Taken { table: &'static str, ids: Vec<i64> },
    #[error(
        "the import stopped: {table} {ids} of this board were written while it ran, and are other rows than the first program's of the same ids; the {brought} rows that it brought stay: delete those others here, and run it again while nobody writes",
        ids = Ids(.ids)
    )]
    Met { table: &'static str, ids: Vec<i64>, brought: u64 },
    #[error("another import is under way on this database")]
    NotAlone,
    #[error("the import stopped; run it again to go on from here: {0}")]
    Stopped(Error),
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        match error {
            // Marks alone are written by what they were.
            StoreError::Stale => Self::NotAlone,
            other => Self::Stopped(other.into()),
        }
    }
}

/// A list of ids for a message: the first ten.
struct Ids<'a>(&'a [i64]);

impl fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().take(10).map(ToString::to_string).collect();
        f.write_str(&shown.join(", "))?;
        if self.0.len() > shown.len() { write!(f, " and {} more", self.0.len() - shown.len()) } else { Ok(()) }
    }
}

/// Brings over what `source` has and `store` has not. Safe to run again, and while the board serves: nothing that is written
/// here meanwhile is lost, but whoever writes may get an id that an old row is to have, and stops it.
///
/// # Errors
/// [`ImportError`]. What was brought until then stays, and the next import goes on from there.
pub async fn import(
    store: &SeaStore,
    source: &mut FastApi,
    plan: &ImportPlan<'_>,
) -> Result<ImportReport, ImportError> {
    let looked = Box::pin(Pass::new(store, plan, false).run(source)).await?;
    if plan.dry_run { Ok(looked) } else { Box::pin(Pass::new(store, plan, true).run(source)).await }
}

/// One reading of the old board.
struct Pass<'a> {
    store: &'a SeaStore,
    plan: &'a ImportPlan<'a>,
    writes: bool,
    report: ImportReport,
    /// Everybody among the old users, by eight bytes of the hash, and whether this pass brings them.
    seen: HashMap<u64, bool>,
    /// How far an earlier import came with questions and comments.
    marks: Marks,
    /// What it did not bring of the rows up to there, and this pass does.
    coming: HashSet<(Kept, i64)>,
    /// What this pass leaves out, and no earlier import did.
    left: HashSet<(Kept, i64)>,
}

#[derive(Clone, Copy, Default)]
struct Marks {
    qna: i64,
    comment: i64,
}

/// What a unit of work did.
#[derive(Default)]
struct Done {
    report: TableReport,
    /// Ids here that are other rows'.
    taken: Vec<i64>,
    /// The old ids that are left out, and that an earlier import did not leave out.
    left: Vec<i64>,
    /// Those that this import brings, and that an earlier one left out, or passed before they were there.
    caught_up: Vec<i64>,
    /// Those that were not there when an earlier import passed them.
    filled: Vec<i64>,
}

impl Done {
    fn brought(&mut self, id: i64, before: Before) {
        match before {
            Before::Unseen | Before::Brought => {}
            Before::Late => {
                self.filled.push(id);
                self.caught_up.push(id);
            }
            Before::Left => self.caught_up.push(id),
        }
    }

    fn leave(&mut self, id: i64, before: Before, reason: Reason) {
        self.report.leave(&id, reason);
        match before {
            Before::Unseen => self.left.push(id),
            Before::Late => {
                self.filled.push(id);
                self.left.push(id);
            }
            Before::Left | Before::Brought => {}
        }
    }
}

/// What earlier imports know of an old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// None came so far.
    Unseen,
    /// One came further, and the row was not there yet: its transaction was open, or it was put in by hand.
    Late,
    Left,
    /// One brought it; where it is not here, it was deleted.
    Brought,
}

/// How far a batch moves the mark.
struct Passed {
    from: i64,
    to: i64,
    /// The ids between that no row has, the ends of the ranges excluded: one may come yet.
    gaps: Vec<Range<i64>>,
}

impl Passed {
    /// Over the rows with these ids, in order.
    fn over(from: i64, ids: impl IntoIterator<Item = i64>) -> Self {
        let mut passed = Self { from, to: from, gaps: Vec::new() };
        for id in ids.into_iter().filter(|id| *id <= MAX_ID) {
            if id > passed.to {
                let gap = passed.to + 1..id;
                passed.gaps.extend((!gap.is_empty()).then_some(gap));
                passed.to = id;
            }
        }
        passed
    }
}

/// A batch of one table, sorted by what is known of its rows.
struct Sorted<'r, T> {
    /// To be brought.
    new: Vec<(&'r T, Before)>,
    done: Done,
}

/// Clients can name ids below 2^53, and new rows get those that come after the highest: half of them are left for these.
const MAX_ID: i64 = (1 << 52) - 1;

impl<'a> Pass<'a> {
    fn new(store: &'a SeaStore, plan: &'a ImportPlan<'a>, writes: bool) -> Self {
        let (report, seen) = (ImportReport::default(), HashMap::new());
        let (coming, left) = (HashSet::new(), HashSet::new());
        Self { store, plan, writes, report, seen, marks: Marks::default(), coming, left }
    }

    async fn run(mut self, source: &mut FastApi) -> Result<ImportReport, ImportError> {
        self.report.unknown.clone_from(&source.schema.unknown);
        let unit = self.store.unit().await?;
        self.marks = Marks { qna: unit.mark(Kept::Qna).await?, comment: unit.mark(Kept::Comment).await? };
        let image_mark = unit.mark(Kept::Image).await?;
        drop(unit);
        self.users(source).await?;
        self.posts(source, Kept::Qna, self.marks.qna).await?;
        self.posts(source, Kept::Comment, self.marks.comment).await?;
        self.images(source, image_mark).await?;
        if self.writes {
            self.keep_ids().await?;
        }
        Ok(self.report)
    }

    /// Lets the ids of what is new here go on behind those of old rows that are left out at the end: they are tried again.
    async fn keep_ids(&self) -> Result<(), ImportError> {
        let (store, db) = (self.store, self.store.writer());
        for kept in [Kept::Qna, Kept::Comment, Kept::Image] {
            let mark = store.unit().await?.mark(kept).await?;
            let Some(table) = tables().into_iter().find(|table| table.name == kept.name()) else { continue };
            if next_id(db, store.kind(), &table).await.map_err(store_error)? <= mark {
                go_on_from(store, &table, mark + 1).await.map_err(store_error)?;
            }
        }
        Ok(())
    }

    async fn users(&mut self, source: &mut FastApi) -> Result<(), ImportError> {
        let mut rows = source.users();
        loop {
            let batch = rows.batch(|_: &OldUser| 200).await?;
            if batch.is_empty() {
                return Ok(());
            }
            let mut people = HashMap::new();
            let mut fitted = Vec::new();
            for old in &batch {
                let mut changes = Vec::new();
                match self.person(&old.email, old.name.as_deref(), &old.created_at, &mut changes) {
                    Ok(person) => {
                        fitted.push((old, person.hash, changes));
                        people.entry(person.hash).or_insert(person);
                    }
                    Err(reason) => self.report.users.leave(&old.email, reason),
                }
            }
            let (store, writes) = (self.store, self.writes);
            let found = retried(async || {
                let unit = store.unit().await?;
                let found = unit.people(&people, writes).await?;
                if writes {
                    Box::new(unit).commit().await?;
                }
                Ok(found)
            })
            .await?;
            let report = &mut self.report.users;
            report.read += batch.len() as u64;
            for (old, hash, mut changes) in fitted {
                let origin = found.get(&hash).map_or(Origin::New, |(_, origin)| *origin);
                if let Some(is_new) = self.seen.get(&short(&hash)) {
                    report.there += 1;
                    report.change(&old.email, if *is_new { &[Change::SameAddress] } else { &[] });
                    continue;
                }
                self.seen.insert(short(&hash), origin != Origin::Known);
                match origin {
                    Origin::Known => report.there += 1,
                    Origin::There => {
                        report.there += 1;
                        report.change(&old.email, &[Change::AccountThere]);
                    }
                    Origin::New => {
                        report.imported += 1;
                        changes.retain(|change| *change != Change::NoAccount);
                        report.change(&old.email, &changes);
                    }
                }
            }
        }
    }

    fn person(
        &self,
        email: &str,
        name: Option<&str>,
        created_at: &OldTime,
        changes: &mut Vec<Change>,
    ) -> Result<Person, Reason> {
        let Address { email: address, hash } = fit::address(email, changes)?;
        let display_name = fit::name(name, email, changes)?;
        Ok(Person { hash, email: address, display_name, created_at: self.time(created_at, changes) })
    }

    fn time(&self, old: &OldTime, changes: &mut Vec<Change>) -> Timestamp {
        fit::time(old.text.as_deref(), old.is_utc, self.plan.zone, changes)
    }

    /// Questions, or comments.
    async fn posts(&mut self, source: &mut FastApi, table: Kept, start: i64) -> Result<(), ImportError> {
        let mut rows = if table == Kept::Qna { source.qnas() } else { source.comments() };
        let (mut mark, mut taken) = (start, Vec::new());
        loop {
            let batch = rows.batch(OldPost::size).await?;
            if batch.is_empty() {
                break;
            }
            let passed = Passed::over(mark, batch.iter().map(|row| row.id));
            let this = &*self;
            let done = retried(async || {
                let unit = this.store.unit().await?;
                let done = this.batch(&unit, table, start, &batch).await?;
                this.keep(unit, table, &passed, &done).await?;
                Ok(done)
            })
            .await?;
            self.nobody_met(table, &done)?;
            mark = passed.to;
            self.coming.extend(done.caught_up.iter().map(|id| (table, *id)));
            self.left.extend(done.left.iter().map(|id| (table, *id)));
            taken.extend(done.taken);
            let report = if table == Kept::Qna { &mut self.report.qna } else { &mut self.report.comment };
            report.add(done.report);
        }
        nothing_taken(table, taken)
    }

    /// Makes durable what a unit did and what is to be remembered of it, unless it met a row of somebody else.
    async fn keep(&self, unit: Unit, table: Kept, passed: &Passed, done: &Done) -> Result<(), StoreError> {
        if !self.writes {
            return Ok(());
        }
        if !done.taken.is_empty() {
            // Another import may have brought it: that one has moved the mark.
            return if unit.mark(table).await? == passed.from { Ok(()) } else { Err(StoreError::Stale) };
        }
        if passed.to > passed.from {
            unit.move_mark(table, passed.from, passed.to).await?;
        }
        unit.remember_gaps(table, &passed.gaps).await?;
        unit.fill_gaps(table, &done.filled).await?;
        unit.remember_left(table, &done.left).await?;
        unit.forget_left(table, &done.caught_up).await?;
        Box::new(unit).commit().await
    }

    /// Stops where a row that came since this import looked has an id of an old one: the unit that met it left nothing.
    fn nobody_met(&self, table: Kept, done: &Done) -> Result<(), ImportError> {
        if !self.writes || done.taken.is_empty() {
            return Ok(());
        }
        let brought = self.report.tables().iter().map(|(_, table)| table.imported).sum();
        Err(ImportError::Met { table: table.name(), ids: done.taken.clone(), brought })
    }

    /// Tells what is new from what an earlier import brought.
    async fn sort<'r, T>(
        &self,
        unit: &Unit,
        table: Kept,
        start: i64,
        batch: &'r [T],
        about: impl Fn(&T) -> (i64, Option<&OldTime>),
    ) -> Result<Sorted<'r, T>, StoreError> {
        let ids: Vec<i64> = batch.iter().map(|row| about(row).0).collect();
        let there = unit.taken(table, &ids).await?;
        let left_before = unit.left_before(table, &ids).await?;
        let below: Vec<i64> = ids.iter().copied().filter(|id| *id <= start).collect();
        let gaps = unit.gaps(table, &below).await?;
        let mut sorted = Sorted { new: Vec::new(), done: Done::default() };
        let done = &mut sorted.done;
        done.report.read = batch.len() as u64;
        for row in batch {
            let (id, created_at) = about(row);
            if !(1..=MAX_ID).contains(&id) {
                // Not remembered: a row without a place is tried, and named, each time.
                done.report.leave(&id, Reason::BadId);
                continue;
            }
            let before = if left_before.contains(&id) {
                Before::Left
            } else if id > start {
                Before::Unseen
            } else if gaps.hold(id) {
                Before::Late
            } else {
                Before::Brought
            };
            let same =
                |at: Timestamp| created_at.is_none_or(|old| fit::nearest_held(at) == self.time(old, &mut Vec::new()));
            match (before, there.get(&id)) {
                (Before::Brought, None) => done.report.deleted_here += 1,
                (Before::Brought, Some(at)) if same(*at) => done.report.there += 1,
                // Its time never changes here: this is not what was brought.
                (Before::Brought | Before::Unseen, Some(_)) => done.taken.push(id),
                (Before::Late | Before::Left, Some(_)) => done.report.leave(&id, Reason::IdTaken),
                (Before::Unseen | Before::Late | Before::Left, None) => sorted.new.push((row, before)),
            }
        }
        Ok(sorted)
    }

    async fn batch(&self, unit: &Unit, table: Kept, start: i64, batch: &[OldPost]) -> Result<Done, StoreError> {
        let Sorted { new, mut done } =
            self.sort(unit, table, start, batch, |row| (row.id, Some(&row.created_at))).await?;
        let parents = match table {
            Kept::Comment => {
                let mut here = unit.taken(Kept::Qna, &new.iter().map(|(row, _)| row.qna).collect::<Vec<_>>()).await?;
                let others = unit.not_brought(Kept::Qna, &here.keys().copied().collect::<Vec<_>>()).await?;
                here.retain(|id, _| !others.contains(id));
                here
            }
            Kept::Qna | Kept::Image => HashMap::new(),
        };
        let (mut people, mut fitted) = (HashMap::new(), Vec::new());
        for (old, before) in new {
            let mut changes = Vec::new();
            match self.fitted(table, old, &parents, &mut changes) {
                Ok((person, text)) => {
                    let created_at = self.time(&old.created_at, &mut changes);
                    fitted.push((old, person.hash, text, created_at));
                    people.entry(person.hash).or_insert(person);
                    done.report.change(&old.id, &changes);
                    done.brought(old.id, before);
                }
                Err(reason) => done.leave(old.id, before, reason),
            }
        }
        done.report.imported = fitted.len() as u64;
        let authors = unit.people(&people, self.writes).await?;
        let (mut qnas, mut comments) = (Vec::new(), Vec::new());
        for (old, hash, text, created_at) in fitted {
            let user = authors.get(&hash).map_or(0, |(id, _)| *id);
            match text {
                Fitted::Qna(title, content) => qnas.push(FittedQna { id: old.id, user, title, content, created_at }),
                Fitted::Comment(content) => {
                    comments.push(FittedComment { id: old.id, qna: old.qna, user, content, created_at });
                }
            }
        }
        if self.writes && done.taken.is_empty() {
            unit.insert_qnas(&qnas).await?;
            unit.insert_comments(&comments).await?;
        }
        Ok(done)
    }

    fn fitted(
        &self,
        table: Kept,
        old: &OldPost,
        questions: &HashMap<i64, Timestamp>,
        changes: &mut Vec<Change>,
    ) -> Result<(Person, Fitted), Reason> {
        if table == Kept::Comment {
            self.has_question(old, questions)?;
        }
        // Only the account's own row says what is odd about its owner.
        let person = self.person(&old.email, None, &old.created_at, &mut Vec::new())?;
        if !self.seen.contains_key(&short(&person.hash)) {
            changes.push(Change::NoAccount);
        }
        let text = if table == Kept::Qna {
            let (title, content) = fit::qna(old.title.as_deref(), old.content.as_deref(), changes)?;
            Fitted::Qna(title, content)
        } else {
            Fitted::Comment(fit::comment(old.content.as_deref(), changes)?)
        };
        Ok((person, text))
    }

    /// While only looking, what is still to be brought counts as brought.
    fn comes(&self, table: Kept, id: i64) -> bool {
        let mark = match table {
            Kept::Qna => self.marks.qna,
            Kept::Comment | Kept::Image => self.marks.comment,
        };
        let is_new = (mark + 1..=MAX_ID).contains(&id) && !self.left.contains(&(table, id));
        !self.writes && (is_new || self.coming.contains(&(table, id)))
    }

    fn has_question(&self, old: &OldPost, here: &HashMap<i64, Timestamp>) -> Result<(), Reason> {
        if here.contains_key(&old.qna) || (old.has_qna && self.comes(Kept::Qna, old.qna)) {
            Ok(())
        } else if old.has_qna {
            Err(Reason::QuestionGoneHere)
        } else {
            Err(Reason::NoQuestion)
        }
    }
}

type Unit = crate::Session<sea_orm::DatabaseTransaction>;

enum Fitted {
    Qna(Title, Content),
    Comment(CommentContent),
}

fn nothing_taken(table: Kept, ids: Vec<i64>) -> Result<(), ImportError> {
    if ids.is_empty() { Ok(()) } else { Err(ImportError::Taken { table: table.name(), ids }) }
}

/// Runs a whole unit again while it meets others, those among them who took an id or an address between its look and its write:
/// it finds them at its next look.
async fn retried<T, F>(unit: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let met_others = |error: &StoreError| matches!(error, StoreError::Contention(_) | StoreError::Duplicate(_));
    retrying_while(&SystemClock, met_others, unit).await
}

/// Two people in a million million have the same.
fn short(hash: &[u8; 32]) -> u64 {
    hash.iter().take(8).fold(0, |short, byte| short << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_no_row_has_are_gaps_up_to_the_last_row_that_can_come() {
        for (from, ids, to, gaps) in [
            (0, vec![1, 2, 3], 3, vec![]),
            (0, vec![-1, 0, 3, 4, 7], 7, vec![(1, 3), (5, 7)]),
            (5, vec![3, 4, 8], 8, vec![(6, 8)]),
            (5, vec![3, 5], 5, vec![]),
            (5, vec![6, MAX_ID + 1], 6, vec![]),
            (5, vec![MAX_ID], MAX_ID, vec![(6, MAX_ID)]),
        ] {
            let passed = Passed::over(from, ids.clone());
            let found: Vec<_> = passed.gaps.iter().map(|gap| (gap.start, gap.end)).collect();
            assert_eq!((passed.from, passed.to, found), (from, to, gaps), "{from} {ids:?}");
        }
    }
}
