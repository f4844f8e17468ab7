//! The tables in LaTeX (booktabs).

use super::data::Report;
use super::text::{measure, metric, p_value, percent, points};
use std::fmt::Write;

/// The head of a column.
enum Head<'a> {
    /// LaTeX of our own.
    Markup(&'static str),
    /// Any text.
    Text(&'a str),
}

impl Head<'_> {
    fn latex(&self) -> String {
        match self {
            Self::Markup(latex) => (*latex).to_owned(),
            Self::Text(text) => escape(text),
        }
    }
}

pub(super) fn tables(report: &Report) -> String {
    let mut out = String::from("% \\usepackage{booktabs}\n");
    accuracies(&mut out, report);
    methods(&mut out, report);
    pairs(&mut out, report);
    out
}

fn accuracies(out: &mut String, report: &Report) {
    let caption = format!(
        "{} in percent on {} datasets, mean and standard deviation over seeds.",
        measure(report),
        report.datasets.len()
    );
    let header: Vec<Head<'_>> = report.methods.iter().map(|m| Head::Text(&m.name)).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, cells) in report.datasets.iter().zip(&report.cells) {
        let best = cells.iter().filter_map(|c| c.mean()).fold(f64::NEG_INFINITY, f64::max);
        let cell = |c: &super::CellSummary| match (c.mean(), c.sd()) {
            (Some(mean), sd) => {
                let text = percent(mean);
                let text = if mean == best { format!("\\textbf{{{text}}}") } else { text };
                sd.map_or(text.clone(), |sd| format!("{text} {{\\tiny $\\pm$ {}}}", percent(sd)))
            }
            _ => "--".into(),
        };
        rows.push(std::iter::once(escape(name)).chain(cells.iter().map(cell)).collect());
    }
    let means = report.methods.iter().map(|m| m.accuracy.map_or("--".into(), percent));
    let mut last = vec![std::iter::once("mean".to_owned()).chain(means).collect()];
    if let Some(c) = &report.comparison {
        let ranks = c.friedman.ranks.iter().map(|r| format!("{r:.2}"));
        last.push(std::iter::once("average rank".to_owned()).chain(ranks).collect());
    }
    table(out, &caption, "accuracy", "dataset", &header, &rows, &last);
}

fn methods(out: &mut String, report: &Report) {
    let header = ["parameters", "multiply-adds", "ms per image", "images/s", "training s"].map(Head::Markup);
    let rows: Vec<Vec<String>> = report
        .methods
        .iter()
        .map(|m| {
            vec![
                escape(&format!("{} {}", m.name, m.about)),
                metric(m.params),
                metric(m.macs),
                format!("{:.2}", m.latency_ms),
                format!("{:.0}", m.images_per_second),
                format!("{:.1}", m.train_seconds),
            ]
        })
        .collect();
    table(out, "Cost of the methods.", "cost", "method", &header, &rows, &[]);
}

fn pairs(out: &mut String, report: &Report) {
    let Some(c) = &report.comparison else { return };
    let header = ["difference", "95\\% interval", "w/t/l", "Wilcoxon $p$", "Holm $p$"].map(Head::Markup);
    let rows: Vec<Vec<String>> = c
        .pairs
        .iter()
        .map(|p| {
            let (d, s) = (p.difference, p.score);
            vec![
                escape(&format!("{} - {}", report.methods[p.a].name, report.methods[p.b].name)),
                format!("${}$", points(d.mean)),
                format!("$[{}, {}]$", points(d.low), points(d.high)),
                format!("{}/{}/{}", s.wins, s.ties, s.losses),
                p.wilcoxon.map_or("--".into(), |w| p_value(w.p)),
                p_value(p.holm),
            ]
        })
        .collect();
    let caption = "Pairs of methods: mean difference in percentage points over datasets with its bootstrap interval, \
                   wins/ties/losses, Wilcoxon's signed-rank test, and its p-value after Holm's correction.";
    table(out, caption, "pairs", "pair", &header, &rows, &[]);
}

fn table(
    out: &mut String,
    caption: &str,
    label: &str,
    first: &str,
    header: &[Head<'_>],
    rows: &[Vec<String>],
    last: &[Vec<String>],
) {
    let line = |cells: &[String]| format!("{} \\\\\n", cells.join(" & "));
    let _ = write!(
        out,
        "\n\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{tab:{label}}}\n\\begin{{tabular}}{{l{}}}\n\
         \\toprule\n{first} & {}\\midrule\n",
        "r".repeat(header.len()),
        line(&header.iter().map(Head::latex).collect::<Vec<_>>())
    );
    rows.iter().for_each(|row| out.push_str(&line(row)));
    if !last.is_empty() {
        out.push_str("\\midrule\n");
        last.iter().for_each(|row| out.push_str(&line(row)));
    }
    out.push_str("\\bottomrule\n\\end{tabular}\n\\end{table}\n");
}

/// Text for LaTeX.
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_whatever_they_hold() {
        let mut out = String::new();
        let header = [Head::Text("U$1\\u"), Head::Text("a_b & 5%"), Head::Markup("Holm $p$")];
        table(&mut out, "", "l", "dataset", &header, &[], &[]);
        let head = r"dataset & U\$1\textbackslash{}u & a\_b \& 5\% & Holm $p$ \\";
        assert!(out.contains(&format!("{head}\n\\midrule\n")), "{out}");
    }
}
