//! A trained model, and the self-contained file that holds it.
//!
//! The file is safetensors: tensors `stem.NAME` and `branches.I.NAME` with timm's names, and a JSON header under the
//! metadata key `rrrnet.model` with architecture, classes, preprocessing and provenance. Nothing else is needed to
//! use it. A quantised model (format 2) has weights of type I8 beside scales, biases and steps, and says how it was
//! quantised.

mod info;
mod spec;

pub use info::{AccuracyChange, Combine, ModelInfo, Preprocessing, Provenance, Quantization};
pub(crate) use spec::SpecFile;

use crate::tensors::{Bundle, read_quantized, read_state, read_states};
use info::Header;
use rrr_checkpoint::Checkpoint;
use rrr_nn::{NetSpec, NetState, QuantizedSequence, QuantizedState, StateError};
use std::path::{Path, PathBuf};

const KEY: &str = "rrrnet.model";
const VERSION: u32 = 1;
/// Format of quantised models.
const QUANTIZED_VERSION: u32 = 2;

/// A trained network with all that it takes to use it.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The architecture.
    pub spec: NetSpec,
    /// The weights.
    pub state: Weights,
    /// Everything else.
    pub info: ModelInfo,
}

/// The weights of a [`Model`].
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// As they were trained.
    F32(NetState),
    /// Quantised to 8 bits.
    Int8 {
        /// The weights.
        state: QuantizedState,
        /// How they were made.
        made: Quantization,
    },
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
    #[error("{} is an rrrnet model of format {found}; this version reads formats {VERSION} and {QUANTIZED_VERSION}\nhint: update rrrnet", path.display())]
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
        let mut bundle = Bundle::default();
        let (version, quantization) = match &self.state {
            Weights::F32(state) => {
                bundle.add("stem.", &state.stem);
                bundle.add_all("branches.", &state.branches);
                (VERSION, None)
            }
            Weights::Int8 { state, made } => {
                bundle.add_quantized("stem.", &state.stem);
                for (i, branch) in state.branches.iter().enumerate() {
                    bundle.add_quantized(&format!("branches.{i}."), branch);
                }
                (QUANTIZED_VERSION, Some(made.clone()))
            }
        };
        let header = Header {
            version,
            architecture: (&self.spec).into(),
            classes: self.info.classes.clone(),
            preprocessing: self.info.preprocessing.clone(),
            combine: self.info.combine,
            provenance: self.info.provenance.clone(),
            quantization,
        };
        let header = serde_json::to_string(&header).expect("a header is plain values");
        Ok(bundle.write(path, KEY, header)?)
    }

    /// Reads the model of a run directory, or a model file.
    ///
    /// # Errors
    /// [`ModelError`]: there is none, it is another kind of file, or it is damaged.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let file = Self::file_of(path)?;
        let checkpoint = Checkpoint::open(&file)?;
        let (spec, info, quantization) = Self::header(&checkpoint)?;
        let (state, checked) = match quantization {
            None => {
                let state = NetState {
                    stem: read_state(&checkpoint, "stem.", &spec.stem, false)?,
                    branches: read_states(&checkpoint, "branches.", spec.branches, &spec.branch, false)?,
                };
                let checked = state.check(&spec);
                (Weights::F32(state), checked)
            }
            Some(made) => {
                let branch = |i| read_quantized(&checkpoint, &format!("branches.{i}."), &spec.branch);
                let state = QuantizedState {
                    normalize: info.preprocessing.normalize(),
                    stem: read_quantized(&checkpoint, "stem.", &spec.stem)?,
                    branches: (0..spec.branches)
                        .map(branch)
                        .collect::<Result<Vec<QuantizedSequence>, _>>()?,
                };
                let checked = state.check(&spec);
                (Weights::Int8 { state, made }, checked)
            }
        };
        checked.map_err(|source| ModelError::Weights { path: file, source })?;
        Ok(Self { spec, state, info })
    }

    /// Whether a checkpoint claims to be a model.
    pub fn is_model(checkpoint: &Checkpoint) -> bool {
        checkpoint.metadata().contains_key(KEY)
    }

    /// How the model was quantised, if it was.
    pub fn quantization(&self) -> Option<&Quantization> {
        match &self.state {
            Weights::F32(_) => None,
            Weights::Int8 { made, .. } => Some(made),
        }
    }

    /// The model file that `path` stands for.
    pub(crate) fn file_of(path: &Path) -> Result<PathBuf, ModelError> {
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

    fn header(checkpoint: &Checkpoint) -> Result<(NetSpec, ModelInfo, Option<Quantization>), ModelError> {
        let path = || checkpoint.path().to_path_buf();
        let text = checkpoint.metadata().get(KEY).ok_or_else(|| ModelError::NotAModel(path()))?;
        let damaged = |reason: String| ModelError::Header { path: path(), reason };
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        match value["version"].as_u64() {
            Some(v) if v == u64::from(VERSION) || v == u64::from(QUANTIZED_VERSION) => {}
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
        if h.quantization.is_some() != (h.version == QUANTIZED_VERSION) {
            return Err(damaged("it does not say how the model was quantised".into()));
        }
        let info = ModelInfo { classes, preprocessing, combine: h.combine, provenance: h.provenance };
        Ok((spec, info, h.quantization))
    }
}

impl Model {
    /// Number of trainable numbers, the stem's included.
    pub fn params(&self) -> u64 {
        crate::cost::net_cost(&self.spec, [self.info.preprocessing.size; 2]).params
    }
}
