//! Threads for what takes a core for long, behind a bounded queue: the workers that serve requests stay free, and a flood is
//! turned away at once instead of queueing for minutes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mundap_domain::Error;
use tokio::sync::oneshot;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct Pool {
    /// Goes into the threads' names and the log.
    name: &'static str,
    queue: SyncSender<Job>,
}

impl Pool {
    /// `threads` (at least one) work, `waiting` jobs more wait for them.
    ///
    /// # Panics
    /// Where no thread can be started.
    pub(crate) fn start(name: &'static str, threads: usize, waiting: usize) -> Self {
        let (queue, jobs) = sync_channel::<Job>(waiting);
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..threads.max(1) {
            let jobs = jobs.clone();
            let thread = thread::Builder::new().name(format!("{name}-{n}")).spawn(move || work(&jobs));
            thread.expect("the operating system starts a thread");
        }
        Self { name, queue }
    }

    /// What `work` answers, once a thread has come to it.
    ///
    /// # Errors
    /// [`Error::Busy`] at once where the queue is full; [`Error::Internal`] where `work` panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, outcome) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever waited may be gone: a client that hung up costs no work.
            if !done.is_closed() {
                // No one to tell if they left meanwhile.
                let _ = done.send(work());
            }
        });
        match self.queue.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Error::Busy(format!("the {} queue is full", self.name).into())),
            Err(TrySendError::Disconnected(_)) => {
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
