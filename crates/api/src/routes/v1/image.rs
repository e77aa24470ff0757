//! `/api/v1/comments/{comment_id}/images` and `/api/v1/images`

use actix_web::http::header::{CACHE_CONTROL, ETAG};
use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use mundap_domain::comment::CommentId;
use mundap_domain::image::{Image, ImageId, Upload};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::Board;
use crate::content::{content, etag};
use crate::docs::schema::{FileBytes, MediaTypeName, Sha256Text};
use crate::input::{Caller, Id, IfMatch, OnceKey};
use crate::reply::{Answer, Time, created_at, json};
use crate::routes::Routing;
use crate::upload::UploadedFile;

pub fn routes(config: &mut impl Routing) {
    config.service(attach).service(read).service(remove);
}

/// A form with one file in it.
#[derive(ToSchema)]
pub struct ImageBody {
    /// A PNG, JPEG, WebP or GIF, told by its content: the file's name and the part's declared type do not matter.
    #[schema(value_type = FileBytes, inline)]
    pub file: Vec<u8>,
}

/// A picture on a comment. It never changes.
#[derive(Serialize, ToSchema)]
#[schema(as = Image)]
pub struct ImageView {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    image_id: i64,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    comment_id: i64,
    #[schema(value_type = MediaTypeName, inline)]
    media_type: &'static str,
    /// How many bytes it has as it is served.
    #[schema(minimum = 1)]
    bytes: u32,
    #[schema(minimum = 1, maximum = 8192)]
    width: u32,
    #[schema(minimum = 1, maximum = 8192)]
    height: u32,
    /// Of the bytes as they are served.
    #[schema(value_type = Sha256Text, inline)]
    sha256: String,
    /// Where the bytes are, relative to the board's address.
    #[schema(example = "/api/v1/images/7")]
    url: String,
    #[schema(inline)]
    created_at: Time,
}

impl ImageView {
    #[must_use]
    pub fn new(image: &Image) -> Self {
        const { assert!(Upload::MAX_SIDE == 8192) }
        Self {
            image_id: image.id.get(),
            comment_id: image.comment.get(),
            media_type: image.media_type.name(),
            bytes: image.bytes,
            width: image.width,
            height: image.height,
            sha256: image.digest.to_string(),
            url: path(image.id),
            created_at: Time(image.created_at),
        }
    }
}

fn path(id: ImageId) -> String {
    format!("/api/v1/images/{id}")
}

/// Attach an image to an own comment
///
/// At most 5 MiB, 25 megapixels and 8192 pixels a side, and at most 10 images a comment. The picture is written anew:
/// its metadata is gone, a position in it included, and it is turned the way its metadata said. A GIF keeps its animation
/// (100 megapixels in all frames); animated PNG and WebP are refused. A lossy WebP without transparency becomes a JPEG.
#[utoipa::path(
    tag = "Images",
    params(("comment_id" = i64, Path)),
    request_body(content = ImageBody, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "Attached; `ETag` is the one of its bytes", body = ImageView, headers(("ETag" = String))),
        (status = 409, description = "The comment has 10 images, the own quota is full, or the first request with this \
            `Idempotency-Key` is still running", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The image is too large", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not a form, or the file is no image of these kinds", body = crate::problem::ProblemBody,
            content_type = "application/problem+json"),
        (status = 422, description = "No file or more fields than that, too many pixels, or a broken image",
            body = crate::problem::ProblemBody, content_type = "application/problem+json"),
    )
)]
#[post("/comments/{comment_id}/images")]
async fn attach(
    req: HttpRequest,
    board: web::Data<Board>,
    by: Caller,
    comment: Id,
    once: OnceKey,
    file: UploadedFile,
) -> Answer {
    let comment = CommentId::new(comment.0);
    let outcome = board.services.images.attach(&by, comment, file.0, once.0.as_ref()).await?;
    let image = outcome.get();
    let mut response = created_at(&req, &outcome, &path(image.id));
    response.insert_header((ETAG, etag(image))).insert_header((CACHE_CONTROL, "private, no-cache"));
    Ok(response.content_type("application/json").body(json(&ImageView::new(image))?))
}

/// Get an image
///
/// Its bytes; `Range` is understood. They never change, and may be cached for good.
#[utoipa::path(
    tag = "Images",
    params(
        ("image_id" = i64, Path),
        ("If-None-Match" = Option<String>, Header, description = "Answer 304 where this is the `ETag`"),
        ("Range" = Option<String>, Header, description = "One range of bytes, such as `bytes=0-1023`"),
        ("If-Range" = Option<String>, Header, description = "Answer with everything unless this is the `ETag`"),
    ),
    responses(
        (status = 200, description = "The bytes", headers(("ETag" = String), ("Accept-Ranges" = String), ("Content-Disposition" = String)), content(
            (FileBytes = "image/png"), (FileBytes = "image/jpeg"), (FileBytes = "image/webp"), (FileBytes = "image/gif"),
        )),
        (status = 206, description = "The range that was asked for", headers(("ETag" = String), ("Accept-Ranges" = String), ("Content-Range" = String), ("Content-Disposition" = String)), content(
            (FileBytes = "image/png"), (FileBytes = "image/jpeg"), (FileBytes = "image/webp"), (FileBytes = "image/gif"),
        )),
        (status = 304, description = "What you have is current", headers(("ETag" = String), ("Accept-Ranges" = String), ("Content-Disposition" = String))),
        (status = 416, description = "The range lies behind the end", headers(("Content-Range" = String)), body = crate::problem::ProblemBody,
            content_type = "application/problem+json"),
    )
)]
#[get("/images/{image_id}")]
async fn read(req: HttpRequest, board: web::Data<Board>, by: Caller, id: Id) -> Answer {
    let image = board.services.images.read(&by, ImageId::new(id.0)).await?;
    content(&req, board, image).await
}

/// Delete an image
///
/// The comment's author and moderators may.
#[utoipa::path(
    tag = "Images",
    params(
        ("image_id" = i64, Path),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that was read"),
    ),
    responses((status = 204, description = "Deleted"))
)]
#[delete("/images/{image_id}")]
async fn remove(board: web::Data<Board>, by: Caller, id: Id, expected: IfMatch) -> Answer {
    board.services.images.delete(&by, ImageId::new(id.0), &expected.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
