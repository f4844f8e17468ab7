//! Sequences in inference form: each batch norm folded into the convolution before it.

mod conv;

use crate::input::Padded;
use crate::layout::{Bottleneck, ConvBn, Layout};
use crate::plans::{Plans, Workspace};
use crate::profile::timed;
use rrr_kernels::{Activation, Arena, Compute, Conv, ConvPlan, RowsJob, avg_pool, max_pool, max_pool_size};
use std::ops::Range;

pub(crate) use conv::{FoldedConv, Source};

/// What a sequence reads.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    Images(Padded<'a>),
    Features(&'a Activation),
}

impl<'a> Input<'a> {
    /// The features, for a sequence that does not begin with a convolution of images.
    pub fn features(self) -> &'a Activation {
        match self {
            Input::Features(a) => a,
            Input::Images(_) => panic!("the sequence begins with a block: it reads features, not images"),
        }
    }

    pub fn images(self) -> Padded<'a> {
        match self {
            Input::Images(i) => i,
            Input::Features(_) => panic!("the sequence begins with conv1: it reads images, not features"),
        }
    }
}

/// Is told a layer's name and what it puts out, one activation per sequence.
pub(crate) type Observer<'a> = dyn FnMut(&str, &[Activation]) + 'a;

/// What a forward pass works with.
pub(crate) struct Pass<'a> {
    /// In front of the layers' names in a profile: `stem` or `branches`.
    pub place: &'static str,
    pub plans: &'a mut Plans,
    pub workspace: &'a mut Workspace,
    /// Hears of every convolution and of the max pooling.
    pub observer: Option<&'a mut Observer<'a>>,
}

impl Pass<'_> {
    /// Runs a layer, and notes its time if a profile is wanted.
    fn time(&mut self, layer: &str, macs: u64, run: impl FnOnce(&Compute)) {
        let (compute, profile) = self.plans.compute_and_profile();
        timed(profile, || format!("{}.{layer}", self.place), macs, || run(compute));
    }

    fn show(&mut self, layer: &str, y: &[Activation]) {
        if let Some(observer) = &mut self.observer {
            observer(layer, y);
        }
    }
}

/// A bottleneck.
pub(crate) struct FoldedBlock {
    pub conv1: FoldedConv,
    pub conv2: FoldedConv,
    /// The last convolution; its sum with the downsample, if there is one.
    pub conv3: FoldedConv,
}

/// A sequence in inference form.
pub(crate) struct Folded {
    pub conv1: Option<FoldedConv>,
    pub blocks: Vec<FoldedBlock>,
    pub fc: Option<FoldedConv>,
}

impl Folded {
    /// Folds and packs the weights of `source`.
    pub fn new(layout: &Layout, source: &Source<'_>) -> Self {
        Self::in_arena(layout, source, &Arena::new(layout.params))
    }

    /// As [`Folded::new`], in memory of `arena`, of which it takes the parameters' number of values.
    pub fn in_arena(layout: &Layout, source: &Source<'_>, arena: &Arena) -> Self {
        let fold = |c: &ConvBn| FoldedConv::new(&[c], source, arena);
        let block = |b: &Bottleneck| FoldedBlock {
            conv1: fold(&b.conv1),
            conv2: fold(&b.conv2),
            conv3: match &b.downsample {
                Some(downsample) => FoldedConv::new(&[&b.conv3, downsample], source, arena),
                None => fold(&b.conv3),
            },
        };
        Self {
            conv1: layout.conv1.as_ref().map(fold),
            blocks: layout.blocks.iter().map(block).collect(),
            fc: layout.fc.as_ref().map(|fc| FoldedConv::classifier(fc, source, arena)),
        }
    }

    /// Channels of what comes out of the last block, and its height and width for images of a size.
    pub fn output(&self, (height, width): (usize, usize)) -> (usize, (usize, usize)) {
        let mut shape = (0, (height, width));
        let through = |conv: Conv, (height, width)| (conv.output_size(height), conv.output_size(width));
        if let Some(conv1) = &self.conv1 {
            let (height, width) = through(conv1.conv(), shape.1);
            shape = (conv1.conv().cout(), (max_pool_size(height), max_pool_size(width)));
        }
        for block in &self.blocks {
            shape = (block.conv3.conv().cout(), through(block.conv2.conv(), shape.1));
        }
        shape
    }

    pub fn is_empty(&self) -> bool {
        self.conv1.is_none() && self.blocks.is_empty()
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().flat_map(|b| [&b.conv1, &b.conv2, &b.conv3]);
        self.conv1.iter().chain(blocks).chain(&self.fc).map(FoldedConv::bytes).sum()
    }
}

/// Some images of larger activations, one per sequence.
pub(crate) struct Place<'a> {
    pub whole: &'a mut [Activation],
    pub images: Range<usize>,
}

impl Place<'_> {
    /// Images of the activations.
    fn all(&self) -> usize {
        self.whole[0].n()
    }
}

/// Runs sequences of the same architecture on one input, up to their last block; one activation each.
///
/// The activations come from the workspace and should go back there.
pub(crate) fn run(sequences: &[Folded], input: Input<'_>, pass: &mut Pass<'_>) -> Vec<Activation> {
    run_blocks(sequences, input, None, pass)
}

/// As [`run`], with blocks, of which the last one puts its output in its place.
pub(crate) fn run_into(sequences: &[Folded], input: Input<'_>, place: Place<'_>, pass: &mut Pass<'_>) {
    let own = run_blocks(sequences, input, Some(place), pass);
    debug_assert!(own.is_empty(), "all of it has its place");
}

/// The output of the last block, if that has no place.
fn run_blocks(
    sequences: &[Folded],
    input: Input<'_>,
    mut place: Option<Place<'_>>,
    pass: &mut Pass<'_>,
) -> Vec<Activation> {
    let mut x: Option<Vec<Activation>> =
        sequences[0].conv1.is_some().then(|| run_image_layers(sequences, input, pass));
    let count = sequences[0].blocks.len();
    for i in 0..count {
        let place = if i + 1 == count { place.take() } else { None };
        let y = match &x {
            Some(x) => run_block(sequences, i, |branch| &x[branch], place, pass),
            None => run_block(sequences, i, |_| input.features(), place, pass),
        };
        if let Some(x) = x.replace(y) {
            pass.workspace.give(x);
        }
    }
    x.expect("a sequence has layers")
}

/// Pools and classifies what [`run`] put out: features and logits, one row per image.
pub(crate) fn run_head(
    sequences: &[Folded],
    x: &[Activation],
    pass: &mut Pass<'_>,
) -> (Vec<Activation>, Vec<Activation>) {
    let mut features = pass.workspace.take_many(x.len(), x[0].channels(), (1, 1), x[0].n());
    pass.time("avgpool", 0, |compute| avg_pool(compute, x.iter().zip(&mut features)));
    let fc = |branch: usize| sequences[branch].fc.as_ref().expect("has a classifier");
    let layer = ConvLayer { branches: sequences.len(), conv: &fc, relu: false };
    let logits = layer.run(|branch| &features[branch], NO_RESIDUAL, None, pass);
    (features, logits)
}

fn run_image_layers(sequences: &[Folded], input: Input<'_>, pass: &mut Pass<'_>) -> Vec<Activation> {
    let images = input.images();
    let conv1 = |branch: usize| sequences[branch].conv1.as_ref().expect("same architecture");
    let layer = ConvLayer { branches: sequences.len(), conv: &conv1, relu: true };
    let y = layer.run_images(images, pass);
    let size = (max_pool_size(y[0].height()), max_pool_size(y[0].width()));
    let mut pooled = pass.workspace.take_many(y.len(), y[0].channels(), size, images.n);
    pass.time("maxpool", 0, |compute| {
        y.iter().zip(&mut pooled).for_each(|(y, pooled)| max_pool(compute, y, pooled));
    });
    pass.show("maxpool", &pooled);
    pass.workspace.give(y);
    pooled
}

fn run_block<'x>(
    sequences: &[Folded],
    i: usize,
    x: impl Fn(usize) -> &'x Activation,
    place: Option<Place<'_>>,
    pass: &mut Pass<'_>,
) -> Vec<Activation> {
    let block = |branch: usize| &sequences[branch].blocks[i];
    let branches = sequences.len();
    let conv1 = ConvLayer { branches, conv: &|branch| &block(branch).conv1, relu: true };
    let a1 = conv1.run(&x, NO_RESIDUAL, None, pass);
    let conv2 = ConvLayer { branches, conv: &|branch| &block(branch).conv2, relu: true };
    let a2 = conv2.run(|branch| &a1[branch], NO_RESIDUAL, None, pass);
    pass.workspace.give(a1);
    let conv3 = ConvLayer { branches, conv: &|branch| &block(branch).conv3, relu: true };
    let y = match block(0).conv3.other() {
        Some(other) => conv3.run_sum(other, &a2, &x, place, pass),
        None => conv3.run(|branch| &a2[branch], Some(&x), place, pass),
    };
    pass.workspace.give(a2);
    y
}

fn size(a: &Activation) -> (usize, usize) {
    (a.height(), a.width())
}

const NO_RESIDUAL: Option<fn(usize) -> &'static Activation> = None;

/// The same convolution of every branch.
struct ConvLayer<'a> {
    branches: usize,
    conv: &'a dyn Fn(usize) -> &'a FoldedConv,
    relu: bool,
}

/// What a convolution of a branch reads.
struct Reads<'a> {
    x: &'a [f32],
    /// The input of the other convolution of a sum.
    skip: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
}

/// All of them put out what [`run_blocks`] does.
impl ConvLayer<'_> {
    fn run<'x, 'r>(
        &self,
        x: impl Fn(usize) -> &'x Activation,
        residual: Option<impl Fn(usize) -> &'r Activation>,
        place: Option<Place<'_>>,
        pass: &mut Pass<'_>,
    ) -> Vec<Activation> {
        let images = (x(0).n(), place.as_ref().map_or(x(0).n(), Place::all));
        let plan = pass.plans.within((self.conv)(0).conv(), size(x(0)), images);
        let reads = |branch| Reads {
            x: x(branch).data(),
            skip: None,
            residual: residual.as_ref().map(|r| r(branch).data()),
        };
        self.run_plan(&plan, reads, place, pass)
    }

    /// Of images that all branches read.
    fn run_images(&self, images: Padded<'_>, pass: &mut Pass<'_>) -> Vec<Activation> {
        let plan = pass.plans.get((self.conv)(0).conv(), images.size, images.n);
        self.run_plan(&plan, |_| Reads { x: images.data, skip: None, residual: None }, None, pass)
    }

    /// The sum of a convolution of `a` and `other` of `x`.
    fn run_sum<'x>(
        &self,
        other: Conv,
        a: &[Activation],
        x: impl Fn(usize) -> &'x Activation,
        place: Option<Place<'_>>,
        pass: &mut Pass<'_>,
    ) -> Vec<Activation> {
        let images = (a[0].n(), place.as_ref().map_or(a[0].n(), Place::all));
        let conv = (self.conv)(0).conv();
        let plan = pass.plans.sum((conv, size(&a[0])), (other, size(x(0))), images);
        let reads =
            |branch: usize| Reads { x: a[branch].data(), skip: Some(x(branch).data()), residual: None };
        self.run_plan(&plan, reads, place, pass)
    }

    fn run_plan<'r>(
        &self,
        plan: &ConvPlan,
        reads: impl Fn(usize) -> Reads<'r>,
        place: Option<Place<'_>>,
        pass: &mut Pass<'_>,
    ) -> Vec<Activation> {
        let name = (self.conv)(0).name();
        let mut own = Vec::new();
        let y = self.place(plan, place, &mut own, pass);
        pass.time(name, self.branches as u64 * plan.macs(), |_| {
            plan.forward(y.whole.iter_mut().enumerate().map(|(branch, whole)| {
                let conv = (self.conv)(branch);
                let Reads { x, skip, residual } = reads(branch);
                let to = whole.images_mut(y.images.clone());
                let mut job = RowsJob::new(x, conv.weights_for(plan), to);
                (job.skip, job.residual) = (skip, residual);
                (job.bias, job.relu) = (Some(conv.bias()), self.relu);
                job
            }));
        });
        pass.show(name, &own);
        own
    }

    /// The place of an output: memory from the workspace, which `own` then holds, if it has none.
    fn place<'y>(
        &self,
        plan: &ConvPlan,
        place: Option<Place<'y>>,
        own: &'y mut Vec<Activation>,
        pass: &mut Pass<'_>,
    ) -> Place<'y> {
        place.unwrap_or_else(|| {
            *own = pass.workspace.take_many(self.branches, plan.conv().cout(), plan.output(), plan.n());
            Place { whole: own, images: 0..plan.n() }
        })
    }
}
