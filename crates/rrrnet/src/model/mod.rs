//! A trained model, and the self-contained file that holds it.
//!
//! The file is safetensors: tensors `stem.NAME` and `branches.I.NAME` with timm's names, and a JSON header under the
//! metadata key `rrrnet.model` with architecture, classes, preprocessing and provenance. Nothing else is needed to
//! use it.

mod info;
mod spec;

pub use info::{Combine, ModelInfo, Preprocessing, Provenance};
pub(crate) use spec::SpecFile;

use crate::tensors::{Bundle, read_state};
use info::Header;
use rrr_checkpoint::Checkpoint;
use rrr_nn::{Compute, NetSpec, NetState, Network, Part, State, StateError};
use std::path::{Path, PathBuf};

const KEY: &str = "rrrnet.model";
const VERSION: u32 = 1;

/// A trained network with all that it takes to use it.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The architecture.
    pub spec: NetSpec,
    /// The weights.
    pub state: NetState,
    /// Everything else.
    pub info: ModelInfo,
}

/// Why there is no usable model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] rrr_checkpoint::Error),
    /// Some other checkpoint.
    #[error(
        "{} is not an rrrnet model: its header does not describe one\nhint: `rrr train` makes models; `rrr inspect` \
         shows what this file is",
        .0.display()
    )]
    NotAModel(PathBuf),
    /// A run that has not come to its end.
    #[error("{run} has no model yet\nhint: finish it with `rrr train --resume {run}`", run = .0.display())]
    Unfinished(PathBuf),
    /// Neither a file nor a run.
    #[error("{} is neither a run nor a model file", .0.display())]
    NotFound(PathBuf),
    /// Written by another version of rrrnet.
    #[error("{} is an rrrnet model of format {found}; this version reads format {VERSION}\nhint: update rrrnet", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The header contradicts itself.
    #[error("the header of {} is damaged: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The weights do not fit the architecture.
    #[error(transparent)]
    State(#[from] StateError),
    /// The weights in a file do not fit the architecture in its header.
    #[error("{}: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The tensors.
        source: StateError,
    },
}

impl Model {
    /// Writes the model to `path`, atomically.
    ///
    /// # Errors
    /// [`ModelError::File`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let header = Header {
            version: VERSION,
            architecture: (&self.spec).into(),
            classes: self.info.classes.clone(),
            preprocessing: self.info.preprocessing.clone(),
            combine: self.info.combine,
            provenance: self.info.provenance.clone(),
        };
        let header = serde_json::to_string(&header).expect("a header is plain values");
        let mut bundle = Bundle::default();
        bundle.add("stem.", &self.state.stem);
        bundle.add_all("branches.", &self.state.branches);
        Ok(bundle.write(path, KEY, header)?)
    }

    /// Reads the model of a run directory, or a model file.
    ///
    /// # Errors
    /// [`ModelError`]: there is none, it is another kind of file, or it is damaged.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        ModelFile::open(path)?.read()
    }

    /// Whether a checkpoint claims to be a model.
    pub fn is_model(checkpoint: &Checkpoint) -> bool {
        checkpoint.metadata().contains_key(KEY)
    }

    /// The model file that `path` stands for.
    fn file_of(path: &Path) -> Result<PathBuf, ModelError> {
        if path.is_dir() {
            let file = path.join("model.safetensors");
            match (file.is_file(), path.join("config.toml").is_file()) {
                (true, _) => Ok(file),
                (false, true) => Err(ModelError::Unfinished(path.to_path_buf())),
                (false, false) => Err(ModelError::NotFound(path.to_path_buf())),
            }
        } else if path.exists() {
            Ok(path.to_path_buf())
        } else {
            Err(ModelError::NotFound(path.to_path_buf()))
        }
    }

    fn header(checkpoint: &Checkpoint) -> Result<(NetSpec, ModelInfo), ModelError> {
        let path = || checkpoint.path().to_path_buf();
        let text = checkpoint.metadata().get(KEY).ok_or_else(|| ModelError::NotAModel(path()))?;
        let damaged = |reason: String| ModelError::Header { path: path(), reason };
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        match value["version"].as_u64() {
            Some(v) if v == u64::from(VERSION) => {}
            Some(found) => return Err(ModelError::Version { path: path(), found }),
            None => return Err(damaged("it has no version".into())),
        }
        let h: Header = serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
        let spec = h.architecture.into_spec().map_err(damaged)?;
        if spec.branch.classes != Some(h.classes.len()) {
            return Err(damaged(format!("it names {} classes", h.classes.len())));
        }
        let (classes, preprocessing) = (h.classes, h.preprocessing);
        if !(1..=1 << 14).contains(&preprocessing.size) {
            return Err(damaged(format!("an input of {} pixels makes no sense", preprocessing.size)));
        }
        Ok((spec, ModelInfo { classes, preprocessing, combine: h.combine, provenance: h.provenance }))
    }
}

/// A model file, opened and understood, its weights not read yet.
pub(crate) struct ModelFile {
    checkpoint: Checkpoint,
    spec: NetSpec,
    pub(crate) info: ModelInfo,
}

impl ModelFile {
    /// Opens the model of a run directory, or a model file.
    ///
    /// # Errors
    /// Those of [`Model::load`], but for the weights.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let checkpoint = Checkpoint::open(Model::file_of(path)?)?;
        let (spec, info) = Model::header(&checkpoint)?;
        Ok(Self { checkpoint, spec, info })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`ModelError::Weights`] if the weights do not fit the architecture.
    pub(crate) fn read(self) -> Result<Model, ModelError> {
        let branches = (0..self.spec.branches).map(|i| self.state(Part::Branch(i)));
        let state = NetState { stem: self.state(Part::Stem)?, branches: branches.collect::<Result<_, _>>()? };
        let path = self.checkpoint.path();
        state.check(&self.spec).map_err(|source| ModelError::Weights { path: path.into(), source })?;
        Ok(Model { spec: self.spec, state, info: self.info })
    }

    /// Reads, folds and packs the weights, part by part on the threads of `compute`.
    ///
    /// # Errors
    /// [`ModelError::Weights`] if they do not fit the architecture.
    pub(crate) fn network(&self, compute: Compute) -> Result<Network, ModelError> {
        let located = |e| match e {
            ModelError::State(source) => ModelError::Weights { path: self.checkpoint.path().into(), source },
            other => other,
        };
        Network::read(&self.spec, compute, |part| self.state(part)).map_err(located)
    }

    fn state(&self, part: Part) -> Result<State, ModelError> {
        let (prefix, spec) = match part {
            Part::Stem => ("stem.".to_string(), &self.spec.stem),
            Part::Branch(i) => (format!("branches.{i}."), &self.spec.branch),
        };
        Ok(read_state(&self.checkpoint, &prefix, spec, false)?)
    }
}

impl Model {
    /// Number of trainable numbers, the stem's included.
    pub fn params(&self) -> u64 {
        crate::cost::net_cost(&self.spec, [self.info.preprocessing.size; 2]).params
    }
}
