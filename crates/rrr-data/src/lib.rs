//! Image datasets: folders, Meta-Album, CSV; decoding, splits and seeded augmentation.
//!
//! Data flows one way:
//! [`Source::open`] lists labelled files, [`Source::split`] divides them into train, validation and test,
//! [`ImageStore::load`] decodes and resizes them once, and a [`Loader`] yields shuffled, augmented batches.
//!
//! Every random choice is a function of a seed and of what it is for (see [`rng`]), never of the number of
//! threads, the platform or the order in which the file system lists files.
#![forbid(unsafe_code)]

pub mod augment;
mod crops;
mod dataset;
pub mod decode;
mod error;
mod loader;
mod resize;
pub mod rng;
pub mod sample;
mod source;
mod split;
mod store;
mod workers;

pub use augment::Policy;
pub use crops::{CropOptions, Crops};
pub use dataset::{Dataset, Sample, Splits};
pub use decode::{Limits, RgbImage};
pub use error::{BadImage, DataError, Result};
pub use loader::{Batch, EpochIter, Loader, LoaderOptions};
pub use resize::Resize;
pub use source::{EXTENSIONS, FoundImages, OpenOptions, Source, SourceKind, find_images, is_image_name};
pub use split::{SplitSpec, Take};
pub use store::{DecodedImages, ImageStore, StoreOptions};
pub use workers::Workers;
