//! Activations in blocked layout.

use crate::{BLOCK, Buffer, blocks};
use std::ops::Range;

/// Floats from a plane of `rows` rows and a row of zeros to the next plane.
///
/// Large planes lie so many cache lines apart that the same few rows of all blocks of channels are spread evenly over the
/// sets of the first two levels of caches. A power of two, or one more, would send all blocks to a few sets.
pub(crate) fn plane_len(rows: usize) -> usize {
    const PERIOD: usize = 32;
    let lines = rows + 1;
    let lines =
        if lines < 2 * PERIOD { lines } else { lines + (PERIOD / 2 + 1 + PERIOD - lines % PERIOD) % PERIOD };
    lines * BLOCK
}

/// `channels` x `height` x `width` values for each of `n` images, in the layout of the [crate docs](crate).
#[derive(Clone, Default)]
pub struct Activation {
    data: Buffer,
    channels: usize,
    height: usize,
    width: usize,
    n: usize,
}

impl Activation {
    /// All zeros.
    pub fn zeros(channels: usize, height: usize, width: usize, n: usize) -> Self {
        let mut a = Self { channels, height, width, ..Self::default() };
        a.set_batch(n);
        a
    }

    /// Changes the number of images; memory is reused where it suffices. The values are unspecified
    /// afterwards, but for the zero rows.
    pub fn set_batch(&mut self, n: usize) {
        if n == self.n {
            return;
        }
        self.n = n;
        let needed = blocks(self.channels) * self.plane_len();
        if self.data.len() < needed {
            self.data = Buffer::zeros(needed);
        } else {
            for plane in self.planes_mut() {
                let zero = plane.len() - BLOCK;
                plane[zero..].fill(0.0);
            }
        }
    }

    /// Channels, without padding.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of images.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Pixels x images.
    pub fn rows(&self) -> usize {
        self.height * self.width * self.n
    }

    /// Floats from a plane to the next one.
    pub fn plane_len(&self) -> usize {
        plane_len(self.rows())
    }

    /// All planes.
    pub fn data(&self) -> &[f32] {
        &self.data[..blocks(self.channels) * self.plane_len()]
    }

    /// All planes.
    pub fn data_mut(&mut self) -> &mut [f32] {
        let len = blocks(self.channels) * self.plane_len();
        &mut self.data[..len]
    }

    /// All planes, where the row of an image's first pixel comes first: what is put out for `images` goes there.
    ///
    /// # Panics
    /// If there are no such images.
    pub fn images_mut(&mut self, images: Range<usize>) -> &mut [f32] {
        assert!(images.end <= self.n, "there are {} images", self.n);
        &mut self.data_mut()[images.start * BLOCK..]
    }

    /// The planes, one per block of 16 channels, each with its zero row at the end.
    pub fn planes(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        let used = (self.rows() + 1) * BLOCK;
        self.data().chunks_exact(self.plane_len()).map(move |plane| &plane[..used])
    }

    /// As [`Activation::planes`].
    pub fn planes_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [f32]> {
        let (used, len) = ((self.rows() + 1) * BLOCK, self.plane_len());
        self.data_mut().chunks_exact_mut(len).map(move |plane| &mut plane[..used])
    }

    /// One of [`Activation::planes`].
    pub fn plane(&self, block: usize) -> &[f32] {
        &self.data()[block * self.plane_len()..][..(self.rows() + 1) * BLOCK]
    }

    /// Values in PyTorch's order, `[n][channels][height][width]`.
    pub fn to_nchw(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n * self.channels * self.height * self.width];
        self.copy_nchw(&mut out);
        out
    }

    /// Copies the values out in PyTorch's order, `[n][channels][height][width]`.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn copy_nchw(&self, out: &mut [f32]) {
        let pixels = self.height * self.width;
        assert_eq!(out.len(), self.n * self.channels * pixels, "wrong number of values");
        for i in 0..self.n {
            for c in 0..self.channels {
                let plane = &self.data()[c / BLOCK * self.plane_len()..];
                for p in 0..pixels {
                    out[(i * self.channels + c) * pixels + p] = plane[(p * self.n + i) * BLOCK + c % BLOCK];
                }
            }
        }
    }

    /// Sets the values from PyTorch's order, `[n][channels][height][width]`.
    ///
    /// # Panics
    /// If `values` has another length.
    pub fn set_nchw(&mut self, values: &[f32]) {
        let pixels = self.height * self.width;
        assert_eq!(values.len(), self.n * self.channels * pixels, "wrong number of values");
        let (channels, n, plane_len) = (self.channels, self.n, self.plane_len());
        for i in 0..n {
            for c in 0..channels {
                let plane = &mut self.data[c / BLOCK * plane_len..];
                for p in 0..pixels {
                    plane[(p * n + i) * BLOCK + c % BLOCK] = values[(i * channels + c) * pixels + p];
                }
            }
        }
    }
}
