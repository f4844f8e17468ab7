//! Training: methods A to D and FGE, from a configuration to a run directory.

mod schedule;

pub use schedule::Schedule;
