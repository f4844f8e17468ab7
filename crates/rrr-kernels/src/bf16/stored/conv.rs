//! Convolutions of activations in bf16: weight packing and forward.

use super::super::Kernels;
use super::WIDTH;
use super::outcome::Rounded;
use super::packing::{Packing, Places};
use crate::buffer::{bytes, bytes_mut};
use crate::compute::Compute;
use crate::conv::Conv;
use crate::tiles::{Job, Outcome, Part, TILE, TilePlan};
use crate::{Isa, blocks};

/// A convolution of one input, or the sum of two convolutions of different inputs (the last one of a bottleneck
/// and the one on its skip path); or what takes the gradients of their outputs to that of an input they share.
///
/// Packed weights are `[cout / 32][input][tap][k / 32][2][16 pairs of k][16]`, without the second tile where the last
/// 32 output channels are 16 or less: all second operands of a product one after another. For a gradient, `cout` stands
/// for the channels of the convolutions' input, and k for those of their outputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bf16Conv {
    parts: Vec<Conv>,
    turned: bool,
}

impl Bf16Conv {
    /// One convolution.
    pub fn new(conv: Conv) -> Self {
        Self { parts: vec![conv], turned: false }
    }

    /// The sum of two.
    ///
    /// # Panics
    /// If their numbers of output channels differ, or one reads images.
    pub fn sum(first: Conv, second: Conv) -> Self {
        assert!(first.cout == second.cout && !first.rgb && !second.rgb, "convolutions of different shapes");
        Self { parts: vec![first, second], turned: false }
    }

    /// The gradient of the input that one or two convolutions share, from those of their outputs.
    ///
    /// # Panics
    /// If their numbers of input channels differ, or one reads images.
    pub fn input_gradient(convs: &[Conv]) -> Self {
        let same = convs.iter().all(|c| c.cin == convs[0].cin && !c.rgb);
        assert!(matches!(convs.len(), 1 | 2) && same, "convolutions of different inputs");
        Self { parts: convs.to_vec(), turned: true }
    }

    /// Output channels.
    pub fn cout(&self) -> usize {
        let first = &self.parts[0];
        if self.turned { first.cin } else { first.cout }
    }

    /// Blocks of 16 output channels.
    fn panels(&self) -> usize {
        blocks(self.cout())
    }

    /// Steps of 32 values of k of a tap of a part.
    fn tap_steps(&self, conv: &Conv) -> usize {
        if self.turned { conv.cout.div_ceil(WIDTH) } else { conv.k().div_ceil(WIDTH) }
    }

    /// Steps of all taps of some parts.
    fn steps(&self, parts: &[Conv]) -> usize {
        parts.iter().map(|conv| conv.taps() * self.tap_steps(conv)).sum()
    }

    /// Number of pairs of packed weights.
    pub fn packed_len(&self) -> usize {
        self.panels() * self.steps(&self.parts) * TILE
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
        assert_eq!(packed.len(), self.packed_len(), "packed weights of another shape");
        for (part, (conv, weights)) in self.parts.iter().zip(weights).enumerate() {
            assert_eq!(weights.len(), conv.packed_len(), "weights of another shape");
            let (taps, k, places) = (conv.taps(), conv.k(), self.places(part));
            Packing { weights, taps, k, places, packed: &mut *packed }.run(isa);
        }
    }

    /// Where the packed weights of a part lie.
    fn places(&self, part: usize) -> Places {
        Places {
            panels: self.panels(),
            all: self.steps(&self.parts),
            start: self.steps(&self.parts[..part]),
            per_tap: self.tap_steps(&self.parts[part]),
            turned: self.turned,
        }
    }
}

/// Weights in bf16 of one group: those of a convolution, or its part of packed ones.
pub struct Bf16Copy<'a> {
    /// What the weights are packed for.
    pub conv: &'a Bf16Conv,
    /// Number of the convolution there.
    pub part: usize,
    /// All weights of `conv`.
    pub packed: &'a mut [u32],
}

impl<'a> Bf16Copy<'a> {
    /// The memory of all weights, and where those of `conv` lie in it.
    ///
    /// # Panics
    /// If the part is of another convolution, or the memory of another length.
    pub(in super::super) fn of(self, conv: &Conv) -> (Places, &'a mut [u32]) {
        assert_eq!(self.conv.parts[self.part], *conv, "a copy of another convolution");
        assert_eq!(self.packed.len(), self.conv.packed_len(), "packed weights of another shape");
        (self.conv.places(self.part), self.packed)
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
    /// Planes of the output's shape, with the images of the plan alone.
    pub residual: Option<&'a [u16]>,
    /// Clamp below at zero.
    pub relu: bool,
    /// Output planes of all groups (from the first of the plan's images on, if there are more).
    pub y: &'a mut [u16],
}

/// Bytes of a number.
const BYTES: usize = size_of::<u16>();

/// A [`Bf16Conv`] on inputs of one size: everything about its loops that does not depend on values.
pub struct Bf16Plan {
    plan: TilePlan,
    parts: usize,
    /// Values that `bias` has to hold.
    bias_len: usize,
    macs: u64,
    out: (usize, usize),
}

impl Bf16Plan {
    /// Plans `conv` for `groups` x `n` images; `sizes` are height and width of each part's input.
    ///
    /// # Panics
    /// If the parts' outputs differ in size.
    pub fn new(conv: &Bf16Conv, sizes: &[(usize, usize)], groups: usize, n: usize) -> Self {
        Self::within(conv, sizes, groups, (n, n))
    }

    /// As [`Bf16Plan::new`], for `n` images whose outputs are some of a batch of `all`
    /// ([`Grouped::images_mut`](crate::Grouped::images_mut)).
    ///
    /// # Panics
    /// As there, and if there are more images than in the batch.
    pub fn within(
        conv: &Bf16Conv,
        sizes: &[(usize, usize)],
        groups: usize,
        (n, all): (usize, usize),
    ) -> Self {
        assert!(n <= all, "more images than in the batch");
        assert_eq!(sizes.len(), conv.parts.len(), "a size for every part");
        let output = |(c, s): (&Conv, &(usize, usize))| (c.output_size(s.0), c.output_size(s.1));
        let mut outputs = conv.parts.iter().zip(sizes).map(output);
        let out = outputs.next().expect("at least one part");
        assert!(outputs.all(|o| o == out), "parts with outputs of different sizes");
        assert!(!conv.turned, "a gradient is planned by its output");
        let parts = conv.parts.iter().zip(sizes).map(|(c, s)| Part::new(*c, *s, n, BYTES)).collect();
        let macs = conv.weights() * out.0 * out.1 * n;
        Self::of_parts(conv, parts, out, (groups, all), macs)
    }

    /// Plans a gradient ([`Bf16Conv::input_gradient`]) for `groups` x `n` images, the convolutions' input being of `size`.
    ///
    /// # Panics
    /// If some pixel of the input is read by none of the convolutions.
    pub fn gradient(conv: &Bf16Conv, size: (usize, usize), groups: usize, n: usize) -> Self {
        assert!(conv.turned, "a convolution's own output is planned by its input");
        let output = |c: &Conv| (c.output_size(size.0), c.output_size(size.1));
        let parts = conv.parts.iter().map(|c| Part::gradient(*c, output(c), n, BYTES)).collect();
        let macs = |c: &Conv| c.cout * c.cin * c.kernel * c.kernel * output(c).0 * output(c).1 * n;
        let plan = Self::of_parts(conv, parts, size, (groups, n), conv.parts.iter().map(macs).sum());
        assert!(plan.plan.is_covered(), "a pixel that no convolution reads");
        plan
    }

    fn of_parts(
        conv: &Bf16Conv,
        parts: Vec<Part>,
        out: (usize, usize),
        (groups, all): (usize, usize),
        macs: usize,
    ) -> Self {
        let panels = conv.panels();
        Self {
            parts: parts.len(),
            plan: TilePlan::new(parts, out, (groups, all), panels, BYTES),
            bias_len: groups * Rounded::values(panels),
            macs: (groups * macs) as u64,
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

    /// Computes a job on `compute`'s threads.
    ///
    /// # Panics
    /// If a slice of the job has the wrong length.
    pub fn forward(&self, job: Bf16Job<'_>, compute: &Compute) {
        assert_eq!(job.x.len(), self.parts, "an input for every part");
        assert_eq!(job.bias.len(), self.bias_len, "biases of another shape");
        let Bf16Job { bias, relu, .. } = job;
        let mut x = [&[][..]; 2];
        x.iter_mut().zip(job.x).for_each(|(to, from)| *to = bytes(from));
        let job = Job {
            x,
            w: bytes(job.w),
            residual: job.residual.map(bytes),
            outcome: Rounded { bias, relu },
            y: bytes_mut(job.y),
        };
        // SAFETY: `Kernels::new` has checked the CPU.
        unsafe { job.run(&self.plan, compute.pool(), Kernels::new(compute.isa()).stored) }
    }
}
