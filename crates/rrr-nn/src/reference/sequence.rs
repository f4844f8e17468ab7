//! A [`SequenceSpec`] forward and backward.

use super::conv::Conv;
use super::{Nchw, classifier, conv, elementwise, norm, pool};
use crate::{BlockSpec, SequenceSpec, State, Tensor};

/// What the backward pass needs of a forward pass in train mode.
#[derive(Clone, Debug)]
pub struct Tape {
    first: Option<FirstTape>,
    blocks: Vec<BlockTape>,
    /// Input of the global pooling and its output.
    head: Option<(Nchw, Nchw)>,
}

#[derive(Clone, Debug)]
struct FirstTape {
    unit: UnitTape,
    relu: Nchw,
    /// Source positions of the max-pool.
    source: Vec<usize>,
}

#[derive(Clone, Debug)]
struct BlockTape {
    unit1: UnitTape,
    relu1: Nchw,
    unit2: UnitTape,
    relu2: Nchw,
    unit3: UnitTape,
    downsample: Option<UnitTape>,
    relu3: Nchw,
}

/// A convolution and its batch norm.
#[derive(Clone, Debug)]
struct UnitTape {
    x: Nchw,
    z: Nchw,
    batch: norm::Normalized,
}

/// Names and geometry of a convolution and its batch norm.
struct Unit {
    conv: Conv,
    weight: String,
    bn: String,
}

impl Unit {
    fn new(conv: &str, bn: &str, [cout, cin, kernel]: [usize; 3], stride: usize) -> Self {
        let conv_spec = Conv { cout, cin, kernel, stride, pad: kernel / 2 };
        Self { conv: conv_spec, weight: format!("{conv}.weight"), bn: bn.to_string() }
    }

    fn first(channels: usize) -> Self {
        Self::new("conv1", "bn1", [channels, 3, 7], 2)
    }

    /// The three convolutions of a block and the one on its skip path.
    fn of_block(b: &BlockSpec) -> ([Self; 3], Option<Self>) {
        let name = |layer: &str| format!("{}.{layer}", b.name);
        let main = [
            Self::new(&name("conv1"), &name("bn1"), [b.width, b.cin, 1], 1),
            Self::new(&name("conv2"), &name("bn2"), [b.width, b.width, 3], b.stride),
            Self::new(&name("conv3"), &name("bn3"), [b.cout, b.width, 1], 1),
        ];
        let skip = b
            .downsample
            .then(|| Self::new(&name("downsample.0"), &name("downsample.1"), [b.cout, b.cin, 1], b.stride));
        (main, skip)
    }

    /// A tensor of the batch norm.
    fn bn<'a>(&self, state: &'a State, tensor: &str) -> &'a [f32] {
        &state[&format!("{}.{tensor}", self.bn)].data
    }

    fn eval(&self, state: &State, x: &Nchw) -> Nchw {
        let z = conv::forward(&self.conv, x, &state[&self.weight].data);
        let [weight, bias, mean, var] =
            ["weight", "bias", "running_mean", "running_var"].map(|tensor| self.bn(state, tensor));
        norm::eval(&z, weight, bias, mean, var)
    }

    fn train(&self, state: &mut State, x: &Nchw, momentum: f32) -> UnitTape {
        let z = conv::forward(&self.conv, x, &state[&self.weight].data);
        let batch = norm::train(&z, self.bn(state, "weight"), self.bn(state, "bias"));
        let mut mean = self.bn(state, "running_mean").to_vec();
        let mut var = self.bn(state, "running_var").to_vec();
        norm::update_running(&mut mean, &mut var, &batch, momentum);
        put(state, format!("{}.running_mean", self.bn), mean);
        put(state, format!("{}.running_var", self.bn), var);
        UnitTape { x: x.clone(), z, batch }
    }

    /// Gradient with respect to the unit's input; adds those of its tensors to `grads`.
    fn backward(&self, state: &State, tape: &UnitTape, dy: &Nchw, grads: &mut State) -> Nchw {
        let bn = norm::backward(&tape.z, self.bn(state, "weight"), &tape.batch, dy);
        let dw = conv::backward_weight(&self.conv, &tape.x, &bn.dx);
        let shape = state[&self.weight].shape.clone();
        grads.insert(self.weight.clone(), Tensor { shape, data: dw });
        put(grads, format!("{}.weight", self.bn), bn.dweight);
        put(grads, format!("{}.bias", self.bn), bn.dbias);
        conv::backward_input(&self.conv, tape.x.h, tape.x.w, &bn.dx, &state[&self.weight].data)
    }
}

/// Puts a vector into a state.
fn put(state: &mut State, name: String, data: Vec<f32>) {
    state.insert(name, Tensor { shape: vec![data.len()], data });
}

/// Inference: batch norms use their running statistics.
///
/// `x` is `[n, c, h, w]`; returns the last block's output, or `[n, classes, 1, 1]` logits.
pub fn eval(spec: &SequenceSpec, state: &State, x: &Nchw) -> Nchw {
    let mut x = eval_features(spec, state, x);
    if let Some(classes) = spec.classes {
        let pooled = pool::average_forward(&x);
        let logits = classifier::linear(&pooled.data, &state["fc.weight"].data, &state["fc.bias"].data);
        x = Nchw::new([x.n, classes, 1, 1], logits);
    }
    x
}

/// As [`eval`], but stops before the global pooling.
pub fn eval_features(spec: &SequenceSpec, state: &State, x: &Nchw) -> Nchw {
    let mut x = x.clone();
    if let Some(channels) = spec.conv1 {
        let relu = elementwise::relu(&Unit::first(channels).eval(state, &x));
        x = pool::max_forward(&relu).y;
    }
    for block in &spec.blocks {
        let ([unit1, unit2, unit3], downsample) = Unit::of_block(block);
        let y = elementwise::relu(&unit1.eval(state, &x));
        let y = elementwise::relu(&unit2.eval(state, &y));
        let y = unit3.eval(state, &y);
        let skip = downsample.map_or_else(|| x.clone(), |unit| unit.eval(state, &x));
        x = elementwise::relu(&elementwise::add(&y, &skip));
    }
    x
}

/// Train mode: batch norms use the batch's statistics and update the running ones in `state`.
///
/// Returns what [`eval`] returns, and the tape for [`backward`].
pub fn train(spec: &SequenceSpec, state: &mut State, x: &Nchw, momentum: f32) -> (Nchw, Tape) {
    let mut x = x.clone();
    let first = spec.conv1.map(|channels| {
        let unit = Unit::first(channels).train(state, &x, momentum);
        let relu = elementwise::relu(&unit.batch.y);
        let pooled = pool::max_forward(&relu);
        x = pooled.y;
        FirstTape { unit, relu, source: pooled.source }
    });
    let mut blocks = Vec::new();
    for block in &spec.blocks {
        let (tape, y) = block_train(block, state, &x, momentum);
        blocks.push(tape);
        x = y;
    }
    let mut head = None;
    if let Some(classes) = spec.classes {
        let pooled = pool::average_forward(&x);
        let logits = classifier::linear(&pooled.data, &state["fc.weight"].data, &state["fc.bias"].data);
        let logits = Nchw::new([x.n, classes, 1, 1], logits);
        head = Some((std::mem::replace(&mut x, logits), pooled));
    }
    (x, Tape { first, blocks, head })
}

fn block_train(block: &BlockSpec, state: &mut State, x: &Nchw, momentum: f32) -> (BlockTape, Nchw) {
    let ([u1, u2, u3], down) = Unit::of_block(block);
    let unit1 = u1.train(state, x, momentum);
    let relu1 = elementwise::relu(&unit1.batch.y);
    let unit2 = u2.train(state, &relu1, momentum);
    let relu2 = elementwise::relu(&unit2.batch.y);
    let unit3 = u3.train(state, &relu2, momentum);
    let downsample = down.map(|unit| unit.train(state, x, momentum));
    let skip = downsample.as_ref().map_or(x, |unit| &unit.batch.y);
    let relu3 = elementwise::relu(&elementwise::add(&unit3.batch.y, skip));
    (BlockTape { unit1, relu1, unit2, relu2, unit3, downsample, relu3: relu3.clone() }, relu3)
}

/// Gradients of [`train`] for output gradient `dy`: with respect to the input, and to every trainable tensor.
pub fn backward(spec: &SequenceSpec, state: &State, tape: &Tape, dy: &Nchw) -> (Nchw, State) {
    let mut grads = State::new();
    let mut d = dy.clone();
    if let (Some(classes), Some((x, pooled))) = (spec.classes, &tape.head) {
        let fc = classifier::linear_backward(&pooled.data, &state["fc.weight"].data, &d.data, classes);
        grads.insert("fc.weight".into(), Tensor { shape: vec![classes, x.c], data: fc.dweight });
        put(&mut grads, "fc.bias".into(), fc.dbias);
        d = pool::average_backward(x.h, x.w, &Nchw::new(pooled.shape(), fc.dx));
    }
    for (block, tape) in spec.blocks.iter().zip(&tape.blocks).rev() {
        d = block_backward(block, state, tape, &d, &mut grads);
    }
    if let (Some(channels), Some(tape)) = (spec.conv1, &tape.first) {
        d = pool::max_backward(tape.relu.shape(), &tape.source, &d);
        d = elementwise::relu_backward(&tape.relu, &d);
        d = Unit::first(channels).backward(state, &tape.unit, &d, &mut grads);
    }
    (d, grads)
}

fn block_backward(block: &BlockSpec, state: &State, tape: &BlockTape, dy: &Nchw, grads: &mut State) -> Nchw {
    let ([u1, u2, u3], down) = Unit::of_block(block);
    let d_sum = elementwise::relu_backward(&tape.relu3, dy);
    let d = u3.backward(state, &tape.unit3, &d_sum, grads);
    let d = elementwise::relu_backward(&tape.relu2, &d);
    let d = u2.backward(state, &tape.unit2, &d, grads);
    let d = elementwise::relu_backward(&tape.relu1, &d);
    let d_main = u1.backward(state, &tape.unit1, &d, grads);
    let d_skip = match (&down, &tape.downsample) {
        (Some(unit), Some(tape)) => unit.backward(state, tape, &d_sum, grads),
        _ => d_sum,
    };
    elementwise::add(&d_main, &d_skip)
}
