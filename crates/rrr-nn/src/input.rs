//! Images as the first convolution reads them.

use crate::{Images, Pixels};
use rrr_kernels::{Aligned, Compute, Element, IMAGE_SLACK, Isa, round_bf16};
use std::ops::Range;

/// Zero padding of the 7x7 convolution.
const PAD: usize = 3;

/// Lines that a task takes in.
const TASK_LINES: usize = 32;

/// Numbers that a task clears.
const CLEAR_CHUNK: usize = 1 << 16;

/// A number format of padded images.
pub(crate) trait Pixel: Element + Default {
    /// Numbers behind the images that may be read too.
    const SLACK: usize;
    /// Converts as many values as `to` holds.
    fn convert(isa: Isa, from: &[f32], to: &mut [Self]);
}

impl Pixel for f32 {
    const SLACK: usize = 0;
    fn convert(_: Isa, from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
}

/// bf16.
impl Pixel for u16 {
    const SLACK: usize = IMAGE_SLACK;
    fn convert(isa: Isa, from: &[f32], to: &mut [Self]) {
        round_bf16(isa, from, to);
    }
}

/// Normalised images with their zero border, `[n][height + 6][width + 6][3]`.
#[derive(Default)]
pub(crate) struct PaddedImages<T: Pixel = f32> {
    data: Aligned<T>,
    n: usize,
    size: (usize, usize),
}

/// Some of [`PaddedImages`].
#[derive(Clone, Copy)]
pub(crate) struct Padded<'a> {
    pub data: &'a [f32],
    pub n: usize,
    /// Height and width without the border.
    pub size: (usize, usize),
}

impl<T: Pixel> PaddedImages<T> {
    /// Takes in a batch.
    ///
    /// # Panics
    /// If the number of pixels is not what the sizes say.
    pub fn load(&mut self, images: &Images<'_>, compute: &Compute) {
        let (n, height, width) = (images.n, images.height, images.width);
        let (padded_height, padded_width, row) = (height + 2 * PAD, width + 2 * PAD, width * 3);
        let len = padded_height * padded_width * 3;
        if self.data.len() < n * len + T::SLACK {
            self.data = Aligned::zeros(n * len + T::SLACK);
        } else if self.size != (height, width) {
            // The border is elsewhere now, in images beyond these as well.
            compute.pool().for_each_chunk(&mut self.data, CLEAR_CHUNK, |_, part| part.fill(T::default()));
        }
        self.size = (height, width);
        self.n = n;
        let count = match images.pixels {
            Pixels::U8 { data, .. } => data.len(),
            Pixels::F32(data) => data.len(),
        };
        assert_eq!(count, n * height * row, "pixels do not match the sizes");
        let tables = match images.pixels {
            Pixels::U8 { normalize, .. } => Some(normalize.tables().map(|from| {
                let mut table = [T::default(); 256];
                T::convert(compute.isa(), &from, &mut table);
                table
            })),
            Pixels::F32(_) => None,
        };
        let line = padded_width * 3;
        compute.pool().for_each_chunk(&mut self.data[..n * len], TASK_LINES * line, |task, lines| {
            for (i, line) in lines.chunks_exact_mut(line).enumerate() {
                let (image, y) =
                    ((task * TASK_LINES + i) / padded_height, (task * TASK_LINES + i) % padded_height);
                if !(PAD..PAD + height).contains(&y) {
                    continue;
                }
                let to = &mut line[PAD * 3..][..row];
                let from = (image * height + y - PAD) * row;
                match images.pixels {
                    Pixels::F32(data) => T::convert(compute.isa(), &data[from..from + row], to),
                    Pixels::U8 { data, .. } => {
                        let tables = tables.as_ref().expect("made above");
                        let (to, _) = to.as_chunks_mut::<3>();
                        let (from, _) = data[from..from + row].as_chunks::<3>();
                        for (to, from) in to.iter_mut().zip(from) {
                            *to = std::array::from_fn(|c| tables[c][usize::from(from[c])]);
                        }
                    }
                }
            }
        });
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }

    /// All images and what may be read behind them.
    pub fn whole(&self) -> &[T] {
        &self.data[..self.n * self.image_len() + T::SLACK]
    }

    fn image_len(&self) -> usize {
        (self.size.0 + 2 * PAD) * (self.size.1 + 2 * PAD) * 3
    }
}

impl PaddedImages {
    pub fn all(&self) -> Padded<'_> {
        self.some(0..self.n)
    }

    pub fn some(&self, images: Range<usize>) -> Padded<'_> {
        let len = self.image_len();
        let data = &self.data[images.start * len..images.end * len];
        Padded { data, n: images.len(), size: self.size }
    }
}

impl crate::Normalize {
    fn tables(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|c| std::array::from_fn(|p| (p as f32 / 255.0 - self.mean[c]) / self.std[c]))
    }
}
