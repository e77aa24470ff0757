//! Whether the images of a database are in this node's folder.
//!
//! All nodes on one database must share one folder of images, and no row shows whether they do. So a folder has an id, made
//! at random and once, in a file that stands in it; the database keeps the id of the folder that its images are in, which is
//! the one of the node that came first. A node with another folder, or whose folder is not mounted, finds out.
//!
//! The id goes along where the folder is moved or copied. It is not carried from one database to another: a restored board
//! has its images where they were restored to, see [`transfer`](crate::transfer).

use std::path::Path;

use async_trait::async_trait;
use mundap_domain::image::{BlobError, ImageHome};
use mundap_domain::{Error, ImageRepository as _, StoreError, UnitOfWork as _};
use sea_orm::ActiveValue::Set;
use sea_orm::{ConnectionTrait, EntityTrait as _};

use crate::blob::FolderId;
use crate::{BlobFolder, SeaStore, Session, retried};

mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "image_folder")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub only_row: i32,
        pub folder_id: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The key of the one row.
const ONLY: i32 = 1;

/// Where the images of a database are, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In its folder.
    Here,
    /// In another folder.
    Elsewhere,
    /// In a folder with an id, and this one has none: it is not mounted, or was brought back without the file.
    Unmarked,
    /// Nobody has said yet.
    Nowhere,
    /// Nobody has said yet, and this folder holds images that are hardly this database's: it is started on a wrong or a new
    /// one.
    Taken,
}

impl Home {
    /// What is wrong with the folder at this path, and what to do; `None` where nothing is.
    #[must_use]
    pub fn fault(self, folder: &Path) -> Option<String> {
        const WHOLE: &str = "where all the images are here";
        let (what, todo, when) = match self {
            Self::Here | Self::Nowhere => return None,
            Self::Elsewhere => (
                "is another folder than the one that holds this database's images",
                "name the same one on every node (MUNDAP_DATA_DIR)",
                WHOLE,
            ),
            Self::Unmarked => (
                "has no folder-id, and the folder that holds this database's images has one",
                "mount that one here",
                WHOLE,
            ),
            Self::Taken => (
                "holds images that this database does not name",
                "name the database that they belong to (MUNDAP_DATABASE_URL), or an empty folder (MUNDAP_DATA_DIR)",
                "where all the images are here and the others may go",
            ),
        };
        let folder = folder.display();
        Some(format!("{folder} {what}: {todo}, or run `mundap doctor --repair` {when}"))
    }
}

/// Why nobody can tell.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("the database does not say which folder its images are in: {0}")]
    Database(#[from] StoreError),
    #[error("the id of the folder of images cannot be read or made: {}", .0.0)]
    Folder(#[from] BlobError),
}

impl From<HomeError> for Error {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::Database(error) => error.into(),
            HomeError::Folder(error) => error.into(),
        }
    }
}

/// A database and a folder, for whoever takes away what the one does not name out of the other.
pub struct Household {
    pub store: SeaStore,
    pub blobs: BlobFolder,
}

#[async_trait]
impl ImageHome for Household {
    async fn is_here(&self) -> Result<bool, Error> {
        // What is carried into the database comes after the images that it names, by more than they are left alone.
        let marked = mundap_migration::marked(self.store.looking());
        let is_whole = self.store.reader.run("home.is_whole", marked).await?.is_none();
        Ok(is_whole && self.store.home(&self.blobs).await? == Home::Here)
    }
}

/// How many of a folder's blobs are looked up to tell whose they are.
const LOOKED_UP: usize = 500;

impl SeaStore {
    /// Looks whether the images of this database are in the folder; changes nothing.
    ///
    /// # Errors
    /// [`HomeError`].
    pub async fn home(&self, blobs: &BlobFolder) -> Result<Home, HomeError> {
        // The row before the file: whoever wrote the row made the file before.
        let known = self.reader.folder_of_images().await?;
        let found = blobs.id().await?;
        Ok(match (known, found) {
            (None, _) if self.is_taken(blobs).await? => Home::Taken,
            (None, _) => Home::Nowhere,
            (Some(_), None) => Home::Unmarked,
            (Some(known), Some(found)) if known == found => Home::Here,
            (Some(_), Some(_)) => Home::Elsewhere,
        })
    }

    /// As [`home`](Self::home), and where nobody has said yet, it is this folder from now on: unless it is
    /// [`Taken`](Home::Taken), which only an operator can settle.
    ///
    /// # Errors
    /// [`HomeError`].
    pub async fn claim_home(&self, blobs: &BlobFolder) -> Result<Home, HomeError> {
        match self.home(blobs).await? {
            Home::Nowhere => {}
            told @ (Home::Here | Home::Elsewhere | Home::Unmarked | Home::Taken) => return Ok(told),
        }
        self.move_in(blobs).await?;
        self.home(blobs).await
    }

    /// Whether what the folder holds is another database's. Of its own some may be gone since the last sweep; but where a
    /// wrong one is in use for a while, those of its uploads that are here by then do not make the others its own.
    async fn is_taken(&self, blobs: &BlobFolder) -> Result<bool, HomeError> {
        let held = blobs.some(LOOKED_UP).await?;
        if held.is_empty() {
            return Ok(false);
        }
        let shown = self.reader.shown(&held).await?.len();
        Ok(shown == 0 || held.len() - shown > held.len().div_ceil(10))
    }

    /// It is this folder from now on, unless another node came first.
    async fn move_in(&self, blobs: &BlobFolder) -> Result<(), HomeError> {
        let id = blobs.make_id().await?;
        let claimed = retried(async || {
            let unit = self.unit().await?;
            unit.insert_folder_of_images(id).await?;
            Box::new(unit).commit().await
        });
        match claimed.await {
            Ok(()) | Err(StoreError::Duplicate(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The images are in this folder, whatever was said before. Nodes that share it see the same; nodes that do not, find out.
    ///
    /// # Errors
    /// [`HomeError`].
    pub async fn settle_home(&self, blobs: &BlobFolder) -> Result<(), HomeError> {
        if self.home(blobs).await? == Home::Here {
            return Ok(());
        }
        let id = blobs.make_id().await?;
        // By one unit: between two, another node could say that it is its own.
        let settled = retried(async || {
            let unit = self.unit().await?;
            unit.delete_folder_of_images().await?;
            match unit.insert_folder_of_images(id).await {
                // Nobody had said yet, and another node was faster: what it said is there to be deleted now.
                Err(StoreError::Duplicate(cause)) => return Err(StoreError::Contention(cause)),
                inserted => inserted?,
            }
            Box::new(unit).commit().await
        });
        Ok(settled.await?)
    }

    /// The next node that starts says which folder it is.
    ///
    /// # Errors
    /// [`HomeError::Database`].
    pub async fn forget_home(&self) -> Result<(), HomeError> {
        let forgotten = retried(async || {
            let unit = self.unit().await?;
            unit.delete_folder_of_images().await?;
            Box::new(unit).commit().await
        });
        Ok(forgotten.await?)
    }
}

impl<C: ConnectionTrait + Send> Session<C> {
    async fn folder_of_images(&self) -> Result<Option<FolderId>, StoreError> {
        let row = self.run("home.find", row::Entity::find_by_id(ONLY).one(&self.connection)).await?;
        let Some(row) = row else { return Ok(None) };
        match row.folder_id.try_into() {
            Ok(id) => Ok(Some(FolderId(id))),
            Err(other) => {
                let reason = format!("an id of {} bytes", other.len());
                Err(StoreError::Corrupt { table: "image_folder", id: i64::from(ONLY), reason })
            }
        }
    }

    async fn insert_folder_of_images(&self, id: FolderId) -> Result<(), StoreError> {
        let row = row::ActiveModel { only_row: Set(ONLY), folder_id: Set(id.0.to_vec()) };
        self.run("home.insert", row::Entity::insert(row).exec_without_returning(&self.connection)).await.map(drop)
    }

    async fn delete_folder_of_images(&self) -> Result<(), StoreError> {
        self.run("home.delete", row::Entity::delete_by_id(ONLY).exec(&self.connection)).await.map(drop)
    }
}
