//! Weights in the form of second operands.

use super::super::tiles::Vectors;
use super::super::{Kernels, ZEROS};
use crate::Isa;
use crate::tiles::{SIDE, TILE};

/// Where the weights of up to 32 output channels of a convolution go, rounded.
pub struct Packing<'a> {
    /// `[panel of 16 channels][tap][k][16]`, one or two panels.
    pub weights: &'a [f32],
    pub taps: usize,
    pub k: usize,
    /// Number of these 32 channels among the convolution's.
    pub pair: usize,
    /// Blocks of 16 channels of what the packed weights put out.
    pub panels: usize,
    /// Steps of all parts.
    pub all: usize,
    /// First of this part, and steps of each of its taps.
    pub start: usize,
    pub per_tap: usize,
    /// Whether the packed weights are those of the gradient of the input.
    pub turned: bool,
}

/// A piece of work.
pub struct Task<'a> {
    packing: Packing<'a>,
    packed: &'a mut [u32],
}

impl Packing<'_> {
    /// Rounds and packs into the weights of all parts.
    ///
    /// # Panics
    /// If `packed` has no room.
    pub fn run(self, isa: Isa, packed: &mut [u32]) {
        assert!(packed.len() >= self.panels * self.all * TILE && self.weights.len() >= self.panel_len());
        let kernels = Kernels::new(isa);
        // SAFETY: `Kernels::new` has checked the CPU.
        unsafe { (kernels.pack)(&mut Task { packing: self, packed }) }
    }

    fn panel_len(&self) -> usize {
        self.taps * self.k * SIDE
    }

    /// The tile of a step of a panel among the packed weights.
    #[inline(always)]
    fn tile(&self, panel: usize, tap: usize, step: usize) -> usize {
        let first = panel & !1;
        let width = (self.panels - first).min(2);
        first * self.all + (self.start + tap * self.per_tap + step) * width + panel % 2
    }
}

/// Computes a task.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
pub unsafe fn work<V: Vectors>(task: &mut Task<'_>) {
    let Task { packing: p, packed } = task;
    let (tiles, _) = packed.as_chunks_mut::<TILE>();
    let (weights, _) = p.weights.as_chunks::<SIDE>();
    let row = |panel: usize, tap: usize, k: usize| -> *const f32 {
        let row = (panel * p.taps + tap) * p.k + k;
        if k < p.k && row < weights.len() { weights[row].as_ptr() } else { ZEROS.0.as_ptr() }
    };
    if p.turned {
        let mut rows = [0; TILE];
        for panel in 0..p.panels {
            for tap in 0..p.taps {
                let to = &mut tiles[p.tile(panel, tap, p.pair)];
                for (r, rows) in rows.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                    let k = panel * SIDE + r;
                    // SAFETY: rows of 16 values, and of 16 pairs.
                    unsafe { V::round(row(0, tap, k), row(1, tap, k), rows.as_mut_ptr()) };
                }
                // SAFETY: both are tiles.
                unsafe { V::transpose(rows.as_ptr(), to.as_mut_ptr()) };
            }
        }
        return;
    }
    for panel in 0..p.weights.len() / p.panel_len() {
        for tap in 0..p.taps {
            for step in 0..p.per_tap {
                let to = &mut tiles[p.tile(2 * p.pair + panel, tap, step)];
                for (i, to) in to.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                    let k = (step * SIDE + i) * 2;
                    // SAFETY: as above.
                    unsafe { V::pair(row(panel, tap, k), row(panel, tap, k + 1), to.as_mut_ptr()) };
                }
            }
        }
    }
}
