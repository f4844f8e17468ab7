//! Forward passes and training steps allocate nothing once their buffers have settled.

use rrr_nn::{
    BlockSpec, Calibrator, Compute, Images, Logits, NetSpec, NetState, Network, Normalize, Pixels, Pool,
    Precision, QuantizedNetwork, SequenceSpec, State, Tensor, Trainer, TrainerOptions,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::sync::{Arc, Barrier};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations of `f`, all threads together.
fn count(f: impl FnOnce()) -> usize {
    let taken = || ALLOCATOR.stats().allocations + ALLOCATOR.stats().reallocations;
    let before = taken();
    f();
    taken() - before
}

fn block(name: &str, cin: usize, width: usize, stride: usize) -> BlockSpec {
    BlockSpec { name: name.into(), cin, width, cout: 4 * width, stride, downsample: true }
}

fn state(spec: &SequenceSpec) -> State {
    let tensor = |shape: &[usize]| Tensor { shape: shape.to_vec(), data: vec![0.5; shape.iter().product()] };
    spec.params().iter().map(|p| (p.name.clone(), tensor(&p.shape))).collect()
}

const NORMALIZE: Normalize = Normalize { mean: [0.5; 3], std: [0.25; 3] };

// One test: the counter is the whole process's.
/// Calls before allocations are counted: on a busy machine a thread may get nothing to do in the first ones, and so has its
/// scratch still to make.
const WARM_UP: usize = 8;

#[test]
fn nothing_is_allocated_in_the_steady_state() {
    let plain = BlockSpec { downsample: false, cin: 32, ..block("layer1.1", 32, 8, 1) };
    let stem =
        SequenceSpec { conv1: Some(16), blocks: vec![block("layer1.0", 16, 8, 1), plain], classes: None };
    let branch = SequenceSpec { conv1: None, blocks: vec![block("layer2.0", 32, 10, 2)], classes: Some(5) };
    let split = NetSpec { stem: stem.clone(), branches: 8, branch: branch.clone(), coarse: 3 };
    let whole = NetSpec {
        coarse: 0,
        stem: SequenceSpec::default(),
        branches: 1,
        branch: SequenceSpec {
            conv1: Some(16),
            blocks: [stem.blocks, branch.blocks].concat(),
            classes: Some(5),
        },
    };
    let (n, size) = (4, 32);
    let pixels = vec![0.25; n * size * size * 3];
    let images = Images { pixels: Pixels::F32(&pixels), n, height: size, width: size };
    let one = images.slice(0, 1);
    let data = vec![64; pixels.len()];
    let bytes = Images { pixels: Pixels::U8 { data: &data, normalize: NORMALIZE }, ..images };
    // In bf16 each thread keeps a scratch, which grows with the largest task that it happens to get: with one
    // thread it gets them all.
    let computes = [(Precision::F32, 2), (Precision::Bf16, 1)];
    for (spec, (precision, threads)) in [split, whole].iter().flat_map(|s| computes.map(|c| (s, c))) {
        let net = NetState {
            stem: state(&spec.stem),
            branches: (0..spec.branches).map(|_| state(&spec.branch)).collect(),
        };
        let pool = Arc::new(Pool::new(threads));
        // A thread that starts late would allocate while it is counted.
        let all = Barrier::new(threads);
        pool.run(threads, |_| {
            all.wait();
        });
        let compute = Compute::new(pool).with_precision(precision);
        let mut network = Network::new(spec, &net, compute.clone()).unwrap();
        let mut logits = Logits::default();
        for batch in [&images, &one].repeat(WARM_UP) {
            network.forward_into(batch, &mut logits);
        }
        let forward = count(|| {
            for batch in [&images, &one, &images] {
                network.forward_into(batch, &mut logits);
            }
        });
        assert_eq!(forward, 0, "allocations of forward passes in {precision}");
        if precision == Precision::F32 {
            let mut calibrator = Calibrator::new(spec, &net, compute.shared_pool()).unwrap();
            calibrator.observe(&bytes);
            let quantized = calibrator.quantize(NORMALIZE);
            let mut network = QuantizedNetwork::new(spec, &quantized, compute.shared_pool()).unwrap();
            let one = bytes.slice(0, 1);
            for batch in [&bytes, &one].repeat(WARM_UP) {
                network.forward_into(batch, &mut logits);
            }
            let forward = count(|| {
                for batch in [&bytes, &one, &bytes] {
                    network.forward_into(batch, &mut logits);
                }
            });
            assert_eq!(forward, 0, "allocations of quantised forward passes");
        }
        for stem_rate in [0.0, 0.1] {
            let options = TrainerOptions { stem_rate, ..TrainerOptions::default() };
            let coarse = if stem_rate > 0.0 { 0 } else { spec.coarse };
            let spec = NetSpec { coarse, ..spec.clone() };
            let mut trainer = Trainer::new(&spec, &net, &options, compute.clone()).unwrap();
            trainer.start_ema(0.999);
            let mut step = || {
                trainer.step(&images, &[0, 1, 2, 3], 1e-3);
            };
            // Later ones return what the first one took: lists find their size.
            (0..WARM_UP).for_each(|_| step());
            let what = format!("a training step in {precision}, stem {stem_rate}");
            assert_eq!(count(&mut step), 0, "allocations of {what}");
        }
    }
}
