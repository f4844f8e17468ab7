//! The backward pass.

use super::norms::{self, Back};
use super::sequence::{BlockTape, Pass, Sequence, Unit, UnitPlans, input_of};
use crate::learner::{Learner, Trained};
use crate::profile::timed;
use rrr_kernels::{
    Activation, Bf16Activation, Bf16Weights, Compute, bf16_avg_pool_backward, bf16_max_pool_backward,
    bf16_mean_of_groups,
};

/// Memory for gradients: of what a block puts out, of its convolutions' outputs, and of its input.
#[derive(Default)]
pub(super) struct Arena {
    out: Bf16Activation,
    conv3: Bf16Activation,
    downsample: Bf16Activation,
    conv2: Bf16Activation,
    conv1: Bf16Activation,
    input: Bf16Activation,
}

impl Arena {
    /// From the gradients of the branches' input to that of the stem's output: their mean.
    pub fn mean_of_groups(&mut self, compute: &Compute) {
        bf16_mean_of_groups(&self.out, &mut self.input, compute);
        std::mem::swap(&mut self.out, &mut self.input);
    }
}

impl Sequence {
    /// From the gradients of the learners' pooled features to that of the output.
    pub fn begin_backward(&self, dpooled: &[Activation], arena: &mut Arena, compute: &Compute) {
        let y = self.output();
        arena.out.reshape(y.groups(), y.channels(), y.size(), y.n());
        bf16_avg_pool_backward(dpooled, &mut arena.out, compute);
    }

    /// From the gradient of the output, in `arena`, to those of all parameters, of which it updates the convolutions' weights;
    /// and, if asked for, to that of the input features, which takes its place.
    pub fn backward(
        &mut self,
        trained: &mut Trained<'_>,
        needs_input: bool,
        arena: &mut Arena,
        pass: &mut Pass<'_>,
    ) {
        let plans = self.plans(pass.batch);
        let Self { units, image, blocks, .. } = self;
        let first = usize::from(image.is_some());
        let (image_units, block_units) = units.split_at_mut(first);
        let plans_of_blocks = plans[first..].as_chunks::<3>().0;
        let units = block_units.as_chunks_mut::<3>().0;
        for (i, (units, plans)) in units.iter_mut().zip(plans_of_blocks).enumerate().rev() {
            let needs_dx = i > 0 || image.is_some() || needs_input;
            let x = input_of(i, image.as_ref(), blocks, pass.input);
            block((&blocks[i], x), (units, plans), trained, needs_dx, arena, pass);
        }
        if let Some(tape) = image {
            let (images, compute) = (pass.input.images(), pass.compute);
            let unit = &mut image_units[0];
            let Arena { out, conv1, .. } = arena;
            timed(
                pass.profile,
                || "maxpool.backward".into(),
                0,
                || {
                    bf16_max_pool_backward(&tape.act, out, conv1, compute);
                },
            );
            let norm = Back { layer: &unit.layers[0], x: &tape.conv, dx: None };
            back_norm(trained.learners, None, conv1, norm, None, pass);
            weights((unit, &plans[0]), 0, trained, images, conv1, pass);
        }
    }
}

/// One bottleneck: from the gradient of its output to that of its input, if asked for. Weights change behind the gradient of
/// their input.
fn block(
    (tape, x): (&BlockTape, &Bf16Activation),
    ([first, second, third], plans): (&mut [Unit; 3], &[UnitPlans; 3]),
    trained: &mut Trained<'_>,
    needs_dx: bool,
    arena: &mut Arena,
    pass: &mut Pass<'_>,
) {
    let Arena { out, conv3, downsample, conv2, conv1, input: dx } = arena;
    let skip = first.layers.get(1);

    let back = skip.map(|layer| Back { layer, x: &tape.downsample, dx: Some(&mut *downsample) });
    let norm = Back { layer: &third.layers[0], x: &tape.conv3, dx: Some(&mut *conv3) };
    back_norm(trained.learners, Some(&tape.out), out, norm, back, pass);
    inputs((third, &plans[2]), &[conv3.data()], None, conv2, pass);
    weights((third, &plans[2]), 0, trained, tape.act2.data(), conv3, pass);

    let norm = Back { layer: &second.layers[0], x: &tape.conv2, dx: None };
    back_norm(trained.learners, None, conv2, norm, None, pass);
    inputs((second, &plans[1]), &[conv2.data()], None, conv1, pass);
    weights((second, &plans[1]), 0, trained, tape.act1.data(), conv2, pass);

    let norm = Back { layer: &first.layers[0], x: &tape.conv1, dx: None };
    back_norm(trained.learners, None, conv1, norm, None, pass);
    let has_skip = skip.is_some();
    if needs_dx {
        if has_skip {
            inputs((first, &plans[0]), &[conv1.data(), downsample.data()], None, dx, pass);
        } else {
            inputs((first, &plans[0]), &[conv1.data()], Some(out.data()), dx, pass);
        }
        std::mem::swap(out, dx);
    }
    weights((first, &plans[0]), 0, trained, x.data(), conv1, pass);
    if has_skip {
        weights((first, &plans[0]), 1, trained, x.data(), downsample, pass);
    }
}

/// Back through a batch norm and the ReLU behind it.
fn back_norm(
    learners: &mut [Learner],
    y: Option<&Bf16Activation>,
    dy: &mut Bf16Activation,
    norm: Back<'_>,
    skip: Option<Back<'_>>,
    pass: &mut Pass<'_>,
) {
    let (layer, compute) = (norm.layer, pass.compute);
    timed(
        pass.profile,
        || format!("{}.norm.backward", layer.name),
        0,
        || {
            norms::backward(learners, y, dy, norm, skip, compute);
        },
    );
}

/// Gradients of the weights of one of a unit's convolutions, and the step of the optimiser with them.
fn weights(
    (unit, plans): (&mut Unit, &UnitPlans),
    i: usize,
    trained: &mut Trained<'_>,
    x: &[u16],
    dy: &Bf16Activation,
    pass: &mut Pass<'_>,
) {
    let Unit { layers, forward, gradient } = unit;
    let (layer, plan, which) = (&layers[i], &plans.weights[i], &pass.batch.which);
    let mut turned = gradient.as_mut().map(|packed| packed.each(which, i));
    let learners = trained.learners.iter_mut().zip(trained.optimisers.iter_mut());
    let weights =
        learners.zip(forward[i].each(which, 0)).map(|((learner, optimiser), forward)| Bf16Weights {
            tensor: optimiser.of(&mut learner.member.params, layer.weight.clone()),
            copies: [Some(forward), turned.as_mut().and_then(Iterator::next)],
        });
    let compute = pass.compute;
    timed(
        pass.profile,
        || format!("{}.weights", layer.name),
        plan.macs(),
        || plan.update(x, dy.data(), weights, compute),
    );
}

/// Gradient of a unit's input, from those of its convolutions' outputs.
fn inputs(
    (unit, plans): (&Unit, &UnitPlans),
    dy: &[&[u16]],
    residual: Option<&[u16]>,
    dx: &mut Bf16Activation,
    pass: &mut Pass<'_>,
) {
    let (Some(packed), Some(plan)) = (&unit.gradient, &plans.gradient) else {
        panic!("these layers are not trained")
    };
    pass.convolve((&unit.layers[0].name, "input"), plan, packed, dy, residual, dx);
}
