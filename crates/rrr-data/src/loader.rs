//! Batches of an epoch, shuffled, augmented and prefetched.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rayon::prelude::*;

use crate::augment::{Policy, Scratch};
use crate::error::{DataError, Result};
use crate::rng::SeededRng;
use crate::store::ImageStore;
use crate::workers::Workers;

/// How a [`Loader`] makes batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Images per batch; the last batch of an epoch has the rest.
    pub batch_size: usize,
    /// Seed of the shuffling and of the augmentation.
    pub seed: u64,
    /// Independent random streams of one seed: for instance 0 to train, 1 to warm batch norms.
    pub stream: u64,
    /// A new order every epoch, instead of the dataset's.
    pub shuffle: bool,
    /// What is done to every image.
    pub policy: Policy,
    /// Batches that [`Loader::epoch`] prepares ahead, at least 1.
    pub prefetch: usize,
}

impl LoaderOptions {
    /// Training: shuffled and augmented, two batches ahead.
    pub fn training(batch_size: usize, seed: u64, policy: Policy) -> Self {
        Self { batch_size, seed, stream: 0, shuffle: true, policy, prefetch: 2 }
    }

    /// Evaluation: in the dataset's order, nothing changed, two batches ahead.
    pub fn evaluation(batch_size: usize) -> Self {
        Self { batch_size, seed: 0, stream: 0, shuffle: false, policy: Policy::None, prefetch: 2 }
    }
}

/// Images of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `[n, size, size, 3]`, RGB.
    pub pixels: Vec<u8>,
    /// Label of each image.
    pub labels: Vec<u32>,
    /// Index of each image in the store.
    pub indices: Vec<usize>,
    /// Number of images.
    pub n: usize,
    /// Side of the images in pixels.
    pub size: usize,
}

/// Makes the batches of any epoch of an [`ImageStore`]. Cloning shares the store.
///
/// The order of an epoch is a function of `(seed, stream, epoch)`, the augmentation of an image of
/// `(seed, stream, epoch, index of the image)`: any batch can be made again at any time, by any number of threads.
#[derive(Clone, Debug)]
pub struct Loader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<ImageStore>,
    options: LoaderOptions,
    workers: Workers,
    /// The order of the epoch asked for last.
    order: Mutex<Option<(u64, Arc<[usize]>)>>,
}

impl Loader {
    /// A loader over all images of a store.
    ///
    /// # Panics
    /// If the batch size is 0.
    pub fn new(store: Arc<ImageStore>, options: LoaderOptions, workers: &Workers) -> Self {
        assert!(options.batch_size > 0, "a batch needs at least one image");
        Self(Arc::new(Inner { store, options, workers: workers.clone(), order: Mutex::new(None) }))
    }

    /// Number of batches in an epoch.
    pub fn steps(&self) -> usize {
        self.0.store.len().div_ceil(self.0.options.batch_size)
    }

    /// Batch `step` of an epoch, the same that iterating would give.
    ///
    /// # Errors
    /// [`DataError::Unreadable`] if an image that is not in memory cannot be decoded any more.
    ///
    /// # Panics
    /// If `step` is not less than [`steps`](Self::steps).
    pub fn batch(&self, epoch: u64, step: usize) -> Result<Batch> {
        let mut batch = Batch::default();
        self.batch_into(epoch, step, &mut batch)?;
        Ok(batch)
    }

    /// [`batch`](Self::batch) into the memory of an old one.
    ///
    /// # Errors
    /// As [`batch`](Self::batch); what `batch` then holds is unspecified.
    ///
    /// # Panics
    /// As [`batch`](Self::batch).
    pub fn batch_into(&self, epoch: u64, step: usize, batch: &mut Batch) -> Result<()> {
        self.0.batch_into(epoch, step, batch)
    }

    /// Iterates the batches of an epoch from step `from` on, prepared ahead by a background thread that ends
    /// with the iterator. After an error there are no further batches.
    ///
    /// # Errors
    /// [`DataError::Threads`] if the thread cannot be started.
    pub fn epoch(&self, epoch: u64, from: usize) -> Result<EpochIter> {
        let steps = self.steps();
        let (sender, batches) = sync_channel(self.0.options.prefetch.saturating_sub(1));
        let (recycler, recycled) = channel::<Batch>();
        let inner = Arc::clone(&self.0);
        let prepare = move || {
            for step in from..steps {
                let mut batch = recycled.try_recv().unwrap_or_default();
                let result = inner.batch_into(epoch, step, &mut batch).map(|()| batch);
                let failed = result.is_err();
                if sender.send(result).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("rrr-data-prefetch".into())
            .spawn(prepare)
            .map_err(|e| DataError::Threads { reason: e.to_string() })?;
        let left = steps.saturating_sub(from);
        Ok(EpochIter { batches: Some(batches), recycler, thread: Some(thread), left })
    }
}

impl Inner {
    fn batch_into(&self, epoch: u64, step: usize, batch: &mut Batch) -> Result<()> {
        let order = self.order(epoch);
        let size = self.store.size();
        let bytes = size * size * 3;
        let chosen = order.chunks(self.options.batch_size).nth(step).expect("step must be within the epoch");
        let samples = &self.store.dataset().samples;
        batch.n = chosen.len();
        batch.size = size;
        batch.indices.clear();
        batch.indices.extend_from_slice(chosen);
        batch.labels.clear();
        batch.labels.extend(chosen.iter().map(|&i| samples[i].label));
        batch.pixels.resize(chosen.len() * bytes, 0);
        let prepare = |(pixels, &index): (&mut [u8], &usize)| {
            self.store.copy_to(index, pixels)?;
            self.augment(epoch, index, pixels);
            Ok(())
        };
        // Errors are gathered in order, so that the one reported does not depend on the threads.
        let results: Vec<Result<()>> =
            self.workers.run(|| batch.pixels.par_chunks_exact_mut(bytes).zip(chosen).map(prepare).collect());
        results.into_iter().collect()
    }

    fn augment(&self, epoch: u64, index: usize, pixels: &mut [u8]) {
        if self.options.policy == Policy::None {
            return;
        }
        let mut rng = self.rng("augment", epoch, index as u64);
        SCRATCH.with_borrow_mut(|scratch| {
            self.options.policy.apply(pixels, self.store.size(), &mut rng, scratch);
        });
    }

    fn order(&self, epoch: u64) -> Arc<[usize]> {
        let mut held = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = held.as_ref().filter(|(of, _)| *of == epoch) {
            return Arc::clone(order);
        }
        let mut order: Vec<usize> = (0..self.store.len()).collect();
        if self.options.shuffle {
            self.rng("shuffle", epoch, 0).shuffle(&mut order);
        }
        let order: Arc<[usize]> = order.into();
        *held = Some((epoch, Arc::clone(&order)));
        order
    }

    fn rng(&self, purpose: &str, epoch: u64, index: u64) -> SeededRng {
        let stream = self.options.stream.to_string();
        SeededRng::new(self.options.seed, purpose, &stream, epoch, index)
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The batches of an epoch, made by [`Loader::epoch`]. Dropping it stops the background thread.
#[derive(Debug)]
pub struct EpochIter {
    batches: Option<Receiver<Result<Batch>>>,
    recycler: Sender<Batch>,
    thread: Option<JoinHandle<()>>,
    left: usize,
}

impl EpochIter {
    /// Gives a batch's memory back, for a later batch to use.
    pub fn recycle(&self, batch: Batch) {
        // The thread may have made its last batch already.
        let _ = self.recycler.send(batch);
    }
}

impl Iterator for EpochIter {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.batches.as_ref()?.recv().ok();
        self.left = if matches!(next, Some(Ok(_))) { self.left - 1 } else { 0 };
        if next.is_none()
            && let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
        {
            std::panic::resume_unwind(panic);
        }
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

impl Drop for EpochIter {
    fn drop(&mut self) {
        // Without its receiver, the thread fails to send and ends.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
