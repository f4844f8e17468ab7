/// The area under the receiver operating characteristic of a score that should be higher on `positive` than on
/// `negative`: the probability that a random positive scores higher than a random negative, ties counted half
/// (the Mann-Whitney statistic; Hanley and McNeil, Radiology 143, 1982). 1 is perfect, 0.5 is chance.
///
/// None when either side is empty or a score is NaN. Takes O(n log n), and counts in whole numbers, so that only the
/// final division rounds.
pub fn auroc(negative: &[f64], positive: &[f64]) -> Option<f64> {
    if negative.is_empty() || positive.is_empty() || negative.iter().chain(positive).any(|s| s.is_nan()) {
        return None;
    }
    let sorted = |scores: &[f64]| {
        let mut scores = scores.to_vec();
        scores.sort_by(f64::total_cmp);
        scores
    };
    let (negative, positive) = (sorted(negative), sorted(positive));
    let (mut below, mut up_to) = (0, 0);
    let mut twice_won = 0u128;
    for score in &positive {
        below += negative[below..].iter().take_while(|n| *n < score).count();
        up_to += negative[up_to..].iter().take_while(|n| *n <= score).count();
        twice_won += (below + up_to) as u128;
    }
    Some(twice_won as f64 / (2 * negative.len() as u128 * positive.len() as u128) as f64)
}
