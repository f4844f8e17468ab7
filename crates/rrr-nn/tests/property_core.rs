//! The compute core against the reference, on small networks of shapes that nobody would choose.
//!
//! A ReLU or a max-pool whose input is within rounding of a kink may legitimately go either way, and batch norm
//! over a few nearly equal values amplifies rounding without bound. Cases whose gradients move too much when
//! their weights are moved a little are therefore left out, and the cases are the same on every run.

mod common;

use common::*;
use proptest::prelude::*;
use rrr_nn::reference::{self, optim};
use rrr_nn::{
    BlockSpec, Compute, NetSpec, Network, Pool, SequenceSpec, State, Trainable, Trainer, TrainerOptions,
};
use std::sync::Arc;

/// Error allowed in gradients, and their change under a [`CHANGE`] of weights in a usable case.
const GRADIENT: f32 = 1e-3;

/// Relative change of weights.
const CHANGE: f32 = 3e-6;

/// Changes that a usable case must stand.
const CHANGES: u64 = 2;

/// Channel counts around the vector lengths.
const CHANNELS: [usize; 6] = [2, 5, 8, 16, 17, 33];

/// A network, and the seed and sizes of everything that it is fed with.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    spec: NetSpec,
    batch: usize,
    height: usize,
    width: usize,
    threads: usize,
    smoothing: f32,
    trainable: Trainable,
}

/// A block but for its name and input: index of its width, expansion 4 or (as in wide variants) 2, stride,
/// and whether it has a downsample where it could do without.
type Draft = (usize, bool, usize, bool);

fn build(stage: &str, drafts: &[Draft], cin: &mut usize) -> Vec<BlockSpec> {
    let mut blocks = Vec::new();
    for (i, &(width, wide, stride, downsample)) in drafts.iter().enumerate() {
        let plain = !downsample && cin.is_multiple_of(4);
        let mut spec = block(&format!("{stage}.{i}"), *cin, CHANNELS[width], stride, true);
        if plain {
            spec = block(&format!("{stage}.{i}"), *cin, *cin / 4, 1, false);
        } else if wide {
            spec.cout = 2 * spec.width;
        }
        *cin = spec.cout;
        blocks.push(spec);
    }
    blocks
}

prop_compose! {
    fn case()(
        (seed, split, conv1) in (any::<u64>(), any::<bool>(), 0..CHANNELS.len()),
        stem in drafts(0..=2),
        tail in drafts(1..=3),
        (branches, classes, coarse) in (1..=3usize, 2..=7usize, 0..=3usize),
        (batch, height, width) in (1..=4usize, 16..=40usize, 16..=40usize),
        (threads, smooth, classifier) in (1..=3usize, any::<bool>(), prop::bool::weighted(0.2)),
    ) -> Case {
        let mut channels = CHANNELS[conv1];
        let first = SequenceSpec {
            conv1: Some(channels),
            blocks: build("layer1", &stem, &mut channels),
            classes: None,
        };
        let blocks = build("layer2", &tail, &mut channels);
        let (stem, branch) = if split {
            (first, SequenceSpec { conv1: None, blocks, classes: Some(classes) })
        } else {
            let blocks = first.blocks.into_iter().chain(blocks).collect();
            (SequenceSpec::default(), SequenceSpec { conv1: first.conv1, blocks, classes: Some(classes) })
        };
        Case {
            seed,
            spec: NetSpec { stem, branches, branch, coarse: coarse.min(branches) },
            batch,
            height,
            width,
            threads,
            smoothing: if smooth { 0.1 } else { 0.0 },
            trainable: if classifier { Trainable::Classifier } else { Trainable::All },
        }
    }
}

fn drafts(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<Draft>> {
    prop::collection::vec((0..CHANNELS.len(), any::<bool>(), 1..=2usize, any::<bool>()), count)
}

impl Case {
    fn compute(&self) -> Compute {
        Compute::new(Arc::new(Pool::new(self.threads)))
    }

    fn options(&self) -> TrainerOptions {
        TrainerOptions {
            trainable: self.trainable,
            label_smoothing: self.smoothing,
            ..TrainerOptions::default()
        }
    }

    /// Pixels of the last map.
    fn last_area(&self) -> usize {
        let blocks = self.spec.stem.blocks.iter().chain(&self.spec.branch.blocks);
        let strides: Vec<usize> = [2, 2].into_iter().chain(blocks.map(|b| b.stride)).collect();
        let side = |size: usize| strides.iter().fold(size, |s, stride| s.div_ceil(*stride));
        let divisor = if self.spec.coarse > 0 { 2 } else { 1 };
        side(self.height / divisor) * side(self.width / divisor)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn forward_is_the_reference(case in case()) {
        let mut rng = Rng(case.seed);
        let state = rng.net_state(&case.spec);
        let net = reference::Net::new(&case.spec, &state, &TrainerOptions::default()).unwrap();
        let mut network = Network::new(&case.spec, &state, case.compute()).unwrap();
        // A second batch of another size: buffers are kept between calls.
        for n in [case.batch, case.batch % 3 + 1] {
            let batch = rng.batch(n, case.height, case.width);
            let (got, want) = (network.forward(&batch.f32()), net.forward(&batch.f32()));
            prop_assert_eq!((got.branches, got.n, got.classes), (want.branches, want.n, want.classes));
            assert_close("logits", &got.data, &want.data, 2e-5);
            let alone = network.forward(&batch.f32().slice(n - 1, 1));
            for (alone, all) in alone.data.chunks(got.classes).zip(got.data.chunks(n * got.classes)) {
                prop_assert_eq!(alone, &all[(n - 1) * got.classes..], "an image has its bits alone");
            }
            let (got, want) = (network.features(&batch.u8()), net.features(&batch.u8()));
            prop_assert_eq!((got.branches, got.n, got.classes), (want.branches, want.n, want.classes));
            assert_close("features", &got.data, &want.data, 2e-5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn a_training_step_is_the_reference(case in case()) {
        let lr = 1e-3;
        let mut rng = Rng(case.seed);
        // Batch norm over fewer values amplifies rounding errors without bound.
        let n = case.batch.max(12usize.div_ceil(case.last_area()));
        let before = rng.net_state(&case.spec);
        let batch = rng.batch(n, case.height, case.width);
        let classes = case.spec.branch.classes.unwrap();
        let labels: Vec<u32> = (0..n).map(|_| rng.below(classes) as u32).collect();

        let mut net = reference::Net::new(&case.spec, &before, &case.options()).unwrap();
        let (want_out, mut want_gradients) = net.step(&batch.f32(), &labels, lr);
        // Next to a kink of ReLU or of max pooling, rounding decides: then of two opposite changes one shows it.
        for change in 0..CHANGES {
            for relative in [CHANGE, -CHANGE] {
                let nearby = Rng(case.seed ^ change).nearby(&before, relative);
                let mut nearby = reference::Net::new(&case.spec, &nearby, &case.options()).unwrap();
                let (_, gradients) = nearby.step(&batch.f32(), &labels, lr);
                let mut both = gradients.iter().zip(&want_gradients);
                prop_assume!(both.all(|(near, want)| gradients_error(near, want) <= GRADIENT));
            }
        }
        let mut trainer = Trainer::new(&case.spec, &before, &case.options(), case.compute()).unwrap();
        let out = trainer.step(&batch.f32(), &labels, lr).clone();
        assert_close("loss", &out.loss, &want_out.loss, 1e-4);
        prop_assert_eq!(out.correct, want_out.correct);

        let saved = trainer.save();
        prop_assert_eq!(&saved.net.stem, &before.stem);
        for (i, want_gradients) in want_gradients.iter_mut().enumerate() {
            let what = format!("branch {i}");
            let moments = &saved.m[i];
            want_gradients.retain(|name, _| net.state.m[i].contains_key(name));
            let error = gradients_error(&scaled(moments, 10.0), want_gradients);
            prop_assert!(error <= GRADIENT, "gradients of branch {i} are off by {error}");
            // Parameters follow from the trainer's own gradients, statistics from the batch alone.
            let branch = &saved.net.branches[i];
            for (name, tensor) in branch {
                match moments.get(name) {
                    Some(m) => {
                        let mut want = before.branches[i][name].data.clone();
                        let gradient: Vec<f32> = m.data.iter().map(|m| m * 10.0).collect();
                        let (mut m, mut v) = (vec![0.0; want.len()], vec![0.0; want.len()]);
                        optim::adamw(&case.options().adamw, lr, 1, &mut want, &gradient, &mut m, &mut v);
                        assert_close(&format!("{what}: {name}"), &tensor.data, &want, 1e-5);
                        assert_close(&format!("{what}: v of {name}"), &saved.v[i][name].data, &v, 1e-5);
                    }
                    None => {
                        let want = &net.state.net.branches[i][name].data;
                        assert_close(&format!("{what}: {name}"), &tensor.data, want, 2e-5);
                    }
                }
            }
        }
    }

    #[test]
    fn warming_is_the_reference(case in case()) {
        let mut rng = Rng(case.seed);
        let before = rng.net_state(&case.spec);
        let batch = rng.batch(case.batch + 2, case.height, case.width);
        let mut net = reference::Net::new(&case.spec, &before, &case.options()).unwrap();
        let mut trainer = Trainer::new(&case.spec, &before, &case.options(), case.compute()).unwrap();
        net.warm_stem(&batch.f32());
        trainer.warm_stem(&batch.f32());
        let after = trainer.state();
        prop_assert_eq!(&after.branches, &before.branches);
        assert_state_close("stem", &after.stem, &net.state.net.stem, 2e-5);
        let names = |state: &State| state.keys().cloned().collect::<Vec<_>>();
        prop_assert_eq!(names(&after.stem), names(&before.stem));
    }
}
