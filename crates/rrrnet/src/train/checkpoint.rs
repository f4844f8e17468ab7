//! What it takes to go on with a training as if it had never stopped, in one safetensors file.
//!
//! Batches are functions of the seed, the epoch and the step, so that no generator's state is kept.

use super::{Schedule, TrainError};
use crate::config::{Augmentation, Change, TrainConfig};
use crate::model::{Combine, MAX_BRANCHES, ModelInfo, Preprocessing, Provenance};
use crate::tensors::{Bundle, read_states};
use crate::trainer_file::{TrainerHeader, Unreadable};
use rrr_checkpoint::Checkpoint;
use rrr_nn::{NetSpec, NetState, SequenceSpec, State, TrainerState};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

const KEY: &str = "rrrnet.checkpoint";
const VERSION: u32 = 1;

/// When a checkpoint is due within an epoch: after a minute, or later where writing one takes long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    last: Instant,
    took: Duration,
}

impl Pace {
    const LEAST: Duration = Duration::from_secs(60);
    /// Writing takes at most one part in so many of the time.
    const SHARE: u32 = 20;

    pub(super) fn new() -> Self {
        Self { last: Instant::now(), took: Duration::ZERO }
    }

    /// Notes a checkpoint whose writing began at `began`.
    pub(super) fn saved(&mut self, began: Instant) {
        *self = Self { last: Instant::now(), took: began.elapsed() };
    }

    pub(super) fn is_due(self) -> bool {
        self.is_due_after(self.last.elapsed())
    }

    fn is_due_after(self, passed: Duration) -> bool {
        passed >= Self::LEAST.max(Self::SHARE * self.took)
    }
}

/// How far a training has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Batches that have warmed the stem.
    pub(super) warmed: u64,
    /// Optimiser steps done, over all epochs.
    pub(super) steps: u64,
    /// Sums over the present epoch.
    pub(super) sums: Sums,
    /// Seconds spent training.
    pub(super) seconds: f64,
    /// Seconds spent in the present epoch.
    pub(super) epoch_seconds: f64,
    /// Best validation accuracy so far.
    pub(super) best: Option<f64>,
}

/// Sums over the steps of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sums {
    /// Loss times images, per branch.
    pub(super) loss: Vec<f64>,
    /// Correctly classified images, per branch.
    pub(super) correct: Vec<u64>,
    /// Images, per branch.
    pub(super) images: Vec<u64>,
}

/// Everything in a checkpoint.
pub(super) struct Saved {
    pub(super) spec: NetSpec,
    pub(super) trainer: TrainerState,
    /// Snapshots of `fge` so far.
    pub(super) copies: Vec<State>,
    pub(super) position: Position,
    pub(super) info: ModelInfo,
    /// Digest of the images' names and labels.
    pub(super) fingerprint: String,
    /// Digest of their files' bytes; old checkpoints do not say.
    pub(super) contents: Option<String>,
    /// Digest of the teacher's file, if there is one; old checkpoints do not say.
    pub(super) teacher: Option<String>,
    /// What the run is trained by; old checkpoints do not say.
    pub(super) config: Option<TrainConfig>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    #[serde(flatten)]
    trainer: TrainerHeader,
    position: Position,
    copies: usize,
    classes: Vec<String>,
    preprocessing: Preprocessing,
    combine: Combine,
    provenance: Provenance,
    fingerprint: String,
    #[serde(default)]
    contents: Option<String>,
    #[serde(default)]
    teacher: Option<String>,
    #[serde(default)]
    config: Option<TrainConfig>,
}

impl Saved {
    /// Writes the checkpoint, atomically.
    pub(super) fn write(&self, path: &Path) -> Result<(), TrainError> {
        let header = Header {
            version: VERSION,
            trainer: TrainerHeader::new(&self.spec, &self.trainer),
            position: self.position.clone(),
            copies: self.copies.len(),
            classes: self.info.classes.clone(),
            preprocessing: self.info.preprocessing.clone(),
            combine: self.info.combine,
            provenance: self.info.provenance.clone(),
            fingerprint: self.fingerprint.clone(),
            contents: self.contents.clone(),
            teacher: self.teacher.clone(),
            config: self.config.clone(),
        };
        let header = serde_json::to_string(&header).expect("a header is plain values");
        let mut bundle = Bundle::default();
        TrainerHeader::add_to(&mut bundle, &self.trainer);
        bundle.add_all("copies.", &self.copies);
        Ok(bundle.write(path, KEY, header)?)
    }

    /// Reads a checkpoint.
    pub(super) fn read(path: &Path) -> Result<Self, TrainError> {
        let damaged = |reason: String| TrainError::Damaged { path: path.to_path_buf(), reason };
        let file = Checkpoint::open(path)?;
        let text = file
            .metadata()
            .get(KEY)
            .ok_or_else(|| damaged("its header does not describe a training of rrrnet".into()))?;
        let h: Header = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        if h.version != VERSION {
            return Err(damaged(format!("its format is {}, this version reads {VERSION}", h.version)));
        }
        let (spec, trainer) = h.trainer.read(&file).map_err(|e| match e {
            Unreadable::File(e) => TrainError::Checkpoint(e),
            Unreadable::Damaged(reason) => damaged(reason),
        })?;
        if h.copies > MAX_BRANCHES {
            return Err(damaged(format!("it claims {} copies of the branch", h.copies)));
        }
        let copies = read_states(&file, "copies.", h.copies, &spec.branch, false)?;
        let info = ModelInfo {
            classes: h.classes,
            preprocessing: h.preprocessing,
            combine: h.combine,
            temperature: None,
            provenance: h.provenance,
        };
        if let Some(config) = &h.config {
            config.check().map_err(|e| damaged(e.to_string()))?;
        }
        let Header { position, fingerprint, contents, teacher, config, .. } = h;
        Ok(Self { spec, trainer, copies, position, info, fingerprint, contents, teacher, config })
    }

    /// A setting of `config` that differs from what the checkpoint was made with, and may not.
    pub(super) fn change_to(&self, config: &TrainConfig) -> Option<Change> {
        match &self.config {
            Some(begun) => config.change_since(begun),
            None if config.augmentation == Augmentation::Auto => Some(Change {
                key: "augmentation".into(),
                now: config.augmentation.to_string(),
                begun: "what augmentation.json says".into(),
            }),
            None => None,
        }
    }

    /// What is wrong with its position and its copies, for a training with this schedule.
    pub(super) fn check(&self, schedule: &Schedule) -> Result<(), String> {
        let (done, total) = (self.position.steps, schedule.total());
        if done > total {
            return Err(format!("it has done {done} steps of {total}"));
        }
        let (copies, expected) = (self.copies.len(), schedule.copies_after(done));
        if copies != expected {
            return Err(format!("it has {copies} copies of the branch, not the {expected} of {done} steps"));
        }
        for copy in &self.copies {
            let alone = NetState { stem: State::new(), branches: vec![copy.clone()] };
            let spec = NetSpec { stem: SequenceSpec::default(), branches: 1, coarse: 0, ..self.spec.clone() };
            alone.check(&spec).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

/// Whether a checkpoint claims to be that of a training, and how far it has come: (steps, warming batches).
pub fn training_position(checkpoint: &Checkpoint) -> Option<(u64, u64)> {
    let header: Header = serde_json::from_str(checkpoint.metadata().get(KEY)?).ok()?;
    Some((header.position.steps, header.position.warmed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_take_a_small_share_of_the_time() {
        let pace = |took| Pace { last: Instant::now(), took: Duration::from_secs(took) };
        let due = |took, passed| pace(took).is_due_after(Duration::from_secs(passed));
        assert!(!due(0, 59) && due(0, 60) && due(3, 60));
        assert!(!due(5, 99) && due(5, 100));
    }
}
