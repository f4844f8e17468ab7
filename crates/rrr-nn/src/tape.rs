//! The forward pass in train mode: batch statistics, and everything kept that the backward pass needs.

use crate::folded::Input;
use crate::layout::{Bottleneck, Classifier, ConvBn, Layout};
use crate::plans::Plans;
use rrr_kernels::{
    Activation, BLOCK, BnForward, Buffer, Compute, Norm, RowsJob, Skip, avg_pool, bn_forward, max_pool,
    max_pool_size,
};

/// One sequence in training: weights, statistics, and the tape of the last forward pass.
pub(crate) struct Member {
    /// Packed trainable tensors ([`Layout`]).
    pub params: Buffer,
    /// Running statistics.
    pub running: Buffer,
    /// Mean and inverse deviation of the last batch, laid out like `running`.
    pub batch_stats: Buffer,
    pub tape: Tape,
}

/// Activations of the last forward pass.
#[derive(Default)]
pub(crate) struct Tape {
    pub image: Option<ImageTape>,
    pub blocks: Vec<BlockTape>,
    /// Pooled features.
    pub features: Activation,
    pub logits: Activation,
}

/// Of `conv1`, `bn1`, ReLU and max pooling.
#[derive(Default)]
pub(crate) struct ImageTape {
    pub conv: Activation,
    pub act: Activation,
    pub pooled: Activation,
}

/// Of a bottleneck: the convolutions' outputs before batch norm, and the activations behind it.
#[derive(Default)]
pub(crate) struct BlockTape {
    pub conv1: Activation,
    pub act1: Activation,
    pub conv2: Activation,
    pub act2: Activation,
    pub conv3: Activation,
    pub downsample: Activation,
    pub out: Activation,
}

impl Member {
    pub fn new(layout: &Layout, params: Buffer, running: Buffer) -> Self {
        let tape = Tape {
            image: layout.conv1.is_some().then(ImageTape::default),
            blocks: layout.blocks.iter().map(|_| BlockTape::default()).collect(),
            ..Tape::default()
        };
        Self { params, running, batch_stats: Buffer::zeros(layout.stats), tape }
    }
}

impl AsMut<Member> for Member {
    fn as_mut(&mut self) -> &mut Member {
        self
    }
}

impl Tape {
    /// Input of block `i`: the activation before it, or `None` if that is the input of the whole sequence.
    pub fn input_of(&self, i: usize) -> Option<&Activation> {
        if i > 0 { Some(&self.blocks[i - 1].out) } else { self.image.as_ref().map(|t| &t.pooled) }
    }

    /// Block `i` with its input, as [`Tape::input_of`].
    fn block_and_input(&mut self, i: usize) -> (Option<&Activation>, &mut BlockTape) {
        let (before, at) = self.blocks.split_at_mut(i);
        let x = before.last().map(|b| &b.out).or(self.image.as_ref().map(|t| &t.pooled));
        (x, &mut at[0])
    }

    /// Output of the last layer before pooling.
    pub fn last(&self) -> Option<&Activation> {
        self.input_of(self.blocks.len())
    }
}

/// Runs all members on one input, up to the logits if there is a classifier. Updates running statistics
/// with `momentum`.
pub(crate) fn forward(
    layout: &Layout,
    members: &mut [impl AsMut<Member>],
    input: Input<'_>,
    momentum: f32,
    plans: &mut Plans,
) {
    let compute = plans.compute().clone();
    if let Some(conv1) = &layout.conv1 {
        forward_image(conv1, members, input, momentum, plans, &compute);
    }
    for (i, block) in layout.blocks.iter().enumerate() {
        forward_block(i, block, members, input, momentum, plans, &compute);
    }
    if let Some(fc) = &layout.fc {
        pool_last(members, &compute);
        classify(fc, members, plans);
    }
}

fn forward_image(
    conv1: &ConvBn,
    members: &mut [impl AsMut<Member>],
    input: Input<'_>,
    momentum: f32,
    plans: &mut Plans,
    compute: &Compute,
) {
    let images = input.images();
    let plan = plans.get(conv1.conv, images.size, images.n);
    let (channels, size) = (conv1.conv.cout(), plan.output());
    plan.forward(members.iter_mut().map(|member| {
        let Member { params, tape, .. } = member.as_mut();
        let tape = tape.image.as_mut().expect("has conv1");
        fit(&mut tape.conv, channels, size, images.n);
        RowsJob::new(images.data, &params[conv1.weight.clone()], tape.conv.data_mut())
    }));
    batch_norm(compute, members, momentum, conv1, None, input, |tape| {
        let tape = tape.image.as_mut().expect("has conv1");
        (&tape.conv, &mut tape.act, SkipPath::None)
    });
    let pooled_size = (max_pool_size(size.0), max_pool_size(size.1));
    for member in members.iter_mut() {
        let tape = member.as_mut().tape.image.as_mut().expect("has conv1");
        fit(&mut tape.pooled, channels, pooled_size, images.n);
        max_pool(compute, &tape.act, &mut tape.pooled);
    }
}

fn forward_block(
    i: usize,
    block: &Bottleneck,
    members: &mut [impl AsMut<Member>],
    input: Input<'_>,
    momentum: f32,
    plans: &mut Plans,
    compute: &Compute,
) {
    convolve(plans, members, &block.conv1, input, |tape| {
        let (x, t) = tape.block_and_input(i);
        (x, &mut t.conv1)
    });
    batch_norm(compute, members, momentum, &block.conv1, None, input, |tape| {
        let t = &mut tape.blocks[i];
        (&t.conv1, &mut t.act1, SkipPath::None)
    });
    convolve(plans, members, &block.conv2, input, |tape| {
        let t = &mut tape.blocks[i];
        (Some(&t.act1), &mut t.conv2)
    });
    batch_norm(compute, members, momentum, &block.conv2, None, input, |tape| {
        let t = &mut tape.blocks[i];
        (&t.conv2, &mut t.act2, SkipPath::None)
    });
    convolve(plans, members, &block.conv3, input, |tape| {
        let t = &mut tape.blocks[i];
        (Some(&t.act2), &mut t.conv3)
    });
    if let Some(downsample) = &block.downsample {
        convolve(plans, members, downsample, input, |tape| {
            let (x, t) = tape.block_and_input(i);
            (x, &mut t.downsample)
        });
    }
    let projection = block.downsample.as_ref();
    batch_norm(compute, members, momentum, &block.conv3, projection, input, |tape| {
        let (x, t) = tape.block_and_input(i);
        let skip =
            if projection.is_some() { SkipPath::Projection(&t.downsample) } else { SkipPath::Input(x) };
        (&t.conv3, &mut t.out, skip)
    });
}

/// Mean over the pixels of what the last block puts out.
fn pool_last(members: &mut [impl AsMut<Member>], compute: &Compute) {
    for member in members.iter_mut() {
        let tape = &mut member.as_mut().tape;
        let x = tape.blocks.last().map(|b| &b.out).expect("a classifier follows blocks");
        fit(&mut tape.features, x.channels(), (1, 1), x.n());
        avg_pool(compute, [(x, &mut tape.features)]);
    }
}

/// Logits of the pooled features.
pub(crate) fn classify(fc: &Classifier, members: &mut [impl AsMut<Member>], plans: &mut Plans) {
    let n = members[0].as_mut().tape.features.n();
    let plan = plans.get(fc.conv, (1, 1), n);
    plan.forward(members.iter_mut().map(|member| {
        let Member { params, tape, .. } = member.as_mut();
        fit(&mut tape.logits, fc.conv.cout(), (1, 1), n);
        let weights = &params[fc.weight.clone()];
        let mut job = RowsJob::new(tape.features.data(), weights, tape.logits.data_mut());
        job.bias = Some(&params[fc.bias.clone()]);
        job
    }));
}

/// Makes `a` an activation of the given shape; memory is kept if only the batch size differs.
pub(crate) fn fit(a: &mut Activation, channels: usize, (height, width): (usize, usize), n: usize) {
    if (a.channels(), a.height(), a.width()) == (channels, height, width) {
        a.set_batch(n);
    } else {
        *a = Activation::zeros(channels, height, width, n);
    }
}

/// One convolution of every member; `pick` chooses input (`None`: the sequence's) and output on the tape.
fn convolve(
    plans: &mut Plans,
    members: &mut [impl AsMut<Member>],
    layer: &ConvBn,
    input: Input<'_>,
    pick: impl for<'t> Fn(&'t mut Tape) -> (Option<&'t Activation>, &'t mut Activation),
) {
    let x = pick(&mut members[0].as_mut().tape).0.unwrap_or_else(|| input.features());
    let n = x.n();
    let plan = plans.get(layer.conv, (x.height(), x.width()), n);
    plan.forward_training(members.iter_mut().map(|member| {
        let Member { params, tape, .. } = member.as_mut();
        let (x, y) = pick(tape);
        fit(y, layer.conv.cout(), plan.output(), n);
        let x = x.unwrap_or_else(|| input.features());
        RowsJob::new(x.data(), &params[layer.weight.clone()], y.data_mut())
    }));
}

/// What is added to a batch norm's result.
enum SkipPath<'a> {
    None,
    /// The block's input; that of the sequence if `None`.
    Input(Option<&'a Activation>),
    /// The batch norm of the downsample's output.
    Projection(&'a Activation),
}

/// One batch norm of every member, and that of the downsample if there is one; `pick` chooses input, output and what is
/// added on the tape.
fn batch_norm(
    compute: &Compute,
    members: &mut [impl AsMut<Member>],
    momentum: f32,
    layer: &ConvBn,
    projection: Option<&ConvBn>,
    input: Input<'_>,
    pick: impl for<'t> Fn(&'t mut Tape) -> (&'t Activation, &'t mut Activation, SkipPath<'t>),
) {
    let skip_stats = projection.map_or(0..0, |layer| layer.stats.clone());
    let jobs = members.iter_mut().flat_map(|member| {
        let Member { params, running, batch_stats, tape, .. } = member.as_mut();
        let (x, y, skip) = pick(tape);
        fit(y, x.channels(), (x.height(), x.width()), x.n());
        let places = [layer.stats.clone(), skip_stats.clone()];
        let [running, skip_running] = running.get_disjoint_mut(places.clone()).expect("as laid out");
        let [batch, skip_batch] = batch_stats.get_disjoint_mut(places).expect("as laid out");
        let params: &[f32] = params;
        let mut norms = norms(params, layer, x, batch, running);
        let (mut plain, mut other) = match skip {
            SkipPath::None => (None, None),
            SkipPath::Input(a) => (Some(a.unwrap_or_else(|| input.features()).planes()), None),
            SkipPath::Projection(a) => {
                let layer = projection.expect("a projection has a batch norm");
                (None, Some(self::norms(params, layer, a, skip_batch, skip_running)))
            }
        };
        y.planes_mut().map(move |y| {
            let skip = match (&mut plain, &mut other) {
                (Some(planes), _) => Skip::Plane(planes.next().expect("as many planes")),
                (_, Some(norms)) => Skip::Norm(norms.next().expect("as many planes")),
                _ => Skip::None,
            };
            BnForward { norm: norms.next().expect("as many planes"), skip, y }
        })
    });
    compute.pool().for_each(jobs, |_, job| bn_forward(compute.isa(), momentum, job));
}

/// The batch norms of the planes of `x`.
fn norms<'a>(
    params: &'a [f32],
    layer: &ConvBn,
    x: &'a Activation,
    batch: &'a mut [f32],
    running: &'a mut [f32],
) -> impl Iterator<Item = Norm<'a>> {
    let (gamma, beta) = lane_halves(&params[layer.affine.clone()]);
    let (mean, inv_std) = lane_halves_mut(batch);
    let (running_mean, running_var) = lane_halves_mut(running);
    let statistics = mean.iter_mut().zip(inv_std).zip(running_mean.iter_mut().zip(running_var));
    x.planes().zip(gamma.iter().zip(beta)).zip(statistics).map(
        |((x, (gamma, beta)), ((mean, inv_std), (running_mean, running_var)))| Norm {
            x,
            gamma,
            beta,
            mean,
            inv_std,
            running_mean,
            running_var,
        },
    )
}

/// Two arrays of blocks that lie one behind the other.
pub(crate) fn lane_halves(values: &[f32]) -> (&[[f32; BLOCK]], &[[f32; BLOCK]]) {
    let (lanes, _) = values.as_chunks::<BLOCK>();
    lanes.split_at(lanes.len() / 2)
}

/// Two arrays of blocks that lie one behind the other.
pub(crate) fn lane_halves_mut(values: &mut [f32]) -> (&mut [[f32; BLOCK]], &mut [[f32; BLOCK]]) {
    let (lanes, _) = values.as_chunks_mut::<BLOCK>();
    let half = lanes.len() / 2;
    lanes.split_at_mut(half)
}
