//! The gRPC face of the board: the same use cases as REST, in Protocol Buffers.
//!
//! `proto/` holds the contract. [`routes`] serves it: one file a resource, messages and methods together. [`call`] is what
//! every method knows of its call, [`status`] the only conversion from [`mundap_domain::Error`], [`method`] what each method
//! is by nature, [`server`] the connections. What happens around every call (who is asking, limits, the log) is its host's,
//! as for REST.

mod account;
mod admin;
mod auth;
pub mod call;
pub mod codec;
mod comment;
mod image;
mod input;
pub mod method;
mod qna;
pub mod server;
pub mod status;
mod stream;
mod user;
mod view;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use mundap_domain::Services;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

pub use call::{Call, Look, Said, Voice};
pub use method::{Load, Method, Purpose};

/// Messages, services and clients, generated from `proto/`.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("mundap.v1");
}

/// What `proto/` says, with its comments: a `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Limits of what a caller can send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a message.
    pub message: usize,
    /// How long the messages of an upload may take to arrive.
    pub upload_time: Duration,
}

/// Whether callers should come here, for `grpc.health.v1.Health`.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    /// What it said last.
    said: Arc<Mutex<Option<bool>>>,
}

impl Health {
    /// Tells those who ask, and those who watch. Who watches is told of changes alone.
    pub async fn set(&self, serving: bool) {
        let said = || self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said() == Some(serving) {
            return;
        }
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in method::services().chain([""]) {
            self.reporter.set_service_status(service, status).await;
        }
        *said() = Some(serving);
    }

    /// Ends the streams of those who watch.
    pub async fn end(mut self) {
        for service in method::services().chain([""]) {
            self.reporter.clear_service_status(service).await;
        }
    }
}

/// Every service, with health and reflection. Health says no until it is told otherwise.
///
/// # Errors
/// Where the descriptors cannot be read, which would be a fault of the build.
pub fn routes(services: &Arc<Services>, limits: Limits) -> Result<(Routes, Health), tonic_reflection::server::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(qna::service(services.clone(), limits))
        .add_service(comment::service(services.clone(), limits))
        .add_service(image::service(services.clone(), limits))
        .add_service(user::service(services.clone(), limits))
        .add_service(account::service(services.clone(), limits))
        .add_service(auth::service(services.clone(), limits))
        .add_service(admin::service(services.clone(), limits));
    let health = Health { reporter: health, said: Arc::default() };
    // Until somebody has looked. Nobody else has it yet, so that there is nothing to wait for.
    let _ = health.set(false).now_or_never();
    Ok((routes.routes().prepare(), health))
}
