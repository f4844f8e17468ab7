//! What JPEG compression does to an image, without writing the file.
//!
//! Entropy coding loses nothing, so compressing and decompressing is colour conversion, 4:2:0 subsampling, DCT,
//! quantisation, and back. Every step here is libjpeg's in its default setting (accurate integer DCT, smooth
//! upsampling), so that the result equals that of a real file bit for bit.

use super::Scratch;

const BLOCK: usize = 8;

/// Quantisation tables of the JPEG standard's annex K at quality 50, row by row.
const LUMINANCE: [u32; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17,
    22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78,
    87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];
const CHROMINANCE: [u32; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
];

/// The image in luminance and chrominance.
#[derive(Clone, Debug, Default)]
pub(super) struct Planes {
    luma: Plane,
    /// Blue and red difference at full, then at half resolution.
    full: [Plane; 2],
    half: [Plane; 2],
    /// A row of vertically interpolated chrominance, times 4.
    rows: [Vec<u16>; 2],
}

/// Samples in rows of `stride`, both sides padded to whole blocks by repeating the last sample.
#[derive(Clone, Debug, Default)]
struct Plane {
    samples: Vec<u8>,
    stride: usize,
}

impl Plane {
    /// Makes room for `side` x `side` samples rounded up to a multiple of `unit`.
    fn resize(&mut self, side: usize, unit: usize) {
        self.stride = side.next_multiple_of(unit);
        self.samples.resize(self.stride * self.stride, 0);
    }

    /// Repeats the last of `side` columns and rows as far as the plane goes.
    fn pad(&mut self, side: usize) {
        if side == self.stride {
            return;
        }
        for row in self.samples.chunks_exact_mut(self.stride).take(side) {
            let last = row[side - 1];
            row[side..].fill(last);
        }
        let (inside, outside) = self.samples.split_at_mut(side * self.stride);
        let last = &inside[(side - 1) * self.stride..];
        outside.chunks_exact_mut(self.stride).for_each(|row| row.copy_from_slice(last));
    }

    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..][..self.stride]
    }
}

/// Replaces an image `[size, size, 3]` by itself after JPEG compression at a quality of 1 to 100.
///
/// As in the published experiments, OpenCV takes the RGB values for BGR: red is weighted as blue and vice versa.
///
/// # Panics
/// If `image` is not `size * size * 3` long.
pub fn compress(image: &mut [u8], size: usize, quality: u32, scratch: &mut Scratch) {
    assert_eq!(image.len(), size * size * 3, "image must hold size x size RGB pixels");
    let planes = &mut scratch.jpeg;
    to_luma_chroma(image, size, planes);
    let half = size.div_ceil(2);
    for (full, half_plane) in planes.full.iter().zip(&mut planes.half) {
        subsample(full, half_plane, half);
    }
    // An edge block is cut where its component ends, not where the image's 16 x 16 unit does.
    transform(&mut planes.luma, size, &scaled(&LUMINANCE, quality));
    let chrominance = scaled(&CHROMINANCE, quality);
    for plane in &mut planes.half {
        transform(plane, half, &chrominance);
    }
    to_rgb(image, size, half, planes);
}

fn scaled(table: &[u32; 64], quality: u32) -> [i32; 64] {
    let quality = quality.clamp(1, 100);
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    table.map(|q| ((q * percent + 50) / 100).clamp(1, 255) as i32)
}

/// A factor with 16 fraction bits.
const fn fixed(factor: f64) -> i32 {
    (factor * 65536.0 + 0.5) as i32
}

fn to_luma_chroma(image: &[u8], size: usize, planes: &mut Planes) {
    const HALF: i32 = 1 << 15;
    const CENTRE: i32 = (128 << 16) + HALF - 1;
    planes.luma.resize(size, 2 * BLOCK);
    planes.full.iter_mut().for_each(|plane| plane.resize(size, 2 * BLOCK));
    let stride = planes.luma.stride;
    let [blue, red] = &mut planes.full;
    let rows = planes.luma.samples.chunks_exact_mut(stride);
    let rows = rows.zip(blue.samples.chunks_exact_mut(stride)).zip(red.samples.chunks_exact_mut(stride));
    for (line, ((luma, blue), red)) in image.chunks_exact(size * 3).zip(rows) {
        for (((pixel, y), cb), cr) in line.as_chunks::<3>().0.iter().zip(luma).zip(blue).zip(red) {
            let [b, g, r] = pixel.map(i32::from);
            *y = ((fixed(0.299) * r + fixed(0.587) * g + fixed(0.114) * b + HALF) >> 16) as u8;
            *cb = ((fixed(0.5) * b - fixed(0.168735892) * r - fixed(0.331264108) * g + CENTRE) >> 16) as u8;
            *cr = ((fixed(0.5) * r - fixed(0.418687589) * g - fixed(0.081312411) * b + CENTRE) >> 16) as u8;
        }
    }
    planes.luma.pad(size);
    planes.full.iter_mut().for_each(|plane| plane.pad(size));
}

/// Means of 2 x 2 samples, rounded down and up in turn.
fn subsample(full: &Plane, half: &mut Plane, side: usize) {
    half.resize(side, BLOCK);
    let stride = half.stride;
    for (y, row) in half.samples.chunks_exact_mut(stride).enumerate().take(side) {
        let top = full.row(2 * y).as_chunks::<2>().0;
        let bottom = full.row(2 * y + 1).as_chunks::<2>().0;
        for (x, ((out, top), bottom)) in row.iter_mut().zip(top).zip(bottom).enumerate() {
            let sum = [top[0], top[1], bottom[0], bottom[1]].into_iter().map(u16::from).sum::<u16>();
            *out = ((sum + 1 + (x as u16 & 1)) >> 2) as u8;
        }
    }
    // Rows below the image repeat the last mean; columns beyond it are means of repeated samples already.
    let (inside, outside) = half.samples.split_at_mut(side * stride);
    let last = &inside[(side - 1) * stride..];
    outside.chunks_exact_mut(stride).for_each(|row| row.copy_from_slice(last));
}

/// Eight values side by side: one step of the transform is done for all of them at once.
type Lanes = [i32; BLOCK];

#[inline]
fn lanes(f: impl Fn(usize) -> i32) -> Lanes {
    std::array::from_fn(f)
}

#[inline(never)] // Inlined into one function, they take the compiler minutes.
fn transpose(block: &[Lanes; BLOCK]) -> [Lanes; BLOCK] {
    let mut out = [[0; BLOCK]; BLOCK];
    for (i, row) in out.iter_mut().enumerate() {
        for (value, from) in row.iter_mut().zip(block) {
            *value = from[i];
        }
    }
    out
}

/// Transforms, quantises and transforms back every block that holds samples within `side`.
fn transform(plane: &mut Plane, side: usize, table: &[i32; 64]) {
    let stride = plane.stride;
    let divisors: [Lanes; BLOCK] = std::array::from_fn(|i| std::array::from_fn(|j| table[i * BLOCK + j]));
    for top in (0..side).step_by(BLOCK) {
        for left in (0..side).step_by(BLOCK) {
            let rows = &mut plane.samples[top * stride..][..BLOCK * stride];
            let block: [Lanes; BLOCK] =
                std::array::from_fn(|y| lanes(|x| i32::from(rows[y * stride + left + x]) - 128));
            let block = forward::<2>(&transpose(&block));
            let mut block = forward::<-2>(&transpose(&block));
            for (row, divisors) in block.iter_mut().zip(&divisors) {
                for (value, &divisor) in row.iter_mut().zip(divisors) {
                    *value = quantize(*value, divisor);
                }
            }
            let block = inverse::<11>(&block);
            let block = transpose(&inverse::<18>(&transpose(&block)));
            for (y, row) in block.iter().enumerate() {
                for (out, &value) in rows[y * stride + left..][..BLOCK].iter_mut().zip(row) {
                    *out = (value + 128).clamp(0, 255) as u8;
                }
            }
        }
    }
}

/// Rounds a coefficient, which the transform scaled by 8, to a multiple of `divisor`.
#[inline]
fn quantize(value: i32, divisor: i32) -> i32 {
    let scaled = divisor * 8;
    let magnitude = match divisor {
        1 => (value.abs() + 4) >> 3,
        2 => (value.abs() + 8) >> 4,
        _ => (value.abs() + scaled / 2) / scaled,
    };
    magnitude * divisor * value.signum()
}

/// Cosine factors with 13 fraction bits, named by their value as in libjpeg.
const F_0_298: i32 = 2446;
const F_0_390: i32 = 3196;
const F_0_541: i32 = 4433;
const F_0_765: i32 = 6270;
const F_0_899: i32 = 7373;
const F_1_175: i32 = 9633;
const F_1_501: i32 = 12299;
const F_1_847: i32 = 15137;
const F_1_961: i32 = 16069;
const F_2_053: i32 = 16819;
const F_2_562: i32 = 20995;
const F_3_072: i32 = 25172;

#[inline]
fn descale<const BITS: u32>(value: i32) -> i32 {
    (value + (1 << (BITS - 1))) >> BITS
}

/// The forward DCT of Loeffler, Ligtenberg and Moschytz along the first index. `EXTRA` fraction bits are gained
/// (first pass) or given up (second pass).
#[inline(never)] // Inlined into one function, they take the compiler minutes.
fn forward<const EXTRA: i32>(d: &[Lanes; BLOCK]) -> [Lanes; BLOCK] {
    let mut out = [[0; BLOCK]; BLOCK];
    for i in 0..BLOCK {
        let even = |v: i32| if EXTRA > 0 { v << 2 } else { descale::<2>(v) };
        let odd = |v: i32| if EXTRA > 0 { descale::<11>(v) } else { descale::<15>(v) };
        let (s0, s1, s2, s3) = (d[0][i] + d[7][i], d[1][i] + d[6][i], d[2][i] + d[5][i], d[3][i] + d[4][i]);
        let (t7, t6, t5, t4) = (d[0][i] - d[7][i], d[1][i] - d[6][i], d[2][i] - d[5][i], d[3][i] - d[4][i]);
        let (a0, a3, a1, a2) = (s0 + s3, s0 - s3, s1 + s2, s1 - s2);
        out[0][i] = even(a0 + a1);
        out[4][i] = even(a0 - a1);
        let z = (a2 + a3) * F_0_541;
        out[2][i] = odd(z + a3 * F_0_765);
        out[6][i] = odd(z - a2 * F_1_847);
        let z5 = (t4 + t6 + t5 + t7) * F_1_175;
        let (z1, z2) = (-(t4 + t7) * F_0_899, -(t5 + t6) * F_2_562);
        let (z3, z4) = (z5 - (t4 + t6) * F_1_961, z5 - (t5 + t7) * F_0_390);
        out[7][i] = odd(t4 * F_0_298 + z1 + z3);
        out[5][i] = odd(t5 * F_2_053 + z2 + z4);
        out[3][i] = odd(t6 * F_3_072 + z2 + z3);
        out[1][i] = odd(t7 * F_1_501 + z1 + z4);
    }
    out
}

/// The inverse DCT along the first index; the result loses `BITS` fraction bits.
#[inline(never)] // Inlined into one function, they take the compiler minutes.
fn inverse<const BITS: u32>(d: &[Lanes; BLOCK]) -> [Lanes; BLOCK] {
    let mut out = [[0; BLOCK]; BLOCK];
    for i in 0..BLOCK {
        let z = (d[2][i] + d[6][i]) * F_0_541;
        let (e2, e3) = (z - d[6][i] * F_1_847, z + d[2][i] * F_0_765);
        let (e0, e1) = ((d[0][i] + d[4][i]) << 13, (d[0][i] - d[4][i]) << 13);
        let (a0, a3, a1, a2) = (e0 + e3, e0 - e3, e1 + e2, e1 - e2);
        let (t0, t1, t2, t3) = (d[7][i], d[5][i], d[3][i], d[1][i]);
        let z5 = (t0 + t2 + t1 + t3) * F_1_175;
        let (z1, z2) = (-(t0 + t3) * F_0_899, -(t1 + t2) * F_2_562);
        let (z3, z4) = (z5 - (t0 + t2) * F_1_961, z5 - (t1 + t3) * F_0_390);
        let o0 = t0 * F_0_298 + z1 + z3;
        let o1 = t1 * F_2_053 + z2 + z4;
        let o2 = t2 * F_3_072 + z2 + z3;
        let o3 = t3 * F_1_501 + z1 + z4;
        for (k, (even, odd)) in [(a0, o3), (a1, o2), (a2, o1), (a3, o0)].into_iter().enumerate() {
            out[k][i] = descale::<BITS>(even + odd);
            out[7 - k][i] = descale::<BITS>(even - odd);
        }
    }
    out
}

/// Interpolates the chrominance, 3/4 of the nearest sample and 1/4 of the next in each direction, and converts.
fn to_rgb(image: &mut [u8], size: usize, half: usize, planes: &mut Planes) {
    const ROUND: i32 = 1 << 15;
    for (y, line) in image.chunks_exact_mut(size * 3).enumerate() {
        let near = y / 2;
        let far = if y % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(half - 1) };
        for (row, plane) in planes.rows.iter_mut().zip(&planes.half) {
            interpolate(&plane.row(near)[..half], &plane.row(far)[..half], row);
        }
        let luma = planes.luma.row(y);
        let [blue, red] = &planes.rows;
        for (((pixel, &y), &cb), &cr) in line.as_chunks_mut::<3>().0.iter_mut().zip(luma).zip(blue).zip(red) {
            let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
            let r = y + ((fixed(1.402) * cr + ROUND) >> 16);
            let g = y + ((-fixed(0.34414) * cb - fixed(0.71414) * cr + ROUND) >> 16);
            let b = y + ((fixed(1.772) * cb + ROUND) >> 16);
            *pixel = [b, g, r].map(|v| v.clamp(0, 255) as u8);
        }
    }
}

/// Doubles a row of chrominance between two rows of samples.
fn interpolate(near: &[u8], far: &[u8], out: &mut Vec<u16>) {
    let column = |x: usize| 3 * u16::from(near[x]) + u16::from(far[x]);
    let last = near.len() - 1;
    out.resize(2 * near.len(), 0);
    for (x, pair) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let this = column(x);
        let (before, after) = (column(x.saturating_sub(1)), column((x + 1).min(last)));
        *pair = [(3 * this + before + 8) >> 4, (3 * this + after + 7) >> 4];
    }
}
