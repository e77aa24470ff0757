//! `mundap.v1.AuthService`

use std::sync::Arc;

use mundap_domain::error::Violations;
use mundap_domain::mail::PasswordReset;
use mundap_domain::user::Email;
use mundap_domain::{Error, Services};
use tonic::{Request, Response, Status};

use crate::call::Call;
use crate::v1::auth_service_server::{AuthService, AuthServiceServer};
use crate::{Limits, v1, view};

pub(crate) fn service(services: Arc<Services>, limits: Limits) -> AuthServiceServer<Auth> {
    AuthServiceServer::new(Auth(services)).max_decoding_message_size(limits.message)
}

pub(crate) struct Auth(Arc<Services>);

impl Auth {
    async fn forgot(&self, call: &Call, asked: v1::RequestPasswordResetRequest) -> Result<(), Error> {
        let mut violations = Violations::default();
        let email = violations.check("email", Some(&asked.email), Email::parse);
        let email = violations.finish(email)?;
        self.0.mail.forgot(&email, call.language).await
    }

    async fn reset(&self, call: &Call, asked: v1::ResetPasswordRequest) -> Result<(), Error> {
        let reset = PasswordReset::parse(Some(&asked.token), Some(&asked.new_password))?;
        self.0.mail.reset(&reset, call.language).await
    }
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn sign_in(&self, request: Request<v1::SignInRequest>) -> Result<Response<v1::Tokens>, Status> {
        let (call, asked) = Call::open(request);
        let tokens = self.0.accounts.sign_in(&asked.email, &asked.password).await;
        call.answer(tokens.map(|tokens| view::tokens(&tokens)))
    }

    async fn refresh_token(&self, request: Request<v1::RefreshTokenRequest>) -> Result<Response<v1::Tokens>, Status> {
        let (call, asked) = Call::open(request);
        let tokens = self.0.accounts.refresh(&asked.refresh_token).await;
        call.answer(tokens.map(|tokens| view::tokens(&tokens)))
    }

    async fn revoke_token(&self, request: Request<v1::RevokeTokenRequest>) -> Result<Response<()>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.0.accounts.revoke(&asked.token).await)
    }

    async fn request_password_reset(
        &self,
        request: Request<v1::RequestPasswordResetRequest>,
    ) -> Result<Response<()>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.forgot(&call, asked).await)
    }

    async fn reset_password(&self, request: Request<v1::ResetPasswordRequest>) -> Result<Response<()>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.reset(&call, asked).await)
    }

    async fn verify_email(&self, request: Request<v1::VerifyEmailRequest>) -> Result<Response<()>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.0.mail.verify(&asked.token).await)
    }
}
