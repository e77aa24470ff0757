//! Who is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mundap_trial::Result;
use mundap_trial::board::{Board, PATIENCE, free_port, memory_of};
use mundap_trial::client::{Call, Client};
use tokio::time::{Instant, sleep};

/// By which door a contender is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// The board's REST.
    Rest,
    /// The board's gRPC, on so many connections.
    Grpc { connections: usize },
    /// The server written by hand.
    Floor,
}

/// One that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    pub name: &'static str,
    pub face: Face,
    pub address: SocketAddr,
    pub pid: u32,
}

/// Each of a board's faces, and the floor.
#[must_use]
pub fn all(board: &Board, floor: &Floor, clients: usize) -> Vec<Contender> {
    let of_board = |name, face, address| Contender { name, face, address, pid: board.pid() };
    vec![
        Contender { name: "floor", face: Face::Floor, address: floor.address, pid: floor.child.id() },
        of_board("mundap", Face::Rest, board.http),
        of_board("mundap gRPC", Face::Grpc { connections: clients }, board.grpc),
        of_board("mundap gRPC, one connection", Face::Grpc { connections: 1 }, board.grpc),
    ]
}

/// The floor as a process.
pub struct Floor {
    child: Child,
    pub address: SocketAddr,
}

impl Floor {
    /// Starts it on a board's database, and waits until it answers.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn start(binary: &Path, url: &str) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(binary);
        command.arg(url).arg(address.port().to_string()).stdin(Stdio::null());
        let child = command.spawn().map_err(|error| format!("{}: {error}", binary.display()))?;
        let floor = Self { child, address };
        let started = Instant::now();
        while Client::new(address).send(&Call::get("/qna/1")).await.is_err() {
            if started.elapsed() > PATIENCE {
                return Err("the floor does not answer".into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(floor)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The memory of a process: what it shares is counted in part.
///
/// # Errors
/// Where it is gone.
pub fn proportional_memory(pid: u32) -> Result<u64> {
    memory_of(pid, "smaps_rollup", "Pss:")
}
