//! The images of a training run.

use super::Resources;
use crate::config::{Augmentation, ResizeFilter, TrainConfig};
use crate::model::ModelInfo;
use rrr_checkpoint::Digest;
use rrr_data::{
    DataError, Dataset, ImageStore, LoaderOptions, OpenOptions, Policy, Resize, Source, SplitSpec, Splits,
    StoreOptions, Take, Workers,
};
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
    pub(crate) notes: Vec<String>,
    /// Digest of the images of all parts, unreadable ones too.
    pub(super) listed: String,
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
        let listed = digest_of(&splits);
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
        Ok(Self { train, valid, test, notes, listed })
    }

    /// A digest of what a run learns from and is measured on: image names and labels, in order.
    pub(super) fn fingerprint(&self) -> String {
        let parts = [Some(&self.train), self.valid.as_ref(), self.test.as_ref()];
        digest(parts.map(|store| store.map(|store| store.dataset())))
    }

    /// A digest of the bytes of the same images, in the same order.
    pub(super) fn contents(&self) -> String {
        let mut hash = Digest::default();
        for store in [Some(&self.train), self.valid.as_ref(), self.test.as_ref()].into_iter().flatten() {
            hash.update(store.contents());
        }
        hash.hex()
    }
}

fn digest_of(splits: &Splits) -> String {
    digest([Some(&splits.train), splits.valid.as_ref(), splits.test.as_ref()])
}

/// A digest of image names and labels, in order.
fn digest(parts: [Option<&Dataset>; 3]) -> String {
    let mut hash = Digest::default();
    for (part, dataset) in parts.into_iter().enumerate() {
        for sample in dataset.iter().flat_map(|dataset| &dataset.samples) {
            hash.update(format!("{part} {} {}\n", sample.label, sample.id));
        }
    }
    hash.hex()
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

/// The images of a finished training, as they are listed now: nothing is decoded.
pub(crate) struct Listed {
    /// The test split, if there is one.
    pub(crate) test: Option<Dataset>,
    /// What the user should know of the dataset.
    pub(crate) notes: Vec<String>,
    classes: Vec<String>,
    digest: String,
}

impl Listed {
    /// Lists the dataset of `config`, and splits it.
    pub(crate) fn open(config: &TrainConfig) -> Result<Self, DataError> {
        let source = source(config)?;
        let splits = source.split(&split_spec(config), config.seed)?;
        let digest = digest_of(&splits);
        Ok(Self { test: splits.test, notes: source.notes, classes: splits.train.classes, digest })
    }

    /// Whether they are the images that `model` was trained on and measured with: if any came, went or changed its name, the
    /// split is another, and test images may be some that it has learnt. Models of older versions know their classes alone.
    pub(crate) fn is_of(&self, model: &ModelInfo) -> bool {
        let images = &model.provenance.images_sha256;
        self.classes == model.classes && images.as_ref().is_none_or(|images| *images == self.digest)
    }
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
pub(crate) fn store_options(config: &TrainConfig) -> StoreOptions {
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
