//! One restore or copy into a database at a time.
//!
//! The lock goes with the process, however it ends: on SQLite it is one on a file beside the database, on the servers a named
//! lock of a connection. (On a Galera cluster a named lock holds on one member alone: carry through one.)

use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;

use sea_orm::sqlx::sqlite::SqliteConnectOptions;
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, Statement, TransactionTrait as _};

use super::TransferError;
use crate::{DatabaseKind, DatabaseSettings, SeaStore};

pub(crate) enum Lock {
    File(PathBuf, File),
    Connection(DatabaseTransaction),
}

/// Of this database, on a server that may hold several boards; a name has 64 characters at most.
const NAME: &str = "CONCAT('mundap ', LEFT(SHA2(DATABASE(), 256), 40))";

impl Lock {
    pub(crate) async fn take(store: &SeaStore, settings: &DatabaseSettings) -> Result<Self, TransferError> {
        if store.kind() == DatabaseKind::Sqlite {
            // It was opened by this URL a moment ago.
            let options: SqliteConnectOptions =
                settings.url.parse().map_err(|error: sqlx::Error| TransferError::Database(error.into()))?;
            let mut path = options.get_filename().to_owned().into_os_string();
            path.push("-transfer");
            let path = PathBuf::from(path);
            let file = File::create(&path).map_err(|error| TransferError::Write(path.clone(), error))?;
            return match try_lock(&file) {
                Ok(true) => Ok(Self::File(path, file)),
                Ok(false) => Err(TransferError::Running),
                Err(error) => Err(TransferError::Write(path, error)),
            };
        }
        // A transaction, since it keeps its connection.
        let connection = store.writer().begin().await?;
        let sql = format!("SELECT GET_LOCK({NAME}, 0)");
        let row = connection.query_one_raw(Statement::from_string(connection.get_database_backend(), sql)).await?;
        match row.map(|row| row.try_get_by_index::<Option<i64>>(0)).transpose()?.flatten() {
            Some(1) => Ok(Self::Connection(connection)),
            _ => Err(TransferError::Running),
        }
    }

    /// Lets go of it, also where its connection lives on in the pool.
    pub(crate) async fn release(self) {
        match self {
            // An empty file that stays is in nobody's way.
            Self::File(path, _file) => drop(std::fs::remove_file(path)),
            Self::Connection(connection) => {
                let released = connection.execute_unprepared(&format!("DO RELEASE_LOCK({NAME})")).await;
                if let Err(error) = released {
                    tracing::warn!(%error, "The lock of the database goes with its connection");
                }
            }
        }
    }
}

/// Locks it unless somebody else has, and says whether. A file system that knows no locks is an error.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
