//! The two parts of a repair: the network whole, then its branches.

use super::distil::{self, Distillation, Start};
use super::teacher::{self, Targets};
use super::{ReduceError, ReduceEvent, ReduceOptions, RepairEpoch, RepairOptions, Small, without_classifier};
use crate::backbone::Backbone;
use rrr_data::rng::SeededRng;
use rrr_data::{CropOptions, Crops, Limits, Workers, find_images};
use rrr_nn::{Compute, NetSpec, NetState, SequenceSpec};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// One picture in so many is held out, to measure the repair on.
const HELD_OUT: usize = 20;
/// Most crops that it is measured on.
const MOST_HELD_OUT: usize = 1024;

/// Crops to learn from, and to measure on.
pub(super) struct Pictures {
    pub(super) learnt: Crops,
    pub(super) held_out: Crops,
    pub(super) unreadable: Vec<String>,
    pub(super) size: usize,
}

impl Pictures {
    pub(super) fn new(repair: &RepairOptions, seed: u64, workers: &Workers) -> Result<Self, ReduceError> {
        let mut paths = find_images(&repair.pictures)?;
        if paths.len() < 2 {
            return Err(ReduceError::TooFewPictures { found: paths.len(), needed: 2 });
        }
        SeededRng::new(seed, "held out", "", 0, 0).shuffle(&mut paths);
        let held_out = paths.split_off(paths.len() - paths.len().div_ceil(HELD_OUT));
        let take = |paths: &[PathBuf], count| {
            let (size, limits) = (repair.image_size, Limits::default());
            Crops::take(paths, CropOptions { count, size, seed, limits }, workers)
        };
        let learnt = take(&paths, repair.crops);
        let held_out = take(&held_out, (repair.crops / HELD_OUT).clamp(1, MOST_HELD_OUT));
        if learnt.n < repair.batch_size || held_out.n == 0 {
            return Err(ReduceError::TooFewPictures { found: learnt.n, needed: repair.batch_size });
        }
        let unreadable = learnt.bad.iter().chain(&held_out.bad).map(ToString::to_string).collect();
        Ok(Self { learnt, held_out, unreadable, size: repair.image_size })
    }
}

/// A repair in progress.
pub(super) struct Work<'a> {
    pub(super) options: &'a ReduceOptions,
    pub(super) repair: &'a RepairOptions,
    pub(super) backbone: &'a Backbone,
    pub(super) small: &'a Small,
    pub(super) pictures: &'a Pictures,
    pub(super) compute: Compute,
    pub(super) out: &'a Path,
    pub(super) interrupt: &'a AtomicBool,
}

impl Work<'_> {
    /// Both parts of the repair: the network without classifiers, and the held-out error before and after. `None` if
    /// interrupted.
    pub(super) fn run(
        &self,
        events: &mut dyn FnMut(&ReduceEvent<'_>),
    ) -> Result<Option<(NetState, [f64; 2])>, ReduceError> {
        let key = self.key();
        events(&ReduceEvent::Stage("running the full backbone on the crops"));
        let targets =
            Targets::new(self.backbone, self.pictures, &key, self.out, &self.compute, self.interrupt)?;
        let Some(targets) = targets else { return Ok(None) };
        let distillation = Distillation {
            repair: self.repair,
            seed: self.options.seed,
            pictures: self.pictures,
            targets: &targets,
            normalize: teacher::normalize(&self.backbone.card),
            compute: &self.compute,
            key: &key,
            file: distil::checkpoint_path(self.out),
            interrupt: self.interrupt,
        };
        let saved = distillation.saved()?;
        let (start, first_error) = match saved.filter(|s| s.part == 1) {
            Some(saved) => {
                let error = saved.first_error;
                (Start::Saved(Box::new(saved)), error)
            }
            None => {
                let Some((split, errors)) = self.repair_whole(&distillation, events)? else {
                    return Ok(None);
                };
                if split.branches.len() == 1 {
                    return Ok(Some((split, errors)));
                }
                (Start::Fresh(self.with_projections(split, &targets)), errors[0])
            }
        };
        let spec = self.small.plan.spec();
        let branch = SequenceSpec { classes: Some(targets.features), ..spec.branch.clone() };
        let spec = NetSpec { branch, ..spec.clone() };
        let done = distillation.run(1, &spec, start, first_error, events)?;
        Ok(done.map(|(mut state, error)| {
            state.branches.iter_mut().for_each(without_classifier);
            (state, [first_error, error])
        }))
    }

    /// The part before the split: the split network, and the held-out error before and after.
    fn repair_whole(
        &self,
        distillation: &Distillation<'_>,
        events: &mut dyn FnMut(&ReduceEvent<'_>),
    ) -> Result<Option<(NetState, [f64; 2])>, ReduceError> {
        let (whole, targets) = (self.small.whole.spec(), distillation.targets);
        // One network whose every weight is trained has no stem.
        let blocks = whole.stem.blocks.iter().chain(&whole.branch.blocks).cloned().collect();
        let one = SequenceSpec { conv1: whole.stem.conv1, blocks, classes: Some(targets.features) };
        let spec = NetSpec { stem: SequenceSpec::default(), branches: 1, branch: one };
        let mut state = self.small.whole_state(self.backbone);
        targets.add_projection(&spec.branch, &mut state, self.options.seed);
        let state = NetState { stem: rrr_nn::State::new(), branches: vec![state] };
        let (start, first) = match distillation.saved()? {
            Some(saved) => {
                let first = saved.first_error;
                (Start::Saved(Box::new(saved)), first)
            }
            None => {
                let held_out = distillation.held_out(&spec, &state)?;
                let epochs = self.repair.epochs_whole;
                events(&ReduceEvent::Epoch(RepairEpoch { part: 0, epoch: 0, epochs, held_out }));
                (Start::Fresh(state), held_out)
            }
        };
        let Some((mut state, last)) = distillation.run(0, &spec, start, first, events)? else {
            return Ok(None);
        };
        let mut repaired = state.branches.pop().expect("one branch");
        without_classifier(&mut repaired);
        Ok(Some((self.small.split(&repaired, self.options.seed)?, [first, last])))
    }

    fn with_projections(&self, mut split: NetState, targets: &Targets) -> NetState {
        let spec = &self.small.plan.spec().branch;
        let spec = SequenceSpec { classes: Some(targets.features), ..spec.clone() };
        for (i, state) in split.branches.iter_mut().enumerate() {
            targets.add_projection(&spec, state, self.options.seed.wrapping_add(i as u64));
        }
        split
    }

    /// A digest of all that determines the repair, so that only the same one is continued.
    fn key(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(serde_json::to_vec(self.options).expect("options are plain values"));
        hash.update(serde_json::to_vec(&self.backbone.card).expect("a card is plain values"));
        hash.update(self.compute.precision().to_string());
        hash.update(&self.pictures.learnt.pixels);
        hash.update(&self.pictures.held_out.pixels);
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
