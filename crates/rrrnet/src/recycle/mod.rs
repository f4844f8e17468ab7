//! Initial weights: pretrained filters handed out to stem and branches.
//!
//! *Recycle* of RRR-Net (arXiv 2310.01157). The stem always gets the backbone's tensors
//! unchanged, the classifier is always fresh, and the branches are filled in one of two ways ([`Recycle`]).
//!
//! **One branch** is not recycled: nothing is made thinner, so it keeps the backbone's tensors as reduced
//! networks do, batch norms and their statistics included, whatever the mode. Fresh batch norms are for branches that
//! share filters out, whose statistics the backbone's no longer describe.
//!
//! # Randomness
//! All draws come from one ChaCha8 generator, `seed_from_u64(seed)`, in this order. *Paper*: the tensors of a branch
//! in network order; for a convolution, input channel by input channel, the permutations that extend its list; for
//! one without a pretrained counterpart, and for `fc.weight` and `fc.bias`, branch by branch, row-major.
//! *Coherent*: the subsets in network order (at the first block of a stage those of the residual stream, then in every
//! block those of its first and its second convolution), then `fc` branch by branch, weight before bias.
//! One branch and [`full_state`]: `fc.weight`, `fc.bias`. The number of threads plays no part.

mod coherent;
mod draw;
mod paper;
#[cfg(test)]
mod tests;

pub use coherent::{Channels, coherent_channels};

use crate::arch::ResNet;
use crate::plan::Plan;
use draw::Draw;
use rrr_nn::{NetState, SequenceSpec, State, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How branches share out the pretrained filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recycle {
    /// As published. For every convolution, with P filters in the backbone and q in each of B branches, a list of
    /// B x q filters is made: all of them in order, extended by random permutations of all until long enough;
    /// branch `i` takes entries `i q .. (i + 1) q`. This is done for each of the first `q_in` input channels anew,
    /// so that a branch's filter is put together from several pretrained ones once the list is extended. Batch norms are fresh
    /// (weight 1, bias 0, mean 0, variance 1). A skip convolution that the backbone lacks is drawn as timm
    /// draws a new one: normal with standard deviation `sqrt(2 / fan_out)`.
    Paper,
    /// Every branch is a sub-network of the backbone. It keeps a subset of the channels of each layer, the next layer's
    /// inputs are that same subset, and one subset serves the residual stream of a whole stage (every third
    /// convolution and the skip path). Batch norms are copied with their statistics. Subsets are disjoint across
    /// branches until all channels are used, then dealt from random permutations. A skip
    /// convolution that the backbone lacks stands for its identity: it selects the branch's channels.
    Coherent,
}

impl fmt::Display for Recycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paper => "paper",
            Self::Coherent => "coherent",
        })
    }
}

impl std::str::FromStr for Recycle {
    type Err = RecycleError;

    fn from_str(text: &str) -> Result<Self, RecycleError> {
        match text {
            "paper" => Ok(Self::Paper),
            "coherent" => Ok(Self::Coherent),
            _ => Err(RecycleError::UnknownMode { name: text.into() }),
        }
    }
}

/// Why weights cannot be handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecycleError {
    /// Tensors of the backbone are missing or have another shape.
    #[error("the weights are not those of {name}: {}", .problems.join("; "))]
    Backbone {
        /// The layout that they should fit.
        name: String,
        /// One line per tensor.
        problems: Vec<String>,
    },
    /// No such mode.
    #[error("unknown way to recycle {name:?}; hint: paper or coherent")]
    UnknownMode {
        /// As given.
        name: String,
    },
}

/// Initial weights of a plan's network.
///
/// `backbone` holds the full network's tensors by their standard names; blocks that the plan drops and `fc` may be
/// missing.
///
/// # Errors
/// [`RecycleError::Backbone`] lists every tensor that is missing or misshapen.
pub fn recycle(plan: &Plan, backbone: &State, mode: Recycle, seed: u64) -> Result<NetState, RecycleError> {
    let (spec, o) = (plan.spec(), plan.options());
    let net = ResNet { blocks: o.blocks, ..o.backbone.clone() };
    check(&net, backbone)?;
    let mut draw = Draw::new(seed);
    let branches = match mode {
        _ if spec.branches == 1 => vec![copied(&spec.branch, backbone, &mut draw)],
        Recycle::Paper => paper::branches(spec, backbone, &mut draw),
        Recycle::Coherent => coherent::branches(plan, backbone, &mut draw),
    };
    Ok(NetState { stem: copy(&spec.stem, backbone), branches })
}

/// Initial weights of [`ResNet::full_net`]: the whole backbone in one branch, with a fresh classifier (methods A
/// and B).
///
/// # Errors
/// [`RecycleError::Backbone`] lists every tensor that is missing or misshapen.
pub fn full_state(
    net: &ResNet,
    backbone: &State,
    classes: usize,
    seed: u64,
) -> Result<NetState, RecycleError> {
    check(net, backbone)?;
    let branch = copied(&net.sequence(Some(classes)), backbone, &mut Draw::new(seed));
    Ok(NetState { stem: State::new(), branches: vec![branch] })
}

/// Gives branches that have none a fresh classifier each: for branches that are not recycled but were made before.
pub(crate) fn add_classifiers(spec: &SequenceSpec, branches: &mut [State], seed: u64) {
    let mut draw = Draw::new(seed);
    branches.iter_mut().for_each(|state| add_classifier(spec, state, &mut draw));
}

/// A fresh classifier, weight before bias; nothing if `spec` has none.
fn add_classifier(spec: &SequenceSpec, state: &mut State, draw: &mut Draw) {
    for p in spec.params().into_iter().filter(|p| p.name.starts_with("fc.")) {
        state.insert(p.name, fresh_linear(&p.shape, spec.features(), draw));
    }
}

fn check(net: &ResNet, backbone: &State) -> Result<(), RecycleError> {
    let mut problems = Vec::new();
    for p in net.sequence(None).params() {
        match backbone.get(&p.name) {
            None => problems.push(format!("{} is missing", p.name)),
            Some(t) if t.shape != p.shape || t.data.len() != p.shape.iter().product::<usize>() => {
                problems.push(format!("{} has shape {:?}, expected {:?}", p.name, t.shape, p.shape));
            }
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(RecycleError::Backbone { name: net.name.clone(), problems })
    }
}

/// The backbone's tensors of a sequence; its classifier's are left out.
fn copy(spec: &SequenceSpec, backbone: &State) -> State {
    let names = SequenceSpec { classes: None, ..spec.clone() }.params().into_iter().map(|p| p.name);
    names.filter_map(|name| backbone.get(&name).map(|t| (name, t.clone()))).collect()
}

fn copied(spec: &SequenceSpec, backbone: &State, draw: &mut Draw) -> State {
    let mut state = copy(spec, backbone);
    add_classifier(spec, &mut state, draw);
    state
}

/// A classifier's weight or bias as PyTorch draws them: uniform within `1 / sqrt(fan_in)` of zero.
fn fresh_linear(shape: &[usize], fan_in: usize, draw: &mut Draw) -> Tensor {
    let bound = 1.0 / (fan_in as f64).sqrt();
    let data = (0..shape.iter().product()).map(|_| draw.uniform(bound)).collect();
    Tensor { shape: shape.to_vec(), data }
}

/// A batch norm's tensor before it has seen anything, by the last part of its name.
fn fresh_norm(name: &str, shape: &[usize]) -> Tensor {
    let value = if name.ends_with(".weight") || name.ends_with(".running_var") { 1.0 } else { 0.0 };
    Tensor { shape: shape.to_vec(), data: vec![value; shape.iter().product()] }
}
