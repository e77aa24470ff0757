//! One file a resource: wire shapes, handlers and their documentation together.

pub mod seed;
pub mod v1;

use actix_web::dev::HttpServiceFactory;
use actix_web::web::{self, ServiceConfig};
use utoipa_actix_web::OpenApiFactory;
use utoipa_actix_web::scope::scope;
use utoipa_actix_web::service_config::ServiceConfig as Document;

/// What routes are put on: the application of a worker, or the document. Every worker has an application of its own, and the document
/// is several megabytes while it is put together.
pub trait Routing {
    fn service(&mut self, handler: impl HttpServiceFactory + OpenApiFactory + 'static) -> &mut Self;

    /// Version 1, at its place.
    fn v1(&mut self);
}

impl Routing for ServiceConfig {
    fn service(&mut self, handler: impl HttpServiceFactory + OpenApiFactory + 'static) -> &mut Self {
        self.service(handler)
    }

    fn v1(&mut self) {
        self.service(web::scope(v1::PREFIX).configure(v1::routes));
    }
}

impl Routing for Document<'_> {
    fn service(&mut self, handler: impl HttpServiceFactory + OpenApiFactory + 'static) -> &mut Self {
        self.service(handler)
    }

    fn v1(&mut self) {
        self.service(scope(v1::PREFIX).configure(|config| v1::routes(config)));
    }
}

/// Every documented route.
pub fn all(config: &mut impl Routing) {
    config.v1();
    seed::routes(config);
    config.service(v1::auth::jwks);
}
