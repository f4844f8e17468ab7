//! The backward pass.

use crate::folded::Input;
use crate::layout::{Bottleneck, Classifier, ConvBn, Layout};
use crate::learner::{Learner, Trained};
use crate::plans::{Plans, Workspace};
use crate::tape::{Member, Tape, lane_halves, lane_halves_mut};
use rrr_kernels::{
    Activation, BnBackward, Buffer, Compute, ConvPlan, GradWeight, NormGrad, RowsJob, avg_pool_backward,
    bn_backward, max_pool_backward,
};

/// Gradients of all parameters, from the gradients of the logits, and the optimiser's step with those of the convolutions'
/// weights; and, if asked for, gradients of the input features.
pub(crate) fn backward(
    layout: &Layout,
    trained: &mut Trained<'_>,
    input: Input<'_>,
    dlogits: Vec<Activation>,
    needs_input: bool,
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> Option<Vec<Activation>> {
    let compute = plans.compute().clone();
    let learners = &mut *trained.learners;
    transpose_weights(layout, learners, &compute);
    let fc = layout.fc.as_ref().expect("training needs a classifier");
    let n = dlogits[0].n();
    let dpooled = head(fc, learners, dlogits, true, plans, workspace).expect("asked for");
    let last = learners[0].member.tape.last().expect("a classifier follows layers");
    let mut dy = workspace.take_many(learners.len(), last.channels(), (last.height(), last.width()), n);
    let planes = dpooled.iter().zip(&mut dy).flat_map(|(d, x)| d.planes().zip(x.planes_mut()));
    compute.pool().for_each(planes, |_, (dy, dx)| avg_pool_backward(compute.isa(), n, dy, dx));
    workspace.give(dpooled);
    layers(layout, trained, input, dy, needs_input, plans, workspace)
}

/// [`backward`] of a sequence without a classifier, from the gradients of its output.
pub(crate) fn stem(
    layout: &Layout,
    stem: &mut Trained<'_>,
    input: Input<'_>,
    dy: Vec<Activation>,
    plans: &mut Plans,
    workspace: &mut Workspace,
) {
    let compute = plans.compute().clone();
    transpose_weights(layout, stem.learners, &compute);
    layers(layout, stem, input, dy, false, plans, workspace);
}

/// From the gradients of the last block's output back to the first layer.
fn layers(
    layout: &Layout,
    trained: &mut Trained<'_>,
    input: Input<'_>,
    mut dy: Vec<Activation>,
    needs_input: bool,
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> Option<Vec<Activation>> {
    let compute = plans.compute().clone();
    for (i, block) in layout.blocks.iter().enumerate().rev() {
        let needs_dx = i > 0 || layout.conv1.is_some() || needs_input;
        let dx = bottleneck(i, block, trained, input, dy, needs_dx, plans, workspace, &compute);
        dy = dx.unwrap_or_default();
    }
    match &layout.conv1 {
        Some(conv1) => {
            image_layers(conv1, trained, input, dy, plans, workspace, &compute);
            None
        }
        None => needs_input.then_some(dy),
    }
}

/// Gradients of the classifier; and, if asked for, of the pooled features.
pub(crate) fn head(
    fc: &Classifier,
    learners: &mut [Learner],
    dlogits: Vec<Activation>,
    needs_dx: bool,
    plans: &mut Plans,
    workspace: &mut Workspace,
) -> Option<Vec<Activation>> {
    let n = dlogits[0].n();
    let plan = plans.get(fc.conv, (1, 1), n);
    plan.grad_weight(learners.iter_mut().zip(&dlogits).map(|(learner, dy)| {
        // `gradients` may begin at the classifier.
        let base = learner.member.params.len() - learner.gradients.len();
        let bias = &mut learner.gradients[fc.bias.start - base..fc.bias.end - base];
        for (bias, plane) in bias.chunks_exact_mut(rrr_kernels::BLOCK).zip(dy.planes()) {
            bias.fill(0.0);
            for row in plane.chunks_exact(rrr_kernels::BLOCK) {
                for (b, g) in bias.iter_mut().zip(row) {
                    *b += g;
                }
            }
        }
        let dw = &mut learner.gradients[fc.weight.start - base..fc.weight.end - base];
        GradWeight::new(learner.member.tape.features.data(), dy.data(), dw)
    }));
    let dpooled =
        needs_dx.then(|| {
            // `transposed` may begin at the classifier.
            let own = |transposed: &Buffer| transposed.len() - fc.transposed.len()..transposed.len();
            plans.compute().pool().for_each(learners.iter_mut(), |_, Learner { member, transposed, .. }| {
                let at = own(transposed);
                fc.conv.transpose(&member.params[fc.weight.clone()], &mut transposed[at]);
            });
            let features = learners[0].member.tape.features.channels();
            let mut dpooled = workspace.take_many(learners.len(), features, (1, 1), n);
            let jobs = learners.iter().zip(&dlogits).zip(&mut dpooled);
            plan.grad_input(jobs.map(|((l, dy), dx)| {
                RowsJob::new(dy.data(), &l.transposed[own(&l.transposed)], dx.data_mut())
            }));
            dpooled
        });
    workspace.give(dlogits);
    dpooled
}

/// One bottleneck: takes the gradient of its output, gives that of its input if asked for.
#[allow(clippy::too_many_arguments)]
fn bottleneck(
    i: usize,
    block: &Bottleneck,
    trained: &mut Trained<'_>,
    input: Input<'_>,
    mut dy: Vec<Activation>,
    needs_dx: bool,
    plans: &mut Plans,
    workspace: &mut Workspace,
    compute: &Compute,
) -> Option<Vec<Activation>> {
    let learners = &trained.learners;
    let (count, n) = (learners.len(), dy[0].n());
    let like = |a: &Activation| (a.channels(), (a.height(), a.width()));
    let (x_channels, x_size) = like(learners[0].member.tape.input_of(i).unwrap_or_else(|| input.features()));
    let (mid1, mid2) = {
        let t = &learners[0].member.tape.blocks[i];
        (like(&t.act1), like(&t.act2))
    };
    let (out_channels, out_size) = like(&dy[0]);

    // Through the last ReLU and batch norm 3; with a downsample through its batch norm as well, and then nothing else needs
    // the gradient of the sum.
    let other = workspace.take_many(count, out_channels, out_size, n);
    let (mut own, mut dskip) =
        if block.downsample.is_some() { (None, Some(other)) } else { (Some(other), None) };
    let skip = block.downsample.as_ref().zip(dskip.as_mut());
    batch_norm(compute, trained.learners, &block.conv3, &mut dy, own.as_mut(), skip, |tape| {
        let t = &tape.blocks[i];
        Picked { x: &t.conv3, y: Some(&t.out), skip: &t.downsample }
    });
    let d3 = own.as_ref().unwrap_or(&dy);
    if let Some((downsample, dskip)) = block.downsample.as_ref().zip(dskip.as_ref()) {
        weights(plans, trained, downsample, dskip, input, |tape| tape.input_of(i));
    }

    weights(plans, trained, &block.conv3, d3, input, |tape| Some(&tape.blocks[i].act2));
    let mut d2 = workspace.take_many(count, mid2.0, mid2.1, n);
    inputs(plans, trained.learners, &block.conv3, mid2.1, d3, &mut d2, Onto::Nothing);
    own.into_iter().for_each(|d| workspace.give(d));
    batch_norm(compute, trained.learners, &block.conv2, &mut d2, None, None, |tape| {
        Picked::alone(&tape.blocks[i].conv2)
    });

    weights(plans, trained, &block.conv2, &d2, input, |tape| Some(&tape.blocks[i].act1));
    let mut d1 = workspace.take_many(count, mid1.0, mid1.1, n);
    inputs(plans, trained.learners, &block.conv2, mid1.1, &d2, &mut d1, Onto::Nothing);
    workspace.give(d2);
    batch_norm(compute, trained.learners, &block.conv1, &mut d1, None, None, |tape| {
        Picked::alone(&tape.blocks[i].conv1)
    });

    weights(plans, trained, &block.conv1, &d1, input, |tape| tape.input_of(i));
    let dx = needs_dx.then(|| {
        let mut dx = workspace.take_many(count, x_channels, x_size, n);
        match (&block.downsample, &dskip) {
            (Some(downsample), Some(dskip)) => {
                inputs(plans, trained.learners, &block.conv1, x_size, &d1, &mut dx, Onto::Nothing);
                inputs(plans, trained.learners, downsample, x_size, dskip, &mut dx, Onto::Output);
            }
            _ => inputs(plans, trained.learners, &block.conv1, x_size, &d1, &mut dx, Onto::Plus(&dy)),
        }
        dx
    });
    [d1, dy].into_iter().chain(dskip).for_each(|d| workspace.give(d));
    dx
}

/// Max pooling, ReLU, `bn1` and `conv1`.
fn image_layers(
    conv1: &ConvBn,
    trained: &mut Trained<'_>,
    input: Input<'_>,
    dy: Vec<Activation>,
    plans: &mut Plans,
    workspace: &mut Workspace,
    compute: &Compute,
) {
    fn tape(t: &Tape) -> &crate::tape::ImageTape {
        t.image.as_ref().expect("has conv1")
    }
    let images = input.images();
    let learners = &trained.learners;
    let act = &tape(&learners[0].member.tape).act;
    let (channels, size) = (act.channels(), (act.height(), act.width()));
    let mut d = workspace.take_many(learners.len(), channels, size, images.n);
    let planes =
        learners.iter().zip(&dy).zip(&mut d).flat_map(|((l, dy), dx)| {
            tape(&l.member.tape).act.planes().zip(dy.planes()).zip(dx.planes_mut())
        });
    compute.pool().for_each(planes, |_, ((x, dy), dx)| {
        max_pool_backward(compute.isa(), (size.0, size.1, images.n), x, dy, dx);
    });
    batch_norm(compute, trained.learners, conv1, &mut d, None, None, |t| Picked::alone(&tape(t).conv));
    weights_of(conv1, &plans.get(conv1.conv, images.size, images.n), trained, &d, |_| images.data);
    workspace.give(d);
    workspace.give(dy);
}

/// Repacks the weights of all convolutions for the input gradients.
fn transpose_weights(layout: &Layout, learners: &mut [Learner], compute: &Compute) {
    let jobs = learners.iter_mut().flat_map(|Learner { member, transposed, .. }| {
        let (params, mut rest): (&[f32], &mut [f32]) = (&member.params, transposed);
        // An image has none.
        layout.convs().filter(|layer| !layer.transposed.is_empty()).map(move |layer| {
            // Places follow one another in the order of `convs`.
            let to = rest.split_off_mut(..layer.transposed.len()).expect("as laid out");
            (layer.conv, &params[layer.weight.clone()], to)
        })
    });
    compute.pool().for_each(jobs, |_, (conv, from, to)| conv.transpose(from, to));
}

/// What a batch norm has on the tape.
struct Picked<'t> {
    /// Its input.
    x: &'t Activation,
    /// The sum with the skip path, behind ReLU, if there is one.
    y: Option<&'t Activation>,
    /// Input of the batch norm on the skip path, if there is one.
    skip: &'t Activation,
}

impl<'t> Picked<'t> {
    /// No skip path.
    fn alone(x: &'t Activation) -> Self {
        Self { x, y: None, skip: x }
    }
}

/// Backward through ReLU, one batch norm and, with `skip`, that of the downsample and its gradient. `dy` becomes the
/// gradient before ReLU and `dx` that of the input; without `dx`, `dy` becomes that.
fn batch_norm(
    compute: &Compute,
    learners: &mut [Learner],
    layer: &ConvBn,
    dy: &mut [Activation],
    mut dx: Option<&mut Vec<Activation>>,
    skip: Option<(&ConvBn, &mut Vec<Activation>)>,
    pick: impl for<'t> Fn(&'t Tape) -> Picked<'t>,
) {
    let (skip_layer, mut dskip) = skip.unzip();
    let mut dx = dx.as_mut().map(|dx| dx.iter_mut());
    let mut dskip = dskip.as_mut().map(|dskip| dskip.iter_mut());
    let skip_stats = skip_layer.map_or(0..0, |layer| layer.stats.clone());
    let jobs = learners.iter_mut().zip(dy).flat_map(|(learner, dy)| {
        let Learner { member, gradients, .. } = learner;
        let places = [layer.stats.clone(), skip_stats.clone()];
        let [own, other] = gradients.get_disjoint_mut(places).expect("as laid out");
        let Picked { x, y, skip } = pick(&member.tape);
        let mut norms = norms(member, layer, x, own);
        let mut y = y.map(Activation::planes);
        let mut dx = dx.as_mut().map(|dx| dx.next().expect("one per learner").planes_mut());
        let mut skip = skip_layer.zip(dskip.as_mut()).map(|(layer, dskip)| {
            let dskip = dskip.next().expect("one per learner").planes_mut();
            self::norms(member, layer, skip, other).zip(dskip)
        });
        dy.planes_mut().map(move |dy| BnBackward {
            y: y.as_mut().map(|y| y.next().expect("as many planes")),
            dy,
            norm: norms.next().expect("as many planes"),
            dx: dx.as_mut().map(|dx| dx.next().expect("as many planes")),
            skip: skip.as_mut().map(|skip| skip.next().expect("as many planes")),
        })
    });
    compute.pool().for_each(jobs, |_, job| bn_backward(compute.isa(), job));
}

/// The batch norms of the planes of `x`, with their gradients.
fn norms<'a>(
    member: &'a Member,
    layer: &ConvBn,
    x: &'a Activation,
    gradients: &'a mut [f32],
) -> impl Iterator<Item = NormGrad<'a>> {
    let (gamma, beta) = lane_halves(&member.params[layer.affine.clone()]);
    let (mean, inv_std) = lane_halves(&member.batch_stats[layer.stats.clone()]);
    let (dgamma, dbeta) = lane_halves_mut(gradients);
    let statistics = mean.iter().zip(inv_std);
    x.planes().zip(gamma.iter().zip(beta)).zip(statistics).zip(dgamma.iter_mut().zip(dbeta)).map(
        |(((x, (gamma, beta)), (mean, inv_std)), (dgamma, dbeta))| NormGrad {
            x,
            gamma,
            beta,
            mean,
            inv_std,
            dgamma,
            dbeta,
        },
    )
}

/// Weight gradients of one convolution, and the step with them; `pick` chooses its input on the tape (`None`: the sequence's).
fn weights(
    plans: &mut Plans,
    trained: &mut Trained<'_>,
    layer: &ConvBn,
    dy: &[Activation],
    input: Input<'_>,
    pick: impl for<'t> Fn(&'t Tape) -> Option<&'t Activation>,
) {
    let x = pick(&trained.learners[0].member.tape).unwrap_or_else(|| input.features());
    let plan = plans.get(layer.conv, (x.height(), x.width()), x.n());
    weights_of(layer, &plan, trained, dy, |tape| pick(tape).unwrap_or_else(|| input.features()).data());
}

fn weights_of<'x>(
    layer: &ConvBn,
    plan: &ConvPlan,
    trained: &'x mut Trained<'_>,
    dy: &'x [Activation],
    pick: impl Fn(&'x Tape) -> &'x [f32],
) {
    let learners = trained.learners.iter_mut().zip(trained.optimisers.iter_mut()).zip(dy);
    plan.grad_weight(learners.map(|((learner, optimiser), dy)| {
        let Member { params, tape, .. } = &mut learner.member;
        GradWeight::updating(pick(tape), dy.data(), optimiser.of(params, layer.weight.clone()))
    }));
}

/// What an input gradient is added to.
enum Onto<'a> {
    Nothing,
    Output,
    Plus(&'a [Activation]),
}

/// Input gradients of one convolution.
fn inputs(
    plans: &mut Plans,
    learners: &[Learner],
    layer: &ConvBn,
    x_size: (usize, usize),
    dy: &[Activation],
    dx: &mut [Activation],
    onto: Onto<'_>,
) {
    let plan = plans.get(layer.conv, x_size, dy[0].n());
    plan.grad_input(dx.iter_mut().enumerate().map(|(i, dx)| {
        let weights = &learners[i].transposed[layer.transposed.clone()];
        let mut job = RowsJob::new(dy[i].data(), weights, dx.data_mut());
        match onto {
            Onto::Nothing => {}
            Onto::Output => job.accumulate = true,
            Onto::Plus(planes) => job.residual = Some(planes[i].data()),
        }
        job
    }));
}
