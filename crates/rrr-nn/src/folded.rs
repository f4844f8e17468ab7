//! Sequences in inference form: each batch norm folded into the convolution before it.

use crate::input::PaddedImages;
use crate::layout::{ConvBn, Layout};
use crate::plans::{Plans, Workspace};
use rrr_kernels::{
    Activation, BLOCK, BN_EPS, Buffer, Compute, Conv, RowsJob, avg_pool, max_pool, max_pool_size,
};

/// What a sequence reads.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    Images(&'a PaddedImages),
    Features(&'a Activation),
}

impl Input<'_> {
    /// The features, for a sequence that does not begin with a convolution of images.
    pub fn features(&self) -> &Activation {
        match self {
            Input::Features(a) => a,
            Input::Images(_) => panic!("the sequence begins with a block: it reads features, not images"),
        }
    }

    pub fn images(&self) -> &PaddedImages {
        match self {
            Input::Images(i) => i,
            Input::Features(_) => panic!("the sequence begins with conv1: it reads images, not features"),
        }
    }
}

/// A convolution with bias.
pub(crate) struct FoldedConv {
    conv: Conv,
    weight: Buffer,
    bias: Buffer,
}

impl FoldedConv {
    fn new(c: &ConvBn, params: &[f32], stats: &[f32]) -> Self {
        let mut weight = copy(&params[c.weight.clone()]);
        let (gamma, beta) = halves(&params[c.affine.clone()]);
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
        Self { conv: c.conv, weight, bias }
    }

    fn job<'a>(
        &'a self,
        x: &'a [f32],
        y: &'a mut [f32],
        residual: Option<&'a [f32]>,
        relu: bool,
    ) -> RowsJob<'a> {
        let mut job = RowsJob::new(x, &self.weight, y);
        job.bias = Some(&self.bias);
        job.residual = residual;
        job.relu = relu;
        job
    }
}

struct FoldedBlock {
    conv1: FoldedConv,
    conv2: FoldedConv,
    conv3: FoldedConv,
    downsample: Option<FoldedConv>,
}

/// A sequence in inference form.
pub(crate) struct Folded {
    conv1: Option<FoldedConv>,
    blocks: Vec<FoldedBlock>,
    fc: Option<FoldedConv>,
}

impl Folded {
    pub fn new(layout: &Layout, params: &[f32], stats: &[f32]) -> Self {
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
                })
                .collect(),
            fc: layout.fc.as_ref().map(|fc| FoldedConv {
                conv: fc.conv,
                weight: copy(&params[fc.weight.clone()]),
                bias: copy(&params[fc.bias.clone()]),
            }),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.conv1.is_none() && self.blocks.is_empty()
    }
}

/// Runs sequences of the same architecture on one input, up to their last block; one activation each.
///
/// The activations come from `workspace` and should go back there.
pub(crate) fn run(
    sequences: &[&Folded],
    input: Input<'_>,
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> Vec<Activation> {
    let first = sequences[0];
    let mut x: Option<Vec<Activation>> =
        first.conv1.is_some().then(|| run_image_layers(sequences, input, plans, workspace));
    for i in 0..first.blocks.len() {
        let shared = if x.is_none() { Some(input.features()) } else { None };
        let inputs: Vec<&Activation> = match (&x, shared) {
            (Some(x), _) => x.iter().collect(),
            (None, Some(shared)) => vec![shared; sequences.len()],
            (None, None) => unreachable!("either own or shared inputs"),
        };
        let blocks: Vec<&FoldedBlock> = sequences.iter().map(|s| &s.blocks[i]).collect();
        let y = run_block(&blocks, &inputs, plans, workspace);
        workspace.give(x.replace(y).into_iter().flatten());
    }
    x.expect("a sequence has layers")
}

/// Pools and classifies what [`run`] put out: features and logits, one row per image.
pub(crate) fn run_head(
    sequences: &[&Folded],
    x: &[Activation],
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> (Vec<Activation>, Vec<Activation>) {
    let n = x[0].n();
    let mut features = workspace.take_many(x.len(), x[0].channels(), (1, 1), n);
    pool_features(plans.compute(), x, &mut features);
    let fc: Vec<&FoldedConv> = sequences.iter().map(|s| s.fc.as_ref().expect("has a classifier")).collect();
    let inputs: Vec<&Activation> = features.iter().collect();
    let logits = conv_layer(&fc, &inputs, None, false, plans, workspace);
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

/// 3x3/2 max pooling.
pub(crate) fn max_pool_all(compute: &Compute, x: &[Activation], pooled: &mut [Activation]) {
    let planes = x.iter().zip(pooled).flat_map(|(x, p)| {
        let size = (x.height(), x.width(), x.n());
        x.planes().zip(p.planes_mut()).map(move |(x, p)| (size, x, p))
    });
    compute.pool().for_each(planes, |_, (size, x, p)| max_pool(compute.isa(), size, x, p));
}

fn run_image_layers(
    sequences: &[&Folded],
    input: Input<'_>,
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> Vec<Activation> {
    let images = input.images();
    let convs: Vec<&FoldedConv> =
        sequences.iter().map(|s| s.conv1.as_ref().expect("same architecture")).collect();
    let plan = plans.get(convs[0].conv, images.size, images.n);
    let channels = convs[0].conv.cout();
    let mut y = workspace.take_many(convs.len(), channels, plan.output(), images.n);
    let mut jobs: Vec<_> =
        convs.iter().zip(&mut y).map(|(c, y)| c.job(images.data(), y.data_mut(), None, true)).collect();
    plan.forward(&mut jobs);
    let (h, w) = plan.output();
    let size = (max_pool_size(h), max_pool_size(w));
    let mut pooled = workspace.take_many(convs.len(), channels, size, images.n);
    max_pool_all(plans.compute(), &y, &mut pooled);
    workspace.give(y);
    pooled
}

fn run_block(
    blocks: &[&FoldedBlock],
    x: &[&Activation],
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> Vec<Activation> {
    let layer =
        |f: fn(&FoldedBlock) -> &FoldedConv| -> Vec<&FoldedConv> { blocks.iter().map(|b| f(b)).collect() };
    let a1 = conv_layer(&layer(|b| &b.conv1), x, None, true, plans, workspace);
    let a2 = conv_layer(&layer(|b| &b.conv2), &a1.iter().collect::<Vec<_>>(), None, true, plans, workspace);
    workspace.give(a1);
    let skip = blocks[0].downsample.is_some().then(|| {
        let down = layer(|b| b.downsample.as_ref().expect("same architecture"));
        conv_layer(&down, x, None, false, plans, workspace)
    });
    let residual: Vec<&Activation> = skip.as_ref().map_or_else(|| x.to_vec(), |s| s.iter().collect());
    let a2_refs: Vec<&Activation> = a2.iter().collect();
    let y = conv_layer(&layer(|b| &b.conv3), &a2_refs, Some(&residual), true, plans, workspace);
    workspace.give(a2);
    workspace.give(skip.into_iter().flatten());
    y
}

fn conv_layer(
    convs: &[&FoldedConv],
    x: &[&Activation],
    residual: Option<&[&Activation]>,
    relu: bool,
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> Vec<Activation> {
    let n = x[0].n();
    let plan = plans.get(convs[0].conv, (x[0].height(), x[0].width()), n);
    let mut y = workspace.take_many(convs.len(), convs[0].conv.cout(), plan.output(), n);
    let mut jobs: Vec<_> = y
        .iter_mut()
        .enumerate()
        .map(|(i, y)| convs[i].job(x[i].data(), y.data_mut(), residual.map(|r| r[i].data()), relu))
        .collect();
    plan.forward(&mut jobs);
    y
}

fn halves(values: &[f32]) -> (&[f32], &[f32]) {
    values.split_at(values.len() / 2)
}

fn copy(values: &[f32]) -> Buffer {
    let mut b = Buffer::zeros(values.len());
    b.copy_from_slice(values);
    b
}
