//! `mundap.v1.CommentService`

use std::sync::Arc;

use mundap_domain::comment::{CommentDraft, CommentEdit, CommentId};
use mundap_domain::qna::QnaId;
use mundap_domain::{Error, Services};
use tonic::{Request, Response, Status};

use crate::call::{Call, created};
use crate::v1::comment_service_server::{CommentService, CommentServiceServer};
use crate::{Limits, input, v1, view};

pub(crate) fn service(services: Arc<Services>, limits: Limits) -> CommentServiceServer<Comments> {
    CommentServiceServer::new(Comments(services)).max_decoding_message_size(limits.message)
}

pub(crate) struct Comments(Arc<Services>);

impl Comments {
    async fn list(&self, call: &Call, asked: v1::ListCommentsRequest) -> Result<v1::ListCommentsResponse, Error> {
        let request = input::page(asked.page_size, asked.page_token)?;
        let page = self.0.comments.list(&call.by, QnaId::new(asked.qna_id), &request).await?;
        Ok(v1::ListCommentsResponse {
            comments: page.items.iter().map(|comment| view::comment(comment, &call.by)).collect(),
            next_page_token: page.next.unwrap_or_default(),
        })
    }

    async fn get(&self, call: &Call, asked: v1::GetCommentRequest) -> Result<v1::Comment, Error> {
        let comment = self.0.comments.read(&call.by, CommentId::new(asked.comment_id)).await?;
        Ok(view::comment(&comment, &call.by))
    }

    async fn update(&self, call: &Call, asked: v1::UpdateCommentRequest) -> Result<v1::Comment, Error> {
        let new = asked.comment.unwrap_or_default();
        let [content] = input::mask(asked.update_mask.as_ref(), &["content"], [!new.content.is_empty()])?;
        let edit = CommentEdit::parse(content.then_some(&*new.content));
        let edit = edit.map_err(|violations| violations.below("comment"))?;
        let expected = input::etag("comment.etag", &new.etag)?;
        let comment = self.0.comments.edit(&call.by, CommentId::new(new.comment_id), &edit, &expected).await?;
        Ok(view::comment(&comment, &call.by))
    }

    async fn delete(&self, call: &Call, asked: v1::DeleteCommentRequest) -> Result<(), Error> {
        let expected = input::etag("etag", &asked.etag)?;
        self.0.comments.delete(&call.by, CommentId::new(asked.comment_id), &expected).await
    }
}

#[tonic::async_trait]
impl CommentService for Comments {
    async fn list_comments(
        &self,
        request: Request<v1::ListCommentsRequest>,
    ) -> Result<Response<v1::ListCommentsResponse>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.list(&call, asked).await)
    }

    async fn get_comment(&self, request: Request<v1::GetCommentRequest>) -> Result<Response<v1::Comment>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.get(&call, asked).await)
    }

    async fn create_comment(
        &self,
        request: Request<v1::CreateCommentRequest>,
    ) -> Result<Response<v1::Comment>, Status> {
        let (call, asked) = Call::open(request);
        let outcome = async {
            let new = asked.comment.unwrap_or_default();
            let draft = CommentDraft::parse(Some(&new.content));
            let draft = draft.map_err(|violations| violations.below("comment"))?;
            let key = input::key("idempotency_key", &asked.idempotency_key)?;
            self.0.comments.write(&call.by, QnaId::new(asked.qna_id), &draft, key.as_ref()).await
        };
        created(&call, outcome.await, |comment| view::comment(comment, &call.by))
    }

    async fn update_comment(
        &self,
        request: Request<v1::UpdateCommentRequest>,
    ) -> Result<Response<v1::Comment>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.update(&call, asked).await)
    }

    async fn delete_comment(&self, request: Request<v1::DeleteCommentRequest>) -> Result<Response<()>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.delete(&call, asked).await)
    }
}
