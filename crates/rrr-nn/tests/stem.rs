//! Training the stem: what the trainer does with a stem and branches must be what it does with the same layers as one
//! sequence, which PyTorch's golden files check.

mod common;

use common::{Batch, Rng, assert_close, assert_state_close, block};
use rrr_nn::{
    Compute, NetSpec, NetState, Network, Pool, Precision, SequenceSpec, State, Trainable, Trainer,
    TrainerOptions, reference,
};
use std::sync::Arc;

const LR: f64 = 1e-3;
const LABELS: [u32; 6] = [0, 3, 2, 1, 3, 0];

fn split(branches: usize) -> NetSpec {
    NetSpec {
        coarse: 0,
        stem: SequenceSpec {
            conv1: Some(8),
            blocks: vec![block("layer1.0", 8, 4, 1, true), block("layer1.1", 16, 4, 1, false)],
            classes: None,
        },
        branches,
        branch: SequenceSpec {
            conv1: None,
            blocks: vec![block("layer2.0", 16, 5, 2, true), block("layer2.1", 20, 5, 1, false)],
            classes: Some(4),
        },
    }
}

fn whole() -> NetSpec {
    let NetSpec { stem, branch, .. } = split(1);
    let blocks = [stem.blocks, branch.blocks].concat();
    let branch = SequenceSpec { conv1: stem.conv1, blocks, classes: branch.classes };
    NetSpec { stem: SequenceSpec::default(), branches: 1, branch, coarse: 0 }
}

fn joined(stem: &State, branch: &State) -> State {
    stem.iter().chain(branch).map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
}

fn options(stem_rate: f64) -> TrainerOptions {
    TrainerOptions { stem_rate, ..TrainerOptions::default() }
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

fn compute(precision: Precision, threads: usize) -> Compute {
    Compute::new(Arc::new(Pool::new(threads))).with_precision(precision)
}

fn trainer(spec: &NetSpec, state: &NetState, stem_rate: f64, compute: Compute) -> Trainer {
    Trainer::new(spec, state, &options(stem_rate), compute).unwrap()
}

fn batch(rng: &mut Rng) -> Batch {
    rng.batch(LABELS.len(), 24, 24)
}

#[test]
fn one_branch_and_its_stem_train_as_the_whole() {
    for precision in PRECISIONS {
        let mut rng = Rng(1);
        let start = rng.net_state(&split(1));
        let one = NetState { stem: State::new(), branches: vec![joined(&start.stem, &start.branches[0])] };
        let mut split = trainer(&split(1), &start, 1.0, compute(precision, 2));
        let mut whole = trainer(&whole(), &one, 0.0, compute(precision, 2));
        for step in 0..4 {
            if step == 2 {
                split.start_ema(0.9);
                whole.start_ema(0.9);
            }
            let batch = batch(&mut rng);
            let a = split.step(&batch.f32(), &LABELS, LR).clone();
            let b = whole.step(&batch.f32(), &LABELS, LR);
            assert_eq!(a, *b, "losses of step {step} in {precision}");
        }
        for (split, whole) in [(split.state(), whole.state()), (split.eval_state(), whole.eval_state())] {
            assert_eq!(joined(&split.stem, &split.branches[0]), whole.branches[0]);
        }
    }
}

#[test]
fn the_stem_follows_the_mean_of_the_branches() {
    for precision in PRECISIONS {
        let mut rng = Rng(2);
        let one = rng.net_state(&split(1));
        let three = NetState { stem: one.stem.clone(), branches: vec![one.branches[0].clone(); 3] };
        let batch = batch(&mut rng);
        let moments = [(1, &one), (3, &three)].map(|(branches, state)| {
            let mut trainer = trainer(&split(branches), state, 0.1, compute(precision, 1));
            trainer.step(&batch.f32(), &LABELS, LR);
            trainer.save().stem.unwrap().m
        });
        assert_state_close("gradients of the stem", &moments[1], &moments[0], 1e-5);
    }
}

#[test]
fn the_rate_is_the_stems_share_of_the_learning_rate() {
    for precision in PRECISIONS {
        let mut rng = Rng(3);
        let start = rng.net_state(&split(2));
        let batch = batch(&mut rng);
        let moved = [1.0, 0.1, 0.0].map(|rate| {
            let mut trainer = trainer(&split(2), &start, rate, compute(precision, 1));
            trainer.step(&batch.f32(), &LABELS, LR);
            let (now, was) = (&trainer.state().stem["conv1.weight"].data, &start.stem["conv1.weight"].data);
            now.iter().zip(was).map(|(a, b)| a - b).collect::<Vec<f32>>()
        });
        let tenth: Vec<f32> = moved[0].iter().map(|d| 0.1 * d).collect();
        assert_close("a tenth of the step", &moved[1], &tenth, 1e-2);
        assert!(moved[2].iter().all(|&d| d == 0.0), "a rate of 0 keeps the stem as it is");
    }
}

#[test]
fn a_trained_stem_is_the_same_for_any_threads_and_after_a_pause() {
    for precision in PRECISIONS {
        let mut rng = Rng(4);
        let start = rng.net_state(&split(3));
        let batches: Vec<Batch> = (0..4).map(|_| batch(&mut rng)).collect();
        let run = |threads, pause: bool| {
            let mut running = trainer(&split(3), &start, 0.2, compute(precision, threads));
            running.start_ema(0.9);
            for (i, batch) in batches.iter().enumerate() {
                if pause && i == 2 {
                    let compute = compute(precision, threads);
                    running = Trainer::resume(&split(3), &running.save(), &options(0.2), compute).unwrap();
                }
                running.step(&batch.f32(), &LABELS, LR);
            }
            running.save()
        };
        let plain = run(1, false);
        assert_eq!(plain, run(4, false));
        assert_eq!(plain, run(2, true));
        let refused = |state: &rrr_nn::TrainerState, rate| {
            let resumed = Trainer::resume(&split(3), state, &options(rate), compute(precision, 1));
            resumed.err().unwrap().to_string()
        };
        let error = refused(&plain, 0.0);
        assert!(error.contains("the stem has an optimiser, but is frozen"), "{error}");
        let mut half = plain.clone();
        half.stem.as_mut().unwrap().ema = None;
        let error = refused(&half, 0.2);
        assert!(error.contains("only one of stem and branches has a moving average"), "{error}");
        let without = rrr_nn::TrainerState { stem: None, ..plain };
        let error = refused(&without, 0.2);
        assert!(error.contains("the stem's optimiser is missing"), "{error}");
    }
}

#[test]
fn a_frozen_stem_takes_large_batches_in_parts() {
    let mut rng = Rng(5);
    let start = rng.net_state(&split(2));
    // Three images are as much as runs at a time.
    let batch = rng.batch(5, 144, 120);
    let labels = &LABELS[..5];
    let mut reference = reference::Net::new(&split(2), &start, &options(0.0)).unwrap();
    let (want, _) = reference.step(&batch.f32(), labels, LR);
    let mut trainer = trainer(&split(2), &start, 0.0, compute(Precision::F32, 2));
    for step in 0..2 {
        let got = trainer.step(&batch.f32(), labels, if step == 0 { 0.0 } else { LR });
        assert_close(&format!("losses of step {step}"), &got.loss, &want.loss, 1e-4);
        assert_eq!(got.correct, want.correct);
    }
    let mut network = Network::new(&split(2), &start, Compute::new(Arc::new(Pool::new(2)))).unwrap();
    let all = network.forward(&batch.f32());
    for i in 0..5 {
        let alone = network.forward(&batch.f32().slice(i, 1));
        for branch in 0..2 {
            assert_eq!(alone.data[branch * 4..][..4], all.data[(branch * 5 + i) * 4..][..4], "image {i}");
        }
    }
}

#[test]
fn the_stem_of_classifiers_that_are_trained_alone_stays_frozen() {
    for precision in PRECISIONS {
        let mut rng = Rng(6);
        let start = rng.net_state(&split(2));
        let options = TrainerOptions { trainable: Trainable::Classifier, ..options(1.0) };
        let mut trainer = Trainer::new(&split(2), &start, &options, compute(precision, 2)).unwrap();
        trainer.step(&batch(&mut rng).f32(), &LABELS, LR);
        let after = trainer.state();
        assert_eq!(after.stem, start.stem, "{precision}");
        for (after, before) in after.branches.iter().zip(&start.branches) {
            for (name, tensor) in after.iter().filter(|(name, _)| !name.contains("running")) {
                assert_eq!(*tensor != before[name], name.starts_with("fc."), "{name}, {precision}");
            }
        }
    }
}
