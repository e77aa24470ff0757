//! `/account/verify`, `/account/reset` and `/account/forgot`: the pages that letters link to. Static files that work
//! without a network; what they do, they do through the API.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS};
use actix_web::{HttpResponse, web};

const PAGE: &str = include_str!("../assets/account/page.html");
const SCRIPT: &str = include_str!("../assets/account/account.js");
const STYLE: &str = include_str!("../assets/account/account.css");

/// Two files and one endpoint, all of this board.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What can be looked at.
pub const PAGES: [&str; 5] =
    ["/account/verify", "/account/reset", "/account/forgot", "/account/account.js", "/account/account.css"];

pub fn pages(config: &mut web::ServiceConfig) {
    for page in ["verify", "reset", "forgot"] {
        let html = PAGE.replace("PAGE", page);
        let answer = move || {
            let html = html.clone();
            async move { answer("text/html; charset=utf-8", html) }
        };
        config.route(&format!("/account/{page}"), web::get().to(answer));
    }
    config
        .route("/account/account.js", web::get().to(|| async { answer("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/account/account.css", web::get().to(|| async { answer("text/css; charset=utf-8", STYLE) }));
}

fn answer(content_type: &str, body: impl actix_web::body::MessageBody + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_FRAME_OPTIONS, "DENY"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .content_type(content_type)
        .body(body)
}
