//! Resizing to the network's square input.

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Rgb};

use crate::decode::RgbImage;

/// How an image is brought to `size` x `size`; the aspect ratio is not kept. An image that already has this size
/// is not touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resize {
    /// Bilinear with a triangle filter as wide as the reduction (Pillow's and torchvision's bilinear): every
    /// source pixel counts, so that a photo reduced many times does not alias.
    #[default]
    Antialias,
    /// Bilinear between the four nearest source pixels, equal to OpenCV's `INTER_LINEAR`: what the published
    /// experiments used.
    Bilinear,
}

impl RgbImage {
    /// The image as `[size, size, 3]`.
    ///
    /// # Panics
    /// If `size` is 0 or the image has no pixels.
    pub fn resized(&self, size: usize, resize: Resize) -> Vec<u8> {
        let mut out = vec![0; size * size * 3];
        self.resize_into(&mut out, size, resize);
        out
    }

    /// Writes the image as `[size, size, 3]` into `out`.
    ///
    /// # Panics
    /// If `size` is 0, the image has no pixels, or `out` is not `size * size * 3` long.
    pub fn resize_into(&self, out: &mut [u8], size: usize, resize: Resize) {
        assert_eq!(out.len(), size * size * 3, "output must hold size x size RGB pixels");
        assert_eq!(self.pixels.len(), self.width * self.height * 3, "image must be whole");
        assert!(size > 0 && !self.pixels.is_empty(), "image and output must have pixels");
        if (self.width, self.height) == (size, size) {
            out.copy_from_slice(&self.pixels);
            return;
        }
        match resize {
            Resize::Antialias => antialias(self, out, size),
            Resize::Bilinear if (self.width, self.height) == (2 * size, 2 * size) => halve(self, out, size),
            Resize::Bilinear => bilinear(self, out, size),
        }
    }
}

fn antialias(image: &RgbImage, out: &mut [u8], size: usize) {
    let source =
        ImageBuffer::<Rgb<u8>, &[u8]>::from_raw(image.width as u32, image.height as u32, &image.pixels)
            .expect("the buffer was checked to hold width x height RGB pixels");
    out.copy_from_slice(&imageops::resize(&source, size as u32, size as u32, FilterType::Triangle));
}

/// The mean of 2 x 2 pixels: what `INTER_LINEAR` does at exactly half size.
fn halve(image: &RgbImage, out: &mut [u8], size: usize) {
    let stride = image.width * 3;
    for (y, row) in out.chunks_exact_mut(size * 3).enumerate() {
        let top = &image.pixels[2 * y * stride..][..stride];
        let bottom = &image.pixels[(2 * y + 1) * stride..][..stride];
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            for (c, value) in pixel.iter_mut().enumerate() {
                let sum = [top[6 * x + c], top[6 * x + 3 + c], bottom[6 * x + c], bottom[6 * x + 3 + c]]
                    .into_iter()
                    .map(u32::from)
                    .sum::<u32>();
                *value = ((sum + 2) >> 2) as u8;
            }
        }
    }
}

/// Fraction bits of OpenCV's interpolation weights.
const WEIGHT_BITS: u32 = 11;

/// First source position and the weights of it and the next one, in 1/2048.
#[derive(Clone, Copy)]
struct Tap {
    at: usize,
    next: usize,
    weights: [i32; 2],
}

fn taps(source: usize, target: usize) -> Vec<Tap> {
    let scale = 1.0 / (target as f64 / source as f64);
    let one = (1 << WEIGHT_BITS) as f32;
    let inside = |at: i64| at.clamp(0, source as i64 - 1) as usize;
    (0..target)
        .map(|i| {
            let position = ((i as f64 + 0.5) * scale - 0.5) as f32;
            let floor = position.floor();
            let fraction = position - floor;
            let round = |w: f32| (w * one).round_ties_even() as i32;
            Tap {
                at: inside(floor as i64),
                next: inside(floor as i64 + 1),
                weights: [round(1.0 - fraction), round(fraction)],
            }
        })
        .collect()
}

fn bilinear(image: &RgbImage, out: &mut [u8], size: usize) {
    let mut columns = taps(image.width, size);
    // Beyond the first and last centre, OpenCV takes one column whole but still adds two rounded rows.
    columns.iter_mut().filter(|tap| tap.at == tap.next).for_each(|tap| tap.weights = [1 << WEIGHT_BITS, 0]);
    let stride = image.width * 3;
    let horizontal = |y: usize, row: &mut [i32]| {
        let source = &image.pixels[y * stride..][..stride];
        for (tap, pixel) in columns.iter().zip(row.chunks_exact_mut(3)) {
            for (c, value) in pixel.iter_mut().enumerate() {
                *value = i32::from(source[tap.at * 3 + c]) * tap.weights[0]
                    + i32::from(source[tap.next * 3 + c]) * tap.weights[1];
            }
        }
    };
    // Rows are visited downwards, so the two last interpolated ones are all that is ever needed again.
    let mut rows = [vec![0; size * 3], vec![0; size * 3]];
    let mut held = [usize::MAX; 2];
    for (tap, line) in taps(image.height, size).into_iter().zip(out.chunks_exact_mut(size * 3)) {
        if held[1] == tap.at {
            rows.swap(0, 1);
            held.swap(0, 1);
        }
        for (i, y) in [tap.at, tap.next].into_iter().enumerate() {
            if held[i] != y {
                horizontal(y, &mut rows[i]);
                held[i] = y;
            }
        }
        let [w0, w1] = tap.weights;
        for ((value, &a), &b) in line.iter_mut().zip(&rows[0]).zip(&rows[1]) {
            *value = ((((w0 * (a >> 4)) >> 16) + ((w1 * (b >> 4)) >> 16) + 2) >> 2) as u8;
        }
    }
}
