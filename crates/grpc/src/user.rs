//! `mundap.v1.UserService`

use std::sync::Arc;

use mundap_domain::Services;
use mundap_domain::user::UserId;
use tonic::{Request, Response, Status};

use crate::call::Call;
use crate::v1::user_service_server::{UserService, UserServiceServer};
use crate::{Limits, v1, view};

pub(crate) fn service(services: Arc<Services>, limits: Limits) -> UserServiceServer<Users> {
    UserServiceServer::new(Users(services)).max_decoding_message_size(limits.message)
}

pub(crate) struct Users(Arc<Services>);

#[tonic::async_trait]
impl UserService for Users {
    async fn get_user(&self, request: Request<v1::GetUserRequest>) -> Result<Response<v1::User>, Status> {
        let (call, asked) = Call::open(request);
        let user = self.0.users.profile(&call.by, UserId::new(asked.user_id)).await;
        call.answer(user.map(|user| view::user(&user)))
    }
}
