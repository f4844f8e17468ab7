use super::*;
use crate::arch::{EXPANSION, Split};
use crate::plan::PlanOptions;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A backbone in which every number tells where it comes from: tensor, output and input channel.
fn labelled(net: &ResNet) -> State {
    let params = net.sequence(Some(3)).params();
    let tensor = |(t, p): (usize, &rrr_nn::ParamSpec)| {
        let row: usize = p.shape[1..].iter().product();
        let data = (0..p.shape[0] * row).map(|i| (t * 97 + i) as f32);
        (p.name.clone(), Tensor { shape: p.shape.clone(), data: data.collect() })
    };
    params.iter().enumerate().map(tensor).collect()
}

fn small() -> ResNet {
    ResNet { name: "small".into(), stem: 8, blocks: [2, 2, 3, 2], planes: [4, 8, 12, 20], base_width: 64 }
}

fn options(net: ResNet, blocks: [usize; 4], split: Split, branches: usize) -> PlanOptions {
    let shift = (branches > 1).then_some(0);
    PlanOptions { backbone: net, blocks, split, branches, shift, ..PlanOptions::paper(5) }
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let blocks = [1usize..3, 1usize..3, 1usize..4, 1usize..3];
    (blocks, 0usize..20, 1usize..10, any::<bool>()).prop_map(|(blocks, at, branches, wide)| {
        let net = ResNet { base_width: if wide { 128 } else { 64 }, ..small() };
        let positions: Vec<_> = net.reduced(blocks).unwrap().positions().collect();
        Plan::new(options(net, blocks, positions[at % positions.len()], branches)).unwrap()
    })
}

fn is_fc(name: &str) -> bool {
    name.starts_with("fc.")
}

#[test]
fn eight_branches_of_the_paper() {
    let plan = Plan::new(PlanOptions::paper(20)).unwrap();
    let net = ResNet::resnet152().reduced([1; 4]).unwrap();
    let backbone = labelled(&net);
    for mode in [Recycle::Paper, Recycle::Coherent] {
        let state = recycle(&plan, &backbone, mode, 1).unwrap();
        state.check(plan.spec()).unwrap();
        assert_eq!(state.stem["layer2.0.conv2.weight"], backbone["layer2.0.conv2.weight"]);
        assert!(state == recycle(&plan, &backbone, mode, 1).unwrap());
        assert!(state != recycle(&plan, &backbone, mode, 2).unwrap());
    }
    // Filters go out in order while they last: the first of the second branch is the 80th.
    let state = recycle(&plan, &backbone, Recycle::Paper, 1).unwrap();
    let name = "layer3.0.conv1.weight";
    assert_eq!(state.branches[1][name].data[..512], backbone[name].data[79 * 512..80 * 512]);
}

/// The draws are part of the method's reproducibility: these values may change only on purpose.
#[test]
fn draws_are_fixed() {
    let mut draw = Draw::new(0);
    assert_eq!(draw.permutation(10), [1, 4, 0, 2, 7, 8, 3, 5, 9, 6]);
    assert_eq!(draw.uniform(1.0), 0.160_116_29);
    assert!((draw.normal(1.0) - 0.461_452_87).abs() < 1e-6);
}

#[test]
fn draws_are_distributed_as_they_say() {
    let mut draw = Draw::new(7);
    let n = 20_000;
    let moments = |values: Vec<f32>| {
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        let var = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64;
        (mean, var)
    };
    let (mean, var) = moments((0..n).map(|_| draw.normal(2.0)).collect());
    assert!(mean.abs() < 0.05 && (var - 4.0).abs() < 0.15, "{mean} {var}");
    let uniform: Vec<f32> = (0..n).map(|_| draw.uniform(3.0)).collect();
    assert!(uniform.iter().all(|v| v.abs() <= 3.0));
    let (mean, var) = moments(uniform);
    assert!(mean.abs() < 0.05 && (var - 3.0).abs() < 0.1, "{mean} {var}");
}

#[test]
fn fresh_tensors_are_pytorchs() {
    let plan = Plan::new(options(small(), [2, 2, 3, 2], Split::new(3, 1), 4)).unwrap();
    let state = recycle(&plan, &labelled(&small()), Recycle::Paper, 3).unwrap();
    for branch in &state.branches {
        let features = plan.spec().branch.features();
        let bound = 1.0 / (features as f32).sqrt();
        for name in ["fc.weight", "fc.bias"] {
            assert!(branch[name].data.iter().all(|v| v.abs() <= bound));
        }
        assert!(branch["fc.weight"].data.iter().any(|v| v.abs() > 0.9 * bound));
        // No layer3.1.downsample in a pretrained net: kaiming_normal_, fan_out = 24 outputs of a 1x1.
        let skip = &branch["layer3.1.downsample.0.weight"];
        assert_eq!(skip.shape, [24, 48, 1, 1]);
        let var = skip.data.iter().map(|v| v * v).sum::<f32>() / skip.data.len() as f32;
        assert!((var - 2.0 / 24.0).abs() < 0.02, "{var}");
        for (name, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            for norm in ["layer3.1.bn1", "layer4.1.bn3", "layer3.1.downsample.1"] {
                assert!(branch[&format!("{norm}.{name}")].data.iter().all(|&v| v == value), "{norm}.{name}");
            }
        }
    }
    assert_ne!(state.branches[0]["fc.weight"], state.branches[1]["fc.weight"]);
}

/// A skip path that was the identity in the backbone passes the branch's channels on.
#[test]
fn coherent_split_inside_a_stage_selects() {
    let plan = Plan::new(options(small(), [2, 2, 3, 2], Split::new(3, 1), 4)).unwrap();
    let state = recycle(&plan, &labelled(&small()), Recycle::Coherent, 3).unwrap();
    for (branch, kept) in state.branches.iter().zip(coherent_channels(&plan, 3)) {
        let stream = &kept["layer3.1.conv3"].outputs;
        let skip = &branch["layer3.1.downsample.0.weight"];
        for (row, &channel) in skip.data.chunks(48).zip(stream) {
            assert!(row.iter().enumerate().all(|(c, &v)| v == if c == channel { 1.0 } else { 0.0 }));
        }
        assert!(branch["layer3.1.downsample.1.running_var"].data.iter().all(|&v| v == 1.0));
    }
}

#[test]
fn whole_backbone() {
    let net = small();
    let backbone = labelled(&net);
    let state = full_state(&net, &backbone, 9, 1).unwrap();
    state.check(&net.full_net(9)).unwrap();
    for (name, tensor) in state.branches[0].iter().filter(|(n, _)| !is_fc(n)) {
        assert_eq!(tensor, &backbone[name], "{name}");
    }
}

#[test]
fn problems_are_listed_by_name() {
    let plan = Plan::new(options(small(), [1; 4], Split::new(3, 0), 2)).unwrap();
    let mut backbone = labelled(&small());
    // Neither a dropped block nor the old classifier matters.
    backbone.retain(|name, _| !is_fc(name) && !name.starts_with("layer3.2."));
    recycle(&plan, &backbone, Recycle::Paper, 1).unwrap();
    backbone.remove("bn1.running_var");
    backbone.insert("layer4.0.conv1.weight".into(), Tensor::zeros(&[20, 47, 1, 1]));
    let error = recycle(&plan, &backbone, Recycle::Coherent, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the weights are not those of small: bn1.running_var is missing; layer4.0.conv1.weight has shape \
         [20, 47, 1, 1], expected [20, 48, 1, 1]"
    );
    assert!(full_state(&small(), &backbone, 2, 1).is_err());
}

#[test]
fn modes_have_names() {
    for mode in [Recycle::Paper, Recycle::Coherent] {
        assert_eq!(mode.to_string().parse::<Recycle>().unwrap(), mode);
        assert_eq!(serde_json::to_string(&mode).unwrap(), format!("{:?}", mode.to_string()));
    }
    assert!("random".parse::<Recycle>().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn states_fit(plan in any_plan(), seed: u64) {
        let backbone = labelled(&plan.options().backbone);
        for mode in [Recycle::Paper, Recycle::Coherent] {
            let state = recycle(&plan, &backbone, mode, seed).unwrap();
            prop_assert_eq!(state.check(plan.spec()), Ok(()));
            for (name, tensor) in &state.stem {
                prop_assert_eq!(tensor, &backbone[name]);
            }
        }
    }

    /// One branch is the reduced backbone, bit for bit, whatever the mode.
    #[test]
    fn one_branch_is_the_backbone(plan in any_plan(), seed: u64) {
        let plan = Plan::new(PlanOptions { branches: 1, shift: None, ..plan.options().clone() }).unwrap();
        let backbone = labelled(&plan.options().backbone);
        for mode in [Recycle::Paper, Recycle::Coherent] {
            let state = recycle(&plan, &backbone, mode, seed).unwrap();
            for (name, tensor) in state.branches[0].iter().filter(|(n, _)| !is_fc(n)) {
                prop_assert_eq!(tensor, &backbone[name]);
            }
        }
    }

    /// For every input channel the branches hold, one after another, the first B x q entries of: all filters
    /// in order, then permutations of all. Taps stay together and input channels in place.
    #[test]
    fn paper_uses_filters_evenly(plan in any_plan(), seed: u64) {
        prop_assume!(plan.options().branches > 1);
        let backbone = labelled(&plan.options().backbone);
        let state = recycle(&plan, &backbone, Recycle::Paper, seed).unwrap();
        for p in plan.spec().branch.params().iter().filter(|p| p.shape.len() == 4) {
            let Some(filters) = backbone.get(&p.name) else { continue };
            let (all, all_in) = (filters.shape[0], filters.shape[1]);
            let (q, q_in, taps) = (p.shape[0], p.shape[1], p.shape[2] * p.shape[3]);
            let first = filters.data[0];
            for c in 0..q_in {
                let mut list = Vec::new();
                for branch in &state.branches {
                    for filter in branch[&p.name].data.chunks(q_in * taps) {
                        let label = (filter[c * taps] - first) as usize / taps;
                        prop_assert_eq!(label % all_in, c);
                        list.push(label / all_in);
                        for (tap, &value) in filter[c * taps..(c + 1) * taps].iter().enumerate() {
                            prop_assert_eq!((value - first) as usize, label * taps + tap);
                        }
                    }
                }
                prop_assert_eq!(list.len(), q * state.branches.len());
                for (round, chunk) in list.chunks(all).enumerate() {
                    let distinct: BTreeSet<_> = chunk.iter().collect();
                    prop_assert_eq!(distinct.len(), chunk.len());
                    if round == 0 {
                        prop_assert!(chunk.iter().copied().eq(0..chunk.len()));
                    }
                }
            }
        }
    }

    /// Every tensor of a coherent branch is the backbone's at the channels that it says.
    #[test]
    fn coherent_is_a_gather(plan in any_plan(), seed: u64) {
        prop_assume!(plan.options().branches > 1);
        let backbone = labelled(&plan.options().backbone);
        let state = recycle(&plan, &backbone, Recycle::Coherent, seed).unwrap();
        for (branch, kept) in state.branches.iter().zip(coherent_channels(&plan, seed)) {
            for (conv, channels) in &kept {
                let name = format!("{conv}.weight");
                let Some(all) = backbone.get(&name) else { continue };
                let taps = all.shape[2] * all.shape[3];
                let mut values = branch[&name].data.iter();
                for &o in &channels.outputs {
                    for &c in &channels.inputs {
                        for tap in 0..taps {
                            prop_assert_eq!(values.next(), all.data.get((o * all.shape[1] + c) * taps + tap));
                        }
                    }
                }
                let norm = conv.replace(".conv", ".bn").replace("downsample.0", "downsample.1");
                for part in ["weight", "bias", "running_mean", "running_var"] {
                    let name = format!("{norm}.{part}");
                    let expected: Vec<f32> = channels.outputs.iter().map(|&c| backbone[&name].data[c]).collect();
                    prop_assert_eq!(&branch[&name].data, &expected);
                }
            }
        }
    }

    /// A layer reads what the layer before it writes, and a stage has one residual stream.
    #[test]
    fn coherent_subsets_follow_the_data(plan in any_plan(), seed: u64) {
        let spec = plan.spec();
        for kept in coherent_channels(&plan, seed) {
            let mut stream: Vec<usize> = (0..spec.stem.features()).collect();
            for block in &spec.branch.blocks {
                let at = |layer: &str| kept.get(&format!("{}.{layer}", block.name));
                let [a, b, c] = ["conv1", "conv2", "conv3"].map(|l| at(l).unwrap());
                prop_assert_eq!(&a.inputs, &stream);
                prop_assert_eq!(&b.inputs, &a.outputs);
                prop_assert_eq!(&c.inputs, &b.outputs);
                match at("downsample.0") {
                    Some(skip) => prop_assert!(skip.inputs == stream && skip.outputs == c.outputs),
                    None => prop_assert_eq!(&c.outputs, &stream),
                }
                stream.clone_from(&c.outputs);
            }
        }
    }

    /// Within a branch channels are distinct; across branches none is used twice before all are used once, and so on.
    #[test]
    fn coherent_subsets_are_dealt_evenly(plan in any_plan(), seed: u64) {
        let net = &plan.options().backbone;
        let kept = coherent_channels(&plan, seed);
        for name in kept[0].keys() {
            let stage = name.as_bytes()[5] - b'1';
            let planes = net.planes[usize::from(stage)];
            let stream = name.ends_with("conv3") || name.ends_with("downsample.0");
            let all = if stream { EXPANSION * planes } else { net.width(planes) };
            let mut uses = vec![0; all];
            for branch in &kept {
                let outputs = &branch[name].outputs;
                prop_assert!(outputs.windows(2).all(|w| w[0] < w[1]));
                outputs.iter().for_each(|&c| uses[c] += 1);
            }
            // A channel held back for the next branch can lag one more round behind.
            let (min, max) = (uses.iter().min().unwrap(), uses.iter().max().unwrap());
            prop_assert!(max - min <= 2, "{name}: {uses:?}");
            if kept.len() * kept[0][name].outputs.len() <= all {
                prop_assert!(*max == 1);
            }
        }
    }
}
