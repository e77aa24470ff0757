//! The gRPC port: its server, and what happens around every call, which is what [`crate::edge`], [`crate::admission`] and
//! [`crate::rate`] do around every request of REST.

mod answer;
mod edge;
mod pages;
mod record;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use mundap_grpc::server::{Activity, Limits, Phase, serve};
use mundap_grpc::{Health, routes};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic_web::GrpcWebLayer;
use tower::Layer as _;

use crate::app::{Board, connections, worker_count};
use crate::ops::Ops;
use crate::settings::Settings;
use edge::Edge;

/// Bytes of a call's metadata, as of a request's headers.
const HEAD: u32 = 32 << 10;

/// How often the other end of a connection is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(15);

/// The running server. Its threads are its own: those of REST run one request's futures each on one thread, and a connection
/// of HTTP/2 carries many.
pub struct Face {
    runtime: Option<Runtime>,
    server: Option<JoinHandle<()>>,
    phase: watch::Sender<Phase>,
    health: Health,
}

/// Starts to serve on `listener`.
///
/// # Errors
/// Where the listener cannot be used, or no thread started.
pub fn start(settings: &Settings, listener: TcpListener, board: &web::Data<Board>) -> std::io::Result<Face> {
    let runtime =
        Builder::new_multi_thread().worker_threads(worker_count(settings)).thread_name("grpc").enable_all().build()?;
    let limits = mundap_grpc::Limits { message: settings.http_body_limit, upload_time: settings.http_body_timeout };
    let (routes, health) = routes(&board.services, limits).map_err(std::io::Error::other)?;
    let connections = connections(settings);
    let cors = pages::cors(&settings.cors_origins);
    let unread = settings.http_write_timeout;
    let board = board.clone();
    let connected = move |stream: &TcpStream, activity: Activity| {
        let peer = stream.peer_addr().ok()?.ip();
        let seat = connections.admit(stream)?;
        let edge = Edge::new(board.clone(), routes.clone(), peer, activity, Arc::new(seat), unread);
        // Pages call by gRPC-Web, which is translated before anything else looks at it.
        Some(cors.layer(GrpcWebLayer::new().layer(edge)))
    };
    let limits = Limits {
        streams: settings.grpc_calls_per_connection,
        head: HEAD,
        first_call: settings.http_keep_alive,
        idle: settings.grpc_keep_alive,
        ping: PING,
        pong: unread,
        // Streams give up first.
        unread: unread * 2,
    };
    let (phase, told) = watch::channel(Phase::Serves);
    let server = {
        let _within = runtime.enter();
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        runtime.spawn(serve(listener, limits, connected, told))
    };
    Ok(Face { runtime: Some(runtime), server: Some(server), phase, health })
}

/// How often `grpc.health.v1.Health` learns whether the node is ready.
const HEALTH: Duration = Duration::from_secs(2);

/// Says what `/readyz` says, until it is aborted.
pub async fn tell_health(health: Health, ops: web::Data<Ops>) {
    let mut ticks = tokio::time::interval(HEALTH);
    loop {
        ticks.tick().await;
        health.set(ops.is_ready(ops.doctor.health().await)).await;
    }
}

impl Face {
    /// What `grpc.health.v1.Health` says.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Lets nobody new in, and returns when every connection has ended with its last call.
    pub async fn end(&mut self) {
        let _ = self.phase.send(Phase::Ends);
        self.health.clone().end().await;
        if let Some(server) = &mut self.server {
            // It does not panic.
            let _ = server.await;
            self.server = None;
        }
    }
}

impl Drop for Face {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped within another runtime, which must not wait.
            runtime.shutdown_background();
        }
    }
}
