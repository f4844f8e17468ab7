//! What becomes of gradients of weights.

use super::super::super::ZEROS;
use super::super::super::stored::{Bf16Copy, Places};
use super::super::super::tiles::Vectors;
use crate::BLOCK;
use crate::adamw::{AdamWTensor, SharedTensor};
use crate::conv::Conv;
use crate::shared::SharedMut;
use std::ops::Range;

/// Packed weights ([`Conv::pack`]) of one group, which a step of the optimiser changes, and with them their copies.
pub struct Bf16Weights<'a> {
    /// The weights.
    pub tensor: AdamWTensor<'a>,
    /// Those of the forward pass, and of the input's gradient, if there are any.
    pub copies: [Option<Bf16Copy<'a>>; 2],
}

/// What becomes of the gradient of one group.
#[expect(clippy::large_enum_variant, reason = "a list of one per group")]
pub enum Outcome<'a> {
    Stored(SharedMut<'a>),
    Updated(Updated<'a>),
}

/// Weights of one group that tasks change, with their copies.
pub struct Updated<'a> {
    tensor: SharedTensor<'a>,
    copies: [Option<(Places, SharedMut<'a, u32>)>; 2],
}

impl<'a> Outcome<'a> {
    /// # Panics
    /// If the weights are those of another convolution.
    pub fn updated(weights: Bf16Weights<'a>, conv: &Conv) -> Self {
        let Bf16Weights { tensor, copies } = weights;
        let tensor = SharedTensor::new(tensor);
        assert_eq!(tensor.len(), conv.packed_len(), "weights of another shape");
        let copies = copies.map(|copy| {
            copy.map(|copy| {
                let (places, packed) = copy.of(conv);
                (places, SharedMut::new(packed))
            })
        });
        Self::Updated(Updated { tensor, copies })
    }

    /// Fetches what [`take`](Self::take) will change of some weights.
    #[inline(always)]
    pub fn fetch(&self, at: Range<usize>, tile: (usize, usize, usize)) {
        if let Self::Updated(Updated { tensor, copies }) = self {
            tensor.fetch(at);
            for (places, packed) in copies.iter().flatten() {
                places.fetch(tile, packed.as_ptr());
            }
        }
    }

    /// Takes the gradients of up to 16 x 16 weights, from `at` on, of `tile`: number of a panel, a tap and a block of k.
    ///
    /// # Safety
    /// The CPU must support `V`, and no other task have these weights.
    #[inline(always)]
    pub unsafe fn take<V: Vectors>(&self, gradient: &[f32], at: usize, tile: (usize, usize, usize)) {
        // SAFETY: nobody else has these weights or their places among the copies, by the caller.
        unsafe {
            match self {
                Self::Stored(dw) => dw.part(at, gradient.len()).copy_from_slice(gradient),
                Self::Updated(Updated { tensor, copies }) => {
                    let mut tensor = tensor.part(at, gradient.len());
                    tensor.run(gradient);
                    let (weights, _) = tensor.params.as_chunks::<BLOCK>();
                    let rows =
                        std::array::from_fn(|i| weights.get(i).map_or(ZEROS.0.as_ptr(), |row| row.as_ptr()));
                    for (places, packed) in copies.iter().flatten() {
                        places.write::<V>(&rows, tile, packed.as_ptr());
                    }
                }
            }
        }
    }
}
