//! What JPEG compression does to an image, without writing the file.
//!
//! Entropy coding loses nothing, so compressing and decompressing is colour conversion, 4:2:0 subsampling, DCT,
//! quantisation, and back. Every step here is libjpeg's in its default setting (accurate integer DCT, smooth
//! upsampling), so that the result equals that of a real file bit for bit.

use super::words::{from_words, to_words};

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
    /// A row of chrominance interpolated vertically, times 4, with its ends repeated; and at full resolution.
    columns: Vec<u16>,
    rows: [Vec<u16>; 2],
    /// A row of pixels, a word each.
    pixels: Vec<u32>,
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
#[inline(always)]
pub fn compress(image: &mut [u8], size: usize, quality: u32, planes: &mut Planes) {
    to_luma_chroma(image, size, planes);
    let half = size.div_ceil(2);
    for (full, half_plane) in planes.full.iter().zip(&mut planes.half) {
        subsample(full, half_plane, half);
    }
    // An edge block is cut where its component ends, not where the image's 16 x 16 unit does.
    let (luminance, chrominance) = (divisors(&LUMINANCE, quality), divisors(&CHROMINANCE, quality));
    let [blue, red] = &mut planes.half;
    for (plane, side, divisors) in
        [(&mut planes.luma, size, &luminance), (blue, half, &chrominance), (red, half, &chrominance)]
    {
        transform(plane, side, divisors);
    }
    to_rgb(image, size, half, planes);
}

/// A table scaled for a quality, column by column.
fn divisors(table: &[u32; 64], quality: u32) -> [Divisor; 64] {
    let quality = quality.clamp(1, 100);
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    std::array::from_fn(|i| {
        let at_half = table[i % BLOCK * BLOCK + i / BLOCK];
        Divisor::new(((at_half * percent + 50) / 100).clamp(1, 255))
    })
}

/// A factor with 16 fraction bits.
const fn fixed(factor: f64) -> i32 {
    (factor * 65536.0 + 0.5) as i32
}

#[inline(always)]
fn to_luma_chroma(image: &[u8], size: usize, planes: &mut Planes) {
    const HALF: i32 = 1 << 15;
    const CENTRE: i32 = (128 << 16) + HALF - 1;
    planes.luma.resize(size, 2 * BLOCK);
    planes.full.iter_mut().for_each(|plane| plane.resize(size, 2 * BLOCK));
    planes.pixels.resize(size, 0);
    let stride = planes.luma.stride;
    let [blue, red] = &mut planes.full;
    let rows = planes.luma.samples.chunks_exact_mut(stride);
    let rows = rows.zip(blue.samples.chunks_exact_mut(stride)).zip(red.samples.chunks_exact_mut(stride));
    for (line, ((luma, blue), red)) in image.chunks_exact(size * 3).zip(rows) {
        to_words(line, &mut planes.pixels);
        for (((word, y), cb), cr) in planes.pixels.iter().zip(luma).zip(blue).zip(red) {
            let (b, g, r) = ((word & 255) as i32, (word >> 8 & 255) as i32, (word >> 16) as i32);
            *y = ((fixed(0.299) * r + fixed(0.587) * g + fixed(0.114) * b + HALF) >> 16) as u8;
            *cb = ((fixed(0.5) * b - fixed(0.168735892) * r - fixed(0.331264108) * g + CENTRE) >> 16) as u8;
            *cr = ((fixed(0.5) * r - fixed(0.418687589) * g - fixed(0.081312411) * b + CENTRE) >> 16) as u8;
        }
    }
    planes.luma.pad(size);
    planes.full.iter_mut().for_each(|plane| plane.pad(size));
}

/// Means of 2 x 2 samples, rounded down and up in turn.
#[inline(always)]
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

/// Blocks that are transformed side by side: every step is done for all of them at once, one a lane.
const LANES: usize = 16;

/// A row or a column of a block.
type Line = [i32; BLOCK];

/// The values of a row or a column of every block.
type Lines = [[i32; LANES]; BLOCK];

/// Transforms, quantises and transforms back every block that holds samples within `side`.
#[inline(always)]
fn transform(plane: &mut Plane, side: usize, table: &[Divisor; 64]) {
    let across = side.div_ceil(BLOCK);
    let stride = plane.stride / BLOCK;
    let (rows, _) = plane.samples.as_chunks_mut::<BLOCK>();
    let mut blocks = [[[0; LANES]; BLOCK]; BLOCK];
    let mut words = [0; LANES];
    for first in (0..across * across).step_by(LANES) {
        let mut starts = [0; LANES];
        for (lane, start) in starts.iter_mut().enumerate() {
            // Lanes left over repeat the last block.
            let block = (first + lane).min(across * across - 1);
            *start = block / across * BLOCK * stride + block % across;
        }
        for (y, row) in blocks.iter_mut().enumerate() {
            for (word, start) in words.iter_mut().zip(&starts) {
                *word = u64::from_le_bytes(rows[start + y * stride]);
            }
            for (lane, word) in words.iter().enumerate() {
                set(row, lane, forward::<2>(unpack(*word)));
            }
        }
        for x in 0..BLOCK {
            let mut column = [[0; LANES]; BLOCK];
            for (values, row) in column.iter_mut().zip(&blocks) {
                *values = row[x];
            }
            for lane in 0..LANES {
                let line = forward::<-2>(get(&column, lane));
                set(&mut column, lane, inverse::<11>(quantize(line, &table[x * BLOCK..])));
            }
            for (values, row) in column.iter().zip(&mut blocks) {
                row[x] = *values;
            }
        }
        for (y, row) in blocks.iter().enumerate() {
            for (lane, word) in words.iter_mut().enumerate() {
                *word = pack(inverse::<18>(get(row, lane)));
            }
            for (word, start) in words.iter().zip(&starts) {
                rows[start + y * stride] = word.to_le_bytes();
            }
        }
    }
}

/// The line of one block.
#[inline(always)]
fn get(lines: &Lines, lane: usize) -> Line {
    let mut line = [0; BLOCK];
    line.iter_mut().zip(lines).for_each(|(value, values)| *value = values[lane]);
    line
}

#[inline(always)]
fn set(lines: &mut Lines, lane: usize, line: Line) {
    lines.iter_mut().zip(line).for_each(|(values, value)| values[lane] = value);
}

/// Eight samples, the first in the lowest byte, as values about zero.
#[inline(always)]
fn unpack(word: u64) -> Line {
    let mut line = [0; BLOCK];
    for (i, value) in line.iter_mut().enumerate() {
        *value = i32::from((word >> (8 * i)) as u8) - 128;
    }
    line
}

/// Values about zero as eight samples.
#[inline(always)]
fn pack(line: Line) -> u64 {
    let mut word = 0;
    for (i, value) in line.into_iter().enumerate() {
        word |= ((value + 128).clamp(0, 255) as u64) << (8 * i);
    }
    word
}

/// A quantisation step.
#[derive(Clone, Copy)]
struct Divisor {
    step: i32,
    /// With [`Self::BITS`] fraction bits, rounded up.
    reciprocal: u32,
}

impl Divisor {
    const BITS: u32 = 20;

    fn new(step: u32) -> Self {
        Self { step: step as i32, reciprocal: (1u32 << Self::BITS).div_ceil(step) }
    }
}

/// Rounds coefficients, which the transform scaled by 8, to multiples of their divisors.
#[inline(always)]
fn quantize(mut line: Line, divisors: &[Divisor]) -> Line {
    for (value, divisor) in line.iter_mut().zip(divisors) {
        // Below 2^11, as coefficients are within 2^13: the quotient is exact, the product's error staying below 1 / step.
        let dividend = (value.unsigned_abs() + 4 * divisor.step as u32) >> 3;
        let magnitude = ((dividend * divisor.reciprocal) >> Divisor::BITS) as i32 * divisor.step;
        *value = if *value < 0 { -magnitude } else { magnitude };
    }
    line
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

#[inline(always)]
fn descale<const BITS: u32>(value: i32) -> i32 {
    (value + (1 << (BITS - 1))) >> BITS
}

/// The forward DCT of Loeffler, Ligtenberg and Moschytz. `EXTRA` fraction bits are gained (first pass) or given up
/// (second pass).
#[inline(always)]
fn forward<const EXTRA: i32>(d: Line) -> Line {
    let even = |v: i32| if EXTRA > 0 { v << 2 } else { descale::<2>(v) };
    let odd = |v: i32| if EXTRA > 0 { descale::<11>(v) } else { descale::<15>(v) };
    let (s0, s1, s2, s3) = (d[0] + d[7], d[1] + d[6], d[2] + d[5], d[3] + d[4]);
    let (t7, t6, t5, t4) = (d[0] - d[7], d[1] - d[6], d[2] - d[5], d[3] - d[4]);
    let (a0, a3, a1, a2) = (s0 + s3, s0 - s3, s1 + s2, s1 - s2);
    let z = (a2 + a3) * F_0_541;
    let z5 = (t4 + t6 + t5 + t7) * F_1_175;
    let (z1, z2) = (-(t4 + t7) * F_0_899, -(t5 + t6) * F_2_562);
    let (z3, z4) = (z5 - (t4 + t6) * F_1_961, z5 - (t5 + t7) * F_0_390);
    [
        even(a0 + a1),
        odd(t7 * F_1_501 + z1 + z4),
        odd(z + a3 * F_0_765),
        odd(t6 * F_3_072 + z2 + z3),
        even(a0 - a1),
        odd(t5 * F_2_053 + z2 + z4),
        odd(z - a2 * F_1_847),
        odd(t4 * F_0_298 + z1 + z3),
    ]
}

/// The inverse DCT, which loses `BITS` fraction bits.
#[inline(always)]
fn inverse<const BITS: u32>(d: Line) -> Line {
    let z = (d[2] + d[6]) * F_0_541;
    let (e2, e3) = (z - d[6] * F_1_847, z + d[2] * F_0_765);
    let (e0, e1) = ((d[0] + d[4]) << 13, (d[0] - d[4]) << 13);
    let (a0, a3, a1, a2) = (e0 + e3, e0 - e3, e1 + e2, e1 - e2);
    let (t0, t1, t2, t3) = (d[7], d[5], d[3], d[1]);
    let z5 = (t0 + t2 + t1 + t3) * F_1_175;
    let (z1, z2) = (-(t0 + t3) * F_0_899, -(t1 + t2) * F_2_562);
    let (z3, z4) = (z5 - (t0 + t2) * F_1_961, z5 - (t1 + t3) * F_0_390);
    let o0 = t0 * F_0_298 + z1 + z3;
    let o1 = t1 * F_2_053 + z2 + z4;
    let o2 = t2 * F_3_072 + z2 + z3;
    let o3 = t3 * F_1_501 + z1 + z4;
    let out = |value: i32| descale::<BITS>(value);
    [
        out(a0 + o3),
        out(a1 + o2),
        out(a2 + o1),
        out(a3 + o0),
        out(a3 - o0),
        out(a2 - o1),
        out(a1 - o2),
        out(a0 - o3),
    ]
}

/// Interpolates the chrominance, 3/4 of the nearest sample and 1/4 of the next in each direction, and converts.
#[inline(always)]
fn to_rgb(image: &mut [u8], size: usize, half: usize, planes: &mut Planes) {
    const ROUND: i32 = 1 << 15;
    for (y, line) in image.chunks_exact_mut(size * 3).enumerate() {
        let near = y / 2;
        let far = if y % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(half - 1) };
        for (row, plane) in planes.rows.iter_mut().zip(&planes.half) {
            row.resize(2 * half, 0);
            interpolate(&plane.row(near)[..half], &plane.row(far)[..half], &mut planes.columns, row);
        }
        let luma = planes.luma.row(y);
        let [blue, red] = &planes.rows;
        for (((word, &y), &cb), &cr) in planes.pixels.iter_mut().zip(luma).zip(blue).zip(red) {
            let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
            let r = y + ((fixed(1.402) * cr + ROUND) >> 16);
            let g = y + ((-fixed(0.34414) * cb - fixed(0.71414) * cr + ROUND) >> 16);
            let b = y + ((fixed(1.772) * cb + ROUND) >> 16);
            let value = |v: i32| v.clamp(0, 255) as u32;
            *word = value(b) | value(g) << 8 | value(r) << 16;
        }
        from_words(&planes.pixels, line);
    }
}

/// Doubles a row of chrominance between two rows of samples.
#[inline(always)]
fn interpolate(near: &[u8], far: &[u8], columns: &mut Vec<u16>, out: &mut [u16]) {
    let column = |(&near, &far): (&u8, &u8)| 3 * u16::from(near) + u16::from(far);
    columns.clear();
    columns.extend(near.first().zip(far.first()).map(column));
    columns.extend(near.iter().zip(far).map(column));
    columns.extend(near.last().zip(far.last()).map(column));
    for (pair, columns) in out.as_chunks_mut::<2>().0.iter_mut().zip(columns.array_windows()) {
        let [before, this, after] = *columns;
        *pair = [(3 * this + before + 8) >> 4, (3 * this + after + 7) >> 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_exact() {
        const LARGEST: i32 = 1 << 14;
        for step in 1..=255 {
            let divisors = [Divisor::new(step as u32); BLOCK];
            for value in -LARGEST..=LARGEST {
                let quotient = (value.abs() + 4 * step) / (8 * step) * value.signum();
                assert_eq!(quantize([value; BLOCK], &divisors)[0], quotient * step, "{value} by {step}");
            }
        }
    }
}
