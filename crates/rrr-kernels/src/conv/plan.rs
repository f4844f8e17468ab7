//! A convolution on inputs of one size: forward and input gradient.

use super::grad::grad_runs;
use super::{Conv, Geometry, rows};
use crate::activation::plane_len;
use crate::compute::Compute;
use crate::micro::{BLOCK, Micro, Run};
use crate::precision::Weights;
use crate::rows::{Depth, Limits, Output, Part, RowsJob, RowsPlan, run};
use crate::winograd::{self, Taps, Winograd};
use crate::{Buffer, blocks};
use std::sync::OnceLock;

/// A [`Conv`] on inputs of one size, or the sum of two, in f32: everything about its loops that does not depend on values.
pub struct ConvPlan {
    pub(super) conv: Conv,
    pub(super) out: (usize, usize),
    pub(super) n: usize,
    pub(super) compute: Compute,
    pub(super) x_plane: usize,
    pub(super) y_plane: usize,
    macs: u64,
    parts: Vec<Part>,
    output: Output,
    /// Made of these when first used: where Winograd's products take its place, it never is.
    forward: OnceLock<RowsPlan>,
    /// Where [`ConvPlan::forward`] is faster that way.
    winograd: Option<Winograd>,
    /// Where it is, and [`ConvPlan::grad_input`], with weights that change from call to call.
    winograd_once: Option<Winograd>,
    /// For [`ConvPlan::grad_input`]; absent for an image, and where Winograd's products take its place.
    backward: Option<RowsPlan>,
    /// Per tap, runs cut at multiples of `CHUNK_ROWS` output rows.
    pub(super) runs: Vec<Vec<Run>>,
    pub(super) x_stride: usize,
}

impl ConvPlan {
    /// Plans `conv` for `n` images of `height` x `width`; `gradients` prepares the backward passes too.
    pub fn new(conv: Conv, size: (usize, usize), n: usize, gradients: bool, compute: &Compute) -> Self {
        let plan = Self::of_parts(&[(conv, size)], (n, n), compute);
        if gradients { plan.with_gradients(size) } else { plan }
    }

    /// Plans the forward pass of a 1x1 convolution for `n` images whose outputs are some of a batch of `all`
    /// ([`Activation::images_mut`](crate::Activation::images_mut)).
    ///
    /// # Panics
    /// If there are more images than in the batch, or the convolution is another.
    pub fn within(conv: Conv, size: (usize, usize), images: (usize, usize), compute: &Compute) -> Self {
        assert!(conv.taps() == 1, "a 1x1 convolution");
        Self::of_parts(&[(conv, size)], images, compute)
    }

    /// Plans the sum of two 1x1 convolutions of inputs of their own sizes, with outputs of one shape, for `n` images of `all`
    /// as in [`ConvPlan::within`]: neither reads nor writes one's output for the other, as a residual would. Weights are
    /// panels ([`Conv::pack_panel`]), one's and the other's in turn.
    ///
    /// # Panics
    /// If there are more images than in the batch, the convolutions are others, or their outputs differ in shape.
    pub fn sum(convs: [(Conv, (usize, usize)); 2], images: (usize, usize), compute: &Compute) -> Self {
        let [(first, _), (second, _)] = convs;
        assert!(first.taps() == 1 && second.taps() == 1 && first.cout == second.cout, "1x1 convolutions");
        Self::of_parts(&convs, images, compute)
    }

    fn of_parts(convs: &[(Conv, (usize, usize))], (n, all): (usize, usize), compute: &Compute) -> Self {
        assert!(n <= all, "more images than in the batch");
        let output =
            |(conv, size): &(Conv, (usize, usize))| (conv.output_size(size.0), conv.output_size(size.1));
        let out = output(&convs[0]);
        assert!(convs.iter().all(|part| output(part) == out), "parts with outputs of different sizes");
        let (conv, size) = convs[0];
        let part = |(conv, size): &(Conv, (usize, usize))| {
            let k = conv.k();
            let depth = Depth { blocks: k / BLOCK, tail: k % BLOCK, numbers: k };
            Part::new(Geometry::new(*conv, *size), n, depth, plane_len(rows(*size, n)), 0)
        };
        let weights = |(conv, _): &(Conv, _)| conv.cout * conv.cin * conv.kernel * conv.kernel;
        let parts: Vec<Part> = convs.iter().map(part).collect();
        let y_plane = plane_len(rows(out, n));
        Self {
            conv,
            out,
            n,
            compute: compute.clone(),
            x_plane: if conv.rgb { parts[0].len } else { plane_len(rows(size, n)) },
            y_plane,
            macs: (convs.iter().map(weights).sum::<usize>() * rows(out, n)) as u64,
            output: Output {
                size: out,
                all,
                panels: blocks(conv.cout),
                plane: plane_len(rows(out, all)),
                residual_plane: y_plane,
            },
            forward: OnceLock::new(),
            winograd: if parts.len() == 1 { Winograd::new(&conv, size, n) } else { None },
            winograd_once: None,
            backward: None,
            runs: Vec::new(),
            x_stride: parts[0].image,
            parts,
        }
    }

    /// Prepares the backward passes of a single convolution of inputs of `size`.
    fn with_gradients(mut self, size: (usize, usize)) -> Self {
        let (conv, n) = (self.conv, self.n);
        self.winograd_once = Winograd::for_one_call(&conv, size, n);
        if !conv.rgb && self.winograd_once.is_none() {
            let channels = blocks(conv.cout);
            let depth = Depth { blocks: channels, tail: 0, numbers: channels * BLOCK };
            let part = Part::new(Geometry::gradient(conv, self.out), n, depth, self.y_plane, 0);
            let (plane, panels) = (self.x_plane, blocks(conv.cin));
            let output = Output { size, all: n, panels, plane, residual_plane: plane };
            self.backward = Some(RowsPlan::new(vec![part], output, limits(self.compute.micro)));
        }
        let part = &self.parts[0];
        let source = |pixel: usize, tap| part.source((pixel / self.out.1, pixel % self.out.1), tap);
        let runs = |tap| grad_runs(self.out.0 * self.out.1, n, self.x_stride, &|pixel| source(pixel, tap));
        self.runs = (0..conv.taps()).map(runs).collect();
        self
    }

    /// The convolution; of a sum, the first one.
    pub fn conv(&self) -> Conv {
        self.conv
    }

    /// Height and width of the output.
    pub fn output(&self) -> (usize, usize) {
        self.out
    }

    /// Number of images.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Multiply-accumulates of one forward pass of one job, padding not counted.
    pub fn macs(&self) -> u64 {
        self.macs
    }

    /// Whether [`ConvPlan::forward`] is faster with [`Weights::Winograd`]: that depends on the convolution and the
    /// size of the maps, not on the number of images, so that the output for an image is the same to the bit
    /// alone and in a batch.
    pub fn is_winograd(&self) -> bool {
        self.winograd.is_some()
    }

    /// Packed weights transformed for [`Weights::Winograd`].
    ///
    /// # Panics
    /// If the plan is not for these ([`ConvPlan::is_winograd`]) or `packed` has the wrong length.
    pub fn winograd_weights(&self, packed: &[f32]) -> Buffer {
        assert!(self.is_winograd(), "the plan is not for Winograd's weights");
        let mut points = Buffer::zeros(winograd::weights_len(&self.conv));
        let (isa, pool) = (self.compute.isa(), &self.compute.pool);
        winograd::weights(isa, pool, &self.conv, Taps::Forward, packed, &mut points);
        points
    }

    /// `y = x * w` (of a sum, `+ skip * w'`) for every job, in parallel; the weights of all jobs are of one kind.
    ///
    /// # Panics
    /// If a slice of a job has the wrong length, or weights are of a kind that the plan does not compute with.
    pub fn forward<'a>(&self, jobs: impl IntoIterator<Item = RowsJob<'a>>) {
        let pool = &self.compute.pool;
        pool.with_slice(jobs, |jobs| match jobs.first().map(|job| job.w) {
            Some(Weights::Winograd(_)) => {
                let winograd = self.winograd.as_ref().expect("the plan is not for Winograd's weights");
                winograd.run(self.compute.micro, pool, &self.conv, jobs);
            }
            _ => run(self.compute.micro, pool, self.forward_rows(), jobs),
        });
    }

    /// As [`ConvPlan::forward`] with weights that change from call to call, as those in training do: what is faster
    /// with them may give other bits.
    ///
    /// # Panics
    /// As [`ConvPlan::forward`].
    pub fn forward_training<'a>(&self, jobs: impl IntoIterator<Item = RowsJob<'a>>) {
        let Some(winograd) = &self.winograd_once else { return self.forward(jobs) };
        let pool = &self.compute.pool;
        pool.with_slice(jobs, |jobs| {
            winograd.run_once(self.compute.micro, pool, &self.conv, Taps::Forward, jobs);
        });
    }

    fn forward_rows(&self) -> &RowsPlan {
        let plan = || RowsPlan::new(self.parts.clone(), self.output, limits(self.compute.micro));
        self.forward.get_or_init(plan)
    }

    /// Gradient of the input, for every job in parallel: `x` is the output's gradient, `w` the weights of
    /// [`Conv::transpose`], `y` the input's gradient.
    ///
    /// # Panics
    /// If a slice of a job has the wrong length, or the plan was made without gradients.
    pub fn grad_input<'a>(&self, jobs: impl IntoIterator<Item = RowsJob<'a>>) {
        let pool = &self.compute.pool;
        if let Some(winograd) = &self.winograd_once {
            let conv = Conv::new(self.conv.cout, self.conv.cin, 3, 1);
            return pool.with_slice(jobs, |jobs| {
                winograd.run_once(self.compute.micro, pool, &conv, Taps::Turned, jobs);
            });
        }
        let plan = self.backward.as_ref().expect("planned with gradients");
        pool.with_slice(jobs, |jobs| run(self.compute.micro, pool, plan, jobs));
    }
}

fn limits(micro: Micro) -> Limits {
    let rows = micro.max_rows();
    Limits { rows, in_runs: if micro.has_runs() { rows } else { 0 }, short_runs: true }
}
