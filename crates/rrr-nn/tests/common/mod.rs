//! Golden files, comparison and made-up networks shared by the tests.
#![allow(dead_code, reason = "every test binary uses its own part")]

use rrr_nn::reference::Nchw;
use rrr_nn::{BlockSpec, Images, NetSpec, NetState, Normalize, Pixels, SequenceSpec, State, Tensor};
use safetensors::{Dtype, SafeTensors};

/// A file written by `golden/make.py`.
pub struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    pub fn load(name: &str) -> Self {
        let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self { bytes: std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}")) }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("a safetensors file")
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let data = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Tensor { shape: view.shape().to_vec(), data }
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        self.tensor(name).data
    }

    pub fn maps(&self, name: &str) -> Nchw {
        let tensor = self.tensor(name);
        Nchw::new(tensor.shape.try_into().expect("four dimensions"), tensor.data)
    }

    pub fn labels(&self, name: &str) -> Vec<u32> {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(view.dtype(), Dtype::I32, "{name}");
        view.data().as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as u32).collect()
    }

    /// Every tensor called `prefix.NAME`, by NAME.
    pub fn state(&self, prefix: &str) -> State {
        let file = self.file();
        let names = file.names().into_iter().filter_map(|n| n.strip_prefix(&format!("{prefix}.")));
        let state: State = names.map(|n| (n.to_string(), self.tensor(&format!("{prefix}.{n}")))).collect();
        assert!(!state.is_empty(), "no tensors {prefix}.*");
        state
    }

    /// Images of a golden file: stored channels first as bytes.
    pub fn images(&self, name: &str) -> Batch {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let &[n, 3, height, width] = view.shape() else { panic!("{name} has shape {:?}", view.shape()) };
        let area = height * width;
        let mut bytes = vec![0; n * 3 * area];
        for (i, &byte) in view.data().iter().enumerate() {
            let (image, channel, pixel) = (i / (3 * area), i / area % 3, i % area);
            bytes[(image * area + pixel) * 3 + channel] = byte;
        }
        Batch::new(n, height, width, bytes)
    }
}

/// Images, channels last, as bytes `p` and as values `(p - 128) / 64`.
#[derive(Clone, Debug)]
pub struct Batch {
    pub n: usize,
    pub height: usize,
    pub width: usize,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Batch {
    pub fn new(n: usize, height: usize, width: usize, bytes: Vec<u8>) -> Self {
        let values = bytes.iter().map(|&p| (f32::from(p) - 128.0) / 64.0).collect();
        Self { n, height, width, bytes, values }
    }

    /// As values.
    pub fn f32(&self) -> Images<'_> {
        let Self { n, height, width, .. } = *self;
        Images { pixels: Pixels::F32(&self.values), n, height, width }
    }

    /// As bytes with the normalisation that gives the same values.
    pub fn u8(&self) -> Images<'_> {
        let Self { n, height, width, .. } = *self;
        let normalize = Normalize { mean: [128.0 / 255.0; 3], std: [64.0 / 255.0; 3] };
        Images { pixels: Pixels::U8 { data: &self.bytes, normalize }, n, height, width }
    }
}

/// NaN counts as larger than everything.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0f32, |m, v| if v.is_nan() { f32::INFINITY } else { m.max(v.abs()) })
}

/// Fails unless every value is within `tolerance` times the largest wanted magnitude of what is wanted.
pub fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_close_on_scale(what, got, want, largest(want) * tolerance);
}

/// Fails unless every value is within `allowed` of what is wanted.
pub fn assert_close_on_scale(what: &str, got: &[f32], want: &[f32], allowed: f32) {
    assert_eq!(got.len(), want.len(), "{what}: number of values");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= allowed, "{what}[{i}] is {g}, expected {w} within {allowed:e}");
    }
}

/// [`assert_close`] for every tensor of `want`; `got` may have more.
pub fn assert_state_close(what: &str, got: &State, want: &State, tolerance: f32) {
    for (name, want) in want {
        let got = got.get(name).unwrap_or_else(|| panic!("{what}: {name} is missing"));
        assert_eq!(got.shape, want.shape, "{what}: shape of {name}");
        assert_close(&format!("{what}: {name}"), &got.data, &want.data, tolerance);
    }
}

/// Largest error of the tensors of `got`, each relative to the largest value of its tensor in `want`, or to a
/// hundredth of the largest value of all if that is more.
///
/// For gradients: some are sums that cancel (a batch norm's bias ahead of another batch norm), and what is left
/// is rounding noise on the scale of the terms.
pub fn gradients_error(got: &State, want: &State) -> f32 {
    let floor = want.values().map(|t| largest(&t.data)).fold(0f32, f32::max) / 100.0;
    assert!(got.keys().eq(want.keys()), "gradients of the same tensors");
    let error = |(got, want): (&Tensor, &Tensor)| {
        let differences: Vec<f32> = got.data.iter().zip(&want.data).map(|(g, w)| g - w).collect();
        largest(&differences) / largest(&want.data).max(floor)
    };
    got.values().zip(want.values()).map(error).fold(0f32, f32::max)
}

/// All values of `state` times `factor`.
pub fn scaled(state: &State, factor: f32) -> State {
    let scale = |t: &Tensor| Tensor { data: t.data.iter().map(|v| v * factor).collect(), ..t.clone() };
    state.iter().map(|(name, t)| (name.clone(), scale(t))).collect()
}

pub fn block(name: &str, cin: usize, width: usize, stride: usize, downsample: bool) -> BlockSpec {
    BlockSpec { name: name.into(), cin, width, cout: 4 * width, stride, downsample }
}

/// The network of `split.safetensors`.
pub fn split_spec() -> NetSpec {
    NetSpec {
        coarse: 0,
        stem: SequenceSpec {
            conv1: Some(8),
            blocks: vec![block("layer1.0", 8, 4, 1, true), block("layer2.0", 16, 6, 2, true)],
            classes: None,
        },
        branches: 3,
        branch: SequenceSpec {
            conv1: None,
            blocks: vec![block("layer3.0", 24, 5, 2, true), block("layer4.0", 20, 7, 2, true)],
            classes: Some(6),
        },
    }
}

/// The state that `split.safetensors` begins with.
pub fn split_state(golden: &Golden) -> NetState {
    NetState {
        stem: golden.state("stem"),
        branches: (0..3).map(|i| golden.state(&format!("branch{i}"))).collect(),
    }
}

/// The network of `whole.safetensors`: no stem.
pub fn whole_spec() -> NetSpec {
    NetSpec {
        coarse: 0,
        stem: SequenceSpec::default(),
        branches: 1,
        branch: SequenceSpec {
            conv1: Some(6),
            blocks: vec![
                block("layer1.0", 6, 5, 1, true),
                block("layer1.1", 20, 5, 1, false),
                block("layer2.0", 20, 7, 2, true),
            ],
            classes: Some(5),
        },
    }
}

/// The state that `whole.safetensors` begins with.
pub fn whole_state(golden: &Golden) -> NetState {
    NetState { stem: State::new(), branches: vec![golden.state("before")] }
}

/// Numbers from a seed (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.next() >> 40) as f32 / (1u64 << 24) as f32)
    }

    pub fn batch(&mut self, n: usize, height: usize, width: usize) -> Batch {
        let bytes = (0..n * height * width * 3).map(|_| self.below(256) as u8).collect();
        Batch::new(n, height, width, bytes)
    }

    /// Weights with signal in every tensor, sized to keep activations near 1.
    pub fn state(&mut self, spec: &SequenceSpec) -> State {
        let mut state = State::new();
        for p in spec.params() {
            let fan_in: usize = p.shape[1..].iter().product();
            let (low, high) = match p.shape.len() {
                1 if p.name.ends_with("running_var") => (0.5, 2.0),
                1 if p.name.ends_with("weight") => (0.5, 1.5),
                1 => (-0.4, 0.4),
                _ => (-(6.0 / fan_in as f32).sqrt(), (6.0 / fan_in as f32).sqrt()),
            };
            let data = (0..p.shape.iter().product()).map(|_| self.uniform(low, high)).collect();
            state.insert(p.name, Tensor { shape: p.shape, data });
        }
        state
    }

    /// `state` with every value changed by up to `relative` of itself.
    pub fn nearby(&mut self, state: &NetState, relative: f32) -> NetState {
        let mut state = state.clone();
        let states = std::iter::once(&mut state.stem).chain(&mut state.branches);
        for value in states.flat_map(State::values_mut).flat_map(|t| &mut t.data) {
            *value *= 1.0 + self.uniform(-relative, relative);
        }
        state
    }

    pub fn net_state(&mut self, spec: &NetSpec) -> NetState {
        NetState {
            stem: self.state(&spec.stem),
            branches: (0..spec.branches).map(|_| self.state(&spec.branch)).collect(),
        }
    }
}
