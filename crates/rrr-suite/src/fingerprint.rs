//! What a task's result depends on, as a hash.

use crate::error::{Result, SuiteError};
use crate::matrix::PlanningOptions;
use rayon::prelude::*;
use rrr_checkpoint::{Card, Checkpoint, PullOptions, resolve};
use rrr_data::{OpenOptions, Source, Workers};
use rrrnet::arch::ResNet;
use rrrnet::backbone::read_layout;
use rrrnet::config::TrainConfig;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Settings that never change a result, or that the hash has in another form.
const LEFT_OUT: [&str; 9] = [
    "data",
    "image_column",
    "label_column",
    "recipe",
    "backbone",
    "init",
    "threads",
    "checkpoint_every",
    "memory_budget_mib",
];

/// Digests of datasets and backbones, each computed once.
pub(crate) struct Digests<'a> {
    options: &'a PlanningOptions,
    datasets: BTreeMap<(PathBuf, Option<String>, Option<String>), DatasetDigest>,
    backbones: BTreeMap<String, BackboneDigest>,
}

/// A dataset in a hash.
#[derive(Clone, Debug)]
pub(crate) struct DatasetDigest {
    pub(crate) digest: String,
    pub(crate) classes: usize,
}

/// A backbone in a hash.
#[derive(Clone, Debug)]
pub(crate) struct BackboneDigest {
    weights: String,
    card: Option<Card>,
    layout: Option<ResNet>,
}

impl BackboneDigest {
    /// The layout that branches are planned on, where the method reduces it.
    pub(crate) fn reducible(&self, config: &TrainConfig) -> Option<ResNet> {
        self.layout.clone().filter(|_| config.method.is_reduced())
    }
}

impl<'a> Digests<'a> {
    pub(crate) fn new(options: &'a PlanningOptions) -> Self {
        Self { options, datasets: BTreeMap::new(), backbones: BTreeMap::new() }
    }

    /// Names, labels and bytes of all images of the dataset, by [`Source`]'s own order.
    pub(crate) fn dataset(&mut self, config: &TrainConfig) -> Result<DatasetDigest> {
        let columns = (config.image_column.clone(), config.label_column.clone());
        let key = (config.data.clone(), columns.0.clone(), columns.1.clone());
        if let Some(found) = self.datasets.get(&key) {
            return Ok(found.clone());
        }
        let open = OpenOptions { image_column: columns.0, label_column: columns.1, ..OpenOptions::default() };
        let source = Source::open(&config.data, &open)?;
        let workers = Workers::new(self.options.threads)?;
        let parts = [Some(&source.train), source.valid.as_ref(), source.test.as_ref()];
        let mut hash = Sha256::new();
        for class in &source.classes {
            hash.update(format!("class {class}\n"));
        }
        for (part, samples) in parts.into_iter().enumerate() {
            let samples = samples.map_or(&[][..], Vec::as_slice);
            let files: Vec<Result<String>> =
                workers.run(|| samples.par_iter().map(|s| file_digest(&s.path)).collect());
            for (sample, file) in samples.iter().zip(files) {
                hash.update(format!("{part} {} {} {}\n", sample.label, file?, sample.id));
            }
        }
        let found = DatasetDigest { digest: hex(hash), classes: source.classes.len() };
        self.datasets.insert(key, found.clone());
        Ok(found)
    }

    /// The bytes of the weights, and the card that says how images are prepared.
    pub(crate) fn backbone(&mut self, config: &TrainConfig) -> Result<&BackboneDigest> {
        if !self.backbones.contains_key(&config.backbone) {
            let pull = PullOptions { offline: self.options.offline, ..PullOptions::default() };
            let found = resolve(&config.backbone, &pull)?;
            let layout = read_layout(&Checkpoint::open(&found.weights)?).ok();
            let digest = BackboneDigest { weights: file_digest(&found.weights)?, card: found.card, layout };
            self.backbones.insert(config.backbone.clone(), digest);
        }
        Ok(&self.backbones[&config.backbone])
    }
}

/// Hash of a task and the canonical JSON that was hashed.
pub(crate) fn hash_of(
    config: &TrainConfig,
    dataset: &str,
    backbone: &BackboneDigest,
    after: Option<&str>,
) -> (String, String) {
    let mut settings = match serde_json::to_value(config) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    settings.retain(|key, _| !LEFT_OUT.contains(&key.as_str()));
    let card = backbone
        .card
        .as_ref()
        .map(|c| json!({ "mean": c.mean, "std": c.std, "color_order": format!("{:?}", c.color_order) }));
    let key = canonical(&json!({
        "results_version": rrrnet::train::RESULTS_VERSION,
        "settings": settings,
        "dataset": dataset,
        "backbone": { "weights": backbone.weights, "card": card },
        "after": after,
    }));
    let mut hash = Sha256::new();
    hash.update(key.as_bytes());
    (hex(hash), key)
}

/// JSON without spaces, keys in byte order at every level.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let field = |k: &String| format!("{}:{}", Value::String(k.clone()), canonical(&map[k]));
            format!("{{{}}}", keys.into_iter().map(field).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn file_digest(path: &Path) -> Result<String> {
    let failed = |e| SuiteError::file("read", path, e);
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(failed)? {
            0 => return Ok(hex(hash)),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_json_has_one_form() {
        let value = json!({ "b": [1, 2.5, null], "a": { "d": "x\"y", "c": true } });
        assert_eq!(canonical(&value), r#"{"a":{"c":true,"d":"x\"y"},"b":[1,2.5,null]}"#);
    }
}
