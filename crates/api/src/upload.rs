//! One file in a `multipart/form-data` body (RFC 7578).

use actix_multipart::{Field, Multipart};
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest};
use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, ready};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use mundap_domain::Error;
use mundap_domain::error::{Broken, Violations};
use mundap_domain::image::{Refusal, Upload};

use crate::input::{Caller, body_within, media_type, plain};
use crate::problem::Problem;

/// What the form's boundaries and the part's headers may take beside the file.
const OVERHEAD: usize = 16 * 1024;

/// How many parts that do not belong there are told of. Each takes its time and its place in the answer, and neither must grow
/// with the body.
const MOST_STRANGE: usize = 10;

/// The most characters that are told of such a part's name.
const NAME: usize = 100;

/// The part named `file`, from a caller who is signed in: a stranger's body is not even read. Its file name and its
/// declared type are not looked at.
#[derive(Debug)]
pub struct UploadedFile(pub Upload);

impl FromRequest for UploadedFile {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if let Err(error) = Caller::signed_in(req) {
            return ready(Err(error.into())).boxed_local();
        }
        read(req.clone(), payload.take()).map(|upload| upload.map(Self)).boxed_local()
    }
}

async fn read(req: HttpRequest, payload: Payload) -> Result<Upload, Problem> {
    const FORM: &str = "multipart/form-data";
    if media_type(&req) != FORM || !plain(&req) {
        return Err(Problem::unsupported_media_type(FORM));
    }
    let too_large = || Problem::from(Error::from(Refusal::TooLarge));
    let body = body_within(&req, payload, Upload::MAX_BYTES + OVERHEAD).await;
    let body = body.map_err(|problem| match problem.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => problem,
    })?;
    // All of it is there, so that whoever sends slowly is held to one time limit, in one place; and a form that is read
    // from memory is read at once or never.
    let parse = parse(&req, body).now_or_never();
    let file = parse.unwrap_or_else(|| Err(Problem::form_breaks_off()))?;
    Upload::parse(file).map_err(|_| too_large())
}

async fn parse(req: &HttpRequest, body: Bytes) -> Result<Vec<u8>, Problem> {
    let mut form = Multipart::new(req.headers(), stream::iter([Ok::<_, PayloadError>(body)]));
    let mut file = None;
    let (mut violations, mut strange) = (Violations::default(), 0);
    while let Some(field) = form.next().await {
        let mut field = field.map_err(|error| Problem::broken_form(&error))?;
        let name: String = field.name().unwrap_or_default().chars().take(NAME).collect();
        let bytes = content(&mut field).await?;
        if name != "file" {
            violations.add(name, Broken::UnknownField { nearest: Some("file") });
            strange += 1;
            if strange == MOST_STRANGE {
                return Err(violations.into());
            }
        } else if file.replace(bytes).is_some() {
            return Err(Problem::malformed_form("file"));
        }
    }
    if file.is_none() {
        violations.add("file", Broken::Required);
    }
    Ok(violations.finish(file)?)
}

async fn content(field: &mut Field) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| Problem::broken_form(&error))?);
    }
    Ok(bytes)
}
