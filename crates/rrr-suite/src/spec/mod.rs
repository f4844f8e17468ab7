//! What a suite compares, as its TOML file says it.
//!
//! ```toml
//! name = "album"
//! seeds = [1, 2]
//!
//! [datasets]
//! names = ["CHS_Micro", "FSH_Micro"]   # below the root: --root, `root`, or the environment variable RRR_ALBUM
//! paths = ["photos", "more/*"]         # beside this file
//!
//! [common]                             # any setting of `rrr train`
//! epochs = 6
//!
//! [[method]]
//! name = "D"
//! about = "RRR-Net"
//! method = "rrr"
//! vary = { branches = [2, 4, 8] }      # one method for each value
//! ```

mod read;
pub mod templates;

pub use read::read;

use rrrnet::config::Settings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A suite as its file says it, every key checked.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Name of the suite, by which the database knows it.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// What is run.
    pub kind: Kind,
    /// Seeds, each a repetition of everything.
    pub seeds: Vec<u64>,
    /// The images that methods are compared on.
    pub measure: Measure,
    /// Where the datasets are.
    pub datasets: Datasets,
    /// Settings that all methods share.
    pub common: Settings,
    /// Ways to divide the datasets; one without a name where nothing is said.
    pub splits: Vec<SplitRule>,
    /// What is compared.
    pub methods: Vec<MethodSpec>,
    /// The steps of [`Kind::ForwardBlocks`].
    pub forward: Option<ForwardBlocks>,
    pub(crate) lines: Lines,
}

/// What a suite runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every dataset with every method and seed.
    #[default]
    Matrix,
    /// Growing networks, each starting from the weights that the one before ended with.
    ForwardBlocks,
}

impl Kind {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Matrix => "matrix",
            Self::ForwardBlocks => "forward-blocks",
        }
    }
}

/// The images that methods are compared on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The test images.
    #[default]
    Test,
    /// The validation images, after the last epoch.
    Validation,
}

impl Measure {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Validation => "validation",
        }
    }
}

/// Where the datasets are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datasets {
    /// Folder of the sets in `names`, relative to the file.
    pub root: Option<PathBuf>,
    /// Sets by name below the root; `*` and `?` stand for parts of a name.
    #[serde(default)]
    pub names: Vec<String>,
    /// Folders or tables, relative to the file, likewise.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// A way to divide the datasets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRule {
    /// What it is called; empty for the only one.
    #[serde(default)]
    pub name: String,
    train_per_class: Option<usize>,
    val_per_class: Option<usize>,
    test_per_class: Option<usize>,
    val_fraction: Option<f64>,
    test_fraction: Option<f64>,
}

impl SplitRule {
    /// As a layer of settings.
    pub fn settings(&self) -> Settings {
        Settings {
            train_per_class: self.train_per_class,
            val_per_class: self.val_per_class,
            test_per_class: self.test_per_class,
            val_fraction: self.val_fraction,
            test_fraction: self.test_fraction,
            ..Settings::default()
        }
    }
}

/// One of the things compared.
#[derive(Clone, Debug)]
pub struct MethodSpec {
    /// Its name; where something varies, with the value: `D branches=8`.
    pub name: String,
    /// What it is, for the report.
    pub about: String,
    /// Its own settings, on top of the common ones.
    pub settings: Settings,
    /// The varied keys and their values.
    pub varied: BTreeMap<String, String>,
    /// Line of the file where it begins.
    pub(crate) line: usize,
    /// Lines of its keys.
    pub(crate) keys: BTreeMap<String, usize>,
}

/// From few blocks to many, one more at each step.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardBlocks {
    /// Blocks of each stage in the first step.
    pub from: [usize; 4],
    /// Blocks of each stage in the last step.
    pub to: [usize; 4],
    /// Also train the first network for as long as all steps together, in as many pieces.
    #[serde(default)]
    pub control: bool,
}

impl ForwardBlocks {
    /// The configurations, stage after stage filled up one block at a time.
    pub fn steps(&self) -> Vec<[usize; 4]> {
        let mut blocks = self.from;
        let mut steps = vec![blocks];
        for stage in 0..4 {
            while blocks[stage] < self.to[stage] {
                blocks[stage] += 1;
                steps.push(blocks);
            }
        }
        steps
    }
}

/// Where things stand in the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    pub(crate) datasets: usize,
    pub(crate) common: BTreeMap<String, usize>,
}
