//! The optimiser's pass over the parameters, which refreshes their copies in bf16.

use super::sequence::{Copies, Sequence, Unit};
use crate::layout::ConvBn;
use crate::optimiser::Update;
use rrr_kernels::{Bf16Conv, Compute};
use std::ops::Range;

/// Update of a learner's unit, with the copies of its weights.
struct UnitUpdate<'a> {
    layers: &'a [ConvBn],
    update: Update<'a>,
    forward: [Option<Copy<'a>>; 2],
    gradient: Option<Copy<'a>>,
}

/// Weights in bf16 of one learner.
type Copy<'a> = (&'a Bf16Conv, &'a mut [u32]);

fn next<'a>(copies: &mut Option<Copies<'a>>) -> Option<Copy<'a>> {
    copies.as_mut().and_then(Iterator::next)
}

impl UnitUpdate<'_> {
    fn run(self, compute: &Compute) {
        let isa = compute.isa();
        let Self { layers, mut update, forward, mut gradient } = self;
        for (part, (layer, copy)) in layers.iter().zip(forward).enumerate() {
            let (conv, packed) = copy.expect("one per layer");
            let mut own = update.split_off(layer.weight.len() + layer.affine.len());
            let (weights, len) = (layer.weight.len(), layer.conv.pair_len());
            // Updated weights are rounded while they are in the cache.
            for (pair, start) in (0..weights).step_by(len).enumerate() {
                let at = start..(start + len).min(weights);
                own.run(at.clone(), compute);
                conv.pack_pair(isa, 0, pair, &own.params[at.clone()], packed);
                if let Some((conv, packed)) = &mut gradient {
                    conv.pack_pair(isa, part, pair, &own.params[at], packed);
                }
            }
            own.run(weights..own.params.len(), compute);
        }
    }
}

impl Sequence {
    /// Updates the parameters of the learners that took part, `which` of all.
    pub fn update<'a>(
        &mut self,
        which: &Range<usize>,
        updates: impl IntoIterator<Item = Update<'a>>,
        compute: &Compute,
    ) {
        let pool = compute.pool();
        pool.with_slice(updates, |updates| {
            assert_eq!(updates.len(), which.len(), "one for each learner");
            let units = self.units.iter_mut().flat_map(|Unit { layers, forward, gradient }| {
                let mut forward = forward.iter_mut().map(|packed| packed.each(which));
                let mut forward = [forward.next(), forward.next()];
                let mut gradient = gradient.as_mut().map(|packed| packed.each(which));
                let layers: &[ConvBn] = layers;
                which.clone().map(move |_| (layers, forward.each_mut().map(next), next(&mut gradient)))
            });
            let mut learner = (0..which.len()).cycle();
            let jobs = units.map(|(layers, forward, gradient)| {
                let len = layers.iter().map(|layer| layer.weight.len() + layer.affine.len()).sum();
                let update = updates[learner.next().expect("endless")].split_off(len);
                UnitUpdate { layers, update, forward, gradient }
            });
            pool.for_each(jobs, |_, unit| unit.run(compute));
            // What is left is the classifier's.
            pool.for_each(updates.iter_mut(), |_, update| update.run(0..update.params.len(), compute));
        });
    }
}
