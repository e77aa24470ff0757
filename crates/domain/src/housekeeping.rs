//! What has to be done now and then, by whichever node comes to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::env::{Clock, Timestamp, retrying};
use crate::error::Error;
use crate::idempotency::REMEMBERED;
use crate::image::{BlobStore, ImageHome, SHELVES, sweep};
use crate::{Ports, Store};

/// Use cases that nobody asks for.
pub struct Housekeeping {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    blobs: Arc<dyn BlobStore>,
    home: Arc<dyn ImageHome>,
    /// Where the next look at the blobs begins.
    next_shelf: AtomicU8,
}

/// What is forgotten with time.
#[derive(Clone, Copy)]
enum Old {
    Receipts,
    Buckets,
    MailTokens,
}

impl Old {
    const ALL: [Self; 3] = [Self::Receipts, Self::Buckets, Self::MailTokens];
}

impl Housekeeping {
    /// How many rows one unit forgets at most. All that have piled up, by one statement, may be more than a statement has time
    /// for, and then none would ever go; and others want to write too.
    pub const ROWS: u64 = 2_000;

    /// How many blobs one sweep looks at, give or take a shelf: a small board is looked through each time, a large one by
    /// and by.
    pub const BLOBS: usize = 10_000;

    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        Self {
            store: ports.store.clone(),
            clock: ports.clock.clone(),
            blobs: ports.blobs.clone(),
            home: ports.image_home.clone(),
            next_shelf: AtomicU8::new(0),
        }
    }

    /// Forgets what need not be remembered any longer, and says how many rows that were. Several nodes may do it at
    /// once.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Busy`]; what was forgotten until then stays forgotten.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        let mut forgotten = 0;
        for old in Old::ALL {
            loop {
                let gone = self.forget(old, now).await?;
                forgotten += gone;
                if gone < Self::ROWS {
                    break;
                }
            }
        }
        self.forget_the_erased(now).await?;
        Ok(forgotten)
    }

    /// Forgets what was stored of a person behind their back. A post looks at its account before its unit and not in it, so one that
    /// waits while the account is deleted, or comes to a node that remembers it for another second, leaves a receipt with a name.
    async fn forget_the_erased(&self, now: Timestamp) -> Result<(), Error> {
        // What is older is forgotten anyway.
        let since = now.plus(-REMEMBERED);
        let erased = &self.store.reader().receipts().erased_claimants(since, Self::ROWS).await?;
        if erased.is_empty() {
            return Ok(());
        }
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            for user in erased {
                unit.receipts().delete_all_of(*user).await?;
            }
            Ok(unit.commit().await?)
        })
        .await
    }

    /// Forgets one piece, and says how many rows it held.
    async fn forget(&self, old: Old, now: Timestamp) -> Result<u64, Error> {
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let gone = match old {
                Old::Receipts => unit.receipts().delete_older(now.plus(-REMEMBERED), Self::ROWS).await?,
                Old::Buckets => unit.rates().delete_empty(now, Self::ROWS).await?,
                Old::MailTokens => unit.mail_tokens().delete_expired(now, Self::ROWS).await?,
            };
            unit.commit().await?;
            Ok(gone)
        })
        .await
    }

    /// Takes away the bytes of images that are gone, and says how many images that were. Several nodes may do it at once. What
    /// may be another database's is left alone: none of its images would be found.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::StorageUnavailable`]; what was done until then stays done.
    pub async fn sweep_images(&self) -> Result<u64, Error> {
        if !self.home.is_here().await? {
            return Ok(0);
        }
        let (mut seen, mut gone) = (0, 0);
        for _ in 0..SHELVES {
            let next = self.next_shelf.fetch_add(1, Ordering::Relaxed);
            let swept = sweep(&*self.blobs, self.store.reader().images(), next, self.clock.now()).await?;
            seen += swept.0;
            gone += swept.1;
            if seen >= Self::BLOBS {
                break;
            }
        }
        Ok(gone)
    }
}
