//! Laws of seeded stratified splits.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;
use rrr_data::{Dataset, Sample, Source, SourceKind, SplitSpec, Splits, Take};

fn source(kind: SourceKind, counts: &[usize]) -> Source {
    let mut train = Vec::new();
    for (label, &n) in counts.iter().enumerate() {
        for i in 0..n {
            let id = format!("class{label}/{i}.jpg");
            train.push(Sample { path: PathBuf::from(&id), id, label: label as u32 });
        }
    }
    Source {
        kind,
        name: "set".into(),
        root: PathBuf::from("set"),
        classes: (0..counts.len()).map(|i| format!("class{i}")).collect(),
        train,
        valid: None,
        test: None,
        ignored: 0,
        notes: Vec::new(),
    }
}

fn counts(part: Option<&Dataset>) -> Vec<usize> {
    part.map(Dataset::class_counts).unwrap_or_default()
}

fn ids(splits: &Splits) -> Vec<&str> {
    let parts = [Some(&splits.train), splits.valid.as_ref(), splits.test.as_ref()];
    parts.into_iter().flatten().flat_map(|d| d.samples.iter().map(|s| s.id.as_str())).collect()
}

fn per_class(train: usize, valid: usize, test: usize) -> SplitSpec {
    let take = |n| Some(Take::PerClass(n));
    SplitSpec { train: take(train), valid: take(valid), test: take(test) }
}

#[test]
fn defaults() {
    let album = source(SourceKind::MetaAlbum, &[40, 33, 20, 7]);
    let splits = album.split(&SplitSpec::default(), 1).unwrap();
    assert_eq!(splits.train.class_counts(), [20, 20, 10, 4]);
    assert_eq!(counts(splits.test.as_ref()), [20, 13, 10, 3]);
    assert!(splits.valid.is_none());

    let folder = source(SourceKind::Folder, &[40, 10, 2]);
    let splits = folder.split(&SplitSpec::default(), 1).unwrap();
    assert_eq!(splits.train.class_counts(), [32, 8, 1]);
    assert_eq!(counts(splits.test.as_ref()), [8, 2, 1]);
}

#[test]
fn the_papers_validation_split() {
    let album = source(SourceKind::MetaAlbum, &[40; 3]);
    for spec in [per_class(15, 5, 20), SplitSpec { valid: Some(Take::PerClass(5)), ..SplitSpec::default() }] {
        let splits = album.split(&spec, 1).unwrap();
        assert_eq!(splits.train.class_counts(), [15; 3]);
        assert_eq!(counts(splits.valid.as_ref()), [5; 3]);
        assert_eq!(counts(splits.test.as_ref()), [20; 3]);
    }
}

#[test]
fn given_parts_stay_and_the_rest_is_drawn() {
    let mut folder = source(SourceKind::Folder, &[10, 10]);
    folder.test = Some(folder.train.split_off(15));
    let splits = folder.split(&SplitSpec::default(), 1).unwrap();
    assert_eq!(splits.train.class_counts(), [10, 5]);
    assert_eq!(splits.test.as_ref().unwrap().samples, *folder.test.as_ref().unwrap());
    let spec = SplitSpec { valid: Some(Take::Fraction(0.2)), test: Some(Take::PerClass(3)), train: None };
    let splits = folder.split(&spec, 1).unwrap();
    assert_eq!(splits.train.class_counts(), [8, 4]);
    assert_eq!(counts(splits.valid.as_ref()), [2, 1]);
    assert_eq!(counts(splits.test.as_ref()), [0, 3]);
}

#[test]
fn impossible_splits_are_explained() {
    let one = source(SourceKind::Folder, &[5, 1]);
    let error = one.split(&SplitSpec::default(), 1).unwrap_err().to_string();
    assert!(error.starts_with("class 'class1' has 1 image but the split needs 2"), "{error}");
    let one = source(SourceKind::MetaAlbum, &[5, 1]);
    assert!(one.split(&SplitSpec::default(), 1).is_err());
    let few = source(SourceKind::Folder, &[45, 30]);
    let error = few.split(&per_class(20, 5, 20), 1).unwrap_err().to_string();
    assert!(error.starts_with("class 'class1' has 30 images but the split needs 45"), "{error}");
    let f = |train, test| SplitSpec {
        train: Some(Take::Fraction(train)),
        valid: None,
        test: Some(Take::Fraction(test)),
    };
    assert!(few.split(&f(0.9, 0.2), 1).unwrap_err().to_string().contains("sum to 1.1"));
    assert!(few.split(&f(-0.1, 0.2), 1).unwrap_err().to_string().contains("train fraction is -0.1"));
    assert!(few.split(&f(f64::NAN, 0.2), 1).is_err());
    assert!(few.split(&f(0.0, 0.2), 1).unwrap_err().to_string().contains("training part would be empty"));
}

/// The definition must not drift: saved runs name a seed, not a list of files.
#[test]
fn the_split_of_a_seed_is_pinned() {
    let splits = source(SourceKind::MetaAlbum, &[4, 4]).split(&SplitSpec::default(), 7).unwrap();
    assert_eq!(ids(&splits), PINNED);
}

const PINNED: [&str; 8] = [
    "class0/1.jpg",
    "class0/2.jpg",
    "class1/0.jpg",
    "class1/1.jpg",
    "class0/3.jpg",
    "class0/0.jpg",
    "class1/2.jpg",
    "class1/3.jpg",
];

fn spec() -> impl Strategy<Value = SplitSpec> {
    let take = || {
        prop_oneof![
            Just(None),
            (1usize..6).prop_map(|n| Some(Take::PerClass(n))),
            (0.05f64..0.33).prop_map(|f| Some(Take::Fraction(f))),
        ]
    };
    (take(), take(), take()).prop_map(|(train, valid, test)| SplitSpec { train, valid, test })
}

proptest! {
    #[test]
    fn stratified_disjoint_and_independent_of_order(
        counts in prop::collection::vec(20usize..45, 2..6),
        spec in spec(),
        seed: u64,
        rotate in 0usize..100,
        album: bool,
    ) {
        let kind = if album { SourceKind::MetaAlbum } else { SourceKind::Folder };
        let source = source(kind, &counts);
        let splits = source.split(&spec, seed).unwrap();
        let ids = ids(&splits);
        prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        prop_assert!(splits.train.class_counts().iter().all(|&n| n > 0));
        if let Some(Take::PerClass(n)) = spec.train {
            prop_assert!(splits.train.class_counts().iter().all(|&c| c == n));
        }
        if spec.train.is_none() || spec.test.is_none() {
            prop_assert_eq!(ids.len(), source.train.len());
        }
        let mut moved = source.clone();
        moved.train.rotate_left(rotate % source.train.len());
        moved.train.reverse();
        prop_assert_eq!(&moved.split(&spec, seed).unwrap(), &splits);
    }

    #[test]
    fn a_class_is_split_alike_whatever_others_there_are(n in 20usize..45, seed: u64) {
        let alone = source(SourceKind::Folder, &[n, 20]).split(&SplitSpec::default(), seed).unwrap();
        let crowd = source(SourceKind::Folder, &[n, 30, 25]).split(&SplitSpec::default(), seed).unwrap();
        let first = |s: &Splits| s.train.samples.iter().filter(|s| s.label == 0).cloned().collect::<Vec<_>>();
        prop_assert_eq!(first(&alone), first(&crowd));
    }
}
