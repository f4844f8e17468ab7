//! Metrics against scikit-learn, SciPy and NumPy (`golden/make.py`), their laws and their errors.

mod common;

use common::{floats, names, predictions};
use proptest::prelude::*;
use rrr_report::metrics::{Combine, Metrics, MetricsError, Predictions, argmax, softmax, wilson_interval};
use serde_json::Value;

fn optional(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

#[track_caller]
fn close(actual: f64, expected: f64, what: &str) {
    assert!((actual - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{what}: {actual} != {expected}");
}

#[track_caller]
fn all_close(actual: &[Option<f64>], expected: &[Option<f64>], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (a, e) in actual.iter().zip(expected) {
        assert_eq!(a.is_some(), e.is_some(), "{what}: {a:?} != {e:?}");
        close(a.unwrap_or(0.0), e.unwrap_or(0.0), what);
    }
}

#[test]
fn golden_values() {
    let golden: Value = serde_json::from_str(include_str!("golden/metrics.json")).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let predictions = predictions(case);
        let metrics = Metrics::evaluate(&predictions).unwrap();
        let expected = &case["expected"];
        let scalars = [
            ("accuracy", metrics.accuracy),
            ("balanced_accuracy", metrics.balanced_accuracy),
            ("macro_f1", metrics.macro_f1),
            ("top5_accuracy", metrics.top5_accuracy),
            ("nll", metrics.nll),
            ("brier", metrics.brier),
            ("ece", metrics.calibration.ece),
        ];
        for (key, value) in scalars {
            close(value, expected[key].as_f64().unwrap(), &format!("{name}, {key}"));
        }
        let interval = floats(&expected["interval"]);
        close(metrics.accuracy_interval.low, interval[0], name);
        close(metrics.accuracy_interval.high, interval[1], name);
        let column = |value: fn(&rrr_report::metrics::ClassMetrics) -> Option<f64>| {
            metrics.per_class.iter().map(value).collect::<Vec<_>>()
        };
        all_close(&column(|c| c.precision), &optional(&expected["precision"]), &format!("{name}, precision"));
        all_close(&column(|c| c.recall), &optional(&expected["recall"]), &format!("{name}, recall"));
        all_close(&column(|c| c.f1), &optional(&expected["f1"]), &format!("{name}, f1"));
        all_close(
            &column(|c| Some(c.support as f64)),
            &optional(&expected["support"]),
            &format!("{name}, support"),
        );
        let branch: Vec<_> = metrics.branch_accuracy.iter().copied().map(Some).collect();
        all_close(&branch, &optional(&expected["branch_accuracy"]), &format!("{name}, branches"));
        all_close(
            &[metrics.disagreement],
            &[expected["disagreement"].as_f64()],
            &format!("{name}, disagreement"),
        );
        assert_eq!(serde_json::to_value(&metrics.confusion).unwrap(), expected["confusion"], "{name}");
        let uncertainties = predictions.uncertainties().unwrap();
        let entropies: Vec<_> = uncertainties.iter().map(|u| Some(u.entropy)).collect();
        let information: Vec<_> = uncertainties.iter().map(|u| Some(u.mutual_information)).collect();
        all_close(&entropies, &optional(&expected["entropy"]), &format!("{name}, entropy"));
        all_close(&information, &optional(&expected["mutual_information"]), &format!("{name}, information"));

        let json = serde_json::to_string(&metrics).unwrap();
        assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), metrics, "{name}");
    }
}

fn two_images() -> Predictions {
    Predictions {
        classes: names(2),
        labels: vec![0, 1],
        branches: 1,
        probs: vec![0.9, 0.1, 0.4, 0.6],
        combine: Combine::MeanOfSoftmax,
        temperature: None,
    }
}

#[test]
fn invalid_input_is_refused() {
    let error = |change: fn(&mut Predictions)| {
        let mut predictions = two_images();
        change(&mut predictions);
        Metrics::evaluate(&predictions).unwrap_err()
    };
    let empty = |p: &mut Predictions| {
        p.labels.clear();
        p.probs.clear();
    };
    assert_eq!(error(empty), MetricsError::NoImages);
    assert_eq!(error(|p| p.classes.clear()), MetricsError::NoClasses);
    assert_eq!(error(|p| p.branches = 0), MetricsError::NoBranches);
    assert!(matches!(error(|p| p.branches = 2), MetricsError::BranchSize { expected: 8, actual: 4, .. }));
    assert!(matches!(error(|p| p.labels[1] = 2), MetricsError::Label { image: 1, label: 2, classes: 2 }));
    assert_eq!(error(|p| p.probs[2] = f32::NAN), MetricsError::NotFinite { image: 1 });
    assert_eq!(error(|p| p.probs[0] = f32::INFINITY), MetricsError::NotFinite { image: 0 });
    assert!(matches!(error(|p| p.probs[0] = 0.5), MetricsError::NotDistribution { image: 0, .. }));
    let short = |p: &mut Predictions| p.combine = Combine::Given(vec![1.0]);
    assert!(matches!(error(short), MetricsError::EnsembleSize { expected: 4, actual: 1, .. }));
    let nan = |p: &mut Predictions| p.combine = Combine::Given(vec![f32::NAN; 4]);
    assert_eq!(error(nan), MetricsError::NotFinite { image: 0 });
}

#[test]
fn confident_mistakes_have_a_finite_loss() {
    let mut predictions = two_images();
    predictions.probs = vec![0.0, 1.0, 0.0, 1.0];
    let metrics = Metrics::evaluate(&predictions).unwrap();
    close(metrics.nll, -f64::from(f32::EPSILON).ln() / 2.0, "nll");
    assert_eq!(metrics.calibration.bins.last().unwrap().count, 2);
}

#[test]
fn wilson_interval_at_the_ends() {
    assert_eq!(wilson_interval(0, 10).low, 0.0);
    assert_eq!(wilson_interval(10, 10).high, 1.0);
    assert!(wilson_interval(10, 10).low < 0.75);
    assert_eq!((wilson_interval(0, 0).low, wilson_interval(0, 0).high), (0.0, 1.0));
}

#[test]
fn argmax_takes_the_first_of_equals() {
    assert_eq!(argmax(&[0.2, 0.4, 0.4]), 1);
}

prop_compose! {
    fn sizes()(branches in 1usize..5, images in 1usize..20, classes in 1usize..9)
        (labels in prop::collection::vec(0..classes as u32, images),
         logits in prop::collection::vec(-8f32..8.0, branches * images * classes),
         branches in Just(branches), classes in Just(classes)) -> Predictions {
        let mut probs = logits;
        softmax(&mut probs, classes);
        Predictions {
            classes: names(classes), labels, branches, probs, combine: Combine::MeanOfSoftmax, temperature: None,
        }
    }
}

proptest! {
    #[test]
    fn values_stay_in_bounds(predictions in sizes()) {
        let metrics = Metrics::evaluate(&predictions).unwrap();
        let fractions = [
            metrics.accuracy, metrics.balanced_accuracy, metrics.macro_f1, metrics.top5_accuracy,
            metrics.calibration.ece, metrics.mean_branch_accuracy, metrics.disagreement.unwrap_or(0.0),
        ];
        for fraction in fractions {
            prop_assert!((0.0..=1.0).contains(&fraction), "{}", fraction);
        }
        prop_assert!(metrics.nll >= 0.0 && (0.0..=2.0 + 1e-6).contains(&metrics.brier));
        let interval = metrics.accuracy_interval;
        prop_assert!(0.0 <= interval.low && interval.low <= metrics.accuracy);
        prop_assert!(metrics.accuracy <= interval.high && interval.high <= 1.0);
        let counted: u32 = metrics.confusion.iter().flatten().sum();
        prop_assert_eq!(counted as usize, metrics.n);
        prop_assert_eq!(metrics.calibration.bins.iter().map(|bin| bin.count).sum::<usize>(), metrics.n);
        prop_assert!(metrics.top5_accuracy >= metrics.accuracy);
        for uncertainty in predictions.uncertainties().unwrap() {
            let most = (predictions.classes.len() as f64).ln();
            prop_assert!((0.0..=most + 1e-5).contains(&uncertainty.entropy));
            prop_assert!(uncertainty.mutual_information >= 0.0);
            prop_assert!(uncertainty.mutual_information <= uncertainty.entropy + 1e-9);
        }
    }

    #[test]
    fn order_of_images_does_not_matter(predictions in sizes(), rotation in 0usize..20) {
        let (classes, images) = (predictions.classes.len(), predictions.labels.len());
        let mut rotated = predictions.clone();
        rotated.labels.rotate_left(rotation % images);
        for branch in rotated.probs.chunks_exact_mut(images * classes) {
            branch.rotate_left(rotation % images * classes);
        }
        let (a, b) = (Metrics::evaluate(&predictions).unwrap(), Metrics::evaluate(&rotated).unwrap());
        prop_assert_eq!(&a.confusion, &b.confusion);
        prop_assert_eq!(&a.branch_accuracy, &b.branch_accuracy);
        prop_assert_eq!(a.disagreement, b.disagreement);
        for (x, y) in [(a.nll, b.nll), (a.brier, b.brier), (a.calibration.ece, b.calibration.ece)] {
            prop_assert!((x - y).abs() < 1e-9);
        }
    }

    #[test]
    fn order_of_branches_does_not_matter(predictions in sizes()) {
        let size = predictions.labels.len() * predictions.classes.len();
        let mut turned = predictions.clone();
        turned.probs.rotate_left(size % predictions.probs.len());
        let (a, b) = (Metrics::evaluate(&predictions).unwrap(), Metrics::evaluate(&turned).unwrap());
        prop_assert_eq!(a.disagreement, b.disagreement);
        prop_assert!((a.brier - b.brier).abs() < 1e-6 && (a.mean_branch_accuracy - b.mean_branch_accuracy).abs() < 1e-12);
    }

    #[test]
    fn perfect_predictions_are_perfect(labels in prop::collection::vec(0u32..6, 1..30), branches in 1usize..4) {
        let row = |&label: &u32| (0..6).map(move |class| f32::from(u8::from(class == label)));
        let once: Vec<f32> = labels.iter().flat_map(row).collect();
        let predictions = Predictions {
            classes: names(6), labels, branches, probs: once.repeat(branches), combine: Combine::MeanOfSoftmax,
            temperature: None,
        };
        let metrics = Metrics::evaluate(&predictions).unwrap();
        prop_assert_eq!((metrics.accuracy, metrics.balanced_accuracy, metrics.macro_f1), (1.0, 1.0, 1.0));
        prop_assert_eq!((metrics.nll, metrics.brier, metrics.calibration.ece), (0.0, 0.0, 0.0));
        prop_assert_eq!(metrics.disagreement.unwrap_or(0.0), 0.0);
        prop_assert!(predictions.uncertainties().unwrap().iter().all(|u| u.entropy == 0.0));
    }
}
