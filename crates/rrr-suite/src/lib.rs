//! Benchmark suites: many datasets, several methods, several seeds.
//!
//! Data flows one way: a TOML file ([`spec`]) becomes a list of tasks ([`matrix`]), each known by a hash of all that
//! determines its result; any number of processes run them ([`worker`]) against one results database ([`db`]); its
//! rows become tables ([`mod@export`]), statistics ([`stats`]) and a report ([`report`]).
#![forbid(unsafe_code)]

pub mod db;
mod error;
pub mod export;
mod fingerprint;
pub mod matrix;
mod measure;
pub mod report;
mod restart;
pub mod result;
pub mod spec;
pub mod stats;
pub mod status;
mod tidy;
pub mod worker;

pub use error::{Result, SuiteError};
