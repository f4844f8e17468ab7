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
#[inline(always)]
pub fn warp(image: &mut [u8], size: usize, matrix: &Matrix, border: Border, scratch: &mut Scratch) {
    let [m0, m1, m2, m3, m4, m5] = invert(matrix);
    let fixed = |v: f64| (v * f64::from(1 << SUM_BITS)).round_ties_even() as i32;
    scratch.packed.clear();
    scratch.packed.extend(image.as_chunks::<3>().0.iter().map(pack));
    scratch.columns.clear();
    scratch.columns.extend((0..size).map(|x| [fixed(m0 * x as f64), fixed(m3 * x as f64)]));
    let source = Source { pixels: &scratch.packed, size, border };
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

/// Bits from one channel of a packed pixel to the next: enough for a sum of weighted values, 255 * 1024 and the
/// rounding, so that one multiplication weighs all three.
const LANE: u32 = 21;

#[inline]
fn pack(&[r, g, b]: &[u8; 3]) -> u64 {
    u64::from(r) | u64::from(g) << LANE | u64::from(b) << (2 * LANE)
}

struct Source<'a> {
    /// Packed pixels, `[size, size]`.
    pixels: &'a [u64],
    size: usize,
    border: Border,
}

impl Source<'_> {
    /// The pixel at a position in 1/32.
    #[inline]
    fn sample(&self, x: i32, y: i32) -> [u8; 3] {
        const ONE: u64 = 1 << FRACTION_BITS;
        const SHIFT: u32 = 2 * FRACTION_BITS;
        const HALF: u64 = (1 | 1 << LANE | 1 << (2 * LANE)) << (SHIFT - 1);
        let (left, top) = (x >> FRACTION_BITS, y >> FRACTION_BITS);
        let (fx, fy) = (x as u64 & (ONE - 1), y as u64 & (ONE - 1));
        let last = self.size as u32 - 1;
        let [a, b, c, d] = if (left as u32) < last && (top as u32) < last {
            let at = top as usize * self.size + left as usize;
            let block = &self.pixels[at..at + self.size + 2];
            [block[0], block[1], block[self.size], block[self.size + 1]]
        } else {
            self.outer(left, top)
        };
        let (gx, gy) = (ONE - fx, ONE - fy);
        let sum = a * (gx * gy) + b * (fx * gy) + c * (gx * fy) + d * (fx * fy) + HALF;
        [sum >> SHIFT, sum >> (SHIFT + LANE), sum >> (SHIFT + 2 * LANE)].map(|v| v as u8)
    }

    /// The four pixels from (left, top) on, some outside the image.
    fn outer(&self, left: i32, top: i32) -> [u64; 4] {
        let columns = [left, left + 1].map(|x| self.inside(x));
        let rows = [top, top + 1].map(|y| self.inside(y));
        let pixel = |x: usize, y: usize| match (columns[x], rows[y]) {
            (Some(x), Some(y)) => self.pixels[y * self.size + x],
            _ => 0,
        };
        [pixel(0, 0), pixel(1, 0), pixel(0, 1), pixel(1, 1)]
    }

    /// The row or column that a coordinate means, if any.
    #[inline]
    fn inside(&self, at: i32) -> Option<usize> {
        match self.border {
            Border::Reflect => Some(reflect(at, self.size)),
            Border::Black => usize::try_from(at).ok().filter(|&at| at < self.size),
        }
    }
}

/// The index within `0..size` that a coordinate is mirrored to.
pub(super) fn reflect(at: i32, size: usize) -> usize {
    let last = size - 1;
    let near = at.unsigned_abs() as usize;
    if near <= last {
        return near;
    }
    if last == 0 {
        return 0;
    }
    let wrapped = near % (2 * last);
    wrapped.min(2 * last - wrapped)
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
