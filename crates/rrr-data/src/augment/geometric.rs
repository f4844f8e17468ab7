//! Operations that move pixels.

use super::Scratch;

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

/// Bilinear warp of an image `[size, size, 3]`, bit for bit OpenCV 4's `warpAffine`: coordinates in 1/1024 are
/// rounded to 1/32 of a pixel.
///
/// # Panics
/// If `image` is not `size * size * 3` long.
pub fn warp(image: &mut [u8], size: usize, matrix: &Matrix, border: Border, scratch: &mut Scratch) {
    let [m0, m1, m2, m3, m4, m5] = invert(matrix);
    let fixed = |v: f64| (v * f64::from(1 << SUM_BITS)).round_ties_even() as i32;
    scratch.image.clear();
    scratch.image.extend_from_slice(image);
    scratch.columns.clear();
    scratch.columns.extend((0..size).map(|x| [fixed(m0 * x as f64), fixed(m3 * x as f64)]));
    let source = Source { pixels: &scratch.image, size, border };
    let half_step = 1 << (SUM_BITS - FRACTION_BITS - 1);
    for (y, row) in image.chunks_exact_mut(size * 3).enumerate() {
        let x0 = fixed(m1 * y as f64 + m2) + half_step;
        let y0 = fixed(m4 * y as f64 + m5) + half_step;
        for (out, &[dx, dy]) in row.as_chunks_mut::<3>().0.iter_mut().zip(&scratch.columns) {
            let sx = (x0 + dx) >> (SUM_BITS - FRACTION_BITS);
            let sy = (y0 + dy) >> (SUM_BITS - FRACTION_BITS);
            *out = source.sample(sx, sy);
        }
    }
}

struct Source<'a> {
    pixels: &'a [u8],
    size: usize,
    border: Border,
}

impl Source<'_> {
    /// The pixel at a position in 1/32.
    #[inline]
    fn sample(&self, x: i32, y: i32) -> [u8; 3] {
        const ONE: u32 = 1 << FRACTION_BITS;
        let (left, top) = (x >> FRACTION_BITS, y >> FRACTION_BITS);
        let (fx, fy) = (x as u32 & (ONE - 1), y as u32 & (ONE - 1));
        let last = self.size as u32 - 1;
        let inside = (left as u32) < last && (top as u32) < last;
        let corners = if inside { self.inner(left as usize, top as usize) } else { self.outer(left, top) };
        // The two products of each column fit in 16 bits: 255 * 32 and 255 * 32 * 32.
        std::array::from_fn(|c| {
            let upper = u32::from(corners[0][c]) * (ONE - fx) + u32::from(corners[1][c]) * fx;
            let lower = u32::from(corners[2][c]) * (ONE - fx) + u32::from(corners[3][c]) * fx;
            ((upper * (ONE - fy) + lower * fy + ONE * ONE / 2) >> (2 * FRACTION_BITS)) as u8
        })
    }

    /// The four pixels from (left, top) on, all inside the image.
    #[inline]
    fn inner(&self, left: usize, top: usize) -> [[u8; 3]; 4] {
        let at = (top * self.size + left) * 3;
        let stride = self.size * 3;
        let block = &self.pixels[at..at + stride + 6];
        let two =
            |i: usize| [[block[i], block[i + 1], block[i + 2]], [block[i + 3], block[i + 4], block[i + 5]]];
        let ([a, b], [c, d]) = (two(0), two(stride));
        [a, b, c, d]
    }

    #[cold]
    fn outer(&self, left: i32, top: i32) -> [[u8; 3]; 4] {
        [(left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)].map(|(x, y)| self.pixel(x, y))
    }

    fn pixel(&self, x: i32, y: i32) -> [u8; 3] {
        let position = match self.border {
            Border::Reflect => (reflect(x, self.size), reflect(y, self.size)),
            Border::Black if x < 0 || y < 0 => return [0; 3],
            Border::Black => (x as usize, y as usize),
        };
        match position {
            (x, y) if x < self.size && y < self.size => {
                let at = (y * self.size + x) * 3;
                [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
            }
            _ => [0; 3],
        }
    }
}

/// The index within `0..size` that a coordinate is mirrored to.
pub(super) fn reflect(at: i32, size: usize) -> usize {
    if size == 1 {
        return 0;
    }
    let period = 2 * (size - 1);
    let at = at.rem_euclid(period as i32) as usize;
    at.min(period - at)
}

/// The matrix from target to source, in OpenCV's order of operations.
fn invert(m: &Matrix) -> Matrix {
    let determinant = m[0] * m[4] - m[1] * m[3];
    let d = if determinant == 0.0 { 0.0 } else { 1.0 / determinant };
    let (a, b, c, e) = (m[4] * d, m[1] * -d, m[3] * -d, m[0] * d);
    [a, b, -a * m[2] - b * m[5], c, e, -c * m[2] - e * m[5]]
}

/// Exchanges left and right.
pub fn flip_horizontal(image: &mut [u8], size: usize) {
    for row in image.chunks_exact_mut(size * 3) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}
