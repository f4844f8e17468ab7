//! Convolutions: geometry, weight packing, forward and both gradients.

use crate::bf16::{self, GradDims};
use crate::micro::{BLOCK, GradTile, MAX_PANELS, Micro, Run};
use crate::pool::Pool;
use crate::precision::{Precision, Weights};
use crate::rows::{RowsDims, RowsGeometry, RowsJob, RowsPlan, run};
use crate::shared::SharedMut;
use crate::winograd::{self, Taps, Winograd};
use crate::{Buffer, Isa, blocks};
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// Rows that a weight gradient sums at a time, so that both operands stay in the first-level cache.
const CHUNK_ROWS: usize = 128;

/// Input channel blocks of one weight-gradient task.
const GRAD_BLOCKS: usize = 8;

/// Below this many images, rows on padding read zeros instead of being computed apart: the pixels of a few
/// images would make tiles too small to be worth it.
const MIN_BATCH_TO_SKIP_PADDING: usize = 4;

/// The kernels and threads to compute with.
#[derive(Clone)]
pub struct Compute {
    micro: Micro,
    pool: Arc<Pool>,
    precision: Precision,
}

impl Compute {
    /// The active instruction set ([`Isa::active`]) on a pool's threads, in f32.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self::with_isa(pool, Isa::active()).expect("the active instruction set is available")
    }

    /// A given instruction set, in f32, or `None` if this CPU lacks it.
    pub fn with_isa(pool: Arc<Pool>, isa: Isa) -> Option<Self> {
        Some(Self { micro: Micro::new(isa)?, pool, precision: Precision::F32 })
    }

    /// The same in a given precision.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The precision of products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.micro.isa()
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The threads, to share with others.
    pub fn shared_pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool)
    }
}

/// A square convolution without bias, padded by half its kernel.
///
/// Packed weights are `[cout / 16][tap][k][16]`: a tap is a kernel position and `k` runs over the input
/// channels (padded to 16) of a blocked [`Activation`](crate::Activation); for an RGB image a tap is a
/// kernel row and `k` runs over its `kernel * 3` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    pub(crate) cin: usize,
    pub(crate) cout: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) rgb: bool,
}

impl Conv {
    /// A convolution of blocked activations; `kernel` is 1 or 3.
    pub fn new(cin: usize, cout: usize, kernel: usize, stride: usize) -> Self {
        assert!(kernel == 1 || kernel == 3, "kernel must be 1 or 3");
        Self { cin, cout, kernel, stride, rgb: false }
    }

    /// The 7x7/2 convolution of an RGB image, `[n][height + 6][width + 6][3]` with its zero padding.
    pub fn image(cout: usize) -> Self {
        Self { cin: 3, cout, kernel: 7, stride: 2, rgb: true }
    }

    /// Input channels.
    pub fn cin(&self) -> usize {
        self.cin
    }

    /// Output channels.
    pub fn cout(&self) -> usize {
        self.cout
    }

    /// Shape of the weights in PyTorch's order, `[cout, cin, kernel, kernel]`.
    pub fn weight_shape(&self) -> [usize; 4] {
        [self.cout, self.cin, self.kernel, self.kernel]
    }

    /// Output size for an input size (height or width).
    pub fn output_size(&self, size: usize) -> usize {
        (size + 2 * (self.kernel / 2) - self.kernel) / self.stride + 1
    }

    pub(crate) fn taps(&self) -> usize {
        if self.rgb { self.kernel } else { self.kernel * self.kernel }
    }

    /// Values of `k` per tap.
    fn k(&self) -> usize {
        if self.rgb { self.kernel * 3 } else { blocks(self.cin) * BLOCK }
    }

    /// Number of packed weights, padding included.
    pub fn packed_len(&self) -> usize {
        blocks(self.cout) * self.taps() * self.k() * BLOCK
    }

    /// Number of weights packed for [`ConvPlan::grad_input`].
    pub fn transposed_len(&self) -> usize {
        blocks(self.cin) * self.taps() * blocks(self.cout) * BLOCK * BLOCK
    }

    /// Position of PyTorch's weight `[o][i][y][x]` among the packed ones.
    fn packed_index(&self, o: usize, i: usize, y: usize, x: usize) -> usize {
        let (tap, k) = if self.rgb { (y, x * 3 + i) } else { (y * self.kernel + x, i) };
        ((o / BLOCK * self.taps() + tap) * self.k() + k) * BLOCK + o % BLOCK
    }

    fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        let size = self.kernel;
        (0..self.cout).flat_map(move |o| {
            (0..self.cin).flat_map(move |i| {
                (0..size * size).map(move |yx| self.packed_index(o, i, yx / size, yx % size))
            })
        })
    }

    /// Packs weights from PyTorch's order, `[cout][cin][kernel][kernel]`.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        assert_eq!(
            weights.len(),
            self.cout * self.cin * self.kernel * self.kernel,
            "wrong number of weights"
        );
        assert_eq!(packed.len(), self.packed_len());
        let taps = self.kernel * self.kernel;
        let filter = self.cin * taps;
        for (o, filters) in weights.chunks(BLOCK * filter).enumerate() {
            // Sequential in each of the 16 filters, whose values of one position fill a line.
            for i in 0..self.cin {
                for yx in 0..taps {
                    let to = self.packed_index(o * BLOCK, i, yx / self.kernel, yx % self.kernel);
                    let (values, padding) = packed[to..to + BLOCK].split_at_mut(filters.len() / filter);
                    for (value, filter) in values.iter_mut().zip(filters.chunks_exact(filter)) {
                        *value = filter[i * taps + yx];
                    }
                    padding.fill(0.0);
                }
            }
        }
        let used = if self.rgb { self.k() } else { self.cin };
        for tap in packed.chunks_exact_mut(self.k() * BLOCK) {
            tap[used * BLOCK..].fill(0.0);
        }
    }

    /// Packed weights of this convolution and of `other`, for [`ConvPlan::forward_sum`]: `[cout / 16]`, then one's and
    /// the other's.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn join(&self, other: &Conv, packed: &[f32], packed_other: &[f32]) -> Buffer {
        assert_eq!(self.cout, other.cout, "convolutions of different shapes");
        assert_eq!((packed.len(), packed_other.len()), (self.packed_len(), other.packed_len()));
        let panels = blocks(self.cout);
        let mut joined = Buffer::zeros(packed.len() + packed_other.len());
        let (len, first) = (joined.len() / panels, packed.len() / panels);
        let panels = packed.chunks_exact(first).zip(packed_other.chunks_exact(len - first));
        for (joined, (one, other)) in joined.chunks_exact_mut(len).zip(panels) {
            joined[..first].copy_from_slice(one);
            joined[first..].copy_from_slice(other);
        }
        joined
    }

    /// The inverse of [`Conv::pack`].
    ///
    /// # Panics
    /// If the length is wrong.
    pub fn unpack(&self, packed: &[f32]) -> Vec<f32> {
        assert_eq!(packed.len(), self.packed_len());
        self.indices().map(|at| packed[at]).collect()
    }

    /// Repacks weights for [`ConvPlan::grad_input`], as `[cin / 16][tap][cout, padded][16]`.
    ///
    /// # Panics
    /// If a length is wrong, or for the image convolution.
    pub fn transpose(&self, packed: &[f32], transposed: &mut [f32]) {
        assert!(!self.rgb, "an image needs no gradient");
        assert_eq!(packed.len(), self.packed_len());
        assert_eq!(transposed.len(), self.transposed_len());
        let (ib, ob, taps) = (blocks(self.cin), blocks(self.cout), self.taps());
        let (packed, _) = packed.as_chunks::<{ BLOCK * BLOCK }>();
        let (transposed, _) = transposed.as_chunks_mut::<{ BLOCK * BLOCK }>();
        for o in 0..ob {
            for tap in 0..taps {
                for i in 0..ib {
                    let from = &packed[(o * taps + tap) * ib + i];
                    let to = &mut transposed[(i * taps + tap) * ob + o];
                    for r in 0..BLOCK {
                        for c in 0..BLOCK {
                            to[c * BLOCK + r] = from[r * BLOCK + c];
                        }
                    }
                }
            }
        }
    }
}

/// Weights in bf16: `[panel][tap][k / 32][16 pairs of k][16]`, the even k of a pair in the lower half.
impl Conv {
    /// Number of pairs of weights that [`Conv::round`] makes.
    pub fn rounded_len(&self) -> usize {
        bf16::packed_len(blocks(self.cout), self.taps(), self.k())
    }

    /// Number of pairs of weights that [`Conv::round_transposed`] makes.
    pub fn rounded_transposed_len(&self) -> usize {
        bf16::packed_len(blocks(self.cin), self.taps(), blocks(self.cout) * BLOCK)
    }

    /// Rounds packed weights to bf16, for [`ConvPlan::forward`].
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn round(&self, isa: Isa, packed: &[f32], rounded: &mut [u32]) {
        assert_eq!(packed.len(), self.packed_len());
        assert_eq!(rounded.len(), self.rounded_len());
        isa.vectorize(|| bf16::pack(self.k(), packed, rounded));
    }

    /// Repacks and rounds packed weights to bf16, for [`ConvPlan::grad_input`].
    ///
    /// # Panics
    /// If a length is wrong, or for the image convolution.
    pub fn round_transposed(&self, isa: Isa, packed: &[f32], rounded: &mut [u32]) {
        assert!(!self.rgb, "an image needs no gradient");
        assert_eq!(packed.len(), self.packed_len());
        assert_eq!(rounded.len(), self.rounded_transposed_len());
        let (o, i) = (blocks(self.cout), blocks(self.cin));
        isa.vectorize(|| bf16::pack_transposed(o, self.taps(), i, packed, rounded));
    }
}

/// One weight gradient: `dw = x^T dy`.
pub struct GradWeight<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) dy: &'a [f32],
    pub(crate) dw: SharedMut<'a>,
}

impl<'a> GradWeight<'a> {
    /// Input planes, gradient of the output planes, and the gradient of the packed weights to overwrite.
    pub fn new(x: &'a [f32], dy: &'a [f32], dw: &'a mut [f32]) -> Self {
        Self { x, dy, dw: SharedMut::new(dw) }
    }
}

/// A [`Conv`] on inputs of one size: everything about its loops that does not depend on values.
pub struct ConvPlan {
    conv: Conv,
    out: (usize, usize),
    n: usize,
    compute: Compute,
    x_plane: usize,
    y_plane: usize,
    forward: RowsPlan,
    /// Where [`ConvPlan::forward`] is faster that way.
    winograd: Option<Winograd>,
    /// Where it is, and [`ConvPlan::grad_input`], with weights that change from call to call.
    winograd_once: Option<Winograd>,
    /// For [`ConvPlan::grad_input`]; absent for an image, and where Winograd's products take its place.
    backward: Option<RowsPlan>,
    /// Per tap, runs cut at multiples of `CHUNK_ROWS` output rows.
    runs: Vec<Vec<Run>>,
    x_stride: usize,
}

impl ConvPlan {
    /// Plans `conv` for `n` images of `height` x `width`; `gradients` prepares the backward passes too.
    pub fn new(
        conv: Conv,
        (height, width): (usize, usize),
        n: usize,
        gradients: bool,
        compute: &Compute,
    ) -> Self {
        assert!(n > 0 && height > 0 && width > 0, "empty input");
        let pad = conv.kernel / 2;
        let out = (conv.output_size(height), conv.output_size(width));
        let kernel = conv.kernel;
        let x_plane = (height * width * n + 1) * BLOCK;
        let y_plane = (out.0 * out.1 * n + 1) * BLOCK;
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
        let max_rows = match compute.precision {
            Precision::F32 => compute.micro.max_rows(),
            Precision::Bf16 => bf16::TILE_ROWS,
        };
        let forward = RowsPlan::new(
            &RowsGeometry {
                n,
                pixels,
                taps: conv.taps(),
                src: &src,
                image_stride,
                zero_row: if conv.rgb { 0 } else { x_plane - BLOCK },
                skip_padding: n >= MIN_BATCH_TO_SKIP_PADDING,
            },
            max_rows,
        );
        let f32 = compute.precision == Precision::F32;
        let winograd = f32.then(|| Winograd::new(&conv, (height, width), n)).flatten();
        let once = f32 && gradients;
        let winograd_once = once.then(|| Winograd::for_one_call(&conv, (height, width), n)).flatten();
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
                pixels: height * width,
                taps: conv.taps(),
                src: &over,
                image_stride: BLOCK,
                zero_row: y_plane - BLOCK,
                skip_padding: true,
            };
            RowsPlan::new(&geometry, max_rows)
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

    /// Whether [`ConvPlan::forward`] is faster with [`Weights::Winograd`]: that depends on the convolution, its precision
    /// and the size of the maps, not on the number of images, so that the output for an image is the same to the bit
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
    /// with outputs of one shape, weights as [`Conv::join`] makes them. Neither reads nor writes one's output for the
    /// other, as a residual would.
    ///
    /// # Panics
    /// If a slice of a job has the wrong length, the plans' outputs differ, or the plan does not compute in f32.
    pub fn forward_sum<'a>(&self, other: &ConvPlan, jobs: impl IntoIterator<Item = RowsJob<'a>>) {
        assert_eq!(self.compute.precision, Precision::F32, "sums of convolutions are in f32");
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
            c_plane: self.y_plane,
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
        };
        pool.with_slice(jobs, |jobs| self.run_rows(plan, &dims, jobs));
    }

    fn run_rows(&self, plan: &RowsPlan, dims: &RowsDims, jobs: &mut [RowsJob<'_>]) {
        let pool = &self.compute.pool;
        match self.compute.precision {
            Precision::F32 => run(self.compute.micro, pool, &[(plan, dims)], jobs),
            Precision::Bf16 => bf16::run(self.compute.isa(), pool, plan, dims, jobs),
        }
    }

    /// Gradient of the packed weights, for every job in parallel.
    ///
    /// # Panics
    /// If a slice of a job has the wrong length, or the plan was made without gradients.
    pub fn grad_weight<'a>(&self, jobs: impl IntoIterator<Item = GradWeight<'a>>) {
        self.compute.pool.with_slice(jobs, |jobs| self.run_grad_weight(jobs));
    }

    fn run_grad_weight(&self, jobs: &mut [GradWeight<'_>]) {
        assert!(!self.runs.is_empty(), "planned with gradients");
        let (panels, taps, k) = (blocks(self.conv.cout), self.conv.taps(), self.conv.k());
        let k_blocks = k.div_ceil(BLOCK);
        let groups = k_blocks.div_ceil(GRAD_BLOCKS);
        for job in jobs.iter() {
            let x_len = if self.conv.rgb { self.x_plane } else { k_blocks * self.x_plane };
            assert!(job.x.len() >= x_len, "input too small");
            assert!(job.dy.len() >= panels * self.y_plane, "output gradient too small");
            assert_eq!(job.dw.len(), self.conv.packed_len(), "weight gradient of another shape");
        }
        let jobs = &*jobs;
        if self.compute.precision == Precision::Bf16 {
            let dims = GradDims {
                runs: &self.runs,
                x_stride: self.x_stride,
                x_block: if self.conv.rgb { BLOCK } else { self.x_plane },
                k,
                rows: self.out.0 * self.out.1 * self.n,
                panels,
                y_plane: self.y_plane,
            };
            return bf16::grad_weight(self.compute.isa(), &self.compute.pool, &dims, jobs);
        }
        let micro = self.compute.micro;
        let width = micro.max_grad_panels();
        let columns = panels.div_ceil(width);
        self.compute.pool.run(jobs.len() * columns * taps * groups, |task| {
            let (rest, group) = (task / groups, task % groups);
            let (rest, tap) = (rest / taps, rest % taps);
            let (job, first) = (&jobs[rest / columns], rest % columns * width);
            let count = (panels - first).min(width);
            let from = group * GRAD_BLOCKS * BLOCK;
            let rows = (GRAD_BLOCKS * BLOCK).min(k - from);
            let mut pieces = [(null(), null_mut()); MAX_PANELS];
            for (p, piece) in pieces[..count].iter_mut().enumerate() {
                let panel = first + p;
                // SAFETY: the pieces do not overlap.
                let dw = unsafe { job.dw.part(((panel * taps + tap) * k + from) * BLOCK, rows * BLOCK) };
                dw.fill(0.0);
                *piece = (job.dy[panel * self.y_plane..].as_ptr(), dw.as_mut_ptr());
            }
            let most = micro.max_grad_rows(count);
            let mut runs = self.runs[tap].as_slice();
            while let Some(run) = runs.first() {
                let chunk = |run: &Run| run.dy as usize / (CHUNK_ROWS * BLOCK);
                let len = runs.iter().take_while(|r| chunk(r) == chunk(run)).count();
                let (now, later) = runs.split_at(len);
                runs = later;
                for b in (0..rows).step_by(BLOCK) {
                    let block = (from + b) / BLOCK;
                    let x_block = if self.conv.rgb { block * BLOCK } else { block * self.x_plane };
                    let channels = BLOCK.min(rows - b);
                    let tiles = channels.div_ceil(most);
                    for t in 0..tiles {
                        let (from, to) = (channels * t / tiles, channels * (t + 1) / tiles);
                        // SAFETY: the runs stay within a plane of `x` and `dy` (or within the padded
                        // images), whose lengths were checked above; the pieces hold `rows` rows of 16.
                        unsafe {
                            let panels = pieces.map(|(dy, dw)| (dy, dw.wrapping_add((b + from) * BLOCK)));
                            let tile = GradTile {
                                runs: now,
                                x: job.x.as_ptr().add(x_block + from),
                                x_stride: self.x_stride,
                                panels: &panels[..count],
                            };
                            micro.grad(to - from, &tile);
                        }
                    }
                }
            }
        });
    }
}

/// Runs of output rows whose input rows lie `x_stride` floats apart, for one tap.
fn grad_runs(pixels: usize, n: usize, x_stride: usize, src: &dyn Fn(usize) -> Option<usize>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let to_u32 = |v: usize| u32::try_from(v).expect("activation too large");
    for pixel in 0..pixels {
        let Some(mut x) = src(pixel) else { continue };
        let mut row = pixel * n;
        let end = row + n;
        while row < end {
            let len = (CHUNK_ROWS - row % CHUNK_ROWS).min(end - row);
            let joins = |r: &Run| {
                !row.is_multiple_of(CHUNK_ROWS)
                    && r.x as usize + r.len as usize * x_stride == x
                    && r.dy as usize + r.len as usize * BLOCK == row * BLOCK
            };
            match runs.last_mut() {
                Some(last) if joins(last) => last.len += len as u32,
                _ => runs.push(Run { x: to_u32(x), dy: to_u32(row * BLOCK), len: len as u32 }),
            }
            row += len;
            x += len * x_stride;
        }
    }
    runs
}
