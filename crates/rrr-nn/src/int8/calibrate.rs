//! The f32 network, watched.

use super::QuantizedState;
use super::images::PaddedPixels;
use super::layers::{Layers, Source};
use super::quantize::quantize;
use super::ranges::Ranges;
use super::seen::Seen;
use crate::folded::{self, Folded, Input, Pass};
use crate::halved::Halved;
use crate::input::PaddedImages;
use crate::layout::Layout;
use crate::network::parts;
use crate::plans::{Plans, Workspace};
use crate::state::borrow;
use crate::{Images, NetSpec, NetState, Normalize, SequenceSpec, State, StateError};
use rrr_kernels::int8::{Int8Activation, Int8Compute};
use rrr_kernels::{Activation, Compute, Isa, Pool};
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
    /// What was observed: biases are corrected on the same images.
    seen: Vec<Seen>,
    pool: Arc<Pool>,
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
        let compute = Compute::new(Arc::clone(&pool));
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
            seen: Vec::new(),
            pool,
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
        self.seen.push(Seen::of(images));
    }

    /// Quantises the network for images with this normalisation.
    ///
    /// # Panics
    /// If no image was observed.
    pub fn quantize(&self, normalize: Normalize) -> QuantizedState {
        assert!(!self.seen.is_empty(), "observe images first");
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
        let stem = stem.map(|(sequence, _)| sequence).unwrap_or_default();
        let mut state = QuantizedState { normalize, branches, stem };
        self.correct_biases(&mut state);
        state
    }

    /// Moves biases until the quantised layers put out on average what those of f32 do.
    fn correct_biases(&self, state: &mut QuantizedState) {
        let compute = Int8Compute::new(Arc::clone(&self.pool));
        let mut halved = Halved::default();
        let mut sources = Vec::new();
        for group in self.spec.groups() {
            for seen in &self.seen {
                let images = seen.images();
                let images = if group.halved { halved.of(&images, &self.pool) } else { images };
                let mut pixels = PaddedPixels::default();
                pixels.load(&images, &state.normalize, Isa::active(), &self.pool);
                let size = (images.height, images.width);
                sources.push(Source::Pixels { pixels, n: images.n, size });
            }
        }
        let mut steps = None;
        if !self.spec.stem.is_empty() {
            let states = std::slice::from_mut(&mut state.stem);
            let mut stem =
                Layers::new("stem", &self.spec.stem, states, None, false, &compute).expect(SMALL_ENOUGH);
            let features = stem.correct(states, sources, &self.stem, &compute);
            sources = features.into_iter().map(Source::Features).collect();
            steps = Some(stem.steps().to_vec());
        }
        let mut sources = sources.into_iter();
        for (group, observed) in self.spec.groups().zip(&self.groups) {
            let states = &mut state.branches[group.branches];
            let steps = steps.as_ref().map(|steps| steps.repeat(states.len()));
            let mut layers = Layers::new("branches", &self.spec.branch, states, steps, true, &compute)
                .expect(SMALL_ENOUGH);
            let own: Vec<Source> = sources.by_ref().take(self.seen.len()).collect();
            let _: Vec<Int8Activation> = layers.correct(states, own, observed, &compute);
        }
    }
}

const SMALL_ENOUGH: &str = "weights were rounded to fit 16-bit sums";

impl Observed {
    fn new(spec: &SequenceSpec, states: &[State]) -> Self {
        let layout = Layout::new(spec);
        let fold = |state| Folded::new(&layout, &folded::Source::State(&borrow(state)));
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
        folded::run(sequences, input, &mut Pass { place: "", plans, workspace, observer: Some(&mut count) })
    }
}
