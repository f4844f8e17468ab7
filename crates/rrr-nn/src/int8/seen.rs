//! Images that are kept.

use crate::{Images, Normalize, Pixels};

/// A copy of a batch of images.
pub(super) struct Seen {
    pixels: Kept,
    n: usize,
    height: usize,
    width: usize,
}

enum Kept {
    U8(Vec<u8>, Normalize),
    F32(Vec<f32>),
}

impl Seen {
    pub fn of(images: &Images<'_>) -> Self {
        let pixels = match images.pixels {
            Pixels::U8 { data, normalize } => Kept::U8(data.to_vec(), normalize),
            Pixels::F32(data) => Kept::F32(data.to_vec()),
        };
        Self { pixels, n: images.n, height: images.height, width: images.width }
    }

    pub fn images(&self) -> Images<'_> {
        let pixels = match &self.pixels {
            Kept::U8(data, normalize) => Pixels::U8 { data, normalize: *normalize },
            Kept::F32(data) => Pixels::F32(data),
        };
        Images { pixels, n: self.n, height: self.height, width: self.width }
    }
}
