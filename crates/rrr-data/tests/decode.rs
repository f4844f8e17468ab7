//! Formats, orientation, depth, and files that are not what they claim.

use std::io::Cursor;

use image::{
    DynamicImage, ExtendedColorType, ImageBuffer, ImageEncoder, ImageFormat, Luma, Rgb, RgbImage, Rgba,
};
use rrr_data::decode::{DecodeError, decode, read};
use rrr_data::{Limits, Resize, RgbImage as Decoded};

/// 12 x 8: red, green, blue and grey quarters.
fn quarters() -> RgbImage {
    ImageBuffer::from_fn(12, 8, |x, y| match (x < 6, y < 4) {
        (true, true) => Rgb([250, 10, 20]),
        (false, true) => Rgb([10, 240, 30]),
        (true, false) => Rgb([20, 30, 230]),
        (false, false) => Rgb([128, 128, 128]),
    })
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn decoded(bytes: &[u8]) -> Decoded {
    decode(bytes, &Limits::default()).unwrap()
}

fn pixel(image: &Decoded, x: usize, y: usize) -> [u8; 3] {
    let at = (y * image.width + x) * 3;
    image.pixels[at..at + 3].try_into().unwrap()
}

fn near(a: [u8; 3], b: [u8; 3], levels: u8) -> bool {
    a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= levels)
}

#[test]
fn every_format_gives_the_picture() {
    let original = quarters();
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::Jpeg]
    {
        let image = decoded(&encode(&DynamicImage::from(original.clone()), format));
        assert_eq!((image.width, image.height), (12, 8), "{format:?}");
        let levels = if format == ImageFormat::Jpeg { 40 } else { 4 };
        for (x, y) in [(1, 1), (10, 1), (1, 6), (10, 6)] {
            let expected = original.get_pixel(x as u32, y as u32).0;
            let ours = pixel(&image, x, y);
            assert!(near(ours, expected, levels), "{format:?} ({x}, {y}): {ours:?}, not {expected:?}");
        }
    }
}

#[test]
fn grey_sixteen_bit_and_alpha_become_eight_bit_rgb() {
    let grey = DynamicImage::from(ImageBuffer::from_pixel(3, 3, Luma([77u8])));
    assert_eq!(pixel(&decoded(&encode(&grey, ImageFormat::Png)), 1, 1), [77; 3]);
    assert!(near(pixel(&decoded(&encode(&grey, ImageFormat::Jpeg)), 1, 1), [77; 3], 2));

    let deep = DynamicImage::from(ImageBuffer::from_pixel(3, 3, Rgb([0u16, 32768, 65535])));
    assert_eq!(pixel(&decoded(&encode(&deep, ImageFormat::Png)), 1, 1), [0, 128, 255]);

    for (alpha, expected) in [(255, [200, 100, 0]), (0, [255; 3]), (51, [244, 224, 204])] {
        let image = DynamicImage::from(ImageBuffer::from_pixel(3, 3, Rgba([200u8, 100, 0, alpha])));
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            assert_eq!(pixel(&decoded(&encode(&image, format)), 1, 1), expected, "{format:?}");
        }
    }
}

/// A 2 x 1 PNG whose two palette entries are opaque red and half transparent blue.
fn palette_png() -> Vec<u8> {
    fn chunk(out: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
        out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        let checked = [name.as_slice(), data].concat();
        out.extend(&checked);
        out.extend(crc(&checked).to_be_bytes());
    }
    fn crc(data: &[u8]) -> u32 {
        !data.iter().fold(!0u32, |crc, &byte| {
            (0..8)
                .fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
        })
    }
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut out, b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 1, 8, 3, 0, 0, 0]);
    chunk(&mut out, b"PLTE", &[255, 0, 0, 0, 0, 255]);
    chunk(&mut out, b"tRNS", &[255, 51]);
    // One row: filter 0, indices 0 and 1, in a stored deflate block with its Adler-32.
    let row = [0u8, 0, 1];
    let (a, b) = row.iter().fold((1u32, 0u32), |(a, b), &v| (a + u32::from(v), b + a + u32::from(v)));
    let adler = (b << 16 | a).to_be_bytes();
    chunk(&mut out, b"IDAT", &[&[0x78, 0x01, 0x01, 3, 0, !3, !0], row.as_slice(), &adler].concat());
    chunk(&mut out, b"IEND", &[]);
    out
}

#[test]
fn palettes_and_their_transparency() {
    let image = decoded(&palette_png());
    assert_eq!((pixel(&image, 0, 0), pixel(&image, 1, 0)), ([255, 0, 0], [204, 204, 255]));
}

/// Puts an EXIF segment with an orientation right after the start of a JPEG.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn exif_orientation_is_applied() {
    let jpeg = encode(&DynamicImage::from(quarters()), ImageFormat::Jpeg);
    // Where the red quarter, top left as stored, is to be shown: (left, top).
    let red_at = [
        (1, (true, true)),
        (2, (false, true)),
        (3, (false, false)),
        (4, (true, false)),
        (5, (true, true)),
        (6, (false, true)),
        (7, (false, false)),
        (8, (true, false)),
    ];
    for (orientation, (left, top)) in red_at {
        let image = decoded(&with_orientation(&jpeg, orientation));
        let size = if orientation < 5 { (12, 8) } else { (8, 12) };
        assert_eq!((image.width, image.height), size, "orientation {orientation}");
        let x = if left { 1 } else { image.width - 2 };
        let y = if top { 1 } else { image.height - 2 };
        assert!(near(pixel(&image, x, y), [250, 10, 20], 40), "orientation {orientation}");
    }
}

fn error(bytes: &[u8]) -> DecodeError {
    decode(bytes, &Limits::default()).unwrap_err()
}

#[test]
fn truncated_files_are_errors_wherever_they_are_cut() {
    let noisy = DynamicImage::from(RgbImage::from_fn(64, 64, |x, y| {
        let v = (x * 37 + y * 101) ^ (x * y);
        Rgb([v as u8, (v >> 3) as u8, (v >> 5) as u8])
    }));
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif]
    {
        let whole = encode(&noisy, format);
        decoded(&whole);
        for percent in [30, 50, 75, 90] {
            let cut = &whole[..whole.len() * percent / 100];
            assert!(
                decode(cut, &Limits::default()).is_err(),
                "{format:?} cut at {percent} % must not decode"
            );
        }
    }
    let whole = encode(&noisy, ImageFormat::Jpeg);
    assert_eq!(error(&whole[..whole.len() - 1]), DecodeError::Truncated);
    assert_eq!(error(&whole[..whole.len() / 2]).to_string(), "the jpeg data ends early (truncated file)");
    // Padding after the end is harmless.
    decoded(&[whole.as_slice(), &[0; 100]].concat());
}

#[test]
fn an_embedded_thumbnail_does_not_hide_a_truncation() {
    let thumbnail = encode(&DynamicImage::from(quarters()), ImageFormat::Jpeg);
    let length = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
    let big = encode(&DynamicImage::from(RgbImage::new(300, 300)), ImageFormat::Jpeg);
    let whole = [&big[..2], &[0xff, 0xe2], &length, &thumbnail, &big[2..]].concat();
    decoded(&whole);
    assert_eq!(error(&whole[..whole.len() - 400]), DecodeError::Truncated);
}

#[test]
fn files_that_are_no_images() {
    assert_eq!(error(b""), DecodeError::Empty);
    assert_eq!(error(b"hello, I am text"), DecodeError::NotAnImage);
    assert!(error(b"II*\0\x08\0\0\0").to_string().starts_with("TIFF images are not supported"));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("note.png");
    std::fs::write(&path, "just some text\n").unwrap();
    let bad = read(&path, &Limits::default()).unwrap_err();
    let expected =
        "note.png: not an image, whatever its name says (content is no JPEG, PNG, WebP, GIF or BMP)";
    assert!(bad.to_string().ends_with(expected), "{bad}");
    assert!(
        read(&dir.path().join("no.png"), &Limits::default()).unwrap_err().reason.contains("cannot be read")
    );
}

#[test]
fn the_content_decides_not_the_extension() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("really_a_png.jpg");
    std::fs::write(&path, encode(&DynamicImage::from(quarters()), ImageFormat::Png)).unwrap();
    assert_eq!(read(&path, &Limits::default()).unwrap().pixels, quarters().into_raw());
}

#[test]
fn huge_images_are_refused_before_they_are_decoded() {
    let mut png = palette_png();
    png[16..20].copy_from_slice(&100_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&100_000u32.to_be_bytes());
    assert!(decode(&png, &Limits::default()).is_err());

    let image = encode(&DynamicImage::from(quarters()), ImageFormat::Bmp);
    let error = decode(&image, &Limits { max_pixels: 95 }).unwrap_err();
    assert_eq!(error, DecodeError::TooLarge { width: 12, height: 8, max_pixels: 95 });
    assert!(decode(&image, &Limits { max_pixels: 96 }).is_ok());
}

#[test]
fn images_without_pixels_are_an_error() {
    for (width, height) in [(0, 0), (0, 5), (5, 0)] {
        // A logical screen of that size, two colours, and a frame of one pixel.
        let screen = [width, 0, height, 0, 0x80, 0, 0];
        let rest = b"\0\0\0\xff\xff\xff\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0\x3b";
        let gif = [b"GIF89a", &screen[..], rest].concat();
        let expected = DecodeError::NoPixels { width: width.into(), height: height.into() };
        assert_eq!(error(&gif), expected);
    }
}

#[test]
fn cmyk_jpeg() {
    let cyan = [255u8, 0, 0, 0].repeat(64);
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 100);
    encoder.encode(&cyan, 8, 8, jpeg_encoder::ColorType::Cmyk).unwrap();
    let image = decoded(&bytes);
    assert_eq!((image.width, image.height), (8, 8));
    let colour = pixel(&image, 4, 4);
    assert!(near(colour, [0, 255, 255], 3), "{colour:?}");
}

#[test]
fn resizing_keeps_flat_colours_and_leaves_the_right_size_alone() {
    let flat = Decoded { width: 301, height: 97, pixels: [9u8, 130, 251].repeat(301 * 97) };
    for resize in [Resize::Antialias, Resize::Bilinear] {
        for size in [1, 33, 128] {
            assert_eq!(flat.resized(size, resize), [9u8, 130, 251].repeat(size * size), "{resize:?} {size}");
        }
    }
    let pixels: Vec<u8> = (0..10 * 10 * 3).map(|i| (i * 7) as u8).collect();
    let image = Decoded { width: 10, height: 10, pixels };
    assert_eq!(image.resized(10, Resize::Antialias), image.pixels);
}

#[test]
fn antialiasing_averages_what_bilinear_skips() {
    // One white column in 16: sampling at two neighbours sees none of it or half of it.
    let pixels = (0..128 * 128).flat_map(|i| [if i % 16 == 0 { 255u8 } else { 0 }; 3]).collect();
    let image = Decoded { width: 128, height: 128, pixels };
    let mean = |v: Vec<u8>| v.iter().map(|&p| f64::from(p)).sum::<f64>() / v.len() as f64;
    assert!((mean(image.resized(8, Resize::Antialias)) - 255.0 / 16.0).abs() < 4.0);
    assert_eq!(mean(image.resized(8, Resize::Bilinear)), 0.0);
}

#[test]
fn unsupported_colour_types_are_not_a_panic() {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(&[0, 128, 255, 7], 1, 1, ExtendedColorType::La16)
        .unwrap();
    assert_eq!(decoded(&bytes).pixels.len(), 3);
}
