//! `/api/v1/qna/{qna_id}/comments` and `/api/v1/comments`

use actix_web::{HttpRequest, HttpResponse, delete, get, patch, post, web};
use mundap_domain::Actor;
use mundap_domain::comment::{Comment, CommentDraft, CommentEdit, CommentId};
use mundap_domain::error::Violations;
use mundap_domain::qna::QnaId;
use serde::Serialize;
use utoipa::ToSchema;

use super::image::ImageView;
use super::user::AuthorView;
use crate::app::Board;
use crate::docs::schema::CommentText;
use crate::input::{Caller, Fields, Id, IfMatch, OnceKey, Query};
use crate::reply::{Answer, Time, created, page, single};
use crate::routes::Routing;

pub fn routes(config: &mut impl Routing) {
    config.service(list).service(write).service(read).service(edit).service(remove);
}

/// A comment to be written.
#[derive(ToSchema)]
pub struct CommentBody {
    #[schema(value_type = CommentText, inline)]
    pub content: String,
}

/// A merge patch (RFC 7396): a field that is not there stays as it is.
#[derive(ToSchema)]
pub struct CommentPatchBody {
    #[schema(value_type = CommentText, inline, required = false)]
    pub content: Option<String>,
}

impl CommentBody {
    fn parse(mut fields: Fields) -> Result<CommentDraft, Violations> {
        let content = fields.text("content");
        fields.finish(CommentDraft::parse(content.as_deref()))
    }
}

impl CommentPatchBody {
    fn parse(mut fields: Fields) -> Result<CommentEdit, Violations> {
        let content = fields.text("content");
        fields.finish(CommentEdit::parse(content.as_deref()))
    }
}

/// An answer or a remark below a question.
#[derive(Serialize, ToSchema)]
#[schema(as = Comment)]
pub struct CommentView<'a> {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    comment_id: i64,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    qna_id: i64,
    author: AuthorView<'a>,
    content: &'a str,
    #[schema(inline)]
    created_at: Time,
    #[schema(inline)]
    updated_at: Time,
    /// Counts edits, from 1; `ETag` carries it.
    #[schema(minimum = 1)]
    version: i32,
    /// Oldest first, at most 10.
    images: Vec<ImageView>,
}

impl<'a> CommentView<'a> {
    #[must_use]
    pub fn new(comment: &'a Comment, by: &Actor) -> Self {
        Self {
            comment_id: comment.id.get(),
            qna_id: comment.qna.get(),
            author: AuthorView::new(&comment.author, by),
            content: comment.content.as_str(),
            created_at: Time(comment.created_at),
            updated_at: Time(comment.updated_at),
            version: comment.version.get(),
            images: comment.images.iter().map(ImageView::new).collect(),
        }
    }
}

/// A page of comments.
#[derive(Serialize, ToSchema)]
#[schema(as = CommentPage)]
pub struct CommentPage<'a> {
    pub items: Vec<CommentView<'a>>,
    /// The cursor of the next page; null on the last one.
    #[schema(required = true)]
    pub next: Option<&'a str>,
}

/// List the comments of a question
///
/// Oldest first.
#[utoipa::path(
    tag = "Comments",
    params(
        ("qna_id" = i64, Path),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 20 if not given"),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before"),
    ),
    responses((status = 200, description = "A page", body = CommentPage))
)]
#[get("/qna/{qna_id}/comments")]
async fn list(req: HttpRequest, board: web::Data<Board>, by: Caller, qna: Id) -> Answer {
    let mut query = Query::of(&req)?;
    let request = query.page()?;
    query.finish()?;
    let found = board.services.comments.list(&by, QnaId::new(qna.0), &request).await?;
    page(&req, &found, |comment| CommentView::new(comment, &by))
}

/// Comment on a question
#[utoipa::path(
    tag = "Comments",
    params(("qna_id" = i64, Path)),
    request_body = CommentBody,
    responses((status = 201, description = "Written", body = CommentView))
)]
#[post("/qna/{qna_id}/comments")]
async fn write(
    req: HttpRequest,
    board: web::Data<Board>,
    by: Caller,
    qna: Id,
    once: OnceKey,
    fields: Fields,
) -> Answer {
    let draft = CommentBody::parse(fields)?;
    let outcome = board.services.comments.write(&by, QnaId::new(qna.0), &draft, once.0.as_ref()).await?;
    let comment = outcome.get();
    let path = format!("/api/v1/comments/{}", comment.id);
    created(&req, &outcome, &path, comment.version, &CommentView::new(comment, &by))
}

/// Read a comment
#[utoipa::path(
    tag = "Comments",
    params(("comment_id" = i64, Path)),
    responses((status = 200, description = "The comment", body = CommentView))
)]
#[get("/comments/{comment_id}")]
async fn read(req: HttpRequest, board: web::Data<Board>, by: Caller, id: Id) -> Answer {
    let comment = board.services.comments.read(&by, CommentId::new(id.0)).await?;
    single(&req, comment.version, &CommentView::new(&comment, &by))
}

/// Edit a comment
///
/// Its author and moderators may.
#[utoipa::path(
    tag = "Comments",
    params(("comment_id" = i64, Path)),
    request_body(content((CommentPatchBody = "application/merge-patch+json"), (CommentPatchBody = "application/json"))),
    responses((status = 200, description = "As it is now", body = CommentView))
)]
#[patch("/comments/{comment_id}")]
async fn edit(
    req: HttpRequest,
    board: web::Data<Board>,
    by: Caller,
    id: Id,
    expected: IfMatch,
    fields: Fields,
) -> Answer {
    let edit = CommentPatchBody::parse(fields)?;
    let comment = board.services.comments.edit(&by, CommentId::new(id.0), &edit, &expected.0).await?;
    single(&req, comment.version, &CommentView::new(&comment, &by))
}

/// Delete a comment
///
/// Its author and moderators may.
#[utoipa::path(
    tag = "Comments",
    params(("comment_id" = i64, Path)),
    responses((status = 204, description = "Deleted"))
)]
#[delete("/comments/{comment_id}")]
async fn remove(board: web::Data<Board>, by: Caller, id: Id, expected: IfMatch) -> Answer {
    board.services.comments.delete(&by, CommentId::new(id.0), &expected.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
