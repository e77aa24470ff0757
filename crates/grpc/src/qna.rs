//! `mundap.v1.QnaService`

use std::sync::Arc;

use mundap_domain::page::{Order, Slice};
use mundap_domain::qna::{QnaDraft, QnaEdit, QnaId, QnaListing};
use mundap_domain::user::UserId;
use mundap_domain::{Error, Services};
use tonic::{Request, Response, Status};

use crate::call::{Call, created};
use crate::stream::{Walk, walk};
use crate::v1::qna_service_server::{QnaService, QnaServiceServer};
use crate::{Limits, input, v1, view};

pub(crate) fn service(services: Arc<Services>, limits: Limits) -> QnaServiceServer<Qnas> {
    QnaServiceServer::new(Qnas(services)).max_decoding_message_size(limits.message)
}

pub(crate) struct Qnas(Arc<Services>);

impl Qnas {
    async fn list(&self, call: &Call, asked: v1::ListQnasRequest) -> Result<v1::ListQnasResponse, Error> {
        let request = input::page(asked.page_size, asked.page_token)?;
        let order = input::order(asked.order, Order::Newest)?;
        let listing = QnaListing { author: asked.author_id.map(UserId::new), order };
        let page = self.0.qnas.list(&call.by, &listing, &request).await?;
        Ok(v1::ListQnasResponse {
            qnas: page.items.iter().map(|qna| view::qna(qna, &call.by)).collect(),
            next_page_token: page.next.unwrap_or_default(),
        })
    }

    async fn get(&self, call: &Call, asked: v1::GetQnaRequest) -> Result<v1::Qna, Error> {
        let id = QnaId::new(asked.qna_id);
        let Some(size) = input::size_or_none("comment_count", asked.comment_count)? else {
            return Ok(view::qna(&self.0.qnas.read(&call.by, id).await?, &call.by));
        };
        let (qna, comments) = self.0.qnas.read_with_comments(&call.by, id, size).await?;
        let page = v1::CommentPage {
            comments: comments.items.iter().map(|comment| view::comment(comment, &call.by)).collect(),
            next_page_token: comments.next.unwrap_or_default(),
        };
        Ok(view::qna_with(&qna, &call.by, Some(page)))
    }

    async fn update(&self, call: &Call, asked: v1::UpdateQnaRequest) -> Result<v1::Qna, Error> {
        let new = asked.qna.unwrap_or_default();
        let filled = [!new.title.is_empty(), !new.content.is_empty()];
        let [title, content] = input::mask(asked.update_mask.as_ref(), &["title", "content"], filled)?;
        let edit = QnaEdit::parse(title.then_some(&*new.title), content.then_some(&*new.content));
        let edit = edit.map_err(|violations| violations.below("qna"))?;
        let expected = input::etag("qna.etag", &new.etag)?;
        let qna = self.0.qnas.edit(&call.by, QnaId::new(new.qna_id), &edit, &expected).await?;
        Ok(view::qna(&qna, &call.by))
    }

    async fn delete(&self, call: &Call, asked: v1::DeleteQnaRequest) -> Result<(), Error> {
        let expected = input::etag("etag", &asked.etag)?;
        self.0.qnas.delete(&call.by, QnaId::new(asked.qna_id), &expected).await
    }
}

#[tonic::async_trait]
impl QnaService for Qnas {
    type StreamQnasStream = Walk<v1::Qna>;

    async fn list_qnas(&self, request: Request<v1::ListQnasRequest>) -> Result<Response<v1::ListQnasResponse>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.list(&call, asked).await)
    }

    async fn get_qna(&self, request: Request<v1::GetQnaRequest>) -> Result<Response<v1::Qna>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.get(&call, asked).await)
    }

    async fn create_qna(&self, request: Request<v1::CreateQnaRequest>) -> Result<Response<v1::Qna>, Status> {
        let (call, asked) = Call::open(request);
        let outcome = async {
            let new = asked.qna.unwrap_or_default();
            let draft = QnaDraft::parse(Some(&new.title), Some(&new.content));
            let draft = draft.map_err(|violations| violations.below("qna"))?;
            let key = input::key("idempotency_key", &asked.idempotency_key)?;
            self.0.qnas.ask(&call.by, &draft, key.as_ref()).await
        };
        created(&call, outcome.await, |qna| view::qna(qna, &call.by))
    }

    async fn update_qna(&self, request: Request<v1::UpdateQnaRequest>) -> Result<Response<v1::Qna>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.update(&call, asked).await)
    }

    async fn delete_qna(&self, request: Request<v1::DeleteQnaRequest>) -> Result<Response<()>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.delete(&call, asked).await)
    }

    async fn stream_qnas(
        &self,
        request: Request<v1::StreamQnasRequest>,
    ) -> Result<Response<Self::StreamQnasStream>, Status> {
        let (call, _) = Call::open(request);
        let services = self.0.clone();
        let pieces = move |call: Call, piece: Slice| {
            let services = services.clone();
            async move {
                let Some((qnas, next)) = services.qnas.piece(&call.by, piece).await? else { return Ok(None) };
                Ok(Some((qnas.iter().map(|qna| view::qna(qna, &call.by)).collect(), next)))
            }
        };
        walk(call, pieces).await
    }
}
