//! From a configuration and a backbone to the network that is trained.

use super::{Event, Images, TrainError};
use crate::arch::Split;
use crate::config::{Method, TrainConfig};
use crate::model::{Combine, ModelInfo, Preprocessing, Provenance};
use crate::plan::{Plan, PlanOptions};
use crate::pretrained::Pretrained;
use crate::recycle::{full_state, recycle};
use rrr_nn::{NetSpec, NetState};

/// A network before its first step.
pub(super) struct Setup {
    /// What is trained: for `fge` one branch of the model to come.
    pub(super) spec: NetSpec,
    pub(super) state: NetState,
    pub(super) info: ModelInfo,
}

pub(super) fn prepare(
    config: &TrainConfig,
    data: &Images,
    offline: bool,
    events: &mut dyn FnMut(&Event<'_>),
) -> Result<Setup, TrainError> {
    let dataset = data.train.dataset();
    let backbone = Pretrained::load(config, offline, events)?;
    let (spec, state) = network(config, &backbone, dataset.classes.len())?;
    let info = ModelInfo {
        classes: dataset.classes.clone(),
        preprocessing: Preprocessing {
            size: config.image_size,
            interpolation: config.resize,
            mean: backbone.mean,
            std: backbone.std,
        },
        combine: if config.method == Method::Fge { Combine::Logits } else { Combine::Probabilities },
        provenance: Provenance {
            rrrnet: env!("CARGO_PKG_VERSION").into(),
            method: Some(config.method),
            recipe: config.recipe.clone(),
            epochs: config.epochs,
            seed: config.seed,
            dataset: dataset.name.clone(),
            train_images: dataset.len(),
            backbone: backbone.name,
            backbone_layout: Some(backbone.layout),
            backbone_licence: backbone.licence,
            backbone_sha256: backbone.sha256,
            backbone_source: backbone.source,
        },
    };
    Ok(Setup { spec, state, info })
}

fn network(
    config: &TrainConfig,
    backbone: &Pretrained,
    classes: usize,
) -> Result<(NetSpec, NetState), TrainError> {
    let net = &backbone.layout;
    let (Some(blocks), Some(split), Some(mode)) = (config.blocks, &config.split, config.recycle) else {
        return Ok((net.full_net(classes), full_state(net, &backbone.state, classes, config.seed)?));
    };
    let plan = Plan::new(PlanOptions {
        backbone: net.clone(),
        blocks,
        split: Split::parse(split, net)?,
        branches: config.branch_count(),
        classes,
        input_size: config.image_size,
        round_to: config.round_to,
        shift: None,
    })?;
    tracing::info!(shift = plan.shift(), planes = ?plan.planes(), ratio = plan.ratio(), "plan");
    let mut state = recycle(&plan, &backbone.state, mode, config.seed)?;
    let mut spec = plan.spec().clone();
    if config.method == Method::Fge {
        spec.branches = 1;
        state.branches.truncate(1);
    }
    Ok((spec, state))
}
