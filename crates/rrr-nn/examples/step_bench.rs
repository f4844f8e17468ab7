//! Times inference and training steps of the paper's network on random weights.
//!
//! ```text
//! cargo run --release -p rrr-nn --example step_bench -- [--json] [--work forward,int8,train] [--rounds 5]
//!     [--threads 2] [--precision f32|bf16] [--batch 32] [--size 128] [--network paper|default] [--layers]
//! ```
//!
//! The network is a reduced ResNet-152 split at `layer3.0` into 8 branches (20 classes): `paper` has blocks 1,1,1,1 and
//! branches with 79 and 170 planes, `default` blocks 3,8,1,1 and 59 and 150 planes. Work `int8` is its forward pass
//! quantised, `full` a step of a whole ResNet-152, everything trained. Milliseconds are medians of the rounds. `--layers` adds
//! those of every layer of `forward` and `int8` (the median and the fastest), its parts together, and its GFLOP/s; and of the passes of a training step in
//! bf16.
//! `bench/peers` runs this side by side with PyTorch.

use rrr_nn::{
    BlockSpec, Calibrator, Compute, Images, LayerTime, NetSpec, NetState, Network, Normalize, Pixels, Pool,
    Precision, QuantizedNetwork, SequenceSpec, State, Tensor, Trainer, TrainerOptions,
};
use std::sync::Arc;
use std::time::Instant;

const CLASSES: usize = 20;

struct Args {
    json: bool,
    layers: bool,
    works: Vec<String>,
    rounds: usize,
    threads: usize,
    precision: Precision,
    batch: usize,
    size: usize,
    network: NetSpec,
}

impl Args {
    fn parse() -> Result<Self, String> {
        let works = ["forward", "train"].map(String::from).to_vec();
        let mut out = Self {
            json: false,
            layers: false,
            works,
            rounds: 5,
            threads: 2,
            precision: Precision::auto(),
            batch: 32,
            size: 128,
            network: PAPER.spec(),
        };
        let mut args = std::env::args().skip(1);
        while let Some(flag) = args.next() {
            if flag == "--json" {
                out.json = true;
                continue;
            }
            if flag == "--layers" {
                out.layers = true;
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
            let number =
                || value.parse().ok().filter(|n| *n > 0).ok_or(format!("{flag}: bad number {value}"));
            match flag.as_str() {
                "--work" => out.works = value.split(',').map(String::from).collect(),
                "--rounds" => out.rounds = number()?,
                "--threads" => out.threads = number()?,
                "--batch" => out.batch = number()?,
                "--size" => out.size = number()?,
                "--network" if value == "paper" => out.network = PAPER.spec(),
                "--network" if value == "default" => out.network = DEFAULT.spec(),
                "--precision" => out.precision = value.parse()?,
                _ => return Err(format!("unknown flag {flag}")),
            }
        }
        Ok(out)
    }
}

/// Numbers from a seed (SplitMix64).
struct Rng(u64);

impl Rng {
    fn uniform(&mut self, low: f32, high: f32) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (high - low) * ((z >> 40) as f32 / (1u64 << 24) as f32)
    }

    fn state(&mut self, spec: &SequenceSpec) -> State {
        let mut state = State::new();
        for p in spec.params() {
            let bound = (6.0 / p.shape[1..].iter().product::<usize>() as f32).sqrt();
            let mut value = || match p.shape.len() {
                1 if p.name.ends_with("running_var") || p.name.ends_with("weight") => 1.0,
                1 => 0.0,
                _ => self.uniform(-bound, bound),
            };
            let data = (0..p.shape.iter().product()).map(|_| value()).collect();
            state.insert(p.name.clone(), Tensor { shape: p.shape.clone(), data });
        }
        state
    }

    fn net_state(&mut self, spec: &NetSpec) -> NetState {
        let branches = (0..spec.branches).map(|_| self.state(&spec.branch)).collect();
        NetState { stem: self.state(&spec.stem), branches }
    }
}

/// `count` blocks of one stage; the first has the stride and a downsample.
fn stage(name: &str, cin: usize, width: usize, count: usize, stride: usize) -> Vec<BlockSpec> {
    let block = |i| BlockSpec {
        name: format!("{name}.{i}"),
        cin: if i == 0 { cin } else { 4 * width },
        width,
        cout: 4 * width,
        stride: if i == 0 { stride } else { 1 },
        downsample: i == 0,
    };
    (0..count).map(block).collect()
}

/// A network of a stem of two stages and eight branches.
struct Split {
    /// Blocks of the stages.
    blocks: [usize; 2],
    /// Planes of a branch's blocks.
    planes: [usize; 2],
}

const PAPER: Split = Split { blocks: [1, 1], planes: [79, 170] };
const DEFAULT: Split = Split { blocks: [3, 8], planes: [59, 150] };

impl Split {
    fn spec(&self) -> NetSpec {
        let (blocks, planes) = (self.blocks, self.planes);
        let stem = [stage("layer1", 64, 64, blocks[0], 1), stage("layer2", 256, 128, blocks[1], 2)];
        let tail = [stage("layer3", 512, planes[0], 1, 2), stage("layer4", 4 * planes[0], planes[1], 1, 2)];
        NetSpec {
            coarse: 0,
            stem: SequenceSpec { conv1: Some(64), blocks: stem.concat(), classes: None },
            branches: 8,
            branch: SequenceSpec { conv1: None, blocks: tail.concat(), classes: Some(CLASSES) },
        }
    }
}

fn resnet152() -> NetSpec {
    let blocks = [
        stage("layer1", 64, 64, 3, 1),
        stage("layer2", 256, 128, 8, 2),
        stage("layer3", 512, 256, 36, 2),
        stage("layer4", 1024, 512, 3, 2),
    ];
    NetSpec {
        coarse: 0,
        stem: SequenceSpec::default(),
        branches: 1,
        branch: SequenceSpec { conv1: Some(64), blocks: blocks.concat(), classes: Some(CLASSES) },
    }
}

impl Args {
    fn compute(&self) -> Compute {
        Compute::new(Arc::new(Pool::new(self.threads))).with_precision(self.precision)
    }

    fn pixels(&self, rng: &mut Rng, batch: usize) -> Vec<f32> {
        (0..batch * self.size * self.size * 3).map(|_| rng.uniform(-2.0, 2.0)).collect()
    }

    fn images<'a>(&self, pixels: &'a [f32], n: usize) -> Images<'a> {
        Images { pixels: Pixels::F32(pixels), n, height: self.size, width: self.size }
    }

    /// Runs `work` once to warm up, then `repeat` times a round, each call timed, and prints the median.
    fn report(&self, name: &str, batch: usize, repeat: usize, mut work: impl FnMut()) {
        work();
        let calls = self.rounds * repeat;
        let mut times: Vec<f64> = (0..calls)
            .map(|_| {
                let start = Instant::now();
                work();
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (ms, min) = ((times[(calls - 1) / 2] + times[calls / 2]) / 2.0, times[0]);
        let (rounds, threads) = (self.rounds, self.threads);
        if self.json {
            println!(
                r#"{{"work":"{name}","batch":{batch},"ms":{ms:.4},"min_ms":{min:.4},"rounds":{rounds},"threads":{threads}}}"#
            );
        } else {
            println!("{name:<11} batch {batch:<3} {ms:>9.3} ms (fastest {min:.3}, {threads} threads)");
        }
    }

    fn forward(&self) {
        let mut rng = Rng(1);
        let spec = self.network.clone();
        let mut network = Network::new(&spec, &rng.net_state(&spec), self.compute()).expect("made to fit");
        let mut batches = vec![self.batch, 1];
        batches.dedup();
        for batch in batches {
            let pixels = self.pixels(&mut rng, batch);
            self.report("forward", batch, if batch == 1 { 10 } else { 1 }, || {
                std::hint::black_box(network.forward(&self.images(&pixels, batch)));
            });
            if self.layers {
                let rounds: Vec<Vec<LayerTime>> = (0..self.rounds.max(5))
                    .map(|_| network.forward_timed(&self.images(&pixels, batch)).1)
                    .collect();
                report_layers(&rounds);
            }
        }
    }

    /// The forward pass in 8 bits, calibrated on its own input.
    fn int8(&self) {
        let mut rng = Rng(1);
        let spec = self.network.clone();
        let state = rng.net_state(&spec);
        let mut calibrator =
            Calibrator::new(&spec, &state, self.compute().shared_pool()).expect("made to fit");
        let seen = self.pixels(&mut rng, 4);
        calibrator.observe(&self.images(&seen, 4));
        // Pixels of 0 to 255 stand for the values of `pixels`.
        let state = calibrator.quantize(Normalize { mean: [0.5; 3], std: [0.25; 3] });
        let mut network =
            QuantizedNetwork::new(&spec, &state, self.compute().shared_pool()).expect("made to fit");
        let mut batches = vec![self.batch, 1];
        batches.dedup();
        for batch in batches {
            let pixels = self.pixels(&mut rng, batch);
            self.report("int8", batch, if batch == 1 { 10 } else { 1 }, || {
                std::hint::black_box(network.forward(&self.images(&pixels, batch)));
            });
            if self.layers {
                let rounds: Vec<Vec<LayerTime>> = (0..self.rounds.max(5))
                    .map(|_| network.forward_timed(&self.images(&pixels, batch)).1)
                    .collect();
                report_layers(&rounds);
            }
        }
    }

    fn train(&self, name: &str, spec: &NetSpec) {
        let mut rng = Rng(1);
        let state = rng.net_state(spec);
        let mut trainer =
            Trainer::new(spec, &state, &TrainerOptions::default(), self.compute()).expect("made to fit");
        let pixels = self.pixels(&mut rng, self.batch);
        let labels: Vec<u32> = (0..self.batch).map(|i| (i % CLASSES) as u32).collect();
        self.report(name, self.batch, 1, || {
            std::hint::black_box(trainer.step(&self.images(&pixels, self.batch), &labels, 1e-3));
        });
        if self.layers {
            trainer.take_profile();
            let mut round = || {
                trainer.step(&self.images(&pixels, self.batch), &labels, 1e-3);
                trainer.take_profile()
            };
            let rounds: Vec<Vec<LayerTime>> = (0..self.rounds.max(5)).map(|_| round()).collect();
            report_layers(&rounds);
        }
    }
}

/// Prints the median time of every layer over the rounds, and the fastest.
fn report_layers(rounds: &[Vec<LayerTime>]) {
    let mut names: Vec<&str> = Vec::new();
    for layer in &rounds[0] {
        if !names.contains(&layer.name.as_str()) {
            names.push(&layer.name);
        }
    }
    for name in names {
        let of = |round: &Vec<LayerTime>| {
            let layers = round.iter().filter(|l| l.name == name);
            layers.fold((0.0, 0), |(s, macs), l| (s + l.elapsed.as_secs_f64(), macs + l.macs))
        };
        let mut times: Vec<(f64, u64)> = rounds.iter().map(of).collect();
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (s, macs) = times[times.len() / 2];
        let (ms, fastest, rate) = (s * 1e3, times[0].0 * 1e3, 2e-9 * macs as f64 / s);
        println!("    {name:<32} {ms:>8.3} ms {rate:>8.1} GFLOP/s (fastest {fastest:.3})");
    }
}

fn main() -> Result<(), String> {
    let args = Args::parse()?;
    for work in &args.works {
        match work.as_str() {
            "forward" => args.forward(),
            "int8" => args.int8(),
            "train" => args.train("train_step", &args.network),
            "full" => args.train("full", &resnet152()),
            _ => return Err(format!("unknown work {work}: use forward, int8, train or full")),
        }
    }
    Ok(())
}
