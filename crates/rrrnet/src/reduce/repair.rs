//! The two parts of a repair: the network whole, then its branches.

use super::distil::{self, Distillation, Start};
use super::teacher::{self, Targets};
use super::{ReduceError, ReduceEvent, ReduceOptions, RepairEpoch, RepairOptions, Small, without_classifier};
use crate::backbone::Backbone;
use rrr_data::rng::SeededRng;
use rrr_data::{CropOptions, Crops, FoundImages, Limits, Resize, Workers, find_images};
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
    /// What else to know about the pictures.
    pub(super) notes: Vec<String>,
    /// Side of the crops.
    pub(super) size: usize,
}

impl Pictures {
    /// As the full backbone sees them.
    pub(super) fn new(repair: &RepairOptions, seed: u64, workers: &Workers) -> Result<Self, ReduceError> {
        let FoundImages { images: mut paths, notes } = find_images(&repair.pictures)?;
        if paths.len() < 2 {
            return Err(ReduceError::TooFewPictures { found: paths.len(), needed: 2 });
        }
        SeededRng::new(seed, "held out", "", 0, 0).shuffle(&mut paths);
        let held_out = paths.split_off(paths.len() - paths.len().div_ceil(HELD_OUT));
        let take = |paths: &[PathBuf], count| {
            let (size, limits) = (repair.teacher_size, Limits::default());
            Crops::take(paths, CropOptions { count, size, seed, limits }, workers)
        };
        let learnt = take(&paths, repair.crops);
        let held_out = take(&held_out, (repair.crops / HELD_OUT).clamp(1, MOST_HELD_OUT));
        if learnt.n < repair.batch_size || held_out.n == 0 {
            return Err(ReduceError::TooFewPictures { found: learnt.n, needed: repair.batch_size });
        }
        let unreadable = learnt.bad.iter().chain(&held_out.bad).map(ToString::to_string).collect();
        Ok(Self { learnt, held_out, unreadable, notes, size: repair.teacher_size })
    }

    /// The same crops, resized with antialiasing.
    fn resized(mut self, size: usize, workers: &Workers) -> Self {
        if size != self.size {
            for crops in [&mut self.learnt, &mut self.held_out] {
                crops.pixels = crops.resized(self.size, size, Resize::Antialias, workers);
            }
            self.size = size;
        }
        self
    }
}

/// A repair in progress.
pub(super) struct Work<'a> {
    pub(super) options: &'a ReduceOptions,
    pub(super) repair: &'a RepairOptions,
    pub(super) backbone: &'a Backbone,
    pub(super) small: &'a Small,
    pub(super) workers: &'a Workers,
    pub(super) compute: Compute,
    pub(super) out: &'a Path,
    pub(super) interrupt: &'a AtomicBool,
}

impl Work<'_> {
    /// Both parts of the repair: the network without classifiers, and the held-out error before and after. `None` if
    /// interrupted.
    pub(super) fn run(
        &self,
        pictures: Pictures,
        events: &mut dyn FnMut(&ReduceEvent<'_>),
    ) -> Result<Option<(NetState, [f64; 2])>, ReduceError> {
        let key = self.key(&pictures);
        events(&ReduceEvent::Stage("running the full backbone on the crops"));
        let targets = Targets::new(self.backbone, &pictures, &key, self.out, &self.compute, self.interrupt)?;
        let Some(targets) = targets else { return Ok(None) };
        let pictures = pictures.resized(self.repair.image_size, self.workers);
        let distillation = Distillation {
            repair: self.repair,
            seed: self.options.seed,
            pictures: &pictures,
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
        let targets = distillation.targets;
        let (spec, mut state) = self.whole(targets.features);
        targets.add_projection(&spec.branch, &mut state.branches[0], self.options.seed);
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
        let mut repaired = state.stem;
        repaired.extend(state.branches.pop().expect("one branch"));
        without_classifier(&mut repaired);
        Ok(Some((self.small.split(&repaired, self.options.seed)?, [first, last])))
    }

    /// The reduced network in one piece: a stem, which is not trained, of the first stages that are kept whole (not of
    /// all four), and a branch, without its projection, of all that comes after them.
    fn whole(&self, features: usize) -> (NetSpec, NetState) {
        let (kept, available) = (self.options.blocks, self.backbone.arch.blocks);
        let intact: usize =
            kept.iter().zip(&available).take(3).take_while(|(k, a)| k == a).map(|(k, _)| k).sum();
        let parts = self.small.whole.spec();
        let mut blocks: Vec<_> = parts.stem.blocks.iter().chain(&parts.branch.blocks).cloned().collect();
        let rest = blocks.split_off(intact);
        let conv1 = parts.stem.conv1;
        let (of_stem, of_branch) = if intact == 0 { (None, conv1) } else { (conv1, None) };
        let stem = SequenceSpec { conv1: of_stem, blocks, classes: None };
        let branch = SequenceSpec { conv1: of_branch, blocks: rest, classes: Some(features) };
        let mut rest = self.small.whole_state(self.backbone);
        let stem_state = stem.params().into_iter().filter_map(|p| rest.remove_entry(&p.name)).collect();
        let state = NetState { stem: stem_state, branches: vec![rest] };
        (NetSpec { stem, branches: 1, branch, coarse: 0 }, state)
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
    fn key(&self, pictures: &Pictures) -> String {
        let mut hash = rrr_checkpoint::Digest::default();
        hash.update(serde_json::to_vec(self.options).expect("options are plain values"));
        hash.update(serde_json::to_vec(&self.backbone.card).expect("a card is plain values"));
        hash.update(self.compute.precision().to_string());
        hash.update(&pictures.learnt.pixels);
        hash.update(&pictures.held_out.pixels);
        hash.hex()
    }
}
