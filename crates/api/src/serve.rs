//! `mundap serve`: start, serve, end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use mundap_domain::env::Clock as _;
use mundap_domain::mail::Mailer;
use mundap_infra::{SigningKeys, SystemClock};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::app::{self, Board};
use crate::command::{Fault, data_dir, signing_keys, store};
use crate::mail;
use crate::ops::Ops;
use crate::settings::{Identity, Settings};
use crate::telemetry;

/// Serves until SIGTERM or SIGINT; a second signal ends it at once.
///
/// # Errors
/// Why it could not start.
pub async fn serve(settings: Settings) -> Result<(), Fault> {
    let mut stop = Stop::listen().map_err(|error| Fault::Other(error.into()))?;
    let metrics = telemetry::start_metrics().map_err(|error| Fault::Other(error.into()))?;
    data_dir(&settings)?;
    let keys = signing_keys(&settings)?;
    // The ports before the database: a second start beside a running one must not touch its data.
    let (http, http_addr) = listen("MUNDAP_HTTP_ADDR", settings.http_addr)?;
    let (ops, ops_addr) = listen("MUNDAP_OPS_ADDR", settings.ops_addr)?;
    let public_url = settings.public_url(http_addr);
    let mailer = mail::mailer(&settings, &public_url)?;
    let store = store(&settings).await?;
    let applied = mundap_migration::up(store.writer()).await?;
    if !applied.is_empty() {
        tracing::info!(migrations = applied.join(","), "migrated the database: {}", applied.join(", "));
    }
    if settings.identity == Identity::TrustedEmail {
        tracing::warn!(
            "MUNDAP_IDENTITY=trusted-email: the e-mail in the body of /upload, /update_qna and /delete_qna is believed; \
             let only a proxy that proves who is calling reach this port"
        );
    }
    match &mailer {
        None => tracing::info!(
            "no mail is sent, since MUNDAP_SMTP_URL names no mail server: e-mail addresses are not verified, and \
             `mundap user password EMAIL` is what helps whoever forgot theirs"
        ),
        Some(mailer) if mailer.exposes_password() => {
            tracing::warn!("MUNDAP_SMTP_URL sends its password unencrypted: add ?tls=required to it, or use smtps://");
        }
        Some(_) => {}
    }
    let mailer = mailer.map(|mailer| mailer as Arc<dyn Mailer>);
    let board = web::Data::new(Board::new(&settings, store.clone(), &keys, mailer, public_url));
    let failed = |error: std::io::Error| Fault::Other(error.into());
    let public = app::public(&settings, http, board.clone()).map_err(failed)?;
    let state = web::Data::new(Ops { board: board.clone(), store: store.clone(), metrics });
    let private = app::private(ops, state).map_err(failed)?;
    let (public_handle, private_handle) = (public.handle(), private.handle());
    let public = actix_web::rt::spawn(public);
    let private = actix_web::rt::spawn(private);
    tracing::info!(
        http.addr = %http_addr, ops.addr = %ops_addr, url = board.public_url,
        "the board is at {}, its documentation at {}/docs", board.public_url, board.public_url
    );

    let housekeeping = actix_web::rt::spawn(keep_house(board.clone()));
    let (end_of_mail, told) = watch::channel(false);
    let mut mail = board.services.mail.is_on().then(|| actix_web::rt::spawn(mail::deliver(board.clone(), told)));
    let key_watch = actix_web::rt::spawn(watch(keys));
    stop.requested().await;
    housekeeping.abort();
    let _ = end_of_mail.send(true);
    key_watch.abort();
    tracing::info!("stopping: requests in flight may finish; a second signal ends it at once");
    board.drain();
    tokio::select! {
        () = public_handle.stop(true) => {}
        () = stop.requested() => {
            tracing::warn!("stopped at once");
            return Ok(());
        }
    }
    if let Some(mail) = &mut mail {
        // What is not done by then comes back to the outbox with the end of its lease.
        if tokio::time::timeout(LAST_LETTERS, mail).await.is_err() {
            tracing::warn!(
                "letters were still being sent: one that the mail server has taken by now is sent once more"
            );
        }
    }
    private_handle.stop(false).await;
    store.close().await;
    let _ = tokio::join!(public, private);
    tracing::info!("stopped");
    Ok(())
}

/// How long letters that are being sent may still take when everything else has ended.
const LAST_LETTERS: Duration = Duration::from_secs(4);

/// How often what is old is forgotten.
const HOUSEKEEPING: Duration = Duration::from_mins(10);

async fn keep_house(board: web::Data<Board>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    loop {
        ticks.tick().await;
        match board.services.housekeeping.sweep().await {
            Ok(rows) => tracing::debug!(rows, "forgot {rows} old rows"),
            // The next tick tries again, and requests say it louder.
            Err(error) => tracing::warn!(%error, "old rows could not be forgotten"),
        }
        match board.services.housekeeping.sweep_images().await {
            Ok(images) => tracing::debug!(images, "took away the bytes of {images} images that are gone"),
            Err(error) => tracing::warn!(%error, "the bytes of images that are gone could not be taken away"),
        }
    }
}

/// How often the file of the signing keys is read again: a new key waits 30 seconds by default.
const KEY_WATCH: Duration = Duration::from_secs(5);

async fn watch(keys: SigningKeys) {
    let mut ticks = tokio::time::interval(KEY_WATCH);
    loop {
        ticks.tick().await;
        let read = keys.clone();
        match web::block(move || read.reload()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                if let Some(key) = keys.states(SystemClock.now()).first() {
                    tracing::info!(key.id, "read the signing keys again: the newest is {}", key.id);
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "kept the signing keys as they were: {error}"),
            Err(_) => return,
        }
    }
}

fn listen(name: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Fault> {
    let fault = |source| Fault::Listen { name, address: address.to_string(), source };
    let listener = listener(address).map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    Ok((listener, bound))
}

/// How many connections may wait to be accepted; the system may have a lower limit. The standard library's 128 are full in
/// a moment, and who comes then waits a second for the next try.
const BACKLOG: i32 = 4096;

fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // As the standard library does it: connections of a server before this one may still be waiting for their end.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
