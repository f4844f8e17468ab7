//! Convolutions of bytes: weight packing and forward.

use super::layout::{Layout, steps, values};
use super::micro::{Micro, RUN};
use super::{ACTIVATION_MAX, Int8Compute, Loops, STEP, STEPS, plane_len, run, tiles};
use crate::conv::{Conv, Geometry, MAX_GROUPS, rows};
use crate::rows::{Depth, Limits, Output, Part, RowsPlan};
use crate::{BLOCK, blocks};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A convolution of one input, or the sum of two convolutions of different inputs (the last one of a bottleneck
/// and the one on its skip path), which then share the scale of each output channel.
///
/// Packed weights are `[cout / 16][input][tap][step][16][4]`: a step is 4 input channels (of a blocked
/// [`Int8Activation`](super::Int8Activation)) or 4 of a kernel row's `kernel * 3` values (of an RGB image). For tiles
/// they are `[cout / 32][input][tap][k / 64][2][16 steps][16][4]`, without the second tile where the last 32 output channels
/// are 16 or less.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Int8Conv {
    parts: Vec<Conv>,
}

impl Int8Conv {
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

    /// What it is the sum of.
    pub fn parts(&self) -> &[Conv] {
        &self.parts
    }

    /// Output channels.
    pub fn cout(&self) -> usize {
        self.parts[0].cout
    }

    /// Whether segments are single steps.
    pub(super) fn is_short(&self) -> bool {
        self.parts[0].rgb
    }

    /// Steps of all taps among packed weights.
    fn steps(&self, layout: Layout) -> usize {
        self.parts.iter().map(|c| c.taps() * layout.tap_steps(c)).sum()
    }

    /// Number of weights packed for `compute`, padding included.
    pub fn packed_len(&self, compute: &Int8Compute) -> usize {
        blocks(self.cout()) * self.steps(compute.layout()) * STEP * BLOCK
    }

    /// Number of weights, without padding: the multiply-accumulates of one output pixel.
    pub fn weights(&self) -> usize {
        self.parts.iter().map(|conv| conv.cout * conv.cin * conv.kernel * conv.kernel).sum()
    }

    /// How much of 16 bits the largest sum needs that instruction sets without a dot product of bytes take in
    /// 16 bits, for one output channel: above 1 it would overflow, and [`Int8Conv::pack`] refuses. `weights` are
    /// the channel's `[cin][kernel][kernel]` for each part.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn share_of_16_bits(&self, weights: &[&[i8]]) -> f32 {
        assert_eq!(weights.len(), self.parts.len(), "weights for every part");
        let limit = i32::from(i16::MAX) / i32::from(ACTIVATION_MAX);
        let segment = if self.is_short() { STEP } else { BLOCK };
        let mut largest = 0;
        for (conv, weights) in self.parts.iter().zip(weights) {
            assert_eq!(weights.len(), conv.cin * conv.kernel * conv.kernel, "wrong number of weights");
            for tap in 0..conv.taps() {
                for first in (0..values(conv)).step_by(segment) {
                    // Positive and negative sum of each lane, were all activations 1.
                    let mut sums = [[0i32; 2]; 2];
                    for k in first..(first + segment).min(values(conv)) {
                        let w = i32::from(weights[source(conv, tap, k)]);
                        let [high, low] = &mut sums[k % STEP / 2];
                        *high += w.max(0);
                        *low -= w.min(0);
                    }
                    largest = sums.into_iter().flatten().fold(largest, i32::max);
                }
            }
        }
        largest as f32 / limit as f32
    }

    /// Packs weights for `compute` from PyTorch's order, `[cout][cin][kernel][kernel]` for each part, on all threads.
    ///
    /// # Errors
    /// The first output channel whose [`Int8Conv::share_of_16_bits`] is above 1.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, weights: &[&[i8]], packed: &mut [u8], compute: &Int8Compute) -> Result<(), usize> {
        assert_eq!(packed.len(), self.packed_len(compute));
        assert_eq!(weights.len(), self.parts.len(), "weights for every part");
        for (conv, weights) in self.parts.iter().zip(weights) {
            let len = conv.cout * conv.cin * conv.kernel * conv.kernel;
            assert_eq!(weights.len(), len, "wrong number of weights");
        }
        let layout = compute.layout();
        let steps = self.steps(layout);
        let too_large = AtomicUsize::new(usize::MAX);
        // Two blocks of output channels, which lie together in every layout.
        compute.pool().for_each_chunk(packed, 2 * steps * STEP * BLOCK, |pair, packed| {
            packed.fill(0);
            let all = (packed.len() / (steps * STEP * BLOCK), steps);
            let first = 2 * pair * BLOCK;
            for o in first..(first + all.0 * BLOCK).min(self.cout()) {
                let channel = |w: &[i8]| w.len() / self.cout() * o..w.len() / self.cout() * (o + 1);
                let channel: Vec<&[i8]> = weights.iter().map(|w| &w[channel(w)]).collect();
                if self.share_of_16_bits(&channel) > 1.0 {
                    too_large.fetch_min(o, Ordering::Relaxed);
                }
                let mut start = 0;
                for (conv, weights) in self.parts.iter().zip(channel) {
                    for tap in 0..conv.taps() {
                        for k in 0..values(conv) {
                            let step = start + tap * layout.tap_steps(conv) + k / STEP;
                            let place = layout.place((o - first) / BLOCK, step, all);
                            let w = weights[source(conv, tap, k)];
                            packed[(place * BLOCK + o % BLOCK) * STEP + k % STEP] = w.cast_unsigned();
                        }
                    }
                    start += conv.taps() * layout.tap_steps(conv);
                }
            }
        });
        match too_large.into_inner() {
            usize::MAX => Ok(()),
            channel => Err(channel),
        }
    }
}

/// Where among an output channel's weights, `[cin][kernel][kernel]`, that of a tap and a value of k lies.
fn source(conv: &Conv, tap: usize, k: usize) -> usize {
    let area = conv.kernel * conv.kernel;
    if conv.rgb { k % 3 * area + tap * conv.kernel + k / 3 } else { k * area + tap }
}

/// One run of an [`Int8Plan`]: for every group `y = round(clamp(sum * scale + offset + residual, 0, max))`.
pub struct Int8Job<'a> {
    /// Input of each part: planes of all groups, or of a single one that all groups share; padded RGB images
    /// `[n][height + 6][width + 6][3]` and [`INT8_IMAGE_SLACK`](super::INT8_IMAGE_SLACK) bytes more.
    pub x: &'a [&'a [u8]],
    /// Packed weights of all groups.
    pub w: &'a [u8],
    /// One value per group and output channel, padded to whole blocks.
    pub scale: &'a [f32],
    /// As `scale`.
    pub offset: &'a [f32],
    /// Planes of the output's shape, with the images of the plan alone, of all groups or of one that all share, and what to
    /// multiply them with, as `scale`.
    pub residual: Option<(&'a [u8], &'a [f32])>,
    /// Largest output.
    pub max: u8,
    /// Output planes of all groups (from the first of the plan's images on, if there are more).
    pub y: &'a mut [u8],
}

/// An [`Int8Conv`] on inputs of one size: everything about its loops that does not depend on values.
pub struct Int8Plan {
    loops: PlannedLoops,
    out: (usize, usize),
}

enum PlannedLoops {
    Vectors(VectorPlan),
    Tiles(tiles::Plan),
}

/// A plan for vectors.
pub(super) struct VectorPlan {
    pub plan: RowsPlan,
    pub groups: usize,
    pub short: bool,
    pub micro: Micro,
}

impl Int8Plan {
    /// Plans `conv` for `groups` x `n` images; `sizes` are height and width of each part's input.
    ///
    /// # Panics
    /// If the parts' outputs differ in size.
    pub fn new(
        conv: &Int8Conv,
        sizes: &[(usize, usize)],
        groups: usize,
        n: usize,
        compute: &Int8Compute,
    ) -> Self {
        Self::within(conv, sizes, groups, (n, n), compute)
    }

    /// As [`Int8Plan::new`], for `n` images whose outputs are some of a batch of `all`
    /// ([`Grouped::images_mut`](crate::Grouped::images_mut)).
    ///
    /// # Panics
    /// As there, and if there are more images than in the batch.
    pub fn within(
        conv: &Int8Conv,
        sizes: &[(usize, usize)],
        groups: usize,
        (n, all): (usize, usize),
        compute: &Int8Compute,
    ) -> Self {
        assert!(n <= all, "more images than in the batch");
        assert!((1..=MAX_GROUPS).contains(&groups), "no groups, or too many");
        assert_eq!(sizes.len(), conv.parts.len(), "a size for every part");
        let output = |(c, s): (&Conv, &(usize, usize))| (c.output_size(s.0), c.output_size(s.1));
        let mut outputs = conv.parts.iter().zip(sizes).map(output);
        let out = outputs.next().expect("at least one part");
        assert!(outputs.all(|o| o == out), "parts with outputs of different sizes");
        let loops = match compute.loops {
            Loops::Vectors(micro) => {
                let parts = conv.parts.iter().zip(sizes).map(|(c, s)| part(*c, *s, n)).collect();
                let output = Output {
                    size: out,
                    all,
                    panels: blocks(conv.cout()),
                    plane: plane_len(rows(out, all)),
                    residual_plane: plane_len(rows(out, n)),
                };
                let in_runs = micro.max_runs() * RUN;
                let limits = Limits { rows: micro.max_rows(), in_runs, short_runs: false };
                let plan = RowsPlan::new(parts, output, limits);
                PlannedLoops::Vectors(VectorPlan { plan, groups, short: conv.is_short(), micro })
            }
            Loops::Tiles(loops) => {
                PlannedLoops::Tiles(tiles::Plan::new(&conv.parts, sizes, out, (groups, n, all), loops))
            }
        };
        Self { loops, out }
    }

    /// Height and width of the output.
    pub fn output(&self) -> (usize, usize) {
        self.out
    }

    /// Computes a job on `compute`'s threads, with the instruction set that it was planned for. Inputs must not exceed [`ACTIVATION_MAX`](super::ACTIVATION_MAX).
    ///
    /// # Panics
    /// If a slice of the job has the wrong length.
    pub fn forward(&self, job: Int8Job<'_>, compute: &Int8Compute) {
        match &self.loops {
            PlannedLoops::Vectors(plan) => run::run(plan, job, compute.pool()),
            PlannedLoops::Tiles(plan) => plan.run(job, compute.pool()),
        }
    }
}

/// An input of `n` images.
fn part(conv: Conv, size: (usize, usize), n: usize) -> Part {
    let steps = steps(&conv);
    let depth = Depth { blocks: steps / STEPS, tail: steps % STEPS, numbers: steps * STEP };
    // A whole step and a whole block are read at the end of an image's last row.
    Part::new(Geometry::new(conv, size), n, depth, plane_len(rows(size, n)), BLOCK)
}
