//! Decoded images of one size, in memory as far as a budget allows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::dataset::Dataset;
use crate::decode::{self, Limits, RgbImage};
use crate::error::{BadImage, DataError, Result};
use crate::resize::Resize;
use crate::workers::Workers;

/// How images are decoded and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Side of the square images, in pixels.
    pub size: usize,
    /// How they are brought to that size.
    pub resize: Resize,
    /// Bytes of decoded pixels to keep; the first images of the dataset are kept, the rest is decoded again
    /// whenever it is needed.
    pub memory_budget: u64,
    /// Leave unreadable images out instead of failing.
    pub skip_bad: bool,
    /// What is too much to decode.
    pub limits: Limits,
}

impl StoreOptions {
    /// Images of `size` x `size`, antialiased, up to 2 GiB in memory, unreadable images an error.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            resize: Resize::default(),
            memory_budget: 2 << 30,
            skip_bad: false,
            limits: Limits::default(),
        }
    }

    fn image_bytes(&self) -> usize {
        self.size * self.size * 3
    }
}

/// Images decoded once; [`ImageStore`]s of any of them share the pixels.
#[derive(Debug)]
pub struct DecodedImages {
    options: StoreOptions,
    /// What became of each file.
    slots: HashMap<PathBuf, Result<Slot, BadImage>>,
    /// `[resident, size, size, 3]`.
    pixels: Arc<Vec<u8>>,
}

/// A decoded image.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Where its pixels lie; `None` if it is not in memory.
    pixels: Option<usize>,
    /// The first half of the SHA-256 of its file.
    file: [u8; 16],
}

impl DecodedImages {
    /// Decodes every image of a dataset in parallel. Unreadable ones matter to those who ask for them.
    ///
    /// # Panics
    /// If the size is 0.
    pub fn load(dataset: &Dataset, options: StoreOptions, workers: &Workers) -> Self {
        assert!(options.size > 0, "images must have a size");
        let bytes = options.image_bytes();
        let resident = usize::try_from(options.memory_budget / bytes as u64).unwrap_or(usize::MAX);
        let resident = resident.min(dataset.len());
        let mut pixels = vec![0u8; resident * bytes];
        let results: Vec<Result<[u8; 16], BadImage>> = workers.run(|| {
            let (kept, rest) = dataset.samples.split_at(resident);
            let into_memory = kept.par_iter().zip(pixels.par_chunks_exact_mut(bytes)).map(|(sample, out)| {
                let (image, file) = read(&sample.path, &options.limits)?;
                image.resize_into(out, options.size, options.resize);
                Ok(file)
            });
            // The others are decoded too: better to learn now than in the middle of training.
            let checked = rest.par_iter().map(|sample| Ok(read(&sample.path, &options.limits)?.1));
            into_memory.chain(checked).collect()
        });
        let slot = |(i, result): (usize, Result<[u8; 16], BadImage>)| {
            result.map(|file| Slot { pixels: (i < resident).then_some(i), file })
        };
        let slots = results.into_iter().enumerate().map(slot);
        let paths = dataset.samples.iter().map(|s| s.path.clone());
        Self { options, slots: paths.zip(slots).collect(), pixels: Arc::new(pixels) }
    }

    /// Bytes of decoded pixels.
    pub fn bytes(&self) -> usize {
        self.pixels.len()
    }

    /// A store of the images of `dataset`, all of which must be among those decoded.
    ///
    /// # Errors
    /// [`DataError::Unreadable`] with all unreadable images, in order; with
    /// [`skip_bad`](StoreOptions::skip_bad), [`DataError::ClassUnreadable`] if a class loses its last image.
    ///
    /// # Panics
    /// If an image of `dataset` was never decoded.
    pub fn store(&self, mut dataset: Dataset) -> Result<ImageStore> {
        let before = dataset.class_counts();
        let (mut slots, mut bad) = (Vec::with_capacity(dataset.len()), Vec::new());
        let mut files = Sha256::new();
        dataset.samples.retain(|sample| match &self.slots[&sample.path] {
            Ok(slot) => {
                slots.push(slot.pixels);
                files.update(slot.file);
                true
            }
            Err(image) => {
                bad.push(image.clone());
                false
            }
        });
        if !bad.is_empty() && !self.options.skip_bad {
            return Err(DataError::Unreadable { images: bad });
        }
        for ((class, before), after) in dataset.classes.iter().zip(before).zip(dataset.class_counts()) {
            if before > 0 && after == 0 {
                return Err(DataError::ClassUnreadable { class: class.clone(), skipped: before });
            }
        }
        let (options, pixels, contents) = (self.options, Arc::clone(&self.pixels), files.finalize().into());
        Ok(ImageStore { dataset, options, slots, pixels, bad, contents })
    }
}

/// An image, and the first half of the SHA-256 of its file, which costs little beside decoding.
fn read(path: &Path, limits: &Limits) -> Result<(RgbImage, [u8; 16]), BadImage> {
    let bytes = decode::bytes_of(path)?;
    let file = Sha256::digest(&bytes)[..16].try_into().expect("half of 32 bytes");
    Ok((decode::decode_file(path, &bytes, limits)?, file))
}

/// A dataset whose images were all decoded once; those within the memory budget stay decoded.
#[derive(Debug)]
pub struct ImageStore {
    dataset: Dataset,
    options: StoreOptions,
    /// Where each image's pixels lie in `pixels`; `None` for one that is not in memory.
    slots: Vec<Option<usize>>,
    /// `[.., size, size, 3]`, perhaps shared with other stores.
    pixels: Arc<Vec<u8>>,
    bad: Vec<BadImage>,
    contents: [u8; 32],
}

impl ImageStore {
    /// Decodes every image of a dataset in parallel.
    ///
    /// # Errors
    /// [`DataError::Unreadable`] with all unreadable images, in order; with
    /// [`skip_bad`](StoreOptions::skip_bad), [`DataError::ClassUnreadable`] if a class loses its last image.
    ///
    /// # Panics
    /// If the size is 0.
    pub fn load(dataset: Dataset, options: StoreOptions, workers: &Workers) -> Result<Self> {
        DecodedImages::load(&dataset, options, workers).store(dataset)
    }

    /// The images, without unreadable ones.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Unreadable images that were left out.
    pub fn bad(&self) -> &[BadImage] {
        &self.bad
    }

    /// A SHA-256 over the bytes of the images' files, in order, as they were when they were decoded.
    pub fn contents(&self) -> [u8; 32] {
        self.contents
    }

    /// Side of the images in pixels.
    pub fn size(&self) -> usize {
        self.options.size
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.dataset.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.dataset.is_empty()
    }

    /// How many images stay decoded in memory.
    pub fn resident(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Writes image `index` as `[size, size, 3]` into `out`.
    ///
    /// # Errors
    /// [`DataError::Unreadable`] if an image that is not in memory cannot be decoded any more.
    ///
    /// # Panics
    /// If there is no such image or `out` has another length.
    pub fn copy_to(&self, index: usize, out: &mut [u8]) -> Result<()> {
        let bytes = self.options.image_bytes();
        if let Some(slot) = self.slots[index] {
            out.copy_from_slice(&self.pixels[slot * bytes..][..bytes]);
        } else {
            let image = decode::read(&self.dataset.samples[index].path, &self.options.limits)?;
            image.resize_into(out, self.options.size, self.options.resize);
        }
        Ok(())
    }
}
