//! Batch norms of all learners, plane by plane.

use crate::layout::ConvBn;
use crate::learner::Learner;
use crate::tape::Member;
use rrr_kernels::{
    Bf16Activation, Bf16BnBackward, Bf16BnForward, Bf16Norm, Bf16NormGrad, Bf16Skip, Compute,
    bf16_bn_backward, bf16_bn_forward,
};

/// Channels of a plane.
const WIDTH: usize = 32;

/// A learner's planes; all of them have those of the only group if there is but one.
pub(super) fn group(a: &Bf16Activation, learner: usize) -> &[u16] {
    let len = a.group_len();
    let group = if a.groups() == 1 { 0 } else { learner };
    &a.data()[group * len..][..len]
}

/// Two vectors of channels that lie one behind the other, in parts of the channels of a plane.
fn halves(values: &[f32]) -> impl Iterator<Item = (&[f32], &[f32])> {
    let (first, second) = values.split_at(values.len() / 2);
    first.chunks(WIDTH).zip(second.chunks(WIDTH))
}

/// Two vectors of channels that lie one behind the other, in parts of the channels of a plane.
fn halves_mut(values: &mut [f32]) -> impl Iterator<Item = (&mut [f32], &mut [f32])> {
    let (first, second) = values.split_at_mut(values.len() / 2);
    first.chunks_mut(WIDTH).zip(second.chunks_mut(WIDTH))
}

/// What is added to a batch norm's result.
pub(super) enum Skip<'a> {
    None,
    /// An activation.
    Plain(&'a Bf16Activation),
    /// The batch norm of another convolution's output.
    Norm(&'a ConvBn, &'a Bf16Activation),
}

/// `y = relu(norm(x) + skip)` of every member; `y` takes the shape of `x`.
pub(super) fn forward(
    members: &mut [impl AsMut<Member>],
    (layer, x): (&ConvBn, &Bf16Activation),
    skip: &Skip<'_>,
    y: &mut Bf16Activation,
    momentum: f32,
    compute: &Compute,
) {
    y.reshape(x.groups(), x.channels(), x.size(), x.n());
    let (rows, plane, group_len) = (x.rows(), x.plane_len(), x.group_len());
    let skip_stats = if let Skip::Norm(layer, _) = skip { layer.stats.clone() } else { 0..0 };
    let groups = members.iter_mut().zip(y.data_mut().chunks_exact_mut(group_len)).enumerate();
    let jobs = groups.flat_map(|(learner, (member, y))| {
        let Member { params, running, batch_stats, .. } = member.as_mut();
        let params: &[f32] = params;
        let places = [layer.stats.clone(), skip_stats.clone()];
        let running = running.get_disjoint_mut(places.clone()).expect("as laid out");
        let batch_stats = batch_stats.get_disjoint_mut(places).expect("as laid out");
        let [(running, batch), (skip_running, skip_batch)] = {
            let [[a, b], [c, d]] = [running, batch_stats];
            [(a, c), (b, d)]
        };
        let norms = |layer: &ConvBn, x, batch, running| {
            let affine = halves(&params[layer.affine.clone()]);
            let planes = group(x, learner).chunks_exact(plane).zip(affine);
            let statistics = halves_mut(batch).zip(halves_mut(running));
            planes.zip(statistics).map(
                |((x, (gamma, beta)), ((mean, inv_std), (running_mean, running_var)))| Bf16Norm {
                    x,
                    gamma,
                    beta,
                    mean,
                    inv_std,
                    running_mean,
                    running_var,
                },
            )
        };
        let main = norms(layer, x, batch, running);
        let (mut plain, mut other) = match skip {
            Skip::None => (None, None),
            Skip::Plain(a) => (Some(group(a, learner).chunks_exact(plane)), None),
            Skip::Norm(layer, x) => (None, Some(norms(layer, x, skip_batch, skip_running))),
        };
        main.zip(y.chunks_exact_mut(plane)).map(move |(norm, y)| {
            let skip = match (&mut plain, &mut other) {
                (Some(planes), _) => Bf16Skip::Plane(planes.next().expect("as many planes")),
                (_, Some(norms)) => Bf16Skip::Norm(norms.next().expect("as many planes")),
                _ => Bf16Skip::None,
            };
            Bf16BnForward { rows, norm, skip, y }
        })
    });
    compute.pool().for_each(jobs, |_, job| bf16_bn_forward(compute.isa(), momentum, job));
}

/// A batch norm on the way back: what it read, and where the gradient of that goes.
pub(super) struct Back<'a> {
    pub layer: &'a ConvBn,
    pub x: &'a Bf16Activation,
    /// `None`: in place of the output's gradient.
    pub dx: Option<&'a mut Bf16Activation>,
}

/// Back through `y = relu(norm(x) + skip)` of every learner (`y` of `None` if nothing was added); `dy` becomes the gradient
/// before ReLU or that of `x`.
pub(super) fn backward(
    learners: &mut [Learner],
    y: Option<&Bf16Activation>,
    dy: &mut Bf16Activation,
    norm: Back<'_>,
    skip: Option<Back<'_>>,
    compute: &Compute,
) {
    let Back { layer, x, mut dx } = norm;
    let (rows, plane, group_len) = (x.rows(), x.plane_len(), x.group_len());
    let mut skip = skip.map(|Back { layer, x, dx }| (layer, x, dx));
    for dx in dx.iter_mut().chain(skip.iter_mut().filter_map(|(_, _, dx)| dx.as_mut())) {
        dx.reshape(x.groups(), x.channels(), x.size(), x.n());
    }
    let mut dx = dx.map(|dx| dx.data_mut().chunks_exact_mut(group_len));
    let mut skip = skip.map(|(layer, x, dx)| {
        let dx = dx.expect("the skip path has a gradient of its own");
        (layer, x, dx.data_mut().chunks_exact_mut(group_len))
    });
    let skip_stats = skip.as_ref().map_or(0..0, |(layer, ..)| layer.stats.clone());
    let groups = learners.iter_mut().zip(dy.data_mut().chunks_exact_mut(group_len)).enumerate();
    let jobs = groups.flat_map(|(index, (learner, dy))| {
        let Learner { member, gradients, .. } = learner;
        let Member { params, batch_stats, .. } = member;
        let (params, batch_stats): (&[f32], &[f32]) = (params, batch_stats);
        let places = [layer.stats.clone(), skip_stats.clone()];
        let [own_gradients, skip_gradients] = gradients.get_disjoint_mut(places).expect("as laid out");
        let norms = |layer: &ConvBn, x, gradients| {
            let statistics = halves(&batch_stats[layer.stats.clone()]);
            let parameters = halves(&params[layer.affine.clone()]).zip(statistics);
            group(x, index).chunks_exact(plane).zip(parameters).zip(halves_mut(gradients))
        };
        let main = norms(layer, x, own_gradients);
        let mut main_dx = dx.as_mut().map(|dx| dx.next().expect("one per learner").chunks_exact_mut(plane));
        let mut other = skip.as_mut().map(|(layer, x, dx)| {
            let dx = dx.next().expect("one per learner").chunks_exact_mut(plane);
            norms(layer, x, skip_gradients).zip(dx)
        });
        let mut y = y.map(|y| group(y, index).chunks_exact(plane));
        main.zip(dy.chunks_exact_mut(plane)).map(move |(main, dy)| {
            let y = y.as_mut().map(|y| y.next().expect("as many planes"));
            let dx = main_dx.as_mut().map(|dx| dx.next().expect("as many planes"));
            let skip = other.as_mut().map(|other| {
                let (skip, dx) = other.next().expect("as many planes");
                of_plane(skip, Some(dx))
            });
            Bf16BnBackward { rows, y, dy, norm: of_plane(main, dx), skip }
        })
    });
    compute.pool().for_each(jobs, |_, job| bf16_bn_backward(compute.isa(), job));
}

/// Input plane; scale and shift, mean and inverse deviation of its channels.
type Plane<'a> = (&'a [u16], ((&'a [f32], &'a [f32]), (&'a [f32], &'a [f32])));

/// Gradients of the scale and the shift.
type Gradients<'a> = (&'a mut [f32], &'a mut [f32]);

fn of_plane<'a>(
    ((x, ((gamma, beta), (mean, inv_std))), (dgamma, dbeta)): (Plane<'a>, Gradients<'a>),
    dx: Option<&'a mut [u16]>,
) -> Bf16NormGrad<'a> {
    Bf16NormGrad { x, gamma, beta, mean, inv_std, dgamma, dbeta, dx }
}
