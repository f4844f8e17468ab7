//! Activations of bf16.

use super::super::Kernels;
use super::super::tiles::{Vectors, bf16};
use super::WIDTH;
use crate::Isa;
use crate::grouped::{Grouped, Stored};
use crate::tiles::{SIDE, plane_rows};

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
/// The CPU must support `V`.
#[inline(always)]
pub unsafe fn round<V: Vectors>(from: &[f32], to: &mut [u16]) {
    let (from, rest) = from[..to.len()].as_chunks::<WIDTH>();
    let (to, rounded) = to.as_chunks_mut::<WIDTH>();
    for (from, to) in from.iter().zip(to) {
        // SAFETY: a row of a first operand is 32 values in their order; the CPU by the caller.
        unsafe { V::round(from.as_ptr(), from.as_ptr().add(SIDE), to.as_mut_ptr().cast()) }
    }
    for (from, to) in rest.iter().zip(rounded) {
        *to = bf16(*from) as u16;
    }
}
