//! What a reduction reports while it runs.

use std::path::Path;

/// Something worth telling; nothing is printed by the library.
#[derive(Clone, Debug)]
pub enum ReduceEvent<'a> {
    /// A long step begins.
    Stage(&'static str),
    /// Something the user may want to know.
    Note(String),
    /// News from getting the backbone.
    Backbone(rrr_checkpoint::Progress),
    /// An optimiser step is done.
    Step(RepairStep),
    /// An epoch is done and measured on the held-out crops.
    Epoch(RepairEpoch),
    /// What it takes to go on was written.
    Saved(&'a Path),
}

/// One optimiser step of a repair.
#[derive(Clone, Copy, Debug)]
pub struct RepairStep {
    /// 0 before the split, 1 after it.
    pub part: usize,
    /// Steps done in this part.
    pub done: u64,
    /// Steps of this part in all.
    pub total: u64,
    /// Relative squared error of the step, mean over the branches.
    pub error: f64,
}

/// One epoch of a repair.
#[derive(Clone, Copy, Debug)]
pub struct RepairEpoch {
    /// 0 before the split, 1 after it.
    pub part: usize,
    /// From 1; 0 is the state before the first.
    pub epoch: usize,
    /// Epochs of this part.
    pub epochs: usize,
    /// Relative squared error on the held-out crops, mean over the branches.
    pub held_out: f64,
}
