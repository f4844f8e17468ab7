//! A trained model, and the self-contained file that holds it.
//!
//! The file is safetensors: tensors `stem.NAME` and `branches.I.NAME` with timm's names, and a JSON header under the
//! metadata key `rrrnet.model` with architecture, classes, preprocessing, temperature and provenance. Nothing else is
//! needed to use it. A quantised model (format 2) has weights of type I8 beside scales, biases and steps, and says how
//! it was quantised. Some branches of a model of format 3 see the images at half the size.

mod info;
mod spec;

pub(crate) use info::can_normalize;
pub use info::{AccuracyChange, Combine, ModelInfo, Preprocessing, Provenance, Quantization};
pub(crate) use spec::{MAX_BRANCHES, SpecFile};

use crate::engine::Engine;
use crate::tensors::{Bundle, read_quantized, read_state, view_state};
use info::Header;
use rrr_checkpoint::Checkpoint;
use rrr_nn::{
    Compute, NetSpec, NetState, Network, Part, QuantizedSequence, QuantizedState, SequenceSpec, State,
    StateError,
};
use std::path::{Path, PathBuf};

const KEY: &str = "rrrnet.model";
const VERSION: u32 = 1;
/// Format of quantised models.
const QUANTIZED_VERSION: u32 = 2;
/// Format of models with coarse branches, quantised or not.
const COARSE_VERSION: u32 = 3;

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
    #[error("{} is an rrrnet model of format {found}; this version reads formats {VERSION} to {COARSE_VERSION}\nhint: update rrrnet", path.display())]
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
    /// Weights of 8 bits, where others are needed.
    #[error(
        "{} is a quantised model: this needs the model that it was made from\nhint: `rrr quantize` measures both", .0.display()
    )]
    Quantized(PathBuf),
    /// What comes out is no number.
    #[error(
        "the model's outputs are no numbers: its weights are damaged\nhint: train it again, or copy its file anew"
    )]
    NotFinite,
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
        let version = if self.spec.coarse > 0 { COARSE_VERSION } else { version };
        let header = Header {
            version,
            architecture: (&self.spec).into(),
            classes: self.info.classes.clone(),
            preprocessing: self.info.preprocessing.clone(),
            combine: self.info.combine,
            temperature: self.info.temperature,
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
        ModelFile::open(path)?.read()
    }

    /// Whether a checkpoint claims to be a model.
    pub fn is_model(checkpoint: &Checkpoint) -> bool {
        checkpoint.metadata().contains_key(KEY)
    }

    /// The weights as they were trained; `path` is where the model comes from, for the error.
    ///
    /// # Errors
    /// [`ModelError::Quantized`] if they are quantised.
    pub fn trained_state(&self, path: &Path) -> Result<&NetState, ModelError> {
        match &self.state {
            Weights::F32(state) => Ok(state),
            Weights::Int8 { .. } => Err(ModelError::Quantized(path.to_path_buf())),
        }
    }

    /// Whether all weights that were not quantised are numbers.
    pub(crate) fn is_finite(&self) -> bool {
        let finite = |state: &State| state.values().all(|tensor| tensor.data.iter().all(|v| v.is_finite()));
        match &self.state {
            Weights::F32(state) => finite(&state.stem) && state.branches.iter().all(finite),
            Weights::Int8 { .. } => true,
        }
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
            Some(v) if (u64::from(VERSION)..=u64::from(COARSE_VERSION)).contains(&v) => {}
            Some(found) => return Err(ModelError::Version { path: path(), found }),
            None => return Err(damaged("it has no version".into())),
        }
        let h: Header = serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
        let spec = h.architecture.into_spec(checkpoint.file_len() as u64).map_err(damaged)?;
        if spec.branch.classes != Some(h.classes.len()) {
            return Err(damaged(format!("it names {} classes", h.classes.len())));
        }
        let (classes, preprocessing) = (h.classes, h.preprocessing);
        let least = if spec.coarse > 0 { 2 } else { 1 };
        if !(least..=1 << 14).contains(&preprocessing.size) {
            return Err(damaged(format!("an input of {} pixels makes no sense", preprocessing.size)));
        }
        if !can_normalize(&preprocessing.mean, &preprocessing.std) {
            return Err(damaged("its mean and standard deviation make no sense".into()));
        }
        if (spec.coarse > 0) != (h.version == COARSE_VERSION) {
            return Err(damaged("its format and its coarse branches do not agree".into()));
        }
        if h.version != COARSE_VERSION && h.quantization.is_some() != (h.version == QUANTIZED_VERSION) {
            return Err(damaged("it does not say how the model was quantised".into()));
        }
        let info = ModelInfo {
            classes,
            preprocessing,
            combine: h.combine,
            temperature: h.temperature,
            provenance: h.provenance,
        };
        Ok((spec, info, h.quantization))
    }
}

/// A model file, opened and understood, its weights not read yet.
pub(crate) struct ModelFile {
    checkpoint: Checkpoint,
    spec: NetSpec,
    pub(crate) info: ModelInfo,
    quantization: Option<Quantization>,
}

impl ModelFile {
    /// Opens the model of a run directory, or a model file.
    ///
    /// # Errors
    /// Those of [`Model::load`], but for the weights.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let checkpoint = Checkpoint::open(Model::file_of(path)?)?;
        let (spec, info, quantization) = Model::header(&checkpoint)?;
        Ok(Self { checkpoint, spec, info, quantization })
    }

    /// Whether its weights are quantised.
    pub(crate) fn is_quantized(&self) -> bool {
        self.quantization.is_some()
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`ModelError::Weights`] if the weights do not fit the architecture.
    pub(crate) fn read(&self) -> Result<Model, ModelError> {
        let parts = (0..self.spec.branches).map(Part::Branch);
        let (state, checked) = match &self.quantization {
            None => {
                let branches = parts.map(|part| self.state(part)).collect::<Result<_, _>>()?;
                let state = NetState { stem: self.state(Part::Stem)?, branches };
                let checked = state.check(&self.spec);
                (Weights::F32(state), checked)
            }
            Some(made) => {
                let branches = parts.map(|part| self.quantized(part)).collect::<Result<_, _>>()?;
                let normalize = self.info.preprocessing.normalize();
                let state = QuantizedState { normalize, stem: self.quantized(Part::Stem)?, branches };
                let checked = state.check(&self.spec);
                (Weights::Int8 { state, made: made.clone() }, checked)
            }
        };
        let path = self.checkpoint.path();
        checked.map_err(|source| ModelError::Weights { path: path.into(), source })?;
        Ok(Model { spec: self.spec.clone(), state, info: self.info.clone() })
    }

    /// Reads and packs the weights, in f32 part by part on the threads of `compute`.
    ///
    /// # Errors
    /// [`ModelError::Weights`] if they do not fit the architecture.
    pub(crate) fn network(&self, compute: Compute) -> Result<Engine, ModelError> {
        if self.quantization.is_some() {
            return Ok(Engine::new(&self.read()?, compute)?);
        }
        let located = |e| match e {
            ModelError::State(source) => ModelError::Weights { path: self.checkpoint.path().into(), source },
            other => other,
        };
        let view = |part| {
            let (prefix, spec) = self.place(part);
            Ok(view_state(&self.checkpoint, &prefix, spec)?)
        };
        let network = Network::read(&self.spec, compute, view).map_err(located)?;
        Ok(Engine::F32(Box::new(network)))
    }

    /// Where a part's tensors are, and what they should be.
    fn place(&self, part: Part) -> (String, &SequenceSpec) {
        match part {
            Part::Stem => ("stem.".to_string(), &self.spec.stem),
            Part::Branch(i) => (format!("branches.{i}."), &self.spec.branch),
        }
    }

    fn state(&self, part: Part) -> Result<State, ModelError> {
        let (prefix, spec) = self.place(part);
        Ok(read_state(&self.checkpoint, &prefix, spec, false)?)
    }

    fn quantized(&self, part: Part) -> Result<QuantizedSequence, ModelError> {
        let (prefix, spec) = self.place(part);
        Ok(read_quantized(&self.checkpoint, &prefix, spec)?)
    }
}

impl Model {
    /// Number of trainable numbers, the stem's included.
    pub fn params(&self) -> u64 {
        crate::cost::net_cost(&self.spec, [self.info.preprocessing.size; 2]).params
    }
}
