//! Seeded stratified splits.
//!
//! The images of each class are ordered by id, then shuffled with the generator `(seed, "split", class name)`
//! (see [`crate::rng`]). The shuffled list is cut into train, valid and test, in this order. A split is thus a
//! function of the seed, the class names and the image ids alone: neither the order of files on disk nor the
//! presence of other classes changes it. Each part is listed class by class, in shuffled order.

use crate::dataset::{Sample, Splits};
use crate::error::{DataError, Result};
use crate::rng::SeededRng;
use crate::source::{Source, SourceKind};

/// How many images of each class a part takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Take {
    /// This many of each class.
    PerClass(usize),
    /// This share of each class, in 0..=1, rounded to the nearest count (half up), at least one image unless
    /// the share is 0.
    Fraction(f64),
}

impl Take {
    fn count(self, available: usize) -> usize {
        match self {
            Self::PerClass(n) => n,
            Self::Fraction(0.0) => 0,
            Self::Fraction(f) => ((f * available as f64 + 0.5).floor() as usize).max(1),
        }
    }
}

/// What each part takes of every class; `None` leaves it to the rules below.
///
/// Parts that the folder itself holds (`val/`, `test/`) stay as they are; a `Take` for them keeps only that many
/// images of each class. Parts that it lacks are drawn from the training images (`train/`, or everything):
/// - valid: what is asked for, else none.
/// - test: what is asked for; else, if `train` is given, all that is left; else by default all but 20 images of
///   each class for Meta-Album (half of a class that has no more than 20), 20 % of each class for other sources.
/// - train: what is asked for, else all that is left.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SplitSpec {
    /// The training part.
    pub train: Option<Take>,
    /// The validation part.
    pub valid: Option<Take>,
    /// The test part.
    pub test: Option<Take>,
}

const META_ALBUM_TRAIN: usize = 20;
const TEST_SHARE: f64 = 0.2;

impl SplitSpec {
    fn check(&self) -> Result<()> {
        let parts = [("train", self.train), ("valid", self.valid), ("test", self.test)];
        let mut sum = 0.0;
        for (name, take) in parts {
            if let Some(Take::Fraction(f)) = take {
                if !(0.0..=1.0).contains(&f) {
                    let reason = format!("the {name} fraction is {f}, not between 0 and 1");
                    return Err(DataError::InvalidSplit { reason });
                }
                sum += f;
            }
        }
        if sum > 1.0 + 1e-9 {
            return Err(DataError::InvalidSplit {
                reason: format!("the fractions sum to {sum}, more than 1"),
            });
        }
        if matches!(self.train, Some(Take::PerClass(0) | Take::Fraction(0.0))) {
            return Err(DataError::InvalidSplit { reason: "the training part would be empty".into() });
        }
        Ok(())
    }

    /// What to draw from the `n` training images of a class, where `given` parts need nothing.
    fn counts(&self, n: usize, kind: SourceKind, given: Given) -> Counts {
        let valid = if given.valid { 0 } else { self.valid.map_or(0, |t| t.count(n)) };
        let test = match (self.test, self.train) {
            _ if given.test => 0,
            (Some(take), _) => take.count(n),
            (None, Some(train)) => n.saturating_sub(train.count(n) + valid),
            (None, None) if kind == SourceKind::MetaAlbum => {
                let train = if n > META_ALBUM_TRAIN { META_ALBUM_TRAIN } else { n.div_ceil(2) };
                (n - train).max(1)
            }
            (None, None) => Take::Fraction(TEST_SHARE).count(n),
        };
        let left = n.saturating_sub(valid + test);
        let train = match self.train {
            None => left,
            // Rounding each share up by itself may ask for one image too many.
            Some(take @ Take::Fraction(_)) => take.count(n).min(left),
            Some(take @ Take::PerClass(_)) => take.count(n),
        };
        Counts { train: train.max(1), valid, test }
    }
}

/// Which parts the source itself holds.
#[derive(Clone, Copy)]
struct Given {
    valid: bool,
    test: bool,
}

struct Counts {
    train: usize,
    valid: usize,
    test: usize,
}

pub(crate) fn split(source: &Source, spec: &SplitSpec, seed: u64) -> Result<Splits> {
    spec.check()?;
    let given = Given { valid: source.valid.is_some(), test: source.test.is_some() };
    let (mut train, mut valid, mut test) = (Vec::new(), Vec::new(), Vec::new());
    for (class, images) in source.classes.iter().zip(shuffled(source, &source.train, seed)) {
        let Counts { train: a, valid: b, test: c } = spec.counts(images.len(), source.kind, given);
        if a + b + c > images.len() {
            let (class, available) = (class.clone(), images.len());
            return Err(DataError::TooFewImages { class, available, needed: a + b + c });
        }
        let mut images = images.into_iter();
        train.extend(images.by_ref().take(a));
        valid.extend(images.by_ref().take(b));
        test.extend(images.take(c));
    }
    if let Some(given) = &source.valid {
        valid = keep(source, given, spec.valid, seed);
    }
    if let Some(given) = &source.test {
        test = keep(source, given, spec.test, seed);
    }
    let part = |samples: Vec<Sample>| (!samples.is_empty()).then(|| source.dataset(samples));
    Ok(Splits { train: source.dataset(train), valid: part(valid), test: part(test) })
}

/// A part that the source holds, limited to what is asked for.
fn keep(source: &Source, samples: &[Sample], take: Option<Take>, seed: u64) -> Vec<Sample> {
    match take {
        None => samples.to_vec(),
        Some(take) => shuffled(source, samples, seed)
            .into_iter()
            .flat_map(|class| {
                let n = take.count(class.len());
                class.into_iter().take(n)
            })
            .collect(),
    }
}

/// The samples of each class in the seeded order.
fn shuffled(source: &Source, samples: &[Sample], seed: u64) -> Vec<Vec<Sample>> {
    let mut by_class = vec![Vec::new(); source.classes.len()];
    for sample in samples {
        by_class[sample.label as usize].push(sample.clone());
    }
    for (name, images) in source.classes.iter().zip(&mut by_class) {
        images.sort_by(|a, b| a.id.cmp(&b.id));
        SeededRng::new(seed, "split", name, 0, 0).shuffle(images);
    }
    by_class
}
