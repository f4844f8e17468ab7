use super::*;
use proptest::prelude::*;

#[test]
fn published_numbering_of_resnet152() {
    let net = ResNet::resnet152();
    for (name, index) in [
        ("layer1.0", 4),
        ("layer1.2", 6),
        ("layer2.0", 7),
        ("layer2.7", 14),
        ("layer3.0", 15),
        ("layer3.35", 50),
        ("layer4.0", 51),
        ("layer4.2", 53),
    ] {
        let split: Split = name.parse().unwrap();
        assert_eq!(split.index(&net), index, "{name}");
        assert_eq!(Split::parse(&index.to_string(), &net).unwrap().to_string(), name);
    }
    for index in [0, 3, 54, usize::MAX] {
        let error = Split::from_index(index, &net).unwrap_err();
        assert!(error.to_string().contains("its blocks are 4 to 53"), "{error}");
    }
}

#[test]
fn only_block_names_are_positions() {
    for text in
        ["", "layer", "layer3", "layer0.0", "layer5.0", "layer3.", "layer3.-1", "stage3.0", "layer3.0.1"]
    {
        assert_eq!(text.parse::<Split>(), Err(ArchError::SplitSyntax { text: text.into() }));
    }
}

#[test]
fn names_and_reductions() {
    for name in ResNet::NAMES {
        assert_eq!(ResNet::by_name(name).unwrap().name, name);
    }
    assert_eq!(ResNet::by_name("resnet152.a1h_in1k").unwrap(), ResNet::resnet152());
    assert!(ResNet::by_name("resnet18").unwrap_err().to_string().contains("wide_resnet101_2"));
    let net = ResNet::resnet152();
    assert_eq!(net.reduced([3, 8, 36, 3]).unwrap(), net);
    let error = net.reduced([1, 9, 1, 1]).unwrap_err();
    assert_eq!(error.to_string(), "layer2 cannot keep 9 blocks: resnet152 has 8 there; hint: give 1 to 8");
    assert!(net.reduced([1, 1, 0, 1]).is_err());
}

#[test]
fn full_net_is_torchvisions() {
    let net = ResNet::resnet152().full_net(1000);
    let params = net.branch.params();
    assert_eq!(net.stem, SequenceSpec::default());
    assert_eq!(params.first().unwrap().name, "conv1.weight");
    assert_eq!(params.last().unwrap().shape, [1000]);
    // 155 convolutions with five tensors each, and the classifier's two.
    assert_eq!(params.len(), 155 * 5 + 2);
    let strided = |name: &str| net.branch.blocks.iter().find(|b| b.name == name).unwrap().stride;
    assert_eq!(["layer1.0", "layer2.0", "layer2.1", "layer4.0"].map(strided), [1, 2, 1, 2]);
}

#[test]
fn wide_blocks_widen_the_3x3_alone() {
    let wide = ResNet::by_name("wide_resnet50_2").unwrap().sequence(None);
    let last = wide.blocks.last().unwrap();
    assert_eq!((last.width, last.cout), (1024, 2048));
}

#[test]
fn split_inside_a_stage_adds_a_downsample() {
    let net = ResNet::resnet152().reduced([1, 1, 3, 1]).unwrap();
    let at = Split::new(3, 1);
    let split = net.split_net(at, 4, &[64, 128, 100, 200], 5).unwrap();
    assert_eq!(split.stem.features(), 1024);
    assert_eq!(
        split.branch.blocks.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(),
        ["layer3.1", "layer3.2", "layer4.0"]
    );
    let first = &split.branch.blocks[0];
    assert_eq!((first.cin, first.cout, first.stride, first.downsample), (1024, 400, 1, true));
    assert!(!split.branch.blocks[1].downsample);
    // A branch as wide as the stage needs none: the cut leaves the network as it was.
    assert!(!net.split_net(at, 1, &net.planes, 5).unwrap().branch.blocks[0].downsample);
    // Sixteen planes put out the 64 channels that the stem has, but they are not the stem's channels.
    let thin = net.split_net(Split::new(1, 0), 16, &[16, 32, 64, 128], 5).unwrap();
    assert!(thin.branch.blocks[0].downsample);
    assert_eq!(
        net.split_net(Split::new(3, 3), 4, &net.planes, 5),
        Err(ArchError::SplitNotKept { split: Split::new(3, 3), stage: 3, kept: 3 })
    );
}

proptest! {
    #[test]
    fn index_round_trip(b in [1usize..4, 1usize..9, 1usize..37, 1usize..4], i in 0usize..60) {
        let net = ResNet::standard("any", b, 64);
        match Split::from_index(i, &net) {
            Ok(split) => {
                prop_assert_eq!(split.index(&net), i);
                prop_assert_eq!(split.to_string().parse::<Split>().unwrap(), split);
            }
            Err(_) => prop_assert!(i < 4 || i >= 4 + b.iter().sum::<usize>()),
        }
    }

    /// Wherever it is cut, stem and one branch of full width are together the uncut network.
    #[test]
    fn cutting_loses_nothing(b in [1usize..4, 1usize..5, 1usize..7, 1usize..4], pick in 0usize..60) {
        let net = ResNet::resnet152().reduced(b).unwrap();
        let at = net.positions().nth(pick % b.iter().sum::<usize>()).unwrap();
        let cut = net.split_net(at, 1, &net.planes, 7).unwrap();
        let mut params = cut.stem.params();
        params.extend(cut.branch.params());
        prop_assert_eq!(params, net.sequence(Some(7)).params());
    }
}
