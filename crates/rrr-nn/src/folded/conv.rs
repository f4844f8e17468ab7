//! Convolutions with the batch norms behind them folded in.

use crate::StateView;
use crate::layout::{Classifier, ConvBn};
use crate::tape::Member;
use rrr_kernels::{Arena, BLOCK, BN_EPS, Buffer, Conv, ConvPlan, Weights, blocks};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

/// Where a sequence's weights come from.
pub(crate) enum Source<'a> {
    Trained(&'a Member),
    /// Shapes have been checked.
    State(&'a StateView<'a>),
}

impl Source<'_> {
    /// Packs the weights of the `o`th 16 output channels of the convolution `name`, which lie at `at` in packed parameters.
    fn panel(&self, (name, conv, at): (&str, &Conv, &Range<usize>), o: usize, to: &mut [f32]) {
        match self {
            Self::Trained(member) => {
                to.copy_from_slice(&member.params[at.clone()][o * to.len()..][..to.len()])
            }
            Self::State(state) => conv.pack_panel(&state[format!("{name}.weight").as_str()].data, o, to),
        }
    }

    /// A vector of a state, padded.
    fn vector(state: &StateView<'_>, name: &str) -> Buffer {
        let values = &state[name].data;
        let mut padded = Buffer::zeros(blocks(values.len()) * BLOCK);
        padded[..values.len()].copy_from_slice(values);
        padded
    }

    /// Scale, shift, running mean and running variance, padded with zeros.
    fn norm(&self, layer: &ConvBn) -> [Buffer; 4] {
        match self {
            Self::Trained(member) => {
                let halves = |values: &[f32]| {
                    let (first, second) = values.split_at(values.len() / 2);
                    [copy(first), copy(second)]
                };
                let [gamma, beta] = halves(&member.params[layer.affine.clone()]);
                let [mean, var] = halves(&member.running[layer.stats.clone()]);
                [gamma, beta, mean, var]
            }
            Self::State(state) => ["weight", "bias", "running_mean", "running_var"]
                .map(|what| Self::vector(state, &format!("{}.{what}", layer.bn))),
        }
    }
}

fn copy(values: &[f32]) -> Buffer {
    let mut b = Buffer::zeros(values.len());
    b.copy_from_slice(values);
    b
}

/// A convolution with bias, or the sum of two, which read an input each.
pub(crate) struct FoldedConv {
    pub terms: Vec<Term>,
    /// Per 16 output channels, those of every term.
    weight: Buffer,
    /// The weights for plans that want them transformed, made by the first of these.
    winograd: OnceLock<Buffer>,
    /// The sum of the terms' biases.
    bias: Buffer,
}

/// A convolution of a [`FoldedConv`].
pub(crate) struct Term {
    pub name: String,
    pub conv: Conv,
    bias: Buffer,
}

impl FoldedConv {
    /// The sum of `layers`.
    pub fn new(layers: &[&ConvBn], source: &Source<'_>, arena: &Arena) -> Self {
        let panel: usize = layers.iter().map(|layer| layer.conv.panel_len()).sum();
        let padded = blocks(layers[0].conv.cout()) * BLOCK;
        let mut weight = arena.zeros(padded / BLOCK * panel);
        let mut sum = arena.zeros(padded);
        let mut terms = Vec::with_capacity(layers.len());
        let mut start = 0;
        for layer in layers {
            let [gamma, mut bias, mean, var] = source.norm(layer);
            let len = layer.conv.panel_len();
            for (o, panel) in weight.chunks_exact_mut(panel).enumerate() {
                let panel = &mut panel[start..start + len];
                source.panel((&layer.name, &layer.conv, &layer.weight), o, panel);
                let at = o * BLOCK;
                let scale: [f32; BLOCK] = std::array::from_fn(|c| {
                    (f64::from(gamma[at + c]) / f64::from(var[at + c] + BN_EPS).sqrt()) as f32
                });
                for row in panel.as_chunks_mut::<BLOCK>().0 {
                    row.iter_mut().zip(&scale).for_each(|(w, s)| *w *= s);
                }
                for c in 0..BLOCK {
                    bias[at + c] -= mean[at + c] * scale[c];
                }
            }
            sum.iter_mut().zip(&bias[..]).for_each(|(sum, b)| *sum += b);
            terms.push(Term { name: layer.name.clone(), conv: layer.conv, bias });
            start += len;
        }
        Self { terms, weight, winograd: OnceLock::new(), bias: sum }
    }

    /// A classifier, which has a bias of its own.
    pub fn classifier(fc: &Classifier, source: &Source<'_>, arena: &Arena) -> Self {
        let mut weight = arena.zeros(fc.conv.packed_len());
        for (o, panel) in weight.chunks_exact_mut(fc.conv.panel_len()).enumerate() {
            source.panel(("fc", &fc.conv, &fc.weight), o, panel);
        }
        let bias = match source {
            Source::Trained(member) => copy(&member.params[fc.bias.clone()]),
            Source::State(state) => Source::vector(state, "fc.bias"),
        };
        let term = Term { name: "fc".to_owned(), conv: fc.conv, bias: bias.clone() };
        Self { terms: vec![term], weight, winograd: OnceLock::new(), bias }
    }

    /// The first convolution's.
    pub fn name(&self) -> &str {
        &self.terms[0].name
    }

    /// The first of the convolutions.
    pub fn conv(&self) -> Conv {
        self.terms[0].conv
    }

    /// The second one of a sum.
    pub fn other(&self) -> Option<Conv> {
        self.terms.get(1).map(|term| term.conv)
    }

    /// Weights as `plan` is fastest with.
    pub fn weights_for(&self, plan: &ConvPlan) -> Weights<'_> {
        if plan.is_winograd() {
            Weights::Winograd(self.winograd.get_or_init(|| plan.winograd_weights(&self.weight)))
        } else {
            Weights::F32(&self.weight)
        }
    }

    /// Bytes of weights and biases.
    pub fn bytes(&self) -> usize {
        let winograd = self.winograd.get().map_or(0, |w| size_of_val(&w[..]));
        size_of_val(&self.weight[..]) + winograd + size_of_val(&self.bias[..])
    }

    /// One value per output channel, padded with zeros.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Weights of each term in PyTorch's order.
    pub fn weights(&self) -> Vec<Vec<f32>> {
        self.packed().iter().zip(&self.terms).map(|(packed, term)| term.conv.unpack(packed)).collect()
    }

    /// Weights of each term as [`Conv::pack`] orders them.
    pub fn packed(&self) -> Vec<Cow<'_, [f32]>> {
        let panel = self.weight.len() / blocks(self.conv().cout());
        let mut start = 0;
        self.terms
            .iter()
            .map(|term| {
                let range = start..start + term.conv.panel_len();
                start = range.end;
                if range.len() == panel {
                    return Cow::Borrowed(&self.weight[..]);
                }
                let mut packed = Vec::with_capacity(self.weight.len() / panel * range.len());
                self.weight
                    .chunks_exact(panel)
                    .for_each(|panel| packed.extend_from_slice(&panel[range.clone()]));
                Cow::Owned(packed)
            })
            .collect()
    }
}

impl Term {
    /// One value per output channel.
    pub fn bias(&self) -> &[f32] {
        &self.bias[..self.conv.cout()]
    }
}
