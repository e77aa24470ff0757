//! Threads for what takes a core for long, behind a bounded queue: the workers that serve requests stay free, and a flood is
//! turned away at once instead of queueing for minutes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use mundap_domain::Error;
use tokio::sync::oneshot;

use crate::timing::{SPANS, figure};

pub(crate) type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct Pool {
    /// Goes into the threads' names, the log and the metrics.
    name: &'static str,
    queue: SyncSender<Job>,
    meters: Meters,
}

/// What is counted of one pool.
#[derive(Clone)]
struct Meters {
    waiting: Gauge,
    busy: Gauge,
    refused: Counter,
    waited: Histogram,
    worked: Histogram,
}

impl Meters {
    fn new(pool: &'static str, threads: usize) -> Self {
        gauge!("mundap_work_threads", "pool" => pool).set(figure(threads));
        let meters = Self {
            waiting: gauge!("mundap_work_waiting", "pool" => pool),
            busy: gauge!("mundap_work_busy", "pool" => pool),
            refused: counter!("mundap_work_refused_total", "pool" => pool),
            waited: histogram!("mundap_work_wait_duration_seconds", "pool" => pool),
            worked: histogram!("mundap_work_duration_seconds", "pool" => pool),
        };
        meters.waiting.set(0.0);
        meters.busy.set(0.0);
        meters.refused.increment(0);
        meters
    }

    fn work(&self) -> Working<'_> {
        self.busy.increment(1.0);
        Working { meters: self, started: Instant::now() }
    }
}

/// A thread that works, to its end or its panic.
struct Working<'a> {
    meters: &'a Meters,
    started: Instant,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.meters.busy.decrement(1.0);
        self.meters.worked.record(self.started.elapsed());
    }
}

impl Pool {
    /// `threads` (at least one) work, `waiting` jobs more wait for them.
    ///
    /// # Panics
    /// Where no thread can be started.
    pub(crate) fn start(name: &'static str, threads: usize, waiting: usize) -> Self {
        let (queue, jobs) = sync_channel::<Job>(waiting);
        let jobs = Arc::new(Mutex::new(jobs));
        let threads = threads.max(1);
        for n in 0..threads {
            let jobs = jobs.clone();
            let thread = thread::Builder::new().name(format!("{name}-{n}")).spawn(move || work(&jobs));
            thread.expect("the operating system starts a thread");
        }
        Self { name, queue, meters: Meters::new(name, threads) }
    }

    /// What `work` answers, once a thread has come to it.
    ///
    /// # Errors
    /// [`Error::Busy`] at once where the queue is full; [`Error::Internal`] where `work` panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        // To the end of the wait: a child of the request's span, where traces are collected.
        let _span = tracing::info_span!(target: SPANS, "work", otel.name = self.name, otel.kind = "internal");
        let (done, outcome) = oneshot::channel();
        let (meters, queued) = (self.meters.clone(), Instant::now());
        let job: Job = Box::new(move || {
            meters.waiting.decrement(1.0);
            meters.waited.record(queued.elapsed());
            // Whoever waited may be gone: a client that hung up costs no work.
            if !done.is_closed() {
                let _working = meters.work();
                // No one to tell if they left meanwhile.
                let _ = done.send(work());
            }
        });
        // Before it is there to be taken: a gauge must not fall below zero.
        self.meters.waiting.increment(1.0);
        match self.queue.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.meters.waiting.decrement(1.0);
                self.meters.refused.increment(1);
                return Err(Error::Busy(format!("the {} queue is full", self.name).into()));
            }
            Err(TrySendError::Disconnected(_)) => {
                self.meters.waiting.decrement(1.0);
                return Err(Error::internal(format!("the {} threads have ended", self.name)));
            }
        }
        outcome.await.map_err(Error::internal)?
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // A statement of its own: the lock is given back before the work starts.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics must not take its thread along. Whoever waits for it learns of it by the closed channel.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_is_busy_at_once() {
        let pool = Pool::start("test", 1, 1);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (started, running) = std::sync::mpsc::channel::<()>();
        let blocker: Job = Box::new(move || {
            started.send(()).unwrap();
            held.recv().unwrap();
        });
        pool.queue.send(blocker).unwrap();
        running.recv().unwrap();
        pool.queue.try_send(Box::new(|| {})).unwrap();
        let outcome = pool.run(|| Ok(())).await;
        assert_eq!(outcome.unwrap_err().code(), "busy");
        release.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_panic_costs_its_caller_alone() {
        let pool = Pool::start("test", 1, 8);
        let outcome = pool.run(|| -> Result<(), Error> { panic!("a fault in a test") }).await;
        assert_eq!(outcome.unwrap_err().code(), "internal_error");
        pool.run(|| Ok(())).await.unwrap();
    }
}
