//! What the full backbone says of the crops.

use super::ReduceError;
use super::repair::Pictures;
use crate::backbone::Backbone;
use crate::recycle::full_state;
use crate::tensors::Bundle;
use rrr_checkpoint::{Card, Checkpoint};
use rrr_nn::{Compute, Images, Network, Normalize, Pixels, SequenceSpec, State, Tensor};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const KEY: &str = "rrrnet.targets";
const FEATURES: &str = "features";
/// Crops that the backbone runs at a time.
const BATCH: usize = 32;

/// Pooled features of the full backbone for every crop.
pub(super) struct Targets {
    /// `[crops, features]`.
    pub(super) learnt: Vec<f32>,
    pub(super) held_out: Vec<f32>,
    /// Number of features.
    pub(super) features: usize,
    /// Mean of each feature over the crops to learn from.
    mean: Vec<f32>,
    /// One over the mean squared distance from that mean: what makes squared errors relative.
    pub(super) scale: f32,
}

impl Targets {
    /// Runs the backbone on what an interrupted call with the same `key` has not left beside `out`. `None` if
    /// interrupted.
    pub(super) fn new(
        backbone: &Backbone,
        pictures: &Pictures,
        key: &str,
        out: &Path,
        compute: &Compute,
        interrupt: &AtomicBool,
    ) -> Result<Option<Self>, ReduceError> {
        let path = path(out);
        // The classifier has no part in the features.
        let spec = backbone.arch.full_net(1);
        let state = full_state(&backbone.arch, &backbone.state, 1, 0)?;
        let mut network = Network::new(&spec, &state, compute.clone())?;
        let normalize = normalize(&backbone.card);
        let (size, row) = (pictures.size, spec.branch.features());
        let mut features = read(&path, key)?;
        let mut first = 0;
        for crops in [&pictures.learnt, &pictures.held_out] {
            while features.len() < (first + crops.n) * row {
                let from = features.len() / row - first;
                let n = BATCH.min(crops.n - from);
                let data = &crops.pixels[from * size * size * 3..][..n * size * size * 3];
                let pixels = Pixels::U8 { data, normalize };
                features.extend(network.features(&Images { pixels, n, height: size, width: size }).data);
                if interrupt.load(Ordering::SeqCst) {
                    write(&path, key, features, row)?;
                    return Ok(None);
                }
            }
            first += crops.n;
        }
        let mut features = write(&path, key, features, row)?;
        let held_out = features.split_off(pictures.learnt.n * row);
        Ok(Some(Self::of(features, held_out, pictures)))
    }

    fn of(learnt: Vec<f32>, held_out: Vec<f32>, pictures: &Pictures) -> Self {
        let n = pictures.learnt.n;
        let features = learnt.len() / n;
        let mut sum = vec![0.0f64; features];
        let mut squares = 0.0f64;
        for row in learnt.chunks_exact(features) {
            for (sum, &value) in sum.iter_mut().zip(row) {
                *sum += f64::from(value);
                squares += f64::from(value) * f64::from(value);
            }
        }
        let mean: Vec<f64> = sum.iter().map(|s| s / n as f64).collect();
        let variance = squares / n as f64 - mean.iter().map(|m| m * m).sum::<f64>();
        let scale = (1.0 / variance.max(1e-12)) as f32;
        let mean = mean.into_iter().map(|m| m as f32).collect();
        Self { learnt, held_out, features, mean, scale }
    }

    /// Gives a branch its projection onto the features, as a classifier with one output per feature: at first the
    /// identity where the branch has as many, else PyTorch's random weights around the mean features.
    pub(super) fn add_projection(&self, spec: &SequenceSpec, state: &mut State, seed: u64) {
        let (own, features) = (spec.features(), self.features);
        if own == features {
            let data = (0..features * own).map(|i| if i / own == i % own { 1.0 } else { 0.0 }).collect();
            state.insert("fc.weight".into(), Tensor { shape: vec![features, own], data });
            state.insert("fc.bias".into(), Tensor { shape: vec![features], data: vec![0.0; features] });
        } else {
            crate::recycle::add_classifiers(spec, std::slice::from_mut(state), seed);
            state.insert("fc.bias".into(), Tensor { shape: vec![features], data: self.mean.clone() });
        }
    }
}

/// How the backbone wants its input.
pub(super) fn normalize(card: &Card) -> Normalize {
    Normalize { mean: card.mean, std: card.std }
}

/// Where the targets are kept until the repair is done.
pub(super) fn path(out: &Path) -> PathBuf {
    out.with_extension("targets.partial")
}

/// Features so far; none if they are of another repair.
fn read(path: &Path, key: &str) -> Result<Vec<f32>, ReduceError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let file = Checkpoint::open(path)?;
    match file.metadata().get(KEY) {
        Some(found) if found == key => Ok(file.read_f32(FEATURES)?),
        _ => Ok(Vec::new()),
    }
}

/// Writes features, and gives them back.
fn write(path: &Path, key: &str, features: Vec<f32>, row: usize) -> Result<Vec<f32>, ReduceError> {
    let tensor = Tensor { shape: vec![features.len() / row, row], data: features };
    let mut state = State::from([(FEATURES.to_string(), tensor)]);
    let mut bundle = Bundle::default();
    bundle.add("", &state);
    bundle.write(path, KEY, key.to_string())?;
    Ok(state.remove(FEATURES).map(|tensor| tensor.data).unwrap_or_default())
}
