//! The oracle of acknowledged writes: what the board said it has, it must have, once and as it was sent.
//!
//! A writer sends each write with an `Idempotency-Key` of its own and sends it again, with the same key, until it is
//! acknowledged. In the end everything is read back, by walking the list and by the first program's `load_all_qna`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::Result;
use crate::client::{Call, Client, Lost};
use crate::tally::Tally;

/// A write that was sent at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub title: String,
    pub content: String,
    /// The id in its acknowledgement; `None`: it was given up before there was one.
    pub id: Option<i64>,
}

/// A row that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: i64,
    pub title: String,
    pub content: String,
}

impl Row {
    fn of(value: &Value) -> Result<Self> {
        let text = |name: &str| value[name].as_str().map(str::to_owned).ok_or_else(|| format!("no {name}: {value}"));
        let id = value["qna_id"].as_i64().ok_or_else(|| format!("no qna_id: {value}"))?;
        Ok(Self { id, title: text("title")?, content: text("content")? })
    }
}

/// What does not agree with what was acknowledged, by titles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub acknowledged: usize,
    /// Acknowledged and not there.
    pub lost: Vec<String>,
    /// There more than once, acknowledged or not.
    pub twice: Vec<String>,
    /// There with another content or another id than was acknowledged.
    pub changed: Vec<String>,
}

impl Findings {
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.lost.is_empty() && self.twice.is_empty() && self.changed.is_empty()
    }

    /// Such as `1200 acknowledged: 0 lost, 0 twice, 0 changed`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let (lost, twice, changed) = (self.lost.len(), self.twice.len(), self.changed.len());
        let first = self.lost.iter().chain(&self.twice).chain(&self.changed).next();
        let first = first.map_or_else(String::new, |title| format!(" (such as {title})"));
        format!("{} acknowledged: {lost} lost, {twice} twice, {changed} changed{first}", self.acknowledged)
    }
}

/// Everything that was sent.
#[derive(Debug, Default)]
pub struct Ledger {
    writes: RefCell<Vec<Write>>,
}

impl Ledger {
    pub fn enter(&self, write: Write) {
        self.writes.borrow_mut().push(write);
    }

    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.writes.borrow().iter().filter(|write| write.id.is_some()).count()
    }

    /// Holds what was read back to what was acknowledged.
    #[must_use]
    pub fn audit(&self, rows: &[Row]) -> Findings {
        let mut found: HashMap<&str, Vec<&Row>> = HashMap::new();
        for row in rows {
            found.entry(&row.title).or_default().push(row);
        }
        let mut findings = Findings { acknowledged: self.acknowledged(), ..Findings::default() };
        for write in self.writes.borrow().iter() {
            let rows = found.get(&*write.title).map_or(&[][..], Vec::as_slice);
            if rows.len() > 1 {
                findings.twice.push(write.title.clone());
            }
            if write.id.is_some() && rows.is_empty() {
                findings.lost.push(write.title.clone());
            }
            let same = |row: &&Row| row.content == write.content && write.id.is_none_or(|id| id == row.id);
            if !rows.iter().all(same) {
                findings.changed.push(write.title.clone());
            }
        }
        findings
    }

    /// Reads everything back in both ways and holds it to what was acknowledged.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn check(&self, server: SocketAddr) -> Result<Findings> {
        let walked = self.audit(&walk(server).await?);
        let loaded = self.audit(&load_all(server).await?);
        Ok(if walked.are_none() { loaded } else { walked })
    }
}

/// All QnAs, by walking the list.
///
/// # Errors
/// Where a page is not 200.
pub async fn walk(server: SocketAddr) -> Result<Vec<Row>> {
    let mut client = Client::new(server);
    let (mut rows, mut path) = (Vec::new(), "/api/v1/qna?limit=100".to_owned());
    loop {
        let page = client.expect(200, &Call::get(&path)).await?.json();
        for item in page["items"].as_array().ok_or("a page has no items")? {
            rows.push(Row::of(item)?);
        }
        match page["next"].as_str() {
            Some(cursor) => path = format!("/api/v1/qna?limit=100&cursor={cursor}"),
            None => return Ok(rows),
        }
    }
}

/// All QnAs, as the first program's clients load them.
///
/// # Errors
/// Where the answer is not 200 and whole.
pub async fn load_all(server: SocketAddr) -> Result<Vec<Row>> {
    let mut client = Client::new(server).patience(Duration::from_mins(5));
    let answer = client.expect(200, &Call::get("/load_all_qna")).await?;
    let rows: Vec<Value> = serde_json::from_slice(&answer.body)?;
    rows.iter().map(Row::of).collect()
}

/// How long a writer waits before it sends an unanswered or refused write again. Shorter than the board asks for, so
/// that it is seen at once when it works again.
const AGAIN: Duration = Duration::from_millis(100);

/// Writers at work.
pub struct Writers {
    pub ledger: Rc<Ledger>,
    pub tally: Rc<RefCell<Tally>>,
    stop: Rc<Cell<bool>>,
    tasks: JoinSet<()>,
}

/// How writers write.
#[derive(Clone, Debug)]
pub struct Writing {
    /// Access tokens; the writers share them.
    pub tokens: Vec<String>,
    pub writers: usize,
    /// All writers together, a second.
    pub rate: f64,
    /// What each title begins with; no two groups of writers on one board may have the same.
    pub name: String,
}

impl Writers {
    /// `server` is asked for before each attempt: it may move.
    #[must_use]
    pub fn start(server: &Rc<dyn Fn() -> SocketAddr>, writing: &Writing) -> Self {
        let ledger = Rc::<Ledger>::default();
        let tally = Rc::<RefCell<Tally>>::default();
        let stop = Rc::<Cell<bool>>::default();
        let mut tasks = JoinSet::new();
        for writer in 0..writing.writers {
            let server = server.clone();
            let (ledger, tally, stop) = (ledger.clone(), tally.clone(), stop.clone());
            let token = writing.tokens[writer % writing.tokens.len()].clone();
            let name = format!("{}-{writer}", writing.name);
            #[expect(clippy::cast_precision_loss, reason = "a few")]
            let pace = Duration::from_secs_f64(writing.writers as f64 / writing.rate);
            // Not all at once: then a kill would meet either all of them or none.
            #[expect(clippy::cast_precision_loss, reason = "a few")]
            let first = Instant::now() + pace.mul_f64(writer as f64 / writing.writers as f64);
            tasks.spawn_local(async move {
                let mut ticks = interval_at(first, pace);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut client = Client::new(server());
                let mut n = 0;
                while !stop.get() {
                    ticks.tick().await;
                    n += 1;
                    let mut write = write(&name, n);
                    let call = ask(&write, &token).once(&format!("key-of-{}", write.title));
                    while !stop.get() && write.id.is_none() {
                        let started = Instant::now();
                        let outcome = client.send(&call).await;
                        tally.borrow_mut().record(started.elapsed(), outcome.as_ref().map_err(|lost| *lost));
                        match outcome {
                            Ok(answer) if answer.status == 201 => write.id = answer.json()["qna_id"].as_i64(),
                            Ok(_) => sleep(AGAIN).await,
                            Err(lost) => {
                                client = Client::new(server());
                                if lost == Lost::Refused {
                                    sleep(AGAIN).await;
                                }
                            }
                        }
                    }
                    ledger.enter(write);
                }
            });
        }
        Self { ledger, tally, stop, tasks }
    }

    /// Lets each finish the attempt that it is at.
    pub async fn end(mut self) -> (Rc<Ledger>, Tally) {
        self.stop.set(true);
        while self.tasks.join_next().await.is_some() {}
        (self.ledger, self.tally.take())
    }
}

/// The n-th write of the writer with this name; no two are alike.
#[must_use]
pub fn write(name: &str, n: u64) -> Write {
    let content =
        format!("{name} asks for the {n}th time: 잃어버린 글이 있습니까?\n{}", "…".repeat((n % 200) as usize));
    Write { title: format!("{name}-{n}"), content, id: None }
}

/// The request that makes it.
#[must_use]
pub fn ask(write: &Write, token: &str) -> Call {
    Call::post("/api/v1/qna").bearer(token).json(&json!({"title": write.title, "content": write.content}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, title: &str, content: &str) -> Row {
        Row { id, title: title.to_owned(), content: content.to_owned() }
    }

    fn ledger() -> Ledger {
        let ledger = Ledger::default();
        for (title, id) in [("a", Some(1)), ("b", Some(2)), ("given-up", None)] {
            ledger.enter(Write { title: title.to_owned(), content: format!("of {title}"), id });
        }
        ledger
    }

    #[test]
    fn what_is_there_once_and_whole_is_no_finding() {
        let found = ledger().audit(&[row(1, "a", "of a"), row(2, "b", "of b"), row(3, "others", "")]);
        assert!(found.are_none(), "{found:?}");
        assert_eq!(found.in_words(), "2 acknowledged: 0 lost, 0 twice, 0 changed");
        // What was not acknowledged may be there.
        let with = [row(1, "a", "of a"), row(2, "b", "of b"), row(3, "given-up", "of given-up")];
        assert!(ledger().audit(&with).are_none());
    }

    #[test]
    fn what_is_lost_doubled_or_changed_is_found() {
        let lost = ledger().audit(&[row(1, "a", "of a")]);
        assert_eq!(lost.lost, ["b"]);
        let twice = ledger().audit(&[row(1, "a", "of a"), row(2, "b", "of b"), row(3, "b", "of b")]);
        assert_eq!(twice.twice, ["b"]);
        let changed = ledger().audit(&[row(1, "a", "of a"), row(2, "b", "of a")]);
        assert_eq!(changed.changed, ["b"]);
        let moved = ledger().audit(&[row(1, "a", "of a"), row(4, "b", "of b")]);
        assert_eq!(moved.changed, ["b"]);
        // Not even what was never acknowledged may be there twice.
        let doubt = [row(3, "given-up", "of given-up"), row(4, "given-up", "of given-up")];
        let doubt = [vec![row(1, "a", "of a"), row(2, "b", "of b")], doubt.to_vec()].concat();
        assert_eq!(ledger().audit(&doubt).twice, ["given-up"]);
        assert!(!lost.are_none() && !twice.are_none() && !changed.are_none());
    }
}
