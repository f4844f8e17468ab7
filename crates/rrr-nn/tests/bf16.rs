//! Computing in bf16, against PyTorch with the same operands rounded (`golden/make_bf16.py`), and against f32.

mod common;

use common::*;
use rrr_nn::{Compute, Isa, NetSpec, Network, Pool, Precision, SequenceSpec, Trainer, TrainerOptions};
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
        let mut network = Network::new(&spec, &state, compute.with_precision(Precision::Bf16)).unwrap();
        (network.forward(&batch.u8()), network.features(&batch.f32()))
    };
    let portable = run(Isa::Portable);
    for isa in Isa::available() {
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
