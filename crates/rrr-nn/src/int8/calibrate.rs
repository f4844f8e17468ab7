//! The f32 network, watched.

use super::QuantizedState;
use super::quantize::quantize;
use super::ranges::Ranges;
use crate::folded::{self, Folded, Input, Pass};
use crate::halved::Halved;
use crate::input::PaddedImages;
use crate::layout::Layout;
use crate::network::parts;
use crate::plans::{Plans, Workspace};
use crate::{Images, NetSpec, NetState, Normalize, SequenceSpec, State, StateError};
use rrr_kernels::{Activation, Compute, Pool};
use std::collections::HashMap;
use std::sync::Arc;

/// Watches what a network's activations look like, to quantise it.
///
/// ```text
/// Calibrator::new(...)?  ->  observe(images) ...  ->  quantize(normalize)
/// ```
pub struct Calibrator {
    spec: NetSpec,
    state: NetState,
    stem: Observed,
    /// Branches that see the images at one size.
    groups: Vec<Observed>,
    plans: Plans,
    workspace: Workspace,
    images: PaddedImages,
    halved: Halved,
    seen: usize,
}

/// Sequences of one architecture and the ranges of their activations.
pub(super) struct Observed {
    pub sequences: Vec<Folded>,
    /// Per layer and sequence.
    pub ranges: HashMap<String, Vec<Ranges>>,
}

impl Calibrator {
    /// Prepares `state` for watching, on `pool`'s threads.
    ///
    /// # Errors
    /// [`StateError`] names every tensor that is missing, extra or misshapen.
    pub fn new(spec: &NetSpec, state: &NetState, pool: Arc<Pool>) -> Result<Self, StateError> {
        state.check(spec)?;
        let compute = Compute::new(pool);
        Ok(Self {
            stem: Observed::new(&spec.stem, std::slice::from_ref(&state.stem)),
            groups: spec
                .groups()
                .map(|group| Observed::new(&spec.branch, &state.branches[group.branches]))
                .collect(),
            spec: spec.clone(),
            state: state.clone(),
            plans: Plans::new(compute, false),
            workspace: Workspace::default(),
            images: PaddedImages::default(),
            halved: Halved::default(),
            seen: 0,
        })
    }

    /// Runs the network on images of the kind that it will see.
    ///
    /// # Panics
    /// If the number of pixels is not what the sizes of `images` say.
    pub fn observe(&mut self, images: &Images<'_>) {
        let compute = self.plans.compute().clone();
        for (group, seen) in self.spec.groups().zip(&mut self.groups) {
            let images = if group.halved { self.halved.of(images, compute.pool()) } else { *images };
            for range in parts(images.n, (images.height, images.width)) {
                let part = images.slice(range.start, range.len());
                self.images.load(&part, &compute);
                let images_in = Input::Images(self.images.all());
                let (plans, workspace) = (&mut self.plans, &mut self.workspace);
                let stem = (!self.spec.stem.is_empty())
                    .then(|| self.stem.run(images_in, plans, workspace, compute.pool()));
                let input = stem.as_ref().map_or(images_in, |features| Input::Features(&features[0]));
                let y = seen.run(input, plans, workspace, compute.pool());
                stem.into_iter().chain([y]).for_each(|a| workspace.give(a));
            }
        }
        self.seen += images.n;
    }

    /// Quantises the network for images with this normalisation.
    ///
    /// # Panics
    /// If no image was observed.
    pub fn quantize(&self, normalize: Normalize) -> QuantizedState {
        assert!(self.seen > 0, "observe images first");
        let stem = (!self.spec.stem.is_empty()).then(|| quantize(&self.stem, 0, normalize, None, false));
        let input = stem.as_ref().map(|(_, output)| output);
        let observed = self.groups.iter().flat_map(|g| (0..g.sequences.len()).map(move |i| (g, i)));
        let branches = self.state.branches.iter().zip(observed).map(|(state, (group, i))| {
            let (mut sequence, _) = quantize(group, i, normalize, input, true);
            for name in ["fc.weight", "fc.bias"] {
                sequence.values.insert(name.into(), state[name].clone());
            }
            sequence
        });
        let branches = branches.collect();
        QuantizedState { normalize, branches, stem: stem.map(|(sequence, _)| sequence).unwrap_or_default() }
    }
}

impl Observed {
    fn new(spec: &SequenceSpec, states: &[State]) -> Self {
        let layout = Layout::new(spec);
        let fold = |state| Folded::of_state(&layout, state);
        Self { sequences: states.iter().map(fold).collect(), ranges: HashMap::new() }
    }

    /// Runs the sequences, and counts what comes out of every layer.
    fn run(
        &mut self,
        input: Input<'_>,
        plans: &mut Plans,
        workspace: &mut Workspace,
        pool: &Pool,
    ) -> Vec<Activation> {
        let Self { sequences, ranges } = self;
        let mut count = |layer: &str, y: &[Activation]| {
            if !ranges.contains_key(layer) {
                ranges.insert(layer.to_owned(), vec![Ranges::new(y[0].channels()); y.len()]);
            }
            for (ranges, y) in ranges.get_mut(layer).into_iter().flatten().zip(y) {
                ranges.add(y, pool);
            }
        };
        folded::run(sequences, input, &mut Pass { plans, workspace, observer: Some(&mut count) })
    }
}
