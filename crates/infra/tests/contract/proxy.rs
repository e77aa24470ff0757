//! A line to a server that can be frozen and cut.

use std::net::SocketAddr;

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
    /// No connection stays and none comes about: a server that is down.
    Cut,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    upstream: String,
    line: watch::Sender<Line>,
    accepting: Option<JoinHandle<()>>,
    stranded: Vec<watch::Sender<Line>>,
}

impl Proxy {
    /// A line to `upstream`, `host:port`.
    pub(crate) async fn to(upstream: String) -> Self {
        let (line, _) = watch::channel(Line::Open);
        let mut proxy =
            Self { address: ([127, 0, 0, 1], 0).into(), upstream, line, accepting: None, stranded: Vec::new() };
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
            (Line::Open | Line::Frozen, None) => self.listen().await,
            (Line::Open | Line::Frozen, accepting) => self.accepting = accepting,
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

    async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("a port");
        self.address = listener.local_addr().expect("an address");
        let (upstream, line) = (self.upstream.clone(), self.line.subscribe());
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, upstream.clone(), line.clone()));
            }
        }));
    }
}

async fn carry(mut client: TcpStream, upstream: String, mut line: watch::Receiver<Line>) {
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
            read = client.read(&mut from_client), if now == Line::Open => pass(&from_client, read, &mut server).await,
            read = server.read(&mut from_server), if now == Line::Open => pass(&from_server, read, &mut client).await,
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
