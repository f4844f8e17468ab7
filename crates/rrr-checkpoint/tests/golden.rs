//! Files written by PyTorch (`golden/make.py`), read back.

use std::path::PathBuf;

use rrr_checkpoint::{Checkpoint, ConvertOptions, Dtype, Error, LoadOptions, convert, inspect, load_state};

const A: [f32; 6] = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5];
const B: [f32; 3] = [1.5, -2.0, 0.25];

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(golden(name)).unwrap()
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.tensors().iter().map(|t| t.name.as_str()).collect()
}

#[test]
fn plain_state_dict_of_every_protocol() {
    for name in ["plain.pt", "protocol3.pt", "protocol4.pt", "protocol5.pt"] {
        let checkpoint = open(name);
        assert_eq!(names(&checkpoint), ["a", "b"], "{name}");
        assert_eq!(checkpoint.tensor("a").unwrap().shape, [2, 3]);
        assert_eq!(checkpoint.read_f32("a").unwrap(), A);
        assert_eq!(checkpoint.read_f32("b").unwrap(), B);
    }
}

#[test]
fn nested_dicts_are_found() {
    for (name, wrapper) in [("nested.pt", "state_dict"), ("deep.pt", "model.module")] {
        let checkpoint = open(name);
        assert_eq!(checkpoint.wrapper(), Some(wrapper));
        assert_eq!(names(&checkpoint), ["a", "b"], "{name}");
        assert_eq!(checkpoint.read_f32("b").unwrap(), B);
    }
}

#[test]
fn prefixes_are_found_and_mismatches_listed() {
    let checkpoint = open("parallel.pt");
    let expected =
        |b: &str, shape: &[usize]| vec![("a".to_owned(), vec![2, 3]), (b.to_owned(), shape.to_vec())];
    let options = LoadOptions::default();
    let state = load_state(&checkpoint, &expected("b", &[3]), &options).unwrap();
    assert_eq!(state.prefix, "module.");
    assert_eq!(state.tensors["a"], (vec![2, 3], A.to_vec()));
    assert!(state.extra.is_empty());

    let message = load_state(&checkpoint, &expected("c", &[3]), &options).unwrap_err().to_string();
    assert!(message.contains("1 missing (module.c)"), "{message}");
    let message = load_state(&checkpoint, &expected("b", &[4]), &options).unwrap_err().to_string();
    assert!(message.contains("1 misshapen (module.b is 3 instead of 4)"), "{message}");

    let only_a = vec![("a".to_owned(), vec![2, 3])];
    assert_eq!(load_state(&checkpoint, &only_a, &options).unwrap().extra, ["module.b"]);
    let strict = LoadOptions { deny_extra: true, ..options };
    let message = load_state(&checkpoint, &only_a, &strict).unwrap_err().to_string();
    assert!(message.contains("1 unexpected (module.b)"), "{message}");
}

#[test]
fn every_element_type() {
    let checkpoint = open("types.pt");
    for (name, dtype) in [("f16", Dtype::F16), ("bf16", Dtype::Bf16), ("f64", Dtype::F64)] {
        assert_eq!(checkpoint.tensor(name).unwrap().dtype, dtype);
        assert_eq!(checkpoint.read_f32(name).unwrap(), A, "{name}");
    }
    let read = |name| checkpoint.read_f32(name).unwrap();
    assert_eq!(read("i64"), [-3.0, (1u64 << 40) as f32]);
    assert_eq!(read("i32"), [-3.0, 7.0]);
    assert_eq!(read("u8"), [0.0, 255.0]);
    assert_eq!(read("bool"), [1.0, 0.0]);
    assert_eq!(read("scalar"), [42.0]);
    assert_eq!(checkpoint.tensor("scalar").unwrap().shape, [0usize; 0]);
    assert_eq!(read("empty"), [0.0f32; 0]);
    assert!(matches!(checkpoint.read_f32("none"), Err(Error::NoTensor { .. })));
}

#[test]
fn strided_tensors_become_row_major() {
    let checkpoint = open("strided.pt");
    let read = |name| checkpoint.read_f32(name).unwrap();
    let base = |i: usize, j: usize, k: usize| (12 * i + 4 * j + k) as f32;
    let mut transposed = Vec::new();
    for k in 0..4 {
        for j in 0..3 {
            transposed.extend((0..2).map(|i| base(i, j, k)));
        }
    }
    assert_eq!(checkpoint.tensor("transposed").unwrap().shape, [4, 3, 2]);
    assert_eq!(read("transposed"), transposed);
    assert_eq!(read("sliced"), [4.0, 6.0, 8.0, 10.0, 16.0, 18.0, 20.0, 22.0]);
    assert_eq!(read("channels_last"), (0..24).map(|x| x as f32).collect::<Vec<_>>());
    assert_eq!(read("row"), [20.0, 21.0, 22.0, 23.0]);
    assert_eq!(read("expanded"), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
}

#[test]
fn parameters_and_shared_storages() {
    let checkpoint = open("parameters.pt");
    assert_eq!(names(&checkpoint), ["weight", "bias", "tied"]);
    assert_eq!(checkpoint.read_f32("weight").unwrap(), A);
    assert_eq!(checkpoint.read_f32("tied").unwrap(), A);
    assert_eq!(checkpoint.read_f32("bias").unwrap(), [0.5, -0.5]);
}

#[test]
fn refusals_say_what_to_do() {
    let refuse = |name| Checkpoint::open(golden(name)).unwrap_err().to_string();
    let message = refuse("legacy.pt");
    assert!(message.contains("legacy pickle format") && message.contains("torch.save"), "{message}");
    let message = refuse("whole_model.pt");
    assert!(message.contains("refused") && message.contains("`torch.nn.modules.linear.Linear`"), "{message}");
    assert!(message.contains("state_dict()"), "{message}");
    let message = refuse("script.pt");
    assert!(message.contains("TorchScript"), "{message}");
    let message = refuse("make.py");
    assert!(message.contains("make.py") && message.contains("neither safetensors nor"), "{message}");
    let message = refuse("missing.pt");
    assert!(message.contains("cannot read") && message.contains("missing.pt"), "{message}");
}

#[test]
fn folders_are_searched() {
    let folder = tempfile::tempdir().unwrap();
    let message = || Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(message().contains("no checkpoint in this folder"));
    let copy = |to: &str| std::fs::copy(golden("plain.pt"), folder.path().join(to)).unwrap();
    copy("one.pth");
    assert!(Checkpoint::open(folder.path()).unwrap().path().ends_with("one.pth"));
    copy("two.pth");
    assert!(message().contains("holds 2 checkpoints (one.pth, two.pth"));
    // Content decides, not the name.
    copy("model.safetensors");
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(checkpoint.path().ends_with("model.safetensors"));
    assert_eq!(checkpoint.read_f32("b").unwrap(), B);
}

#[test]
fn conversion_keeps_values() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.safetensors");
    let report = convert(&golden("types.pt"), &target, &ConvertOptions::default()).unwrap();
    assert_eq!(report.dropped, ["i64", "i32", "u8", "bool"]);
    assert!(report.layout.is_none() && report.card.is_none());
    let checkpoint = Checkpoint::open(&target).unwrap();
    assert_eq!(checkpoint.read_f32("bf16").unwrap(), A);
    let summary = inspect(&target).unwrap();
    assert_eq!((summary.tensors, summary.parameters), (5, 19));
    assert_eq!(summary.dtypes["f32"], 5);
    assert!(summary.not_resnet.unwrap().contains("layer1.0.conv1.weight"));
}
