//! The forward pass in train mode: batch statistics, and everything kept that the backward pass needs.

use super::norms::{self, Skip};
use super::sequence::{BlockTape, Packed, Pass, Sequence, Unit, UnitPlans};
use crate::layout::ConvBn;
use crate::profile::timed;
use crate::tape::{Member, fit};
use rrr_kernels::{Bf16Activation, Bf16Job, Bf16Plan, Compute, bf16_max_pool, bf16_pool_features};

impl Pass<'_> {
    /// One convolution (or gradient of inputs) of every learner.
    pub fn convolve(
        &mut self,
        name: (&str, &str),
        plan: &Bf16Plan,
        packed: &Packed,
        x: &[&[u16]],
        residual: Option<&[u16]>,
        y: &mut Bf16Activation,
    ) {
        let (groups, channels) = (self.batch.which.len(), packed.conv.cout());
        y.reshape(groups, channels, plan.output(), self.batch.n);
        let (w, bias) = packed.of(&self.batch.which);
        let job = Bf16Job { x, w, bias, residual, relu: false, y: y.data_mut() };
        let name = || format!("{}.{}", name.0, name.1);
        timed(self.profile, name, plan.macs(), || plan.forward(job, self.compute));
    }

    /// One of a unit's convolutions.
    fn forward(
        &mut self,
        (unit, plans): (&Unit, &UnitPlans),
        i: usize,
        x: &Bf16Activation,
        y: &mut Bf16Activation,
    ) {
        let name = (unit.layers[i].name.as_str(), "forward");
        self.convolve(name, &plans.forward[i], &unit.forward[i], &[x.data()], None, y);
    }

    fn norm(
        &mut self,
        members: &mut [impl AsMut<Member>],
        (layer, x): (&ConvBn, &Bf16Activation),
        skip: &Skip<'_>,
        y: &mut Bf16Activation,
        momentum: f32,
    ) {
        timed(
            self.profile,
            || format!("{}.norm", layer.name),
            0,
            || {
                norms::forward(members, (layer, x), skip, y, momentum, self.compute);
            },
        );
    }
}

impl Sequence {
    /// Runs all members that take part on one input, and leaves the activations on the tape. Updates running statistics with
    /// `momentum`.
    pub fn forward(&mut self, members: &mut [impl AsMut<Member>], momentum: f32, pass: &mut Pass<'_>) {
        let plans = self.plans(pass.batch);
        let (input, compute) = (pass.input, pass.compute);
        let Self { units, image, blocks, .. } = self;
        let mut layers = units.iter().zip(plans.iter());
        if let Some(tape) = image {
            let (unit, plan) = layers.next().expect("conv1");
            let images = input.images();
            let layer = &unit.layers[0];
            let name = (layer.name.as_str(), "forward");
            pass.convolve(name, &plan.forward[0], &unit.forward[0], &[images], None, &mut tape.conv);
            pass.norm(members, (layer, &tape.conv), &Skip::None, &mut tape.act, momentum);
            timed(
                pass.profile,
                || "maxpool.forward".into(),
                0,
                || {
                    bf16_max_pool(&tape.act, &mut tape.pooled, compute);
                },
            );
        }
        let mut before = image.as_ref().map(|t| &t.pooled);
        for tape in blocks {
            let [first, second, third] = std::array::from_fn(|_| layers.next().expect("three per block"));
            let x = before.unwrap_or_else(|| input.features());
            let BlockTape { conv1, act1, conv2, act2, conv3, downsample, out } = tape;
            pass.forward(first, 0, x, conv1);
            let mut skip = Skip::Plain(x);
            if let Some(layer) = first.0.layers.get(1) {
                pass.forward(first, 1, x, downsample);
                skip = Skip::Norm(layer, downsample);
            }
            pass.norm(members, (&first.0.layers[0], conv1), &Skip::None, act1, momentum);
            pass.forward(second, 0, act1, conv2);
            pass.norm(members, (&second.0.layers[0], conv2), &Skip::None, act2, momentum);
            pass.forward(third, 0, act2, conv3);
            pass.norm(members, (&third.0.layers[0], conv3), &skip, out, momentum);
            before = Some(out);
        }
    }

    /// Mean over the pixels of the output, to the members' tapes.
    pub fn pool_features(&self, members: &mut [impl AsMut<Member>], compute: &Compute) {
        let x = self.output();
        let features = members.iter_mut().map(|member| {
            let features = &mut member.as_mut().tape.features;
            fit(features, x.channels(), (1, 1), x.n());
            features
        });
        bf16_pool_features(x, features, compute);
    }
}
