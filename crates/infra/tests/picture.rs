//! `ImageCleaner`: what becomes of uploads, well-meant and hostile ones. A MUST of the port has a test that is named after
//! it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use mundap_domain::image::{ImageCleaner as _, MediaType, Picture, Upload};
use mundap_infra::PicturePool;

async fn clean(bytes: impl Into<Vec<u8>>) -> Result<Picture, &'static str> {
    let pool = PicturePool::start();
    pool.clean(Upload::parse(bytes.into()).unwrap()).await.map_err(|error| error.code())
}

fn low_byte(n: u32) -> u8 {
    n.to_le_bytes()[0]
}

/// A picture that looks different from every side: its left third is red, the rest is a gradient.
fn pixels(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        if x * 3 < width { Rgb([255, 0, 0]) } else { Rgb([0, low_byte(x * 7), low_byte(y * 5)]) }
    })
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn gif() -> Vec<u8> {
    let mut bytes = Vec::new();
    let palette = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255];
    let mut encoder = gif::Encoder::new(&mut bytes, 20, 10, &palette).unwrap();
    encoder.set_repeat(gif::Repeat::Infinite).unwrap();
    encoder.write_raw_extension(gif::Extension::Comment.into(), &[b"taken at home".as_slice()]).unwrap();
    for n in 0..3_u8 {
        let frame = gif::Frame {
            delay: 10 * (u16::from(n) + 1),
            dispose: gif::DisposalMethod::Background,
            transparent: (n == 1).then_some(0),
            left: u16::from(n),
            width: 10,
            height: 10,
            palette: (n == 2).then(|| vec![9, 9, 9, 200, 200, 200]),
            buffer: vec![n % 2; 100].into(),
            ..gif::Frame::default()
        };
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    bytes
}

/// A pixel in the lossy format, for which there is no encoder here.
fn lossy_webp() -> Vec<u8> {
    STANDARD.decode("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA").unwrap()
}

/// One of each kind, with the name of its kind.
fn samples() -> [(MediaType, Vec<u8>); 4] {
    [
        (MediaType::Png, encoded(pixels(60, 40), ImageFormat::Png)),
        (MediaType::Jpeg, encoded(pixels(60, 40), ImageFormat::Jpeg)),
        (MediaType::Webp, encoded(pixels(60, 40), ImageFormat::WebP)),
        (MediaType::Gif, gif()),
    ]
}

/// EXIF: turned by `orientation`, and taken at 52° 31' N.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"MM\0\x2a\0\0\0\x08".to_vec();
    exif.extend(b"\0\x02");
    exif.extend(b"\x01\x12\0\x03\0\0\0\x01\0");
    exif.extend([orientation, 0, 0]);
    exif.extend(b"\x88\x25\0\x04\0\0\0\x01\0\0\0\x26\0\0\0\0");
    // The position, at 0x26.
    exif.extend(b"\0\x01\0\x02\0\x05\0\0\0\x03\0\0\0\x38\0\0\0\0");
    for part in [52_u32, 31, 12] {
        exif.extend(part.to_be_bytes());
        exif.extend(1_u32.to_be_bytes());
    }
    exif
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn png_chunk(kind: [u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [&kind[..], content].concat();
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[..], &named, &crc(&named).to_be_bytes()].concat()
}

/// `more` behind the header chunk.
fn png_with(png: &[u8], more: &[u8]) -> Vec<u8> {
    [&png[..33], more, &png[33..]].concat()
}

fn riff_chunk(kind: [u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_le_bytes();
    let padding: &[u8] = if content.len() % 2 == 1 { &[0] } else { &[] };
    [&kind[..], &length, content, padding].concat()
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    riff_chunk(*b"RIFF", &[b"WEBP".as_slice(), &chunks.concat()].concat())
}

/// The chunk of an extended WebP that says what is in it and how large it is.
fn vp8x(flags: u8, width: u32, height: u32) -> Vec<u8> {
    let side = |n: u32| (n - 1).to_le_bytes()[..3].to_vec();
    riff_chunk(*b"VP8X", &[vec![flags, 0, 0, 0], side(width), side(height)].concat())
}

/// Each sample that can be turned, turned.
fn turned(orientation: u8) -> Vec<(MediaType, Vec<u8>)> {
    let exif = exif(orientation);
    let mut turned = Vec::new();
    for (kind, bytes) in samples() {
        let bytes = match kind {
            MediaType::Png => png_with(&bytes, &png_chunk(*b"eXIf", &exif)),
            MediaType::Jpeg => {
                let content = [b"Exif\0\0".as_slice(), &exif].concat();
                let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
                [&bytes[..2], b"\xff\xe1", &length, &content, &bytes[2..]].concat()
            }
            MediaType::Webp => riff(&[vp8x(0x08, 60, 40), bytes[12..].to_vec(), riff_chunk(*b"EXIF", &exif)]),
            MediaType::Gif => continue,
        };
        turned.push((kind, bytes));
    }
    turned
}

fn decode(picture: &Picture) -> RgbImage {
    image::load_from_memory(&picture.content).unwrap().into_rgb8()
}

fn is_red(pixel: Rgb<u8>) -> bool {
    let [red, green, blue] = pixel.0;
    red > 200 && green < 50 && blue < 50
}

/// What must not be in any picture.
const TRACES: [&[u8]; 12] = [
    b"Exif",
    b"EXIF",
    b"eXIf",
    b"xap/1.0",
    b"XMP ",
    b"iTXt",
    b"tEXt",
    b"ICC_PROFILE",
    b"iCCP",
    b"taken at home",
    b"<script>",
    b"PK\x05\x06",
];

fn traces(picture: &Picture) -> Vec<String> {
    let is_in = |trace: &&&[u8]| picture.content.windows(trace.len()).any(|window| window == **trace);
    TRACES.iter().filter(is_in).map(|trace| String::from_utf8_lossy(trace).into_owned()).collect()
}

#[tokio::test]
async fn each_kind_stays_what_it_is_and_shows_the_same() {
    for (kind, bytes) in samples() {
        let picture = clean(bytes.clone()).await.unwrap();
        assert_eq!(picture.media_type, kind);
        let size = if kind == MediaType::Gif { (20, 10) } else { (60, 40) };
        assert_eq!((picture.width, picture.height), size, "{kind:?}");
        // Compared frame by frame below.
        if kind == MediaType::Gif {
            continue;
        }
        let (before, after) = (image::load_from_memory(&bytes).unwrap().into_rgb8(), decode(&picture));
        assert_eq!(after.dimensions(), size, "{kind:?}");
        // A JPEG was encoded twice: close is all that can be asked.
        let tolerance = if kind == MediaType::Jpeg { 48 } else { 0 };
        let far = before.as_raw().iter().zip(after.as_raw()).filter(|(a, b)| a.abs_diff(**b) > tolerance).count();
        assert!(far * 50 <= before.as_raw().len() * usize::from(tolerance > 0), "{kind:?}: {far}");
    }
}

#[tokio::test]
async fn transparency_stays() {
    let glass = RgbaImage::from_pixel(9, 7, Rgba([10, 200, 30, 77]));
    for (format, kind) in [(ImageFormat::Png, MediaType::Png), (ImageFormat::WebP, MediaType::Webp)] {
        let picture = clean(encoded(glass.clone(), format)).await.unwrap();
        assert_eq!(picture.media_type, kind);
        assert_eq!(image::load_from_memory(&picture.content).unwrap().into_rgba8(), glass);
    }
}

#[tokio::test]
async fn sixteen_bits_become_eight() {
    let deep = image::ImageBuffer::from_pixel(5, 5, Rgb([0x1234_u16, 0xabcd, 0xffff]));
    let picture = clean(encoded(DynamicImage::ImageRgb16(deep), ImageFormat::Png)).await.unwrap();
    assert_eq!(image::load_from_memory(&picture.content).unwrap().color(), image::ColorType::Rgb8);
}

#[tokio::test]
async fn a_lossy_webp_becomes_a_jpeg() {
    let picture = clean(lossy_webp()).await.unwrap();
    assert_eq!((picture.media_type, picture.width, picture.height), (MediaType::Jpeg, 1, 1));
    assert_eq!(decode(&picture).dimensions(), (1, 1));
}

#[tokio::test]
async fn a_gif_s_frames_their_times_and_their_repetitions_stay() {
    let frames = |bytes: &[u8]| {
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(bytes).unwrap();
        let mut frames = Vec::new();
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            let place = (frame.left, frame.top, frame.width, frame.height);
            frames.push((frame.delay, frame.dispose, place, frame.buffer.to_vec()));
        }
        (decoder.width(), decoder.height(), decoder.repeat(), frames)
    };
    let before = gif();
    let picture = clean(before.clone()).await.unwrap();
    assert_eq!(frames(&picture.content), frames(&before));
    assert_eq!(frames(&before).3.len(), 3);
    assert_eq!(frames(&picture.content).2, gif::Repeat::Infinite);
}

#[tokio::test]
async fn the_same_upload_makes_the_same_picture() {
    for (kind, bytes) in samples() {
        assert_eq!(clean(bytes.clone()).await.unwrap(), clean(bytes).await.unwrap(), "{kind:?}");
    }
}

#[tokio::test]
async fn the_orientation_that_the_metadata_asks_for_is_applied() {
    for (kind, bytes) in turned(6) {
        let picture = clean(bytes).await.unwrap();
        assert_eq!((picture.width, picture.height), (40, 60), "{kind:?}");
        let image = decode(&picture);
        assert_eq!(image.dimensions(), (40, 60), "{kind:?}");
        // Turned by a quarter clockwise, what was left is up.
        let is_red_at = |x, y| is_red(*image.get_pixel(x, y));
        assert!(is_red_at(2, 2) && is_red_at(37, 2) && !is_red_at(2, 57) && !is_red_at(37, 57), "{kind:?}");
    }
    for (kind, bytes) in turned(3) {
        let image = decode(&clean(bytes).await.unwrap());
        let is_red_at = |x, y| is_red(*image.get_pixel(x, y));
        assert!(image.dimensions() == (60, 40) && is_red_at(57, 2) && !is_red_at(2, 2), "{kind:?}");
    }
}

#[tokio::test]
async fn no_metadata_is_kept() {
    for (kind, bytes) in turned(1) {
        let picture = clean(bytes.clone()).await.unwrap();
        assert!(traces(&Picture { content: bytes.into(), ..picture.clone() }).len() == 1, "{kind:?} came with EXIF");
        assert_eq!(traces(&picture), [""; 0], "{kind:?}");
        // The position's numbers, however they are wrapped.
        let position: &[u8] = b"\0\0\0\x34\0\0\0\x01\0\0\0\x1f";
        assert!(!picture.content.windows(position.len()).any(|window| window == position), "{kind:?}");
    }
    let png = encoded(pixels(60, 40), ImageFormat::Png);
    let text =
        [png_chunk(*b"tEXt", b"Comment\0taken at home"), png_chunk(*b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")];
    assert_eq!(traces(&clean(png_with(&png, &text.concat())).await.unwrap()), [""; 0]);
    let jpeg = encoded(pixels(60, 40), ImageFormat::Jpeg);
    let segment = |marker: u8, content: &[u8]| {
        [&[0xff, marker], &u16::try_from(content.len() + 2).unwrap().to_be_bytes()[..], content].concat()
    };
    let more = [
        segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        segment(0xe2, b"ICC_PROFILE\0\x01\x01taken at home"),
        segment(0xfe, b"taken at home"),
    ];
    assert_eq!(traces(&clean([&jpeg[..2], &more.concat(), &jpeg[2..]].concat()).await.unwrap()), [""; 0]);
    assert_eq!(traces(&clean(gif()).await.unwrap()), [""; 0], "a GIF's comment");
}

#[tokio::test]
async fn nothing_behind_the_image_s_end_is_kept() {
    let zip = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tail = [b"<script>alert(document.domain)</script>".as_slice(), zip].concat();
    for (kind, bytes) in samples() {
        let picture = clean([&bytes[..], &tail].concat()).await.unwrap();
        assert_eq!(picture, clean(bytes).await.unwrap(), "{kind:?}");
        assert_eq!(traces(&picture), [""; 0], "{kind:?}");
    }
}

#[tokio::test]
async fn the_kind_is_told_by_content_and_others_are_refused() {
    let bmp = [b"BM".as_slice(), &[0; 60]].concat();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("text", b"this is no picture".to_vec()),
        ("SVG", b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>".to_vec()),
        ("HTML", b"<!doctype html><img src=x onerror=alert(1)>".to_vec()),
        ("PDF", b"%PDF-1.7\n".to_vec()),
        ("ZIP", b"PK\x03\x04".to_vec()),
        ("BMP", bmp),
        ("TIFF", b"II*\0\x08\0\0\0".to_vec()),
        ("ICO", b"\0\0\x01\0\x01\0".to_vec()),
        ("AVIF", b"\0\0\0\x1cftypavif\0\0\0\0".to_vec()),
    ] {
        assert_eq!(clean(bytes).await, Err("not_an_image"), "{what}");
    }
}

#[tokio::test]
async fn animated_png_and_webp_are_refused() {
    let png = encoded(pixels(60, 40), ImageFormat::Png);
    let animated = png_with(&png, &png_chunk(*b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]));
    assert_eq!(clean(animated).await, Err("image_animated"));
    let still = encoded(pixels(60, 40), ImageFormat::WebP);
    let frame = [&[0, 0, 0, 0, 0, 0, 59, 0, 0, 39, 0, 0, 10, 0, 0, 0][..], &still[12..]].concat();
    let animated = [vp8x(0x02, 60, 40), riff_chunk(*b"ANIM", &[0; 6]), riff_chunk(*b"ANMF", &frame)];
    assert_eq!(clean(riff(&animated)).await, Err("image_animated"));
}

/// A GIF of `frames` frames of one pixel on a canvas of `side`.
fn sparse_gif(side: u16, frames: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, side, side, &[0, 0, 0, 255, 255, 255]).unwrap();
    for _ in 0..frames {
        let frame = gif::Frame { width: 1, height: 1, buffer: vec![1].into(), ..gif::Frame::default() };
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    bytes
}

/// Bombs: a few kilobytes that announce gigabytes.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let png = |width: u32, height: u32, depth: u8, colour: u8| {
        let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colour, 0, 0, 0]].concat();
        let pixels = b"\x78\x9c\x63\x60\x18\x05\xa3\x60\x14\x8c\x82\x51\x30\x0a\x00\x00";
        let chunks = [png_chunk(*b"IHDR", &head), png_chunk(*b"IDAT", pixels), png_chunk(*b"IEND", b"")];
        [b"\x89PNG\r\n\x1a\n".as_slice(), &chunks.concat()].concat()
    };
    let mut jpeg = encoded(pixels(60, 40), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    let mut wide = gif();
    wide[6..10].copy_from_slice(&[0xff; 4]);
    let still = encoded(pixels(60, 40), ImageFormat::WebP);
    vec![
        ("PNG of 50,000 a side", png(50_000, 50_000, 8, 6)),
        ("PNG of two billion a side", png(0x7fff_ffff, 0x7fff_ffff, 16, 6)),
        ("PNG of 8193 pixels in a row", png(8193, 1, 8, 0)),
        ("PNG of 25,005,000 pixels", png(5001, 5000, 8, 0)),
        ("PNG of 25,000,000 pixels of eight bytes", png(5000, 5000, 16, 6)),
        ("JPEG of 65,500 a side", jpeg),
        ("GIF of 65,535 a side", wide),
        ("GIF of a thousand frames", sparse_gif(1000, 1000)),
        ("WebP of 16,384 a side", riff(&[vp8x(0, 16_384, 16_384), still[12..].to_vec()])),
    ]
}

#[tokio::test]
async fn the_limits_hold_by_what_the_header_says() {
    for (what, bytes) in bombs() {
        assert!(bytes.len() < 100_000, "{what} has {}", bytes.len());
        assert_eq!(clean(bytes).await, Err("image_too_many_pixels"), "{what}");
    }
}

#[tokio::test]
async fn twenty_bombs_at_once_are_all_refused_for_what_they_are() {
    let pool = PicturePool::start();
    let bombs: Vec<_> = bombs().into_iter().cycle().take(20).collect();
    let outcomes = bombs.into_iter().map(|(_, bytes)| pool.clean(Upload::parse(bytes).unwrap()));
    for outcome in join_all(outcomes).await {
        assert_eq!(outcome.unwrap_err().code(), "image_too_many_pixels");
    }
}

#[tokio::test]
async fn an_image_may_have_as_much_as_the_limits_say() {
    let picture = clean(encoded(pixels(8192, 1), ImageFormat::Png)).await.unwrap();
    assert_eq!((picture.width, picture.height), (8192, 1));
    let picture = clean(sparse_gif(100, 1000)).await.unwrap();
    assert_eq!((picture.width, picture.height), (100, 100));
}

#[tokio::test]
async fn a_truncated_image_is_broken() {
    for (kind, bytes) in samples() {
        for eighths in 1..8 {
            let cut = &bytes[..bytes.len() * eighths / 8];
            assert_eq!(clean(cut).await, Err("image_broken"), "{kind:?}, {eighths}/8 of {}", bytes.len());
        }
    }
}

#[tokio::test]
async fn no_garbled_image_is_more_than_refused() {
    let pool = PicturePool::start();
    let mut seed = 7_u64;
    let mut next = |below: u32| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        u32::try_from(seed >> 33).unwrap() % below
    };
    let mut taken = 0;
    for (_, bytes) in samples().into_iter().chain(turned(6)).cycle().take(1400) {
        let mut garbled = bytes;
        for _ in 0..=next(8) {
            let at = usize::try_from(next(u32::try_from(garbled.len()).unwrap())).unwrap();
            match next(3) {
                0 => garbled[at] = low_byte(next(256)),
                1 => drop(garbled.drain(at..(at + usize::from(low_byte(next(40)))).min(garbled.len()))),
                _ => garbled.insert(at, low_byte(next(256))),
            }
            if garbled.is_empty() {
                garbled.push(0);
            }
        }
        match pool.clean(Upload::parse(garbled.clone()).unwrap()).await {
            Ok(picture) => {
                taken += 1;
                assert_eq!(traces(&picture), [""; 0]);
            }
            Err(error) => assert_ne!(error.code(), "internal_error", "{}", STANDARD.encode(garbled)),
        }
    }
    assert!(taken > 0, "some are close enough");
}

/// Bytes of memory that this process has had at most since it was asked last.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Sends 20 at once; how much more memory that took, and how long the slowest.
async fn twenty_at_once(uploads: Vec<Vec<u8>>) -> (u64, Duration, BTreeMap<&'static str, usize>) {
    let pool = PicturePool::start();
    peak();
    let before = peak();
    let sent = uploads.into_iter().cycle().take(20).map(async |bytes| {
        let started = Instant::now();
        let outcome = pool.clean(Upload::parse(bytes).unwrap()).await;
        (started.elapsed(), outcome.map_or_else(|error| error.code(), |_| "ok"))
    });
    let mut outcomes = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    for (took, outcome) in join_all(sent).await {
        slowest = slowest.max(took);
        *outcomes.entry(outcome).or_default() += 1;
    }
    (peak().saturating_sub(before), slowest, outcomes)
}

/// Alone, with nothing else that takes memory or time: `just bombs`.
#[tokio::test]
#[ignore = "measures memory and time, for which it has to be alone"]
#[expect(clippy::print_stdout, reason = "it is run for its figures")]
async fn the_memory_that_bombs_and_large_images_take() {
    const MEGABYTE: u64 = 1_000_000;
    let large = |image: DynamicImage, format| vec![encoded(image, format)];
    let black = || RgbaImage::new(5000, 5000);
    let turned = large(DynamicImage::ImageRgb8(pixels(5000, 5000)), ImageFormat::Jpeg).remove(0);
    let exif = [b"Exif\0\0".as_slice(), &exif(6)].concat();
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    let turned = [&turned[..2], b"\xff\xe1", &length, &exif, &turned[2..]].concat();
    let cut = large(pixels(5000, 5000).into(), ImageFormat::Png).remove(0);
    let cut = cut[..cut.len() - 1000].to_vec();
    let cases = [
        ("bombs", bombs().into_iter().map(|(_, bytes)| bytes).collect()),
        ("PNGs of 25 megapixels, cut off near their end", vec![cut]),
        ("PNGs of 25 megapixels with transparency", large(black().into(), ImageFormat::Png)),
        ("JPEGs of 25 megapixels, to be turned", vec![turned]),
        ("WebPs of 25 megapixels", large(black().into(), ImageFormat::WebP)),
        ("GIFs of 100 megapixels in all frames", vec![sparse_gif(1000, 100)]),
    ];
    for (what, uploads) in cases {
        let (bytes, slowest, outcomes) = twenty_at_once(uploads).await;
        println!("20 {what}: {outcomes:?}, the slowest in {slowest:.2?}, {} MB more", bytes / MEGABYTE);
        if what == "bombs" {
            assert!(bytes < 200 * MEGABYTE && slowest < Duration::from_secs(1));
        }
    }
}
