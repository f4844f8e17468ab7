//! Gaussian noise.

use crate::rng::SeededRng;

/// Number of random words that the normal distribution is divided among.
const WORDS: usize = 1 << 16;

/// Adds normal noise of standard deviation `sigma` to every value: `floor(p + g)`, cut off at 0 and 255, which
/// for whole `p` is `p + floor(g)`. The noise comes from the generator `(seed, "noise")`, one little-endian
/// 16-bit word per value, so that it is resolved to 1/65536 and reaches to 4.2 standard deviations.
#[inline(always)]
pub fn gaussian(image: &mut [u8], sigma: f64, seed: u64, levels: &mut Levels) {
    /// Values that are looked up at a time: few enough that hardly ever one needs a search.
    const VALUES: usize = 64;
    levels.set(sigma);
    let mut rng = SeededRng::new(seed, "noise", "", 0, 0);
    let mut words = [[[0; 2]; VALUES]; 8];
    let mut groups = [Group::MANY; VALUES];
    for values in image.chunks_mut(VALUES * words.len()) {
        rng.fill(words.as_flattened_mut().as_flattened_mut());
        for (values, words) in values.chunks_mut(VALUES).zip(&words) {
            levels.look_up(words, &mut groups);
            if groups.iter().fold(0, |most, group| group.first().max(most)) == Group::MANY.first() {
                levels.search(words, &mut groups);
            }
            for ((p, group), word) in values.iter_mut().zip(&groups).zip(words) {
                let noise = group.level(u16::from_le_bytes(*word));
                *p = add(*p, noise);
            }
        }
    }
}

#[inline(always)]
fn add(value: u8, level: i16) -> u8 {
    (i16::from(value) + level).clamp(0, 255) as u8
}

/// Random words that lie together.
const GROUP: usize = 16;

/// The levels of a group of words: the first of them have one, in the high byte, the others the next. The low byte is
/// the number of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group(u16);

impl Group {
    /// Stands for a group of more levels.
    const MANY: Self = Self(u8::MAX as u16);

    fn new(level: i32, first: usize) -> Self {
        Self((level << 8) as u16 | first as u16)
    }

    #[inline(always)]
    fn first(self) -> u16 {
        self.0 & 255
    }

    #[inline(always)]
    fn level(self, word: u16) -> i16 {
        (self.0 as i16 >> 8) + i16::from(word % GROUP as u16 >= self.first())
    }
}

/// `floor(g)` by random word, in increasing order, each level for as many words as it is likely.
///
/// Groups of words make a table that stays in the fastest cache.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    groups: Vec<Group>,
    /// The number of words below or at each level from `lowest` on.
    ends: Vec<usize>,
    lowest: i32,
}

impl Levels {
    fn set(&mut self, sigma: f64) {
        /// Standard deviations that leave less than half a word.
        const REACH: f64 = 5.0;
        self.ends.clear();
        self.lowest = 0;
        if sigma > 0.0 {
            self.lowest = (-REACH * sigma).floor().max(f64::from(i8::MIN)) as i32;
            for level in self.lowest..i32::from(i8::MAX) {
                let below = normal_cdf((f64::from(level) + 1.0) / sigma);
                self.ends.push((below * WORDS as f64).round() as usize);
                if self.ends.last() == Some(&WORDS) {
                    break;
                }
            }
        }
        self.ends.push(WORDS);
        self.groups.clear();
        for (i, &end) in self.ends.iter().enumerate() {
            let level = self.lowest + i as i32;
            let (whole, rest) = (end / GROUP, end % GROUP);
            if self.groups.len() < whole {
                self.groups.resize(whole, Group::new(level, GROUP));
            }
            if self.groups.len() == whole && rest > 0 {
                let only_next = self.ends[i + 1] >= (whole + 1) * GROUP;
                self.groups.push(if only_next { Group::new(level, rest) } else { Group::MANY });
            }
        }
    }

    /// Finds the groups of random words.
    #[inline(never)]
    fn look_up(&self, words: &[[u8; 2]], groups: &mut [Group]) {
        let table: &[Group; WORDS / GROUP] = self.groups.as_array().expect("groups are complete");
        for (group, word) in groups.iter_mut().zip(words) {
            *group = table[usize::from(u16::from_le_bytes(*word)) / GROUP];
        }
    }

    /// Replaces groups of many levels by the level of the word.
    #[cold]
    fn search(&self, words: &[[u8; 2]], groups: &mut [Group]) {
        for (group, word) in groups.iter_mut().zip(words).filter(|(group, _)| **group == Group::MANY) {
            let word = usize::from(u16::from_le_bytes(*word));
            let level = self.ends.partition_point(|&end| end <= word);
            *group = Group::new(self.lowest + level as i32, GROUP);
        }
    }
}

/// The standard normal distribution function (Abramowitz and Stegun 26.2.17, error below 7.5e-8).
fn normal_cdf(x: f64) -> f64 {
    const B: [f64; 5] = [0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429];
    let t = 1.0 / (1.0 + 0.2316419 * x.abs());
    let polynomial = B.iter().rev().fold(0.0, |sum, b| (sum + b) * t);
    let tail = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * polynomial;
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The level of every word.
    fn levels(sigma: f64) -> Vec<i16> {
        let words: Vec<[u8; 2]> = (0..=u16::MAX).map(u16::to_le_bytes).collect();
        let mut groups = vec![Group::MANY; WORDS];
        let mut levels = Levels::default();
        levels.set(sigma);
        levels.look_up(&words, &mut groups);
        levels.search(&words, &mut groups);
        groups.iter().zip(0..=u16::MAX).map(|(group, word)| group.level(word)).collect()
    }

    #[test]
    fn groups_agree_with_a_list() {
        for sigma in [1e-9, 0.3, 1.0, 10f64.sqrt(), 5.0, 50f64.sqrt(), 20.0, 40.0, 1e3] {
            let mut list = Vec::new();
            for level in i16::from(i8::MIN)..i16::from(i8::MAX) {
                let below = normal_cdf((f64::from(level) + 1.0) / sigma);
                list.resize((below * WORDS as f64).round() as usize, level);
            }
            list.resize(WORDS, i16::from(i8::MAX));
            assert!(levels(sigma) == list, "{sigma}");
        }
    }

    #[test]
    fn levels_have_the_moments_of_floored_normals() {
        for sigma in [10f64.sqrt(), 5.0, 50f64.sqrt()] {
            let levels = levels(sigma);
            let n = WORDS as f64;
            let mean = levels.iter().map(|&l| f64::from(l)).sum::<f64>() / n;
            let variance = levels.iter().map(|&l| (f64::from(l) - mean).powi(2)).sum::<f64>() / n;
            assert!((mean + 0.5).abs() < 1e-3, "mean {mean}");
            assert!((variance / (sigma * sigma + 1.0 / 12.0) - 1.0).abs() < 2e-3, "variance {variance}");
        }
    }

    /// Adding whole levels equals adding albumentations' real ones (`tests/golden/make.py`).
    #[test]
    fn floored_noise_equals_real_noise() {
        const BLOB: &[u8] = include_bytes!("../../tests/golden/golden.bin");
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/golden.json")).unwrap();
        let place = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
        let cases = golden["cases"].as_array().unwrap().iter().filter(|c| c["op"] == "noise");
        let mut checked = 0;
        for case in cases {
            let input = &golden["images"][case["input"].as_str().unwrap()];
            let len = 3 * place(&input["width"]) * place(&input["height"]);
            let at = |value| &BLOB[place(value)..][..len];
            let levels = at(&case["params"][0]).iter().map(|&level| i16::from(level as i8));
            let ours: Vec<u8> =
                at(&input["at"]).iter().zip(levels).map(|(&p, level)| add(p, level)).collect();
            assert!(ours == at(&case["at"]), "{case}");
            checked += 1;
        }
        assert_eq!(checked, 6);
    }

    #[test]
    fn each_value_gets_the_level_of_its_word() {
        // Pieces of all lengths, values that are cut off at either end, groups that need a search.
        for (sigma, n) in [(5.0, 3), (50f64.sqrt(), 64 * 8 * 3 + 65), (0.3, 700)] {
            let image: Vec<u8> = (0..n).map(|i| [0, 255, 100, 3][i % 4]).collect();
            let mut words = vec![[0; 2]; n.next_multiple_of(64 * 8)];
            SeededRng::new(9, "noise", "", 0, 0).fill(words.as_flattened_mut());
            let levels = levels(sigma);
            let expected = |(&p, word): (&u8, &[u8; 2])| {
                (i32::from(p) + i32::from(levels[usize::from(u16::from_le_bytes(*word))])).clamp(0, 255) as u8
            };
            let expected: Vec<u8> = image.iter().zip(&words).map(expected).collect();
            let mut ours = image.clone();
            gaussian(&mut ours, sigma, 9, &mut Levels::default());
            assert!(ours == expected && ours != image, "{sigma}");
        }
    }

    #[test]
    fn no_deviation_changes_nothing() {
        let mut image = vec![7; 600];
        gaussian(&mut image, 0.0, 1, &mut Levels::default());
        assert_eq!(image, vec![7; 600]);
    }
}
