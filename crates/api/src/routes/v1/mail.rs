//! `/api/v1/auth/forgot`, `reset` and `verify`, by mailed tokens, and `/api/v1/users/me/verification`.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, post, web};
use mundap_domain::error::Violations;
use mundap_domain::mail::PasswordReset;
use mundap_domain::user::Email;
use utoipa::ToSchema;

use crate::app::Board;
use crate::docs::schema::{EmailText, PasswordText};
use crate::input::{Caller, Fields, OpenFields};
use crate::mail::LetterLanguage;
use crate::reply::Answer;
use crate::routes::Routing;

pub fn routes(config: &mut impl Routing) {
    config.service(forgot).service(reset).service(verify).service(ask_to_verify);
}

/// Whoever forgot their password.
#[derive(ToSchema)]
pub struct ForgottenBody {
    #[schema(value_type = EmailText, inline)]
    pub email: String,
}

/// A new password, and the token that a letter brought.
#[derive(ToSchema)]
pub struct ResetBody {
    #[schema(example = "wFbUVBJl0cRCdrWlBIDVVjm2DYYs6ZoybOdfXMm6n14")]
    pub token: String,
    #[schema(value_type = PasswordText, inline)]
    pub new_password: String,
}

/// The token that a letter brought.
#[derive(ToSchema)]
pub struct VerificationBody {
    #[schema(example = "wFbUVBJl0cRCdrWlBIDVVjm2DYYs6ZoybOdfXMm6n14")]
    pub token: String,
}

impl ForgottenBody {
    fn parse(mut fields: Fields) -> Result<Email, Violations> {
        let email = fields.text("email");
        let mut violations = Violations::default();
        let email = violations.check("email", email.as_deref(), Email::parse);
        fields.finish(violations.finish(email))
    }
}

impl ResetBody {
    fn parse(mut fields: Fields) -> Result<PasswordReset, Violations> {
        let (token, new) = (fields.text("token"), fields.text("new_password"));
        fields.finish(PasswordReset::parse(token.as_deref(), new.as_deref()))
    }
}

impl VerificationBody {
    fn parse(mut fields: Fields) -> Result<String, Violations> {
        let token = fields.text("token");
        let mut violations = Violations::default();
        let token = violations.check("token", token.as_deref(), |raw| Ok(raw.to_owned()));
        fields.finish(violations.finish(token))
    }
}

/// Ask for a letter that sets a new password
///
/// Whoever has an account with this address gets a token by mail, good once, within 30 minutes; a newer one replaces it.
/// The answer is the same where nobody has one, and on a board that sends no mail.
#[utoipa::path(
    tag = "Sign-in",
    security(()),
    request_body = ForgottenBody,
    responses((status = 202, description = "If there is such an account, a letter will come"))
)]
#[post("/auth/forgot")]
async fn forgot(board: web::Data<Board>, language: LetterLanguage, fields: OpenFields) -> Answer {
    let email = ForgottenBody::parse(fields.0)?;
    board.services.mail.forgot(&email, language.0).await?;
    Ok(HttpResponse::Accepted().insert_header((CACHE_CONTROL, "no-store")).finish())
}

/// Set a new password with a mailed token
///
/// Ends every sign-in of the account. The address counts as verified from then on.
#[utoipa::path(
    tag = "Sign-in",
    security(()),
    request_body = ResetBody,
    responses((status = 204, description = "It is the password now"))
)]
#[post("/auth/reset")]
async fn reset(board: web::Data<Board>, language: LetterLanguage, fields: OpenFields) -> Answer {
    let reset = ResetBody::parse(fields.0)?;
    board.services.mail.reset(&reset, language.0).await?;
    Ok(HttpResponse::NoContent().insert_header((CACHE_CONTROL, "no-store")).finish())
}

/// Verify an e-mail address with a mailed token
#[utoipa::path(
    tag = "Sign-in",
    security(()),
    request_body = VerificationBody,
    responses((status = 204, description = "The address is verified"))
)]
#[post("/auth/verify")]
async fn verify(board: web::Data<Board>, fields: OpenFields) -> Answer {
    let token = VerificationBody::parse(fields.0)?;
    board.services.mail.verify(&token).await?;
    Ok(HttpResponse::NoContent().insert_header((CACHE_CONTROL, "no-store")).finish())
}

/// Ask for the letter that verifies the own address again
///
/// Nothing comes where it is verified already, or where the board sends no mail.
#[utoipa::path(tag = "Users", responses((status = 202, description = "A letter will come")))]
#[post("/users/me/verification")]
async fn ask_to_verify(board: web::Data<Board>, by: Caller, language: LetterLanguage) -> Answer {
    board.services.mail.ask_to_verify(&by, language.0).await?;
    Ok(HttpResponse::Accepted().finish())
}
