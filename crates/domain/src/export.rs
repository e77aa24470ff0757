//! The export of one's own data: everything that the board keeps of a person, for that person alone (GDPR, article 20).
//!
//! It is read in pieces, so that whoever wrote ten thousand comments costs no more memory than anybody else.

use std::sync::Arc;

use crate::actor::{Act, Actor};
use crate::audit::AuditEntry;
use crate::comment::Comment;
use crate::error::Error;
use crate::image::{BlobStore, Image, ImageId};
use crate::page::Slice;
use crate::qna::Qna;
use crate::sign_in::SignIn;
use crate::user::User;
use crate::{Ports, Store};

/// Use cases of the export. A suspended account may export what it wrote too.
pub struct ExportService {
    store: Arc<dyn Store>,
    blobs: Arc<dyn BlobStore>,
}

impl ExportService {
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

    /// A piece of the walk through the questions, and the next one; none at the end.
    ///
    /// # Errors
    /// What the ownership table says.
    pub async fn qnas(&self, by: &Actor, piece: Slice) -> Result<Option<(Vec<Qna>, Slice)>, Error> {
        let id = by.account_that_may(Act::ReadOwnAccount)?.id;
        let qnas = self.store.reader().qnas().list(Some(id), &piece).await?;
        Ok(piece.and_next(qnas, |qna| qna.id.get()))
    }

    /// A piece of the walk through the comments, and the next one; none at the end.
    ///
    /// # Errors
    /// What the ownership table says.
    pub async fn comments(&self, by: &Actor, piece: Slice) -> Result<Option<(Vec<Comment>, Slice)>, Error> {
        let id = by.account_that_may(Act::ReadOwnAccount)?.id;
        let comments = self.store.reader().comments().list_by(id, &piece).await?;
        Ok(piece.and_next(comments, |comment| comment.id.get()))
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
        let slice = Slice { after: after.map(ImageId::get), limit: 1, ..Slice::walk() };
        let Some(image) = self.store.reader().images().list_of(id, &slice).await?.pop() else { return Ok(None) };
        let length = usize::try_from(image.bytes).map_err(Error::internal)?;
        let content = self.blobs.read(image.digest, 0, length).await?;
        Ok(Some((image, content)))
    }

    /// A piece of the walk through what administrators did to the account, and the next one; none at the end.
    ///
    /// # Errors
    /// What the ownership table says.
    pub async fn audit(&self, by: &Actor, piece: Slice) -> Result<Option<(Vec<AuditEntry>, Slice)>, Error> {
        let id = by.account_that_may(Act::ReadOwnAccount)?.id;
        let entries = self.store.reader().audit().list(Some(id), &piece).await?;
        Ok(piece.and_next(entries, |entry| entry.id.get()))
    }
}
