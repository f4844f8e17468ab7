//! Activations of bytes.

use crate::BLOCK;
use crate::grouped::{Grouped, Stored};

/// Activations of bytes, laid out as the [module](super) says.
pub type Int8Activation = Grouped<u8>;

impl Stored for u8 {
    const WIDTH: usize = BLOCK;

    fn plane_len(rows: usize) -> usize {
        super::plane_len(rows)
    }
}

impl Int8Activation {
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
