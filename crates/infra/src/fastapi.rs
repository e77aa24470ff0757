//! The first FastAPI program's board, brought over: people, questions, comments and images, with their ids and times.
//!
//! | part | knows |
//! | --- | --- |
//! | `fit` | what becomes of an old row |
//! | `source` | the old database, which is read and never written |
//! | `target` | rows with ids of their own in this one, and what an import remembers |
//!
//! Everything is read twice: first to find whatever speaks against it, before anything is written, then to write, some
//! hundred rows a unit of work. Each unit moves a mark, so an import that was interrupted goes on where it stood, and a
//! later one brings what came since. What was brought is this board's from then on: it is neither changed nor brought
//! back after it was deleted here.

mod fit;
mod source;
mod target;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use mundap_domain::comment::{CommentContent, CommentId};
use mundap_domain::env::Timestamp;
use mundap_domain::image::{BlobStore, Digest, Image, ImageCleaner, NewImage, Picture, Upload};
use mundap_domain::qna::{Content, Title};
use mundap_domain::user::UserId;
use mundap_domain::{Error, StoreError, UnitOfWork as _};
use sea_orm::sqlx;

pub use chrono_tz::Tz as Zone;
pub use source::FastApi;

use crate::{ConnectError, SeaStore, retried};
use fit::Address;
use source::{OldImage, OldPost, OldTime, OldUser};
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

/// What had to be changed for a row to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    NoEmail,
    SameAddress,
    AccountThere,
    LongName,
    NoAccount,
    EmptyTitle,
    LongTitle,
    EmptyComment,
    ControlCharacters,
    NoTime,
    TimeTwice,
    TimeSkipped,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEmail => "no e-mail address: the account has one at imported.invalid, which no letter reaches",
            Self::SameAddress => "the same address in another spelling: one account",
            Self::AccountThere => "an account with this address was here: it took over what was theirs",
            Self::LongName => "the name was too long and was cut",
            Self::NoAccount => "the author is not among the users: an account was made",
            Self::EmptyTitle => "the title was empty: it is … now",
            Self::LongTitle => "the title was too long: the whole of it stands above the content",
            Self::EmptyComment => "the comment was empty: it is … now",
            Self::ControlCharacters => "control characters were replaced by \u{fffd}",
            Self::NoTime => "it has no time: it is 1970-01-01 now",
            Self::TimeTwice => "clocks showed its time twice: the first was taken",
            Self::TimeSkipped => "clocks left its time out: it was taken as if they had not been put forward yet",
        })
    }
}

/// Why a row was left out. It is tried again by the next import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    BadId,
    IdTaken,
    TooLong,
    BreaksARule,
    NoQuestion,
    QuestionGoneHere,
    NoComment,
    CommentFull,
    NoFolder,
    NoFile,
    NeitherBytesNorPath,
    /// The code of a [`Refusal`](mundap_domain::image::Refusal).
    Image(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadId => "an id must be between 1 and 2^53",
            Self::IdTaken => "another row has its id here",
            Self::TooLong => "the text has more than 20000 characters",
            Self::BreaksARule => "it breaks a rule",
            Self::NoQuestion => "its question is not on the old board",
            Self::QuestionGoneHere => "its question is not here, or was deleted here",
            Self::NoComment => "its comment is not here",
            Self::CommentFull => "its comment has ten images already",
            Self::NoFolder => "it is a file: name the folder with --images",
            Self::NoFile => "its file is not in the folder that --images names",
            Self::NeitherBytesNorPath => "it has neither bytes nor a path",
            Self::Image(code) => return write!(f, "the image is refused: {code}"),
        })
    }
}

/// What became of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableReport {
    /// Rows of the old table.
    pub read: u64,
    pub imported: u64,
    /// Were here already; whatever became of them here, they were left alone.
    pub there: u64,
    /// An earlier import brought them, and they were deleted here.
    pub deleted_here: u64,
    /// Imported, but not quite as they were. The rows by id, people by their old e-mail.
    pub changed: BTreeMap<Change, Vec<String>>,
    pub left_out: BTreeMap<Reason, Vec<String>>,
}

impl TableReport {
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left_out.values().map(|ids| ids.len() as u64).sum()
    }

    fn change(&mut self, id: &impl ToString, changes: &[Change]) {
        let changes: BTreeSet<_> = changes.iter().collect();
        for change in changes {
            self.changed.entry(*change).or_default().push(id.to_string());
        }
    }

    fn leave(&mut self, id: &impl ToString, reason: Reason) {
        self.left_out.entry(reason).or_default().push(id.to_string());
    }

    fn add(&mut self, other: Self) {
        self.read += other.read;
        self.imported += other.imported;
        self.there += other.there;
        self.deleted_here += other.deleted_here;
        for (change, ids) in other.changed {
            self.changed.entry(change).or_default().extend(ids);
        }
        for (reason, ids) in other.left_out {
            self.left_out.entry(reason).or_default().extend(ids);
        }
    }
}

/// What an import did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    pub users: TableReport,
    pub qna: TableReport,
    pub comment: TableReport,
    pub image: TableReport,
    /// Tables by comment that were not understood, and why.
    pub unknown: Vec<(String, &'static str)>,
}

impl ImportReport {
    /// By the tables' names here.
    #[must_use]
    pub fn tables(&self) -> [(&'static str, &TableReport); 4] {
        [("users", &self.users), ("qna", &self.qna), ("comment", &self.comment), ("image", &self.image)]
    }

    /// Whether everything of the old board is on this one, or was.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unknown.is_empty() && self.tables().iter().all(|(_, table)| table.left_out.is_empty())
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

    async fn images(&mut self, source: &mut FastApi, start: i64) -> Result<(), ImportError> {
        let mut rows = source.images();
        let (mut mark, mut taken) = (start, Vec::new());
        while let Some(old) = rows.next().await? {
            let to = mark.max(old.id.min(MAX_ID));
            let batch = std::slice::from_ref(&old);
            // Asked before the work: a picture that is here costs no decoding.
            let unit = self.store.unit().await?;
            let is_new = !self.sort(&unit, Kept::Image, start, batch, |row| (row.id, None)).await?.new.is_empty();
            drop(unit);
            let picture = if is_new { Some(self.picture(&old).await?) } else { None };
            if let Some(Ok(Some(picture))) = &picture {
                let digest = Digest::of(&picture.content);
                self.plan.blobs.put(digest, picture.content.clone()).await.map_err(stopped)?;
            }
            let this = &*self;
            let done = retried(async || {
                let unit = this.store.unit().await?;
                let Sorted { new, mut done } =
                    this.sort(&unit, Kept::Image, start, batch, |row| (row.id, None)).await?;
                if let Some((_, was_left)) = new.first() {
                    let mut changes = Vec::new();
                    match this.attach(&unit, &old, picture.as_ref(), &mut changes).await? {
                        Ok(()) => {
                            done.report.imported = 1;
                            done.report.change(&old.id, &changes);
                            done.caught_up.extend(was_left.then_some(old.id));
                        }
                        Err(reason) => {
                            done.report.leave(&old.id, reason);
                            done.left.extend((!was_left).then_some(old.id));
                        }
                    }
                }
                if this.writes {
                    this.remember(&unit, Kept::Image, (mark, to), &done).await?;
                    Box::new(unit).commit().await?;
                }
                Ok(done)
            })
            .await?;
            mark = to;
            taken.extend(done.taken);
            self.report.image.add(done.report);
        }
        nothing_taken(Kept::Image, taken)
    }

    async fn attach(
        &self,
        unit: &Unit,
        old: &OldImage,
        picture: Option<&Result<Option<Picture>, Reason>>,
        changes: &mut Vec<Change>,
    ) -> Result<Result<(), Reason>, StoreError> {
        let picture = match picture {
            Some(Ok(picture)) => picture.as_ref(),
            Some(Err(reason)) => return Ok(Err(*reason)),
            None => None,
        };
        let Some((owner, images, commented_at)) = unit.commented(old.comment).await? else {
            // While only looking, the comments that are still to be brought count as brought.
            let comes = !self.writes && old.comment > self.marks.comment;
            return Ok(if comes { Ok(()) } else { Err(Reason::NoComment) });
        };
        if usize::try_from(images).unwrap_or_default() >= Image::MAX_PER_COMMENT {
            return Ok(Err(Reason::CommentFull));
        }
        let created_at = match old.created_at.text {
            Some(_) => self.time(&old.created_at, changes),
            // Most such tables have no time.
            None => commented_at,
        };
        if let Some(picture) = picture {
            let image = NewImage {
                comment: CommentId::new(old.comment),
                owner: UserId::new(owner),
                media_type: picture.media_type,
                bytes: u32::try_from(picture.content.len()).unwrap_or(u32::MAX),
                width: picture.width,
                height: picture.height,
                digest: Digest::of(&picture.content),
                created_at,
            };
            unit.insert_image(old.id, &image).await?;
        }
        Ok(Ok(()))
    }

    /// The picture that is made of an old image; none while only looking, which decodes nothing.
    async fn picture(&self, old: &OldImage) -> Result<Result<Option<Picture>, Reason>, ImportError> {
        let bytes = match (&old.bytes, &old.path) {
            (Some(bytes), _) if !bytes.is_empty() => bytes.clone(),
            (_, Some(path)) if !path.trim().is_empty() => {
                let Some(folder) = self.plan.images.clone() else { return Ok(Err(Reason::NoFolder)) };
                let path = path.clone();
                let found = tokio::task::spawn_blocking(move || read_below(&folder, &path)).await;
                match found.map_err(Error::internal).map_err(ImportError::Stopped)? {
                    Some(bytes) => bytes,
                    None => return Ok(Err(Reason::NoFile)),
                }
            }
            _ => return Ok(Err(Reason::NeitherBytesNorPath)),
        };
        let cleaned = match Upload::parse(bytes) {
            Ok(_) if !self.writes => return Ok(Ok(None)),
            Ok(upload) => self.plan.cleaner.clean(upload).await,
            Err(error) => Err(error),
        };
        match cleaned {
            Ok(picture) => Ok(Ok(Some(picture))),
            Err(Error::Image(refusal)) => Ok(Err(Reason::Image(refusal.code()))),
            Err(other) => Err(ImportError::Stopped(other)),
        }
    }
}

type Unit = crate::Session<sea_orm::DatabaseTransaction>;

enum Fitted {
    Qna(Title, Content),
    Comment(CommentContent),
}

fn stopped(error: mundap_domain::image::BlobError) -> ImportError {
    ImportError::Stopped(error.into())
}

fn nothing_taken(table: Kept, ids: Vec<i64>) -> Result<(), ImportError> {
    if ids.is_empty() { Ok(()) } else { Err(ImportError::Taken { table: table.name(), ids }) }
}

/// Two people in a million million have the same.
fn short(hash: &[u8; 32]) -> u64 {
    hash.iter().take(8).fold(0, |short, byte| short << 8 | u64::from(*byte))
}

/// The file in `folder` that an old path or URL names: what was `static/images/a.png` for the program, or
/// `http://host/static/images/a.png` for its clients, may be `images/a.png` or `a.png` there. The longest such path is
/// taken; none leads out of the folder.
fn read_below(folder: &Path, path: &str) -> Option<Vec<u8>> {
    let path = path.trim().replace('\\', "/");
    let path = match path.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => &path,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    (0..parts.len()).find_map(|from| {
        let below = &parts[from..];
        let plain = below.iter().all(|part| matches!(part, Component::Normal(_)));
        let file = folder.join(below.iter().collect::<PathBuf>());
        // One byte more than is allowed: enough to be refused.
        let limit = Upload::MAX_BYTES as u64 + 1;
        if !plain || !file.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(file).ok()?, limit), &mut bytes)
            .ok()?;
        Some(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_path_is_found_below_the_folder_and_nowhere_else() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("images");
        std::fs::create_dir_all(folder.join("images")).unwrap();
        std::fs::write(top.path().join("secret.png"), "secret").unwrap();
        std::fs::write(folder.join("a.png"), "short").unwrap();
        std::fs::write(folder.join("images/a.png"), "long").unwrap();
        for (path, expected) in [
            ("a.png", Some("short")),
            ("images/a.png", Some("long")),
            ("/static/images/a.png", Some("long")),
            ("http://host:8000/static/images/a.png?v=1", Some("long")),
            ("uploads\\a.png", Some("short")),
            ("../secret.png", None),
            ("images/../../secret.png", None),
            ("b.png", None),
            ("http://host", None),
            ("/", None),
        ] {
            let found = read_below(&folder, path).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }
}
