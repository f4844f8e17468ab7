//! Statistics of comparisons of methods over datasets.
//!
//! After J. Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006): average ranks,
//! Friedman's test with Nemenyi's critical difference, Wilcoxon's signed-rank test for pairs with Holm's correction,
//! wins, ties and losses, and bootstrap intervals of mean differences.

mod bootstrap;
mod describe;
mod friedman;
mod holm;
mod nemenyi;
mod ranks;
mod special;
mod wilcoxon;

pub use bootstrap::{Bootstrap, bootstrap_mean};
pub use describe::{WinTieLoss, mean, sd, win_tie_loss};
pub use friedman::{Friedman, friedman};
pub use holm::holm;
pub use nemenyi::{Nemenyi, nemenyi};
pub use ranks::{average_ranks, ranks};
pub use wilcoxon::{Wilcoxon, wilcoxon};
