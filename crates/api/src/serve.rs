//! `mundap serve`: start, serve, end.

use std::net::{Shutdown, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use mundap_domain::env::Clock as _;
use mundap_domain::mail::Mailer;
use mundap_infra::{BlobFolder, SeaStore, SigningKeys, SmtpMailer, SystemClock};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::app::{self, Board};
use crate::command::{Ending, Fault, data_dir, is_missing, signing_keys, store};
use crate::grpc;
use crate::health::Doctor;
use crate::mail;
use crate::ops::{Desk, Ops};
use crate::otlp;
use crate::settings::{Identity, Listen, Settings};
use crate::telemetry;

/// Serves until SIGTERM or SIGINT; a second signal, or one before it serves, ends it at once.
///
/// # Errors
/// Why it could not start.
pub async fn serve(settings: Settings) -> Result<Ending, Fault> {
    let mut stop = Stop::listen().map_err(|error| Fault::Other(error.into()))?;
    let metrics = telemetry::start_metrics().map_err(|error| Fault::Other(error.into()))?;
    data_dir(&settings)?;
    let new_key = Some(settings.signing_key_file()).filter(|path| is_missing(path));
    let keys = signing_keys(&settings)?;
    // The ports before the database: a second start beside a running one must not touch its data.
    let (http, http_addr) = listen("MUNDAP_HTTP_ADDR", settings.http_addr)?;
    let (ops, ops_addr) = listen("MUNDAP_OPS_ADDR", settings.ops_addr)?;
    let grpc = match settings.grpc_addr {
        Listen::At(address) => Some(listen("MUNDAP_GRPC_ADDR", address)?),
        Listen::Off => None,
    };
    let doors = copies([Some(&http), grpc.as_ref().map(|(listener, _)| listener)])
        .map_err(|error| Fault::Other(error.into()))?;
    let public_url = settings.public_url(http_addr);
    let mailer = mail::mailer(&settings, &public_url)?;
    let failed = |error: std::io::Error| Fault::Other(error.into());
    // The operators' port before the database, too: whoever looks whether the process lives must not take one that waits for
    // dead, above all not one that migrates.
    let desk = web::Data::new(Desk::default());
    let private = app::private(ops, desk.clone(), metrics.clone()).map_err(failed)?;
    let private_handle = private.handle();
    let private = actix_web::rt::spawn(private);
    let Some(store) = unless_stopped(&mut stop, migrated(&settings, ops_addr)).await.transpose()? else {
        return Ok(Ending::AtOnce);
    };
    say_what_is_open(&settings, mailer.as_deref(), new_key.as_deref());
    let mailer = mailer.map(|mailer| mailer as Arc<dyn Mailer>);
    let board = web::Data::new(Board::new(&settings, store.clone(), &keys, mailer, public_url));
    let public = app::public(&settings, http, board.clone()).map_err(failed)?;
    let doctor = Doctor::new(store.clone(), BlobFolder::new(settings.images_dir()));
    // Before anybody uploads: what is put into the wrong folder must be brought to the right one by hand.
    doctor.look_at_images().await;
    let state = web::Data::new(Ops { board: board.clone(), store: store.clone(), doctor });
    let grpc_addr = grpc.as_ref().map(|(_, address)| address.to_string());
    let mut grpc = grpc.map(|(listener, _)| grpc::start(&settings, listener, &board)).transpose().map_err(failed)?;
    let grpc_health = grpc.as_ref().map(|grpc| actix_web::rt::spawn(grpc::tell_health(grpc.health(), state.clone())));
    let public_handle = public.handle();
    let upkeep = actix_web::rt::spawn(telemetry::keep(metrics));
    let public = actix_web::rt::spawn(public);
    desk.open(state.clone());
    tracing::info!(
        http.addr = %http_addr, ops.addr = %ops_addr, grpc.addr = grpc_addr, url = board.public_url,
        "the board is at {}, its documentation at {}/docs", board.public_url, board.public_url
    );

    let housekeeping = actix_web::rt::spawn(keep_house(board.clone()));
    let (end_of_mail, told) = watch::channel(false);
    let mail = board.services.mail.is_on().then(|| actix_web::rt::spawn(mail::deliver(board.clone(), told)));
    let key_watch = actix_web::rt::spawn(watch(keys));
    let state_watch = actix_web::rt::spawn(watch_state(state));
    stop.requested().await;
    tracing::info!("stopping: requests in flight may finish; a second signal ends it at once");
    // `/readyz` says no from here on, and each answer ends its connection.
    board.drain();
    if let (Some(grpc), Some(telling)) = (&grpc, grpc_health) {
        telling.abort();
        grpc.health().set(false).await;
    }
    let finish = async {
        tokio::time::sleep(settings.shutdown_delay).await;
        housekeeping.abort();
        upkeep.abort();
        let _ = end_of_mail.send(true);
        key_watch.abort();
        state_watch.abort();
        for door in &doors {
            if let Err(error) = turn_away(door) {
                tracing::warn!(%error, "whoever connects just now may be cut off: {error}");
            }
        }
        // `stop` drops every connection that no worker has taken up.
        tokio::time::sleep(LAST_ARRIVALS).await;
        public_handle.pause().await;
        let calls = async {
            if let Some(grpc) = &mut grpc {
                grpc.end().await;
            }
        };
        let doors_close = async {
            for door in doors {
                close(door).await;
            }
        };
        // A worker that ends takes along the database connections that were opened on it, whoever uses them by then: first
        // all the work, then the workers.
        let work = async {
            tokio::join!(board.idle(), calls);
        };
        let (idle, (), ()) =
            tokio::join!(tokio::time::timeout(settings.shutdown_timeout, work), last_letters(mail), doors_close);
        public_handle.stop(idle.is_ok()).await;
    };
    tokio::select! {
        () = finish => {}
        () = stop.requested() => {
            tracing::warn!("stopped at once");
            return Ok(Ending::AtOnce);
        }
    }
    drop(grpc);
    private_handle.stop(false).await;
    store.close().await;
    let _ = tokio::join!(public, private);
    // It blocks; where it cannot run, the process ends without its last spans.
    let _ = web::block(otlp::finish).await;
    tracing::info!("stopped");
    Ok(Ending::Whole)
}

/// `None` where a signal came first. What was begun is given up: a transaction that is open goes with its connection.
async fn unless_stopped<T>(stop: &mut Stop, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        outcome = work => Some(outcome),
        () = stop.requested() => {
            tracing::info!("stopped before the board was there");
            None
        }
    }
}

/// How long a start takes, at the most, that has nothing to wait for.
const SOON: Duration = Duration::from_secs(1);

/// The database, with the schema of this version.
async fn migrated(settings: &Settings, ops_addr: SocketAddr) -> Result<SeaStore, Fault> {
    let work = async {
        let store = store(settings).await?;
        let applied = mundap_migration::up(store.writer()).await?;
        if !applied.is_empty() {
            tracing::info!(migrations = applied.join(","), "migrated the database: {}", applied.join(", "));
        }
        Ok(store)
    };
    let mut work = Box::pin(work);
    if let Ok(outcome) = tokio::time::timeout(SOON, &mut work).await {
        return outcome;
    }
    tracing::info!(
        ops.addr = %ops_addr,
        "the board is not there yet: it waits for the database, which takes long to answer or to migrate, or which \
         another program migrates or holds"
    );
    work.await
}

/// What somebody who starts a board should know.
fn say_what_is_open(settings: &Settings, mailer: Option<&SmtpMailer>, new_key: Option<&Path>) {
    if let Some(path) = new_key.map(Path::display) {
        // A typing error in the path comes to the same, and whoever is signed in elsewhere is refused here.
        tracing::info!(%path, "made a new signing key, {path}: nobody who signed in by another one is known here");
    }
    if settings.identity == Identity::TrustedEmail {
        tracing::warn!(
            "MUNDAP_IDENTITY=trusted-email: the e-mail in the body of /upload, /update_qna and /delete_qna is believed; \
             let only a proxy that proves who is calling reach this port"
        );
    }
    match mailer {
        None => tracing::info!(
            "no mail is sent, since MUNDAP_SMTP_URL names no mail server: e-mail addresses are not verified, and \
             `mundap user password EMAIL` is what helps whoever forgot theirs"
        ),
        Some(mailer) if mailer.exposes_password() => {
            tracing::warn!("MUNDAP_SMTP_URL sends its password unencrypted: add ?tls=required to it, or use smtps://");
        }
        Some(_) => {}
    }
}

/// How long those who connected before the door was shut have to be taken up and say what they want.
const LAST_ARRIVALS: Duration = Duration::from_millis(250);

/// How long letters that are being sent may still take, beside the requests in flight.
const LAST_LETTERS: Duration = Duration::from_secs(4);

/// Lets what is being sent be sent. What is not done by then comes back to the outbox with the end of its lease.
async fn last_letters(mail: Option<JoinHandle<()>>) {
    if let Some(mail) = mail
        && tokio::time::timeout(LAST_LETTERS, mail).await.is_err()
    {
        tracing::warn!("letters were still being sent: one that the mail server has taken by now is sent once more");
    }
}

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

/// Looks at what this node stands on, though nobody asks.
async fn watch_state(ops: web::Data<Ops>) {
    tokio::join!(watch_database(ops.clone()), watch_images(ops));
}

/// How often it is looked how the database is: while something is carried into it, nothing is to be written.
const DATABASE_WATCH: Duration = Duration::from_secs(5);

async fn watch_database(ops: web::Data<Ops>) {
    let mut ticks = tokio::time::interval(DATABASE_WATCH);
    loop {
        ticks.tick().await;
        ops.doctor.health().await;
    }
}

/// How often it is looked whether the folder of images is the right one: it may be unmounted.
const IMAGE_WATCH: Duration = Duration::from_mins(1);

async fn watch_images(ops: web::Data<Ops>) {
    let mut ticks = tokio::time::interval_at(Instant::now() + IMAGE_WATCH, IMAGE_WATCH);
    loop {
        ticks.tick().await;
        ops.doctor.look_at_images().await;
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

/// The same listeners, to be shut by whoever does not accept on them.
fn copies<'l>(listeners: impl IntoIterator<Item = Option<&'l TcpListener>>) -> std::io::Result<Vec<TcpListener>> {
    listeners.into_iter().flatten().map(TcpListener::try_clone).collect()
}

/// Lets nobody new connect, while whoever waits to be accepted still is. A listener that is closed, or shut down, resets
/// them instead. A client's system tries again after a second: then nobody listens, or the next process does.
#[cfg(target_os = "linux")]
fn turn_away(listener: &TcpListener) -> std::io::Result<()> {
    use socket2::SockFilter;

    /// Where TCP's flags are in a segment, and the one that begins a connection.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    // Opcodes of the classic packet filter, by their names in `linux/bpf_common.h`.
    const LD_B_ABS: u16 = 0x30;
    const JSET: u16 = 0x45;
    const RET: u16 = 0x06;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LD_B_ABS, 0, 0, FLAGS),
        SockFilter::new(JSET, 0, 1, SYN),
        SockFilter::new(RET, 0, 0, 0),
        SockFilter::new(RET, 0, 0, u32::MAX),
    ])
}

/// There is no such thing elsewhere.
#[cfg(not(target_os = "linux"))]
const fn turn_away(_: &TcpListener) -> std::io::Result<()> {
    Ok(())
}

/// Refuses whoever connects from now on, though the server still holds the listener: it must not be accepting any more.
async fn close(listener: TcpListener) {
    // The thread that accepts is only told to pause; a listener that goes while it looks is an error in its log.
    const NOTICED: Duration = Duration::from_millis(10);
    tokio::time::sleep(NOTICED).await;
    // Elsewhere than on Linux a listener cannot be shut down, and goes with the server.
    let _ = SockRef::from(&listener).shutdown(Shutdown::Read);
}

/// The signals that end a command.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next of them.
    pub(crate) async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
