//! Plain scalar implementations of every layer, of a whole network and of a training step.
//!
//! Nothing here is fast and nothing is clever: loops over NCHW slices, one thread, f32 storage with every sum
//! accumulated in f64. This is the oracle. It is itself checked against PyTorch's outputs and gradients
//! (`tests/golden_reference.rs`), and the fast core is property-tested against it on shapes that no golden
//! file covers (`tests/property_core.rs`). Read it to learn what a layer computes; use [`crate::Network`] and
//! [`crate::Trainer`] to compute it.
//!
//! Functions panic when shapes do not fit together.

pub mod classifier;
pub mod conv;
pub mod elementwise;
mod net;
pub mod norm;
pub mod optim;
pub mod pool;
pub mod sequence;

pub use net::Net;

use crate::{Images, Pixels};

/// Activations of a batch, `[n, c, h, w]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Nchw {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// `n * c * h * w` values.
    pub data: Vec<f32>,
}

impl Nchw {
    /// Wraps `data` of shape `[n, c, h, w]`.
    pub fn new([n, c, h, w]: [usize; 4], data: Vec<f32>) -> Self {
        assert_eq!(data.len(), n * c * h * w, "length of data of shape [{n}, {c}, {h}, {w}]");
        Self { n, c, h, w, data }
    }

    /// `[n, c, h, w]`.
    pub fn shape(&self) -> [usize; 4] {
        [self.n, self.c, self.h, self.w]
    }

    /// Position of an element in `data`.
    pub fn at(&self, n: usize, c: usize, y: usize, x: usize) -> usize {
        ((n * self.c + c) * self.h + y) * self.w + x
    }

    /// A batch of images as the first convolution sees it: normalised, channels first.
    pub fn from_images(images: &Images<'_>) -> Self {
        let Images { n, height, width, .. } = *images;
        let value = |i: usize, channel: usize| match images.pixels {
            Pixels::F32(data) => data[i],
            Pixels::U8 { data, normalize } => {
                (f32::from(data[i]) / 255.0 - normalize.mean[channel]) / normalize.std[channel]
            }
        };
        let mut data = Vec::with_capacity(n * 3 * height * width);
        for image in 0..n {
            for channel in 0..3 {
                for pixel in 0..height * width {
                    data.push(value((image * height * width + pixel) * 3 + channel, channel));
                }
            }
        }
        Self::new([n, 3, height, width], data)
    }
}

/// Rounds sums to storage precision.
fn to_f32(sums: Vec<f64>) -> Vec<f32> {
    sums.into_iter().map(|s| s as f32).collect()
}
