//! From a configuration and a backbone to the network that is trained.

use super::TrainError;
use crate::arch::{Split, at_most, blocks_text};
use crate::backbone::{Backbone, Tail};
use crate::config::{Method, TrainConfig};
use crate::model::{Combine, Model, ModelInfo, Preprocessing, Provenance};
use crate::plan::{Plan, PlanOptions};
use crate::recycle::{add_classifiers, full_state, recycle};
use rrr_data::Dataset;
use rrr_nn::{NetSpec, NetState};
use std::path::Path;

/// A network before its first step.
pub(super) struct Setup {
    /// What is trained: for `fge` one branch of the model to come.
    pub(super) spec: NetSpec,
    pub(super) state: NetState,
    pub(super) info: ModelInfo,
}

pub(super) fn prepare(
    config: &TrainConfig,
    dataset: &Dataset,
    backbone: &Backbone,
) -> Result<Setup, TrainError> {
    let (mut spec, mut state) = network(config, backbone, dataset.classes.len())?;
    if config.method == Method::Fge {
        spec.branches = 1;
        state.branches.truncate(1);
    }
    if let Some(path) = &config.init {
        warm_start(&mut state, Model::load(path)?.trained_state(path)?);
    }
    let info = ModelInfo {
        classes: dataset.classes.clone(),
        preprocessing: Preprocessing {
            size: config.image_size,
            interpolation: config.resize,
            mean: backbone.card.mean,
            std: backbone.card.std,
        },
        combine: if config.method == Method::Fge { Combine::Logits } else { Combine::Probabilities },
        temperature: None,
        provenance: Provenance {
            rrrnet: env!("CARGO_PKG_VERSION").into(),
            method: Some(config.method),
            recipe: config.recipe.clone(),
            epochs: config.epochs,
            seed: config.seed,
            dataset: dataset.name.clone(),
            train_images: dataset.len(),
            images_sha256: None,
            backbone: short_name(&backbone.name),
            backbone_layout: Some(backbone.arch.clone()),
            backbone_licence: backbone.card.license.clone(),
            backbone_sha256: backbone.card.sha256.clone(),
            backbone_source: backbone.card.source.clone(),
        },
    };
    Ok(Setup { spec, state, info })
}

/// Takes every tensor over from `model` that has the same name and shape; branches beyond its last begin anew.
fn warm_start(state: &mut NetState, model: &NetState) {
    let branches = state.branches.iter_mut().zip(&model.branches);
    for (own, theirs) in std::iter::once((&mut state.stem, &model.stem)).chain(branches) {
        for (name, tensor) in own.iter_mut() {
            if let Some(found) = theirs.get(name).filter(|t| t.shape == tensor.shape) {
                tensor.clone_from(found);
            }
        }
    }
}

/// A path's last part; a catalog name as it is.
fn short_name(name: &str) -> String {
    let path = Path::new(name);
    let last = if path.exists() { path.file_name() } else { None };
    last.map_or_else(|| name.into(), |n| n.to_string_lossy().into_owned())
}

fn network(
    config: &TrainConfig,
    backbone: &Backbone,
    classes: usize,
) -> Result<(NetSpec, NetState), TrainError> {
    let net = &backbone.arch;
    let (Some(blocks), Some(split), Some(mode)) = (config.blocks, &config.split, config.recycle) else {
        check_whole(backbone, &format!("method {} needs the whole backbone", config.method))?;
        return Ok((net.full_net(classes), full_state(net, &backbone.state, classes, config.seed)?));
    };
    let split = Split::parse(split, net)?;
    let blocks = at_most(blocks, backbone.kept);
    if let Some(tail) = &backbone.tail {
        return prepared(config, backbone, tail, blocks, split, classes);
    }
    let plan = Plan::new(PlanOptions {
        backbone: net.clone(),
        blocks,
        split,
        branches: config.branch_count(),
        classes,
        input_size: config.image_size,
        coarse: config.coarse_branches,
        round_to: config.round_to,
        budget: config.budget.map(|blocks| at_most(blocks, net.blocks)),
        shift: None,
    })?;
    tracing::info!(shift = plan.shift(), planes = ?plan.planes(), ratio = plan.ratio(), "plan");
    let state = recycle(&plan, &backbone.state, mode, config.seed)?;
    Ok((plan.spec().clone(), state))
}

/// The network of a backbone that was split before: nothing is left to recycle but classifiers to be made.
fn prepared(
    config: &TrainConfig,
    backbone: &Backbone,
    tail: &Tail,
    blocks: [usize; 4],
    split: Split,
    classes: usize,
) -> Result<(NetSpec, NetState), TrainError> {
    let branches = tail.branches.len();
    if (blocks, split) != (backbone.kept, tail.split) || config.branch_count() != branches {
        return Err(reduced(
            backbone,
            format!(
                "it has {branches} branches, not {} from {split} with blocks {}; give --blocks {} --split {} --branches {branches}",
                config.branch_count(),
                blocks_text(blocks),
                blocks_text(backbone.kept),
                tail.split
            ),
        ));
    }
    let net = backbone.arch.reduced(blocks)?;
    let spec = net.split_net(split, branches, &tail.planes, classes)?;
    let spec = NetSpec { coarse: config.coarse_branches, ..spec };
    let mut state = NetState { stem: backbone.state.clone(), branches: tail.branches.clone() };
    add_classifiers(&spec.branch, &mut state.branches, config.seed);
    Ok((spec, state))
}

/// Checks that no block of the backbone is missing, as something needs it.
pub(super) fn check_whole(backbone: &Backbone, need: &str) -> Result<(), TrainError> {
    if backbone.kept == backbone.arch.blocks { Ok(()) } else { Err(reduced(backbone, need.into())) }
}

fn reduced(backbone: &Backbone, reason: String) -> TrainError {
    TrainError::ReducedBackbone { name: backbone.name.clone(), reason }
}
