//! Named tensors: how weights enter and leave the core.

use crate::{NetSpec, SequenceSpec};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A dense f32 tensor in row-major order, shaped as PyTorch shapes it (`[out, in, kh, kw]` for convolutions).
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub data: Vec<f32>,
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }
}

/// Tensors by state-dict name.
pub type State = BTreeMap<String, Tensor>;

/// A [`Tensor`] that lies elsewhere, for example in a mapped file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorView<'a> {
    /// As [`Tensor::shape`].
    pub shape: &'a [usize],
    /// As [`Tensor::data`].
    pub data: Cow<'a, [f32]>,
}

/// Tensors that lie elsewhere, by state-dict name.
pub type StateView<'a> = BTreeMap<&'a str, TensorView<'a>>;

/// The tensors of a state where they lie.
pub(crate) fn borrow<'a>(state: &'a State) -> StateView<'a> {
    let tensor = |t: &'a Tensor| TensorView { shape: &t.shape, data: Cow::Borrowed(&t.data) };
    state.iter().map(|(name, t)| (name.as_str(), tensor(t))).collect()
}

/// All weights and batch-norm statistics of a [`NetSpec`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetState {
    /// The stem's tensors.
    pub stem: State,
    /// One state per branch.
    pub branches: Vec<State>,
}

/// Why a state does not fit an architecture; lists every offending tensor.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("weights do not fit the architecture: {}", .problems.join("; "))]
pub struct StateError {
    /// One line per tensor.
    pub problems: Vec<String>,
}

/// A part of a network with a state of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The stem.
    Stem,
    /// A branch, from 0.
    Branch(usize),
}

impl Part {
    /// Checks that `state` holds exactly the tensors of this part of `spec`, with their shapes.
    pub fn check(self, spec: &NetSpec, state: &StateView<'_>) -> Result<(), StateError> {
        let mut problems = Vec::new();
        match self {
            Self::Stem => check_sequence("stem", &spec.stem, state, &mut problems),
            Self::Branch(i) => check_sequence(&format!("branch {i}"), &spec.branch, state, &mut problems),
        }
        if problems.is_empty() { Ok(()) } else { Err(StateError { problems }) }
    }
}

impl NetState {
    /// The state of one part.
    ///
    /// # Panics
    /// If there is no such branch.
    pub fn part(&self, part: Part) -> &State {
        match part {
            Part::Stem => &self.stem,
            Part::Branch(i) => &self.branches[i],
        }
    }

    /// Checks that every tensor of `spec` is present with its shape, and that no other tensor is.
    pub fn check(&self, spec: &NetSpec) -> Result<(), StateError> {
        let mut problems = Vec::new();
        check_sequence("stem", &spec.stem, &borrow(&self.stem), &mut problems);
        if self.branches.len() != spec.branches {
            problems.push(format!("{} branches given, {} expected", self.branches.len(), spec.branches));
        }
        for (i, state) in self.branches.iter().enumerate() {
            check_sequence(&format!("branch {i}"), &spec.branch, &borrow(state), &mut problems);
        }
        if problems.is_empty() { Ok(()) } else { Err(StateError { problems }) }
    }
}

fn check_sequence(place: &str, spec: &SequenceSpec, state: &StateView<'_>, problems: &mut Vec<String>) {
    let params = spec.params();
    for p in &params {
        match state.get(p.name.as_str()) {
            None => problems.push(format!("{place}: {} is missing", p.name)),
            Some(t) if t.shape != p.shape || t.data.len() != p.shape.iter().product::<usize>() => {
                problems.push(format!("{place}: {} has shape {:?}, expected {:?}", p.name, t.shape, p.shape))
            }
            Some(_) => {}
        }
    }
    for name in state.keys().filter(|n| params.iter().all(|p| p.name != **n)) {
        problems.push(format!("{place}: {name} is not part of the architecture"));
    }
}
