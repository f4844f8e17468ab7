use super::*;
use crate::arch::{ResNet, Split};
use proptest::prelude::*;

/// Parameters with a classifier of 1000 as torchvision's model table gives them; multiply-adds at 224x224 as the sum
/// over convolutions and classifier (4.09, 7.80, 11.51, 11.40 and 22.75 "GFLOPS" there).
#[test]
fn published_costs() {
    for (name, params, macs) in [
        ("resnet50", 25_557_032, 4_089_184_256),
        ("resnet101", 44_549_160, 7_801_405_440),
        ("resnet152", 60_192_808, 11_513_626_624),
        ("wide_resnet50_2", 68_883_240, 11_398_021_120),
        ("wide_resnet101_2", 126_886_696, 22_753_050_624),
    ] {
        let cost = net_cost(&ResNet::by_name(name).unwrap().full_net(1000), [224, 224]);
        assert_eq!((cost.params, cost.macs), (params, macs), "{name}");
    }
}

#[test]
fn resnet152_without_classifier() {
    let cost = sequence_cost(&ResNet::resnet152().sequence(None), [3, 224, 224]);
    assert_eq!(cost.params, 58_143_808);
    assert_eq!(cost.output, [2048, 7, 7]);
    let reduced = ResNet::resnet152().reduced([1; 4]).unwrap().sequence(None);
    assert_eq!(sequence_cost(&reduced, [3, 128, 128]).params, 8_015_936);
}

/// Worked out by hand for a 32x32 image: `conv1` makes 16x16, the pool 8x8.
#[test]
fn activation_memory_by_hand() {
    let net = ResNet { name: "small".into(), stem: 8, blocks: [1; 4], planes: [2, 4, 8, 16], base_width: 64 };
    let cost = net_cost(&net.split_net(Split::new(2, 0), 3, &[2, 2, 4, 8], 5).unwrap(), [32, 32]);
    let stem = cost.stem();
    // conv1: 8 channels; layer1.0: 2, 2 and 8 channels; its skip path has none (8 in, 8 out).
    assert_eq!(stem.parts[0].activation_bytes, 4 * 8 * 256);
    assert_eq!(stem.parts[1].activation_bytes, 4 * 64 * (2 + 2 + 8));
    // The image (3 x 32 x 32) beside conv1's output; a block's input, 3x3 output and last output.
    assert_eq!(stem.parts[0].peak_bytes, 4 * (3 * 1024 + 8 * 256));
    assert_eq!(stem.parts[1].peak_bytes, 4 * 64 * (8 + 2 + 8));
    // layer2.0 of a branch: 2 channels at 8x8, 2 at 4x4, 8 at 4x4 and as many on the skip path.
    let first = &cost.branch().parts[0];
    assert_eq!(first.activation_bytes, 4 * (2 * 64 + 2 * 16 + 8 * 16 + 8 * 16));
    assert_eq!(first.peak_bytes, 4 * (8 * 64 + 2 * 8 * 16));
    assert_eq!(cost.training_bytes, 4 * 8 * 64 + 3 * cost.branch().activation_bytes);
    assert_eq!(cost.branch().parts.last().unwrap().macs, 32 * 5);
}

#[test]
fn one_pixel_is_enough() {
    let cost = net_cost(&ResNet::resnet50().full_net(2), [1, 1]);
    assert_eq!(cost.branch().output, [2048, 1, 1]);
}

/// A coarse branch costs what a branch of half the image does; weights are there once.
#[test]
fn coarse_branches_see_half_the_image() {
    let spec = ResNet::resnet152().reduced([1; 4]).unwrap();
    let spec = spec.split_net(Split::new(3, 0), 8, &[64, 128, 79, 170], 20).unwrap();
    let at = |coarse, side| net_cost(&NetSpec { coarse, ..spec.clone() }, [side; 2]);
    let (mixed, whole, half) = (at(3, 128), at(0, 128), at(0, 64));
    assert_eq!(mixed.params, whole.params);
    let macs = |cost: &NetCost, branches: u64| cost.stem().macs + branches * cost.branch().macs;
    assert_eq!(mixed.macs, macs(&half, 3) + macs(&whole, 5));
    assert_eq!((mixed.branches(), mixed.groups.len()), (8, 2));
    assert_eq!((mixed.stem(), mixed.branch()), (whole.stem(), whole.branch()));
    assert_eq!((at(8, 128).macs, at(8, 128).peak_bytes), (half.macs, half.peak_bytes));
}

proptest! {
    /// The count agrees with the tensors that the compute core trains, and with its parts.
    #[test]
    fn parameters_are_the_tensors(
        (stem, base_width) in (1usize..9, 1usize..4),
        blocks in [1usize..3, 1usize..3, 1usize..3, 1usize..3],
        planes in [1usize..9, 1usize..9, 1usize..9, 1usize..9],
        (branches, classes) in (1usize..5, 1usize..9),
        size in [1usize..40, 1usize..40],
        stage in 1usize..5,
    ) {
        let net = ResNet { name: "any".into(), stem, blocks, planes, base_width: 32 * base_width };
        let spec = net.split_net(Split::new(stage, 0), branches, &planes, classes).unwrap();
        let cost = net_cost(&spec, size);
        let (stem, branch) = (trainable_params(&spec.stem), trainable_params(&spec.branch));
        prop_assert_eq!((cost.stem().params, cost.branch().params), (stem, branch));
        prop_assert_eq!(cost.params, stem + branches as u64 * branch);
        for sequence in [cost.stem(), cost.branch()] {
            let layers = sequence.parts.iter().flat_map(|p| &p.layers);
            prop_assert_eq!(sequence.macs, layers.map(|l| l.macs).sum::<u64>());
        }
        prop_assert!(cost.peak_bytes >= cost.stem().peak_bytes.max(cost.branch().peak_bytes));
    }

    /// A multiply-add per weight and output pixel.
    #[test]
    fn macs_are_weights_times_pixels(size in [1usize..70, 1usize..70]) {
        for layer in sequence_cost(&ResNet::resnet50().sequence(None), [3, size[0], size[1]])
            .parts.iter().flat_map(|p| &p.layers)
        {
            let [channels, height, width] = layer.output.map(|n| n as u64);
            prop_assert_eq!(layer.macs, (layer.params - 2 * channels) * height * width);
        }
    }
}
