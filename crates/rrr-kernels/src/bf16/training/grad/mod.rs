//! Weight gradient: the sum over rows is the k of the tiles.
//!
//! The output's gradient is the first operand, transposed once for all taps and input channels; the input's rows are the
//! second, in pairs. So a result tile is `[16 output channels][16 input channels]`.

mod outcome;
mod partition;
mod work;

use super::super::Kernels;
use super::super::stored::{WIDTH, plane_len};
use super::super::tiles::STEP;
use crate::compute::Compute;
use crate::conv::{Conv, Geometry, MAX_GROUPS, rows};
use crate::shared::SharedMut;
use crate::{IMAGE_SLACK, blocks};
pub use outcome::Bf16Weights;
use outcome::Outcome;
use partition::{Partition, part};
use std::ops::Range;
pub use work::work;

/// Rows whose operands are held at a time.
const CHUNK_ROWS: usize = 512;

const CHUNK_STEPS: usize = CHUNK_ROWS / STEP;

/// Taps of a convolution at most.
const MAX_TAPS: usize = 9;

/// Stands for a row that is not there.
const NONE: u32 = u32::MAX;

/// The weight gradient of a convolution of inputs of one size.
pub struct Bf16GradPlan {
    conv: Conv,
    groups: usize,
    n: usize,
    /// Numbers before the first image's row under each tap of each output pixel, `[tap][pixel]`, or [`NONE`].
    sources: Vec<u32>,
    /// Numbers from one image's row to the next one's, and from a block of input channels to the next.
    x_image: usize,
    x_block: usize,
    /// Numbers that are read of a group's input.
    x_len: usize,
    /// Pixels of the output.
    pixels: usize,
    y_plane: usize,
}

/// A run of a plan: the gradient `x^T dy` of every group, and what becomes of it.
struct Work<'a> {
    p: &'a Bf16GradPlan,
    x: &'a [u16],
    /// Numbers from one group's input to the next one's.
    x_group: usize,
    dy: &'a [u16],
    outcomes: &'a [Outcome<'a>],
}

/// A piece of work: the gradients of some taps, panels (those of the groups one after another) and planes of input
/// channels of groups that read the same input.
pub struct Task<'a> {
    work: &'a Work<'a>,
    taps: Range<usize>,
    panels: Range<usize>,
    planes: Range<usize>,
}

impl Bf16GradPlan {
    /// Plans the weight gradient of `conv` for `groups` x `n` images, its input being of `size`.
    ///
    /// # Panics
    /// If there are no images, pixels or groups, or too many.
    pub fn new(conv: Conv, size: (usize, usize), groups: usize, n: usize) -> Self {
        assert!((1..=MAX_GROUPS).contains(&groups), "no groups, or too many");
        assert!(conv.taps() <= MAX_TAPS, "a larger kernel than there is");
        let geometry = Geometry::new(conv, size);
        let out = (conv.output_size(size.0), conv.output_size(size.1));
        let (x_rows, x_plane) = (geometry.pixels(n), plane_len(rows(size, n)));
        let per_pixel = if conv.rgb { 3 } else { n * WIDTH };
        let source = |tap: usize, pixel: usize| {
            let source = geometry.source((pixel / out.1, pixel % out.1), tap);
            source.map_or(NONE, |pixel| to_u32(pixel * per_pixel))
        };
        let pixels = out.0 * out.1;
        let sources = (0..conv.taps()).flat_map(|t| (0..pixels).map(move |p| (t, p)));
        Self {
            conv,
            groups,
            n,
            sources: sources.map(|(tap, pixel)| source(tap, pixel)).collect(),
            x_image: if conv.rgb { 3 * geometry.pixels(1) } else { WIDTH },
            x_block: x_plane,
            x_len: if conv.rgb { 3 * x_rows + IMAGE_SLACK } else { conv.cin.div_ceil(WIDTH) * x_plane },
            pixels,
            y_plane: plane_len(rows(out, n)),
        }
    }

    /// Multiply-accumulates of a run, padding not counted.
    pub fn macs(&self) -> u64 {
        let c = &self.conv;
        (self.groups * c.cout * c.cin * c.kernel * c.kernel * self.pixels * self.n) as u64
    }

    fn panels(&self) -> usize {
        blocks(self.conv.cout)
    }

    /// Computes the gradients of the packed weights ([`Conv::pack`]) of all groups: `x` holds the inputs of all groups or
    /// one that they share (as in [`Bf16Job`](crate::Bf16Job)), `dy` the gradients of the outputs, `dw` a slice per group.
    ///
    /// # Panics
    /// If a slice has the wrong length.
    pub fn run<'a>(
        &self,
        x: &[u16],
        dy: &[u16],
        dw: impl IntoIterator<Item = &'a mut [f32]>,
        compute: &Compute,
    ) {
        let outcomes = dw.into_iter().map(|dw| {
            assert_eq!(dw.len(), self.conv.packed_len(), "gradients of another shape");
            Outcome::Stored(SharedMut::new(dw))
        });
        self.execute(x, dy, outcomes, compute);
    }

    /// As [`run`](Self::run), but a step of the optimiser with the gradients, which are stored nowhere: of a task's weights
    /// right after its sums.
    ///
    /// # Panics
    /// If a slice has the wrong length, or a copy is of another convolution.
    pub fn update<'a>(
        &self,
        x: &[u16],
        dy: &[u16],
        weights: impl IntoIterator<Item = Bf16Weights<'a>>,
        compute: &Compute,
    ) {
        let outcomes = weights.into_iter().map(|weights| Outcome::updated(weights, &self.conv));
        self.execute(x, dy, outcomes, compute);
    }

    fn execute<'a>(
        &self,
        x: &[u16],
        dy: &[u16],
        outcomes: impl IntoIterator<Item = Outcome<'a>>,
        compute: &Compute,
    ) {
        assert!(x.len() >= self.x_len, "input too small");
        let x_group = if x.len() >= self.groups * self.x_len { self.x_len } else { 0 };
        let y_group = self.conv.cout.div_ceil(WIDTH) * self.y_plane;
        assert!(dy.len() >= self.groups * y_group, "output gradient too small");
        let pool = compute.pool();
        pool.with_slice(outcomes, |outcomes| {
            assert_eq!(outcomes.len(), self.groups, "one for every group");
            let work = Work { p: self, x, x_group, dy, outcomes };
            let kernels = Kernels::new(compute.isa());
            let cut = Partition::new(self, self.groups == 1 || x_group == 0, pool.threads());
            pool.run(cut.tasks(), |index| {
                let (index, planes) = part(index, cut.planes);
                let (index, pairs) = part(index, cut.pairs);
                let (span, taps) = part(index, cut.taps);
                let (first, all) = (span * cut.panels, cut.panels);
                let panels = first + pairs.start * 2..first + (pairs.end * 2).min(all);
                let task = Task { work: &work, taps, panels, planes };
                // SAFETY: the slices were checked above to hold what the plan's offsets reach, the CPU by `Kernels::new`;
                // this task alone writes these weights.
                unsafe { (kernels.grad)(&task) }
            });
        });
    }
}

fn to_u32(v: usize) -> u32 {
    u32::try_from(v).expect("activation too large")
}
