//! `mundap.v1.ImageService`

use std::sync::Arc;

use futures_util::stream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use mundap_domain::comment::CommentId;
use mundap_domain::error::{Broken, Violations};
use mundap_domain::idempotency::{IdempotencyKey, Outcome};
use mundap_domain::image::{Image, ImageId, Refusal, Upload};
use mundap_domain::{Error, Services};
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::call::{Call, created};
use crate::stream::Walk;
use crate::v1::download_image_response::Part as Sent;
use crate::v1::image_service_server::{ImageService, ImageServiceServer};
use crate::v1::upload_image_request::Part;
use crate::{Limits, input, v1, view};

/// How much of an image is read and sent at once.
pub(crate) const PART: usize = 64 << 10;

pub(crate) fn service(services: Arc<Services>, limits: Limits) -> ImageServiceServer<Images> {
    ImageServiceServer::new(Images { services, limits }).max_decoding_message_size(limits.message)
}

pub(crate) struct Images {
    services: Arc<Services>,
    limits: Limits,
}

/// What an upload turned out to be.
struct Arrived {
    comment: CommentId,
    key: Option<IdempotencyKey>,
    upload: Upload,
}

/// Why an upload was not read to its end.
enum Unread {
    Refused(Error),
    /// The call itself broke.
    Broken(Status),
}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Violations> for Unread {
    fn from(violations: Violations) -> Self {
        Self::Refused(violations.into())
    }
}

/// Reads the head, then the bytes: no more than an image may have.
async fn read(mut parts: Streaming<v1::UploadImageRequest>) -> Result<Arrived, Unread> {
    let first = parts.message().await.map_err(Unread::Broken)?.and_then(|message| message.part);
    let Some(Part::Head(head)) = first else { return Err(misplaced(Broken::Required).into()) };
    let comment = CommentId::new(head.comment_id);
    let key = input::key("head.idempotency_key", &head.idempotency_key)?;
    let mut bytes = Vec::new();
    while let Some(message) = parts.message().await.map_err(Unread::Broken)? {
        match message.part {
            Some(Part::Data(data)) if bytes.len() + data.len() > Upload::MAX_BYTES => {
                return Err(Error::from(Refusal::TooLarge).into());
            }
            Some(Part::Data(data)) => bytes.extend_from_slice(&data),
            Some(Part::Head(_)) => return Err(misplaced(Broken::UnknownField { nearest: None }).into()),
            // A part of a later version of the contract.
            None => {}
        }
    }
    Ok(Arrived { comment, key, upload: Upload::parse(bytes)? })
}

/// The head is not the first message, or not the only head.
fn misplaced(rule: Broken) -> Violations {
    let mut violations = Violations::default();
    violations.add("head", rule);
    violations
}

impl Images {
    async fn attach(&self, call: &Call, arrived: Arrived) -> Result<Outcome<Image>, Error> {
        self.services.images.attach(&call.by, arrived.comment, arrived.upload, arrived.key.as_ref()).await
    }

    async fn delete(&self, call: &Call, asked: v1::DeleteImageRequest) -> Result<(), Error> {
        let expected = input::etag("etag", &asked.etag)?;
        self.services.images.delete(&call.by, ImageId::new(asked.image_id), &expected).await
    }
}

/// The next part of an image's bytes from `at` on, and where it ends; `None` at the end.
async fn part(services: &Services, image: &Image, at: u64) -> Result<Option<(Vec<u8>, u64)>, Error> {
    let left = usize::try_from(u64::from(image.bytes).saturating_sub(at)).map_err(Error::internal)?;
    if left == 0 {
        return Ok(None);
    }
    let bytes = services.images.content(image, at, left.min(PART)).await?;
    let end = at + bytes.len() as u64;
    Ok(Some((bytes, end)))
}

fn sent(part: Sent) -> v1::DownloadImageResponse {
    v1::DownloadImageResponse { part: Some(part) }
}

#[tonic::async_trait]
impl ImageService for Images {
    type DownloadImageStream = Walk<v1::DownloadImageResponse>;

    async fn upload_image(
        &self,
        request: Request<Streaming<v1::UploadImageRequest>>,
    ) -> Result<Response<v1::Image>, Status> {
        let (call, parts) = Call::open(request);
        let arrived = match timeout(self.limits.upload_time, read(parts)).await {
            Ok(Ok(arrived)) => arrived,
            Ok(Err(Unread::Refused(error))) => return Err(call.refuse(error)),
            // That the caller is gone has no code of its own in what reads the messages.
            Ok(Err(Unread::Broken(status))) if status.code() == Code::Unknown => {
                return Err(Status::cancelled("the image broke off"));
            }
            Ok(Err(Unread::Broken(status))) => return Err(status),
            Err(_) => return Err(Status::new(Code::DeadlineExceeded, "the image took too long to arrive")),
        };
        let attached = async { self.attach(&call.clone().by_now().await?, arrived).await };
        created(&call, attached.await, view::image)
    }

    async fn download_image(
        &self,
        request: Request<v1::DownloadImageRequest>,
    ) -> Result<Response<Self::DownloadImageStream>, Status> {
        let (call, asked) = Call::open(request);
        let begin = async {
            let Ok(from) = u64::try_from(asked.offset_bytes) else {
                let mut violations = Violations::default();
                // No image has more; who asks for what lies behind it is told of its end.
                violations.add("offset_bytes", Broken::OutOfRange { min: 0, max: i64::from(u32::MAX) });
                return Err(violations.into());
            };
            let image = self.services.images.read(&call.by, ImageId::new(asked.image_id)).await?;
            // As long as there is another answer to give.
            let first = part(&self.services, &image, from).await?;
            Ok((image, first))
        };
        let (image, first) = begin.await.map_err(|error: Error| call.refuse(error))?;
        let head = sent(Sent::Image(view::image(&image)));
        let state = (self.services.clone(), call, image, first);
        let parts = stream::try_unfold(state, |(services, call, image, next)| async move {
            let Some((bytes, end)) = next else { return Ok(None) };
            let next = part(&services, &image, end).await.map_err(|error| call.refuse(error))?;
            Ok(Some((sent(Sent::Data(bytes.into())), (services, call, image, next))))
        });
        Ok(Response::new(stream::once(async { Ok(head) }).chain(parts.into_stream()).boxed()))
    }

    async fn delete_image(&self, request: Request<v1::DeleteImageRequest>) -> Result<Response<()>, Status> {
        let (call, asked) = Call::open(request);
        call.answer(self.delete(&call, asked).await)
    }
}
