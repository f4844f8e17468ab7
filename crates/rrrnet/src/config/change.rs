//! What may change in the configuration of a run that has begun.

use super::TrainConfig;

/// Where things lie, and what the weights after a step do not depend on. Everything else stays as it was.
const FREE: [&str; 11] = [
    "data",
    "image_column",
    "label_column",
    "backbone",
    "init",
    "teacher",
    "threads",
    "checkpoint_every",
    "select",
    "skip_bad",
    "memory_budget_mib",
];

/// A setting that is not what a run has begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its key.
    pub key: String,
    /// Its value, as in TOML.
    pub now: String,
    /// The value that it had.
    pub begun: String,
}

impl TrainConfig {
    /// The first setting that differs from `begun` although a run cannot go on with another value.
    pub(crate) fn change_since(&self, begun: &Self) -> Option<Change> {
        let [now, begun] =
            [self, begun].map(|c| toml::from_str::<toml::Table>(&c.to_toml()).expect("as it was written"));
        let shown = |table: &toml::Table, key: &str| {
            table.get(key).map_or_else(|| "nothing".into(), ToString::to_string)
        };
        now.keys()
            .chain(begun.keys())
            .filter(|key| !FREE.contains(&key.as_str()))
            .find(|key| now.get(*key) != begun.get(*key))
            .map(|key| Change { key: key.clone(), now: shown(&now, key), begun: shown(&begun, key) })
    }
}
