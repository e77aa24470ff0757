//! Who may use how many of a pool's connections at once.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnAcquireErr, DbErr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// So many at once, first come, first served. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Turns {
    free: Arc<Semaphore>,
    patience: Duration,
}

/// That one connection may be taken, until it is dropped.
pub(crate) type Turn = OwnedSemaphorePermit;

impl Turns {
    /// One more than `most` waits for so long.
    pub(crate) fn new(most: u32, patience: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(most as usize)), patience }
    }

    /// One at once.
    pub(crate) fn free(&self) -> Option<Turn> {
        self.free.clone().try_acquire_owned().ok()
    }

    /// One, as soon as it is there.
    ///
    /// # Errors
    /// As where a pool has no connection in time.
    pub(crate) async fn mine(&self) -> Result<Turn, DbErr> {
        self.then(|turn| ready(Ok(turn))).await
    }

    /// What is done in one's turn, with one time limit for all of it.
    ///
    /// # Errors
    /// As where a pool has no connection in time, and what `work` says.
    pub(crate) async fn then<T, F>(&self, work: impl FnOnce(Turn) -> F) -> Result<T, DbErr>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
        let late = || DbErr::ConnectionAcquire(ConnAcquireErr::Timeout);
        let done = timeout(self.patience, async {
            // The semaphore is never closed.
            let turn = self.free.clone().acquire_owned().await.map_err(|_| late())?;
            work(turn).await
        });
        done.await.unwrap_or_else(|_| Err(late()))
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.free.available_permits()
    }
}
