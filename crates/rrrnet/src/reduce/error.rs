//! Why a backbone cannot be reduced.

use std::path::PathBuf;

/// Why a backbone cannot be reduced.
#[derive(Debug, thiserror::Error)]
pub enum ReduceError {
    /// The backbone cannot be found or read.
    #[error(transparent)]
    Backbone(#[from] crate::backbone::BackboneError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] rrr_checkpoint::Error),
    /// There is no such network.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
    /// The split is no block of the backbone.
    #[error(transparent)]
    Arch(#[from] crate::arch::ArchError),
    /// The backbone's weights do not fit.
    #[error(transparent)]
    Recycle(#[from] crate::recycle::RecycleError),
    /// Weights do not fit the architecture.
    #[error(transparent)]
    State(#[from] rrr_nn::StateError),
    /// The pictures cannot be used.
    #[error(transparent)]
    Data(#[from] rrr_data::DataError),
    /// The file is there already.
    #[error("{} is there already\nhint: choose another name with --out, or give --overwrite", .0.display())]
    Exists(PathBuf),
    /// The backbone lacks blocks that the full one has.
    #[error("{0} is reduced already\nhint: reduce the full backbone that it was made from")]
    AlreadyReduced(String),
    /// Not enough to learn from.
    #[error(
        "{found} pictures or crops are not enough, {needed} are the least\nhint: name more folders of pictures after --repair; thousands are better"
    )]
    TooFewPictures {
        /// How many there are.
        found: usize,
        /// How many there must be.
        needed: usize,
    },
    /// The loss is not a number any more.
    #[error("the repair diverged: the error of step {step} is {error}\nhint: use a smaller --lr")]
    Diverged {
        /// From 1, over all epochs of its part.
        step: u64,
        /// The relative squared error.
        error: f32,
    },
    /// The result is there, but what was kept beside it until then is too.
    #[error("cannot remove {}, which is not needed any more: {source}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What an interrupted repair left cannot be used.
    #[error("{} is damaged: {reason}\nhint: remove it to begin anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
