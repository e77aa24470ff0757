//! Uploads made into pictures: decoded and written anew, on threads of their own, in bounded memory.
//!
//! Only the header is read at first, for every upload at once; what it announces decides whether the upload gets to a
//! decoder at all. A bomb is an upload whose pixels take far more than its bytes, so the pixels are counted first.
//!
//! What is written holds nothing but pixels: no EXIF, no XMP, no comments, no colour profile, and none of the bytes that hung
//! behind the image's end.
//!
//! | upload | becomes |
//! | --- | --- |
//! | PNG | PNG of 8 bits a channel |
//! | JPEG | JPEG of quality 85 |
//! | WebP, lossless or with transparency | lossless WebP |
//! | WebP, lossy and opaque | JPEG of quality 85: there is no lossy WebP encoder here, and lossless it would be several times as large |
//! | GIF | GIF, frame by frame, as indexed as it was |

use std::io::{self, Cursor, Write};
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::codecs::png::{CompressionType, FilterType, PngDecoder, PngEncoder};
use image::codecs::webp::{WebPDecoder, WebPEncoder};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, Limits};
use metrics::counter;
use mundap_domain::Error;
use mundap_domain::image::{ImageCleaner, MediaType, Picture, Refusal, Upload};

use crate::pool::Pool;

/// Threads that make pictures.
pub struct PicturePool {
    pool: Pool,
    memory: Arc<Memory>,
}

impl PicturePool {
    /// The largest image takes about a second.
    const THREADS: usize = 2;
    /// How many may wait: with what is being worked on, some 130 MB of uploads at most.
    const WAITING: usize = 24;
    /// What all decoders may hold at once: two photographs of 12 megapixels, or one image of the largest size.
    const MEMORY: u64 = 2 * Upload::MAX_DECODED;

    /// # Panics
    /// Where no thread can be started.
    #[must_use]
    pub fn start() -> Self {
        Self { pool: Pool::start("picture", Self::THREADS, Self::WAITING), memory: Arc::new(Memory::new(Self::MEMORY)) }
    }
}

#[async_trait]
impl ImageCleaner for PicturePool {
    async fn clean(&self, upload: Upload) -> Result<Picture, Error> {
        counter!("mundap_image_bytes_total", "direction" => "in").increment(upload.as_bytes().len() as u64);
        let outcome = self.try_to_clean(upload).await;
        let said = outcome.as_ref().map_or_else(Error::code, |picture| {
            counter!("mundap_image_bytes_total", "direction" => "out").increment(picture.content.len() as u64);
            "cleaned"
        });
        counter!("mundap_images_total", "outcome" => said).increment(1);
        outcome
    }
}

impl PicturePool {
    async fn try_to_clean(&self, upload: Upload) -> Result<Picture, Error> {
        // Not in the pool: a header takes microseconds, and a bomb need not wait until a decoder is free. Yet off the
        // workers, since a GIF is walked to its end.
        let inspect = move || no_panic(|| Header::read(upload.as_bytes())).map(|header| (header, upload));
        let (header, upload) = tokio::task::spawn_blocking(inspect).await.map_err(Error::internal)??;
        let memory = self.memory.clone();
        self.pool
            .run(move || {
                let _taken = memory.take(header.memory());
                Ok(no_panic(|| header.clean(upload.as_bytes()))?)
            })
            .await
    }
}

/// A decoder that panics was given a broken image: a stranger's bytes are not a fault of ours.
fn no_panic<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::warn!("a decoder panicked on an upload; it was refused as broken");
        Err(Refusal::Broken)
    })
}

/// How much the decoders may hold together.
struct Memory {
    total: u64,
    free: Mutex<u64>,
    given_back: Condvar,
}

struct Taken<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Memory {
    fn new(total: u64) -> Self {
        Self { total, free: Mutex::new(total), given_back: Condvar::new() }
    }

    fn free(&self) -> MutexGuard<'_, u64> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so much is free; whoever wants more than there is works alone.
    fn take(&self, bytes: u64) -> Taken<'_> {
        let bytes = bytes.min(self.total);
        let enough = self.given_back.wait_while(self.free(), |free| *free < bytes);
        *enough.unwrap_or_else(PoisonError::into_inner) -= bytes;
        Taken { memory: self, bytes }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.memory.free() += self.bytes;
        self.memory.given_back.notify_all();
    }
}

/// What an upload says of itself before its pixels.
#[derive(Debug)]
struct Header {
    media_type: MediaType,
    width: u32,
    height: u32,
    /// What a pixel takes when decoded.
    pixel_bytes: u8,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let header = match image::guess_format(bytes) {
            Ok(ImageFormat::Png) => {
                let png = png(bytes)?;
                if png.is_apng().map_err(refusal)? {
                    return Err(Refusal::Animated);
                }
                Self::of(MediaType::Png, &png)
            }
            Ok(ImageFormat::Jpeg) => {
                let header = Self::of(MediaType::Jpeg, &jpeg(bytes)?);
                // Its decoder fills what is missing with grey.
                if !is_whole_jpeg(bytes) {
                    return Err(Refusal::Broken);
                }
                header
            }
            Ok(ImageFormat::WebP) => {
                let webp = webp(bytes)?;
                if webp.has_animation() {
                    return Err(Refusal::Animated);
                }
                Self::of(MediaType::Webp, &webp)
            }
            Ok(ImageFormat::Gif) => return Self::of_gif(bytes),
            Ok(_) | Err(_) => return Err(Refusal::NotAnImage),
        };
        header.check(1)
    }

    fn of(media_type: MediaType, decoder: &impl ImageDecoder) -> Self {
        let (width, height) = decoder.dimensions();
        Self { media_type, width, height, pixel_bytes: decoder.color_type().bytes_per_pixel() }
    }

    /// Walks along the frames without decoding them.
    fn of_gif(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut options = gif_options();
        options.skip_frame_decoding(true);
        let mut gif = options.read_info(bytes).map_err(broken)?;
        let (width, height) = (gif.width().into(), gif.height().into());
        let header = Self { media_type: MediaType::Gif, width, height, pixel_bytes: 1 }.check(1)?;
        let mut frames = 0;
        while gif.next_frame_info().map_err(broken)?.is_some() {
            frames += 1;
        }
        header.check(frames)
    }

    fn check(self, frames: u64) -> Result<Self, Refusal> {
        let pixels = self.pixels();
        if pixels == 0 || frames == 0 {
            return Err(Refusal::Broken);
        }
        let too_many = self.width.max(self.height) > Upload::MAX_SIDE
            || pixels > Upload::MAX_PIXELS
            || pixels * u64::from(self.pixel_bytes) > Upload::MAX_DECODED
            || pixels * frames > Upload::MAX_FRAME_PIXELS;
        if too_many { Err(Refusal::TooManyPixels) } else { Ok(self) }
    }

    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// What making the picture takes: the pixels, and as much again while they are turned or put into another form.
    fn memory(&self) -> u64 {
        2 * self.pixels() * u64::from(self.pixel_bytes)
    }

    fn clean(&self, bytes: &[u8]) -> Result<Picture, Refusal> {
        match self.media_type {
            MediaType::Png => as_png(&eight_bits(decoded(png(bytes)?)?)),
            MediaType::Jpeg => as_jpeg(decoded(jpeg(bytes)?)?),
            MediaType::Webp => {
                let image = decoded(webp(bytes)?)?;
                if is_lossy_webp(bytes) && !image.color().has_alpha() { as_jpeg(image) } else { as_webp(&image) }
            }
            MediaType::Gif => self.clean_gif(bytes),
        }
    }

    /// One frame at a time: a byte a pixel, and the colours as they were.
    fn clean_gif(&self, bytes: &[u8]) -> Result<Picture, Refusal> {
        let mut options = gif_options();
        options.set_memory_limit(gif::MemoryLimit::Bytes(const { NonZeroU64::new(Upload::MAX_PIXELS).unwrap() }));
        let mut gif = options.read_info(bytes).map_err(broken)?;
        let palette = gif.global_palette().unwrap_or_default().to_vec();
        let mut out = Bounded::default();
        let written = (|| {
            let mut encoder = gif::Encoder::new(&mut out, gif.width(), gif.height(), &palette)?;
            let mut is_first = true;
            loop {
                let Some(frame) = gif.read_next_frame().map_err(|error| io::Error::other(error.to_string()))? else {
                    return Ok(());
                };
                let frame = gif::Frame { interlaced: false, needs_user_input: false, ..frame.clone() };
                if std::mem::take(&mut is_first) {
                    // Known once the first frame is read: the block that says it stands before that one.
                    encoder.set_repeat(gif.repeat())?;
                }
                encoder.write_frame(&frame)?;
            }
        })();
        out.picture(MediaType::Gif, self.width, self.height, written.map_err(|_: gif::EncodingError| Refusal::Broken))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn refusal(error: ImageError) -> Refusal {
    match error {
        ImageError::Limits(_) => Refusal::TooManyPixels,
        ImageError::Decoding(_)
        | ImageError::Encoding(_)
        | ImageError::Parameter(_)
        | ImageError::Unsupported(_)
        | ImageError::IoError(_) => Refusal::Broken,
    }
}

fn broken(_: gif::DecodingError) -> Refusal {
    Refusal::Broken
}

fn png(bytes: &[u8]) -> Result<PngDecoder<Cursor<&[u8]>>, Refusal> {
    // For what stands beside the pixels: compressed text and profiles may be bombs too.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(8 * 1024 * 1024);
    PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(refusal)
}

fn jpeg(bytes: &[u8]) -> Result<JpegDecoder<Cursor<&[u8]>>, Refusal> {
    JpegDecoder::new(Cursor::new(bytes)).map_err(refusal)
}

fn webp(bytes: &[u8]) -> Result<WebPDecoder<Cursor<&[u8]>>, Refusal> {
    WebPDecoder::new(Cursor::new(bytes)).map_err(refusal)
}

fn gif_options() -> gif::DecodeOptions {
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::Indexed);
    // No frame is larger than the whole.
    options.check_frame_consistency(true);
    options
}

/// The pixels, the right way up.
fn decoded(mut decoder: impl ImageDecoder) -> Result<DynamicImage, Refusal> {
    let orientation = decoder.orientation().map_err(refusal)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(refusal)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether the end of the image is there: behind the first scan a marker cannot be part of the pixels.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let mut at = 2;
    while let Some(&[0xff, marker, ref length @ ..]) = bytes.get(at..at + 4) {
        match marker {
            START_OF_SCAN => return bytes[at..].windows(2).any(|pair| pair == END_OF_IMAGE),
            // A fill byte, and markers that stand alone.
            0xff => at += 1,
            0x01 | 0xd0..=0xd7 => at += 2,
            _ => at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])),
        }
    }
    false
}

/// Whether its pixels are in the lossy format: the container's first chunk of pixels says it.
fn is_lossy_webp(bytes: &[u8]) -> bool {
    let mut at = 12;
    while let Some(&[a, b, c, d, ref size @ ..]) = bytes.get(at..at + 8) {
        match &[a, b, c, d] {
            b"VP8 " => return true,
            b"VP8L" => return false,
            _ => {}
        }
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
        at += 8 + size + size % 2;
    }
    false
}

/// Nobody sees more, and it is half of the bytes.
fn eight_bits(image: DynamicImage) -> DynamicImage {
    match image {
        DynamicImage::ImageLuma16(_) => image.into_luma8().into(),
        DynamicImage::ImageLumaA16(_) => image.into_luma_alpha8().into(),
        DynamicImage::ImageRgb16(_) => image.into_rgb8().into(),
        DynamicImage::ImageRgba16(_) => image.into_rgba8().into(),
        image => image,
    }
}

fn as_png(image: &DynamicImage) -> Result<Picture, Refusal> {
    let mut out = Bounded::default();
    let encoder = PngEncoder::new_with_quality(&mut out, CompressionType::Default, FilterType::Adaptive);
    let written = image.write_with_encoder(encoder).map_err(refusal);
    out.picture(MediaType::Png, image.width(), image.height(), written)
}

fn as_jpeg(image: DynamicImage) -> Result<Picture, Refusal> {
    let image = match image {
        DynamicImage::ImageLuma8(_) | DynamicImage::ImageRgb8(_) => image,
        image => image.into_rgb8().into(),
    };
    let mut out = Bounded::default();
    let written = image.write_with_encoder(JpegEncoder::new_with_quality(&mut out, 85)).map_err(refusal);
    out.picture(MediaType::Jpeg, image.width(), image.height(), written)
}

fn as_webp(image: &DynamicImage) -> Result<Picture, Refusal> {
    let mut out = Bounded::default();
    let written = image.write_with_encoder(WebPEncoder::new_lossless(&mut out)).map_err(refusal);
    out.picture(MediaType::Webp, image.width(), image.height(), written)
}

/// Bytes up to [`Picture::MAX_BYTES`].
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > Picture::MAX_BYTES {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Bounded {
    /// What an encoder left here.
    fn picture(
        mut self,
        media_type: MediaType,
        width: u32,
        height: u32,
        written: Result<(), Refusal>,
    ) -> Result<Picture, Refusal> {
        if self.is_full {
            return Err(Refusal::TooLarge);
        }
        written?;
        self.bytes.shrink_to_fit();
        Ok(Picture { media_type, width, height, content: Arc::new(self.bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_and_whoever_wants_more_than_there_is_works_alone() {
        let memory = Memory::new(100);
        let some = memory.take(60);
        assert_eq!(*memory.free(), 40);
        let more = memory.take(40);
        assert_eq!(*memory.free(), 0);
        drop((some, more));
        let all = memory.take(1000);
        assert_eq!(*memory.free(), 0);
        drop(all);
        assert_eq!(*memory.free(), 100);
    }

    #[test]
    fn who_finds_no_memory_waits_for_it() {
        let memory = Memory::new(100);
        let taken = memory.take(60);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(memory.take(60)));
            drop(taken);
            waiting.join().unwrap();
        });
        assert_eq!(*memory.free(), 100);
    }

    #[test]
    fn a_picture_that_grows_without_bound_is_too_large() {
        let mut out = Bounded::default();
        out.write_all(&vec![0; Picture::MAX_BYTES]).unwrap();
        assert!(out.write_all(&[0]).is_err());
        assert_eq!(out.picture(MediaType::Png, 1, 1, Err(Refusal::Broken)), Err(Refusal::TooLarge));
    }

    #[test]
    fn a_decoder_that_panics_was_given_a_broken_image() {
        let outcome = no_panic(|| -> Result<(), Refusal> { panic!("a fault in a test") });
        assert_eq!(outcome, Err(Refusal::Broken));
    }
}
