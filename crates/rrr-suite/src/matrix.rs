//! From a suite's file to its tasks.

use crate::error::{Result, SuiteError};
use crate::fingerprint::{Digests, hash_of};
use crate::spec::{Kind, MethodSpec, SplitRule, Suite};
use rrrnet::arch::{at_most, blocks_text};
use rrrnet::config::{ConfigError, Method, Settings, TEACHER_AUTO, TrainConfig};
use rrrnet::plan::{Plan, PlanOptions};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One training of the suite.
#[derive(Clone, Debug)]
pub struct Task {
    /// SHA-256 over everything that determines the result.
    pub hash: String,
    /// What was hashed, as canonical JSON.
    pub key: String,
    /// Place in the matrix.
    pub cell: Cell,
    /// What is trained; without `init`, and with a method's name as `teacher`, which [`after`](Self::after) stands for.
    pub config: TrainConfig,
    /// Hash of the task whose model this one learns from (where [`config`](Self::config) names a teacher) or starts from.
    pub after: Option<String>,
}

/// Where a task stands in the matrix.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cell {
    /// Name of the dataset, with the split's where there are several.
    pub dataset: String,
    /// Name of the method; in a chain with the step's blocks.
    pub method: String,
    /// What the method is.
    pub about: String,
    /// The seed.
    pub seed: u64,
    /// The chain that the task belongs to: `forward` or `control`.
    pub series: Option<String>,
    /// Place in the chain, from 1.
    pub step: Option<usize>,
    /// The values that the suite varies.
    pub varied: BTreeMap<String, String>,
}

/// How to find what the file names.
#[derive(Clone, Debug, Default)]
pub struct PlanningOptions {
    /// Folder of the sets by name; before the file's own `root` and `RRR_ALBUM`.
    pub root: Option<PathBuf>,
    /// Use no network to find the backbone.
    pub offline: bool,
    /// Threads that read the datasets.
    pub threads: usize,
}

/// The environment variable with the folder of the sets by name.
pub const ROOT_VARIABLE: &str = "RRR_ALBUM";

/// All tasks of the suite, in the order in which they are run: complete repetitions first. Every dataset is listed
/// and hashed, every configuration resolved and planned, before anything runs.
///
/// # Errors
/// [`SuiteError`] names the file, the line and what is wrong there.
pub fn tasks(suite: &Suite, options: &PlanningOptions) -> Result<Vec<Task>> {
    let datasets = datasets(suite, options.root.as_deref())?;
    let mut digests = Digests::new(options);
    let mut tasks = Vec::new();
    for &seed in &suite.seeds {
        for (name, path) in &datasets {
            for split in &suite.splits {
                let place = Place { name, path, split, seed };
                match suite.kind {
                    Kind::Matrix => {
                        let mut hashes: BTreeMap<&str, String> = BTreeMap::new();
                        for method in &suite.methods {
                            let teacher = teacher(suite, method, &hashes)?;
                            let cell = place.cell(method, method.name.clone());
                            let task = place.task(suite, method, None, cell, teacher, &mut digests)?;
                            hashes.insert(&method.name, task.hash.clone());
                            tasks.push(task);
                        }
                    }
                    Kind::ForwardBlocks => place.chains(suite, &mut tasks, &mut digests)?,
                }
            }
        }
    }
    Ok(tasks)
}

/// A dataset, divided in one way, with one seed.
struct Place<'a> {
    name: &'a str,
    path: &'a Path,
    split: &'a SplitRule,
    seed: u64,
}

impl Place<'_> {
    fn cell(&self, method: &MethodSpec, name: String) -> Cell {
        let split = &self.split.name;
        let dataset = if split.is_empty() { self.name.into() } else { format!("{} {split}", self.name) };
        let (about, varied) = (method.about.clone(), method.varied.clone());
        Cell { dataset, method: name, about, seed: self.seed, varied, ..Cell::default() }
    }

    /// The chain of growing networks and, if asked for, the one that only trains for longer. Both begin with the same
    /// task.
    fn chains(&self, suite: &Suite, tasks: &mut Vec<Task>, digests: &mut Digests<'_>) -> Result<()> {
        let forward = suite.forward.as_ref().expect("the reader has checked it");
        let method = &suite.methods[0];
        teacher(suite, method, &BTreeMap::new())?;
        let steps = forward.steps();
        let control: Vec<[usize; 4]> = vec![forward.from; steps.len()];
        let chains = [("forward", steps), ("control", control)];
        for (series, steps) in &chains[..1 + usize::from(forward.control)] {
            let mut after = None;
            for (i, blocks) in steps.iter().enumerate() {
                let text = blocks_text(*blocks);
                let mut cell = self.cell(method, format!("{series} {:02} {text}", i + 1));
                cell.series = Some((*series).into());
                cell.step = Some(i + 1);
                let task = self.task(suite, method, Some(*blocks), cell, after, digests)?;
                after = Some(task.hash.clone());
                tasks.push(task);
            }
        }
        Ok(())
    }

    fn task(
        &self,
        suite: &Suite,
        method: &MethodSpec,
        blocks: Option<[usize; 4]>,
        cell: Cell,
        after: Option<String>,
        digests: &mut Digests<'_>,
    ) -> Result<Task> {
        let top = Settings {
            data: Some(self.path.to_path_buf()),
            seed: Some(self.seed),
            blocks: blocks.map(|b| b.to_vec()),
            ..self.split.settings()
        };
        // A crash then loses one epoch at most; results do not depend on it.
        let bottom = Settings { checkpoint_every: Some(1), ..Settings::default() };
        let kind = method.settings.method.or(suite.common.method).unwrap_or(Method::Rrr);
        let own = method.settings.clone().over(suite.common.clone().meaningful_for(kind));
        let config = top.over(own).over(bottom).resolve().map_err(|e| explain(suite, method, &e))?;
        let mut config = config;
        if let Some(resolved) = backbone_path(suite, &config.backbone) {
            config.backbone = resolved.display().to_string();
        }
        let dataset = digests.dataset(&config).map_err(|e| at(suite, suite.lines.datasets, e))?;
        let backbone = digests.backbone(&config).map_err(|e| at(suite, method.line, e))?;
        check_plan(&config, backbone.reducible(&config), dataset.classes)
            .map_err(|e| at(suite, method.line, format!("method {}: {e}", method.name)))?;
        let (hash, key) = hash_of(&config, &dataset.digest, backbone, after.as_deref());
        Ok(Task { hash, key, cell, config, after })
    }
}

/// The task of the method that teaches this one.
fn teacher(suite: &Suite, method: &MethodSpec, hashes: &BTreeMap<&str, String>) -> Result<Option<String>> {
    let given = method.settings.teacher.as_ref().or(suite.common.teacher.as_ref());
    let given = given.map(PathBuf::as_path).filter(|t| *t != Path::new(TEACHER_AUTO));
    let find = |name: &Path| {
        let name = name.to_string_lossy();
        hashes.get(name.as_ref()).cloned().ok_or_else(|| {
            let line = method.keys.get("teacher").copied().unwrap_or(method.line);
            let message =
                format!("teacher: there is no method `{name}` above\nhint: name one, or say {TEACHER_AUTO}");
            at(suite, line, message)
        })
    };
    given.map(find).transpose()
}

/// A backbone given as a path beside the suite's file.
fn backbone_path(suite: &Suite, name: &str) -> Option<PathBuf> {
    let beside = base(suite).join(name);
    (!Path::new(name).exists() && name.contains(['/', '.']) && beside.exists()).then_some(beside)
}

/// Whether there is such a network, for backbones whose layout is known by name.
fn check_plan(
    config: &TrainConfig,
    layout: Option<rrrnet::arch::ResNet>,
    classes: usize,
) -> Result<(), String> {
    let (Some(backbone), Some(blocks), Some(split)) = (layout, config.blocks, &config.split) else {
        return Ok(());
    };
    let split = rrrnet::arch::Split::parse(split, &backbone).map_err(|e| e.to_string())?;
    let branches = if config.method == Method::Reduced { 1 } else { config.branch_count() };
    let (blocks, budget) =
        (at_most(blocks, backbone.blocks), config.budget.map(|b| at_most(b, backbone.blocks)));
    let options = PlanOptions {
        backbone,
        blocks,
        split,
        branches,
        coarse: config.coarse_branches,
        classes,
        input_size: config.image_size,
        round_to: config.round_to,
        budget,
        shift: None,
    };
    Plan::new(options).map(|_| ()).map_err(|e| e.to_string())
}

/// Puts an error of the configuration at the line of the key it names.
fn explain(suite: &Suite, method: &MethodSpec, e: &ConfigError) -> SuiteError {
    let key = match e {
        ConfigError::Invalid { key, .. }
        | ConfigError::NotForMethod { key, .. }
        | ConfigError::Missing { key, .. } => *key,
        ConfigError::UnknownRecipe { .. } => "recipe",
        _ => "",
    };
    let line = method.keys.get(key).or_else(|| suite.lines.common.get(key)).copied();
    at(suite, line.unwrap_or(method.line), format!("method {}: {e}", method.name))
}

fn at(suite: &Suite, line: usize, e: impl std::fmt::Display) -> SuiteError {
    SuiteError::Spec { path: suite.path.clone(), line, message: e.to_string() }
}

/// The folder that the file's paths start from.
fn base(suite: &Suite) -> PathBuf {
    let folder = suite.path.parent().unwrap_or(Path::new(""));
    if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_path_buf() }
}

/// Names and places of the datasets, in the file's order.
fn datasets(suite: &Suite, root: Option<&Path>) -> Result<Vec<(String, PathBuf)>> {
    let wrong = |message: String| at(suite, suite.lines.datasets, message);
    let given = &suite.datasets;
    let mut found = Vec::new();
    if !given.names.is_empty() {
        let own = given.root.as_ref().map(|r| base(suite).join(r));
        let variable = || std::env::var_os(ROOT_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = root.map(Path::to_path_buf).or(own).or_else(variable).ok_or_else(|| {
            wrong(format!(
                "datasets.names need a folder\nhint: give --root, set `root`, or set {ROOT_VARIABLE}"
            ))
        })?;
        for name in &given.names {
            found.extend(expand(&root.join(name)).map_err(|e| wrong(format!("datasets.names: {e}")))?);
        }
    }
    for path in &given.paths {
        let path = base(suite).join(path);
        found.extend(expand(&path).map_err(|e| wrong(format!("datasets.paths: {e}")))?);
    }
    let named: Vec<(String, PathBuf)> = found.into_iter().map(|p| (name_of(&p), p)).collect();
    let mut names = BTreeSet::new();
    match named.iter().find(|(name, _)| !names.insert(name)) {
        Some((name, _)) => Err(wrong(format!("datasets: two are called `{name}`"))),
        None => Ok(named),
    }
}

/// The paths that a pattern stands for, in byte order.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let text = pattern.to_string_lossy();
    if !text.contains(['*', '?']) {
        return match pattern.exists() {
            true => Ok(vec![pattern.to_path_buf()]),
            false => Err(format!("there is no {}", pattern.display())),
        };
    }
    let found = glob::glob(&text).map_err(|e| format!("{text}: {e}"))?;
    let mut paths: Vec<PathBuf> = found.filter_map(|p| p.ok()).filter(|p| is_dataset(p)).collect();
    paths.sort();
    if paths.is_empty() { Err(format!("nothing matches {text}")) } else { Ok(paths) }
}

fn is_dataset(path: &Path) -> bool {
    path.is_dir() || path.extension().is_some_and(|e| e == "csv" || e == "tsv")
}

fn name_of(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or_else(|| "dataset".into(), |n| n.to_string_lossy().into_owned())
}
