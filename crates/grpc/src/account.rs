//! `mundap.v1.AccountService`

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use mundap_domain::account::{PasswordChange, Registration};
use mundap_domain::error::Violations;
use mundap_domain::export::{self, Place};
use mundap_domain::image::Image;
use mundap_domain::page::Slice;
use mundap_domain::user::UserEdit;
use mundap_domain::{Error, Services};
use tonic::{Request, Response, Status};

use crate::call::{Call, created};
use crate::image::PART;
use crate::stream::{Walk, before_more};
use crate::v1::account_service_server::{AccountService, AccountServiceServer};
use crate::v1::export_account_response::Piece;
use crate::{Limits, input, v1, view};

pub(crate) fn service(services: Arc<Services>, limits: Limits) -> AccountServiceServer<Accounts> {
    AccountServiceServer::new(Accounts(services)).max_decoding_message_size(limits.message)
}

pub(crate) struct Accounts(Arc<Services>);

/// Where each field of a registration is in its message.
fn registration(new: &v1::Account, password: &str) -> Result<Registration, Violations> {
    let parsed = Registration::parse(Some(&new.email), Some(password), Some(&new.display_name));
    parsed.map_err(|violations| {
        let mut all = Violations::default();
        for violation in violations.iter() {
            let within = if violation.field == "password" { "" } else { "account." };
            all.add(format!("{within}{}", violation.field), violation.rule);
        }
        all
    })
}

impl Accounts {
    async fn update(&self, call: &Call, asked: v1::UpdateAccountRequest) -> Result<v1::Account, Error> {
        let new = asked.account.unwrap_or_default();
        let filled = [!new.email.is_empty(), !new.display_name.is_empty()];
        let [email, name] = input::mask(asked.update_mask.as_ref(), &["email", "display_name"], filled)?;
        let edit = UserEdit::parse(email.then_some(&*new.email), name.then_some(&*new.display_name));
        let edit = edit.map_err(|violations| violations.below("account"))?;
        let expected = input::etag("account.etag", &new.etag)?;
        let user = self.0.users.edit_me(&call.by, &edit, &expected, call.language).await?;
        Ok(view::account(&user))
    }

    async fn delete(&self, call: &Call, asked: v1::DeleteAccountRequest) -> Result<(), Error> {
        let expected = input::etag("etag", &asked.etag)?;
        self.0.accounts.delete(&call.by, &expected).await
    }

    async fn change_password(&self, call: &Call, asked: v1::ChangePasswordRequest) -> Result<(), Error> {
        let change = PasswordChange::parse(Some(&asked.current_password), Some(&asked.new_password))?;
        self.0.accounts.change_password(&call.by, &change, call.language).await
    }
}

/// What of an export is at a place, and the place behind it.
async fn pieces(services: &Services, call: &Call, place: Place) -> Result<(VecDeque<Piece>, Option<Place>), Error> {
    let by = &*call.by;
    let (piece, next) = services.export.piece(by, place).await?;
    let pieces = match piece {
        export::Piece::Qnas(qnas) => qnas.iter().map(|qna| Piece::Qna(view::qna(qna, by))).collect(),
        export::Piece::Comments(comments) => {
            comments.iter().map(|comment| Piece::Comment(view::comment(comment, by))).collect()
        }
        export::Piece::Images(images) => images.into_iter().flat_map(image).collect(),
        export::Piece::Audit(entries) => entries.iter().map(|entry| Piece::AuditEntry(view::audit(entry))).collect(),
    };
    Ok((pieces, next))
}

/// An image, and behind it its bytes.
fn image((image, content): (Image, Option<Vec<u8>>)) -> impl Iterator<Item = Piece> {
    let content = Bytes::from(content.unwrap_or_default());
    let starts = (0..content.len()).step_by(PART);
    let data = starts.map(move |at| Piece::ImageData(content.slice(at..content.len().min(at + PART))));
    std::iter::once(Piece::Image(view::image(&image))).chain(data)
}

#[tonic::async_trait]
impl AccountService for Accounts {
    type ExportAccountStream = Walk<v1::ExportAccountResponse>;

    async fn create_account(
        &self,
        request: Request<v1::CreateAccountRequest>,
    ) -> Result<Response<v1::Account>, Status> {
        let (call, asked) = Call::open(request);
        let outcome = async {
            let registration = registration(&asked.account.unwrap_or_default(), &asked.password)?;
            let key = input::key("idempotency_key", &asked.idempotency_key)?;
            self.0.accounts.register(&registration, key.as_ref(), call.language).await
        };
        created(&call, outcome.await, view::account)
    }

    async fn get_account(&self, request: Request<v1::GetAccountRequest>) -> Result<Response<v1::Account>, Status> {
        let (call, _) = Call::open(request);
        call.answer(self.0.users.me(&call.by).await.map(|user| view::account(&user)))
    }

    async fn update_account(
        &self,
        request: Request<v1::UpdateAccountRequest>,
    ) -> Result<Response<v1::Account>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.update(&call, asked).await)
    }

    async fn delete_account(&self, request: Request<v1::DeleteAccountRequest>) -> Result<Response<()>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.delete(&call, asked).await)
    }

    async fn change_password(&self, request: Request<v1::ChangePasswordRequest>) -> Result<Response<()>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.change_password(&call, asked).await)
    }

    async fn request_verification(
        &self,
        request: Request<v1::RequestVerificationRequest>,
    ) -> Result<Response<()>, Status> {
        let (call, _) = Call::open(request);
        call.answer(self.0.mail.ask_to_verify(&call.by, call.language).await)
    }

    async fn export_account(
        &self,
        request: Request<v1::ExportAccountRequest>,
    ) -> Result<Response<Self::ExportAccountStream>, Status> {
        let (call, _) = Call::open(request);
        // As long as there is another answer to give.
        let (user, sign_ins) = self.0.export.account(&call.by).await.map_err(|error| call.refuse(error))?;
        let sign_ins = sign_ins.iter().map(|sign_in| Piece::SignIn(view::sign_in(sign_in)));
        let first: VecDeque<_> = std::iter::once(Piece::Account(view::account(&user))).chain(sign_ins).collect();
        let state = (self.0.clone(), call, first, Some(Place::first(Slice::stream())));
        let all = stream::try_unfold(state, |(services, call, mut ready, mut next)| async move {
            loop {
                if let Some(piece) = ready.pop_front() {
                    let message = v1::ExportAccountResponse { piece: Some(piece) };
                    return Ok(Some((message, (services, call, ready, next))));
                }
                let Some(place) = next else { return Ok(None) };
                before_more().await;
                (ready, next) = pieces(&services, &call, place).await.map_err(|error| call.refuse(error))?;
            }
        });
        Ok(Response::new(all.boxed()))
    }
}
