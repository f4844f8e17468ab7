//! Stores and loaders: memory budget, unreadable images, determinism, random access.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use rrr_data::{
    Batch, DataError, Dataset, ImageStore, Loader, LoaderOptions, OpenOptions, Policy, Source, StoreOptions,
    Workers,
};
use tempfile::TempDir;

const SIZE: usize = 24;

/// Two classes of `n` small PNGs that all differ.
fn images(n: u32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for class in 0..2 {
        let folder = dir.path().join(["cat", "dog"][class as usize]);
        fs::create_dir(&folder).unwrap();
        for i in 0..n {
            let shade = |x, y, k| (x * 11 + y * 7 + i * k + class * 90) as u8;
            let image =
                RgbImage::from_fn(30, 26, |x, y| Rgb([shade(x, y, 13), shade(y, x, 29), shade(x, x, 53)]));
            image.save(folder.join(format!("{i:02}.png"))).unwrap();
        }
    }
    dir
}

fn dataset(dir: &Path) -> Dataset {
    Source::open(dir, &OpenOptions::default()).unwrap().everything()
}

fn store(dir: &Path, memory_budget: u64, workers: &Workers) -> Arc<ImageStore> {
    let options = StoreOptions { memory_budget, ..StoreOptions::new(SIZE) };
    Arc::new(ImageStore::load(dataset(dir), options, workers).unwrap())
}

fn epoch(loader: &Loader, epoch: u64, from: usize) -> Vec<Batch> {
    loader.epoch(epoch, from).unwrap().map(Result::unwrap).collect()
}

#[test]
fn neither_threads_nor_memory_change_a_batch() {
    let dir = images(11);
    for policy in [Policy::None, Policy::Light, Policy::Shift, Policy::Paper] {
        let mut first = None;
        for (threads, budget) in [(1, u64::MAX), (2, u64::MAX), (4, 0), (3, 5 * (SIZE * SIZE * 3) as u64)] {
            let workers = Workers::new(threads).unwrap();
            assert_eq!(workers.threads(), threads);
            let store = store(dir.path(), budget, &workers);
            assert_eq!(store.resident(), (budget / (SIZE * SIZE * 3) as u64).min(22) as usize);
            let loader = Loader::new(store, LoaderOptions::training(5, 3, policy), &workers);
            let batches = [epoch(&loader, 0, 0), epoch(&loader, 1, 0)];
            assert_eq!(
                first.get_or_insert_with(|| batches.clone()),
                &batches,
                "{policy:?}, {threads} threads"
            );
        }
    }
}

#[test]
fn contents_are_those_of_the_files_in_memory_or_not() {
    let dir = images(3);
    let contents = |threads, budget| store(dir.path(), budget, &Workers::new(threads).unwrap()).contents();
    let before = contents(1, u64::MAX);
    assert_eq!([contents(2, 0), contents(3, 2 * (SIZE * SIZE * 3) as u64)], [before; 2]);
    fs::copy(dir.path().join("cat/00.png"), dir.path().join("dog/02.png")).unwrap();
    assert_ne!(contents(1, u64::MAX), before);
    assert_eq!(contents(2, 0), contents(1, u64::MAX));
}

#[test]
fn random_access_equals_iteration() {
    let dir = images(8);
    let workers = Workers::new(2).unwrap();
    let store = store(dir.path(), u64::MAX, &workers);
    let loader = Loader::new(store, LoaderOptions::training(6, 9, Policy::Paper), &workers);
    assert_eq!(loader.steps(), 3);
    let all: Vec<Vec<Batch>> = (0..3).map(|e| epoch(&loader, e, 0)).collect();
    let mut reused = Batch::default();
    for (e, step) in [(2, 1), (0, 2), (2, 0), (1, 1)] {
        assert_eq!(loader.batch(e, step).unwrap(), all[e as usize][step]);
        loader.batch_into(e, step, &mut reused).unwrap();
        assert_eq!(reused, all[e as usize][step]);
        assert_eq!(epoch(&loader, e, step), all[e as usize][step..]);
    }
    assert!(epoch(&loader, 0, 3).is_empty());
}

#[test]
fn an_epoch_holds_every_image_once_in_a_new_order() {
    let dir = images(7);
    let workers = Workers::new(2).unwrap();
    let store = store(dir.path(), u64::MAX, &workers);
    let order =
        |loader: &Loader, e| epoch(loader, e, 0).iter().flat_map(|b| b.indices.clone()).collect::<Vec<_>>();
    let loader = |seed, stream| {
        let options = LoaderOptions { stream, ..LoaderOptions::training(4, seed, Policy::None) };
        Loader::new(Arc::clone(&store), options, &workers)
    };
    let base = order(&loader(1, 0), 0);
    let mut sorted = base.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..14).collect::<Vec<_>>());
    for other in [order(&loader(1, 0), 1), order(&loader(2, 0), 0), order(&loader(1, 1), 0)] {
        assert_ne!(other, base);
    }
    let evaluation = Loader::new(Arc::clone(&store), LoaderOptions::evaluation(4), &workers);
    assert_eq!(order(&evaluation, 0), (0..14).collect::<Vec<_>>());
    let batches = epoch(&evaluation, 0, 0);
    assert_eq!(batches.iter().map(|b| b.n).collect::<Vec<_>>(), [4, 4, 4, 2]);
    let mut expected = vec![0; SIZE * SIZE * 3];
    for batch in &batches {
        assert_eq!((batch.size, batch.pixels.len()), (SIZE, batch.n * SIZE * SIZE * 3));
        for (i, (&index, &label)) in batch.indices.iter().zip(&batch.labels).enumerate() {
            store.copy_to(index, &mut expected).unwrap();
            assert_eq!(batch.pixels[i * expected.len()..][..expected.len()], expected);
            assert_eq!(label, store.dataset().samples[index].label);
        }
    }
}

#[test]
fn augmentation_differs_by_epoch_and_image() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a/1.png", "a/2.png", "b/1.png"] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_fn(24, 24, |x, y| Rgb([x as u8 * 10, y as u8 * 10, 77])).save(path).unwrap();
    }
    let workers = Workers::new(1).unwrap();
    let loader = |seed| {
        let options = LoaderOptions { shuffle: false, ..LoaderOptions::training(3, seed, Policy::Light) };
        Loader::new(store(dir.path(), u64::MAX, &workers), options, &workers)
    };
    let (one, two) = (loader(1).batch(0, 0).unwrap(), loader(1).batch(1, 0).unwrap());
    assert_ne!(one.pixels, two.pixels);
    assert_ne!(one.pixels, loader(2).batch(0, 0).unwrap().pixels);
    let (first, rest) = one.pixels.split_at(24 * 24 * 3);
    assert_ne!(first, &rest[..first.len()]);
}

#[test]
fn unreadable_images_are_listed_or_skipped() {
    let dir = images(4);
    fs::write(dir.path().join("cat/01.png"), "text").unwrap();
    let whole = fs::read(dir.path().join("dog/02.png")).unwrap();
    fs::write(dir.path().join("dog/02.png"), &whole[..whole.len() / 2]).unwrap();
    let workers = Workers::new(2).unwrap();
    for memory_budget in [u64::MAX, 2 * (SIZE * SIZE * 3) as u64] {
        let options = StoreOptions { memory_budget, ..StoreOptions::new(SIZE) };
        let error = ImageStore::load(dataset(dir.path()), options, &workers).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("2 images are unreadable: ") && text.ends_with("leave them out with --skip-bad"),
            "{text}"
        );
        let DataError::Unreadable { images } = error else { panic!("{error}") };
        assert!(images[0].path.ends_with("cat/01.png") && images[1].path.ends_with("dog/02.png"));

        let options = StoreOptions { skip_bad: true, ..options };
        let store = ImageStore::load(dataset(dir.path()), options, &workers).unwrap();
        assert_eq!((store.len(), store.bad()), (6, images.as_slice()));
        assert_eq!(store.dataset().class_counts(), [3, 3]);
        // Closing the gaps must not shift pixels against samples.
        let mut pixels = vec![0; SIZE * SIZE * 3];
        for (i, sample) in store.dataset().samples.iter().enumerate() {
            store.copy_to(i, &mut pixels).unwrap();
            let image = rrr_data::decode::read(&sample.path, &options.limits).unwrap();
            assert_eq!(pixels, image.resized(SIZE, options.resize), "{}", sample.id);
        }
    }
    for i in 0..4 {
        fs::write(dir.path().join(format!("cat/{i:02}.png")), "text").unwrap();
    }
    let options = StoreOptions { skip_bad: true, ..StoreOptions::new(SIZE) };
    let error = ImageStore::load(dataset(dir.path()), options, &workers).unwrap_err();
    assert_eq!(error.to_string(), "class 'cat' has no readable image left after skipping 4 unreadable ones");
}

#[test]
fn images_that_a_table_names_but_that_are_missing_are_listed_or_skipped() {
    let dir = images(3);
    let path = dir.path().join("t.csv");
    fs::write(&path, "cat/00.png,cat\nno/1.png,cat\ndog/00.png,dog\nno/2.png,dog\n").unwrap();
    let text = Source::open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(text.contains("t.csv' line 2 names 'no/1.png', which does not exist (2 of its 4"), "{text}");
    assert!(text.ends_with("leave these images out with --skip-bad"), "{text}");

    let dataset =
        || Source::open(&path, &OpenOptions { skip_bad: true, ..Default::default() }).unwrap().everything();
    let workers = Workers::new(1).unwrap();
    let options = StoreOptions { skip_bad: true, ..StoreOptions::new(SIZE) };
    let store = ImageStore::load(dataset(), options, &workers).unwrap();
    let ids: Vec<_> = store.dataset().samples.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["cat/00.png", "dog/00.png"]);
    let bad: Vec<_> = store.bad().iter().map(ToString::to_string).collect();
    assert!(bad.len() == 2 && bad[0].contains("no/1.png: cannot be read: "), "{bad:?}");
    let strict = ImageStore::load(dataset(), StoreOptions::new(SIZE), &workers).unwrap_err();
    assert!(matches!(strict, DataError::Unreadable { images } if images.len() == 2));
}

#[test]
fn an_image_that_vanishes_ends_the_epoch_with_an_error() {
    let dir = images(6);
    let workers = Workers::new(2).unwrap();
    let loader = Loader::new(store(dir.path(), 0, &workers), LoaderOptions::evaluation(4), &workers);
    fs::remove_file(dir.path().join("dog/00.png")).unwrap();
    let results: Vec<_> = loader.epoch(0, 0).unwrap().collect();
    assert_eq!(results.len(), 2);
    assert!(results[0].is_ok());
    assert!(results[1].as_ref().unwrap_err().to_string().contains("00.png: cannot be read"));
}

#[test]
fn an_epoch_can_be_left_early() {
    let dir = images(10);
    let workers = Workers::new(2).unwrap();
    let loader = Loader::new(store(dir.path(), u64::MAX, &workers), LoaderOptions::evaluation(1), &workers);
    let mut batches = loader.epoch(0, 0).unwrap();
    let first = batches.next().unwrap().unwrap();
    batches.recycle(first);
    assert_eq!(batches.next().unwrap().unwrap().indices, [1]);
    drop(batches);
}
