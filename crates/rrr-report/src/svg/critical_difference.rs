use super::Caption;
use super::builder::{Svg, number};
use super::scale::{Scale, Unit};
use super::text::{shorten, width};

/// Average ranks of methods and which of them cannot be told apart, after Demšar (JMLR 7, 2006).
#[derive(Debug, Clone)]
pub struct CriticalDifference<'a> {
    /// Title and description.
    pub caption: Caption<'a>,
    /// Names and average ranks; 1 is best.
    pub methods: &'a [(&'a str, f64)],
    /// Ranks that differ by less are not significantly different.
    pub difference: f64,
    /// Sets of methods that cannot be told apart, as indices.
    pub groups: &'a [Vec<usize>],
}

const WIDTH: f64 = 560.0;
const MAX_LABEL: usize = 26;
const AXIS: f64 = 58.0;
const ROW: f64 = 22.0;
const GROUP: f64 = 9.0;

/// Draws a critical-difference diagram: the best rank on the left, bars below the axis over methods that cannot be
/// told apart.
pub fn critical_difference(chart: &CriticalDifference<'_>) -> String {
    let mut order: Vec<usize> = (0..chart.methods.len()).collect();
    order.sort_by(|a, b| chart.methods[*a].1.total_cmp(&chart.methods[*b].1));
    let labels: Vec<_> = chart.methods.iter().map(|(name, _)| shorten(name, MAX_LABEL)).collect();
    let side = labels.iter().map(|l| width(l, 12.0)).fold(40.0, f64::max) + 52.0;
    let x = Scale::new((1.0, chart.methods.len().max(2) as f64), (side, WIDTH - side));
    let half = order.len().div_ceil(2);
    let first = AXIS + 22.0 + GROUP * chart.groups.len() as f64;
    let height = first + ROW * half as f64;

    let mut svg = Svg::new(WIDTH, height, chart.caption);
    let reach = x.at((1.0 + chart.difference).min(x.high));
    svg.line("level", (x.at(1.0), 26.0), (reach, 26.0));
    for end in [x.at(1.0), reach] {
        svg.line("whisker", (end, 22.0), (end, 30.0));
    }
    let beyond = if 1.0 + chart.difference > x.high { " (beyond the axis)" } else { "" };
    let text = format!("critical difference {:.2}{beyond}", chart.difference);
    svg.text((x.at(1.0), 14.0), "label", "start", &text);
    svg.line("axis", (x.at(x.low), AXIS), (x.at(x.high), AXIS));
    for rank in 1..=chart.methods.len().max(2) {
        let at = x.at(rank as f64);
        svg.line("axis", (at, AXIS - 5.0), (at, AXIS));
        svg.text((at, AXIS - 9.0), "tick", "middle", &rank.to_string());
    }
    for (row, group) in chart.groups.iter().enumerate() {
        let ranks = || group.iter().map(|i| chart.methods[*i].1);
        let (low, high) = (ranks().fold(f64::INFINITY, f64::min), ranks().fold(0.0, f64::max));
        let y = AXIS + 10.0 + GROUP * row as f64;
        svg.line("group", (x.at(low) - 4.0, y), (x.at(high) + 4.0, y));
    }
    for (place, &method) in order.iter().enumerate() {
        let (name, rank) = (&labels[method], chart.methods[method].1);
        let left = place < half;
        let row = if left { place } else { order.len() - 1 - place };
        let (at, y) = (x.at(rank), first + ROW * row as f64 + 8.0);
        let (end, anchor, text) = match left {
            true => (side - 8.0, "end", format!("{name}  {}", Unit::Number.value(rank))),
            false => (WIDTH - side + 8.0, "start", format!("{}  {name}", Unit::Number.value(rank))),
        };
        let points = [(at, AXIS), (at, y), (end, y)].map(|(x, y)| format!("{},{}", number(x), number(y)));
        svg.push(&format!("<polyline class=\"leader\" points=\"{}\"/>", points.join(" ")));
        let away = if left { -4.0 } else { 4.0 };
        svg.text((end + away, y + 4.0), "name", anchor, &text);
    }
    svg.finish()
}
