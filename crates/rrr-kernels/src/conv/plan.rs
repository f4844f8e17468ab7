//! A convolution on inputs of one size: forward and input gradient.

use super::Conv;
use super::grad::grad_runs;
use crate::activation::plane_len;
use crate::compute::Compute;
use crate::micro::{BLOCK, Run};
use crate::precision::Weights;
use crate::rows::{RowsDims, RowsGeometry, RowsJob, RowsPlan, run};
use crate::winograd::{self, Taps, Winograd};
use crate::{Buffer, blocks};

/// Below this many images, rows on padding read zeros instead of being computed apart: the pixels of a few
/// images would make tiles too small to be worth it.
const MIN_BATCH_TO_SKIP_PADDING: usize = 4;

/// A [`Conv`] on inputs of one size, in f32: everything about its loops that does not depend on values.
pub struct ConvPlan {
    pub(super) conv: Conv,
    pub(super) out: (usize, usize),
    pub(super) n: usize,
    pub(super) compute: Compute,
    pub(super) x_plane: usize,
    pub(super) y_plane: usize,
    /// Floats of an output plane of as many images as there are in the output.
    all_plane: usize,
    forward: RowsPlan,
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
        Self::with_output(conv, size, (n, n), gradients, compute)
    }

    /// Plans the forward pass of a 1x1 convolution for `n` images whose outputs are some of a batch of `all`
    /// ([`Activation::images_mut`](crate::Activation::images_mut)).
    ///
    /// # Panics
    /// If there are more images than in the batch, or the convolution is another.
    pub fn within(conv: Conv, size: (usize, usize), (n, all): (usize, usize), compute: &Compute) -> Self {
        assert!(n <= all && conv.taps() == 1, "a 1x1 convolution of some images of a batch");
        Self::with_output(conv, size, (n, all), false, compute)
    }

    fn with_output(
        conv: Conv,
        (height, width): (usize, usize),
        (n, all): (usize, usize),
        gradients: bool,
        compute: &Compute,
    ) -> Self {
        assert!(n > 0 && height > 0 && width > 0, "empty input");
        let pad = conv.kernel / 2;
        let out = (conv.output_size(height), conv.output_size(width));
        let kernel = conv.kernel;
        let (x_rows, y_rows) = (height * width * n, out.0 * out.1 * n);
        let (x_plane, y_plane) = (plane_len(x_rows), plane_len(y_rows));
        let padded_width = width + 2 * pad;
        let image_stride = if conv.rgb { (height + 2 * pad) * padded_width * 3 } else { BLOCK };
        // Input pixel under a tap of an output pixel.
        let under = |pixel: usize, tap: usize| -> Option<(usize, usize)> {
            let y = (pixel / out.1 * conv.stride + tap / kernel).checked_sub(pad)?;
            let x = (pixel % out.1 * conv.stride + tap % kernel).checked_sub(pad)?;
            (y < height && x < width).then_some((y, x))
        };
        let src = |pixel: usize, tap: usize| -> Option<usize> {
            if conv.rgb {
                let (y, x) = (pixel / out.1 * conv.stride + tap, pixel % out.1 * conv.stride);
                return Some((y * padded_width + x) * 3);
            }
            under(pixel, tap).map(|(y, x)| (y * width + x) * n * BLOCK)
        };
        let pixels = out.0 * out.1;
        let (max_rows, runs) = (compute.micro.max_rows(), compute.micro.has_runs());
        let forward = RowsPlan::new(
            &RowsGeometry {
                n,
                out_n: all,
                pixels,
                taps: conv.taps(),
                src: &src,
                image_stride,
                zero_row: if conv.rgb { 0 } else { x_rows * BLOCK },
                skip_padding: n >= MIN_BATCH_TO_SKIP_PADDING,
            },
            max_rows,
            runs,
        );
        let winograd = Winograd::new(&conv, (height, width), n);
        let winograd_once = gradients.then(|| Winograd::for_one_call(&conv, (height, width), n)).flatten();
        let backward = (gradients && !conv.rgb && winograd_once.is_none()).then(|| {
            // Output pixel whose tap lies on an input pixel.
            let over = |pixel: usize, tap: usize| -> Option<usize> {
                let y = (pixel / width + pad).checked_sub(tap / kernel)?;
                let x = (pixel % width + pad).checked_sub(tap % kernel)?;
                let on_grid = y % conv.stride == 0 && x % conv.stride == 0;
                let (y, x) = (y / conv.stride, x / conv.stride);
                (on_grid && y < out.0 && x < out.1).then_some((y * out.1 + x) * n * BLOCK)
            };
            let geometry = RowsGeometry {
                n,
                out_n: n,
                pixels: height * width,
                taps: conv.taps(),
                src: &over,
                image_stride: BLOCK,
                zero_row: y_rows * BLOCK,
                skip_padding: true,
            };
            RowsPlan::new(&geometry, max_rows, runs)
        });
        let x_stride = if conv.rgb { image_stride } else { BLOCK };
        let runs = if gradients {
            (0..conv.taps()).map(|tap| grad_runs(pixels, n, x_stride, &|p| src(p, tap))).collect()
        } else {
            Vec::new()
        };
        let x_plane = if conv.rgb { n * image_stride } else { x_plane };
        Self {
            conv,
            out,
            n,
            compute: compute.clone(),
            x_plane,
            y_plane,
            all_plane: plane_len(out.0 * out.1 * all),
            forward,
            winograd,
            winograd_once,
            backward,
            runs,
            x_stride,
        }
    }

    /// The convolution.
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
        let c = &self.conv;
        (c.cout * c.cin * c.kernel * c.kernel * self.out.0 * self.out.1 * self.n) as u64
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

    /// `y = x * w` for every job, in parallel; the weights of all jobs are of one kind.
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
            _ => self.run_rows(&self.forward, &self.forward_dims(), jobs),
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

    /// `y = x * w + skip * w'` for every job, in parallel, `skip` being the input of the plan `other`: two 1x1 convolutions
    /// with outputs of one shape. Weights are panels ([`Conv::pack_panel`]), one's and the other's in turn. Neither reads nor
    /// writes one's output for the other, as a residual would.
    ///
    /// # Panics
    /// If a slice of a job has the wrong length, or the plans' outputs differ.
    pub fn forward_sum<'a>(&self, other: &ConvPlan, jobs: impl IntoIterator<Item = RowsJob<'a>>) {
        let pool = &self.compute.pool;
        let dims = [self.forward_dims(), other.forward_dims()];
        let parts = [(&self.forward, &dims[0]), (&other.forward, &dims[1])];
        pool.with_slice(jobs, |jobs| run(self.compute.micro, pool, &parts, jobs));
    }

    fn forward_dims(&self) -> RowsDims {
        let k = self.conv.k();
        RowsDims {
            k_blocks: k / BLOCK,
            k_tail: k % BLOCK,
            a_block: if self.conv.rgb { BLOCK } else { self.x_plane },
            panels: blocks(self.conv.cout),
            c_plane: self.all_plane,
            r_plane: self.y_plane,
        }
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
        let dims = RowsDims {
            k_blocks: blocks(self.conv.cout),
            k_tail: 0,
            a_block: self.y_plane,
            panels: blocks(self.conv.cin),
            c_plane: self.x_plane,
            r_plane: self.x_plane,
        };
        pool.with_slice(jobs, |jobs| self.run_rows(plan, &dims, jobs));
    }

    fn run_rows(&self, plan: &RowsPlan, dims: &RowsDims, jobs: &mut [RowsJob<'_>]) {
        run(self.compute.micro, &self.compute.pool, &[(plan, dims)], jobs);
    }
}
