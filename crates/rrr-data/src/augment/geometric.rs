//! Operations that move pixels.

use super::ROUND;
use super::words::{from_words, to_words};

/// What lies outside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// Zeros.
    Black,
    /// The image mirrored at the centres of its edge pixels (OpenCV's `BORDER_REFLECT_101`).
    Reflect,
}

/// Row-major 2 x 3 matrix from source to target coordinates, (0, 0) being the centre of the first pixel.
pub type Matrix = [f64; 6];

/// A shear by `degrees` on both axes about the centre, as albumentations composes it from scikit-image's
/// `AffineTransform` (before 0.20, where a shear shortens its axis by the cosine).
pub fn shear_matrix(size: usize, degrees: f64) -> Matrix {
    let (sin, cos) = degrees.to_radians().sin_cos();
    // The shear on x, [1, -sin; 0, cos], after that on y, [cos, 0; sin, 1].
    let [a, b, c, d] = [cos - sin * sin, -sin, cos * sin, cos];
    let centre = size as f64 / 2.0 - 0.5;
    [a, b, centre - (a + b) * centre, c, d, centre - (c + d) * centre]
}

/// A counter-clockwise rotation and a scaling about the image's centre, then a shift relative to the side.
pub fn shift_scale_rotate_matrix(size: usize, degrees: f64, scale: f64, dx: f64, dy: f64) -> Matrix {
    let side = size as f64;
    // OpenCV's getRotationMatrix2D about (size / 2, size / 2), half a pixel off the true centre.
    let centre = side / 2.0;
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (a, b) = (cos * scale, sin * scale);
    let x = (1.0 - a) * centre - b * centre + dx * side;
    let y = b * centre + (1.0 - a) * centre + dy * side;
    [a, b, x, -b, a, y]
}

/// Fraction bits of a source coordinate while it is summed, and when weights are chosen by it.
const SUM_BITS: u32 = 10;
const FRACTION_BITS: u32 = 5;

/// What a warp needs beside the image.
#[derive(Clone, Debug, Default)]
pub struct Warp {
    /// The source, a word per pixel, and a black one.
    pixels: Vec<u32>,
    /// What each column adds to the source's coordinates, in 1/1024.
    columns: [Vec<i32>; 2],
    row: Row,
}

/// A row of the target, in lists of one value per pixel.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Source coordinates in 1/32.
    x: Vec<i32>,
    y: Vec<i32>,
    /// The four pixels around, upper left and right, lower left and right: where they are in the source, later they
    /// themselves.
    around: [Vec<u32>; 4],
    /// The target.
    out: Vec<u32>,
}

/// Bilinear warp of an image `[size, size, 3]`, bit for bit OpenCV 4's `warpAffine`: coordinates in 1/1024 are
/// rounded to 1/32 of a pixel.
#[inline(always)]
pub fn warp(image: &mut [u8], size: usize, matrix: &Matrix, border: Border, scratch: &mut Warp) {
    let [m0, m1, m2, m3, m4, m5] = invert(matrix);
    let fixed = |v: f64| (v * f64::from(1 << SUM_BITS)).round_ties_even() as i32;
    let Warp { pixels, columns, row } = scratch;
    pixels.resize(size * size + 1, 0);
    to_words(image, pixels);
    pixels[size * size] = 0;
    for (columns, step) in columns.iter_mut().zip([m0, m3]) {
        columns.clear();
        columns.extend((0..size).map(|x| fixed(step * x as f64)));
    }
    row.resize(size);
    for (y, line) in image.chunks_exact_mut(size * 3).enumerate() {
        let first = [fixed(m1 * y as f64 + m2), fixed(m4 * y as f64 + m5)];
        match border {
            Border::Black => row.locate(first, columns, size, |at| at as u32),
            Border::Reflect => row.locate(first, columns, size, |at| reflect(at, size)),
        }
        row.fetch(pixels);
        row.blend();
        from_words(&row.out, line);
    }
}

impl Row {
    fn resize(&mut self, size: usize) {
        self.x.resize(size, 0);
        self.y.resize(size, 0);
        self.around.iter_mut().for_each(|pixels| pixels.resize(size, 0));
        self.out.resize(size, 0);
    }

    /// Finds the source of each pixel, given that of the first. `inside` says which row or column a coordinate means;
    /// from `size` on it is none, which the black pixel stands for.
    #[inline(always)]
    fn locate(&mut self, first: [i32; 2], columns: &[Vec<i32>; 2], size: usize, inside: impl Fn(i32) -> u32) {
        const SHIFT: u32 = SUM_BITS - FRACTION_BITS;
        let size = size as u32;
        let [x0, y0] = first.map(|v| v + (1 << (SHIFT - 1)));
        let steps = columns[0].iter().zip(&columns[1]);
        let [a, b, c, d] = &mut self.around;
        let around = a.iter_mut().zip(b).zip(c).zip(d);
        for (((x, y), (((a, b), c), d)), (dx, dy)) in
            self.x.iter_mut().zip(&mut self.y).zip(around).zip(steps)
        {
            *x = (x0 + dx) >> SHIFT;
            *y = (y0 + dy) >> SHIFT;
            let (left, top) = (*x >> FRACTION_BITS, *y >> FRACTION_BITS);
            let (left, right, top, bottom) = (inside(left), inside(left + 1), inside(top), inside(top + 1));
            let place = |x: u32, y: u32| if x < size && y < size { y * size + x } else { size * size };
            (*a, *b) = (place(left, top), place(right, top));
            (*c, *d) = (place(left, bottom), place(right, bottom));
        }
    }

    /// Fetches the pixels around: the one step that no instruction set makes faster.
    #[inline(never)]
    fn fetch(&mut self, source: &[u32]) {
        let [a, b, c, d] = &mut self.around;
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            for pixel in [a, b, c, d] {
                *pixel = source[*pixel as usize];
            }
        }
    }

    /// Weighs the pixels around.
    #[inline(always)]
    fn blend(&mut self) {
        const ONE: u32 = 1 << FRACTION_BITS;
        const SHIFT: u32 = 2 * FRACTION_BITS;
        let [a, b, c, d] = &self.around;
        let around = a.iter().zip(b).zip(c).zip(d);
        for (((out, (((a, b), c), d)), x), y) in self.out.iter_mut().zip(around).zip(&self.x).zip(&self.y) {
            let (x, y) = (*x as u32 % ONE, *y as u32 % ONE);
            let channel = |bits: u32| {
                let value = |pixel: u32| pixel >> bits & 255;
                let upper = value(*a) * (ONE - x) + value(*b) * x;
                let lower = value(*c) * (ONE - x) + value(*d) * x;
                let sum = upper * (ONE - y) + lower * y;
                ((sum + (1 << (SHIFT - 1))) >> SHIFT) << bits
            };
            *out = channel(0) | channel(8) | channel(16);
        }
    }
}

/// The index within `0..size` that a coordinate is mirrored to.
#[inline(always)]
pub(super) fn reflect(at: i32, size: usize) -> u32 {
    // Its distance from the nearest mirror image of 0. In between two of them either is right.
    let period = (2 * (size as i32 - 1)).max(1) as f32;
    let (at, reciprocal) = (at as f32, 1.0 / period);
    let nearest = (at * reciprocal + ROUND) - ROUND;
    let distance = (at - nearest * period).abs();
    (distance + ROUND).to_bits() - ROUND.to_bits()
}

/// The matrix from target to source, in OpenCV's order of operations.
fn invert(m: &Matrix) -> Matrix {
    let determinant = m[0] * m[4] - m[1] * m[3];
    let d = if determinant == 0.0 { 0.0 } else { 1.0 / determinant };
    let (a, b, c, e) = (m[4] * d, m[1] * -d, m[3] * -d, m[0] * d);
    [a, b, -a * m[2] - b * m[5], c, e, -c * m[2] - e * m[5]]
}

/// Exchanges left and right.
#[inline(always)]
pub fn flip_horizontal(image: &mut [u8], size: usize) {
    for row in image.chunks_exact_mut(size * 3) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_coordinates_are_mirrored_as_often_as_it_takes() {
        const FARTHEST: i32 = i32::MAX >> SUM_BITS;
        for size in [1, 2, 3, 7, 128, 224, 1000] {
            let far = (FARTHEST - 4000..=FARTHEST + 1).chain(-FARTHEST - 1..4000 - FARTHEST);
            for at in (-4000..4000).chain(far) {
                let last = size as i32 - 1;
                let wrapped = if last == 0 { 0 } else { at.rem_euclid(2 * last) };
                assert_eq!(reflect(at, size) as i32, wrapped.min(2 * last - wrapped), "{at} of {size}");
            }
        }
    }
}
