use minijinja::context;
use minijinja::value::Value;

use super::format::{bytes, counted, duration, factor, grouped, metric, percent, percent_or_dash};
use super::frame::render_page;
use super::{Cost, CostComparison, Dataset, Fact, Provenance, Report, Speed, charts};
use crate::metrics::{ClassMetrics, Metrics, TemperatureScaling};

const TEMPLATE: &str = include_str!("page.html");
/// Length of the list of most frequent confusions.
const CONFUSIONS: usize = 10;

/// Renders the page. The result depends on nothing but `report`, so equal reports give equal bytes.
pub fn render_html(report: &Report) -> String {
    let metrics = &report.metrics;
    let curves = report.curves.as_ref().map(charts::curves).unwrap_or_default();
    let page = context! {
        title => report.title.as_str(),
        subtitle => subtitle(&report.dataset, &report.method),
        summary => summary(report),
        tiles => tiles(report),
        scores => scores(metrics),
        curves => curves.into_iter()
            .map(|(title, chart)| context! { title, chart => safe(chart) })
            .collect::<Vec<_>>(),
        branches => charts::branches(metrics).map(|chart| context! {
            chart => safe(chart),
            ensemble => percent(metrics.accuracy),
            mean => percent(metrics.mean_branch_accuracy),
            disagreement => percent_or_dash(metrics.disagreement),
        }),
        confusion => safe(charts::confusion(metrics)),
        confusions => confusions(metrics),
        classes => classes(metrics),
        reliability => safe(charts::reliability(metrics)),
        confidence => safe(charts::confidence(metrics)),
        ece => percent(metrics.calibration.ece),
        tendency => tendency(metrics),
        temperature => metrics.temperature_scaling.as_ref().map(temperature),
        mistakes => mistakes(report),
        mistake_count => counted(metrics.n - metrics.correct(), "mistake"),
        cost => report.cost.as_ref().map(cost),
        config => report.config.as_deref(),
        provenance => provenance(&report.provenance),
    };
    render_page(TEMPLATE, page)
}

fn safe(markup: String) -> Value {
    Value::from_safe_string(markup)
}

fn subtitle(dataset: &Dataset, method: &str) -> String {
    format!("{method} on {}, {}", dataset.name, counted(dataset.classes, "class"))
}

fn summary(report: &Report) -> String {
    let (metrics, dataset) = (&report.metrics, &report.dataset);
    let trained = match dataset.train_images {
        Some(count) => format!(", after training on {}", counted(count, "image")),
        None => String::new(),
    };
    format!(
        "{} of {} of the {} split are classified correctly{trained}. Images are {side} × {side} pixels.",
        grouped(metrics.correct() as u64),
        counted(metrics.n, "image"),
        dataset.split,
        side = dataset.image_size,
    )
}

fn tile(label: &str, value: String, note: String) -> Value {
    context! { label, value, note }
}

fn tiles(report: &Report) -> Vec<Value> {
    let interval = report.metrics.accuracy_interval;
    let range = format!("95% interval {} to {}", percent(interval.low), percent(interval.high));
    let mut tiles = vec![tile("Accuracy", percent(report.metrics.accuracy), range)];
    if let Some(CostComparison { total, full, full_name, .. }) = &report.cost {
        let note =
            |whole: u64, part: u64| format!("{} fewer than {full_name}", factor(whole as f64, part as f64));
        tiles.push(tile("Parameters", metric(total.params as f64), note(full.params, total.params)));
        tiles.push(tile("MACs per image", metric(total.macs as f64), note(full.macs, total.macs)));
    }
    if let Some(Speed { batch, images_per_second, latency_ms, full_images_per_second }) = &report.speed {
        let full_name = report.cost.as_ref().map_or("the full backbone", |cost| cost.full_name.as_str());
        let note = match full_images_per_second {
            Some(full) => format!("{} {full_name}, batch {batch}", factor(*images_per_second, *full)),
            None => format!("batch {batch}"),
        };
        let note = match latency_ms {
            Some(ms) => format!("{note}; a single one takes {ms:.1} ms"),
            None => note,
        };
        tiles.push(tile("Images per second", metric(*images_per_second), note));
    }
    tiles
}

fn scores(metrics: &Metrics) -> Vec<Value> {
    let score = |name: &str, value: String, hint: &str| context! { name, value, hint };
    let mut scores = vec![
        score("Balanced accuracy", percent(metrics.balanced_accuracy), "mean recall of the classes"),
        score("Macro F1", percent(metrics.macro_f1), "mean F1 of the classes"),
    ];
    if metrics.per_class.len() > 5 {
        let hint = "true class among the five most probable";
        scores.push(score("Top-5 accuracy", percent(metrics.top5_accuracy), hint));
    }
    scores.extend([
        score("Negative log-likelihood", format!("{:.3}", metrics.nll), "nats per image; lower is better"),
        score("Brier score", format!("{:.3}", metrics.brier), "0 to 2; lower is better"),
        score("Calibration error", percent(metrics.calibration.ece), "15 bins; lower is better"),
    ]);
    scores
}

/// The most frequent pairs of true and predicted class, ties in class order.
fn confusions(metrics: &Metrics) -> Vec<Value> {
    let mut pairs: Vec<(u32, usize, usize)> = Vec::new();
    for (label, row) in metrics.confusion.iter().enumerate() {
        for (predicted, &count) in row.iter().enumerate() {
            if count > 0 && label != predicted {
                pairs.push((count, label, predicted));
            }
        }
    }
    pairs.sort_by_key(|&(count, label, predicted)| (std::cmp::Reverse(count), label, predicted));
    pairs.truncate(CONFUSIONS);
    let name = |class: usize| metrics.per_class[class].name.as_str();
    pairs
        .into_iter()
        .map(|(count, label, predicted)| {
            let support = metrics.per_class[label].support;
            context! { label => name(label), predicted => name(predicted), count, support }
        })
        .collect()
}

/// The classes by rising F1, those without one last, ties in class order.
fn classes(metrics: &Metrics) -> Vec<Value> {
    let mut classes: Vec<&ClassMetrics> = metrics.per_class.iter().collect();
    classes.sort_by(|a, b| a.f1.unwrap_or(f64::INFINITY).total_cmp(&b.f1.unwrap_or(f64::INFINITY)));
    let cell = |value: Option<f64>| {
        let width = value.map_or_else(|| "0".to_owned(), |v| format!("{:.1}", v * 100.0));
        context! { text => percent_or_dash(value), width }
    };
    classes
        .into_iter()
        .map(|class| {
            context! {
                name => class.name.as_str(),
                support => class.support,
                cells => [cell(class.precision), cell(class.recall), cell(class.f1)],
            }
        })
        .collect()
}

fn tendency(metrics: &Metrics) -> String {
    let confidence = metrics.calibration.mean_confidence;
    let difference = confidence - metrics.accuracy;
    let verdict = match difference {
        d if d > 0.02 => "it is overconfident",
        d if d < -0.02 => "it is underconfident",
        _ => "the two agree on average",
    };
    format!(
        "The ensemble is {} sure on average and right {} of the time: {verdict}.",
        percent(confidence),
        percent(metrics.accuracy)
    )
}

fn temperature(scaling: &TemperatureScaling) -> Value {
    context! {
        value => format!("{:.3}", scaling.temperature.get()),
        ece => [percent(scaling.ece.before), percent(scaling.ece.after)],
        nll => [scaling.nll.before, scaling.nll.after].map(|nll| format!("{nll:.3}")),
    }
}

fn mistakes(report: &Report) -> Vec<Value> {
    report
        .mistakes
        .iter()
        .map(|mistake| {
            context! {
                name => mistake.name.as_str(),
                picture => mistake.thumbnail.as_ref().map(|t| safe(t.data_uri())),
                label => mistake.label.as_str(),
                predicted => mistake.predicted.as_str(),
                confidence => percent(mistake.confidence),
                label_probability => percent(mistake.label_probability),
            }
        })
        .collect()
}

fn cost(comparison: &CostComparison) -> Value {
    let cells = |cost: &Cost| [metric(cost.params as f64), metric(cost.macs as f64), bytes(cost.bytes)];
    let full_row = cells(&comparison.full);
    let (total, full) = (&comparison.total, &comparison.full);
    let saved = [(full.params, total.params), (full.macs, total.macs), (full.bytes, total.bytes)]
        .map(|(full, total)| factor(full as f64, total as f64));
    let parts: Vec<Value> = comparison
        .parts
        .iter()
        .map(|part| {
            let count = part.count as u64;
            let sum = Cost {
                params: part.cost.params * count,
                macs: part.cost.macs * count,
                bytes: part.cost.bytes * count,
            };
            let name = if part.count == 1 { part.name.clone() } else { format!("{} × {count}", part.name) };
            context! { name, cells => cells(&sum) }
        })
        .collect();
    context! {
        side => comparison.image_size,
        parts,
        total => cells(total),
        full_name => comparison.full_name.as_str(),
        full => full_row,
        saved,
    }
}

/// Names and values of the provenance table; those unknown are left out.
fn provenance(provenance: &Provenance) -> Vec<Value> {
    let mut facts = provenance.versions.clone();
    facts.push(Fact::new("Seed", provenance.seed));
    let mut add = |name: &str, value: Option<String>| facts.extend(value.map(|value| Fact::new(name, value)));
    add("Command", provenance.command.clone());
    if let Some(backbone) = &provenance.backbone {
        add("Backbone", Some(backbone.name.clone()));
        add("Backbone licence", Some(backbone.licence.clone().unwrap_or_else(|| "unknown".to_owned())));
        add("Backbone source", backbone.source.clone());
        add("Backbone SHA-256", backbone.sha256.clone());
    }
    let machine = &provenance.machine;
    add("Processor", machine.cpu.clone());
    add("Threads", Some(machine.cores.to_string()));
    add("Instruction set", Some(machine.isa.clone()));
    add("Platform", Some(machine.platform.clone()));
    add("Training time", provenance.train_seconds.map(duration));
    add("Finished", provenance.finished.clone());
    facts.extend(provenance.notes.iter().cloned());
    facts.into_iter().map(|fact| context! { name => fact.name, value => fact.value }).collect()
}
