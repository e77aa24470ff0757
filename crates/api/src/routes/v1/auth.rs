//! `/api/v1/auth`: OAuth2's token and revocation endpoints, and the public keys.

use std::collections::BTreeMap;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, PRAGMA};
use actix_web::{FromRequest, HttpRequest, HttpResponse, get, post, web};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use mundap_domain::Error;
use mundap_domain::account::TokenPair;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::ArrayBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::app::Board;
use crate::docs::schema::{text, text_schema};
use crate::input::form;
use crate::problem::Problem;
use crate::rate;
use crate::routes::Routing;
use crate::words::Language;

pub fn routes(config: &mut impl Routing) {
    config.service(token).service(revoke);
}

text_schema!(GrantType, text().enum_values(Some(["password", "refresh_token"])));
text_schema!(
    /// RFC 7517, 5.
    JwkSet,
    ObjectBuilder::new()
        .property("keys", ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::Object)))
        .required("keys")
);

/// `grant_type=password` with `username` (the e-mail) and `password`, or `grant_type=refresh_token` with `refresh_token`.
#[derive(ToSchema)]
pub struct TokenForm {
    #[schema(value_type = GrantType, inline)]
    pub grant_type: String,
    /// The e-mail.
    #[schema(required = false, nullable = false)]
    pub username: Option<String>,
    #[schema(required = false, nullable = false)]
    pub password: Option<String>,
    #[schema(required = false, nullable = false)]
    pub refresh_token: Option<String>,
}

/// The token to be revoked, of either kind.
#[derive(ToSchema)]
pub struct RevocationForm {
    pub token: String,
    #[schema(required = false, nullable = false)]
    pub token_type_hint: Option<String>,
}

/// RFC 6749, 5.1.
#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
pub struct TokensView<'a> {
    /// Send it as `Authorization: Bearer …`.
    access_token: &'a str,
    #[schema(example = "bearer")]
    token_type: &'static str,
    /// Seconds.
    #[schema(minimum = 1)]
    expires_in: i64,
    /// Good once: the answer to its use holds the next one.
    refresh_token: &'a str,
}

/// RFC 6749, 5.2.
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthError)]
pub struct OAuthErrorView<'a> {
    #[schema(example = "invalid_grant")]
    error: &'a str,
    error_description: &'a str,
}

/// A form's pairs. Parameters that are not known are ignored (RFC 6749, 3.2).
pub struct Form(Result<BTreeMap<String, String>, Problem>);

impl FromRequest for Form {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (req, payload) = (req.clone(), payload.take());
        async move {
            match form(&req, payload).await {
                // OAuth2 has no word for it.
                Err(problem) if problem.status() == StatusCode::SERVICE_UNAVAILABLE => Err(problem),
                outcome => Ok(Self(outcome)),
            }
        }
        .boxed_local()
    }
}

/// Sign in, or renew with a refresh token
#[utoipa::path(
    tag = "Sign-in",
    security(()),
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "Signed in", body = TokensView))
)]
#[post("/auth/token")]
async fn token(req: HttpRequest, board: web::Data<Board>, form: Form) -> Result<HttpResponse, Problem> {
    let has_password =
        form.0.as_ref().is_ok_and(|pairs| pairs.get("grant_type").is_some_and(|name| name == "password"));
    rate::of_form(&req, &board, has_password).await?;
    let pairs = match form.0 {
        Ok(pairs) => pairs,
        Err(problem) => return Ok(unreadable(&problem)),
    };
    let pair = |name: &str| pairs.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let accounts = &board.services.accounts;
    let outcome = match (pair("grant_type"), pair("username"), pair("password"), pair("refresh_token")) {
        (Some("password"), Some(username), Some(password), _) => accounts.sign_in(username, password).await,
        (Some("password"), ..) => return Ok(incomplete("username and password are required")),
        (Some("refresh_token"), _, _, Some(presented)) => accounts.refresh(presented).await,
        (Some("refresh_token"), ..) => return Ok(incomplete("refresh_token is required")),
        (Some(_), ..) => {
            let description = "grant_type must be password or refresh_token";
            return Ok(refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", description));
        }
        (None, ..) => return Ok(incomplete("grant_type is required")),
    };
    match outcome {
        Ok(tokens) => Ok(granted(&tokens)),
        Err(error) => oauth(error),
    }
}

/// Sign out
///
/// Ends the sign-in that the token belongs to, with all its tokens (RFC 7009). An unknown token is no error.
#[utoipa::path(
    tag = "Sign-in",
    security(()),
    request_body(content = RevocationForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "It is good no longer"))
)]
#[post("/auth/revoke")]
async fn revoke(req: HttpRequest, board: web::Data<Board>, form: Form) -> Result<HttpResponse, Problem> {
    rate::of_form(&req, &board, false).await?;
    let pairs = match form.0 {
        Ok(pairs) => pairs,
        Err(problem) => return Ok(unreadable(&problem)),
    };
    let Some(revoked) = pairs.get("token") else {
        return Ok(incomplete("token is required"));
    };
    match board.services.accounts.revoke(revoked).await {
        Ok(()) => Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).finish()),
        Err(error) => oauth(error),
    }
}

/// The public keys that access tokens are signed with (RFC 7517)
#[utoipa::path(
    tag = "Sign-in",
    security(()),
    responses((status = 200, description = "A JWK set", body = JwkSet))
)]
#[get("/.well-known/jwks.json")]
pub(crate) async fn jwks(board: web::Data<Board>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "public, max-age=300"))
        .content_type("application/json")
        .body(board.jwks())
}

fn granted(tokens: &TokenPair) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).insert_header((PRAGMA, "no-cache")).json(TokensView {
        access_token: &tokens.access_token,
        token_type: "bearer",
        expires_in: tokens.expires_in.num_seconds(),
        refresh_token: &tokens.refresh_token.expose(),
    })
}

/// The domain's errors in OAuth2's shape, where OAuth2 has a word for them; else a problem.
fn oauth(error: Error) -> Result<HttpResponse, Problem> {
    match error {
        Error::InvalidCredentials => {
            Ok(refuse(StatusCode::BAD_REQUEST, "invalid_grant", "e-mail and password do not match an account"))
        }
        Error::InvalidRefreshToken => {
            let description = "the refresh token is not valid, or no longer; sign in again";
            Ok(refuse(StatusCode::BAD_REQUEST, "invalid_grant", description))
        }
        other => Err(other.into()),
    }
}

fn unreadable(problem: &Problem) -> HttpResponse {
    refuse(problem.status(), "invalid_request", &problem.detail(Language::English))
}

fn incomplete(description: &str) -> HttpResponse {
    refuse(StatusCode::BAD_REQUEST, "invalid_request", description)
}

/// In English whatever the request asks for: a description takes printable ASCII without `"` and `\` (RFC 6749, 5.2), which
/// Korean is not. What else a client's own names bring into it becomes `?`.
fn refuse(status: StatusCode, error: &str, description: &str) -> HttpResponse {
    let is_allowed = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    let description: String = description.chars().map(|c| if is_allowed(&c) { c } else { '?' }).collect();
    HttpResponse::build(status)
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((PRAGMA, "no-cache"))
        .json(OAuthErrorView { error, error_description: &description })
}
