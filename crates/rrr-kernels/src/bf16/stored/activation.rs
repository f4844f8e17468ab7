//! Activations of bf16.

use super::super::Kernels;
use super::super::tiles::{Tiles, bf16};
use super::WIDTH;
use crate::grouped::{Grouped, Stored};
use crate::tiles::{SIDE, plane_rows};
use crate::{Activation, BLOCK, Isa, Pool};

/// Activations of bf16, as bits: blocks of 32 channels.
pub type Bf16Activation = Grouped<u16>;

impl Stored for u16 {
    fn plane_len(rows: usize, width: usize) -> usize {
        plane_rows(rows) * width
    }
}

impl Default for Bf16Activation {
    fn default() -> Self {
        Self::with_block(WIDTH)
    }
}

impl Bf16Activation {
    /// A value.
    ///
    /// # Panics
    /// If there is no such value.
    pub fn get(&self, group: usize, image: usize, channel: usize, pixel: usize) -> f32 {
        widen(self.data()[self.index(group, image, channel, pixel)])
    }

    /// Sets a value, rounded.
    ///
    /// # Panics
    /// If there is no such value.
    pub fn set(&mut self, group: usize, image: usize, channel: usize, pixel: usize, value: f32) {
        let at = self.index(group, image, channel, pixel);
        self.data_mut()[at] = bf16(value) as u16;
    }

    /// Copies the images of a group to f32, where the first becomes image `at`.
    ///
    /// # Panics
    /// If they have another size or number of channels, or go beyond the last image.
    pub fn put_into(&self, group: usize, to: &mut Activation, at: usize, pool: &Pool) {
        let shape = (to.channels(), (to.height(), to.width()));
        assert_eq!((self.channels(), self.size()), shape, "activations differ in shape");
        let (n, all, pixels) = (self.n(), to.n(), to.height() * to.width());
        assert!(at + n <= all, "there are {all} images");
        let group = &self.data()[group * self.group_len()..];
        pool.for_each(to.planes_mut(), |block, plane| {
            let from = &group[block * BLOCK / WIDTH * self.plane_len()..];
            let half = block * BLOCK % WIDTH;
            for pixel in 0..pixels {
                let from = from[pixel * n * WIDTH..].chunks_exact(WIDTH);
                let to = plane[(pixel * all + at) * BLOCK..][..n * BLOCK].chunks_exact_mut(BLOCK);
                for (to, from) in to.zip(from) {
                    to.iter_mut().zip(&from[half..]).for_each(|(to, from)| *to = widen(*from));
                }
            }
        });
    }
}

/// The value of a bf16.
#[inline(always)]
pub fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds `from` to bf16, as many values as `to` holds.
///
/// # Panics
/// If `from` has fewer.
pub fn round_bf16(isa: Isa, from: &[f32], to: &mut [u16]) {
    // SAFETY: `Kernels::new` checks that the CPU supports the instruction set.
    unsafe { (Kernels::new(isa).round)(from, to) }
}

/// See [`round_bf16`].
///
/// # Safety
/// The CPU must support `T`.
#[inline(always)]
pub unsafe fn round<T: Tiles>(from: &[f32], to: &mut [u16]) {
    let (from, rest) = from[..to.len()].as_chunks::<WIDTH>();
    let (to, rounded) = to.as_chunks_mut::<WIDTH>();
    for (from, to) in from.iter().zip(to) {
        // SAFETY: a row of a first operand is 32 values in their order; the CPU by the caller.
        unsafe { T::round(from.as_ptr(), from.as_ptr().add(SIDE), to.as_mut_ptr().cast()) }
    }
    for (from, to) in rest.iter().zip(rounded) {
        *to = bf16(*from) as u16;
    }
}
