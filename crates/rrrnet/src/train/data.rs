//! The images of a training run.

use super::Resources;
use crate::config::{Augmentation, ResizeFilter, TrainConfig};
use rrr_data::{
    DataError, Dataset, ImageStore, LoaderOptions, OpenOptions, Policy, Resize, Source, SplitSpec,
    StoreOptions, Take, Workers,
};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;

/// Random streams of the run's seed; streams from [`BRANCHES`] on belong to single branches.
pub(super) const TRAINING: u64 = 0;
pub(super) const WARMING: u64 = 1;
pub(super) const BRANCHES: u64 = 2;

/// Decoded images of every part.
pub(crate) struct Images {
    pub(crate) train: Arc<ImageStore>,
    pub(crate) valid: Option<Arc<ImageStore>>,
    pub(crate) test: Option<Arc<ImageStore>>,
    /// What the source says, then what was left out.
    pub(crate) notes: Vec<String>,
    /// How many of the notes are the source's.
    pub(crate) source_notes: usize,
}

impl Images {
    /// Opens, splits and decodes the dataset of `config`; with `resources`, all of it at once and perhaps before.
    pub(crate) fn open(
        config: &TrainConfig,
        workers: &Workers,
        resources: Option<&Resources>,
    ) -> Result<Self, DataError> {
        let source = source(config)?;
        let splits = source.split(&split_spec(config), config.seed)?;
        let decoded = resources.and_then(|r| r.images(config, &source, workers));
        let mut options = store_options(config);
        let mut notes = source.notes.clone();
        // Training images are read most often, so they have the first claim on memory.
        let mut load = |dataset| -> Result<Arc<ImageStore>, DataError> {
            let store = match &decoded {
                Some(images) => images.store(dataset)?,
                None => ImageStore::load(dataset, options, workers)?,
            };
            let (images, resident) = (store.len(), store.resident());
            tracing::info!(images, resident, bad = store.bad().len(), "decoded");
            let used = resident * store.size() * store.size() * 3;
            options.memory_budget = options.memory_budget.saturating_sub(used as u64);
            notes.extend(store.bad().iter().map(|bad| format!("left out {bad}")));
            Ok(Arc::new(store))
        };
        let train = load(splits.train)?;
        let valid = splits.valid.map(&mut load).transpose()?;
        let test = splits.test.map(&mut load).transpose()?;
        Ok(Self { train, valid, test, notes, source_notes: source.notes.len() })
    }

    /// A digest of what a run learns from and is measured on: image names and labels, in order.
    pub(super) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (part, store) in
            [Some(&self.train), self.valid.as_ref(), self.test.as_ref()].into_iter().enumerate()
        {
            let Some(store) = store else { continue };
            for sample in &store.dataset().samples {
                hash.update(format!("{part} {} {}\n", sample.label, sample.id));
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What determines the decoded images of a dataset.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SourceKey {
    data: PathBuf,
    columns: [Option<String>; 2],
    size: usize,
    resize: ResizeFilter,
    skip_bad: bool,
}

impl SourceKey {
    pub(super) fn new(config: &TrainConfig) -> Self {
        Self {
            data: config.data.clone(),
            columns: [config.image_column.clone(), config.label_column.clone()],
            size: config.image_size,
            resize: config.resize,
            skip_bad: config.skip_bad,
        }
    }
}

/// The test images of a training, not decoded.
pub(crate) fn test_samples(config: &TrainConfig) -> Result<Option<Dataset>, DataError> {
    Ok(source(config)?.split(&split_spec(config), config.seed)?.test)
}

fn source(config: &TrainConfig) -> Result<Source, DataError> {
    let options = OpenOptions {
        classes: None,
        image_column: config.image_column.clone(),
        label_column: config.label_column.clone(),
        skip_bad: config.skip_bad,
    };
    Source::open(&config.data, &options)
}

/// Loader options for one random stream of training images.
pub(super) fn loader_options(config: &TrainConfig, stream: u64) -> LoaderOptions {
    let policy = match config.augmentation {
        Augmentation::Paper => Policy::Paper,
        Augmentation::Auto => unreachable!("chosen before the first batch"),
        Augmentation::Light => Policy::Light,
        Augmentation::Shift => Policy::Shift,
        Augmentation::Mixed => Policy::Mixed,
        Augmentation::None => Policy::None,
    };
    LoaderOptions { stream, ..LoaderOptions::training(config.batch_size, config.seed, policy) }
}

/// How the images of `config` are decoded and kept.
pub(super) fn store_options(config: &TrainConfig) -> StoreOptions {
    StoreOptions {
        resize: resize(config.resize),
        memory_budget: config.memory_budget_mib << 20,
        skip_bad: config.skip_bad,
        ..StoreOptions::new(config.image_size)
    }
}

pub(crate) fn resize(filter: ResizeFilter) -> Resize {
    match filter {
        ResizeFilter::Antialias => Resize::Antialias,
        ResizeFilter::Bilinear => Resize::Bilinear,
    }
}

fn split_spec(config: &TrainConfig) -> SplitSpec {
    let take = |count: Option<usize>, share: Option<f64>| {
        count.map(Take::PerClass).or_else(|| share.map(Take::Fraction))
    };
    SplitSpec {
        train: take(config.train_per_class, None),
        valid: take(config.val_per_class, config.val_fraction),
        test: take(config.test_per_class, config.test_fraction),
    }
}
