//! Reads PyTorch and safetensors checkpoints without executing anything; backbone cards, catalog and downloads.

#![forbid(unsafe_code)]

mod cache;
mod card;
mod catalog;
mod checkpoint;
mod convert;
mod download;
mod dtype;
mod error;
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
pub use dtype::Dtype;
pub use error::{Error, Misshapen};
pub use pull::{BackboneFiles, ListEntry, Progress, PullOptions, Resolved, list, pull, resolve};
pub use resnet::{ResNetLayout, detect_resnet};
pub use state::{LoadOptions, LoadedState, StateTensor, find_prefix, load_state};
pub use tensor::TensorInfo;
pub use write::{TensorRef, atomic_write, write_safetensors};
