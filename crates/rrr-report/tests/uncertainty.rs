//! Temperatures, AUROC and abstaining: against SciPy and scikit-learn (`golden/make_uncertainty.py`), and their laws.

mod common;

use common::{floats, names, predictions};
use proptest::prelude::*;
use rrr_report::metrics::{
    Combine, Metrics, Predictions, Selective, Temperature, argmax, auroc, entropy, softmax,
    softmax_of_mean_logits,
};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/uncertainty.json")).unwrap()
}

#[track_caller]
fn close(actual: f64, expected: f64, tolerance: f64, what: &str) {
    let off = (actual - expected).abs();
    assert!(off <= tolerance * expected.abs().max(1.0), "{what}: {actual} != {expected}");
}

/// One branch, and two images of two classes.
fn two_images(probs: [f32; 4]) -> Predictions {
    Predictions {
        classes: names(2),
        labels: vec![0, 1],
        branches: 1,
        probs: probs.to_vec(),
        combine: Combine::MeanOfSoftmax,
        temperature: None,
    }
}

#[test]
fn auroc_is_that_of_scikit_learn() {
    for case in golden()["auroc"].as_array().unwrap() {
        let found = auroc(&floats(&case["negative"]), &floats(&case["positive"])).unwrap();
        close(found, case["auroc"].as_f64().unwrap(), 1e-12, case["name"].as_str().unwrap());
    }
}

#[test]
fn auroc_needs_numbers_on_both_sides() {
    assert_eq!(auroc(&[], &[1.0]), None);
    assert_eq!(auroc(&[1.0], &[]), None);
    assert_eq!(auroc(&[1.0, f64::NAN], &[2.0]), None);
    assert_eq!(auroc(&[0.0], &[-0.0]), Some(0.5));
    assert_eq!(auroc(&[f64::NEG_INFINITY], &[f64::INFINITY]), Some(1.0));
}

#[test]
fn temperatures_are_those_of_a_general_minimiser() {
    for case in golden()["temperature"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let mut predictions = predictions(case);
        let uncalibrated = Metrics::evaluate(&predictions).unwrap();
        let temperature = Temperature::fit(&predictions).unwrap().unwrap();
        // A minimiser that compares values cannot do better than the root of their precision.
        close(temperature.get(), case["temperature"].as_f64().unwrap(), 1e-5, name);

        predictions.temperature = Some(temperature);
        for (p, expected) in predictions.ensemble().unwrap().iter().zip(floats(&case["scaled"])) {
            close(f64::from(*p), expected, 2e-6, name);
        }
        let metrics = Metrics::evaluate(&predictions).unwrap();
        let scaling = metrics.temperature_scaling.unwrap();
        let nll = floats(&case["nll"]);
        close(scaling.nll.before, nll[0], 1e-6, name);
        close(scaling.nll.after, nll[1], 1e-6, name);
        assert_eq!(scaling.nll.before, uncalibrated.nll, "{name}");
        assert_eq!(scaling.ece.before, uncalibrated.calibration.ece, "{name}");
        assert_eq!((scaling.nll.after, scaling.ece.after), (metrics.nll, metrics.calibration.ece), "{name}");
        assert_eq!(metrics.confusion, uncalibrated.confusion, "{name}");
        // The temperature of the predictions themselves plays no part in a fit.
        assert_eq!(Temperature::fit(&predictions).unwrap(), Some(temperature), "{name}");

        let json = serde_json::to_string(&metrics).unwrap();
        assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), metrics, "{name}");
        let entropies = predictions.uncertainties().unwrap().into_iter().map(|u| u.entropy);
        let rows = predictions.ensemble().unwrap();
        assert!(entropies.eq(rows.chunks_exact(predictions.classes.len()).map(entropy)), "{name}");
    }
}

#[test]
fn images_that_determine_no_temperature_give_none() {
    let fit = |probs| Temperature::fit(&two_images(probs)).unwrap();
    assert_eq!(fit([0.9, 0.1, 0.2, 0.8]), None, "all right: colder is always better");
    assert_eq!(fit([0.1, 0.9, 0.8, 0.2]), None, "all wrong: hotter is always better");
    assert_eq!(fit([0.5; 4]), None, "nothing is said");
    assert!(fit([0.9, 0.1, 0.6, 0.4]).is_some());
    let mut none = two_images([0.5; 4]);
    none.labels.clear();
    none.probs.clear();
    assert!(Temperature::fit(&none).is_err());
}

#[test]
fn a_temperature_is_a_positive_number() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Temperature::new(bad).is_none());
    }
    assert_eq!(serde_json::from_str::<Temperature>("1.5").unwrap().get(), 1.5);
    assert!(serde_json::from_str::<Temperature>("-1.5").unwrap_err().to_string().contains("-1.5"));
    assert_eq!(serde_json::to_string(&Temperature::new(0.5).unwrap()).unwrap(), "0.5");
}

#[test]
fn extreme_temperatures_and_zero_probabilities_keep_distributions() {
    for t in [f64::MIN_POSITIVE, 1e-3, 1.0, 1e3, f64::MAX] {
        let mut probs = [0.75, 0.25, 0.0, 0.0, 1.0, 0.0];
        Temperature::new(t).unwrap().apply(&mut probs, 3);
        for row in probs.chunks_exact(3) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{t}: {row:?}");
        }
    }
}

/// So hot that the probabilities of all classes round to the same: the prediction still is what it was.
#[test]
fn ties_after_calibration_do_not_change_predictions() {
    let mut predictions = two_images([0.499_999_9, 0.500_000_1, 0.499_999_9, 0.500_000_1]);
    predictions.temperature = Temperature::new(1e6);
    let probs = predictions.ensemble().unwrap();
    assert_eq!(probs[0], probs[1]);
    assert_eq!(Metrics::evaluate(&predictions).unwrap().confusion, [[0, 1], [0, 1]]);
}

#[test]
fn abstaining_trades_coverage_for_accuracy() {
    let predictions = two_images([0.9, 0.1, 0.7, 0.3]);
    let at = |below| Selective::evaluate(&predictions, below).unwrap();
    assert_eq!((at(0.7).kept, at(0.7).coverage, at(0.7).accuracy), (2, 1.0, Some(0.5)));
    assert_eq!((at(0.8).kept, at(0.8).coverage, at(0.8).accuracy), (1, 0.5, Some(1.0)));
    assert_eq!((at(1.0).kept, at(1.0).coverage, at(1.0).accuracy), (0, 0.0, None));
}

/// Scores with many ties.
fn scores() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((-6i8..6).prop_map(f64::from), 1..40)
}

prop_compose! {
    fn made_up()(branches in 1usize..4, images in 1usize..30, classes in 2usize..6, given in any::<bool>())
        (labels in prop::collection::vec(0..classes as u32, images),
         logits in prop::collection::vec(-3f32..3.0, branches * images * classes),
         branches in Just(branches), classes in Just(classes), given in Just(given)) -> Predictions {
        let combine = if given {
            Combine::Given(softmax_of_mean_logits(&logits, branches, classes))
        } else {
            Combine::MeanOfSoftmax
        };
        let mut probs = logits;
        softmax(&mut probs, classes);
        Predictions { classes: names(classes), labels, branches, probs, combine, temperature: None }
    }
}

proptest! {
    #[test]
    fn auroc_is_its_definition(negative in scores(), positive in scores()) {
        let won = |p: &f64, n: &f64| if p > n { 2u32 } else { u32::from(p == n) };
        let twice: u32 = positive.iter().flat_map(|p| negative.iter().map(move |n| won(p, n))).sum();
        let expected = f64::from(twice) / (2 * negative.len() * positive.len()) as f64;
        prop_assert_eq!(auroc(&negative, &positive), Some(expected));
    }

    #[test]
    fn auroc_of_swapped_sides_is_the_rest(negative in scores(), positive in scores()) {
        let sum = auroc(&negative, &positive).unwrap() + auroc(&positive, &negative).unwrap();
        prop_assert!((sum - 1.0).abs() < 1e-12);
    }

    #[test]
    fn auroc_sees_only_the_order(negative in scores(), positive in scores()) {
        let found = auroc(&negative, &positive);
        for map in [|x: f64| 3.0 * x - 1.0, f64::exp, |x: f64| x.powi(3)] {
            let mapped = |s: &[f64]| s.iter().copied().map(map).collect::<Vec<_>>();
            prop_assert_eq!(auroc(&mapped(&negative), &mapped(&positive)), found);
        }
        let mut turned = positive.clone();
        turned.reverse();
        prop_assert_eq!(auroc(&negative, &turned), found);
    }

    #[test]
    fn a_fit_lowers_the_loss_and_keeps_every_prediction(mut predictions in made_up()) {
        let before = Metrics::evaluate(&predictions).unwrap();
        prop_assert_eq!(before.temperature_scaling, None);
        let information: Vec<f64> =
            predictions.uncertainties().unwrap().iter().map(|u| u.mutual_information).collect();
        if let Some(temperature) = Temperature::fit(&predictions).unwrap() {
            prop_assert!((0.1..=10.0).contains(&temperature.get()));
            predictions.temperature = Some(temperature);
            let after = Metrics::evaluate(&predictions).unwrap();
            prop_assert!(after.nll <= before.nll + 1e-6, "{} > {}", after.nll, before.nll);
            prop_assert_eq!(&after.confusion, &before.confusion);
            prop_assert_eq!(after.top5_accuracy, before.top5_accuracy);
            prop_assert_eq!(&after.branch_accuracy, &before.branch_accuracy);
            let kept: Vec<f64> =
                predictions.uncertainties().unwrap().iter().map(|u| u.mutual_information).collect();
            prop_assert_eq!(kept, information);
        }
    }

    #[test]
    fn the_order_of_images_does_not_matter_to_a_fit(predictions in made_up(), by in 0usize..30) {
        let (images, classes) = (predictions.labels.len(), predictions.classes.len());
        let mut turned = predictions.clone();
        turned.labels.rotate_left(by % images);
        turned.probs.chunks_exact_mut(images * classes).for_each(|b| b.rotate_left(by % images * classes));
        if let Combine::Given(probs) = &mut turned.combine {
            probs.rotate_left(by % images * classes);
        }
        let fit = |p| Temperature::fit(p).unwrap().map(Temperature::get);
        if let (Some(a), Some(b)) = (fit(&predictions), fit(&turned)) {
            prop_assert!((a / b - 1.0).abs() < 1e-6, "{} != {}", a, b);
        }
    }

    #[test]
    fn hotter_is_flatter_and_two_temperatures_are_their_product(
        logits in prop::collection::vec(-3f32..3.0, 5), a in 0.3f64..3.0, b in 0.3f64..3.0,
    ) {
        let mut probs = logits;
        softmax(&mut probs, 5);
        let at = |t: f64, probs: &[f32]| {
            let mut probs = probs.to_vec();
            Temperature::new(t).unwrap().apply(&mut probs, 5);
            probs
        };
        let (cold, hot) = (at(a.min(b), &probs), at(a.max(b), &probs));
        prop_assert!(hot[argmax(&hot)] <= cold[argmax(&cold)] + 1e-6);
        prop_assert!(entropy(&cold) <= entropy(&hot) + 1e-5);
        for (x, y) in at(b, &at(a, &probs)).iter().zip(at(a * b, &probs)) {
            prop_assert!((x - y).abs() < 1e-4, "{} != {}", x, y);
        }
    }

    #[test]
    fn a_stricter_threshold_keeps_fewer(predictions in made_up(), a in 0.01f32..1.0, b in 0.01f32..1.0) {
        let at = |below| Selective::evaluate(&predictions, below).unwrap();
        prop_assert!(at(a.min(b)).kept >= at(a.max(b)).kept);
        let all = at(f32::MIN_POSITIVE);
        let accuracy = Metrics::evaluate(&predictions).unwrap().accuracy;
        prop_assert_eq!((all.coverage, all.accuracy), (1.0, Some(accuracy)));
    }
}
