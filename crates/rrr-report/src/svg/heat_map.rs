use super::Caption;
use super::builder::{Svg, number};
use super::text::{escape, shorten, width};

/// A square matrix of counts, such as a confusion matrix.
///
/// Cells are shaded by their share of the row; the diagonal and the rest have different colours.
#[derive(Debug, Clone)]
pub struct HeatMap<'a> {
    /// Title and description.
    pub caption: Caption<'a>,
    /// Names of the rows and columns.
    pub names: &'a [&'a str],
    /// Counts `[row][column]`.
    pub counts: &'a [Vec<u32>],
    /// What the rows are.
    pub row_label: &'a str,
    /// What the columns are.
    pub column_label: &'a str,
}

/// Width that the cells together should not exceed, in pixels, as long as they stay visible.
const TARGET: f64 = 840.0;
const MAX_NAME: usize = 22;
/// Smaller cells are left without their count.
const MIN_COUNT: f64 = 16.0;

/// Draws a heat map: names and counts are shown as long as there is room, and all of them on hover.
pub fn heat_map(chart: &HeatMap<'_>) -> String {
    let size = chart.names.len();
    let cell = (TARGET / size.max(1) as f64).clamp(2.0, 28.0);
    let font = (cell * 0.9).clamp(8.0, 12.0);
    // With cells lower than a line of text only every few rows are named.
    let stride = (font / cell).ceil().max(1.0) as usize;
    let names: Vec<_> = chart.names.iter().map(|name| shorten(name, MAX_NAME)).collect();
    let margin = names.iter().map(|name| width(name, font)).fold(24.0, f64::max) + 30.0;
    let side = cell * size as f64;

    let mut svg = Svg::new(margin + side + 10.0, margin + side + 10.0, chart.caption);
    svg.text((margin, 12.0), "label", "start", &format!("{} →", chart.column_label));
    svg.upright_text((12.0, margin), "class=\"label\"", "end", &format!("← {}", chart.row_label));
    for (index, name) in names.iter().enumerate().step_by(stride) {
        let middle = margin + cell * (index as f64 + 0.5) + font * 0.35;
        let (x, y) = (number(margin - 6.0), number(middle));
        svg.push(&format!(
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" style=\"font-size:{font:.1}px\">{}</text>",
            escape(name)
        ));
        let style = format!("style=\"font-size:{font:.1}px\"");
        svg.upright_text((middle, margin - 6.0), &style, "start", name);
    }
    svg.rect("class=\"frame\"", (margin, margin), (side, side), "");
    if cell >= 8.0 {
        for index in 1..size {
            let at = margin + cell * index as f64;
            svg.line("grid", (margin, at), (margin + side, at));
            svg.line("grid", (at, margin), (at, margin + side));
        }
    }
    for (row, counts) in chart.counts.iter().enumerate() {
        let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        for (column, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            draw_cell(&mut svg, chart, Cell { row, column, count, total, margin, size: cell });
        }
    }
    svg.finish()
}

struct Cell {
    row: usize,
    column: usize,
    count: u32,
    total: u64,
    margin: f64,
    size: f64,
}

fn draw_cell(svg: &mut Svg, chart: &HeatMap<'_>, cell: Cell) {
    let share = f64::from(cell.count) / cell.total as f64;
    // Rare cells must remain visible.
    let opacity = 0.15 + 0.85 * share;
    let class = if cell.row == cell.column { "hit" } else { "miss" };
    let gap = if cell.size >= 8.0 { 0.5 } else { 0.0 };
    let x = cell.margin + cell.size * cell.column as f64;
    let y = cell.margin + cell.size * cell.row as f64;
    let name = |index: usize| chart.names.get(index).copied().unwrap_or_default();
    let hover = format!(
        "{}: {}\n{}: {}\n{} of {}",
        chart.row_label,
        name(cell.row),
        chart.column_label,
        name(cell.column),
        cell.count,
        cell.total
    );
    let side = cell.size - 2.0 * gap;
    let attributes = format!("class=\"{class}\" fill-opacity=\"{}\"", number(opacity));
    svg.rect(&attributes, (x + gap, y + gap), (side, side), &hover);
    let digits = cell.count.to_string();
    if cell.size >= MIN_COUNT && width(&digits, 11.0) + 3.0 <= cell.size {
        let on = if opacity > 0.55 { format!("count on-{class}") } else { "count".to_owned() };
        let middle = (x + cell.size / 2.0, y + cell.size / 2.0 + 4.0);
        svg.push(&format!(
            "<text class=\"{on}\" x=\"{}\" y=\"{}\" style=\"font-size:11px\">{digits}</text>",
            number(middle.0),
            number(middle.1)
        ));
    }
}
