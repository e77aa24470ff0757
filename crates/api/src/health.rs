//! Whether requests should come to this node, and which part says no. Probes come often and from many sides, so they share one
//! look at the database: a flood of them is no load.

use std::sync::{Mutex as PlainMutex, PoisonError};
use std::time::{Duration, Instant};

use mundap_infra::{BlobFolder, DatabaseKind, Home, SeaStore};
use mundap_migration::MigrationError;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long the database may take to answer before the node counts as not ready. A probe that asks meanwhile waits for the
/// same answer, so each has one within a second.
const PATIENCE: Duration = Duration::from_millis(900);
/// How long an answer is good.
const FRESH: Duration = Duration::from_millis(500);
/// How long it is good that the schema is as it should be; what is not is looked at again with the next probe.
const SCHEMA_FRESH: Duration = Duration::from_secs(10);

/// What the database says, and what this node's folder of images says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    pub database: Database,
    pub schema: Schema,
    pub images: Images,
    /// Only of a node of a Galera cluster: whether it takes part in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wsrep: Option<Wsrep>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Database {
    Ok,
    Unreachable,
    /// It did not answer in time.
    Slow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Schema {
    Ok,
    /// Migrations that this version needs are not applied: somebody took them back.
    Pending,
    /// Another node runs a newer version and has migrated. It stays ready: so it must, while the nodes are upgraded one by
    /// one; but it would not start again.
    Newer,
    /// A restore or a copy into the database is running, or was interrupted: not all of the board is there, and what is
    /// written now would be lost. Whoever finds it lets the store refuse to.
    Unfinished,
    /// The database does not say.
    Unknown,
}

/// Whether the folder of images is the one that all nodes on this database share. A node whose folder is another one stays
/// ready: it serves all but the others' images, and where no node's is the right one (the rows were brought back, and the
/// folder was not), a board without images is better than none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Images {
    Ok,
    /// The database's images are in another folder, or those in this one are another database's.
    OtherFolder,
    /// The folder has no id, and the one that the images are in has: it is not mounted, or came back without its id.
    UnmarkedFolder,
    /// Not looked at yet, or the folder or the database did not say.
    #[default]
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wsrep {
    Ready,
    NotReady,
}

impl Health {
    const fn unwell(database: Database) -> Self {
        Self { database, schema: Schema::Unknown, images: Images::Unknown, wsrep: None }
    }

    /// Whether requests can be answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let schema = match self.schema {
            Schema::Ok | Schema::Newer => true,
            Schema::Pending | Schema::Unfinished | Schema::Unknown => false,
        };
        self.database == Database::Ok && schema && self.wsrep != Some(Wsrep::NotReady)
    }
}

/// Asks the database for all probes together.
pub struct Doctor {
    store: SeaStore,
    blobs: BlobFolder,
    last: Mutex<Seen>,
    /// Told by [`look_at_images`](Self::look_at_images): a folder on a network may keep whoever asks waiting.
    images: PlainMutex<Images>,
}

#[derive(Default)]
struct Seen {
    health: Option<(Instant, Health)>,
    schema: Option<(Instant, Schema)>,
    galera: Option<bool>,
}

impl Doctor {
    #[must_use]
    pub fn new(store: SeaStore, blobs: BlobFolder) -> Self {
        Self { store, blobs, last: Mutex::default(), images: PlainMutex::default() }
    }

    /// Looks whether the folder of images is the database's, and says it out loud where it is not. The first node of a
    /// database says which folder it is, unless that one holds another's images.
    pub async fn look_at_images(&self) {
        let images = match self.store.claim_home(&self.blobs).await {
            Ok(home) => {
                if let Some(fault) = home.fault(self.blobs.root()) {
                    tracing::error!("images are missing on this node, or will be on others: {fault}");
                }
                match home {
                    Home::Here => Images::Ok,
                    Home::Elsewhere | Home::Taken => Images::OtherFolder,
                    Home::Unmarked => Images::UnmarkedFolder,
                    Home::Nowhere => Images::Unknown,
                }
            }
            Err(error) => {
                tracing::warn!("whether this node's images are the database's is not known: {error}");
                Images::Unknown
            }
        };
        *self.images.lock().unwrap_or_else(PoisonError::into_inner) = images;
    }

    /// What the last [look](Self::look_at_images) found.
    pub fn images(&self) -> Images {
        *self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the database is, or was a moment ago. Takes a second at most.
    pub async fn health(&self) -> Health {
        // Who comes while somebody asks waits here, and finds the answer.
        let mut seen = self.last.lock().await;
        if let Some((at, health)) = seen.health
            && at.elapsed() < FRESH
        {
            return health;
        }
        let health = match timeout(PATIENCE, self.look(&mut seen)).await {
            Ok(health) => health,
            Err(_) => Health::unwell(Database::Slow),
        };
        let health = Health { images: self.images(), ..health };
        seen.health = Some((Instant::now(), health));
        health
    }

    async fn look(&self, seen: &mut Seen) -> Health {
        let wsrep = match self.wsrep(seen).await {
            // A node that is cut off answers nothing else: it is there, and says what is wrong with it.
            Ok(Some(false)) => {
                return Health { wsrep: Some(Wsrep::NotReady), ..Health::unwell(Database::Ok) };
            }
            Ok(wsrep) => wsrep.map(|_| Wsrep::Ready),
            Err(()) => return Health::unwell(Database::Unreachable),
        };
        if self.store.ping().await.is_err() {
            return Health { wsrep, ..Health::unwell(Database::Unreachable) };
        }
        Health { schema: self.schema(seen).await, wsrep, ..Health::unwell(Database::Ok) }
    }

    /// `None` where the database is no node of a cluster.
    async fn wsrep(&self, seen: &mut Seen) -> Result<Option<bool>, ()> {
        if self.store.kind() == DatabaseKind::Sqlite {
            return Ok(None);
        }
        let galera = match seen.galera {
            Some(known) => known,
            None => *seen.galera.insert(self.store.is_galera().await.map_err(drop)?),
        };
        if galera { self.store.is_wsrep_ready().await.map(Some).map_err(drop) } else { Ok(None) }
    }

    async fn schema(&self, seen: &mut Seen) -> Schema {
        if let Some((at, Schema::Ok)) = seen.schema
            && at.elapsed() < SCHEMA_FRESH
        {
            return Schema::Ok;
        }
        let schema = match mundap_migration::status(self.store.looking()).await {
            Ok(migrations) if migrations.iter().all(|(_, applied)| *applied) => Schema::Ok,
            Ok(_) | Err(MigrationError::Foreign(_)) => Schema::Pending,
            Err(MigrationError::Newer(_)) => Schema::Newer,
            Err(MigrationError::Unfinished(_)) => Schema::Unfinished,
            Err(MigrationError::StillLocked(_) | MigrationError::LostLease | MigrationError::Database(_)) => {
                Schema::Unknown
            }
        };
        match schema {
            Schema::Unfinished => self.store.refuse_units(true),
            Schema::Ok | Schema::Pending | Schema::Newer => self.store.refuse_units(false),
            Schema::Unknown => {}
        }
        seen.schema = Some((Instant::now(), schema));
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_alone_makes_a_node_unready() {
        let well = Health { database: Database::Ok, schema: Schema::Ok, images: Images::Ok, wsrep: None };
        assert!(well.is_ready());
        assert!(Health { wsrep: Some(Wsrep::Ready), ..well }.is_ready());
        assert!(Health { schema: Schema::Newer, ..well }.is_ready());
        for images in [Images::OtherFolder, Images::UnmarkedFolder, Images::Unknown] {
            assert!(Health { images, ..well }.is_ready(), "{images:?}");
        }
        for unwell in [
            Health { database: Database::Slow, ..well },
            Health { database: Database::Unreachable, ..well },
            Health { schema: Schema::Pending, ..well },
            Health { schema: Schema::Unfinished, ..well },
            Health { schema: Schema::Unknown, ..well },
            Health { wsrep: Some(Wsrep::NotReady), ..well },
        ] {
            assert!(!unwell.is_ready(), "{unwell:?}");
        }
    }
}
