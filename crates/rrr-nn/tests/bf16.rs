//! Computing in bf16, against PyTorch with the same values rounded (`golden/make_bf16.py`), and against f32.

mod common;

use common::*;
use rrr_nn::{
    Compute, Isa, Lesson, NetSpec, NetState, Network, Pool, Precision, SequenceSpec, Trainable, Trainer,
    TrainerOptions,
};
use std::sync::Arc;

/// PyTorch computes the sums in float64; some f32 values lie so near the middle of two bf16 that they are rounded the
/// other way here.
const ROUNDED: f32 = 2e-3;

fn compute(precision: Precision, threads: usize) -> Compute {
    Compute::new(Arc::new(Pool::new(threads))).with_precision(precision)
}

/// An RRR-Net of half the usual widths.
fn realistic_spec() -> NetSpec {
    NetSpec {
        coarse: 1,
        stem: SequenceSpec {
            conv1: Some(32),
            blocks: vec![block("layer1.0", 32, 32, 1, true), block("layer2.0", 128, 64, 2, true)],
            classes: None,
        },
        branches: 2,
        branch: SequenceSpec {
            conv1: None,
            blocks: vec![block("layer3.0", 256, 39, 2, true), block("layer4.0", 156, 85, 2, true)],
            classes: Some(20),
        },
    }
}

#[test]
fn forward_is_pytorchs() {
    let (golden, inputs) = (Golden::load("bf16"), Golden::load("split"));
    let state = split_state(&inputs);
    let mut network = Network::new(&split_spec(), &state, compute(Precision::Bf16, 2)).unwrap();
    let logits = network.forward(&inputs.images("images0").f32());
    assert_close("logits", &logits.data, &golden.values("logits"), ROUNDED);
}

#[test]
fn losses_and_gradients_are_pytorchs() {
    let (golden, inputs) = (Golden::load("bf16"), Golden::load("split"));
    let (state, options) = (split_state(&inputs), TrainerOptions::default());
    let mut trainer = Trainer::new(&split_spec(), &state, &options, compute(Precision::Bf16, 2)).unwrap();
    let loss = &trainer.step(&inputs.images("images0").f32(), &inputs.labels("labels0"), 1e-3).loss;
    assert_close("losses", loss, &golden.values("losses"), ROUNDED);
    for (i, m) in trainer.save().m.iter().enumerate() {
        // m = (1 - beta1) * gradient
        let error = gradients_error(&scaled(m, 10.0), &golden.state(&format!("grad{i}")));
        assert!(error < 10.0 * ROUNDED, "gradients of branch {i}: {error}");
    }
}

#[test]
fn logits_are_within_a_hundredth_of_f32() {
    let mut rng = Rng(7);
    let (spec, batch) = (realistic_spec(), rng.batch(6, 64, 64));
    let state = rng.net_state(&spec);
    let run = |precision| Network::new(&spec, &state, compute(precision, 2)).unwrap().forward(&batch.u8());
    assert_close("logits", &run(Precision::Bf16).data, &run(Precision::F32).data, 1e-2);
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let mut rng = Rng(11);
    let (spec, batch) = (realistic_spec(), rng.batch(3, 48, 64));
    let state = rng.net_state(&spec);
    let pool = Arc::new(Pool::new(2));
    let run = |isa| {
        let compute = Compute::with_isa(pool.clone(), isa).expect("available");
        let compute = compute.with_precision(Precision::Bf16);
        let mut network = Network::new(&spec, &state, compute.clone()).unwrap();
        let mut trainer = Trainer::new(&spec, &state, &TrainerOptions::default(), compute).unwrap();
        trainer.warm_stem(&batch.u8());
        // The classifier, which is f32, has other bits on other instruction sets.
        let warmed = trainer.state();
        (network.forward(&batch.u8()), network.features(&batch.f32()), warmed)
    };
    let portable = run(Isa::Portable);
    // One has bits of its own: products pair by pair.
    for isa in Isa::available().filter(|isa| *isa != Isa::Avx512Bf16) {
        assert!(run(isa) == portable, "{isa}");
    }
}

/// A batch runs in parts, its stem in smaller ones.
#[test]
fn an_image_has_the_same_bits_alone_and_in_a_batch() {
    let mut rng = Rng(10);
    let (spec, batch) = (realistic_spec(), rng.batch(18, 128, 112));
    let mut network =
        Network::new(&spec, &rng.net_state(&spec), compute(Precision::Bf16, 2)).expect("made to fit");
    let all = network.forward(&batch.u8());
    for image in [0, 5, 15, 16, 17] {
        let alone = network.forward(&batch.u8().slice(image, 1));
        for branch in 0..spec.branches {
            assert_eq!(all.row(branch, image), alone.row(branch, 0), "image {image}, branch {branch}");
        }
    }
}

#[test]
fn training_follows_f32() {
    let mut rng = Rng(8);
    let (spec, batch) = (realistic_spec(), rng.batch(8, 32, 32));
    let state = rng.net_state(&spec);
    let labels: Vec<u32> = (0..8).map(|i| i % 4).collect();
    let run = |precision| {
        let options = TrainerOptions::default();
        let mut trainer = Trainer::new(&spec, &state, &options, compute(precision, 2)).unwrap();
        (0..6).flat_map(|_| trainer.step(&batch.u8(), &labels, 1e-3).loss.clone()).collect::<Vec<f32>>()
    };
    let (f32, bf16) = (run(Precision::F32), run(Precision::Bf16));
    assert!(f32[10] < 0.5 * f32[0], "it learns: {f32:?}");
    assert_close_on_scale("losses", &bf16, &f32, 0.1 * f32[0]);
}

/// `conv1`, max pooling, a block without a downsample, and several learners on the same images.
#[test]
fn a_whole_network_has_the_gradients_of_pytorch() {
    let (golden, inputs) = (Golden::load("bf16"), Golden::load("whole"));
    let spec = NetSpec { branches: 2, ..whole_spec() };
    let state = NetState { branches: vec![inputs.state("before"); 2], ..Default::default() };
    let options = TrainerOptions::default();
    let mut trainer = Trainer::new(&spec, &state, &options, compute(Precision::Bf16, 2)).unwrap();
    let loss = &trainer.step(&inputs.images("images").f32(), &inputs.labels("labels"), 1e-3).loss;
    let want = golden.values("whole_loss")[0];
    assert_close("losses", loss, &[want, want], ROUNDED);
    for m in &trainer.save().m {
        let error = gradients_error(&scaled(m, 10.0), &golden.state("whole_grad"));
        assert!(error < 10.0 * ROUNDED, "gradients: {error}");
    }
}

/// As in f32: a step of each branch on the same batch is a step of all.
#[test]
fn one_branch_at_a_time_is_all_at_once() {
    let mut rng = Rng(12);
    let (spec, batch) = (realistic_spec(), rng.batch(6, 48, 40));
    let (state, labels) = (rng.net_state(&spec), [0, 1, 2, 3, 4, 5]);
    for trainable in [Trainable::All, Trainable::Classifier] {
        let options = TrainerOptions { trainable, ..Default::default() };
        let trainer = || Trainer::new(&spec, &state, &options, compute(Precision::Bf16, 2)).unwrap();
        let (mut together, mut apart) = (trainer(), trainer());
        for _ in 0..2 {
            let all = together.step(&batch.f32(), &labels, 1e-3).loss.clone();
            let one = |branch| apart.step_branch(branch, &batch.f32(), &labels, 1e-3).loss[0];
            assert_eq!([0, 1].map(one)[..], all);
        }
        assert!(together.save() == apart.save(), "{trainable:?}");
    }
}

#[test]
fn a_resumed_trainer_goes_on_bit_for_bit() {
    let mut rng = Rng(13);
    let (spec, batch) = (realistic_spec(), rng.batch(5, 40, 48));
    let (state, labels) = (rng.net_state(&spec), [0, 1, 2, 3, 4]);
    let options = TrainerOptions::default();
    let mut trainer = Trainer::new(&spec, &state, &options, compute(Precision::Bf16, 2)).unwrap();
    trainer.warm_stem(&batch.f32());
    trainer.step(&batch.f32(), &labels, 1e-3);
    trainer.start_ema(0.5);
    trainer.step(&batch.f32(), &labels, 1e-3);
    let saved = trainer.save();
    let mut resumed = Trainer::resume(&spec, &saved, &options, compute(Precision::Bf16, 2)).unwrap();
    // A batch of another size in between leaves nothing behind.
    let smaller = rng.batch(3, 48, 40);
    for trainer in [&mut trainer, &mut resumed] {
        trainer.step_branch(1, &smaller.f32(), &labels[..3], 1e-3);
        trainer.step(&batch.f32(), &labels, 1e-3);
    }
    assert!(trainer.save() == resumed.save());
    assert!(trainer.save() != saved);
}

#[test]
fn warming_is_that_of_f32() {
    let mut rng = Rng(14);
    let (spec, batch) = (realistic_spec(), rng.batch(6, 48, 40));
    let state = rng.net_state(&spec);
    let [f32, bf16] = [Precision::F32, Precision::Bf16].map(|precision| {
        let mut trainer = Trainer::new(&spec, &state, &Default::default(), compute(precision, 2)).unwrap();
        trainer.warm_stem(&batch.f32());
        trainer.state()
    });
    assert_eq!(bf16.branches, state.branches);
    assert_state_close("stem", &bf16.stem, &f32.stem, 1e-2);
}

/// Distillation of features, and of a teacher's word, are those of f32.
#[test]
fn other_losses_are_those_of_f32() {
    let mut rng = Rng(15);
    let (spec, batch) = (realistic_spec(), rng.batch(8, 64, 64));
    let (state, labels) = (rng.net_state(&spec), [0, 1, 2, 3, 4, 5, 6, 7]);
    let values: Vec<f32> = (0..8 * 20).map(|_| rng.uniform(-1.0, 1.0)).collect();
    let probabilities = vec![0.05; 8 * 20];
    let lesson = Lesson { probabilities: &probabilities, temperature: 2.0, share: 0.5 };
    let [f32, bf16] = [Precision::F32, Precision::Bf16].map(|precision| {
        let mut trainer = Trainer::new(&spec, &state, &Default::default(), compute(precision, 2)).unwrap();
        let towards = trainer.step_towards(&batch.u8(), &values, 0.1, 1e-3).loss.clone();
        let taught = trainer.step_taught(&batch.u8(), &labels, lesson, 1e-3).loss.clone();
        [towards, taught].concat()
    });
    assert_close("losses", &bf16, &f32, 3e-2);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut rng = Rng(9);
    let (spec, batch) = (realistic_spec(), rng.batch(5, 40, 33));
    let state = rng.net_state(&spec);
    let run = |threads| {
        let compute = compute(Precision::Bf16, threads);
        let logits = Network::new(&spec, &state, compute.clone()).unwrap().forward(&batch.u8());
        let mut trainer = Trainer::new(&spec, &state, &TrainerOptions::default(), compute).unwrap();
        trainer.step(&batch.u8(), &[0, 1, 2, 3, 4], 1e-3);
        (logits, trainer.save())
    };
    let one = run(1);
    for threads in [2, 4] {
        assert!(run(threads) == one, "{threads} threads");
    }
}
