//! Sequences in inference form: each batch norm folded into the convolution before it.

use crate::State;
use crate::input::Padded;
use crate::layout::{ConvBn, Layout};
use crate::plans::{Plans, Workspace};
use rrr_kernels::{
    Activation, BLOCK, BN_EPS, Buffer, Compute, Conv, ConvPlan, RowsJob, Weights, avg_pool, max_pool,
    max_pool_size,
};
use std::ops::Range;
use std::sync::OnceLock;

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
    pub plans: &'a mut Plans,
    pub workspace: &'a mut Workspace,
    /// Hears of every convolution and of the max pooling.
    pub observer: Option<&'a mut Observer<'a>>,
}

impl Pass<'_> {
    fn show(&mut self, layer: &str, y: &[Activation]) {
        if let Some(observer) = &mut self.observer {
            observer(layer, y);
        }
    }
}

/// A convolution with bias.
pub(crate) struct FoldedConv {
    pub name: String,
    pub conv: Conv,
    weight: Buffer,
    /// The weights for plans that want them transformed, made by the first of these.
    winograd: OnceLock<Buffer>,
    bias: Buffer,
}

impl FoldedConv {
    fn new(c: &ConvBn, params: &impl Fn(Range<usize>) -> Buffer, stats: &[f32]) -> Self {
        let mut weight = params(c.weight.clone());
        let affine = params(c.affine.clone());
        let (gamma, beta) = halves(&affine);
        let (mean, var) = halves(&stats[c.stats.clone()]);
        let mut bias = copy(beta);
        let panel = weight.len() / (gamma.len() / BLOCK);
        for (i, panel) in weight.chunks_exact_mut(panel).enumerate() {
            let at = i * BLOCK;
            let scale: [f32; BLOCK] = std::array::from_fn(|c| {
                (f64::from(gamma[at + c]) / f64::from(var[at + c] + BN_EPS).sqrt()) as f32
            });
            for row in panel.chunks_exact_mut(BLOCK) {
                for (w, s) in row.iter_mut().zip(&scale) {
                    *w *= s;
                }
            }
            for c in 0..BLOCK {
                bias[at + c] -= mean[at + c] * scale[c];
            }
        }
        Self { name: c.name.clone(), conv: c.conv, weight, winograd: OnceLock::new(), bias }
    }

    /// Weights as `plan` is fastest with.
    fn weights_for(&self, plan: &ConvPlan) -> Weights<'_> {
        if plan.is_winograd() {
            Weights::Winograd(self.winograd.get_or_init(|| plan.winograd_weights(&self.weight)))
        } else {
            Weights::F32(&self.weight)
        }
    }

    fn bytes(&self) -> usize {
        let winograd = self.winograd.get().map_or(0, |w| size_of_val(&w[..]));
        size_of_val(&self.weight[..]) + winograd + size_of_val(&self.bias[..])
    }

    /// Weights in PyTorch's order.
    pub fn weights(&self) -> Vec<f32> {
        self.conv.unpack(&self.weight)
    }

    /// Weights as [`Conv::pack`] orders them.
    pub fn packed(&self) -> &[f32] {
        &self.weight
    }

    /// One value per output channel.
    pub fn bias(&self) -> &[f32] {
        &self.bias[..self.conv.cout()]
    }
}

pub(crate) struct FoldedBlock {
    pub conv1: FoldedConv,
    pub conv2: FoldedConv,
    pub conv3: FoldedConv,
    pub downsample: Option<FoldedConv>,
    /// Weights and biases of the last convolution and the downsample as one, made when they first run.
    sum: OnceLock<(Buffer, Buffer)>,
}

impl FoldedBlock {
    /// Of the last convolution and the downsample.
    ///
    /// # Panics
    /// If there is no downsample.
    fn sum(&self) -> &(Buffer, Buffer) {
        self.sum.get_or_init(|| {
            let (last, skip) = (&self.conv3, self.downsample.as_ref().expect("has a downsample"));
            let mut bias = last.bias.clone();
            bias.iter_mut().zip(&skip.bias[..]).for_each(|(one, other)| *one += other);
            (last.conv.join(&skip.conv, &last.weight, &skip.weight), bias)
        })
    }
}

/// A sequence in inference form.
pub(crate) struct Folded {
    pub conv1: Option<FoldedConv>,
    pub blocks: Vec<FoldedBlock>,
    pub fc: Option<FoldedConv>,
}

impl Folded {
    /// Folds what a trainer holds, packed parameters and running statistics.
    pub fn new(layout: &Layout, params: &[f32], stats: &[f32]) -> Self {
        Self::build(layout, &|range| copy(&params[range]), stats)
    }

    /// Folds a state, each convolution packed where it is to stay. Shapes must have been checked.
    pub fn of_state(layout: &Layout, state: &State) -> Self {
        let pack = |range: Range<usize>| {
            let mut packed = Buffer::zeros(range.len());
            layout.pack(state, range, &mut packed);
            packed
        };
        Self::build(layout, &pack, &layout.pack_stats(state))
    }

    /// `params` gives a copy of a range of the packed parameters.
    fn build(layout: &Layout, params: &impl Fn(Range<usize>) -> Buffer, stats: &[f32]) -> Self {
        let fold = |c: &ConvBn| FoldedConv::new(c, params, stats);
        Self {
            conv1: layout.conv1.as_ref().map(fold),
            blocks: layout
                .blocks
                .iter()
                .map(|b| FoldedBlock {
                    conv1: fold(&b.conv1),
                    conv2: fold(&b.conv2),
                    conv3: fold(&b.conv3),
                    downsample: b.downsample.as_ref().map(fold),
                    sum: OnceLock::new(),
                })
                .collect(),
            fc: layout.fc.as_ref().map(|fc| FoldedConv {
                name: "fc".to_owned(),
                conv: fc.conv,
                weight: params(fc.weight.clone()),
                winograd: OnceLock::new(),
                bias: params(fc.bias.clone()),
            }),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.conv1.is_none() && self.blocks.is_empty()
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().flat_map(|b| {
            [Some(&b.conv1), Some(&b.conv2), Some(&b.conv3), b.downsample.as_ref()].into_iter().flatten()
        });
        let convs = self.conv1.iter().chain(blocks).chain(&self.fc);
        let sums = self.blocks.iter().filter_map(|b| b.sum.get());
        convs.map(FoldedConv::bytes).sum::<usize>()
            + sums.map(|(w, bias)| size_of_val(&w[..]) + size_of_val(&bias[..])).sum::<usize>()
    }
}

/// Runs sequences of the same architecture on one input, up to their last block; one activation each.
///
/// The activations come from the workspace and should go back there.
pub(crate) fn run(sequences: &[Folded], input: Input<'_>, pass: &mut Pass<'_>) -> Vec<Activation> {
    let mut x: Option<Vec<Activation>> =
        sequences[0].conv1.is_some().then(|| run_image_layers(sequences, input, pass));
    for i in 0..sequences[0].blocks.len() {
        let y = match &x {
            Some(x) => run_block(sequences, i, |branch| &x[branch], pass),
            None => run_block(sequences, i, |_| input.features(), pass),
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
    pass.plans.time("avgpool", 0, |compute| pool_features(compute, x, &mut features));
    let fc = |branch: usize| sequences[branch].fc.as_ref().expect("has a classifier");
    let layer = ConvLayer { branches: sequences.len(), conv: &fc, relu: false };
    let logits = layer.run(|branch| &features[branch], NO_RESIDUAL, pass);
    (features, logits)
}

/// Global average pooling.
pub(crate) fn pool_features(compute: &Compute, x: &[Activation], features: &mut [Activation]) {
    let planes = x.iter().zip(features).flat_map(|(x, f)| {
        let n = x.n();
        x.planes().zip(f.planes_mut()).map(move |(x, f)| (n, x, f))
    });
    compute.pool().for_each(planes, |_, (n, x, f)| avg_pool(compute.isa(), n, x, f));
}

fn run_image_layers(sequences: &[Folded], input: Input<'_>, pass: &mut Pass<'_>) -> Vec<Activation> {
    let images = input.images();
    let conv1 = |branch: usize| sequences[branch].conv1.as_ref().expect("same architecture");
    let layer = ConvLayer { branches: sequences.len(), conv: &conv1, relu: true };
    let y = layer.run_on(images.size, images.n, |_| images.data, NO_RESIDUAL, pass);
    let size = (max_pool_size(y[0].height()), max_pool_size(y[0].width()));
    let mut pooled = pass.workspace.take_many(y.len(), y[0].channels(), size, images.n);
    pass.plans.time("maxpool", 0, |compute| {
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
    pass: &mut Pass<'_>,
) -> Vec<Activation> {
    let block = |branch: usize| &sequences[branch].blocks[i];
    let branches = sequences.len();
    let conv1 = ConvLayer { branches, conv: &|branch| &block(branch).conv1, relu: true };
    let a1 = conv1.run(&x, NO_RESIDUAL, pass);
    let conv2 = ConvLayer { branches, conv: &|branch| &block(branch).conv2, relu: true };
    let a2 = conv2.run(|branch| &a1[branch], NO_RESIDUAL, pass);
    pass.workspace.give(a1);
    let y = if block(0).downsample.is_some() {
        run_sum(branches, &block, &a2, &x, pass)
    } else {
        let conv3 = ConvLayer { branches, conv: &|branch| &block(branch).conv3, relu: true };
        conv3.run(|branch| &a2[branch], Some(&x), pass)
    };
    pass.workspace.give(a2);
    y
}

/// The last convolution of a block and its downsample as one, of every branch.
fn run_sum<'f, 'x>(
    branches: usize,
    block: &dyn Fn(usize) -> &'f FoldedBlock,
    a2: &[Activation],
    x: &impl Fn(usize) -> &'x Activation,
    pass: &mut Pass<'_>,
) -> Vec<Activation> {
    let (last, skip) = (&block(0).conv3, block(0).downsample.as_ref().expect("has a downsample"));
    let size = |a: &Activation| (a.height(), a.width());
    let n = a2[0].n();
    let plan = pass.plans.get(last.conv, size(&a2[0]), n);
    let other = pass.plans.get(skip.conv, size(x(0)), n);
    let mut y = pass.workspace.take_many(branches, last.conv.cout(), plan.output(), n);
    let macs = branches as u64 * (plan.macs() + other.macs());
    pass.plans.time(&last.name, macs, |_| {
        plan.forward_sum(
            &other,
            y.iter_mut().enumerate().map(|(branch, y)| {
                let (weights, bias) = block(branch).sum();
                let mut job = RowsJob::new(a2[branch].data(), weights, y.data_mut());
                job.skip = Some(x(branch).data());
                job.bias = Some(bias);
                job.relu = true;
                job
            }),
        );
    });
    pass.show(&last.name, &y);
    y
}

const NO_RESIDUAL: Option<fn(usize) -> &'static Activation> = None;

/// The same convolution of every branch.
struct ConvLayer<'a> {
    branches: usize,
    conv: &'a dyn Fn(usize) -> &'a FoldedConv,
    relu: bool,
}

impl ConvLayer<'_> {
    fn run<'x, 'r>(
        &self,
        x: impl Fn(usize) -> &'x Activation,
        residual: Option<impl Fn(usize) -> &'r Activation>,
        pass: &mut Pass<'_>,
    ) -> Vec<Activation> {
        let (size, n) = ((x(0).height(), x(0).width()), x(0).n());
        self.run_on(size, n, |branch| x(branch).data(), residual, pass)
    }

    fn run_on<'x, 'r>(
        &self,
        size: (usize, usize),
        n: usize,
        x: impl Fn(usize) -> &'x [f32],
        residual: Option<impl Fn(usize) -> &'r Activation>,
        pass: &mut Pass<'_>,
    ) -> Vec<Activation> {
        let first = (self.conv)(0);
        let plan = pass.plans.get(first.conv, size, n);
        let mut y = pass.workspace.take_many(self.branches, first.conv.cout(), plan.output(), n);
        let macs = self.branches as u64 * plan.macs();
        pass.plans.time(&first.name, macs, |_| {
            plan.forward(y.iter_mut().enumerate().map(|(branch, y)| {
                let conv = (self.conv)(branch);
                let mut job = RowsJob::new(x(branch), conv.weights_for(&plan), y.data_mut());
                job.bias = Some(&conv.bias);
                job.residual = residual.as_ref().map(|r| r(branch).data());
                job.relu = self.relu;
                job
            }));
        });
        pass.show(&first.name, &y);
        y
    }
}

fn halves(values: &[f32]) -> (&[f32], &[f32]) {
    values.split_at(values.len() / 2)
}

fn copy(values: &[f32]) -> Buffer {
    let mut b = Buffer::zeros(values.len());
    b.copy_from_slice(values);
    b
}
