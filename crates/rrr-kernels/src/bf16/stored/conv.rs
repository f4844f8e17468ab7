//! Convolutions of activations in bf16: weight packing and forward.

use super::super::tiles::TILE;
use super::plan::{Part, RowsPlan};
use super::{WIDTH, plane_rows, run};
use crate::compute::Compute;
use crate::conv::Conv;
use crate::{Aligned, BLOCK, Isa, blocks};

/// A convolution of one input, or the sum of two convolutions of different inputs (the last one of a bottleneck
/// and the one on its skip path).
///
/// Packed weights are `[cout / 32][input][tap][k / 32][2][16 pairs of k][16]`, without the second tile where the last
/// 32 output channels are 16 or less: all second operands of a product one after another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bf16Conv {
    parts: Vec<Conv>,
}

impl Bf16Conv {
    /// One convolution.
    pub fn new(conv: Conv) -> Self {
        Self { parts: vec![conv] }
    }

    /// The sum of two.
    ///
    /// # Panics
    /// If their numbers of output channels differ, or one reads images.
    pub fn sum(first: Conv, second: Conv) -> Self {
        assert!(first.cout == second.cout && !first.rgb && !second.rgb, "convolutions of different shapes");
        Self { parts: vec![first, second] }
    }

    /// Output channels.
    pub fn cout(&self) -> usize {
        self.parts[0].cout
    }

    /// Steps of 32 values of k of all taps and inputs.
    fn steps(&self) -> usize {
        self.parts.iter().map(Conv::rounded_len).sum::<usize>() / (blocks(self.cout()) * TILE)
    }

    /// Number of pairs of packed weights.
    pub fn packed_len(&self) -> usize {
        self.parts.iter().map(Conv::rounded_len).sum()
    }

    /// Number of weights, without padding: the multiply-accumulates of one output pixel.
    pub fn weights(&self) -> usize {
        self.parts.iter().map(|c| c.cout * c.cin * c.kernel * c.kernel).sum()
    }

    /// Rounds and packs weights, for each part as [`Conv::pack`] makes them.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, isa: Isa, weights: &[&[f32]], packed: &mut [u32]) {
        assert_eq!(weights.len(), self.parts.len(), "weights for every part");
        assert_eq!(packed.len(), self.packed_len());
        let (panels, all) = (blocks(self.cout()), self.steps());
        let (packed, _) = packed.as_chunks_mut::<TILE>();
        let mut start = 0;
        for (conv, weights) in self.parts.iter().zip(weights) {
            let mut rounded = Aligned::zeros(conv.rounded_len());
            conv.round(isa, weights, &mut rounded);
            let steps = conv.rounded_len() / (panels * TILE);
            for (panel, tiles) in rounded.as_chunks::<TILE>().0.chunks_exact(steps).enumerate() {
                let pair = panel & !1;
                let width = (panels - pair).min(2);
                for (step, tile) in tiles.iter().enumerate() {
                    packed[pair * all + (start + step) * width + panel % 2] = *tile;
                }
            }
            start += steps;
        }
    }
}

/// One run of a [`Bf16Plan`]: for every group `y = relu(sum + bias + residual)`.
pub struct Bf16Job<'a> {
    /// Input of each part: planes of all groups, or of a single one that all groups share; padded RGB images
    /// `[n][height + 6][width + 6][3]` and [`IMAGE_SLACK`](super::super::IMAGE_SLACK) finite numbers more.
    pub x: &'a [&'a [u16]],
    /// Packed weights of all groups.
    pub w: &'a [u32],
    /// One value per group and output channel, padded to whole blocks of 32.
    pub bias: &'a [f32],
    /// Planes of the output's shape.
    pub residual: Option<&'a [u16]>,
    /// Clamp below at zero.
    pub relu: bool,
    /// Output planes of all groups.
    pub y: &'a mut [u16],
}

/// A [`Bf16Conv`] on inputs of one size: everything about its loops that does not depend on values.
pub struct Bf16Plan {
    pub(super) plan: RowsPlan,
    pub(super) groups: usize,
    /// Blocks of 16 output channels of a group.
    pub(super) panels: usize,
    /// Numbers of an output plane.
    pub(super) y_plane: usize,
    macs: u64,
    out: (usize, usize),
}

impl Bf16Plan {
    /// Plans `conv` for `groups` x `n` images; `sizes` are height and width of each part's input.
    ///
    /// # Panics
    /// If the parts' outputs differ in size.
    pub fn new(conv: &Bf16Conv, sizes: &[(usize, usize)], groups: usize, n: usize) -> Self {
        assert!(n > 0 && groups > 0 && sizes.iter().all(|s| s.0 > 0 && s.1 > 0), "empty input");
        assert_eq!(sizes.len(), conv.parts.len(), "a size for every part");
        let output = |(c, s): (&Conv, &(usize, usize))| (c.output_size(s.0), c.output_size(s.1));
        let mut outputs = conv.parts.iter().zip(sizes).map(output);
        let out = outputs.next().expect("at least one part");
        assert!(outputs.all(|o| o == out), "parts with outputs of different sizes");
        let parts = conv.parts.iter().zip(sizes).map(|(c, s)| Part::new(*c, *s, n)).collect();
        let panels = blocks(conv.cout());
        let rows = out.0 * out.1 * n;
        Self {
            plan: RowsPlan::new(parts, out, panels),
            groups,
            panels,
            y_plane: plane_rows(rows) * WIDTH,
            macs: (groups * conv.weights() * rows) as u64,
            out,
        }
    }

    /// Height and width of the output.
    pub fn output(&self) -> (usize, usize) {
        self.out
    }

    /// Multiply-accumulates of a run, padding not counted.
    pub fn macs(&self) -> u64 {
        self.macs
    }

    /// Blocks of 32 output channels of a group.
    pub(super) fn pairs(&self) -> usize {
        self.panels.div_ceil(2)
    }

    /// Values that `bias` has to hold per group.
    pub(super) fn bias_len(&self) -> usize {
        self.pairs() * 2 * BLOCK
    }

    /// Computes a job on `compute`'s threads.
    ///
    /// # Panics
    /// If a slice of the job has the wrong length.
    pub fn forward(&self, job: Bf16Job<'_>, compute: &Compute) {
        run::run(self, job, compute);
    }
}
