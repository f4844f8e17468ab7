//! Images at half their size.

use crate::{Images, Pixels};
use rrr_kernels::Pool;

/// Lines that a task makes.
const TASK_LINES: usize = 32;

/// Memory for images at half their size.
#[derive(Default)]
pub(crate) struct Halved {
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Halved {
    /// The means of 2 x 2 pixels, of bytes rounded to the nearest, half up; a last odd line or column is left out.
    ///
    /// # Panics
    /// If the number of pixels is not what the sizes say, or a side is a single pixel.
    pub fn of<'a>(&'a mut self, images: &Images<'_>, pool: &Pool) -> Images<'a> {
        let (height, width) = (images.height / 2, images.width / 2);
        assert!(height > 0 && width > 0, "images of a pixel have no half");
        let len = images.n * height * width * 3;
        let pixels = match images.pixels {
            Pixels::U8 { data, normalize } => {
                self.bytes.resize(len, 0);
                let mean = |p: [u8; 4]| ((p.iter().map(|p| u16::from(*p)).sum::<u16>() + 2) / 4) as u8;
                halve(images, data, &mut self.bytes, mean, pool);
                Pixels::U8 { data: &self.bytes, normalize }
            }
            Pixels::F32(data) => {
                self.values.resize(len, 0.0);
                let mean = |p: [f32; 4]| (p[0] + p[1] + p[2] + p[3]) * 0.25;
                halve(images, data, &mut self.values, mean, pool);
                Pixels::F32(&self.values)
            }
        };
        Images { pixels, n: images.n, height, width }
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        size_of_val(&self.bytes[..]) + size_of_val(&self.values[..])
    }
}

/// Writes the means of `images`, whose pixels are `from`.
fn halve<T: Copy + Send + Sync>(
    images: &Images<'_>,
    from: &[T],
    to: &mut [T],
    mean: impl Fn([T; 4]) -> T + Sync,
    pool: &Pool,
) {
    let (height, row) = (images.height / 2, images.width * 3);
    assert_eq!(from.len(), images.n * images.height * row, "pixels do not match the sizes");
    let line = images.width / 2 * 3;
    pool.for_each_chunk(to, TASK_LINES * line, |task, lines| {
        for (i, to) in lines.chunks_exact_mut(line).enumerate() {
            let (image, y) = ((task * TASK_LINES + i) / height, (task * TASK_LINES + i) % height);
            let (upper, lower) = from[(image * images.height + 2 * y) * row..][..2 * row].split_at(row);
            let (pairs, _) = to.as_chunks_mut::<3>();
            for ((to, upper), lower) in pairs.iter_mut().zip(upper.chunks_exact(6)).zip(lower.chunks_exact(6))
            {
                *to = std::array::from_fn(|c| mean([upper[c], upper[c + 3], lower[c], lower[c + 3]]));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Normalize;

    #[test]
    fn means_of_bytes_are_rounded_half_up_and_odd_edges_left_out() {
        let (n, height, width) = (3, 69, 5);
        let data: Vec<u8> = (0..n * height * width * 3).map(|i| (i * 89 % 256) as u8).collect();
        let normalize = Normalize { mean: [0.0; 3], std: [1.0; 3] };
        let images = Images { pixels: Pixels::U8 { data: &data, normalize }, n, height, width };
        let mut memory = Halved::default();
        let half = memory.of(&images, &Pool::new(2));
        assert_eq!((half.n, half.height, half.width), (n, 34, 2));
        let Pixels::U8 { data: halves, .. } = half.pixels else { panic!("bytes stay bytes") };
        let at = |image: usize, y: usize, x: usize, c: usize| {
            f64::from(data[((image * height + y) * width + x) * 3 + c])
        };
        for (i, half) in halves.iter().enumerate() {
            let (image, y, x, c) = (i / (34 * 2 * 3), i / (2 * 3) % 34 * 2, i / 3 % 2 * 2, i % 3);
            let sum = at(image, y, x, c)
                + at(image, y, x + 1, c)
                + at(image, y + 1, x, c)
                + at(image, y + 1, x + 1, c);
            assert_eq!(f64::from(*half), (sum / 4.0 + 0.5).floor());
        }
    }

    #[test]
    fn values_are_averaged() {
        let data: Vec<f32> = (0..2 * 4 * 3).map(|i| i as f32).collect();
        let images = Images { pixels: Pixels::F32(&data), n: 1, height: 2, width: 4 };
        let mut memory = Halved::default();
        let Pixels::F32(halves) = memory.of(&images, &Pool::new(1)).pixels else {
            panic!("values stay values")
        };
        assert_eq!(halves, [7.5, 8.5, 9.5, 13.5, 14.5, 15.5]);
    }
}
