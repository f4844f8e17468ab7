//! Training a network to give the features of another.

use super::progress::{ReduceEvent, RepairEpoch, RepairStep};
use super::repair::Pictures;
use super::teacher::{self, Targets};
use super::{ReduceError, RepairOptions};
use crate::tensors::Bundle;
use crate::trainer_file::{TrainerHeader, Unreadable};
use rrr_checkpoint::Checkpoint;
use rrr_data::rng::SeededRng;
use rrr_nn::{
    Compute, Images, NetSpec, NetState, Network, Normalize, Pixels, Trainer, TrainerOptions, TrainerState,
};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const KEY: &str = "rrrnet.repair";
/// Share of the steps over which the learning rate rises.
const WARM_UP: f64 = 0.02;
/// Time between two checkpoints.
const SAVE_EVERY: Duration = Duration::from_secs(120);

/// What both parts of a repair have in common.
pub(super) struct Distillation<'a> {
    pub(super) repair: &'a RepairOptions,
    pub(super) seed: u64,
    pub(super) pictures: &'a Pictures,
    pub(super) targets: &'a Targets,
    pub(super) normalize: Normalize,
    pub(super) compute: &'a Compute,
    pub(super) key: &'a str,
    /// Checkpoint.
    pub(super) file: PathBuf,
    pub(super) interrupt: &'a AtomicBool,
}

/// What a part begins with.
pub(super) enum Start {
    Fresh(NetState),
    /// The checkpoint of an interrupted call.
    Saved(Box<Saved>),
}

/// A checkpoint.
pub(super) struct Saved {
    /// 0 before the split, 1 after it.
    pub(super) part: usize,
    /// Held-out error when the repair began.
    pub(super) first_error: f64,
    step: u64,
    spec: NetSpec,
    trainer: TrainerState,
}

#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
    part: usize,
    first_error: f64,
    step: u64,
    trainer: TrainerHeader,
}

impl Distillation<'_> {
    /// The checkpoint that an interrupted call of the same repair has left.
    pub(super) fn saved(&self) -> Result<Option<Saved>, ReduceError> {
        if !self.file.exists() {
            return Ok(None);
        }
        let file = Checkpoint::open(&self.file)?;
        let text = file.metadata().get(KEY).ok_or_else(|| self.damaged("it is no checkpoint of a repair"))?;
        let h: Header = serde_json::from_str(text).map_err(|e| self.damaged(&e.to_string()))?;
        if h.key != self.key {
            return Ok(None);
        }
        let (spec, trainer) = h.trainer.read(&file).map_err(|e| match e {
            Unreadable::File(e) => ReduceError::Checkpoint(e),
            Unreadable::Damaged(reason) => self.damaged(&reason),
        })?;
        Ok(Some(Saved { part: h.part, first_error: h.first_error, step: h.step, spec, trainer }))
    }

    /// Runs part `part` of the repair, or what is left of it: the network with its projections and its held-out error.
    /// `None` if interrupted. `first_error` is the error when the repair began.
    pub(super) fn run(
        &self,
        part: usize,
        spec: &NetSpec,
        start: Start,
        first_error: f64,
        events: &mut dyn FnMut(&ReduceEvent<'_>),
    ) -> Result<Option<(NetState, f64)>, ReduceError> {
        let steps = (self.pictures.learnt.n / self.repair.batch_size) as u64;
        let epochs = [self.repair.epochs_whole, self.repair.epochs_branches][part];
        let total = steps * epochs as u64;
        let options = TrainerOptions::default();
        let (mut trainer, mut step) = match start {
            Start::Fresh(state) => (Trainer::new(spec, &state, &options, self.compute.clone())?, 0),
            Start::Saved(saved) if saved.spec == *spec => {
                let trainer = Trainer::resume(spec, &saved.trainer, &options, self.compute.clone());
                (trainer.map_err(|e| self.damaged(&e.to_string()))?, saved.step)
            }
            Start::Saved(_) => return Err(self.damaged("it is of another network")),
        };
        let mut batch = Batch::default();
        let mut last_saved = Instant::now();
        let mut order = (u64::MAX, Vec::new());
        while step < total {
            let epoch = step / steps;
            if order.0 != epoch {
                order = (epoch, self.order(part, epoch));
            }
            let n = self.repair.batch_size;
            let from = (step % steps) as usize * n;
            batch.gather(&order.1[from..from + n], self.pictures, self.targets);
            let lr = learning_rate(self.repair.lr, step, total);
            let size = self.pictures.size;
            let pixels = Pixels::U8 { data: &batch.pixels, normalize: self.normalize };
            let images = Images { pixels, n, height: size, width: size };
            let out = trainer.step_towards(&images, &batch.targets, self.targets.scale, lr);
            let error = out.loss.iter().sum::<f32>() / out.loss.len() as f32;
            step += 1;
            if !error.is_finite() {
                return Err(ReduceError::Diverged { step, error });
            }
            events(&ReduceEvent::Step(RepairStep { part, done: step, total, error: error.into() }));
            if step.is_multiple_of(steps) {
                let held_out = self.held_out(spec, &trainer.state())?;
                let epoch = (step / steps) as usize;
                events(&ReduceEvent::Epoch(RepairEpoch { part, epoch, epochs, held_out }));
            }
            let interrupted = self.interrupt.load(Ordering::SeqCst);
            if interrupted || last_saved.elapsed() > SAVE_EVERY {
                self.save(part, step, first_error, spec, &trainer.save())?;
                events(&ReduceEvent::Saved(&self.file));
                last_saved = Instant::now();
            }
            if interrupted {
                return Ok(None);
            }
        }
        let state = trainer.state();
        let error = self.held_out(spec, &state)?;
        Ok(Some((state, error)))
    }

    fn save(
        &self,
        part: usize,
        step: u64,
        first_error: f64,
        spec: &NetSpec,
        state: &TrainerState,
    ) -> Result<(), ReduceError> {
        let trainer = TrainerHeader::new(spec, state);
        let header = Header { key: self.key.to_string(), part, first_error, step, trainer };
        let header = serde_json::to_string(&header).expect("a header is plain values");
        let mut bundle = Bundle::default();
        TrainerHeader::add_to(&mut bundle, state);
        Ok(bundle.write(&self.file, KEY, header)?)
    }

    /// The order of an epoch's crops.
    fn order(&self, part: usize, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.pictures.learnt.n).collect();
        SeededRng::new(self.seed, "repair", "", part as u64, epoch).shuffle(&mut order);
        order
    }

    /// Relative squared error on the held-out crops, mean over the branches.
    pub(super) fn held_out(&self, spec: &NetSpec, state: &NetState) -> Result<f64, ReduceError> {
        let mut network = Network::new(spec, state, self.compute.clone())?;
        let (crops, size) = (&self.pictures.held_out, self.pictures.size);
        let pixels = Pixels::U8 { data: &crops.pixels, normalize: self.normalize };
        let out = network.forward(&Images { pixels, n: crops.n, height: size, width: size });
        let squares: f64 = out
            .data
            .chunks_exact(self.targets.held_out.len())
            .flat_map(|branch| branch.iter().zip(&self.targets.held_out))
            .map(|(a, b)| f64::from(a - b) * f64::from(a - b))
            .sum();
        Ok(squares * f64::from(self.targets.scale) / (crops.n * spec.branches) as f64)
    }

    fn damaged(&self, reason: &str) -> ReduceError {
        ReduceError::Damaged { path: self.file.clone(), reason: reason.into() }
    }
}

/// Crops of a step and what they should give.
#[derive(Default)]
struct Batch {
    pixels: Vec<u8>,
    targets: Vec<f32>,
}

impl Batch {
    fn gather(&mut self, chosen: &[usize], pictures: &Pictures, targets: &Targets) {
        let (bytes, features) = (pictures.size * pictures.size * 3, targets.features);
        self.pixels.clear();
        self.targets.clear();
        for &i in chosen {
            self.pixels.extend_from_slice(&pictures.learnt.pixels[i * bytes..][..bytes]);
            self.targets.extend_from_slice(&targets.learnt[i * features..][..features]);
        }
    }
}

/// A short rise, then half a cosine down to zero.
fn learning_rate(highest: f64, step: u64, total: u64) -> f64 {
    let rise = (total as f64 * WARM_UP).ceil().max(1.0);
    let at = step as f64;
    if at < rise {
        return highest * (at + 1.0) / rise;
    }
    highest * 0.5 * (1.0 + (PI * (at - rise) / (total as f64 - rise).max(1.0)).cos())
}

/// Where the checkpoint of a repair lies until it is done.
pub(super) fn checkpoint_path(out: &Path) -> PathBuf {
    out.with_extension("repair.partial")
}

/// Removes what an unfinished repair keeps beside its result.
pub(super) fn forget(out: &Path) -> Result<(), ReduceError> {
    for path in [checkpoint_path(out), teacher::path(out)] {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(ReduceError::Remove { path, source: e });
            }
            _ => {}
        }
    }
    Ok(())
}
