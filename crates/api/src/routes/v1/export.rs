//! `/api/v1/users/me/export`: everything that the board keeps of a person, as one JSON document, streamed.

use std::io::Write as _;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION};
use actix_web::{HttpRequest, HttpResponse, get, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use mundap_domain::export::{Piece, Place};
use mundap_domain::image::Image;
use mundap_domain::page::Slice;
use mundap_domain::sign_in::SignIn;
use serde::Serialize;
use utoipa::ToSchema;

use super::admin::AuditView;
use super::comment::CommentView;
use super::image::ImageView;
use super::qna::QnaView;
use super::user::AccountView;
use crate::app::Board;
use crate::edge::authenticate;
use crate::input::Caller;
use crate::problem::Problem;
use crate::reply::{Answer, Time};
use crate::routes::Routing;

pub fn routes(config: &mut impl Routing) {
    config.service(download);
}

/// Where the account is signed in.
#[derive(Serialize, ToSchema)]
#[schema(as = SignIn)]
#[expect(clippy::struct_field_names, reason = "they are the wire's names")]
pub struct SignInView {
    #[schema(inline)]
    created_at: Time,
    /// When its refresh token was last renewed.
    #[schema(inline)]
    renewed_at: Time,
    #[schema(inline)]
    expires_at: Time,
}

impl SignInView {
    fn new(sign_in: &SignIn) -> Self {
        Self {
            created_at: Time(sign_in.created_at),
            renewed_at: Time(sign_in.rotated_at),
            expires_at: Time(sign_in.expires_at),
        }
    }
}

/// An image with its bytes.
#[derive(Serialize, ToSchema)]
#[schema(as = ExportedImage)]
pub struct ExportedImageView {
    image: ImageView,
    /// The bytes, in base64 (RFC 4648, 4); null where they are lost.
    #[schema(required = true)]
    data: Option<String>,
}

impl ExportedImageView {
    fn new((image, content): (Image, Option<Vec<u8>>)) -> Self {
        Self { image: ImageView::new(&image), data: content.map(|content| STANDARD.encode(content)) }
    }
}

/// Everything that the board keeps of a person.
#[derive(Serialize, ToSchema)]
#[schema(as = Export)]
pub struct ExportView<'a> {
    account: AccountView<'a>,
    sign_ins: Vec<SignInView>,
    /// The questions, oldest first.
    qna: Vec<QnaView<'a>>,
    /// The comments, oldest first.
    comments: Vec<CommentView<'a>>,
    /// The images, oldest first.
    images: Vec<ExportedImageView>,
    /// What administrators did to the account, oldest first.
    audit: Vec<AuditView>,
}

/// Download everything that the board keeps of you
#[utoipa::path(
    tag = "Users",
    security(("oauth2" = []), ("bearer" = [])),
    responses((status = 200, description = "The export, streamed", body = ExportView, headers(("Content-Disposition" = String))))
)]
#[get("/users/me/export")]
async fn download(board: web::Data<Board>, by: Caller, req: HttpRequest) -> Answer {
    // Before the answer's head, so that a database that is away is a 503 and not half a document.
    let (user, sign_ins) = board.services.export.account(&by).await?;
    let name = format!("mundap-{}.json", user.id);
    let mut head = BytesMut::new().writer();
    write(&mut head, "{\"account\":", &AccountView::new(&user))?;
    write(&mut head, ",\"sign_ins\":", &sign_ins.iter().map(SignInView::new).collect::<Vec<_>>())?;
    let head = head.into_inner().freeze();
    let first = Some((Place::first(Slice::walk()), Some(head)));
    let parts = stream::try_unfold(first, move |state| {
        let (board, req) = (board.clone(), req.clone());
        async move {
            let Some((place, head)) = state else { return Ok::<_, actix_web::Error>(None) };
            if let Some(head) = head {
                return Ok(Some((head, Some((place, None)))));
            }
            // Whoever reads for long may be signed out by now.
            let by = authenticate(&req, &board).await.map_err(Problem::from)?.into();
            let (bytes, next) = next(&board, &by, place).await?;
            Ok(Some((bytes, next.map(|place| (place, None)))))
        }
    });
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")))
        .content_type("application/json")
        .streaming(parts))
}

/// What of the document is at a place, and the place behind it.
async fn next(board: &Board, by: &Caller, place: Place) -> Result<(Bytes, Option<Place>), Problem> {
    let (piece, next) = board.services.export.piece(by, place).await?;
    let mut out = BytesMut::new().writer();
    let first = place.starts_a_list();
    match piece {
        Piece::Qnas(qnas) => list(&mut out, "qna", first, qnas.iter().map(|qna| QnaView::new(qna, by)))?,
        Piece::Comments(comments) => {
            list(&mut out, "comments", first, comments.iter().map(|comment| CommentView::new(comment, by)))?;
        }
        Piece::Images(images) => list(&mut out, "images", first, images.into_iter().map(ExportedImageView::new))?,
        Piece::Audit(entries) => list(&mut out, "audit", first, entries.iter().map(AuditView::new))?,
    }
    if next.is_none() {
        out.get_mut().put_u8(b'}');
    }
    Ok((out.into_inner().freeze(), next))
}

/// A batch of an array: the first one opens it, an empty one closes it.
fn list<V: Serialize>(
    out: &mut bytes::buf::Writer<BytesMut>,
    name: &str,
    is_first: bool,
    batch: impl Iterator<Item = V>,
) -> Result<(), Problem> {
    if is_first {
        out.get_mut().put_slice(format!(",\"{name}\":[").as_bytes());
    }
    let mut batch = batch.peekable();
    if batch.peek().is_none() {
        out.get_mut().put_u8(b']');
    }
    for (index, view) in batch.enumerate() {
        write(out, if is_first && index == 0 { "" } else { "," }, &view)?;
    }
    Ok(())
}

fn write(out: &mut bytes::buf::Writer<BytesMut>, before: &str, value: &impl Serialize) -> Result<(), Problem> {
    out.get_mut().put_slice(before.as_bytes());
    out.write_all(&crate::reply::json(value)?).map_err(|error| mundap_domain::Error::internal(error).into())
}
