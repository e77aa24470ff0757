//! The export of one's own data: everything that the board keeps of a person, for that person alone (GDPR, article 20).
//!
//! It is read in pieces, so that whoever wrote ten thousand comments costs no more memory than anybody else.

use std::sync::Arc;

use crate::actor::{Act, Actor};
use crate::audit::AuditEntry;
use crate::comment::Comment;
use crate::error::Error;
use crate::image::{BlobStore, Image};
use crate::page::Slice;
use crate::qna::Qna;
use crate::sign_in::SignIn;
use crate::user::User;
use crate::{Ports, Store};

/// A piece of one of the lists that the export consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Qnas(Vec<Qna>),
    Comments(Vec<Comment>),
    /// One at a time, for it may have ten megabytes. No bytes where they are lost, which must not cost everything else.
    Images(Vec<(Image, Option<Vec<u8>>)>),
    Audit(Vec<AuditEntry>),
}

/// The lists, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Qnas,
    Comments,
    Images,
    /// What administrators did to the account.
    Audit,
}

impl List {
    const fn following(self) -> Option<Self> {
        match self {
            Self::Qnas => Some(Self::Comments),
            Self::Comments => Some(Self::Images),
            Self::Images => Some(Self::Audit),
            Self::Audit => None,
        }
    }
}

/// Where a walk through the export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    list: List,
    slice: Slice,
}

impl Place {
    /// Where it starts; `slice`, [`Slice::walk`] or [`Slice::stream`], says how large the pieces are.
    #[must_use]
    pub const fn first(slice: Slice) -> Self {
        Self { list: List::Qnas, slice }
    }

    /// Whether it is where a list starts.
    #[must_use]
    pub const fn starts_a_list(&self) -> bool {
        self.slice.after.is_none()
    }

    /// Behind these items, which are what is here; where there are none, the list is at its end.
    fn behind<T>(self, items: &[T], id: impl Fn(&T) -> i64) -> Option<Self> {
        Some(match items.last() {
            Some(last) => Self { slice: self.slice.behind(id(last), items.len()), ..self },
            None => Self { list: self.list.following()?, slice: self.slice.restarted() },
        })
    }
}

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

    /// What is at a place of the walk through everything else, and the place behind it; `None` at the end. Each list is oldest
    /// first, and ends with an empty piece.
    ///
    /// # Errors
    /// What the ownership table says, [`Error::StorageUnavailable`].
    pub async fn piece(&self, by: &Actor, place: Place) -> Result<(Piece, Option<Place>), Error> {
        let id = by.account_that_may(Act::ReadOwnAccount)?.id;
        let (reader, slice) = (self.store.reader(), &place.slice);
        Ok(match place.list {
            List::Qnas => {
                let qnas = reader.qnas().list(Some(id), slice).await?;
                let next = place.behind(&qnas, |qna| qna.id.get());
                (Piece::Qnas(qnas), next)
            }
            List::Comments => {
                let comments = reader.comments().list_by(id, slice).await?;
                let next = place.behind(&comments, |comment| comment.id.get());
                (Piece::Comments(comments), next)
            }
            List::Images => {
                let images = reader.images().list_of(id, &Slice { limit: 1, ..*slice }).await?;
                let next = place.behind(&images, |image| image.id.get());
                let mut read = Vec::new();
                for image in images {
                    let length = usize::try_from(image.bytes).map_err(Error::internal)?;
                    let content = self.blobs.read(image.digest, 0, length).await?;
                    read.push((image, content));
                }
                (Piece::Images(read), next)
            }
            List::Audit => {
                let entries = reader.audit().list(Some(id), slice).await?;
                let next = place.behind(&entries, |entry| entry.id.get());
                (Piece::Audit(entries), next)
            }
        })
    }
}
