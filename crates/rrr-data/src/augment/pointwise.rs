//! Operations on single values.

use super::ROUND;

/// Adds a level to each channel, cut off at 0 and 255, fractions dropped.
#[inline(always)]
pub fn rgb_shift(image: &mut [u8], shift: [f64; 3]) {
    /// Values of channels that are shifted at a time.
    const GROUP: usize = 48;
    let shifts: [f32; GROUP] = std::array::from_fn(|i| shift[i % 3] as f32);
    for group in image.chunks_mut(GROUP) {
        group.iter_mut().zip(&shifts).for_each(|(p, shift)| *p = level(f32::from(*p) + shift));
    }
}

/// `contrast * p + 255 * brightness`, cut off at 0 and 255, fractions dropped.
#[inline(always)]
pub fn brightness_contrast(image: &mut [u8], contrast: f64, brightness: f64) {
    let (factor, offset) = (contrast as f32, (brightness * 255.0) as f32);
    image.iter_mut().for_each(|p| *p = level(f32::from(*p) * factor + offset));
}

/// A value cut off at 0 and 255, fractions dropped.
#[inline(always)]
fn level(value: f32) -> u8 {
    let value = value.clamp(0.0, 255.0);
    let nearest = value + ROUND;
    nearest.to_bits() as u8 - u8::from(nearest - ROUND > value)
}

/// Keeps the highest `bits` of every value.
///
/// # Panics
/// If `bits` is above 8.
#[inline(always)]
pub fn posterize(image: &mut [u8], bits: u32) {
    assert!(bits <= 8, "a value has 8 bits");
    let mask = (0xff00u16 >> bits) as u8;
    for p in image {
        *p &= mask;
    }
}

/// Inverts values of at least `threshold`.
#[inline(always)]
pub fn solarize(image: &mut [u8], threshold: u8) {
    image.iter_mut().for_each(|p| *p = if *p < threshold { *p } else { 255 - *p });
}

/// 255 minus every value.
#[inline(always)]
pub fn invert(image: &mut [u8]) {
    image.iter_mut().for_each(|p| *p = 255 - *p);
}

/// Spreads each channel's histogram over 0 to 255, as OpenCV's `equalizeHist`.
#[inline(never)] // Counts and look-ups become slower by attempts at vectorising them.
pub fn equalize(image: &mut [u8]) {
    let (pixels, _) = image.as_chunks::<3>();
    let mut histograms = [[0u32; 256]; 3];
    for pixel in pixels {
        for (histogram, &p) in histograms.iter_mut().zip(pixel) {
            histogram[usize::from(p)] += 1;
        }
    }
    let total = pixels.len() as u32;
    let tables = histograms.map(|histogram| equalizing_table(&histogram, total));
    look_up_channels(image, &tables);
}

fn equalizing_table(histogram: &[u32; 256], total: u32) -> [u8; 256] {
    let Some(first) = histogram.iter().position(|&n| n > 0) else { return std::array::from_fn(|i| i as u8) };
    if histogram[first] == total {
        return [first as u8; 256];
    }
    let scale = 255.0 / (total - histogram[first]) as f32;
    let mut sum = 0;
    std::array::from_fn(|level| {
        if level > first {
            sum += histogram[level];
        }
        (sum as f32 * scale).round_ties_even() as u8
    })
}

fn look_up_channels(image: &mut [u8], tables: &[[u8; 256]; 3]) {
    for pixel in image.as_chunks_mut::<3>().0 {
        for (p, table) in pixel.iter_mut().zip(tables) {
            *p = table[usize::from(*p)];
        }
    }
}
