//! Activations of bytes.

use super::{Int8Compute, Layout};
use crate::grouped::{Grouped, Stored};
use crate::tiles::plane_rows;

/// Activations of bytes, laid out as the [module](super) says.
pub type Int8Activation = Grouped<u8>;

impl Stored for u8 {
    fn plane_len(rows: usize, width: usize) -> usize {
        if width == Layout::Vectors.width() { super::plane_len(rows) } else { plane_rows(rows) * width }
    }
}

impl Int8Activation {
    /// An empty one, for convolutions of `compute`: the width of its blocks depends on the instruction set.
    pub fn new(compute: &Int8Compute) -> Self {
        Self::with_block(compute.width())
    }

    /// A value.
    ///
    /// # Panics
    /// If there is no such value.
    pub fn get(&self, group: usize, image: usize, channel: usize, pixel: usize) -> u8 {
        self.data()[self.index(group, image, channel, pixel)]
    }

    /// Sets a value.
    ///
    /// # Panics
    /// If there is no such value.
    pub fn set(&mut self, group: usize, image: usize, channel: usize, pixel: usize, value: u8) {
        let at = self.index(group, image, channel, pixel);
        self.data_mut()[at] = value;
    }
}
