//! What the report says in words and numbers, the same in every format.

use super::data::{ALPHA, Comparison, Report};

/// A share in percent with one decimal, without the sign.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// A difference of shares in percentage points, signed.
pub(super) fn points(difference: f64) -> String {
    format!("{:+.1}", 100.0 * difference)
}

/// A p-value.
pub(super) fn p_value(p: f64) -> String {
    if p < 1e-4 { format!("{p:.1e}") } else { format!("{p:.4}") }
}

/// A count with a metric prefix and three digits.
pub(super) fn metric(value: f64) -> String {
    let found = [(1e9, "G"), (1e6, "M"), (1e3, "k")].into_iter().find(|(scale, _)| value >= *scale);
    let (scaled, unit) = found.map_or((value, ""), |(scale, unit)| (value / scale, unit));
    let digits = if scaled >= 100.0 {
        0
    } else if scaled >= 10.0 {
        1
    } else {
        2
    };
    if unit.is_empty() && value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{scaled:.digits$} {unit}").trim_end().to_owned()
    }
}

/// What is compared, in a sentence.
pub(super) fn measure(report: &Report) -> &'static str {
    if report.suite.measure == "validation" { "Validation accuracy" } else { "Test accuracy" }
}

/// How far the suite is.
pub(super) fn progress(report: &Report) -> String {
    let c = report.counts;
    let all = c.all();
    if report.is_complete() {
        return format!("All {all} tasks are done.");
    }
    let failed = if c.failed > 0 { format!(", {} have failed", c.failed) } else { String::new() };
    format!("{} of {all} tasks are done{failed}: these numbers are not final.", c.done)
}

/// What the tests say, one statement each.
pub(super) fn findings(report: &Report) -> Vec<String> {
    let Some(c) = &report.comparison else { return Vec::new() };
    let mut said = Vec::new();
    let f = &c.friedman;
    let verdict = if f.decisive_p() < ALPHA { "differ" } else { "cannot be told to differ" };
    said.push(format!(
        "Over {} datasets the {} methods {verdict} at the {:.0}% level (Friedman: chi-squared = {:.2}, p = {}; \
         Iman-Davenport: F = {:.2}, p = {}).",
        f.datasets,
        f.methods,
        100.0 * ALPHA,
        f.chi2,
        p_value(f.p),
        f.f,
        p_value(f.f_p)
    ));
    said.push(ranking(report, c));
    for pair in &c.pairs {
        let (a, b) = (&report.methods[pair.a].name, &report.methods[pair.b].name);
        let d = pair.difference;
        let verdict = match pair.holm < ALPHA {
            true if d.mean > 0.0 => format!("{a} is significantly better than {b}"),
            true => format!("{b} is significantly better than {a}"),
            false => format!("{a} and {b} are not significantly different"),
        };
        said.push(format!(
            "{verdict}: {a} - {b} = {} points (95% interval {} to {}), wins {}, ties {}, losses {}; Wilcoxon p = {} \
             after Holm's correction.",
            points(d.mean),
            points(d.low),
            points(d.high),
            pair.score.wins,
            pair.score.ties,
            pair.score.losses,
            p_value(pair.holm)
        ));
    }
    if c.datasets.len() < 10 {
        said.push(format!(
            "{} datasets are few: only large and consistent differences can be significant.",
            c.datasets.len()
        ));
    }
    said
}

fn ranking(report: &Report, c: &Comparison) -> String {
    let mut order: Vec<usize> = (0..report.methods.len()).collect();
    order.sort_by(|a, b| c.friedman.ranks[*a].total_cmp(&c.friedman.ranks[*b]));
    let ranks: Vec<String> =
        order.iter().map(|i| format!("{} {:.2}", report.methods[*i].name, c.friedman.ranks[*i])).collect();
    format!(
        "Average ranks, best first: {}. By Nemenyi's test ranks must differ by {:.2} to be told apart.",
        ranks.join(", "),
        c.nemenyi.critical_difference
    )
}
