//! The state of a trainer in a safetensors file.

use crate::model::SpecFile;
use crate::tensors::{Bundle, read_state, read_states};
use rrr_checkpoint::Checkpoint;
use rrr_nn::{NetSpec, NetState, StemState, TrainerState};
use serde::{Deserialize, Serialize};

/// What a file's header says of a trainer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TrainerHeader {
    architecture: SpecFile,
    steps: Vec<u64>,
    ema_updates: Vec<u64>,
    ema_decay: Option<f32>,
    has_ema: bool,
    /// Steps of the stem's optimiser and updates of its average, if the stem is trained.
    #[serde(default)]
    stem: Option<[u64; 2]>,
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
            stem: state.stem.as_ref().map(|s| [s.steps, s.ema_updates]),
        }
    }

    /// Adds the tensors that [`TrainerHeader::read`] looks for.
    pub(crate) fn add_to<'a>(bundle: &mut Bundle<'a>, state: &'a TrainerState) {
        bundle.add("stem.", &state.net.stem);
        bundle.add_all("branches.", &state.net.branches);
        bundle.add_all("m.", &state.m);
        bundle.add_all("v.", &state.v);
        bundle.add_all("ema.", state.ema.as_deref().unwrap_or_default());
        if let Some(stem) = &state.stem {
            bundle.add("stem_m.", &stem.m);
            bundle.add("stem_v.", &stem.v);
            stem.ema.iter().for_each(|ema| bundle.add("stem_ema.", ema));
        }
    }

    /// Reads the trainer's tensors. Missing ones stay missing, until a trainer is made of them.
    pub(crate) fn read(self, file: &Checkpoint) -> Result<(NetSpec, TrainerState), Unreadable> {
        let spec = self.architecture.into_spec(file.file_len() as u64).map_err(Unreadable::Damaged)?;
        let (n, branch) = (spec.branches, &spec.branch);
        let net = NetState {
            stem: read_state(file, "stem.", &spec.stem, false)?,
            branches: read_states(file, "branches.", n, branch, false)?,
        };
        let ema = self.has_ema.then(|| read_states(file, "ema.", n, branch, true)).transpose()?;
        let of_stem = |prefix| read_state(file, prefix, &spec.stem, true);
        let read_stem = |[steps, ema_updates]: [u64; 2]| -> Result<StemState, rrr_checkpoint::Error> {
            let ema = self.has_ema.then(|| of_stem("stem_ema.")).transpose()?;
            Ok(StemState { m: of_stem("stem_m.")?, v: of_stem("stem_v.")?, ema, steps, ema_updates })
        };
        let stem = self.stem.map(read_stem).transpose()?;
        let state = TrainerState {
            net,
            m: read_states(file, "m.", n, branch, true)?,
            v: read_states(file, "v.", n, branch, true)?,
            ema,
            steps: self.steps,
            ema_updates: self.ema_updates,
            ema_decay: self.ema_decay,
            stem,
        };
        Ok((spec, state))
    }
}
