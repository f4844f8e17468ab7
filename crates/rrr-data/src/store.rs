//! Decoded images of one size, in memory as far as a budget allows.

use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::decode::{self, Limits};
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
}

/// A dataset whose images were all decoded once; those within the memory budget stay decoded.
#[derive(Debug)]
pub struct ImageStore {
    dataset: Dataset,
    options: StoreOptions,
    /// `[resident, size, size, 3]`.
    pixels: Vec<u8>,
    bad: Vec<BadImage>,
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
        assert!(options.size > 0, "images must have a size");
        let bytes = options.size * options.size * 3;
        let resident = usize::try_from(options.memory_budget / bytes as u64).unwrap_or(usize::MAX);
        let resident = resident.min(dataset.len());
        let mut pixels = vec![0u8; resident * bytes];
        let bad: Vec<(usize, BadImage)> = workers.run(|| {
            let (kept, rest) = dataset.samples.split_at(resident);
            let into_memory = kept.par_iter().zip(pixels.par_chunks_exact_mut(bytes)).map(|(sample, out)| {
                let image = decode::read(&sample.path, &options.limits)?;
                image.resize_into(out, options.size, options.resize);
                Ok(())
            });
            // The others are decoded too: better to learn now than in the middle of training.
            let checked =
                rest.par_iter().map(|sample| decode::read(&sample.path, &options.limits).map(|_| ()));
            let results: Vec<Result<(), BadImage>> = into_memory.chain(checked).collect();
            results.into_iter().enumerate().filter_map(|(i, r)| r.err().map(|e| (i, e))).collect()
        });
        let mut store = Self { dataset, options, pixels, bad: Vec::new() };
        if !bad.is_empty() {
            if !options.skip_bad {
                return Err(DataError::Unreadable {
                    images: bad.into_iter().map(|(_, image)| image).collect(),
                });
            }
            store.remove(bad)?;
        }
        Ok(store)
    }

    /// Takes unreadable images out of the dataset and closes their gaps in memory.
    fn remove(&mut self, bad: Vec<(usize, BadImage)>) -> Result<()> {
        let before = self.dataset.class_counts();
        let bytes = self.image_bytes();
        let mut is_bad = vec![false; self.dataset.len()];
        for (i, _) in &bad {
            is_bad[*i] = true;
        }
        let mut end = 0;
        for (i, _) in is_bad.iter().enumerate().take(self.pixels.len() / bytes).filter(|(_, bad)| !**bad) {
            self.pixels.copy_within(i * bytes..(i + 1) * bytes, end);
            end += bytes;
        }
        self.pixels.truncate(end);
        let mut flags = is_bad.iter();
        self.dataset.samples.retain(|_| flags.next() == Some(&false));
        self.bad = bad.into_iter().map(|(_, image)| image).collect();
        for ((class, before), after) in
            self.dataset.classes.iter().zip(before).zip(self.dataset.class_counts())
        {
            if before > 0 && after == 0 {
                return Err(DataError::ClassUnreadable { class: class.clone(), skipped: before });
            }
        }
        Ok(())
    }

    /// The images, without unreadable ones.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Unreadable images that were left out.
    pub fn bad(&self) -> &[BadImage] {
        &self.bad
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

    /// How many images stay decoded in memory: those with the lowest indices.
    pub fn resident(&self) -> usize {
        self.pixels.len() / self.image_bytes()
    }

    /// Writes image `index` as `[size, size, 3]` into `out`.
    ///
    /// # Errors
    /// [`DataError::Unreadable`] if an image that is not in memory cannot be decoded any more.
    ///
    /// # Panics
    /// If there is no such image or `out` has another length.
    pub fn copy_to(&self, index: usize, out: &mut [u8]) -> Result<()> {
        let bytes = self.image_bytes();
        if index < self.resident() {
            out.copy_from_slice(&self.pixels[index * bytes..][..bytes]);
        } else {
            let image = decode::read(&self.dataset.samples[index].path, &self.options.limits)?;
            image.resize_into(out, self.options.size, self.options.resize);
        }
        Ok(())
    }

    fn image_bytes(&self) -> usize {
        self.options.size * self.options.size * 3
    }
}
