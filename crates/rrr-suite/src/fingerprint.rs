//! What a task's result depends on, as a hash.

use crate::error::Result;
use crate::matrix::PlanningOptions;
use rayon::prelude::*;
use rrr_checkpoint::{Card, Checkpoint, Digest, PullOptions, resolve};
use rrr_data::{OpenOptions, Source, Workers};
use rrrnet::arch::ResNet;
use rrrnet::backbone::read_layout;
use rrrnet::config::{TEACHER_AUTO, TrainConfig};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
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
    datasets: BTreeMap<(PathBuf, Option<String>, Option<String>, bool), DatasetDigest>,
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

    /// Names, labels and bytes of all images of the dataset, by [`Source`]'s own order. Files that cannot be read are an error
    /// unless trainings leave them out.
    pub(crate) fn dataset(&mut self, config: &TrainConfig) -> Result<DatasetDigest> {
        let (image_column, label_column) = (config.image_column.clone(), config.label_column.clone());
        let skip_bad = config.skip_bad;
        let key = (config.data.clone(), image_column.clone(), label_column.clone(), skip_bad);
        if let Some(found) = self.datasets.get(&key) {
            return Ok(found.clone());
        }
        let open = OpenOptions { classes: None, image_column, label_column, skip_bad };
        let source = Source::open(&config.data, &open)?;
        let workers = Workers::new(self.options.threads)?;
        let parts = [Some(&source.train), source.valid.as_ref(), source.test.as_ref()];
        let mut hash = Digest::default();
        for class in &source.classes {
            hash.update(format!("class {class}\n"));
        }
        for (part, samples) in parts.into_iter().enumerate() {
            let samples = samples.map_or(&[][..], Vec::as_slice);
            let files: Vec<_> =
                workers.run(|| samples.par_iter().map(|s| Digest::of_file(&s.path)).collect());
            for (sample, file) in samples.iter().zip(files) {
                let file = file.or_else(|e| if skip_bad { Ok("unreadable".into()) } else { Err(e) })?;
                hash.update(format!("{part} {} {file} {}\n", sample.label, sample.id));
            }
        }
        let found = DatasetDigest { digest: hash.hex(), classes: source.classes.len() };
        self.datasets.insert(key, found.clone());
        Ok(found)
    }

    /// The bytes of the weights, and the card that says how images are prepared.
    pub(crate) fn backbone(&mut self, config: &TrainConfig) -> Result<&BackboneDigest> {
        if !self.backbones.contains_key(&config.backbone) {
            let pull = PullOptions { offline: self.options.offline, ..PullOptions::default() };
            let found = resolve(&config.backbone, &pull)?;
            let layout = read_layout(&Checkpoint::open(&found.weights)?).ok();
            let digest =
                BackboneDigest { weights: Digest::of_file(&found.weights)?, card: found.card, layout };
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
    let own_teacher = config.teacher.as_deref() == Some(Path::new(TEACHER_AUTO));
    // The teacher is trained by the recipe too, with other settings of it.
    settings.retain(|key, _| !LEFT_OUT.contains(&key.as_str()) || (own_teacher && key == "recipe"));
    // A method's name stands for the task in `after`.
    if config.teacher.is_some() && !own_teacher {
        settings.insert("teacher".into(), true.into());
    }
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
    let mut hash = Digest::default();
    hash.update(&key);
    (hash.hex(), key)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rrrnet::config::Settings;

    #[test]
    fn teachers_are_known_by_their_tasks() {
        let backbone = BackboneDigest { weights: String::new(), card: None, layout: None };
        let of = |teacher: Option<&str>, after: Option<&str>| {
            let given = Settings {
                data: Some("photos".into()),
                teacher: teacher.map(Into::into),
                ..Settings::default()
            };
            hash_of(&given.resolve().unwrap(), "", &backbone, after)
        };
        let taught = of(Some("B"), Some("task"));
        assert_eq!(taught, of(Some("renamed"), Some("task")));
        assert_ne!(taught.0, of(Some("B"), Some("another")).0);
        let (auto, alone) = (of(Some(TEACHER_AUTO), None), of(None, None));
        assert!(auto.1.contains(r#""teacher":"auto""#) && !alone.1.contains(r#""teacher":"#));
        let others = [auto.0, alone.0, of(Some(TEACHER_AUTO), Some("task")).0, of(None, Some("task")).0];
        assert!(!others.contains(&taught.0));
    }

    #[test]
    fn a_recipe_counts_where_it_trains_a_teacher() {
        let backbone = BackboneDigest { weights: String::new(), card: None, layout: None };
        let of = |recipe: &str, teacher: Option<&str>| {
            let given = Settings {
                data: Some("photos".into()),
                recipe: Some("fast".into()),
                teacher: teacher.map(Into::into),
                ..Settings::default()
            };
            // Every setting the same, but for where it came from.
            let config = TrainConfig { recipe: recipe.into(), ..given.resolve().unwrap() };
            hash_of(&config, "", &backbone, None)
        };
        assert_eq!(of("fast", None), of("best", None));
        assert_eq!(of("fast", Some("B")), of("best", Some("B")));
        assert_ne!(of("fast", Some(TEACHER_AUTO)).0, of("best", Some(TEACHER_AUTO)).0);
    }

    #[test]
    fn canonical_json_has_one_form() {
        let value = json!({ "b": [1, 2.5, null], "a": { "d": "x\"y", "c": true } });
        assert_eq!(canonical(&value), r#"{"a":{"c":true,"d":"x\"y"},"b":[1,2.5,null]}"#);
    }
}
