//! Layers, networks, training steps and inference of bottleneck residual networks.
//!
//! A network is a frozen or absent *stem* followed by one or more *branches* that share its output
//! ([`NetSpec`]). [`Network`] runs it in inference form, [`Trainer`] trains it. Weights go in and out as
//! [`NetState`]: named tensors with PyTorch's shapes and names.

mod backward;
mod bf16;
mod classifier;
mod folded;
mod halved;
mod input;
mod int8;
mod layout;
mod learner;
mod loss;
mod network;
mod optimiser;
mod plans;
mod profile;
pub mod reference;
mod spec;
mod state;
mod stem;
mod tape;
mod trainer;

pub use int8::{Calibrator, Int8Tensor, QuantizedNetwork, QuantizedParam, QuantizedSequence, QuantizedState};
pub use loss::Lesson;
pub use network::Network;
pub use optimiser::AdamW;
pub use profile::LayerTime;
pub use rrr_kernels::int8::Int8Isa;
pub use rrr_kernels::{Compute, Isa, Pool, Precision};
pub use spec::{BlockSpec, BranchGroup, NetSpec, ParamSpec, SequenceSpec};
pub use state::{NetState, Part, State, StateError, StateView, Tensor, TensorView};
pub use trainer::{StemState, StepOutput, Trainable, Trainer, TrainerOptions, TrainerState};

/// A batch of square or rectangular RGB images, channels last.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// Pixels, `[n, height, width, 3]`.
    pub pixels: Pixels<'a>,
    /// Number of images.
    pub n: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

/// Pixel storage of a batch of [`Images`].
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// 0..=255; becomes `(p / 255 - mean[c]) / std[c]` on the way in.
    U8 {
        /// RGB values.
        data: &'a [u8],
        /// Normalisation of the backbone's card.
        normalize: Normalize,
    },
    /// Values as the first convolution sees them.
    F32(&'a [f32]),
}

/// Input normalisation per colour channel, for pixels scaled to [0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalize {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub std: [f32; 3],
}

/// What the branches say of a batch: `[branch][n][classes]`, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    /// Number of branches.
    pub branches: usize,
    /// Number of images.
    pub n: usize,
    /// Number of classes.
    pub classes: usize,
    /// `branches * n * classes` values.
    pub data: Vec<f32>,
}

impl Logits {
    /// The `classes` logits of one branch for one image.
    pub fn row(&self, branch: usize, image: usize) -> &[f32] {
        let start = (branch * self.n + image) * self.classes;
        &self.data[start..start + self.classes]
    }
}
