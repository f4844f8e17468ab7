//! Reads PyTorch and safetensors checkpoints without executing anything; backbone cards, catalog and downloads.

#![forbid(unsafe_code)]

mod checkpoint;
mod dtype;
mod error;
mod pickle;
mod pytorch;
mod resnet;
mod safe;
mod state;
mod tensor;
mod write;

pub use checkpoint::{Checkpoint, Format};
pub use dtype::Dtype;
pub use error::{Error, Misshapen};
pub use resnet::{ResNetLayout, detect_resnet};
pub use state::{LoadOptions, LoadedState, StateTensor, find_prefix, load_state};
pub use tensor::TensorInfo;
pub use write::{TensorRef, atomic_write, write_safetensors};
