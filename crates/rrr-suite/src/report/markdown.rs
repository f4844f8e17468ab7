//! The report in Markdown.

use super::data::Report;
use super::figures::Figure;
use super::text::{findings, measure, metric, p_value, percent, points, progress};
use std::fmt::Write;

pub(super) fn page(report: &Report, figures: &[Figure]) -> String {
    let mut out = format!("# {}\n\n", report.suite.name);
    if !report.suite.about.is_empty() {
        let _ = writeln!(out, "{}.\n", report.suite.about);
    }
    let _ = writeln!(out, "{}\n", progress(report));
    let said = findings(report);
    if !said.is_empty() {
        let _ = writeln!(out, "## What the tests say\n");
        for line in said {
            let _ = writeln!(out, "- {line}");
        }
        out.push('\n');
    }
    section(
        &mut out,
        &format!("{}, percent: mean ± standard deviation over seeds", measure(report)),
        &accuracies(report),
    );
    section(&mut out, "Methods", &methods(report));
    if let Some(pairs) = pairs(report) {
        section(&mut out, "Pairs of methods", &pairs);
    }
    if !figures.is_empty() {
        let _ = writeln!(out, "## Figures\n");
    }
    for f in figures {
        let _ = writeln!(
            out,
            "![{}](figures/{}.svg)\n\n{} [data](figures/{}.csv)\n",
            f.title, f.name, f.note, f.name
        );
    }
    if !report.failures.is_empty() {
        let rows = report
            .failures
            .iter()
            .map(|(d, m, s, e)| vec![d.clone(), m.clone(), s.to_string(), e.replace('\n', " ")]);
        section(&mut out, "Failed tasks", &table(&["dataset", "method", "seed", "message"], rows));
    }
    let machines = report.machines.iter().map(|m| {
        let cpu = m.cpu.clone().unwrap_or_default();
        vec![cpu, m.isa.clone(), m.precision.clone(), m.threads.to_string(), m.version.clone()]
    });
    let header = ["processor", "instruction set", "precision", "threads", "rrrnet"];
    section(&mut out, "Machines", &table(&header, machines));
    let _ = writeln!(out, "## The suite\n\n```toml\n{}\n```", report.suite.text.trim_end());
    out
}

fn section(out: &mut String, title: &str, body: &str) {
    let _ = writeln!(out, "## {title}\n\n{body}");
}

/// A table; the first column is text, the others numbers.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let cell = |text: &String| text.replace('|', "\\|");
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = line(header.iter().map(|h| cell(&h.to_string())).collect());
    out += &format!("|---{}|\n", "|---:".repeat(header.len() - 1));
    rows.for_each(|row| out += &line(row.iter().map(cell).collect()));
    out
}

fn accuracies(report: &Report) -> String {
    let header: Vec<&str> =
        std::iter::once("dataset").chain(report.methods.iter().map(|m| m.name.as_str())).collect();
    let cell = |mean: Option<f64>, sd: Option<f64>| match (mean, sd) {
        (Some(mean), Some(sd)) => format!("{} ± {}", percent(mean), percent(sd)),
        (Some(mean), None) => percent(mean),
        _ => "-".into(),
    };
    let rows = report.datasets.iter().zip(&report.cells).map(|(name, row)| {
        std::iter::once(name.clone()).chain(row.iter().map(|c| cell(c.mean(), c.sd()))).collect()
    });
    let means = std::iter::once("**mean**".to_owned()).chain(
        report.methods.iter().map(|m| m.accuracy.map_or("-".into(), |a| format!("**{}**", percent(a)))),
    );
    let ranks = report.comparison.as_ref().map(|c| {
        std::iter::once("average rank".to_owned())
            .chain(c.friedman.ranks.iter().map(|r| format!("{r:.2}")))
            .collect::<Vec<_>>()
    });
    table(&header, rows.chain([means.collect()]).chain(ranks))
}

fn methods(report: &Report) -> String {
    let header = ["method", "what", "parameters", "multiply-adds", "ms per image", "images/s", "training s"];
    let rows = report.methods.iter().map(|m| {
        vec![
            m.name.clone(),
            m.about.clone(),
            metric(m.params),
            metric(m.macs),
            format!("{:.2}", m.latency_ms),
            format!("{:.0}", m.images_per_second),
            format!("{:.1}", m.train_seconds),
        ]
    });
    table(&header, rows)
}

fn pairs(report: &Report) -> Option<String> {
    let c = report.comparison.as_ref()?;
    let header = [
        "pair",
        "difference, points",
        "95% interval",
        "wins/ties/losses",
        "Wilcoxon p",
        "Holm p",
        "Nemenyi p",
    ];
    let rows = c.pairs.iter().map(|p| {
        let (d, s) = (p.difference, p.score);
        vec![
            format!("{} - {}", report.methods[p.a].name, report.methods[p.b].name),
            points(d.mean),
            format!("{} to {}", points(d.low), points(d.high)),
            format!("{}/{}/{}", s.wins, s.ties, s.losses),
            p.wilcoxon.map_or("-".into(), |w| p_value(w.p)),
            p_value(p.holm),
            p_value(c.nemenyi.p[p.a][p.b]),
        ]
    });
    Some(table(&header, rows))
}
