//! The state of a trainer in a safetensors file.

use crate::model::SpecFile;
use crate::tensors::{Bundle, read_state, read_states};
use rrr_checkpoint::Checkpoint;
use rrr_nn::{NetSpec, NetState, TrainerState};
use serde::{Deserialize, Serialize};

/// What a file's header says of a trainer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TrainerHeader {
    architecture: SpecFile,
    steps: Vec<u64>,
    ema_updates: Vec<u64>,
    ema_decay: Option<f32>,
    has_ema: bool,
}

/// Why a trainer's state cannot be read.
pub(crate) enum Unreadable {
    File(rrr_checkpoint::Error),
    Damaged(String),
}

impl From<rrr_checkpoint::Error> for Unreadable {
    fn from(e: rrr_checkpoint::Error) -> Self {
        Self::File(e)
    }
}

impl TrainerHeader {
    pub(crate) fn new(spec: &NetSpec, state: &TrainerState) -> Self {
        Self {
            architecture: spec.into(),
            steps: state.steps.clone(),
            ema_updates: state.ema_updates.clone(),
            ema_decay: state.ema_decay,
            has_ema: state.ema.is_some(),
        }
    }

    /// Adds the tensors that [`TrainerHeader::read`] looks for.
    pub(crate) fn add_to<'a>(bundle: &mut Bundle<'a>, state: &'a TrainerState) {
        bundle.add("stem.", &state.net.stem);
        bundle.add_all("branches.", &state.net.branches);
        bundle.add_all("m.", &state.m);
        bundle.add_all("v.", &state.v);
        bundle.add_all("ema.", state.ema.as_deref().unwrap_or_default());
    }

    /// Reads the trainer's tensors. Missing ones stay missing, until a trainer is made of them.
    pub(crate) fn read(self, file: &Checkpoint) -> Result<(NetSpec, TrainerState), Unreadable> {
        let spec = self.architecture.into_spec().map_err(Unreadable::Damaged)?;
        let (n, branch) = (spec.branches, &spec.branch);
        let net = NetState {
            stem: read_state(file, "stem.", &spec.stem, false)?,
            branches: read_states(file, "branches.", n, branch, false)?,
        };
        let ema = self.has_ema.then(|| read_states(file, "ema.", n, branch, true)).transpose()?;
        let state = TrainerState {
            net,
            m: read_states(file, "m.", n, branch, true)?,
            v: read_states(file, "v.", n, branch, true)?,
            ema,
            steps: self.steps,
            ema_updates: self.ema_updates,
            ema_decay: self.ema_decay,
        };
        Ok((spec, state))
    }
}
