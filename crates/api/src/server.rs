//! What a worker of the public port does with its connections, from actix's own parts: as `actix_web::HttpServer` puts
//! them together, save that connections which came together are not given up together.
//!
//! actix-http reads its clock twice a second. Thousands of silent connections that came within such a tick would be given
//! up at the same instant, and whoever is answered then waits for all of them. So a worker has many
//! [sets of time limits](Patience), each by 2.5 ms shorter than the one before, and deals them out in turn.

use std::cell::Cell;
use std::fmt::Debug;
use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::HttpService;
use actix_server::GracefulShutdownSignal;
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Response};
use actix_web::rt::net::TcpStream;

use crate::connection::Connections;

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Before the head of its first request has come.
    head: Duration,
    /// Between two requests.
    keep_alive: Duration,
}

impl Patience {
    /// Sets of limits that a worker deals out.
    const SETS: u32 = 400;
    /// By how much the shortest is below what was set: two ticks of the clock that they are measured by.
    const SPREAD: Duration = Duration::from_secs(1);

    pub(crate) const fn new(head: Duration, keep_alive: Duration) -> Self {
        Self { head, keep_alive }
    }

    /// The longest first; none is longer than what was set, or shorter by more than a fifth.
    fn sets(self) -> impl Iterator<Item = Self> {
        let shorter = |limit: Duration, n: u32| limit.saturating_sub(Self::SPREAD.min(limit / 5) * n / Self::SETS);
        (0..Self::SETS).map(move |n| Self { head: shorter(self.head, n), keep_alive: shorter(self.keep_alive, n) })
    }
}

/// Serves `app` on the connections of one worker.
pub(crate) fn worker<A, S, B, I>(
    app: A,
    patience: Patience,
    connections: Arc<Connections>,
    stop: GracefulShutdownSignal,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = actix_http::error::DispatchError, InitError = ()>
where
    A: Fn() -> I + 'static,
    I: IntoServiceFactory<S, actix_http::Request>,
    S: ServiceFactory<actix_http::Request, Config = AppConfig, Error = actix_web::Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<actix_http::Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let app = Rc::new(app);
    fn_factory(move || {
        let (app, connections, stop) = (app.clone(), connections.clone(), stop.clone());
        async move {
            // It is asked for where a request's own address is put together, which nobody does here: links begin with the board's
            // public URL.
            let app = app().into_factory().new_service(AppConfig::default()).await;
            let app = Rc::new(app.map_err(|error| tracing::error!(?error, "the public port cannot be served"))?);
            let mut services = Vec::new();
            for patience in patience.sets() {
                let (app, connections, stop) = (app.clone(), connections.clone(), stop.clone());
                let service = HttpService::build()
                    .keep_alive(patience.keep_alive)
                    .client_request_timeout(patience.head)
                    .client_disconnect_timeout(DISCONNECT)
                    .graceful_shutdown_signal(move || {
                        let stop = stop.clone();
                        async move { stop.notified().await }
                    })
                    .on_connect_ext(move |connection: &TcpStream, extensions| {
                        connections.accept(connection, extensions);
                    })
                    .finish(fn_factory(move || ready(Ok::<_, ()>(app.clone()))));
                services.push(service.tcp().new_service(()).await?);
            }
            Ok::<_, ()>(InTurn { services, next: Cell::new(0) })
        }
    })
}

/// One service after the other, and the first again after the last.
struct InTurn<S> {
    /// At least one.
    services: Vec<S>,
    next: Cell<usize>,
}

impl<S: Service<TcpStream>> Service<TcpStream> for InTurn<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // All are ready where the app is that they share.
        self.services[self.next.get()].poll_ready(context)
    }

    fn call(&self, connection: TcpStream) -> Self::Future {
        let service = &self.services[self.next.get()];
        self.next.set((self.next.get() + 1) % self.services.len());
        service.call(connection)
    }
}

/// How long a client may take to notice that its connection ends.
const DISCONNECT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_a_little_shorter_each_and_never_longer() {
        let set = Patience::new(Duration::from_secs(5), Duration::from_secs(2));
        let sets: Vec<_> = set.sets().collect();
        assert_eq!(sets.len(), 400);
        assert_eq!((sets[0].head, sets[0].keep_alive), (set.head, set.keep_alive));
        assert_eq!((sets[1].head, sets[1].keep_alive), (Duration::from_micros(4_997_500), Duration::from_millis(1999)));
        assert_eq!(
            (sets[399].head, sets[399].keep_alive),
            (Duration::from_micros(4_002_500), Duration::from_millis(1601))
        );
    }
}
