//! `/api/v1/qna`

use actix_web::{HttpRequest, HttpResponse, delete, get, patch, post, web};
use mundap_domain::Actor;
use mundap_domain::error::Violations;
use mundap_domain::page::Order;
use mundap_domain::qna::{Qna, QnaDraft, QnaEdit, QnaId, QnaListing};
use mundap_domain::user::UserId;
use serde::Serialize;
use utoipa::ToSchema;

use super::comment::{CommentPage, CommentView};
use super::user::AuthorView;
use crate::app::Board;
use crate::docs::schema::{ContentText, TitleText};
use crate::input::{Caller, Fields, Id, IfMatch, OnceKey, Query};
use crate::reply::{Answer, Time, created, page, single};
use crate::routes::Routing;

pub fn routes(config: &mut impl Routing) {
    config.service(list).service(ask).service(read).service(edit).service(remove);
}

/// A question to be asked.
#[derive(ToSchema)]
pub struct QnaBody {
    #[schema(value_type = TitleText, inline)]
    pub title: String,
    #[schema(value_type = ContentText, inline)]
    pub content: String,
}

/// A merge patch (RFC 7396): a field that is not there stays as it is.
#[derive(ToSchema)]
pub struct QnaPatchBody {
    #[schema(value_type = TitleText, inline, required = false)]
    pub title: Option<String>,
    #[schema(value_type = ContentText, inline, required = false)]
    pub content: Option<String>,
}

impl QnaBody {
    fn parse(mut fields: Fields) -> Result<QnaDraft, Violations> {
        let (title, content) = (fields.text("title"), fields.text("content"));
        fields.finish(QnaDraft::parse(title.as_deref(), content.as_deref()))
    }
}

impl QnaPatchBody {
    /// # Errors
    /// Everything that is wrong with the fields.
    pub fn parse(mut fields: Fields) -> Result<QnaEdit, Violations> {
        let (title, content) = (fields.text("title"), fields.text("content"));
        fields.finish(QnaEdit::parse(title.as_deref(), content.as_deref()))
    }
}

/// A question.
#[derive(Serialize, ToSchema)]
#[schema(as = Qna)]
pub struct QnaView<'a> {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    qna_id: i64,
    title: &'a str,
    content: &'a str,
    author: AuthorView<'a>,
    /// How many comments it has.
    #[schema(minimum = 0)]
    comment_count: i32,
    #[schema(inline)]
    created_at: Time,
    #[schema(inline)]
    updated_at: Time,
    /// Counts edits, from 1; `ETag` carries it.
    #[schema(minimum = 1)]
    version: i32,
    /// The first comments, where `comments` asked for some.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    comments: Option<CommentPage<'a>>,
}

impl<'a> QnaView<'a> {
    #[must_use]
    pub fn new(qna: &'a Qna, by: &Actor) -> Self {
        Self {
            qna_id: qna.id.get(),
            title: qna.title.as_str(),
            content: qna.content.as_str(),
            author: AuthorView::new(&qna.author, by),
            comment_count: qna.comment_count,
            created_at: Time(qna.created_at),
            updated_at: Time(qna.updated_at),
            version: qna.version.get(),
            comments: None,
        }
    }
}

/// A page of questions.
#[derive(ToSchema)]
#[schema(as = QnaPage)]
#[expect(dead_code, reason = "says in the document what reply::page writes")]
struct QnaPage<'a> {
    items: Vec<QnaView<'a>>,
    /// The cursor of the next page; null on the last one.
    #[schema(required = true)]
    next: Option<String>,
}

/// List questions
///
/// Newest first, or by `order`. A walk along `next` meets each question that lives throughout exactly once.
#[utoipa::path(
    tag = "QnA",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 20 if not given"),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before, with the same author and order"),
        ("author" = Option<i64>, Query, description = "Only those of this user"),
        ("order" = Option<crate::docs::schema::OrderName>, Query, description = "`newest` if not given"),
    ),
    responses((status = 200, description = "A page", body = QnaPage))
)]
#[get("/qna")]
async fn list(req: HttpRequest, board: web::Data<Board>, by: Caller) -> Answer {
    let mut query = Query::of(&req)?;
    let request = query.page()?;
    let author = query.integer_in("author", i64::MIN..=i64::MAX)?.map(UserId::new);
    let order = query.order(Order::Newest);
    query.finish()?;
    let found = board.services.qnas.list(&by, &QnaListing { author, order }, &request).await?;
    page(&req, &found, |qna| QnaView::new(qna, &by))
}

/// Ask a question
#[utoipa::path(
    tag = "QnA",
    request_body = QnaBody,
    responses((status = 201, description = "Asked", body = QnaView))
)]
#[post("/qna")]
async fn ask(req: HttpRequest, board: web::Data<Board>, by: Caller, once: OnceKey, fields: Fields) -> Answer {
    let draft = QnaBody::parse(fields)?;
    let outcome = board.services.qnas.ask(&by, &draft, once.0.as_ref()).await?;
    let qna = outcome.get();
    created(&req, &outcome, &format!("/api/v1/qna/{}", qna.id), qna.version, &QnaView::new(qna, &by))
}

/// Read a question
///
/// With `comments=20` its first comments come along, oldest first.
#[utoipa::path(
    tag = "QnA",
    params(
        ("qna_id" = i64, Path),
        ("comments" = Option<i64>, Query, minimum = 0, maximum = 100, description = "How many comments to bring along; 0 if not given"),
    ),
    responses((status = 200, description = "The question", body = QnaView))
)]
#[get("/qna/{qna_id}")]
async fn read(req: HttpRequest, board: web::Data<Board>, by: Caller, id: Id) -> Answer {
    let mut query = Query::of(&req)?;
    let comments = query.size_or_none("comments")?;
    query.finish()?;
    let id = QnaId::new(id.0);
    let Some(size) = comments else {
        let qna = board.services.qnas.read(&by, id).await?;
        return single(&req, qna.version, &QnaView::new(&qna, &by));
    };
    let (qna, comments) = board.services.qnas.read_with_comments(&by, id, size).await?;
    let comments = Some(CommentPage {
        items: comments.items.iter().map(|comment| CommentView::new(comment, &by)).collect(),
        next: comments.next.as_deref(),
    });
    single(&req, qna.version, &QnaView { comments, ..QnaView::new(&qna, &by) })
}

/// Edit a question
///
/// Its author and moderators may.
#[utoipa::path(
    tag = "QnA",
    params(("qna_id" = i64, Path)),
    request_body(content((QnaPatchBody = "application/merge-patch+json"), (QnaPatchBody = "application/json"))),
    responses((status = 200, description = "As it is now", body = QnaView))
)]
#[patch("/qna/{qna_id}")]
async fn edit(
    req: HttpRequest,
    board: web::Data<Board>,
    by: Caller,
    id: Id,
    expected: IfMatch,
    fields: Fields,
) -> Answer {
    let edit = QnaPatchBody::parse(fields)?;
    let qna = board.services.qnas.edit(&by, QnaId::new(id.0), &edit, &expected.0).await?;
    single(&req, qna.version, &QnaView::new(&qna, &by))
}

/// Delete a question with its comments
///
/// Its author and moderators may.
#[utoipa::path(
    tag = "QnA",
    params(("qna_id" = i64, Path)),
    responses((status = 204, description = "Deleted"))
)]
#[delete("/qna/{qna_id}")]
async fn remove(board: web::Data<Board>, by: Caller, id: Id, expected: IfMatch) -> Answer {
    board.services.qnas.delete(&by, QnaId::new(id.0), &expected.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
