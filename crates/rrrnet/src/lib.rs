//! The RRR-Net method: plan, recycle, train, evaluate, predict

pub mod config;
mod named;
pub mod train;

pub mod arch;
pub mod cost;
pub mod plan;
pub mod recycle;
