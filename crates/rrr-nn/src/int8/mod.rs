//! Inference with 8-bit weights and activations.
//!
//! Weights are symmetric with one scale per output channel, activations (all behind a ReLU, so never negative)
//! have one step per channel, which costs nothing: the weights behind it take it in. The last convolution of a
//! bottleneck and the one on its skip path are quantised together, so that their sum is one integer sum. The
//! first convolution reads the upper 7 bits of the pixels; the classifier computes in f32 on pooled features.
//!
//! [`Calibrator`] watches the f32 network on images and makes a [`QuantizedState`]; [`QuantizedNetwork`] runs
//! that, and gives the same logits, to the bit, on every CPU and for any number of threads.

mod calibrate;
mod images;
mod layers;
mod network;
mod quantize;
mod ranges;
mod seen;
mod state;

pub use calibrate::Calibrator;
pub use network::QuantizedNetwork;
pub use state::{Int8Tensor, QuantizedParam, QuantizedSequence, QuantizedState};
