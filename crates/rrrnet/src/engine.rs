//! A model's network, whatever its weights are.

use crate::model::{Model, Weights};
use rrr_nn::{Compute, Images, LayerTime, Logits, NetSpec, Network, QuantizedNetwork, StateError};

/// A network, ready to run.
pub(crate) enum Engine {
    F32(Box<Network>),
    Int8(Box<QuantizedNetwork>),
}

impl Engine {
    /// Packs the weights of `model`; quantised ones are computed with as they are, whatever the precision.
    pub(crate) fn new(model: &Model, compute: Compute) -> Result<Self, StateError> {
        Ok(match &model.state {
            Weights::F32(state) => Self::F32(Box::new(Network::new(&model.spec, state, compute)?)),
            Weights::Int8 { state, .. } => {
                Self::Int8(Box::new(QuantizedNetwork::new(&model.spec, state, compute.shared_pool())?))
            }
        })
    }

    /// The architecture.
    pub(crate) fn spec(&self) -> &NetSpec {
        match self {
            Self::F32(network) => network.spec(),
            Self::Int8(network) => network.spec(),
        }
    }

    /// Bytes of the packed weights.
    pub(crate) fn weights_bytes(&self) -> usize {
        match self {
            Self::F32(network) => network.weights_bytes(),
            Self::Int8(network) => network.weights_bytes(),
        }
    }

    /// Bytes of activations that are kept between calls.
    pub(crate) fn activations_bytes(&self) -> usize {
        match self {
            Self::F32(network) => network.activations_bytes(),
            Self::Int8(network) => network.activations_bytes(),
        }
    }

    /// Logits of every branch, and the time of every layer.
    pub(crate) fn forward_timed(&mut self, images: &Images<'_>) -> (Logits, Vec<LayerTime>) {
        match self {
            Self::F32(network) => network.forward_timed(images),
            Self::Int8(network) => network.forward_timed(images),
        }
    }

    /// Logits of every branch.
    pub(crate) fn forward(&mut self, images: &Images<'_>) -> Logits {
        match self {
            Self::F32(network) => network.forward(images),
            Self::Int8(network) => network.forward(images),
        }
    }
}
