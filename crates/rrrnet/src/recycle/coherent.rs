//! [`Recycle::Coherent`](super::Recycle::Coherent).

use super::{Draw, add_classifier, fresh_norm};
use crate::arch::{EXPANSION, ResNet};
use crate::plan::Plan;
use rrr_nn::{State, Tensor};
use std::collections::BTreeMap;

/// Which channels of a backbone's convolution a branch keeps, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Input channels.
    pub inputs: Vec<usize>,
    /// Output channels, which are also its batch norm's.
    pub outputs: Vec<usize>,
}

/// For each branch, the channels that [`Recycle::Coherent`](super::Recycle::Coherent) keeps of every convolution, by
/// its name without `.weight`.
pub fn coherent_channels(plan: &Plan, seed: u64) -> Vec<BTreeMap<String, Channels>> {
    channels(plan, &mut Draw::new(seed))
}

fn channels(plan: &Plan, draw: &mut Draw) -> Vec<BTreeMap<String, Channels>> {
    let (o, spec) = (plan.options(), plan.spec());
    let net = ResNet { blocks: o.blocks, ..o.backbone.clone() };
    let n = spec.branches;
    let mut kept = vec![BTreeMap::new(); n];
    // The channels of the stream that a block reads from, then of the one that it adds to, per branch.
    let mut stream: Vec<Vec<usize>> = vec![(0..spec.stem.features()).collect(); n];
    let mut stage = None;
    let positions = net.positions().filter(|&at| at >= o.split);
    for (at, block) in positions.zip(&spec.branch.blocks) {
        let planes = net.planes[at.stage() - 1];
        let input = stream.clone();
        if stage != Some(at.stage()) {
            stage = Some(at.stage());
            stream = deal(EXPANSION * planes, block.cout, n, draw);
        }
        let first = deal(net.width(planes), block.width, n, draw);
        let second = deal(net.width(planes), block.width, n, draw);
        for (i, kept) in kept.iter_mut().enumerate() {
            let mut keep = |layer: &str, inputs: &[usize], outputs: &[usize]| {
                let channels = Channels { inputs: inputs.to_vec(), outputs: outputs.to_vec() };
                kept.insert(format!("{}.{layer}", block.name), channels);
            };
            keep("conv1", &input[i], &first[i]);
            keep("conv2", &first[i], &second[i]);
            keep("conv3", &second[i], &stream[i]);
            if block.downsample {
                keep("downsample.0", &input[i], &stream[i]);
            }
        }
    }
    kept
}

pub(super) fn branches(plan: &Plan, backbone: &State, draw: &mut Draw) -> Vec<State> {
    let spec = &plan.spec().branch;
    let mut branches: Vec<State> = Vec::new();
    for kept in channels(plan, draw) {
        let mut state = State::new();
        for (name, channels) in &kept {
            let weight = format!("{name}.weight");
            let norm = norm_of(name);
            match backbone.get(&weight) {
                Some(filters) => {
                    state.insert(weight, gather(filters, channels));
                    for part in NORM_PARTS {
                        let name = format!("{norm}.{part}");
                        let all = &backbone[&name].data;
                        let data: Vec<f32> = channels.outputs.iter().map(|&c| all[c]).collect();
                        state.insert(name, Tensor { shape: vec![data.len()], data });
                    }
                }
                None => {
                    state.insert(weight, select(channels));
                    for part in NORM_PARTS {
                        let name = format!("{norm}.{part}");
                        let tensor = fresh_norm(&name, &[channels.outputs.len()]);
                        state.insert(name, tensor);
                    }
                }
            }
        }
        branches.push(state);
    }
    branches.iter_mut().for_each(|state| add_classifier(spec, state, draw));
    branches
}

/// Parts of a batch norm in a state dict.
const NORM_PARTS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// The batch norm after a block's convolution: `conv2` -> `bn2`, `downsample.0` -> `downsample.1`.
fn norm_of(conv: &str) -> String {
    match conv.strip_suffix("downsample.0") {
        Some(block) => format!("{block}downsample.1"),
        None => conv.replace(".conv", ".bn"),
    }
}

/// The rows and columns of a filter bank `[out, in, kh, kw]`.
fn gather(filters: &Tensor, channels: &Channels) -> Tensor {
    let all_in = filters.shape[1];
    let taps: usize = filters.shape[2..].iter().product();
    let mut data = Vec::with_capacity(channels.outputs.len() * channels.inputs.len() * taps);
    for &o in &channels.outputs {
        for &c in &channels.inputs {
            let from = (o * all_in + c) * taps;
            data.extend_from_slice(&filters.data[from..from + taps]);
        }
    }
    let shape = vec![channels.outputs.len(), channels.inputs.len(), filters.shape[2], filters.shape[3]];
    Tensor { shape, data }
}

/// A 1x1 convolution that passes the kept channels of its input on: an identity made thinner.
fn select(channels: &Channels) -> Tensor {
    let (outputs, inputs) = (&channels.outputs, &channels.inputs);
    let data = outputs.iter().flat_map(|o| inputs.iter().map(move |c| if o == c { 1.0 } else { 0.0 }));
    Tensor { shape: vec![outputs.len(), inputs.len(), 1, 1], data: data.collect() }
}

/// Deals `hands` subsets of `size` out of `0..all`: in order until all are dealt, then from random orders. A
/// channel that a hand already holds is left in the deck for the next one.
fn deal(all: usize, size: usize, hands: usize, draw: &mut Draw) -> Vec<Vec<usize>> {
    let mut deck: Vec<usize> = (0..all).collect();
    let mut deal_one = || {
        let mut held = vec![false; all];
        let mut left = size.min(all);
        while left > 0 {
            deck.retain(|&c| {
                let take = left > 0 && !held[c];
                if take {
                    held[c] = true;
                    left -= 1;
                }
                !take
            });
            if left > 0 {
                deck.extend(draw.permutation(all));
            }
        }
        (0..all).filter(|&c| held[c]).collect()
    };
    (0..hands).map(|_| deal_one()).collect()
}
