//! Hostile and broken files: always an error, never a panic, an execution or a large allocation.

mod common;

use common::{exhaust, golden, open, safetensors_file, zip_file};

fn message(pickle: &[u8]) -> String {
    open(&zip_file(pickle, &[])).unwrap_err().to_string()
}

#[test]
fn code_is_refused_by_name() {
    for (pickle, name) in [
        (&b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."[..], "`os.system`"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02ls\x85R.", "`posix.system`"),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94)\x81.", "`os.system`"),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", "`builtins.eval`"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x00\x85R.", "`torch.storage._load_from_bytes`"),
        (b"\x80\x02ctorch\nload\n.", "`torch.load`"),
    ] {
        let message = message(pickle);
        assert!(
            message.contains("refused: its pickle wants to import") && message.contains(name),
            "{message}"
        );
    }
    assert!(message(b"\x80\x02cos\nsystem\n.").contains("do not trust this file"));
}

#[test]
fn other_opcodes_are_refused_by_name() {
    for (pickle, name) in [
        (&b"\x80\x02(ios\nsystem\n."[..], "INST"),
        (b"\x80\x02(cos", "middle of a name"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02Pid\n.", "PERSID"),
        (b"\x80\x02I1\n.", "INT"),
        (b"\x80\x02\xff.", "0xff"),
        (b"\x80\x06.", "protocol 6"),
    ] {
        let message = message(pickle);
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn calls_of_the_wrong_things() {
    for pickle in [
        &b"\x80\x02NNR."[..],
        b"\x80\x02N)R.",
        b"\x80\x02ccollections\nOrderedDict\nNR.",
        b"\x80\x02ccollections\nOrderedDict\n(K\x01K\x02K\x03tR.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tR.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n(NNNtR.",
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)NtR.",
        b"\x80\x02NQ.",
        b"\x80\x02X\x07\0\0\0storageK\x01\x86Q.",
        b"\x80\x02Na.",
        b"\x80\x02NNNs.",
        b"\x80\x02(Nd.",
        b"\x80\x02h\x00.",
        b"\x80\x02q\x00.",
        b"\x80\x02(0.",
        b"\x80\x02t.",
        b"\x80\x02.",
        b"\x80\x02N(\x85.",
        b"",
    ] {
        let message = message(pickle);
        assert!(message.contains("damaged"), "{}: {message}", pickle.escape_ascii());
    }
}

#[test]
fn bombs_stay_small() {
    // Deep nesting: a million tuples in one another.
    let deep = [b"\x80\x02)".to_vec(), vec![0x85; 1 << 20], b".".to_vec()].concat();
    assert!(message(&deep).contains("no tensors"));
    // Each list holds the one before twice.
    let mut laughs = b"\x80\x02]q\x00".to_vec();
    for _ in 0..60 {
        laughs.extend(b"h\x00h\x00\x86q\x00");
    }
    laughs.push(b'.');
    assert!(message(&laughs).contains("no tensors"));
    // Each dict holds the one before twice: 2^40 paths, cut off by the depth.
    let mut dicts = b"\x80\x02}q\x00".to_vec();
    for _ in 0..40 {
        dicts.extend(b"}X\x01\0\0\0ah\x00sX\x01\0\0\0bh\x00sq\x00");
    }
    dicts.push(b'.');
    assert!(message(&dicts).contains("nested more than"));
    // A dict that holds itself.
    assert!(message(b"\x80\x02}q\x00X\x01\0\0\0ah\x00s.").contains("nested more than"));
    // A string that claims four gigabytes.
    assert!(message(b"\x80\x02X\xff\xff\xff\xffa.").contains("ends at byte"));
    assert!(message(b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.").contains("ends at byte"));
    assert!(message(b"\x80\x02T\xff\xff\xff\xffa.").contains("impossible length"));
    // The largest memo index costs one entry.
    assert!(message(b"\x80\x02Nr\xff\xff\xff\xff.").contains("no tensors"));
}

/// What opcodes of a byte or two build without end: values, memo entries, marks.
#[test]
fn repetition_is_limited() {
    for opcode in [&b"N"[..], b"(", b"\x94"] {
        let pickle = [b"\x80\x02N", opcode.repeat(9 << 20).as_slice(), b"."].concat();
        assert!(message(&pickle).contains("builds more than"), "{}", opcode.escape_ascii());
    }
    // Tensors of 64 axes, six bytes each.
    let axes = [b"(".to_vec(), b"K\x01".repeat(64), b"t".to_vec()].concat();
    let pickle = [
        &b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00"[..],
        b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\x00",
        &axes,
        &axes,
        b"tq\x01",
        &b"h\x00h\x01R0".repeat(100_000),
        b".",
    ]
    .concat();
    assert!(message(&pickle).contains("builds more than"));
}

/// A state dict that nests the dict `inner` under two names, and so on: 2^`depth` times the tensors.
fn shared(inner: &[u8], name: usize, depth: usize) -> Vec<u8> {
    let key = |c: u8| [&b"X"[..], &u32::try_from(name).unwrap().to_le_bytes(), &vec![c; name]].concat();
    let mut pickle = [b"\x80\x02", inner, b"q\x00"].concat();
    for _ in 0..depth {
        pickle.extend([b"}", key(b'a').as_slice(), b"h\x00s", key(b'b').as_slice(), b"h\x00sq\x00"].concat());
    }
    pickle.push(b'.');
    pickle
}

#[test]
fn shared_tensors_stay_small() {
    let one = 1f32.to_le_bytes();
    let read = |pickle: &[u8]| open(&zip_file(pickle, &[("0", &one)]));
    let dict = |shape: &[i64], strides: &[i64]| {
        let whole = tensor(1, 0, shape, strides);
        whole[2..whole.len() - 1].to_vec()
    };
    let few = read(&shared(&dict(&[1], &[1]), 1, 10)).unwrap();
    assert_eq!((few.tensors().len(), few.tensors()[0].name.len()), (1 << 10, 21));
    // Each may repeat its value so often; all of them would be gigabytes.
    let repeated = read(&shared(&dict(&[1 << 24], &[0]), 1, 6)).unwrap_err().to_string();
    assert!(repeated.contains("instead of its 0") && repeated.contains("hint: save clones"), "{repeated}");
    // A few kilobytes of names become a hundred megabytes.
    let long = read(&shared(&dict(&[1; 8], &[1; 8]), 60, 16)).unwrap_err().to_string();
    assert!(long.contains("names and shapes take more than 64 MiB"), "{long}");
}

/// A state dict with one f32 tensor `w`; the numbers are pickled as LONG1 of eight bytes.
fn tensor(claimed: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let long = |n: i64| [&[0x8a, 8], &n.to_le_bytes()[..]].concat();
    let tuple = |v: &[i64]| [vec![b'('], v.iter().flat_map(|&n| long(n)).collect(), vec![b't']].concat();
    [
        &b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n("[..],
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu",
        &long(claimed),
        b"tQ",
        &long(offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89NtRs.",
    ]
    .concat()
}

#[test]
fn tensors_outside_their_storage() {
    let bytes: Vec<u8> = (0..6u8).flat_map(|x| f32::from(x).to_le_bytes()).collect();
    let read = |pickle: &[u8]| exhaust(&zip_file(pickle, &[("0", &bytes)]));
    assert_eq!(read(&tensor(6, 0, &[2, 3], &[3, 1])).unwrap(), 6);
    assert_eq!(read(&tensor(6, 5, &[1, 1], &[i64::MAX, 7])).unwrap(), 1);
    let max = i64::MAX;
    for (claimed, offset, shape, strides, part) in [
        (7, 0, &[2i64, 3][..], &[3i64, 1][..], "fewer than it says"),
        (max, 0, &[2, 3], &[3, 1], "fewer than it says"),
        (-1, 0, &[2, 3], &[3, 1], "without a name or size"),
        (6, 1, &[2, 3], &[3, 1], "does not fit its storage"),
        (6, max, &[2, 3], &[3, 1], "does not fit its storage"),
        (6, -1, &[2, 3], &[3, 1], "impossible shape, stride or offset"),
        (6, 0, &[-2, 3], &[3, 1], "impossible shape, stride or offset"),
        (6, 0, &[2, 3], &[-3, 1], "impossible shape, stride or offset"),
        (6, 0, &[2, 3], &[4, 1], "does not fit its storage"),
        (6, 0, &[2, 3], &[max, max], "does not fit its storage"),
        (6, 0, &[2, 3], &[1], "number of strides"),
        (6, 0, &[max, max], &[1, 1], "too large to exist"),
        (6, 0, &[max], &[0], "too large to exist"),
        (6, 0, &[1 << 40], &[0], "repeats a storage"),
    ] {
        let message = read(&tensor(claimed, offset, shape, strides)).unwrap_err().to_string();
        assert!(message.contains(part), "{part}: {message}");
    }
    let absent = exhaust(&zip_file(&tensor(6, 0, &[6], &[1]), &[])).unwrap_err().to_string();
    assert!(absent.contains("a storage that is not there"), "{absent}");
}

#[test]
fn lying_safetensors() {
    let one = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    assert_eq!(exhaust(&safetensors_file(one, &[0; 8])).unwrap(), 2);
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{a}}},"b":{{"dtype":"F32","shape":[1],"data_offsets":{b}}}}}"#
        )
    };
    let huge = r#"{"w":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}"#;
    for (header, data) in [
        (one.to_owned(), 7),
        (one.to_owned(), 9),
        (one.replace("[2]", "[3]"), 8),
        (one.replace("[0,8]", "[8,0]"), 8),
        (one.replace("[0,8]", "[4,12]"), 12),
        (one.replace("[0,8]", "[0,18446744073709551615]"), 8),
        (one.replace("F32", "F33"), 8),
        (huge.to_owned(), 8),
        (two("[0,4]", "[0,4]"), 4),
        (two("[0,4]", "[2,6]"), 6),
        (two("[0,4]", "[8,12]"), 12),
        ("{".repeat(5000), 8),
        (format!(r#"{{"__metadata__":{}"#, "[".repeat(100_000)), 8),
    ] {
        let error = open(&safetensors_file(&header, &vec![0; data])).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{header:.80}: {error}");
    }
    for length in [0, 1, 1 << 20, 1 << 40, u64::MAX] {
        let mut file = safetensors_file(one, &[0; 8]);
        file[..8].copy_from_slice(&length.to_le_bytes());
        let error = open(&file).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{length}: {error}");
    }
}

#[test]
fn files_cut_at_every_length() {
    let pytorch = std::fs::read(golden("plain.pt")).unwrap();
    let header = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    for file in [pytorch, safetensors_file(header, &[0; 8])] {
        assert!(open(&file).is_ok());
        for length in 0..file.len() {
            assert!(open(&file[..length]).is_err(), "cut at {length} of {}", file.len());
        }
    }
}

#[test]
fn compressed_storages_are_not_ours() {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("archive/data.pkl", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&[b'.'; 1000]).unwrap();
    let error = open(&zip.finish().unwrap().into_inner()).unwrap_err().to_string();
    assert!(error.contains("is compressed"), "{error}");
}

#[test]
fn other_formats_are_named() {
    for (bytes, part) in [
        (&b""[..], "it is empty"),
        (b"abc", "too short"),
        (b"\x80\x04N.aaaaaaaa", "plain pickle"),
        (b"\x89HDF\r\n\x1a\naaaaa", "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x1f\x8baaaaaaaaaa", "gzip"),
    ] {
        let error = open(bytes).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
