//! What is trained, and how.

use crate::optimiser::AdamW;

/// Which tensors of the branches a step changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trainable {
    /// Everything in the branches.
    All,
    /// Only `fc`; batch norms of the branches still run in train mode and update their statistics.
    Classifier,
}

/// What a [`Trainer`](super::Trainer) needs besides architecture and weights.
#[derive(Clone, Debug)]
pub struct TrainerOptions {
    /// Optimiser constants.
    pub adamw: AdamW,
    /// What is trained.
    pub trainable: Trainable,
    /// Momentum of batch-norm running statistics.
    pub bn_momentum: f32,
    /// Label smoothing of the cross-entropy, 0 for none.
    pub label_smoothing: f32,
    /// Learning rate of the stem as a share of the branches'. At 0, and where the branches' classifiers alone are trained, the
    /// stem is frozen and runs in inference form; else it runs in train mode and follows the mean of the branches' losses.
    pub stem_rate: f64,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            adamw: AdamW::default(),
            trainable: Trainable::All,
            bn_momentum: 0.1,
            label_smoothing: 0.0,
            stem_rate: 0.0,
        }
    }
}
