//! The RRR-Net method: plan, recycle, train, evaluate, predict

pub mod bench;
pub mod compute;
pub mod config;
mod engine;
pub mod evaluate;
mod machine;
pub mod model;
mod named;
pub mod ood;
pub mod predict;
pub mod quantize;
pub mod quickstart;
pub mod reduce;
pub mod run;
mod tensors;
pub mod train;
mod trainer_file;

pub mod arch;
pub mod backbone;
pub mod cost;
pub mod plan;
pub mod recycle;

pub use machine::cpu_model;

/// Number of threads to use where nothing else is said: one per core that this process may use.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
