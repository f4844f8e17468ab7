use super::*;
use crate::arch::ResNet;
use rrr_checkpoint::{TensorRef, write_safetensors};
use rrr_nn::Tensor;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn small() -> ResNet {
    let name = "resnet 1,2,1,1".into();
    ResNet { name, stem: 6, blocks: [1, 2, 1, 1], planes: [2, 4, 4, 6], base_width: 64 }
}

fn filled(net: &ResNet) -> State {
    let params = net.sequence(Some(3)).params().into_iter().enumerate();
    let tensor = |(t, p): (usize, rrr_nn::ParamSpec)| {
        let n: usize = p.shape.iter().product();
        (p.name, Tensor { shape: p.shape, data: (0..n).map(|i| (t * 31 + i) as f32).collect() })
    };
    params.map(tensor).collect()
}

fn write(dir: &tempfile::TempDir, state: &State) -> PathBuf {
    let path = dir.path().join("model.safetensors");
    let names: Vec<String> = state.keys().map(|name| format!("module.{name}")).collect();
    let tensors = names.iter().zip(state.values());
    let refs: Vec<_> = tensors.map(|(name, t)| TensorRef { name, shape: &t.shape, data: &t.data }).collect();
    write_safetensors(&path, &refs, &BTreeMap::new()).unwrap();
    path
}

fn read(state: &State) -> Result<(ResNet, State), BackboneError> {
    let dir = tempfile::tempdir().unwrap();
    read_weights(&Checkpoint::open(write(&dir, state)).unwrap())
}

#[test]
fn layout_and_weights_are_read() {
    for base_width in [64, 128, 96] {
        let net = ResNet { base_width, ..small() };
        let state = filled(&net);
        let (arch, weights) = read(&state).unwrap();
        assert_eq!(arch, net);
        assert_eq!(weights.len(), state.len() - 2);
        assert!(weights.iter().all(|(name, tensor)| state[name] == *tensor && !name.starts_with("fc.")));
    }
}

#[test]
fn what_is_missing_is_named() {
    let mut state = filled(&small());
    state.remove("layer2.1.bn2.running_var");
    let message = read(&state).unwrap_err().to_string();
    assert!(
        message.contains("layer2.1.bn2.running_var") && message.contains("model.safetensors"),
        "{message}"
    );
    state.retain(|name, _| name.starts_with("fc."));
    assert!(read(&state).unwrap_err().to_string().contains("is not a bottleneck ResNet"));
}

#[test]
fn other_layouts_are_refused() {
    // As wide as the first stage's output, which then needs no skip convolution.
    let mut state = filled(&ResNet { stem: 8, ..small() });
    for (name, shape) in [("0.weight", vec![8, 8, 1, 1]), ("1.weight", vec![8]), ("1.bias", vec![8])] {
        state.insert(format!("layer1.0.downsample.{name}"), Tensor::zeros(&shape));
    }
    let message = read(&state).unwrap_err().to_string();
    assert!(message.contains("layer1.0 has a skip convolution"), "{message}");
}

#[test]
fn blue_and_red_change_places() {
    let mut state = filled(&small());
    let before = state["conv1.weight"].clone();
    swap_red_and_blue(&mut state);
    for filter in 0..6 {
        for (to, from) in [2, 1, 0].into_iter().enumerate() {
            let at = |c: usize| (filter * 3 + c) * 49..(filter * 3 + c + 1) * 49;
            assert_eq!(state["conv1.weight"].data[at(to)], before.data[at(from)]);
        }
    }
    swap_red_and_blue(&mut state);
    assert_eq!(state, filled(&small()));
}

#[test]
fn weights_for_blue_first_become_weights_for_red_first() {
    let dir = tempfile::tempdir().unwrap();
    let state = filled(&small());
    let weights = write(&dir, &state);
    let card = Card {
        color_order: ColorOrder::Bgr,
        std: [0.1, 0.2, 0.3],
        ..Card::from_mean_std([0.4, 0.5, 0.6], [1.0; 3])
    };
    card.write(&Card::path_beside(&weights)).unwrap();
    let backbone = Backbone::load(weights.to_str().unwrap(), &BackboneOptions::default()).unwrap();
    assert_eq!(backbone.arch, small());
    assert_eq!((backbone.card.mean, backbone.card.std), ([0.6, 0.5, 0.4], [0.3, 0.2, 0.1]));
    assert_eq!(backbone.card.color_order, ColorOrder::Rgb);
    let (blue_first, red_first) = (&state["conv1.weight"].data, &backbone.state["conv1.weight"].data);
    assert_eq!(blue_first[..49], red_first[98..147]);
}

#[test]
fn a_card_or_a_normalisation_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let weights = write(&dir, &filled(&small()));
    let spec = weights.to_str().unwrap();
    let message = Backbone::load(spec, &BackboneOptions::default()).unwrap_err().to_string();
    assert!(message.contains("has no card"), "{message}");
    let options = BackboneOptions { normalize: Some(([0.5; 3], [0.25; 3])), ..BackboneOptions::default() };
    assert_eq!(Backbone::load(spec, &options).unwrap().card.std, [0.25; 3]);
}

/// A real backbone, where one is named: RRR_BACKBONE=resnet152.resmem, already pulled.
#[test]
fn a_real_backbone_recycles() {
    let Ok(spec) = std::env::var("RRR_BACKBONE") else {
        eprintln!("skipped: RRR_BACKBONE is not set");
        return;
    };
    let pull = PullOptions { offline: true, ..PullOptions::default() };
    let backbone = Backbone::load(&spec, &BackboneOptions { pull, normalize: None }).unwrap();
    let options =
        crate::plan::PlanOptions { backbone: backbone.arch.clone(), ..crate::plan::PlanOptions::paper(20) };
    let plan = crate::plan::Plan::new(options).unwrap();
    for mode in [crate::recycle::Recycle::Paper, crate::recycle::Recycle::Coherent] {
        let state = crate::recycle::recycle(&plan, &backbone.state, mode, 1).unwrap();
        state.check(plan.spec()).unwrap();
        let finite = |t: &Tensor| t.data.iter().all(|v| v.is_finite());
        assert!(state.branches.iter().flat_map(|b| b.values()).all(finite));
    }
    let full = crate::recycle::full_state(&backbone.arch, &backbone.state, 20, 1).unwrap();
    full.check(&backbone.arch.full_net(20)).unwrap();
}
