//! Checkpoints of pretrained backbones: reading, converting, and getting them by name.
//!
//! - [`Checkpoint`] opens safetensors and PyTorch zip files, told apart by content, memory-mapped, every size checked,
//!   nothing ever executed. [`load_state`] fills a network's tensors from it, [`detect_resnet`] says which bottleneck
//!   ResNet it is, [`inspect`] sums it up and [`convert`] makes a safetensors file of it.
//! - [`Card`] is what the weights expect of an image (mean, std, ...), read from timm's `config.json` beside them.
//! - [`pull`] gets a backbone of the [`catalog`] into the cache and [`resolve`] also takes local files and folders.
//! - [`write_safetensors`] and [`atomic_write`] write files that are whole or not there, and [`Digest`] tells whether two
//!   are the same.
//!
//! ```no_run
//! use rrr_checkpoint::{Checkpoint, LoadOptions, PullOptions, detect_resnet, load_state, resolve};
//!
//! # fn main() -> Result<(), rrr_checkpoint::Error> {
//! let backbone = resolve("resnet152", &PullOptions::default())?;
//! let mean = backbone.require_card()?.mean;
//! let checkpoint = Checkpoint::open(&backbone.weights)?;
//! let layout = detect_resnet(&checkpoint)?;
//! let state = load_state(&checkpoint, &layout.tensors(), &LoadOptions::default())?;
//! let (shape, values) = &state.tensors["conv1.weight"];
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

mod cache;
mod card;
mod catalog;
mod checkpoint;
mod convert;
mod digest;
mod download;
mod dtype;
mod error;
pub mod lossy;
mod pickle;
mod pull;
mod pytorch;
mod resnet;
mod safe;
mod state;
mod tensor;
mod wheel;
mod write;

pub use cache::cache_dir;
pub use card::{Card, ColorOrder, Interpolation};
pub use catalog::{CatalogEntry, catalog, lookup};
pub use checkpoint::{Checkpoint, Format};
pub use convert::{ConvertOptions, ConvertReport, Inspection, convert, inspect};
pub use digest::Digest;
pub use dtype::Dtype;
pub use error::{Error, Misshapen};
pub use pull::{BackboneFiles, ListEntry, Progress, PullOptions, Resolved, list, pull, resolve};
pub use resnet::{ResNetLayout, detect_resnet};
pub use state::{LoadOptions, LoadedState, StateTensor, find_prefix, load_state};
pub use tensor::TensorInfo;
pub use write::{
    Int8Ref, TensorRef, atomic_write, check_writable, plain, write_safetensors, write_safetensors_with_int8,
};
