//! REST, version 1.

pub mod admin;
pub mod auth;
pub mod comment;
pub mod export;
pub mod image;
pub mod mail;
pub mod qna;
pub mod user;

use crate::routes::Routing;

/// Where it is.
pub const PREFIX: &str = "/api/v1";

/// The kinds of operations, as the OpenAPI document names and explains them.
pub const TAGS: &[(&str, &str)] = &[
    ("QnA", "Questions"),
    ("Comments", "Answers and discussion below a question"),
    ("Images", "Pictures on comments"),
    ("Users", "Accounts and profiles"),
    ("Sign-in", "OAuth2 tokens"),
    ("Administration", "Accounts, for administrators; each use is written to the audit log"),
];

pub fn routes(config: &mut impl Routing) {
    qna::routes(config);
    comment::routes(config);
    image::routes(config);
    user::routes(config);
    export::routes(config);
    auth::routes(config);
    mail::routes(config);
    admin::routes(config);
}
