//! `/api/v1/admin`: accounts, for administrators. Each use is written to the audit log.

use actix_web::{HttpRequest, get, patch, web};
use mundap_domain::admin::{UserChange, UserListing};
use mundap_domain::audit::{Action, AuditEntry};
use mundap_domain::error::{Broken, Violations};
use mundap_domain::page::Order;
use mundap_domain::user::{Role, User, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use super::user::AccountView;
use crate::app::Board;
use crate::docs::schema::{OrderName, RoleName, text, text_schema};
use crate::input::{Caller, Fields, Id, IfMatch, Query};
use crate::reply::{Answer, Time, page, single};
use crate::routes::Routing;

pub fn routes(config: &mut impl Routing) {
    config.service(list).service(read).service(change).service(audit);
}

text_schema!(ActionName, text().enum_values(Some(Action::NAMES)));

/// A merge patch (RFC 7396): a field that is not there stays as it is.
#[derive(ToSchema)]
pub struct UserChangeBody {
    #[schema(value_type = RoleName, inline, required = false)]
    pub role: Option<String>,
    /// A suspension ends every sign-in; the account may still read, and delete itself.
    #[schema(required = false, nullable = false)]
    pub suspended: Option<bool>,
}

impl UserChangeBody {
    fn parse(mut fields: Fields) -> Result<UserChange, Violations> {
        let (role, suspended) = (fields.text("role"), fields.boolean("suspended"));
        fields.finish(UserChange::parse(role.as_deref(), suspended))
    }
}

/// A page of accounts.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountPage)]
pub struct AccountPage<'a> {
    pub items: Vec<AccountView<'a>>,
    /// The cursor of the next page; null on the last one.
    #[schema(required = true)]
    pub next: Option<&'a str>,
}

/// What an administrator did.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditView {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    audit_id: i64,
    /// The administrator; null for somebody at the machine's console.
    #[schema(required = true, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    actor_id: Option<i64>,
    #[schema(value_type = ActionName, inline)]
    action: &'static str,
    /// The account that it was done to.
    #[schema(required = true, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    user_id: Option<i64>,
    /// The role before, where it is about one.
    #[schema(required = true)]
    role_before: Option<&'static str>,
    /// The role after, where it is about one.
    #[schema(required = true)]
    role_after: Option<&'static str>,
    #[schema(inline)]
    created_at: Time,
}

impl AuditView {
    #[must_use]
    pub fn new(entry: &AuditEntry) -> Self {
        let (before, after) = entry.action.roles();
        Self {
            audit_id: entry.id.get(),
            actor_id: entry.actor.map(UserId::get),
            action: entry.action.name(),
            user_id: entry.target.map(UserId::get),
            role_before: before.map(Role::name),
            role_after: after.map(Role::name),
            created_at: Time(entry.created_at),
        }
    }
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditPage)]
pub struct AuditPage<'a> {
    pub items: Vec<AuditView>,
    /// The cursor of the next page; null on the last one.
    #[schema(required = true)]
    pub next: Option<&'a str>,
}

/// List the accounts
#[utoipa::path(
    tag = "Administration",
    security(("oauth2" = []), ("bearer" = [])),
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 20 if not given"),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before"),
        ("role" = inline(Option<RoleName>), Query, description = "Only those with this role"),
        ("suspended" = Option<bool>, Query, description = "Only those that are suspended, or only those that are not"),
        ("order" = Option<OrderName>, Query, description = "`newest` if not given"),
    ),
    responses((status = 200, description = "A page", body = AccountPage))
)]
#[get("/admin/users")]
async fn list(req: HttpRequest, board: web::Data<Board>, by: Caller) -> Answer {
    let mut query = Query::of(&req)?;
    let request = query.page()?;
    let (role, suspended) = (query.value("role", Role::parse), query.value("suspended", boolean));
    let listing = UserListing { role, suspended, order: query.order(Order::Newest) };
    query.finish()?;
    let found = board.services.admin.list_users(&by, &listing, &request).await?;
    page(&req, &found, AccountView::new)
}

fn boolean(text: &str) -> Result<bool, Vec<Broken>> {
    text.parse().map_err(|_| vec![Broken::NotABoolean])
}

/// Read an account
#[utoipa::path(
    tag = "Administration",
    security(("oauth2" = []), ("bearer" = [])),
    params(("user_id" = i64, Path)),
    responses((status = 200, description = "The account", body = AccountView))
)]
#[get("/admin/users/{user_id}")]
async fn read(req: HttpRequest, board: web::Data<Board>, by: Caller, id: Id) -> Answer {
    let user = board.services.admin.user(&by, UserId::new(id.0)).await?;
    tagged(&req, &user)
}

/// Change an account's role, suspend or reinstate it
///
/// Of others: nobody changes their own role or suspends themselves here.
#[utoipa::path(
    tag = "Administration",
    params(("user_id" = i64, Path)),
    request_body(content((UserChangeBody = "application/merge-patch+json"), (UserChangeBody = "application/json"))),
    responses((status = 200, description = "As it is now", body = AccountView))
)]
#[patch("/admin/users/{user_id}")]
async fn change(
    req: HttpRequest,
    board: web::Data<Board>,
    by: Caller,
    id: Id,
    expected: IfMatch,
    fields: Fields,
) -> Answer {
    let change = UserChangeBody::parse(fields)?;
    let user = board.services.admin.change_user(&by, UserId::new(id.0), &change, &expected.0).await?;
    tagged(&req, &user)
}

fn tagged(req: &HttpRequest, user: &User) -> Answer {
    single(req, user.version, &AccountView::new(user))
}

/// Read the audit log
///
/// Newest first: who did what to which account.
#[utoipa::path(
    tag = "Administration",
    security(("oauth2" = []), ("bearer" = [])),
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 20 if not given"),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before"),
        ("user_id" = Option<i64>, Query, minimum = 1, maximum = 9_007_199_254_740_991_i64, description = "Only what was done to this account"),
    ),
    responses((status = 200, description = "A page", body = AuditPage))
)]
#[get("/admin/audit")]
async fn audit(req: HttpRequest, board: web::Data<Board>, by: Caller) -> Answer {
    let mut query = Query::of(&req)?;
    let request = query.page()?;
    let user = query.integer_in("user_id", 1..=9_007_199_254_740_991)?.map(UserId::new);
    query.finish()?;
    let found = board.services.admin.audit(&by, user, &request).await?;
    page(&req, &found, AuditView::new)
}
