//! Quantised weights: how they enter and leave the core.

use crate::{NetSpec, Normalize, SequenceSpec, State, StateError, Tensor};
use std::collections::BTreeMap;

/// A dense tensor of bytes in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Int8Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub data: Vec<i8>,
}

/// The tensors of a quantised sequence ([`SequenceSpec::quantized_params`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizedSequence {
    /// Weights of the convolutions.
    pub weights: BTreeMap<String, Int8Tensor>,
    /// Scales, biases and steps, and the classifier.
    pub values: State,
}

/// All weights of a quantised [`NetSpec`].
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedState {
    /// What the pixels mean to the first convolution.
    pub normalize: Normalize,
    /// The stem's tensors.
    pub stem: QuantizedSequence,
    /// One per branch.
    pub branches: Vec<QuantizedSequence>,
}

/// Name and shape of a tensor of a [`QuantizedSequence`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizedParam {
    /// timm / torchvision state-dict name for weights, and for the rest that of the convolution and one of
    /// `scale` (what one unit of the integer sum stands for), `bias` and `step` (what one unit of the output
    /// stands for), each per output channel.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// Whether it holds bytes; else f32.
    pub is_int8: bool,
}

impl SequenceSpec {
    /// Every tensor of the sequence's quantised form, in network order. A bottleneck's `conv3` and
    /// `downsample.0` share the scale, bias and step of `conv3`.
    pub fn quantized_params(&self) -> Vec<QuantizedParam> {
        let mut out = Vec::new();
        let mut push = |name: String, shape: Vec<usize>, is_int8| {
            out.push(QuantizedParam { name, shape, is_int8 });
        };
        let mut conv = |name: &str, shape: [usize; 4], with: Option<(&str, [usize; 4])>| {
            push(format!("{name}.weight"), shape.to_vec(), true);
            if let Some((name, shape)) = with {
                push(format!("{name}.weight"), shape.to_vec(), true);
            }
            push(format!("{name}.scale"), vec![shape[0]], false);
            push(format!("{name}.bias"), vec![shape[0]], false);
            push(format!("{name}.step"), vec![shape[0]], false);
        };
        if let Some(c) = self.conv1 {
            conv("conv1", [c, 3, 7, 7], None);
        }
        for b in &self.blocks {
            let p = &b.name;
            conv(&format!("{p}.conv1"), [b.width, b.cin, 1, 1], None);
            conv(&format!("{p}.conv2"), [b.width, b.width, 3, 3], None);
            let down = format!("{p}.downsample.0");
            let down = b.downsample.then_some((down.as_str(), [b.cout, b.cin, 1, 1]));
            conv(&format!("{p}.conv3"), [b.cout, b.width, 1, 1], down);
        }
        if let Some(classes) = self.classes {
            push("fc.weight".into(), vec![classes, self.features()], false);
            push("fc.bias".into(), vec![classes], false);
        }
        out
    }
}

impl QuantizedState {
    /// Checks that every tensor of `spec` is present with its shape and usable values, and that no other is.
    ///
    /// # Errors
    /// [`StateError`] lists every offending tensor.
    pub fn check(&self, spec: &NetSpec) -> Result<(), StateError> {
        let mut problems = Vec::new();
        check_sequence("stem", &spec.stem, &self.stem, &mut problems);
        if self.branches.len() != spec.branches {
            problems.push(format!("{} branches given, {} expected", self.branches.len(), spec.branches));
        }
        for (i, state) in self.branches.iter().enumerate() {
            check_sequence(&format!("branch {i}"), &spec.branch, state, &mut problems);
        }
        if problems.is_empty() { Ok(()) } else { Err(StateError { problems }) }
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        let sequence = |s: &QuantizedSequence| {
            let values = s.values.values().map(|t| t.data.len() * size_of::<f32>());
            values.chain(s.weights.values().map(|t| t.data.len())).sum::<usize>()
        };
        sequence(&self.stem) + self.branches.iter().map(sequence).sum::<usize>()
    }
}

fn check_sequence(place: &str, spec: &SequenceSpec, state: &QuantizedSequence, problems: &mut Vec<String>) {
    let params = spec.quantized_params();
    let mut problem = |text: String| problems.push(format!("{place}: {text}"));
    for p in &params {
        let found = if p.is_int8 {
            state.weights.get(&p.name).map(|t| (&t.shape, t.data.len()))
        } else {
            state.values.get(&p.name).map(|t| (&t.shape, t.data.len()))
        };
        let name = &p.name;
        match found {
            None => problem(format!("{name} is missing")),
            Some((shape, len)) if *shape != p.shape || len != p.shape.iter().product::<usize>() => {
                problem(format!("{name} has shape {shape:?}, expected {:?}", p.shape));
            }
            Some(_) if !p.is_int8 && !usable(name, &state.values[name]) => {
                problem(format!("{name} has values that cannot be used"));
            }
            Some(_) => {}
        }
    }
    for name in state.weights.keys().chain(state.values.keys()) {
        if params.iter().all(|p| p.name != *name) {
            problem(format!("{name} is not part of the architecture"));
        }
    }
}

/// Scales and steps divide and multiply: they must be positive.
fn usable(name: &str, tensor: &Tensor) -> bool {
    let positive = name.ends_with(".scale") || name.ends_with(".step");
    tensor.data.iter().all(|v| v.is_finite() && (!positive || *v > 0.0))
}
