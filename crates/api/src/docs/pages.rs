//! `/docs` (Swagger UI), `/redoc`, `/openapi.json`, and the list of error codes.

use std::sync::{Arc, LazyLock};

use actix_web::http::header::{
    Accept, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, Header as _, LOCATION, Quality, VARY, X_FRAME_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, web};
use mundap_domain::Error;
use pulldown_cmark::html::push_html;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use utoipa_swagger_ui::Config;

use super::Document;
use crate::problem::Problem;
use crate::reply::named_by_if_none_match;

const REDOC: &[u8] = include_bytes!("../../assets/redoc.standalone.js");
const ERRORS: &str = include_str!("../../../../docs/errors.md");

const REDOC_PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mundap API</title>
<link rel="icon" href="data:,">
<style>body { margin: 0; }</style>
</head>
<body>
<redoc spec-url="/openapi.json" hide-download-button="false"></redoc>
<script src="/redoc/redoc.standalone.js"></script>
</body>
</html>
"#;

const ERRORS_PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mundap API: errors</title>
<link rel="icon" href="data:,">
<style>
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid #ccc; padding: 0.25rem 0.5rem; text-align: left; vertical-align: top; }
code, pre { font-size: 0.9em; overflow-x: auto; }
:target { scroll-margin-top: 1rem; }
tr:has(:target) { background: #fff3c4; }
</style>
</head>
<body>
LIST
</body>
</html>
"#;

/// Swagger UI sets styles from its script and draws icons from data URLs; nothing comes from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; frame-ancestors 'none'; \
                      base-uri 'none'; form-action 'self'";

/// What can be looked at, beside the files of Swagger UI.
pub const PAGES: [&str; 7] =
    ["/", "/openapi.json", "/docs", "/docs/", "/docs/errors", "/redoc", "/redoc/redoc.standalone.js"];

pub fn pages(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(root))
        .route("/openapi.json", web::get().to(openapi))
        .route("/docs", web::get().to(swagger_index))
        .route("/docs/", web::get().to(root))
        .route("/docs/errors", web::get().to(errors))
        .route("/docs/{file}", web::get().to(swagger_file))
        .route("/redoc", web::get().to(redoc))
        .route("/redoc/redoc.standalone.js", web::get().to(redoc_script));
}

async fn root() -> HttpResponse {
    HttpResponse::Found().insert_header((LOCATION, "/docs")).finish()
}

async fn openapi(req: HttpRequest, document: web::Data<Document>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((ETAG, document.etag.as_str())).insert_header((CACHE_CONTROL, "no-cache"));
    if named_by_if_none_match(&req, &document.etag) {
        return response.status(actix_web::http::StatusCode::NOT_MODIFIED).finish();
    }
    response.content_type("application/json").body(document.json.clone())
}

/// The list of codes, which every problem's `type` leads to: a page for browsers, and as it was written for anybody else.
async fn errors(req: HttpRequest) -> HttpResponse {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        let mut list = String::new();
        // Links lead to other documents, which are not shown here.
        let is_link = |event: &Event| matches!(event, Event::Start(Tag::Link { .. }) | Event::End(TagEnd::Link));
        push_html(&mut list, Parser::new_ext(ERRORS, Options::ENABLE_TABLES).filter(|event| !is_link(event)));
        ERRORS_PAGE.replace("LIST", &list)
    });
    let (content_type, body) = if wants_a_page(&req) {
        ("text/html; charset=utf-8", PAGE.as_str())
    } else {
        ("text/markdown; charset=utf-8", ERRORS)
    };
    page().insert_header((VARY, "Accept")).content_type(content_type).body(body)
}

/// Whether HTML is named, and Markdown is not liked better (RFC 9110, 12.5.1). What takes anything is no browser.
fn wants_a_page(req: &HttpRequest) -> bool {
    let Ok(Accept(accepted)) = Accept::parse(req) else { return false };
    let liked = |kind: &str| {
        let named = accepted.iter().filter(|accepted| accepted.item.essence_str() == kind);
        named.map(|accepted| accepted.quality).max().unwrap_or(Quality::ZERO)
    };
    let page = liked("text/html");
    page > Quality::ZERO && page >= liked("text/markdown")
}

fn page() -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_FRAME_OPTIONS, "DENY"))
        .insert_header((CACHE_CONTROL, "no-cache"));
    response
}

async fn redoc() -> HttpResponse {
    page().content_type("text/html; charset=utf-8").body(REDOC_PAGE)
}

async fn redoc_script() -> HttpResponse {
    page().content_type("text/javascript; charset=utf-8").body(REDOC)
}

static SWAGGER: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    // Without "none" the page asks a validator on the internet about the document.
    Arc::new(Config::from("/openapi.json").validator_url("none").deep_linking(true))
});

/// Swagger UI's page names its files relative to `/docs/`.
async fn swagger_index() -> Result<HttpResponse, Problem> {
    let (index, _) = swagger("index.html")?.ok_or_else(Problem::route_not_found)?;
    // Laid out for the screen that it is shown on, and with a name among a reader's other pages.
    let head =
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n    <title>Mundap API</title>";
    let html = String::from_utf8_lossy(&index)
        .replace("<title>Swagger UI</title>", head)
        .replace("\"./", "\"/docs/")
        .replace("href=\"index.css\"", "href=\"/docs/index.css\"");
    Ok(page().content_type("text/html; charset=utf-8").body(html))
}

async fn swagger_file(file: web::Path<String>) -> Result<HttpResponse, Problem> {
    let (bytes, content_type) = swagger(&file)?.ok_or_else(Problem::route_not_found)?;
    Ok(page().content_type(content_type).body(bytes))
}

fn swagger(file: &str) -> Result<Option<(Vec<u8>, String)>, Problem> {
    let found = utoipa_swagger_ui::serve(file, SWAGGER.clone())
        .map_err(|error| Problem::from(Error::internal(error.to_string())))?;
    Ok(found.map(|file| (file.bytes.into_owned(), file.content_type)))
}
