//! The report as one HTML page without scripts or other files.

use super::data::{MethodSummary, Report};
use super::figures::Figure;
use super::text::{findings, measure, metric, p_value, percent, points, progress};
use minijinja::context;
use minijinja::value::Value;
use rrr_report::report::render_page;

const TEMPLATE: &str = include_str!("page.html");

pub(super) fn page(r: &Report, figures: &[Figure]) -> String {
    let page = context! {
        title => format!("Suite {}", r.suite.name),
        subtitle => r.suite.about.as_str(),
        progress => progress(r),
        measure => measure(r),
        tiles => tiles(r),
        findings => findings(r),
        methods => r.methods.iter().map(method).collect::<Vec<_>>(),
        accuracies => accuracies(r),
        ranks => r.comparison.as_ref().map(|c| {
            c.friedman.ranks.iter().map(|x| format!("{x:.2}")).collect::<Vec<_>>()
        }),
        compared => r.comparison.as_ref().map(|c| c.datasets.len()),
        pairs => pairs(r),
        figures => figures.iter().map(|f| context! {
            title => f.title.as_str(), svg => safe(f.svg.clone()), note => f.note.as_str(),
        }).collect::<Vec<_>>(),
        failures => r.failures.iter().map(|(dataset, method, seed, message)| context! {
            dataset => dataset.as_str(), method => method.as_str(), seed => *seed, message => message.as_str(),
        }).collect::<Vec<_>>(),
        machines => r.machines.iter().map(|m| context! {
            cpu => m.cpu.as_deref().unwrap_or("unknown processor"), isa => m.isa.as_str(), precision => m.precision.as_str(), threads => m.threads,
            version => m.version.as_str(),
        }).collect::<Vec<_>>(),
        suite => r.suite.text.as_str(),
    };
    render_page(TEMPLATE, page)
}

fn safe(markup: String) -> Value {
    Value::from_safe_string(markup)
}

/// Datasets, methods and the best of them.
fn tiles(r: &Report) -> Vec<Value> {
    let tile = |label: &str, value: String, note: String| context! { label, value, note };
    let mut tiles = vec![tile(
        "Tasks done",
        format!("{} of {}", r.counts.done, r.counts.all()),
        format!("{} datasets, {} methods", r.datasets.len(), r.methods.len()),
    )];
    let best = r.methods.iter().filter(|m| m.accuracy.is_some());
    if let Some(m) = best.max_by(|a, b| a.accuracy.unwrap_or(0.0).total_cmp(&b.accuracy.unwrap_or(0.0))) {
        let accuracy = percent(m.accuracy.unwrap_or(f64::NAN));
        tiles.push(tile("Best mean accuracy", format!("{accuracy}%"), format!("{} {}", m.name, m.about)));
    }
    if let Some(c) = &r.comparison {
        let verdict = if c.friedman.decisive_p() < super::data::ALPHA {
            "the methods differ"
        } else {
            "no difference shown"
        };
        tiles.push(tile("Friedman p", p_value(c.friedman.decisive_p()), verdict.into()));
    }
    tiles
}

fn method(m: &MethodSummary) -> Value {
    let cells = [
        metric(m.params),
        metric(m.macs),
        format!("{:.2}", m.latency_ms),
        format!("{:.0}", m.images_per_second),
        format!("{:.1}", m.train_seconds),
    ];
    let accuracy = m.accuracy.map_or("–".into(), percent);
    context! { name => m.name.as_str(), about => m.about.as_str(), accuracy, cells }
}

fn accuracies(r: &Report) -> Vec<Value> {
    let row = |(name, cells): (&String, &Vec<super::CellSummary>)| {
        let best = cells.iter().filter_map(|c| c.mean()).fold(f64::NEG_INFINITY, f64::max);
        let cells: Vec<Value> = cells
            .iter()
            .map(|c| {
                let mean = c.mean();
                context! {
                    mean => mean.map_or("–".into(), percent),
                    sd => c.sd().map(percent),
                    best => mean == Some(best),
                }
            })
            .collect();
        context! { name, cells }
    };
    r.datasets.iter().zip(&r.cells).map(row).collect()
}

fn pairs(r: &Report) -> Vec<Value> {
    let Some(c) = &r.comparison else { return Vec::new() };
    let row = |p: &super::Pair| {
        let (d, s) = (p.difference, p.score);
        let cells = [
            points(d.mean),
            format!("{} to {}", points(d.low), points(d.high)),
            format!("{} / {} / {}", s.wins, s.ties, s.losses),
            p.wilcoxon.map_or("–".into(), |w| p_value(w.p)),
            p_value(p.holm),
            p_value(c.nemenyi.p[p.a][p.b]),
        ];
        context! { name => format!("{} − {}", r.methods[p.a].name, r.methods[p.b].name), cells }
    };
    c.pairs.iter().map(row).collect()
}
