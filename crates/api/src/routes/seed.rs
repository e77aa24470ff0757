//! The five endpoints of the first program, as a thin second face over the same use cases: its clients keep working,
//! field by field, down to the shape of its errors (FastAPI's and pydantic's).

mod refusal;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse, delete, get, post, put, web};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, stream};
use mundap_domain::error::Violations;
use mundap_domain::page::Slice;
use mundap_domain::qna::{Qna, QnaDraft, QnaEdit, QnaId};
use mundap_domain::rate::{Policy, Subject};
use mundap_domain::user::Email;
use mundap_domain::version::Expected;
use mundap_domain::{Actor, Error};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::SecurityRequirement;

pub use self::refusal::{Detail, Refusal, ValidationError, ValidationErrors, busy};
use self::refusal::{from_problem, invalid};
use crate::app::Board;
use crate::docs::document::{TOO_MANY_REQUESTS, add_idempotency_key, add_response};
use crate::docs::schema::{ContentText, EmailText, NullableContentText, TitleText};
use crate::edge::authenticate;
use crate::input::{Caller, Fields, OnceKey, body, is_json, parse_lax_id};
use crate::reply::Time;
use crate::routes::Routing;
use crate::settings::Identity;

/// What its operations are, in the OpenAPI document.
pub const TAG: (&str, &str) = ("First program", "The five endpoints of the first program, for its clients");

pub fn routes(config: &mut impl Routing) {
    config.service(upload).service(load_all_qna).service(load_qna).service(update_qna).service(delete_qna);
}

/// Whether this face answers the path.
#[must_use]
pub fn is_path(path: &str) -> bool {
    matches!(path, "/upload" | "/load_all_qna" | "/update_qna" | "/delete_qna") || path.starts_with("/load_qna/")
}

/// A question, as the first program took it.
#[derive(ToSchema)]
pub struct UploadBody {
    #[schema(value_type = EmailText, inline)]
    pub email: String,
    #[schema(value_type = TitleText, inline)]
    pub title: String,
    #[schema(value_type = ContentText, inline)]
    pub content: String,
}

/// A change, as the first program took it; without `content` the content stays as it is.
#[derive(ToSchema)]
pub struct UpdateBody {
    pub qna_id: i64,
    #[schema(value_type = EmailText, inline)]
    pub email: String,
    #[schema(value_type = TitleText, inline)]
    pub title: String,
    #[schema(value_type = NullableContentText, inline, required = false)]
    pub content: Option<String>,
}

/// A question, as the first program gave it.
#[derive(Serialize, ToSchema)]
#[schema(as = QnaRow)]
pub struct RowView<'a> {
    qna_id: i64,
    /// Empty where the caller may not see it.
    email: &'a str,
    title: &'a str,
    content: &'a str,
    #[schema(inline)]
    created_at: Time,
}

impl<'a> RowView<'a> {
    fn new(qna: &'a Qna, board: &Board, by: &Actor) -> Self {
        let shown = match board.identity {
            Identity::TrustedEmail => true,
            Identity::Token => by.may_see_email_of(&qna.author),
        };
        Self {
            qna_id: qna.id.get(),
            email: qna.author.email.as_ref().filter(|_| shown).map_or("", Email::as_str),
            title: qna.title.as_str(),
            content: qna.content.as_str(),
            created_at: Time(qna.created_at),
        }
    }
}

/// A body of this face: its fields, and the object as it was sent for the errors' `input`.
struct SeedFields {
    fields: Fields,
    sent: Value,
}

impl FromRequest for SeedFields {
    type Error = Refusal;
    type Future = LocalBoxFuture<'static, Result<Self, Refusal>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (req, payload) = (req.clone(), payload.take());
        async move {
            let board = req.app_data::<web::Data<Board>>();
            let by_token = board.is_none_or(|board| board.identity == Identity::Token);
            if by_token {
                Caller::signed_in(&req)?;
            }
            read(&req, payload).await
        }
        .boxed_local()
    }
}

async fn read(req: &HttpRequest, payload: Payload) -> Result<SeedFields, Refusal> {
    let bytes = body(req, payload).await.map_err(|problem| from_problem(&problem))?;
    let in_body = |r#type, msg: &str, input| {
        Refusal::of(&[ValidationError { r#type, loc: vec!["body".into()], msg: msg.to_owned(), input, ctx: None }])
    };
    if bytes.is_empty() {
        return Err(in_body("missing", "Field required", Value::Null));
    }
    let no_object = "Input should be a valid dictionary or object to extract fields from";
    if !is_json(req) {
        // What the first program says too: without the media type the body is no object to it.
        return Err(in_body("model_attributes_type", no_object, String::from_utf8_lossy(&bytes).into()));
    }
    match Fields::parse(&bytes) {
        Ok(fields) => Ok(SeedFields { sent: fields.raw(), fields }),
        Err(error) if error.is_data() && !bytes.trim_ascii_start().starts_with(b"{") => {
            Err(in_body("model_attributes_type", no_object, serde_json::from_slice(&bytes).unwrap_or_default()))
        }
        Err(error) => Err(Refusal::of(&[ValidationError {
            r#type: "json_invalid",
            loc: vec!["body".into(), error.column().into()],
            msg: "JSON decode error".to_owned(),
            input: json!({}),
            ctx: Some(json!({"error": error.to_string()})),
        }])),
    }
}

/// Who writes: in `trusted-email` mode whoever the body names, else the bearer of the token, whose e-mail the body must
/// name too.
async fn writer(board: &Board, by: Caller, email: &Email, may_be_new: bool) -> Result<Caller, Refusal> {
    let actor = match board.identity {
        Identity::Token => match by.account() {
            Some(account) if account.email.key() == email.key() => return Ok(by),
            Some(_) => return Err(Refusal::not_writer()),
            None => return Err(Error::Unauthenticated.into()),
        },
        Identity::TrustedEmail if may_be_new => board.services.accounts.trust(email).await?,
        // Whoever is new here has written nothing that could be changed.
        Identity::TrustedEmail => board.services.accounts.recognise(email).await?.ok_or_else(Refusal::not_writer)?,
    };
    // A token's requests were counted at the edge, which knew whose they are.
    if let Some(account) = actor.account() {
        board.services.rates.admit(Policy::Writes, &Subject::Account(account.id)).await?;
    }
    Ok(actor.into())
}

/// Post a question
#[utoipa::path(
    tag = "First program",
    request_body = UploadBody,
    responses((status = 200, description = "The row", body = RowView))
)]
#[post("/upload")]
async fn upload(
    board: web::Data<Board>,
    by: Caller,
    req: HttpRequest,
    body: SeedFields,
) -> Result<HttpResponse, Refusal> {
    let SeedFields { mut fields, sent } = body;
    let (email, title, content) = (fields.text("email"), fields.text("title"), fields.text("content"));
    let draft = with_email(email.as_deref(), QnaDraft::parse(title.as_deref(), content.as_deref()));
    let (email, draft) = fields.finish(draft).map_err(|violations| invalid(&violations, &sent))?;
    let once = OnceKey::of(&req).map_err(|problem| from_problem(&problem))?;
    let by = writer(&board, by, &email, true).await?;
    let qna = board.services.qnas.ask(&by, &draft, once.0.as_ref()).await?;
    let mut response = HttpResponse::Ok();
    if qna.is_replayed() {
        response.insert_header(("idempotent-replayed", "true"));
    }
    Ok(response.json(RowView::new(qna.get(), &board, &by)))
}

/// Every question, oldest first
#[utoipa::path(
    tag = "First program",
    responses((status = 200, description = "All rows, streamed", body = Vec<RowView>))
)]
#[get("/load_all_qna")]
async fn load_all_qna(board: web::Data<Board>, by: Caller, req: HttpRequest) -> Result<HttpResponse, Refusal> {
    // The first piece before the answer's head, so that a database that is away is a 503 and not half an array.
    let first = Next::Read(board.services.qnas.piece(&by, Slice::walk()).await?);
    let rows = stream::try_unfold(Some((first, b"[".as_slice())), move |state| {
        let (board, by, req) = (board.clone(), by.clone(), req.clone());
        async move {
            let Some((next, separator)) = state else { return Ok::<_, Refusal>(None) };
            let (read, by) = match next {
                Next::Read(read) => (read, by),
                Next::Piece(piece) => {
                    // Whoever reads for long may not be by now who they were.
                    let by = Caller::from(authenticate(&req, &board).await?);
                    (board.services.qnas.piece(&by, piece).await?, by)
                }
            };
            let Some((qnas, piece)) = read else {
                let end: &[u8] = if separator == b"[" { b"[]" } else { b"]" };
                return Ok(Some((Bytes::from_static(end), None)));
            };
            let rows = rows(&qnas, separator, &board, &by)?;
            Ok(Some((rows, Some((Next::Piece(piece), b",".as_slice())))))
        }
    });
    Ok(HttpResponse::Ok().content_type("application/json").streaming(rows))
}

/// What a stream of rows is to write.
enum Next {
    Read(Option<(Vec<Qna>, Slice)>),
    Piece(Slice),
}

/// A piece of the array, behind `separator`.
fn rows(qnas: &[Qna], mut separator: &[u8], board: &Board, by: &Actor) -> Result<Bytes, Refusal> {
    let mut bytes = BytesMut::with_capacity(qnas.len() * 512).writer();
    for qna in qnas {
        bytes.get_mut().put_slice(separator);
        separator = b",";
        let row = RowView::new(qna, board, by);
        sonic_rs::to_writer(&mut bytes, &row).map_err(|error| Refusal::from(Error::internal(error)))?;
    }
    Ok(bytes.into_inner().freeze())
}

/// One question
#[utoipa::path(
    tag = "First program",
    params(("qna_id" = i64, Path)),
    responses((status = 200, description = "The row", body = RowView))
)]
#[get("/load_qna/{qna_id}")]
async fn load_qna(board: web::Data<Board>, by: Caller, id: web::Path<String>) -> Result<HttpResponse, Refusal> {
    let Some(id) = parse_lax_id(&id) else {
        return Err(Refusal::of(&[ValidationError {
            r#type: "int_parsing",
            loc: vec!["path".into(), "qna_id".into()],
            msg: "Input should be a valid integer, unable to parse string as an integer".to_owned(),
            input: id.into_inner().into(),
            ctx: None,
        }]));
    };
    let qna = board.services.qnas.read(&by, QnaId::new(id)).await?;
    Ok(HttpResponse::Ok().json(RowView::new(&qna, &board, &by)))
}

/// Change a question
#[utoipa::path(
    tag = "First program",
    request_body = UpdateBody,
    responses((status = 200, description = "The row", body = RowView))
)]
#[put("/update_qna")]
async fn update_qna(board: web::Data<Board>, by: Caller, body: SeedFields) -> Result<HttpResponse, Refusal> {
    let (id, email, edit) = update(body)?;
    let by = writer(&board, by, &email, false).await?;
    let qna = board.services.qnas.edit(&by, id, &edit, &Expected::Any).await.map_err(missing_is_not_yours)?;
    Ok(HttpResponse::Ok().json(RowView::new(&qna, &board, &by)))
}

/// Delete a question
#[utoipa::path(
    tag = "First program",
    request_body = UpdateBody,
    responses((status = 200, description = "`delete_success`", body = Detail))
)]
#[delete("/delete_qna")]
async fn delete_qna(board: web::Data<Board>, by: Caller, body: SeedFields) -> Result<HttpResponse, Refusal> {
    let (id, email, _) = update(body)?;
    let by = writer(&board, by, &email, false).await?;
    board.services.qnas.delete(&by, id, &Expected::Any).await.map_err(missing_is_not_yours)?;
    Ok(HttpResponse::Ok().json(Detail { detail: "delete_success".to_owned() }))
}

fn update(body: SeedFields) -> Result<(QnaId, Email, QnaEdit), Refusal> {
    let SeedFields { mut fields, sent } = body;
    let (id, email, title) = (fields.lax_integer("qna_id"), fields.text("email"), fields.text("title"));
    let content = fields.nullable_text("content");
    // Here a title is required, unlike in a merge patch.
    let mut violations = Violations::default();
    violations.check("title", title.as_deref(), |_| Ok(()));
    let edit = QnaEdit::parse(title.as_deref(), content.as_deref()).map_err(|broken| violations.merge(broken)).ok();
    let edit = violations.finish(edit);
    let parsed = fields.finish(with_email(email.as_deref(), edit));
    let (email, edit) = parsed.map_err(|violations| invalid(&violations, &sent))?;
    Ok((QnaId::new(id.unwrap_or_default()), email, edit))
}

/// What `draft` says, and the e-mail beside it.
fn with_email<T>(email: Option<&str>, draft: Result<T, Violations>) -> Result<(Email, T), Violations> {
    let mut violations = Violations::default();
    let email = violations.check("email", email, Email::parse);
    let draft = draft.map_err(|broken| violations.merge(broken)).ok();
    violations.finish((|| Some((email?, draft?)))())
}

/// The first program does not tell a row that is missing from one that is somebody else's.
fn missing_is_not_yours(error: Error) -> Refusal {
    match error {
        Error::NotFound(_) => Refusal::not_writer(),
        other => other.into(),
    }
}

/// What the document says of every route of this face.
pub fn complete(path: &str, method: &str, operation: &mut Operation) {
    let mut add =
        |status, description, schema| add_response(operation, status, description, schema, "application/json");
    add(500, "A fault of ours", "Detail");
    add(503, "Too busy, too slow, or the database is away; see `Retry-After`", "Detail");
    add(401, "No token, or not a valid one", "Detail");
    add(429, TOO_MANY_REQUESTS, "Detail");
    if method == "get" {
        if operation.parameters.is_some() {
            add_response(operation, 404, "QnA not found", "Detail", "application/json");
            add_response(operation, 422, "Not a number", "HTTPValidationError", "application/json");
        }
    } else {
        add_response(operation, 400, "you are not writer", "Detail", "application/json");
        add_response(operation, 403, "The account is suspended", "Detail", "application/json");
        add_response(operation, 408, "The body took too long to arrive", "Detail", "application/json");
        add_response(operation, 413, "The body is too large", "Detail", "application/json");
        add_response(operation, 422, "A field breaks a rule", "HTTPValidationError", "application/json");
    }
    if path == "/upload" {
        add_response(
            operation,
            409,
            "The first request with this Idempotency-Key is still running",
            "Detail",
            "application/json",
        );
        add_idempotency_key(operation);
    }
    let named = |name: &str| SecurityRequirement::new::<_, _, String>(name, []);
    let mut security = vec![named("oauth2"), named("bearer")];
    if method == "get" {
        security.insert(0, SecurityRequirement::default());
    }
    operation.security = Some(security);
}
