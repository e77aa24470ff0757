//! The export of one's own data: everything that the board keeps of a person, for that person alone (GDPR, article 20).
//!
//! It is read in batches, so that whoever wrote ten thousand comments costs no more memory than anybody else.

use std::sync::Arc;

use crate::actor::{Act, Actor};
use crate::audit::AuditEntry;
use crate::comment::{Comment, CommentId};
use crate::error::Error;
use crate::image::{BlobStore, Image, ImageId};
use crate::page::{Order, Slice};
use crate::qna::{Qna, QnaId};
use crate::sign_in::SignIn;
use crate::user::User;
use crate::{Ports, Store};

/// Use cases of the export. A suspended account may export what it wrote too.
pub struct ExportService {
    store: Arc<dyn Store>,
    blobs: Arc<dyn BlobStore>,
}

impl ExportService {
    /// How many things a batch holds.
    pub const BATCH: u64 = 200;

    #[must_use]
    pub fn new(ports: &Ports) -> Self {
        Self { store: ports.store.clone(), blobs: ports.blobs.clone() }
    }

    /// The account, and where it is signed in.
    ///
    /// # Errors
    /// What the ownership table says.
    pub async fn account(&self, by: &Actor) -> Result<(User, Vec<SignIn>), Error> {
        let id = by.account_that_may(Act::ReadOwnAccount)?.id;
        let user = self.store.reader().users().find(id).await?.ok_or(Error::InvalidToken)?;
        let sign_ins = self.store.reader().sign_ins().list_of(id).await?;
        Ok((user, sign_ins))
    }

    /// The next [`BATCH`](Self::BATCH) questions behind `after`, oldest first; empty at the end.
    ///
    /// # Errors
    /// What the ownership table says.
    pub async fn qnas_after(&self, by: &Actor, after: Option<QnaId>) -> Result<Vec<Qna>, Error> {
        let id = by.account_that_may(Act::ReadOwnAccount)?.id;
        Ok(self.store.reader().qnas().list(Some(id), &slice(after.map(QnaId::get))).await?)
    }

    /// The next [`BATCH`](Self::BATCH) comments behind `after`, oldest first; empty at the end.
    ///
    /// # Errors
    /// What the ownership table says.
    pub async fn comments_after(&self, by: &Actor, after: Option<CommentId>) -> Result<Vec<Comment>, Error> {
        let id = by.account_that_may(Act::ReadOwnAccount)?.id;
        Ok(self.store.reader().comments().list_by(id, &slice(after.map(CommentId::get))).await?)
    }

    /// The next image behind `after`, oldest first, with its bytes: one at a time, for it may have ten megabytes. `None` at
    /// the end; the inner `None` where the bytes are lost, which must not cost everything else.
    ///
    /// # Errors
    /// What the ownership table says, [`Error::StorageUnavailable`].
    pub async fn image_after(
        &self,
        by: &Actor,
        after: Option<ImageId>,
    ) -> Result<Option<(Image, Option<Vec<u8>>)>, Error> {
        let id = by.account_that_may(Act::ReadOwnAccount)?.id;
        let slice = Slice { limit: 1, ..slice(after.map(ImageId::get)) };
        let Some(image) = self.store.reader().images().list_of(id, &slice).await?.pop() else { return Ok(None) };
        let length = usize::try_from(image.bytes).map_err(Error::internal)?;
        let content = self.blobs.read(image.digest, 0, length).await?;
        Ok(Some((image, content)))
    }

    /// What administrators did to the account, oldest first: the next [`BATCH`](Self::BATCH) entries.
    ///
    /// # Errors
    /// What the ownership table says.
    pub async fn audit_after(&self, by: &Actor, after: Option<i64>) -> Result<Vec<AuditEntry>, Error> {
        let id = by.account_that_may(Act::ReadOwnAccount)?.id;
        Ok(self.store.reader().audit().list(Some(id), &slice(after)).await?)
    }
}

const fn slice(after: Option<i64>) -> Slice {
    Slice { after, order: Order::Oldest, limit: ExportService::BATCH }
}
