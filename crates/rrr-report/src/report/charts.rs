//! The page's charts, drawn from a report.

use super::format::percent;
use super::{CurvePoint, Curves};
use crate::metrics::Metrics;
use crate::svg::{
    Bar, BarChart, Caption, HeatMap, Histogram, LineChart, Series, Stroke, Unit, bar_chart, heat_map,
    histogram, line_chart, reliability_diagram,
};

/// One kind of measurement of a [`CurvePoint`].
type Value = fn(&CurvePoint) -> Option<f64>;

/// A line of a chart: its name, its look and what it shows.
type Line = (&'static str, Stroke, Value);

const LOSS: [Line; 2] =
    [("evaluation", Stroke::Solid, |p| p.eval_loss), ("training", Stroke::Dashed, |p| p.train_loss)];
const ACCURACY: [Line; 2] =
    [("evaluation", Stroke::Solid, |p| p.eval_accuracy), ("training", Stroke::Dashed, |p| p.train_accuracy)];
const LEARNING_RATE: [Line; 1] = [("learning rate", Stroke::Solid, |p| p.learning_rate)];

/// Titles and drawings of the training curves that have data.
pub(super) fn curves(curves: &Curves) -> Vec<(&'static str, String)> {
    [
        ("Loss", curve(curves, "Loss", Unit::Number, None, &LOSS)),
        ("Accuracy", curve(curves, "Accuracy", Unit::Percent, Some((0.0, 1.0)), &ACCURACY)),
        ("Learning rate", curve(curves, "Learning rate", Unit::Number, None, &LEARNING_RATE)),
    ]
    .into_iter()
    .filter_map(|(title, chart)| Some((title, chart?)))
    .collect()
}

fn curve(
    curves: &Curves,
    title: &str,
    unit: Unit,
    y_range: Option<(f64, f64)>,
    lines: &[Line],
) -> Option<String> {
    let series: Vec<Series<'_>> = lines
        .iter()
        .map(|&(name, stroke, value)| {
            let points = curves.points.iter().filter_map(|p| Some((p.at, value(p)?)));
            let points = points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
            Series { name, points, stroke }
        })
        .filter(|series| !series.points.is_empty())
        .collect();
    let last: Vec<String> = series
        .iter()
        .filter_map(|s| s.points.last().map(|&(at, value)| (s.name, at, value)))
        .map(|(name, at, value)| match unit {
            Unit::Percent => format!("{name} {} at {at}", percent(value)),
            Unit::Number => format!("{name} {value:.4} at {at}"),
        })
        .collect();
    if last.is_empty() {
        return None;
    }
    let description = format!("{title} by {}. Last values: {}.", curves.axis, last.join(", "));
    let caption = Caption { title, description: &description };
    Some(line_chart(&LineChart { caption, x_label: &curves.axis, series: &series, unit, y_range }))
}

/// Accuracy of every branch and of the ensemble; none for a single branch.
pub(super) fn branches(metrics: &Metrics) -> Option<String> {
    if metrics.branch_accuracy.len() < 2 {
        return None;
    }
    let names: Vec<String> = (0..metrics.branch_accuracy.len()).map(|i| format!("branch {i}")).collect();
    let interval = metrics.accuracy_interval;
    let ensemble = Bar {
        label: "ensemble",
        value: metrics.accuracy,
        interval: Some((interval.low, interval.high)),
        strong: true,
    };
    let branches = names.iter().zip(&metrics.branch_accuracy).map(|(label, &value)| Bar {
        label,
        value,
        interval: None,
        strong: false,
    });
    let bars: Vec<Bar<'_>> = std::iter::once(ensemble).chain(branches).collect();
    let description = format!(
        "The ensemble reaches {}, its {} branches alone {} on average.",
        percent(metrics.accuracy),
        metrics.branch_accuracy.len(),
        percent(metrics.mean_branch_accuracy)
    );
    Some(bar_chart(&BarChart {
        caption: Caption { title: "Accuracy of the branches and the ensemble", description: &description },
        bars: &bars,
        unit: Unit::Percent,
        max: Some(1.0),
        reference: Some(metrics.accuracy),
    }))
}

/// The confusion matrix.
pub(super) fn confusion(metrics: &Metrics) -> String {
    let names: Vec<&str> = metrics.per_class.iter().map(|class| class.name.as_str()).collect();
    let description = format!(
        "Rows are true classes, columns predicted ones. {} of {} images lie on the diagonal.",
        metrics.correct(),
        metrics.n
    );
    heat_map(&HeatMap {
        caption: Caption { title: "Confusion matrix", description: &description },
        names: &names,
        counts: &metrics.confusion,
        row_label: "true",
        column_label: "predicted",
    })
}

/// The reliability diagram.
pub(super) fn reliability(metrics: &Metrics) -> String {
    let description = format!(
        "Accuracy by confidence. Expected calibration error {}, mean confidence {}, accuracy {}.",
        percent(metrics.calibration.ece),
        percent(metrics.calibration.mean_confidence),
        percent(metrics.accuracy)
    );
    reliability_diagram(
        &metrics.calibration.bins,
        Caption { title: "Reliability diagram", description: &description },
    )
}

/// How many images the ensemble is how sure about.
pub(super) fn confidence(metrics: &Metrics) -> String {
    let bins: Vec<(f64, f64, usize)> =
        metrics.calibration.bins.iter().map(|bin| (bin.low, bin.high, bin.count)).collect();
    let mean = metrics.calibration.mean_confidence;
    let description = format!("Number of images by confidence; the mean is {}.", percent(mean));
    histogram(&Histogram {
        caption: Caption { title: "Confidence histogram", description: &description },
        x_label: "confidence",
        bins: &bins,
        unit: Unit::Percent,
        mark: Some((mean.clamp(0.0, 1.0), "mean confidence")),
    })
}
