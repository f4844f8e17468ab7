//! How activations and weights lie, by what computes with them.

use super::STEP;
use crate::BLOCK;
use crate::conv::Conv;
use crate::tiles::{ROW_BYTES, SIDE};

/// How activations and weights lie: for vectors or for tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Blocks of 16 channels; weights `[cout / 16][input][tap][step][16][4]`.
    Vectors,
    /// Blocks of 64 channels; weights `[cout / 32][input][tap][k / 64][2][16 steps][16][4]`, see [`crate::tiles`].
    Tiles,
}

impl Layout {
    /// Channels of a block of an activation.
    pub fn width(self) -> usize {
        match self {
            Layout::Vectors => BLOCK,
            Layout::Tiles => ROW_BYTES,
        }
    }

    /// Steps of 4 input channels that every tap has among packed weights.
    pub fn tap_steps(self, conv: &Conv) -> usize {
        match self {
            Layout::Vectors => steps(conv),
            Layout::Tiles => steps(conv).next_multiple_of(SIDE),
        }
    }

    /// Where the 16 x 4 weights of a step of a block of 16 output channels lie, in such units; there are `steps` in all
    /// for each of `panels` blocks.
    pub fn place(self, panel: usize, step: usize, (panels, steps): (usize, usize)) -> usize {
        match self {
            Layout::Vectors => panel * steps + step,
            Layout::Tiles => {
                let first = panel & !1;
                let width = (panels - first).min(2);
                first * steps + (step / SIDE * width + panel % 2) * SIDE + step % SIDE
            }
        }
    }
}

/// Values of k of a tap: input channels, or those of a kernel's row of pixels.
pub(super) fn values(conv: &Conv) -> usize {
    if conv.rgb { conv.kernel * 3 } else { conv.cin }
}

/// Steps of 4 of these.
pub(super) fn steps(conv: &Conv) -> usize {
    values(conv).div_ceil(STEP)
}
