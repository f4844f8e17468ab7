//! [`Recycle::Paper`](super::Recycle::Paper).

use super::{Draw, fresh_linear, fresh_norm};
use rrr_nn::{NetSpec, State, Tensor};

pub(super) fn branches(spec: &NetSpec, backbone: &State, draw: &mut Draw) -> Vec<State> {
    let n = spec.branches;
    let mut branches = vec![State::new(); n];
    for p in spec.branch.params() {
        let tensors = match (p.shape.len(), backbone.get(&p.name)) {
            _ if p.name.starts_with("fc.") => {
                (0..n).map(|_| fresh_linear(&p.shape, spec.branch.features(), draw)).collect()
            }
            (4, Some(filters)) => share_out(filters, &p.shape, n, draw),
            (4, None) => (0..n).map(|_| fresh_conv(&p.shape, draw)).collect(),
            _ => vec![fresh_norm(&p.name, &p.shape); n],
        };
        for (branch, tensor) in branches.iter_mut().zip(tensors) {
            branch.insert(p.name.clone(), tensor);
        }
    }
    branches
}

/// One weight of `shape` per branch, filled from `filters`, `[out, in, kh, kw]` both.
fn share_out(filters: &Tensor, shape: &[usize], branches: usize, draw: &mut Draw) -> Vec<Tensor> {
    let (all, all_in) = (filters.shape[0], filters.shape[1]);
    let (q, q_in) = (shape[0], shape[1]);
    let taps: usize = shape[2..].iter().product();
    let mut out = vec![Tensor::zeros(shape); branches];
    for c in 0..q_in {
        for (k, o) in filter_list(all, branches * q, draw).into_iter().enumerate() {
            let from = (o * all_in + c) * taps;
            let to = ((k % q) * q_in + c) * taps;
            out[k / q].data[to..to + taps].copy_from_slice(&filters.data[from..from + taps]);
        }
    }
    out
}

/// `len` filters out of `all`: in order, then in random orders.
fn filter_list(all: usize, len: usize, draw: &mut Draw) -> Vec<usize> {
    let mut list: Vec<usize> = (0..all.min(len)).collect();
    while list.len() < len {
        list.extend(draw.permutation(all));
    }
    list.truncate(len);
    list
}

/// `kaiming_normal_(mode="fan_out", nonlinearity="relu")`, as timm's and torchvision's ResNet initialise convolutions.
fn fresh_conv(shape: &[usize], draw: &mut Draw) -> Tensor {
    let fan_out = shape[0] * shape[2] * shape[3];
    let std = (2.0 / fan_out as f64).sqrt();
    let data = (0..shape.iter().product()).map(|_| draw.normal(std)).collect();
    Tensor { shape: shape.to_vec(), data }
}
