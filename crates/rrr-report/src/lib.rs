//! Evaluation metrics, and self-contained HTML reports with inline SVG charts.
//!
//! - [`metrics`]: probabilities and labels in, every number of an evaluation out ([`metrics::Metrics`]).
//! - [`report`]: one HTML page about one run, without scripts, network requests or external files.
#![forbid(unsafe_code)]

pub mod metrics;
pub mod report;
