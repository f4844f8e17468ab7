//! Filling a network's tensors from a checkpoint, whatever prefix they sit under.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Misshapen};

/// A tensor's shape and its values in row-major order.
pub type StateTensor = (Vec<usize>, Vec<f32>);

/// How strictly [`load_state`] compares.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Makes tensors that nobody expects an error instead of a remark.
    pub deny_extra: bool,
    /// The prefix to look under, its last dot included; found automatically if `None`.
    pub prefix: Option<String>,
}

/// What [`load_state`] read.
#[derive(Clone, Debug)]
pub struct LoadedState {
    /// The expected tensors by their expected names (no prefix).
    pub tensors: BTreeMap<String, StateTensor>,
    /// The prefix they were found under: empty or ending with a dot.
    pub prefix: String,
    /// Full names of the tensors in the file that nobody expects; batch norms' `num_batches_tracked` do not count.
    pub extra: Vec<String>,
}

/// Reads the `expected` tensors (name and shape), which may all sit under a common prefix such as `module.`.
///
/// # Errors
/// One error that lists every missing and misshapen tensor (and the unexpected ones, if they are denied).
pub fn load_state(
    checkpoint: &Checkpoint,
    expected: &[(String, Vec<usize>)],
    options: &LoadOptions,
) -> Result<LoadedState, Error> {
    let prefix = match &options.prefix {
        Some(prefix) => prefix.clone(),
        None => find_prefix(checkpoint, expected.iter().map(|(name, _)| name.as_str())),
    };
    let (mut missing, mut misshapen, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (name, shape) in expected {
        let full = format!("{prefix}{name}");
        match checkpoint.tensor(&full) {
            None => missing.push(full),
            Some(info) => {
                if info.shape != *shape {
                    misshapen.push(Misshapen {
                        name: full.clone(),
                        found: info.shape.clone(),
                        expected: shape.clone(),
                    });
                }
                used.insert(full);
            }
        }
    }
    let extra: Vec<String> = checkpoint
        .tensors()
        .iter()
        .map(|t| &t.name)
        .filter(|name| !used.contains(*name) && !is_counter(name))
        .cloned()
        .collect();
    if !missing.is_empty() || !misshapen.is_empty() || (options.deny_extra && !extra.is_empty()) {
        let extra = if options.deny_extra { extra } else { Vec::new() };
        return Err(Error::Mismatch { path: checkpoint.path().into(), missing, misshapen, extra });
    }
    let tensors = expected
        .iter()
        .map(|(name, shape)| {
            let data = checkpoint.read_f32(&format!("{prefix}{name}"))?;
            Ok((name.clone(), (shape.clone(), data)))
        })
        .collect::<Result<_, Error>>()?;
    Ok(LoadedState { tensors, prefix, extra })
}

/// The prefix under which most of the `expected` names are found: empty or ending with a dot. Of equally good ones the
/// shortest, then the first in alphabetical order.
pub fn find_prefix<'a>(checkpoint: &Checkpoint, expected: impl Iterator<Item = &'a str>) -> String {
    let expected: BTreeSet<&str> = expected.collect();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        let name = tensor.name.as_str();
        let starts = std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1));
        for start in starts.filter(|&start| expected.contains(&name[start..])) {
            *found.entry(&name[..start]).or_default() += 1;
        }
    }
    let best =
        found.into_iter().min_by_key(|&(prefix, count)| (std::cmp::Reverse(count), prefix.len(), prefix));
    best.map(|(prefix, _)| prefix.to_owned()).unwrap_or_default()
}

/// Whether a tensor only counts the batches that a batch norm has seen.
pub(crate) fn is_counter(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}
