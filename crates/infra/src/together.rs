//! Small writes that come together, by one transaction: a commit costs a database a wait for its disk, and each statement a
//! round trip.
//!
//! What comes while nothing is written goes at once. What comes meanwhile waits in a line, and all of it goes with the next
//! transaction; where the disk is slow, those who were just answered are waited for a moment. Nothing is committed for somebody who
//! has gone: it is rolled back, and the others are told that they met somebody, as after a deadlock. So they are where one of them
//! cannot be written; for a while each goes alone then, so that what is tried again does not meet the same one again.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, join_all, select};
use mundap_domain::StoreError;
use mundap_domain::idempotency::NotAdded;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, Span};

use crate::batch::share;
use crate::last::Last;

/// How many go together at the most: what one of them waits for the others is bounded by it, and so is a statement, by 6 MB of the
/// longest questions.
const MOST: usize = 64;

/// How long each goes alone after a common transaction has failed.
const CALM: Duration = Duration::from_millis(100);

/// How long a transaction has to take for those who were answered by it to be waited for: in less, another one is over before they
/// could have come again.
const WORTHWHILE: Duration = Duration::from_millis(1);

/// How long they are waited for at the most; half of what it took, where that is less.
const GATHERING: Duration = Duration::from_millis(5);

/// After how many transactions somebody is waited for again, once it was in vain.
const SHY: usize = 4;

pub(crate) type Answer<R> = Result<R, NotAdded<StoreError>>;

/// How it is written.
#[async_trait]
pub(crate) trait Writer<T>: Send + Sync + 'static {
    /// A transaction in which something was written. Dropping it rolls it back.
    type Open: Send;
    type Written: Send + 'static;

    /// Writes all of it, and gives what came of each in the same order.
    async fn write(&self, all: Vec<T>) -> Result<(Self::Open, Vec<Self::Written>), NotAdded<StoreError>>;
    async fn commit(&self, open: Self::Open) -> Result<(), StoreError>;
}

/// What is to be written, in one line for all threads: in several, each commit would be for fewer. Cloning shares it.
pub(crate) struct Together<T, W: Writer<T>>(Arc<Shared<T, W>>);

impl<T, W: Writer<T>> Clone for Together<T, W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<T, W: Writer<T>> {
    writer: W,
    line: Mutex<Line<T, W::Written>>,
    patience: Duration,
    failed: Last,
}

struct Line<T, R> {
    waiting: VecDeque<Waiting<T, R>>,
    /// Whether a transaction is at its head.
    taken: bool,
    /// The number of the next one who comes.
    next: u64,
    /// How many are waited for, and whom to tell when they are there.
    gathering: Option<(usize, oneshot::Sender<()>)>,
    /// For how many transactions nobody is waited for.
    shy: usize,
}

struct Waiting<T, R> {
    number: u64,
    item: T,
    tell: oneshot::Sender<Answer<R>>,
    /// Of whoever waits, for the statements that are made for it.
    span: Span,
}

impl<T: Send + Sync + 'static, W: Writer<T>> Together<T, W> {
    /// Where those before it are held up, by a lock or a database that hangs, nobody waits for longer than `patience`, and goes by
    /// itself.
    pub(crate) fn new(writer: W, patience: Duration) -> Self {
        let line = Line { waiting: VecDeque::new(), taken: false, next: 0, gathering: None, shy: 0 };
        Self(Arc::new(Shared { writer, line: Mutex::new(line), patience, failed: Last::never() }))
    }

    /// Writes this, with whatever has come by then.
    pub(crate) async fn add(&self, item: T) -> Answer<W::Written> {
        let (number, told) = self.join(item);
        let mut told = pin!(told);
        let mut answer = timeout(self.0.patience, told.as_mut()).await.ok();
        if answer.is_none() {
            // A statement of its own: the line is free while it is written.
            let taken_back = self.0.line().take_back(number);
            if let Some(item) = taken_back {
                return self.0.alone(item).await;
            }
            answer = Some(told.await);
        }
        let given_up = || StoreError::Unavailable("what was written together was given up".into());
        answer.and_then(Result::ok).unwrap_or_else(|| Err(given_up().into()))
    }

    /// Waits in line, and sees to it that somebody writes.
    fn join(&self, item: T) -> (u64, oneshot::Receiver<Answer<W::Written>>) {
        let (tell, told) = oneshot::channel();
        let mut line = self.0.line();
        let number = line.next;
        line.next += 1;
        line.waiting.push_back(Waiting { number, item, tell, span: Span::current() });
        let waiting = line.waiting.len();
        if let Some((_, gathered)) = line.gathering.take_if(|(count, _)| *count <= waiting) {
            // Whoever waits for them may have gone.
            let _ = gathered.send(());
        }
        let was_taken = mem::replace(&mut line.taken, true);
        // A runtime that ends drops what it is given, which looks into the line.
        drop(line);
        if !was_taken {
            tokio::spawn(Head { shared: self.0.clone(), ended: false }.run());
        }
        (number, told)
    }
}

impl<T, R> Line<T, R> {
    fn take_back(&mut self, number: u64) -> Option<T> {
        let place = self.waiting.iter().position(|waiting| waiting.number == number)?;
        Some(self.waiting.remove(place)?.item)
    }
}

impl<T: Send + Sync, W: Writer<T>> Shared<T, W> {
    fn line(&self) -> MutexGuard<'_, Line<T, W::Written>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many may go together now.
    fn most(&self) -> usize {
        if self.failed.ago().is_some_and(|ago| ago < CALM) { 1 } else { MOST }
    }

    async fn alone(&self, item: T) -> Answer<W::Written> {
        let (open, mut written) = self.writer.write(vec![item]).await?;
        self.writer.commit(open).await?;
        written.pop().ok_or_else(|| StoreError::Backend("nothing was written".into()).into())
    }

    /// Writes what has come, and tells each what came of it.
    async fn write(&self, all: Vec<Waiting<T, W::Written>>) {
        let (items, tell): (Vec<T>, Vec<_>) = all.into_iter().map(|waiting| (waiting.item, waiting.tell)).unzip();
        let mut party = Party { tell, is_undone: true };
        let written = {
            let gone = pin!(join_all(party.tell.iter_mut().map(oneshot::Sender::closed)));
            match select(self.writer.write(items), gone).await {
                Either::Left((written, _)) => written,
                // Dropped as any unit whose request is given up.
                Either::Right(_) => return,
            }
        };
        let outcome = match written {
            Ok((open, written)) if party.tell.iter().all(|tell| !tell.is_closed()) => {
                // From here on nobody knows until it is told.
                party.is_undone = false;
                self.writer.commit(open).await.map(|()| written).map_err(NotAdded::from)
            }
            // What was written for somebody who has gone is rolled back, before anybody hears of it and tries again.
            Ok((open, _)) => {
                drop(open);
                Err(StoreError::Contention("somebody that this was written with was given up".into()).into())
            }
            Err(error) => Err(error),
        };
        let mut tell = mem::take(&mut party.tell);
        match outcome {
            Ok(written) => {
                for (tell, written) in tell.into_iter().zip(written) {
                    // Whoever has gone by now wants no answer.
                    let _ = tell.send(Ok(written));
                }
            }
            Err(error) if tell.len() == 1 => {
                let _ = tell.remove(0).send(Err(error));
            }
            Err(error) => {
                self.failed.mark();
                let error = Arc::new(for_all(error));
                for tell in tell {
                    let _ = tell.send(Err(share(&error).into()));
                }
            }
        }
    }
}

/// Those who are written for by one transaction.
struct Party<R> {
    tell: Vec<oneshot::Sender<Answer<R>>>,
    /// Whether nothing of it can have been committed.
    is_undone: bool,
}

/// Where the thread that writes ends, as at a stop it may before others: who asked by those tries again.
impl<R> Drop for Party<R> {
    fn drop(&mut self) {
        if self.is_undone {
            for tell in self.tell.drain(..) {
                let _ = tell.send(Err(StoreError::Contention("the thread that wrote it ended".into()).into()));
            }
        }
    }
}

/// What all hear of an error that is the fault of one of them, or of none.
fn for_all(error: NotAdded<StoreError>) -> StoreError {
    let (NotAdded::Thing(error) | NotAdded::Receipt(error)) = error;
    match error {
        away @ StoreError::Unavailable(_) => away,
        error => StoreError::Contention(error.into()),
    }
}

/// One transaction after the other, while there is something to write.
struct Head<T: Send + Sync, W: Writer<T>> {
    shared: Arc<Shared<T, W>>,
    ended: bool,
}

impl<T: Send + Sync, W: Writer<T>> Head<T, W> {
    async fn run(mut self) {
        while let Some(all) = self.next() {
            let span = all.first().map_or_else(Span::none, |first| first.span.clone());
            let (count, start) = (all.len(), Instant::now());
            self.shared.write(all).instrument(span).await;
            let took = start.elapsed();
            if count > 1 && took >= WORTHWHILE {
                self.gather(count, took / 2).await;
            }
        }
    }

    /// Waits a moment for as many as were answered just now, beside those who wait already: otherwise who comes again finds the next
    /// transaction gone, and each is half as full as it could be.
    async fn gather(&self, answered: usize, patience: Duration) {
        let most = self.shared.most();
        let told = {
            let mut line = self.shared.line();
            let count = (line.waiting.len() + answered).min(most);
            if line.waiting.len() >= count || line.shy > 0 {
                line.shy = line.shy.saturating_sub(1);
                return;
            }
            let (tell, told) = oneshot::channel();
            line.gathering = Some((count, tell));
            told
        };
        if timeout(patience.min(GATHERING), told).await.is_err() {
            let mut line = self.shared.line();
            line.gathering = None;
            line.shy = SHY;
        }
    }

    /// What is to be written next; the head's end where that is nothing.
    fn next(&mut self) -> Option<Vec<Waiting<T, W::Written>>> {
        let most = self.shared.most();
        let mut line = self.shared.line();
        line.waiting.retain(|waiting| !waiting.tell.is_closed());
        if line.waiting.is_empty() {
            // While the line is held: who comes after has to see it.
            line.taken = false;
            self.ended = true;
            return None;
        }
        let count = line.waiting.len().min(most);
        Some(line.waiting.drain(..count).collect())
    }
}

/// Where a thread ends with its work undone: who still waits goes by itself.
impl<T: Send + Sync, W: Writer<T>> Drop for Head<T, W> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.line().taken = false;
        }
    }
}
