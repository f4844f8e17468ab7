//! Laws of reading and writing.

mod common;

use std::borrow::Cow;
use std::collections::BTreeMap;

use common::{exhaust, golden, open, safetensors_file};
use proptest::prelude::*;
use rrr_checkpoint::{Checkpoint, Error, TensorRef, atomic_write, write_safetensors};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors() -> impl Strategy<Value = Tensors> {
    let tensor = prop::collection::vec(0usize..4, 0..4).prop_flat_map(|shape| {
        let numel = shape.iter().product::<usize>();
        (Just(shape), prop::collection::vec(any::<f32>(), numel))
    });
    prop::collection::btree_map("[a-z.0-9é\"\\\\]{1,12}", tensor, 0..6)
}

fn refs(tensors: &Tensors) -> Vec<TensorRef<'_>> {
    tensors.iter().map(|(name, (shape, data))| TensorRef { name, shape, data }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn safetensors_round_trip(tensors in tensors(), metadata in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4)) {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("1"), folder.path().join("2"));
        let mut list = refs(&tensors);
        write_safetensors(&one, &list, &metadata).unwrap();
        list.reverse();
        write_safetensors(&two, &list, &metadata).unwrap();
        prop_assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());

        let checkpoint = Checkpoint::open(&one).unwrap();
        prop_assert_eq!(checkpoint.metadata(), &metadata);
        prop_assert_eq!(checkpoint.tensors().len(), tensors.len());
        for (name, (shape, data)) in &tensors {
            prop_assert_eq!(&checkpoint.tensor(name).unwrap().shape, shape);
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&checkpoint.read_f32(name).unwrap()), bits(data));
        }
    }

    #[test]
    fn mutated_files_never_panic(
        which in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let name = ["plain.pt", "protocol4.pt", "strided.pt", "types.pt", "parameters.pt"][which];
        let mut file = std::fs::read(golden(name)).unwrap();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = exhaust(&file);
    }

    #[test]
    fn mutated_pickles_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut pickle = PICKLE.to_vec();
        for (at, byte) in changes {
            let at = at.index(pickle.len());
            pickle[at] = byte;
        }
        let _ = exhaust(&common::zip_file(&pickle, &[("0", &[0; 24])]));
    }

    #[test]
    fn mutated_safetensors_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let header = r#"{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut file = common::safetensors_file(header, &[0; 8]);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = exhaust(&file);
    }
}

/// A state dict with a 2x3 tensor of the storage `0`.
const PICKLE: &[u8] = b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(\
    (X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89\
    ccollections\nOrderedDict\n)RtRu}X\x09\0\0\0_metadataNsb.";

#[test]
fn the_pickle_to_be_mutated_is_whole() {
    assert_eq!(exhaust(&common::zip_file(PICKLE, &[("0", &[0; 24])])).unwrap(), 6);
}

#[test]
fn wrong_tensors_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensor = |name, data| TensorRef { name, shape: &[2], data };
    let write =
        |list: &[TensorRef<'_>]| write_safetensors(&path, list, &BTreeMap::new()).unwrap_err().to_string();
    assert!(write(&[tensor("w", &[0.0])]).contains("tensor w of shape 2 comes with 1 values"));
    assert!(write(&[tensor("w", &[0.0; 2]), tensor("w", &[0.0; 2])]).contains("tensor w comes twice"));
    assert!(write(&[tensor("__metadata__", &[0.0; 2])]).contains("no name"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn writing_replaces_whole_files_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    atomic_write(&path, b"old").unwrap();
    atomic_write(&path, b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let inside_file = path.join("x");
    let error = atomic_write(&inside_file, b"x").unwrap_err();
    assert!(matches!(&error, Error::Io { .. }) && error.to_string().contains("cannot write"), "{error}");
}

/// Where not even root may create files.
#[cfg(target_os = "linux")]
#[test]
fn folders_that_cannot_be_written_to_are_named() {
    let error = atomic_write("/proc/rrr-checkpoint-test", b"x").unwrap_err().to_string();
    assert!(error.starts_with("cannot write /proc/rrr-checkpoint-test"), "{error}");
}

#[test]
fn values_are_borrowed_where_they_are_aligned_and_right_where_they_are_not() {
    let values = [1.5f32, -2.25, f32::MIN_POSITIVE];
    let data: Vec<u8> = [7].into_iter().chain(values.into_iter().flat_map(f32::to_le_bytes)).collect();
    let mut borrowed = 0;
    for padding in 0..4 {
        let header = format!(
            r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},"b":{{"dtype":"F32","shape":[3],"data_offsets":[1,13]}}}}{}"#,
            " ".repeat(padding)
        );
        let checkpoint = open(&safetensors_file(&header, &data)).unwrap();
        let view = checkpoint.view_f32("b").unwrap();
        assert_eq!(*view, values);
        borrowed += usize::from(matches!(view, Cow::Borrowed(_)));
    }
    assert_eq!(borrowed, usize::from(cfg!(target_endian = "little")));
}
