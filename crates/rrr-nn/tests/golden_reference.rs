//! The reference implementations against PyTorch.
//!
//! Tolerances are relative to the largest value of a tensor. Golden values are computed in float64, so that
//! what is compared against them is the error of f32 storage alone. Batch-norm gradients amplify it most.

mod common;

use common::*;
use rrr_nn::reference::conv::Conv;
use rrr_nn::reference::{Nchw, Net, classifier, conv, elementwise, norm, optim, pool, sequence};
use rrr_nn::{AdamW, SequenceSpec, Trainable, TrainerOptions};

/// Of a single layer.
const LAYER: f32 = 1e-6;
/// Of a composition of layers.
const NET: f32 = 1e-5;

#[test]
fn convolution() {
    let golden = Golden::load("layers");
    for (name, stride, pad) in [
        ("conv_7x7_s2_p3", 2, 3),
        ("conv_3x3_s1_p1", 1, 1),
        ("conv_3x3_s2_p1", 2, 1),
        ("conv_1x1_s1_p0", 1, 0),
        ("conv_1x1_s2_p0", 2, 0),
        ("conv_5x5_s3_p2", 3, 2),
        ("conv_3x3_s2_p1_point", 2, 1),
    ] {
        let maps = |key: &str| golden.maps(&format!("{name}.{key}"));
        let w = golden.tensor(&format!("{name}.w"));
        let conv = Conv { cout: w.shape[0], cin: w.shape[1], kernel: w.shape[2], stride, pad };
        let (x, dy) = (maps("x"), maps("dy"));
        check(name, "y", &conv::forward(&conv, &x, &w.data), &maps("y"));
        check(name, "dx", &conv::backward_input(&conv, x.h, x.w, &dy, &w.data), &maps("dx"));
        let dw = golden.values(&format!("{name}.dw"));
        assert_close(&format!("{name}.dw"), &conv::backward_weight(&conv, &x, &dy), &dw, LAYER);
    }
}

fn check(layer: &str, key: &str, got: &Nchw, want: &Nchw) {
    assert_eq!(got.shape(), want.shape(), "{layer}.{key}");
    assert_close(&format!("{layer}.{key}"), &got.data, &want.data, LAYER);
}

#[test]
fn batch_norm() {
    let golden = Golden::load("layers");
    for name in ["bn", "bn_point"] {
        let maps = |key: &str| golden.maps(&format!("{name}.{key}"));
        let values = |key: &str| golden.values(&format!("{name}.{key}"));
        let (weight, bias) = (values("before.weight"), values("before.bias"));
        let (mut mean, mut var) = (values("before.running_mean"), values("before.running_var"));
        let x = maps("x");

        let batch = norm::train(&x, &weight, &bias);
        check(name, "y", &batch.y, &maps("y"));
        norm::update_running(&mut mean, &mut var, &batch, 0.1);
        assert_close(name, &mean, &values("after.running_mean"), LAYER);
        assert_close(name, &var, &values("after.running_var"), LAYER);
        check(name, "eval_y", &norm::eval(&x, &weight, &bias, &mean, &var), &maps("eval_y"));

        let grads = norm::backward(&x, &weight, &batch, &maps("dy"));
        check(name, "dx", &grads.dx, &maps("dx"));
        assert_close(name, &grads.dweight, &values("grad.weight"), LAYER);
        assert_close(name, &grads.dbias, &values("grad.bias"), LAYER);
    }
}

#[test]
fn relu() {
    let golden = Golden::load("layers");
    let y = elementwise::relu(&golden.maps("relu.x"));
    assert_eq!(y, golden.maps("relu.y"));
    assert_eq!(elementwise::relu_backward(&y, &golden.maps("relu.dy")), golden.maps("relu.dx"));
}

#[test]
fn pooling() {
    let golden = Golden::load("layers");
    for name in ["max_pool", "max_pool_point"] {
        let maps = |key: &str| golden.maps(&format!("{name}.{key}"));
        let x = maps("x");
        let pooled = pool::max_forward(&x);
        assert_eq!(pooled.y, maps("y"), "{name}");
        check(name, "dx", &pool::max_backward(x.shape(), &pooled.source, &maps("dy")), &maps("dx"));
    }
    let maps = |key: &str| golden.maps(&format!("average_pool.{key}"));
    let x = maps("x");
    check("average_pool", "y", &pool::average_forward(&x), &maps("y"));
    check("average_pool", "dx", &pool::average_backward(x.h, x.w, &maps("dy")), &maps("dx"));
}

#[test]
fn linear() {
    let golden = Golden::load("layers");
    let values = |key: &str| golden.values(&format!("linear.{key}"));
    let (x, w, b) = (values("x"), values("w"), values("b"));
    assert_close("linear.y", &classifier::linear(&x, &w, &b), &values("y"), LAYER);
    let grads = classifier::linear_backward(&x, &w, &values("dy"), b.len());
    assert_close("linear.dx", &grads.dx, &values("dx"), LAYER);
    assert_close("linear.dw", &grads.dweight, &values("dw"), LAYER);
    assert_close("linear.db", &grads.dbias, &values("db"), LAYER);
}

#[test]
fn cross_entropy() {
    let golden = Golden::load("layers");
    let (logits, labels) = (golden.values("cross_entropy.x"), golden.labels("cross_entropy.labels"));
    for (name, smoothing) in [("plain", 0.0), ("smooth", 0.1)] {
        let values = |key: &str| golden.values(&format!("cross_entropy.{name}.{key}"));
        let loss = classifier::cross_entropy(&logits, &labels, smoothing);
        assert_close(name, &[loss.loss], &values("loss"), LAYER);
        assert_close(name, &loss.dlogits, &values("dx"), LAYER);
    }
}

#[test]
fn adamw_and_moving_average() {
    let golden = Golden::load("layers");
    let mut param = golden.values("adamw.before");
    let (mut m, mut v) = (vec![0.0; param.len()], vec![0.0; param.len()]);
    for (i, lr) in [1e-3, 1e-2, 5e-4].into_iter().enumerate() {
        let grad = golden.values(&format!("adamw.{i}.grad"));
        optim::adamw(&AdamW::default(), lr, i as u64 + 1, &mut param, &grad, &mut m, &mut v);
        assert_close("adamw", &param, &golden.values(&format!("adamw.{i}.after")), LAYER);
    }
    assert_close("adamw.m", &m, &golden.values("adamw.m"), LAYER);
    assert_close("adamw.v", &v, &golden.values("adamw.v"), LAYER);

    let mut average = golden.values("ema.before");
    for n in 1..=5 {
        let param = golden.values(&format!("ema.{n}.param"));
        optim::ema(&mut average, &param, optim::ema_decay(0.4, n));
        assert_close("ema", &average, &golden.values(&format!("ema.{n}.after")), LAYER);
    }
}

#[test]
fn bottleneck() {
    let golden = Golden::load("bottleneck");
    for (name, block) in [
        ("down", block("layer3.0", 9, 5, 2, true)),
        ("widen", block("layer3.0", 6, 3, 1, true)),
        ("plain", block("layer3.0", 20, 5, 1, false)),
    ] {
        let maps = |key: &str| golden.maps(&format!("{name}.{key}"));
        let spec = SequenceSpec { conv1: None, blocks: vec![block], classes: None };
        let mut state = golden.state(&format!("{name}.before"));
        let x = maps("x");
        assert_close(name, &sequence::eval(&spec, &state, &x).data, &maps("eval_y").data, NET);
        let (y, tape) = sequence::train(&spec, &mut state, &x, 0.1);
        assert_close(name, &y.data, &maps("y").data, NET);
        assert_state_close(name, &state, &golden.state(&format!("{name}.after")), NET);
        let (dx, grads) = sequence::backward(&spec, &state, &tape, &maps("dy"));
        assert_close(name, &dx.data, &maps("dx").data, NET);
        assert_state_close(name, &grads, &golden.state(&format!("{name}.grad")), NET);
    }
}

#[test]
fn split_network() {
    let golden = Golden::load("split");
    let options = TrainerOptions::default();
    let mut net = Net::new(&split_spec(), &split_state(&golden), &options).unwrap();
    assert_close("logits", &net.forward(&golden.images("images0").f32()).data, &golden.values("logits"), NET);
    assert_close("u8", &net.forward(&golden.images("images0").u8()).data, &golden.values("logits"), NET);

    let mut warmed = net.clone();
    for i in 0..2 {
        warmed.warm_stem(&golden.images(&format!("images{i}")).f32());
    }
    assert_state_close("warmed", &warmed.state.net.stem, &golden.state("warmed"), NET);

    net.start_ema(59.0 / 60.0);
    for (step, losses) in golden.values("losses").chunks_exact(3).enumerate() {
        let batch = golden.images(&format!("images{step}"));
        let (out, grads) = net.step(&batch.f32(), &golden.labels(&format!("labels{step}")), 1e-3);
        assert_close(&format!("losses of step {step}"), &out.loss, losses, NET);
        for (i, grads) in grads.iter().enumerate().filter(|_| step == 0) {
            assert_state_close(&format!("branch {i}"), grads, &golden.state(&format!("grad{i}")), NET);
        }
    }
    let evaluated = net.eval_state();
    for i in 0..3 {
        let state = |key: &str| golden.state(&format!("{key}{i}"));
        assert_state_close("after", &net.state.net.branches[i], &state("after"), NET);
        assert_state_close("m", &net.state.m[i], &state("m"), NET);
        assert_state_close("v", &net.state.v[i], &state("v"), NET);
        assert_state_close("ema", &net.state.ema.as_ref().unwrap()[i], &state("ema"), NET);
        assert_state_close("eval_state", &evaluated.branches[i], &state("ema"), NET);
    }
    assert_eq!(net.state.net.stem, golden.state("stem"), "the stem is frozen");
}

#[test]
fn whole_network() {
    let golden = Golden::load("whole");
    let (batch, labels) = (golden.images("images"), golden.labels("labels"));
    for (name, trainable) in [("finetune", Trainable::All), ("probe", Trainable::Classifier)] {
        let options = TrainerOptions { trainable, ..Default::default() };
        let before = whole_state(&golden);
        let mut net = Net::new(&whole_spec(), &before, &options).unwrap();
        assert_close("logits", &net.forward(&batch.f32()).data, &golden.values("logits"), NET);
        let (out, grads) = net.step(&batch.f32(), &labels, 1e-3);
        assert_close(name, &out.loss, &golden.values(&format!("{name}.loss")), NET);
        assert_state_close(name, &grads[0], &golden.state(&format!("{name}.grad")), NET);
        let after = golden.state(&format!("{name}.after"));
        assert_state_close(name, &net.state.net.branches[0], &after, NET);
        for (tensor, value) in before.branches[0].iter().filter(|(k, _)| !after.contains_key(*k)) {
            assert_eq!(&net.state.net.branches[0][tensor], value, "{name} leaves {tensor} as it was");
        }
    }
}
