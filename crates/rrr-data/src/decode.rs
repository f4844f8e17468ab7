//! From image files to 8-bit RGB.
//!
//! The content decides the format. Grey and palette images become RGB, alpha is composited on white, 16 bits
//! are rounded to 8, EXIF orientation is applied, an animation gives its first frame.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use crate::error::{BadImage, DataError};

/// An 8-bit RGB image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

/// What is too much to decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest number of pixels (width times height). A small file can claim billions.
    pub max_pixels: u64,
}

impl Default for Limits {
    /// About 179 million pixels, Pillow's limit.
    fn default() -> Self {
        Self { max_pixels: 178_956_970 }
    }
}

/// Why bytes are not a usable image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// The content begins like no known image format.
    #[error("not an image, whatever its name says (content is no JPEG, PNG, WebP, GIF or BMP)")]
    NotAnImage,
    /// A format that is not read.
    #[error("{format} images are not supported; convert it to PNG or JPEG")]
    Unsupported {
        /// The format's name.
        format: String,
    },
    /// The end is missing.
    #[error("the jpeg data ends early (truncated file)")]
    Truncated,
    /// A width or height of 0, which a GIF may claim.
    #[error("{width}x{height} pixels are no image; replace the file or remove it")]
    NoPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// More pixels than [`Limits`] allow.
    #[error("{width}x{height} pixels are more than the limit of {max_pixels}")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// The decoder gave up.
    #[error("{reason}")]
    Corrupt {
        /// The decoder's message.
        reason: String,
    },
}

impl From<image::ImageError> for DecodeError {
    fn from(e: image::ImageError) -> Self {
        Self::Corrupt { reason: e.to_string().trim_end_matches('.').replace('\n', " ") }
    }
}

impl From<BadImage> for DataError {
    fn from(image: BadImage) -> Self {
        Self::Unreadable { images: vec![image] }
    }
}

/// Reads and decodes an image file.
///
/// # Errors
/// The file and the reason, be it the system's or the decoder's.
pub fn read(path: &Path, limits: &Limits) -> Result<RgbImage, BadImage> {
    decode_file(path, &bytes_of(path)?, limits)
}

/// The bytes of an image file.
pub(crate) fn bytes_of(path: &Path) -> Result<Vec<u8>, BadImage> {
    fs::read(path).map_err(|e| BadImage { path: path.to_owned(), reason: format!("cannot be read: {e}") })
}

/// Decodes the bytes of the image file `path`.
pub(crate) fn decode_file(path: &Path, bytes: &[u8], limits: &Limits) -> Result<RgbImage, BadImage> {
    decode(bytes, limits).map_err(|e| BadImage { path: path.to_owned(), reason: e.to_string() })
}

/// Decodes an image file's bytes.
///
/// # Errors
/// One [`DecodeError`] variant per cause.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let format = image::guess_format(bytes).map_err(|_| DecodeError::NotAnImage)?;
    if !format.reading_enabled() {
        let name = format.extensions_str().first().copied().unwrap_or("such");
        return Err(DecodeError::Unsupported { format: name.to_uppercase() });
    }
    // The decoder fills what is missing of a cut JPEG with grey and says nothing.
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err(DecodeError::Truncated);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder_limits = image::Limits::no_limits();
    decoder_limits.max_alloc = Some(limits.max_pixels.saturating_mul(8).saturating_add(1 << 26));
    reader.limits(decoder_limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(DecodeError::NoPixels { width, height });
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(DecodeError::TooLarge { width, height, max_pixels: limits.max_pixels });
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(to_rgb(image))
}

fn to_rgb(image: DynamicImage) -> RgbImage {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let pixels = if image.color().has_alpha() {
        let mut pixels = Vec::with_capacity(width * height * 3);
        for &[r, g, b, a] in image.into_rgba8().into_raw().as_chunks::<4>().0 {
            let over_white =
                |c: u8| ((u32::from(c) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8;
            pixels.extend([over_white(r), over_white(g), over_white(b)]);
        }
        pixels
    } else {
        image.into_rgb8().into_raw()
    };
    RgbImage { width, height, pixels }
}

/// Whether a JPEG's marker segments and scans run up to an end-of-image marker.
///
/// Segments are walked rather than searched, since an embedded thumbnail has an end marker of its own.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    const SOS: u8 = 0xda;
    const EOI: u8 = 0xd9;
    let mut at = 2;
    loop {
        // Any number of fill bytes may precede a marker; anything else between segments is skipped too.
        let Some(marker_at) = next_marker(bytes, at) else { return false };
        let marker = bytes[marker_at + 1];
        at = marker_at + 2;
        match marker {
            EOI => return true,
            // TEM, restart and start markers have no payload.
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                let Some(&[high, low]) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([high, low])).max(2);
                if marker == SOS && at > bytes.len() {
                    return false;
                }
            }
        }
    }
}

/// Position of the next `ff xx` at or after `from` that is a marker: neither a stuffed zero nor fill.
fn next_marker(bytes: &[u8], from: usize) -> Option<usize> {
    let tail = bytes.get(from..)?;
    tail.windows(2).position(|w| w[0] == 0xff && w[1] != 0x00 && w[1] != 0xff).map(|i| from + i)
}
