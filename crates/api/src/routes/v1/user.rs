//! `/api/v1/users`

use actix_web::{HttpRequest, HttpResponse, delete, get, patch, post, web};
use mundap_domain::Actor;
use mundap_domain::account::{PasswordChange, Registration};
use mundap_domain::error::Violations;
use mundap_domain::user::{Author, Email, User, UserEdit, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::Board;
use crate::docs::schema::{DisplayNameText, EmailText, PasswordText, RoleName};
use crate::input::{Caller, Fields, Id, IfMatch, OnceKey, OpenFields};
use crate::mail::LetterLanguage;
use crate::reply::{Answer, Time, created, single};
use crate::routes::Routing;

pub fn routes(config: &mut impl Routing) {
    // `/users/me` before `/users/{user_id}`, which it would match too.
    config.service(register).service(me).service(edit_me).service(delete_me).service(change_password).service(profile);
}

/// How an author whose account is gone is shown.
const DELETED: &str = "deleted user";

/// Who wrote something.
#[derive(Serialize, ToSchema)]
#[schema(as = Author)]
pub struct AuthorView<'a> {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    user_id: i64,
    /// "deleted user" where the account is gone.
    display_name: &'a str,
    /// Shown to this author and to administrators alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    email: Option<&'a str>,
}

impl<'a> AuthorView<'a> {
    pub fn new(author: &'a Author, by: &Actor) -> Self {
        Self {
            user_id: author.id.get(),
            display_name: author.display_name.as_ref().map_or(DELETED, |name| name.as_str()),
            email: author.email.as_ref().filter(|_| by.may_see_email_of(author)).map(Email::as_str),
        }
    }
}

/// What everybody may know of a person.
#[derive(Serialize, ToSchema)]
#[schema(as = Profile)]
pub struct ProfileView<'a> {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    user_id: i64,
    display_name: &'a str,
}

/// The own account.
#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView<'a> {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    user_id: i64,
    #[schema(value_type = EmailText, inline)]
    email: &'a str,
    /// Whether somebody who reads that address has said so, by a mailed token.
    email_verified: bool,
    display_name: &'a str,
    #[schema(value_type = RoleName, inline)]
    role: &'a str,
    /// Whether an administrator suspended it.
    suspended: bool,
    #[schema(inline)]
    created_at: Time,
    #[schema(inline)]
    updated_at: Time,
    /// Counts edits, from 1; `ETag` carries it.
    #[schema(minimum = 1)]
    version: i32,
}

impl<'a> AccountView<'a> {
    #[must_use]
    pub fn new(user: &'a User) -> Self {
        Self {
            user_id: user.id.get(),
            email: user.email.as_str(),
            email_verified: user.email_verified_at.is_some(),
            display_name: user.display_name.as_str(),
            role: user.role.name(),
            suspended: user.suspended_at.is_some(),
            created_at: Time(user.created_at),
            updated_at: Time(user.updated_at),
            version: user.version.get(),
        }
    }
}

/// An account to be made.
#[derive(ToSchema)]
pub struct RegistrationBody {
    #[schema(value_type = EmailText, inline)]
    pub email: String,
    #[schema(value_type = PasswordText, inline)]
    pub password: String,
    #[schema(value_type = DisplayNameText, inline)]
    pub display_name: String,
}

/// A merge patch (RFC 7396): a field that is not there stays as it is.
#[derive(ToSchema)]
pub struct AccountPatchBody {
    #[schema(value_type = EmailText, inline, required = false)]
    pub email: Option<String>,
    #[schema(value_type = DisplayNameText, inline, required = false)]
    pub display_name: Option<String>,
}

/// A change of password.
#[derive(ToSchema)]
pub struct PasswordBody {
    pub current_password: String,
    #[schema(value_type = PasswordText, inline)]
    pub new_password: String,
}

impl RegistrationBody {
    fn parse(mut fields: Fields) -> Result<Registration, Violations> {
        let (email, password) = (fields.text("email"), fields.text("password"));
        let name = fields.text("display_name");
        fields.finish(Registration::parse(email.as_deref(), password.as_deref(), name.as_deref()))
    }
}

impl AccountPatchBody {
    fn parse(mut fields: Fields) -> Result<UserEdit, Violations> {
        let (email, name) = (fields.text("email"), fields.text("display_name"));
        fields.finish(UserEdit::parse(email.as_deref(), name.as_deref()))
    }
}

impl PasswordBody {
    fn parse(mut fields: Fields) -> Result<PasswordChange, Violations> {
        let (current, new) = (fields.text("current_password"), fields.text("new_password"));
        fields.finish(PasswordChange::parse(current.as_deref(), new.as_deref()))
    }
}

/// Register
///
/// Anybody may. Sign in afterwards at `/api/v1/auth/token`. A board that sends mail writes to the address, so that its owner
/// can verify it.
#[utoipa::path(
    tag = "Users",
    security(()),
    request_body = RegistrationBody,
    responses((status = 201, description = "Registered", body = AccountView))
)]
#[post("/users")]
async fn register(
    req: HttpRequest,
    board: web::Data<Board>,
    once: OnceKey,
    language: LetterLanguage,
    fields: OpenFields,
) -> Answer {
    let registration = RegistrationBody::parse(fields.0)?;
    let outcome = board.services.accounts.register(&registration, once.0.as_ref(), language.0).await?;
    let user = outcome.get();
    created(&req, &outcome, &format!("/api/v1/users/{}", user.id), user.version, &AccountView::new(user))
}

/// Read the own account
#[utoipa::path(
    tag = "Users",
    security(("oauth2" = []), ("bearer" = [])),
    responses((status = 200, description = "The account", body = AccountView))
)]
#[get("/users/me")]
async fn me(req: HttpRequest, board: web::Data<Board>, by: Caller) -> Answer {
    let user = board.services.users.me(&by).await?;
    single(&req, user.version, &AccountView::new(&user))
}

/// Change the own e-mail or display name
///
/// Another e-mail is not verified; a board that sends mail tells the old address, and asks the new one.
#[utoipa::path(
    tag = "Users",
    request_body(content((AccountPatchBody = "application/merge-patch+json"), (AccountPatchBody = "application/json"))),
    responses((status = 200, description = "As it is now", body = AccountView))
)]
#[patch("/users/me")]
async fn edit_me(
    req: HttpRequest,
    board: web::Data<Board>,
    by: Caller,
    expected: IfMatch,
    language: LetterLanguage,
    fields: Fields,
) -> Answer {
    let edit = AccountPatchBody::parse(fields)?;
    let user = board.services.users.edit_me(&by, &edit, &expected.0, language.0).await?;
    single(&req, user.version, &AccountView::new(&user))
}

/// Delete the own account
///
/// What it wrote stays, under "deleted user"; e-mail, name and password are forgotten.
#[utoipa::path(tag = "Users", responses((status = 204, description = "Deleted")))]
#[delete("/users/me")]
async fn delete_me(board: web::Data<Board>, by: Caller, expected: IfMatch) -> Answer {
    board.services.accounts.delete(&by, &expected.0).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Change the password
///
/// Ends every sign-in of the account, this one too. A board that sends mail tells the address.
#[utoipa::path(
    tag = "Users",
    request_body = PasswordBody,
    responses((status = 204, description = "Changed"))
)]
#[post("/users/me/password")]
async fn change_password(board: web::Data<Board>, by: Caller, language: LetterLanguage, fields: Fields) -> Answer {
    let change = PasswordBody::parse(fields)?;
    board.services.accounts.change_password(&by, &change, language.0).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Read somebody's public profile
#[utoipa::path(
    tag = "Users",
    params(("user_id" = i64, Path)),
    responses((status = 200, description = "The profile", body = ProfileView))
)]
#[get("/users/{user_id}")]
async fn profile(req: HttpRequest, board: web::Data<Board>, by: Caller, id: Id) -> Answer {
    let user = board.services.users.profile(&by, UserId::new(id.0)).await?;
    let view = ProfileView { user_id: user.id.get(), display_name: user.display_name.as_str() };
    single(&req, user.version, &view)
}
