//! Small neighbourhoods: motion blur and sharpening, mirrored at the edges (OpenCV's `BORDER_REFLECT_101`).

use super::geometric::reflect;
use super::{ROUND, Scratch};
use crate::rng::SeededRng;

/// The pixels of a line in a grid of 3, 5 or 7: the support of a motion blur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MotionKernel {
    side: usize,
    /// Bit `y * side + x` is set where the line passes.
    mask: u64,
}

impl MotionKernel {
    const MAX_SIDE: usize = 7;

    /// The line between two points `(x, y)`, as OpenCV's `line` draws it one pixel thick.
    ///
    /// # Panics
    /// If `side` is not 3, 5 or 7, or a point lies outside the grid.
    pub fn line(side: usize, from: (usize, usize), to: (usize, usize)) -> Self {
        assert!([3, 5, 7].contains(&side), "the grid has a side of 3, 5 or 7");
        assert!([from.0, from.1, to.0, to.1].into_iter().all(|v| v < side), "the line lies in the grid");
        // Drawn from left to right whichever end comes first, which decides where its steps are.
        let (from, to) = if to.0 < from.0 { (to, from) } else { (from, to) };
        let across = to.0 - from.0;
        let down = to.1.abs_diff(from.1);
        let (long, short) = (across.max(down) as i32, across.min(down) as i32);
        let step_y = if to.1 < from.1 { -1 } else { 1 };
        let (mut x, mut y) = (from.0 as i32, from.1 as i32);
        let mut error = long - 2 * short;
        let mut mask = 0;
        for _ in 0..=long {
            mask |= 1 << (y as usize * side + x as usize);
            let turn = error < 0;
            error += if turn { 2 * long } else { 0 } - 2 * short;
            if down > across {
                y += step_y;
                x += i32::from(turn);
            } else {
                x += 1;
                y += if turn { step_y } else { 0 };
            }
        }
        Self { side, mask }
    }

    /// A random line: the side, then both x, then both y (distinct if the x are equal).
    pub fn sample(rng: &mut SeededRng) -> Self {
        let side = 3 + 2 * rng.below(3);
        let mut draw = |n: u64| rng.below(n) as usize;
        let (x0, x1) = (draw(side), draw(side));
        let y0 = draw(side);
        let y1 = if x0 == x1 {
            let other = draw(side - 1);
            other + usize::from(other >= y0)
        } else {
            draw(side)
        };
        Self::line(side as usize, (x0, y0), (x1, y1))
    }

    /// Side of the grid.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Bit `y * side + x` is set where the line passes.
    pub fn mask(&self) -> u64 {
        self.mask
    }
}

/// The mean of the pixels under the kernel, rounded to nearest, ties to even.
#[inline(always)]
pub(super) fn motion_blur(image: &mut [u8], size: usize, kernel: &MotionKernel, scratch: &mut Scratch) {
    /// Values that are summed at a time, in registers.
    const GROUP: usize = 64;
    const BITS: u32 = 15;
    let side = kernel.side;
    let stride = pad(image, size, side / 2, &mut scratch.image);
    scratch.image.resize(scratch.image.len() + GROUP, 0);
    let n = kernel.mask.count_ones() as u16;
    let mut taps = [0; MotionKernel::MAX_SIDE];
    let set = (0..side * side).filter(|i| kernel.mask >> i & 1 == 1);
    taps.iter_mut().zip(set).for_each(|(tap, i)| *tap = i / side * stride + i % side * 3);
    // Exact for sums up to 7 * 255: the reciprocal is rounded up and the product's error stays below 1 / 7.
    let reciprocal = (1u32 << BITS).div_ceil(u32::from(n));
    for (y, row) in image.chunks_exact_mut(size * 3).enumerate() {
        for (i, group) in row.chunks_mut(GROUP).enumerate() {
            let padded = &scratch.image[y * stride + i * GROUP..];
            let mut sums = [0; GROUP];
            for &tap in &taps[..usize::from(n)] {
                for (sum, &p) in sums.iter_mut().zip(&padded[tap..][..GROUP]) {
                    *sum += u16::from(p);
                }
            }
            for (out, &sum) in group.iter_mut().zip(&sums) {
                let quotient = ((u32::from(sum) * reciprocal) >> BITS) as u16;
                let rest = sum - quotient * n;
                *out = (quotient + u16::from(2 * rest + (quotient & 1) > n)) as u8;
            }
        }
    }
}

/// `(1 - alpha) * p + alpha * ((8 + lightness) * p - the eight neighbours)`, cut off at 0 and 255, rounded to
/// nearest, ties to even.
#[inline(always)]
pub(super) fn sharpen(image: &mut [u8], size: usize, alpha: f64, lightness: f64, scratch: &mut Scratch) {
    let stride = pad(image, size, 1, &mut scratch.image);
    let around = alpha as f32;
    let centre = (1.0 - alpha) as f32 + around * (8.0 + lightness) as f32;
    scratch.sums.resize(stride, 0);
    for (y, row) in image.chunks_exact_mut(size * 3).enumerate() {
        let padded = |row: usize| &scratch.image[(y + row) * stride..][..stride];
        for (((sum, &a), &b), &c) in scratch.sums.iter_mut().zip(padded(0)).zip(padded(1)).zip(padded(2)) {
            *sum = u16::from(a) + u16::from(b) + u16::from(c);
        }
        let sums = |column: usize| &scratch.sums[3 * column..][..size * 3];
        for (((p, &a), &b), &c) in row.iter_mut().zip(sums(0)).zip(sums(1)).zip(sums(2)) {
            let neighbours = a + b + c - u16::from(*p);
            let value = centre * f32::from(*p) - around * f32::from(neighbours);
            *p = (value.clamp(0.0, 255.0) + ROUND).to_bits() as u8;
        }
    }
}

/// Copies an image with `border` mirrored pixels on each side; returns the length of a row.
#[inline(always)]
fn pad(image: &[u8], size: usize, border: usize, padded: &mut Vec<u8>) -> usize {
    padded.clear();
    let outside = |at: usize| reflect(at as i32 - border as i32, size) as usize;
    for y in 0..size + 2 * border {
        let row = &image[outside(y) * size * 3..][..size * 3];
        let pixel = |x: usize| &row[outside(x) * 3..][..3];
        (0..border).for_each(|x| padded.extend_from_slice(pixel(x)));
        padded.extend_from_slice(row);
        (size + border..size + 2 * border).for_each(|x| padded.extend_from_slice(pixel(x)));
    }
    (size + 2 * border) * 3
}
