//! A line to a server that can be frozen and cut, and that answers for it as a node of a cluster does.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Bytes pass.
    Open,
    /// Connections stay and new ones come about, but no byte passes: a stopped server, a line that loses every packet.
    Frozen,
    /// Bytes pass to the server, and a connection breaks at its next answer: what is asked happens, and nobody hears of it.
    Mute,
    /// No connection stays and none comes about: a server that is down.
    Cut,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    upstream: String,
    line: watch::Sender<Line>,
    accepting: Option<JoinHandle<()>>,
    stranded: Vec<watch::Sender<Line>>,
    refusals: Refusals,
}

/// The errors that the next commits are answered with.
type Refusals = Arc<Mutex<VecDeque<u16>>>;

impl Proxy {
    /// A line to `upstream`, `host:port`.
    pub(crate) async fn to(upstream: String) -> Self {
        let (line, _) = watch::channel(Line::Open);
        let (address, stranded, refusals) = (([127, 0, 0, 1], 0).into(), Vec::new(), Refusals::default());
        let mut proxy = Self { address, upstream, line, accepting: None, stranded, refusals };
        proxy.listen().await;
        proxy
    }

    pub(crate) async fn set(&mut self, line: Line) {
        self.line.send_replace(line);
        match (line, self.accepting.take()) {
            (Line::Cut, Some(accepting)) => {
                accepting.abort();
                // Only then is the port closed.
                let _ = accepting.await;
            }
            (Line::Cut, None) => {}
            (Line::Open | Line::Frozen | Line::Mute, None) => self.listen().await,
            (Line::Open | Line::Frozen | Line::Mute, accepting) => self.accepting = accepting,
        }
    }

    /// No byte passes any more on the connections that there are; new ones are good. As after a failover to another
    /// machine, or where a firewall forgot them.
    pub(crate) async fn strand(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
        let (fresh, _) = watch::channel(Line::Open);
        let line = std::mem::replace(&mut self.line, fresh);
        line.send_replace(Line::Frozen);
        self.stranded.push(line);
        self.listen().await;
    }

    /// Connections stay, and no new one comes about: a server that has as many as it takes. [`Line::Open`] ends it.
    pub(crate) async fn shut(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// The next commits fail with these errors, as on a node of a cluster whose others have committed something else
    /// meanwhile: the transaction is rolled back, and only then the client hears of it. The line must not be encrypted.
    pub(crate) fn refuse_commits(&self, errors: &[u16]) {
        self.refusals.lock().unwrap().extend(errors);
    }

    /// How many commits are still to be refused.
    pub(crate) fn to_be_refused(&self) -> usize {
        self.refusals.lock().unwrap().len()
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("a port");
        self.address = listener.local_addr().expect("an address");
        let (upstream, line, refusals) = (self.upstream.clone(), self.line.subscribe(), self.refusals.clone());
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, upstream.clone(), line.clone(), refusals.clone()));
            }
        }));
    }
}

async fn carry(mut client: TcpStream, upstream: String, mut line: watch::Receiver<Line>, refusals: Refusals) {
    if line.wait_for(|line| *line != Line::Frozen).await.is_err() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let (mut from_client, mut from_server) = ([0; 16_384], [0; 16_384]);
    loop {
        let now = *line.borrow_and_update();
        if now == Line::Cut {
            return;
        }
        let passed = tokio::select! {
            _ = line.changed() => true,
            read = client.read(&mut from_client), if now != Line::Frozen => {
                let is_commit = read.as_ref().is_ok_and(|n| from_client[..*n] == *COMMIT);
                match is_commit.then(|| refusals.lock().unwrap().pop_front()).flatten() {
                    Some(error) => refuse(error, &mut client, &mut server).await.is_ok(),
                    None => pass(&from_client, read, &mut server).await,
                }
            }
            read = server.read(&mut from_server), if now != Line::Frozen => {
                now != Line::Mute && pass(&from_server, read, &mut client).await
            }
        };
        if !passed {
            return;
        }
    }
}

async fn pass(bytes: &[u8], read: std::io::Result<usize>, to: &mut TcpStream) -> bool {
    match read {
        Ok(n) if n > 0 => to.write_all(&bytes[..n]).await.is_ok(),
        Ok(_) | Err(_) => false,
    }
}

/// As a client sends it: three bytes of length, the packet's number, and "query".
const COMMIT: &[u8] = b"\x07\0\0\0\x03COMMIT";
const ROLLBACK: &[u8] = b"\x09\0\0\0\x03ROLLBACK";

/// Rolls back what was to be committed, and answers with an error.
async fn refuse(error: u16, client: &mut TcpStream, server: &mut TcpStream) -> std::io::Result<()> {
    server.write_all(ROLLBACK).await?;
    let mut head = [0; 4];
    server.read_exact(&mut head).await?;
    let mut answer = vec![0; usize::from(head[0])];
    server.read_exact(&mut answer).await?;
    assert_eq!((head[1], head[2], answer[0]), (0, 0, 0), "the server rolled back");
    let mut packet = vec![0xff];
    packet.extend(error.to_le_bytes());
    packet.extend(b"#40001Deadlock found when trying to get lock; try restarting transaction");
    client.write_all(&[u8::try_from(packet.len()).unwrap_or_default(), 0, 0, 1]).await?;
    client.write_all(&packet).await
}
