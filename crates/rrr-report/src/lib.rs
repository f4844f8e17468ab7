//! Evaluation metrics, and self-contained HTML reports with inline SVG charts.
//!
//! - [`metrics`]: probabilities and labels in, every number of an evaluation out ([`metrics::Metrics`]).
//! - [`svg`]: charts as SVG strings, usable on their own.
//! - [`report`]: one HTML page about one run, without scripts, network requests or external files.
#![forbid(unsafe_code)]

pub mod metrics;
pub mod report;
pub mod svg;
