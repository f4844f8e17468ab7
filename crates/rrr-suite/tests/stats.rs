//! Our statistics next to SciPy's, scikit-posthocs' and statsmodels' (`golden/make.py`).

use proptest::prelude::*;
use rrr_suite::stats::{
    average_ranks, bootstrap_mean, friedman, holm, nemenyi, ranks, sd, wilcoxon, win_tie_loss,
};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/stats.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn cases<'a>(golden: &'a Value, name: &str) -> &'a [Value] {
    let cases = golden[name].as_array().unwrap();
    assert!(!cases.is_empty(), "{name} has no cases");
    cases
}

fn all_close(ours: &[f64], theirs: &Value, tolerance: f64, what: &str) {
    let theirs = theirs.as_array().unwrap();
    assert_eq!(ours.len(), theirs.len(), "{what}");
    ours.iter().zip(theirs).for_each(|(ours, theirs)| close(*ours, theirs, tolerance, what));
}

fn close(ours: f64, theirs: &Value, tolerance: f64, what: &str) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= tolerance * theirs.abs().max(1e-3), "{what}: {ours}, not {theirs}");
}

#[test]
fn friedman_and_nemenyi_agree_with_scipy_and_scikit_posthocs() {
    for (i, case) in cases(&golden(), "friedman").iter().enumerate() {
        let scores: Vec<Vec<f64>> = case["scores"].as_array().unwrap().iter().map(numbers).collect();
        let f = friedman(&scores).unwrap();
        all_close(&f.ranks, &case["ranks"], 1e-12, &format!("case {i}, ranks"));
        for (what, ours) in [("chi2", f.chi2), ("p", f.p), ("f", f.f), ("f_p", f.f_p)] {
            close(ours, &case[what], 1e-9, &format!("case {i}, {what}"));
        }
        let n = nemenyi(&f.ranks, f.datasets, 0.05);
        close(n.critical_difference, &case["critical_difference"], 1e-6, "critical difference");
        let theirs = case["nemenyi"].as_array().unwrap();
        assert_eq!(n.p.len(), theirs.len(), "case {i}, nemenyi");
        for (ours, theirs) in n.p.iter().zip(theirs) {
            all_close(ours, theirs, 1e-5, &format!("case {i}, nemenyi"));
        }
    }
}

#[test]
fn wilcoxon_agrees_with_scipy() {
    for case in cases(&golden(), "wilcoxon") {
        let w = wilcoxon(&numbers(&case["a"]), &numbers(&case["b"])).unwrap();
        let what = format!("{} differences", w.n);
        assert_eq!((w.n as u64, w.exact), (case["n"].as_u64().unwrap(), case["exact"].as_bool().unwrap()));
        close(w.statistic, &case["statistic"], 1e-12, &what);
        close(w.p, &case["p"], 1e-9, &what);
    }
}

#[test]
fn holm_agrees_with_statsmodels() {
    for case in cases(&golden(), "holm") {
        all_close(&holm(&numbers(&case["p"])), &case["adjusted"], 1e-12, "holm");
    }
}

/// Two bootstraps draw differently: their ends agree to a small part of the interval.
#[test]
fn bootstrap_intervals_agree_with_scipy() {
    for case in cases(&golden(), "bootstrap") {
        let b = bootstrap_mean(&numbers(&case["values"]), 0.95, 1).unwrap();
        let (low, high) = (case["low"].as_f64().unwrap(), case["high"].as_f64().unwrap());
        close(b.mean, &case["mean"], 1e-12, "mean");
        let slack = 0.02 * (high - low);
        assert!((b.low - low).abs() < slack && (b.high - high).abs() < slack, "{b:?}, not {low} to {high}");
    }
}

#[test]
fn small_cases_are_as_by_hand() {
    assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    assert_eq!(average_ranks(&[vec![0.9, 0.8], vec![0.5, 0.5]]), [1.25, 1.75]);
    assert_eq!((sd(&[2.0, 4.0]), sd(&[2.0])), (Some(2f64.sqrt()), None));
    let s = win_tie_loss(&[0.3, 0.1 + 0.2, 0.5], &[0.2, 0.3, 0.6]);
    assert_eq!((s.wins, s.ties, s.losses), (1, 1, 1));
    assert!(wilcoxon(&[1.0, 2.0], &[1.0, 2.0]).is_none());
    assert!(friedman(&[vec![1.0, 2.0]]).is_none());
    let same = friedman(&[vec![1.0, 1.0], vec![2.0, 2.0]]).unwrap();
    assert_eq!((same.chi2, same.p), (0.0, 1.0));
    assert_eq!(bootstrap_mean(&[0.5, 0.5, 0.5], 0.95, 1).map(|b| (b.low, b.high)), Some((0.5, 0.5)));
}

#[test]
fn nemenyi_groups_are_the_largest_within_the_difference() {
    let n = nemenyi(&[1.2, 2.0, 3.1, 3.7], 20, 0.05);
    assert!((n.critical_difference - 1.0488).abs() < 1e-3, "{}", n.critical_difference);
    assert_eq!(n.groups, [vec![0, 1], vec![2, 3]]);
}

proptest! {
    #[test]
    fn ranks_add_up_and_ignore_scale(values in prop::collection::vec(-8i32..8, 1..20)) {
        let x: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let r = ranks(&x);
        let n = x.len() as f64;
        prop_assert!((r.iter().sum::<f64>() - n * (n + 1.0) / 2.0).abs() < 1e-9);
        let scaled: Vec<f64> = x.iter().map(|v| 3.0 * v + 1.0).collect();
        prop_assert_eq!(r, ranks(&scaled));
    }

    #[test]
    fn wilcoxon_does_not_care_who_is_first(pairs in prop::collection::vec((0u8..40, 0u8..40), 2..30)) {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
        prop_assert_eq!(wilcoxon(&a, &b), wilcoxon(&b, &a));
        if let Some(w) = wilcoxon(&a, &b) {
            prop_assert!((0.0..=1.0).contains(&w.p));
        }
    }

    #[test]
    fn bootstrap_intervals_hold_their_mean(values in prop::collection::vec(-1.0f64..1.0, 3..12)) {
        let b = bootstrap_mean(&values, 0.95, 7).unwrap();
        prop_assert!(b.low <= b.mean && b.mean <= b.high);
        prop_assert_eq!(Some(b), bootstrap_mean(&values, 0.95, 7));
    }
}
