//! Network states in safetensors files.

use rrr_checkpoint::{Checkpoint, Dtype, Error, Int8Ref, TensorRef, write_safetensors_with_int8};
use rrr_nn::{Int8Tensor, QuantizedSequence, SequenceSpec, State, StateView, Tensor, TensorView};
use std::collections::BTreeMap;
use std::path::Path;

/// Tensors on their way into a file.
#[derive(Default)]
pub(crate) struct Bundle<'a> {
    tensors: Vec<(String, &'a Tensor)>,
    int8: Vec<(String, &'a Int8Tensor)>,
}

impl<'a> Bundle<'a> {
    /// Adds the tensors of a state under `prefix` (its last dot included).
    pub(crate) fn add(&mut self, prefix: &str, state: &'a State) {
        self.tensors.extend(state.iter().map(|(name, t)| (format!("{prefix}{name}"), t)));
    }

    /// Adds one state per branch, `{prefix}{branch}.{name}`.
    pub(crate) fn add_all(&mut self, prefix: &str, states: &'a [State]) {
        for (i, state) in states.iter().enumerate() {
            self.add(&format!("{prefix}{i}."), state);
        }
    }

    /// Adds the tensors of a quantised sequence under `prefix`.
    pub(crate) fn add_quantized(&mut self, prefix: &str, sequence: &'a QuantizedSequence) {
        self.add(prefix, &sequence.values);
        self.int8.extend(sequence.weights.iter().map(|(name, t)| (format!("{prefix}{name}"), t)));
    }

    /// Writes the file, atomically; `header` goes into its metadata under `key`.
    pub(crate) fn write(&self, path: &Path, key: &str, header: String) -> Result<(), Error> {
        let refs: Vec<TensorRef<'_>> =
            self.tensors.iter().map(|(name, t)| TensorRef { name, shape: &t.shape, data: &t.data }).collect();
        let int8: Vec<Int8Ref<'_>> =
            self.int8.iter().map(|(name, t)| Int8Ref { name, shape: &t.shape, data: &t.data }).collect();
        write_safetensors_with_int8(path, &refs, &int8, &BTreeMap::from([(key.to_string(), header)]))
    }
}

/// Every tensor of the file under `prefix` whose name `spec` knows (`trained` leaves out running statistics).
///
/// Missing tensors stay missing: whoever uses the state checks it against the architecture.
pub(crate) fn read_state(
    file: &Checkpoint,
    prefix: &str,
    spec: &SequenceSpec,
    trained: bool,
) -> Result<State, Error> {
    let mut state = State::new();
    for p in spec.params().into_iter().filter(|p| p.trainable || !trained) {
        let name = format!("{prefix}{}", p.name);
        if let Some(info) = file.tensor(&name) {
            let tensor = Tensor { shape: info.shape.clone(), data: file.read_f32(&name)? };
            state.insert(p.name, tensor);
        }
    }
    Ok(state)
}

/// [`read_state`] of all tensors, where they lie in the file.
pub(crate) fn view_state<'a>(
    file: &'a Checkpoint,
    prefix: &str,
    spec: &SequenceSpec,
) -> Result<StateView<'a>, Error> {
    let mut state = StateView::new();
    for p in spec.params() {
        if let Some(info) = file.tensor(&format!("{prefix}{}", p.name)) {
            let tensor = TensorView { shape: &info.shape, data: file.view_f32(&info.name)? };
            state.insert(&info.name[prefix.len()..], tensor);
        }
    }
    Ok(state)
}

/// [`read_state`] of a quantised sequence.
pub(crate) fn read_quantized(
    file: &Checkpoint,
    prefix: &str,
    spec: &SequenceSpec,
) -> Result<QuantizedSequence, Error> {
    let mut sequence = QuantizedSequence::default();
    for p in spec.quantized_params() {
        let name = format!("{prefix}{}", p.name);
        let Some(info) = file.tensor(&name).filter(|t| (t.dtype == Dtype::I8) == p.is_int8) else { continue };
        let (shape, data) = (info.shape.clone(), file.read_f32(&name)?);
        if p.is_int8 {
            let data = data.into_iter().map(|v| v as i8).collect();
            sequence.weights.insert(p.name, Int8Tensor { shape, data });
        } else {
            sequence.values.insert(p.name, Tensor { shape, data });
        }
    }
    Ok(sequence)
}

/// [`read_state`] of `count` branches, `{prefix}{branch}.{name}`.
pub(crate) fn read_states(
    file: &Checkpoint,
    prefix: &str,
    count: usize,
    spec: &SequenceSpec,
    trained: bool,
) -> Result<Vec<State>, Error> {
    (0..count).map(|i| read_state(file, &format!("{prefix}{i}."), spec, trained)).collect()
}
