//! Images as the first convolution reads them.

use crate::{Images, Pixels};
use rrr_kernels::{Buffer, Pool};
use std::ops::Range;

/// Zero padding of the 7x7 convolution.
const PAD: usize = 3;

/// Normalised images with their zero border, `[n][height + 6][width + 6][3]`.
#[derive(Default)]
pub(crate) struct PaddedImages {
    data: Buffer,
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

impl PaddedImages {
    /// Takes in a batch.
    ///
    /// # Panics
    /// If the number of pixels is not what the sizes say.
    pub fn load(&mut self, images: &Images<'_>, pool: &Pool) {
        let (n, height, width) = (images.n, images.height, images.width);
        let (padded_width, row) = (width + 2 * PAD, width * 3);
        let len = (height + 2 * PAD) * padded_width * 3;
        if self.size != (height, width) || self.data.len() < n * len {
            self.data = Buffer::zeros(n * len);
        }
        self.size = (height, width);
        self.n = n;
        let count = match images.pixels {
            Pixels::U8 { data, .. } => data.len(),
            Pixels::F32(data) => data.len(),
        };
        assert_eq!(count, n * height * row, "pixels do not match the sizes");
        let tables = match images.pixels {
            Pixels::U8 { normalize, .. } => Some(normalize.tables()),
            Pixels::F32(_) => None,
        };
        pool.for_each_chunk(&mut self.data[..n * len], len, |image, padded| {
            for y in 0..height {
                let to = &mut padded[((y + PAD) * padded_width + PAD) * 3..][..row];
                let from = (image * height + y) * row;
                match images.pixels {
                    Pixels::F32(data) => to.copy_from_slice(&data[from..from + row]),
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

    pub fn all(&self) -> Padded<'_> {
        self.some(0..self.n)
    }

    pub fn some(&self, images: Range<usize>) -> Padded<'_> {
        let len = (self.size.0 + 2 * PAD) * (self.size.1 + 2 * PAD) * 3;
        let data = &self.data[images.start * len..images.end * len];
        Padded { data, n: images.len(), size: self.size }
    }
}

impl crate::Normalize {
    fn tables(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|c| std::array::from_fn(|p| (p as f32 / 255.0 - self.mean[c]) / self.std[c]))
    }
}
