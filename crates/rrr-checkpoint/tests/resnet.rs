//! Recognising ResNets.

use std::collections::BTreeMap;

use rrr_checkpoint::{
    Card, Checkpoint, ConvertOptions, ResNetLayout, TensorRef, convert, detect_resnet, load_state,
    write_safetensors,
};

type Shapes = Vec<(String, Vec<usize>)>;

/// A ResNet of toy widths.
fn toy() -> ResNetLayout {
    ResNetLayout {
        blocks: [1, 2, 3, 1],
        stem_width: 2,
        widths: [1, 2, 3, 4],
        outputs: [4, 8, 12, 16],
        classes: Some(5),
        prefix: String::new(),
    }
}

fn write(folder: &tempfile::TempDir, tensors: &[(String, Vec<usize>)]) -> Checkpoint {
    let data: Vec<Vec<f32>> = tensors.iter().map(|(_, shape)| vec![0.5; shape.iter().product()]).collect();
    let list: Vec<TensorRef<'_>> =
        tensors.iter().zip(&data).map(|((name, shape), data)| TensorRef { name, shape, data }).collect();
    let path = folder.path().join("source");
    write_safetensors(&path, &list, &BTreeMap::new()).unwrap();
    Checkpoint::open(path).unwrap()
}

#[test]
fn the_layout_is_found_under_any_prefix() {
    let folder = tempfile::tempdir().unwrap();
    for (prefix, classes) in [("", Some(5)), ("module.backbone.", None)] {
        let layout = ResNetLayout { prefix: prefix.into(), classes, ..toy() };
        let tensors = layout.tensors();
        let mut stored: Vec<_> =
            tensors.iter().map(|(name, s)| (format!("{prefix}{name}"), s.clone())).collect();
        stored.push(("other.conv1.weight".into(), vec![1]));
        let checkpoint = write(&folder, &stored);
        assert_eq!(detect_resnet(&checkpoint).unwrap(), layout);
        let state = load_state(&checkpoint, &tensors, &Default::default()).unwrap();
        assert_eq!((state.prefix.as_str(), state.tensors.len()), (prefix, tensors.len()));
        assert_eq!(state.extra, ["other.conv1.weight"]);
    }
}

#[test]
fn the_published_networks_have_the_published_tensors() {
    let full = |blocks| ResNetLayout {
        blocks,
        stem_width: 64,
        widths: [64, 128, 256, 512],
        outputs: [256, 512, 1024, 2048],
        classes: Some(1000),
        prefix: String::new(),
    };
    // torchvision's counts; running statistics are no parameters.
    for (blocks, parameters) in
        [([3, 4, 6, 3], 25_557_032), ([3, 4, 23, 3], 44_549_160), ([3, 8, 36, 3], 60_192_808)]
    {
        let tensors = full(blocks).tensors();
        let counted = tensors.iter().filter(|(name, _)| !name.contains("running"));
        assert_eq!(counted.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), parameters);
    }
}

#[test]
fn other_networks_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |change: &dyn Fn(&mut Shapes)| {
        let mut tensors = toy().tensors();
        change(&mut tensors);
        detect_resnet(&write(&folder, &tensors)).unwrap_err().to_string()
    };
    let basic = refuse(&|t| t.retain(|(name, _)| !name.contains("conv3")));
    assert!(basic.contains("not a bottleneck ResNet") && basic.contains("ResNet-18 and 34"), "{basic}");
    let set = |name: &'static str, shape: &'static [usize]| {
        move |t: &mut Shapes| t.iter_mut().filter(|t| t.0 == name).for_each(|t| t.1 = shape.into())
    };
    let message = refuse(&set("layer3.1.conv2.weight", &[3, 1, 3, 3]));
    assert!(message.contains("layer3.1.conv2 is a grouped convolution"), "{message}");
    let message = refuse(&set("layer2.1.conv1.weight", &[2, 9, 1, 1]));
    assert!(message.contains("layer2.1.conv1.weight is 2x9x1x1 instead of 2x8x1x1"), "{message}");
    let message = refuse(&set("fc.weight", &[5, 15]));
    assert!(message.contains("fc.weight is 5x15 instead of Nx16"), "{message}");
    let message = refuse(&set("conv1.weight", &[2, 3, 3, 3]));
    assert!(message.contains("conv1.weight is 2x3x3x3"), "{message}");
    let message = refuse(&|t| t.retain(|(name, _)| !name.starts_with("layer4")));
    assert!(message.contains("it has no layer4"), "{message}");
    let message = refuse(&|t| t.push(("layer1.0.se.fc1.weight".into(), vec![1])));
    assert!(message.contains("attention"), "{message}");
    let message = refuse(&|t| t.clear());
    assert!(message.contains("no tensor layer1.0.conv1.weight"), "{message}");
}

#[test]
fn conversion_takes_the_prefix_off_and_writes_the_card() {
    let folder = tempfile::tempdir().unwrap();
    let mut stored: Vec<_> = toy().tensors().into_iter().map(|(n, s)| (format!("features.{n}"), s)).collect();
    stored.push(("head.weight".into(), vec![3]));
    let checkpoint = write(&folder, &stored);
    let target = folder.path().join("out").join("model.safetensors");
    std::fs::create_dir(target.parent().unwrap()).unwrap();
    let options = ConvertOptions { card: Some(Card::from_mean_std([0.0; 3], [1.0; 3])), prefix: None };
    let report = convert(checkpoint.path(), &target, &options).unwrap();
    assert_eq!((report.prefix.as_str(), report.dropped), ("features.", vec!["head.weight".to_owned()]));
    assert_eq!(detect_resnet(&Checkpoint::open(&target).unwrap()).unwrap(), toy());
    let card = Card::require_beside(&target).unwrap();
    assert_eq!((card.num_classes, card.sha256.map(|h| h.len())), (Some(5), Some(64)));
    // Again over itself is fine; beside the card of other weights is not.
    convert(checkpoint.path(), &target, &options).unwrap();
    let error = convert(checkpoint.path(), &target.with_file_name("two.safetensors"), &options).unwrap_err();
    assert!(error.to_string().contains("belongs to other weights"), "{error}");
    // A ResNet that lacks a tensor is not silently cut down.
    stored.retain(|(name, _)| name != "features.bn1.bias");
    let error = convert(write(&folder, &stored).path(), &target, &options).unwrap_err().to_string();
    assert!(error.contains("1 missing (features.bn1.bias)"), "{error}");
}
