//! The composition root: the only place that knows what stands behind the domain's ports.

use std::net::TcpListener;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_server::Server;
use actix_web::middleware::{Condition, from_fn};
use actix_web::{App, HttpServer, web};
use metrics_exporter_prometheus::PrometheusHandle;
use mundap_domain::env::{Clock as _, Timestamp};
use mundap_domain::idempotency::FingerprintKey;
use mundap_domain::mail::Mailer;
use mundap_domain::page::CursorKey;
use mundap_domain::{Ports, Services};
use mundap_infra::{
    Argon2Pool, BlobFolder, Ed25519Tokens, Household, OsEntropy, PicturePool, SeaStore, SigningKeys, SystemClock, Tally,
};
use utoipa::openapi::OpenApi;
use utoipa_actix_web::AppExt as _;

use crate::admission::{Admission, admit};
use crate::client::Proxies;
use crate::connection::{Connections, raise_file_limit};
use crate::cors::Origins;
use crate::edge::{door, edge};
use crate::fallback::{Routes, fallback};
use crate::server::{Patience, worker};
use crate::settings::{Identity, Settings};
use crate::{account, docs, ops, routes};

/// What a handler may reach.
pub struct Board {
    pub services: Arc<Services>,
    pub identity: Identity,
    /// Without a slash at its end.
    pub public_url: String,
    keys: SigningKeys,
    pub limits: Limits,
    /// Whose word on a client's address counts.
    pub proxies: Proxies,
    /// How many requests are worked on at once.
    pub admission: Admission,
    draining: AtomicBool,
    in_flight: AtomicUsize,
}

/// Limits of what a stranger can send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a JSON or form body.
    pub body: usize,
    /// How long it may take to arrive.
    pub body_time: Duration,
}

impl Board {
    /// Wires the services over `store`; without a `mailer` the board sends no mail.
    #[must_use]
    pub fn new(
        settings: &Settings,
        store: SeaStore,
        keys: &SigningKeys,
        mailer: Option<Arc<dyn Mailer>>,
        public_url: String,
    ) -> Self {
        let blobs = BlobFolder::new(settings.images_dir());
        let ports = Ports {
            image_home: Arc::new(Household { store: store.clone(), blobs: blobs.clone() }),
            store: Arc::new(store),
            events: Arc::new(Tally::start()),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            passwords: Arc::new(Argon2Pool::start()),
            access_tokens: Arc::new(Ed25519Tokens::new(keys, &public_url)),
            cursors: Arc::new(CursorKey::new(&keys.derive("cursor"))),
            fingerprints: Arc::new(FingerprintKey::new(&keys.derive("fingerprint"))),
            blobs: Arc::new(blobs),
            image_cleaner: Arc::new(PicturePool::start()),
            image_quota: settings.image_quota,
            mailer,
            quotas: settings.quotas(),
        };
        Self {
            services: Arc::new(Services::new(&ports)),
            identity: settings.identity,
            public_url,
            keys: keys.clone(),
            limits: Limits { body: settings.http_body_limit, body_time: settings.http_body_timeout },
            proxies: Proxies::new(settings.trusted_proxies.clone()),
            admission: Admission::new(settings),
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// The JWK set, as served.
    #[must_use]
    pub fn jwks(&self) -> String {
        self.keys.jwks(SystemClock.now()).to_string()
    }

    /// What the clock says that the use cases go by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    /// From now on: not ready, and every answer is its connection's last.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// How many requests are being answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Until nobody is being answered.
    pub async fn idle(&self) {
        // Once in the life of the process: not worth a signal from every request.
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        while self.in_flight() > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// A request that is being answered, from its head to the last byte of its answer.
pub struct InFlight(web::Data<Board>);

impl InFlight {
    #[must_use]
    pub fn on(board: web::Data<Board>) -> Self {
        board.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(board)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The OpenAPI document of this build.
#[must_use]
pub fn openapi() -> OpenApi {
    let app = App::new().into_utoipa_app().openapi(docs::base()).configure(|config| routes::all(config));
    docs::complete(app.split_for_parts().1)
}

/// The public server on `listener`.
///
/// # Errors
/// Where the listener cannot be used.
pub fn public(settings: &Settings, listener: TcpListener, board: web::Data<Board>) -> std::io::Result<Server> {
    let document = openapi();
    let routes = web::Data::new(Routes::of(&document));
    let document = web::Data::new(docs::Document::new(&document));
    let origins = Origins::new(settings.cors_origins.clone());
    let connections = connections(settings);
    let workers = worker_count(settings);
    // What is left of the files is for the database, the log and the operators.
    let files = usize::try_from(raise_file_limit()).unwrap_or(usize::MAX).saturating_sub(RESERVED_FILES).max(1);
    let most = usize::try_from(settings.http_connections).unwrap_or(usize::MAX).min(files);
    let app = move || {
        let app = App::new().app_data(board.clone()).app_data(routes.clone()).app_data(document.clone());
        let app = app.app_data(origins.clone());
        app.configure(routes::all)
            .configure(docs::pages)
            .configure(account::pages)
            .default_service(web::to(fallback))
            .wrap(from_fn(door))
            .wrap(from_fn(admit))
            .wrap(Condition::new(!origins.is_empty(), origins.middleware()))
            .wrap(from_fn(edge))
    };
    let builder = Server::build()
        .disable_signals()
        .shutdown_timeout(settings.shutdown_timeout.as_secs())
        .workers(workers)
        .max_concurrent_connections(most.div_ceil(workers));
    let patience = Patience::new(settings.http_head_timeout, settings.http_keep_alive);
    let stop = builder.graceful_shutdown_signal();
    let server =
        builder.listen("public", listener, move || worker(app.clone(), patience, connections.clone(), stop.clone()))?;
    Ok(server.run())
}

/// Files that are open besides the public port's connections.
const RESERVED_FILES: usize = 200;

pub(crate) fn connections(settings: &Settings) -> Arc<Connections> {
    let per_address = usize::try_from(settings.http_connections_per_address).unwrap_or(usize::MAX);
    Connections::new(per_address, Proxies::new(settings.trusted_proxies.clone()), settings.http_write_timeout)
}

/// One a core, if nobody says otherwise.
pub(crate) fn worker_count(settings: &Settings) -> usize {
    let cores = || std::thread::available_parallelism().map_or(2, NonZero::get);
    settings.workers.map_or_else(cores, usize::from)
}

/// The operators' server on `listener`, on a thread of its own: it never queues behind the public.
///
/// # Errors
/// Where the listener cannot be used.
pub fn private(
    listener: TcpListener,
    desk: web::Data<ops::Desk>,
    counted: PrometheusHandle,
) -> std::io::Result<Server> {
    let counted = web::Data::new(counted);
    let server =
        HttpServer::new(move || App::new().app_data(desk.clone()).app_data(counted.clone()).configure(ops::routes));
    Ok(server.listen(listener)?.workers(1).disable_signals().shutdown_timeout(1).run())
}
