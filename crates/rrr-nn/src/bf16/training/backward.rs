//! The backward pass.

use super::norms::{self, Back};
use super::sequence::{Pass, Sequence, Unit, UnitPlans};
use crate::backward::Learner;
use crate::profile::timed;
use rrr_kernels::{
    Activation, Bf16Activation, Compute, bf16_avg_pool_backward, bf16_max_pool_backward, bf16_mean_of_groups,
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

    /// From the gradient of the output, in `arena`, to those of all parameters; and, if asked for, to that of the input
    /// features, which takes its place.
    pub fn backward(
        &mut self,
        learners: &mut [Learner],
        needs_input: bool,
        arena: &mut Arena,
        pass: &mut Pass<'_>,
    ) {
        let plans = self.plans(pass.batch);
        for i in (0..self.blocks.len()).rev() {
            let needs_dx = i > 0 || self.image.is_some() || needs_input;
            let first = self.unit_of(i);
            let units = [0, 1, 2].map(|k| (&self.units[first + k], &plans[first + k]));
            self.block(i, units, learners, needs_dx, arena, pass);
        }
        if let Some(tape) = &self.image {
            let (images, compute) = (pass.input.images(), pass.compute);
            let layer = &self.units[0].layers[0];
            let Arena { out, conv1, .. } = arena;
            timed(
                pass.profile,
                || "maxpool.backward".into(),
                0,
                || {
                    bf16_max_pool_backward(&tape.act, out, conv1, compute);
                },
            );
            let norm = Back { layer, x: &tape.conv, dx: None };
            back_norm(learners, None, conv1, norm, None, pass);
            weights((&self.units[0], &plans[0]), 0, learners, images, conv1, pass);
        }
    }

    /// One bottleneck: from the gradient of its output to that of its input, if asked for.
    fn block(
        &self,
        i: usize,
        units: [(&Unit, &UnitPlans); 3],
        learners: &mut [Learner],
        needs_dx: bool,
        arena: &mut Arena,
        pass: &mut Pass<'_>,
    ) {
        let (tape, x) = (&self.blocks[i], self.input_of(i, pass.input));
        let [first, second, third] = units;
        let Arena { out, conv3, downsample, conv2, conv1, input: dx } = arena;
        let skip = first.0.layers.get(1);

        let back = skip.map(|layer| Back { layer, x: &tape.downsample, dx: Some(&mut *downsample) });
        let norm = Back { layer: &third.0.layers[0], x: &tape.conv3, dx: Some(&mut *conv3) };
        back_norm(learners, Some(&tape.out), out, norm, back, pass);
        if skip.is_some() {
            weights(first, 1, learners, x.data(), downsample, pass);
        }
        weights(third, 0, learners, tape.act2.data(), conv3, pass);
        inputs(third, &[conv3.data()], None, conv2, pass);

        let norm = Back { layer: &second.0.layers[0], x: &tape.conv2, dx: None };
        back_norm(learners, None, conv2, norm, None, pass);
        weights(second, 0, learners, tape.act1.data(), conv2, pass);
        inputs(second, &[conv2.data()], None, conv1, pass);

        let norm = Back { layer: &first.0.layers[0], x: &tape.conv1, dx: None };
        back_norm(learners, None, conv1, norm, None, pass);
        weights(first, 0, learners, x.data(), conv1, pass);
        if needs_dx {
            match skip {
                Some(_) => inputs(first, &[conv1.data(), downsample.data()], None, dx, pass),
                None => inputs(first, &[conv1.data()], Some(out.data()), dx, pass),
            }
            std::mem::swap(out, dx);
        }
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

/// Gradients of the weights of one of a unit's convolutions.
fn weights(
    (unit, plans): (&Unit, &UnitPlans),
    i: usize,
    learners: &mut [Learner],
    x: &[u16],
    dy: &Bf16Activation,
    pass: &mut Pass<'_>,
) {
    let (layer, plan, compute) = (&unit.layers[i], &plans.weights[i], pass.compute);
    timed(
        pass.profile,
        || format!("{}.weights", layer.name),
        plan.macs(),
        || {
            let dw = learners.iter_mut().map(|l| &mut l.gradients[layer.weight.clone()]);
            plan.run(x, dy.data(), dw, compute);
        },
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
