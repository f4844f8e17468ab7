//! Pretrained backbones, ready to be cut up.

use crate::arch::{EXPANSION, ResNet};
use crate::config::TrainConfig;
use crate::train::{Event, TrainError};
use rrr_checkpoint::{
    Card, Checkpoint, ColorOrder, Error, LoadOptions, PullOptions, ResNetLayout, detect_resnet, load_state,
    resolve,
};
use rrr_nn::{State, Tensor};
use std::cell::RefCell;
use std::path::Path;

/// The weights of a bottleneck ResNet and what is known about them.
pub(crate) struct Pretrained {
    pub(crate) name: String,
    pub(crate) layout: ResNet,
    /// All tensors but the classifier's; `conv1` takes RGB, whatever the file's takes.
    pub(crate) state: State,
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
    pub(crate) licence: Option<String>,
    pub(crate) sha256: Option<String>,
    pub(crate) source: Option<String>,
}

impl Pretrained {
    /// Finds the backbone of `config` (catalog, file or folder), downloading it where allowed, and reads it.
    pub(crate) fn load(
        config: &TrainConfig,
        offline: bool,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Self, TrainError> {
        let events = RefCell::new(events);
        let progress = |p| (events.borrow_mut())(&Event::Backbone(p));
        let found = resolve(
            &config.backbone,
            &PullOptions { offline, progress: &progress, ..PullOptions::default() },
        )?;
        let card = match config.mean.zip(config.std) {
            Some((mean, std)) => {
                let given = Card::from_mean_std(mean.map(|x| x as f32), std.map(|x| x as f32));
                found.card.map_or(given.clone(), |card| Card { mean: given.mean, std: given.std, ..card })
            }
            None => found.require_card()?.clone(),
        };
        tracing::info!(weights = %found.weights.display(), mean = ?card.mean, std = ?card.std, "backbone");
        let file = Checkpoint::open(&found.weights)?;
        let detected = detect_resnet(&file)?;
        let layout = layout(&file, &detected, &card)?;
        let mut state = weights(&file, &detected)?;
        let (mut mean, mut std) = (card.mean, card.std);
        if card.color_order == ColorOrder::Bgr {
            mean.reverse();
            std.reverse();
            if let Some(conv) = state.get_mut("conv1.weight") {
                swap_red_and_blue(conv);
            }
        }
        let (licence, sha256, source) = (card.license, card.sha256, card.source);
        Ok(Self { name: short_name(&found.name), layout, state, mean, std, licence, sha256, source })
    }
}

/// A path's last part; a catalog name as it is.
fn short_name(name: &str) -> String {
    let path = Path::new(name);
    let last = if path.exists() { path.file_name() } else { None };
    last.map_or_else(|| name.into(), |n| n.to_string_lossy().into_owned())
}

/// The tensors of the whole network, classifier excluded.
fn weights(file: &Checkpoint, layout: &ResNetLayout) -> Result<State, TrainError> {
    let headless = ResNetLayout { classes: None, ..layout.clone() };
    let options = LoadOptions { prefix: Some(layout.prefix.clone()), ..LoadOptions::default() };
    let loaded = load_state(file, &headless.tensors(), &options)?;
    Ok(loaded.tensors.into_iter().map(|(name, (shape, data))| (name, Tensor { shape, data })).collect())
}

/// The layout in this crate's terms.
fn layout(file: &Checkpoint, found: &ResNetLayout, card: &Card) -> Result<ResNet, TrainError> {
    let planes = found.outputs.map(|c| c / EXPANSION);
    let net = ResNet {
        name: if card.architecture.is_empty() { "resnet".into() } else { card.architecture.clone() },
        stem: found.stem_width,
        blocks: found.blocks,
        planes,
        base_width: found.widths[0] * 64 / planes[0].max(1),
    };
    let fits = planes.iter().zip(&found.widths).all(|(&p, &width)| p > 0 && net.width(p) == width);
    if !fits || planes.map(|p| p * EXPANSION) != found.outputs {
        let reason = format!("its stages have widths {:?} and outputs {:?}", found.widths, found.outputs);
        return Err(Error::NotAResNet { path: file.path().into(), reason }.into());
    }
    Ok(net)
}

/// Reverses the input channels of a `[out, 3, h, w]` convolution.
fn swap_red_and_blue(conv: &mut Tensor) {
    let pixels: usize = conv.shape[2..].iter().product();
    for filter in conv.data.chunks_exact_mut(3 * pixels) {
        let (red, rest) = filter.split_at_mut(pixels);
        red.swap_with_slice(&mut rest[pixels..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapping_red_and_blue_keeps_green() {
        let mut conv = Tensor { shape: vec![2, 3, 1, 2], data: (0..12).map(|x| x as f32).collect() };
        swap_red_and_blue(&mut conv);
        assert_eq!(conv.data, [4., 5., 2., 3., 0., 1., 10., 11., 8., 9., 6., 7.]);
    }
}
