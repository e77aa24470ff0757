//! What has to be done now and then, by whichever node comes to it.

use std::sync::Arc;

use crate::env::{Clock, retrying};
use crate::error::Error;
use crate::idempotency::REMEMBERED;
use crate::{Ports, Store};

/// Use cases that nobody asks for.
pub struct Housekeeping {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Housekeeping {
    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        Self { store: ports.store.clone(), clock: ports.clock.clone() }
    }

    /// Forgets what need not be remembered any longer, and says how many rows that were. Several nodes may do it at
    /// once.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Busy`].
    pub async fn sweep(&self) -> Result<u64, Error> {
        let before = self.clock.now().plus(-REMEMBERED);
        retrying(&*self.clock, || async move {
            let unit = self.store.begin().await?;
            let forgotten = unit.receipts().delete_older(before).await?;
            unit.commit().await?;
            Ok(forgotten)
        })
        .await
    }
}
