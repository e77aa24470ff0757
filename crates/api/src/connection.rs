//! Connections: how many one address may hold, and when one is given up whose client does not read.
//!
//! What a client may take to send is the server's own business ([`crate::app::public`]); how long a body may take is
//! [`crate::input::body`]'s.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use mundap_domain::rate::Subject;
use mundap_grpc::status::RETRY;
use socket2::SockRef;

use crate::client::Proxies;

/// How many bytes the system takes on that a client has no room for yet. It would take on megabytes of what nobody reads, and a
/// stream would have them read from the database. What is on its way to who reads does not count (tcp(7)).
#[cfg(target_os = "linux")]
const UNSENT: u32 = 256 << 10;

/// The open connections of the public port.
pub struct Connections {
    /// The most that one address may hold.
    per_address: usize,
    /// Proxies hold those of all their clients.
    proxies: Proxies,
    write_timeout: Duration,
    open: Mutex<HashMap<Subject, usize>>,
}

impl Connections {
    #[must_use]
    pub fn new(per_address: usize, proxies: Proxies, write_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { per_address, proxies, write_timeout, open: Mutex::default() })
    }

    /// Looks at a connection that was just accepted; closes it where its address holds too many.
    pub fn accept(self: &Arc<Self>, connection: &dyn Any, extensions: &mut Extensions) {
        let Some(stream) = connection.downcast_ref::<TcpStream>() else { return };
        // They go with the connection.
        if let Some(seat) = self.admit(stream) {
            extensions.insert(seat);
            extensions.insert(Told::default());
        }
    }

    /// As [`accept`](Self::accept), and gives the connection's place, to be kept as long as it is open.
    pub(crate) fn admit(self: &Arc<Self>, stream: &TcpStream) -> Option<Seat> {
        let peer = stream.peer_addr().ok()?;
        let socket = SockRef::from(stream);
        let seat = self.seat(peer.ip());
        if seat.is_some() {
            #[cfg(target_os = "linux")]
            if let Err(error) = socket
                .set_tcp_user_timeout(Some(self.write_timeout))
                .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT))
            {
                tracing::debug!(%error, "a connection without its limits for writing");
            }
        } else {
            metrics::counter!("mundap_http_connections_refused_total").increment(1);
            // It may be gone already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        seat
    }

    /// Room for one more connection of this address. Our proxies have as many as they want, and so has this machine.
    fn seat(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let subject = Subject::address(address);
        if !self.proxies.includes(address) && !address.to_canonical().is_loopback() {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let held = open.entry(subject.clone()).or_default();
            if *held >= self.per_address {
                return None;
            }
            *held += 1;
            metrics::gauge!("mundap_http_connections").increment(1.0);
            return Some(Seat { counted: Some((self.clone(), subject)) });
        }
        metrics::gauge!("mundap_http_connections").increment(1.0);
        Some(Seat { counted: None })
    }
}

/// A connection's place, held until it is closed.
pub(crate) struct Seat {
    /// As whose it counts.
    counted: Option<(Arc<Connections>, Subject)>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        metrics::gauge!("mundap_http_connections").decrement(1.0);
        let Some((connections, subject)) = &self.counted else { return };
        let mut open = connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = open.get_mut(subject) {
            *held -= 1;
            if *held == 0 {
                open.remove(subject);
            }
        }
    }
}

/// When the client at the other end was last told to come again later.
#[derive(Default)]
pub(crate) struct Told(Cell<Option<Instant>>);

impl Told {
    /// It is told so now.
    pub(crate) fn now(&self) {
        self.0.set(Some(Instant::now()));
    }

    /// Whether it is here again sooner than it was told.
    pub(crate) fn is_early(&self) -> bool {
        self.0.get().is_some_and(|told| told.elapsed() < RETRY)
    }
}

/// How many files and connections this process may have open at once: as many as the system lets it, for systems start
/// processes with far fewer.
#[must_use]
pub fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let given = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: given.maximum, ..given };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { given };
    limit.current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::network;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn three() -> Arc<Connections> {
        let proxies = Proxies::new(vec![network("10.0.0.0/8").unwrap()]);
        Connections::new(3, proxies, Duration::from_secs(15))
    }

    #[test]
    fn an_address_holds_so_many_and_gets_back_what_it_gives_up() {
        let connections = three();
        let mut held: Vec<_> = (0..3).map(|_| connections.seat(ip("192.0.2.1")).unwrap()).collect();
        assert!(connections.seat(ip("192.0.2.1")).is_none());
        assert!(connections.seat(ip("::ffff:192.0.2.1")).is_none());
        assert!(connections.seat(ip("192.0.2.2")).is_some());
        held.pop();
        held.push(connections.seat(ip("192.0.2.1")).unwrap());
        assert!(connections.seat(ip("192.0.2.1")).is_none());
        drop(held);
        assert!(connections.open.lock().unwrap().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let connections = three();
        let held: Vec<_> = (1..=3).map(|n| connections.seat(ip(&format!("2001:db8::{n}"))).unwrap()).collect();
        assert!(connections.seat(ip("2001:db8::4")).is_none());
        assert!(connections.seat(ip("2001:db8:0:1::1")).is_some());
        drop(held);
    }

    #[test]
    fn proxies_and_this_machine_hold_as_many_as_they_want() {
        let connections = three();
        for address in ["10.0.0.1", "::ffff:10.0.0.1", "127.0.0.1", "::1"] {
            let held: Vec<_> = (0..10).map(|_| connections.seat(ip(address)).unwrap()).collect();
            assert_eq!(held.len(), 10);
        }
    }

    #[cfg(target_os = "linux")]
    #[actix_web::test]
    async fn the_system_takes_on_little_for_who_does_not_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let unread = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (served, _) = listener.accept().await.unwrap();
        // A window that does not grow.
        SockRef::from(&unread).set_recv_buffer_size(64 << 10).unwrap();
        let _seat = three().admit(&served).unwrap();
        let mut taken = 0;
        while let Ok(bytes) = served.try_write(&[0; 16 << 10]) {
            taken += bytes;
        }
        assert!(taken < 1 << 20, "{taken}");
    }

    #[test]
    fn the_file_limit_is_raised_as_far_as_it_goes() {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(raise_file_limit(), limit.maximum.unwrap_or(u64::MAX));
    }
}
