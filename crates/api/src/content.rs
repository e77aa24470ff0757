//! Answers of an image's bytes: entity tag, ranges, and a body that is read as it is sent.

use actix_web::body::SizedStream;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT_RANGES, ByteRangeSpec, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_SECURITY_POLICY, ETAG,
    Header as _, IF_RANGE, IfRange, Range,
};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream;
use mundap_domain::Error;
use mundap_domain::image::Image;

use crate::app::Board;
use crate::problem::Problem;
use crate::reply::{Answer, named_by_if_none_match};

/// How much is read at once: a reader costs no more memory than this, however slow it is, and no open file.
const PART: u64 = 128 * 1024;

/// The strong entity tag of an image. As every tag here it begins with the version, which `If-Match` compares; an image has
/// only one.
#[must_use]
pub fn etag(image: &Image) -> String {
    let mut digest = image.digest.to_string();
    digest.truncate(32);
    format!("\"1-{digest}\"")
}

/// The image's bytes: 200, 206 for one range, 304 where `If-None-Match` names them.
///
/// They came from a stranger, and a browser that opens them by themselves must not take them for anything but a picture:
/// hence the policy that allows nothing, and a file name of ours.
///
/// # Errors
/// 416 for a range behind their end (RFC 9110, 14.2), 503 where they cannot be read.
pub async fn content(req: &HttpRequest, board: web::Data<Board>, image: Image) -> Answer {
    let etag = etag(&image);
    let name = format!("inline; filename=\"image-{}.{}\"", image.id, image.media_type.extension());
    let mut response = HttpResponse::Ok();
    response
        .insert_header((ETAG, etag.as_str()))
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .insert_header((ACCEPT_RANGES, "bytes"))
        .insert_header((CONTENT_DISPOSITION, name))
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"));
    if named_by_if_none_match(req, &etag) {
        return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
    }
    let length = u64::from(image.bytes);
    let (from, to) = match range(req, &etag) {
        None => (0, length),
        Some(range) => {
            let satisfiable = range.to_satisfiable_range(length);
            let (from, last) = satisfiable.ok_or_else(|| Problem::range_not_satisfiable(length))?;
            response.status(StatusCode::PARTIAL_CONTENT);
            response.insert_header((CONTENT_RANGE, format!("bytes {from}-{last}/{length}")));
            (from, last + 1)
        }
    };
    response.content_type(image.media_type.name());
    // The first part before the head is sent: where it fails, there is still another answer to give.
    let first = Parts { board, image, at: from, to }.next().await?;
    let body = stream::try_unfold(first, async |part| {
        let Some((bytes, rest)) = part else { return Ok(None) };
        match rest.next().await {
            Ok(next) => Ok(Some((bytes, next))),
            Err(error) => {
                tracing::error!(%error, "an image could not be read to its end");
                Err(actix_web::Error::from(Problem::from(error)))
            }
        }
    });
    Ok(response.body(SizedStream::new(to - from, body)))
}

/// The one range that is asked for. Several at once are not worth it, and what is no range is none (RFC 9110, 14.2): both
/// are answered with everything.
fn range(req: &HttpRequest, etag: &str) -> Option<ByteRangeSpec> {
    let Ok(Range::Bytes(ranges)) = Range::parse(req) else { return None };
    let [range] = <[ByteRangeSpec; 1]>::try_from(ranges).ok()?;
    if !req.headers().contains_key(IF_RANGE) {
        return Some(range);
    }
    // A date never matches: there is no Last-Modified here.
    let Ok(IfRange::EntityTag(tag)) = IfRange::parse(req) else { return None };
    (tag.to_string() == etag).then_some(range)
}

/// What is left to be sent.
struct Parts {
    board: web::Data<Board>,
    image: Image,
    at: u64,
    to: u64,
}

impl Parts {
    /// The next part and what is left behind it.
    async fn next(self) -> Result<Option<(Bytes, Self)>, Error> {
        let length = PART.min(self.to - self.at);
        if length == 0 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(Error::internal)?;
        let part = self.board.services.images.content(&self.image, self.at, length).await?;
        let at = self.at + part.len() as u64;
        Ok(Some((part.into(), Self { at, ..self })))
    }
}
