//! The figures.

use super::data::{Chain, MethodSummary, Report};
use super::text::measure;
use rrr_report::svg::{
    Bar, BarChart, Caption, CriticalDifference, Interval, Intervals, LineChart, Point, Scatter, Series,
    Stroke, Unit, bar_chart, critical_difference, intervals, line_chart, scatter,
};
use std::fmt::Write;

/// A figure and its data.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Name of its files.
    pub name: &'static str,
    /// What it shows.
    pub title: String,
    /// What to know when reading it; may be empty.
    pub note: String,
    /// The chart, without a style sheet.
    pub svg: String,
    /// Its data, CSV with a header.
    pub csv: String,
}

/// A number of a method.
type Number = fn(&MethodSummary) -> f64;

/// All figures that the data give.
pub(super) fn figures(report: &Report) -> Vec<Figure> {
    let mut figures = Vec::new();
    figures.extend(ranks(report));
    if report.chains.is_empty() {
        figures.extend(accuracies(report));
        figures.extend(differences(report));
        let costs: [(&'static str, &str, Number); 4] = [
            ("pareto-macs", "multiply-adds per image", |m| m.macs),
            ("pareto-params", "parameters", |m| m.params),
            ("pareto-latency", "milliseconds for one image", |m| m.latency_ms),
            ("pareto-training", "seconds of training", |m| m.train_seconds),
        ];
        figures.extend(costs.into_iter().filter_map(|(name, label, get)| pareto(report, name, label, get)));
        figures.extend(by_varied(report, "accuracy-by-blocks", "blocks", |m| m.blocks));
        figures.extend(by_varied(report, "accuracy-by-branches", "branches", |m| m.branches));
    } else {
        figures.push(chains(report));
    }
    figures
}

/// Methods with an accuracy.
fn measured(report: &Report) -> Vec<(&MethodSummary, f64)> {
    report.methods.iter().filter_map(|m| Some((m, m.accuracy?))).collect()
}

fn ranks(report: &Report) -> Option<Figure> {
    let c = report.comparison.as_ref()?;
    let names: Vec<(&str, f64)> =
        report.methods.iter().zip(&c.friedman.ranks).map(|(m, r)| (m.name.as_str(), *r)).collect();
    let title = "Average ranks".to_owned();
    let description = format!(
        "Average ranks over {} datasets, 1 is best. Methods joined by a bar cannot be told apart (Nemenyi, critical \
         difference {:.2}).",
        c.datasets.len(),
        c.nemenyi.critical_difference
    );
    let svg = critical_difference(&CriticalDifference {
        caption: Caption { title: &title, description: &description },
        methods: &names,
        difference: c.nemenyi.critical_difference,
        groups: &c.nemenyi.groups,
    });
    let mut csv = String::from("method,average_rank,critical_difference\n");
    for (name, rank) in &names {
        let _ = writeln!(csv, "{},{rank},{}", quoted(name), c.nemenyi.critical_difference);
    }
    Some(Figure { name: "critical-difference", title, note: description, svg, csv })
}

fn accuracies(report: &Report) -> Option<Figure> {
    let methods = measured(report);
    let best = methods.iter().map(|(_, a)| *a).fold(f64::NEG_INFINITY, f64::max);
    let labels: Vec<String> = methods.iter().map(|(m, _)| label(m)).collect();
    let bars = methods.iter().zip(&labels).map(|((m, accuracy), label)| Bar {
        label,
        value: *accuracy,
        interval: m.seed_sd.map(|sd| (accuracy - sd, accuracy + sd)),
        strong: *accuracy == best,
    });
    let bars: Vec<Bar<'_>> = bars.collect();
    let title = format!("{} of the methods", measure(report));
    let note = "Mean over datasets; whiskers are the mean standard deviation over seeds.";
    let caption = Caption { title: &title, description: note };
    let svg =
        bar_chart(&BarChart { caption, bars: &bars, unit: Unit::Percent, max: Some(1.0), reference: None });
    let mut csv = String::from("method,accuracy,seed_sd\n");
    for (m, accuracy) in &methods {
        let _ = writeln!(csv, "{},{accuracy},{}", quoted(&m.name), optional(m.seed_sd));
    }
    (!methods.is_empty()).then_some(Figure { name: "accuracy", title, note: note.into(), svg, csv })
}

/// Mean differences of pairs with their intervals, for up to ten pairs.
fn differences(report: &Report) -> Option<Figure> {
    let c = report.comparison.as_ref().filter(|c| c.pairs.len() <= 10)?;
    let names = |a: usize, b: usize| format!("{} - {}", report.methods[a].name, report.methods[b].name);
    let labels: Vec<String> = c.pairs.iter().map(|p| names(p.a, p.b)).collect();
    let title = "Mean differences and their 95% intervals".to_owned();
    let mut csv = String::from("pair,mean,low,high,wilcoxon_p,holm_p\n");
    for (p, label) in c.pairs.iter().zip(&labels) {
        let (d, w) = (p.difference, p.wilcoxon.map(|w| w.p));
        let _ = writeln!(csv, "{},{},{},{},{},{}", quoted(label), d.mean, d.low, d.high, optional(w), p.holm);
    }
    let rows = c.pairs.iter().zip(&labels).map(|(p, label)| Interval {
        label,
        ends: (100.0 * p.difference.low, 100.0 * p.difference.high),
        value: 100.0 * p.difference.mean,
    });
    let svg = intervals(&Intervals {
        caption: Caption { title: &title, description: "Accuracy differences in percentage points." },
        x_label: "percentage points of accuracy",
        rows: &rows.collect::<Vec<_>>(),
    });
    let note = "Over datasets; bootstrap, BCa. An interval away from zero is a difference.".into();
    Some(Figure { name: "differences", title, note, svg, csv })
}

/// Accuracy against a cost; the Pareto front is dashed.
fn pareto(report: &Report, name: &'static str, cost: &str, get: fn(&MethodSummary) -> f64) -> Option<Figure> {
    let methods = measured(report);
    let points: Vec<(f64, f64)> = methods.iter().map(|(m, a)| (get(m), *a)).collect();
    let front = front(&points);
    let chart: Vec<Point<'_>> = methods
        .iter()
        .zip(&points)
        .enumerate()
        .map(|(i, ((m, _), (x, y)))| Point { label: &m.name, x: *x, y: *y, strong: front.contains(&i) })
        .collect();
    let title = format!("{} against {cost}", measure(report));
    let best: Vec<&str> = front.iter().map(|i| methods[*i].0.name.as_str()).collect();
    let note = format!("No method is both cheaper and better than {}.", best.join(", "));
    let svg = scatter(&Scatter {
        caption: Caption { title: &title, description: &note },
        x_label: cost,
        points: &chart,
        log_x: true,
        y_unit: Unit::Percent,
        front: &front,
    });
    let mut csv = format!("method,{},accuracy,on_front\n", cost.replace(' ', "_"));
    for (i, ((m, _), (x, y))) in methods.iter().zip(&points).enumerate() {
        let _ = writeln!(csv, "{},{x},{y},{}", quoted(&m.name), front.contains(&i));
    }
    (methods.len() > 1).then_some(Figure { name, title, note, svg, csv })
}

/// Points that no other is at least as cheap and as good as, and better in one; by rising cost.
fn front(points: &[(f64, f64)]) -> Vec<usize> {
    let beaten = |i: usize| {
        points.iter().any(|p| {
            let (x, y) = points[i];
            p.0 <= x && p.1 >= y && (p.0 < x || p.1 > y)
        })
    };
    let mut front: Vec<usize> =
        (0..points.len()).filter(|i| points[*i].0.is_finite() && !beaten(*i)).collect();
    front.sort_by(|a, b| points[*a].0.total_cmp(&points[*b].0));
    front
}

/// Accuracy against a number that the suite varies.
fn by_varied(report: &Report, name: &'static str, key: &str, get: Number) -> Option<Figure> {
    let mut points: Vec<(f64, f64)> = report
        .methods
        .iter()
        .filter(|m| m.varied.contains_key(key))
        .filter_map(|m| Some((get(m), m.accuracy?)))
        .filter(|p| p.0.is_finite())
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    if points.len() < 2 {
        return None;
    }
    let best = points.iter().copied().fold((0.0, f64::NEG_INFINITY), |b, p| if p.1 > b.1 { p } else { b });
    let title = format!("{} against {key}", measure(report));
    let note = format!("The best is {} {key}: {:.1}%.", best.0, 100.0 * best.1);
    let labels: Vec<String> = points.iter().map(|p| p.0.to_string()).collect();
    let chart: Vec<Point<'_>> = points
        .iter()
        .zip(&labels)
        .map(|(p, label)| Point { label, x: p.0, y: p.1, strong: *p == best })
        .collect();
    let all: Vec<usize> = (0..chart.len()).collect();
    let svg = scatter(&Scatter {
        caption: Caption { title: &title, description: &note },
        x_label: key,
        points: &chart,
        log_x: true,
        y_unit: Unit::Percent,
        front: &all,
    });
    let rows: String = points.iter().map(|(x, y)| format!("{x},{y}\n")).collect();
    Some(Figure { name, title, note, svg, csv: format!("{key},accuracy\n{rows}") })
}

/// Accuracy along the chains: against blocks for the growing one, against its own steps for the control.
fn chains(report: &Report) -> Figure {
    let points = |c: &Chain| c.steps.iter().map(|s| (s.0 as f64, s.2)).collect();
    let series: Vec<Series<'_>> = report
        .chains
        .iter()
        .enumerate()
        .map(|(i, c)| Series {
            name: &c.series,
            points: points(c),
            stroke: if i == 0 { Stroke::Solid } else { Stroke::Dashed },
        })
        .collect();
    let title = format!("{} against the number of blocks", measure(report));
    let note =
        "Each step adds a block to the forward chain; the control trains the smallest network for as long.";
    let svg = line_chart(&LineChart {
        caption: Caption { title: &title, description: note },
        x_label: "step",
        series: &series,
        unit: Unit::Percent,
        y_range: None,
    });
    let mut csv = String::from("series,step,blocks,accuracy,tasks\n");
    for c in &report.chains {
        for (step, blocks, accuracy, tasks) in &c.steps {
            let _ = writeln!(csv, "{},{step},{blocks},{accuracy},{tasks}", quoted(&c.series));
        }
    }
    Figure { name: "accuracy-by-blocks", title, note: note.into(), svg, csv }
}

fn label(m: &MethodSummary) -> String {
    if m.about.is_empty() || !m.varied.is_empty() {
        m.name.clone()
    } else {
        format!("{} {}", m.name, m.about)
    }
}

/// A field of a CSV file.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or(String::new(), |v| v.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_has_what_nothing_beats() {
        let points = [(1.0, 0.5), (2.0, 0.7), (2.0, 0.6), (3.0, 0.7), (4.0, 0.9), (0.5, f64::NAN)];
        assert_eq!(front(&points[..5]), [0, 1, 4]);
    }
}
