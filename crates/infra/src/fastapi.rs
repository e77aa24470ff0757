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
mod target;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use mundap_domain::comment::CommentContent;
use mundap_domain::env::Timestamp;
use mundap_domain::image::{BlobStore, ImageCleaner};
use mundap_domain::qna::{Content, Title};
use mundap_domain::{Error, StoreError, UnitOfWork as _};
use sea_orm::sqlx;

pub use chrono_tz::Tz as Zone;
pub use report::{Change, ImportReport, Reason, TableReport};
pub use source::FastApi;

use crate::{ConnectError, SeaStore, retried};
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

/// Brings over what `source` has and `store` has not. Safe to run again, and while the board serves.
///
/// # Errors
/// [`ImportError`]. What was brought until then stays, and the next import goes on from there.
pub async fn import(
    store: &SeaStore,
    source: &mut FastApi,
    plan: &ImportPlan<'_>,
) -> Result<ImportReport, ImportError> {
    let looked = Pass::new(store, plan, false).run(source).await?;
    if plan.dry_run { Ok(looked) } else { Pass::new(store, plan, true).run(source).await }
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
    /// Those that an earlier import left out and this one did not.
    caught_up: Vec<i64>,
}

/// A batch of one table, sorted by what is known of its rows.
struct Sorted<'r, T> {
    /// To be brought, with whether an earlier import left it out.
    new: Vec<(&'r T, bool)>,
    done: Done,
}

const MAX_ID: i64 = 1 << 53;

impl<'a> Pass<'a> {
    fn new(store: &'a SeaStore, plan: &'a ImportPlan<'a>, writes: bool) -> Self {
        Self { store, plan, writes, report: ImportReport::default(), seen: HashMap::new(), marks: Marks::default() }
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
        Ok(self.report)
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
            let Some(last) = batch.last().map(|row| row.id) else { break };
            let to = mark.max(last.min(MAX_ID));
            let this = &*self;
            let done = retried(async || {
                let unit = this.store.unit().await?;
                let done = this.batch(&unit, table, start, &batch).await?;
                if this.writes {
                    this.remember(&unit, table, (mark, to), &done).await?;
                    Box::new(unit).commit().await?;
                }
                Ok(done)
            })
            .await?;
            mark = to;
            taken.extend(done.taken);
            let report = if table == Kept::Qna { &mut self.report.qna } else { &mut self.report.comment };
            report.add(done.report);
        }
        nothing_taken(table, taken)
    }

    async fn remember(&self, unit: &Unit, table: Kept, (from, to): (i64, i64), done: &Done) -> Result<(), StoreError> {
        if to > from {
            unit.move_mark(table, from, to).await?;
        }
        unit.remember_left(table, &done.left).await?;
        unit.forget_left(table, &done.caught_up).await
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
        let mut sorted = Sorted { new: Vec::new(), done: Done::default() };
        let done = &mut sorted.done;
        done.report.read = batch.len() as u64;
        for row in batch {
            let (id, created_at) = about(row);
            let was_left = left_before.contains(&id);
            if !(1..=MAX_ID).contains(&id) {
                // Not remembered: a row without a place is tried, and named, each time.
                done.report.leave(&id, Reason::BadId);
            } else if id <= start && !was_left {
                let same = |at: &Timestamp| created_at.is_none_or(|old| *at == self.time(old, &mut Vec::new()));
                match there.get(&id) {
                    None => done.report.deleted_here += 1,
                    Some(at) if same(at) => done.report.there += 1,
                    // Its time never changes here: this is not what was brought.
                    Some(_) => done.taken.push(id),
                }
            } else if !there.contains_key(&id) {
                sorted.new.push((row, was_left));
            } else if was_left {
                done.report.leave(&id, Reason::IdTaken);
            } else {
                done.taken.push(id);
            }
        }
        Ok(sorted)
    }

    async fn batch(&self, unit: &Unit, table: Kept, start: i64, batch: &[OldPost]) -> Result<Done, StoreError> {
        let Sorted { new, mut done } =
            self.sort(unit, table, start, batch, |row| (row.id, Some(&row.created_at))).await?;
        let parents = match table {
            Kept::Comment => unit.taken(Kept::Qna, &new.iter().map(|(row, _)| row.qna).collect::<Vec<_>>()).await?,
            Kept::Qna | Kept::Image => HashMap::new(),
        };
        let (mut people, mut fitted) = (HashMap::new(), Vec::new());
        for (old, was_left) in new {
            let mut changes = Vec::new();
            match self.fitted(table, old, &parents, &mut changes) {
                Ok((person, text)) => {
                    let created_at = self.time(&old.created_at, &mut changes);
                    fitted.push((old, person.hash, text, created_at));
                    people.entry(person.hash).or_insert(person);
                    done.report.change(&old.id, &changes);
                    done.caught_up.extend(was_left.then_some(old.id));
                }
                Err(reason) => {
                    done.report.leave(&old.id, reason);
                    done.left.extend((!was_left).then_some(old.id));
                }
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

    fn has_question(&self, old: &OldPost, here: &HashMap<i64, Timestamp>) -> Result<(), Reason> {
        // While only looking, the questions that are still to be brought count as brought.
        let comes = !self.writes && old.has_qna && old.qna > self.marks.qna;
        if here.contains_key(&old.qna) || comes {
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

/// Two people in a million million have the same.
fn short(hash: &[u8; 32]) -> u64 {
    hash.iter().take(8).fold(0, |short, byte| short << 8 | u64::from(*byte))
}
