//! A trained model that teaches another one: what it says of the very images that a step shows.

use super::TrainError;
use super::data::{Images, TRAINING, loader_options, store_options};
use super::session::images as input;
use crate::config::{ConfigError, Method, Settings, TrainConfig};
use crate::engine::Engine;
use crate::model::{Model, ModelInfo};
use crate::predict::softened;
use rrr_checkpoint::Digest;
use rrr_data::{EpochIter, ImageStore, Loader, Workers};
use rrr_nn::{Compute, Lesson};
use std::path::Path;
use std::sync::Arc;

/// A teacher at work. It sees the same images with the same augmentation as its pupil, at its own size.
pub(super) struct Teacher {
    network: Engine,
    info: ModelInfo,
    store: Arc<ImageStore>,
    probabilities: Vec<f32>,
    /// Of its file.
    pub(super) sha256: String,
}

impl Teacher {
    /// Reads the model `path` to teach the training of `config` on `data`.
    pub(super) fn new(
        path: &Path,
        config: &TrainConfig,
        data: &Images,
        workers: &Workers,
        compute: &Compute,
    ) -> Result<Self, TrainError> {
        let model = Model::load(path)?;
        check(path, &model.info, config, data)?;
        let options = store_options(&TrainConfig {
            image_size: model.info.preprocessing.size,
            resize: model.info.preprocessing.interpolation,
            ..config.clone()
        });
        let store = Arc::new(ImageStore::load(data.train.dataset().clone(), options, workers)?);
        let network = Engine::new(&model, compute.clone())?;
        let sha256 = Digest::of_file(&Model::file_of(path)?)?;
        Ok(Self { network, info: model.info, store, probabilities: Vec::new(), sha256 })
    }

    /// Its view of the batches of an epoch of `config`, from a step on.
    pub(super) fn epoch(
        &self,
        config: &TrainConfig,
        workers: &Workers,
        epoch: u64,
        from: usize,
    ) -> Result<EpochIter, TrainError> {
        let loader = Loader::new(Arc::clone(&self.store), loader_options(config, TRAINING), workers);
        Ok(loader.epoch(epoch, from)?)
    }

    /// What it says of the next batch.
    pub(super) fn lesson(
        &mut self,
        config: &TrainConfig,
        batches: &mut EpochIter,
    ) -> Result<Lesson<'_>, TrainError> {
        let batch = batches.next().expect("an epoch has a batch for each of its steps")?;
        let logits = self.network.forward(&input(&batch, &self.info));
        batches.recycle(batch);
        let [temperature, share] =
            [config.teacher_temperature, config.teacher_share].map(|x| x.expect("resolved") as f32);
        self.probabilities = softened(logits, self.info.combine, temperature);
        Ok(Lesson { probabilities: &self.probabilities, temperature, share })
    }
}

/// What trains the teacher of `config` where it is to be made: fine-tuning of the whole backbone on the same images, by
/// the same recipe.
pub(super) fn config_of(config: &TrainConfig) -> Result<TrainConfig, ConfigError> {
    let pupil = config.clone();
    let teacher = Settings {
        data: Some(pupil.data),
        image_column: pupil.image_column,
        label_column: pupil.label_column,
        method: Some(Method::Finetune),
        recipe: Some(pupil.recipe),
        backbone: Some(pupil.backbone),
        mean: pupil.mean,
        std: pupil.std,
        train_per_class: pupil.train_per_class,
        val_per_class: pupil.val_per_class,
        test_per_class: pupil.test_per_class,
        val_fraction: pupil.val_fraction,
        test_fraction: pupil.test_fraction,
        augmentation: Some(pupil.augmentation),
        resize: Some(pupil.resize),
        seed: Some(pupil.seed),
        threads: pupil.threads,
        precision: Some(pupil.precision),
        checkpoint_every: Some(pupil.checkpoint_every),
        skip_bad: Some(pupil.skip_bad),
        memory_budget_mib: Some(pupil.memory_budget_mib),
        ..Settings::default()
    };
    teacher.resolve()
}

/// Whether it can teach these classes, and has not learnt what its pupil is to be measured on.
fn check(path: &Path, info: &ModelInfo, config: &TrainConfig, data: &Images) -> Result<(), TrainError> {
    let dataset = data.train.dataset();
    let wrong = |reason: String| Err(TrainError::Teacher { path: path.to_path_buf(), reason });
    if info.classes != dataset.classes {
        return wrong(format!(
            "its {} classes are not the {} classes here",
            info.classes.len(),
            dataset.classes.len()
        ));
    }
    let of = &info.provenance;
    let measured = data.valid.is_some() || data.test.is_some();
    let same_split = of.seed == config.seed && of.train_images == data.train.len();
    if measured && of.dataset == dataset.name && !same_split {
        return wrong(format!(
            "it was trained on another split of this dataset (seed {}, {} images), so that it has seen images that are \
             held out here",
            of.seed, of.train_images
        ));
    }
    Ok(())
}
