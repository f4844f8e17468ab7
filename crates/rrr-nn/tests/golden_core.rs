//! The compute core, through its public API, against PyTorch.
//!
//! Golden values are computed in float64. PyTorch's own float32 run differs from them by up to 7e-6 of a tensor's
//! largest value (`make.py` prints it), so `EXACT` is 1e-5 and `GRADIENT` leaves room for another order of sums.

mod common;

use common::*;
use rrr_nn::{Compute, Network, Pool, State, Trainable, Trainer, TrainerOptions, TrainerState};
use std::sync::Arc;

/// Outputs, losses, statistics, parameters; relative to a tensor's largest value.
const EXACT: f32 = 1e-5;
/// Gradients and first moments: batch norm's backward pass cancels.
const GRADIENT: f32 = 2e-5;
/// Second moments: twice the relative error of a gradient.
const SECOND_MOMENT: f32 = 4e-5;

fn compute() -> Compute {
    Compute::new(Arc::new(Pool::new(2)))
}

/// Gradients of a trainer's first step, from its first moments `m = (1 - beta1) * gradient`.
fn first_gradients(m: &State) -> State {
    scaled(m, 10.0)
}

#[test]
fn split_network_forward() {
    let golden = Golden::load("split");
    let mut network = Network::new(&split_spec(), &split_state(&golden), compute()).unwrap();
    let batch = golden.images("images0");
    let logits = network.forward(&batch.f32());
    assert_eq!((logits.branches, logits.n, logits.classes), (3, 5, 6));
    assert_close("logits", &logits.data, &golden.values("logits"), EXACT);
    assert_close("logits of bytes", &network.forward(&batch.u8()).data, &golden.values("logits"), EXACT);
}

#[test]
fn stem_warming() {
    let golden = Golden::load("split");
    let before = split_state(&golden);
    let mut trainer = Trainer::new(&split_spec(), &before, &TrainerOptions::default(), compute()).unwrap();
    for i in 0..2 {
        trainer.warm_stem(&golden.images(&format!("images{i}")).f32());
    }
    let after = trainer.state();
    assert_state_close("warmed", &after.stem, &golden.state("warmed"), EXACT);
    assert_eq!(after.branches, before.branches, "warming leaves the branches alone");

    // What is warmed is what the next step uses.
    let (batch, labels) = (golden.images("images2"), golden.labels("labels2"));
    let mut fresh = Trainer::new(&split_spec(), &after, &TrainerOptions::default(), compute()).unwrap();
    assert_eq!(trainer.step(&batch.f32(), &labels, 1e-3), fresh.step(&batch.f32(), &labels, 1e-3));
    assert_eq!(trainer.save(), fresh.save());
}

#[test]
fn split_network_training() {
    let golden = Golden::load("split");
    let options = TrainerOptions::default();
    let mut trainer = Trainer::new(&split_spec(), &split_state(&golden), &options, compute()).unwrap();
    trainer.start_ema(59.0 / 60.0);
    for (step, losses) in golden.values("losses").chunks_exact(3).enumerate() {
        let batch = golden.images(&format!("images{step}"));
        let out = trainer.step(&batch.f32(), &golden.labels(&format!("labels{step}")), 1e-3);
        assert_close(&format!("losses of step {step}"), &out.loss, losses, EXACT);
        if step == 0 {
            for (i, m) in trainer.save().m.iter().enumerate() {
                let want = golden.state(&format!("grad{i}"));
                assert_state_close(&format!("gradient of branch {i}"), &first_gradients(m), &want, GRADIENT);
            }
        }
    }
    let (saved, evaluated) = (trainer.save(), trainer.eval_state());
    let ema = saved.ema.as_ref().expect("started");
    for (i, ema) in ema.iter().enumerate() {
        let state = |key: &str| golden.state(&format!("{key}{i}"));
        // Includes the running statistics.
        assert_state_close("after", &saved.net.branches[i], &state("after"), EXACT);
        assert_state_close("m", &saved.m[i], &state("m"), GRADIENT);
        assert_state_close("v", &saved.v[i], &state("v"), SECOND_MOMENT);
        assert_state_close("ema", ema, &state("ema"), EXACT);
        for (name, tensor) in &evaluated.branches[i] {
            let want = ema.get(name).unwrap_or_else(|| &saved.net.branches[i][name]);
            assert_eq!(tensor, want, "eval_state: {name}");
        }
    }
    assert_eq!(saved.net.stem, golden.state("stem"), "the stem is frozen");
    assert_eq!(trainer.state(), saved.net);
    assert_eq!((saved.steps, saved.ema_updates), (vec![3; 3], vec![3; 3]));
}

#[test]
fn a_resumed_trainer_goes_on_bit_for_bit() {
    let golden = Golden::load("split");
    let options = TrainerOptions::default();
    let batches: Vec<_> = (0..3).map(|i| golden.images(&format!("images{i}"))).collect();
    let labels: Vec<_> = (0..3).map(|i| golden.labels(&format!("labels{i}"))).collect();
    let mut trainer = Trainer::new(&split_spec(), &split_state(&golden), &options, compute()).unwrap();
    trainer.step(&batches[0].f32(), &labels[0], 1e-3);
    trainer.start_ema(0.5);
    trainer.step(&batches[1].f32(), &labels[1], 1e-3);
    let mut resumed = Trainer::resume(&split_spec(), &trainer.save(), &options, compute()).unwrap();
    for trainer in [&mut trainer, &mut resumed] {
        trainer.step(&batches[2].f32(), &labels[2], 1e-3);
    }
    assert_eq!(trainer.save(), resumed.save());

    let (average, decay) = (trainer.save(), trainer.save());
    for half in [TrainerState { ema_decay: None, ..average }, TrainerState { ema: None, ..decay }] {
        let error = Trainer::resume(&split_spec(), &half, &options, compute()).err().unwrap();
        assert!(error.to_string().contains("a moving average and its decay"), "{error}");
    }
}

#[test]
fn one_branch_at_a_time_is_all_at_once() {
    let golden = Golden::load("split");
    let options = TrainerOptions::default();
    let (batch, labels) = (golden.images("images0"), golden.labels("labels0"));
    let mut together = Trainer::new(&split_spec(), &split_state(&golden), &options, compute()).unwrap();
    let mut apart = Trainer::new(&split_spec(), &split_state(&golden), &options, compute()).unwrap();
    let out = together.step(&batch.f32(), &labels, 1e-3);
    for i in 0..3 {
        let one = apart.step_branch(i, &batch.f32(), &labels, 1e-3);
        assert_close("loss", &one.loss, &out.loss[i..=i], EXACT);
        assert_eq!(one.correct, out.correct[i..=i]);
    }
    let (together, apart) = (together.save(), apart.save());
    for i in 0..3 {
        assert_state_close("m", &apart.m[i], &together.m[i], GRADIENT);
        assert_state_close("after", &apart.net.branches[i], &together.net.branches[i], EXACT);
    }
}

#[test]
fn whole_network() {
    let golden = Golden::load("whole");
    let (batch, labels) = (golden.images("images"), golden.labels("labels"));
    let before = whole_state(&golden);
    let mut network = Network::new(&whole_spec(), &before, compute()).unwrap();
    assert_close("logits", &network.forward(&batch.f32()).data, &golden.values("logits"), EXACT);

    for (name, trainable) in [("finetune", Trainable::All), ("probe", Trainable::Classifier)] {
        let options = TrainerOptions { trainable, ..Default::default() };
        let mut trainer = Trainer::new(&whole_spec(), &before, &options, compute()).unwrap();
        let out = trainer.step(&batch.f32(), &labels, 1e-3);
        assert_close(name, &out.loss, &golden.values(&format!("{name}.loss")), EXACT);
        let saved = trainer.save();
        let gradients = golden.state(&format!("{name}.grad"));
        assert!(saved.m[0].keys().eq(gradients.keys()), "{name}: moments of the trained tensors only");
        assert_state_close(name, &first_gradients(&saved.m[0]), &gradients, GRADIENT);
        let after = golden.state(&format!("{name}.after"));
        assert_state_close(name, &saved.net.branches[0], &after, EXACT);
        for (tensor, value) in before.branches[0].iter().filter(|(k, _)| !after.contains_key(*k)) {
            assert_eq!(&saved.net.branches[0][tensor], value, "{name} leaves {tensor} as it was");
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let golden = Golden::load("split");
    let (spec, state, options) = (split_spec(), split_state(&golden), TrainerOptions::default());
    let (batch, labels) = (golden.images("images0"), golden.labels("labels0"));
    let run = |threads| {
        let compute = Compute::new(Arc::new(Pool::new(threads)));
        let logits = Network::new(&spec, &state, compute.clone()).unwrap().forward(&batch.f32());
        let mut trainer = Trainer::new(&spec, &state, &options, compute).unwrap();
        let out = trainer.step(&batch.f32(), &labels, 1e-3).clone();
        (logits, out, trainer.save())
    };
    let one = run(1);
    for threads in [2, 3] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}
