//! From a checkpoint's tensors to a layout and a state.

use super::BackboneError;
use crate::arch::{EXPANSION, ResNet};
use rrr_checkpoint::{Checkpoint, LoadOptions, ResNetLayout, detect_resnet, load_state};
use rrr_nn::{State, Tensor};
use std::path::Path;

/// Finds the layout from the tensors' shapes, without reading weights.
///
/// # Errors
/// [`BackboneError`] if it is no bottleneck ResNet, or one with other widths than ours.
pub fn read_layout(checkpoint: &Checkpoint) -> Result<ResNet, BackboneError> {
    arch_of(&detect_resnet(checkpoint)?, checkpoint.path())
}

/// Reads the layout and all tensors but the classifier's, by their standard names.
///
/// # Errors
/// [`BackboneError`] if it is no bottleneck ResNet, or one with other widths than ours, or if tensors are
/// missing or misshapen.
pub fn read_weights(checkpoint: &Checkpoint) -> Result<(ResNet, State), BackboneError> {
    let layout = detect_resnet(checkpoint)?;
    let arch = arch_of(&layout, checkpoint.path())?;
    let expected: Vec<_> = arch.sequence(None).params().into_iter().map(|p| (p.name, p.shape)).collect();
    let options = LoadOptions { prefix: Some(layout.prefix), ..LoadOptions::default() };
    let loaded = load_state(checkpoint, &expected, &options)?;
    let state = loaded.tensors.into_iter().map(|(name, (shape, data))| (name, Tensor { shape, data }));
    Ok((arch, state.collect()))
}

/// The layout that was detected in the file at `path`, under its usual name if it has one.
fn arch_of(layout: &ResNetLayout, path: &Path) -> Result<ResNet, BackboneError> {
    let other = |reason: String| BackboneError::Layout { path: path.into(), reason };
    for (i, (&output, &width)) in layout.outputs.iter().zip(&layout.widths).enumerate() {
        if output == 0 || width == 0 || output % EXPANSION != 0 {
            let stage = i + 1;
            return Err(other(format!(
                "layer{stage} has {output} channels, which is no multiple of {EXPANSION}"
            )));
        }
    }
    let planes = layout.outputs.map(|output| output / EXPANSION);
    // Rounded up, so that `width` rounds back down to the width that is there.
    let base_width = (64 * layout.widths[0]).div_ceil(planes[0]);
    let blocks = layout.blocks.map(|b| b.to_string()).join(",");
    let mut arch = ResNet {
        name: format!("resnet {blocks}"),
        stem: layout.stem_width,
        blocks: layout.blocks,
        planes,
        base_width,
    };
    if planes.map(|p| arch.width(p)) != layout.widths {
        return Err(other(format!(
            "its 3x3 convolutions have {:?} channels, not the same share of the stages' {:?}",
            layout.widths, layout.outputs
        )));
    }
    if arch.stem == layout.outputs[0] {
        return Err(other(
            "layer1.0 has a skip convolution although its input is as wide as its output".into(),
        ));
    }
    let known = ResNet::NAMES.iter().filter_map(|name| ResNet::by_name(name).ok());
    if let Some(known) = known.into_iter().find(|k| ResNet { name: arch.name.clone(), ..k.clone() } == arch) {
        arch = known;
    }
    Ok(arch)
}

/// Exchanges the first and the third input channel of `conv1`: weights for blue-green-red images become weights for
/// red-green-blue ones.
pub(super) fn swap_red_and_blue(state: &mut State) {
    if let Some(conv1) = state.get_mut("conv1.weight") {
        let taps: usize = conv1.shape[2..].iter().product();
        for filter in conv1.data.chunks_exact_mut(3 * taps) {
            let (red, rest) = filter.split_at_mut(taps);
            red.swap_with_slice(&mut rest[taps..]);
        }
    }
}
