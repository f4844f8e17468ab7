//! The f32 network, watched.

use super::QuantizedState;
use super::fold::{Folded, FoldedBlock, FoldedSequence};
use super::quantize::quantize;
use super::ranges::Ranges;
use crate::folded::max_pool_all;
use crate::input::PaddedImages;
use crate::plans::Plans;
use crate::{Images, NetSpec, NetState, Normalize, StateError};
use rrr_kernels::{Activation, BLOCK, Buffer, Compute, Pool, RowsJob, blocks, max_pool_size};
use std::sync::Arc;

/// Images that go through the network at a time.
const MAX_BATCH: usize = 32;

/// Watches what a network's activations look like, to quantise it.
///
/// ```text
/// Calibrator::new(...)?  ->  observe(images) ...  ->  quantize(normalize)
/// ```
pub struct Calibrator {
    spec: NetSpec,
    state: NetState,
    stem: Observed,
    branches: Vec<Observed>,
    plans: Plans,
    images: PaddedImages,
    seen: usize,
}

/// A sequence and the ranges of its activations.
pub(super) struct Observed {
    pub layers: FoldedSequence,
    packed: Vec<(Buffer, Buffer)>,
    compute: Compute,
    /// Behind `conv1`, then behind each block's three activations.
    pub seen: Vec<Ranges>,
}

impl Calibrator {
    /// Prepares `state` for watching, on `pool`'s threads.
    ///
    /// # Errors
    /// [`StateError`] names every tensor that is missing, extra or misshapen.
    pub fn new(spec: &NetSpec, state: &NetState, pool: Arc<Pool>) -> Result<Self, StateError> {
        state.check(spec)?;
        let compute = Compute::new(pool);
        let watch = |spec, state| Observed::new(FoldedSequence::new(spec, state), &compute);
        Ok(Self {
            stem: watch(&spec.stem, &state.stem),
            branches: state.branches.iter().map(|b| watch(&spec.branch, b)).collect(),
            spec: spec.clone(),
            state: state.clone(),
            plans: Plans::new(compute, false),
            images: PaddedImages::default(),
            seen: 0,
        })
    }

    /// Runs the network on images of the kind that it will see.
    ///
    /// # Panics
    /// If the number of pixels is not what the sizes of `images` say.
    pub fn observe(&mut self, images: &Images<'_>) {
        for start in (0..images.n).step_by(MAX_BATCH) {
            let part = images.slice(start, MAX_BATCH.min(images.n - start));
            self.images.load(&part, self.plans.compute().pool());
            let stem = (!self.spec.stem.is_empty()).then(|| self.stem.run(Ok(&self.images), &mut self.plans));
            for branch in &mut self.branches {
                branch.run(stem.as_ref().map_or(Ok(&self.images), Err), &mut self.plans);
            }
            self.seen += part.n;
        }
    }

    /// Quantises the network for images with this normalisation.
    ///
    /// # Panics
    /// If no image was observed.
    pub fn quantize(&self, normalize: Normalize) -> QuantizedState {
        assert!(self.seen > 0, "observe images first");
        let stem = (!self.spec.stem.is_empty())
            .then(|| quantize(&self.stem, &self.spec.stem, normalize, None, false));
        let input = stem.as_ref().map(|(_, output)| output);
        let branches = self.branches.iter().zip(&self.state.branches).map(|(branch, state)| {
            let (mut sequence, _) = quantize(branch, &self.spec.branch, normalize, input, true);
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
    fn new(layers: FoldedSequence, compute: &Compute) -> Self {
        let pack = |l: &Folded| {
            let mut weight = Buffer::zeros(l.conv.packed_len());
            l.conv.pack(&l.weight, &mut weight);
            let mut bias = Buffer::zeros(blocks(l.conv.cout()) * BLOCK);
            bias[..l.bias.len()].copy_from_slice(&l.bias);
            (weight, bias)
        };
        let convs = |b: &FoldedBlock| -> Vec<(Buffer, Buffer)> {
            [Some(&b.conv1), Some(&b.conv2), b.downsample.as_ref(), Some(&b.conv3)]
                .into_iter()
                .flatten()
                .map(pack)
                .collect()
        };
        let packed = layers.conv1.iter().map(pack).chain(layers.blocks.iter().flat_map(convs)).collect();
        let blocks = layers.blocks.iter().flat_map(|b| [&b.conv1, &b.conv2, &b.conv3]);
        let seen = layers.conv1.iter().chain(blocks).map(|l| Ranges::new(l.conv.cout())).collect();
        Self { layers, packed, compute: compute.clone(), seen }
    }

    /// Runs the sequence on images or on features, and counts what comes out of every layer.
    fn run(&mut self, input: Result<&PaddedImages, &Activation>, plans: &mut Plans) -> Activation {
        let Self { layers, packed, compute, seen } = self;
        let (mut packed, mut seen) = (packed.iter(), seen.iter_mut());
        let mut layer = |l: &Folded, x: Source<'_>, residual: Option<&Activation>, relu: bool| {
            convolve(l, packed.next().expect("packed in this order"), x, residual, relu, plans)
        };
        let mut count = |a: &Activation| seen.next().expect("one per activation").add(a, compute.pool());
        let mut x = match (&layers.conv1, input) {
            (Some(conv1), Ok(i)) => {
                let y = layer(conv1, Source { data: i.data(), size: i.size, n: i.n }, None, true);
                let (height, width) = (max_pool_size(y.height()), max_pool_size(y.width()));
                let mut pooled = Activation::zeros(y.channels(), height, width, y.n());
                max_pool_all(compute, &[y], std::slice::from_mut(&mut pooled));
                count(&pooled);
                pooled
            }
            (None, Err(features)) => features.clone(),
            _ => unreachable!("a sequence begins with conv1 exactly where it reads images"),
        };
        for b in &layers.blocks {
            let a1 = layer(&b.conv1, (&x).into(), None, true);
            let a2 = layer(&b.conv2, (&a1).into(), None, true);
            let skip = b.downsample.as_ref().map(|d| layer(d, (&x).into(), None, false));
            let y = layer(&b.conv3, (&a2).into(), Some(skip.as_ref().unwrap_or(&x)), true);
            [&a1, &a2, &y].into_iter().for_each(&mut count);
            x = y;
        }
        x
    }
}

/// What a convolution reads.
struct Source<'a> {
    data: &'a [f32],
    size: (usize, usize),
    n: usize,
}

impl<'a> From<&'a Activation> for Source<'a> {
    fn from(a: &'a Activation) -> Self {
        Self { data: a.data(), size: (a.height(), a.width()), n: a.n() }
    }
}

fn convolve(
    l: &Folded,
    (weight, bias): &(Buffer, Buffer),
    x: Source<'_>,
    residual: Option<&Activation>,
    relu: bool,
    plans: &mut Plans,
) -> Activation {
    let plan = plans.get(l.conv, x.size, x.n);
    let (height, width) = plan.output();
    let mut y = Activation::zeros(l.conv.cout(), height, width, x.n);
    let mut job = RowsJob::new(x.data, weight, y.data_mut());
    job.bias = Some(bias);
    job.relu = relu;
    job.residual = residual.map(Activation::data);
    plan.forward([job]);
    y
}
