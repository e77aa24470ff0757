//! Images on comments: attaching, serving, deleting, and what becomes of their bytes.

use std::io::{Cursor, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use image::{ImageFormat, Rgb, RgbImage};
use mundap_domain::image::{Digest, Image, Upload};
use serde_json::{Value, json};

use crate::board::{Board, User};
use crate::client::Reply;
use crate::image_folder::blobs;
use crate::server::{Options, Server};

crate::tests![
    an_image_is_attached_and_served,
    a_comment_shows_its_images_wherever_it_is_shown,
    a_comment_s_tag_changes_with_its_images,
    an_image_is_cached_and_its_tag_is_strong,
    a_range_is_answered_with_a_part,
    names_and_types_of_the_sender_do_not_matter,
    what_is_no_image_is_refused,
    what_is_no_form_with_one_file_is_refused,
    a_stranger_s_body_is_not_read,
    who_sends_slowly_is_cut_off,
    an_upload_is_done_once,
    a_comment_has_at_most_ten_images,
    an_image_goes_with_its_comment_and_its_question,
    equal_images_are_stored_once,
    the_quota_holds_for_ten_uploads_at_once,
    a_sweep_takes_away_what_no_image_shows,
];

/// A picture that no other test has.
pub(crate) fn a_png() -> Vec<u8> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, red, green, blue] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    png(&RgbImage::from_pixel(6, 4, Rgb([red, green, blue])))
}

fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A picture of so many kilobytes that nothing makes smaller.
fn noise(kilobytes: u32) -> Vec<u8> {
    let mut seed = 1 + u32::from_be_bytes(a_png()[41..45].try_into().unwrap());
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    };
    png(&RgbImage::from_fn(32 * kilobytes / 3, 32, |_, _| Rgb([next(), next(), next()])))
}

/// A comment of this user's own; its path.
fn a_comment(server: &Server, by: &User) -> String {
    server.comment_at(by, &server.ask_at(by, "About pictures"), "See below")
}

pub(crate) fn attach(server: &Server, by: &User, comment: &str, bytes: &[u8]) -> Reply {
    server.post(format!("{comment}/images")).by(by).file(bytes).send()
}

fn an_image_is_attached_and_served(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let comment = a_comment(server, ann);
    let png = a_png();
    let reply = attach(server, ann, &comment, &png).is(201);
    let image = reply.json();
    let path = format!("/api/v1/images/{}", image["image_id"]);
    assert_eq!(reply.header("location"), Some(&*format!("{}{path}", server.base())));
    assert_eq!(image["url"], path);
    assert_eq!(format!("/api/v1/comments/{}", image["comment_id"]), comment);
    assert_eq!((&image["media_type"], &image["width"], &image["height"]), (&json!("image/png"), &json!(6), &json!(4)));

    let got = server.get(&path).send().is(200);
    assert_eq!(got.etag(), reply.etag());
    assert_eq!(got.body.len(), usize::try_from(image["bytes"].as_u64().unwrap()).unwrap());
    assert_eq!(image["sha256"], Digest::of(&got.body).to_string());
    let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap();
    assert_eq!(pixels(&got.body), pixels(&png));
    for (name, value) in [
        ("content-type", "image/png"),
        ("content-length", &*got.body.len().to_string()),
        ("cache-control", "public, max-age=31536000, immutable"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("content-disposition", &*format!("inline; filename=\"image-{}.png\"", image["image_id"])),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(got.header(name), Some(value), "{name}");
    }
    let head = server.call("HEAD", &path).send().is(200);
    assert_eq!(head.etag(), got.etag());
    assert_eq!(head.header("content-length"), got.header("content-length"));
    server.get("/api/v1/images/9007199254740991").send().problem(404, "image_not_found");
    server.get("/api/v1/images/seven").send().problem(400, "invalid_path");
}

fn a_comment_shows_its_images_wherever_it_is_shown(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let qna = server.ask_at(ann, "About many pictures");
    let without = server.comment_at(ann, &qna, "None");
    let with = server.comment_at(ann, &qna, "Two");
    let images = [1, 2].map(|_| attach(server, ann, &with, &a_png()).is(201).json());
    let shown = server.get(&with).send().is(200).json();
    assert_eq!(shown["images"], json!(images));
    assert_eq!(shown["version"], 1, "an image is no edit");
    assert_eq!(server.get(&without).send().is(200).json()["images"], json!([]));
    let list = server.get(format!("{qna}/comments")).send().is(200).json();
    let embedded = server.get(format!("{qna}?comments=10")).send().is(200).json();
    for comments in [&list["items"], &embedded["comments"]["items"]] {
        assert_eq!(comments[0]["images"], json!([]));
        assert_eq!(comments[1], shown);
    }
    let edited = server.patch(&with).by(ann).json(json!({"content": "Still two"})).send().is(200).json();
    assert_eq!(edited["images"], json!(images));
}

fn a_comment_s_tag_changes_with_its_images(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let comment = a_comment(server, ann);
    let bare = server.get(&comment).send().is(200).etag();
    let image = server.image_at(ann, &comment, &a_png());
    let one = server.get(&comment).header("if-none-match", &bare).send().is(200).etag();
    assert_ne!(bare, one);
    server.get(&comment).header("if-none-match", &one).send().is(304);
    // An image is no edit: whoever read the comment before may still change it.
    server.patch(&comment).by(ann).header("if-match", &bare).json(json!({"content": "New"})).send().is(200);
    let edited = server.get(&comment).send().is(200).etag();
    server.delete(&image).by(ann).send().is(204);
    let none = server.get(&comment).header("if-none-match", &edited).send().is(200);
    assert_eq!(none.json()["images"], json!([]));
    server.get(&image).send().problem(404, "image_not_found");
    server.delete(&image).by(ann).send().problem(404, "image_not_found");
}

fn an_image_is_cached_and_its_tag_is_strong(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let comment = a_comment(server, ann);
    let image = server.image_at(ann, &comment, &a_png());
    let tag = server.get(&image).send().is(200).etag();
    assert!(tag.starts_with("\"1-"), "{tag}");
    for named in [&*tag, "*", &format!("\"another\", {tag}"), &format!("W/{tag}")] {
        let reply = server.get(&image).header("if-none-match", named).send().is(304);
        assert_eq!(reply.etag(), tag);
        assert!(reply.header("cache-control").unwrap().contains("immutable"));
    }
    server.get(&image).header("if-none-match", "\"another\"").send().is(200);
    // It is in its first version for good.
    server.delete(&image).by(ann).header("if-match", "\"2-of-another-time\"").send().problem(412, "version_mismatch");
    server.delete(&image).by(ann).header("if-match", "no tag").send().problem(400, "invalid_header");
    server.delete(&image).by(ann).header("if-match", &tag).send().is(204);
}

fn a_range_is_answered_with_a_part(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let comment = a_comment(server, ann);
    // More than is read at once.
    let image = server.image_at(ann, &comment, &noise(300));
    let whole = server.get(&image).send().is(200);
    let (tag, length) = (whole.etag(), whole.body.len());
    assert!(length > 300_000, "{length}");
    let last = length - 1;
    for (range, from, to) in [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=100000-200000", 100_000, 200_000),
        ("bytes=131072-", 131_072, last),
        ("bytes=-5", last - 4, last),
        ("bytes=5-99999999", 5, last),
        ("bytes=-99999999", 0, last),
    ] {
        let part = server.get(&image).header("range", range).send().is(206);
        assert_eq!(part.header("content-range"), Some(&*format!("bytes {from}-{to}/{length}")), "{range}");
        assert_eq!(part.header("content-type"), Some("image/png"), "{range}");
        assert_eq!(part.etag(), tag, "{range}");
        assert!(part.body == whole.body[from..=to], "{range}");
    }
    for range in [format!("bytes={length}-"), "bytes=99999999-".to_owned(), "bytes=-0".to_owned()] {
        let refused = server.get(&image).header("range", &range).send();
        assert_eq!(refused.header("content-range"), Some(&*format!("bytes */{length}")), "{range}");
        refused.problem(416, "range_not_satisfiable");
    }
    // What is no single range of bytes is as good as none.
    for range in ["bytes=0-1,5-6", "bytes=9-1", "lines=0-1", "bytes=", "nonsense"] {
        assert!(server.get(&image).header("range", range).send().is(200).body == whole.body, "{range}");
    }
    let if_range =
        |tag: &str, status| server.get(&image).header("range", "bytes=0-9").header("if-range", tag).send().is(status);
    if_range(&tag, 206);
    if_range("\"another\"", 200);
    if_range(&format!("W/{tag}"), 200);
    if_range("Tue, 24 Nov 2026 10:00:00 GMT", 200);
    server.get(&image).header("range", "bytes=0-9").header("if-none-match", &tag).send().is(304);
}

fn names_and_types_of_the_sender_do_not_matter(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let before = blobs(&server.data_dir().join("images")).len();
    let comment = a_comment(server, ann);
    for (file, content_type) in [
        ("../../../../etc/passwd", "image/png"),
        ("..\\..\\mundap.db", "application/octet-stream"),
        ("picture.html", "text/html"),
        ("picture.svg", "image/svg+xml"),
        ("", "image/jpeg"),
        ("%00.png\t", "x/y; charset=\\\"utf-8\\\""),
    ] {
        let parts: [(&str, &str, &str, &[u8]); 1] = [("file", file, content_type, &a_png())];
        let image = server.post(format!("{comment}/images")).by(ann).parts(&parts).send().is(201).json();
        assert_eq!(image["media_type"], "image/png", "{file}");
        let got = server.get(image["url"].as_str().unwrap()).send().is(200);
        assert_eq!(got.header("content-type"), Some("image/png"), "{file}");
        let name = format!("inline; filename=\"image-{}.png\"", image["image_id"]);
        assert_eq!(got.header("content-disposition"), Some(&*name), "{file}");
        let stored = blob(server, image["sha256"].as_str().unwrap());
        assert!(stored.is_file(), "{file}");
    }
    assert!(blobs(&server.data_dir().join("images")).len() >= before + 6);
}

fn what_is_no_image_is_refused(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let comment = a_comment(server, ann);
    let png = a_png();
    let mut huge = png.clone();
    // The sides in its header; the checksum behind them is checked before they are believed.
    huge[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    let garbled = huge.clone();
    huge[29..33].copy_from_slice(&crc(&garbled[12..29]).to_be_bytes());
    for (what, bytes, status, code) in [
        ("nothing", &b""[..], 415, "not_an_image"),
        ("text", b"a picture of a cat", 415, "not_an_image"),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 415, "not_an_image"),
        ("half a picture", &png[..png.len() / 2], 422, "image_broken"),
        ("a garbled header", &garbled, 422, "image_broken"),
        ("50,000 pixels a side", &huge, 422, "image_too_many_pixels"),
        ("one byte too many", &vec![0; Upload::MAX_BYTES + 1], 413, "image_too_large"),
        ("a little more than a form may hold", &vec![0; Upload::MAX_BYTES + 100_000], 413, "image_too_large"),
    ] {
        let refused = attach(server, ann, &comment, bytes);
        assert_eq!((refused.status, &refused.json()["code"]), (status, &json!(code)), "{what}: {refused}");
    }
    assert_eq!(server.get(&comment).send().json()["images"], json!([]));
    // The limit of other bodies is another one.
    let long = json!({"content": "x".repeat(1024 * 1024)});
    server.patch(&comment).by(ann).json(long).send().problem(413, "body_too_large");
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn what_is_no_form_with_one_file_is_refused(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let comment = a_comment(server, ann);
    let png = a_png();
    let post = || server.post(format!("{comment}/images")).by(ann);
    let part = |name: &'static str| (name, "a.png", "image/png", &*png);
    post().parts(&[]).send().violates(&["/file required"]);
    post().parts(&[part("picture")]).send().violates(&["/file required", "/picture unknown_field"]);
    post().parts(&[part("file"), part("more")]).send().violates(&["/more unknown_field"]);
    post().parts(&[part("file"), part("file")]).send().problem(400, "malformed_form");
    // The answer does not grow with the body.
    let many = "--b\r\nContent-Disposition: form-data; name=\"strange\"\r\n\r\n\r\n".repeat(50_000);
    let reply = post().body("multipart/form-data; boundary=b", many + "--b--\r\n").send();
    assert!(reply.body.len() < 5_000, "{} bytes", reply.body.len());
    assert_eq!(reply.problem(422, "validation_failed")["errors"].as_array().unwrap().len(), 10);
    let name = "n".repeat(50_000);
    let reply = post().parts(&[(&name, "a.png", "image/png", &png)]).send();
    assert!(reply.body.len() < 5_000, "{} bytes", reply.body.len());
    post().json(json!({"file": "a.png"})).send().problem(415, "unsupported_media_type");
    post().body("image/png", png.clone()).send().problem(415, "unsupported_media_type");
    post().body("multipart/mixed; boundary=b", "--b--\r\n").send().problem(415, "unsupported_media_type");
    post().file(&png).header("content-encoding", "gzip").send().problem(415, "unsupported_media_type");
    let form = |body: &[u8]| post().body("multipart/form-data; boundary=b", body).send();
    let head = "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n";
    for (what, body) in [
        ("nothing", String::new()),
        ("no boundary", "hello".to_owned()),
        ("another boundary", "--c\r\n\r\n--c--\r\n".to_owned()),
        ("no end", format!("{head}\r\nhalf a pic")),
        ("no end of its headers", head.to_owned()),
        ("no name", "--b\r\n\r\nx\r\n--b--\r\n".to_owned()),
        ("headers without end", format!("{head}X: {}", "x".repeat(100_000))),
        ("more headers than anybody sends", format!("{head}{}\r\nx\r\n--b--\r\n", "X: y\r\n".repeat(1000))),
        (
            "a form in the form",
            "--b\r\nContent-Disposition: form-data; name=\"file\"\r\nContent-Type: multipart/mixed; \
            boundary=c\r\n\r\n--c--\r\n--b--\r\n"
                .to_owned(),
        ),
    ] {
        let refused = form(body.as_bytes());
        assert!(matches!(refused.status, 400 | 422 | 415), "{what}: {refused}");
    }
    post().body("multipart/form-data", "--b--\r\n").send().problem(400, "malformed_form");
    assert_eq!(server.get(&comment).send().json()["images"], json!([]));
}

/// Announces an image, sends nothing of it, and says what comes back.
fn announce(server: &Server, comment: &str, token: Option<&str>) -> String {
    let mut stream = TcpStream::connect(&server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!(
        "POST {comment}/images HTTP/1.1\r\nHost: board\r\n{authorization}Content-Type: multipart/form-data; boundary=b\r\n\
         Content-Length: 4000000\r\nX-Request-Id: announced-{}\r\nConnection: close\r\n\r\n",
        token.map_or("by-nobody", |_| "by-somebody")
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The server may well close with a part of the body unread.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn a_stranger_s_body_is_not_read(board: &Board) {
    let comment = a_comment(board.server(), board.ann());
    let answer = announce(board.server(), &comment, None);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

fn who_sends_slowly_is_cut_off(board: &Board) {
    let server = board.own(&Options::env("MUNDAP_HTTP_BODY_TIMEOUT", "200ms"));
    let ann = server.new_user();
    let comment = a_comment(&server, &ann);
    let answer = announce(&server, &comment, Some(&ann.token));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

fn an_upload_is_done_once(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let comment = a_comment(server, ann);
    let key = format!("image-{}", comment.replace('/', "-"));
    let png = a_png();
    let post = |bytes: &[u8]| {
        server.post(format!("{comment}/images")).by(ann).header("idempotency-key", &key).file(bytes).send()
    };
    let first = post(&png).is(201);
    let same = |reply: Reply| {
        assert_eq!(reply.body, first.body);
        assert_eq!(reply.header("location"), first.header("location"));
        assert_eq!(reply.etag(), first.etag());
        assert_eq!(reply.header("idempotent-replayed"), Some("true"));
    };
    same(post(&png).is(201));
    post(&a_png()).problem(422, "idempotency_key_reused");
    assert_eq!(server.get(&comment).send().json()["images"].as_array().unwrap().len(), 1);
    // Also when all of it is gone.
    server.delete(first.json()["url"].as_str().unwrap()).by(ann).send().is(204);
    server.delete(&comment).by(ann).send().is(204);
    same(post(&png).is(201));
}

fn a_comment_has_at_most_ten_images(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let comment = a_comment(server, ann);
    let png = a_png();
    let images: Vec<String> = (0..Image::MAX_PER_COMMENT).map(|_| server.image_at(ann, &comment, &png)).collect();
    attach(server, ann, &comment, &png).problem(409, "too_many_images");
    server.delete(&images[3]).by(ann).send().is(204);
    attach(server, ann, &comment, &png).is(201);
    assert_eq!(server.get(&comment).send().json()["images"].as_array().unwrap().len(), 10);
}

fn an_image_goes_with_its_comment_and_its_question(board: &Board) {
    let (server, ann) = (board.server(), board.ann());
    let qna = server.ask_at(ann, "To be deleted");
    let (first, second) = (server.comment_at(ann, &qna, "One"), server.comment_at(ann, &qna, "Two"));
    let images = [&first, &second].map(|comment| server.image_at(ann, comment, &a_png()));
    server.delete(&first).by(ann).send().is(204);
    server.get(&images[0]).send().problem(404, "image_not_found");
    server.get(&images[1]).send().is(200);
    server.delete(&qna).by(ann).send().is(204);
    server.get(&images[1]).send().problem(404, "image_not_found");
}

/// Where the blob with this name is.
fn blob(server: &Server, sha256: &str) -> PathBuf {
    server.data_dir().join("images").join(&sha256[..2]).join(&sha256[2..4]).join(sha256)
}

fn equal_images_are_stored_once(board: &Board) {
    let server = board.own(&Options::default());
    let (ann, bob) = (server.new_user(), server.new_user());
    let png = a_png();
    let images: Vec<Value> =
        [&ann, &ann, &bob].map(|by| attach(&server, by, &a_comment(&server, by), &png).is(201).json()).to_vec();
    assert!(images.iter().all(|image| image["sha256"] == images[0]["sha256"]), "{images:?}");
    let stored = blob(&server, images[0]["sha256"].as_str().unwrap());
    assert_eq!(blobs(&server.data_dir().join("images")), [stored]);
    server.delete(images[0]["url"].as_str().unwrap()).by(&ann).send().is(204);
    server.get(images[2]["url"].as_str().unwrap()).send().is(200);
}

fn the_quota_holds_for_ten_uploads_at_once(board: &Board) {
    const QUOTA: u64 = 40_000;
    let server = board.own(&Options::env("MUNDAP_IMAGE_QUOTA", QUOTA.to_string()));
    let ann = server.new_user();
    let comments: Vec<String> = (0..10).map(|_| a_comment(&server, &ann)).collect();
    let bytes = noise(6);
    let replies: Vec<Reply> = thread::scope(|scope| {
        let sending: Vec<_> =
            comments.iter().map(|comment| scope.spawn(|| attach(&server, &ann, comment, &bytes))).collect();
        sending.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let taken: Vec<Value> = replies.iter().filter(|reply| reply.status == 201).map(Reply::json).collect();
    let counts = |image: &Value| image["bytes"].as_u64().unwrap() + Image::OVERHEAD;
    let used: u64 = taken.iter().map(counts).sum();
    assert!(used <= QUOTA && used + counts(&taken[0]) > QUOTA, "{used} of {QUOTA}");
    for refused in replies.into_iter().filter(|reply| reply.status != 201) {
        refused.problem(409, "image_quota_exceeded");
    }
    // Somebody else's is another one, and what is deleted counts no more.
    let bob = server.new_user();
    attach(&server, &bob, &a_comment(&server, &bob), &bytes).is(201);
    server.delete(taken[0]["url"].as_str().unwrap()).by(&ann).send().is(204);
    attach(&server, &ann, &comments[0], &bytes).is(201);
}

fn a_sweep_takes_away_what_no_image_shows(board: &Board) {
    let options = Options { env: vec![("MUNDAP_LOG", "info,mundap_api=debug".to_owned())], ..Options::default() };
    let server = board.own(&options);
    let ann = server.new_user();
    let comment = a_comment(&server, &ann);
    let attached = |bytes: &[u8]| attach(&server, &ann, &comment, bytes).is(201).json();
    let (kept, shared) = (a_png(), a_png());
    let (kept, gone) = (attached(&kept), attached(&a_png()));
    let twice = [attached(&shared), attached(&shared)];
    for image in [&gone, &twice[0]] {
        server.delete(image["url"].as_str().unwrap()).by(&ann).send().is(204);
    }
    let path = |image: &Value| blob(&server, image["sha256"].as_str().unwrap());
    // What a program leaves that is killed between the blob and its row, or while it writes the blob.
    let orphan = blob(&server, &Digest::of(b"an orphan").to_string());
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, b"an orphan").unwrap();
    let part = orphan.with_file_name(".0123456789abcdef.part");
    std::fs::write(&part, b"an or").unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 50);
    for file in blobs(&server.data_dir().join("images")) {
        std::fs::File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
    }
    // One that was put just now may belong to a row that is about to be committed.
    let young = blob(&server, &Digest::of(b"a young one").to_string());
    std::fs::create_dir_all(young.parent().unwrap()).unwrap();
    std::fs::write(&young, b"a young one").unwrap();

    let (url, dir) = (server.database_url.clone(), server.dir.clone());
    let (kept_path, shared_path) = (path(&kept), path(&twice[1]));
    drop(server);
    let server = Server::start(&url, &Options { dir: Some(dir), ..options });
    server.log.wait_for("the sweep's", |line| line["images"] == 2);
    let mut left = blobs(&server.data_dir().join("images"));
    left.sort();
    let mut expected = vec![kept_path, shared_path, young];
    expected.sort();
    assert_eq!(left, expected);
    for image in [&kept, &twice[1]] {
        server.get(image["url"].as_str().unwrap()).send().is(200);
    }
}
