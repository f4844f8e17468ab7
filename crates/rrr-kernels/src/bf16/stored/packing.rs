//! Weights in the form of second operands.

use super::super::tiles::Vectors;
use super::super::{Kernels, ZEROS};
use crate::Isa;
use crate::prefetch::prefetch_to_write;
use crate::tiles::{SIDE, TILE};

/// Where the weights of a part of packed ones lie. Rounded, 16 x 16 weights (of a tap, 16 values of k and 16 output
/// channels) are half of a tile.
#[derive(Clone, Copy)]
pub struct Places {
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

impl Places {
    /// Where the half of a tile begins that [`write`](Self::write) fills.
    #[inline(always)]
    fn half_tile(&self, (panel, tap, block): (usize, usize, usize)) -> usize {
        // What the packed weights put out, and their k.
        let (out, k) = if self.turned { (block, panel) } else { (panel, block) };
        let first = out & !1;
        let width = (self.panels - first).min(2);
        let tile = first * self.all + (self.start + tap * self.per_tap + k / 2) * width + out % 2;
        tile * TILE + k % 2 * (TILE / 2)
    }

    /// Fetches what [`write`](Self::write) will fill.
    #[inline(always)]
    pub fn fetch(&self, place: (usize, usize, usize), packed: *mut u32) {
        let to = packed.wrapping_add(self.half_tile(place));
        for line in 0..TILE / 2 / SIDE {
            prefetch_to_write(to.wrapping_add(line * SIDE));
        }
    }

    /// Rounds 16 x 16 weights, rows of 16 output channels for values of k, and writes them to their place: those of a panel
    /// of output channels, a tap and a block of k.
    ///
    /// # Safety
    /// The CPU must support `V`; rows must hold 16 values, and `packed` all weights.
    #[inline(always)]
    pub unsafe fn write<V: Vectors>(
        &self,
        rows: &[*const f32; SIDE],
        place: (usize, usize, usize),
        packed: *mut u32,
    ) {
        // SAFETY: by the caller; a half of a tile has 8 rows.
        unsafe {
            let to = packed.add(self.half_tile(place));
            if self.turned {
                let (mut tile, mut turned) = ([0.0f32; TILE], [0.0f32; TILE]);
                for (row, to) in rows.iter().zip(tile.as_chunks_mut::<SIDE>().0) {
                    *to = row.cast::<[f32; SIDE]>().read();
                }
                V::transpose(tile.as_ptr().cast(), turned.as_mut_ptr().cast());
                for (i, pair) in turned.chunks_exact(2 * SIDE).enumerate() {
                    V::pair(pair.as_ptr(), pair.as_ptr().add(SIDE), to.add(i * SIDE));
                }
            } else {
                for (i, pair) in rows.as_chunks::<2>().0.iter().enumerate() {
                    V::pair(pair[0], pair[1], to.add(i * SIDE));
                }
            }
        }
    }
}

/// A piece of work: the weights of a part, `[panel of 16 channels][tap][k][16]`.
pub struct Packing<'a> {
    pub weights: &'a [f32],
    pub taps: usize,
    pub k: usize,
    pub places: Places,
    pub packed: &'a mut [u32],
}

impl Packing<'_> {
    /// Rounds and packs into the weights of all parts.
    ///
    /// # Panics
    /// If `packed` has no room.
    pub fn run(mut self, isa: Isa) {
        let Places { panels, all, .. } = self.places;
        assert!(self.packed.len() >= panels * all * TILE, "packed weights of another shape");
        let kernels = Kernels::new(isa);
        // SAFETY: `Kernels::new` has checked the CPU.
        unsafe { (kernels.pack)(&mut self) }
    }
}

/// Computes a task.
///
/// # Safety
/// The CPU must support `V`; `packed` must have room.
#[inline(always)]
pub unsafe fn work<V: Vectors>(task: &mut Packing<'_>) {
    let Packing { weights, taps, k, places, ref mut packed } = *task;
    let (weights, _) = weights.as_chunks::<SIDE>();
    let (panels, blocks) = (weights.len() / (taps * k), k.div_ceil(SIDE));
    // Whole tiles.
    let (all_panels, all_blocks) = if places.turned {
        (panels.next_multiple_of(2), blocks)
    } else {
        (panels, blocks.next_multiple_of(2))
    };
    for panel in 0..all_panels {
        for tap in 0..taps {
            for block in 0..all_blocks {
                let rows = std::array::from_fn(|i| {
                    let row = block * SIDE + i;
                    let is_there = panel < panels && row < k;
                    if is_there { weights[(panel * taps + tap) * k + row].as_ptr() } else { ZEROS.0.as_ptr() }
                });
                // SAFETY: by the caller.
                unsafe { places.write::<V>(&rows, (panel, tap, block), packed.as_mut_ptr()) };
            }
        }
    }
}
