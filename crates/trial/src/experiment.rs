//! The experiments: each starts what it needs, does one thing to it, and says in a table what came of it.

pub mod disk;
pub mod edits;
pub mod keys;
pub mod kill;
pub mod nodes;
pub mod outage;
pub mod overload;
pub mod passwords;
pub mod sigterm;
pub mod slow;
pub mod soak;
pub mod streams;

use std::path::PathBuf;
use std::rc::Rc;

use crate::Result;
use crate::board::{Board, Folder, Plan};
use crate::database::{Database, Engine, Process};

/// Reads `NAME=VALUE`, a setting of the board that differs.
///
/// # Errors
/// Where it is no such pair.
pub fn setting(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What every experiment is told.
#[derive(Clone, Debug)]
pub struct Setting {
    pub binary: PathBuf,
    pub engine: Engine,
    pub process: Process,
    /// Settings of the board that differ from those of every trial.
    pub settings: Vec<(String, String)>,
}

impl Setting {
    /// An empty database.
    ///
    /// # Errors
    /// Where there is none to be had.
    pub async fn database(&self) -> Result<Database> {
        Database::prepare(&self.engine, &self.process).await
    }

    /// How to start a board on it, with a data folder of its own.
    ///
    /// # Errors
    /// Where no temporary folder can be made.
    pub fn plan(&self, database: &Database) -> Result<Plan> {
        let data = Folder::new()?;
        Ok(Plan {
            binary: self.binary.clone(),
            database: database.url.clone(),
            env: self.settings.clone(),
            cores: None,
            data,
        })
    }

    /// A board on it, ready.
    ///
    /// # Errors
    /// Where it does not become ready.
    pub async fn board(&self, database: &Database) -> Result<Board> {
        Board::start(self.plan(database)?).await
    }
}

/// A server that stays where it is.
#[must_use]
pub fn fixed(server: std::net::SocketAddr) -> Rc<dyn Fn() -> std::net::SocketAddr> {
    Rc::new(move || server)
}
