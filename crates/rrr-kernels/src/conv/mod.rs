//! Convolutions: geometry and weight packing; [`plan`]: forward and both gradients.

mod geometry;
mod grad;
mod plan;

use crate::blocks;
use crate::micro::BLOCK;

pub(crate) use geometry::{Geometry, rows};
pub use grad::GradWeight;
pub use plan::ConvPlan;

/// Largest kernel, the image convolution's.
const MAX_KERNEL: usize = 7;

/// Far more channels than any network has, and so few that no length overflows.
const MAX_CHANNELS: usize = 1 << 20;

/// The same of groups.
pub(crate) const MAX_GROUPS: usize = 1 << 12;

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
    ///
    /// # Panics
    /// If it is another, there are no channels or more than 2^20, or the stride is zero.
    pub fn new(cin: usize, cout: usize, kernel: usize, stride: usize) -> Self {
        assert!(kernel == 1 || kernel == 3, "kernel must be 1 or 3");
        assert!(stride > 0, "stride must not be zero");
        let possible = 1..=MAX_CHANNELS;
        assert!(possible.contains(&cin) && possible.contains(&cout), "no channels, or too many");
        Self { cin, cout, kernel, stride, rgb: false }
    }

    /// The 7x7/2 convolution of an RGB image, `[n][height + 6][width + 6][3]` with its zero padding.
    ///
    /// # Panics
    /// If there are no output channels or more than 2^20.
    pub fn image(cout: usize) -> Self {
        assert!((1..=MAX_CHANNELS).contains(&cout), "no channels, or too many");
        Self { cin: 3, cout, kernel: MAX_KERNEL, stride: 2, rgb: true }
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
    pub(crate) fn k(&self) -> usize {
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

    /// Rows of a panel, each of 16 output channels, in PyTorch's order of a filter's weights, `[cin][kernel][kernel]`.
    fn rows_of_filter(&self) -> impl Iterator<Item = usize> {
        let positions = self.kernel * self.kernel;
        let mut first = [0; MAX_KERNEL * MAX_KERNEL];
        for (yx, row) in first[..positions].iter_mut().enumerate() {
            let (y, x) = (yx / self.kernel, yx % self.kernel);
            *row = if self.rgb { y * self.k() + x * 3 } else { yx * self.k() };
        }
        (0..self.cin).flat_map(move |i| (0..positions).map(move |yx| first[yx] + i))
    }

    /// Number of packed weights of 16 output channels: a panel.
    pub fn panel_len(&self) -> usize {
        self.taps() * self.k() * BLOCK
    }

    /// Packs weights from PyTorch's order, `[cout][cin][kernel][kernel]`.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        assert_eq!(packed.len(), self.packed_len());
        for (o, panel) in packed.chunks_exact_mut(self.panel_len()).enumerate() {
            self.pack_panel(weights, o, panel);
        }
    }

    /// The share of [`Conv::pack`] of the `o`th 16 output channels (fewer, if there are no more): all of `weights` go in, a
    /// panel comes out.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn pack_panel(&self, weights: &[f32], o: usize, panel: &mut [f32]) {
        let taps = self.kernel * self.kernel;
        let filter = self.cin * taps;
        assert_eq!(weights.len(), self.cout * filter, "wrong number of weights");
        assert_eq!(panel.len(), self.panel_len());
        let filters = &weights[o * BLOCK * filter..self.cout.min((o + 1) * BLOCK) * filter];
        let (rows, _) = panel.as_chunks_mut::<BLOCK>();
        let mut places = self.rows_of_filter();
        // Whole lines are read of every filter and written of the panel.
        for start in (0..filter).step_by(BLOCK) {
            let mut lines = [[0.0; BLOCK]; BLOCK];
            for (channel, filter) in filters.chunks_exact(filter).enumerate() {
                match filter[start..].first_chunk::<BLOCK>() {
                    Some(values) => (0..BLOCK).for_each(|i| lines[i][channel] = values[i]),
                    None => filter[start..].iter().zip(&mut lines).for_each(|(v, line)| line[channel] = *v),
                }
            }
            lines.iter().zip(&mut places).for_each(|(line, row)| rows[row] = *line);
        }
        let used = if self.rgb { self.k() } else { self.cin };
        for tap in rows.chunks_exact_mut(self.k()) {
            tap[used..].fill([0.0; BLOCK]);
        }
    }

    /// The inverse of [`Conv::pack`].
    ///
    /// # Panics
    /// If the length is wrong.
    pub fn unpack(&self, packed: &[f32]) -> Vec<f32> {
        assert_eq!(packed.len(), self.packed_len());
        let filter = self.cin * self.kernel * self.kernel;
        let mut weights = vec![0.0; self.cout * filter];
        let panels = packed.chunks_exact(self.panel_len());
        for (filters, panel) in weights.chunks_mut(BLOCK * filter).zip(panels) {
            let (rows, _) = panel.as_chunks::<BLOCK>();
            let mut places = self.rows_of_filter();
            // Whole lines are read of the panel and written of every filter.
            for start in (0..filter).step_by(BLOCK) {
                let lines: [_; BLOCK] =
                    std::array::from_fn(|_| places.next().map_or([0.0; BLOCK], |row| rows[row]));
                for (channel, filter) in filters.chunks_exact_mut(filter).enumerate() {
                    filter[start..].iter_mut().zip(&lines).for_each(|(to, line)| *to = line[channel]);
                }
            }
        }
        weights
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
