//! Comments and images over gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mundap_domain::image::Upload;
use mundap_grpc::v1;
use mundap_grpc::v1::download_image_response::Part as Sent;
use mundap_grpc::v1::upload_image_request::Part;
use tonic::{Code, Response, Status};

use crate::board::{Board, new_email};
use crate::grpc::{Caller, reason, stream_of, upload};
use crate::images::a_png;

crate::tests![
    a_comment_is_written_edited_and_deleted,
    an_image_is_sent_and_comes_back_as_rest_serves_it,
    what_is_no_image_is_refused,
    an_image_that_does_not_end_is_refused_while_it_arrives,
];

/// A comment of the caller's on a new question.
fn a_comment(caller: &Caller) -> v1::Comment {
    let qna_id = caller.ask("With a picture", "").unwrap().qna_id;
    let comment = v1::Comment { content: "See below".to_owned(), ..v1::Comment::default() };
    let request = v1::CreateCommentRequest { qna_id, comment: Some(comment), idempotency_key: new_email() };
    caller.run(caller.comments().create_comment(request)).unwrap().into_inner()
}

fn a_comment_is_written_edited_and_deleted(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let caller = Caller::of(server).by(ann);
    let first = a_comment(&caller);
    let path = format!("/api/v1/comments/{}", first.comment_id);
    let rest = server.get(&*path).by(ann).send().is(200).json();
    assert_eq!(rest["content"], first.content);
    assert_eq!(rest["qna_id"], first.qna_id);
    assert_eq!(rest["version"], first.version);
    let edit = |content: &str, etag: &str| {
        let comment = v1::Comment { content: content.to_owned(), etag: etag.to_owned(), ..first.clone() };
        let request = v1::UpdateCommentRequest { comment: Some(comment), update_mask: None };
        caller.run(caller.comments().update_comment(request)).map(Response::into_inner)
    };
    let second = edit("Look below", &first.etag).unwrap();
    assert_eq!((&*second.content, second.version), ("Look below", 2));
    assert_eq!(reason(&edit("Too late", &first.etag).unwrap_err()), "version_mismatch");
    let list = v1::ListCommentsRequest { qna_id: first.qna_id, ..v1::ListCommentsRequest::default() };
    let listed = caller.run(caller.comments().list_comments(list)).unwrap().into_inner();
    assert_eq!(listed.comments, std::slice::from_ref(&second));
    let get = v1::GetCommentRequest { comment_id: first.comment_id };
    assert_eq!(caller.run(caller.comments().get_comment(get)).unwrap().into_inner(), second);
    let delete = v1::DeleteCommentRequest { comment_id: first.comment_id, etag: second.etag };
    caller.run(caller.comments().delete_comment(delete)).unwrap();
    server.get(&*path).send().is(404);
}

/// What an image is, and its bytes from `offset_bytes` on.
fn download(caller: &Caller, image_id: i64, offset_bytes: i64) -> Result<(v1::Image, Vec<u8>), Status> {
    caller.run(async {
        let request = v1::DownloadImageRequest { image_id, offset_bytes };
        let mut parts = caller.images().download_image(request).await?.into_inner();
        let Some(Sent::Image(image)) = parts.message().await?.and_then(|message| message.part) else {
            panic!("an image begins with what it is")
        };
        let mut bytes = Vec::new();
        while let Some(message) = parts.message().await? {
            let Some(Sent::Data(data)) = message.part else { panic!("then its bytes come: {message:?}") };
            assert!((1..=64 << 10).contains(&data.len()), "{}", data.len());
            bytes.extend_from_slice(&data);
        }
        Ok((image, bytes))
    })
}

/// A picture that does not get small.
fn a_large_png() -> Vec<u8> {
    let noise = |x: u32, y: u32| {
        let seed = x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca6b);
        let seed = (seed ^ (seed >> 15)).wrapping_mul(0x2c1b_3c6d);
        image::Rgb([seed, seed >> 8, seed >> 16].map(|bits| u8::try_from(bits & 0xff).unwrap()))
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(300, 300, noise).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn an_image_is_sent_and_comes_back_as_rest_serves_it(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let caller = Caller::of(server).by(ann);
    let comment = a_comment(&caller);
    let (sent, key) = (a_large_png(), new_email());
    let first = caller.attach(comment.comment_id, &sent, &key).unwrap();
    assert_eq!(first.metadata().get("idempotent-replayed"), None);
    let again = caller.attach(comment.comment_id, &sent, &key).unwrap();
    assert_eq!(again.metadata().get("idempotent-replayed").unwrap(), "true");
    let image = first.into_inner();
    assert_eq!(again.into_inner(), image);
    let other = caller.attach(comment.comment_id, &a_png(), &key).unwrap_err();
    assert_eq!(reason(&other), "idempotency_key_reused");

    let rest = server.get(&*image.url).send().is(200);
    assert_eq!(rest.header("content-type"), Some(&*image.media_type));
    let (read, bytes) = download(&caller, image.image_id, 0).unwrap();
    assert_eq!(read, image);
    assert!(bytes.len() > 128 << 10, "more than two parts: {}", bytes.len());
    assert!(bytes == rest.body, "the same bytes");
    assert_eq!(image.size_bytes, i64::try_from(bytes.len()).unwrap());
    assert_eq!((image.width, image.height), (300, 300));
    let (_, rest) = download(&caller, image.image_id, 100_000).unwrap();
    assert!(rest == bytes[100_000..], "the same bytes from there on");
    assert!(download(&caller, image.image_id, image.size_bytes).unwrap().1.is_empty());
    assert!(download(&caller, image.image_id, i64::MAX).unwrap().1.is_empty());
    let before = download(&caller, image.image_id, -1).unwrap_err();
    assert_eq!((before.code(), &*reason(&before)), (Code::InvalidArgument, "validation_failed"));

    let shown = v1::GetCommentRequest { comment_id: comment.comment_id };
    let shown = caller.run(caller.comments().get_comment(shown)).unwrap().into_inner();
    assert_eq!(shown.images, std::slice::from_ref(&image));
    assert_ne!(shown.etag, comment.etag);
    assert_eq!(shown.version, comment.version);
    let delete = |etag: &str| {
        let request = v1::DeleteImageRequest { image_id: image.image_id, etag: etag.to_owned() };
        caller.run(caller.images().delete_image(request))
    };
    assert_eq!(reason(&delete("\"2-other\"").unwrap_err()), "version_mismatch");
    delete(&image.etag).unwrap();
    assert_eq!(reason(&download(&caller, image.image_id, 0).unwrap_err()), "image_not_found");
}

fn what_is_no_image_is_refused(board: &Board) {
    let caller = Caller::of(board.server()).by(board.ann());
    let comment_id = a_comment(&caller).comment_id;
    let attach = |bytes: &[u8]| caller.attach(comment_id, bytes, "").unwrap_err();
    for (bytes, code) in [(&b"a cat"[..], "not_an_image"), (&a_png()[..50], "image_broken"), (b"", "not_an_image")] {
        let refused = attach(bytes);
        assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, code));
    }
    let large = attach(&vec![0; Upload::MAX_BYTES + 1]);
    assert_eq!((large.code(), &*reason(&large)), (Code::InvalidArgument, "image_too_large"));

    let head = || Part::Head(v1::UploadImageHead { comment_id, idempotency_key: String::new() });
    let data = || Part::Data(a_png().into());
    let send = |parts: Vec<Option<Part>>| {
        let parts: Vec<_> = parts.into_iter().map(upload).collect();
        caller.run(caller.images().upload_image(stream_of(parts)))
    };
    for misplaced in [vec![], vec![None], vec![Some(data())], vec![Some(head()), Some(data()), Some(head())]] {
        let refused = send(misplaced).unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "validation_failed"));
    }
    // A part of a later contract is passed over.
    send(vec![Some(head()), None, Some(data())]).unwrap();
}

/// A caller that sends on and on, as far as anybody would let it.
fn an_image_that_does_not_end_is_refused_while_it_arrives(board: &Board) {
    const PART: usize = 64 << 10;
    let caller = Caller::of(board.server()).by(board.ann());
    let head = v1::UploadImageHead { comment_id: a_comment(&caller).comment_id, idempotency_key: String::new() };
    let taken = Arc::new(AtomicUsize::new(0));
    let taking = taken.clone();
    let data = (0..8 * Upload::MAX_BYTES / PART).map(move |_| {
        taking.fetch_add(PART, Ordering::Relaxed);
        Part::Data(vec![0; PART].into())
    });
    let parts = std::iter::once(Part::Head(head)).chain(data).map(|part| upload(Some(part)));
    let refused = caller.run(caller.images().upload_image(stream_of(parts))).unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "image_too_large"));
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken < 2 * Upload::MAX_BYTES, "{taken} bytes were taken");
}
