//! The networks that can be measured. A new precision is a value of [`Precision`] and a line of
//! [`engine`](Precision::engine).

use crate::named::named_enum;
use rrr_nn::{Compute, Images, LayerTime, Logits, NetSpec, NetState, Network, Pool, StateError};
use serde::Serialize;
use std::sync::Arc;

named_enum! {
    /// What a network computes in.
    pub enum Precision {
        /// 32-bit floating point.
        F32 = "f32",
        /// bfloat16 operands, f32 sums.
        Bf16 = "bf16",
    }
}

/// Bytes that a network holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkMemory {
    /// Packed weights.
    pub weights_bytes: usize,
    /// Activations and input, kept from call to call.
    pub activations_bytes: usize,
}

/// A network, ready to run.
pub(super) trait Engine {
    /// Logits of a batch.
    fn forward(&mut self, images: &Images<'_>) -> Logits;
    /// The same, with the time of every layer.
    fn profile(&mut self, images: &Images<'_>) -> Vec<LayerTime>;
    /// What it holds.
    fn memory(&self) -> NetworkMemory;
}

impl Precision {
    /// Those that this CPU has instructions for.
    pub fn fast_here() -> Vec<Self> {
        match rrr_nn::Precision::auto() {
            rrr_nn::Precision::F32 => vec![Self::F32],
            rrr_nn::Precision::Bf16 => vec![Self::F32, Self::Bf16],
        }
    }

    /// A network in this precision on `pool`'s threads.
    pub(super) fn engine(
        self,
        spec: &NetSpec,
        state: &NetState,
        pool: &Arc<Pool>,
    ) -> Result<Box<dyn Engine>, StateError> {
        let network = |precision| {
            let compute = Compute::new(Arc::clone(pool)).with_precision(precision);
            Network::new(spec, state, compute)
        };
        Ok(match self {
            Self::F32 => Box::new(network(rrr_nn::Precision::F32)?),
            Self::Bf16 => Box::new(network(rrr_nn::Precision::Bf16)?),
        })
    }
}

impl Engine for Network {
    fn forward(&mut self, images: &Images<'_>) -> Logits {
        Network::forward(self, images)
    }

    fn profile(&mut self, images: &Images<'_>) -> Vec<LayerTime> {
        self.forward_timed(images).1
    }

    fn memory(&self) -> NetworkMemory {
        NetworkMemory { weights_bytes: self.weights_bytes(), activations_bytes: self.activations_bytes() }
    }
}
