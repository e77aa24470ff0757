//! REST, version 1.

pub mod admin;
pub mod auth;
pub mod comment;
pub mod export;
pub mod image;
pub mod mail;
pub mod qna;
pub mod user;

use utoipa_actix_web::service_config::ServiceConfig;

pub fn routes(config: &mut ServiceConfig) {
    qna::routes(config);
    comment::routes(config);
    image::routes(config);
    user::routes(config);
    export::routes(config);
    auth::routes(config);
    mail::routes(config);
    admin::routes(config);
}
