//! The fault and load harness. It starts the program that is built for use, as a child process, and does to it what
//! machines and people do: kill it, stop or freeze its database, fill its disk, ask more than it can answer.
//!
//! | module | holds |
//! | --- | --- |
//! | [`board`] | the program as a child process: start, kill, memory, members |
//! | [`database`] | what it stands on: SQLite, a MariaDB of the trial's own, or a server that is named |
//! | [`client`] | one connection, one request at a time, no hidden second try |
//! | [`load`] | closed and open load |
//! | [`tally`] | what became of many requests |
//! | [`oracle`] | acknowledged writes: each must be there, once, as it was sent |
//! | [`table`] | what was measured, its limit, and whether it was kept |
//! | [`experiment`] | the experiments |
//!
//! Everything runs on one thread: the program needs the others.

pub mod board;
pub mod client;
pub mod database;
pub mod experiment;
pub mod load;
pub mod oracle;
pub mod table;
pub mod tally;

/// What cannot be measured ends the experiment with a line that says why.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
