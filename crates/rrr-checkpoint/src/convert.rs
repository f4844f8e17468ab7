//! Converting any checkpoint to safetensors, and summarising one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::card::Card;
use crate::checkpoint::{Checkpoint, Format};
use crate::digest::Digest;
use crate::error::Error;
use crate::resnet::{ResNetLayout, detect_resnet};
use crate::state::{LoadOptions, is_counter, load_state};
use crate::write::{TensorRef, write_safetensors};

/// What [`convert`] does beyond copying.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// The card to write; the one beside the source if `None`.
    pub card: Option<Card>,
    /// The prefix of the ResNet's tensors, its last dot included; found automatically if `None`.
    pub prefix: Option<String>,
}

/// What [`convert`] wrote.
#[derive(Clone, Debug, Serialize)]
pub struct ConvertReport {
    /// Tensors written.
    pub tensors: usize,
    /// The prefix taken off their names.
    pub prefix: String,
    /// Names of the tensors left out: no part of the ResNet, or not of a floating-point type.
    pub dropped: Vec<String>,
    /// The ResNet, if it is one.
    pub layout: Option<ResNetLayout>,
    /// The card written beside the weights; `None` if there was none to write.
    pub card: Option<Card>,
}

/// Converts the checkpoint `source` to the safetensors file `target`, in f32, with its card beside it.
///
/// Of a bottleneck ResNet only its own tensors are kept and their prefix is taken off; of anything else all
/// floating-point tensors under their names.
///
/// # Errors
/// If the source cannot be read or the target not be written, a ResNet lacks tensors, or the target's folder has the
/// card of other weights.
pub fn convert(source: &Path, target: &Path, options: &ConvertOptions) -> Result<ConvertReport, Error> {
    let checkpoint = Checkpoint::open(source)?;
    let mut card = match &options.card {
        Some(card) => Some(card.clone()),
        None => Card::beside(checkpoint.path())?,
    };
    let card_path = Card::path_beside(target);
    if card.is_some() && card_path.exists() && !target.exists() {
        return Err(Error::ForeignCard { card: card_path, weights: target.into() });
    }
    let layout = match detect_resnet(&checkpoint) {
        Ok(layout) => Some(layout),
        Err(Error::NotAResNet { .. }) => None,
        Err(e) => return Err(e),
    };
    let (tensors, prefix, dropped) = match &layout {
        Some(layout) => {
            let prefix = options.prefix.clone().unwrap_or_else(|| layout.prefix.clone());
            let load = LoadOptions { deny_extra: false, prefix: Some(prefix) };
            let state = load_state(&checkpoint, &layout.tensors(), &load)?;
            (state.tensors, state.prefix, state.extra)
        }
        None => {
            let (mut kept, mut dropped) = (BTreeMap::new(), Vec::new());
            for info in checkpoint.tensors() {
                if info.dtype.is_float() {
                    kept.insert(info.name.clone(), (info.shape.clone(), checkpoint.read_f32(&info.name)?));
                } else if !is_counter(&info.name) {
                    dropped.push(info.name.clone());
                }
            }
            (kept, String::new(), dropped)
        }
    };
    let list: Vec<TensorRef<'_>> =
        tensors.iter().map(|(name, (shape, data))| TensorRef { name, shape, data }).collect();
    // What Python's safetensors readers look for.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(target, &list, &metadata)?;
    if let Some(card) = &mut card {
        card.sha256 = Some(Digest::of_file(target)?);
        card.num_classes = layout.as_ref().and_then(|l| l.classes).or(card.num_classes);
        card.write(&card_path)?;
    }
    Ok(ConvertReport { tensors: tensors.len(), prefix, dropped, layout, card })
}

/// A checkpoint in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The file.
    #[serde(serialize_with = "crate::lossy::path")]
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Its bytes.
    pub bytes: u64,
    /// Number of tensors.
    pub tensors: usize,
    /// Values in floating-point tensors, batch norms' running statistics aside.
    pub parameters: u64,
    /// Number of tensors of each element type.
    pub dtypes: BTreeMap<String, usize>,
    /// The nested dict that the tensors were found in.
    pub wrapper: Option<String>,
    /// What the names of the ResNet's tensors begin with.
    pub prefix: Option<String>,
    /// The bottleneck ResNet, if it is one.
    pub layout: Option<ResNetLayout>,
    /// Why it is none, otherwise.
    pub not_resnet: Option<String>,
    /// The card beside it.
    pub card: Option<Card>,
    /// The header's metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Summarises the checkpoint at `path`, a file or folder.
///
/// # Errors
/// If it cannot be opened or its card is wrong.
pub fn inspect(path: &Path) -> Result<Inspection, Error> {
    let checkpoint = Checkpoint::open(path)?;
    let mut dtypes = BTreeMap::new();
    let mut parameters = 0u64;
    for info in checkpoint.tensors() {
        *dtypes.entry(info.dtype.name().to_owned()).or_default() += 1;
        let statistic = info.name.ends_with("running_mean") || info.name.ends_with("running_var");
        if info.dtype.is_float() && !statistic {
            parameters = parameters.saturating_add(info.numel() as u64);
        }
    }
    let (layout, not_resnet) = match detect_resnet(&checkpoint) {
        Ok(layout) => (Some(layout), None),
        Err(Error::NotAResNet { reason, .. }) => (None, Some(reason)),
        Err(e) => return Err(e),
    };
    Ok(Inspection {
        path: checkpoint.path().into(),
        format: checkpoint.format(),
        bytes: checkpoint.file_len() as u64,
        tensors: checkpoint.tensors().len(),
        parameters,
        dtypes,
        wrapper: checkpoint.wrapper().map(Into::into),
        prefix: layout.as_ref().map(|l| l.prefix.clone()),
        layout,
        not_resnet,
        card: Card::beside(checkpoint.path())?,
        metadata: checkpoint.metadata().clone(),
    })
}
