//! One file a resource: wire shapes, handlers and their documentation together.

pub mod seed;
pub mod v1;

use utoipa_actix_web::scope::scope;
use utoipa_actix_web::service_config::ServiceConfig;

/// Every documented route.
pub fn all(config: &mut ServiceConfig) {
    config.service(scope("/api/v1").configure(v1::routes)).configure(seed::routes).service(v1::auth::jwks);
}
