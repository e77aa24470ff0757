//! `mundap.v1.AdminService`

use std::sync::Arc;

use mundap_domain::admin::{UserChange, UserListing};
use mundap_domain::error::{Broken, Violations};
use mundap_domain::page::Order;
use mundap_domain::user::{Role, UserId};
use mundap_domain::{Error, Services};
use tonic::{Request, Response, Status};

use crate::call::Call;
use crate::v1::admin_service_server::{AdminService, AdminServiceServer};
use crate::{Limits, input, v1, view};

pub(crate) fn service(services: Arc<Services>, limits: Limits) -> AdminServiceServer<Admin> {
    AdminServiceServer::new(Admin(services)).max_decoding_message_size(limits.message)
}

pub(crate) struct Admin(Arc<Services>);

/// A role, or none where it is not said.
fn role(field: &str, role: i32) -> Result<Option<Role>, Violations> {
    Ok(match v1::Role::try_from(role) {
        Ok(v1::Role::Unspecified) => None,
        Ok(v1::Role::Member) => Some(Role::Member),
        Ok(v1::Role::Moderator) => Some(Role::Moderator),
        Ok(v1::Role::Admin) => Some(Role::Admin),
        Err(_) => return Err(not_a_role(field)),
    })
}

fn not_a_role(field: &str) -> Violations {
    let mut violations = Violations::default();
    violations.add(field, Broken::NotOneOf { allowed: &["ROLE_MEMBER", "ROLE_MODERATOR", "ROLE_ADMIN"] });
    violations
}

impl Admin {
    async fn list(&self, call: &Call, asked: v1::ListAccountsRequest) -> Result<v1::ListAccountsResponse, Error> {
        let request = input::page(asked.page_size, asked.page_token)?;
        let listing = UserListing {
            role: role("role", asked.role)?,
            suspended: asked.suspended,
            order: input::order(asked.order, Order::Newest)?,
        };
        let page = self.0.admin.list_users(&call.by, &listing, &request).await?;
        Ok(v1::ListAccountsResponse {
            accounts: page.items.iter().map(view::account).collect(),
            next_page_token: page.next.unwrap_or_default(),
        })
    }

    async fn update(&self, call: &Call, asked: v1::UpdateUserAccountRequest) -> Result<v1::Account, Error> {
        let new = asked.account.unwrap_or_default();
        let filled = [new.role != i32::from(v1::Role::Unspecified), new.suspended];
        let [of_role, of_suspension] = input::mask(asked.update_mask.as_ref(), &["role", "suspended"], filled)?;
        // What the mask leaves out is not looked at: it may be a role of a later version of the contract.
        let role = if of_role {
            Some(role("account.role", new.role)?.ok_or_else(|| not_a_role("account.role"))?)
        } else {
            None
        };
        let change = UserChange { role, suspended: of_suspension.then_some(new.suspended) };
        let expected = input::etag("account.etag", &new.etag)?;
        let user = self.0.admin.change_user(&call.by, UserId::new(new.user_id), &change, &expected).await?;
        Ok(view::account(&user))
    }

    async fn audit(
        &self,
        call: &Call,
        asked: v1::ListAuditEntriesRequest,
    ) -> Result<v1::ListAuditEntriesResponse, Error> {
        let request = input::page(asked.page_size, asked.page_token)?;
        let page = self.0.admin.audit(&call.by, asked.user_id.map(UserId::new), &request).await?;
        Ok(v1::ListAuditEntriesResponse {
            audit_entries: page.items.iter().map(view::audit).collect(),
            next_page_token: page.next.unwrap_or_default(),
        })
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn list_accounts(
        &self,
        request: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.list(&call, asked).await)
    }

    async fn get_user_account(
        &self,
        request: Request<v1::GetUserAccountRequest>,
    ) -> Result<Response<v1::Account>, Status> {
        let (call, asked) = Call::open(request);
        let user = self.0.admin.user(&call.by, UserId::new(asked.user_id)).await;
        call.answer(user.map(|user| view::account(&user)))
    }

    async fn update_user_account(
        &self,
        request: Request<v1::UpdateUserAccountRequest>,
    ) -> Result<Response<v1::Account>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.update(&call, asked).await)
    }

    async fn list_audit_entries(
        &self,
        request: Request<v1::ListAuditEntriesRequest>,
    ) -> Result<Response<v1::ListAuditEntriesResponse>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.audit(&call, asked).await)
    }
}
